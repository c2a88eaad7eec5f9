//! Supervision: from the first rank started to the last one gone.
//!
//! Relies on: one pidfd per rank, the node services' presence words and events, and the
//! launcher's signals, all behind one `poll`.
//! Promises (reliability A3): when a rank fails, the others get SIGTERM at once and SIGKILL
//! [`GRACE`] later, with their process groups; the cause is worded before they are ended. Ranks are reaped only
//! when the job is over, so no pid is reused while it runs (A8).

mod judge;
mod leaver;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use windlass_node::Event;

use crate::ending::{Cause, End, Fate, RankEnd, count, signal_name};
use crate::guard::Guard;
use crate::nodes::Nodes;
use crate::output::timespec;
use crate::place::Seat;
use crate::spawn::{Signals, Started};

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// A process that SIGKILL does not end within this time is stuck in the kernel: it is named and left.
const STUCK: Duration = Duration::from_secs(5);
/// After a joined rank's exit, its service sees the closed connection: at most this is waited
/// for it, so that an abort it sent just before is known when its exit is judged.
const SETTLE: Duration = Duration::from_millis(200);

/// How long an abort, or an end with an error, waits for the death that may be its cause.
const HESITATE: Duration = Duration::from_millis(50);
/// How long ranks that failed because another one left wait for that one's own end: a panic is still on its way out.
const FAREWELL: Duration = Duration::from_millis(800);
/// Failed ranks described one by one; the rest are counted.
const DESCRIBED: usize = 4;

/// Events of the node services, and the descriptor that says that one has come.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) events: Mutex<VecDeque<Event>>,
    pub(crate) wake: OwnedFd,
}

struct Watch {
    seat: Seat,
    started: Started,
    end: Option<Ended>,
}

struct Ended {
    status: End,
    /// The round of `poll` in which the end was seen: ranks of one round ended together.
    round: u64,
    seen: Instant,
    fate: Option<Fate>,
}

/// The job while it runs.
pub(crate) struct Supervisor<'a> {
    nodes: &'a Nodes,
    inbox: Arc<Inbox>,
    signals: Option<&'a Signals>,
    cancel: BorrowedFd<'a>,
    notices: bool,
    ranks: Vec<Watch>,
    round: u64,
    deadline: Option<(Instant, Duration)>,
    cause: Option<Cause>,
    /// When the ranks were told to end.
    ending: Option<Instant>,
    killed: Option<Instant>,
    message: String,
    guard: Option<Guard>,
    /// An abort may come of a peer's end, which is waited for: at most [`HESITATE`], or [`SETTLE`]
    /// where the rank's service has noted a loss.
    consequence: Option<(Instant, Cause, String)>,
}

/// What supervision found.
pub(crate) struct Verdict {
    pub(crate) cause: Option<Cause>,
    pub(crate) ranks: Vec<RankEnd>,
    pub(crate) message: String,
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(
        nodes: &'a Nodes,
        inbox: Arc<Inbox>,
        signals: Option<&'a Signals>,
        cancel: BorrowedFd<'a>,
        timeout: Option<Duration>,
        notices: bool,
    ) -> Supervisor<'a> {
        // A time-out beyond what the clock can hold is none.
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t).map(|at| (at, t)));
        Supervisor {
            nodes,
            inbox,
            signals,
            cancel,
            notices,
            ranks: Vec::new(),
            round: 0,
            deadline,
            cause: None,
            ending: None,
            killed: None,
            message: String::new(),
            consequence: None,
            guard: Guard::start(nodes.homes(), notices),
        }
    }

    /// Takes a started rank into its care.
    pub(crate) fn add(&mut self, seat: Seat, started: Started) {
        if let Some(guard) = &mut self.guard {
            guard.add(started.pid);
        }
        self.ranks.push(Watch {
            seat,
            started,
            end: None,
        });
    }

    /// Kills what was started: for a start that failed half-way.
    pub(crate) fn abandon(&mut self) {
        self.signal_all(Signal::KILL);
        self.reap();
    }

    /// Returns when every rank has ended; they are still to be reaped.
    pub(crate) fn run(&mut self) -> Verdict {
        while self
            .ranks
            .iter()
            .any(|watch| watch.end.as_ref().is_none_or(|end| end.fate.is_none()))
        {
            self.wait();
            self.collect();
            self.take_events();
            self.judge();
            self.take_signals();
            self.check_clock();
            if self.killed.is_some_and(|at| at.elapsed() > STUCK) {
                self.give_up();
            }
        }
        self.take_consequence(Instant::now() + SETTLE);
        let ranks = self
            .ranks
            .iter()
            .map(|watch| self.rank_end(watch))
            .collect();
        Verdict {
            cause: self.cause,
            ranks,
            message: std::mem::take(&mut self.message),
        }
    }

    /// Ends what is left of the ranks' process groups and reaps the ranks.
    pub(crate) fn reap(&mut self) {
        for watch in &mut self.ranks {
            // Our child is not reaped yet, so the group id is still ours.
            let _ = kill_process_group(watch.started.pid, Signal::KILL);
            if watch.end.as_ref().is_some_and(|end| {
                end.fate == Some(Fate::Swept) && self.killed.is_some_and(|at| at.elapsed() > STUCK)
            }) {
                continue;
            }
            let _ = watch.started.child.wait();
        }
    }

    /// Sleeps until a rank ends, a signal or an event comes, or a time is reached.
    fn wait(&mut self) {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(self.ranks.len() + 3);
        fds.push(PollFd::new(&self.inbox.wake, PollFlags::IN));
        if self.cause.is_none() {
            fds.push(PollFd::from_borrowed_fd(self.cancel, PollFlags::IN));
        }
        if let Some(signals) = self.signals {
            fds.push(PollFd::new(signals.fd(), PollFlags::IN));
        }
        for watch in self.ranks.iter().filter(|watch| watch.end.is_none()) {
            fds.push(PollFd::new(&watch.started.pidfd, PollFlags::IN));
        }
        // An interrupted poll is a poll that found nothing.
        let _ = poll(&mut fds, self.next_time().map(timespec).as_ref());
        self.round += 1;
    }

    /// Time left until the next thing the clock decides.
    fn next_time(&self) -> Option<Duration> {
        let now = Instant::now();
        let pending = |watch: &Watch| {
            let end = watch.end.as_ref()?;
            let times = [HESITATE, SETTLE, FAREWELL].map(|time| end.seen + time);
            let next = times.into_iter().find(|&time| now < time);
            end.fate.is_none().then(|| next.unwrap_or(now))
        };
        let settle = self.ranks.iter().filter_map(pending).min();
        let kill = self
            .ending
            .filter(|_| self.killed.is_none())
            .map(|at| at + GRACE);
        let stuck = self.killed.map(|at| at + STUCK);
        let consequence = self.consequence.as_ref().map(|(at, ..)| *at);
        let deadline = self
            .deadline
            .filter(|_| self.ending.is_none())
            .map(|(at, _)| at);
        [settle, kill, stuck, deadline, consequence]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(now))
    }

    /// Notes which ranks have ended, without reaping them.
    fn collect(&mut self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        for watch in self.ranks.iter_mut().filter(|watch| watch.end.is_none()) {
            let Ok(Some(found)) = waitid(WaitId::PidFd(watch.started.pidfd.as_fd()), options)
            else {
                continue;
            };
            let status = match (found.exit_status(), found.terminating_signal()) {
                (Some(status), _) => End::Exited(status),
                (None, Some(signal)) => End::Signalled(signal),
                (None, None) => continue,
            };
            let seen = Instant::now();
            watch.end = Some(Ended {
                status,
                round: self.round,
                seen,
                fate: None,
            });
        }
    }

    fn take_events(&mut self) {
        let mut counter = [0; 8];
        // Not readable is no event; the queue is the truth.
        let _ = rustix::io::read(&self.inbox.wake, &mut counter);
        loop {
            // A forwarder that panicked left whole events: the queue is still good.
            let next = self
                .inbox
                .events
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .pop_front();
            let Some(event) = next else { return };
            match event {
                Event::Abort {
                    rank,
                    code,
                    message,
                } if self.cause.is_none() => {
                    let line = format!("rank {rank} aborted the job with code {code}: {message}");
                    let cause = Cause::Abort { rank, code };
                    // A rank may see a peer's connection break before anybody sees the peer's end.
                    let wait = if self
                        .first_to_leave(rank)
                        .is_some_and(|first| self.lives(first))
                    {
                        FAREWELL
                    } else if self.follows_a_loss(rank) {
                        SETTLE
                    } else {
                        HESITATE
                    };
                    self.consequence
                        .get_or_insert((Instant::now() + wait, cause, line));
                }
                Event::LinkLost { node } if self.cause.is_none() => {
                    self.say(format!("the link to the service of node {node} is lost"));
                    self.begin_end(Cause::Service);
                }
                // The presence word says the same, and the exit that follows is what counts.
                _ => {}
            }
        }
    }

    fn take_signals(&mut self) {
        if self.cause.is_none() && readable(self.cancel) {
            self.interrupt(libc::SIGTERM, "the job was ended by its owner");
            self.begin_end(Cause::Interrupted {
                signal: libc::SIGTERM,
            });
        }
        while let Some(signal) = self.signals.and_then(Signals::next) {
            let name = signal_name(signal);
            if matches!(self.cause, Some(Cause::Interrupted { .. })) {
                self.say(format!("{name} again: killing the ranks"));
                self.kill();
            } else if self.cause.is_none() {
                self.interrupt(
                    signal,
                    &format!("{name}: forwarded to the ranks; a second one kills them"),
                );
            } else {
                self.kill();
            }
        }
    }

    /// An abort after a loss, whose lost rank has not failed until `now`, is the cause after all.
    fn take_consequence(&mut self, now: Instant) {
        if let Some((_, cause, line)) = self.consequence.take_if(|(at, ..)| *at <= now)
            && self.cause.is_none()
        {
            self.say(line);
            self.begin_end(cause);
        }
    }

    /// Notes that `signal` ends the job and passes it on.
    fn interrupt(&mut self, signal: i32, text: &str) {
        self.say(text.into());
        self.cause = Some(Cause::Interrupted { signal });
        if let Some(signal) = Signal::from_named_raw(signal) {
            self.signal_all(signal);
        }
    }

    fn check_clock(&mut self) {
        self.take_consequence(Instant::now());
        if let Some((at, limit)) = self.deadline
            && self.ending.is_none()
            && Instant::now() >= at
        {
            let calls = self.living().filter_map(|watch| {
                let call = self.nodes.last_call(watch.seat.rank)?;
                Some(format!("rank {} in {call}", watch.seat.rank))
            });
            let calls: Vec<String> = calls.take(DESCRIBED * 2).collect();
            let calls = if calls.is_empty() {
                String::new()
            } else {
                format!("; last {}", calls.join(", "))
            };
            self.say(format!(
                "time-out of {limit:?}: {} still running{calls}",
                count(self.living().count(), "rank")
            ));
            self.begin_end(Cause::TimedOut);
        }
        if self.killed.is_none() && self.ending.is_some_and(|at| at.elapsed() >= GRACE) {
            self.kill();
        }
    }

    /// SIGTERM to all that live, now; [`Self::check_clock`] kills what is left later.
    fn begin_end(&mut self, cause: Cause) {
        self.cause.get_or_insert(cause);
        if self.ending.is_some() {
            return;
        }
        let living = self.living().count();
        if living > 0 {
            let line = match (living, living < self.ranks.len()) {
                (1, true) => "ending the other rank".into(),
                (1, false) => "ending the rank".into(),
                (_, true) => format!("ending the other {living} ranks"),
                (_, false) => format!("ending the {living} ranks"),
            };
            self.say(line);
        }
        self.ending = Some(Instant::now());
        self.signal_all(Signal::TERM);
        // A stopped rank takes SIGTERM only when it continues.
        self.signal_all(Signal::CONT);
    }

    fn kill(&mut self) {
        self.ending.get_or_insert_with(Instant::now);
        self.killed.get_or_insert_with(Instant::now);
        self.signal_all(Signal::KILL);
    }

    /// Ranks that SIGKILL did not end are in an uninterruptible system call: name them and go.
    fn give_up(&mut self) {
        let stuck = |watch: &mut Watch| {
            let seen = Instant::now();
            let ended = Ended {
                status: End::Signalled(libc::SIGKILL),
                round: u64::MAX,
                seen,
                fate: Some(Fate::Swept),
            };
            watch
                .end
                .is_none()
                .then(|| watch.end.insert(ended))
                .map(|_| watch.started.pid)
        };
        let stuck: Vec<_> = self.ranks.iter_mut().filter_map(stuck).collect();
        for pid in stuck {
            self.say(format!("process {pid} does not end after SIGKILL: it is inside the kernel; see /proc/{pid}/stack"));
        }
    }

    fn living(&self) -> impl Iterator<Item = &Watch> {
        self.ranks.iter().filter(|watch| watch.end.is_none())
    }

    /// To the groups of the ranks that live.
    fn signal_all(&self, signal: Signal) {
        for watch in self.living() {
            // ESRCH: it has ended just now, which is what we want.
            let _ = kill_process_group(watch.started.pid, signal);
        }
    }

    fn rank_end(&self, watch: &Watch) -> RankEnd {
        let Seat { rank, node, place } = watch.seat;
        let (status, fate) = match &watch.end {
            Some(end) => (end.status, end.fate.unwrap_or(Fate::Done)),
            None => (End::Exited(0), Fate::Done),
        };
        let pid = watch.started.pid.as_raw_nonzero().get();
        RankEnd {
            rank,
            node,
            place,
            pid,
            status,
            fate,
            last_call: self.nodes.last_call(rank),
        }
    }

    /// A line of the launcher's own.
    fn say(&mut self, line: String) {
        if self.notices {
            eprintln!("windlass: {line}");
        }
        if !self.message.is_empty() {
            self.message.push('\n');
        }
        self.message.push_str(&line);
    }
}

/// Something is there to read.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let none = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&none)).is_ok_and(|ready| ready > 0)
}
