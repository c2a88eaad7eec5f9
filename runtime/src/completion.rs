//! Tickets and per-target counters of one engine: the place where posted transfers are waited for.
//!
//! Every transfer gets a ticket; its entry (`tickets.rs`) keeps what the device may still touch (a bounce
//! slot, registered memory) until the completion arrives, whoever polls it. A failed transfer
//! that nobody waits for is kept as the first failure of its window at its target, which that
//! window's next flush of it reports; what belongs to no window, any flush.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use windlass_mem::SharedBytes;
use windlass_mem::sync::Step;

use crate::error::{Error, Phase, Result, cause};
use crate::mechanism::{
    Accepted, Engine, Fault, Limits, MechanismId, PostError, RemoteRange, Transfer, Verb,
};
use crate::progress::Health;
use crate::staging::{SLOT_BYTES, Slot};
use crate::tickets::{Held, State};
use crate::update::{Kind, UpdateOp};

/// How long a wait sleeps at most before it looks for a lost job.
const IDLE: Duration = Duration::from_millis(1);

/// How long a rank that leaves tries to tell a peer that has no room or no connection yet.
const TELL: Duration = Duration::from_millis(50);

/// Completions taken in before a waiter looks whether its own is there: others may go on posting.
const REAPED: usize = 256;

/// Bounce slots that one get keeps in flight.
const GET_DEPTH: usize = 8;

/// One engine and everything outstanding on it.
pub struct Queue {
    mechanism: MechanismId,
    pub(crate) engine: Arc<dyn Engine>,
    health: Arc<Health>,
    pub(crate) state: Mutex<State>,
}

impl Queue {
    /// A queue over `engine`. One per engine: completions are demultiplexed here.
    pub fn new(mechanism: MechanismId, engine: Arc<dyn Engine>, health: Arc<Health>) -> Queue {
        Queue {
            mechanism,
            engine,
            health,
            state: Mutex::default(),
        }
    }

    /// What the engine can do.
    pub fn limits(&self) -> Limits {
        self.engine.limits()
    }

    pub(crate) fn fail(&self, peer: u32, phase: Phase, fault: Fault) -> Error {
        match fault {
            Fault::Gone(detail) => {
                self.health.told(peer);
                Error::PeerLost { rank: peer, detail }
            }
            fault => Error::Mechanism {
                mechanism: self.mechanism,
                phase,
                peer,
                source: cause(fault),
            },
        }
    }

    /// Takes in completions that are there. `true` if there was one.
    pub(crate) fn reap(&self) -> bool {
        let mut any = false;
        for completion in std::iter::from_fn(|| self.engine.poll()).take(REAPED) {
            any = true;
            self.state
                .lock()
                .complete(completion.ticket, completion.result);
        }
        any
    }

    /// Drives the engine until `ready` answers.
    pub(crate) fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Result<T> {
        if let Some(answer) = ready(&mut self.state.lock()) {
            return Ok(answer);
        }
        let _inside = self.health.inside();
        let mut patience = self.health.patience();
        loop {
            let moved = self.reap();
            if let Some(answer) = ready(&mut self.state.lock()) {
                return Ok(answer);
            }
            if moved {
                patience.restart();
                continue;
            }
            match patience.step() {
                Step::Again => {}
                Step::Check => {
                    // The helper stands back meanwhile, whichever engine this is.
                    self.health.drive();
                    self.health.check()?;
                }
                Step::Sleep => {
                    self.health.drive();
                    self.engine.idle(IDLE);
                    self.health.check()?;
                }
            }
        }
    }

    /// Posts, waiting for room where the engine is full. `make` builds the verb for each try.
    pub(crate) fn post<'a>(
        &self,
        target: u32,
        remote: RemoteRange,
        held: Held,
        awaited: bool,
        make: impl FnMut() -> Verb<'a>,
    ) -> Result<u64> {
        self.post_until(target, remote, held, awaited, None, make)
    }

    /// [`post`](Self::post) that gives up when there is no room by `deadline`.
    fn post_until<'a>(
        &self,
        target: u32,
        remote: RemoteRange,
        held: Held,
        awaited: bool,
        deadline: Option<Instant>,
        mut make: impl FnMut() -> Verb<'a>,
    ) -> Result<u64> {
        let window = remote.window;
        let ticket = self.state.lock().begin(target, window, held, awaited);
        loop {
            let transfer = Transfer {
                ticket,
                target,
                remote,
                verb: make(),
            };
            match self.engine.post(transfer) {
                Ok(Accepted::Pending) => return Ok(ticket),
                Ok(Accepted::Done) => {
                    self.state.lock().complete(ticket, Ok(Vec::new()));
                    return Ok(ticket);
                }
                Err(PostError::Full) if deadline.is_some_and(|at| Instant::now() >= at) => {
                    self.withdraw(ticket);
                    return Err(self.fail(target, Phase::Post, Fault::Other("no room".into())));
                }
                Err(PostError::Full) => self.make_room(ticket)?,
                Err(PostError::Fault(fault)) => {
                    self.withdraw(ticket);
                    return Err(self.fail(target, Phase::Post, fault));
                }
            }
        }
    }

    /// Forgets a ticket that was never posted.
    fn withdraw(&self, ticket: u64) {
        let mut state = self.state.lock();
        state.complete(ticket, Ok(Vec::new()));
        state.detach(ticket);
    }

    fn make_room(&self, ticket: u64) -> Result<()> {
        let _inside = self.health.inside();
        if !self.reap() {
            self.engine.idle(IDLE);
            if let Err(lost) = self.health.check() {
                self.withdraw(ticket);
                return Err(lost);
            }
        }
        Ok(())
    }

    fn slot(&self, target: u32) -> Result<Slot> {
        let Some(staging) = self.engine.staging() else {
            let fault = Fault::Other("the engine has no staging memory".into());
            return Err(self.fail(target, Phase::Post, fault));
        };
        self.wait(|_| staging.take())
    }

    pub(crate) fn put(&self, target: u32, remote: RemoteRange, src: &[u8]) -> Result<()> {
        let limits = self.limits();
        if limits.immediate {
            return self.now(target, remote, limits.max_bytes, |part| {
                Verb::Write(&src[part])
            });
        }
        let push_bytes = self.engine.push_bytes();
        if push_bytes >= src.len().min(SLOT_BYTES) {
            return pieces(remote, push_bytes)
                .try_for_each(|(part, chunk)| self.push(target, chunk, &src[part]));
        }
        for (part, chunk) in pieces(remote, limits.max_bytes.min(SLOT_BYTES)) {
            let slot = self.slot(target)?;
            let bytes = staged(&slot, chunk)?;
            bytes.write(0, &src[part]).map_err(|source| {
                self.fail(target, Phase::Post, Fault::Other(source.to_string()))
            })?;
            self.post(target, chunk, Held::Slot(slot), false, || Verb::Put(&bytes))?;
        }
        Ok(())
    }

    /// A short put on an engine that keeps its own account of them.
    fn push(&self, target: u32, remote: RemoteRange, src: &[u8]) -> Result<()> {
        loop {
            match self.engine.push(remote, src) {
                Ok(()) => return Ok(()),
                Err(PostError::Fault(fault)) => return Err(self.fail(target, Phase::Post, fault)),
                Err(PostError::Full) => {
                    let _inside = self.health.inside();
                    if !self.reap() {
                        self.engine.idle(IDLE);
                        self.health.check()?;
                    }
                }
            }
        }
    }

    /// Runs `verb` over the pieces of `remote` on an immediate engine.
    fn now<'a>(
        &self,
        target: u32,
        remote: RemoteRange,
        max_bytes: usize,
        mut verb: impl FnMut(Range<usize>) -> Verb<'a>,
    ) -> Result<()> {
        for (part, chunk) in pieces(remote, max_bytes) {
            let transfer = Transfer {
                ticket: u64::MAX,
                target,
                remote: chunk,
                verb: verb(part),
            };
            let fault = match self.engine.post(transfer) {
                Ok(_) => continue,
                Err(PostError::Fault(fault)) => fault,
                Err(PostError::Full) => Fault::Other("an immediate engine said it was full".into()),
            };
            return Err(self.fail(target, Phase::Post, fault));
        }
        Ok(())
    }

    pub(crate) fn get(&self, target: u32, remote: RemoteRange, dst: &mut [u8]) -> Result<()> {
        let limits = self.limits();
        if limits.immediate {
            let mut rest = dst;
            return self.now(target, remote, limits.max_bytes, |part| {
                let (now, later) = std::mem::take(&mut rest).split_at_mut(part.len());
                rest = later;
                Verb::Read(now)
            });
        }
        let mut flying = VecDeque::new();
        for (part, chunk) in pieces(remote, limits.max_bytes.min(SLOT_BYTES)) {
            if flying.len() == GET_DEPTH {
                self.land(target, &mut flying, dst)?;
            }
            let slot = self.slot(target)?;
            let bytes = staged(&slot, chunk)?;
            let ticket = self.post(target, chunk, Held::Slot(slot), true, || Verb::Get(&bytes))?;
            flying.push_back((ticket, part, bytes));
        }
        while !flying.is_empty() {
            self.land(target, &mut flying, dst)?;
        }
        Ok(())
    }

    fn land(
        &self,
        target: u32,
        flying: &mut VecDeque<(u64, Range<usize>, SharedBytes)>,
        dst: &mut [u8],
    ) -> Result<()> {
        let Some((ticket, part, bytes)) = flying.pop_front() else {
            return Ok(());
        };
        let landed = self.wait(|state| state.take(ticket));
        let outcome = match landed {
            Ok((Ok(_), _slot)) => bytes
                .read(0, &mut dst[part])
                .map_err(|source| Fault::Other(source.to_string())),
            Ok((Err(fault), _)) => Err(fault),
            Err(lost) => {
                self.abandon(flying);
                return Err(lost);
            }
        };
        outcome.map_err(|fault| {
            self.abandon(flying);
            self.fail(target, Phase::Complete, fault)
        })
    }

    fn abandon(&self, flying: &mut VecDeque<(u64, Range<usize>, SharedBytes)>) {
        let mut state = self.state.lock();
        for (ticket, ..) in flying.drain(..) {
            state.detach(ticket);
        }
    }

    pub(crate) fn update(
        &self,
        target: u32,
        remote: RemoteRange,
        kind: Kind,
        op: UpdateOp,
        operand: &[u8],
        mut fetched: Option<&mut [u8]>,
    ) -> Result<()> {
        let reads = matches!(op, UpdateOp::NoOp);
        if !reads && operand.len() as u64 != remote.len {
            return Err(Error::Update(format!(
                "{} bytes of operands for {} bytes of result",
                operand.len(),
                remote.len
            )));
        }
        if (reads && fetched.is_none()) || remote.len == 0 {
            return Ok(());
        }
        let size = kind.size();
        let step = self.limits().update_bytes / size * size;
        if step == 0 || !remote.len.is_multiple_of(size as u64) {
            return Err(Error::Update(format!(
                "{} bytes of {kind:?} by {}",
                remote.len, self.mechanism
            )));
        }
        let mut flying = VecDeque::new();
        let fetch = fetched.is_some();
        let mut next = |flying: &mut VecDeque<(u64, Range<usize>)>| match fetched.as_deref_mut() {
            Some(out) => self.collect_first(target, flying, kind, out),
            None => Ok(()),
        };
        let mut post_all = |flying: &mut VecDeque<_>| {
            for (part, chunk) in pieces(remote, step) {
                if flying.len() == GET_DEPTH {
                    next(flying)?;
                }
                let operand = if reads { &[] } else { &operand[part.clone()] };
                let ticket = self.post(target, chunk, Held::Nothing, fetch, || Verb::Update {
                    kind,
                    op,
                    operand,
                    fetch,
                })?;
                if fetch {
                    flying.push_back((ticket, part));
                }
            }
            while !flying.is_empty() {
                next(flying)?;
            }
            Ok(())
        };
        let done = post_all(&mut flying);
        // After a failure nobody waits for the others.
        for (ticket, _) in flying {
            self.state.lock().detach(ticket);
        }
        done
    }

    /// The old values of the first of these, in its part of `out`.
    fn collect_first(
        &self,
        target: u32,
        flying: &mut VecDeque<(u64, Range<usize>)>,
        kind: Kind,
        out: &mut [u8],
    ) -> Result<()> {
        match flying.pop_front() {
            Some((ticket, part)) => self.collect(target, ticket, kind, &mut out[part]),
            None => Ok(()),
        }
    }

    /// Changes a word there without waiting for it, nor long for room.
    pub(crate) fn tell(
        &self,
        target: u32,
        remote: RemoteRange,
        op: UpdateOp,
        operand: u64,
    ) -> Result<()> {
        let deadline = Some(Instant::now() + TELL);
        let operand = &operand.to_ne_bytes();
        let verb = || Verb::Update {
            kind: Kind::U64,
            op,
            operand,
            fetch: false,
        };
        self.post_until(target, remote, Held::Nothing, false, deadline, verb)?;
        Ok(())
    }

    fn collect(&self, target: u32, ticket: u64, kind: Kind, out: &mut [u8]) -> Result<()> {
        let (result, _) = self.wait(|state| state.take(ticket))?;
        let old = result.map_err(|fault| self.fail(target, Phase::Complete, fault))?;
        if old.len() != out.len() {
            let fault = Fault::Other(format!(
                "an answer of {} bytes where {} were due",
                old.len(),
                out.len()
            ));
            return Err(self.fail(target, Phase::Complete, fault));
        }
        kind.deliver(&old, out);
        Ok(())
    }

    pub(crate) fn compare_swap(
        &self,
        target: u32,
        remote: RemoteRange,
        kind: Kind,
        compare: &[u8],
        swap: &[u8],
        fetched: &mut [u8],
    ) -> Result<()> {
        let ticket = self.post(target, remote, Held::Nothing, true, || Verb::CompareSwap {
            kind,
            compare,
            swap,
        })?;
        self.collect(target, ticket, kind, fetched)
    }

    /// Waits for what was posted to `target` before the call, by whichever window: what others post
    /// meanwhile is not waited for.
    pub(crate) fn flush(&self, target: u32, window: u32) -> Result<()> {
        let mut mark = None;
        let flushed = self.wait(|state| {
            let &mut (lot, pushed) =
                mark.get_or_insert_with(|| (state.mark(target), self.engine.pushed(target)));
            if !state.is_past(target, lot) {
                return None;
            }
            let settled = self.engine.settled(target, pushed);
            let mut failed = |window| {
                let posted = state.failed(target, window);
                posted.or(self.engine.failed(target, window))
            };
            let failure = failed(window).or_else(|| failed(0));
            (settled || failure.is_some()).then_some(failure)
        });
        match flushed? {
            None => Ok(()),
            Some(fault) => Err(self.fail(target, Phase::Complete, fault)),
        }
    }
}

fn staged(slot: &Slot, chunk: RemoteRange) -> Result<SharedBytes> {
    slot.congruent(chunk.base, chunk.len as usize)
        .ok_or(Error::OutOfRange {
            offset: 0,
            len: chunk.len,
            size: SLOT_BYTES as u64,
        })
}

/// Cuts a range into pieces of at most `step` bytes: (range of the local buffer, remote part).
pub(crate) fn pieces(
    remote: RemoteRange,
    step: usize,
) -> impl Iterator<Item = (Range<usize>, RemoteRange)> {
    let total = remote.len as usize;
    (0..total).step_by(step.max(1)).map(move |start| {
        let len = step.min(total - start);
        let part = RemoteRange {
            base: remote.base + start as u64,
            len: len as u64,
            ..remote
        };
        (start..start + len, part)
    })
}
