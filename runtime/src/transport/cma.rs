//! Cross-memory copy: memory of a peer on the same host that nobody can map.
//!
//! For memory the caller lends as it is. The kernel may forbid it (ptrace scope, containers,
//! seccomp), on some ranks or on all, so `reach` looks only at the process and `attach` reads the
//! eight bytes whose value the descriptor tells, before any transfer relies on it (reliability B4).

use std::sync::Arc;
use std::time::Duration;

use windlass_mem::SharedBytes;
use windlass_mem::cross::Process;
use windlass_wire::{Put, Take};

use crate::completion::Queue;
use crate::mechanism::{
    Accepted, Completion, Cost, Engine, Export, Fault, Limits, Mechanism, MechanismId, Peer,
    PostError, Reason, RemoteRange, Transfer, Verb,
};
use crate::progress::{Health, idle_on};
use crate::region::{Backing, Segment};
use crate::route::{Posted, Route};
use crate::transport::Context;

/// What a descriptor says, as an allegation.
struct Told {
    base: u64,
    len: u64,
    probe_at: u64,
    probe: u64,
}

/// Cross-memory copy.
pub struct Cma {
    rank: u32,
    node: u32,
    health: Arc<Health>,
    /// Its address and value are the probe that peers read.
    probe: SharedBytes,
}

impl Cma {
    /// The mechanism of this rank.
    pub fn new(context: &Context) -> Cma {
        let value = 0x57_49_4e_44_4c_41_53_53 ^ u64::from(context.rank).rotate_left(32);
        let (probe, _loan) = windlass_mem::lend(vec![value]);
        Cma {
            rank: context.rank,
            node: context.node,
            health: Arc::clone(&context.health),
            probe,
        }
    }

    fn told(descriptor: &[u8]) -> Result<Told, Reason> {
        let malformed = |e| Reason::from_error("the descriptor is malformed", &e);
        let mut take = Take::new(descriptor);
        let mut next = || take.u64().map_err(malformed);
        let told = Told {
            base: next()?,
            len: next()?,
            probe_at: next()?,
            probe: next()?,
        };
        take.finish().map_err(malformed)?;
        if told.base.checked_add(told.len).is_none() {
            return Err(Reason::new("the descriptor's range wraps around"));
        }
        Ok(told)
    }
}

impl Mechanism for Cma {
    fn id(&self) -> MechanismId {
        MechanismId::Cma
    }

    fn probe(&self) -> Result<(), Reason> {
        // Whether the kernel lets us, and with this peer, is known only after the attach's probe.
        Ok(())
    }

    fn export(&self, segment: &Segment) -> Result<Export, Reason> {
        match segment.backing {
            Backing::Lent(_) => {}
            Backing::Native(_) => return Err(Reason::new("this memory is VE memory")),
            _ => {
                return Err(Reason::new(
                    "this memory can be mapped; copying is for lent memory",
                ));
            }
        }
        let probe = self.probe.atomic_u64(0);
        let probe = probe.map_err(|e| Reason::from_error("no probe word", &e))?;
        let mut put = Put::new();
        put.u64(segment.bytes.addr() as u64)
            .u64(segment.bytes.len() as u64)
            .u64(self.probe.addr() as u64)
            .u64(probe.load(std::sync::atomic::Ordering::Relaxed));
        Ok(Export {
            descriptor: put.into_vec(),
            guard: Box::new(()),
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason> {
        Self::told(descriptor)?;
        if peer.rank == self.rank {
            return Err(Reason::new(
                "the kernel copies between different processes only",
            ));
        }
        if peer.node != self.node {
            return Err(Reason::new(format!("the peer is on node {}", peer.node)));
        }
        Ok(Cost::SYSCALL)
    }

    fn attach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason> {
        let told = Self::told(descriptor)?;
        let process = Process::open(peer.pid, peer.start_time)
            .map_err(|e| Reason::from_error("the peer's process cannot be opened", &e))?;
        let mut seen = [0; 8];
        process.read(told.probe_at, &mut seen).map_err(|e| {
            Reason::from_error("the kernel refuses the copy (ptrace_scope or seccomp)", &e)
        })?;
        if u64::from_ne_bytes(seen) != told.probe {
            return Err(Reason::new(
                "the probe read other bytes than the peer wrote",
            ));
        }
        let remote = RemoteRange::new(told.base, told.len, 0);
        let engine = Arc::new(Copier { process });
        let queue = Queue::new(MechanismId::Cma, engine, Arc::clone(&self.health));
        Ok(Route::Posted(Posted::new(
            Arc::new(queue),
            peer.rank,
            remote,
        )))
    }
}

/// Copies by system calls, within `post`.
struct Copier {
    process: Process,
}

impl Engine for Copier {
    fn limits(&self) -> Limits {
        Limits::IMMEDIATE
    }

    fn sees(&self, _local: &SharedBytes) -> bool {
        true
    }

    fn post(&self, transfer: Transfer<'_>) -> Result<Accepted, PostError> {
        let at = transfer.remote.base;
        let done = match transfer.verb {
            Verb::Write(src) => self.process.write(at, src),
            Verb::Read(dst) => self.process.read(at, dst),
            _ => {
                let text = "cross-memory copy only reads and writes".to_owned();
                return Err(PostError::Fault(Fault::Other(text)));
            }
        };
        done.map(|()| Accepted::Done).map_err(|e| {
            PostError::Fault(if self.process.alive() {
                Fault::Access(e.to_string())
            } else {
                Fault::Gone(e.to_string())
            })
        })
    }

    fn poll(&self) -> Option<Completion> {
        None
    }

    fn idle(&self, at_most: Duration) {
        // Without a pidfd the caller asks again at once.
        if let Some(pidfd) = self.process.pidfd() {
            idle_on(pidfd, at_most);
        }
    }
}
