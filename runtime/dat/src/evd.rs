//! Event dispatchers (udapl.md section 4.5): bounded queues of events, polled, or waited for through descriptors.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::cno::Cno;
use crate::ia::{Ia, Inner};
use crate::model::{EvdFlags, Event};
use crate::queue::{Queue, Raw};
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::Id;

/// Events one EVD holds at most (attribute max_evd_qlen).
pub const EVD_QLEN_MAX: usize = 1 << 20;

/// Name of a dispatcher within its adapter, as a [`Cno`] answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EvdId(pub(crate) Id);

/// What a dispatcher's query tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvdState {
    /// Events it holds at most.
    pub qlen: usize,
    /// The streams it takes.
    pub flags: EvdFlags,
    /// Whether its events trigger its CNO.
    pub enabled: bool,
    /// Whether it may be waited for.
    pub waitable: bool,
    /// Whether more than one event may be waited for.
    pub thresholds: bool,
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
        let id = *ia.lock().evds.errors.first()?;
        Some(Self { ia: ia.clone(), id })
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// How a [`Cno`] names this dispatcher.
    pub fn name(&self) -> EvdId {
        EvdId(self.id)
    }

    /// `dat_evd_modify_cno`, and the CNO of `dat_evd_create`: events that nobody waits for trigger it, those queued now
    /// too.
    ///
    /// # Errors
    /// INVALID_HANDLE (none for the EVD, CNO for one of another adapter).
    pub fn set_cno(&self, cno: Option<&Cno>) -> Result<()> {
        let mut inner = self.ia.lock();
        let cno = cno.map(|cno| cno.of(&self.ia, &inner)).transpose()?;
        let evds = &mut inner.evds;
        let queue = evds.table.get_mut(self.id);
        let queue = queue.ok_or(Error::handle(Subtype::None))?;
        let old = std::mem::replace(&mut queue.cno, cno);
        let due = !queue.events.is_empty();
        evds.hold_cno(cno);
        evds.release_cno(old);
        if due {
            evds.notify(Some(self.id));
        }
        Ok(())
    }

    /// `dat_evd_enable` and `dat_evd_disable`: whether events trigger the CNO; with events queued, enabling does.
    ///
    /// # Errors
    /// INVALID_HANDLE after a free.
    pub fn enable(&self, enabled: bool) -> Result<()> {
        let mut inner = self.ia.lock();
        let evds = &mut inner.evds;
        let queue = evds.table.get_mut(self.id);
        let queue = queue.ok_or(Error::handle(Subtype::None))?;
        let due = enabled && !queue.enabled && !queue.events.is_empty();
        queue.enabled = enabled;
        if due {
            evds.notify(Some(self.id));
        }
        Ok(())
    }

    /// `dat_evd_query`.
    ///
    /// # Errors
    /// INVALID_HANDLE after a free.
    pub fn query(&self) -> Result<EvdState> {
        let inner = self.ia.lock();
        let queue = inner.evds.table.get(self.id);
        let queue = queue.ok_or(Error::handle(Subtype::None))?;
        Ok(EvdState {
            qlen: queue.qlen,
            flags: queue.flags,
            enabled: queue.enabled,
            waitable: !queue.unwaitable,
            thresholds: queue.thresholds,
        })
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
            Raw::Bind {
                rmr,
                cookie,
                status,
            } => Event::Bind {
                rmr,
                cookie,
                status,
            },
            Raw::Request(id) => Event::ConnectionRequest(inner.request_of(&self.ia, id)),
            Raw::Connection {
                kind,
                ep,
                private_data,
            } => Event::Connection {
                kind,
                ep,
                private_data,
            },
            Raw::Async(kind, about) => Event::Async(kind, about),
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
    /// TIMEOUT_EXPIRED; INVALID_PARAMETER (ARG3) for a threshold of 0, above the queue's length, or above 1 on a queue
    /// that no endpoint with [`EpAttr::evd_threshold`](crate::EpAttr::evd_threshold) feeds; INVALID_STATE
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
        if threshold == 0 || threshold > queue.qlen || (threshold > 1 && !queue.thresholds) {
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

    /// Makes it a further asynchronous EVD of its adapter, until it is dropped or ended: it is told of lost events too.
    ///
    /// # Errors
    /// INVALID_HANDLE (EVD_ASYNC) unless created with [`EvdFlags::ASYNC`].
    pub fn tell_errors(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        if !inner.evds.takes(self.id, EvdFlags::ASYNC) {
            return Err(Error::handle(Subtype::EvdAsync));
        }
        if !inner.evds.errors.contains(&self.id) {
            inner.evds.errors.push(self.id);
        }
        Ok(())
    }

    /// Ends it whoever feeds it: their events are lost, a thread that waits is told that the handle is invalid.
    pub fn end(&self) {
        self.ia.lock().remove_evd(self.id);
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
        if queue.users > 0 || inner.evds.errors.contains(&self.id) {
            return Err(Error::state(Subtype::EvdInUse));
        }
        inner.remove_evd(self.id);
        Ok(())
    }
}

impl Drop for Evd {
    fn drop(&mut self) {
        let mut inner = self.ia.lock();
        if inner.evds.errors.first() == Some(&self.id) {
            return; // belongs to the adapter
        }
        match inner.evds.table.get_mut(self.id) {
            Some(queue) if queue.users > 0 => queue.orphan = true,
            Some(_) => inner.remove_evd(self.id),
            None => {}
        }
    }
}
