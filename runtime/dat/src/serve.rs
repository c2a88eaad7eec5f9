//! Frames of an established connection: the target's validation (udapl.md section 5) and the initiator's completions.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use crate::input::Got;
use crate::link::{ANSWERS_MAX, Answer, Arriving, Link, Reply};
use crate::lmr::{LmrTable, Refused};
use crate::model::{DtoStatus, Privileges};
use crate::queue::Evds;
use crate::request::{Endpoint, Lost, Request, Verb};
use crate::slab::Slab;
use crate::srq::SharedQueue;
use crate::wire::{ATOMIC_PAYLOAD, HEADER, Header, Kind, Malformed, fault_status};

/// Payload from this size on is received without a buffer between.
const DIRECT_MIN: usize = 16 * 1024;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The transport ended or failed.
    Closed,
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// A request of the peer is refused with this status.
    Fault(DtoStatus),
    /// The peer refused our oldest request.
    PeerFault(DtoStatus),
    /// The peer left.
    PeerBye,
    /// The destination of our oldest request is no longer registered.
    Lost,
    /// The peer did not prove that it belongs to the job.
    Stranger,
    /// Everything is said already: close.
    Done,
}

impl From<Malformed> for End {
    fn from(why: Malformed) -> Self {
        tracing::debug!(%why, "a frame was refused");
        End::Protocol("malformed frame")
    }
}

impl From<Refused> for End {
    fn from(_: Refused) -> Self {
        End::Fault(DtoStatus::RemoteAccess)
    }
}

/// What a frame acts on.
pub(crate) struct Server<'a> {
    pub(crate) link: &'a mut Link,
    pub(crate) ep: &'a mut Endpoint,
    pub(crate) lmrs: &'a mut LmrTable,
    pub(crate) evds: &'a mut Evds,
    pub(crate) srqs: &'a mut Slab<SharedQueue>,
}

impl Server<'_> {
    /// Handles every whole frame, and payload as far as it is here. Answers how many bytes it used.
    pub(crate) fn input(&mut self, data: &[u8]) -> Result<usize, End> {
        let mut at = 0;
        loop {
            let rest = &data[at..];
            if self.link.frame_left > 0 {
                let piece = &rest[..rest.len().min(self.link.frame_left as usize)];
                if piece.is_empty() {
                    return Ok(at);
                }
                self.link.frame_left -= piece.len() as u32;
                at += piece.len();
                if self.link.frame_is_answer {
                    self.answer_bytes(piece)?
                } else {
                    self.request_bytes(piece)?
                }
                continue;
            }
            let Some((head, payload)) = rest.split_first_chunk::<HEADER>() else {
                return Ok(at);
            };
            let header = Header::decode(head)?;
            if header.kind == Kind::Atomic && payload.len() < ATOMIC_PAYLOAD {
                return Ok(at);
            }
            at += HEADER;
            self.acknowledged(header.ack)?;
            self.link.credits = self
                .link
                .credits
                .checked_add(u32::from(header.credits))
                .ok_or(End::Protocol("more credits than receives can exist"))?;
            self.link.wanted &= header.credits == 0;
            if header.kind == Kind::Atomic {
                self.atomic(&header, &payload[..ATOMIC_PAYLOAD])?;
                at += ATOMIC_PAYLOAD;
            } else {
                self.frame(&header)?;
            }
        }
    }

    /// The peer has finished our requests up to this number.
    #[inline]
    fn acknowledged(&mut self, ack: u32) -> Result<(), End> {
        let count = ack.wrapping_sub(self.link.acked) as usize;
        if count > self.ep.sent {
            return Err(End::Protocol("acknowledges what was not sent"));
        }
        for _ in 0..count {
            if self
                .ep
                .requests
                .front()
                .is_none_or(|request| request.verb.is_answered())
            {
                return Err(End::Protocol("acknowledges a read without its data"));
            }
            self.ep.complete(self.evds, DtoStatus::Success);
        }
        self.link.acked = ack;
        Ok(())
    }

    fn frame(&mut self, header: &Header) -> Result<(), End> {
        match header.kind {
            Kind::Write => self.write(header),
            Kind::Send => self.send(header),
            Kind::Read => self.read(header),
            Kind::Data | Kind::MoreData => self.data(header),
            Kind::MoreRequest => {
                let left = match self.link.arriving {
                    Arriving::Nothing => 0,
                    Arriving::Write { len, done, .. } | Arriving::Send { len, done, .. } => {
                        len - done
                    }
                };
                if header.len > left {
                    return Err(End::Protocol("more payload than announced"));
                }
                self.payload(header, false);
                Ok(())
            }
            Kind::AtomicReply => self.atomic_reply(header.address),
            Kind::Want => self.want(),
            Kind::Ack => Ok(()),
            Kind::Fault => {
                Err(fault_status(header.flags)
                    .map_or(End::Protocol("unknown fault"), End::PeerFault))
            }
            Kind::Bye => Err(End::PeerBye),
            Kind::Connect | Kind::Accept | Kind::Reject | Kind::Atomic => {
                Err(End::Protocol("frame of another phase"))
            }
        }
    }

    #[inline]
    pub(crate) fn payload(&mut self, header: &Header, is_answer: bool) {
        self.link.frame_left = header.payload();
        self.link.frame_is_answer = is_answer;
    }

    pub(crate) fn may_begin(&self) -> Result<(), End> {
        match self.link.arriving {
            Arriving::Nothing => Ok(()),
            _ => Err(End::Protocol("a request inside another")),
        }
    }

    #[inline]
    fn check(&self, header: &Header, len: u32, right: Privileges) -> Result<(), Refused> {
        self.lmrs.check_remote(
            (self.ep.pz, Some(self.ep.id.0)),
            header.context,
            header.address,
            len,
            right,
        )
    }

    /// An RDMA write: checked whole before the first byte is stored.
    fn write(&mut self, header: &Header) -> Result<(), End> {
        self.may_begin()?;
        self.check(header, header.len, Privileges::REMOTE_WRITE)?;
        if header.len == 0 {
            self.handled();
            return Ok(());
        }
        let Header {
            context,
            address,
            len,
            ..
        } = *header;
        self.link.arriving = Arriving::Write {
            context,
            address,
            len,
            done: 0,
        };
        self.payload(header, false);
        Ok(())
    }

    fn read(&mut self, header: &Header) -> Result<(), End> {
        self.may_begin()?;
        if self.link.answers.len() >= ANSWERS_MAX {
            return Err(End::Protocol("more reads than may wait"));
        }
        self.check(header, header.len, Privileges::REMOTE_READ)?;
        let Header {
            context,
            address,
            len,
            ..
        } = *header;
        self.answer(Reply::Data {
            context,
            address,
            len,
            done: 0,
        });
        Ok(())
    }

    fn answer(&mut self, what: Reply) {
        self.handled();
        self.link.answers.push_back(Answer {
            number: self.link.handled,
            what,
        });
    }

    /// A 64-bit atomic (udapl.md section 8). It uses the CPU's, as updates by other routes do.
    fn atomic(&mut self, header: &Header, operands: &[u8]) -> Result<(), End> {
        self.may_begin()?;
        if self.link.answers.len() >= ANSWERS_MAX {
            return Err(End::Protocol("more atomics than may wait"));
        }
        self.check(header, 8, Privileges::REMOTE_ATOMIC)?;
        let invalid = End::Fault(DtoStatus::RemoteResponder); // section 5, rule 6
        let (bytes, offset) = self
            .lmrs
            .at(header.context, header.address, 8)
            .ok_or(invalid)?;
        if !header.address.is_multiple_of(8) {
            return Err(invalid);
        }
        let word = bytes.atomic_u64(offset).map_err(|_| invalid)?;
        let operand = |at: usize| {
            operands[at..]
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let before = match header.flags {
            0 => word.fetch_add(operand(0), Ordering::SeqCst),
            _ => word
                .compare_exchange(operand(0), operand(8), Ordering::SeqCst, Ordering::SeqCst)
                .unwrap_or_else(|found| found),
        };
        self.answer(Reply::Atomic(before));
        Ok(())
    }

    pub(crate) fn handled(&mut self) {
        self.link.handled = self.link.handled.wrapping_add(1);
        self.link.owes = true;
    }

    /// Payload of the peer's request.
    #[inline]
    fn request_bytes(&mut self, piece: &[u8]) -> Result<(), End> {
        match self.link.arriving {
            Arriving::Nothing => return Err(End::Protocol("payload of no request")),
            Arriving::Write {
                context,
                address,
                done,
                ..
            } => {
                // Looked up anew: the region may have been freed since the last piece.
                let at = address + u64::from(done);
                let (bytes, offset) = self.lmrs.at(context, at, piece.len()).ok_or(Refused)?;
                bytes.write(offset, piece).map_err(|_| Refused)?;
            }
            Arriving::Send { done, .. } => {
                let receive = self.ep.receives.front();
                let receive = receive.ok_or(End::Protocol("a send without a receive"))?;
                if receive.iov.scatter(self.lmrs, done, piece).is_err() {
                    self.ep.received(self.evds, DtoStatus::LocalProtection, 0);
                    return Err(End::Fault(DtoStatus::RemoteResponder));
                }
            }
        }
        self.request_landed(piece.len() as u32);
        Ok(())
    }

    /// So many bytes of the peer's request are in memory.
    #[inline]
    fn request_landed(&mut self, more: u32) {
        match &mut self.link.arriving {
            Arriving::Nothing => return,
            Arriving::Write { len, done, .. } => {
                *done += more;
                if *done < *len {
                    return;
                }
            }
            Arriving::Send { len, done, ends } => {
                *done += more;
                if *done < *len {
                    return;
                }
                let (len, ends) = (*len, *ends);
                return self.message_landed(len, ends);
            }
        }
        self.link.arriving = Arriving::Nothing;
        self.handled();
    }

    /// Header of a read's answer: it must be for our oldest request.
    fn data(&mut self, header: &Header) -> Result<(), End> {
        let wrong = End::Protocol("data nobody asked for");
        let sent = self.ep.sent > 0;
        let request = self.ep.requests.front().filter(|_| sent).ok_or(wrong)?;
        let fits = match header.kind {
            Kind::Data => request.done == 0 && header.len == request.len,
            _ => request.done > 0 && header.len <= request.len - request.done,
        };
        if request.verb != Verb::Read || !fits {
            return Err(wrong);
        }
        if header.len == 0 {
            return self.answered();
        }
        self.payload(header, true);
        Ok(())
    }

    #[inline]
    fn answer_bytes(&mut self, piece: &[u8]) -> Result<(), End> {
        let Some(request) = self.ep.requests.front() else {
            return Err(End::Protocol("data nobody asked for"));
        };
        request
            .scatter(self.lmrs, request.done, piece)
            .map_err(|Lost| End::Lost)?;
        self.answer_landed(piece.len() as u32)
    }

    /// So many bytes of a read's answer are in memory.
    #[inline]
    fn answer_landed(&mut self, more: u32) -> Result<(), End> {
        let Some(request) = self.ep.requests.front_mut() else {
            return Ok(());
        };
        request.done += more;
        if request.done == request.len {
            self.answered()
        } else {
            Ok(())
        }
    }

    /// Receives payload straight into its place, if it is long enough and the place is one piece. `None`: read into
    /// a buffer instead.
    pub(crate) fn receive(&mut self) -> Result<Option<Got>, End> {
        if (self.link.frame_left as usize) < DIRECT_MIN {
            return Ok(None);
        }
        let place = if self.link.frame_is_answer {
            self.ep.requests.front().and_then(Request::landing)
        } else {
            match self.link.arriving {
                Arriving::Nothing => None,
                Arriving::Write {
                    context,
                    address,
                    len,
                    done,
                } => Some((context, address + u64::from(done), len - done)),
                Arriving::Send { done, .. } => self
                    .ep
                    .receives
                    .front()
                    .and_then(|receive| receive.iov.at(done)),
            }
        };
        let Some((context, address, room)) = place else {
            return Ok(None);
        };
        let len = room.min(self.link.frame_left) as usize;
        // A region that was freed is the other path's to report.
        let Some((bytes, offset)) = self.lmrs.at(context, address, len) else {
            return Ok(None);
        };
        let got = match bytes.recv(&self.link.socket, offset, len) {
            Ok(0) => return Err(End::Closed),
            Ok(got) => got,
            Err(error) if error.errno() == Some(Errno::AGAIN) => return Ok(Some(Got::Nothing)),
            Err(_) => return Err(End::Closed),
        };
        self.link.frame_left -= got as u32;
        if self.link.frame_is_answer {
            self.answer_landed(got as u32)?;
        } else {
            self.request_landed(got as u32);
        }
        Ok(Some(if got < len { Got::All } else { Got::Part }))
    }

    /// Whether the next frame most likely brings more of a long payload.
    pub(crate) fn expects_payload(&self) -> bool {
        if self.link.frame_left > 0 {
            return false;
        }
        let left = match self.link.arriving {
            Arriving::Nothing => 0,
            Arriving::Write { len, done, .. } | Arriving::Send { len, done, .. } => len - done,
        };
        let answer = self
            .ep
            .requests
            .front()
            .map_or(0, |request| match request.verb {
                Verb::Read if request.done > 0 => request.len - request.done,
                _ => 0,
            });
        left.max(answer) as usize >= DIRECT_MIN
    }

    fn answered(&mut self) -> Result<(), End> {
        self.ep.complete(self.evds, DtoStatus::Success);
        self.link.acked = self.link.acked.wrapping_add(1);
        Ok(())
    }

    fn atomic_reply(&mut self, before: u64) -> Result<(), End> {
        let wrong = End::Protocol("an atomic's answer nobody asked for");
        let sent = self.ep.sent > 0;
        let request = self.ep.requests.front().filter(|_| sent).ok_or(wrong)?;
        if !matches!(request.verb, Verb::FetchAdd(_) | Verb::CompareSwap { .. }) {
            return Err(wrong);
        }
        // The local segment is in host order, as the target's memory is (udapl.md section 2.2).
        request
            .scatter(self.lmrs, 0, &before.to_ne_bytes())
            .map_err(|Lost| End::Lost)?;
        self.answered()
    }
}
