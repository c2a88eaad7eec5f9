//! libveo.so.1: ve_offload.h, veo_hmem.h, veo_vhveshm.h, veo_veshm.h, veo_vedma.h (ve-memory 4, 12).
#![allow(non_camel_case_types, reason = "the names of the C headers")]

use std::ffi::{c_char, c_int, c_void};

/// What `veo_api_version` answers (ve-memory 12).
pub const VEO_API_VERSION: c_int = 16;
/// Soname of the library.
pub const SONAME: &str = "libveo.so.1";

/// Arguments of a call at most.
pub const VEO_MAX_NUM_ARGS: usize = 256;
/// Characters of a symbol's name at most.
pub const VEO_SYMNAME_LEN_MAX: usize = 255;
/// No request.
pub const VEO_REQUEST_ID_INVALID: u64 = u64::MAX;
/// Processes that HMEM pointers can tell apart (ve-memory 12).
pub const VEO_MAX_HMEM_PROCS: usize = 16;

/// `enum veo_context_state`.
pub const VEO_STATE_UNKNOWN: c_int = 0;
/// The context accepts requests.
pub const VEO_STATE_RUNNING: c_int = 1;
/// The context or its process has ended.
pub const VEO_STATE_EXIT: c_int = 4;

/// `enum veo_command_state`: the request was carried out.
pub const VEO_COMMAND_OK: c_int = 0;
/// The VE function ended its process.
pub const VEO_COMMAND_EXCEPTION: c_int = 1;
/// The request could not be carried out, or its id is not known.
pub const VEO_COMMAND_ERROR: c_int = 2;
/// Not yet.
pub const VEO_COMMAND_UNFINISHED: c_int = 3;

/// `enum veo_args_intent`: the VE function reads the buffer.
pub const VEO_INTENT_IN: c_int = 0;
/// It reads and writes it.
pub const VEO_INTENT_INOUT: c_int = 1;
/// It writes it.
pub const VEO_INTENT_OUT: c_int = 2;

/// Bit 63 of an HMEM pointer: it points to VE memory.
pub const HMEM_VE: u64 = 1 << 63;
/// First of the four bits of an HMEM pointer that name the process.
pub const HMEM_PROCESS_SHIFT: u32 = 59;
/// All bits that are not address.
pub const HMEM_TAG: u64 = HMEM_VE | 0xf << HMEM_PROCESS_SHIFT;

/// Default stack of a context, in bytes.
pub const VEO_DEFAULT_STACKSIZE: usize = 128 << 20;
/// Smallest stack that `veo_set_thr_ctxt_stacksize` accepts, in bytes.
pub const VEO_STACK_MIN: usize = 4 << 20;

/// `struct veo_proc_handle`: never looked into.
#[repr(C)]
#[derive(Debug)]
pub struct veo_proc_handle {
    _opaque: [u8; 0],
}

/// `struct veo_thr_ctxt`: never looked into.
#[repr(C)]
#[derive(Debug)]
pub struct veo_thr_ctxt {
    _opaque: [u8; 0],
}

/// `struct veo_args`: never looked into by callers.
#[repr(C)]
#[derive(Debug)]
pub struct veo_args {
    _opaque: [u8; 0],
}

/// `struct veo_thr_ctxt_attr`: never looked into by callers.
#[repr(C)]
#[derive(Debug)]
pub struct veo_thr_ctxt_attr {
    _opaque: [u8; 0],
}

/// `int veo_api_version(void)`.
pub type ApiVersion = unsafe extern "C" fn() -> c_int;
/// `const char *veo_version_string(void)`.
pub type VersionString = unsafe extern "C" fn() -> *const c_char;
/// `struct veo_proc_handle *veo_proc_create(int)`.
pub type ProcCreate = unsafe extern "C" fn(c_int) -> *mut veo_proc_handle;
/// `int veo_proc_destroy(struct veo_proc_handle *)`.
pub type ProcDestroy = unsafe extern "C" fn(*mut veo_proc_handle) -> c_int;
/// `uint64_t veo_load_library(struct veo_proc_handle *, const char *)`.
pub type LoadLibrary = unsafe extern "C" fn(*mut veo_proc_handle, *const c_char) -> u64;
/// `uint64_t veo_get_sym(struct veo_proc_handle *, uint64_t, const char *)`.
pub type GetSym = unsafe extern "C" fn(*mut veo_proc_handle, u64, *const c_char) -> u64;
/// `int veo_unload_library(struct veo_proc_handle *, uint64_t)`.
pub type UnloadLibrary = unsafe extern "C" fn(*mut veo_proc_handle, u64) -> c_int;
/// `int veo_alloc_mem(struct veo_proc_handle *, uint64_t *, size_t)`.
pub type AllocMem = unsafe extern "C" fn(*mut veo_proc_handle, *mut u64, usize) -> c_int;
/// `int veo_free_mem(struct veo_proc_handle *, uint64_t)`.
pub type FreeMem = unsafe extern "C" fn(*mut veo_proc_handle, u64) -> c_int;
/// `int veo_read_mem(struct veo_proc_handle *, void *, uint64_t, size_t)`.
pub type ReadMem = unsafe extern "C" fn(*mut veo_proc_handle, *mut c_void, u64, usize) -> c_int;
/// `int veo_write_mem(struct veo_proc_handle *, uint64_t, const void *, size_t)`.
pub type WriteMem = unsafe extern "C" fn(*mut veo_proc_handle, u64, *const c_void, usize) -> c_int;
/// `int veo_alloc_hmem(struct veo_proc_handle *, void **, size_t)`.
pub type AllocHmem = unsafe extern "C" fn(*mut veo_proc_handle, *mut *mut c_void, usize) -> c_int;
/// `int veo_free_hmem(void *)`.
pub type FreeHmem = unsafe extern "C" fn(*mut c_void) -> c_int;
/// `int veo_hmemcpy(void *, const void *, size_t)`.
pub type HmemCopy = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int;
/// `pid_t veo_get_pid_from_hmem(const void *)`, `int veo_get_venum_from_hmem(const void *)`.
pub type OfHmem = unsafe extern "C" fn(*const c_void) -> c_int;
/// `void *veo_get_hmem_addr(void *)`.
pub type HmemAddr = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
/// `uint64_t veo_register_mem_to_dmaatb(void *, size_t)`.
pub type RegisterMem = unsafe extern "C" fn(*mut c_void, usize) -> u64;
/// `int veo_unregister_mem_from_dmaatb(struct veo_proc_handle *, uint64_t)`.
pub type UnregisterMem = unsafe extern "C" fn(*mut veo_proc_handle, u64) -> c_int;
/// `void *veo_shmat(struct veo_proc_handle *, int, const void *, int, void **)`.
pub type ShmAt = unsafe extern "C" fn(
    *mut veo_proc_handle,
    c_int,
    *const c_void,
    c_int,
    *mut *mut c_void,
) -> *mut c_void;
/// `int veo_shmdt(struct veo_proc_handle *, const void *)`.
pub type ShmDt = unsafe extern "C" fn(*mut veo_proc_handle, *const c_void) -> c_int;
/// `int veo_shared_mem_open(void *, size_t, int, long long)`, and close.
pub type SharedMemOpen = unsafe extern "C" fn(*mut c_void, usize, c_int, i64) -> c_int;
/// `void *veo_shared_mem_attach(struct veo_proc_handle *, pid_t, void *, size_t, int, long long)`.
pub type SharedMemAttach = unsafe extern "C" fn(
    *mut veo_proc_handle,
    c_int,
    *mut c_void,
    usize,
    c_int,
    i64,
) -> *mut c_void;
/// `int veo_shared_mem_detach(struct veo_proc_handle *, void *, long long)`.
pub type SharedMemDetach = unsafe extern "C" fn(*mut veo_proc_handle, *mut c_void, i64) -> c_int;
/// `int veo_dma_post_wait(struct veo_proc_handle *, uint64_t, uint64_t, int)`.
pub type DmaPostWait = unsafe extern "C" fn(*mut veo_proc_handle, u64, u64, c_int) -> c_int;
/// `struct veo_args *veo_args_alloc(void)`.
pub type ArgsAlloc = unsafe extern "C" fn() -> *mut veo_args;
/// `void veo_args_free(struct veo_args *)`.
pub type ArgsFree = unsafe extern "C" fn(*mut veo_args);
/// `int veo_args_set_u64(struct veo_args *, int, uint64_t)`.
pub type ArgsSetU64 = unsafe extern "C" fn(*mut veo_args, c_int, u64) -> c_int;
/// `int veo_call_sync(struct veo_proc_handle *, uint64_t, struct veo_args *, uint64_t *)`.
pub type CallSync =
    unsafe extern "C" fn(*mut veo_proc_handle, u64, *mut veo_args, *mut u64) -> c_int;

/// `uint64_t (*)(void *)`: a function of the VH that a context calls in its turn.
pub type HostFunction = unsafe extern "C" fn(*mut c_void) -> u64;
/// `void (*)(void *, ...)`: what `veo_register_hook` takes.
pub type Hook = unsafe extern "C" fn(*mut c_void, ...);
