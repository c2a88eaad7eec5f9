//! Endpoints: their life (udapl.md section 4.6). What is posted on them: `post.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::evd::Evd;
use crate::ia::{Ia, Inner};
use crate::link::{Dial, Phase};
use crate::model::{CloseFlags, ConnectionKind, EpId, EpState, EvdFlags};
use crate::pz::Pz;
use crate::request::{Endpoint, EpAttr, Seen};
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::Id;
use crate::wire::PRIVATE_DATA_MAX;

/// Limits of [`EpAttr`].
const DTOS_MAX: usize = 1 << 20;

/// A reliable connection's end. Dropping it disconnects abruptly and frees it.
pub struct Ep {
    pub(crate) ia: Arc<Ia>,
    pub(crate) index: Id,
    pub(crate) seen: Arc<Seen>,
}

impl std::fmt::Debug for Ep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ep")
            .field("index", &self.index.index)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The dispatcher's name if it may take these events for an endpoint of `ia`.
fn feed(
    ia: &Arc<Ia>,
    inner: &Inner,
    evd: Option<&Evd>,
    flags: EvdFlags,
    wrong: Subtype,
) -> Result<Option<Id>> {
    match evd {
        None => Ok(None),
        Some(evd) if evd.belongs_to(ia) && inner.evds.takes(evd.id(), flags) => Ok(Some(evd.id())),
        Some(_) => Err(Error::handle(wrong)),
    }
}

impl Ep {
    /// `dat_ep_create`. Dispatchers may be shared, and one may serve for all three.
    ///
    /// # Errors
    /// INVALID_HANDLE (PZ, EVD_RECV, EVD_REQUEST, EVD_CONN) for a freed object or one that does not take the events;
    /// INVALID_PARAMETER (ARG6) for attributes that do not fit the dispatchers or exceed the limits.
    pub fn create(
        pz: &Pz,
        recv: Option<&Evd>,
        request: Option<&Evd>,
        connect: Option<&Evd>,
        attr: EpAttr,
    ) -> Result<Self> {
        let ia = pz.ia().clone();
        let mut inner = ia.lock();
        if inner.pzs.get(pz.id()).is_none() {
            return Err(Error::handle(Subtype::Pz));
        }
        let recv_evd = feed(&ia, &inner, recv, EvdFlags::DTO, Subtype::EvdRecv)?;
        let request_evd = feed(&ia, &inner, request, EvdFlags::DTO, Subtype::EvdRequest)?;
        let connect_evd = feed(&ia, &inner, connect, EvdFlags::CONNECTION, Subtype::EvdConn)?;
        let fits = recv_evd.is_some() == (attr.max_recv_dtos > 0)
            && request_evd.is_some() == (attr.max_request_dtos > 0)
            && attr.max_recv_dtos <= DTOS_MAX
            && attr.max_request_dtos <= DTOS_MAX;
        if !fits {
            return Err(Error::arg(Subtype::Arg6));
        }
        let seen = Arc::new(Seen {
            state: AtomicU8::new(EpState::Unconnected as u8),
            posted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
        });
        let id = inner.eps.insert(Endpoint::new(
            pz.id(),
            [recv_evd, request_evd, connect_evd],
            attr,
            seen.clone(),
        ));
        if let Some(ep) = inner.eps.get_mut(id) {
            ep.id = EpId(id);
        }
        inner.hold_pz(pz.id());
        for evd in [recv_evd, request_evd, connect_evd] {
            inner.evds.hold(evd);
        }
        drop(inner);
        Ok(Self {
            ia,
            index: id,
            seen,
        })
    }

    /// How events name this endpoint.
    pub fn id(&self) -> EpId {
        EpId(self.index)
    }

    /// Its state, without a lock.
    pub fn state(&self) -> EpState {
        EpState::from_u8(self.seen.state.load(Ordering::Acquire))
    }

    /// Requests posted and requests completed successfully since the last reset, without a lock. Requests complete in
    /// order, so all is done when both are equal, suppressed completions included; a failure leaves them apart.
    pub fn counts(&self) -> (u64, u64) {
        let completed = self.seen.completed.load(Ordering::Acquire);
        (self.seen.posted.load(Ordering::Relaxed), completed)
    }

    pub(crate) fn table_id(&self, ia: &Arc<Ia>) -> Option<Id> {
        Arc::ptr_eq(&self.ia, ia).then_some(self.index)
    }

    /// `dat_ep_connect`: asks the service `qualifier` at `address`. The outcome is an event.
    ///
    /// # Errors
    /// INVALID_STATE unless UNCONNECTED, or (EP_NOTREADY) without a connection dispatcher; INVALID_PARAMETER (ARG4
    /// time 0, ARG5 private data above [`PRIVATE_DATA_MAX`]); INVALID_ADDRESS if the host cannot use the address.
    pub fn connect(
        &self,
        address: SocketAddr,
        qualifier: u64,
        timeout: Option<Duration>,
        private_data: &[u8],
    ) -> Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::arg(Subtype::Arg4));
        }
        if private_data.len() > PRIVATE_DATA_MAX {
            return Err(Error::arg(Subtype::Arg5));
        }
        let mut inner = self.ia.lock();
        let ep = inner
            .eps
            .get(self.index)
            .ok_or(Error::handle(Subtype::Ep))?;
        if ep.state() != EpState::Unconnected {
            return Err(Error::state(ep.state().subtype()));
        }
        if ep.connect_evd.is_none() {
            return Err(Error::state(Subtype::EpNotReady));
        }
        let give_up = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let dial = Dial {
            to: address,
            qualifier,
            private_data: private_data.into(),
            give_up,
            tries: 0,
        };
        let link = inner.dial(self.index, dial).map_err(|errno| {
            tracing::debug!(%errno, %address, "cannot connect");
            Error::new(Type::InvalidAddress, Subtype::AddressUnreachable)
        })?;
        if let Some(ep) = inner.eps.get_mut(self.index) {
            ep.link = Some(link);
            ep.set_state(EpState::ActiveConnectionPending);
        }
        Ok(())
    }

    /// `dat_ep_disconnect`.
    ///
    /// # Errors
    /// INVALID_STATE if UNCONNECTED; INVALID_PARAMETER (ARG2) for a graceful one while one is under way.
    pub fn disconnect(&self, flags: CloseFlags) -> Result<()> {
        let mut inner = self.ia.lock();
        let ep = inner
            .eps
            .get(self.index)
            .ok_or(Error::handle(Subtype::Ep))?;
        match (ep.state(), flags) {
            (EpState::Disconnected, _) => Ok(()),
            (state @ EpState::Unconnected, _) => Err(Error::state(state.subtype())),
            (EpState::DisconnectPending, CloseFlags::Graceful) => Err(Error::arg(Subtype::Arg2)),
            (EpState::Connected, CloseFlags::Graceful) => {
                ep.set_state(EpState::DisconnectPending);
                if let Some(link) = ep.link {
                    inner.push_link(link); // leaves now if nothing is pending
                }
                Ok(())
            }
            _ => {
                inner.hang_up(self.index);
                Ok(())
            }
        }
    }

    /// `dat_ep_reset`: back to UNCONNECTED; the counts start anew.
    ///
    /// # Errors
    /// INVALID_STATE unless DISCONNECTED or UNCONNECTED.
    pub fn reset(&self) -> Result<()> {
        let inner = self.ia.lock();
        let ep = inner
            .eps
            .get(self.index)
            .ok_or(Error::handle(Subtype::Ep))?;
        match ep.state() {
            EpState::Unconnected => Ok(()),
            EpState::Disconnected => {
                self.seen.posted.store(0, Ordering::Relaxed);
                self.seen.completed.store(0, Ordering::Relaxed);
                ep.set_state(EpState::Unconnected);
                Ok(())
            }
            state => Err(Error::state(state.subtype())),
        }
    }

    /// `dat_ep_free`: disconnects abruptly; nothing of it completes any more.
    ///
    /// # Errors
    /// INVALID_HANDLE the second time.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        inner.hang_up(self.index);
        let ep = inner
            .eps
            .remove(self.index)
            .ok_or(Error::handle(Subtype::Ep))?;
        inner.release_pz(ep.pz);
        for evd in [ep.recv_evd, ep.request_evd, ep.connect_evd] {
            inner.evds.release(evd);
        }
        Ok(())
    }

    /// Sends what posts with [`Flags::MORE`](crate::Flags::MORE) left behind.
    pub fn push(&self) {
        let mut inner = self.ia.lock();
        if let Some(link) = inner.eps.get(self.index).and_then(|ep| ep.link) {
            inner.push_link(link);
        }
    }
}

impl Drop for Ep {
    fn drop(&mut self) {
        let _ = self.free(); // already freed is fine
    }
}

impl Inner {
    /// Abrupt end of an endpoint's connection, from this side.
    fn hang_up(&mut self, ep: Id) {
        let Some(id) = self.eps.get(ep).and_then(|ep| ep.link) else {
            return;
        };
        let Some(Some(link)) = self.links.get_mut(id) else {
            return;
        };
        link.answers.clear(); // the farewell flushes them at the peer
        let talking = matches!(link.phase, Phase::Data);
        self.take_down(id, None, ConnectionKind::Disconnected);
        if talking {
            self.say_bye(id)
        } else {
            self.close(id)
        }
    }
}
