//! The 64-bit atomics of the InfiniBand extension (udapl 8). No route uses them, for an adapter's are not atomic to a CPU's: they
//! are here because `tests/libdat2.rs` proves by them the slots of our own plug-in, which programs over libdat2 use.
#![allow(unsafe_code)]

use windlass_abi::dat::Triplet;
use windlass_abi::dat::consumer::{CMP_AND_SWAP, FETCH_AND_ADD};

use crate::dat2::{Endpoint, Error, Result};

/// What to do with 8 aligned bytes of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomic {
    /// Add to them.
    FetchAdd(u64),
    /// Replace them if they are as expected.
    CompareSwap {
        /// Expected.
        compare: u64,
        /// New.
        swap: u64,
    },
}

impl Endpoint {
    /// Posts an atomic on `remote`, whose old value goes to the 8 bytes of `local`.
    ///
    /// # Errors
    /// [`Error::NoAtomic`]: the adapter does not say that it has it; else as [`post_recv`](Self::post_recv).
    pub fn post_atomic(
        &self,
        atomic: Atomic,
        local: Triplet,
        remote: Triplet,
        cookie: u64,
    ) -> Result<()> {
        let adapter = self.queue().adapter();
        let [adds, swaps] = adapter.about().atomics;
        let op = adapter.library().extension;
        let call = "dat_extension_op";
        match atomic {
            Atomic::FetchAdd(_) if !adds => Err(Error::NoAtomic("fetch-and-add")),
            Atomic::CompareSwap { .. } if !swaps => Err(Error::NoAtomic("compare-and-swap")),
            Atomic::FetchAdd(add) => self.registered(local, cookie, call, |ep, name| {
                let (local, remote) = (&raw const local, &raw const remote);
                // SAFETY: an open endpoint and the arguments of this operation (dat_ib_extensions.h); `local` is registered.
                unsafe { op(ep, FETCH_AND_ADD, add, local, name, remote, 0u32) }
            }),
            Atomic::CompareSwap { compare, swap } => {
                self.registered(local, cookie, call, |ep, name| {
                    let (local, remote) = (&raw const local, &raw const remote);
                    // SAFETY: as above.
                    unsafe { op(ep, CMP_AND_SWAP, compare, swap, local, name, remote, 0u32) }
                })
            }
        }
    }
}
