//! Put with notification: data, and a count that the target can wait for.
//!
//! # Words
//! Every rank has 64 counters, which only grow: one per id. It also has a *bell* and a count of
//! threads that sleep on it. A waiter polls the counters it waits for and in the end sleeps on the
//! bell, so that one sleep serves any set of ids.
//!
//! # Notify
//! 1. The data, by the route of any put. Where that route does not keep its order with the
//!    counter's, the data are completed first.
//! 2. The counter, by an atomic: whoever sees it sees the data.
//! 3. The bell, if somebody sleeps: a waiter announces itself, looks at the counters once more,
//!    and sleeps only while the bell is where it was. From another node the bell is always moved,
//!    because asking who sleeps would cost a round trip.
//!
//! What was seen is *taken* in this process: counters are not set back while the window lives, so
//! notifiers and waiters never write the same word.

use std::sync::atomic::{AtomicU64, Ordering};

use windlass_runtime as runtime;
use windlass_runtime::{Exposure, NOTIFY_IDS, Route, WordName};

use crate::core::{Core, Status};
use crate::element::Element;
use crate::epoch::{Epoch, Kind};
use crate::error::{Error, Result};
use crate::window::Window;
use crate::world::Rank;

/// The words as the algorithm uses them. Every change is a sequentially consistent atomic.
pub(crate) trait Words {
    type Error;
    /// Adds one to a counter of the rank that is notified.
    fn count(&self, id: u32) -> Result<(), Self::Error>;
    /// Does anybody there sleep, as far as this can be known without asking?
    fn may_sleep(&self) -> Result<bool, Self::Error>;
    /// Moves the bell there and wakes who sleeps on it.
    fn ring(&self) -> Result<(), Self::Error>;
}

fn notify<W: Words>(words: &W, id: u32) -> Result<(), W::Error> {
    words.count(id)?;
    if words.may_sleep()? {
        words.ring()
    } else {
        Ok(())
    }
}

/// What this process has taken of its notifications, by id.
pub(crate) struct Inbox {
    taken: Box<[AtomicU64]>,
}

impl Inbox {
    /// Of a new window, whose counters stand at 0. They are not looked at: a peer that has left the
    /// creation already may have moved them.
    pub(crate) fn new() -> Inbox {
        Inbox {
            taken: (0..NOTIFY_IDS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

/// The notification words of one rank.
struct To<'a> {
    exposure: &'a Exposure,
    target: u32,
}

impl Words for To<'_> {
    type Error = runtime::Error;

    fn count(&self, id: u32) -> runtime::Result<()> {
        self.exposure
            .word(WordName::Notified(self.target, id))?
            .add(1)
    }

    fn may_sleep(&self) -> runtime::Result<bool> {
        let sleepers = self.exposure.word(WordName::BellSleepers(self.target))?;
        Ok(!sleepers.is_here() || sleepers.load()? > 0)
    }

    fn ring(&self) -> runtime::Result<()> {
        let bell = self.exposure.word(WordName::Bell(self.target))?;
        bell.add(1)?;
        bell.wake(&self.exposure.word(WordName::BellSleepers(self.target))?);
        Ok(())
    }
}

impl Core {
    #[track_caller]
    pub(crate) fn check_id(&self, call: &'static str, id: u32) -> Result<()> {
        if id < NOTIFY_IDS {
            return Ok(());
        }
        Err(Error::NotifyId {
            id,
            ids: NOTIFY_IDS,
            at: Box::new(self.site(call)),
        })
    }

    /// Counts a notification of `target`, behind the data that this thread has put there.
    #[track_caller]
    pub(crate) fn notify(&self, call: &'static str, target: Rank, id: u32) -> Result<()> {
        let words = To {
            exposure: self.exposure(),
            target: target.0,
        };
        if self.dynamic.is_some() {
            // The data went to regions, by routes of their own.
            self.drain(call, target)?;
        } else if let Route::Posted(posted) = &self.reach[target.0 as usize].route {
            let counter = words.exposure.word(WordName::Notified(target.0, id));
            if !self.sent(call, target, counter)?.follows(posted) {
                self.drain(call, target)?;
            }
        }
        self.sent(call, target, notify(&words, id))
    }

    /// Notifications under `id` that have arrived and were not taken.
    fn pending(&self, id: u32) -> runtime::Result<u64> {
        let me = self.rank().0;
        let count = self.exposure().word(WordName::Notified(me, id))?.load()?;
        let taken = self.inbox.taken[id as usize].load(Ordering::Relaxed);
        Ok(count.wrapping_sub(taken))
    }

    /// Takes `count` notifications under `id` if so many are there; with `None`, all, if any.
    fn take(&self, id: u32, count: Option<u64>) -> runtime::Result<Option<u64>> {
        let taken = &self.inbox.taken[id as usize];
        loop {
            let old = taken.load(Ordering::Relaxed);
            let me = self.rank().0;
            let there = self.exposure().word(WordName::Notified(me, id))?.load()?;
            let pending = there.wrapping_sub(old);
            let take = count.unwrap_or(pending.max(1));
            if pending < take {
                return Ok(None);
            }
            let new = old.wrapping_add(take);
            // Another thread of this process may take meanwhile.
            let swapped = taken.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
            if swapped.is_ok() {
                return Ok(Some(take));
            }
        }
    }

    /// Waits until `take` answers; sleeps on the bell.
    fn await_bell<R>(
        &self,
        mut take: impl FnMut() -> runtime::Result<Option<R>>,
        ready: impl Fn() -> runtime::Result<bool>,
    ) -> runtime::Result<R> {
        let me = self.rank().0;
        let bell = self.exposure().word(WordName::Bell(me))?;
        let sleepers = self.exposure().word(WordName::BellSleepers(me))?;
        self.enter(Status::Notify);
        let taken = loop {
            match take() {
                Ok(None) => {}
                Ok(Some(taken)) => break Ok(taken),
                Err(error) => break Err(error),
            }
            // What the bell stands at does not matter; that it moves ends a sleep.
            if let Err(error) = bell.wait(&sleepers, |_| ready().unwrap_or(true)) {
                break Err(error);
            }
        };
        self.enter(Status::Compute);
        taken
    }
}

/// What a rank asks of its own notifications: by the window, or by the guard of its epoch.
macro_rules! inbox {
    ($($head:tt)*) => {
        $($head)* {
        /// Notifications under `id` that have arrived here and were not taken yet. The data of what is
        /// counted are in this rank's part: [`local`](Self::local) reads them.
        ///
        /// # Errors
        /// [`Error::NotifyId`].
        #[track_caller]
        pub fn notified(&self, id: u32) -> Result<u64> {
            self.core.check_id("notified", id)?;
            let pending = self.core.pending(id);
            self.core.done("notified", pending)
        }

        /// Takes `count` notifications under `id`, if so many have arrived. Never waits. Ends with an
        /// error, so that a loop of tests does, when a peer is lost.
        ///
        /// # Errors
        /// [`Error::NotifyId`], [`Error::Departed`], [`Error::PeerLost`].
        #[inline]
        #[track_caller]
        pub fn test_notify(&self, id: u32, count: u64) -> Result<bool> {
            self.core.check_id("test_notify", id)?;
            let taken = self
                .core
                .take(id, Some(count))
                .and_then(|taken| match taken {
                    Some(_) => Ok(true),
                    None => self.core.exposure().check().map(|()| false),
                });
            self.core.done("test_notify", taken)
        }

        /// Waits for `count` notifications under `id` and takes them. The data of
        /// [`put_notify`](Epoch::put_notify) are in this rank's part then.
        ///
        /// # Errors
        /// As [`test_notify`](Self::test_notify).
        #[inline]
        #[track_caller]
        pub fn wait_notify(&self, id: u32, count: u64) -> Result<()> {
            let core: &Core = &self.core;
            core.check_id("wait_notify", id)?;
            let taken = core.await_bell(
                || Ok(core.take(id, Some(count))?.map(drop)),
                || Ok(core.pending(id)? >= count),
            );
            core.done("wait_notify", taken)
        }

        /// Waits for a notification under any of `ids`; takes all that have arrived under the first
        /// that has some: the id, and how many.
        ///
        /// # Errors
        /// As [`test_notify`](Self::test_notify); [`Error::Count`] without ids.
        #[track_caller]
        pub fn wait_notify_any(&self, ids: &[u32]) -> Result<(u32, u64)> {
            let (core, call) = (&self.core, "wait_notify_any");
            for &id in ids {
                core.check_id(call, id)?;
            }
            if ids.is_empty() {
                return Err(core.bad_count(call, "ids", 0, 1));
            }
            let taken = core.await_bell(
                || {
                    for &id in ids {
                        if let Some(count) = core.take(id, None)? {
                            return Ok(Some((id, count)));
                        }
                    }
                    Ok(None)
                },
                || {
                    for &id in ids {
                        if core.pending(id)? > 0 {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                },
            );
            core.done(call, taken)
        }
        }
    };
}

inbox!(impl<T: Element, M: Send + 'static> Window<T, M>);
inbox!(impl<T: Element, K: Kind> Epoch<'_, T, K>);

#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU64, Ordering::SeqCst, fence};
    use loom::sync::{Arc, Condvar, Mutex};
    use std::convert::Infallible;

    /// One target's words. Sleeping is the futex's: only while the bell is where it was seen.
    struct Model {
        counters: [AtomicU64; 2],
        bell: AtomicU64,
        sleepers: AtomicU64,
        futex: (Mutex<()>, Condvar),
    }

    impl Words for Model {
        type Error = Infallible;
        fn count(&self, id: u32) -> Result<(), Infallible> {
            self.counters[id as usize].fetch_add(1, SeqCst);
            // Loom takes sequentially consistent accesses for weaker ones, but not fences.
            fence(SeqCst);
            Ok(())
        }
        fn may_sleep(&self) -> Result<bool, Infallible> {
            Ok(self.sleepers.load(SeqCst) > 0)
        }
        fn ring(&self) -> Result<(), Infallible> {
            self.bell.fetch_add(1, SeqCst);
            drop(self.futex.0.lock().unwrap());
            self.futex.1.notify_all();
            Ok(())
        }
    }

    impl Model {
        /// The steps of `sync::wait` once polling did not help.
        fn wait(&self, done: impl Fn() -> bool) {
            while !done() {
                self.sleepers.fetch_add(1, SeqCst);
                fence(SeqCst);
                let seen = self.bell.load(SeqCst);
                if !done() {
                    let held = self.futex.0.lock().unwrap();
                    if self.bell.load(SeqCst) == seen {
                        drop(self.futex.1.wait(held).unwrap());
                    }
                }
                self.sleepers.fetch_sub(1, SeqCst);
            }
        }
    }

    /// Every interleaving: `notifiers` ranks put and notify under ids 0, 1, 0, ...; the target
    /// waits for all of them. A lost wake-up is a deadlock, unseen data a race.
    fn every_interleaving(notifiers: usize, preemptions: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let words = Arc::new(Model {
                counters: [AtomicU64::new(0), AtomicU64::new(0)],
                bell: AtomicU64::new(0),
                sleepers: AtomicU64::new(0),
                futex: (Mutex::new(()), Condvar::new()),
            });
            let data: Arc<Vec<_>> = Arc::new((0..notifiers).map(|_| UnsafeCell::new(0)).collect());
            let others: Vec<_> = (0..notifiers)
                .map(|me| {
                    let (words, data) = (Arc::clone(&words), Arc::clone(&data));
                    loom::thread::spawn(move || {
                        data[me].with_mut(|_| ());
                        notify(&*words, me as u32 % 2).unwrap();
                    })
                })
                .collect();
            let seen = |id: usize| words.counters[id].load(SeqCst) as usize;
            words.wait(|| seen(0) + seen(1) == notifiers);
            data.iter().for_each(|cell| cell.with(|_| ()));
            for other in others {
                other.join().unwrap();
            }
        });
    }

    #[test]
    fn one_notifier() {
        every_interleaving(1, 4);
    }

    #[test]
    fn two_notifiers_of_different_ids() {
        every_interleaving(2, 2);
    }
}
