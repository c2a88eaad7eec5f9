//! What goes out on a connection and when: requests in post order, answers in the order of the peer's requests, the
//! two in turns, chunk by chunk; acknowledgements and credits in every header, and alone when nothing else goes.
//!
//! Small payload is copied into the output and travels with its neighbours; large payload goes to the socket from
//! where it is registered. Both are bounded in one call, so that no connection keeps the others waiting.

use rustix::io::Errno;

use crate::link::{ANSWERS_MAX, Answer, Link, OUT_FILL, Phase, Reply};
use crate::lmr::LmrTable;
use crate::model::{DtoStatus, Flags, LocalSegment};
use crate::output::NotSent;
use crate::request::{Endpoint, Iov, Request, Source, Verb};
use crate::wire::{ATOMIC_PAYLOAD, CHUNK, Header, Kind};

/// Payload from this size on goes past the output.
const BYPASS_MIN: usize = 16 * 1024;
/// Fills of the output, or as many bytes past it, in one call.
const FILLS_PER_STEP: usize = 8;

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

/// What became of an inline operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inline {
    /// In the output, or on its way.
    Sent,
    /// Something stands before it: it has to be kept.
    Behind,
    /// The socket takes nothing now.
    Full,
}

impl Link {
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
        self.owes &= self.told != self.handled || self.advertise > 0;
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

    /// Sends what may be sent. True: all of it; false: the socket is full, this call has done its share, or it was
    /// only to encode (`write` false).
    pub(crate) fn pump(
        &mut self,
        mut ep: Option<&mut Endpoint>,
        lmrs: &LmrTable,
        write: bool,
    ) -> Result<bool, SendError> {
        for _ in 0..FILLS_PER_STEP {
            self.bypass = if write { OUT_FILL } else { 0 };
            self.full = false;
            let mut more = true;
            while more && !self.full && self.out.len() < OUT_FILL && write == (self.bypass > 0) {
                more = self.encode_next(ep.as_deref_mut(), lmrs)?;
            }
            if !write || !self.out.write(&self.socket).map_err(SendError::Io)? {
                return Ok(false);
            }
            if !more {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts the next frame into the output; false if there is none that may go now.
    #[inline]
    fn encode_next(
        &mut self,
        ep: Option<&mut Endpoint>,
        lmrs: &LmrTable,
    ) -> Result<bool, SendError> {
        let wants = self.peer_shares && ep.as_deref().is_some_and(|ep| self.lacks_receive(ep));
        let request = ep.filter(|ep| matches!(self.phase, Phase::Data) && self.may_send(ep));
        let answer = self
            .answers
            .front()
            .is_some_and(|answer| self.may_answer(answer));
        match request {
            Some(ep) if !answer || self.request_turn => {
                self.request_turn = false;
                self.encode_request(ep, lmrs)?;
                Ok(true)
            }
            _ if answer => {
                self.request_turn = true;
                self.encode_answer(lmrs)?;
                Ok(true)
            }
            _ if wants => {
                self.wanted = true;
                let header = self.header(Kind::Want);
                self.control(header, &[]);
                Ok(true)
            }
            _ if matches!(self.phase, Phase::Data)
                && self.owes
                && (self.finished() != self.told || self.advertise > 0) =>
            {
                let header = self.header(Kind::Ack);
                self.control(header, &[]);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether the oldest answer may go (on): a large one waits until it may go past the output.
    #[inline]
    fn may_answer(&self, answer: &Answer) -> bool {
        match answer.what {
            Reply::Data { len, done, .. } => self.bypass > 0 || len - done < BYPASS_MIN as u32,
            _ => true,
        }
    }

    /// Whether the oldest unsent request may start or go on (rules 3, 5 and 8 of udapl.md section 4.7).
    #[inline]
    fn may_send(&self, ep: &Endpoint) -> bool {
        let Some(request) = ep.requests.get(ep.sent) else {
            return false;
        };
        let large = matches!(request.source, Source::Registered(_))
            && matches!(request.verb, Verb::Write | Verb::Send)
            && request.len - request.done >= BYPASS_MIN as u32;
        if large && self.bypass == 0 {
            return false; // not copied now: it will go past the output
        }
        if request.started {
            return true;
        }
        if request.flags.contains(Flags::BARRIER_FENCE) && ep.answers_due > 0 {
            return false;
        }
        match request.verb {
            Verb::Send => self.credits > 0,
            Verb::Write => true,
            Verb::Bind => false, // not sent: its turn comes when everything before it has completed
            _ => ep.answers_due < ANSWERS_MAX,
        }
    }

    /// Whether the oldest unsent request is a send that has to ask for a receive.
    fn lacks_receive(&self, ep: &Endpoint) -> bool {
        let next = ep.requests.get(ep.sent);
        let is_send = next.is_some_and(|next| next.verb == Verb::Send && !next.started);
        is_send && self.credits == 0 && !self.wanted && matches!(self.phase, Phase::Data)
    }

    /// Puts an inline write or send straight into the output, a long one straight to the socket.
    pub(crate) fn inline(&mut self, request: &Request, bytes: &[u8], ep: &Endpoint) -> Inline {
        let fenced = request.flags.contains(Flags::BARRIER_FENCE) && ep.answers_due > 0;
        let is_send = request.verb == Verb::Send;
        let blocked = fenced || !self.answers.is_empty() || (is_send && self.credits == 0);
        if blocked || !matches!(self.phase, Phase::Data) || ep.sent < ep.requests.len() {
            return Inline::Behind;
        }
        let long = bytes.len() >= BYPASS_MIN;
        if long && (self.watching_out || !matches!(self.out.write(&self.socket), Ok(true))) {
            return Inline::Full; // a failed transport is told by the next step
        }
        if self.out.len() >= OUT_FILL {
            return Inline::Behind;
        }
        let mut header = self.header(if is_send { Kind::Send } else { Kind::Write });
        self.credits -= u32::from(is_send);
        header.context = request.remote.context;
        header.address = request.remote.address;
        header.len = request.len;
        if long {
            self.out.send_bytes(&self.socket, &header, bytes);
        } else {
            self.control(header, bytes);
        }
        Inline::Sent
    }

    fn encode_request(&mut self, ep: &mut Endpoint, lmrs: &LmrTable) -> Result<(), SendError> {
        let Some(request) = ep.requests.get_mut(ep.sent) else {
            return Ok(());
        };
        let kind = match request.verb {
            _ if request.started => Kind::MoreRequest,
            Verb::Write => Kind::Write,
            Verb::Send => Kind::Send,
            Verb::Bind => return Ok(()),
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
            Verb::Write | Verb::Send | Verb::Bind => {
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
        match &request.source {
            Source::Inline(bytes) => {
                let at = request.done as usize;
                self.control(header, &bytes[at..at + piece as usize]);
            }
            Source::Registered(iov) => self.payload(&header, iov, request.done, piece, lmrs)?,
        }
        request.started = true;
        request.done += piece;
        if request.done == request.len {
            ep.sent += 1;
        }
        Ok(())
    }

    /// A frame with payload from registered memory: straight to the socket, or into the output.
    #[inline]
    fn payload(
        &mut self,
        header: &Header,
        iov: &Iov,
        at: u32,
        piece: u32,
        lmrs: &LmrTable,
    ) -> Result<(), SendError> {
        let len = piece as usize;
        if self.may_bypass(len)?
            && let Some((context, address, _)) = iov.at(at).filter(|(.., left)| *left >= piece)
        {
            let (bytes, offset) = lmrs.at(context, address, len).ok_or(SendError::Source)?;
            let sent = self
                .out
                .send_frame(&self.socket, header, bytes, (offset, len));
            self.full = !sent.map_err(|why| match why {
                NotSent::Io(errno) => SendError::Io(errno),
                NotSent::Lost => SendError::Source,
            })?;
            self.bypass = self.bypass.saturating_sub(len);
            return Ok(());
        }
        let room = self.out.frame(header, len);
        if iov.gather(lmrs, at, room).is_err() {
            self.out.unframe(len);
            return Err(SendError::Source);
        }
        Ok(())
    }

    /// Whether a payload of this size goes past the output: if it is worth it and the output is empty.
    #[inline]
    fn may_bypass(&mut self, len: usize) -> Result<bool, SendError> {
        if len < BYPASS_MIN || self.bypass == 0 || self.full {
            return Ok(false);
        }
        self.full = !self.out.write(&self.socket).map_err(SendError::Io)?;
        Ok(!self.full)
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
        let from = Iov::one(LocalSegment {
            context,
            address,
            len,
        });
        match self.payload(&header, &from, done, piece, lmrs) {
            Ok(()) => {}
            Err(SendError::Source) => {
                // The peer may have part of the answer; the fault ends it, and nothing later is done.
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
            Err(other) => return Err(other),
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

    /// What was asked and is not answered never is, nor acknowledged, with all behind it.
    pub(crate) fn leave_unanswered(&mut self) {
        if let Some(first) = self.answers.front() {
            self.handled = first.number.wrapping_sub(1);
            self.answers.clear();
        }
    }

    /// The request after the last one handled fails, or the sender leaves: the last frame, after the answers due.
    pub(crate) fn last_word(&mut self, what: Reply) {
        self.answers.push_back(Answer {
            number: self.handled.wrapping_add(1),
            what,
        });
    }
}
