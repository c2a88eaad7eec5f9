//! `windlass bench --peers`: windows of Windlass beside those of the MPI libraries found on this machine.
//!
//! ```text
//! cargo windlass bench --peers --rounds 5 --mpi /opt/mpich --output pictures
//! ```
//!
//! With the feature `mpi`, `../rsmpi` measures the library that it was built with from Rust, beside `rma.c`.
//!
//! `lines.rs` is the list of what is measured, each with its goal. Two programs measure the same loops with the same counts
//! and buffers: `rma.c`, which is built with each library, and the ranks of this program (`ranks.rs`), whose loops are
//! windlass-osu's. Every round starts each library once on one host and once between two nodes that have only TCP, in
//! turn, on the same two cpus. Around each block of iterations a cache line is sent to and fro: on virtual machines the distance of
//! the cpus changes while all this runs, so only blocks of the same distance are compared (`blocks.rs`). Whose flush returns before
//! the data are at the target is not measured (`arrival` of `rma.c`). The first lines of the table say which settings of each library were the fastest that work, as they were used.

mod blocks;
mod child;
mod lines;
mod loops;
mod mpi;
mod pictures;
mod ranks;
mod rounds;
mod table;
mod terminal;

use std::io::{ErrorKind, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use windlass_bench::job::{self, Failure};

use blocks::Distances;
use lines::{Line, Place, Role};
use rounds::{Own, Rounds};
use table::Report;
use terminal::Progress;

/// Windlass beside the MPI libraries of this machine: ratios against the best of them, line by line
#[derive(Parser, Debug)]
#[command(name = "windlass bench --peers", version)]
struct Arguments {
    /// Also the library in PREFIX, which has bin/mpicc and bin/mpiexec. May be repeated
    #[arg(long, value_name = "PREFIX")]
    mpi: Vec<PathBuf>,
    /// How often each library is started at each place
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = job::number::<u64>(1..=1_000))]
    rounds: u64,
    /// Only the lines whose keys begin with one of these, as in put,bw-64K,tcp
    #[arg(long, value_name = "LINE,...", value_delimiter = ',')]
    only: Vec<String>,
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Folder for the pictures of latency and bandwidth, as PNG and SVG
    #[arg(long, value_name = "DIR", default_value = "peers")]
    output: PathBuf,
    /// The command `windlass` that starts our ranks [default: beside this program]
    #[arg(long, value_name = "PATH")]
    launcher: Option<PathBuf>,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(ranks::WORD) {
        return ranks::main();
    }
    let arguments = Arguments::parse();
    match compare(&arguments) {
        Ok(text) => match stdout().write_all(text.as_bytes()) {
            Err(why) if why.kind() != ErrorKind::BrokenPipe => {
                eprintln!("windlass-peers: {why}");
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        },
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

/// Runs all of it; gives what is to be printed.
fn compare(arguments: &Arguments) -> Result<String, Failure> {
    let lines = lines::chosen(&arguments.only)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = mpi::find(&path, &arguments.mpi)?;
    let program = std::env::current_exe()?;
    let launcher = match &arguments.launcher {
        Some(launcher) => launcher.clone(),
        None => program.with_file_name("windlass"),
    };
    let progress = Progress::new();
    let mut rounds = Rounds::new(Own { launcher, program })?;
    rounds.remarks.extend(found.remarks);
    let dir = tempfile::tempdir()?;
    let places: Vec<Place> = [Place::Host, Place::Nodes]
        .into_iter()
        .filter(|place| {
            lines
                .iter()
                .any(|line| line.place == *place && line.role != Role::Raw)
        })
        .collect();
    rounds.check_own(&places)?;
    for mpi in found.libraries {
        rounds.add(mpi, dir.path(), &places, &progress);
    }
    if rounds.peers.is_empty() {
        rounds.remarks.push(mpi::REMEDY.into());
    }
    for round in 0..arguments.rounds as usize {
        rounds.round(round, &lines, &progress);
    }
    drop(progress);
    let report = report(&rounds, &lines, arguments.rounds as usize);
    for path in pictures::write(&report, &arguments.output)? {
        eprintln!("wrote {}", path.display());
    }
    Ok(match arguments.json {
        true => report.json(),
        false => report.text(),
    })
}

fn report<'a>(rounds: &'a Rounds, lines: &'a [Line], count: usize) -> Report<'a> {
    let hops = rounds.blocks.iter().filter_map(|block| block.hops);
    let distances = Distances::of(hops.flatten());
    let started = rounds.started();
    let notes = rounds.peers.iter().map(|peer| {
        let [host, nodes] = peer.settings.each_ref().map(|settings| {
            settings
                .as_ref()
                .map_or_else(|| "not measured".into(), mpi::Settings::say)
        });
        format!(
            "{}: {}; on one host: {host}; TCP: {nodes}",
            peer.label,
            peer.mpi.mpiexec.display()
        )
    });
    Report {
        labels: (0..started.len())
            .map(|library| rounds.label(library))
            .collect(),
        notes: notes.collect(),
        remarks: &rounds.remarks,
        cpus: rounds.cpus,
        rounds: count,
        distances,
        rows: table::rows(lines, &rounds.blocks, &started, &distances),
    }
}
