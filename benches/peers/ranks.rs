//! The lines of `lines.rs` measured with windows of Windlass, and the raw limits: what `rma.c` is for MPI. The loops are
//! windlass-osu's own.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use windlass::{LockKind, Rank, World};
use windlass_bench::epochs::Epochs;
use windlass_bench::job::{self, Failure, ROOT};
use windlass_bench::measure::Timed;
use windlass_bench::pages::Pages;
use windlass_bench::place;
use windlass_bench::updates::{CompareSwap, FetchAdd};
use windlass_bench::windows::Windows;
use windlass_bench::wire::{Responder, Wire};
use windlass_bench::work::{Get, Nothing, Put};
use windlass_bench::yard::{self, Locked, Pair};
use windlass_launcher::measure::{Benchmark, Options};

use crate::lines::BURST;
use crate::loops::{ARRIVAL, Loop};

/// A block that would take longer has fewer iterations.
const LONGEST_BLOCK: Duration = Duration::from_millis(30);
/// A copy of so many bytes is timed at least.
const STREAM_BYTES: usize = 16 << 20;

/// The word that makes this program one of the ranks; the lines follow it.
pub(crate) const WORD: &str = "__ranks";

pub(crate) fn main() -> ExitCode {
    job::main("windlass-peers", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    world.barrier()?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let cpus = job::gather(world, &[cpu()?])?;
    if world.rank() == ROOT {
        println!("started {}", started.as_nanos());
        println!("cpus {} {}", cpus[0], cpus[1]);
        println!("version Windlass {}", env!("CARGO_PKG_VERSION"));
    }
    // Any options will do: they say who is origin and who target.
    let options = Options::try_parse_from(["windlass-osu", "put-latency"])?;
    let pair = Pair::on_one_machine(world, &options)?;
    for text in std::env::args().skip(2) {
        let line: Loop = text.parse()?;
        match line.name.as_str() {
            ARRIVAL => arrival(world, &pair, &line)?,
            name if name.starts_with("raw-") => raw(world, &pair, &line)?,
            _ => windows(world, &pair, &line)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first cpu that this may run on: the only one, as the ranks are bound.
fn cpu() -> Result<u32, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = list.and_then(|list| list.trim().split([',', '-']).next());
    Ok(first
        .ok_or("no list of cpus in /proc/self/status")?
        .parse()?)
}

/// One line, by the benchmark of its name.
fn windows(world: &World, pair: &Pair<'_>, line: &Loop) -> Result<(), Failure> {
    let size = format!("{0}:{0}", line.size.max(1));
    let mut words = vec!["windlass-osu", &line.name, "-w", &line.window];
    words.extend(["-s", &line.sync, "-m", &size]);
    if line.way == "computes" {
        words.push("--compute");
    }
    let options = Options::try_parse_from(words)?;
    let bytes = options.buffer_bytes().max(8);
    macro_rules! epochs {
        ($work:expr) => {{
            let mut work: Epochs<'_, _> = Epochs::new(world, &options, bytes, $work)?;
            work.contended = line.way == "contended";
            blocks(world, pair, line, work)
        }};
    }
    match options.benchmark {
        Benchmark::PutLatency => epochs!(Put::<false>::new(&options)),
        Benchmark::PutBw => epochs!(Put::<true>::new(&options)),
        Benchmark::GetLatency => epochs!(Get::<false>::new(&options)),
        Benchmark::FopLatency => epochs!(FetchAdd::default()),
        Benchmark::CasLatency => epochs!(CompareSwap::default()),
        Benchmark::SyncLatency => epochs!(Nothing),
        Benchmark::WindowCreate => blocks(world, pair, line, Windows::new(world, &options)?),
        _ => Err(format!("{} is no line", line.name).into()),
    }
}

/// Are the data at the target when a flush returns? `rma.c` says how that is seen. Collective.
fn arrival(world: &World, pair: &Pair<'_>, line: &Loop) -> Result<(), Failure> {
    let options = Options::try_parse_from(["windlass-osu", "put-latency", "-w", &line.window])?;
    let window = place::create::<u8>(world, &options, line.size)?;
    let (target, last) = (Rank(options.target), line.size - 1);
    let mut data = Pages::filled(line.size, 2);
    let mut early = 0;
    // The target's part was locked to be filled.
    world.barrier()?;
    let epoch = window.lock(target, LockKind::Shared)?;
    for round in 1..=line.iterations {
        let mark = (round % 255 + 1) as u8;
        let number = (line.number as u64) << 32 | round;
        if world.rank() == ROOT {
            data[last] = mark;
            epoch.put(&data[..line.size], target, 0)?;
            epoch.flush(target)?;
            pair.tell(number)?;
        } else {
            pair.hear(number)?;
            early += u64::from(epoch.local().load(last) != mark);
        }
        world.barrier()?;
    }
    epoch.end()?;
    window.free()?;
    let early: u64 = job::gather(world, &[early])?.iter().sum();
    if world.rank() == ROOT {
        println!("early {} {early} {}", line.number, line.iterations);
    }
    Ok(())
}

/// Its blocks, and a hop before and after each.
fn blocks(
    world: &World,
    pair: &Pair<'_>,
    line: &Loop,
    mut work: impl Timed,
) -> Result<(), Failure> {
    let few = line.iterations.div_ceil(10);
    let mut warm = work.block(line.size, few, &mut ())?;
    let is_short = u64::from(warm < LONGEST_BLOCK / 3);
    if job::share(world, ROOT, vec![is_short])?[0] == 1 {
        // A stray process is not what makes a block long.
        warm = warm.min(work.block(line.size, few, &mut ())?);
    }
    let each = warm.as_secs_f64() / few as f64;
    // The origin's counts; the target may have had nothing to do.
    let fit = ((LONGEST_BLOCK.as_secs_f64() / each) as u64).saturating_add(1);
    let iterations = job::share(world, ROOT, vec![line.iterations.min(fit)])?[0];
    probed(world, pair, line, iterations, || {
        Ok(work.block(line.size, iterations, &mut ())?.as_secs_f64() / iterations as f64)
    })?;
    work.free()
}

/// Prints what `block` says, with the hops around it. Collective.
fn probed(
    world: &World,
    pair: &Pair<'_>,
    line: &Loop,
    iterations: u64,
    mut block: impl FnMut() -> Result<f64, Failure>,
) -> Result<(), Failure> {
    // The faster of two, since a stray process is no distance.
    let hop = || -> Result<f64, Failure> { Ok(pair.hop()?.min(pair.hop()?)) };
    let mut before = hop()?;
    for _ in 0..line.blocks {
        let seconds = block()?;
        let after = hop()?;
        if world.rank() == ROOT {
            println!(
                "block {} {seconds:.6e} {iterations} {before:.4e} {after:.4e}",
                line.number
            );
        }
        before = after;
    }
    Ok(())
}

/// One limit of the machine. Collective.
fn raw(world: &World, pair: &Pair<'_>, line: &Loop) -> Result<(), Failure> {
    let options = Options::try_parse_from(["windlass-osu", "put-latency"])?;
    let wire = match line.name.as_str() {
        "raw-tcp" | "raw-tcp-sleeper" | "raw-stream" => Wire::new(world, &options)?,
        _ => None,
    };
    probed(world, pair, line, 1, || match (line.name.as_str(), &wire) {
        ("raw-hop", _) => Ok(2.0 * pair.hop()?),
        ("raw-contended", _) => pair.contended(Locked::Add),
        ("raw-tcp", Some(wire)) => wire.round_trip(Responder::Spins),
        ("raw-tcp-sleeper", Some(wire)) => wire.round_trip(Responder::Sleeps),
        ("raw-stream", Some(wire)) => wire.stream(line.size),
        _ if world.rank() != ROOT => Ok(0.0),
        ("raw-store", _) => yard::store(),
        ("raw-add", _) => Locked::Add.alone(),
        ("raw-swap", _) => Locked::CompareExchange.alone(),
        ("raw-memcpy", _) => Ok(memcpy(line.size)),
        (other, _) => Err(format!("{other} is no raw limit").into()),
    })
}

/// A copy, at the same places as the puts of a burst.
fn memcpy(size: usize) -> f64 {
    let slots = (STREAM_BYTES / size).clamp(1, BURST);
    let [from, mut to] = [3, 1].map(|byte| Pages::filled(slots * size, byte));
    let copies = (STREAM_BYTES / size).clamp(slots, 100_000);
    let began = Instant::now();
    for copy in 0..copies {
        let at = copy % slots * size;
        to[at..at + size].copy_from_slice(&from[at..at + size]);
        black_box(&mut to[at]);
    }
    began.elapsed().as_secs_f64() / copies as f64
}
