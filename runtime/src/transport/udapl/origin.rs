//! The origin's side: connections made on first use, transfers posted on them, completions taken.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use windlass_dat::{ConnectionKind, DtoStatus, EpState, Flags};
use windlass_mem::SharedBytes;

use super::carrier::{self, Carrier, Done, Endpoint, Event};
use super::conn::Conn;
use super::message::{Ask, Inbox, Outcome, Reply, Request, SLOTS, UPDATE_BYTES, segment};
use super::reach::Reach;
use super::target::Target;
use super::verdict::{gone, outcome};
use super::{Leased, Memory};
use crate::mechanism::{
    Accepted, Completion, Engine, Fault, Lease, Limits, PostError, Pushed, RemoteRange, Transfer,
    Verb,
};
use crate::progress::idle_on;
use crate::staging::Staging;

/// Bounce memory of the adapter.
const STAGING_BYTES: usize = 4 << 20;

/// Transfers of all connections together; each has room in the event queue.
const OUTSTANDING: usize = 1 << 16;

/// Events of all connections: completions, answers, connection events.
const EVENTS: usize = 1 << 20;

/// In the cookie of a message's send, above its ticket: its answer is what completes an update. Only a failure is told.
const MESSAGE: u64 = 1 << 62;

/// In the cookie of a push, above all messages; below it stands its window. Only a failure is told.
const PUSH: u64 = 1 << 63;

/// Shorter pushes, in bytes, wait for company until a flush or until they fill a packet.
const SHORT_PUSH: usize = 4096;

/// Updates on their way after which further ones wait for company.
const PROMPT_UPDATES: usize = 4;

/// A rank and a context in one word: what [`RemoteRange::key`] carries.
pub(super) fn key(rank: u32, context: u32) -> u64 {
    u64::from(rank) << 32 | u64::from(context)
}

/// The engine.
pub(super) struct Origin<C: Carrier> {
    rank: u32,
    carrier: Arc<C>,
    queue: C::Queue,
    memory: Arc<Memory>,
    staging: Staging,
    _staging_lmr: C::Lmr,
    /// By rank.
    reach: Box<[Reach<C>]>,
    /// The first push that failed and was not told, by rank and window; and whether there ever was one.
    failures: Mutex<HashMap<(u32, u32), Fault>>,
    failed: AtomicBool,
    /// Held while an event is taken and noted: no thread sees the end of a connection before the
    /// failures that were told ahead of it.
    noting: Mutex<()>,
    /// Completions made here rather than by the adapter.
    done: Mutex<VecDeque<Completion>>,
    outstanding: AtomicUsize,
    target: Arc<Target<C>>,
}

impl<C: Carrier> Origin<C> {
    pub(super) fn new(
        (rank, ranks): (u32, u32),
        carrier: &Arc<C>,
        memory: &Arc<Memory>,
        target: &Arc<Target<C>>,
    ) -> carrier::Result<Origin<C>> {
        let (bytes, _loan) = windlass_mem::lend(vec![0u64; STAGING_BYTES / 8]);
        let lmr = carrier.register(&bytes, false)?;
        memory.add(&bytes, &lmr);
        Ok(Origin {
            rank,
            carrier: Arc::clone(carrier),
            queue: carrier.queue(EVENTS, false)?,
            memory: Arc::clone(memory),
            staging: Staging::new(bytes),
            _staging_lmr: lmr,
            reach: (0..ranks).map(|_| Reach::default()).collect(),
            failures: Mutex::default(),
            failed: AtomicBool::new(false),
            noting: Mutex::default(),
            done: Mutex::default(),
            outstanding: AtomicUsize::new(0),
            target: Arc::clone(target),
        })
    }

    /// Where a rank is.
    pub(super) fn note(&self, rank: u32, address: C::Address) {
        if let Some(reach) = self.reach.get(rank as usize) {
            reach.note(address);
        }
    }

    /// The connection to a rank; the first use begins it.
    fn conn(&self, rank: u32) -> Result<Arc<Conn<C>>, PostError> {
        let made = self.reach.get(rank as usize).and_then(|reach| {
            reach.conn_or(|address| {
                self.connect(rank, address).map_err(|why| {
                    PostError::Fault(Fault::Gone(format!("connecting to {address}: {why}")))
                })
            })
        });
        made.unwrap_or_else(|| {
            let text = format!("rank {rank} has no address");
            Err(PostError::Fault(Fault::Other(text)))
        })
    }

    fn connect(&self, rank: u32, address: &C::Address) -> carrier::Result<Conn<C>> {
        let ep = self.carrier.endpoint(&self.queue, C::REQUESTS, SLOTS)?;
        let inbox = Inbox::new(&*self.carrier)?;
        for slot in 0..SLOTS {
            ep.post_recv(inbox.segment(slot), key(rank, slot as u32))?;
        }
        // No time limit: a peer that has not joined yet, or computes, is waited for; one that is
        // gone is told by the job.
        self.carrier.connect(&ep, address, self.rank)?;
        Ok(Conn::new(ep, inbox))
    }

    fn transfer(
        &self,
        conn: &Conn<C>,
        Transfer {
            ticket,
            remote,
            verb,
            ..
        }: Transfer<'_>,
    ) -> Result<(), PostError> {
        let guard = remote.guard;
        let remote = segment(remote);
        let request = |ask| Request {
            ticket,
            range: remote,
            guard,
            ask,
        };
        let unseen = || Fault::Other("the local memory is not registered".into());
        let registered = |bytes| self.memory.segment(bytes).ok_or_else(unseen);
        let posted = match verb {
            Verb::Put(local) => {
                let local = registered(local).map_err(PostError::Fault)?;
                conn.ep.post_write(local, ticket, remote)
            }
            Verb::Get(local) => {
                let local = registered(local).map_err(PostError::Fault)?;
                conn.ep.post_read(local, ticket, remote)
            }
            Verb::Update {
                kind,
                op,
                operand,
                fetch,
            } => {
                let ask = Ask::Update {
                    kind,
                    op,
                    operand,
                    fetch,
                };
                return self.ask(conn, &request(ask));
            }
            Verb::CompareSwap {
                kind,
                compare,
                swap,
            } => {
                let ask = Ask::CompareSwap {
                    kind,
                    compare,
                    swap,
                };
                return self.ask(conn, &request(ask));
            }
            Verb::Write(_) | Verb::Read(_) => {
                let text = "transfers need registered memory".to_owned();
                return Err(PostError::Fault(Fault::Other(text)));
            }
        };
        posted.map_err(|why| conn.refusal(why))
    }

    /// Sends an update to the target's helper. As many as the target has places for.
    fn ask(&self, conn: &Conn<C>, request: &Request<'_>) -> Result<(), PostError> {
        let ticket = request.ticket;
        let mut updates = conn.updates.lock();
        if updates.len() >= SLOTS {
            return Err(PostError::Full);
        }
        let prompt = updates.len() < PROMPT_UPDATES;
        let flags = if prompt {
            Flags::SUPPRESS
        } else {
            // Never MORE: answers that nobody has looked at yet must not hold a message back.
            Flags::SUPPRESS | Flags::COALESCE
        };
        conn.ep
            .send_copy(&request.encode(), MESSAGE | ticket, flags)
            .map_err(|why| conn.refusal(why))?;
        // Under the lock: either this sees the end of the connection, or its event the ticket.
        if conn.ep.state() == EpState::Connected {
            updates.push(ticket);
            return Ok(());
        }
        // The peer may have it all the same, and have left after it: a barrier's last word, say.
        drop(updates);
        let result = Err(gone(*conn.why.lock()));
        self.done.lock().push_back(Completion { ticket, result });
        Ok(())
    }

    /// Has everything that was posted reached its target, as far as that still lives?
    pub(super) fn has_arrived(&self) -> bool {
        C::queued(&self.queue); // some carriers count what was taken in
        self.reach.iter().all(|reach| {
            reach.conn().is_none_or(|conn| {
                let (posted, completed) = conn.ep.counts();
                posted == completed || conn.ep.state() == EpState::Disconnected
            })
        })
    }

    /// The next completion among what the adapter has told.
    fn next(&self) -> Option<Completion> {
        let _noting = self.noting.lock();
        loop {
            if let Some(completion) = self.done.lock().pop_front() {
                return Some(completion);
            }
            match C::dequeue(&self.queue)? {
                Event::Done(done) if done.is_receive => {
                    if let Some(completion) = self.answer(&done) {
                        return Some(completion);
                    }
                }
                Event::Done(done) if done.cookie & PUSH != 0 => self.push_failed(&done),
                Event::Done(done) if done.cookie & MESSAGE != 0 => {
                    if let Some(completion) = self.unheard(&done) {
                        return Some(completion);
                    }
                }
                Event::Done(done) => {
                    let result = match self.fault(&done) {
                        None => Ok(Vec::new()),
                        Some(fault) => Err(fault),
                    };
                    return Some(Completion {
                        ticket: done.cookie,
                        result,
                    });
                }
                Event::Ended(ep, kind) => self.down(ep, kind),
                Event::Request(_) | Event::Other => {}
            }
        }
    }

    fn conn_of(&self, ep: C::Id) -> Option<(usize, Arc<Conn<C>>)> {
        self.reach.iter().enumerate().find_map(|(rank, reach)| {
            let conn = reach.conn().filter(|conn| conn.ep.id() == ep)?;
            Some((rank, conn))
        })
    }

    /// Why a request failed, or nothing. A refused one ends the connection, but the next use may make another.
    fn fault(&self, done: &Done<C::Id>) -> Option<Fault> {
        let fault = outcome(done.status)?;
        let Some((_, conn)) = self.conn_of(done.ep) else {
            return Some(fault);
        };
        if done.status == DtoStatus::Flushed {
            let unheard = conn.unheard.load(Ordering::Relaxed);
            return Some(if unheard { Fault::Unheard } else { fault });
        }
        conn.refused.store(true, Ordering::Relaxed);
        let by_peer = matches!(fault, Fault::Access(_));
        conn.unheard.fetch_or(by_peer, Ordering::Relaxed);
        Some(fault)
    }

    fn push_failed(&self, done: &Done<C::Id>) {
        if let Some(failure) = self.fault(done)
            && let Some((rank, _)) = self.conn_of(done.ep)
        {
            let place = (rank as u32, done.cookie as u32);
            self.failures.lock().entry(place).or_insert(failure);
            self.failed.store(true, Ordering::Release);
        }
    }

    /// The end of an update that the peer has not handled. Of any other its answer tells, or the end of the connection.
    fn unheard(&self, done: &Done<C::Id>) -> Option<Completion> {
        let fault = self.fault(done)?;
        if !matches!(fault, Fault::Unheard) {
            return None;
        }
        let ticket = done.cookie & !MESSAGE;
        let (_, conn) = self.conn_of(done.ep)?;
        let mut updates = conn.updates.lock();
        let at = updates.iter().position(|&waiting| waiting == ticket)?;
        updates.swap_remove(at);
        let result = Err(fault);
        Some(Completion { ticket, result })
    }

    /// An answer has arrived. A peer that answers what was not asked is cut off.
    fn answer(&self, done: &Done<C::Id>) -> Option<Completion> {
        if done.status != DtoStatus::Success {
            return None; // flushed: the connection's own event follows
        }
        let rank = (done.cookie >> 32) as usize;
        let conn = self.reach.get(rank)?.conn()?;
        if conn.ep.id() != done.ep {
            return None;
        }
        let slot = done.cookie as u32 as usize;
        let mut message = Vec::new();
        conn.inbox.read(slot, done.len as usize, &mut message)?;
        let reply = Reply::decode(&message).ok();
        let reply = reply.and_then(|reply| {
            let mut updates = conn.updates.lock();
            let at = updates.iter().position(|&ticket| ticket == reply.ticket)?;
            updates.swap_remove(at);
            Some(reply)
        });
        let Some(reply) = reply else {
            conn.ep.disconnect();
            return None;
        };
        // The place is free before the update counts as answered, so it is told in time.
        let segment = conn.inbox.segment(slot);
        let _ = conn.ep.post_recv(segment, done.cookie);
        let result = match reply.outcome {
            Outcome::Done => Ok(reply.result.to_vec()),
            Outcome::Access => Err(Fault::Access("the target refuses the update".into())),
            Outcome::Refused => Err(Fault::Other(
                "the element type does not take the operator".into(),
            )),
        };
        Some(Completion {
            ticket: reply.ticket,
            result,
        })
    }

    /// A connection has ended: its unanswered updates end with it.
    fn down(&self, ep: C::Id, kind: ConnectionKind) {
        let Some((rank, conn)) = self.conn_of(ep) else {
            return;
        };
        *conn.why.lock() = Some(kind);
        let updates = std::mem::take(&mut *conn.updates.lock());
        let mut done = self.done.lock();
        done.extend(updates.into_iter().map(|ticket| Completion {
            ticket,
            result: Err(gone(Some(kind))),
        }));
        drop(done);
        if conn.refused.load(Ordering::Relaxed)
            && let Some(reach) = self.reach.get(rank)
        {
            reach.forget();
        }
    }
}

impl<C: Carrier> Engine for Origin<C> {
    fn limits(&self) -> Limits {
        Limits {
            max_bytes: self.carrier.transfer_bytes(),
            immediate: false,
            update_bytes: UPDATE_BYTES,
        }
    }

    fn sees(&self, local: &SharedBytes) -> bool {
        self.memory.segment(local).is_some()
    }

    fn lend(&self, local: &SharedBytes) -> Option<Lease> {
        let leased = Leased::new(&*self.carrier, &self.memory, local)?;
        Some(Arc::new(leased))
    }

    fn staging(&self) -> Option<&Staging> {
        Some(&self.staging)
    }

    fn push_bytes(&self) -> usize {
        C::PUSH_BYTES
    }

    fn push(&self, remote: RemoteRange, src: &[u8]) -> Result<(), PostError> {
        let rank = (remote.key >> 32) as u32;
        let cookie = PUSH | u64::from(remote.window);
        let post = |conn: &Conn<C>| {
            conn.usable()?;
            let waits = if src.len() < SHORT_PUSH {
                Flags::MORE
            } else {
                Flags::COALESCE
            };
            let flags = Flags::SUPPRESS | waits;
            let posted = conn.ep.write_copy(src, cookie, segment(remote), flags);
            posted.map_err(|why| conn.refusal(why))
        };
        match self.reach.get(rank as usize).and_then(Reach::quick) {
            Some(conn) => post(conn),
            None => post(&*self.conn(rank)?),
        }
    }

    fn pushed(&self, rank: u32) -> Pushed {
        let reach = self.reach.get(rank as usize);
        reach.map_or_else(Pushed::default, Reach::pushed)
    }

    fn settled(&self, rank: u32, before: Pushed) -> bool {
        let reach = self.reach.get(rank as usize);
        reach.is_none_or(|reach| reach.settled(before))
    }

    fn failed(&self, rank: u32, window: u32) -> Option<Fault> {
        let any = self.failed.load(Ordering::Acquire);
        any.then(|| self.failures.lock().remove(&(rank, window)))
            .flatten()
    }

    fn post(&self, transfer: Transfer<'_>) -> Result<Accepted, PostError> {
        let conn = self.conn((transfer.remote.key >> 32) as u32)?;
        conn.usable()?;
        if self.outstanding.fetch_add(1, Ordering::Relaxed) >= OUTSTANDING {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            return Err(PostError::Full);
        }
        let posted = self.transfer(&conn, transfer);
        if posted.is_err() {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
        }
        posted.map(|()| Accepted::Pending)
    }

    fn poll(&self) -> Option<Completion> {
        let completion = self.next().or_else(|| {
            // An application that waits serves its peers meanwhile, as the helper would.
            let moved = self.carrier.step();
            self.target.serve();
            if moved { self.next() } else { None }
        })?;
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        Some(completion)
    }

    fn idle(&self, at_most: Duration) {
        self.carrier.rearm();
        self.target.serve();
        if C::queued(&self.queue) == 0 && self.done.lock().is_empty() {
            idle_on(self.carrier.fd(), at_most);
        }
    }
}
