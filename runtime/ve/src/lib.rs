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
//! The memory of a VE is one sparse file for each user, so that the kernel keeps users apart as VEOS does; capacity is counted over
//! all of them. A frame is a range of such a file; a VEMVA is the numeric address at which a process has mapped
//! frames; a VEHVA is a key of the process's own table and never a pointer. Frames stay as long as a table entry refers
//! to them, whoever allocated them, and are emptied before they are given out again.
//!
//! # Modes
//!
//! [`ErrnoProfile`] (`WINDLASS_VE_ERRNO`, part of the [`Profile`] of a node) chooses the column of section 11 that is answered.
//! [`Modes`] find mistakes of a program: `WINDLASS_VE_CHECK=1` ends it at the first [`Rule`] it breaks,
//! `WINDLASS_VE_REORDER=<seed>` delays and reorders its transfers and stores as far as sections 8 and 9.4 permit.
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
//! # Tests
//!
//! `tests/errors.rs` has the error tables row by row, in both columns; `tests/conformance.rs` the checks of section 13, also in both; the
//! workspace's `tests/c/README.md` says which C program has which of them; `tests/model.rs` has a naive model of everything. What maps no memory runs
//! under Miri, which `.ci/run` does where it can be had: `MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-disable-weak-memory-emulation"
//! PROPTEST_CASES=4 cargo +nightly miri test -p windlass-ve --lib` (memory that others change is accessed by atomics of several sizes, which
//! Miri's weak memory cannot mix).
//!
//! # What is not modelled
//!
//! - Isolation between the processes of one user on a VE: whoever maps a frame holds a descriptor of the user's memory file.
//! - Loads and stores to own memory do not pass through the ATB: write protection ([`Request::Protect`], VE_SHM_RO in VEMVA) is known
//!   to the tables and to DMA, LHM and SHM, not to the processor's own stores.
//! - VEMVA is chosen by the host kernel, so the check for a free ATB directory (section 5.2 row 4) with a concrete address comes
//!   after the other checks; a table with no room for any page of the owner's size is answered in the documented place.
//! - The time between the stop of a VE and the end of its processes: [`Service::stop_ve`] lets them leave at once, so that an attach to one
//!   of them is ESRCH by row 12 of section 5.2. A VE can be marked as in between ([`Damage::Halted`]): then row 13 answers.
//! - Swapping itself: a process can be marked as swapped out ([`Damage`]), its frames stay where they are. Core schedule-out:
//!   [`Dma::hold`].
//! - Threads that a C program makes (pthread_create) are not counted against the 64 of a process and the 1,024 of a VE (section 1):
//!   only those of [`Process::begin_thread`] are.
//! - fork: a child must not use what its parent joined.
//! - DMA from and to registers; doorbells and communication registers; stores of a program to descriptors of the library's own ring.
#![forbid(unsafe_code)]

mod addr;
mod atb;
mod attach;
mod damage;
mod direct;
mod dma;
mod errno;
mod error;
mod fault;
mod fixed;
mod frames;
mod handle;
mod heap;
mod host;
mod lhm;
mod memory;
mod modes;
mod own;
mod pciatb;
mod pgmode;
mod process;
mod profile;
mod refusal;
mod registry;
mod reorder;
mod request;
mod service;
mod threads;
mod transfer;
mod translate;
mod veo;
mod veshm;
mod vhshm;

pub use addr::{ENTRIES_PER_DIRECTORY, PageSize, Vehva, Vemaa, Vemva};
pub use damage::Damage;
pub use direct::Direct;
pub use dma::{ALIGN, DESCRIPTORS, Dma, LENGTH_END};
pub use errno::{Errno, ErrnoProfile, UnknownErrnoProfile};
pub use error::{CallError, Error};
pub use fault::{Access, Exception, Fault, FaultKind};
pub use fixed::{DMA_CONTROL, DMADES_E, DMADES_H, FixedRegion, PCIRCVSYC, SYSTEM_CALL_PAGE};
pub use frames::{MAX_RUNS, Run};
pub use handle::{Handle, PollError, RingFull};
pub use host::Segment;
pub use lhm::Fence;
pub use modes::{CHECK_VARIABLE, Modes, REORDER_VARIABLE, Reorder, Rule, Trap, UnknownMode};
pub use process::{Attached, Control, Process, VeMemory};
pub use profile::{Generation, Profile, Region, SMALL_BAR0_BYTES, UnknownProfile};
pub use request::{Area, Body, Frames, Mode, PageMode, Reply, Request, Ticket, Welcome};
pub use service::{
    Config, Ived, MAX_AREAS, MAX_ATTACHMENTS, MAX_TICKETS, MAX_VES, ProcessId, Service, Stopped,
};
pub use threads::VeThread;
pub use veo::VeoMemory;
