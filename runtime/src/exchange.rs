//! The control plane between ranks: all-gather, barriers, synchronisation words.
//!
//! Inside a node everything is a word in the node's control segment, changed by CPU atomics and
//! waited for by polling, timed yields and a futex (measured-designs 3). Ranks of other nodes
//! reach the same words through the owner's helper thread; what concerns all nodes of a group goes
//! between their first ranks by dissemination. Only the very first gather, before anybody can be
//! reached, goes through the node services.
//!
//! A `Group` says who takes part, a [`Context`] which words they use on each of their nodes.

mod barrier;
mod context;
mod gather;
mod group;
mod meeting;
#[doc(hidden)]
pub mod simulate;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use windlass_mem::{SharedWord, sync};
use windlass_node::Client;
use windlass_node::control::{self, Control};

use crate::call::StatusWord;
use crate::error::{Error, Result};
use crate::guard::{self, Guard, Keeper};
use crate::progress::Health;
use crate::route::Route;
use crate::word::{Where, Word, WordName};

pub use context::Context;
pub(crate) use context::{NONE, Taken};
pub(crate) use group::{Group, Seat, seats};
pub(crate) use meeting::Topic;

/// Ranks of the job, reached through words and blobs.
pub struct Exchange {
    control: Control,
    client: Arc<Client>,
    health: Arc<Health>,
    rank: u32,
    /// Its number on its node.
    local: u32,
    pub(crate) status: StatusWord,
    /// How many nodes the job has.
    nodes: u32,
    /// Of all ranks of the job.
    pub(crate) seats: Box<[Seat]>,
    /// Control segments of ranks of other nodes, once they can be reached.
    remote: OnceLock<HashMap<u32, Route>>,
    ended: AtomicBool,
}

impl Exchange {
    /// The exchange of rank `rank` of a job whose ranks live on these nodes, `nodes` in all.
    pub fn new(
        rank: u32,
        nodes: u32,
        members: impl IntoIterator<Item = u32>,
        control: Control,
        client: Arc<Client>,
        health: Arc<Health>,
    ) -> Self {
        let seats = seats(members);
        let local = seats.get(rank as usize).map_or(0, |seat| seat.local);
        health.note_in(control.clone(), local);
        Exchange {
            status: StatusWord::new(control.shared_word(control::status(local))),
            control,
            client,
            health,
            rank,
            local,
            nodes,
            seats,
            remote: OnceLock::new(),
            ended: AtomicBool::new(false),
        }
    }

    /// Ranks of the job.
    fn size(&self) -> u32 {
        self.seats.len() as u32
    }

    /// Once known: how to reach the words of ranks of other nodes.
    pub(crate) fn introduce(&self, remote: HashMap<u32, Route>) {
        let _ = self.remote.set(remote);
    }

    fn is_introduced(&self) -> bool {
        self.remote.get().is_some()
    }

    /// This rank's part of the job is over: what it leaves from now on, nobody waits for.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The node's control segment.
    pub fn control(&self) -> &Control {
        &self.control
    }

    #[inline]
    pub(crate) fn oversubscribed(&self) -> bool {
        self.health.oversubscribed()
    }

    #[inline]
    fn sleepers(&self, context: u32) -> &AtomicU64 {
        self.control.word(control::sleepers(context))
    }

    /// The value that `done` accepted.
    #[inline]
    pub(crate) fn wait_for(
        &self,
        word: &AtomicU64,
        sleepers: &AtomicU64,
        context: u32,
        round: u64,
        done: impl Fn(u64) -> bool,
    ) -> Result<u64> {
        let seen = Cell::new(0);
        let look = || {
            seen.set(word.load(Ordering::SeqCst));
            done(seen.get())
        };
        if self.polled(look) {
            return Ok(seen.get());
        }
        let oversubscribed = self.oversubscribed();
        sync::wait(word, sleepers, oversubscribed, done, || {
            self.check(context, round)
        })
    }

    /// The polling part of a wait. With several nodes it serves peers meanwhile: what is waited for
    /// may have to come through this process's own helper. `true` if it is `done`: else sleep.
    #[inline]
    pub(crate) fn polled(&self, done: impl Fn() -> bool) -> bool {
        self.nodes > 1 && self.health.drive_until(done)
    }

    /// Ends every wait that cannot succeed any more: `round` is the one that is waited for. A rank
    /// that departed after it has done its part of it, so the others only have to be waited for.
    pub(crate) fn check(&self, context: u32, round: u64) -> Result<()> {
        guard::check(&self.control, &self.health)?;
        self.check_departed(context, round)
    }

    /// [`check`](Self::check) for a caller that waits for no round of the barrier.
    pub(crate) fn check_context(&self, context: &Context) -> Result<()> {
        self.check(context.here, u64::MAX)
    }

    fn remote(&self, rank: u32) -> Option<&Route> {
        self.remote.get()?.get(&rank)
    }

    /// A word of a window; its ranks are the group's. Inlined whole, so that a word of this node is
    /// an address and nothing more.
    ///
    /// # Errors
    /// [`Error::PeerLost`] where the words of that rank's node cannot be reached.
    #[inline(always)]
    pub(crate) fn word(
        &self,
        group: &Group,
        context: &Context,
        name: WordName,
    ) -> Result<Word<'_>> {
        let place = match self.offset_here(group, context, name) {
            Some(offset) => Where::Here(self.control.word(offset)),
            None => self.place_there(group, context, name)?,
        };
        Ok(Word {
            exchange: self,
            context: context.here,
            place,
        })
    }

    #[cold]
    fn place_there(&self, group: &Group, context: &Context, name: WordName) -> Result<Where<'_>> {
        let rank = name.rank() as usize;
        let seat = group.seats.get(rank);
        let job_rank = group.ranks.get(rank).copied().unwrap_or(u32::MAX);
        match (seat, self.remote(job_rank)) {
            (Some(seat), Some(route)) => {
                let offset = name.offset(context.ids[seat.node as usize], seat.local);
                Ok(Where::There(route, offset as u64))
            }
            _ => Err(Error::PeerLost {
                rank: job_rank,
                detail: "its synchronisation words cannot be reached".into(),
            }),
        }
    }

    /// Where a word lies in this node's own segment, if it does.
    #[inline(always)]
    fn offset_here(&self, group: &Group, context: &Context, name: WordName) -> Option<usize> {
        let seat = group.seats.get(name.rank() as usize)?;
        (seat.node == group.home).then(|| name.offset(context.here, seat.local))
    }

    /// The guard of a rank of this node.
    pub(crate) fn guard(&self, group: &Group, context: &Context, rank: u32) -> Option<Guard<'_>> {
        let seat = group.seats.get(rank as usize)?;
        let here = seat.node == group.home;
        here.then(|| Guard::new(&self.control, &self.health, context.here, seat.local))
    }

    /// The guards of this rank's own parts.
    pub(crate) fn keeper(&self) -> Keeper {
        Keeper::new(self.control.clone(), Arc::clone(&self.health), self.local)
    }

    /// A word that lies in this node's own segment.
    pub(crate) fn word_here(
        &self,
        group: &Group,
        context: &Context,
        name: WordName,
    ) -> Option<SharedWord> {
        let offset = self.offset_here(group, context, name)?;
        Some(self.control.shared_word(offset))
    }
}
