//! Barriers, and the agreement they carry: an algorithm over a few words.
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
//!
//! The algorithm reaches its words through [`Words`] alone, so that the same code runs on the
//! control segments of a job and under a model checker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use windlass_node::control;

/// Bits of a word that count rounds.
const ROUND: u64 = (1 << SAID) - 1;
/// From here on: what was said in that round, as a set.
const SAID: u32 = 60;
/// From here on: the set of the round before.
const SAID_BEFORE: u32 = 62;

/// The set of what was said: yes, no, or both.
pub(super) const YES: u64 = 1;
pub(super) const NO: u64 = 2;
const EITHER: u64 = YES | NO;

/// In the counter: arrivals of the round below this bit, how many of them said yes above.
const YES_COUNT: u32 = 32;

/// A word of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// Of two: the flag of the first or of the second.
    Flag(u32),
    /// How many have arrived.
    Arrive,
    /// The round that is released.
    Generation,
    /// What has come from another node, by step of the dissemination.
    Inter(u32),
}

/// The words of a barrier on one node. Every change is a sequentially consistent atomic.
pub(super) trait Words {
    type Error;
    /// The value with `n`.
    fn add(&self, line: Line, n: u64) -> u64;
    fn swap(&self, line: Line, word: u64);
    /// Back to 0, before anybody changes it again.
    fn clear(&self, line: Line);
    /// Wakes those who wait for a word that was just changed.
    fn wake(&self, line: Line);
    /// The value that `done` accepts; may sleep until [`wake`](Self::wake) of the same word.
    fn wait(&self, line: Line, done: impl Fn(u64) -> bool) -> Result<u64, Self::Error>;
    /// Replaces the word of `step` on the node `distance` after this one, and wakes there. What was
    /// sent to a node before is there before.
    fn send(&self, step: u32, distance: u32, word: u64) -> Result<(), Self::Error>;
    /// From what this node said in the round after `passed` to what all said.
    fn between_nodes(&self, nodes: u32, said: u64, passed: &Passed) -> Result<u64, Self::Error>
    where
        Self: Sized,
    {
        disseminate(self, nodes, said, passed)
    }
}

/// Where a rank stands in its barrier.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stand {
    /// Of exactly two on one node that poll: which one.
    pub(super) of_two: Option<u32>,
    /// Acts for its node.
    pub(super) first: bool,
    /// Ranks on this node.
    pub(super) here: u32,
    /// Nodes.
    pub(super) nodes: u32,
}

/// What this rank has behind it.
///
/// Atomics, because threads of this process take turns on them, by the guard word: its unlock is a
/// plain store, which makes a barrier a tenth faster than one under a mutex.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Whose turn it is among the threads of this process.
    pub(super) turn: AtomicU64,
    /// Barriers.
    round: AtomicU64,
    /// What its flag said in the last.
    flag: AtomicU64,
    /// What its message of each step between nodes said in the last.
    steps: [AtomicU64; control::INTER_ROUNDS as usize],
}

impl Passed {
    /// Barriers passed.
    #[inline]
    pub(super) fn round(&self) -> u64 {
        self.round.load(Relaxed)
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

fn reached(round: u64) -> impl Fn(u64) -> bool {
    move |word| word & ROUND >= round
}

/// Says `mine` in the next round and waits until all have said something; did they say the same?
/// After an error the round is not passed, and nobody may take part any more.
#[inline]
pub(super) fn meet<W: Words>(
    words: &W,
    stand: Stand,
    mine: u64,
    passed: &Passed,
) -> Result<bool, W::Error> {
    let said = match stand.of_two {
        Some(which) => meet_by_flags(words, which, mine, passed)?,
        None => meet_by_counter(words, stand, mine, passed)?,
    };
    passed.round.store(passed.round() + 1, Relaxed);
    Ok(said == mine)
}

#[inline]
fn meet_by_flags<W: Words>(
    words: &W,
    which: u32,
    mine: u64,
    passed: &Passed,
) -> Result<u64, W::Error> {
    let round = passed.round() + 1;
    let (flag, theirs) = (Line::Flag(which), Line::Flag(1 - which));
    let before = passed.flag.load(Relaxed);
    words.swap(flag, round | mine << SAID | before << SAID_BEFORE);
    words.wake(flag);
    passed.flag.store(mine, Relaxed);
    let word = words.wait(theirs, reached(round))?;
    Ok(mine | heard(word, round))
}

fn meet_by_counter<W: Words>(
    words: &W,
    stand: Stand,
    mine: u64,
    passed: &Passed,
) -> Result<u64, W::Error> {
    let round = passed.round() + 1;
    let count = u64::from(stand.here);
    let mut counter = words.add(Line::Arrive, 1 | (mine & YES) << YES_COUNT);
    let all_here = |counter: u64| u64::from(counter as u32) == count;
    let releases = if stand.nodes > 1 {
        words.wake(Line::Arrive);
        stand.first
    } else {
        all_here(counter)
    };
    if !releases {
        let word = words.wait(Line::Generation, reached(round))?;
        return Ok(word >> SAID & EITHER);
    }
    if stand.nodes > 1 {
        counter = words.wait(Line::Arrive, all_here)?;
    }
    let said = tally(counter, count);
    // Nobody arrives for the next round before this one is released.
    words.clear(Line::Arrive);
    let said = words.between_nodes(stand.nodes, said, passed)?;
    words.swap(Line::Generation, round | said << SAID);
    words.wake(Line::Generation);
    Ok(said)
}

/// Dissemination between the first ranks of the nodes: after step r each knows what 2^(r+1)
/// nodes said.
pub(super) fn disseminate<W: Words>(
    words: &W,
    nodes: u32,
    mut said: u64,
    passed: &Passed,
) -> Result<u64, W::Error> {
    let round = passed.round() + 1;
    let mut distance = 1;
    for (step, before) in (0..).zip(&passed.steps) {
        if distance >= nodes {
            break;
        }
        // One writer per word, and one queue keeps the order of its updates.
        words.send(
            step,
            distance,
            round | said << SAID | before.load(Relaxed) << SAID_BEFORE,
        )?;
        before.store(said, Relaxed);
        let word = words.wait(Line::Inter(step), reached(round))?;
        said |= heard(word, round);
        distance *= 2;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU64, Ordering::SeqCst, fence};
    use loom::sync::{Arc, Condvar, Mutex};
    use std::convert::Infallible;
    use windlass_mem::sync::{Sleepable, sleep_unless, wake_sleepers};

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

    /// Steps of the dissemination that models have.
    const STEPS: usize = 2;

    /// A word with sleepers that sleep *until woken*, so that a lost wake-up is a deadlock that the
    /// model checker reports.
    struct Slept<'a> {
        word: &'a AtomicU64,
        sleepers: &'a AtomicU64,
        bed: &'a (Mutex<()>, Condvar),
    }

    // A locked instruction of a cpu is a fence as well; a model checker has to be told.
    impl Sleepable for Slept<'_> {
        fn word(&self) -> u64 {
            self.word.load(SeqCst)
        }
        fn sleepers(&self) -> u64 {
            self.sleepers.load(SeqCst)
        }
        fn announce(&self, n: i64) {
            self.sleepers.fetch_add(n.cast_unsigned(), SeqCst);
            fence(SeqCst);
        }
        fn sleep(&self, value: u64) {
            let (lock, bell) = self.bed;
            let held = lock.lock().unwrap();
            if self.word() as u32 == value as u32 {
                drop(bell.wait(held).unwrap());
            }
        }
        fn wake_all(&self) {
            let (lock, bell) = self.bed;
            drop(lock.lock().unwrap());
            bell.notify_all();
        }
    }

    /// The words of one node.
    struct Node {
        words: [AtomicU64; 4 + STEPS],
        beds: [(Mutex<()>, Condvar); 4 + STEPS],
        sleepers: AtomicU64,
    }

    impl Node {
        fn new() -> Node {
            Node {
                words: [(); 4 + STEPS].map(|()| AtomicU64::new(0)),
                beds: [(); 4 + STEPS].map(|()| (Mutex::new(()), Condvar::new())),
                sleepers: AtomicU64::new(0),
            }
        }

        fn at(&self, line: Line) -> Slept<'_> {
            let index = match line {
                Line::Flag(which) => which as usize,
                Line::Arrive => 2,
                Line::Generation => 3,
                Line::Inter(step) => 4 + step as usize,
            };
            Slept {
                word: &self.words[index],
                sleepers: &self.sleepers,
                bed: &self.beds[index],
            }
        }
    }

    /// The words as a rank of node `home` reaches them.
    struct Reach<'a> {
        nodes: &'a [Node],
        home: usize,
    }

    impl Words for Reach<'_> {
        type Error = Infallible;
        fn add(&self, line: Line, n: u64) -> u64 {
            let with = self.nodes[self.home].at(line).word.fetch_add(n, SeqCst) + n;
            fence(SeqCst);
            with
        }
        fn swap(&self, line: Line, word: u64) {
            self.nodes[self.home].at(line).word.swap(word, SeqCst);
            fence(SeqCst);
        }
        fn clear(&self, line: Line) {
            let word = self.nodes[self.home].at(line).word;
            word.store(0, loom::sync::atomic::Ordering::Relaxed);
        }
        fn wake(&self, line: Line) {
            wake_sleepers(&self.nodes[self.home].at(line));
        }
        fn wait(&self, line: Line, done: impl Fn(u64) -> bool) -> Result<u64, Infallible> {
            let slept = self.nodes[self.home].at(line);
            loop {
                let word = slept.word();
                if done(word) {
                    return Ok(word);
                }
                sleep_unless(&slept, &done);
            }
        }
        fn send(&self, step: u32, distance: u32, word: u64) -> Result<(), Infallible> {
            let there = (self.home + distance as usize) % self.nodes.len();
            let there = self.nodes[there].at(Line::Inter(step));
            there.word.swap(word, SeqCst);
            // The helper does not know who sleeps.
            there.wake_all();
            Ok(())
        }
    }

    /// A job: how many ranks on each node, and what each says in each round.
    #[derive(Clone, Copy)]
    struct Job {
        ranks: &'static [u32],
        flags: bool,
        says: &'static [&'static [u64]],
    }

    impl Job {
        /// One rank's rounds. It writes its part before each, in the slot of the round's parity, and
        /// reads all parts behind it: a model checker refuses accesses that are not ordered.
        fn rank(
            self,
            me: usize,
            home: usize,
            first: bool,
            nodes: &[Node],
            slots: &[[UnsafeCell<()>; 2]],
        ) {
            let words = Reach { nodes, home };
            let stand = Stand {
                of_two: self.flags.then_some(me as u32),
                first,
                here: self.ranks[home],
                nodes: nodes.len() as u32,
            };
            let passed = Passed::default();
            for (round, says) in self.says.iter().enumerate() {
                slots[me][round % 2].with_mut(|_| ());
                let agreed = meet(&words, stand, says[me], &passed).unwrap();
                assert_eq!(agreed, says.iter().all(|&said| said == says[0]));
                for slot in slots {
                    slot[round % 2].with(|_| ());
                }
            }
            assert_eq!(passed.round(), self.says.len() as u64);
        }

        /// Every interleaving within loom's bound.
        fn check(self, preemptions: usize) {
            let mut model = loom::model::Builder::new();
            model.preemption_bound = Some(preemptions);
            model.check(move || {
                let nodes: Vec<Node> = self.ranks.iter().map(|_| Node::new()).collect();
                let size = self.ranks.iter().sum::<u32>();
                let slot = || [UnsafeCell::new(()), UnsafeCell::new(())];
                let slots: Vec<_> = (0..size).map(|_| slot()).collect();
                let all = Arc::new((nodes, slots));
                let homes = self.ranks.iter().enumerate();
                let seats =
                    homes.flat_map(|(home, &count)| (0..count).map(move |n| (home, n == 0)));
                let mut seats = seats.enumerate().collect::<Vec<_>>().into_iter();
                let (me, (home, first)) = seats.next().unwrap();
                let others: Vec<_> = seats
                    .map(|(me, (home, first))| {
                        let all = Arc::clone(&all);
                        loom::thread::spawn(move || self.rank(me, home, first, &all.0, &all.1))
                    })
                    .collect();
                self.rank(me, home, first, &all.0, &all.1);
                for other in others {
                    other.join().unwrap();
                }
                for node in &all.0 {
                    assert_eq!(node.sleepers.load(SeqCst), 0);
                }
            });
        }
    }

    #[test]
    fn two_by_flags() {
        let says: &[&[u64]] = &[&[YES, YES], &[YES, NO], &[NO, NO]];
        let job = Job {
            ranks: &[2],
            flags: true,
            says,
        };
        job.check(3);
    }

    #[test]
    fn two_by_counter() {
        let says: &[&[u64]] = &[&[YES, NO], &[YES, YES], &[NO, NO]];
        let job = Job {
            ranks: &[2],
            flags: false,
            says,
        };
        job.check(3);
    }

    #[test]
    fn three_by_counter() {
        let says: &[&[u64]] = &[&[YES, YES, YES], &[NO, NO, YES]];
        let job = Job {
            ranks: &[3],
            flags: false,
            says,
        };
        job.check(2);
    }

    #[test]
    fn two_nodes() {
        let says: &[&[u64]] = &[&[YES, NO], &[NO, NO], &[YES, YES]];
        let job = Job {
            ranks: &[1, 1],
            flags: false,
            says,
        };
        job.check(2);
    }

    #[test]
    fn two_nodes_of_which_one_has_two_ranks() {
        let says: &[&[u64]] = &[&[YES, YES, NO], &[NO, NO, NO]];
        let job = Job {
            ranks: &[2, 1],
            flags: false,
            says,
        };
        job.check(1);
    }

    #[test]
    fn three_nodes() {
        let says: &[&[u64]] = &[&[YES, YES, YES], &[NO, YES, NO]];
        let job = Job {
            ranks: &[1, 1, 1],
            flags: false,
            says,
        };
        job.check(1);
    }
}
