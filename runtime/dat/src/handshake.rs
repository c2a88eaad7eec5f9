//! How connections begin and end: proof of the job's secret first, then the request and its answer; refusals,
//! farewells, deadlines (udapl.md section 4.6; reliability.md S2, S3).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::AddressFamily;
use windlass_wire::auth::{CHALLENGE, HELLO, Initiator, PROOF, Responder};

use crate::ia::Inner;
use crate::link::{Dial, LOOK, Link, Phase, Reply, SILENT_TIME, socket, tune};
use crate::model::{ConnectionKind, DtoStatus, EpState};
use crate::serve::End;
use crate::slab::Id;
use crate::wire::{HEADER, Header, Kind, PROTOCOL};

/// Time for the peer to take the last frames and close.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Pause before a handshake is tried again that the peer closed (because many strangers were there).
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Tries of an endpoint that set no time limit.
const TRIES_MAX: u32 = 100;

impl Inner {
    /// Starts connecting; the endpoint's events tell the outcome.
    pub(crate) fn dial(&mut self, ep: Id, dial: Dial) -> Result<Id, Errno> {
        let give_up = dial.give_up;
        let mut link = Link::new(open(dial.to)?, Phase::Connecting);
        link.watching_out = true;
        link.ep = Some(ep);
        link.dial = Some(Box::new(dial));
        let id = self.register(link)?;
        if give_up.is_some() {
            self.set_deadline(id, give_up);
        }
        Ok(id)
    }

    /// The socket is connected, or failed to.
    pub(crate) fn connected(&mut self, link: &mut Link) -> Result<(), End> {
        match rustix::net::sockopt::socket_error(&link.socket) {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(End::Closed),
        }
        let (initiator, hello) = Initiator::new(&self.secret);
        link.phase = Phase::Challenge(initiator);
        link.out.push(&hello);
        Ok(())
    }

    /// Input before the connection is established. `None`: more is needed.
    pub(crate) fn greet(
        &mut self,
        id: Id,
        link: &mut Link,
        data: &[u8],
    ) -> Result<Option<usize>, End> {
        match std::mem::replace(&mut link.phase, Phase::Retry) {
            Phase::Hello => self.on_hello(link, data),
            Phase::Proof(responder) => self.on_proof(link, responder, data),
            Phase::Challenge(initiator) => self.on_challenge(link, initiator, data),
            Phase::Request => self.on_request(id, link, data),
            Phase::Answer => self.on_answer(id, link, data),
            Phase::Ready if !data.is_empty() => {
                self.established(id, link, &[]);
                Ok(Some(0))
            }
            phase => {
                link.phase = phase;
                if data.is_empty() {
                    Ok(None)
                } else {
                    Err(End::Protocol("data before the answer"))
                }
            }
        }
    }

    fn on_hello(&mut self, link: &mut Link, data: &[u8]) -> Result<Option<usize>, End> {
        let Some(hello) = data.first_chunk::<HELLO>() else {
            link.phase = Phase::Hello;
            return Ok(None);
        };
        let (responder, challenge) = Responder::new(&self.secret, *hello).map_err(|why| {
            tracing::debug!(%why, "a connection was refused");
            End::Stranger
        })?;
        link.out.push(&challenge);
        link.phase = Phase::Proof(responder);
        Ok(Some(HELLO))
    }

    fn on_proof(
        &mut self,
        link: &mut Link,
        responder: Responder,
        data: &[u8],
    ) -> Result<Option<usize>, End> {
        let Some(proof) = data.first_chunk::<PROOF>() else {
            link.phase = Phase::Proof(responder);
            return Ok(None);
        };
        responder.on_proof(*proof).map_err(|why| {
            tracing::debug!(%why, "a connection was refused");
            End::Stranger
        })?;
        link.phase = Phase::Request;
        Ok(Some(PROOF))
    }

    fn on_challenge(
        &mut self,
        link: &mut Link,
        initiator: Initiator,
        data: &[u8],
    ) -> Result<Option<usize>, End> {
        let Some(challenge) = data.first_chunk::<CHALLENGE>() else {
            link.phase = Phase::Challenge(initiator);
            return Ok(None);
        };
        link.phase = Phase::Answer;
        let proof = initiator.on_challenge(*challenge).map_err(|why| {
            tracing::debug!(%why, "the peer was refused");
            End::Stranger
        })?;
        link.out.push(&proof);
        if let Some(dial) = &link.dial {
            let mut header = Header::new(Kind::Connect);
            header.context = PROTOCOL;
            header.address = dial.qualifier;
            header.len = dial.private_data.len() as u32;
            let ep = link.ep.and_then(|ep| self.eps.get(ep));
            header.flags = ep.map_or(0, |ep| u8::from(ep.srq.is_some()));
            let private_data = dial.private_data.clone();
            link.control(header, &private_data);
        }
        Ok(Some(CHALLENGE))
    }

    /// The connection request of a peer that has proved itself.
    fn on_request(&mut self, id: Id, link: &mut Link, data: &[u8]) -> Result<Option<usize>, End> {
        let Some((header, private_data)) = control(data)? else {
            link.phase = Phase::Request;
            return Ok(None);
        };
        if header.kind != Kind::Connect || header.context != PROTOCOL {
            return Err(End::Protocol("no connection request of this protocol"));
        }
        self.strangers.retain(|stranger| *stranger != id);
        self.set_deadline_of(id, link, None);
        let used = HEADER + private_data.len();
        let from = rustix::net::getpeername(&link.socket).ok().flatten();
        let from = from.and_then(crate::ia::address);
        let Some(request) = self.arrive(id, from, header.address, private_data) else {
            link.control(
                Header {
                    flags: 1,
                    ..Header::new(Kind::Reject)
                },
                &[],
            );
            link.phase = Phase::Drain { shut: false };
            self.set_deadline_of(id, link, Some(Instant::now() + DRAIN_TIME));
            return Ok(Some(used));
        };
        link.peer_shares = header.flags == 1;
        link.phase = Phase::Pending(request);
        Ok(Some(used))
    }

    fn on_answer(&mut self, id: Id, link: &mut Link, data: &[u8]) -> Result<Option<usize>, End> {
        link.phase = Phase::Answer;
        let Some((header, private_data)) = control(data)? else {
            return Ok(None);
        };
        match header.kind {
            Kind::Accept => {
                link.dial = None;
                link.credits = u32::from(header.credits);
                link.peer_shares = header.flags == 1;
                self.established(id, link, private_data);
                // Always one frame, credits or not: it is what establishes the other side.
                let credits = link.advertise.min(u32::from(u16::MAX));
                link.advertise -= credits;
                link.control(
                    Header {
                        credits: credits as u16,
                        ..Header::new(Kind::Ack)
                    },
                    &[],
                );
                Ok(Some(HEADER + private_data.len()))
            }
            Kind::Reject => {
                let kind = if header.flags == 0 {
                    ConnectionKind::PeerRejected
                } else {
                    ConnectionKind::NonPeerRejected
                };
                if let Some(ep) = link.ep.take().and_then(|ep| self.eps.get_mut(ep)) {
                    ep.take_down(&mut self.evds, None, kind, private_data);
                }
                Err(End::Done)
            }
            _ => Err(End::Protocol("no answer to a connection request")),
        }
    }

    fn established(&mut self, id: Id, link: &mut Link, private_data: &[u8]) {
        link.phase = Phase::Data;
        self.set_deadline_of(id, link, Some(Instant::now() + LOOK));
        if let Some(ep) = link.ep.and_then(|ep| self.eps.get_mut(ep)) {
            // Receives posted while connecting, and since the accept.
            link.advertise = (ep.receives.len() as u32).saturating_sub(link.promised);
            link.owes = true;
            ep.set_state(EpState::Connected);
            ep.event(&mut self.evds, ConnectionKind::Established, private_data);
        }
    }

    /// A connection ends for this reason.
    pub(crate) fn end(&mut self, id: Id, why: End) {
        match why {
            End::PeerBye => {
                self.take_down(id, None, ConnectionKind::Disconnected);
                self.close(id);
            }
            End::PeerFault(status) => {
                self.take_down(id, Some(status), ConnectionKind::Broken);
                self.close(id);
            }
            End::Fault(status) => {
                if let Some(Some(link)) = self.links.get_mut(id) {
                    link.last_word(Reply::Fault(status));
                }
                self.take_down(id, None, ConnectionKind::Disconnected);
                self.drain(id);
            }
            End::Lost => {
                self.take_down(id, Some(DtoStatus::LocalProtection), ConnectionKind::Broken);
                self.say_bye(id);
            }
            End::Closed | End::Stranger | End::Protocol(_) | End::Done => {
                if let End::Protocol(what) = why {
                    tracing::debug!(what, "a peer broke the protocol");
                }
                self.ended(id, why);
            }
        }
    }

    /// The transport is gone, or is to go without a word: what that means depends on the phase.
    fn ended(&mut self, id: Id, why: End) {
        if why == End::Closed && self.try_again(id) {
            return;
        }
        let Some(Some(link)) = self.links.get(id) else {
            return;
        };
        let kind = match link.phase {
            Phase::Connecting | Phase::Retry | Phase::Challenge(_) => ConnectionKind::Unreachable,
            Phase::Answer => ConnectionKind::NonPeerRejected,
            Phase::Ready => ConnectionKind::AcceptCompletionError,
            _ => ConnectionKind::Broken,
        };
        self.take_down(id, None, kind);
        self.close(id);
    }

    /// Whether a handshake that the peer closed is tried again; if so, that is arranged.
    fn try_again(&mut self, id: Id) -> bool {
        let Some(Some(link)) = self.links.get_mut(id) else {
            return false;
        };
        // A refusal is told in a frame: a close without one is a full house.
        let (Phase::Challenge(_) | Phase::Answer, Some(dial)) = (&link.phase, &mut link.dial)
        else {
            return false;
        };
        dial.tries += 1;
        if dial.give_up.is_none() && dial.tries > TRIES_MAX {
            return false;
        }
        link.phase = Phase::Retry;
        self.unwatch(id); // the dead socket would be ready all the time
        self.set_deadline(id, Some(Instant::now() + RETRY_PAUSE));
        true
    }

    /// The pause is over: a new socket.
    fn redial(&mut self, id: Id) -> Result<(), Errno> {
        let Some(Some(link)) = self.links.get_mut(id) else {
            return Ok(());
        };
        let Some(dial) = &link.dial else {
            return Ok(());
        };
        let give_up = dial.give_up;
        let socket = open(dial.to)?;
        link.restart(socket);
        link.phase = Phase::Connecting;
        link.watching_out = true;
        self.watch(id, true)?;
        if give_up.is_some() {
            self.set_deadline(id, give_up);
        }
        Ok(())
    }

    /// A deadline of a link has passed.
    pub(crate) fn too_late(&mut self, id: Id, now: Instant) {
        let Some(Some(link)) = self.links.get_mut(id) else {
            return;
        };
        link.deadline = None;
        match (&link.phase, &link.dial) {
            (Phase::Retry, Some(dial)) if dial.give_up.is_none_or(|at| now < at) => {
                if self.redial(id).is_err() {
                    self.ended(id, End::Done);
                }
            }
            (Phase::Retry | Phase::Connecting | Phase::Challenge(_) | Phase::Answer, _) => {
                self.take_down(id, None, ConnectionKind::TimedOut);
                self.close(id);
            }
            // A peer that is stopped answers probes all the same, by its kernel.
            (Phase::Data, _)
                if !windlass_mem::silent_for(&link.socket)
                    .is_ok_and(|time| time >= SILENT_TIME) =>
            {
                self.set_deadline(id, Some(now + LOOK));
            }
            _ => {
                self.take_down(id, None, ConnectionKind::Broken);
                self.close(id);
            }
        }
    }

    /// The endpoint of a link, if it has one, enters DISCONNECTED and lets go of the link.
    pub(crate) fn take_down(&mut self, id: Id, first: Option<DtoStatus>, kind: ConnectionKind) {
        let Some(Some(link)) = self.links.get_mut(id) else {
            return;
        };
        let Some(id) = link.ep.take() else { return };
        if let Some(ep) = self.eps.get_mut(id) {
            crate::rmr::give_up(ep.binds.iter().copied(), &mut self.lmrs);
            ep.take_down(&mut self.evds, first, kind, &[]);
        }
        self.give_back(id);
    }

    /// An endpoint that leaves gracefully has finished its requests: it says so and goes.
    #[inline]
    pub(crate) fn leave_if_done(&mut self, id: Id) {
        let Some(Some(link)) = self.links.get(id) else {
            return;
        };
        let Some(ep) = link.ep.and_then(|ep| self.eps.get(ep)) else {
            return;
        };
        if ep.state() == EpState::DisconnectPending && ep.requests.is_empty() {
            self.take_down(id, None, ConnectionKind::Disconnected);
            self.say_bye(id);
        }
    }

    /// Sends the farewell after what is due, then ends.
    pub(crate) fn say_bye(&mut self, id: Id) {
        if let Some(Some(link)) = self.links.get_mut(id)
            && matches!(link.phase, Phase::Ready | Phase::Data)
        {
            link.last_word(Reply::Bye);
        }
        self.drain(id);
    }

    /// From here on the link only sends what it has, then ends; the peer has a limited time to take it.
    pub(crate) fn drain(&mut self, id: Id) {
        let Some(Some(link)) = self.links.get_mut(id) else {
            return;
        };
        link.phase = Phase::Drain { shut: false };
        link.partial.clear();
        self.set_deadline(id, Some(Instant::now() + DRAIN_TIME));
        self.push_link(id);
    }
}

/// A socket whose connection to `to` has begun.
fn open(to: SocketAddr) -> Result<std::os::fd::OwnedFd, Errno> {
    let socket = socket(if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    })?;
    tune(&socket);
    // Its port may be the number of a service point one day: it is not to be kept from it while this connection lingers.
    let _ = rustix::net::sockopt::set_socket_reuseaddr(&socket, true);
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// A whole control frame with its payload, if it is here.
fn control(data: &[u8]) -> Result<Option<(Header, &[u8])>, End> {
    let Some((head, rest)) = data.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let header = Header::decode(head)?;
    if !matches!(header.kind, Kind::Connect | Kind::Accept | Kind::Reject) {
        return Err(End::Protocol("frame of another phase"));
    }
    Ok(rest
        .get(..header.len as usize)
        .map(|payload| (header, payload)))
}
