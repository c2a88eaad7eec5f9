//! Windows in the table of registrations: contexts of their own for parts of regions (udapl.md sections 4.4 and 5).

use windlass_mem::SharedBytes;

use crate::lmr::{Entry, Kind, LmrTable};
use crate::model::{LocalSegment, Privileges, VaType};
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::Id;

/// What a bound RMR refers to.
pub(crate) struct Window {
    /// The region.
    pub(crate) lmr: u32,
    /// The one endpoint it may be used over.
    pub(crate) only_ep: Option<Id>,
}

impl LmrTable {
    /// A context for a window that is not bound yet.
    pub(crate) fn reserve(&mut self, pz: Id) -> Result<u32> {
        self.insert(Entry {
            pz,
            privileges: Privileges::NONE,
            bytes: SharedBytes::empty(),
            base: 0,
            va_type: VaType::Virtual,
            kind: Kind::Reserved,
        })
    }

    /// The post-time checks of a bind (udapl.md section 4.4).
    pub(crate) fn check_bind(
        &self,
        lmr: u32,
        segment: &LocalSegment,
        [rmr_pz, ep_pz]: [Id; 2],
        rights: Privileges,
    ) -> Result<()> {
        let entry = self.get(lmr).ok_or(Error::handle(Subtype::Lmr))?;
        let inside = entry.offset(segment.address, u64::from(segment.len));
        if segment.len > 0 && (inside.is_none() || segment.context != lmr) {
            return Err(Error::arg(Subtype::Arg3));
        }
        if entry.pz != rmr_pz || entry.pz != ep_pz {
            return Err(Error::new(Type::ProtectionViolation, Subtype::None));
        }
        let reads = Privileges::REMOTE_READ | Privileges::REMOTE_ATOMIC;
        let writes = Privileges::REMOTE_WRITE | Privileges::REMOTE_ATOMIC;
        let lacks = |wanted, right| rights.intersects(wanted) && !entry.privileges.contains(right);
        if segment.len > 0 && lacks(reads, Privileges::LOCAL_READ) {
            return Err(Error::new(
                Type::PrivilegesViolation,
                Subtype::PrivilegesRead,
            ));
        }
        if segment.len > 0 && lacks(writes, Privileges::LOCAL_WRITE) {
            return Err(Error::new(
                Type::PrivilegesViolation,
                Subtype::PrivilegesWrite,
            ));
        }
        Ok(())
    }

    /// A reserved context becomes a window; nothing if the region is gone.
    pub(crate) fn activate(
        &mut self,
        context: u32,
        window: Window,
        segment: &LocalSegment,
        privileges: Privileges,
        va_type: VaType,
    ) -> Option<()> {
        let region = self.get_mut(window.lmr)?;
        let len = segment.len as usize;
        let offset = region.offset(segment.address, u64::from(segment.len))?;
        let bytes = region.bytes.slice(offset, len).ok()?;
        *region.windows()? += 1;
        let entry = self.get_mut(context)?;
        entry.base = match va_type {
            VaType::Virtual => segment.address,
            VaType::ZeroBased => 0,
        };
        entry.bytes = bytes;
        entry.privileges = privileges;
        entry.va_type = va_type;
        entry.kind = Kind::Window(window);
        Some(())
    }

    /// Ends a window or a context reserved for one; anything else is left alone.
    pub(crate) fn unbind(&mut self, context: u32) -> Option<Entry> {
        if self.get_mut(context)?.windows().is_some() {
            return None; // a region
        }
        let entry = self.remove(context)?;
        if let Kind::Window(window) = &entry.kind
            && let Some(windows) = self.get_mut(window.lmr).and_then(Entry::windows)
        {
            *windows -= 1;
        }
        Some(entry)
    }

    /// Whether a peer on this endpoint may end the window.
    pub(crate) fn may_invalidate(&self, context: u32, pz: Id, ep: Id) -> bool {
        let entry = self.get(context).filter(|entry| entry.pz == pz);
        entry.is_some_and(|entry| match &entry.kind {
            Kind::Window(window) => window.only_ep.is_none_or(|only| only == ep),
            _ => false,
        })
    }

    /// The post-time check of a window that a read's data goes to: one of this zone that peers may write.
    pub(crate) fn check_sink(&self, pz: Id, segment: &LocalSegment) -> Result<()> {
        if segment.len == 0 {
            return Ok(());
        }
        let denied = Error::new(Type::PrivilegesViolation, Subtype::PrivilegesRdmaWrite);
        let entry = self.get(segment.context).ok_or(denied)?;
        if !matches!(entry.kind, Kind::Window(_)) {
            return Err(denied);
        }
        if entry
            .offset(segment.address, u64::from(segment.len))
            .is_none()
        {
            return Err(Error::arg(Subtype::Arg2));
        }
        if entry.pz != pz {
            return Err(Error::new(
                Type::ProtectionViolation,
                Subtype::ProtectionRdmaWrite,
            ));
        }
        if !entry.privileges.contains(Privileges::REMOTE_WRITE) {
            return Err(denied);
        }
        Ok(())
    }
}
