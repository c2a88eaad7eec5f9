//! LHM and SHM: loads and stores of 1, 2, 4 and 8 bytes by VEHVA, and the fences (ve-memory.md section 10).
//!
//! x86 code cannot dereference a VEHVA, so in the emulated node the instructions are function calls, and the signal a VE
//! process would get is a [`Fault`].

use std::sync::PoisonError;
use std::sync::atomic::{Ordering, fence};

use crate::addr::Vehva;
use crate::fault::{Access, Fault, FaultKind};
use crate::process::Process;
use crate::reorder::Page;
use crate::translate::order;

/// Which accesses a `fencem` instruction orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fence {
    /// `fencem 1`: stores.
    Stores,
    /// `fencem 2`: loads.
    Loads,
    /// `fencem 3`: both.
    Both,
}

/// Width and natural alignment.
fn check(at: Vehva, width: usize, access: Access) -> Result<(), Fault> {
    let legal = matches!(width, 1 | 2 | 4 | 8) && at.raw().is_multiple_of(width as u64);
    if legal {
        Ok(())
    } else {
        Err(Fault {
            kind: FaultKind::MemoryAccess,
            at,
            access,
        })
    }
}

impl Process {
    /// LHM: loads 1, 2, 4 or 8 bytes from a naturally aligned VEHVA. Synchronous; a load of [`crate::PCIRCVSYC`] returns after all
    /// earlier inbound requests have been performed: an acquire fence.
    pub fn lhm(&self, at: Vehva, dst: &mut [u8]) -> Result<(), Fault> {
        check(at, dst.len(), Access::Read)?;
        if let Some(outcome) = self.load_fixed(at, dst) {
            return outcome;
        }
        if self.dma().loose {
            let page = self.piece_page(at, dst.len(), Access::Read)?.at;
            self.dma().before_load(page);
        }
        let table = self.table().read().unwrap_or_else(PoisonError::into_inner);
        let piece = table.piece(at, dst.len(), Access::Read)?;
        let unmapped = |_| Fault {
            kind: FaultKind::Io,
            at,
            access: Access::Read,
        };
        let loaded = piece.entry.bytes.read(piece.offset, dst).map_err(unmapped);
        order();
        loaded
    }

    /// SHM: stores 1, 2, 4 or 8 bytes to a naturally aligned VEHVA. Posted: ordered before later transfers of this process; in
    /// reordering mode it arrives later.
    pub fn shm(&self, at: Vehva, src: &[u8]) -> Result<(), Fault> {
        check(at, src.len(), Access::Write)?;
        self.dma().check_store(at);
        if let Some(outcome) = self.store_fixed(at, src) {
            return outcome;
        }
        if self.dma().loose {
            let page = || self.piece_page(at, src.len(), Access::Write);
            return self.dma().store_later(page, src);
        }
        let table = self.table().read().unwrap_or_else(PoisonError::into_inner);
        let piece = table.piece(at, src.len(), Access::Write)?;
        let unmapped = |_| Fault {
            kind: FaultKind::Io,
            at,
            access: Access::Write,
        };
        order();
        piece.entry.bytes.write(piece.offset, src).map_err(unmapped)
    }

    /// `fencem`: accesses before it come before those after it.
    pub fn fence(&self, which: Fence) {
        if self.dma().loose && which != Fence::Loads {
            self.dma().fence_stores();
        }
        fence(Ordering::SeqCst);
    }

    /// The page of an access, without the table's lock.
    fn piece_page(&self, at: Vehva, len: usize, access: Access) -> Result<Page, Fault> {
        let table = self.table().read().unwrap_or_else(PoisonError::into_inner);
        let piece = table.piece(at, len, access)?;
        Ok(Page {
            at: at.page_start(piece.entry.page),
            sync: piece.entry.sync,
            bytes: piece.entry.bytes.clone(),
            offset: piece.offset,
        })
    }
}
