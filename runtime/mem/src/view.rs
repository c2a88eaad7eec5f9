//! Files in the address space with fewer rights, at a place of the caller's choice, and exchanged in place: what an
//! importer sees of somebody else's segment.
//!
//! A [`View`] covers whole pages. It stays out of core dumps, and out of forked children, where an access faults.

use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::error::{Error, Result};
use crate::map::{MemFile, keep_out_of_dumps, non_null};
use crate::mapping::Mapping;
use crate::shared::SharedBytes;

/// What a mapping permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Nothing: addresses alone.
    None,
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// Addresses that a view may take, whatever is there.
#[derive(Debug)]
pub struct Spot {
    addr: usize,
    room: usize,
}

impl Spot {
    /// Nowhere: refused.
    pub const NOWHERE: Self = Self { addr: 0, room: 0 };

    /// From `addr` on, as many whole pages as the view has.
    ///
    /// # Safety
    /// What is mapped there may be replaced: nobody relies on it, and no Rust value lives in it.
    pub unsafe fn new(addr: usize) -> Self {
        let room = usize::MAX;
        Self { addr, room }
    }

    /// The addresses of a view that is given up for them, from its byte `skip` on.
    pub fn of(view: View, skip: usize) -> Self {
        let (addr, len) = (view.addr(), view.len());
        // The place of bytes that others still use is no place.
        match Arc::into_inner(view.keep) {
            Some(keep) if skip < len => {
                std::mem::forget(keep);
                Self {
                    addr: addr + skip,
                    room: len - skip,
                }
            }
            _ => Self::NOWHERE,
        }
    }

    /// The address.
    pub fn addr(&self) -> usize {
        self.addr
    }
}

/// A part of a file in the address space.
pub struct View {
    keep: Arc<Mapping>,
    len: usize,
    rights: Rights,
}

impl View {
    /// Maps whole pages around `len` bytes from `offset` (whole pages) on, at `spot` or where the kernel likes. Without rights no
    /// file is needed.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Misaligned`], [`Error::Empty`]; [`Error::System`] where the kernel refuses: EACCES for a
    /// descriptor that gives less, EPERM for a sealed file.
    pub fn new(
        file: Option<&MemFile>,
        offset: u64,
        len: usize,
        rights: Rights,
        spot: Option<Spot>,
    ) -> Result<View> {
        let page = rustix::param::page_size();
        let whole = len.checked_next_multiple_of(page);
        let whole = whole.ok_or(Error::System {
            call: "mmap",
            errno: rustix::io::Errno::NOMEM,
        })?;
        if let Some(file) = file {
            file.check(offset, len)?;
        } else if len == 0 {
            return Err(Error::Empty { what: "a mapping" });
        }
        if let Some(spot) = &spot
            && (!spot.addr.is_multiple_of(page) || spot.addr == 0 || whole > spot.room)
        {
            return Err(Error::Misaligned {
                offset: spot.addr as u64,
                align: page as u64,
            });
        }
        let addr = spot.as_ref().map_or(0, Spot::addr);
        // SAFETY: either a null hint, with which no existing mapping changes, or a place whose mappings may be replaced, by
        // the promise of `Spot::new`.
        let addr = unsafe { map(file, offset, whole, rights, addr) }?;
        // SAFETY: the kernel just made this mapping for us alone.
        let keep = unsafe { Mapping::mapped(addr, whole) };
        keep_out_of_dumps(addr, whole)?;
        // SAFETY: this advice changes what a child gets at fork, nothing in this process; the range is our own mapping.
        unsafe { rustix::mm::madvise(addr.as_ptr().cast(), whole, Advice::LinuxDontFork) }
            .map_err(Error::system("madvise(MADV_DONTFORK)"))?;
        Ok(View {
            keep: Arc::new(keep),
            len,
            rights,
        })
    }

    /// First address.
    pub fn addr(&self) -> usize {
        self.keep.addr().as_ptr().addr()
    }

    /// Bytes that were asked for.
    #[expect(clippy::len_without_is_empty, reason = "a view of nothing is not made")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes; none without rights.
    pub fn bytes(&self) -> SharedBytes {
        match self.rights {
            Rights::None => SharedBytes::empty(),
            // SAFETY: `len` bytes are mapped as long as the mapping is kept, readable, writable with that right, and those of a
            // file: initialised. It is sealed against shrinking (`MemFile`), so no access can fault.
            rights => unsafe {
                let read_only = rights == Rights::Read;
                SharedBytes::over(Arc::clone(&self.keep), self.len, read_only)
            },
        }
    }

    /// Shows a part of another file at the same addresses from now on; whoever accesses them meanwhile sees the one or the other.
    ///
    /// # Errors
    /// As [`new`](Self::new); then it shows what it did.
    pub fn exchange(&self, file: &MemFile, offset: u64) -> Result<()> {
        if self.rights == Rights::None {
            return Ok(());
        }
        file.check(offset, self.len)?;
        let whole = self.len.next_multiple_of(rustix::param::page_size());
        // SAFETY: the range is this view's own; both files are memory that is shared between processes, sealed against
        // shrinking, so accesses through ranges over it stay what they are.
        unsafe { map(Some(file), offset, whole, self.rights, self.addr()) }?;
        keep_out_of_dumps(self.keep.addr(), whole)?;
        // SAFETY: as in `new`.
        unsafe {
            rustix::mm::madvise(
                self.keep.addr().as_ptr().cast(),
                whole,
                Advice::LinuxDontFork,
            )
        }
        .map_err(Error::system("madvise(MADV_DONTFORK)"))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("addr", &format_args!("{:#x}", self.addr()))
            .field("len", &self.len)
            .field("rights", &self.rights)
            .finish()
    }
}

/// Private memory of its own, whole pages around `len` bytes, zeroed.
///
/// # Errors
/// [`Error::Empty`]; [`Error::System`] where the kernel refuses.
pub fn private(len: usize) -> Result<SharedBytes> {
    if len == 0 {
        return Err(Error::Empty { what: "a mapping" });
    }
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint lets the kernel choose free addresses, so no existing mapping changes.
    let addr =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE) };
    let addr = non_null(addr.map_err(Error::system("mmap"))?)?;
    // SAFETY: the kernel just made this mapping for us alone.
    let keep = unsafe { Mapping::mapped(addr, len) };
    // SAFETY: `len` bytes are mapped readable and writable, zeroed, and kept.
    Ok(unsafe { SharedBytes::over(Arc::new(keep), len, false) })
}

/// # Safety
/// What is mapped at `addr`, if not 0, may be replaced.
unsafe fn map(
    file: Option<&MemFile>,
    offset: u64,
    len: usize,
    rights: Rights,
    addr: usize,
) -> Result<NonNull<u8>> {
    let access = match rights {
        Rights::None => ProtFlags::empty(),
        Rights::Read => ProtFlags::READ,
        Rights::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
    };
    let fixed = match addr {
        0 => MapFlags::empty(),
        _ => MapFlags::FIXED,
    };
    let at = std::ptr::with_exposed_provenance_mut(addr);
    let flags = MapFlags::NORESERVE | fixed;
    // SAFETY: the caller's promise.
    let mapped = unsafe {
        match file {
            Some(file) if rights != Rights::None => {
                rustix::mm::mmap(at, len, access, flags | MapFlags::SHARED, file, offset)
            }
            _ => rustix::mm::mmap_anonymous(at, len, access, flags | MapFlags::PRIVATE),
        }
    };
    non_null(mapped.map_err(Error::system("mmap"))?)
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::reback::place::Movable;
    use rustix::io::Errno;

    fn page() -> usize {
        rustix::param::page_size()
    }

    fn text(bytes: &SharedBytes, offset: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        bytes.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn a_view_has_its_rights_and_no_more() {
        let file = MemFile::create("windlass-test", 4 * page() as u64).unwrap();
        let whole = View::new(Some(&file), 0, 4 * page(), Rights::ReadWrite, None).unwrap();
        whole.bytes().write(page(), b"second").unwrap();
        let part = View::new(Some(&file), page() as u64, 6, Rights::Read, None).unwrap();
        assert_eq!(text(&part.bytes(), 0, 6), b"second");
        assert!(part.bytes().write(0, b"x").is_err());
        assert!(part.bytes().read(6, &mut [0]).is_err());
        let reader = MemFile::from_fd(file.read_only().unwrap()).unwrap();
        assert!(View::new(Some(&reader), 0, page(), Rights::Read, None).is_ok());
        let refused = View::new(Some(&reader), 0, page(), Rights::ReadWrite, None);
        assert_eq!(refused.unwrap_err().errno(), Some(Errno::ACCESS));
        let nothing = View::new(None, 0, 3, Rights::None, None).unwrap();
        assert!(nothing.bytes().is_empty() && nothing.addr() > 0);
        assert!(View::new(Some(&file), 1, 1, Rights::Read, None).is_err());
        assert!(View::new(Some(&file), 0, 4 * page() + 1, Rights::Read, None).is_err());
        assert!(View::new(Some(&file), 0, 0, Rights::Read, None).is_err());
        assert!(View::new(None, 0, usize::MAX, Rights::None, None).is_err());
    }

    #[test]
    fn a_view_takes_the_place_it_is_given_and_shows_another_file_there() {
        let one = MemFile::create("one", 2 * page() as u64).unwrap();
        let two = MemFile::create("two", 2 * page() as u64).unwrap();
        for (file, name) in [(&one, b"one"), (&two, b"two")] {
            file.map(0, page()).unwrap().write(0, name).unwrap();
        }
        let place = View::new(None, 0, 2 * page(), Rights::None, None).unwrap();
        let addr = place.addr();
        let spot = Spot::of(place, 0);
        let view = View::new(Some(&one), 0, page() + 1, Rights::ReadWrite, Some(spot)).unwrap();
        assert_eq!(view.addr(), addr);
        let bytes = view.bytes();
        assert_eq!(text(&bytes, 0, 3), b"one");
        view.exchange(&two, 0).unwrap();
        assert_eq!(text(&bytes, 0, 3), b"two");
        bytes.write(0, b"new").unwrap();
        assert_eq!(text(&two.map(0, page()).unwrap(), 0, 3), b"new");
        assert!(view.exchange(&two, 2 * page() as u64).is_err());
        let small = View::new(None, 0, page(), Rights::None, None).unwrap();
        let spot = Spot::of(small, 0);
        assert!(View::new(Some(&one), 0, 2 * page(), Rights::Read, Some(spot)).is_err());
        assert!(View::new(Some(&one), 0, page(), Rights::Read, Some(Spot::NOWHERE)).is_err());
        let used = View::new(Some(&one), 0, page(), Rights::Read, None).unwrap();
        let bytes = used.bytes();
        assert_eq!(Spot::of(used, 0).addr(), 0, "{bytes:?} is still there");
    }

    #[test]
    fn memory_goes_into_a_file_and_comes_back() {
        let memory = private(3 * page()).unwrap();
        memory.write(page(), b"before").unwrap();
        let movable = Movable::of(memory.clone()).unwrap();
        movable.check().unwrap();
        let file = Arc::new(MemFile::create_unsealed("windlass-test", 3 * page() as u64).unwrap());
        movable.place(&file).unwrap();
        file.seal(true).unwrap();
        let seen = View::new(Some(&file), 0, 3 * page(), Rights::Read, None).unwrap();
        assert_eq!(text(&seen.bytes(), page(), 6), b"before");
        memory.write(page(), b"during").unwrap();
        assert_eq!(text(&seen.bytes(), page(), 6), b"during");
        assert!(movable.place(&file).is_err(), "it is shared already");
        movable.take_back().unwrap();
        assert_eq!(text(&memory, page(), 6), b"during");
        memory.write(page(), b"beyond").unwrap();
        assert_eq!(text(&seen.bytes(), page(), 6), b"during");
        movable.take_back().unwrap();
        movable.check().unwrap();
        assert!(Movable::of(memory.slice(1, page()).unwrap()).is_err());
    }

    #[test]
    fn what_cannot_be_moved_is_told_apart() {
        let file = MemFile::create("windlass-test", page() as u64).unwrap();
        let shared = Movable::of(file.map(0, page()).unwrap()).unwrap();
        assert!(matches!(shared.check(), Err(Error::Unmovable { .. })));
        let closed = View::new(None, 0, page(), Rights::None, None).unwrap();
        // SAFETY: nobody accesses it.
        let movable = unsafe { Movable::new(closed.addr(), page()) };
        assert!(matches!(movable.check(), Err(Error::Protected { .. })));
        // SAFETY: nothing is there.
        let movable = unsafe { Movable::new(page(), page()) };
        assert!(matches!(movable.check(), Err(Error::Unmapped { .. })));
    }
}
