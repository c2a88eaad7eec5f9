//! Service points and connection requests (udapl.md section 4.6).

use std::sync::Arc;

use crate::ep::Ep;
use crate::evd::Evd;
use crate::ia::{Ia, Inner};
use crate::link::Phase;
use crate::model::{EpState, EvdFlags};
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::Id;
use crate::wire::{Header, Kind, PRIVATE_DATA_MAX};

/// First qualifier that [`Psp::create_any`] tries.
const ANY_FIRST: u64 = 1 << 32;

/// A request that the consumer has not answered.
pub(crate) struct PendingRequest {
    pub(crate) link: Id,
    pub(crate) private_data: Box<[u8]>,
}

impl Inner {
    pub(crate) fn request_data(&self, id: Id) -> Box<[u8]> {
        self.requests
            .get(id)
            .map_or_else(Box::default, |request| request.private_data.clone())
    }

    /// Rejects a request nobody will answer.
    pub(crate) fn drop_request(&mut self, id: Id) {
        let _ = self.reject(id, true, &[]);
    }

    fn reject(&mut self, id: Id, without_consumer: bool, private_data: &[u8]) -> Result<()> {
        let request = self.requests.remove(id).ok_or(Error::handle(Subtype::Cr))?;
        let mut header = Header::new(Kind::Reject);
        header.flags = u8::from(without_consumer);
        header.len = private_data.len() as u32;
        if let Some(Some(link)) = self.links.get_mut(request.link) {
            link.control(header, private_data);
        }
        self.drain(request.link);
        Ok(())
    }
}

/// A public service point: connection requests for a qualifier arrive at its EVD.
pub struct Psp {
    ia: Arc<Ia>,
    qualifier: u64,
}

impl std::fmt::Debug for Psp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Psp").field(&self.qualifier).finish()
    }
}

impl Psp {
    /// `dat_psp_create` with the CONSUMER flag.
    ///
    /// # Errors
    /// INVALID_HANDLE (EVD_CR) for an EVD without the CR flag or of another adapter; CONN_QUAL_IN_USE.
    pub fn create(evd: &Evd, ia: &Arc<Ia>, qualifier: u64) -> Result<Self> {
        let mut inner = ia.lock();
        if !evd.belongs_to(ia) || !inner.evds.takes(evd.id(), EvdFlags::CR) {
            return Err(Error::handle(Subtype::EvdCr));
        }
        if inner.psps.contains_key(&qualifier) {
            return Err(Error::new(Type::ConnQualInUse, Subtype::None));
        }
        inner.psps.insert(qualifier, evd.id());
        inner.evds.hold(Some(evd.id()));
        drop(inner);
        Ok(Self {
            ia: ia.clone(),
            qualifier,
        })
    }

    /// `dat_psp_create_any`: the provider chooses the qualifier.
    ///
    /// # Errors
    /// As [`Psp::create`]; CONN_QUAL_UNAVAILABLE.
    pub fn create_any(evd: &Evd, ia: &Arc<Ia>) -> Result<Self> {
        for qualifier in ANY_FIRST..ANY_FIRST + (1 << 16) {
            match Self::create(evd, ia, qualifier) {
                Err(error) if error.kind == Type::ConnQualInUse => {}
                outcome => return outcome,
            }
        }
        Err(Error::new(Type::ConnQualUnavailable, Subtype::None))
    }

    /// What peers connect to.
    pub fn qualifier(&self) -> u64 {
        self.qualifier
    }
}

impl Drop for Psp {
    fn drop(&mut self) {
        let mut inner = self.ia.lock();
        let evd = inner.psps.remove(&self.qualifier);
        inner.evds.release(evd);
    }
}

/// A connection request. Dropping it rejects it.
pub struct Cr {
    ia: Arc<Ia>,
    id: Id,
    private_data: Box<[u8]>,
}

impl std::fmt::Debug for Cr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cr")
            .field("private_data", &self.private_data)
            .finish_non_exhaustive()
    }
}

impl Cr {
    pub(crate) fn new(ia: Arc<Ia>, id: Id, private_data: Box<[u8]>) -> Self {
        Self {
            ia,
            id,
            private_data,
        }
    }

    /// What the peer sent with its request.
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// `dat_cr_accept` with an endpoint of the consumer: it becomes COMPLETION_PENDING, then CONNECTED.
    ///
    /// # Errors
    /// INVALID_HANDLE (CR) if the peer has gone, (EP) for one of another adapter; INVALID_STATE unless the endpoint
    /// is UNCONNECTED; INVALID_PARAMETER (ARG3) for private data above [`PRIVATE_DATA_MAX`].
    pub fn accept(&self, ep: &Ep, private_data: &[u8]) -> Result<()> {
        let mut guard = self.ia.lock();
        let inner = &mut *guard;
        if private_data.len() > PRIVATE_DATA_MAX {
            return Err(Error::arg(Subtype::Arg3));
        }
        let id = ep.table_id(&self.ia).ok_or(Error::handle(Subtype::Ep))?;
        let endpoint = inner.eps.get_mut(id).ok_or(Error::handle(Subtype::Ep))?;
        if endpoint.state() != EpState::Unconnected {
            return Err(Error::state(endpoint.state().subtype()));
        }
        let request = inner
            .requests
            .remove(self.id)
            .ok_or(Error::handle(Subtype::Cr))?;
        let Some(Some(link)) = inner.links.get_mut(request.link) else {
            return Err(Error::handle(Subtype::Cr));
        };
        link.phase = Phase::Ready;
        link.ep = Some(id);
        let mut header = Header::new(Kind::Accept);
        // The peer may send at once; receives posted after this are told when it has established.
        link.promised = endpoint.receives.len().min(usize::from(u16::MAX)) as u32;
        header.credits = link.promised as u16;
        header.len = private_data.len() as u32;
        link.control(header, private_data);
        endpoint.link = Some(request.link);
        endpoint.set_state(EpState::CompletionPending);
        inner.push_link(request.link);
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
