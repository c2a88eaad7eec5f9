//! ve_offload.h: calls of functions, and their results.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

use windlass_abi::veo::{
    HostFunction, VEO_COMMAND_OK, VEO_COMMAND_UNFINISHED, VEO_REQUEST_ID_INVALID, veo_args,
    veo_proc_handle, veo_thr_ctxt,
};

use crate::args::{Args, Call, arguments};
use crate::context::Command;
use crate::edge::{EBUSY, EINVAL, Result, edge, store};
use crate::link::Place;
use crate::offload::symbol;
use crate::registry;

/// A call of `function`. Null stands for no arguments.
///
/// # Safety
/// As for `arguments` and `Args::call`.
unsafe fn prepare(function: u64, args: *mut veo_args) -> Result<Call> {
    if function == 0 {
        return Err(EINVAL.because(|| "function 0: veo_get_sym found none".into()));
    }
    if args.is_null() {
        // SAFETY: no arguments, so no buffers.
        return unsafe { Args::default().call(function) };
    }
    // SAFETY: the caller's promise.
    unsafe { arguments(args)?.call(function) }
}

/// `int veo_call_sync(struct veo_proc_handle *, uint64_t, struct veo_args *, uint64_t *)`: by the main context.
///
/// # Safety
/// `args` is null or from `veo_args_alloc`, its buffers are valid; `function` takes such arguments; `result` is null or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_call_sync(
    handle: *mut veo_proc_handle,
    function: u64,
    args: *mut veo_args,
    result: *mut u64,
) -> c_int {
    edge("veo_call_sync", -1, || {
        // SAFETY: the caller's promise.
        let call = unsafe { prepare(function, args) }?;
        let context = registry::main_context(handle as usize)?;
        match context.turn()?.call(call) {
            (VEO_COMMAND_OK, value) => {
                // SAFETY: the caller's promise.
                unsafe { store(result, value) };
                Ok(0)
            }
            _ => Err(EBUSY),
        }
    })
}

fn submit(context: *mut veo_thr_ctxt, command: Command) -> Result<u64> {
    registry::context(context as usize)?.submit(command)
}

/// `uint64_t veo_call_async(struct veo_thr_ctxt *, uint64_t, struct veo_args *)`
///
/// # Safety
/// As for [`veo_call_sync`]; buffers stay valid until the result was picked up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_call_async(
    context: *mut veo_thr_ctxt,
    function: u64,
    args: *mut veo_args,
) -> u64 {
    edge("veo_call_async", VEO_REQUEST_ID_INVALID, || {
        // SAFETY: the caller's promise.
        let call = unsafe { prepare(function, args) }?;
        submit(context, Command::Call(call))
    })
}

/// `uint64_t veo_call_async_by_name(struct veo_thr_ctxt *, uint64_t, const char *, struct veo_args *)`
///
/// # Safety
/// As for [`veo_call_async`]; `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_call_async_by_name(
    context: *mut veo_thr_ctxt,
    library: u64,
    name: *const c_char,
    args: *mut veo_args,
) -> u64 {
    edge("veo_call_async_by_name", VEO_REQUEST_ID_INVALID, || {
        let process = registry::context(context as usize)?.process as *mut veo_proc_handle;
        // SAFETY: the caller's promise.
        let call = unsafe { prepare(symbol(process, library, name)?, args) }?;
        submit(context, Command::Call(call))
    })
}

/// `uint64_t veo_call_async_vh(struct veo_thr_ctxt *, uint64_t (*)(void *), void *)`
///
/// # Safety
/// `function` takes `argument`, on a thread of the library, until the result was picked up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_call_async_vh(
    context: *mut veo_thr_ctxt,
    function: Option<HostFunction>,
    argument: *mut c_void,
) -> u64 {
    edge("veo_call_async_vh", VEO_REQUEST_ID_INVALID, || {
        let null = || EINVAL.because(|| "a null pointer in place of a function".into());
        let function = function.ok_or_else(null)?;
        let argument = Place(argument.cast());
        submit(context, Command::Host { function, argument })
    })
}

/// `int veo_call_wait_result(struct veo_thr_ctxt *, uint64_t, uint64_t *)`
///
/// # Safety
/// `result` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_call_wait_result(
    context: *mut veo_thr_ctxt,
    request: u64,
    result: *mut u64,
) -> c_int {
    edge("veo_call_wait_result", -1, || {
        let (status, value) = registry::context(context as usize)?.wait(request);
        // SAFETY: the caller's promise.
        unsafe { store(result, value) };
        Ok(status)
    })
}

/// `int veo_call_peek_result(struct veo_thr_ctxt *, uint64_t, uint64_t *)`
///
/// # Safety
/// `result` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_call_peek_result(
    context: *mut veo_thr_ctxt,
    request: u64,
    result: *mut u64,
) -> c_int {
    edge("veo_call_peek_result", -1, || {
        let (status, value) = registry::context(context as usize)?.peek(request);
        if status != VEO_COMMAND_UNFINISHED {
            // SAFETY: the caller's promise.
            unsafe { store(result, value) };
        }
        Ok(status)
    })
}

/// `uint64_t veo_async_read_mem(struct veo_thr_ctxt *, void *, uint64_t, size_t)`
///
/// # Safety
/// `to` is writable for `len` bytes, and left alone until the result was picked up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_async_read_mem(
    context: *mut veo_thr_ctxt,
    to: *mut c_void,
    from: u64,
    len: usize,
) -> u64 {
    let to = Place(to.cast());
    edge("veo_async_read_mem", VEO_REQUEST_ID_INVALID, || {
        submit(context, Command::Read { to, from, len })
    })
}

/// `uint64_t veo_async_write_mem(struct veo_thr_ctxt *, uint64_t, const void *, size_t)`
///
/// # Safety
/// `from` is readable for `len` bytes, and not written until the result was picked up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_async_write_mem(
    context: *mut veo_thr_ctxt,
    to: u64,
    from: *const c_void,
    len: usize,
) -> u64 {
    let from = Place(from.cast::<u8>().cast_mut());
    edge("veo_async_write_mem", VEO_REQUEST_ID_INVALID, || {
        submit(context, Command::Write { to, from, len })
    })
}
