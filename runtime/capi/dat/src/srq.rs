//! Shared receive queues.

use windlass_abi::dat::{self, Context, Count, Return, SrqAttr, SrqParam, Triplet};
use windlass_dat::{Error, IOV_MAX, Pz, Srq, Subtype};

use crate::attributes::SRQS_MAX;
use crate::edge::{NOT_SUPPORTED, count, edge, load, required, segments, store, to_count};
use crate::handle::{self, Handle};
use crate::ia::IaObject;
use crate::registry::consumers;

/// `DAT_SRQ_STATE_OPERATIONAL`.
const OPERATIONAL: u32 = 1;

/// A queue and what it was made with.
pub(crate) struct SrqObject {
    pub(crate) srq: Srq,
    pz: Handle,
    max_iov: Count,
}

pub(crate) unsafe extern "C" fn srq_create(
    ia: dat::Handle,
    pz: dat::Handle,
    attr: *const SrqAttr,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        let zone = handle::get_of::<Pz>(pz, ia.ia())?;
        required(place, Subtype::Arg4)?;
        // SAFETY: attributes of the caller, or null, which is refused.
        let attr = unsafe { load(attr, Subtype::Arg3) }?;
        let receives = count(attr.max_recv_dtos, Subtype::Arg3)?;
        if count(attr.max_recv_iov, Subtype::Arg3)? > IOV_MAX {
            return Err(Error::arg(Subtype::Arg3));
        }
        if attr.low_watermark != 0 {
            return Err(NOT_SUPPORTED);
        }
        ia.counts
            .add(dat::HANDLE_TYPE_SRQ, SRQS_MAX, Subtype::Srq)?;
        let srq =
            Srq::create(&zone, receives).inspect_err(|_| ia.counts.remove(dat::HANDLE_TYPE_SRQ))?;
        let object = SrqObject {
            srq,
            pz: pz.into(),
            max_iov: attr.max_recv_iov,
        };
        let handle = handle::add(&ia, object);
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, handle.to_c()) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn srq_post_recv(
    srq: dat::Handle,
    count: Count,
    iov: *const Triplet,
    cookie: Context,
) -> Return {
    edge(|| {
        let held = handle::get::<SrqObject>(srq)?;
        // SAFETY: null or `count` triplets of the caller.
        let iov = unsafe { segments(count, iov) }?;
        held.srq.post_recv(&iov, cookie)
    })
}

pub(crate) unsafe extern "C" fn srq_query(
    srq: dat::Handle,
    mask: u32,
    place: *mut SrqParam,
) -> Return {
    const ALL: u32 = 0xFF;
    edge(|| {
        let held = handle::get::<SrqObject>(srq)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let state = held.srq.query()?;
        let param = SrqParam {
            ia_handle: consumers(held.ia()),
            srq_state: OPERATIONAL,
            pz_handle: held.pz.to_c(),
            max_recv_dtos: to_count(state.max_receives),
            max_recv_iov: held.max_iov,
            low_watermark: 0,
            available_dto_count: to_count(state.available),
            outstanding_dto_count: to_count(state.outstanding),
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn srq_resize(srq: dat::Handle, receives: Count) -> Return {
    edge(|| {
        let held = handle::get::<SrqObject>(srq)?;
        held.srq.resize(count(receives, Subtype::Arg2)?)
    })
}

pub(crate) unsafe extern "C" fn srq_set_lw(srq: dat::Handle, _: Count) -> Return {
    edge(|| handle::get::<SrqObject>(srq).and(Err(NOT_SUPPORTED)))
}

pub(crate) unsafe extern "C" fn srq_free(srq: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<SrqObject>(srq)?;
        held.srq.free()?;
        let ia = handle::get::<IaObject>(held.ia())?;
        handle::remove(srq);
        ia.counts.remove(dat::HANDLE_TYPE_SRQ);
        Ok(())
    })
}
