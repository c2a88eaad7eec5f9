//! What can go wrong with a library, and what to do about it.

use std::ffi::c_int;
use std::io;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the library cannot be used, or what it answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable has a value that is not accepted.
    #[error("{name}={value} is not accepted; give {accepted}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it accepts.
        accepted: &'static str,
    },
    /// The library is not there, or cannot be loaded.
    #[error("{name} cannot be loaded ({text}); install it, or name it by WINDLASS_LIBVEO")]
    Load {
        /// File or soname.
        name: String,
        /// What the linker says.
        text: String,
    },
    /// The library lacks a function.
    #[error("{library} has no {symbol}: install release {needed} or later")]
    Symbol {
        /// File or soname.
        library: String,
        /// The function.
        symbol: &'static str,
        /// API version that has it.
        needed: c_int,
    },
    /// The library is too old.
    #[error("{library} is of API version {found}, and {needed} is needed: install a later release")]
    Version {
        /// File or soname.
        library: String,
        /// What it says.
        found: c_int,
        /// The least that will do.
        needed: c_int,
    },
    /// A call failed.
    #[error("{call} failed with {code}")]
    Call {
        /// The function.
        call: &'static str,
        /// Its answer.
        code: i64,
        /// Its errno.
        source: io::Error,
    },
    /// A VE has too little memory left.
    #[error(
        "veo_alloc_hmem finds no {len} bytes of memory on the VE; free some, or take another VE"
    )]
    NoMemory {
        /// Bytes asked for.
        len: usize,
    },
    /// The DMA engine ended a transfer with these exception bits (ve-memory 9.3).
    #[error("the DMA engine reports {bits:#06x}")]
    Exception {
        /// 0x8000 protection, 0x4000 missing page, 0x2000 missing space, 0x1000 memory access, 0x0800 I/O.
        bits: u16,
    },
    /// A range outside of the memory it was asked of. Nothing was moved.
    #[error("range of {len} bytes at offset {offset} is outside of the {size} bytes there are")]
    OutOfRange {
        /// First byte.
        offset: usize,
        /// Bytes asked for.
        len: usize,
        /// Bytes there are.
        size: usize,
    },
    /// A name with a zero byte.
    #[error("{what} contains a zero byte")]
    ZeroByte {
        /// What it was.
        what: &'static str,
    },
}

impl Error {
    /// A failed call, errno taken from the thread.
    pub(crate) fn last(call: &'static str, code: impl Into<i64>) -> Self {
        Self::Call {
            call,
            code: code.into(),
            source: io::Error::last_os_error(),
        }
    }
}
