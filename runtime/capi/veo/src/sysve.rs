//! veo_vhveshm.h, veo_veshm.h, veo_vedma.h: what a VE process does with libsysve, done by the process of a handle.
//!
//! Calls run on the main context and wait for earlier requests there. Errors of this layer: ENOTSUP where the VE process
//! has no libsysve, EBUSY where it is gone (ve-memory 7.4).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use windlass_abi::vedma::ve_dma_handle_t;
use windlass_abi::veo::veo_proc_handle;
use windlass_abi::veshm::{VE_MEM_LOCAL, VE_REGISTER_VEMVA};

use crate::edge::{EFAULT, EINVAL, Errno, Result, attempt, checking, edge, explain, say, store};
use crate::memory::no_hmem;
use crate::protocol::{Function, Reply, Request, Words};
use crate::registry;

/// Every errno is below this.
const ERRNOS: i64 = 4096;

fn pass(handle: usize, function: Function, words: Words) -> Result<Reply> {
    let context = registry::main_context(handle)?;
    let turn = context.turn()?;
    let answer = turn.link().ask(&Request::System { function, words });
    answer.map_err(|errno| match errno {
        Errno(libc::ENOTSUP) => errno.because(|| {
            "the VE process has no libsysve.so.1 with that function (WINDLASS_LIBSYSVE)".into()
        }),
        other => other,
    })
}

/// What the VE process calls.
fn on_ve(function: Function) -> &'static str {
    match function {
        Function::ShmGet => "vh_shmget",
        Function::ShmAt => "vh_shmat",
        Function::ShmDt => "vh_shmdt",
        Function::MemOpen => "ve_shared_mem_open",
        Function::MemClose => "ve_shared_mem_close",
        Function::MemAttach => "ve_shared_mem_attach",
        Function::MemDetach => "ve_shared_mem_detach",
        Function::DmaPost => "ve_dma_post",
        Function::DmaPoll => "ve_dma_poll",
        Function::DmaPostWait => "ve_dma_post_wait",
        Function::PciSync => "ve_inst_lhm",
    }
}

/// A result: -4096 < r < -1 is an errno; -1 comes back as it is (EPERM, without errno).
fn result(function: Function, reply: &Reply) -> Result<i64> {
    let value = reply.value as i64;
    if value < -1 && value > -ERRNOS {
        let why = || {
            format!(
                "by {} on the VE, whose own line has the rule",
                on_ve(function)
            )
        };
        return Err(Errno(-value as c_int).because(why));
    }
    Ok(value)
}

fn call(handle: usize, function: Function, words: Words) -> Result<i64> {
    result(function, &pass(handle, function, words)?)
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
    edge("veo_shmget", -1, || {
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
    edge("veo_shmat", usize::MAX as *mut c_void, || {
        if vehva.is_null() {
            return Err(EFAULT);
        }
        let words = [word(id), address as u64, word(flags), 0, 0];
        let reply = pass(handle as usize, Function::ShmAt, words)?;
        let at = result(Function::ShmAt, &reply)?;
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
    edge("veo_shmdt", -1, || {
        let words = [address as u64, 0, 0, 0, 0];
        Ok(call(handle as usize, Function::ShmDt, words)? as c_int)
    })
}

/// ve_shared_mem_open and close, by the process that an HMEM pointer names.
fn area(
    call: &str,
    function: Function,
    hmem: *mut c_void,
    size: usize,
    syncnum: c_int,
    mode: c_longlong,
) -> c_int {
    edge(call, -1, || {
        let handle = registry::process_of(hmem as u64)
            .ok_or_else(no_hmem)?
            .handle;
        let address = registry::address(hmem as u64);
        let words = [address, size as u64, word(syncnum), word(mode), 0];
        Ok(self::call(handle, function, words)? as c_int)
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
    area(
        "veo_shared_mem_open",
        Function::MemOpen,
        hmem,
        size,
        syncnum,
        mode,
    )
}

/// `int veo_shared_mem_close(void *, size_t, int, long long)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_shared_mem_close(
    hmem: *mut c_void,
    size: usize,
    syncnum: c_int,
    mode: c_longlong,
) -> c_int {
    area(
        "veo_shared_mem_close",
        Function::MemClose,
        hmem,
        size,
        syncnum,
        mode,
    )
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
    edge("veo_shared_mem_attach", usize::MAX as *mut c_void, || {
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
    edge("veo_shared_mem_detach", -1, || {
        let address = match address as u64 {
            // All ones is nothing to be detached (ve-memory 5.3), not a pointer.
            u64::MAX => u64::MAX,
            address => registry::address(address),
        };
        let words = [address, word(mode), 0, 0, 0];
        Ok(call(handle as usize, Function::MemDetach, words)? as c_int)
    })
}

/// In the checking mode. Which of its two addresses it was, the VE process has said when it was posted.
fn explain_exception(call: &str, code: c_int) {
    if checking() {
        say(&format!(
            "{call}: the transfer ended with the exception {code:#06x} (ve-memory 9.3)"
        ));
    }
}

/// A code of ve-memory 9.3, or of this layer: -ENOTSUP, -EBUSY, -EFAULT.
fn code(call: &str, body: impl FnOnce() -> Result<Reply>) -> c_int {
    match attempt(body) {
        Ok(reply) => {
            let code = reply.value as c_int;
            if code > 0 {
                explain_exception(call, code);
            }
            code
        }
        Err(errno) => {
            explain(call, errno);
            -errno.0
        }
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
    code("veo_dma_post", || {
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
    code("veo_dma_poll", || {
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
    code("veo_dma_post_wait", || {
        let words = [to, from, word(size), 0, 0];
        pass(handle as usize, Function::DmaPostWait, words)
    })
}

/// `uint64_t veo_register_mem_to_dmaatb(void *, size_t)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_register_mem_to_dmaatb(hmem: *mut c_void, size: usize) -> u64 {
    edge("veo_register_mem_to_dmaatb", u64::MAX, || {
        let process = registry::process_of(hmem as u64).ok_or_else(no_hmem)?;
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
    edge("veo_access_pcircvsyc_register", (), || {
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
