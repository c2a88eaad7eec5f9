//! `libsysve.so.1`, and `libveio.so.1` in it: what a C program for the Vector Engine is linked with, over the emulated node.
//!
//! **What it is.** The functions of `veshm.h`, `vedma.h`, `userdma.h`, `vhshm.h`, `libsysve.h` and `ve_inst.h`
//! (`runtime/capi/include`), with the arguments, results and errno values of ve-memory sections 4 to 10. The rules themselves are
//! in `windlass-ve`; here are C's types, errno, signals, and the program's memory.
//!
//! **Joining.** The process joins a node at its first call (`seat`), on the VE that `VE_NODE_NUMBER` names (0 without it), or
//! where `windlass run` has placed it. Where no node is named the processes that one program forks share one, whichever of them
//! comes first. A forked child is another VE process: it joins at its own first call, has none of its
//! parent's areas, attachments and DMA state, and finds nothing at the addresses its parent had attached.
//!
//! **Memory.** On a VE all memory of a program is VE memory. Here memory becomes VE memory where it is when a call first needs
//! it (`own`): its pages move into frames of the VE, at the same addresses.
//!
//! **Layers.** Over `windlass-ve`, `windlass-node` and `windlass-mem`; knows no rank and no window.
//!
//! **Threads.** Every function may be called from any thread, also from one that Rust has not made. No panic leaves the library:
//! the call fails with ECANCELED, and the message is on standard error.
//!
//! **Undefined.** Where the specification says so, the library does what the real one does; with `WINDLASS_VE_CHECK=1` it says
//! which rule was broken and ends the process.
#![allow(unsafe_code)]

mod edge;
mod inst;
mod own;
mod registers;
mod seat;
mod vedma;
mod veshm;
mod vhshm;
