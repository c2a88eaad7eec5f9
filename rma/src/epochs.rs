//! The state of one window: what this process has open, by [`state`](crate::state)'s table.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::state::{AccessState, Call, ExposureState, State, step};
use crate::world::Rank;

const MODE_NONE: u8 = 0;
const MODE_FENCE: u8 = 1;
const MODE_FENCE_USED: u8 = 2;
const MODE_LOCK_ALL: u8 = 3;
const MODE_STARTED: u8 = 4;
/// A thread waits in start.
const MODE_STARTING: u8 = 5;

/// What this process has of one rank.
const HELD_NOT: u8 = 0;
const HELD_LOCK: u8 = 1;
const HELD_START: u8 = 2;

/// The state of this process on one window.
///
/// One thread's calls are always judged exactly. A start and a post are claimed before they tell or
/// await anybody, so that of two at the same time one is refused: the rounds of a pair count on it.
/// Threads that make other *conflicting* synchronisation calls on one window at the same time,
/// which no order makes legal, may find each other too late: then both epochs are open, each truly
/// synchronised with its peers. Two locks of one target race for the lock itself.
pub(crate) struct Epochs {
    mode: AtomicU8,
    exposed: AtomicU8,
    /// Some lock was taken since the flags were last seen all clear.
    locks: AtomicBool,
    held: Box<[AtomicU8]>,
    /// Lowest and highest rank of the open start.
    span: [AtomicU32; 2],
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
            span: [0, 0].map(AtomicU32::new),
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
            MODE_STARTING => return AccessState::Started { this: false },
            _ => {}
        }
        // The flag may be wrong for a moment beside another thread's look.
        let this = target.is_some_and(|rank| self.held(rank) == HELD_LOCK);
        match this || self.locks.load(Ordering::Acquire) {
            false => AccessState::None,
            true => self.locked(target),
        }
    }

    /// The state by a look at all ranks.
    #[inline(never)]
    fn locked(&self, target: Option<Rank>) -> AccessState {
        let found = self.look(target);
        if found != AccessState::None || !self.locks.swap(false, Ordering::AcqRel) {
            return found;
        }
        // A lock that another thread took meanwhile may have raised the flag before it fell: it is
        // seen now.
        let found = self.look(target);
        if found != AccessState::None {
            self.locks.store(true, Ordering::Release);
        }
        found
    }

    fn look(&self, target: Option<Rank>) -> AccessState {
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
        match this || others {
            true => AccessState::Lock { this, others },
            false => AccessState::None,
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
        self.mode.store(mode, Ordering::Release);
        self.moved();
    }

    /// The exposure state alone, as [`set_access`](Self::set_access).
    #[inline]
    pub(crate) fn set_exposed(&self, exposed: ExposureState) {
        self.exposed.store(exposed as u8, Ordering::Release);
    }

    /// `post` of the table by `me`: of two threads at the same time one is refused. Answers the
    /// exposure to go back to by [`set_exposed`](Self::set_exposed) if nobody could be told.
    #[inline]
    pub(crate) fn claim_post(&self, me: Rank) -> Result<ExposureState, State> {
        let state = self.state(Some(me));
        let (old, new) = (state.exposed as u8, ExposureState::Posted as u8);
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        if step(state, Call::Post).is_none()
            || self
                .exposed
                .compare_exchange(old, new, acquire, relaxed)
                .is_err()
        {
            return Err(self.state(Some(me)));
        }
        Ok(state.exposed)
    }

    /// The post was made: a fence epoch without operations is gone after it.
    #[inline]
    pub(crate) fn posted(&self) {
        let (fence, none) = (MODE_FENCE, MODE_NONE);
        let relaxed = Ordering::Relaxed;
        if self.mode.load(relaxed) == fence {
            let _ = self.mode.compare_exchange(fence, none, relaxed, relaxed);
        }
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
        self.locks.store(true, Ordering::Release);
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

    /// `start` of the table, before the posts are awaited: of two threads at the same time one is
    /// refused. Nothing but the calls on this rank's own exposure is legal from here on, until
    /// [`started`](Self::started) or [`unclaim_start`](Self::unclaim_start) with the answer.
    #[inline]
    pub(crate) fn claim_start(&self) -> Result<u8, State> {
        let mode = self.mode.load(Ordering::Relaxed);
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        if self.check(Call::Start, None).is_err()
            || mode > MODE_FENCE
            || self
                .mode
                .compare_exchange(mode, MODE_STARTING, acquire, relaxed)
                .is_err()
        {
            return Err(self.state(None));
        }
        Ok(mode)
    }

    pub(crate) fn unclaim_start(&self, mode: u8) {
        self.mode.store(mode, Ordering::Release);
    }

    /// The posts of `group` are there.
    #[inline]
    pub(crate) fn started(&self, group: impl IntoIterator<Item = Rank>) {
        let (mut low, mut high) = (u32::MAX, 0);
        for rank in group {
            self.held[rank.0 as usize].store(HELD_START, Ordering::Relaxed);
            (low, high) = (low.min(rank.0), high.max(rank.0));
        }
        self.span[0].store(low, Ordering::Relaxed);
        self.span[1].store(high, Ordering::Relaxed);
        self.set_access(AccessState::Started { this: true });
    }

    /// Ends the epoch of the open start with each rank of its group, in turn.
    #[inline]
    pub(crate) fn complete(&self, mut each: impl FnMut(Rank)) {
        let [low, high] = [0, 1].map(|at| self.span[at].load(Ordering::Relaxed));
        for rank in (low..=high).map(Rank) {
            if self.held(rank) == HELD_START {
                each(rank);
                self.disclaim(rank);
            }
        }
        self.set_access(AccessState::None);
    }

    /// `unlock(target)` of the table without a walk over the ranks.
    #[inline]
    pub(crate) fn may_unlock(&self, target: Rank) -> bool {
        self.mode.load(Ordering::Relaxed) <= MODE_FENCE && self.held(target) == HELD_LOCK
    }

    /// `flush_all` of the table, which never asks the flag.
    pub(crate) fn may_flush_all(&self) -> bool {
        match self.mode.load(Ordering::Relaxed) {
            MODE_LOCK_ALL => true,
            mode => mode <= MODE_FENCE && self.look(None) != AccessState::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::{LOCKS, states};
    use AccessState as A;
    use ExposureState as E;

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
                epochs.claim_start().unwrap();
                epochs.started([Rank(if this { 1 } else { 2 })]);
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
        epochs.claim_start().unwrap();
        assert!(!epochs.may_operate(Rank(3)));
        epochs.started(group);
        assert!(epochs.may_operate(Rank(3)) && !epochs.may_operate(Rank(2)));
        let mut told = Vec::new();
        epochs.complete(|rank| told.push(rank));
        assert_eq!((told, epochs.state(None)), (group.to_vec(), State::NONE));
        epochs.complete(|rank| panic!("{rank:?} is told twice"));
        assert!(!epochs.may_operate(Rank(3)));
        // An empty group has nobody to tell.
        epochs.claim_start().unwrap();
        epochs.started([]);
        epochs.complete(|rank| panic!("{rank:?} is told of an empty group"));
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
}
