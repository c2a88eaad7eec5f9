//! Shared receive queues (udapl.md section 4.7): receives that serve whichever endpoint a message arrives on.
//!
//! A send starts only when its receive is certain. The peer of an endpoint with a shared queue holds no receives in
//! advance, as they may be wanted elsewhere: it asks for one when a send waits, and receives are promised in the order
//! of asking. An endpoint that goes gives back what it was promised.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ia::{Ia, Inner};
use crate::model::{AsyncAbout, AsyncKind, Flags, LocalSegment};
use crate::post::check_iov;
use crate::pz::Pz;
use crate::request::{DTOS_MAX, Endpoint, Receive};
use crate::ret::{Error, Result, Subtype};
use crate::slab::{Id, Slab};

/// One queue of the table.
pub(crate) struct SharedQueue {
    pub(crate) pz: Id,
    max_receives: usize,
    receives: VecDeque<Receive>,
    /// Receives promised to senders; never more than there are.
    promised: usize,
    /// Endpoints whose peers wait for a receive.
    waiting: VecDeque<Id>,
    /// Endpoints made with it.
    pub(crate) users: usize,
    orphan: bool,
}

impl SharedQueue {
    /// Promises the endpoint a receive, at once or when its turn comes. Nothing if it waits already.
    pub(crate) fn ask(&mut self, ep: &mut Endpoint) -> Option<bool> {
        if self.waiting.contains(&ep.id.0) {
            return None;
        }
        let free = self.receives.len() > self.promised;
        if free {
            self.promised += 1;
            ep.promised += 1;
        } else {
            self.waiting.push_back(ep.id.0);
        }
        Some(free)
    }

    /// The receive for a message that was promised one.
    pub(crate) fn take(&mut self, ep: &mut Endpoint) -> Option<Receive> {
        ep.promised = ep.promised.checked_sub(1)?;
        self.promised -= 1;
        self.receives.pop_front()
    }
}

impl Inner {
    /// Promises free receives to those who wait.
    fn promise(&mut self, srq: Id) {
        loop {
            let Self {
                srqs, eps, links, ..
            } = self;
            let Some(queue) = srqs.get_mut(srq) else {
                return;
            };
            if queue.receives.len() == queue.promised {
                return;
            }
            let Some(ep) = queue.waiting.pop_front() else {
                return;
            };
            let Some((ep, id)) = eps.get_mut(ep).and_then(|ep| {
                let link = ep.link?;
                Some((ep, link))
            }) else {
                continue; // gone meanwhile
            };
            if queue.ask(ep) == Some(true)
                && let Some(Some(link)) = links.get_mut(id)
            {
                link.advertise += 1;
                link.owes = true;
            }
            self.push_link(id);
        }
    }

    /// A connection of an endpoint has ended: if it has such a queue, what it was promised is free, and that is told, so
    /// that the consumer knows when the queue's memory is no longer the endpoint's.
    pub(crate) fn give_back(&mut self, ep: Id) {
        let Some(ep) = self.eps.get_mut(ep) else {
            return;
        };
        let Some(srq) = ep.srq else { return };
        self.evds.tell(AsyncKind::EpBroken, AsyncAbout::Ep(ep.id));
        let promised = std::mem::take(&mut ep.promised);
        if let Some(queue) = self.srqs.get_mut(srq) {
            queue.promised -= promised as usize;
            queue.waiting.retain(|waiting| *waiting != ep.id.0);
        }
        if promised > 0 {
            self.promise(srq);
        }
    }

    pub(crate) fn release_srq(&mut self, id: Id) {
        if let Some(queue) = self.srqs.get_mut(id) {
            queue.users -= 1;
            if queue.orphan && queue.users == 0 {
                self.remove_srq(id);
            }
        }
    }

    fn remove_srq(&mut self, id: Id) {
        if let Some(queue) = self.srqs.remove(id) {
            self.release_pz(queue.pz);
        }
    }
}

/// A shared receive queue. It may be dropped before its endpoints: they keep it.
pub struct Srq {
    ia: Arc<Ia>,
    id: Id,
}

impl std::fmt::Debug for Srq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Srq").field(&self.id.index).finish()
    }
}

/// What a queue's query tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SrqState {
    /// Receives it holds at most.
    pub max_receives: usize,
    /// Receives posted and not taken by a message.
    pub available: usize,
    /// Those of them that are promised to a message on its way.
    pub outstanding: usize,
}

impl Srq {
    /// `dat_srq_create`: for at most `max_receives` posted receives.
    ///
    /// # Errors
    /// INVALID_HANDLE (PZ); INVALID_PARAMETER (ARG3) for 0 receives; INSUFFICIENT_RESOURCES above [`DTOS_MAX`].
    pub fn create(pz: &Pz, max_receives: usize) -> Result<Self> {
        let ia = pz.ia().clone();
        let mut inner = ia.lock();
        if inner.pzs.get(pz.id()).is_none() {
            return Err(Error::handle(Subtype::Pz));
        }
        check_length(max_receives, Subtype::Arg3)?;
        let id = inner.srqs.insert(SharedQueue {
            pz: pz.id(),
            max_receives,
            receives: VecDeque::new(),
            promised: 0,
            waiting: VecDeque::new(),
            users: 0,
            orphan: false,
        });
        inner.hold_pz(pz.id());
        drop(inner);
        Ok(Self { ia, id })
    }

    /// The queue's name, if it is live and of this adapter.
    pub(crate) fn of(&self, ia: &Arc<Ia>, inner: &Inner) -> Result<Id> {
        let live = Arc::ptr_eq(&self.ia, ia) && inner.srqs.get(self.id).is_some();
        live.then_some(self.id)
            .ok_or(Error::handle(Subtype::SrqHandle))
    }

    fn get(srqs: &mut Slab<SharedQueue>, id: Id) -> Result<&mut SharedQueue> {
        srqs.get_mut(id).ok_or(Error::handle(Subtype::SrqHandle))
    }

    /// `dat_srq_post_recv`.
    ///
    /// # Errors
    /// INVALID_HANDLE (SRQ); INSUFFICIENT_RESOURCES when full; what [`Ep::post_recv`](crate::Ep::post_recv) says of the
    /// segments.
    pub fn post_recv(&self, local: &[LocalSegment], cookie: u64) -> Result<()> {
        let mut guard = self.ia.lock();
        let Inner { srqs, lmrs, .. } = &mut *guard;
        let queue = Self::get(srqs, self.id)?;
        if queue.receives.len() >= queue.max_receives {
            return Err(Error::resources(Subtype::Memory));
        }
        let iov = check_iov(lmrs, queue.pz, local, true)?;
        queue.receives.push_back(Receive {
            cookie,
            iov,
            flags: Flags::DEFAULT,
        });
        guard.promise(self.id);
        Ok(())
    }

    /// `dat_srq_query`.
    ///
    /// # Errors
    /// INVALID_HANDLE (SRQ).
    pub fn query(&self) -> Result<SrqState> {
        let mut inner = self.ia.lock();
        let queue = Self::get(&mut inner.srqs, self.id)?;
        Ok(SrqState {
            max_receives: queue.max_receives,
            available: queue.receives.len(),
            outstanding: queue.promised,
        })
    }

    /// `dat_srq_resize`: posted receives stay.
    ///
    /// # Errors
    /// INVALID_HANDLE (SRQ); INVALID_PARAMETER (ARG2) for 0; INVALID_STATE if more receives are posted;
    /// INSUFFICIENT_RESOURCES above [`DTOS_MAX`].
    pub fn resize(&self, max_receives: usize) -> Result<()> {
        let mut inner = self.ia.lock();
        let queue = Self::get(&mut inner.srqs, self.id)?;
        check_length(max_receives, Subtype::Arg2)?;
        if queue.receives.len() > max_receives {
            return Err(Error::state(Subtype::None));
        }
        queue.max_receives = max_receives;
        Ok(())
    }

    /// `dat_srq_free`: receives that are posted are forgotten.
    ///
    /// # Errors
    /// INVALID_HANDLE (SRQ); INVALID_STATE (SRQ_IN_USE) while an endpoint was made with it.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        if Self::get(&mut inner.srqs, self.id)?.users > 0 {
            return Err(Error::state(Subtype::SrqInUse));
        }
        inner.remove_srq(self.id);
        Ok(())
    }
}

fn check_length(receives: usize, argument: Subtype) -> Result<()> {
    match receives {
        0 => Err(Error::arg(argument)),
        1..=DTOS_MAX => Ok(()),
        _ => Err(Error::resources(Subtype::Srq)),
    }
}

impl Drop for Srq {
    fn drop(&mut self) {
        let mut inner = self.ia.lock();
        match inner.srqs.get_mut(self.id) {
            Some(queue) if queue.users > 0 => queue.orphan = true,
            Some(_) => inner.remove_srq(self.id),
            None => {}
        }
    }
}
