//! Signals that a thread does not take, so that handlers of the program run on threads of the program.

use std::mem::MaybeUninit;

use rustix::io::Errno;

use crate::error::{Error, Result};

/// The highest real-time signals, of which [`reback`](crate::reback) takes one to pause the other threads.
const LEFT: i32 = 4;

/// Signals of this thread are blocked while it lives. A thread that is started meanwhile blocks them for ever.
pub struct Blocked(libc::sigset_t);

impl Blocked {
    /// All of them.
    pub(crate) fn all() -> Result<Blocked> {
        Self::but(0)
    }

    /// Those that a program has a use for: all but the four highest real-time signals, and those too that were blocked.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn for_helper() -> Result<Blocked> {
        Self::but(LEFT)
    }

    fn but(left: i32) -> Result<Blocked> {
        let mut set = MaybeUninit::uninit();
        let mut old = MaybeUninit::uninit();
        // SAFETY: both sets are local; `sigfillset` writes the first whole, `pthread_sigmask` without a new set the second when it
        // succeeds, before they are read. The numbers are signals.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            check(libc::pthread_sigmask(
                libc::SIG_SETMASK,
                std::ptr::null(),
                old.as_mut_ptr(),
            ))?;
            let (mut set, old) = (set.assume_init(), old.assume_init());
            for signal in libc::SIGRTMAX() - left + 1..=libc::SIGRTMAX() {
                if libc::sigismember(&raw const old, signal) == 0 {
                    libc::sigdelset(&raw mut set, signal);
                }
            }
            check(libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const set,
                std::ptr::null_mut(),
            ))?;
            Ok(Blocked(old))
        }
    }
}

fn check(errno: i32) -> Result<()> {
    match errno {
        0 => Ok(()),
        errno => Err(Error::system("pthread_sigmask")(Errno::from_raw_os_error(
            errno,
        ))),
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one that `but` got from the system.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "no signals there")]
    fn a_thread_keeps_what_was_blocked_when_it_began() {
        let before = mask();
        let blocked = Blocked::for_helper().unwrap();
        let (here, there) = (mask(), std::thread::spawn(mask).join().unwrap());
        drop(blocked);
        assert_eq!(mask(), before);
        assert_eq!(here, there);
        let is_blocked = |signal: i32| there >> (signal - 1) & 1 == 1;
        for signal in [libc::SIGTERM, libc::SIGUSR1, libc::SIGRTMIN()] {
            assert!(is_blocked(signal), "{signal}");
        }
        assert!(!is_blocked(libc::SIGRTMAX()));
    }
}
