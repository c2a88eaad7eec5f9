//! The counters of all published segments of a node, in one file: the service writes it, importers can only read it (rsm 7.4).
//!
//! A slot is used again and never reset, so that whoever has an old value sees that it is old. Before the first one is the
//! service's pledge: with a service that ended without a word, all connections have ended.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use windlass_mem::pledge::{Pledge, is_held};
use windlass_mem::view::{Rights, View};
use windlass_mem::{MemFile, SharedBytes};

use crate::code::Code;
use crate::request::Counts;

/// A cache line of its own for each.
const SLOT_BYTES: usize = 64;
/// Where in a slot the second counter is.
const BACKING: usize = 8;

/// What a slot is for.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// A segment of this node.
    Own,
    /// A connection to one of another.
    Far,
}

/// The service's side. Slots of segments of this node, and behind them those of connections to other nodes.
pub(crate) struct Slots {
    bytes: SharedBytes,
    reader: Arc<OwnedFd>,
    /// So many are of segments.
    own: u32,
    /// Of each side.
    free: [Vec<u32>; 2],
    /// Made when the first process looks.
    pledge: Option<Pledge>,
}

impl Slots {
    pub(crate) fn new(count: usize, far: usize) -> windlass_mem::Result<Self> {
        let len = (count + far + 1) * SLOT_BYTES;
        let file = MemFile::create_unsealed("windlass-rsm-counters", len as u64)?;
        let bytes = file.map(0, len)?;
        let reader = Arc::new(file.read_only()?);
        file.seal(true)?;
        let (count, far) = (count as u32, far as u32);
        Ok(Self {
            bytes,
            reader,
            own: count,
            free: [
                (0..count).rev().collect(),
                (count..count + far).rev().collect(),
            ],
            pledge: None,
        })
    }

    /// The file, for a process.
    ///
    /// # Errors
    /// [`Code::InsufficientResources`]: no thread can be had for the pledge.
    pub(crate) fn reader(&mut self) -> Result<Arc<OwnedFd>, Code> {
        if self.pledge.is_none() {
            let pledge = Pledge::hold(&self.bytes, 0);
            self.pledge = Some(pledge.map_err(|_| Code::InsufficientResources)?);
        }
        Ok(Arc::clone(&self.reader))
    }

    pub(crate) fn take(&mut self, side: Side) -> Option<u32> {
        let slot = self.free[side as usize].pop()?;
        self.raise(slot, 0);
        Some(slot)
    }

    /// The segment has ended, or the connection. All that it ever did comes before.
    pub(crate) fn give(&mut self, slot: u32) {
        self.raise(slot, 0);
        let side = if slot < self.own {
            Side::Own
        } else {
            Side::Far
        };
        self.free[side as usize].push(slot);
    }

    pub(crate) fn raise_backing(&self, slot: u32) {
        self.raise(slot, BACKING);
    }

    fn raise(&self, slot: u32, which: usize) {
        let at = place(slot) + which;
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

    /// After everything the caller loaded before; `None`: the service has ended.
    #[inline]
    pub(crate) fn counts(&self, slot: u32) -> Option<Counts> {
        std::sync::atomic::fence(Ordering::Acquire);
        let counts = counts(&self.0, slot);
        counts.filter(|_| is_held(&self.0, 0))
    }
}

/// Behind the pledge.
#[inline]
fn place(slot: u32) -> usize {
    (slot as usize + 1) * SLOT_BYTES
}

#[inline]
fn counts(bytes: &SharedBytes, slot: u32) -> Option<Counts> {
    let at = place(slot);
    let (mut generation, mut backing) = ([0; 8], [0; 8]);
    bytes.read(at, &mut generation).ok()?;
    bytes.read(at + BACKING, &mut backing).ok()?;
    Some(Counts {
        generation: u64::from_ne_bytes(generation),
        backing: u64::from_ne_bytes(backing),
    })
}
