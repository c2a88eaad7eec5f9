//! What this process has registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use windlass_mem::SharedBytes;
use windlass_native::ofi::Registration;

/// What this process has registered, by address: a transfer must name its own side too.
#[derive(Default)]
pub(super) struct Memory(RwLock<BTreeMap<usize, Arc<Registration>>>);

impl Memory {
    pub(super) fn add(&self, registration: Arc<Registration>) {
        let address = registration.bytes().addr();
        self.0.write().insert(address, registration);
    }

    pub(super) fn remove(&self, registration: &Arc<Registration>) {
        let mut all = self.0.write();
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
        let all = self.0.read();
        let (_, registration) = all.range(..=bytes.addr()).next_back()?;
        registration.bytes().contains(bytes)?;
        Some(Arc::clone(registration))
    }
}
