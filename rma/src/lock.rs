//! The lock of one window part: an algorithm over three words.
//!
//! It reaches the words through [`Words`] alone, so that the same code runs on words of this
//! node, on words of another node (through the owner's helper), and under a model checker.
//!
//! # The word
//! | bits | meaning |
//! | --- | --- |
//! | 0-15 | shared holders, counted |
//! | 16-35 | exclusive holder: rank + 1 |
//! | 61 | the head of the queue waits for a change of this word: unlock wakes it |
//! | 62 | queue in use: newcomers go to it |
//!
//! Counts and not a bit per holder (measured-designs 4), because ranks of other nodes lock too:
//! a holder that dies takes the whole job with it (the launcher ends it), so nobody has to
//! repair a word.
//!
//! # Fast path
//! Shared: one locked add; held unless the old value shows an exclusive holder or a queue.
//! Exclusive: one compare-exchange of 0. Unlock: one locked subtract, whose old value says
//! whether to wake. Uncontended, a lock costs what these instructions cost.
//!
//! # Slow path
//! A ticket queue: `ticket` counts arrivals, `serving` the one whose turn it is, the *head*. The
//! head alone sets and clears bits 61 and 62 and waits for the word; then it takes the lock and
//! passes the turn on *before* the lock is given back. So readers in a row enter together, and
//! an exclusive request is not starved: while it is head, newcomers see bit 62 and queue behind
//! it. Nobody overtakes except in the moment between clearing bit 62 and the next arrival.
//! When ranks outnumber cpus, strict order costs a switch at each handover: then the fast path
//! is tried a few times before queueing (measured-designs 4, fairness has a price).

/// How a window part is locked (mpi-rma 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// Together with other shared holders. `MPI_LOCK_SHARED`
    Shared,
    /// Alone. `MPI_LOCK_EXCLUSIVE`
    Exclusive,
}

/// The words of one lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Lock,
    Ticket,
    Serving,
}

/// The lock word itself, for the fast path. Every change is a sequentially consistent atomic.
pub(crate) trait LockWord {
    type Error;
    fn fetch_add(&self, value: u64) -> Result<u64, Self::Error>;
    fn fetch_sub(&self, value: u64) -> Result<u64, Self::Error>;
    fn compare_exchange(&self, old: u64, new: u64) -> Result<Result<u64, u64>, Self::Error>;
}

/// All words of one lock, for the slow path. Changes as for [`LockWord`].
pub(crate) trait Words {
    type Error;
    /// The lock word.
    type Lock: LockWord<Error = Self::Error>;
    fn lock(&self) -> &Self::Lock;
    fn load(&self, name: Name) -> Result<u64, Self::Error>;
    fn fetch_add(&self, name: Name, value: u64) -> Result<u64, Self::Error>;
    fn fetch_or(&self, name: Name, value: u64) -> Result<u64, Self::Error>;
    fn fetch_and(&self, name: Name, value: u64) -> Result<u64, Self::Error>;
    /// Returns once `done(value)`; may sleep until [`wake`](Self::wake) of the same word.
    fn wait(&self, name: Name, done: impl Fn(u64) -> bool) -> Result<(), Self::Error>;
    /// Wakes those who wait for the word.
    fn wake(&self, name: Name) -> Result<(), Self::Error>;
    /// Lets the holder get on between two tries.
    fn pause(&self, attempt: u32);
}

const SHARED: u64 = 0xffff;
const OWNER_SHIFT: u32 = 16;
const EXCLUSIVE: u64 = 0xf_ffff << OWNER_SHIFT;
const SLEEPER: u64 = 1 << 61;
const QUEUE: u64 = 1 << 62;

/// Tries before queueing when ranks outnumber cpus.
pub(crate) const EAGER_TRIES: u32 = 16;

/// What the holder adds to the word and takes off again. `me` is the rank.
const fn share(kind: LockKind, me: u32) -> u64 {
    match kind {
        LockKind::Shared => 1,
        LockKind::Exclusive => (me as u64 + 1) << OWNER_SHIFT,
    }
}

/// Could `kind` be held beside what the word shows?
const fn is_free(kind: LockKind, word: u64) -> bool {
    match kind {
        LockKind::Shared => word & EXCLUSIVE == 0,
        LockKind::Exclusive => word & (EXCLUSIVE | SHARED) == 0,
    }
}

/// What a try on the lock word came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The lock is held now.
    Held,
    /// It is not; with `wake`, whoever waits for the word must be woken.
    Busy { wake: bool },
}

/// Takes the lock if that needs no waiting.
#[inline(always)]
pub(crate) fn try_word<W: LockWord>(word: &W, kind: LockKind, me: u32) -> Result<Tried, W::Error> {
    match kind {
        LockKind::Shared => {
            let old = word.fetch_add(share(kind, me))?;
            if old & (EXCLUSIVE | QUEUE) == 0 {
                return Ok(Tried::Held);
            }
            // Taken off again; the head may have seen the word not free because of it.
            let wake = release_word(word, kind, me)?;
            Ok(Tried::Busy { wake })
        }
        LockKind::Exclusive => match word.compare_exchange(0, share(kind, me))? {
            Ok(_) => Ok(Tried::Held),
            Err(_) => Ok(Tried::Busy { wake: false }),
        },
    }
}

/// Gives the lock back. `true`: whoever waits for the word must be woken.
#[inline(always)]
pub(crate) fn release_word<W: LockWord>(
    word: &W,
    kind: LockKind,
    me: u32,
) -> Result<bool, W::Error> {
    Ok(word.fetch_sub(share(kind, me))? & SLEEPER != 0)
}

/// [`try_word`] with the waking done.
pub(crate) fn try_acquire<W: Words>(words: &W, kind: LockKind, me: u32) -> Result<bool, W::Error> {
    let tried = try_word(words.lock(), kind, me)?;
    if tried == (Tried::Busy { wake: true }) {
        words.wake(Name::Lock)?;
    }
    Ok(tried == Tried::Held)
}

/// [`release_word`] with the waking done.
pub(crate) fn release<W: Words>(words: &W, kind: LockKind, me: u32) -> Result<(), W::Error> {
    if release_word(words.lock(), kind, me)? {
        words.wake(Name::Lock)?;
    }
    Ok(())
}

/// Takes the lock after [`try_word`] has failed: waits for conflicting holders and for those who
/// came first.
#[cold]
pub(crate) fn acquire_slowly<W: Words>(
    words: &W,
    kind: LockKind,
    me: u32,
    eager: u32,
) -> Result<(), W::Error> {
    for attempt in 0..eager {
        words.pause(attempt);
        let word = words.load(Name::Lock)?;
        if is_free(kind, word) && word & QUEUE == 0 && try_acquire(words, kind, me)? {
            return Ok(());
        }
    }
    let ticket = words.fetch_add(Name::Ticket, 1)?;
    words.wait(Name::Serving, |serving| serving == ticket)?;
    take_as_head(words, kind, me)?;
    // The turn is passed on with the lock held. Only the head touches bits 61 and 62, and that
    // is this rank until `serving` moves: clear first, then move.
    let alone = words.load(Name::Ticket)? == ticket.wrapping_add(1);
    let clear = if alone { QUEUE | SLEEPER } else { SLEEPER };
    words.fetch_and(Name::Lock, !clear)?;
    words.fetch_add(Name::Serving, 1)?;
    words.wake(Name::Serving)
}

/// Takes the lock at the head of the queue.
fn take_as_head<W: Words>(words: &W, kind: LockKind, me: u32) -> Result<(), W::Error> {
    let mut word = words.fetch_or(Name::Lock, QUEUE)? | QUEUE;
    loop {
        if is_free(kind, word) {
            let new = word + share(kind, me);
            match words.lock().compare_exchange(word, new)? {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        } else {
            // From here on every unlock wakes; one before it is seen by the wait itself.
            words.fetch_or(Name::Lock, SLEEPER)?;
            words.wait(Name::Lock, |word| is_free(kind, word))?;
            word = words.load(Name::Lock)?;
        }
    }
}

/// Takes every lock of `all` shared. Holds nothing while it waits, so that a rank that locks
/// several targets one by one, in whatever order, cannot wait for this one in a circle.
pub(crate) fn acquire_all<W: Words>(all: &[W], me: u32, eager: u32) -> Result<(), W::Error> {
    let count = all.len();
    if count == 0 {
        return Ok(());
    }
    let mut first = 0;
    'again: loop {
        if !try_acquire(&all[first], LockKind::Shared, me)? {
            acquire_slowly(&all[first], LockKind::Shared, me, eager)?;
        }
        for step in 1..count {
            let next = (first + step) % count;
            if !try_acquire(&all[next], LockKind::Shared, me)? {
                for back in 0..step {
                    release(&all[(first + back) % count], LockKind::Shared, me)?;
                }
                first = next;
                continue 'again;
            }
        }
        return Ok(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use loom::sync::{Arc, Condvar, Mutex};
    use std::convert::Infallible;

    fn acquire(words: &Model, kind: LockKind, me: u32) {
        if !try_acquire(words, kind, me).unwrap() {
            acquire_slowly(words, kind, me, 0).unwrap();
        }
    }

    /// Words whose waits *sleep* until woken, so that a lost wake-up is a deadlock that the
    /// model checker reports.
    struct Model {
        words: [AtomicU64; 3],
        bell: [(Mutex<()>, Condvar); 3],
    }

    impl Model {
        fn new() -> Model {
            Model {
                words: [(); 3].map(|()| AtomicU64::new(0)),
                bell: [(); 3].map(|()| (Mutex::new(()), Condvar::new())),
            }
        }
    }

    impl LockWord for AtomicU64 {
        type Error = Infallible;
        fn fetch_add(&self, value: u64) -> Result<u64, Infallible> {
            Ok(self.fetch_add(value, SeqCst))
        }
        fn fetch_sub(&self, value: u64) -> Result<u64, Infallible> {
            Ok(self.fetch_sub(value, SeqCst))
        }
        fn compare_exchange(&self, old: u64, new: u64) -> Result<Result<u64, u64>, Infallible> {
            Ok(self.compare_exchange(old, new, SeqCst, SeqCst))
        }
    }

    impl Words for Model {
        type Error = Infallible;
        type Lock = AtomicU64;
        fn lock(&self) -> &AtomicU64 {
            &self.words[Name::Lock as usize]
        }
        fn load(&self, name: Name) -> Result<u64, Infallible> {
            Ok(self.words[name as usize].load(SeqCst))
        }
        fn fetch_add(&self, name: Name, value: u64) -> Result<u64, Infallible> {
            Ok(self.words[name as usize].fetch_add(value, SeqCst))
        }
        fn fetch_or(&self, name: Name, value: u64) -> Result<u64, Infallible> {
            Ok(self.words[name as usize].fetch_or(value, SeqCst))
        }
        fn fetch_and(&self, name: Name, value: u64) -> Result<u64, Infallible> {
            Ok(self.words[name as usize].fetch_and(value, SeqCst))
        }
        fn wait(&self, name: Name, done: impl Fn(u64) -> bool) -> Result<(), Infallible> {
            let (lock, bell) = &self.bell[name as usize];
            let mut held = lock.lock().unwrap();
            while !done(self.words[name as usize].load(SeqCst)) {
                held = bell.wait(held).unwrap();
            }
            Ok(())
        }
        fn wake(&self, name: Name) -> Result<(), Infallible> {
            let (lock, bell) = &self.bell[name as usize];
            drop(lock.lock().unwrap());
            bell.notify_all();
            Ok(())
        }
        fn pause(&self, _attempt: u32) {
            loom::thread::yield_now();
        }
    }

    /// Every interleaving (within loom's bound) of one locker per kind given: an exclusive
    /// holder is alone, nobody waits for ever, and the words are clean afterwards.
    fn every_interleaving(kinds: &'static [LockKind], preemptions: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let words = Arc::new(Model::new());
            let data = Arc::new(UnsafeCell::new(0u32));
            let one = move |words: &Model, data: &UnsafeCell<u32>, me: usize| {
                let kind = kinds[me];
                acquire(words, kind, me as u32);
                match kind {
                    // loom refuses a mutable access beside any other access.
                    LockKind::Exclusive => data.with_mut(|_| ()),
                    LockKind::Shared => data.with(|_| ()),
                }
                release(words, kind, me as u32).unwrap();
            };
            let others: Vec<_> = (1..kinds.len())
                .map(|me| {
                    let (words, data) = (Arc::clone(&words), Arc::clone(&data));
                    loom::thread::spawn(move || one(&words, &data, me))
                })
                .collect();
            one(&words, &data, 0);
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(words.load(Name::Lock).unwrap() & !QUEUE & !SLEEPER, 0);
            assert_eq!(words.load(Name::Ticket), words.load(Name::Serving));
            // A queue bit may only be left by a queue.
            assert_eq!(words.load(Name::Lock).unwrap(), 0);
        });
    }

    use LockKind::{Exclusive, Shared};

    #[test]
    fn two_writers() {
        every_interleaving(&[Exclusive, Exclusive], 4);
    }

    #[test]
    fn a_reader_and_a_writer() {
        every_interleaving(&[Shared, Exclusive], 4);
    }

    #[test]
    fn three_writers() {
        every_interleaving(&[Exclusive, Exclusive, Exclusive], 2);
    }

    #[test]
    fn two_readers_and_a_writer() {
        every_interleaving(&[Shared, Shared, Exclusive], 2);
    }

    #[test]
    fn a_writer_at_the_head_lets_no_newcomer_overtake() {
        loom::model(|| {
            let words = Model::new();
            assert!(try_acquire(&words, Shared, 0).unwrap());
            words.fetch_or(Name::Lock, QUEUE).unwrap();
            assert!(!try_acquire(&words, Shared, 1).unwrap());
            assert!(!try_acquire(&words, Exclusive, 2).unwrap());
            assert_eq!(words.load(Name::Lock).unwrap(), QUEUE | 1);
        });
    }

    #[test]
    fn all_is_taken_back_when_one_is_held() {
        loom::model(|| {
            let all = Arc::new([Model::new(), Model::new()]);
            assert!(try_acquire(&all[1], Exclusive, 7).unwrap());
            let other = {
                let all = Arc::clone(&all);
                loom::thread::spawn(move || {
                    acquire_all(&*all, 0, 0).unwrap();
                    for words in all.iter() {
                        release(words, Shared, 0).unwrap();
                    }
                })
            };
            // Exclusive on the first while the second is held: acquire_all holds neither.
            acquire(&all[0], Exclusive, 7);
            release(&all[0], Exclusive, 7).unwrap();
            release(&all[1], Exclusive, 7).unwrap();
            other.join().unwrap();
        });
    }
}
