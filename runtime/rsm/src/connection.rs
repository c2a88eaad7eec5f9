//! Connections at the service: of this node's processes to segments of this node and of others, and of other nodes' to ours.

use std::sync::Arc;

use crate::access::{Caller, PERM_RDWR};
use crate::code::Code;
use crate::far::{Ask, MAX_GROUPS, Message};
use crate::queue::Queue;
use crate::request::{Answer, Body, Target};
use crate::service::{Outcome, OwnerId, Published, Service};
use crate::slots::Side;

pub(crate) struct Connection {
    /// A process, or another node.
    pub(crate) owner: OwnerId,
    pub(crate) permission: u32,
    /// `None`: its segment has ended, and so has its queue.
    pub(crate) live: Option<Live>,
}

pub(crate) struct Live {
    pub(crate) to: To,
    pub(crate) signals: Receiver,
}

/// Where the segment is.
#[derive(Clone, Copy)]
pub(crate) enum To {
    /// An export segment of this node.
    Here(u64),
    /// One of another's, by which that node calls it (`None`: it has not answered yet), with counters of its own here.
    There {
        node: u32,
        connection: Option<u64>,
        slot: u32,
    },
}

/// Where the importer is.
pub(crate) enum Receiver {
    /// A process of this node.
    Here(Queue),
    /// One of another node, that has this name for it.
    There { node: u32, name: u64 },
}

impl Service {
    pub(crate) fn connection(&self, owner: OwnerId, connection: u64) -> Result<&Connection, Code> {
        let found = self.connections.get(&connection);
        found
            .filter(|found| found.owner == owner)
            .ok_or(Code::BadSegHndl)
    }

    pub(crate) fn connect(
        &mut self,
        owner: OwnerId,
        caller: Caller<'_>,
        cluster: bool,
        node: u32,
        id: u32,
        permission: u32,
    ) -> Result<Outcome, Code> {
        self.check_connect(owner, permission)?;
        if node != self.node {
            return match cluster {
                true => self.connect_far(owner, caller, node, id, permission),
                false => Err(Code::CtlrNotPresent),
            };
        }
        let export = *self.ids.get(&id).ok_or(Code::SegNotPublished)?;
        let published = self.published_by(export).ok_or(Code::SegNotPublished)?;
        let file = admit(published, node, caller, permission)?;
        let (len, uid, slot) = (published.memory.len, published.uid, published.slot);
        let signals = Queue::new()?;
        let files = std::iter::once(Arc::clone(&signals.read))
            .chain(file)
            .collect();
        let live = Live {
            to: To::Here(export),
            signals: Receiver::Here(signals),
        };
        let body = Body::Connected {
            connection: self.note(owner, permission, live),
            len,
            uid,
            slot,
            counts: self.slots.counts(slot),
            pass: None,
        };
        Ok(Outcome::Now(Answer::with_files(body, files)))
    }

    /// Rights that there are not, and places.
    pub(crate) fn check_connect(&self, owner: OwnerId, permission: u32) -> Result<(), Code> {
        if permission & !PERM_RDWR != 0 {
            return Err(Code::PermDenied);
        }
        self.room(owner, self.connections.values().map(|other| &other.owner))
    }

    /// A new connection's name.
    pub(crate) fn note(&mut self, owner: OwnerId, permission: u32, live: Live) -> u64 {
        let name = self.name();
        if let To::Here(export) = live.to
            && let Some(published) = self.published_by(export)
        {
            published.importers.insert(name);
        }
        let record = Connection {
            owner,
            permission,
            live: Some(live),
        };
        self.connections.insert(name, record);
        name
    }

    fn connect_far(
        &mut self,
        owner: OwnerId,
        caller: Caller<'_>,
        node: u32,
        id: u32,
        permission: u32,
    ) -> Result<Outcome, Code> {
        self.nodes.check(node)?;
        let signals = Queue::new()?;
        let slot = self
            .slots
            .take(Side::Far)
            .ok_or(Code::InsufficientResources)?;
        let to = To::There {
            node,
            connection: None,
            slot,
        };
        let live = Live {
            to,
            signals: Receiver::Here(signals),
        };
        let name = self.note(owner, permission, live);
        let mut groups = (caller.groups)();
        groups.truncate(MAX_GROUPS);
        let ask = Ask::Connect {
            name,
            id,
            permission,
            uid: caller.uid,
            gid: caller.gid,
            groups,
        };
        Ok(self.nodes.ask(node, owner, Some(name), ask))
    }

    pub(crate) fn reopen(&mut self, owner: OwnerId, connection: u64) -> Result<Outcome, Code> {
        let found = self.connection(owner, connection)?;
        let (permission, export) = match &found.live {
            Some(Live {
                to: To::Here(export),
                ..
            }) => (found.permission, *export),
            // Of another node's segment nobody here has a file.
            Some(_) => return Err(Code::BadSegHndl),
            None => return Err(Code::ConnAborted),
        };
        let published = self.published_by(export).ok_or(Code::ConnAborted)?;
        let files = published.memory.with(permission)?.into_iter().collect();
        Ok(Outcome::Now(Answer::with_files(Body::Done, files)))
    }

    /// The exporter's end of a connection: its importer is told.
    pub(crate) fn end(&mut self, importer: u64) {
        let Some(connection) = self.connections.get_mut(&importer) else {
            return;
        };
        match connection.live.take() {
            Some(Live {
                signals: Receiver::There { node, name },
                ..
            }) => {
                self.connections.remove(&importer);
                self.nodes.tell(node, Message::Ended { name });
            }
            // With its queue.
            live => drop(live),
        }
    }

    /// The importer's end of a connection.
    pub(crate) fn disconnect(&mut self, connection: u64) {
        let record = self.connections.remove(&connection);
        match record.and_then(|record| record.live).map(|live| live.to) {
            Some(To::Here(export)) => {
                if let Some(published) = self.published_by(export) {
                    published.importers.remove(&connection);
                }
            }
            Some(To::There {
                node,
                connection,
                slot,
            }) => {
                self.slots.give(slot);
                if let Some(connection) = connection {
                    self.nodes.tell(node, Message::Disconnect { connection });
                }
            }
            None => {}
        }
    }

    pub(crate) fn disconnect_all(&mut self, owner: OwnerId) {
        let of = |(name, at): (&u64, &Connection)| (at.owner == owner).then_some(*name);
        for connection in self.connections.iter().filter_map(of).collect::<Vec<_>>() {
            self.disconnect(connection);
        }
        self.nodes.forget(owner);
    }

    pub(crate) fn post(&mut self, owner: OwnerId, to: Target, once: bool) -> Result<Outcome, Code> {
        match to {
            Target::Exporter(connection) => match self.target(owner, connection)? {
                To::Here(export) => {
                    let export = self.exports.get(&export).ok_or(Code::ConnAborted)?;
                    export.signals.post(once);
                }
                To::There {
                    node,
                    connection: theirs,
                    ..
                } => {
                    let connection = theirs.ok_or(Code::BadSegHndl)?;
                    let ask = Ask::Post { connection, once };
                    return Ok(self.nodes.ask(node, owner, None, ask));
                }
            },
            Target::Importers(export) => {
                let published = self.export(owner, export)?.published.as_ref();
                let importers = published.map(|published| published.importers.clone());
                for importer in importers.into_iter().flatten() {
                    let live = self
                        .connections
                        .get(&importer)
                        .and_then(|at| at.live.as_ref());
                    match live.map(|live| &live.signals) {
                        Some(Receiver::Here(queue)) => queue.post(once),
                        Some(&Receiver::There { node, name }) => {
                            self.nodes.tell(node, Message::Signal { name, once });
                        }
                        None => {}
                    }
                }
            }
        }
        Ok(Body::Done.into())
    }

    fn target(&self, owner: OwnerId, connection: u64) -> Result<To, Code> {
        let live = self.connection(owner, connection)?.live.as_ref();
        Ok(live.ok_or(Code::ConnAborted)?.to)
    }
}

/// The file for a caller of a node, who asks for these rights.
pub(crate) fn admit(
    published: &Published,
    node: u32,
    caller: Caller<'_>,
    permission: u32,
) -> Result<Option<Arc<std::os::fd::OwnedFd>>, Code> {
    let rights = published
        .access
        .rights(node, caller, published.uid, published.gid)?;
    match permission & !rights {
        0 => published.memory.with(permission),
        _ => Err(Code::PermDenied),
    }
}
