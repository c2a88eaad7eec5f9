//! Updates of one word by origins on every kind of route are atomic to each other (reliability C3).

mod support;

use std::time::Duration;

use support::{Done, Spec};
use windlass::{Op, Rank, World};

/// Ranks on a VE, another VE, the host, and all that again on another node; then with windows on VEs by a loaded
/// library, and fewer turns: each update there is a message, two copies and an answer.
fn mixed(test: &'static str, turns: u64, body: impl Fn(&World, u64) -> Done) {
    let spec = Spec::new(test).nodes(2).ves(2).place("ve0:1,ve1:1,vh:1");
    let spec = spec.limit(Duration::from_secs(240));
    spec.clone().world(|world| body(world, turns));
    let native = spec.case("native").native();
    native.world(|world| body(world, turns / 8 + 1));
}

/// All ranks draw tickets from the same words; every ticket is drawn exactly once.
#[test]
fn tickets_are_unique() {
    mixed("tickets_are_unique", 400, |world, draws| {
        let size = u64::from(world.size());
        let total = (draws * size) as usize;
        let mut counters = world.allocate::<u64>(8)?;
        // Where rank r notes its tickets of target t: a bit per ticket would hide duplicates.
        let mut drawn = world.allocate::<u32>(total)?;
        let epoch = counters.lock_all()?;
        let notes = drawn.lock_all()?;
        for _ in 0..draws {
            for target in world.ranks() {
                let ticket = epoch.fetch_and_op(1u64, target, 3, Op::Sum)?;
                assert!((ticket as usize) < total, "ticket {ticket} of {total}");
                notes.accumulate(&[1], target, ticket as usize, Op::Sum)?;
            }
        }
        notes.end()?;
        epoch.end()?;
        world.barrier()?;
        let mine = counters.lock_local()?;
        assert_eq!(mine[3], draws * size, "every increment counts once");
        assert!(
            mine.iter()
                .enumerate()
                .all(|(at, &word)| at == 3 || word == 0)
        );
        mine.end()?;
        let mine = drawn.lock_local()?;
        let wrong = mine.iter().position(|&times| times != 1);
        assert_eq!(
            wrong,
            None,
            "a ticket was drawn {:?} times",
            wrong.map(|at| mine[at])
        );
        mine.end()?;
        drawn.free()?;
        counters.free()?;
        Ok(())
    });
}

/// Sums of all element types on words that all ranks change at once, by every form of update.
#[test]
fn sums_are_exact() {
    fn hammer<T>(world: &World, turns: u64, one: T, of: impl Fn(u64) -> T) -> support::Done
    where
        T: windlass::Reducible + PartialEq + std::fmt::Debug,
    {
        let mut window = world.allocate::<T>(6)?;
        let epoch = window.lock_all()?;
        let mut out = [T::zeroed(); 3];
        for turn in 0..turns {
            for target in world.ranks() {
                epoch.accumulate(&[one; 4], target, 1, Op::Sum)?;
                epoch.fetch_and_op(one, target, 2, Op::Sum)?;
                epoch.get_accumulate(&[one; 3], &mut out, target, 1, Op::Sum)?;
                if turn % 16 == 0 {
                    epoch.flush(target)?;
                }
            }
        }
        epoch.end()?;
        world.barrier()?;
        let all = turns * u64::from(world.size());
        let wanted = [0, 2 * all, 3 * all, 2 * all, all, 0].map(of);
        let mine = window.lock_local()?;
        assert_eq!(mine[..], wanted[..]);
        mine.end()?;
        window.free()?;
        Ok(())
    }

    mixed("sums_are_exact", 150, |world, turns| {
        hammer(world, turns, 1u64, |sum| sum)?;
        hammer(world, turns, 1i32, |sum| sum as i32)?;
        hammer(world, turns, 1f64, |sum| sum as f64)?;
        hammer(world, turns, 1f32, |sum| sum as f32)
    });
}

/// A counter raised by compare-and-swap alone, beside fetches that must never see it fall.
#[test]
fn swaps_lose_nothing() {
    mixed("swaps_lose_nothing", 60, |world, wins| {
        let mut window = world.allocate::<u64>(2)?;
        let epoch = window.lock_all()?;
        let mut seen = vec![0; world.size() as usize];
        for _ in 0..wins {
            for target in world.ranks() {
                let mut expected = epoch.fetch_and_op(0, target, 0, Op::NoOp)?;
                loop {
                    let last = &mut seen[target.0 as usize];
                    assert!(
                        expected >= *last,
                        "a counter fell from {last} to {expected}"
                    );
                    *last = expected;
                    let old = epoch.compare_and_swap(expected, expected + 1, target, 0)?;
                    if old == expected {
                        break;
                    }
                    expected = old;
                }
            }
        }
        epoch.end()?;
        world.barrier()?;
        let mine = window.lock_local()?;
        assert_eq!(mine[..], [wins * u64::from(world.size()), 0]);
        mine.end()?;
        window.free()?;
        Ok(())
    });
}

/// An 8-byte word that is replaced as a whole is never seen half old, half new.
#[test]
fn words_are_never_torn() {
    mixed("words_are_never_torn", 200, |world, turns| {
        let mut window = world.allocate::<u64>(1)?;
        let epoch = window.lock_all()?;
        for turn in 0..turns {
            for target in world.ranks() {
                let half = turn * u64::from(world.size()) + u64::from(world.rank().0);
                let value = half << 32 | half;
                let old = epoch.fetch_and_op(value, target, 0, Op::Replace)?;
                assert_eq!(old >> 32, old & 0xffff_ffff, "a torn word: {old:#x}");
                let now = epoch.fetch_and_op(0, target, 0, Op::NoOp)?;
                assert_eq!(now >> 32, now & 0xffff_ffff, "a torn word: {now:#x}");
            }
            let own = epoch.local().load(0);
            assert_eq!(own >> 32, own & 0xffff_ffff, "a torn word: {own:#x}");
        }
        epoch.end()?;
        world.barrier()?;
        window.free()?;
        Ok(())
    });
}

/// A read-modify-write under exclusive locks, from every kind of route.
#[test]
fn exclusive_locks_exclude() {
    mixed("exclusive_locks_exclude", 25, |world, turns| {
        let window = world.allocate::<u64>(3)?;
        for turn in 0..turns {
            for step in 0..world.size() {
                let target = Rank((world.rank().0 + step) % world.size());
                let lock = window.lock(target, windlass::LockKind::Exclusive)?;
                let mut words = [0; 3];
                lock.get(&mut words, target, 0)?;
                assert_eq!(
                    words[0], words[2],
                    "two words changed together differ: turn {turn}"
                );
                words = words.map(|word| word + 1);
                lock.put(&words[..1], target, 0)?;
                lock.put(&words[2..], target, 2)?;
                lock.end()?;
            }
        }
        world.barrier()?;
        let all = turns * u64::from(world.size());
        assert_eq!(window.local().to_vec(), [all, 0, all]);
        window.free()?;
        Ok(())
    });
}
