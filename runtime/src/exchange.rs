//! The control plane between ranks: all-gather, barriers, synchronisation words.
//!
//! Inside a node everything is a word in the node's control segment, changed by CPU atomics and
//! waited for by polling, timed yields and a futex (measured-designs 3). Ranks of other nodes
//! reach the same words through the owner's helper thread; a barrier goes over the nodes by
//! dissemination between their first ranks. Small blobs cross nodes through the node services.
//!
//! Words of a context only grow, and each rank counts the barriers it has passed, so rounds
//! cannot be confused. A context whose window was freed by all is in the same state everywhere
//! and can be used again; one that a rank dropped cannot.

mod barrier;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use windlass_mem::{SharedBytes, sync};
use windlass_node::Client;
use windlass_node::control::{self, Control, Trouble};

use crate::call::Call;
use crate::error::{Error, Result, cause};
use crate::mechanism::Peer;
use crate::progress::Health;
use crate::route::Route;
use crate::word::{Where, Word, WordName};

pub use barrier::Context;

/// The context of all-gathers.
const GATHER: u32 = 0;

/// The context of the job's own barriers.
const WORLD: u32 = 1;

/// A departed word holds the rank + 1 below this bit, the barriers it had passed above.
const DEPARTED_ROUND: u32 = 16;

/// The first context for windows.
const FIRST_WINDOW: u32 = 2;

/// Ranks of the job, reached through words and blobs.
pub struct Exchange {
    control: Control,
    client: Arc<Client>,
    health: Arc<Health>,
    peers: OnceLock<Arc<[Peer]>>,
    rank: u32,
    node: u32,
    nodes: u32,
    /// World ranks of this node, by local index.
    locals: Vec<u32>,
    local: u32,
    /// First rank of each node.
    leaders: Vec<u32>,
    /// Control segments of ranks of other nodes.
    remote: OnceLock<HashMap<u32, Route>>,
    gathers: Mutex<u64>,
    world: Context,
    contexts: Mutex<Vec<u32>>,
}

/// Where this process stands in its job.
pub struct Seat {
    /// Rank in the job.
    pub rank: u32,
    /// Its node.
    pub node: u32,
    /// How many nodes.
    pub nodes: u32,
    /// (rank, node) of everybody, in rank order.
    pub members: Vec<(u32, u32)>,
}

impl Exchange {
    /// The exchange of a process that has joined its node.
    pub fn new(seat: &Seat, control: Control, client: Arc<Client>, health: Arc<Health>) -> Self {
        let of_node = |node| {
            seat.members
                .iter()
                .filter(move |m| m.1 == node)
                .map(|m| m.0)
        };
        let locals: Vec<u32> = of_node(seat.node).collect();
        let local = locals.iter().position(|&r| r == seat.rank).unwrap_or(0) as u32;
        let leaders = (0..seat.nodes)
            .map(|node| of_node(node).next().unwrap_or(u32::MAX))
            .collect();
        let world = Context::new(WORLD, 0);
        Exchange {
            control,
            client,
            health,
            peers: OnceLock::new(),
            rank: seat.rank,
            node: seat.node,
            nodes: seat.nodes,
            locals,
            local,
            leaders,
            remote: OnceLock::new(),
            gathers: Mutex::new(0),
            world,
            contexts: Mutex::new((FIRST_WINDOW..control::CONTEXTS).rev().collect()),
        }
    }

    /// Once known: everybody, and how to reach the words of other nodes.
    pub(crate) fn introduce(&self, peers: Arc<[Peer]>, remote: HashMap<u32, Route>) {
        let _ = self.peers.set(peers);
        let _ = self.remote.set(remote);
    }

    /// The node's control segment.
    pub fn control(&self) -> &Control {
        &self.control
    }

    pub(crate) fn oversubscribed(&self) -> bool {
        self.health.oversubscribed()
    }

    /// Notes what this rank is doing, for the launcher's message after a death.
    #[inline]
    pub fn enter(&self, call: Call) {
        self.control
            .word(control::status(self.local))
            .store(call as u64, Ordering::Relaxed);
    }

    /// Every rank's blob, in rank order. Collective; at most [`control::MAX_PART`] bytes each.
    ///
    /// # Errors
    /// A blob that is too long, a lost peer, a lost job.
    pub fn all_gather(&self, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut gathers = self.gathers.lock();
        let round = *gathers + 1;
        let parity = (round & 1) as u32;
        let node = |what| {
            move |e: windlass_node::Error| Error::Node {
                what,
                source: cause(e),
            }
        };
        self.control
            .put_part(self.rank, parity, blob)
            .map_err(node("publishing a part"))?;
        let count = self.locals.len() as u64;
        let arrive = control::arrive(GATHER);
        let generation = control::generation(GATHER);
        let arrived = self.bump(arrive, 1, GATHER);
        if self.nodes > 1 && self.local == 0 {
            self.wait_at_least(arrive, round * count, GATHER, round)?;
            self.relay(round, parity)?;
            self.release(generation, round, GATHER);
        } else if self.nodes == 1 && arrived == round * count {
            self.release(generation, round, GATHER);
        } else {
            self.wait_at_least(generation, round, GATHER, round)?;
        }
        *gathers = round;
        let size = self.control.world();
        (0..size)
            .map(|rank| {
                self.control
                    .part(rank, parity)
                    .map_err(node("reading a part"))
            })
            .collect()
    }

    /// The first rank of a node trades the node's parts for those of the other nodes.
    fn relay(&self, round: u64, parity: u32) -> Result<()> {
        let node = |what| {
            move |e: windlass_node::Error| Error::Node {
                what,
                source: cause(e),
            }
        };
        for &rank in &self.locals {
            let part = self
                .control
                .part(rank, parity)
                .map_err(node("reading a part"))?;
            self.client
                .gather_part(round, rank, &part)
                .map_err(node("sending a part to the other nodes"))?;
        }
        let parts = self
            .client
            .gather_collect(round)
            .map_err(node("collecting the parts of the other nodes"))?;
        for (rank, part) in parts {
            if !self.locals.contains(&rank) {
                self.control
                    .put_part(rank, parity, &part)
                    .map_err(node("publishing a part"))?;
            }
        }
        Ok(())
    }

    /// Arrives; the counter with this arrival.
    fn bump(&self, word: usize, by: u64, context: u32) -> u64 {
        let arrived = self.control.word(word).fetch_add(by, Ordering::SeqCst) + by;
        sync::settled();
        if self.nodes > 1 {
            sync::wake(self.control.word(word), self.sleepers(context));
        }
        arrived
    }

    fn release(&self, word: usize, value: u64, context: u32) {
        self.control.word(word).swap(value, Ordering::SeqCst);
        sync::wake(self.control.word(word), self.sleepers(context));
    }

    fn sleepers(&self, context: u32) -> &AtomicU64 {
        self.control.word(control::sleepers(context))
    }

    fn wait_at_least(&self, word: usize, value: u64, context: u32, round: u64) -> Result<()> {
        self.wait_until(word, context, round, |now| now >= value)?;
        Ok(())
    }

    /// The value that `done` accepted.
    fn wait_until(
        &self,
        word: usize,
        context: u32,
        round: u64,
        done: impl Fn(u64) -> bool,
    ) -> Result<u64> {
        let word = self.control.word(word);
        let seen = Cell::new(0);
        let look = || {
            seen.set(word.load(Ordering::SeqCst));
            done(seen.get())
        };
        if self.polled(look) {
            return Ok(seen.get());
        }
        sync::wait(
            word,
            self.sleepers(context),
            self.health.oversubscribed(),
            done,
            || self.check(context, round),
        )
    }

    /// The polling part of a wait. With several nodes it serves peers meanwhile: what is waited for
    /// may have to come through this process's own helper. `true` if it is `done`: else sleep.
    pub(crate) fn polled(&self, done: impl Fn() -> bool) -> bool {
        self.nodes > 1 && self.health.drive_until(done)
    }

    /// Ends every wait that cannot succeed any more: `round` is the one that is waited for. A rank
    /// that departed after it has done its part of it, so the others only have to be waited for.
    pub(crate) fn check(&self, context: u32, round: u64) -> Result<()> {
        self.health.check()?;
        match self.control.trouble() {
            None => {}
            Some(Trouble::Abort { rank }) => {
                return Err(Error::JobLost(format!("rank {rank} aborted it")));
            }
            Some(Trouble::Lost { rank }) => {
                let detail = "it ended without ending its job".to_owned();
                return Err(Error::PeerLost { rank, detail });
            }
            Some(Trouble::Link { node }) => {
                return Err(Error::JobLost(format!("the link to node {node} broke")));
            }
        }
        self.check_departed(context, round)
    }

    /// [`check`](Self::check) for a caller that waits for no round of the barrier.
    pub(crate) fn check_context(&self, context: &Context) -> Result<()> {
        self.check(context.id, u64::MAX)
    }

    /// [`Error::Departed`] if a rank left before it did its part of `round`.
    pub(super) fn check_departed(&self, context: u32, round: u64) -> Result<()> {
        let departed = self
            .control
            .word(control::departed(context))
            .load(Ordering::SeqCst);
        if departed == 0 || departed >> DEPARTED_ROUND >= round {
            return Ok(());
        }
        let rank = (departed & ((1 << DEPARTED_ROUND) - 1)) - 1;
        Err(Error::Departed { rank: rank as u32 })
    }

    /// A barrier of the whole job.
    ///
    /// # Errors
    /// A lost or departed peer.
    pub fn world_barrier(&self) -> Result<()> {
        self.barrier(&self.world, false)
    }

    fn remote(&self, rank: u32) -> Option<&Route> {
        self.remote.get()?.get(&rank)
    }

    /// A context for a new window: the same one on every rank, because creation is collective.
    pub(crate) fn open_context(&self) -> Result<Context> {
        let id = self.contexts.lock().pop().ok_or(Error::Full {
            what: "windows",
            limit: (control::CONTEXTS - FIRST_WINDOW) as usize,
        })?;
        let word = if self.by_flags() {
            control::flag(id, self.local)
        } else {
            control::generation(id)
        };
        let round = self.control.word(word).load(Ordering::SeqCst);
        Ok(Context::new(id, round))
    }

    /// Gives a context back after its last barrier succeeded.
    pub(crate) fn close_context(&self, context: &Context) {
        let mut free = self.contexts.lock();
        free.push(context.id);
        // The lowest first, everywhere alike.
        free.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Tells all nodes that this rank takes no further part in the context. Never waits.
    pub(crate) fn depart(&self, context: &Context) {
        // A barrier of another thread that holds the lock now is one this rank departs from.
        self.depart_after(context.id, context.passed());
    }

    fn depart_after(&self, id: u32, passed: u64) {
        let me = passed << DEPARTED_ROUND | (u64::from(self.rank) + 1);
        let word = control::departed(id);
        let first =
            self.control
                .word(word)
                .compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst);
        // Who leaves because another left passes on that one's name.
        let first = first.map_or_else(|earlier| earlier, |_| me);
        for (node, leader) in self.leaders.iter().enumerate() {
            if node as u32 == self.node {
                continue;
            }
            if let Some(Route::Posted(posted)) = self.remote(*leader) {
                // A peer that cannot be told any more learns of it from the job's end.
                let _ = posted.tell(word as u64, first);
            }
        }
    }

    /// The job itself: no further all-gather or barrier with this rank.
    pub(crate) fn depart_job(&self) {
        let gathered = self.gathers.try_lock().map_or(0, |round| *round);
        self.depart_after(GATHER, gathered);
        self.depart(&self.world);
    }

    /// A word of the window.
    ///
    /// # Errors
    /// [`Error::PeerLost`] where the words of that rank's node cannot be reached.
    pub fn word(&self, context: &Context, name: WordName) -> Result<Word<'_>> {
        let rank = name.rank();
        let lost = || Error::PeerLost {
            rank,
            detail: "its synchronisation words cannot be reached".into(),
        };
        let peers = self.peers.get().ok_or_else(lost)?;
        let peer = peers.get(rank as usize).ok_or_else(lost)?;
        let offset = name.offset(context.id, peer.local);
        let place = if peer.node == self.node {
            Where::Here(self.control.word(offset))
        } else {
            let route = self.remote(rank).ok_or_else(lost)?;
            Where::There(route, offset as u64)
        };
        Ok(Word {
            exchange: self,
            context: context.id,
            place,
        })
    }

    /// The memory of a word that lies in this node's own segment.
    pub(crate) fn word_here(&self, context: &Context, name: WordName) -> Option<SharedBytes> {
        let peer = self.peers.get()?.get(name.rank() as usize)?;
        if peer.node != self.node {
            return None;
        }
        let bytes = self.control.bytes();
        bytes
            .slice(name.offset(context.id, peer.local), size_of::<u64>())
            .ok()
    }
}
