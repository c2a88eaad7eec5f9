//! The physical memory of one VE: a pool of frames (ve-memory.md section 2.6), in one sparse memory file for each user.
//!
//! A frame in use lies in the file of its user, at its VEMAA; nobody is given another user's file, so the kernel keeps users apart as
//! section 5.2 row 15 does. How much is free is counted over all of them.
//!
//! A frame is counted in steps of 2 MiB; a 64 MiB page takes 32 of them, naturally aligned. Each ATB entry, each
//! DMAATB entry of type VEMAA, each PCIATB slot and each open hand-over to a process holds a reference. At zero the
//! frame is punched out of the file, so the next owner sees zeros and the host gets its memory back, and returns to the pool.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rustix::fs::fchown;
use rustix::process::Uid;
use serde::{Deserialize, Serialize};
use windlass_mem::MemFile;

use crate::addr::{PageSize, Vemaa};
use crate::errno::Errno;

/// A range of a VE's memory file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Offset in the file: the absolute VE memory address.
    pub offset: Vemaa,
    /// Length in bytes.
    pub len: u64,
}

/// Most runs one reply carries, so that it stays below 64 KiB encoded (two numbers of at most 6 bytes each).
pub const MAX_RUNS: usize = 4096;

const STEP: u64 = PageSize::M2.bytes();
/// A frame that could not be punched is never handed out again: its content would leak to the next owner.
const QUARANTINED: u32 = u32::MAX;

/// The frames of one VE.
#[derive(Debug)]
pub(crate) struct FramePool {
    name: String,
    len: u64,
    files: BTreeMap<u32, Arc<MemFile>>,
    counts: Vec<u32>,
    /// Whose file a frame in use lies in.
    users: Vec<u32>,
    free: usize,
}

impl FramePool {
    /// A pool of `len` bytes, a multiple of 64 MiB, with the file of one user, so that a host that cannot make any says it now.
    pub(crate) fn new(name: String, len: u64, user: u32) -> Result<Self, windlass_mem::Error> {
        let len = len - len % PageSize::M64.bytes();
        let frames = usize::try_from(len / STEP).unwrap_or(0);
        let first = Arc::new(MemFile::create(&name, len)?);
        Ok(Self {
            name,
            len,
            files: BTreeMap::from([(user, first)]),
            counts: vec![0; frames],
            users: vec![user; frames],
            free: frames,
        })
    }

    /// The memory file of a user. It belongs to that user to the kernel too where this process may give it away.
    pub(crate) fn file(&mut self, user: u32) -> Result<Arc<MemFile>, Errno> {
        if let Some(file) = self.files.get(&user) {
            return Ok(Arc::clone(file));
        }
        let file = MemFile::create(&self.name, self.len).map_err(|_| Errno::Enomem)?;
        // Only root may: elsewhere the file stays the service's, and the user reaches it by the descriptor alone.
        let _ = fchown(&file, Some(Uid::from_raw(user)), None);
        let file = Arc::new(file);
        self.files.insert(user, Arc::clone(&file));
        Ok(file)
    }

    /// The last process of a user is gone, and with it every reference to its frames.
    pub(crate) fn forget_user(&mut self, user: u32) {
        if self.files.remove(&user).is_none() {
            return;
        }
        for (count, of) in self.counts.iter_mut().zip(&self.users) {
            if *of == user && *count == QUARANTINED {
                *count = 0;
                self.free += 1;
            }
        }
    }

    /// Free steps of 2 MiB.
    pub(crate) fn free_frames(&self) -> usize {
        self.free
    }

    /// Takes `pages` pages of `page`, each with one reference, all or none. Large pages are taken from the bottom, small
    /// ones from the top, so that small ones break up as few large frames as possible.
    pub(crate) fn allocate(
        &mut self,
        user: u32,
        page: PageSize,
        pages: u64,
    ) -> Result<Vec<Vemaa>, Errno> {
        let steps = usize::try_from(page.bytes() / STEP).map_err(|_| Errno::Einval)?;
        let wanted = usize::try_from(pages).map_err(|_| Errno::Enomem)?;
        if steps == 0 {
            return Err(Errno::Einval);
        }
        if wanted
            .checked_mul(steps)
            .is_none_or(|need| need > self.free)
        {
            return Err(Errno::Enomem);
        }
        let mut found = Vec::with_capacity(wanted);
        let groups = self
            .counts
            .chunks_exact(steps)
            .enumerate()
            .filter(|(_, g)| g.iter().all(|count| *count == 0));
        if steps == 1 {
            found.extend(groups.rev().map(|(index, _)| index).take(wanted));
            found.reverse();
        } else {
            found.extend(groups.map(|(index, _)| index).take(wanted));
        }
        if found.len() < wanted {
            return Err(Errno::Enomem);
        }
        self.file(user)?;
        let frames: Vec<Vemaa> = found
            .into_iter()
            .map(|index| Vemaa::new(index as u64 * page.bytes()))
            .collect();
        for frame in &frames {
            self.retain(*frame, page.bytes());
            if let Some(users) = self.users.get_mut(range(*frame, page.bytes())) {
                users.fill(user);
            }
        }
        Ok(frames)
    }

    fn steps(&mut self, start: Vemaa, len: u64) -> &mut [u32] {
        self.counts.get_mut(range(start, len)).unwrap_or(&mut [])
    }

    /// Adds one reference to each frame of the range.
    pub(crate) fn retain(&mut self, start: Vemaa, len: u64) {
        let mut taken = 0;
        for count in self.steps(start, len) {
            taken += usize::from(*count == 0);
            if *count != QUARANTINED {
                *count += 1;
            }
        }
        self.free -= taken;
    }

    /// Drops one reference of each frame of the range; those that reach zero are emptied and become free.
    pub(crate) fn release(&mut self, start: Vemaa, len: u64) {
        let mut emptied: Vec<Run> = Vec::new();
        for (index, count) in self.steps(start, len).iter_mut().enumerate() {
            debug_assert!(*count > 0, "release of a free frame");
            if *count == 0 || *count == QUARANTINED {
                continue;
            }
            *count -= 1;
            if *count == 0 {
                let at = start.raw() / STEP * STEP + index as u64 * STEP;
                push_run(&mut emptied, Vemaa::new(at), STEP);
            }
        }
        // All of a range has one user: nobody holds frames of two.
        let user = self.users.get(range(start, len).start).copied();
        let file = user.and_then(|user| self.files.get(&user)).map(Arc::clone);
        for run in emptied {
            let frames = usize::try_from(run.len / STEP).unwrap_or(0);
            let punched = |file: &MemFile| file.punch(run.offset.raw(), run.len).is_ok();
            if file.as_deref().is_some_and(punched) {
                self.free += frames;
            } else {
                self.steps(run.offset, run.len).fill(QUARANTINED);
            }
        }
    }
}

/// The steps of a range of memory.
fn range(start: Vemaa, len: u64) -> Range<usize> {
    let first = usize::try_from(start.raw() / STEP).unwrap_or(usize::MAX);
    let count = usize::try_from(len.div_ceil(STEP)).unwrap_or(usize::MAX);
    first..first.saturating_add(count)
}

fn push_run(runs: &mut Vec<Run>, at: Vemaa, len: u64) {
    if let Some(last) = runs.last_mut()
        && last.offset.checked_add(last.len) == Some(at)
    {
        last.len += len;
        return;
    }
    runs.push(Run { offset: at, len });
}

/// The pages of a range as file ranges, neighbours joined; `len` bytes in all. ENOMEM if the memory is so fragmented
/// that a reply could not carry it.
pub(crate) fn runs_of(frames: &[Vemaa], page: PageSize, len: u64) -> Result<Vec<Run>, Errno> {
    let mut runs = Vec::new();
    let mut left = len;
    for frame in frames {
        let part = left.min(page.bytes());
        if part == 0 {
            break;
        }
        push_run(&mut runs, *frame, part);
        left -= part;
    }
    if runs.len() > MAX_RUNS || left > 0 {
        Err(Errno::Enomem)
    } else {
        Ok(runs)
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const M2: u64 = 2 << 20;
    const M64: u64 = 64 << 20;
    const ME: u32 = 1000;

    fn pool() -> FramePool {
        FramePool::new("ve-frames-test".into(), 4 * M64, ME).expect("memory file")
    }

    #[test]
    fn large_frames_are_naturally_aligned_and_small_ones_keep_away() {
        let mut pool = pool();
        let small = pool.allocate(ME, PageSize::M2, 1).expect("small");
        assert_eq!(small, [Vemaa::new(4 * M64 - M2)]);
        let large = pool.allocate(ME, PageSize::M64, 3).expect("large");
        assert_eq!(large, [0, M64, 2 * M64].map(Vemaa::new));
        assert_eq!(pool.allocate(ME, PageSize::M64, 1), Err(Errno::Enomem));
        pool.release(small[0], M2);
        assert_eq!(
            pool.allocate(ME, PageSize::M64, 1),
            Ok(vec![Vemaa::new(3 * M64)])
        );
        assert_eq!(pool.free_frames(), 0);
    }

    #[test]
    fn released_frames_are_empty() {
        let mut pool = pool();
        let frame = pool.allocate(ME, PageSize::M2, 1).expect("frame")[0];
        let file = pool.file(ME).expect("file");
        let view = file.map(frame.raw(), 4096).expect("map");
        view.write(0, &[0xAB; 64]).expect("write");
        pool.retain(frame, M2);
        pool.release(frame, M2);
        let mut seen = [0; 64];
        view.read(0, &mut seen).expect("read");
        assert_eq!(seen, [0xAB; 64], "a reference remains");
        pool.release(frame, M2);
        view.read(0, &mut seen).expect("read");
        assert_eq!(seen, [0; 64], "the last reference went");
    }

    #[test]
    fn users_share_the_capacity_and_nothing_else() {
        let mut pool = pool();
        let other = ME + 1;
        let mine = pool.allocate(ME, PageSize::M64, 3).expect("frames");
        assert_eq!(pool.allocate(other, PageSize::M64, 2), Err(Errno::Enomem));
        let theirs = pool.allocate(other, PageSize::M64, 1).expect("frame");
        let (a, b) = (
            pool.file(ME).expect("file"),
            pool.file(other).expect("file"),
        );
        let at = theirs[0].raw();
        let (seen, hidden) = (a.map(at, 4096).expect("map"), b.map(at, 4096).expect("map"));
        hidden.write(0, b"theirs").expect("write");
        let mut bytes = [0; 6];
        seen.read(0, &mut bytes).expect("read");
        assert_eq!(bytes, [0; 6], "the same address in another file");
        pool.release(theirs[0], M64);
        hidden.read(0, &mut bytes).expect("read");
        assert_eq!(bytes, [0; 6], "emptied in the file of its user");
        pool.forget_user(other);
        assert_eq!(pool.free_frames(), 32);
        for frame in mine {
            pool.release(frame, M64);
        }
        assert_eq!(pool.free_frames(), 128);
    }

    #[test]
    fn absurd_requests_are_refused() {
        let mut pool = pool();
        assert_eq!(
            pool.allocate(ME, PageSize::M64, u64::MAX),
            Err(Errno::Enomem)
        );
        assert_eq!(pool.allocate(ME, PageSize::K4, 1), Err(Errno::Einval));
        assert_eq!(pool.free_frames(), 128);
    }

    #[test]
    fn runs_join_neighbours_and_end_at_the_length() {
        let frames = [M64, 2 * M64, 0].map(Vemaa::new);
        let runs = runs_of(&frames, PageSize::M64, 2 * M64 + 5).expect("runs");
        assert_eq!(
            runs,
            [
                Run {
                    offset: Vemaa::new(M64),
                    len: 2 * M64
                },
                Run {
                    offset: Vemaa::new(0),
                    len: 5
                }
            ]
        );
        assert_eq!(
            runs_of(&frames, PageSize::M64, 3 * M64 + 1),
            Err(Errno::Enomem)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The naive model: a list of references for each step of 2 MiB.
        #[test]
        fn a_frame_is_used_while_anybody_holds_it(
            steps in prop::collection::vec((0..5_u8, 1..4_u64, 0..99_usize, 0..2_u32), 1..120),
        ) {
            let mut pool = FramePool::new("ve-frames-test".into(), 2 * M64, ME).expect("memory file");
            let mut model = [0_u32; 64];
            // What is held: frame, page size.
            let mut held: Vec<(Vemaa, PageSize)> = Vec::new();
            let steps_of = |frame: Vemaa, page: PageSize| {
                let first = (frame.raw() / M2) as usize;
                first..first + (page.bytes() / M2) as usize
            };
            for (what, pages, which, user) in steps {
                let page = if what == 0 { PageSize::M64 } else { PageSize::M2 };
                if what <= 1 {
                    let size = (page.bytes() / M2) as usize;
                    let groups = model.chunks(size).filter(|g| g.iter().all(|n| *n == 0)).count();
                    let frames = pool.allocate(ME + user, page, pages);
                    prop_assert_eq!(frames.is_ok(), groups as u64 >= pages);
                    for frame in frames.unwrap_or_default() {
                        prop_assert!(model[steps_of(frame, page)].iter().all(|n| *n == 0), "given twice");
                        model[steps_of(frame, page)].iter_mut().for_each(|n| *n += 1);
                        held.push((frame, page));
                    }
                } else if !held.is_empty() {
                    let which = which % held.len();
                    let (frame, page) = held[which];
                    if what == 2 {
                        pool.retain(frame, page.bytes());
                        held.push((frame, page));
                        model[steps_of(frame, page)].iter_mut().for_each(|n| *n += 1);
                    } else {
                        pool.release(frame, page.bytes());
                        held.swap_remove(which);
                        model[steps_of(frame, page)].iter_mut().for_each(|n| *n -= 1);
                    }
                }
                prop_assert_eq!(pool.free_frames(), model.iter().filter(|n| **n == 0).count());
            }
            for (frame, page) in held {
                pool.release(frame, page.bytes());
            }
            prop_assert_eq!(pool.free_frames(), 64);
        }
    }
}
