//! The border to C: result codes, panics, and pointers that nobody has vouched for.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use windlass_rsm::Code;

/// What functions answer.
pub(crate) type Answer<T> = Result<T, Code>;

/// `RSM_SUCCESS`.
const SUCCESS: c_int = 0;

/// Runs the body of a C function and gives its code.
#[inline]
pub(crate) fn call(body: impl FnOnce() -> Answer<()>) -> c_int {
    match catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Code::InternalError)) {
        Ok(()) => SUCCESS,
        Err(code) => code.number(),
    }
}

/// The place of a result; `code` for null.
pub(crate) fn place<T>(at: *mut T, code: Code) -> Answer<*mut T> {
    match at.is_null() {
        true => Err(code),
        false => Ok(at),
    }
}

/// Stores a result.
///
/// # Safety
/// `at` is the caller's to be written, of whatever alignment.
pub(crate) unsafe fn store<T>(at: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { at.write_unaligned(value) };
}

/// Whether the kernel can read there: it writes the bytes to a pipe.
pub(crate) fn is_readable(at: *const c_void, len: usize) -> bool {
    let mut ends = [-1; 2];
    // SAFETY: the kernel fills the array; it checks the address that it reads, and answers EFAULT for one it cannot. Both
    // descriptors are this function's own.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
            return false;
        }
        let written = libc::write(ends[1], at, len);
        libc::close(ends[0]);
        libc::close(ends[1]);
        usize::try_from(written) == Ok(len)
    }
}
