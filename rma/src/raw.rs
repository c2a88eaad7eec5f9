//! Windows by pointers and layouts: MPI's one-sided chapter with its full freedom.
//!
//! What the typed [`Window`](crate::Window) proves by types is here the caller's promise, and what
//! it cannot express is here: displacement units, layouts on both sides with negative bounds,
//! `MPI_PROC_NULL`, assertions, origin buffers that stay borrowed until the operation completes,
//! absolute addresses of dynamic windows. A C library of the MPI interface stands on this module;
//! every call has its name in MPI and the errors of mpi-rma 7.
//!
//! # What the caller promises
//! The functions that take addresses are `unsafe`. Their common rules, beside what each says:
//! - an **origin** buffer is readable, a **result** buffer writable, wherever the layout touches it,
//!   from the call until the operation is complete: a flush, unlock, fence or complete that covers
//!   it, or the end of its [`Request`];
//! - until then this program accesses it only as foreign code would (through pointers in C, atomics,
//!   or not at all), never through a Rust reference. It may be memory of a window, and others may
//!   access it: then its content is undefined, and nothing else is (mpi-rma 5);
//! - no two threads end the same epoch or exposure at the same time (two `complete`, two `wait`):
//!   each would count for a peer. Two threads that *begin* one are told apart, and one is refused;
//! - what [`Assertions`] say is so, in whichever call they are given. With `NOCHECK` a lock is not
//!   taken and a post not waited for: where that is untrue, an operation of this rank meets memory
//!   that a peer holds as a slice ([`lock_local`](crate::Window::lock_local)), which is a data race
//!   in *that* process.
//!
//! Everything else is checked: ranks, ranges, epochs, element types. A refused call had no effect.
#![allow(unsafe_code)]

mod operations;
mod slices;
mod sync;
mod updates;
mod window;

pub(crate) use slices::Borrowed;

pub use operations::{At, Data, Request};
pub use sync::Assertions;
pub use window::Window;
