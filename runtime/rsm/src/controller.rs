//! The controller: a process's way to segments (rsm 5.1). `loopback` leads to those of its node, and in a job of several nodes
//! `tcp0` to those of all.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use windlass_dat::{Config, Ia};
use windlass_mem::SharedBytes;

use crate::access::Reach;
use crate::code::Code;
use crate::gate::{Gate, Offer};
use crate::pass::Network;
use crate::request::{Body, Control, Gone, Request};
use crate::slots::Counters;

/// The name of the single-node one.
pub const LOOPBACK: &str = "loopback";
/// The name of the one that leads to every node of a job.
pub const CLUSTER: &str = "tcp0";
/// Bytes of a controller's name at most, with the zero behind it.
pub const MAX_NAME: usize = 256;

/// Which of the controllers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The single-node one.
    Node,
    /// The one that leads to every node of a job.
    Cluster,
}

impl Scope {
    /// The controller of a name, without case; `None` means the single-node one. Whether it is there, the node knows.
    ///
    /// # Errors
    /// [`Code::CtlrNotPresent`].
    pub fn of(name: Option<&[u8]>) -> Result<Self, Code> {
        let is = |name: &[u8], other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name {
            None => Ok(Self::Node),
            Some(name) if is(name, LOOPBACK) => Ok(Self::Node),
            Some(name) if is(name, CLUSTER) => Ok(Self::Cluster),
            Some(_) => Err(Code::CtlrNotPresent),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => LOOPBACK,
            Self::Cluster => CLUSTER,
        }
    }
}

/// What a controller can do (rsm 1). 0: no fixed limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Bits of the sizes of single accesses: 1 for 1 byte, 2 for 2, 4 for 4, 8 for 8.
    pub direct_access_sizes: u32,
    /// The same for atomic updates.
    pub atomic_sizes: u32,
    /// Bytes of a page.
    pub page_size: usize,
    /// Bytes of an export segment at most, and of all.
    pub max_export_segment_size: usize,
    /// Export segments at most.
    pub max_export_segments: usize,
    /// Bytes that one mapping has at most, and all.
    pub max_import_map_size: usize,
    /// Connections at most.
    pub max_import_segments: usize,
}

/// User addresses, of which each half is the other's limit.
const MAX_MAP: usize = 1 << 46;

/// A process's way to segments.
pub struct Controller {
    control: Arc<dyn Control>,
    scope: Scope,
    node: u32,
    nodes: u32,
    counters: Counters,
    network: OnceLock<Network>,
    /// Where importers of other nodes come in, as long as there is a segment for them.
    gate: Mutex<Weak<Gate>>,
    /// By which this process goes to exporters of others, as long as it has a connection.
    adapter: Mutex<Weak<Ia>>,
}

impl Controller {
    /// Begins.
    ///
    /// # Errors
    /// [`Code::CtlrNotPresent`]: the node's service does not answer, or there is no other node for the controller to lead to;
    /// [`Code::InsufficientResources`], [`Code::InsufficientMem`].
    pub fn open(control: Arc<dyn Control>, scope: Scope) -> Result<Arc<Self>, Code> {
        let (body, files) = ask(&*control, Request::Info, &[], Code::CtlrNotPresent)?;
        let Body::Info {
            node, nodes, uid, ..
        } = body
        else {
            return Err(Code::InternalError);
        };
        if scope == Scope::Cluster && nodes < 2 {
            return Err(Code::CtlrNotPresent);
        }
        let counters = Counters::open(only(files)?, uid)?;
        Ok(Arc::new(Self {
            control,
            scope,
            node,
            nodes,
            counters,
            network: OnceLock::new(),
            gate: Mutex::default(),
            adapter: Mutex::default(),
        }))
    }

    /// Which it is.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The nodes that an access list may name.
    pub fn reach(&self) -> Reach {
        match self.scope {
            Scope::Node => Reach::One(self.node),
            Scope::Cluster => Reach::All(self.nodes),
        }
    }

    /// The nodes to which there is a way now, this one among them.
    ///
    /// # Errors
    /// [`Code::CtlrNotPresent`]: the node's service has gone.
    pub fn reached(&self) -> Result<Vec<u32>, Code> {
        let (body, _) = self.ask(Request::Info, &[], Code::CtlrNotPresent)?;
        let Body::Info { nodes, lost, .. } = body else {
            return Err(Code::InternalError);
        };
        let reach = self.reach();
        let there = |node: &u32| reach.has(*node) && !lost.contains(node);
        Ok((0..nodes).filter(there).collect())
    }

    /// Number of this node.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// What it can do.
    ///
    /// # Errors
    /// [`Code::CtlrNotPresent`]: the node's service has gone.
    pub fn attributes(&self) -> Result<Attributes, Code> {
        self.ask(Request::Info, &[], Code::CtlrNotPresent)?;
        let (direct_access_sizes, atomic_sizes) = match self.scope {
            Scope::Node => (0xF, 0xC),
            // What is another node's is not mapped.
            Scope::Cluster => (0, 0),
        };
        Ok(Attributes {
            direct_access_sizes,
            atomic_sizes,
            page_size: rustix::param::page_size(),
            max_export_segment_size: 0,
            max_export_segments: 0,
            max_import_map_size: MAX_MAP,
            max_import_segments: crate::service::MAX_OF_PROCESS,
        })
    }

    fn network(&self) -> Result<Network, Code> {
        if let Some(network) = self.network.get() {
            return Ok(*network);
        }
        match self.ask(Request::Network, &[], Code::CtlrNotPresent)? {
            (Body::Network(network), _) => Ok(*self.network.get_or_init(|| network)),
            _ => Err(Code::InternalError),
        }
    }

    /// Lets importers of other nodes come to this memory, if the controller leads to them.
    ///
    /// # Errors
    /// [`Code::InsufficientResources`]; [`Code::CtlrNotPresent`].
    pub(crate) fn offer(
        &self,
        bytes: impl FnOnce() -> Result<SharedBytes, Code>,
    ) -> Result<Option<Offer>, Code> {
        if self.scope == Scope::Node {
            return Ok(None);
        }
        let mut present = self.gate.lock();
        let gate = match present.upgrade() {
            Some(gate) => gate,
            None => Gate::open(&self.network()?)?,
        };
        *present = Arc::downgrade(&gate);
        drop(present);
        gate.offer(&bytes()?).map(Some)
    }

    /// What this process goes to exporters of other nodes by. Whoever transfers drives it.
    ///
    /// # Errors
    /// As of [`offer`](Self::offer).
    pub(crate) fn adapter(&self) -> Result<Arc<Ia>, Code> {
        let mut present = self.adapter.lock();
        if let Some(adapter) = present.upgrade() {
            return Ok(adapter);
        }
        let network = self.network()?;
        let opened = Ia::open(Config {
            secret: network.secret.secret(),
            bind: SocketAddr::new(network.address, 0),
        });
        let opened = opened.map_err(|_| Code::InsufficientResources)?;
        *present = Arc::downgrade(&opened);
        Ok(opened)
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asks the service; `gone` where it does not answer.
    pub(crate) fn ask(
        &self,
        request: Request,
        files: &[BorrowedFd<'_>],
        gone: Code,
    ) -> Result<(Body, Vec<OwnedFd>), Code> {
        ask(&*self.control, request, files, gone)
    }
}

fn ask(
    control: &dyn Control,
    request: Request,
    files: &[BorrowedFd<'_>],
    gone: Code,
) -> Result<(Body, Vec<OwnedFd>), Code> {
    match control.call(request, files) {
        Ok((Ok(body), files)) => Ok((body, files)),
        Ok((Err(code), _)) => Err(code),
        Err(Gone) => Err(gone),
    }
}

/// The one file; it is not there where this process has no descriptor to spare.
pub(crate) fn only(mut files: Vec<OwnedFd>) -> Result<OwnedFd, Code> {
    files.pop().ok_or(Code::InsufficientResources)
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
