//! Random programs of four ranks against a serial model (reliability, rule of section 3).
//!
//! A program is drawn from a seed, alike on all ranks. It is a sequence of epochs; in each, every
//! rank's part of the window is cut into ranges, and each range belongs to one origin, or is
//! *shared* and then only changed in ways that commute. So every program has one result, which
//! all ranks compute on a model beside the real operations; after each epoch each rank compares
//! the whole of its part, and every value that an operation returns is compared at once.
//!
//! `WLTEST_SEEDS=n` sets how many programs each placement runs, `WLTEST_SEED=s` runs one.

mod support;

use std::fmt;

use support::data::Random;
use support::{Done, Failure, Spec};
use windlass::{Epoch, Kind, LockKind, Op, Rank, Reducible, Window, World};

const RANKS: usize = 4;
const DEFAULT_SEEDS: u64 = 200;

/// Element types, with values that all of them hold exactly.
trait Cell: Reducible + PartialEq + fmt::Debug {
    const NAME: &'static str;
    fn of(value: i64) -> Self;
    fn plus(self, other: Self) -> Self;
    /// `compare_and_swap`, where the type has it.
    fn swap<K: Kind>(
        epoch: &Epoch<'_, Self, K>,
        compare: Self,
        new: Self,
        at: (Rank, usize),
    ) -> Option<windlass::Result<Self>>;
}

macro_rules! integer {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            const NAME: &'static str = stringify!($type);
            fn of(value: i64) -> Self {
                value as $type
            }
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn swap<K: Kind>(
                epoch: &Epoch<'_, Self, K>,
                compare: Self,
                new: Self,
                (target, disp): (Rank, usize),
            ) -> Option<windlass::Result<Self>> {
                Some(epoch.compare_and_swap(compare, new, target, disp))
            }
        }
    )+};
}

macro_rules! float {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            const NAME: &'static str = stringify!($type);
            fn of(value: i64) -> Self {
                value as $type
            }
            fn plus(self, other: Self) -> Self {
                self + other
            }
            fn swap<K: Kind>(
                _: &Epoch<'_, Self, K>,
                _: Self,
                _: Self,
                _: (Rank, usize),
            ) -> Option<windlass::Result<Self>> {
                None
            }
        }
    )+};
}

integer!(i32, u32, i64, u64);
float!(f32, f64);

/// How an epoch is opened and closed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sync {
    Fence,
    LockAll,
    /// One target after the other.
    Locks,
}

/// What one operation does with its range.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Put,
    Get,
    RequestPut,
    RequestGet,
    Sum,
    Replace,
    GetAndSum,
    FetchSum,
    FetchReplace,
    FetchOnly,
    /// Compares with the present value, or with another one.
    Swap {
        hit: bool,
    },
    /// A get and a put under an exclusive lock: commutes with the others' of its kind.
    AddLocked,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    origin: usize,
    target: usize,
    disp: usize,
    len: usize,
    what: What,
    /// Values to send: the i-th is drawn from this and i.
    values: u64,
    /// The range is shared with other origins: what is read there is not known.
    shared: bool,
    lock: LockKind,
    /// Flush all targets and not only this one.
    flush_all: bool,
}

impl Step {
    fn value<T: Cell>(&self, index: usize) -> T {
        let mut random = Random::new(self.values.wrapping_add(index as u64 * 0x1_0001));
        T::of(random.below(2001) as i64 - 1000)
    }

    fn send<T: Cell>(&self) -> Vec<T> {
        (0..self.len).map(|index| self.value(index)).collect()
    }

    /// Changes one value of the model.
    fn apply<T: Cell>(&self, old: T, index: usize) -> T {
        let new = self.value(index);
        match self.what {
            What::Put | What::RequestPut | What::Replace | What::FetchReplace => new,
            What::Sum | What::GetAndSum | What::FetchSum | What::AddLocked => old.plus(new),
            What::Swap { hit: true } => new,
            What::Get | What::RequestGet | What::FetchOnly | What::Swap { hit: false } => old,
        }
    }
}

/// The epochs of a seed.
struct Program {
    seed: u64,
    lens: [usize; RANKS],
    lent: bool,
    epochs: Vec<(Sync, Vec<Step>)>,
}

impl Program {
    fn draw(seed: u64) -> Program {
        let mut random = Random::new(seed);
        let long = random.one_in(6);
        let most = if long { 30_000 } else { 400 };
        let lens = std::array::from_fn(|_| 1 + random.below(most));
        let lent = random.one_in(3);
        let count = 3 + random.below(6);
        let epochs = (0..count).map(|_| epoch(&mut random, &lens)).collect();
        Program {
            seed,
            lens,
            lent,
            epochs,
        }
    }
}

fn epoch(random: &mut Random, lens: &[usize; RANKS]) -> (Sync, Vec<Step>) {
    let sync = *random.pick(&[Sync::Fence, Sync::Fence, Sync::LockAll, Sync::Locks]);
    let mut steps = Vec::new();
    for (target, &len) in lens.iter().enumerate() {
        let mut from = 0;
        while from < len {
            let width = (1 + random.below(1 + len / 5)).min(len - from);
            match random.below(RANKS + 2) {
                origin if origin < RANKS => {
                    own_range(random, sync, (origin, target, from, width), &mut steps);
                }
                RANKS => shared_range(random, sync, (target, from, width), &mut steps),
                _ => {} // Nobody touches it.
            }
            from += width;
        }
    }
    // Under locks, and for variety elsewhere, each origin takes the targets in an order of its own.
    let turn = random.below(RANKS);
    steps.sort_by_key(|step| (step.origin, (step.target + step.origin + turn) % RANKS));
    if sync == Sync::Locks {
        one_lock_kind(random, &mut steps);
    }
    (sync, steps)
}

/// A lock is of one kind from its beginning to its end.
fn one_lock_kind(random: &mut Random, steps: &mut [Step]) {
    for group in steps.chunk_by_mut(|a, b| (a.origin, a.target) == (b.origin, b.target)) {
        let exclusive = group.iter().any(|s| s.what == What::AddLocked) || random.one_in(2);
        let lock = if exclusive {
            LockKind::Exclusive
        } else {
            LockKind::Shared
        };
        group.iter_mut().for_each(|step| step.lock = lock);
    }
}

/// Steps of one origin on a range that nobody else touches in this epoch.
fn own_range(
    random: &mut Random,
    sync: Sync,
    (origin, target, from, width): (usize, usize, usize, usize),
    steps: &mut Vec<Step>,
) {
    const PLAIN: [What; 2] = [What::Put, What::Get];
    const PASSIVE: [What; 4] = [What::Put, What::Get, What::RequestPut, What::RequestGet];
    const UPDATES: [What; 8] = [
        What::Sum,
        What::Replace,
        What::GetAndSum,
        What::FetchSum,
        What::FetchReplace,
        What::FetchOnly,
        What::Swap { hit: true },
        What::Swap { hit: false },
    ];
    let mut push = |random: &mut Random, what: What| {
        let single = matches!(
            what,
            What::FetchSum | What::FetchReplace | What::FetchOnly | What::Swap { .. }
        );
        let disp = from + if single { random.below(width) } else { 0 };
        let (values, flush_all) = (random.bits(), random.one_in(4));
        let len = if single { 1 } else { width };
        let lock = LockKind::Shared;
        steps.push(Step {
            origin,
            target,
            disp,
            len,
            what,
            values,
            shared: false,
            lock,
            flush_all,
        });
    };
    match sync {
        // Between fences a plain operation must be alone on its range; updates are ordered.
        Sync::Fence if random.one_in(2) => {
            let what = *random.pick(&PLAIN);
            push(random, what);
        }
        Sync::Fence => {
            for _ in 0..1 + random.below(4) {
                let what = *random.pick(&UPDATES);
                push(random, what);
            }
        }
        // A flush follows each step.
        Sync::LockAll | Sync::Locks => {
            for _ in 0..1 + random.below(4) {
                let plain = random.one_in(2);
                let what = if plain {
                    *random.pick(&PASSIVE)
                } else {
                    *random.pick(&UPDATES)
                };
                push(random, what);
            }
        }
    }
}

/// Steps of all origins on one range.
fn shared_range(
    random: &mut Random,
    sync: Sync,
    (target, from, width): (usize, usize, usize),
    steps: &mut Vec<Step>,
) {
    let locked = sync == Sync::Locks && random.one_in(2);
    for origin in 0..RANKS {
        for _ in 0..random.below(4) {
            let what = match random.below(3) {
                _ if locked => What::AddLocked,
                0 => What::FetchSum,
                1 => What::GetAndSum,
                _ => What::Sum,
            };
            let single = what == What::FetchSum;
            let disp = from + if single { random.below(width) } else { 0 };
            let len = if single { 1 } else { width };
            let (values, flush_all) = (random.bits(), random.one_in(4));
            let lock = LockKind::Shared;
            steps.push(Step {
                origin,
                target,
                disp,
                len,
                what,
                values,
                shared: true,
                lock,
                flush_all,
            });
        }
    }
}

/// The model and the real thing side by side.
struct Run<'a, T: Cell> {
    world: &'a World,
    program: &'a Program,
    placement: &'a str,
    epoch: usize,
    model: Vec<Vec<T>>,
}

impl<T: Cell> Run<'_, T> {
    fn me(&self) -> usize {
        self.world.rank().0 as usize
    }

    /// What to say about a difference, with the way to see it again.
    fn story(&self, target: usize, disp: usize) -> String {
        let (sync, steps) = &self.program.epochs[self.epoch];
        let touching = steps.iter().filter(|step| {
            step.target == target && (step.disp..step.disp + step.len).contains(&disp)
        });
        let steps: Vec<String> = touching.map(|step| format!("  {step:?}")).collect();
        format!(
            "element {disp} of rank {target}, type {}, lent {}, epoch {} ({sync:?}), steps on it:\n{}\n\
             again: WLTEST_SEED={} cargo test --test differential {}",
            T::NAME,
            self.program.lent,
            self.epoch,
            steps.join("\n"),
            self.program.seed,
            self.placement,
        )
    }

    fn check(&self, found: T, index: usize, step: &Step) {
        let disp = step.disp + index;
        let wanted = self.model[step.target][disp];
        if !step.shared && found != wanted {
            panic!(
                "{step:?} found {found:?} for {wanted:?}: {}",
                self.story(step.target, disp)
            );
        }
    }

    /// Runs a step if it is this rank's, and applies it to the model.
    fn step<K: Kind>(&mut self, epoch: &Epoch<'_, T, K>, step: &Step) -> Done {
        if step.origin == self.me() {
            self.execute(epoch, step)?;
        }
        for index in 0..step.len {
            let slot = &mut self.model[step.target][step.disp + index];
            *slot = step.apply(*slot, index);
        }
        Ok(())
    }

    fn execute<K: Kind>(&self, epoch: &Epoch<'_, T, K>, step: &Step) -> Done {
        let (target, disp) = (Rank(step.target as u32), step.disp);
        let send = step.send::<T>();
        let mut got = Vec::new();
        match step.what {
            What::Put | What::RequestPut => epoch.put(&send, target, disp)?,
            What::Get | What::RequestGet => {
                got = vec![T::of(77); step.len];
                epoch.get(&mut got, target, disp)?;
            }
            What::Sum => epoch.accumulate(&send, target, disp, Op::Sum)?,
            What::Replace => epoch.accumulate(&send, target, disp, Op::Replace)?,
            What::GetAndSum => {
                got = vec![T::of(77); step.len];
                epoch.get_accumulate(&send, &mut got, target, disp, Op::Sum)?;
            }
            What::FetchSum => got.push(epoch.fetch_and_op(send[0], target, disp, Op::Sum)?),
            What::FetchReplace => {
                got.push(epoch.fetch_and_op(send[0], target, disp, Op::Replace)?)
            }
            What::FetchOnly => got.push(epoch.fetch_and_op(send[0], target, disp, Op::NoOp)?),
            What::Swap { hit } => {
                let present = self.model[step.target][disp];
                let compare = if hit { present } else { present.plus(T::of(1)) };
                match T::swap(epoch, compare, send[0], (target, disp)) {
                    Some(old) => got.push(old?),
                    None if hit => epoch.accumulate(&send, target, disp, Op::Replace)?,
                    None => {}
                }
            }
            What::AddLocked => {
                let mut sum = vec![T::of(77); step.len];
                epoch.get(&mut sum, target, disp)?;
                let sum: Vec<T> = sum.iter().zip(&send).map(|(a, b)| a.plus(*b)).collect();
                epoch.put(&sum, target, disp)?;
            }
        }
        for (index, &found) in got.iter().enumerate() {
            self.check(found, index, step);
        }
        Ok(())
    }

    /// A step of a passive epoch: with requests, and completed at once.
    fn passive<K: windlass::Passive>(&mut self, epoch: &Epoch<'_, T, K>, step: &Step) -> Done {
        if step.origin != self.me() {
            return self.step(epoch, step);
        }
        let (target, disp) = (Rank(step.target as u32), step.disp);
        match step.what {
            What::RequestPut => {
                let mut buffer = self.world.buffer::<T>(step.len)?;
                buffer.copy_from_slice(&step.send());
                let request = epoch.rput(buffer, target, disp)?;
                let back = request.wait()?;
                assert_eq!(back.len(), step.len);
            }
            What::RequestGet => {
                let got = epoch
                    .rget(self.world.buffer::<T>(step.len)?, target, disp)?
                    .wait()?;
                for (index, &found) in got.iter().enumerate() {
                    self.check(found, index, step);
                }
            }
            _ => self.execute(epoch, step)?,
        }
        if step.flush_all {
            epoch.flush_all()?;
        } else {
            epoch.flush(target)?;
        }
        for index in 0..step.len {
            let slot = &mut self.model[step.target][step.disp + index];
            *slot = step.apply(*slot, index);
        }
        Ok(())
    }

    fn run_epochs<M: Send>(&mut self, window: &mut Window<T, M>) -> Done {
        for (index, (sync, steps)) in self.program.epochs.iter().enumerate() {
            self.epoch = index;
            self.run_epoch(window, *sync, steps)?;
        }
        Ok(())
    }

    fn run_epoch<M: Send>(
        &mut self,
        window: &mut Window<T, M>,
        sync: Sync,
        steps: &[Step],
    ) -> Done {
        match sync {
            Sync::Fence => {
                let epoch = window.fence()?;
                for step in steps {
                    self.step(&epoch, step)?;
                }
                epoch.end()?;
            }
            Sync::LockAll => {
                let epoch = window.lock_all()?;
                for step in steps {
                    self.passive(&epoch, step)?;
                }
                epoch.end()?;
                self.world.barrier()?;
            }
            Sync::Locks => {
                for group in steps.chunk_by(|a, b| (a.origin, a.target) == (b.origin, b.target)) {
                    let (origin, target) = (group[0].origin, Rank(group[0].target as u32));
                    if origin == self.me() {
                        let lock = window.lock(target, group[0].lock)?;
                        for step in group {
                            self.passive(&lock, step)?;
                        }
                        lock.end()?;
                    } else {
                        for step in group {
                            self.foreign(step);
                        }
                    }
                }
                self.world.barrier()?;
            }
        }
        self.compare(window)?;
        // Nobody begins the next epoch's accesses before all have compared.
        self.world.barrier()?;
        Ok(())
    }

    /// Another rank's step: only the model changes.
    fn foreign(&mut self, step: &Step) {
        for index in 0..step.len {
            let slot = &mut self.model[step.target][step.disp + index];
            *slot = step.apply(*slot, index);
        }
    }

    fn compare<M: Send>(&self, window: &mut Window<T, M>) -> Done {
        let mine = window.lock_local()?;
        let wanted = &self.model[self.me()];
        let differs = mine
            .iter()
            .zip(wanted)
            .position(|(found, wanted)| found != wanted);
        if let Some(at) = differs {
            let (found, wanted) = (mine[at], wanted[at]);
            panic!(
                "found {found:?} for {wanted:?}: {}",
                self.story(self.me(), at)
            );
        }
        assert_eq!(mine.len(), wanted.len());
        mine.end()?;
        Ok(())
    }
}

fn run_program<T: Cell>(world: &World, program: &Program, placement: &str) -> Done {
    let model = program
        .lens
        .iter()
        .map(|&len| vec![T::of(0); len])
        .collect();
    let mut run = Run {
        world,
        program,
        placement,
        epoch: 0,
        model,
    };
    let len = program.lens[run.me()];
    if program.lent {
        let mut window = world.create(vec![T::of(0); len])?;
        run.run_epochs(&mut window)?;
        let back = window.free()?;
        let same = back == run.model[run.me()];
        assert!(
            same,
            "memory given back differs: WLTEST_SEED={}",
            program.seed
        );
    } else {
        let mut window = world.allocate::<T>(len)?;
        run.run_epochs(&mut window)?;
        window.free()?;
    }
    Ok(())
}

fn seeds() -> Result<std::ops::Range<u64>, Failure> {
    if let Ok(seed) = std::env::var("WLTEST_SEED") {
        let seed = seed.parse()?;
        return Ok(seed..seed + 1);
    }
    let count = match std::env::var("WLTEST_SEEDS") {
        Ok(count) => count.parse()?,
        Err(_) => DEFAULT_SEEDS,
    };
    Ok(0..count)
}

fn differential(spec: Spec, placement: &'static str) {
    let count = seeds().map_or(0, |seeds| seeds.count() as u64);
    let limit = std::time::Duration::from_secs(60 + count * 2);
    spec.limit(limit).world(|world| {
        assert_eq!(world.size() as usize, RANKS);
        for seed in seeds()? {
            let program = Program::draw(seed);
            let ran = match seed % 6 {
                0 => run_program::<u64>(world, &program, placement),
                1 => run_program::<f64>(world, &program, placement),
                2 => run_program::<i32>(world, &program, placement),
                3 => run_program::<u32>(world, &program, placement),
                4 => run_program::<f32>(world, &program, placement),
                _ => run_program::<i64>(world, &program, placement),
            };
            ran.map_err(|error| format!("WLTEST_SEED={seed}: {}", support::chain(&*error)))?;
        }
        Ok(())
    });
}

#[test]
fn hosts_of_one_node() {
    differential(
        Spec::new("hosts_of_one_node").place("vh:4"),
        "hosts_of_one_node",
    );
}

#[test]
fn one_ve_and_its_host() {
    let spec = Spec::new("one_ve_and_its_host").ves(1).place("ve0:2,vh:2");
    differential(spec, "one_ve_and_its_host");
}

#[test]
fn two_ves_and_their_host() {
    let spec = Spec::new("two_ves_and_their_host")
        .ves(2)
        .place("ve0:1,ve1:1,vh:2");
    differential(spec, "two_ves_and_their_host");
}

#[test]
fn two_nodes_of_ve_and_host() {
    let spec = Spec::new("two_nodes_of_ve_and_host")
        .nodes(2)
        .ves(1)
        .place("ve0:1,vh:1");
    differential(spec, "two_nodes_of_ve_and_host");
}

#[test]
fn two_nodes_of_two_ves() {
    let spec = Spec::new("two_nodes_of_two_ves")
        .nodes(2)
        .ves(2)
        .place("ve0:1,ve1:1");
    differential(spec, "two_nodes_of_two_ves");
}

#[test]
fn four_nodes() {
    differential(Spec::new("four_nodes").nodes(4).place("vh:1"), "four_nodes");
}
