//! Transfers under way that somebody will wait for.

use std::sync::Arc;

use windlass_mem::SharedBytes;

use crate::completion::{Queue, pieces};
use crate::error::{Phase, Result};
use crate::mechanism::{Fault, RemoteRange, Verb};
use crate::staging::SLOT_BYTES;
use crate::tickets::Held;
use crate::update::{Kind, UpdateOp};

/// Memory from this size on is registered for its transfer rather than copied to or from a buffer of the engine's.
const LENT_BYTES: usize = SLOT_BYTES;

impl Queue {
    pub(crate) fn start_put(
        this: &Arc<Queue>,
        target: u32,
        remote: RemoteRange,
        local: &SharedBytes,
    ) -> Result<Pending> {
        Self::start(this, target, remote, local, true)
    }

    pub(crate) fn start_get(
        this: &Arc<Queue>,
        target: u32,
        remote: RemoteRange,
        local: &SharedBytes,
    ) -> Result<Pending> {
        Self::start(this, target, remote, local, false)
    }

    /// Adds to a word there; [`Pending::word`] answers the old value.
    pub(crate) fn start_add(
        this: &Arc<Queue>,
        target: u32,
        remote: RemoteRange,
        n: u64,
    ) -> Result<Pending> {
        let operand = &n.to_ne_bytes();
        let verb = || Verb::Update {
            kind: Kind::U64,
            op: UpdateOp::Sum,
            operand,
            fetch: true,
        };
        let ticket = this.post(target, remote, Held::Nothing, true, verb)?;
        let mut pending = Pending::over(this, target);
        pending.tickets.push(ticket);
        Ok(pending)
    }

    fn start(
        this: &Arc<Queue>,
        target: u32,
        remote: RemoteRange,
        local: &SharedBytes,
        put: bool,
    ) -> Result<Pending> {
        let mut pending = Pending::over(this, target);
        match pending.begin(remote, local, put) {
            Ok(()) => Ok(pending),
            Err(error) => {
                // What was begun uses memory that may go with the error.
                let _ = pending.wait();
                Err(error)
            }
        }
    }
}

impl Pending {
    /// Of a transfer that left nothing to wait for.
    pub(crate) fn over(queue: &Arc<Queue>, target: u32) -> Pending {
        Pending {
            queue: Arc::clone(queue),
            target,
            tickets: Vec::new(),
        }
    }

    fn begin(&mut self, remote: RemoteRange, local: &SharedBytes, put: bool) -> Result<()> {
        let (this, target) = (Arc::clone(&self.queue), self.target);
        let limits = this.limits();
        let seen = !limits.immediate && this.engine.sees(local);
        let lends = !limits.immediate && !seen && local.len() >= LENT_BYTES;
        let lease = lends.then(|| this.engine.lend(local)).flatten();
        let seen = seen || lease.is_some();
        let step = if seen { limits.max_bytes } else { SLOT_BYTES };
        for (part, chunk) in pieces(remote, step) {
            let bytes = local
                .slice(part.start, part.len())
                .map_err(|e| this.fail(target, Phase::Post, Fault::Other(e.to_string())))?;
            if seen {
                let held = Held::Memory(bytes.clone(), lease.clone());
                let verb = || {
                    if put {
                        Verb::Put(&bytes)
                    } else {
                        Verb::Get(&bytes)
                    }
                };
                self.tickets
                    .push(this.post(target, chunk, held, true, verb)?);
                continue;
            }
            // Memory the device cannot see goes through a buffer: the transfer is over (a get)
            // or its source is free (a put) when this returns.
            let mut copy = vec![0u8; part.len()];
            let moved = if put {
                bytes
                    .read(0, &mut copy)
                    .map(|()| this.put(target, chunk, &copy))
            } else {
                let got = this.get(target, chunk, &mut copy);
                bytes.write(0, &copy).map(|()| got)
            };
            moved.map_err(|e| this.fail(target, Phase::Post, Fault::Other(e.to_string())))??;
        }
        Ok(())
    }
}

/// Transfers begun and not yet waited for. Dropping it leaves them running: the memory they use
/// stays referenced by the queue until they complete.
#[must_use = "a transfer is complete only after `wait` or a successful `test`"]
pub struct Pending {
    pub(crate) queue: Arc<Queue>,
    pub(crate) target: u32,
    pub(crate) tickets: Vec<u64>,
}

impl Pending {
    /// Is nothing left of it to wait for?
    pub fn is_over(&self) -> bool {
        self.tickets.is_empty()
    }

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

    /// Waits for the one answer, a word.
    pub(crate) fn word(self) -> Result<u64> {
        let mut old = Vec::new();
        for &ticket in &self.tickets {
            let (result, _) = self.queue.wait(|state| state.take(ticket))?;
            old = result.map_err(|fault| self.queue.fail(self.target, Phase::Complete, fault))?;
        }
        let old = <[u8; 8]>::try_from(old).map_err(|old| {
            let fault = Fault::Other(format!("an answer of {} bytes for a word", old.len()));
            self.queue.fail(self.target, Phase::Complete, fault)
        });
        old.map(u64::from_ne_bytes)
    }

    /// Waits until everything is complete, also where something failed.
    ///
    /// # Errors
    /// The first transfer that failed; a lost job, and then some may still run.
    pub fn wait(mut self) -> Result<()> {
        let mut first = Ok(());
        while let Some(ticket) = self.tickets.pop() {
            let (result, _held) = match self.queue.wait(|state| state.take(ticket)) {
                Ok(taken) => taken,
                Err(lost) => {
                    self.tickets.push(ticket);
                    return Err(lost);
                }
            };
            if let Err(fault) = result {
                first = first.and(Err(self.queue.fail(self.target, Phase::Complete, fault)));
            }
        }
        first
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
