//! Is this call legal now? The epoch state machine of (process, window).
//!
//! The state is the truth (mpi-rma 4): [`step`] is the specification's table as one `match`, and
//! [`Epochs`] keeps the state of one window. The guards of [`epoch`](crate::epoch) are its keys: a
//! guard exists only while its epoch does, so an operation through a guard needs no look at the
//! state. What types cannot see, a *forgotten* guard, leaves its state behind, and the next
//! conflicting call answers [`Error::Epoch`]. The pointer-based windows of [`raw`](crate::raw) ask
//! it at every call.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

#[cfg(doc)]
use crate::error::Error;
use crate::world::Rank;

/// The access state of one process on one window (mpi-rma 4, state A), as a call sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessState {
    /// No epoch.
    None,
    /// A fence opened an epoch; no operation yet.
    Fence,
    /// A fence epoch that may have operations. A [`Fence`](crate::Fence) guard counts as used,
    /// because operations on the hot path leave no trace.
    FenceUsed,
    /// Between start and complete.
    Started {
        /// Does the group hold the rank that the call names?
        this: bool,
    },
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

/// The exposure state of one process on one window (mpi-rma 4, state E).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExposureState {
    /// Not by a fence and not by a post.
    None,
    /// By a fence.
    Fence,
    /// Between post and wait.
    Posted,
}

/// Both states together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// May this process operate on others?
    pub access: AccessState,
    /// May others operate on it?
    pub exposed: ExposureState,
}

impl State {
    /// Before any synchronisation.
    pub const NONE: State = State {
        access: AccessState::None,
        exposed: ExposureState::None,
    };
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.access {
            AccessState::None => match self.exposed {
                ExposureState::Posted => "this rank is exposed by a post; wait for its end first",
                _ => "no epoch is open; open one by fence, start, lock or lock_all",
            },
            AccessState::Fence => "a fence opened an epoch; close it by end",
            AccessState::FenceUsed => {
                "a fence epoch is open; close it by end, do not forget its guard"
            }
            AccessState::Started { this: true } => "a start is open; complete it first",
            AccessState::Started { this: false } => {
                "a start is open whose group does not hold this rank; complete it first"
            }
            AccessState::Lock { this: true, .. } => {
                "this rank is locked already; end that lock first"
            }
            AccessState::Lock { .. } => "other ranks are locked; end those locks first",
            AccessState::LockAll => "a lock_all epoch is open; close it by end",
        })
    }
}

/// A call as the state table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// A fence that opens an epoch.
    Fence,
    /// A fence before which nothing was done (`MPI_MODE_NOPRECEDE`).
    FenceBegin,
    /// A fence after which nothing follows (`MPI_MODE_NOSUCCEED`).
    FenceEnd,
    /// Begin access to a group.
    Start,
    /// End it.
    Complete,
    /// Expose this rank to a group. The rank that the state names is this one.
    Post,
    /// Wait for the end of that.
    Wait,
    /// Ask for it.
    Test,
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
    /// Order this process's own loads and stores. Legal everywhere: a plain memory barrier.
    Sync,
    /// Free the window.
    Free,
}

impl Call {
    /// The calls, for tests of the whole table.
    pub const ALL: [Call; 18] = [
        Call::Fence,
        Call::FenceBegin,
        Call::FenceEnd,
        Call::Start,
        Call::Complete,
        Call::Post,
        Call::Wait,
        Call::Test,
        Call::Lock,
        Call::Unlock,
        Call::LockAll,
        Call::UnlockAll,
        Call::Operation,
        Call::Request,
        Call::Flush,
        Call::FlushAll,
        Call::Sync,
        Call::Free,
    ];
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Fence => "fence",
            Call::FenceBegin => "a fence with nothing before it",
            Call::FenceEnd => "the closing fence",
            Call::Start => "start",
            Call::Complete => "complete",
            Call::Post => "post",
            Call::Wait => "wait",
            Call::Test => "test",
            Call::Lock => "lock",
            Call::Unlock => "unlock",
            Call::LockAll => "lock_all",
            Call::UnlockAll => "unlock_all",
            Call::Operation => "an operation",
            Call::Request => "an operation with a request",
            Call::Flush => "flush",
            Call::FlushAll => "flush_all",
            Call::Sync => "sync",
            Call::Free => "free",
        })
    }
}

/// The table of mpi-rma 4: the new state, or `None` where the call is not legal.
#[inline(always)]
pub(crate) const fn step(state: State, call: Call) -> Option<State> {
    use AccessState as A;
    use Call as C;
    use ExposureState as E;
    let State { access, exposed } = state;
    let (access, exposed) = match (call, access, exposed) {
        (C::Fence, A::None | A::Fence | A::FenceUsed, E::None | E::Fence)
        | (C::FenceBegin, A::None | A::Fence, E::None | E::Fence) => (A::Fence, E::Fence),
        (C::FenceEnd, A::None | A::Fence | A::FenceUsed, E::None | E::Fence)
        | (C::Free, A::None | A::Fence, E::None | E::Fence) => (A::None, E::None),

        (C::Start, A::None | A::Fence, _) => (A::Started { this: true }, exposed),
        (C::Complete, A::Started { .. }, _) => (A::None, exposed),
        // The fence's exposure must be unused, and this rank's own lock not held by itself.
        (C::Post, A::FenceUsed | A::LockAll | A::Lock { this: true, .. }, _) => return None,
        (C::Post, A::Fence, E::None | E::Fence) => (A::None, E::Posted),
        (C::Post, _, E::None | E::Fence) => (access, E::Posted),
        (C::Wait | C::Test, _, E::Posted) => (access, E::None),

        (C::Lock, A::None | A::Fence, _) => {
            let (this, others) = (true, false);
            (A::Lock { this, others }, exposed)
        }
        (C::Lock, A::Lock { this: false, .. }, _) => {
            let (this, others) = (true, true);
            (A::Lock { this, others }, exposed)
        }
        (C::Unlock, A::Lock { this: true, others }, _) => match others {
            false => (A::None, exposed),
            true => {
                let this = false;
                (A::Lock { this, others }, exposed)
            }
        },
        (C::LockAll, A::None | A::Fence, _) => (A::LockAll, exposed),
        (C::UnlockAll, A::LockAll, _) => (A::None, exposed),

        (C::Operation, A::Fence | A::FenceUsed, _) => (A::FenceUsed, exposed),
        (C::Operation, A::Started { this: true }, _)
        | (C::Operation | C::Request | C::Flush, A::LockAll | A::Lock { this: true, .. }, _)
        | (C::FlushAll, A::LockAll | A::Lock { .. }, _)
        | (C::Sync, ..) => (access, exposed),
        _ => return None,
    };
    Some(State { access, exposed })
}

const MODE_NONE: u8 = 0;
const MODE_FENCE: u8 = 1;
const MODE_FENCE_USED: u8 = 2;
const MODE_LOCK_ALL: u8 = 3;
const MODE_STARTED: u8 = 4;

/// What this process has of one rank.
const HELD_NOT: u8 = 0;
const HELD_LOCK: u8 = 1;
const HELD_START: u8 = 2;

/// The state of this process on one window.
///
/// One thread's calls are always judged exactly. Threads that make *conflicting* synchronisation
/// calls on one window at the same time, which no order makes legal, may find each other too late:
/// then both epochs are open, which harms nobody, because window memory is only a plain slice
/// under a guard that borrows the window exclusively. Two locks of one target race for the lock
/// itself.
pub(crate) struct Epochs {
    mode: AtomicU8,
    exposed: AtomicU8,
    /// Some lock was taken since the flags were last seen all clear.
    locks: AtomicBool,
    held: Box<[AtomicU8]>,
    /// A guard was dropped that others wait for: this rank takes no further part in collective
    /// calls.
    departed: AtomicBool,
    /// Of a dynamic window, counts changes of the access state: what was looked up in one epoch is
    /// not trusted in the next.
    serial: Option<AtomicU64>,
}

impl Epochs {
    pub(crate) fn new(size: usize, dynamic: bool) -> Epochs {
        Epochs {
            mode: AtomicU8::new(MODE_NONE),
            exposed: AtomicU8::new(ExposureState::None as u8),
            locks: AtomicBool::new(false),
            held: (0..size).map(|_| AtomicU8::new(HELD_NOT)).collect(),
            departed: AtomicBool::new(false),
            serial: dynamic.then(|| AtomicU64::new(1)),
        }
    }

    #[inline(always)]
    fn held(&self, rank: Rank) -> u8 {
        match self.held.get(rank.0 as usize) {
            Some(held) => held.load(Ordering::Relaxed),
            None => HELD_NOT,
        }
    }

    /// The state as a call on `target` sees it.
    #[inline]
    pub(crate) fn state(&self, target: Option<Rank>) -> State {
        let exposed = match self.exposed.load(Ordering::Relaxed) {
            1 => ExposureState::Fence,
            2 => ExposureState::Posted,
            _ => ExposureState::None,
        };
        State {
            access: self.access(target),
            exposed,
        }
    }

    #[inline]
    fn access(&self, target: Option<Rank>) -> AccessState {
        match self.mode.load(Ordering::Relaxed) {
            MODE_FENCE => return AccessState::Fence,
            MODE_FENCE_USED => return AccessState::FenceUsed,
            MODE_LOCK_ALL => return AccessState::LockAll,
            MODE_STARTED => {
                let this = target.is_none_or(|rank| self.held(rank) == HELD_START);
                return AccessState::Started { this };
            }
            _ => {}
        }
        match self.locks.load(Ordering::Relaxed) {
            false => AccessState::None,
            true => self.locked(target),
        }
    }

    #[inline(never)]
    fn locked(&self, target: Option<Rank>) -> AccessState {
        let target = target.map(|rank| rank.0 as usize);
        let (mut this, mut others) = (false, false);
        for (rank, held) in self.held.iter().enumerate() {
            if held.load(Ordering::Relaxed) == HELD_LOCK {
                *(if Some(rank) == target {
                    &mut this
                } else {
                    &mut others
                }) = true;
            }
        }
        if this || others {
            AccessState::Lock { this, others }
        } else {
            self.locks.store(false, Ordering::Relaxed);
            AccessState::None
        }
    }

    /// What `call` would make of the state, or the state that forbids it.
    #[inline(always)]
    pub(crate) fn check(&self, call: Call, target: Option<Rank>) -> Result<State, State> {
        let state = self.state(target);
        step(state, call).ok_or(state)
    }

    /// Takes over a state that [`check`](Self::check) allowed, but for the ranks that are held.
    #[inline]
    pub(crate) fn set(&self, state: State) {
        self.set_access(state.access);
        self.set_exposed(state.exposed);
    }

    /// The access state alone: another thread may post or wait meanwhile (mpi-rma 4, A and E are
    /// independent).
    #[inline]
    pub(crate) fn set_access(&self, access: AccessState) {
        let mode = match access {
            AccessState::Fence => MODE_FENCE,
            AccessState::FenceUsed => MODE_FENCE_USED,
            AccessState::LockAll => MODE_LOCK_ALL,
            AccessState::Started { .. } => MODE_STARTED,
            AccessState::None | AccessState::Lock { .. } => MODE_NONE,
        };
        self.mode.store(mode, Ordering::Relaxed);
        self.moved();
    }

    /// The exposure state alone, as [`set_access`](Self::set_access).
    #[inline]
    pub(crate) fn set_exposed(&self, exposed: ExposureState) {
        self.exposed.store(exposed as u8, Ordering::Relaxed);
    }

    /// `post` of the table, after [`check`](Self::check). A fence epoch without operations is gone
    /// after it.
    #[inline]
    pub(crate) fn post(&self) {
        let (fence, none) = (MODE_FENCE, MODE_NONE);
        let relaxed = Ordering::Relaxed;
        if self.mode.load(relaxed) == fence {
            let _ = self.mode.compare_exchange(fence, none, relaxed, relaxed);
        }
        self.set_exposed(ExposureState::Posted);
    }

    /// The number of this state: another one after every epoch's begin.
    pub(crate) fn serial(&self) -> u64 {
        let serial = self.serial.as_ref();
        serial.map_or(0, |serial| serial.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn moved(&self) {
        if let Some(serial) = &self.serial {
            serial.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn depart(&self) {
        self.departed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_departed(&self) -> bool {
        self.departed.load(Ordering::Relaxed)
    }

    /// May an operation go to `target`? The table's row for operations without a walk over the
    /// ranks.
    #[inline(always)]
    pub(crate) fn may_operate(&self, target: Rank) -> bool {
        match self.mode.load(Ordering::Relaxed) {
            MODE_FENCE | MODE_FENCE_USED | MODE_LOCK_ALL => true,
            _ => self.held(target) != HELD_NOT,
        }
    }

    /// An operation was begun: a fence epoch counts as used from here on.
    #[inline(always)]
    pub(crate) fn operated(&self) {
        if self.mode.load(Ordering::Relaxed) == MODE_FENCE {
            self.mode.store(MODE_FENCE_USED, Ordering::Relaxed);
        }
    }

    /// Is a passive epoch to `target` open: the row of requests and flushes?
    #[inline(always)]
    pub(crate) fn is_passive(&self, target: Rank) -> bool {
        self.mode.load(Ordering::Relaxed) == MODE_LOCK_ALL || self.held(target) == HELD_LOCK
    }

    /// `lock(target)` of the table without looking at the other ranks: it is legal in the states
    /// none, fence, and lock without `target`; `false` in all others, which stay. A fence epoch
    /// without operations is gone after it.
    #[inline(always)]
    pub(crate) fn claim(&self, target: Rank) -> bool {
        let held = &self.held[target.0 as usize];
        let mode = self.mode.load(Ordering::Relaxed);
        if mode > MODE_FENCE || held.load(Ordering::Relaxed) != HELD_NOT {
            return false;
        }
        held.store(HELD_LOCK, Ordering::Relaxed);
        self.locks.store(true, Ordering::Relaxed);
        self.moved();
        if mode == MODE_FENCE {
            self.mode.store(MODE_NONE, Ordering::Relaxed);
        }
        true
    }

    /// The lock of `target` is held.
    pub(crate) fn hold(&self, target: Rank) {
        self.held[target.0 as usize].store(HELD_LOCK, Ordering::Relaxed);
    }

    /// `unlock(target)` of the table.
    #[inline(always)]
    pub(crate) fn disclaim(&self, target: Rank) {
        self.held[target.0 as usize].store(HELD_NOT, Ordering::Relaxed);
    }

    /// `start(group)` of the table, after [`check`](Self::check).
    #[inline]
    pub(crate) fn start(&self, group: impl IntoIterator<Item = Rank>, state: State) {
        for rank in group {
            self.held[rank.0 as usize].store(HELD_START, Ordering::Relaxed);
        }
        self.set_access(state.access);
    }

    /// The group of the open start.
    pub(crate) fn started(&self) -> impl Iterator<Item = Rank> + '_ {
        let all = (0..self.held.len() as u32).map(Rank);
        all.filter(|&rank| self.held(rank) == HELD_START)
    }

    /// `complete` of the table, after [`check`](Self::check).
    #[inline]
    pub(crate) fn complete(&self, state: State) {
        self.started().for_each(|rank| self.disclaim(rank));
        self.set_access(state.access);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AccessState as A;
    use ExposureState as E;

    const LOCKS: [AccessState; 3] = [
        A::Lock {
            this: true,
            others: false,
        },
        A::Lock {
            this: false,
            others: true,
        },
        A::Lock {
            this: true,
            others: true,
        },
    ];

    fn accesses() -> impl Iterator<Item = AccessState> {
        let started = [true, false].map(|this| A::Started { this });
        [A::None, A::Fence, A::FenceUsed, A::LockAll]
            .into_iter()
            .chain(started)
            .chain(LOCKS)
    }

    fn states() -> impl Iterator<Item = State> {
        let all = [E::None, E::Fence, E::Posted];
        accesses().flat_map(move |access| all.map(|exposed| State { access, exposed }))
    }

    /// mpi-rma 4 row by row, written a second time: in which access states a call is legal, and in
    /// which exposure states.
    #[test]
    fn the_table_is_the_specifications() {
        let [this, others, both] = LOCKS;
        let (into, out) = (A::Started { this: true }, A::Started { this: false });
        let every: Vec<AccessState> = accesses().collect();
        let (any, unexposed) = (
            &[E::None, E::Fence, E::Posted][..],
            &[E::None, E::Fence][..],
        );
        let rows: [(Call, &[AccessState], &[ExposureState]); 18] = [
            (Call::Fence, &[A::None, A::Fence, A::FenceUsed], unexposed),
            (Call::FenceBegin, &[A::None, A::Fence], unexposed),
            (
                Call::FenceEnd,
                &[A::None, A::Fence, A::FenceUsed],
                unexposed,
            ),
            (Call::Start, &[A::None, A::Fence], any),
            (Call::Complete, &[into, out], any),
            (
                Call::Post,
                &[A::None, A::Fence, into, out, others],
                unexposed,
            ),
            (Call::Wait, &every, &[E::Posted]),
            (Call::Test, &every, &[E::Posted]),
            (Call::Lock, &[A::None, A::Fence, others], any),
            (Call::Unlock, &[this, both], any),
            (Call::LockAll, &[A::None, A::Fence], any),
            (Call::UnlockAll, &[A::LockAll], any),
            (
                Call::Operation,
                &[A::Fence, A::FenceUsed, A::LockAll, into, this, both],
                any,
            ),
            (Call::Request, &[A::LockAll, this, both], any),
            (Call::Flush, &[A::LockAll, this, both], any),
            (Call::FlushAll, &[A::LockAll, this, others, both], any),
            (Call::Sync, &every, any),
            (Call::Free, &[A::None, A::Fence], unexposed),
        ];
        assert_eq!(rows.map(|row| row.0), Call::ALL, "a row for every call");
        for (call, legal, exposed) in rows {
            for state in states() {
                assert_eq!(
                    step(state, call).is_some(),
                    legal.contains(&state.access) && exposed.contains(&state.exposed),
                    "{call:?} in {state:?}"
                );
            }
        }
    }

    #[test]
    fn the_table_moves_as_it_should() {
        let [this, others, both] = LOCKS;
        let of = |access, exposed| State { access, exposed };
        let started = A::Started { this: true };
        for (before, call, after) in [
            ((A::FenceUsed, E::Fence), Call::Fence, (A::Fence, E::Fence)),
            ((A::None, E::None), Call::FenceBegin, (A::Fence, E::Fence)),
            (
                (A::Fence, E::Fence),
                Call::Operation,
                (A::FenceUsed, E::Fence),
            ),
            ((A::FenceUsed, E::Fence), Call::FenceEnd, (A::None, E::None)),
            ((A::Fence, E::Fence), Call::Start, (started, E::Fence)),
            ((started, E::Posted), Call::Complete, (A::None, E::Posted)),
            // A fence epoch without operations is gone once a post was made.
            ((A::Fence, E::Fence), Call::Post, (A::None, E::Posted)),
            ((started, E::None), Call::Post, (started, E::Posted)),
            ((started, E::Posted), Call::Wait, (started, E::None)),
            ((A::None, E::Posted), Call::Test, (A::None, E::None)),
            ((A::Fence, E::Fence), Call::Lock, (this, E::Fence)),
            ((others, E::None), Call::Lock, (both, E::None)),
            ((both, E::None), Call::Unlock, (others, E::None)),
            ((this, E::Posted), Call::Unlock, (A::None, E::Posted)),
            ((A::LockAll, E::None), Call::Flush, (A::LockAll, E::None)),
            ((A::Fence, E::Fence), Call::Free, (A::None, E::None)),
        ] {
            let after = of(after.0, after.1);
            assert_eq!(step(of(before.0, before.1), call), Some(after), "{call:?}");
        }
    }

    /// Brings a window of three ranks into a state, as the calls do; rank 1 is the one looked at.
    fn brought_into(state: State) -> Epochs {
        let epochs = Epochs::new(3, false);
        match state.access {
            A::Lock { this, others } => {
                for (wanted, rank) in [(this, Rank(1)), (others, Rank(2))] {
                    if wanted {
                        assert!(epochs.claim(rank));
                    }
                }
                epochs.set(State {
                    access: A::None,
                    ..state
                });
            }
            A::Started { this } => {
                epochs.start([Rank(if this { 1 } else { 2 })], state);
                epochs.set_exposed(state.exposed);
            }
            _ => epochs.set(state),
        }
        assert_eq!(epochs.state(Some(Rank(1))), state);
        epochs
    }

    /// The fast ways agree with the table in every state that a window can be in.
    #[test]
    fn the_fast_ways_are_the_tables() {
        for state in states() {
            let epochs = brought_into(state);
            let passive = step(state, Call::Request).is_some();
            assert_eq!(epochs.is_passive(Rank(1)), passive, "{state:?}");

            let legal = step(state, Call::Operation);
            assert_eq!(epochs.may_operate(Rank(1)), legal.is_some(), "{state:?}");
            epochs.operated();
            assert_eq!(epochs.state(Some(Rank(1))), legal.unwrap_or(state));

            let epochs = brought_into(state);
            let legal = step(state, Call::Lock);
            assert_eq!(epochs.claim(Rank(1)), legal.is_some(), "{state:?}");
            let now = epochs.state(Some(Rank(1)));
            assert_eq!(now, legal.unwrap_or(state));
            if legal.is_some() {
                epochs.disclaim(Rank(1));
                assert_eq!(Some(epochs.state(Some(Rank(1)))), step(now, Call::Unlock));
            }
        }
    }

    #[test]
    fn a_completed_start_leaves_nothing_held() {
        let epochs = Epochs::new(4, false);
        let group = [Rank(0), Rank(3)];
        let begun = epochs.check(Call::Start, None).unwrap();
        epochs.start(group, begun);
        assert!(epochs.started().eq(group));
        assert!(epochs.may_operate(Rank(3)) && !epochs.may_operate(Rank(2)));
        let done = epochs.check(Call::Complete, None).unwrap();
        epochs.complete(done);
        assert_eq!(epochs.state(None), State::NONE);
        assert_eq!(epochs.started().count(), 0);
        assert!(!epochs.may_operate(Rank(3)));
    }

    #[test]
    fn a_held_lock_forbids_the_collective_calls() {
        let epochs = Epochs::new(2, false);
        assert!(epochs.claim(Rank(1)));
        let held = State {
            access: LOCKS[1],
            exposed: E::None,
        };
        for call in [Call::Fence, Call::LockAll, Call::Free, Call::Start] {
            assert_eq!(epochs.check(call, None), Err(held));
        }
        epochs.disclaim(Rank(1));
        assert!(epochs.check(Call::Fence, None).is_ok());
    }

    #[test]
    fn every_state_has_a_text_with_the_remedy() {
        for state in states() {
            let text = state.to_string();
            let remedies = ["open one", "end", "complete", "wait"];
            assert!(remedies.iter().any(|word| text.contains(word)), "{text}");
        }
    }
}
