//! The target's side: accepts connections and serves the updates that origins send.
//!
//! Runs in whichever thread drives the adapter, one at a time, so that the messages of one
//! connection are served in their order. It waits only for the guard of wide elements, whose holder
//! waits for nobody: an origin that does not take its answers loses its connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use windlass_dat::{DtoStatus, Flags};
use windlass_mem::SharedBytes;
use windlass_mem::sync::{self, Held};

use super::carrier::{self, Carrier, Done, Endpoint, Event};
use super::message::{Ask, Inbox, Outcome, Reply, Request, SLOTS, UPDATE_BYTES};
use crate::guard::Keeper;
use crate::mechanism::Reason;
use crate::transport::native::NativeMemory;
use crate::update::{self, Unit};

/// Events of all connections together; memory follows use.
const EVENTS: usize = 1 << 20;

/// Answers on their way on one connection at most.
const ANSWERS: usize = 4 * SLOTS;

/// Memory that peers may update.
#[derive(Clone)]
pub(super) enum Offer {
    /// A registration of the adapter's.
    Memory {
        /// Updates there wake sleepers.
        wakes: bool,
    },
    /// Memory of a real VE, which the adapter does not know.
    Native(Arc<NativeMemory>),
}

/// Serves the peers of this rank.
pub(super) struct Target<C: Carrier> {
    carrier: Arc<C>,
    keeper: Keeper,
    queue: C::Queue,
    /// What is exported, by context.
    exports: RwLock<HashMap<u32, Offer>>,
    state: Mutex<State<C>>,
    /// Somebody has events to be served.
    again: AtomicBool,
}

struct State<C: Carrier> {
    clients: HashMap<C::Id, Client<C>>,
    message: Vec<u8>,
    result: Vec<u8>,
}

/// One connected origin.
struct Client<C: Carrier> {
    ep: C::Ep,
    inbox: Inbox<C::Lmr>,
}

impl<C: Carrier> Target<C> {
    pub(super) fn new(carrier: &Arc<C>, keeper: &Keeper) -> carrier::Result<Target<C>> {
        Ok(Target {
            carrier: Arc::clone(carrier),
            keeper: keeper.clone(),
            queue: carrier.queue(EVENTS, true)?,
            exports: RwLock::default(),
            state: Mutex::new(State {
                clients: HashMap::new(),
                message: Vec::new(),
                result: Vec::new(),
            }),
            again: AtomicBool::new(false),
        })
    }

    /// Where origins find it.
    pub(super) fn address(&self) -> C::Address {
        self.carrier.address(&self.queue)
    }

    pub(super) fn offer(&self, context: u32, offer: Offer) -> Result<(), Reason> {
        match self.exports.write().entry(context) {
            Entry::Vacant(place) => {
                place.insert(offer);
                Ok(())
            }
            // A provider's number for memory may be one of ours for memory that it does not know.
            Entry::Occupied(_) => Err(Reason::new("the number of its context is taken")),
        }
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

    fn drain(&self, state: &mut State<C>) -> bool {
        let mut any = false;
        while let Some(event) = C::dequeue(&self.queue) {
            any = true;
            match event {
                Event::Request(request) => {
                    if let Err(why) = self.accept(state, request) {
                        tracing::warn!(%why, "a peer's connection cannot be accepted");
                    }
                }
                Event::Done(done) => self.message(state, &done),
                Event::Ended(ep, _) => {
                    state.clients.remove(&ep);
                }
                Event::Other => {}
            }
        }
        any
    }

    fn accept(&self, state: &mut State<C>, request: C::Request) -> carrier::Result<()> {
        let ep = self.carrier.endpoint(&self.queue, ANSWERS, SLOTS)?;
        let inbox = Inbox::new(&*self.carrier)?;
        for slot in 0..SLOTS {
            ep.post_recv(inbox.segment(slot), slot as u64)?;
        }
        self.carrier.accept(request, &ep)?;
        state.clients.insert(ep.id(), Client { ep, inbox });
        Ok(())
    }

    /// A receive has completed: the receive is posted again and the answer sent with it.
    fn message(&self, state: &mut State<C>, done: &Done<C::Id>) {
        let State {
            clients,
            message,
            result,
        } = state;
        let Some(client) = clients.get(&done.ep) else {
            return;
        };
        if !done.is_receive || done.status != DtoStatus::Success {
            return; // flushed: the connection's own event follows
        }
        let slot = done.cookie as usize;
        let read = client.inbox.read(slot, done.len as usize, message);
        let request = read.and_then(|()| Request::decode(message).ok());
        let answered = request.is_some_and(|request| {
            let outcome = self.apply(&request, result);
            let reply = Reply {
                ticket: request.ticket,
                outcome,
                result,
            };
            let segment = client.inbox.segment(slot);
            let again = client.ep.post_recv(segment, done.cookie);
            let sent = client.ep.send_copy(&reply.encode(), 0, Flags::SUPPRESS);
            again.and(sent).is_ok()
        });
        if !answered {
            tracing::debug!("a peer's message was refused; its connection ends");
            client.ep.disconnect();
        }
    }

    /// Runs one update under the checks of a direct request (udapl 5). `result` gets old values.
    fn apply(&self, request: &Request<'_>, result: &mut Vec<u8>) -> Outcome {
        result.clear();
        let range = &request.range;
        let offer = self.exports.read().get(&range.context).cloned();
        let wakes = match offer {
            None => return Outcome::Access,
            Some(Offer::Native(memory)) => return on_ve(&memory, request, result),
            Some(Offer::Memory { wakes }) => wakes,
        };
        // Waited for before the adapter's lock is taken: the holder may have lost its cpu.
        let held = match self.hold(request) {
            Ok(held) => held,
            Err(_) => return Outcome::Refused,
        };
        let unit = held.as_ref().map_or(Unit::Cpu, Unit::Held);
        let run = |bytes: &SharedBytes, offset: usize| {
            let done = run(bytes, offset, request, unit, result);
            if wakes && done.is_ok() {
                // The adapter's lock is held: a system call that does not block.
                if let Ok(word) = bytes.atomic_u64(offset) {
                    sync::wake_all(word);
                }
            }
            done
        };
        match self.carrier.with_region(range, run) {
            Some(Ok(())) => Outcome::Done,
            None | Some(Err(update::Refused::Memory(_))) => Outcome::Access,
            Some(Err(_)) => Outcome::Refused,
        }
    }

    /// The guard that a request names, if its elements are wide.
    fn hold(&self, request: &Request<'_>) -> crate::Result<Option<Held<'_>>> {
        let (Ask::Update { kind, .. } | Ask::CompareSwap { kind, .. }) = request.ask;
        if !update::is_wide(kind, request.range.address) {
            return Ok(None);
        }
        // A request without one is refused by the update itself.
        let guard = self.keeper.guard(request.guard);
        guard.map(|guard| guard.hold()).transpose()
    }
}

/// The same where it is memory of a real VE.
fn on_ve(memory: &NativeMemory, request: &Request<'_>, result: &mut Vec<u8>) -> Outcome {
    let len = request.range.len as usize;
    let Ok(offset) = usize::try_from(request.range.address) else {
        return Outcome::Access;
    };
    // No honest request is longer, and nothing is set aside for others. A peer's mistakes are not this rank's to tell.
    let inside = offset
        .checked_add(len)
        .is_some_and(|end| end <= memory.len());
    if len > UPDATE_BYTES || !inside {
        return Outcome::Access;
    }
    let changed = match request.ask {
        // A put, and whatever else needs no old value.
        Ask::Update {
            op: update::UpdateOp::Replace,
            operand,
            fetch: false,
            ..
        } if operand.len() == len => memory.replace(offset, operand).map(Ok),
        _ => memory.change(offset, len, |bytes, at, unit| {
            run(bytes, at, request, unit, result)
        }),
    };
    match changed {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(_)) => Outcome::Refused,
        Err(why) => {
            tracing::warn!(%why, "an update of this rank's memory on a VE");
            Outcome::Access
        }
    }
}

fn run(
    bytes: &SharedBytes,
    offset: usize,
    request: &Request<'_>,
    unit: Unit<'_>,
    result: &mut Vec<u8>,
) -> Result<(), update::Refused> {
    let len = request.range.len as usize;
    match &request.ask {
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
            update::apply(bytes, offset, *kind, *op, operand, fetched, unit)
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
            update::compare_swap(bytes, offset, *kind, compare, swap, result, unit)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::update::{Kind, UpdateOp};

    proptest! {
        /// A peer's operands and lengths need not agree with each other or with the memory: what
        /// does not fit is refused, and nothing outside the named range ever changes.
        #[test]
        fn a_request_changes_its_range_or_nothing(
            kind in prop::sample::select(Kind::ALL.to_vec()),
            op in prop::sample::select(UpdateOp::ALL.to_vec()),
            is_swap in any::<bool>(),
            fetch in any::<bool>(),
            offset in 0usize..70,
            len in 0u32..70,
            first in prop::collection::vec(any::<u8>(), 0..70),
            second in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let (bytes, _loan) = windlass_mem::lend(vec![0u64; 8]);
            let (word, _loan) = windlass_mem::lend(vec![0u64; 1]);
            let word = word.atomic_u64(0).expect("a word");
            let held = sync::hold(word, false, || Ok::<(), ()>(())).expect("it is free");
            let ask = if is_swap {
                Ask::CompareSwap { kind, compare: &first, swap: &second }
            } else {
                Ask::Update { kind, op, operand: &first, fetch }
            };
            let range = windlass_dat::RemoteSegment { context: 1, address: 0, len };
            let request = Request { ticket: 0, range, guard: 2, ask };
            let mut result = Vec::new();
            let done = run(&bytes, offset, &request, Unit::Held(&held), &mut result);
            let mut after = [0; 64];
            bytes.read(0, &mut after).expect("all of it");
            let end = offset + len as usize;
            for (at, &byte) in after.iter().enumerate() {
                let may = done.is_ok() && (offset..end).contains(&at);
                prop_assert!(byte == 0 || may, "byte {at} of {after:x?}");
            }
            let fetches = is_swap || fetch;
            if done.is_ok() {
                prop_assert!(end <= 64 || len == 0 || (op == UpdateOp::NoOp && !fetches));
                prop_assert_eq!(result.len(), if fetches { len as usize } else { 0 });
            }
        }
    }
}
