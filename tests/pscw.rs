//! Post, start, complete and wait between groups of ranks, over every kind of route (mpi-rma 4,
//! post/start/complete/wait).

mod support;

use std::time::Duration;

use support::data::Random;
use support::ways::{MIXTURES, PAIRS};
use support::{Done, Failure, Spec};
use windlass::{
    AccessState, Error, ErrorClass, Exposure, ExposureState, Group, LockKind, Op, Rank, Window,
    World,
};

fn neighbour(world: &World, by: u32) -> Rank {
    Rank((world.rank().0 + by) % world.size())
}

fn group_of(world: &World, ranks: &[Rank]) -> Result<Group, Failure> {
    Ok(world.group().incl(ranks)?)
}

/// Ends an exposure by asking again and again.
fn poll(mut exposure: Exposure<'_, u64>) -> Done {
    while let Some(open) = exposure.test()? {
        std::thread::yield_now();
        exposure = open;
    }
    Ok(())
}

// Rounds between groups that change.

/// What each origin has of every part: words to put, words to get, a word to fetch.
const PUT: usize = 5;
const GET: usize = 3;
const SLOT: usize = PUT + GET + 1;

/// Who accesses whom in a round, and with what: alike on all ranks.
struct Round {
    number: u64,
    seed: u64,
    /// `access[origin][target]`.
    access: Vec<Vec<bool>>,
}

impl Round {
    fn draw(seed: u64, number: u64, size: usize) -> Round {
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        // From nobody to everybody.
        let dense = random.below(6);
        let mut row = || (0..size).map(|_| random.below(5) < dense).collect();
        Round {
            number,
            seed,
            access: (0..size).map(|_| row()).collect(),
        }
    }

    fn random(&self, origin: usize, target: usize) -> Random {
        let pair = (origin * 64 + target) as u64;
        Random::new(self.seed ^ self.number << 24 ^ pair << 12)
    }

    fn targets(&self, origin: usize) -> Vec<Rank> {
        let row = self.access[origin].iter();
        let hit = row.enumerate().filter(|(_, access)| **access);
        hit.map(|(target, _)| Rank(target as u32)).collect()
    }

    fn origins(&self, target: usize) -> Vec<Rank> {
        let all = 0..self.access.len();
        let hit = all.filter(|&origin| self.access[origin][target]);
        hit.map(|origin| Rank(origin as u32)).collect()
    }

    /// What the owner stores where `origin` will get it.
    fn stored(&self, target: usize, origin: usize, word: usize) -> u64 {
        self.number << 32 | (target * 10_000 + origin * 100 + word) as u64
    }
}

/// The parts of all ranks, as they must be.
struct Model {
    parts: Vec<Vec<u64>>,
}

/// The word of a part that all origins add to.
fn common(size: usize) -> usize {
    size * SLOT
}

impl Model {
    fn new(size: usize) -> Model {
        Model {
            parts: vec![vec![0; common(size) + 1]; size],
        }
    }

    /// The round on the model. Gives what `me` fetches, by target.
    fn apply(&mut self, round: &Round, me: usize) -> Vec<u64> {
        let size = self.parts.len();
        let mut fetched = Vec::new();
        for origin in 0..size {
            for target in round.targets(origin) {
                let target = target.0 as usize;
                let mut random = round.random(origin, target);
                let slot = origin * SLOT;
                let (from, len, value) = Access::draw(&mut random);
                let part = &mut self.parts[target];
                part[slot + from..slot + from + len].fill(value);
                part[common(size)] = part[common(size)].wrapping_add(value);
                let word = &mut part[slot + PUT + GET];
                if origin == me {
                    fetched.push(*word);
                }
                *word = word.wrapping_add(value);
            }
        }
        for target in 0..size {
            for origin in 0..size {
                for word in 0..GET {
                    self.parts[target][origin * SLOT + PUT + word] =
                        round.stored(target, origin, word);
                }
            }
        }
        fetched
    }
}

struct Access;

impl Access {
    /// First word of the put, how many, and the value.
    fn draw(random: &mut Random) -> (usize, usize, u64) {
        let from = random.below(PUT);
        (from, 1 + random.below(PUT - from), random.bits())
    }
}

/// One rank's side of a round.
fn play(world: &World, window: &Window<u64>, round: &Round, fetched: &[u64]) -> Done {
    let (me, size) = (world.rank().0 as usize, world.size() as usize);
    // Where this rank is slow.
    let mut pace = Random::new(round.seed ^ round.number << 8 ^ me as u64);
    let mut sometimes_late = || {
        if pace.one_in(6) {
            std::thread::sleep(Duration::from_micros(pace.below(700) as u64));
        }
    };
    sometimes_late();
    for origin in 0..size {
        for word in 0..GET {
            let at = origin * SLOT + PUT + word;
            window.local().store(at, round.stored(me, origin, word));
        }
    }
    let exposure = window.post(&group_of(world, &round.origins(me))?)?;
    sometimes_late();
    let targets = round.targets(me);
    let access = window.start(&group_of(world, &targets)?)?;
    for (&target, &fetched) in targets.iter().zip(fetched) {
        let there = target.0 as usize;
        let (from, len, value) = Access::draw(&mut round.random(me, there));
        let slot = me * SLOT;
        access.put(&vec![value; len], target, slot + from)?;
        access.accumulate(&[value], target, common(size), Op::Sum)?;
        let mut words = [0; GET];
        access.get(&mut words, target, slot + PUT)?;
        for (word, &found) in words.iter().enumerate() {
            assert_eq!(found, round.stored(there, me, word), "get of {target}");
        }
        let old = access.fetch_and_op(value, target, slot + PUT + GET, Op::Sum)?;
        assert_eq!(old, fetched, "fetch of {target}");
    }
    for target in world.ranks().filter(|rank| !targets.contains(rank)) {
        let refused = access.put(&[0], target, 0).unwrap_err();
        assert_eq!(refused.class(), ErrorClass::RmaSync, "{refused:?}");
    }
    sometimes_late();
    access.end()?;
    if round.number.is_multiple_of(2) {
        exposure.wait()?;
    } else {
        poll(exposure)?;
    }
    Ok(())
}

/// Rounds between random groups: empty ones, all ranks, oneself; early posts and late starts;
/// access and exposure at once. After every wait the whole part is as the model says.
#[test]
fn groups_that_change() {
    const ROUNDS: u64 = 60;
    for way in MIXTURES {
        let spec = way.spec("groups_that_change");
        spec.limit(Duration::from_secs(240)).world(|world| {
            let (me, size) = (world.rank().0 as usize, world.size() as usize);
            let window = way.window::<u64>(world, common(size) + 1)?;
            let mut model = Model::new(size);
            for number in 1..=ROUNDS {
                let round = Round::draw(7, number, size);
                let fetched = model.apply(&round, me);
                play(world, &window, &round, &fetched)
                    .map_err(|error| format!("round {number}: {}", support::chain(&*error)))?;
                let found = window.local().to_vec();
                assert_eq!(found, model.parts[me], "after round {number} of {way:?}");
            }
            window.free()?;
            Ok(())
        });
    }
}

// Rings, halos and bursts.

/// Every rank puts a block to its right neighbour, round by round.
#[test]
fn a_ring() {
    const ROUNDS: u64 = 100;
    const LEN: usize = 300;
    for way in MIXTURES {
        way.spec("a_ring").world(|world| {
            let window = way.window::<u64>(world, LEN + 2)?;
            let (left, right) = (neighbour(world, world.size() - 1), neighbour(world, 1));
            let (origins, targets) = (group_of(world, &[left])?, group_of(world, &[right])?);
            let value = |rank: Rank, round: u64| round * 100 + u64::from(rank.0);
            for round in 1..=ROUNDS {
                let exposure = window.post(&origins)?;
                let access = window.start(&targets)?;
                access.put(&[value(world.rank(), round); LEN], right, 1)?;
                access.end()?;
                exposure.wait()?;
                let mut wanted = vec![value(left, round); LEN + 2];
                (wanted[0], wanted[LEN + 1]) = (0, 0);
                assert_eq!(window.local().to_vec(), wanted, "round {round} of {way:?}");
            }
            window.free()?;
            Ok(())
        });
    }
}

/// Heat in a rod that is cut into the ranks' parts: their edges travel to both neighbours, the
/// ends have one only. The result is that of one process, bit by bit.
#[test]
fn a_halo() {
    const STEPS: usize = 60;
    const CELLS: usize = 40;
    fn step(rod: &[f64]) -> Vec<f64> {
        let inner = rod
            .windows(3)
            .map(|w| w[1] + 0.25 * (w[0] - 2.0 * w[1] + w[2]));
        inner.collect()
    }
    for way in MIXTURES {
        way.spec("a_halo").world(|world| {
            let (me, size) = (world.rank().0 as usize, world.size() as usize);
            let mut random = Random::new(11);
            let whole: Vec<f64> = (0..CELLS * size)
                .map(|_| random.below(1000) as f64)
                .collect();
            let window = way.window::<f64>(world, CELLS + 2)?;
            window
                .local()
                .write(1, &whole[me * CELLS..(me + 1) * CELLS])?;
            let left = me.checked_sub(1).map(|rank| Rank(rank as u32));
            let right = (me + 1 < size).then_some(Rank(me as u32 + 1));
            let ranks: Vec<Rank> = left.into_iter().chain(right).collect();
            let neighbours = group_of(world, &ranks)?;
            for _ in 0..STEPS {
                let exposure = window.post(&neighbours)?;
                let access = window.start(&neighbours)?;
                let rod = window.local();
                for (target, edge, to) in [(left, 1, CELLS + 1), (right, CELLS, 0)] {
                    if let Some(target) = target {
                        access.put(&[rod.load(edge)], target, to)?;
                    }
                }
                access.end()?;
                exposure.wait()?;
                window.local().write(1, &step(&window.local().to_vec()))?;
            }
            let mut serial = whole;
            for _ in 0..STEPS {
                let padded: Vec<f64> = [0.0].into_iter().chain(serial).chain([0.0]).collect();
                serial = step(&padded);
            }
            let found = window.local().to_vec();
            assert_eq!(found[1..=CELLS], serial[me * CELLS..(me + 1) * CELLS]);
            window.free()?;
            Ok(())
        });
    }
}

/// A thousand rounds between two ranks without any other synchronisation: the target sees each
/// round's data after its wait, neither the last's nor the next's.
#[test]
fn a_burst_of_rounds() {
    const ROUNDS: u64 = 1000;
    for way in PAIRS {
        way.spec("a_burst_of_rounds").world(|world| {
            let window = way.window::<u64>(world, 3)?;
            let (origin, target) = (Rank(0), Rank(1));
            let other = group_of(world, &[neighbour(world, 1)])?;
            for round in 1..=ROUNDS {
                if world.rank() == origin {
                    let access = window.start(&other)?;
                    access.put(&[round, round * round], target, 1)?;
                    access.end()?;
                } else {
                    let exposure = window.post(&other)?;
                    match round % 3 {
                        0 => poll(exposure)?,
                        _ => exposure.wait()?,
                    }
                    let found = window.local().to_vec();
                    assert_eq!(found, [0, round, round * round], "{way:?}");
                }
            }
            window.free()?;
            Ok(())
        });
    }
}

/// All to one, then one to all, many times over, and no barrier between.
#[test]
fn fans_in_and_out() {
    const ROUNDS: u64 = 60;
    for way in MIXTURES {
        way.spec("fans_in_and_out").world(|world| {
            let size = world.size() as usize;
            let window = way.window::<u64>(world, size)?;
            let (me, hub) = (world.rank(), Rank(0));
            let others = world.group().excl(&[hub])?;
            let hubs = group_of(world, &[hub])?;
            for round in 1..=ROUNDS {
                let value = |rank: u64| round * 1000 + rank;
                if me == hub {
                    let exposure = window.post(&others)?;
                    exposure.wait()?;
                    let all = window.local().to_vec();
                    let wanted = (1..size as u64).map(value);
                    assert!(all[1..].iter().copied().eq(wanted), "{round}: {all:?}");
                    let access = window.start(&others)?;
                    for target in world.ranks().skip(1) {
                        access.put(&[value(500)], target, 0)?;
                    }
                    access.end()?;
                } else {
                    let access = window.start(&hubs)?;
                    access.put(&[value(u64::from(me.0))], hub, me.0 as usize)?;
                    access.end()?;
                    window.post(&hubs)?.wait()?;
                    assert_eq!(window.local().load(0), value(500));
                }
            }
            window.free()?;
            Ok(())
        });
    }
}

/// One thread of each rank exposes while another accesses, each at its own pace: the two states are
/// independent, and all threads share them (mpi-rma 4, notes).
#[test]
fn threads_expose_and_access() {
    const ROUNDS: u64 = 100;
    for way in [MIXTURES[0], MIXTURES[2]] {
        let spec = way.spec("threads_expose_and_access");
        spec.limit(Duration::from_secs(240)).world(|world| {
            let window = way.window::<u64>(world, 1)?;
            let (left, right) = (neighbour(world, world.size() - 1), neighbour(world, 1));
            let (origins, targets) = (group_of(world, &[left])?, group_of(world, &[right])?);
            let pause = |random: &mut Random| {
                std::thread::sleep(Duration::from_micros(random.below(150) as u64));
            };
            std::thread::scope(|threads| -> Done {
                let accesses = threads.spawn(|| -> windlass::Result<()> {
                    let mut random = Random::new(u64::from(world.rank().0));
                    for round in 1..=ROUNDS {
                        let access = window.start(&targets)?;
                        pause(&mut random);
                        access.put(&[round], right, 0)?;
                        access.end()?;
                        pause(&mut random);
                    }
                    Ok(())
                });
                let mut random = Random::new(u64::from(world.rank().0) + 1000);
                for round in 1..=ROUNDS {
                    let exposure = window.post(&origins)?;
                    pause(&mut random);
                    exposure.wait()?;
                    assert_eq!(window.local().load(0), round, "{way:?}");
                    pause(&mut random);
                }
                accesses.join().expect("a thread that does not panic")?;
                Ok(())
            })?;
            window.free()?;
            Ok(())
        });
    }
}

/// Two threads of one rank that make the same call at the same time.
fn at_once<T: Send>(call: impl Fn() -> T + Sync) -> [T; 2] {
    let both = std::sync::Barrier::new(2);
    let one = || {
        both.wait();
        call()
    };
    std::thread::scope(|threads| {
        let other = threads.spawn(one);
        let mine = one();
        [mine, other.join().expect("a thread that does not panic")]
    })
}

/// Of two starts at the same time one is refused, and the next start waits for its own post.
#[test]
fn two_threads_start_at_once() {
    const ROUNDS: u64 = 200;
    for way in PAIRS {
        let spec = way.spec("two_threads_start_at_once");
        spec.world(|world| {
            let mut window = way.window::<u64>(world, 1)?;
            let mut told = way.window::<u64>(world, 1)?;
            let (origin, target) = (Rank(0), Rank(1));
            let (origins, targets) = (group_of(world, &[origin])?, group_of(world, &[target])?);
            for round in 1..=ROUNDS {
                if world.rank() == origin {
                    let told = &told;
                    let outcomes = at_once(|| -> windlass::Result<bool> {
                        match window.start(&targets) {
                            Ok(access) => {
                                access.put(&[round], target, 0)?;
                                access.end()?;
                                Ok(true)
                            }
                            // Only now the target posts.
                            refusal => {
                                refused(refusal);
                                let lock = told.lock(target, LockKind::Shared)?;
                                lock.fetch_and_op(1, target, 0, Op::Sum)?;
                                lock.end()?;
                                Ok(false)
                            }
                        }
                    });
                    let [one, other] = outcomes;
                    assert_ne!(one?, other?, "{way:?}: one of them had the epoch");
                } else if world.rank() == target {
                    while told.local().load(0) < round {
                        std::thread::yield_now();
                    }
                    // A start that did not wait would write here.
                    let before = window.lock_local()?[0];
                    assert_eq!(before, round - 1, "{way:?}");
                    window.post(&origins)?.wait()?;
                    assert_eq!(window.local().load(0), round, "{way:?}");
                }
            }
            window.free()?;
            told.fence()?.end()?;
            told.free()?;
            Ok(())
        });
    }
}

/// Of two posts at the same time one is refused, and the wait waits for all of its own group.
#[test]
fn two_threads_post_at_once() {
    const ROUNDS: u64 = 200;
    for way in PAIRS {
        let spec = way.spec("two_threads_post_at_once");
        spec.world(|world| {
            let window = way.window::<u64>(world, 1)?;
            let (origin, target) = (Rank(0), Rank(1));
            let (origins, targets) = (group_of(world, &[origin])?, group_of(world, &[target])?);
            for round in 1..=ROUNDS {
                if world.rank() == origin {
                    let access = window.start(&targets)?;
                    access.put(&[round], target, 0)?;
                    access.end()?;
                } else if world.rank() == target {
                    let [one, other] = at_once(|| window.post(&origins));
                    let exposure = match (one, other) {
                        (Ok(exposure), refusal) | (refusal, Ok(exposure)) => {
                            refused(refusal.map(std::mem::forget));
                            exposure
                        }
                        (one, _) => return Err(one.map(std::mem::forget).unwrap_err().into()),
                    };
                    exposure.wait()?;
                    assert_eq!(window.local().load(0), round, "{way:?}");
                }
            }
            window.free()?;
            Ok(())
        });
    }
}

/// Nothing that one rank does to itself waits for another one.
#[test]
fn alone() {
    Spec::new("alone").ranks(1).world(|world| {
        let window = world.allocate::<u64>(2)?;
        let (me, nobody) = (world.rank(), group_of(world, &[])?);
        let itself = world.group();
        for round in 1..=100 {
            let exposure = window.post(&itself)?;
            let exposure = exposure.test()?.expect("nobody has accessed it yet");
            let access = window.start(&itself)?;
            let exposure = exposure.test()?.expect("the access is not over");
            access.put(&[round], me, 1)?;
            access.end()?;
            assert!(exposure.test()?.is_none(), "the access is over");
            assert_eq!(window.local().to_vec(), [0, round]);

            let exposure = window.post(&nobody)?;
            window.start(&nobody)?.end()?;
            exposure.wait()?;
            assert!(window.post(&nobody)?.test()?.is_none());
        }
        window.free()?;
        Ok(())
    });
}

/// The target posts long before the origin starts, and goes on with something else.
#[test]
fn an_early_post_and_a_slow_origin() {
    for way in PAIRS {
        way.spec("an_early_post_and_a_slow_origin").world(|world| {
            let window = way.window::<u64>(world, 1)?;
            let other = group_of(world, &[neighbour(world, 1)])?;
            if world.rank() == Rank(0) {
                world.barrier()?;
                std::thread::sleep(Duration::from_millis(30));
                let access = window.start(&other)?;
                access.put(&[5], Rank(1), 0)?;
                world.barrier()?;
                access.end()?;
            } else {
                let exposure = window.post(&other)?;
                world.barrier()?;
                let exposure = exposure.test()?.expect("the origin is slow");
                world.barrier()?;
                // Sleeps by now, or comes to a counter that has moved already.
                exposure.wait()?;
                assert_eq!(window.local().load(0), 5);
            }
            window.free()?;
            Ok(())
        });
    }
}

/// Access on one window beside locks, locks on all, and fences of others: windows never interact,
/// also over the same ranks.
#[test]
fn beside_epochs_of_other_windows() {
    const ROUNDS: u64 = 30;
    let way = MIXTURES[2];
    let spec = way.spec("beside_epochs_of_other_windows");
    spec.limit(Duration::from_secs(240)).world(|world| {
        let window = way.window::<u64>(world, 1)?;
        let mut counters = way.window::<u64>(world, 2)?;
        let mut fenced = way.window::<u64>(world, 1)?;
        let (left, right) = (neighbour(world, world.size() - 1), neighbour(world, 1));
        let (origins, targets) = (group_of(world, &[left])?, group_of(world, &[right])?);
        let mut fence = fenced.fence()?;
        for round in 1..=ROUNDS {
            let exposure = window.post(&origins)?;
            let access = window.start(&targets)?;
            fence.put(&[round], right, 0)?;
            for target in world.ranks() {
                let lock = counters.lock(target, LockKind::Exclusive)?;
                let mut seen = [0];
                lock.get(&mut seen, target, 0)?;
                lock.put(&[seen[0] + 1], target, 0)?;
                access.put(&[round * 1000 + u64::from(target.0)], right, 0)?;
            }
            let all = counters.lock_all()?;
            all.accumulate(&[1], right, 1, Op::Sum)?;
            access.end()?;
            all.end()?;
            exposure.wait()?;
            let last = u64::from(world.size() - 1);
            assert_eq!(window.local().load(0), round * 1000 + last);
            fence = fence.next()?;
            assert_eq!(fence.local().load(0), round);
            fence = fence.next()?;
        }
        fence.end()?;
        let mine = counters.lock_local()?;
        assert_eq!(mine[..], [ROUNDS * u64::from(world.size()), ROUNDS]);
        mine.end()?;
        counters.free()?;
        fenced.free()?;
        window.free()?;
        Ok(())
    });
}

/// Exposures and accesses of one window beside locks that are legal with them: on ranks that are
/// not exposed.
#[test]
fn exposed_while_locking_others() {
    const ROUNDS: u64 = 50;
    Spec::new("exposed_while_locking_others")
        .ranks(4)
        .world(|world| {
            let mut window = world.allocate::<u64>(2)?;
            // Ranks 2 and 3 access 0 and 1; these meanwhile lock 2 and 3.
            let me = world.rank().0;
            let other = Rank((me + 2) % 4);
            let group = group_of(world, &[other])?;
            for round in 1..=ROUNDS {
                if me < 2 {
                    let exposure = window.post(&group)?;
                    let lock = window.lock(other, LockKind::Exclusive)?;
                    lock.put(&[round], other, 1)?;
                    let exposure = match exposure.test()? {
                        Some(open) => open,
                        None => return Err("the exposure ended before its access".into()),
                    };
                    lock.end()?;
                    world.barrier()?;
                    exposure.wait()?;
                    assert_eq!(window.local().load(0), round);
                } else {
                    world.barrier()?;
                    let access = window.start(&group)?;
                    access.put(&[round], other, 0)?;
                    access.end()?;
                }
            }
            world.barrier()?;
            let mine = window.lock_local()?;
            assert_eq!(mine[usize::from(me >= 2)], ROUNDS);
            mine.end()?;
            window.free()?;
            Ok(())
        });
}

// What is refused.

/// The call was refused by the state of the epoch.
#[track_caller]
fn refused<T>(answer: windlass::Result<T>) -> windlass::State {
    let Err(error) = answer else {
        panic!("the call is not legal now");
    };
    assert_eq!(error.class(), ErrorClass::RmaSync, "{error:?}");
    match error {
        Error::Epoch { state, ref at, .. } => {
            assert!(at.location.file().ends_with("pscw.rs"), "{error:?}");
            state
        }
        other => panic!("{other:?}"),
    }
}

/// Calls that are not legal leave everything as it was: the epochs go on and end well.
#[test]
fn what_is_refused_changes_nothing() {
    for way in MIXTURES {
        let spec = way.spec("what_is_refused_changes_nothing");
        spec.world(|world| {
            let window = way.window::<u64>(world, 2)?;
            let (left, right) = (neighbour(world, world.size() - 1), neighbour(world, 1));
            let (origins, targets) = (group_of(world, &[left])?, group_of(world, &[right])?);
            let all = world.group();
            for round in 1..=10 {
                let exposure = window.post(&origins)?;
                // Posted, once more.
                let state = refused(window.post(&origins));
                assert_eq!(state.exposed, ExposureState::Posted);
                let state = refused(window.post(&all));
                assert_eq!(state.access, AccessState::None);

                let access = window.start(&targets)?;
                // Started, once more; locks of whatever rank.
                let state = refused(window.start(&targets));
                assert!(matches!(state.access, AccessState::Started { .. }));
                refused(window.start(&all));
                for target in world.ranks() {
                    refused(window.lock(target, LockKind::Shared));
                }
                // Ranks outside the group, and outside the job; too far; no operator for this.
                let (me, mut one) = (world.rank(), [0]);
                let state = refused(access.put(&[1], me, 0));
                assert_eq!(state.access, AccessState::Started { this: false });
                refused(access.get(&mut one, me, 0));
                refused(access.accumulate(&[1], me, 0, Op::Sum));
                refused(access.fetch_and_op(1, me, 0, Op::Sum));
                refused(access.compare_and_swap(1, 1, me, 0));
                refused(access.put_notify(&[1], me, 0, 3));
                let beyond = access.put(&[1], Rank(world.size()), 0).unwrap_err();
                assert_eq!(beyond.class(), ErrorClass::Rank);
                let beyond = access.put(&[1, 2], right, 1).unwrap_err();
                assert_eq!(beyond.class(), ErrorClass::RmaRange);
                let operator = access.accumulate(&[1], right, 0, Op::NoOp).unwrap_err();
                assert_eq!(operator.class(), ErrorClass::Op);

                access.put(&[round], right, 0)?;
                access.end()?;
                exposure.wait()?;
                assert_eq!(window.local().to_vec(), [round, 0], "{way:?}");
                assert_eq!(window.notified(3)?, 0);
            }
            window.free()?;
            Ok(())
        });
    }
}

/// Groups name processes, so those of any world serve a window of a part of the job, whose ranks
/// are numbered in another order; who is not in the window is refused, and nothing has changed.
#[test]
fn groups_of_other_worlds() {
    let way = MIXTURES[2];
    way.spec("groups_of_other_worlds").world(|world| {
        let me = world.rank().0;
        let part = world.split(Some(me % 2), -i64::from(me))?;
        let part = part.ok_or("every rank has a color")?;
        let window = part.allocate::<u64>(1)?;
        let (left, right) = (neighbour(&part, part.size() - 1), neighbour(&part, 1));
        // Of the job's group, with its numbers.
        let everywhere = world.group();
        let of_job = |rank: Rank| {
            let there = part.group().translate(rank, &everywhere);
            there.ok_or("every rank of a part is in the job")
        };
        let origins = group_of(world, &[of_job(left)?])?;
        let targets = group_of(world, &[of_job(right)?])?;
        let outside = group_of(world, &[of_job(right)?, Rank(1 - me % 2)])?;
        for round in 1..=20 {
            let exposure = window.post(&origins)?;
            for (group, rank) in [(&outside, 1), (&everywhere, 1 - me % 2)] {
                let error = window.start(group).map(drop).unwrap_err();
                let refused = matches!(error, Error::Group { rank: found, .. } if found == rank);
                assert!(refused, "{error:?}");
                assert_eq!(error.class(), ErrorClass::Group);
            }
            let access = window.start(&targets)?;
            access.put(&[round << 8 | u64::from(me)], right, 0)?;
            access.end()?;
            exposure.wait()?;
            let from = u64::from(of_job(left)?.0);
            assert_eq!(window.local().load(0), round << 8 | from);
            let error = window.post(&outside).map(drop).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Group, "{error:?}");
        }
        window.free()?;
        Ok(())
    });
}

/// A forgotten guard leaves its epoch open: what conflicts with it is refused, the slice above all.
#[test]
fn forgotten_guards_are_remembered() {
    let spec = Spec::new("forgotten_guards_are_remembered").ranks(1);
    spec.world(|world| {
        let (itself, nobody) = (world.group(), group_of(world, &[])?);
        let mut window = world.allocate::<u64>(2)?;
        std::mem::forget(window.post(&itself)?);
        refused(window.post(&nobody));
        refused(window.lock_local());
        refused(window.fence());
        // The other half is still there to be used.
        let access = window.start(&itself)?;
        access.put(&[1], world.rank(), 0)?;
        access.end()?;
        refused(window.free());

        let mut window = world.allocate::<u64>(2)?;
        std::mem::forget(window.start(&itself.incl(&[])?)?);
        refused(window.start(&nobody));
        refused(window.lock_local());
        refused(window.lock_all());
        refused(window.fence());
        window.post(&nobody)?.wait()?;
        refused(window.free());
        Ok(())
    });
}

// Who leaves.

/// Rank 1 leaves the window by `leave`; each other rank makes `call` until it fails, and is told who
/// it was. The job goes on.
fn one_leaves(
    test: &'static str,
    leave: impl Fn(&World, Window<u64>) -> Done,
    call: impl Fn(&World, &Window<u64>, &Group) -> windlass::Result<()>,
) {
    for way in [MIXTURES[1], MIXTURES[2]] {
        way.spec(test).world(|world| {
            let leaver = Rank(1);
            let window = way.window::<u64>(world, 4)?;
            if world.rank() == leaver {
                leave(world, window)?;
            } else {
                let leavers = group_of(world, &[leaver])?;
                let error = loop {
                    if let Err(error) = call(world, &window, &leavers) {
                        break error;
                    }
                };
                let departed = matches!(error, Error::Departed { rank, .. } if rank == leaver.0);
                assert!(departed, "{error:?}");
                assert_eq!(error.class(), ErrorClass::RmaSync);
                // Not before all have been told of rank 1.
                world.barrier()?;
                drop(window);
            }
            if world.rank() == leaver {
                world.barrier()?;
            }
            let mut next = world.allocate::<u64>(1)?;
            next.fence()?.end()?;
            next.free()?;
            Ok(())
        });
    }
}

#[test]
fn a_dropped_access_has_left() {
    let leave = |world: &World, window: Window<u64>| -> Done {
        drop(window.start(&world.group().excl(&[Rank(1)])?)?);
        // Its epoch stays open, and it takes part in nothing else.
        refused(window.start(&world.group()));
        let again = window.post(&world.group()).map(drop);
        assert!(matches!(again, Err(Error::Departed { rank: 1, .. })));
        Ok(())
    };
    one_leaves("a_dropped_access_has_left", leave, |_, window, leavers| {
        window.post(leavers)?.wait()
    });
}

#[test]
fn a_dropped_exposure_has_left() {
    let leave = |world: &World, window: Window<u64>| -> Done {
        drop(window.post(&world.group().excl(&[Rank(1)])?)?);
        refused(window.post(&world.group()));
        let again = window.start(&world.group()).map(drop);
        assert!(matches!(again, Err(Error::Departed { rank: 1, .. })));
        Ok(())
    };
    let test = "a_dropped_exposure_has_left";
    one_leaves(test, leave, |_, window, leavers| {
        window.start(leavers)?.end()
    });
}

#[test]
fn who_left_is_not_asked_for_ever() {
    let leave = |_: &World, window: Window<u64>| -> Done {
        drop(window);
        Ok(())
    };
    let test = "who_left_is_not_asked_for_ever";
    one_leaves(test, leave, |world, window, leavers| {
        match world.rank().0 {
            0 => {
                let mut exposure = window.post(leavers)?;
                while let Some(open) = exposure.test()? {
                    exposure = open;
                }
            }
            2 => window.wait_notify(1, 1)?,
            3 => while !window.test_notify(1, 1)? {},
            _ => drop(window.wait_notify_any(&[1, 2])?),
        }
        Ok(())
    });
}
