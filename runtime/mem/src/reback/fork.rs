//! A forked child must not share re-backed pages with its parent: it gets private copies.
//!
//! Before the fork, pages that no lease is over come back: they are the allocator's, or whose ever. Of the others, each
//! piece of the file that is still mapped is mapped private in the child at the same place, and pages that hold anything
//! but leased bytes are copied at once; the inside of leased ranges shows what peers write until the child writes there
//! itself. The parent waits in its own handler until that is done, so that its only application thread changes nothing
//! before; other threads may (measured-designs 1: then only a child that calls exec is safe). A pipe tells: its end of
//! file also when the child has died, or when there is none.
//!
//! Until its pages are private the child must write to none of them: its handler finds everything prepared, and
//! allocates nothing. What the system library and earlier handlers write in a child before, to data on the first and
//! last page of a live lease, the parent sees; such data of the allocator is kept clear of
//! ([`Error::Unmovable`]), locks of open C streams cannot be told.
//! The handlers hold the lock of the registry across the fork, so no pages are being moved meanwhile.
//!
//! Pages in files of others ([`place`](super::place)) are all copied in the child, into memory of its own.

use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::freeze::Still;
use super::maps::Maps;
use super::pages::{self, Aside, pointer};
use super::place::Placed;
use super::{BACKING, Backing, Registry, registry, without};
use crate::atfork::AtFork;
use crate::error::{Error, Result};

/// How long a parent waits for its child: copying takes some 0.5 ms per MiB.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the first handler leaves for the second.
struct Held {
    registry: MutexGuard<'static, Registry>,
    /// Pieces of the file, and what of each is to be copied.
    pieces: Vec<(usize, usize)>,
    copies: Vec<(usize, usize)>,
    placed: Vec<(usize, Placed)>,
    /// Nothing to wait for without pieces, nor without a pipe.
    pipe: Option<(OwnedFd, OwnedFd)>,
}

struct Slot(UnsafeCell<Option<Held>>);

// SAFETY: the content is touched by the fork handlers alone, which run one after the other in one thread that holds
// the registry's lock from the first to the last; in the child there is no other thread.
unsafe impl Sync for Slot {}

static HELD: Slot = Slot(UnsafeCell::new(None));

// SAFETY: functions of this library; the child's, as the head of this module says.
static FORKS: AtFork = unsafe { AtFork::new(before, in_parent, in_child) };

/// Installs the handlers, once per process.
pub(super) fn prepare_for() -> Result<()> {
    FORKS.watch()
}

unsafe extern "C" fn before() {
    let mut registry = registry();
    // What cannot come back now is copied in the child.
    let _ = registry.give_back(0, usize::MAX, Still::Everyone);
    let page = rustix::param::page_size();
    let leased = registry.uses.iter().filter(|lease| lease.moved);
    let inside: Vec<(usize, usize)> = leased
        .map(|lease| (lease.start.next_multiple_of(page), lease.end / page * page))
        .collect();
    let pieces: Vec<(usize, usize)> = registry
        .pieces
        .iter()
        .map(|(&start, piece)| (start, piece.end))
        .collect();
    let copies = pieces
        .iter()
        .flat_map(|&piece| without(piece, inside.iter().copied()));
    let placed: Vec<(usize, Placed)> = registry
        .placed
        .iter()
        .map(|(&start, placed)| (start, placed.clone()))
        .collect();
    let held = Held {
        copies: copies.collect(),
        pipe: match pieces.is_empty() && placed.is_empty() {
            true => None,
            false => pipe_with(PipeFlags::CLOEXEC).ok(),
        },
        pieces,
        placed,
        registry,
    };
    // SAFETY: this thread holds the lock (`Slot`).
    unsafe { *HELD.0.get() = Some(held) };
}

unsafe extern "C" fn in_parent() {
    // Nothing is written before the child has its copies: what it reads meanwhile may lie on shared pages.
    // SAFETY: this thread has held the lock since `before` (`Slot`); the descriptor is closed once, here, because its
    // owner gives it up below.
    unsafe {
        if let Some(Held {
            pipe: Some((read, write)),
            ..
        }) = &*HELD.0.get()
        {
            libc::close(write.as_raw_fd());
            wait(read);
        }
        if let Some(Held {
            pipe: Some((_, write)),
            registry,
            ..
        }) = (*HELD.0.get()).take()
        {
            let _ = write.into_raw_fd();
            drop(registry);
        }
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
    if let Some(held) = unsafe { &*HELD.0.get() } {
        let leased = match (held.pieces.is_empty(), BACKING.get()) {
            (false, Some(backing)) => make_private(held, backing),
            _ => Ok(()),
        };
        let placed = held
            .placed
            .iter()
            .try_for_each(|(start, placed)| take_copy(*start, placed));
        if leased.and(placed).is_err() {
            // Better none than one whose writes its parent sees.
            std::process::abort();
        }
    }
    // SAFETY: as above; from here on the child writes to pages of its own.
    if let Some(mut held) = unsafe { (*HELD.0.get()).take() } {
        // No peer knows them.
        held.registry.pieces.clear();
        held.registry.uses.clear();
        held.registry.placed.clear();
        held.registry.maps = None;
        held.registry.inherited = true;
    }
}

/// Allocates nothing.
fn make_private(held: &Held, backing: &Backing) -> Result<()> {
    let page = rustix::param::page_size();
    let maps = Maps::open()?;
    for &(start, end) in &held.pieces {
        for vma in maps.within(start, end) {
            let vma = vma?;
            // Somebody else may own part of the range by now.
            if !vma.is_backing(backing.id) {
                continue;
            }
            let (at, len) = (pointer(vma.start), vma.end - vma.start);
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: the same pages of the same file are mapped there, so no content changes; the child has one thread.
            unsafe { rustix::mm::mmap(at, len, access, flags, &backing.file, vma.offset) }
                .map_err(Error::system("mmap(MAP_PRIVATE)"))?;
            for &(from, to) in &held.copies {
                let (from, to) = (from.max(vma.start), to.min(vma.end));
                if from < to {
                    copy_now(from, to, page);
                }
            }
        }
    }
    Ok(())
}

/// Puts a copy of the child's own in the place of pages in a file of somebody else. Allocates nothing.
fn take_copy(start: usize, placed: &Placed) -> Result<()> {
    let maps = Maps::open()?;
    for vma in maps.within(start, placed.end) {
        let vma = vma?;
        if !vma.is_at(placed.id, placed.shift) {
            continue;
        }
        let len = vma.end - vma.start;
        let mut aside = Aside::map(len)?;
        // SAFETY: just asked: the pages map their place. The child has one thread, and its parent waits; of what other
        // processes write to the file meanwhile, the copy has the old or the new.
        // They had that protection before.
        unsafe {
            pages::swap_in(placed.place(), &mut aside, vma.start, vma.start, vma.end)?;
            pages::protect(vma.start, len, vma.writable)
        }?;
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
