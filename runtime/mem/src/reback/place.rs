//! Memory of the program that becomes part of somebody else's file, in place: the memory of an emulated device.
//!
//! [`place`] moves what lies at some addresses to a range of a file that is then mapped over them, as a
//! [`Lease`](super::Lease) does with the process's own file: others are frozen meanwhile, every pointer stays valid. The
//! pages stay in the file until the program unmaps them, which nobody tells this module, so [`presence`] asks the kernel; those of
//! a [`Movable`] come back when its owner wants them. A forked child gets copies of its own (`fork.rs`).

use std::sync::Arc;

use super::freeze::Still;
use super::maps::{FileId, Maps, Vma};
use super::pages::{self, CHUNK_BYTES, Place};
use super::traits::{self, Traits};
use super::{refusal, registry, unmovable};
use crate::error::{Error, Result};
use crate::map::MemFile;
use crate::shared::SharedBytes;

/// A part of a range, in one mapping, that [`place`] would move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// First address.
    pub start: usize,
    /// Behind the last.
    pub end: usize,
    /// Its protection lets the program write.
    pub writable: bool,
    /// It was advised to stay on small pages (MADV_NOHUGEPAGE).
    pub small: bool,
}

/// How much of a range maps its place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// All of it.
    Whole {
        /// The program may write to all of it.
        writable: bool,
    },
    /// A part: the program has unmapped or replaced the rest.
    Part,
    /// Nothing.
    Gone,
}

/// Pages in a file of somebody else.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) end: usize,
    pub(super) shift: u64,
    pub(super) id: FileId,
    file: Arc<MemFile>,
    /// What each mapping was advised, and whether it was writable.
    traits: Vec<(usize, usize, Traits, bool)>,
}

impl Placed {
    pub(super) fn place(&self) -> Place<'_> {
        Place {
            file: &self.file,
            shift: self.shift,
        }
    }
}

/// What of `[start, end)` could be moved, from `start` up to the first address that could not; and why that could not.
///
/// # Errors
/// The mappings of this process cannot be read.
pub fn survey(start: usize, end: usize) -> Result<(Vec<Stretch>, Option<Error>)> {
    let maps = Maps::open()?;
    let mut stretches = Vec::new();
    for vma in maps.throughout(start, end) {
        let vma = match vma {
            Err(gap @ Error::Unmapped { .. }) => return Ok((stretches, Some(gap))),
            other => other?,
        };
        match movable(&vma) {
            Ok(traits) => stretches.push(Stretch {
                start: vma.start,
                end: vma.end,
                writable: vma.writable,
                small: traits.is_small(),
            }),
            Err(why) => return Ok((stretches, Some(why))),
        }
    }
    Ok((stretches, None))
}

/// What a mapping was advised, if it may be moved.
fn movable(vma: &Vma) -> Result<Traits> {
    let fixed = traits::is_static(vma.start, vma.end);
    match refusal(vma, fixed, vma.data) {
        Some(rule) => Err(unmovable(rule)),
        None => Traits::of(vma, true),
    }
}

/// How much of `[start, start + len)` maps `file` from `offset` on.
///
/// # Errors
/// The mappings of this process cannot be read.
pub fn presence(file: &MemFile, offset: u64, start: usize, len: usize) -> Result<Presence> {
    let (id, shift) = (FileId::of(file)?, offset.wrapping_sub(start as u64));
    let (mut there, mut writable) = (0, true);
    for vma in Maps::open()?.within(start, start + len) {
        let vma = vma?;
        if vma.is_at(id, shift) {
            there += vma.end - vma.start;
            writable &= vma.writable;
        }
    }
    Ok(match there {
        0 => Presence::Gone,
        _ if there == len => Presence::Whole { writable },
        _ => Presence::Part,
    })
}

/// Moves `[start, start + len)`, whole pages, to `file` from `offset` on and maps it over the range; parts that are there
/// already stay. Protection, lock and advice of each mapping stay what they are.
///
/// # Errors
/// What cannot be moved; nothing has changed then.
///
/// # Safety
/// Nobody unmaps or remaps any page of the range meanwhile. That part of the file belongs to this range, and whoever else
/// maps it accesses it as memory that is shared between processes.
pub unsafe fn place(file: &Arc<MemFile>, offset: u64, start: usize, len: usize) -> Result<()> {
    let mut registry = registry();
    let end = start + len;
    let mut placed = Placed {
        end,
        shift: offset.wrapping_sub(start as u64),
        id: FileId::of(file)?,
        file: Arc::clone(file),
        traits: Vec::new(),
    };
    super::fork::prepare_for()?;
    let maps = Maps::open()?;
    if traits::is_own(&maps, start, end)? {
        return Err(unmovable("the calling thread runs on it"));
    }
    let mut parts = Vec::new();
    for vma in maps.throughout(start, end) {
        let vma = vma?;
        if !vma.is_at(placed.id, placed.shift) {
            parts.push((vma, movable(&vma)?));
        }
    }
    let mut moved = Vec::new();
    for (vma, traits) in &parts {
        // SAFETY: the caller's promise, and `movable`: private memory or static data, on which this thread does not run.
        let outcome = unsafe { move_all(placed.place(), vma, &mut moved) }
            .and_then(|()| traits.apply(vma.start, vma.end - vma.start));
        if let Err(error) = outcome {
            back(&placed, &maps, &moved);
            return Err(error);
        }
    }
    placed.traits = parts
        .iter()
        .map(|(vma, traits)| (vma.start, vma.end, *traits, vma.writable))
        .collect();
    registry.placed.insert(start, placed);
    Ok(())
}

/// Memory of the program that goes into a file, in place, and comes back: whole pages.
#[derive(Debug)]
pub struct Movable {
    start: usize,
    len: usize,
    /// Keeps it, where it is not the program's own affair.
    _keep: Option<SharedBytes>,
}

impl Movable {
    /// The whole pages `[start, start + len)`, whatever is there.
    ///
    /// # Safety
    /// While the value lives nobody unmaps or remaps any of them during one of its calls, and whoever accesses them does it by
    /// accesses that the compiler cannot see, as C code does: others may share them.
    pub unsafe fn new(start: usize, len: usize) -> Self {
        Self {
            start,
            len,
            _keep: None,
        }
    }

    /// Those of a range, which keeps them.
    ///
    /// # Errors
    /// [`Error::Misaligned`]: no whole pages.
    pub fn of(bytes: SharedBytes) -> Result<Self> {
        let (start, len) = (bytes.addr(), bytes.len());
        aligned(start, len)?;
        Ok(Self {
            start,
            len,
            _keep: Some(bytes),
        })
    }

    /// First address.
    pub fn addr(&self) -> usize {
        self.start
    }

    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody moves nothing")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether all of it is there, may be read and written, and can be moved: the first of these that does not hold.
    ///
    /// # Errors
    /// [`Error::Misaligned`], [`Error::Unmapped`], [`Error::Protected`], [`Error::Unmovable`].
    pub fn check(&self) -> Result<()> {
        aligned(self.start, self.len)?;
        let end = self.start.saturating_add(self.len);
        let (mut closed, mut fixed) = (None, None);
        for vma in Maps::open()?.throughout(self.start, end) {
            let vma = vma?;
            let addr = vma.start;
            closed = closed.or((!vma.writable).then_some(Error::Protected { addr }));
            fixed = fixed.or(movable(&vma).err());
        }
        closed.or(fixed).map_or(Ok(()), Err)
    }

    /// Moves it to `file`, from its first byte on.
    ///
    /// # Errors
    /// As [`check`](Self::check), or what the kernel refused; nothing has changed then.
    pub fn place(&self, file: &Arc<MemFile>) -> Result<()> {
        self.check()?;
        // SAFETY: the promise of `new`, or a range that keeps its memory and is accessed opaquely; the whole file is for it.
        unsafe { place(file, 0, self.start, self.len) }
    }

    /// Makes it private again, with the present content. Those who map the file keep it, and reach this memory no more. Nothing
    /// to do where it is in no file.
    ///
    /// # Errors
    /// Some of it is still in the file; try again.
    pub fn take_back(&self) -> Result<()> {
        let mut registry = registry();
        let Some(placed) = registry.placed.get(&self.start).cloned() else {
            return Ok(());
        };
        let maps = Maps::open()?;
        let mut at = self.start;
        while at < placed.end {
            let len = (placed.end - at).min(CHUNK_BYTES);
            // SAFETY: nobody unmaps it during this call (the promise of `new`, or kept memory).
            unsafe { pages::copy_out(placed.place(), placed.id, &maps, (at, len), Still::Shared) }?;
            at += len;
        }
        registry.placed.remove(&self.start);
        for (start, end, traits, writable) in &placed.traits {
            // SAFETY: as it was before it was moved.
            unsafe { pages::protect(*start, end - start, *writable) }?;
            traits.apply(*start, end - start)?;
        }
        Ok(())
    }
}

fn aligned(start: usize, len: usize) -> Result<()> {
    let align = rustix::param::page_size() as u64;
    let values = [start as u64, len as u64];
    let odd = values
        .into_iter()
        .find(|value| !value.is_multiple_of(align));
    odd.map_or(Ok(()), |offset| Err(Error::Misaligned { offset, align }))
}

/// What a [`place`] that may fail yet has moved.
struct Moved {
    at: usize,
    len: usize,
    writable: bool,
}

/// # Safety
/// As of [`place`], for a mapping that may be moved.
unsafe fn move_all(place: Place<'_>, vma: &Vma, moved: &mut Vec<Moved>) -> Result<()> {
    let mut at = vma.start;
    while at < vma.end {
        let len = (vma.end - at).min(CHUNK_BYTES);
        // SAFETY: the caller's promise.
        unsafe { pages::move_in(place, (at, len), vma.is_anonymous(), vma.writable) }?;
        moved.push(Moved {
            at,
            len,
            writable: vma.writable,
        });
        at += len;
    }
    Ok(())
}

/// Undoes a part of a [`place`] that failed: nobody else has heard of the pages.
fn back(placed: &Placed, maps: &Maps, moved: &[Moved]) {
    for &Moved { at, len, writable } in moved {
        // SAFETY: nobody else maps that part of the file yet, and nobody remaps the range (the promise of `place`).
        let out = unsafe {
            let out = pages::move_out(placed.place(), placed.id, maps, (at, len), Still::Shared);
            out.and_then(|_| pages::protect(at, len, writable))
        };
        if out.is_err() {
            // The file's owner would give this memory to others, with the program writing to it.
            std::process::abort();
        }
    }
}

/// The pages from `start` on are not the program's any more: children get no copies.
pub fn forget(start: usize) {
    registry().placed.remove(&start);
}
