//! Files without a name, mapped shared; several of them behind one range of addresses; and memory the caller lends.
//!
//! A [`MemFile`] is a memfd. The kernel creates it accessible to everybody who can reach the descriptor through
//! /proc, so its mode is set to 0600 before anybody hears of it (reliability.md S1), and it is sealed against shrinking
//! and growing as soon as it has its size: a mapping of it can never fault (SIGBUS), whoever holds the descriptor.
//! Mappings are shared, take no reservation of swap (a sparse file of 1 TiB maps), and stay out of core dumps.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FileType, MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::shared::{SharedBytes, fits_u64};

/// Seals every shared file carries: its size is final.
const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// A file without a name in memory, of fixed size, accessible to its owner's user alone.
#[derive(Debug)]
pub struct MemFile {
    fd: OwnedFd,
    len: u64,
}

impl MemFile {
    /// Makes a zeroed, sparse file of `len` bytes. `name` shows in /proc only.
    ///
    /// # Errors
    /// [`Error::Empty`] for no bytes; [`Error::System`] where the kernel refuses.
    pub fn create(name: &str, len: u64) -> Result<Self> {
        if len == 0 {
            return Err(Error::Empty { what: "a file" });
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Never executable where the kernel knows the flag (6.3 and later); some systems demand it.
        let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
            outcome => outcome,
        }
        .map_err(Error::system("memfd_create"))?;
        rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(Error::system("fchmod"))?;
        rustix::fs::ftruncate(&fd, len).map_err(Error::system("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS | SealFlags::SEAL)
            .map_err(Error::system("fcntl(F_ADD_SEALS)"))?;
        Ok(Self { fd, len })
    }

    /// Accepts a descriptor received from a peer: a memfd sealed against shrinking and growing, owned by this
    /// process's user and closed to all others. Anything else could fault under our mappings, or is not ours.
    ///
    /// # Errors
    /// [`Error::BadFile`] names the broken rule.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        // Only memfds (and files of tmpfs) have seals at all, so this is also the check of the kind of file.
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| Error::BadFile {
            rule: "it must be a memfd",
        })?;
        if !seals.contains(SIZE_SEALS) {
            return Err(Error::BadFile {
                rule: "it must be sealed against shrinking and growing",
            });
        }
        let stat = rustix::fs::fstat(&fd).map_err(Error::system("fstat"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::BadFile {
                rule: "it must be a regular file",
            });
        }
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Error::BadFile {
                rule: "it must belong to the user of this process",
            });
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(Error::BadFile {
                rule: "its mode must be closed to group and others",
            });
        }
        match u64::try_from(stat.st_size) {
            Ok(len) if len > 0 => Ok(Self { fd, len }),
            _ => Err(Error::BadFile {
                rule: "it must not be empty",
            }),
        }
    }

    /// Bytes of the file; final.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a file of no bytes cannot be made"
    )]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The descriptor, to be passed to a peer.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Another descriptor of the same file.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(Error::system("fcntl(F_DUPFD_CLOEXEC)"))?;
        Ok(Self { fd, len: self.len })
    }

    /// The descriptor alone.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Maps `len` bytes from `offset` (a multiple of the page size), shared and writable. No page is touched.
    ///
    /// # Errors
    /// [`Error::System`] with `ENOMEM` under an address-space limit: halve and try again.
    pub fn map(&self, offset: u64, len: usize) -> Result<SharedBytes> {
        self.check(offset, len)?;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a null hint lets the kernel choose free addresses, so no existing mapping changes.
        let addr = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                READ_WRITE,
                flags,
                &self.fd,
                offset,
            )
        }
        .map_err(Error::system("mmap"))?;
        let addr = non_null(addr)?;
        // SAFETY: the kernel just made this mapping for us alone.
        let keep = unsafe { Mapping::mapped(addr, len) };
        keep_out_of_dumps(addr, len)?;
        // SAFETY: `len` bytes are mapped readable and writable and initialised (file pages start zeroed); the file is
        // sealed against shrinking and `[offset, offset + len)` is inside it, so no access can fault.
        Ok(unsafe { SharedBytes::over(Arc::new(keep), len, false) })
    }

    /// Gives the pages of `[offset, offset + len)` back to the system; they read as zeros afterwards.
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        if !fits_u64(offset, len, self.len) {
            return Err(Error::OutOfRange {
                offset,
                len,
                size: self.len,
            });
        }
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, offset, len)
            .map_err(Error::system("fallocate(PUNCH_HOLE)"))
    }

    /// Refuses what mmap would refuse, and what it would map past the end of the file.
    fn check(&self, offset: u64, len: usize) -> Result<()> {
        if len == 0 {
            return Err(Error::Empty { what: "a mapping" });
        }
        if !fits_u64(offset, len as u64, self.len) {
            return Err(Error::OutOfRange {
                offset,
                len: len as u64,
                size: self.len,
            });
        }
        page_multiple(offset)
    }
}

impl AsFd for MemFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for MemFile {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// A part of a file, to be mapped beside others.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The file.
    pub file: &'a MemFile,
    /// First byte; a multiple of the page size.
    pub offset: u64,
    /// Bytes; a multiple of the page size, not zero.
    pub len: usize,
}

/// Maps the pieces one after the other into one contiguous range of addresses that starts at a multiple of `align`
/// (a power of two).
///
/// The addresses are reserved first, without access, then each piece is mapped over its part: nobody can get in
/// between, and a failure leaves nothing behind.
pub fn map_pieces(pieces: &[Piece<'_>], align: usize) -> Result<SharedBytes> {
    if !align.is_power_of_two() {
        return Err(Error::Misaligned {
            offset: align as u64,
            align: align as u64,
        });
    }
    let mut total = 0usize;
    for piece in pieces {
        piece.file.check(piece.offset, piece.len)?;
        page_multiple(piece.len as u64)?;
        total = total.checked_add(piece.len).ok_or(Error::System {
            call: "mmap",
            errno: Errno::NOMEM,
        })?;
    }
    if total == 0 {
        return Err(Error::Empty { what: "a mapping" });
    }
    let (keep, base) = reserve(total, align.max(rustix::param::page_size()))?;
    let mut at = 0;
    for piece in pieces {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: `[base + at, base + at + piece.len)` is a part of the reservation that `keep` owns and nobody uses
        // yet, so replacing its pages cannot pull memory from under anybody; `at` stays below `total`.
        unsafe {
            let addr = base.as_ptr().add(at).cast();
            rustix::mm::mmap(
                addr,
                piece.len,
                READ_WRITE,
                flags,
                &piece.file.fd,
                piece.offset,
            )
        }
        .map_err(Error::system("mmap(MAP_FIXED)"))?;
        at += piece.len;
    }
    keep_out_of_dumps(base, total)?;
    // SAFETY: the pieces cover all `total` bytes of the reservation, each readable, writable, initialised and inside
    // a file that cannot shrink.
    Ok(unsafe { SharedBytes::over(Arc::new(keep), total, false) })
}

/// Reserves `len` bytes of addresses (a multiple of the page size) that start at a multiple of `align`.
fn reserve(len: usize, align: usize) -> Result<(Mapping, NonNull<u8>)> {
    let wide = len.checked_add(align).ok_or(Error::System {
        call: "mmap",
        errno: Errno::NOMEM,
    })?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a null hint lets the kernel choose free addresses, so no existing mapping changes.
    let addr = unsafe {
        rustix::mm::mmap_anonymous(std::ptr::null_mut(), wide, ProtFlags::empty(), flags)
    }
    .map_err(Error::system("mmap"))?;
    let start = non_null(addr)?;
    let head = start.as_ptr().addr().next_multiple_of(align) - start.as_ptr().addr();
    // SAFETY: `head < align`, so `head + len` stays inside the `wide = len + align` bytes just reserved.
    let base = unsafe { start.add(head) };
    let tail = align - head;
    if head > 0 {
        // SAFETY: the first `head` bytes of our own reservation, a multiple of the page size, in use by nobody.
        let outcome = unsafe { rustix::mm::munmap(addr, head) };
        debug_assert!(
            outcome.is_ok(),
            "munmap of the head of a reservation: {outcome:?}"
        );
    }
    // SAFETY: the last `tail` bytes of our own reservation (`head + len + tail == wide`), in use by nobody.
    let outcome = unsafe { rustix::mm::munmap(base.as_ptr().add(len).cast(), tail) };
    debug_assert!(
        outcome.is_ok(),
        "munmap of the tail of a reservation: {outcome:?}"
    );
    // SAFETY: `[base, base + len)` is what is left of the reservation, made for us alone.
    Ok((unsafe { Mapping::mapped(base, len) }, base))
}

fn non_null(addr: *mut std::ffi::c_void) -> Result<NonNull<u8>> {
    // mmap without a hint never answers address 0 to a process; if it did, Rust could not point there.
    NonNull::new(addr.cast::<u8>()).ok_or(Error::System {
        call: "mmap",
        errno: Errno::NOMEM,
    })
}

fn keep_out_of_dumps(addr: NonNull<u8>, len: usize) -> Result<()> {
    // SAFETY: this advice changes what a core dump contains, not the memory; the range is our own mapping.
    unsafe { rustix::mm::madvise(addr.as_ptr().cast(), len, Advice::LinuxDontDump) }
        .map_err(Error::system("madvise(MADV_DONTDUMP)"))
}

fn page_multiple(value: u64) -> Result<()> {
    let page = rustix::param::page_size() as u64;
    if value.is_multiple_of(page) {
        Ok(())
    } else {
        Err(Error::Misaligned {
            offset: value,
            align: page,
        })
    }
}

/// The right to get a lent vector back.
///
/// Dropping it gives the memory up: it is freed when the last range over it goes, never earlier.
#[must_use = "without the loan the memory cannot be taken back"]
pub struct Loan<T> {
    keep: Arc<Mapping>,
    kind: PhantomData<Vec<T>>,
}

/// A lent vector cannot be taken back yet: other ranges over it live, or `bytes` belongs to other memory.
#[derive(thiserror::Error)]
#[error("lent memory is still in use by another range over it")]
pub struct StillLent<T> {
    /// The loan, to try again.
    pub loan: Loan<T>,
    /// The range that was handed in.
    pub bytes: SharedBytes,
}

impl<T> std::fmt::Debug for StillLent<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StillLent")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Loan<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loan").finish_non_exhaustive()
    }
}

/// Turns a vector into memory that others may change. The vector is not copied or moved: its addresses stay.
///
/// Get it back by [`Loan::take_back`].
pub fn lend<T: bytemuck::Pod + Send>(memory: Vec<T>) -> (SharedBytes, Loan<T>) {
    let len = std::mem::size_of_val(memory.as_slice());
    let keep = Arc::new(Mapping::heap(memory));
    // SAFETY: `keep` owns the vector's buffer, of which `len` bytes are initialised plain data (`Pod`: no padding);
    // the vector was moved in, so no reference to it exists, and `Loan` makes none while ranges live.
    let bytes = unsafe { SharedBytes::over(Arc::clone(&keep), len, false) };
    (
        bytes,
        Loan {
            keep,
            kind: PhantomData,
        },
    )
}

impl<T: bytemuck::Pod + Send> Loan<T> {
    /// Gives the vector back, with what others wrote to it, when `bytes` is the last range over it.
    ///
    /// # Errors
    /// [`StillLent`] returns both when another clone or slice lives.
    pub fn take_back(self, bytes: SharedBytes) -> std::result::Result<Vec<T>, StillLent<T>> {
        if !Arc::ptr_eq(&self.keep, bytes.keep()) || Arc::strong_count(&self.keep) != 2 {
            return Err(StillLent { loan: self, bytes });
        }
        // No other owner exists (the two counted are `self` and `bytes`), and none can appear: cloning needs one.
        drop(bytes);
        let Some(mapping) = Arc::into_inner(self.keep) else {
            unreachable!("the last owner of lent memory is its loan")
        };
        // SAFETY: `lend::<T>` made this mapping, with the same `T`: the loan carries the type.
        Ok(unsafe { mapping.into_vec() })
    }
}
