//! What the machine itself needs for what a window does: the yardsticks of the ratios, in seconds.

use std::fs::File;
use std::hint::{black_box, spin_loop};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use windlass::{Rank, World};
use windlass_launcher::measure::Options;
use windlass_mem::{MemFile, SharedBytes};

use crate::job::{self, Failure};
use crate::work::runs;

/// Of one timed loop, so that it takes about a millisecond.
const STORES: u32 = 2_000_000;
const LOCKED: u32 = 200_000;
const CONTENDED: u32 = 20_000;
const ROUND_TRIPS: u32 = 5_000;
const FILES: u32 = 100;
/// Barriers at least and at most, and the time that they should take.
const BARRIERS: std::ops::RangeInclusive<u32> = 10..=5_000;
const BARRIER_TIME: Duration = Duration::from_millis(1);

const LINE: usize = 64;

/// Time of one of so many.
fn each(began: Instant, times: u32) -> f64 {
    began.elapsed().as_secs_f64() / f64::from(times)
}

/// One plain store to memory of this process.
pub fn store() -> Result<f64, Failure> {
    let (memory, _loan) = windlass_mem::lend(vec![0_u64; 8]);
    let word = memory.atomic_u64(0)?;
    let began = Instant::now();
    for value in 0..STORES {
        // A relaxed store is one plain store instruction, and is never merged with the next.
        word.store(value.into(), Ordering::Relaxed);
    }
    Ok(each(began, STORES))
}

/// The loop that a program would write instead of a put with layouts: a copy per run, of a length
/// known at compile time where that is 64.
pub fn strided(to: &mut [u8], from: &[u8], size: usize, rounds: usize) -> f64 {
    let began = Instant::now();
    for _ in 0..rounds {
        match size {
            64 => runs(64).for_each(|at| to[at..at + 64].copy_from_slice(&from[at..at + 64])),
            _ => runs(size).for_each(|at| to[at..at + size].copy_from_slice(&from[at..at + size])),
        }
        black_box(&mut *to);
    }
    began.elapsed().as_secs_f64() / rounds as f64
}

/// A locked instruction that an operation corresponds to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// The old value, and another added.
    Add,
    /// Compare-exchange of what was seen last.
    CompareExchange,
}

impl Locked {
    #[inline(always)]
    fn run(self, word: &AtomicU64, times: u32) -> f64 {
        let began = Instant::now();
        let mut seen = 0;
        for _ in 0..times {
            seen = match self {
                Locked::Add => word.fetch_add(1, Ordering::SeqCst),
                Locked::CompareExchange => {
                    let next = seen + 1;
                    let done =
                        word.compare_exchange(seen, next, Ordering::SeqCst, Ordering::SeqCst);
                    done.map_or_else(|seen| seen, |_| next)
                }
            };
        }
        black_box(seen);
        each(began, times)
    }

    /// One of it, on memory of this process.
    pub fn alone(self) -> Result<f64, Failure> {
        let (memory, _loan) = windlass_mem::lend(vec![0_u64; 8]);
        Ok(self.run(memory.atomic_u64(0)?, LOCKED))
    }
}

/// Making, mapping, unmapping and closing a memory file: what a window without an arena would need
/// at least.
pub fn file(bytes: usize) -> Result<f64, Failure> {
    let began = Instant::now();
    for _ in 0..FILES {
        let file = MemFile::create("windlass-osu", bytes.max(1) as u64)?;
        black_box(file.map(0, bytes.max(1))?);
    }
    Ok(each(began, FILES))
}

/// A page of one rank, mapped by all; they are on one node. Collective.
fn page_of(world: &World, owner: Rank) -> Result<SharedBytes, Failure> {
    let file = MemFile::create("windlass-osu", 4096)?;
    let name = vec![std::process::id(), file.as_fd().as_raw_fd().try_into()?];
    let name = job::share(world, owner, name)?;
    let memory = if world.rank() == owner {
        file.map(0, 4096)?
    } else {
        let path = format!("/proc/{}/fd/{}", name[0], name[1]);
        let file = File::options().read(true).write(true).open(path)?;
        MemFile::from_fd(file.into())?.map(0, 4096)?
    };
    // The owner's file stays open until the others have it.
    world.barrier()?;
    Ok(memory)
}

/// Memory that all ranks of the job share without a window, be there cpus for them or not.
pub struct Crowd<'a> {
    world: &'a World,
    memory: SharedBytes,
    /// Barriers of one reading.
    times: u32,
}

impl<'a> Crowd<'a> {
    /// `None` where the ranks are on several nodes. Collective.
    pub fn new(world: &'a World, origin: Rank) -> Result<Option<Self>, Failure> {
        for rank in world.ranks() {
            if world.node_of(rank)? != world.node_of(origin)? {
                return Ok(None);
            }
        }
        let mut crowd = Self {
            world,
            memory: page_of(world, origin)?,
            times: *BARRIERS.start(),
        };
        let fits = BARRIER_TIME.as_secs_f64() / crowd.barrier()?;
        let times = (fits as u32).clamp(*BARRIERS.start(), *BARRIERS.end());
        crowd.times = job::share(world, origin, vec![times])?[0];
        Ok(Some(crowd))
    }

    /// The barrier that a program would write which knows that its ranks outnumber the cpus: they
    /// count in one word, the last opens another, and whoever waits gives its cpu away. Collective;
    /// the time of one.
    pub fn barrier(&self) -> Result<f64, Failure> {
        let (arrived, open) = (
            self.memory.atomic_u64(0)?,
            self.memory.atomic_u64(2 * LINE)?,
        );
        let size = u64::from(self.world.size());
        self.world.barrier()?;
        let began = Instant::now();
        for _ in 0..self.times {
            let round = open.load(Ordering::Acquire);
            if arrived.fetch_add(1, Ordering::AcqRel) + 1 == size {
                arrived.store(0, Ordering::Relaxed);
                open.store(round + 1, Ordering::Release);
            } else {
                while open.load(Ordering::Acquire) == round {
                    std::thread::yield_now();
                }
            }
        }
        let one = each(began, self.times);
        self.world.barrier()?;
        Ok(one)
    }
}

/// A process that has nothing to do with the job and uses a cpu, until this is dropped or its rank
/// is gone.
pub struct Hog(Child);

impl Hog {
    /// Starts it.
    pub fn start() -> Result<Self, Failure> {
        let idle = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";
        let script = format!("while kill -0 \"$1\" 2>/dev/null; do {idle}; done");
        let rank = std::process::id().to_string();
        let child = Command::new("sh")
            .args(["-c", &script, "windlass-osu-hog", &rank])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Ok(Self(
            child.map_err(|e| format!("starting a stray process: {e}"))?,
        ))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Memory that origin and target share without a window.
pub struct Pair<'a> {
    world: &'a World,
    options: &'a Options,
    memory: SharedBytes,
}

impl<'a> Pair<'a> {
    /// `None` where they cannot meet in one memory, each on a cpu of its own, with no stray process.
    /// Collective.
    pub fn new(world: &'a World, options: &'a Options) -> Result<Option<Self>, Failure> {
        let (origin, target) = (Rank(options.origin), Rank(options.target));
        let cpus = std::thread::available_parallelism()?.get();
        if origin == target
            || options.hog
            || world.node_of(origin)? != world.node_of(target)?
            || world.size() as usize > cpus
        {
            return Ok(None);
        }
        Self::on_one_machine(world, options).map(Some)
    }

    /// Where the caller knows that they can, be they on logical nodes of their own. Collective.
    pub fn on_one_machine(world: &'a World, options: &'a Options) -> Result<Self, Failure> {
        Ok(Self {
            world,
            options,
            memory: page_of(world, Rank(options.origin))?,
        })
    }

    /// A cache line from one cpu to the other. Collective; the time is the origin's.
    pub fn hop(&self) -> Result<f64, Failure> {
        let (to, fro) = (
            self.memory.atomic_u64(0)?,
            self.memory.atomic_u64(2 * LINE)?,
        );
        let [is_origin, is_target] = self.roles();
        let start = to.load(Ordering::Acquire);
        self.world.barrier()?;
        let wait = |word: &AtomicU64, round| {
            while word.load(Ordering::Acquire) != round {
                spin_loop();
            }
        };
        let rounds = (1..=u64::from(ROUND_TRIPS)).map(|round| start + round);
        let began = Instant::now();
        if is_origin {
            rounds.for_each(|round| {
                to.store(round, Ordering::Release);
                wait(fro, round);
            });
        } else if is_target {
            rounds.for_each(|round| {
                wait(to, round);
                fro.store(round, Ordering::Release);
            });
        }
        let hop = each(began, 2 * ROUND_TRIPS);
        self.world.barrier()?;
        Ok(hop)
    }

    /// A locked instruction while the other rank does the same to the same word. Collective.
    pub fn contended(&self, what: Locked) -> Result<f64, Failure> {
        let word = self.memory.atomic_u64(4 * LINE)?;
        self.world.barrier()?;
        let began = Instant::now();
        if self.roles().contains(&true) {
            what.run(word, CONTENDED);
        }
        self.world.barrier()?;
        Ok(each(began, CONTENDED))
    }

    /// Tells the target a number, as soon as a cache line gets there.
    pub fn tell(&self, number: u64) -> Result<(), Failure> {
        self.memory
            .atomic_u64(6 * LINE)?
            .store(number, Ordering::Release);
        Ok(())
    }

    /// Waits for that number, and lets others have the cpu now and then: the helper has to serve what no mapping does.
    pub fn hear(&self, number: u64) -> Result<(), Failure> {
        let told = self.memory.atomic_u64(6 * LINE)?;
        for turn in 1_u64.. {
            if told.load(Ordering::Acquire) == number {
                break;
            }
            match turn % 100 {
                0 => std::thread::yield_now(),
                _ => spin_loop(),
            }
        }
        Ok(())
    }

    fn roles(&self) -> [bool; 2] {
        [self.options.origin, self.options.target].map(|rank| self.world.rank().0 == rank)
    }
}
