//! Endpoints: their life (udapl.md section 4.6). What is posted on them: `post.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::evd::Evd;
use crate::ia::{Ia, Inner};
use crate::link::{Dial, Phase};
use crate::model::{CloseFlags, ConnectionKind, EpId, EpState, EvdFlags};
use crate::pz::{NO_PZ, Pz};
use crate::request::{Endpoint, EpAttr, Seen};
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::Id;
use crate::srq::Srq;
use crate::wire::PRIVATE_DATA_MAX;

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

/// The zone's name, if it is live and of this adapter.
pub(crate) fn zone(ia: &Arc<Ia>, inner: &Inner, pz: Option<&Pz>) -> Result<Option<Id>> {
    match pz {
        None => Ok(None),
        Some(pz) if Arc::ptr_eq(pz.ia(), ia) && inner.pzs.get(pz.id()).is_some() => {
            Ok(Some(pz.id()))
        }
        Some(_) => Err(Error::handle(Subtype::Pz)),
    }
}

/// The dispatcher's name if it may take these events for an endpoint of `ia`.
pub(crate) fn feed(
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
        Self::make(pz.ia(), Some(pz), [recv, request, connect], None, attr)
    }

    /// `dat_ep_create` without a zone, which [`Ep::modify`] adds before the endpoint is connected.
    ///
    /// # Errors
    /// As [`Ep::create`].
    pub fn create_without_pz(
        ia: &Arc<Ia>,
        recv: Option<&Evd>,
        request: Option<&Evd>,
        connect: Option<&Evd>,
        attr: EpAttr,
    ) -> Result<Self> {
        Self::make(ia, None, [recv, request, connect], None, attr)
    }

    /// `dat_ep_create_with_srq`: its receives are those of the queue, and `attr.max_recv_dtos` is not looked at.
    ///
    /// # Errors
    /// As [`Ep::create`]; INVALID_HANDLE (SRQ, EVD_RECV without one); INVALID_PARAMETER (ARG6) for a queue of another
    /// zone.
    pub fn create_with_srq(
        pz: &Pz,
        recv: Option<&Evd>,
        request: Option<&Evd>,
        connect: Option<&Evd>,
        srq: &Srq,
        attr: EpAttr,
    ) -> Result<Self> {
        Self::make(pz.ia(), Some(pz), [recv, request, connect], Some(srq), attr)
    }

    fn make(
        ia: &Arc<Ia>,
        pz: Option<&Pz>,
        [recv, request, connect]: [Option<&Evd>; 3],
        srq: Option<&Srq>,
        attr: EpAttr,
    ) -> Result<Self> {
        let mut inner = ia.lock();
        let pz = zone(ia, &inner, pz)?.unwrap_or(NO_PZ);
        let recv_evd = feed(ia, &inner, recv, EvdFlags::DTO, Subtype::EvdRecv)?;
        let request_evd = feed(ia, &inner, request, EvdFlags::DTO, Subtype::EvdRequest)?;
        let connect_evd = feed(ia, &inner, connect, EvdFlags::CONNECTION, Subtype::EvdConn)?;
        let srq = srq.map(|srq| srq.of(ia, &inner)).transpose()?;
        if srq.is_some() && recv_evd.is_none() {
            return Err(Error::handle(Subtype::EvdRecv));
        }
        let receives = srq.is_some() || recv_evd.is_some() == (attr.max_recv_dtos > 0);
        let fits = receives
            && request_evd.is_some() == (attr.max_request_dtos > 0)
            && attr.within_limits()
            && srq.is_none_or(|srq| inner.srqs.get(srq).is_some_and(|srq| srq.pz == pz));
        if !fits {
            return Err(Error::arg(Subtype::Arg6));
        }
        let seen = Arc::new(Seen::default());
        let evds = [recv_evd, request_evd, connect_evd];
        let mut endpoint = Endpoint::new(pz, evds, attr, seen.clone());
        endpoint.srq = srq;
        let id = inner.insert_ep(endpoint);
        drop(inner);
        Ok(Self {
            ia: ia.clone(),
            index: id,
            seen,
        })
    }

    /// The handle of an endpoint that was made for a request.
    pub(crate) fn of(ia: &Arc<Ia>, index: Id) -> Option<Self> {
        let seen = ia.lock().eps.get(index)?.seen.clone();
        Some(Self {
            ia: ia.clone(),
            index,
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
    /// INVALID_STATE unless UNCONNECTED, or (EP_NOTREADY) without a zone or a connection dispatcher; INVALID_PARAMETER (ARG4
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
        if !ep.is_configured(&inner.pzs) {
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
            ep.peer = Some(address);
            ep.peer_qualifier = qualifier;
            ep.set_state(EpState::ActiveConnectionPending);
        }
        Ok(())
    }

    /// `dat_ep_disconnect`.
    ///
    /// # Errors
    /// INVALID_STATE without a connection, even one asked for; INVALID_PARAMETER (ARG2) for a graceful one while one is under way.
    pub fn disconnect(&self, flags: CloseFlags) -> Result<()> {
        let mut inner = self.ia.lock();
        let ep = inner
            .eps
            .get(self.index)
            .ok_or(Error::handle(Subtype::Ep))?;
        match (ep.state(), flags) {
            (EpState::Disconnected, _) => Ok(()),
            (
                state @ (EpState::Unconnected
                | EpState::Reserved
                | EpState::PassiveConnectionPending
                | EpState::TentativeConnectionPending),
                _,
            ) => Err(Error::state(state.subtype())),
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
    /// INVALID_STATE while RESERVED, PASSIVE_ or TENTATIVE_CONNECTION_PENDING; INVALID_HANDLE the second time.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        let ep = inner.eps.get(self.index);
        match ep.ok_or(Error::handle(Subtype::Ep))?.state() {
            state @ (EpState::Reserved
            | EpState::PassiveConnectionPending
            | EpState::TentativeConnectionPending) => Err(Error::state(state.subtype())),
            _ => {
                inner.hang_up(self.index);
                inner.remove_ep(self.index);
                Ok(())
            }
        }
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
        let mut inner = self.ia.lock(); // in whatever state; already freed is fine
        inner.hang_up(self.index);
        inner.remove_ep(self.index);
    }
}

impl Inner {
    /// Adds an endpoint to the table and tells it its name.
    pub(crate) fn insert_ep(&mut self, endpoint: Endpoint) -> Id {
        let (pz, srq) = (endpoint.pz, endpoint.srq);
        self.evds
            .allow_thresholds(endpoint.attr.evd_threshold, endpoint.recv_evd);
        let evds = [
            endpoint.recv_evd,
            endpoint.request_evd,
            endpoint.connect_evd,
        ];
        let id = self.eps.insert(endpoint);
        if let Some(ep) = self.eps.get_mut(id) {
            ep.id = EpId(id);
        }
        self.hold_pz(pz);
        for evd in evds {
            self.evds.hold(evd);
        }
        if let Some(srq) = srq.and_then(|srq| self.srqs.get_mut(srq)) {
            srq.users += 1;
        }
        id
    }

    /// Takes an endpoint out of the table; its connection must be gone.
    pub(crate) fn remove_ep(&mut self, id: Id) {
        let Some(ep) = self.eps.remove(id) else {
            return;
        };
        self.release_pz(ep.pz);
        for evd in [ep.recv_evd, ep.request_evd, ep.connect_evd] {
            self.evds.release(evd);
        }
        if let Some(srq) = ep.srq {
            self.release_srq(srq);
        }
    }

    /// Abrupt end of an endpoint's connection, from this side.
    pub(crate) fn hang_up(&mut self, ep: Id) {
        let Some(id) = self.eps.get(ep).and_then(|ep| ep.link) else {
            return;
        };
        let Some(Some(link)) = self.links.get_mut(id) else {
            return;
        };
        link.leave_unanswered(); // the farewell flushes them at the peer
        // Whoever was accepted talks already, and what is told has an order.
        let talking = matches!(link.phase, Phase::Ready | Phase::Data);
        self.take_down(id, None, ConnectionKind::Disconnected);
        if talking {
            self.say_bye(id)
        } else {
            self.close(id)
        }
    }
}
