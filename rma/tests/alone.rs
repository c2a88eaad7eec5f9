//! The whole public surface in a job of one rank: every operation, epoch by epoch, and every error
//! that one process can make. A process joins one job, so all of it is one test.

#![forbid(unsafe_code)]

use std::mem;

use windlass::{
    DoubleInt, Error, ErrorClass, Hints, LockKind, Logical, Op, Rank, Result, Test, Window, World,
};

const ME: Rank = Rank(0);

/// The class and the call of an error.
fn refused<T>(result: Result<T>) -> (ErrorClass, &'static str) {
    match result {
        Ok(_) => panic!("this call should have been refused"),
        Err(error) => {
            assert!(
                error.site().location.file().ends_with("alone.rs"),
                "{error:?}"
            );
            (error.class(), error.site().call)
        }
    }
}

fn set(win: &mut Window<u64>, value: u64) {
    win.lock_local().unwrap().fill(value);
}

fn fences(world: &World) {
    let mut win = world.allocate::<f64>(64).unwrap();
    assert!(
        win.lock_local().unwrap().iter().all(|&v| v == 0.0),
        "allocated memory is zeroed"
    );
    let epoch = win.fence().unwrap();
    epoch.put(&[1.0, 2.0, 3.0], ME, 5).unwrap();
    let epoch = epoch.next().unwrap();
    let mut seen = [0.0; 4];
    epoch.get(&mut seen, ME, 5).unwrap();
    assert_eq!(seen, [1.0, 2.0, 3.0, 0.0]);
    assert_eq!((epoch.local().load(7), epoch.local().len()), (3.0, 64));
    epoch.local().store(0, -1.0);
    epoch.local().write(62, &[8.0, 9.0]).unwrap();
    assert_eq!(
        refused(epoch.local().write(63, &[0.0; 2])),
        (ErrorClass::RmaRange, "write")
    );
    assert_eq!(
        refused(epoch.local().read(65, &mut [])),
        (ErrorClass::RmaRange, "read")
    );
    epoch.end().unwrap();
    let all = win.local().to_vec();
    assert_eq!((all[0], all[5], all[62], all[63]), (-1.0, 1.0, 8.0, 9.0));
    win.fence().unwrap().end().unwrap();
    win.free().unwrap();
}

fn passive(world: &World) {
    let mut win = world.allocate::<u64>(1024).unwrap();
    set(&mut win, 7);
    let epoch = win.lock_all().unwrap();
    let mut block = world.buffer::<u64>(16).unwrap();
    assert!(block.iter().all(|&v| v == 0));
    block.fill(3);
    let block = epoch.rput(block, ME, 8).unwrap().wait().unwrap();
    epoch.flush(ME).unwrap();
    let block = match epoch.rget(block, ME, 0).unwrap().test().unwrap() {
        Test::Complete(block) => block,
        Test::Running(_) => panic!("own memory is reached at once"),
    };
    assert_eq!((block[0], block[7], block[8], block[15]), (7, 7, 3, 3));
    epoch.flush_all().unwrap();
    epoch.flush_local(ME).unwrap();
    epoch.flush_local_all().unwrap();
    epoch.sync();
    assert_eq!(refused(epoch.flush(Rank(1))), (ErrorClass::Rank, "flush"));
    drop(epoch);

    let lock = win.lock(ME, LockKind::Exclusive).unwrap();
    assert_eq!(lock.target(), ME);
    lock.put(&[1, 2], ME, 1022).unwrap();
    assert_eq!(
        refused(win.lock(ME, LockKind::Shared)),
        (ErrorClass::RmaSync, "lock")
    );
    lock.end().unwrap();
    assert_eq!(win.local().load(1023), 2);
    assert_eq!(
        refused(win.lock(Rank(9), LockKind::Shared)),
        (ErrorClass::Rank, "lock")
    );
    win.lock(ME, LockKind::Shared).unwrap().flush(ME).unwrap();
    win.free().unwrap();
}

fn updates(world: &World) {
    let mut win = world.allocate::<u64>(8).unwrap();
    set(&mut win, 10);
    let epoch = win.lock_all().unwrap();
    epoch.accumulate(&[1, 2, 3], ME, 0, Op::Sum).unwrap();
    epoch.accumulate(&[99], ME, 7, Op::Replace).unwrap();
    assert_eq!(
        refused(epoch.accumulate(&[1], ME, 0, Op::NoOp)),
        (ErrorClass::Op, "accumulate")
    );
    assert_eq!(epoch.fetch_and_op(u64::MAX, ME, 0, Op::Sum).unwrap(), 11);
    assert_eq!(epoch.fetch_and_op(0, ME, 0, Op::NoOp).unwrap(), 10);
    assert_eq!(epoch.fetch_and_op(5, ME, 0, Op::Replace).unwrap(), 10);
    assert_eq!(epoch.compare_and_swap(6, 1, ME, 0).unwrap(), 5);
    assert_eq!(epoch.compare_and_swap(5, 1, ME, 0).unwrap(), 5);
    let mut olds = [0; 3];
    epoch
        .get_accumulate(&[1, 1, 1], &mut olds, ME, 0, Op::Sum)
        .unwrap();
    assert_eq!(olds, [1, 12, 13]);
    epoch
        .get_accumulate(&[], &mut olds, ME, 0, Op::NoOp)
        .unwrap();
    assert_eq!(olds, [2, 13, 14]);
    let odd = epoch.get_accumulate(&[1], &mut olds, ME, 0, Op::Sum);
    assert_eq!(refused(odd), (ErrorClass::Count, "get_accumulate"));
    assert_eq!(
        refused(epoch.fetch_and_op(1, ME, 8, Op::Sum)),
        (ErrorClass::RmaRange, "fetch_and_op")
    );
    epoch.end().unwrap();
    assert_eq!(win.local().to_vec(), [2, 13, 14, 10, 10, 10, 10, 99]);
    win.free().unwrap();

    let mut floats = world.allocate::<f32>(2).unwrap();
    let epoch = floats.lock_all().unwrap();
    assert_eq!(epoch.fetch_and_op(1.5, ME, 1, Op::Sum).unwrap(), 0.0);
    epoch.accumulate(&[0.25, 0.25], ME, 0, Op::Sum).unwrap();
    epoch.end().unwrap();
    assert_eq!(floats.local().to_vec(), [0.25, 1.75]);
    floats.free().unwrap();
}

/// A structure of the program's own, in a window by value.
#[derive(Clone, Copy, Debug, PartialEq, windlass::Element)]
#[repr(C)]
struct Particle {
    position: [f64; 3],
    charge: i32,
    cell: Cell,
}

#[derive(Clone, Copy, Debug, PartialEq, windlass::Element)]
#[repr(transparent)]
struct Cell(u32);

fn derived(world: &World) {
    let particle = |n: u32| Particle {
        position: [n.into(), 0.5, -1.0],
        charge: -(n as i32),
        cell: Cell(n),
    };
    let mut win = world.allocate::<Particle>(4).unwrap();
    let epoch = win.fence().unwrap();
    epoch.put(&[particle(7), particle(8)], ME, 1).unwrap();
    let epoch = epoch.next().unwrap();
    let mut back = [particle(0); 3];
    epoch.get(&mut back, ME, 0).unwrap();
    assert_eq!(back[1..], [particle(7), particle(8)]);
    assert_eq!(epoch.local().load(2).cell, Cell(8));
    epoch.end().unwrap();
    win.free().unwrap();
}

/// Operators by type, and that a pair's padding is nobody's to change.
fn operators(world: &World) {
    let mut win = world.allocate::<DoubleInt>(3).unwrap();
    let epoch = win.lock_all().unwrap();
    let at = |value, index| DoubleInt::new(value, index);
    epoch
        .accumulate(&[at(2.0, 5), at(-1.0, 6)], ME, 1, Op::MaxLoc)
        .unwrap();
    let old = epoch.fetch_and_op(at(2.0, 4), ME, 1, Op::MaxLoc).unwrap();
    assert_eq!(old, at(2.0, 5));
    assert_eq!(
        refused(epoch.accumulate(&[at(1.0, 1)], ME, 0, Op::Sum)),
        (ErrorClass::Op, "accumulate")
    );
    let text = epoch
        .fetch_and_op(at(1.0, 1), ME, 0, Op::Band)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("DoubleInt does not take Band here; accepted: MinLoc, MaxLoc, Replace, NoOp"),
        "{text}"
    );
    // A sum of nothing is checked too.
    assert_eq!(
        refused(epoch.accumulate(&[], ME, 0, Op::Sum)),
        (ErrorClass::Op, "accumulate")
    );
    epoch.end().unwrap();
    assert_eq!(win.local().to_vec(), [at(0.0, 0), at(2.0, 4), at(0.0, 0)]);
    win.free().unwrap();

    let mut win = world.allocate::<Logical>(2).unwrap();
    let epoch = win.lock_all().unwrap();
    let old = epoch
        .compare_and_swap(Logical::FALSE, Logical::TRUE, ME, 1)
        .unwrap();
    assert_eq!(old, Logical::FALSE);
    epoch
        .accumulate(&[Logical::TRUE; 2], ME, 0, Op::Lxor)
        .unwrap();
    epoch.end().unwrap();
    assert_eq!(win.local().to_vec(), [Logical::TRUE, Logical::FALSE]);
    win.free().unwrap();
}

/// Ranges near the ends of numbers are refused before a byte moves.
fn bounds(world: &World) {
    let mut win = world.allocate::<u64>(4).unwrap();
    set(&mut win, 1);
    let epoch = win.lock_all().unwrap();
    for (disp, len) in [
        (4, 1),
        (0, 5),
        (5, 0),
        (usize::MAX, 1),
        (usize::MAX - 3, 4),
        (1 << 61, 1),
    ] {
        let mut dst = vec![2; len];
        assert_eq!(
            refused(epoch.put(&dst, ME, disp)),
            (ErrorClass::RmaRange, "put")
        );
        assert_eq!(
            refused(epoch.get(&mut dst, ME, disp)),
            (ErrorClass::RmaRange, "get")
        );
        assert!(dst.iter().all(|&v| v == 2));
    }
    assert_eq!(
        refused(epoch.put(&[1], Rank(1), 0)),
        (ErrorClass::Rank, "put")
    );
    assert_eq!(
        refused(epoch.put(&[1], Rank(u32::MAX), 0)),
        (ErrorClass::Rank, "put")
    );
    epoch.put(&[], ME, 4).unwrap();
    epoch.get(&mut [], ME, 0).unwrap();
    epoch.end().unwrap();
    assert_eq!(win.local().to_vec(), [1; 4]);
    assert!(matches!(win.len_of(ME), Ok(4)));
    win.free().unwrap();

    let text = world
        .allocate::<f64>(usize::MAX / 2)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(text.class(), ErrorClass::NoMem, "{text:?}");
    assert_eq!(
        refused(world.buffer::<u8>(usize::MAX)),
        (ErrorClass::NoMem, "buffer")
    );
    let mut nothing = world.allocate::<u64>(0).unwrap();
    assert!(nothing.lock_local().unwrap().is_empty());
    let epoch = nothing.fence().unwrap();
    epoch.put(&[], ME, 0).unwrap();
    assert_eq!(
        refused(epoch.put(&[1], ME, 0)),
        (ErrorClass::RmaRange, "put")
    );
    epoch.end().unwrap();
    nothing.free().unwrap();
}

fn lent(world: &World) {
    let memory: Vec<u16> = (0..1000).collect();
    let address = memory.as_ptr();
    let mut win = world.create(memory).unwrap();
    assert_eq!(win.lock_local().unwrap()[999], 999);
    let epoch = win.fence().unwrap();
    epoch.put(&[7, 8], ME, 1).unwrap();
    epoch.end().unwrap();
    let memory = win.free().unwrap();
    assert_eq!((&memory[..4], memory.len()), (&[0, 7, 8, 3][..], 1000));
    assert_eq!(memory.as_ptr(), address, "given back, not copied");
    let nothing = world.create(Vec::<u32>::new()).unwrap();
    let routes: Vec<_> = nothing.routes().collect();
    let reasons = routes.iter().flat_map(|route| &route.rejected);
    let mut reasons = reasons.map(|(_, reason)| reason.as_str());
    assert!(reasons.all(|reason| reason == "rank 0 lends no memory"));
    assert!(nothing.free().unwrap().is_empty());
}

/// A forgotten guard ends the borrow, not the epoch.
fn forgotten(world: &World) {
    let mut win = world.allocate::<u64>(4).unwrap();
    win.set_name("halo");
    mem::forget(win.fence().unwrap());
    assert_eq!(
        refused(win.lock(ME, LockKind::Shared)),
        (ErrorClass::RmaSync, "lock")
    );
    assert_eq!(
        refused(win.lock_local()),
        (ErrorClass::RmaSync, "lock_local")
    );
    assert_eq!(refused(win.lock_all()), (ErrorClass::RmaSync, "lock_all"));
    let error = win.lock_local().map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("lock_local on halo by rank 0"),
        "{error}"
    );
    // A fence continues where the forgotten one stood (mpi-rma 4).
    win.fence().unwrap().end().unwrap();
    mem::forget(win.lock_all().unwrap());
    assert_eq!(refused(win.fence()), (ErrorClass::RmaSync, "fence"));
    assert_eq!(refused(win.lock_all()), (ErrorClass::RmaSync, "lock_all"));
    assert_eq!(refused(win.free()), (ErrorClass::RmaSync, "free"));

    let mut win = world.allocate::<u64>(4).unwrap();
    mem::forget(win.lock(ME, LockKind::Shared).unwrap());
    assert_eq!(
        refused(win.lock_local()),
        (ErrorClass::RmaSync, "lock_local")
    );
    assert_eq!(refused(win.fence()), (ErrorClass::RmaSync, "fence"));
    assert_eq!(
        refused(win.lock(ME, LockKind::Shared)),
        (ErrorClass::RmaSync, "lock")
    );

    // A dropped fence guard has left: the next synchronisation says so.
    let mut win = world.allocate::<u64>(4).unwrap();
    drop(win.fence().unwrap());
    assert!(matches!(
        win.fence(),
        Err(Error::Epoch { .. } | Error::Departed { .. }) | Ok(_)
    ));
}

/// Threads share an epoch and its updates lose nothing.
fn threads(world: &World) {
    let mut win = world.allocate::<u64>(64).unwrap();
    let epoch = win.lock_all().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let epoch = &epoch;
            scope.spawn(move || {
                for _ in 0..1000 {
                    epoch.accumulate(&[1], ME, 0, Op::Sum).unwrap();
                    epoch.put(&[thread], ME, 8 + thread as usize).unwrap();
                }
                epoch.flush(ME).unwrap();
            });
        }
    });
    epoch.end().unwrap();
    assert_eq!(win.local().load(0), 4000);
    assert_eq!(win.local().to_vec()[8..12], [0, 1, 2, 3]);
    win.free().unwrap();
}

fn borrowed_and_standing(world: &World) {
    let mut array = [0u16; 7];
    let answer: Result<Result<i32>> = world.create_scoped(&mut array[1..6], |win| {
        let epoch = win.lock_all()?;
        epoch.put(&[3, 4], ME, 1)?;
        epoch.end()?;
        assert_eq!(
            refused(win.lock(Rank(1), LockKind::Shared)),
            (ErrorClass::Rank, "lock")
        );
        Ok(5)
    });
    assert_eq!(answer.unwrap().unwrap(), 5);
    assert_eq!(array, [0, 0, 3, 4, 0, 0, 0]);
    assert_eq!(
        world
            .create_scoped(&mut [0u8; 0], |win| win.size())
            .unwrap(),
        1
    );

    let locked = world
        .create(vec![1u64, 2, 3, 4].into_boxed_slice())
        .unwrap()
        .into_lock_all()
        .unwrap();
    locked.epoch().put(&[9], ME, 3).unwrap();
    locked.epoch().flush(ME).unwrap();
    let mut ten = world.buffer::<u64>(2).unwrap();
    ten.fill(10);
    let ten = locked
        .epoch()
        .raccumulate(ten, ME, 2, Op::Sum)
        .unwrap()
        .wait()
        .unwrap();
    let result = world.buffer::<u64>(2).unwrap();
    let request = locked
        .epoch()
        .rget_accumulate(ten, result, ME, 2, Op::Sum)
        .unwrap();
    let (ten, was) = request.wait().unwrap();
    assert_eq!((&ten[..], &was[..]), (&[10, 10][..], &[13, 19][..]));
    locked.epoch().put_notify(&[23], ME, 2, 7).unwrap();
    assert!(locked.window().test_notify(7, 1).unwrap());
    assert_eq!(
        refused(locked.window().lock(ME, LockKind::Shared)),
        (ErrorClass::RmaSync, "lock")
    );
    let win = locked.unlock().unwrap();
    assert_eq!(*win.free().unwrap(), [1, 2, 23, 29]);
}

fn hints(world: &World) {
    let hints = Hints::new()
        .with("no_locks", "true")
        .with("same_size", "true")
        .with("mpi_minimum_memory_alignment", "4096")
        .with("unknown", "1");
    let mut win = world.allocate_with::<u8>(100, &hints).unwrap();
    assert_eq!(win.hints().get("no_locks").as_deref(), Some("true"));
    assert_eq!(win.hints().get("unknown"), None);
    assert_eq!(win.hints().get("same_size"), None, "it has no effect");
    assert_eq!(
        refused(win.lock(ME, LockKind::Shared)),
        (ErrorClass::RmaSync, "lock")
    );
    assert_eq!(refused(win.lock_all()), (ErrorClass::RmaSync, "lock_all"));
    win.fence().unwrap().end().unwrap();
    let locks = win.hints().clone().with("no_locks", "false");
    win.set_hints(&locks.with("mpi_minimum_memory_alignment", "64"))
        .unwrap();
    win.lock(ME, LockKind::Shared).unwrap().end().unwrap();
    let none = win.hints().clone().with("no_locks", "true");
    win.set_hints(&none).unwrap();
    assert_eq!(
        refused(win.lock(ME, LockKind::Shared)),
        (ErrorClass::RmaSync, "lock")
    );
    assert_eq!(refused(win.lock_local()).0, ErrorClass::RmaSync);
    win.set_hints(&none.with("no_locks", "false")).unwrap();
    win.lock(ME, LockKind::Exclusive).unwrap().end().unwrap();
    assert_eq!(
        win.hints().get("mpi_minimum_memory_alignment").as_deref(),
        Some("4096"),
        "memory does not move"
    );
    let long = "ö".repeat(100);
    win.set_name(&long);
    assert_eq!(win.name(), "ö".repeat(63), "cut between characters");
    win.free().unwrap();
}

#[test]
fn a_job_of_one_rank() {
    let world = windlass::init().unwrap();
    assert_eq!((world.rank(), world.size()), (ME, 1));
    assert_eq!(world.node_of(ME).unwrap(), 0);
    assert_eq!(
        refused(world.node_of(Rank(1))),
        (ErrorClass::Rank, "node_of")
    );
    assert_eq!(refused(windlass::init()), (ErrorClass::Other, "init"));
    fences(&world);
    passive(&world);
    updates(&world);
    derived(&world);
    operators(&world);
    bounds(&world);
    lent(&world);
    threads(&world);
    forgotten(&world);
    borrowed_and_standing(&world);
    hints(&world);
    let win = world.allocate::<u8>(1).unwrap();
    let route = win.routes().next().unwrap();
    assert_eq!(
        (route.target, route.mechanism, route.shape),
        (ME, "loopback", "mapped")
    );
    win.free().unwrap();
    world.barrier().unwrap();
    let other = world.clone();
    world.end().unwrap();
    assert_eq!(
        refused(other.allocate::<u8>(1)),
        (ErrorClass::Other, "allocate")
    );
    assert_eq!(refused(other.end()), (ErrorClass::Other, "end"));
}
