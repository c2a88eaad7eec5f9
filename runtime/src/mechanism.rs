//! The contract of a mechanism and of an engine.
//!
//! A **mechanism** only makes memory reachable: *export -> descriptor -> attach -> route*. It has
//! no data path of its own: an attach ends either in mapped memory or in a [`Queue`] over an
//! [`Engine`] (architecture section 4). What comes from a peer, a descriptor or a card, is an
//! allegation: a mechanism decodes and checks it before use.
//!
//! [`Queue`]: crate::completion::Queue

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass_mem::SharedBytes;

use crate::guard::UNGUARDED;
use crate::region::Segment;
use crate::route::Route;
use crate::staging::Staging;
use crate::update::{Kind, UpdateOp};

/// The longest descriptor or card, in bytes.
pub const DESCRIPTOR_MAX_BYTES: usize = 256;

/// Every mechanism there is, best first where costs are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MechanismId {
    /// Own memory.
    Loopback,
    /// VE shared memory: VEMVA on one VE, VEHVA between VEs (ve-memory 5).
    Veshm,
    /// Host memory in System V segments (ve-memory 7).
    Vhshm,
    /// VEO transfers from the host into VE memory (ve-memory 12).
    Veo,
    /// Host memory as published segments, imported and mapped (rsm 5, 6).
    Rsm,
    /// Cross-memory copy of memory that nobody can map.
    Cma,
    /// uDAPL registrations and RDMA transfers (udapl).
    Udapl,
    /// libfabric registrations and transfers (udapl 9).
    Ofi,
}

impl MechanismId {
    /// All of them.
    pub const ALL: [MechanismId; 8] = [
        MechanismId::Loopback,
        MechanismId::Veshm,
        MechanismId::Vhshm,
        MechanismId::Veo,
        MechanismId::Rsm,
        MechanismId::Cma,
        MechanismId::Udapl,
        MechanismId::Ofi,
    ];

    /// The name used in tables, errors and `WINDLASS_ROUTE`.
    pub const fn name(self) -> &'static str {
        match self {
            MechanismId::Loopback => "loopback",
            MechanismId::Veshm => "veshm",
            MechanismId::Vhshm => "vhshm",
            MechanismId::Veo => "veo",
            MechanismId::Rsm => "rsm",
            MechanismId::Cma => "cma",
            MechanismId::Udapl => "udapl",
            MechanismId::Ofi => "ofi",
        }
    }

    /// The mechanism of that name.
    pub fn from_name(name: &str) -> Option<MechanismId> {
        Self::ALL.into_iter().find(|id| id.name() == name)
    }
}

impl fmt::Display for MechanismId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a mechanism does not serve, as a sentence for people (no full stop).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason(pub Cow<'static, str>);

impl Reason {
    /// A reason from a text.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Reason {
        Reason(text.into())
    }

    /// A reason that ends in an error and its sources.
    pub fn from_error(what: &str, error: &dyn std::error::Error) -> Reason {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(inner) = source {
            text.push_str(&format!(": {inner}"));
            source = inner.source();
        }
        Reason::new(text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an 8-byte put and a long one cost over a route, as a rank: smaller is better.
///
/// The figures are orders, not promises: mapped memory, a synchronous copy, a device, a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cost(pub u32);

impl Cost {
    /// Own memory.
    pub const OWN: Cost = Cost(0);
    /// Load and store.
    pub const MAPPED: Cost = Cost(10);
    /// The same, where mapping takes a connection of its own.
    pub const IMPORTED: Cost = Cost(11);
    /// A DMA engine or a copy by the kernel.
    pub const DEVICE: Cost = Cost(100);
    /// A copy made by a system call.
    pub const SYSCALL: Cost = Cost(200);
    /// A network, loopback included.
    pub const NETWORK: Cost = Cost(1000);
}

/// Where a rank lives.
pub use windlass_node::Place;

/// A rank as its peers see it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Rank in the job.
    pub rank: u32,
    /// Logical node.
    pub node: u32,
    /// Host or VE.
    pub place: Place,
    /// Index among the ranks of its node, in rank order.
    pub local: u32,
    /// Process id on its host.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot: pid and this are its identity.
    pub start_time: u64,
    /// Per mechanism, the address of the *process* that its card carries.
    pub cards: Vec<(MechanismId, Vec<u8>)>,
}

impl Peer {
    /// The card that the peer's side of `mechanism` published.
    pub fn card(&self, mechanism: MechanismId) -> Option<&[u8]> {
        let (_, card) = self.cards.iter().find(|(id, _)| *id == mechanism)?;
        Some(card)
    }
}

/// An exported segment: what peers need, and what keeps it reachable.
pub struct Export {
    /// At most [`DESCRIPTOR_MAX_BYTES`].
    pub descriptor: Vec<u8>,
    /// Dropped when the segment goes: withdraws the export.
    pub guard: Box<dyn Send + Sync>,
}

/// One way to make memory reachable. A file of `transport/` holds each.
pub trait Mechanism: Send + Sync {
    /// Which one it is.
    fn id(&self) -> MechanismId;

    /// Can it work in this process, or why not. No side effects.
    fn probe(&self) -> Result<(), Reason>;

    /// The address of this process for peers, published once at start-up.
    fn card(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Does an export keep every page of a segment in memory? The arena is no sparse one then.
    fn pins(&self) -> bool {
        false
    }

    /// What the helper thread serves for this mechanism, if anything.
    fn server(&self) -> Option<Arc<dyn Serve>> {
        None
    }

    /// Makes `segment` reachable.
    fn export(&self, segment: &Segment) -> Result<Export, Reason>;

    /// Would this peer's export be reachable from here? No side effects.
    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason>;

    /// Reaches it.
    fn attach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason>;
}

/// Something that peers drive through a file descriptor, served by the rank's helper thread.
pub trait Serve: Send + Sync {
    /// Readable when there is work.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Does the work that is ready, without blocking. `true` if there was any.
    fn step(&self) -> bool;
    /// This process leaves: waits, at most so long, until what it has posted has arrived.
    fn finish(&self, _at_most: Duration) {}
}

/// Bytes of a peer as an engine names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteRange {
    /// First byte, in the engine's own address space (a VEHVA, an address of the peer, ...).
    pub base: u64,
    /// How many bytes.
    pub len: u64,
    /// What goes with the address (an `rmr_context`, ...), 0 where nothing does.
    pub key: u64,
    /// The context whose guard makes the range's wide elements atomic; 0 where there are none.
    pub guard: u32,
    /// Whose transfers these are: a window's number in this process, 0 for none. Failures are told
    /// to a flush of the same number.
    pub window: u32,
}

impl RemoteRange {
    /// A range without a guard, of no window.
    pub const fn new(base: u64, len: u64, key: u64) -> RemoteRange {
        RemoteRange {
            base,
            len,
            key,
            guard: UNGUARDED,
            window: 0,
        }
    }

    /// The part `offset..offset + len`, if it lies inside.
    pub fn part(&self, offset: u64, len: u64) -> Option<RemoteRange> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        Some(RemoteRange {
            base: self.base.checked_add(offset)?,
            len,
            ..*self
        })
    }
}

/// What an engine can do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest single transfer, in bytes.
    pub max_bytes: usize,
    /// Takes [`Verb::Write`] and [`Verb::Read`] and has executed them when `post` returns.
    pub immediate: bool,
    /// The longest [`Verb::Update`] in bytes, atomic per element to the CPU's own updates; 0 where
    /// the engine takes neither it nor [`Verb::CompareSwap`].
    pub update_bytes: usize,
}

impl Limits {
    /// Of an engine that copies within `post`, whatever the length.
    pub const IMMEDIATE: Limits = Limits {
        max_bytes: usize::MAX,
        immediate: true,
        update_bytes: 0,
    };
}

/// What to do with a [`RemoteRange`].
pub enum Verb<'a> {
    /// Copy registered memory there. It must stay untouched until completion.
    Put(&'a SharedBytes),
    /// Copy from there into registered memory.
    Get(&'a SharedBytes),
    /// Copy any memory there, within `post`. Only with [`Limits::immediate`].
    Write(&'a [u8]),
    /// Copy from there into any memory, within `post`. Only with [`Limits::immediate`].
    Read(&'a mut [u8]),
    /// Update each element; `operand` is consumed by `post`. With `fetch`, the completion
    /// carries the old values.
    Update {
        /// Element type.
        kind: Kind,
        /// Operator.
        op: UpdateOp,
        /// As many bytes as the range; ignored for [`UpdateOp::NoOp`].
        operand: &'a [u8],
        /// Return the old values.
        fetch: bool,
    },
    /// Replace one element if it equals `compare`; the completion carries the old value.
    CompareSwap {
        /// Element type.
        kind: Kind,
        /// Expected bytes.
        compare: &'a [u8],
        /// New bytes.
        swap: &'a [u8],
    },
}

/// One transfer, named by the ticket that its completion will carry.
pub struct Transfer<'a> {
    /// Chosen by the poster, unique among the outstanding ones of the engine.
    pub ticket: u64,
    /// The rank at the other end.
    pub target: u32,
    /// The peer's bytes; `remote.len` is the length of the transfer.
    pub remote: RemoteRange,
    /// What to do.
    pub verb: Verb<'a>,
}

/// What `post` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Executed; no completion follows.
    Done,
    /// Its completion will be polled.
    Pending,
}

/// Why `post` did not take a transfer.
#[derive(Debug)]
pub enum PostError {
    /// No room now: poll, try again.
    Full,
    /// Refused for good.
    Fault(Fault),
}

/// A transfer that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// The device or the peer refused the address or the access.
    #[error("access refused: {0}")]
    Access(String),
    /// The connection or the process at the other end is gone.
    #[error("the peer is gone: {0}")]
    Gone(String),
    /// One before it was refused, and the connection ended: this one has not taken place.
    #[error("a transfer before it was refused: it has not taken place")]
    Unheard,
    /// Anything else, by the words of the engine.
    #[error("{0}")]
    Other(String),
}

/// The end of a posted transfer.
pub struct Completion {
    /// The poster's ticket.
    pub ticket: u64,
    /// Old values of a fetching update, else empty.
    pub result: Result<Vec<u8>, Fault>,
}

/// Local memory that an engine has registered for the transfers of it that are under way; withdrawn when dropped.
pub type Lease = Arc<dyn Any + Send + Sync>;

/// A mark in the stream of pushes to one rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// The connection they went by, 0 for none.
    pub connection: u64,
    /// How many had been posted on it.
    pub count: u64,
}

/// A device or an endpoint that executes transfers: one per device and process.
pub trait Engine: Send + Sync {
    /// What it can do.
    fn limits(&self) -> Limits;
    /// Can the device read and write this local memory as it stands?
    fn sees(&self, local: &SharedBytes) -> bool;
    /// Registers local memory that the device does not see, until the answer is dropped: long transfers go from and to where
    /// it is. `None`: refused, or no gain. Nothing is kept beyond the transfers of it, since memory may be unmapped behind them and
    /// other memory mapped there, of which an older registration knows nothing.
    fn lend(&self, _local: &SharedBytes) -> Option<Lease> {
        None
    }
    /// Registered bounce memory; `None` for engines that are [`Limits::immediate`].
    fn staging(&self) -> Option<&Staging> {
        None
    }
    /// Takes a transfer. Refuses before a byte moves.
    fn post(&self, transfer: Transfer<'_>) -> Result<Accepted, PostError>;
    /// The longest put that [`push`](Self::push) takes; 0 where the engine has none. Longer ones go by bounce slots where those
    /// are larger.
    fn push_bytes(&self) -> usize {
        0
    }
    /// Puts a copy of `src` there, without a ticket: [`settled`](Self::settled) and
    /// [`failed`](Self::failed) answer for it.
    fn push(&self, _remote: RemoteRange, _src: &[u8]) -> Result<(), PostError> {
        Err(PostError::Fault(Fault::Other(
            "this engine has no push".into(),
        )))
    }
    /// How far the pushes to this rank have come.
    fn pushed(&self, _rank: u32) -> Pushed {
        Pushed::default()
    }
    /// Is every push to this rank over that stood before that mark?
    fn settled(&self, _rank: u32, _before: Pushed) -> bool {
        true
    }
    /// The first push of this window to this rank that failed and was not told yet. Asked after
    /// [`settled`](Self::settled): the failures of what is over are known.
    fn failed(&self, _rank: u32, _window: u32) -> Option<Fault> {
        None
    }
    /// The next completion, if there is one. Drives the engine.
    fn poll(&self) -> Option<Completion>;
    /// Sleeps until a completion may be there, at most `at_most`.
    fn idle(&self, at_most: Duration);
}
