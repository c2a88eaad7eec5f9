//! Reads and writes of an imported segment (rsm 7.1).
//!
//! A transfer has three parts: [`Import::begin`] judges it and says where its bytes are, the caller copies, and
//! [`Import::finish`] says whether the exporter was there all the time. C copies by addresses, Rust by slices.

use std::sync::atomic::{Ordering, fence};

use windlass_mem::{SharedBytes, lend};

use crate::access::{PERM_READ, PERM_WRITE};
use crate::code::Code;
use crate::import::{Import, State};
use crate::line::Job;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the segment.
    Get,
    /// To the segment.
    Put,
}

/// A transfer that was found right: where its bytes are.
#[derive(Debug)]
pub struct Transfer {
    /// The segment's memory.
    pub place: Place,
    /// First byte of the transfer.
    pub at: usize,
}

/// Where a segment's memory is.
#[derive(Debug)]
pub enum Place {
    /// Here: the whole segment.
    Here(SharedBytes),
    /// On another node: [`Import::carry`] transfers.
    There,
}

impl Import {
    /// Judges a transfer of `count` elements of `size` bytes (1, 2, 4 or 8), from or to `offset`.
    ///
    /// # Errors
    /// [`Code::BadMemAlignment`], [`Code::BadLength`], [`Code::BadSegHndl`], [`Code::ConnAborted`] and others of an implicit
    /// mapping, [`Code::PermDenied`], [`Code::BadOffset`], [`Code::BarrierUninitialized`], [`Code::BarrierOpenFailed`], in this
    /// order.
    #[inline]
    pub fn begin(
        &self,
        way: Way,
        offset: i64,
        count: usize,
        size: usize,
    ) -> Result<Transfer, Code> {
        if offset & (size as i64 - 1) != 0 {
            return Err(Code::BadMemAlignment);
        }
        let len = count.checked_mul(size).ok_or(Code::BadLength)?;
        let mut state = self.state.lock();
        self.map_implicitly(&mut state)?;
        let at = self.judge(&state, way, offset, len)?;
        self.open(&mut state)?;
        let place = match self.line {
            Some(_) => Place::There,
            None => Place::Here(self.data(&mut state)?),
        };
        Ok(Transfer { place, at })
    }

    /// A connection that has no mapping gets one of the whole segment (rsm 6.3); not one to another node.
    ///
    /// # Errors
    /// [`Code::BadSegHndl`]: disconnected; [`Code::ConnAborted`]; why the system does not map.
    #[inline]
    pub(crate) fn map_implicitly(&self, state: &mut State) -> Result<(), Code> {
        if state.disconnected {
            return Err(Code::BadSegHndl);
        }
        if state.window.is_some() || state.implicit {
            return Ok(());
        }
        if self.is_aborted() {
            return Err(Code::ConnAborted);
        }
        if self.line.is_none() {
            self.data(state)?;
            state.implicit = true;
        }
        Ok(())
    }

    /// Right and range. Gives the first byte.
    #[inline]
    fn judge(&self, state: &State, way: Way, offset: i64, len: usize) -> Result<usize, Code> {
        let right = match way {
            Way::Get => PERM_READ,
            Way::Put => PERM_WRITE,
        };
        if !self.has(right) {
            return Err(Code::PermDenied);
        }
        let at = usize::try_from(offset).map_err(|_| Code::BadOffset)?;
        let (start, size, outside) = match &state.window {
            Some(window) => (window.offset, window.len(), Code::BadOffset),
            None => (0, self.len, Code::BadLength),
        };
        let inside = at
            .checked_sub(start)
            .is_some_and(|at| len <= size && at <= size - len);
        inside.then_some(at).ok_or(outside)
    }

    /// In implicit mode there must be a barrier, which is opened now; in explicit mode what fails here is for its close.
    #[inline]
    fn open(&self, state: &mut State) -> Result<(), Code> {
        let explicit = self.explicit.load(Ordering::Relaxed);
        if !explicit && state.barrier.is_none() {
            return Err(Code::BarrierUninitialized);
        }
        match self.follow(state) {
            Ok(()) => Ok(()),
            Err(_) if explicit => {
                state.failed = true;
                Ok(())
            }
            Err(Code::ConnAborted) => Err(Code::ConnAborted),
            Err(_) => Err(Code::BarrierOpenFailed),
        }
    }

    /// Whether a transfer of implicit mode has done what it should. Its accesses come before this.
    ///
    /// # Errors
    /// [`Code::ConnAborted`]: what was read is undefined, what was written may be lost.
    #[inline]
    pub fn finish(&self, way: Way) -> Result<(), Code> {
        if self.explicit.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A store must have been made before the exporter is known to have been there (rsm 7.4); of loads the look itself sees to
        // that.
        if way == Way::Put {
            fence(Ordering::SeqCst);
        }
        match self.is_aborted() {
            false => Ok(()),
            true => Err(Code::ConnAborted),
        }
    }

    /// Carries out a transfer with a segment of another node that was found right, from or to `local`, and answers for it: what was
    /// put is there when this returns. No size of access is promised (rsm 7.1): an element may be seen half written.
    ///
    /// # Errors
    /// [`Code::ConnAborted`], [`Code::BarrierFailure`]; in explicit mode the barrier's close says it.
    pub fn carry(&self, way: Way, at: usize, local: &SharedBytes) -> Result<(), Code> {
        let job = Job { way, at, local };
        match self.carried(&job) {
            Ok(()) => self.finish(way),
            Err(code) => self.missed(code),
        }
    }

    fn carried(&self, job: &Job<'_>) -> Result<(), Code> {
        let line = self.line.as_ref().ok_or(Code::InternalError)?;
        if self.is_aborted() {
            return Err(Code::ConnAborted);
        }
        if job.local.is_empty() {
            return Ok(());
        }
        let adapter = self.controller.adapter()?;
        line.carry(&adapter, &|| self.has_ended(), job)
    }

    /// What a transfer answers that was not carried out.
    fn missed(&self, code: Code) -> Result<(), Code> {
        if self.explicit.load(Ordering::Relaxed) {
            self.state.lock().failed = true;
            return Ok(());
        }
        match code {
            Code::ConnAborted => Err(code),
            _ => Err(Code::BarrierFailure),
        }
    }

    /// Reads from `offset` on, by single accesses of `size` bytes.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) and [`finish`](Self::finish); [`Code::BadLength`]: no whole number of elements.
    pub fn get(&self, offset: i64, into: &mut [u8], size: usize) -> Result<(), Code> {
        let count = whole(into.len(), size)?;
        let Transfer { place, at } = self.begin(Way::Get, offset, count, size)?;
        let Place::Here(bytes) = place else {
            let (local, _kept) = lend(vec![0u8; into.len()]);
            self.carry(Way::Get, at, &local)?;
            return local.read(0, into).map_err(|_| Code::InternalError);
        };
        let step = step(size, into.len());
        for (part, at) in into.chunks_mut(step).zip((at..).step_by(step)) {
            bytes.read(at, part).map_err(|_| Code::InternalError)?;
        }
        self.finish(Way::Get)
    }

    /// Writes from `offset` on, by single accesses of `size` bytes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put(&self, offset: i64, from: &[u8], size: usize) -> Result<(), Code> {
        let count = whole(from.len(), size)?;
        let Transfer { place, at } = self.begin(Way::Put, offset, count, size)?;
        let Place::Here(bytes) = place else {
            let (local, _kept) = lend(from.to_vec());
            return self.carry(Way::Put, at, &local);
        };
        let step = step(size, from.len());
        for (part, at) in from.chunks(step).zip((at..).step_by(step)) {
            bytes.write(at, part).map_err(|_| Code::InternalError)?;
        }
        self.finish(Way::Put)
    }
}

/// Bytes are copied as the machine likes, wider elements one by one.
fn step(size: usize, len: usize) -> usize {
    if size == 1 { len.max(1) } else { size }
}

fn whole(len: usize, size: usize) -> Result<usize, Code> {
    match size {
        1 | 2 | 4 | 8 if len.is_multiple_of(size) => Ok(len / size),
        _ => Err(Code::BadLength),
    }
}
