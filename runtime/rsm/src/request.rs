//! What a process asks the node's service about segments, and what that answers.
//!
//! A request is an allegation: every number in it is checked by the service. Files travel beside both.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::code::Code;
use crate::pass::{Door, Network, Pass};

/// What a process may ask.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Which node is this? The file of all counters comes back.
    Info,
    /// What do processes of several nodes reach each other by?
    Network,
    /// A queue of signals for an export segment. Its reading end comes back.
    Create {
        /// For every node of the job; else for this one alone.
        cluster: bool,
    },
    /// The export segment is given up, published or not.
    Destroy {
        /// From [`Body::Created`].
        export: u64,
    },
    /// Others may connect. With this travel the memory's file to read, and to write where anybody may.
    Publish {
        /// From [`Body::Created`].
        export: u64,
        /// Its id; 0: one that is free.
        id: u32,
        /// Who may.
        access: Access,
        /// Where importers of other nodes come in, if it is for them.
        door: Option<Door>,
    },
    /// Nobody may any more, and those who did are cut off.
    Unpublish {
        /// From [`Body::Created`].
        export: u64,
    },
    /// Other access for whoever connects from now on.
    Republish {
        /// From [`Body::Created`].
        export: u64,
        /// Who may.
        access: Access,
    },
    /// The memory is in other files from now on; they travel with this, as with a publish.
    Rebind {
        /// From [`Body::Created`].
        export: u64,
    },
    /// A connection, with these rights. Its reading end for signals comes back, and the memory's file if it has any right.
    Connect {
        /// By the controller that leads to every node of the job.
        cluster: bool,
        /// Node of the segment.
        node: u32,
        /// Its id.
        id: u32,
        /// Bits of [`PERM_RDWR`](crate::PERM_RDWR).
        permission: u32,
    },
    /// The connection's present memory. Its file comes back.
    Reopen {
        /// From [`Body::Connected`].
        connection: u64,
    },
    /// The connection is given up.
    Disconnect {
        /// From [`Body::Connected`].
        connection: u64,
    },
    /// A signal: to the exporter of a connection, or to all importers of an export segment.
    Post {
        /// To whom.
        to: Target,
        /// Not to those who have one pending.
        once: bool,
    },
}

/// Whom a signal is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Target {
    /// The importers of an export segment.
    Importers(u64),
    /// The exporter of a connection's segment.
    Exporter(u64),
}

/// Answers without their files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// To [`Request::Info`].
    Info {
        /// Number of this node.
        node: u32,
        /// How many the job has, from 0 on.
        nodes: u32,
        /// Those to which there is no way any more.
        lost: Vec<u32>,
        /// User that the service runs as, whose the counters' file is.
        uid: u32,
    },
    /// To [`Request::Network`].
    Network(Network),
    /// To [`Request::Create`].
    Created {
        /// What it is called from now on.
        export: u64,
    },
    /// To [`Request::Publish`].
    Published {
        /// Its id.
        id: u32,
    },
    /// To [`Request::Connect`].
    Connected {
        /// What it is called from now on.
        connection: u64,
        /// Bytes of the segment.
        len: u64,
        /// User whose its files are.
        uid: u32,
        /// Place of its counters.
        slot: u32,
        /// The counters at this moment.
        counts: Counts,
        /// The segment is another node's: there is no file of it, and this lets the caller in at its exporter.
        pass: Option<Pass>,
    },
    /// Done.
    Done,
}

/// The two counters of a published segment. Neither ever goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Raised when the segment is published and when it ends (rsm 7.4).
    pub generation: u64,
    /// Raised when its memory is in another file.
    pub backing: u64,
}

/// An answer: what is encoded, and the files that are passed beside it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The encoded part.
    pub body: Body,
    files: Vec<Arc<OwnedFd>>,
}

impl From<Body> for Answer {
    fn from(body: Body) -> Self {
        Self::with_files(body, Vec::new())
    }
}

impl Answer {
    pub(crate) fn with_files(body: Body, files: Vec<Arc<OwnedFd>>) -> Self {
        Self { body, files }
    }

    /// The files to pass, in order.
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        self.files.iter().map(|file| file.as_fd()).collect()
    }
}

/// The service does not answer any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

/// What came back to a request.
pub type Reply = Result<Body, Code>;

/// A process's way to the service.
pub trait Control: Send + Sync {
    /// Sends a request with these files, and waits for the answer with its.
    ///
    /// # Errors
    /// [`Gone`].
    fn call(
        &self,
        request: Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Gone>;
}
