//! `librsm.so.2`: what a C program that exports and imports segments is linked with.
//!
//! **What it is.** The functions of `rsmapi.h` (`runtime/capi/include`), with the arguments and result codes of the
//! specification. The rules themselves are in `windlass-rsm`; here are C's types, handles, and the program's memory.
//!
//! **Joining.** The process joins a node when it first gets a controller or the topology (`seat`): the job's under
//! `windlass run`, else the one named by `WINDLASS_NODE_NAME`, else one private to it and what it forks and executes after that.
//! A forked child is another process: of its parent's segments it can do nothing, and finds no mapping of theirs.
//!
//! **Handles.** Tokens that are checked against a table (`table`); no function believes one.
//!
//! **Layers.** Over `windlass-rsm`, `windlass-node` and `windlass-mem`.
//!
//! **Threads.** Every function may be called from any thread. No panic leaves the library: the call answers
//! RSMERR_INTERNAL_ERROR, and the message is on standard error.
#![allow(unsafe_code)]

mod barrier;
mod controller;
mod edge;
mod export;
mod gather;
mod import;
mod seat;
mod signal;
mod table;
mod topology;
mod transfer;
