//! Barriers, and the agreement they carry.
//!
//! With its arrival every rank says one thing, for example whether an epoch follows; a barrier in
//! which not all say the same fails on every rank. So ranks that call different things cannot
//! end up with different views of a window: no rank reads its memory as its own while another
//! believes it may write there.
//!
//! Two ranks of one node: each writes a line of its own and polls the other's (measured-designs
//! 3). More: a counter and a generation. More nodes: dissemination between the first ranks of the
//! nodes in between, where every message carries what was said so far.
//!
//! A word with a single writer holds round, what was said with it, and what was said with the
//! round before: its writer may be one round ahead of its reader, never two.

use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use windlass_mem::sync;
use windlass_node::control;

use super::Exchange;
use crate::error::{Error, Result};
use crate::route::Route;
use crate::update::{Kind, UpdateOp};

/// Bits of a word that count rounds.
const ROUND: u64 = (1 << SAID) - 1;
/// From here on: what was said in that round, as a set.
const SAID: u32 = 60;
/// From here on: the set of the round before.
const SAID_BEFORE: u32 = 62;

/// The set of what was said: yes, no, or both.
const YES: u64 = 1;
const NO: u64 = 2;
const EITHER: u64 = YES | NO;

/// In the counter: arrivals of the round below this bit, how many of them said yes above.
const YES_COUNT: u32 = 32;

/// Synchronisation state of one window in this process.
pub struct Context {
    pub(super) id: u32,
    passed: Mutex<Passed>,
}

/// What this rank has behind it.
struct Passed {
    /// Barriers.
    round: u64,
    /// What its flag said in the last.
    flag: u64,
    /// What its message of each step between nodes said in the last.
    steps: [u64; control::INTER_ROUNDS as usize],
}

impl Context {
    pub(super) fn new(id: u32, round: u64) -> Context {
        Context {
            id,
            passed: Mutex::new(Passed {
                round: round & ROUND,
                flag: 0,
                steps: [0; control::INTER_ROUNDS as usize],
            }),
        }
    }

    /// Barriers passed; 0 while one is under way.
    pub(super) fn passed(&self) -> u64 {
        self.passed.try_lock().map_or(0, |passed| passed.round)
    }
}

/// What was said in `round`, by a word whose writer is in that round or in the next.
fn heard(word: u64, round: u64) -> u64 {
    let shift = if word & ROUND == round {
        SAID
    } else {
        SAID_BEFORE
    };
    word >> shift & EITHER
}

/// What `count` ranks said, by their counter.
fn tally(counter: u64, count: u64) -> u64 {
    let yes = counter >> YES_COUNT;
    (if yes > 0 { YES } else { 0 }) | (if yes < count { NO } else { 0 })
}

impl Exchange {
    /// A barrier of the window's ranks (all of the job), in which all say the same.
    ///
    /// # Errors
    /// [`Error::Disagree`] on all ranks when they do not; [`Error::Departed`] when a rank dropped
    /// the window; a lost peer.
    pub fn barrier(&self, context: &Context, say: bool) -> Result<()> {
        let mut passed = context.passed.lock();
        // After a failure for this reason the caller may go on to another call, which must not
        // speak in the round that its peers still wait for.
        self.check_departed(context.id, passed.round + 1)?;
        let mine = if say { YES } else { NO };
        let said = if self.by_flags() {
            self.meet_by_flags(context.id, mine, &mut passed)?
        } else {
            self.meet_by_counter(context.id, mine, &mut passed)?
        };
        passed.round += 1;
        if said == mine {
            Ok(())
        } else {
            Err(Error::Disagree)
        }
    }

    pub(super) fn by_flags(&self) -> bool {
        self.nodes == 1 && self.locals.len() == 2 && !self.health.oversubscribed()
    }

    fn meet_by_flags(&self, id: u32, mine: u64, passed: &mut Passed) -> Result<u64> {
        let round = passed.round + 1;
        let word = round | mine << SAID | passed.flag << SAID_BEFORE;
        passed.flag = mine;
        self.release(control::flag(id, self.local), word, id);
        sync::settled();
        let theirs = control::flag(id, 1 - self.local);
        let word = self.wait_until(theirs, id, round, |now| now & ROUND >= round)?;
        Ok(mine | heard(word, round))
    }

    fn meet_by_counter(&self, id: u32, mine: u64, passed: &mut Passed) -> Result<u64> {
        let round = passed.round + 1;
        let count = self.locals.len() as u64;
        let arrive = control::arrive(id);
        let generation = control::generation(id);
        let mut counter = self.bump(arrive, 1 | (mine & YES) << YES_COUNT, id);
        let all_here = |counter: u64| u64::from(counter as u32) == count;
        let releases = if self.nodes > 1 {
            self.local == 0
        } else {
            all_here(counter)
        };
        if !releases {
            let word = self.wait_until(generation, id, round, |now| now & ROUND >= round)?;
            return Ok(word >> SAID & EITHER);
        }
        if self.nodes > 1 {
            counter = self.wait_until(arrive, id, round, all_here)?;
        }
        let said = tally(counter, count);
        // Nobody arrives for the next round before this one is released.
        self.control.word(arrive).store(0, Ordering::Relaxed);
        let said = self.between_nodes(id, round, said, passed)?;
        self.release(generation, round | said << SAID, id);
        Ok(said)
    }

    /// Dissemination between the first ranks of the nodes: after step r each knows what 2^(r+1)
    /// nodes said.
    fn between_nodes(
        &self,
        id: u32,
        round: u64,
        mut said: u64,
        passed: &mut Passed,
    ) -> Result<u64> {
        let mut distance = 1;
        for (step, before) in (0..).zip(&mut passed.steps) {
            if distance >= self.nodes {
                break;
            }
            let inter = control::inter(id, step);
            let next = (self.node + distance) % self.nodes;
            let leader = self.leaders[next as usize];
            let Some(Route::Posted(posted)) = self.remote(leader) else {
                return Err(Error::PeerLost {
                    rank: leader,
                    detail: "its synchronisation words cannot be reached".into(),
                });
            };
            let word = (round | said << SAID | *before << SAID_BEFORE).to_ne_bytes();
            *before = said;
            // One writer per word, and one queue keeps the order of its updates.
            posted.update(inter as u64, Kind::U64, UpdateOp::Replace, &word, None)?;
            let word = self.wait_until(inter, id, round, |now| now & ROUND >= round)?;
            said |= heard(word, round);
            distance *= 2;
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_heard_by_its_round() {
        let word = 7 | YES << SAID | NO << SAID_BEFORE;
        assert_eq!((heard(word, 7), heard(word, 6)), (YES, NO));
        let last = ROUND | EITHER << SAID | YES << SAID_BEFORE;
        assert_eq!((heard(last, ROUND), heard(last, ROUND - 1)), (EITHER, YES));
    }

    #[test]
    fn a_tally_is_the_set_of_what_was_said() {
        assert_eq!(tally(3, 3), NO);
        assert_eq!(tally(3 | 3 << YES_COUNT, 3), YES);
        assert_eq!(tally(3 | 1 << YES_COUNT, 3), EITHER);
        assert_eq!(tally(1 | 1 << YES_COUNT, 1), YES);
    }
}
