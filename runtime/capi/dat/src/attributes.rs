//! What the adapter and the provider say of themselves (section 6).

use std::ffi::{CStr, c_char};

use windlass_abi::dat::{IaAttr, NAME_MAX, NamedAttr, ProviderAttr, ProviderInfo};
use windlass_dat::{DTOS_MAX, EVD_QLEN_MAX, IOV_MAX, PRIVATE_DATA_MAX};

use crate::edge::to_count;
use crate::ia::IaObject;

/// All bits of the masks of `dat_ia_query`.
pub(crate) const IA_ALL: u64 = 0x3F_FFFF_FFFF;
pub(crate) const PROVIDER_ALL: u64 = 0x7FFF_FFFF;

/// Objects of one adapter at most.
pub(crate) const EPS_MAX: usize = 16 * 1024;
pub(crate) const EVDS_MAX: usize = 16 * 1024;
pub(crate) const PZS_MAX: usize = 16 * 1024;
pub(crate) const LMRS_MAX: usize = 64 * 1024;
pub(crate) const RMRS_MAX: usize = 64 * 1024;
pub(crate) const SRQS_MAX: usize = 4 * 1024;
pub(crate) const CNOS_MAX: usize = 16 * 1024;
pub(crate) const POINTS_MAX: usize = 16 * 1024;
/// Events an asynchronous EVD holds at least.
pub(crate) const QLEN_LEAST: usize = 64;
/// Bytes of one message or transfer at most: its length has 32 bits.
pub(crate) const MESSAGE_MAX: u32 = u32::MAX;
/// Reads and atomics of one endpoint that are under way at most; more wait.
pub(crate) const READS_MAX: i32 = 256;

/// `DAT_RMR_SCOPE_ANY`, `DAT_PSP_CREATES_EP_IFASKED`, `DAT_PZ_UNIQUE`, `DAT_IOV_CONSUMER`, `DAT_QOS_BEST_EFFORT`.
const RMR_SCOPE_ANY: u32 = 2;
const CREATES_EP_IF_ASKED: u32 = 1;
const PZ_UNIQUE: u32 = 0;
const IOV_CONSUMER: u32 = 0;
const QOS_BEST_EFFORT: u32 = 0;
/// `DAT_EXTENSION_IB`, and the version of its header that has the two atomics.
const EXTENSION_IB: u32 = 1;
const IB_EXTENSION_VERSION: i32 = 201;
/// A cache line.
const BUFFER_ALIGNMENT: u32 = 64;
/// SUPPRESS, SOLICITED_WAIT, UNSIGNALLED, BARRIER_FENCE, EVD_THRESHOLD.
const COMPLETION_FLAGS: u32 = 0x1f;
/// A bit for each kind of memory would leave none for VIRTUAL, which is 0: LMR and SHARED_VIRTUAL.
const MEM_TYPES: u32 = 3;

/// Attributes that the stock tools look for, and by which atomics are found (section 8).
struct Named([NamedAttr; 3]);
// SAFETY: pointers to constant strings.
unsafe impl Sync for Named {}
static PROVIDER_NAMED: Named = Named([
    offered(c"DAT_IB_RDMA_READ"),
    offered(c"DAT_IB_FETCH_AND_ADD"),
    offered(c"DAT_IB_CMP_AND_SWAP"),
]);

const fn offered(name: &'static CStr) -> NamedAttr {
    NamedAttr {
        name: name.as_ptr(),
        value: c"TRUE".as_ptr(),
    }
}

fn name(text: &CStr) -> [c_char; NAME_MAX] {
    let mut name = [0; NAME_MAX];
    for (to, from) in name.iter_mut().zip(text.to_bytes()) {
        *to = from.cast_signed();
    }
    name
}

pub(crate) fn of_ia(ia: &IaObject) -> IaAttr {
    IaAttr {
        adapter_name: name(c"windlass"),
        vendor_name: name(c"Windlass"),
        hardware_version_major: 0,
        hardware_version_minor: 0,
        firmware_version_major: 0,
        firmware_version_minor: 0,
        ia_address_ptr: ia.address(),
        max_eps: to_count(EPS_MAX),
        max_dto_per_ep: to_count(DTOS_MAX),
        max_rdma_read_per_ep_in: READS_MAX,
        max_rdma_read_per_ep_out: READS_MAX,
        max_evds: to_count(EVDS_MAX),
        max_evd_qlen: to_count(EVD_QLEN_MAX),
        max_iov_segments_per_dto: to_count(IOV_MAX),
        max_lmrs: to_count(LMRS_MAX),
        max_lmr_block_size: u32::MAX,
        max_lmr_virtual_address: u64::MAX,
        max_pzs: to_count(PZS_MAX),
        max_message_size: MESSAGE_MAX,
        max_rdma_size: MESSAGE_MAX,
        max_rmrs: to_count(RMRS_MAX),
        max_rmr_target_address: u64::MAX,
        max_srqs: to_count(SRQS_MAX),
        max_ep_per_srq: to_count(EPS_MAX),
        max_recv_per_srq: to_count(DTOS_MAX),
        max_iov_segments_per_rdma_read: to_count(IOV_MAX),
        max_iov_segments_per_rdma_write: to_count(IOV_MAX),
        max_rdma_read_in: READS_MAX,
        max_rdma_read_out: READS_MAX,
        max_rdma_read_per_ep_in_guaranteed: 1,
        max_rdma_read_per_ep_out_guaranteed: 1,
        zb_supported: 1,
        extension_supported: EXTENSION_IB, // libdat2 passes atomics on only to such an adapter
        extension_version: IB_EXTENSION_VERSION,
        num_transport_attr: 0,
        transport_attr: std::ptr::null_mut(),
        num_vendor_attr: 0,
        vendor_attr: std::ptr::null_mut(),
    }
}

pub(crate) fn of_provider(info: &ProviderInfo) -> ProviderAttr {
    ProviderAttr {
        provider_name: name(c"windlass"),
        provider_version_major: 2,
        provider_version_minor: 0,
        dapl_version_major: info.dapl_version_major,
        dapl_version_minor: info.dapl_version_minor,
        lmr_mem_types_supported: MEM_TYPES,
        iov_ownership_on_return: IOV_CONSUMER,
        dat_qos_supported: QOS_BEST_EFFORT,
        completion_flags_supported: COMPLETION_FLAGS,
        is_thread_safe: info.is_thread_safe,
        max_private_data_size: to_count(PRIVATE_DATA_MAX),
        supports_multipath: 0,
        ep_creator: CREATES_EP_IF_ASKED,
        pz_support: PZ_UNIQUE,
        optimal_buffer_alignment: BUFFER_ALIGNMENT,
        evd_stream_merging_supported: [[1; 6]; 6],
        srq_supported: 1,
        srq_watermarks_supported: 0,
        srq_ep_pz_difference_supported: 0,
        srq_info_supported: 2, // available and outstanding receives
        ep_recv_info_supported: 2,
        lmr_sync_req: 0,
        dto_async_return_guaranteed: 1,
        rdma_write_for_rdma_read_req: 0,
        rdma_read_lmr_rmr_context_exposure: 0,
        rmr_scope_supported: RMR_SCOPE_ANY,
        is_signal_safe: 0,
        ha_supported: 0,
        ha_loadbalancing: 0,
        num_provider_specific_attr: to_count(PROVIDER_NAMED.0.len()),
        provider_specific_attr: PROVIDER_NAMED.0.as_ptr().cast_mut(),
    }
}
