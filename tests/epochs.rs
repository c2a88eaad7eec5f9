//! Collective calls of several ranks: fences, creation that fails alike, ranks that leave.

mod support;

use std::time::Duration;

use support::{Done, Spec};
use windlass::{Error, ErrorClass, Hints, LockKind, Rank, World};

fn mixed(test: &'static str) -> Spec {
    Spec::new(test)
        .nodes(2)
        .ves(1)
        .place("ve0:1,vh:1")
        .limit(Duration::from_secs(240))
}

/// What a fence promises: after it everything is there, in memory allocated and lent, of sizes
/// that differ per rank, none among them.
#[test]
fn a_fence_completes_everything() {
    const TURNS: u64 = 50;
    mixed("a_fence_completes_everything").world(|world| {
        let me = world.rank().0 as usize;
        let size = world.size() as usize;
        let (own, lent) = (size * (me + 1), vec![0u64; size * me]);
        let mut window = world.allocate::<u64>(own)?;
        let mut created = world.create(lent)?;
        let mut first = window.fence()?;
        let mut second = created.fence()?;
        for turn in 1..=TURNS {
            for target in world.ranks() {
                let value = turn * 1000 + me as u64;
                first.put(&[value], target, size * target.0 as usize + me)?;
                if target.0 > 0 {
                    second.put(&[value], target, me)?;
                } else {
                    let refused = second.put(&[value], target, me).unwrap_err();
                    assert_eq!(refused.class(), ErrorClass::RmaRange);
                }
            }
            first = first.next()?;
            second = second.next()?;
            for origin in 0..size {
                let value = turn * 1000 + origin as u64;
                assert_eq!(first.local().load(size * me + origin), value, "turn {turn}");
                if me > 0 {
                    assert_eq!(second.local().load(origin), value, "turn {turn}, lent");
                }
            }
            first = first.next()?;
            second = second.next()?;
        }
        first.end()?;
        second.end()?;
        let back = created.free()?;
        assert_eq!(back.len(), size * me);
        assert!(
            back.iter()
                .take(size)
                .enumerate()
                .all(|(at, &v)| v == TURNS * 1000 + at as u64)
        );
        window.free()?;
        Ok(())
    });
}

/// A creation that one rank cannot take part in fails on every rank, and the next one works.
#[test]
fn creation_fails_alike() {
    mixed("creation_fails_alike").world(|world| {
        let odd = world.rank() == Rank(2);
        let len = if odd { usize::MAX / 64 } else { 100 };
        let error = world.allocate::<u64>(len).map(drop).unwrap_err();
        if odd {
            assert_eq!(error.class(), ErrorClass::NoMem, "{error:?}");
        } else {
            assert!(format!("{error:?}").contains("rank 2"), "{error:?}");
        }
        let error = if odd {
            world.allocate::<u32>(4).map(drop).unwrap_err()
        } else {
            world.allocate::<u64>(4).map(drop).unwrap_err()
        };
        assert!(matches!(error, Error::Element { rank: 2, .. }), "{error:?}");
        assert_eq!(error.class(), ErrorClass::Type);
        let mut window = world.allocate::<u64>(4)?;
        let epoch = window.fence()?;
        for target in world.ranks() {
            epoch.put(&[7], target, 3)?;
        }
        epoch.end()?;
        assert_eq!(window.local().load(3), 7);
        window.free()?;
        Ok(())
    });
}

/// Rank 1 leaves by `leave`; the others' next synchronisation names it, and the job goes on.
fn one_leaves(world: &World, leave: impl FnOnce(windlass::Window<u64>)) -> Done {
    let mut window = world.allocate::<u64>(4)?;
    if world.rank() == Rank(1) {
        leave(window);
    } else {
        let error = match window.fence() {
            Ok(epoch) => epoch.end().unwrap_err(),
            Err(error) => error,
        };
        assert!(
            matches!(error, Error::Departed { rank: 1, .. }),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::RmaSync);
        drop(window);
    }
    let mut next = world.allocate::<u64>(4)?;
    next.fence()?.end()?;
    next.free()?;
    Ok(())
}

#[test]
fn a_dropped_fence_guard_has_left() {
    mixed("a_dropped_fence_guard_has_left").world(|world| {
        one_leaves(world, |mut window| {
            drop(window.fence().expect("all ranks open it"));
            assert!(matches!(
                window.fence(),
                Err(Error::Departed { rank: 1, .. })
            ));
        })
    });
}

#[test]
fn a_dropped_window_has_left() {
    mixed("a_dropped_window_has_left").world(|world| one_leaves(world, drop));
}

/// Hints are agreed among those of the window: with one gone that is an error on all others, and the
/// calls that it makes meanwhile are not disturbed.
#[test]
fn hints_are_set_with_those_who_are_left() {
    let spec = |case: &str| Spec::new("hints_are_set_with_those_who_are_left").case(case);
    for spec in [spec("one node").ranks(3), spec("three").nodes(3).ranks(3)] {
        spec.world(|world| {
            let mut window = world.allocate::<u64>(4)?;
            let hints = Hints::new().with("no_locks", "true");
            window.set_hints(&hints)?;
            let refused = window.lock(Rank(0), LockKind::Shared).map(drop);
            assert_eq!(refused.unwrap_err().class(), ErrorClass::RmaSync);
            window.set_hints(&hints.with("no_locks", "false"))?;
            window.lock(Rank(0), LockKind::Exclusive)?.end()?;
            world.barrier()?;
            if world.rank() == Rank(1) {
                drop(window);
            } else {
                let error = window.set_hints(&Hints::new()).unwrap_err();
                let left = matches!(error, Error::Departed { rank: 1, .. });
                assert!(left, "{error:?}");
            }
            world.barrier()?;
            let mut other = world.allocate::<u64>(4)?;
            other.fence()?.end()?;
            other.free()?;
            Ok(())
        });
    }
}

/// Memory of a dropped window is not used again while peers may still write to it.
#[test]
fn memory_of_a_dropped_window_stays() {
    mixed("memory_of_a_dropped_window_stays").world(|world| {
        let mut window = world.allocate::<u64>(512)?;
        let left = world.rank() == Rank(0);
        if left {
            drop(window);
            let mut block = world.buffer::<u64>(512)?;
            block.fill(5);
            world.barrier()?;
            world.barrier()?;
            assert!(block.iter().all(|&v| v == 5), "somebody else's window");
        } else {
            world.barrier()?;
            let epoch = window.lock_all()?;
            epoch.put(&[9; 512], Rank(0), 0)?;
            epoch.end()?;
            world.barrier()?;
            drop(window);
        }
        Ok(())
    });
}

/// Requests may outlive their epoch; dropped ones disturb nobody.
#[test]
fn requests_outlive_their_epoch() {
    mixed("requests_outlive_their_epoch").world(|world| {
        let len = 40_000;
        let mut window = world.allocate::<u64>(len)?;
        let right = Rank((world.rank().0 + 1) % world.size());
        let mut block = world.buffer::<u64>(len)?;
        block.fill(u64::from(right.0) + 1);
        let epoch = window.lock_all()?;
        let put = epoch.rput(block, right, 0)?;
        epoch.end()?;
        let block = put.wait()?;
        assert_eq!(block.len(), len);
        world.barrier()?;
        assert_eq!(window.local().load(len - 1), u64::from(world.rank().0) + 1);
        let epoch = window.lock_all()?;
        for _ in 0..10 {
            drop(epoch.rget(world.buffer::<u64>(len)?, right, 0)?);
        }
        let block = epoch.rget(block, right, 0)?.wait()?;
        assert!(block.iter().all(|&v| v == u64::from(right.0) + 1));
        epoch.end()?;
        world.barrier()?;
        window.free()?;
        Ok(())
    });
}

/// One rank closes while the others open the next epoch: the fence fails on all, and nobody has a
/// plain slice of memory that another may write.
fn disagreement(world: &World) -> Done {
    for odd in world.ranks() {
        let mut window = world.allocate::<u64>(4)?;
        window.fence()?.next()?.next()?.end()?;
        let epoch = window.fence()?;
        let error = if world.rank() == odd {
            epoch.end().map(drop).unwrap_err()
        } else {
            epoch.next().map(drop).unwrap_err()
        };
        assert!(matches!(error, Error::Disagree { .. }), "{error:?}");
        assert_eq!(error.class(), ErrorClass::RmaSync);
        assert!(matches!(window.lock_local(), Err(Error::Epoch { .. })));
        // The epoch is what it was: all agree on how to go on.
        window.fence()?.end()?;
        window.lock_local()?[0] = 1;
        window.free()?;
    }
    Ok(())
}

#[test]
fn ranks_that_disagree_are_told_by_flags() {
    let spec = Spec::new("ranks_that_disagree_are_told_by_flags").ranks(2);
    spec.world(disagreement);
}

#[test]
fn ranks_that_disagree_are_told_by_counter() {
    let spec = Spec::new("ranks_that_disagree_are_told_by_counter").ranks(5);
    spec.world(disagreement);
}

#[test]
fn ranks_that_disagree_are_told_between_nodes() {
    let spec = Spec::new("ranks_that_disagree_are_told_between_nodes").ranks(5);
    spec.nodes(5)
        .limit(Duration::from_secs(240))
        .world(disagreement);
}

#[test]
fn ranks_that_disagree_are_told_in_mixtures() {
    mixed("ranks_that_disagree_are_told_in_mixtures").world(disagreement);
}
