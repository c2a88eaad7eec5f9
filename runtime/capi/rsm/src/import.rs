//! Import segments: connections and windows (rsm 5.7, 5.8, 6).

use std::ffi::{c_int, c_uint, c_void};

use libc::off_t;
use windlass_abi::rsm::{rsm_memseg_import_handle_t, rsmapi_controller_handle_t};
use windlass_mem::view::Spot;
use windlass_rsm::{Code, Import};

use crate::edge::{call, place, store};
use crate::table::{self, Handle};

/// `int rsm_memseg_import_connect(rsmapi_controller_handle_t controller, rsm_node_id_t node_id, rsm_memseg_id_t segment_id,
/// rsm_permission_t perm, rsm_memseg_import_handle_t *im_memseg)` (section 5.7).
///
/// # Safety
/// `im_memseg` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_connect(
    controller: rsmapi_controller_handle_t,
    node_id: u32,
    segment_id: u32,
    perm: u32,
    im_memseg: *mut rsm_memseg_import_handle_t,
) -> c_int {
    call(|| {
        table::check_controller(controller)?;
        let at = place(im_memseg, Code::BadSegHndl)?;
        let controller = table::controller(controller)?;
        let import = Import::connect(&controller, node_id, segment_id, perm)?;
        let token = table::insert(Handle::Import(import))?;
        // SAFETY: the caller's promise.
        unsafe { store(at, token) };
        Ok(())
    })
}

/// `int rsm_memseg_import_disconnect(rsm_memseg_import_handle_t im_memseg)` (section 5.8).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_memseg_import_disconnect(im_memseg: rsm_memseg_import_handle_t) -> c_int {
    call(|| {
        table::import(im_memseg)?.disconnect()?;
        // Another thread may have been faster.
        drop(table::remove(im_memseg));
        Ok(())
    })
}

/// `int rsm_memseg_import_map(rsm_memseg_import_handle_t im_memseg, void **address, rsm_attribute_t attr,
/// rsm_permission_t perm, off_t offset, size_t length)` (section 6.1).
///
/// # Safety
/// `address` is null or the caller's to be read and written. With RSM_MAP_FIXED what is mapped there may be replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_map(
    im_memseg: rsm_memseg_import_handle_t,
    address: *mut *mut c_void,
    attr: c_uint,
    perm: u32,
    offset: off_t,
    length: usize,
) -> c_int {
    call(|| {
        let import = table::import(im_memseg)?;
        let at = place(address, Code::BadAddr)?;
        // SAFETY: the caller's promises.
        let spot = unsafe { Spot::new(at.read_unaligned().expose_provenance()) };
        let mapped = import.map(attr, spot, perm, offset, length)?;
        // SAFETY: the caller's promise.
        unsafe { store(at, std::ptr::with_exposed_provenance_mut(mapped)) };
        Ok(())
    })
}

/// `int rsm_memseg_import_unmap(rsm_memseg_import_handle_t im_memseg)` (section 6.2).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_memseg_import_unmap(im_memseg: rsm_memseg_import_handle_t) -> c_int {
    call(|| table::import(im_memseg)?.unmap())
}
