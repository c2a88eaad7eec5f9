//! Local memory regions (sections 4.2 and 4.3).

use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use windlass_abi::dat::{self, LmrParam, RegionDescription, Return, Triplet};
use windlass_dat::{Error, Lmr, Privileges, Pz, Region, Result, Subtype, VaType, access};
use windlass_mem::SharedBytes;

use crate::attributes::LMRS_MAX;
use crate::edge::{NOT_SUPPORTED, edge, load, local, required, store};
use crate::handle::{self, Handle, Held};
use crate::ia::IaObject;
use crate::registry::consumers;

/// A region and what it was created with.
pub(crate) struct LmrObject {
    pub(crate) lmr: Lmr,
    pz: Handle,
    mem_type: u32,
    region: RegionDescription,
    length: u64,
    /// As asked for.
    pub(crate) privileges: Privileges,
    va_type: u32,
}

// SAFETY: the description's pointers are kept for queries and never followed.
unsafe impl Send for LmrObject {}
// SAFETY: as for `Send`.
unsafe impl Sync for LmrObject {}

pub(crate) fn va_type(va_type: u32) -> Result<VaType> {
    match va_type {
        dat::VA_TYPE_VA => Ok(VaType::Virtual),
        dat::VA_TYPE_ZB => Ok(VaType::ZeroBased),
        _ => Err(NOT_SUPPORTED),
    }
}

/// The caller's memory, if it may be used this way.
///
/// # Safety
/// The caller of `dat_lmr_create` keeps the range mapped while it is registered (udapl.md section 4.2).
unsafe fn memory(start: usize, length: u64, privileges: Privileges) -> Result<SharedBytes> {
    let addr = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(start));
    let addr = addr.ok_or(Error::arg(Subtype::Arg3))?;
    let len = usize::try_from(length).ok().filter(|len| *len > 0);
    let len = len.ok_or(Error::arg(Subtype::Arg4))?;
    if start.checked_add(len).is_none() || isize::try_from(len).is_err() {
        return Err(Error::arg(Subtype::Arg4));
    }
    let access = access(start, len);
    let stores = Privileges::LOCAL_WRITE | Privileges::REMOTE_WRITE | Privileges::REMOTE_ATOMIC;
    if !access.readable || (privileges.intersects(stores) && !access.writable) {
        return Err(Error::arg(Subtype::Arg3));
    }
    // SAFETY: the range is mapped and readable (just seen), stays so by the caller's promise, and is written only with a
    // privilege that was refused for what may not be written; C has no references to it.
    Ok(unsafe { windlass_mem::borrow(addr, len) })
}

/// What of the description its memory type names.
enum Wanted {
    Virtual(usize),
    Lmr(Held<LmrObject>),
    Shared(usize, [u8; dat::LMR_COOKIE_SIZE]),
}

/// # Safety
/// The description is the caller's, of this memory type; an id is readable.
unsafe fn wanted(mem_type: u32, region: &RegionDescription, ia: Handle) -> Result<Wanted> {
    match mem_type {
        // SAFETY: the member of this type; any bits are a pointer, which is not followed here.
        dat::MEM_TYPE_VIRTUAL => Ok(Wanted::Virtual(
            unsafe { region.for_va }.expose_provenance(),
        )),
        dat::MEM_TYPE_LMR => {
            // SAFETY: the member of this type; a handle is never followed.
            let handle = unsafe { region.for_lmr_handle };
            Ok(Wanted::Lmr(handle::get_of::<LmrObject>(handle, ia)?))
        }
        _ => {
            // SAFETY: the member of this type; any bits are two pointers.
            let shared = unsafe { region.for_shared_memory };
            // SAFETY: null or 40 readable bytes, by the caller's promise.
            let id = unsafe { load(shared.shared_memory_id.cast_const(), Subtype::Arg3) }?;
            Ok(Wanted::Shared(
                shared.virtual_address.expose_provenance(),
                id,
            ))
        }
    }
}

pub(crate) unsafe extern "C" fn lmr_create(
    ia: dat::Handle,
    mem_type: u32,
    region: RegionDescription,
    length: u64,
    pz: dat::Handle,
    privileges: u32,
    va: u32,
    place: *mut dat::Handle,
    lmr_context: *mut u32,
    rmr_context: *mut u32,
    registered_size: *mut u64,
    registered_address: *mut u64,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        let zone = handle::get_of::<Pz>(pz, ia.ia())?;
        required(place, Subtype::Arg7)?;
        if mem_type > dat::MEM_TYPE_SHARED_VIRTUAL {
            return Err(Error::arg(Subtype::Arg2));
        }
        let kind = va_type(va)?;
        let rights = Privileges::from_bits(privileges).ok_or(Error::arg(Subtype::Arg6))?;
        if rights.contains(Privileges::REMOTE_WRITE) && !rights.contains(Privileges::LOCAL_WRITE) {
            return Err(Error::arg(Subtype::Arg6));
        }
        // SAFETY: the caller's description.
        let wanted = unsafe { wanted(mem_type, &region, ia.ia()) }?;
        // SAFETY: the caller keeps what it registers mapped.
        let own = |start| unsafe { memory(start, length, rights) };
        let part = match &wanted {
            Wanted::Virtual(start) => Region::Virtual(own(*start)?),
            Wanted::Lmr(lmr) => Region::Lmr(&lmr.lmr),
            Wanted::Shared(start, id) => Region::SharedVirtual(own(*start)?, *id),
        };
        ia.counts
            .add(dat::HANDLE_TYPE_LMR, LMRS_MAX, Subtype::MemoryRegion)?;
        // Programs send from memory they registered for writing only: no stock provider denies a local read (section 4.7).
        let lmr = Lmr::create(part, &zone, rights | Privileges::LOCAL_READ, kind)
            .inspect_err(|_| ia.counts.remove(dat::HANDLE_TYPE_LMR))?;
        let (context, remote) = (lmr.context(), lmr.rmr_context());
        let (size, address) = (lmr.len_bytes(), lmr.address());
        let object = LmrObject {
            lmr,
            pz: pz.into(),
            mem_type,
            region,
            length: size,
            privileges: rights,
            va_type: va,
        };
        let handle = handle::add(&ia, object);
        // SAFETY: each is null or a place of the caller; the handle's is not null.
        unsafe {
            store(place, handle.to_c());
            store(lmr_context, context);
            store(rmr_context, remote);
            store(registered_size, size);
            store(registered_address, address);
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn lmr_query(
    lmr: dat::Handle,
    mask: u32,
    place: *mut LmrParam,
) -> Return {
    const ALL: u32 = 0x7FF;
    edge(|| {
        let held = handle::get::<LmrObject>(lmr)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let param = LmrParam {
            ia_handle: consumers(held.ia()),
            mem_type: held.mem_type,
            region_desc: held.region,
            length: held.length,
            pz_handle: held.pz.to_c(),
            mem_priv: held.privileges.bits(),
            va_type: held.va_type,
            lmr_context: held.lmr.context(),
            rmr_context: held.lmr.rmr_context(),
            registered_size: held.lmr.len_bytes(),
            registered_address: held.lmr.address(),
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn lmr_free(lmr: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<LmrObject>(lmr)?;
        held.lmr.free()?;
        let ia = handle::get::<IaObject>(held.ia())?;
        handle::remove(lmr);
        ia.counts.remove(dat::HANDLE_TYPE_LMR);
        Ok(())
    })
}

/// Every segment must lie in a region of the adapter.
///
/// # Safety
/// `segments` is null or has `count` readable triplets.
unsafe fn check(ia: dat::Handle, segments: *const Triplet, count: u64) -> Result<()> {
    let ia = handle::get::<IaObject>(ia)?;
    let count = usize::try_from(count).map_err(|_| Error::arg(Subtype::Arg3))?;
    for index in 0..count {
        if segments.is_null() {
            return Err(Error::arg(Subtype::Arg2));
        }
        // SAFETY: not null, so `index < count` triplets are readable by the caller's promise.
        let triplet = unsafe { load(segments.wrapping_add(index), Subtype::Arg2) }?;
        ia.ia.check_segment(&local(&triplet))?;
    }
    Ok(())
}

pub(crate) unsafe extern "C" fn lmr_sync_rdma_read(
    ia: dat::Handle,
    segments: *const Triplet,
    count: u64,
) -> Return {
    edge(|| {
        // SAFETY: the caller's segments.
        unsafe { check(ia, segments, count) }?;
        fence(Ordering::Release); // what was stored before is what the helper thread reads
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn lmr_sync_rdma_write(
    ia: dat::Handle,
    segments: *const Triplet,
    count: u64,
) -> Return {
    edge(|| {
        // SAFETY: the caller's segments.
        unsafe { check(ia, segments, count) }?;
        fence(Ordering::Acquire); // what the helper thread has stored is what is read after
        Ok(())
    })
}
