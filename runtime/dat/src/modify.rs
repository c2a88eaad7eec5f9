//! Endpoints: what they are asked and how they are changed before they connect (udapl.md section 4.6).

use std::net::SocketAddr;

use crate::ep::{Ep, feed, zone};
use crate::evd::Evd;
use crate::model::{EpState, EvdFlags};
use crate::pz::Pz;
use crate::request::EpAttr;
use crate::ret::{Error, Result, Subtype};

/// What [`Ep::modify`] changes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpChange<'a> {
    /// Its zone.
    pub pz: Option<&'a Pz>,
    /// Dispatcher of receives.
    pub recv: Option<&'a Evd>,
    /// Dispatcher of requests.
    pub request: Option<&'a Evd>,
    /// Dispatcher of connection events.
    pub connect: Option<&'a Evd>,
    /// Limits and options.
    pub attr: Option<EpAttr>,
}

impl Ep {
    /// `dat_ep_modify`.
    ///
    /// # Errors
    /// As [`Ep::create`], but INVALID_PARAMETER is about ARG3; INVALID_STATE once a connection is asked for or accepted.
    pub fn modify(&self, change: EpChange<'_>) -> Result<()> {
        let ia = &self.ia;
        let mut guard = ia.lock();
        let inner = &mut *guard;
        let pz = zone(ia, inner, change.pz)?;
        let recv = feed(ia, inner, change.recv, EvdFlags::DTO, Subtype::EvdRecv)?;
        let request = feed(
            ia,
            inner,
            change.request,
            EvdFlags::DTO,
            Subtype::EvdRequest,
        )?;
        let connect = feed(
            ia,
            inner,
            change.connect,
            EvdFlags::CONNECTION,
            Subtype::EvdConn,
        )?;
        let ep = inner.eps.get_mut(self.index);
        let ep = ep.ok_or(Error::handle(Subtype::Ep))?;
        match ep.state() {
            EpState::Unconnected
            | EpState::Reserved
            | EpState::PassiveConnectionPending
            | EpState::TentativeConnectionPending => {}
            state => return Err(Error::state(state.subtype())),
        }
        let attr = change.attr.unwrap_or(ep.attr);
        if !attr.within_limits() || attr.max_recv_dtos < ep.receives.len() {
            return Err(Error::arg(Subtype::Arg3));
        }
        ep.attr = attr;
        let mut released = [None; 3];
        let places = [&mut ep.recv_evd, &mut ep.request_evd, &mut ep.connect_evd];
        for ((place, new), old) in places
            .into_iter()
            .zip([recv, request, connect])
            .zip(&mut released)
        {
            if new.is_some() {
                *old = std::mem::replace(place, new);
            }
        }
        let recv_now = ep.recv_evd;
        let old_pz = pz.map(|pz| std::mem::replace(&mut ep.pz, pz));
        for evd in [recv, request, connect] {
            inner.evds.hold(evd);
        }
        for evd in released {
            inner.evds.release(evd);
        }
        inner.evds.allow_thresholds(attr.evd_threshold, recv_now);
        if let (Some(pz), Some(old)) = (pz, old_pz) {
            inner.hold_pz(pz);
            inner.release_pz(old);
        }
        Ok(())
    }

    /// What an endpoint's query tells beside what its owner gave it: the peer's address, the qualifier of the service
    /// here and that of the service there.
    ///
    /// # Errors
    /// INVALID_HANDLE after a free.
    pub fn connection(&self) -> Result<(Option<SocketAddr>, u64, u64)> {
        let inner = self.ia.lock();
        let ep = inner.eps.get(self.index);
        let ep = ep.ok_or(Error::handle(Subtype::Ep))?;
        Ok((ep.peer, ep.local_qualifier, ep.peer_qualifier))
    }

    /// `dat_ep_get_status`: state, whether no receive is posted, whether no request is.
    ///
    /// # Errors
    /// INVALID_HANDLE after a free.
    pub fn status(&self) -> Result<(EpState, bool, bool)> {
        let inner = self.ia.lock();
        let ep = inner.eps.get(self.index);
        let ep = ep.ok_or(Error::handle(Subtype::Ep))?;
        Ok((ep.state(), ep.receives.is_empty(), ep.requests.is_empty()))
    }

    /// Whether requests may be posted now.
    ///
    /// # Errors
    /// INVALID_HANDLE after a free; INVALID_STATE unless CONNECTED or DISCONNECTED.
    pub fn may_post(&self) -> Result<()> {
        match self.status()?.0 {
            EpState::Connected | EpState::Disconnected => Ok(()),
            state => Err(Error::state(state.subtype())),
        }
    }

    /// Whether it is freed, or was made for a request that ended without a connection.
    pub fn is_gone(&self) -> bool {
        self.ia.lock().eps.get(self.index).is_none()
    }

    /// `dat_ep_recv_query`: receives posted and not completed, and how far they span; the two are equal here, since
    /// receives complete in order.
    ///
    /// # Errors
    /// INVALID_HANDLE after a free.
    pub fn receives(&self) -> Result<usize> {
        let inner = self.ia.lock();
        let ep = inner.eps.get(self.index);
        Ok(ep.ok_or(Error::handle(Subtype::Ep))?.receives.len())
    }
}
