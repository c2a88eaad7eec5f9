//! A rank's memory for windows: exported once, attached once per peer, cut into regions.
//!
//! On the host one sparse System V segment, as large as the system maps without complaint, or, where
//! a network adapter keeps all pages of a segment in memory, segments of what is needed. Where the system refuses them, or
//! `WINDLASS_ROUTE` asks for files, those are taken as they are needed. Where
//! huge pages are there and the node has VEs, further segments on huge pages, because only those
//! can be attached from a VE (ve-memory 7.2). On a VE, segments of 64 MiB pages taken as they are
//! needed, because table entries are scarce (ve-memory 2.3). Where VEs are real, windows lie in such
//! segments and everything else on the host, because no address leads to them. What peers only read lies in files of its own,
//! which are sealed. Reused memory is zeroed, pages are
//! kept (measured-designs 5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use windlass_mem::{MemFile, SharedBytes, sysv};
use windlass_ve::PageSize;

use crate::error::{Error, Result, cause};
use crate::huge::{self, Small};
use crate::mechanism::{Mechanism, MechanismId, Place};
use crate::region::{Backing, Region, Segment, in_files};
use crate::transport::Context;
use crate::transport::native::{self, Native};

/// First try for the sparse host segment; halved while the system refuses.
const HOST_FIRST_BYTES: usize = 1 << 40;

/// Below this the System V way is given up for a memory file.
const HOST_LEAST_BYTES: usize = 64 << 20;

/// Pages of VE memory (ve-memory 1: default 64 MiB).
const VE_PAGE_BYTES: usize = 64 << 20;

/// Further host segments are whole pieces of so many bytes.
const HOST_STEP_BYTES: usize = 2 << 20;

/// Regions begin on cache lines; those of a page or more on pages.
const LINE_BYTES: usize = 64;
pub(crate) const PAGE_BYTES: usize = 4096;

/// Free ranges of a segment, first fit, and how far it was ever used.
pub struct Ranges {
    free: BTreeMap<usize, usize>,
    touched: usize,
}

impl Ranges {
    pub(crate) fn new(len: usize) -> Ranges {
        Ranges {
            free: BTreeMap::from([(0, len)]),
            touched: 0,
        }
    }

    /// Of memory that may hold old data everywhere.
    pub(crate) fn used(len: usize) -> Ranges {
        Ranges {
            touched: len,
            ..Ranges::new(len)
        }
    }

    /// Takes `len` bytes: the offset, and how many of its bytes may hold old data.
    pub(crate) fn take(&mut self, len: usize, align: usize) -> Option<(usize, usize)> {
        let (start, size, at) = self.free.iter().find_map(|(&start, &size)| {
            let at = start.checked_next_multiple_of(align)?;
            let end = at.checked_add(len)?;
            (end <= start + size).then_some((start, size, at))
        })?;
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - start);
        }
        if at + len < start + size {
            self.free.insert(at + len, start + size - at - len);
        }
        let dirty = self.touched.saturating_sub(at).min(len);
        self.touched = self.touched.max(at + len);
        Some((at, dirty))
    }

    pub(crate) fn give_back(&mut self, mut at: usize, mut len: usize) {
        if len == 0 {
            return;
        }
        if let Some((&start, &size)) = self.free.range(..at).next_back()
            && start + size == at
        {
            self.free.remove(&start);
            at = start;
            len += size;
        }
        if let Some(&size) = self.free.get(&(at + len)) {
            self.free.remove(&(at + len));
            len += size;
        }
        self.free.insert(at, len);
    }
}

/// The library of real VEs, and the one that windows of this rank lie on, if any.
pub type Windows = (Arc<Native>, Option<u32>);

/// The window memory of this rank.
pub struct Arena {
    ve: Option<Arc<windlass_ve::Process>>,
    on_ve: bool,
    /// All pages of a segment stay in memory.
    pinned: bool,
    /// On the host it lies in files alone.
    files: bool,
    /// What others only read may be sealed: who offers that is not ruled out.
    seals: bool,
    native: Option<(Arc<Native>, u32)>,
    segments: Mutex<Vec<Arc<Segment>>>,
    /// Those that peers only read.
    read_only: Mutex<Vec<Arc<Segment>>>,
    /// Those of the real VE that the rank lives on.
    native_segments: Mutex<Vec<Arc<Segment>>>,
    next_id: AtomicU32,
}

impl Arena {
    /// The arena of this process, where it runs; for windows also on a real VE. As the mechanisms and what is `forced` of them
    /// want it. Takes no memory yet.
    pub fn new(
        context: &Context,
        windows: Option<Windows>,
        mechanisms: &[Box<dyn Mechanism>],
        forced: Option<&[MechanismId]>,
    ) -> Arena {
        Arena {
            pinned: mechanisms.iter().any(|mechanism| mechanism.pins()),
            files: in_files(forced),
            seals: forced.is_none_or(|forced| forced.contains(&MechanismId::Rsm)),
            ve: context.ve.clone(),
            on_ve: matches!(context.place, Place::Ve(_)),
            native: windows.and_then(|(native, ve)| Some((native, ve?))),
            segments: Mutex::default(),
            read_only: Mutex::default(),
            native_segments: Mutex::default(),
            next_id: AtomicU32::new(0),
        }
    }

    /// A number for a new segment.
    pub(crate) fn segment_id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// `len` zeroed bytes for a window, aligned as [`allocate`](Self::allocate) does: on the real VE where the rank lives on
    /// one, else those of `allocate`.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn allocate_window(&self, len: usize, align: usize) -> Result<Region> {
        let Some((native, ve)) = &self.native else {
            return self.allocate(len, align);
        };
        place(&self.native_segments, len, align, |len, _| {
            let memory = round_up(len, native::PAGE_BYTES)
                .and_then(|len| native.allocate(*ve, len).map_err(|e| no_memory(len, e)))?;
            let backing = Backing::Native(Arc::new(memory));
            Ok(self.segment(SharedBytes::empty(), backing))
        })
    }

    /// `len` zeroed bytes, on a cache line (a page, if it is as large as one), or on a multiple of
    /// `align` if that is more.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn allocate(&self, len: usize, align: usize) -> Result<Region> {
        place(&self.segments, len, align, |len, first| {
            self.grow(len, first)
        })
    }

    /// The same on the host, in a file that peers may read and never write, unless `WINDLASS_ROUTE` rules that out.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn allocate_read_only(&self, len: usize, align: usize) -> Result<Region> {
        if !self.seals {
            return self.allocate(len, align);
        }
        place(&self.read_only, len, align, |len, _| {
            self.grow_file(len, Small::Unwanted, true)
        })
    }

    fn grow(&self, len: usize, first: bool) -> Result<Segment> {
        if self.on_ve
            && let Some(ve) = &self.ve
        {
            let len = round_up(len, VE_PAGE_BYTES)?;
            let memory = ve
                .alloc(len, PageSize::M64)
                .map_err(|source| no_memory(len, source))?;
            let backing = Backing::Ve {
                vemva: memory.vemva,
            };
            return Ok(self.segment(memory.bytes, backing));
        }
        if self.files {
            return self.grow_file(len, Small::Unwanted, false);
        }
        if self.ve.is_none() {
            return self.grow_host(len, first, Small::Untried);
        }
        match huge::create(len) {
            Ok((shmid, bytes)) => Ok(self.segment(bytes, Backing::Sysv { shmid, small: None })),
            Err(small) => self.grow_host(len, first, small),
        }
    }

    fn grow_host(&self, len: usize, first: bool, small: Small) -> Result<Segment> {
        let mut size = if first && !self.pinned {
            HOST_FIRST_BYTES
        } else {
            round_up(len, HOST_STEP_BYTES)?
        };
        loop {
            match sysv::create(size, false) {
                Ok((shmid, bytes)) => {
                    let small = Some(small);
                    return Ok(self.segment(bytes, Backing::Sysv { shmid, small }));
                }
                Err(_) if size / 2 >= len.max(HOST_LEAST_BYTES) => size /= 2,
                Err(_) => break,
            }
        }
        self.grow_file(len, small, false)
    }

    fn grow_file(&self, len: usize, small: Small, read_only: bool) -> Result<Segment> {
        let least = if self.pinned { 0 } else { HOST_LEAST_BYTES };
        let size = round_up(len, HOST_STEP_BYTES)?.max(least);
        // The seal of a file that is only read comes when it is published: by then this process has mapped it.
        let file = match read_only {
            false => MemFile::create("windlass-arena", size as u64),
            true => MemFile::create_unsealed("windlass-arena", size as u64),
        };
        let file = file.map_err(|source| no_memory(len, source))?;
        let bytes = file.map(0, size).map_err(|source| no_memory(len, source))?;
        Ok(self.segment(
            bytes,
            Backing::File {
                file,
                small,
                read_only,
            },
        ))
    }

    fn segment(&self, bytes: SharedBytes, backing: Backing) -> Segment {
        Segment::new(self.segment_id(), bytes, backing, false)
    }
}

/// A region of one of these segments, or of one more that `grow` makes for so many bytes, told whether it is the first.
fn place(
    segments: &Mutex<Vec<Arc<Segment>>>,
    len: usize,
    align: usize,
    grow: impl Fn(usize, bool) -> Result<Segment>,
) -> Result<Region> {
    let natural = if len >= PAGE_BYTES {
        PAGE_BYTES
    } else {
        LINE_BYTES
    };
    let align = natural.max(align);
    // Whole lines, so that two regions never share one; a window of 0 bytes has an address.
    let rounded = len
        .max(1)
        .checked_next_multiple_of(LINE_BYTES)
        .ok_or_else(|| no_memory(len, std::io::Error::from(std::io::ErrorKind::OutOfMemory)))?;
    let mut segments = segments.lock();
    for segment in segments.iter() {
        if let Some(region) = cut(segment, len, rounded, align)? {
            return Ok(region);
        }
    }
    loop {
        let segment = Arc::new(grow(rounded, segments.is_empty())?);
        segments.push(Arc::clone(&segment));
        if let Some(region) = cut(&segment, len, rounded, align)? {
            return Ok(region);
        }
        if segment.len() >= rounded {
            let full = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
            return Err(no_memory(len, full));
        }
    }
}

fn cut(segment: &Arc<Segment>, len: usize, rounded: usize, align: usize) -> Result<Option<Region>> {
    let Some((offset, dirty)) = segment.ranges.lock().take(rounded, align) else {
        return Ok(None);
    };
    match &segment.backing {
        Backing::Native(memory) => memory
            .clear(offset, dirty)
            .map_err(|source| no_memory(len, source))?,
        _ => segment
            .bytes
            .fill(offset, dirty, 0)
            .map_err(|source| no_memory(len, source))?,
    }
    let region = Region::of_arena(Arc::clone(segment), offset, rounded, len);
    Ok(Some(region.map_err(|source| no_memory(len, source))?))
}

fn round_up(len: usize, step: usize) -> Result<usize> {
    len.checked_next_multiple_of(step)
        .ok_or_else(|| no_memory(len, std::io::Error::from(std::io::ErrorKind::OutOfMemory)))
}

fn no_memory(len: usize, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::NoMemory {
        len: len as u64,
        source: cause(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_disjoint_and_coalesce() {
        let mut ranges = Ranges::new(1024);
        let (a, dirty_a) = ranges.take(100, 64).unwrap();
        let (b, _) = ranges.take(100, 64).unwrap();
        assert_eq!((a, dirty_a, b), (0, 0, 128));
        assert_eq!(ranges.take(1000, 64), None);
        ranges.give_back(a, 100);
        ranges.give_back(b, 100);
        assert_eq!(
            ranges.take(1024, 64),
            Some((0, 228)),
            "228 bytes were used before"
        );
        ranges.give_back(0, 1024);
        assert_eq!(ranges.take(1024, 64), Some((0, 1024)));
        assert_eq!(ranges.take(1, 64), None);
    }
}
