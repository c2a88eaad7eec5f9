//! What is connected to what, and ids that are reserved for applications (rsm 7.6).

use std::ffi::{CStr, c_char, c_int, c_void};

use windlass_abi::rsm::{
    MAXNAMELEN, RSM_CONNECTION_ACTIVE, rsm_connections_hdr_t, rsm_remote_cntlr_t,
    rsm_topology_hdr_t,
};
use windlass_rsm::{Code, Scope, range};

use crate::edge::{Answer, call, place, store};
use crate::seat;

/// The file of reserved ids, if it is not where it is by default.
const FILE: &str = "WINDLASS_RSM_SEGMENTID";

fn name(scope: Scope) -> [c_char; MAXNAMELEN] {
    let mut name = [0; MAXNAMELEN];
    for (to, from) in name.iter_mut().zip(scope.name().bytes()) {
        *to = from as c_char;
    }
    name
}

/// A controller and the nodes that it reaches now.
struct Connections {
    scope: Scope,
    nodes: Vec<u32>,
}

impl Connections {
    fn bytes(&self) -> usize {
        size_of::<rsm_connections_hdr_t>() + self.nodes.len() * size_of::<rsm_remote_cntlr_t>()
    }
}

/// All controllers that there are: the single-node one, and that of a job of several nodes. Gives this node too.
fn connections() -> Answer<(u32, Vec<Connections>)> {
    let own = seat::controller(Scope::Node)?.node();
    let mut all = vec![Connections {
        scope: Scope::Node,
        nodes: vec![own],
    }];
    match seat::controller(Scope::Cluster) {
        Ok(cluster) => all.push(Connections {
            scope: Scope::Cluster,
            nodes: cluster.reached()?,
        }),
        Err(Code::CtlrNotPresent) => {}
        Err(code) => return Err(code),
    }
    Ok((own, all))
}

/// `int rsm_get_interconnect_topology(rsm_topology_t **topology_data)` (section 7.6).
///
/// # Safety
/// `topology_data` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_get_interconnect_topology(topology_data: *mut *mut c_void) -> c_int {
    call(|| {
        let at = place(topology_data, Code::BadTopologyPtr)?;
        let (own, all) = connections()?;
        let head = size_of::<rsm_topology_hdr_t>() + all.len() * size_of::<*mut c_void>();
        let bytes = head + all.iter().map(Connections::bytes).sum::<usize>();
        // SAFETY: any size may be asked for.
        let block = unsafe { libc::malloc(bytes) }.cast::<u8>();
        let block = place(block, Code::InsufficientMem)?;
        // SAFETY: what is written is as long as the block that was just got, and in this order: the head, a pointer to each
        // controller, the controllers with their nodes. malloc aligns for every type, and all sizes are multiples of 8. The rest
        // is the caller's promise.
        unsafe {
            let topology = rsm_topology_hdr_t {
                local_nodeid: own,
                local_cntlr_count: all.len() as u32,
            };
            block.cast::<rsm_topology_hdr_t>().write(topology);
            let pointers = block.add(size_of::<rsm_topology_hdr_t>());
            let mut next = block.add(head);
            for (index, of) in all.iter().enumerate() {
                pointers.cast::<*mut u8>().add(index).write(next);
                write(next, own, of);
                next = next.add(of.bytes());
            }
            store(at, block.cast());
        }
        Ok(())
    })
}

/// One controller with its nodes.
///
/// # Safety
/// So many bytes as it has are there, aligned for every type.
unsafe fn write(at: *mut u8, own: u32, of: &Connections) {
    let controller = rsm_connections_hdr_t {
        cntlr_name: name(of.scope),
        local_hwaddr: own.into(),
        remote_cntlr_count: of.nodes.len() as c_int,
    };
    // SAFETY: the caller's promise.
    unsafe {
        at.cast::<rsm_connections_hdr_t>().write(controller);
        let remotes = at.add(size_of::<rsm_connections_hdr_t>());
        for (index, node) in of.nodes.iter().enumerate() {
            let remote = rsm_remote_cntlr_t {
                remote_nodeid: *node,
                remote_cntlrname: name(of.scope),
                remote_hwaddr: (*node).into(),
                connection_state: RSM_CONNECTION_ACTIVE,
            };
            remotes
                .cast::<rsm_remote_cntlr_t>()
                .add(index)
                .write(remote);
        }
    }
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
