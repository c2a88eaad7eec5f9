//! System V shared memory: the segments that host processes share and that a Vector Engine can reach.
//!
//! A segment of ours has no key (IPC_PRIVATE), mode 0600, and is marked for removal as soon as its creator has attached
//! it (architecture.md section 8): it goes with its last attachment, whatever kills the processes. Linux lets others
//! attach a marked segment by id as long as one attachment lives.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::Advice;

use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::shared::SharedBytes;

/// Mode bit of a segment that is marked for removal (SHM_DEST of the kernel's headers; libc does not name it).
const MARKED: u32 = 0o1000;

/// Where shmget's flags have the size of huge pages, as a power of two (SHM_HUGE_SHIFT of the kernel's headers).
const SIZE_SHIFT: i32 = 26;

/// What the kernel knows about a segment (shmctl(2), IPC_STAT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Size asked for at creation, in bytes.
    pub size: usize,
    /// Owner.
    pub uid: u32,
    /// Creator's user.
    pub cuid: u32,
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// Creator's pid.
    pub cpid: i32,
    /// Attachments there are.
    pub nattch: u64,
    /// Marked for removal.
    pub dest: bool,
}

/// One row of /proc/sysvipc/shm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Key; 0 for IPC_PRIVATE and for segments marked for removal.
    pub key: i32,
    /// Segment id.
    pub id: i32,
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Creator's pid.
    pub cpid: i32,
    /// Pid of the last process to attach or detach.
    pub lpid: i32,
    /// Attachments there are.
    pub nattch: u64,
    /// Owner.
    pub uid: u32,
    /// Creator's user.
    pub cuid: u32,
    /// Marked for removal.
    pub dest: bool,
}

/// Bytes of a huge page of [`create`], the size that a Vector Engine reaches (ve-memory 7.2).
pub const HUGE_PAGE_BYTES: usize = 1 << HUGE_PAGE_SHIFT;

const HUGE_PAGE_SHIFT: i32 = 21;

/// Makes a zeroed segment of `len` bytes, attaches it, and marks it for removal. With `huge` it consists of pages of
/// [`HUGE_PAGE_BYTES`], whatever size is the system's default (and there must be enough of them: `ENOMEM`; `EPERM` where the
/// user may not have them).
///
/// Answers the segment's id and its bytes; others [`attach`] by id while any attachment lives.
pub fn create(len: usize, huge: bool) -> Result<(i32, SharedBytes)> {
    if len == 0 {
        return Err(Error::Empty { what: "a segment" });
    }
    // Huge pages are reserved at creation, so that a touch cannot fail later; small ones are not.
    let pages = if huge {
        // Without the size it would be the default one, 1 GiB on some machines (shmget(2)).
        libc::SHM_HUGETLB | HUGE_PAGE_SHIFT << SIZE_SHIFT
    } else {
        libc::SHM_NORESERVE
    };
    let id = find(
        libc::IPC_PRIVATE,
        len,
        libc::IPC_CREAT | libc::IPC_EXCL | 0o600 | pages,
    )?;
    let attached = shmat(id, false);
    // Attached or not, the mark is set at once: a segment that nobody has attached goes with it.
    let marked = remove(id);
    let keep = attached?;
    marked?;
    finish(keep, len, false).map(|bytes| (id, bytes))
}

/// Attaches the segment `id`, all of it.
pub fn attach(id: i32, read_only: bool) -> Result<SharedBytes> {
    // Attach first, ask for the size then: the attachment keeps the id from being reused in between.
    let keep = shmat(id, read_only)?;
    let size = stat(id)?.size;
    finish(keep, size, read_only)
}

/// A segment that is attached, and that nobody has asked about yet.
pub struct Attachment {
    id: i32,
    keep: Mapping,
    read_only: bool,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("id", &self.id)
            .field("addr", &self.keep.addr())
            .finish_non_exhaustive()
    }
}

impl Attachment {
    /// Attaches the segment `id`: shmat(2), and nothing else that could be refused.
    pub fn new(id: i32, read_only: bool) -> Result<Self> {
        let keep = shmat(id, read_only)?;
        Ok(Self {
            id,
            keep,
            read_only,
        })
    }

    /// Its bytes up to the end of the last page, and the size of its pages. A process may use that page whole, whatever size was
    /// asked for at creation.
    pub fn whole_pages(self) -> Result<(SharedBytes, usize)> {
        let size = stat(self.id)?.size;
        let page = kernel_page_size(self.keep.addr().as_ptr().addr())?;
        finish(self.keep, size.next_multiple_of(page), self.read_only).map(|bytes| (bytes, page))
    }
}

/// What the kernel knows about segment `id`.
pub fn stat(id: i32) -> Result<Stat> {
    // SAFETY: `shmid_ds` is plain integers; all-zero is a value of it.
    let mut ds: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: IPC_STAT fills the structure behind the pointer, which is exclusive to this call.
    if unsafe { libc::shmctl(id, libc::IPC_STAT, &raw mut ds) } != 0 {
        return Err(Error::last("shmctl(IPC_STAT)"));
    }
    let mode = u32::from(ds.shm_perm.mode);
    Ok(Stat {
        size: ds.shm_segsz,
        uid: ds.shm_perm.uid,
        cuid: ds.shm_perm.cuid,
        mode: mode & 0o777,
        cpid: ds.shm_cpid,
        nattch: ds.shm_nattch,
        dest: mode & MARKED != 0,
    })
}

/// `shmget(key, size, flags)`: finds or makes a segment and answers its id.
pub fn find(key: i32, size: usize, flags: i32) -> Result<i32> {
    // SAFETY: shmget takes three integers and touches no memory of this process.
    let id = unsafe { libc::shmget(key, size, flags) };
    if id < 0 {
        Err(Error::last("shmget"))
    } else {
        Ok(id)
    }
}

/// Marks segment `id` for removal: it goes with its last attachment.
pub fn remove(id: i32) -> Result<()> {
    // SAFETY: IPC_RMID ignores the pointer.
    let outcome = unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(Error::last("shmctl(IPC_RMID)"))
    }
}

/// All segments of this IPC namespace, from /proc/sysvipc/shm.
pub fn list() -> Result<Vec<Row>> {
    let table = std::fs::read_to_string("/proc/sysvipc/shm")
        .map_err(|e| Error::io("open(/proc/sysvipc/shm)", &e))?;
    table
        .lines()
        .skip(1)
        .map(|line| {
            parse_row(line).ok_or(Error::Format {
                file: "/proc/sysvipc/shm",
            })
        })
        .collect()
}

/// Page size the kernel uses for the mapping that contains `addr`, in bytes (KernelPageSize of /proc/self/smaps).
pub fn kernel_page_size(addr: usize) -> Result<usize> {
    let file =
        File::open("/proc/self/smaps").map_err(|e| Error::io("open(/proc/self/smaps)", &e))?;
    let mut inside = false;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|e| Error::io("read(/proc/self/smaps)", &e))?;
        if let Some((from, to)) = parse_range(&line) {
            inside = (from..to).contains(&addr);
        } else if inside && let Some(rest) = line.strip_prefix("KernelPageSize:") {
            let size = rest
                .trim()
                .strip_suffix(" kB")
                .and_then(|kib| kib.trim().parse::<usize>().ok());
            return size
                .and_then(|kib| kib.checked_mul(1024))
                .ok_or(Error::Format {
                    file: "/proc/self/smaps",
                });
        }
    }
    Err(Error::Unmapped { addr })
}

fn shmat(id: i32, read_only: bool) -> Result<Mapping> {
    let flags = if read_only { libc::SHM_RDONLY } else { 0 };
    // SAFETY: a null address lets the kernel choose a free one, so no existing mapping changes.
    let addr = unsafe { libc::shmat(id, std::ptr::null(), flags) };
    if addr.addr() == usize::MAX {
        return Err(Error::last("shmat"));
    }
    let addr = NonNull::new(addr.cast::<u8>()).ok_or(Error::Format {
        file: "the result of shmat",
    })?;
    // SAFETY: `addr` is a fresh result of shmat, known to nobody else.
    Ok(unsafe { Mapping::segment(addr) })
}

fn finish(keep: Mapping, len: usize, read_only: bool) -> Result<SharedBytes> {
    let start = keep.addr().as_ptr();
    // SAFETY: the advice changes what a core dump contains, not the memory; the pages are our own attachment, which
    // covers `len` rounded up to its pages.
    let advise = |page| unsafe {
        rustix::mm::madvise(
            start.cast(),
            len.next_multiple_of(page),
            Advice::LinuxDontDump,
        )
    };
    // A part of a huge page is refused.
    match advise(rustix::param::page_size()) {
        Err(Errno::INVAL) => advise(kernel_page_size(start.addr())?),
        advised => advised,
    }
    .map_err(Error::system("madvise(MADV_DONTDUMP)"))?;
    // SAFETY: the attachment covers `len` bytes, at most the segment's size rounded up to its pages, which the kernel maps
    // whole: readable (writable unless `read_only`), zeroed at creation; a segment cannot shrink.
    Ok(unsafe { SharedBytes::over(Arc::new(keep), len, read_only) })
}

/// `from-to perms ...`: the head line of an entry of smaps. Its other lines have `Name:` first.
pub(crate) fn parse_range(line: &str) -> Option<(usize, usize)> {
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some((
        usize::from_str_radix(from, 16).ok()?,
        usize::from_str_radix(to, 16).ok()?,
    ))
}

/// Columns of proc(5): key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap.
fn parse_row(line: &str) -> Option<Row> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let mode = u32::from_str_radix(columns.get(2)?, 8).ok()?;
    Some(Row {
        key: columns.first()?.parse().ok()?,
        id: columns.get(1)?.parse().ok()?,
        mode: mode & 0o777,
        size: columns.get(3)?.parse().ok()?,
        cpid: columns.get(4)?.parse().ok()?,
        lpid: columns.get(5)?.parse().ok()?,
        nattch: columns.get(6)?.parse().ok()?,
        uid: columns.get(7)?.parse().ok()?,
        cuid: columns.get(9)?.parse().ok()?,
        dest: mode & MARKED != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_table_is_read() {
        let line = "         0     163842  1600               8192    1234  1240      2  1000  1001  1002  1003 \
                    1700000000          0 1700000000                  4096                     0";
        let row = parse_row(line).unwrap();
        assert_eq!(
            row,
            Row {
                key: 0,
                id: 163_842,
                mode: 0o600,
                size: 8192,
                cpid: 1234,
                lpid: 1240,
                nattch: 2,
                uid: 1000,
                cuid: 1002,
                dest: true,
            }
        );
        assert_eq!(parse_row("0 1 600"), None);
        assert_eq!(parse_row("0 1 9 4096 1 1 1 1 1 1 1"), None);
    }

    #[test]
    fn head_lines_of_smaps_are_told_from_others() {
        assert_eq!(
            parse_range("7f00-8f00 rw-s 00000000 00:01 5 /x-y"),
            Some((0x7f00, 0x8f00))
        );
        assert_eq!(parse_range("KernelPageSize:        4 kB"), None);
        assert_eq!(parse_range("VmFlags: rd wr-x"), None);
        assert_eq!(parse_range(""), None);
    }

    mod segments {
        #![cfg(not(miri))]
        use super::*;

        #[test]
        fn a_segment_is_marked_at_once_and_goes_with_its_last_range() {
            let (id, bytes) = create(10_000, false).unwrap();
            let stat = stat(id).unwrap();
            assert_eq!(
                (stat.size, stat.mode, stat.nattch, stat.dest),
                (10_000, 0o600, 1, true)
            );
            assert_eq!(stat.cpid, rustix::process::getpid().as_raw_pid());
            assert_eq!(stat.uid, rustix::process::geteuid().as_raw());
            let row = list()
                .unwrap()
                .into_iter()
                .find(|row| row.id == id)
                .unwrap();
            assert_eq!(
                (row.size, row.mode, row.dest, row.cpid),
                (10_000, 0o600, true, stat.cpid)
            );
            let again = attach(id, false).unwrap();
            again.write(9_992, &[7; 8]).unwrap();
            let mut word = [0; 8];
            bytes.read(9_992, &mut word).unwrap();
            assert_eq!(word, [7; 8]);
            assert!(again.write(9_993, &[7; 8]).is_err());
            drop(bytes);
            assert!(self::stat(id).is_ok());
            drop(again);
            assert!(list().unwrap().iter().all(|row| row.id != id));
            assert!(matches!(
                attach(id, false).unwrap_err().errno(),
                Some(Errno::INVAL | Errno::IDRM)
            ));
        }

        #[test]
        fn the_last_page_can_be_used_whole() {
            let (id, bytes) = create(5000, false).unwrap();
            let small = rustix::param::page_size();
            let whole = Attachment::new(id, false).unwrap().whole_pages().unwrap();
            let len = 5000_usize.next_multiple_of(small);
            assert_eq!((whole.0.len(), whole.1), (len, small));
            whole.0.write(len - 8, &[3; 8]).unwrap();
            let again = Attachment::new(id, true).unwrap().whole_pages().unwrap();
            let mut word = [0; 8];
            again.0.read(len - 8, &mut word).unwrap();
            assert_eq!(word, [3; 8]);
            assert!(again.0.write(0, &word).is_err(), "read-only");
            drop((bytes, whole, again));
            let gone = Attachment::new(id, false).unwrap_err().errno();
            assert!(matches!(gone, Some(Errno::INVAL | Errno::IDRM)));
        }

        #[test]
        fn a_read_only_attachment_refuses_stores_instead_of_dying() {
            let (id, bytes) = create(4096, false).unwrap();
            let view = attach(id, true).unwrap();
            bytes.write(8, &[1; 8]).unwrap();
            let mut word = [0; 8];
            view.read(8, &mut word).unwrap();
            assert_eq!(word, [1; 8]);
            let refused = Error::ReadOnly { offset: 8, len: 8 };
            assert_eq!(view.write(8, &[2; 8]), Err(refused));
            assert_eq!(view.fill(8, 8, 2), Err(refused));
            assert_eq!(view.copy(8, &bytes, 0, 8), Err(refused));
            let steps = |first| crate::Steps { first, stride: -4 };
            let blocks = view.copy_blocks(steps(12), &bytes, steps(12), 2, 4);
            assert_eq!(blocks, Err(refused));
            bytes
                .copy_blocks(steps(12), &view, steps(12), 2, 4)
                .unwrap();
            assert_eq!(view.atomic_u64(8).map(|_| ()), Err(refused));
            assert_eq!(
                view.slice(4, 16).unwrap().write(4, &[2; 8]),
                Err(Error::ReadOnly { offset: 4, len: 8 })
            );
            assert!(matches!(
                view.write(4096, &[2; 8]),
                Err(Error::OutOfRange { .. })
            ));
            // SAFETY: the slice is empty.
            assert!(unsafe { view.as_mut_slice() }.is_empty());
            bytes.copy(16, &view, 8, 8).unwrap();
        }

        #[test]
        fn page_size_of_small_and_huge_segments() {
            let (_, bytes) = create(4096, false).unwrap();
            assert_eq!(
                kernel_page_size(bytes.addr()).unwrap(),
                rustix::param::page_size()
            );
            assert_eq!(
                kernel_page_size(bytes.addr() + 4095).unwrap(),
                rustix::param::page_size()
            );
            assert_eq!(
                kernel_page_size(1).unwrap_err(),
                Error::Unmapped { addr: 1 }
            );
            match create(2 << 20, true) {
                Ok((_, bytes)) => {
                    assert_eq!(kernel_page_size(bytes.addr()).unwrap(), HUGE_PAGE_BYTES);
                }
                // No huge pages here, or not for this user: the answer callers fall back on.
                Err(error) => assert!(
                    matches!(
                        error.errno(),
                        Some(Errno::NOMEM | Errno::PERM | Errno::INVAL | Errno::NOSYS)
                    ),
                    "{error}"
                ),
            }
        }

        #[test]
        fn refusals() {
            assert_eq!(
                create(0, false).unwrap_err(),
                Error::Empty { what: "a segment" }
            );
            assert_eq!(attach(-1, false).unwrap_err().errno(), Some(Errno::INVAL));
            assert_eq!(stat(-1).unwrap_err().errno(), Some(Errno::INVAL));
            assert_eq!(remove(-1).unwrap_err().errno(), Some(Errno::INVAL));
            assert_eq!(
                find(0x5e_77_1a_55, 4096, 0).unwrap_err().errno(),
                Some(Errno::NOENT)
            );
        }
    }
}
