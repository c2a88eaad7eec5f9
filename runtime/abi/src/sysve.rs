//! `libsysve.h`: registers that a VE process may ask for (sections 2.2, 3.3 and 8).

/// Fixed region: system common registers, page 0.
pub const VE_FIXED_COMMON_REGISTERS_0: u64 = 0;
/// Fixed region: system common registers, page 1.
pub const VE_FIXED_COMMON_REGISTERS_1: u64 = 1;
/// Fixed region: DMA control words.
pub const VE_FIXED_DMA_CONTROL_E: u64 = 4;
/// Fixed region: DMA descriptor table E.
pub const VE_FIXED_DMA_DESCRIPTORS_E: u64 = 5;

/// VEHVA of PCIRCVSYC: a load of it waits for inbound requests already received (section 8).
pub const VE_PCIRCVSYC: u64 = 0x1400;
