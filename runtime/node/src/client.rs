//! A rank's end of the connection to its node's service.
//!
//! Blocking, and safe to use from several threads: one request and its reply at a time, under one
//! lock. A collect that waits for other nodes asks again and again in short slices, so that the
//! rank's other threads get their turn.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use windlass_mem::MemFile;
use windlass_ve::CallError;

use crate::config::{JobId, Member};
use crate::control::MAX_PART;
use crate::error::{Error, Malformed};
use crate::line::{Line, expect_done, only, unexpected};
use crate::name::Address;
use crate::wire::{self, Greeting, Reply, Request, Token};

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
    line: Line,
    rank: u32,
}

impl Client {
    /// Connects to the service at `path` and joins as `rank`.
    pub fn join(path: &Path, rank: u32) -> Result<(Self, Welcome), Error> {
        let address = Address::Path(path.to_owned());
        let (line, reply, files) = Line::greet(&address, Greeting::Rank(rank))?;
        let Reply::Welcome(greeted) = reply else {
            return Err(unexpected());
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
        Ok((Self { line, rank }, welcome))
    }

    /// The world rank this is.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    pub(crate) fn abandon(&self) {
        self.line.abandon();
    }

    /// Ends the rank's part of the job in good order. The connection is closed.
    pub fn goodbye(&self) -> Result<(), Error> {
        self.line.goodbye()
    }

    /// The same of a process that is ending, without the connection's end: what it has on a VE stays until its own.
    pub(crate) fn farewell(&self) -> Result<(), Error> {
        self.line.farewell()
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
            _ => Err(unexpected()),
        }
    }

    /// A copy of the descriptor that a rank of this node deposited.
    pub fn withdraw(&self, token: Token) -> Result<OwnedFd, Error> {
        match self.call(&Request::Withdraw { token }, &[])? {
            (Reply::File, files) => only(files),
            _ => Err(unexpected()),
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
                _ => return Err(unexpected()),
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
        self.line.call(request, files)
    }
}

/// A rank's way to VEOS and IVED, for [`windlass_ve::Process`].
pub struct VeClient(pub Arc<Client>);

impl windlass_ve::Control for VeClient {
    fn call(
        &self,
        request: windlass_ve::Request,
    ) -> Result<(windlass_ve::Reply, Vec<OwnedFd>), CallError> {
        self.0.line.ask_veos(request)
    }
}

impl windlass_rsm::Control for Client {
    fn call(
        &self,
        request: windlass_rsm::Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(windlass_rsm::Reply, Vec<OwnedFd>), windlass_rsm::Gone> {
        windlass_rsm::Control::call(&self.line, request, files)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("rank", &self.rank)
            .finish_non_exhaustive()
    }
}
