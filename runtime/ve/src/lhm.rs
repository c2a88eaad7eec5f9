//! LHM and SHM: loads and stores of 1, 2, 4 and 8 bytes by VEHVA (ve-memory.md section 10).
//!
//! x86 code cannot dereference a VEHVA, so in the emulated node the instructions are function calls, and the signal a VE
//! process would get is a [`Fault`].

use std::sync::PoisonError;
use std::sync::atomic::{Ordering, fence};

use crate::addr::Vehva;
use crate::fault::{Access, Fault, FaultKind};
use crate::process::Process;
use crate::translate::order;

/// System common registers, pages 0 and 1 (section 2.2).
const REGISTERS: u64 = 0x1000;
/// DMA control words: table H, then table E, 16 bytes each.
const DMA_CONTROL: u64 = 0x3000;
/// Table E of the DMA control page.
const DMA_CONTROL_E: u64 = 0x3010;
/// First page that is not read-only register space.
const REGISTERS_END: u64 = 0x4000;
/// PCIRCVSYC (section 8).
pub const PCIRCVSYC: Vehva = Vehva::new(0x1400);

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
    /// LHM: loads 1, 2, 4 or 8 bytes from a naturally aligned VEHVA. Synchronous; a load of [`PCIRCVSYC`] returns after all
    /// earlier inbound requests have been performed: an acquire fence.
    pub fn lhm(&self, at: Vehva, dst: &mut [u8]) -> Result<(), Fault> {
        check(at, dst.len(), Access::Read)?;
        if (REGISTERS..REGISTERS_END).contains(&at.raw()) {
            return self.load_register(at, dst);
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

    /// SHM: stores 1, 2, 4 or 8 bytes to a naturally aligned VEHVA. Posted: ordered before later transfers of this process.
    pub fn shm(&self, at: Vehva, src: &[u8]) -> Result<(), Fault> {
        check(at, src.len(), Access::Write)?;
        if (REGISTERS..REGISTERS_END).contains(&at.raw()) {
            return Err(Fault {
                kind: FaultKind::MemoryProtection,
                at,
                access: Access::Write,
            });
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

    /// The read-only fixed pages. The registers behind them are zero but for DMA control.
    fn load_register(&self, at: Vehva, dst: &mut [u8]) -> Result<(), Fault> {
        let mut words = [0_u8; 16];
        if at == PCIRCVSYC {
            fence(Ordering::Acquire);
        } else if (DMA_CONTROL..DMA_CONTROL_E).contains(&at.raw()) {
            for (bytes, word) in words
                .chunks_exact_mut(8)
                .zip(self.dma().control_registers())
            {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
        let from = usize::try_from(at.raw() % 16).unwrap_or(0);
        for (to, byte) in dst.iter_mut().zip(words.iter().skip(from)) {
            *to = *byte;
        }
        Ok(())
    }
}
