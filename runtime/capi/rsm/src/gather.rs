//! Lists of transfers (rsm 7.2).

use std::ffi::{c_int, c_ulong};

use windlass_abi::rsm::{
    RSM_HANDLE_TYPE, RSM_IMPLICIT_SIGPOST, RSM_MAX_SGIOREQS, RSM_SIGPOST_NO_ACCUMULATE,
    RSM_VA_TYPE, rsm_iovec_t, rsm_scat_gath_t,
};
use windlass_rsm::{Code, Way};

use crate::edge::{Answer, call, place};
use crate::table;
use crate::transfer;

/// `int rsm_memseg_import_getv(rsm_scat_gath_t *sg_io)` (section 7.2).
///
/// # Safety
/// `sg_io` is null or the caller's, with what it points to; local memory of its entries is the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_getv(sg_io: *mut rsm_scat_gath_t) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { run(sg_io, Way::Get) })
}

/// `int rsm_memseg_import_putv(rsm_scat_gath_t *sg_io)` (section 7.2).
///
/// # Safety
/// `sg_io` is null or the caller's, with what it points to; local memory of its entries is the caller's to be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_putv(sg_io: *mut rsm_scat_gath_t) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { run(sg_io, Way::Put) })
}

/// # Safety
/// As of the functions.
unsafe fn run(sg_io: *mut rsm_scat_gath_t, way: Way) -> Answer<()> {
    let at = place(sg_io, Code::BadSgio)?;
    // SAFETY: the caller's promise.
    let list = unsafe { at.read_unaligned() };
    let import = table::import(list.remote_handle)?;
    let count = list.io_request_count;
    if count == 0 || count > RSM_MAX_SGIOREQS || list.iovec.is_null() {
        return Err(Code::BadSgio);
    }
    // SAFETY: so many entries are there by the caller's promise.
    let entry = |index: c_ulong| unsafe { list.iovec.add(index as usize).read_unaligned() };
    let entries: Vec<rsm_iovec_t> = (0..count).map(entry).collect();
    let locals: Vec<Local> = entries.iter().map(Local::of).collect::<Answer<_>>()?;
    // SAFETY: the caller's promise.
    let residual =
        |left: c_ulong| unsafe { (&raw mut (*at).io_residual_count).write_unaligned(left) };
    residual(count);
    if import.is_aborted() {
        return Err(Code::ConnAborted);
    }
    for (done, (entry, local)) in (1..).zip(entries.iter().zip(&locals)) {
        let len = entry.transfer_length;
        let local = || local.range(entry.local_offset, len);
        // SAFETY: the caller's promise.
        unsafe { transfer::entry(&import, way, entry.remote_offset, len, local) }?;
        residual(count - done);
    }
    if list.flags & RSM_IMPLICIT_SIGPOST != 0 {
        import.post(list.flags & RSM_SIGPOST_NO_ACCUMULATE != 0)?;
    }
    Ok(())
}

/// Local memory of an entry.
enum Local {
    /// Of a handle: so many bytes.
    Handle { addr: usize, len: usize },
    /// Without an end.
    Address(*mut u8),
}

impl Local {
    fn of(entry: &rsm_iovec_t) -> Answer<Self> {
        match entry.io_type {
            RSM_HANDLE_TYPE => {
                // SAFETY: every bit pattern is a value of either part.
                let handle = unsafe { entry.local.handle };
                let (addr, len) = table::local(handle).ok_or(Code::BadSgio)?;
                Ok(Self::Handle { addr, len })
            }
            // SAFETY: as above.
            RSM_VA_TYPE => Ok(Self::Address(unsafe { entry.local.vaddr }.cast())),
            _ => Err(Code::BadSgio),
        }
    }

    fn range(&self, offset: usize, wanted: usize) -> Answer<*mut u8> {
        match *self {
            Self::Handle { len, .. } if offset > len => Err(Code::BadOffset),
            Self::Handle { len, .. } if wanted > len - offset => Err(Code::BadLength),
            Self::Handle { addr, .. } => Ok(std::ptr::with_exposed_provenance_mut(addr + offset)),
            Self::Address(addr) if addr.is_null() => Err(Code::BadAddr),
            Self::Address(addr) => Ok(addr.wrapping_add(offset)),
        }
    }
}
