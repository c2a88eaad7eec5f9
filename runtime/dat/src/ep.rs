//! Endpoints: their life (udapl.md section 4.6) and what is posted on them (section 4.7).
//!
//! A post checks everything that can be known locally and leaves the endpoint usable when it refuses. It puts the
//! operation into the output and writes at once, unless [`Flags::MORE`] says that another post follows. Requests
//! start and complete in post order; a write or send completes when the target has taken it into its memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::evd::Evd;
use crate::ia::{Ia, Inner};
use crate::link::{Dial, OUT_FILL, Phase};
use crate::lmr::LmrTable;
use crate::model::{
    CloseFlags, ConnectionKind, DtoStatus, EpId, EpState, EvdFlags, Flags, LocalSegment,
    RemoteSegment,
};
use crate::pz::Pz;
use crate::request::{Endpoint, EpAttr, IOV_MAX, Iov, Receive, Request, Seen, Source, Verb};
use crate::ret::{Error, Result, Subtype, Type};
use crate::slab::Id;
use crate::wire::{CHUNK, PRIVATE_DATA_MAX};

/// Bytes of one inline operation at most.
pub const INLINE_MAX: usize = CHUNK as usize;
/// Bytes of inline copies that may wait on one endpoint for the output.
const INLINE_WAITING_MAX: usize = 1 << 20;
/// Limits of [`EpAttr`].
const DTOS_MAX: usize = 1 << 20;

/// A reliable connection's end. Dropping it disconnects abruptly and frees it.
pub struct Ep {
    ia: Arc<Ia>,
    id: Id,
    seen: Arc<Seen>,
}

impl std::fmt::Debug for Ep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ep")
            .field("index", &self.id.index)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The dispatcher's name if it may take these events for an endpoint of `ia`.
fn feed(
    ia: &Arc<Ia>,
    inner: &Inner,
    evd: Option<&Evd>,
    flags: EvdFlags,
    wrong: Subtype,
) -> Result<Option<Id>> {
    match evd {
        None => Ok(None),
        Some(evd) if evd.belongs_to(ia) && inner.evds.takes(evd.id(), flags) => Ok(Some(evd.id())),
        Some(_) => Err(Error::handle(wrong)),
    }
}

impl Ep {
    /// `dat_ep_create`. Dispatchers may be shared, and one may serve for all three.
    ///
    /// # Errors
    /// INVALID_HANDLE (PZ, EVD_RECV, EVD_REQUEST, EVD_CONN) for a freed object or one that does not take the events;
    /// INVALID_PARAMETER (ARG6) for attributes that do not fit the dispatchers or exceed the limits.
    pub fn create(
        pz: &Pz,
        recv: Option<&Evd>,
        request: Option<&Evd>,
        connect: Option<&Evd>,
        attr: EpAttr,
    ) -> Result<Self> {
        let ia = pz.ia().clone();
        let mut inner = ia.lock();
        if inner.pzs.get(pz.id()).is_none() {
            return Err(Error::handle(Subtype::Pz));
        }
        let recv_evd = feed(&ia, &inner, recv, EvdFlags::DTO, Subtype::EvdRecv)?;
        let request_evd = feed(&ia, &inner, request, EvdFlags::DTO, Subtype::EvdRequest)?;
        let connect_evd = feed(&ia, &inner, connect, EvdFlags::CONNECTION, Subtype::EvdConn)?;
        let fits = recv_evd.is_some() == (attr.max_recv_dtos > 0)
            && request_evd.is_some() == (attr.max_request_dtos > 0)
            && attr.max_recv_dtos <= DTOS_MAX
            && attr.max_request_dtos <= DTOS_MAX;
        if !fits {
            return Err(Error::arg(Subtype::Arg6));
        }
        let seen = Arc::new(Seen {
            state: AtomicU8::new(EpState::Unconnected as u8),
            posted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
        });
        let id = inner.eps.insert(Endpoint::new(
            pz.id(),
            [recv_evd, request_evd, connect_evd],
            attr,
            seen.clone(),
        ));
        if let Some(ep) = inner.eps.get_mut(id) {
            ep.id = EpId(id);
        }
        inner.hold_pz(pz.id());
        for evd in [recv_evd, request_evd, connect_evd] {
            inner.evds.hold(evd);
        }
        drop(inner);
        Ok(Self { ia, id, seen })
    }

    /// How events name this endpoint.
    pub fn id(&self) -> EpId {
        EpId(self.id)
    }

    /// Its state, without a lock.
    pub fn state(&self) -> EpState {
        EpState::from_u8(self.seen.state.load(Ordering::Acquire))
    }

    /// Requests posted and requests completed successfully since the last reset, without a lock. Requests complete in
    /// order, so all is done when both are equal, suppressed completions included; a failure leaves them apart.
    pub fn counts(&self) -> (u64, u64) {
        let completed = self.seen.completed.load(Ordering::Acquire);
        (self.seen.posted.load(Ordering::Relaxed), completed)
    }

    pub(crate) fn table_id(&self, ia: &Arc<Ia>) -> Option<Id> {
        Arc::ptr_eq(&self.ia, ia).then_some(self.id)
    }

    /// `dat_ep_connect`: asks the service `qualifier` at `address`. The outcome is an event.
    ///
    /// # Errors
    /// INVALID_STATE unless UNCONNECTED, or (EP_NOTREADY) without a connection dispatcher; INVALID_PARAMETER (ARG4
    /// time 0, ARG5 private data above [`PRIVATE_DATA_MAX`]); INVALID_ADDRESS if the host cannot use the address.
    pub fn connect(
        &self,
        address: SocketAddr,
        qualifier: u64,
        timeout: Option<Duration>,
        private_data: &[u8],
    ) -> Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::arg(Subtype::Arg4));
        }
        if private_data.len() > PRIVATE_DATA_MAX {
            return Err(Error::arg(Subtype::Arg5));
        }
        let mut inner = self.ia.lock();
        let ep = inner.eps.get(self.id).ok_or(Error::handle(Subtype::Ep))?;
        if ep.state() != EpState::Unconnected {
            return Err(Error::state(ep.state().subtype()));
        }
        if ep.connect_evd.is_none() {
            return Err(Error::state(Subtype::EpNotReady));
        }
        let give_up = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let dial = Dial {
            to: address,
            qualifier,
            private_data: private_data.into(),
            give_up,
            tries: 0,
        };
        let link = inner.dial(self.id, dial).map_err(|errno| {
            tracing::debug!(%errno, %address, "cannot connect");
            Error::new(Type::InvalidAddress, Subtype::AddressUnreachable)
        })?;
        if let Some(ep) = inner.eps.get_mut(self.id) {
            ep.link = Some(link);
            ep.set_state(EpState::ActiveConnectionPending);
        }
        Ok(())
    }

    /// `dat_ep_disconnect`.
    ///
    /// # Errors
    /// INVALID_STATE if UNCONNECTED; INVALID_PARAMETER (ARG2) for a graceful one while one is under way.
    pub fn disconnect(&self, flags: CloseFlags) -> Result<()> {
        let mut inner = self.ia.lock();
        let ep = inner.eps.get(self.id).ok_or(Error::handle(Subtype::Ep))?;
        match (ep.state(), flags) {
            (EpState::Disconnected, _) => Ok(()),
            (state @ EpState::Unconnected, _) => Err(Error::state(state.subtype())),
            (EpState::DisconnectPending, CloseFlags::Graceful) => Err(Error::arg(Subtype::Arg2)),
            (EpState::Connected, CloseFlags::Graceful) => {
                ep.set_state(EpState::DisconnectPending);
                if let Some(link) = ep.link {
                    inner.push_link(link); // leaves now if nothing is pending
                }
                Ok(())
            }
            _ => {
                inner.hang_up(self.id);
                Ok(())
            }
        }
    }

    /// `dat_ep_reset`: back to UNCONNECTED; the counts start anew.
    ///
    /// # Errors
    /// INVALID_STATE unless DISCONNECTED or UNCONNECTED.
    pub fn reset(&self) -> Result<()> {
        let inner = self.ia.lock();
        let ep = inner.eps.get(self.id).ok_or(Error::handle(Subtype::Ep))?;
        match ep.state() {
            EpState::Unconnected => Ok(()),
            EpState::Disconnected => {
                self.seen.posted.store(0, Ordering::Relaxed);
                self.seen.completed.store(0, Ordering::Relaxed);
                ep.set_state(EpState::Unconnected);
                Ok(())
            }
            state => Err(Error::state(state.subtype())),
        }
    }

    /// `dat_ep_free`: disconnects abruptly; nothing of it completes any more.
    ///
    /// # Errors
    /// INVALID_HANDLE the second time.
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        inner.hang_up(self.id);
        let ep = inner
            .eps
            .remove(self.id)
            .ok_or(Error::handle(Subtype::Ep))?;
        inner.release_pz(ep.pz);
        for evd in [ep.recv_evd, ep.request_evd, ep.connect_evd] {
            inner.evds.release(evd);
        }
        Ok(())
    }

    /// Sends what posts with [`Flags::MORE`] left behind.
    pub fn push(&self) {
        let mut inner = self.ia.lock();
        if let Some(link) = inner.eps.get(self.id).and_then(|ep| ep.link) {
            inner.push_link(link);
        }
    }

    /// `dat_ep_post_rdma_write`: the segments, in order, to the peer's memory.
    ///
    /// # Errors
    /// The table of udapl.md section 4.7; the endpoint stays usable.
    pub fn post_rdma_write(
        &self,
        local: &[LocalSegment],
        cookie: u64,
        remote: RemoteSegment,
        flags: Flags,
    ) -> Result<()> {
        self.post(Verb::Write, Data::Registered(local), cookie, remote, flags)
    }

    /// An RDMA write whose bytes are copied at the post: no registration, and `data` is free on return (extension).
    ///
    /// # Errors
    /// As [`Ep::post_rdma_write`]; LENGTH_ERROR above [`INLINE_MAX`]; INSUFFICIENT_RESOURCES when the socket is full and too many copies
    /// wait: step the adapter and try again.
    pub fn post_rdma_write_inline(
        &self,
        data: &[u8],
        cookie: u64,
        remote: RemoteSegment,
        flags: Flags,
    ) -> Result<()> {
        self.post(Verb::Write, Data::Inline(data), cookie, remote, flags)
    }

    /// `dat_ep_post_rdma_read`: `remote.len` bytes into the segments, front to back.
    ///
    /// # Errors
    /// The table of udapl.md section 4.7; the endpoint stays usable.
    pub fn post_rdma_read(
        &self,
        local: &[LocalSegment],
        cookie: u64,
        remote: RemoteSegment,
        flags: Flags,
    ) -> Result<()> {
        self.post(Verb::Read, Data::Registered(local), cookie, remote, flags)
    }

    /// `dat_ep_post_send`: waits for a receive of the peer.
    ///
    /// # Errors
    /// The table of udapl.md section 4.7; the endpoint stays usable.
    pub fn post_send(&self, local: &[LocalSegment], cookie: u64, flags: Flags) -> Result<()> {
        self.post(
            Verb::Send,
            Data::Registered(local),
            cookie,
            RemoteSegment::default(),
            flags,
        )
    }

    /// A send whose bytes are copied at the post (extension).
    ///
    /// # Errors
    /// As [`Ep::post_rdma_write_inline`].
    pub fn post_send_inline(&self, data: &[u8], cookie: u64, flags: Flags) -> Result<()> {
        self.post(
            Verb::Send,
            Data::Inline(data),
            cookie,
            RemoteSegment::default(),
            flags,
        )
    }

    /// 64-bit fetch and add (udapl.md section 8): the value before lands in `local`, 8 bytes. The remote address is
    /// 8-aligned and its region grants REMOTE_ATOMIC.
    ///
    /// # Errors
    /// As [`Ep::post_rdma_read`].
    pub fn post_fetch_add(
        &self,
        local: LocalSegment,
        cookie: u64,
        remote: RemoteSegment,
        add: u64,
        flags: Flags,
    ) -> Result<()> {
        self.post(
            Verb::FetchAdd(add),
            Data::Registered(&[local]),
            cookie,
            remote,
            flags,
        )
    }

    /// 64-bit compare and swap (udapl.md section 8), otherwise as [`Ep::post_fetch_add`].
    ///
    /// # Errors
    /// As [`Ep::post_rdma_read`].
    pub fn post_compare_swap(
        &self,
        local: LocalSegment,
        cookie: u64,
        remote: RemoteSegment,
        (compare, swap): (u64, u64),
        flags: Flags,
    ) -> Result<()> {
        self.post(
            Verb::CompareSwap { compare, swap },
            Data::Registered(&[local]),
            cookie,
            remote,
            flags,
        )
    }

    /// `dat_ep_post_recv`: a place for one message. Legal in every state.
    ///
    /// # Errors
    /// The table of udapl.md section 4.7.
    pub fn post_recv(&self, local: &[LocalSegment], cookie: u64, flags: Flags) -> Result<()> {
        let mut guard = self.ia.lock();
        let Inner {
            eps,
            links,
            lmrs,
            evds,
            ..
        } = &mut *guard;
        let ep = eps.get_mut(self.id).ok_or(Error::handle(Subtype::Ep))?;
        if ep.receives.len() >= ep.attr.max_recv_dtos {
            return Err(Error::resources(Subtype::Memory));
        }
        let iov = check_iov(lmrs, ep.pz, local, true)?;
        if flags.contains(Flags::UNSIGNALLED) && !ep.attr.unsignalled {
            return Err(Error::arg(Subtype::Arg5));
        }
        ep.receives.push_back(Receive { cookie, iov, flags });
        if ep.state() == EpState::Disconnected {
            ep.received(evds, DtoStatus::Flushed, 0);
            return Ok(());
        }
        let Some(id) = ep.link else { return Ok(()) };
        let Some(Some(link)) = links.get_mut(id) else {
            return Ok(());
        };
        if !matches!(link.phase, Phase::Data) {
            return Ok(()); // counted when the connection is established
        }
        link.advertise += 1;
        if flags.contains(Flags::MORE) {
            guard.encode_later(id)
        } else {
            guard.push_link(id)
        }
        Ok(())
    }

    fn post(
        &self,
        verb: Verb,
        data: Data<'_>,
        cookie: u64,
        remote: RemoteSegment,
        flags: Flags,
    ) -> Result<()> {
        let mut guard = self.ia.lock();
        let Inner {
            eps,
            links,
            lmrs,
            evds,
            ..
        } = &mut *guard;
        let ep = eps.get_mut(self.id).ok_or(Error::handle(Subtype::Ep))?;
        let state = ep.state();
        if !matches!(state, EpState::Connected | EpState::Disconnected) {
            return Err(Error::state(state.subtype()));
        }
        if ep.requests.len() >= ep.attr.max_request_dtos {
            return Err(Error::resources(Subtype::Memory));
        }
        let mut request = check(ep, lmrs, verb, &data, cookie, remote, flags)?;
        let link = ep
            .link
            .and_then(|id| Some((id, links.get_mut(id)?.as_mut()?)));
        let Some((id, link)) = link else {
            // DISCONNECTED: accepted, and flushed at once.
            self.seen.posted.fetch_add(1, Ordering::Relaxed);
            ep.requests.push_back(request);
            ep.complete(evds, DtoStatus::Flushed);
            return Ok(());
        };
        if let Data::Inline(bytes) = data {
            let at_once = ep.sent == ep.requests.len()
                && link.out.len() < OUT_FILL
                && link.inline(&request, bytes, ep);
            if at_once {
                request.started = true;
                request.done = request.len;
                ep.sent += 1;
            } else if ep.inline_waiting + bytes.len() > INLINE_WAITING_MAX {
                return Err(Error::resources(Subtype::Memory));
            } else {
                ep.inline_waiting += bytes.len();
                request.source = Source::Inline(bytes.into());
            }
        }
        let waits = flags.contains(Flags::MORE)
            || (flags.contains(Flags::COALESCE) && !ep.requests.is_empty());
        ep.requests.push_back(request);
        self.seen.posted.fetch_add(1, Ordering::Relaxed);
        if waits {
            guard.encode_link(id)
        } else {
            guard.push_link(id)
        }
        Ok(())
    }
}

impl Drop for Ep {
    fn drop(&mut self) {
        let _ = self.free(); // already freed is fine
    }
}

impl Inner {
    /// Abrupt end of an endpoint's connection, from this side.
    fn hang_up(&mut self, ep: Id) {
        let Some(id) = self.eps.get(ep).and_then(|ep| ep.link) else {
            return;
        };
        let Some(Some(link)) = self.links.get_mut(id) else {
            return;
        };
        link.answers.clear(); // the farewell flushes them at the peer
        let talking = matches!(link.phase, Phase::Data);
        self.take_down(id, None, ConnectionKind::Disconnected);
        if talking {
            self.say_bye(id)
        } else {
            self.close(id)
        }
    }
}

/// Where a posted operation's bytes are.
enum Data<'a> {
    Registered(&'a [LocalSegment]),
    Inline(&'a [u8]),
}

/// The segments, if each may be used this way (udapl.md section 4.7).
fn check_iov(lmrs: &LmrTable, pz: Id, local: &[LocalSegment], store: bool) -> Result<Iov> {
    if local.len() > IOV_MAX {
        return Err(Error::arg(Subtype::Arg2));
    }
    for segment in local {
        lmrs.check_local(pz, segment, store)?;
    }
    Ok(Iov::new(local))
}

/// The request, if it may be posted.
#[inline]
fn check(
    ep: &Endpoint,
    lmrs: &LmrTable,
    verb: Verb,
    data: &Data<'_>,
    cookie: u64,
    remote: RemoteSegment,
    flags: Flags,
) -> Result<Request> {
    let (source, size) = match data {
        Data::Registered(local) => {
            let iov = check_iov(lmrs, ep.pz, local, verb.is_answered())?;
            (Source::Registered(iov), iov.len())
        }
        Data::Inline(bytes) => (Source::Inline(Box::default()), bytes.len() as u64),
    };
    let room = u64::from(remote.len);
    let (fits, len) = match verb {
        Verb::Write => (size <= room, size),
        Verb::Send => (size <= u64::from(u32::MAX), size),
        Verb::Read => (room <= size, room),
        Verb::FetchAdd(_) | Verb::CompareSwap { .. } => (size == 8 && room == 8, 8),
    };
    if !fits || matches!(data, Data::Inline(bytes) if bytes.len() > INLINE_MAX) {
        return Err(Error::new(Type::LengthError, Subtype::None));
    }
    if flags.contains(Flags::UNSIGNALLED) && !ep.attr.unsignalled {
        return Err(Error::arg(if verb == Verb::Send {
            Subtype::Arg5
        } else {
            Subtype::Arg6
        }));
    }
    Ok(Request {
        cookie,
        verb,
        flags,
        len: len as u32,
        remote,
        source,
        done: 0,
        started: false,
    })
}
