//! Events as C has them (section 2.3).

use windlass_abi::dat::{
    self, AsyncError, ConnectionEvent, CrArrival, DtoCompletion, EventData, RmrBindCompletion,
};
use windlass_dat::{AsyncAbout, DtoStatus, EpId, Event, Result};

use crate::edge::to_count;
use crate::ep::EpObject;
use crate::extension;
use crate::handle::{self, Handle, Held};
use crate::ia::IaObject;
use crate::point::CrObject;

/// `DAT_SOFTWARE_EVENT`.
pub(crate) const SOFTWARE: u32 = 0x10001;
/// `DAT_EVD_OVERFLOW_ERROR`.
const EVD_OVERFLOW_ERROR: i32 = 0;
/// `DAT_EP_OTHER_ERROR`.
const EP_OTHER_ERROR: i32 = 1;

/// The event of a dispatcher of `ia`, as C has it. A connection request gets its handle here.
pub(crate) fn to_c(ia: Handle, evd: Handle, event: Event) -> Result<dat::Event> {
    let ia = handle::get::<IaObject>(ia)?;
    let (mut event_number, mut event_extension_data) = (event.number(), [0; 8]);
    if let Event::Dto(done) = &event
        && let Some(of_atomic) =
            extension::completion(done.operation, done.status == DtoStatus::Success)
    {
        (event_number, event_extension_data) = of_atomic;
    }
    let event_data = match event {
        Event::Dto(done) => EventData {
            dto: DtoCompletion {
                ep_handle: ia.eps.get(done.ep).to_c(),
                user_cookie: done.cookie,
                status: done.status as u32,
                transfered_length: done.length,
                operation: done.operation as u32,
                rmr_context: done.invalidated,
            },
        },
        Event::Bind {
            rmr,
            cookie,
            status,
        } => EventData {
            rmr: RmrBindCompletion {
                rmr_handle: ia.rmrs.get(rmr).to_c(),
                user_cookie: cookie,
                status: status as u32,
            },
        },
        Event::ConnectionRequest(cr) => EventData {
            cr_arrival: CrArrival {
                sp_handle: ia.points.get(cr.qualifier()).to_c(),
                local_ia_address_ptr: ia.address(),
                conn_qual: cr.qualifier(),
                cr_handle: CrObject::add(&ia, cr)?.to_c(),
                truncate_flag: 0,
            },
        },
        Event::Connection {
            ep, private_data, ..
        } => EventData {
            connect: connection(&ia, ep, private_data),
        },
        Event::Async(_, about) => EventData {
            asynch_error: AsyncError {
                dat_handle: match about {
                    AsyncAbout::Evd(evd) => ia.evds.get(evd).to_c(),
                    AsyncAbout::Ep(ep) => ia.eps.get(ep).to_c(),
                },
                reason: match about {
                    AsyncAbout::Evd(_) => EVD_OVERFLOW_ERROR,
                    AsyncAbout::Ep(_) => EP_OTHER_ERROR,
                },
            },
        },
        Event::Software(value) => EventData {
            software: std::ptr::with_exposed_provenance_mut(value as usize),
        },
    };
    Ok(dat::Event {
        event_number,
        evd_handle: evd.to_c(),
        event_data,
        event_extension_data,
    })
}

/// The private data stays with its endpoint until that has another connection event.
fn connection(ia: &Held<IaObject>, ep: EpId, private_data: Box<[u8]>) -> ConnectionEvent {
    let handle = ia.eps.get(ep);
    let size = to_count(private_data.len());
    let place = handle::get::<EpObject>(handle).map_or(std::ptr::null_mut(), |object| {
        let mut kept = object.private_data.lock();
        *kept = private_data;
        kept.as_mut_ptr()
    });
    ConnectionEvent {
        ep_handle: handle.to_c(),
        private_data_size: if place.is_null() { 0 } else { size },
        private_data: if size == 0 {
            std::ptr::null_mut()
        } else {
            place.cast()
        },
    }
}
