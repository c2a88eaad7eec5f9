//! A uDAPL provider that Debian's libdat2 loads: `windlass_dat` behind the provider table (udapl.md section 3).
//!
//! A line of `dat.conf` (or of the file that `DAT_OVERRIDE` names) makes it known:
//!
//! ```text
//! windlass u2.0 nonthreadsafe default /path/to/libdapl_windlass.so windlass.2.0 "127.0.0.1" ""
//! ```
//!
//! * `config` reads the parameters; `registry` speaks with libdat2; `table` is the provider table; `adapter` is what a name
//!   stands for.
//! * `handle` is what C holds; `edge` and `address` are the border: errors, pointers, socket addresses.
//! * `ia`, `attributes`, `pz`, `lmr`, `rmr`, `evd`, `event`, `cno`, `ep`, `connect`, `dto`, `extension`, `srq`, `point`: the functions of
//!   section 4, one file per noun.
//!
//! **Qualifiers** name TCP ports of the adapter's address: 1 to 65535 themselves, others one above 1023.
//!
//! **Threads.** Each open adapter has one helper thread: it serves peers while the program computes, and is joined
//! when the adapter is closed. Every function may be called from every thread, whatever `dat.conf` says.
//!
//! **fork.** A child must not use its parent's adapters: it opens its own.
#![allow(unsafe_code)]

mod adapter;
mod address;
mod attributes;
mod cno;
mod config;
mod connect;
mod dto;
mod edge;
mod ep;
mod evd;
mod event;
mod extension;
mod handle;
mod ia;
mod lmr;
mod point;
mod pz;
mod registry;
mod rmr;
mod srq;
mod table;

/// Tells libdat2 that there may be extensions: the two atomics (sections 3.1 and 8).
#[unsafe(no_mangle)]
pub static dapl_extensions: u32 = 0;
