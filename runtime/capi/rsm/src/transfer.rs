//! Reads and writes of imported segments (rsm 7.1).

use std::ffi::{c_int, c_ulong, c_void};
use std::ptr::NonNull;

use libc::off_t;
use windlass_abi::rsm::rsm_memseg_import_handle_t;
use windlass_mem::SharedBytes;
use windlass_rsm::{Code, Import, Place, Way};

use crate::edge::{Answer, call};
use crate::table;

/// A transfer of `count` elements of `size` bytes.
///
/// # Safety
/// `local` is null or `count * size` bytes of the caller's, to be read, or for [`Way::Get`] written.
unsafe fn transfer(
    handle: rsm_memseg_import_handle_t,
    way: Way,
    offset: off_t,
    local: *mut u8,
    count: usize,
    size: usize,
) -> c_int {
    call(|| {
        let import = table::import(handle)?;
        if local.is_null() {
            return Err(Code::BadAddr);
        }
        if !local.addr().is_multiple_of(size) {
            return Err(Code::BadMemAlignment);
        }
        // SAFETY: the caller's promise.
        unsafe { run(&import, way, offset, count, size, || Ok(local)) }
    })
}

/// `local` says where, once the transfer was judged.
///
/// # Safety
/// As of [`transfer`], and not null.
#[inline]
unsafe fn run(
    import: &Import,
    way: Way,
    offset: off_t,
    count: usize,
    size: usize,
    local: impl FnOnce() -> Answer<*mut u8>,
) -> Answer<()> {
    let found = import.begin(way, offset, count, size)?;
    let local = local()?;
    match found.place {
        // SAFETY: the caller's promise.
        Place::Here(bytes) => unsafe { copy(&bytes, found.at, way, local, count, size) }?,
        Place::There => {
            let local = NonNull::new(local).ok_or(Code::BadAddr)?;
            // SAFETY: the caller's promise; C's buffers are no Rust references, and nothing of a transfer is left when it returns.
            let local = unsafe { windlass_mem::borrow(local, count * size) };
            return import.carry(way, found.at, &local);
        }
    }
    import.finish(way)
}

/// Bytes at once, wider elements by single accesses.
///
/// # Safety
/// As of [`transfer`], and not null.
unsafe fn copy(
    bytes: &SharedBytes,
    first: usize,
    way: Way,
    local: *mut u8,
    count: usize,
    size: usize,
) -> Answer<()> {
    let (steps, step) = match size {
        1 => (1, count),
        size => (count, size),
    };
    for index in 0..steps {
        let at = first + index * step;
        // SAFETY: `index * step` and `step` bytes more are at most `count * size`, the caller's promise; C's buffers are no Rust
        // references.
        let copied = unsafe {
            let local = local.add(index * step);
            match way {
                Way::Get => bytes.read_to(at, local, step),
                Way::Put => bytes.write_from(at, local, step),
            }
        };
        // Both ranges were found right before.
        copied.map_err(|_| Code::InternalError)?;
    }
    Ok(())
}

/// One entry of a list of transfers.
///
/// # Safety
/// As of [`transfer`]; `local` says where, once the transfer was judged.
pub(crate) unsafe fn entry(
    import: &Import,
    way: Way,
    offset: usize,
    len: usize,
    local: impl FnOnce() -> Answer<*mut u8>,
) -> Answer<()> {
    let offset = off_t::try_from(offset).map_err(|_| Code::BadOffset)?;
    // SAFETY: the caller's promise.
    unsafe { run(import, way, offset, len, 1, local) }
}

macro_rules! sized {
    ($($get:ident $put:ident $element:ty)*) => {
        $(
            #[doc = concat!("`int ", stringify!($get), "(rsm_memseg_import_handle_t, off_t, ", stringify!($element),
                " *, ulong_t)` (section 7.1).")]
            ///
            /// # Safety
            /// `datap` is null or `rep_cnt` elements of the caller's to be written.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $get(
                im_memseg: rsm_memseg_import_handle_t,
                offset: off_t,
                datap: *mut $element,
                rep_cnt: c_ulong,
            ) -> c_int {
                let size = size_of::<$element>();
                // SAFETY: the caller's promise.
                unsafe { transfer(im_memseg, Way::Get, offset, datap.cast(), rep_cnt as usize, size) }
            }

            #[doc = concat!("`int ", stringify!($put), "(rsm_memseg_import_handle_t, off_t, ", stringify!($element),
                " *, ulong_t)` (section 7.1).")]
            ///
            /// # Safety
            /// `datap` is null or `rep_cnt` elements of the caller's to be read.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $put(
                im_memseg: rsm_memseg_import_handle_t,
                offset: off_t,
                datap: *mut $element,
                rep_cnt: c_ulong,
            ) -> c_int {
                let size = size_of::<$element>();
                // SAFETY: the caller's promise.
                unsafe { transfer(im_memseg, Way::Put, offset, datap.cast(), rep_cnt as usize, size) }
            }
        )*
    };
}

sized! {
    rsm_memseg_import_get8 rsm_memseg_import_put8 u8
    rsm_memseg_import_get16 rsm_memseg_import_put16 u16
    rsm_memseg_import_get32 rsm_memseg_import_put32 u32
    rsm_memseg_import_get64 rsm_memseg_import_put64 u64
}

/// `int rsm_memseg_import_get(rsm_memseg_import_handle_t im_memseg, off_t offset, void *dst_addr, size_t length)` (section 7.1).
///
/// # Safety
/// `dst_addr` is null or `length` bytes of the caller's to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_get(
    im_memseg: rsm_memseg_import_handle_t,
    offset: off_t,
    dst_addr: *mut c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { transfer(im_memseg, Way::Get, offset, dst_addr.cast(), length, 1) }
}

/// `int rsm_memseg_import_put(rsm_memseg_import_handle_t im_memseg, off_t offset, void *src_addr, size_t length)` (section 7.1).
///
/// # Safety
/// `src_addr` is null or `length` bytes of the caller's to be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsm_memseg_import_put(
    im_memseg: rsm_memseg_import_handle_t,
    offset: off_t,
    src_addr: *mut c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { transfer(im_memseg, Way::Put, offset, src_addr.cast(), length, 1) }
}
