//! Event dispatchers (udapl.md section 4.5): bounded queues of events, polled, or waited for through descriptors.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::ia::{Ia, Inner};
use crate::model::{AsyncKind, ConnectionKind, DtoCompletion, EpId, EvdFlags, Event};
use crate::psp::Cr;
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::{Id, Slab};

/// Events one EVD holds at most (attribute max_evd_qlen).
pub const EVD_QLEN_MAX: usize = 1 << 20;

/// An event before it is handed out.
pub(crate) enum Raw {
    Dto(DtoCompletion),
    Request(Id),
    Connection {
        kind: ConnectionKind,
        ep: EpId,
        private_data: Box<[u8]>,
    },
    Async(AsyncKind),
    Software(u64),
}

/// One dispatcher of the table.
pub(crate) struct Queue {
    pub(crate) flags: EvdFlags,
    qlen: usize,
    events: VecDeque<Raw>,
    /// Endpoints and service points that feed it.
    users: usize,
    orphan: bool,
    overflow: bool,
    unwaitable: bool,
    /// Descriptor that ends the wait of the thread inside `wait`, if one is inside.
    waiter: Option<Arc<OwnedFd>>,
}

impl Queue {
    fn new(qlen: usize, flags: EvdFlags) -> Self {
        let events = VecDeque::with_capacity(qlen.min(64));
        Self {
            flags,
            qlen,
            events,
            users: 0,
            orphan: false,
            overflow: false,
            unwaitable: false,
            waiter: None,
        }
    }

    fn ring(&self) {
        if let Some(bell) = &self.waiter {
            // A full counter rings too.
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
    }

    fn is_full(&self) -> bool {
        self.events.len() >= self.qlen
    }
}

/// All dispatchers of an adapter.
pub(crate) struct Evds {
    pub(crate) table: Slab<Queue>,
    /// Where overflows are told.
    pub(crate) errors: Option<Id>,
}

impl Evds {
    pub(crate) fn new() -> Self {
        let mut table = Slab::new();
        let errors = Some(table.insert(Queue::new(64, EvdFlags::ASYNC)));
        Self { table, errors }
    }

    /// Queues an event. An event without a place is lost, and the loss is told on the asynchronous EVD.
    pub(crate) fn push(&mut self, to: Option<Id>, event: Raw) {
        let Some(queue) = to.and_then(|id| self.table.get_mut(id)) else {
            return;
        };
        if !queue.is_full() {
            queue.events.push_back(event);
            queue.ring();
            return;
        }
        queue.overflow = true;
        queue.ring();
        if to != self.errors {
            self.push(self.errors, Raw::Async(AsyncKind::EvdOverflow));
        }
    }

    pub(crate) fn is_full(&self, id: Id) -> bool {
        self.table.get(id).is_none_or(Queue::is_full)
    }

    /// Whether `id` is live and takes this stream.
    pub(crate) fn takes(&self, id: Id, flags: EvdFlags) -> bool {
        self.table
            .get(id)
            .is_some_and(|queue| queue.flags.contains(flags))
    }

    pub(crate) fn hold(&mut self, id: Option<Id>) {
        if let Some(queue) = id.and_then(|id| self.table.get_mut(id)) {
            queue.users += 1;
        }
    }

    pub(crate) fn release(&mut self, id: Option<Id>) {
        let Some(id) = id else { return };
        if let Some(queue) = self.table.get_mut(id) {
            queue.users -= 1;
            if queue.orphan && queue.users == 0 {
                self.table.remove(id);
            }
        }
    }
}

impl Inner {
    /// Removes an EVD; connection requests nobody took are rejected.
    fn remove_evd(&mut self, id: Id) {
        let Some(queue) = self.evds.table.remove(id) else {
            return;
        };
        for event in queue.events {
            if let Raw::Request(cr) = event {
                self.drop_request(cr);
            }
        }
    }
}

/// An event dispatcher. Several endpoints may share it.
pub struct Evd {
    ia: Arc<Ia>,
    id: Id,
}

impl std::fmt::Debug for Evd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Evd").field(&self.id.index).finish()
    }
}

impl Evd {
    /// `dat_evd_create`: a queue for at least `min_qlen` events of the streams in `flags`.
    ///
    /// # Errors
    /// INVALID_PARAMETER (ARG2 length 0, ARG4 no stream), INSUFFICIENT_RESOURCES above [`EVD_QLEN_MAX`].
    pub fn create(ia: &Arc<Ia>, min_qlen: usize, flags: EvdFlags) -> Result<Self> {
        if min_qlen == 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        if min_qlen > EVD_QLEN_MAX {
            return Err(Error::resources(Subtype::Tevd));
        }
        if flags == EvdFlags::default() {
            return Err(Error::arg(Subtype::Arg4));
        }
        let id = ia.lock().evds.table.insert(Queue::new(min_qlen, flags));
        Ok(Self { ia: ia.clone(), id })
    }

    /// The adapter's asynchronous EVD, where overflows are told.
    pub(crate) fn errors(ia: &Arc<Ia>) -> Option<Self> {
        let id = ia.lock().evds.errors?;
        Some(Self { ia: ia.clone(), id })
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn belongs_to(&self, ia: &Arc<Ia>) -> bool {
        Arc::ptr_eq(&self.ia, ia)
    }

    fn take(&self, inner: &mut Inner) -> Result<Option<Event>> {
        let queue = inner
            .evds
            .table
            .get_mut(self.id)
            .ok_or(Error::handle(Subtype::None))?;
        Ok(queue.events.pop_front().map(|raw| match raw {
            Raw::Dto(completion) => Event::Dto(completion),
            Raw::Request(id) => {
                Event::ConnectionRequest(Cr::new(self.ia.clone(), id, inner.request_data(id)))
            }
            Raw::Connection {
                kind,
                ep,
                private_data,
            } => Event::Connection {
                kind,
                ep,
                private_data,
            },
            Raw::Async(kind) => Event::Async(kind),
            Raw::Software(value) => Event::Software(value),
        }))
    }

    /// The next event, if one is queued. Does not look at the sockets: [`Ia::step`] does.
    pub fn dequeue(&self) -> Option<Event> {
        self.try_dequeue().ok()
    }

    /// `dat_evd_dequeue`.
    ///
    /// # Errors
    /// QUEUE_EMPTY; INVALID_STATE (EVD_WAITER) while a thread is in [`Evd::wait`]; INVALID_HANDLE after a free.
    pub fn try_dequeue(&self) -> Result<Event> {
        let mut inner = self.ia.lock();
        let queue = inner
            .evds
            .table
            .get(self.id)
            .ok_or(Error::handle(Subtype::None))?;
        if queue.waiter.is_some() {
            return Err(Error::state(Subtype::EvdWaiter));
        }
        self.take(&mut inner)?
            .ok_or(Error::new(Type::QueueEmpty, Subtype::None))
    }

    /// Events queued now.
    pub fn queued(&self) -> usize {
        self.ia
            .lock()
            .evds
            .table
            .get(self.id)
            .map_or(0, |queue| queue.events.len())
    }

    /// `dat_evd_wait`: steps the adapter until `threshold` events are queued or the time has passed (`None`: without
    /// end), and takes the first; also tells how many remain.
    ///
    /// # Errors
    /// TIMEOUT_EXPIRED; INVALID_PARAMETER (ARG3) for a threshold of 0 or above the queue's length; INVALID_STATE
    /// with another waiter inside, while unwaitable, or after an overflow; INVALID_HANDLE after a free.
    pub fn wait(&self, timeout: Option<Duration>, threshold: usize) -> Result<(Event, usize)> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let bell = self.enter(threshold)?;
        let outcome = self.wait_inside(until, threshold, &bell);
        if let Some(queue) = self.ia.lock().evds.table.get_mut(self.id) {
            queue.waiter = None;
        }
        outcome
    }

    fn enter(&self, threshold: usize) -> Result<Arc<OwnedFd>> {
        let mut inner = self.ia.lock();
        let queue = inner
            .evds
            .table
            .get_mut(self.id)
            .ok_or(Error::handle(Subtype::None))?;
        if threshold == 0 || threshold > queue.qlen {
            return Err(Error::arg(Subtype::Arg3));
        }
        if queue.waiter.is_some() {
            return Err(Error::state(Subtype::EvdWaiter));
        }
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|_| Error::resources(Subtype::Memory))?;
        let bell = Arc::new(bell);
        queue.waiter = Some(bell.clone());
        Ok(bell)
    }

    fn wait_inside(
        &self,
        until: Option<Instant>,
        threshold: usize,
        bell: &OwnedFd,
    ) -> Result<(Event, usize)> {
        loop {
            while self.ia.step() {}
            {
                let mut inner = self.ia.lock();
                let queue = inner
                    .evds
                    .table
                    .get_mut(self.id)
                    .ok_or(Error::handle(Subtype::None))?;
                if queue.unwaitable {
                    return Err(Error::state(Subtype::EvdUnwaitable));
                }
                if queue.overflow {
                    return Err(Error::state(Subtype::EvdOpen));
                }
                let queued = queue.events.len();
                if queued >= threshold
                    && let Some(event) = self.take(&mut inner)?
                {
                    return Ok((event, queued - 1));
                }
            }
            let left = match until {
                None => None,
                Some(until) => match until.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => return Err(Error::new(Type::TimeoutExpired, Subtype::None)),
                },
            };
            self.sleep(left, bell);
        }
    }

    /// Blocks until the sockets or another thread's step have something, or the time has passed.
    fn sleep(&self, left: Option<Duration>, bell: &OwnedFd) {
        let limit = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [
            PollFd::new(&self.ia, PollFlags::IN),
            PollFd::new(bell, PollFlags::IN),
        ];
        // An interrupted or failed wait is a short one: the caller looks again.
        let _ = poll(&mut fds, limit.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(bell.as_fd(), &mut count);
    }

    /// `dat_evd_set_unwaitable`: ends a wait and refuses new ones until cleared.
    pub fn set_unwaitable(&self, unwaitable: bool) -> Result<()> {
        let mut inner = self.ia.lock();
        let queue = inner
            .evds
            .table
            .get_mut(self.id)
            .ok_or(Error::handle(Subtype::None))?;
        queue.unwaitable = unwaitable;
        queue.ring();
        Ok(())
    }

    /// `dat_evd_resize`: queued events stay.
    ///
    /// # Errors
    /// INVALID_STATE if more events are queued than the new length; INVALID_PARAMETER (ARG2) for length 0.
    pub fn resize(&self, qlen: usize) -> Result<()> {
        if qlen == 0 || qlen > EVD_QLEN_MAX {
            return Err(Error::arg(Subtype::Arg2));
        }
        let mut inner = self.ia.lock();
        let queue = inner
            .evds
            .table
            .get_mut(self.id)
            .ok_or(Error::handle(Subtype::None))?;
        if queue.events.len() > qlen {
            return Err(Error::state(Subtype::None));
        }
        queue.qlen = qlen;
        Ok(())
    }

    /// `dat_evd_post_se`.
    ///
    /// # Errors
    /// INVALID_HANDLE unless created with [`EvdFlags::SOFTWARE`]; QUEUE_FULL.
    pub fn post_software(&self, value: u64) -> Result<()> {
        let mut inner = self.ia.lock();
        if !inner.evds.takes(self.id, EvdFlags::SOFTWARE) {
            return Err(Error::handle(Subtype::None));
        }
        if inner.evds.is_full(self.id) {
            return Err(Error::new(Type::QueueFull, Subtype::None));
        }
        inner.evds.push(Some(self.id), Raw::Software(value));
        Ok(())
    }

    /// `dat_evd_free`.
    ///
    /// # Errors
    /// INVALID_STATE (EVD_IN_USE) while an endpoint or service point feeds it; INVALID_HANDLE the second time.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        let queue = inner
            .evds
            .table
            .get(self.id)
            .ok_or(Error::handle(Subtype::None))?;
        if queue.users > 0 || inner.evds.errors == Some(self.id) {
            return Err(Error::state(Subtype::EvdInUse));
        }
        inner.remove_evd(self.id);
        Ok(())
    }
}

impl Drop for Evd {
    fn drop(&mut self) {
        let mut inner = self.ia.lock();
        if inner.evds.errors == Some(self.id) {
            return; // belongs to the adapter
        }
        match inner.evds.table.get_mut(self.id) {
            Some(queue) if queue.users > 0 => queue.orphan = true,
            Some(_) => inner.remove_evd(self.id),
            None => {}
        }
    }
}
