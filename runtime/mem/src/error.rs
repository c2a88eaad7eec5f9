//! The one error type of this crate: a refused range, a refused object, or a system call with its errno.
//!
//! The function that knows a cause states it here, with the refused numbers in it; callers pass it on. `System`
//! carries the errno as a value, not as a source, because its text already names it.

use rustix::io::Errno;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on raw memory was refused or failed. Offsets and lengths are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The range does not lie inside the memory or file it was asked of. Nothing was accessed.
    #[error("range of {len} bytes at offset {offset} is outside of the {size} bytes there are")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Bytes there are.
        size: u64,
    },
    /// The address or offset is not a multiple of what the operation needs. Nothing was accessed.
    #[error("offset {offset} (or its address) is not a multiple of {align} bytes")]
    Misaligned {
        /// The refused offset; the rule is about the address it stands for.
        offset: u64,
        /// The alignment needed.
        align: u64,
    },
    /// A write or an atomic update of memory that is mapped read-only. Nothing was written.
    #[error("write of {len} bytes at offset {offset} of memory that is mapped read-only")]
    ReadOnly {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
    },
    /// A length of zero where a mapping, a file or a segment is made.
    #[error("{what} of zero bytes cannot be made")]
    Empty {
        /// What was to be made.
        what: &'static str,
    },
    /// A received file descriptor does not keep the rules of shared files (reliability.md S1).
    #[error("file refused: {rule}")]
    BadFile {
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The process with this pid is not the one that was meant: it ended, and its pid may belong to another.
    #[error("process {pid} is gone, or its pid belongs to another process now")]
    Gone {
        /// The pid asked for.
        pid: i32,
    },
    /// Cross-memory copy within this process: use the memory itself.
    #[error("process {pid} is this process; cross-memory copy reaches only others")]
    OwnProcess {
        /// The pid asked for.
        pid: i32,
    },
    /// A file of /proc does not look as documented in proc(5).
    #[error("{file} does not have the documented form")]
    Format {
        /// Which file.
        file: &'static str,
    },
    /// No mapping of this process contains the address.
    #[error("address {addr:#x} is not mapped")]
    Unmapped {
        /// The address asked for.
        addr: usize,
    },
    /// The program itself may not read and write there.
    #[error("the memory at address {addr:#x} may not be read and written by its own program")]
    Protected {
        /// Where the mapping begins, or the range in it.
        addr: usize,
    },
    /// The pages of lent memory stay where they are: it is not safe, or not wanted, to move them ([`reback`](crate::reback)).
    #[error("not re-backed: {rule}")]
    Unmovable {
        /// Why.
        rule: &'static str,
    },
    /// A system call failed.
    #[error("{call} failed: {errno}")]
    System {
        /// Name of the call.
        call: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
}

impl Error {
    /// The kernel's answer, when a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// For `map_err`: a failed system call by name.
    pub(crate) fn system(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System { call, errno }
    }

    /// The failed libc call `call`, errno taken from the thread.
    pub(crate) fn last(call: &'static str) -> Self {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Self::System {
            call,
            errno: Errno::from_raw_os_error(errno),
        }
    }

    /// A failure of `std` reading a file of /proc.
    pub(crate) fn io(call: &'static str, source: &std::io::Error) -> Self {
        let errno = Errno::from_io_error(source).unwrap_or(Errno::IO);
        Self::System { call, errno }
    }
}
