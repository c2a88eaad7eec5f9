//! Export segments (rsm 5.2 to 5.6).

use std::ffi::{c_int, c_longlong, c_uint, c_void};

use windlass_abi::rsm::{
    rsm_memseg_export_handle_t, rsmapi_access_entry_t, rsmapi_controller_handle_t,
};
use windlass_mem::reback::place::Movable;
use windlass_rsm::{AccessEntry, Code, Export};

use crate::controller::page_size;
use crate::edge::{Answer, call, is_readable, place, store};
use crate::table::{self, Handle};

/// `int rsm_memseg_export_create(rsmapi_controller_handle_t controller, rsm_memseg_export_handle_t *memseg, void *vaddr,
/// size_t size, uint_t flags)` (section 5.2).
///
/// # Safety
/// `memseg` is null or the caller's to be written. Nobody unmaps or remaps the memory during a call for the segment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_export_create(
    controller: rsmapi_controller_handle_t,
    memseg: *mut rsm_memseg_export_handle_t,
    vaddr: *mut c_void,
    size: usize,
    flags: c_uint,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let made = unsafe { create(controller, memseg, vaddr, size, flags) };
        let token = made.as_ref().map_or(std::ptr::null_mut(), |token| *token);
        if !memseg.is_null() {
            // SAFETY: the caller's promise.
            unsafe { store(memseg, token) };
        }
        made.map(drop)
    })
}

/// # Safety
/// As of [`rsm_memseg_export_create`].
unsafe fn create(
    controller: rsmapi_controller_handle_t,
    memseg: *mut rsm_memseg_export_handle_t,
    vaddr: *mut c_void,
    size: usize,
    flags: c_uint,
) -> Answer<rsm_memseg_export_handle_t> {
    table::check_controller(controller)?;
    place(memseg, Code::BadSegHndl)?;
    place(vaddr, Code::BadAddr)?;
    if size == 0 {
        return Err(Code::BadLength);
    }
    let page = page_size();
    if !vaddr.addr().is_multiple_of(page) || !size.is_multiple_of(page) {
        return Err(Code::BadMemAlignment);
    }
    let controller = table::controller(controller)?;
    // SAFETY: the caller's promise; C code accesses the memory as it does any.
    let memory = unsafe { Movable::new(vaddr.expose_provenance(), size) };
    let export = Export::create(&controller, memory, flags)?;
    table::insert(Handle::Export(export))
}

/// `int rsm_memseg_export_destroy(rsm_memseg_export_handle_t memseg)` (section 5.3).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_memseg_export_destroy(memseg: rsm_memseg_export_handle_t) -> c_int {
    call(|| {
        table::export(memseg)?.destroy()?;
        // Another thread may have been faster.
        drop(table::remove(memseg));
        Ok(())
    })
}

/// `int rsm_memseg_export_rebind(rsm_memseg_export_handle_t memseg, void *vaddr, offset_t off, size_t size)` (section 5.4).
///
/// # Safety
/// Nobody unmaps or remaps the memory during a call for the segment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_export_rebind(
    memseg: rsm_memseg_export_handle_t,
    vaddr: *mut c_void,
    _off: c_longlong,
    size: usize,
) -> c_int {
    call(|| {
        let export = table::export(memseg)?;
        place(vaddr, Code::BadAddr)?;
        // SAFETY: the caller's promise; C code accesses the memory as it does any.
        let memory = unsafe { Movable::new(vaddr.expose_provenance(), size) };
        export.rebind(memory)
    })
}

/// `int rsm_memseg_export_publish(rsm_memseg_export_handle_t memseg, rsm_memseg_id_t *segment_id,
/// rsmapi_access_entry_t access_list[], uint_t access_list_length)` (section 5.5).
///
/// # Safety
/// `segment_id` is null or the caller's to be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_export_publish(
    memseg: rsm_memseg_export_handle_t,
    segment_id: *mut u32,
    access_list: *const rsmapi_access_entry_t,
    access_list_length: c_uint,
) -> c_int {
    call(|| {
        let at = place(segment_id, Code::BadSegid)?;
        let export = table::export(memseg)?;
        let count = count(access_list, access_list_length)?;
        // SAFETY: the caller's promise.
        let id = unsafe { at.read_unaligned() };
        export.check_publish(id, count)?;
        let list = list(access_list, count)?;
        let given = export.publish(id, list.as_deref())?;
        // SAFETY: the caller's promise.
        unsafe { store(at, given) };
        Ok(())
    })
}

/// `int rsm_memseg_export_republish(rsm_memseg_export_handle_t memseg, rsmapi_access_entry_t access_list[],
/// uint_t access_list_length)` (section 5.6).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_memseg_export_republish(
    memseg: rsm_memseg_export_handle_t,
    access_list: *const rsmapi_access_entry_t,
    access_list_length: c_uint,
) -> c_int {
    call(|| {
        let export = table::export(memseg)?;
        export.check_republish(0).or_else(|code| match code {
            // Tested after the list.
            Code::NotCreator => Ok(()),
            code => Err(code),
        })?;
        let count = count(access_list, access_list_length)?;
        export.check_republish(count)?;
        export.republish(list(access_list, count)?.as_deref())
    })
}

/// `int rsm_memseg_export_unpublish(rsm_memseg_export_handle_t memseg)` (section 5.6).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_memseg_export_unpublish(memseg: rsm_memseg_export_handle_t) -> c_int {
    call(|| table::export(memseg)?.unpublish())
}

/// Lines of a list that is there.
fn count(list: *const rsmapi_access_entry_t, length: c_uint) -> Answer<usize> {
    match length {
        0 => Ok(0),
        _ if list.is_null() => Err(Code::BadAcl),
        length => Ok(length as usize),
    }
}

/// `None` without lines.
fn list(list: *const rsmapi_access_entry_t, count: usize) -> Answer<Option<Vec<AccessEntry>>> {
    if count == 0 {
        return Ok(None);
    }
    if !is_readable(list.cast(), count * size_of::<rsmapi_access_entry_t>()) {
        return Err(Code::BadAddr);
    }
    let entry = |index| {
        // SAFETY: the kernel has just read there; that nobody unmaps it meanwhile is what the caller says by passing it.
        let found = unsafe { list.add(index).read_unaligned() };
        AccessEntry {
            node: found.ae_node,
            permission: found.ae_permission,
        }
    };
    Ok(Some((0..count).map(entry).collect()))
}
