//! One TCP connection: its socket, its output buffer, and what is under way on it in both directions.
//!
//! The output always ends at a frame, so a fault or a farewell can follow at any time; it is bounded by
//! [`OUT_FILL`] plus one chunk, whatever is queued.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use windlass_wire::auth::{Initiator, Responder};

use crate::lmr::LmrTable;
use crate::model::{DtoStatus, Flags};
use crate::request::{Endpoint, Request, Source, Verb};
use crate::slab::Id;
use crate::wire::{ATOMIC_PAYLOAD, CHUNK, HEADER, Header, Kind};

/// The output is filled up to here before it is written.
pub(crate) const OUT_FILL: usize = 256 * 1024;
/// Reads and atomics of one endpoint that wait for their answer at most; a peer that sends more is broken.
pub(crate) const ANSWERS_MAX: usize = 256;
/// Smallest output buffer.
const OUT_MIN: usize = 4 * 1024;

/// Bytes on their way out.
pub(crate) struct Output {
    buffer: Vec<u8>,
    head: usize,
    tail: usize,
}

impl Output {
    const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            head: 0,
            tail: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tail - self.head
    }

    /// The next `len` bytes of the buffer, to be filled by the caller.
    #[inline]
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        if self.buffer.len() - self.tail < len {
            self.make_room(len);
        }
        self.tail += len;
        &mut self.buffer[self.tail - len..self.tail]
    }

    #[cold]
    fn make_room(&mut self, len: usize) {
        self.buffer.copy_within(self.head..self.tail, 0);
        self.tail -= self.head;
        self.head = 0;
        if self.buffer.len() - self.tail < len {
            let size = (self.tail + len).next_power_of_two().max(OUT_MIN);
            self.buffer.resize(size, 0);
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len()).copy_from_slice(bytes);
    }

    #[inline]
    fn frame(&mut self, header: &Header, payload: usize) -> &mut [u8] {
        let frame = self.reserve(HEADER + payload);
        if let Some((head, payload)) = frame.split_first_chunk_mut::<HEADER>() {
            header.encode(head);
            payload
        } else {
            &mut []
        }
    }

    /// Takes back the last frame.
    fn unframe(&mut self, payload: usize) {
        self.tail -= HEADER + payload;
    }
}

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
    /// Requests of ours that the peer has done.
    pub(crate) acked: u32,
    /// Receives the peer has for our sends; receives posted here that it was not told of.
    pub(crate) credits: u32,
    pub(crate) advertise: u32,
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) arriving: Arriving,
    /// Payload bytes of the current frame still to come, and whether they belong to a read's answer.
    pub(crate) frame_left: u32,
    pub(crate) frame_is_answer: bool,
    /// Whose turn is next when both an answer and a request could go.
    request_turn: bool,
}

/// Why nothing more can be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SendError {
    /// The transport failed.
    Io(Errno),
    /// The source of the oldest unsent request is no longer registered.
    Source,
    /// A region a peer is reading was freed: the answer became a fault.
    Revoked,
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
            acked: 0,
            credits: 0,
            advertise: 0,
            answers: VecDeque::new(),
            arriving: Arriving::Nothing,
            frame_left: 0,
            frame_is_answer: false,
            request_turn: false,
        }
    }

    /// Forgets what was exchanged on a socket that is to be replaced.
    pub(crate) fn restart(&mut self, socket: OwnedFd) {
        self.socket = socket;
        self.partial.clear();
        self.out = Output::new();
    }

    /// What a frame may acknowledge: never a request whose answer is not wholly sent before it.
    #[inline]
    fn finished(&self) -> u32 {
        self.answers
            .front()
            .map_or(self.handled, |answer| answer.number.wrapping_sub(1))
    }

    /// A header with the acknowledgement and credits that are due.
    #[inline]
    fn header(&mut self, kind: Kind) -> Header {
        let credits = self.advertise.min(u32::from(u16::MAX));
        self.advertise -= credits;
        self.told = self.finished();
        Header {
            credits: credits as u16,
            ack: self.told,
            ..Header::new(kind)
        }
    }

    pub(crate) fn control(&mut self, header: Header, payload: &[u8]) {
        self.out
            .frame(&header, payload.len())
            .copy_from_slice(payload);
    }

    /// Puts the next frame into the output; false if there is none that may go now.
    #[inline]
    pub(crate) fn encode_next(
        &mut self,
        ep: Option<&mut Endpoint>,
        lmrs: &LmrTable,
    ) -> Result<bool, SendError> {
        let request = ep.filter(|ep| matches!(self.phase, Phase::Data) && self.may_send(ep));
        match request {
            Some(ep) if self.answers.is_empty() || self.request_turn => {
                self.request_turn = false;
                self.encode_request(ep, lmrs)?;
                Ok(true)
            }
            _ if !self.answers.is_empty() => {
                self.request_turn = true;
                self.encode_answer(lmrs)?;
                Ok(true)
            }
            _ if matches!(self.phase, Phase::Data)
                && (self.finished() != self.told || self.advertise > 0) =>
            {
                let header = self.header(Kind::Ack);
                self.control(header, &[]);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether the oldest unsent request may start or go on (rules 3, 5 and 8 of udapl.md section 4.7).
    #[inline]
    fn may_send(&self, ep: &Endpoint) -> bool {
        let Some(request) = ep.requests.get(ep.sent) else {
            return false;
        };
        if request.started {
            return true;
        }
        if request.flags.contains(Flags::BARRIER_FENCE) && ep.answers_due > 0 {
            return false;
        }
        match request.verb {
            Verb::Send => self.credits > 0,
            Verb::Write => true,
            _ => ep.answers_due < ANSWERS_MAX,
        }
    }

    /// Puts an inline write or send straight into the output, if nothing stands before it.
    pub(crate) fn inline(&mut self, request: &Request, bytes: &[u8], ep: &Endpoint) -> bool {
        let fenced = request.flags.contains(Flags::BARRIER_FENCE) && ep.answers_due > 0;
        let is_send = request.verb == Verb::Send;
        let blocked = fenced || !self.answers.is_empty() || (is_send && self.credits == 0);
        if blocked || !matches!(self.phase, Phase::Data) {
            return false;
        }
        let mut header = self.header(if is_send { Kind::Send } else { Kind::Write });
        self.credits -= u32::from(is_send);
        header.context = request.remote.context;
        header.address = request.remote.address;
        header.len = request.len;
        self.control(header, bytes);
        true
    }

    fn encode_request(&mut self, ep: &mut Endpoint, lmrs: &LmrTable) -> Result<(), SendError> {
        let Some(request) = ep.requests.get_mut(ep.sent) else {
            return Ok(());
        };
        let kind = match request.verb {
            _ if request.started => Kind::MoreRequest,
            Verb::Write => Kind::Write,
            Verb::Send => Kind::Send,
            Verb::Read => Kind::Read,
            Verb::FetchAdd(_) | Verb::CompareSwap { .. } => Kind::Atomic,
        };
        let mut header = self.header(kind);
        header.context = request.remote.context;
        header.address = request.remote.address;
        header.len = request.len;
        match request.verb {
            Verb::Read => {
                self.control(header, &[]);
                ep.answers_due += 1;
            }
            Verb::FetchAdd(value) => {
                self.atomic(header, value, 0);
                ep.answers_due += 1;
            }
            Verb::CompareSwap { compare, swap } => {
                header.flags = 1;
                self.atomic(header, compare, swap);
                ep.answers_due += 1;
            }
            Verb::Write | Verb::Send => {
                if kind == Kind::Send {
                    self.credits -= 1;
                }
                return self.encode_payload(header, ep, lmrs);
            }
        }
        request.started = true;
        ep.sent += 1;
        Ok(())
    }

    fn atomic(&mut self, mut header: Header, first: u64, second: u64) {
        header.len = ATOMIC_PAYLOAD as u32;
        let mut payload = [0; ATOMIC_PAYLOAD];
        payload[..8].copy_from_slice(&first.to_le_bytes());
        payload[8..].copy_from_slice(&second.to_le_bytes());
        self.control(header, &payload);
    }

    #[inline]
    fn encode_payload(
        &mut self,
        mut header: Header,
        ep: &mut Endpoint,
        lmrs: &LmrTable,
    ) -> Result<(), SendError> {
        let Some(request) = ep.requests.get_mut(ep.sent) else {
            return Ok(());
        };
        let piece = (request.len - request.done).min(CHUNK);
        if request.started {
            header.len = piece;
        }
        let room = self.out.frame(&header, piece as usize);
        if source(request, lmrs, room).is_err() {
            self.out.unframe(piece as usize);
            return Err(SendError::Source);
        }
        request.started = true;
        request.done += piece;
        if request.done == request.len {
            ep.sent += 1;
        }
        Ok(())
    }

    fn encode_answer(&mut self, lmrs: &LmrTable) -> Result<(), SendError> {
        let Some(answer) = self.answers.front() else {
            return Ok(());
        };
        match answer.what {
            Reply::Data {
                context,
                address,
                len,
                done,
            } => {
                return self.encode_data(lmrs, context, address, len, done);
            }
            Reply::Atomic(value) => {
                let header = Header {
                    address: value,
                    ..self.header(Kind::AtomicReply)
                };
                self.control(header, &[]);
            }
            Reply::Fault(status) => {
                let header = Header {
                    flags: status as u8,
                    ..self.header(Kind::Fault)
                };
                self.control(header, &[]);
            }
            Reply::Bye => {
                let header = self.header(Kind::Bye);
                self.control(header, &[]);
            }
        }
        self.answers.pop_front();
        Ok(())
    }

    fn encode_data(
        &mut self,
        lmrs: &LmrTable,
        context: u32,
        address: u64,
        len: u32,
        done: u32,
    ) -> Result<(), SendError> {
        let piece = (len - done).min(CHUNK);
        let mut header = self.header(if done == 0 {
            Kind::Data
        } else {
            Kind::MoreData
        });
        header.len = if done == 0 { len } else { piece };
        if piece > 0 {
            let room = self.out.frame(&header, piece as usize);
            let read = lmrs
                .at(context, address + u64::from(done), piece as usize)
                .and_then(|(bytes, offset)| bytes.read(offset, room).ok());
            if read.is_none() {
                self.out.unframe(piece as usize);
                // The peer has part of the answer; the fault ends it, and nothing later is done.
                let number = self
                    .answers
                    .front()
                    .map_or(self.handled, |answer| answer.number);
                self.answers.clear();
                self.answers.push_back(Answer {
                    number,
                    what: Reply::Fault(DtoStatus::RemoteAccess),
                });
                return Err(SendError::Revoked);
            }
        } else {
            self.control(header, &[]);
        }
        if done + piece == len {
            self.answers.pop_front();
        } else if let Some(Answer {
            what: Reply::Data { done, .. },
            ..
        }) = self.answers.front_mut()
        {
            *done += piece;
        }
        Ok(())
    }

    /// The request after the last one handled fails, or the sender leaves: the last frame, after the answers due.
    pub(crate) fn last_word(&mut self, what: Reply) {
        self.answers.push_back(Answer {
            number: self.handled.wrapping_add(1),
            what,
        });
    }

    /// Writes what is in the output; true when all of it went.
    #[inline]
    pub(crate) fn write(&mut self) -> Result<bool, Errno> {
        while self.out.head < self.out.tail {
            let bytes = &self.out.buffer[self.out.head..self.out.tail];
            match rustix::net::send(
                &self.socket,
                bytes,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(sent) => self.out.head += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.out.head = 0;
        self.out.tail = 0;
        Ok(true)
    }
}

/// Payload of a write or send, from where the last chunk ended.
#[inline]
fn source(request: &Request, lmrs: &LmrTable, to: &mut [u8]) -> Result<(), crate::request::Lost> {
    match &request.source {
        Source::Registered(iov) => iov.gather(lmrs, request.done, to),
        Source::Inline(bytes) => {
            let at = request.done as usize;
            to.copy_from_slice(&bytes[at..at + to.len()]);
            Ok(())
        }
    }
}

/// A socket that does not block and sends small packets at once.
pub(crate) fn socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

pub(crate) fn tune(socket: impl AsFd) {
    // Latency only: a socket that refuses works all the same.
    let _ = rustix::net::sockopt::set_tcp_nodelay(socket, true);
}
