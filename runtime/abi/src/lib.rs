//! The C interfaces that Windlass offers or calls, stated once: types and constants, no code.
//!
//! One module per header; `veo` is libveo.so.1 and its five headers. The headers themselves are in `runtime/capi/include`.
//! `dat` is what libdat2 asks of a provider, `rsm` what is in `rsmapi.h`.
//! Names are those of the headers. Sections are those of `ve-memory.md`, in `dat` those of `udapl.md`, in `rsm` those of `rsm.md`.
#![forbid(unsafe_code)]

pub mod dat;
pub mod ofi;
pub mod rsm;
pub mod sysve;
pub mod vedma;
pub mod veo;
pub mod veshm;
pub mod vhshm;
