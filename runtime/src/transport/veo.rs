//! VEO transfers: a host process writes and reads the memory of a VE process (ve-memory 12).
//!
//! The VE process needs to do nothing: transfers are privileged, have no alignment rules, and are complete on return.

use std::sync::Arc;
use std::time::Duration;

use windlass_mem::SharedBytes;
use windlass_ve::{Process, Vemva, VeoMemory};
use windlass_wire::{Put, Take};

use crate::completion::Queue;
use crate::mechanism::{
    Accepted, Completion, Cost, Engine, Export, Fault, Limits, Mechanism, MechanismId, Peer, Place,
    PostError, Reason, RemoteRange, Transfer, Verb,
};
use crate::progress::Health;
use crate::region::{Backing, Segment};
use crate::route::{Posted, Route};
use crate::transport::Context;

/// VEO transfers.
pub struct Veo {
    node: u32,
    place: Place,
    process: Option<Arc<Process>>,
    health: Arc<Health>,
}

impl Veo {
    /// The mechanism of this rank.
    pub fn new(context: &Context) -> Veo {
        Veo {
            node: context.node,
            place: context.place,
            process: context.ve.clone(),
            health: Arc::clone(&context.health),
        }
    }

    fn process(&self) -> Result<&Arc<Process>, Reason> {
        self.process
            .as_ref()
            .ok_or_else(|| Reason::new("this node has no VEs"))
    }

    fn told(descriptor: &[u8]) -> Result<(Vemva, usize), Reason> {
        let malformed = |e| Reason::from_error("the descriptor is malformed", &e);
        let mut take = Take::new(descriptor);
        let vemva = Vemva::new(take.u64().map_err(malformed)?);
        let len = take.u64().map_err(malformed)?;
        take.finish().map_err(malformed)?;
        let len = usize::try_from(len);
        let len = len.map_err(|e| Reason::from_error("the descriptor's length", &e))?;
        Ok((vemva, len))
    }
}

impl Mechanism for Veo {
    fn id(&self) -> MechanismId {
        MechanismId::Veo
    }

    fn probe(&self) -> Result<(), Reason> {
        self.process().map(|_| ())
    }

    fn export(&self, segment: &Segment) -> Result<Export, Reason> {
        let Backing::Ve { vemva } = segment.backing else {
            return Err(Reason::new("this memory is not VE memory"));
        };
        let mut put = Put::new();
        put.u64(vemva.raw()).u64(segment.bytes.len() as u64);
        Ok(Export {
            descriptor: put.into_vec(),
            guard: Box::new(()),
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason> {
        Self::told(descriptor)?;
        if peer.node != self.node {
            return Err(Reason::new(format!("the peer is on node {}", peer.node)));
        }
        match (self.place, peer.place) {
            (Place::Vh, Place::Ve(_)) => Ok(Cost::DEVICE),
            (Place::Vh, Place::Vh) => Err(Reason::new("the peer does not run on a VE")),
            (Place::Ve(_), _) => Err(Reason::new("only host processes can transfer by VEO")),
        }
    }

    fn attach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason> {
        let (vemva, len) = Self::told(descriptor)?;
        let window = self
            .process()?
            .veo_attach(peer.pid, vemva, len)
            .map_err(|e| Reason::from_error("the VE memory cannot be attached", &e))?;
        let engine = Arc::new(Privileged { window });
        let queue = Queue::new(MechanismId::Veo, engine, Arc::clone(&self.health));
        let remote = RemoteRange::new(0, len as u64, 0);
        Ok(Route::Posted(Posted::new(
            Arc::new(queue),
            peer.rank,
            remote,
        )))
    }
}

/// Privileged transfers to one window, within `post`. An address is an offset in the window.
struct Privileged {
    window: VeoMemory,
}

impl Engine for Privileged {
    fn limits(&self) -> Limits {
        Limits::IMMEDIATE
    }

    fn sees(&self, _local: &SharedBytes) -> bool {
        true
    }

    fn post(&self, transfer: Transfer<'_>) -> Result<Accepted, PostError> {
        let refused = |e: &dyn std::error::Error| PostError::Fault(Fault::Access(e.to_string()));
        let at = usize::try_from(transfer.remote.base).map_err(|e| refused(&e))?;
        let done = match transfer.verb {
            Verb::Write(src) => self.window.write_mem(at, src),
            Verb::Read(dst) => self.window.read_mem(at, dst),
            Verb::Put(src) => self.window.write_from(at, src),
            Verb::Get(dst) => self.window.read_into(at, dst),
            _ => {
                let text = "VEO transfers only read and write".to_owned();
                return Err(PostError::Fault(Fault::Other(text)));
            }
        };
        done.map(|()| Accepted::Done).map_err(|e| refused(&e))
    }

    fn poll(&self) -> Option<Completion> {
        None
    }

    fn idle(&self, _at_most: Duration) {
        // Nothing is ever outstanding.
    }
}
