//! The border to C: errno, strings, and no panic across it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a call failed, as an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

pub(crate) const EINVAL: Errno = Errno(libc::EINVAL);
pub(crate) const EFAULT: Errno = Errno(libc::EFAULT);
/// The VE process is dead, or the handle closed (ve-memory 7.4).
pub(crate) const EBUSY: Errno = Errno(libc::EBUSY);

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Runs the body of a C function: `failed` and errno for an error, and for a panic (ECANCELED).
pub(crate) fn edge<T>(failed: T, body: impl FnOnce() -> Result<T>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(Errno(errno))) => {
            set_errno(errno);
            failed
        }
        Err(_) => {
            set_errno(libc::ECANCELED);
            failed
        }
    }
}

/// Says on standard error why something failed: what no errno can say. A program without one hears nothing.
pub(crate) fn say(why: &str) {
    let _ = writeln!(std::io::stderr(), "windlass VE: {why}");
}

/// Sets errno of the calling thread.
pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: the thread's own variable, always there.
    unsafe { *libc::__errno_location() = errno };
}

/// The bytes of a C string of the caller, with a bound.
///
/// # Safety
/// `text` is null or a C string that nobody changes while the answer lives.
pub(crate) unsafe fn string<'a>(text: *const c_char, limit: usize) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(EINVAL);
    }
    // SAFETY: not null, so a C string, by the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() > limit {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    Ok(bytes)
}

/// Stores a result where the caller wants it; null for nowhere.
///
/// # Safety
/// `place` is null or writable.
pub(crate) unsafe fn store<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: writable by the caller's promise; alignment is not asked for.
        unsafe { place.write_unaligned(value) };
    }
}
