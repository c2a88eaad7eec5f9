//! Cross-memory copy: reading and writing memory of another process that nobody can map (process_vm_readv(2)).
//!
//! A process is identified by pid *and* start time (architecture.md section 8): its pidfd is opened first, then the
//! start time is compared, so that the descriptor can only mean the process that was meant. The copying calls take a
//! pid, not a descriptor; so a write asks the pidfd first whether the process still lives, and a read asks afterwards
//! before it believes the data. Where pidfds cannot be had (valgrind, sandboxes) the start time is asked instead. Whether the kernel lets us copy at all (ptrace rights, seccomp) is found out by the
//! caller's own probe of eight known bytes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Error, Result};
use crate::shared::SharedBytes;

/// Bytes per call: the kernel moves at most 2 GiB less a page at once (MAX_RW_COUNT), so larger copies are cut.
const CALL_BYTES: usize = 1 << 30;

/// Another process whose memory can be copied.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    start: u64,
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// Opens the process with this pid and this start time ([`start_time`]).
    ///
    /// # Errors
    /// [`Error::OwnProcess`] for the own pid; [`Error::Gone`] when the pid is free or belongs to another process.
    pub fn open(pid: i32, start: u64) -> Result<Self> {
        if pid == rustix::process::getpid().as_raw_pid() {
            return Err(Error::OwnProcess { pid });
        }
        let id = Pid::from_raw(pid.max(0)).ok_or(Error::Gone { pid })?;
        let pidfd = match rustix::process::pidfd_open(id, PidfdFlags::empty()) {
            // EINVAL (ENOENT since 6.9): the pid is that of a thread, not of a process.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Err(Error::Gone { pid }),
            Err(Errno::NOSYS | Errno::PERM) => None,
            outcome => Some(outcome.map_err(Error::system("pidfd_open"))?),
        };
        // After the open: from here on the descriptor is bound to whoever has this start time.
        if start_time(pid)? != start {
            return Err(Error::Gone { pid });
        }
        let process = Self { pid, start, pidfd };
        if process.alive() {
            Ok(process)
        } else {
            Err(Error::Gone { pid })
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its pidfd, readable once it has ended; `None` where those cannot be had.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Sends it SIGKILL; nothing where it has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&self) -> Result<()> {
        let sent = match (&self.pidfd, Pid::from_raw(self.pid)) {
            (Some(pidfd), _) => rustix::process::pidfd_send_signal(pidfd, Signal::KILL),
            (None, Some(pid)) if self.alive() => rustix::process::kill_process(pid, Signal::KILL),
            (None, _) => Ok(()),
        };
        match sent {
            Err(Errno::SRCH) => Ok(()),
            other => other.map_err(Error::system("kill")),
        }
    }

    /// Whether it still runs; a zombie does not.
    pub fn alive(&self) -> bool {
        let Some(pidfd) = &self.pidfd else {
            return matches!(running(self.pid), Ok(Some(start)) if start == self.start);
        };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        // A poll that fails tells nothing; then the copy itself will.
        !matches!(
            rustix::event::poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0
                })
            ),
            Ok(1..)
        )
    }

    /// Copies `dst.len()` bytes from address `remote` of that process.
    ///
    /// # Errors
    /// [`Error::Gone`], or [`Error::System`] with `EFAULT` (not mapped there) or `EPERM` (not allowed). `dst` may
    /// have been written in part then.
    pub fn read(&self, remote: u64, dst: &mut [u8]) -> Result<()> {
        // SAFETY: `dst` is writable for its length and exclusive to this call.
        unsafe { self.transfer(Way::Read, remote, dst.as_mut_ptr(), dst.len()) }
    }

    /// Copies `src` to address `remote` of that process.
    ///
    /// # Errors
    /// As [`read`](Self::read); the remote memory may have been written in part then.
    pub fn write(&self, remote: u64, src: &[u8]) -> Result<()> {
        // SAFETY: `src` is readable for its length; `Way::Write` only reads the local side.
        unsafe { self.transfer(Way::Write, remote, src.as_ptr().cast_mut(), src.len()) }
    }

    /// Copies `len` bytes from address `remote` of that process to `offset` of `to`, without a stop in between.
    pub fn read_into(
        &self,
        remote: u64,
        to: &SharedBytes,
        offset: usize,
        len: usize,
    ) -> Result<()> {
        let local = to.checked_ptr(offset, len, true)?;
        // SAFETY: the range is checked and writable; the kernel's stores are opaque to the compiler, as
        // `SharedBytes` demands.
        unsafe { self.transfer(Way::Read, remote, local, len) }
    }

    /// Copies `len` bytes at `offset` of `from` to address `remote` of that process, without a stop in between.
    pub fn write_from(
        &self,
        remote: u64,
        from: &SharedBytes,
        offset: usize,
        len: usize,
    ) -> Result<()> {
        let local = from.checked_ptr(offset, len, false)?;
        // SAFETY: the range is checked and readable; `Way::Write` only reads the local side, in the kernel.
        unsafe { self.transfer(Way::Write, remote, local, len) }
    }

    /// # Safety
    /// `[local, local + len)` is mapped while the call runs, writable for [`Way::Read`], and no reference that
    /// forbids the kernel's access to it exists elsewhere.
    unsafe fn transfer(&self, way: Way, remote: u64, local: *mut u8, len: usize) -> Result<()> {
        let fault = Error::System {
            call: way.name(),
            errno: Errno::FAULT,
        };
        // A pointer-sized remote address: peers on one node have the width of ours; a larger one is nobody's memory.
        let start = usize::try_from(remote).map_err(|_| fault)?;
        start.checked_add(len).ok_or(fault)?;
        if way == Way::Write && !self.alive() {
            return Err(Error::Gone { pid: self.pid });
        }
        let mut done = 0;
        while done < len {
            // SAFETY: `done < len`, so the address is inside the caller's range and at least one byte is left.
            let at = unsafe { local.add(done) };
            // SAFETY: `len - done` bytes from `at` on are the rest of the caller's range.
            done += unsafe { self.step(way, start + done, at, (len - done).min(CALL_BYTES)) }?;
        }
        if way == Way::Read && !self.alive() {
            return Err(Error::Gone { pid: self.pid });
        }
        Ok(())
    }

    /// One call; answers how many bytes it moved, at least one.
    ///
    /// # Safety
    /// As for `transfer`.
    unsafe fn step(&self, way: Way, remote: usize, local: *mut u8, len: usize) -> Result<usize> {
        let ours = libc::iovec {
            iov_base: local.cast(),
            iov_len: len,
        };
        // The remote side is an address in another process: never dereferenced here.
        let theirs = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(remote),
            iov_len: len,
        };
        // SAFETY: one vector on each side, both live during the call; the local one is the caller's promise; the
        // remote one the kernel checks itself. The pid is not this process (`open`), so memory of ours is not changed
        // behind the compiler's back.
        let moved = unsafe {
            match way {
                Way::Read => {
                    libc::process_vm_readv(self.pid, &raw const ours, 1, &raw const theirs, 1, 0)
                }
                Way::Write => {
                    libc::process_vm_writev(self.pid, &raw const ours, 1, &raw const theirs, 1, 0)
                }
            }
        };
        match usize::try_from(moved) {
            Ok(0) => Err(Error::System {
                call: way.name(),
                errno: Errno::FAULT,
            }),
            Ok(moved) => Ok(moved),
            Err(_) => match Error::last(way.name()) {
                Error::System {
                    errno: Errno::SRCH, ..
                } => Err(Error::Gone { pid: self.pid }),
                error => Err(error),
            },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "process_vm_readv",
            Self::Write => "process_vm_writev",
        }
    }
}

/// When the process started, in clock ticks since boot: field 22 of /proc/`pid`/stat. With the pid it names a process
/// for ever.
pub fn start_time(pid: i32) -> Result<u64> {
    Ok(stat(pid)?.1)
}

/// The start time of the process that has this pid, unless it is a zombie.
fn running(pid: i32) -> Result<Option<u64>> {
    let (state, start) = stat(pid)?;
    Ok((!matches!(state, 'Z' | 'X')).then_some(start))
}

/// State and start time: fields 3 and 22.
fn stat(pid: i32) -> Result<(char, u64)> {
    let text = match std::fs::read(format!("/proc/{pid}/stat")) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
            return Err(Error::Gone { pid });
        }
        outcome => outcome.map_err(|e| Error::io("open(/proc/pid/stat)", &e))?,
    };
    parse(&text).ok_or(Error::Format {
        file: "/proc/pid/stat",
    })
}

/// The name in field 2 may contain anything, spaces and parentheses too: fields are counted from the last `)`.
fn parse(stat: &[u8]) -> Option<(char, u64)> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    // The first field after the name is field 3.
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(22 - 4)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 9876 20 21";
        for name in ["sh", "a b", ") (", "x) R 1 2", ""] {
            assert_eq!(
                parse(format!("77 ({name}) {tail}\n").as_bytes()),
                Some(('S', 9876))
            );
        }
        assert_eq!(
            parse(b"77 (\xff\xfe) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 5"),
            Some(('R', 5))
        );
        assert_eq!(parse(b"77 (sh) S 1 2"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"no name"), None);
    }

    mod processes {
        #![cfg(not(miri))]
        use std::process::{Child, Command, Stdio};

        use super::*;
        use crate::lend;

        /// A process that does nothing until its input ends, killed with the test.
        struct Idle(Child);

        impl Idle {
            fn start() -> Self {
                let child = Command::new("cat")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let idle = Self(child);
                // It has its final image once it has a stack and reads: wait until the name is that of the program.
                while std::fs::read_to_string(format!("/proc/{}/comm", idle.pid())).unwrap()
                    != "cat\n"
                {
                    std::thread::yield_now();
                }
                idle
            }

            fn pid(&self) -> i32 {
                self.0.id() as i32
            }

            fn open(&self) -> Process {
                Process::open(self.pid(), start_time(self.pid()).unwrap()).unwrap()
            }

            fn stack(&self) -> (u64, u64) {
                let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
                let line = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
                let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
                (
                    u64::from_str_radix(from, 16).unwrap(),
                    u64::from_str_radix(to, 16).unwrap(),
                )
            }
        }

        impl Drop for Idle {
            fn drop(&mut self) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }

        #[test]
        fn bytes_go_there_and_come_back() {
            let idle = Idle::start();
            let process = idle.open();
            // The lowest bytes of a stack are not in use.
            let at = idle.stack().0;
            process.write(at, b"hello there").unwrap();
            let mut back = [0; 11];
            process.read(at, &mut back).unwrap();
            assert_eq!(&back, b"hello there");
            let (bytes, _loan) = lend(b"0123456789".to_vec());
            process.write_from(at + 2, &bytes, 3, 4).unwrap();
            process.read_into(at, &bytes, 1, 8).unwrap();
            let mut all = [0; 10];
            bytes.read(0, &mut all).unwrap();
            assert_eq!(&all, b"0he3456th9");
            process.read(1, &mut []).unwrap();
            assert!(matches!(
                process.read_into(at, &bytes, 5, 6),
                Err(Error::OutOfRange { .. })
            ));
        }

        #[test]
        fn addresses_of_nobody_are_faults() {
            let idle = Idle::start();
            let process = idle.open();
            let fault = Some(Errno::FAULT);
            let mut byte = [0; 8];
            assert_eq!(process.read(16, &mut byte).unwrap_err().errno(), fault);
            assert_eq!(process.write(16, &byte).unwrap_err().errno(), fault);
            assert_eq!(
                process.read(u64::MAX - 3, &mut byte).unwrap_err().errno(),
                fault
            );
            assert_eq!(process.write(u64::MAX, &byte).unwrap_err().errno(), fault);
            // A transfer that runs off the end of the mapping is partial first, and a fault then.
            let end = idle.stack().1;
            let mut long = vec![0; 64 * 1024];
            assert_eq!(
                process.read(end - 4096, &mut long).unwrap_err().errno(),
                fault
            );
        }

        #[test]
        fn a_dead_process_is_gone() {
            let mut idle = Idle::start();
            let process = idle.open();
            let at = idle.stack().0;
            assert!(process.alive());
            idle.0.kill().unwrap();
            // A zombie first, then nobody: gone both times.
            while process.alive() {
                std::thread::yield_now();
            }
            let gone = Error::Gone { pid: idle.pid() };
            assert_eq!(process.write(at, b"x"), Err(gone));
            assert!(process.read(at, &mut [0]).is_err());
            idle.0.wait().unwrap();
            assert_eq!(process.read(at, &mut [0]), Err(gone));
            assert_eq!(start_time(idle.pid()), Err(gone));
            assert_eq!(Process::open(idle.pid(), 1).unwrap_err(), gone);
        }

        #[test]
        fn the_wrong_process_is_refused() {
            let idle = Idle::start();
            let start = start_time(idle.pid()).unwrap();
            assert_eq!(
                Process::open(idle.pid(), start + 1).unwrap_err(),
                Error::Gone { pid: idle.pid() }
            );
            let own = std::process::id() as i32;
            assert_eq!(
                Process::open(own, start_time(own).unwrap()).unwrap_err(),
                Error::OwnProcess { pid: own }
            );
            for pid in [0, -1, i32::MIN] {
                assert_eq!(Process::open(pid, 0).unwrap_err(), Error::Gone { pid });
            }
        }
    }
}
