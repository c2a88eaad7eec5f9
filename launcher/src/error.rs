//! Why a job could not be run at all. How a job that ran has ended is an
//! [`Outcome`](crate::Outcome), not an error.

use std::io;
use std::path::PathBuf;

use crate::place::PlaceError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A job that was not started, or a report that was not had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The placement cannot be had.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// No program on the command line.
    #[error(
        "no program to run; give its path and arguments, as in `windlass run -n 4 ./program`, or --example NAME or --bin NAME"
    )]
    MissingProgram,
    /// The program is not there.
    #[error("program `{}` was not found; give its path, or build and run a cargo target with --example NAME or --bin NAME", .0.display())]
    NoProgram(PathBuf),
    /// A name without a folder that is not in `PATH`, and is here.
    #[error("program `{}` is not in PATH; for the file in the current directory write ./{}", .0.display(), .0.display())]
    NotInPath(PathBuf),
    /// The program is there and cannot be executed.
    #[error("program `{}` cannot be executed by this user; check its mode with `ls -l`", .0.display())]
    NotExecutable(PathBuf),
    /// A rank could not be started.
    #[error("rank {rank} could not be started")]
    Start {
        /// Rank.
        rank: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The service of a logical node could not be started.
    #[error("the service of node {node} could not be started")]
    Node {
        /// Logical node.
        node: u32,
        /// Its reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A system call of the launcher itself failed.
    #[error("{what} failed")]
    System {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A variable of the environment or a flag has a value that is not accepted.
    #[error("{name}{}{value} is not accepted; {remedy}", if value.is_empty() { "" } else { "=" })]
    Value {
        /// Variable or flag.
        name: String,
        /// The refused value.
        value: String,
        /// Accepted values.
        remedy: String,
    },
    /// Cargo did not build the program.
    #[error("{0}")]
    Cargo(String),
    /// A rank's report could not be read.
    #[error("{0}")]
    Report(String),
}

impl Error {
    /// A failed system call of the launcher.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
        move |errno| Error::System {
            what,
            source: errno.into(),
        }
    }
}
