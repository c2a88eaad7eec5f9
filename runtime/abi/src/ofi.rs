//! libfabric.so.1: fabric.h, fi_domain.h, fi_endpoint.h, fi_rma.h, fi_eq.h, fi_cm.h, as far as RMA needs them (udapl 9).
//!
//! Most calls of libfabric are inline functions over tables of functions that its objects point to; here are the objects and the
//! tables. Layouts are those of the symbol version [`FABRIC_1_3`], which later libraries keep. Functions that nobody calls are
//! `*const c_void`. A table may be longer or shorter than stated here: its first word says.
#![allow(non_camel_case_types, reason = "the names of the C headers")]

mod info;
mod objects;

use std::ffi::{CStr, c_char, c_int, c_void};

pub use info::*;
pub use objects::*;

/// Soname of the library.
pub const SONAME: &str = "libfabric.so.1";
/// Symbol version of `fi_strerror` and `fi_version`.
pub const FABRIC_1_0: &CStr = c"FABRIC_1.0";
/// Symbol version of `fi_fabric`.
pub const FABRIC_1_1: &CStr = c"FABRIC_1.1";
/// Symbol version of `fi_getinfo`, `fi_dupinfo`, `fi_freeinfo` whose structures are those below.
pub const FABRIC_1_3: &CStr = c"FABRIC_1.3";

/// `FI_VERSION(major, minor)`.
pub const fn fi_version(major: u32, minor: u32) -> u32 {
    major << 16 | minor
}

/// One-sided operations.
pub const FI_RMA: u64 = 1 << 2;
/// Reads; of a memory region: it may be read into.
pub const FI_READ: u64 = 1 << 8;
/// Writes; of a memory region: it may be written from.
pub const FI_WRITE: u64 = 1 << 9;
/// Receives.
pub const FI_RECV: u64 = 1 << 10;
/// Sends and one-sided operations: `FI_TRANSMIT`.
pub const FI_SEND: u64 = 1 << 11;
/// Peers may read.
pub const FI_REMOTE_READ: u64 = 1 << 12;
/// Peers may write.
pub const FI_REMOTE_WRITE: u64 = 1 << 13;
/// A completion is written.
pub const FI_COMPLETION: u64 = 1 << 24;
/// Complete when the data are at the target.
pub const FI_DELIVERY_COMPLETE: u64 = 1 << 28;
/// Peers of this host are reached.
pub const FI_LOCAL_COMM: u64 = 1 << 51;
/// Peers of other hosts are reached.
pub const FI_REMOTE_COMM: u64 = 1 << 52;
/// The node is the local side's address.
pub const FI_SOURCE: u64 = 1 << 57;
/// Mode: every operation brings an [`fi_context2`] or [`FI_CONTEXT`]'s half of it.
pub const FI_CONTEXT: u64 = 1 << 59;
/// Mode: every operation brings an [`fi_context2`].
pub const FI_CONTEXT2: u64 = 1 << 52;

/// Local buffers are registered.
pub const FI_MR_LOCAL: c_int = 1 << 2;
/// A remote address is the target's virtual address, else an offset.
pub const FI_MR_VIRT_ADDR: c_int = 1 << 4;
/// Registered pages exist.
pub const FI_MR_ALLOCATED: c_int = 1 << 5;
/// The provider chooses the keys.
pub const FI_MR_PROV_KEY: c_int = 1 << 6;
/// A region is bound to an endpoint and enabled.
pub const FI_MR_ENDPOINT: c_int = 1 << 9;

/// `enum fi_ep_type`: reliable, without connections.
pub const FI_EP_RDM: c_int = 3;
/// `enum fi_threading`: any thread calls anything.
pub const FI_THREAD_SAFE: c_int = 1;
/// `enum fi_progress`: the library makes progress by itself.
pub const FI_PROGRESS_AUTO: c_int = 1;
/// `enum fi_progress`: the library makes progress when it is called.
pub const FI_PROGRESS_MANUAL: c_int = 2;
/// `enum fi_cq_format`: completions are contexts only.
pub const FI_CQ_FORMAT_CONTEXT: c_int = 1;
/// `enum fi_wait_obj`: a file descriptor.
pub const FI_WAIT_FD: c_int = 3;
/// Command of `fi_control`: the descriptor to wait on.
pub const FI_GETWAIT: c_int = 5;
/// Command of `fi_control`: an endpoint or a region goes into use.
pub const FI_ENABLE: c_int = 6;

/// `FI_EAVAIL`: the queue has an error to be read.
pub const FI_EAVAIL: c_int = 259;
/// `FI_ENOKEY`: no such registration.
pub const FI_ENOKEY: c_int = 266;

/// `uint32_t fi_version(void)`.
pub type Version = unsafe extern "C" fn() -> u32;
/// `int fi_getinfo(uint32_t, const char *, const char *, uint64_t, const struct fi_info *, struct fi_info **)`.
pub type GetInfo = unsafe extern "C" fn(
    u32,
    *const c_char,
    *const c_char,
    u64,
    *const fi_info,
    *mut *mut fi_info,
) -> c_int;
/// `struct fi_info *fi_dupinfo(const struct fi_info *)`.
pub type DupInfo = unsafe extern "C" fn(*const fi_info) -> *mut fi_info;
/// `void fi_freeinfo(struct fi_info *)`.
pub type FreeInfo = unsafe extern "C" fn(*mut fi_info);
/// `int fi_fabric(struct fi_fabric_attr *, struct fid_fabric **, void *)`.
pub type OpenFabric =
    unsafe extern "C" fn(*mut fi_fabric_attr, *mut *mut fid_fabric, *mut c_void) -> c_int;
/// `const char *fi_strerror(int)`.
pub type StrError = unsafe extern "C" fn(c_int) -> *const c_char;
