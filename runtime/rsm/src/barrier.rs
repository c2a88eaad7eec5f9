//! Barriers: by which an importer learns whether its accesses have reached the exporter (rsm 7.3, 7.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crate::code::Code;
use crate::controller::Scope;
use crate::import::Import;

/// Accesses of one segment.
pub const BARRIER_SEGMENT: u32 = 0x01;
/// Accesses of one node.
pub const BARRIER_NODE: u32 = 0x02;
/// Accesses of one segment by the calling thread.
pub const BARRIER_SEGMENT_THREAD: u32 = 0x11;
/// Accesses of one node by the calling thread.
pub const BARRIER_NODE_THREAD: u32 = 0x12;

/// A barrier of a connection. On one node a fence is all that any type needs; to another node every access is acknowledged.
#[derive(Debug)]
pub struct Barrier {
    import: Arc<Import>,
    name: u64,
    is_open: AtomicBool,
}

impl Barrier {
    /// Binds a new barrier to the connection; it serves implicit mode from now on.
    ///
    /// # Errors
    /// [`Code::BadSegHndl`]: the connection has ended; [`Code::BadBarrierPtr`]: there is no such type.
    pub fn init(import: &Arc<Import>, kind: u32) -> Result<Self, Code> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut state = import.state.lock();
        if state.disconnected {
            return Err(Code::BadSegHndl);
        }
        if !matches!(
            kind,
            BARRIER_SEGMENT | BARRIER_NODE | BARRIER_SEGMENT_THREAD | BARRIER_NODE_THREAD
        ) {
            return Err(Code::BadBarrierPtr);
        }
        let name = NEXT.fetch_add(1, Ordering::Relaxed);
        state.barrier = Some(name);
        Ok(Self {
            import: Arc::clone(import),
            name,
            is_open: AtomicBool::new(false),
        })
    }

    /// The controller of its segment.
    pub fn scope(&self) -> Scope {
        self.import.scope()
    }

    /// What tells it from every other barrier of this process.
    pub fn name(&self) -> u64 {
        self.name
    }

    /// Begins a span of accesses; anew if it was open.
    ///
    /// # Errors
    /// [`Code::BadSegHndl`]: the connection has ended; [`Code::BarrierOpenFailed`]: the segment's present memory cannot be had.
    pub fn open(&self) -> Result<(), Code> {
        let mut state = self.import.state.lock();
        if state.disconnected {
            return Err(Code::BadSegHndl);
        }
        match self.import.follow(&mut state) {
            // For the close to say.
            Ok(()) | Err(Code::ConnAborted) => {}
            Err(_) => return Err(Code::BarrierOpenFailed),
        }
        state.failed = false;
        self.is_open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Writes before this are at the segment before writes after it.
    ///
    /// # Errors
    /// [`Code::BarrierNotOpened`]; [`Code::BarrierFailure`]: an access of the span has failed.
    pub fn order(&self) -> Result<(), Code> {
        if !self.is_open.load(Ordering::Relaxed) {
            return Err(Code::BarrierNotOpened);
        }
        fence(Ordering::SeqCst);
        match self.import.state.lock().failed {
            true => Err(Code::BarrierFailure),
            false => Ok(()),
        }
    }

    /// Ends the span. Without an error every access of it has been made at the segment.
    ///
    /// # Errors
    /// [`Code::BarrierNotOpened`]; [`Code::ConnAborted`]: the exporter has ended the connection; [`Code::BarrierFailure`]: an
    /// access of the span has failed.
    pub fn close(&self) -> Result<(), Code> {
        if !self.is_open.swap(false, Ordering::Relaxed) {
            return Err(Code::BarrierNotOpened);
        }
        // Stores of the span, by whatever means, before the look at the counters.
        fence(Ordering::SeqCst);
        if self.import.is_aborted() {
            return Err(Code::ConnAborted);
        }
        match std::mem::take(&mut self.import.state.lock().failed) {
            true => Err(Code::BarrierFailure),
            false => Ok(()),
        }
    }
}

impl Barrier {
    /// The connection has no barrier afterwards.
    pub fn destroy(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        self.import.state.lock().barrier = None;
    }
}

impl Drop for Barrier {
    /// It serves its connection no more.
    fn drop(&mut self) {
        let mut state = self.import.state.lock();
        if state.barrier == Some(self.name) {
            state.barrier = None;
        }
    }
}
