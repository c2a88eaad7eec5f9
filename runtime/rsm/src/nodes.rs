//! The other nodes of the job at the service: what they are asked, what they ask, and their end.
//!
//! A process has one request open at a time, so there are at most as many calls, and messages on their way, as processes.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::Caller;
use crate::code::Code;
use crate::connection::{Live, Receiver, To, admit};
use crate::far::{Ask, Message, Told};
use crate::pass::Pass;
use crate::request::{Answer, Body};
use crate::service::{Outcome, OwnerId, Service};

/// A question to another node.
struct Call {
    node: u32,
    owner: OwnerId,
    /// The connection that it is for.
    connects: Option<u64>,
    answer: Option<Result<Answer, Code>>,
}

/// What a service knows of other nodes.
pub(crate) struct Nodes {
    count: u32,
    lost: BTreeSet<u32>,
    /// Whose connections to segments here are another node's.
    owners: BTreeMap<u32, OwnerId>,
    calls: BTreeMap<u64, Call>,
    next: u64,
    outbox: Vec<(u32, Message)>,
}

impl Nodes {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            count,
            lost: BTreeSet::new(),
            owners: BTreeMap::new(),
            calls: BTreeMap::new(),
            next: 0,
            outbox: Vec::new(),
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn lost(&self) -> Vec<u32> {
        self.lost.iter().copied().collect()
    }

    /// Whether there is a way to a node.
    pub(crate) fn check(&self, node: u32) -> Result<(), Code> {
        match node < self.count && !self.lost.contains(&node) {
            true => Ok(()),
            false => Err(Code::RemoteNodeUnreachable),
        }
    }

    pub(crate) fn tell(&mut self, node: u32, message: Message) {
        if !self.lost.contains(&node) {
            self.outbox.push((node, message));
        }
    }

    pub(crate) fn ask(
        &mut self,
        node: u32,
        owner: OwnerId,
        connects: Option<u64>,
        ask: Ask,
    ) -> Outcome {
        let call = self.next;
        self.next += 1;
        let record = Call {
            node,
            owner,
            connects,
            answer: None,
        };
        self.calls.insert(call, record);
        self.tell(node, Message::Ask { call, ask });
        Outcome::Later(call)
    }

    /// A process has ended: nobody takes its answers.
    pub(crate) fn forget(&mut self, owner: OwnerId) {
        self.calls.retain(|_, call| call.owner != owner);
    }
}

impl Service {
    /// What is to be sent to other nodes, in this order.
    pub fn take_messages(&mut self) -> Vec<(u32, Message)> {
        std::mem::take(&mut self.nodes.outbox)
    }

    /// The answer to a call, once, when it has come.
    pub fn take_answer(&mut self, call: u64) -> Option<Result<Answer, Code>> {
        let answer = self.nodes.calls.get_mut(&call)?.answer.take()?;
        self.nodes.calls.remove(&call);
        Some(answer)
    }

    /// Takes a message of another node's service. `true`: some answer has come.
    pub fn on_message(&mut self, node: u32, message: Message) -> bool {
        match message {
            Message::Ask { call, ask } => {
                let answer = self.answer(node, ask);
                self.nodes.tell(node, Message::Answer { call, answer });
            }
            Message::Answer { call, answer } => return self.answered(node, call, answer),
            Message::Disconnect { connection } => {
                let owner = self.owner_of(node);
                if self.connection(owner, connection).is_ok() {
                    self.disconnect(connection);
                }
            }
            Message::Ended { name } => self.ended(node, name),
            Message::Signal { name, once } => self.signal(node, name, once),
            Message::Gone => return self.lose(node),
        }
        false
    }

    /// There is no way to a node any more: its segments have ended, and its connections. `true` as of
    /// [`on_message`](Self::on_message).
    pub fn lose(&mut self, node: u32) -> bool {
        if node == self.node || !self.nodes.lost.insert(node) {
            return false;
        }
        if let Some(owner) = self.nodes.owners.get(&node).copied() {
            self.disconnect_all(owner);
        }
        let names: Vec<u64> = self.connections.keys().copied().collect();
        for name in names {
            self.ended(node, name);
        }
        let mut unanswered = Vec::new();
        for call in self.nodes.calls.values_mut() {
            if call.node == node && call.answer.is_none() {
                call.answer = Some(Err(Code::ConnAborted));
                unanswered.extend(call.connects);
            }
        }
        for connection in unanswered {
            self.disconnect(connection);
        }
        true
    }

    /// Who another node is among the owners of connections.
    fn owner_of(&mut self, node: u32) -> OwnerId {
        match self.nodes.owners.get(&node) {
            Some(owner) => *owner,
            None => {
                let owner = self.join();
                self.nodes.owners.insert(node, owner);
                owner
            }
        }
    }

    /// A connection of a process here to a segment of `node` has ended.
    fn ended(&mut self, node: u32, name: u64) {
        let Some(connection) = self.connections.get_mut(&name) else {
            return;
        };
        if let Some(Live {
            to: To::There { node: of, slot, .. },
            ..
        }) = connection.live
            && of == node
        {
            // Before the queue ends, so that whoever is woken by that sees it.
            self.slots.give(slot);
            connection.live = None;
        }
    }

    fn signal(&mut self, node: u32, name: u64, once: bool) {
        if let Some(Live {
            to: To::There { node: of, .. },
            signals: Receiver::Here(queue),
        }) = self.connections.get(&name).and_then(|at| at.live.as_ref())
            && *of == node
        {
            queue.post(once);
        }
    }

    fn answered(&mut self, node: u32, number: u64, answer: Result<Told, Code>) -> bool {
        let call = self.nodes.calls.get(&number);
        let call = call.filter(|call| call.node == node && call.answer.is_none());
        let Some(connects) = call.map(|call| call.connects) else {
            // Its process has ended meanwhile.
            if let Ok(Told::Connected { connection, .. }) = answer {
                self.nodes.tell(node, Message::Disconnect { connection });
            }
            return false;
        };
        let answer = match (connects, answer) {
            (
                Some(name),
                Ok(Told::Connected {
                    connection,
                    len,
                    pass,
                }),
            ) => self.connected(name, connection, len, pass),
            (Some(name), other) => {
                self.disconnect(name);
                Err(other.err().unwrap_or(Code::InternalError))
            }
            (None, Ok(Told::Done)) => Ok(Body::Done.into()),
            (None, Ok(Told::Connected { .. })) => Err(Code::InternalError),
            (None, Err(code)) => Err(code),
        };
        if let Some(call) = self.nodes.calls.get_mut(&number) {
            call.answer = Some(answer);
        }
        true
    }

    /// Another node has admitted the connection of this name.
    fn connected(&mut self, name: u64, theirs: u64, len: u64, pass: Pass) -> Result<Answer, Code> {
        let live = self
            .connections
            .get_mut(&name)
            .and_then(|at| at.live.as_mut());
        let Some(Live {
            to: To::There {
                connection, slot, ..
            },
            signals: Receiver::Here(queue),
        }) = live
        else {
            return Err(Code::ConnAborted);
        };
        *connection = Some(theirs);
        let (slot, files) = (*slot, vec![std::sync::Arc::clone(&queue.read)]);
        let body = Body::Connected {
            connection: name,
            len,
            uid: 0,
            slot,
            counts: self.slots.counts(slot),
            pass: Some(pass),
        };
        Ok(Answer::with_files(body, files))
    }

    /// What another node asks.
    fn answer(&mut self, node: u32, ask: Ask) -> Result<Told, Code> {
        let owner = self.owner_of(node);
        match ask {
            Ask::Connect {
                name,
                id,
                permission,
                uid,
                gid,
                groups,
            } => {
                self.check_connect(owner, permission)?;
                let export = *self.ids.get(&id).ok_or(Code::SegNotPublished)?;
                // What was published by the loopback controller is not there for others.
                let found = self.exports.get(&export).filter(|found| found.cluster);
                let published = found.and_then(|found| found.published.as_ref());
                let published = published.ok_or(Code::SegNotPublished)?;
                let groups = || groups.clone();
                let caller = Caller {
                    uid,
                    gid,
                    groups: &groups,
                };
                admit(published, node, caller, permission)?;
                let door = published.door.ok_or(Code::SegNotPublished)?;
                let (len, pass) = (published.memory.len, door.pass(permission));
                let live = Live {
                    to: To::Here(export),
                    signals: Receiver::There { node, name },
                };
                let connection = self.note(owner, permission, live);
                Ok(Told::Connected {
                    connection,
                    len,
                    pass,
                })
            }
            Ask::Post { connection, once } => {
                let export = self.exported(owner, connection)?;
                let export = self.exports.get(&export).ok_or(Code::ConnAborted)?;
                export.signals.post(once);
                Ok(Told::Done)
            }
        }
    }

    /// The segment of another node's connection. What is not there has ended.
    fn exported(&self, owner: OwnerId, connection: u64) -> Result<u64, Code> {
        let found = self.connection(owner, connection);
        let found = found.map_err(|_| Code::ConnAborted)?;
        match found.live {
            Some(Live {
                to: To::Here(export),
                ..
            }) => Ok(export),
            _ => Err(Code::ConnAborted),
        }
    }
}
