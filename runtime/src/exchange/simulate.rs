//! The collective algorithms of this crate over words and areas that somebody else provides: for a
//! simulation of more ranks than one machine has.
//!
//! Nothing of the algorithms is here: a [`Member`] of a team runs `barrier::meet`,
//! `gather::all_gather` and the agreements of `negotiate` and `team` over a [`Net`], as a job
//! runs them over its control segments.

use std::cell::Cell;
use std::time::Duration;

pub use super::barrier::Line;
use super::barrier::{self, NO, Passed, Words, YES};
use super::context::NONE;
use super::gather::{self, Area};
use super::group::{Group, Seat};
use super::meeting::Topic;
use crate::error::{Error, Result};
use crate::exposure::Target;
use crate::gathers::Gathers;
use crate::mechanism::{MechanismId, Reason};
use crate::negotiate::{self, Part};
use crate::team::{self, Choice};

/// The words and areas of a node, and the way to those of the others, as one rank reaches them.
/// Words change by sequentially consistent atomics.
pub trait Net {
    /// Adds; the value with `n`.
    fn add(&self, line: Line, n: u64) -> u64;
    /// Replaces a word.
    fn swap(&self, line: Line, word: u64);
    /// Back to 0, before anybody changes it again.
    fn clear(&self, line: Line);
    /// The value that `done` accepts, once a change of the word has brought it.
    fn wait(&self, line: Line, done: impl Fn(u64) -> bool) -> u64;
    /// Replaces a word of the node so far after this one.
    fn send(&self, distance: u32, line: Line, word: u64);
    /// Writes into this node's area of a parity, at a byte of it.
    fn write(&self, parity: u32, at: usize, bytes: &[u8]);
    /// Copies from there.
    fn read(&self, parity: u32, at: usize, bytes: &mut [u8]);
    /// Writes into that of the node so far after this one, before what is sent there next.
    fn carry(&self, distance: u32, parity: u32, at: usize, bytes: &[u8]);
}

/// Where all ranks of a job live.
pub struct Seats(Box<[Seat]>);

impl Seats {
    /// From their nodes, in rank order.
    pub fn new(nodes: impl IntoIterator<Item = u32>) -> Seats {
        Seats(super::group::seats(nodes))
    }
}

/// One rank of a team, and how far it is in its barriers.
pub struct Member<'a, N> {
    net: &'a N,
    seats: &'a Seats,
    group: Group,
    passed: Passed,
}

/// One barrier, as [`Meeting`](super::meeting) is one of a job.
struct Round<'a, N> {
    member: &'a Member<'a, N>,
    parity: u32,
    pieces: Option<usize>,
}

impl<'a, N: Net> Member<'a, N> {
    /// Of the team of the whole job.
    ///
    /// # Panics
    /// Where the job has no such rank.
    pub fn new(net: &'a N, seats: &'a Seats, rank: u32) -> Member<'a, N> {
        let all = (0..seats.0.len() as u32).collect();
        let group = Group::new(all, &seats.0, rank);
        Member {
            net,
            seats,
            group: group.expect("a rank of the job"),
            passed: Passed::default(),
        }
    }

    fn round(&self, pieces: Option<usize>) -> Round<'_, N> {
        Round {
            member: self,
            parity: ((self.passed.round() + 1) & 1) as u32,
            pieces,
        }
    }

    /// The barrier of a fence that an epoch follows, or not.
    ///
    /// # Errors
    /// [`Error::Disagree`].
    pub fn fence(&self, say: bool) -> Result<()> {
        self.round(None).meet(if say { YES } else { NO })
    }

    /// Everybody's bytes, by rank.
    ///
    /// # Errors
    /// [`Error::Disagree`]; bytes beyond what a part may have.
    pub fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Gathers::all_gather(self, Topic::Bytes, bytes)
    }

    /// The agreements of a window's creation. With `offers`, of memory that the others do not know
    /// yet and to which these ways lead. How many bytes the parts have together.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn create(&self, note: &[u8], extent: u64, offers: Option<&[Offer]>) -> Result<u64> {
        let part = Part {
            extent,
            segment: self.group.rank,
            offset: 0,
            offers: offers.map(<[Offer]>::to_vec),
            lent: offers.is_some(),
            context: if self.group.is_first { 1 } else { NONE },
            note: note.to_vec(),
        };
        let parts = negotiate::agree(self, Ok(part), |_, _, _| Ok(()))?;
        Ok(parts.iter().map(|part| part.extent).sum())
    }

    /// The agreements of a team of the ranks that give the same color, in their order here: how many
    /// they are.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn split(&self, color: u32) -> Result<u32> {
        let choice = Choice {
            color: color.into(),
            key: 0,
            listed: None,
        };
        let ranks = team::agree(self, Ok(Some(choice)))?.unwrap_or_default();
        let ranks: Vec<u32> = ranks
            .iter()
            .map(|&rank| self.group.ranks[rank as usize])
            .collect();
        let me = self.group.ranks[self.group.rank as usize];
        let group = Group::new(ranks, &self.seats.0, me).ok_or(Error::Disagree)?;
        let told = if group.is_first { 1 } else { NONE };
        self.all_well(Topic::Contexts, Ok(told))?;
        Ok(group.size())
    }
}

/// A way to memory, or why there is none.
pub type Offer = (MechanismId, std::result::Result<Vec<u8>, Reason>);

impl<N: Net> Gathers for Member<'_, N> {
    fn group(&self) -> &Group {
        &self.group
    }

    fn all_gather(&self, topic: Topic, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        let next = |from| self.round(Some(from));
        gather::all_gather(&self.group, topic as u32, blob, next)
    }
}

impl<N: Net> Round<'_, N> {
    fn meet(&self, mine: u64) -> Result<()> {
        let Member { group, passed, .. } = self.member;
        if barrier::meet(self, group.stand(true), mine, passed)? {
            Ok(())
        } else {
            Err(Error::Disagree)
        }
    }
}

impl<N: Net> Area for Round<'_, N> {
    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        self.member.net.write(self.parity, at, bytes);
        Ok(())
    }

    fn read(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        self.member.net.read(self.parity, at, bytes);
        Ok(())
    }

    fn carry(&self, distance: u32, at: usize, bytes: &[u8]) -> Result<()> {
        self.member.net.carry(distance, self.parity, at, bytes);
        Ok(())
    }

    fn pass(&self) -> Result<()> {
        self.meet(YES)
    }
}

impl<N: Net> Words for Round<'_, N> {
    type Error = Error;

    fn add(&self, line: Line, n: u64) -> u64 {
        self.member.net.add(line, n)
    }

    fn swap(&self, line: Line, word: u64) {
        self.member.net.swap(line, word);
    }

    fn clear(&self, line: Line) {
        self.member.net.clear(line);
    }

    /// A change wakes by itself.
    fn wake(&self, _: Line) {}

    fn wait(&self, line: Line, done: impl Fn(u64) -> bool) -> Result<u64> {
        Ok(self.member.net.wait(line, done))
    }

    fn send(&self, step: u32, distance: u32, word: u64) -> Result<()> {
        if let Some(from) = self.pieces {
            gather::send(self, &self.member.group, from, distance)?;
        }
        self.member.net.send(distance, Line::Inter(step), word);
        Ok(())
    }
}

/// The value of a word of another node that `done` accepts, asked for as a job asks.
pub fn ask_again(
    load: impl Fn() -> u64,
    done: impl Fn(u64) -> bool,
    sleep: impl Fn(Duration),
) -> u64 {
    let last = Cell::new(0);
    let load = || {
        last.set(load());
        Ok(last.get())
    };
    let sleep = |pause| {
        sleep(pause);
        Ok(())
    };
    crate::word::ask_again(load, done, sleep).unwrap_or(last.get())
}

/// Bytes that a rank keeps of each target of a window, beside the routes themselves.
pub const fn target_bytes(note: usize) -> usize {
    size_of::<Target>() + note
}
