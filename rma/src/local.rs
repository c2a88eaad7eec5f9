//! A rank's own part: by single accesses at any time, or as a slice under an exclusive lock.
//!
//! Peers may read and write the part at any moment, so it is never a Rust reference, except
//! while this rank holds the exclusive lock on itself and the window mutably: a [`LocalGuard`].
//! A [`LocalView`] needs neither; its accesses are aligned relaxed atomics of 1, 2, 4 or 8 bytes,
//! never torn; larger elements and ranges are copied and may mix old and new bytes.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use windlass_mem::{SharedBytes, sync};

use crate::core::Core;
use crate::element::Element;
use crate::epoch::report;
use crate::error::Result;
use crate::sync::LockKind;
use crate::transfer::fits;
use crate::window::Window;
use crate::world::Rank;

/// A rank's part of a window, for single accesses beside those of peers: this rank's own
/// ([`Window::local`]), or one that is mapped here ([`Epoch::shared`](crate::Epoch::shared)).
///
/// Every access first pays the fence that a flush of this thread owes, so that a load after
/// `put` and `flush` is ordered behind them.
pub struct LocalView<'a, T: Element> {
    core: &'a Core,
    /// Whose part it is.
    rank: Rank,
    bytes: &'a SharedBytes,
    elements: PhantomData<fn() -> T>,
}

impl<T: Element> Clone for LocalView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Element> Copy for LocalView<'_, T> {}

impl<'a, T: Element> LocalView<'a, T> {
    #[inline]
    pub(crate) fn new(core: &'a Core) -> LocalView<'a, T> {
        LocalView::of(core, core.rank(), core.bytes())
    }

    /// The part of another rank that is mapped here.
    #[inline]
    pub(crate) fn of(core: &'a Core, rank: Rank, bytes: &'a SharedBytes) -> LocalView<'a, T> {
        LocalView {
            core,
            rank,
            bytes,
            elements: PhantomData,
        }
    }

    /// Elements in the part.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() / size_of::<T>()
    }

    /// Has the part no elements?
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The element at `index`. One relaxed load for 1, 2, 4 and 8 bytes.
    ///
    /// # Panics
    /// Outside the part, as indexing a slice does; [`read`](Self::read) answers an error.
    #[inline]
    #[track_caller]
    pub fn load(&self, index: usize) -> T {
        let mut value = T::zeroed();
        sync::pay();
        let read = match index.checked_mul(size_of::<T>()) {
            Some(offset) => self
                .bytes
                .read(offset, bytemuck::bytes_of_mut(&mut value))
                .is_ok(),
            None => false,
        };
        if !read {
            outside(index, self.len());
        }
        value
    }

    /// Changes the element at `index`. One relaxed store for 1, 2, 4 and 8 bytes.
    ///
    /// # Panics
    /// Outside the part, as indexing a slice does; [`write`](Self::write) answers an error.
    #[inline]
    #[track_caller]
    pub fn store(&self, index: usize, value: T) {
        let written = match index.checked_mul(size_of::<T>()) {
            Some(offset) => self.bytes.write(offset, bytemuck::bytes_of(&value)).is_ok(),
            None => false,
        };
        if !written {
            outside(index, self.len());
        }
    }

    /// Copies the elements from `start` on into `into`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`](crate::Error::OutOfBounds); nothing was copied.
    #[inline]
    #[track_caller]
    pub fn read(&self, start: usize, into: &mut [T]) -> Result<()> {
        if !fits(start, into.len(), self.len()) {
            return Err(self.out_of_bounds("read", start, into.len()));
        }
        sync::pay();
        let len = into.len();
        match self
            .bytes
            .read(start * size_of::<T>(), bytemuck::cast_slice_mut(into))
        {
            Ok(()) => Ok(()),
            Err(_) => Err(self.out_of_bounds("read", start, len)),
        }
    }

    /// Copies `from` over the elements from `start` on.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`](crate::Error::OutOfBounds); nothing was copied.
    #[inline]
    #[track_caller]
    pub fn write(&self, start: usize, from: &[T]) -> Result<()> {
        if !fits(start, from.len(), self.len()) {
            return Err(self.out_of_bounds("write", start, from.len()));
        }
        match self
            .bytes
            .write(start * size_of::<T>(), bytemuck::cast_slice(from))
        {
            Ok(()) => Ok(()),
            Err(_) => Err(self.out_of_bounds("write", start, from.len())),
        }
    }

    /// All elements, copied.
    pub fn to_vec(&self) -> Vec<T> {
        let mut all = vec![T::zeroed(); self.len()];
        sync::pay();
        // The whole range is in bounds by construction.
        let _ = self.bytes.read(0, bytemuck::cast_slice_mut(&mut all));
        all
    }

    #[cold]
    #[track_caller]
    fn out_of_bounds(&self, call: &'static str, disp: usize, len: usize) -> crate::Error {
        self.core.out_of_bounds(call, self.rank, disp, len)
    }
}

#[cold]
#[track_caller]
fn outside(index: usize, len: usize) -> ! {
    panic!("index {index} is outside the part of {len} elements")
}

/// This rank's own part as a slice, under the exclusive lock on itself.
///
/// Unlocks on drop; [`end`](Self::end) shows the error.
#[must_use = "the lock is given back with its guard"]
pub struct LocalGuard<'w, T: Element> {
    core: &'w mut Core,
    elements: PhantomData<fn() -> T>,
}

impl<T: Element, M: Send + 'static> Window<T, M> {
    /// This rank's own part, for single accesses beside those of peers.
    #[inline]
    pub fn local(&self) -> LocalView<'_, T> {
        LocalView::new(&self.core)
    }

    /// Locks this rank's own part exclusively: the one way to a plain slice. Waits for peers that
    /// hold a lock on it.
    ///
    /// # Errors
    /// [`Error::Epoch`](crate::Error::Epoch) if an epoch was left open by a forgotten guard;
    /// [`Error::Departed`](crate::Error::Departed), [`Error::PeerLost`](crate::Error::PeerLost):
    /// nobody knows then who still accesses the part.
    #[track_caller]
    pub fn lock_local(&mut self) -> Result<LocalGuard<'_, T>> {
        self.core.take_own("lock_local")?;
        Ok(LocalGuard {
            core: &mut self.core,
            elements: PhantomData,
        })
    }
}

impl<T: Element> LocalGuard<'_, T> {
    /// Unlocks.
    ///
    /// # Errors
    /// A lost peer.
    #[track_caller]
    pub fn end(self) -> Result<()> {
        let this = ManuallyDrop::new(self);
        this.core.unlock(this.core.rank(), LockKind::Exclusive)
    }
}

impl<T: Element> LocalGuard<'_, T> {
    /// The memory behind the guard.
    pub(crate) fn bytes(&self) -> &SharedBytes {
        self.core.bytes()
    }
}

impl<T: Element> Drop for LocalGuard<'_, T> {
    fn drop(&mut self) {
        report(self.core.unlock(self.core.rank(), LockKind::Exclusive));
    }
}
