//! Progress without a call of the target, and freedom from deadlock (mpi-rma 6).
//!
//! Nothing here looks at a clock: a target that computes until it finds the origin's last word in
//! its memory computes for ever if the origin needs a call of it, and the watchdog says so.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use support::ways::{MIXTURES, PAIRS, Way, route_to};
use support::{Done, Failure};
use windlass::{Group, LockKind, Op, Progress, Rank, Window, World};

const ORIGIN: Rank = Rank(0);
const TARGET: Rank = Rank(1);

/// Computes without any call of the library until `done`, which looks at this rank's own memory.
fn compute_until(done: impl Fn() -> bool) {
    let mut state = 1u64;
    while !done() {
        for _ in 0..20_000 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005) + 1);
        }
    }
}

// Words of the target.
const LAST: usize = 0;
const PUT: usize = 1;
const SUM: usize = 2;
const FETCHED: usize = 3;
const SWAPPED: usize = 4;
const LOCKED: usize = 5;
const BLOCK: usize = 8;
const BLOCK_LEN: usize = 20_000;

/// Turns of the origin, and what is sent in each without a flush.
const TURNS: u64 = 40;
const STREAM: u64 = 60;

/// Every kind of operation, lock and notification, more of them than any queue holds.
fn operate(window: &mut Window<u64>) -> Done {
    let mut block = vec![0; BLOCK_LEN];
    for turn in 1..=TURNS {
        let epoch = window.lock_all()?;
        block.fill(turn);
        epoch.put(&block, TARGET, BLOCK)?;
        for count in 1..=STREAM {
            epoch.put(&[turn * 1000 + count], TARGET, PUT)?;
            epoch.accumulate(&[1], TARGET, SUM, Op::Sum)?;
        }
        epoch.flush(TARGET)?;
        let mut found = [0];
        epoch.get(&mut found, TARGET, PUT)?;
        assert_eq!(found, [turn * 1000 + STREAM]);
        let old = epoch.fetch_and_op(1, TARGET, FETCHED, Op::Sum)?;
        assert_eq!(old, turn - 1);
        let old = epoch.compare_and_swap(turn - 1, turn, TARGET, SWAPPED)?;
        assert_eq!(old, turn - 1);
        let mut whole = vec![0; BLOCK_LEN];
        epoch.get(&mut whole, TARGET, BLOCK)?;
        assert!(whole == block, "turn {turn}");
        epoch.end()?;
        for kind in [LockKind::Exclusive, LockKind::Shared] {
            let lock = window.lock(TARGET, kind)?;
            let mut found = [0];
            lock.get(&mut found, TARGET, LOCKED)?;
            lock.put(&[found[0] + 1], TARGET, LOCKED)?;
            lock.put_notify(&[], TARGET, 0, 7)?;
            lock.end()?;
        }
    }
    let lock = window.lock(TARGET, LockKind::Shared)?;
    lock.put(&[1], TARGET, LAST)?;
    lock.end()?;
    Ok(())
}

/// Who moves data and updates on each route, while the target computes.
fn movers(way: &Way) -> (Progress, Progress) {
    match (way.mechanism, way.shape) {
        (_, "mapped") => (Progress::Mapping, Progress::Mapping),
        ("udapl", _) => (Progress::Helper, Progress::Helper),
        _ => (Progress::Hardware, Progress::Helper),
    }
}

#[test]
fn a_target_that_computes_serves_everything() {
    for way in PAIRS {
        let spec = way.spec("a_target_that_computes_serves_everything");
        spec.limit(Duration::from_secs(240)).world(|world| {
            let mut window = way.window::<u64>(world, BLOCK + BLOCK_LEN)?;
            world.barrier()?;
            if world.rank() == ORIGIN {
                let route = route_to(&window, TARGET);
                let told = (route.progress, route.update_progress);
                assert_eq!(told, movers(&way), "{way:?}");
                operate(&mut window)?;
            } else {
                let mine = window.local();
                compute_until(|| mine.load(LAST) == 1);
                assert_eq!(mine.load(PUT), TURNS * 1000 + STREAM);
                assert_eq!(mine.load(SUM), TURNS * STREAM);
                assert_eq!(mine.load(FETCHED), TURNS);
                assert_eq!(mine.load(SWAPPED), TURNS);
                assert_eq!(mine.load(LOCKED), 2 * TURNS);
                assert_eq!(window.notified(7)?, 2 * TURNS);
                window.wait_notify(7, 2 * TURNS)?;
            }
            let me = route_to(&window, world.rank());
            let own = if way.native {
                Progress::Hardware
            } else {
                Progress::Mapping
            };
            assert_eq!(me.progress, own, "own memory");
            window.free()?;
            Ok(())
        });
    }
}

/// An origin that computes after its put with notification, its complete, or its unlock: what it
/// has said arrives all the same.
#[test]
fn an_origin_that_computes_has_said_it_all() {
    for way in PAIRS {
        let spec = way.spec("an_origin_that_computes_has_said_it_all");
        spec.world(|world| {
            let window = way.window::<u64>(world, 4)?;
            let other = Rank(1 - world.rank().0);
            let others = world.group().incl(&[other])?;
            world.barrier()?;
            for turn in 1..=20u64 {
                if world.rank() == ORIGIN {
                    let mine = window.local();
                    let lock = window.lock(TARGET, LockKind::Exclusive)?;
                    for count in 0..turn {
                        lock.put_notify(&[turn * 100 + count], TARGET, 0, 3)?;
                    }
                    compute_until(|| mine.load(1) == turn);
                    lock.end()?;
                    compute_until(|| mine.load(2) == turn);
                    let access = window.start(&others)?;
                    access.put(&[turn], TARGET, 3)?;
                    access.end()?;
                    compute_until(|| mine.load(3) == turn);
                } else {
                    let answer = |word: usize| -> Done {
                        let lock = window.lock(ORIGIN, LockKind::Shared)?;
                        lock.put(&[turn], ORIGIN, word)?;
                        lock.end()?;
                        Ok(())
                    };
                    window.wait_notify(3, turn)?;
                    assert_eq!(window.local().load(0), turn * 100 + turn - 1);
                    answer(1)?;
                    window.lock(TARGET, LockKind::Exclusive)?.end()?;
                    answer(2)?;
                    window.post(&others)?.wait()?;
                    assert_eq!(window.local().load(3), turn);
                    answer(3)?;
                }
            }
            window.free()?;
            Ok(())
        });
    }
}

/// One thread flushes while another goes on putting to the same rank, by the same window and by
/// another: what happened before the flush has to complete, nothing else.
#[test]
fn a_flush_does_not_wait_for_what_others_go_on_posting() {
    for way in PAIRS {
        let spec = way.spec("a_flush_does_not_wait_for_what_others_go_on_posting");
        spec.world(|world| {
            let mut window = way.window::<u64>(world, 100)?;
            let mut other = way.window::<u64>(world, 100)?;
            world.barrier()?;
            if world.rank() == ORIGIN {
                let epochs = [window.lock_all()?, other.lock_all()?];
                let [flushed, _] = &epochs;
                let (began, over) = (AtomicU32::new(0), AtomicBool::new(false));
                std::thread::scope(|threads| -> Done {
                    let putters = epochs.each_ref().map(|epoch| {
                        threads.spawn(|| -> windlass::Result<()> {
                            epoch.put(&[1; 20], TARGET, 1)?;
                            began.fetch_add(1, Relaxed);
                            while !over.load(Relaxed) {
                                epoch.put(&[1; 20], TARGET, 1)?;
                            }
                            Ok(())
                        })
                    });
                    while began.load(Relaxed) < 2 {
                        std::thread::yield_now();
                    }
                    for _ in 0..20 {
                        flushed.flush(TARGET)?;
                    }
                    over.store(true, Relaxed);
                    for putter in putters {
                        putter.join().expect("it does not panic")?;
                    }
                    Ok(())
                })?;
                for epoch in epochs {
                    epoch.end()?;
                }
            }
            window.free()?;
            other.free()?;
            Ok(())
        });
    }
}

/// Each rank holds the lock of the next one, all at once; in the next turn somebody else's.
#[test]
fn all_lock_each_other() {
    for way in MIXTURES.into_iter().chain(PAIRS) {
        way.spec("all_lock_each_other").world(|world| {
            let (me, size) = (world.rank().0, world.size());
            let window = way.window::<u64>(world, 2)?;
            let turns = 4 * (size - 1);
            for turn in 0..turns {
                let target = Rank((me + 1 + turn % (size - 1)) % size);
                let lock = window.lock(target, LockKind::Exclusive)?;
                // Now every rank is locked by another one.
                world.barrier()?;
                let mut seen = [0];
                lock.get(&mut seen, target, 0)?;
                lock.put(&[seen[0] + 1], target, 0)?;
                lock.accumulate(&[1], target, 1, Op::Sum)?;
                lock.flush(target)?;
                if turn % 2 == 0 {
                    world.barrier()?;
                }
                lock.end()?;
                world.barrier()?;
            }
            let all = u64::from(turns);
            assert_eq!(window.local().to_vec(), [all, all], "{way:?}");
            window.free()?;
            Ok(())
        });
    }
}

fn only(world: &World, rank: Rank) -> Result<Group, Failure> {
    Ok(world.group().incl(&[rank])?)
}

/// Ranks that wait in different calls on different windows, in an order that matches: in a fence, in
/// a wait, in a barrier, for a notification. Their memory is operated on meanwhile.
#[test]
fn all_wait_for_something_else() {
    const TURNS: u64 = 25;
    for way in [MIXTURES[0], MIXTURES[2], MIXTURES[4]] {
        way.spec("all_wait_for_something_else").world(|world| {
            let me = world.rank().0;
            let mut fenced = way.window::<u64>(world, 1)?;
            let exposed = way.window::<u64>(world, 1)?;
            let notified = way.window::<u64>(world, 1)?;
            let mut counted = way.window::<u64>(world, 1)?;
            for turn in 1..=TURNS {
                match me {
                    1 => {
                        exposed.post(&only(world, Rank(2))?)?.wait()?;
                        assert_eq!(exposed.local().load(0), turn);
                    }
                    2 => {
                        // Everybody else waits in a call; their memory is there.
                        let all = counted.lock_all()?;
                        for target in world.ranks() {
                            all.accumulate(&[1], target, 0, Op::Sum)?;
                            all.flush(target)?;
                            assert_eq!(all.fetch_and_op(0, target, 0, Op::NoOp)?, turn);
                        }
                        all.end()?;
                        let lock = notified.lock(Rank(3), LockKind::Shared)?;
                        lock.put_notify(&[turn], Rank(3), 0, 1)?;
                        lock.end()?;
                        let access = exposed.start(&only(world, Rank(1))?)?;
                        access.put(&[turn], Rank(1), 0)?;
                        access.end()?;
                    }
                    3 => {
                        notified.wait_notify(1, 1)?;
                        assert_eq!(notified.local().load(0), turn);
                    }
                    // Rank 0 and the others wait in the fence already.
                    _ => {}
                }
                fenced.fence()?.end()?;
                world.barrier()?;
            }
            assert_eq!(counted.lock_local()?[0], TURNS);
            for window in [fenced, exposed, notified, counted] {
                window.free()?;
            }
            Ok(())
        });
    }
}

/// Everybody sends to everybody and flushes, with no pause and no agreement: what one needs of
/// another's memory is never kept back by what that one waits for.
#[test]
fn flush_storms() {
    const TURNS: usize = 30;
    const LEN: usize = 3000;
    for way in MIXTURES {
        let spec = way.spec("flush_storms").limit(Duration::from_secs(240));
        spec.world(|world| {
            let (me, size) = (world.rank().0 as usize, world.size() as usize);
            let mut window = way.window::<u64>(world, size * LEN + 1)?;
            let epoch = window.lock_all()?;
            for turn in 1..=TURNS {
                let len = if turn % 5 == 0 { LEN } else { 1 + turn };
                let data = vec![turn as u64; len];
                for step in 0..size {
                    let target = Rank(((me + step * (turn % size + 1)) % size) as u32);
                    epoch.put(&data, target, me * LEN)?;
                    epoch.accumulate(&[1], target, size * LEN, Op::Sum)?;
                    epoch.flush(target)?;
                    let mut found = vec![0; len];
                    epoch.get(&mut found, target, me * LEN)?;
                    assert!(found == data, "turn {turn}, {target} of {way:?}");
                }
                epoch.flush_all()?;
            }
            epoch.end()?;
            world.barrier()?;
            // Each turn goes to some targets more than once and to others not at all.
            let epoch = window.lock_all()?;
            let mut total = 0;
            for target in world.ranks() {
                total += epoch.fetch_and_op(0, target, size * LEN, Op::NoOp)?;
            }
            epoch.end()?;
            assert_eq!(total, (TURNS * size * size) as u64);
            window.free()?;
            Ok(())
        });
    }
}
