//! Host memory as segments of the node's RSM service (rsm 5, 6): published by their owner, imported and mapped by its peers.
//!
//! What lies in files: memory that peers only read, which is sealed when it is published; the arena where System V segments are refused or `WINDLASS_ROUTE` names this and not `vhshm`, then file by
//! file as it grows, and lent memory that was re-backed, whose one file is one segment. A segment admits its owner's user alone
//! and travels as its id; ids are not reused while others are left (rsm 2.2). A connection lives as long as it takes to map: of an
//! owner's end the job tells its ranks, and a connection kept would cost each pair two descriptors.

use std::sync::Arc;

use parking_lot::Mutex;
use windlass_mem::view::Spot;
use windlass_mem::{MemFile, SharedBytes};
use windlass_node::Client;
use windlass_rsm::{AccessEntry, Code, Controller, Import, PERM_RDWR, PERM_READ, Scope};
use windlass_wire::{Malformed, Put, Take};

use crate::mechanism::{Cost, Export, Mechanism, MechanismId, Peer, Place, Reason};
use crate::region::{Backing, Segment};
use crate::route::Route;
use crate::transport::Context;
use crate::transport::vhshm::unmapped;

/// Published segments of host memory.
pub struct Rsm {
    rank: u32,
    node: u32,
    place: Place,
    client: Arc<Client>,
    /// The way to the node's segments, begun by the first who needs it.
    controller: Mutex<Option<Arc<Controller>>>,
    /// The segment that has this process's lent memory, published once.
    lent: Mutex<Option<Published>>,
}

/// A segment that peers may connect to until it is dropped.
struct Published {
    id: u32,
    _export: Arc<windlass_rsm::Export>,
}

/// What a descriptor says, as an allegation: `len` bytes from `offset` on of a segment, and what may be done with them.
struct Told {
    rights: u32,
    id: u32,
    offset: u64,
    len: u64,
}

fn refused(what: &str, code: Code) -> Reason {
    Reason::new(format!("{what}: {}, {code}", code.name()))
}

impl Rsm {
    /// The mechanism of this rank.
    pub fn new(context: &Context) -> Rsm {
        Rsm {
            rank: context.rank,
            node: context.node,
            place: context.place,
            client: Arc::clone(&context.client),
            controller: Mutex::default(),
            lent: Mutex::default(),
        }
    }

    fn controller(&self) -> Result<Arc<Controller>, Reason> {
        let mut controller = self.controller.lock();
        if let Some(controller) = &*controller {
            return Ok(Arc::clone(controller));
        }
        let opened = Controller::open(Arc::clone(&self.client) as _, Scope::Node);
        let opened = opened.map_err(|code| refused("the node's RSM controller", code))?;
        Ok(Arc::clone(controller.insert(opened)))
    }

    /// Publishes a file to the ranks of this user, with these rights.
    fn publish(&self, file: &MemFile, rights: u32) -> Result<Published, Reason> {
        let controller = self.controller()?;
        let file = file.try_clone();
        let file = file.map_err(|e| Reason::from_error("the file of the segment", &e))?;
        let export = windlass_rsm::Export::of_file(&controller, file)
            .map_err(|code| refused("the segment cannot be created", code))?;
        let owner = AccessEntry {
            node: controller.node(),
            permission: rights,
        };
        let id = export
            .publish(0, Some(&[owner]))
            .map_err(|code| refused("the segment cannot be published", code))?;
        Ok(Published {
            id,
            _export: export,
        })
    }

    /// The segment of this process's lent memory, which lies in one file.
    fn publish_lent(&self, file: &MemFile) -> Result<u32, Reason> {
        let mut lent = self.lent.lock();
        if let Some(published) = &*lent {
            return Ok(published.id);
        }
        Ok(lent.insert(self.publish(file, PERM_RDWR)?).id)
    }

    fn told(descriptor: &[u8]) -> Result<Told, Reason> {
        let take = || -> Result<Told, Malformed> {
            let mut take = Take::new(descriptor);
            let id = u32::from_le_bytes(take.array()?);
            let (offset, len) = (take.u64()?, take.u64()?);
            let rights = match take.u8()? {
                0 => PERM_READ,
                _ => PERM_RDWR,
            };
            take.finish()?;
            Ok(Told {
                rights,
                id,
                offset,
                len,
            })
        };
        take().map_err(|e| Reason::from_error("the descriptor is malformed", &e))
    }

    /// Connects and maps the pages around the bytes: lent ones may begin and end inside of one.
    fn map(&self, told: &Told) -> Result<SharedBytes, Reason> {
        let Told {
            rights,
            id,
            offset,
            len,
        } = *told;
        let large = || Reason::new("the peer's memory is larger than any can be");
        let skip = offset % rustix::param::page_size() as u64;
        let all = len.checked_add(skip).ok_or_else(large)?;
        let from = i64::try_from(offset - skip).map_err(|_| large())?;
        let (all, skip) = (usize::try_from(all).map_err(|_| large())?, skip as usize);
        let controller = self.controller()?;
        let import = Import::connect(&controller, controller.node(), id, rights)
            .map_err(|code| refused("the segment cannot be connected to", code))?;
        import
            .map(0, Spot::NOWHERE, rights, from, all)
            .map_err(|code| refused("the segment cannot be mapped", code))?;
        let window = import.window();
        let window = window.ok_or_else(|| Reason::new("the window is gone"))?;
        window
            .slice(skip, all - skip)
            .map_err(|e| Reason::from_error("the segment is short", &e))
    }
}

impl Mechanism for Rsm {
    fn id(&self) -> MechanismId {
        MechanismId::Rsm
    }

    fn probe(&self) -> Result<(), Reason> {
        Ok(())
    }

    fn export(&self, segment: &Segment) -> Result<Export, Reason> {
        let mut rights = PERM_RDWR;
        let ((id, offset), guard): (_, Box<dyn Send + Sync>) = match &segment.backing {
            Backing::File {
                file, read_only, ..
            } => {
                if *read_only {
                    rights = PERM_READ;
                }
                let published = self.publish(file, rights)?;
                ((published.id, 0), Box::new(published))
            }
            Backing::Lent(lease) => {
                let (file, offset) = lease.file().map_err(|error| unmapped(&error))?;
                ((self.publish_lent(file)?, offset), Box::new(()))
            }
            Backing::Sysv { .. } => {
                return Err(Reason::new(
                    "this memory is a System V segment, which vhshm offers; RSM segments are files (WINDLASS_ROUTE=rsm asks for those)",
                ));
            }
            Backing::Ve { .. } | Backing::Native(_) => {
                return Err(Reason::new("this memory is VE memory"));
            }
        };
        let mut put = Put::new();
        put.raw(&id.to_le_bytes())
            .u64(offset)
            .u64(segment.bytes.len() as u64)
            .u8((rights == PERM_RDWR).into());
        Ok(Export {
            descriptor: put.into_vec(),
            guard,
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason> {
        Self::told(descriptor)?;
        if peer.rank == self.rank {
            return Err(Reason::new("own memory is reached directly"));
        }
        if peer.node != self.node {
            return Err(Reason::new(format!(
                "the peer is on node {}, and segments are mapped on their own node alone",
                peer.node
            )));
        }
        match self.place {
            Place::Vh => Ok(Cost::IMPORTED),
            Place::Ve(_) => Err(Reason::new("a VE cannot map a segment of the host")),
        }
    }

    fn attach(&self, _peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason> {
        self.map(&Self::told(descriptor)?).map(Route::Mapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_code() {
        let reason = refused("the segment cannot be mapped", Code::BadLength);
        assert_eq!(
            reason.0,
            "the segment cannot be mapped: RSMERR_BAD_LENGTH, a length that does not fit"
        );
    }

    #[test]
    fn a_descriptor_of_another_length_is_malformed() {
        let mut put = Put::new();
        put.raw(&7u32.to_le_bytes()).u64(4096).u64(9).u8(1);
        let whole = put.into_vec();
        let told = Rsm::told(&whole).expect("it is whole");
        assert_eq!((told.id, told.offset, told.len), (7, 4096, 9));
        assert_eq!(told.rights, PERM_RDWR);
        let longer = [&whole[..], &[0]].concat();
        for wrong in [&whole[..20], &longer, &[]] {
            assert!(Rsm::told(wrong).is_err(), "{} bytes", wrong.len());
        }
    }
}
