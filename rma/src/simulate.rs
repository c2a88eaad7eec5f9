//! The locks and the post-start-complete-wait of a window over words that somebody else provides: for
//! a simulation of more ranks than one machine has. The algorithms are those of a window.

use crate::core::Reach;
pub use crate::lock::{LockKind, LockWord, Name, Words as LockWords};
use crate::lock::{acquire_all, acquire_slowly, release, try_acquire};
pub use crate::pscw::Words as PscwWords;
use crate::pscw::{post, reached, start};

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
    all.iter()
        .try_for_each(|words| release(words, LockKind::Shared, me))
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
