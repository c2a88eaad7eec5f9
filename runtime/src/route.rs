//! The data path, written twice: through a pointer, or through a queue.
//!
//! A route leads to one range of one rank. [`Route::Mapped`] is memory: callers use
//! [`SharedBytes`] and [`update`](crate::update) directly, with nothing between.
//! [`Route::Posted`] hands transfers to an engine and counts their completions.

use std::sync::Arc;

use windlass_mem::SharedBytes;

use crate::completion::{Queue, pieces};
use crate::error::{Error, Phase, Result};
use crate::mechanism::{Fault, RemoteRange};
use crate::pending::Pending;
use crate::staging::SLOT_BYTES;
use crate::update::{Kind, UpdateOp};

/// How the bytes of a target are reached.
#[derive(Clone)]
pub enum Route {
    /// Load and store.
    Mapped(SharedBytes),
    /// Post and complete.
    Posted(Posted),
}

/// Who moves the data of a route while its target computes (mpi-rma 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Progress {
    /// The origin's own loads and stores.
    Mapping,
    /// A device, or the kernel on behalf of the origin.
    Hardware,
    /// The helper thread of the target.
    Helper,
}

impl Progress {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Progress::Mapping => "mapping",
            Progress::Hardware => "hardware",
            Progress::Helper => "helper",
        }
    }
}

impl Route {
    /// Who moves the data while the target computes.
    pub fn progress(&self) -> Progress {
        match self {
            Route::Mapped(_) => Progress::Mapping,
            // Whoever runs updates for us runs everything; within `post` nobody does.
            Route::Posted(posted) if self.updates() && !posted.queue.limits().immediate => {
                Progress::Helper
            }
            Route::Posted(_) => Progress::Hardware,
        }
    }

    /// The word for people: `mapped` or `posted`.
    pub fn shape(&self) -> &'static str {
        match self {
            Route::Mapped(_) => "mapped",
            Route::Posted(_) => "posted",
        }
    }

    /// The part `offset..offset + len` of the range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn part(&self, offset: u64, len: u64) -> Result<Route> {
        let out_of_range = |size| Error::OutOfRange { offset, len, size };
        match self {
            Route::Mapped(bytes) => {
                let size = bytes.len() as u64;
                let start = usize::try_from(offset).map_err(|_| out_of_range(size))?;
                let count = usize::try_from(len).map_err(|_| out_of_range(size))?;
                let part = bytes.slice(start, count);
                Ok(Route::Mapped(part.map_err(|_| out_of_range(size))?))
            }
            Route::Posted(posted) => {
                let size = posted.remote.len;
                let remote = posted.remote.part(offset, len);
                Ok(Route::Posted(Posted {
                    remote: remote.ok_or_else(|| out_of_range(size))?,
                    ..posted.clone()
                }))
            }
        }
    }

    /// The same way, to wide elements that the guard of this context makes atomic.
    pub(crate) fn guarded(mut self, context: u32) -> Route {
        if let Route::Posted(posted) = &mut self {
            posted.remote.guard = context;
        }
        self
    }

    /// The same way for one window, whose failures [`Posted::flush`] tells to it alone.
    pub(crate) fn of_window(mut self, number: u32) -> Route {
        if let Route::Posted(posted) = &mut self {
            posted.remote.window = number;
        }
        self
    }

    /// Can updates by this route be atomic to the CPU's?
    pub fn updates(&self) -> bool {
        match self {
            Route::Mapped(_) => true,
            Route::Posted(posted) => posted.queue.limits().update_bytes > 0,
        }
    }
}

/// A range reached through an engine. Offsets count bytes from the start of the range.
#[derive(Clone)]
pub struct Posted {
    queue: Arc<Queue>,
    target: u32,
    remote: RemoteRange,
    /// No engine of this side reaches the bytes: transfers go as updates, by the target's helper.
    helped: bool,
}

impl Posted {
    /// `remote` of rank `target` through `queue`.
    pub fn new(queue: Arc<Queue>, target: u32, remote: RemoteRange) -> Posted {
        Posted {
            queue,
            target,
            remote,
            helped: false,
        }
    }

    /// The same, to bytes that the target's helper alone reaches.
    #[must_use]
    pub fn helped(self) -> Posted {
        Posted {
            helped: true,
            ..self
        }
    }

    /// Do transfers of both arrive in the order in which they are posted?
    pub fn is_ordered_with(&self, other: &Posted) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue) && self.target == other.target
    }

    /// Does a transfer under way with this rank use memory of this side, as a get does? The order of others behind it
    /// is not given then.
    pub fn uses_memory(&self) -> bool {
        self.queue.state.lock().holds(self.target)
    }

    fn part(&self, offset: u64, len: usize) -> Result<RemoteRange> {
        self.remote
            .part(offset, len as u64)
            .ok_or(Error::OutOfRange {
                offset,
                len: len as u64,
                size: self.remote.len,
            })
    }

    /// Copies `src` there. On return `src` is free; [`flush`](Self::flush) completes it there.
    ///
    /// # Errors
    /// Out of range, or what the engine refuses.
    pub fn put(&self, offset: u64, src: &[u8]) -> Result<()> {
        let remote = self.part(offset, src.len())?;
        if self.helped {
            return self.replace(remote, src);
        }
        self.queue.put(self.target, remote, src)
    }

    /// Copies from there; complete on return.
    ///
    /// # Errors
    /// Out of range, what the engine refuses, a lost peer.
    pub fn get(&self, offset: u64, dst: &mut [u8]) -> Result<()> {
        let remote = self.part(offset, dst.len())?;
        if self.helped {
            return self.fetch(remote, dst);
        }
        self.queue.get(self.target, remote, dst)
    }

    fn replace(&self, remote: RemoteRange, src: &[u8]) -> Result<()> {
        let op = UpdateOp::Replace;
        self.queue
            .update(self.target, remote, Kind::U8, op, src, None)
    }

    fn fetch(&self, remote: RemoteRange, dst: &mut [u8]) -> Result<()> {
        let op = UpdateOp::NoOp;
        self.queue
            .update(self.target, remote, Kind::U8, op, &[], Some(dst))
    }

    /// Begins a put from memory that stays untouched until the [`Pending`] is over.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn start_put(&self, offset: u64, local: &SharedBytes) -> Result<Pending> {
        let remote = self.part(offset, local.len())?;
        if self.helped {
            for (part, chunk) in pieces(remote, SLOT_BYTES) {
                let mut copy = vec![0; part.len()];
                let read = local.read(part.start, &mut copy);
                read.map_err(|e| self.local(&e))?;
                self.replace(chunk, &copy)?;
            }
            return Ok(Pending::over(&self.queue, self.target));
        }
        Queue::start_put(&self.queue, self.target, remote, local)
    }

    /// Begins a get into memory that belongs to the transfer until the [`Pending`] is over.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn start_get(&self, offset: u64, local: &SharedBytes) -> Result<Pending> {
        let remote = self.part(offset, local.len())?;
        if self.helped {
            for (part, chunk) in pieces(remote, SLOT_BYTES) {
                let mut copy = vec![0; part.len()];
                self.fetch(chunk, &mut copy)?;
                let written = local.write(part.start, &copy);
                written.map_err(|e| self.local(&e))?;
            }
            return Ok(Pending::over(&self.queue, self.target));
        }
        Queue::start_get(&self.queue, self.target, remote, local)
    }

    fn local(&self, error: &windlass_mem::Error) -> Error {
        let fault = Fault::Other(error.to_string());
        self.queue.fail(self.target, Phase::Post, fault)
    }

    /// Updates elements there, atomic to every other update of them. Without `fetched` it is
    /// complete there after [`flush`](Self::flush); with it, on return.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Error::Update`] for lengths that do not agree.
    pub fn update(
        &self,
        offset: u64,
        kind: Kind,
        op: UpdateOp,
        operand: &[u8],
        fetched: Option<&mut [u8]>,
    ) -> Result<()> {
        let len = match &fetched {
            Some(out) => out.len(),
            None => operand.len(),
        };
        let remote = self.part(offset, len)?;
        self.queue
            .update(self.target, remote, kind, op, operand, fetched)
    }

    /// Replaces one element if it equals `compare`; `fetched` gets the old value.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn compare_swap(
        &self,
        offset: u64,
        kind: Kind,
        compare: &[u8],
        swap: &[u8],
        fetched: &mut [u8],
    ) -> Result<()> {
        let remote = self.part(offset, kind.size())?;
        self.queue
            .compare_swap(self.target, remote, kind, compare, swap, fetched)
    }

    /// Adds to a word there; the answer is the old value.
    pub(crate) fn start_add(&self, offset: u64, n: u64) -> Result<Pending> {
        let remote = self.part(offset, 8)?;
        Queue::start_add(&self.queue, self.target, remote, n)
    }

    /// Changes a word there. Nobody waits for it, not even for long for room: for one who leaves.
    ///
    /// # Errors
    /// Out of range, no room in time, a lost peer.
    pub(crate) fn tell(&self, offset: u64, op: UpdateOp, operand: u64) -> Result<()> {
        let remote = self.part(offset, 8)?;
        self.queue.tell(self.target, remote, op, operand)
    }

    /// Waits until everything posted to this rank before is complete there. What other threads post
    /// meanwhile is not waited for.
    ///
    /// # Errors
    /// The window's first transfer that failed since its last flush.
    pub fn flush(&self) -> Result<()> {
        self.queue.flush(self.target, self.remote.window)
    }
}
