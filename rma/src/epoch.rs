//! Is this call legal now? The epoch state machine, and the guards that are its keys.
//!
//! The state of (process, window) is the truth (mpi-rma 4): [`step`] is its table as one `match`.
//! A guard exists only while its epoch does and borrows the window, so an operation through a
//! guard needs no check of the state: types refuse the wrong program. What types cannot see, a
//! *forgotten* guard, leaves its state behind, and the next conflicting call answers
//! [`Error::Epoch`].
//!
//! The exposure state of the table is left out: only fence opens one here, so it is always what
//! the access state says.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::local::LocalView;
use crate::sync::LockKind;
use crate::window::Window;
use crate::world::Rank;

/// The access state of one process on one window (mpi-rma 4, state A), as a call sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// No epoch.
    None,
    /// A fence opened an epoch; no operation yet.
    Fence,
    /// A fence epoch that may have operations. A [`Fence`](crate::Fence) guard counts as used,
    /// because operations on the hot path leave no trace.
    FenceUsed,
    /// Locks are held.
    Lock {
        /// On the rank that the call names.
        this: bool,
        /// On other ranks.
        others: bool,
    },
    /// All ranks are locked.
    LockAll,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::None => "no epoch is open; open one by fence, lock or lock_all",
            Access::Fence => "a fence opened an epoch; close it by end",
            Access::FenceUsed => "a fence epoch is open; close it by end, do not forget its guard",
            Access::Lock { this: true, .. } => "this rank is locked already; end that lock first",
            Access::Lock { .. } => "other ranks are locked; end those locks first",
            Access::LockAll => "a lock_all epoch is open; close it by end",
        })
    }
}

/// A call as the state table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// A fence that opens an epoch.
    Fence,
    /// A fence after which nothing follows (`MPI_MODE_NOSUCCEED`).
    FenceEnd,
    /// Lock one rank.
    Lock,
    /// Unlock it.
    Unlock,
    /// Lock all ranks, shared.
    LockAll,
    /// Unlock them.
    UnlockAll,
    /// put, get, accumulate and the fetching operations.
    Operation,
    /// An operation that returns a request.
    Request,
    /// Complete what was sent to one rank.
    Flush,
    /// Complete everything.
    FlushAll,
    /// Free the window.
    Free,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Fence => "fence",
            Call::FenceEnd => "the closing fence",
            Call::Lock => "lock",
            Call::Unlock => "unlock",
            Call::LockAll => "lock_all",
            Call::UnlockAll => "unlock_all",
            Call::Operation => "an operation",
            Call::Request => "an operation with a request",
            Call::Flush => "flush",
            Call::FlushAll => "flush_all",
            Call::Free => "free",
        })
    }
}

/// The table of mpi-rma 4: the new state, or `None` where the call is not legal.
pub(crate) const fn step(state: Access, call: Call) -> Option<Access> {
    use Access as A;
    use Call as C;
    Some(match (call, state) {
        (C::Fence, A::None | A::Fence | A::FenceUsed) => A::Fence,
        (C::FenceEnd, A::None | A::Fence | A::FenceUsed) => A::None,

        (C::Lock, A::None | A::Fence) => A::Lock {
            this: true,
            others: false,
        },
        (C::Lock, A::Lock { this: false, .. }) => A::Lock {
            this: true,
            others: true,
        },
        (C::Unlock, A::Lock { this: true, others }) => match others {
            false => A::None,
            true => A::Lock {
                this: false,
                others: true,
            },
        },
        (C::LockAll, A::None | A::Fence) => A::LockAll,
        (C::UnlockAll, A::LockAll) => A::None,

        (C::Operation, A::Fence | A::FenceUsed) => A::FenceUsed,
        (C::Operation | C::Request | C::Flush, A::LockAll | A::Lock { this: true, .. }) => state,
        (C::FlushAll, A::LockAll | A::Lock { .. }) => state,

        (C::Free, A::None | A::Fence) => A::None,
        _ => return None,
    })
}

const MODE_NONE: u8 = 0;
const MODE_FENCE: u8 = 1;
const MODE_FENCE_USED: u8 = 2;
const MODE_LOCK_ALL: u8 = 3;

/// The state of this process on one window.
///
/// Fence and lock_all borrow the window mutably, so `mode` never changes while another thread
/// locks; it is atomic only to be shared. A lock claims its target by one locked instruction.
pub(crate) struct Epochs {
    mode: AtomicU8,
    /// Some lock was taken since the flags were last seen all clear.
    locks: AtomicBool,
    held: Box<[AtomicBool]>,
    /// A fence guard was dropped: this rank takes no further part in collective calls.
    departed: AtomicBool,
}

impl Epochs {
    pub(crate) fn new(size: usize) -> Epochs {
        Epochs {
            mode: AtomicU8::new(MODE_NONE),
            locks: AtomicBool::new(false),
            held: (0..size).map(|_| AtomicBool::new(false)).collect(),
            departed: AtomicBool::new(false),
        }
    }

    /// The state as a call on `target` sees it.
    pub(crate) fn state(&self, target: Option<Rank>) -> Access {
        match self.mode.load(Ordering::Relaxed) {
            MODE_FENCE => return Access::Fence,
            MODE_FENCE_USED => return Access::FenceUsed,
            MODE_LOCK_ALL => return Access::LockAll,
            _ => {}
        }
        if !self.locks.load(Ordering::Relaxed) {
            return Access::None;
        }
        let target = target.map(|rank| rank.0 as usize);
        let (mut this, mut others) = (false, false);
        for (rank, held) in self.held.iter().enumerate() {
            if held.load(Ordering::Relaxed) {
                *(if Some(rank) == target {
                    &mut this
                } else {
                    &mut others
                }) = true;
            }
        }
        if this || others {
            Access::Lock { this, others }
        } else {
            self.locks.store(false, Ordering::Relaxed);
            Access::None
        }
    }

    /// What `call` would make of the state, or the state that forbids it.
    pub(crate) fn check(&self, call: Call) -> Result<Access, Access> {
        let state = self.state(None);
        step(state, call).ok_or(state)
    }

    /// Takes over a state that [`check`](Self::check) allowed and that names no lock.
    pub(crate) fn set(&self, state: Access) {
        let mode = match state {
            Access::Fence => MODE_FENCE,
            Access::FenceUsed => MODE_FENCE_USED,
            Access::LockAll => MODE_LOCK_ALL,
            Access::None | Access::Lock { .. } => MODE_NONE,
        };
        self.mode.store(mode, Ordering::Relaxed);
    }

    pub(crate) fn depart(&self) {
        self.departed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_departed(&self) -> bool {
        self.departed.load(Ordering::Relaxed)
    }

    /// `lock(target)` of the table without looking at the other ranks: it is legal in the states
    /// none, fence, and lock without `target`.
    #[inline]
    pub(crate) fn claim(&self, target: Rank) -> Result<(), Access> {
        match self.mode.load(Ordering::Relaxed) {
            MODE_NONE | MODE_FENCE => {}
            _ => return Err(self.state(Some(target))),
        }
        let held = &self.held[target.0 as usize];
        // A locked instruction: of two threads that lock one target, one is refused.
        if held.swap(true, Ordering::Acquire) {
            return Err(self.state(Some(target)));
        }
        self.locks.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// `unlock(target)` of the table, for the holder of the claim.
    #[inline]
    pub(crate) fn disclaim(&self, target: Rank) {
        self.held[target.0 as usize].store(false, Ordering::Release);
    }
}

mod sealed {
    use super::{Element, Rank, Window};

    pub trait Sealed: Sized {
        /// The rank this epoch is confined to, if it does not cover `target`.
        fn confined(&self, target: Rank) -> Option<Rank>;
        /// The guard was dropped. Never waits for a peer's call.
        fn dropped<T: Element>(&self, window: &Window<T>);
    }
}

/// The kinds of epoch: [`Fenced`], [`LockedOne`], [`LockedAll`].
pub trait Kind: sealed::Sealed {}

/// Kinds of passive-target epoch: operations with requests, and flushes.
pub trait Passive: Kind {}

/// A collective epoch between two fences.
#[derive(Debug)]
pub struct Fenced(());

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
impl Kind for LockedOne {}
impl Kind for LockedAll {}
impl Passive for LockedOne {}
impl Passive for LockedAll {}

impl sealed::Sealed for Fenced {
    #[inline(always)]
    fn confined(&self, _target: Rank) -> Option<Rank> {
        None
    }

    fn dropped<T: Element>(&self, window: &Window<T>) {
        window.epochs.depart();
        window.exposure().depart();
    }
}

impl sealed::Sealed for LockedOne {
    #[inline(always)]
    fn confined(&self, target: Rank) -> Option<Rank> {
        (target != self.target).then_some(self.target)
    }

    fn dropped<T: Element>(&self, window: &Window<T>) {
        report(window.unlock(self.target, self.lock));
    }
}

impl sealed::Sealed for LockedAll {
    #[inline(always)]
    fn confined(&self, _target: Rank) -> Option<Rank> {
        None
    }

    fn dropped<T: Element>(&self, window: &Window<T>) {
        report(window.unlock_all());
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
/// One type with three names: [`Fence`], [`Lock`] and [`LockAll`]. All have `put`, `get`, the
/// accumulate family and [`local`](Epoch::local); the passive ones also requests and flushes.
/// Guards may be shared by threads; a flush covers the operations that happened before it.
#[must_use = "the epoch closes with its guard; call `end` to see its errors"]
pub struct Epoch<'w, T: Element, K: Kind> {
    pub(crate) window: &'w Window<T>,
    pub(crate) kind: K,
}

/// The epoch that [`Window::fence`] opens. Dropping it without [`end`](Epoch::end) or
/// [`next`](Epoch::next) marks this rank as departed.
pub type Fence<'w, T> = Epoch<'w, T, Fenced>;

/// The epoch that [`Window::lock`] opens. Closes on drop.
pub type Lock<'w, T> = Epoch<'w, T, LockedOne>;

/// The epoch that [`Window::lock_all`] opens. Closes on drop.
pub type LockAll<'w, T> = Epoch<'w, T, LockedAll>;

impl<'w, T: Element, K: Kind> Epoch<'w, T, K> {
    fn new(window: &'w Window<T>, kind: K) -> Self {
        Epoch { window, kind }
    }

    /// This rank's own part, by single atomic accesses: peers may be writing.
    pub fn local(&self) -> LocalView<'_, T> {
        self.window.local()
    }

    /// Gives up the guard without its drop; what it stood for is closed by the caller.
    fn into_parts(self) -> (&'w Window<T>, ManuallyDrop<Self>) {
        let this = ManuallyDrop::new(self);
        (this.window, this)
    }
}

impl<T: Element, K: Kind> Drop for Epoch<'_, T, K> {
    fn drop(&mut self) {
        self.kind.dropped(self.window);
    }
}

impl<T: Element> Window<T> {
    /// Opens a fence epoch: collective, acts as a barrier. The window is borrowed while it lasts.
    ///
    /// # Errors
    /// [`Error::Epoch`] after a forgotten guard of a lock; [`Error::Departed`] if a peer left.
    #[track_caller]
    pub fn fence(&mut self) -> Result<Fence<'_, T>> {
        self.pass_fence("fence", Call::Fence)?;
        Ok(Epoch::new(self, Fenced(())))
    }

    /// Locks the part of `target` and opens an epoch to it. Waits for conflicting holders, first
    /// come, first served; neither kind starves the other.
    ///
    /// Several targets may be locked at once; a second lock on one target is an error. Threads
    /// may lock different targets at the same time.
    ///
    /// # Errors
    /// [`Error::BadRank`]; [`Error::Epoch`] if `target` is locked already or another epoch was
    /// left open by a forgotten guard.
    #[inline]
    #[track_caller]
    pub fn lock(&self, target: Rank, lock: LockKind) -> Result<Lock<'_, T>> {
        self.take_lock("lock", target, lock)?;
        Ok(Epoch::new(self, LockedOne { target, lock }))
    }

    /// Locks every rank, shared, and opens an epoch to all of them. Not collective.
    ///
    /// # Errors
    /// [`Error::Epoch`] after a forgotten guard.
    #[track_caller]
    pub fn lock_all(&mut self) -> Result<LockAll<'_, T>> {
        self.take_lock_all()?;
        Ok(Epoch::new(self, LockedAll(())))
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
        let (window, this) = self.into_parts();
        window.pass_fence("next", Call::Fence)?;
        Ok(ManuallyDrop::into_inner(this))
    }

    /// Closes this epoch: collective. On return its operations are complete everywhere.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[track_caller]
    pub fn end(self) -> Result<()> {
        let (window, _closed) = self.into_parts();
        window.pass_fence("end", Call::FenceEnd)
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
        let (window, this) = self.into_parts();
        window.unlock(this.kind.target, this.kind.lock)
    }
}

impl<T: Element> LockAll<'_, T> {
    /// Completes all operations and unlocks all ranks.
    ///
    /// # Errors
    /// [`Error::Transfer`] for an operation that failed; the locks are over all the same.
    #[track_caller]
    pub fn end(self) -> Result<()> {
        let (window, _closed) = self.into_parts();
        window.unlock_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const LOCKS: [Access; 3] = [
        Access::Lock {
            this: true,
            others: false,
        },
        Access::Lock {
            this: false,
            others: true,
        },
        Access::Lock {
            this: true,
            others: true,
        },
    ];

    fn states() -> impl Iterator<Item = Access> {
        [
            Access::None,
            Access::Fence,
            Access::FenceUsed,
            Access::LockAll,
        ]
        .into_iter()
        .chain(LOCKS)
    }

    /// mpi-rma 4 row by row: in which states a call is legal, written a second time.
    #[test]
    fn the_table_is_the_specifications() {
        use Access::{Fence, FenceUsed, LockAll, None};
        let [this, others, both] = LOCKS;
        let rows: [(Call, &[Access]); 11] = [
            (Call::Fence, &[None, Fence, FenceUsed]),
            (Call::FenceEnd, &[None, Fence, FenceUsed]),
            (Call::Lock, &[None, Fence, others]),
            (Call::Unlock, &[this, both]),
            (Call::LockAll, &[None, Fence]),
            (Call::UnlockAll, &[LockAll]),
            (Call::Operation, &[Fence, FenceUsed, LockAll, this, both]),
            (Call::Request, &[LockAll, this, both]),
            (Call::Flush, &[LockAll, this, both]),
            (Call::FlushAll, &[LockAll, this, others, both]),
            (Call::Free, &[None, Fence]),
        ];
        for (call, legal) in rows {
            for state in states() {
                assert_eq!(
                    step(state, call).is_some(),
                    legal.contains(&state),
                    "{call:?} in {state:?}"
                );
            }
        }
    }

    #[test]
    fn the_table_moves_as_it_should() {
        let [this, others, both] = LOCKS;
        assert_eq!(step(Access::FenceUsed, Call::Fence), Some(Access::Fence));
        assert_eq!(
            step(Access::Fence, Call::Operation),
            Some(Access::FenceUsed)
        );
        assert_eq!(step(Access::FenceUsed, Call::FenceEnd), Some(Access::None));
        assert_eq!(step(Access::Fence, Call::Lock), Some(this));
        assert_eq!(step(others, Call::Lock), Some(both));
        assert_eq!(step(both, Call::Unlock), Some(others));
        assert_eq!(step(this, Call::Unlock), Some(Access::None));
        assert_eq!(step(Access::LockAll, Call::Flush), Some(Access::LockAll));
    }

    /// The fast way agrees with the table in every state that a window can be in.
    #[test]
    fn claim_is_the_tables_lock() {
        for state in states() {
            let epochs = Epochs::new(3);
            if let Access::Lock { this, others } = state {
                if this {
                    epochs.claim(Rank(1)).unwrap();
                }
                if others {
                    epochs.claim(Rank(2)).unwrap();
                }
            } else {
                epochs.set(state);
            }
            assert_eq!(epochs.state(Some(Rank(1))), state);
            let legal = step(state, Call::Lock);
            assert_eq!(epochs.claim(Rank(1)).is_ok(), legal.is_some(), "{state:?}");
            if matches!(state, Access::None | Access::Lock { .. }) {
                let now = epochs.state(Some(Rank(1)));
                assert_eq!(now, legal.unwrap_or(state));
                epochs.disclaim(Rank(1));
                assert_eq!(Some(epochs.state(Some(Rank(1)))), step(now, Call::Unlock));
            }
        }
    }

    #[test]
    fn of_two_threads_one_gets_the_target() {
        let epochs = Epochs::new(1);
        for _ in 0..200 {
            let wins: usize = std::thread::scope(|scope| {
                let threads = [(); 2].map(|()| scope.spawn(|| epochs.claim(Rank(0)).is_ok()));
                threads
                    .into_iter()
                    .map(|t| usize::from(t.join().unwrap()))
                    .sum()
            });
            assert_eq!(wins, 1);
            epochs.disclaim(Rank(0));
        }
    }

    #[test]
    fn a_held_lock_forbids_the_collective_calls() {
        let epochs = Epochs::new(2);
        epochs.claim(Rank(1)).unwrap();
        let held = Access::Lock {
            this: false,
            others: true,
        };
        for call in [Call::Fence, Call::LockAll, Call::Free] {
            assert_eq!(epochs.check(call), Err(held));
        }
        epochs.disclaim(Rank(1));
        assert_eq!(epochs.check(Call::Fence), Ok(Access::Fence));
    }

    #[test]
    fn texts_name_the_remedy() {
        let error = Error::Epoch {
            state: Access::FenceUsed,
            call: Call::Lock,
            at: Box::new(crate::error::Site {
                call: "lock_local",
                rank: Some(0),
                window: None,
                location: std::panic::Location::caller(),
            }),
        };
        let text = error.to_string();
        assert!(
            text.contains("lock is not allowed now") && text.contains("end"),
            "{text}"
        );
    }
}
