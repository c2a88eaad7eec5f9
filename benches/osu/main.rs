//! OSU-style benchmarks of one-sided operations between two ranks: what `windlass bench` runs.
//!
//! ```text
//! windlass bench put-latency --ves 2 --place ve0:1,ve1:1 -m 8:4096
//! ```
//!
//! # What each measures, and what it does not
//! One rank, the *origin*, reaches the window of another, the *target*. A value is of one iteration at the origin:
//!
//! - `put-latency`, `get-latency`: one operation of bytes and its completion. Not what a put costs whose completion is
//!   waited for later, and not what elements of a length known at compile time save.
//! - `put-bw`, `get-bw`: a burst of `-W` operations (64) and one completion; 1 MB/s is 10^6 bytes per second. A burst goes
//!   side by side into at most 16 MiB, then again from the start: not the bandwidth of memory beyond the caches.
//! - `put-bibw`: both ranks put bursts to each other, until both are done; the bytes of both count.
//! - `msg-rate`: a burst of puts of one 8-byte element each, in messages per second.
//! - `acc-latency`, `get-acc-latency`: a sum of 8-byte words, as many as fit into the size. Not other operators or types.
//! - `fop-latency`, `cas-latency`: an update of 8 bytes that answers the old value, by nobody else. Contention is
//!   measured by `--ratio`.
//! - `fence`, `pscw`, `lock`, and `sync-latency` with any `-s`: the synchronisation alone, with nothing to wait for.
//! - `barrier`: of all ranks, without a window.
//! - `window-create`: all ranks make a window of that size each and free it. The first one of a job, which maps the arena,
//!   was made before; so was the first over the same lent memory.
//! - `notify-latency`: a notified put there and one back; the value is half of that.
//! - `strided-put`: one put of 1,000 runs of the size, by a layout with gaps as long on both sides.
//! - `progress`: put and completion while the target computes, in chunks of some tens of microseconds, between which it only
//!   asks a socket whether to stop, and makes no call of the library; the value is the median of single iterations, a remark tells the 99th percentile and the longest. Not what
//!   the target loses by it.
//!
//! What one iteration is, by `-s`:
//!
//! | `-s` | latency | bandwidth | timed |
//! | --- | --- | --- | --- |
//! | `flush`, `flush_local` | operation, flush | `-W` operations, flush | inside one shared lock on the target |
//! | `lock` | lock, operation, unlock | lock, `-W` operations, unlock | shared lock on the target |
//! | `lock_all` | lock_all, operation, its end | lock_all, `-W` operations, its end | |
//! | `fence` | operation, fence | `-W` operations, fence | all ranks of the job fence |
//! | `pscw` | start, operation, complete | start, `-W` operations, complete | the target posts and waits |
//!
//! The window is made by `-w`: `allocate`d, or over lent memory (`create`), whose pages are touched before; or `dynamic`,
//! with lent memory attached, reached by its address; or `shared` by all ranks.
//!
//! # How
//! The origin's buffer of puts and gets begins at a page. It and the window are written before: no transfer is the first on a page,
//! and none reads the kernel's page of zeros. Everything stays in the caches as far as it fits there.
//!
//! With `-i` a value is the average of all iterations, as OSU's is; without it, the median of five
//! blocks, because one stray process would spoil an average. A row whose median is more than twice its best
//! block is marked as disturbed. Single iterations (`-f`, `progress`) are timed in a further block, which `samples.rs`
//! describes; the loops behind the first value contain no clock.
//!
//! `-c` makes one more iteration of known data for each size, and compares all bytes that came to the origin or the target
//! there, in the memory itself, of a dynamic window by a get of its owner's; `--spoil` changes one before.
//!
//! `--ratio` compares with the machine itself: `ratio.rs` says how, `yard.rs` with what. `--hog` runs
//! a process beside the job that keeps a cpu busy; with `--compute` the target works instead of waiting in a call of
//! the library, so that its helper thread has to serve what no mapping and no device does.
//!
//! Ranks other than origin and target wait in a barrier, except under `fence`, in `barrier` and in `window-create`.
//!
//! # Output
//! Text that parsers of OSU results read: lines that begin with `#` are remarks, every other one is a size in 10 columns and
//! a value in 18. Only `-f` adds columns, named in the last remark before the first row. With `--json` one JSON object.
//!
//! A further benchmark of operations in epochs is one more [`Work`]; of anything else, one
//! more [`Timed`]. Names and options stand in `launcher/src/measure.rs`, for `windlass bench` to know
//! them without this program.

mod barrier;
mod notify;
mod ratio;
mod report;

use std::process::ExitCode;

use windlass::World;
use windlass_bench::epochs::Epochs;
use windlass_bench::job::{self, Failure};
use windlass_bench::measure::{self, Timed, is_origin};
use windlass_bench::place::{At, Part};
use windlass_bench::progress::Meter;
use windlass_bench::updates::{Accumulate, CompareSwap, FetchAdd};
use windlass_bench::windows::Windows;
use windlass_bench::work::{Get, Nothing, Put, PutWords, Strided, Work};
use windlass_bench::yard::Hog;
use windlass_launcher::measure::{ASK, Benchmark, Creation, Options, STAMP};

use barrier::Barrier;
use notify::Notify;
use report::Report;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(ASK) {
        println!("{STAMP}");
        return ExitCode::SUCCESS;
    }
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
        true => Some(Hog::start()?),
        false => None,
    };
    let options = &options;
    match options.benchmark {
        Benchmark::PutLatency | Benchmark::Progress => {
            epochs(world, options, Put::<false>::new(options))
        }
        Benchmark::PutBw | Benchmark::PutBibw => epochs(world, options, Put::<true>::new(options)),
        Benchmark::MsgRate => epochs(world, options, PutWords::new(options)),
        Benchmark::StridedPut => epochs(world, options, Strided::new(options)?),
        Benchmark::GetLatency => epochs(world, options, Get::<false>::new(options)),
        Benchmark::GetBw => epochs(world, options, Get::<true>::new(options)),
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
