//! The target's side: accepts connections and serves the updates that origins send.
//!
//! Runs in whichever thread drives the adapter, one at a time, so that the messages of one
//! connection are served in their order. It never waits: an origin that does not take its answers
//! loses its connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use windlass_dat::{
    CloseFlags, ConnectionKind, Cr, DtoCompletion, DtoOperation, DtoStatus, Ep, EpAttr, EpId, Evd,
    EvdFlags, Event, Flags, Ia, Privileges, Psp, Pz,
};
use windlass_mem::{SharedBytes, sync};

use super::message::{Ask, Inbox, Outcome, Reply, Request, SLOTS};
use crate::update;

/// The connection qualifier of the update service.
pub(super) const SERVICE: u64 = 1;

/// Events of all connections together; memory follows use.
const EVENTS: usize = 1 << 20;

/// Answers on their way on one connection at most.
const ANSWERS: usize = 4 * SLOTS;

/// Serves the peers of this rank.
pub(super) struct Target {
    ia: Arc<Ia>,
    pz: Arc<Pz>,
    evd: Evd,
    _psp: Psp,
    /// Contexts of exported segments; whether updates there wake sleepers.
    exports: RwLock<HashMap<u32, bool>>,
    state: Mutex<State>,
    /// Somebody has events to be served.
    again: AtomicBool,
}

#[derive(Default)]
struct State {
    clients: HashMap<EpId, Client>,
    message: Vec<u8>,
    result: Vec<u8>,
}

/// One connected origin.
struct Client {
    ep: Ep,
    inbox: Inbox,
}

impl Target {
    pub(super) fn new(ia: &Arc<Ia>, pz: &Arc<Pz>) -> windlass_dat::Result<Target> {
        let evd = Evd::create(ia, EVENTS, EvdFlags::ALL)?;
        let psp = Psp::create(&evd, ia, SERVICE)?;
        Ok(Target {
            ia: Arc::clone(ia),
            pz: Arc::clone(pz),
            evd,
            _psp: psp,
            exports: RwLock::default(),
            state: Mutex::default(),
            again: AtomicBool::new(false),
        })
    }

    pub(super) fn offer(&self, context: u32, wakes: bool) {
        self.exports.write().insert(context, wakes);
    }

    pub(super) fn withdraw(&self, context: u32) {
        self.exports.write().remove(&context);
    }

    /// Serves what has arrived. `true` if there was anything.
    pub(super) fn serve(&self) -> bool {
        let mut any = false;
        self.again.store(true, Ordering::SeqCst);
        while self.again.load(Ordering::SeqCst) {
            // Somebody else is at it: the order of messages is kept by leaving it to him, who
            // looks once more when he has let go.
            let Some(mut state) = self.state.try_lock() else {
                return any;
            };
            self.again.store(false, Ordering::SeqCst);
            any |= self.drain(&mut state);
        }
        any
    }

    fn drain(&self, state: &mut State) -> bool {
        let mut any = false;
        while let Some(event) = self.evd.dequeue() {
            any = true;
            match event {
                Event::ConnectionRequest(cr) => {
                    if let Err(why) = self.accept(state, &cr) {
                        tracing::warn!(%why, "a peer's connection cannot be accepted");
                    }
                }
                Event::Dto(done) => self.message(state, &done),
                Event::Connection { kind, ep, .. } if kind != ConnectionKind::Established => {
                    state.clients.remove(&ep);
                }
                _ => {}
            }
        }
        any
    }

    fn accept(&self, state: &mut State, cr: &Cr) -> windlass_dat::Result<()> {
        let attr = EpAttr {
            max_request_dtos: ANSWERS,
            max_recv_dtos: SLOTS,
            ..EpAttr::default()
        };
        let evd = Some(&self.evd);
        let ep = Ep::create(&self.pz, evd, evd, evd, attr)?;
        let inbox = Inbox::new(&self.pz)?;
        for slot in 0..SLOTS {
            ep.post_recv(&[inbox.segment(slot)], slot as u64, Flags::MORE)?;
        }
        cr.accept(&ep, &[])?;
        state.clients.insert(ep.id(), Client { ep, inbox });
        Ok(())
    }

    /// A receive has completed: the receive is posted again and the answer sent with it.
    fn message(&self, state: &mut State, done: &DtoCompletion) {
        let State {
            clients,
            message,
            result,
        } = state;
        let Some(client) = clients.get(&done.ep) else {
            return;
        };
        if done.operation != DtoOperation::Receive || done.status != DtoStatus::Success {
            return; // flushed: the connection's own event follows
        }
        let slot = done.cookie as usize;
        let read = client.inbox.read(slot, done.length as usize, message);
        let request = read.and_then(|()| Request::decode(message).ok());
        let answered = request.is_some_and(|request| {
            let outcome = self.apply(&request, result);
            let reply = Reply {
                ticket: request.ticket,
                outcome,
                result,
            };
            let segment = client.inbox.segment(slot);
            let again = client.ep.post_recv(&[segment], done.cookie, Flags::MORE);
            let sent = client
                .ep
                .post_send_inline(&reply.encode(), 0, Flags::SUPPRESS);
            again.and(sent).is_ok()
        });
        if !answered {
            tracing::debug!("a peer's message was refused; its connection ends");
            let _ = client.ep.disconnect(CloseFlags::Abrupt);
        }
    }

    /// Runs one update under the checks of a direct request (udapl 5). `result` gets old values.
    fn apply(&self, request: &Request<'_>, result: &mut Vec<u8>) -> Outcome {
        result.clear();
        let range = &request.range;
        let wakes = self.exports.read().get(&range.context).copied();
        let Some(wakes) = wakes else {
            return Outcome::Access;
        };
        let run = |bytes: &SharedBytes, offset: usize| {
            let done = run(bytes, offset, range.len as usize, &request.ask, result);
            if wakes && done.is_ok() {
                // The adapter's lock is held: a system call that does not block.
                if let Ok(word) = bytes.atomic_u64(offset) {
                    sync::wake_all(word);
                }
            }
            done
        };
        let right = Privileges::REMOTE_ATOMIC;
        match self.ia.with_region(&self.pz, range, right, run) {
            Some(Ok(())) => Outcome::Done,
            None | Some(Err(update::Refused::Memory(_))) => Outcome::Access,
            Some(Err(_)) => Outcome::Refused,
        }
    }
}

fn run(
    bytes: &SharedBytes,
    offset: usize,
    len: usize,
    ask: &Ask<'_>,
    result: &mut Vec<u8>,
) -> Result<(), update::Refused> {
    match ask {
        Ask::Update {
            kind,
            op,
            operand,
            fetch,
        } => {
            let reads = matches!(op, update::UpdateOp::NoOp);
            if !reads && operand.len() != len {
                return Err(update::Refused::Length {
                    what: "operands",
                    got: operand.len(),
                    want: len,
                });
            }
            result.resize(if *fetch { len } else { 0 }, 0);
            let fetched = fetch.then_some(&mut result[..]);
            update::apply(bytes, offset, *kind, *op, operand, fetched)
        }
        Ask::CompareSwap {
            kind,
            compare,
            swap,
        } => {
            if kind.size() != len {
                return Err(update::Refused::Length {
                    what: "an element",
                    got: len,
                    want: kind.size(),
                });
            }
            result.resize(len, 0);
            update::compare_swap(bytes, offset, *kind, compare, swap, result)
        }
    }
}
