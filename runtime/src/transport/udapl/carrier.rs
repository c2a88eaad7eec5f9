//! What the transport needs of a uDAPL provider: our own ([`Soft`]), or one that libdat2 has (`stock.rs`).
//!
//! Segments, flags, states and outcomes are `windlass-dat`'s own types, whose values are those of the headers. A flag that a
//! carrier does not know is a hint it does not take. Everything is resolved at compile time: the transport is built twice.

use std::fmt::Display;
use std::hash::Hash;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use std::sync::Arc;

use windlass_dat::{
    CloseFlags, Config, ConnectionKind, Cr, DtoOperation, DtoStatus, Ep, EpAttr, EpId, EpState,
    Evd, EvdFlags, Flags, INLINE_MAX, Ia, Lmr, LocalSegment, Privileges, Psp, Pz, Region,
    RemoteSegment, Type, VaType,
};
use windlass_mem::SharedBytes;

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// No room now.
    #[error("no room now")]
    Full,
    /// The endpoint is not connected.
    #[error("not connected")]
    State,
    /// For good, in the provider's words.
    #[error("{0}")]
    Other(String),
}

pub(super) type Result<T> = std::result::Result<T, Refused>;

/// The end of a request or receive.
pub(super) struct Done<Id> {
    pub(super) ep: Id,
    pub(super) cookie: u64,
    pub(super) status: DtoStatus,
    pub(super) len: u32,
    pub(super) is_receive: bool,
}

/// One event of a queue.
pub(super) enum Event<C: Carrier> {
    /// A peer asks for a connection.
    Request(C::Request),
    /// A request or receive is over.
    Done(Done<C::Id>),
    /// A connection has ended, or was never made.
    Ended(C::Id, ConnectionKind),
    /// Nothing to do.
    Other,
}

/// An open adapter with its protection zone.
pub(super) trait Carrier: Send + Sync + Sized + 'static {
    /// Registered memory; withdrawn when dropped.
    type Lmr: Registered;
    /// Where events come from.
    type Queue: Send + Sync;
    /// One connection, ended when dropped.
    type Ep: Endpoint<Id = Self::Id>;
    /// How events name an endpoint.
    type Id: Copy + Eq + Hash + Send + Sync;
    /// A peer's wish for a connection.
    type Request;
    /// Where a peer is, as its card says.
    type Address: Clone + Display + FromStr + Send + Sync;

    /// The longest [`write_copy`](Endpoint::write_copy), in bytes.
    const PUSH_BYTES: usize;
    /// Requests of one endpoint at most.
    const REQUESTS: usize;
    /// A registration keeps all pages in memory.
    const PINS: bool;

    /// The longest RDMA transfer.
    fn transfer_bytes(&self) -> usize;
    /// Readable when there is work.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Moves what can be moved.
    fn step(&self) -> bool;
    /// The caller takes all events from here on and may sleep on the descriptor then.
    fn rearm(&self);
    /// Registers memory, for peers too if they may reach it.
    fn register(&self, bytes: &SharedBytes, peers: bool) -> Result<Self::Lmr>;
    /// A queue of at least `events`; with `listens`, of the service point too.
    fn queue(&self, events: usize, listens: bool) -> Result<Self::Queue>;
    /// Where peers find the service point of that queue.
    fn address(&self, listening: &Self::Queue) -> Self::Address;
    fn dequeue(queue: &Self::Queue) -> Option<Event<Self>>;
    fn queued(queue: &Self::Queue) -> usize;
    /// An endpoint whose events come from that queue.
    fn endpoint(&self, queue: &Self::Queue, requests: usize, receives: usize) -> Result<Self::Ep>;
    /// Asks for a connection, for as long as it takes.
    fn connect(&self, ep: &Self::Ep, to: &Self::Address, rank: u32) -> Result<()>;
    /// Accepts one.
    fn accept(&self, request: Self::Request, ep: &Self::Ep) -> Result<()>;
    /// Runs `f` on memory that a peer names in a message, if it may change it.
    fn with_region<R>(
        &self,
        range: &RemoteSegment,
        f: impl FnOnce(&SharedBytes, usize) -> R,
    ) -> Option<R>;
}

/// Registered memory.
pub(super) trait Registered: Send + Sync {
    /// What this process names it by.
    fn context(&self) -> u32;
    /// What peers name it by.
    fn rmr_context(&self) -> u32;
    fn address(&self) -> u64;
    fn len_bytes(&self) -> u64;
    fn segment(&self, offset: u64, len: u32) -> LocalSegment {
        LocalSegment {
            context: self.context(),
            address: self.address().wrapping_add(offset),
            len,
        }
    }
}

/// One connection.
pub(super) trait Endpoint: Send + Sync {
    type Id;
    fn id(&self) -> Self::Id;
    fn state(&self) -> EpState;
    /// Requests posted, and requests completed successfully.
    fn counts(&self) -> (u64, u64);
    fn post_recv(&self, local: LocalSegment, cookie: u64) -> Result<()>;
    fn post_write(&self, local: LocalSegment, cookie: u64, to: RemoteSegment) -> Result<()>;
    fn post_read(&self, local: LocalSegment, cookie: u64, from: RemoteSegment) -> Result<()>;
    /// Writes a copy of `src`.
    fn write_copy(&self, src: &[u8], cookie: u64, to: RemoteSegment, flags: Flags) -> Result<()>;
    /// Sends a copy of `message`.
    fn send_copy(&self, message: &[u8], cookie: u64, flags: Flags) -> Result<()>;
    fn disconnect(&self);
}

/// Our provider.
pub(super) struct Soft {
    ia: Arc<Ia>,
    pz: Arc<Pz>,
}

/// The connection qualifier of the update service.
const SERVICE: u64 = 1;

impl From<windlass_dat::Error> for Refused {
    fn from(error: windlass_dat::Error) -> Refused {
        match error.kind {
            Type::InsufficientResources => Refused::Full,
            Type::InvalidState => Refused::State,
            _ => Refused::Other(error.to_string()),
        }
    }
}

impl Soft {
    pub(super) fn open(config: Config) -> std::io::Result<Soft> {
        let ia = Ia::open(config)?;
        let pz = Arc::new(Pz::create(&ia));
        Ok(Soft { ia, pz })
    }
}

/// Events of our provider.
pub(super) struct SoftQueue {
    evd: Evd,
    _psp: Option<Psp>,
}

impl Carrier for Soft {
    type Lmr = Lmr;
    type Queue = SoftQueue;
    type Ep = Ep;
    type Id = EpId;
    type Request = Cr;
    type Address = SocketAddr;

    const PUSH_BYTES: usize = INLINE_MAX;
    const REQUESTS: usize = 4096;
    const PINS: bool = false;

    /// Lengths are 32 bits (udapl 2.2).
    fn transfer_bytes(&self) -> usize {
        1 << 30
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.ia.fd()
    }

    fn step(&self) -> bool {
        self.ia.step()
    }

    /// Its descriptor tells of what has not been moved.
    fn rearm(&self) {}

    fn register(&self, bytes: &SharedBytes, peers: bool) -> Result<Lmr> {
        let rights = match peers {
            true => Privileges::ALL | Privileges::REMOTE_ATOMIC,
            false => Privileges::LOCAL_READ | Privileges::LOCAL_WRITE,
        };
        let region = Region::Virtual(bytes.clone());
        Ok(Lmr::create(region, &self.pz, rights, VaType::Virtual)?)
    }

    fn queue(&self, events: usize, listens: bool) -> Result<SoftQueue> {
        let flags = match listens {
            true => EvdFlags::ALL,
            false => EvdFlags::DTO | EvdFlags::CONNECTION,
        };
        let evd = Evd::create(&self.ia, events, flags)?;
        let psp = listens.then(|| Psp::create(&evd, &self.ia, SERVICE));
        Ok(SoftQueue {
            _psp: psp.transpose()?,
            evd,
        })
    }

    fn address(&self, _listening: &SoftQueue) -> SocketAddr {
        self.ia.local_addr()
    }

    fn dequeue(queue: &SoftQueue) -> Option<Event<Soft>> {
        Some(match queue.evd.dequeue()? {
            windlass_dat::Event::ConnectionRequest(cr) => Event::Request(cr),
            windlass_dat::Event::Dto(done) => Event::Done(Done {
                ep: done.ep,
                cookie: done.cookie,
                status: done.status,
                len: done.length,
                is_receive: matches!(
                    done.operation,
                    DtoOperation::Receive | DtoOperation::ReceiveWithInvalidate
                ),
            }),
            windlass_dat::Event::Connection { kind, ep, .. }
                if kind != ConnectionKind::Established =>
            {
                Event::Ended(ep, kind)
            }
            _ => Event::Other,
        })
    }

    fn queued(queue: &SoftQueue) -> usize {
        queue.evd.queued()
    }

    fn endpoint(&self, queue: &SoftQueue, requests: usize, receives: usize) -> Result<Ep> {
        let attr = EpAttr {
            max_request_dtos: requests,
            max_recv_dtos: receives,
            ..EpAttr::default()
        };
        let evd = Some(&queue.evd);
        Ok(Ep::create(&self.pz, evd, evd, evd, attr)?)
    }

    fn connect(&self, ep: &Ep, to: &SocketAddr, rank: u32) -> Result<()> {
        Ok(ep.connect(*to, SERVICE, None, &rank.to_le_bytes())?)
    }

    fn accept(&self, cr: Cr, ep: &Ep) -> Result<()> {
        Ok(cr.accept(ep, &[])?)
    }

    fn with_region<R>(
        &self,
        range: &RemoteSegment,
        f: impl FnOnce(&SharedBytes, usize) -> R,
    ) -> Option<R> {
        let right = Privileges::REMOTE_ATOMIC;
        self.ia.with_region(&self.pz, range, right, f)
    }
}

impl Registered for Lmr {
    fn context(&self) -> u32 {
        Lmr::context(self)
    }

    fn rmr_context(&self) -> u32 {
        Lmr::rmr_context(self)
    }

    fn address(&self) -> u64 {
        Lmr::address(self)
    }

    fn len_bytes(&self) -> u64 {
        Lmr::len_bytes(self)
    }
}

impl Endpoint for Ep {
    type Id = EpId;

    fn id(&self) -> EpId {
        Ep::id(self)
    }

    fn state(&self) -> EpState {
        Ep::state(self)
    }

    fn counts(&self) -> (u64, u64) {
        Ep::counts(self)
    }

    fn post_recv(&self, local: LocalSegment, cookie: u64) -> Result<()> {
        Ok(Ep::post_recv(self, &[local], cookie, Flags::ANSWERED)?)
    }

    // The first transfer goes at once; what follows while it is on its way travels together, at the latest when it is
    // acknowledged.
    fn post_write(&self, local: LocalSegment, cookie: u64, to: RemoteSegment) -> Result<()> {
        Ok(self.post_rdma_write(&[local], cookie, to, Flags::COALESCE)?)
    }

    fn post_read(&self, local: LocalSegment, cookie: u64, from: RemoteSegment) -> Result<()> {
        Ok(self.post_rdma_read(&[local], cookie, from, Flags::COALESCE)?)
    }

    fn write_copy(&self, src: &[u8], cookie: u64, to: RemoteSegment, flags: Flags) -> Result<()> {
        Ok(self.post_rdma_write_inline(src, cookie, to, flags)?)
    }

    fn send_copy(&self, message: &[u8], cookie: u64, flags: Flags) -> Result<()> {
        Ok(self.post_send_inline(message, cookie, flags)?)
    }

    fn disconnect(&self) {
        let _ = Ep::disconnect(self, CloseFlags::Abrupt);
    }
}
