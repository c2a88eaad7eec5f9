//! What a consumer calls in libdat2 beside the functions of the provider table, and the numbers it gives and gets
//! (udapl.md sections 2 and 4).

use std::ffi::{c_char, c_int, c_void};

use super::{
    Boolean, ConnQual, Count, EpAttr, Handle, IaAttr, ProviderAttr, ProviderInfo, ProxyAgent,
    RegionDescription, Return, Timeout,
};

/// `dat_ia_openv`: name, queue length, asynchronous EVD, IA, version asked for, thread safety asked for.
pub type IaOpenv = unsafe extern "C" fn(
    *const c_char,
    Count,
    *mut Handle,
    *mut Handle,
    u32,
    u32,
    Boolean,
) -> Return;
/// `dat_ia_query`.
pub type IaQuery =
    unsafe extern "C" fn(Handle, *mut Handle, u64, *mut IaAttr, u64, *mut ProviderAttr) -> Return;
/// `dat_ia_close` and `dat_ep_disconnect`.
pub type Close = unsafe extern "C" fn(Handle, u32) -> Return;
/// `dat_registry_list_providers`: room, how many there are, where each is copied to.
pub type ListProviders = unsafe extern "C" fn(Count, *mut Count, *mut *mut ProviderInfo) -> Return;
/// `dat_strerror`: the names of type and subtype, which stay.
pub type StrError = unsafe extern "C" fn(Return, *mut *const c_char, *mut *const c_char) -> Return;
/// `dat_cno_create`.
pub type CnoCreate = unsafe extern "C" fn(Handle, ProxyAgent, *mut Handle) -> Return;
/// `dat_cno_wait`.
pub type CnoWait = unsafe extern "C" fn(Handle, Timeout, *mut Handle) -> Return;
/// `dat_evd_create`.
pub type EvdCreate = unsafe extern "C" fn(Handle, Count, Handle, u32, *mut Handle) -> Return;
/// `dat_evd_post_se` takes a constant event, `dat_evd_dequeue` gives one.
pub type EvdPost = unsafe extern "C" fn(Handle, *const super::Event) -> Return;
/// `dat_evd_dequeue`.
pub type EvdDequeue = unsafe extern "C" fn(Handle, *mut super::Event) -> Return;
/// `dat_cr_accept`.
pub type CrAccept = unsafe extern "C" fn(Handle, Handle, Count, *const c_void) -> Return;
/// `dat_cr_reject`.
pub type CrReject = unsafe extern "C" fn(Handle, Count, *const c_void) -> Return;
/// `dat_ep_create`: IA, PZ, EVDs of receives, requests and connections, attributes.
pub type EpCreate = unsafe extern "C" fn(
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    *const EpAttr,
    *mut Handle,
) -> Return;
/// `dat_ep_connect`.
pub type EpConnect = unsafe extern "C" fn(
    Handle,
    *const c_void,
    ConnQual,
    Timeout,
    Count,
    *const c_void,
    u32,
    u32,
) -> Return;
/// `dat_lmr_create`.
pub type LmrCreate = unsafe extern "C" fn(
    Handle,
    u32,
    RegionDescription,
    u64,
    Handle,
    u32,
    u32,
    *mut Handle,
    *mut u32,
    *mut u32,
    *mut u64,
    *mut u64,
) -> Return;
/// `dat_psp_create`.
pub type PspCreate = unsafe extern "C" fn(Handle, ConnQual, Handle, u32, *mut Handle) -> Return;
/// `dat_psp_create_any`.
pub type PspCreateAny =
    unsafe extern "C" fn(Handle, *mut ConnQual, Handle, u32, *mut Handle) -> Return;

/// `dat_extension_op`: an endpoint, the operation, and what belongs to it (`dat_ib_extensions.h`).
pub type ExtensionOp = unsafe extern "C" fn(Handle, c_int, ...) -> Return;
/// `DAT_IB_FETCH_AND_ADD_OP`: a 64-bit operand, local triplet, cookie, remote triplet, flags.
pub const FETCH_AND_ADD: c_int = 0;
/// `DAT_IB_CMP_AND_SWAP_OP`: two 64-bit operands, the expected and the new one, then as above.
pub const CMP_AND_SWAP: c_int = 1;

/// The version that 2.0 providers are registered by.
pub const VERSION: (u32, u32) = (2, 0);

/// Types of a [`Return`] (section 2.1), without class and subtype.
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of the header")]
    use super::Return;
    pub const CONN_QUAL_IN_USE: Return = 0x0002_0000;
    pub const INSUFFICIENT_RESOURCES: Return = 0x0003_0000;
    pub const INVALID_STATE: Return = 0x0007_0000;
    pub const MODEL_NOT_SUPPORTED: Return = 0x0009_0000;
    pub const PROVIDER_NOT_FOUND: Return = 0x000A_0000;
    pub const QUEUE_EMPTY: Return = 0x000D_0000;
    pub const TIMEOUT_EXPIRED: Return = 0x000F_0000;
    pub const CONN_QUAL_UNAVAILABLE: Return = 0x0014_0000;
    pub const NOT_IMPLEMENTED: Return = 0x3FFF_0000;
}

/// Event numbers (section 2.3).
pub mod event_number {
    #![allow(missing_docs, reason = "the names are those of the header")]
    pub const DTO_COMPLETION: u32 = 0x00001;
    pub const CONNECTION_REQUEST: u32 = 0x02001;
    pub const ESTABLISHED: u32 = 0x04001;
    pub const PEER_REJECTED: u32 = 0x04002;
    pub const NON_PEER_REJECTED: u32 = 0x04003;
    pub const ACCEPT_COMPLETION_ERROR: u32 = 0x04004;
    pub const DISCONNECTED: u32 = 0x04005;
    pub const BROKEN: u32 = 0x04006;
    pub const TIMED_OUT: u32 = 0x04007;
    pub const UNREACHABLE: u32 = 0x04008;
    pub const SOFTWARE: u32 = 0x10001;
    /// Completions of extensions, and failed receives of stock providers (section 4.7, rule 9).
    pub const IB_DTO: u32 = 0x40000;
}

/// `DAT_EVD_FLAGS`.
pub mod evd_flag {
    #![allow(missing_docs, reason = "the names are those of the header")]
    pub const SOFTWARE: u32 = 0x001;
    pub const CR: u32 = 0x010;
    pub const DTO: u32 = 0x020;
    pub const CONNECTION: u32 = 0x040;
}

/// `DAT_MEM_PRIV_FLAGS`.
pub mod mem_priv {
    #![allow(missing_docs, reason = "the names are those of the header")]
    pub const LOCAL_READ: u32 = 0x01;
    pub const REMOTE_READ: u32 = 0x02;
    pub const LOCAL_WRITE: u32 = 0x10;
    pub const REMOTE_WRITE: u32 = 0x20;
    /// Of the InfiniBand extension.
    pub const REMOTE_ATOMIC: u32 = 0x40;
}

/// All bits of the mask of `dat_cr_query`.
pub const CR_FIELD_ALL: u32 = 0x1F;
/// All bits of the first mask of `dat_ia_query`.
pub const IA_FIELD_ALL: u64 = 0x3F_FFFF_FFFF;
/// All bits of its second.
pub const PROVIDER_FIELD_ALL: u64 = 0x7FFF_FFFF;
/// `DAT_IB_ATTR_FETCH_AND_ADD` and `DAT_IB_ATTR_CMP_AND_SWAP`: names of attributes that are there where the extension is
/// (section 8).
pub const ATOMICS: [&str; 2] = ["DAT_IB_FETCH_AND_ADD", "DAT_IB_CMP_AND_SWAP"];
