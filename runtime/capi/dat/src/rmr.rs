//! Remote memory regions (section 4.4).

use windlass_abi::dat::{self, Return, RmrParam, Triplet};
use windlass_dat::{Error, Privileges, Pz, Result, Rmr, RmrScope, Subtype, Type, VaType};

use crate::attributes::RMRS_MAX;
use crate::edge::{edge, flags, load, local, required, store};
use crate::ep::EpObject;
use crate::handle::{self, Handle};
use crate::ia::IaObject;
use crate::lmr::{LmrObject, va_type};
use crate::registry::consumers;

/// A window and its zone.
pub(crate) struct RmrObject {
    pub(crate) rmr: Rmr,
    pz: Handle,
}

/// # Safety
/// `place` is null or writable.
unsafe fn create(pz: dat::Handle, scope: RmrScope, place: *mut dat::Handle) -> Result<()> {
    let zone = handle::get::<Pz>(pz)?;
    required(place, Subtype::Arg2)?;
    let ia = handle::get::<IaObject>(zone.ia())?;
    ia.counts
        .add(dat::HANDLE_TYPE_RMR, RMRS_MAX, Subtype::MemoryRegion)?;
    let rmr = Rmr::create(&zone, scope).inspect_err(|_| ia.counts.remove(dat::HANDLE_TYPE_RMR))?;
    let name = rmr.name();
    let handle = handle::add(&ia, RmrObject { rmr, pz: pz.into() });
    ia.rmrs.set(name, handle);
    // SAFETY: a place of the caller, not null.
    unsafe { store(place, handle.to_c()) };
    Ok(())
}

pub(crate) unsafe extern "C" fn rmr_create(pz: dat::Handle, place: *mut dat::Handle) -> Return {
    // SAFETY: the caller's place.
    edge(|| unsafe { create(pz, RmrScope::Pz, place) })
}

pub(crate) unsafe extern "C" fn rmr_create_for_ep(
    pz: dat::Handle,
    place: *mut dat::Handle,
) -> Return {
    // SAFETY: the caller's place.
    edge(|| unsafe { create(pz, RmrScope::Ep, place) })
}

pub(crate) unsafe extern "C" fn rmr_query(
    rmr: dat::Handle,
    mask: u32,
    place: *mut RmrParam,
) -> Return {
    const ALL: u32 = 0x7F;
    edge(|| {
        let held = handle::get::<RmrObject>(rmr)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let state = held.rmr.query()?;
        let param = RmrParam {
            ia_handle: consumers(held.ia()),
            pz_handle: held.pz.to_c(),
            lmr_triplet: Triplet {
                virtual_address: state.segment.address,
                segment_length: state.segment.len,
                context: state.segment.context,
            },
            mem_priv: state.privileges.bits(),
            rmr_context: state.context,
            rmr_scope: match state.scope {
                RmrScope::Ep => 0,
                RmrScope::Pz => 1,
            },
            va_type: match state.va_type {
                VaType::Virtual => dat::VA_TYPE_VA,
                VaType::ZeroBased => dat::VA_TYPE_ZB,
            },
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn rmr_bind(
    rmr: dat::Handle,
    lmr: dat::Handle,
    triplet: *const Triplet,
    privileges: u32,
    va: u32,
    ep: dat::Handle,
    cookie: dat::Context,
    bits: u32,
    place: *mut u32,
) -> Return {
    edge(|| {
        let held = handle::get::<RmrObject>(rmr)?;
        let region = handle::get::<LmrObject>(lmr)?;
        let ep = handle::get::<EpObject>(ep)?;
        // SAFETY: a triplet of the caller, or null, which is refused.
        let segment = local(&unsafe { load(triplet, Subtype::Arg3) }?);
        let rights = Privileges::from_bits(privileges).ok_or(Error::arg(Subtype::Arg4))?;
        let reads = Privileges::REMOTE_READ | Privileges::REMOTE_ATOMIC;
        let hidden =
            rights.intersects(reads) && !region.privileges.contains(Privileges::LOCAL_READ);
        let va = va_type(va)?;
        let flags = flags(bits, Subtype::Arg8)?;
        required(place, Subtype::Arg9)?;
        if hidden && segment.len > 0 && ep.ep.may_post().is_ok() {
            return Err(Error::new(
                Type::PrivilegesViolation,
                Subtype::PrivilegesRead,
            ));
        }
        let context = held
            .rmr
            .bind(&region.lmr, segment, rights, va, &ep.ep, cookie, flags)?;
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, context) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn rmr_free(rmr: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<RmrObject>(rmr)?;
        held.rmr.free()?;
        let ia = handle::get::<IaObject>(held.ia())?;
        ia.rmrs.remove(held.rmr.name());
        handle::remove(rmr);
        ia.counts.remove(dat::HANDLE_TYPE_RMR);
        Ok(())
    })
}
