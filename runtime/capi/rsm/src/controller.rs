//! Controllers, and local memory for lists of transfers (rsm 5.1, 7.2).

use std::ffi::{CStr, c_char, c_int};

use windlass_abi::rsm::{
    rsm_localmemory_handle_t, rsmapi_controller_attr_t, rsmapi_controller_handle_t,
};
use windlass_rsm::{Code, Scope};

use crate::edge::{Answer, call, place, store};
use crate::table::{self, Handle, Open};

/// `int rsm_get_controller(char *name, rsmapi_controller_handle_t *controller)` (section 5.1).
///
/// # Safety
/// `name` is null or a string; `controller` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_get_controller(
    name: *mut c_char,
    controller: *mut rsmapi_controller_handle_t,
) -> c_int {
    call(|| {
        let at = place(controller, Code::BadCtlrHndl)?;
        // SAFETY: the caller's promise.
        let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_bytes());
        let token = get(Scope::of(name)?)?;
        // SAFETY: the caller's promise.
        unsafe { store(at, token) };
        Ok(())
    })
}

fn get(scope: Scope) -> Answer<rsmapi_controller_handle_t> {
    let found = crate::seat::controller(scope)?;
    let mut table = table::write();
    let token = table.controllers.iter().find(|(other, _)| *other == scope);
    if let Some(&(_, token)) = token {
        let token = std::ptr::without_provenance_mut(token);
        if let Some(Handle::Controller(open)) = table.find(token) {
            open.count += 1;
            open.controller = Some(found);
            return Ok(token);
        }
    }
    let open = Open {
        scope,
        controller: Some(found),
        count: 1,
    };
    let token = table.insert(Handle::Controller(open))?;
    table.controllers.push((scope, token.addr()));
    Ok(token)
}

/// `int rsm_get_controller_attr(rsmapi_controller_handle_t chdl, rsmapi_controller_attr_t *attr)` (section 5.1).
///
/// # Safety
/// `attr` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_get_controller_attr(
    chdl: rsmapi_controller_handle_t,
    attr: *mut rsmapi_controller_attr_t,
) -> c_int {
    call(|| {
        table::check_controller(chdl)?;
        let at = place(attr, Code::BadAddr)?;
        let found = table::controller(chdl)?.attributes()?;
        let attributes = rsmapi_controller_attr_t {
            attr_direct_access_sizes: found.direct_access_sizes,
            attr_atomic_sizes: found.atomic_sizes,
            attr_page_size: found.page_size,
            attr_max_export_segment_size: found.max_export_segment_size,
            attr_tot_export_segment_size: found.max_export_segment_size,
            attr_max_export_segments: found.max_export_segments as _,
            attr_max_import_map_size: found.max_import_map_size,
            attr_tot_import_map_size: found.max_import_map_size,
            attr_max_import_segments: found.max_import_segments as _,
        };
        // SAFETY: the caller's promise.
        unsafe { store(at, attributes) };
        Ok(())
    })
}

/// `int rsm_release_controller(rsmapi_controller_handle_t controller)` (section 5.1).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_release_controller(controller: rsmapi_controller_handle_t) -> c_int {
    call(|| {
        let mut table = table::write();
        let Some(Handle::Controller(open)) = table.find(controller) else {
            return Err(Code::BadCtlrHndl);
        };
        open.count -= 1;
        if open.count > 0 {
            return Ok(());
        }
        let scope = open.scope;
        let (handles, barriers) = table.clear(scope);
        // Segments end by calls of the service, and export segments by moving memory: not under the table's lock.
        drop(table);
        drop((barriers, handles));
        Ok(())
    })
}

/// `int rsm_create_localmemory_handle(rsmapi_controller_handle_t handle, rsm_localmemory_handle_t *l_handle,
/// caddr_t local_vaddr, size_t length)` (section 7.2).
///
/// # Safety
/// `l_handle` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_create_localmemory_handle(
    handle: rsmapi_controller_handle_t,
    l_handle: *mut rsm_localmemory_handle_t,
    local_vaddr: *mut c_char,
    length: usize,
) -> c_int {
    call(|| {
        let addr = local_vaddr.addr();
        if addr == 0 || !addr.is_multiple_of(page_size()) {
            return Err(Code::BadAddr);
        }
        let scope = table::check_controller(handle)?;
        let at = place(l_handle, Code::BadLocalmemHndl)?;
        if length == 0 {
            return Err(Code::BadLength);
        }
        // Later an integer becomes a pointer again.
        let addr = local_vaddr.expose_provenance();
        let token = table::insert(Handle::Local {
            scope,
            addr,
            len: length,
        })?;
        // SAFETY: the caller's promise.
        unsafe { store(at, token) };
        Ok(())
    })
}

/// `int rsm_free_localmemory_handle(rsmapi_controller_handle_t handle, rsm_localmemory_handle_t l_handle)` (section 7.2).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_free_localmemory_handle(
    handle: rsmapi_controller_handle_t,
    l_handle: rsm_localmemory_handle_t,
) -> c_int {
    call(|| {
        table::check_controller(handle)?;
        let mut table = table::write();
        match table.find(l_handle) {
            Some(Handle::Local { .. }) => drop(table.remove(l_handle)),
            _ => return Err(Code::BadLocalmemHndl),
        }
        Ok(())
    })
}

pub(crate) fn page_size() -> usize {
    // SAFETY: the call has no conditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
