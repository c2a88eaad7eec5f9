//! OSU-style benchmarks of one-sided operations between two ranks.
//!
//! ```text
//! windlass run -n 2 --ves 2 --place ve0:1,ve1:1 --bin windlass-osu -- put-latency -m 8:4096
//! ```
//!
//! - `put-latency`, `get-latency`: one operation and its completion at the target per iteration.
//! - `put-bw`: 64 puts, then one completion, per iteration; 1 MB/s is 10^6 bytes per second.
//!
//! What one iteration is, by `-s`:
//!
//! | `-s` | latency | bandwidth | timed |
//! | --- | --- | --- | --- |
//! | `flush` | operation, flush | 64 puts, flush | inside one shared lock on the target |
//! | `lock` | lock, operation, unlock | lock, 64 puts, unlock | shared lock on the target |
//! | `lock_all` | lock_all, operation, its end | lock_all, 64 puts, its end | |
//! | `fence` | operation, fence | 64 puts, fence | all ranks of the job fence |
//!
//! With `-i` a value is the average of all iterations, as OSU's is; without it, the median of five
//! blocks, because one stray process would spoil an average.
//!
//! Ranks other than origin and target wait in a barrier, except under `fence`. The output is text
//! that parsers of OSU results read: lines that begin with `#` are remarks, every other line is a
//! size in 10 columns and a value in 20.

#[path = "../../examples/support/job.rs"]
mod job;
mod measure;
mod options;
mod ratio;
mod report;

use std::process::ExitCode;

use job::Failure;
use measure::Measurement;
use options::{Benchmark, Options};
use report::Report;
use windlass::World;

fn main() -> ExitCode {
    job::main("windlass-osu", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let options = match job::arguments::<Options>(world)? {
        Ok(options) => options,
        Err(code) => return Ok(code),
    };
    let is_origin = world.rank().0 == options.origin;
    if let Err(why) = options.check(world.size()) {
        if world.rank() == job::ROOT {
            eprintln!("windlass-osu: {why}");
        }
        return Ok(ExitCode::from(2));
    }
    let mut measurement = Measurement::new(world, &options)?;
    let mut report = Report::new(&options, world.size(), measurement.route());
    if is_origin && !options.json {
        print!("{}", report.head());
    }
    for size in options.sizes() {
        let row = measurement.measure(size)?;
        if is_origin && !options.json {
            print!("{}", report.line(&row));
        }
        report.rows.push(row);
    }
    let faults: u64 = report.rows.iter().map(|row| row.faults).sum();
    measurement.free()?;
    if options.ratio {
        report.ratios = match options.benchmark {
            Benchmark::PutLatency | Benchmark::GetLatency => ratio::word(world, &options)?,
            Benchmark::PutBw => ratio::stream(world, &options)?,
        };
    }
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
