//! Remote shared memory: segments that one process exports and others import, to load and store or to read and write.
//!
//! **Nouns.** An [`Export`] is memory of this process, as a segment; it is *published* under an id with an access list. An
//! [`Import`] is a connection to a published one: it may have a window in the address space, and transfers by calls. A
//! [`Barrier`] says whether accesses have reached the exporter. A [`Controller`] is the way to the node's [`Service`], which
//! knows who has published what. Citations such as "rsm 6.1" name sections of `spec/rsm.md`.
//!
//! **What it is.** The rules of the interface, without C's types: those are in `runtime/capi/rsm`. Memory of a published segment
//! lies in a file without a name (`windlass_mem::MemFile`), mapped at the exporter in place of its pages and at importers where
//! they like. The service keeps its descriptors, and gives each importer the one that it has the right to: with a segment that
//! nobody may write, none exists that could be written. When a segment ends its pages become private at the exporter, and
//! importers keep the file: memory that nobody else sees, never a fault.
//!
//! **How an importer learns that a segment has ended.** By counters in memory that the service writes: raised before the exporter's
//! pages become private, read after the importer's copy. So what was lost is never called a success. Beside them is a word that
//! the kernel marks when the service itself has ended, however it did (`windlass_mem::pledge`): then all connections have.
//!
//! **Other nodes.** The controller [`CLUSTER`] leads to every node of a job. A segment of another node is not mapped: the processes
//! of importer and exporter have a connection of `windlass_dat` for it, by which the one reads and writes the other's memory; what a
//! transfer had answered has arrived. The services ([`Message`]) say who may, where the exporter is, and that a segment has ended;
//! bytes never come to them. What was published by [`LOOPBACK`] other nodes do not find.
//!
//! **Bounds.** [`MAX_SEGMENTS`] of a node, [`MAX_OF_PROCESS`], [`MAX_FAR`]; queues of signals hold what a pipe holds (65,536 by
//! default). *Not modelled:* memory of the exporter that is a stack, shared already, mapped from a file or of huge pages. A file can
//! be a segment as a whole ([`Export::of_file`]).
//!
//! **Layers.** Over `windlass-mem` and `windlass-dat`, a carrier between nodes. The service is hosted by `windlass-node`.
//!
//! **Threads.** Everything may be used from any thread. Only the waits for signals wait, calls of the service, and transfers with
//! other nodes. A process with a segment that is published on [`CLUSTER`] has a thread that lets those in; handlers of signals do not run on it.
//!
//! **Order of cleanup.** Dropping an [`Export`] or [`Import`] ends it; a process that ends without ends all of its own.
#![forbid(unsafe_code)]

mod access;
mod barrier;
mod code;
mod connection;
mod controller;
mod export;
mod exposure;
mod far;
mod gate;
mod import;
mod line;
mod memory;
mod nodes;
mod pass;
mod queue;
pub mod range;
mod request;
mod service;
mod signal;
mod slots;
mod transfer;

pub use access::{
    Access, AccessEntry, Caller, FIRST_CHOSEN, FIRST_GIVEN, PERM_HIGHEST, PERM_RDWR, PERM_READ,
    PERM_WRITE, Reach, check_id,
};
pub use barrier::{
    BARRIER_NODE, BARRIER_NODE_THREAD, BARRIER_SEGMENT, BARRIER_SEGMENT_THREAD, Barrier,
};
pub use code::Code;
pub use controller::{Attributes, CLUSTER, Controller, LOOPBACK, MAX_NAME, Scope};
pub use export::{ALLOW_REBIND, Export};
pub use far::{Ask, Message, Told};
pub use import::{Import, MAP_FIXED, MAP_RESERVED};
pub use pass::{Door, Key, Network, Pass};
pub use request::{Answer, Body, Control, Counts, Gone, Reply, Request, Target};
pub use service::{MAX_FAR, MAX_OF_PROCESS, MAX_SEGMENTS, Outcome, OwnerId, Service};
pub use signal::{Event, Signals};
pub use transfer::{Place, Transfer, Way};
