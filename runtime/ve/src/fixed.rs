//! The fixed pages of the 4 KiB region of VEHVA: the page of system-call arguments, registers, and the descriptor tables E and
//! H (ve-memory.md sections 2.2, 8 and 9.1).
//!
//! The tables are driven by SHM and LHM: a descriptor that is stored with status "prepared" at the read pointer executes inside
//! the store, after the stores before it. Table E is there at once; H belongs to the library ([`crate::Dma`]) or, after `ve_map_dmades`, to the program.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::{PageSize, Vehva};
use crate::dma::{DESCRIPTORS, Init, STATUS_COMPLETED, STATUS_PREPARED};
use crate::errno::Errno;
use crate::error::Error;
use crate::fault::{Access, Exception, Fault, FaultKind};
use crate::process::{Process, Result};
use crate::request::{Body, Reply, Request};
use crate::service::{ProcessId, Service};
use crate::transfer::Transfer;
use crate::translate::{Entry, Kind};

/// System-call arguments: host memory, for loads and stores.
pub const SYSTEM_CALL_PAGE: Vehva = Vehva::new(0);
/// System common registers, pages 0 and 1, then DMA control: for loads.
const REGISTERS: u64 = 0x1000;
/// PCIRCVSYC (section 8).
pub const PCIRCVSYC: Vehva = Vehva::new(0x1400);
/// DMA control: table H, then table E, 16 bytes each.
pub const DMA_CONTROL: Vehva = Vehva::new(0x3000);
const DMA_CONTROL_E: u64 = 0x3010;
const DMA_CONTROL_END: u64 = 0x3020;
/// DMA descriptor table E.
pub const DMADES_E: Vehva = Vehva::new(0x4000);
/// DMA descriptor table H, once it is mapped.
pub const DMADES_H: Vehva = Vehva::new(0x5000);
const DMADES_END: u64 = 0x6000;

/// Register pairs PCISYAR and PCISYMR of a VE.
const SYNC_PAIRS: u8 = 4;
/// Permitted to run (word 0 of a control register pair).
const RUNNING: u64 = 1;
/// Bits of a descriptor's length word that say what else than VEHVA its addresses are.
const TYPES: u64 = 0x7 << 36 | 0x7 << 40;

/// End of the fixed pages that every process has, or that has table H too.
pub(crate) const fn fixed_end(dmades: bool) -> u64 {
    if dmades { DMADES_END } else { DMADES_H.raw() }
}

/// The page that the operating system uses for system-call arguments.
pub(crate) fn system_call_page() -> Entry {
    let words = PageSize::K4.bytes() / 8;
    let (bytes, _loan) = windlass_mem::lend(vec![0_u64; usize::try_from(words).unwrap_or(0)]);
    Entry {
        start: SYSTEM_CALL_PAGE,
        page: PageSize::K4,
        writable: true,
        kind: Kind::Segment,
        sync: false,
        bytes,
    }
}

/// A descriptor table that the program drives itself.
#[derive(Debug)]
struct RawTable {
    words: Box<[u64; DESCRIPTORS * 4]>,
    read: usize,
}

impl Default for RawTable {
    fn default() -> Self {
        Self {
            words: Box::new([0; DESCRIPTORS * 4]),
            read: 0,
        }
    }
}

/// Tables E and H as the program sees them.
#[derive(Debug, Default)]
pub(crate) struct RawTables(Mutex<[RawTable; 2]>);

impl RawTables {
    fn lock(&self) -> MutexGuard<'_, [RawTable; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `ve_get_fixed_vehva` is asked for (section 3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FixedRegion {
    /// System common registers, page 0.
    Registers0 = 0,
    /// System common registers, page 1.
    Registers1 = 1,
    /// DMA control of table E.
    DmaControlE = 4,
    /// DMA descriptor table E.
    DmaDescriptorsE = 5,
}

impl Service {
    /// Table H goes into VEHVA or out of it: `ve_get_pgmode` knows. EBUSY: it is there already; EINVAL: it is not.
    pub(crate) fn dmades(&mut self, id: ProcessId, mapped: bool) -> Result<Reply, Errno> {
        self.ve_of(id)?;
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        if process.dmades == mapped {
            return Err(if mapped { Errno::Ebusy } else { Errno::Einval });
        }
        process.dmades = mapped;
        Ok(Body::Done.into())
    }
}

impl Process {
    /// `ve_get_fixed_vehva`: where a fixed page is. EINVAL: no such region.
    pub fn get_fixed_vehva(&self, region: u64) -> Result<Vehva> {
        const ALL: [(FixedRegion, u64); 4] = [
            (FixedRegion::Registers0, REGISTERS),
            (FixedRegion::Registers1, 0x2000),
            (FixedRegion::DmaControlE, DMA_CONTROL_E),
            (FixedRegion::DmaDescriptorsE, DMADES_E.raw()),
        ];
        let found = ALL.iter().find(|(known, _)| *known as u64 == region);
        let refused = Error::refused("ve_get_fixed_vehva", Errno::Einval);
        found.map(|(_, at)| Vehva::new(*at)).ok_or(refused)
    }

    /// `ve_get_pci_sync` (section 8): PCISYAR and PCISYMR of pair `pair`, which VEOS sets to 0 and never changes. EINVAL: no such pair.
    pub fn get_pci_sync(&self, pair: u8) -> Result<(u64, u64)> {
        if pair < SYNC_PAIRS {
            return Ok((0, 0));
        }
        Err(Error::refused("ve_get_pci_sync", Errno::Einval))
    }

    /// `ve_dma_init` (section 9.3): table H for [`Process::dma`]. Later calls succeed too. EBUSY, for good: `ve_map_dmades` has it.
    pub fn dma_init(&self) -> Result<()> {
        let call = "ve_dma_init";
        let _order = self.state();
        // The engine's lock is not held while the service is asked: only this lock changes `init`.
        let (init, failed) = {
            let ring = self.dma().ring();
            (ring.init, ring.init_failed)
        };
        match init {
            Init::Done => return Ok(()),
            Init::Implied | Init::Awaited if !failed => {
                self.call(call, Request::Dmades { mapped: true })?;
                self.dma().ring().init = Init::Done;
                return Ok(());
            }
            _ => {}
        }
        // For good: the library's own lock stays held after a failure.
        self.dma().ring().init_failed = true;
        Err(Error::refused(call, Errno::Ebusy))
    }

    /// From here on a post before [`Process::dma_init`] is what it is in C: undefined, and here the end of the process, with a
    /// message.
    pub fn await_dma_init(&self) {
        let mut ring = self.dma().ring();
        if ring.init == Init::Implied {
            ring.init = Init::Awaited;
        }
    }

    /// `ve_map_dmades`: descriptor table H for the program, with its control register. EBUSY: `ve_dma_init` or an earlier call has it.
    pub fn map_dmades(&self) -> Result<(Vehva, Vehva)> {
        let _order = self.state();
        self.call("ve_map_dmades", Request::Dmades { mapped: true })?;
        self.raw.lock()[1] = RawTable::default();
        self.dma().ring().init = Init::Taken;
        Ok((DMADES_H, DMA_CONTROL))
    }

    /// `ve_unmap_dmades`: halts table H and takes it out of VEHVA, whoever mapped it. EINVAL: not its address, or not mapped.
    pub fn unmap_dmades(&self, vehva: Vehva) -> Result<()> {
        let call = "ve_unmap_dmades";
        let _order = self.state();
        if vehva != DMADES_H {
            return Err(Error::refused(call, Errno::Einval));
        }
        self.call(call, Request::Dmades { mapped: false })?;
        self.dma().ring().init = Init::Awaited;
        Ok(())
    }

    /// Loads from fixed pages other than the first, which is ordinary memory; `None`: not one of them.
    pub(crate) fn load_fixed(&self, at: Vehva, dst: &mut [u8]) -> Option<Result<(), Fault>> {
        let raw = at.raw();
        let word = match raw {
            REGISTERS..DMA_CONTROL_END => self.register_word(raw),
            DMA_CONTROL_END..0x4000 => 0,
            0x4000..DMADES_END => match self.descriptor_word(raw) {
                Some(word) => word,
                None => return Some(Err(missing(at, Access::Read))),
            },
            _ => return None,
        };
        let from = usize::try_from(raw % 8).unwrap_or(0);
        for (to, byte) in dst.iter_mut().zip(word.to_le_bytes().iter().skip(from)) {
            *to = *byte;
        }
        Some(Ok(()))
    }

    /// Registers are zero but for DMA control.
    fn register_word(&self, raw: u64) -> u64 {
        let word = usize::from(raw % 16 >= 8);
        if raw == PCIRCVSYC.raw() {
            // All inbound requests received before have been performed.
            std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
            0
        } else if (DMA_CONTROL.raw()..DMA_CONTROL_E).contains(&raw) {
            if self.dma().ring().init == Init::Taken {
                [RUNNING, self.raw.lock()[1].read as u64][word]
            } else {
                self.dma().control_registers()[word]
            }
        } else if (DMA_CONTROL_E..DMA_CONTROL_END).contains(&raw) {
            [RUNNING, self.raw.lock()[0].read as u64][word]
        } else {
            0
        }
    }

    /// Word of a descriptor table; `None` if the table is not mapped.
    fn descriptor_word(&self, raw: u64) -> Option<u64> {
        let number = usize::try_from(raw % 0x1000 / 8).unwrap_or(0);
        if raw < DMADES_H.raw() {
            return self.raw.lock()[0].words.get(number).copied();
        }
        let init = self.dma().ring().init;
        match init {
            Init::Taken => self.raw.lock()[1].words.get(number).copied(),
            Init::Done => Some(self.dma().words(number / 4)[number % 4]),
            Init::Implied | Init::Awaited => None,
        }
    }

    /// Stores to fixed pages other than the first; `None`: not one of them. The ring of the library takes no stores but the library's.
    pub(crate) fn store_fixed(&self, at: Vehva, src: &[u8]) -> Option<Result<(), Fault>> {
        let raw = at.raw();
        if !(REGISTERS..DMADES_END).contains(&raw) {
            return None;
        }
        let which = match raw {
            0x4000..0x5000 => 0,
            0x5000.. if self.dma().ring().init == Init::Taken => 1,
            0x5000.. if self.dma().ring().init != Init::Done => {
                return Some(Err(missing(at, Access::Write)));
            }
            _ => {
                return Some(Err(Fault {
                    kind: FaultKind::MemoryProtection,
                    at,
                    access: Access::Write,
                }));
            }
        };
        if self.dma().loose {
            self.dma().settle_stores();
        }
        let strict = self.dma().ring().is_strict();
        let mut tables = self.raw.lock();
        let table = &mut tables[which];
        let number = usize::try_from(raw % 0x1000 / 8).unwrap_or(0);
        if let Some(word) = table.words.get_mut(number) {
            let mut bytes = word.to_le_bytes();
            let from = usize::try_from(raw % 8).unwrap_or(0);
            for (to, byte) in bytes.iter_mut().skip(from).zip(src) {
                *to = *byte;
            }
            *word = u64::from_le_bytes(bytes);
        }
        self.run(table, strict);
        Some(Ok(()))
    }

    /// The engine's part: executes what is prepared at the read pointer.
    fn run(&self, table: &mut RawTable, strict: bool) {
        while let Some(descriptor) = table.words.chunks_exact_mut(4).nth(table.read) {
            if descriptor[0] & 0xF != STATUS_PREPARED {
                return;
            }
            let transfer = Transfer {
                len: (descriptor[1] & 0xFFFF_FFFF) as u32,
                src: Vehva::new(descriptor[2]),
                dst: Vehva::new(descriptor[3]),
            };
            let exception = if descriptor[1] & TYPES != 0 {
                FaultKind::MemoryAccess.exception()
            } else {
                self.dma().check_transfer(transfer);
                let outcome = transfer.execute(self.table(), strict);
                if let (Err(fault), Some(trap)) = (outcome, self.dma().trap())
                    && let Some(rule) = transfer.blame(fault, "a descriptor of ve_map_dmades")
                {
                    trap.spring(rule);
                }
                outcome.map_or_else(|fault| fault.kind.exception(), |()| Exception::NONE)
            };
            descriptor[0] = u64::from(exception.bits()) << 48 | STATUS_COMPLETED;
            table.read = (table.read + 1) % DESCRIPTORS;
        }
    }
}

fn missing(at: Vehva, access: Access) -> Fault {
    Fault {
        kind: FaultKind::MissingPage,
        at,
        access,
    }
}
