//! Own memory: the smallest mechanism, the one to copy.
//!
//! An export remembers the segment; an attach by the same rank finds it again. The descriptor is
//! the segment's number, checked on the way back as every descriptor is.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::mechanism::{Cost, Export, Mechanism, MechanismId, Peer, Reason};
use crate::progress::Health;
use crate::region::{Backing, Segment};
use crate::route::Route;
use crate::transport::Context;

type Table = Arc<Mutex<HashMap<u32, Route>>>;

/// Own memory.
pub struct Loopback {
    rank: u32,
    health: Arc<Health>,
    exports: Table,
}

/// Forgets the segment when its export goes.
struct Exported {
    id: u32,
    exports: Table,
}

impl Drop for Exported {
    fn drop(&mut self) {
        self.exports.lock().remove(&self.id);
    }
}

impl Loopback {
    /// The mechanism of this rank.
    pub fn new(context: &Context) -> Loopback {
        Loopback {
            rank: context.rank,
            health: Arc::clone(&context.health),
            exports: Table::default(),
        }
    }

    fn find(&self, descriptor: &[u8]) -> Result<Route, Reason> {
        let id = descriptor.try_into().map(u32::from_le_bytes);
        let id = id.map_err(|_| Reason::new("the descriptor is not 4 bytes"))?;
        let found = self.exports.lock().get(&id).cloned();
        found.ok_or_else(|| Reason::new(format!("segment {id} is not exported any more")))
    }
}

impl Mechanism for Loopback {
    fn id(&self) -> MechanismId {
        MechanismId::Loopback
    }

    fn probe(&self) -> Result<(), Reason> {
        Ok(())
    }

    fn export(&self, segment: &Segment) -> Result<Export, Reason> {
        let route = match &segment.backing {
            Backing::Native(memory) => memory.route(self.rank, &self.health),
            _ => Route::Mapped(segment.bytes.clone()),
        };
        self.exports.lock().insert(segment.id, route);
        Ok(Export {
            descriptor: segment.id.to_le_bytes().to_vec(),
            guard: Box::new(Exported {
                id: segment.id,
                exports: Arc::clone(&self.exports),
            }),
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason> {
        if peer.rank != self.rank {
            return Err(Reason::new("only a rank's own memory"));
        }
        self.find(descriptor).map(|_| Cost::OWN)
    }

    fn attach(&self, _peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason> {
        self.find(descriptor)
    }
}
