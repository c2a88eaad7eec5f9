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

/// Pages of the DMAATB are multiples of it.
const SMALLEST_PAGE: u64 = PageSize::K4.bytes();

/// Bounce slots of one mechanism.
const SLOTS: usize = 64;

/// One page of VE memory holds the bounce slots of all mechanisms; only touched parts of it take memory.
const STAGING_PAGE: PageSize = PageSize::M64;

/// The DMA engine of this process, made when it is needed first.
pub struct VeDma {
    process: Option<Arc<Process>>,
    /// VEs are real, and ranks not on them.
    native: bool,
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
            native: context.native.is_some(),
            health: Arc::clone(&context.health),
            state: Mutex::default(),
            registered: Arc::default(),
        })
    }

    /// The VE process of this rank, or why there is none.
    pub fn process(&self) -> Result<&Arc<Process>, Reason> {
        let process = self.process.as_ref();
        process.ok_or_else(|| {
            Reason::new(if self.native {
                "with WINDLASS_VE=native ranks run on the host, and reach VE memory by VEO"
            } else {
                "this rank does not run on a VE"
            })
        })
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
    /// Moves `len` bytes from `from` on by loads and stores, each naturally aligned at the remote end. Complete on return: a store
    /// is posted, but a load from its page comes back after it has arrived (ve-memory 10).
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
                let next = remote + width as u64;
                if at + width == end || next.is_multiple_of(SMALLEST_PAGE) {
                    self.process.lhm(vehva, word).map_err(refused)?;
                }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use windlass_ve::{
        Config, DESCRIPTORS, Direct, Mode, Modes, Profile, Reorder, Service, VeMemory,
    };

    use super::*;
    use crate::mechanism::RemoteRange;
    use crate::route::{Posted, Route};

    const M64: usize = 64 << 20;

    struct Pair {
        dma: VeDma,
        own: VeMemory,
        there: VeMemory,
        base: u64,
        posted: Posted,
        _owner: Process,
    }

    /// A process on VE 1 that has attached 64 MiB of one on VE 0.
    fn pair(read_only: bool) -> Pair {
        pair_in(read_only, Modes::default())
    }

    fn pair_in(read_only: bool, modes: Modes) -> Pair {
        let profile = Profile {
            memory_bytes: 1 << 30,
            ..Profile::VE1
        };
        let service = Service::new(Config { ves: 2, profile }).expect("memory files");
        let service = Arc::new(StdMutex::new(service));
        let join = |pid, ve| {
            let control = Direct::join(Arc::clone(&service), pid, 1, 1, Some(ve)).expect("join");
            Process::join_with(Arc::new(control), modes.clone()).expect("process")
        };
        let (owner, process) = (join(10, 0), Arc::new(join(11, 1)));
        let mode = if read_only {
            Mode::PCI.with(Mode::READ_ONLY)
        } else {
            Mode::PCI
        };
        let there = owner.alloc(M64, PageSize::M64).expect("VE memory");
        owner
            .veshm_open(there.vemva, M64 as u64, 0, mode)
            .expect("open");
        let vehva = process
            .attach_vehva(10, there.vemva, M64 as u64, mode)
            .expect("attach");
        let own = process.alloc(M64, PageSize::M64).expect("VE memory");
        let dma = VeDma {
            native: false,
            process: Some(process),
            health: Arc::default(),
            state: Mutex::default(),
            registered: Arc::default(),
        };
        let queue = dma.queue(MechanismId::Veshm).expect("queue");
        let remote = RemoteRange::new(vehva.raw(), M64 as u64, 0);
        let posted = Posted::new(queue, 0, remote);
        Pair {
            dma,
            own,
            there,
            base: vehva.raw(),
            posted,
            _owner: owner,
        }
    }

    fn pattern(len: usize, salt: usize) -> Vec<u8> {
        (0..len)
            .map(|i| ((i * 31 + salt * 7) % 251 + 1) as u8)
            .collect()
    }

    fn around(bytes: &SharedBytes, offset: usize, len: usize) -> Vec<u8> {
        let mut seen = vec![0; len + 16];
        bytes.read(offset - 8, &mut seen).expect("read");
        seen
    }

    fn framed(data: &[u8]) -> Vec<u8> {
        [&[0; 8], data, &[0; 8]].concat()
    }

    #[test]
    fn every_alignment_and_short_length() {
        every_alignment_of(&pair(false));
    }

    #[test]
    fn a_flush_waits_for_whatever_is_delayed_or_reordered() {
        for seed in 0..4 {
            let reorder = Some(Reorder {
                seed,
                by_hand: true,
            });
            every_alignment_of(&pair_in(
                false,
                Modes {
                    check: None,
                    reorder,
                },
            ));
        }
    }

    fn every_alignment_of(Pair { there, posted, .. }: &Pair) {
        for len in (0..=40).chain([4095, SLOT_BYTES + 3, 3 * SLOT_BYTES + 1]) {
            for at in 64..72 {
                let data = pattern(len, at);
                posted.put(at as u64, &data).expect("put");
                posted.flush().expect("flush");
                assert_eq!(
                    around(&there.bytes, at, len),
                    framed(&data),
                    "{len} at {at}"
                );
                let mut got = vec![0; len];
                posted.get(at as u64, &mut got).expect("get");
                assert_eq!(got, data, "{len} at {at}");
                there.bytes.fill(at, len, 0).expect("fill");
            }
        }
    }

    #[test]
    fn registered_memory_goes_directly_or_bounces_where_it_is_not_congruent() {
        let Pair {
            dma,
            own,
            there,
            posted,
            ..
        } = pair(false);
        let registration = dma.register(own.vemva, &own.bytes).expect("register");
        for len in [9, 64, SLOT_BYTES + 5, (1 << 20) + 2] {
            for at in 64..68 {
                for shift in 0..4 {
                    let data = pattern(len, at + shift);
                    let local = own.bytes.slice(128 + shift, len).expect("slice");
                    local.write(0, &data).expect("write");
                    posted
                        .start_put(at as u64, &local)
                        .expect("start")
                        .wait()
                        .expect("wait");
                    assert_eq!(
                        around(&there.bytes, at, len),
                        framed(&data),
                        "{len} at {at}"
                    );
                    local.fill(0, len, 0).expect("fill");
                    posted
                        .start_get(at as u64, &local)
                        .expect("start")
                        .wait()
                        .expect("wait");
                    assert_eq!(around(&own.bytes, 128 + shift, len), framed(&data));
                    local.fill(0, len, 0).expect("fill");
                    there.bytes.fill(at, len, 0).expect("fill");
                }
            }
        }
        drop(registration);
        let plain = own.bytes.slice(0, 100).expect("slice");
        posted
            .start_put(0, &plain)
            .expect("start")
            .wait()
            .expect("not seen: bounced");
    }

    #[test]
    fn a_full_ring_says_so_and_nothing_is_lost() {
        let Pair {
            dma,
            base,
            there,
            own,
            ..
        } = pair(false);
        let process = dma.process().expect("on a VE");
        let _registration = dma.register(own.vemva, &own.bytes).expect("register");
        let ring = Ring {
            process: Arc::clone(process),
            staging: Staging::new(SharedBytes::empty()),
            registered: Arc::clone(&dma.registered),
            outstanding: Mutex::default(),
        };
        process.dma().hold();
        let local = own.bytes.slice(0, 16).expect("slice");
        local.write(0, b"sixteen bytes...").expect("write");
        let post = |ticket| {
            let remote = RemoteRange::new(base + 16 * ticket, 16, 0);
            ring.post(Transfer {
                ticket,
                target: 1,
                remote,
                verb: Verb::Put(&local),
            })
        };
        for ticket in 0..DESCRIPTORS as u64 {
            assert!(matches!(post(ticket), Ok(Accepted::Pending)));
        }
        assert!(matches!(post(500), Err(PostError::Full)));
        assert!(ring.poll().is_none());
        assert!(process.dma().step());
        assert_eq!(
            ring.poll().map(|done| (done.ticket, done.result.is_ok())),
            Some((0, true))
        );
        assert!(matches!(post(500), Ok(Accepted::Pending)));
        process.dma().resume();
        let mut tickets: Vec<u64> = std::iter::from_fn(|| ring.poll())
            .map(|done| done.ticket)
            .collect();
        assert_eq!(tickets.pop(), Some(500));
        assert_eq!(tickets, (1..DESCRIPTORS as u64).collect::<Vec<_>>());
        let mut seen = [0; 16];
        there.bytes.read(16 * 500, &mut seen).expect("read");
        assert_eq!(&seen, b"sixteen bytes...");
    }

    #[test]
    fn faults_reach_the_flush_and_the_wait() {
        let Pair { posted, .. } = pair(true);
        assert!(posted.put(0, &[1; 8]).is_err(), "a word is refused at once");
        posted.put(0, &[1; 64]).expect("posted");
        let error = posted.flush().expect_err("read-only");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert!(
            source.is_some_and(|text| text.contains("0x8000")),
            "{error}"
        );
        posted.flush().expect("told once");
        let mut got = [1; 64];
        posted.get(0, &mut got).expect("reading is legal");
        assert_eq!(got, [0; 64]);
    }

    #[test]
    fn a_window_is_told_its_own_failures() {
        let Pair { posted, .. } = pair(true);
        let of = |number| match Route::Posted(posted.clone()).of_window(number) {
            Route::Posted(posted) => posted,
            Route::Mapped(_) => unreachable!("it was posted"),
        };
        let (first, second) = (of(1), of(2));
        first.put(0, &[1; 64]).expect("posted");
        second.flush().expect("it has posted nothing");
        first.flush().expect_err("read-only");
        first.flush().expect("told once");
        posted.put(0, &[1; 64]).expect("posted");
        second
            .flush()
            .expect_err("of no window: to whoever flushes");
    }

    /// Who flushes waits for what was posted before, not for what another goes on posting. The engine
    /// is stepped by hand: in some round the other's put comes while the flush waits.
    #[test]
    fn a_flush_does_not_wait_for_later_puts() {
        let Pair { dma, posted, .. } = pair(false);
        let engine = dma.process().expect("on a VE").dma();
        let returned = (0..100).any(|_| {
            engine.hold();
            posted.put(0, &[1; 64]).expect("put");
            let over = AtomicBool::new(false);
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    posted.flush().expect("flush");
                    over.store(true, Ordering::SeqCst);
                });
                std::thread::sleep(Duration::from_millis(1));
                posted.put(64, &[2; 64]).expect("put");
                assert!(engine.step(), "the first put");
                for _ in 0..50 {
                    std::thread::sleep(Duration::from_micros(200));
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                }
                let returned = over.load(Ordering::SeqCst);
                engine.resume();
                returned
            })
        });
        assert!(returned, "the flush waited for a put that came later");
    }
}
