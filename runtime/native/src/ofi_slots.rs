//! Transfers under way: what the network may touch, and the library's own data of each.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_abi::ofi::fi_context2;
use windlass_mem::SharedBytes;

use crate::ofi_memory::Registration;

/// What a transfer is named by: the caller's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Which.
    pub ticket: u64,
    /// Whose.
    pub party: u32,
}

/// A transfer under way. The library may keep its own data in the first field, so it stays where it is.
#[repr(C)]
pub(crate) struct Slot {
    context: fi_context2,
    index: usize,
    name: Name,
    /// What the network may touch.
    held: Option<(SharedBytes, Arc<Registration>)>,
}

#[derive(Default)]
struct State {
    // Boxed: their addresses are with the library.
    all: Vec<*mut Slot>,
    free: Vec<usize>,
}

/// All of them.
pub(crate) struct Slots {
    depth: usize,
    state: Mutex<State>,
}

// SAFETY: a slot is changed by who has just taken it from the free ones, or by who the library has just given it to.
unsafe impl Send for Slots {}
// SAFETY: as above; the lists are under a lock.
unsafe impl Sync for Slots {}

impl Slots {
    pub(crate) fn new(depth: usize) -> Slots {
        Slots {
            depth,
            state: Mutex::default(),
        }
    }

    /// How many there may be.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are in use.
    pub(crate) fn used(&self) -> usize {
        let state = self.state();
        state.all.len() - state.free.len()
    }

    /// One for a transfer, unless as many are in use as there may be.
    pub(crate) fn take(
        &self,
        name: Name,
        local: &SharedBytes,
        within: &Arc<Registration>,
    ) -> Option<*mut Slot> {
        let mut state = self.state();
        let slot = match state.free.pop() {
            Some(index) => state.all[index],
            None if state.all.len() >= self.depth => return None,
            None => {
                let slot = Box::into_raw(Box::new(Slot {
                    context: fi_context2 {
                        internal: [ptr::null_mut(); 8],
                    },
                    index: state.all.len(),
                    name,
                    held: None,
                }));
                state.all.push(slot);
                slot
            }
        };
        // SAFETY: free until now, so nobody else looks at it; it lives as long as `self`.
        unsafe {
            (*slot).name = name;
            (*slot).held = Some((local.clone(), Arc::clone(within)));
        }
        Some(slot)
    }

    /// Frees a slot; its transfer's name.
    ///
    /// # Safety
    /// `slot` came from [`take`](Self::take), is in use, and no longer the library's.
    pub(crate) unsafe fn give_back(&self, slot: *mut Slot) -> Name {
        // SAFETY: in use by the caller alone, by its promise.
        let (name, index, held) = unsafe { ((*slot).name, (*slot).index, (*slot).held.take()) };
        self.state().free.push(index);
        // Outside the lock: the last holder of a registration closes it.
        drop(held);
        name
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for slot in self.state().all.drain(..) {
            // SAFETY: made by a box, freed once.
            drop(unsafe { Box::from_raw(slot) });
        }
    }
}
