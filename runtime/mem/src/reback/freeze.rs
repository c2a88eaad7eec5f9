//! Nobody else writes to some pages while they are moved.
//!
//! The only thread of a process has nothing to do. Else userfaultfd's write protection stops writers, system calls
//! included, as they come; closing the descriptor wakes them, they fault again and land in what is mapped then. Where
//! the kernel refuses it, or for initialised static data (a private file mapping), every other thread is paused by a
//! signal ([`pause`](super::pause)). Helper threads of the runtime count like any other: what they write may be the
//! heap's neighbour of what is moved.
//!
//! **Between freeze and thaw** a write to a frozen page by the freezing thread would block for ever, and a paused
//! thread may hold any lock. So the operation given to [`during`] makes system calls with arguments on its stack, and
//! nothing else: no allocation, no log, no write to a static or to memory it was given; the caller has made sure that
//! the pages are neither its stack nor its thread's own block. Signals of the thread are blocked meanwhile.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::ioctl::{self, Opcode, Updater};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags};

use super::pages::{self, PageMap};
use super::pause::Pause;
use crate::error::{Error, Result};
use crate::signals::Blocked;

/// Who has to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Still {
    /// Writers of private memory.
    Private,
    /// Writers of a mapped file.
    Shared,
    /// Every thread: the memory's owner may even unmap it.
    Everyone,
}

/// What an operation may want to know of its freezing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Frozen {
    /// Entry of the page map of a page that nobody ever touched, where freezing has marked such pages.
    pub(super) untouched: Option<u64>,
}

/// Runs `op` while nobody else writes to the pages `[start, start + len)`.
///
/// # Errors
/// [`Error::Unmovable`] if the others cannot be stopped; then `op` has not run. Or what `op` answers.
pub(super) fn during<R>(
    start: usize,
    len: usize,
    still: Still,
    op: impl FnOnce(Frozen) -> Result<R>,
) -> Result<R> {
    let _quiet = Blocked::all()?;
    if is_alone()? {
        return op(Frozen::default());
    }
    if still != Still::Everyone
        && let Some(guard) = Protection::of(start, len, still)
    {
        return op(guard.frozen);
    }
    let pause = Pause::all()?;
    if pause.runs_on(start, len) {
        return Err(Error::Unmovable {
            rule: "a thread runs on it",
        });
    }
    op(Frozen::default())
}

/// Is the calling thread the only one?
fn is_alone() -> Result<bool> {
    let mut others = false;
    each_thread(|thread| others |= thread != this_thread())?;
    Ok(!others)
}

pub(super) fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_pid()
}

/// Calls `each` with the number of every thread of this process. Allocates nothing.
pub(super) fn each_thread(mut each: impl FnMut(i32)) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(c"/proc/self/task", flags, Mode::empty())
        .map_err(Error::system("open(/proc/self/task)"))?;
    let mut space = [MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = RawDir::new(dir, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(Error::system("getdents(/proc/self/task)"))?;
        let name = entry.file_name().to_bytes();
        if name.first().is_some_and(u8::is_ascii_digit) {
            let number = name.iter().try_fold(0i32, |n, d| {
                n.checked_mul(10)?.checked_add(i32::from(d - b'0'))
            });
            each(number.ok_or(Error::Format {
                file: "/proc/self/task",
            })?);
        }
    }
    Ok(())
}

/// Write protection by userfaultfd; dropping it closes the descriptor, which thaws.
struct Protection {
    frozen: Frozen,
    _fd: OwnedFd,
    /// Unmapped after the descriptor is closed; the order does not matter.
    _probe: Option<Probe>,
}

// linux/userfaultfd.h
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

const NEW: Opcode = ioctl::opcode::none(0xaa, 0);
const API: Opcode = ioctl::opcode::read_write::<Api>(0xaa, 0x3f);
const REGISTER: Opcode = ioctl::opcode::read_write::<Register>(0xaa, 0);
const WRITE_PROTECT: Opcode = ioctl::opcode::read_write::<WriteProtect>(0xaa, 6);
/// `UFFD_API`.
const VERSION: u64 = 0xaa;
/// `UFFD_FEATURE_PAGEFAULT_FLAG_WP`.
const WP: u64 = 1;
/// `UFFD_FEATURE_WP_HUGETLBFS_SHMEM` (5.19): write protection of shared memory.
const WP_SHARED: u64 = 1 << 12;
/// `UFFD_FEATURE_WP_UNPOPULATED` (6.4): without it the first write to a page that was never touched goes through.
const WP_UNPOPULATED: u64 = 1 << 13;
/// `UFFDIO_REGISTER_MODE_WP`.
const REGISTER_WP: u64 = 2;
/// `UFFDIO_WRITEPROTECT_MODE_WP`.
const PROTECT: u64 = 1;

/// A page map's entry of an untouched page is looked up only for ranges in which skipping pays for it.
const PROBE_FROM_BYTES: usize = 64 << 10;

impl Protection {
    /// `None` where the kernel has not, or does not permit, all that is needed.
    fn of(start: usize, len: usize, still: Still) -> Option<Protection> {
        let features = match still {
            Still::Shared => WP | WP_SHARED,
            _ => WP | WP_UNPOPULATED,
        };
        let fd = open()?;
        let mut api = Api {
            api: VERSION,
            features,
            ioctls: 0,
        };
        // SAFETY: the opcode is that of this structure, whose layout is the kernel's.
        unsafe { ioctl::ioctl(&fd, Updater::<API, Api>::new(&mut api)) }.ok()?;
        let probe = (still == Still::Private && len >= PROBE_FROM_BYTES)
            .then(|| Probe::map(&fd))
            .flatten();
        protect(&fd, start, len).ok()?;
        let untouched = probe.as_ref().and_then(|probe| probe.entry);
        Some(Protection {
            frozen: Frozen { untouched },
            _fd: fd,
            _probe: probe,
        })
    }
}

/// Full userfaultfd: faults of system calls are handled too. Root, a capability, or a system setting permits it.
fn open() -> Option<OwnedFd> {
    // SAFETY: a descriptor without registered ranges changes nothing.
    if let Ok(fd) = unsafe { rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC) } {
        return Some(fd);
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open(c"/dev/userfaultfd", flags, Mode::empty()).ok()?;
    new_of(&device)
}

/// The device makes a descriptor without asking for a capability.
fn new_of(device: &OwnedFd) -> Option<OwnedFd> {
    use std::os::fd::{AsRawFd, FromRawFd};
    let flags = libc::c_long::from(libc::O_CLOEXEC);
    // SAFETY: USERFAULTFD_IOC_NEW takes the flags as its argument and touches no memory of ours.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), NEW as _, flags) };
    // SAFETY: a descriptor that the kernel has just made for us alone.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn protect(fd: &OwnedFd, start: usize, len: usize) -> rustix::io::Result<()> {
    let (start, len) = (start as u64, len as u64);
    let mut register = Register {
        start,
        len,
        mode: REGISTER_WP,
        ioctls: 0,
    };
    let mut range = WriteProtect {
        start,
        len,
        mode: PROTECT,
    };
    // SAFETY: the opcodes are those of these structures, whose layouts are the kernel's. Writers to the range wait until
    // the descriptor is closed, which its owner's drop does; contents do not change.
    unsafe {
        ioctl::ioctl(fd, Updater::<REGISTER, Register>::new(&mut register))?;
        ioctl::ioctl(fd, Updater::<WRITE_PROTECT, WriteProtect>::new(&mut range))
    }
}

/// A page that nobody touches, protected by the same descriptor: how the page map shows such pages then.
struct Probe {
    addr: NonNull<u8>,
    len: usize,
    entry: Option<u64>,
}

impl Probe {
    fn map(fd: &OwnedFd) -> Option<Probe> {
        let len = rustix::param::page_size();
        // SAFETY: a null hint lets the kernel choose free addresses, so no existing mapping changes.
        let addr = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE)
        };
        let addr = NonNull::new(addr.ok()?.cast::<u8>())?;
        let mut probe = Probe {
            addr,
            len,
            entry: None,
        };
        let start = addr.as_ptr().addr();
        protect(fd, start, len).ok()?;
        let mut entry = [0];
        PageMap::open()?.read(start, &mut entry).ok()?;
        probe.entry = pages::marker(entry[0]);
        Some(probe)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: made by `map` for this probe alone, and used by nobody.
        let outcome = unsafe { rustix::mm::munmap(self.addr.as_ptr().cast(), self.len) };
        debug_assert!(outcome.is_ok(), "munmap of a page of ours: {outcome:?}");
    }
}
