//! A forked child must not share re-backed pages with its parent: it gets private copies.
//!
//! In the child each piece of the file that is still mapped is mapped private at the same place, and pages that hold
//! anything but leased bytes are copied at once; the inside of leased ranges shows what peers write until the child
//! writes there itself. The parent waits in its own handler until that is done, so that its only application thread
//! changes nothing before; other threads may (measured-designs 1: then only a child that calls exec is safe). A pipe
//! tells: its end of file also when the child has died, or when there is none.
//! The handlers hold the lock of the registry across the fork, so no pages are being moved meanwhile.

use std::cell::UnsafeCell;
use std::os::fd::OwnedFd;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::maps::Maps;
use super::pages::pointer;
use super::{BACKING, Backing, Registry, registry, without};
use crate::error::{Error, Result};

/// How long a parent waits for its child: copying takes some 0.5 ms per MiB.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the first handler leaves for the second.
struct Held {
    registry: MutexGuard<'static, Registry>,
    /// Nothing to do in the child without pieces, nor to wait for without a pipe.
    pipe: Option<(OwnedFd, OwnedFd)>,
}

struct Slot(UnsafeCell<Option<Held>>);

// SAFETY: the content is touched by the fork handlers alone, which run one after the other in one thread that holds
// the registry's lock from the first to the last; in the child there is no other thread.
unsafe impl Sync for Slot {}

static HELD: Slot = Slot(UnsafeCell::new(None));

/// Installs the handlers, once per process.
pub(super) fn prepare_for() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: the handlers are functions of this library, which the system forgets when the library is unloaded.
    let errno = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    if errno != 0 {
        return Err(Error::system("pthread_atfork")(Errno::from_raw_os_error(
            errno,
        )));
    }
    DONE.store(true, Ordering::Release);
    Ok(())
}

unsafe extern "C" fn before() {
    let registry = registry();
    let pipe = match registry.pieces.is_empty() {
        true => None,
        false => pipe_with(PipeFlags::CLOEXEC).ok(),
    };
    // SAFETY: this thread holds the lock (`Slot`).
    unsafe { *HELD.0.get() = Some(Held { registry, pipe }) };
}

unsafe extern "C" fn in_parent() {
    // SAFETY: this thread has held the lock since `before` (`Slot`).
    let held = unsafe { (*HELD.0.get()).take() };
    if let Some(Held {
        registry,
        pipe: Some((read, write)),
    }) = held
    {
        drop(write);
        wait(&read);
        drop(registry);
    }
}

/// Until all other ends of the pipe are closed.
fn wait(read: &OwnedFd) {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs() as _,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(read, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Err(Errno::INTR) => {}
            _ => return,
        }
    }
}

unsafe extern "C" fn in_child() {
    // SAFETY: the child's only thread is the copy of the one that holds the lock since `before` (`Slot`).
    let held = unsafe { (*HELD.0.get()).take() };
    let (Some(mut held), Some(backing)) = (held, BACKING.get()) else {
        return;
    };
    if held.registry.pieces.is_empty() {
        return;
    }
    if make_private(&held.registry, backing).is_err() {
        // Better none than one whose writes its parent sees.
        std::process::abort();
    }
    // They are the child's own now, and no peer knows it.
    held.registry.pieces.clear();
    held.registry.uses.clear();
}

fn make_private(registry: &Registry, backing: &Backing) -> Result<()> {
    let page = rustix::param::page_size();
    let maps = Maps::open()?;
    for (&start, piece) in &registry.pieces {
        // Another program may own part of the range by now; and copies are never needed of what only peers write.
        let inside = registry.uses.iter().filter(|lease| lease.moved);
        let inside =
            inside.map(|lease| (lease.start.next_multiple_of(page), lease.end / page * page));
        let inside: Vec<(usize, usize)> = inside.collect();
        for vma in maps.within(start, piece.end) {
            let vma = vma?;
            if !vma.is_backing(backing.id) {
                continue;
            }
            let len = vma.end - vma.start;
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: the same pages of the same file are mapped there, so no content changes; the child has one thread.
            unsafe {
                rustix::mm::mmap(
                    pointer(vma.start),
                    len,
                    access,
                    flags,
                    &backing.file,
                    vma.offset,
                )
            }
            .map_err(Error::system("mmap(MAP_PRIVATE)"))?;
            for (from, to) in without((vma.start, vma.end), inside.iter().copied()) {
                copy_now(from, to, page);
            }
        }
    }
    Ok(())
}

/// Breaks the pages `[start, end)` of a private mapping off their file.
fn copy_now(start: usize, end: usize, page: usize) {
    let at = pointer(start);
    // SAFETY: the advice copies pages that are mapped there, and changes no content (5.14 and later).
    if unsafe { rustix::mm::madvise(at, end - start, Advice::LinuxPopulateWrite) }.is_ok() {
        return;
    }
    for addr in (start..end).step_by(page) {
        let byte = pointer(addr).cast::<u8>();
        // SAFETY: mapped readable and writable by the caller; the value stays, and the process has only this thread.
        unsafe { byte.write_volatile(byte.read_volatile()) };
    }
}
