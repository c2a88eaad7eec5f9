//! The counters of all published segments of a node, in one file: the service writes it, importers can only read it (rsm 7.4).
//!
//! A slot is used again and never reset, so that whoever has an old value sees that it is old.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use windlass_mem::view::{Rights, View};
use windlass_mem::{MemFile, SharedBytes};

use crate::code::Code;
use crate::request::Counts;

/// A cache line of its own for each.
const SLOT_BYTES: usize = 64;
/// Where in a slot the second counter is.
const BACKING: usize = 8;

/// The service's side.
pub(crate) struct Slots {
    bytes: SharedBytes,
    reader: Arc<OwnedFd>,
    free: Vec<u32>,
}

impl Slots {
    pub(crate) fn new(count: usize) -> windlass_mem::Result<Self> {
        let len = count * SLOT_BYTES;
        let file = MemFile::create_unsealed("windlass-rsm-counters", len as u64)?;
        let bytes = file.map(0, len)?;
        let reader = Arc::new(file.read_only()?);
        file.seal(true)?;
        let free = (0..count as u32).rev().collect();
        Ok(Self {
            bytes,
            reader,
            free,
        })
    }

    pub(crate) fn reader(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.reader)
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        let slot = self.free.pop()?;
        self.raise(slot, 0);
        Some(slot)
    }

    /// The segment has ended. All that it ever did comes before.
    pub(crate) fn give(&mut self, slot: u32) {
        self.raise(slot, 0);
        self.free.push(slot);
    }

    pub(crate) fn raise_backing(&self, slot: u32) {
        self.raise(slot, BACKING);
    }

    fn raise(&self, slot: u32, which: usize) {
        let at = slot as usize * SLOT_BYTES + which;
        // Slots are inside the file, and aligned.
        if let Ok(word) = self.bytes.atomic_u64(at) {
            word.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn counts(&self, slot: u32) -> Counts {
        counts(&self.bytes, slot).unwrap_or_default()
    }
}

/// An importer's side.
pub(crate) struct Counters(SharedBytes);

impl Counters {
    /// Of a file that belongs to user `uid`.
    pub(crate) fn open(fd: OwnedFd, uid: u32) -> Result<Self, Code> {
        let file = MemFile::from_fd_of(fd, uid).map_err(|e| Code::of(&e, Code::InternalError))?;
        let len = usize::try_from(file.len()).map_err(|_| Code::InternalError)?;
        let view = View::new(Some(&file), 0, len, Rights::Read, None);
        let view = view.map_err(|e| Code::of(&e, Code::InternalError))?;
        Ok(Self(view.bytes()))
    }

    /// Two loads, after everything the caller loaded before.
    #[inline]
    pub(crate) fn counts(&self, slot: u32) -> Option<Counts> {
        std::sync::atomic::fence(Ordering::Acquire);
        counts(&self.0, slot)
    }
}

#[inline]
fn counts(bytes: &SharedBytes, slot: u32) -> Option<Counts> {
    let at = slot as usize * SLOT_BYTES;
    let (mut generation, mut backing) = ([0; 8], [0; 8]);
    bytes.read(at, &mut generation).ok()?;
    bytes.read(at + BACKING, &mut backing).ok()?;
    Some(Counts {
        generation: u64::from_ne_bytes(generation),
        backing: u64::from_ne_bytes(backing),
    })
}
