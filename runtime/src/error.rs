//! What can go wrong below a window.
//!
//! The first function that knows a cause states it as the `source`; a text never repeats its
//! source. [`Error`] is cloneable, because one failed transfer may answer several waiting calls.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::mechanism::{Fault, MechanismId};

/// A cause, shared by every call that it fails.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a mechanism was doing when it failed (architecture section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Asking whether it can work here.
    Probe,
    /// Making memory reachable.
    Export,
    /// Reaching a peer's memory.
    Attach,
    /// Handing a transfer to the engine.
    Post,
    /// Waiting for a transfer.
    Complete,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Probe => "probe",
            Phase::Export => "export",
            Phase::Attach => "attach",
            Phase::Post => "post",
            Phase::Complete => "completion",
        })
    }
}

/// An error of the runtime. Ranks are the job's, if not said otherwise.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A mechanism failed in one of its phases.
    #[error("{mechanism}: {phase} failed towards rank {peer}")]
    Mechanism {
        /// Which mechanism.
        mechanism: MechanismId,
        /// In which phase.
        phase: Phase,
        /// The rank at the other end.
        peer: u32,
        /// Why.
        source: Cause,
    },
    /// No mechanism reaches a rank's memory.
    #[error("no mechanism reaches rank {target}:{}", list(tried))]
    Unreachable {
        /// The rank.
        target: u32,
        /// Each mechanism and why it does not serve.
        tried: Vec<(MechanismId, String)>,
    },
    /// A collective call failed on another rank, so it fails here too.
    #[error("the call failed on rank {rank}: {message}")]
    Peer {
        /// Where it failed first.
        rank: u32,
        /// What that rank reported.
        message: String,
    },
    /// A peer dropped the window (or ended) instead of taking part.
    #[error(
        "rank {rank} left the window without its collective end; \
         let every rank call the same fences and `free`"
    )]
    Departed {
        /// The rank that left.
        rank: u32,
    },
    /// Ranks made different collective calls on one window.
    #[error(
        "the ranks made different collective calls; \
         let every rank call the same fences and `free` in the same order"
    )]
    Disagree,
    /// Memory that all ranks of a team are to map cannot be mapped by one.
    #[error("rank {rank} does not share memory with the first rank: {why}")]
    NotShared {
        /// Which rank.
        rank: u32,
        /// Why not.
        why: String,
    },
    /// A list of ranks for a team is refused.
    #[error("rank {rank} of the list {rule}")]
    Listed {
        /// The rank, of the team that lists are made from.
        rank: u32,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// A peer cannot be reached any more.
    #[error("rank {rank} is lost: {detail}")]
    PeerLost {
        /// The rank.
        rank: u32,
        /// What was seen.
        detail: String,
    },
    /// The job as a whole is over.
    #[error("the job has ended: {0}")]
    JobLost(String),
    /// The range is outside the memory it names.
    #[error("bytes {offset}..{offset}+{len} are outside the {size} bytes there")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
        /// How many there are.
        size: u64,
    },
    /// An update that no route can make atomic.
    #[error("the update is refused: {0}")]
    Update(String),
    /// The uDAPL adapter that the user names.
    #[error("the adapter {name} of WINDLASS_DAT cannot be used")]
    Adapter {
        /// Its name.
        name: String,
        /// Why, and what would help.
        source: Cause,
    },
    /// No memory for a window of this size.
    #[error("the system refuses that many")]
    NoMemory {
        /// Bytes asked for.
        len: u64,
        /// What the system said.
        source: Cause,
    },
    /// A table of fixed size is full.
    #[error("{what}: all {limit} are in use; free one first")]
    Full {
        /// Which table.
        what: &'static str,
        /// Its size.
        limit: usize,
    },
    /// An environment variable has a value that is not understood.
    #[error("{variable}={value:?} is not understood; accepted: {accepted}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        accepted: String,
    },
    /// Windows were to lie on real VEs.
    #[error("WINDLASS_VE=native: {what}")]
    Native {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: Cause,
    },
    /// Joining or using the node service failed.
    #[error("the node service: {what}")]
    Node {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: Cause,
    },
    /// The process has a job already.
    #[error("this process has joined its job already; keep the first World and clone it")]
    Twice,
}

impl Error {
    /// Has the operation certainly not taken place, because the target refused another before it?
    pub fn is_unheard(&self) -> bool {
        matches!(self, Error::Mechanism { source, .. }
            if matches!(source.downcast_ref(), Some(Fault::Unheard)))
    }
}

/// Wraps a source error as a [`Cause`].
pub fn cause(error: impl StdError + Send + Sync + 'static) -> Cause {
    Arc::new(error)
}

/// One mechanism per line.
fn list(tried: &[(MechanismId, String)]) -> String {
    let lines = tried
        .iter()
        .map(|(mechanism, reason)| format!("\n    {:<9} {reason}", mechanism.name()));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mechanism_has_a_line_of_its_own() {
        let reason = |id, why: &str| (id, why.to_owned());
        let error = Error::Unreachable {
            target: 3,
            tried: vec![
                reason(MechanismId::Veshm, "no VE"),
                reason(MechanismId::Loopback, "not mine"),
            ],
        };
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let expected = [
            "no mechanism reaches rank 3:",
            "veshm     no VE",
            "loopback  not mine",
        ];
        assert_eq!(lines, expected);
    }
}
