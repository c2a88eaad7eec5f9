//! What a program does with a dynamic window: memory comes and goes, operations by address.

use std::fmt;
use std::sync::Arc;

use windlass_mem::Lend;

use super::Attached;
use crate::core::{Core, Reach};
use crate::element::{self, Comparable, Element, Reducible};
use crate::epoch::{Epoch, Kind};
use crate::error::{Error, Result};
use crate::hints::Hints;
use crate::op::Op;
use crate::sync::LockKind;
use crate::window::Window;
use crate::world::{Rank, World};

/// An absolute address in a dynamic window's rank: what [`Window::attach`] answers, and that plus
/// bytes. Plain data: put it into a window to tell it to others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Address(u64);

impl Address {
    /// An address from its number (`MPI_Aint`).
    pub const fn from_raw(address: u64) -> Address {
        Address(address)
    }

    /// The number.
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// `bytes` further (`MPI_Aint_add`); wraps, as a pointer does.
    #[must_use]
    pub const fn add(self, bytes: i64) -> Address {
        Address(self.0.wrapping_add_signed(bytes))
    }

    /// Bytes from `other` to here (`MPI_Aint_diff`).
    pub const fn diff(self, other: Address) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({:#x})", self.0)
    }
}

impl World {
    /// A window without memory at first: [`Window::attach`] adds some, whenever it is wanted.
    /// Operations name absolute [`Address`]es: [`Epoch::put_at`](crate::Epoch::put_at) and its kin.
    /// Collective.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    #[track_caller]
    pub fn create_dynamic(&self) -> Result<Window<u8>> {
        let core = Core::new_dynamic(self, "create_dynamic", &Hints::new())?;
        Ok(Window::over(core, ()))
    }
}

impl Window<u8> {
    /// Attaches memory of the caller (a vector, a boxed slice, a static slice) to a dynamic window
    /// and answers its address, for operations of any rank. Local, at any time. The address must
    /// reach the others by some other way, and in order: a put of it and a fence, say.
    ///
    /// # Errors
    /// [`Error::Flavor`] for another window; [`Error::Attach`] for memory without bytes, or beyond
    /// [`REGIONS_MAX`](crate::REGIONS_MAX) regions. The memory is dropped then.
    #[track_caller]
    pub fn attach<T: Element, M: Lend<T> + Sync>(&self, memory: M) -> Result<Address> {
        const { element::check::<T>() };
        let call = "attach";
        self.core.dynamic(call)?;
        if memory.as_ref().is_empty() {
            return Err(Error::Attach {
                why: "memory without bytes has no address; attach at least one element".into(),
                at: Box::new(self.core.site(call)),
            });
        }
        let (region, loan) = self.core.world.job().lend(memory);
        let address = region.bytes().addr() as u64;
        self.core.attach(call, address, region, Box::new(loan))?;
        Ok(Address(address))
    }

    /// Detaches the memory that begins at `address` and gives it back, with what peers wrote: the
    /// `M` that was attached. Waits for peers that hold a lock on this rank, as
    /// [`lock_local`](Self::lock_local) does.
    ///
    /// # Errors
    /// [`Error::Flavor`]; [`Error::NotAttached`] if no region begins there, or it was another type
    /// that was attached; as [`lock_local`](Self::lock_local); [`Error::InUse`].
    #[track_caller]
    pub fn detach<T: Element, M: Lend<T> + Sync>(&mut self, address: Address) -> Result<M> {
        let call = "detach";
        let core = &self.core;
        let dynamic = core.dynamic(call)?;
        let is_loan = |attached: &Attached| attached.owner.is::<windlass_mem::Loan<M>>();
        let known = dynamic
            .mine
            .lock()
            .regions
            .get(&address.0)
            .is_some_and(is_loan);
        if !known {
            return Err(Error::NotAttached {
                address: address.0,
                at: Box::new(core.site(call)),
            });
        }
        let me = core.rank();
        core.take_own(call)?;
        let detached = core.detach(call, address.0);
        core.unlock(me, LockKind::Exclusive)?;
        let Attached { region, owner, .. } = detached?;
        let bytes = region.bytes().clone();
        drop(region);
        // This rank's own route to it, if it used one.
        core.let_go(me);
        let Ok(loan) = owner.downcast::<windlass_mem::Loan<M>>() else {
            unreachable!("its type was just looked at")
        };
        match loan.take_back(bytes) {
            Ok(memory) => Ok(memory),
            Err(still) => {
                // Somebody's copy may still reach it.
                std::mem::forget(still);
                Err(Error::InUse {
                    at: Box::new(core.site(call)),
                })
            }
        }
    }
}

impl<K: Kind> Epoch<'_, u8, K> {
    /// The region at `target` that holds `len` bytes from `at` on, and where; the epoch covers it.
    #[track_caller]
    fn at(
        &self,
        call: &'static str,
        target: Rank,
        at: Address,
        len: usize,
    ) -> Result<(Arc<Reach>, usize)> {
        self.way(call, target, 0, 0)?;
        let first = i128::from(at.0);
        let found = self
            .core
            .region_of(call, target, first, first + len as i128)?;
        Ok((found.0, found.1 as usize))
    }

    /// After a refused transfer the directory is read again.
    fn judge<R>(&self, target: Rank, done: Result<R>) -> Result<R> {
        if let (Err(_), Some(dynamic)) = (&done, &self.core.dynamic) {
            dynamic.doubt(target);
        }
        done
    }

    /// [`put`](Self::put) to an address of a dynamic window: inside one region of `target`.
    ///
    /// # Errors
    /// [`Error::BadRank`], [`Error::Flavor`], [`Error::Unattached`]: nothing moved.
    /// [`Error::Transfer`], [`Error::PeerLost`].
    #[track_caller]
    pub fn put_at<T: Element>(&self, src: &[T], target: Rank, at: Address) -> Result<()> {
        let (reach, offset) = self.at("put_at", target, at, size_of_val(src))?;
        let src = bytemuck::cast_slice(src);
        self.judge(
            target,
            self.core.put_to("put_at", target, &reach, offset, src),
        )
    }

    /// [`get`](Self::get) from an address of a dynamic window.
    ///
    /// # Errors
    /// As [`put_at`](Self::put_at).
    #[track_caller]
    pub fn get_at<T: Element>(&self, dst: &mut [T], target: Rank, at: Address) -> Result<()> {
        let (reach, offset) = self.at("get_at", target, at, size_of_val(dst))?;
        let dst = bytemuck::cast_slice_mut(dst);
        self.judge(
            target,
            self.core.get_from("get_at", target, &reach, offset, dst),
        )
    }

    /// [`accumulate`](Self::accumulate) at an address of a dynamic window.
    ///
    /// # Errors
    /// As [`put_at`](Self::put_at) and [`accumulate`](Self::accumulate).
    #[track_caller]
    pub fn accumulate_at<T: Reducible>(
        &self,
        src: &[T],
        target: Rank,
        at: Address,
        op: Op,
    ) -> Result<()> {
        let call = "accumulate_at";
        let (reach, offset) = self.at(call, target, at, size_of_val(src))?;
        let src = bytemuck::cast_slice(src);
        let to = (target, &*reach, offset);
        let done = self.core.update_at(call, to, (T::KIND, op), src, None);
        self.judge(target, done)
    }

    /// [`get_accumulate`](Self::get_accumulate) at an address of a dynamic window.
    ///
    /// # Errors
    /// As [`put_at`](Self::put_at) and [`get_accumulate`](Self::get_accumulate).
    #[track_caller]
    pub fn get_accumulate_at<T: Reducible>(
        &self,
        src: &[T],
        result: &mut [T],
        target: Rank,
        at: Address,
        op: Op,
    ) -> Result<()> {
        let call = "get_accumulate_at";
        let src = if matches!(op, Op::NoOp) { &[] } else { src };
        if !matches!(op, Op::NoOp) && src.len() != result.len() {
            return Err(self.core.bad_count(call, "result", result.len(), src.len()));
        }
        let (reach, offset) = self.at(call, target, at, size_of_val(result))?;
        let (src, result) = (bytemuck::cast_slice(src), bytemuck::cast_slice_mut(result));
        let to = (target, &*reach, offset);
        let done = self
            .core
            .update_at(call, to, (T::KIND, op), src, Some(result));
        self.judge(target, done)
    }

    /// [`fetch_and_op`](Self::fetch_and_op) at an address of a dynamic window.
    ///
    /// # Errors
    /// As [`get_accumulate_at`](Self::get_accumulate_at).
    #[track_caller]
    pub fn fetch_and_op_at<T: Reducible>(
        &self,
        value: T,
        target: Rank,
        at: Address,
        op: Op,
    ) -> Result<T> {
        let mut old = [T::zeroed()];
        self.get_accumulate_at(&[value], &mut old, target, at, op)?;
        Ok(old[0])
    }

    /// [`compare_and_swap`](Self::compare_and_swap) at an address of a dynamic window.
    ///
    /// # Errors
    /// As [`put_at`](Self::put_at).
    #[track_caller]
    pub fn compare_and_swap_at<T: Comparable>(
        &self,
        compare: T,
        new: T,
        target: Rank,
        at: Address,
    ) -> Result<T> {
        let call = "compare_and_swap_at";
        let (reach, offset) = self.at(call, target, at, size_of::<T>())?;
        let mut old = T::zeroed();
        let (compare, new) = (bytemuck::bytes_of(&compare), bytemuck::bytes_of(&new));
        let to = (target, &*reach, offset);
        let seen = bytemuck::bytes_of_mut(&mut old);
        let done = self
            .core
            .compare_swap_at(call, to, T::KIND, (compare, new), seen);
        self.judge(target, done).map(|()| old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_that_wrap() {
        let address = Address::from_raw(u64::MAX - 1);
        assert_eq!(address.add(3).to_raw(), 1);
        assert_eq!(address.add(3).diff(address), 3);
        assert_eq!(address.add(-5).diff(address), -5);
    }
}
