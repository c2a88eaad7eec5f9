//! Lent memory that peers can map: its pages move to a memory file, in place, and come back (measured-designs 1).
//!
//! **What it is.** A [`Lease`] stands for a lent range while a window is over it. The pages of the range are copied
//! into a memory file that is then mapped over them, so that every pointer stays valid and others can map the same
//! pages. There is one sparse file per process, and a page at address `a` lies at offset `a` of it: overlapping ranges
//! need no bookkeeping, and whether a mapping is still ours is seen by its offset.
//!
//! **What it promises.** No store is lost, whoever makes it, also to neighbours on the first and last page: others are
//! frozen meanwhile (`freeze.rs`). What is not safe to move is refused ([`Error::Unmovable`] says why) and stays as it
//! is: stacks, shared and file-backed memory, huge pages, memory with a policy, a protection or advice that cannot be
//! copied, pages that another lease reaches without the file. Lock and other advice are given to the new mapping.
//! A forked child gets the pages as private copies (`fork.rs`).
//!
//! **When pages come back.** When the last lease over them ends, except where they may stay for the next one: static
//! data, and what lies in the heaps of glibc's allocator (by brk, or a thread's). There nobody moves a mapping (mremap)
//! or expects discarded pages to be zero; of other memory's owner we know neither, and glibc does move blocks that it
//! mapped apart. [`restore_idle`] brings those back too.
//!
//! **What it costs.** Some 20 µs and 0.4 µs per KiB, twice that on the way back; the pages lie on the NUMA node of the
//! thread that moves them. Memory that is neither of an allocator nor static data, which people may have advised,
//! costs a look into /proc/self/smaps besides: 0.1 ms, and 10 ms per GiB that the process has touched.
//!
//! **What it relies on.** Leased bytes stay mapped where they are while the lease lives. Nobody sees whether pages are
//! pinned by a device or by I/O in flight: such memory must not be lent, nor lie on the same page.

mod fork;
mod freeze;
mod maps;
mod pages;
mod pause;
pub mod place;
mod traits;

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::{Resource, getrlimit};

use self::freeze::Still;
use self::maps::{FileId, Maps, Name, Vma};
use self::pages::{CHUNK_BYTES, Place};
use self::traits::Traits;
use crate::error::{Error, Result};
use crate::map::MemFile;
use crate::shared::SharedBytes;

/// Size of the sparse file: user addresses of 48 bits and their offsets.
const FILE_BYTES: u64 = 1 << 48;

/// Separate ranges in the file: each may cost the process two mappings of 65,530.
const PIECES_MAX: usize = 8192;

/// How much of a lent range may be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Its pages, with whatever else lies on the first and last.
    Pages,
    /// Its pages, if they hold nothing else: children that go on without exec see neighbours as they are.
    WholePages,
    /// Nothing, for this reason.
    Never(&'static str),
}

/// A lent range with a window over it.
#[derive(Debug)]
pub struct Lease {
    bytes: SharedBytes,
    id: u64,
    moved: Result<()>,
}

/// The file and what it is.
struct Backing {
    file: MemFile,
    id: FileId,
}

/// Pages that are in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Piece {
    end: usize,
    /// They may stay when no lease is over them.
    kept: bool,
    traits: Traits,
}

/// A live lease: its bytes, and whether they are reached through the file.
struct Use {
    id: u64,
    start: usize,
    end: usize,
    moved: bool,
}

struct Registry {
    /// By first address, disjoint.
    pieces: BTreeMap<usize, Piece>,
    uses: Vec<Use>,
    /// Pages in files of others, by first address.
    placed: BTreeMap<usize, place::Placed>,
    /// Opening it costs more than all that is asked of it (4 µs of the 7 that lending again takes).
    maps: Option<Maps>,
    /// The file is a parent's, who has its own pages there.
    inherited: bool,
    next: u64,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());

static BACKING: OnceLock<Backing> = OnceLock::new();

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unmovable(rule: &'static str) -> Error {
    Error::Unmovable { rule }
}

impl Lease {
    /// Notes that others are told of `bytes`, and moves their pages into the file if `how` and circumstances allow.
    /// Never fails: [`file`](Self::file) says what became of it.
    pub fn new(bytes: SharedBytes, how: How) -> Lease {
        let mut registry = registry();
        let moved = match how {
            How::Never(rule) => Err(unmovable(rule)),
            _ if cfg!(miri) => Err(unmovable("the interpreter has no mappings")),
            How::Pages => registry.back(&bytes, false),
            How::WholePages => registry.back(&bytes, true),
        };
        let id = registry.next;
        registry.next += 1;
        registry.uses.push(Use {
            id,
            start: bytes.addr(),
            end: bytes.addr() + bytes.len(),
            moved: moved.is_ok(),
        });
        Lease { bytes, id, moved }
    }

    /// The leased bytes.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// The file that has them, and the offset of the first.
    ///
    /// # Errors
    /// Why they were not moved.
    pub fn file(&self) -> Result<(&'static MemFile, u64)> {
        self.moved?;
        let backing = BACKING.get().ok_or(unmovable("there is no file"))?;
        Ok((&backing.file, self.bytes.addr() as u64))
    }
}

impl Drop for Lease {
    /// The bytes' owner gets them back as they were. If that is refused, it never does: they are leaked. Borrowed ones
    /// stay in the file, with their content.
    fn drop(&mut self) {
        let mut registry = registry();
        registry.uses.retain(|lease| lease.id != self.id);
        if registry.pieces.is_empty() {
            return;
        }
        let (start, end) = whole_pages(self.bytes.addr(), self.bytes.addr() + self.bytes.len());
        if registry.give_back(start, end, Still::Shared).is_err() && self.bytes.is_owned() {
            std::mem::forget(self.bytes.clone());
        }
    }
}

/// Brings all pages back that no lease is over: at the end of a job, or when asked.
///
/// # Errors
/// Some cannot be now, and stay in the file.
pub fn restore_idle() -> Result<()> {
    let mut registry = registry();
    registry.give_back(0, usize::MAX, Still::Everyone)
}

/// Bytes of this process that are in the file.
pub fn backed_bytes() -> usize {
    let registry = registry();
    let sizes = registry
        .pieces
        .iter()
        .map(|(start, piece)| piece.end - start);
    sizes.sum()
}

/// `[start, end)` in whole pages around it.
fn whole_pages(start: usize, end: usize) -> (usize, usize) {
    let page = rustix::param::page_size();
    (start / page * page, end.next_multiple_of(page))
}

/// The parts of `[start, end)` outside of `holes`, in order. The holes may overlap.
fn without(
    (start, end): (usize, usize),
    holes: impl Iterator<Item = (usize, usize)>,
) -> Vec<(usize, usize)> {
    let mut holes: Vec<(usize, usize)> = holes.filter(|&(from, to)| from < to).collect();
    holes.sort_unstable();
    let mut parts = Vec::new();
    let mut at = start;
    for (from, to) in holes {
        if at < from.min(end) {
            parts.push((at, from.min(end)));
        }
        at = at.max(to);
    }
    if at < end {
        parts.push((at, end));
    }
    parts
}

/// The file, made the first time.
fn backing() -> Result<&'static Backing> {
    if let Some(backing) = BACKING.get() {
        return Ok(backing);
    }
    // The size alone would be a signal that kills.
    if getrlimit(Resource::Fsize).current.is_some() {
        return Err(unmovable("the size of files is limited (ulimit -f)"));
    }
    let file = MemFile::create("windlass-lent", FILE_BYTES)?;
    let id = FileId::of(&file)?;
    fork::prepare_for()?;
    Ok(BACKING.get_or_init(|| Backing { file, id }))
}

/// Pages to be moved, of one mapping.
struct Span {
    start: usize,
    end: usize,
    sparse: bool,
    kept: bool,
    traits: Traits,
}

impl Registry {
    const fn new() -> Registry {
        Registry {
            pieces: BTreeMap::new(),
            uses: Vec::new(),
            placed: BTreeMap::new(),
            maps: None,
            inherited: false,
            next: 1,
        }
    }

    /// Moves what of the pages around `bytes` is not in the file yet.
    ///
    /// # Errors
    /// Nothing has changed then.
    fn back(&mut self, bytes: &SharedBytes, whole: bool) -> Result<()> {
        let (from, to) = (bytes.addr(), bytes.addr() + bytes.len());
        let (start, end) = whole_pages(from, to);
        if bytes.is_empty() || bytes.is_read_only() || end as u64 > FILE_BYTES {
            return Err(unmovable("there is nothing that could be mapped"));
        }
        if whole && (start, end) != (from, to) {
            return Err(unmovable("other data lies on its first or last page"));
        }
        if from != start && traits::may_head_a_heap(start, bytes.block()) {
            return Err(unmovable("its allocator's own data lies on its first page"));
        }
        if self.inherited {
            return Err(unmovable(
                "its process was forked from one that lends memory",
            ));
        }
        let copied = self.uses.iter().filter(|lease| !lease.moved);
        if copied
            .map(|lease| whole_pages(lease.start, lease.end))
            .any(|(a, b)| a < end && start < b)
        {
            return Err(unmovable("other windows reach these pages by copying"));
        }
        if self.pieces.len() >= PIECES_MAX {
            return Err(unmovable("too many separate ranges are already"));
        }
        let backing = backing()?;
        let maps = self.maps()?;
        let there = |vma: Vma| vma.start <= start && end <= vma.end && vma.is_backing(backing.id);
        if !maps.from(start)?.is_some_and(there) {
            if traits::is_own(&maps, start, end)? {
                return Err(unmovable("the calling thread runs on it"));
            }
            let spans = spans(&maps, backing.id, (start, end), bytes.block())?;
            self.move_all(&backing.file, &spans, (start, end))?;
        }
        self.maps = Some(maps);
        Ok(())
    }

    /// What is mapped where. Given back after use; not after a failure, so that a stale one is opened anew.
    fn maps(&mut self) -> Result<Maps> {
        self.maps.take().map_or_else(Maps::open, Ok)
    }

    fn move_all(
        &mut self,
        file: &MemFile,
        spans: &[Span],
        (start, end): (usize, usize),
    ) -> Result<()> {
        for span in spans {
            if let Err(error) = self.move_in(file, span) {
                // Of several mappings some may have been moved; that it fails now as well is no worse.
                let _ = self.give_back(start, end, Still::Shared);
                return Err(error);
            }
        }
        Ok(())
    }

    fn move_in(&mut self, file: &MemFile, span: &Span) -> Result<()> {
        let mut at = span.start;
        while at < span.end {
            let len = (span.end - at).min(CHUNK_BYTES);
            self.forget(at, at + len);
            // SAFETY: `spans` chose private mappings of anonymous memory and static data that hold leased bytes on their
            // first and last page and nothing else between: their owner lent them, so nobody unmaps them (module page).
            // `back` has checked that this thread does not run on them.
            unsafe { pages::move_in(Place { file, shift: 0 }, (at, len), span.sparse, true) }?;
            self.note(at, at + len, span);
            at += len;
        }
        span.traits.apply(span.start, span.end - span.start)
    }

    /// Pages are in the file now.
    fn note(&mut self, start: usize, end: usize, span: &Span) {
        let piece = Piece {
            end,
            kept: span.kept,
            traits: span.traits,
        };
        let below = self.pieces.range_mut(..start).next_back();
        match below {
            Some((_, below))
                if *below
                    == (Piece {
                        end: start,
                        ..piece
                    }) =>
            {
                below.end = end
            }
            _ => drop(self.pieces.insert(start, piece)),
        }
    }

    /// Brings the pages of `[start, end)` back that no lease is over. [`Still::Everyone`]: also those that may stay,
    /// whose owner may be giving them up at this moment.
    ///
    /// # Errors
    /// The first that cannot be; the others are tried all the same.
    fn give_back(&mut self, start: usize, end: usize, still: Still) -> Result<()> {
        let all = still == Still::Everyone;
        let idle: Vec<(usize, usize, Piece)> = self
            .within(start, end)
            .filter(|(_, _, piece)| all || !piece.kept)
            .flat_map(|(from, to, piece)| {
                let used = self
                    .uses
                    .iter()
                    .map(|lease| whole_pages(lease.start, lease.end));
                let parts = without((from, to), used);
                parts.into_iter().map(move |(from, to)| (from, to, piece))
            })
            .collect();
        let (Some(backing), false) = (BACKING.get(), idle.is_empty()) else {
            return Ok(());
        };
        let maps = self.maps()?;
        let mut outcome = Ok(());
        for (from, to, piece) in idle {
            let mut at = from;
            while at < to {
                let len = (to - at).min(CHUNK_BYTES);
                let place = Place {
                    file: &backing.file,
                    shift: 0,
                };
                // SAFETY: no lease is over these pages, so no peer writes to them any more. Either their owner, who lent
                // them until now, does not unmap them, or everyone stands still.
                let moved = unsafe { pages::move_out(place, backing.id, &maps, (at, len), still) };
                let done = moved.and_then(|whole| {
                    self.forget(at, at + len);
                    if whole {
                        piece.traits.apply(at, len)
                    } else {
                        Ok(())
                    }
                });
                outcome = outcome.and(done);
                at += len;
            }
        }
        self.maps = outcome.is_ok().then_some(maps);
        outcome
    }

    /// Pieces in `[start, end)`, cut to it.
    fn within(&self, start: usize, end: usize) -> impl Iterator<Item = (usize, usize, Piece)> + '_ {
        let first = self.pieces.range(..start).next_back();
        first
            .into_iter()
            .chain(self.pieces.range(start..end))
            .map(move |(&from, &piece)| (from.max(start), piece.end.min(end), piece))
            .filter(|(from, to, _)| from < to)
    }

    /// The pages of `[start, end)` are not in the file (any more).
    fn forget(&mut self, start: usize, end: usize) {
        let cut: Vec<usize> = self
            .pieces
            .range(..end)
            .rev()
            .take_while(|(_, piece)| piece.end > start)
            .map(|(&from, _)| from)
            .collect();
        for from in cut {
            let Some(piece) = self.pieces.remove(&from) else {
                continue;
            };
            if from < start {
                self.pieces.insert(
                    from,
                    Piece {
                        end: start,
                        ..piece
                    },
                );
            }
            if piece.end > end {
                self.pieces.insert(end, piece);
            }
        }
    }
}

/// What of `[start, end)` is still to be moved, mapping by mapping; refused unless all of it may be.
fn spans(
    maps: &Maps,
    id: FileId,
    (start, end): (usize, usize),
    block: Option<NonNull<u8>>,
) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for vma in maps.throughout(start, end) {
        let vma = vma?;
        if vma.is_backing(id) {
            continue;
        }
        let fixed = traits::is_static(vma.start, vma.end);
        let heap = vma.name == Name::Heap;
        // Data of the system library, which it writes to in a forked child, as to that of its allocator.
        if fixed && cfg!(target_feature = "crt-static") {
            return Err(unmovable("data of the system library may lie beside it"));
        }
        if let Some(rule) = refusal(&vma, fixed, vma.plain) {
            return Err(unmovable(rule));
        }
        spans.push(Span {
            start: vma.start,
            end: vma.end,
            sparse: vma.is_anonymous(),
            kept: fixed || traits::is_in_heap(heap, block),
            traits: Traits::of(&vma, block.is_none() && !heap && !fixed)?,
        });
    }
    Ok(spans)
}

/// Why a mapping cannot be moved, from what the kernel says of it. `fixed`: it is static data; `plain`: its protection is
/// what the caller can give again.
fn refusal(vma: &Vma, fixed: bool, plain: bool) -> Option<&'static str> {
    let refused = [
        (vma.shared, "it is shared memory already"),
        (!plain, "its protection is not that of data"),
        (vma.name == Name::Stack, "it is a stack"),
        (!vma.is_anonymous() && !fixed, "it is mapped from a file"),
    ];
    refused
        .into_iter()
        .find_map(|(is, rule)| is.then_some(rule))
}

#[cfg(test)]
mod tests;
