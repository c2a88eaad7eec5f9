//! The fence that a flush owes, and waiting: the only blocking place of this crate.
//!
//! # The fence that a flush owes (measured-designs.md section 2)
//! After `put; flush` a `get` of other memory must not overtake the put. On x86 it can: the store sits in the cpu's
//! store buffer while the load is served. A fence in the flush costs 5 to 20 ns, ten times the put. So the flush only
//! notes that a fence is *owed* ([`owe`]), and the next load of shared memory by the library pays first ([`pay`]), by
//! a locked instruction. The note belongs to the thread that stored, because the store is in *that* cpu's buffer (the
//! kernel drains it when it moves a thread). Any other locked instruction pays as well: [`settled`].
//! On other architectures the flush itself fences, and nothing is owed.
//!
//! # Waiting (measured-designs.md section 3)
//! Poll, then give the cpu away a few times, then sleep. How long to poll is decided by whether the node has more ranks
//! than cpus. A yield beside a busy stranger costs a whole time slice, so yields are timed, and one that took too
//! long forbids them for a while. Sleepers announce themselves in a counter beside the word, so that a publisher need
//! not make a system call when nobody sleeps. Every sleep is bounded, so that dead peers are noticed and no corrupted
//! word can hang us.
//!
//! # Guards
//! What no instruction changes in one piece is changed under a *guard* word ([`hold`]). Where processes share it, it is
//! a lock for a moment, whose holder waits for nobody. Where only threads of one process do, it may be a *turn* as
//! well: held long, while its holder waits for other processes. Giving it back is one store and wakes nobody: waiters
//! poll, then nap ever longer.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;

/// What a thread's stores to shared memory ask for before its next load of it.
struct Debt {
    /// The library has stored for this thread since it last paid.
    stored: Cell<bool>,
    /// A flush has promised that what was stored comes before the next load.
    owed: Cell<bool>,
}

thread_local! {
    /// Without a destructor: access is one `mov`.
    static DEBT: Debt = const { Debt { stored: Cell::new(false), owed: Cell::new(false) } };
    static NO_YIELDS: Cell<Option<NoYields>> = const { Cell::new(None) };
}

/// This thread does not yield for a while, because its last yield took too long.
#[derive(Clone, Copy)]
struct NoYields {
    until: Instant,
    length: Duration,
}

/// Notes a store to shared memory by this thread, which its next flush has to order: a put on a mapped route.
#[inline(always)]
pub fn stored() {
    if cfg!(target_arch = "x86_64") {
        DEBT.with(|debt| debt.stored.set(true));
    }
}

/// Notes that the stores of this thread ([`stored`]) must be ordered before its next load of shared memory: the flush
/// of a mapped route. Without such a store nothing is owed, so that get and flush by turns cost no fence.
///
/// Earlier stores are ordered before later ones at once (release).
#[inline(always)]
pub fn owe_stored() {
    if cfg!(target_arch = "x86_64") {
        // Stores leave the buffer in order: on x86 only the compiler has to be kept from moving them.
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        DEBT.with(|debt| {
            if debt.stored.get() {
                debt.owed.set(true);
            }
        });
    } else {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Notes that all stores of this thread, whoever made them, must be ordered before its next load of shared memory.
#[inline(always)]
pub fn owe() {
    stored();
    owe_stored();
}

/// Pays the fence that [`owe`] noted, if any. To be called before each load of shared memory by the library.
#[inline(always)]
pub fn pay() {
    if cfg!(target_arch = "x86_64") && DEBT.with(|debt| debt.owed.get()) {
        settled();
        drain();
    }
}

/// A locked instruction (atomic read-modify-write) is executed by this thread: nothing is owed any more.
#[inline(always)]
pub fn settled() {
    if cfg!(target_arch = "x86_64") {
        DEBT.with(|debt| {
            debt.stored.set(false);
            debt.owed.set(false);
        });
    }
}

/// Forgets what is owed *without paying*. Only for the store-buffering litmus test, which must show forbidden outcomes
/// when the fence is left out; a program that calls it elsewhere may read stale data after a flush.
#[inline]
pub fn forget_owed() {
    settled();
}

/// A locked add of nothing to the top of the own stack: 5 ns, where `mfence` takes 20.
#[inline(always)]
fn drain() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: adds 0 to the word at the stack pointer: mapped memory of this thread whose value does not change. The
    // flags are declared changed and memory is declared accessed (no `preserves_flags`, no `nomem`), so the compiler
    // moves no access across.
    unsafe {
        std::arch::asm!("lock add dword ptr [rsp], 0", options(nostack));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// Longest sleep without a look at the peers.
pub const SLEEP_BOUND: Duration = Duration::from_millis(1);
/// Polling time when every rank has a cpu.
const POLL_TIME: Duration = Duration::from_micros(20);
/// Polls between two looks at the clock.
const POLLS_PER_CLOCK: u32 = 64;
/// Polls between two looks at the peers.
const POLLS_PER_CHECK: u32 = 256;
/// Polls when ranks outnumber cpus: whoever is awaited probably needs this cpu.
const CROWDED_POLLS: u32 = 50;
/// Yields after polling.
const YIELDS: u32 = 20;
/// A yield that took longer found a stranger who used his whole slice.
const YIELD_TOO_LONG: Duration = Duration::from_micros(500);
/// For how long yields are forbidden then: a moment, because a host that takes a cpu away for a millisecond looks like a
/// busy stranger once.
const FIRST_PENALTY: Duration = Duration::from_millis(4);
/// A stranger who stays is met again this soon after the end of a penalty, and doubles it.
const AGAIN: Duration = Duration::from_millis(10);
const LONGEST_PENALTY: Duration = Duration::from_millis(200);

/// What a waiter does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look at the awaited word again.
    Again,
    /// Look at the awaited word again, and at the peers.
    Check,
    /// Polling and yielding did not help: sleep, at most [`SLEEP_BOUND`], then look at both.
    Sleep,
}

/// How one wait goes from polling over yielding to sleeping.
#[derive(Debug)]
pub struct Patience {
    oversubscribed: bool,
    polls: u32,
    yields: u32,
    polling_since: Option<Instant>,
}

impl Patience {
    /// A fresh wait. `oversubscribed`: the node has more ranks than cpus in their affinity mask.
    #[inline]
    pub fn new(oversubscribed: bool) -> Self {
        Self {
            oversubscribed,
            polls: 0,
            yields: 0,
            polling_since: None,
        }
    }

    /// Starts over: something happened, the rest may follow soon.
    #[inline]
    pub fn restart(&mut self) {
        *self = Self::new(self.oversubscribed);
    }

    /// Pauses or yields as it is time for, and says what to do next.
    #[inline]
    pub fn step(&mut self) -> Step {
        if self.yields > 0 {
            return self.give_way();
        }
        self.polls += 1;
        if self.oversubscribed {
            return if self.polls < CROWDED_POLLS {
                Step::Again
            } else {
                self.give_way()
            };
        }
        // The pause makes the poll steal the line less often: 45-55 ns a barrier instead of 63-74.
        std::hint::spin_loop();
        if self.polls.is_multiple_of(POLLS_PER_CLOCK) {
            self.look_at_clock()
        } else {
            Step::Again
        }
    }

    #[cold]
    fn look_at_clock(&mut self) -> Step {
        // The clock is first read after some polls: a short wait never reads it.
        if self
            .polling_since
            .get_or_insert_with(Instant::now)
            .elapsed()
            >= POLL_TIME
        {
            return self.give_way();
        }
        if self.polls.is_multiple_of(POLLS_PER_CHECK) {
            Step::Check
        } else {
            Step::Again
        }
    }

    /// One timed yield, or the advice to sleep.
    #[cold]
    fn give_way(&mut self) -> Step {
        if self.yields >= YIELDS {
            return Step::Sleep;
        }
        let before = Instant::now();
        let last = NO_YIELDS.get();
        if last.is_some_and(|last| before < last.until) {
            self.yields = YIELDS;
            return Step::Sleep;
        }
        self.yields += 1;
        std::thread::yield_now();
        let after = Instant::now();
        if after - before > YIELD_TOO_LONG {
            no_yields_after(after, last);
            self.yields = YIELDS;
        }
        Step::Check
    }
}

/// A yield that ended `after` took too long; `last` was the penalty before.
fn no_yields_after(after: Instant, last: Option<NoYields>) {
    let length = match last {
        Some(last) if after < last.until + AGAIN => (2 * last.length).min(LONGEST_PENALTY),
        _ => FIRST_PENALTY,
    };
    let until = after + length;
    NO_YIELDS.set(Some(NoYields { until, length }));
}

/// Waits until `done(value of word)` and answers that value (acquired).
///
/// `sleepers` is the counter that [`wake`] reads; both words may lie in memory shared with other processes. `check`
/// is called at each bound of a sleep, at each yield, and now and then while polling: it looks for dead peers and
/// makes progress, and its error ends the wait.
///
/// Sleeping watches the low half of the word: a change of the high half alone ends a sleep by [`wake`] or at its
/// bound.
#[inline]
pub fn wait<E>(
    word: &AtomicU64,
    sleepers: &AtomicU64,
    oversubscribed: bool,
    done: impl Fn(u64) -> bool,
    mut check: impl FnMut() -> Result<(), E>,
) -> Result<u64, E> {
    pay();
    let mut patience = Patience::new(oversubscribed);
    loop {
        let value = word.load(Ordering::Acquire);
        if done(value) {
            return Ok(value);
        }
        match patience.step() {
            Step::Again => {}
            Step::Check => check()?,
            Step::Sleep => {
                sleep(word, sleepers, &done);
                check()?;
            }
        }
    }
}

/// The two words of a wait: a protocol for those who sleep and those who wake them. In memory that
/// processes share, or under a model checker.
pub trait Sleepable {
    /// The awaited word.
    fn word(&self) -> u64;
    /// How many sleep or are about to.
    fn sleepers(&self) -> u64;
    /// Adds `n`, which may be negative, to the sleepers: a locked instruction.
    fn announce(&self, n: i64);
    /// Sleeps until the next [`wake_all`](Self::wake_all) or a bound, but not at all once the low half of the word is
    /// no longer that of `value`.
    fn sleep(&self, value: u64);
    /// Ends every sleep.
    fn wake_all(&self);
}

/// One sleep, unless `done` already.
///
/// A publisher changes the word by a locked instruction and then reads `sleepers`; a sleeper changes `sleepers` by one
/// and then reads the word. Both are sequentially consistent, so at least one sees the other; a change between the
/// sleeper's look and its sleep is caught by the sleep itself.
#[inline]
pub fn sleep_unless(on: &impl Sleepable, done: impl Fn(u64) -> bool) {
    on.announce(1);
    let value = on.word();
    if !done(value) {
        on.sleep(value);
    }
    on.announce(-1);
}

/// Wakes all who sleep, if anybody does. The caller has just changed the word by a locked instruction.
#[inline]
pub fn wake_sleepers(on: &impl Sleepable) {
    if on.sleepers() > 0 {
        on.wake_all();
    }
}

/// Words in memory that may be shared between processes: sleeps are bounded by [`SLEEP_BOUND`].
struct Shared<'a> {
    word: &'a AtomicU64,
    sleepers: &'a AtomicU64,
}

impl Sleepable for Shared<'_> {
    #[inline]
    fn word(&self) -> u64 {
        self.word.load(Ordering::SeqCst)
    }

    #[inline]
    fn sleepers(&self) -> u64 {
        self.sleepers.load(Ordering::SeqCst)
    }

    #[inline]
    fn announce(&self, n: i64) {
        self.sleepers.fetch_add(n.cast_unsigned(), Ordering::SeqCst);
    }

    fn sleep(&self, value: u64) {
        let bound = futex::Timespec {
            tv_sec: 0,
            tv_nsec: SLEEP_BOUND.subsec_nanos().into(),
        };
        // Not private: the word may be shared between processes. Woken, changed already, interrupted or timed out:
        // the caller looks at the word again in every case, so the outcome does not matter.
        let _ = futex::wait(
            low_half(self.word),
            futex::Flags::empty(),
            value as u32,
            Some(&bound),
        );
    }

    fn wake_all(&self) {
        wake_all(self.word);
    }
}

#[cold]
fn sleep(word: &AtomicU64, sleepers: &AtomicU64, done: &impl Fn(u64) -> bool) {
    sleep_unless(&Shared { word, sleepers }, done);
    settled();
}

/// How long a waiter for a guard sleeps once polling and yielding did not help: its holder has lost its cpu, or has a
/// long turn. Each nap is twice the one before, up to [`SLEEP_BOUND`].
const FIRST_NAP: Duration = Duration::from_micros(50);

/// A guard word that is held; dropping it lets the next one in.
#[must_use = "the guard is given back at once"]
#[derive(Debug)]
pub struct Held<'a>(&'a AtomicU64);

/// Takes a guard word, 0 when free. The holder takes no second guard that it shares with those who wait for this one,
/// and waits for another process only if all who take the word are threads of its own.
///
/// `check` is called at each yield and sleep, and its error ends the wait: a holder may have died.
#[inline]
pub fn hold<E>(
    word: &AtomicU64,
    oversubscribed: bool,
    mut check: impl FnMut() -> Result<(), E>,
) -> Result<Held<'_>, E> {
    let mut patience = Patience::new(oversubscribed);
    let mut nap = FIRST_NAP;
    loop {
        // Looked at first: waiters share the line until the holder stores to it.
        let free = word.load(Ordering::Relaxed) == 0;
        if free
            && word
                .compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
        {
            settled();
            return Ok(Held(word));
        }
        match patience.step() {
            Step::Again => {}
            Step::Check => check()?,
            Step::Sleep => {
                std::thread::sleep(nap);
                nap = (nap * 2).min(SLEEP_BOUND);
                check()?;
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
        // What was stored under the guard, by plain stores, is the next flush's to order.
        stored();
    }
}

/// Wakes all who sleep on `word`, if anybody does. The caller has just published by a locked instruction on `word`.
///
/// A process that was killed in its sleep leaves the counter too high: that costs later publishers a system call
/// each, and nothing else.
#[inline]
pub fn wake(word: &AtomicU64, sleepers: &AtomicU64) {
    wake_sleepers(&Shared { word, sleepers });
}

/// Wakes every sleeper on `word`, whoever announced himself where: for one who changes a word on behalf of a process
/// elsewhere and does not know its sleepers' counter.
#[cold]
pub fn wake_all(word: &AtomicU64) {
    // Fails only for an address that is no futex, which a reference to an atomic cannot be.
    let outcome = futex::wake(low_half(word), futex::Flags::empty(), i32::MAX as u32);
    debug_assert!(outcome.is_ok(), "futex wake: {outcome:?}");
}

/// The half of the word that holds its low 32 bits: a futex is 32 bits wide.
fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let half = usize::from(cfg!(target_endian = "big"));
    // SAFETY: the word is 8 valid bytes, aligned to 8, so either half is a valid, aligned `u32` as long as the word;
    // all accesses to it are atomic (here only the kernel's).
    unsafe { AtomicU32::from_ptr(word.as_ptr().cast::<u32>().add(half)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owing_paying_settling_and_forgetting() {
        let owed = || DEBT.with(|debt| debt.owed.get());
        owe();
        assert_eq!(owed(), cfg!(target_arch = "x86_64"));
        // Another thread owes nothing of this one's.
        std::thread::spawn(|| assert!(!DEBT.with(|debt| debt.owed.get())))
            .join()
            .unwrap();
        pay();
        assert!(!owed());
        owe();
        settled();
        assert!(!owed());
        owe();
        forget_owed();
        assert!(!owed());
        pay();
        // A flush owes for stores only, and for those before the last payment no more.
        owe_stored();
        assert!(!owed());
        stored();
        owe_stored();
        assert_eq!(owed(), cfg!(target_arch = "x86_64"));
        pay();
        owe_stored();
        assert!(!owed());
    }

    #[test]
    fn patience_polls_then_yields_then_sleeps() {
        for oversubscribed in [false, true] {
            NO_YIELDS.set(None);
            let mut patience = Patience::new(oversubscribed);
            let mut steps = Vec::new();
            while steps.last() != Some(&Step::Sleep) {
                steps.push(patience.step());
                assert!(steps.len() < 10_000_000, "patience has an end");
            }
            assert_eq!(steps[0], Step::Again);
            let again = steps.iter().filter(|&&step| step == Step::Again).count();
            let check = steps.iter().filter(|&&step| step == Step::Check).count();
            if oversubscribed {
                assert_eq!(again, CROWDED_POLLS as usize - 1);
                assert!((1..=YIELDS as usize).contains(&check));
            }
            assert_eq!(patience.step(), Step::Sleep, "once tired, always tired");
            patience.restart();
            assert_eq!(patience.step(), Step::Again);
        }
    }

    #[test]
    fn a_yield_that_took_too_long_forbids_yields_for_a_while() {
        let now = Instant::now();
        no_yields_after(now + LONGEST_PENALTY * 100, None); // Longer than a busy machine keeps this thread waiting.
        let mut patience = Patience::new(true);
        for _ in 1..CROWDED_POLLS {
            assert_eq!(patience.step(), Step::Again);
        }
        assert_eq!(patience.step(), Step::Sleep);
        no_yields_after(now - FIRST_PENALTY, None);
        patience.restart();
        for _ in 1..CROWDED_POLLS {
            patience.step();
        }
        assert_eq!(patience.step(), Step::Check, "the penalty is over");
    }

    #[test]
    fn a_stranger_who_stays_is_left_alone_ever_longer_and_one_who_left_is_forgotten() {
        let penalty = |after, last| {
            no_yields_after(after, last);
            NO_YIELDS.get().expect("noted")
        };
        let first = penalty(Instant::now(), None);
        assert_eq!(first.length, FIRST_PENALTY);
        let mut last = first;
        for _ in 0..10 {
            last = penalty(last.until + AGAIN / 2, Some(last));
        }
        assert_eq!(last.length, LONGEST_PENALTY);
        let later = penalty(last.until + 2 * AGAIN, Some(last));
        assert_eq!(later.length, FIRST_PENALTY);
        NO_YIELDS.set(None);
    }

    #[test]
    fn what_is_there_already_is_not_waited_for() {
        let (word, sleepers) = (AtomicU64::new(7), AtomicU64::new(0));
        let got = wait(
            &word,
            &sleepers,
            false,
            |v| v == 7,
            || -> Result<(), ()> { panic!("not looked at") },
        );
        assert_eq!(got, Ok(7));
    }

    #[test]
    fn the_error_of_the_check_ends_the_wait() {
        for oversubscribed in [false, true] {
            let (word, sleepers) = (AtomicU64::new(0), AtomicU64::new(0));
            let mut looks = 0;
            let got = wait(
                &word,
                &sleepers,
                oversubscribed,
                |v| v > 0,
                || {
                    looks += 1;
                    // Enough looks to have slept several times.
                    if looks < 40 { Ok(()) } else { Err("dead peer") }
                },
            );
            assert_eq!(got, Err("dead peer"));
            assert_eq!(sleepers.load(Ordering::SeqCst), 0, "sleepers sign off");
        }
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "the interpreter takes the kernel's 4-byte look at an 8-byte word for a race of ours"
    )]
    fn sleepers_are_woken_and_no_wake_is_lost() {
        let rounds = 20_000;
        let words = [AtomicU64::new(0), AtomicU64::new(0)];
        let sleepers = [AtomicU64::new(0), AtomicU64::new(0)];
        let never = || -> Result<(), ()> { Ok(()) };
        std::thread::scope(|scope| {
            for me in [0, 1] {
                let (words, sleepers) = (&words, &sleepers);
                scope.spawn(move || {
                    // Ping-pong, with a nap now and then so that the other one sleeps too.
                    for round in 1..=rounds {
                        if me == 0 {
                            if round % 4_000 == 0 {
                                std::thread::sleep(Duration::from_millis(3));
                            }
                            words[1].swap(round, Ordering::SeqCst);
                            wake(&words[1], &sleepers[1]);
                            wait(&words[0], &sleepers[0], true, |v| v >= round, never).unwrap();
                        } else {
                            wait(&words[1], &sleepers[1], true, |v| v >= round, never).unwrap();
                            words[0].swap(round, Ordering::SeqCst);
                            wake(&words[0], &sleepers[0]);
                        }
                    }
                });
            }
        });
        assert_eq!(sleepers.map(AtomicU64::into_inner), [0, 0]);
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "the interpreter takes the kernel's 4-byte look at an 8-byte word for a race of ours"
    )]
    fn a_change_of_the_high_half_is_seen_at_the_bound() {
        let (word, sleepers) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while sleepers.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                word.fetch_or(1 << 62, Ordering::SeqCst);
            });
            let got = wait(
                &word,
                &sleepers,
                true,
                |v| v >> 62 != 0,
                || Ok::<(), ()>(()),
            );
            assert_eq!(got, Ok(1 << 62));
        });
    }

    /// Store buffering (measured-designs.md section 2): each of two threads puts, flushes, and gets what the other one
    /// put. Both may not miss. Answers how many of `rounds` did, or stops at the first.
    fn store_buffering(rounds: u64, paid: bool, until_first: bool) -> u64 {
        #[repr(align(128))]
        #[derive(Default)]
        struct Line(AtomicU64);
        let words = [Line::default(), Line::default()];
        let turns = [Line::default(), Line::default()];
        let missed = [Line::default(), Line::default()];
        let meet = |me: usize, turn: u64| {
            turns[me].0.store(turn, Ordering::SeqCst);
            let mut patience = Patience::new(false);
            while turns[1 - me].0.load(Ordering::SeqCst) < turn {
                let _ = patience.step();
            }
        };
        let play = |me: usize| {
            let mut forbidden = 0;
            for round in 1..=rounds {
                meet(me, 2 * round - 1);
                words[me].0.store(round, Ordering::Relaxed);
                // Without it the two accesses follow each other at once, in unoptimised builds too: what the calls do
                // besides would hide the effect.
                if paid {
                    owe();
                    pay();
                }
                let seen = words[1 - me].0.load(Ordering::Relaxed);
                missed[me]
                    .0
                    .store(u64::from(seen < round), Ordering::Relaxed);
                meet(me, 2 * round);
                // Both read the same two answers, so both stop in the same round.
                forbidden +=
                    missed[0].0.load(Ordering::Relaxed) & missed[1].0.load(Ordering::Relaxed);
                if until_first && forbidden > 0 {
                    break;
                }
            }
            forbidden
        };
        std::thread::scope(|scope| {
            scope.spawn(|| play(1));
            play(0)
        })
    }

    #[test]
    fn a_paid_fence_forbids_store_buffering() {
        let rounds = if cfg!(miri) { 20 } else { 300_000 };
        assert_eq!(store_buffering(rounds, true, false), 0);
    }

    #[test]
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn the_litmus_sees_a_fence_that_is_left_out() {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        if cpus < 2 {
            return; // One cpu always sees its own stores.
        }
        assert_eq!(store_buffering(20_000_000, false, true), 1);
    }

    #[test]
    fn a_guard_excludes_and_orders() {
        let (bytes, _loan) = crate::lend(vec![0u64; 8]);
        let guard = AtomicU64::new(0);
        let turns = if cfg!(miri) { 20 } else { 20_000 };
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (bytes, guard) = (&bytes, &guard);
                scope.spawn(move || {
                    for _ in 0..turns {
                        let held = hold(guard, thread == 0, || Ok::<(), ()>(())).unwrap();
                        let mut number = [0; 16];
                        bytes.read(3, &mut number).unwrap();
                        let next = u128::from_ne_bytes(number) + 1;
                        bytes.write(3, &next.to_ne_bytes()).unwrap();
                        drop(held);
                    }
                });
            }
        });
        let mut number = [0; 16];
        bytes.read(3, &mut number).unwrap();
        assert_eq!(u128::from_ne_bytes(number), 3 * turns);
        assert_eq!(guard.load(Ordering::SeqCst), 0);
    }

    /// Whoever waits for a long turn leaves the cpu to others: its naps grow.
    #[test]
    fn a_long_turn_is_looked_at_ever_more_rarely() {
        let turn = AtomicU64::new(1);
        let mut looks = 0;
        let began = Instant::now();
        let waited = hold(&turn, false, || {
            looks += 1;
            if looks < 150 { Ok(()) } else { Err(()) }
        });
        assert!(waited.is_err());
        // With naps of the first length it would be over in half of that.
        let took = began.elapsed();
        assert!(took > 30 * SLEEP_BOUND, "150 looks in {took:?}");
    }

    #[test]
    fn a_guard_whose_holder_is_gone_ends_the_wait_by_the_check() {
        let guard = AtomicU64::new(1);
        let mut looks = 0;
        let waited = hold(&guard, false, || {
            looks += 1;
            if looks > 30 { Err("lost") } else { Ok(()) }
        });
        assert_eq!(waited.map(|_| ()), Err("lost"));
        assert_eq!(guard.load(Ordering::SeqCst), 1, "it is still its holder's");
    }

    #[test]
    fn stores_under_a_guard_are_owed() {
        let guard = AtomicU64::new(0);
        owe();
        let held = hold(&guard, false, || Ok::<(), ()>(())).unwrap();
        assert!(!DEBT.with(|debt| debt.owed.get()), "taking it has paid");
        drop(held);
        owe_stored();
        assert_eq!(
            DEBT.with(|debt| debt.owed.get()),
            cfg!(target_arch = "x86_64")
        );
        pay();
    }
}
