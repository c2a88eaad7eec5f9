//! veo_vhveshm.h, veo_veshm.h, veo_vedma.h: what a VE process does with libsysve, done by the process of a handle.
//!
//! Calls run on the main context and wait for earlier requests there. Errors of this layer: ENOTSUP where the VE process
//! has no libsysve, EBUSY where it is gone (ve-memory 7.4).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use windlass_abi::vedma::ve_dma_handle_t;
use windlass_abi::veo::veo_proc_handle;
use windlass_abi::veshm::{VE_MEM_LOCAL, VE_REGISTER_VEMVA};

use crate::edge::{EFAULT, EINVAL, Errno, Result, edge, store};
use crate::protocol::{Function, Reply, Request, Words};
use crate::registry;

/// Every errno is below this.
const ERRNOS: i64 = 4096;

fn pass(handle: usize, function: Function, words: Words) -> Result<Reply> {
    let context = registry::main_context(handle)?;
    let turn = context.turn()?;
    turn.link().ask(&Request::System { function, words })
}

/// A result: -4096 < r < -1 is an errno; -1 comes back as it is (EPERM, without errno).
fn result(reply: &Reply) -> Result<i64> {
    let value = reply.value as i64;
    if value < -1 && value > -ERRNOS {
        return Err(Errno(-value as c_int));
    }
    Ok(value)
}

fn call(handle: usize, function: Function, words: Words) -> Result<i64> {
    result(&pass(handle, function, words)?)
}

fn word(number: impl Into<i64>) -> u64 {
    number.into() as u64
}

/// `int veo_shmget(struct veo_proc_handle *, key_t, size_t, int)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_shmget(
    handle: *mut veo_proc_handle,
    key: libc::key_t,
    size: usize,
    flags: c_int,
) -> c_int {
    edge(-1, || {
        let words = [word(key), size as u64, word(flags), 0, 0];
        Ok(call(handle as usize, Function::ShmGet, words)? as c_int)
    })
}

/// `void *veo_shmat(struct veo_proc_handle *, int, const void *, int, void **)`
///
/// # Safety
/// `vehva` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_shmat(
    handle: *mut veo_proc_handle,
    id: c_int,
    address: *const c_void,
    flags: c_int,
    vehva: *mut *mut c_void,
) -> *mut c_void {
    edge(usize::MAX as *mut c_void, || {
        if vehva.is_null() {
            return Err(EFAULT);
        }
        let words = [word(id), address as u64, word(flags), 0, 0];
        let reply = pass(handle as usize, Function::ShmAt, words)?;
        let at = result(&reply)?;
        if let (true, Ok(bytes)) = (at != -1, reply.bytes.try_into()) {
            // SAFETY: not null, so writable.
            unsafe { store(vehva, u64::from_le_bytes(bytes) as *mut c_void) };
        }
        Ok(at as *mut c_void)
    })
}

/// `int veo_shmdt(struct veo_proc_handle *, const void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_shmdt(handle: *mut veo_proc_handle, address: *const c_void) -> c_int {
    edge(-1, || {
        let words = [address as u64, 0, 0, 0, 0];
        Ok(call(handle as usize, Function::ShmDt, words)? as c_int)
    })
}

/// ve_shared_mem_open and close, by the process that an HMEM pointer names.
fn area(
    function: Function,
    hmem: *mut c_void,
    size: usize,
    syncnum: c_int,
    mode: c_longlong,
) -> c_int {
    edge(-1, || {
        let handle = registry::process_of(hmem as u64).ok_or(EINVAL)?.handle;
        let address = registry::address(hmem as u64);
        let words = [address, size as u64, word(syncnum), word(mode), 0];
        Ok(call(handle, function, words)? as c_int)
    })
}

/// `int veo_shared_mem_open(void *, size_t, int, long long)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_shared_mem_open(
    hmem: *mut c_void,
    size: usize,
    syncnum: c_int,
    mode: c_longlong,
) -> c_int {
    area(Function::MemOpen, hmem, size, syncnum, mode)
}

/// `int veo_shared_mem_close(void *, size_t, int, long long)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_shared_mem_close(
    hmem: *mut c_void,
    size: usize,
    syncnum: c_int,
    mode: c_longlong,
) -> c_int {
    area(Function::MemClose, hmem, size, syncnum, mode)
}

fn attach(
    handle: usize,
    pid: libc::pid_t,
    hmem: *mut c_void,
    size: usize,
    syncnum: c_int,
    mode: c_longlong,
) -> Result<u64> {
    let address = registry::address(hmem as u64);
    let words = [word(pid), address, size as u64, word(syncnum), word(mode)];
    let at = call(handle, Function::MemAttach, words)?;
    if at != -1 && mode & VE_REGISTER_VEMVA != 0 {
        let identifier = registry::identifier(handle)?;
        return registry::tagged(at as u64, identifier).ok_or(EINVAL);
    }
    Ok(at as u64)
}

/// `void *veo_shared_mem_attach(struct veo_proc_handle *, pid_t, void *, size_t, int, long long)`: with
/// VE_REGISTER_VEMVA an HMEM pointer, else a VEHVA.
#[unsafe(no_mangle)]
pub extern "C" fn veo_shared_mem_attach(
    handle: *mut veo_proc_handle,
    pid: libc::pid_t,
    hmem: *mut c_void,
    size: usize,
    syncnum: c_int,
    mode: c_longlong,
) -> *mut c_void {
    edge(usize::MAX as *mut c_void, || {
        let at = attach(handle as usize, pid, hmem, size, syncnum, mode)?;
        Ok(at as *mut c_void)
    })
}

/// `int veo_shared_mem_detach(struct veo_proc_handle *, void *, long long)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_shared_mem_detach(
    handle: *mut veo_proc_handle,
    address: *mut c_void,
    mode: c_longlong,
) -> c_int {
    edge(-1, || {
        let address = match address as u64 {
            // All ones is nothing to be detached (ve-memory 5.3), not a pointer.
            u64::MAX => u64::MAX,
            address => registry::address(address),
        };
        let words = [address, word(mode), 0, 0, 0];
        Ok(call(handle as usize, Function::MemDetach, words)? as c_int)
    })
}

/// A code of ve-memory 9.3, or of this layer: -ENOTSUP, -EBUSY, -EFAULT.
fn code(body: impl FnOnce() -> Result<Reply>) -> c_int {
    let outcome = edge(Err(Errno(libc::ECANCELED)), || Ok(body()));
    match outcome {
        Ok(reply) => reply.value as c_int,
        Err(Errno(errno)) => -errno,
    }
}

/// `int veo_dma_post(struct veo_proc_handle *, uint64_t, uint64_t, int, ve_dma_handle_t *)`
///
/// # Safety
/// `dma` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_dma_post(
    handle: *mut veo_proc_handle,
    to: u64,
    from: u64,
    size: c_int,
    dma: *mut ve_dma_handle_t,
) -> c_int {
    code(|| {
        if dma.is_null() {
            return Err(EFAULT);
        }
        let words = [to, from, word(size), 0, 0];
        let reply = pass(handle as usize, Function::DmaPost, words)?;
        if let Some((status, index)) = reply.bytes.split_first_chunk::<4>() {
            let status = c_int::from_le_bytes(*status);
            let index = index
                .first_chunk()
                .map_or(-1, |index| c_int::from_le_bytes(*index));
            // SAFETY: not null, so writable.
            unsafe { store(dma, ve_dma_handle_t { status, index }) };
        }
        Ok(reply)
    })
}

/// `int veo_dma_poll(struct veo_proc_handle *, ve_dma_handle_t *)`
///
/// # Safety
/// `dma` is null or readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_dma_poll(
    handle: *mut veo_proc_handle,
    dma: *mut ve_dma_handle_t,
) -> c_int {
    code(|| {
        if dma.is_null() {
            return Err(EFAULT);
        }
        // SAFETY: not null, so readable.
        let ve_dma_handle_t { status, index } = unsafe { dma.read_unaligned() };
        let words = [word(status), word(index), 0, 0, 0];
        pass(handle as usize, Function::DmaPoll, words)
    })
}

/// `int veo_dma_post_wait(struct veo_proc_handle *, uint64_t, uint64_t, int)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_dma_post_wait(
    handle: *mut veo_proc_handle,
    to: u64,
    from: u64,
    size: c_int,
) -> c_int {
    code(|| {
        let words = [to, from, word(size), 0, 0];
        pass(handle as usize, Function::DmaPostWait, words)
    })
}

/// `uint64_t veo_register_mem_to_dmaatb(void *, size_t)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_register_mem_to_dmaatb(hmem: *mut c_void, size: usize) -> u64 {
    edge(u64::MAX, || {
        let process = registry::process_of(hmem as u64).ok_or(EINVAL)?;
        attach(process.handle, process.pid(), hmem, size, 0, VE_MEM_LOCAL)
    })
}

/// `int veo_unregister_mem_from_dmaatb(struct veo_proc_handle *, uint64_t)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_unregister_mem_from_dmaatb(
    handle: *mut veo_proc_handle,
    vehva: u64,
) -> c_int {
    veo_shared_mem_detach(handle, vehva as *mut c_void, VE_MEM_LOCAL)
}

/// `void veo_access_pcircvsyc_register(struct veo_proc_handle *)`: on every context (ve-memory 8).
#[unsafe(no_mangle)]
pub extern "C" fn veo_access_pcircvsyc_register(handle: *mut veo_proc_handle) {
    edge((), || {
        let process = registry::process(handle as usize)?;
        let contexts = (0..process.contexts()).filter_map(|index| process.context(index));
        for context in contexts {
            let request = Request::System {
                function: Function::PciSync,
                words: Words::default(),
            };
            context.turn()?.link().ask(&request)?;
        }
        Ok(())
    });
}
