//! The command line.

use clap::Parser;
use windlass_node::control::{MAX_LOCAL, MAX_WORLD};

use crate::machine::Model;
use crate::operations::Operation;

/// How synchronisation, locks and window creation grow with the ranks: Windlass's own algorithms over
/// a simulated network, up to 4096 ranks in this process
#[derive(Parser, Debug)]
#[command(
    name = "windlass-simulate",
    version,
    disable_version_flag = true,
    after_help = "Examples:\n  windlass bench --simulate 4096\n  \
                  windlass bench --simulate 1024 --per-node 64 --only fence --only lock\n  \
                  windlass bench --simulate 256 -L 1500 -o 300 -g 50 -G 0.1 --json   # a fast network\n\n\
                  Times are predictions of the model, messages and bytes are counted. The same seed prints the same.\n\
                  The defaults were measured between two nodes of one 2-core virtual machine over TCP; the README says how.\n\
                  All calls of 4096 ranks take minutes and up to 5 GB of memory, which window-new needs"
)]
pub(crate) struct Options {
    /// The most ranks; 2, 4, 8 and so on up to it are simulated
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(2..=i64::from(MAX_WORLD)))]
    pub(crate) ranks: u32,
    /// Ranks of each node
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOCAL)))]
    pub(crate) per_node: u32,
    /// L: the way from one node to another, nanoseconds
    #[arg(short = 'L', long, value_name = "NS", default_value_t = 1630.0, value_parser = nanoseconds)]
    pub(crate) latency: f64,
    /// o: for how long a message keeps its sender busy, and its receiver, nanoseconds
    #[arg(short = 'o', long, value_name = "NS", default_value_t = 1720.0, value_parser = nanoseconds)]
    pub(crate) overhead: f64,
    /// g: from one message of a node to its next, nanoseconds
    #[arg(short = 'g', long, value_name = "NS", default_value_t = 180.0, value_parser = nanoseconds)]
    pub(crate) gap: f64,
    /// G: the same for each byte, nanoseconds
    #[arg(short = 'G', long, value_name = "NS", default_value_t = 0.17, value_parser = nanoseconds)]
    pub(crate) gap_per_byte: f64,
    /// The way of a cache line between two ranks of a node, nanoseconds
    #[arg(long, value_name = "NS", default_value_t = 65.0, value_parser = nanoseconds)]
    pub(crate) hop: f64,
    /// Copying a byte within a node, nanoseconds
    #[arg(long, value_name = "NS", default_value_t = 0.03, value_parser = nanoseconds)]
    pub(crate) copy: f64,
    /// Ranks that want one lock in lock-contended
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=i64::from(MAX_WORLD)))]
    pub(crate) contenders: u32,
    /// Ranks begin within so many nanoseconds of each other
    #[arg(long, value_name = "NS", default_value_t = 1000.0, value_parser = nanoseconds)]
    pub(crate) skew: f64,
    /// Decides when ranks begin and which of two events at one moment is first
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Only this call; may be given again
    #[arg(long, value_enum, value_name = "CALL")]
    pub(crate) only: Vec<Operation>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn nanoseconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(time) if (0.0..=1e9).contains(&time) => Ok(time),
        _ => Err("give nanoseconds from 0 to a second, as in 250 or 0.5".into()),
    }
}

impl Options {
    pub(crate) fn model(&self) -> Model {
        let picoseconds = |nanoseconds: f64| (nanoseconds * 1e3).round() as u64;
        Model {
            latency: picoseconds(self.latency),
            overhead: picoseconds(self.overhead),
            gap: picoseconds(self.gap),
            per_byte: picoseconds(self.gap_per_byte),
            hop: picoseconds(self.hop),
            copy_per_byte: picoseconds(self.copy),
            skew: picoseconds(self.skew),
            per_node: self.per_node,
        }
    }

    /// The powers of two up to the most ranks, and these.
    pub(crate) fn sizes(&self) -> Vec<u32> {
        let powers = std::iter::successors(Some(2), |ranks| Some(ranks * 2));
        let below = powers.take_while(|&ranks| ranks < self.ranks);
        below.chain([self.ranks]).collect()
    }
}
