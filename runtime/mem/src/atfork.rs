//! Handlers around forks, installed once: a child is another process, with one thread, and memory that its parent's other threads
//! left as it was.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Called by the system around a fork.
pub type Handler = unsafe extern "C" fn();

/// What is to be called around each fork of this process.
pub struct AtFork {
    installed: AtomicBool,
    before: Handler,
    in_parent: Handler,
    in_child: Handler,
}

impl AtFork {
    /// Not installed yet.
    ///
    /// # Safety
    /// From [`watch`](Self::watch) on each may be called around any fork: they stay loaded as long as the library that they are
    /// of, and `in_child` does only what a child of a process with threads may.
    pub const unsafe fn new(before: Handler, in_parent: Handler, in_child: Handler) -> Self {
        Self {
            installed: AtomicBool::new(false),
            before,
            in_parent,
            in_child,
        }
    }

    /// Installs them, the first time. Not by two threads at once: both would.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub fn watch(&self) -> Result<()> {
        if self.installed.load(Ordering::Acquire) {
            return Ok(());
        }
        let [before, in_parent, in_child] = [self.before, self.in_parent, self.in_child].map(Some);
        // SAFETY: `new` had the promise for these handlers; the system forgets them when the library is unloaded.
        let errno = unsafe { libc::pthread_atfork(before, in_parent, in_child) };
        if errno != 0 {
            return Err(Error::system("pthread_atfork")(Errno::from_raw_os_error(
                errno,
            )));
        }
        self.installed.store(true, Ordering::Release);
        Ok(())
    }
}
