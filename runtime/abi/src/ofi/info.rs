//! fabric.h: what is asked of providers, and what they answer.

use std::ffi::{c_char, c_int, c_void};

use super::{fid, fid_domain, fid_fabric};

/// `struct fi_tx_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_tx_attr {
    /// Capabilities.
    pub caps: u64,
    /// What the caller has to do.
    pub mode: u64,
    /// Flags of operations that name none.
    pub op_flags: u64,
    /// Which orders hold.
    pub msg_order: u64,
    /// Order of completions.
    pub comp_order: u64,
    /// Bytes of an injected message at most.
    pub inject_size: usize,
    /// Operations on their way at most, about.
    pub size: usize,
    /// Local pieces of an operation at most.
    pub iov_limit: usize,
    /// Remote pieces.
    pub rma_iov_limit: usize,
    /// Traffic class.
    pub tclass: u32,
}

/// `struct fi_rx_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_rx_attr {
    /// Capabilities.
    pub caps: u64,
    /// What the caller has to do.
    pub mode: u64,
    /// Flags of operations that name none.
    pub op_flags: u64,
    /// Which orders hold.
    pub msg_order: u64,
    /// Order of completions.
    pub comp_order: u64,
    /// Bytes that may wait for a receive.
    pub total_buffered_recv: usize,
    /// Receives at most.
    pub size: usize,
    /// Local pieces at most.
    pub iov_limit: usize,
}

/// `struct fi_ep_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ep_attr {
    /// Type.
    pub r#type: c_int,
    /// What is spoken on the wire: peers of different ones do not understand each other.
    pub protocol: u32,
    /// Its version.
    pub protocol_version: u32,
    /// Bytes of one transfer at most.
    pub max_msg_size: usize,
    /// Room before a message.
    pub msg_prefix_size: usize,
    /// Bytes up to which reads after writes are in order.
    pub max_order_raw_size: usize,
    /// Writes after reads.
    pub max_order_war_size: usize,
    /// Writes after writes.
    pub max_order_waw_size: usize,
    /// Form of tags.
    pub mem_tag_format: u64,
    /// Transmit contexts.
    pub tx_ctx_cnt: usize,
    /// Receive contexts.
    pub rx_ctx_cnt: usize,
    /// Bytes of the key below.
    pub auth_key_size: usize,
    /// Key of the network.
    pub auth_key: *mut u8,
}

/// `struct fi_domain_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_domain_attr {
    /// An open one.
    pub domain: *mut fid_domain,
    /// Name, of an interface say.
    pub name: *mut c_char,
    /// Who may call.
    pub threading: c_int,
    /// Who makes progress with connections.
    pub control_progress: c_int,
    /// Who makes progress with data.
    pub data_progress: c_int,
    /// Who watches that queues do not overflow.
    pub resource_mgmt: c_int,
    /// Type of address vectors.
    pub av_type: c_int,
    /// `FI_MR_*`.
    pub mr_mode: c_int,
    /// Bytes of a key.
    pub mr_key_size: usize,
    /// Bytes of data with a completion.
    pub cq_data_size: usize,
    /// Completion queues at most.
    pub cq_cnt: usize,
    /// Endpoints at most.
    pub ep_cnt: usize,
    /// Transmit contexts at most.
    pub tx_ctx_cnt: usize,
    /// Receive contexts at most.
    pub rx_ctx_cnt: usize,
    /// Of one endpoint.
    pub max_ep_tx_ctx: usize,
    /// Of one endpoint.
    pub max_ep_rx_ctx: usize,
    /// Shared ones of one endpoint.
    pub max_ep_stx_ctx: usize,
    /// Shared ones of one endpoint.
    pub max_ep_srx_ctx: usize,
    /// Counters at most.
    pub cntr_cnt: usize,
    /// Pieces of a region at most.
    pub mr_iov_limit: usize,
    /// Capabilities.
    pub caps: u64,
    /// What the caller has to do.
    pub mode: u64,
    /// Key of the network.
    pub auth_key: *mut u8,
    /// Its bytes.
    pub auth_key_size: usize,
    /// Bytes of an error's data at most.
    pub max_err_data: usize,
    /// Regions at most.
    pub mr_cnt: usize,
    /// Traffic class.
    pub tclass: u32,
}

/// `struct fi_fabric_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_fabric_attr {
    /// An open one.
    pub fabric: *mut fid_fabric,
    /// Name, of a network say.
    pub name: *mut c_char,
    /// Name of the provider.
    pub prov_name: *mut c_char,
    /// Its version.
    pub prov_version: u32,
    /// Version that was asked for.
    pub api_version: u32,
}

/// `struct fi_info`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_info {
    /// The next best one.
    pub next: *mut fi_info,
    /// Capabilities.
    pub caps: u64,
    /// What the caller has to do.
    pub mode: u64,
    /// Form of addresses.
    pub addr_format: u32,
    /// Bytes of the local address.
    pub src_addrlen: usize,
    /// Bytes of the peer's.
    pub dest_addrlen: usize,
    /// Local address.
    pub src_addr: *mut c_void,
    /// Peer's address.
    pub dest_addr: *mut c_void,
    /// A request or an endpoint.
    pub handle: *mut fid,
    /// Transmit attributes.
    pub tx_attr: *mut fi_tx_attr,
    /// Receive attributes.
    pub rx_attr: *mut fi_rx_attr,
    /// Endpoint's attributes.
    pub ep_attr: *mut fi_ep_attr,
    /// Domain's attributes.
    pub domain_attr: *mut fi_domain_attr,
    /// Fabric's attributes.
    pub fabric_attr: *mut fi_fabric_attr,
    /// The device.
    pub nic: *mut c_void,
}
