//! What is posted on an endpoint: requests and receives, their local pieces of memory, and the endpoint's two queues.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::lmr::LmrTable;
use crate::model::{
    ConnectionKind, DtoCompletion, DtoOperation, DtoStatus, EpId, EpState, Flags, LocalSegment,
    RemoteSegment,
};
use crate::pz::{NO_PZ, Zone};
use crate::queue::{Evds, Raw};
use crate::rmr::Bind;
use crate::slab::{Id, Slab};

/// Segments of one local_iov at most (udapl.md section 6: at least 4).
pub const IOV_MAX: usize = 4;
/// Requests, and receives, of one endpoint at most (attribute max_dto_per_ep).
pub const DTOS_MAX: usize = 1 << 20;

/// The local memory of a request no longer is registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost;

/// A local_iov, owned so that the caller may reuse its own at once (`iov_ownership_on_return` = consumer). One segment,
/// the usual case, costs no allocation.
#[derive(Clone, Default)]
pub(crate) struct Iov {
    first: LocalSegment,
    rest: Option<Box<[LocalSegment]>>,
}

impl Iov {
    pub(crate) fn new(segments: &[LocalSegment]) -> Self {
        match segments {
            [] => Self::default(),
            [first] => Self::one(*first),
            [first, rest @ ..] => Self {
                first: *first,
                rest: Some(rest.into()),
            },
        }
    }

    pub(crate) fn one(first: LocalSegment) -> Self {
        Self { first, rest: None }
    }

    fn segments(&self) -> impl Iterator<Item = &LocalSegment> {
        std::iter::once(&self.first).chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    pub(crate) fn len(&self) -> u64 {
        self.segments().map(|segment| u64::from(segment.len)).sum()
    }

    /// Where byte `at` lies, and how many bytes of the same segment are there.
    #[inline]
    pub(crate) fn at(&self, at: u32) -> Option<(u32, u64, u32)> {
        let mut skip = at;
        for segment in self.segments() {
            if skip < segment.len {
                let address = segment.address + u64::from(skip);
                return Some((segment.context, address, segment.len - skip));
            }
            skip -= segment.len;
        }
        None
    }

    /// Calls `f(context, address, range of the data)` for each piece of the `len` bytes from `at` on, in order.
    #[inline]
    fn walk(
        &self,
        at: u32,
        len: usize,
        mut f: impl FnMut(u32, u64, std::ops::Range<usize>) -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        let (mut skip, mut done) = (u64::from(at), 0);
        for segment in self.segments() {
            if done == len {
                break;
            }
            let size = u64::from(segment.len);
            if skip >= size {
                skip -= size;
                continue;
            }
            let piece = ((size - skip) as usize).min(len - done);
            f(segment.context, segment.address + skip, done..done + piece)?;
            done += piece;
            skip = 0;
        }
        if done == len { Ok(()) } else { Err(Lost) }
    }

    /// Copies registered memory, from byte `at` of the iov on, into `to`.
    #[inline]
    pub(crate) fn gather(&self, lmrs: &LmrTable, at: u32, to: &mut [u8]) -> Result<(), Lost> {
        self.walk(at, to.len(), |context, address, range| {
            let (bytes, offset) = lmrs.at(context, address, range.len()).ok_or(Lost)?;
            bytes.read(offset, &mut to[range]).map_err(|_| Lost)
        })
    }

    /// Copies `from` into registered memory, from byte `at` of the iov on.
    #[inline]
    pub(crate) fn scatter(&self, lmrs: &LmrTable, at: u32, from: &[u8]) -> Result<(), Lost> {
        self.walk(at, from.len(), |context, address, range| {
            let (bytes, offset) = lmrs.at(context, address, range.len()).ok_or(Lost)?;
            bytes.write(offset, &from[range]).map_err(|_| Lost)
        })
    }
}

/// Where the bytes of a write or send come from.
pub(crate) enum Source {
    Registered(Iov),
    /// A copy made at the post (an extension, as Stock sends small writes inline).
    Inline(Box<[u8]>),
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Write,
    Read,
    Send,
    FetchAdd(u64),
    CompareSwap {
        compare: u64,
        swap: u64,
    },
    /// Carried out here; what it does is in the endpoint's `binds`.
    Bind,
}

impl Verb {
    pub(crate) fn operation(self) -> DtoOperation {
        match self {
            Verb::Write => DtoOperation::RdmaWrite,
            Verb::Read => DtoOperation::RdmaRead,
            Verb::Send => DtoOperation::Send,
            Verb::FetchAdd(_) => DtoOperation::FetchAdd,
            Verb::CompareSwap { .. } => DtoOperation::CompareSwap,
            Verb::Bind => DtoOperation::Bind,
        }
    }

    /// Whether the peer answers with data instead of an acknowledgement.
    pub(crate) fn is_answered(self) -> bool {
        !matches!(self, Verb::Write | Verb::Send | Verb::Bind)
    }
}

/// One posted request.
pub(crate) struct Request {
    pub(crate) cookie: u64,
    pub(crate) verb: Verb,
    pub(crate) flags: Flags,
    pub(crate) len: u32,
    pub(crate) remote: RemoteSegment,
    pub(crate) source: Source,
    /// Payload bytes put into the output, or received as an answer.
    pub(crate) done: u32,
    pub(crate) started: bool,
}

impl Request {
    /// Where the next byte of the answer goes, and how many may follow it there.
    pub(crate) fn landing(&self) -> Option<(u32, u64, u32)> {
        match &self.source {
            Source::Registered(iov) => iov.at(self.done),
            Source::Inline(_) => None,
        }
    }

    /// Stores a piece of the answer where the caller wants it.
    #[inline]
    pub(crate) fn scatter(&self, lmrs: &LmrTable, at: u32, from: &[u8]) -> Result<(), Lost> {
        match &self.source {
            Source::Registered(iov) => iov.scatter(lmrs, at, from),
            Source::Inline(_) => Err(Lost),
        }
    }
}

/// One posted receive.
pub(crate) struct Receive {
    pub(crate) cookie: u64,
    pub(crate) iov: Iov,
    pub(crate) flags: Flags,
}

/// Limits and options of an endpoint (DAT_EP_ATTR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpAttr {
    /// Requests posted and not completed at most.
    pub max_request_dtos: usize,
    /// Receives posted and not completed at most.
    pub max_recv_dtos: usize,
    /// Whether [`Flags::UNSIGNALLED`] may be used.
    pub unsignalled: bool,
    /// Whether the dispatcher of its receives may be waited for with a threshold above 1 (EVD_THRESHOLD among the
    /// completion flags of receives).
    pub evd_threshold: bool,
}

impl Default for EpAttr {
    fn default() -> Self {
        Self {
            max_request_dtos: 4096,
            max_recv_dtos: 256,
            unsignalled: false,
            evd_threshold: false,
        }
    }
}

impl EpAttr {
    pub(crate) fn within_limits(&self) -> bool {
        self.max_recv_dtos <= DTOS_MAX && self.max_request_dtos <= DTOS_MAX
    }
}

/// What an endpoint's holder reads without the adapter's lock. UNCONNECTED is state 0.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) state: AtomicU8,
    pub(crate) posted: AtomicU64,
    pub(crate) completed: AtomicU64,
}

/// One endpoint of the table.
pub(crate) struct Endpoint {
    pub(crate) id: EpId,
    pub(crate) pz: Id,
    pub(crate) recv_evd: Option<Id>,
    pub(crate) request_evd: Option<Id>,
    pub(crate) connect_evd: Option<Id>,
    pub(crate) srq: Option<Id>,
    pub(crate) attr: EpAttr,
    pub(crate) seen: Arc<Seen>,
    pub(crate) link: Option<Id>,
    /// In post order; the first `sent` are wholly in the output, the first `written` have left it.
    pub(crate) requests: VecDeque<Request>,
    pub(crate) sent: usize,
    pub(crate) written: usize,
    /// Reads and atomics started and not answered.
    pub(crate) answers_due: usize,
    /// The binds among the requests, in order.
    pub(crate) binds: VecDeque<Bind>,
    pub(crate) receives: VecDeque<Receive>,
    /// Receives of its shared queue that its peer was promised.
    pub(crate) promised: u32,
    /// Bytes of inline copies that wait for the output.
    pub(crate) inline_waiting: usize,
    /// The other end's address, once a connection was asked for.
    pub(crate) peer: Option<SocketAddr>,
    /// Qualifiers of the connection: of the service here, of the service there; 0 if there is none.
    pub(crate) local_qualifier: u64,
    pub(crate) peer_qualifier: u64,
}

impl Endpoint {
    /// An unconnected endpoint; its name is set once the table has given it one.
    pub(crate) fn new(
        pz: Id,
        [recv_evd, request_evd, connect_evd]: [Option<Id>; 3],
        attr: EpAttr,
        seen: Arc<Seen>,
    ) -> Self {
        Self {
            id: EpId(Id {
                index: 0,
                generation: 0,
            }),
            pz,
            recv_evd,
            request_evd,
            connect_evd,
            srq: None,
            attr,
            seen,
            link: None,
            requests: VecDeque::new(),
            sent: 0,
            written: 0,
            answers_due: 0,
            binds: VecDeque::new(),
            receives: VecDeque::new(),
            promised: 0,
            inline_waiting: 0,
            peer: None,
            local_qualifier: 0,
            peer_qualifier: 0,
        }
    }

    /// An endpoint without a zone and dispatchers: the consumer adds them by `Ep::modify`.
    pub(crate) fn unconfigured() -> Self {
        Self::new(NO_PZ, [None; 3], EpAttr::default(), Arc::default())
    }

    /// Whether it may be connected: it has a zone and tells of the connection.
    pub(crate) fn is_configured(&self, pzs: &Slab<Zone>) -> bool {
        self.connect_evd.is_some() && pzs.get(self.pz).is_some()
    }

    pub(crate) fn state(&self) -> EpState {
        EpState::from_u8(self.seen.state.load(Ordering::Relaxed))
    }

    /// Release: who sees the new state without the lock also sees the counters before it.
    pub(crate) fn set_state(&self, state: EpState) {
        self.seen.state.store(state as u8, Ordering::Release);
    }

    /// Takes a request in, the last of its queue; `sent`: it is wholly in the output.
    #[inline]
    pub(crate) fn append(&mut self, request: Request, sent: bool) {
        self.requests.push_back(request);
        if sent && let Some(request) = self.requests.back_mut() {
            // Noted where it stays: a copy made right after such narrow stores would wait for them.
            request.started = true;
            request.done = request.len;
            self.sent += 1;
        }
    }

    /// Completes the oldest request.
    pub(crate) fn complete(&mut self, evds: &mut Evds, status: DtoStatus) {
        let Some(request) = self.requests.pop_front() else {
            return;
        };
        self.sent = self.sent.saturating_sub(1);
        self.written = self.written.saturating_sub(1);
        if let Source::Inline(bytes) = &request.source {
            self.inline_waiting -= bytes.len();
        }
        let success = status == DtoStatus::Success;
        if success {
            let completed = self.seen.completed.load(Ordering::Relaxed);
            // One writer, under the lock. Release: read data is in memory when the count is seen.
            self.seen.completed.store(completed + 1, Ordering::Release);
        }
        if request.verb.is_answered() && request.started {
            self.answers_due -= 1;
        }
        let bind = match request.verb {
            Verb::Bind => self.binds.pop_front(),
            _ => None,
        };
        if !success
            || !request
                .flags
                .intersects(Flags::SUPPRESS | Flags::UNSIGNALLED)
        {
            let length = if success { request.len } else { 0 };
            if let Some(bind) = bind {
                let event = Raw::Bind {
                    rmr: bind.rmr,
                    cookie: request.cookie,
                    status,
                };
                evds.push(self.request_evd, event);
                return;
            }
            let operation = request.verb.operation();
            let completion = DtoCompletion {
                ep: self.id,
                cookie: request.cookie,
                status,
                length,
                operation,
                invalidated: 0,
            };
            evds.push(self.request_evd, Raw::Dto(completion));
        }
    }

    /// Will the message in the oldest receive be answered?
    pub(crate) fn next_is_answered(&self) -> bool {
        let next = self.receives.front();
        next.is_some_and(|receive| receive.flags.contains(Flags::ANSWERED))
    }

    /// Completes the oldest receive.
    pub(crate) fn received(&mut self, evds: &mut Evds, status: DtoStatus, length: u32) {
        self.received_with(evds, status, length, 0);
    }

    /// Completes the oldest receive, whose message ended the window of this context (0: none).
    pub(crate) fn received_with(
        &mut self,
        evds: &mut Evds,
        status: DtoStatus,
        length: u32,
        invalidated: u32,
    ) {
        let Some(receive) = self.receives.pop_front() else {
            return;
        };
        if status != DtoStatus::Success || !receive.flags.contains(Flags::UNSIGNALLED) {
            let completion = DtoCompletion {
                ep: self.id,
                cookie: receive.cookie,
                status,
                length,
                operation: match invalidated {
                    0 => DtoOperation::Receive,
                    _ => DtoOperation::ReceiveWithInvalidate,
                },
                invalidated,
            };
            evds.push(self.recv_evd, Raw::Dto(completion));
        }
    }

    pub(crate) fn event(&self, evds: &mut Evds, kind: ConnectionKind, private_data: &[u8]) {
        let event = Raw::Connection {
            kind,
            ep: self.id,
            private_data: private_data.into(),
        };
        evds.push(self.connect_evd, event);
    }

    /// Enters DISCONNECTED: the oldest request takes `first`, everything else is flushed, then the event
    /// (udapl.md section 4.6 and rule 7 of 4.7).
    pub(crate) fn take_down(
        &mut self,
        evds: &mut Evds,
        first: Option<DtoStatus>,
        kind: ConnectionKind,
        private_data: &[u8],
    ) {
        self.link = None;
        self.set_state(EpState::Disconnected);
        let mut status = first.unwrap_or(DtoStatus::Flushed);
        while !self.requests.is_empty() {
            self.complete(evds, status);
            status = DtoStatus::Flushed;
        }
        while !self.receives.is_empty() {
            self.received(evds, DtoStatus::Flushed, 0);
        }
        self.sent = 0;
        self.written = 0;
        self.event(evds, kind, private_data);
    }
}
