//! Signal handlers stay the program's own: libraries that libfabric brings along (libinfinipath) install some when they are loaded,
//! by which SIGTERM ends a process with status 1, also one that ignores it.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

/// Signals with a disposition.
const LAST: c_int = 31;

/// What every signal does; put back when dropped.
pub(crate) struct Signals(Vec<(c_int, libc::sigaction)>);

impl Signals {
    /// Those of now.
    pub(crate) fn keep() -> Signals {
        let action = |signal| {
            let mut action = MaybeUninit::<libc::sigaction>::uninit();
            // SAFETY: a place for the answer; nothing is changed.
            let done = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
            // SAFETY: the call has filled it.
            (done == 0).then(|| (signal, unsafe { action.assume_init() }))
        };
        let signals = (1..=LAST).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal));
        Signals(signals.filter_map(action).collect())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, action) in &self.0 {
            // SAFETY: what the kernel gave for this signal; its handler was the program's a moment ago.
            unsafe { libc::sigaction(*signal, action, ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_appears_meanwhile_goes_again() {
        let now = || {
            Signals::keep()
                .0
                .iter()
                .map(|(_, action)| action.sa_sigaction)
                .collect::<Vec<_>>()
        };
        let before = now();
        let kept = Signals::keep();
        // SAFETY: to ignore a signal runs no code.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        assert_ne!(now(), before);
        drop(kept);
        assert_eq!(now(), before);
    }
}
