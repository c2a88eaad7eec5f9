//! The state table of mpi-rma 4 as one test: every call in every state that a process can be in, on
//! real windows by pointers. Each succeeds and makes the state that the table says, or is refused
//! with the class `MPI_ERR_RMA_SYNC` and changes nothing: the epochs go on and end well.
//!
//! Rank 0 is the subject; rank 1 does what the subject's calls need of a partner, because it knows
//! the table too.
#![allow(unsafe_code)]

mod support;

use support::Done;
use support::ways::PAIRS;
use windlass::layout::Layout;
use windlass::raw::{Assertions, At, Data, Window};
use windlass::{
    AccessState, Error, ErrorClass, ExposureState, Group, Hints, LockKind, Op, Rank, State, World,
};

const OWN: Rank = Rank(0);
const OTHER: Rank = Rank(1);
const NONE: Assertions = Assertions::NONE;

/// Which of the two ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    own: bool,
    other: bool,
}

const NOBODY: Set = set(false, false);
const SETS: [Set; 3] = [set(true, false), set(false, true), set(true, true)];

const fn set(own: bool, other: bool) -> Set {
    Set { own, other }
}

impl Set {
    fn has(self, rank: Rank) -> bool {
        if rank == OWN { self.own } else { self.other }
    }

    fn with(self, rank: Rank, now: bool) -> Set {
        if rank == OWN {
            set(now, self.other)
        } else {
            set(self.own, now)
        }
    }

    fn ranks(self) -> Vec<Rank> {
        let ranks = [OWN, OTHER].into_iter();
        ranks.filter(|&rank| self.has(rank)).collect()
    }

    fn group(self, world: &World) -> Group {
        let group = world.group().incl(&self.ranks());
        group.expect("both are ranks of the job")
    }
}

/// The access state, by rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    None,
    Fence,
    Used,
    Started(Set),
    Locked(Set),
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exposed {
    None,
    Fence,
    /// To the partner, and to the subject where its access needs that.
    Posted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Model {
    access: Access,
    exposed: Exposed,
}

/// Every state that calls lead to. Fence epochs expose; who has started itself has posted to itself.
fn states() -> Vec<Model> {
    let locked = SETS.map(Access::Locked);
    let mut all = Vec::new();
    for exposed in [Exposed::None, Exposed::Fence, Exposed::Posted] {
        let mut accesses = vec![Access::None, Access::All, Access::Started(NOBODY)];
        accesses.push(Access::Started(set(false, true)));
        accesses.extend(locked);
        match exposed {
            Exposed::None => {}
            Exposed::Fence => accesses.extend([Access::Fence, Access::Used]),
            Exposed::Posted => {
                accesses.extend([set(true, false), set(true, true)].map(Access::Started));
            }
        }
        all.extend(accesses.into_iter().map(|access| Model { access, exposed }));
    }
    all
}

/// The operations, and their forms with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Put,
    Get,
    Accumulate,
    GetAccumulate,
    FetchAndOp,
    CompareAndSwap,
}

const OPERATIONS: [What; 6] = [
    What::Put,
    What::Get,
    What::Accumulate,
    What::GetAccumulate,
    What::FetchAndOp,
    What::CompareAndSwap,
];
const REQUESTS: [What; 4] = [What::Put, What::Get, What::Accumulate, What::GetAccumulate];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Fence(Assertions),
    Start(Set),
    Complete,
    Post,
    Wait,
    Test,
    Lock(LockKind, Rank),
    Unlock(Rank),
    LockAll,
    UnlockAll,
    Operation(What, Rank),
    Request(What, Rank),
    Flush(Rank),
    FlushLocal(Rank),
    FlushAll,
    FlushLocalAll,
    Sync,
    Free,
}

fn calls() -> Vec<Call> {
    use Assertions as A;
    let mut all = vec![
        Call::Fence(NONE),
        Call::Fence(A::NOPRECEDE),
        Call::Fence(A::NOSUCCEED),
        Call::Fence(A::NOPRECEDE.with(A::NOSUCCEED)),
        Call::Fence(A::NOSTORE.with(A::NOPUT)),
        Call::Start(NOBODY),
        Call::Start(set(false, true)),
        Call::Complete,
        Call::Post,
        Call::Wait,
        Call::Test,
        Call::LockAll,
        Call::UnlockAll,
        Call::FlushAll,
        Call::FlushLocalAll,
        Call::Sync,
        Call::Free,
    ];
    for rank in [OWN, OTHER] {
        all.extend([LockKind::Shared, LockKind::Exclusive].map(|kind| Call::Lock(kind, rank)));
        all.extend([
            Call::Unlock(rank),
            Call::Flush(rank),
            Call::FlushLocal(rank),
        ]);
        all.extend(OPERATIONS.map(|what| Call::Operation(what, rank)));
        all.extend(REQUESTS.map(|what| Call::Request(what, rank)));
    }
    all
}

/// The table of mpi-rma 4, row by row: the new state, or `None` where the call is not legal.
fn table(state: Model, call: Call) -> Option<Model> {
    let Model { access, exposed } = state;
    let now = |access, exposed| Some(Model { access, exposed });
    let unexposed = exposed != Exposed::Posted;
    // No epoch, or one that a fence has opened and nobody has used.
    let idle = matches!(access, Access::None | Access::Fence);
    match call {
        Call::Fence(assertions) => {
            let used_may_be = !assertions.has(Assertions::NOPRECEDE);
            let legal = unexposed && (idle || (access == Access::Used && used_may_be));
            let next = if assertions.has(Assertions::NOSUCCEED) {
                now(Access::None, Exposed::None)
            } else {
                now(Access::Fence, Exposed::Fence)
            };
            next.filter(|_| legal)
        }
        Call::Start(group) => now(Access::Started(group), exposed).filter(|_| idle),
        Call::Complete => match access {
            Access::Started(_) => now(Access::None, exposed),
            _ => None,
        },
        Call::Post => match access {
            _ if !unexposed => None,
            // A fence epoch in use exposes already; own memory is not locked and exposed at once.
            Access::Used | Access::All => None,
            Access::Locked(held) if held.own => None,
            Access::Fence => now(Access::None, Exposed::Posted),
            _ => now(access, Exposed::Posted),
        },
        Call::Wait => now(access, Exposed::None).filter(|_| !unexposed),
        Call::Test => match access {
            _ if unexposed => None,
            // The subject's own access is not over: false, and nothing changes.
            Access::Started(group) if group.own => Some(state),
            _ => now(access, Exposed::None),
        },
        Call::Lock(_, rank) => match access {
            Access::Locked(held) if !held.has(rank) => {
                now(Access::Locked(held.with(rank, true)), exposed)
            }
            _ if idle => now(Access::Locked(NOBODY.with(rank, true)), exposed),
            _ => None,
        },
        Call::Unlock(rank) => match access {
            Access::Locked(held) if held.has(rank) => match held.with(rank, false) {
                NOBODY => now(Access::None, exposed),
                held => now(Access::Locked(held), exposed),
            },
            _ => None,
        },
        Call::LockAll => now(Access::All, exposed).filter(|_| idle),
        Call::UnlockAll => now(Access::None, exposed).filter(|_| access == Access::All),
        Call::Operation(_, rank) => match access {
            Access::Fence | Access::Used => now(Access::Used, exposed),
            Access::Started(ranks) | Access::Locked(ranks) if !ranks.has(rank) => None,
            Access::None => None,
            _ => Some(state),
        },
        Call::Request(_, rank) | Call::Flush(rank) | Call::FlushLocal(rank) => match access {
            Access::All => Some(state),
            Access::Locked(held) if held.has(rank) => Some(state),
            _ => None,
        },
        Call::FlushAll | Call::FlushLocalAll => match access {
            Access::All | Access::Locked(_) => Some(state),
            _ => None,
        },
        // A plain memory barrier anywhere does no harm (mpi-rma 4, notes).
        Call::Sync => Some(state),
        Call::Free => now(Access::None, Exposed::None).filter(|_| idle && unexposed),
    }
}

/// The state that the library tells a call on `target` of.
fn told(state: Model, target: Option<Rank>) -> State {
    let access = match state.access {
        Access::None => AccessState::None,
        Access::Fence => AccessState::Fence,
        Access::Used => AccessState::FenceUsed,
        Access::All => AccessState::LockAll,
        Access::Started(group) => AccessState::Started {
            this: target.is_none_or(|rank| group.has(rank)),
        },
        Access::Locked(held) => AccessState::Lock {
            this: target.is_some_and(|rank| held.has(rank)),
            others: held.ranks().into_iter().any(|rank| Some(rank) != target),
        },
    };
    let exposed = match state.exposed {
        Exposed::None => ExposureState::None,
        Exposed::Fence => ExposureState::Fence,
        Exposed::Posted => ExposureState::Posted,
    };
    State { access, exposed }
}

#[track_caller]
fn is_told(window: &Window, state: Model, what: &str) {
    for target in [None, Some(OWN), Some(OTHER)] {
        let found = window.state(target);
        assert_eq!(found, told(state, target), "{what}: {target:?}");
    }
}

/// One operation on the first element of `rank`'s part.
fn operate(window: &Window, what: What, rank: Rank, request: bool) -> windlass::Result<()> {
    let layout = &Layout::of::<u64>();
    let (rank, disp, count) = (Some(rank), 0, 1);
    let at = At {
        rank,
        disp,
        count,
        layout,
    };
    // Memory for ever, since an operation may use it until the end of its epoch.
    let [source, compare, sink]: [*mut u8; 3] =
        std::array::from_fn(|_| Box::into_raw(Box::new(1u64)).cast());
    let origin = Data {
        address: source.cast_const(),
        count,
        layout,
    };
    let result = Data {
        address: sink,
        count,
        layout,
    };
    let operand = origin.address;
    let swap = (operand, compare.cast_const());
    // SAFETY: each buffer is one element of its own, never freed and never looked at again.
    unsafe {
        match (what, request) {
            (What::Put, false) => window.put(origin, at),
            (What::Get, false) => window.get(result, at),
            (What::Accumulate, false) => window.accumulate(origin, at, Op::Sum),
            (What::GetAccumulate, false) => window.get_accumulate(origin, result, at, Op::Sum),
            (What::FetchAndOp, _) => {
                window.fetch_and_op(operand, sink, layout, (rank, disp), Op::Sum)
            }
            (What::CompareAndSwap, _) => {
                window.compare_and_swap(swap.0, swap.1, sink, layout, (rank, disp))
            }
            (What::Put, true) => window.rput(origin, at)?.wait(),
            (What::Get, true) => window.rget(result, at)?.wait(),
            (What::Accumulate, true) => window.raccumulate(origin, at, Op::Sum)?.wait(),
            (What::GetAccumulate, true) => {
                window.rget_accumulate(origin, result, at, Op::Sum)?.wait()
            }
        }
    }
}

/// The subject's call, but for `Free`.
fn make(world: &World, window: &Window, call: Call) -> windlass::Result<()> {
    match call {
        Call::Fence(assertions) => window.fence(assertions),
        Call::Start(group) => window.start(&group.group(world), NONE),
        Call::Complete => window.complete(),
        Call::Post => window.post(&set(false, true).group(world), NONE),
        Call::Wait => window.wait(),
        Call::Test => window.test().map(drop),
        Call::Lock(kind, rank) => window.lock(kind, Some(rank), NONE),
        Call::Unlock(rank) => window.unlock(Some(rank)),
        Call::LockAll => window.lock_all(NONE),
        Call::UnlockAll => window.unlock_all(),
        Call::Operation(what, rank) => operate(window, what, rank, false),
        Call::Request(what, rank) => operate(window, what, rank, true),
        Call::Flush(rank) => window.flush(Some(rank)),
        Call::FlushLocal(rank) => window.flush_local(Some(rank)),
        Call::FlushAll => window.flush_all(),
        Call::FlushLocalAll => window.flush_local_all(),
        Call::Sync => {
            window.sync();
            Ok(())
        }
        Call::Free => unreachable!("it takes the window"),
    }
}

/// Brings the subject's window into `state`.
fn enter(world: &World, window: &Window, state: Model) -> windlass::Result<()> {
    match state.exposed {
        Exposed::None => {}
        Exposed::Fence => window.fence(NONE)?,
        Exposed::Posted => {
            let own = matches!(state.access, Access::Started(group) if group.own);
            window.post(&set(own, true).group(world), NONE)?;
        }
    }
    match state.access {
        // What follows a fence ends its access, not its exposure.
        Access::None if state.exposed == Exposed::Fence => {
            window.lock(LockKind::Shared, Some(OWN), NONE)?;
            window.unlock(Some(OWN))
        }
        Access::None | Access::Fence => Ok(()),
        Access::Used => operate(window, What::Put, OTHER, false),
        Access::Started(group) => window.start(&group.group(world), NONE),
        Access::Locked(held) => {
            let mut ranks = held.ranks().into_iter();
            ranks.try_for_each(|rank| window.lock(LockKind::Shared, Some(rank), NONE))
        }
        Access::All => window.lock_all(NONE),
    }
}

/// Ends the epochs of `state`, as they would have ended without the call in between.
fn leave(window: &Window, state: Model) -> windlass::Result<()> {
    match state.access {
        Access::None | Access::Fence => {}
        Access::Used => window.fence(Assertions::NOSUCCEED)?,
        Access::Started(_) => window.complete()?,
        Access::Locked(held) => {
            let mut ranks = held.ranks().into_iter();
            ranks.try_for_each(|rank| window.unlock(Some(rank)))?;
        }
        Access::All => window.unlock_all()?,
    }
    match state.exposed {
        Exposed::Posted => window.wait(),
        _ => Ok(()),
    }
}

/// What rank 1 does meanwhile.
struct Partner<'a> {
    window: &'a Window,
    subject: Group,
    /// It has posted to the subject.
    posted: bool,
}

impl Partner<'_> {
    fn post_for(&mut self, access: Access) -> windlass::Result<()> {
        if matches!(access, Access::Started(group) if group.other) {
            self.window.post(&self.subject, NONE)?;
            self.posted = true;
        }
        Ok(())
    }

    fn access(&self) -> windlass::Result<()> {
        self.window.start(&self.subject, NONE)?;
        self.window.complete()
    }

    fn enter(&mut self, state: Model) -> windlass::Result<()> {
        if state.exposed == Exposed::Fence {
            self.window.fence(NONE)?;
        }
        self.post_for(state.access)?;
        if state.exposed == Exposed::Posted {
            self.access()?;
        }
        Ok(())
    }

    /// Beside a call that is legal.
    fn follow(&mut self, call: Call, after: Model) -> windlass::Result<()> {
        match call {
            Call::Fence(assertions) => self.window.fence(assertions),
            Call::Start(_) => self.post_for(after.access),
            Call::Post => self.access(),
            _ => Ok(()),
        }
    }

    fn leave(&mut self, state: Model) -> windlass::Result<()> {
        if state.access == Access::Used {
            self.window.fence(Assertions::NOSUCCEED)?;
        }
        if self.posted {
            self.window.wait()?;
        }
        Ok(())
    }
}

/// One cell of the table.
fn cell(world: &World, state: Model, call: Call) -> Done {
    let what = format!("{call:?} in {state:?}");
    let after = table(state, call);
    let window = Window::allocate(world, 8, 8, &Hints::new())?;
    if world.rank() == OTHER {
        let mut partner = Partner {
            window: &window,
            subject: world.group().incl(&[OWN])?,
            posted: false,
        };
        partner.enter(state)?;
        world.barrier()?;
        if let Some(after) = after {
            partner.follow(call, after)?;
        }
        if call != Call::Free || after.is_none() {
            partner.leave(after.unwrap_or(state))?;
        }
    } else {
        enter(world, &window, state)?;
        is_told(&window, state, &format!("before {what}"));
        world.barrier()?;
        let window = match call {
            Call::Free => match (window.free(), after) {
                (Ok(()), Some(_)) => return Ok(()),
                (Err((error, Some(window))), None) => {
                    refused(&error, &what);
                    *window
                }
                (answer, _) => panic!("{what}: {answer:?}"),
            },
            _ => {
                match (make(world, &window, call), after) {
                    (Ok(()), Some(_)) => {}
                    (Err(error), None) => refused(&error, &what),
                    (answer, _) => panic!("{what}: {answer:?}"),
                }
                window
            }
        };
        let now = after.unwrap_or(state);
        is_told(&window, now, &format!("after {what}"));
        leave(&window, now)?;
        return window.free().map_err(|(error, _)| error.into());
    }
    window.free().map_err(|(error, _)| error.into())
}

#[track_caller]
fn refused(error: &Error, what: &str) {
    assert_eq!(error.class(), ErrorClass::RmaSync, "{what}: {error:?}");
    assert!(matches!(error, Error::Epoch { .. }), "{what}: {error:?}");
}

/// A wait of the subject for its own access, which it ends later, would wait for ever.
fn waits_for_itself(state: Model, call: Call) -> bool {
    let own = matches!(state.access, Access::Started(group) if group.own);
    call == Call::Wait && own
}

#[test]
fn the_state_table() {
    for way in [PAIRS[0], PAIRS[6]] {
        way.spec("the_state_table").world(|world| {
            let mut cells = (0u32, 0u32);
            for state in states() {
                for call in calls() {
                    if waits_for_itself(state, call) {
                        continue;
                    }
                    cell(world, state, call)
                        .map_err(|error| format!("{call:?} in {state:?}: {error}"))?;
                    match table(state, call) {
                        Some(_) => cells.0 += 1,
                        None => cells.1 += 1,
                    }
                }
            }
            assert_eq!(cells.0 + cells.1, (25 * calls().len() - 2) as u32);
            if world.rank() == OWN {
                println!("{} calls are legal, {} are refused", cells.0, cells.1);
            }
            Ok(())
        });
    }
}

/// Assertions between two ranks: rounds that are promised not to need their check leave nothing
/// behind for those that are checked; a lock that is promised to be free holds nobody up.
#[test]
fn by_assertion() {
    use Assertions as A;
    const ROUNDS: u64 = 40;
    for way in [PAIRS[0], PAIRS[6]] {
        way.spec("by_assertion").world(|world| {
            let window = Window::allocate(world, 8, 8, &Hints::new())?;
            let other = Rank(1 - world.rank().0);
            let others = world.group().incl(&[other])?;
            for round in 0..ROUNDS {
                // By turns with and without; every third one both expose and access.
                let check = if round % 2 == 0 { A::NOCHECK } else { NONE };
                let (origin, target) = match round % 3 {
                    0 => (world.rank() == OWN, world.rank() == OTHER),
                    1 => (world.rank() == OTHER, world.rank() == OWN),
                    _ => (true, true),
                };
                if target {
                    window.post(&others, check.with(A::NOSTORE))?;
                }
                if check == A::NOCHECK {
                    // What the origin relies on.
                    world.barrier()?;
                }
                if origin {
                    window.start(&others, check)?;
                    operate(&window, What::Accumulate, other, false)?;
                    window.complete()?;
                }
                if target {
                    window.wait()?;
                }
            }
            // Each rank was the target in two of three rounds.
            let targeted = (0..ROUNDS).filter(|&round| round % 3 != u64::from(world.rank().0));
            let mut wanted = targeted.count() as u64;
            assert_eq!(value(&window), wanted);
            window.fence(A::NOPRECEDE)?;
            operate(&window, What::Accumulate, other, false)?;
            window.fence(A::NOSUCCEED.with(A::NOPUT))?;
            wanted += 1;
            assert_eq!(value(&window), wanted);
            world.barrier()?;
            for turn in [OWN, OTHER] {
                if world.rank() == turn {
                    window.lock(LockKind::Exclusive, Some(other), A::NOCHECK)?;
                    operate(&window, What::Accumulate, other, false)?;
                    window.unlock(Some(other))?;
                    window.lock_all(A::NOCHECK)?;
                    operate(&window, What::Accumulate, other, false)?;
                    window.unlock_all()?;
                }
                world.barrier()?;
            }
            assert_eq!(value(&window), wanted + 2);
            for refused in [
                window.fence(A::NOCHECK),
                window.start(&others, A::NOPUT),
                window.post(&others, A::NOSUCCEED),
                window.lock(LockKind::Shared, Some(other), A::NOSTORE),
                window.lock_all(A::from_bits(32)),
            ] {
                let error = refused.expect_err("an assertion that the call does not take");
                assert_eq!(error.class(), ErrorClass::Assert, "{error:?}");
            }
            assert_eq!(window.state(None), State::NONE);
            window.free().map_err(|(error, _)| error)?;
            Ok(())
        });
    }
}

/// This rank's element, by an update that does nothing, under a lock.
fn value(window: &Window) -> u64 {
    let (rank, layout) = (window.group().rank(), &Layout::of::<u64>());
    let found = Box::into_raw(Box::new(0u64));
    let locked = window.lock(LockKind::Shared, rank, NONE);
    locked.expect("no epoch is open");
    // SAFETY: one element of its own; the origin is not looked at.
    let fetched =
        unsafe { window.fetch_and_op(std::ptr::null(), found.cast(), layout, (rank, 0), Op::NoOp) };
    fetched.expect("own memory can be read");
    window.unlock(rank).expect("it is locked");
    // SAFETY: allocated a few lines above, and complete: results have arrived on return.
    unsafe { found.read() }
}

/// A lock is there for its own thread whatever another one looks at meanwhile: post, test and wait
/// are legal beside it.
#[test]
fn a_lock_beside_another_threads_looks() {
    const ROUNDS: u64 = 30_000;
    PAIRS[0]
        .spec("a_lock_beside_another_threads_looks")
        .world(|world| {
            let window = Window::allocate(world, 8, 8, &Hints::new())?;
            let subject = world.rank() == OWN;
            if subject {
                window.post(&set(false, true).group(world), NONE)?;
                std::thread::scope(|threads| -> Done {
                    let looks = threads.spawn(|| -> windlass::Result<()> {
                        while !window.test()? {}
                        Ok(())
                    });
                    for round in 0..ROUNDS {
                        window.lock(LockKind::Shared, Some(OTHER), NONE)?;
                        let held = window.state(Some(OTHER)).access;
                        assert!(
                            matches!(held, AccessState::Lock { this: true, .. }),
                            "{round}"
                        );
                        window.flush_all()?;
                        window.unlock(Some(OTHER))?;
                    }
                    world.barrier()?;
                    looks.join().expect("a thread that does not panic")?;
                    Ok(())
                })?;
            } else {
                world.barrier()?;
                window.start(&set(true, false).group(world), NONE)?;
                window.complete()?;
            }
            // Nothing is left: an exclusive lock is to be had at once.
            window.lock(LockKind::Exclusive, Some(OTHER), NONE)?;
            window.unlock(Some(OTHER))?;
            window.free().map_err(|(error, _)| error)?;
            Ok(())
        });
}
