//! put, get and the accumulate family: check the range, then straight to the route.
//!
//! The guard proves that the epoch allows the operation, so what is left is the target's index,
//! its range in elements, and one `match` on the shape of its route. On a mapped route nothing
//! else happens: no lock, no allocation, no dynamic dispatch (architecture section 10).
//!
//! An operation refused here had no effect (mpi-rma 7). `put` and `get` are locally complete on
//! return; updates are atomic per element, whatever the origins and their routes, because all of
//! a window's updates of one target go through one unit, settled when the window is made.

use windlass_mem::sync;
use windlass_runtime::Route;
use windlass_runtime::update;

use crate::core::{Core, Reach, Status};
use crate::element::{Comparable, Element, Reducible};
use crate::epoch::{Epoch, Kind};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::op::Op;
use crate::state::Call;
use crate::world::Rank;

/// Are elements `disp..disp + len` inside `extent` elements? Exact for every value.
#[inline(always)]
pub(crate) const fn fits(disp: usize, len: usize, extent: usize) -> bool {
    len <= extent && disp <= extent - len
}

/// Where an operation goes once everything about it is checked.
pub(crate) struct Way<'a> {
    pub(crate) reach: &'a Reach,
    /// First byte in the target's part.
    pub(crate) offset: usize,
}

impl<T: Element, K: Kind> Epoch<'_, T, K> {
    /// The way to `len` elements from `disp` on, if the epoch covers them and they exist. This is
    /// all that a mapped operation checks; why it is `None` is found out in the slow path.
    #[inline(always)]
    fn quick(&self, target: Rank, disp: usize, len: usize) -> Option<Way<'_>> {
        if !self.kind.covers(self.core, target) {
            return None;
        }
        let reach = self.core.reach.get(target.0 as usize)?;
        if !fits(disp, len, reach.count) {
            return None;
        }
        // No overflow: `disp` elements end inside the target's bytes.
        let offset = disp * size_of::<T>();
        Some(Way { reach, offset })
    }

    /// [`quick`](Self::quick) with its reasons.
    #[track_caller]
    pub(crate) fn way(
        &self,
        name: &'static str,
        target: Rank,
        disp: usize,
        len: usize,
    ) -> Result<Way<'_>> {
        if let Some(way) = self.quick(target, disp, len) {
            return Ok(way);
        }
        Err(if self.core.reach.get(target.0 as usize).is_none() {
            self.core.bad_rank(name, target)
        } else if !self.kind.covers(self.core, target) {
            match self.kind.confined() {
                Some(locked) => self.core.not_locked(name, target, locked),
                None => self.core.not_covered(name, Call::Operation, target),
            }
        } else {
            self.core.out_of_bounds(name, target, disp, len)
        })
    }

    /// Copies `src` to `target`, to the elements from `disp` on. `src` is free on return; the
    /// data are complete at the target after the next flush, fence or unlock.
    ///
    /// # Errors
    /// [`Error::BadRank`], [`Error::OutOfBounds`]: nothing moved. [`Error::Transfer`],
    /// [`Error::PeerLost`].
    #[inline]
    #[track_caller]
    pub fn put(&self, src: &[T], target: Rank, disp: usize) -> Result<()> {
        if let Some(way) = self.quick(target, disp, src.len())
            && let Route::Mapped(bytes) = &way.reach.route
            && bytes.write(way.offset, bytemuck::cast_slice(src)).is_ok()
        {
            sync::stored();
            return Ok(());
        }
        self.put_slowly(src, target, disp)
    }

    /// A [`put`](Self::put) of which the target learns: its count of notifications under `id` (0 to
    /// 63) grows when the data are in its part. The target asks by
    /// [`wait_notify`](Self::wait_notify) and its kin. An empty `src` only notifies.
    ///
    /// ```
    /// # fn main() -> windlass::Result<()> {
    /// # let world = windlass::init()?;
    /// use windlass::Rank;
    /// let (me, size) = (world.rank().0, world.size());
    /// let mut ring = world.allocate::<f64>(4)?;
    /// let epoch = ring.lock_all()?;
    /// epoch.put_notify(&[1.5; 4], Rank((me + 1) % size), 0, 7)?;
    /// epoch.wait_notify(7, 1)?; // what the left neighbour put is here
    /// assert_eq!(epoch.local().load(3), 1.5);
    /// epoch.end()?;
    /// ring.free()
    /// # .map(drop)
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::NotifyId`]. Nothing was counted then.
    #[inline]
    #[track_caller]
    pub fn put_notify(&self, src: &[T], target: Rank, disp: usize, id: u32) -> Result<()> {
        self.core.check_id("put_notify", id)?;
        self.put(src, target, disp)?;
        self.core.notify("put_notify", target, id)
    }

    /// A put that is posted, or refused.
    #[inline(never)]
    #[track_caller]
    fn put_slowly(&self, src: &[T], target: Rank, disp: usize) -> Result<()> {
        let Way { reach, offset } = self.way("put", target, disp, src.len())?;
        let src = bytemuck::cast_slice(src);
        self.core.put_to("put", target, reach, offset, src)
    }

    /// Copies the elements from `disp` on of `target` into `dst`; complete on return.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    #[inline]
    #[track_caller]
    pub fn get(&self, dst: &mut [T], target: Rank, disp: usize) -> Result<()> {
        if let Some(way) = self.quick(target, disp, dst.len())
            && let Route::Mapped(bytes) = &way.reach.route
        {
            sync::pay();
            if bytes
                .read(way.offset, bytemuck::cast_slice_mut(dst))
                .is_ok()
            {
                return Ok(());
            }
        }
        self.get_slowly(dst, target, disp)
    }

    /// A get that is posted, or refused.
    #[inline(never)]
    #[track_caller]
    fn get_slowly(&self, dst: &mut [T], target: Rank, disp: usize) -> Result<()> {
        let Way { reach, offset } = self.way("get", target, disp, dst.len())?;
        let dst = bytemuck::cast_slice_mut(dst);
        self.core.get_from("get", target, reach, offset, dst)
    }
}

impl Core {
    /// Bytes to a target whose way and range are known.
    #[track_caller]
    pub(crate) fn put_to(
        &self,
        call: &'static str,
        target: Rank,
        reach: &Reach,
        offset: usize,
        src: &[u8],
    ) -> Result<()> {
        match &reach.route {
            Route::Mapped(bytes) => match bytes.write(offset, src) {
                Ok(()) => {
                    sync::stored();
                    Ok(())
                }
                Err(error) => Err(self.refused(call, target, error)),
            },
            Route::Posted(posted) => {
                self.enter(Status::Put);
                self.sent(call, target, posted.put(offset as u64, src))
            }
        }
    }

    /// Bytes from a target whose way and range are known.
    #[track_caller]
    pub(crate) fn get_from(
        &self,
        call: &'static str,
        target: Rank,
        reach: &Reach,
        offset: usize,
        dst: &mut [u8],
    ) -> Result<()> {
        match &reach.route {
            Route::Mapped(bytes) => {
                sync::pay();
                match bytes.read(offset, dst) {
                    Ok(()) => Ok(()),
                    Err(error) => Err(self.refused(call, target, error)),
                }
            }
            Route::Posted(posted) => {
                self.enter(Status::Get);
                self.sent(call, target, posted.get(offset as u64, dst))
            }
        }
    }
}

impl<T: Reducible, K: Kind> Epoch<'_, T, K> {
    /// Updates `len` elements of `target` through its one unit of atomicity.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn update(
        &self,
        name: &'static str,
        (target, disp, len): (Rank, usize, usize),
        op: Op,
        operand: &[T],
        mut fetched: Option<&mut [T]>,
    ) -> Result<()> {
        let operand = bytemuck::cast_slice(operand);
        if let Some(way) = self.quick(target, disp, len)
            && let Route::Mapped(bytes) = &way.reach.atomics
        {
            let fetched = fetched.as_deref_mut().map(bytemuck::cast_slice_mut);
            if update::quick(bytes, way.offset, T::KIND, op.update(), operand, fetched) {
                return Ok(());
            }
        }
        let fetched = fetched.map(bytemuck::cast_slice_mut);
        self.update_slowly(name, (target, disp, len), op, operand, fetched)
    }

    /// An update of many elements, or not by one instruction, or posted, or refused.
    #[inline(never)]
    #[track_caller]
    fn update_slowly(
        &self,
        name: &'static str,
        (target, disp, len): (Rank, usize, usize),
        op: Op,
        operand: &[u8],
        fetched: Option<&mut [u8]>,
    ) -> Result<()> {
        let Way { reach, offset } = self.way(name, target, disp, len)?;
        let place = (target, reach, offset);
        self.core
            .update_at(name, place, (T::KIND, op), operand, fetched)
    }

    /// `t = t op o` for each element, atomically per element. `src` is free on return.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Operator`] for an operator that the element type does not
    /// take, and for [`Op::NoOp`].
    #[inline]
    #[track_caller]
    pub fn accumulate(&self, src: &[T], target: Rank, disp: usize, op: Op) -> Result<()> {
        self.update("accumulate", (target, disp, src.len()), op, src, None)
    }

    /// `result = t`, then `t = t op o`, for each element, atomically per element; `result` is
    /// complete on return. With [`Op::NoOp`] an atomic get: `src` is not looked at.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Operator`] for an operator that the element type does not
    /// take; [`Error::Count`] if `src` and `result` differ in length.
    #[inline]
    #[track_caller]
    pub fn get_accumulate(
        &self,
        src: &[T],
        result: &mut [T],
        target: Rank,
        disp: usize,
        op: Op,
    ) -> Result<()> {
        let src = if matches!(op, Op::NoOp) { &[] } else { src };
        if !matches!(op, Op::NoOp) && src.len() != result.len() {
            return Err(self
                .core
                .bad_count("get_accumulate", "result", result.len(), src.len()));
        }
        self.update(
            "get_accumulate",
            (target, disp, result.len()),
            op,
            src,
            Some(result),
        )
    }

    /// The element's old value; the element becomes `t op value`, in one atomic step.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Operator`] for an operator that the element type does not
    /// take.
    #[inline(always)] // the operator is a constant then
    #[track_caller]
    pub fn fetch_and_op(&self, value: T, target: Rank, disp: usize, op: Op) -> Result<T> {
        let mut old = [T::zeroed()];
        let value = [value];
        let operand = if matches!(op, Op::NoOp) {
            &[][..]
        } else {
            &value[..]
        };
        self.update(
            "fetch_and_op",
            (target, disp, 1),
            op,
            operand,
            Some(&mut old),
        )?;
        Ok(old[0])
    }
}

impl<T: Reducible, K: Kind> Epoch<'_, T, K> {
    /// The element's old value; if that equals `compare`, the element becomes `new`, in one
    /// atomic step.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    #[inline]
    #[track_caller]
    pub fn compare_and_swap(&self, compare: T, new: T, target: Rank, disp: usize) -> Result<T>
    where
        T: Comparable,
    {
        let mut old = T::zeroed();
        if let Some(way) = self.quick(target, disp, 1)
            && let Route::Mapped(bytes) = &way.reach.atomics
        {
            let (compare, new) = (bytemuck::bytes_of(&compare), bytemuck::bytes_of(&new));
            let fetched = bytemuck::bytes_of_mut(&mut old);
            if update::quick_swap(bytes, way.offset, T::KIND, compare, new, fetched) {
                return Ok(old);
            }
        }
        self.compare_and_swap_slowly(compare, new, target, disp)
    }

    /// A compare-and-swap that is posted, or refused.
    #[inline(never)]
    #[track_caller]
    fn compare_and_swap_slowly(&self, compare: T, new: T, target: Rank, disp: usize) -> Result<T> {
        let name = "compare_and_swap";
        let Way { reach, offset } = self.way(name, target, disp, 1)?;
        let mut old = T::zeroed();
        let operands = (bytemuck::bytes_of(&compare), bytemuck::bytes_of(&new));
        let fetched = bytemuck::bytes_of_mut(&mut old);
        let place = (target, reach, offset);
        self.core
            .compare_swap_at(name, place, T::KIND, operands, fetched)?;
        Ok(old)
    }
}

#[cfg(test)]
mod tests {
    use super::fits;
    use proptest::prelude::*;

    /// Values near the ends of the type and near each other, where arithmetic goes wrong.
    fn awkward() -> impl Strategy<Value = usize> {
        prop_oneof![
            0usize..20,
            (0usize..20).prop_map(|back| usize::MAX - back),
            (0usize..20).prop_map(|back| usize::MAX / 2 + 10 - back),
            any::<usize>(),
        ]
    }

    proptest! {
        #[test]
        fn fits_is_what_wide_numbers_say(disp in awkward(), len in awkward(), extent in awkward()) {
            let naive = disp as u128 + len as u128 <= extent as u128;
            prop_assert_eq!(fits(disp, len, extent), naive);
        }

        /// A range that fits has a byte offset that does not overflow, because a target's bytes
        /// number at most `usize::MAX`.
        #[test]
        fn byte_offsets_of_fitting_ranges_do_not_overflow(
            disp in awkward(),
            len in awkward(),
            bytes in awkward(),
            size in 1usize..100,
        ) {
            if fits(disp, len, bytes / size) {
                let end = (disp as u128 + len as u128) * size as u128;
                prop_assert!(end <= bytes as u128);
                prop_assert!(disp.checked_mul(size).is_some());
            }
        }
    }
}
