//! A uDAPL 2.0 provider in software: remote memory access over TCP for processes that trust each other.
//!
//! # Nouns
//! [`Ia`] interface adapter: descriptors and tables. [`Pz`] protection zone. [`Lmr`] local memory region: registered
//! memory with rights, named by a context. [`Ep`] endpoint: one reliable connection. [`Evd`] event dispatcher: a
//! queue of completions and connection events. [`Cno`] waits for many dispatchers. [`Psp`] and [`Rsp`] service points and
//! [`Cr`] connection request: how connections arrive. [`Rmr`] remote memory region: a window onto a region, with its own
//! rights, that is bound and unbound in the order of an endpoint's requests. [`Srq`] shared receive queue. DTO: a posted
//! data transfer.
//!
//! # What it promises
//! - The semantics of the contract (`udapl.md`), on its "Spec" side where stock providers differ: local faults are
//!   refused at the post; requests complete in post order; a write's completion means that its bytes are in the
//!   target's memory.
//! - The target validates every request: context with generation, zone, right, bounds, in this order, each time it
//!   copies. A refused request changes nothing, and its initiator learns only REMOTE_ACCESS.
//! - A peer proves that it knows the job's secret before anything else it says is looked at. Unproven connections are
//!   few, short-lived, and evict each other. No number of a peer makes this side reserve more than one chunk.
//! - After [`Lmr::free`] returns no transfer touches the memory.
//!
//! # Threads
//! Every object may be used from several threads; one lock per adapter. There is no thread of its own: work is done
//! by whoever calls [`Ia::step`], [`Evd::wait`] or posts; [`Ia::fd`] is readable when there is some. No call blocks
//! except [`Evd::wait`] and [`Cno::wait`].
//!
//! # Order of cleanup
//! Any: each object keeps its adapter, and a zone or dispatcher in use outlives its handle. Dropping an endpoint never
//! waits for the peer. [`Ia::close`] ends everything of an adapter at once.
//!
//! # Not offered
//! Common service points, watermarks of shared receive queues, more than one path, message integrity: the network
//! between hosts must be trusted (reliability.md S4).
#![forbid(unsafe_code)]

mod close;
mod cno;
mod cr;
mod ep;
mod evd;
mod handshake;
mod ia;
mod input;
mod link;
mod links;
mod lmr;
mod maps;
mod message;
mod model;
mod modify;
mod output;
mod post;
mod psp;
mod pz;
mod queue;
mod request;
mod ret;
mod rmr;
mod send;
mod serve;
mod shared;
mod slab;
mod srq;
mod window;
mod wire;

pub use cno::Cno;
pub use cr::Cr;
pub use ep::Ep;
pub use evd::{EVD_QLEN_MAX, Evd, EvdId, EvdState};
pub use ia::{Config, HANDSHAKE_TIME, Ia, STRANGERS_MAX};
pub use link::SILENT_TIME;
pub use lmr::{Lmr, Region};
pub use maps::{Access, access};
pub use model::{
    AsyncAbout, AsyncKind, CloseFlags, ConnectionKind, DtoCompletion, DtoOperation, DtoStatus,
    EpId, EpState, EvdFlags, Event, Flags, LocalSegment, Privileges, RemoteSegment, VaType,
};
pub use modify::EpChange;
pub use post::INLINE_MAX;
pub use psp::{At, Psp, PspFlags, Rsp, port_of};
pub use pz::Pz;
pub use request::{DTOS_MAX, EpAttr, IOV_MAX};
pub use ret::{CLASS_ERROR, Error, Result, Subtype, Type};
pub use rmr::{Rmr, RmrId, RmrScope, RmrState};
pub use srq::{Srq, SrqState};
pub use windlass_wire::auth::Secret;
pub use wire::PRIVATE_DATA_MAX;
