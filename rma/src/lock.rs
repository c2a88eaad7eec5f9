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
//! | 36-60 | pressure of those who lock all and were kept out: exclusive requests stand back |
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
//!
//! # All at once
//! Who locks all parts waits for one of them at a time and holds nothing meanwhile: others may
//! collect locks in any order, and wait for anything while they hold some, and no circle goes
//! through here. But streams of exclusive locks on several parts could keep it out for ever. So
//! after a few rounds in vain it puts *pressure* on every part, and more after each few. Under
//! pressure p an exclusive request first stands back for `STAND_BACK * 2^(p-1)` turns.
//! - No circle: it is a counted number of turns, whatever the others do.
//! - Progress: let everyone who holds a lock give it back within h turns. At the latest with
//!   p = 1 + log2(n * h / STAND_BACK), for n requests that are in queues already, these are over
//!   while all newcomers still stand back, and the next round meets nobody. So it takes a number
//!   of rounds that grows with the logarithm of what the others take.
//! - Nor do streams of lock_all starve an exclusive request: it stands back once, then queues.

/// How a window part is locked (mpi-rma 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// Together with other shared holders. `MPI_LOCK_SHARED`
    Shared,
    /// Alone. `MPI_LOCK_EXCLUSIVE`
    Exclusive,
}

/// The words of one lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Who holds it.
    Lock,
    /// The next ticket of the queue.
    Ticket,
    /// The ticket whose turn it is.
    Serving,
}

/// The lock word itself, for the fast path. Every change is a sequentially consistent atomic.
pub trait LockWord {
    /// A lost peer, say.
    type Error;
    /// Adds; the old value.
    fn fetch_add(&self, value: u64) -> Result<u64, Self::Error>;
    /// Subtracts; the old value.
    fn fetch_sub(&self, value: u64) -> Result<u64, Self::Error>;
    /// Replaces `old`, or answers what is there instead.
    fn compare_exchange(&self, old: u64, new: u64) -> Result<Result<u64, u64>, Self::Error>;
}

/// All words of one lock, for the slow path. Changes as for [`LockWord`].
pub trait Words {
    /// A lost peer, say.
    type Error;
    /// The lock word.
    type Lock: LockWord<Error = Self::Error>;
    /// The one of them that the fast path uses.
    fn lock(&self) -> &Self::Lock;
    /// The value now.
    fn load(&self, name: Name) -> Result<u64, Self::Error>;
    /// Adds; the old value.
    fn fetch_add(&self, name: Name, value: u64) -> Result<u64, Self::Error>;
    /// Sets bits; the old value.
    fn fetch_or(&self, name: Name, value: u64) -> Result<u64, Self::Error>;
    /// Keeps only these bits; the old value.
    fn fetch_and(&self, name: Name, value: u64) -> Result<u64, Self::Error>;
    /// Is every change a round trip? Then those of several locks are worth making at the same time.
    fn is_far(&self) -> bool {
        false
    }
    /// Adds to the lock word of each, as far as they can be reached; the old values.
    fn add_to_each(all: &[Self], value: u64) -> Vec<Result<u64, Self::Error>>
    where
        Self: Sized,
    {
        let add = |words: &Self| words.lock().fetch_add(value);
        all.iter().map(add).collect()
    }
    /// Returns once `done(value)`; may sleep until [`wake`](Self::wake) of the same word.
    fn wait(&self, name: Name, done: impl Fn(u64) -> bool) -> Result<(), Self::Error>;
    /// Wakes those who wait for the word.
    fn wake(&self, name: Name) -> Result<(), Self::Error>;
    /// Lets the holder get on between two tries: a turn.
    fn pause(&self, attempt: u32);
    /// Rounds in vain after which who locks all adds to the pressure.
    const ROUNDS: u32 = 4;
    /// Turns for which the least pressure makes an exclusive request stand back.
    const STAND_BACK: u64 = 64;
}

const SHARED: u64 = 0xffff;
const OWNER_SHIFT: u32 = 16;
const EXCLUSIVE: u64 = 0xf_ffff << OWNER_SHIFT;
/// One unit of pressure, and all of it.
const PRESS: u64 = 1 << 36;
const PRESSURE: u64 = ((1 << 25) - 1) << 36;
const SLEEPER: u64 = 1 << 61;
const QUEUE: u64 = 1 << 62;

/// The most that one who locks all adds: a million of them fit. Requests stand back for minutes then.
const MOST: u64 = 20;

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

/// Gives every lock of `all` back, as far as they can be reached; the first error.
pub(crate) fn release_all<W: Words>(all: &[W], me: u32) -> Result<(), W::Error> {
    let mut first = Ok(());
    let taken_off = share(LockKind::Shared, me).wrapping_neg();
    for (words, old) in all.iter().zip(W::add_to_each(all, taken_off)) {
        let woken = old.and_then(|old| match old & SLEEPER {
            0 => Ok(()),
            _ => words.wake(Name::Lock),
        });
        first = first.and(woken);
    }
    first
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
    if kind == LockKind::Exclusive {
        stand_back(words)?;
    }
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

/// For how many turns an exclusive request stands back where the word shows this.
fn patience<W: Words>(word: u64) -> u64 {
    match (word & PRESSURE) / PRESS {
        0 => 0,
        pressure => W::STAND_BACK << (pressure - 1).min(MOST),
    }
}

/// Lets those pass who lock all and were kept out.
fn stand_back<W: Words>(words: &W) -> Result<(), W::Error> {
    let mut turns = 0;
    while turns < patience::<W>(words.load(Name::Lock)?) {
        words.pause(turns as u32);
        turns += 1;
    }
    Ok(())
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
    let mut pressed = 0;
    let taken = acquire_under_pressure(all, me, eager, &mut pressed);
    let relieved = all.iter().filter(|_| pressed > 0).try_for_each(|words| {
        // Who stands back looks by itself: nobody sleeps on these bits.
        words.lock().fetch_sub(pressed * PRESS).map(drop)
    });
    taken.and(relieved)
}

fn acquire_under_pressure<W: Words>(
    all: &[W],
    me: u32,
    eager: u32,
    pressed: &mut u64,
) -> Result<(), W::Error> {
    let (mut first, mut rounds) = (0, 0);
    if all.iter().any(W::is_far) {
        match acquire_at_once(all, me)? {
            Some(held) => first = held,
            None => return Ok(()),
        }
    }
    while let Some(held) = acquire_round(all, first, me, eager)? {
        first = held;
        rounds += 1;
        if rounds == W::ROUNDS && *pressed < MOST {
            for words in all {
                words.lock().fetch_add(PRESS)?;
            }
            *pressed += 1;
            rounds = 0;
        }
    }
    Ok(())
}

/// Takes every lock if none needs waiting; else it takes nothing and answers the first that was held. Nothing either where one
/// cannot be reached.
fn acquire_at_once<W: Words>(all: &[W], me: u32) -> Result<Option<usize>, W::Error> {
    let olds = W::add_to_each(all, share(LockKind::Shared, me));
    let is_held = |old: &Result<u64, _>| matches!(old, Ok(old) if old & (EXCLUSIVE | QUEUE) != 0);
    let held = olds.iter().position(is_held);
    if olds.iter().all(Result::is_ok) {
        return held.map_or(Ok(()), |_| release_all(all, me)).map(|()| held);
    }
    let given_back = all.iter().zip(olds).map(|(words, old)| {
        old?;
        release(words, LockKind::Shared, me)
    });
    // All of them, whatever comes of one.
    given_back.fold(Ok(()), Result::and).map(|()| held)
}

/// Waits for the lock `first` and takes the others if none of them needs waiting; else it takes
/// nothing and answers which was held.
fn acquire_round<W: Words>(
    all: &[W],
    first: usize,
    me: u32,
    eager: u32,
) -> Result<Option<usize>, W::Error> {
    for step in 0..all.len() {
        let next = (first + step) % all.len();
        match try_acquire(&all[next], LockKind::Shared, me) {
            Ok(true) => {}
            Ok(false) if step == 0 => acquire_slowly(&all[next], LockKind::Shared, me, eager)?,
            other => {
                let given_back = (0..step).try_for_each(|back| {
                    release(&all[(first + back) % all.len()], LockKind::Shared, me)
                });
                return other.and(given_back).map(|()| Some(next));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use loom::sync::{Arc, Condvar, Mutex};
    use std::cell::Cell;
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
        fn is_far(&self) -> bool {
            true
        }
        const ROUNDS: u32 = 1;
        const STAND_BACK: u64 = 1;
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

    /// Who locks all puts pressure on at its first round in vain; an exclusive request stands back
    /// for a turn.
    #[test]
    fn all_under_pressure() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let all = Arc::new([Model::new(), Model::new()]);
            let data = Arc::new([UnsafeCell::new(0u32), UnsafeCell::new(0u32)]);
            let other = {
                let (all, data) = (Arc::clone(&all), Arc::clone(&data));
                loom::thread::spawn(move || {
                    for (words, data) in all.iter().zip(data.iter()) {
                        acquire(words, Exclusive, 7);
                        data.with_mut(|_| ());
                        release(words, Exclusive, 7).unwrap();
                    }
                })
            };
            acquire_all(&*all, 0, 0).unwrap();
            data.iter().for_each(|data| data.with(|_| ()));
            for words in all.iter() {
                release(words, Shared, 0).unwrap();
            }
            other.join().unwrap();
            for words in all.iter() {
                assert_eq!(words.load(Name::Lock).unwrap(), 0);
            }
        });
    }

    /// Parts of which each has a stream of exclusive locks. At every turn of who locks all, each
    /// stream takes its lock if it may, and gives it back when another stream has its own, or after
    /// `hold` turns: so one of them is always held.
    struct Streams {
        words: [[Cell<u64>; 3]; 3],
        held: [Cell<u64>; 3],
        stood: [Cell<u64>; 3],
        hold: u64,
        turns: Cell<u64>,
        /// A part that cannot be reached.
        gone: Option<usize>,
    }

    struct Part<'a>(&'a Streams, usize);

    impl Streams {
        fn turn(&self) {
            let turns = self.turns.replace(self.turns.get() + 1);
            assert!(turns < 10_000_000, "kept out");
            for part in 0..self.words.len() {
                let word = &self.words[part][Name::Lock as usize];
                let (held, stood) = (&self.held[part], &self.stood[part]);
                let mut others = (0..self.words.len()).filter(|&other| other != part);
                if held.get() > 0 {
                    held.set(held.get() + 1);
                    let covered = others.any(|other| self.held[other].get() > 0);
                    if covered || held.get() > self.hold {
                        word.set(word.get() - share(Exclusive, 9));
                        held.set(0);
                        stood.set(0);
                    }
                } else if stood.get() < patience::<Part<'_>>(word.get()) {
                    stood.set(stood.get() + 1);
                } else if is_free(Exclusive, word.get()) && word.get() & QUEUE == 0 {
                    word.set(word.get() + share(Exclusive, 9));
                    held.set(1);
                }
            }
        }
    }

    impl Part<'_> {
        fn change(&self, name: Name, new: impl Fn(u64) -> u64) -> Result<u64, Gone> {
            self.0.turn();
            if self.0.gone == Some(self.1) {
                return Err(Gone);
            }
            let word = &self.0.words[self.1][name as usize];
            Ok(word.replace(new(word.get())))
        }
    }

    impl LockWord for Part<'_> {
        type Error = Gone;
        fn fetch_add(&self, value: u64) -> Result<u64, Gone> {
            self.change(Name::Lock, |word| word.wrapping_add(value))
        }
        fn fetch_sub(&self, value: u64) -> Result<u64, Gone> {
            self.change(Name::Lock, |word| word - value)
        }
        fn compare_exchange(&self, old: u64, new: u64) -> Result<Result<u64, u64>, Gone> {
            let now = self.change(Name::Lock, |word| if word == old { new } else { word })?;
            Ok(if now == old { Ok(now) } else { Err(now) })
        }
    }

    impl Words for Part<'_> {
        type Error = Gone;
        type Lock = Self;
        fn lock(&self) -> &Self {
            self
        }
        fn load(&self, name: Name) -> Result<u64, Gone> {
            self.change(name, |word| word)
        }
        fn fetch_add(&self, name: Name, value: u64) -> Result<u64, Gone> {
            self.change(name, |word| word.wrapping_add(value))
        }
        fn fetch_or(&self, name: Name, value: u64) -> Result<u64, Gone> {
            self.change(name, |word| word | value)
        }
        fn fetch_and(&self, name: Name, value: u64) -> Result<u64, Gone> {
            self.change(name, |word| word & value)
        }
        fn wait(&self, name: Name, done: impl Fn(u64) -> bool) -> Result<(), Gone> {
            while !done(self.load(name)?) {}
            Ok(())
        }
        fn wake(&self, _name: Name) -> Result<(), Gone> {
            Ok(())
        }
        fn pause(&self, _attempt: u32) {
            self.0.turn();
        }
    }

    /// Whose part cannot be reached any more.
    #[derive(Debug, PartialEq)]
    struct Gone;

    fn streams(hold: u64, gone: Option<usize>) -> Streams {
        Streams {
            words: Default::default(),
            held: Default::default(),
            stood: Default::default(),
            hold,
            turns: Cell::new(0),
            gone,
        }
    }

    #[test]
    fn who_cannot_have_all_keeps_none() {
        for gone in 0..3 {
            let streams = streams(1, Some(gone));
            let all = [0, 1, 2].map(|part| Part(&streams, part));
            let shared = |part: usize| streams.words[part][Name::Lock as usize].get() & SHARED;
            assert_eq!(acquire_at_once(&all, 0), Err(Gone));
            assert_eq!([0, 1, 2].map(shared), [0; 3], "without {gone}, all at once");
            assert_eq!(acquire_all(&all, 0, 0), Err(Gone));
            assert_eq!([0, 1, 2].map(shared), [0; 3], "without {gone}, one by one");
        }
    }

    #[test]
    fn streams_of_exclusive_locks_do_not_keep_all_out() {
        for hold in [1, 10, 1000, 50_000] {
            let streams = streams(hold, None);
            // They have begun.
            (0..10).for_each(|_| streams.turn());
            let all = [0, 1, 2].map(|part| Part(&streams, part));
            acquire_all(&all, 0, 0).unwrap();
            assert!(all.iter().all(|part| {
                let word = streams.words[part.1][Name::Lock as usize].get();
                word & (SHARED | EXCLUSIVE) == 1
            }));
            // A few rounds for each doubling, of a few holds each.
            let turns = streams.turns.get();
            let most = 5_000 + 200 * hold;
            assert!(turns < most, "{turns} turns, where each holds for {hold}");
        }
    }
}
