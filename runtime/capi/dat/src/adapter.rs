//! The adapters behind the handles: one for each name of `dat.conf` and process, however often it is opened.
//!
//! An object of one opening may be used with those of another, as with one device opened twice; only zones belong to
//! their opening alone. The adapter ends with the last opening, and its helper thread with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use windlass_dat::{CloseFlags, EpId, Error, EvdId, Ia, Result, RmrId, Subtype};

use crate::address::SockAddr;
use crate::handle::Names;
use crate::registry::Named;

/// Open adapters, by the address of their provider table.
static OPEN: Mutex<BTreeMap<usize, Weak<Adapter>>> = Mutex::new(BTreeMap::new());

/// An adapter that is open.
pub(crate) struct Adapter {
    pub(crate) ia: Arc<Ia>,
    /// Its address, at a place that C may keep.
    pub(crate) address: SockAddr,
    pub(crate) eps: Names<EpId>,
    pub(crate) evds: Names<EvdId>,
    pub(crate) rmrs: Names<RmrId>,
    /// Service points, by qualifier.
    pub(crate) points: Names<u64>,
    helper: Mutex<Option<Helper>>,
}

/// The thread that serves peers while the program does something else.
struct Helper {
    thread: JoinHandle<()>,
    stop: Arc<OwnedFd>,
}

fn lacking(_: impl std::fmt::Debug) -> Error {
    Error::resources(Subtype::Device)
}

fn help(ia: &Arc<Ia>) -> Result<Helper> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let stop = Arc::new(eventfd(0, flags).map_err(lacking)?);
    let (ia, until) = (ia.clone(), stop.clone());
    let work = move || {
        loop {
            let mut fds = [
                PollFd::new(&until, PollFlags::IN),
                PollFd::new(&ia, PollFlags::IN),
            ];
            // An interrupted or failed wait is a short one.
            let _ = poll(&mut fds, None);
            if fds[0].revents().contains(PollFlags::IN) {
                return;
            }
            while ia.step() {}
        }
    };
    let thread = std::thread::Builder::new().name("windlass-dapl".into());
    let thread = thread.spawn(work).map_err(lacking)?;
    Ok(Helper { thread, stop })
}

impl Adapter {
    /// The adapter of this name, opened if it is not yet.
    pub(crate) fn open(named: &Named) -> Result<Arc<Self>> {
        let mut open = OPEN.lock();
        let key = std::ptr::from_ref(named.table).addr();
        if let Some(adapter) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(adapter);
        }
        let bind = SocketAddr::new(named.config.address, 0);
        let ia = Ia::open(windlass_dat::Config {
            secret: named.config.secret.clone(),
            bind,
        });
        let ia = ia.map_err(lacking)?;
        let adapter = Arc::new(Self {
            address: SockAddr::new(bind),
            eps: Names::default(),
            evds: Names::default(),
            rmrs: Names::default(),
            points: Names::default(),
            helper: Mutex::new(Some(help(&ia)?)),
            ia,
        });
        open.insert(key, Arc::downgrade(&adapter));
        Ok(adapter)
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let _ = self.ia.close(CloseFlags::Abrupt); // its first and only close
        if let Some(helper) = self.helper.lock().take() {
            // A full counter rings too.
            let _ = rustix::io::write(&helper.stop, &1u64.to_ne_bytes());
            let _ = helper.thread.join();
        }
    }
}
