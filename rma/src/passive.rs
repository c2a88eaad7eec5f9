//! What only passive-target epochs have (mpi-rma 3, Request-based forms; 4, Passive target):
//! operations with requests, and flushes.

use windlass_mem::sync;
use windlass_runtime::Route;

use crate::core::Status;
use crate::element::{Element, Reducible};
use crate::epoch::{Epoch, Kind, Passive};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::op::Op;
use crate::request::{Buffer, Request};
use crate::transfer::Way;
use crate::world::Rank;

impl<T: Element, K: Kind> Epoch<'_, T, K> {
    /// Begins a put of the whole buffer to the elements of `target` from `disp` on.
    ///
    /// # Errors
    /// As [`put`](Self::put); the buffer is dropped then.
    #[track_caller]
    pub fn rput(&self, buffer: Buffer<T>, target: Rank, disp: usize) -> Result<Request<Buffer<T>>>
    where
        K: Passive,
    {
        let Way { reach, offset } = self.way("rput", target, disp, buffer.len())?;
        let bytes = buffer.bytes();
        let pending = match &reach.route {
            Route::Mapped(there) => match there.copy(offset, bytes, 0, bytes.len()) {
                Ok(()) => {
                    sync::stored();
                    None
                }
                Err(error) => return Err(self.core.refused("rput", target, error)),
            },
            Route::Posted(posted) => {
                self.core.enter(Status::Put);
                match posted.start_put(offset as u64, bytes) {
                    Ok(pending) => Some(pending),
                    Err(error) => {
                        return Err(self.core.failed_with(buffer, "rput", target, error));
                    }
                }
            }
        };
        Ok(self.core.request(buffer, pending, target, "rput"))
    }

    /// Begins a get of the elements of `target` from `disp` on, filling the whole buffer.
    ///
    /// # Errors
    /// As [`rput`](Self::rput).
    #[track_caller]
    pub fn rget(&self, buffer: Buffer<T>, target: Rank, disp: usize) -> Result<Request<Buffer<T>>>
    where
        K: Passive,
    {
        let Way { reach, offset } = self.way("rget", target, disp, buffer.len())?;
        let bytes = buffer.bytes();
        let pending = match &reach.route {
            Route::Mapped(there) => {
                sync::pay();
                match bytes.copy(0, there, offset, bytes.len()) {
                    Ok(()) => None,
                    Err(error) => return Err(self.core.refused("rget", target, error)),
                }
            }
            Route::Posted(posted) => {
                self.core.enter(Status::Get);
                match posted.start_get(offset as u64, bytes) {
                    Ok(pending) => Some(pending),
                    Err(error) => {
                        return Err(self.core.failed_with(buffer, "rget", target, error));
                    }
                }
            }
        };
        Ok(self.core.request(buffer, pending, target, "rget"))
    }
}

impl<T: Reducible, K: Kind> Epoch<'_, T, K> {
    /// Begins an [`accumulate`](Self::accumulate) of the whole buffer.
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate); the buffer is dropped then.
    #[track_caller]
    pub fn raccumulate(
        &self,
        buffer: Buffer<T>,
        target: Rank,
        disp: usize,
        op: Op,
    ) -> Result<Request<Buffer<T>>>
    where
        K: Passive,
    {
        let name = "raccumulate";
        // Operands are copied out before this returns.
        self.update(name, (target, disp, buffer.len()), op, &buffer, None)?;
        Ok(self.core.request(buffer, None, target, name))
    }

    /// Begins a [`get_accumulate`](Self::get_accumulate) of the whole buffer `src` into `result`;
    /// both come back together. With [`Op::NoOp`] `src` is not looked at and may be empty.
    ///
    /// # Errors
    /// As [`get_accumulate`](Self::get_accumulate); the buffers are dropped then.
    #[track_caller]
    pub fn rget_accumulate(
        &self,
        src: Buffer<T>,
        mut result: Buffer<T>,
        target: Rank,
        disp: usize,
        op: Op,
    ) -> Result<Request<(Buffer<T>, Buffer<T>)>>
    where
        K: Passive,
    {
        let name = "rget_accumulate";
        let operand = if matches!(op, Op::NoOp) { &[] } else { &*src };
        if !matches!(op, Op::NoOp) && src.len() != result.len() {
            return Err(self.core.bad_count(name, "result", result.len(), src.len()));
        }
        // Results have arrived before this returns.
        let range = (target, disp, result.len());
        self.update(name, range, op, operand, Some(&mut result))?;
        Ok(self.core.request((src, result), None, target, name))
    }
}

impl<T: Element, K: Kind> Epoch<'_, T, K> {
    /// Completes the operations to `target`, here and there.
    ///
    /// On a mapped route that is no instruction at all: the stores are done, and the thread now
    /// owes a fence before its next load of shared memory (measured-designs 2).
    ///
    /// # Errors
    /// [`Error::BadRank`], [`Error::NotLocked`]; [`Error::Transfer`] for the first operation that
    /// failed since the last flush; [`Error::PeerLost`].
    #[inline]
    #[track_caller]
    pub fn flush(&self, target: Rank) -> Result<()>
    where
        K: Passive,
    {
        sync::owe_stored();
        if self.kind.covers(self.core, target)
            && let Some(reach) = self.core.reach.get(target.0 as usize)
            && !reach.is_posted
        {
            return Ok(());
        }
        self.flush_slowly(target)
    }

    /// A flush that waits, or is refused.
    #[inline(never)]
    #[track_caller]
    fn flush_slowly(&self, target: Rank) -> Result<()> {
        self.way("flush", target, 0, 0)?;
        self.core.drain("flush", target)
    }

    /// Completes the operations to every target, here and there.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[track_caller]
    pub fn flush_all(&self) -> Result<()>
    where
        K: Passive,
    {
        sync::owe_stored();
        self.core.drain_all("flush_all")
    }

    /// Completes the operations to `target` at this rank: buffers may be used again.
    ///
    /// Plain operations are locally complete on return anyhow, and requests by their own wait.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[inline]
    #[track_caller]
    pub fn flush_local(&self, target: Rank) -> Result<()>
    where
        K: Passive,
    {
        self.flush(target)
    }

    /// Completes the operations to every target at this rank.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[track_caller]
    pub fn flush_local_all(&self) -> Result<()>
    where
        K: Passive,
    {
        self.flush_all()
    }

    /// A memory barrier for loads and stores of this rank's own part. Completes no operation.
    #[inline]
    pub fn sync(&self)
    where
        K: Passive,
    {
        sync::owe();
        sync::pay();
    }
}
