//! The control segment: one page-granular file per node with every lock, barrier, status and
//! gather word of its ranks.
//!
//! The file is sparse: a page exists once a word on it was used.
//!
//! A *context* is the block of words of one team or window on this node. Contexts are handed out
//! by a bitmap, node by node: whoever takes one finds every word of it 0, because whoever leaves
//! one puts its own words back and the last to leave those that all share.
//!
//! What ranks read here was written by peers: indices and lengths are copied once, checked, and
//! the copy is used (spec reliability S6).

use std::sync::atomic::{AtomicU64, Ordering};

use windlass_mem::{MemFile, SharedBytes, SharedWord};

use crate::contexts::{self, Book, Words};
use crate::error::Error;
use crate::layout::{
    AT_LAYOUT, AT_LOCALS, AT_MAGIC, AT_TAKEN, AT_WORLD, LAYOUT, LEFT_BYTES, MAGIC, in_local,
};
pub use crate::layout::{
    CONTEXTS, INTER_ROUNDS, MAX_LOCAL, MAX_PART, MAX_PIECE, MAX_WORLD, NOTIFY_IDS, POSTED_BITS,
    SLOT_BYTES, WORLD, area_bytes, arrive, bell, bell_sleepers, completed, departed, flag, gather,
    generation, guard, inside, inter, left, lock, lock_sleepers, notified, pid, posted, presence,
    pscw_sleepers, serving, sleepers, start_time, status, ticket, told, total_bytes, trouble,
};

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

/// What a rank left while its peers still needed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// It did so before it was told of anybody else who had.
    pub first: bool,
    /// The window, by its name; empty where it was the job itself.
    pub what: String,
}

/// The area of one round of a team's gathers on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The team's context on this node.
    pub context: u32,
    /// Of the round: 0 or 1.
    pub parity: u32,
}

/// What a rank gathers, beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is about, so that those who call different things see it.
    pub topic: u32,
    /// Bytes in all.
    pub len: u32,
}

impl Part {
    /// The first word of its record.
    pub const fn to_word(self) -> u64 {
        (self.topic as u64) << 32 | self.len as u64
    }

    /// What such a word says.
    pub const fn from_word(word: u64) -> Self {
        Part {
            topic: (word >> 32) as u32,
            len: word as u32,
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
        control.book(Book::Taken(WORLD)).store(1, Ordering::Relaxed);
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

    /// The same to keep, for words that are changed often.
    ///
    /// # Panics
    /// As [`word`](Self::word).
    pub fn shared_word(&self, offset: usize) -> SharedWord {
        self.bytes
            .shared_word(offset)
            .expect("an offset of the control segment's own layout")
    }

    /// Where `len` bytes at `at` of an area lie, if all of them are inside.
    fn in_area(&self, area: Area, at: usize, len: usize) -> Result<usize, Error> {
        let all = area_bytes(self.world);
        if at > all || len > all - at {
            return Err(Error::Segment(format!(
                "{len} bytes at {at} of a gather area of {all}"
            )));
        }
        Ok(gather(self.world, area.context, area.parity) + at)
    }

    /// Writes into an area; the caller publishes it by its own barrier.
    pub fn write_area(&self, area: Area, at: usize, bytes: &[u8]) -> Result<(), Error> {
        let at = self.in_area(area, at, bytes.len())?;
        Ok(self.bytes.write(at, bytes)?)
    }

    /// Copies what stands in an area.
    pub fn read_area(&self, area: Area, at: usize, bytes: &mut [u8]) -> Result<(), Error> {
        let at = self.in_area(area, at, bytes.len())?;
        Ok(self.bytes.read(at, bytes)?)
    }

    /// Takes the lowest context that is free on this node, for so many who will [`leave`](Self::leave)
    /// it. All its words are 0. `None` if all are taken.
    pub fn take(&self, leavers: u32) -> Option<u32> {
        contexts::take(self, leavers)
    }

    /// Frees a context that was taken and never used.
    pub fn give_back(&self, context: u32) {
        contexts::give_back(self, context);
    }

    /// One who is inside leaves the context and uses it no more; the last one frees it. Who is on
    /// another node subtracts one from the word [`inside`] instead, and if that was the last, the
    /// context is free once all others are taken.
    pub fn leave(&self, context: u32) {
        contexts::leave(self, context);
    }

    fn book(&self, word: Book) -> &AtomicU64 {
        match word {
            Book::Taken(first) => self.word(AT_TAKEN + first as usize / 64 * 8),
            Book::Inside(context) => self.word(inside(context)),
        }
    }

    /// Puts the words of one local rank in a window of `size` ranks back: when nobody uses them any
    /// more, before [`leave`](Self::leave).
    pub fn clear_local(&self, context: u32, local: u32, size: u32) {
        let first = in_local(context, local, 0);
        let len = posted(context, local, 0) + size.div_ceil(POSTED_BITS) as usize * 8 - first;
        let filled = self.bytes.fill(first, len, 0);
        debug_assert!(filled.is_ok(), "words of the segment's own layout");
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

    /// Notes that a local rank leaves something that its peers may still synchronise on.
    pub fn note_left(&self, local: u32, what: &str) {
        let at = left(local);
        if self.word(at).load(Ordering::Relaxed) != 0 {
            return;
        }
        let name = what.as_bytes();
        let written = self
            .bytes
            .write(at + 8, &name[..name.len().min(LEFT_BYTES)]);
        debug_assert!(written.is_ok(), "bytes of the segment's own layout");
        let when = if self.told(local).is_none() { 1 } else { 2 };
        self.word(at).store(when, Ordering::Release);
    }

    /// What a local rank left first, for whoever explains the end of a job.
    pub fn left(&self, local: u32) -> Option<Left> {
        let at = left(local);
        let when = self.word(at).load(Ordering::Acquire);
        let mut name = [0; LEFT_BYTES];
        self.bytes.read(at + 8, &mut name).ok()?;
        let name = String::from_utf8_lossy(&name);
        let name = name.chars().filter(|c| !c.is_control());
        (when != 0).then(|| Left {
            first: when == 1,
            what: name.collect(),
        })
    }

    /// Notes that a local rank was told that a peer had left; the first one counts.
    pub fn note_told(&self, local: u32, rank: u32) {
        let word = self.word(told(local));
        let _ = word.compare_exchange(0, u64::from(rank) + 1, Ordering::Release, Ordering::Relaxed);
    }

    /// The first peer of which a local rank was told that it had left.
    pub fn told(&self, local: u32) -> Option<u32> {
        let rank = self.word(told(local)).load(Ordering::Acquire);
        let rank = u32::try_from(rank.checked_sub(1)?).ok()?;
        (rank < self.world).then_some(rank)
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
}

impl Words for Control {
    fn count(&self) -> u32 {
        CONTEXTS
    }

    fn load(&self, word: Book) -> u64 {
        self.book(word).load(Ordering::Acquire)
    }

    fn swap(&self, word: Book, value: u64) {
        self.book(word).swap(value, Ordering::AcqRel);
    }

    fn fetch_or(&self, word: Book, bits: u64) -> u64 {
        self.book(word).fetch_or(bits, Ordering::AcqRel)
    }

    fn fetch_and(&self, word: Book, bits: u64) -> u64 {
        self.book(word).fetch_and(bits, Ordering::AcqRel)
    }

    fn fetch_sub(&self, word: Book, n: u64) -> u64 {
        self.book(word).fetch_sub(n, Ordering::AcqRel)
    }

    fn replace(&self, word: Book, old: u64, new: u64) -> bool {
        let word = self.book(word);
        let done = word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        done.is_ok()
    }

    /// Those that ranks share: each rank has put its own back.
    fn clear(&self, context: u32) {
        let shared = [arrive, generation, departed].map(|place| place(context));
        let flags = [flag(context, 0), flag(context, 1)];
        let steps = (0..INTER_ROUNDS).map(|round| inter(context, round));
        for word in shared.into_iter().chain(flags).chain(steps) {
            let word = self.word(word);
            // Most are 0 already, in cache lines that nobody need give up.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn who_left_is_noted_once_and_survives_rubbish() {
        let (control, _) = Control::create(2, 3).unwrap();
        assert_eq!((control.told(0), control.left(0)), (None, None));
        control.note_left(0, "window 0");
        control.note_left(0, "window 1");
        let left = |first, what: &str| {
            let what = what.to_owned();
            Some(Left { first, what })
        };
        assert_eq!(control.left(0), left(true, "window 0"));
        control.note_told(1, 2);
        control.note_told(1, 0);
        assert_eq!(control.told(1), Some(2));
        control.note_left(1, &"é".repeat(100));
        let cut = control.left(1).unwrap();
        assert!(!cut.first && cut.what == "é".repeat(LEFT_BYTES / 2));
        // Written by a peer that knows no bounds.
        control.word(told(0)).store(u64::MAX, Ordering::Relaxed);
        control
            .bytes()
            .write(super::left(0) + 8, b"\x1b[2J\xff\n")
            .unwrap();
        assert_eq!(control.told(0), None);
        assert!(!control.left(0).unwrap().what.contains(char::is_control));
    }

    #[test]
    fn opened_twice_it_is_the_same_memory() {
        let (a, file) = Control::create(2, 3).unwrap();
        let b = Control::open(&file).unwrap();
        assert_eq!((b.locals(), b.world()), (2, 3));
        a.word(lock(1023, 1)).store(5, Ordering::Relaxed);
        assert_eq!(b.word(lock(1023, 1)).load(Ordering::Relaxed), 5);
        let area = |context, parity| Area { context, parity };
        let all = area_bytes(3);
        for (context, parity) in [(9, 0), (9, 1), (10, 0)] {
            let mark = [context as u8, parity as u8];
            a.write_area(area(context, parity), 0, &mark).unwrap();
            a.write_area(area(context, parity), all - 2, &mark).unwrap();
        }
        for (context, parity) in [(9, 0), (9, 1), (10, 0)] {
            for at in [0, all - 2] {
                let mut mark = [0xff; 2];
                b.read_area(area(context, parity), at, &mut mark).unwrap();
                assert_eq!(mark, [context as u8, parity as u8], "its own to both ends");
            }
        }
        for (at, len) in [(all - 2, 3), (all + 1, 0), (usize::MAX, 1), (0, all + 1)] {
            assert!(a.write_area(area(0, 0), at, &vec![0; len]).is_err());
            assert!(b.read_area(area(0, 0), at, &mut vec![0; len]).is_err());
        }
    }

    #[test]
    fn contexts_are_taken_once_and_come_back() {
        let (control, _file) = Control::create(2, 2).unwrap();
        let all: Vec<u32> = std::iter::from_fn(|| control.take(2)).collect();
        assert_eq!(all, (1..CONTEXTS).collect::<Vec<_>>());
        // Never used; left by all; left by one.
        control.give_back(700);
        for id in [3, 4, 3] {
            control.word(lock(id, 1)).store(9, Ordering::Relaxed);
            control
                .word(notified(id, 1, 63))
                .store(9, Ordering::Relaxed);
            control.word(posted(id, 1, 1)).store(9, Ordering::Relaxed);
            control.word(generation(id)).store(9, Ordering::Relaxed);
            control.word(flag(id, 1)).store(9, Ordering::Relaxed);
            control.clear_local(id, 1, 2);
            control.leave(id);
        }
        assert_eq!((control.take(1), control.take(1)), (Some(3), Some(700)));
        for word in [
            lock(3, 1),
            notified(3, 1, 63),
            posted(3, 1, 1),
            generation(3),
            flag(3, 1),
        ] {
            assert_eq!(control.word(word).load(Ordering::Relaxed), 0);
        }
        assert_eq!(control.take(1), None);
        // The last to leave 4 is on another node; 700 has still one inside.
        control.word(inside(4)).fetch_sub(1, Ordering::Relaxed);
        assert_eq!((control.take(1), control.take(1)), (Some(4), None));
        control.leave(4);
        assert_eq!(control.take(1), Some(4));
    }

    #[test]
    fn threads_take_different_contexts() {
        let (control, _file) = Control::create(2, 2).unwrap();
        let taken: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut kept = Vec::new();
                        for turn in 0..200 {
                            let id = control.take(1).expect("200 x 4 are fewer than there are");
                            if turn % 2 == 0 {
                                control.leave(id);
                            } else {
                                kept.push(id);
                            }
                        }
                        kept
                    })
                })
                .collect();
            let kept = threads.into_iter().map(|thread| thread.join().unwrap());
            kept.flatten().collect()
        });
        let different: HashSet<u32> = taken.iter().copied().collect();
        assert_eq!((taken.len(), different.len()), (400, 400));
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
