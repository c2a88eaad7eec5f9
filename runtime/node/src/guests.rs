//! Connections of visitors and watchers on the service's side, and the processes that a stop of VEOS kills.
//!
//! A visitor is who its socket's credentials say, with its start time. Visitors are bounded, in all and of one user, so that
//! on a named node no user shuts the others out. A watcher stays among the unproved connections, which are bounded already.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Signal, getrlimit, pidfd_send_signal};
use windlass_rsm::OwnerId;
use windlass_ve::{Ived, MAX_VES, ProcessId};

use crate::channel::{Channel, Until, again, timespec};
use crate::crew::Visit;
use crate::error::Error;
use crate::home::own_uid;
use crate::hub::Hub;
use crate::segments::{ask_rsm, send_segment};
use crate::serve::{Peer, ask_veos, expect_no_files, refuse};
use crate::service::Event;
use crate::wire::{Fault, NodeKind, Reply, Request, Status, StopReport, VeStatus};

/// Visitors of one user: one who fills every VE (256 processes on each of 8, spec ve-memory section 1).
pub const MAX_VISITORS_OF_USER: usize = 2048;
/// Visitors of one node: as many again, for the other users.
pub const MAX_VISITORS: usize = 2 * MAX_VISITORS_OF_USER;
/// Descriptors of the service that a visitor takes at most: its socket, its process, and files on their way.
const FILES_PER_VISITOR: usize = 4;
/// Descriptors of the service besides.
const FILES_BESIDES: usize = 256;
/// How long a process that executes another program may take to leave as the one it was.
const TURN_TIME: Duration = Duration::from_secs(1);
/// Between two looks: the old connection ends within microseconds on a machine that is not overloaded.
const TURN_PAUSE: Duration = Duration::from_micros(200);
/// How long the kernel may take to end a process that was sent SIGKILL, on a machine that has much else to do.
const DEATH_TIME: Duration = Duration::from_secs(10);

/// Visitors that this process can serve, in all and of one user: as far as its descriptors go.
pub fn visitor_bounds() -> (usize, usize) {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let all = files.saturating_sub(FILES_BESIDES) / FILES_PER_VISITOR;
    let all = all.min(MAX_VISITORS);
    (all, (all / 2).min(MAX_VISITORS_OF_USER))
}

/// Descriptors of the service that segments may take: an eighth.
pub(crate) fn segment_files() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 8).unwrap_or(usize::MAX)
}

/// A joined process: rank or visitor.
struct Person {
    pid: i32,
    uid: u32,
    ve: Option<u32>,
    visitor: bool,
    /// To be killed by, and by nothing else: never the pid alone.
    process: Arc<OwnedFd>,
    socket: Arc<UnixStream>,
}

/// Who has joined, of whatever kind.
#[derive(Default)]
pub(crate) struct People {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Person>>,
    /// Nobody is let in any more.
    closed: AtomicBool,
    /// Stops of VEOS that are not answered yet.
    answering: AtomicU64,
    /// VEs that were stopped, as bits.
    stopped: AtomicU64,
}

/// A place among the people; left on drop.
pub(crate) struct Stay<'a> {
    people: &'a People,
    id: u64,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.people.all.lock().remove(&self.id);
    }
}

impl People {
    /// Notes a process that joined.
    pub(crate) fn enter(
        &self,
        peer: &Peer,
        channel: &Channel,
        ve: Option<u32>,
        visitor: bool,
    ) -> Result<Stay<'_>, Error> {
        let mut all = self.all.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Gone);
        }
        if visitor {
            let of = |uid: Option<u32>| {
                all.values()
                    .filter(|person| person.visitor && uid.is_none_or(|uid| uid == person.uid))
                    .count()
            };
            let (most, most_of_user) = visitor_bounds();
            let full = if of(None) >= most {
                Some(format!("the node has {most} visitors"))
            } else if of(Some(peer.uid)) >= most_of_user {
                Some(format!(
                    "user {} has {most_of_user} visitors on the node",
                    peer.uid
                ))
            } else {
                None
            };
            if let Some(full) = full {
                return Err(Error::Refused(format!(
                    "{full}; end one first, or let its service open more files (ulimit -n) up to {MAX_VISITORS} visitors"
                )));
            }
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let person = Person {
            pid: peer.pid,
            uid: peer.uid,
            ve,
            visitor,
            process: Arc::clone(&peer.process),
            socket: channel.socket(),
        };
        all.insert(id, person);
        Ok(Stay { people: self, id })
    }

    /// Closes the node for good if nobody is in it: whoever comes now is turned away unanswered, and tries again.
    pub(crate) fn close_if_empty(&self) -> bool {
        let all = self.all.lock();
        // Whoever stops VEOS, which ends the last visitor, is to hear what became of it.
        let empty = all.is_empty() && self.answering.load(Ordering::SeqCst) == 0;
        if empty {
            self.closed.store(true, Ordering::Relaxed);
        }
        empty
    }

    /// Kills these processes and waits for their death.
    fn kill(&self, pids: &[i32]) -> StopReport {
        let mut report = StopReport::default();
        let named: BTreeMap<i32, (Arc<OwnedFd>, Arc<UnixStream>)> = self
            .all
            .lock()
            .values()
            .filter(|person| pids.contains(&person.pid))
            .map(|p| (p.pid, (Arc::clone(&p.process), Arc::clone(&p.socket))))
            .collect();
        let deadline = Instant::now() + DEATH_TIME;
        // All are sent it before the first is waited for.
        let sent: Vec<_> = named
            .into_iter()
            .map(|(pid, (process, socket))| {
                let sent = pidfd_send_signal(&process, Signal::KILL);
                if let Err(errno) = sent
                    && errno != Errno::SRCH
                {
                    tracing::warn!(pid, %errno, "a process could not be killed at its VE's stop");
                }
                (pid, process, socket, sent != Err(Errno::PERM))
            })
            .collect();
        for (pid, process, socket, may) in sent {
            if may && dead_before(&process, deadline) {
                report.killed.push(pid);
            } else {
                // What it holds is gone all the same, and it is told by the end of its connection.
                let _ = socket.shutdown(Shutdown::Both);
                report.spared.push(pid);
            }
        }
        report
    }
}

fn dead_before(process: &OwnedFd, deadline: Instant) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let ended = again(|| {
        let left = deadline.saturating_duration_since(Instant::now());
        poll(&mut fds, Some(&timespec(left)))
    });
    ended.is_ok_and(|count| count > 0)
}

impl Hub {
    /// Stops VEOS of these VEs and kills whom that concerns (spec ve-memory section 6, last rows).
    pub(crate) fn stop_ves(&self, ves: std::ops::Range<u32>) -> StopReport {
        let mut pids = Vec::new();
        {
            let mut veos = self.ve.lock();
            for ve in ves {
                self.people.stopped.fetch_or(1 << ve, Ordering::Relaxed);
                let stopped = veos.stop_ve(ve);
                pids.extend(stopped.ended);
                pids.extend(stopped.killed);
            }
        }
        self.people.kill(&pids)
    }

    /// Lets a test break what cannot be broken from outside.
    fn fault(&self, peer: &Peer, fault: Fault) -> Reply {
        if !may_stop(peer) {
            return not_yours();
        }
        let mut veos = self.ve.lock();
        let ived = |state| (Some(state), Ok(()));
        let (state, done) = match fault {
            Fault::IvedAbsent => ived(Ived::Absent),
            Fault::IvedUnreachable => ived(Ived::Unreachable),
            Fault::IvedConnected => ived(Ived::Connected),
            Fault::Process(pid, damage) => (None, veos.damage(pid, damage)),
        };
        if let Some(state) = state {
            veos.set_ived(state);
        }
        match done {
            Ok(()) => Reply::Done,
            Err(errno) => Reply::Refused(format!("no such VE process: {errno}")),
        }
    }

    fn status(&self) -> Status {
        let stopped = self.people.stopped.load(Ordering::Relaxed);
        let all = self.people.all.lock();
        let count = |wanted: &dyn Fn(&Person) -> bool| {
            let found = all.values().filter(|person| wanted(person)).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        let (ranks, visitors) = (count(&|p| !p.visitor), count(&|p| p.visitor));
        let here: Vec<u32> = (0..self.plan.ves)
            .map(|ve| count(&|p| p.ve == Some(ve)))
            .collect();
        drop(all);
        let veos = self.ve.lock();
        let ves = (0..).zip(here).filter_map(|(ve, processes)| {
            let (free_bytes, slots, directories) = veos.free_resources(ve)?;
            Some(VeStatus {
                running: stopped >> ve & 1 == 0,
                processes,
                free_bytes,
                free_pciatb_slots: slots as u64,
                free_dmaatb_directories: directories as u64,
            })
        });
        Status {
            kind: self.kind.clone(),
            pid: rustix::process::getpid().as_raw_pid(),
            uid: own_uid(),
            profile: self.profile.to_string(),
            errno: self.profile.errno.to_string(),
            ranks,
            visitors,
            ves: ves.collect(),
        }
    }
}

/// Serves a visitor until its end.
pub(crate) fn serve_visitor(
    hub: &Hub,
    visit: &Visit,
    channel: &mut Channel,
    peer: &Peer,
    ve: Option<u32>,
) -> Result<(), Error> {
    let stay = hub.people.enter(peer, channel, ve, true);
    let stay = stay.map_err(|error| refuse(channel, error))?;
    let mut process = match ve {
        Some(number) => Some(begin(hub, peer, number).map_err(|error| refuse(channel, error))?),
        None => None,
    };
    let pid = peer.pid;
    let mut owner = None;
    hub.report(Event::Entered { pid });
    let admitted = visit.admit();
    // A mistake of ours must not keep what the visitor holds.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if !admitted {
            return Err(Error::Gone);
        }
        channel.send(&Reply::Admitted, &[])?;
        converse(hub, channel, peer, &mut process, &mut owner)
    }));
    if let Some(process) = process {
        hub.ve.lock().leave(process);
    }
    hub.leave_segments(owner);
    drop(stay);
    hub.report(Event::Left { pid });
    match outcome {
        Ok(Err(Error::Gone)) => Ok(()),
        Ok(result) => result,
        Err(_) => {
            tracing::error!(pid, "a request made the node service panic");
            Ok(())
        }
    }
}

/// Begins on a VE. A process that has executed another program is still there as the one it was until its old connection's
/// end was seen: wait for that.
fn begin(hub: &Hub, peer: &Peer, ve: u32) -> Result<ProcessId, Error> {
    use windlass_ve::Errno;
    let deadline = Instant::now() + TURN_TIME;
    loop {
        let joined = hub
            .ve
            .lock()
            .join(peer.pid, peer.start_time, peer.uid, Some(ve));
        let why = match joined {
            Ok(process) => return Ok(process),
            Err(Errno::Ebusy) if Instant::now() < deadline => {
                std::thread::sleep(TURN_PAUSE);
                continue;
            }
            Err(Errno::Einval) => no_such_ve(hub, ve),
            Err(Errno::Ebusy) => "this process has entered already".into(),
            Err(Errno::Enotsup) => "its VEOS was stopped".into(),
            Err(Errno::Enomem) => "it has all the processes it can have".into(),
            Err(errno) => errno.to_string(),
        };
        return Err(Error::Refused(format!(
            "no process can begin on ve{ve}: {why}"
        )));
    }
}

/// What the node has, and how it would have had this one.
fn no_such_ve(hub: &Hub, ve: u32) -> String {
    let needed = ve.saturating_add(1);
    let remedy = match &hub.kind {
        _ if needed > MAX_VES => format!("give VE_NODE_NUMBER 0 to {}", MAX_VES - 1),
        NodeKind::Job(_) => format!("start the job with `windlass run --ves {needed}`"),
        NodeKind::Named(name) => {
            format!("start the node with `windlass node --name {name} --ves {needed}`")
        }
        NodeKind::Private => format!("start the program with WINDLASS_VES={needed}"),
    };
    let (ves, s) = (hub.plan.ves, if hub.plan.ves == 1 { "" } else { "s" });
    format!("the node has {ves} VE{s}, counted from 0; {remedy}")
}

/// Answers a visitor's requests until it is gone.
fn converse(
    hub: &Hub,
    channel: &mut Channel,
    peer: &Peer,
    process: &mut Option<ProcessId>,
    owner: &mut Option<OwnerId>,
) -> Result<(), Error> {
    loop {
        let (request, files) = receive(channel, peer)?;
        let request = match request {
            Request::Rsm(request) => {
                send_segment(channel, ask_rsm(hub, peer, owner, request, files))?;
                continue;
            }
            other => other,
        };
        expect_no_files(&files)?;
        let reply = match request {
            Request::Ve(request) => {
                let answer = ask_veos(hub, peer, process, request);
                let files = answer.as_ref().map(|reply| reply.files());
                channel.send(&Reply::Ve(answer.clone()), &files.unwrap_or_default())?;
                continue;
            }
            Request::Status => Reply::Status(hub.status()),
            _ => Reply::Refused("this process is no rank of the job".into()),
        };
        channel.send(&reply, &[])?;
    }
}

/// Serves a watcher until its end. It is never admitted: one of too many may be cut off.
pub(crate) fn serve_watcher(hub: &Hub, channel: &mut Channel, peer: &Peer) -> Result<(), Error> {
    channel.send(&Reply::Admitted, &[])?;
    loop {
        let (request, files) = receive(channel, peer)?;
        expect_no_files(&files)?;
        let ves = match request {
            Request::Status => {
                channel.send(&Reply::Status(hub.status()), &[])?;
                continue;
            }
            Request::Fault(fault) => {
                channel.send(&hub.fault(peer, fault), &[])?;
                continue;
            }
            Request::StopVe { ve } if ve < hub.plan.ves => Ok(ve..ve + 1),
            Request::StopVe { ve } => Err(format!(
                "ve{ve}: the node has {} VEs, counted from 0",
                hub.plan.ves
            )),
            Request::Stop => Ok(0..hub.plan.ves),
            _ => Err("a watcher only looks".into()),
        };
        hub.people.answering.fetch_add(1, Ordering::SeqCst);
        let reply = match ves {
            _ if !may_stop(peer) => not_yours(),
            Ok(ves) => Reply::Stopped(hub.stop_ves(ves)),
            Err(text) => Reply::Refused(text),
        };
        let stop = request == Request::Stop && matches!(reply, Reply::Stopped(_));
        let sent = channel.send(&reply, &[]);
        hub.people.answering.fetch_sub(1, Ordering::SeqCst);
        if stop {
            hub.report(Event::Stop);
        }
        sent?;
    }
}

/// The node's owner and root.
fn may_stop(peer: &Peer) -> bool {
    peer.uid == own_uid() || peer.uid == 0
}

fn not_yours() -> Reply {
    let owner = own_uid();
    Reply::Refused(format!(
        "the node belongs to user {owner}: that user and root may stop it"
    ))
}

fn receive(channel: &mut Channel, peer: &Peer) -> Result<(Request, Vec<OwnedFd>), Error> {
    let until = Until {
        deadline: None,
        process: Some(peer.process.as_fd()),
    };
    channel.receive::<Request>(until)
}
