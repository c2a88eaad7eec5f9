//! Barriers and all-gathers of a group, on the words and areas of a job.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use windlass_mem::sync::{self, Held};
use windlass_node::control;

use super::Exchange;
use super::barrier::{self, Line, NO, Passed, Words, YES};
use super::context::Context;
use super::gather::{self, Area};
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
    /// In a gather: it carries the pieces that begin at this byte of their parts.
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
        self.meeting(group, context, None).pass(mine)
    }

    /// One thread of this process at a time, from its arrival until all peers have come.
    #[inline]
    fn turn<'a>(&self, context: &'a Context) -> Result<Held<'a>> {
        sync::hold(&context.passed.turn, self.oversubscribed(), || {
            self.check(context.here, u64::MAX)
        })
    }

    /// The next barrier.
    #[inline]
    fn meeting<'a>(
        &'a self,
        group: &'a Group,
        context: &'a Context,
        pieces: Option<usize>,
    ) -> Meeting<'a> {
        Meeting {
            exchange: self,
            group,
            context,
            round: context.passed.round() + 1,
            pieces,
        }
    }

    /// Every rank's blob on a topic, by team rank. Collective over the group.
    ///
    /// # Errors
    /// On all ranks where one has more than [`MAX_PART`](control::MAX_PART) bytes; as [`barrier`](Self::barrier), where
    /// ranks gather on different topics or come to a barrier.
    pub(crate) fn all_gather(
        &self,
        group: &Group,
        context: &Context,
        topic: Topic,
        blob: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        let _turn = self.turn(context)?;
        let next = |from| self.meeting(group, context, Some(from));
        gather::all_gather(group, topic as u32, blob, next)
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

    /// See [`barrier`](Exchange::barrier).
    #[inline]
    fn pass(&self, mine: u64) -> Result<()> {
        let Meeting {
            exchange, group, ..
        } = self;
        // After a failure for this reason the caller may go on to another call, which must not
        // speak in the round that its peers still wait for.
        exchange.check_departed(self.context.here, self.round)?;
        let stand = group.stand(!exchange.oversubscribed());
        if barrier::meet(self, stand, mine, &self.context.passed)? {
            Ok(())
        } else {
            Err(Error::Disagree)
        }
    }

    fn parity(&self) -> u32 {
        (self.round & 1) as u32
    }

    fn area(&self) -> control::Area {
        control::Area {
            context: self.context.here,
            parity: self.parity(),
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

    /// The records of all nodes by the node services: before ranks of other nodes can be reached.
    fn relay(&self, from: usize) -> Result<()> {
        let client = &self.exchange.client;
        gather::walk(self, self.group, from, 1, |rank, _, record| {
            client
                .gather_part(self.round, self.group.ranks[rank as usize], record)
                .map_err(node_error("sending a part to the other nodes"))
        })?;
        let parts = client
            .gather_collect(self.round)
            .map_err(node_error("collecting the parts of the other nodes"))?;
        let parts: HashMap<u32, Vec<u8>> = parts.into_iter().collect();
        gather::deliver(self, self.group, from, &parts)
    }
}

impl Area for Meeting<'_> {
    fn pass(&self) -> Result<()> {
        Meeting::pass(self, YES)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let written = self.exchange.control.write_area(self.area(), at, bytes);
        written.map_err(node_error("publishing a part"))
    }

    fn read(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        let read = self.exchange.control.read_area(self.area(), at, bytes);
        read.map_err(node_error("reading a part"))
    }

    fn carry(&self, distance: u32, at: usize, bytes: &[u8]) -> Result<()> {
        let (posted, there) = self.node(distance)?;
        let area = control::gather(self.exchange.size(), there, self.parity());
        posted.put((area + at) as u64, bytes)
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
            gather::send(self, self.group, from, distance)?;
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
