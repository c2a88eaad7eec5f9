//! The carrier of `WINDLASS_DAT`: a provider that libdat2 loads, for RDMA hardware or whatever else `dat.conf` names.
//!
//! Providers know no secret, and let everybody connect who reaches the adapter. So the first message of a connection proves that
//! its sender belongs to the job: a code by the job's secret over its rank and the place it asks for. Whoever reads the network
//! could say it again, and read and write what is registered besides: it must be trusted (reliability S4).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::RwLock;
use windlass_dat::{ConnectionKind, DtoStatus, EpState, Flags, LocalSegment, RemoteSegment};
use windlass_mem::SharedBytes;
use windlass_native::dat2::{
    Adapter, Capacity, Endpoint as Ep, Error, Event as Told, INLINE_BYTES, Library, Phase, Queue,
    Registration, Request, SONAME, Triplet,
};
use windlass_wire::Secret;

use super::carrier::{Carrier, Done, Endpoint, Event, Refused, Registered, Result};
use crate::transport::Context;

/// Names the adapter.
pub const DAT: &str = "WINDLASS_DAT";

/// What the code of a connection is about.
const LABEL: &[u8] = b"windlass uDAPL connection";

/// Bytes of a rank, before its code.
const RANK_BYTES: usize = 4;

/// Memory that peers may reach, by the context they name it by.
type Shared = Arc<RwLock<HashMap<u32, SharedBytes>>>;

/// An adapter of libdat2.
pub(crate) struct Stock {
    adapter: Arc<Adapter>,
    ip: IpAddr,
    secret: Secret,
    shared: Shared,
}

impl Stock {
    /// Loads libdat2 and opens the adapter of that name.
    ///
    /// # Errors
    /// Why not, and what would help.
    pub(super) fn open(name: &str, context: &Context) -> std::result::Result<Stock, Error> {
        let adapter = Adapter::open(&Library::load(SONAME)?, name)?;
        // The adapter knows where it is; one that does not is where ranks of other nodes come by.
        let ip = adapter.about().address.or(context.network.local().ok());
        let ip = ip.ok_or_else(|| Error::Unfit {
            name: name.to_owned(),
            what: "has no address, and this host none in WINDLASS_NETWORK".into(),
        })?;
        let about = adapter.about();
        tracing::info!(
            name,
            provider = about.provider,
            adapter = about.adapter,
            atomics = ?about.atomics,
            "uDAPL by libdat2"
        );
        Ok(Stock {
            adapter,
            ip,
            secret: context.secret.clone(),
            shared: Shared::default(),
        })
    }

    fn code(&self, rank: [u8; RANK_BYTES], at: &At) -> [u8; 32] {
        let about = [&rank[..], at.to_string().as_bytes()].concat();
        self.secret.code_of(LABEL, &about)
    }
}

/// Where a service point is: the adapter's address and the connection qualifier.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    ip: IpAddr,
    qualifier: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} qualifier {}", self.ip, self.qualifier)
    }
}

impl FromStr for At {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<At, ()> {
        let (ip, qualifier) = text.split_once(" qualifier ").ok_or(())?;
        Ok(At {
            ip: ip.parse().map_err(drop)?,
            qualifier: qualifier.parse().map_err(drop)?,
        })
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        match error {
            Error::Full => Refused::Full,
            Error::Call(failure) if failure.is_state() => Refused::State,
            other => Refused::Other(other.to_string()),
        }
    }
}

fn remote(segment: RemoteSegment) -> Triplet {
    Triplet {
        virtual_address: segment.address,
        segment_length: segment.len,
        context: segment.context,
    }
}

fn local(segment: LocalSegment) -> Triplet {
    Triplet {
        virtual_address: segment.address,
        segment_length: segment.len,
        context: segment.context,
    }
}

/// Outcomes by their number (udapl 2.3); what is none is a failure of the provider.
fn status(number: u32) -> DtoStatus {
    match number {
        0 => DtoStatus::Success,
        1 => DtoStatus::Flushed,
        2 => DtoStatus::LocalLength,
        3 => DtoStatus::LocalEp,
        4 => DtoStatus::LocalProtection,
        6 => DtoStatus::RemoteAccess,
        7 => DtoStatus::RemoteResponder,
        8 => DtoStatus::Transport,
        9 => DtoStatus::ReceiverNotReady,
        10 => DtoStatus::PartialPacket,
        11 => DtoStatus::RmrOperationFailed,
        _ => DtoStatus::BadResponse,
    }
}

/// How a connection ended, by its number.
fn ended(number: u32) -> ConnectionKind {
    match number {
        0x04002 => ConnectionKind::PeerRejected,
        0x04003 => ConnectionKind::NonPeerRejected,
        0x04004 => ConnectionKind::AcceptCompletionError,
        0x04006 => ConnectionKind::Broken,
        0x04007 => ConnectionKind::TimedOut,
        0x04008 => ConnectionKind::Unreachable,
        _ => ConnectionKind::Disconnected,
    }
}

/// A registration, and its entry among what peers may reach.
pub(crate) struct Lmr {
    registration: Registration,
    shared: Option<Shared>,
}

impl Drop for Lmr {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            // Waits until nobody updates it.
            shared.write().remove(&self.registration.rmr_context());
        }
    }
}

impl Registered for Lmr {
    fn context(&self) -> u32 {
        self.registration.context()
    }

    fn rmr_context(&self) -> u32 {
        self.registration.rmr_context()
    }

    fn address(&self) -> u64 {
        self.registration.bytes().addr() as u64
    }

    fn len_bytes(&self) -> u64 {
        self.registration.bytes().len() as u64
    }
}

impl Carrier for Stock {
    type Lmr = Lmr;
    type Queue = Arc<Queue>;
    type Ep = Ep;
    type Id = u32;
    type Request = Request;
    type Address = At;

    const PUSH_BYTES: usize = INLINE_BYTES;
    const REQUESTS: usize = 1024;
    /// Those of hardware do.
    const PINS: bool = true;

    fn transfer_bytes(&self) -> usize {
        self.adapter.about().rdma_bytes.min(1 << 30)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.adapter.fd()
    }

    /// The provider moves what it moves by itself.
    fn step(&self) -> bool {
        false
    }

    fn rearm(&self) {
        self.adapter.rearm();
    }

    fn register(&self, bytes: &SharedBytes, peers: bool) -> Result<Lmr> {
        let registration = Registration::new(&self.adapter, bytes, peers)?;
        let shared = peers.then(|| {
            let bytes = bytes.clone();
            self.shared
                .write()
                .insert(registration.rmr_context(), bytes);
            Arc::clone(&self.shared)
        });
        Ok(Lmr {
            registration,
            shared,
        })
    }

    fn queue(&self, _events: usize, listens: bool) -> Result<Arc<Queue>> {
        Ok(Queue::new(&self.adapter, listens)?)
    }

    fn address(&self, listening: &Arc<Queue>) -> At {
        At {
            ip: self.ip,
            qualifier: listening.qualifier().unwrap_or(0),
        }
    }

    fn dequeue(queue: &Arc<Queue>) -> Option<Event<Stock>> {
        Some(match queue.dequeue()? {
            Told::Request(request) => Event::Request(request),
            Told::Done(done) => Event::Done(Done {
                ep: done.endpoint,
                cookie: done.cookie,
                status: status(done.status),
                len: done.len,
                is_receive: done.is_receive,
            }),
            Told::Connection {
                number: 0x04001, ..
            } => Event::Other,
            Told::Connection { endpoint, number } => Event::Ended(endpoint, ended(number)),
        })
    }

    fn queued(queue: &Arc<Queue>) -> usize {
        queue.queued()
    }

    fn endpoint(&self, queue: &Arc<Queue>, requests: usize, receives: usize) -> Result<Ep> {
        let capacity = Capacity { requests, receives };
        Ok(Ep::new(queue, capacity)?)
    }

    fn connect(&self, ep: &Ep, to: &At, rank: u32) -> Result<()> {
        let rank = rank.to_le_bytes();
        let proof = [&rank[..], &self.code(rank, to)].concat();
        Ok(ep.connect(to.ip, to.qualifier, &proof)?)
    }

    fn accept(&self, request: Request, ep: &Ep) -> Result<()> {
        let at = At {
            ip: self.ip,
            qualifier: ep.queue().qualifier().unwrap_or(0),
        };
        let proof = request.private_data();
        let rank = proof.first_chunk::<RANK_BYTES>();
        // Providers may send more than was given: what follows is not looked at.
        let code = proof.get(RANK_BYTES..RANK_BYTES + 32);
        let is_peer = rank
            .zip(code)
            .is_some_and(|(&rank, code)| windlass_wire::same_code(&self.code(rank, &at), code));
        if !is_peer {
            return Err(Refused::Other("it does not know the job's secret".into()));
        }
        Ok(request.accept(ep)?)
    }

    fn with_region<R>(
        &self,
        range: &RemoteSegment,
        f: impl FnOnce(&SharedBytes, usize) -> R,
    ) -> Option<R> {
        let shared = self.shared.read();
        let bytes = shared.get(&range.context)?;
        let offset = range.address.checked_sub(bytes.addr() as u64)?;
        let offset = usize::try_from(offset).ok()?;
        let room = bytes.len().checked_sub(offset)?;
        (range.len as usize <= room).then(|| f(bytes, offset))
    }
}

impl Endpoint for Ep {
    type Id = u32;

    fn id(&self) -> u32 {
        self.number()
    }

    fn state(&self) -> EpState {
        match self.phase() {
            Phase::Unconnected => EpState::Unconnected,
            Phase::Pending => EpState::ActiveConnectionPending,
            Phase::Connected => EpState::Connected,
            Phase::Ended => EpState::Disconnected,
        }
    }

    fn counts(&self) -> (u64, u64) {
        Ep::counts(self)
    }

    fn post_recv(&self, segment: LocalSegment, cookie: u64) -> Result<()> {
        Ok(Ep::post_recv(self, local(segment), cookie)?)
    }

    fn post_write(&self, segment: LocalSegment, cookie: u64, to: RemoteSegment) -> Result<()> {
        Ok(Ep::post_write(self, local(segment), remote(to), cookie)?)
    }

    fn post_read(&self, segment: LocalSegment, cookie: u64, from: RemoteSegment) -> Result<()> {
        Ok(Ep::post_read(self, local(segment), remote(from), cookie)?)
    }

    fn write_copy(&self, src: &[u8], cookie: u64, to: RemoteSegment, flags: Flags) -> Result<()> {
        let quiet = flags.contains(Flags::SUPPRESS);
        Ok(Ep::write_copy(self, src, remote(to), cookie, quiet)?)
    }

    fn send_copy(&self, message: &[u8], cookie: u64, flags: Flags) -> Result<()> {
        let quiet = flags.contains(Flags::SUPPRESS);
        Ok(Ep::send_copy(self, message, cookie, quiet)?)
    }

    fn disconnect(&self) {
        Ep::disconnect(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_survives() {
        let at = At {
            ip: [10, 1, 2, 3].into(),
            qualifier: u64::MAX,
        };
        assert!(at.to_string().parse() == Ok(at));
        for wrong in ["10.1.2.3:5", "10.1.2.3 qualifier", "x qualifier 1", ""] {
            assert!(wrong.parse::<At>().is_err(), "{wrong}");
        }
    }
}
