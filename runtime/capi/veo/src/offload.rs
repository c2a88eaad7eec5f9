//! ve_offload.h: processes, libraries, contexts.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};

use windlass_abi::veo::{
    VEO_API_VERSION, VEO_DEFAULT_STACKSIZE, VEO_MAX_HMEM_PROCS, VEO_STACK_MIN, VEO_STATE_UNKNOWN,
    VEO_SYMNAME_LEN_MAX, veo_proc_handle, veo_thr_ctxt, veo_thr_ctxt_attr,
};
use windlass_ve::Generation;

use crate::card;
use crate::edge::{EINVAL, Errno, Result, attempt, edge, fail, set_errno, store, string};
use crate::node::{
    Environment, check_node, check_variables, name_overruled_variables, name_unknown_variables,
};
use crate::protocol::{NAME_LIMIT, Request};
use crate::registry;

/// `int veo_api_version(void)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_api_version() -> c_int {
    VEO_API_VERSION
}

/// `const char *veo_version_string(void)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_version_string() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(
        concat!("windlass ", env!("CARGO_PKG_VERSION"), " (emulated)\0").as_bytes(),
    ) {
        Ok(text) => text,
        Err(_) => c"windlass",
    };
    TEXT.as_ptr()
}

/// `int veo_get_ve_arch(int)`: 1 or 3, as the VE node of this program's processes says; 0 for a node that is none.
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_ve_arch(node: c_int) -> c_int {
    let arch = || {
        let node = Environment::read().and_then(|environment| environment.node(node));
        let node = node.map_err(|no| no.errno)?;
        let profile = match card::node() {
            Some(running) if node as usize >= running.ves.len() => return Err(Errno(libc::ENODEV)),
            Some(running) => card::profile_of(&running),
            None => card::profile_to_be().ok(),
        };
        Ok(match profile.ok_or(EINVAL)?.generation {
            Generation::Ve1 => 1,
            Generation::Ve3 => 3,
        })
    };
    // Programs ask in turn for one after the other, to see how many there are: the answer says it all.
    attempt(arch).unwrap_or_else(|errno| {
        set_errno(errno.0);
        0
    })
}

fn create(call: &str, wanted: c_int, program: Option<&CStr>) -> *mut veo_proc_handle {
    edge(call, std::ptr::null_mut(), || {
        name_unknown_variables();
        let node = Environment::read().and_then(|environment| environment.node(wanted));
        let node = node.and_then(|node| {
            check_variables()?;
            check_node(node)?;
            name_overruled_variables();
            Ok(node)
        });
        let node = node.map_err(|no| no.told(&format!("{call}({wanted})")))?;
        Ok(registry::create(node, program)? as *mut veo_proc_handle)
    })
}

/// `struct veo_proc_handle *veo_proc_create(int)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_proc_create(node: c_int) -> *mut veo_proc_handle {
    create("veo_proc_create", node, None)
}

/// `struct veo_proc_handle *veo_proc_create_static(int, char *)`: an executable that takes aveorun's place and runs it in
/// the end, or a shared library whose functions are found without a library's handle.
///
/// # Safety
/// `program` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_proc_create_static(
    node: c_int,
    program: *mut c_char,
) -> *mut veo_proc_handle {
    const CALL: &str = "veo_proc_create_static";
    // SAFETY: the caller's promise.
    if unsafe { string(program, NAME_LIMIT) }.is_err() {
        return fail(CALL, std::ptr::null_mut(), EINVAL);
    }
    // SAFETY: not null, as `string` found, so a C string.
    create(CALL, node, Some(unsafe { CStr::from_ptr(program) }))
}

/// `int veo_proc_destroy(struct veo_proc_handle *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_proc_destroy(handle: *mut veo_proc_handle) -> c_int {
    edge("veo_proc_destroy", -1, || {
        registry::destroy(handle as usize).map(|()| 0)
    })
}

/// `int veo_proc_identifier(struct veo_proc_handle *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_proc_identifier(handle: *mut veo_proc_handle) -> c_int {
    edge("veo_proc_identifier", -1, || {
        Ok(registry::identifier(handle as usize)? as c_int)
    })
}

/// `int veo_get_max_proc_identifier(void)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_max_proc_identifier() -> c_int {
    VEO_MAX_HMEM_PROCS as c_int
}

/// What the main context of a process answers to `request`.
fn ask(handle: *mut veo_proc_handle, request: &Request<'_>) -> Result<u64> {
    let context = registry::main_context(handle as usize)?;
    let turn = context.turn()?;
    Ok(turn.link().ask(request)?.value)
}

/// `uint64_t veo_load_library(struct veo_proc_handle *, const char *)`
///
/// # Safety
/// `path` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_load_library(
    handle: *mut veo_proc_handle,
    path: *const c_char,
) -> u64 {
    edge("veo_load_library", 0, || {
        // SAFETY: the caller's promise.
        let path = unsafe { string(path, NAME_LIMIT) }?;
        ask(handle, &Request::Load { path })
    })
}

/// `int veo_unload_library(struct veo_proc_handle *, const uint64_t)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_unload_library(handle: *mut veo_proc_handle, library: u64) -> c_int {
    edge("veo_unload_library", -1, || {
        ask(handle, &Request::Unload { library }).map(|_| 0)
    })
}

/// The address of a function or variable, asked of a process.
///
/// # Safety
/// `name` is null or a C string.
pub(crate) unsafe fn symbol(
    handle: *mut veo_proc_handle,
    library: u64,
    name: *const c_char,
) -> Result<u64> {
    // SAFETY: the caller's promise.
    let name = unsafe { string(name, VEO_SYMNAME_LEN_MAX) }?;
    let function = ask(handle, &Request::Symbol { library, name })?;
    if let Ok(process) = registry::process(handle as usize) {
        process.life().know(function, name);
    }
    Ok(function)
}

/// `uint64_t veo_get_sym(struct veo_proc_handle *, uint64_t, const char *)`
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_get_sym(
    handle: *mut veo_proc_handle,
    library: u64,
    name: *const c_char,
) -> u64 {
    // SAFETY: the caller's promise.
    edge("veo_get_sym", 0, || unsafe {
        symbol(handle, library, name)
    })
}

/// `int veo_num_contexts(struct veo_proc_handle *)`: the main one is counted.
#[unsafe(no_mangle)]
pub extern "C" fn veo_num_contexts(handle: *mut veo_proc_handle) -> c_int {
    edge("veo_num_contexts", -1, || {
        Ok(registry::process(handle as usize)?.contexts() as c_int)
    })
}

/// `struct veo_thr_ctxt *veo_get_context(struct veo_proc_handle *, int)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_context(handle: *mut veo_proc_handle, index: c_int) -> *mut veo_thr_ctxt {
    edge("veo_get_context", std::ptr::null_mut(), || {
        let process = registry::process(handle as usize)?;
        let context = usize::try_from(index)
            .ok()
            .and_then(|index| process.context(index));
        let none = || {
            format!(
                "context {index}: the process has {}, counted from 0",
                process.contexts()
            )
        };
        let context = context.ok_or_else(|| EINVAL.because(none));
        Ok(context?.handle as *mut veo_thr_ctxt)
    })
}

fn open(handle: *mut veo_proc_handle, stack: usize) -> Result<*mut veo_thr_ctxt> {
    let process = registry::process(handle as usize)?;
    Ok(registry::open(&process, stack)? as *mut veo_thr_ctxt)
}

/// `struct veo_thr_ctxt *veo_context_open(struct veo_proc_handle *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_context_open(handle: *mut veo_proc_handle) -> *mut veo_thr_ctxt {
    edge("veo_context_open", std::ptr::null_mut(), || {
        open(handle, VEO_DEFAULT_STACKSIZE)
    })
}

/// `struct veo_thr_ctxt *veo_context_open_with_attr(struct veo_proc_handle *, struct veo_thr_ctxt_attr *)`
///
/// # Safety
/// As for `stack_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_context_open_with_attr(
    handle: *mut veo_proc_handle,
    attributes: *mut veo_thr_ctxt_attr,
) -> *mut veo_thr_ctxt {
    edge("veo_context_open_with_attr", std::ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let stack = *unsafe { stack_size(attributes) }?;
        open(handle, stack)
    })
}

/// `int veo_context_close(struct veo_thr_ctxt *)`: requests are finished first; the main context stays open.
#[unsafe(no_mangle)]
pub extern "C" fn veo_context_close(context: *mut veo_thr_ctxt) -> c_int {
    edge("veo_context_close", -1, || {
        let context = registry::context(context as usize)?;
        registry::close(&context).map(|()| 0)
    })
}

/// `void veo_context_sync(struct veo_thr_ctxt *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_context_sync(context: *mut veo_thr_ctxt) {
    edge("veo_context_sync", (), || {
        registry::context(context as usize)?.synchronize();
        Ok(())
    });
}

/// `int veo_get_context_state(struct veo_thr_ctxt *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_context_state(context: *mut veo_thr_ctxt) -> c_int {
    edge("veo_get_context_state", VEO_STATE_UNKNOWN, || {
        match registry::context(context as usize) {
            Ok(context) => Ok(context.state()),
            // A handle that was closed.
            Err(errno) if errno != EINVAL => Ok(windlass_abi::veo::VEO_STATE_EXIT),
            Err(errno) => Err(errno),
        }
    })
}

/// `void veo_req_block_begin(struct veo_thr_ctxt *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_req_block_begin(context: *mut veo_thr_ctxt) {
    edge("veo_req_block_begin", (), || {
        registry::context(context as usize)?.block_begin();
        Ok(())
    });
}

/// `void veo_req_block_end(struct veo_thr_ctxt *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_req_block_end(context: *mut veo_thr_ctxt) {
    edge("veo_req_block_end", (), || {
        registry::context(context as usize)?.block_end();
        Ok(())
    });
}

/// `struct veo_thr_ctxt_attr *veo_alloc_thr_ctxt_attr(void)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_alloc_thr_ctxt_attr() -> *mut veo_thr_ctxt_attr {
    edge("veo_alloc_thr_ctxt_attr", std::ptr::null_mut(), || {
        Ok(Box::into_raw(Box::new(VEO_DEFAULT_STACKSIZE)).cast())
    })
}

/// `int veo_free_thr_ctxt_attr(struct veo_thr_ctxt_attr *)`
///
/// # Safety
/// `attributes` is null or what `veo_alloc_thr_ctxt_attr` gave, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_free_thr_ctxt_attr(attributes: *mut veo_thr_ctxt_attr) -> c_int {
    edge("veo_free_thr_ctxt_attr", -1, || {
        if attributes.is_null() {
            return Err(EINVAL);
        }
        // SAFETY: made by `Box::into_raw` of a `usize`; freed once, by the caller's promise.
        drop(unsafe { Box::from_raw(attributes.cast::<usize>()) });
        Ok(0)
    })
}

/// The stack size that attributes hold.
///
/// # Safety
/// `attributes` is null or was made by `veo_alloc_thr_ctxt_attr`, is not freed, and no other thread uses it during the
/// answer's life.
unsafe fn stack_size<'a>(attributes: *mut veo_thr_ctxt_attr) -> Result<&'a mut usize> {
    // SAFETY: `veo_alloc_thr_ctxt_attr` made it of a box of `usize`; the rest is the caller's promise.
    unsafe { attributes.cast::<usize>().as_mut() }.ok_or(EINVAL)
}

/// `int veo_set_thr_ctxt_stacksize(struct veo_thr_ctxt_attr *, size_t)`: 4 MiB and more.
///
/// # Safety
/// As for `stack_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_set_thr_ctxt_stacksize(
    attributes: *mut veo_thr_ctxt_attr,
    bytes: usize,
) -> c_int {
    edge("veo_set_thr_ctxt_stacksize", -1, || {
        // SAFETY: the caller's promise.
        let stack = unsafe { stack_size(attributes) }?;
        if bytes < VEO_STACK_MIN {
            return Err(
                EINVAL.because(|| format!("{bytes} bytes: a stack has {VEO_STACK_MIN} at least"))
            );
        }
        *stack = bytes;
        Ok(0)
    })
}

/// `int veo_get_thr_ctxt_stacksize(struct veo_thr_ctxt_attr *, size_t *)`
///
/// # Safety
/// As for `stack_size`; `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_get_thr_ctxt_stacksize(
    attributes: *mut veo_thr_ctxt_attr,
    bytes: *mut usize,
) -> c_int {
    edge("veo_get_thr_ctxt_stacksize", -1, || {
        if bytes.is_null() {
            return Err(EINVAL);
        }
        // SAFETY: the caller's promise.
        unsafe { store(bytes, *stack_size(attributes)?) };
        Ok(0)
    })
}
