//! A word in shared memory that tells whoever looks at it whether its maker's process still lives, however that ended.
//!
//! The kernel writes it: the word is what a robust mutex is, held by a thread that does nothing else, and when a thread ends, also
//! by a kill, the kernel marks what it held. So looking is one load, and nobody has to be asked.

use std::ffi::c_long;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::shared::SharedBytes;

/// Set by the kernel in the word of a thread that has ended (`linux/futex.h`).
const OWNER_DIED: u32 = 0x4000_0000;
/// A thread that waits, and has one page of stack in use.
const STACK_BYTES: usize = 64 * 1024;

/// `struct robust_list_head`, and behind it the one entry of its list. Addresses are numbers here: only the kernel follows them.
#[repr(C)]
#[derive(Debug, Default)]
struct Head {
    first: usize,
    offset: c_long,
    pending: usize,
    entry: usize,
}

/// Bytes of `struct robust_list_head`.
const HEAD_BYTES: usize = std::mem::offset_of!(Head, entry);

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct Pledge {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<Box<Head>>>>,
    /// The kernel looks at the word when the thread is gone: it stays mapped until then.
    _bytes: SharedBytes,
}

impl Pledge {
    /// Holds the 4 bytes at `at`, which are nobody else's.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Misaligned`]: the place; [`Error::System`]: no thread can be had.
    pub fn hold(bytes: &SharedBytes, at: usize) -> Result<Pledge> {
        bytes.atomic_u32(at)?;
        let word = bytes.clone();
        let (end, ended) = channel::<()>();
        let (begun, begins) = channel();
        let thread = std::thread::Builder::new()
            .name("pledge".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let head = hold(&word, at)?;
                let _ = begun.send(());
                let _ = ended.recv();
                Ok(head)
            });
        let failed = |errno| Error::System {
            call: "pthread_create",
            errno,
        };
        let thread =
            thread.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
        if begins.recv().is_err() {
            return Err(match thread.join() {
                Ok(Err(error)) => error,
                _ => failed(Errno::AGAIN),
            });
        }
        Ok(Pledge {
            end: Some(end),
            thread: Some(thread),
            _bytes: bytes.clone(),
        })
    }
}

/// The calling thread holds the word until it ends, when the kernel still reads what this gives.
fn hold(bytes: &SharedBytes, at: usize) -> Result<Box<Head>> {
    let word = bytes.atomic_u32(at)?;
    let mut head = Box::new(Head::default());
    let start = std::ptr::from_mut(&mut *head);
    let entry = start.addr() + HEAD_BYTES;
    *head = Head {
        first: entry,
        offset: word.as_ptr().addr().wrapping_sub(entry) as c_long,
        pending: 0,
        entry: start.addr(),
    };
    // SAFETY: the head, its entry and the word that the entry leads to stay where they are until the thread has ended: the owner
    // of the pledge keeps them. This thread holds no other robust mutex, whose list this would replace.
    let set = unsafe { libc::syscall(libc::SYS_set_robust_list, start, HEAD_BYTES) };
    if set != 0 {
        return Err(Error::System {
            call: "set_robust_list",
            errno: Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS),
        });
    }
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    word.store(own.cast_unsigned(), Ordering::Release);
    Ok(head)
}

/// Whether whoever held the 4 bytes at `at` still does.
#[inline]
pub fn is_held(bytes: &SharedBytes, at: usize) -> bool {
    let mut word = [0; 4];
    let read = bytes.read(at, &mut word);
    let word = u32::from_ne_bytes(word);
    read.is_ok() && word != 0 && word & OWNER_DIED == 0
}

impl Drop for Pledge {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // It only waits for this. The head is freed when the thread is gone.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::MemFile;

    #[test]
    #[cfg_attr(miri, ignore = "no memory files there")]
    fn it_holds_until_it_is_dropped() {
        let file = MemFile::create("windlass-test", 4096).unwrap();
        let bytes = file.map(0, 4096).unwrap();
        assert!(!is_held(&bytes, 8), "nobody has it");
        let pledge = Pledge::hold(&bytes, 8).unwrap();
        let other = file.map(0, 4096).unwrap();
        assert!(is_held(&other, 8));
        drop(pledge);
        assert!(!is_held(&other, 8));
        let again = Pledge::hold(&bytes, 8).unwrap();
        assert!(is_held(&other, 8));
        drop(again);
        assert!(Pledge::hold(&bytes, 4095).is_err());
        assert!(!is_held(&other, 4095));
    }
}
