//! libveo.so: processes on a Vector Engine and their memory, from a program of the host (ve-memory 4, 12).
//!
//! ```no_run
//! # fn main() -> windlass_native::Result<()> {
//! use windlass_native::veo::Veo;
//!
//! if let Some(veo) = Veo::from_env()? {
//!     let process = veo.create(None)?;
//!     let memory = process.alloc(4096)?;
//!     memory.write(0, b"to the card")?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **Thread safety.** Everything is `Send + Sync`: calls of a process run on its main context, one after another, as the
//! library arranges them.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString, c_int};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::library::{self, Functions};

pub use crate::memory::{
    Area, Attached, Bytes, Mapped, Memory, Opened, Registered, Registration, Segment,
};
pub use crate::process::{Function, Process};

/// Says which Vector Engine there is: `native` for a card.
const VARIABLE: &str = "WINDLASS_VE";
/// Names the library; its soname otherwise.
pub const LIBRARY: &str = "WINDLASS_LIBVEO";

/// The library.
#[derive(Debug)]
pub struct Veo {
    pub(crate) functions: Functions,
    version: c_int,
}

impl Veo {
    /// The library when WINDLASS_VE is `native`: WINDLASS_LIBVEO, else libveo.so.1. `None` when the variable is not set, or
    /// is `emulated`.
    ///
    /// # Errors
    /// A value that is not accepted; those of [`load`](Self::load).
    pub fn from_env() -> Result<Option<Arc<Self>>> {
        let value = std::env::var_os(VARIABLE).unwrap_or_default();
        match value.to_str() {
            Some("" | "emulated") => Ok(None),
            Some("native") => Self::load_named().map(Some),
            _ => Err(Error::Variable {
                name: VARIABLE,
                value: value.to_string_lossy().into_owned(),
                accepted: "native, emulated",
            }),
        }
    }

    /// The library that WINDLASS_LIBVEO names, else libveo.so.1.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_named() -> Result<Arc<Self>> {
        let named = std::env::var_os(LIBRARY).filter(|path| !path.is_empty());
        Self::load(named.unwrap_or_else(|| OsString::from(windlass_abi::veo::SONAME)))
    }

    /// Loads a library by its path or soname.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::Version`], [`Error::Symbol`]: each says what would help.
    pub fn load(file: impl AsRef<OsStr>) -> Result<Arc<Self>> {
        let (functions, version) = library::load(file.as_ref())?;
        Ok(Arc::new(Self { functions, version }))
    }

    /// Its API version.
    pub fn version(&self) -> c_int {
        self.version
    }

    /// What it calls itself.
    pub fn version_text(&self) -> String {
        // SAFETY: takes nothing, answers null or a C string that stays.
        unsafe {
            let text = (self.functions.version_string)();
            if text.is_null() {
                return String::new();
            }
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }

    /// A new VE process on that VE; `None`: what the environment says.
    ///
    /// # Errors
    /// [`Error::Call`]: no such VE, no card, no program for the process.
    pub fn create(self: &Arc<Self>, node: Option<u32>) -> Result<Arc<Process>> {
        let node = node.map_or(-1, |node| c_int::try_from(node).unwrap_or(c_int::MAX));
        Process::create(self, node)
    }
}
