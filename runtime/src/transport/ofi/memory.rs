//! What this process has registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use windlass_mem::SharedBytes;
use windlass_native::ofi::Registration;

/// Ranges lent to transfers at most; then they go through bounce memory.
const LENT_MAX: usize = 64;

/// What this process has registered: a transfer must name its own side too.
#[derive(Default)]
pub(super) struct Memory {
    /// By address.
    ranges: RwLock<BTreeMap<usize, Arc<Registration>>>,
    /// Lent to transfers. They may overlap each other.
    lent: RwLock<Vec<Arc<Registration>>>,
}

impl Memory {
    pub(super) fn add(&self, registration: Arc<Registration>) {
        let address = registration.bytes().addr();
        self.ranges.write().insert(address, registration);
    }

    pub(super) fn remove(&self, registration: &Arc<Registration>) {
        let mut all = self.ranges.write();
        let address = registration.bytes().addr();
        if all
            .get(&address)
            .is_some_and(|it| Arc::ptr_eq(it, registration))
        {
            all.remove(&address);
        }
    }

    /// The registration that `bytes` are part of.
    pub(super) fn find(&self, bytes: &SharedBytes) -> Option<Arc<Registration>> {
        let holds = |it: &&Arc<Registration>| it.bytes().contains(bytes).is_some();
        let all = self.ranges.read();
        let range = all.range(..=bytes.addr()).next_back();
        if let Some(found) = range.map(|(_, found)| found).filter(holds) {
            return Some(Arc::clone(found));
        }
        self.lent.read().iter().find(holds).cloned()
    }
}

/// Memory registered for its transfers under way.
pub(super) struct Leased {
    registration: Arc<Registration>,
    memory: Arc<Memory>,
}

impl Leased {
    /// `None`: as many are there as may be.
    pub(super) fn new(memory: &Arc<Memory>, registration: Arc<Registration>) -> Option<Leased> {
        let mut lent = memory.lent.write();
        if lent.len() >= LENT_MAX {
            return None;
        }
        lent.push(Arc::clone(&registration));
        Some(Leased {
            registration,
            memory: Arc::clone(memory),
        })
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let mut lent = self.memory.lent.write();
        lent.retain(|it| !Arc::ptr_eq(it, &self.registration));
    }
}
