//! Memory that an adapter may touch.
#![allow(unsafe_code)]

use std::sync::Arc;

use windlass_abi::dat::consumer::mem_priv;
use windlass_abi::dat::{MEM_TYPE_VIRTUAL, RegionDescription, Triplet, VA_TYPE_VA};
use windlass_mem::SharedBytes;

use crate::dat2::{Adapter, Result};
use crate::dat2_adapter::Raw;

/// Registered memory: requests of this process may name it, and peers' if they may reach it. Withdrawn when dropped.
#[derive(Debug)]
pub struct Registration {
    adapter: Arc<Adapter>,
    lmr: Raw,
    bytes: SharedBytes,
    context: u32,
    rmr_context: u32,
}

impl Registration {
    /// Registers memory; for peers too, if they may read, write and update it.
    ///
    /// # Errors
    /// [`Error::Call`](crate::dat2::Error::Call): the adapter has no room, or cannot pin so much.
    pub fn new(adapter: &Arc<Adapter>, bytes: &SharedBytes, peers: bool) -> Result<Registration> {
        let mut rights = mem_priv::LOCAL_READ | mem_priv::LOCAL_WRITE;
        if peers {
            rights |= mem_priv::REMOTE_READ | mem_priv::REMOTE_WRITE;
            if adapter.about().atomics != [false; 2] {
                rights |= mem_priv::REMOTE_ATOMIC;
            }
        }
        let region = RegionDescription {
            for_va: bytes.as_ptr().cast(),
        };
        let mut lmr = std::ptr::null_mut();
        let (mut context, mut rmr_context, mut size, mut start) = (0, 0, 0, 0);
        let library = adapter.library();
        let mut turn = adapter.turn();
        // SAFETY: open handles, memory that stays mapped while `bytes` lives, which this registration holds and which
        // others may change at any time (windlass-mem), and places for the answers.
        let code = unsafe {
            (library.lmr_create)(
                adapter.ia(),
                MEM_TYPE_VIRTUAL,
                region,
                bytes.len() as u64,
                adapter.pz(),
                rights,
                VA_TYPE_VA,
                &raw mut lmr,
                &raw mut context,
                &raw mut rmr_context,
                &raw mut size,
                &raw mut start,
            )
        };
        library.check("dat_lmr_create", code)?;
        let range = (bytes.addr() as u64, bytes.len() as u64);
        turn.regions.insert(context, range);
        drop(turn);
        Ok(Registration {
            adapter: Arc::clone(adapter),
            lmr: Raw(lmr),
            bytes: bytes.clone(),
            context,
            rmr_context,
        })
    }

    /// What local segments name it by.
    pub fn context(&self) -> u32 {
        self.context
    }

    /// What peers name it by; 0 if they may not.
    pub fn rmr_context(&self) -> u32 {
        self.rmr_context
    }

    /// The memory.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// A part of it, for a post, which checks it.
    pub fn segment(&self, offset: u64, len: u32) -> Triplet {
        Triplet {
            virtual_address: (self.bytes.addr() as u64).wrapping_add(offset),
            segment_length: len,
            context: self.context,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut turn = self.adapter.turn();
        turn.regions.remove(&self.context);
        // SAFETY: made in `new`, freed once.
        unsafe { (self.adapter.library().lmr_free)(self.lmr.0) };
    }
}
