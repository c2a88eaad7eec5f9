//! Files without a name, mapped shared; several of them behind one range of addresses.
//!
//! A [`MemFile`] is a memfd. The kernel creates it accessible to everybody who can reach the descriptor through
//! /proc, so its mode is set to 0600 before anybody hears of it (reliability.md S1), and it is sealed against shrinking
//! and growing as soon as it has its size: a mapping of it can never fault (SIGBUS), whoever holds the descriptor.
//! Mappings are shared, take no reservation of swap (a sparse file of 1 TiB maps), and stay out of core dumps.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags};
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
        let file = Self::create_unsealed(name, len)?;
        file.seal(false)?;
        Ok(file)
    }

    /// The same, to which [`seal`](Self::seal) is still to be put. Its size is final already.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_unsealed(name: &str, len: u64) -> Result<Self> {
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
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS)
            .map_err(Error::system("fcntl(F_ADD_SEALS)"))?;
        Ok(Self { fd, len })
    }

    /// Makes the seals final. `read_only`: whoever has no writable mapping yet never gets one, nor writes in another way.
    ///
    /// # Errors
    /// [`Error::System`]: sealed already, or the kernel does not know the seal.
    pub fn seal(&self, read_only: bool) -> Result<()> {
        let writes = match read_only {
            true => SealFlags::FUTURE_WRITE,
            false => SealFlags::empty(),
        };
        rustix::fs::fcntl_add_seals(&self.fd, writes | SealFlags::SEAL)
            .map_err(Error::system("fcntl(F_ADD_SEALS)"))
    }

    /// A descriptor of the same file that only reads: its holder, if of another user, gets no other.
    ///
    /// # Errors
    /// [`Error::System`]: no descriptor, or no /proc.
    pub fn read_only(&self) -> Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::system("open(/proc/self/fd)"))
    }

    /// Accepts a descriptor received from a peer: a memfd sealed against shrinking and growing, owned by this
    /// process's user and closed to all others. Anything else could fault under our mappings, or is not ours.
    ///
    /// # Errors
    /// [`Error::BadFile`] names the broken rule.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Self::from_fd_of(fd, rustix::process::geteuid().as_raw())
    }

    /// As [`MemFile::from_fd`], of a file that belongs to `owner`: what a service of another user made for this one.
    ///
    /// # Errors
    /// [`Error::BadFile`] names the broken rule.
    pub fn from_fd_of(fd: OwnedFd, owner: u32) -> Result<Self> {
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
        if stat.st_uid != owner {
            return Err(Error::BadFile {
                rule: "it must belong to the user it is to come from",
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
    pub(crate) fn check(&self, offset: u64, len: usize) -> Result<()> {
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

/// Leaves the pages of a mapping out of forked children: an access there ends the child (SIGSEGV). Whole pages of `bytes`.
///
/// # Errors
/// [`Error::System`] where the kernel refuses.
pub fn keep_from_children(bytes: &SharedBytes) -> Result<()> {
    // SAFETY: this advice changes what a child gets at fork, nothing in this process; the range is mapped while `bytes` lives.
    unsafe { rustix::mm::madvise(bytes.as_ptr().cast(), bytes.len(), Advice::LinuxDontFork) }
        .map_err(Error::system("madvise(MADV_DONTFORK)"))
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

pub(crate) fn non_null(addr: *mut std::ffi::c_void) -> Result<NonNull<u8>> {
    // mmap without a hint never answers address 0 to a process; if it did, Rust could not point there.
    NonNull::new(addr.cast::<u8>()).ok_or(Error::System {
        call: "mmap",
        errno: Errno::NOMEM,
    })
}

pub(crate) fn keep_out_of_dumps(addr: NonNull<u8>, len: usize) -> Result<()> {
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

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    fn text(bytes: &SharedBytes, offset: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        bytes.read(offset, &mut out).unwrap();
        out
    }

    fn page() -> usize {
        rustix::param::page_size()
    }

    #[test]
    fn a_file_is_private_to_its_user_and_of_fixed_size() {
        let file = MemFile::create("windlass-test", 3 * page() as u64 + 5).unwrap();
        let stat = rustix::fs::fstat(file.as_fd()).unwrap();
        assert_eq!(stat.st_mode & 0o7777, 0o600);
        assert_eq!(stat.st_size as u64, file.len());
        let seals = rustix::fs::fcntl_get_seals(file.as_fd()).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        assert_eq!(rustix::fs::ftruncate(file.as_fd(), 1), Err(Errno::PERM));
        assert_eq!(
            rustix::fs::ftruncate(file.as_fd(), 1 << 30),
            Err(Errno::PERM)
        );
        let flags = rustix::io::fcntl_getfd(file.as_fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(
            MemFile::create("windlass-test", 0).unwrap_err(),
            Error::Empty { what: "a file" }
        );
    }

    #[test]
    fn what_is_sealed_against_writes_stays_writable_where_it_was_mapped_before() {
        let file = MemFile::create_unsealed("windlass-test", page() as u64).unwrap();
        let before = file.map(0, page()).unwrap();
        let reader = file.read_only().unwrap();
        file.seal(true).unwrap();
        before.write(5, b"still").unwrap();
        let denied = Some(Errno::PERM);
        assert_eq!(file.map(0, page()).unwrap_err().errno(), denied);
        assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
        assert_eq!(file.seal(false).unwrap_err().errno(), denied);
        let mut seen = [0; 5];
        rustix::io::pread(&reader, &mut seen, 5).unwrap();
        assert_eq!(&seen, b"still");
        assert_eq!(rustix::io::pwrite(&reader, b"x", 0), Err(Errno::BADF));
    }

    #[test]
    fn two_mappings_of_a_file_are_the_same_memory() {
        let file = MemFile::create("windlass-test", 4 * page() as u64).unwrap();
        let other = MemFile::from_fd(file.try_clone().unwrap().into_fd()).unwrap();
        assert_eq!(other.len(), file.len());
        let one = file.map(0, 4 * page()).unwrap();
        let two = other.map(page() as u64, 100).unwrap();
        drop((file, other));
        one.write(page() + 7, b"seen").unwrap();
        assert_eq!(text(&two, 7, 4), b"seen");
        assert!(two.write(97, b"more").is_err());
        assert_eq!(one.contains(&two), None);
    }

    #[test]
    fn maps_are_checked_against_the_file() {
        let size = 2 * page() as u64;
        let file = MemFile::create("windlass-test", size).unwrap();
        let outside = |offset, len| Error::OutOfRange { offset, len, size };
        assert_eq!(file.map(size, 1).unwrap_err(), outside(size, 1));
        assert_eq!(
            file.map(0, 2 * page() + 1).unwrap_err(),
            outside(0, size + 1)
        );
        assert_eq!(
            file.map(u64::MAX, usize::MAX).unwrap_err(),
            outside(u64::MAX, usize::MAX as u64)
        );
        assert_eq!(
            file.map(1, 1).unwrap_err(),
            Error::Misaligned {
                offset: 1,
                align: page() as u64
            }
        );
        assert_eq!(
            file.map(0, 0).unwrap_err(),
            Error::Empty { what: "a mapping" }
        );
        assert_eq!(
            file.punch(page() as u64, size).unwrap_err(),
            outside(page() as u64, size)
        );
    }

    #[test]
    fn strange_descriptors_are_refused() {
        let refused = |fd: OwnedFd| match MemFile::from_fd(fd) {
            Err(Error::BadFile { rule }) => rule,
            other => panic!("{other:?}"),
        };
        let memfd = |mode, seals| {
            let fd = rustix::fs::memfd_create(
                "windlass-test",
                MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
            )
            .unwrap();
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).unwrap();
            rustix::fs::ftruncate(&fd, 4096).unwrap();
            rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
            fd
        };
        assert!(MemFile::from_fd(memfd(0o600, SIZE_SEALS)).is_ok());
        assert_eq!(
            refused(memfd(0o600, SealFlags::GROW)),
            "it must be sealed against shrinking and growing"
        );
        assert_eq!(
            refused(memfd(0o604, SIZE_SEALS)),
            "its mode must be closed to group and others"
        );
        assert_eq!(
            refused(std::fs::File::open("/proc/version").unwrap().into()),
            "it must be a memfd"
        );
        assert_eq!(
            refused(rustix::pipe::pipe().unwrap().0),
            "it must be a memfd"
        );
        let empty = rustix::fs::memfd_create("windlass-test", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::fchmod(&empty, Mode::RUSR).unwrap();
        rustix::fs::fcntl_add_seals(&empty, SIZE_SEALS).unwrap();
        assert_eq!(refused(empty), "it must not be empty");
    }

    #[test]
    fn huge_sparse_files_map_and_too_huge_ones_are_an_error() {
        let terabyte = 1u64 << 40;
        let file = MemFile::create("windlass-test", terabyte).unwrap();
        let bytes = file.map(0, terabyte as usize).unwrap();
        bytes
            .write(terabyte as usize - 8, &7u64.to_ne_bytes())
            .unwrap();
        assert_eq!(text(&bytes, terabyte as usize - 8, 8), 7u64.to_ne_bytes());
        assert!(bytes.write(terabyte as usize - 7, &[0; 8]).is_err());
        // Few pages were touched, however large the range is.
        assert!(rustix::fs::fstat(file.as_fd()).unwrap().st_blocks * 512 < 64 << 20);
        let file = MemFile::create("windlass-test", 1 << 60).unwrap();
        assert_eq!(
            file.map(0, 1 << 60).unwrap_err().errno(),
            Some(Errno::NOMEM)
        );
    }

    #[test]
    fn punched_pages_read_as_zeros() {
        let size = 4 * page();
        let file = MemFile::create("windlass-test", size as u64).unwrap();
        let bytes = file.map(0, size).unwrap();
        bytes.fill(0, size, 0xaa).unwrap();
        file.punch(page() as u64, page() as u64).unwrap();
        file.punch(size as u64, 0).unwrap();
        assert!(text(&bytes, page(), page()).iter().all(|&b| b == 0));
        assert!(text(&bytes, 2 * page(), page()).iter().all(|&b| b == 0xaa));
    }

    #[test]
    fn mappings_stay_out_of_core_dumps() {
        let file = MemFile::create("windlass-test", 2 * page() as u64).unwrap();
        let pieces = [Piece {
            file: &file,
            offset: 0,
            len: page(),
        }];
        for bytes in [
            file.map(0, 2 * page()).unwrap(),
            map_pieces(&pieces, 1).unwrap(),
        ] {
            let head = format!("{:x}-", bytes.addr());
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let entry = &smaps[smaps.find(&head).unwrap()..];
            let flags = entry
                .lines()
                .find(|line| line.starts_with("VmFlags:"))
                .unwrap();
            assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
        }
    }

    #[test]
    fn pieces_become_one_aligned_range() {
        let one = MemFile::create("one", 4 * page() as u64).unwrap();
        let two = MemFile::create("two", 2 * page() as u64).unwrap();
        let pieces = [
            Piece {
                file: &one,
                offset: 3 * page() as u64,
                len: page(),
            },
            Piece {
                file: &two,
                offset: 0,
                len: 2 * page(),
            },
            Piece {
                file: &one,
                offset: 0,
                len: page(),
            },
        ];
        let align = 2 << 20;
        let bytes = map_pieces(&pieces, align).unwrap();
        assert_eq!(bytes.len(), 4 * page());
        assert_eq!(bytes.addr() % align, 0);
        // Across the seams.
        let src: Vec<u8> = (0..3 * page()).map(|i| (i % 251) as u8).collect();
        bytes.write(page() / 2, &src).unwrap();
        assert_eq!(text(&bytes, page() / 2, src.len()), src);
        let (one, two) = (
            one.map(0, 4 * page()).unwrap(),
            two.map(0, 2 * page()).unwrap(),
        );
        assert_eq!(
            text(&one, 3 * page() + page() / 2, page() / 2),
            src[..page() / 2]
        );
        assert_eq!(
            text(&two, 0, 2 * page()),
            src[page() / 2..page() / 2 + 2 * page()]
        );
        assert_eq!(text(&one, 0, page() / 2), src[page() / 2 + 2 * page()..]);
    }

    #[test]
    fn bad_pieces_are_refused() {
        let file = MemFile::create("windlass-test", 2 * page() as u64).unwrap();
        let piece = |offset, len| Piece {
            file: &file,
            offset,
            len,
        };
        assert_eq!(
            map_pieces(&[], 1).unwrap_err(),
            Error::Empty { what: "a mapping" }
        );
        assert!(matches!(
            map_pieces(&[piece(0, page())], 3),
            Err(Error::Misaligned { .. })
        ));
        assert!(matches!(
            map_pieces(&[piece(0, page() - 1)], 1),
            Err(Error::Misaligned { .. })
        ));
        assert!(matches!(
            map_pieces(&[piece(5, page())], 1),
            Err(Error::Misaligned { .. })
        ));
        assert!(matches!(
            map_pieces(&[piece(0, 3 * page())], 1),
            Err(Error::OutOfRange { .. })
        ));
        assert!(matches!(
            map_pieces(&[piece(0, 0)], 1),
            Err(Error::Empty { .. })
        ));
    }

    #[test]
    fn nothing_stays_mapped() {
        let file = MemFile::create("windlass-leak-probe", 8 * page() as u64).unwrap();
        for _ in 0..100 {
            let pieces = [Piece {
                file: &file,
                offset: 0,
                len: page(),
            }; 3];
            let whole = map_pieces(&pieces, 1 << 16).unwrap();
            let part = whole.slice(page(), page()).unwrap();
            drop(whole);
            part.write(0, b"still mapped").unwrap();
            let _also = file.map(0, 8 * page()).unwrap();
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains("windlass-leak-probe"), "{maps}");
    }
}
