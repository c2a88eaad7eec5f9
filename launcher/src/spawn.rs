//! Starting ranks, and taking the launcher's own signals: the only unsafe file of this crate.
//!
//! Relies on: being called from one thread that lives as long as the job, because the
//! parent-death signal follows the *thread* that forked (architecture section 8).
//! Promises: a rank starts in its own process group, with no blocked signal, bound as told, with
//! the read end of its life pipe, and dies with the launcher, also when the launcher is killed
//! between fork and exec (reliability A4).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::process::{kill_process_group, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use windlass_wire::Secret;

/// Environment variable naming the life pipe's descriptor in the rank.
const LIFE_FD: &str = "WINDLASS_LIFE_FD";

/// A started rank: a child that is reaped by whoever holds `child`.
#[derive(Debug)]
pub(crate) struct Started {
    /// Process and group id.
    pub(crate) pid: Pid,
    /// Readable when the process has ended; the identity of the process (architecture section 8).
    pub(crate) pidfd: OwnedFd,
    /// Write end of the life pipe: closed when the launcher ends, however it ends.
    pub(crate) _life: OwnedFd,
    /// The pipes of its output, and the handle that reaps it.
    pub(crate) child: Child,
}

/// Starts `command` as a rank that knows the job's `secret`, is bound to `cpus` and may open `files`.
pub(crate) fn start(
    mut command: Command,
    secret: &Secret,
    cpus: Option<CpuSet>,
    files: Rlimit,
) -> io::Result<Started> {
    // Both ends close on exec, so no other child of this process ever holds a write end.
    let (life, keep) = pipe_with(PipeFlags::CLOEXEC)?;
    // An empty pipe takes 32 bytes without a reader.
    secret.to_fd(&keep)?;
    command.env(LIFE_FD, life.as_raw_fd().to_string());
    command.process_group(0);

    let launcher = getpid();
    let prepare = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The launcher may have died before the line above: then nobody will send the signal.
        if getppid() != Some(launcher) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some(cpus) = &cpus {
            sched_setaffinity(None, cpus)?;
        }
        reset_signals()?;
        setrlimit(Resource::Nofile, files)?;
        // Only in this child does the descriptor survive exec; the number stays what was told.
        fcntl_setfd(&life, FdFlags::empty())?;
        Ok(())
    };
    // SAFETY: between fork and exec of a process with threads only async-signal-safe calls are
    // allowed. `prepare` makes system calls only (prctl, getppid, sched_setaffinity, rt_sigaction,
    // rt_sigprocmask, prlimit, fcntl), allocates nothing, takes no lock, and what it captured is plain data
    // and a descriptor this process owns.
    unsafe { command.pre_exec(prepare) };

    let mut child = command.spawn()?;
    // A pid of a child that nobody has reaped cannot be reused: both lines mean our child.
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).inspect_err(|_| {
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = child.wait();
    })?;
    Ok(Started {
        pid,
        pidfd,
        _life: keep,
        child,
    })
}

/// Descriptors the launcher holds per rank at most: output pipes, life pipe, pidfds, and what the
/// node service keeps for it.
const FILES_PER_RANK: u64 = 16;
/// Descriptors the launcher holds besides.
const FILES_BESIDES: u64 = 256;

/// Lets this process open as many files as a job of `ranks` needs, as far as its hard limit goes.
/// Gives the limit as it was, which the ranks get back.
pub(crate) fn room_for(ranks: u64) -> Rlimit {
    // Asked once: an earlier job of this process may have raised it.
    static FIRST: OnceLock<Rlimit> = OnceLock::new();
    let was = *FIRST.get_or_init(|| getrlimit(Resource::Nofile));
    let wanted = FILES_BESIDES + ranks * FILES_PER_RANK;
    if getrlimit(Resource::Nofile)
        .current
        .is_some_and(|current| current < wanted)
    {
        let current = Some(was.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        let more = Rlimit {
            current,
            maximum: was.maximum,
        };
        // Refused, the job may still fit; if not, the call that finds no descriptor says so.
        let _ = setrlimit(Resource::Nofile, more);
    }
    was
}

/// Signals whose dispositions and mask a rank must not inherit from the launcher.
const TAKEN: [c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// No signal blocked, and the taken ones at their default, in the calling thread.
fn reset_signals() -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is valid memory for sigemptyset to initialise; signal() with
    // SIG_DFL and sigprocmask() with a valid set are async-signal-safe and change only this process.
    let failed = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        for signal in TAKEN {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut())
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Marks every descriptor but the standard three to be closed by the next exec: what a program left open for its children is
/// not for a service that outlives it.
pub(crate) fn keep_nothing() {
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC changes flags only; no descriptor of this process is closed. Kernels
    // that do not know it (before 5.11) refuse, and the descriptors are inherited.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// The launcher's SIGINT, SIGTERM and SIGHUP as a descriptor to poll.
///
/// To be taken in `main` before any thread starts, because a blocked mask is inherited by the
/// threads started later and by nobody else.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the three signals in this thread and opens the descriptor.
    pub fn take() -> io::Result<Signals> {
        // SAFETY: an all-zero sigset_t is valid memory for sigemptyset; the set outlives the
        // calls, which read it; signalfd returns a new descriptor or -1, checked below.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in TAKEN {
                libc::sigaddset(&mut set, signal);
            }
            let errno = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            if errno != 0 {
                return Err(io::Error::from_raw_os_error(errno));
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just returned this descriptor and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Signals { fd })
    }

    /// The descriptor: readable when a signal is there.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The next signal that has come, if any.
    pub(crate) fn next(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            // ssi_signo is the structure's first field (signalfd(2)).
            Ok(n) if n == info.len() => {
                Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        command
    }

    fn limit() -> Rlimit {
        getrlimit(Resource::Nofile)
    }

    fn output(mut started: Started) -> String {
        let mut text = String::new();
        started
            .child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        started.child.wait().unwrap();
        text
    }

    #[test]
    fn a_rank_leads_its_group_with_no_signal_blocked_and_reads_the_secret() {
        let secret = *b"0123456789abcdef0123456789abcdef";
        let script = "cut -d' ' -f5 /proc/$$/stat; echo $$; grep SigBlk /proc/self/status; \
                      head -c 32 <&$WINDLASS_LIFE_FD";
        let text =
            output(start(shell(script), &Secret::from_bytes(secret), None, limit()).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], lines[1], "process group is the pid");
        assert_eq!(lines[2].split_whitespace().last(), Some("0000000000000000"));
        assert_eq!(lines[3].as_bytes(), secret);
    }

    #[test]
    fn the_life_pipe_ends_with_its_write_end() {
        let started = start(
            shell("head -c 33 <&$WINDLASS_LIFE_FD | wc -c"),
            &Secret::random(),
            None,
            limit(),
        )
        .unwrap();
        let Started {
            _life: life,
            mut child,
            ..
        } = started;
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(
            child.try_wait().unwrap().is_none(),
            "the pipe is open while the launcher lives"
        );
        drop(life);
        let mut text = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text.trim(), "32");
        child.wait().unwrap();
    }

    #[test]
    fn affinity_is_set_before_exec() {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU)
            .find(|&cpu| allowed.is_set(cpu))
            .unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        let script = "grep Cpus_allowed_list /proc/$$/status";
        let text = output(start(shell(script), &Secret::random(), Some(one), limit()).unwrap());
        assert_eq!(
            text.split_whitespace().last(),
            Some(first.to_string().as_str())
        );
    }

    #[test]
    fn a_missing_program_is_an_error_and_leaves_no_process() {
        let error = start(
            Command::new("/nonexistent/program"),
            &Secret::random(),
            None,
            limit(),
        )
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
