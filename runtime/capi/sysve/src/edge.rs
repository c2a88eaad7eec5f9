//! The border to C: errno, panics, and pointers that nobody has vouched for.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use windlass_ve::{Errno, Error};

use crate::seat::tell_gone;

/// What a call was refused with. Its only way out is [`call`].
pub(crate) struct Refused(Errno);

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<Error> for Refused {
    /// Where the checking mode knows the rule, it is said; without it too, once, that there is nobody to ask any more.
    fn from(error: Error) -> Self {
        tell_gone(&error);
        if let Error::Refused {
            call,
            rule: Some(rule),
            errno,
        } = &error
        {
            say(call, *errno, rule);
        }
        Self(error.errno())
    }
}

/// Why a call fails with this errno.
pub(crate) fn say(call: &str, errno: Errno, rule: &str) {
    let text = errno.to_string();
    let name = text.split(' ').next().unwrap_or_default();
    eprintln!("windlass VE: {call}: {name}: {rule}");
}

/// What functions answer that fail with an errno.
pub(crate) type Answer<T> = Result<T, Refused>;

/// Runs the body of a C function; `failure` and errno for a refusal or a panic. Otherwise errno is what it was.
pub(crate) fn call<T>(failure: T, body: impl FnOnce() -> Answer<T>) -> T {
    let errno = errno();
    let outcome = catch_unwind(AssertUnwindSafe(body));
    match outcome.unwrap_or(Err(Refused(Errno::Ecanceled))) {
        Ok(value) => {
            set_errno(errno);
            value
        }
        // Of all errno values a program can see, this is the one place; their numbers are in `Errno::code`.
        Err(Refused(errno)) => {
            set_errno(errno.code());
            failure
        }
    }
}

/// Runs the body of a C function that leaves errno alone; `failure` for a panic.
pub(crate) fn code<T>(failure: T, body: impl FnOnce() -> T) -> T {
    let errno = errno();
    let value = catch_unwind(AssertUnwindSafe(body)).unwrap_or(failure);
    set_errno(errno);
    value
}

fn errno() -> c_int {
    // SAFETY: the C library answers the address of this thread's errno, which lives as long as the thread.
    unsafe { *libc::__errno_location() }
}

fn set_errno(errno: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Stores a value at a caller's address; EFAULT where the kernel cannot.
pub(crate) fn store<T: Copy>(at: *mut T, value: T) -> Answer<()> {
    if !is_writable(at.cast(), size_of::<T>()) {
        return Err(Errno::Efault.into());
    }
    // SAFETY: the kernel has just written there; that it is the caller's to be written, of whatever alignment, is what the
    // caller says by passing it.
    unsafe { at.write_unaligned(value) };
    Ok(())
}

/// Asks the kernel by letting it write: some random bytes, which are overwritten at once.
fn is_writable(at: *mut c_void, len: usize) -> bool {
    // SAFETY: the kernel checks the address, and answers EFAULT for one it cannot write to.
    let written = unsafe { libc::getrandom(at, len, 0) };
    !at.is_null() && usize::try_from(written) == Ok(len)
}
