//! What is posted on endpoints (udapl.md section 4.7).
//!
//! A post checks everything that can be known locally and leaves the endpoint usable when it refuses. It puts the
//! operation into the output and writes at once, unless its flags say that it may wait for company. Requests start
//! and complete in post order; a write or send completes when the target has taken it into its memory.

use std::sync::atomic::Ordering;

use crate::ep::Ep;
use crate::ia::Inner;
use crate::link::Phase;
use crate::lmr::LmrTable;
use crate::model::{DtoStatus, EpState, Flags, LocalSegment, RemoteSegment};
use crate::request::{Endpoint, IOV_MAX, Iov, Receive, Request, Source, Verb};
use crate::ret::{Error, Result, Subtype, Type};
use crate::send::Inline;
use crate::slab::Id;
use crate::wire::CHUNK;

/// Bytes of one inline operation at most.
pub const INLINE_MAX: usize = CHUNK as usize;
/// Output that waits for company goes when it is so long.
const PACK_FILL: usize = 64 * 1024;
/// Bytes of inline copies that may wait on one endpoint for the output.
const INLINE_WAITING_MAX: usize = 1 << 20;
impl Ep {
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

    /// `dat_ep_post_send_with_invalidate`: the message also ends a window of the peer's, by its context.
    ///
    /// # Errors
    /// As [`Ep::post_send`]; INVALID_PARAMETER (ARG7) for context 0.
    pub fn post_send_with_invalidate(
        &self,
        local: &[LocalSegment],
        cookie: u64,
        flags: Flags,
        context: u32,
    ) -> Result<()> {
        if context == 0 {
            return Err(Error::arg(Subtype::Arg7));
        }
        let remote = RemoteSegment {
            context,
            ..RemoteSegment::default()
        };
        self.post(Verb::Send, Data::Registered(local), cookie, remote, flags)
    }

    /// `dat_ep_post_rdma_read_to_rmr`: as [`Ep::post_rdma_read`], into a window of ours that peers may write.
    ///
    /// # Errors
    /// As [`Ep::post_rdma_read`], about ARG2 where that is about ARG3.
    pub fn post_rdma_read_to_rmr(
        &self,
        local: LocalSegment,
        cookie: u64,
        remote: RemoteSegment,
        flags: Flags,
    ) -> Result<()> {
        self.post(Verb::Read, Data::Window(local), cookie, remote, flags)
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
        let ep = eps.get_mut(self.index).ok_or(Error::handle(Subtype::Ep))?;
        if ep.srq.is_some() {
            return Err(Error::state(Subtype::SrqInUse));
        }
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
        if flags.contains(Flags::ANSWERED) {
            return Ok(());
        }
        link.owes = true;
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
        let ep = eps.get_mut(self.index).ok_or(Error::handle(Subtype::Ep))?;
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
        let mut sent = false;
        if let Data::Inline(bytes) = data {
            match link.inline(&request, bytes, ep) {
                Inline::Sent => sent = true,
                Inline::Behind if ep.inline_waiting + bytes.len() <= INLINE_WAITING_MAX => {
                    ep.inline_waiting += bytes.len();
                    request.source = Source::Inline(bytes.into());
                }
                Inline::Behind | Inline::Full => {
                    guard.push_link(id); // the descriptor becomes ready when there is room
                    return Err(Error::resources(Subtype::Memory));
                }
            }
        }
        // One that waits itself brings nothing about: only what has left will be acknowledged.
        let waits =
            flags.contains(Flags::MORE) || (flags.contains(Flags::COALESCE) && ep.written > 0);
        ep.append(request, sent);
        // One writer, under the lock.
        let posted = self.seen.posted.load(Ordering::Relaxed);
        self.seen.posted.store(posted + 1, Ordering::Relaxed);
        match (waits && link.out.len() < PACK_FILL, sent) {
            (false, _) => guard.push_link(id),
            (true, false) => guard.encode_link(id),
            (true, true) => guard.encode_later(id),
        }
        Ok(())
    }
}

/// Where a posted operation's bytes are.
enum Data<'a> {
    Registered(&'a [LocalSegment]),
    /// A window, the destination of a read.
    Window(LocalSegment),
    Inline(&'a [u8]),
}

/// The segments, if each may be used this way (udapl.md section 4.7).
pub(crate) fn check_iov(
    lmrs: &LmrTable,
    pz: Id,
    local: &[LocalSegment],
    store: bool,
) -> Result<Iov> {
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
            let size = iov.len();
            (Source::Registered(iov), size)
        }
        Data::Window(window) => {
            lmrs.check_sink(ep.pz, window)?;
            let iov = Iov::one(*window);
            let size = iov.len();
            (Source::Registered(iov), size)
        }
        Data::Inline(bytes) => (Source::Inline(Box::default()), bytes.len() as u64),
    };
    let room = u64::from(remote.len);
    let (fits, len) = match verb {
        Verb::Write => (size <= room, size),
        Verb::Send => (size <= u64::from(u32::MAX), size),
        Verb::Read => (room <= size, room),
        Verb::FetchAdd(_) | Verb::CompareSwap { .. } => (size == 8 && room == 8, 8),
        Verb::Bind => (false, 0), // posted by `Rmr::bind`
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
