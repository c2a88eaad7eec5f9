//! Contexts: the blocks of words of teams and windows, one on each of their nodes.
//!
//! A context is taken on each node by the first rank there and told to the others in a gather that
//! creation needs anyhow; until then it can be given back. It ends in one of two ways. A window
//! that all have freed: each rank of a node puts its own words back and leaves, and the last frees
//! the block for the next taker. A team is left by whoever drops it, without waiting: the block of
//! a node is free when *all* its ranks, wherever they are, have left, because only then no word of
//! theirs can still be on its way. A window that one rank drops is never free again: origins may
//! be at its words.

use std::sync::atomic::Ordering;

use windlass_node::control::{self, Control};

use super::Exchange;
use super::barrier::Passed;
use super::group::Group;
use crate::error::{Error, Result};
use crate::route::Route;
use crate::update::UpdateOp;

/// What a rank tells that takes no context: it is not the first of its node.
pub(crate) const NONE: u32 = u32::MAX;

/// A departed word holds the rank + 1 below this bit, the barriers it had passed above.
const DEPARTED_ROUND: u32 = 16;

/// Synchronisation state of one team or window in this process.
pub struct Context {
    /// On each node of the group.
    pub(super) ids: Box<[u32]>,
    /// On this node.
    pub(super) here: u32,
    pub(super) passed: Passed,
}

impl Context {
    pub(super) fn new(ids: Box<[u32]>, group: &Group) -> Context {
        Context {
            here: ids[group.home as usize],
            ids,
            passed: Passed::default(),
        }
    }

    /// The job's own, which nobody takes.
    pub(crate) fn of_world(group: &Group) -> Context {
        Context::new(group.nodes.iter().map(|_| control::WORLD).collect(), group)
    }

    /// On the node of a rank of the group.
    pub(crate) fn id(&self, group: &Group, rank: u32) -> u32 {
        let seat = group.seats.get(rank as usize);
        seat.map_or(NONE, |seat| self.ids[seat.node as usize])
    }

    /// Barriers passed; 0 while one is under way.
    fn passed(&self) -> u64 {
        match self.passed.turn.load(Ordering::Acquire) {
            0 => self.passed.round(),
            _ => 0,
        }
    }
}

/// A context taken on this node that nobody uses yet: given back on drop.
pub(crate) struct Taken<'a> {
    control: &'a Control,
    id: u32,
}

impl Taken<'_> {
    /// What to tell the others.
    pub(crate) fn id(taken: &Option<Self>) -> u32 {
        taken.as_ref().map_or(NONE, |taken| taken.id)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.control.give_back(self.id);
    }
}

impl Exchange {
    /// A context for `leavers` on this node, if this rank takes it for its node.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub(crate) fn take(&self, group: &Group, leavers: u32) -> Result<Option<Taken<'_>>> {
        if !group.is_first {
            return Ok(None);
        }
        let id = self.control.take(leavers).ok_or(Error::Full {
            what: "windows and teams of a node",
            limit: control::CONTEXTS as usize - 1,
        })?;
        Ok(Some(Taken {
            control: &self.control,
            id,
        }))
    }

    /// The context of `group` that `told` by rank says was taken on each node. All see the same, so
    /// all succeed or fail alike.
    ///
    /// # Errors
    /// [`Error::Peer`] for a rank that tells rubbish.
    pub(crate) fn open(
        &self,
        group: &Group,
        taken: Option<Taken<'_>>,
        told: impl Fn(u32) -> u32,
    ) -> Result<Context> {
        let ids = group.nodes.iter().map(|ranks| {
            let id = told(ranks[0]);
            if id != control::WORLD && id < control::CONTEXTS {
                return Ok(id);
            }
            Err(Error::Peer {
                rank: group.ranks[ranks[0] as usize],
                message: format!("it tells of a context {id}"),
            })
        });
        let ids = ids.collect::<Result<Box<[u32]>>>()?;
        // From here on the context ends by being left.
        std::mem::forget(taken);
        Ok(Context::new(ids, group))
    }

    /// Gives this rank's part of a window's context back after its last barrier succeeded.
    pub(crate) fn close(&self, group: &Group, context: &Context) {
        let local = group.seats[group.rank as usize].local;
        self.control.clear_local(context.here, local, group.size());
        self.control.leave(context.here);
    }

    /// [`depart`](Self::depart) from `what`, a window or the whole job, which is to be ended otherwise.
    pub(crate) fn desert(&self, group: &Group, context: &Context, what: &str) {
        // Before anybody can see it: who is told of it may be gone before this rank is.
        self.health.left(what);
        self.depart(group, context);
    }

    /// Tells all nodes that this rank takes no further part in the context. Never waits.
    pub(crate) fn depart(&self, group: &Group, context: &Context) {
        // A barrier of another thread that holds the lock now is one this rank departs from.
        let me = context.passed() << DEPARTED_ROUND | (u64::from(self.rank) + 1);
        let word = self.control.word(control::departed(context.here));
        let first = word.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst);
        // Who leaves because another left passes on that one's name.
        let first = first.map_or_else(|earlier| earlier, |_| me);
        self.tell_all(group, context, control::departed, UpdateOp::Replace, first);
    }

    /// This rank departs from a team's context and uses none of its words any more. Never waits.
    pub(crate) fn leave(&self, group: &Group, context: &Context) {
        self.depart(group, context);
        self.tell_all(
            group,
            context,
            control::inside,
            UpdateOp::Sum,
            1u64.wrapping_neg(),
        );
        self.control.leave(context.here);
    }

    /// Changes one word of the context on every other node of the group, after what was told there
    /// before.
    fn tell_all(
        &self,
        group: &Group,
        context: &Context,
        place: impl Fn(u32) -> usize,
        op: UpdateOp,
        operand: u64,
    ) {
        if self.has_ended() {
            return; // nobody waits for anybody any more
        }
        for (node, first) in group.elsewhere() {
            if let Some(Route::Posted(posted)) = self.remote(first) {
                let word = place(context.ids[node]);
                // A peer that cannot be told any more learns of it from the job's end.
                let _ = posted.tell(word as u64, op, operand);
            }
        }
    }

    /// [`Error::Departed`] if a rank left before it did its part of `round`.
    #[inline]
    pub(super) fn check_departed(&self, context: u32, round: u64) -> Result<()> {
        let departed = self.control.word(control::departed(context));
        let departed = departed.load(Ordering::SeqCst);
        if departed == 0 || departed >> DEPARTED_ROUND >= round {
            return Ok(());
        }
        let rank = (departed & ((1 << DEPARTED_ROUND) - 1)) as u32;
        let rank = rank.wrapping_sub(1);
        self.health.told(rank);
        Err(Error::Departed { rank })
    }
}
