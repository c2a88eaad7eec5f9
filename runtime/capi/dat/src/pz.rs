//! Protection zones (section 4.1).

use windlass_abi::dat::{self, PzParam, Return};
use windlass_dat::{Error, Pz, Subtype};

use crate::attributes::PZS_MAX;
use crate::edge::{edge, required, store};
use crate::handle;
use crate::ia::IaObject;
use crate::registry::consumers;

pub(crate) unsafe extern "C" fn pz_create(ia: dat::Handle, place: *mut dat::Handle) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        required(place, Subtype::Arg2)?;
        ia.counts
            .add(dat::HANDLE_TYPE_PZ, PZS_MAX, Subtype::ProtectionDomain)?;
        let handle = handle::add(&ia, Pz::create(&ia.ia));
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, handle.to_c()) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn pz_query(
    pz: dat::Handle,
    mask: u32,
    place: *mut PzParam,
) -> Return {
    const ALL: u32 = 1;
    edge(|| {
        let held = handle::get::<Pz>(pz)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let param = PzParam {
            ia_handle: consumers(held.ia()),
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn pz_free(pz: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<Pz>(pz)?;
        held.free()?;
        handle::get::<IaObject>(held.ia())?
            .counts
            .remove(dat::HANDLE_TYPE_PZ);
        handle::remove(pz);
        Ok(())
    })
}
