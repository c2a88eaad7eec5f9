//! What a window costs over the machine itself, measured in turn within one run: absolute times of
//! a shared or virtual machine say little, their ratio does.
//!
//! The yardstick is read before and after each block of iterations. It changes too (a cache line
//! takes four times as long to another cpu after the host has moved one), so only the rounds count
//! in which both readings agree best.

use std::hint::black_box;
use std::time::{Duration, Instant};

use windlass::{LockKind, Rank, World};
use windlass_bench::epochs::Epochs;
use windlass_bench::job::{self, Failure};
use windlass_bench::measure::{Timed, calibrate, is_origin};
use windlass_bench::updates::{Accumulate, CompareSwap, FetchAdd};
use windlass_bench::windows::Windows;
use windlass_bench::wire::{Responder, Wire};
use windlass_bench::work::{Get, GetWord, Nothing, Put, PutWord, PutWords, Strided, Work};
use windlass_bench::yard::{self, Crowd, Locked, Pair};
use windlass_launcher::measure::{Benchmark, Creation, Options, Sync, spread};

use crate::barrier::Barrier;
use crate::notify::Notify;

/// Rounds, and how many of them count.
const ROUNDS: usize = 45;
const KEPT: usize = 15;
/// Length of a block of iterations.
const BLOCK: Duration = Duration::from_millis(1);
/// A copy of so many bytes is timed at least.
const STREAM_BYTES: usize = 16 << 20;

/// One comparison.
#[derive(Clone, Debug)]
pub(crate) struct Ratio {
    pub(crate) what: String,
    pub(crate) size: usize,
    /// Ours and the machine's own, in `unit`.
    pub(crate) ours: f64,
    pub(crate) plain: f64,
    pub(crate) unit: &'static str,
    /// Median over the rounds that count, lowest, highest.
    pub(crate) ratio: [f64; 3],
}

/// The comparisons for benchmark and synchronisation; none where there is nothing to compare with.
/// Collective; the ratios have meaning at the origin.
pub(crate) fn ratios(world: &World, options: &Options) -> Result<Vec<Ratio>, Failure> {
    let yards = Yards {
        world,
        options,
        pair: Pair::new(world, options)?,
    };
    let burst = options.burst();
    match options.benchmark {
        Benchmark::NotifyLatency => yards.notify(),
        Benchmark::WindowCreate => yards.windows(),
        Benchmark::Barrier => yards.barriers(),
        Benchmark::Fence | Benchmark::Pscw | Benchmark::Lock | Benchmark::SyncLatency => {
            let mut found = yards.epochs(Nothing, 1)?;
            // As in the table: nothing is moved.
            found.iter_mut().for_each(|ratio| ratio.size = 0);
            Ok(found)
        }
        Benchmark::PutLatency | Benchmark::Progress => yards.epochs(PutWord::default(), 1),
        Benchmark::GetLatency => yards.epochs(GetWord::default(), 1),
        Benchmark::FopLatency => yards.updates(FetchAdd::default(), Locked::Add),
        Benchmark::AccLatency => yards.updates(Accumulate::new(options, false), Locked::Add),
        Benchmark::GetAccLatency => yards.updates(Accumulate::new(options, true), Locked::Add),
        Benchmark::CasLatency => yards.updates(CompareSwap::default(), Locked::CompareExchange),
        Benchmark::StridedPut => yards.strided(),
        Benchmark::MsgRate => yards.epochs(PutWords::new(options), burst),
        Benchmark::PutBw => {
            let mut found = yards.stream(|| Put::<true>::new(options))?;
            found.extend(yards.epochs(PutWords::new(options), burst)?);
            Ok(found)
        }
        Benchmark::GetBw => yards.stream(|| Get::<true>::new(options)),
        Benchmark::PutBibw => Ok(Vec::new()),
    }
}

struct Yards<'a> {
    world: &'a World,
    options: &'a Options,
    /// Where origin and target share memory and each has a cpu.
    pair: Option<Pair<'a>>,
}

impl Yards<'_> {
    /// `work` by the synchronisation, of 8-byte elements: `parts` operations per iteration.
    fn epochs<W: Work>(&self, work: W, parts: usize) -> Result<Vec<Ratio>, Failure> {
        let bytes = 8 * self.options.burst();
        let mut work: Epochs<'_, W> = Epochs::new(self.world, self.options, bytes, work)?;
        let mut found = Vec::new();
        match (self.options.sync(), &self.pair) {
            (Sync::Flush | Sync::FlushLocal, _) if let Some(wire) = self.wire(&work)? => {
                let (responder, what) = match self.options.computes() {
                    true => (Responder::Sleeps, "a raw round trip to a sleeper"),
                    false => (Responder::Spins, "a raw spinning round trip"),
                };
                let yard = |_: &mut Epochs<'_, W>| wire.round_trip(responder);
                found.push(self.compare(what, &mut work, 8, parts, yard)?);
            }
            _ if !self.is_mapped(&work)? => {}
            (Sync::Flush | Sync::FlushLocal, _) => {
                let what = "a plain store";
                found.push(
                    self.compare(what, &mut work, 8, parts, |_| self.at_origin(yard::store))?,
                );
            }
            (Sync::Lock | Sync::LockAll, _) => {
                let (locked, what) = match self.options.sync() {
                    Sync::Lock => (2, "two locked instructions"),
                    _ => (2 * self.world.size(), "two locked instructions per rank"),
                };
                for kind in [LockKind::Shared, LockKind::Exclusive] {
                    work.lock = kind;
                    let what = match kind {
                        LockKind::Shared => what.into(),
                        LockKind::Exclusive => format!("{what}, exclusive"),
                    };
                    found.push(self.compare(&what, &mut work, 8, parts, |_| {
                        Ok(self.at_origin(|| Locked::Add.alone())? * f64::from(locked))
                    })?);
                    if self.options.sync() == Sync::LockAll {
                        break;
                    }
                }
            }
            (Sync::Fence, _) => found.extend(self.meeting(&mut work)?),
            (Sync::Pscw, Some(pair)) => {
                found.push(self.compare("a hop", &mut work, 8, 1, |_| pair.hop())?);
            }
            (Sync::Pscw, None) => {}
        }
        work.free()?;
        Ok(found)
    }

    /// All ranks meet: a cache line's way where two have a cpu each, else what more of them would need.
    fn meeting(&self, work: &mut impl Timed) -> Result<Option<Ratio>, Failure> {
        if let Some(pair) = &self.pair {
            return Ok(Some(self.compare("a hop", work, 8, 1, |_| pair.hop())?));
        }
        let Some(crowd) = Crowd::new(self.world, Rank(self.options.origin))? else {
            return Ok(None);
        };
        let what = "a counter barrier with yields";
        Ok(Some(self.compare(what, work, 8, 1, |_| crowd.barrier())?))
    }

    fn barriers(&self) -> Result<Vec<Ratio>, Failure> {
        let mut work = Barrier::new(self.world, self.options)?;
        let mut found: Vec<Ratio> = self.meeting(&mut work)?.into_iter().collect();
        found.iter_mut().for_each(|ratio| ratio.size = 0);
        work.free()?;
        Ok(found)
    }

    /// Fetching updates of one element: alone, then against the target's own.
    fn updates<W: Work>(&self, work: W, locked: Locked) -> Result<Vec<Ratio>, Failure> {
        if !matches!(self.options.sync(), Sync::Flush | Sync::FlushLocal) {
            return self.epochs(work, 1);
        }
        let mut work: Epochs<'_, W> = Epochs::new(self.world, self.options, 8, work)?;
        let mut found = Vec::new();
        if self.is_mapped(&work)? {
            found.push(self.compare("a locked instruction", &mut work, 8, 1, |_| {
                self.at_origin(|| locked.alone())
            })?);
            if let Some(pair) = &self.pair {
                work.contended = true;
                let what = "a locked instruction, both contended";
                found.push(self.compare(what, &mut work, 8, 1, |_| pair.contended(locked))?);
            }
        }
        work.free()?;
        Ok(found)
    }

    /// Bursts of puts or gets by flushes against memcpy into window memory of the origin itself.
    fn stream<W: Work<Element = u8>>(&self, work: impl Fn() -> W) -> Result<Vec<Ratio>, Failure> {
        let mut found = Vec::new();
        if !matches!(self.options.sync(), Sync::Flush | Sync::FlushLocal) {
            return Ok(found);
        }
        let (bytes, burst) = (self.options.buffer_bytes(), self.options.burst());
        let mut work: Epochs<'_, W> = Epochs::new(self.world, self.options, bytes, work())?;
        if let Some(wire) = self.wire(&work)? {
            for size in self.options.sizes() {
                let yard = |_: &mut Epochs<'_, W>| wire.stream(size);
                let times = self.compare("a raw stream", &mut work, size, burst, yard)?;
                found.push(times.into_bandwidth());
            }
        } else if self.is_mapped(&work)? {
            let source = vec![3; bytes];
            for size in self.options.sizes() {
                let slots = self.options.slots(size);
                let copies = (STREAM_BYTES / size).clamp(1, 100_000);
                let copy = |work: &mut Epochs<'_, W>| {
                    self.at_origin(|| {
                        let mut memory = work.memory()?;
                        let began = Instant::now();
                        for copy in 0..copies {
                            let at = copy % slots * size;
                            memory[at..at + size].copy_from_slice(&source[at..at + size]);
                            black_box(&mut memory[at]);
                        }
                        Ok(began.elapsed().as_secs_f64() / copies as f64)
                    })
                };
                let times = self.compare("memcpy", &mut work, size, burst, copy)?;
                found.push(times.into_bandwidth());
            }
        }
        work.free()?;
        Ok(found)
    }

    /// A put by layouts against a loop over the runs, into window memory of the origin itself.
    fn strided(&self) -> Result<Vec<Ratio>, Failure> {
        let bytes = self.options.buffer_bytes();
        let work = Strided::new(self.options)?;
        let mut work: Epochs<'_, Strided> = Epochs::new(self.world, self.options, bytes, work)?;
        let mut found = Vec::new();
        if self.is_mapped(&work)? {
            let source = vec![3; bytes];
            for size in self.options.sizes() {
                let rounds = (STREAM_BYTES / spread(size)).clamp(1, 1_000);
                let copy = |work: &mut Epochs<'_, Strided>| {
                    self.at_origin(|| {
                        let mut memory = work.memory()?;
                        Ok(yard::strided(&mut memory, &source, size, rounds))
                    })
                };
                found.push(self.compare("a loop of copies", &mut work, size, 1, copy)?);
            }
        }
        work.free()?;
        Ok(found)
    }

    /// One way against there and back of a cache line.
    fn notify(&self) -> Result<Vec<Ratio>, Failure> {
        let mut work = Notify::new(self.world, self.options)?;
        let mut found = Vec::new();
        if let Some(pair) = &self.pair
            && self.is_mapped(&work)?
        {
            for size in self.options.sizes() {
                let round_trip = |_: &mut Notify<'_>| Ok(2.0 * pair.hop()?);
                found.push(self.compare("a round trip", &mut work, size, 1, round_trip)?);
            }
        }
        work.free()?;
        Ok(found)
    }

    /// Creation and end against those of a memory file; and how many pages that touches.
    fn windows(&self) -> Result<Vec<Ratio>, Failure> {
        let mut work = Windows::new(self.world, self.options)?;
        let mut found = Vec::new();
        for size in self.options.sizes() {
            let before = resident_bytes()?;
            work.block(size, 1, &mut ())?;
            let touched = resident_bytes()?.saturating_sub(before);
            let file = |_: &mut Windows<'_>| self.at_origin(|| yard::file(size));
            found.push(self.compare("a memory file", &mut work, size, 1, file)?);
            if self.options.window == Creation::Allocate {
                let (ours, plain) = (touched as f64, size as f64);
                found.push(Ratio {
                    what: "bytes touched by the first of its size over its bytes".into(),
                    size,
                    ours,
                    plain,
                    unit: "B",
                    ratio: [ours / plain; 3],
                });
            }
        }
        work.free()?;
        Ok(found)
    }

    /// Does the origin reach the target by a mapped route? Collective.
    fn is_mapped(&self, work: &impl Timed) -> Result<bool, Failure> {
        let mapped = u64::from(work.route().shape == "mapped");
        Ok(job::share(self.world, Rank(self.options.origin), vec![mapped])?[0] == 1)
    }

    /// A raw connection, where the route is one between nodes. Collective.
    fn wire(&self, work: &impl Timed) -> Result<Option<Wire<'_>>, Failure> {
        let by_network = u64::from(matches!(work.route().mechanism.as_str(), "udapl" | "ofi"));
        let origin = Rank(self.options.origin);
        match job::share(self.world, origin, vec![by_network])?[0] {
            1 => Wire::new(self.world, self.options),
            _ => Ok(None),
        }
    }

    /// A yardstick that one rank reads alone.
    fn at_origin(&self, yard: impl FnOnce() -> Result<f64, Failure>) -> Result<f64, Failure> {
        match is_origin(self.world, self.options) {
            true => yard(),
            false => Ok(0.0),
        }
    }

    /// An iteration of `parts` parts against the yardstick. Collective.
    fn compare<T: Timed>(
        &self,
        what: &str,
        work: &mut T,
        size: usize,
        parts: usize,
        mut yard: impl FnMut(&mut T) -> Result<f64, Failure>,
    ) -> Result<Ratio, Failure> {
        let iterations = calibrate(self.world, self.options, work, size, BLOCK)?;
        let mut rounds = Vec::new();
        let mut before = yard(work)?;
        for _ in 0..ROUNDS {
            let ours = work.block(size, iterations, &mut ())?.as_secs_f64();
            let after = yard(work)?;
            rounds.push(Round {
                ours: ours / (iterations as f64 * parts as f64),
                before,
                after,
            });
            before = after;
        }
        let benchmark = self.options.benchmark;
        let what = match benchmark.own_sync() {
            Some(_) => format!("{benchmark} over {what}"),
            None => format!("{benchmark}, {} over {what}", self.options.sync()),
        };
        Ok(judge(what, size, rounds))
    }
}

/// Seconds of one round: ours, and the yardstick around it.
struct Round {
    ours: f64,
    before: f64,
    after: f64,
}

impl Round {
    fn disagreement(&self) -> f64 {
        (self.before / self.after).ln().abs()
    }

    fn plain(&self) -> f64 {
        (self.before + self.after) / 2.0
    }

    fn ratio(&self) -> f64 {
        self.ours / self.plain()
    }
}

/// The round whose ratio is the median of those that count, with their spread.
fn judge(what: String, size: usize, mut rounds: Vec<Round>) -> Ratio {
    rounds.sort_by(|a, b| a.disagreement().total_cmp(&b.disagreement()));
    rounds.truncate(KEPT);
    rounds.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    let median = &rounds[rounds.len() / 2];
    Ratio {
        what,
        size,
        ours: median.ours * 1e9,
        plain: median.plain() * 1e9,
        unit: "ns",
        ratio: [median, &rounds[0], &rounds[rounds.len() - 1]].map(Round::ratio),
    }
}

impl Ratio {
    /// Times of `size` bytes as MB/s.
    fn into_bandwidth(self) -> Ratio {
        let [median, lowest, highest] = self.ratio.map(f64::recip);
        let rate = |ns: f64| self.size as f64 / ns * 1e3;
        Ratio {
            ours: rate(self.ours),
            plain: rate(self.plain),
            unit: "MB/s",
            ratio: [median, highest, lowest],
            ..self
        }
    }
}

/// Memory of this process that is shared with others and in use.
fn resident_bytes() -> Result<usize, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssShmem:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or("0");
    Ok(kib.parse::<usize>()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_whose_yardstick_moved_do_not_count() {
        let steady = |ours| Round {
            ours,
            before: 1.0,
            after: 1.0,
        };
        let mut rounds: Vec<Round> = (0..KEPT).map(|round| steady(2.0 + round as f64)).collect();
        rounds.extend((KEPT..ROUNDS).map(|_| Round {
            ours: 100.0,
            before: 1.0,
            after: 4.0,
        }));
        let found = judge("a benchmark".into(), 8, rounds);
        assert_eq!(
            found.ratio,
            [2.0 + (KEPT / 2) as f64, 2.0, 1.0 + KEPT as f64]
        );
        assert_eq!(found.plain, 1e9);
    }

    #[test]
    fn bandwidth_is_the_other_way_round() {
        let times = Ratio {
            what: "a copy".into(),
            size: 1000,
            ours: 2000.0,
            plain: 1000.0,
            unit: "ns",
            ratio: [2.0, 1.0, 4.0],
        };
        let found = times.into_bandwidth();
        assert_eq!((found.ours, found.plain), (500.0, 1000.0));
        assert_eq!(found.ratio, [0.5, 0.25, 1.0]);
    }
}
