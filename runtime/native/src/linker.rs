//! Libraries of C: opened, and their functions as values of their types.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;

/// An open library. It stays loaded: it may have threads and exit handlers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handle(*mut c_void);

/// Opens a library by its path or soname, its names for all that comes later (`RTLD_GLOBAL`) or for nobody (`RTLD_LOCAL`).
///
/// # Errors
/// What the linker says.
pub(crate) fn open(file: &OsStr, scope: c_int) -> Result<Handle, String> {
    let path = CString::new(file.as_bytes());
    let path = path.map_err(|_| "its name contains a zero byte".to_owned())?;
    // SAFETY: a C string. What its constructors do is trusted: the user named this library, or installed it.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | scope) };
    if handle.is_null() {
        // SAFETY: after a failure of this thread, a C string that stays until its next call of the linker.
        let text = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(text.to_string_lossy().into_owned());
    }
    Ok(Handle(handle))
}

impl Handle {
    /// The function of that name, of that version where one is given. `None`: there is none.
    ///
    /// # Safety
    /// `F` is the type of a pointer to it.
    pub(crate) unsafe fn find<F: Copy>(self, symbol: &CStr, version: Option<&CStr>) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: an open handle and C strings.
        let address = unsafe {
            match version {
                Some(version) => libc::dlvsym(self.0, symbol.as_ptr(), version.as_ptr()),
                None => libc::dlsym(self.0, symbol.as_ptr()),
            }
        };
        // SAFETY: of one size, as asserted; not null; of the caller's type, by its promise.
        (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
    }
}
