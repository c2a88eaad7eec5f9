//! Barriers and all-gathers of a group, on the words of a job.
//!
//! An all-gather is a barrier that carries parts: each rank writes its own into its slot on its
//! node, the first ranks send what they have with each step of the dissemination, straight into
//! the slots of the other node, and behind the barrier everybody reads all slots of its own node.
//! Slots belong to the team's context, so gathers of overlapping teams do not meet, and rounds
//! alternate between two of them: who writes one again has passed a barrier that its last readers
//! have come to. A part that is longer than a slot travels in several rounds.

use std::sync::atomic::Ordering;

use windlass_mem::sync::{self, Held};
use windlass_node::control::{self, MAX_PART, MAX_PIECE, Part, Slot};

use super::Exchange;
use super::barrier::{self, Line, NO, Passed, Stand, Words, YES};
use super::context::Context;
use super::group::Group;
use crate::error::{Error, Result, cause};
use crate::route::{Posted, Route};
use crate::update::{Kind, UpdateOp};

/// What a gather is about: ranks that make different calls see it, and all of them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Topic {
    /// The caller's bytes.
    Bytes,
    /// Who everybody is.
    Hello,
    /// Which teams are made.
    Teams,
    /// The contexts of new teams.
    Contexts,
    /// The parts of a window.
    Parts,
    /// The offers of new segments.
    Offers,
    /// Whether all are reached.
    Reached,
    /// What is asked of a shared window.
    Asks,
    /// What it is made of.
    Grants,
    /// Whether all have mapped it.
    Mapped,
}

impl Topic {
    /// What a rank's failure concerns, for the text that the others see.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Topic::Bytes => "its bytes",
            Topic::Hello => "joining the job",
            Topic::Teams => "its choice of a team",
            Topic::Contexts => "its words for a team",
            Topic::Parts => "its part",
            Topic::Offers => "its offers",
            Topic::Reached => "reaching memory",
            Topic::Asks => "what it asks for",
            Topic::Grants => "the shared memory",
            Topic::Mapped => "mapping the shared memory",
        }
    }
}

/// One barrier, and what it carries.
struct Meeting<'a> {
    exchange: &'a Exchange,
    group: &'a Group,
    context: &'a Context,
    round: u64,
    /// In a gather: the pieces that begin at this byte of their parts.
    pieces: Option<usize>,
}

fn node_error(what: &'static str) -> impl Fn(windlass_node::Error) -> Error {
    move |source| Error::Node {
        what,
        source: cause(source),
    }
}

impl Exchange {
    /// A barrier of the group, in which all say the same.
    ///
    /// # Errors
    /// [`Error::Disagree`] on all ranks when they do not; [`Error::Departed`] when a rank left the
    /// context; a lost peer.
    #[inline]
    pub(crate) fn barrier(&self, group: &Group, context: &Context, say: bool) -> Result<()> {
        let _turn = self.turn(context)?;
        let mine = if say { YES } else { NO };
        self.pass(group, context, mine, None)
    }

    /// One thread of this process at a time, from its arrival until all peers have come.
    #[inline]
    fn turn<'a>(&self, context: &'a Context) -> Result<Held<'a>> {
        sync::hold(&context.passed.turn, self.oversubscribed(), || {
            self.check(context.here, u64::MAX)
        })
    }

    #[inline]
    fn pass(
        &self,
        group: &Group,
        context: &Context,
        mine: u64,
        pieces: Option<usize>,
    ) -> Result<()> {
        let passed = &context.passed;
        let round = passed.round() + 1;
        // After a failure for this reason the caller may go on to another call, which must not
        // speak in the round that its peers still wait for.
        self.check_departed(context.here, round)?;
        let nodes = group.nodes.len() as u32;
        let by_flags = nodes == 1 && group.here == 2 && !self.oversubscribed();
        let stand = Stand {
            of_two: by_flags.then_some(group.rank),
            first: group.is_first,
            here: group.here,
            nodes,
        };
        let meeting = Meeting {
            exchange: self,
            group,
            context,
            round,
            pieces,
        };
        if barrier::meet(&meeting, stand, mine, passed)? {
            Ok(())
        } else {
            Err(Error::Disagree)
        }
    }

    /// Every rank's blob on a topic, by team rank. Collective over the group.
    ///
    /// # Errors
    /// On all ranks where one has more than [`MAX_PART`] bytes; as [`barrier`](Self::barrier), where
    /// ranks gather on different topics or come to a barrier.
    pub(crate) fn all_gather(
        &self,
        group: &Group,
        context: &Context,
        topic: Topic,
        blob: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        let _turn = self.turn(context)?;
        let mine = Part {
            topic: topic as u32,
            len: u32::try_from(blob.len()).unwrap_or(u32::MAX),
        };
        // A blob that is too long is seen by its length, everywhere alike.
        let blob = if blob.len() > MAX_PART { &[] } else { blob };
        let mut parts = vec![Vec::new(); group.ranks.len()];
        let (mut from, mut longest) = (0, 0);
        loop {
            let slots = Slots {
                context: context.here,
                round: context.passed.round() + 1,
            };
            let rest = &blob[from.min(blob.len())..];
            let piece = &rest[..rest.len().min(MAX_PIECE)];
            self.control
                .put_piece(slots.of(group.rank), mine, piece)
                .map_err(node_error("publishing a part"))?;
            self.pass(group, context, YES, Some(from))?;
            for (rank, part) in (0..).zip(&mut parts) {
                let (told, piece) = self
                    .control
                    .piece(slots.of(rank), from)
                    .map_err(node_error("reading a part"))?;
                if told.topic != mine.topic {
                    return Err(Error::Disagree);
                }
                if from == 0 {
                    longest = longest.max(told.len as usize);
                    *part = piece;
                } else {
                    part.extend(piece);
                }
            }
            from += MAX_PIECE;
            if from >= longest {
                return Ok(parts);
            }
        }
    }

    /// What stands in a slot: its first word, then the piece in whole words.
    fn slot_bytes(&self, slot: Slot, from: usize) -> Vec<u8> {
        // Of one that is too long the length alone travels, and is refused everywhere.
        let (part, piece) = self
            .control
            .piece(slot, from)
            .unwrap_or((TOO_LONG, Vec::new()));
        let mut bytes = part.to_word().to_ne_bytes().to_vec();
        bytes.extend(piece);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

/// No part is as long.
const TOO_LONG: Part = Part {
    topic: 0,
    len: u32::MAX,
};

/// The slots of one round of a gather.
#[derive(Clone, Copy)]
struct Slots {
    context: u32,
    round: u64,
}

impl Slots {
    fn of(self, rank: u32) -> Slot {
        Slot {
            context: self.context,
            rank,
            parity: (self.round & 1) as u32,
        }
    }
}

impl Meeting<'_> {
    #[inline]
    fn place(&self, line: Line) -> usize {
        let id = self.context.here;
        match line {
            Line::Flag(which) => control::flag(id, which),
            Line::Arrive => control::arrive(id),
            Line::Generation => control::generation(id),
            Line::Inter(step) => control::inter(id, step),
        }
    }

    fn slots(&self) -> Slots {
        Slots {
            context: self.context.here,
            round: self.round,
        }
    }

    /// The queue to the first rank of the node so far from this one, and its context there.
    fn node(&self, distance: u32) -> Result<(&Posted, u32)> {
        let nodes = self.group.nodes.len();
        let node = (self.group.home as usize + distance as usize) % nodes;
        let first = self.group.ranks[self.group.nodes[node][0] as usize];
        match self.exchange.remote(first) {
            Some(Route::Posted(posted)) => Ok((posted, self.context.ids[node])),
            _ => Err(Error::PeerLost {
                rank: first,
                detail: "its synchronisation words cannot be reached".into(),
            }),
        }
    }

    /// The pieces of all nodes by the node services: before ranks of other nodes can be reached.
    fn relay(&self, from: usize) -> Result<()> {
        let client = &self.exchange.client;
        let slots = self.slots();
        for &rank in &self.group.nodes[self.group.home as usize] {
            let bytes = self.exchange.slot_bytes(slots.of(rank), from);
            client
                .gather_part(self.round, self.group.ranks[rank as usize], &bytes)
                .map_err(node_error("sending a part to the other nodes"))?;
        }
        let parts = client
            .gather_collect(self.round)
            .map_err(node_error("collecting the parts of the other nodes"))?;
        for (rank, bytes) in parts {
            let (word, piece) = match bytes.split_first_chunk() {
                Some((word, piece)) => (Part::from_word(u64::from_ne_bytes(*word)), piece),
                None => (TOO_LONG, &[][..]),
            };
            self.exchange
                .control
                .put_piece(slots.of(rank), word, piece)
                .map_err(node_error("publishing a part"))?;
        }
        Ok(())
    }

    /// Sends the pieces that this node has and the node so far from it has not.
    fn send_pieces(&self, from: usize, distance: u32) -> Result<()> {
        let (posted, there) = self.node(distance)?;
        let nodes = self.group.nodes.len();
        let behind = (distance as usize).min(nodes - distance as usize);
        let slots = self.slots();
        for back in 0..behind {
            let node = (self.group.home as usize + nodes - back) % nodes;
            for &rank in &self.group.nodes[node] {
                let bytes = self.exchange.slot_bytes(slots.of(rank), from);
                let Slot { parity, .. } = slots.of(rank);
                let slot = control::gather(self.exchange.size(), there, rank, parity);
                posted.update(slot as u64, Kind::U64, UpdateOp::Replace, &bytes, None)?;
            }
        }
        Ok(())
    }
}

impl Words for Meeting<'_> {
    type Error = Error;

    #[inline]
    fn add(&self, line: Line, n: u64) -> u64 {
        sync::settled();
        let word = self.exchange.control.word(self.place(line));
        word.fetch_add(n, Ordering::SeqCst) + n
    }

    #[inline]
    fn swap(&self, line: Line, value: u64) {
        sync::settled();
        let word = self.exchange.control.word(self.place(line));
        word.swap(value, Ordering::SeqCst);
    }

    #[inline]
    fn clear(&self, line: Line) {
        let word = self.exchange.control.word(self.place(line));
        word.store(0, Ordering::Relaxed);
    }

    #[inline]
    fn wake(&self, line: Line) {
        let word = self.exchange.control.word(self.place(line));
        sync::wake(word, self.exchange.sleepers(self.context.here));
    }

    #[inline]
    fn wait(&self, line: Line, done: impl Fn(u64) -> bool) -> Result<u64> {
        let (exchange, context) = (self.exchange, self.context.here);
        let word = exchange.control.word(self.place(line));
        exchange.wait_for(word, exchange.sleepers(context), context, self.round, done)
    }

    fn send(&self, step: u32, distance: u32, word: u64) -> Result<()> {
        if let Some(from) = self.pieces {
            self.send_pieces(from, distance)?;
        }
        let (posted, there) = self.node(distance)?;
        let place = control::inter(there, step) as u64;
        posted.update(
            place,
            Kind::U64,
            UpdateOp::Replace,
            &word.to_ne_bytes(),
            None,
        )
    }
    fn between_nodes(&self, nodes: u32, said: u64, passed: &Passed) -> Result<u64> {
        match self.pieces {
            Some(from) if nodes > 1 && !self.exchange.is_introduced() => {
                self.relay(from)?;
                Ok(said)
            }
            _ => barrier::disseminate(self, nodes, said, passed),
        }
    }
}
