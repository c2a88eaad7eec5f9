//! `libsysve.h` and `userdma.h`: registers, fixed pages, and descriptor table H in the program's own hands (ve-memory sections 2.2, 8, 9).

use std::ffi::c_int;

use crate::edge::{call, store};
use crate::seat::seat;

/// `int ve_get_pci_sync(uint8_t number, uint64_t *pcisyar, uint64_t *pcisymr)` (section 8).
///
/// # Safety
/// Each pointer is null, not mapped, or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ve_get_pci_sync(
    number: u8,
    pcisyar: *mut u64,
    pcisymr: *mut u64,
) -> c_int {
    call(-1, || {
        let (address, mask) = seat()?.process.get_pci_sync(number)?;
        store(pcisyar, address)?;
        store(pcisymr, mask)?;
        Ok(0)
    })
}

/// `int ve_get_fixed_vehva(uint64_t region, uint64_t *vehva)` (sections 2.2 and 3.3).
///
/// # Safety
/// `vehva` is null, not mapped, or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ve_get_fixed_vehva(region: u64, vehva: *mut u64) -> c_int {
    call(-1, || {
        let at = seat()?.process.get_fixed_vehva(region)?;
        store(vehva, at.raw())?;
        Ok(0)
    })
}

/// `int ve_map_dmades(uint64_t *vehva_desc, uint64_t *vehva_ctl)`.
///
/// # Safety
/// Each pointer is null, not mapped, or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ve_map_dmades(vehva_desc: *mut u64, vehva_ctl: *mut u64) -> c_int {
    call(-1, || {
        let process = &seat()?.process;
        let (descriptors, control) = process.map_dmades()?;
        let stored =
            store(vehva_desc, descriptors.raw()).and_then(|()| store(vehva_ctl, control.raw()));
        if let Err(refused) = stored {
            // As after a failed `vh_shmat`.
            let _ = process.unmap_dmades(descriptors);
            return Err(refused);
        }
        Ok(0)
    })
}

/// `int ve_unmap_dmades(uint64_t vehva_desc)`.
#[unsafe(no_mangle)]
pub extern "C" fn ve_unmap_dmades(vehva_desc: u64) -> c_int {
    call(-1, || {
        let at = windlass_ve::Vehva::new(vehva_desc);
        seat()?.process.unmap_dmades(at)?;
        Ok(0)
    })
}
