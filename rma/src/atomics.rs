//! Updates through a target's one unit of atomicity.
//!
//! Each target of a window has one, settled when the window is made: the CPUs of its node with the
//! guard of its part, changed in place by origins to whom the part is mapped and by the target's
//! helper for all others (mpi-rma 3, Atomicity). What one instruction does is done before it comes
//! here, in `transfer`.

use windlass_runtime::Route;
use windlass_runtime::update::{self, Kind, Unit};

use crate::core::{Core, Reach, Status};
use crate::error::Result;
use crate::op::Op;
use crate::world::Rank;

/// A target, its memory, and the first byte in there, which was checked.
pub(crate) type Place<'a> = (Rank, &'a Reach, usize);

impl Core {
    /// Refuses an operator that elements of this kind do not take, and [`Op::NoOp`] where nothing is
    /// fetched (mpi-rma 3).
    #[inline]
    #[track_caller]
    pub(crate) fn check_operator(
        &self,
        call: &'static str,
        (kind, op): (Kind, Op),
        fetches: bool,
    ) -> Result<()> {
        if kind.takes(op.update()) && (fetches || !matches!(op, Op::NoOp)) {
            Ok(())
        } else {
            Err(self.bad_operator(call, (kind, op), fetches))
        }
    }

    /// Updates elements side by side; `operand` says how many, for [`Op::NoOp`] `fetched` does.
    #[track_caller]
    pub(crate) fn update_at(
        &self,
        call: &'static str,
        (target, reach, offset): Place<'_>,
        (kind, op): (Kind, Op),
        operand: &[u8],
        fetched: Option<&mut [u8]>,
    ) -> Result<()> {
        self.check_operator(call, (kind, op), fetched.is_some())?;
        let update = op.update();
        let done = match &reach.atomics {
            Route::Mapped(bytes) => {
                let unit = self.unit(target);
                update::apply(bytes, offset, kind, update, operand, fetched, unit)
                    .map_err(Into::into)
            }
            Route::Posted(posted) => {
                self.enter(Status::Update);
                posted.update(offset as u64, kind, update, operand, fetched)
            }
        };
        self.sent(call, target, done)
    }

    /// Replaces an element that equals the first operand by the second; `fetched` gets the old one.
    #[track_caller]
    pub(crate) fn compare_swap_at(
        &self,
        call: &'static str,
        (target, reach, offset): Place<'_>,
        kind: Kind,
        (compare, swap): (&[u8], &[u8]),
        fetched: &mut [u8],
    ) -> Result<()> {
        let done = match &reach.atomics {
            Route::Mapped(bytes) => {
                let unit = self.unit(target);
                update::compare_swap(bytes, offset, kind, compare, swap, fetched, unit)
                    .map_err(Into::into)
            }
            Route::Posted(posted) => {
                self.enter(Status::Update);
                posted.compare_swap(offset as u64, kind, compare, swap, fetched)
            }
        };
        self.sent(call, target, done)
    }

    /// What makes the wide elements of a target atomic to whom it is mapped.
    fn unit(&self, target: Rank) -> Unit<'_> {
        let guard = self.exposure().guard(target.0);
        guard.map_or(Unit::Cpu, Unit::Guard)
    }
}
