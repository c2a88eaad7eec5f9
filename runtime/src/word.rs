//! One synchronisation word, here or on another node.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_mem::sync;
use windlass_node::control;

use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::route::Route;
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
}

impl WordName {
    /// Whose word it is, and where it stands among the words of (context, local rank).
    pub(crate) fn place(self) -> (u32, fn(u32, u32) -> usize) {
        match self {
            WordName::Lock(rank) => (rank, control::lock),
            WordName::Ticket(rank) => (rank, control::ticket),
            WordName::Serving(rank) => (rank, control::serving),
            WordName::LockSleepers(rank) => (rank, control::lock_sleepers),
        }
    }
}

/// A synchronisation word: a `u64` in the control segment of its rank's node.
pub struct Word<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) context: u32,
    pub(crate) place: Where<'a>,
}

pub(crate) enum Where<'a> {
    Here(&'a AtomicU64),
    There(&'a Route, u64),
}

impl Word<'_> {
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
            Where::There(..) => self.there(UpdateOp::Or, bits),
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
            Where::There(..) => self.there(UpdateOp::And, bits),
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
    pub fn wait(&self, sleepers: &Word<'_>, done: impl Fn(u64) -> bool) -> Result<u64> {
        let exchange = self.exchange;
        if let (Where::Here(word), Where::Here(sleepers)) = (&self.place, &sleepers.place) {
            let seen = Cell::new(0);
            let look = || {
                seen.set(word.load(Ordering::SeqCst));
                done(seen.get())
            };
            if exchange.polled(look) {
                return Ok(seen.get());
            }
            let oversubscribed = exchange.oversubscribed();
            return sync::wait(word, sleepers, oversubscribed, done, || {
                exchange.check(self.context, u64::MAX)
            });
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let now = self.load()?;
            if done(now) {
                return Ok(now);
            }
            exchange.check(self.context, u64::MAX)?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
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
