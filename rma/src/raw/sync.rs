//! Synchronisation of a window by pointers: each call asks the state machine.

use std::sync::atomic::Ordering;

use windlass_mem::sync;

use super::window::Window;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::state::Call;
use crate::sync::LockKind;
use crate::world::Rank;

/// Assertions of a synchronisation call (mpi-rma 4), as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Assertions(u32);

impl Assertions {
    /// None.
    pub const NONE: Assertions = Assertions(0);
    /// The other side is there already, or no lock conflicts. `MPI_MODE_NOCHECK`
    pub const NOCHECK: Assertions = Assertions(1);
    /// No local store since the last synchronisation. `MPI_MODE_NOSTORE`
    pub const NOSTORE: Assertions = Assertions(2);
    /// Nothing will be put into this rank's part. `MPI_MODE_NOPUT`
    pub const NOPUT: Assertions = Assertions(4);
    /// Nothing is to be completed. `MPI_MODE_NOPRECEDE`
    pub const NOPRECEDE: Assertions = Assertions(8);
    /// Nothing follows. `MPI_MODE_NOSUCCEED`
    pub const NOSUCCEED: Assertions = Assertions(16);

    /// Assertions from bits, known or not: a call refuses those that it does not take.
    pub const fn from_bits(bits: u32) -> Assertions {
        Assertions(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Assertions) -> Assertions {
        Assertions(self.0 | other.0)
    }

    /// Are all of these among them?
    pub const fn has(self, these: Assertions) -> bool {
        self.0 & these.0 == these.0
    }
}

/// How a target is locked by this process, or not.
const FREE: u8 = 0;
const SHARED: u8 = 1;
const EXCLUSIVE: u8 = 2;
/// Locked by assertion: nobody was asked.
const UNCHECKED: u8 = 3;

impl Window {
    #[track_caller]
    fn asserted(&self, call: &'static str, given: Assertions, takes: &[Assertions]) -> Result<()> {
        let allowed = takes
            .iter()
            .fold(Assertions::NONE, |all, &one| all.with(one));
        if allowed.has(given) {
            return Ok(());
        }
        Err(Error::Assertion {
            bits: given.0,
            allowed: allowed.0,
            at: Box::new(self.core.site(call)),
        })
    }

    /// `MPI_Win_fence`. Collective; always synchronises. With `NOPRECEDE` nothing may have been
    /// done since the last fence; with `NOSUCCEED`, which all ranks give or none, no epoch follows.
    ///
    /// # Errors
    /// [`Error::Assertion`], [`Error::Epoch`]; [`Error::Disagree`], [`Error::Departed`],
    /// [`Error::PeerLost`], [`Error::Transfer`].
    #[track_caller]
    pub fn fence(&self, assertions: Assertions) -> Result<()> {
        use Assertions as A;
        let takes = [A::NOSTORE, A::NOPUT, A::NOPRECEDE, A::NOSUCCEED];
        self.asserted("win_fence", assertions, &takes)?;
        let begins = assertions.has(A::NOPRECEDE);
        if begins {
            self.core.allowed("win_fence", Call::FenceBegin, None)?;
        }
        let call = match (assertions.has(A::NOSUCCEED), begins) {
            (true, _) => Call::FenceEnd,
            (false, true) => Call::FenceBegin,
            (false, false) => Call::Fence,
        };
        self.core.pass_fence("win_fence", call)
    }

    /// `MPI_Win_start`. Waits for the matching posts, unless both sides give `NOCHECK`.
    ///
    /// # Errors
    /// [`Error::Assertion`], [`Error::Epoch`], [`Error::Group`], [`Error::Departed`],
    /// [`Error::PeerLost`].
    #[track_caller]
    pub fn start(&self, group: &Group, assertions: Assertions) -> Result<()> {
        self.asserted("win_start", assertions, &[Assertions::NOCHECK])?;
        let check = !assertions.has(Assertions::NOCHECK);
        self.core.start("win_start", group, check)
    }

    /// `MPI_Win_complete`.
    ///
    /// # Errors
    /// [`Error::Epoch`]; [`Error::Transfer`], [`Error::PeerLost`]: the epoch is over all the same.
    #[track_caller]
    pub fn complete(&self) -> Result<()> {
        self.core.complete("win_complete")
    }

    /// `MPI_Win_post`. Never waits.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[track_caller]
    pub fn post(&self, group: &Group, assertions: Assertions) -> Result<()> {
        use Assertions as A;
        let takes = [A::NOCHECK, A::NOSTORE, A::NOPUT];
        self.asserted("win_post", assertions, &takes)?;
        self.core
            .post("win_post", group, !assertions.has(A::NOCHECK))
    }

    /// `MPI_Win_wait`.
    ///
    /// # Errors
    /// [`Error::Epoch`], [`Error::Departed`], [`Error::PeerLost`].
    #[track_caller]
    pub fn wait(&self) -> Result<()> {
        self.core.wait("win_wait")
    }

    /// `MPI_Win_test`: `true` when the exposure is over.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn test(&self) -> Result<bool> {
        self.core.test("win_test")
    }

    #[track_caller]
    fn check_rank(&self, call: &'static str, rank: Rank) -> Result<()> {
        if rank.0 < self.core.size() {
            return Ok(());
        }
        Err(self.core.bad_rank(call, rank))
    }

    /// `MPI_Win_lock`; `None` is `MPI_PROC_NULL` and does nothing. Holds the lock on return, unless
    /// `NOCHECK` says that nobody else wants it.
    ///
    /// # Errors
    /// [`Error::Assertion`], [`Error::BadRank`], [`Error::Epoch`], [`Error::NoLocks`],
    /// [`Error::PeerLost`].
    #[track_caller]
    pub fn lock(&self, kind: LockKind, rank: Option<Rank>, assertions: Assertions) -> Result<()> {
        self.asserted("win_lock", assertions, &[Assertions::NOCHECK])?;
        let Some(rank) = rank else { return Ok(()) };
        let held = if assertions.has(Assertions::NOCHECK) {
            self.check_rank("win_lock", rank)?;
            self.core.claim_unchecked("win_lock", rank)?;
            UNCHECKED
        } else {
            self.core.take_lock("win_lock", rank, kind)?;
            match kind {
                LockKind::Shared => SHARED,
                LockKind::Exclusive => EXCLUSIVE,
            }
        };
        self.locked[rank.0 as usize].store(held, Ordering::Relaxed);
        Ok(())
    }

    /// `MPI_Win_unlock`.
    ///
    /// # Errors
    /// [`Error::BadRank`], [`Error::Epoch`]; [`Error::Transfer`], [`Error::PeerLost`]: the lock is
    /// over all the same.
    #[track_caller]
    pub fn unlock(&self, rank: Option<Rank>) -> Result<()> {
        let Some(rank) = rank else { return Ok(()) };
        self.check_rank("win_unlock", rank)?;
        if !self.core.epochs.may_unlock(rank) {
            return Err(self.core.not_covered("win_unlock", Call::Unlock, rank));
        }
        match self.locked[rank.0 as usize].swap(FREE, Ordering::Relaxed) {
            SHARED => self.core.unlock(rank, LockKind::Shared),
            EXCLUSIVE => self.core.unlock(rank, LockKind::Exclusive),
            _ => {
                let drained = self.core.drain("win_unlock", rank);
                self.core.epochs.disclaim(rank);
                drained
            }
        }
    }

    /// `MPI_Win_lock_all`.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn lock_all(&self, assertions: Assertions) -> Result<()> {
        self.asserted("win_lock_all", assertions, &[Assertions::NOCHECK])?;
        let held = if assertions.has(Assertions::NOCHECK) {
            let next = self.core.allowed("win_lock_all", Call::LockAll, None)?;
            self.core.epochs.set_access(next.access);
            UNCHECKED
        } else {
            self.core.take_lock_all("win_lock_all")?;
            SHARED
        };
        self.locked_all.store(held, Ordering::Relaxed);
        Ok(())
    }

    /// `MPI_Win_unlock_all`.
    ///
    /// # Errors
    /// As [`unlock`](Self::unlock).
    #[track_caller]
    pub fn unlock_all(&self) -> Result<()> {
        let next = self.core.allowed("win_unlock_all", Call::UnlockAll, None)?;
        if self.locked_all.swap(FREE, Ordering::Relaxed) == SHARED {
            return self.core.unlock_all();
        }
        let drained = self.core.drain_all("win_unlock_all");
        self.core.epochs.set_access(next.access);
        drained
    }

    /// `MPI_Win_flush`: completes the operations to `rank`, here and there.
    ///
    /// # Errors
    /// [`Error::BadRank`], [`Error::Epoch`], [`Error::Transfer`], [`Error::PeerLost`].
    #[inline]
    #[track_caller]
    pub fn flush(&self, rank: Option<Rank>) -> Result<()> {
        let Some(rank) = rank else { return Ok(()) };
        sync::owe_stored();
        if self.core.epochs.is_passive(rank)
            && let Some(reach) = self.core.reach.get(rank.0 as usize)
            && !reach.is_posted
        {
            return Ok(());
        }
        self.flush_slowly(rank)
    }

    #[inline(never)]
    #[track_caller]
    fn flush_slowly(&self, rank: Rank) -> Result<()> {
        self.check_rank("win_flush", rank)?;
        self.core.allowed("win_flush", Call::Flush, Some(rank))?;
        self.core.drain("win_flush", rank)
    }

    /// `MPI_Win_flush_all`.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[track_caller]
    pub fn flush_all(&self) -> Result<()> {
        if !self.core.epochs.may_flush_all() {
            self.core.allowed("win_flush_all", Call::FlushAll, None)?;
        }
        sync::owe_stored();
        self.core.drain_all("win_flush_all")
    }

    /// `MPI_Win_flush_local`: completes the operations to `rank` at this rank, here by completing
    /// them altogether.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[inline]
    #[track_caller]
    pub fn flush_local(&self, rank: Option<Rank>) -> Result<()> {
        self.flush(rank)
    }

    /// `MPI_Win_flush_local_all`.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[track_caller]
    pub fn flush_local_all(&self) -> Result<()> {
        self.flush_all()
    }

    /// `MPI_Win_sync`: a memory barrier for loads and stores of this rank's own part, in any state.
    pub fn sync(&self) {
        sync::owe();
        sync::pay();
    }
}
