//! What is mapped where in this process: one mapping at a time by the query of /proc/self/maps (6.11 and later), else by
//! reading that file up to it.
//!
//! Either way allocates nothing and writes to the stack alone, so it may be asked while other threads are frozen, and in
//! a forked child whose memory is not its own yet.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, Updater};

use crate::error::{Error, Result};
use crate::map::MemFile;

/// One mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vma {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Readable and writable, not executable.
    pub(super) plain: bool,
    /// Readable, not executable.
    pub(super) data: bool,
    pub(super) writable: bool,
    pub(super) shared: bool,
    /// Offset of `start` in the file, and the file; zeros without one.
    pub(super) offset: u64,
    pub(super) file: FileId,
    /// Named `[heap]` or `[stack]` by the kernel.
    pub(super) name: Name,
}

/// Device and inode: which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FileId {
    pub(super) dev: (u32, u32),
    pub(super) inode: u64,
}

impl FileId {
    pub(super) fn of(file: &MemFile) -> Result<FileId> {
        let stat = rustix::fs::fstat(file).map_err(Error::system("fstat"))?;
        Ok(FileId {
            dev: (
                rustix::fs::major(stat.st_dev),
                rustix::fs::minor(stat.st_dev),
            ),
            inode: stat.st_ino,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Grown by brk.
    Heap,
    /// The first thread's.
    Stack,
    Other,
}

impl Vma {
    pub(super) fn is_anonymous(&self) -> bool {
        self.file.inode == 0
    }

    /// Does it map `file` at the offset that equals each address?
    pub(super) fn is_backing(&self, file: FileId) -> bool {
        self.is_at(file, 0)
    }

    /// Does it map `file` at the offset that is `shift` more than each address (modulo 2^64)?
    pub(super) fn is_at(&self, file: FileId, shift: u64) -> bool {
        let offset = (self.start as u64).wrapping_add(shift);
        self.shared && self.file == file && self.offset == offset
    }
}

/// The mappings of this process, as they are when asked.
pub(super) struct Maps {
    fd: OwnedFd,
    /// The kernel answers questions about single mappings.
    asks: bool,
}

const FILE: &str = "/proc/self/maps";

/// `struct procmap_query` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    addr: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_addr: u64,
    build_id_addr: u64,
}

const QUERY: ioctl::Opcode = ioctl::opcode::read_write::<Query>(b'f', 17);
const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const EXECUTABLE: u64 = 4;
const SHARED: u64 = 8;
const COVERING_OR_NEXT: u64 = 16;

/// Room for a line of the file: a path has 4,096 bytes at most, each of which may be written as four.
const LINE_BYTES: usize = 20 << 10;

/// Longest name of an anonymous mapping: `[anon:` and 79 bytes and `]`.
const NAME_BYTES: usize = 128;

impl Maps {
    pub(super) fn open() -> Result<Maps> {
        let fd = rustix::fs::open(
            c"/proc/self/maps",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Error::system("open(/proc/self/maps)"))?;
        let asks = ask(&fd, 0, None).is_ok();
        #[cfg(test)]
        let asks = asks && !tests::SCAN.load(std::sync::atomic::Ordering::SeqCst);
        Ok(Maps { fd, asks })
    }

    /// The mapping that contains `addr`, or the next one above it.
    pub(super) fn from(&self, addr: usize) -> Result<Option<Vma>> {
        if self.asks {
            query(&self.fd, addr)
        } else {
            scan(&self.fd, addr)
        }
    }

    /// The parts of `[start, end)` that are mapped, cut to it, in order.
    pub(super) fn within(
        &self,
        start: usize,
        end: usize,
    ) -> impl Iterator<Item = Result<Vma>> + '_ {
        let mut at = start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            match self.from(at) {
                Ok(Some(vma)) if vma.start < end => {
                    let cut = vma.cut(start, end);
                    at = vma.end;
                    Some(Ok(cut))
                }
                Ok(_) => None,
                Err(error) => {
                    at = end;
                    Some(Err(error))
                }
            }
        })
    }
}

impl Maps {
    /// The mappings of all of `[start, end)`, cut to it; [`Error::Unmapped`] at the first gap.
    pub(super) fn throughout(
        &self,
        start: usize,
        end: usize,
    ) -> impl Iterator<Item = Result<Vma>> + '_ {
        let mut at = start;
        let mut mappings = self.within(start, end);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let gap = Error::Unmapped { addr: at };
            match mappings.next() {
                Some(Ok(vma)) if vma.start == at => {
                    at = vma.end;
                    Some(Ok(vma))
                }
                other => {
                    at = end;
                    Some(Err(other.and_then(Result::err).unwrap_or(gap)))
                }
            }
        })
    }
}

impl Vma {
    fn cut(mut self, start: usize, end: usize) -> Vma {
        if self.start < start {
            self.offset += (start - self.start) as u64;
            self.start = start;
        }
        self.end = self.end.min(end);
        self
    }
}

fn ask(
    fd: &OwnedFd,
    addr: usize,
    name: Option<&mut [u8; NAME_BYTES]>,
) -> std::result::Result<Query, Errno> {
    let mut query = Query {
        size: size_of::<Query>() as u64,
        flags: COVERING_OR_NEXT,
        addr: addr as u64,
        ..Query::default()
    };
    if let Some(name) = name {
        query.name_size = NAME_BYTES as u32;
        query.name_addr = name.as_mut_ptr().expose_provenance() as u64;
        // The kernel writes there behind the compiler's back.
        std::hint::black_box(name);
    }
    // SAFETY: the opcode is that of this structure, whose layout is the kernel's; the address in it is that of a
    // buffer of the size beside it, or the size is 0.
    unsafe { ioctl::ioctl(fd, Updater::<QUERY, Query>::new(&mut query)) }?;
    Ok(query)
}

fn query(fd: &OwnedFd, addr: usize) -> Result<Option<Vma>> {
    let failed = |errno| Error::system("ioctl(PROCMAP_QUERY)")(errno);
    let found = match ask(fd, addr, None) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    let vma = Vma {
        start: found.start as usize,
        end: found.end as usize,
        plain: is_plain(found.vma_flags),
        data: found.vma_flags & (READABLE | EXECUTABLE) == READABLE,
        writable: found.vma_flags & WRITABLE != 0,
        shared: found.vma_flags & SHARED != 0,
        offset: found.offset,
        file: FileId {
            dev: (found.dev_major, found.dev_minor),
            inode: found.inode,
        },
        name: Name::Other,
    };
    if !vma.is_anonymous() {
        return Ok(Some(vma)); // its name is a path, of any length
    }
    let mut name = [0; NAME_BYTES];
    let named = ask(fd, addr, Some(&mut name)).map_err(failed)?;
    let len = (named.name_size as usize).clamp(1, NAME_BYTES) - 1;
    Ok(Some(Vma {
        name: Name::of(&std::hint::black_box(name)[..len]),
        ..vma
    }))
}

/// The first line whose mapping ends above `addr`.
fn scan(fd: &OwnedFd, addr: usize) -> Result<Option<Vma>> {
    let malformed = Error::Format { file: FILE };
    let mut text = [0u8; LINE_BYTES];
    let (mut held, mut at) = (0, 0);
    loop {
        let read = rustix::io::pread(fd, &mut text[held..], at)
            .map_err(Error::system("read(/proc/self/maps)"))?;
        if read == 0 {
            return Ok(None);
        }
        at += read as u64;
        held += read;
        let mut begin = 0;
        while let Some(len) = text[begin..held].iter().position(|&byte| byte == b'\n') {
            let vma = parse(&text[begin..begin + len]).ok_or(malformed)?;
            if vma.end > addr {
                return Ok(Some(vma));
            }
            begin += len + 1;
        }
        if begin == 0 && held == text.len() {
            return Err(malformed);
        }
        text.copy_within(begin..held, 0);
        held -= begin;
    }
}

fn is_plain(flags: u64) -> bool {
    flags & (READABLE | WRITABLE | EXECUTABLE) == READABLE | WRITABLE
}

impl Name {
    fn of(name: &[u8]) -> Name {
        match name {
            b"[heap]" => Name::Heap,
            b"[stack]" => Name::Stack,
            _ => Name::Other,
        }
    }
}

/// `start-end perms offset major:minor inode   name`; the name may contain anything.
fn parse(line: &[u8]) -> Option<Vma> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut field = || std::str::from_utf8(fields.next()?).ok();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = field()?.split_once('-')?;
    let perms = field()?.as_bytes();
    let offset = hex(field()?)?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let name = fields.next().unwrap_or_default().trim_ascii();
    let [r, w, x, s, ..] = *perms else {
        return None;
    };
    let (start, end) = (hex(start)? as usize, hex(end)? as usize);
    (start < end).then_some(Vma {
        start,
        end,
        plain: (r, w, x) == (b'r', b'w', b'-'),
        data: (r, x) == (b'r', b'-'),
        writable: w == b'w',
        shared: s == b's',
        offset,
        file: FileId {
            dev: (hex(major)? as u32, hex(minor)? as u32),
            inode,
        },
        name: Name::of(name),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes the kernel one that cannot be asked.
    pub(in super::super) static SCAN: std::sync::atomic::AtomicBool =
        std::sync::atomic::AtomicBool::new(false);

    #[test]
    fn lines_of_the_file_are_read() {
        let line = b"7f01000-7f03000 rw-p 0001c000 fe:01 1234                      /lib/a b.so";
        let vma = parse(line).unwrap();
        assert_eq!((vma.start, vma.end), (0x7f01000, 0x7f03000));
        assert!(vma.plain && !vma.shared && !vma.is_anonymous());
        assert_eq!(vma.offset, 0x1c000);
        assert_eq!((vma.file.dev, vma.file.inode), ((0xfe, 1), 1234));
        let heap = b"55d000-55f000 rw-p 00000000 00:00 0                                  [heap]";
        assert_eq!(parse(heap).unwrap().name, Name::Heap);
        assert!(
            parse(b"55d000-55f000 rw-p 00000000 00:00 0 ")
                .unwrap()
                .is_anonymous()
        );
        let shared = parse(b"55d000-55f000 rw-s 0055d000 00:01 77 /memfd:x (deleted)").unwrap();
        assert!(shared.is_backing(shared.file));
        assert!(
            !parse(b"55d000-55f000 r--p 00000000 00:00 0 ")
                .unwrap()
                .plain
        );
        for rubbish in [
            &b""[..],
            b"-",
            b"1-2",
            b"2-1 rw-p 0 0:0 0",
            b"1-2 rw 0 0:0 0",
            b"x-2 rw-p 0 0:0 0",
            b"1-2 rw-p 0 0 0",
            b"\xff-2 rw-p 0 0:0 0",
            b"1-2 rw-p 0 0:0 z",
            b"1-ffffffffffffffffff rw-p 0 0:0 0",
        ] {
            assert_eq!(parse(rubbish), None, "{}", rubbish.escape_ascii());
        }
    }

    #[cfg(not(miri))]
    mod process {
        use super::*;

        /// Both ways tell the same about a range that this test alone changes.
        #[test]
        fn asking_and_reading_agree() {
            let page = rustix::param::page_size();
            let file = crate::MemFile::create("windlass-test-maps", 4 * page as u64).unwrap();
            let mapped = file.map(page as u64, 2 * page).unwrap();
            let (start, end) = (mapped.addr(), mapped.addr() + 2 * page);
            let stat = rustix::fs::fstat(file.as_fd()).unwrap();
            let asked = Maps::open().unwrap();
            let scanned = Maps {
                asks: false,
                ..Maps::open().unwrap()
            };
            for maps in [asked, scanned] {
                let vma = maps.from(start + page / 2).unwrap().unwrap();
                assert_eq!((vma.start, vma.end, vma.offset), (start, end, page as u64));
                assert!(vma.shared && vma.plain);
                assert_eq!(vma.file.inode, stat.st_ino);
                let cut: Vec<Vma> = maps
                    .within(start + page, end)
                    .collect::<Result<_>>()
                    .unwrap();
                assert_eq!(cut.len(), 1);
                assert_eq!(
                    (cut[0].start, cut[0].offset),
                    (start + page, 2 * page as u64)
                );
                // Beyond everything there may be the kernel's page of vsyscall, nothing else.
                let beyond = maps.from(usize::MAX - 2 * page).unwrap();
                assert_eq!(beyond, None);
                let local = 0u8;
                let stack = maps.from((&raw const local).addr()).unwrap().unwrap();
                assert!(stack.plain && stack.is_anonymous());
            }
        }
    }
}
