//! Fence and locks of a window, over the runtime's barrier and words.
//!
//! # Fence
//! 1. What this rank posted is completed at its targets (mapped stores are there already).
//! 2. A barrier of the window's ranks: whoever leaves it knows that everybody had completed. In it
//!    all say whether an epoch follows; where they do not agree, the fence fails on all of them. So
//!    no rank holds a slice of its part while another has a fence epoch open.
//!
//! A failed transfer does not keep a rank from the barrier, or the others would wait for ever;
//! its error is answered after it.
//!
//! # Locks
//! One lock per part, by the algorithm of the `lock` module on three words in the control
//! segment of the part's node. Unlock completes the operations first, then gives the lock back:
//! whoever takes it next finds the data. The local claim (which targets does this process hold)
//! comes before the lock and goes after it, so that no thread waits for itself.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass_mem::SharedWord;
use windlass_mem::sync::{Patience, Step, settled};
use windlass_runtime as runtime;
use windlass_runtime::{Adding, Exposure, Route, Word, WordName};

use crate::core::{Core, Status};
use crate::error::Result;
pub use crate::lock::LockKind;
use crate::lock::{self, EAGER_TRIES, LockWord, Name, Tried, Words};
use crate::state::{AccessState, Call, ExposureState};
use crate::world::Rank;

/// The lock words of one rank's part.
struct PartLock<'a> {
    exposure: &'a Exposure,
    rank: u32,
    /// The one that the fast path needs; the others are looked up when they are.
    word: Word<'a>,
    patience: RefCell<Patience>,
}

impl LockWord for Word<'_> {
    type Error = runtime::Error;

    fn fetch_add(&self, value: u64) -> runtime::Result<u64> {
        Word::fetch_add(self, value)
    }

    fn fetch_sub(&self, value: u64) -> runtime::Result<u64> {
        Word::fetch_sub(self, value)
    }

    fn compare_exchange(
        &self,
        old: u64,
        new: u64,
    ) -> runtime::Result<std::result::Result<u64, u64>> {
        Word::compare_exchange(self, old, new)
    }
}

/// A lock word of this node: two locked instructions are a lock's whole fast path. Each also pays
/// the fence that a flush owes.
impl LockWord for SharedWord {
    type Error = Infallible;

    #[inline(always)]
    fn fetch_add(&self, value: u64) -> std::result::Result<u64, Infallible> {
        settled();
        Ok(AtomicU64::fetch_add(self, value, Ordering::SeqCst))
    }

    #[inline(always)]
    fn fetch_sub(&self, value: u64) -> std::result::Result<u64, Infallible> {
        settled();
        Ok(AtomicU64::fetch_sub(self, value, Ordering::SeqCst))
    }

    #[inline(always)]
    fn compare_exchange(
        &self,
        old: u64,
        new: u64,
    ) -> std::result::Result<std::result::Result<u64, u64>, Infallible> {
        settled();
        let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        Ok(AtomicU64::compare_exchange(
            self, old, new, success, failure,
        ))
    }
}

impl<'a> PartLock<'a> {
    fn new(exposure: &'a Exposure, rank: u32) -> runtime::Result<PartLock<'a>> {
        Ok(PartLock {
            exposure,
            rank,
            word: exposure.word(WordName::Lock(rank))?,
            patience: RefCell::new(Patience::new(true)),
        })
    }

    fn with<R>(
        &self,
        name: Name,
        f: impl FnOnce(&Word<'_>) -> runtime::Result<R>,
    ) -> runtime::Result<R> {
        match name {
            Name::Lock => f(&self.word),
            Name::Ticket => f(&self.exposure.word(WordName::Ticket(self.rank))?),
            Name::Serving => f(&self.exposure.word(WordName::Serving(self.rank))?),
        }
    }

    fn sleepers(&self) -> runtime::Result<Word<'_>> {
        self.exposure.word(WordName::LockSleepers(self.rank))
    }
}

impl<'a> Words for PartLock<'a> {
    type Error = runtime::Error;
    type Lock = Word<'a>;

    fn lock(&self) -> &Word<'a> {
        &self.word
    }

    fn load(&self, name: Name) -> runtime::Result<u64> {
        self.with(name, |word| word.load())
    }

    fn fetch_add(&self, name: Name, value: u64) -> runtime::Result<u64> {
        self.with(name, |word| word.fetch_add(value))
    }

    fn is_far(&self) -> bool {
        !self.word.is_here()
    }

    /// All are asked before the first answer is waited for.
    fn add_to_each(all: &[Self], value: u64) -> Vec<runtime::Result<u64>> {
        let asked: Vec<_> = all.iter().map(|part| part.word.start_add(value)).collect();
        let old = |asked: runtime::Result<Adding>| asked.and_then(Adding::old);
        asked.into_iter().map(old).collect()
    }

    fn fetch_or(&self, name: Name, value: u64) -> runtime::Result<u64> {
        self.with(name, |word| word.fetch_or(value))
    }

    fn fetch_and(&self, name: Name, value: u64) -> runtime::Result<u64> {
        self.with(name, |word| word.fetch_and(value))
    }

    fn wait(&self, name: Name, done: impl Fn(u64) -> bool) -> runtime::Result<()> {
        let sleepers = self.sleepers()?;
        self.with(name, |word| word.wait(&sleepers, done).map(|_| ()))
    }

    fn wake(&self, name: Name) -> runtime::Result<()> {
        let sleepers = self.sleepers()?;
        self.with(name, |word| {
            word.wake(&sleepers);
            Ok(())
        })
    }

    /// Twenty polls, or a timed yield once polling has not helped (measured-designs 4).
    fn pause(&self, _attempt: u32) {
        let mut patience = self.patience.borrow_mut();
        for _ in 0..20 {
            std::hint::spin_loop();
            if patience.step() != Step::Again {
                return;
            }
        }
    }
}

impl Core {
    /// Ranks of this rank's node that try before they queue: only where they outnumber cpus.
    fn eager(&self) -> u32 {
        if self.world.job().oversubscribed() {
            EAGER_TRIES
        } else {
            0
        }
    }

    /// A fence; `call` says whether an epoch follows. On a transfer's failure the fence has taken
    /// place all the same; on any other error the epoch is what it was.
    #[track_caller]
    pub(crate) fn pass_fence(&self, name: &'static str, call: Call) -> Result<()> {
        let next = self.allowed(name, call, None)?;
        self.present(name)?;
        let drained = self.drain_all(name);
        // Draining says that this rank flushes: now it waits for the others.
        self.enter(Status::Fence);
        // All ranks say whether an epoch follows: it is open on all of them or on none.
        let met = self.exposure().barrier(call != Call::FenceEnd);
        self.enter(Status::Compute);
        self.done(name, met)?;
        self.epochs.set(next);
        drained
    }

    /// The slow path of a lock. Only here does the launcher learn that this rank waits.
    #[cold]
    #[track_caller]
    fn wait_for_lock(
        &self,
        name: &'static str,
        target: Rank,
        kind: LockKind,
        tried: Option<Tried>,
    ) -> Result<()> {
        self.enter(Status::Lock);
        let me = self.rank().0;
        let taken = PartLock::new(self.exposure(), target.0).and_then(|part| {
            match tried {
                None if lock::try_acquire(&part, kind, me)? => return Ok(()),
                Some(Tried::Busy { wake: true }) => part.wake(Name::Lock)?,
                _ => {}
            }
            lock::acquire_slowly(&part, kind, me, self.eager())
        });
        self.enter(Status::Compute);
        match taken {
            Ok(()) => {
                // Where two threads of this process raced for it, the other has just let it go.
                self.epochs.hold(target);
                Ok(())
            }
            Err(error) => {
                self.epochs.disclaim(target);
                Err(self.job_error(name, error))
            }
        }
    }

    /// The local part of a lock: what `MPI_MODE_NOCHECK` leaves of it.
    #[inline]
    #[track_caller]
    pub(crate) fn claim_unchecked(&self, name: &'static str, target: Rank) -> Result<()> {
        if self.no_locks() {
            return Err(self.without_locks(name));
        }
        if self.epochs.claim(target) {
            return Ok(());
        }
        let state = self.epochs.state(Some(target));
        Err(self.wrong_epoch(name, Call::Lock, state))
    }

    #[inline(always)]
    #[track_caller]
    pub(crate) fn take_lock(&self, name: &'static str, target: Rank, kind: LockKind) -> Result<()> {
        if let Some(reach) = self.reach.get(target.0 as usize)
            && let Some(word) = &reach.lock
            && self.epochs.claim(target)
        {
            let Ok(tried) = lock::try_word(word, kind, self.rank().0);
            return match tried {
                Tried::Held => Ok(()),
                busy => self.wait_for_lock(name, target, kind, Some(busy)),
            };
        }
        self.take_lock_slowly(name, target, kind)
    }

    /// A lock on another node, or refused.
    #[cold]
    #[track_caller]
    fn take_lock_slowly(&self, name: &'static str, target: Rank, kind: LockKind) -> Result<()> {
        if target.0 as usize >= self.reach.len() {
            return Err(self.bad_rank(name, target));
        }
        self.claim_unchecked(name, target)?;
        self.wait_for_lock(name, target, kind, None)
    }

    /// Locks this rank's own part so that nobody else accesses it, by whatever epoch.
    ///
    /// Refused while it is exposed by a forgotten guard, and once a peer is lost or departed: then
    /// an exposure may have ended for this rank alone, with others still in it.
    #[track_caller]
    pub(crate) fn take_own(&self, name: &'static str) -> Result<()> {
        let me = self.rank();
        let state = self.epochs.state(Some(me));
        if state.exposed == ExposureState::Posted {
            return Err(self.wrong_epoch(name, Call::Lock, state));
        }
        self.done(name, self.exposure().check())?;
        self.take_lock(name, me, LockKind::Exclusive)
    }

    /// Completes the operations to `target` and gives its lock back, in any case.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn unlock(&self, target: Rank, kind: LockKind) -> Result<()> {
        if let Some(reach) = self.reach.get(target.0 as usize)
            && !reach.is_posted
            && let Some(word) = &reach.lock
        {
            self.epochs.disclaim(target);
            // The locked instruction orders the mapped stores before it and pays for them.
            let Ok(wake) = lock::release_word(word, kind, self.rank().0);
            return if wake { self.wake_lock(target) } else { Ok(()) };
        }
        self.unlock_slowly(target, kind)
    }

    /// Somebody waits for the lock that was just given back.
    #[cold]
    #[track_caller]
    fn wake_lock(&self, target: Rank) -> Result<()> {
        let woken = PartLock::new(self.exposure(), target.0).and_then(|part| part.wake(Name::Lock));
        self.done("unlock", woken)
    }

    /// An unlock that completes operations first, or reaches another node.
    #[cold]
    #[track_caller]
    fn unlock_slowly(&self, target: Rank, kind: LockKind) -> Result<()> {
        self.epochs.disclaim(target);
        // Behind the operations in one queue the lock's answer tells that they are there: one wait for all.
        let behind = self.is_behind(target).then(|| self.release(target, kind));
        let drained = self.drain("unlock", target);
        let released = match behind {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if !error.is_unheard() => Err(error),
            _ => self.release(target, kind),
        };
        self.enter(Status::Compute);
        match released {
            Ok(()) => drained,
            Err(error) => Err(self.job_error("unlock", error)),
        }
    }

    fn release(&self, target: Rank, kind: LockKind) -> runtime::Result<()> {
        self.enter(Status::Unlock);
        let part = PartLock::new(self.exposure(), target.0)?;
        lock::release(&part, kind, self.rank().0)
    }

    /// Does a change of the target's lock arrive behind all that was posted to it?
    fn is_behind(&self, target: Rank) -> bool {
        let reach = &self.reach[target.0 as usize];
        let word = self.exposure().word(WordName::Lock(target.0));
        let Ok(word) = word else { return false };
        let follows = |route: &Route| match route {
            Route::Posted(posted) => word.follows(posted) && !posted.uses_memory(),
            Route::Mapped(_) => false,
        };
        // The regions of a dynamic window have routes of their own.
        self.dynamic.is_none() && follows(&reach.route) && follows(&reach.atomics)
    }

    fn all_locks(&self) -> runtime::Result<Vec<PartLock<'_>>> {
        (0..self.world.size())
            .map(|rank| PartLock::new(self.exposure(), rank))
            .collect()
    }

    #[track_caller]
    pub(crate) fn take_lock_all(&self, name: &'static str) -> Result<()> {
        if self.no_locks() {
            return Err(self.without_locks(name));
        }
        let next = self.allowed(name, Call::LockAll, None)?;
        self.enter(Status::Lock);
        let taken = self
            .all_locks()
            .and_then(|all| lock::acquire_all(&all, self.rank().0, self.eager()));
        self.enter(Status::Compute);
        self.done(name, taken)?;
        self.epochs.set_access(next.access);
        Ok(())
    }

    /// Gives all locks back as far as they can be reached, those of other nodes at the same time; the first error.
    fn release_all(&self) -> runtime::Result<()> {
        let me = self.rank().0;
        let (mut first, mut far) = (Ok(()), Vec::new());
        for rank in 0..self.world.size() {
            let released = match PartLock::new(self.exposure(), rank) {
                Ok(part) if part.is_far() => {
                    far.push(part);
                    continue;
                }
                part => part.and_then(|part| lock::release(&part, LockKind::Shared, me)),
            };
            first = first.and(released);
        }
        first.and(lock::release_all(&far, me))
    }

    /// Completes all operations and gives all locks back, in any case.
    #[track_caller]
    pub(crate) fn unlock_all(&self) -> Result<()> {
        let drained = self.drain_all("unlock_all");
        self.enter(Status::Unlock);
        let released = self.release_all();
        self.enter(Status::Compute);
        self.epochs.set_access(AccessState::None);
        match released {
            Ok(()) => drained,
            Err(error) => Err(self.job_error("unlock_all", error)),
        }
    }
}
