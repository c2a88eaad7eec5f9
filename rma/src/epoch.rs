//! Guards: an open epoch on a window is the key to its operations.
//!
//! A guard exists only while its epoch does and borrows the window, so an operation through a
//! guard needs no check of the state: types refuse the wrong program. What types cannot see, a
//! *forgotten* guard, leaves its [state](crate::state) behind.
//!
//! One type, [`Epoch`], serves every kind of access epoch; [`Exposure`] is the other side of
//! post, start, complete and wait.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use crate::core::Core;
use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::group::Group;
use crate::local::LocalView;
use crate::state::Call;
use crate::sync::LockKind;
use crate::window::Window;
use crate::world::Rank;

mod sealed {
    use super::{Core, Rank};

    pub trait Sealed: Sized {
        /// Does the epoch cover `target`, a rank of the window?
        fn covers(&self, core: &Core, target: Rank) -> bool;
        /// The rank this epoch is confined to.
        fn confined(&self) -> Option<Rank> {
            None
        }
        /// The guard was dropped. Never waits for a peer's call.
        fn dropped(&self, core: &Core);
    }
}

/// The kinds of epoch: [`Fenced`], [`Started`], [`LockedOne`], [`LockedAll`].
pub trait Kind: sealed::Sealed {}

/// Kinds of passive-target epoch: operations with requests, and flushes.
#[diagnostic::on_unimplemented(
    message = "only epochs of `lock` and `lock_all` have requests and flushes",
    label = "not in an epoch of this kind",
    note = "overlap transfers by `scope`, complete them by the end of the epoch, or open it by `lock` or `lock_all`"
)]
pub trait Passive: Kind {}

/// A collective epoch between two fences.
#[derive(Debug)]
pub struct Fenced(());

/// Access to a group of ranks that have posted.
#[derive(Debug)]
pub struct Started(());

/// A lock on one rank.
#[derive(Debug)]
pub struct LockedOne {
    pub(crate) target: Rank,
    pub(crate) lock: LockKind,
}

/// A shared lock on every rank.
#[derive(Debug)]
pub struct LockedAll(());

impl Kind for Fenced {}
impl Kind for Started {}
impl Kind for LockedOne {}
impl Kind for LockedAll {}
impl Passive for LockedOne {}
impl Passive for LockedAll {}

impl sealed::Sealed for Fenced {
    #[inline(always)]
    fn covers(&self, _core: &Core, _target: Rank) -> bool {
        true
    }

    fn dropped(&self, core: &Core) {
        core.depart();
    }
}

impl sealed::Sealed for Started {
    #[inline(always)]
    fn covers(&self, core: &Core, target: Rank) -> bool {
        core.epochs.may_operate(target)
    }

    fn dropped(&self, core: &Core) {
        core.depart();
    }
}

impl sealed::Sealed for LockedOne {
    #[inline(always)]
    fn covers(&self, _core: &Core, target: Rank) -> bool {
        target == self.target
    }

    fn confined(&self) -> Option<Rank> {
        Some(self.target)
    }

    fn dropped(&self, core: &Core) {
        report(core.unlock(self.target, self.lock));
    }
}

impl sealed::Sealed for LockedAll {
    #[inline(always)]
    fn covers(&self, _core: &Core, _target: Rank) -> bool {
        true
    }

    fn dropped(&self, core: &Core) {
        report(core.unlock_all());
    }
}

/// A drop has nobody to answer to: `end` is the form whose error is seen.
pub(crate) fn report(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!("a guard was dropped and its lock ended with an error: {error:?}");
    }
}

/// An open epoch on a window: the key to its operations.
///
/// One type with four names: [`Fence`], [`Access`], [`Lock`] and [`LockAll`]. All have `put`,
/// `get`, the accumulate family and [`local`](Epoch::local); the passive ones also requests and
/// flushes. Guards may be shared by threads; a flush covers the operations that happened before
/// it.
#[must_use = "call `end`: a dropped lock only hides its errors, but a dropped fence or start counts as this rank's departure"]
pub struct Epoch<'w, T: Element, K: Kind> {
    pub(crate) core: &'w Core,
    pub(crate) kind: K,
    elements: PhantomData<fn() -> T>,
}

/// The epoch that [`Window::fence`] opens. Dropping it without [`end`](Epoch::end) or
/// [`next`](Epoch::next) marks this rank as departed.
pub type Fence<'w, T> = Epoch<'w, T, Fenced>;

/// The epoch that [`Window::start`] opens. Dropping it without [`end`](Epoch::end) marks this rank
/// as departed.
pub type Access<'w, T> = Epoch<'w, T, Started>;

/// The epoch that [`Window::lock`] opens. Closes on drop.
pub type Lock<'w, T> = Epoch<'w, T, LockedOne>;

/// The epoch that [`Window::lock_all`] opens. Closes on drop.
pub type LockAll<'w, T> = Epoch<'w, T, LockedAll>;

impl<'w, T: Element, K: Kind> Epoch<'w, T, K> {
    fn new(core: &'w Core, kind: K) -> Self {
        Epoch {
            core,
            kind,
            elements: PhantomData,
        }
    }

    /// This rank's own part, by single atomic accesses: peers may be writing.
    pub fn local(&self) -> LocalView<'_, T> {
        LocalView::new(self.core)
    }

    /// Gives up the guard without its drop; what it stood for is closed by the caller.
    fn into_parts(self) -> (&'w Core, ManuallyDrop<Self>) {
        let this = ManuallyDrop::new(self);
        (this.core, this)
    }
}

impl<T: Element, K: Kind> Drop for Epoch<'_, T, K> {
    fn drop(&mut self) {
        self.kind.dropped(self.core);
    }
}

impl<T: Element, M: Send + 'static> Window<T, M> {
    /// Opens a fence epoch: collective, acts as a barrier. The window is borrowed while it lasts.
    ///
    /// # Errors
    /// [`Error::Epoch`] after a forgotten guard; [`Error::Departed`] if a peer left.
    #[track_caller]
    pub fn fence(&mut self) -> Result<Fence<'_, T>> {
        let passed = self.core.pass_fence("fence", Call::Fence);
        // What goes through the guard leaves no trace: the epoch counts as used. So it does where a
        // transfer before it failed and there is no guard: the others have it open.
        self.core.epochs.operated();
        passed?;
        Ok(Epoch::new(&self.core, Fenced(())))
    }

    /// Begins access to the ranks of `group`, each of which exposes its part by a matching
    /// [`post`](Self::post) that names this rank; waits for these.
    ///
    /// Matching is pairwise, and rounds of the same pair cannot be confused. The group may be
    /// empty and may hold this rank itself. Ended by [`end`](Epoch::end), which completes the
    /// operations and tells the targets (`MPI_Win_start`, `MPI_Win_complete`).
    ///
    /// # Errors
    /// [`Error::Group`] for a rank outside of the window; [`Error::Epoch`] beside another access
    /// epoch; [`Error::Departed`], [`Error::PeerLost`].
    #[track_caller]
    pub fn start(&self, group: &Group) -> Result<Access<'_, T>> {
        self.core.start("start", group, true)?;
        Ok(Epoch::new(&self.core, Started(())))
    }

    /// Exposes this rank's part to the ranks of `group`, which access it between their `start` and
    /// the `end` of that. Never waits (`MPI_Win_post`).
    ///
    /// # Errors
    /// [`Error::Group`]; [`Error::Epoch`] if this rank is exposed already or locks itself;
    /// [`Error::PeerLost`].
    #[track_caller]
    pub fn post(&self, group: &Group) -> Result<Exposure<'_, T>> {
        self.core.post("post", group, true)?;
        Ok(Exposure {
            core: &self.core,
            elements: PhantomData,
        })
    }

    /// Locks the part of `target` and opens an epoch to it. Waits for conflicting holders, first
    /// come, first served; neither kind starves the other.
    ///
    /// Several targets may be locked at once; a second lock on one target is an error. Threads
    /// may lock different targets at the same time.
    ///
    /// # Errors
    /// [`Error::BadRank`]; [`Error::Epoch`] if `target` is locked already or another epoch was
    /// left open by a forgotten guard; [`Error::NoLocks`] if the window was made without locks.
    #[inline]
    #[track_caller]
    pub fn lock(&self, target: Rank, lock: LockKind) -> Result<Lock<'_, T>> {
        self.core.take_lock("lock", target, lock)?;
        Ok(Epoch::new(&self.core, LockedOne { target, lock }))
    }

    /// Locks every rank, shared, and opens an epoch to all of them. Not collective.
    ///
    /// # Errors
    /// [`Error::Epoch`] after a forgotten guard; [`Error::NoLocks`].
    #[track_caller]
    pub fn lock_all(&mut self) -> Result<LockAll<'_, T>> {
        self.core.take_lock_all("lock_all")?;
        Ok(Epoch::new(&self.core, LockedAll(())))
    }
}

impl<T: Element> Fence<'_, T> {
    /// Closes this epoch and opens the next with one fence: collective. On return the
    /// operations of the ended epoch are complete everywhere.
    ///
    /// # Errors
    /// [`Error::Departed`] if a peer left; [`Error::Transfer`] for an operation that failed: the
    /// fence has taken place all the same, and [`Window::fence`] continues.
    #[track_caller]
    pub fn next(self) -> Result<Self> {
        let (core, this) = self.into_parts();
        let passed = core.pass_fence("next", Call::Fence);
        core.epochs.operated();
        passed?;
        Ok(ManuallyDrop::into_inner(this))
    }

    /// Closes this epoch: collective. On return its operations are complete everywhere.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[track_caller]
    pub fn end(self) -> Result<()> {
        let (core, _closed) = self.into_parts();
        core.pass_fence("end", Call::FenceEnd)
    }
}

impl<T: Element> Access<'_, T> {
    /// Completes the operations, here and at the targets, and tells these that this rank is done.
    ///
    /// # Errors
    /// [`Error::Transfer`] for an operation that failed; the epoch is over all the same.
    #[track_caller]
    pub fn end(self) -> Result<()> {
        let (core, _closed) = self.into_parts();
        core.complete("complete")
    }
}

impl<T: Element> Lock<'_, T> {
    /// The rank that is locked.
    pub fn target(&self) -> Rank {
        self.kind.target
    }

    /// Completes the operations at the target and unlocks it.
    ///
    /// # Errors
    /// [`Error::Transfer`] for an operation that failed; the lock is over all the same.
    #[inline]
    #[track_caller]
    pub fn end(self) -> Result<()> {
        let (core, this) = self.into_parts();
        core.unlock(this.kind.target, this.kind.lock)
    }
}

impl<'w, T: Element> LockAll<'w, T> {
    /// The guard of an epoch that somebody else opened and ends.
    pub(crate) fn standing(core: &'w Core) -> Self {
        Epoch::new(core, LockedAll(()))
    }

    /// Completes all operations and unlocks all ranks.
    ///
    /// # Errors
    /// [`Error::Transfer`] for an operation that failed; the locks are over all the same.
    #[track_caller]
    pub fn end(self) -> Result<()> {
        let (core, _closed) = self.into_parts();
        core.unlock_all()
    }
}

/// This rank's part, exposed by [`Window::post`] to a group of ranks.
///
/// Dropping it without [`wait`](Self::wait) marks this rank as departed.
#[must_use = "the exposure ends with `wait`"]
pub struct Exposure<'w, T: Element> {
    core: &'w Core,
    elements: PhantomData<fn() -> T>,
}

impl<T: Element> Exposure<'_, T> {
    /// This rank's own part, by single atomic accesses: peers may be writing.
    pub fn local(&self) -> LocalView<'_, T> {
        LocalView::new(self.core)
    }

    /// Waits until every rank of the group has ended its access; its operations have arrived then
    /// (`MPI_Win_wait`).
    ///
    /// # Errors
    /// [`Error::Departed`], [`Error::PeerLost`]; the exposure is over all the same.
    #[track_caller]
    pub fn wait(self) -> Result<()> {
        let core = ManuallyDrop::new(self).core;
        core.wait("wait")
    }

    /// Ends the exposure if every rank of the group has ended its access, else gives it back.
    /// Never waits (`MPI_Win_test`).
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn test(self) -> Result<Option<Self>> {
        let this = ManuallyDrop::new(self);
        Ok(match this.core.test("test")? {
            true => None,
            false => Some(ManuallyDrop::into_inner(this)),
        })
    }
}

impl<T: Element> Drop for Exposure<'_, T> {
    fn drop(&mut self) {
        self.core.depart();
    }
}
