//! Post, start, complete and wait: access epochs between groups of ranks.
//!
//! # Words
//! Every rank has, in the control segment of its node,
//! - one *posted* bit per rank of the window: turned over by a target that exposes its part to this
//!   rank, so that this rank only reads it. One bit is enough to number the rounds of a pair: a
//!   target posts again only after its wait, that comes after this rank's complete, and that after
//!   the start which saw the bit turned;
//! - one *completed* counter, which only grows: each origin adds one when it has completed its
//!   access. A wait knows the value it waits for, because each exposure adds the size of its
//!   group, and nobody completes an exposure that is not there yet.
//!
//! # Calls
//! | call | does |
//! | --- | --- |
//! | post(G) | turns this rank's bit at every origin of G; waits for nobody |
//! | start(G) | waits until the bit of every target of G is turned |
//! | complete | completes the operations at every target, then adds one to its counter |
//! | wait | waits until the counter has reached what the exposures so far make due |
//! | test | looks at the counter |
//!
//! A round between two ranks so costs the two hops that it must (measured-designs 4).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use windlass_runtime as runtime;
use windlass_runtime::{Exposure, POSTED_BITS, WordName};

use crate::core::{Core, Status};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::state::{Call, State};
use crate::world::Rank;

/// The words as the algorithm uses them. Every change is a sequentially consistent atomic.
pub trait Words {
    /// A lost peer, say.
    type Error;
    /// Turns this rank's posted bit at `origin` and wakes it.
    fn turn_posted(&self, origin: u32) -> Result<(), Self::Error>;
    /// Returns once the bit of `target` here is not as it was last taken.
    fn wait_posted(&self, target: u32) -> Result<(), Self::Error>;
    /// Takes that bit as it is then.
    fn take_posted(&self, target: u32);
    /// Adds one to the counter of `target` and wakes it.
    fn add_completed(&self, target: u32) -> Result<(), Self::Error>;
    /// The counter here.
    fn completed(&self) -> Result<u64, Self::Error>;
    /// Returns once `done(counter here)`.
    fn wait_completed(&self, done: impl Fn(u64) -> bool) -> Result<(), Self::Error>;
}

pub(crate) fn post<W: Words>(
    words: &W,
    origins: impl IntoIterator<Item = u32>,
) -> Result<(), W::Error> {
    origins
        .into_iter()
        .try_for_each(|origin| words.turn_posted(origin))
}

/// All posts are there before the first is taken: a start that fails has taken none.
pub(crate) fn start<W: Words>(
    words: &W,
    targets: impl IntoIterator<Item = u32> + Clone,
) -> Result<(), W::Error> {
    let mut awaited = targets.clone().into_iter();
    awaited.try_for_each(|target| words.wait_posted(target))?;
    targets
        .into_iter()
        .for_each(|target| words.take_posted(target));
    Ok(())
}

/// Has the counter reached what is due? Both may have wrapped.
pub(crate) fn reached(counter: u64, due: u64) -> bool {
    counter.wrapping_sub(due) as i64 >= 0
}

/// What this process has under way on one window.
pub(crate) struct Rounds {
    /// The bits of all ranks as the last start saw them.
    seen: Box<[AtomicBool]>,
    /// What the counter reaches when all exposures so far are over.
    due: AtomicU64,
}

impl Rounds {
    /// Of a new window of so many ranks, whose words are 0.
    pub(crate) fn new(size: usize) -> Rounds {
        Rounds {
            seen: (0..size).map(|_| false.into()).collect(),
            due: AtomicU64::new(0),
        }
    }
}

/// The words of a window.
struct Window<'a> {
    exposure: &'a Exposure,
    seen: &'a [AtomicBool],
    me: u32,
}

impl Words for Window<'_> {
    type Error = runtime::Error;

    #[inline]
    fn turn_posted(&self, origin: u32) -> runtime::Result<()> {
        let word = self.exposure.word(WordName::Posted(origin, self.me))?;
        word.turn(1 << (self.me % POSTED_BITS))?;
        word.wake(&self.exposure.word(WordName::PscwSleepers(origin))?);
        Ok(())
    }

    #[inline]
    fn wait_posted(&self, target: u32) -> runtime::Result<()> {
        let sleepers = self.exposure.word(WordName::PscwSleepers(self.me))?;
        let word = self.exposure.word(WordName::Posted(self.me, target))?;
        let seen = self.seen[target as usize].load(Ordering::Relaxed);
        word.wait(&sleepers, |bits| {
            (bits >> (target % POSTED_BITS) & 1 == 1) != seen
        })?;
        Ok(())
    }

    #[inline]
    fn take_posted(&self, target: u32) {
        // Only this process's starts look at it.
        let seen = &self.seen[target as usize];
        seen.store(!seen.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    #[inline]
    fn add_completed(&self, target: u32) -> runtime::Result<()> {
        let word = self.exposure.word(WordName::Completed(target))?;
        word.add(1)?;
        word.wake(&self.exposure.word(WordName::PscwSleepers(target))?);
        Ok(())
    }

    fn completed(&self) -> runtime::Result<u64> {
        self.exposure.word(WordName::Completed(self.me))?.load()
    }

    #[inline]
    fn wait_completed(&self, done: impl Fn(u64) -> bool) -> runtime::Result<()> {
        let sleepers = self.exposure.word(WordName::PscwSleepers(self.me))?;
        let word = self.exposure.word(WordName::Completed(self.me))?;
        word.wait(&sleepers, done)?;
        Ok(())
    }
}

impl Core {
    fn pscw(&self) -> Window<'_> {
        Window {
            exposure: self.exposure(),
            seen: &self.rounds.seen,
            me: self.rank().0,
        }
    }

    /// The group in ranks of the window.
    #[track_caller]
    fn within<'a>(
        &'a self,
        name: &'static str,
        group: &'a Group,
    ) -> Result<impl Iterator<Item = Rank> + Clone + 'a> {
        let all = self.world.all();
        let there = move |rank| group.translate(rank, all);
        match group.ranks().find(|&rank| there(rank).is_none()) {
            None => Ok(group.ranks().filter_map(there)),
            Some(rank) => Err(Error::Group {
                rank: rank.0,
                size: group.size(),
                why: "is not in the window's group",
                at: Box::new(self.site(name)),
            }),
        }
    }

    #[track_caller]
    pub(crate) fn post(&self, name: &'static str, group: &Group, check: bool) -> Result<()> {
        let before = match self.epochs.claim_post(self.rank()) {
            Ok(before) => before,
            Err(state) => return Err(self.wrong_epoch(name, Call::Post, state)),
        };
        let posted = self.expose(name, group, check);
        match posted {
            Ok(()) => self.epochs.posted(),
            Err(_) => self.epochs.set_exposed(before),
        }
        posted
    }

    /// A post that is claimed.
    #[track_caller]
    fn expose(&self, name: &'static str, group: &Group, check: bool) -> Result<()> {
        let origins = self.within(name, group)?;
        self.present(name)?;
        // Only this process reads it, in the wait that follows.
        let due = self.rounds.due.load(Ordering::Relaxed);
        let with = due.wrapping_add(group.size().into());
        self.rounds.due.store(with, Ordering::Relaxed);
        self.enter(Status::Post);
        // By assertion (`MPI_MODE_NOCHECK`) nobody looks for the bit, so it is not turned.
        let told = match check {
            true => post(&self.pscw(), origins.map(|rank| rank.0)),
            false => Ok(()),
        };
        self.enter(Status::Compute);
        if told.is_err() {
            // Some origins may have been told, and cannot be told otherwise: none waits in vain.
            self.depart();
            self.rounds.due.store(due, Ordering::Relaxed);
        }
        self.done(name, told)
    }

    #[track_caller]
    pub(crate) fn start(&self, name: &'static str, group: &Group, check: bool) -> Result<()> {
        let before = match self.epochs.claim_start() {
            Ok(before) => before,
            Err(state) => return Err(self.wrong_epoch(name, Call::Start, state)),
        };
        let begun = self.begin(name, group, check);
        match begun {
            Ok(targets) => {
                self.epochs.started(targets);
                Ok(())
            }
            Err(error) => {
                self.epochs.unclaim_start(before);
                Err(error)
            }
        }
    }

    /// A start that is claimed: waits for the posts.
    #[inline]
    #[track_caller]
    fn begin<'a>(
        &'a self,
        name: &'static str,
        group: &'a Group,
        check: bool,
    ) -> Result<impl Iterator<Item = Rank> + 'a> {
        let targets = self.within(name, group)?;
        self.present(name)?;
        self.enter(Status::Start);
        let begun = match check {
            true => start(&self.pscw(), targets.clone().map(|rank| rank.0)),
            false => Ok(()),
        };
        self.enter(Status::Compute);
        self.done(name, begun)?;
        Ok(targets)
    }

    /// Completes the operations and tells the targets, in any case.
    #[track_caller]
    pub(crate) fn complete(&self, name: &'static str) -> Result<()> {
        self.allowed(name, Call::Complete, None)?;
        self.enter(Status::Complete);
        let words = self.pscw();
        let (mut failed, mut lost) = (None, None);
        // All targets are told, also when one cannot be.
        self.epochs.complete(|target| {
            if self.reach[target.0 as usize].is_posted
                && let Err(error) = self.drain(name, target)
            {
                failed.get_or_insert(error);
            }
            if let Err(error) = words.add_completed(target.0) {
                lost.get_or_insert(error);
            }
        });
        self.enter(Status::Compute);
        match (lost, failed) {
            (Some(error), _) => Err(self.job_error(name, error)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }

    #[track_caller]
    pub(crate) fn wait(&self, name: &'static str) -> Result<()> {
        let next = self.allowed(name, Call::Wait, None)?;
        let due = self.rounds.due.load(Ordering::Relaxed);
        self.enter(Status::Wait);
        let done = self.pscw().wait_completed(|counter| reached(counter, due));
        self.enter(Status::Compute);
        self.epochs.set_exposed(next.exposed);
        self.done(name, done)
    }

    /// `true`: the exposure is over.
    #[track_caller]
    pub(crate) fn test(&self, name: &'static str) -> Result<bool> {
        let next: State = self.allowed(name, Call::Test, None)?;
        let due = self.rounds.due.load(Ordering::Relaxed);
        let counter = self.pscw().completed();
        let over = match counter {
            Ok(counter) if reached(counter, due) => Ok(true),
            // A loop of tests must end when a peer is lost.
            Ok(_) => self.exposure().check().map(|()| false),
            Err(error) => Err(error),
        };
        if !matches!(over, Ok(false)) {
            self.epochs.set_exposed(next.exposed);
        }
        self.done(name, over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use loom::sync::{Arc, Condvar, Mutex};
    use std::convert::Infallible;

    /// One rank's words; waits sleep until woken, so that a lost wake-up is a deadlock.
    struct Words1 {
        posted: AtomicU64,
        /// Its own, shared only to look whether rounds get mixed up.
        seen: AtomicU64,
        completed: AtomicU64,
        bell: (Mutex<()>, Condvar),
    }

    impl Words1 {
        fn wake(&self) {
            drop(self.bell.0.lock().unwrap());
            self.bell.1.notify_all();
        }

        fn wait(&self, done: impl Fn() -> bool) {
            let mut held = self.bell.0.lock().unwrap();
            while !done() {
                held = self.bell.1.wait(held).unwrap();
            }
        }
    }

    struct Model<'a> {
        ranks: &'a [Words1],
        me: u32,
    }

    impl Words for Model<'_> {
        type Error = Infallible;
        fn turn_posted(&self, origin: u32) -> Result<(), Infallible> {
            let origin = &self.ranks[origin as usize];
            let seen = origin.seen.load(SeqCst);
            let old = origin.posted.fetch_xor(1 << self.me, SeqCst);
            let unseen = (old ^ seen) & (1 << self.me);
            assert_eq!(unseen, 0, "a round was posted over another");
            origin.wake();
            Ok(())
        }
        fn wait_posted(&self, target: u32) -> Result<(), Infallible> {
            let mine = &self.ranks[self.me as usize];
            let seen = mine.seen.load(SeqCst);
            mine.wait(|| (mine.posted.load(SeqCst) ^ seen) & (1 << target) != 0);
            Ok(())
        }
        fn take_posted(&self, target: u32) {
            let mine = &self.ranks[self.me as usize];
            mine.seen.fetch_xor(1 << target, SeqCst);
        }
        fn add_completed(&self, target: u32) -> Result<(), Infallible> {
            self.ranks[target as usize].completed.fetch_add(1, SeqCst);
            self.ranks[target as usize].wake();
            Ok(())
        }
        fn completed(&self) -> Result<u64, Infallible> {
            Ok(self.ranks[self.me as usize].completed.load(SeqCst))
        }
        fn wait_completed(&self, done: impl Fn(u64) -> bool) -> Result<(), Infallible> {
            let mine = &self.ranks[self.me as usize];
            mine.wait(|| done(mine.completed.load(SeqCst)));
            Ok(())
        }
    }

    /// A step of a rank's program. Group of a post: its origins; of a start: its targets.
    #[derive(Clone, Copy)]
    enum Do {
        Post(&'static [u32]),
        /// Touches the memory of every target.
        Access(&'static [u32]),
        Wait,
    }
    use Do::{Access, Post, Wait};

    /// Every interleaving (within the bound) of one program per rank. Loom refuses an access to a
    /// rank's memory that is concurrent with another: the owner's before the post and after the
    /// wait, the origins' between.
    fn every_interleaving(programs: &'static [&'static [Do]], preemptions: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let ranks: Vec<Words1> = programs
                .iter()
                .map(|_| Words1 {
                    posted: AtomicU64::new(0),
                    seen: AtomicU64::new(0),
                    completed: AtomicU64::new(0),
                    bell: (Mutex::new(()), Condvar::new()),
                })
                .collect();
            let memory: Vec<UnsafeCell<u32>> =
                programs.iter().map(|_| UnsafeCell::new(0)).collect();
            let shared = Arc::new((ranks, memory));
            let run = move |me: usize, shared: &(Vec<Words1>, Vec<UnsafeCell<u32>>)| {
                let words = Model {
                    ranks: &shared.0,
                    me: me as u32,
                };
                let mut due = 0;
                for step in programs[me] {
                    match step {
                        Post(origins) => {
                            shared.1[me].with_mut(|_| ());
                            due += origins.len() as u64;
                            post(&words, origins.iter().copied()).unwrap();
                        }
                        Access(targets) => {
                            start(&words, targets.iter().copied()).unwrap();
                            for &target in *targets {
                                // Several origins may write one exposure: reads stand for that.
                                shared.1[target as usize].with(|_| ());
                            }
                            for &target in *targets {
                                words.add_completed(target).unwrap();
                            }
                        }
                        Wait => {
                            words
                                .wait_completed(|counter| reached(counter, due))
                                .unwrap();
                            assert_eq!(words.completed().unwrap(), due, "a complete too many");
                            shared.1[me].with_mut(|_| ());
                        }
                    }
                }
            };
            let others: Vec<_> = (1..programs.len())
                .map(|me| {
                    let shared = Arc::clone(&shared);
                    loom::thread::spawn(move || run(me, &shared))
                })
                .collect();
            run(0, &shared);
            for other in others {
                other.join().unwrap();
            }
            let all_seen = |rank: &Words1| rank.posted.load(SeqCst) == rank.seen.load(SeqCst);
            assert!(shared.0.iter().all(all_seen));
        });
    }

    #[test]
    fn a_pair_in_two_rounds() {
        every_interleaving(
            &[
                &[Access(&[1]), Access(&[1])],
                &[Post(&[0]), Wait, Post(&[0]), Wait],
            ],
            3,
        );
    }

    #[test]
    fn both_ways_at_once() {
        every_interleaving(
            &[
                &[Post(&[1]), Access(&[1]), Wait],
                &[Post(&[0]), Access(&[0]), Wait],
            ],
            3,
        );
    }

    #[test]
    fn two_origins_of_different_speed() {
        every_interleaving(
            &[
                &[Post(&[1, 2]), Wait, Post(&[1]), Wait],
                &[Access(&[0]), Access(&[0])],
                &[Access(&[0])],
            ],
            2,
        );
    }

    #[test]
    fn one_origin_between_two_targets_in_another_order() {
        every_interleaving(
            &[
                &[Access(&[1, 2]), Access(&[2]), Access(&[1])],
                &[Post(&[0]), Wait, Post(&[0]), Wait],
                &[Post(&[0]), Wait, Post(&[0]), Wait],
            ],
            2,
        );
    }

    #[test]
    fn oneself_and_nobody() {
        every_interleaving(&[&[Post(&[0]), Access(&[0]), Wait, Post(&[]), Wait]], 2);
    }

    #[test]
    fn a_counter_that_wraps_is_understood() {
        assert!(reached(5, 5) && reached(6, 5) && !reached(4, 5));
        assert!(reached(2, u64::MAX) && !reached(u64::MAX, 2));
    }
}
