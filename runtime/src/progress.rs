//! The one helper thread of a rank, and what every wait looks at.
//!
//! The helper sleeps in `poll` on the life pipe and on whatever the mechanisms serve; a target
//! that computes without a call is served by it (measured-designs 6). While the application
//! itself waits inside the runtime, its own thread drives the engines and the helper stays out
//! of the way.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use windlass_mem::sync::{self, Patience, Step};
use windlass_node::control::Control;

use crate::error::{Error, Result};
use crate::mechanism::Serve;

/// How long the helper leaves ready work to application threads before it looks at the life pipe.
const STAND_BACK: Duration = Duration::from_millis(5);

/// The helper looks this often whether an application that waits again and again still does.
const NAP: Duration = Duration::from_micros(60);

/// An application that left a wait so recently is expected back: a stream of short waits.
const BACK_SOON_NS: u64 = 20_000;

/// How long a rank that leaves waits for its last transfers: a peer that is stopped holds it no longer.
const FAREWELL: Duration = Duration::from_secs(1);

/// After a request the helper polls this long, if requests follow each other closely.
const SPIN: Duration = Duration::from_micros(50);

/// "Closely": the mean gap between an answer and the next request (measured-designs 6).
const CLOSE_GAP_NS: u64 = 20_000;

/// A sleeper cannot measure that gap, its own wake-up is in it. So while requests come at least
/// this often, after every so many of them it stays awake for a moment to see.
const OFTEN: Duration = Duration::from_micros(100);
const PROBE_EVERY: u32 = 8;
const PROBE: Duration = Duration::from_micros(25);

/// State of the job that every wait of this process consults.
#[derive(Default)]
pub struct Health {
    oversubscribed: AtomicBool,
    /// Application threads inside a wait that drives the engines.
    inside: AtomicU64,
    /// When the last of them left, in nanoseconds since `began`.
    left_ns: AtomicU64,
    began: OnceLock<Instant>,
    /// Set when the helper sleeps until `inside` is 0.
    stood_back: AtomicU64,
    /// What peers drive: served by the helper, and by waits.
    served: OnceLock<Vec<Arc<dyn Serve>>>,
    lost: OnceLock<String>,
    /// Where it is noted who left, for the launcher.
    notes: OnceLock<(Control, u32)>,
}

/// An application thread is inside a wait while this lives.
pub struct Inside<'a>(&'a Health);

impl Health {
    /// More ranks than cpus on this host: waits give the cpu away early.
    pub fn set_oversubscribed(&self, yes: bool) {
        self.oversubscribed.store(yes, Ordering::Relaxed);
    }

    /// See [`set_oversubscribed`](Self::set_oversubscribed).
    #[inline]
    pub fn oversubscribed(&self) -> bool {
        self.oversubscribed.load(Ordering::Relaxed)
    }

    /// From here on it can be noted who left, in the lines of the rank that is number `local` on its node.
    pub(crate) fn note_in(&self, control: Control, local: u32) {
        let _ = self.notes.set((control, local));
    }

    /// This rank was told that a peer has left or is gone.
    #[cold]
    pub(crate) fn told(&self, rank: u32) {
        if let Some((control, local)) = self.notes.get() {
            control.note_told(*local, rank);
        }
    }

    /// This rank leaves something that its peers may still synchronise on.
    #[cold]
    pub(crate) fn left(&self, what: &str) {
        if let Some((control, local)) = self.notes.get() {
            control.note_left(*local, what);
        }
    }

    /// How a wait polls, yields and then sleeps.
    pub fn patience(&self) -> Patience {
        Patience::new(self.oversubscribed())
    }

    /// The job is over: every wait ends with this reason.
    pub fn lose(&self, why: &str) {
        let _ = self.lost.set(why.to_owned());
    }

    /// # Errors
    /// [`Error::JobLost`] after [`lose`](Self::lose).
    pub fn check(&self) -> Result<()> {
        match self.lost.get() {
            None => Ok(()),
            Some(why) => Err(Error::JobLost(why.clone())),
        }
    }

    /// Marks the calling thread as driving the engines itself.
    pub fn inside(&self) -> Inside<'_> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        Inside(self)
    }

    /// Serves peers from the calling thread. `true` if there was anything to do.
    pub fn drive(&self) -> bool {
        let served = self.served.get();
        served.is_some_and(|served| served.iter().fold(false, |any, server| any | server.step()))
    }

    /// Serves peers until `done`, as long as polling is worth it. `true` if it is done: else sleep.
    pub fn drive_until(&self, done: impl Fn() -> bool) -> bool {
        sync::pay();
        if done() {
            return true;
        }
        let _inside = self.inside();
        let mut patience = self.patience();
        loop {
            let moved = self.drive();
            if done() {
                return true;
            }
            if moved {
                patience.restart();
            } else if matches!(patience.step(), Step::Sleep) {
                return false;
            }
        }
    }

    /// This process leaves: what it has posted arrives first, unless the job is lost.
    pub fn finish(&self) {
        for server in self.served.get().into_iter().flatten() {
            if self.check().is_ok() {
                server.finish(FAREWELL);
            }
        }
    }

    fn now_ns(&self) -> u64 {
        let began = self.began.get_or_init(Instant::now);
        u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Does the application drive the engines itself, now or again at once?
    fn is_driven(&self) -> bool {
        self.inside.load(Ordering::SeqCst) > 0
            || self.now_ns()
                < self
                    .left_ns
                    .load(Ordering::Relaxed)
                    .saturating_add(BACK_SOON_NS)
    }

    /// Leaves the work to the application as long as it drives, at most [`STAND_BACK`]. A stream of
    /// short waits pays nothing for it: the helper naps. Only the end of a long wait wakes it.
    fn stand_back(&self) {
        let until = Instant::now() + STAND_BACK;
        while self.is_driven() && Instant::now() < until {
            let left = self.left_ns.load(Ordering::Relaxed);
            std::thread::sleep(NAP);
            if left != self.left_ns.load(Ordering::Relaxed) {
                continue;
            }
            // A wait that sleeps in the engine needs the helper no more than one that polls, but
            // a stuck one must not matter.
            let _: Result<u64, ()> = sync::wait(
                &self.inside,
                &self.stood_back,
                true,
                |inside| inside == 0,
                || {
                    if Instant::now() >= until {
                        Err(())
                    } else {
                        Ok(())
                    }
                },
            );
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.left_ns.store(self.0.now_ns(), Ordering::Relaxed);
        if self.0.inside.fetch_sub(1, Ordering::SeqCst) == 1 {
            sync::wake(&self.0.inside, &self.0.stood_back);
        }
    }
}

/// The running helper thread; dropping it ends the thread.
pub struct Helper {
    stop: Option<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Helper {
    /// Starts it. `life` is the launcher's pipe: its end of file ends this process.
    ///
    /// # Errors
    /// The system refuses a pipe or a thread.
    pub fn start(
        health: Arc<Health>,
        life: Option<OwnedFd>,
        served: Vec<Arc<dyn Serve>>,
    ) -> std::io::Result<Helper> {
        let _ = health.served.set(served);
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new()
            .name("windlass-helper".into())
            .spawn(move || serve(&health, life, &stopped))?;
        Ok(Helper {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(health: &Health, life: Option<OwnedFd>, stopped: &OwnedFd) {
    let mut pace = Pace::new();
    let served = health.served.get().map_or(&[][..], Vec::as_slice);
    loop {
        let mut fds = vec![PollFd::new(stopped, PollFlags::IN)];
        fds.extend(
            served
                .iter()
                .map(|server| PollFd::from_borrowed_fd(server.fd(), PollFlags::IN)),
        );
        if let Some(life) = &life {
            fds.push(PollFd::from_borrowed_fd(life.as_fd(), PollFlags::IN));
        }
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[0].revents().is_empty() {
            return;
        }
        let launcher_gone = life.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        if launcher_gone {
            leave_at_once();
        }
        if health.is_driven() {
            health.stand_back();
        }
        if health.drive() {
            pace.served(health);
        }
    }
}

/// Whether to stay awake after a request, learnt from those before it.
struct Pace {
    last: Instant,
    /// Mean gap between an answer and the next request, as seen while awake.
    gap_ns: u64,
    unprobed: u32,
}

impl Pace {
    fn new() -> Pace {
        Pace {
            last: Instant::now(),
            gap_ns: 2 * CLOSE_GAP_NS,
            unprobed: 0,
        }
    }

    /// A sleeping helper has served a request. Polls a little longer if the next comes soon.
    fn served(&mut self, health: &Health) {
        let rare = self.last.elapsed() > OFTEN;
        self.last = Instant::now();
        if rare {
            self.gap_ns = 2 * CLOSE_GAP_NS;
            self.unprobed = 0;
            return;
        }
        self.unprobed += 1;
        if self.gap_ns < CLOSE_GAP_NS {
            self.spin(health, SPIN);
        } else if self.unprobed >= PROBE_EVERY {
            self.unprobed = 0;
            self.spin(health, PROBE);
        }
    }

    /// Serves for so long after each request; not beside the application.
    fn spin(&mut self, health: &Health, awake: Duration) {
        // Then the life pipe is looked at.
        let until = Instant::now() + STAND_BACK;
        while health.inside.load(Ordering::Relaxed) == 0 {
            let moved = health.drive();
            let gap = self.last.elapsed();
            if moved {
                self.last = Instant::now();
            }
            if moved || gap >= awake {
                let gap = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX);
                self.gap_ns = self.gap_ns / 4 * 3 + gap / 4;
            }
            if gap >= awake || (moved && self.last >= until) {
                return;
            }
            std::hint::spin_loop();
        }
    }
}

/// The launcher is gone: nobody would clean up after us, so nothing may be left running.
fn leave_at_once() -> ! {
    eprintln!("windlass: the launcher has gone; this rank ends");
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

/// Sleeps until `fd` is readable, at most `at_most`: how engines with a descriptor idle.
pub fn idle_on(fd: std::os::fd::BorrowedFd<'_>, at_most: Duration) {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: at_most.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    let _ = poll(&mut fds, Some(&timeout));
}
