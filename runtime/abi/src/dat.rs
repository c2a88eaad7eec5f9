//! `dat2/udat.h` and `dat2/dat_registry.h`: uDAPL 2.0, the provider's side of libdat2.so.2 (udapl.md sections 2 and 3).
//!
//! Enumerations of the headers are plain integers here: a C caller may pass any value.
#![allow(non_camel_case_types, reason = "the names of the C headers")]

pub mod consumer;
mod event;
mod provider;

use std::ffi::{c_char, c_int, c_void};
use std::mem::size_of;

pub use event::*;
pub use provider::*;

/// Library that loads providers and exports the `dat_*` functions.
pub const SONAME: &str = "libdat2.so.2";
/// `DAT_RETURN`.
pub type Return = u32;
/// `DAT_SUCCESS`.
pub const SUCCESS: Return = 0;
/// Bits of a [`Return`] that say what it is: type and subtype without class (section 2.1).
pub const TYPE_MASK: Return = 0x3FFF_0000;
/// `DAT_HANDLE` and all its kinds: the first word of what it points to is the address of a [`Provider`].
pub type Handle = *mut c_void;
/// `DAT_COUNT`.
pub type Count = c_int;
/// `DAT_TIMEOUT`, microseconds.
pub type Timeout = u32;
/// `DAT_TIMEOUT_INFINITE`.
pub const TIMEOUT_INFINITE: Timeout = !0;
/// `DAT_NAME_MAX_LENGTH`, the NUL included.
pub const NAME_MAX: usize = 256;
/// `DAT_LMR_COOKIE_SIZE`: bytes of the id of a shared registration.
pub const LMR_COOKIE_SIZE: usize = 40;
/// `DAT_EVD_ASYNC_EXISTS`, as an address.
pub const EVD_ASYNC_EXISTS: usize = 1;
/// `DAT_EVD_OUT_OF_SCOPE`, as an address.
pub const EVD_OUT_OF_SCOPE: usize = 2;
/// `DAT_BOOLEAN`.
pub type Boolean = u32;
/// `DAT_CONTEXT`, also a DTO or RMR cookie: a union of pointer and integers, all 8 bytes.
pub type Context = u64;
/// `DAT_CONN_QUAL`.
pub type ConnQual = u64;

/// `DAT_MEM_TYPE`.
pub const MEM_TYPE_VIRTUAL: u32 = 0;
/// The memory of another region.
pub const MEM_TYPE_LMR: u32 = 1;
/// Shared between processes by an id of [`LMR_COOKIE_SIZE`] bytes.
pub const MEM_TYPE_SHARED_VIRTUAL: u32 = 2;

/// `DAT_VA_TYPE`.
pub const VA_TYPE_VA: u32 = 0;
/// Addresses begin at zero.
pub const VA_TYPE_ZB: u32 = 1;

/// `DAT_CLOSE_FLAGS`.
pub const CLOSE_ABRUPT: u32 = 0;
/// Posted requests finish first.
pub const CLOSE_GRACEFUL: u32 = 1;

/// `DAT_PSP_FLAGS`.
pub const PSP_CONSUMER: u32 = 0;
/// The provider makes the endpoint.
pub const PSP_PROVIDER: u32 = 1;

/// `DAT_HANDLE_TYPE`.
pub const HANDLE_TYPE_CR: u32 = 0;
/// Endpoint.
pub const HANDLE_TYPE_EP: u32 = 1;
/// Event dispatcher.
pub const HANDLE_TYPE_EVD: u32 = 2;
/// Interface adapter.
pub const HANDLE_TYPE_IA: u32 = 3;
/// Local memory region.
pub const HANDLE_TYPE_LMR: u32 = 4;
/// Public service point.
pub const HANDLE_TYPE_PSP: u32 = 5;
/// Protection zone.
pub const HANDLE_TYPE_PZ: u32 = 6;
/// Remote memory region.
pub const HANDLE_TYPE_RMR: u32 = 7;
/// Reserved service point.
pub const HANDLE_TYPE_RSP: u32 = 8;
/// Consumer notification object.
pub const HANDLE_TYPE_CNO: u32 = 9;
/// Shared receive queue.
pub const HANDLE_TYPE_SRQ: u32 = 10;

/// `DAT_EVD_STATE`.
pub const EVD_STATE_ENABLED: u32 = 0x01;
/// Does not trigger its CNO.
pub const EVD_STATE_DISABLED: u32 = 0x02;
/// May be waited for.
pub const EVD_STATE_WAITABLE: u32 = 0x04;
/// May not.
pub const EVD_STATE_UNWAITABLE: u32 = 0x08;
/// Every event wakes.
pub const EVD_STATE_CONFIG_NOTIFY: u32 = 0x10;
/// The waiter's threshold counts.
pub const EVD_STATE_CONFIG_THRESHOLD: u32 = 0x30;

/// `DAT_PROXY_TYPE`.
pub const PROXY_TYPE_NONE: u32 = 0;
/// A function of the consumer.
pub const PROXY_TYPE_AGENT: u32 = 1;
/// A descriptor.
pub const PROXY_TYPE_FD: u32 = 2;

/// `DAT_NAMED_ATTR`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NamedAttr {
    /// Name.
    pub name: *const c_char,
    /// Value.
    pub value: *const c_char,
}

/// `DAT_LMR_TRIPLET` and `DAT_RMR_TRIPLET`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Triplet {
    /// First byte.
    pub virtual_address: u64,
    /// Bytes.
    pub segment_length: u32,
    /// `lmr_context` or `rmr_context`.
    pub context: u32,
}

/// `DAT_SHARED_MEMORY`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SharedMemory {
    /// Where the caller maps it.
    pub virtual_address: *mut c_void,
    /// [`LMR_COOKIE_SIZE`] bytes of the caller.
    pub shared_memory_id: *mut [u8; LMR_COOKIE_SIZE],
}

/// `DAT_REGION_DESCRIPTION`: two words, which travel in registers or on the stack as two integers do.
#[repr(C)]
#[derive(Clone, Copy)]
pub union RegionDescription {
    /// Start, for [`MEM_TYPE_VIRTUAL`].
    pub for_va: *mut c_void,
    /// Region, for [`MEM_TYPE_LMR`].
    pub for_lmr_handle: Handle,
    /// Address and id, for [`MEM_TYPE_SHARED_VIRTUAL`].
    pub for_shared_memory: SharedMemory,
}

/// `DAT_OS_WAIT_PROXY_AGENT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProxyAgent {
    /// First argument of the function.
    pub instance_data: *mut c_void,
    /// Called when the CNO is triggered.
    pub proxy_agent_func: Option<unsafe extern "C" fn(*mut c_void, Handle)>,
}

/// `DAT_COMM`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Comm {
    /// Of a socket.
    pub domain: c_int,
    /// Of a socket.
    pub kind: c_int,
    /// Of a socket.
    pub protocol: c_int,
}

/// `DAT_PROVIDER_INFO`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProviderInfo {
    /// Name in `dat.conf`.
    pub ia_name: [c_char; NAME_MAX],
    /// 2.
    pub dapl_version_major: u32,
    /// 0.
    pub dapl_version_minor: u32,
    /// As in `dat.conf`.
    pub is_thread_safe: Boolean,
}

/// `DAT_IA_ATTR`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct IaAttr {
    pub adapter_name: [c_char; NAME_MAX],
    pub vendor_name: [c_char; NAME_MAX],
    pub hardware_version_major: u32,
    pub hardware_version_minor: u32,
    pub firmware_version_major: u32,
    pub firmware_version_minor: u32,
    pub ia_address_ptr: *mut c_void,
    pub max_eps: Count,
    pub max_dto_per_ep: Count,
    pub max_rdma_read_per_ep_in: Count,
    pub max_rdma_read_per_ep_out: Count,
    pub max_evds: Count,
    pub max_evd_qlen: Count,
    pub max_iov_segments_per_dto: Count,
    pub max_lmrs: Count,
    pub max_lmr_block_size: u32,
    pub max_lmr_virtual_address: u64,
    pub max_pzs: Count,
    pub max_message_size: u32,
    pub max_rdma_size: u32,
    pub max_rmrs: Count,
    pub max_rmr_target_address: u64,
    pub max_srqs: Count,
    pub max_ep_per_srq: Count,
    pub max_recv_per_srq: Count,
    pub max_iov_segments_per_rdma_read: Count,
    pub max_iov_segments_per_rdma_write: Count,
    pub max_rdma_read_in: Count,
    pub max_rdma_read_out: Count,
    pub max_rdma_read_per_ep_in_guaranteed: Boolean,
    pub max_rdma_read_per_ep_out_guaranteed: Boolean,
    pub zb_supported: Boolean,
    pub extension_supported: u32,
    pub extension_version: Count,
    pub num_transport_attr: Count,
    pub transport_attr: *mut NamedAttr,
    pub num_vendor_attr: Count,
    pub vendor_attr: *mut NamedAttr,
}

/// `DAT_PROVIDER_ATTR`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct ProviderAttr {
    pub provider_name: [c_char; NAME_MAX],
    pub provider_version_major: u32,
    pub provider_version_minor: u32,
    pub dapl_version_major: u32,
    pub dapl_version_minor: u32,
    pub lmr_mem_types_supported: u32,
    pub iov_ownership_on_return: u32,
    pub dat_qos_supported: u32,
    pub completion_flags_supported: u32,
    pub is_thread_safe: Boolean,
    pub max_private_data_size: Count,
    pub supports_multipath: Boolean,
    pub ep_creator: u32,
    pub pz_support: u32,
    pub optimal_buffer_alignment: u32,
    pub evd_stream_merging_supported: [[Boolean; 6]; 6],
    pub srq_supported: Boolean,
    pub srq_watermarks_supported: Count,
    pub srq_ep_pz_difference_supported: Boolean,
    pub srq_info_supported: Count,
    pub ep_recv_info_supported: Count,
    pub lmr_sync_req: Boolean,
    pub dto_async_return_guaranteed: Boolean,
    pub rdma_write_for_rdma_read_req: Boolean,
    pub rdma_read_lmr_rmr_context_exposure: Boolean,
    pub rmr_scope_supported: u32,
    pub is_signal_safe: Boolean,
    pub ha_supported: Boolean,
    pub ha_loadbalancing: u32,
    pub num_provider_specific_attr: Count,
    pub provider_specific_attr: *mut NamedAttr,
}

/// `DAT_EP_ATTR`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct EpAttr {
    pub service_type: u32,
    pub max_message_size: u32,
    pub max_rdma_size: u32,
    pub qos: u32,
    pub recv_completion_flags: u32,
    pub request_completion_flags: u32,
    pub max_recv_dtos: Count,
    pub max_request_dtos: Count,
    pub max_recv_iov: Count,
    pub max_request_iov: Count,
    pub max_rdma_read_in: Count,
    pub max_rdma_read_out: Count,
    pub srq_soft_hw: Count,
    pub max_rdma_read_iov: Count,
    pub max_rdma_write_iov: Count,
    pub ep_transport_specific_count: Count,
    pub ep_transport_specific: *mut NamedAttr,
    pub ep_provider_specific_count: Count,
    pub ep_provider_specific: *mut NamedAttr,
}

/// `DAT_EP_PARAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct EpParam {
    pub ia_handle: Handle,
    pub ep_state: u32,
    pub comm: Comm,
    pub local_ia_address_ptr: *mut c_void,
    pub local_port_qual: u64,
    pub remote_ia_address_ptr: *mut c_void,
    pub remote_port_qual: u64,
    pub pz_handle: Handle,
    pub recv_evd_handle: Handle,
    pub request_evd_handle: Handle,
    pub connect_evd_handle: Handle,
    pub srq_handle: Handle,
    pub ep_attr: EpAttr,
}

/// Bits of `DAT_EP_PARAM_MASK` that `dat_ep_modify` may change.
pub mod ep_field {
    #![allow(missing_docs, reason = "the names are those of the header")]
    pub const IA_HANDLE: u64 = 0x1;
    pub const EP_STATE: u64 = 0x2;
    pub const COMM: u64 = 0x4;
    pub const LOCAL_IA_ADDRESS: u64 = 0x8;
    pub const LOCAL_PORT_QUAL: u64 = 0x10;
    pub const REMOTE_IA_ADDRESS: u64 = 0x20;
    pub const REMOTE_PORT_QUAL: u64 = 0x40;
    pub const PZ_HANDLE: u64 = 0x80;
    pub const RECV_EVD_HANDLE: u64 = 0x100;
    pub const REQUEST_EVD_HANDLE: u64 = 0x200;
    pub const CONNECT_EVD_HANDLE: u64 = 0x400;
    pub const SRQ_HANDLE: u64 = 0x800;
    pub const SERVICE_TYPE: u64 = 0x1000;
    pub const MAX_MESSAGE_SIZE: u64 = 0x2000;
    pub const MAX_RDMA_SIZE: u64 = 0x4000;
    pub const QOS: u64 = 0x8000;
    pub const RECV_COMPLETION_FLAGS: u64 = 0x1_0000;
    pub const REQUEST_COMPLETION_FLAGS: u64 = 0x2_0000;
    pub const MAX_RECV_DTOS: u64 = 0x4_0000;
    pub const MAX_REQUEST_DTOS: u64 = 0x8_0000;
    pub const MAX_RECV_IOV: u64 = 0x10_0000;
    pub const MAX_REQUEST_IOV: u64 = 0x20_0000;
    pub const MAX_RDMA_READ_IN: u64 = 0x40_0000;
    pub const MAX_RDMA_READ_OUT: u64 = 0x80_0000;
    pub const SRQ_SOFT_HW: u64 = 0x100_0000;
    pub const MAX_RDMA_READ_IOV: u64 = 0x200_0000;
    pub const MAX_RDMA_WRITE_IOV: u64 = 0x400_0000;
    pub const ALL: u64 = 0x7FFF_FFFF;
}

/// `DAT_EVD_PARAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct EvdParam {
    pub ia_handle: Handle,
    pub evd_qlen: Count,
    pub evd_state: u32,
    pub cno_handle: Handle,
    pub evd_flags: u32,
}

/// `DAT_LMR_PARAM`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct LmrParam {
    pub ia_handle: Handle,
    pub mem_type: u32,
    pub region_desc: RegionDescription,
    pub length: u64,
    pub pz_handle: Handle,
    pub mem_priv: u32,
    pub va_type: u32,
    pub lmr_context: u32,
    pub rmr_context: u32,
    pub registered_size: u64,
    pub registered_address: u64,
}

/// `DAT_RMR_PARAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct RmrParam {
    pub ia_handle: Handle,
    pub pz_handle: Handle,
    pub lmr_triplet: Triplet,
    pub mem_priv: u32,
    pub rmr_context: u32,
    pub rmr_scope: u32,
    pub va_type: u32,
}

/// `DAT_PZ_PARAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct PzParam {
    pub ia_handle: Handle,
}

/// `DAT_PSP_PARAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct PspParam {
    pub ia_handle: Handle,
    pub conn_qual: ConnQual,
    pub evd_handle: Handle,
    pub psp_flags: u32,
}

/// `DAT_RSP_PARAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct RspParam {
    pub ia_handle: Handle,
    pub conn_qual: ConnQual,
    pub evd_handle: Handle,
    pub ep_handle: Handle,
}

/// `DAT_CR_PARAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct CrParam {
    pub remote_ia_address_ptr: *mut c_void,
    pub remote_port_qual: u64,
    pub private_data_size: Count,
    pub private_data: *mut c_void,
    pub local_ep_handle: Handle,
}

/// `DAT_CNO_PARAM`; the union is the agent, the largest of its members.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct CnoParam {
    pub ia_handle: Handle,
    pub proxy_type: u32,
    pub proxy: ProxyAgent,
}

/// `DAT_SRQ_ATTR`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct SrqAttr {
    pub max_recv_dtos: Count,
    pub max_recv_iov: Count,
    pub low_watermark: Count,
}

/// `DAT_SRQ_PARAM`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct SrqParam {
    pub ia_handle: Handle,
    pub srq_state: u32,
    pub pz_handle: Handle,
    pub max_recv_dtos: Count,
    pub max_recv_iov: Count,
    pub low_watermark: Count,
    pub available_dto_count: Count,
    pub outstanding_dto_count: Count,
}

// The sizes and offsets of the headers on x86-64 (section 2.4).
const _: () = {
    assert!(size_of::<ProviderInfo>() == 268);
    assert!(size_of::<IaAttr>() == 688);
    assert!(size_of::<ProviderAttr>() == 520);
    assert!(size_of::<EpAttr>() == 88);
    assert!(size_of::<EpParam>() == 184);
    assert!(size_of::<LmrParam>() == 80);
    assert!(size_of::<RmrParam>() == 48);
    assert!(size_of::<Triplet>() == 16);
    assert!(size_of::<RegionDescription>() == 16);
    assert!(size_of::<CrParam>() == 40);
    assert!(size_of::<EvdParam>() == 32);
    assert!(size_of::<SrqAttr>() == 12);
    assert!(size_of::<SrqParam>() == 48);
    assert!(size_of::<PspParam>() == 32);
    assert!(size_of::<CnoParam>() == 32);
    assert!(size_of::<ProxyAgent>() == 16);
    assert!(size_of::<Comm>() == 12);
};
