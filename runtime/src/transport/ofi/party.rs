//! A peer, and whether it is still there: the library says only that it takes nothing now.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use windlass_native::ofi::PeerId;

use crate::mechanism::Fault;

/// A peer that takes nothing for so long, with nothing on its way to it, is gone: it has never taken anything, ...
const CONNECT: Duration = Duration::from_secs(30);

/// ... or its connection has ended before. One that was only cut off for a wrong key makes another at once.
const RECONNECT: Duration = Duration::from_secs(3);

/// A peer.
pub(super) struct Party {
    pub(super) id: PeerId,
    /// Transfers that have not ended.
    pub(super) under_way: AtomicUsize,
    /// Its last transfer has failed.
    failed: AtomicBool,
    /// Since when it takes nothing, in nanoseconds since the engine began; 0: it does.
    pub(super) silent_ns: AtomicU64,
}

impl Party {
    pub(super) fn new(id: PeerId) -> Party {
        Party {
            id,
            under_way: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            silent_ns: AtomicU64::new(0),
        }
    }

    /// It has taken no transfer at `now_ns`. An error when that has lasted too long.
    pub(super) fn refuses(&self, now_ns: u64) -> Result<(), Fault> {
        if self.under_way.load(Ordering::Relaxed) > 0 {
            return Ok(()); // full; an end comes
        }
        let since = self.silent_ns.load(Ordering::Relaxed);
        if since == 0 {
            self.silent_ns.store(now_ns.max(1), Ordering::Relaxed);
            return Ok(());
        }
        let limit = match self.failed.load(Ordering::Relaxed) {
            true => RECONNECT,
            false => CONNECT,
        };
        if Duration::from_nanos(now_ns.saturating_sub(since)) < limit {
            return Ok(());
        }
        let text = format!("it takes no connection for {} s", limit.as_secs());
        Err(Fault::Gone(text))
    }

    /// A transfer has ended.
    pub(super) fn ended(&self, well: bool) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.failed.store(!well, Ordering::Relaxed);
    }
}
