//! Signals, and descriptors to poll for them (rsm 7.5).

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::AsRawFd;
use std::time::Duration;

use libc::{nfds_t, pollfd};
use windlass_abi::rsm::RSM_SIGPOST_NO_ACCUMULATE;
use windlass_rsm::{Code, Event};

use crate::edge::{Answer, call, place, store};
use crate::table::{self, Segment};

/// `int rsm_intr_signal_post(void *memseg, uint_t flags)` (section 7.5).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_intr_signal_post(memseg: *mut c_void, flags: c_uint) -> c_int {
    call(|| {
        let once = flags & RSM_SIGPOST_NO_ACCUMULATE != 0;
        match table::segment(memseg)? {
            Segment::Export(export) => export.post(once),
            Segment::Import(import) => import.post(once),
        }
    })
}

/// `int rsm_intr_signal_wait(void *memseg, int timeout)` (section 7.5).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_intr_signal_wait(memseg: *mut c_void, timeout: c_int) -> c_int {
    call(|| {
        let timeout = u64::try_from(timeout).ok().map(Duration::from_millis);
        match table::segment(memseg)? {
            Segment::Export(export) => export.wait(timeout),
            Segment::Import(import) => import.wait(timeout),
        }
    })
}

/// `int rsm_memseg_get_pollfd(void *memseg, struct pollfd *fd)` (section 7.5).
///
/// # Safety
/// `fd` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_get_pollfd(memseg: *mut c_void, fd: *mut pollfd) -> c_int {
    call(|| {
        let segment = table::segment(memseg)?;
        let at = place(fd, Code::BadAddr);
        let number = match (&segment, &at) {
            // What is wrong with the segment comes first, and is not counted.
            (Segment::Export(export), Err(_)) => {
                export.pollfd()?;
                export.release_pollfd();
                -1
            }
            (_, Err(_)) => -1,
            (Segment::Export(export), Ok(_)) => export.pollfd()?.as_raw_fd(),
            (Segment::Import(import), Ok(_)) => import.pollfd()?.as_raw_fd(),
        };
        let filled = pollfd {
            fd: number,
            events: libc::POLLRDNORM,
            revents: 0,
        };
        // SAFETY: the caller's promise.
        unsafe { store(at?, filled) };
        Ok(())
    })
}

/// `int rsm_memseg_release_pollfd(void *memseg)` (section 7.5).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_memseg_release_pollfd(memseg: *mut c_void) -> c_int {
    call(|| {
        match table::segment(memseg)? {
            Segment::Export(export) => export.release_pollfd(),
            Segment::Import(import) => import.release_pollfd(),
        }
        Ok(())
    })
}

/// `int rsm_intr_signal_wait_pollfd(struct pollfd fds[], nfds_t nfds, int timeout, int *numfdsp)` (section 7.5).
///
/// # Safety
/// `fds` is null or `nfds` entries of the caller's to be read and written, `numfdsp` null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_intr_signal_wait_pollfd(
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout: c_int,
    numfdsp: *mut c_int,
) -> c_int {
    call(|| {
        let fds = place(fds, Code::BadAddr)?;
        let count_at = place(numfdsp, Code::BadAddr)?;
        // The kernel would look at the low half alone.
        let entries = c_uint::try_from(nfds).map_err(|_| Code::BadArgsErrors)?;
        // SAFETY: the caller's promise; the kernel checks the array.
        let ready = unsafe { libc::poll(fds, nfds, timeout) };
        if ready < 0 {
            return Err(failed());
        }
        let mut count = 0;
        for index in 0..entries as usize {
            // SAFETY: so many entries are there by the caller's promise, and the kernel has just read and written them.
            let entry = unsafe { &mut *fds.add(index) };
            if entry.revents != 0 {
                entry.revents = take(entry)?;
            }
            count += c_int::from(entry.revents != 0);
        }
        // SAFETY: the caller's promise.
        unsafe { store(count_at, count) };
        match count {
            0 => Err(Code::Timeout),
            _ => Ok(()),
        }
    })
}

/// Of a segment's descriptor one event; of another one what poll says.
fn take(entry: &pollfd) -> Answer<i16> {
    let Some(segment) = table::polled(entry.fd) else {
        return Ok(entry.revents);
    };
    Ok(match segment.signals().take() {
        Event::Taken => libc::POLLRDNORM,
        Event::None => 0,
        Event::Ended => libc::POLLHUP,
    })
}

fn failed() -> Code {
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EINTR) => Code::Interrupted,
        Some(libc::EFAULT) => Code::BadAddr,
        Some(libc::EINVAL) => Code::BadArgsErrors,
        Some(libc::ENOMEM) => Code::InsufficientMem,
        _ => Code::InsufficientResources,
    }
}
