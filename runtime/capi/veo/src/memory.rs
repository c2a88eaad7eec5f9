//! ve_offload.h and veo_hmem.h: VE memory, and pointers that say whose memory they mean.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use windlass_abi::veo::{
    VEO_MAX_HMEM_PROCS, VEO_REQUEST_ID_INVALID, veo_proc_handle, veo_thr_ctxt,
};

use crate::context::Command;
use crate::edge::{EBUSY, EFAULT, EINVAL, Errno, Result, attempt, edge, fail, store};
use crate::hooks::{self, Hooked};
use crate::link::Place;
use crate::protocol::Request;
use crate::registry;

/// One request to the main context.
fn ask(handle: usize, request: &Request<'_>) -> Result<u64> {
    let context = registry::main_context(handle)?;
    let turn = context.turn()?;
    Ok(turn.link().ask(request)?.value)
}

fn alloc(handle: usize, len: usize) -> Result<u64> {
    let bytes = len as u64;
    ask(handle, &Request::Alloc { bytes }).map_err(|errno| no_memory(errno, bytes))
}

/// Why the VE has none.
pub(crate) fn no_memory(errno: Errno, bytes: u64) -> Errno {
    if errno != Errno(libc::ENOMEM) {
        return errno;
    }
    errno.because(|| {
        format!("{bytes:#x} bytes: so much in one piece is not left of the VE's memory (48 GiB, on VE3 96)")
    })
}

/// -1 for no memory, -2 for everything else (ve-memory 12).
fn allocated(call: &str, body: impl FnOnce() -> Result<()>) -> c_int {
    match attempt(body) {
        Ok(()) => 0,
        Err(errno @ Errno(libc::ENOMEM)) => fail(call, -1, errno),
        Err(errno) => fail(call, -2, errno),
    }
}

/// `int veo_alloc_mem(struct veo_proc_handle *, uint64_t *, const size_t)`
///
/// # Safety
/// `address` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_alloc_mem(
    handle: *mut veo_proc_handle,
    address: *mut u64,
    len: usize,
) -> c_int {
    let body = || {
        if address.is_null() {
            return Err(EFAULT);
        }
        let block = alloc(handle as usize, len)?;
        // SAFETY: not null, so writable.
        unsafe { store(address, block) };
        hooks::allocated(Hooked::AllocMem, handle.cast(), address as u64, len);
        Ok(())
    };
    allocated("veo_alloc_mem", body)
}

/// `int veo_free_mem(struct veo_proc_handle *, uint64_t)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_free_mem(handle: *mut veo_proc_handle, address: u64) -> c_int {
    edge("veo_free_mem", -1, || {
        ask(handle as usize, &Request::Free { address })?;
        hooks::freed(Hooked::FreeMem, handle.cast(), address);
        Ok(0)
    })
}

/// `uint64_t veo_alloc_mem_async(struct veo_thr_ctxt *, const size_t)`: the result is the address.
#[unsafe(no_mangle)]
pub extern "C" fn veo_alloc_mem_async(context: *mut veo_thr_ctxt, len: usize) -> u64 {
    edge("veo_alloc_mem_async", VEO_REQUEST_ID_INVALID, || {
        let bytes = len as u64;
        let submitted =
            registry::context(context as usize)?.submit(Command::Ask(Request::Alloc { bytes }))?;
        hooks::allocating(context, submitted, len)
    })
}

/// `uint64_t veo_free_mem_async(struct veo_thr_ctxt *, uint64_t)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_free_mem_async(context: *mut veo_thr_ctxt, address: u64) -> u64 {
    edge("veo_free_mem_async", VEO_REQUEST_ID_INVALID, || {
        let submitted =
            registry::context(context as usize)?.submit(Command::Ask(Request::Free { address }))?;
        hooks::freeing(context, submitted, address)
    })
}

/// `int veo_write_mem(struct veo_proc_handle *, uint64_t, const void *, size_t)`
///
/// # Safety
/// `from` is readable for `len` bytes, and nobody writes there meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_write_mem(
    handle: *mut veo_proc_handle,
    to: u64,
    from: *const c_void,
    len: usize,
) -> c_int {
    edge("veo_write_mem", -1, || {
        // SAFETY: the caller's promise.
        unsafe { write(handle as usize, to, from, len) }.map(|()| 0)
    })
}

/// # Safety
/// As for [`veo_write_mem`].
unsafe fn write(handle: usize, to: u64, from: *const c_void, len: usize) -> Result<()> {
    let context = registry::main_context(handle)?;
    let from = Place(from.cast::<u8>().cast_mut());
    let turn = context.turn()?;
    // SAFETY: the caller's promise.
    unsafe { turn.link().write(to, from, len) }
}

/// `int veo_read_mem(struct veo_proc_handle *, void *, uint64_t, size_t)`
///
/// # Safety
/// `to` is writable for `len` bytes, and nobody uses it meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_read_mem(
    handle: *mut veo_proc_handle,
    to: *mut c_void,
    from: u64,
    len: usize,
) -> c_int {
    edge("veo_read_mem", -1, || {
        // SAFETY: the caller's promise.
        unsafe { read(handle as usize, to, from, len) }.map(|()| 0)
    })
}

/// # Safety
/// As for [`veo_read_mem`].
unsafe fn read(handle: usize, to: *mut c_void, from: u64, len: usize) -> Result<()> {
    let context = registry::main_context(handle)?;
    let to = Place(to.cast());
    let turn = context.turn()?;
    // SAFETY: the caller's promise.
    unsafe { turn.link().read(to, from, len) }
}

/// `int veo_is_ve_addr(const void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_is_ve_addr(pointer: *const c_void) -> c_int {
    c_int::from(registry::is_ve(pointer as u64))
}

/// EINVAL for a pointer that is to have the tag of a VE process.
pub(crate) fn no_hmem() -> Errno {
    EINVAL.because(|| "no pointer of veo_alloc_hmem to a VE process that is there".into())
}

/// `void *veo_get_hmem_addr(void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_hmem_addr(pointer: *mut c_void) -> *mut c_void {
    registry::address(pointer as u64) as *mut c_void
}

/// `void *veo_set_proc_identifier(void *, int)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_set_proc_identifier(address: *mut c_void, identifier: c_int) -> *mut c_void {
    edge("veo_set_proc_identifier", std::ptr::null_mut(), || {
        let known = usize::try_from(identifier).ok();
        let pointer = known.and_then(|known| registry::tagged(address as u64, known));
        let pointer = pointer.ok_or_else(|| {
            let last = VEO_MAX_HMEM_PROCS - 1;
            EINVAL.because(|| format!("processes have the numbers 0 to {last} in pointers"))
        })?;
        Ok(pointer as *mut c_void)
    })
}

/// `int veo_get_proc_identifier_from_hmem(const void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_proc_identifier_from_hmem(pointer: *const c_void) -> c_int {
    edge("veo_get_proc_identifier_from_hmem", -1, || {
        let identifier = registry::identifier_of(pointer as u64).ok_or_else(no_hmem)?;
        Ok(identifier as c_int)
    })
}

/// `struct veo_proc_handle *veo_get_proc_handle_from_hmem(const void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_proc_handle_from_hmem(pointer: *const c_void) -> *mut veo_proc_handle {
    edge(
        "veo_get_proc_handle_from_hmem",
        std::ptr::null_mut(),
        || {
            let process = registry::process_of(pointer as u64).ok_or_else(no_hmem)?;
            Ok(process.handle as *mut veo_proc_handle)
        },
    )
}

/// `pid_t veo_get_pid_from_hmem(const void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_pid_from_hmem(pointer: *const c_void) -> libc::pid_t {
    edge("veo_get_pid_from_hmem", -1, || {
        let process = registry::process_of(pointer as u64).ok_or_else(no_hmem)?;
        // The pid of a dead process may be another one's.
        process.alive().then(|| process.pid()).ok_or(EBUSY)
    })
}

/// `int veo_get_venum_from_hmem(const void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_venum_from_hmem(pointer: *const c_void) -> c_int {
    edge("veo_get_venum_from_hmem", -1, || {
        Ok(registry::process_of(pointer as u64)
            .ok_or_else(no_hmem)?
            .node)
    })
}

/// `int veo_alloc_hmem(struct veo_proc_handle *, void **, const size_t)`: without a handle, VH memory.
///
/// # Safety
/// `pointer` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_alloc_hmem(
    handle: *mut veo_proc_handle,
    pointer: *mut *mut c_void,
    len: usize,
) -> c_int {
    let body = || {
        if pointer.is_null() {
            return Err(EFAULT);
        }
        if handle.is_null() {
            // SAFETY: takes an integer. `veo_free_hmem` gives it back to free(3).
            let block = unsafe { libc::malloc(len.max(1)) };
            if block.is_null() {
                return Err(Errno(libc::ENOMEM));
            }
            // SAFETY: not null, so writable.
            unsafe { store(pointer, block) };
            return Ok(());
        }
        let identifier = registry::identifier(handle as usize)?;
        if identifier >= VEO_MAX_HMEM_PROCS {
            // As no memory: -1 (ve-memory 12).
            return Err(Errno(libc::ENOMEM).because(|| {
                format!(
                    "pointers have numbers for {VEO_MAX_HMEM_PROCS} VE processes; use veo_alloc_mem"
                )
            }));
        }
        let block = alloc(handle as usize, len)?;
        let tagged = registry::tagged(block, identifier).ok_or(EINVAL)? as *mut c_void;
        // SAFETY: not null, so writable.
        unsafe { store(pointer, tagged) };
        hooks::allocated(Hooked::AllocHmem, handle.cast(), tagged as u64, len);
        Ok(())
    };
    allocated("veo_alloc_hmem", body)
}

/// `int veo_free_hmem(void *)`
///
/// # Safety
/// A pointer to VH memory is one of `veo_alloc_hmem`, or null, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_free_hmem(pointer: *mut c_void) -> c_int {
    edge("veo_free_hmem", -1, || {
        if !registry::is_ve(pointer as u64) {
            // SAFETY: malloc's, by the caller's promise.
            unsafe { libc::free(pointer) };
            return Ok(0);
        }
        let handle = registry::process_of(pointer as u64).ok_or(EBUSY)?.handle;
        let address = registry::address(pointer as u64);
        ask(handle, &Request::Free { address })?;
        hooks::freed(Hooked::FreeHmem, handle as *mut c_void, pointer as u64);
        Ok(0)
    })
}

/// `int veo_hmemcpy(void *, const void *, size_t)`
///
/// # Safety
/// A pointer to VH memory is valid for `len` bytes, and nobody else uses it meanwhile; two of them do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_hmemcpy(to: *mut c_void, from: *const c_void, len: usize) -> c_int {
    let (there, here) = (to as u64, from as u64);
    edge("veo_hmemcpy", -1, || {
        let owner = |pointer| Ok(registry::process_of(pointer).ok_or(EBUSY)?.handle);
        let address = registry::address;
        match (registry::is_ve(there), registry::is_ve(here)) {
            // SAFETY: the caller's promise.
            (true, false) => unsafe { write(owner(there)?, address(there), from, len) }?,
            // SAFETY: the caller's promise.
            (false, true) => unsafe { read(owner(here)?, to, address(here), len) }?,
            (false, false) if len == 0 => {}
            (false, false) if to.is_null() || from.is_null() => return Err(EFAULT),
            // SAFETY: the caller's promise, and not null; overlapping is allowed here.
            (false, false) => unsafe { from.cast::<u8>().copy_to(to.cast(), len) },
            (true, true) => {
                let handle = owner(there)?;
                if handle != owner(here)? {
                    return Err(EINVAL.because(|| {
                        "from one VE process to another: copy by way of the VH".into()
                    }));
                }
                let copy = Request::Copy {
                    to: address(there),
                    from: address(here),
                    bytes: len as u64,
                };
                ask(handle, &copy)?;
            }
        }
        Ok(0)
    })
}
