//! A rank's end of the connection to its node's service.
//!
//! Blocking, and safe to use from several threads: one request and its reply at a time, under one
//! lock. A collect that waits for other nodes asks again and again in short slices, so that the
//! rank's other threads get their turn.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use windlass_mem::MemFile;
use windlass_ve::CallError;

use crate::channel::{Channel, Until};
use crate::config::{JobId, Member};
use crate::control::MAX_PART;
use crate::error::{Error, Malformed};
use crate::home::own_uid;
use crate::wire::{self, Greeting, Reply, Request, Token};

/// How long a service may take to greet; it answers at once unless its machine is overloaded.
const WELCOME_TIME: Duration = Duration::from_secs(10);

/// What a rank learns when it joins.
#[derive(Debug)]
pub struct Welcome {
    /// The job.
    pub job: JobId,
    /// Number of this node.
    pub node: u32,
    /// Nodes of the job.
    pub nodes: u32,
    /// Ranks of the job.
    pub size: u32,
    /// All ranks, in their order.
    pub members: Vec<Member>,
    /// The control segment's file; see [`crate::Control::open`].
    pub control: MemFile,
    /// Vector Engines of this node.
    pub ves: u32,
}

/// A joined rank. Dropping it without [`Client::goodbye`] makes the rank count as lost.
pub struct Client {
    /// `None` once the connection failed or the goodbye was said.
    channel: Mutex<Option<Channel>>,
    rank: u32,
}

impl Client {
    /// Connects to the service at `path` and joins as `rank`.
    pub fn join(path: &Path, rank: u32) -> Result<(Self, Welcome), Error> {
        let failed = |errno| Error::Path {
            call: "connect",
            path: path.to_owned(),
            errno,
        };
        let socket = UnixStream::connect(path).map_err(|error| {
            failed(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL))
        })?;
        // Both ends check whom they talk to (spec reliability S2).
        let service = windlass_mem::peer::credentials(&socket)?;
        let theirs = service.uid;
        if theirs != own_uid() {
            return Err(Error::Owner {
                theirs,
                ours: own_uid(),
            });
        }
        if service.pid == 0 {
            return Err(Error::Namespace); // the pids of peers would mean other processes here
        }
        let mut channel = Channel::new(Arc::new(socket));
        match channel.send_body(&wire::encode_greeting(&Greeting { rank }), &[]) {
            // A service that closed without listening may have said why.
            Ok(()) | Err(Error::Gone) => {}
            Err(error) => return Err(error),
        }
        let until = Until {
            deadline: Some(Instant::now() + WELCOME_TIME),
            process: None,
        };
        let (greeted, files) = match channel.receive(until)? {
            (Reply::Welcome(greeted), files) => (greeted, files),
            (Reply::Refused(text), _) => return Err(Error::Refused(text)),
            _ => return Err(Malformed::Unexpected("a reply").into()),
        };
        let control = MemFile::from_fd(only(files)?)?;
        let sorted = greeted
            .members
            .iter()
            .enumerate()
            .all(|(i, m)| m.rank as usize == i);
        let known = greeted
            .members
            .get(rank as usize)
            .is_some_and(|m| m.node == greeted.node);
        if !sorted || !known {
            return Err(Malformed::Unexpected("a list of members").into());
        }
        let welcome = Welcome {
            job: greeted.job,
            node: greeted.node,
            nodes: greeted.nodes,
            size: greeted.members.len() as u32,
            members: greeted.members,
            control,
            ves: greeted.ves,
        };
        Ok((
            Self {
                channel: Mutex::new(Some(channel)),
                rank,
            },
            welcome,
        ))
    }

    /// The world rank this is.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Ends the rank's part of the job in good order. The connection is closed.
    pub fn goodbye(&self) -> Result<(), Error> {
        let mut channel = self.channel.lock();
        let result = exchange(&mut channel, &Request::Goodbye, &[]);
        *channel = None;
        expect_done(result?)
    }

    /// Asks for the job to be ended. The launcher ends every rank soon after.
    pub fn abort(&self, code: i32, message: &str) -> Result<(), Error> {
        let message = wire::shorten(message).to_owned();
        expect_done(self.call(&Request::Abort { code, message }, &[])?)
    }

    /// Leaves a copy of a descriptor with the service; any rank of this node can have it for the
    /// token. It is forgotten when this rank ends.
    pub fn deposit(&self, file: impl AsFd) -> Result<Token, Error> {
        match self.call(&Request::Deposit, &[file.as_fd()])? {
            (Reply::Deposited(token), _) => Ok(token),
            _ => Err(Malformed::Unexpected("a reply").into()),
        }
    }

    /// A copy of the descriptor that a rank of this node deposited.
    pub fn withdraw(&self, token: Token) -> Result<OwnedFd, Error> {
        match self.call(&Request::Withdraw { token }, &[])? {
            (Reply::File, files) => only(files),
            _ => Err(Malformed::Unexpected("a reply").into()),
        }
    }

    /// Makes the service forget a descriptor that this rank deposited.
    pub fn revoke(&self, token: Token) -> Result<(), Error> {
        expect_done(self.call(&Request::Revoke { token }, &[])?)
    }

    /// Sends a rank's part of a gather round to all other nodes. Any rank of the node may bring
    /// the parts of the others; each part is brought once. Rounds count upwards by one, and at
    /// most two are open at a time. A part has at most [`MAX_PART`] bytes.
    pub fn gather_part(&self, round: u64, rank: u32, blob: &[u8]) -> Result<(), Error> {
        if blob.len() > MAX_PART {
            return Err(Error::TooLong {
                what: "a gathered part",
                len: blob.len(),
                max: MAX_PART,
            });
        }
        let blob = blob.to_vec();
        expect_done(self.call(&Request::GatherPart { round, rank, blob }, &[])?)
    }

    /// Waits until the parts of all ranks of other nodes are there and gives them, by world rank.
    /// One rank of each node collects a round, once. If the job breaks meanwhile the error names
    /// the rank or node.
    pub fn gather_collect(&self, round: u64) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let mut all: Vec<(u32, Vec<u8>)> = Vec::new();
        loop {
            let have = all.len() as u32;
            match self.call(&Request::GatherCollect { round, have }, &[])? {
                (Reply::Parts { parts, complete }, _) => {
                    all.extend(parts);
                    if complete {
                        break;
                    }
                }
                (Reply::Broken(cause), _) => return Err(Error::Broken(cause)),
                _ => return Err(Malformed::Unexpected("a reply").into()),
            }
        }
        all.sort_unstable_by_key(|(rank, _)| *rank);
        Ok(all)
    }

    fn call(
        &self,
        request: &Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let mut channel = self.channel.lock();
        let result = exchange(&mut channel, request, files);
        // A waiting thread goes first: a collect would otherwise take the lock again at once.
        MutexGuard::unlock_fair(channel);
        result
    }
}

/// One request and its reply. A connection that failed is not used again: its next bytes could
/// belong to an earlier request.
fn exchange(
    slot: &mut Option<Channel>,
    request: &Request,
    files: &[BorrowedFd<'_>],
) -> Result<(Reply, Vec<OwnedFd>), Error> {
    // Encoded before anything is sent: a message that is too long harms nothing.
    let body = wire::encode(request, files.len())?;
    let channel = slot.as_mut().ok_or(Error::Gone)?;
    let sent = channel.send_body(&body, files);
    match sent.and_then(|()| channel.receive(Until::default())) {
        Ok((Reply::Refused(text), _)) => Err(Error::Refused(text)),
        Ok(reply) => Ok(reply),
        Err(error) => {
            *slot = None;
            Err(error)
        }
    }
}

fn expect_done((reply, _): (Reply, Vec<OwnedFd>)) -> Result<(), Error> {
    match reply {
        Reply::Done => Ok(()),
        _ => Err(Malformed::Unexpected("a reply").into()),
    }
}

fn only(mut files: Vec<OwnedFd>) -> Result<OwnedFd, Error> {
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (Some(_), more) => Err(Malformed::Files {
            expected: 1,
            got: more + 1,
        }
        .into()),
        // The channel lets this through only where the kernel could not install the file.
        (None, _) => Err(Error::NoDescriptor),
    }
}

/// A rank's way to VEOS and IVED, for [`windlass_ve::Process`].
pub struct VeClient(pub Arc<Client>);

impl windlass_ve::Control for VeClient {
    fn call(
        &self,
        request: windlass_ve::Request,
    ) -> Result<(windlass_ve::Reply, Vec<OwnedFd>), CallError> {
        match self.0.call(&Request::Ve(request), &[]) {
            Ok((Reply::Ve(Ok(reply)), files)) => Ok((reply, files)),
            Ok((Reply::Ve(Err(errno)), _)) => Err(CallError::Errno(errno)),
            Ok(_) => Err(CallError::Gone),
            Err(error) => {
                tracing::debug!(%error, "VEOS cannot be asked");
                Err(CallError::Gone)
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("rank", &self.rank)
            .finish_non_exhaustive()
    }
}
