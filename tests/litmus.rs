//! Litmus programs: message passing, store buffering, load buffering, and independent reads of
//! independent writes, through every synchronisation and over every kind of route (mpi-rma 5).
//! An outcome that the memory model forbids is never seen.
//!
//! In round i every write stores i, so a value is *new* if it is i and *old* if it is less. All
//! ranks begin a round together; what they saw is judged after each batch of rounds.
//!
//! A flush on a mapped route leaves a fence to be paid before the next load (measured-designs 2);
//! two tests at the end look at that alone, one of them with the fence forgotten.
//!
//! `WLTEST_LITMUS=n` sets how many rounds each program runs on mapped routes; on posted ones it is
//! a twentieth. What is forbidden between two cpus needs two that are free, and an optimised build:
//! `WLTEST_LITMUS=100000 cargo test --release --test litmus` runs more than 10^6 rounds in all.

mod support;

use std::time::{Duration, Instant};

use support::data::Random;
use support::ways::{MIXTURES, PAIRS, Way};
use support::{Done, Failure, Spec};
use windlass::{LockAll, LockKind, Rank, Window, World};

/// Rounds between two judgements.
const BATCH: u64 = 100;

/// Polls this long before it lets others run: a busy machine has no cpu for every rank.
const POLLS: u32 = 500;

fn rounds(way: &Way) -> u64 {
    let wanted = std::env::var("WLTEST_LITMUS").ok();
    let wanted = wanted.and_then(|text| text.parse().ok());
    let rounds: u64 = wanted.unwrap_or(4 * BATCH);
    let rounds = match (way.shape, way.nodes) {
        ("mapped", 1) => rounds,
        _ => rounds / 20,
    };
    rounds.next_multiple_of(BATCH)
}

/// How long a job of `programs` may take: a posted round on a busy machine is slow.
fn limit(way: &Way, programs: u64) -> Duration {
    Duration::from_secs(240) + Duration::from_millis(programs * rounds(way) / 4)
}

/// Begins rounds: all ranks at once.
struct Pace<'w> {
    epoch: LockAll<'w, u64>,
    me: usize,
    ranks: Vec<Rank>,
    round: u64,
    jitter: Random,
}

impl<'w> Pace<'w> {
    fn new(world: &World, window: &'w mut Window<u64>) -> Result<Pace<'w>, Failure> {
        Ok(Pace {
            epoch: window.lock_all()?,
            me: world.rank().0 as usize,
            ranks: world.ranks().collect(),
            round: 0,
            jitter: Random::new(u64::from(world.rank().0)),
        })
    }

    /// The number of the round that begins: every rank has come to it.
    fn meet(&mut self) -> Result<u64, Failure> {
        self.round += 1;
        for &rank in &self.ranks {
            self.epoch.put(&[self.round], rank, self.me)?;
        }
        self.epoch.flush_all()?;
        let mine = self.epoch.local();
        for rank in 0..self.ranks.len() {
            until(|| mine.load(rank) >= self.round);
        }
        // From nothing to what a posted operation takes.
        for _ in 0..self.jitter.below(1 << self.jitter.clone().below(9)) {
            std::hint::spin_loop();
        }
        Ok(self.round)
    }
}

impl Pace<'_> {
    fn end(self) -> windlass::Result<()> {
        self.epoch.end()
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let mut polls = 0u32;
    while !done() {
        polls += 1;
        if polls.is_multiple_of(POLLS) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// A variable: a word of a rank's part.
type Var = (Rank, usize);

/// A write that is complete, and a read that is, by some synchronisation.
trait Memory {
    fn name(&self) -> &'static str;
    fn write(&self, var: Var, value: u64) -> windlass::Result<()>;
    fn read(&self, var: Var) -> windlass::Result<u64>;
}

/// Each access under a lock of its own.
struct Locks<'w>(&'w Window<u64>);

impl Memory for Locks<'_> {
    fn name(&self) -> &'static str {
        "locks"
    }

    fn write(&self, (rank, word): Var, value: u64) -> windlass::Result<()> {
        let lock = self.0.lock(rank, LockKind::Exclusive)?;
        lock.put(&[value], rank, word)?;
        lock.end()
    }

    fn read(&self, (rank, word): Var) -> windlass::Result<u64> {
        let lock = self.0.lock(rank, LockKind::Shared)?;
        let mut found = [0];
        lock.get(&mut found, rank, word)?;
        lock.end()?;
        Ok(found[0])
    }
}

/// Puts with a flush, and gets, in one epoch.
struct Flushes<'w>(LockAll<'w, u64>);

impl Memory for Flushes<'_> {
    fn name(&self) -> &'static str {
        "flushes"
    }

    fn write(&self, (rank, word): Var, value: u64) -> windlass::Result<()> {
        self.0.put(&[value], rank, word)?;
        self.0.flush(rank)
    }

    fn read(&self, (rank, word): Var) -> windlass::Result<u64> {
        let mut found = [0];
        self.0.get(&mut found, rank, word)?;
        Ok(found[0])
    }
}

/// What a rank saw in a round: is what it read new?
type Seen = [bool; 2];

/// A program of the litmus.
struct Program {
    name: &'static str,
    /// What rank `me` does in a round, with the variables `x` and `y`.
    act: fn(&dyn Memory, me: u32, x: Var, y: Var, round: u64) -> windlass::Result<Seen>,
    forbidden: fn(&[Seen]) -> bool,
}

const NOTHING: Seen = [false; 2];

/// Of two ranks.
const PROGRAMS: [Program; 3] = [
    Program {
        name: "message passing",
        act: |memory, me, data, flag, round| {
            if me == 0 {
                memory.write(data, round)?;
                memory.write(flag, round)?;
                return Ok(NOTHING);
            }
            let flag = memory.read(flag)? == round;
            Ok([flag, memory.read(data)? == round])
        },
        forbidden: |seen| seen[1] == [true, false],
    },
    Program {
        name: "store buffering",
        act: |memory, me, x, y, round| {
            let (mine, theirs) = if me == 0 { (x, y) } else { (y, x) };
            memory.write(mine, round)?;
            Ok([memory.read(theirs)? == round, false])
        },
        forbidden: |seen| !seen[0][0] && !seen[1][0],
    },
    Program {
        name: "load buffering",
        act: |memory, me, x, y, round| {
            let (mine, theirs) = if me == 0 { (x, y) } else { (y, x) };
            let found = memory.read(theirs)? == round;
            memory.write(mine, round)?;
            Ok([found, false])
        },
        forbidden: |seen| seen[0][0] && seen[1][0],
    },
];

/// Of four ranks: 0 and 1 write, 2 and 3 read, in either order.
const INDEPENDENT: [Program; 1] = [Program {
    name: "independent reads of independent writes",
    act: |memory, me, x, y, round| {
        let (first, second) = if me % 2 == 0 { (x, y) } else { (y, x) };
        if me < 2 {
            memory.write(first, round)?;
            return Ok(NOTHING);
        }
        let found = memory.read(first)? == round;
        Ok([found, memory.read(second)? == round])
    },
    forbidden: |seen| seen[2] == [true, false] && seen[3] == [true, false],
}];

/// Words between two variables: lines of their own.
const APART: usize = 16;

/// Where the variables of a batch lie: with one rank or with two, by turns.
fn homes(batch: u64, size: u32) -> [Rank; 2] {
    match batch % 4 {
        0 => [Rank(1), Rank(1)],
        1 => [Rank(0), Rank(1)],
        2 => [Rank(1), Rank(0)],
        _ => [Rank(size - 1), Rank(0)],
    }
}

/// Runs a program and judges it.
fn run(
    world: &World,
    way: &Way,
    program: &Program,
    pace: &mut Pace<'_>,
    memory: &dyn Memory,
) -> Done {
    let (me, size) = (world.rank(), world.size());
    let mut judgement = way.window::<u8>(world, BATCH as usize * size as usize)?;
    let mut outcomes = [0u64; 3];
    for batch in 0..rounds(way) / BATCH {
        let [home_x, home_y] = homes(batch, size);
        // Other words for each batch, on other lines.
        let word = APART * (batch % 8) as usize;
        let (x, y) = ((home_x, word), (home_y, word + APART / 2));
        let mut saw = Vec::with_capacity(BATCH as usize);
        for _ in 0..BATCH {
            let round = pace.meet()?;
            let seen = (program.act)(memory, me.0, x, y, round)?;
            saw.push(u8::from(seen[0]) | u8::from(seen[1]) << 1);
        }
        let epoch = judgement.fence()?;
        epoch.put(&saw, Rank(0), BATCH as usize * me.0 as usize)?;
        epoch.end()?;
        if me == Rank(0) {
            let all = judgement.local().to_vec();
            for round in 0..BATCH as usize {
                let seen = all.iter().skip(round).step_by(BATCH as usize);
                let seen: Vec<Seen> = seen.map(|bits| [bits & 1 != 0, bits & 2 != 0]).collect();
                let forbidden = (program.forbidden)(&seen);
                assert!(!forbidden, "{}: {seen:?} in {way:?}", program.name);
                let new = seen.iter().flatten().filter(|&&new| new).count();
                outcomes[new.min(2)] += 1;
            }
        }
    }
    judgement.free()?;
    if me == Rank(0) {
        println!(
            "{} by {} over {}: nothing, one, more seen {outcomes:?} times",
            program.name,
            memory.name(),
            way.name
        );
    }
    Ok(())
}

fn by_locks_and_flushes(test: &'static str, way: Way, programs: &'static [Program]) {
    let spec = way.spec(test).limit(limit(&way, 2 * programs.len() as u64));
    let body = |world: &World| {
        let mut meeting = way.window::<u64>(world, world.size() as usize)?;
        let mut window = way.window::<u64>(world, 9 * APART)?;
        let mut pace = Pace::new(world, &mut meeting)?;
        for program in programs {
            run(world, &way, program, &mut pace, &Locks(&window))?;
            world.barrier()?;
            let flushes = Flushes(window.lock_all()?);
            run(world, &way, program, &mut pace, &flushes)?;
            flushes.0.end()?;
            world.barrier()?;
        }
        pace.end()?;
        window.free()?;
        meeting.free()?;
        Ok(())
    };
    spec.run(
        || support::with_world(body),
        |report| {
            report.succeeded();
            let text = report.outcome.stdout_text();
            let told = text.lines().filter(|line| line.contains(" over "));
            told.for_each(|line| eprintln!("{line}"));
        },
    );
}

#[test]
fn two_ranks_by_locks_and_flushes() {
    for way in PAIRS {
        by_locks_and_flushes("two_ranks_by_locks_and_flushes", way, &PROGRAMS);
    }
}

#[test]
fn four_ranks_by_locks_and_flushes() {
    for way in [MIXTURES[0], MIXTURES[1], MIXTURES[3], MIXTURES[4]] {
        by_locks_and_flushes("four_ranks_by_locks_and_flushes", way, &INDEPENDENT);
    }
}

/// Between fences nothing is left to chance: what was put before a fence is seen by all after it,
/// and nothing that is put after it is seen before. So all programs are one.
#[test]
fn by_fences() {
    for way in PAIRS.into_iter().chain([MIXTURES[1], MIXTURES[2]]) {
        way.spec("by_fences").limit(limit(&way, 1)).world(|world| {
            let size = world.size() as usize;
            let mut window = way.window::<u64>(world, size * APART)?;
            let mut epoch = window.fence()?;
            let mut found = vec![0; 1];
            for round in 1..=rounds(&way) {
                let target = Rank(((world.rank().0 as u64 + round) % size as u64) as u32);
                let mut look = |epoch: &windlass::Fence<'_, u64>, wanted: u64| -> Done {
                    for origin in 0..size {
                        assert_eq!(epoch.local().load(origin * APART), wanted, "{way:?}");
                        epoch.get(&mut found, target, origin * APART)?;
                        assert_eq!(found, [wanted], "get of {target} in {way:?}");
                    }
                    Ok(())
                };
                look(&epoch, round - 1)?;
                epoch = epoch.next()?;
                for rank in world.ranks() {
                    epoch.put(&[round], rank, world.rank().0 as usize * APART)?;
                }
                epoch = epoch.next()?;
                look(&epoch, round)?;
            }
            epoch.end()?;
            window.free()?;
            Ok(())
        });
    }
}

/// The same with accesses and exposures: what was put in an access is seen after the wait, and not
/// before the post.
#[test]
fn by_accesses() {
    for way in PAIRS.into_iter().chain([MIXTURES[1], MIXTURES[2]]) {
        let spec = way.spec("by_accesses").limit(limit(&way, 1));
        spec.world(|world| {
            let size = world.size() as usize;
            let window = way.window::<u64>(world, size * APART)?;
            let all = world.group();
            let look = |wanted: u64| {
                for origin in 0..size {
                    assert_eq!(window.local().load(origin * APART), wanted, "{way:?}");
                }
            };
            let mut found = [0];
            for round in 1..=rounds(&way) {
                look(round - 1);
                let exposure = window.post(&all)?;
                let access = window.start(&all)?;
                for rank in world.ranks() {
                    let mine = world.rank().0 as usize * APART;
                    // Only this rank writes it, and its last round is complete.
                    access.get(&mut found, rank, mine)?;
                    assert_eq!(found, [round - 1], "get of {rank} in {way:?}");
                    access.put(&[round], rank, mine)?;
                }
                access.end()?;
                exposure.wait()?;
                look(round);
            }
            window.free()?;
            Ok(())
        });
    }
}

/// Message passing by a notification; store and load buffering of two of them; and message passing
/// over a third rank, which only passes the notification on.
#[test]
fn by_notifications() {
    const IDS: [u32; 4] = [0, 1, 2, 3];
    for way in PAIRS.into_iter().chain([MIXTURES[0], MIXTURES[1]]) {
        let spec = way.spec("by_notifications").limit(limit(&way, 4));
        spec.world(|world| {
            let mut meeting = way.window::<u64>(world, world.size() as usize)?;
            let window = way.window::<u64>(world, 4 * APART)?;
            let (me, other) = (world.rank().0, Rank(1 ^ (world.rank().0 & 1)));
            let mut pace = Pace::new(world, &mut meeting)?;
            let [passed, stored, loaded, over] = IDS;
            for _ in 0..rounds(&way) / BATCH {
                let mut missed = [0u64; BATCH as usize];
                for missed in &mut missed {
                    let round = pace.meet()?;
                    if me > 1 {
                        continue;
                    }
                    let lock = window.lock(other, LockKind::Shared)?;
                    // Message passing, both ways at once.
                    lock.put_notify(&[round], other, 0, passed)?;
                    window.wait_notify(passed, 1)?;
                    assert_eq!(window.local().load(0), round, "{way:?}");
                    // Store buffering: what was flushed is there when one looks.
                    lock.put_notify(&[], other, 0, stored)?;
                    lock.flush(other)?;
                    *missed = u64::from(window.notified(stored)? == 0);
                    window.wait_notify(stored, 1)?;
                    lock.end()?;
                }
                for missed in &mut missed {
                    pace.meet()?;
                    if me > 1 {
                        continue;
                    }
                    // Load buffering: one of the two is first.
                    let lock = window.lock(other, LockKind::Shared)?;
                    let found = window.notified(loaded)?;
                    lock.put_notify(&[], other, 0, loaded)?;
                    lock.end()?;
                    *missed |= found << 1;
                    window.wait_notify(loaded, 1)?;
                }
                // Both tell each other: forbidden is what both say of the same round.
                let mut both = way.window::<u64>(world, BATCH as usize)?;
                let epoch = both.fence()?;
                if me < 2 {
                    epoch.put(&missed, other, 0)?;
                }
                epoch.end()?;
                let theirs = both.local().to_vec();
                let forbidden = missed.iter().zip(&theirs).filter(|(a, b)| *a & *b != 0);
                assert_eq!(forbidden.count(), 0, "{way:?}");
                both.free()?;
                if world.size() > 2 {
                    pass_on(world, &window, pace.meet()?, over)?;
                }
            }
            pace.end()?;
            window.free()?;
            meeting.free()?;
            Ok(())
        });
    }
}

/// Rank 0 puts to rank 2, completes that, and notifies rank 1, which notifies rank 2.
fn pass_on(world: &World, window: &Window<u64>, round: u64, id: u32) -> Done {
    let last = Rank(2);
    for turn in 1..=BATCH {
        let value = round << 16 | turn;
        match world.rank().0 {
            0 => {
                let data = window.lock(last, LockKind::Shared)?;
                let news = window.lock(Rank(1), LockKind::Shared)?;
                data.put(&[value], last, 2 * APART)?;
                data.flush(last)?;
                news.put_notify(&[], Rank(1), 0, id)?;
                window.wait_notify(id, 1)?;
            }
            1 => {
                window.wait_notify(id, 1)?;
                let news = window.lock(last, LockKind::Shared)?;
                news.put_notify(&[], last, 0, id)?;
            }
            2 => {
                window.wait_notify(id, 1)?;
                assert_eq!(window.local().load(2 * APART), value);
                let news = window.lock(Rank(0), LockKind::Shared)?;
                news.put_notify(&[], Rank(0), 0, id)?;
            }
            _ => {}
        }
    }
    Ok(())
}

// Store buffering where the machine shows it best.

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
fn store_buffering(world: &World, rounds: u64, with_fence: bool) -> Result<u64, Failure> {
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

/// Polls the word at `disp` of rank 1 until it satisfies `done`.
fn poll(epoch: &LockAll<'_, u64>, disp: usize, done: impl Fn(u64) -> bool) -> Result<u64, Failure> {
    let mut word = [0];
    let mut polled = Ok(());
    until(|| {
        polled = epoch.get(&mut word, Rank(1), disp);
        polled.is_err() || done(word[0])
    });
    polled?;
    Ok(word[0])
}

/// Rounds of this litmus, in batches: a machine without two free cpus is slow. A build without
/// optimisation proves little and runs few.
const BUFFERED: u64 = if cfg!(debug_assertions) {
    10_000
} else {
    100_000
};

/// Runs batches until `rounds` are done, the time is up or, without the fence, one was forbidden.
fn litmus(
    world: &World,
    rounds: u64,
    with_fence: bool,
    time: Duration,
) -> Result<(u64, u64), Failure> {
    let mut enough = world.allocate::<u64>(1)?;
    let begin = Instant::now();
    let (mut done, mut forbidden) = (0, 0);
    loop {
        forbidden += store_buffering(world, BUFFERED, with_fence)?;
        done += BUFFERED;
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
        let (done, forbidden) = litmus(world, 10 * BUFFERED, true, Duration::from_secs(40))?;
        assert_eq!(
            forbidden, 0,
            "in {done} rounds both ranks missed the other's put"
        );
        println!("rank {}: {done} rounds, none forbidden", world.rank());
        Ok(())
    });
}

/// The litmus can fail: with the debt forgotten, the machine shows what the fence prevents. An
/// optimised build on two cpus has to show it, in however many rounds.
#[test]
fn without_the_owed_fence_the_litmus_fails() {
    let spec = Spec::new("without_the_owed_fence_the_litmus_fails").place("vh:2");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let shows = !cfg!(debug_assertions) && cpus >= 2;
    let time = if shows {
        Duration::MAX
    } else {
        Duration::from_secs(2)
    };
    let body = || {
        support::with_world(|world| {
            let (done, forbidden) = litmus(world, 100 * BUFFERED, false, time)?;
            println!("rounds={done} forbidden={forbidden}");
            Ok(())
        })
    };
    spec.limit(Duration::from_secs(180)).run(body, |report| {
        report.succeeded();
        let (rounds, forbidden) = (report.value("rounds"), report.value("forbidden"));
        let (rounds, forbidden) = (rounds.unwrap_or_default(), forbidden.unwrap_or_default());
        eprintln!("{forbidden} forbidden outcomes in {rounds} rounds on {cpus} cpu(s)");
        if forbidden == "0" {
            let text = "no reordering is seen: the litmus proves nothing";
            assert!(!shows, "{text}");
            eprintln!("{text} here, only with `cargo test --release` on two cpus");
        }
    });
}
