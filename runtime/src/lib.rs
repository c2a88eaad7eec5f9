//! This process, its peers, and the ways to reach their memory.
//!
//! A [`Job`] is this process's membership; it owns the [arena](arena::Arena), the mechanisms and
//! the helper thread. A [`Team`] is an ordered set of its ranks. [`Team::expose`] turns a [`Region`]
//! of every rank into an [`Exposure`]: a [`Route`] to every target, [`Mapped`](Route::Mapped) or
//! [`Posted`](Route::Posted), and the window's synchronisation words. What a window *means* is the
//! business of the crate above.
//!
//! **Layers.** `mechanism` states the contract, `transport` has one file per mechanism, `select`
//! orders, `negotiate` agrees, `route` and `completion` are the data path. Only `transport`,
//! `arena` and `region` know the machines; only `exchange`, `completion` and `progress` block.
//!
//! **Threads.** Everything here may be used from many threads. Collective calls of one team are one
//! at a time and in the same order on all its ranks.
//!
//! **Order of the end.** Windows hold the job; when the last goes, this rank says goodbye, then
//! the helper thread ends, then the node, if this process hosts one.
#![forbid(unsafe_code)]

pub mod arena;
pub mod call;
pub mod completion;
pub mod environment;
pub mod error;
pub mod exchange;
pub mod exposure;
pub mod faults;
mod gathers;
pub mod guard;
pub mod huge;
pub mod job;
pub mod log;
pub mod mechanism;
pub mod negotiate;
pub mod network;
mod pending;
pub mod progress;
pub mod region;
pub mod route;
pub mod select;
pub mod shared;
pub mod staging;
pub mod team;
mod tickets;
pub mod transport;
pub mod update;
pub mod word;

pub use call::{Call, StatusWord};
pub use error::{Error, Phase, Result};
pub use exposure::{Exposure, Target};
pub use job::Job;
pub use mechanism::{MechanismId, Peer, Place};
pub use negotiate::{Explained, NOTE_MAX_BYTES, Reached};
pub use pending::Pending;
pub use region::Region;
pub use route::{Posted, Route};
pub use shared::Placement;
pub use team::Team;
pub use windlass_node::control::{NOTIFY_IDS, POSTED_BITS};
pub use word::{Adding, Word, WordName};
