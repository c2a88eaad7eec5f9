//! Event dispatchers (section 4.5).

use std::time::Duration;

use windlass_abi::dat::{self, Count, EvdParam, Event, Return, Timeout};
use windlass_dat::{Error, Evd, EvdFlags, Result, Subtype, Type};

use crate::attributes::EVDS_MAX;
use crate::cno::CnoObject;
use crate::edge::{count, edge, load, required, store, to_count};
use crate::event;
use crate::handle::{self, Handle, Held};
use crate::ia::IaObject;
use crate::registry::consumers;

/// A dispatcher and the CNO it was given.
pub(crate) struct EvdObject {
    pub(crate) evd: Evd,
    cno: parking_lot::Mutex<Handle>,
}

impl EvdObject {
    /// A handle for a dispatcher.
    pub(crate) fn add(ia: &Held<IaObject>, evd: Evd, cno: Handle) -> Result<Handle> {
        ia.counts
            .add(dat::HANDLE_TYPE_EVD, EVDS_MAX, Subtype::Tevd)?;
        let name = evd.name();
        let object = EvdObject {
            evd,
            cno: cno.into(),
        };
        let handle = handle::add(ia, object);
        ia.evds.set(name, handle);
        Ok(handle)
    }
}

/// Microseconds of the header; all ones is no end.
pub(crate) fn timeout(micros: Timeout) -> Option<Duration> {
    (micros != dat::TIMEOUT_INFINITE).then(|| Duration::from_micros(micros.into()))
}

pub(crate) unsafe extern "C" fn evd_create(
    ia: dat::Handle,
    qlen: Count,
    cno: dat::Handle,
    flags: u32,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        let qlen = count(qlen, Subtype::Arg2)?;
        let cno_object = handle::near::<CnoObject>(cno, &ia, Subtype::Cno)?;
        let flags = EvdFlags::from_bits(flags).ok_or(Error::arg(Subtype::Arg4))?;
        required(place, Subtype::Arg5)?;
        let evd = Evd::create(&ia.ia, qlen, flags)?;
        if let Some(cno) = cno_object {
            evd.set_cno(Some(&cno.cno))?;
        }
        let handle = EvdObject::add(&ia, evd, cno.into())?;
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, handle.to_c()) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn evd_query(
    evd: dat::Handle,
    mask: u32,
    place: *mut EvdParam,
) -> Return {
    const ALL: u32 = 0x1F;
    edge(|| {
        let held = handle::get::<EvdObject>(evd)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let state = held.evd.query()?;
        let param = EvdParam {
            ia_handle: consumers(held.ia()),
            evd_qlen: to_count(state.qlen),
            evd_state: if state.enabled {
                dat::EVD_STATE_ENABLED
            } else {
                dat::EVD_STATE_DISABLED
            } | if state.waitable {
                dat::EVD_STATE_WAITABLE
            } else {
                dat::EVD_STATE_UNWAITABLE
            } | if state.thresholds {
                dat::EVD_STATE_CONFIG_THRESHOLD
            } else {
                dat::EVD_STATE_CONFIG_NOTIFY
            },
            cno_handle: held.cno.lock().to_c(),
            evd_flags: state.flags.bits(),
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn evd_modify_cno(evd: dat::Handle, cno: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<EvdObject>(evd)?;
        let ia = handle::get::<IaObject>(held.ia())?;
        let object = handle::near::<CnoObject>(cno, &ia, Subtype::Cno)?;
        held.evd.set_cno(object.as_ref().map(|cno| &*cno.cno))?;
        *held.cno.lock() = cno.into();
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn evd_enable(evd: dat::Handle) -> Return {
    edge(|| handle::get::<EvdObject>(evd)?.evd.enable(true))
}

pub(crate) unsafe extern "C" fn evd_disable(evd: dat::Handle) -> Return {
    edge(|| handle::get::<EvdObject>(evd)?.evd.enable(false))
}

pub(crate) unsafe extern "C" fn evd_set_unwaitable(evd: dat::Handle) -> Return {
    edge(|| handle::get::<EvdObject>(evd)?.evd.set_unwaitable(true))
}

pub(crate) unsafe extern "C" fn evd_clear_unwaitable(evd: dat::Handle) -> Return {
    edge(|| handle::get::<EvdObject>(evd)?.evd.set_unwaitable(false))
}

pub(crate) unsafe extern "C" fn evd_wait(
    evd: dat::Handle,
    micros: Timeout,
    threshold: Count,
    place: *mut Event,
    more: *mut Count,
) -> Return {
    edge(|| {
        let held = handle::get::<EvdObject>(evd)?;
        required(place, Subtype::Arg4)?;
        required(more, Subtype::Arg5)?;
        let threshold = count(threshold, Subtype::Arg3)?;
        let (event, left) = held.evd.wait(timeout(micros), threshold)?;
        let event = event::to_c(held.ia(), evd.into(), event)?;
        // SAFETY: places of the caller, not null.
        unsafe {
            store(place, event);
            store(more, to_count(left));
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn evd_dequeue(evd: dat::Handle, place: *mut Event) -> Return {
    edge(|| {
        let held = handle::get::<EvdObject>(evd)?;
        required(place, Subtype::Arg2)?;
        let event = match held.evd.try_dequeue() {
            Err(error) if error.kind == Type::QueueEmpty => {
                // A program that polls serves its peers itself, and is told at once.
                handle::get::<IaObject>(held.ia())?.ia.step();
                held.evd.try_dequeue()
            }
            outcome => outcome,
        };
        let event = event::to_c(held.ia(), evd.into(), event?)?;
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, event) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn evd_post_se(evd: dat::Handle, event: *const Event) -> Return {
    edge(|| {
        let held = handle::get::<EvdObject>(evd)?;
        // SAFETY: an event of the caller, or null, which is refused.
        let event = unsafe { load(event, Subtype::Arg2) }?;
        if event.event_number != event::SOFTWARE {
            return Err(Error::arg(Subtype::Arg2));
        }
        // SAFETY: a software event's data is a pointer, which is not followed.
        let pointer = unsafe { event.event_data.software };
        held.evd.post_software(pointer.expose_provenance() as u64)
    })
}

pub(crate) unsafe extern "C" fn evd_resize(evd: dat::Handle, qlen: Count) -> Return {
    edge(|| {
        let held = handle::get::<EvdObject>(evd)?;
        held.evd.resize(count(qlen, Subtype::Arg2)?)
    })
}

pub(crate) unsafe extern "C" fn evd_free(evd: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<EvdObject>(evd)?;
        held.evd.free()?;
        let ia = handle::get::<IaObject>(held.ia())?;
        ia.evds.remove(held.evd.name());
        handle::remove(evd);
        ia.counts.remove(dat::HANDLE_TYPE_EVD);
        Ok(())
    })
}
