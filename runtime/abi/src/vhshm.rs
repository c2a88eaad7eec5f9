//! `vhshm.h`: System V segments of the host, from a VE process (section 7).
//!
//! Its functions take the flags of `sys/shm.h` (section 3.5), which are the host's.

use std::ffi::c_int;

/// Segments of huge pages.
pub const SHM_HUGETLB: c_int = 0x800;
/// Read-only attachment.
pub const SHM_RDONLY: c_int = 0x1000;
