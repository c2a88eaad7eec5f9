//! The lines of `windlass bench --peers`, measured with MPI-3 one-sided calls from Rust, by rsmpi: what `../peers/rma.c`, which says
//! what its arguments and its output are, does in C. Built with the feature `mpi` only, with the library of `mpicc`, or `$MPICC`.

#![deny(unsafe_code)]

mod calls;
#[path = "../peers/loops.rs"]
mod loops;

use std::error::Error;
use std::fs::File;
use std::hint::{black_box, spin_loop};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mpi::environment::library_version;
use mpi::topology::{Communicator, SimpleCommunicator, UserGroup};
use mpi::traits::*;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use windlass_mem::{MemFile, SharedBytes};

use calls::Memory;
use loops::{ARRIVAL, Loop};

const ROUND_TRIPS: u64 = 5000;
const BURST: usize = 64;
const STREAM_BYTES: usize = 16 << 20;
/// Bytes from one word of the page to the next.
const APART: usize = 128;
/// As in `rma.c`.
const LONGEST_BLOCK: f64 = 0.03;
const LONGEST_WORK: Duration = Duration::from_millis(50);
/// The words of the page: a cache line's way there and back, whose work is over, and what arrival tells and answers.
const THERE: usize = 0;
const BACK: usize = 1;
const WORKED: usize = 2;
const TOLD: usize = 3;
const SEEN: usize = 4;

type Failure = Box<dyn Error>;

/// An operation, known at compile time, as in a program that has only one.
trait Operation {
    fn begin(memory: &Memory, size: usize, places: usize);
    fn completed(memory: &Memory);
}

fn nothing(_: &Memory) {}

macro_rules! operations {
    ($($name:ident: |$memory:ident, $size:ident, $places:ident| $begin:expr, $completed:expr;)+) => {$(
        struct $name;
        impl Operation for $name {
            #[inline(always)]
            fn begin($memory: &Memory, $size: usize, $places: usize) {
                $begin
            }
            #[inline(always)]
            fn completed(memory: &Memory) {
                $completed(memory)
            }
        }
    )+};
}

operations! {
    Put: |memory, size, _places| memory.put(0, size), nothing;
    Get: |memory, size, _places| memory.get(size), nothing;
    Burst: |memory, size, places| (0..BURST).for_each(|put| memory.put(put % places * size, size)), nothing;
    FetchAdd: |memory, _size, _places| memory.fetch_add(), nothing;
    Swap: |memory, _size, _places| memory.swap(), Memory::swapped;
    Nothing: |_memory, _size, _places| (), nothing;
}

/// One rank of the two.
struct Ranks {
    world: SimpleCommunicator,
    me: i32,
    other: UserGroup,
    page: SharedBytes,
    works: u64,
}

impl Ranks {
    fn word(&self, number: usize) -> &AtomicU64 {
        let word = self.page.atomic_u64(number * APART);
        word.expect("the page has these words")
    }

    /// A cache line from one rank to the other.
    fn one_hop(&self) -> f64 {
        let (there, back) = (self.word(THERE), self.word(BACK));
        let start = there.load(Ordering::SeqCst);
        self.world.barrier();
        let began = Instant::now();
        for round in start + 1..=start + ROUND_TRIPS {
            if self.me == 0 {
                there.store(round, Ordering::Release);
            }
            let from = if self.me == 0 { back } else { there };
            while from.load(Ordering::Acquire) != round {
                spin_loop();
            }
            if self.me == 1 {
                back.store(round, Ordering::Release);
            }
        }
        let each = began.elapsed().as_secs_f64() / (2 * ROUND_TRIPS) as f64;
        self.world.barrier();
        each
    }

    /// The faster of two, since a stray process is no distance.
    fn hop(&self) -> f64 {
        self.one_hop().min(self.one_hop())
    }

    /// The target's work, without a call of MPI, until the origin is done or the time is over.
    fn work(&self) {
        let (began, mut value) = (Instant::now(), 1_u64);
        while self.word(WORKED).load(Ordering::SeqCst) != self.works
            && began.elapsed() < LONGEST_WORK
        {
            for _ in 0..20_000 {
                value = black_box(
                    value
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1),
                );
            }
        }
    }

    fn flushes<O: Operation>(&self, memory: &Memory, line: &Loop, iterations: u64) -> f64 {
        let (size, places) = (line.size, places(line));
        memory.lock();
        if line.way == "computes" {
            // Some libraries ask for the lock only now.
            O::begin(memory, size, places);
            memory.flush();
            self.world.barrier();
        }
        let began = Instant::now();
        for _ in 0..iterations {
            O::begin(memory, size, places);
            memory.flush();
            O::completed(memory);
        }
        let elapsed = began.elapsed().as_secs_f64();
        if line.way == "computes" {
            self.word(WORKED).store(self.works, Ordering::SeqCst);
        }
        memory.unlock();
        elapsed
    }

    /// With the operation known at compile time.
    fn loops<O: Operation>(&self, memory: &Memory, line: &Loop, iterations: u64) -> f64 {
        let (size, places) = (line.size, places(line));
        let passive = line.sync == "flush" || line.sync == "lock";
        if passive && self.me == 1 && line.way != "contended" {
            return 0.0;
        }
        if line.sync == "flush" {
            return self.flushes::<O>(memory, line, iterations);
        }
        if line.sync == "fence" {
            memory.fence();
        }
        let began = Instant::now();
        for _ in 0..iterations {
            match line.sync.as_str() {
                "lock" => {
                    memory.lock();
                    O::begin(memory, size, places);
                    memory.unlock();
                    O::completed(memory);
                }
                "fence" => {
                    if self.me == 0 {
                        O::begin(memory, size, places);
                    }
                    memory.fence();
                }
                _ if self.me == 0 => memory.access(&self.other, || O::begin(memory, size, places)),
                _ => memory.expose(&self.other),
            }
        }
        let elapsed = began.elapsed().as_secs_f64();
        if line.sync == "fence" {
            memory.fence();
        }
        elapsed
    }

    fn timed(&self, memory: &mut Memory, line: &Loop, iterations: u64) -> Result<f64, Failure> {
        Ok(match line.name.as_str() {
            "put-latency" => self.loops::<Put>(memory, line, iterations),
            "get-latency" => self.loops::<Get>(memory, line, iterations),
            "put-bw" => self.loops::<Burst>(memory, line, iterations),
            "fop-latency" => self.loops::<FetchAdd>(memory, line, iterations),
            "cas-latency" => self.loops::<Swap>(memory, line, iterations),
            "sync-latency" => self.loops::<Nothing>(memory, line, iterations),
            "window-create" => {
                let began = Instant::now();
                for _ in 0..iterations {
                    memory.make(line.size);
                    memory.free();
                }
                began.elapsed().as_secs_f64()
            }
            other => return Err(format!("{other} is not a word of a line").into()),
        })
    }

    /// Seconds of one iteration, at the origin.
    fn block(&mut self, memory: &mut Memory, line: &Loop, count: u64) -> Result<f64, Failure> {
        self.works += 1;
        self.world.barrier();
        if line.way == "computes" && self.me == 1 {
            self.world.barrier();
            self.work();
        }
        let mut elapsed = self.timed(memory, line, count)?;
        let began = Instant::now();
        self.world.barrier();
        if line.way == "contended" {
            elapsed += began.elapsed().as_secs_f64();
        }
        Ok(elapsed / count as f64)
    }

    fn share(&self, mut number: u64) -> u64 {
        self.world.process_at_rank(0).broadcast_into(&mut number);
        number
    }

    fn blocks(&mut self, memory: &mut Memory, line: &Loop) -> Result<(), Failure> {
        let few = line.iterations.div_ceil(10);
        let mut each = self.block(memory, line, few)?;
        let is_short = each * (few as f64) < LONGEST_BLOCK / 3.0;
        if self.share(is_short.into()) == 1 {
            each = each.min(self.block(memory, line, few)?);
        }
        let fit = ((LONGEST_BLOCK / each) as u64).saturating_add(1);
        let iterations = self.share(line.iterations.min(fit));
        let mut before = self.hop();
        for _ in 0..line.blocks {
            each = self.block(memory, line, iterations)?;
            let after = self.hop();
            if self.me == 0 {
                let number = line.number;
                println!("block {number} {each:.6e} {iterations} {before:.4e} {after:.4e}");
            }
            before = after;
        }
        Ok(())
    }

    /// Does a flush wait until the data are at the target?
    fn arrival(&self, memory: &mut Memory, line: &Loop) {
        let start = self.word(TOLD).load(Ordering::SeqCst);
        let (last, mut early) = (line.size - 1, 0_u64);
        self.world.barrier();
        if self.me == 0 {
            memory.lock();
        }
        for round in start + 1..=start + line.iterations {
            let mark = (round % 255 + 1) as u8;
            if self.me == 0 {
                memory.mark(last, mark);
                memory.put(0, line.size);
                memory.flush();
                self.word(TOLD).store(round, Ordering::SeqCst);
            }
            self.hear(if self.me == 0 { SEEN } else { TOLD }, round);
            if self.me == 1 {
                early += u64::from(memory.look(last) != mark);
                self.word(SEEN).store(round, Ordering::SeqCst);
            }
        }
        if self.me == 0 {
            memory.unlock();
        }
        self.world.process_at_rank(1).broadcast_into(&mut early);
        if self.me == 0 {
            println!("early {} {early} {}", line.number, line.iterations);
        }
    }

    /// Waits, and calls the library now and then.
    fn hear(&self, word: usize, number: u64) {
        let mut turn = 0;
        while self.word(word).load(Ordering::SeqCst) != number {
            turn += 1;
            match turn % 1000 {
                0 => drop(self.world.any_process().immediate_probe()),
                _ => spin_loop(),
            }
        }
    }

    fn measure(&mut self, line: &Loop) -> Result<(), Failure> {
        let bytes = places(line) * line.size.max(8);
        let mut memory = Memory::new(&self.world, bytes, line.window == "create");
        if line.name != "window-create" {
            memory.make(bytes);
            memory.clear(self.me);
        }
        match line.name.as_str() {
            ARRIVAL => self.arrival(&mut memory, line),
            _ => self.blocks(&mut memory, line)?,
        }
        Ok(())
    }
}

/// Where the puts of a burst go side by side.
fn places(line: &Loop) -> usize {
    match line.name.as_str() {
        "put-bw" => (STREAM_BYTES / line.size.max(1)).clamp(1, BURST),
        _ => 1,
    }
}

fn run() -> Result<(), Failure> {
    let universe = mpi::initialize().ok_or("MPI is initialised already")?;
    let world = universe.world();
    world.barrier();
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let me = world.rank();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, page, cpus @ .., _] = &arguments[..] else {
        return Err("two ranks: SECONDS PAGE CPU0 CPU1 LINE...".into());
    };
    if world.size() != 2 || cpus.len() < 2 {
        return Err("two ranks: SECONDS PAGE CPU0 CPU1 LINE...".into());
    }
    // Whatever becomes of the launcher, this ends: ranks spin.
    let most = Some(seconds.parse()?);
    setrlimit(
        Resource::Cpu,
        Rlimit {
            current: most,
            maximum: most,
        },
    )?;
    let mut set = CpuSet::new();
    set.set(cpus[me as usize].parse()?);
    sched_setaffinity(None, &set)?;
    if me == 0 {
        println!("started {}", started.as_nanos());
        println!("cpus {} {}", cpus[0], cpus[1]);
        let version = library_version()?;
        println!("version {}", version.lines().next().unwrap_or_default());
    }
    let file = File::options().read(true).write(true).open(page)?;
    let page = MemFile::from_fd(file.into())?.map(0, 4096)?;
    let other = world.group().include(&[1 - me]);
    let mut ranks = Ranks {
        world,
        me,
        other,
        page,
        works: 0,
    };
    ranks.works = ranks.word(WORKED).load(Ordering::SeqCst);
    for text in &arguments[4..] {
        ranks.measure(&text.parse()?)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("windlass-rsmpi: {why}");
            ExitCode::FAILURE
        }
    }
}
