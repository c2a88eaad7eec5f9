//! The node service: one per node, known to every rank of it, and to other programs that use its emulated VEs.
//!
//! **Nouns.** A [`Service`] serves the ranks of one node and is linked to the services of the
//! others; a [`Client`] is one rank's connection to it; the [`control`] segment is the memory all
//! ranks of the node share for locks, barriers and gathers; a [`Token`] names a file that a rank
//! left with the service for others to fetch; a *round* gathers one part of every rank of the job.
//! A [`Visitor`] is a process that is no rank and uses the VEs only; a [`Watcher`] looks from outside.
//!
//! **Nodes.** A *job's* node is started by the launcher and has ranks and visitors. A *private* one belongs to a program that
//! was started alone, and to its descendants; a *named* one to every program that names it. Both have visitors only, and their
//! service is a process of its own that the first of them starts and that ends with the last: [`enter()`] finds or starts it.
//!
//! **Layers.** Stands on `windlass-mem` (files and shared memory), `windlass-wire` (frames, proof
//! of the job's secret), `windlass-ve` (the emulated VEs' part of the operating system, hosted
//! here) and `windlass-rsm` (the node's segments, likewise). Knows nothing of windows or routes. Every message is in [`wire`].
//!
//! **Trust** (spec reliability section 4). One job is one user, and so is a private node. A process of another user cannot
//! reach the socket (0700 directory, 0600 socket) and is turned away by its credentials if it
//! does; a stranger on the link port does not know the secret. A named node admits every user of the machine, unless its name begins with `own-`: each process is
//! who its socket's credentials say, the owner rules of VESHM are judged by that, the memory of each user is a file of its own
//! ([`windlass_ve`]), and only the node's own user and root stop it. All bytes received are input:
//! bounded, checked, refused by closing that one connection.
//!
//! **Threads.** The service has a thread that accepts, one per connection, and two per link. A
//! [`Client`] and a [`Visitor`] may be used from any thread.
//!
//! **Order of cleanup.** Dropping a [`Service`] says goodbye to other nodes, ends all
//! connections, joins all threads, and removes the socket and its directory; a named node has neither. What a killed
//! service leaves behind, [`sweep`] removes.

#![forbid(unsafe_code)]

mod channel;
mod client;
mod config;
mod contexts;
pub mod control;
mod crew;
mod enter;
mod error;
mod guests;
mod home;
mod hub;
mod layout;
mod line;
mod links;
mod name;
mod overruled;
mod rounds;
mod routes;
mod segments;
mod serve;
mod service;
mod start;
#[cfg(test)]
mod tests;
mod variables;
mod visitor;
pub mod wire;

pub use client::{Client, VeClient, Welcome};
pub use config::{JobId, Link, MAX_NODES, Member, NodeConfig, Place};
pub use control::Control;
pub use enter::{Entered, Kin, VARIABLES, enter, enter_with, visit, visit_with};
pub use error::{Cause, Error, Malformed, with_sources};
pub use guests::{MAX_VISITORS, MAX_VISITORS_OF_USER, visitor_bounds};
pub use home::{base_dir, sweep};
pub use hub::MAX_DEPOSITS;
pub use name::{Address, NodeName};
pub use overruled::overruled;
pub use service::{Door, Event, Service};
pub use start::{FAILED, READY};
pub use variables::{Unknown, VARIABLE_COUNT, unknown, unknown_here};
pub use visitor::{Visitor, Watcher};
pub use wire::{Fault, NodeKind, Status, StopReport, Token, VeStatus};
