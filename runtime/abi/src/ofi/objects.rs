//! fabric.h, fi_domain.h, fi_endpoint.h, fi_rma.h, fi_eq.h, fi_cm.h: objects and their tables of functions.

use std::ffi::{c_char, c_int, c_void};

use super::fi_info;

/// `struct fi_context2`: the provider's own part of an operation that is under way.
#[repr(C)]
#[derive(Debug)]
pub struct fi_context2 {
    /// Not for us.
    pub internal: [*mut c_void; 8],
}

/// `struct fid`: every object begins with one.
#[repr(C)]
#[derive(Debug)]
pub struct fid {
    /// Kind of object.
    pub fclass: usize,
    /// The caller's.
    pub context: *mut c_void,
    /// Functions of all objects.
    pub ops: *mut fi_ops,
}

/// `struct fi_ops`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ops {
    /// Bytes of this table.
    pub size: usize,
    /// `fi_close`.
    pub close: unsafe extern "C" fn(*mut fid) -> c_int,
    /// `fi_ep_bind`, `fi_mr_bind`.
    pub bind: unsafe extern "C" fn(*mut fid, *mut fid, u64) -> c_int,
    /// `fi_control`.
    pub control: unsafe extern "C" fn(*mut fid, c_int, *mut c_void) -> c_int,
    /// `fi_open_ops`.
    pub ops_open: *const c_void,
}

/// `struct fid_fabric`.
#[repr(C)]
#[derive(Debug)]
pub struct fid_fabric {
    /// The object.
    pub fid: fid,
    /// Its functions.
    pub ops: *mut fi_ops_fabric,
    /// Version that was asked for.
    pub api_version: u32,
}

/// `struct fi_ops_fabric`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ops_fabric {
    /// Bytes of this table.
    pub size: usize,
    /// `fi_domain`.
    pub domain: unsafe extern "C" fn(
        *mut fid_fabric,
        *mut fi_info,
        *mut *mut fid_domain,
        *mut c_void,
    ) -> c_int,
    /// `fi_passive_ep`.
    pub passive_ep: *const c_void,
    /// `fi_eq_open`.
    pub eq_open: *const c_void,
    /// `fi_wait_open`.
    pub wait_open: *const c_void,
    /// `fi_trywait`.
    pub trywait: unsafe extern "C" fn(*mut fid_fabric, *mut *mut fid, c_int) -> c_int,
}

/// `struct fid_domain`.
#[repr(C)]
#[derive(Debug)]
pub struct fid_domain {
    /// The object.
    pub fid: fid,
    /// Its functions.
    pub ops: *mut fi_ops_domain,
    /// Those of its memory.
    pub mr: *mut fi_ops_mr,
}

/// `struct fi_ops_domain`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ops_domain {
    /// Bytes of this table.
    pub size: usize,
    /// `fi_av_open`.
    pub av_open: unsafe extern "C" fn(
        *mut fid_domain,
        *mut fi_av_attr,
        *mut *mut fid_av,
        *mut c_void,
    ) -> c_int,
    /// `fi_cq_open`.
    pub cq_open: unsafe extern "C" fn(
        *mut fid_domain,
        *mut fi_cq_attr,
        *mut *mut fid_cq,
        *mut c_void,
    ) -> c_int,
    /// `fi_endpoint`.
    pub endpoint:
        unsafe extern "C" fn(*mut fid_domain, *mut fi_info, *mut *mut fid_ep, *mut c_void) -> c_int,
}

/// `struct fi_ops_mr`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ops_mr {
    /// Bytes of this table.
    pub size: usize,
    /// `fi_mr_reg`: buffer, length, access, offset, wanted key, flags.
    pub reg: unsafe extern "C" fn(
        *mut fid,
        *const c_void,
        usize,
        u64,
        u64,
        u64,
        u64,
        *mut *mut fid_mr,
        *mut c_void,
    ) -> c_int,
}

/// `struct fid_mr`.
#[repr(C)]
#[derive(Debug)]
pub struct fid_mr {
    /// The object.
    pub fid: fid,
    /// `fi_mr_desc`: what names the region on this side.
    pub mem_desc: *mut c_void,
    /// `fi_mr_key`: what names it to peers.
    pub key: u64,
}

/// `struct fi_av_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_av_attr {
    /// Type; 0: the domain's.
    pub r#type: c_int,
    /// Bits of an address for receive contexts.
    pub rx_ctx_bits: c_int,
    /// How many peers, about.
    pub count: usize,
    /// How many on one node.
    pub ep_per_node: usize,
    /// Of a shared one.
    pub name: *const c_char,
    /// Of a shared one.
    pub map_addr: *mut c_void,
    /// Flags.
    pub flags: u64,
}

/// `struct fid_av`.
#[repr(C)]
#[derive(Debug)]
pub struct fid_av {
    /// The object.
    pub fid: fid,
    /// Its functions.
    pub ops: *mut fi_ops_av,
}

/// `struct fi_ops_av`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ops_av {
    /// Bytes of this table.
    pub size: usize,
    /// `fi_av_insert`: addresses, how many, answers, flags.
    pub insert: unsafe extern "C" fn(
        *mut fid_av,
        *const c_void,
        usize,
        *mut u64,
        u64,
        *mut c_void,
    ) -> c_int,
}

/// `struct fi_cq_attr`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_cq_attr {
    /// Entries.
    pub size: usize,
    /// Flags.
    pub flags: u64,
    /// `enum fi_cq_format`.
    pub format: c_int,
    /// `enum fi_wait_obj`.
    pub wait_obj: c_int,
    /// Interrupt.
    pub signaling_vector: c_int,
    /// `enum fi_cq_wait_cond`.
    pub wait_cond: c_int,
    /// An open one.
    pub wait_set: *mut c_void,
}

/// `struct fid_cq`.
#[repr(C)]
#[derive(Debug)]
pub struct fid_cq {
    /// The object.
    pub fid: fid,
    /// Its functions.
    pub ops: *mut fi_ops_cq,
}

/// `struct fi_ops_cq`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ops_cq {
    /// Bytes of this table.
    pub size: usize,
    /// `fi_cq_read`.
    pub read: unsafe extern "C" fn(*mut fid_cq, *mut c_void, usize) -> isize,
    /// `fi_cq_readfrom`.
    pub readfrom: *const c_void,
    /// `fi_cq_readerr`.
    pub readerr: unsafe extern "C" fn(*mut fid_cq, *mut fi_cq_err_entry, u64) -> isize,
}

/// `struct fi_cq_err_entry`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_cq_err_entry {
    /// The operation's.
    pub op_context: *mut c_void,
    /// Its flags.
    pub flags: u64,
    /// Its bytes.
    pub len: usize,
    /// Its buffer.
    pub buf: *mut c_void,
    /// Its data.
    pub data: u64,
    /// Its tag.
    pub tag: u64,
    /// Bytes too many.
    pub olen: usize,
    /// Error.
    pub err: c_int,
    /// The provider's own.
    pub prov_errno: c_int,
    /// The provider's own.
    pub err_data: *mut c_void,
    /// Its bytes.
    pub err_data_size: usize,
}

/// `struct fid_ep`.
#[repr(C)]
#[derive(Debug)]
pub struct fid_ep {
    /// The object.
    pub fid: fid,
    /// Options.
    pub ops: *mut c_void,
    /// Addresses and connections.
    pub cm: *mut fi_ops_cm,
    /// Messages.
    pub msg: *mut c_void,
    /// One-sided operations.
    pub rma: *mut fi_ops_rma,
}

/// `struct fi_ops_cm`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ops_cm {
    /// Bytes of this table.
    pub size: usize,
    /// `fi_setname`.
    pub setname: *const c_void,
    /// `fi_getname`.
    pub getname: unsafe extern "C" fn(*mut fid, *mut c_void, *mut usize) -> c_int,
}

/// `struct iovec`.
#[repr(C)]
#[derive(Debug)]
pub struct iovec {
    /// First byte.
    pub iov_base: *mut c_void,
    /// How many.
    pub iov_len: usize,
}

/// `struct fi_rma_iov`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_rma_iov {
    /// First byte at the target.
    pub addr: u64,
    /// How many.
    pub len: usize,
    /// The region's key.
    pub key: u64,
}

/// `struct fi_msg_rma`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_msg_rma {
    /// Local pieces.
    pub msg_iov: *const iovec,
    /// What names each piece's region.
    pub desc: *mut *mut c_void,
    /// How many.
    pub iov_count: usize,
    /// The peer.
    pub addr: u64,
    /// Remote pieces.
    pub rma_iov: *const fi_rma_iov,
    /// How many.
    pub rma_iov_count: usize,
    /// The caller's, and the provider's where it asks for it.
    pub context: *mut c_void,
    /// Sent with it.
    pub data: u64,
}

/// `fi_readmsg`, `fi_writemsg`.
pub type RmaMsg = unsafe extern "C" fn(*mut fid_ep, *const fi_msg_rma, u64) -> isize;

/// `struct fi_ops_rma`.
#[repr(C)]
#[derive(Debug)]
pub struct fi_ops_rma {
    /// Bytes of this table.
    pub size: usize,
    /// `fi_read`.
    pub read: *const c_void,
    /// `fi_readv`.
    pub readv: *const c_void,
    /// `fi_readmsg`.
    pub readmsg: RmaMsg,
    /// `fi_write`.
    pub write: *const c_void,
    /// `fi_writev`.
    pub writev: *const c_void,
    /// `fi_writemsg`.
    pub writemsg: RmaMsg,
}
