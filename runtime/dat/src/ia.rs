//! The interface adapter: descriptors, tables, and [`Ia::step`], which does all work that is ready (udapl.md
//! section 4.1).
//!
//! One lock guards everything; no call holds it while it blocks. Sockets are watched by one epoll descriptor, which
//! is what a consumer sleeps on. The adapter starts no thread: whoever calls `step`, or waits on an EVD, serves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use windlass_wire::auth::Secret;

use crate::evd::{Evd, Evds};
use crate::link::{Link, OUT_FILL, Phase, SendError, socket, tune};
use crate::lmr::LmrTable;
use crate::model::{ConnectionKind, DtoStatus};
use crate::psp::PendingRequest;
use crate::pz::Zone;
use crate::request::Endpoint;
use crate::serve::{End, Server};
use crate::slab::{Id, Slab};

/// Connections that have not proved to belong to the job at most (reliability.md S2). One more evicts the oldest.
pub const STRANGERS_MAX: usize = 64;
/// Time for the handshake and for the connection request after it.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(2);
/// Time for the peer to take the last frames and close.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Bytes read from one socket at once, and how often in one step: no link keeps the others waiting longer.
const READ_SIZE: usize = 256 * 1024;
const READS_PER_STEP: usize = 4;
/// Fills of the output in one step and link.
const WRITES_PER_STEP: usize = 8;
/// Connections taken from the listener in one step.
const ACCEPTS_PER_STEP: usize = 16;
/// Steps in a row that may look only at the link that had data last.
const HOT_STEPS: usize = 32;
/// How long the listener rests when the process is out of descriptors.
const LISTENER_REST: Duration = Duration::from_millis(100);
/// Length of the kernel's queue of connections.
const BACKLOG: i32 = 1024;

/// Names of the two descriptors that are no links.
const LISTENER: Id = Id {
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
    epoll: Arc<OwnedFd>,
    listener: OwnedFd,
    timer: OwnedFd,
    pub(crate) pzs: Slab<Zone>,
    pub(crate) lmrs: LmrTable,
    pub(crate) eps: Slab<Endpoint>,
    pub(crate) evds: Evds,
    /// Qualifier to EVD.
    pub(crate) psps: BTreeMap<u64, Id>,
    pub(crate) requests: Slab<PendingRequest>,
    /// `None` while a link is being served.
    pub(crate) links: Slab<Option<Box<Link>>>,
    dirty: Vec<Id>,
    /// Unauthenticated connections, oldest first.
    pub(crate) strangers: VecDeque<Id>,
    deadlines: BTreeSet<(Instant, Id)>,
    armed: Option<Instant>,
    scratch: Vec<u8>,
    hot: Option<Id>,
    hot_steps: usize,
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
        let family = if config.bind.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let listener = socket(family)?;
        rustix::net::bind(&listener, &config.bind)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let local = address(rustix::net::getsockname(&listener)?).ok_or(Errno::AFNOSUPPORT)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        epoll::add(&epoll, &listener, token(LISTENER), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &timer, token(TIMER), epoll::EventFlags::IN)?;
        let inner = Inner {
            secret: config.secret,
            epoll: epoll.clone(),
            listener,
            timer,
            pzs: Slab::new(),
            lmrs: LmrTable::new(),
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

fn token(id: Id) -> epoll::EventData {
    epoll::EventData::new_u64(id.to_word())
}

fn address(any: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(any).ok()
}

/// Sends what may be sent. True: all of it; false: the socket is full, or this step has done its share.
fn pump(
    link: &mut Link,
    mut ep: Option<&mut Endpoint>,
    lmrs: &LmrTable,
    write: bool,
) -> Result<bool, SendError> {
    for _ in 0..WRITES_PER_STEP {
        let mut more = true;
        while more && link.out.len() < OUT_FILL {
            more = link.encode_next(ep.as_deref_mut(), lmrs)?;
        }
        if !write {
            return Ok(false);
        }
        if !link.write().map_err(SendError::Io)? {
            return Ok(false);
        }
        if !more {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Inner {
    /// See [`Ia::step`].
    fn step(&mut self) -> bool {
        let mut any = false;
        for id in std::mem::take(&mut self.dirty) {
            if let Some(Some(link)) = self.links.get_mut(id) {
                link.dirty = false;
                self.push_link(id);
                any = true;
            }
        }
        // The link that spoke last most likely speaks next: asking it first spares a system call in a dialogue.
        if let Some(hot) = self.hot
            && self.hot_steps < HOT_STEPS
        {
            self.hot_steps += 1;
            if self.service(hot, epoll::EventFlags::IN) {
                return true;
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
                LISTENER => self.take_connections(),
                TIMER => self.expire(),
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

    fn read(&mut self, id: Id, link: &mut Link) -> Result<bool, End> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.read_into(id, link, &mut scratch);
        self.scratch = scratch;
        outcome
    }

    fn read_into(&mut self, id: Id, link: &mut Link, scratch: &mut [u8]) -> Result<bool, End> {
        for round in 0..READS_PER_STEP {
            // What was left is less than a frame without payload or a handshake message.
            let kept = link.partial.len();
            scratch[..kept].copy_from_slice(&link.partial);
            let got = match rustix::io::read(&link.socket, &mut scratch[kept..]) {
                Ok(0) => return Err(End::Closed),
                Ok(got) => got,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(round > 0),
                Err(_) => return Err(End::Closed),
            };
            link.partial.clear();
            let data = &scratch[..kept + got];
            let used = self.input(id, link, data)?;
            link.partial.extend_from_slice(&data[used..]);
            if data.len() < scratch.len() {
                break; // the socket is empty: no need to be told
            }
        }
        Ok(true)
    }

    /// Handles input in whatever phase the link is, until it needs more.
    fn input(&mut self, id: Id, link: &mut Link, data: &[u8]) -> Result<usize, End> {
        let mut at = 0;
        loop {
            let rest = &data[at..];
            let used = match link.phase {
                Phase::Data => {
                    let Self {
                        eps, lmrs, evds, ..
                    } = self;
                    let ep = link.ep.and_then(|ep| eps.get_mut(ep)).ok_or(End::Done)?;
                    return Server {
                        link,
                        ep,
                        lmrs,
                        evds,
                    }
                    .input(rest)
                    .map(|used| at + used);
                }
                Phase::Drain { .. } => return Ok(data.len()),
                _ => self.greet(id, link, rest)?,
            };
            match used {
                Some(used) => at += used,
                None => return Ok(at),
            }
        }
    }

    /// Encodes and writes what a link has to send.
    pub(crate) fn push_link(&mut self, id: Id) {
        self.push(id, true, false);
    }

    /// Only encodes, so that sources may be reused; a later post, push or step writes it.
    pub(crate) fn encode_link(&mut self, id: Id) {
        self.push(id, false, false);
    }

    /// Leaves it to a later post, push or step to send what a link owes.
    pub(crate) fn encode_later(&mut self, id: Id) {
        if let Some(Some(link)) = self.links.get_mut(id)
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(id);
        }
    }

    fn push(&mut self, id: Id, write: bool, writable: bool) {
        let Self {
            links,
            eps,
            lmrs,
            dirty,
            epoll,
            ..
        } = self;
        let Some(Some(link)) = links.get_mut(id) else {
            return;
        };
        if matches!(link.phase, Phase::Connecting | Phase::Retry) {
            return;
        }
        // A socket known to be full is not asked again before it says so.
        let write = (write || link.out.len() >= OUT_FILL) && (writable || !link.watching_out);
        let ep = link.ep.and_then(|ep| eps.get_mut(ep));
        match pump(link, ep, lmrs, write) {
            Ok(sent) => {
                if !write && !link.watching_out && !link.dirty {
                    link.dirty = true;
                    dirty.push(id);
                }
                if write && sent == link.watching_out {
                    watch_out(epoll, link, id, !sent);
                }
                if sent {
                    self.all_sent(id);
                }
            }
            Err(SendError::Io(errno)) => {
                tracing::debug!(%errno, "a connection failed while sending");
                self.end(id, End::Closed);
            }
            Err(SendError::Source) => self.source_lost(id),
            Err(SendError::Revoked) => {
                self.take_down(id, None, ConnectionKind::Disconnected);
                self.drain(id);
            }
        }
    }

    /// The output is empty: a draining link ends its side; an endpoint that leaves gracefully may be done.
    #[inline]
    fn all_sent(&mut self, id: Id) {
        let Some(Some(link)) = self.links.get_mut(id) else {
            return;
        };
        match &mut link.phase {
            Phase::Drain { shut } if !*shut => {
                *shut = true;
                let _ = rustix::net::shutdown(&link.socket, rustix::net::Shutdown::Write);
            }
            Phase::Data => self.leave_if_done(id),
            _ => {}
        }
    }

    /// The region a request was reading from is gone: it fails, and with it the connection.
    fn source_lost(&mut self, id: Id) {
        if let Some(Some(link)) = self.links.get(id)
            && let Some(ep) = link.ep.and_then(|ep| self.eps.get_mut(ep))
        {
            while ep.sent > 0 {
                ep.complete(&mut self.evds, DtoStatus::Flushed);
            }
        }
        self.take_down(id, Some(DtoStatus::LocalProtection), ConnectionKind::Broken);
        self.say_bye(id);
    }

    pub(crate) fn register(&mut self, link: Link) -> Result<Id, Errno> {
        let watching = link.watching_out;
        let id = self.links.insert(Some(Box::new(link)));
        match self.watch(id, watching) {
            Ok(()) => Ok(id),
            Err(errno) => {
                self.links.remove(id);
                Err(errno)
            }
        }
    }

    /// Adds a link's socket to the epoll set.
    pub(crate) fn watch(&mut self, id: Id, out: bool) -> Result<(), Errno> {
        let Some(Some(link)) = self.links.get(id) else {
            return Ok(());
        };
        epoll::add(&self.epoll, &link.socket, token(id), interest(out))
    }

    /// Takes a link's socket out of the epoll set.
    pub(crate) fn unwatch(&mut self, id: Id) {
        if let Some(Some(link)) = self.links.get(id) {
            let _ = epoll::delete(&self.epoll, &link.socket);
        }
    }

    /// Removes a link; its socket closes.
    pub(crate) fn close(&mut self, id: Id) {
        self.set_deadline(id, None);
        self.strangers.retain(|stranger| *stranger != id);
        if self.hot == Some(id) {
            self.hot = None;
        }
        if let Some(Some(link)) = self.links.remove(id)
            && let Phase::Pending(request) = link.phase
        {
            self.requests.remove(request);
        }
    }

    pub(crate) fn set_deadline(&mut self, id: Id, at: Option<Instant>) {
        if let Some(Some(link)) = self.links.get_mut(id)
            && let Some(before) = std::mem::replace(&mut link.deadline, at)
        {
            self.deadlines.remove(&(before, id));
        }
        if let Some(at) = at {
            self.deadlines.insert((at, id));
        }
        self.arm();
    }

    /// For a link that is out of its slot while it is served.
    pub(crate) fn set_deadline_of(&mut self, id: Id, link: &mut Link, at: Option<Instant>) {
        if let Some(before) = std::mem::replace(&mut link.deadline, at) {
            self.deadlines.remove(&(before, id));
        }
        if let Some(at) = at {
            self.deadlines.insert((at, id));
        }
        self.arm();
    }

    /// Sets the timer to the earliest deadline, so that the descriptor becomes readable then.
    fn arm(&mut self) {
        let earliest = self.deadlines.first().map(|(at, _)| *at);
        if earliest == self.armed {
            return;
        }
        self.armed = earliest;
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let left = earliest.map(|at| {
            at.saturating_duration_since(Instant::now())
                .max(Duration::from_micros(1))
        });
        let value = left
            .and_then(|left| Timespec::try_from(left).ok())
            .unwrap_or(zero);
        let setting = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting);
    }

    fn expire(&mut self) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        self.armed = None;
        let now = Instant::now();
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            if id == LISTENER {
                let _ = epoll::add(
                    &self.epoll,
                    &self.listener,
                    token(LISTENER),
                    epoll::EventFlags::IN,
                );
            } else {
                self.too_late(id, now);
            }
        }
        self.arm();
        true
    }

    fn take_connections(&mut self) -> bool {
        for _ in 0..ACCEPTS_PER_STEP {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => self.stranger(socket),
                Err(Errno::AGAIN) => break,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // Level-triggered: without a rest this would spin until a descriptor is free.
                    let _ = epoll::delete(&self.epoll, &self.listener);
                    self.deadlines
                        .insert((Instant::now() + LISTENER_REST, LISTENER));
                    self.arm();
                    break;
                }
                Err(_) => {} // that connection is gone already
            }
        }
        true
    }

    fn stranger(&mut self, socket: OwnedFd) {
        tune(&socket);
        if self.strangers.len() >= STRANGERS_MAX
            && let Some(oldest) = self.strangers.pop_front()
        {
            self.close(oldest);
        }
        if let Ok(id) = self.register(Link::new(socket, Phase::Hello)) {
            self.strangers.push_back(id);
            self.set_deadline(id, Some(Instant::now() + HANDSHAKE_TIME));
        }
    }
}

fn interest(out: bool) -> epoll::EventFlags {
    let base = epoll::EventFlags::IN;
    if out {
        base | epoll::EventFlags::OUT
    } else {
        base
    }
}

fn watch_out(epoll: &OwnedFd, link: &mut Link, id: Id, out: bool) {
    link.watching_out = out;
    let _ = epoll::modify(epoll, &link.socket, token(id), interest(out));
}
