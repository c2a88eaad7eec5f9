//! Locks of ranks on every kind of place: exclusion, fairness, no circle of waiting (mpi-rma 4,
//! passive target).

mod support;

use std::time::Duration;

use support::{Done, Spec};
use windlass::{LockKind, Op, Rank, Window, World};

/// Ranks on a VE, the host, and the same on another node: mapped, posted and remote words.
fn mixed(test: &'static str) -> Spec {
    Spec::new(test)
        .nodes(2)
        .ves(1)
        .place("ve0:1,vh:2")
        .limit(Duration::from_secs(240))
}

/// Adds one to both ends of the target's part by get and put, which only a lock makes one step.
fn step(window: &Window<u64>, target: Rank, last: usize) -> Done {
    let lock = window.lock(target, LockKind::Exclusive)?;
    let (mut first, mut end) = ([0], [0]);
    lock.get(&mut first, target, 0)?;
    lock.get(&mut end, target, last)?;
    assert_eq!(first, end, "somebody is inside");
    lock.put(&[first[0] + 1], target, 0)?;
    lock.put(&[end[0] + 1], target, last)?;
    lock.end()?;
    Ok(())
}

/// Read-modify-write under exclusive locks loses nothing, from origins of every kind, among them
/// the owner with a plain slice; shared holders never see one half of it.
#[test]
fn exclusive_holders_are_alone() {
    const TURNS: usize = 30;
    mixed("exclusive_holders_are_alone").world(|world| {
        let len = 100;
        let mut window = world.allocate::<u64>(len)?;
        for _ in 0..TURNS {
            for target in world.ranks() {
                step(&window, target, len - 1)?;
                let lock = window.lock(target, LockKind::Shared)?;
                let mut seen = vec![0; len];
                lock.get(&mut seen, target, 0)?;
                assert_eq!(seen[0], seen[len - 1], "a writer is inside");
                lock.end()?;
            }
            let mut mine = window.lock_local()?;
            assert_eq!(mine[0], mine[len - 1], "a writer is inside");
            mine[0] += 1;
            mine[len - 1] += 1;
        }
        world.barrier()?;
        let turns = (TURNS * (world.size() as usize + 1)) as u64;
        assert_eq!(window.lock_local()?[0], turns, "every turn counts once");
        window.free()?;
        Ok(())
    });
}

/// Readers come and go without a gap; a writer gets in all the same, and so does a reader among
/// writers.
fn nobody_starves(world: &World) -> Done {
    const WRITES: u64 = 20;
    let mut window = world.allocate::<u64>(2)?;
    let target = Rank(0);
    let me = world.rank().0;
    if me == 0 {
        for _ in 0..WRITES {
            step(&window, target, 1)?;
        }
    } else {
        // Holds the lock until the next reader has it too, so that it is never free for long.
        loop {
            let lock = window.lock(target, LockKind::Shared)?;
            let mut seen = [0; 2];
            lock.get(&mut seen, target, 0)?;
            assert_eq!(seen[0], seen[1], "a writer is inside");
            std::thread::sleep(Duration::from_micros(300 * u64::from(me)));
            lock.end()?;
            if seen[0] == WRITES {
                break;
            }
        }
    }
    world.barrier()?;
    // The other way round: everybody writes, everybody reads until all have written.
    let all = WRITES * (u64::from(world.size()) + 1);
    for _ in 0..WRITES {
        step(&window, target, 1)?;
    }
    let mut seen = [0];
    while seen[0] < all {
        window
            .lock(target, LockKind::Shared)?
            .get(&mut seen, target, 0)?;
    }
    assert_eq!(seen[0], all);
    world.barrier()?;
    assert_eq!(window.lock_local()?[1], if me == 0 { all } else { 0 });
    window.free()?;
    Ok(())
}

#[test]
fn nobody_starves_on_one_node() {
    Spec::new("nobody_starves_on_one_node")
        .ranks(4)
        .world(nobody_starves);
}

#[test]
fn nobody_starves_between_nodes() {
    let spec = Spec::new("nobody_starves_between_nodes").ranks(4).nodes(2);
    spec.limit(Duration::from_secs(240)).world(nobody_starves);
}

/// A rank that collects exclusive locks one by one, in falling order, beside ranks that lock all:
/// nobody waits in a circle.
#[test]
fn lock_all_and_collected_locks_do_not_deadlock() {
    const TURNS: u64 = 40;
    mixed("lock_all_and_collected_locks_do_not_deadlock").world(|world| {
        let mut window = world.allocate::<u64>(2)?;
        for _ in 0..TURNS {
            if world.rank() == Rank(1) {
                let mut locks = Vec::new();
                for target in world.ranks().rev() {
                    locks.push(window.lock(target, LockKind::Exclusive)?);
                }
                for lock in &locks {
                    let mut seen = [0];
                    lock.get(&mut seen, lock.target(), 1)?;
                    lock.put(&[seen[0] + 1], lock.target(), 1)?;
                }
            } else {
                let epoch = window.lock_all()?;
                for target in world.ranks() {
                    epoch.accumulate(&[1], target, 0, Op::Sum)?;
                }
                epoch.end()?;
            }
        }
        world.barrier()?;
        let mine = window.lock_local()?;
        assert_eq!(mine[..], [TURNS * (u64::from(world.size()) - 1), TURNS]);
        mine.end()?;
        window.free()?;
        Ok(())
    });
}

/// Every other rank has its own part locked exclusively nearly all the time, until rank 0 has locked
/// all often enough: it is not kept out.
#[test]
fn lock_all_gets_in_among_streams_of_exclusive_locks() {
    const TURNS: u64 = 30;
    let spec =
        |case: &str| Spec::new("lock_all_gets_in_among_streams_of_exclusive_locks").case(case);
    let placements = [
        spec("one node").ranks(4),
        spec("two nodes").nodes(2).place("vh:2"),
    ];
    for spec in placements {
        spec.limit(Duration::from_secs(240)).world(|world| {
            let mut window = world.allocate::<u64>(3)?;
            let me = world.rank();
            if me == Rank(0) {
                for turn in 1..=TURNS {
                    let epoch = window.lock_all()?;
                    for target in world.ranks() {
                        let mut seen = [0; 2];
                        epoch.get(&mut seen, target, 0)?;
                        assert_eq!(seen[0], seen[1], "a writer is inside");
                        epoch.put(&[turn], target, 2)?;
                    }
                    epoch.end()?;
                }
            } else {
                loop {
                    let lock = window.lock(me, LockKind::Exclusive)?;
                    let mut seen = [0; 3];
                    lock.get(&mut seen, me, 0)?;
                    lock.put(&[seen[0] + 1], me, 0)?;
                    std::thread::sleep(Duration::from_micros(100));
                    lock.put(&[seen[1] + 1], me, 1)?;
                    lock.end()?;
                    if seen[2] == TURNS {
                        break;
                    }
                }
            }
            world.barrier()?;
            window.free()?;
            Ok(())
        });
    }
}

/// Threads of one rank hold locks on different targets at once; a second one on the same target
/// is refused, and what the first one has is not disturbed.
#[test]
fn threads_lock_different_targets() {
    Spec::new("threads_lock_different_targets")
        .ranks(3)
        .world(|world| {
            let mut window = world.allocate::<u64>(2)?;
            std::thread::scope(|scope| {
                for target in world.ranks() {
                    let window = &window;
                    scope.spawn(move || {
                        for _ in 0..200 {
                            let lock = window
                                .lock(target, LockKind::Exclusive)
                                .expect("a free claim");
                            let again = window.lock(target, LockKind::Shared);
                            assert_eq!(
                                again.map(drop).unwrap_err().class().name(),
                                "MPI_ERR_RMA_SYNC"
                            );
                            let other = Rank((target.0 + 1) % 3);
                            let refused = lock.put(&[1], other, 0).unwrap_err();
                            assert!(
                                matches!(refused, windlass::Error::NotLocked { .. }),
                                "{refused}"
                            );
                            let mut seen = [0];
                            lock.get(&mut seen, target, 0).expect("a get");
                            lock.put(&[seen[0] + 1], target, 0).expect("a put");
                        }
                    });
                }
            });
            world.barrier()?;
            assert_eq!(window.lock_local()?[0], 600);
            window.free()?;
            Ok(())
        });
}
