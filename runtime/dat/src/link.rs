//! One TCP connection: its socket, its output, and what is under way on it in both directions.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use windlass_wire::auth::{Initiator, Responder};

use crate::model::DtoStatus;
use crate::output::Output;
use crate::slab::Id;

/// The output is filled up to here before it is written: with one chunk more, its bound, whatever is queued.
pub(crate) const OUT_FILL: usize = 256 * 1024;
/// Reads and atomics of one endpoint that wait for their answer at most; a peer that sends more is broken.
pub(crate) const ANSWERS_MAX: usize = 256;

/// An answer to the peer, in the order of its requests.
pub(crate) struct Answer {
    /// Number of the request answered, modulo 2^32.
    pub(crate) number: u32,
    pub(crate) what: Reply,
}

pub(crate) enum Reply {
    Data {
        context: u32,
        address: u64,
        len: u32,
        done: u32,
    },
    Atomic(u64),
    Fault(DtoStatus),
    Bye,
}

/// Where a connection stands.
pub(crate) enum Phase {
    /// Connecting to the peer; then the handshake, the request, its answer.
    Connecting,
    /// The peer closed before it answered the handshake (too many strangers there, say): try again later.
    Retry,
    Challenge(Initiator),
    Answer,
    /// Accepted from the listener.
    Hello,
    Proof(Responder),
    Request,
    /// A connection request waits for the consumer.
    Pending(Id),
    /// Accepted by the consumer; the peer's first frame establishes.
    Ready,
    Data,
    /// Output is sent, then the end; input is thrown away.
    Drain {
        shut: bool,
    },
}

/// What the initiator of a connection needs until it is established.
pub(crate) struct Dial {
    pub(crate) to: SocketAddr,
    pub(crate) qualifier: u64,
    pub(crate) private_data: Box<[u8]>,
    pub(crate) give_up: Option<Instant>,
    pub(crate) tries: u32,
}

/// A request of the peer whose payload is arriving.
#[derive(Clone, Copy)]
pub(crate) enum Arriving {
    Nothing,
    Write {
        context: u32,
        address: u64,
        len: u32,
        done: u32,
    },
    Send {
        len: u32,
        done: u32,
        /// The window that ends with it, or 0.
        ends: u32,
    },
}

/// One connection.
pub(crate) struct Link {
    pub(crate) socket: OwnedFd,
    pub(crate) phase: Phase,
    pub(crate) ep: Option<Id>,
    pub(crate) dial: Option<Box<Dial>>,
    pub(crate) deadline: Option<Instant>,
    /// Input that is not yet a whole header or handshake message.
    pub(crate) partial: Vec<u8>,
    pub(crate) out: Output,
    /// EPOLLOUT is asked for.
    pub(crate) watching_out: bool,
    /// In the adapter's list of links with output to send.
    pub(crate) dirty: bool,
    /// Requests of the peer that are done here, and what it was last told.
    pub(crate) handled: u32,
    pub(crate) told: u32,
    /// Something of that, or of the receives, must be told even if nothing else goes.
    pub(crate) owes: bool,
    /// Requests of ours that the peer has done.
    pub(crate) acked: u32,
    /// Its endpoint has binds to be carried out.
    pub(crate) binds: bool,
    /// Receives the peer has for our sends; receives posted here that it was not told of.
    pub(crate) credits: u32,
    pub(crate) advertise: u32,
    /// The peer's receives are shared between its endpoints: they are asked for; and were, since the last credit.
    pub(crate) peer_shares: bool,
    pub(crate) wanted: bool,
    /// Receives the peer was told of with the accept.
    pub(crate) promised: u32,
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) arriving: Arriving,
    /// Payload bytes of the current frame still to come, and whether they belong to a read's answer.
    pub(crate) frame_left: u32,
    pub(crate) frame_is_answer: bool,
    /// Whose turn is next when both an answer and a request could go.
    pub(crate) request_turn: bool,
    /// Payload bytes that may still go past the output in this call; 0: it may not write.
    pub(crate) bypass: usize,
    /// The socket took less than it was given.
    pub(crate) full: bool,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd, phase: Phase) -> Self {
        Self {
            socket,
            phase,
            ep: None,
            dial: None,
            deadline: None,
            partial: Vec::new(),
            out: Output::new(),
            watching_out: false,
            dirty: false,
            handled: 0,
            told: 0,
            owes: false,
            acked: 0,
            binds: false,
            credits: 0,
            advertise: 0,
            peer_shares: false,
            wanted: false,
            promised: 0,
            answers: VecDeque::new(),
            arriving: Arriving::Nothing,
            frame_left: 0,
            frame_is_answer: false,
            request_turn: false,
            bypass: 0,
            full: false,
        }
    }

    /// Forgets what was exchanged on a socket that is to be replaced.
    pub(crate) fn restart(&mut self, socket: OwnedFd) {
        self.socket = socket;
        self.partial.clear();
        self.out = Output::new();
    }
}

/// A connection whose other end has acknowledged nothing for so long is broken: somebody has cut the line.
pub const SILENT_TIME: Duration = Duration::from_secs(5);
/// How often that is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// A socket that does not block and sends small packets at once.
pub(crate) fn socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

pub(crate) fn tune(socket: impl AsFd) {
    // Latency only: a socket that refuses works all the same.
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    // A peer that has nothing to say is asked whether it is there. More probes than the answer is waited for: this side decides.
    let _ = sockopt::set_socket_keepalive(&socket, true);
    let _ = sockopt::set_tcp_keepidle(&socket, LOOK);
    let _ = sockopt::set_tcp_keepintvl(&socket, LOOK);
    let _ = sockopt::set_tcp_keepcnt(&socket, 2 * SILENT_TIME.as_secs() as u32);
}
