//! What simulations and benchmarks use of the inside of a window: its locks and its
//! post-start-complete-wait over words that somebody else provides, and the check of its epochs.

use crate::core::Reach;
use crate::epochs::Epochs;
pub use crate::lock::{LockKind, LockWord, Name, Words as LockWords};
use crate::lock::{acquire_all, acquire_slowly, release, release_all, try_acquire};
pub use crate::pscw::Words as PscwWords;
use crate::pscw::{post, reached, start};
use crate::state::Call;
use crate::world::Rank;

/// A lock, by rank `me`, that has a cpu to itself.
///
/// # Errors
/// Those of the words; so for every call here.
pub fn lock<W: LockWords>(words: &W, kind: LockKind, me: u32) -> Result<(), W::Error> {
    if try_acquire(words, kind, me)? {
        return Ok(());
    }
    acquire_slowly(words, kind, me, 0)
}

/// Its end.
///
/// # Errors
/// See [`lock`].
pub fn unlock<W: LockWords>(words: &W, kind: LockKind, me: u32) -> Result<(), W::Error> {
    release(words, kind, me)
}

/// A lock on all parts, and its end.
///
/// # Errors
/// See [`lock`].
pub fn lock_all<W: LockWords>(all: &[W], me: u32) -> Result<(), W::Error> {
    acquire_all(all, me, 0)?;
    release_all(all, me)
}

/// A round in which this rank exposes its part to some and accesses those of others.
///
/// # Errors
/// See [`lock`].
pub fn pscw<W: PscwWords>(words: &W, origins: &[u32], targets: &[u32]) -> Result<(), W::Error> {
    post(words, origins.iter().copied())?;
    start(words, targets.iter().copied())?;
    for &target in targets {
        words.add_completed(target)?;
    }
    words.wait_completed(|counter| reached(counter, origins.len() as u64))
}

/// Bytes that a rank keeps of each target of a window, beside the routes themselves.
pub const fn target_bytes() -> usize {
    // A bit of its posts takes a byte.
    size_of::<Reach>() + 1 + windlass_runtime::exchange::simulate::target_bytes(NOTE_BYTES)
}

/// What ranks tell each other about their part.
const NOTE_BYTES: usize = 20;

/// The epoch state of a rank that holds one lock.
pub struct Locked(Epochs);

impl Locked {
    /// On a window of so many ranks.
    pub fn new(ranks: u32, target: u32) -> Locked {
        let epochs = Epochs::new(ranks as usize, false);
        epochs.claim(Rank(target));
        Locked(epochs)
    }

    /// May it put to that rank? What every operation asks.
    pub fn may_put(&self, target: u32) -> bool {
        self.0.may_operate(Rank(target))
    }

    /// What the table says of an unlock of that rank: a look at all ranks.
    pub fn may_unlock(&self, target: u32) -> bool {
        self.0.check(Call::Unlock, Some(Rank(target))).is_ok()
    }
}
