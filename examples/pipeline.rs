//! A stream of blocks through a chain of ranks, by put with notification.
//!
//! Every rank is a stage. It waits for the notification that a block is in its window, copies the
//! block out, returns a credit to the stage before (a notification without data), does its part of
//! the work, and puts the block with notification into a free slot of the stage behind. With two
//! slots or more a block travels while the one before is worked on. There is no other
//! synchronisation: no fence, no barrier, no acknowledgement of data.
//!
//! The work is encryption: rank 0 makes the numbers 0, 1, 2, ..., and each stage does its share of
//! the 34 rounds of the cipher Speck 128/256. Decrypted by the last stage alone, after the stream
//! has ended, the numbers must come back; the exit code is 1 if one does not.
//!
//! ```text
//! cargo windlass run -n 4 --example pipeline
//! ```

#[path = "support/job.rs"]
mod job;
#[path = "support/mechanisms.rs"]
mod mechanisms;
#[path = "support/progress.rs"]
mod progress;
#[path = "support/speck.rs"]
mod speck;
#[path = "support/split.rs"]
mod split;

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::ProgressBar;
use job::{Failure, ROOT};
use speck::Keys;
use split::Split;
use windlass::{Lock, LockKind, Rank, Window, World};

/// Streams blocks through a chain of ranks that encrypt them, by put with notification, and checks
/// them by decryption
#[derive(Parser, Debug)]
#[command(name = "pipeline", version, after_help = EXAMPLES)]
struct Arguments {
    /// Blocks of the stream
    #[arg(long, default_value_t = 500, value_parser = job::at_least_one::<u32>())]
    blocks: u32,
    /// Size of a block in pairs of 64-bit words, 16 bytes
    #[arg(long, value_name = "PAIRS", default_value_t = 1024, value_parser = job::at_least_one::<u32>())]
    block: u32,
    /// Blocks that a stage has room for
    #[arg(long, default_value_t = 2, value_parser = job::at_least_one::<u32>())]
    slots: u32,
    /// Blocks sent alone through the empty chain, to measure latency; of one pair each
    #[arg(long, value_name = "BLOCKS", default_value_t = 200)]
    alone: u32,
}

const EXAMPLES: &str = "\
Examples:
  cargo windlass run -n 4 --example pipeline
  cargo windlass run -n 4 --nodes 2 --ves 1 --place ve:1,vh:1 --example pipeline -- --slots 8
  cargo windlass run -n 2 --example pipeline -- --block 65536 --blocks 200";

/// The most memory of the encrypted stream, which the last stage keeps.
const MAX_STREAM_BYTES: u64 = 1 << 31;

/// The most memory of a stage's slots.
const MAX_SLOT_BYTES: u64 = 1 << 30;

impl Arguments {
    fn check(&self) -> Result<(), String> {
        let block = 16 * u128::from(self.block);
        for (what, count, limit) in [
            ("the stream", self.blocks, MAX_STREAM_BYTES),
            ("the slots of a stage", self.slots, MAX_SLOT_BYTES),
        ] {
            let bytes = block * u128::from(count);
            if bytes > u128::from(limit) {
                return Err(format!(
                    "{count} blocks of {block} bytes are {bytes} bytes, and {what} may have {limit}; \
                     give a smaller number or smaller blocks"
                ));
            }
        }
        Ok(())
    }

    /// Memory of all ranks: each has slots and a block in hand, the last one keeps the stream.
    fn bytes(&self, ranks: u32) -> u64 {
        let [block, blocks, slots] = [self.block, self.blocks, self.slots].map(u64::from);
        16 * block * (blocks + u64::from(ranks) * (slots + 1))
    }
}

fn main() -> ExitCode {
    job::main("pipeline", run)
}

/// Notification: a block has come.
const BLOCK: u32 = 0;
/// Notification: the stage behind has a free slot more.
const CREDIT: u32 = 1;
/// Notification from the last stage to the first: a block that went alone has arrived.
const ARRIVED: u32 = 2;

/// Any key will do; this is the one of the cipher's test vector.
const KEY: [u64; 4] = [
    0x1f1e1d1c1b1a1918,
    0x1716151413121110,
    0x0f0e0d0c0b0a0908,
    0x0706050403020100,
];

fn run(world: &World) -> Result<ExitCode, Failure> {
    let arguments = match job::arguments::<Arguments>(world)? {
        Ok(arguments) => arguments,
        Err(code) => return Ok(code),
    };
    if let Err(why) = arguments.check() {
        return Ok(job::refuse(world, &why));
    }
    let remedy = "give fewer or smaller blocks, or fewer slots";
    if !job::is_room(world, arguments.bytes(world.size()), remedy)? {
        return Ok(ExitCode::from(2));
    }
    let block = 2 * arguments.block as usize;
    let window = world.allocate::<u64>(block * arguments.slots as usize)?;
    let stage = Stage::new(world, &window, block, arguments.slots as usize)?;

    let mut hops = Vec::new();
    for number in 0..arguments.alone {
        let began = Instant::now();
        stage.pass(&Stream::alone(number), |_| ())?;
        stage.arrived()?;
        // As many as there are ranks: the last leads back to the first.
        hops.push(began.elapsed() / world.size());
    }

    let mut encrypted = Vec::new();
    if stage.is_last() {
        encrypted.reserve_exact(block * arguments.blocks as usize);
    }
    let stream = Stream {
        first: 0,
        blocks: arguments.blocks as usize,
        words: block,
        bar: progress::bar(world, "pipeline", arguments.blocks as usize, "blocks"),
    };
    world.barrier()?;
    let began = Instant::now();
    stage.pass(&stream, |words| encrypted.extend_from_slice(words))?;
    world.barrier()?;
    let elapsed = began.elapsed().as_secs_f64();

    // 0 at every other rank, which has kept nothing.
    let right = stage.count_right(&encrypted);
    let partners = stage.partners();
    stage.end()?;
    let usage = mechanisms::count(world, &window, &partners)?;
    window.free()?;
    let right = job::share(world, Rank(world.size() - 1), vec![right])?[0];
    let pairs = u64::from(arguments.blocks) * u64::from(arguments.block);
    if world.rank() == ROOT {
        report(world, &arguments, elapsed, hops);
        mechanisms::print(&usage);
        println!("pairs that decrypt to their number: {right} of {pairs}");
    }
    Ok(if right == pairs {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How fast the stream was, in seconds, and the hops of the blocks that went alone.
fn report(world: &World, arguments: &Arguments, seconds: f64, mut hops: Vec<Duration>) {
    let block = 16.0 * f64::from(arguments.block);
    let blocks = f64::from(arguments.blocks);
    println!(
        "{blocks} blocks of {block} bytes through {} with {}: {:.1} ms",
        job::count(world.size(), "stage"),
        job::count(arguments.slots, "slot"),
        seconds * 1e3,
    );
    println!(
        "rate: {:.1} MB/s, {:.0} blocks per second",
        block * blocks / seconds / 1e6,
        blocks / seconds
    );
    hops.sort();
    if let (Some(least), Some(median)) = (hops.first(), hops.get(hops.len() / 2)) {
        println!(
            "latency of a hop: {:.2} us in the median, {:.2} us at least",
            median.as_secs_f64() * 1e6,
            least.as_secs_f64() * 1e6
        );
    }
}

/// What goes through the chain.
struct Stream {
    /// The first number to be encrypted.
    first: u64,
    blocks: usize,
    /// Words of a block.
    words: usize,
    bar: ProgressBar,
}

impl Stream {
    /// One block of one pair.
    fn alone(number: u32) -> Self {
        Self {
            first: number.into(),
            blocks: 1,
            words: 2,
            bar: ProgressBar::hidden(),
        }
    }

    fn fill(&self, block: usize, words: &mut [u64]) {
        let pairs = self.words / 2;
        for (number, pair) in (self.first + (block * pairs) as u64..).zip(words.as_chunks_mut().0) {
            *pair = [0, number];
        }
    }
}

/// One rank of the chain.
struct Stage<'w> {
    window: &'w Window<u64>,
    keys: Keys,
    /// Its share of the rounds.
    rounds: Range<usize>,
    slots: usize,
    /// Words of a slot.
    room: usize,
    before: Option<Rank>,
    behind: Option<Rank>,
    /// Open to every rank that this one puts to or notifies.
    links: Vec<Lock<'w, u64>>,
}

impl<'w> Stage<'w> {
    fn new(
        world: &World,
        window: &'w Window<u64>,
        room: usize,
        slots: usize,
    ) -> Result<Self, Failure> {
        let (me, ranks) = (world.rank().0, world.size());
        let before = me.checked_sub(1).map(Rank);
        let behind = (me + 1 < ranks).then(|| Rank(me + 1));
        // The last stage tells the first when a block has arrived.
        let mut targets: Vec<Rank> = before.into_iter().chain(behind.or(Some(ROOT))).collect();
        targets.dedup();
        let links = targets
            .iter()
            .map(|&target| window.lock(target, LockKind::Shared));
        Ok(Self {
            window,
            keys: Keys::new(KEY),
            rounds: Split::new(speck::ROUNDS, ranks as usize).range(me as usize),
            slots,
            room,
            before,
            behind,
            links: links.collect::<Result<_, _>>()?,
        })
    }

    fn is_last(&self) -> bool {
        self.behind.is_none()
    }

    fn partners(&self) -> Vec<Rank> {
        self.links.iter().map(Lock::target).collect()
    }

    /// Puts `words` into a slot of another stage, with notification.
    fn send(&self, words: &[u64], target: Rank, slot: usize, id: u32) -> Result<(), Failure> {
        let link = self.links.iter().find(|link| link.target() == target);
        let link = link.ok_or("a stage notifies only its neighbours, and the last the first")?;
        Ok(link.put_notify(words, target, slot * self.room, id)?)
    }

    /// Takes part in the passage of a stream; the last stage hands each block to `take`.
    fn pass(&self, stream: &Stream, mut take: impl FnMut(&[u64])) -> Result<(), Failure> {
        let mut words = vec![0; stream.words];
        for block in 0..stream.blocks {
            let slot = block % self.slots;
            match self.before {
                None => stream.fill(block, &mut words),
                Some(before) => {
                    self.window.wait_notify(BLOCK, 1)?;
                    self.window.local().read(slot * self.room, &mut words)?;
                    self.send(&[], before, 0, CREDIT)?;
                }
            }
            for pair in words.as_chunks_mut().0 {
                self.keys.encrypt(self.rounds.clone(), pair);
            }
            match self.behind {
                None => take(&words),
                Some(behind) => {
                    if block >= self.slots {
                        self.window.wait_notify(CREDIT, 1)?;
                    }
                    self.send(&words, behind, slot, BLOCK)?;
                }
            }
            stream.bar.inc(1);
        }
        stream.bar.finish_and_clear();
        if self.behind.is_some() {
            // The next stream begins with all slots free.
            let open = stream.blocks.min(self.slots);
            self.window.wait_notify(CREDIT, open as u64)?;
        }
        Ok(())
    }

    /// The last stage tells the first, which waits for it, that a stream has passed.
    fn arrived(&self) -> Result<(), Failure> {
        if self.is_last() {
            self.send(&[], ROOT, 0, ARRIVED)?;
        }
        if self.before.is_none() {
            self.window.wait_notify(ARRIVED, 1)?;
        }
        Ok(())
    }

    /// How many pairs of a stream that began with 0 decrypt to their number.
    fn count_right(&self, encrypted: &[u64]) -> u64 {
        let mut right = 0;
        for (number, pair) in (0..).zip(encrypted.as_chunks().0) {
            let mut pair = *pair;
            self.keys.decrypt(&mut pair);
            right += u64::from(pair == [0, number]);
        }
        right
    }

    fn end(self) -> Result<(), Failure> {
        for link in self.links {
            link.end()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_would_fill_the_machine_are_refused() {
        let check = |text: &str| Arguments::parse_from(text.split(' ')).check();
        assert_eq!(check("pipeline --blocks 131072 --block 1024"), Ok(()));
        let refused = check("pipeline --blocks 131073 --block 1024").unwrap_err();
        assert!(refused.contains("the stream"), "{refused}");
        let refused = check("pipeline --blocks 1 --block 4294967295 --slots 4294967295");
        assert!(refused.is_err());
        let refused = check("pipeline --blocks 1 --block 67108864 --slots 2").unwrap_err();
        assert!(refused.contains("the slots"), "{refused}");
    }

    #[test]
    fn blocks_are_numbered_through() {
        let stream = Stream {
            words: 4,
            ..Stream::alone(7)
        };
        let mut words = [9; 4];
        stream.fill(3, &mut words);
        assert_eq!(words, [0, 13, 0, 14]);
    }
}
