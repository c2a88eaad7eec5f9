//! What containers forbid, for tests: a seccomp filter that refuses some system calls with EPERM.
//!
//! A program that has forbidden itself something cannot undo it, nor can its children.

use rustix::io::Errno;

use crate::error::{Error, Result};

/// System calls that sandboxes often refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    /// Cross-memory copy: process_vm_readv, process_vm_writev.
    CrossCopy,
    /// pidfd_open, as valgrind lacks it.
    Pidfd,
    /// userfaultfd, by the system call and by its device.
    Userfaultfd,
}

/// Offsets in `struct seccomp_data`: the call's number, and the low half of its second argument (little endian).
const NUMBER: u32 = 0;
const SECOND_ARGUMENT: u32 = 24;

/// `USERFAULTFD_IOC_NEW`.
const NEW_USERFAULTFD: u32 = 0xaa00;

/// Forbids `what` to all threads of this process, for ever.
///
/// # Errors
/// [`Error::System`] where the kernel has no filters.
pub fn forbid(what: Forbidden) -> Result<()> {
    let refuse = statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let allow = statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW);
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let mut filter = match what {
        Forbidden::CrossCopy => vec![
            load(NUMBER),
            unless(libc::SYS_process_vm_readv as u32, 1),
            refuse,
            unless(libc::SYS_process_vm_writev as u32, 1),
            refuse,
            allow,
        ],
        Forbidden::Pidfd => vec![
            load(NUMBER),
            unless(libc::SYS_pidfd_open as u32, 1),
            refuse,
            allow,
        ],
        Forbidden::Userfaultfd => vec![
            load(NUMBER),
            unless(libc::SYS_userfaultfd as u32, 1),
            refuse,
            unless(libc::SYS_ioctl as u32, 3),
            load(SECOND_ARGUMENT),
            unless(NEW_USERFAULTFD, 1),
            refuse,
            allow,
        ],
    };
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the first call takes integers; the second reads the program, whose instructions live as long as the call.
    let outcome = unsafe {
        match libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) {
            0 => libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const program,
            ),
            failed => failed.into(),
        }
    };
    match outcome {
        0 => Ok(()),
        // The number of a thread that could not be brought under the filter.
        1.. => Err(Error::system("seccomp")(Errno::BUSY)),
        _ => Err(Error::last("seccomp")),
    }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Skips so many instructions unless what was loaded is `k`.
fn unless(k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: skip,
        k,
    }
}
