//! Protection zones (udapl.md section 4.1): regions and endpoints that may work together.

use std::sync::Arc;

use crate::ia::{Ia, Inner};
use crate::ret::{Error, Result, Subtype};
use crate::slab::Id;

/// Name of no zone: that of an endpoint which has none yet.
pub(crate) const NO_PZ: Id = Id {
    index: u32::MAX,
    generation: u32::MAX,
};

/// One zone of the table.
pub(crate) struct Zone {
    /// Regions and endpoints that refer to it.
    users: usize,
    /// The handle is gone; the last user removes the zone.
    orphan: bool,
}

impl Inner {
    pub(crate) fn hold_pz(&mut self, id: Id) {
        if let Some(zone) = self.pzs.get_mut(id) {
            zone.users += 1;
        }
    }

    pub(crate) fn release_pz(&mut self, id: Id) {
        if let Some(zone) = self.pzs.get_mut(id) {
            zone.users -= 1;
            if zone.orphan && zone.users == 0 {
                self.pzs.remove(id);
            }
        }
    }
}

/// A protection zone.
pub struct Pz {
    ia: Arc<Ia>,
    id: Id,
}

impl std::fmt::Debug for Pz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pz").field(&self.id.index).finish()
    }
}

impl Pz {
    /// `dat_pz_create`.
    pub fn create(ia: &Arc<Ia>) -> Self {
        let id = ia.lock().pzs.insert(Zone {
            users: 0,
            orphan: false,
        });
        Self { ia: ia.clone(), id }
    }

    /// `dat_pz_free`.
    ///
    /// # Errors
    /// INVALID_STATE (PZ_IN_USE) while a region or endpoint refers to it; INVALID_HANDLE the second time.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        match inner.pzs.get(self.id) {
            Some(zone) if zone.users > 0 => Err(Error::state(Subtype::PzInUse)),
            Some(_) => {
                inner.pzs.remove(self.id);
                Ok(())
            }
            None => Err(Error::handle(Subtype::Pz)),
        }
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn ia(&self) -> &Arc<Ia> {
        &self.ia
    }
}

impl Drop for Pz {
    fn drop(&mut self) {
        let mut inner = self.ia.lock();
        if let Some(zone) = inner.pzs.get_mut(self.id) {
            zone.orphan = true;
            if zone.users == 0 {
                inner.pzs.remove(self.id);
            }
        }
    }
}
