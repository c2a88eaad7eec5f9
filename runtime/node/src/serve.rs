//! One connection, from its greeting to its end, on a thread of its own; here a rank's, in `guests` the others'.
//!
//! Whatever a peer sends, the worst it can do is end its own connection: that is logged with the
//! reason, and if the connection was a rank's, the rank counts as lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use windlass_mem::peer::{Credentials, credentials};
use windlass_rsm::OwnerId;
use windlass_ve::ProcessId;

use crate::channel::{Channel, Until};
use crate::config::Place;
use crate::crew::Visit;
use crate::error::{Error, Malformed};
use crate::guests::{serve_visitor, serve_watcher};
use crate::home::own_uid;
use crate::hub::Hub;
use crate::segments::{ask_rsm, send_segment};
use crate::wire::{self, Greeted, Greeting, Reply, Request};

/// Time in which a connection must have joined (spec reliability S2).
pub(crate) const GREETING_TIME: Duration = Duration::from_secs(2);

/// Who is at the other end, by the kernel's word.
pub(crate) struct Peer {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Readable once the process is dead, also where a child of it keeps the socket open.
    pub(crate) process: Arc<OwnedFd>,
}

/// A rank that joined.
struct Rank {
    rank: u32,
    local: usize,
    /// VEOS knows a process of a VE from its start, one of the host from its first call.
    ve: Option<ProcessId>,
    /// The service of segments knows a process from its first call.
    rsm: Option<OwnerId>,
}

/// What a request leads to.
enum Answer {
    Reply(Reply),
    Segment(Result<windlass_rsm::Answer, windlass_rsm::Code>),
    File(Arc<OwnedFd>),
    Goodbye,
}

/// Serves a connection until it ends.
pub(crate) fn serve(hub: &Hub, visit: &Visit, socket: Arc<UnixStream>) {
    let mut channel = Channel::new(socket);
    let peer = match identify(hub, channel.as_fd()) {
        Ok(peer) => peer,
        Err(error) => {
            // A process of this user is told why; another user's learns nothing but a close.
            if let Error::Refused(text) = &error {
                let _ = channel.send(&Reply::Refused(text.clone()), &[]);
                tracing::debug!(text, "a process was refused, and told why");
            } else {
                tracing::warn!(%error, "a connection to the node service was closed");
            }
            return;
        }
    };
    let outcome = match greet(&mut channel, &peer) {
        Ok(Greeting::Rank(rank)) => serve_rank(hub, visit, &mut channel, &peer, rank),
        Ok(Greeting::Visitor(ve)) => serve_visitor(hub, visit, &mut channel, &peer, ve),
        Ok(Greeting::Watcher) => match serve_watcher(hub, &mut channel, &peer) {
            Err(Error::Gone) => Ok(()),
            other => other,
        },
        Err(error) => Err(error),
    };
    match outcome {
        // It comes again, as a visitor.
        Err(Error::Taken(why)) => tracing::debug!(pid = peer.pid, why, "a rank has its process"),
        Err(Error::Refused(why)) => {
            tracing::debug!(pid = peer.pid, why, "a process was refused, and told why");
        }
        Err(error) if !hub.stopping() => {
            tracing::warn!(pid = peer.pid, %error, "a connection to the node service was closed")
        }
        _ => {}
    }
}

/// Serves a rank from its greeting to its end; an error is one of its beginning.
fn serve_rank(
    hub: &Hub,
    visit: &Visit,
    channel: &mut Channel,
    peer: &Peer,
    rank: u32,
) -> Result<(), Error> {
    let mut rank = join(hub, visit, channel, peer, rank)?;
    let place = hub.plan.members[rank.rank as usize].place;
    let ve = match place {
        Place::Ve(number) => Some(number),
        Place::Vh => None,
    };
    // A mistake of ours must not leave the others waiting for a rank that nobody serves.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _stay = hub.people.enter(peer, channel, ve, false)?;
        converse(hub, channel, peer, &mut rank)
    }));
    leave(hub, &rank);
    match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(Error::Gone)) => {}
        Ok(Err(error)) if !hub.stopping() => {
            tracing::warn!(rank = rank.rank, %error, "a rank's connection was closed");
        }
        Ok(Err(_)) => {}
        Err(_) => tracing::error!(rank = rank.rank, "a request made the node service panic"),
    }
    hub.lost(rank.local);
    Ok(())
}

/// The peer by the credentials of its socket; it must belong to this user (spec reliability S2), unless the node is one that
/// admits all.
fn identify(hub: &Hub, socket: BorrowedFd<'_>) -> Result<Peer, Error> {
    let Credentials { pid, uid, gid } = credentials(socket)?;
    let ours = own_uid();
    if uid != ours && !hub.open {
        return Err(Error::Owner { theirs: uid, ours });
    }
    let elsewhere = || {
        Error::Refused(
            "the service cannot see this process: it is in another PID namespace (a container?), \
             or has ended; start the launcher in the namespace of its ranks"
                .into(),
        )
    };
    // 0: a process that this one's PID namespace cannot name.
    let named = Pid::from_raw(pid).ok_or_else(elsewhere)?;
    let process = match pidfd_open(named, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Err(elsewhere()),
        other => other.map_err(|errno| Error::system("pidfd_open", errno))?,
    };
    let start_time = windlass_mem::cross::start_time(pid).map_err(|_| elsewhere())?;
    Ok(Peer {
        pid,
        start_time,
        uid,
        gid,
        process: Arc::new(process),
    })
}

fn greet(channel: &mut Channel, peer: &Peer) -> Result<Greeting, Error> {
    let deadline = Instant::now() + GREETING_TIME;
    let until = Until {
        deadline: Some(deadline),
        process: Some(peer.process.as_fd()),
    };
    let body = channel.receive_body(until)?;
    match wire::decode_greeting(&body) {
        Ok(greeting) => Ok(greeting),
        Err(malformed) => {
            // A stranger learns nothing but a close; another version of ourselves is told.
            if let Malformed::Version { .. } = malformed {
                refuse(channel, Error::Refused(malformed.to_string()));
            }
            Err(malformed.into())
        }
    }
}

fn join(
    hub: &Hub,
    visit: &Visit,
    channel: &mut Channel,
    peer: &Peer,
    rank: u32,
) -> Result<Rank, Error> {
    let local = hub.reserve(rank).map_err(|error| refuse(channel, error))?;
    let mut rank = Rank {
        rank,
        local,
        ve: None,
        rsm: None,
    };
    let place = hub.plan.members[rank.rank as usize].place;
    if let Place::Ve(number) = place {
        let joined = hub
            .ve
            .lock()
            .join(peer.pid, peer.start_time, peer.uid, Some(number));
        rank.ve = Some(joined.map_err(|errno| {
            hub.release(local);
            let text = format!("rank {} cannot run on {place}: {errno}", rank.rank);
            refuse(channel, Error::Refused(text))
        })?);
    }
    if !visit.admit() {
        leave(hub, &rank);
        hub.release(local);
        return Err(Error::Gone);
    }
    hub.joined(local, peer.pid, peer.start_time);
    let welcome = Reply::Welcome(Greeted {
        job: hub.plan.job,
        node: hub.plan.node,
        nodes: hub.plan.nodes,
        members: hub.plan.members.clone(),
        ves: hub.plan.ves,
    });
    if let Err(error) = channel.send(&welcome, &[hub.control_file.as_fd()]) {
        leave(hub, &rank);
        hub.lost(local);
        return Err(error);
    }
    Ok(rank)
}

fn leave(hub: &Hub, rank: &Rank) {
    if let Some(process) = rank.ve {
        hub.ve.lock().leave(process);
    }
    hub.leave_segments(rank.rsm);
}

/// Tells the peer and gives the same reason for the log.
pub(crate) fn refuse(channel: &Channel, reason: Error) -> Error {
    let reply = match &reason {
        Error::Refused(text) => Reply::Refused(text.clone()),
        Error::Taken(text) => Reply::Taken(text.clone()),
        // Ours alone: the peer learns nothing but a close.
        _ => return reason,
    };
    // A peer that does not listen to the refusal is closed all the same.
    let _ = channel.send(&reply, &[]);
    reason
}

/// Answers requests until the connection's end, which is a good one (`Ok`) after a goodbye. A process that says its goodbye
/// while it ends is still on its VE until it has: its memory may lie there.
fn converse(hub: &Hub, channel: &mut Channel, peer: &Peer, rank: &mut Rank) -> Result<(), Error> {
    let until = Until {
        deadline: None,
        process: Some(peer.process.as_fd()),
    };
    let mut ended = false;
    loop {
        let (request, files) = match channel.receive::<Request>(until) {
            Err(Error::Gone) if ended => return Ok(()),
            other => other?,
        };
        if ended && !matches!(request, Request::Ve(_)) {
            return Ok(());
        }
        match answer(hub, peer, rank, request, files)? {
            Answer::Reply(Reply::Ve(reply)) => {
                let files = reply
                    .as_ref()
                    .map(|reply| reply.files())
                    .unwrap_or_default();
                channel.send(&Reply::Ve(reply.clone()), &files)?;
            }
            Answer::Reply(reply) => channel.send(&reply, &[])?,
            Answer::Segment(answer) => send_segment(channel, answer)?,
            Answer::File(file) => channel.send(&Reply::File, &[file.as_fd()])?,
            Answer::Goodbye => {
                hub.ended(rank.local);
                ended = true;
                // The rank may be gone before it reads this; it did say goodbye.
                let _ = channel.send(&Reply::Done, &[]);
            }
        }
    }
}

fn answer(
    hub: &Hub,
    peer: &Peer,
    rank: &mut Rank,
    request: Request,
    mut files: Vec<OwnedFd>,
) -> Result<Answer, Error> {
    if let Request::Rsm(request) = request {
        let answer = ask_rsm(hub, peer, &mut rank.rsm, request, files);
        return Ok(Answer::Segment(answer));
    }
    if request != Request::Deposit {
        expect_no_files(&files)?;
    }
    Ok(Answer::Reply(match request {
        Request::Goodbye => return Ok(Answer::Goodbye),
        Request::Abort { code, message } => {
            hub.abort(rank.rank, code, &message);
            Reply::Done
        }
        Request::Deposit => match (files.pop(), files.len()) {
            (Some(file), 0) => hub.deposit(rank.rank, file),
            (Some(_), more) => {
                return Err(Malformed::Files {
                    expected: 1,
                    got: more + 1,
                }
                .into());
            }
            (None, _) => Reply::Refused(
                "no file arrived; the service may have no descriptor to spare (raise ulimit -n)"
                    .into(),
            ),
        },
        Request::Withdraw { token } => match hub.withdraw(&token) {
            Some(file) => return Ok(Answer::File(file)),
            None => Reply::Refused("no file has the token; its rank may have left".into()),
        },
        Request::Revoke { token } => hub.revoke(rank.rank, &token),
        Request::GatherPart { round, rank, blob } => hub.local_part(round, rank, blob),
        Request::GatherCollect { round, have } => hub.collect(round, have),
        Request::Ve(request) => Reply::Ve(ask_veos(hub, peer, &mut rank.ve, request)),
        Request::Status
        | Request::StopVe { .. }
        | Request::Stop
        | Request::Fault(_)
        | Request::Rsm(_) => Reply::Refused("a rank cannot ask this; use `windlass node`".into()),
    }))
}

pub(crate) fn expect_no_files(files: &[OwnedFd]) -> Result<(), Error> {
    match files.len() {
        0 => Ok(()),
        got => Err(Malformed::Files { expected: 0, got }.into()),
    }
}

pub(crate) fn ask_veos(
    hub: &Hub,
    peer: &Peer,
    process: &mut Option<ProcessId>,
    request: windlass_ve::Request,
) -> Result<windlass_ve::Reply, windlass_ve::Errno> {
    let mut ve = hub.ve.lock();
    let process = match *process {
        Some(process) => process,
        None => *process.insert(ve.join(peer.pid, peer.start_time, peer.uid, None)?),
    };
    ve.handle(process, request)
}
