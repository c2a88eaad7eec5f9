//! Memory that others may change: the only crate of the runtime that touches raw pointers.
//!
//! * [`SharedBytes`] is a range of bytes that other threads, processes or devices may read and write at any time.
//!   It hands out copies, never references (see [`shared`] for the argument).
//! * [`map`] makes such ranges from files without a name ([`MemFile`]).
//! * [`lend`](mod@lend) makes them from memory that the caller lends.
//! * [`reback`] makes lent memory one that peers can map, in place; [`reback::place`] makes it a part of a device's.
//! * [`sysv`] makes them from System V segments.
//! * [`cross`] copies to and from memory of another process that cannot be mapped.
//! * [`atfork`] installs handlers around forks.
//! * [`forbid`](mod@forbid) makes a test's process one that the kernel refuses what containers do.
//! * [`view`] maps files with few rights, at places of the caller's choice.
//! * [`pledge`] tells whether another process still lives, by one load.
//! * [`signals`] keeps signals of the program from threads that are not its own.
//! * [`sync`] holds the fence that a flush owes and the only blocking wait of this crate.
//!
//! **Layer.** This crate knows bytes, files and processes; it has never heard of a rank, a window or an epoch.
//!
//! **Thread safety.** Everything here is `Send + Sync`; the order of accesses by several threads is the caller's to
//! arrange, by [`sync`] or by the atomics of a range.
//!
//! **Order of cleanup.** A range keeps its mapping alive; the mapping goes with the last clone or slice of it. A file
//! lives until the last descriptor and mapping of it are gone, in whatever process.
#![allow(unsafe_code)]

pub mod atfork;
mod blocks;
pub mod cross;
mod error;
pub mod forbid;
mod foreign;
pub mod lend;
pub mod map;
mod mapping;
pub mod peer;
pub mod pledge;
pub mod reback;
pub mod shared;
pub mod signals;
mod socket;
pub mod sync;
pub mod sysv;
pub mod view;

pub use blocks::Steps;
pub use error::{Error, Result};
pub use lend::{Lend, Loan, StillLent, borrow, lend};
pub use map::{MemFile, Piece, map_pieces};
pub use shared::{SharedBytes, SharedWord};
pub use socket::silent_for;
