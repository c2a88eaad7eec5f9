//! Consumer notification objects (udapl.md section 4.5): one place to wait for many dispatchers.
//!
//! A CNO is untriggered or triggered, and stays triggered until a wait takes it. An event on an enabled EVD that nobody
//! waits for triggers the EVD's CNO. The EVD that is answered may be empty by then: drain it with a dequeue.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::evd::EvdId;
use crate::ia::{Ia, Inner};
use crate::queue::Evds;
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::Id;

/// One CNO of the table.
pub(crate) struct Notifier {
    /// The EVD that triggered it.
    triggered: Option<Id>,
    /// Readable while it is triggered.
    bell: Arc<OwnedFd>,
    /// EVDs that refer to it.
    users: usize,
    /// Threads inside `wait`.
    waiters: usize,
    dead: bool,
    orphan: bool,
}

impl Notifier {
    pub(crate) fn ring(&self) {
        // A full counter rings too.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl Notifier {
    fn silence(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }
}

impl Evds {
    /// An event has come to an EVD that refers to this CNO.
    pub(crate) fn trigger(&mut self, cno: Id, evd: Id) {
        if let Some(cno) = self.cnos.get_mut(cno) {
            cno.triggered = Some(evd);
            cno.ring();
        }
    }

    /// An EVD goes: what it triggered is forgotten.
    pub(crate) fn untrigger(&mut self, cno: Option<Id>, evd: Id) {
        if let Some(cno) = cno.and_then(|cno| self.cnos.get_mut(cno))
            && cno.triggered == Some(evd)
        {
            cno.triggered = None;
            cno.silence();
        }
    }

    pub(crate) fn hold_cno(&mut self, id: Option<Id>) {
        if let Some(cno) = id.and_then(|id| self.cnos.get_mut(id)) {
            cno.users += 1;
        }
    }

    pub(crate) fn release_cno(&mut self, id: Option<Id>) {
        let Some(id) = id else { return };
        if let Some(cno) = self.cnos.get_mut(id) {
            cno.users -= 1;
            if cno.orphan && cno.users == 0 {
                self.cnos.remove(id);
            }
        }
    }
}

/// A consumer notification object. It may be dropped before its EVDs: they keep it.
pub struct Cno {
    ia: Arc<Ia>,
    id: Id,
    bell: Arc<OwnedFd>,
}

impl std::fmt::Debug for Cno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cno").field(&self.id.index).finish()
    }
}

fn get(inner: &mut Inner, id: Id) -> Result<&mut Notifier> {
    let cno = inner.evds.cnos.get_mut(id);
    cno.ok_or(Error::handle(Subtype::Cno))
}

impl Cno {
    /// `dat_cno_create`, and `dat_cno_fd_create`: see [`Cno::fd`].
    ///
    /// # Errors
    /// INSUFFICIENT_RESOURCES without a descriptor for it.
    pub fn create(ia: &Arc<Ia>) -> Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|_| Error::resources(Subtype::Memory))?;
        let bell = Arc::new(bell);
        let id = ia.lock().evds.cnos.insert(Notifier {
            triggered: None,
            bell: bell.clone(),
            users: 0,
            waiters: 0,
            dead: false,
            orphan: false,
        });
        Ok(Self {
            ia: ia.clone(),
            id,
            bell,
        })
    }

    /// A descriptor that is readable while the CNO is triggered. Wait for it, never read it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The CNO's name, if it is live and of this adapter.
    pub(crate) fn of(&self, ia: &Arc<Ia>, inner: &Inner) -> Result<Id> {
        let live = Arc::ptr_eq(&self.ia, ia) && inner.evds.cnos.get(self.id).is_some();
        live.then_some(self.id).ok_or(Error::handle(Subtype::Cno))
    }

    /// Takes the trigger, if it is triggered (`dat_cno_trigger`).
    ///
    /// # Errors
    /// INVALID_HANDLE (CNO); INVALID_STATE (CNO_DEAD).
    pub fn take(&self) -> Result<Option<EvdId>> {
        let mut inner = self.ia.lock();
        let cno = get(&mut inner, self.id)?;
        if cno.dead {
            return Err(Error::state(Subtype::CnoDead));
        }
        let Some(evd) = cno.triggered.take() else {
            return Ok(None);
        };
        cno.silence();
        Ok(Some(EvdId(evd)))
    }

    /// `dat_cno_wait`: steps the adapter until an EVD triggers the CNO. Any number of threads may wait; one gets it.
    ///
    /// # Errors
    /// QUEUE_EMPTY when the time has passed; INVALID_STATE (CNO_DEAD) after [`Cno::kill`]; INVALID_HANDLE (CNO).
    pub fn wait(&self, timeout: Option<Duration>) -> Result<EvdId> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        get(&mut self.ia.lock(), self.id)?.waiters += 1;
        let outcome = self.wait_inside(until);
        if let Ok(cno) = get(&mut self.ia.lock(), self.id) {
            cno.waiters -= 1;
        }
        outcome
    }

    fn wait_inside(&self, until: Option<Instant>) -> Result<EvdId> {
        loop {
            while self.ia.step() {}
            if let Some(evd) = self.take()? {
                return Ok(evd);
            }
            let left = match until.map(|until| until.checked_duration_since(Instant::now())) {
                None => None,
                Some(Some(left)) if !left.is_zero() => Some(left),
                Some(_) => return Err(Error::new(Type::QueueEmpty, Subtype::None)),
            };
            let limit = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [
                PollFd::new(&self.ia, PollFlags::IN),
                PollFd::new(&self.bell, PollFlags::IN),
            ];
            // An interrupted or failed wait is a short one: the loop looks again.
            let _ = poll(&mut fds, limit.as_ref());
        }
    }

    /// The CNO is dead from here on: waits end and are refused.
    pub fn kill(&self) {
        if let Ok(cno) = get(&mut self.ia.lock(), self.id) {
            cno.dead = true;
            cno.ring(); // and stays readable, for every waiter
        }
    }

    /// Dispatchers that refer to it.
    ///
    /// # Errors
    /// INVALID_HANDLE (CNO).
    pub fn users(&self) -> Result<usize> {
        Ok(get(&mut self.ia.lock(), self.id)?.users)
    }

    /// `dat_cno_free`.
    ///
    /// # Errors
    /// INVALID_HANDLE (CNO); INVALID_STATE (CNO_IN_USE) while an EVD refers to it or a thread waits.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        let cno = get(&mut inner, self.id)?;
        if cno.users > 0 || cno.waiters > 0 {
            return Err(Error::state(Subtype::CnoInUse));
        }
        inner.evds.cnos.remove(self.id);
        Ok(())
    }
}

impl Drop for Cno {
    fn drop(&mut self) {
        let mut inner = self.ia.lock();
        match inner.evds.cnos.get_mut(self.id) {
            Some(cno) if cno.users > 0 => cno.orphan = true,
            Some(_) => {
                inner.evds.cnos.remove(self.id);
            }
            None => {}
        }
    }
}
