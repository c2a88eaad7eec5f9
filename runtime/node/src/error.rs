//! What can go wrong between a rank, its node's service and the services of other nodes.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a job can no longer gather: the first thing that ended it, with the rank or node named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A rank asked for the end of the job.
    Abort {
        /// World rank.
        rank: u32,
        /// The code it gave.
        code: i32,
        /// The reason it gave.
        message: String,
    },
    /// A rank's process ended without a goodbye.
    Lost {
        /// World rank.
        rank: u32,
    },
    /// A rank said goodbye before it gave its part.
    Ended {
        /// World rank.
        rank: u32,
    },
    /// The link to a node's service broke.
    Link {
        /// Number of the node.
        node: u32,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Abort {
                rank,
                code,
                message,
            } => {
                write!(f, "rank {rank} aborted the job with code {code}: {message}")
            }
            Cause::Lost { rank } => {
                write!(f, "rank {rank} ended without ending its part of the job")
            }
            Cause::Ended { rank } => write!(f, "rank {rank} left the job while others wait for it"),
            Cause::Link { node } => write!(f, "the link to node {node} is lost"),
        }
    }
}

/// Bytes that are not a message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame itself.
    #[error("a frame that is none: {0}")]
    Frame(String),
    /// Its content.
    #[error("{0} bytes that are no message")]
    Content(usize),
    /// A first message of another protocol or version.
    #[error("a greeting of version {theirs}, this side speaks {ours}; build both alike")]
    Version {
        /// What came.
        theirs: u16,
        /// What is understood.
        ours: u16,
    },
    /// No greeting at all.
    #[error("a first message that is no greeting")]
    Greeting,
    /// More, fewer or unasked-for files.
    #[error("{got} files where {expected} belong")]
    Files {
        /// Files the message says it carries.
        expected: usize,
        /// Files that came.
        got: usize,
    },
    /// A well-formed message that has no place here.
    #[error("{0} out of place")]
    Unexpected(&'static str),
}

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A contradiction in what the caller asked for.
    #[error("{0}")]
    Config(String),
    /// A system call failed.
    #[error("{call} failed: {errno}")]
    System {
        /// The call.
        call: &'static str,
        /// The kernel's answer.
        errno: rustix::io::Errno,
    },
    /// A system call on a path failed.
    #[error("{call} of {path}: {errno}", path = path.display())]
    Path {
        /// The call.
        call: &'static str,
        /// What it was applied to.
        path: PathBuf,
        /// The kernel's answer.
        errno: rustix::io::Errno,
    },
    /// Memory could not be made or mapped.
    #[error(transparent)]
    Memory(#[from] windlass_mem::Error),
    /// The control segment is not one.
    #[error("the control segment cannot be used: {0}")]
    Segment(String),
    /// A value longer than its bound.
    #[error("{what} of {len} bytes: at most {max}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its bytes.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The other side does not keep to the protocol.
    #[error("the peer sent {0}")]
    Malformed(#[from] Malformed),
    /// The service answered no, and says why.
    #[error("the node service refused: {0}")]
    Refused(String),
    /// The rank to be joined as has a process already, or had one.
    #[error("{0}")]
    Taken(String),
    /// No service could be started for a process that is alone or the first on a named node.
    #[error("{0}")]
    Start(String),
    /// The other side closed the connection.
    #[error("the node service is gone")]
    Gone,
    /// The other side let the deadline pass.
    #[error("no answer before the deadline")]
    Late,
    /// A file that was sent could not be received.
    #[error("a file could not be received: no descriptor to spare (raise ulimit -n)")]
    NoDescriptor,
    /// The process at the other end belongs to another user.
    #[error("the socket belongs to user {theirs}, this process to user {ours}")]
    Owner {
        /// User of the peer.
        theirs: u32,
        /// User of this process.
        ours: u32,
    },
    /// The service lives in a PID namespace whose processes this one cannot name.
    #[error(
        "the node service is in another PID namespace (a container?); \
         start the launcher in the namespace of its ranks"
    )]
    Namespace,
    /// The other node did not prove that it knows the job's secret.
    #[error("node {node} at {address} did not authenticate: {reason}")]
    Link {
        /// Number of the node that was to be reached.
        node: u32,
        /// Its address.
        address: std::net::SocketAddr,
        /// What was wrong.
        reason: String,
    },
    /// The job has ended or is broken.
    #[error("{0}")]
    Broken(Cause),
}

impl Error {
    pub(crate) fn system(call: &'static str, errno: rustix::io::Errno) -> Self {
        Error::System { call, errno }
    }

    /// From the standard library's error, whose number the kernel gave.
    pub(crate) fn io(call: &'static str, error: &std::io::Error) -> Self {
        let errno = rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO);
        Error::System { call, errno }
    }
}

/// An error with its causes, each once.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        // A transparent wrapper says what its source says.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = source.source();
    }
    text
}
