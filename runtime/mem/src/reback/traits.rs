//! What a mapping is besides its content: who made it, and what it was advised. A new mapping in its place has none of
//! that, so it is found out first and given again, or the memory is refused.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ptr::NonNull;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::mm::{Advice, MlockFlags};

use super::maps::{Maps, Name, Vma};
use super::pages::pointer;
use crate::error::{Error, Result};
use crate::sysv::parse_range;

/// glibc's heaps of threads begin at multiples of this, with data of its own that it writes to in a forked child before
/// that has private copies.
pub(super) const THREAD_HEAP_BYTES: usize = 64 << 20;

/// Advice and lock of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traits {
    locked: bool,
    /// Locked as pages are touched.
    on_fault: bool,
    undumped: bool,
    sequential: bool,
    random: bool,
    huge: bool,
    small: bool,
}

impl Traits {
    /// Finds out those of the private mapping `vma`. `advised`: people may have advised it, so the long way is gone;
    /// memory of an allocator, or static data, is at most locked.
    ///
    /// # Errors
    /// [`Error::Unmovable`] for what cannot be given again.
    pub(super) fn of(vma: &Vma, advised: bool) -> Result<Traits> {
        if has_policy(vma.start) {
            return Err(unmovable("it has a memory policy"));
        }
        if advised {
            return Traits::read(vma);
        }
        // 0.1 ms and more for the file that tells (measured: 10 ms per GiB touched); this call refuses locked memory.
        let page = rustix::param::page_size();
        // SAFETY: the advice says that a page will not be used soon, and changes no content.
        let cold = unsafe { rustix::mm::madvise(pointer(vma.start), page, Advice::LinuxCold) };
        match cold {
            Err(Errno::INVAL) => Traits::read(vma),
            _ => Ok(Traits::default()),
        }
    }

    /// From /proc/self/smaps, no further than needed.
    fn read(vma: &Vma) -> Result<Traits> {
        const FILE: &str = "/proc/self/smaps";
        let failed = |e: std::io::Error| Error::io("read(/proc/self/smaps)", &e);
        let mut inside = false;
        for line in BufReader::new(File::open(FILE).map_err(failed)?).lines() {
            let line = line.map_err(failed)?;
            if let Some((from, to)) = parse_range(&line) {
                inside = from < vma.end && vma.start < to;
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return Traits::parse(flags);
            }
        }
        Err(Error::Unmapped { addr: vma.start })
    }

    fn parse(flags: &str) -> Result<Traits> {
        let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
        let refused = [
            // Drivers of devices that know addresses ask for it.
            (
                "dc",
                "it is kept from children, as memory known to a device is",
            ),
            ("wf", "it is wiped in children"),
            ("um", "its faults are handled by the program"),
            ("uw", "its faults are handled by the program"),
            ("ui", "its faults are handled by the program"),
            ("ht", "it is on huge pages"),
            ("io", "it is memory of a device"),
            ("pf", "it is memory of a device"),
            ("mm", "it is memory of a device"),
        ];
        if let Some((_, rule)) = refused.into_iter().find(|(flag, _)| has(flag)) {
            return Err(unmovable(rule));
        }
        Ok(Traits {
            locked: has("lo"),
            on_fault: has("lf"),
            undumped: has("dd"),
            sequential: has("sr"),
            random: has("rr"),
            huge: has("hg"),
            small: has("nh"),
        })
    }

    /// Was it advised to stay on small pages (MADV_NOHUGEPAGE)?
    pub(super) fn is_small(self) -> bool {
        self.small
    }

    /// Gives them to what is mapped now.
    ///
    /// # Errors
    /// The lock is refused. Advice that is not taken changes nothing that matters.
    pub(super) fn apply(self, start: usize, len: usize) -> Result<()> {
        let all = [
            (self.undumped, Advice::LinuxDontDump),
            (self.sequential, Advice::Sequential),
            (self.random, Advice::Random),
            (self.huge, Advice::LinuxHugepage),
            (self.small, Advice::LinuxNoHugepage),
        ];
        for (_, advice) in all.into_iter().filter(|(set, _)| *set) {
            // SAFETY: these advices change no content, whatever is mapped there.
            let _ = unsafe { rustix::mm::madvise(pointer(start), len, advice) };
        }
        // SAFETY: locking changes no content, whatever is mapped there.
        let locked = unsafe {
            match (self.locked, self.on_fault) {
                (false, _) => Ok(()),
                (true, false) => rustix::mm::mlock(pointer(start), len),
                (true, true) => rustix::mm::mlock_with(pointer(start), len, MlockFlags::ONFAULT),
            }
        };
        locked.map_err(Error::system("mlock"))
    }
}

fn unmovable(rule: &'static str) -> Error {
    Error::Unmovable { rule }
}

/// Was the mapping at `addr` given a memory policy of its own (mbind)?
fn has_policy(addr: usize) -> bool {
    /// `MPOL_F_ADDR`: of that address, not of the thread.
    const OF_ADDRESS: usize = 2;
    let mut mode: libc::c_int = 0;
    let none = std::ptr::null_mut::<libc::c_ulong>();
    // SAFETY: the call stores the policy's mode in a local, and nothing through the null pointer.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            none,
            0usize,
            addr,
            OF_ADDRESS,
        )
    };
    asked == 0 && mode != 0
}

/// Is `[start, end)` in the writable data of a loaded program or library? Nobody frees, moves or discards that.
pub(super) fn is_static(start: usize, end: usize) -> bool {
    struct Asked {
        start: usize,
        end: usize,
        found: bool,
    }
    unsafe extern "C" fn look(
        object: *mut libc::dl_phdr_info,
        _: usize,
        asked: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid description, whose headers live as long as the call, and our own pointer.
        let (object, asked) = unsafe { (&*object, &mut *asked.cast::<Asked>()) };
        // SAFETY: as above; `dlpi_phnum` is their number.
        let headers =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
        let page = rustix::param::page_size();
        asked.found |= headers.iter().any(|header| {
            let at = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            let end = at.wrapping_add(header.p_memsz as usize);
            header.p_type == libc::PT_LOAD
                && header.p_flags & libc::PF_W != 0
                && at / page * page <= asked.start
                && asked.end <= end.next_multiple_of(page)
        });
        asked.found.into()
    }
    let mut asked = Asked {
        start,
        end,
        found: false,
    };
    // SAFETY: `look` has the type the loader calls, and `asked` lives as long as the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut asked).cast()) };
    asked.found
}

/// Is it memory of the heaps of glibc's allocator? That never trusts discarded pages to be zero, and moves by mremap
/// only blocks that it mapped apart. `brk`: it lies in the heap that the kernel calls so; else `block` may tell.
pub(super) fn is_in_heap(brk: bool, block: Option<NonNull<u8>>) -> bool {
    (brk || block.is_some()) && heap_is_glibcs() && (brk || block.is_some_and(is_of_a_heap))
}

/// May glibc's own data lie in front of the bytes on the page `start`? A thread's heap begins with it, at such an
/// address; a block that is mapped apart does not.
pub(super) fn may_head_a_heap(start: usize, block: Option<NonNull<u8>>) -> bool {
    let apart = |block| heap_is_glibcs() && !is_of_a_heap(block);
    start.is_multiple_of(THREAD_HEAP_BYTES) && !block.is_some_and(apart)
}

/// Of other allocators nobody knows, of Rust's global one neither: so a block too large for any heap is asked for, and
/// glibc must say that it made it.
pub(super) fn heap_is_glibcs() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // Odd sizes, so that nobody else's block of that moment is taken for it; some tries, because others may free one.
    *ANSWER.get_or_init(|| {
        [(40 << 20) + 12_345, (45 << 20) + 54_321]
            .into_iter()
            .all(|size| (0..3).any(|_| made_by_glibc(size)))
    })
}

/// A block that glibc mapped apart has two words of its own in front, one of a heap has one; their sizes are multiples
/// of 16.
fn is_of_a_heap(block: NonNull<u8>) -> bool {
    // SAFETY: a live block of glibc's allocator, which Rust's is (`heap_is_glibcs`), by its own address.
    let usable = unsafe { libc::malloc_usable_size(block.as_ptr().cast()) };
    size_of::<usize>() == 8 && usable % 16 == 8
}

#[cfg(target_env = "gnu")]
fn made_by_glibc(size: usize) -> bool {
    use std::alloc::{Layout, alloc, dealloc};
    // SAFETY: a lookup by name changes nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    let Ok(layout) = Layout::from_size_align(size, 16) else {
        return false;
    };
    if found.is_null() {
        return false;
    }
    // SAFETY: glibc's function of that name (2.33 and later) has this type.
    let info: unsafe extern "C" fn() -> libc::mallinfo2 = unsafe { std::mem::transmute(found) };
    // SAFETY: the block is not read or written, and freed as it was allocated.
    let grown = unsafe {
        let before = info().hblkhd;
        let block = std::hint::black_box(alloc(layout));
        let after = info().hblkhd;
        if !block.is_null() {
            dealloc(block, layout);
        }
        after.wrapping_sub(before)
    };
    (size..size + 2 * rustix::param::page_size()).contains(&grown)
}

#[cfg(not(target_env = "gnu"))]
fn made_by_glibc(_: usize) -> bool {
    false
}

/// What a thread has at the address that names it, at least (glibc: 2,304 bytes): the kernel writes there too (rseq).
const BLOCK_BYTES: usize = 2304;

/// Does the calling thread run on `[start, end)`, or is its own block (errno and the like) there?
pub(super) fn is_own(maps: &Maps, start: usize, end: usize) -> Result<bool> {
    let local = 0u8;
    let here = (&raw const local).addr();
    // SAFETY: both calls answer addresses of this thread's own block.
    let (errno, block) = unsafe {
        (
            libc::__errno_location().addr(),
            libc::pthread_self() as usize,
        )
    };
    let overlaps = |from: usize, to: usize| from < end && start < to;
    if overlaps(errno.min(block), errno.max(block) + BLOCK_BYTES) {
        return Ok(true);
    }
    let Some(vma) = maps.from(here)? else {
        return Ok(true);
    };
    if vma.name == Name::Stack {
        return Ok(overlaps(vma.start, vma.end));
    }
    let (from, to) = match thread_stack() {
        Some((from, to)) if (from..to).contains(&here) => (from, to),
        // A stack that the program made itself.
        _ => (vma.start, vma.end),
    };
    Ok(overlaps(from, to))
}

/// Bounds of the stack that the system gave the calling thread.
fn thread_stack() -> Option<(usize, usize)> {
    let mut attr = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut addr = std::ptr::null_mut();
    let mut len = 0;
    // SAFETY: the first call initialises the attributes if it answers 0; only then they are read, and destroyed.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attr.as_mut_ptr()) != 0 {
            return None;
        }
        let got = libc::pthread_attr_getstack(attr.as_ptr(), &raw mut addr, &raw mut len);
        libc::pthread_attr_destroy(attr.as_mut_ptr());
        (got == 0).then(|| (addr.addr(), addr.addr() + len))
    }
}
