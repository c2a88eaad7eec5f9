//! The C interfaces that Windlass offers or calls, stated once: types and constants, no code.
//!
//! One module per header; `veo` is libveo.so.1 and its five headers. The headers themselves are in `runtime/capi/include`.
//! `dat` is what libdat2 asks of a provider.
//! Names are those of the headers. Sections are those of `ve-memory.md`, in `dat` those of `udapl.md`.
#![forbid(unsafe_code)]

pub mod dat;
pub mod ofi;
pub mod sysve;
pub mod vedma;
pub mod veo;
pub mod veshm;
pub mod vhshm;
