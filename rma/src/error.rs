//! Errors of windows, epochs and operations (architecture section 7).
//!
//! Every error says on which rank, in which call, on which window and at which line of the
//! program it happened: its [`Site`]. What the layer below reported stays its `source`.
//! A refused call had no effect and left the epoch as it was (mpi-rma 7).

mod class;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use windlass_runtime as runtime;

use crate::layout::LayoutError;
use crate::op::Op;
use crate::state::{Call, State};
use crate::window::Flavor;

pub use class::ErrorClass;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where an error happened.
#[derive(Clone)]
pub struct Site {
    /// The call of this crate.
    pub call: &'static str,
    /// The calling rank; `None` before the job is known.
    pub rank: Option<u32>,
    /// Name of the window, if the call was about one.
    pub window: Option<Arc<str>>,
    /// The caller's source line.
    pub location: &'static Location<'static>,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        if let Some(window) = &self.window {
            write!(f, " on {window}")?;
        }
        if let Some(rank) = self.rank {
            write!(f, " by rank {rank}")?;
        }
        write!(f, " at {}:{}", self.location.file(), self.location.line())
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Size and alignment of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementKind {
    /// Bytes of one.
    pub size: u32,
    /// Its alignment in bytes.
    pub align: u32,
}

impl fmt::Display for ElementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes aligned to {}", self.size, self.align)
    }
}

/// An error of this crate. [`class`](Error::class) gives the MPI error class.
///
/// `Debug` prints the text with its causes, so that `main` may return the error.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rank outside the job.
    #[error("{at}: there is no rank {target}; this job has ranks 0 to {}", size - 1)]
    BadRank {
        /// The refused rank.
        target: u32,
        /// Ranks in the job.
        size: u32,
        /// Where.
        at: Box<Site>,
    },
    /// A rank that a group does not have, or has already.
    #[error("{at}: rank {rank} {why}: the group has {size} ranks")]
    Group {
        /// The refused rank.
        rank: u32,
        /// Ranks in the group.
        size: u32,
        /// What is wrong with it.
        why: &'static str,
        /// Where.
        at: Box<Site>,
    },
    /// Bytes outside the target's part of the window. Nothing was moved.
    #[error("{at}: bytes {first}..{end} are outside the {extent} bytes of rank {target}")]
    Range {
        /// The rank whose part it is.
        target: u32,
        /// First byte touched, counted from the start of the part.
        first: i128,
        /// The byte behind the last.
        end: i128,
        /// Bytes of the part.
        extent: u64,
        /// Where.
        at: Box<Site>,
    },
    /// Bytes outside a buffer of the caller. Nothing was moved.
    #[error("{at}: the layout touches bytes {first}..{end} of the {what}, which has {len}")]
    Buffer {
        /// Which buffer.
        what: &'static str,
        /// First byte touched, counted from the start of the buffer.
        first: i128,
        /// The byte behind the last.
        end: i128,
        /// Bytes of the buffer.
        len: u64,
        /// Where.
        at: Box<Site>,
    },
    /// Element types that do not fit each other, or not the call.
    #[error("{at}: {what}")]
    Type {
        /// What does not fit.
        what: String,
        /// Where.
        at: Box<Site>,
    },
    /// A layout that cannot be.
    #[error("{at}: this layout cannot be")]
    Layout {
        /// Why.
        source: LayoutError,
        /// Where.
        at: Box<Site>,
    },
    /// Assertions that the call does not take.
    #[error("{at}: assertion bits {bits:#x} are not for this call, which takes {allowed:#x}")]
    Assertion {
        /// What was given.
        bits: u32,
        /// What the call takes.
        allowed: u32,
        /// Where.
        at: Box<Site>,
    },
    /// A displacement unit of 0.
    #[error("{at}: a displacement unit is at least 1 byte")]
    DispUnit {
        /// Where.
        at: Box<Site>,
    },
    /// A call that a window of this flavour does not take.
    #[error("{at}: not for a window of flavour {flavor:?}")]
    Flavor {
        /// The window's.
        flavor: Flavor,
        /// Where.
        at: Box<Site>,
    },
    /// Memory cannot be shared by all ranks of this world.
    #[error(
        "{at}: these ranks cannot share memory; make the window on a part of the world that \
         shares a node, by `split_by_node`"
    )]
    Shared {
        /// Where.
        at: Box<Site>,
        /// Why not.
        source: Box<runtime::Error>,
    },
    /// Memory that cannot be attached to a dynamic window.
    #[error("{at}: {why}")]
    Attach {
        /// Why not.
        why: String,
        /// Where.
        at: Box<Site>,
    },
    /// Bytes that are not inside one region attached to a dynamic window. Nothing was moved.
    #[error(
        "{at}: bytes {first:#x}..{end:#x} are not inside one region that rank {target} has attached"
    )]
    Unattached {
        /// The rank.
        target: u32,
        /// First address.
        first: i128,
        /// The address behind the last.
        end: i128,
        /// Where.
        at: Box<Site>,
    },
    /// No region of a dynamic window begins at this address.
    #[error("{at}: no region is attached at {address:#x}")]
    NotAttached {
        /// The address.
        address: u64,
        /// Where.
        at: Box<Site>,
    },
    /// Memory for a window at a null address.
    #[error("{at}: {len} bytes at a null base; give their address, or no bytes")]
    NullBase {
        /// Bytes that were said to be there.
        len: usize,
        /// Where.
        at: Box<Site>,
    },
    /// A notification beyond the ids that a window has.
    #[error("{at}: there is no notification {id}; a window has ids 0 to {}", ids - 1)]
    NotifyId {
        /// The refused id.
        id: u32,
        /// How many there are.
        ids: u32,
        /// Where.
        at: Box<Site>,
    },
    /// A lock on a window for which the hint `no_locks` is in force.
    #[error("{at}: no_locks is in force on the window; make it, or set its hints, without")]
    NoLocks {
        /// Where.
        at: Box<Site>,
    },
    /// Elements outside the target's part of the window. Nothing was moved.
    #[error(
        "{at}: elements {disp}..{disp}+{len} are outside the {extent} elements of rank {target}"
    )]
    OutOfBounds {
        /// The rank whose part it is.
        target: u32,
        /// First element.
        disp: usize,
        /// How many.
        len: usize,
        /// How many there are.
        extent: usize,
        /// Where.
        at: Box<Site>,
    },
    /// The call is not legal in the window's present epoch (mpi-rma 4).
    #[error("{at}: {call} is not allowed now: {state}")]
    Epoch {
        /// The epoch that the window is in.
        state: State,
        /// What was asked.
        call: Call,
        /// Where.
        at: Box<Site>,
    },
    /// An operation through a lock on another rank.
    #[error("{at}: this lock is on rank {locked}, not on rank {target}; lock that rank too")]
    NotLocked {
        /// The operation's target.
        target: u32,
        /// The rank the guard holds.
        locked: u32,
        /// Where.
        at: Box<Site>,
    },
    /// An operator that the elements do not take in this call ([`Op`] has the table);
    /// [`Op::NoOp`] is for the fetching forms.
    #[error(
        "{at}: {element} does not take {op:?} here; accepted: {}",
        list(accepted)
    )]
    Operator {
        /// The operator.
        op: Op,
        /// The element type.
        element: &'static str,
        /// The operators it takes in this call.
        accepted: Box<[Op]>,
        /// Where.
        at: Box<Site>,
    },
    /// Buffers of one call that must have the same number of elements.
    #[error("{at}: {what} has {got} elements where {want} are needed")]
    Count {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length it needs.
        want: usize,
        /// Where.
        at: Box<Site>,
    },
    /// Ranks gave different element types to one collective call.
    #[error(
        "{at}: rank {rank} has elements of {theirs} and rank 0 of {first}; \
         give every rank the same element type"
    )]
    Element {
        /// The first rank that differs from rank 0.
        rank: u32,
        /// Its element.
        theirs: ElementKind,
        /// Rank 0's.
        first: ElementKind,
        /// Where.
        at: Box<Site>,
    },
    /// The ranks made different collective calls: one closes the epoch, another opens the next.
    #[error(
        "{at}: another rank is in a different collective call (a barrier, a creation, `fence`, \
         `next`, `end`, `free`); let every rank make the same ones in the same order"
    )]
    Disagree {
        /// Where.
        at: Box<Site>,
    },
    /// A peer dropped the window, or ended, without the collective end.
    #[error("{at}: rank {rank} has left; let every rank make the same collective calls")]
    Departed {
        /// The rank that left.
        rank: u32,
        /// Where.
        at: Box<Site>,
    },
    /// A peer cannot be reached any more.
    #[error("{at}: rank {rank} is lost")]
    PeerLost {
        /// The rank.
        rank: u32,
        /// Where.
        at: Box<Site>,
        /// What was seen.
        source: Box<runtime::Error>,
    },
    /// No way leads to a peer's memory.
    #[error("{at}: the memory of rank {target} cannot be reached")]
    Unreachable {
        /// The rank.
        target: u32,
        /// Where.
        at: Box<Site>,
        /// What was tried, and why it did not serve.
        source: Box<runtime::Error>,
    },
    /// A transfer failed; the epoch goes on.
    #[error("{at}: a transfer with rank {target} failed")]
    Transfer {
        /// The other rank.
        target: u32,
        /// Where.
        at: Box<Site>,
        /// Why.
        source: Box<runtime::Error>,
    },
    /// No memory of this size.
    #[error("{at}: no memory for {len_bytes} bytes")]
    NoMemory {
        /// Bytes asked for.
        len_bytes: u64,
        /// Where.
        at: Box<Site>,
        /// What the system said.
        source: Box<runtime::Error>,
    },
    /// Lent memory that is still in use elsewhere: it stays allocated.
    #[error("{at}: the lent memory is still in use; it stays allocated and is not returned")]
    InUse {
        /// Where.
        at: Box<Site>,
    },
    /// The job was ended by this rank already.
    #[error("{at}: the job has been ended; make no call after `end`")]
    Ended {
        /// Where.
        at: Box<Site>,
    },
    /// Start-up or the control plane failed, here or on another rank.
    #[error("{at}: failed")]
    Job {
        /// Where.
        at: Box<Site>,
        /// Why.
        source: Box<runtime::Error>,
    },
}

fn list(operators: &[Op]) -> String {
    let names: Vec<String> = operators.iter().map(|op| format!("{op:?}")).collect();
    names.join(", ")
}

impl Error {
    /// Where it happened: call, rank, window, source line.
    pub fn site(&self) -> &Site {
        match self {
            Error::BadRank { at, .. }
            | Error::Group { at, .. }
            | Error::NoLocks { at }
            | Error::Range { at, .. }
            | Error::Buffer { at, .. }
            | Error::Type { at, .. }
            | Error::Layout { at, .. }
            | Error::Assertion { at, .. }
            | Error::DispUnit { at }
            | Error::Flavor { at, .. }
            | Error::Shared { at, .. }
            | Error::Attach { at, .. }
            | Error::NotAttached { at, .. }
            | Error::NullBase { at, .. }
            | Error::Unattached { at, .. }
            | Error::NotifyId { at, .. }
            | Error::OutOfBounds { at, .. }
            | Error::Epoch { at, .. }
            | Error::NotLocked { at, .. }
            | Error::Operator { at, .. }
            | Error::Count { at, .. }
            | Error::Element { at, .. }
            | Error::Disagree { at }
            | Error::Departed { at, .. }
            | Error::PeerLost { at, .. }
            | Error::Unreachable { at, .. }
            | Error::Transfer { at, .. }
            | Error::NoMemory { at, .. }
            | Error::InUse { at }
            | Error::Ended { at }
            | Error::Job { at, .. } => at,
        }
    }

    /// What the runtime reported in a call without a single target.
    #[cold]
    pub(crate) fn from_job(source: runtime::Error, at: Site) -> Error {
        let (source, at) = (Box::new(source), Box::new(at));
        match *source {
            runtime::Error::Departed { rank } => Error::Departed { rank, at },
            runtime::Error::Disagree => Error::Disagree { at },
            runtime::Error::PeerLost { rank, .. } => Error::PeerLost { rank, at, source },
            runtime::Error::Unreachable { target, .. } => Error::Unreachable { target, at, source },
            _ => Error::Job { at, source },
        }
    }

    /// What the runtime reported for a transfer with `target`.
    #[cold]
    pub(crate) fn from_transfer(source: runtime::Error, target: u32, at: Site) -> Error {
        match source {
            runtime::Error::Departed { .. } | runtime::Error::PeerLost { .. } => {
                Error::from_job(source, at)
            }
            _ => Error::Transfer {
                target,
                at: Box::new(at),
                source: Box::new(source),
            },
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.class())?;
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Box<Site> {
        Box::new(Site {
            call: "put",
            rank: Some(2),
            window: Some("window 3".into()),
            location: Location::caller(),
        })
    }

    #[test]
    fn a_text_names_call_window_rank_line_and_value() {
        let error = Error::OutOfBounds {
            target: 5,
            disp: 7,
            len: 9,
            extent: 10,
            at: site(),
        };
        let text = format!("{error:?}");
        for part in [
            "put on window 3 by rank 2",
            "error.rs:",
            "7..7+9",
            "10 elements of rank 5",
        ] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert!(text.contains("MPI_ERR_RMA_RANGE"), "{text}");
        assert_eq!(error.site().call, "put");
    }

    #[test]
    fn what_the_runtime_says_keeps_its_meaning() {
        let departed = Error::from_transfer(runtime::Error::Departed { rank: 4 }, 1, *site());
        assert!(matches!(departed, Error::Departed { rank: 4, .. }));
        assert_eq!(departed.class(), ErrorClass::RmaSync);
        let lost = runtime::Error::PeerLost {
            rank: 3,
            detail: "closed".into(),
        };
        let lost = Error::from_transfer(lost, 3, *site());
        assert!(matches!(lost, Error::PeerLost { rank: 3, .. }));
        assert!(format!("{lost:?}").contains("closed"));
        let update = Error::from_transfer(runtime::Error::Update("unit".into()), 1, *site());
        assert!(matches!(update, Error::Transfer { target: 1, .. }));
    }
}
