//! The timed loops.

use std::time::{Duration, Instant};

use windlass::{Epoch, Kind, LockKind, Op, Rank, Window, World};

use crate::job::{self, Failure, ROOT};
use crate::options::{BURST, Benchmark, Creation, Options, Sync};

/// Without `-i`, a size is measured in so many blocks of about this length; the median counts.
const BLOCK: Duration = Duration::from_millis(10);
const BLOCKS: u64 = 5;
const MAX_ITERATIONS: u64 = 10_000_000;

/// The result for one size.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) size: usize,
    pub(crate) iterations: u64,
    /// Of one iteration.
    pub(crate) seconds: f64,
    /// Bytes that one iteration moves.
    pub(crate) bytes: usize,
    /// Wrong bytes found by `-c`.
    pub(crate) faults: u64,
}

/// How the origin reaches the target, as the window tells it.
#[derive(Clone, Debug)]
pub(crate) struct RouteName {
    pub(crate) mechanism: String,
    pub(crate) shape: String,
}

/// A window, the buffers of the origin, and what to do with them.
pub(crate) struct Measurement<'a> {
    world: &'a World,
    options: &'a Options,
    window: Window<u8>,
    buffer: Vec<u8>,
}

impl<'a> Measurement<'a> {
    /// Collective.
    pub(crate) fn new(world: &'a World, options: &'a Options) -> Result<Self, Failure> {
        let bytes = options.buffer_bytes();
        let mut window = match options.window {
            Creation::Allocate => world.allocate::<u8>(bytes)?,
            Creation::Create => world.create(vec![0; bytes])?.without_loan(),
        };
        // Touches the pages, so that no measured transfer is the first on one.
        window.lock_local()?.fill(1);
        Ok(Self {
            world,
            options,
            window,
            buffer: vec![2; bytes],
        })
    }

    pub(crate) fn route(&self) -> RouteName {
        let target = Rank(self.options.target);
        let found = self.window.routes().find(|route| route.target == target);
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

    /// Collective; the row has meaning at the origin, its faults everywhere.
    pub(crate) fn measure(&mut self, size: usize) -> Result<Row, Failure> {
        let (iterations, blocks) = match self.options.iterations {
            Some(iterations) => (iterations, 1),
            None => (self.calibrate(size)?, BLOCKS),
        };
        let warmup = self.options.warmup.unwrap_or(iterations.div_ceil(10));
        self.block(size, warmup)?;
        let mut times = Vec::new();
        for _ in 0..blocks {
            times.push(self.block(size, iterations)?);
        }
        times.sort_unstable();
        let faults = if self.options.validate {
            self.validate(size)?
        } else {
            0
        };
        let burst = match self.options.benchmark {
            Benchmark::PutBw => BURST,
            _ => 1,
        };
        Ok(Row {
            size,
            iterations: iterations * blocks,
            seconds: times[times.len() / 2].as_secs_f64() / iterations as f64,
            bytes: size * burst,
            faults,
        })
    }

    pub(crate) fn free(self) -> Result<(), Failure> {
        self.window.free()?;
        Ok(())
    }

    /// Finds how many iterations fill a block; the origin decides for all ranks, which fence alike.
    fn calibrate(&mut self, size: usize) -> Result<u64, Failure> {
        let mut iterations: u64 = 8;
        loop {
            let elapsed = self.block(size, iterations)?;
            let enough = elapsed >= BLOCK / 8 || iterations >= MAX_ITERATIONS;
            let next = match enough {
                true => (BLOCK.as_secs_f64() / (elapsed.as_secs_f64() / iterations as f64)) as u64,
                false => iterations * 8,
            };
            let decided = job::share(
                self.world,
                Rank(self.options.origin),
                vec![u64::from(enough), next],
            )?;
            iterations = decided[1].clamp(8, MAX_ITERATIONS);
            if decided[0] == 1 {
                return Ok(iterations);
            }
        }
    }

    /// Time of this many iterations at the origin; the other ranks take part as the synchronisation
    /// asks. Collective.
    fn block(&mut self, size: usize, iterations: u64) -> Result<Duration, Failure> {
        self.world.barrier()?;
        let Self {
            world,
            options,
            window,
            buffer,
        } = self;
        let target = Rank(options.target);
        let is_origin = world.rank().0 == options.origin;
        let mut elapsed = Duration::ZERO;
        match options.sync {
            Sync::Fence => {
                let mut epoch = window.fence()?;
                let began = Instant::now();
                for _ in 0..iterations {
                    if is_origin {
                        operate(options, &epoch, buffer, size)?;
                    }
                    epoch = epoch.next()?;
                }
                elapsed = began.elapsed();
                epoch.end()?;
            }
            _ if !is_origin => {}
            Sync::Flush => {
                let lock = window.lock(target, LockKind::Shared)?;
                let began = Instant::now();
                for _ in 0..iterations {
                    operate(options, &lock, buffer, size)?;
                    lock.flush(target)?;
                }
                elapsed = began.elapsed();
                lock.end()?;
            }
            Sync::Lock => {
                let began = Instant::now();
                for _ in 0..iterations {
                    let lock = window.lock(target, LockKind::Shared)?;
                    operate(options, &lock, buffer, size)?;
                    lock.end()?;
                }
                elapsed = began.elapsed();
            }
            Sync::LockAll => {
                let began = Instant::now();
                for _ in 0..iterations {
                    let epoch = window.lock_all()?;
                    operate(options, &epoch, buffer, size)?;
                    epoch.end()?;
                }
                elapsed = began.elapsed();
            }
        }
        world.barrier()?;
        Ok(elapsed)
    }

    /// One more iteration with bytes that depend on size and place; all of them are compared.
    /// Collective.
    fn validate(&mut self, size: usize) -> Result<u64, Failure> {
        let pattern = |at: usize| (at.wrapping_mul(167) ^ at >> 8 ^ size.wrapping_mul(59)) as u8;
        let used = size * self.options.slots(size);
        let is_get = self.options.benchmark == Benchmark::GetLatency;
        let me = self.world.rank().0;
        let from_window = is_get && me == self.options.target;
        let from_buffer = !is_get && me == self.options.origin;
        if from_window {
            let mut memory = self.window.lock_local()?;
            memory[..used]
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = pattern(at));
        }
        if from_buffer {
            self.buffer[..used]
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = pattern(at));
        }
        self.block(size, 1)?;
        let wrong = |bytes: &[u8]| {
            bytes
                .iter()
                .enumerate()
                .filter(|&(at, &byte)| byte != pattern(at))
                .count() as u64
        };
        let mut faults = 0;
        if is_get && me == self.options.origin {
            faults = wrong(&self.buffer[..used]);
        }
        if !is_get && me == self.options.target {
            faults = wrong(&self.window.lock_local()?[..used]);
        }
        add_up(self.world, faults)
    }
}

/// One iteration without its completion.
#[inline(always)]
fn operate(
    options: &Options,
    epoch: &Epoch<'_, u8, impl Kind>,
    buffer: &mut [u8],
    size: usize,
) -> Result<(), windlass::Error> {
    let target = Rank(options.target);
    match options.benchmark {
        Benchmark::PutLatency => epoch.put(&buffer[..size], target, 0),
        Benchmark::GetLatency => epoch.get(&mut buffer[..size], target, 0),
        Benchmark::PutBw => {
            let slots = options.slots(size);
            for put in 0..BURST {
                let at = put % slots * size;
                epoch.put(&buffer[at..at + size], target, at)?;
            }
            Ok(())
        }
    }
}

/// Sum over all ranks, at all ranks. Collective.
fn add_up(world: &World, number: u64) -> Result<u64, Failure> {
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
