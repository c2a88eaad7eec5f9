//! What names a posted descriptor, and what asking for it can answer (ve-memory.md section 9.3).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use thiserror::Error;

use crate::fault::Exception;

/// `status` of a handle whose result nobody has stored.
const NO_RESULT: i32 = -1;

#[derive(Debug)]
struct Status {
    status: AtomicI32,
    index: AtomicUsize,
    /// Its final result was taken, or it was never posted.
    finished: AtomicBool,
    seq: AtomicU64,
}

/// Names a posted descriptor: the `ve_dma_handle_t` of the C interface, reusable after its final result.
///
/// The ring keeps the handle until its result was taken, so a later `post` can store the result there (section 9.3, step 3).
#[derive(Debug, Clone)]
pub struct Handle(Arc<Status>);

impl Default for Handle {
    fn default() -> Self {
        Self::new()
    }
}

impl Handle {
    /// A handle for [`crate::Dma::post`].
    pub fn new() -> Self {
        Self(Arc::new(Status {
            status: AtomicI32::new(NO_RESULT),
            index: AtomicUsize::new(0),
            finished: AtomicBool::new(true),
            seq: AtomicU64::new(0),
        }))
    }

    /// The result that a later post has stored here, if one has.
    pub fn stored(&self) -> Option<Exception> {
        u16::try_from(self.0.status.load(Ordering::Acquire))
            .ok()
            .map(Exception::from_bits)
    }

    /// Number of its descriptor.
    pub fn index(&self) -> usize {
        self.0.index.load(Ordering::Relaxed)
    }

    pub(crate) fn is(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.finished.load(Ordering::Relaxed)
    }

    pub(crate) fn finish(&self) {
        self.0.finished.store(true, Ordering::Relaxed);
    }

    /// Number of its post.
    pub(crate) fn seq(&self) -> u64 {
        self.0.seq.load(Ordering::Relaxed)
    }

    /// True if nobody but the ring has it.
    pub(crate) fn is_gone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// A later post stores its result.
    pub(crate) fn store(&self, exception: Exception) {
        let status = i32::from(exception.bits());
        self.0.status.store(status, Ordering::Release);
    }

    pub(crate) fn posted(&self, index: usize, seq: u64) {
        self.0.status.store(NO_RESULT, Ordering::Relaxed);
        self.0.index.store(index, Ordering::Relaxed);
        self.0.seq.store(seq, Ordering::Relaxed);
        self.0.finished.store(false, Ordering::Relaxed);
    }
}

/// The next descriptor of the ring is in use: poll, then post again (EAGAIN).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the descriptor ring is full: poll earlier transfers first (EAGAIN)")]
pub struct RingFull;

/// What [`crate::Dma::poll`] cannot answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PollError {
    /// Not completed yet (EAGAIN).
    #[error("the transfer is not completed (EAGAIN)")]
    Pending,
    /// The handle had its final result already, and the descriptor may belong to another transfer.
    #[error(
        "handle of descriptor {index} is polled after its final result; post it again before polling"
    )]
    Stale {
        /// The descriptor.
        index: usize,
    },
}
