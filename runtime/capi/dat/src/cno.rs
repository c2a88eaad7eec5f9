//! Consumer notification objects (section 4.5).

use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use windlass_abi::dat::{self, CnoParam, ProxyAgent, Return, Timeout};
use windlass_dat::{Cno, Error, Result, Subtype, Type};

use crate::attributes::CNOS_MAX;
use crate::edge::{edge, required, store};
use crate::evd::timeout;
use crate::handle::{self, Handle, Held};
use crate::ia::IaObject;
use crate::registry::consumers;

/// How a CNO tells of its trigger.
#[derive(Clone, Copy)]
enum Proxy {
    /// To a thread in `dat_cno_wait`.
    None,
    /// By a call.
    Agent(ProxyAgent),
    /// By its descriptor.
    Fd,
}

// SAFETY: the instance data is the consumer's, who lets it be passed from another thread by giving an agent.
unsafe impl Send for Proxy {}

/// A CNO and how it tells.
pub(crate) struct CnoObject {
    pub(crate) cno: Arc<Cno>,
    proxy: Arc<Mutex<Proxy>>,
    /// Waits for the trigger and calls the agent.
    caller: Mutex<Option<JoinHandle<()>>>,
}

impl CnoObject {
    fn add(ia: &Held<IaObject>, proxy: Proxy) -> Result<Handle> {
        ia.counts
            .add(dat::HANDLE_TYPE_CNO, CNOS_MAX, Subtype::Memory)?;
        let cno = Arc::new(Cno::create(&ia.ia)?);
        let object = CnoObject {
            cno,
            proxy: Arc::new(Mutex::new(proxy)),
            caller: Mutex::default(),
        };
        object.employ(ia.ia())?;
        Ok(handle::add(ia, object))
    }

    /// Starts the thread that calls an agent, if there is one to call and no thread yet.
    fn employ(&self, ia: Handle) -> Result<()> {
        let mut caller = self.caller.lock();
        if caller.is_some() || !matches!(*self.proxy.lock(), Proxy::Agent(_)) {
            return Ok(());
        }
        let (cno, proxy) = (self.cno.clone(), self.proxy.clone());
        let work = move || {
            while let Ok(evd) = cno.wait(None) {
                let evd = handle::get::<IaObject>(ia).map(|ia| ia.evds.get(evd));
                let agent = *proxy.lock();
                if let (Proxy::Agent(agent), Ok(evd)) = (agent, evd)
                    && let Some(function) = agent.proxy_agent_func
                {
                    // SAFETY: the consumer's function with the arguments it was given for (udat.h).
                    unsafe { function(agent.instance_data, evd.to_c()) };
                }
            }
        };
        let thread = std::thread::Builder::new().name("windlass-cno".into());
        let thread = thread.spawn(work);
        *caller = Some(thread.map_err(|_| Error::resources(Subtype::Device))?);
        Ok(())
    }

    /// Ends the thread that calls the agent.
    fn dismiss(&self) {
        if let Some(caller) = self.caller.lock().take() {
            self.cno.kill();
            if caller.thread().id() != std::thread::current().id() {
                let _ = caller.join();
            }
        }
    }
}

impl Drop for CnoObject {
    fn drop(&mut self) {
        self.dismiss();
    }
}

fn proxy_of(agent: ProxyAgent) -> Proxy {
    match agent.proxy_agent_func {
        Some(_) => Proxy::Agent(agent),
        None => Proxy::None,
    }
}

pub(crate) unsafe extern "C" fn cno_create(
    ia: dat::Handle,
    agent: ProxyAgent,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        required(place, Subtype::Arg3)?;
        let handle = CnoObject::add(&ia, proxy_of(agent))?;
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, handle.to_c()) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn cno_fd_create(
    ia: dat::Handle,
    fd: *mut c_int,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        let ia = handle::get::<IaObject>(ia)?;
        required(fd, Subtype::Arg2)?;
        required(place, Subtype::Arg3)?;
        let handle = CnoObject::add(&ia, Proxy::Fd)?;
        let raw = handle::get::<CnoObject>(handle)?.cno.fd().as_raw_fd();
        // SAFETY: places of the caller, not null.
        unsafe {
            store(fd, raw);
            store(place, handle.to_c());
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn cno_modify_agent(cno: dat::Handle, agent: ProxyAgent) -> Return {
    edge(|| {
        let held = handle::get::<CnoObject>(cno)?;
        *held.proxy.lock() = proxy_of(agent);
        held.employ(held.ia())
    })
}

pub(crate) unsafe extern "C" fn cno_query(
    cno: dat::Handle,
    mask: u32,
    place: *mut CnoParam,
) -> Return {
    const ALL: u32 = 0x7;
    edge(|| {
        let held = handle::get::<CnoObject>(cno)?;
        if mask & !ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let mut proxy = ProxyAgent {
            instance_data: std::ptr::null_mut(),
            proxy_agent_func: None,
        };
        let proxy_type = match *held.proxy.lock() {
            Proxy::None => dat::PROXY_TYPE_NONE,
            Proxy::Agent(agent) => {
                proxy = agent;
                dat::PROXY_TYPE_AGENT
            }
            Proxy::Fd => {
                let fd = held.cno.fd().as_raw_fd();
                // The union's descriptor is its first four bytes.
                proxy.instance_data = std::ptr::without_provenance_mut::<c_void>(fd as usize);
                dat::PROXY_TYPE_FD
            }
        };
        let param = CnoParam {
            ia_handle: consumers(held.ia()),
            proxy_type,
            proxy,
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn cno_free(cno: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<CnoObject>(cno)?;
        if held.caller.lock().is_some() {
            if held.cno.users()? > 0 {
                return Err(Error::state(Subtype::CnoInUse));
            }
            held.dismiss();
        }
        held.cno.free()?;
        let ia = handle::get::<IaObject>(held.ia())?;
        handle::remove(cno);
        ia.counts.remove(dat::HANDLE_TYPE_CNO);
        Ok(())
    })
}

/// Stores the EVD that triggered a CNO.
///
/// # Safety
/// `place` is writable.
unsafe fn tell(
    held: &Held<CnoObject>,
    evd: windlass_dat::EvdId,
    place: *mut dat::Handle,
) -> Result<()> {
    let handle = handle::get::<IaObject>(held.ia())?.evds.get(evd);
    // SAFETY: the caller's promise.
    unsafe { store(place, handle.to_c()) };
    Ok(())
}

pub(crate) unsafe extern "C" fn cno_wait(
    cno: dat::Handle,
    micros: Timeout,
    place: *mut dat::Handle,
) -> Return {
    edge(|| {
        let held = handle::get::<CnoObject>(cno)?;
        required(place, Subtype::Arg3)?;
        let evd = held.cno.wait(timeout(micros))?;
        // SAFETY: a place of the caller, not null.
        unsafe { tell(&held, evd, place) }
    })
}

pub(crate) unsafe extern "C" fn cno_trigger(cno: dat::Handle, place: *mut dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<CnoObject>(cno)?;
        required(place, Subtype::Arg2)?;
        let evd = held.cno.take()?;
        let evd = evd.ok_or(Error::new(Type::QueueEmpty, Subtype::None))?;
        // SAFETY: a place of the caller, not null.
        unsafe { tell(&held, evd, place) }
    })
}
