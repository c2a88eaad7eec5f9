//! VE memory that the program allocates, and copies of memory whose address the program names.
//!
//! A block of 64 MiB or more is where malloc(3) of a Vector Engine has it: in whole pages of the VE, of 64 MiB, behind
//! the 16 bytes of malloc's own. So it is never aligned to a page, as VESHM and DMAATB want it (ve-memory 5.1): a program
//! that takes it for aligned fails here too, not on the card only. A smaller one is malloc's of the host.
//!
//! A transfer by socket must survive an address that is not mapped, as cross-memory copy does: bytes pass through a
//! pipe, whose system calls answer EFAULT.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, pipe_with};
use windlass_ve::Profile;

use crate::card;
use crate::protocol::CHUNK;

/// A page of a Vector Engine, in bytes (ve-memory 1).
const PAGE: usize = 64 << 20;
/// What malloc keeps before a block, in bytes.
const HEAD: usize = 16;
/// Alignment of smaller blocks, in bytes.
const ALIGN: usize = 64;

/// A block that was given out.
#[derive(Debug, Clone, Copy)]
enum Block {
    /// By posix_memalign.
    Small(usize),
    /// By mmap, behind [`HEAD`].
    Large(usize),
}

impl Block {
    /// What it takes of the card, but for malloc's own.
    fn bytes(self) -> usize {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes) => bytes.next_multiple_of(PAGE),
        }
    }
}

/// All blocks.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    blocks: Mutex<HashMap<u64, Block>>,
    /// Memory of the card, in bytes, once its node runs: what one process may have.
    card: OnceLock<usize>,
}

impl Memory {
    /// Zero bytes have an address of their own too, as with malloc.
    ///
    /// # Errors
    /// An errno: ENOMEM.
    pub(crate) fn alloc(&self, bytes: u64) -> Result<u64, i32> {
        let bytes = usize::try_from(bytes).map_err(|_| libc::ENOMEM)?;
        let most = self.most()?;
        let mut blocks = self.blocks.lock();
        let taken: usize = blocks.values().map(|block| block.bytes()).sum();
        if bytes > most.saturating_sub(taken) {
            return Err(libc::ENOMEM);
        }
        let (address, block) = if bytes < PAGE {
            (small(bytes)?, Block::Small(bytes))
        } else {
            (large(bytes)?, Block::Large(bytes))
        };
        // An older entry is a block that the user's own code has freed.
        blocks.insert(address, block);
        Ok(address)
    }

    /// What its node says of the card; before there is one, what it will say.
    fn most(&self) -> Result<usize, i32> {
        let bytes = |profile: Profile| usize::try_from(profile.memory_bytes).unwrap_or(usize::MAX);
        if let Some(most) = self.card.get() {
            return Ok(*most);
        }
        match card::node() {
            Some(node) => {
                let profile = card::profile_of(&node).ok_or(libc::ENOMEM)?;
                Ok(*self.card.get_or_init(|| bytes(profile)))
            }
            None => card::profile_to_be().map(bytes).map_err(|_| libc::ENOMEM),
        }
    }

    /// # Errors
    /// EINVAL for what was not allocated here, or was freed.
    pub(crate) fn free(&self, address: u64) -> Result<(), i32> {
        let block = self.blocks.lock().remove(&address).ok_or(libc::EINVAL)?;
        let start = address as usize;
        // SAFETY: the block was allocated so and is freed once, as the table says; that nobody uses it any more is the
        // program's promise, as for free(3).
        let outcome = unsafe {
            match block {
                Block::Small(_) => {
                    libc::free(start as *mut c_void);
                    0
                }
                Block::Large(bytes) => libc::munmap((start - HEAD) as *mut c_void, mapped(bytes)),
            }
        };
        if outcome == 0 {
            Ok(())
        } else {
            Err(libc::EINVAL)
        }
    }
}

fn small(bytes: usize) -> Result<u64, i32> {
    let mut start = std::ptr::null_mut();
    // SAFETY: `start` is writable; the alignment is a power of two and a multiple of a pointer's size.
    match unsafe { libc::posix_memalign(&mut start, ALIGN, bytes.max(1)) } {
        0 => Ok(start as u64),
        errno => Err(errno),
    }
}

/// How long the mapping of a large block is: whole pages.
fn mapped(bytes: usize) -> usize {
    (HEAD + bytes).next_multiple_of(PAGE)
}

/// `bytes`, [`HEAD`] behind a multiple of a page.
fn large(bytes: usize) -> Result<u64, i32> {
    let bytes = mapped(bytes);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours changes.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes + PAGE, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(libc::ENOMEM);
    }
    let (start, end) = (start as usize, start as usize + bytes + PAGE);
    let aligned = start.next_multiple_of(PAGE);
    for (from, to) in [(start, aligned), (aligned + bytes, end)] {
        if from < to {
            // SAFETY: a part of the mapping just made that nobody has heard of.
            unsafe { libc::munmap(from as *mut c_void, to - from) };
        }
    }
    Ok((aligned + HEAD) as u64)
}

/// Copies to and from addresses that may be wrong; one per context.
#[derive(Debug, Default)]
pub(crate) struct Window(Option<(OwnedFd, OwnedFd)>);

impl Window {
    /// `bytes` bytes at `address`, at most [`CHUNK`].
    ///
    /// # Errors
    /// An errno: EFAULT where nothing can be read.
    pub(crate) fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, i32> {
        let mut data = vec![0; bytes.min(CHUNK)];
        let from = address as usize as *const u8;
        self.pass(from, data.as_mut_ptr(), data.len())?;
        Ok(data)
    }

    /// Stores `data` at `address`; at most [`CHUNK`].
    ///
    /// # Errors
    /// An errno: EFAULT where nothing can be written; a part may have been.
    pub(crate) fn write(&mut self, address: u64, data: &[u8]) -> Result<(), i32> {
        self.pass(data.as_ptr(), address as usize as *mut u8, data.len())
    }

    /// One of the two ends is memory of this function's callers, the other whatever the program named: both are given
    /// to the kernel alone, which checks them.
    fn pass(&mut self, from: *const u8, to: *mut u8, bytes: usize) -> Result<(), i32> {
        if bytes == 0 {
            return Ok(());
        }
        let outcome = self.through_pipe(from, to, bytes);
        if outcome.is_err() {
            // Bytes may be left in it.
            self.0 = None;
        }
        outcome
    }

    fn through_pipe(&mut self, from: *const u8, to: *mut u8, bytes: usize) -> Result<(), i32> {
        let (reader, writer) = match &self.0 {
            Some(pipe) => pipe,
            None => {
                // Never waits: a pipe that holds less than a chunk is noticed.
                let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
                let pipe = pipe_with(flags).map_err(|errno| errno.raw_os_error())?;
                self.0.insert(pipe)
            }
        };
        let mut done = 0;
        while done < bytes {
            let left = bytes - done;
            // SAFETY: write(2) reads memory of this process and answers EFAULT where there is none to read. Memory that
            // another thread writes meanwhile is copied by the kernel, opaque to the compiler.
            let put =
                unsafe { libc::write(writer.as_raw_fd(), from.wrapping_add(done).cast(), left) };
            let put = counted(put)?;
            let mut taken = 0;
            while taken < put {
                let at = to.wrapping_add(done + taken).cast();
                // SAFETY: read(2) stores where the program wants it, or answers EFAULT. What it may overwrite is the
                // program's promise, as for a store by its own code.
                let got = unsafe { libc::read(reader.as_raw_fd(), at, put - taken) };
                taken += counted(got)?;
            }
            done += put;
        }
        Ok(())
    }
}

fn counted(outcome: isize) -> Result<usize, i32> {
    match usize::try_from(outcome) {
        Ok(0) => Err(libc::EFAULT),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EFAULT)),
    }
}

/// memmove(3).
///
/// # Safety
/// Both ranges are memory of this process that the program may use so; a wrong address is a signal, as on a Vector
/// Engine.
pub(crate) unsafe fn copy(to: u64, from: u64, bytes: u64) {
    let (to, from) = (to as usize as *mut c_void, from as usize as *const c_void);
    // SAFETY: the caller's promise.
    unsafe { libc::memmove(to, from, bytes as usize) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_behind_the_head_of_a_page() {
        let memory = Memory::default();
        for (bytes, align, rest) in [
            (0, 64, 0),
            (1, 64, 0),
            (PAGE - 1, 64, 0),
            (PAGE, PAGE, HEAD),
            (PAGE + 1, PAGE, HEAD),
            (2 * PAGE - HEAD, PAGE, HEAD),
        ] {
            let address = memory.alloc(bytes as u64).unwrap();
            assert_eq!(address as usize % align, rest, "{bytes}");
            if bytes > 0 {
                let mut window = Window::default();
                window.write(address + bytes as u64 - 1, b"x").unwrap();
                assert_eq!(window.read(address + bytes as u64 - 1, 1).unwrap(), b"x");
            }
            memory.free(address).unwrap();
            assert_eq!(memory.free(address), Err(libc::EINVAL));
        }
    }

    #[test]
    fn no_more_than_a_card_has() {
        for profile in [Profile::VE1, Profile::VE3] {
            let bytes = profile.memory_bytes;
            let memory = Memory {
                card: OnceLock::from(bytes as usize),
                ..Memory::default()
            };
            assert_eq!(memory.alloc(u64::MAX), Err(libc::ENOMEM));
            assert_eq!(memory.alloc(bytes + 1), Err(libc::ENOMEM));
            let most = memory.alloc(bytes).unwrap();
            assert_eq!(memory.alloc(1), Err(libc::ENOMEM));
            memory.free(most).unwrap();
            let again = memory.alloc(1).unwrap();
            memory.free(again).unwrap();
        }
    }

    #[test]
    fn wrong_addresses_are_faults_and_the_next_copy_works() {
        let memory = Memory::default();
        let page = memory.alloc(PAGE as u64).unwrap();
        let mut window = Window::default();
        assert_eq!(window.read(8, 8), Err(libc::EFAULT));
        assert_eq!(window.write(8, b"data"), Err(libc::EFAULT));
        assert_eq!(window.read(u64::MAX - 4, 8), Err(libc::EFAULT));
        let data: Vec<u8> = (0..CHUNK).map(|at| (at % 251) as u8).collect();
        window.write(page + 3, &data).unwrap();
        assert_eq!(window.read(page + 3, CHUNK).unwrap(), data);
        window.write(page, &[]).unwrap();
        memory.free(page).unwrap();
    }
}
