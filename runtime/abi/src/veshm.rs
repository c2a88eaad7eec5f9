//! `veshm.h`: VE shared memory (sections 3.1, 3.2 and 5).

use std::ffi::{c_int, c_longlong};

/// A mode flag.
pub type Mode = c_longlong;

/// Read-only area; part of its identity.
pub const VE_SHM_RO: Mode = 0x1;
/// The sync bit of the PCIATB slots; needs [`VE_REGISTER_PCI`]; part of the identity.
pub const VE_PCISYNC: Mode = 0x2;
/// The area is in the PCIATB; part of the identity.
pub const VE_REGISTER_PCI: Mode = 0x4;
/// VE3 only, needs [`VE_REGISTER_PCI`]; part of the identity.
pub const VE_MAP_256MB: Mode = 0x10;
/// Partial process swapping; needs [`VE_REGISTER_PCI`].
pub const VE_SWAPPABLE: Mode = 0x20;
/// Not in the PCIATB.
pub const VE_REGISTER_NONE: Mode = 0x1000;
/// Attach to the address space of loads and stores.
pub const VE_REGISTER_VEMVA: Mode = 0x2000;
/// Attach to the address space of DMA, LHM and SHM.
pub const VE_REGISTER_VEHVA: Mode = 0x4000;
/// The caller's own memory to its address space of DMA.
pub const VE_MEM_LOCAL: Mode = 0x8000;

/// Page-mode query: of the ATB entry at an address.
pub const VE_ADDR_VEMVA: Mode = 1;
/// Page-mode query: of the DMAATB entry at an address.
pub const VE_ADDR_VEHVA: Mode = 2;
/// Page-mode query: of the PCIATB of a process's VE.
pub const VE_ADDR_PCI: Mode = 4;

/// Answers of `ve_get_pgmode`: 4 KiB, 2 MiB, 64 MiB, 256 MiB.
pub const PAGE_SIZES: [c_int; 4] = [0x1000, 0x20_0000, 0x400_0000, 0x1000_0000];
