//! The queues behind event dispatchers (udapl.md section 4.5), and where events that have no place are told.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::cno::Notifier;
use crate::evd::EvdId;
use crate::ia::Inner;
use crate::model::{
    AsyncAbout, AsyncKind, ConnectionKind, DtoCompletion, DtoStatus, EpId, EvdFlags,
};
use crate::rmr::RmrId;
use crate::slab::{Id, Slab};

/// Events the adapter's own asynchronous EVD holds.
const ERRORS: usize = 64;

/// An event before it is handed out.
pub(crate) enum Raw {
    Dto(DtoCompletion),
    Bind {
        rmr: RmrId,
        cookie: u64,
        status: DtoStatus,
    },
    Request(Id),
    Connection {
        kind: ConnectionKind,
        ep: EpId,
        private_data: Box<[u8]>,
    },
    Async(AsyncKind, AsyncAbout),
    Software(u64),
}

/// One dispatcher of the table.
pub(crate) struct Queue {
    pub(crate) flags: EvdFlags,
    pub(crate) qlen: usize,
    pub(crate) events: VecDeque<Raw>,
    /// Endpoints and service points that feed it.
    pub(crate) users: usize,
    pub(crate) orphan: bool,
    pub(crate) overflow: bool,
    pub(crate) unwaitable: bool,
    /// Whether more than one event may be waited for: an endpoint with that option feeds it.
    pub(crate) thresholds: bool,
    /// Triggered by an event that nobody waits for, while the queue is enabled.
    pub(crate) cno: Option<Id>,
    pub(crate) enabled: bool,
    /// Descriptor that ends the wait of the thread inside `wait`, if one is inside.
    pub(crate) waiter: Option<Arc<OwnedFd>>,
}

impl Queue {
    pub(crate) fn new(qlen: usize, flags: EvdFlags) -> Self {
        let events = VecDeque::with_capacity(qlen.min(64));
        Self {
            flags,
            qlen,
            events,
            users: 0,
            orphan: false,
            overflow: false,
            unwaitable: false,
            thresholds: false,
            cno: None,
            enabled: true,
            waiter: None,
        }
    }

    pub(crate) fn ring(&self) {
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
    pub(crate) cnos: Slab<Notifier>,
    /// Where overflows are told; the adapter's own is the first.
    pub(crate) errors: Vec<Id>,
}

impl Evds {
    pub(crate) fn new() -> Self {
        let mut table = Slab::new();
        let errors = vec![table.insert(Queue::new(ERRORS, EvdFlags::ASYNC))];
        let cnos = Slab::new();
        Self {
            table,
            cnos,
            errors,
        }
    }

    /// Queues an event. An event without a place is lost, and the loss is told on the asynchronous EVD.
    pub(crate) fn push(&mut self, to: Option<Id>, event: Raw) {
        let Some(queue) = to.and_then(|id| self.table.get_mut(id)) else {
            return;
        };
        if !queue.is_full() {
            queue.events.push_back(event);
            queue.ring();
            if queue.cno.is_some() {
                self.notify(to);
            }
            return;
        }
        queue.overflow = true;
        queue.ring();
        let Some(lost) = to.filter(|to| !self.errors.contains(to)) else {
            return;
        };
        self.tell(AsyncKind::EvdOverflow, AsyncAbout::Evd(EvdId(lost)));
    }

    /// Tells an error on every asynchronous EVD.
    pub(crate) fn tell(&mut self, kind: AsyncKind, about: AsyncAbout) {
        for index in 0..self.errors.len() {
            let errors = self.errors.get(index).copied();
            self.push(errors, Raw::Async(kind, about));
        }
    }

    /// An EVD has events: its CNO is triggered if nobody waits for them.
    pub(crate) fn notify(&mut self, evd: Option<Id>) {
        let Some(evd) = evd else { return };
        let queue = self.table.get(evd);
        let queue = queue.filter(|queue| queue.enabled && queue.waiter.is_none());
        if let Some(cno) = queue.and_then(|queue| queue.cno) {
            self.trigger(cno, evd);
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

    /// An endpoint with this option feeds the EVD with receives.
    pub(crate) fn allow_thresholds(&mut self, allow: bool, evd: Option<Id>) {
        if let Some(queue) = evd
            .filter(|_| allow)
            .and_then(|evd| self.table.get_mut(evd))
        {
            queue.thresholds = true;
        }
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
                let cno = queue.cno;
                self.table.remove(id);
                self.release_cno(cno);
            }
        }
    }
}

impl Inner {
    /// Removes an EVD; connection requests nobody took are rejected.
    pub(crate) fn remove_evd(&mut self, id: Id) {
        let Some(queue) = self.evds.table.remove(id) else {
            return;
        };
        queue.ring(); // a thread that waits finds it gone
        self.evds.errors.retain(|errors| *errors != id);
        self.evds.untrigger(queue.cno, id);
        self.evds.release_cno(queue.cno);
        for event in queue.events {
            if let Raw::Request(cr) = event {
                self.drop_request(cr);
            }
        }
    }
}
