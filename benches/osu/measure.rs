//! Blocks of iterations, timed: how many, and which of them count.

use std::time::Duration;

use windlass::{Element, Op, Rank, Window, World};
use windlass_launcher::measure::{Benchmark, Options};

use crate::job::{self, Failure, ROOT};
use crate::progress::Meter;
use crate::samples::{Laps, Samples, Spread};

/// Without `-i`, a size is measured in so many blocks of about this length; the median counts.
const BLOCK: Duration = Duration::from_millis(10);
const BLOCKS: u64 = 5;
/// So many times as long as the fastest block, and the median says more of others than of Windlass.
const DISTURBED: f64 = 2.0;
const MAX_ITERATIONS: u64 = 10_000_000;

/// A loop of iterations. Every method is collective.
pub trait Timed {
    /// Time of this many iterations at the origin, each of which it tells to `laps`; the other ranks take part as
    /// they have to.
    fn block<L: Laps>(
        &mut self,
        size: usize,
        iterations: u64,
        laps: &mut L,
    ) -> Result<Duration, Failure>;

    /// One more iteration, of known data: bytes that came out wrong, at all ranks alike.
    fn validate(&mut self, size: usize) -> Result<u64, Failure>;

    /// The way to the target.
    fn route(&self) -> RouteName;

    /// Frees its windows.
    fn free(self) -> Result<(), Failure>;
}

/// The result for one size.
#[derive(Clone, Debug)]
pub struct Row {
    /// Of a message, bytes.
    pub size: usize,
    /// Of all blocks.
    pub iterations: u64,
    /// Of one iteration.
    pub seconds: f64,
    /// The same of the fastest block.
    pub fastest: f64,
    /// Of single iterations, where that is wanted.
    pub spread: Option<Spread>,
    /// Bytes that one iteration moves.
    pub bytes: usize,
    /// Wrong bytes found by `-c`.
    pub faults: u64,
}

impl Row {
    /// Blocks that differ so much were not measured on a quiet machine.
    pub fn is_disturbed(&self) -> bool {
        self.seconds > DISTURBED * self.fastest
    }
}

/// How the origin reaches the target, as the window tells it.
#[derive(Clone, Debug)]
pub struct RouteName {
    /// The `mechanism` of its `Route`.
    pub mechanism: String,
    /// Its `shape`.
    pub shape: String,
}

/// The route of `window` from this rank to `target`.
pub fn route<T: Element>(window: &Window<T>, target: Rank) -> RouteName {
    let found = window.routes().find(|route| route.target == target);
    found.map_or_else(
        || RouteName {
            mechanism: "unknown".into(),
            shape: "unknown".into(),
        },
        |route| RouteName {
            mechanism: route.mechanism.to_string(),
            shape: route.shape.to_string(),
        },
    )
}

/// Does this rank put or get?
pub fn is_origin(world: &World, options: &Options) -> bool {
    world.rank() == Rank(options.origin)
}

/// The row has meaning at the origin, its faults everywhere. Collective.
pub fn measure(
    world: &World,
    options: &Options,
    work: &mut impl Timed,
    size: usize,
    meter: &Meter,
) -> Result<Row, Failure> {
    let (iterations, blocks) = match options.iterations {
        Some(iterations) => (iterations, 1),
        None => (calibrate(world, options, work, size, BLOCK)?, BLOCKS),
    };
    let warmup = options.warmup.unwrap_or(iterations.div_ceil(10));
    work.block(size, warmup, &mut ())?;
    let mut times = Vec::new();
    for _ in 0..blocks {
        times.push(work.block(size, iterations, &mut ())?);
        meter.tick();
    }
    times.sort_unstable();
    let [seconds, fastest] =
        [times[times.len() / 2], times[0]].map(|time| time.as_secs_f64() / iterations as f64);
    let spread = match options.samples() {
        true => {
            let mut samples = Samples::new(iterations * blocks, fastest);
            work.block(size, iterations * blocks, &mut samples)?;
            samples.spread()
        }
        false => None,
    };
    let faults = match options.validate {
        true => work.validate(size)?,
        false => 0,
    };
    let median = spread.filter(|_| options.benchmark == Benchmark::Progress);
    Ok(Row {
        size,
        iterations: iterations * blocks,
        seconds: median.map_or(seconds, |spread| spread.median),
        fastest,
        spread,
        bytes: size * options.burst(),
        faults,
    })
}

/// How many iterations fill a block of that length; the origin decides for all ranks. Collective.
pub fn calibrate(
    world: &World,
    options: &Options,
    work: &mut impl Timed,
    size: usize,
    block: Duration,
) -> Result<u64, Failure> {
    let mut iterations: u64 = 8;
    loop {
        let elapsed = work.block(size, iterations, &mut ())?;
        let enough = elapsed >= block / 8 || iterations >= MAX_ITERATIONS;
        let next = match enough {
            true => (block.as_secs_f64() / (elapsed.as_secs_f64() / iterations as f64)) as u64,
            false => iterations * 8,
        };
        let decided = job::share(
            world,
            Rank(options.origin),
            vec![u64::from(enough), next.clamp(8, MAX_ITERATIONS)],
        )?;
        iterations = decided[1];
        if decided[0] == 1 {
            return Ok(iterations);
        }
    }
}

/// Sum over all ranks, at all ranks. Collective.
pub fn add_up(world: &World, number: u64) -> Result<u64, Failure> {
    let mut total = world.allocate::<u64>(1)?;
    let epoch = total.fence()?;
    epoch.accumulate(&[number], ROOT, 0, Op::Sum)?;
    epoch.end()?;
    let sum = if world.rank() == ROOT {
        total.lock_local()?[0]
    } else {
        0
    };
    total.free()?;
    Ok(job::share(world, ROOT, vec![sum])?[0])
}
