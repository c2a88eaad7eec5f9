//! The nouns of the contract: privileges, flags, states, completions, events (udapl.md sections 2.2 and 2.3).

use crate::cr::Cr;
use crate::evd::EvdId;
use crate::ret::Subtype;
use crate::rmr::RmrId;

macro_rules! bits {
    ($(#[$meta:meta])* $name:ident: $($(#[$doc:meta])* $flag:ident = $value:expr;)*) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(u32);
        impl $name {
            $($(#[$doc])* pub const $flag: Self = Self($value);)*
            const KNOWN: u32 = 0 $(| $value)*;
            /// The bits of the binary contract.
            pub const fn bits(self) -> u32 {
                self.0
            }
            /// The set named by `bits`, or nothing if one of them is unknown.
            pub const fn from_bits(bits: u32) -> Option<Self> {
                if bits & !Self::KNOWN == 0 { Some(Self(bits)) } else { None }
            }
            /// Whether every bit of `other` is set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
            /// Whether any bit of `other` is set.
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }
        }
        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}

bits! {
    /// Access rights of a registered memory region (DAT_MEM_PRIV).
    Privileges:
    /// No right.
    NONE = 0;
    /// Source of a local write or send.
    LOCAL_READ = 0x01;
    /// Target of a peer's RDMA read.
    REMOTE_READ = 0x02;
    /// Destination of a local read or receive.
    LOCAL_WRITE = 0x10;
    /// Target of a peer's RDMA write.
    REMOTE_WRITE = 0x20;
    /// Local and remote reads and writes.
    ALL = 0x33;
    /// Target of a peer's 64-bit atomics (extension bit).
    REMOTE_ATOMIC = 0x40;
}

bits! {
    /// Completion flags of a posted operation.
    Flags:
    /// An event on success and on failure.
    DEFAULT = 0;
    /// No event on success; a failure always makes one.
    SUPPRESS = 0x01;
    /// Wake the peer's waiter (carried, without effect: every event wakes).
    SOLICITED_WAIT = 0x02;
    /// No event on success, for endpoints created for it.
    UNSIGNALLED = 0x04;
    /// Do not start before earlier reads and atomics of this endpoint have completed.
    BARRIER_FENCE = 0x08;
    /// Counts towards an EVD's threshold (every event does here).
    EVD_THRESHOLD = 0x10;
    /// Windlass extension: another operation follows at once, so the output may wait for it. The next post without
    /// this flag, `Ep::push` or `Ia::step` sends what waited.
    MORE = 0x100;
    /// Windlass extension: may wait for company while an earlier request of this endpoint is on its way. Its
    /// completion sends what waited, so a stream packs itself and a single request goes at once, with all that
    /// `MORE` left behind.
    COALESCE = 0x200;
    /// Windlass extension, of a receive: whoever gets the message posts an answer, or his own next message. The credit of
    /// this receive travels with that, and the acknowledgement of the message and of what came right before it.
    ANSWERED = 0x400;
}

bits! {
    /// Which streams of events an EVD takes.
    EvdFlags:
    /// Events posted by the consumer.
    SOFTWARE = 0x001;
    /// Connection requests.
    CR = 0x010;
    /// Completions of data transfers.
    DTO = 0x020;
    /// Connection events of endpoints.
    CONNECTION = 0x040;
    /// Completions of binds.
    RMR_BIND = 0x080;
    /// Asynchronous errors.
    ASYNC = 0x100;
    /// All provider streams.
    ALL = 0x1F0;
}

impl Privileges {
    /// Those of them that peers have.
    pub(crate) const fn of_peers(self) -> Self {
        Self(self.0 & (Self::REMOTE_READ.0 | Self::REMOTE_WRITE.0 | Self::REMOTE_ATOMIC.0))
    }
}

/// Whether addresses of a region are process addresses or offsets (DAT_VA_TYPE).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VaType {
    /// Addresses are those of the registering process.
    #[default]
    Virtual,
    /// Addresses begin at zero.
    ZeroBased,
}

/// How an endpoint is disconnected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseFlags {
    /// Queued requests are flushed.
    #[default]
    Abrupt,
    /// Posted requests finish first.
    Graceful,
}

/// State of an endpoint (udapl.md sections 2.3 and 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EpState {
    /// Made or reset.
    Unconnected = 0,
    /// Waits for the one request of a reserved service point.
    Reserved = 2,
    /// That request has arrived.
    PassiveConnectionPending = 4,
    /// `Ep::connect` was called.
    ActiveConnectionPending = 6,
    /// Made for a request that the consumer has not answered.
    TentativeConnectionPending = 7,
    /// Connected.
    Connected = 9,
    /// A graceful disconnect is under way.
    DisconnectPending = 10,
    /// After a connection or a failed attempt.
    Disconnected = 11,
    /// `Cr::accept` was called.
    CompletionPending = 12,
}

impl EpState {
    /// The subtype that names this state in an INVALID_STATE answer.
    pub const fn subtype(self) -> Subtype {
        match self {
            EpState::Unconnected => Subtype::EpUnconnected,
            EpState::Reserved => Subtype::EpReserved,
            EpState::PassiveConnectionPending => Subtype::EpPassConnPending,
            EpState::ActiveConnectionPending => Subtype::EpActConnPending,
            EpState::TentativeConnectionPending => Subtype::EpTentConnPending,
            EpState::Connected => Subtype::EpConnected,
            EpState::DisconnectPending => Subtype::EpDiscPending,
            EpState::Disconnected => Subtype::EpDisconnected,
            EpState::CompletionPending => Subtype::EpComplPending,
        }
    }

    pub(crate) const fn from_u8(value: u8) -> Self {
        match value {
            2 => EpState::Reserved,
            4 => EpState::PassiveConnectionPending,
            6 => EpState::ActiveConnectionPending,
            7 => EpState::TentativeConnectionPending,
            9 => EpState::Connected,
            10 => EpState::DisconnectPending,
            11 => EpState::Disconnected,
            12 => EpState::CompletionPending,
            _ => EpState::Unconnected,
        }
    }
}

/// Outcome of a data transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DtoStatus {
    /// Done, at the target too.
    Success = 0,
    /// Not done: the endpoint left the connected state.
    Flushed = 1,
    /// The message was longer than the receive.
    LocalLength = 2,
    /// The endpoint could not do it.
    LocalEp = 3,
    /// The local memory is no longer registered.
    LocalProtection = 4,
    /// The answer made no sense.
    BadResponse = 5,
    /// The target refused the memory access (udapl.md section 5).
    RemoteAccess = 6,
    /// The target refused the request itself.
    RemoteResponder = 7,
    /// The connection failed.
    Transport = 8,
    /// No receive was posted (never made here: sends wait).
    ReceiverNotReady = 9,
    /// Part of a message.
    PartialPacket = 10,
    /// A bind failed.
    RmrOperationFailed = 11,
}

/// Kind of a data transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DtoOperation {
    /// Send.
    Send = 0,
    /// RDMA write.
    RdmaWrite = 1,
    /// RDMA read.
    RdmaRead = 2,
    /// Receive.
    Receive = 3,
    /// Receive of a message that ended a window of ours.
    ReceiveWithInvalidate = 4,
    /// Bind of a window: told by [`Event::Bind`].
    Bind = 5,
    /// 64-bit fetch and add (extension).
    FetchAdd = 8,
    /// 64-bit compare and swap (extension).
    CompareSwap = 9,
}

/// Name of an endpoint within its adapter, as events carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpId(pub(crate) crate::slab::Id);

/// A local piece of memory: a registered context, an address inside it, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalSegment {
    /// `Lmr::context`.
    pub context: u32,
    /// First byte, as the region counts addresses.
    pub address: u64,
    /// Bytes.
    pub len: u32,
}

/// A piece of the peer's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteSegment {
    /// The peer's `Lmr::rmr_context`.
    pub context: u32,
    /// First byte, an address of the target process (or an offset, if the region is zero based).
    pub address: u64,
    /// Bytes.
    pub len: u32,
}

/// Completion of one data transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DtoCompletion {
    /// The endpoint it was posted on.
    pub ep: EpId,
    /// What the caller gave at the post.
    pub cookie: u64,
    /// Outcome.
    pub status: DtoStatus,
    /// Bytes transferred, for a success.
    pub length: u32,
    /// What was posted.
    pub operation: DtoOperation,
    /// The context that the message ended, or 0.
    pub invalidated: u32,
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ConnectionKind {
    /// Both sides may transfer.
    Established = 0x04001,
    /// The peer's consumer rejected the request.
    PeerRejected = 0x04002,
    /// Rejected without the peer's consumer: no such service, or authentication failed.
    NonPeerRejected = 0x04003,
    /// The peer went away while an accept was under way.
    AcceptCompletionError = 0x04004,
    /// The connection was closed by either side.
    Disconnected = 0x04005,
    /// A transfer or the transport failed.
    Broken = 0x04006,
    /// The time given for connecting has passed.
    TimedOut = 0x04007,
    /// Nothing listens at the address.
    Unreachable = 0x04008,
}

/// An asynchronous error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AsyncKind {
    /// An event was lost because an EVD was full.
    EvdOverflow = 0x08001,
    /// The connection of an endpoint with a shared receive queue has ended: it takes no more of the queue's receives.
    EpBroken = 0x08003,
}

/// What an asynchronous error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncAbout {
    /// A dispatcher.
    Evd(EvdId),
    /// An endpoint.
    Ep(EpId),
}

/// One event of an EVD.
#[derive(Debug)]
pub enum Event {
    /// A data transfer completed.
    Dto(DtoCompletion),
    /// A bind completed.
    Bind {
        /// Of which window.
        rmr: RmrId,
        /// What the caller gave at the post.
        cookie: u64,
        /// Outcome.
        status: DtoStatus,
    },
    /// A peer asks for a connection.
    ConnectionRequest(Cr),
    /// A connection changed.
    Connection {
        /// How.
        kind: ConnectionKind,
        /// Of which endpoint.
        ep: EpId,
        /// The peer's private data, for an established or rejected connection.
        private_data: Box<[u8]>,
    },
    /// An asynchronous error.
    Async(AsyncKind, AsyncAbout),
    /// An event of `Evd::post_software`.
    Software(u64),
}

impl Event {
    /// The event number of the binary contract (udapl.md section 2.3).
    pub fn number(&self) -> u32 {
        match self {
            Event::Dto(_) => 0x00001,
            Event::Bind { .. } => 0x01001,
            Event::ConnectionRequest(_) => 0x02001,
            Event::Connection { kind, .. } => *kind as u32,
            Event::Async(kind, _) => *kind as u32,
            Event::Software(_) => 0x10001,
        }
    }
}
