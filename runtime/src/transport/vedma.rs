//! The VE DMA engine: what `veshm` (other VEs) and `vhshm` (host memory) post to.
//!
//! A process has one ring of descriptors (ve-memory 9); each mechanism drives it through an [`Engine`] of its own, with
//! its own bounce slots, so that one never waits for what only the other would poll. Bounce slots are VE memory of
//! this process, registered in its DMAATB. The hardware wants both addresses and the length in multiples of 4 (9.2): a slot is congruent to
//! its target, and what is left at both ends goes by LHM and SHM (10), as do transfers of up to 8 bytes. The engine has
//! no atomics.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use windlass_mem::SharedBytes;
use windlass_ve::{Exception, Handle, PageSize, PollError, Process, RingFull, Vehva, Vemva};

use crate::completion::Queue;
use crate::mechanism::{
    Accepted, Completion, Engine, Fault, Limits, MechanismId, PostError, Reason, Transfer, Verb,
};
use crate::progress::Health;
use crate::staging::{SLOT_BYTES, SLOT_PAD_BYTES, Staging};
use crate::transport::Context;

/// Longest transfer of one descriptor: below 128 MiB (ve-memory 9.2).
const MAX_BYTES: usize = (windlass_ve::LENGTH_END - (2 << 20)) as usize;

/// Longest transfer that goes by loads and stores alone: one word of the widest instruction.
const WORDS_BYTES: usize = 8;

/// Bounce slots of one mechanism.
const SLOTS: usize = 64;

/// One page of VE memory holds the bounce slots of all mechanisms; only touched parts of it take memory.
const STAGING_PAGE: PageSize = PageSize::M64;

/// The DMA engine of this process, made when it is needed first.
pub struct VeDma {
    process: Option<Arc<Process>>,
    health: Arc<Health>,
    state: Mutex<State>,
    registered: Arc<Registry>,
}

#[derive(Default)]
struct State {
    staging: Option<SharedBytes>,
    queues: HashMap<MechanismId, Arc<Queue>>,
}

/// VE memory of this process that the engine sees.
#[derive(Default)]
struct Registry(RwLock<Vec<(SharedBytes, Vehva)>>);

impl Registry {
    fn find(&self, local: &SharedBytes) -> Option<u64> {
        let parts = self.0.read();
        parts.iter().find_map(|(bytes, vehva)| {
            let offset = bytes.contains(local)?;
            vehva.raw().checked_add(offset as u64)
        })
    }
}

/// A registration, undone on drop.
pub struct Registration {
    process: Arc<Process>,
    registered: Arc<Registry>,
    vehva: Vehva,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registered
            .0
            .write()
            .retain(|(_, vehva)| *vehva != self.vehva);
        // At the end of the job the service may be gone, and the registration with it.
        if let Err(error) = self.process.unregister(self.vehva) {
            tracing::debug!(%error, vehva = %self.vehva, "unregistering VE memory");
        }
    }
}

impl VeDma {
    /// The engine of this rank; nothing is allocated yet.
    pub fn new(context: &Context) -> Arc<VeDma> {
        Arc::new(VeDma {
            process: context.ve.clone().filter(|process| process.ve().is_some()),
            health: Arc::clone(&context.health),
            state: Mutex::default(),
            registered: Arc::default(),
        })
    }

    /// The VE process of this rank, or why there is none.
    pub fn process(&self) -> Result<&Arc<Process>, Reason> {
        let process = self.process.as_ref();
        process.ok_or_else(|| Reason::new("this rank does not run on a VE"))
    }

    /// Lets the engine see memory of this VE, so that transfers from and to it need no bounce.
    pub fn register(&self, vemva: Vemva, bytes: &SharedBytes) -> Result<Registration, Reason> {
        let process = self.process()?;
        let vehva = process
            .register(vemva, bytes.len() as u64)
            .map_err(|e| Reason::from_error("VE memory cannot be registered for DMA", &e))?;
        self.registered.0.write().push((bytes.clone(), vehva));
        Ok(Registration {
            process: Arc::clone(process),
            registered: Arc::clone(&self.registered),
            vehva,
        })
    }

    /// The queue of one mechanism.
    pub fn queue(&self, mechanism: MechanismId) -> Result<Arc<Queue>, Reason> {
        let process = self.process()?;
        let mut state = self.state.lock();
        if let Some(queue) = state.queues.get(&mechanism) {
            return Ok(Arc::clone(queue));
        }
        let all = match &state.staging {
            Some(all) => all.clone(),
            None => {
                let all = self.make_staging(process)?;
                state.staging.insert(all).clone()
            }
        };
        let len = SLOTS * (SLOT_BYTES + SLOT_PAD_BYTES);
        let part = all
            .slice(state.queues.len() * len, len)
            .map_err(|e| Reason::from_error("no bounce memory left", &e))?;
        let engine = Arc::new(Ring {
            process: Arc::clone(process),
            staging: Staging::new(part),
            registered: Arc::clone(&self.registered),
            outstanding: Mutex::default(),
        });
        let queue = Arc::new(Queue::new(mechanism, engine, Arc::clone(&self.health)));
        state.queues.insert(mechanism, Arc::clone(&queue));
        Ok(queue)
    }

    fn make_staging(&self, process: &Arc<Process>) -> Result<SharedBytes, Reason> {
        let len = STAGING_PAGE.bytes();
        let memory = process
            .alloc(len as usize, STAGING_PAGE)
            .map_err(|e| Reason::from_error("no VE memory for bounce slots", &e))?;
        let vehva = process
            .register(memory.vemva, len)
            .map_err(|e| Reason::from_error("bounce slots cannot be registered for DMA", &e))?;
        // For the life of the process: nothing undoes it.
        self.registered
            .0
            .write()
            .push((memory.bytes.clone(), vehva));
        Ok(memory.bytes)
    }
}

#[derive(Default)]
struct Outstanding {
    /// In the order of posting, which is the order of completion.
    posted: VecDeque<(u64, Handle)>,
    /// Handles to use again.
    spare: Vec<Handle>,
}

/// The ring as one mechanism drives it.
struct Ring {
    process: Arc<Process>,
    staging: Staging,
    registered: Arc<Registry>,
    outstanding: Mutex<Outstanding>,
}

/// One transfer: remote address, local memory, direction.
#[derive(Clone, Copy)]
struct Move<'a> {
    remote: u64,
    local: &'a SharedBytes,
    put: bool,
}

impl<'a> Move<'a> {
    fn of(transfer: &Transfer<'a>) -> Result<Move<'a>, Fault> {
        let (local, put) = match transfer.verb {
            Verb::Put(local) => (local, true),
            Verb::Get(local) => (local, false),
            _ => return Err(Fault::Other("the VE DMA engine only copies".into())),
        };
        let remote = transfer.remote;
        if local.len() as u64 != remote.len || remote.base.checked_add(remote.len).is_none() {
            let text = format!(
                "{} bytes here for {} bytes at {:#x}",
                local.len(),
                remote.len,
                remote.base
            );
            return Err(Fault::Other(text));
        }
        Ok(Move {
            remote: remote.base,
            local,
            put,
        })
    }

    /// Bytes before the first multiple of 4 of the remote address, and after the last.
    fn ends(&self) -> (usize, usize) {
        let align = windlass_ve::ALIGN;
        let head = ((align - self.remote % align) % align) as usize;
        let head = head.min(self.local.len());
        (head, (self.local.len() - head) % align as usize)
    }
}

impl Ring {
    /// Moves `len` bytes from `from` on by loads and stores, each naturally aligned at the remote end.
    fn words(&self, of: Move<'_>, from: usize, len: usize) -> Result<(), Fault> {
        let (mut at, end) = (from, from + len);
        while at < end {
            let remote = of.remote + at as u64;
            let width = (1 << remote.trailing_zeros().min(3)).min(1 << (end - at).ilog2());
            let mut word = [0; WORDS_BYTES];
            let word = &mut word[..width];
            let vehva = Vehva::new(remote);
            if of.put {
                of.local.read(at, word).map_err(other)?;
                self.process.shm(vehva, word).map_err(refused)?;
            } else {
                self.process.lhm(vehva, word).map_err(refused)?;
                of.local.write(at, word).map_err(other)?;
            }
            at += width;
        }
        Ok(())
    }

    fn is_congruent(of: &Move<'_>, local: u64) -> bool {
        (local ^ of.remote).is_multiple_of(windlass_ve::ALIGN)
    }

    /// Posts the part of a transfer that keeps the alignment rules. `local` is the VEHVA of its local memory.
    fn post_body(&self, of: Move<'_>, local: u64, handle: &Handle) -> Result<(), RingFull> {
        let (head, tail) = of.ends();
        let len = of.local.len() - head - tail;
        let here = Vehva::new(local + head as u64);
        let there = Vehva::new(of.remote + head as u64);
        let (dst, src) = if of.put { (there, here) } else { (here, there) };
        // Longer than the engine takes ends with its exception code: `len` never wraps.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.process.dma().post(dst, src, len, handle)
    }

    fn ends(&self, of: Move<'_>) -> Result<(), Fault> {
        let (head, tail) = of.ends();
        self.words(of, 0, head)?;
        self.words(of, of.local.len() - tail, tail)
    }

    /// Memory that the engine does not see, or not at the right alignment: through a slot, complete on return.
    fn bounce(&self, of: Move<'_>) -> Result<Accepted, PostError> {
        let slot = self.staging.take().ok_or(PostError::Full)?;
        let fault = |fault| PostError::Fault(fault);
        let mut at = 0;
        while at < of.local.len() {
            let len = SLOT_BYTES.min(of.local.len() - at);
            let remote = of.remote + at as u64;
            let no_slot = || fault(Fault::Other("a bounce slot is too small".into()));
            let bytes = slot.congruent(remote, len).ok_or_else(no_slot)?;
            if of.put {
                bytes
                    .copy(0, of.local, at, len)
                    .map_err(other)
                    .map_err(fault)?;
            }
            let part = Move {
                remote,
                local: &bytes,
                put: of.put,
            };
            let local = self.registered.find(&bytes).ok_or_else(no_slot)?;
            self.now(part, local).map_err(fault)?;
            if !of.put {
                of.local
                    .copy(at, &bytes, 0, len)
                    .map_err(other)
                    .map_err(fault)?;
            }
            at += len;
        }
        Ok(Accepted::Done)
    }

    /// One transfer, complete on return.
    fn now(&self, of: Move<'_>, local: u64) -> Result<(), Fault> {
        if of.local.len() <= WORDS_BYTES {
            // Too short to have an aligned body for certain.
            return self.words(of, 0, of.local.len());
        }
        let handle = Handle::new();
        while self.post_body(of, local, &handle).is_err() {
            std::thread::yield_now();
        }
        outcome(self.process.dma().wait(&handle))?;
        self.ends(of)
    }
}

impl Engine for Ring {
    fn limits(&self) -> Limits {
        Limits {
            max_bytes: MAX_BYTES,
            immediate: false,
            update_bytes: 0,
        }
    }

    fn sees(&self, local: &SharedBytes) -> bool {
        self.registered.find(local).is_some()
    }

    fn staging(&self) -> Option<&Staging> {
        Some(&self.staging)
    }

    fn post(&self, transfer: Transfer<'_>) -> Result<Accepted, PostError> {
        let of = Move::of(&transfer).map_err(PostError::Fault)?;
        if of.local.len() <= WORDS_BYTES {
            return match self.words(of, 0, of.local.len()) {
                Ok(()) => Ok(Accepted::Done),
                Err(fault) => Err(PostError::Fault(fault)),
            };
        }
        let local = match self.registered.find(of.local) {
            Some(local) if Self::is_congruent(&of, local) => local,
            _ => return self.bounce(of),
        };
        let mut outstanding = self.outstanding.lock();
        let handle = outstanding.spare.pop().unwrap_or_default();
        if let Err(RingFull) = self.post_body(of, local, &handle) {
            outstanding.spare.push(handle);
            return Err(PostError::Full);
        }
        if let Err(fault) = self.ends(of) {
            // The caller takes its memory back at once: the body must be over.
            let _ = self.process.dma().wait(&handle);
            return Err(PostError::Fault(fault));
        }
        outstanding.posted.push_back((transfer.ticket, handle));
        Ok(Accepted::Pending)
    }

    fn poll(&self) -> Option<Completion> {
        let mut outstanding = self.outstanding.lock();
        let (_, handle) = outstanding.posted.front()?;
        let result = match self.process.dma().poll(handle) {
            Err(PollError::Pending) => return None,
            result => outcome(result),
        };
        let (ticket, handle) = outstanding.posted.pop_front()?;
        outstanding.spare.push(handle);
        Some(Completion {
            ticket,
            result: result.map(|()| Vec::new()),
        })
    }

    fn idle(&self, at_most: Duration) {
        // The engine raises no event: its status is a word of its own memory, to be polled (ve-memory 9.4).
        std::thread::sleep(at_most.min(Duration::from_micros(50)));
    }
}

fn outcome(result: Result<Exception, PollError>) -> Result<(), Fault> {
    match result {
        Ok(exception) if exception.is_none() => Ok(()),
        Ok(exception) if exception.bits() & IO_ACCESS != 0 => {
            Err(Fault::Gone(exception.to_string()))
        }
        Ok(exception) => Err(Fault::Access(exception.to_string())),
        Err(error) => Err(Fault::Other(error.to_string())),
    }
}

/// Exception bit of an error answer from the other end (ve-memory 9.3).
const IO_ACCESS: u16 = windlass_ve::FaultKind::Io.exception().bits();

fn refused(fault: windlass_ve::Fault) -> Fault {
    match fault.kind {
        windlass_ve::FaultKind::Io => Fault::Gone(fault.to_string()),
        _ => Fault::Access(fault.to_string()),
    }
}

fn other(error: windlass_mem::Error) -> Fault {
    Fault::Other(error.to_string())
}
