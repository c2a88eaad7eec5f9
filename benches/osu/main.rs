//! OSU-style benchmarks of one-sided operations between two ranks.
//!
//! ```text
//! windlass run -n 2 --ves 2 --place ve0:1,ve1:1 --bin windlass-osu -- put-latency -m 8:4096
//! ```
//!
//! - `put-latency`, `get-latency`: one operation and its completion at the target per iteration.
//! - `fop-latency`, `cas-latency`: the same of an update of 8 bytes that answers the old value.
//! - `put-bw`: 64 puts, then one completion, per iteration; 1 MB/s is 10^6 bytes per second.
//! - `strided-latency`: one put of 1,000 runs of the size, by a layout with gaps as long on both sides.
//! - `sync-latency`: no operation, so the synchronisation alone.
//! - `notify-latency`: a notified put there and one back; the value is half of that.
//! - `window-create`: all ranks make a window of that size each and free it.
//!
//! What one iteration is, by `-s`:
//!
//! | `-s` | latency | bandwidth | timed |
//! | --- | --- | --- | --- |
//! | `flush` | operation, flush | 64 puts, flush | inside one shared lock on the target |
//! | `lock` | lock, operation, unlock | lock, 64 puts, unlock | shared lock on the target |
//! | `lock_all` | lock_all, operation, its end | lock_all, 64 puts, its end | |
//! | `fence` | operation, fence | 64 puts, fence | all ranks of the job fence |
//! | `pscw` | start, operation, complete | start, 64 puts, complete | the target posts and waits |
//!
//! With `-i` a value is the average of all iterations, as OSU's is; without it, the median of five
//! blocks, because one stray process would spoil an average. A row whose median is more than twice its best
//! block is marked as disturbed.
//!
//! `--ratio` compares with the machine itself: `ratio.rs` says how, `yard.rs` with what. `--hog` runs
//! a process beside the job that keeps a cpu busy; with `--compute` the target works instead of waiting in a call of
//! the library, so that its helper thread has to serve what no mapping and no device does.
//!
//! Ranks other than origin and target wait in a barrier, except under `fence` and in `window-create`.
//! The output is text that parsers of OSU results read: lines that begin with `#` are remarks, every
//! other line is a size in 10 columns and a value in 20.
//!
//! A further benchmark of operations in epochs is one more [`Work`](work::Work); of anything else, one
//! more [`Timed`](measure::Timed).

mod barrier;
mod epochs;
#[path = "../../examples/support/job.rs"]
mod job;
mod measure;
mod notify;
mod place;
mod progress;
mod ratio;
mod report;
mod samples;
mod updates;
mod windows;
mod wire;
mod work;
mod yard;

use std::process::ExitCode;

use windlass::World;
use windlass_launcher::measure::{Benchmark, Creation, Options};

use barrier::Barrier;
use epochs::Epochs;
use job::Failure;
use measure::{Timed, is_origin};
use notify::Notify;
use place::{At, Part};
use progress::Meter;
use report::Report;
use updates::{Accumulate, CompareSwap, FetchAdd};
use windows::Windows;
use work::{Get, Nothing, Put, PutWords, Strided, Work};

fn main() -> ExitCode {
    job::main("windlass-osu", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let options = match job::arguments::<Options>(world)? {
        Ok(options) => options,
        Err(code) => return Ok(code),
    };
    if let Err(why) = options.check(world.size()) {
        return Ok(job::refuse(world, &why));
    }
    let _hog = match options.hog && world.rank() == job::ROOT {
        true => Some(yard::Hog::start()?),
        false => None,
    };
    let options = &options;
    match options.benchmark {
        Benchmark::PutLatency | Benchmark::PutBw | Benchmark::PutBibw | Benchmark::Progress => {
            epochs(world, options, Put::new(options))
        }
        Benchmark::MsgRate => epochs(world, options, PutWords::new(options)),
        Benchmark::StridedPut => epochs(world, options, Strided::new(options)?),
        Benchmark::GetLatency | Benchmark::GetBw => epochs(world, options, Get::new(options)),
        Benchmark::AccLatency => epochs(world, options, Accumulate::new(options, false)),
        Benchmark::GetAccLatency => epochs(world, options, Accumulate::new(options, true)),
        Benchmark::FopLatency => epochs(world, options, FetchAdd::default()),
        Benchmark::CasLatency => epochs(world, options, CompareSwap::default()),
        Benchmark::Fence | Benchmark::Pscw | Benchmark::Lock | Benchmark::SyncLatency => {
            epochs(world, options, Nothing)
        }
        Benchmark::Barrier => report(world, options, Barrier::new(world, options)?),
        Benchmark::NotifyLatency => report(world, options, Notify::new(world, options)?),
        Benchmark::WindowCreate => report(world, options, Windows::new(world, options)?),
    }
}

fn epochs(world: &World, options: &Options, work: impl Work) -> Result<ExitCode, Failure> {
    let bytes = options.buffer_bytes();
    match options.window {
        Creation::Dynamic => {
            let work: Epochs<'_, _, At> = Epochs::new(world, options, bytes, work)?;
            report(world, options, work)
        }
        _ => {
            let work: Epochs<'_, _, Part> = Epochs::new(world, options, bytes, work)?;
            report(world, options, work)
        }
    }
}

/// Measures, and prints as it goes.
fn report(world: &World, options: &Options, mut work: impl Timed) -> Result<ExitCode, Failure> {
    let is_origin = is_origin(world, options);
    let prints = is_origin && !options.json;
    let mut report = Report::new(options, world.size(), work.route());
    if prints {
        print!("{}", report.head());
    }
    let name = options.benchmark.to_string();
    let meter = Meter::new(&name, options.sizes().count(), is_origin);
    for size in options.sizes() {
        meter.now(&size.to_string());
        let row = measure::measure(world, options, &mut work, size, &meter)?;
        meter.print(&match prints {
            true => report.line(&row),
            false => String::new(),
        })?;
        report.rows.push(row);
    }
    let faults: u64 = report.rows.iter().map(|row| row.faults).sum();
    work.free()?;
    if options.ratio {
        meter.now("comparing with the machine");
        report.ratios = ratio::ratios(world, options)?;
    }
    drop(meter);
    if is_origin {
        print!(
            "{}",
            if options.json {
                report.json()
            } else {
                report.foot()
            }
        );
    }
    Ok(if faults == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
