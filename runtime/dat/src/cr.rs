//! Connection requests: accepted, rejected, handed on (udapl.md section 4.6).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ep::Ep;
use crate::ia::{Ia, Inner};
use crate::link::Phase;
use crate::model::{EpId, EpState};
use crate::ret::{Error, Result, Subtype};
use crate::slab::Id;
use crate::wire::{Header, Kind, PRIVATE_DATA_MAX};

impl Inner {
    /// The consumer's object of an arrived request.
    pub(crate) fn request_of(&self, ia: &Arc<Ia>, id: Id) -> Cr {
        let request = self.requests.get(id);
        let ep = request.and_then(|request| request.ep);
        Cr {
            ia: ia.clone(),
            id,
            private_data: request.map_or_else(Box::default, |request| request.private_data.clone()),
            qualifier: request.map_or(0, |request| request.qualifier),
            from: request.and_then(|request| request.from),
            ep,
            made: AtomicBool::new(ep.is_some_and(|ep| {
                let state = self.eps.get(ep).map(|ep| ep.state());
                state == Some(EpState::TentativeConnectionPending)
            })),
        }
    }

    /// Rejects a request nobody will answer.
    pub(crate) fn drop_request(&mut self, id: Id) {
        let _ = self.reject(id, true, &[]);
    }

    fn reject(&mut self, id: Id, without_consumer: bool, private_data: &[u8]) -> Result<()> {
        let request = self.forget_request(id).ok_or(Error::handle(Subtype::Cr))?;
        let mut header = Header::new(Kind::Reject);
        header.flags = u8::from(without_consumer);
        header.len = private_data.len() as u32;
        if let Some(Some(link)) = self.links.get_mut(request) {
            link.control(header, private_data);
        }
        self.drain(request);
        Ok(())
    }

    /// A request that ends without a connection: the link it came on. Its reserved endpoint is UNCONNECTED again, one
    /// that was made for it is gone.
    pub(crate) fn forget_request(&mut self, id: Id) -> Option<Id> {
        let request = self.requests.remove(id)?;
        if let Some(id) = request.ep
            && let Some(ep) = self.eps.get(id)
        {
            if ep.state() == EpState::TentativeConnectionPending {
                self.remove_ep(id);
            } else {
                ep.set_state(EpState::Unconnected);
            }
        }
        Some(request.link)
    }
}

/// A connection request. Dropping it rejects it.
pub struct Cr {
    ia: Arc<Ia>,
    id: Id,
    private_data: Box<[u8]>,
    qualifier: u64,
    from: Option<SocketAddr>,
    ep: Option<Id>,
    /// An endpoint that was made for it and that nobody has taken yet.
    made: AtomicBool,
}

impl std::fmt::Debug for Cr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cr")
            .field("private_data", &self.private_data)
            .finish_non_exhaustive()
    }
}

impl Cr {
    /// What the peer sent with its request.
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// What it asked for.
    pub fn qualifier(&self) -> u64 {
        self.qualifier
    }

    /// Where it came from; nothing if the peer has gone meanwhile.
    pub fn from(&self) -> Option<SocketAddr> {
        self.from
    }

    /// The endpoint that the service point brought (`local_ep_handle`).
    pub fn local_ep(&self) -> Option<EpId> {
        self.ep.map(EpId)
    }

    /// The endpoint that was made for this request, for its new owner; nothing the second time.
    pub fn take_ep(&self) -> Option<Ep> {
        if !self.made.swap(false, Ordering::AcqRel) {
            return None;
        }
        Ep::of(&self.ia, self.ep?)
    }

    /// `dat_cr_accept` with an endpoint of the consumer: it becomes COMPLETION_PENDING, then CONNECTED.
    ///
    /// # Errors
    /// INVALID_HANDLE (CR) if the peer has gone, (EP) for one of another adapter or if the request brought one;
    /// INVALID_STATE unless the endpoint is UNCONNECTED; INVALID_PARAMETER (ARG3) for private data above
    /// [`PRIVATE_DATA_MAX`].
    pub fn accept(&self, ep: &Ep, private_data: &[u8]) -> Result<()> {
        let id = ep.table_id(&self.ia).ok_or(Error::handle(Subtype::Ep))?;
        self.accept_with(Some(id), private_data)
    }

    /// `dat_cr_accept` with the endpoint that the request brought.
    ///
    /// # Errors
    /// As [`Cr::accept`]; INVALID_HANDLE (EP) if it brought none; INVALID_STATE (EP_NOTREADY) while a made endpoint has
    /// no zone or no connection dispatcher.
    pub fn accept_own(&self, private_data: &[u8]) -> Result<()> {
        self.accept_with(None, private_data)
    }

    fn accept_with(&self, given: Option<Id>, private_data: &[u8]) -> Result<()> {
        let mut guard = self.ia.lock();
        let inner = &mut *guard;
        if private_data.len() > PRIVATE_DATA_MAX {
            return Err(Error::arg(Subtype::Arg3));
        }
        let request = inner
            .requests
            .get(self.id)
            .ok_or(Error::handle(Subtype::Cr))?;
        let no_ep = Error::handle(Subtype::Ep);
        let (id, wanted) = match (given, request.ep) {
            (Some(id), None) => (id, None),
            (None, Some(id)) => (id, Some(())),
            _ => return Err(no_ep),
        };
        let (link_id, from, qualifier) = (request.link, request.from, request.qualifier);
        let configured = inner.eps.get(id).ok_or(no_ep)?.is_configured(&inner.pzs);
        let endpoint = inner.eps.get_mut(id).ok_or(no_ep)?;
        let state = endpoint.state();
        let right = match wanted {
            None => state == EpState::Unconnected,
            Some(()) => true, // PASSIVE or TENTATIVE, as long as the request lives
        };
        if !right {
            return Err(Error::state(state.subtype()));
        }
        if !configured {
            return Err(Error::state(Subtype::EpNotReady));
        }
        let Some(Some(link)) = inner.links.get_mut(link_id) else {
            return Err(Error::handle(Subtype::Cr));
        };
        inner.requests.remove(self.id);
        link.phase = Phase::Ready;
        link.ep = Some(id);
        let mut header = Header::new(Kind::Accept);
        // The peer may send at once; receives posted after this are told when it has established.
        link.promised = endpoint.receives.len().min(usize::from(u16::MAX)) as u32;
        header.credits = link.promised as u16;
        header.len = private_data.len() as u32;
        header.flags = u8::from(endpoint.srq.is_some());
        link.control(header, private_data);
        endpoint.link = Some(link_id);
        endpoint.peer = from;
        endpoint.local_qualifier = qualifier;
        endpoint.set_state(EpState::CompletionPending);
        inner.push_link(link_id);
        Ok(())
    }

    /// `dat_cr_reject`: the peer sees PEER_REJECTED with this data.
    ///
    /// # Errors
    /// INVALID_HANDLE (CR) if the peer has gone; INVALID_PARAMETER (ARG2) for private data above
    /// [`PRIVATE_DATA_MAX`].
    pub fn reject(&self, private_data: &[u8]) -> Result<()> {
        if private_data.len() > PRIVATE_DATA_MAX {
            return Err(Error::arg(Subtype::Arg2));
        }
        self.ia.lock().reject(self.id, false, private_data)
    }
}

impl Drop for Cr {
    fn drop(&mut self) {
        self.ia.lock().drop_request(self.id); // without effect once answered
    }
}
