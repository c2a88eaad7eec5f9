//! `rsmapi.h`: imported segments (rsm 1, 2.2). Result codes are those of the machine.

#![allow(non_camel_case_types, reason = "the names of the C interface")]

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

/// Bytes of a controller's name (MAXNAMELEN).
pub const MAXNAMELEN: usize = 256;

/// `rsmapi_controller_handle_t`: a token.
pub type rsmapi_controller_handle_t = *mut c_void;
/// `rsm_memseg_export_handle_t`: a token.
pub type rsm_memseg_export_handle_t = *mut c_void;
/// `rsm_memseg_import_handle_t`: a token.
pub type rsm_memseg_import_handle_t = *mut c_void;
/// `rsm_localmemory_handle_t`: a token.
pub type rsm_localmemory_handle_t = *mut c_void;

/// A line of an access list.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rsmapi_access_entry_t {
    /// Node.
    pub ae_node: u32,
    /// Its permission.
    pub ae_permission: u32,
}

/// A barrier; its contents are the library's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rsmapi_barrier_t {
    /// Handle of the connection.
    pub seg: rsm_memseg_import_handle_t,
    /// Low bits of its generation.
    pub gnum: u16,
    /// Which barrier.
    pub privdata: *mut c_void,
}

/// What a controller can do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rsmapi_controller_attr_t {
    /// Sizes of single accesses, as `RSM_DAS` bits.
    pub attr_direct_access_sizes: c_uint,
    /// Sizes of atomic accesses.
    pub attr_atomic_sizes: c_uint,
    /// Bytes of a page.
    pub attr_page_size: usize,
    /// Of one export segment; 0: no fixed limit.
    pub attr_max_export_segment_size: usize,
    /// Of all.
    pub attr_tot_export_segment_size: usize,
    /// Their number.
    pub attr_max_export_segments: c_ulong,
    /// Of one mapping.
    pub attr_max_import_map_size: usize,
    /// Of all.
    pub attr_tot_import_map_size: usize,
    /// Number of connections.
    pub attr_max_import_segments: c_ulong,
}

/// Local memory of a transfer: a handle, or an address.
#[repr(C)]
#[derive(Clone, Copy)]
pub union rsm_iovec_local {
    /// With `RSM_HANDLE_TYPE`.
    pub handle: rsm_localmemory_handle_t,
    /// With `RSM_VA_TYPE`.
    pub vaddr: *mut c_char,
}

/// A transfer of a list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rsm_iovec_t {
    /// Which kind of local memory.
    pub io_type: c_int,
    /// Where it is.
    pub local: rsm_iovec_local,
    /// From there.
    pub local_offset: usize,
    /// From the segment's start.
    pub remote_offset: usize,
    /// Bytes.
    pub transfer_length: usize,
}

/// A list of transfers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rsm_scat_gath_t {
    /// This node.
    pub local_nodeid: u32,
    /// Entries.
    pub io_request_count: c_ulong,
    /// Entries not completed.
    pub io_residual_count: c_ulong,
    /// `RSM_IMPLICIT_SIGPOST`, `RSM_SIGPOST_NO_ACCUMULATE`.
    pub flags: c_uint,
    /// The connection.
    pub remote_handle: rsm_memseg_import_handle_t,
    /// The entries.
    pub iovec: *mut rsm_iovec_t,
}

/// Head of a topology.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rsm_topology_hdr_t {
    /// This node.
    pub local_nodeid: u32,
    /// Controllers.
    pub local_cntlr_count: u32,
}

/// Head of a controller's connections.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rsm_connections_hdr_t {
    /// Its name.
    pub cntlr_name: [c_char; MAXNAMELEN],
    /// Its address.
    pub local_hwaddr: u64,
    /// Controllers that it reaches.
    pub remote_cntlr_count: c_int,
}

/// A controller that is reached.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rsm_remote_cntlr_t {
    /// Its node.
    pub remote_nodeid: u32,
    /// Its name.
    pub remote_cntlrname: [c_char; MAXNAMELEN],
    /// Its address.
    pub remote_hwaddr: u64,
    /// `RSM_CONNECTION_ACTIVE`, or not to be used.
    pub connection_state: u32,
}

/// `RSM_VERSION`.
pub const RSM_VERSION: c_int = 5;
/// Local memory by handle.
pub const RSM_HANDLE_TYPE: c_int = 1;
/// Local memory by address.
pub const RSM_VA_TYPE: c_int = 2;
/// Entries of a list at most.
pub const RSM_MAX_SGIOREQS: c_ulong = 16;
/// A connection that may be used.
pub const RSM_CONNECTION_ACTIVE: u32 = 3;
/// A signal follows a list of transfers.
pub const RSM_IMPLICIT_SIGPOST: c_uint = 0x01;
/// Not if one is pending.
pub const RSM_SIGPOST_NO_ACCUMULATE: c_uint = 0x02;
/// Create without waiting for resources.
pub const RSM_CREATE_SEG_DONTWAIT: c_uint = 0x02;
