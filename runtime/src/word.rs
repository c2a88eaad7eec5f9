//! One synchronisation word, here or on another node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_mem::sync;
use windlass_node::control;

use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::pending::Pending;
use crate::route::{Posted, Route};
use crate::update::{Kind, UpdateOp};

/// Pauses between two looks at a word of another node.
const FIRST_PAUSE: Duration = Duration::from_micros(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// The names of a window's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordName {
    /// The lock of a rank's memory.
    Lock(u32),
    /// Next ticket of its queue.
    Ticket(u32),
    /// Ticket being served.
    Serving(u32),
    /// Sleepers on those words.
    LockSleepers(u32),
    /// Guards the wide elements of a rank's memory.
    Guard(u32),
    /// Accesses to a rank's exposures that have been completed, ever.
    Completed(u32),
    /// The bits that posts to the first rank turn over: the word with the second's bit.
    Posted(u32, u32),
    /// Sleepers of a rank on the two above.
    PscwSleepers(u32),
    /// How often a rank was notified under an id, 0 to 63.
    Notified(u32, u32),
    /// Moves when a rank is notified while it sleeps.
    Bell(u32),
    /// Sleepers of a rank on its bell.
    BellSleepers(u32),
}

impl WordName {
    /// Whose word it is.
    #[inline]
    pub(crate) fn rank(self) -> u32 {
        match self {
            WordName::Lock(rank)
            | WordName::Ticket(rank)
            | WordName::Serving(rank)
            | WordName::LockSleepers(rank)
            | WordName::Guard(rank)
            | WordName::Completed(rank)
            | WordName::Posted(rank, _)
            | WordName::PscwSleepers(rank)
            | WordName::Notified(rank, _)
            | WordName::Bell(rank)
            | WordName::BellSleepers(rank) => rank,
        }
    }

    /// Where it stands among the words of a context, for the rank's number on its node.
    #[inline]
    pub(crate) fn offset(self, context: u32, local: u32) -> usize {
        match self {
            WordName::Lock(_) => control::lock(context, local),
            WordName::Ticket(_) => control::ticket(context, local),
            WordName::Serving(_) => control::serving(context, local),
            WordName::LockSleepers(_) => control::lock_sleepers(context, local),
            WordName::Guard(_) => control::guard(context, local),
            WordName::Completed(_) => control::completed(context, local),
            WordName::Posted(_, by) => control::posted(context, local, by),
            WordName::PscwSleepers(_) => control::pscw_sleepers(context, local),
            WordName::Notified(_, id) => control::notified(context, local, id),
            WordName::Bell(_) => control::bell(context, local),
            WordName::BellSleepers(_) => control::bell_sleepers(context, local),
        }
    }
}

/// A synchronisation word: a `u64` in the control segment of its rank's node.
pub struct Word<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) context: u32,
    pub(crate) place: Where<'a>,
}

/// An addition whose old value may still be on its way.
#[must_use = "it may have failed: `old` says so"]
pub enum Adding {
    /// It is done.
    Here(u64),
    /// It was posted.
    There(Pending),
}

impl Adding {
    /// Waits for the old value.
    ///
    /// # Errors
    /// A lost peer.
    pub fn old(self) -> Result<u64> {
        match self {
            Adding::Here(old) => Ok(old),
            Adding::There(pending) => pending.word(),
        }
    }
}

pub(crate) enum Where<'a> {
    Here(&'a AtomicU64),
    There(&'a Route, u64),
}

impl Word<'_> {
    /// Does it lie in this node's own segment?
    pub fn is_here(&self) -> bool {
        matches!(self.place, Where::Here(_))
    }

    /// Does a change of the word arrive behind what was posted by `posted` before it?
    pub fn follows(&self, posted: &Posted) -> bool {
        match self.place {
            Where::There(Route::Posted(word), _) => word.is_ordered_with(posted),
            _ => false,
        }
    }

    fn there(&self, op: UpdateOp, operand: u64) -> Result<u64> {
        let Where::There(Route::Posted(posted), offset) = self.place else {
            return Err(Error::Update(
                "a word that is neither here nor posted".into(),
            ));
        };
        let mut old = [0; 8];
        let operand = operand.to_ne_bytes();
        posted.update(offset, Kind::U64, op, &operand, Some(&mut old))?;
        Ok(u64::from_ne_bytes(old))
    }

    /// The value now.
    ///
    /// # Errors
    /// A lost peer; so for every call here.
    #[inline]
    pub fn load(&self) -> Result<u64> {
        match self.place {
            Where::Here(word) => {
                sync::pay();
                Ok(word.load(Ordering::SeqCst))
            }
            Where::There(..) => self.there(UpdateOp::NoOp, 0),
        }
    }

    /// Adds; the old value.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn fetch_add(&self, n: u64) -> Result<u64> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                Ok(word.fetch_add(n, Ordering::SeqCst))
            }
            Where::There(..) => self.there(UpdateOp::Sum, n),
        }
    }

    /// [`fetch_add`](Self::fetch_add) that is answered later: of several words, the round trips take place at once.
    ///
    /// # Errors
    /// A lost peer.
    pub fn start_add(&self, n: u64) -> Result<Adding> {
        match self.place {
            Where::There(Route::Posted(posted), offset) => {
                posted.start_add(offset, n).map(Adding::There)
            }
            _ => self.fetch_add(n).map(Adding::Here),
        }
    }

    /// Adds without asking for the old value: elsewhere it is complete after a flush of that rank.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn add(&self, n: u64) -> Result<()> {
        self.tell(UpdateOp::Sum, n, |word| {
            word.fetch_add(n, Ordering::SeqCst);
        })
    }

    /// Turns bits over without asking for the old value: elsewhere it is complete after a flush.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn turn(&self, bits: u64) -> Result<()> {
        self.tell(UpdateOp::Bxor, bits, |word| {
            word.fetch_xor(bits, Ordering::SeqCst);
        })
    }

    #[inline]
    fn tell(&self, op: UpdateOp, operand: u64, here: impl FnOnce(&AtomicU64)) -> Result<()> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                here(word);
                Ok(())
            }
            Where::There(Route::Posted(posted), offset) => {
                posted.update(offset, Kind::U64, op, &operand.to_ne_bytes(), None)
            }
            Where::There(..) => Err(Error::Update("a word that cannot be reached".into())),
        }
    }

    /// Subtracts; the old value.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn fetch_sub(&self, n: u64) -> Result<u64> {
        self.fetch_add(n.wrapping_neg())
    }

    /// Sets bits; the old value.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn fetch_or(&self, bits: u64) -> Result<u64> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                Ok(word.fetch_or(bits, Ordering::SeqCst))
            }
            Where::There(..) => self.there(UpdateOp::Bor, bits),
        }
    }

    /// Keeps only these bits; the old value.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn fetch_and(&self, bits: u64) -> Result<u64> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                Ok(word.fetch_and(bits, Ordering::SeqCst))
            }
            Where::There(..) => self.there(UpdateOp::Band, bits),
        }
    }

    /// Replaces `old` by `new`: `Ok(old)`, or `Err` of what is there instead.
    ///
    /// # Errors
    /// A lost peer.
    #[inline]
    pub fn compare_exchange(&self, old: u64, new: u64) -> Result<Result<u64, u64>> {
        match self.place {
            Where::Here(word) => {
                sync::settled();
                Ok(word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst))
            }
            Where::There(Route::Posted(posted), offset) => {
                let mut seen = [0; 8];
                let (compare, swap) = (old.to_ne_bytes(), new.to_ne_bytes());
                posted.compare_swap(offset, Kind::U64, &compare, &swap, &mut seen)?;
                let seen = u64::from_ne_bytes(seen);
                Ok(if seen == old { Ok(old) } else { Err(seen) })
            }
            Where::There(..) => Err(Error::Update("a word that cannot be reached".into())),
        }
    }

    /// Waits until `done` accepts the value. A waiter on its own node sleeps in the end; the one
    /// who changes the word calls [`wake`](Self::wake). Elsewhere it asks again, ever more rarely.
    ///
    /// # Errors
    /// A lost or departed peer.
    #[inline]
    pub fn wait(&self, sleepers: &Word<'_>, done: impl Fn(u64) -> bool) -> Result<u64> {
        if let (Where::Here(word), Where::Here(sleepers)) = (&self.place, &sleepers.place) {
            let round = u64::MAX;
            return self
                .exchange
                .wait_for(word, sleepers, self.context, round, done);
        }
        self.wait_there(done)
    }

    #[cold]
    fn wait_there(&self, done: impl Fn(u64) -> bool) -> Result<u64> {
        let pause = |pause| {
            self.exchange.check(self.context, u64::MAX)?;
            std::thread::sleep(pause);
            Ok(())
        };
        ask_again(|| self.load(), done, pause)
    }

    /// Wakes those who sleep on this word, after it was changed by one of the calls above.
    /// Changes from other nodes wake by themselves.
    #[inline]
    pub fn wake(&self, sleepers: &Word<'_>) {
        if let (Where::Here(word), Where::Here(sleepers)) = (&self.place, &sleepers.place) {
            sync::wake(word, sleepers);
        }
    }
}

/// Asks for the value of a word of another node until `done` accepts it, ever more rarely.
pub(crate) fn ask_again(
    load: impl Fn() -> Result<u64>,
    done: impl Fn(u64) -> bool,
    mut sleep: impl FnMut(Duration) -> Result<()>,
) -> Result<u64> {
    let mut pause = FIRST_PAUSE;
    loop {
        let now = load()?;
        if done(now) {
            return Ok(now);
        }
        sleep(pause)?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
