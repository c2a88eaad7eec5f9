//! Local memory regions: the table of registrations, its checks, and the handle (udapl.md sections 4.2, 4.3 and 5).
//!
//! A context is never a pointer: it is a 24-bit index and an 8-bit generation into a table. Every copy looks the
//! context up again under the adapter's lock, so a freed region is out of reach once [`Lmr::free`] returns: no copy
//! is in progress then, and a transfer that was half way fails.

use std::collections::VecDeque;
use std::sync::Arc;

use windlass_mem::SharedBytes;

use crate::ia::Ia;
use crate::model::{LocalSegment, Privileges, RemoteSegment, VaType};
use crate::pz::Pz;
use crate::ret::{Error, Result, Subtype, Type};
use crate::shared::Claim;
use crate::slab::Id;
use crate::window::Window;

/// Slots of the table at most: the index has 24 bits.
const SLOTS_MAX: usize = 1 << 24;
/// A freed slot rests until this many others were freed after it, so that a context value returns late.
const RESTING: usize = 256;

/// What is registered.
#[derive(Clone)]
pub enum Region<'a> {
    /// A range of this process' memory.
    Virtual(SharedBytes),
    /// The memory of another registration, with its own zone, rights and contexts.
    Lmr(&'a Lmr),
    /// A range of a shared mapping, registered by every process that maps it under one 40-byte id (`shared.rs`).
    SharedVirtual(SharedBytes, [u8; 40]),
}

/// One registration.
pub(crate) struct Entry {
    pub(crate) pz: Id,
    pub(crate) privileges: Privileges,
    pub(crate) bytes: SharedBytes,
    pub(crate) base: u64,
    pub(crate) va_type: VaType,
    pub(crate) kind: Kind,
}

/// What an entry is.
pub(crate) enum Kind {
    /// A region, with the windows bound to it.
    Region { windows: usize },
    /// The context of a bind that has not been carried out: no memory, no right.
    Reserved,
    /// A window onto a region.
    Window(Window),
    /// The id that other processes name the same pages by.
    Shared { windows: usize, _claim: Claim },
}

impl Entry {
    /// Windows bound to a region; nothing for what is none.
    pub(crate) fn windows(&mut self) -> Option<&mut usize> {
        match &mut self.kind {
            Kind::Region { windows } | Kind::Shared { windows, .. } => Some(windows),
            Kind::Reserved | Kind::Window(_) => None,
        }
    }

    /// Offset of a range, or nothing if it is not wholly inside. Cannot overflow (udapl.md section 5, rule 5).
    #[inline]
    pub(crate) fn offset(&self, address: u64, len: u64) -> Option<usize> {
        let size = self.bytes.len() as u64;
        let offset = address.checked_sub(self.base)?;
        if offset <= size && len <= size - offset {
            Some(offset as usize)
        } else {
            None
        }
    }
}

struct Slot {
    generation: u8,
    entry: Option<Entry>,
}

/// A request of a peer was refused. The reason stays here (udapl.md section 5: no distinction is revealed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// All registrations of an adapter.
pub(crate) struct LmrTable {
    slots: Vec<Slot>,
    free: VecDeque<u32>,
}

impl LmrTable {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: VecDeque::new(),
        }
    }

    pub(crate) fn insert(&mut self, entry: Entry) -> Result<u32> {
        let full = self.slots.len() == SLOTS_MAX;
        let index = match self.free.front() {
            Some(&index) if full || self.free.len() > RESTING => {
                self.free.pop_front();
                index
            }
            _ if full => return Err(Error::resources(Subtype::MemoryRegion)),
            _ => {
                // Generations count from 1, so context 0 is never issued.
                self.slots.push(Slot {
                    generation: 1,
                    entry: None,
                });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.entry = Some(entry);
        Ok(index << 8 | u32::from(slot.generation))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// Removes every registration; their memory is the caller's to let go of.
    pub(crate) fn take_all(&mut self) -> Vec<Entry> {
        let all = std::mem::take(&mut self.slots).into_iter();
        self.free.clear();
        all.filter_map(|slot| slot.entry).collect()
    }

    #[inline]
    pub(crate) fn get(&self, context: u32) -> Option<&Entry> {
        let slot = self.slots.get((context >> 8) as usize)?;
        if slot.generation == context as u8 {
            slot.entry.as_ref()
        } else {
            None
        }
    }

    pub(crate) fn remove(&mut self, context: u32) -> Option<Entry> {
        let slot = self.slots.get_mut((context >> 8) as usize)?;
        if slot.generation != context as u8 {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.free.push_back(context >> 8);
        Some(entry)
    }

    pub(crate) fn get_mut(&mut self, context: u32) -> Option<&mut Entry> {
        let slot = self.slots.get_mut((context >> 8) as usize)?;
        let entry = slot.entry.as_mut();
        entry.filter(|_| slot.generation == context as u8)
    }

    /// Memory of a range that was checked before, if it is still registered.
    #[inline]
    pub(crate) fn at(
        &self,
        context: u32,
        address: u64,
        len: usize,
    ) -> Option<(&SharedBytes, usize)> {
        let entry = self.get(context)?;
        Some((&entry.bytes, entry.offset(address, len as u64)?))
    }

    /// The post-time checks of a local segment (udapl.md section 4.7).
    #[inline]
    pub(crate) fn check_local(&self, pz: Id, segment: &LocalSegment, store: bool) -> Result<()> {
        if segment.len == 0 {
            return Ok(()); // rule 1: the context of an empty segment is not looked at
        }
        let (right, privilege, protection) = if store {
            (
                Privileges::LOCAL_WRITE,
                Subtype::PrivilegesWrite,
                Subtype::ProtectionWrite,
            )
        } else {
            (
                Privileges::LOCAL_READ,
                Subtype::PrivilegesRead,
                Subtype::ProtectionRead,
            )
        };
        let denied = Error::new(Type::PrivilegesViolation, privilege);
        let entry = self.get(segment.context).ok_or(denied)?;
        if entry
            .offset(segment.address, u64::from(segment.len))
            .is_none()
        {
            return Err(Error::arg(Subtype::Arg3));
        }
        if entry.pz != pz {
            return Err(Error::new(Type::ProtectionViolation, protection));
        }
        if !entry.privileges.contains(right) {
            return Err(denied);
        }
        Ok(())
    }

    /// The checks of a peer's request, in the order of udapl.md section 5 (rules 1 to 5).
    #[inline]
    pub(crate) fn check_remote(
        &self,
        (pz, ep): (Id, Option<Id>),
        context: u32,
        address: u64,
        len: u32,
        right: Privileges,
    ) -> std::result::Result<(), Refused> {
        if len == 0 {
            return Ok(());
        }
        let entry = self.get(context).ok_or(Refused)?;
        if entry.pz != pz || !entry.privileges.contains(right) {
            return Err(Refused);
        }
        if let Kind::Window(window) = &entry.kind
            && window.only_ep.is_some()
            && window.only_ep != ep
        {
            return Err(Refused);
        }
        entry
            .offset(address, u64::from(len))
            .map(|_| ())
            .ok_or(Refused)
    }
}

/// A registered region. Dropping it frees it.
pub struct Lmr {
    ia: Arc<Ia>,
    context: u32,
    privileges: Privileges,
    address: u64,
    len: u64,
}

impl std::fmt::Debug for Lmr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lmr")
            .field("context", &self.context)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Lmr {
    /// `dat_lmr_create` (udapl.md section 4.2): checks in the order of its table, which starts with the handles.
    ///
    /// # Errors
    /// INVALID_HANDLE (PZ freed or of another adapter, region LMR freed), INVALID_PARAMETER (ARG3 local write to a read-only mapping, ARG4 length 0, ARG6
    /// remote write without local write), INSUFFICIENT_RESOURCES (table full); for a shared id INVALID_STATE (pages that are
    /// not of a shared mapping, or other pages than those of the id), INVALID_PARAMETER (ARG4 another length).
    pub fn create(
        region: Region<'_>,
        pz: &Pz,
        privileges: Privileges,
        va_type: VaType,
    ) -> Result<Self> {
        let ia = pz.ia().clone();
        let mut inner = ia.lock();
        if inner.pzs.get(pz.id()).is_none() {
            return Err(Error::handle(Subtype::Pz));
        }
        let bytes = match &region {
            Region::Virtual(bytes) => bytes.clone(),
            Region::SharedVirtual(bytes, _) => bytes.clone(),
            Region::Lmr(lmr) if !Arc::ptr_eq(&lmr.ia, &ia) => {
                return Err(Error::handle(Subtype::Lmr));
            }
            Region::Lmr(lmr) => inner
                .lmrs
                .get(lmr.context)
                .ok_or(Error::handle(Subtype::Lmr))?
                .bytes
                .clone(),
        };
        if privileges.contains(Privileges::REMOTE_WRITE)
            && !privileges.contains(Privileges::LOCAL_WRITE)
        {
            return Err(Error::arg(Subtype::Arg6));
        }
        if bytes.is_empty() {
            return Err(Error::arg(Subtype::Arg4));
        }
        if privileges.contains(Privileges::LOCAL_WRITE) && bytes.is_read_only() {
            return Err(Error::arg(Subtype::Arg3));
        }
        let base = match va_type {
            VaType::Virtual => bytes.addr() as u64,
            VaType::ZeroBased => 0,
        };
        let len = bytes.len() as u64;
        let kind = match region {
            Region::SharedVirtual(_, id) => Kind::Shared {
                windows: 0,
                _claim: Claim::make(&id, &bytes)?,
            },
            _ => Kind::Region { windows: 0 },
        };
        let context = inner.lmrs.insert(Entry {
            pz: pz.id(),
            privileges,
            bytes,
            base,
            va_type,
            kind,
        })?;
        inner.hold_pz(pz.id());
        drop(inner);
        Ok(Self {
            ia,
            context,
            privileges,
            address: base,
            len,
        })
    }

    /// The context local segments name it by. Never 0.
    pub fn context(&self) -> u32 {
        self.context
    }

    /// The context a peer names it by, or 0 if no remote right was given.
    pub fn rmr_context(&self) -> u32 {
        let remote = Privileges::REMOTE_READ | Privileges::REMOTE_WRITE | Privileges::REMOTE_ATOMIC;
        if self.privileges.intersects(remote) {
            self.context
        } else {
            0
        }
    }

    /// Address of the first byte, as segments must count.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes registered.
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// `dat_lmr_query`: rights and kind of addresses, while it lives.
    ///
    /// # Errors
    /// INVALID_HANDLE after a free.
    pub fn query(&self) -> Result<(Privileges, VaType)> {
        let inner = self.ia.lock();
        let entry = inner
            .lmrs
            .get(self.context)
            .ok_or(Error::handle(Subtype::Lmr))?;
        Ok((entry.privileges, entry.va_type))
    }

    /// `dat_lmr_free`: after its return no transfer touches the memory, however far it had got.
    ///
    /// # Errors
    /// INVALID_HANDLE the second time; INVALID_STATE (LMR_IN_USE) while a window is bound to it.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        let entry = inner.lmrs.get_mut(self.context);
        match entry.ok_or(Error::handle(Subtype::Lmr))?.windows() {
            Some(0) => {}
            Some(_) => return Err(Error::state(Subtype::LmrInUse)),
            None => return Err(Error::handle(Subtype::Lmr)),
        }
        let entry = inner
            .lmrs
            .remove(self.context)
            .ok_or(Error::handle(Subtype::Lmr))?;
        inner.release_pz(entry.pz);
        drop(inner); // the memory itself may be unmapped with the entry: not under the lock
        drop(entry);
        Ok(())
    }

    /// The region's context, if it is live and of this adapter.
    pub(crate) fn of(&self, ia: &Arc<Ia>, lmrs: &LmrTable) -> Result<u32> {
        let live = Arc::ptr_eq(&self.ia, ia) && lmrs.get(self.context).is_some();
        live.then_some(self.context)
            .ok_or(Error::handle(Subtype::Lmr))
    }

    /// A segment of this region that begins `offset` bytes into it. Not checked: the post checks it.
    pub fn segment(&self, offset: u64, len: u32) -> LocalSegment {
        LocalSegment {
            context: self.context,
            address: self.address.wrapping_add(offset),
            len,
        }
    }
}

impl Drop for Lmr {
    fn drop(&mut self) {
        let mut inner = self.ia.lock(); // bound or not; already freed is fine
        let entry = inner.lmrs.remove(self.context);
        if let Some(entry) = &entry {
            inner.release_pz(entry.pz);
        }
        drop(inner);
    }
}

impl Ia {
    /// Whether a local segment lies in a region of this adapter, as `dat_lmr_sync_rdma_read` and its sister ask. There is
    /// nothing to synchronise beyond a fence: memory is coherent.
    ///
    /// # Errors
    /// INVALID_PARAMETER (ARG2) if not.
    pub fn check_segment(&self, segment: &LocalSegment) -> Result<()> {
        let inner = self.lock();
        let entry = inner.lmrs.get(segment.context);
        let inside = entry.and_then(|entry| entry.offset(segment.address, segment.len.into()));
        inside.map(|_| ()).ok_or(Error::arg(Subtype::Arg2))
    }

    /// Runs `f` on memory that a peer named in a message of its own, if the request passes the checks a direct one
    /// would have to pass (udapl.md section 5): for a target-side agent. `f` gets the region's memory and the offset
    /// of `address` in it. It runs under the adapter's lock, which is what keeps [`Lmr::free`] honest: it must be
    /// short and must not call this crate.
    pub fn with_region<R>(
        &self,
        pz: &Pz,
        range: &RemoteSegment,
        right: Privileges,
        f: impl FnOnce(&SharedBytes, usize) -> R,
    ) -> Option<R> {
        let inner = self.lock();
        inner
            .lmrs
            .check_remote(
                (pz.id(), None),
                range.context,
                range.address,
                range.len,
                right,
            )
            .ok()?;
        let (bytes, offset) = inner
            .lmrs
            .at(range.context, range.address, range.len as usize)?;
        Some(f(bytes, offset))
    }
}
