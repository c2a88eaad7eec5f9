//! Is this call legal now? The epoch state machine of (process, window).
//!
//! The state is the truth (mpi-rma 4): [`step`] is the specification's table as one `match`, and
//! [`Epochs`] keeps the state of one window. The guards of [`epoch`](crate::epoch) are its keys: a
//! guard exists only while its epoch does, so an operation through a guard needs no look at the
//! state. What types cannot see, a *forgotten* guard, leaves its state behind, and the next
//! conflicting call answers [`Error::Epoch`]. The pointer-based windows of [`raw`](crate::raw) ask
//! it at every call.

use std::fmt;

#[cfg(doc)]
use crate::epochs::Epochs;
#[cfg(doc)]
use crate::error::Error;

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
                "a start is open without the target in its group; name it there, or complete first"
            }
            AccessState::Lock { this: true, .. } => {
                "the target is locked already by this rank; end that lock first"
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use AccessState as A;
    use ExposureState as E;

    pub(crate) const LOCKS: [AccessState; 3] = [
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

    pub(crate) fn states() -> impl Iterator<Item = State> {
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

    #[test]
    fn every_state_has_a_text_with_the_remedy() {
        for state in states() {
            let text = state.to_string();
            let remedies = ["open one", "end", "complete", "wait"];
            assert!(remedies.iter().any(|word| text.contains(word)), "{text}");
        }
    }
}
