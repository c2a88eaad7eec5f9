//! What is connected to what, and ids that are reserved for applications (rsm 7.6).

use std::ffi::{CStr, c_char, c_int, c_void};

use windlass_abi::rsm::{
    MAXNAMELEN, RSM_CONNECTION_ACTIVE, rsm_connections_hdr_t, rsm_remote_cntlr_t,
    rsm_topology_hdr_t,
};
use windlass_rsm::{Code, LOOPBACK, range};

use crate::edge::{call, place, store};

/// The file of reserved ids, if it is not where it is by default.
const FILE: &str = "WINDLASS_RSM_SEGMENTID";

/// The whole of our topology, in one block: this node, its controller, and the one that it reaches, which is itself.
#[repr(C)]
struct Topology {
    head: rsm_topology_hdr_t,
    connections: [*mut c_void; 1],
    controller: rsm_connections_hdr_t,
    reached: [rsm_remote_cntlr_t; 1],
}

fn name() -> [c_char; MAXNAMELEN] {
    let mut name = [0; MAXNAMELEN];
    for (to, from) in name.iter_mut().zip(LOOPBACK.bytes()) {
        *to = from as c_char;
    }
    name
}

/// `int rsm_get_interconnect_topology(rsm_topology_t **topology_data)` (section 7.6).
///
/// # Safety
/// `topology_data` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_get_interconnect_topology(topology_data: *mut *mut c_void) -> c_int {
    call(|| {
        let at = place(topology_data, Code::BadTopologyPtr)?;
        let node = crate::seat::controller()?.node();
        // SAFETY: any size may be asked for.
        let block = unsafe { libc::malloc(size_of::<Topology>()) }.cast::<Topology>();
        let block = place(block, Code::InsufficientMem)?;
        let topology = Topology {
            head: rsm_topology_hdr_t {
                local_nodeid: node,
                local_cntlr_count: 1,
            },
            // SAFETY: a part of the block.
            connections: [unsafe { &raw mut (*block).controller }.cast()],
            controller: rsm_connections_hdr_t {
                cntlr_name: name(),
                local_hwaddr: node.into(),
                remote_cntlr_count: 1,
            },
            reached: [rsm_remote_cntlr_t {
                remote_nodeid: node,
                remote_cntlrname: name(),
                remote_hwaddr: node.into(),
                connection_state: RSM_CONNECTION_ACTIVE,
            }],
        };
        // SAFETY: the block is ours and large enough, and malloc aligns for every type; the rest is the caller's promise.
        unsafe {
            block.write(topology);
            store(at, block.cast());
        }
        Ok(())
    })
}

/// `void rsm_free_interconnect_topology(rsm_topology_t *topology_data)` (section 7.6).
///
/// # Safety
/// `topology_data` is null or came from [`rsm_get_interconnect_topology`], and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_free_interconnect_topology(topology_data: *mut c_void) {
    // SAFETY: a block of malloc's by the caller's promise, or null.
    unsafe { libc::free(topology_data) };
}

/// `int rsm_get_segmentid_range(const char *appid, rsm_memseg_id_t *baseid, uint32_t *length)` (section 7.6).
///
/// # Safety
/// `appid` is null or a string; the others are null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_get_segmentid_range(
    appid: *const c_char,
    baseid: *mut u32,
    length: *mut u32,
) -> c_int {
    call(|| {
        let application = place(appid.cast_mut(), Code::BadAddr)?;
        let (base_at, count_at) = (place(baseid, Code::BadAddr)?, place(length, Code::BadAddr)?);
        // SAFETY: the caller's promise.
        let application = unsafe { CStr::from_ptr(application) }.to_string_lossy();
        let file = std::env::var_os(FILE).unwrap_or_else(|| range::FILE.into());
        let text = std::fs::read_to_string(file).map_err(|_| Code::BadConf)?;
        let (base, count) = range::find(&text, &application)?;
        // SAFETY: the caller's promise.
        unsafe {
            store(base_at, base);
            store(count_at, count);
        }
        Ok(())
    })
}
