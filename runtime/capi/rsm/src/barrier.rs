//! Barriers (rsm 7.3). A barrier is known by its address; what is in it says whether it is that one.

use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use windlass_abi::rsm::{rsm_memseg_import_handle_t, rsmapi_barrier_t};
use windlass_rsm::{Barrier, Code};

use crate::edge::{Answer, call, place, store};
use crate::table;

/// `int rsm_memseg_import_init_barrier(rsm_memseg_import_handle_t im_memseg, rsm_barrier_type_t type,
/// rsmapi_barrier_t *barrier)` (section 7.3).
///
/// # Safety
/// `barrier` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_init_barrier(
    im_memseg: rsm_memseg_import_handle_t,
    kind: c_uint,
    barrier: *mut rsmapi_barrier_t,
) -> c_int {
    call(|| {
        let import = table::import(im_memseg)?;
        let at = place(barrier, Code::BadBarrierPtr)?;
        let made = Arc::new(Barrier::init(&import, kind)?);
        let shown = rsmapi_barrier_t {
            seg: im_memseg,
            gnum: 0,
            privdata: private(&made),
        };
        let old = {
            let mut table = table::write();
            let barriers = table.barriers.get_or_insert_with(HashMap::new);
            barriers.insert(at.addr(), made)
        };
        // One that was there serves its connection no more; not under the table's lock.
        drop(old);
        // SAFETY: the caller's promise.
        unsafe { store(at, shown) };
        Ok(())
    })
}

fn private(barrier: &Barrier) -> *mut c_void {
    std::ptr::without_provenance_mut(barrier.name() as usize)
}

/// # Safety
/// `barrier` is null or the caller's to be read.
unsafe fn find(barrier: *mut rsmapi_barrier_t) -> Answer<Arc<Barrier>> {
    let at = place(barrier, Code::BadBarrierPtr)?;
    let found = table::barrier(at.addr()).ok_or(Code::BarrierUninitialized)?;
    // SAFETY: the caller's promise.
    let shown = unsafe { at.read_unaligned() };
    match shown.privdata == private(&found) {
        true => Ok(found),
        false => Err(Code::BarrierUninitialized),
    }
}

/// `int rsm_memseg_import_open_barrier(rsmapi_barrier_t *barrier)` (section 7.3).
///
/// # Safety
/// `barrier` is null or the caller's to be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_open_barrier(barrier: *mut rsmapi_barrier_t) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { find(barrier) }?.open())
}

/// `int rsm_memseg_import_order_barrier(rsmapi_barrier_t *barrier)` (section 7.3).
///
/// # Safety
/// `barrier` is null or the caller's to be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_order_barrier(barrier: *mut rsmapi_barrier_t) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { find(barrier) }?.order())
}

/// `int rsm_memseg_import_close_barrier(rsmapi_barrier_t *barrier)` (section 7.3).
///
/// # Safety
/// `barrier` is null or the caller's to be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_close_barrier(barrier: *mut rsmapi_barrier_t) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { find(barrier) }?.close())
}

/// `int rsm_memseg_import_destroy_barrier(rsmapi_barrier_t *barrier)` (section 7.3).
///
/// # Safety
/// `barrier` is null or the caller's to be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_destroy_barrier(
    barrier: *mut rsmapi_barrier_t,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let found = unsafe { find(barrier) }?;
        let removed = {
            let mut table = table::write();
            let barriers = table.barriers.as_mut();
            barriers.and_then(|barriers| barriers.remove(&barrier.addr()))
        };
        removed.ok_or(Code::BarrierUninitialized)?;
        found.destroy();
        Ok(())
    })
}

/// `int rsm_memseg_import_set_mode(rsm_memseg_import_handle_t im_memseg, rsm_barrier_mode_t mode)` (section 7.3).
#[unsafe(no_mangle)]
pub extern "C" fn rsm_memseg_import_set_mode(
    im_memseg: rsm_memseg_import_handle_t,
    mode: c_uint,
) -> c_int {
    call(|| table::import(im_memseg)?.set_mode(mode))
}

/// `int rsm_memseg_import_get_mode(rsm_memseg_import_handle_t im_memseg, rsm_barrier_mode_t *mode)` (section 7.3).
///
/// # Safety
/// `mode` is null or the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_get_mode(
    im_memseg: rsm_memseg_import_handle_t,
    mode: *mut c_uint,
) -> c_int {
    call(|| {
        let import = table::import(im_memseg)?;
        let at = place(mode, Code::BadAddr)?;
        // SAFETY: the caller's promise.
        unsafe { store(at, import.mode()) };
        Ok(())
    })
}
