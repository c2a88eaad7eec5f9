//! The simulated machine: words, areas, helpers and networks of its nodes, and what happens when.
//!
//! Time is virtual, in picoseconds. Events are taken in its order; of those at one moment the seed
//! decides. A rank is resumed by an event, everything else happens here.
//!
//! # The model
//! Between nodes LogGP: who sends is busy for `o`; a node's network takes a message every `g` and a
//! byte every `G`; it arrives `L` later, and the helper of the rank it is for is busy for `o` with
//! it, one message after the other. An answer takes the same way back.
//! Within a node a word is a cache line: who changes or sees what another wrote last waits for one
//! `hop`, and changes of one word follow each other. Bytes of areas cost a copy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use fastrand::Rng;
use windlass::inside::Name;
use windlass_runtime::exchange::simulate::Line;

/// What a message has beside what it carries: the fields of a request, of an answer.
const HEAD_BYTES: usize = 32;
const ANSWER_BYTES: usize = 17;
/// A locked instruction on a line that is here already.
const OWN_PS: u64 = 5_000;
const LINE_BYTES: usize = 64;

/// Parameters, in picoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) latency: u64,
    pub(crate) overhead: u64,
    pub(crate) gap: u64,
    pub(crate) per_byte: u64,
    pub(crate) hop: u64,
    pub(crate) copy_per_byte: u64,
    pub(crate) skew: u64,
    pub(crate) per_node: u32,
}

/// A word: of a node, or of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Line(u32, Line),
    Lock(u32, Name),
    /// The bits that posts to the first turn over, so many to a word.
    Posted(u32, u32),
    Completed(u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Set(u64),
    Add(u64),
    Or(u64),
    And(u64),
    Xor(u64),
    /// The first by the second.
    Exchange(u64, u64),
}

impl Change {
    fn of(self, value: u64) -> u64 {
        match self {
            Change::Set(word) => word,
            Change::Add(n) => value.wrapping_add(n),
            Change::Or(bits) => value | bits,
            Change::And(bits) => value & bits,
            Change::Xor(bits) => value ^ bits,
            Change::Exchange(old, new) if value == old => new,
            Change::Exchange(..) => value,
        }
    }
}

/// What a message does where it arrives.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Changes a word; `fetch`: the origin waits for what was there.
    Word {
        place: Place,
        change: Change,
        fetch: bool,
    },
    /// Writes into the area of a node and a parity.
    Bytes {
        area: (u32, u32),
        at: usize,
        bytes: Arc<[u8]>,
    },
}

impl Effect {
    pub(crate) fn word(place: Place, change: Change, fetch: bool) -> Effect {
        Effect::Word {
            place,
            change,
            fetch,
        }
    }

    fn bytes(&self) -> usize {
        HEAD_BYTES
            + match self {
                Effect::Word { .. } => 8,
                Effect::Bytes { bytes, .. } => bytes.len(),
            }
    }
}

#[derive(Debug)]
struct Message {
    origin: u32,
    /// Whose helper takes it in.
    server: u32,
    effect: Effect,
}

enum What {
    Resume(u32),
    Arrives(Message),
    Done(Message),
}

struct Event {
    /// When; then as the seed says; then in order.
    key: (u64, u32, u64),
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.key == other.key
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Event) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

#[derive(Default)]
struct Cell {
    value: u64,
    /// From when on it can change again.
    free: u64,
    /// Who wrote it last.
    writer: Option<u32>,
    waiters: Vec<u32>,
}

type Written = BTreeMap<usize, Arc<[u8]>>;

/// What one rank has caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Messages to other nodes.
    pub(crate) messages: u64,
    /// Answers of its helper.
    pub(crate) answers: u64,
    /// Bytes of both.
    pub(crate) bytes: u64,
    /// Cache lines that came from another rank of its node.
    pub(crate) hops: u64,
}

pub(crate) struct Machine {
    pub(crate) model: Model,
    pub(crate) now: u64,
    /// Ranks that have not ended.
    pub(crate) running: u32,
    events: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    rng: Rng,
    words: BTreeMap<Place, Cell>,
    /// Of a node and a parity: what was written, by where it begins.
    areas: BTreeMap<(u32, u32), Written>,
    /// From when on the network of a node takes the next message.
    networks: Box<[u64]>,
    /// From when on the helper of a rank takes the next message.
    helpers: Box<[u64]>,
    /// What a rank's requests found, in the order in which they were served.
    pub(crate) answers: Box<[Vec<(Place, u64)>]>,
    pub(crate) counts: Box<[Count]>,
}

impl Machine {
    pub(crate) fn new(model: Model, ranks: u32, seed: u64) -> Machine {
        let nodes = ranks.div_ceil(model.per_node);
        let mut machine = Machine {
            model,
            now: 0,
            running: ranks,
            events: BinaryHeap::new(),
            sequence: 0,
            rng: Rng::with_seed(seed),
            words: BTreeMap::new(),
            areas: BTreeMap::new(),
            networks: (0..nodes).map(|_| 0).collect(),
            helpers: (0..ranks).map(|_| 0).collect(),
            answers: (0..ranks).map(|_| Vec::new()).collect(),
            counts: (0..ranks).map(|_| Count::default()).collect(),
        };
        for rank in 0..ranks {
            let begins = machine.rng.u64(0..=model.skew);
            machine.resume(rank, begins);
        }
        machine
    }

    fn node(&self, rank: u32) -> usize {
        (rank / self.model.per_node) as usize
    }

    fn push(&mut self, at: u64, what: What) {
        self.sequence += 1;
        let key = (at, self.rng.u32(..), self.sequence);
        self.events.push(Reverse(Event { key, what }));
    }

    /// Lets a rank go on at that time.
    pub(crate) fn resume(&mut self, rank: u32, at: u64) {
        self.push(at, What::Resume(rank));
    }

    /// Is nothing to happen up to that time?
    pub(crate) fn is_quiet(&self, until: u64) -> bool {
        let next = self.events.peek();
        next.is_none_or(|Reverse(event)| event.key.0 > until)
    }

    /// Everything up to the next resumption: whose.
    pub(crate) fn next(&mut self) -> Option<u32> {
        while let Some(Reverse(Event { key, what })) = self.events.pop() {
            self.now = key.0;
            match what {
                What::Resume(rank) => return Some(rank),
                What::Arrives(message) => {
                    let helper = &mut self.helpers[message.server as usize];
                    // One after the other, also where the model says that it takes no time.
                    *helper = (*helper).max(key.0) + self.model.overhead.max(1);
                    let done = *helper;
                    self.push(done, What::Done(message));
                }
                What::Done(message) => self.serve(message),
            }
        }
        None
    }

    fn serve(&mut self, message: Message) {
        let Message { origin, server, .. } = message;
        match message.effect {
            Effect::Bytes { area, at, bytes } => {
                self.helpers[server as usize] += bytes.len() as u64 * self.model.copy_per_byte;
                self.put(area, at, bytes);
            }
            Effect::Word {
                place,
                change,
                fetch,
            } => {
                let now = self.now;
                let old = self.change(place, change, server, now);
                let helper = self.helpers[server as usize].max(now) + self.model.overhead;
                self.helpers[server as usize] = helper;
                let arrives = self.transmit(server, ANSWER_BYTES, helper);
                self.counts[server as usize].answers += 1;
                if fetch {
                    self.answers[origin as usize].push((place, old));
                    let seen = arrives + self.model.overhead;
                    self.resume(origin, seen);
                }
            }
        }
    }

    /// A message of that length into the network of a rank's node: when it arrives.
    fn transmit(&mut self, rank: u32, bytes: usize, ready: u64) -> u64 {
        let model = self.model;
        self.counts[rank as usize].bytes += bytes as u64;
        let network = &mut self.networks[rank as usize / model.per_node as usize];
        let departs = ready.max(*network);
        let length = (bytes as u64 - 1) * model.per_byte;
        // What is sent later arrives later.
        *network = departs + model.gap.max(length).max(1);
        departs + length + model.latency
    }

    /// A rank sends at `now`: until when it is busy with that.
    pub(crate) fn send(&mut self, origin: u32, server: u32, effect: Effect, now: u64) -> u64 {
        debug_assert_ne!(self.node(origin), self.node(server), "it is its own node");
        let busy = now + self.model.overhead;
        let arrives = self.transmit(origin, effect.bytes(), busy);
        self.counts[origin as usize].messages += 1;
        let message = Message {
            origin,
            server,
            effect,
        };
        self.push(arrives, What::Arrives(message));
        busy
    }

    /// The old value; who waits for the word is resumed.
    fn change(&mut self, place: Place, change: Change, by: u32, at: u64) -> u64 {
        let cell = self.words.entry(place).or_default();
        let old = cell.value;
        cell.value = change.of(old);
        cell.writer = Some(by);
        cell.free = cell.free.max(at);
        for waiter in std::mem::take(&mut cell.waiters) {
            self.resume(waiter, at);
        }
        old
    }

    /// A rank changes a word of its node: the old value, and when that is done.
    pub(crate) fn touch(&mut self, place: Place, change: Change, by: u32, now: u64) -> (u64, u64) {
        let Model { hop, .. } = self.model;
        let cell = self.words.entry(place).or_default();
        let here = cell.writer.is_none_or(|writer| writer == by);
        self.counts[by as usize].hops += u64::from(!here);
        let done = now.max(cell.free) + if here { OWN_PS } else { hop };
        cell.free = done;
        (self.change(place, change, by, done), done)
    }

    /// A rank looks at a word of its node: what it sees, and when.
    pub(crate) fn look(&mut self, place: Place, by: u32, now: u64) -> (u64, u64) {
        let cell = self.words.entry(place).or_default();
        let here = cell.writer.is_none_or(|writer| writer == by);
        (cell.value, now + if here { 0 } else { self.model.hop })
    }

    /// What a rank looked at was news to it.
    pub(crate) fn saw(&mut self, place: Place, by: u32) {
        let writer = self.words.get(&place).and_then(|cell| cell.writer);
        self.counts[by as usize].hops += u64::from(writer.is_some_and(|writer| writer != by));
    }

    /// The rank is resumed by the next change of the word.
    pub(crate) fn await_change(&mut self, place: Place, rank: u32) {
        self.words.entry(place).or_default().waiters.push(rank);
    }

    pub(crate) fn put(&mut self, area: (u32, u32), at: usize, bytes: Arc<[u8]>) {
        self.areas.entry(area).or_default().insert(at, bytes);
    }

    /// What was written at or before that byte of an area, last: where it begins.
    pub(crate) fn chunk(&self, area: (u32, u32), at: usize) -> Option<(usize, Arc<[u8]>)> {
        let (&start, bytes) = self.areas.get(&area)?.range(..=at).next_back()?;
        Some((start, Arc::clone(bytes)))
    }

    /// Bytes of words and areas that the ranks of a node have used, each its share.
    pub(crate) fn shared_bytes(&self) -> u64 {
        let areas = self.areas.values().flat_map(BTreeMap::values);
        let areas: usize = areas.map(|bytes| bytes.len()).sum();
        ((areas + self.words.len() * LINE_BYTES) / self.counts.len()) as u64
    }

    /// Who waits for what, where nothing is left to happen.
    pub(crate) fn stuck(&self) -> String {
        let waits = self
            .words
            .iter()
            .filter(|(_, cell)| !cell.waiters.is_empty());
        let waits: Vec<String> = waits
            .map(|(place, cell)| format!("ranks {:?} for {place:?}", cell.waiters))
            .collect();
        format!("nobody can go on: {}", waits.join(", "))
    }
}
