//! A uDAPL 2.0 provider in software: remote memory access over TCP for processes that trust each other.
//!
//! # Nouns
//! [`Ia`] interface adapter: descriptors and tables. [`Pz`] protection zone. [`Lmr`] local memory region: registered
//! memory with rights, named by a context. [`Ep`] endpoint: one reliable connection. [`Evd`] event dispatcher: a
//! queue of completions and connection events. [`Psp`] service point and [`Cr`] connection request: how connections
//! arrive. DTO: a posted data transfer.
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
//! except [`Evd::wait`].
//!
//! # Order of cleanup
//! Any: each object keeps its adapter, and a zone or dispatcher in use outlives its handle. Dropping an endpoint never
//! waits for the peer.
//!
//! # Not offered
//! Memory windows (RMR) and bind, shared-virtual registration, reserved service points and provider-made endpoints,
//! shared receive queues, CNOs (sleep on [`Ia::fd`]), message integrity: the network between hosts must be trusted
//! (reliability.md S4).
#![forbid(unsafe_code)]

mod ep;
mod evd;
mod handshake;
mod ia;
mod input;
mod link;
mod links;
mod lmr;
mod model;
mod output;
mod post;
mod psp;
mod pz;
mod request;
mod ret;
mod send;
mod serve;
mod slab;
mod wire;

pub use ep::Ep;
pub use evd::{EVD_QLEN_MAX, Evd};
pub use ia::{Config, HANDSHAKE_TIME, Ia, STRANGERS_MAX};
pub use lmr::{Lmr, Region};
pub use model::{
    AsyncKind, CloseFlags, ConnectionKind, DtoCompletion, DtoOperation, DtoStatus, EpId, EpState,
    EvdFlags, Event, Flags, LocalSegment, Privileges, RemoteSegment, VaType,
};
pub use post::INLINE_MAX;
pub use psp::{Cr, Psp};
pub use pz::Pz;
pub use request::{EpAttr, IOV_MAX};
pub use ret::{CLASS_ERROR, Error, Result, Subtype, Type};
pub use windlass_wire::auth::Secret;
pub use wire::PRIVATE_DATA_MAX;
