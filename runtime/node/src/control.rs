//! The control segment: one page-granular file per node with every lock, barrier, status and
//! gather word of its ranks.
//!
//! Each word is a `u64` alone on a 64-byte line (spec measured-designs 3: two ranks polling
//! neighbours of one line pay a hop for nothing), except the notification counters and the posted
//! bits of one rank, which that rank alone polls. Places are byte offsets given by `const fn`s of
//! fixed strides, so a rank of another node can name a word without seeing the segment. The file
//! is sparse: a page exists once a word on it was used.
//!
//! What ranks read here was written by peers: indices and lengths are copied once, checked, and
//! the copy is used (spec reliability S6).

use std::sync::atomic::{AtomicU64, Ordering};

use windlass_mem::{MemFile, SharedBytes};

use crate::error::Error;

/// Ranks of one node at most.
pub const MAX_LOCAL: u32 = 256;
/// Ranks of one job at most; bounds the gather slots and the greeting's list of members.
pub const MAX_WORLD: u32 = 4096;
/// Contexts: 0 is the job itself, 1 to 1023 are windows.
pub const CONTEXTS: u32 = 1024;
/// Rounds of a dissemination between nodes: 2^16 nodes.
pub const INTER_ROUNDS: u32 = 16;
/// Notifications a rank tells apart in one context.
pub const NOTIFY_IDS: u32 = 64;
/// A gather slot: its length word and the bytes.
pub const GATHER_BYTES: usize = 8 * 1024;
/// Most bytes of one gathered part.
pub const MAX_PART: usize = GATHER_BYTES - 8;

const LINE: usize = 64;
const PAGE: usize = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"windlctl");
/// Changes whenever an offset or a meaning on this page changes.
const LAYOUT: u64 = 2;

// The header's lines.
const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = LINE;
const AT_LOCALS: usize = 2 * LINE;
const AT_WORLD: usize = 3 * LINE;
const AT_TROUBLE: usize = 4 * LINE;

// One group of lines per local rank: status, presence, pid, start time.
const RANKS: usize = PAGE;
const RANK_STRIDE: usize = 4 * LINE;

// One block per context: the common lines, then a group of lines per local rank.
const CONTEXT_BASE: usize = RANKS + MAX_LOCAL as usize * RANK_STRIDE;
const IN_ARRIVE: usize = 0;
const IN_GENERATION: usize = LINE;
const IN_DEPARTED: usize = 2 * LINE;
const IN_SLEEPERS: usize = 3 * LINE;
const IN_INTER: usize = 4 * LINE;
const IN_LOCAL: usize = IN_INTER + INTER_ROUNDS as usize * LINE;
// Of one local rank: lines with one word each, then two packed arrays of words.
const LOCAL_LINES: usize = 10;
const IN_NOTIFY: usize = LOCAL_LINES * LINE;
const IN_POSTED: usize = IN_NOTIFY + NOTIFY_IDS as usize * 8;
const LOCAL_STRIDE: usize = (IN_POSTED + MAX_WORLD as usize / 8).next_multiple_of(LINE);
const CONTEXT_STRIDE: usize = (IN_LOCAL + MAX_LOCAL as usize * LOCAL_STRIDE).next_multiple_of(PAGE);

const GATHER_BASE: usize = CONTEXT_BASE + CONTEXTS as usize * CONTEXT_STRIDE;

const fn in_context(context: u32, place: usize) -> usize {
    assert!(context < CONTEXTS, "contexts are 0 to 1023");
    CONTEXT_BASE + context as usize * CONTEXT_STRIDE + place
}

const fn in_local(context: u32, local: u32, line: usize) -> usize {
    assert!(local < MAX_LOCAL, "local ranks are 0 to 255");
    in_context(
        context,
        IN_LOCAL + local as usize * LOCAL_STRIDE + line * LINE,
    )
}

const fn of_rank(local: u32, line: usize) -> usize {
    assert!(local < MAX_LOCAL, "local ranks are 0 to 255");
    RANKS + local as usize * RANK_STRIDE + line * LINE
}

/// Barrier: how many ranks of the node have arrived.
pub const fn arrive(context: u32) -> usize {
    in_context(context, IN_ARRIVE)
}
/// Barrier: the generation that is released.
pub const fn generation(context: u32) -> usize {
    in_context(context, IN_GENERATION)
}
/// Barrier between nodes: the word of dissemination round `round`, 0 to 15.
pub const fn inter(context: u32, round: u32) -> usize {
    assert!(round < INTER_ROUNDS, "rounds are 0 to 15");
    in_context(context, IN_INTER + round as usize * LINE)
}
/// Which ranks have left the window without its collective end: 0, or world rank + 1 of the first.
pub const fn departed(context: u32) -> usize {
    in_context(context, IN_DEPARTED)
}
/// How many ranks of the node sleep on a word of this context's barrier.
pub const fn sleepers(context: u32) -> usize {
    in_context(context, IN_SLEEPERS)
}
/// Barrier flag of one local rank.
pub const fn flag(context: u32, local: u32) -> usize {
    in_local(context, local, 0)
}
/// Lock word of one local rank as target (spec measured-designs 4).
pub const fn lock(context: u32, local: u32) -> usize {
    in_local(context, local, 1)
}
/// Next ticket of the lock queue of one local rank.
pub const fn ticket(context: u32, local: u32) -> usize {
    in_local(context, local, 2)
}
/// Ticket now served in the lock queue of one local rank.
pub const fn serving(context: u32, local: u32) -> usize {
    in_local(context, local, 3)
}
/// How many ranks sleep on the lock of one local rank.
pub const fn lock_sleepers(context: u32, local: u32) -> usize {
    in_local(context, local, 4)
}
/// Guards elements that no CPU instruction updates in one piece, in the memory of one local rank.
pub const fn guard(context: u32, local: u32) -> usize {
    in_local(context, local, 5)
}
/// How many accesses to one local rank's exposure have been completed, ever.
pub const fn completed(context: u32, local: u32) -> usize {
    in_local(context, local, 6)
}
/// How many threads of one local rank sleep on [`completed`] or [`posted`].
pub const fn pscw_sleepers(context: u32, local: u32) -> usize {
    in_local(context, local, 7)
}
/// Moves whenever a notification of one local rank arrives while somebody sleeps.
pub const fn bell(context: u32, local: u32) -> usize {
    in_local(context, local, 8)
}
/// How many threads of one local rank sleep on its [`bell`].
pub const fn bell_sleepers(context: u32, local: u32) -> usize {
    in_local(context, local, 9)
}
/// How often one local rank was notified under `id`, 0 to 63.
pub const fn notified(context: u32, local: u32, id: u32) -> usize {
    assert!(id < NOTIFY_IDS, "notifications are 0 to 63");
    in_local(context, local, 0) + IN_NOTIFY + id as usize * 8
}
/// One bit per rank of the window that has posted its exposure to one local rank: the word with
/// the bit of `rank` (bit `rank % 64`).
pub const fn posted(context: u32, local: u32, rank: u32) -> usize {
    assert!(rank < MAX_WORLD, "ranks are 0 to 4095");
    in_local(context, local, 0) + IN_POSTED + rank as usize / 64 * 8
}
/// The call a local rank was last in: written by the rank, read by the launcher after a death.
pub const fn status(local: u32) -> usize {
    of_rank(local, 0)
}
/// A [`Presence`], written by the service.
pub const fn presence(local: u32) -> usize {
    of_rank(local, 1)
}
/// Process id of a joined local rank, from its socket's credentials.
pub const fn pid(local: u32) -> usize {
    of_rank(local, 2)
}
/// Start time of a joined local rank (field 22 of its stat file): with the pid, its identity.
pub const fn start_time(local: u32) -> usize {
    of_rank(local, 3)
}
/// First trouble of the job as the service knows it: 0, or a [`Trouble`].
pub const fn trouble() -> usize {
    AT_TROUBLE
}
/// Gather slot of a world rank; rounds alternate between parity 0 and 1.
pub const fn gather(world_rank: u32, parity: u32) -> usize {
    assert!(
        world_rank < MAX_WORLD && parity < 2,
        "ranks are 0 to 4095, parities 0 and 1"
    );
    GATHER_BASE + (world_rank as usize * 2 + parity as usize) * GATHER_BYTES
}
/// Bytes of the segment of a job of `world` ranks.
pub const fn total_bytes(world: u32) -> usize {
    GATHER_BASE + world as usize * 2 * GATHER_BYTES
}

/// Whether a local rank's process is there, as the service knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Presence {
    /// Has not connected yet.
    Awaited = 0,
    /// Connected.
    Joined = 1,
    /// Said goodbye.
    Ended = 2,
    /// Its connection or process ended without a goodbye.
    Lost = 3,
}

/// The first trouble of a job, as it stands in the control segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A rank asked for the job to be aborted.
    Abort {
        /// World rank.
        rank: u32,
    },
    /// A rank ended without a goodbye.
    Lost {
        /// World rank.
        rank: u32,
    },
    /// The link to a node broke.
    Link {
        /// Number of the node.
        node: u32,
    },
}

impl Trouble {
    const fn to_word(self) -> u64 {
        match self {
            Trouble::Abort { rank } => 1 << 32 | rank as u64,
            Trouble::Lost { rank } => 2 << 32 | rank as u64,
            Trouble::Link { node } => 3 << 32 | node as u64,
        }
    }

    /// What a word read at [`trouble`] says; an unknown word is no trouble.
    pub const fn from_word(word: u64) -> Option<Self> {
        let number = word as u32;
        match word >> 32 {
            1 => Some(Trouble::Abort { rank: number }),
            2 => Some(Trouble::Lost { rank: number }),
            3 => Some(Trouble::Link { node: number }),
            _ => None,
        }
    }
}

/// The control segment of one node, mapped.
#[derive(Clone, Debug)]
pub struct Control {
    bytes: SharedBytes,
    locals: u32,
    world: u32,
}

impl Control {
    /// Makes the segment of a node with `locals` ranks in a job of `world`.
    pub fn create(locals: u32, world: u32) -> Result<(Self, MemFile), Error> {
        if locals > MAX_LOCAL || world == 0 || world > MAX_WORLD || locals > world {
            return Err(Error::Config(format!(
                "{locals} ranks of a node in a job of {world}: at most {MAX_LOCAL} and 1 to {MAX_WORLD}"
            )));
        }
        let len = total_bytes(world);
        let file = MemFile::create("windlass-control", len as u64)?;
        let bytes = file.map(0, len)?;
        let control = Self {
            bytes,
            locals,
            world,
        };
        control.word(AT_LAYOUT).store(LAYOUT, Ordering::Relaxed);
        control
            .word(AT_LOCALS)
            .store(u64::from(locals), Ordering::Relaxed);
        control
            .word(AT_WORLD)
            .store(u64::from(world), Ordering::Relaxed);
        // The magic last: a segment without it was not finished (spec reliability A5).
        control.word(AT_MAGIC).store(MAGIC, Ordering::Release);
        Ok((control, file))
    }

    /// Maps a segment received from the service and checks its header.
    pub fn open(file: &MemFile) -> Result<Self, Error> {
        let len = usize::try_from(file.len()).unwrap_or(usize::MAX);
        if len < total_bytes(1) || len > total_bytes(MAX_WORLD) {
            return Err(Error::Segment(format!("it has {len} bytes")));
        }
        let bytes = file.map(0, len)?;
        let word = |offset| Ok::<u64, Error>(bytes.atomic_u64(offset)?.load(Ordering::Acquire));
        if word(AT_MAGIC)? != MAGIC {
            return Err(Error::Segment("its first word is not the magic".into()));
        }
        let (layout, locals, world) = (word(AT_LAYOUT)?, word(AT_LOCALS)?, word(AT_WORLD)?);
        if layout != LAYOUT {
            return Err(Error::Segment(format!(
                "its layout is {layout}, this program knows {LAYOUT}; build both alike"
            )));
        }
        if locals > u64::from(MAX_LOCAL)
            || world > u64::from(MAX_WORLD)
            || len != total_bytes(world as u32)
        {
            return Err(Error::Segment(format!(
                "{locals} ranks of {world} do not fit {len} bytes"
            )));
        }
        Ok(Self {
            bytes,
            locals: locals as u32,
            world: world as u32,
        })
    }

    /// The whole segment, to be addressed by the offsets of this module.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// Ranks of this node.
    pub fn locals(&self) -> u32 {
        self.locals
    }

    /// Ranks of the job.
    pub fn world(&self) -> u32 {
        self.world
    }

    /// The word at an offset that a function of this module gave.
    ///
    /// # Panics
    /// Where the offset lies outside the segment or is not a multiple of 8: such an offset did
    /// not come from this module for a rank below [`Self::world`].
    #[inline]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        self.bytes
            .atomic_u64(offset)
            .expect("an offset of the control segment's own layout")
    }

    /// Writes a rank's part of a gather round; the caller publishes it by its own barrier.
    pub fn put_part(&self, world_rank: u32, parity: u32, part: &[u8]) -> Result<(), Error> {
        if part.len() > MAX_PART {
            return Err(Error::TooLong {
                what: "a gathered part",
                len: part.len(),
                max: MAX_PART,
            });
        }
        self.check_rank(world_rank)?;
        let at = gather(world_rank, parity);
        self.bytes.write(at + 8, part)?;
        self.word(at).store(part.len() as u64, Ordering::Release);
        Ok(())
    }

    /// A copy of a rank's part of a gather round.
    pub fn part(&self, world_rank: u32, parity: u32) -> Result<Vec<u8>, Error> {
        self.check_rank(world_rank)?;
        let at = gather(world_rank, parity);
        let len = self.word(at).load(Ordering::Acquire);
        let Some(len) = usize::try_from(len).ok().filter(|&len| len <= MAX_PART) else {
            return Err(Error::Segment(format!(
                "the part of rank {world_rank} claims {len} bytes"
            )));
        };
        let mut part = vec![0; len];
        self.bytes.read(at + 8, &mut part)?;
        Ok(part)
    }

    /// What the service knows of a local rank's process.
    pub fn presence(&self, local: u32) -> Presence {
        match self.word(presence(local)).load(Ordering::Acquire) {
            1 => Presence::Joined,
            2 => Presence::Ended,
            3 => Presence::Lost,
            _ => Presence::Awaited,
        }
    }

    /// Pid and start time of a local rank once it has joined.
    pub fn process(&self, local: u32) -> Option<(i32, u64)> {
        if self.presence(local) == Presence::Awaited {
            return None;
        }
        let pid = self.word(pid(local)).load(Ordering::Relaxed);
        let start = self.word(start_time(local)).load(Ordering::Relaxed);
        Some((i32::try_from(pid).ok()?, start))
    }

    /// The first trouble of the job, if there was one.
    #[inline]
    pub fn trouble(&self) -> Option<Trouble> {
        Trouble::from_word(self.word(trouble()).load(Ordering::Relaxed))
    }

    pub(crate) fn set_presence(&self, local: u32, now: Presence) {
        self.word(presence(local))
            .store(now as u64, Ordering::Release);
    }

    pub(crate) fn set_process(&self, local: u32, process: i32, start: u64) {
        self.word(pid(local))
            .store(process as u64, Ordering::Relaxed);
        self.word(start_time(local)).store(start, Ordering::Relaxed);
    }

    /// Keeps the first trouble only.
    pub(crate) fn set_trouble(&self, first: Trouble) {
        let word = self.word(trouble());
        let _ = word.compare_exchange(0, first.to_word(), Ordering::Release, Ordering::Relaxed);
    }

    fn check_rank(&self, world_rank: u32) -> Result<(), Error> {
        if world_rank < self.world {
            Ok(())
        } else {
            Err(Error::Config(format!(
                "rank {world_rank}: the job has {}",
                self.world
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_word_has_a_line_of_its_own() {
        let mut seen = HashSet::new();
        let mut add = |offset: usize| {
            assert_eq!(offset % LINE, 0);
            assert!(offset + 8 <= total_bytes(1));
            assert!(seen.insert(offset), "offset {offset} is given twice");
        };
        for place in [AT_MAGIC, AT_LAYOUT, AT_LOCALS, AT_WORLD, trouble()] {
            add(place);
        }
        for local in 0..MAX_LOCAL {
            for place in [status, presence, pid, start_time] {
                add(place(local));
            }
        }
        for context in [0, 1, 500, CONTEXTS - 1] {
            for place in [arrive, generation, departed, sleepers] {
                add(place(context));
            }
            for round in 0..INTER_ROUNDS {
                add(inter(context, round));
            }
            for local in 0..MAX_LOCAL {
                for place in [
                    flag,
                    lock,
                    ticket,
                    serving,
                    lock_sleepers,
                    guard,
                    completed,
                    pscw_sleepers,
                    bell,
                    bell_sleepers,
                ] {
                    add(place(context, local));
                }
                add(notified(context, local, 0));
                add(posted(context, local, 0));
            }
        }
        add(gather(0, 0));
        add(gather(0, 1));
        assert_eq!(
            notified(3, 5, NOTIFY_IDS - 1) + 8,
            posted(3, 5, 0),
            "packed, and next to each other"
        );
        assert!(posted(3, 5, MAX_WORLD - 1) < flag(3, 6));
        assert_eq!(gather(7, 1) + GATHER_BYTES, total_bytes(8));
    }

    #[test]
    fn opened_twice_it_is_the_same_memory() {
        let (a, file) = Control::create(2, 3).unwrap();
        let b = Control::open(&file).unwrap();
        assert_eq!((b.locals(), b.world()), (2, 3));
        a.word(lock(1023, 1)).store(5, Ordering::Relaxed);
        assert_eq!(b.word(lock(1023, 1)).load(Ordering::Relaxed), 5);
        for len in [0, 1, 100, MAX_PART] {
            let part: Vec<u8> = (0..len).map(|i| i as u8).collect();
            a.put_part(2, 1, &part).unwrap();
            assert_eq!(b.part(2, 1).unwrap(), part);
        }
        assert_eq!(b.part(2, 0).unwrap(), b"");
        assert!(a.put_part(0, 0, &vec![0; MAX_PART + 1]).is_err());
        assert!(a.put_part(3, 0, b"").is_err());
        a.word(gather(1, 0)).store(u64::MAX, Ordering::Relaxed);
        assert!(b.part(1, 0).unwrap_err().to_string().contains("claims"));
    }

    #[test]
    fn the_first_trouble_stays() {
        let (control, _file) = Control::create(1, 1).unwrap();
        assert_eq!(control.trouble(), None);
        control.set_trouble(Trouble::Lost { rank: 3 });
        control.set_trouble(Trouble::Abort { rank: 1 });
        assert_eq!(control.trouble(), Some(Trouble::Lost { rank: 3 }));
        assert_eq!(control.process(0), None);
        control.set_process(0, 41, 42);
        control.set_presence(0, Presence::Joined);
        assert_eq!(control.process(0), Some((41, 42)));
    }

    #[test]
    fn a_foreign_header_is_refused() {
        let file = MemFile::create("windlass-test", total_bytes(1) as u64).unwrap();
        assert!(Control::open(&file).is_err());
        let (control, file) = Control::create(1, 1).unwrap();
        control.word(AT_WORLD).store(2, Ordering::Relaxed);
        assert!(Control::open(&file).is_err());
        control.word(AT_WORLD).store(1, Ordering::Relaxed);
        control.word(AT_LAYOUT).store(LAYOUT + 1, Ordering::Relaxed);
        assert!(
            Control::open(&file)
                .unwrap_err()
                .to_string()
                .contains("layout")
        );
    }
}
