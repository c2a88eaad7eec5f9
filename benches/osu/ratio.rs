//! What a window costs over the machine itself, measured in turn within one run: absolute times of
//! a shared or virtual machine say little, their ratio does.

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Instant;

use windlass::{LockKind, Rank, Window, World};

use crate::job::Failure;
use crate::options::{BURST, Benchmark, Creation, Options};

/// Rounds of both loops; the median ratio counts.
const ROUNDS: usize = 15;
/// Operations per timed loop of the word comparison.
const WORDS: u64 = 2_000_000;
/// Bytes per timed loop of the stream comparison.
const STREAM: usize = 256 << 20;

/// One comparison.
#[derive(Clone, Debug)]
pub(crate) struct Ratio {
    pub(crate) what: &'static str,
    pub(crate) size: usize,
    /// Ours and the machine's own, in `unit`.
    pub(crate) ours: f64,
    pub(crate) plain: f64,
    pub(crate) unit: &'static str,
    /// Median over the rounds, lowest, highest.
    pub(crate) ratio: [f64; 3],
}

fn create<T: windlass::Element>(
    world: &World,
    options: &Options,
    len: usize,
) -> Result<Window<T>, Failure> {
    Ok(match options.window {
        Creation::Allocate => world.allocate::<T>(len)?,
        Creation::Create => world.create(vec![T::zeroed(); len])?.without_loan(),
    })
}

fn is_mapped<T: windlass::Element>(window: &Window<T>, target: Rank) -> bool {
    window
        .routes()
        .any(|route| route.target == target && route.shape == "mapped")
}

/// 8-byte operation and flush against a plain 8-byte store. Only mapped routes compare; otherwise
/// empty. Collective.
pub(crate) fn word(world: &World, options: &Options) -> Result<Vec<Ratio>, Failure> {
    let target = Rank(options.target);
    let mut window = create::<u64>(world, options, 8)?;
    window.lock_local()?.fill(0);
    world.barrier()?;
    let mut found = Vec::new();
    if world.rank().0 == options.origin && is_mapped(&window, target) {
        let (plain_memory, _loan) = windlass_mem::lend(vec![0_u64; 8]);
        let plain = plain_memory.atomic_u64(0)?;
        let lock = window.lock(target, LockKind::Shared)?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for value in 0..WORDS {
                // A relaxed store is one plain store instruction, and is never merged with the
                // next.
                plain.store(value, Ordering::Relaxed);
            }
            let store = began.elapsed();
            let began = Instant::now();
            let mut word = [0];
            for value in 0..WORDS {
                if options.benchmark == Benchmark::GetLatency {
                    lock.get(&mut word, target, 0)?;
                    black_box(&mut word);
                } else {
                    lock.put(&[value], target, 0)?;
                }
                lock.flush(target)?;
            }
            rounds
                .push([began.elapsed(), store].map(|time| time.as_secs_f64() * 1e9 / WORDS as f64));
        }
        lock.end()?;
        let what = match options.benchmark {
            Benchmark::GetLatency => "get + flush over a plain store",
            _ => "put + flush over a plain store",
        };
        found.push(median(what, 8, "ns", rounds));
    }
    world.barrier()?;
    window.free()?;
    Ok(found)
}

/// Bandwidth of puts and one flush against memcpy into window memory of the origin itself.
/// Collective.
pub(crate) fn stream(world: &World, options: &Options) -> Result<Vec<Ratio>, Failure> {
    let target = Rank(options.target);
    let mut window = create::<u8>(world, options, options.buffer_bytes())?;
    window.lock_local()?.fill(1);
    world.barrier()?;
    let mut found = Vec::new();
    if world.rank().0 == options.origin && is_mapped(&window, target) {
        let source = vec![3; options.buffer_bytes()];
        for size in options.sizes() {
            let slots = options.slots(size);
            let bursts = (STREAM / ROUNDS / (size * BURST)).clamp(1, 20_000);
            let rate = |began: Instant| {
                (bursts * BURST * size) as f64 / began.elapsed().as_secs_f64() / 1e6
            };
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let mut memory = window.lock_local()?;
                let began = Instant::now();
                for put in 0..bursts * BURST {
                    let at = put % BURST % slots * size;
                    memory[at..at + size].copy_from_slice(&source[at..at + size]);
                    black_box(&mut memory[at]);
                }
                let copy = rate(began);
                memory.end()?;
                let lock = window.lock(target, LockKind::Shared)?;
                let began = Instant::now();
                for _ in 0..bursts {
                    for put in 0..BURST {
                        let at = put % slots * size;
                        lock.put(&source[at..at + size], target, at)?;
                    }
                    lock.flush(target)?;
                }
                rounds.push([rate(began), copy]);
                lock.end()?;
            }
            found.push(median("put over memcpy", size, "MB/s", rounds));
        }
    }
    world.barrier()?;
    window.free()?;
    Ok(found)
}

/// The round whose ratio is the median, with the spread of all.
fn median(what: &'static str, size: usize, unit: &'static str, mut rounds: Vec<[f64; 2]>) -> Ratio {
    let ratio = |round: &[f64; 2]| round[0] / round[1];
    rounds.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let [ours, plain] = rounds[rounds.len() / 2];
    let spread = [&[ours, plain], &rounds[0], &rounds[rounds.len() - 1]].map(ratio);
    Ratio {
        what,
        size,
        ours,
        plain,
        unit,
        ratio: spread,
    }
}
