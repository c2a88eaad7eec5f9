//! A rank's own part: by single accesses at any time, or as a slice under an exclusive lock.
//!
//! Peers may read and write the part at any moment, so it is never a Rust reference, except
//! while this rank holds the exclusive lock on itself and the window mutably: a [`LocalGuard`].
//! A [`LocalView`] needs neither; its accesses are aligned relaxed atomics of 1, 2, 4 or 8 bytes,
//! never torn; larger elements and ranges are copied and may mix old and new bytes.
//!
//! Where the part lies on a real VE no address leads to it: a view transfers, and the slice is a
//! copy that is written back.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use windlass_mem::{SharedBytes, sync};
use windlass_runtime::{Pending, Posted, Region};

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
        match self.bytes.len() {
            0 => self
                .far()
                .map_or(0, |_| self.core.reach[self.rank.0 as usize].count),
            bytes => bytes / size_of::<T>(),
        }
    }

    /// Has the part no elements?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The way to the part where no address leads to it.
    #[cold]
    fn far(&self) -> Option<&'a Posted> {
        self.core
            .own_posted()
            .filter(|_| self.rank == self.core.rank())
    }

    /// Copies elements that no address leads to.
    #[cold]
    #[track_caller]
    fn read_far(&self, call: &'static str, start: usize, into: &mut [T]) -> Result<()> {
        let (bytes, len) = (bytemuck::cast_slice_mut(into), self.len());
        match self.far() {
            Some(posted) if fits(start, bytes.len() / size_of::<T>(), len) => {
                let offset = (start * size_of::<T>()) as u64;
                self.core.sent(call, self.rank, posted.get(offset, bytes))
            }
            _ => Err(self.out_of_bounds(call, start, bytes.len() / size_of::<T>())),
        }
    }

    /// Changes elements that no address leads to.
    #[cold]
    #[track_caller]
    fn write_far(&self, call: &'static str, start: usize, from: &[T]) -> Result<()> {
        match self.far() {
            Some(posted) if fits(start, from.len(), self.len()) => {
                let offset = (start * size_of::<T>()) as u64;
                let done = posted.put(offset, bytemuck::cast_slice(from));
                self.core.sent(call, self.rank, done)
            }
            _ => Err(self.out_of_bounds(call, start, from.len())),
        }
    }

    /// The element at `index`. One relaxed load for 1, 2, 4 and 8 bytes.
    ///
    /// # Panics
    /// Outside the part, as indexing a slice does, and where the part is on a real VE whose process
    /// is gone; [`read`](Self::read) answers an error.
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
        if !read && let Err(why) = self.read_far("load", index, std::slice::from_mut(&mut value)) {
            outside(index, self.len(), &why);
        }
        value
    }

    /// Changes the element at `index`. One relaxed store for 1, 2, 4 and 8 bytes.
    ///
    /// # Panics
    /// Outside the part, as indexing a slice does, and where the part is on a real VE whose process
    /// is gone; [`write`](Self::write) answers an error.
    #[inline]
    #[track_caller]
    pub fn store(&self, index: usize, value: T) {
        let written = match index.checked_mul(size_of::<T>()) {
            Some(offset) => self.bytes.write(offset, bytemuck::bytes_of(&value)).is_ok(),
            None => false,
        };
        if !written && let Err(why) = self.write_far("store", index, &[value]) {
            outside(index, self.len(), &why);
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
        let bytes = bytemuck::cast_slice_mut(into);
        match self.bytes.read(start * size_of::<T>(), bytes) {
            Ok(()) => Ok(()),
            Err(_) => self.read_far("read", start, into),
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
            Err(_) => self.write_far("write", start, from),
        }
    }

    /// All elements, copied.
    ///
    /// # Panics
    /// Where the part is on a real VE whose process is gone.
    #[track_caller]
    pub fn to_vec(&self) -> Vec<T> {
        let mut all = vec![T::zeroed(); self.len()];
        if let Err(why) = self.read(0, &mut all) {
            outside(0, all.len(), &why);
        }
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
fn outside(index: usize, len: usize, why: &crate::Error) -> ! {
    match why {
        crate::Error::OutOfBounds { .. } => {
            panic!("index {index} is outside the part of {len} elements")
        }
        why => panic!("element {index}: {why}"),
    }
}

/// This rank's own part as a slice, under the exclusive lock on itself.
///
/// Unlocks on drop; [`end`](Self::end) shows the error.
#[must_use = "the lock is given back with its guard"]
pub struct LocalGuard<'w, T: Element> {
    core: &'w mut Core,
    /// The part's elements where no address leads to the part itself.
    copy: Option<Copied>,
    elements: PhantomData<fn() -> T>,
}

/// A part that no address leads to, in memory of the host.
struct Copied {
    region: Region,
    /// Somebody may have changed it.
    changed: bool,
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
        let mut guard = LocalGuard {
            core: &mut self.core,
            copy: None,
            elements: PhantomData,
        };
        guard.copy = guard.core.own_copy("lock_local")?;
        Ok(guard)
    }
}

impl Core {
    /// This rank's part, copied to where an address leads to it, if none leads to it as it is.
    #[track_caller]
    fn own_copy(&self, call: &'static str) -> Result<Option<Copied>> {
        let Some(posted) = self.own_posted() else {
            return Ok(None);
        };
        let len = self.reach[self.rank().0 as usize].bytes as usize;
        let region = self.done(call, self.exposure().job().allocate(len, 1))?;
        let got = posted.start_get(0, region.bytes());
        self.sent(call, self.rank(), got.and_then(Pending::wait))?;
        Ok(Some(Copied {
            region,
            changed: false,
        }))
    }

    /// The copy's elements, brought back.
    #[track_caller]
    fn put_back(&self, call: &'static str, copy: &Region) -> Result<()> {
        let Some(posted) = self.own_posted() else {
            return Ok(());
        };
        let put = posted.start_put(0, copy.bytes());
        self.sent(call, self.rank(), put.and_then(Pending::wait))
    }
}

impl<T: Element> LocalGuard<'_, T> {
    /// Unlocks.
    ///
    /// # Errors
    /// A lost peer.
    #[track_caller]
    pub fn end(self) -> Result<()> {
        let mut this = ManuallyDrop::new(self);
        this.unlock("end")
    }
}

impl<T: Element> LocalGuard<'_, T> {
    /// The memory behind the guard.
    pub(crate) fn bytes(&self) -> &SharedBytes {
        match &self.copy {
            None => self.core.bytes(),
            Some(copy) => copy.region.bytes(),
        }
    }

    /// The same, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &SharedBytes {
        if let Some(copy) = &mut self.copy {
            copy.changed = true;
        }
        self.bytes()
    }

    #[track_caller]
    fn unlock(&mut self, call: &'static str) -> Result<()> {
        let back = match self.copy.take() {
            Some(copy) if copy.changed => self.core.put_back(call, &copy.region),
            _ => Ok(()),
        };
        let rank = self.core.rank();
        back.and(self.core.unlock(rank, LockKind::Exclusive))
    }
}

impl<T: Element> Drop for LocalGuard<'_, T> {
    fn drop(&mut self) {
        report(self.unlock("lock_local"));
    }
}
