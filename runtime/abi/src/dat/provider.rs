//! The provider table and what libdat2 and a provider call in each other (udapl.md sections 3.1 and 3.3).

use std::ffi::{c_char, c_int, c_void};

use super::consumer::{EpConnect, EpCreate};
use super::*;

/// A handle alone.
pub type OfHandle = unsafe extern "C" fn(Handle) -> Return;
/// A handle and a count or qualifier.
pub type WithCount = unsafe extern "C" fn(Handle, Count) -> Return;
/// A handle and another.
pub type WithHandle = unsafe extern "C" fn(Handle, Handle) -> Return;
/// A handle, a mask and where the answer goes.
pub type Query<T> = unsafe extern "C" fn(Handle, u32, *mut T) -> Return;
/// `DAT_EP_POST_SEND_FUNC` and `DAT_EP_POST_RECV_FUNC`.
pub type Post = unsafe extern "C" fn(Handle, Count, *const Triplet, Context, u32) -> Return;
/// `DAT_EP_POST_RDMA_READ_FUNC` and `DAT_EP_POST_RDMA_WRITE_FUNC`.
pub type PostRdma =
    unsafe extern "C" fn(Handle, Count, *const Triplet, Context, *const Triplet, u32) -> Return;
/// `DAT_LMR_SYNC_RDMA_READ_FUNC` and its sister.
pub type LmrSync = unsafe extern "C" fn(Handle, *const Triplet, u64) -> Return;
/// `DAT_RMR_CREATE_FUNC` and its sister.
pub type Create = unsafe extern "C" fn(Handle, *mut Handle) -> Return;

/// `DAT_PROVIDER`: the table that libdat2 calls through (section 3.3), its slots in order.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct Provider {
    pub device_name: *const c_char,
    pub extension: *mut c_void,
    pub ia_open: unsafe extern "C" fn(*const c_char, Count, *mut Handle, *mut Handle) -> Return,
    pub ia_query: unsafe extern "C" fn(
        Handle,
        *mut Handle,
        u64,
        *mut IaAttr,
        u64,
        *mut ProviderAttr,
    ) -> Return,
    pub ia_close: unsafe extern "C" fn(Handle, u32) -> Return,
    pub set_consumer_context: unsafe extern "C" fn(Handle, Context) -> Return,
    pub get_consumer_context: unsafe extern "C" fn(Handle, *mut Context) -> Return,
    pub get_handle_type: unsafe extern "C" fn(Handle, *mut u32) -> Return,
    pub cno_create: unsafe extern "C" fn(Handle, ProxyAgent, *mut Handle) -> Return,
    pub cno_modify_agent: unsafe extern "C" fn(Handle, ProxyAgent) -> Return,
    pub cno_query: Query<CnoParam>,
    pub cno_free: OfHandle,
    pub cno_wait: unsafe extern "C" fn(Handle, Timeout, *mut Handle) -> Return,
    pub cr_query: Query<CrParam>,
    pub cr_accept: unsafe extern "C" fn(Handle, Handle, Count, *const c_void) -> Return,
    pub cr_reject: unsafe extern "C" fn(Handle, Count, *const c_void) -> Return,
    pub cr_handoff: unsafe extern "C" fn(Handle, ConnQual) -> Return,
    pub evd_create: unsafe extern "C" fn(Handle, Count, Handle, u32, *mut Handle) -> Return,
    pub evd_query: Query<EvdParam>,
    pub evd_modify_cno: WithHandle,
    pub evd_enable: OfHandle,
    pub evd_disable: OfHandle,
    pub evd_wait: unsafe extern "C" fn(Handle, Timeout, Count, *mut Event, *mut Count) -> Return,
    pub evd_resize: WithCount,
    pub evd_post_se: unsafe extern "C" fn(Handle, *const Event) -> Return,
    pub evd_dequeue: unsafe extern "C" fn(Handle, *mut Event) -> Return,
    pub evd_free: OfHandle,
    pub ep_create: EpCreate,
    pub ep_query: unsafe extern "C" fn(Handle, u64, *mut EpParam) -> Return,
    pub ep_modify: unsafe extern "C" fn(Handle, u64, *const EpParam) -> Return,
    pub ep_connect: EpConnect,
    pub ep_dup_connect:
        unsafe extern "C" fn(Handle, Handle, Timeout, Count, *const c_void, u32) -> Return,
    pub ep_disconnect: unsafe extern "C" fn(Handle, u32) -> Return,
    pub ep_post_send: Post,
    pub ep_post_recv: Post,
    pub ep_post_rdma_read: PostRdma,
    pub ep_post_rdma_write: PostRdma,
    pub ep_get_status: unsafe extern "C" fn(Handle, *mut u32, *mut Boolean, *mut Boolean) -> Return,
    pub ep_free: OfHandle,
    pub lmr_create: unsafe extern "C" fn(
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
    ) -> Return,
    pub lmr_query: Query<LmrParam>,
    pub lmr_free: OfHandle,
    pub rmr_create: Create,
    pub rmr_query: Query<RmrParam>,
    pub rmr_bind: unsafe extern "C" fn(
        Handle,
        Handle,
        *const Triplet,
        u32,
        u32,
        Handle,
        Context,
        u32,
        *mut u32,
    ) -> Return,
    pub rmr_free: OfHandle,
    pub psp_create: unsafe extern "C" fn(Handle, ConnQual, Handle, u32, *mut Handle) -> Return,
    pub psp_query: Query<PspParam>,
    pub psp_free: OfHandle,
    pub rsp_create: unsafe extern "C" fn(Handle, ConnQual, Handle, Handle, *mut Handle) -> Return,
    pub rsp_query: Query<RspParam>,
    pub rsp_free: OfHandle,
    pub pz_create: Create,
    pub pz_query: Query<PzParam>,
    pub pz_free: OfHandle,
    pub psp_create_any:
        unsafe extern "C" fn(Handle, *mut ConnQual, Handle, u32, *mut Handle) -> Return,
    pub ep_reset: OfHandle,
    pub evd_set_unwaitable: OfHandle,
    pub evd_clear_unwaitable: OfHandle,
    pub lmr_sync_rdma_read: LmrSync,
    pub lmr_sync_rdma_write: LmrSync,
    pub ep_create_with_srq: unsafe extern "C" fn(
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        *const EpAttr,
        *mut Handle,
    ) -> Return,
    pub ep_recv_query: unsafe extern "C" fn(Handle, *mut Count, *mut Count) -> Return,
    pub ep_set_watermark: unsafe extern "C" fn(Handle, Count, Count) -> Return,
    pub srq_create: unsafe extern "C" fn(Handle, Handle, *const SrqAttr, *mut Handle) -> Return,
    pub srq_free: OfHandle,
    pub srq_post_recv: unsafe extern "C" fn(Handle, Count, *const Triplet, Context) -> Return,
    pub srq_query: Query<SrqParam>,
    pub srq_resize: WithCount,
    pub srq_set_lw: WithCount,
    pub csp_create:
        unsafe extern "C" fn(Handle, *mut Comm, *const c_void, Handle, *mut Handle) -> Return,
    pub csp_query: Query<c_void>,
    pub csp_free: OfHandle,
    pub ep_common_connect:
        unsafe extern "C" fn(Handle, *const c_void, Timeout, Count, *const c_void) -> Return,
    pub rmr_create_for_ep: Create,
    pub ep_post_send_with_invalidate:
        unsafe extern "C" fn(Handle, Count, *const Triplet, Context, u32, Boolean, u32) -> Return,
    pub ep_post_rdma_read_to_rmr:
        unsafe extern "C" fn(Handle, *const Triplet, Context, *const Triplet, u32) -> Return,
    pub cno_fd_create: unsafe extern "C" fn(Handle, *mut c_int, *mut Handle) -> Return,
    pub cno_trigger: unsafe extern "C" fn(Handle, *mut Handle) -> Return,
    pub ia_ha_related: unsafe extern "C" fn(Handle, *const c_char, *mut Boolean) -> Return,
    /// The last argument is a `va_list`, which travels as a pointer.
    pub handle_extendedop: unsafe extern "C" fn(Handle, c_int, *mut c_void) -> Return,
}

/// `void dat_provider_init(const DAT_PROVIDER_INFO *, const char *)`.
pub type ProviderInit = unsafe extern "C" fn(*const ProviderInfo, *const c_char);
/// `void dat_provider_fini(const DAT_PROVIDER_INFO *)`.
pub type ProviderFini = unsafe extern "C" fn(*const ProviderInfo);
/// `DAT_RETURN dat_registry_add_provider(const DAT_PROVIDER *, const DAT_PROVIDER_INFO *)`, and remove.
pub type Registry = unsafe extern "C" fn(*const Provider, *const ProviderInfo) -> Return;
/// `DAT_RETURN dats_get_ia_handle(DAT_IA_HANDLE, DAT_IA_HANDLE *)`: the provider's handle for a consumer's.
pub type GetIaHandle = unsafe extern "C" fn(Handle, *mut Handle) -> Return;

const _: () = assert!(size_of::<Provider>() == 648); // section 2.4
