//! The node's part: which segments are published, by whom, and who is connected to them.
//!
//! Whoever hosts it authenticates the processes, calls [`Service::join`] for each, [`Service::handle`] for each request and
//! [`Service::leave`] when a process ends, however it ends. It touches no byte of a segment: it keeps descriptors, of memory and
//! of queues of signals, and the counters by which importers see that a segment has ended. It trusts no request.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use windlass_mem::MemFile;

use crate::access::{Access, Caller, FIRST_GIVEN, PERM_RDWR, PERM_WRITE, check_id};
use crate::code::Code;
use crate::request::{Answer, Body, Request, Target};
use crate::slots::Slots;

/// Published segments of one node (rsm 2.2).
pub const MAX_SEGMENTS: usize = 4095;
/// Export segments, and connections, that one process may have: enough to connect to every segment.
pub const MAX_OF_PROCESS: usize = 4096;
/// Most descriptors kept for one segment or connection: both ends of a queue, and the memory to read and to write.
const FILES_EACH: usize = 4;

/// Names a process for the life of a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OwnerId(u64);

/// Both ends of a queue of signals; the reading one is the receiver's too. The writing one is the service's alone: when it goes,
/// the receiver is woken.
struct Queue {
    read: Arc<OwnedFd>,
    write: OwnedFd,
}

impl Queue {
    fn new() -> Result<Self, Code> {
        let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (read, write) = ends.map_err(|_| Code::InsufficientResources)?;
        Ok(Self {
            read: Arc::new(read),
            write,
        })
    }

    fn post(&self, once: bool) {
        let mut fds = [PollFd::new(&*self.read, PollFlags::IN)];
        let now = Timespec::default();
        let pending = poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0);
        if !(once && pending) {
            // A full queue has more than anybody will count.
            let _ = rustix::io::write(&self.write, &[1]);
        }
    }
}

struct Export {
    owner: OwnerId,
    signals: Queue,
    published: Option<Published>,
}

struct Published {
    id: u32,
    uid: u32,
    gid: u32,
    access: Access,
    memory: Memory,
    slot: u32,
    importers: BTreeSet<u64>,
}

/// The files of a segment's memory.
#[derive(Clone)]
struct Memory {
    len: u64,
    read: Arc<OwnedFd>,
    write: Option<Arc<OwnedFd>>,
}

impl Memory {
    /// Accepts what a process of user `uid` sent.
    fn accept(mut files: Vec<OwnedFd>, uid: u32) -> Result<Self, Code> {
        let write = match files.len() {
            1 => None,
            2 => files.pop(),
            // The kernel could not install them here.
            _ => return Err(Code::InsufficientResources),
        };
        let read = files.pop().ok_or(Code::InsufficientResources)?;
        let check = |fd: OwnedFd| {
            let id = rustix::fs::fstat(&fd).map_err(|_| Code::BadArgsErrors)?;
            let file = MemFile::from_fd_of(fd, uid).map_err(|_| Code::BadArgsErrors)?;
            Ok(((id.st_dev, id.st_ino), file))
        };
        let (id, read) = check(read)?;
        let len = read.len();
        let write = match write.map(check).transpose()? {
            Some((other, _)) if other != id => return Err(Code::BadArgsErrors),
            Some((_, file)) => Some(Arc::new(file.into_fd())),
            None => None,
        };
        Ok(Self {
            len,
            read: Arc::new(read.into_fd()),
            write,
        })
    }

    fn with(&self, rights: u32) -> Result<Option<Arc<OwnedFd>>, Code> {
        if rights & PERM_WRITE != 0 {
            // Root may write where the list gives nobody the right, but not what is sealed.
            let file = self.write.as_ref().ok_or(Code::PermDenied)?;
            return Ok(Some(Arc::clone(file)));
        }
        Ok((rights != 0).then(|| Arc::clone(&self.read)))
    }
}

struct Connection {
    owner: OwnerId,
    permission: u32,
    /// `None`: its segment has ended, and so has its queue.
    live: Option<(u64, Queue)>,
}

/// The segments of one node.
pub struct Service {
    node: u32,
    slots: Slots,
    exports: BTreeMap<u64, Export>,
    ids: BTreeMap<u32, u64>,
    connections: BTreeMap<u64, Connection>,
    most: usize,
    next: u64,
    next_id: u32,
}

impl Service {
    /// A service of node number `node` that keeps at most `files` descriptors.
    ///
    /// # Errors
    /// The system refuses the file of the counters.
    pub fn new(node: u32, files: usize) -> windlass_mem::Result<Self> {
        Ok(Self {
            node,
            slots: Slots::new(MAX_SEGMENTS)?,
            exports: BTreeMap::new(),
            ids: BTreeMap::new(),
            connections: BTreeMap::new(),
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
        let of = |(name, at): (&u64, &Connection)| (at.owner == owner).then_some(*name);
        for connection in self.connections.iter().filter_map(of).collect::<Vec<_>>() {
            self.disconnect(connection);
        }
    }

    /// Published segments, and connections.
    pub fn counts(&self) -> (usize, usize) {
        (self.ids.len(), self.connections.len())
    }

    fn name(&mut self) -> u64 {
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
    ) -> Result<Answer, Code> {
        let sends = matches!(request, Request::Publish { .. } | Request::Rebind { .. });
        if !sends && !files.is_empty() {
            return Err(Code::BadArgsErrors);
        }
        match request {
            Request::Info => {
                let uid = rustix::process::geteuid().as_raw();
                let body = Body::Info {
                    node: self.node,
                    uid,
                };
                Ok(Answer::with_files(body, vec![self.slots.reader()]))
            }
            Request::Create => self.create(owner),
            Request::Destroy { export } => {
                self.export(owner, export)?;
                self.unpublish(export);
                self.exports.remove(&export);
                Ok(Body::Done.into())
            }
            Request::Publish { export, id, access } => {
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
                let access = self.judge(access)?;
                self.published(owner, export)?.access = access;
                Ok(Body::Done.into())
            }
            Request::Rebind { export } => self.rebind(owner, caller, export, files),
            Request::Connect {
                node,
                id,
                permission,
            } => self.connect(owner, caller, node, id, permission),
            Request::Reopen { connection } => self.reopen(owner, connection),
            Request::Disconnect { connection } => {
                self.connection(owner, connection)?;
                self.disconnect(connection);
                Ok(Body::Done.into())
            }
            Request::Post { to, once } => self.post(owner, to, once),
        }
    }

    fn export(&mut self, owner: OwnerId, export: u64) -> Result<&mut Export, Code> {
        let found = self.exports.get_mut(&export);
        found
            .filter(|found| found.owner == owner)
            .ok_or(Code::BadSegHndl)
    }

    fn published(&mut self, owner: OwnerId, export: u64) -> Result<&mut Published, Code> {
        let published = self.export(owner, export)?.published.as_mut();
        published.ok_or(Code::SegNotPublished)
    }

    fn connection(&self, owner: OwnerId, connection: u64) -> Result<&Connection, Code> {
        let found = self.connections.get(&connection);
        found
            .filter(|found| found.owner == owner)
            .ok_or(Code::BadSegHndl)
    }

    /// There is a place for one more segment or connection, of this process and of all.
    fn room<'a>(&self, owner: OwnerId, owners: impl Iterator<Item = &'a OwnerId>) -> bool {
        let of_process = owners.filter(|other| **other == owner).count();
        of_process < MAX_OF_PROCESS && self.exports.len() + self.connections.len() < self.most
    }

    fn create(&mut self, owner: OwnerId) -> Result<Answer, Code> {
        if !self.room(owner, self.exports.values().map(|export| &export.owner)) {
            return Err(Code::InsufficientResources);
        }
        let signals = Queue::new()?;
        let files = vec![Arc::clone(&signals.read)];
        let export = self.name();
        let record = Export {
            owner,
            signals,
            published: None,
        };
        self.exports.insert(export, record);
        Ok(Answer::with_files(Body::Created { export }, files))
    }

    /// What a process alleges to be checked, as the library has.
    fn judge(&self, access: Access) -> Result<Access, Code> {
        match access {
            Access::Every(permission) => Ok(Access::Every(permission & crate::PERM_HIGHEST)),
            Access::Listed(entries) => Access::listed(self.node, &entries),
        }
    }

    fn publish(
        &mut self,
        owner: OwnerId,
        caller: Caller<'_>,
        export: u64,
        id: u32,
        access: Access,
        files: Vec<OwnedFd>,
    ) -> Result<Answer, Code> {
        if self.export(owner, export)?.published.is_some() {
            return Err(Code::SegAlreadyPublished);
        }
        check_id(id)?;
        let access = self.judge(access)?;
        let id = match id {
            0 => self.free_id()?,
            taken if self.ids.contains_key(&taken) => return Err(Code::SegidInUse),
            id => id,
        };
        let memory = Memory::accept(files, caller.uid)?;
        let slot = self.slots.take().ok_or(Code::InsufficientResources)?;
        let published = Published {
            id,
            uid: caller.uid,
            gid: caller.gid,
            access,
            memory,
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
            if let Some(connection) = self.connections.get_mut(&importer) {
                connection.live = None;
            }
        }
        true
    }

    fn rebind(
        &mut self,
        owner: OwnerId,
        caller: Caller<'_>,
        export: u64,
        files: Vec<OwnedFd>,
    ) -> Result<Answer, Code> {
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

    fn connect(
        &mut self,
        owner: OwnerId,
        caller: Caller<'_>,
        node: u32,
        id: u32,
        permission: u32,
    ) -> Result<Answer, Code> {
        if permission & !PERM_RDWR != 0 {
            return Err(Code::PermDenied);
        }
        let owners = self.connections.values().map(|other| &other.owner);
        if !self.room(owner, owners) {
            return Err(Code::InsufficientResources);
        }
        if node != self.node {
            return Err(Code::CtlrNotPresent);
        }
        let export = *self.ids.get(&id).ok_or(Code::SegNotPublished)?;
        let record = self.exports.get(&export);
        let published = record.and_then(|export| export.published.as_ref());
        let published = published.ok_or(Code::SegNotPublished)?;
        let rights = published
            .access
            .rights(node, caller, published.uid, published.gid)?;
        if permission & !rights != 0 {
            return Err(Code::PermDenied);
        }
        let file = published.memory.with(permission)?;
        let (len, uid, slot) = (published.memory.len, published.uid, published.slot);
        let signals = Queue::new()?;
        let files = std::iter::once(Arc::clone(&signals.read))
            .chain(file)
            .collect();
        let connection = self.name();
        let record = Connection {
            owner,
            permission,
            live: Some((export, signals)),
        };
        self.connections.insert(connection, record);
        if let Some(published) = self.export_of(export) {
            published.importers.insert(connection);
        }
        let body = Body::Connected {
            connection,
            len,
            uid,
            slot,
            counts: self.slots.counts(slot),
        };
        Ok(Answer::with_files(body, files))
    }

    fn export_of(&mut self, export: u64) -> Option<&mut Published> {
        self.exports.get_mut(&export)?.published.as_mut()
    }

    fn reopen(&mut self, owner: OwnerId, connection: u64) -> Result<Answer, Code> {
        let found = self.connection(owner, connection)?;
        let (permission, export) = match &found.live {
            Some((export, _)) => (found.permission, *export),
            None => return Err(Code::ConnAborted),
        };
        let published = self.export_of(export).ok_or(Code::ConnAborted)?;
        let file = published.memory.with(permission)?;
        Ok(Answer::with_files(Body::Done, file.into_iter().collect()))
    }

    fn disconnect(&mut self, connection: u64) {
        if let Some(Connection {
            live: Some((export, _)),
            ..
        }) = self.connections.remove(&connection)
            && let Some(published) = self.export_of(export)
        {
            published.importers.remove(&connection);
        }
    }

    fn post(&mut self, owner: OwnerId, to: Target, once: bool) -> Result<Answer, Code> {
        match to {
            Target::Exporter(connection) => {
                let live = self.connection(owner, connection)?.live.as_ref();
                let export = live.ok_or(Code::ConnAborted)?.0;
                let export = self.exports.get(&export).ok_or(Code::ConnAborted)?;
                export.signals.post(once);
            }
            Target::Importers(export) => {
                let published = self.export(owner, export)?.published.as_ref();
                let importers = published.map(|published| published.importers.clone());
                for importer in importers.into_iter().flatten() {
                    if let Some(Connection {
                        live: Some((_, signals)),
                        ..
                    }) = self.connections.get(&importer)
                    {
                        signals.post(once);
                    }
                }
            }
        }
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
