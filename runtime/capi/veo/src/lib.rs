//! libveo.so.1: VE offloading for a program that has no Vector Engine (ve-memory sections 4, 7 and 12).
//!
//! A VE process is a process of the host, `aveorun`, that loads a library built with gcc in place of ncc.
//!
//! * `offload`, `call`, `memory`, `hooks`: ve_offload.h. `sysve`: veo_vhveshm.h, veo_veshm.h, veo_vedma.h.
//! * `args` collects the arguments of a call.
//! * `registry` turns handles into processes and contexts, HMEM pointers into processes.
//! * `process` starts, knows and ends a VE process; `life` explains an end that nobody asked for; `node` says on which VE, `card` on whose VE node and what its cards are.
//! * `context` is a queue of requests in order, worked off by one thread; `link` carries one request.
//! * `protocol` is what passes between library and process.
//!
//! **Handles** are numbers that are never used again, not addresses: a call with one that is closed is refused (EBUSY),
//! where the original leaves it undefined. `veo_args` and `veo_thr_ctxt_attr` are memory, freed by their own functions.
//!
//! **Thread safety.** Everything may be called from every thread; one `veo_args` from one thread at a time.
//!
//! **fork.** A child has no VE processes: every handle of its parent is refused there.
//!
//! **End.** veo_proc_destroy runs exit(3) in the VE process, and kills it after five seconds. The process also ends when
//! the program does, in whatever way.
#![deny(unsafe_code)]

mod args;
mod call;
mod card;
mod context;
mod edge;
mod hooks;
mod life;
mod link;
mod memory;
mod node;
mod offload;
mod process;
mod protocol;
mod registry;
mod sysve;
