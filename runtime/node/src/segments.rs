//! The node's segments: what processes ask of them, and what goes to other nodes for them.
//!
//! Messages are queued under the segments' lock, so that a node hears of things in the order in which they happened.

use std::os::fd::OwnedFd;

use parking_lot::MutexGuard;
use windlass_rsm::{Answer, Caller, Code, Message, Outcome, OwnerId, Request, Service};

use crate::channel::Channel;
use crate::error::{Error, Malformed};
use crate::hub::Hub;
use crate::serve::Peer;
use crate::wire::{LinkMessage, Reply};

/// Answers a process, waiting for another node where it has to be asked.
pub(crate) fn ask_rsm(
    hub: &Hub,
    peer: &Peer,
    owner: &mut Option<OwnerId>,
    request: Request,
    files: Vec<OwnedFd>,
) -> Result<Answer, Code> {
    let mut rsm = hub.rsm.lock();
    let owner = match *owner {
        Some(owner) => owner,
        None => *owner.insert(rsm.join()),
    };
    let groups = || groups(peer.pid);
    let caller = Caller {
        uid: peer.uid,
        gid: peer.gid,
        groups: &groups,
    };
    let outcome = rsm.handle(owner, caller, request, files);
    hub.pass_on(&mut rsm);
    match outcome? {
        Outcome::Now(answer) => Ok(answer),
        Outcome::Later(call) => loop {
            if let Some(answer) = rsm.take_answer(call) {
                return answer;
            }
            if hub.stopping() {
                return Err(Code::RemoteNodeUnreachable);
            }
            hub.answered.wait(&mut rsm);
        },
    }
}

pub(crate) fn send_segment(channel: &Channel, answer: Result<Answer, Code>) -> Result<(), Error> {
    let files = answer.as_ref().map(|answer| answer.files());
    let files = files.unwrap_or_default();
    let reply = answer.as_ref().map(|answer| answer.body.clone());
    channel.send(&Reply::Rsm(reply.map_err(|code| *code)), &files)
}

/// The further groups of a process that waits for an answer, so that its pid is its own.
fn groups(pid: i32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let words = line.unwrap_or_default().split_ascii_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

impl Hub {
    /// A process has ended.
    pub(crate) fn leave_segments(&self, owner: Option<OwnerId>) {
        if let Some(owner) = owner {
            let mut rsm = self.rsm.lock();
            rsm.leave(owner);
            self.pass_on(&mut rsm);
        }
    }

    fn pass_on(&self, rsm: &mut MutexGuard<'_, Service>) {
        let from = self.plan.node;
        for (to, message) in rsm.take_messages() {
            self.send_to(to, &LinkMessage::Rsm { from, to, message });
        }
    }

    /// A message that came from the node `link`. The root passes on what is for others, and speaks for all of them.
    pub(crate) fn on_segments(
        &self,
        link: u32,
        from: u32,
        to: u32,
        message: Message,
    ) -> Result<(), Malformed> {
        let own = self.plan.node;
        let honest = if own == 0 {
            from == link && to != link && to < self.plan.nodes
        } else {
            from != own && from < self.plan.nodes && to == own
        };
        if !honest {
            return Err(Malformed::Unexpected("a message about segments"));
        }
        if to != own {
            self.send_to(to, &LinkMessage::Rsm { from, to, message });
            return Ok(());
        }
        let mut rsm = self.rsm.lock();
        let answered = rsm.on_message(from, message);
        self.pass_on(&mut rsm);
        if answered {
            self.answered.notify_all();
        }
        Ok(())
    }

    /// There is no way to a node any more, and without the root to none. The root tells the others.
    pub(crate) fn segments_lost(&self, node: u32) {
        let own = self.plan.node;
        let lost = if own == 0 {
            node..node + 1
        } else {
            0..self.plan.nodes
        };
        {
            let mut rsm = self.rsm.lock();
            for node in lost {
                rsm.lose(node);
            }
            self.answered.notify_all();
        }
        if own == 0 {
            for to in (1..self.plan.nodes).filter(|to| *to != node) {
                let (from, message) = (node, Message::Gone);
                self.send_to(to, &LinkMessage::Rsm { from, to, message });
            }
        }
    }
}
