//! The border to C: errno, strings, and no panic across it.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// Why a call failed, as an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

pub(crate) const EINVAL: Errno = Errno(libc::EINVAL);
pub(crate) const EFAULT: Errno = Errno(libc::EFAULT);
/// The VE process is dead, or the handle closed (ve-memory 7.4).
pub(crate) const EBUSY: Errno = Errno(libc::EBUSY);

pub(crate) type Result<T> = std::result::Result<T, Errno>;

thread_local! {
    /// Why the call that this thread is in fails, for the checking mode.
    static WHY: Cell<Option<String>> = const { Cell::new(None) };
}

impl Errno {
    /// The same, with what the checking mode says of it.
    pub(crate) fn because(self, why: impl FnOnce() -> String) -> Self {
        if checking() {
            WHY.set(Some(why()));
        }
        self
    }
}

/// Whether refusals are explained.
pub(crate) fn checking() -> bool {
    static CHECKING: OnceLock<bool> = OnceLock::new();
    *CHECKING.get_or_init(|| {
        std::env::var_os(windlass_ve::CHECK_VARIABLE).is_some_and(|value| value == "1")
    })
}

/// Runs the body of the C function `call`: `failed` and errno for an error, and for a panic (ECANCELED).
pub(crate) fn edge<T>(call: &str, failed: T, body: impl FnOnce() -> Result<T>) -> T {
    match attempt(body) {
        Ok(value) => value,
        Err(errno) => fail(call, failed, errno),
    }
}

/// How a C function fails: its answer, with errno.
pub(crate) fn fail<T>(call: &str, failed: T, errno: Errno) -> T {
    explain(call, errno);
    set_errno(errno.0);
    failed
}

/// The body of a C function whose failure is not a mistake of the program, or is told otherwise.
pub(crate) fn attempt<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    WHY.take();
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Errno(libc::ECANCELED)))
}

/// In the checking mode, why `call` fails with this errno.
pub(crate) fn explain(call: &str, errno: Errno) {
    if checking() {
        let why = WHY.take().unwrap_or_else(|| usual(errno).into());
        say(&format!("{call}: {}: {why}", name(errno)));
    }
}

/// What an errno means where nobody has said more.
fn usual(errno: Errno) -> &'static str {
    match errno {
        EBUSY => "the VE process has ended, or what the handle named was closed (ve-memory 7.4)",
        EFAULT => "a null pointer, or an address where no memory is",
        _ => "refused",
    }
}

/// The errno values that this library answers.
fn name(errno: Errno) -> String {
    let name = match errno.0 {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::E2BIG => "E2BIG",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::EIDRM => "EIDRM",
        libc::ENOTSUP => "ENOTSUP",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECANCELED => "ECANCELED",
        other => return format!("errno {other}"),
    };
    name.into()
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
        return Err(EINVAL.because(|| "a null pointer in place of a name".into()));
    }
    // SAFETY: not null, so a C string, by the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() > limit {
        let long = || format!("a name of {} bytes: {limit} are the most", bytes.len());
        return Err(Errno(libc::ENAMETOOLONG).because(long));
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
