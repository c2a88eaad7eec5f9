//! The provider table: every slot filled (section 3.3).

use std::ffi::{CString, c_void};

use windlass_abi::dat::{self, Comm, Provider, Return};

use crate::edge::{NOT_IMPLEMENTED, edge};
use crate::{cno, connect, dto, ep, evd, extension, ia, lmr, point, pz, rmr, srq};

// Common service points are not offered.
unsafe extern "C" fn csp_create(
    _: dat::Handle,
    _: *mut Comm,
    _: *const c_void,
    _: dat::Handle,
    _: *mut dat::Handle,
) -> Return {
    edge(|| Err(NOT_IMPLEMENTED))
}

unsafe extern "C" fn csp_query(_: dat::Handle, _: u32, _: *mut c_void) -> Return {
    edge(|| Err(NOT_IMPLEMENTED))
}

unsafe extern "C" fn csp_free(_: dat::Handle) -> Return {
    edge(|| Err(NOT_IMPLEMENTED))
}

/// A table for an adapter's name. It stays for the life of the process: stale handles point to it.
pub(crate) fn leak(name: &[u8]) -> &'static Provider {
    let device_name = CString::new(name).unwrap_or_default().into_raw();
    Box::leak(Box::new(Provider {
        device_name,
        ..FUNCTIONS
    }))
}

/// The table without a name.
const FUNCTIONS: Provider = Provider {
    device_name: std::ptr::null(),
    extension: std::ptr::null_mut(),
    ia_open: ia::ia_open,
    ia_query: ia::ia_query,
    ia_close: ia::ia_close,
    set_consumer_context: ia::set_consumer_context,
    get_consumer_context: ia::get_consumer_context,
    get_handle_type: ia::get_handle_type,
    cno_create: cno::cno_create,
    cno_modify_agent: cno::cno_modify_agent,
    cno_query: cno::cno_query,
    cno_free: cno::cno_free,
    cno_wait: cno::cno_wait,
    cr_query: point::cr_query,
    cr_accept: point::cr_accept,
    cr_reject: point::cr_reject,
    cr_handoff: point::cr_handoff,
    evd_create: evd::evd_create,
    evd_query: evd::evd_query,
    evd_modify_cno: evd::evd_modify_cno,
    evd_enable: evd::evd_enable,
    evd_disable: evd::evd_disable,
    evd_wait: evd::evd_wait,
    evd_resize: evd::evd_resize,
    evd_post_se: evd::evd_post_se,
    evd_dequeue: evd::evd_dequeue,
    evd_free: evd::evd_free,
    ep_create: ep::ep_create,
    ep_query: ep::ep_query,
    ep_modify: ep::ep_modify,
    ep_connect: connect::ep_connect,
    ep_dup_connect: connect::ep_dup_connect,
    ep_disconnect: connect::ep_disconnect,
    ep_post_send: dto::ep_post_send,
    ep_post_recv: dto::ep_post_recv,
    ep_post_rdma_read: dto::ep_post_rdma_read,
    ep_post_rdma_write: dto::ep_post_rdma_write,
    ep_get_status: ep::ep_get_status,
    ep_free: ep::ep_free,
    lmr_create: lmr::lmr_create,
    lmr_query: lmr::lmr_query,
    lmr_free: lmr::lmr_free,
    rmr_create: rmr::rmr_create,
    rmr_query: rmr::rmr_query,
    rmr_bind: rmr::rmr_bind,
    rmr_free: rmr::rmr_free,
    psp_create: point::psp_create,
    psp_query: point::psp_query,
    psp_free: point::psp_free,
    rsp_create: point::rsp_create,
    rsp_query: point::rsp_query,
    rsp_free: point::rsp_free,
    pz_create: pz::pz_create,
    pz_query: pz::pz_query,
    pz_free: pz::pz_free,
    psp_create_any: point::psp_create_any,
    ep_reset: connect::ep_reset,
    evd_set_unwaitable: evd::evd_set_unwaitable,
    evd_clear_unwaitable: evd::evd_clear_unwaitable,
    lmr_sync_rdma_read: lmr::lmr_sync_rdma_read,
    lmr_sync_rdma_write: lmr::lmr_sync_rdma_write,
    ep_create_with_srq: ep::ep_create_with_srq,
    ep_recv_query: ep::ep_recv_query,
    ep_set_watermark: ep::ep_set_watermark,
    srq_create: srq::srq_create,
    srq_free: srq::srq_free,
    srq_post_recv: srq::srq_post_recv,
    srq_query: srq::srq_query,
    srq_resize: srq::srq_resize,
    srq_set_lw: srq::srq_set_lw,
    csp_create,
    csp_query,
    csp_free,
    ep_common_connect: connect::ep_common_connect,
    rmr_create_for_ep: rmr::rmr_create_for_ep,
    ep_post_send_with_invalidate: dto::ep_post_send_with_invalidate,
    ep_post_rdma_read_to_rmr: dto::ep_post_rdma_read_to_rmr,
    cno_fd_create: cno::cno_fd_create,
    cno_trigger: cno::cno_trigger,
    ia_ha_related: ia::ia_ha_related,
    handle_extendedop: extension::handle_extendedop,
};
