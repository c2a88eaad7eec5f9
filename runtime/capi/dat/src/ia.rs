//! `dat_ia_open`, `dat_ia_query`, `dat_ia_close` (section 4.1), and the contexts and kinds of all handles.

use std::ffi::{CStr, c_char, c_void};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use windlass_abi::dat::{self, IaAttr, Provider, ProviderAttr, ProviderInfo, Return};
use windlass_dat::{Error, Evd, EvdFlags, Result, Subtype, Type};

use crate::adapter::Adapter;
use crate::attributes;
use crate::edge::{count, edge, required, store};
use crate::evd::EvdObject;
use crate::handle::{self, Counts, Handle, Held, Object};
use crate::registry::{self, Named};

/// One opening of an adapter.
pub(crate) struct IaObject {
    adapter: Arc<Adapter>,
    pub(crate) provider: &'static Provider,
    pub(crate) info: ProviderInfo,
    pub(crate) counts: Counts,
    /// Its own asynchronous EVD, or what the consumer gave instead.
    pub(crate) async_evd: Mutex<Handle>,
}

// SAFETY: the table's pointers are to its own name, which is never freed, and to functions; the info is plain data.
unsafe impl Send for IaObject {}
// SAFETY: as for `Send`; everything that changes is behind a lock or atomic.
unsafe impl Sync for IaObject {}

impl Deref for IaObject {
    type Target = Adapter;
    fn deref(&self) -> &Adapter {
        &self.adapter
    }
}

impl IaObject {
    fn open(named: &Named) -> Result<Self> {
        Ok(Self {
            adapter: Adapter::open(named)?,
            provider: named.table,
            info: named.info,
            counts: Counts::default(),
            async_evd: Mutex::default(),
        })
    }

    /// An object goes with its opening: events no longer name it, and threads that wait for it are told.
    fn forget(&self, object: &Object) {
        match object {
            Object::Ep(ep) => self.eps.remove(ep.ep.id()),
            Object::Rmr(rmr) => self.rmrs.remove(rmr.rmr.name()),
            Object::Psp(psp) => self.points.remove(psp.psp.qualifier()),
            Object::Evd(evd) => {
                self.evds.remove(evd.evd.name());
                evd.evd.end();
            }
            Object::Cno(cno) => cno.cno.kill(),
            _ => {}
        }
    }

    /// Its address, at a place that lives as long as the adapter.
    pub(crate) fn address(&self) -> *mut c_void {
        std::ptr::from_ref(&self.adapter.address).cast_mut().cast()
    }
}

/// Frees everything of an adapter and the adapter itself.
fn close(handle: Handle) {
    let Some(entry) = handle::remove(handle) else {
        return; // another thread was first
    };
    for own in handle::of_ia(handle) {
        if let Some(own) = handle::remove(own)
            && let Object::Ia(ia) = &entry.object
        {
            ia.forget(&own.object);
        }
    }
    drop(entry); // and with the last opening the adapter
}

/// Closes every adapter of a provider table.
pub(crate) fn close_all(provider: &'static Provider) {
    for handle in handle::adapters(provider) {
        close(handle);
    }
}

pub(crate) unsafe extern "C" fn ia_open(
    name: *const c_char,
    qlen: dat::Count,
    async_evd: *mut dat::Handle,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        if name.is_null() {
            return Err(Error::arg(Subtype::Arg1));
        }
        // SAFETY: a C string by the caller's promise.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        if name.len() >= dat::NAME_MAX {
            return Err(Error::arg(Subtype::Arg1));
        }
        required(place, Subtype::None).map_err(|_| Error::handle(Subtype::Ia))?;
        required(async_evd, Subtype::Arg3)?;
        let named = registry::named(name);
        let named = named.ok_or(Error::new(
            Type::ProviderNotFound,
            Subtype::NameNotRegistered,
        ))?;
        // SAFETY: not null, so a place of the caller.
        let given = unsafe { async_evd.read_unaligned() };
        let object = IaObject::open(&named)?;
        let own = match given.addr() {
            0 => {
                let least = count(qlen, Subtype::Arg2)?.max(attributes::QLEN_LEAST);
                let evd = Evd::create(&object.ia, least, EvdFlags::ASYNC)?;
                evd.tell_errors()?;
                Some(evd)
            }
            dat::EVD_ASYNC_EXISTS => None,
            _ => {
                handle::get_or::<EvdObject>(given, Subtype::EvdAsync)?;
                None
            }
        };
        let handle = handle::add_ia(named.table, |_| object);
        let ia = handle::get::<IaObject>(handle)?;
        // SAFETY: both are places of the caller (checked above).
        unsafe {
            if let Some(evd) = own {
                let evd = EvdObject::add(&ia, evd, Handle::NULL)?;
                *ia.async_evd.lock() = evd;
                store(async_evd, evd.to_c());
            } else {
                *ia.async_evd.lock() = Handle::from(given);
            }
            store(place, handle.to_c());
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn ia_query(
    ia: dat::Handle,
    async_evd: *mut dat::Handle,
    ia_mask: u64,
    ia_attr: *mut IaAttr,
    provider_mask: u64,
    provider_attr: *mut ProviderAttr,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        if ia_mask & !attributes::IA_ALL != 0 {
            return Err(Error::arg(Subtype::Arg3));
        }
        if ia_mask != 0 {
            required(ia_attr, Subtype::Arg4)?;
        }
        if provider_mask & !attributes::PROVIDER_ALL != 0 {
            return Err(Error::arg(Subtype::Arg5));
        }
        if provider_mask != 0 {
            required(provider_attr, Subtype::Arg6)?;
        }
        let evd = match *ia.async_evd.lock() {
            Handle(dat::EVD_ASYNC_EXISTS) => Handle(dat::EVD_OUT_OF_SCOPE),
            evd => evd,
        };
        // SAFETY: each is null or a place of the caller, and not null where its mask asks for it.
        unsafe {
            store(async_evd, evd.to_c());
            if ia_mask != 0 {
                store(ia_attr, attributes::of_ia(&ia));
            }
            if provider_mask != 0 {
                store(provider_attr, attributes::of_provider(&ia.info));
            }
        }
        Ok(())
    })
}

/// Whether the consumer has objects on an adapter; its own asynchronous EVD is none.
fn in_use(ia: &Held<IaObject>) -> bool {
    let own = *ia.async_evd.lock();
    handle::of_ia(ia.ia())
        .into_iter()
        .any(|object| object != own)
}

pub(crate) unsafe extern "C" fn ia_close(ia: dat::Handle, flags: u32) -> Return {
    edge(|| {
        let held = handle::get::<IaObject>(ia)?;
        match flags {
            dat::CLOSE_GRACEFUL if in_use(&held) => return Err(Error::state(Subtype::IaInUse)),
            dat::CLOSE_ABRUPT | dat::CLOSE_GRACEFUL => {}
            _ => return Err(Error::arg(Subtype::Arg2)),
        }
        drop(held);
        close(Handle::from(ia));
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn set_consumer_context(
    handle: dat::Handle,
    context: dat::Context,
) -> Return {
    edge(|| {
        let entry = handle::any(handle).ok_or(Error::handle(Subtype::None))?;
        entry.context.store(context, Ordering::Relaxed);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn get_consumer_context(
    handle: dat::Handle,
    place: *mut dat::Context,
) -> Return {
    edge(|| {
        let entry = handle::any(handle).ok_or(Error::handle(Subtype::None))?;
        required(place, Subtype::Arg2)?;
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, entry.context.load(Ordering::Relaxed)) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn get_handle_type(handle: dat::Handle, place: *mut u32) -> Return {
    edge(|| {
        let entry = handle::any(handle).ok_or(Error::handle(Subtype::None))?;
        required(place, Subtype::Arg2)?;
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, entry.object.kind()) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn ia_ha_related(
    ia: dat::Handle,
    name: *const c_char,
    place: *mut dat::Boolean,
) -> Return {
    edge(|| {
        handle::get::<IaObject>(ia)?;
        required(name.cast_mut(), Subtype::Arg2)?;
        required(place, Subtype::Arg3)?;
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, 0) };
        Ok(())
    })
}
