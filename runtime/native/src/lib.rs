//! C libraries that are loaded at run time: one program works with and without them, and says what it found.
//!
//! * [`veo`]: a real libveo.so, for processes and memory of a Vector Engine card.
//! * [`ofi`]: libfabric.so.1, for transfers between nodes.
//! * [`dat2`]: libdat2.so.2, for transfers between nodes by a uDAPL provider that is not ours.
//!
//! **Users.** Of libveo, ranks of a job with `WINDLASS_VE=native`, whose windows lie on VEs, and programs that drive a card
//! themselves. `windlass info` loads the library, in a process of its own, to say its version. Of libfabric, ranks of jobs of several
//! nodes that ask for it. Of libdat2, ranks of jobs with `WINDLASS_DAT`.
//!
//! **Beyond its users.** Functions of a VE library, DMA and host segments of a VE process serve no route yet: they are here because what
//! passes over the model of the VE has to pass over a card's library too, call by call (`tests/native.rs`).
//!
//! **Layer.** Over `windlass-abi`, which has the types of the functions, and `windlass-mem`; knows no rank and no window.
//!
//! **Order of cleanup.** What was made is owned: memory and attachments hold their process, a process its library. They go when
//! they are dropped, in the right order. A library that was loaded stays: it may have threads.
#![deny(unsafe_code)]

pub mod dat2;
mod dat2_adapter;
mod dat2_address;
mod dat2_atomics;
mod dat2_endpoint;
mod dat2_memory;
mod dat2_queue;
mod error;
mod library;
mod linker;
mod memory;
pub mod ofi;
mod ofi_endpoint;
mod ofi_info;
mod ofi_memory;
mod ofi_signals;
mod ofi_slots;
mod ofi_sockets;
mod process;
pub mod veo;

pub use error::{Error, Result};
