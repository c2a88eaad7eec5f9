//! Registered bounce buffers for sources a device cannot see.
//!
//! A pool of equal slots in memory that an engine has registered. A slot returns to the pool
//! when it is dropped, which its [`Queue`](crate::completion::Queue) does at completion.

use std::sync::Arc;

use parking_lot::Mutex;
use windlass_mem::SharedBytes;

/// Payload of one slot, in bytes.
pub const SLOT_BYTES: usize = 64 * 1024;

/// Each slot has this much more, so that a payload can start at any offset modulo 64 and be
/// congruent to its destination (ve-memory 9.2: both addresses 4-byte aligned).
pub const SLOT_PAD_BYTES: usize = 64;

/// A pool of bounce slots.
#[derive(Clone)]
pub struct Staging {
    inner: Arc<Inner>,
}

struct Inner {
    bytes: SharedBytes,
    free: Mutex<Vec<u32>>,
}

/// A slot in use.
pub struct Slot {
    inner: Arc<Inner>,
    index: u32,
}

impl Staging {
    /// Divides `bytes` (registered by the caller, 64-byte aligned) into slots.
    pub fn new(bytes: SharedBytes) -> Staging {
        let count = bytes.len() / (SLOT_BYTES + SLOT_PAD_BYTES);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Staging {
            inner: Arc::new(Inner {
                bytes,
                free: Mutex::new((0..count).rev().collect()),
            }),
        }
    }

    /// A free slot, or `None`: poll for completions, try again.
    pub fn take(&self) -> Option<Slot> {
        let index = self.inner.free.lock().pop()?;
        Some(Slot {
            inner: Arc::clone(&self.inner),
            index,
        })
    }
}

impl Slot {
    /// `len` bytes (at most [`SLOT_BYTES`]) of the slot whose address is congruent to `remote`
    /// modulo [`SLOT_PAD_BYTES`].
    pub fn congruent(&self, remote: u64, len: usize) -> Option<SharedBytes> {
        if len > SLOT_BYTES {
            return None;
        }
        let pad = (remote % SLOT_PAD_BYTES as u64) as usize;
        let start = self.index as usize * (SLOT_BYTES + SLOT_PAD_BYTES);
        self.inner.bytes.slice(start + pad, len).ok()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner.free.lock().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_distinct_congruent_and_come_back() {
        let (bytes, _loan) = windlass_mem::lend(vec![0u64; 3 * (SLOT_BYTES + SLOT_PAD_BYTES) / 8]);
        let base = bytes.addr();
        let staging = Staging::new(bytes);
        let slots: Vec<Slot> = std::iter::from_fn(|| staging.take()).collect();
        assert_eq!(slots.len(), 3);
        for remote in 0..130 {
            let mut ends = Vec::new();
            for slot in &slots {
                let part = slot.congruent(remote, SLOT_BYTES).expect("fits");
                assert_eq!((part.addr() - base) as u64 % 64, remote % 64);
                ends.push((part.addr(), part.addr() + part.len()));
            }
            ends.sort_unstable();
            assert!(ends.windows(2).all(|w| w[0].1 <= w[1].0));
        }
        assert!(slots[0].congruent(0, SLOT_BYTES + 1).is_none());
        drop(slots);
        assert_eq!(
            std::iter::from_fn(|| staging.take())
                .collect::<Vec<_>>()
                .len(),
            3
        );
    }
}
