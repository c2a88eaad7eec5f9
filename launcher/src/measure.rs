//! What can be measured, and how: the benchmarks, and their options with the letters of the OSU one-sided set.
//!
//! One statement for both who read it: `windlass bench`, which refuses a mistake before anything is built or
//! started, and the program `windlass-osu` (`benches/osu`), which measures.

use std::fmt;

use clap::{ArgAction, Parser, ValueEnum};

/// Runs of one strided put.
pub const RUNS: usize = 1_000;
/// The longest of them, bytes.
const MAX_RUN: usize = 4 << 10;
/// Of an update, bytes.
const WORD: usize = 8;
/// The operations of a burst go side by side into at most this much memory, then again from its start.
const STREAM_BYTES: usize = 16 << 20;
/// Larger messages than any benchmark needs would only meet the memory limit.
const MAX_MESSAGE: usize = 1 << 30;
const MAX_BURST: u64 = 1 << 20;

/// The only argument by which a benchmark is asked for its [`STAMP`].
pub const ASK: &str = "__stamp";

/// Of this file's text: launcher and benchmark that have the same one understand the same.
pub const STAMP: u64 = stamp(include_str!("measure.rs").as_bytes());

/// FNV-1a.
const fn stamp(text: &[u8]) -> u64 {
    let (mut sum, mut at) = (0xcbf2_9ce4_8422_2325, 0);
    while at < text.len() {
        sum = (sum ^ text[at] as u64).wrapping_mul(0x100_0000_01b3);
        at += 1;
    }
    sum
}

pub(crate) const EXAMPLES: &str = "\
Examples (before each: windlass bench):
  put-latency -m 8:8 -u ns --ratio       one size, in nanoseconds, over a plain store
  put-bw -w create -s fence -W 16 -c     lent memory, 16 puts before each fence, data validated
  progress -m 8:8 --nodes 2 -f           a target that computes, on another node
  get-latency --place ve0,ve1 --json     between two Vector Engines, as JSON
  fence -n 4 --hog                       of more ranks than cpus, beside a busy process
  put-latency --all-routes               a table for each way that there is between the two";

/// Benchmarks of windows between two ranks, with the options of the OSU one-sided set
#[derive(Parser, Clone, Debug)]
#[command(name = "windlass-osu", version, disable_version_flag = true, after_help = EXAMPLES, max_term_width = 110)]
pub struct Options {
    /// What to measure
    #[arg(value_enum, value_name = "BENCHMARK")]
    pub benchmark: Benchmark,
    /// How the window is made
    #[arg(short = 'w', long, value_enum, value_name = "WINDOW", default_value_t = Creation::Allocate)]
    pub window: Creation,
    /// How operations are completed [default: flush]; what is a synchronisation itself has its own way
    #[arg(short = 's', long, value_enum, value_name = "SYNC")]
    pub sync: Option<Sync>,
    /// Message sizes in bytes, the powers of two from MIN to MAX; K, M, G stand for KiB, MiB, GiB
    /// [default: 1:4M; progress 8:64K]. Updates and msg-rate have 8 bytes, accumulates whole words, the runs of
    /// strided-put at most 4K
    #[arg(short = 'm', long, value_name = "[MIN:]MAX")]
    pub message_size: Option<Sizes>,
    /// Iterations per size, averaged; without it, the median of five blocks of about 10 ms
    #[arg(short = 'i', long, value_name = "N", value_parser = whole(1, u64::MAX))]
    pub iterations: Option<u64>,
    /// Iterations before the measured ones; without it, a tenth of a block
    #[arg(short = 'x', long, value_name = "N", value_parser = whole(0, u64::MAX))]
    pub warmup: Option<u64>,
    /// Operations before one completion, in put-bw, get-bw, put-bibw and msg-rate [default: 64]
    #[arg(short = 'W', long, value_name = "N", value_parser = whole(1, MAX_BURST))]
    pub window_size: Option<u64>,
    /// Compare all bytes of one more transfer of each size; a difference makes the exit code 1
    #[arg(short = 'c', long)]
    pub validate: bool,
    /// Further columns: of single iterations the shortest, the median, the 99th percentile, the longest
    #[arg(short = 'f', long)]
    pub full: bool,
    /// Unit of latencies
    #[arg(short = 'u', long, value_enum, value_name = "UNIT", default_value_t = Unit::Us)]
    pub unit: Unit,
    /// Also compare with what the machine itself needs for the like, measured in the same run
    #[arg(long)]
    pub ratio: bool,
    /// Beside a process that keeps a cpu busy and has nothing to do with the job
    #[arg(long)]
    pub hog: bool,
    /// The target computes meanwhile, instead of waiting in a call; with -s flush, flush_local, lock, lock_all
    #[arg(long)]
    pub compute: bool,
    /// The rank that puts or gets
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    pub origin: u32,
    /// The rank whose window it reaches
    #[arg(long, value_name = "RANK", default_value_t = 1)]
    pub target: u32,
    /// One JSON object instead of the table
    #[arg(long)]
    pub json: bool,
    /// Change a byte of what -c transfers, to see that it is found
    #[arg(long, requires = "validate")]
    pub spoil: bool,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Benchmark {
    /// One put and its completion
    PutLatency,
    /// One get and its completion
    GetLatency,
    /// Puts in bursts of -W, in MB/s
    PutBw,
    /// Gets in bursts of -W, in MB/s
    GetBw,
    /// Puts in bursts of -W, both ranks to each other at once, in MB/s of both
    PutBibw,
    /// One accumulate (sum of 8-byte words) and its completion
    AccLatency,
    /// One get_accumulate (sum of 8-byte words) and its completion
    GetAccLatency,
    /// One fetch_and_op of 8 bytes and its completion
    FopLatency,
    /// One compare_and_swap of 8 bytes and its completion
    CasLatency,
    /// A fence of all ranks without operations
    Fence,
    /// Start and complete, post and wait of the two without operations
    Pscw,
    /// Lock and unlock of the target without operations
    Lock,
    /// The synchronisation of -s without operations
    SyncLatency,
    /// A barrier of all ranks, without a window
    Barrier,
    /// Creation and collective end of a window of this size, by all ranks
    WindowCreate,
    /// One put_notify until the target knows of it: half of there and back
    NotifyLatency,
    /// Puts of 8 bytes in bursts of -W, in messages per second
    MsgRate,
    /// One put of 1,000 runs of this size with gaps as long on both sides, and its completion
    #[value(alias = "strided-latency")]
    StridedPut,
    /// One put and its completion while the target computes and makes no call: median, 99th percentile, longest
    Progress,
}

/// `-w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Creation {
    /// Of memory from the runtime
    Allocate,
    /// Over memory lent by the program
    Create,
    /// Without memory; lent memory is attached, and reached by its address
    Dynamic,
    /// Of memory that all ranks map
    Shared,
}

/// `-s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sync {
    /// One lock around all iterations, each ends with a flush
    Flush,
    /// The same with a local flush
    #[value(name = "flush_local", alias = "flush-local")]
    FlushLocal,
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

/// `-u`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unit {
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
pub struct Sizes {
    /// Smallest.
    pub min: usize,
    /// Largest.
    pub max: usize,
}

impl Sizes {
    const fn only(size: usize) -> Self {
        Self {
            min: size,
            max: size,
        }
    }
}

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

/// Reads a whole number in a range; refuses another with what to give instead.
fn whole(min: u64, max: u64) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + 'static {
    move |text| {
        let number = text.parse().ok();
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| match max {
                u64::MAX => format!("give a whole number of {min} or more"),
                _ => format!("give a whole number from {min} to {max}"),
            })
    }
}

/// Bytes from the first to behind the last run of a strided put.
pub fn spread(run: usize) -> usize {
    (2 * RUNS - 1) * run
}

impl Options {
    /// Do they fit together, and a job of so many ranks? If not: what to give instead.
    ///
    /// # Errors
    /// The first that does not, with the remedy.
    pub fn check(&self, ranks: u32) -> Result<(), String> {
        for (name, rank) in [("origin", self.origin), ("target", self.target)] {
            if rank >= ranks {
                let have = if ranks == 1 { "rank" } else { "ranks" };
                return Err(format!(
                    "the {name} is rank {rank}, but this job has {ranks} {have}; \
                     start more (windlass run -n {}) or give --{name} another rank",
                    rank + 1
                ));
            }
        }
        let Self { benchmark, .. } = self;
        let refusals = [
            (
                self.sync.is_some() && benchmark.own_sync().is_some(),
                "has its own way of completion: leave -s out, or take sync-latency or put-latency with -s",
            ),
            (
                self.window_size.is_some() && !benchmark.is_burst(),
                "completes each operation: leave -W out, or take put-bw, get-bw, put-bibw or msg-rate",
            ),
            (
                self.validate && !benchmark.moves_data(),
                "moves no data: leave -c out, or take put-latency with -s and -c",
            ),
            (
                self.is_dynamic()
                    && matches!(benchmark, Benchmark::StridedPut | Benchmark::NotifyLatency),
                "needs a window with parts: give another -w than dynamic",
            ),
            (
                self.is_dynamic() && self.ratio,
                "is not compared with the machine over a dynamic window: leave --ratio out, or give another -w",
            ),
            (
                benchmark.is_mutual() && self.origin == self.target,
                "is between two ranks: give --origin and --target different ones",
            ),
            (
                self.computes()
                    && !(self.is_passive()
                        && benchmark.is_one_sided()
                        && self.origin != self.target),
                "with a target that computes needs another rank as target, which takes no part: give -s flush, \
                 flush_local, lock or lock_all, and a benchmark of operations of one rank",
            ),
        ];
        match refusals.iter().find(|(refused, _)| *refused) {
            Some((_, why)) => Err(format!("{benchmark} {why}")),
            None => Ok(()),
        }
    }

    /// How operations are completed.
    pub fn sync(&self) -> Sync {
        let own = match self.benchmark.own_sync() {
            Some(own) => own,
            None => self.sync,
        };
        own.unwrap_or(Sync::Flush)
    }

    fn is_dynamic(&self) -> bool {
        self.window == Creation::Dynamic
    }

    /// Does the target take no part in the synchronisation?
    fn is_passive(&self) -> bool {
        !matches!(self.sync(), Sync::Fence | Sync::Pscw)
    }

    /// Does the target compute?
    pub fn computes(&self) -> bool {
        self.compute || self.benchmark == Benchmark::Progress
    }

    /// Is the time of single iterations wanted?
    pub fn samples(&self) -> bool {
        self.full || self.benchmark == Benchmark::Progress
    }

    /// Operations of one iteration.
    pub fn burst(&self) -> usize {
        match self.benchmark.is_burst() {
            true => self.window_size.unwrap_or(64) as usize,
            false => 1,
        }
    }

    /// MIN, then each power of two above it, up to MAX.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + use<> {
        use Benchmark::*;
        let given = self.message_size.unwrap_or(match self.benchmark {
            Progress => Sizes {
                min: 8,
                max: 64 << 10,
            },
            _ => Sizes {
                min: 1,
                max: 4 << 20,
            },
        });
        let Sizes { min, max } = match self.benchmark {
            FopLatency | CasLatency | MsgRate => Sizes::only(WORD),
            Fence | Pscw | Lock | SyncLatency | Barrier => Sizes::only(0),
            AccLatency | GetAccLatency => Sizes {
                min: given.min.next_multiple_of(WORD),
                max: given.max.next_multiple_of(WORD),
            },
            StridedPut => Sizes {
                min: given.min.min(MAX_RUN),
                max: given.max.min(MAX_RUN),
            },
            _ => given,
        };
        std::iter::successors(Some(min), |&size| Some((size + 1).next_power_of_two()))
            .take_while(move |&size| size <= max)
    }

    /// Bytes of each rank's window and of the origin's buffer.
    pub fn buffer_bytes(&self) -> usize {
        let used = self.sizes().map(|size| match self.benchmark {
            Benchmark::StridedPut => spread(size),
            _ => self.slots(size) * size,
        });
        used.max().unwrap_or(0)
    }

    /// At how many places side by side a burst puts messages of this size.
    pub fn slots(&self, size: usize) -> usize {
        (STREAM_BYTES / size.max(1)).clamp(1, self.burst())
    }
}

impl Benchmark {
    /// Its own way of completion: of an `-s`, or one that has no `-s`.
    pub fn own_sync(self) -> Option<Option<Sync>> {
        match self {
            Benchmark::Fence => Some(Some(Sync::Fence)),
            Benchmark::Pscw => Some(Some(Sync::Pscw)),
            Benchmark::Lock => Some(Some(Sync::Lock)),
            Benchmark::Barrier | Benchmark::NotifyLatency | Benchmark::WindowCreate => Some(None),
            _ => None,
        }
    }

    /// Are several operations completed at once?
    fn is_burst(self) -> bool {
        use Benchmark::*;
        matches!(self, PutBw | GetBw | PutBibw | MsgRate)
    }

    /// Is there something that `-c` can compare?
    pub fn moves_data(self) -> bool {
        use Benchmark::*;
        !matches!(self, Fence | Pscw | Lock | SyncLatency | Barrier)
    }

    /// Do both ranks act?
    fn is_mutual(self) -> bool {
        matches!(self, Benchmark::PutBibw | Benchmark::NotifyLatency)
    }

    /// Does the origin act alone?
    fn is_one_sided(self) -> bool {
        !self.is_mutual() && !matches!(self, Benchmark::Barrier | Benchmark::WindowCreate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse_from(["windlass-osu"].iter().chain(words))
    }

    fn refused(words: &[&str]) -> String {
        let parsed = Options::try_parse_from(["windlass-osu"].iter().chain(words));
        parsed.expect_err("accepted").to_string()
    }

    #[test]
    fn sizes_are_powers_of_two_from_the_first() {
        let sizes = |benchmark, text| parse(&[benchmark, "-m", text]).sizes().collect::<Vec<_>>();
        for (text, expected) in [
            ("16", &[1, 2, 4, 8, 16][..]),
            ("3:20", &[3, 4, 8, 16]),
            ("1K:2K", &[1024, 2048]),
            ("8:8", &[8]),
            ("1G:1G", &[1 << 30]),
        ] {
            assert_eq!(sizes("put-latency", text), expected);
        }
        assert_eq!(sizes("acc-latency", "1:30"), [8, 16, 32]);
        assert_eq!(sizes("strided-put", "2K:1M"), [2048, 4096]);
        assert_eq!(sizes("msg-rate", "1:1M"), [8]);
        assert_eq!(sizes("barrier", "1:1M"), [0]);
        assert_eq!(parse(&["progress"]).sizes().last(), Some(64 << 10));
        assert_eq!(parse(&["put-bw"]).sizes().last(), Some(4 << 20));
    }

    #[test]
    fn a_burst_fits_into_the_buffers() {
        for burst in ["1", "64", "1000"] {
            for text in ["1:4M", "5:5", "1M:64M", "1:1"] {
                let options = parse(&["put-bw", "-m", text, "-W", burst]);
                for size in options.sizes() {
                    let used = options.slots(size) * size;
                    assert!(used > 0 && used <= options.buffer_bytes(), "{text} {size}");
                }
            }
        }
    }

    #[test]
    fn names_decide_the_synchronisation() {
        for (words, sync) in [
            (&["put-latency"][..], Sync::Flush),
            (&["put-latency", "-s", "flush_local"], Sync::FlushLocal),
            (&["fence"], Sync::Fence),
            (&["pscw"], Sync::Pscw),
            (&["lock"], Sync::Lock),
            (&["sync-latency", "-s", "lock_all"], Sync::LockAll),
        ] {
            assert_eq!(parse(words).sync(), sync);
        }
    }

    #[test]
    fn values_are_refused_with_a_remedy() {
        assert!(refused(&["put-latency", "-m", "8:4"]).contains("MIN:MAX"));
        assert!(refused(&["put-latency", "-m", "0"]).contains("1 byte to 1 GiB"));
        assert!(refused(&["put-latency", "-m", "x"]).contains("64K"));
        assert!(refused(&["put-latency", "-m", "99999999999999999999M"]).contains("not a size"));
        assert!(refused(&["put-latency", "-s", "barrier"]).contains("lock_all"));
        assert!(refused(&["put-latency", "-w", "mine"]).contains("dynamic"));
        assert!(refused(&["put-bw", "-W", "0"]).contains("from 1 to 1048576"));
        assert!(refused(&["put-latency", "-i", "0"]).contains("1 or more"));
        assert!(refused(&["put-latency", "--spoil"]).contains("--validate"));
        assert!(refused(&["put-late"]).contains("'put-latency'"));
    }

    #[test]
    fn combinations_are_refused_with_a_remedy() {
        assert!(parse(&["put-latency"]).check(2).is_ok());
        let alone = parse(&["put-latency"]).check(1);
        assert!(alone.expect_err("accepted").contains("-n 2"));
        for (line, remedy) in [
            ("put-latency --compute", ""),
            ("fop-latency --compute -s lock", ""),
            ("progress -s flush_local -w dynamic", ""),
            ("put-bw -W 8 -c -w shared", ""),
            ("put-latency --compute -s fence", "give -s flush"),
            ("progress -s pscw", "give -s flush"),
            ("notify-latency --compute", "give -s flush"),
            ("put-bibw --compute", "give -s flush"),
            ("put-latency --compute --origin 1", "another rank as target"),
            ("fence -s lock", "leave -s out"),
            ("window-create -s lock", "leave -s out"),
            ("put-latency -W 8", "leave -W out"),
            ("barrier -c", "leave -c out"),
            ("pscw -c", "leave -c out"),
            ("strided-put -w dynamic", "give another -w"),
            ("notify-latency -w dynamic", "give another -w"),
            ("put-latency -w dynamic --ratio", "leave --ratio out"),
            ("put-bibw --origin 1", "different ones"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            match parse(&words).check(2) {
                Ok(()) => assert_eq!(remedy, "", "{line}"),
                Err(said) => assert!(
                    !remedy.is_empty() && said.contains(remedy),
                    "{line}: {said}"
                ),
            }
        }
    }
}
