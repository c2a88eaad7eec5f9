//! libfabric.so.1: one-sided transfers over the networks it has providers for (udapl 9).
//!
//! A [`Library`] is loaded once; an [`Endpoint`] is this process on one network. Memory is registered, by a [`Registration`] that
//! holds it; a transfer holds its local memory and registration until its completion is taken, so that the network never
//! touches what is gone. What comes from a peer, an address or a key, is only handed on: the library and the target judge it.
//!
//! **Thread safety.** Everything is `Send + Sync`: the library is asked for `FI_THREAD_SAFE`.
//!
//! **Order of cleanup.** Registrations hold their endpoint, and what is under way holds registrations; the endpoint closes last.
//! The library stays loaded: providers may have threads and exit handlers.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_int};
use std::net::IpAddr;
use std::sync::Arc;

use windlass_abi::ofi::{
    DupInfo, FABRIC_1_0, FABRIC_1_1, FABRIC_1_3, FI_ENOKEY, FreeInfo, GetInfo, OpenFabric,
    StrError, Version,
};

use crate::linker::{self, Handle};
use crate::ofi_info::Info;
use crate::ofi_signals::Signals;

pub use crate::ofi_endpoint::{Done, Endpoint, PeerId, Posted, Remote, Verb};
pub use crate::ofi_memory::Registration;
pub use crate::ofi_slots::Name;
pub use crate::ofi_sockets::limit_silence;
pub use windlass_abi::ofi::SONAME;

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Why libfabric cannot be used, or what it answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library is not there, or cannot be loaded.
    #[error("{name} cannot be loaded ({text}); install libfabric (Debian: libfabric1)")]
    Load {
        /// File or soname.
        name: String,
        /// What the linker says.
        text: String,
    },
    /// The library lacks a function.
    #[error("{library} has no {symbol}: install libfabric 1.9 or later")]
    Symbol {
        /// File or soname.
        library: String,
        /// The function.
        symbol: &'static str,
    },
    /// No provider of that name does what is needed.
    #[error("libfabric has no provider {name:?} for one-sided transfers here; it has: {}", there.join(", "))]
    Provider {
        /// What was asked for.
        name: String,
        /// What there is.
        there: Vec<String>,
    },
    /// No provider at all does.
    #[error("libfabric has no provider for one-sided transfers here ({0})")]
    NoProvider(String),
    /// A provider does not do what is needed.
    #[error("the provider {provider} {what}")]
    Unfit {
        /// Which.
        provider: String,
        /// What it lacks.
        what: String,
    },
    /// A call failed.
    #[error("{0}")]
    Call(Failure),
    /// Memory that is not in the registration it is used with.
    #[error("the local memory is not registered")]
    Unregistered,
}

/// What failed in the library, by its own number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} failed: {text} ({code})")]
pub struct Failure {
    /// The call, or the transfer.
    pub what: &'static str,
    /// The library's error number, positive.
    pub code: i32,
    /// What it says of it.
    pub text: String,
}

impl Failure {
    /// Did the target refuse the range or the key?
    pub fn is_access(&self) -> bool {
        matches!(
            self.code,
            libc::EACCES | libc::EPERM | libc::EKEYREJECTED | libc::EFAULT | FI_ENOKEY
        )
    }

    /// Is the connection or the peer gone?
    pub fn is_gone(&self) -> bool {
        matches!(
            self.code,
            libc::ECONNRESET
                | libc::ECONNREFUSED
                | libc::ECONNABORTED
                | libc::ENOTCONN
                | libc::EPIPE
                | libc::ESHUTDOWN
                | libc::ETIMEDOUT
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::ECANCELED
                | libc::EIO
        )
    }
}

/// The functions of the library; everything else hangs on what they return.
#[derive(Debug)]
pub struct Library {
    version: Version,
    pub(crate) getinfo: GetInfo,
    pub(crate) dupinfo: DupInfo,
    pub(crate) freeinfo: FreeInfo,
    pub(crate) fabric: OpenFabric,
    strerror: StrError,
}

/// # Safety
/// `F` is the type of a pointer to the function `symbol` of that version.
unsafe fn find<F: Copy>(
    library: &str,
    handle: Handle,
    symbol: &'static CStr,
    version: &CStr,
) -> Result<F> {
    // SAFETY: the caller's promise.
    let found = unsafe { handle.find(symbol, Some(version)) };
    found.ok_or_else(|| Error::Symbol {
        library: library.to_owned(),
        symbol: symbol.to_str().unwrap_or_default(),
    })
}

impl Library {
    /// Loads the library by its path or soname.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::Symbol`].
    pub fn load(file: impl AsRef<OsStr>) -> Result<Arc<Library>> {
        let name = file.as_ref().to_string_lossy().into_owned();
        let _signals = Signals::keep();
        let handle = linker::open(file.as_ref(), libc::RTLD_LOCAL);
        let handle = handle.map_err(|text| Error::Load {
            name: name.clone(),
            text,
        })?;
        // SAFETY: each type is that of its function in this version of the ABI (`windlass-abi` states it).
        unsafe {
            Ok(Arc::new(Library {
                version: find(&name, handle, c"fi_version", FABRIC_1_0)?,
                getinfo: find(&name, handle, c"fi_getinfo", FABRIC_1_3)?,
                dupinfo: find(&name, handle, c"fi_dupinfo", FABRIC_1_3)?,
                freeinfo: find(&name, handle, c"fi_freeinfo", FABRIC_1_3)?,
                fabric: find(&name, handle, c"fi_fabric", FABRIC_1_1)?,
                strerror: find(&name, handle, c"fi_strerror", FABRIC_1_0)?,
            }))
        }
    }

    /// Its version: major, minor.
    pub fn version(&self) -> (u32, u32) {
        // SAFETY: takes nothing, answers a number.
        let version = unsafe { (self.version)() };
        (version >> 16, version & 0xffff)
    }

    /// The providers that serve at that address of this host, the best first.
    ///
    /// # Errors
    /// There is none.
    pub fn providers(self: &Arc<Self>, local: IpAddr) -> Result<Vec<String>> {
        Info::providers(self, local)
    }

    /// An error number of the library, with what it says of it.
    pub(crate) fn failure(&self, what: &'static str, code: c_int) -> Failure {
        // SAFETY: takes a number, answers null or a C string that stays.
        let text = unsafe {
            let text = (self.strerror)(code);
            if text.is_null() {
                String::new()
            } else {
                CStr::from_ptr(text).to_string_lossy().into_owned()
            }
        };
        Failure { what, code, text }
    }

    /// A call's answer: 0, or an error as a negative number.
    pub(crate) fn check(&self, call: &'static str, answer: c_int) -> Result<()> {
        if answer == 0 {
            return Ok(());
        }
        Err(Error::Call(self.failure(call, answer.saturating_abs())))
    }
}
