//! The node's part: which segments are published, by whom, and who is connected to them.
//!
//! Whoever hosts it authenticates the processes, calls [`Service::join`] for each, [`Service::handle`] for each request and
//! [`Service::leave`] when a process ends, however it ends; and carries messages between the services of a job's nodes. It keeps
//! descriptors, of memory and of queues of signals, and the counters by which importers see that a segment has ended. It touches no
//! byte of a segment. It trusts no request and no message.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::access::{Access, Caller, FIRST_GIVEN, Reach, check_id};
use crate::code::Code;
use crate::connection::Connection;
use crate::memory::Memory;
use crate::nodes::Nodes;
use crate::pass::{Door, Network};
use crate::queue::Queue;
use crate::request::{Answer, Body, Request};
use crate::slots::{Side, Slots};

/// Published segments of one node (rsm 2.2).
pub const MAX_SEGMENTS: usize = 4095;
/// Export segments, and connections, that one process, or another node, may have: enough to connect to every segment.
pub const MAX_OF_PROCESS: usize = 4096;
/// Connections to segments of other nodes that the processes of one node may have.
pub const MAX_FAR: usize = 4096;
/// Most descriptors kept for one segment or connection: both ends of a queue, and the memory to read and to write.
const FILES_EACH: usize = 4;

/// Names a process for the life of a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OwnerId(u64);

pub(crate) struct Export {
    owner: OwnerId,
    pub(crate) cluster: bool,
    pub(crate) signals: Queue,
    pub(crate) published: Option<Published>,
}

pub(crate) struct Published {
    id: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) access: Access,
    pub(crate) memory: Memory,
    /// Of a segment for every node.
    pub(crate) door: Option<Door>,
    pub(crate) slot: u32,
    pub(crate) importers: BTreeSet<u64>,
}

/// What a request leads to.
#[derive(Debug)]
pub enum Outcome {
    /// The answer.
    Now(Answer),
    /// Another node has been asked: [`Service::take_answer`] has the answer to this call once it has come.
    Later(u64),
}

impl From<Body> for Outcome {
    fn from(body: Body) -> Self {
        Self::Now(body.into())
    }
}

/// The segments of one node.
pub struct Service {
    pub(crate) node: u32,
    pub(crate) slots: Slots,
    pub(crate) exports: BTreeMap<u64, Export>,
    pub(crate) ids: BTreeMap<u32, u64>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) nodes: Nodes,
    /// With other nodes.
    network: Option<Network>,
    most: usize,
    next: u64,
    next_id: u32,
}

impl Service {
    /// A service of node number `node` of `nodes` that keeps at most `files` descriptors. Processes of several nodes reach each
    /// other by `network`.
    ///
    /// # Errors
    /// The system refuses the file of the counters.
    pub fn new(
        node: u32,
        nodes: u32,
        files: usize,
        network: Option<Network>,
    ) -> windlass_mem::Result<Self> {
        Ok(Self {
            node,
            slots: Slots::new(MAX_SEGMENTS, if nodes > 1 { MAX_FAR } else { 0 })?,
            exports: BTreeMap::new(),
            ids: BTreeMap::new(),
            connections: BTreeMap::new(),
            nodes: Nodes::new(nodes),
            network,
            most: files / FILES_EACH,
            next: 1,
            next_id: FIRST_GIVEN,
        })
    }

    /// A process begins.
    pub fn join(&mut self) -> OwnerId {
        OwnerId(self.name())
    }

    /// A process has ended: so have its segments, and their importers are cut off (rsm 8).
    pub fn leave(&mut self, owner: OwnerId) {
        let of = |(name, export): (&u64, &Export)| (export.owner == owner).then_some(*name);
        for export in self.exports.iter().filter_map(of).collect::<Vec<_>>() {
            self.unpublish(export);
            self.exports.remove(&export);
        }
        self.disconnect_all(owner);
    }

    /// Published segments, and connections.
    pub fn counts(&self) -> (usize, usize) {
        (self.ids.len(), self.connections.len())
    }

    pub(crate) fn name(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Answers a request of a process. `files` are those that came with it.
    ///
    /// # Errors
    /// What the caller of the library is answered.
    pub fn handle(
        &mut self,
        owner: OwnerId,
        caller: Caller<'_>,
        request: Request,
        files: Vec<OwnedFd>,
    ) -> Result<Outcome, Code> {
        let sends = matches!(request, Request::Publish { .. } | Request::Rebind { .. });
        if !sends && !files.is_empty() {
            return Err(Code::BadArgsErrors);
        }
        match request {
            Request::Info => self.info(),
            Request::Network => {
                let network = self.network.ok_or(Code::CtlrNotPresent)?;
                Ok(Body::Network(network).into())
            }
            Request::Create { cluster } => self.create(owner, cluster),
            Request::Destroy { export } => {
                self.export(owner, export)?;
                self.unpublish(export);
                self.exports.remove(&export);
                Ok(Body::Done.into())
            }
            Request::Publish {
                export,
                id,
                access,
                door,
            } => {
                let export = (export, door);
                self.publish(owner, caller, export, id, access, files)
            }
            Request::Unpublish { export } => {
                self.export(owner, export)?;
                match self.unpublish(export) {
                    true => Ok(Body::Done.into()),
                    false => Err(Code::SegNotPublished),
                }
            }
            Request::Republish { export, access } => {
                let access = self.judge(owner, export, access)?;
                self.published(owner, export)?.access = access;
                Ok(Body::Done.into())
            }
            Request::Rebind { export } => self.rebind(owner, caller, export, files),
            Request::Connect {
                cluster,
                node,
                id,
                permission,
            } => self.connect(owner, caller, cluster, node, id, permission),
            Request::Reopen { connection } => self.reopen(owner, connection),
            Request::Disconnect { connection } => {
                self.connection(owner, connection)?;
                self.disconnect(connection);
                Ok(Body::Done.into())
            }
            Request::Post { to, once } => self.post(owner, to, once),
        }
    }

    fn info(&mut self) -> Result<Outcome, Code> {
        let body = Body::Info {
            node: self.node,
            nodes: self.nodes.count(),
            lost: self.nodes.lost(),
            uid: rustix::process::geteuid().as_raw(),
        };
        let counters = self.slots.reader()?;
        Ok(Outcome::Now(Answer::with_files(body, vec![counters])))
    }

    pub(crate) fn export(&mut self, owner: OwnerId, export: u64) -> Result<&mut Export, Code> {
        let found = self.exports.get_mut(&export);
        found
            .filter(|found| found.owner == owner)
            .ok_or(Code::BadSegHndl)
    }

    fn published(&mut self, owner: OwnerId, export: u64) -> Result<&mut Published, Code> {
        let published = self.export(owner, export)?.published.as_mut();
        published.ok_or(Code::SegNotPublished)
    }

    pub(crate) fn published_by(&mut self, export: u64) -> Option<&mut Published> {
        self.exports.get_mut(&export)?.published.as_mut()
    }

    /// There is a place for one more segment or connection, of this process and of all.
    pub(crate) fn room<'a>(
        &self,
        owner: OwnerId,
        owners: impl Iterator<Item = &'a OwnerId>,
    ) -> Result<(), Code> {
        let of_process = owners.filter(|other| **other == owner).count();
        let room =
            of_process < MAX_OF_PROCESS && self.exports.len() + self.connections.len() < self.most;
        room.then_some(()).ok_or(Code::InsufficientResources)
    }

    fn create(&mut self, owner: OwnerId, cluster: bool) -> Result<Outcome, Code> {
        self.room(owner, self.exports.values().map(|export| &export.owner))?;
        let signals = Queue::new()?;
        let files = vec![Arc::clone(&signals.read)];
        let export = self.name();
        let record = Export {
            owner,
            cluster,
            signals,
            published: None,
        };
        self.exports.insert(export, record);
        let body = Body::Created { export };
        Ok(Outcome::Now(Answer::with_files(body, files)))
    }

    /// What a process alleges to be checked, as the library has.
    fn judge(&mut self, owner: OwnerId, export: u64, access: Access) -> Result<Access, Code> {
        let reach = match self.export(owner, export)?.cluster {
            true => Reach::All(self.nodes.count()),
            false => Reach::One(self.node),
        };
        match access {
            Access::Every(permission) => Ok(Access::Every(permission & crate::PERM_HIGHEST)),
            Access::Listed(entries) => Access::listed(reach, &entries),
        }
    }

    fn publish(
        &mut self,
        owner: OwnerId,
        caller: Caller<'_>,
        (export, door): (u64, Option<Door>),
        id: u32,
        access: Access,
        files: Vec<OwnedFd>,
    ) -> Result<Outcome, Code> {
        let record = self.export(owner, export)?;
        if record.published.is_some() {
            return Err(Code::SegAlreadyPublished);
        }
        if record.cluster != door.is_some() {
            return Err(Code::BadArgsErrors);
        }
        check_id(id)?;
        let access = self.judge(owner, export, access)?;
        let id = match id {
            0 => self.free_id()?,
            taken if self.ids.contains_key(&taken) => return Err(Code::SegidInUse),
            id => id,
        };
        let memory = Memory::accept(files, caller.uid)?;
        let slot = self
            .slots
            .take(Side::Own)
            .ok_or(Code::InsufficientResources)?;
        let published = Published {
            id,
            uid: caller.uid,
            gid: caller.gid,
            access,
            memory,
            door,
            slot,
            importers: BTreeSet::new(),
        };
        self.export(owner, export)?.published = Some(published);
        self.ids.insert(id, export);
        Ok(Body::Published { id }.into())
    }

    /// Ascending, and each once; after the last one those that are free again.
    fn free_id(&mut self) -> Result<u32, Code> {
        // At most one more than there are segments is looked at.
        for _ in 0..=self.ids.len() {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(FIRST_GIVEN);
            if !self.ids.contains_key(&id) {
                return Ok(id);
            }
        }
        Err(Code::InsufficientResources)
    }

    /// Ends a segment for its importers (rsm 8). `false`: it was not published.
    fn unpublish(&mut self, export: u64) -> bool {
        let Some(published) = self
            .exports
            .get_mut(&export)
            .and_then(|export| export.published.take())
        else {
            return false;
        };
        self.ids.remove(&published.id);
        // Before the queues end, so that whoever is woken by that sees it.
        self.slots.give(published.slot);
        for importer in published.importers {
            self.end(importer);
        }
        true
    }

    fn rebind(
        &mut self,
        owner: OwnerId,
        caller: Caller<'_>,
        export: u64,
        files: Vec<OwnedFd>,
    ) -> Result<Outcome, Code> {
        let published = self.published(owner, export)?;
        let memory = Memory::accept(files, caller.uid)?;
        if memory.len != published.memory.len || caller.uid != published.uid {
            return Err(Code::BadArgsErrors);
        }
        published.memory = memory;
        let slot = published.slot;
        self.slots.raise_backing(slot);
        Ok(Body::Done.into())
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (segments, connections) = self.counts();
        f.debug_struct("Service")
            .field("node", &self.node)
            .field("segments", &segments)
            .field("connections", &connections)
            .finish_non_exhaustive()
    }
}
