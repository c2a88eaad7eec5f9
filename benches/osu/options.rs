//! The command line, with the option letters of the OSU one-sided benchmarks.

use std::fmt;

use clap::{ArgAction, Parser, ValueEnum};
use windlass::{Rank, World};

use crate::job;

/// Puts or gets in flight before one completion in the bandwidth benchmark.
pub(crate) const BURST: usize = 64;
/// Runs of one strided put.
pub(crate) const RUNS: usize = 1_000;
/// The longest run, bytes.
const MAX_RUN: usize = 4 << 10;
/// The bandwidth benchmark's puts go side by side into at most this much memory, then again from
/// its start.
const STREAM_BYTES: usize = 16 << 20;

/// OSU-style benchmarks of windows, between two ranks of a job
#[derive(Parser, Debug)]
#[command(name = "windlass-osu", version, disable_version_flag = true)]
pub(crate) struct Options {
    /// What to measure
    pub(crate) benchmark: Benchmark,
    /// How the window is made: of the runtime's memory, or of memory the program lends
    #[arg(short = 'w', long, value_enum, default_value_t = Creation::Allocate)]
    pub(crate) window: Creation,
    /// How operations are completed; notify-latency and window-create have their own way
    #[arg(short = 's', long, value_enum, default_value_t = Sync::Flush)]
    pub(crate) sync: Sync,
    /// Message sizes in bytes, the powers of two from MIN to MAX; K, M, G stand for KiB, MiB, GiB.
    /// Updates are always of 8 bytes, the runs of strided-latency of at most 4 KiB
    #[arg(short = 'm', long, value_name = "[MIN:]MAX", default_value = "1:4M")]
    pub(crate) message_size: Sizes,
    /// Iterations per size, averaged; without it, the median of five blocks of about 10 ms
    #[arg(short = 'i', long, value_name = "N", value_parser = job::at_least_one::<u64>())]
    pub(crate) iterations: Option<u64>,
    /// Iterations before the measured ones; without it, a tenth of a block
    #[arg(short = 'x', long, value_name = "N")]
    pub(crate) warmup: Option<u64>,
    /// Compare all bytes of one more transfer of each size; a difference makes the exit code 1
    #[arg(short = 'c', long)]
    pub(crate) validate: bool,
    /// Unit of latencies
    #[arg(short = 'u', long, value_enum, default_value_t = Unit::Us)]
    pub(crate) unit: Unit,
    /// Also compare with what the machine itself needs for the like, measured in the same run
    #[arg(long)]
    pub(crate) ratio: bool,
    /// Beside a process that keeps a cpu busy and has nothing to do with the job
    #[arg(long)]
    pub(crate) hog: bool,
    /// The target computes meanwhile, instead of waiting in a call: for flush, lock and lock_all
    #[arg(long)]
    pub(crate) compute: bool,
    /// The rank that puts or gets
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    pub(crate) origin: u32,
    /// The rank whose window it reaches
    #[arg(long, value_name = "RANK", default_value_t = 1)]
    pub(crate) target: u32,
    /// One JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benchmark {
    /// One put and its completion
    PutLatency,
    /// One get and its completion
    GetLatency,
    /// Puts in bursts of 64, in MB/s
    PutBw,
    /// One put of 1,000 runs of this size with gaps as long on both sides, and its completion
    StridedLatency,
    /// One fetch_and_op and its completion
    FopLatency,
    /// One compare_and_swap and its completion
    CasLatency,
    /// The synchronisation alone, without an operation
    SyncLatency,
    /// One put_notify until the target knows of it: half of there and back
    NotifyLatency,
    /// Creation and collective end of a window of this size
    WindowCreate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Creation {
    /// Memory from the runtime
    Allocate,
    /// Memory lent by the program
    Create,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    /// One lock around all iterations, each ends with a flush
    Flush,
    /// Lock and unlock the target in each iteration
    Lock,
    /// Lock and unlock all ranks in each iteration
    #[value(name = "lock_all", alias = "lock-all")]
    LockAll,
    /// Each iteration ends with a fence of all ranks
    Fence,
    /// Each iteration is a start and complete, post and wait of origin and target
    Pscw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unit {
    /// Microseconds, as OSU prints
    Us,
    /// Nanoseconds: two decimals of a microsecond say little about a store
    Ns,
}

/// As on the command line.
macro_rules! shown_as_option {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
            }
        }
    )+};
}

shown_as_option!(Benchmark, Creation, Sync, Unit);

/// Smallest and largest message, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

/// Larger messages than any benchmark needs would only meet the memory limit.
const MAX_MESSAGE: usize = 1 << 30;

impl std::str::FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once(':').unwrap_or(("1", text));
        let sizes = Self {
            min: bytes(min)?,
            max: bytes(max)?,
        };
        if sizes.min > sizes.max {
            return Err(format!(
                "the smallest size {min} is above the largest {max}; give MIN:MAX, for example 8:4M"
            ));
        }
        Ok(sizes)
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: usize = digits.parse().map_err(|_| {
        format!("'{text}' is not a size; give bytes, or KiB, MiB, GiB as in 64K, 4M, 1G")
    })?;
    match number.checked_mul(1 << shift) {
        Some(bytes @ 1..=MAX_MESSAGE) => Ok(bytes),
        _ => Err(format!(
            "{text} is outside 1 byte to 1 GiB; give a size in between"
        )),
    }
}

/// Bytes from the first to behind the last run of a strided put.
pub(crate) fn spread(run: usize) -> usize {
    (2 * RUNS - 1) * run
}

impl Options {
    /// What the size of the job decides.
    pub(crate) fn check(&self, ranks: u32) -> Result<(), String> {
        for (name, rank) in [("origin", self.origin), ("target", self.target)] {
            if rank >= ranks {
                return Err(format!(
                    "the {name} is rank {rank}, but this job has {}; \
                     start more (windlass run -n {}) or give --{name} another rank",
                    job::count(ranks, "rank"),
                    rank + 1
                ));
            }
        }
        let passive = matches!(self.sync, Sync::Flush | Sync::Lock | Sync::LockAll);
        let one_sided = !matches!(
            self.benchmark,
            Benchmark::NotifyLatency | Benchmark::WindowCreate
        );
        if self.compute && !(passive && one_sided && self.origin != self.target) {
            return Err(
                "--compute is for another rank as target that takes no part: \
                 give -s flush, lock or lock_all, and a benchmark of operations"
                    .into(),
            );
        }
        Ok(())
    }

    pub(crate) fn is_origin(&self, world: &World) -> bool {
        world.rank() == Rank(self.origin)
    }

    /// Operations of one iteration.
    pub(crate) fn burst(&self) -> usize {
        match self.benchmark {
            Benchmark::PutBw => BURST,
            _ => 1,
        }
    }

    /// MIN, then each power of two above it, up to MAX.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = usize> {
        let Sizes { min, max } = match self.benchmark {
            Benchmark::FopLatency | Benchmark::CasLatency => Sizes { min: 8, max: 8 },
            Benchmark::SyncLatency => Sizes { min: 0, max: 0 },
            Benchmark::StridedLatency => Sizes {
                min: self.message_size.min.min(MAX_RUN),
                max: self.message_size.max.min(MAX_RUN),
            },
            _ => self.message_size,
        };
        std::iter::successors(Some(min), |&size| Some((size + 1).next_power_of_two()))
            .take_while(move |&size| size <= max)
    }

    /// Bytes of each rank's window and of the origin's buffer.
    pub(crate) fn buffer_bytes(&self) -> usize {
        let used = self.sizes().map(|size| match self.benchmark {
            Benchmark::StridedLatency => spread(size),
            _ => self.slots(size) * size,
        });
        used.max().unwrap_or(0)
    }

    /// At how many places side by side a burst puts messages of this size.
    pub(crate) fn slots(&self, size: usize) -> usize {
        (STREAM_BYTES / size.max(1)).clamp(1, self.burst())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        let parsed = Options::try_parse_from(["windlass-osu"].iter().chain(words));
        parsed.expect_err("accepted").to_string()
    }

    #[test]
    fn sizes_are_powers_of_two_from_the_first() {
        let sizes = |text: &str| {
            let options = Options::parse_from(["windlass-osu", "put-latency", "-m", text]);
            options.sizes().collect::<Vec<_>>()
        };
        assert_eq!(sizes("16"), [1, 2, 4, 8, 16]);
        assert_eq!(sizes("3:20"), [3, 4, 8, 16]);
        assert_eq!(sizes("1K:2K"), [1024, 2048]);
        assert_eq!(sizes("8:8"), [8]);
        assert_eq!(sizes("1G:1G"), [1 << 30]);
    }

    #[test]
    fn a_burst_fits_into_the_buffers() {
        for text in ["1:4M", "5:5", "1M:64M", "1:1"] {
            let options = Options::parse_from(["windlass-osu", "put-bw", "-m", text]);
            for size in options.sizes() {
                let used = options.slots(size) * size;
                assert!(used > 0 && used <= options.buffer_bytes(), "{text} {size}");
            }
        }
    }

    #[test]
    fn refusals_name_the_remedy() {
        assert!(refused(&["put-latency", "-m", "8:4"]).contains("MIN:MAX"));
        assert!(refused(&["put-latency", "-m", "0"]).contains("1 byte to 1 GiB"));
        assert!(refused(&["put-latency", "-m", "x"]).contains("64K"));
        assert!(refused(&["put-latency", "-m", "99999999999999999999M"]).contains("not a size"));
        assert!(refused(&["put-latency", "-s", "barrier"]).contains("lock_all"));
        assert!(refused(&["put-late"]).contains("put-latency"));
        let options = Options::parse_from(["windlass-osu", "put-latency"]);
        assert!(options.check(1).expect_err("accepted").contains("-n 2"));
        assert!(options.check(2).is_ok());
        for (words, accepted) in [
            (&["put-latency", "--compute"][..], true),
            (&["fop-latency", "--compute", "-s", "lock"], true),
            (&["put-latency", "--compute", "-s", "fence"], false),
            (&["notify-latency", "--compute"], false),
            (&["put-latency", "--compute", "--origin", "1"], false),
        ] {
            let words = ["windlass-osu"].iter().chain(words);
            assert_eq!(Options::parse_from(words).check(2).is_ok(), accepted);
        }
    }
}
