//! The emulated Vector Engine node: tables, registry and engines of `ve-memory.md`, as ordinary Linux processes see them.
//!
//! # What it is
//!
//! Two sides. The *service* side ([`Service`]) is VEOS of every VE and IVED: it owns the frames of VE memory, the DMAATB and
//! PCIATB of each VE, the ATB of each process, the registry of VESHM areas and all attachments. The *process* side ([`Process`])
//! is the library of a VE process: VE memory, VESHM, VH-VE SHM, the DMA ring ([`Dma`]), LHM and SHM; for a VH process, VEO
//! transfers ([`VeoMemory`]). Between them are [`Request`] and [`Reply`], carried by a [`Control`].
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use windlass_ve::{Config, Direct, Mode, PageSize, Process, Profile, Service};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = Arc::new(Mutex::new(Service::new(Config { ves: 2, profile: Profile::VE1 })?));
//! // Two processes on two VEs; here both live in one Linux process, under invented pids.
//! let join = |pid, ve| Direct::join(Arc::clone(&service), pid, 1, 1000, Some(ve));
//! let owner = Process::join(Arc::new(join(10, 0)?))?;
//! let user = Process::join(Arc::new(join(11, 1)?))?;
//!
//! let size = 64 << 20;
//! let shared = owner.alloc(size, PageSize::M64)?;
//! owner.veshm_open(shared.vemva, size as u64, 0, Mode::PCI)?;
//! let remote = user.attach_vehva(owner.pid(), shared.vemva, size as u64, Mode::PCI)?;
//!
//! let own = user.alloc(size, PageSize::M64)?;
//! own.bytes.write(0, b"hello VE")?;
//! let local = user.register(own.vemva, size as u64)?;
//! assert!(user.dma().post_wait(remote, local, 8).is_none());
//!
//! let mut seen = [0; 8];
//! shared.bytes.read(0, &mut seen)?;
//! assert_eq!(&seen, b"hello VE");
//! # Ok(())
//! # }
//! ```
//!
//! # Where memory lives
//!
//! The memory of a VE is one sparse file. A frame is a range of it; a VEMVA is the numeric address at which a process has mapped
//! frames; a VEHVA is a key of the process's own table and never a pointer. Frames stay as long as a table entry refers
//! to them, whoever allocated them, and are emptied before they are given out again.
//!
//! # Thread safety
//!
//! [`Service`] is driven by one caller at a time. [`Process`] and [`Dma`] are `Send + Sync`. The data plane (DMA, LHM, SHM, VEO
//! transfers) never calls the service.
//!
//! # Order of cleanup
//!
//! Detach, then close, then free; or end the process: the service does the same when it leaves. Memory that the
//! caller cloned from a mapping stays mapped until the clone goes, though its frames may have a new owner by then.
//!
//! # What is not modelled
//!
//! - Isolation between the processes of one VE: whoever maps a frame holds a descriptor of the whole memory file. One job is
//!   one trust domain.
//! - Loads and stores to own memory do not pass through the ATB: write protection ([`Request::Protect`], VE_SHM_RO in VEMVA) is known
//!   to the tables and to DMA, LHM and SHM, not to the processor's own stores.
//! - VEMVA is chosen by the host kernel, so the check for a free ATB directory (section 5.2 row 4) with a concrete address comes
//!   after the other checks; a table with no directory left at all is answered in the documented place.
//! - Swapping (EAGAIN of section 5.2 row 17), core schedule-out, executables linked with 2 MiB pages (ENOTSUP of section 5.0).
//! - fork: a child must not use what its parent joined.
//! - Reordering between descriptors and stores (section 8): writes are visible in order, so VE_PCISYNC only marks its slots.
//! - Fixed pages beyond common registers and DMA control: system-call arguments, descriptor tables E and H, doorbells,
//!   communication registers, and `ve_map_dmades`.
//! - The column "documented" of section 11: answers are those of the implementation.
#![forbid(unsafe_code)]

mod addr;
mod atb;
mod attach;
mod direct;
mod dma;
mod errno;
mod error;
mod fault;
mod frames;
mod host;
mod lhm;
mod memory;
mod own;
mod pciatb;
mod process;
mod profile;
mod registry;
mod request;
mod service;
mod translate;
mod veo;
mod veshm;
mod vhshm;

pub use addr::{ENTRIES_PER_DIRECTORY, PageSize, Vehva, Vemaa, Vemva};
pub use direct::Direct;
pub use dma::{ALIGN, DESCRIPTORS, Dma, Handle, LENGTH_END, PollError, RingFull};
pub use errno::Errno;
pub use error::{CallError, Error};
pub use fault::{Access, Exception, Fault, FaultKind};
pub use frames::{MAX_RUNS, Run};
pub use host::Segment;
pub use lhm::PCIRCVSYC;
pub use process::{Attached, Control, Process, VeMemory};
pub use profile::{Generation, Profile, Region, SMALL_BAR0_BYTES, UnknownProfile};
pub use request::{Area, Body, Frames, Mode, PageMode, Reply, Request, Ticket, Welcome};
pub use service::{
    Config, Ived, MAX_AREAS, MAX_ATTACHMENTS, MAX_TICKETS, MAX_VES, ProcessId, Service, Stopped,
};
pub use veo::VeoMemory;
