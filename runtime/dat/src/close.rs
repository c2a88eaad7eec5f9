//! The end of an adapter (udapl.md section 4.1, `dat_ia_close`).

use crate::ia::{Ia, Inner};
use crate::lmr::Entry;
use crate::model::CloseFlags;
use crate::ret::{Error, Result, Subtype};

impl Ia {
    /// `dat_ia_close`: abrupt, everything of the adapter is gone, its connections with a farewell; graceful, it closes
    /// only if nothing is left. Without it, an adapter ends with the last of its objects.
    ///
    /// # Errors
    /// INVALID_STATE (IA_IN_USE) for a graceful one while an object lives; INVALID_HANDLE (IA) the second time.
    pub fn close(&self, flags: CloseFlags) -> Result<()> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Error::handle(Subtype::Ia));
        }
        if flags == CloseFlags::Graceful && inner.in_use() {
            return Err(Error::state(Subtype::IaInUse));
        }
        inner.closed = true;
        let memory = inner.clear();
        drop(inner); // the memory may be unmapped: not under the lock
        drop(memory);
        Ok(())
    }
}

impl Inner {
    /// Whether the consumer has an object here; the adapter's own asynchronous EVD is none.
    fn in_use(&self) -> bool {
        let evds = self.evds.table.len() - usize::from(!self.evds.errors.is_empty());
        evds + self.evds.cnos.len() + self.eps.len() + self.pzs.len() > 0
            || !self.psps.is_empty()
            || self.srqs.len() + self.rmrs.len() > 0
            || !self.lmrs.is_empty()
    }

    fn clear(&mut self) -> Vec<Entry> {
        for qualifier in self.psps.keys().copied().collect::<Vec<_>>() {
            self.close_point(qualifier);
        }
        for request in self.requests.ids() {
            self.drop_request(request);
        }
        for ep in self.eps.ids() {
            self.hang_up(ep);
            self.remove_ep(ep);
        }
        for evd in self.evds.table.ids() {
            if let Some(evd) = self.evds.table.remove(evd) {
                evd.ring(); // a thread that waits finds it gone
            }
        }
        for cno in self.evds.cnos.ids() {
            if let Some(cno) = self.evds.cnos.remove(cno) {
                cno.ring();
            }
        }
        self.evds.errors.clear();
        for rmr in self.rmrs.ids() {
            self.rmrs.remove(rmr);
        }
        for srq in self.srqs.ids() {
            self.srqs.remove(srq);
        }
        for pz in self.pzs.ids() {
            self.pzs.remove(pz);
        }
        self.stop_listening();
        self.lmrs.take_all()
    }
}
