//! Events: taken from the dispatchers of a [`Queue`], and put in the order that consumers rely on.
//!
//! Three dispatchers, because not every provider merges their streams (udapl 4.5): completions, connections, requests for
//! connections. Between streams there is no order, so it is made here: messages of an endpoint wait for its connection event, and
//! the end of a connection for everything that was posted before.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::MutexGuard;
use windlass_abi::dat::consumer::{CR_FIELD_ALL, evd_flag, event_number, kind};
use windlass_abi::dat::{
    self, CLOSE_ABRUPT, CrParam, DtoCompletion, Handle, PSP_CONSUMER, SUCCESS, TYPE_MASK,
};

use crate::dat2::{Adapter, Endpoint, Error, Phase, Result};
use crate::dat2_adapter::{Raw, State};
use crate::dat2_endpoint::RECEIVE;

/// Completions that a queue has room for, where the adapter allows so many.
const EVENTS: usize = 16 << 10;

/// Connection events and requests for connections that wait at most.
const NEWS: usize = 1 << 10;

/// Completions that are taken in at a time.
const TAKEN: usize = 64;

/// Qualifiers that are tried where the provider does not choose one.
const QUALIFIERS: std::ops::Range<u64> = 48_000..49_000;

/// The end of a request or receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The number of its endpoint.
    pub endpoint: u32,
    /// What was given at the post.
    pub cookie: u64,
    /// `DAT_DTO_COMPLETION_STATUS` (udapl 2.3).
    pub status: u32,
    /// Bytes of a message that was received.
    pub len: u32,
    /// Was it a receive?
    pub is_receive: bool,
}

/// One event.
#[derive(Debug)]
pub enum Event {
    /// A peer asks for a connection.
    Request(Request),
    /// A request that was not quiet, or failed, or a receive.
    Done(Completion),
    /// A connection is there, or has ended, as the number says (udapl 2.3).
    Connection {
        /// The number of its endpoint.
        endpoint: u32,
        /// 0x4001 and following.
        number: u32,
    },
}

/// Where events of endpoints come from, and requests for connections if it listens.
#[derive(Debug)]
pub struct Queue {
    adapter: Arc<Adapter>,
    number: u32,
    done: Raw,
    news: Raw,
    listens: Option<Listens>,
    /// Completions there is room for, beside those of what is posted.
    room: AtomicUsize,
}

#[derive(Debug)]
struct Listens {
    requests: Raw,
    point: Raw,
    qualifier: u64,
}

impl Queue {
    /// A queue; with `listens`, of a service point too.
    ///
    /// # Errors
    /// [`Error::Call`]: the adapter has no room.
    pub fn new(adapter: &Arc<Adapter>, listens: bool) -> Result<Arc<Queue>> {
        let room = EVENTS.min(adapter.about().events);
        let few = NEWS.min(adapter.about().events);
        let mut turn = adapter.turn();
        turn.queues_made += 1;
        // From here on it is closed by its drop.
        let mut queue = Queue {
            adapter: Arc::clone(adapter),
            number: turn.queues_made,
            done: Raw(std::ptr::null_mut()),
            news: Raw(std::ptr::null_mut()),
            listens: None,
            room: AtomicUsize::new(room),
        };
        let made = queue.open(room, few, listens);
        turn.ready.entry(queue.number).or_default();
        drop(turn);
        made.map(|()| Arc::new(queue))
    }

    fn open(&mut self, room: usize, few: usize, listens: bool) -> Result<()> {
        self.done = self.adapter.dispatcher(room, evd_flag::DTO)?;
        self.news = self.adapter.dispatcher(few, evd_flag::CONNECTION)?;
        if listens {
            let requests = self.adapter.dispatcher(few, evd_flag::CR)?;
            let listens = self.listens.insert(Listens {
                requests,
                point: Raw(std::ptr::null_mut()),
                qualifier: 0,
            });
            (listens.point, listens.qualifier) = point(&self.adapter, requests)?;
        }
        Ok(())
    }

    /// The qualifier it listens at.
    pub fn qualifier(&self) -> Option<u64> {
        self.listens.as_ref().map(|listens| listens.qualifier)
    }

    /// The adapter.
    pub fn adapter(&self) -> &Arc<Adapter> {
        &self.adapter
    }

    /// Sets room aside for so many completions, if there is so much.
    pub(crate) fn take_room(&self, count: usize) -> bool {
        let less = |room: usize| room.checked_sub(count);
        (self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less))
        .is_ok()
    }

    pub(crate) fn give_room(&self, count: usize) {
        self.room.fetch_add(count, Ordering::Relaxed);
    }

    /// The dispatchers of completions and of connections.
    pub(crate) fn dispatchers(&self) -> (Handle, Handle) {
        (self.done.0, self.news.0)
    }

    /// The next event, if there is one.
    pub fn dequeue(&self) -> Option<Event> {
        let mut turn = self.adapter.turn();
        self.take_in(&mut turn);
        turn.ready.get_mut(&self.number)?.pop_front()
    }

    /// How many are known to be there.
    pub fn queued(&self) -> usize {
        let mut turn = self.adapter.turn();
        self.pump(&mut turn);
        turn.ready.get(&self.number).map_or(0, |ready| ready.len())
    }

    /// Takes in what the provider has, unless something is ready.
    fn take_in(&self, state: &mut MutexGuard<'_, State>) {
        let ready = state.ready.get(&self.number);
        if ready.is_none_or(|ready| ready.is_empty()) {
            self.pump(state);
        }
    }

    /// Takes in what the provider has.
    pub(crate) fn pump(&self, state: &mut State) {
        while let Some(event) = self.next(self.news) {
            // SAFETY: an event of a dispatcher of connection events alone.
            let handle = unsafe { event.event_data.connect.ep_handle };
            if event.event_number != event_number::ESTABLISHED {
                // What has arrived over it is told ahead of its end.
                while self.take_completion(state) {}
            }
            self.connection(state, Raw(handle), event.event_number);
        }
        if let Some(listens) = &self.listens {
            while let Some(event) = self.next(listens.requests) {
                // SAFETY: an event of a dispatcher of requests alone.
                let handle = unsafe { event.event_data.cr_arrival.cr_handle };
                let request = Request::new(&self.adapter, Raw(handle));
                self.tell(state, Event::Request(request));
            }
        }
        for _ in 0..TAKEN {
            if !self.take_completion(state) {
                return;
            }
        }
    }

    /// Takes in one completion, if there is one.
    fn take_completion(&self, state: &mut State) -> bool {
        let Some(event) = self.next(self.done) else {
            return false;
        };
        // A failed receive of stock providers comes as an extension's (udapl 4.7, rule 9).
        if let event_number::DTO_COMPLETION | event_number::IB_DTO = event.event_number {
            // SAFETY: a completion, by its number.
            let done = unsafe { event.event_data.dto };
            self.completion(state, &done);
        }
        true
    }

    fn next(&self, evd: Raw) -> Option<dat::Event> {
        let mut event = MaybeUninit::<dat::Event>::zeroed();
        let dequeue = self.adapter.library().evd_dequeue;
        // SAFETY: an open dispatcher and a place for an event; the caller has the turn.
        let code = unsafe { dequeue(evd.0, event.as_mut_ptr()) };
        // SAFETY: plain data, for which zeros are valid, and answered.
        (code == SUCCESS).then(|| unsafe { event.assume_init() })
    }

    fn tell(&self, state: &mut State, event: Event) {
        state.ready.entry(self.number).or_default().push_back(event);
    }

    fn connection(&self, state: &mut State, handle: Raw, number: u32) {
        let mut wires = state.wires.iter_mut();
        let Some((&endpoint, wire)) = wires.find(|(_, wire)| wire.handle == handle) else {
            return;
        };
        let event = Event::Connection { endpoint, number };
        if number == event_number::ESTABLISHED {
            wire.set(Phase::Connected);
            let early = std::mem::take(&mut wire.early);
            self.tell(state, event);
            for done in early {
                self.tell(state, Event::Done(done));
            }
            return;
        }
        wire.set(Phase::Ended);
        // Brings the flushes where the provider waits for it; else it has no effect (udapl 4.6).
        // SAFETY: an open endpoint.
        unsafe { (self.adapter.library().ep_disconnect)(handle.0, CLOSE_ABRUPT) };
        if wire.requests.is_empty() {
            self.tell(state, event);
        } else {
            wire.ended = Some(number);
        }
    }

    fn completion(&self, state: &mut State, done: &DtoCompletion) {
        let endpoint = (done.user_cookie >> 32) as u32;
        let Some(wire) = state.wires.get_mut(&endpoint) else {
            return;
        };
        let index = done.user_cookie as u32;
        let told = Completion {
            endpoint,
            cookie: 0,
            status: done.status,
            len: done.transfered_length,
            is_receive: index & RECEIVE != 0,
        };
        if told.is_receive {
            let Some(cookie) = wire.received(index & !RECEIVE) else {
                return;
            };
            let told = Completion { cookie, ..told };
            if wire.phase() == Phase::Pending {
                wire.early.push(told);
            } else {
                self.tell(state, Event::Done(told));
            }
            return;
        }
        let Some((cookie, quiet)) = wire.completed(index, done.status) else {
            return;
        };
        self.give_room(1);
        let ended = wire.ended.filter(|_| wire.requests.is_empty());
        if !quiet || done.status != 0 {
            self.tell(state, Event::Done(Completion { cookie, ..told }));
        }
        if let Some(number) = ended {
            if let Some(wire) = state.wires.get_mut(&endpoint) {
                wire.ended = None;
            }
            self.tell(state, Event::Connection { endpoint, number });
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut turn = self.adapter.turn();
        let ready = turn.ready.remove(&self.number);
        let library = self.adapter.library();
        let all = self.listens.as_ref();
        let all = all.map(|l| (library.psp_free, l.point));
        let requests = self
            .listens
            .as_ref()
            .map(|l| (library.evd_free, l.requests));
        let dispatchers = [self.done, self.news].map(|evd| (library.evd_free, evd));
        for (free, handle) in all.into_iter().chain(requests).chain(dispatchers) {
            if !handle.0.is_null() {
                // SAFETY: made once, freed once, the point before its dispatcher; endpoints hold this queue, so none is left.
                unsafe { free(handle.0) };
            }
        }
        drop(turn);
        drop(ready); // requests refuse themselves, by a turn of their own
    }
}

/// A service point, at a qualifier that the provider chooses, or at the first that is free.
fn point(adapter: &Adapter, requests: Raw) -> Result<(Raw, u64)> {
    let library = adapter.library();
    let (mut point, mut qualifier) = (std::ptr::null_mut(), 0);
    // SAFETY: open handles and places for the answers.
    let code = unsafe {
        (library.psp_create_any)(
            adapter.ia(),
            &raw mut qualifier,
            requests.0,
            PSP_CONSUMER,
            &raw mut point,
        )
    };
    match code & TYPE_MASK {
        SUCCESS => return Ok((Raw(point), qualifier)),
        kind::NOT_IMPLEMENTED | kind::MODEL_NOT_SUPPORTED | kind::CONN_QUAL_UNAVAILABLE => {}
        _ => library.check("dat_psp_create_any", code)?,
    }
    let mut code = code;
    for qualifier in QUALIFIERS {
        // SAFETY: as above.
        code = unsafe {
            (library.psp_create)(
                adapter.ia(),
                qualifier,
                requests.0,
                PSP_CONSUMER,
                &raw mut point,
            )
        };
        match code & TYPE_MASK {
            SUCCESS => return Ok((Raw(point), qualifier)),
            kind::CONN_QUAL_IN_USE => {}
            _ => break,
        }
    }
    Err(Error::Call(library.failure("dat_psp_create", code)))
}

/// A peer's wish for a connection. Dropping it refuses.
#[derive(Debug)]
pub struct Request {
    adapter: Arc<Adapter>,
    cr: Raw,
    private_data: Vec<u8>,
    answered: bool,
}

impl Request {
    /// The caller has the turn.
    fn new(adapter: &Arc<Adapter>, cr: Raw) -> Request {
        let mut param = MaybeUninit::<CrParam>::zeroed();
        let query = adapter.library().cr_query;
        // SAFETY: a request that arrived and a place for the answer.
        let code = unsafe { query(cr.0, CR_FIELD_ALL, param.as_mut_ptr()) };
        // SAFETY: plain data, for which zeros are valid.
        let param = unsafe { param.assume_init() };
        let len = usize::try_from(param.private_data_size).unwrap_or(0);
        let data = param.private_data.cast::<u8>();
        let private_data = if code != SUCCESS || data.is_null() || len == 0 {
            Vec::new()
        } else {
            // SAFETY: as many bytes as the provider says, until the request is answered.
            unsafe { std::slice::from_raw_parts(data, len) }.to_vec()
        };
        Request {
            adapter: Arc::clone(adapter),
            cr,
            private_data,
            answered: false,
        }
    }

    /// What the peer sent with it; providers may send more than it gave.
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// Accepts it for this endpoint, whose receives are posted. The outcome is an event.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn accept(mut self, endpoint: &Endpoint) -> Result<()> {
        let mut turn = self.adapter.turn();
        let Some(wire) = turn.wires.get_mut(&endpoint.number()) else {
            return Err(Error::Unregistered);
        };
        let library = self.adapter.library();
        // SAFETY: a request that is not answered, an endpoint that is not connected, no private data.
        let code = unsafe { (library.cr_accept)(self.cr.0, wire.handle.0, 0, std::ptr::null()) };
        let accepted = library.check("dat_cr_accept", code);
        if accepted.is_ok() && wire.phase() == Phase::Unconnected {
            wire.set(Phase::Pending);
        }
        drop(turn);
        self.answered = accepted.is_ok();
        accepted
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.answered {
            let _turn = self.adapter.turn();
            // SAFETY: a request that is not answered; no private data. One that is gone is refused by the provider.
            unsafe { (self.adapter.library().cr_reject)(self.cr.0, 0, std::ptr::null()) };
        }
    }
}
