//! Transfers under way that somebody will wait for.

use std::sync::Arc;

use crate::completion::Queue;
use crate::error::{Phase, Result};

/// Transfers begun and not yet waited for. Dropping it leaves them running: the memory they use
/// stays referenced by the queue until they complete.
#[must_use = "a transfer is complete only after `wait` or a successful `test`"]
pub struct Pending {
    pub(crate) queue: Arc<Queue>,
    pub(crate) target: u32,
    pub(crate) tickets: Vec<u64>,
}

impl Pending {
    /// Is everything complete? Never blocks.
    ///
    /// # Errors
    /// The first transfer that failed.
    pub fn test(&mut self) -> Result<bool> {
        self.queue.reap();
        while let Some(&ticket) = self.tickets.last() {
            let Some((result, _held)) = self.queue.state.lock().take(ticket) else {
                return Ok(false);
            };
            self.tickets.pop();
            result.map_err(|fault| self.queue.fail(self.target, Phase::Complete, fault))?;
        }
        Ok(true)
    }

    /// Waits until everything is complete.
    ///
    /// # Errors
    /// The first transfer that failed.
    pub fn wait(mut self) -> Result<()> {
        while let Some(ticket) = self.tickets.pop() {
            let (result, _held) = match self.queue.wait(|state| state.take(ticket)) {
                Ok(taken) => taken,
                Err(lost) => {
                    self.tickets.push(ticket);
                    return Err(lost);
                }
            };
            result.map_err(|fault| self.queue.fail(self.target, Phase::Complete, fault))?;
        }
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        for ticket in self.tickets.drain(..) {
            state.detach(ticket);
        }
    }
}
