//! `vhshm.h` (ve-memory section 7).

use std::ffi::{c_int, c_void};

use libc::{key_t, size_t};
use windlass_ve::Errno;

use crate::edge::{Answer, call, store};
use crate::seat::seat;

/// What `vh_shmat` answers on failure.
const FAILED: usize = usize::MAX;

/// `int vh_shmget(key_t key, size_t size, int shmflag)` (section 7.1).
#[unsafe(no_mangle)]
pub extern "C" fn vh_shmget(key: key_t, size: size_t, shmflag: c_int) -> c_int {
    call(-1, || Ok(seat()?.process.vh_shmget(key, size, shmflag)?))
}

/// `void *vh_shmat(int shmid, const void *shmaddr, int shmflag, void **vehva)` (section 7.2).
///
/// # Safety
/// `vehva` is null, not mapped, or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vh_shmat(
    shmid: c_int,
    shmaddr: *const c_void,
    shmflag: c_int,
    vehva: *mut *mut c_void,
) -> *mut c_void {
    let attached = call(FAILED, || attach(shmid, shmaddr, shmflag, vehva));
    std::ptr::with_exposed_provenance_mut(attached)
}

fn attach(
    shmid: c_int,
    shmaddr: *const c_void,
    shmflag: c_int,
    vehva: *mut *mut c_void,
) -> Answer<usize> {
    /// Flags that are refused (section 7.2, third row).
    const REFUSED: c_int = libc::SHM_EXEC | libc::SHM_REMAP | libc::SHM_RND;
    let seat = seat()?;
    if !shmaddr.is_null() || shmflag & REFUSED != 0 {
        let rule = "shmaddr must be NULL and shmflag 0 or SHM_RDONLY (ve-memory 7.2)";
        return Err(seat.refuse("vh_shmat", Errno::Einval, rule));
    }
    if vehva.is_null() {
        return Err(seat.refuse(
            "vh_shmat",
            Errno::Efault,
            "vehva must not be null (ve-memory 7.2)",
        ));
    }
    let process = &seat.process;
    let segment = process.vh_shmat(shmid, shmflag)?;
    let at = std::ptr::with_exposed_provenance_mut(segment.vehva.raw() as usize);
    let settled = windlass_mem::map::keep_from_children(&segment.bytes);
    let stored = settled
        .map_err(|_| Errno::Enomem.into())
        .and_then(|()| store(vehva, at));
    if let Err(refused) = stored {
        // The process cannot know of it: whatever this answers, nothing else can be done.
        let _ = process.vh_shmdt(segment.address);
        return Err(refused);
    }
    Ok(segment.address)
}

/// `int vh_shmdt(const void *shmaddr)` (section 7.3).
#[unsafe(no_mangle)]
pub extern "C" fn vh_shmdt(shmaddr: *const c_void) -> c_int {
    call(-1, || {
        seat()?.process.vh_shmdt(shmaddr.addr())?;
        Ok(0)
    })
}
