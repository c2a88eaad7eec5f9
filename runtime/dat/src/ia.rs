//! The interface adapter: descriptors, tables, and [`Ia::step`], which does all work that is ready (udapl.md
//! section 4.1).
//!
//! One lock guards everything; no call holds it while it blocks. Sockets are watched by one epoll descriptor, which
//! is what a consumer sleeps on. The adapter starts no thread: whoever calls `step`, or waits on an EVD, serves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
use windlass_wire::auth::Secret;

use crate::evd::Evd;
use crate::input::READ_SIZE;
use crate::link::{Link, Phase, socket};
use crate::lmr::LmrTable;
use crate::psp::{PendingRequest, Point};
use crate::pz::Zone;
use crate::queue::Evds;
use crate::request::Endpoint;
use crate::rmr::RmrEntry;
use crate::slab::{Id, Slab};
use crate::srq::SharedQueue;

/// Connections that have not proved to belong to the job at most (reliability.md S2). One more evicts the oldest.
pub const STRANGERS_MAX: usize = 64;
/// Time for the handshake and for the connection request after it.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(2);
/// Steps in a row that may look only at the link that had data last.
const HOT_STEPS: usize = 32;
/// Of so many looks in a row that found nothing there, one looks at all links, the first of them.
const MISSES_PER_LOOK: u32 = 8;
/// Length of the kernel's queue of connections.
const BACKLOG: i32 = 1024;

/// Names of the descriptors that are no links. A service point's own listener has its port for an index.
pub(crate) const LISTENER: Id = Id {
    index: u32::MAX,
    generation: u32::MAX,
};
const TIMER: Id = Id {
    index: u32::MAX,
    generation: u32::MAX - 1,
};

/// How an adapter is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The secret every peer must know.
    pub secret: Secret,
    /// Interface and port (0: any free one) to listen on.
    pub bind: SocketAddr,
}

/// Everything of an adapter, under its lock.
pub(crate) struct Inner {
    pub(crate) secret: Secret,
    pub(crate) closed: bool,
    pub(crate) epoll: Arc<OwnedFd>,
    pub(crate) listener: OwnedFd,
    /// Interface of this adapter, for the listeners of service points.
    pub(crate) interface: IpAddr,
    /// Listeners of service points that have a port, and how many share each.
    pub(crate) ports: BTreeMap<u16, (OwnedFd, usize)>,
    pub(crate) timer: OwnedFd,
    pub(crate) pzs: Slab<Zone>,
    pub(crate) lmrs: LmrTable,
    pub(crate) rmrs: Slab<RmrEntry>,
    pub(crate) srqs: Slab<SharedQueue>,
    pub(crate) eps: Slab<Endpoint>,
    pub(crate) evds: Evds,
    /// Qualifier to service point.
    pub(crate) psps: BTreeMap<u64, Point>,
    pub(crate) requests: Slab<PendingRequest>,
    /// `None` while a link is being served.
    pub(crate) links: Slab<Option<Box<Link>>>,
    pub(crate) dirty: Vec<Id>,
    /// Unauthenticated connections, oldest first.
    pub(crate) strangers: VecDeque<Id>,
    pub(crate) deadlines: BTreeSet<(Instant, Id)>,
    pub(crate) armed: Option<Instant>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) hot: Option<Id>,
    hot_steps: usize,
    /// Looks at the hot link in a row that found nothing.
    misses: u32,
}

/// An open interface adapter.
pub struct Ia {
    epoll: Arc<OwnedFd>,
    local: SocketAddr,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Ia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ia")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Ia {
    /// Opens an adapter that listens on `config.bind`.
    ///
    /// # Errors
    /// What the operating system refuses: no descriptors, or an address that is not this host's or is in use.
    pub fn open(config: Config) -> std::io::Result<Arc<Self>> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let (listener, local) = listen(config.bind, false)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        epoll::add(&epoll, &listener, token(LISTENER), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &timer, token(TIMER), epoll::EventFlags::IN)?;
        let inner = Inner {
            secret: config.secret,
            closed: false,
            epoll: epoll.clone(),
            listener,
            interface: config.bind.ip(),
            ports: BTreeMap::new(),
            timer,
            pzs: Slab::new(),
            lmrs: LmrTable::new(),
            rmrs: Slab::new(),
            srqs: Slab::new(),
            eps: Slab::new(),
            evds: Evds::new(),
            psps: BTreeMap::new(),
            requests: Slab::new(),
            links: Slab::new(),
            dirty: Vec::new(),
            strangers: VecDeque::new(),
            deadlines: BTreeSet::new(),
            armed: None,
            scratch: vec![0; READ_SIZE],
            hot: None,
            hot_steps: 0,
            misses: 0,
        };
        Ok(Arc::new(Self {
            epoll,
            local,
            inner: Mutex::new(inner),
        }))
    }

    /// Where peers reach this adapter (`ia_address_ptr`).
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The descriptor that is readable when [`Ia::step`] has work. Wait for it, never read it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Does all work that is ready, without blocking, and tells whether there was any.
    pub fn step(&self) -> bool {
        self.lock().step()
    }

    /// The asynchronous EVD: lost events are told here. It belongs to the adapter and is never freed.
    pub fn async_evd(self: &Arc<Self>) -> Option<Evd> {
        Evd::errors(self)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl AsFd for Ia {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

/// A listener on `bind`; `again` takes a port over at once whose connections linger.
fn listen(bind: SocketAddr, again: bool) -> Result<(OwnedFd, SocketAddr), Errno> {
    let family = if bind.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let listener = socket(family)?;
    if again {
        rustix::net::sockopt::set_socket_reuseaddr(&listener, true)?;
    }
    rustix::net::bind(&listener, &bind)?;
    rustix::net::listen(&listener, BACKLOG)?;
    let local = address(rustix::net::getsockname(&listener)?).ok_or(Errno::AFNOSUPPORT)?;
    Ok((listener, local))
}

pub(crate) fn token(id: Id) -> epoll::EventData {
    epoll::EventData::new_u64(id.to_word())
}

/// The name of a port's listener.
pub(crate) fn port_id(port: u16) -> Id {
    Id {
        index: u32::from(port),
        ..LISTENER
    }
}

pub(crate) fn address(any: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(any).ok()
}

impl Inner {
    /// Listens on a port (0: any free one) for a service point; answers the port.
    pub(crate) fn listen(&mut self, port: u16) -> Result<u16, Errno> {
        if let Some((_, users)) = self.ports.get_mut(&port) {
            *users += 1;
            return Ok(port);
        }
        let (listener, local) = listen(SocketAddr::new(self.interface, port), true)?;
        let port = local.port();
        let watch = token(port_id(port));
        epoll::add(&self.epoll, &listener, watch, epoll::EventFlags::IN)?;
        self.ports.insert(port, (listener, 1));
        Ok(port)
    }

    /// A service point at this port has ended.
    pub(crate) fn stop_port(&mut self, port: u16) {
        if let Some((_, users)) = self.ports.get_mut(&port) {
            *users -= 1;
            if *users == 0
                && let Some((listener, _)) = self.ports.remove(&port)
            {
                // A forked child that has it too keeps it watched.
                let _ = epoll::delete(&self.epoll, &listener);
            }
        }
    }

    /// No connection arrives any more; those that are not proven end.
    pub(crate) fn stop_listening(&mut self) {
        let _ = epoll::delete(&self.epoll, &self.listener);
        self.deadlines.retain(|(_, id)| *id != LISTENER);
        for stranger in std::mem::take(&mut self.strangers) {
            self.close(stranger);
        }
    }

    /// The listener of this name, while it listens.
    pub(crate) fn listener(&self, id: Id) -> Option<&OwnedFd> {
        if id == LISTENER {
            return Some(&self.listener);
        }
        let port = u16::try_from(id.index).ok()?;
        self.ports.get(&port).map(|(listener, _)| listener)
    }

    /// See [`Ia::step`].
    fn step(&mut self) -> bool {
        let mut any = false;
        // Popped, so that the list keeps its memory; what is added meanwhile is the next step's.
        for _ in 0..self.dirty.len() {
            let Some(id) = self.dirty.pop() else { break };
            if let Some(Some(link)) = self.links.get_mut(id) {
                link.dirty = false;
                self.push_link(id);
                any = true;
            }
        }
        // The link that spoke last most likely speaks next: asking only it spares a system call in a dialogue. Who sleeps
        // on the descriptor misses nothing by it: it stays readable.
        if let Some(hot) = self.hot
            && self.hot_steps < HOT_STEPS
        {
            self.hot_steps += 1;
            if self.service(hot, epoll::EventFlags::IN) {
                self.misses = 0;
                return true;
            }
            let looks = self.misses.is_multiple_of(MISSES_PER_LOOK);
            self.misses = self.misses.wrapping_add(1);
            if !looks {
                return any;
            }
        }
        self.hot_steps = 0;
        self.poll_all() || any
    }

    fn poll_all(&mut self) -> bool {
        let empty = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut events = [empty; 64];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let count = epoll::wait(&self.epoll, &mut events, Some(&now)).unwrap_or(0);
        let mut any = false;
        for event in &events[..count] {
            let id = Id::from_word(event.data.u64());
            let flags = event.flags;
            any |= match id {
                TIMER => self.expire(),
                id if id.generation == LISTENER.generation => self.take_connections(id),
                id => {
                    let served = self.service(id, flags);
                    if served {
                        self.hot = Some(id);
                    }
                    served
                }
            };
        }
        any
    }

    /// Reads and handles what a link has. True if it had anything.
    fn service(&mut self, id: Id, flags: epoll::EventFlags) -> bool {
        let Some(mut link) = self.links.get_mut(id).and_then(Option::take) else {
            return false;
        };
        let ready = epoll::EventFlags::OUT | epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        let outcome = match link.phase {
            Phase::Connecting if flags.intersects(ready) => {
                self.connected(&mut link).map(|()| true)
            }
            Phase::Connecting | Phase::Retry => Ok(false),
            _ => self.read(id, &mut link),
        };
        let writable = flags.contains(epoll::EventFlags::OUT);
        if let Some(slot) = self.links.get_mut(id) {
            *slot = Some(link);
        }
        match outcome {
            Ok(any) => {
                if any || writable {
                    self.push(id, true, writable);
                }
                any || writable
            }
            Err(end) => {
                self.end(id, end);
                true
            }
        }
    }
}
