//! Connections and what is posted on them.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::c_void;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use windlass_abi::dat::consumer::kind;
use windlass_abi::dat::{
    CLOSE_ABRUPT, EpAttr, Handle, Return, TIMEOUT_INFINITE, TYPE_MASK, Triplet,
};

use crate::dat2::{Completion, Error, Queue, Registration, Result};
use crate::dat2_adapter::{Raw, State};
use crate::dat2_address::SockAddr;

/// The longest message or write that is copied at the post, in bytes.
pub const INLINE_BYTES: usize = 4160;

/// In the index of a cookie: it is a receive's.
pub(crate) const RECEIVE: u32 = 1 << 31;

/// Places for copies of one endpoint at most.
const COPIES: usize = 64;

/// Reads of one endpoint that are under way at most; more wait in the adapter.
const READS: i32 = 16;

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Made.
    Unconnected,
    /// Asked for, or accepted.
    Pending,
    /// There.
    Connected,
    /// Over.
    Ended,
}

/// How much of what an endpoint takes.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Requests posted and not completed at most.
    pub requests: usize,
    /// Receives posted and not completed at most.
    pub receives: usize,
}

/// What is read of an endpoint without a turn.
#[derive(Debug, Default)]
struct Seen {
    phase: AtomicU8,
    posted: AtomicU64,
    completed: AtomicU64,
}

/// A request that is not completed.
#[derive(Debug)]
pub(crate) struct Posted {
    cookie: u64,
    quiet: bool,
    copy: Option<u32>,
}

/// The adapter's side of an endpoint. Requests complete in the order of their posts (udapl 4.7, rule 3).
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) handle: Raw,
    pub(crate) requests: VecDeque<Posted>,
    /// Number of the first of them.
    first: u32,
    failed: bool,
    most: usize,
    /// What was given with each receive.
    receives: Vec<Option<u64>>,
    copies: Vec<u32>,
    /// Messages that came before the news of the connection.
    pub(crate) early: Vec<Completion>,
    /// How the connection ended, until all requests are flushed.
    pub(crate) ended: Option<u32>,
    seen: Arc<Seen>,
}

impl Wire {
    pub(crate) fn phase(&self) -> Phase {
        phase(&self.seen)
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.seen.phase.store(phase as u8, Ordering::Release);
    }

    /// The receive of this index is over: what was given with it.
    pub(crate) fn received(&mut self, index: u32) -> Option<u64> {
        self.receives.get_mut(index as usize)?.take()
    }

    /// The next request is over, and is that of this number.
    pub(crate) fn completed(&mut self, number: u32, status: u32) -> Option<(u64, bool)> {
        if number != self.first {
            return None;
        }
        let posted = self.requests.pop_front()?;
        self.first = (self.first + 1) & !RECEIVE;
        self.copies.extend(posted.copy);
        self.failed |= status != 0;
        if !self.failed {
            self.seen.completed.fetch_add(1, Ordering::Release);
        }
        Some((posted.cookie, posted.quiet))
    }
}

fn phase(seen: &Seen) -> Phase {
    match seen.phase.load(Ordering::Acquire) {
        0 => Phase::Unconnected,
        1 => Phase::Pending,
        2 => Phase::Connected,
        _ => Phase::Ended,
    }
}

/// One reliable connection. Dropping it ends it.
#[derive(Debug)]
pub struct Endpoint {
    queue: Arc<Queue>,
    number: u32,
    handle: Raw,
    seen: Arc<Seen>,
    receives: usize,
    copies: Registration,
}

impl Endpoint {
    /// An endpoint whose events come from `queue`.
    ///
    /// # Errors
    /// [`Error::Full`]: the queue has no room for so many; [`Error::Call`].
    pub fn new(queue: &Arc<Queue>, capacity: Capacity) -> Result<Endpoint> {
        let adapter = queue.adapter();
        let most = capacity.requests.min(adapter.about().dtos);
        let places = most.min(COPIES);
        let (bytes, _loan) = windlass_mem::lend(vec![0u64; places * INLINE_BYTES / 8]);
        let copies = Registration::new(adapter, &bytes, false)?;
        if !queue.take_room(capacity.receives) {
            return Err(Error::Full);
        }
        let mut turn = adapter.turn();
        let made = create(queue, most, capacity.receives);
        let handle = made.inspect_err(|_| queue.give_room(capacity.receives))?;
        turn.wires_made += 1;
        let number = turn.wires_made;
        let seen = Arc::<Seen>::default();
        let wire = Wire {
            handle,
            requests: VecDeque::new(),
            first: 0,
            failed: false,
            most,
            receives: vec![None; capacity.receives],
            copies: (0..places as u32).rev().collect(),
            early: Vec::new(),
            ended: None,
            seen: Arc::clone(&seen),
        };
        turn.wires.insert(number, wire);
        drop(turn);
        Ok(Endpoint {
            queue: Arc::clone(queue),
            number,
            handle,
            seen,
            receives: capacity.receives,
            copies,
        })
    }

    /// How events name it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where its events come from.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Where it is, as the events that were taken in say.
    pub fn phase(&self) -> Phase {
        phase(&self.seen)
    }

    /// Requests posted, and requests completed successfully.
    pub fn counts(&self) -> (u64, u64) {
        let completed = self.seen.completed.load(Ordering::Acquire);
        (self.seen.posted.load(Ordering::Relaxed), completed)
    }

    /// Asks the service point of that address and qualifier, for as long as it takes. The outcome is an event.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn connect(&self, address: IpAddr, qualifier: u64, private_data: &[u8]) -> Result<()> {
        let library = self.queue.adapter().library();
        let turn = self.queue.adapter().turn();
        let place = SockAddr::new(address);
        let len = i32::try_from(private_data.len()).unwrap_or(i32::MAX);
        // SAFETY: an open endpoint, a socket address and private data, both copied by the call.
        let code = unsafe {
            (library.ep_connect)(
                self.handle.0,
                (&raw const place).cast(),
                qualifier,
                TIMEOUT_INFINITE,
                len,
                private_data.as_ptr().cast::<c_void>(),
                0,
                0,
            )
        };
        library.check("dat_ep_connect", code)?;
        if let Some(wire) = turn.wires.get(&self.number) {
            wire.set(Phase::Pending);
        }
        Ok(())
    }

    /// Ends the connection; what is posted is flushed.
    pub fn disconnect(&self) {
        let _turn = self.queue.adapter().turn();
        let library = self.queue.adapter().library();
        // SAFETY: an open endpoint. A refusal says that there is no connection.
        unsafe { (library.ep_disconnect)(self.handle.0, CLOSE_ABRUPT) };
    }

    /// Posts a receive.
    ///
    /// # Errors
    /// [`Error::Unregistered`], [`Error::Full`], [`Error::Call`].
    pub fn post_recv(&self, local: Triplet, cookie: u64) -> Result<()> {
        let mut turn = self.queue.adapter().turn();
        inside(&turn, &local)?;
        let wire = turn.wires.get_mut(&self.number).ok_or(Error::Full)?;
        let free = wire.receives.iter().position(Option::is_none);
        let index = free.ok_or(Error::Full)?;
        let name = self.cookie(index as u32 | RECEIVE);
        let post = self.queue.adapter().library().post_recv;
        // SAFETY: an open endpoint and one segment, of memory that is registered, which others may change meanwhile.
        let code = unsafe { post(self.handle.0, 1, &raw const local, name, 0) };
        self.answered("dat_ep_post_recv", code)?;
        wire.receives[index] = Some(cookie);
        Ok(())
    }

    /// Posts an RDMA write of registered memory, which is the adapter's until the completion.
    ///
    /// # Errors
    /// As [`post_recv`](Self::post_recv).
    pub fn post_write(&self, local: Triplet, remote: Triplet, cookie: u64) -> Result<()> {
        self.rdma(local, remote, cookie, false)
    }

    /// Posts an RDMA read into registered memory.
    ///
    /// # Errors
    /// As [`post_recv`](Self::post_recv).
    pub fn post_read(&self, local: Triplet, remote: Triplet, cookie: u64) -> Result<()> {
        self.rdma(local, remote, cookie, true)
    }

    fn rdma(&self, local: Triplet, remote: Triplet, cookie: u64, reads: bool) -> Result<()> {
        let library = self.queue.adapter().library();
        let (call, post) = match reads {
            true => ("dat_ep_post_rdma_read", library.post_read),
            false => ("dat_ep_post_rdma_write", library.post_write),
        };
        self.registered(local, cookie, call, |handle, name| {
            let (local, remote) = (&raw const local, &raw const remote);
            // SAFETY: as in `post_recv`; the peer judges the remote segment.
            unsafe { post(handle, 1, local, name, remote, 0) }
        })
    }

    /// A request of registered memory.
    pub(crate) fn registered(
        &self,
        local: Triplet,
        cookie: u64,
        call: &'static str,
        post: impl FnOnce(Handle, u64) -> Return,
    ) -> Result<()> {
        let mut turn = self.queue.adapter().turn();
        inside(&turn, &local)?;
        let posted = Posted {
            cookie,
            quiet: false,
            copy: None,
        };
        let handle = self.handle.0;
        self.request(&mut turn, posted, call, |name| post(handle, name))
    }

    /// Posts a write of a copy of `src`. A quiet one has an event if it fails only.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Full`], [`Error::Call`].
    pub fn write_copy(&self, src: &[u8], remote: Triplet, cookie: u64, quiet: bool) -> Result<()> {
        let post = self.queue.adapter().library().post_write;
        self.copied(
            src,
            cookie,
            quiet,
            "dat_ep_post_rdma_write",
            |local, name| {
                let (local, remote) = (&raw const *local, &raw const remote);
                // SAFETY: as in `rdma`.
                unsafe { post(self.handle.0, 1, local, name, remote, 0) }
            },
        )
    }

    /// Sends a copy of `message`. A quiet one has an event if it fails only.
    ///
    /// # Errors
    /// As [`write_copy`](Self::write_copy).
    pub fn send_copy(&self, message: &[u8], cookie: u64, quiet: bool) -> Result<()> {
        let post = self.queue.adapter().library().post_send;
        self.copied(message, cookie, quiet, "dat_ep_post_send", |local, name| {
            // SAFETY: as in `rdma`.
            unsafe { post(self.handle.0, 1, local, name, 0) }
        })
    }

    fn copied(
        &self,
        src: &[u8],
        cookie: u64,
        quiet: bool,
        call: &'static str,
        post: impl FnOnce(&Triplet, u64) -> Return,
    ) -> Result<()> {
        if src.len() > INLINE_BYTES {
            return Err(Error::TooLong(src.len()));
        }
        let mut turn = self.queue.adapter().turn();
        let copy = self.place(&mut turn).ok_or(Error::Full)?;
        let offset = copy as usize * INLINE_BYTES;
        let written = self.copies.bytes().write(offset, src);
        let posted = Posted {
            cookie,
            quiet,
            copy: Some(copy),
        };
        let local = self.copies.segment(offset as u64, src.len() as u32);
        let done = written.map_err(|_| Error::TooLong(src.len()));
        let done =
            done.and_then(|()| self.request(&mut turn, posted, call, |name| post(&local, name)));
        if done.is_err()
            && let Some(wire) = turn.wires.get_mut(&self.number)
        {
            wire.copies.push(copy);
        }
        done
    }

    /// A free place for a copy; where there is none, one of a request that is over.
    fn place(&self, state: &mut State) -> Option<u32> {
        let place = state.wires.get_mut(&self.number)?.copies.pop();
        if place.is_some() {
            return place;
        }
        self.queue.pump(state);
        state.wires.get_mut(&self.number)?.copies.pop()
    }

    fn request(
        &self,
        state: &mut State,
        posted: Posted,
        call: &'static str,
        post: impl FnOnce(u64) -> Return,
    ) -> Result<()> {
        let wire = state.wires.get_mut(&self.number).ok_or(Error::Full)?;
        if wire.requests.len() >= wire.most || !self.queue.take_room(1) {
            return Err(Error::Full);
        }
        let number = wire.first.wrapping_add(wire.requests.len() as u32) & !RECEIVE;
        let answer = self.answered(call, post(self.cookie(number)));
        if answer.is_err() {
            self.queue.give_room(1);
            return answer;
        }
        wire.requests.push_back(posted);
        self.seen.posted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn cookie(&self, index: u32) -> u64 {
        u64::from(self.number) << 32 | u64::from(index)
    }

    fn answered(&self, call: &'static str, code: Return) -> Result<()> {
        match code & TYPE_MASK {
            kind::INSUFFICIENT_RESOURCES => Err(Error::Full),
            _ => self.queue.adapter().library().check(call, code),
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let mut turn = self.queue.adapter().turn();
        // SAFETY: made in `new`, freed once. What is posted is flushed or forgotten; late events name a number that is gone.
        unsafe { (self.queue.adapter().library().ep_free)(self.handle.0) };
        let wire = turn.wires.remove(&self.number);
        let posted = wire.map_or(0, |wire| wire.requests.len());
        self.queue.give_room(self.receives + posted);
    }
}

/// Is a local segment inside of what is registered under its context?
fn inside(state: &State, local: &Triplet) -> Result<()> {
    let region = state.regions.get(&local.context);
    let (start, len) = region.ok_or(Error::Unregistered)?;
    let offset = local.virtual_address.checked_sub(*start);
    let room = offset.and_then(|offset| len.checked_sub(offset));
    match room {
        Some(room) if u64::from(local.segment_length) <= room => Ok(()),
        _ => Err(Error::Unregistered),
    }
}

/// The endpoint of the provider. The caller has the turn.
fn create(queue: &Queue, requests: usize, receives: usize) -> Result<Raw> {
    let about = queue.adapter().about();
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let [reads_in, reads_out] = about.reads.map(|most| most.min(READS));
    let attr = EpAttr {
        service_type: 0, // reliable connections
        max_message_size: about.message_bytes,
        max_rdma_size: u32::try_from(about.rdma_bytes).unwrap_or(u32::MAX),
        qos: 0, // best effort
        recv_completion_flags: 0,
        request_completion_flags: 0,
        max_recv_dtos: count(receives),
        max_request_dtos: count(requests),
        max_recv_iov: 1,
        max_request_iov: 1,
        max_rdma_read_in: reads_in,
        max_rdma_read_out: reads_out,
        srq_soft_hw: 0,
        max_rdma_read_iov: 1,
        max_rdma_write_iov: 1,
        ep_transport_specific_count: 0,
        ep_transport_specific: std::ptr::null_mut(),
        ep_provider_specific_count: 0,
        ep_provider_specific: std::ptr::null_mut(),
    };
    let (done, news) = queue.dispatchers();
    let adapter = queue.adapter();
    let mut handle = std::ptr::null_mut();
    // SAFETY: open handles, attributes, and a place for the answer.
    let code = unsafe {
        (adapter.library().ep_create)(
            adapter.ia(),
            adapter.pz(),
            done,
            done,
            news,
            &raw const attr,
            &raw mut handle,
        )
    };
    adapter.library().check("dat_ep_create", code)?;
    Ok(Raw(handle))
}
