//! The user's libraries: dlopen(3), dlsym(3), dlclose(3), by handles that are checked.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};

use parking_lot::Mutex;

/// Libraries that are loaded, and how often each was.
#[derive(Debug, Default)]
pub(crate) struct Libraries(Mutex<HashMap<u64, u32>>);

impl Libraries {
    /// dlopen(3) with all symbols bound now. A name without a slash is looked for as the linker does.
    ///
    /// # Errors
    /// What the linker says.
    pub(crate) fn load(&self, path: &CStr, global: bool) -> Result<u64, String> {
        let scope = if global {
            libc::RTLD_GLOBAL
        } else {
            libc::RTLD_LOCAL
        };
        let mut loaded = self.0.lock();
        // SAFETY: `path` is a C string. What the library's constructors do is the user's business.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | scope) };
        if handle.is_null() {
            return Err(complaint());
        }
        let handle = handle as u64;
        *loaded.entry(handle).or_default() += 1;
        Ok(handle)
    }

    /// dlclose(3); `false` for what is not loaded.
    pub(crate) fn unload(&self, library: u64) -> bool {
        let mut loaded = self.0.lock();
        let Some(count) = loaded.get_mut(&library) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            loaded.remove(&library);
        }
        // SAFETY: a handle of dlopen that was given out more often than it was closed, as the count says.
        unsafe { libc::dlclose(library as usize as *mut c_void) == 0 }
    }

    /// dlsym(3) in one library, or for 0 in what every library of the process may use.
    pub(crate) fn symbol(&self, library: u64, name: &CStr) -> Option<u64> {
        let loaded = self.0.lock();
        let handle = match library {
            0 => libc::RTLD_DEFAULT,
            _ if loaded.contains_key(&library) => library as usize as *mut c_void,
            _ => return None,
        };
        // SAFETY: `handle` is open while the lock is held, or the pseudo-handle; `name` is a C string.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        (!address.is_null()).then_some(address as u64)
    }
}

/// What dlerror(3) says of this thread's last call.
fn complaint() -> String {
    // SAFETY: answers null, or a C string that stays until this thread's next call of the linker.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            String::new()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// Bytes of a message as a C string; `None` with a zero inside.
pub(crate) fn c_string(bytes: &[u8]) -> Option<CString> {
    CString::new(bytes).ok()
}
