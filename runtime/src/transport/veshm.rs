//! VE shared memory: a VE process's memory, for its peers on VEs of the same host (ve-memory 5).
//!
//! On the same VE an area attaches to the peer's address space: mapped. On another VE it attaches to the peer's DMAATB:
//! posted to its DMA engine. One area serves both, if the PCIATB has room for it; otherwise it serves the own VE only.

use std::sync::Arc;

use windlass_ve::{Errno, Mode, Process, Vemva};
use windlass_wire::{Put, Take};

use crate::mechanism::{Cost, Export, Mechanism, MechanismId, Peer, Place, Reason, RemoteRange};
use crate::region::{Backing, Segment};
use crate::route::{Posted, Route};
use crate::transport::Context;
use crate::transport::vedma::{Registration, VeDma};

/// VE shared memory.
pub struct Veshm {
    rank: u32,
    node: u32,
    place: Place,
    dma: Arc<VeDma>,
}

/// What a descriptor says, as an allegation.
struct Told {
    vemva: Vemva,
    size: u64,
    mode: Mode,
}

/// An open area, closed on drop. Attachers keep what they have (ve-memory 6).
struct Opened {
    process: Arc<Process>,
    vemva: Vemva,
    size: u64,
    mode: Mode,
    /// The same memory as the own engine sees it, as source and destination of its transfers.
    _registration: Option<Registration>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        // At the end of the job the service may be gone, and the area with it.
        if let Err(error) = self
            .process
            .veshm_close(self.vemva, self.size, 0, self.mode)
        {
            tracing::debug!(%error, vemva = %self.vemva, "closing a VESHM area");
        }
    }
}

impl Veshm {
    /// The mechanism of this rank.
    pub fn new(context: &Context, dma: &Arc<VeDma>) -> Veshm {
        Veshm {
            rank: context.rank,
            node: context.node,
            place: context.place,
            dma: Arc::clone(dma),
        }
    }

    fn told(descriptor: &[u8]) -> Result<Told, Reason> {
        let malformed = |e| Reason::from_error("the descriptor is malformed", &e);
        let mut take = Take::new(descriptor);
        let vemva = Vemva::new(take.u64().map_err(malformed)?);
        let size = take.u64().map_err(malformed)?;
        let pci = take.u8().map_err(malformed)? != 0;
        take.finish().map_err(malformed)?;
        let mode = if pci { Mode::PCI } else { Mode::NONE };
        Ok(Told { vemva, size, mode })
    }

    /// Opens the area for all VEs, or for the own one if no PCIATB slot is left.
    fn open(process: &Process, vemva: Vemva, size: u64) -> Result<Mode, Reason> {
        let refused = |e| Reason::from_error("the area cannot be opened", &e);
        match process.veshm_open(vemva, size, 0, Mode::PCI) {
            Ok(()) => Ok(Mode::PCI),
            Err(error) if error.errno() == Errno::Enomem => {
                let opened = process.veshm_open(vemva, size, 0, Mode::NONE);
                opened.map(|()| Mode::NONE).map_err(refused)
            }
            Err(error) => Err(refused(error)),
        }
    }
}

impl Mechanism for Veshm {
    fn id(&self) -> MechanismId {
        MechanismId::Veshm
    }

    fn probe(&self) -> Result<(), Reason> {
        self.dma.process().map(|_| ())
    }

    fn export(&self, segment: &Segment) -> Result<Export, Reason> {
        let Backing::Ve { vemva } = segment.backing else {
            return Err(Reason::new("this memory is not VE memory"));
        };
        let process = self.dma.process()?;
        let size = segment.bytes.len() as u64;
        let mode = Self::open(process, vemva, size)?;
        // Without it transfers go through bounce slots: no reason to fail.
        let registration = self.dma.register(vemva, &segment.bytes).ok();
        let mut put = Put::new();
        put.u64(vemva.raw())
            .u64(size)
            .u8(u8::from(mode == Mode::PCI));
        Ok(Export {
            descriptor: put.into_vec(),
            guard: Box::new(Opened {
                process: Arc::clone(process),
                vemva,
                size,
                mode,
                _registration: registration,
            }),
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason> {
        let told = Self::told(descriptor)?;
        if peer.rank == self.rank {
            return Err(Reason::new(
                "a process cannot attach its own area (ve-memory 5.2)",
            ));
        }
        if peer.node != self.node {
            return Err(Reason::new(format!("the peer is on node {}", peer.node)));
        }
        match (self.place, peer.place) {
            (Place::Ve(own), Place::Ve(its)) if own == its => Ok(Cost::MAPPED),
            (Place::Ve(_), Place::Ve(_)) if told.mode == Mode::PCI => Ok(Cost::DEVICE),
            (Place::Ve(_), Place::Ve(_)) => Err(Reason::new(
                "the peer's VE had no PCIATB slots for it (ve-memory 2.5)",
            )),
            (Place::Ve(_), Place::Vh) => Err(Reason::new("the peer does not run on a VE")),
            (Place::Vh, _) => Err(Reason::new("this rank does not run on a VE")),
        }
    }

    fn attach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason> {
        let Told { vemva, size, mode } = Self::told(descriptor)?;
        let process = self.dma.process()?;
        let refused = |e| Reason::from_error("the area cannot be attached", &e);
        if self.place == peer.place {
            let memory = process.attach_vemva(peer.pid, vemva, size, mode);
            return memory
                .map(|memory| Route::Mapped(memory.bytes))
                .map_err(refused);
        }
        let queue = self.dma.queue(MechanismId::Veshm)?;
        let vehva = process
            .attach_vehva(peer.pid, vemva, size, mode)
            .map_err(refused)?;
        let remote = RemoteRange::new(vehva.raw(), size, 0);
        Ok(Route::Posted(Posted::new(queue, peer.rank, remote)))
    }
}
