//! Service points and connection requests (section 4.6).

use std::ffi::c_void;

use windlass_abi::dat::{self, ConnQual, Count, CrParam, PspParam, Return, RspParam};
use windlass_dat::{At, Cr, Error, Psp, PspFlags, Result, Rsp, Subtype};

use crate::address::SockAddr;
use crate::attributes::POINTS_MAX;
use crate::edge::{NOT_IMPLEMENTED, bytes, edge, required, store, to_count};
use crate::ep::EpObject;
use crate::evd::EvdObject;
use crate::handle::{self, Handle, Held};
use crate::ia::IaObject;
use crate::registry::consumers;

/// A public service point and what it was made with.
pub(crate) struct PspObject {
    pub(crate) psp: Psp,
    evd: Handle,
    flags: u32,
}

/// A reserved one.
pub(crate) struct RspObject {
    rsp: Rsp,
    evd: Handle,
    ep: Handle,
}

/// A connection request, with what C may keep the address of.
pub(crate) struct CrObject {
    cr: Cr,
    peer: Box<SockAddr>,
    /// The endpoint that the service point brought.
    ep: Handle,
}

impl CrObject {
    /// A handle for a request that was taken out of a dispatcher.
    pub(crate) fn add(ia: &Held<IaObject>, cr: Cr) -> Result<Handle> {
        let peer = cr.from().map_or(SockAddr::none(), SockAddr::new);
        let ep = match (cr.take_ep(), cr.local_ep()) {
            (Some(made), _) => EpObject::add_made(ia, made)?,
            (None, Some(reserved)) => ia.eps.get(reserved),
            (None, None) => Handle::NULL,
        };
        let object = CrObject {
            cr,
            peer: Box::new(peer),
            ep,
        };
        Ok(handle::add(ia, object))
    }
}

fn psp_flags(flags: u32) -> Result<PspFlags> {
    match flags {
        dat::PSP_CONSUMER => Ok(PspFlags::Consumer),
        dat::PSP_PROVIDER => Ok(PspFlags::Provider),
        _ => Err(Error::arg(Subtype::Arg4)),
    }
}

/// A service point.
fn create(ia: &Held<IaObject>, evd: dat::Handle, at: At, flags: u32) -> Result<(Handle, ConnQual)> {
    let dispatcher = handle::get_or::<EvdObject>(evd, Subtype::EvdCr)?;
    let kind = psp_flags(flags)?;
    ia.counts
        .add(dat::HANDLE_TYPE_PSP, POINTS_MAX, Subtype::Memory)?;
    let psp = Psp::create_at(&dispatcher.evd, &ia.ia, at, kind)
        .inspect_err(|_| ia.counts.remove(dat::HANDLE_TYPE_PSP))?;
    let qualifier = psp.qualifier();
    let object = PspObject {
        psp,
        evd: evd.into(),
        flags,
    };
    let handle = handle::add(ia, object);
    ia.points.set(qualifier, handle);
    Ok((handle, qualifier))
}

pub(crate) unsafe extern "C" fn psp_create(
    ia: dat::Handle,
    qualifier: ConnQual,
    evd: dat::Handle,
    flags: u32,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        handle::get_or::<EvdObject>(evd, Subtype::EvdCr)?;
        psp_flags(flags)?;
        required(place, Subtype::Arg5)?;
        let (handle, _) = create(&ia, evd, At::Port(qualifier), flags)?;
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, handle.to_c()) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn psp_create_any(
    ia: dat::Handle,
    qualifier: *mut ConnQual,
    evd: dat::Handle,
    flags: u32,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        required(qualifier, Subtype::Arg2)?;
        required(place, Subtype::Arg5)?;
        let (handle, chosen) =
            create(&ia, evd, At::AnyPort, flags).map_err(|error| match error.kind {
                windlass_dat::Type::ConnQualInUse => {
                    Error::new(windlass_dat::Type::ConnQualUnavailable, Subtype::None)
                }
                _ => error,
            })?;
        // SAFETY: places of the caller, not null.
        unsafe {
            store(qualifier, chosen);
            store(place, handle.to_c());
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn psp_query(
    psp: dat::Handle,
    mask: u32,
    place: *mut PspParam,
) -> Return {
    const ALL: u32 = 0xF;
    edge(|| {
        let held = handle::get::<PspObject>(psp)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let param = PspParam {
            ia_handle: consumers(held.ia()),
            conn_qual: held.psp.qualifier(),
            evd_handle: held.evd.to_c(),
            psp_flags: held.flags,
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn psp_free(psp: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<PspObject>(psp)?;
        held.psp.free()?;
        let ia = handle::get::<IaObject>(held.ia())?;
        ia.points.remove(held.psp.qualifier());
        handle::remove(psp);
        ia.counts.remove(dat::HANDLE_TYPE_PSP);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn rsp_create(
    ia: dat::Handle,
    qualifier: ConnQual,
    ep: dat::Handle,
    evd: dat::Handle,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        let endpoint = handle::get_of::<EpObject>(ep, ia.ia())?;
        let dispatcher = handle::get_or::<EvdObject>(evd, Subtype::EvdCr)?;
        required(place, Subtype::Arg5)?;
        ia.counts
            .add(dat::HANDLE_TYPE_RSP, POINTS_MAX, Subtype::Memory)?;
        let rsp = Rsp::create(&dispatcher.evd, &ia.ia, At::Port(qualifier), &endpoint.ep)
            .inspect_err(|_| ia.counts.remove(dat::HANDLE_TYPE_RSP))?;
        let object = RspObject {
            rsp,
            evd: evd.into(),
            ep: ep.into(),
        };
        let handle = handle::add(&ia, object);
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, handle.to_c()) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn rsp_query(
    rsp: dat::Handle,
    mask: u32,
    place: *mut RspParam,
) -> Return {
    const ALL: u32 = 0xF;
    edge(|| {
        let held = handle::get::<RspObject>(rsp)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let param = RspParam {
            ia_handle: consumers(held.ia()),
            conn_qual: held.rsp.qualifier(),
            evd_handle: held.evd.to_c(),
            ep_handle: held.ep.to_c(),
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

/// One that has served is gone already, but its handle is the consumer's to give up.
pub(crate) unsafe extern "C" fn rsp_free(rsp: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<RspObject>(rsp)?;
        let freed = held.rsp.free();
        handle::get::<IaObject>(held.ia())?
            .counts
            .remove(dat::HANDLE_TYPE_RSP);
        handle::remove(rsp);
        freed
    })
}

pub(crate) unsafe extern "C" fn cr_query(
    cr: dat::Handle,
    mask: u32,
    place: *mut CrParam,
) -> Return {
    const ALL: u32 = 0x1F;
    edge(|| {
        let held = handle::get::<CrObject>(cr)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let data = held.cr.private_data();
        let param = CrParam {
            remote_ia_address_ptr: std::ptr::from_ref(&*held.peer).cast_mut().cast(),
            remote_port_qual: held.cr.from().map_or(0, |from| from.port().into()),
            private_data_size: to_count(data.len()),
            private_data: data.as_ptr().cast_mut().cast(),
            local_ep_handle: held.ep.to_c(),
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

/// A request that was answered, or whose peer has gone, is consumed.
fn consumed(cr: dat::Handle, outcome: Result<()>) -> Result<()> {
    if outcome.is_ok() || outcome == Err(Error::handle(Subtype::Cr)) {
        handle::remove(cr);
    }
    outcome
}

pub(crate) unsafe extern "C" fn cr_accept(
    cr: dat::Handle,
    ep: dat::Handle,
    size: Count,
    data: *const c_void,
) -> Return {
    edge(|| {
        let held = handle::get::<CrObject>(cr)?;
        let endpoint = handle::given::<EpObject>(ep, held.ia(), Subtype::Ep)?;
        // SAFETY: null or `size` bytes of the caller.
        let data = unsafe { bytes(size, data, Subtype::Arg4, Subtype::Arg3) }?;
        let outcome = match &endpoint {
            Some(endpoint) => held.cr.accept(&endpoint.ep, &data),
            None => held.cr.accept_own(&data),
        };
        consumed(cr, outcome)
    })
}

pub(crate) unsafe extern "C" fn cr_reject(
    cr: dat::Handle,
    size: Count,
    data: *const c_void,
) -> Return {
    edge(|| {
        let held = handle::get::<CrObject>(cr)?;
        // SAFETY: null or `size` bytes of the caller.
        let data = unsafe { bytes(size, data, Subtype::Arg3, Subtype::Arg2) }?;
        let outcome = consumed(cr, held.cr.reject(&data));
        if let Some(made) = handle::get::<EpObject>(held.ep)
            .ok()
            .filter(|_| outcome.is_ok())
        {
            made.forget_if_gone(held.ep)?; // it was made for this request
        }
        outcome
    })
}

pub(crate) unsafe extern "C" fn cr_handoff(cr: dat::Handle, _: ConnQual) -> Return {
    edge(|| handle::get::<CrObject>(cr).and(Err(NOT_IMPLEMENTED)))
}
