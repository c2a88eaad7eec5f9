//! Service points and what arrives at them (udapl.md section 4.6). The requests themselves: `cr.rs`.
//!
//! A qualifier is a number within the adapter, which peers reach through its one listener; or, for a service point with
//! a port, it names a TCP port of the adapter's interface ([`port_of`]): programs over libdat2 know only address and
//! qualifier of each other.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::io::Errno;

use crate::ep::Ep;
use crate::evd::Evd;
use crate::ia::{Ia, Inner};
use crate::model::{EpState, EvdFlags};
use crate::queue::Raw;
use crate::request::Endpoint;
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::Id;

/// First qualifier that [`Psp::create_any`] tries.
const ANY_FIRST: u64 = 1 << 32;

/// A qualifier's entry.
pub(crate) struct Point {
    evd: Id,
    serves: Serves,
    /// Its port has a listener of its own.
    port: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// The consumer brings an endpoint with its accept.
    Consumer,
    /// An endpoint is made for each request.
    Provider,
    /// The first request, with this endpoint.
    Reserved(Id),
}

/// A request that the consumer has not answered.
pub(crate) struct PendingRequest {
    pub(crate) link: Id,
    pub(crate) private_data: Box<[u8]>,
    pub(crate) qualifier: u64,
    pub(crate) from: Option<SocketAddr>,
    /// The endpoint that the service point brought.
    pub(crate) ep: Option<Id>,
}

/// Where a service point is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At the adapter's listener, under this number.
    Qualifier(u64),
    /// At the TCP port that this number names.
    Port(u64),
    /// At any free TCP port, whose number is the qualifier.
    AnyPort,
}

/// The TCP port that a qualifier names: a port's number itself; any other number one of those that ordinary users may
/// have. Qualifiers of one adapter may share a port; those of two processes may not.
pub const fn port_of(qualifier: u64) -> u16 {
    const FIRST: u64 = 1024;
    const PORTS: u64 = 65536 - FIRST;
    match qualifier {
        1..=65535 => qualifier as u16,
        _ => (FIRST + qualifier % PORTS) as u16,
    }
}

/// Who makes the endpoint of an accepted connection (DAT_PSP_FLAGS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PspFlags {
    /// The consumer, who gives it to the accept.
    #[default]
    Consumer,
    /// The adapter: an unconfigured one comes with each request.
    Provider,
}

impl Inner {
    /// Makes a service point; answers its qualifier.
    fn serve(&mut self, evd: Id, serves: Serves, at: At) -> Result<u64> {
        let (qualifier, port) = match at {
            At::Qualifier(qualifier) => (Some(qualifier), None),
            At::Port(qualifier) => (Some(qualifier), Some(port_of(qualifier))),
            At::AnyPort => (None, Some(0)),
        };
        if let Some(qualifier) = qualifier
            && self.psps.contains_key(&qualifier)
        {
            return Err(Error::new(Type::ConnQualInUse, Subtype::None));
        }
        let port = port.map(|port| self.listen(port)).transpose();
        let port = port.map_err(|errno| match errno {
            Errno::ADDRINUSE => Error::new(Type::ConnQualInUse, Subtype::None),
            Errno::ACCESS => Error::new(Type::ConnQualUnavailable, Subtype::None),
            _ => Error::resources(Subtype::Device),
        })?;
        let qualifier = qualifier.or(port.map(u64::from)).unwrap_or_default();
        self.psps.insert(qualifier, Point { evd, serves, port });
        self.evds.hold(Some(evd));
        Ok(qualifier)
    }

    /// Ends a service point; what has arrived at it stays.
    pub(crate) fn close_point(&mut self, qualifier: u64) -> Option<Point> {
        let point = self.psps.remove(&qualifier)?;
        if let Some(port) = point.port {
            self.stop_port(port);
        }
        self.evds.release(Some(point.evd));
        Some(point)
    }

    /// A request for `qualifier` has arrived on a link: its name, or nothing if nobody serves it.
    pub(crate) fn arrive(
        &mut self,
        link: Id,
        from: Option<SocketAddr>,
        qualifier: u64,
        private_data: &[u8],
    ) -> Option<Id> {
        let point = self.psps.get(&qualifier)?;
        let (evd, serves) = (point.evd, point.serves);
        if self.evds.is_full(evd) {
            return None;
        }
        let ep = match serves {
            Serves::Consumer => None,
            Serves::Provider => Some(self.insert_ep(Endpoint::unconfigured())),
            Serves::Reserved(ep) => {
                self.close_point(qualifier); // it serves one request
                self.eps.get(ep)?;
                Some(ep)
            }
        };
        if let Some(ep) = ep.and_then(|ep| self.eps.get(ep)) {
            ep.set_state(match serves {
                Serves::Provider => EpState::TentativeConnectionPending,
                _ => EpState::PassiveConnectionPending,
            });
        }
        let request = self.requests.insert(PendingRequest {
            link,
            private_data: private_data.into(),
            qualifier,
            from,
            ep,
        });
        self.evds.push(Some(evd), Raw::Request(request));
        Some(request)
    }
}

/// The dispatcher's name, if it takes requests at `ia`.
fn takes_requests(evd: &Evd, ia: &Arc<Ia>, inner: &Inner) -> Result<Id> {
    if evd.belongs_to(ia) && inner.evds.takes(evd.id(), EvdFlags::CR) {
        Ok(evd.id())
    } else {
        Err(Error::handle(Subtype::EvdCr))
    }
}

/// A public service point: connection requests for a qualifier arrive at its EVD. Dropping it frees it.
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
    /// `dat_psp_create` with the CONSUMER flag, at the adapter's listener.
    ///
    /// # Errors
    /// INVALID_HANDLE (EVD_CR) for an EVD without the CR flag or of another adapter; CONN_QUAL_IN_USE.
    pub fn create(evd: &Evd, ia: &Arc<Ia>, qualifier: u64) -> Result<Self> {
        Self::create_at(evd, ia, At::Qualifier(qualifier), PspFlags::Consumer)
    }

    /// `dat_psp_create`.
    ///
    /// # Errors
    /// As [`Psp::create`]; CONN_QUAL_IN_USE too for a port of another process, CONN_QUAL_UNAVAILABLE for one that this
    /// user may not have, INSUFFICIENT_RESOURCES without a descriptor for it.
    pub fn create_at(evd: &Evd, ia: &Arc<Ia>, at: At, flags: PspFlags) -> Result<Self> {
        let mut inner = ia.lock();
        let evd = takes_requests(evd, ia, &inner)?;
        let serves = match flags {
            PspFlags::Consumer => Serves::Consumer,
            PspFlags::Provider => Serves::Provider,
        };
        let qualifier = inner.serve(evd, serves, at)?;
        Ok(Self {
            ia: ia.clone(),
            qualifier,
        })
    }

    /// `dat_psp_create_any` at the adapter's listener: the provider chooses the qualifier. With a port:
    /// [`Psp::create_at`] and [`At::AnyPort`].
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

    /// `dat_psp_free`: requests that have arrived may still be answered.
    ///
    /// # Errors
    /// INVALID_HANDLE the second time.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        match inner.psps.get(&self.qualifier) {
            Some(point) if !matches!(point.serves, Serves::Reserved(_)) => {
                inner.close_point(self.qualifier);
                Ok(())
            }
            _ => Err(Error::handle(Subtype::Psp)),
        }
    }
}

impl Drop for Psp {
    fn drop(&mut self) {
        let _ = self.free(); // already freed is fine
    }
}

/// A reserved service point: serves one request with the endpoint that waits for it. Dropping it frees it.
pub struct Rsp {
    ia: Arc<Ia>,
    qualifier: u64,
    ep: Id,
}

impl std::fmt::Debug for Rsp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rsp").field(&self.qualifier).finish()
    }
}

impl Rsp {
    /// `dat_rsp_create`: the endpoint becomes RESERVED, with the request PASSIVE_CONNECTION_PENDING.
    ///
    /// # Errors
    /// INVALID_HANDLE (EP, EVD_CR); INVALID_STATE unless the endpoint is UNCONNECTED; as [`Psp::create_at`].
    pub fn create(evd: &Evd, ia: &Arc<Ia>, at: At, ep: &Ep) -> Result<Self> {
        let mut inner = ia.lock();
        let ep = ep.table_id(ia).ok_or(Error::handle(Subtype::Ep))?;
        let state = inner.eps.get(ep).ok_or(Error::handle(Subtype::Ep))?.state();
        let evd = takes_requests(evd, ia, &inner)?;
        if state != EpState::Unconnected {
            return Err(Error::state(state.subtype()));
        }
        let qualifier = inner.serve(evd, Serves::Reserved(ep), at)?;
        if let Some(ep) = inner.eps.get(ep) {
            ep.set_state(EpState::Reserved);
        }
        Ok(Self {
            ia: ia.clone(),
            qualifier,
            ep,
        })
    }

    /// What the peer connects to.
    pub fn qualifier(&self) -> u64 {
        self.qualifier
    }

    /// `dat_rsp_free`: the endpoint is UNCONNECTED again.
    ///
    /// # Errors
    /// INVALID_HANDLE once it has served, and the second time.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        match inner.psps.get(&self.qualifier) {
            Some(point) if point.serves == Serves::Reserved(self.ep) => {
                inner.close_point(self.qualifier);
                if let Some(ep) = inner.eps.get(self.ep) {
                    ep.set_state(EpState::Unconnected);
                }
                Ok(())
            }
            _ => Err(Error::handle(Subtype::Rsp)),
        }
    }
}

impl Drop for Rsp {
    fn drop(&mut self) {
        let _ = self.free(); // already freed, or has served
    }
}
