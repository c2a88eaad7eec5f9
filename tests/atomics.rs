//! Updates of one word by origins on every kind of route are atomic to each other (reliability
//! C3), and a flush orders a put before a later get (measured-designs 2).

mod support;

use std::time::Duration;

use support::Spec;
use windlass::{Op, Rank, World};

/// Ranks on a VE, another VE, the host, and all that again on another node.
fn mixed(test: &'static str) -> Spec {
    Spec::new(test)
        .nodes(2)
        .ves(2)
        .place("ve0:1,ve1:1,vh:1")
        .limit(Duration::from_secs(120))
}

/// All ranks draw tickets from the same words; every ticket is drawn exactly once.
#[test]
fn tickets_are_unique() {
    const DRAWS: u64 = 400;
    mixed("tickets_are_unique").world(|world| {
        let size = u64::from(world.size());
        let total = (DRAWS * size) as usize;
        let mut counters = world.allocate::<u64>(8)?;
        // Where rank r notes its tickets of target t: a bit per ticket would hide duplicates.
        let mut drawn = world.allocate::<u32>(total)?;
        let epoch = counters.lock_all()?;
        let notes = drawn.lock_all()?;
        for _ in 0..DRAWS {
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
        assert_eq!(mine[3], DRAWS * size, "every increment counts once");
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
    const TURNS: u64 = 150;

    fn hammer<T>(world: &World, one: T, of: impl Fn(u64) -> T) -> support::Done
    where
        T: windlass::Reducible + PartialEq + std::fmt::Debug,
    {
        let mut window = world.allocate::<T>(6)?;
        let epoch = window.lock_all()?;
        let mut out = [T::zeroed(); 3];
        for turn in 0..TURNS {
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
        let all = TURNS * u64::from(world.size());
        let wanted = [0, 2 * all, 3 * all, 2 * all, all, 0].map(of);
        let mine = window.lock_local()?;
        assert_eq!(mine[..], wanted[..]);
        mine.end()?;
        window.free()?;
        Ok(())
    }

    mixed("sums_are_exact").world(|world| {
        hammer(world, 1u64, |sum| sum)?;
        hammer(world, 1i32, |sum| sum as i32)?;
        hammer(world, 1f64, |sum| sum as f64)?;
        hammer(world, 1f32, |sum| sum as f32)
    });
}

/// A counter raised by compare-and-swap alone, beside fetches that must never see it fall.
#[test]
fn swaps_lose_nothing() {
    const WINS: u64 = 60;
    mixed("swaps_lose_nothing").world(|world| {
        let mut window = world.allocate::<u64>(2)?;
        let epoch = window.lock_all()?;
        let mut seen = vec![0; world.size() as usize];
        for _ in 0..WINS {
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
        assert_eq!(mine[..], [WINS * u64::from(world.size()), 0]);
        mine.end()?;
        window.free()?;
        Ok(())
    });
}

/// An 8-byte word that is replaced as a whole is never seen half old, half new.
#[test]
fn words_are_never_torn() {
    const TURNS: u64 = 200;
    mixed("words_are_never_torn").world(|world| {
        let mut window = world.allocate::<u64>(1)?;
        let epoch = window.lock_all()?;
        for turn in 0..TURNS {
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
    const TURNS: u64 = 25;
    mixed("exclusive_locks_exclude").world(|world| {
        let window = world.allocate::<u64>(3)?;
        for turn in 0..TURNS {
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
        let all = TURNS * u64::from(world.size());
        assert_eq!(window.local().to_vec(), [all, 0, all]);
        window.free()?;
        Ok(())
    });
}

/// Words of a cache line.
const LINE: usize = 8;
/// Lines whose stores delay the store that counts, and the first word of them.
///
/// In a build without optimisation the code between store and load takes longer than any store
/// waits: there is nothing to see, with or without delay. An optimised one shows half of all rounds.
const DELAY_LINES: usize = if cfg!(debug_assertions) { 1 } else { 24 };
const DELAY: usize = 64;

/// Which rounds of the store-buffering litmus saw both loads miss the other's store.
///
/// In round i both ranks put i into the other's word `x` or `y`, flush, and get the word that the
/// other one wrote; at least one of them has to find i there.
fn store_buffering(world: &World, rounds: u64, with_fence: bool) -> Result<u64, support::Failure> {
    let mut window = world.allocate::<u64>(DELAY + LINE * DELAY_LINES)?;
    let (me, other) = (world.rank(), Rank(1 - world.rank().0));
    // Rank r puts into word 8 r of rank 0, whose memory both reach: r = 0 its own, r = 1 mapped.
    let (mine, theirs) = (8 * me.0 as usize, 8 * other.0 as usize);
    let epoch = window.lock_all()?;
    // The other rank's result of each round travels through the words of rank 1.
    let mut forbidden = 0;
    let mut found = [0];
    for round in 1..=rounds {
        // Both begin a round together, without a locked instruction between it and the store.
        epoch.put(&[round], Rank(1), 16 + mine)?;
        epoch.flush(Rank(1))?;
        poll(&epoch, 16 + theirs, |word| word >= round)?;

        // Stores to lines that the other one has just written wait in this cpu's buffer, and the
        // one that counts waits behind them.
        for line in 0..DELAY_LINES {
            let at = DELAY + LINE * line + me.0 as usize;
            epoch.put(&[round], Rank(1), at)?;
        }
        epoch.put(&[round], Rank(0), mine)?;
        epoch.flush(Rank(0))?;
        if !with_fence {
            windlass_mem::sync::forget_owed();
        }
        epoch.get(&mut found, Rank(0), theirs)?;

        let missed = found[0] < round;
        epoch.put(&[round << 1 | u64::from(missed)], Rank(1), 32 + mine)?;
        epoch.flush(Rank(1))?;
        let answer = poll(&epoch, 32 + theirs, |word| word >> 1 >= round)?;
        forbidden += u64::from(missed && answer & 1 == 1);
    }
    epoch.end()?;
    world.barrier()?;
    window.free()?;
    Ok(forbidden)
}

/// Polls this long before it lets others run: a busy machine has no cpu for both ranks.
const POLLS: u32 = 2000;

/// Polls the word at `disp` of rank 1 until it satisfies `done`.
fn poll(
    epoch: &windlass::LockAll<'_, u64>,
    disp: usize,
    done: impl Fn(u64) -> bool,
) -> Result<u64, support::Failure> {
    let (mut word, mut polls) = ([0], 0);
    loop {
        epoch.get(&mut word, Rank(1), disp)?;
        if done(word[0]) {
            return Ok(word[0]);
        }
        polls += 1;
        if polls % POLLS == 0 {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// Rounds of the litmus, in batches: a machine without two free cpus is slow.
const BATCH: u64 = 100_000;

/// Runs batches until `rounds` are done, the time is up or, where asked for, one was forbidden.
fn litmus(
    world: &World,
    rounds: u64,
    with_fence: bool,
    time: Duration,
) -> Result<(u64, u64), support::Failure> {
    let mut enough = world.allocate::<u64>(1)?;
    let begin = std::time::Instant::now();
    let (mut done, mut forbidden) = (0, 0);
    loop {
        forbidden += store_buffering(world, BATCH, with_fence)?;
        done += BATCH;
        let end = done >= rounds || begin.elapsed() > time || (!with_fence && forbidden > 0);
        // Rank 0 decides for both.
        let epoch = enough.fence()?;
        if world.rank() == Rank(0) {
            epoch.put(&[u64::from(end)], Rank(1), 0)?;
            epoch.local().store(0, u64::from(end));
        }
        let epoch = epoch.next()?;
        let end = epoch.local().load(0) == 1;
        epoch.end()?;
        if end {
            break;
        }
    }
    enough.free()?;
    Ok((done, forbidden))
}

#[test]
fn a_flush_orders_a_put_before_a_get() {
    let spec = Spec::new("a_flush_orders_a_put_before_a_get").place("vh:2");
    spec.limit(Duration::from_secs(180)).world(|world| {
        let (done, forbidden) = litmus(world, 1_000_000, true, Duration::from_secs(40))?;
        assert_eq!(
            forbidden, 0,
            "in {done} rounds both ranks missed the other's put"
        );
        println!("rank {}: {done} rounds, none forbidden", world.rank());
        Ok(())
    });
}

/// The litmus can fail: with the debt forgotten, the machine shows what the fence prevents.
#[test]
fn without_the_owed_fence_the_litmus_fails() {
    let spec = Spec::new("without_the_owed_fence_the_litmus_fails").place("vh:2");
    let time = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 20 });
    let body = || {
        support::with_world(|world| {
            let (done, forbidden) = litmus(world, 10_000_000, false, time)?;
            println!("rounds={done} forbidden={forbidden}");
            Ok(())
        })
    };
    spec.limit(Duration::from_secs(180)).run(body, |report| {
        report.succeeded();
        let (rounds, forbidden) = (report.value("rounds"), report.value("forbidden"));
        let (rounds, forbidden) = (rounds.unwrap_or_default(), forbidden.unwrap_or_default());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        eprintln!("{forbidden} forbidden outcomes in {rounds} rounds on {cpus} cpu(s)");
        if forbidden == "0" {
            eprintln!("no reordering is seen here: only `cargo test --release` proves something");
        }
    });
}
