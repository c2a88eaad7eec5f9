//! `vedma.h` and `userdma.h`: user-mode DMA (section 9).

use std::ffi::c_int;

/// What names a transfer from its post to its final result. The ring writes to it when a later post takes its descriptor
/// (section 9.3, step 3), so it must stay where it is until then.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the name of the C interface")]
pub struct ve_dma_handle_t {
    /// -1, or the final result once a later post has taken the descriptor.
    pub status: c_int,
    /// Number of its descriptor.
    pub index: c_int,
}

/// `status` of a handle whose result nobody has stored.
pub const PENDING: c_int = -1;

/// Exception bit: destination is write-protected.
pub const VE_DMA_MEMORY_PROTECTION: c_int = 0x8000;
/// Exception bit: a directory without an entry for the address.
pub const VE_DMA_MISSING_PAGE: c_int = 0x4000;
/// Exception bit: no directory covers the address.
pub const VE_DMA_MISSING_SPACE: c_int = 0x2000;
/// Exception bit: alignment, length, or no address at all.
pub const VE_DMA_MEMORY_ACCESS: c_int = 0x1000;
/// Exception bit: the PCIe answered with an error.
pub const VE_DMA_IO_ACCESS: c_int = 0x0800;
