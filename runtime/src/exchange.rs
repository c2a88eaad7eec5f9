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

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use windlass_mem::sync;
use windlass_node::Client;
use windlass_node::control::{self, Control, Trouble};

use crate::error::{Error, Result, cause};
use crate::mechanism::Peer;
use crate::progress::Health;
use crate::route::Route;
use crate::update::{Kind, UpdateOp};

/// The context of all-gathers.
const GATHER: u32 = 0;

/// The context of the job's own barriers.
const WORLD: u32 = 1;

/// A departed word holds the rank + 1 below this bit, the barriers it had passed above.
const DEPARTED_ROUND: u32 = 16;

/// The first context for windows.
const FIRST_WINDOW: u32 = 2;

/// What a rank is doing, as its status word tells the launcher after its death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "the variants are the names of the calls")]
pub enum Call {
    Compute = 0,
    Init = 1,
    Create = 2,
    Fence = 3,
    Lock = 4,
    Unlock = 5,
    Flush = 6,
    Put = 7,
    Get = 8,
    Update = 9,
    Free = 10,
    Barrier = 11,
    End = 12,
}

impl Call {
    /// The name of the call with this code.
    pub fn name(code: u64) -> Option<&'static str> {
        Some(match code {
            0 => "compute",
            1 => "init",
            2 => "window creation",
            3 => "fence",
            4 => "lock",
            5 => "unlock",
            6 => "flush",
            7 => "put",
            8 => "get",
            9 => "accumulate",
            10 => "free",
            11 => "barrier",
            12 => "end",
            _ => return None,
        })
    }
}

/// Synchronisation state of one window in this process.
pub struct Context {
    id: u32,
    /// Barriers passed.
    epoch: Mutex<u64>,
}

/// The names of a window's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordName {
    /// The lock of a rank's memory.
    Lock(u32),
    /// Next ticket of its queue.
    Ticket(u32),
    /// Ticket being served.
    Serving(u32),
    /// Sleepers on those words.
    LockSleepers(u32),
}

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
        let world = Context {
            id: WORLD,
            epoch: Mutex::new(0),
        };
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
        let arrived = self.bump(arrive, GATHER);
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

    fn bump(&self, word: usize, context: u32) -> u64 {
        let arrived = self.control.word(word).fetch_add(1, Ordering::SeqCst) + 1;
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
        let word = self.control.word(word);
        sync::wait(
            word,
            self.sleepers(context),
            self.health.oversubscribed(),
            |now| now >= value,
            || self.check(context, round),
        )?;
        Ok(())
    }

    /// Ends every wait that cannot succeed any more: `round` is the one that is waited for. A rank
    /// that departed after it has done its part of it, so the others only have to be waited for.
    fn check(&self, context: u32, round: u64) -> Result<()> {
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
        self.barrier(&self.world)
    }

    /// A barrier of the window's ranks (all of the job).
    ///
    /// # Errors
    /// [`Error::Departed`] when a rank dropped the window; a lost peer.
    pub fn barrier(&self, context: &Context) -> Result<()> {
        let mut epoch = context.epoch.lock();
        let round = *epoch + 1;
        let id = context.id;
        let count = self.locals.len() as u64;
        if self.by_flags() {
            // Each writes a line of its own and polls the other's: less than a hop (section 3).
            self.release(control::flag(id, self.local), round, id);
            sync::settled();
            self.wait_at_least(control::flag(id, 1 - self.local), round, id, round)?;
        } else {
            let arrive = control::arrive(id);
            let generation = control::generation(id);
            let arrived = self.bump(arrive, id);
            if self.nodes > 1 && self.local == 0 {
                self.wait_at_least(arrive, round * count, id, round)?;
                self.between_nodes(id, round)?;
                self.release(generation, round, id);
            } else if self.nodes == 1 && arrived == round * count {
                self.release(generation, round, id);
            } else {
                self.wait_at_least(generation, round, id, round)?;
            }
        }
        *epoch = round;
        Ok(())
    }

    fn by_flags(&self) -> bool {
        self.nodes == 1 && self.locals.len() == 2 && !self.health.oversubscribed()
    }

    /// Dissemination between the first ranks of the nodes: after round r each knows 2^(r+1) nodes.
    fn between_nodes(&self, id: u32, epoch: u64) -> Result<()> {
        let mut step = 1;
        for round in 0..control::INTER_ROUNDS {
            if step >= self.nodes {
                break;
            }
            let word = control::inter(id, round);
            let next = (self.node + step) % self.nodes;
            let leader = self.leaders[next as usize];
            if let Some(Route::Posted(posted)) = self.remote(leader) {
                let one = 1u64.to_ne_bytes();
                posted.update(word as u64, Kind::U64, UpdateOp::Sum, &one, None)?;
            } else {
                return Err(Error::PeerLost {
                    rank: leader,
                    detail: "its synchronisation words cannot be reached".into(),
                });
            }
            self.wait_at_least(word, epoch, id, epoch)?;
            step *= 2;
        }
        Ok(())
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
        let epoch = self.control.word(word).load(Ordering::SeqCst);
        Ok(Context {
            id,
            epoch: Mutex::new(epoch),
        })
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
        let passed = context.epoch.try_lock().map_or(0, |epoch| *epoch);
        self.depart_after(context.id, passed);
    }

    fn depart_after(&self, id: u32, passed: u64) {
        let me = passed << DEPARTED_ROUND | (u64::from(self.rank) + 1);
        let word = control::departed(id);
        let _ = self
            .control
            .word(word)
            .compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst);
        for (node, leader) in self.leaders.iter().enumerate() {
            if node as u32 == self.node {
                continue;
            }
            if let Some(Route::Posted(posted)) = self.remote(*leader) {
                // A peer that cannot be told any more learns of it from the job's end.
                let me = me.to_ne_bytes();
                let _ = posted.update(word as u64, Kind::U64, UpdateOp::Replace, &me, None);
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
        let (rank, offset): (u32, fn(u32, u32) -> usize) = match name {
            WordName::Lock(rank) => (rank, control::lock),
            WordName::Ticket(rank) => (rank, control::ticket),
            WordName::Serving(rank) => (rank, control::serving),
            WordName::LockSleepers(rank) => (rank, control::lock_sleepers),
        };
        let lost = || Error::PeerLost {
            rank,
            detail: "its synchronisation words cannot be reached".into(),
        };
        let peers = self.peers.get().ok_or_else(lost)?;
        let peer = peers.get(rank as usize).ok_or_else(lost)?;
        let offset = offset(context.id, peer.local);
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
}

/// A synchronisation word: a `u64` in the control segment of its rank's node.
pub struct Word<'a> {
    exchange: &'a Exchange,
    context: u32,
    place: Where<'a>,
}

enum Where<'a> {
    Here(&'a AtomicU64),
    There(&'a Route, u64),
}

impl Word<'_> {
    /// Is the word in this node's own segment?
    #[inline]
    pub fn is_here(&self) -> bool {
        matches!(self.place, Where::Here(_))
    }

    fn there(&self, op: UpdateOp, operand: u64) -> Result<u64> {
        let Where::There(Route::Posted(posted), offset) = self.place else {
            return Err(Error::Update(
                "a word that is neither here nor posted".into(),
            ));
        };
        let mut old = [0; 8];
        let operand = operand.to_ne_bytes();
        posted.update(offset, Kind::U64, op, &operand, Some(&mut old))?;
        Ok(u64::from_ne_bytes(old))
    }

    /// The value now.
    ///
    /// # Errors
    /// A lost peer; so for every call here.
    #[inline]
    pub fn load(&self) -> Result<u64> {
        match self.place {
            Where::Here(word) => {
                sync::pay();
                Ok(word.load(Ordering::SeqCst))
            }
            Where::There(..) => self.there(UpdateOp::NoOp, 0),
        }
    }

    /// Adds; the old value.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn fetch_add(&self, n: u64) -> Result<u64> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                Ok(word.fetch_add(n, Ordering::SeqCst))
            }
            Where::There(..) => self.there(UpdateOp::Sum, n),
        }
    }

    /// Subtracts; the old value.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn fetch_sub(&self, n: u64) -> Result<u64> {
        self.fetch_add(n.wrapping_neg())
    }

    /// Sets bits; the old value.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn fetch_or(&self, bits: u64) -> Result<u64> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                Ok(word.fetch_or(bits, Ordering::SeqCst))
            }
            Where::There(..) => self.there(UpdateOp::Or, bits),
        }
    }

    /// Keeps only these bits; the old value.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn fetch_and(&self, bits: u64) -> Result<u64> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                Ok(word.fetch_and(bits, Ordering::SeqCst))
            }
            Where::There(..) => self.there(UpdateOp::And, bits),
        }
    }

    /// Replaces `old` by `new`: `Ok(old)`, or `Err` of what is there instead.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn compare_exchange(&self, old: u64, new: u64) -> Result<Result<u64, u64>> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                Ok(word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst))
            }
            Where::There(Route::Posted(posted), offset) => {
                let mut seen = [0; 8];
                let (compare, swap) = (old.to_ne_bytes(), new.to_ne_bytes());
                posted.compare_swap(offset, Kind::U64, &compare, &swap, &mut seen)?;
                let seen = u64::from_ne_bytes(seen);
                Ok(if seen == old { Ok(old) } else { Err(seen) })
            }
            Where::There(..) => Err(Error::Update("a word that cannot be reached".into())),
        }
    }

    /// Waits until `done` accepts the value. A waiter on its own node sleeps in the end; the one
    /// who changes the word calls [`wake`](Self::wake). Elsewhere it asks again, ever more rarely.
    ///
    /// # Errors
    /// A lost or departed peer.
    pub fn wait(&self, sleepers: &Word<'_>, done: impl Fn(u64) -> bool) -> Result<u64> {
        let exchange = self.exchange;
        if let (Where::Here(word), Where::Here(sleepers)) = (&self.place, &sleepers.place) {
            let oversubscribed = exchange.health.oversubscribed();
            return sync::wait(word, sleepers, oversubscribed, done, || {
                exchange.check(self.context, u64::MAX)
            });
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let now = self.load()?;
            if done(now) {
                return Ok(now);
            }
            exchange.check(self.context, u64::MAX)?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Wakes those who sleep on this word, after it was changed by one of the calls above.
    /// Changes from other nodes wake by themselves.
    #[inline]
    pub fn wake(&self, sleepers: &Word<'_>) {
        if let (Where::Here(word), Where::Here(sleepers)) = (&self.place, &sleepers.place) {
            sync::wake(word, sleepers);
        }
    }
}

/// Pauses between two looks at a word of another node.
const FIRST_PAUSE: std::time::Duration = std::time::Duration::from_micros(10);
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
