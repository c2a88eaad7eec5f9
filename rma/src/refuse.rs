//! The errors of a window, out of line: the hot path only branches here.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use windlass_runtime as runtime;
use windlass_runtime::update::Kind;

use crate::core::Core;
use crate::element::Element;
use crate::error::{Error, Result, Site};
use crate::op::Op;
use crate::request::Buffer;
use crate::state::{Call, State};
use crate::world::Rank;

impl Core {
    #[cold]
    #[track_caller]
    pub(crate) fn site(&self, call: &'static str) -> Site {
        Site {
            call,
            rank: Some(self.world.rank().0),
            window: Some(Arc::clone(&self.name)),
            location: Location::caller(),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn bad_rank(&self, call: &'static str, target: Rank) -> Error {
        Error::BadRank {
            target: target.0,
            size: self.size(),
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn out_of_bounds(
        &self,
        call: &'static str,
        target: Rank,
        disp: usize,
        len: usize,
    ) -> Error {
        Error::OutOfBounds {
            target: target.0,
            disp,
            len,
            extent: self
                .reach
                .get(target.0 as usize)
                .map_or(0, |reach| reach.count),
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn wrong_epoch(&self, name: &'static str, call: Call, state: State) -> Error {
        Error::Epoch {
            state,
            call,
            at: Box::new(self.site(name)),
        }
    }

    /// The open epoch does not cover `target`.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn not_covered(&self, name: &'static str, call: Call, target: Rank) -> Error {
        self.wrong_epoch(name, call, self.epochs.state(Some(target)))
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn without_locks(&self, call: &'static str) -> Error {
        Error::NoLocks {
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn not_locked(&self, call: &'static str, target: Rank, locked: Rank) -> Error {
        Error::NotLocked {
            target: target.0,
            locked: locked.0,
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn bad_operator(
        &self,
        call: &'static str,
        (kind, op): (Kind, Op),
        fetches: bool,
    ) -> Error {
        let accepted = |op: &Op| kind.takes(op.update()) && (fetches || !matches!(op, Op::NoOp));
        Error::Operator {
            op,
            element: kind.name(),
            accepted: Op::ALL.into_iter().filter(accepted).collect(),
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn bad_count(
        &self,
        call: &'static str,
        what: &'static str,
        got: usize,
        want: usize,
    ) -> Error {
        Error::Count {
            what,
            got,
            want,
            at: Box::new(self.site(call)),
        }
    }

    /// The runtime failed a transfer with `target`.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn failed(&self, call: &'static str, target: Rank, source: runtime::Error) -> Error {
        Error::from_transfer(source, target.0, self.site(call))
    }

    /// The same when parts of a transfer from or to `buffer` may run on: it is never freed.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn failed_with<T: Element>(
        &self,
        buffer: Buffer<T>,
        call: &'static str,
        target: Rank,
        source: runtime::Error,
    ) -> Error {
        std::mem::forget(buffer);
        self.failed(call, target, source)
    }

    /// Mapped memory or an update refused what was checked before: misaligned lent memory, say.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn refused(
        &self,
        call: &'static str,
        target: Rank,
        error: impl fmt::Display,
    ) -> Error {
        self.failed(call, target, runtime::Error::Update(error.to_string()))
    }

    /// What the runtime answered to a call without a single target. A closure would lose the
    /// caller's line.
    #[inline]
    #[track_caller]
    pub(crate) fn done<R>(&self, call: &'static str, done: runtime::Result<R>) -> Result<R> {
        match done {
            Ok(done) => Ok(done),
            Err(error) => Err(self.job_error(call, error)),
        }
    }

    /// The same with a target.
    #[inline]
    #[track_caller]
    pub(crate) fn sent<R>(
        &self,
        call: &'static str,
        target: Rank,
        done: runtime::Result<R>,
    ) -> Result<R> {
        match done {
            Ok(done) => Ok(done),
            Err(error) => Err(self.failed(call, target, error)),
        }
    }

    /// A call without a single target failed.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn job_error(&self, call: &'static str, source: runtime::Error) -> Error {
        Error::from_job(source, self.site(call))
    }
}

/// The runtime failed a collective creation.
#[cold]
pub(crate) fn creation_error(source: runtime::Error, at: Site) -> Error {
    match source {
        runtime::Error::NoMemory { len, .. } => Error::NoMemory {
            len_bytes: len,
            at: Box::new(at),
            source: Box::new(source),
        },
        runtime::Error::NotShared { .. } => Error::Shared {
            at: Box::new(at),
            source: Box::new(source),
        },
        other => Error::from_job(other, at),
    }
}
