//! Moving pages into a memory file and back, at the address they have. A [`Place`] says where in the file they lie.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};

use super::freeze::{self, Frozen, Still};
use super::maps::{FileId, Maps};
use crate::error::{Error, Result};
use crate::map::MemFile;

/// Pages moved under one freeze: this much memory is there twice for a moment, and others stand still for some 6 ms.
pub(super) const CHUNK_BYTES: usize = 16 << 20;

/// Where pages are in a file: a page at address `a` lies at offset `a + shift` (modulo 2^64).
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a MemFile,
    pub(super) shift: u64,
}

impl Place<'_> {
    fn offset(self, addr: usize) -> u64 {
        (addr as u64).wrapping_add(self.shift)
    }
}

/// Entries of the page map read at once, on the stack.
const ENTRIES: usize = 512;

/// proc(5), pagemap: present in memory; swapped out (or marked by userfaultfd); protected by userfaultfd.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const PROTECTED: u64 = 1 << 57;
/// The frame, or what stands in its place; 0 for those who may not see it.
const FRAME: u64 = (1 << 55) - 1;

/// What tells one kind of page that is not present from another.
const KIND: u64 = PRESENT | SWAPPED | PROTECTED | FRAME;

/// Pages of this process as the kernel has them.
pub(super) struct PageMap(OwnedFd);

impl PageMap {
    /// `None` where it may not be read: every page counts as touched then.
    pub(super) fn open() -> Option<PageMap> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(c"/proc/self/pagemap", flags, Mode::empty()).ok()?;
        Some(PageMap(fd))
    }

    /// Entries of the pages from `start` on.
    pub(super) fn read(&self, start: usize, entries: &mut [u64]) -> Result<()> {
        let failed = Error::system("read(/proc/self/pagemap)");
        let at = start as u64 / rustix::param::page_size() as u64 * 8;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(entries);
        match rustix::io::pread(&self.0, &mut *bytes, at) {
            Ok(read) if read == bytes.len() => Ok(()),
            Ok(_) => Err(failed(Errno::IO)),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// The entry of an untouched page that userfaultfd has marked, if it cannot be taken for that of a page with content:
/// such a mark looks like a place in swap, and like any of them to those who may not see which.
pub(super) fn marker(entry: u64) -> Option<u64> {
    let marked = entry & PRESENT == 0 && entry & SWAPPED != 0 && entry & FRAME != 0;
    marked.then_some(entry & KIND)
}

/// Has nobody ever touched this page of anonymous memory?
fn is_hole(entry: u64, frozen: Frozen) -> bool {
    entry & (PRESENT | SWAPPED) == 0 || frozen.untouched == Some(entry & KIND)
}

/// Moves the private pages `[start, start + len)`, at most [`CHUNK_BYTES`], to their place and maps it over them, writable
/// or not. `sparse`: anonymous memory, of which untouched pages need no copy.
///
/// # Errors
/// Nothing has changed then.
///
/// # Safety
/// The pages are private mappings, of anonymous memory or of static data; nobody unmaps or remaps any of them
/// meanwhile; they are neither the calling thread's stack nor its own block. Nobody uses their place in the file.
pub(super) unsafe fn move_in(
    place: Place<'_>,
    (start, len): (usize, usize),
    sparse: bool,
    writable: bool,
) -> Result<()> {
    let (file, offset) = (place.file, place.offset(start));
    let map = sparse.then(PageMap::open).flatten();
    // What is left of an earlier time when these addresses were backed.
    file.punch(offset, len as u64)?;
    let moved = freeze::during(start, len, Still::Private, |frozen| {
        let whole = copy_in(place, map.as_ref(), start, len, frozen)?;
        // A first touch costs thrice as much (measured-designs 1); holes stay holes.
        let populate = match whole {
            true => MapFlags::POPULATE,
            false => MapFlags::empty(),
        };
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE | populate;
        let access = match writable {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        // SAFETY: the range keeps its content: nobody has written to it since it was copied (frozen), and the file has at
        // each place what was at that address. Its owner lets it be replaced (the caller's promise).
        let over = unsafe { rustix::mm::mmap(pointer(start), len, access, flags, file, offset) };
        over.map(|_| ()).map_err(Error::system("mmap(MAP_FIXED)"))
    });
    if moved.is_err() {
        // Where this fails, it is done before these addresses are backed again.
        let _ = file.punch(offset, len as u64);
    }
    moved
}

/// Copies frozen pages into the file. `true` if there were no holes.
fn copy_in(
    place: Place<'_>,
    map: Option<&PageMap>,
    start: usize,
    len: usize,
    frozen: Frozen,
) -> Result<bool> {
    let Some(map) = map else {
        return write(place, start, len).map(|()| true);
    };
    let page = rustix::param::page_size();
    let mut entries = [0; ENTRIES];
    let mut whole = true;
    let mut at = start;
    while at < start + len {
        let count = ((start + len - at) / page).min(ENTRIES);
        map.read(at, &mut entries[..count])?;
        let mut from = 0;
        while from < count {
            let hole = is_hole(entries[from], frozen);
            let alike = entries[from..count]
                .iter()
                .take_while(|&&entry| is_hole(entry, frozen) == hole);
            let run = alike.count();
            whole &= !hole;
            if !hole {
                write(place, at + from * page, run * page)?;
            }
            from += run;
        }
        at += count * page;
    }
    Ok(whole)
}

/// The bytes at `start` to their place in the file.
fn write(place: Place<'_>, start: usize, len: usize) -> Result<()> {
    let mut done = 0;
    while done < len {
        let at = start + done;
        // SAFETY: the kernel reads this process's memory, and answers EFAULT where nothing is mapped; no reference to the
        // bytes is made.
        let moved = unsafe {
            let into = place.offset(at) as libc::off_t;
            libc::pwrite(place.file.as_raw_fd(), pointer(at), len - done, into)
        };
        done += moved_bytes("pwrite", moved)?;
    }
    Ok(())
}

fn moved_bytes(call: &'static str, moved: isize) -> Result<usize> {
    match usize::try_from(moved) {
        Ok(0) => Err(Error::system(call)(Errno::NOSPC)),
        Ok(moved) => Ok(moved),
        Err(_) => match Error::last(call) {
            Error::System {
                errno: Errno::INTR, ..
            } => Ok(0),
            error => Err(error),
        },
    }
}

/// Private memory, made aside, to be moved over pages of the file.
pub(super) struct Aside {
    addr: NonNull<u8>,
    len: usize,
    /// Bytes at its start that were moved away.
    gone: usize,
}

impl Aside {
    pub(super) fn map(len: usize) -> Result<Aside> {
        // SAFETY: a null hint lets the kernel choose free addresses, so no existing mapping changes.
        let addr = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE)
        };
        let addr = addr.map_err(Error::system("mmap"))?.cast::<u8>();
        match NonNull::new(addr) {
            Some(addr) => Ok(Aside { addr, len, gone: 0 }),
            None => Err(Error::system("mmap")(Errno::NOMEM)),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.gone == self.len {
            return;
        }
        // SAFETY: what is left of a mapping made for this value alone.
        let outcome = unsafe {
            let rest = self.addr.as_ptr().add(self.gone).cast();
            rustix::mm::munmap(rest, self.len - self.gone)
        };
        debug_assert!(outcome.is_ok(), "munmap of memory of ours: {outcome:?}");
    }
}

/// Makes the pages of `[start, start + len)`, at most [`CHUNK_BYTES`], that still map their place private again, with what
/// was written to them, and empties the file there. `true` if those were all: the owner of the others has given them
/// up, and somebody may have them now.
///
/// # Errors
/// Some of the pages may be private again already; the content is the same either way.
///
/// # Safety
/// Nobody writes by other mappings of the file. No mapping of the range changes meanwhile, or `still` is
/// [`Still::Everyone`].
pub(super) unsafe fn move_out(
    place: Place<'_>,
    id: FileId,
    maps: &Maps,
    (start, len): (usize, usize),
    still: Still,
) -> Result<bool> {
    // SAFETY: the caller's promise.
    let whole = unsafe { copy_out(place, id, maps, (start, len), still) }?;
    place.file.punch(place.offset(start), len as u64)?;
    Ok(whole)
}

/// The same, and leaves in the file what was there: for those who map it too, and may go on writing to it.
///
/// # Errors
/// Some of the pages may be private again already; the others still map their place.
///
/// # Safety
/// No mapping of the range changes meanwhile, or `still` is [`Still::Everyone`].
pub(super) unsafe fn copy_out(
    place: Place<'_>,
    id: FileId,
    maps: &Maps,
    (start, len): (usize, usize),
    still: Still,
) -> Result<bool> {
    let mut aside = Aside::map(len)?;
    let mut swapped = 0;
    freeze::during(start, len, still, |_| {
        for vma in maps.within(start, start + len) {
            let vma = vma?;
            if vma.is_at(id, place.shift) {
                // SAFETY: frozen, and still ours: just asked, or promised by the caller not to have changed.
                unsafe { swap_in(place, &mut aside, start, vma.start, vma.end) }?;
                swapped += vma.end - vma.start;
            }
        }
        Ok(())
    })?;
    Ok(swapped == len)
}

/// Puts a private copy in the place of the pages `[start, end)` of the file; `aside` stands for the range from `base` on.
///
/// # Safety
/// The pages map their place, and nobody writes to them or unmaps them.
pub(super) unsafe fn swap_in(
    place: Place<'_>,
    aside: &mut Aside,
    base: usize,
    start: usize,
    end: usize,
) -> Result<()> {
    let skipped = start - base;
    // SAFETY: `base <= start`, and `aside` is as long as the range from `base` on that contains `end`.
    let copy = unsafe { aside.addr.as_ptr().add(skipped) };
    let mut at = start;
    while let Some((from, to)) = data(place, at, end)? {
        let mut done = from;
        while done < to {
            // SAFETY: `[start, end)` lies inside the range that `aside` is a private copy of, known to nobody else.
            let moved = unsafe {
                let into = copy.add(done - start).cast();
                let offset = place.offset(done) as libc::off_t;
                libc::pread(place.file.as_raw_fd(), into, to - done, offset)
            };
            done += moved_bytes("pread", moved)?;
        }
        at = to;
    }
    let len = end - start;
    let flags = MremapFlags::MAYMOVE;
    // SAFETY: `copy` is ours alone; the pages it replaces have the same content, which nobody changes meanwhile (the
    // caller's promise), so whoever uses them sees no difference.
    unsafe { rustix::mm::mremap_fixed(copy.cast(), len, len, flags, pointer(start)) }
        .map_err(Error::system("mremap"))?;
    release_skipped(aside, skipped);
    aside.gone = skipped + len;
    Ok(())
}

/// Unmaps what lies between the part moved last and the one just moved.
fn release_skipped(aside: &Aside, upto: usize) {
    if upto > aside.gone {
        // SAFETY: a part of `aside` in front of what it still counts as its own after this.
        let outcome = unsafe {
            let unused = aside.addr.as_ptr().add(aside.gone).cast();
            rustix::mm::munmap(unused, upto - aside.gone)
        };
        debug_assert!(outcome.is_ok(), "munmap of memory of ours: {outcome:?}");
    }
}

/// The next run of pages of `[start, end)` that have content in the file.
fn data(place: Place<'_>, start: usize, end: usize) -> Result<Option<(usize, usize)>> {
    let seek = |from| rustix::fs::seek(place.file.as_fd(), from);
    let (first, behind) = (place.offset(start), place.offset(end));
    let from = match seek(SeekFrom::Data(first)) {
        Ok(from) if from < behind => from,
        // ENXIO: nothing but holes up to the end of the file.
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(Error::system("lseek(SEEK_DATA)")(errno)),
    };
    let to = seek(SeekFrom::Hole(from)).map_err(Error::system("lseek(SEEK_HOLE)"))?;
    let addr = |offset: u64| start + (offset - first) as usize;
    Ok(Some((addr(from), addr(to.min(behind)))))
}

/// Takes the right to write from pages that had it not before they were moved.
///
/// # Safety
/// They are mapped, and nobody writes to them if not `writable`.
pub(super) unsafe fn protect(start: usize, len: usize, writable: bool) -> Result<()> {
    if writable {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe { rustix::mm::mprotect(pointer(start), len, MprotectFlags::READ) }
        .map_err(Error::system("mprotect"))
}

/// An address of this process, for system calls. Never dereferenced here.
pub(super) fn pointer(addr: usize) -> *mut libc::c_void {
    std::ptr::with_exposed_provenance_mut(addr)
}
