//! Random access: giga-updates per second, by the rules of the HPC Challenge benchmark of that name.
//!
//! A table of 64-bit words is spread over all ranks; word i begins as i. An update takes the next
//! number of a pseudo-random sequence, whose lowest bits choose a word, wherever it is, and XORs
//! the number into it. All ranks together run through one sequence: each thread of each rank jumps
//! to its own share of it.
//!
//! Updates are atomic, so none may be lost: the same updates once more, and the table is what it
//! was. With `--put`, some words are fetched, changed and put back, as the benchmark allows: what
//! others do to them meanwhile is lost, and so is an update of a word that is there twice. The rule
//! accepts at most 1 % of words that are wrong then; the exit code is 1 if there are more, or any
//! after atomic updates.
//!
//! All threads of a rank share one guard of one epoch.
//!
//! ```text
//! cargo windlass run -n 4 --example gups -- --words 18 --threads 2
//! ```

#[path = "support/job.rs"]
mod job;
#[path = "support/mechanisms.rs"]
mod mechanisms;
#[path = "support/progress.rs"]
mod progress;
#[path = "support/split.rs"]
mod split;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::ProgressBar;
use job::{Failure, ROOT};
use mechanisms::Usage;
use rayon::prelude::*;
use split::Split;
use windlass::{LockAll, Op, Rank, Window, World};

/// Updates random words of a table spread over all ranks, and checks it by undoing the updates
#[derive(Parser, Debug)]
#[command(name = "gups", version, after_help = EXAMPLES)]
struct Arguments {
    /// Words of a rank, as a power of two; the whole table is rounded down to one
    #[arg(long, value_name = "POWER", default_value_t = 14, value_parser = job::number::<u32>(0..=32))]
    words: u32,
    /// Updates of all ranks together; without it, four for every word of the table
    #[arg(long, value_name = "NUMBER", value_parser = job::number::<u64>(1..=MAX_UPDATES))]
    updates: Option<u64>,
    /// Threads of a rank
    #[arg(long, default_value_t = 1, value_parser = job::number::<u32>(1..=1024))]
    threads: u32,
    /// Fetch words and put them back instead of updating them, which loses updates
    #[arg(long)]
    put: bool,
    /// Words that a thread fetches before it puts the first of them back
    #[arg(long, value_name = "WORDS", default_value_t = 16, requires = "put", value_parser = job::number::<u32>(1..=BATCH as u64))]
    lookahead: u32,
}

const EXAMPLES: &str = "\
Examples:
  cargo windlass run -n 4 --example gups
  cargo windlass run -n 2 --example gups -- --words 20 --threads 4
  cargo windlass run -n 4 --example gups -- --put --words 16 --lookahead 8
  cargo windlass run -n 6 --nodes 2 --ves 1 --place ve:2,vh:1 --example gups -- --updates 20000";

/// No run takes longer than a year at 10^10 updates per second.
const MAX_UPDATES: u64 = 1 << 58;

/// The most updates that a thread may store before it carries them out (the benchmark's rule).
const BATCH: usize = 1024;

/// Words that may be wrong, of all words (the benchmark's rule).
const ACCEPTED: f64 = 0.01;

fn main() -> ExitCode {
    job::main("gups", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let arguments = match job::arguments::<Arguments>(world)? {
        Ok(arguments) => arguments,
        Err(code) => return Ok(code),
    };
    let table = Table::new(world, &arguments)?;
    let bytes = 8 * table.words.items as u64;
    if !job::is_room(world, bytes, "give a smaller --words or fewer ranks")? {
        return Ok(ExitCode::from(2));
    }
    let mut window = world.allocate::<u64>(table.words.len(table.me))?;
    for (word, number) in window
        .lock_local()?
        .iter_mut()
        .zip(table.words.range(table.me))
    {
        *word = number as u64;
    }
    let how = match arguments.put {
        true => How::Put(arguments.lookahead as usize),
        false => How::Atomic,
    };
    let elapsed = table.update(world, &mut window, how)?;
    // Each XOR undoes itself.
    table.update(world, &mut window, How::Atomic)?;
    let words = window.lock_local()?;
    let numbers = words.iter().zip(table.words.range(table.me));
    let wrong = numbers
        .filter(|&(&word, number)| word != number as u64)
        .count();
    words.end()?;
    let wrong: u64 = job::gather(world, &[wrong as u64])?.iter().sum();
    let all: Vec<Rank> = world.ranks().collect();
    let usage = mechanisms::count(world, &window, &all)?;
    window.free()?;

    let accepted = match how {
        How::Put(_) => wrong as f64 <= ACCEPTED * table.words.items as f64,
        How::Atomic => wrong == 0,
    };
    if world.rank() == ROOT {
        table.report(how, elapsed, &usage, wrong);
    }
    if !accepted && arguments.put && world.rank() == ROOT {
        eprintln!(
            "gups: more updates were lost than the rule accepts; give a smaller --lookahead, a larger \
             --words or fewer --threads, or leave --put out"
        );
    }
    Ok(if accepted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How a word is changed.
#[derive(Clone, Copy, Debug)]
enum How {
    /// By one accumulate.
    Atomic,
    /// By get and put, this many words at a time.
    Put(usize),
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            How::Atomic => f.write_str("accumulate"),
            How::Put(lookahead) => write!(f, "get and put, {lookahead} at a time"),
        }
    }
}

/// The benchmark's numbers: the powers of x in the field of the polynomials over {0, 1}, modulo
/// x^64 + x^2 + x + 1, as the bits of their coefficients. Number n is x^(n + 1).
struct Numbers(u64);

impl Numbers {
    const POLYNOMIAL: u64 = 7;

    /// The numbers from `first` on, found in 64 steps.
    fn from(first: u64) -> Self {
        // Squaring a polynomial over {0, 1} moves the coefficient of x^i to x^2i.
        let mut squares = [1; 64];
        for i in 1..64 {
            squares[i] = times_x(times_x(squares[i - 1]));
        }
        let square = |a: u64| {
            let powers = (0..64).filter(|i| a >> i & 1 == 1);
            powers.fold(0, |sum, i| sum ^ squares[i])
        };
        let bits = (0..64).rev().map(|bit| first >> bit & 1 == 1);
        Self(bits.fold(1, |power, bit| match bit {
            true => times_x(square(power)),
            false => square(power),
        }))
    }
}

fn times_x(a: u64) -> u64 {
    a << 1 ^ if a >> 63 == 1 { Numbers::POLYNOMIAL } else { 0 }
}

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = times_x(self.0);
        Some(self.0)
    }
}

/// Who has which words and does which updates.
struct Table {
    me: usize,
    /// Over the ranks.
    words: Split,
    /// Over the threads of all ranks.
    updates: Split,
    threads: rayon::ThreadPool,
}

impl Table {
    fn new(world: &World, arguments: &Arguments) -> Result<Self, Failure> {
        let ranks = world.size() as usize;
        // The largest power of two that is not more than all ranks have room for.
        let words = 1 << (arguments.words + world.size().ilog2());
        let updates = arguments.updates.unwrap_or(4 * words as u64);
        let threads = arguments.threads as usize;
        Ok(Self {
            me: world.rank().0 as usize,
            words: Split::new(words, ranks),
            updates: Split::new(usize::try_from(updates)?, ranks * threads),
            threads: rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()?,
        })
    }

    fn report(&self, how: How, elapsed: Duration, usage: &[Usage], wrong: u64) {
        let (words, updates) = (self.words.items, self.updates.items);
        println!(
            "2^{} words on {} of {}, {updates} updates by {how}: {:.1} ms",
            words.ilog2(),
            job::count(self.words.parts as u32, "rank"),
            job::count(self.threads.current_num_threads() as u32, "thread"),
            elapsed.as_secs_f64() * 1e3,
        );
        println!(
            "rate: {:.6} GUPS, {:.1} ns per update and thread",
            updates as f64 / elapsed.as_secs_f64() / 1e9,
            elapsed.as_secs_f64() * 1e9 * self.updates.parts as f64 / updates as f64,
        );
        mechanisms::print(usage);
        println!(
            "words that are wrong after all updates were undone: {wrong}, {:.4} %; accepted: {}",
            100.0 * wrong as f64 / words as f64,
            match how {
                How::Put(_) => "1 %",
                How::Atomic => "none",
            }
        );
    }

    /// All updates; how long they took until they were complete everywhere. Collective.
    fn update(
        &self,
        world: &World,
        window: &mut Window<u64>,
        how: How,
    ) -> Result<Duration, Failure> {
        let threads = self.threads.current_num_threads();
        let mine = self.me * threads..(self.me + 1) * threads;
        let bar = progress::bar(
            world,
            "gups",
            self.updates.len(mine.start) * threads,
            "updates",
        );
        world.barrier()?;
        let began = Instant::now();
        let epoch = window.lock_all()?;
        self.threads.install(|| {
            mine.into_par_iter()
                .try_for_each(|thread| self.share(thread, &epoch, how, &bar))
        })?;
        epoch.end()?;
        world.barrier()?;
        let elapsed = began.elapsed();
        bar.finish_and_clear();
        Ok(elapsed)
    }

    /// The updates of one thread.
    fn share(
        &self,
        thread: usize,
        epoch: &LockAll<'_, u64>,
        how: How,
        bar: &ProgressBar,
    ) -> Result<(), windlass::Error> {
        let updates = self.updates.range(thread);
        let mut numbers = Numbers::from(updates.start as u64);
        let most = match how {
            How::Atomic => BATCH,
            How::Put(lookahead) => lookahead,
        };
        let (mut words, mut batch) = (vec![[0]; most], Vec::with_capacity(most));
        let mut left = updates.len();
        while left > 0 {
            batch.clear();
            batch.extend(numbers.by_ref().take(left.min(most)).map(|number| {
                let (owner, at) = self.words.find(number as usize & (self.words.items - 1));
                (number, Rank(owner as u32), at)
            }));
            match how {
                How::Atomic => {
                    for &(number, owner, at) in &batch {
                        epoch.accumulate(&[number], owner, at, Op::Bxor)?;
                    }
                }
                How::Put(_) => {
                    // All on their way at once.
                    epoch.scope(|scope| {
                        let mut words = words.iter_mut().zip(&batch);
                        words.try_for_each(|(word, &(_, owner, at))| scope.get(word, owner, at))
                    })??;
                    for (&[word], &(number, owner, at)) in words.iter().zip(&batch) {
                        epoch.put(&[word ^ number], owner, at)?;
                    }
                }
            }
            left -= batch.len();
            bar.inc(batch.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many numbers the sequence begins again.
    const PERIOD: u64 = 1_317_624_576_693_539_401;

    #[test]
    fn numbers_are_powers_of_x() {
        let first: Vec<u64> = Numbers::from(0).take(66).collect();
        assert_eq!(first[..3], [2, 4, 8]);
        assert_eq!(first[62..], [1 << 63, 7, 14, 28]);
    }

    #[test]
    fn a_jump_is_as_many_steps() {
        let mut walked = Numbers::from(0);
        for first in 0..2000 {
            assert_eq!(Numbers::from(first).0, walked.0, "from {first}");
            walked.next();
        }
        for first in [1 << 20, 1 << 40, (1 << 58) + 12345, PERIOD - 70] {
            let mut walked = Numbers::from(first);
            for steps in 0..100 {
                assert_eq!(Numbers::from(first + steps).0, walked.0);
                walked.next();
            }
        }
    }

    #[test]
    fn the_sequence_has_its_period() {
        assert_eq!(Numbers::from(PERIOD).0, 1);
        let prime_factors = [7, 73, 127, 337, 92737, 649657];
        assert_eq!(prime_factors.iter().product::<u64>(), PERIOD);
        for factor in prime_factors {
            assert_ne!(Numbers::from(PERIOD / factor).0, 1, "a shorter period");
        }
    }
}
