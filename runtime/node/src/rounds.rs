//! The parts of gather rounds that a node's service keeps until its ranks have collected them.
//!
//! Pure: no socket, no clock, no lock. Rounds count upwards by one. A node that is a round ahead
//! has collected the round before, which needed this node's parts; so at most two rounds are
//! ever open at one node, and a third is refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::MAX_PART;

/// Rounds that may be open at once.
const OPEN: u64 = 2;

/// A world rank and what it gave.
pub(crate) type Part = (u32, Vec<u8>);

#[derive(Debug, Default)]
struct Round {
    /// From other nodes, in order of arrival.
    parts: Vec<Part>,
    /// All ranks that gave theirs, of this node too.
    given: BTreeSet<u32>,
    /// The caller has all parts; the round stays open until this node's own are all given.
    collected: bool,
}

/// What a collect finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// Parts beyond those the caller has, and whether these are the last.
    Parts { parts: Vec<Part>, complete: bool },
    /// Nothing new yet.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Rounds {
    /// World ranks of other nodes: whose parts make a round complete.
    foreign: BTreeSet<u32>,
    /// Ranks of this node.
    locals: usize,
    /// All rounds below are over.
    done: u64,
    open: BTreeMap<u64, Round>,
}

impl Rounds {
    pub(crate) fn new(foreign: BTreeSet<u32>, locals: usize) -> Self {
        Self {
            foreign,
            locals,
            done: 0,
            open: BTreeMap::new(),
        }
    }

    /// Takes a part of a rank of this node (not stored, only noted) or of another.
    pub(crate) fn add(&mut self, round: u64, rank: u32, part: Vec<u8>) -> Result<(), String> {
        if part.len() > MAX_PART {
            return Err(format!(
                "a part of {} bytes: at most {MAX_PART}",
                part.len()
            ));
        }
        if self.foreign.is_empty() {
            return Ok(()); // nobody to send it to, nothing to wait for
        }
        self.check(round)?;
        let foreign = self.foreign.contains(&rank);
        let entry = self.open.entry(round).or_default();
        if !entry.given.insert(rank) {
            return Err(format!("rank {rank} gave its part of round {round} twice"));
        }
        if foreign {
            entry.parts.push((rank, part));
        }
        self.end(round);
        Ok(())
    }

    fn check(&self, round: u64) -> Result<(), String> {
        if round < self.done {
            return Err(format!("round {round} is over: {} is the next", self.done));
        }
        // Rounds may begin at any number: what counts is how many are open beside this one.
        let others = self.open.keys().filter(|&&open| open != round).count() as u64;
        if others >= OPEN {
            return Err(format!("round {round} would be the third that is open"));
        }
        Ok(())
    }

    /// Parts beyond the `have` first, as many as `max_bytes` hold (one at least). The caller that
    /// gets the last ones has collected the round. A job of one node has nothing to collect.
    pub(crate) fn collect(
        &mut self,
        round: u64,
        have: usize,
        max_bytes: usize,
    ) -> Result<Collected, String> {
        if self.foreign.is_empty() {
            return Ok(Collected::Parts {
                parts: Vec::new(),
                complete: true,
            });
        }
        self.check(round)?;
        let Some(entry) = self.open.get_mut(&round) else {
            return Ok(Collected::Nothing);
        };
        if entry.collected {
            return Err(format!("round {round} was collected already"));
        }
        let mut bytes = 0;
        let mut parts: Vec<Part> = Vec::new();
        for part in entry.parts.iter().skip(have) {
            bytes += part.1.len() + 16; // 16: bound on the rank's and the length's encoding
            if bytes > max_bytes && !parts.is_empty() {
                break;
            }
            parts.push(part.clone());
        }
        let complete = have.saturating_add(parts.len()) >= self.foreign.len();
        if parts.is_empty() && !complete {
            return Ok(Collected::Nothing);
        }
        entry.collected = complete;
        self.end(round);
        Ok(Collected::Parts { parts, complete })
    }

    /// Forgets a round once it was collected here and this node has given all it owes.
    fn end(&mut self, round: u64) {
        let all = self.foreign.len() + self.locals;
        if self
            .open
            .get(&round)
            .is_some_and(|entry| entry.collected && entry.given.len() == all)
        {
            self.done = self.done.max(round.saturating_add(1));
            self.open = self.open.split_off(&self.done);
        }
    }

    /// The first rank of `gone` whose part of a round is missing.
    pub(crate) fn missing(&self, round: u64, gone: &BTreeSet<u32>) -> Option<u32> {
        let given = self.open.get(&round).map(|entry| &entry.given);
        gone.iter()
            .copied()
            .find(|rank| self.foreign.contains(rank) && given.is_none_or(|g| !g.contains(rank)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds() -> Rounds {
        Rounds::new([2, 3].into(), 1)
    }

    #[test]
    fn a_round_is_complete_with_the_other_nodes_parts() {
        let mut r = rounds();
        r.add(0, 0, vec![9]).unwrap();
        assert_eq!(r.collect(0, 0, 1000), Ok(Collected::Nothing));
        r.add(0, 3, vec![3]).unwrap();
        let first = Collected::Parts {
            parts: vec![(3, vec![3])],
            complete: false,
        };
        assert_eq!(r.collect(0, 0, 1000), Ok(first));
        assert_eq!(r.collect(0, 1, 1000), Ok(Collected::Nothing));
        assert_eq!(r.missing(0, &[2, 3].into()), Some(2));
        r.add(0, 2, vec![]).unwrap();
        assert_eq!(r.missing(0, &[0, 2, 3].into()), None);
        let last = Collected::Parts {
            parts: vec![(2, vec![])],
            complete: true,
        };
        assert_eq!(r.collect(0, 1, 1000), Ok(last));
        assert!(r.collect(0, 0, 1000).unwrap_err().contains("over"));
        assert!(r.add(0, 2, vec![]).unwrap_err().contains("over"));
    }

    #[test]
    fn replies_are_bounded_but_always_move_on() {
        let mut r = rounds();
        r.add(5, 2, vec![0; 100]).unwrap();
        r.add(5, 3, vec![0; 100]).unwrap();
        for (have, complete) in [(0, false), (1, true)] {
            let Ok(Collected::Parts {
                parts,
                complete: now,
            }) = r.collect(5, have, 10)
            else {
                panic!("no parts");
            };
            assert_eq!((parts.len(), now), (1, complete));
        }
        // Collected before this node's own part was given: not over yet.
        assert!(
            r.collect(5, 2, 10)
                .unwrap_err()
                .contains("collected already")
        );
        r.add(5, 0, vec![]).unwrap();
        assert!(r.add(5, 0, vec![]).unwrap_err().contains("over"));
    }

    #[test]
    fn two_rounds_are_open_at_most() {
        let mut r = rounds();
        r.add(0, 2, vec![]).unwrap();
        r.add(1, 2, vec![]).unwrap();
        r.add(0, 0, vec![]).unwrap();
        assert!(r.add(2, 2, vec![]).unwrap_err().contains("third"));
        assert!(r.add(1, 2, vec![]).unwrap_err().contains("twice"));
        assert!(
            r.add(1, 3, vec![0; MAX_PART + 1])
                .unwrap_err()
                .contains("at most")
        );
        r.add(0, 3, vec![]).unwrap();
        assert!(matches!(
            r.collect(0, 0, 1000),
            Ok(Collected::Parts { complete: true, .. })
        ));
        r.add(2, 2, vec![]).unwrap();
    }

    #[test]
    fn one_node_collects_nothing_at_once() {
        let mut r = Rounds::new(BTreeSet::new(), 1);
        r.add(0, 0, vec![1]).unwrap();
        let nothing = Collected::Parts {
            parts: vec![],
            complete: true,
        };
        assert_eq!(r.collect(0, 0, 10), Ok(nothing));
        r.add(1, 0, vec![1]).unwrap();
    }
}
