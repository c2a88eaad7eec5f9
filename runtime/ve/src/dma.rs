//! The user-mode DMA engine: a ring of 128 descriptors (ve-memory.md section 9).
//!
//! A descriptor is executed inside `post`, after it has been checked whole; its completion is observed by `poll`. Descriptors
//! execute in ring order, all with SYNC, so the completion of one implies the data of all before it. For tests the engine can be
//! held: posted descriptors then stay prepared until [`Dma::step`] or [`Dma::resume`]. In reordering mode ([`Modes`]) they execute
//! later, and in parts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::addr::Vehva;
use crate::fault::{Exception, Fault, FaultKind};
use crate::handle::{Handle, PollError, RingFull};
use crate::modes::{Modes, Rule, Trap};
use crate::reorder::Loose;
use crate::transfer::Transfer;
use crate::translate::{Entry, Table, order};

/// Descriptors of the ring (section 9.1).
pub const DESCRIPTORS: usize = 128;
/// A transfer must be shorter than this (section 9.2).
pub const LENGTH_END: u32 = 128 << 20;
/// Both addresses and the length are multiples of this (section 9.2).
pub const ALIGN: u64 = 4;

#[derive(Debug)]
enum Owner {
    Nobody,
    Handle(Handle),
    /// A `post_wait` still pending.
    Waiter,
}

#[derive(Debug)]
struct Descriptor {
    transfer: Transfer,
    owner: Owner,
    seq: u64,
    /// The exception code once completed.
    done: Option<Exception>,
}

impl Descriptor {
    const FREE: Self = Self {
        transfer: Transfer {
            dst: Vehva::new(0),
            src: Vehva::new(0),
            len: 0,
        },
        owner: Owner::Nobody,
        seq: 0,
        done: None,
    };
}

/// What has been done for table H (section 9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Init {
    /// Nothing, and nothing needs to be: callers who have no `ve_dma_init`.
    Implied,
    /// Nothing yet, and posting would be undefined.
    Awaited,
    /// Mapped by `ve_dma_init`.
    Done,
    /// Mapped by `ve_map_dmades`.
    Taken,
}

#[derive(Debug)]
pub(crate) struct Ring {
    descriptors: Box<[Descriptor; DESCRIPTORS]>,
    /// Index of the next post.
    next: usize,
    /// Prepared descriptors: the last ones before `next`.
    prepared: usize,
    pub(crate) held: bool,
    checking: bool,
    strict: bool,
    pub(crate) init: Init,
    pub(crate) init_failed: bool,
    /// Numbers what was posted: descriptors, and stores in reordering mode.
    seq: u64,
    /// The last number that the program has seen completed, for the checking mode.
    observed: u64,
    pub(crate) loose: Option<Box<Loose>>,
    trap: Option<Trap>,
}

impl Ring {
    fn slot(&mut self, index: usize) -> &mut Descriptor {
        &mut self.descriptors[index % DESCRIPTORS]
    }

    /// The number of what is posted next.
    pub(crate) fn number(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Steps 1 to 3: the next descriptor, free. An old handle gets its result stored.
    fn free_slot(&mut self, trap: Option<&Trap>) -> Result<usize, RingFull> {
        let index = self.next;
        let slot = self.slot(index);
        match (&slot.owner, slot.done) {
            (Owner::Nobody, _) => {}
            (Owner::Handle(old), Some(exception)) => {
                if let Some(trap) = trap.filter(|_| old.is_gone()) {
                    trap.spring(Rule::HandleGone { index });
                }
                old.store(exception);
                *slot = Descriptor::FREE;
            }
            (Owner::Handle(_), None) | (Owner::Waiter, _) => return Err(RingFull),
        }
        Ok(index)
    }

    /// Step 4, and the engine's part unless it is held.
    fn prepare(
        &mut self,
        table: &RwLock<Table>,
        index: usize,
        seq: u64,
        transfer: Transfer,
        owner: Owner,
    ) {
        *self.slot(index) = Descriptor {
            transfer,
            owner,
            seq,
            done: None,
        };
        self.next = (index + 1) % DESCRIPTORS;
        self.prepared += 1;
        if self.loose.is_some() {
            self.wander(table);
        } else if !self.held {
            self.execute_one(table);
        }
    }

    /// Index of the oldest prepared descriptor.
    fn head(&self) -> Option<usize> {
        (self.prepared > 0).then(|| (self.next + DESCRIPTORS - self.prepared) % DESCRIPTORS)
    }

    /// The oldest prepared descriptor: its number and transfer.
    pub(crate) fn oldest(&mut self) -> Option<(u64, Transfer)> {
        let index = self.head()?;
        let slot = self.slot(index);
        Some((slot.seq, slot.transfer))
    }

    /// The oldest prepared descriptor is over.
    pub(crate) fn complete(&mut self, outcome: Result<(), Fault>) {
        let Some(index) = self.head() else { return };
        if let (Err(fault), Some(trap)) = (outcome, &self.trap) {
            let slot = &self.descriptors[index];
            let call = match slot.owner {
                Owner::Waiter => "ve_dma_post_wait",
                _ => "ve_dma_post",
            };
            if let Some(rule) = slot.transfer.blame(fault, call) {
                trap.spring(rule);
            }
        }
        self.slot(index).done =
            Some(outcome.map_or_else(|fault| fault.kind.exception(), |()| Exception::NONE));
        self.prepared -= 1;
    }

    /// The process ends: the engine stops where it is, and leaves what is prepared undone.
    pub(crate) fn abandon(&mut self) {
        self.prepared = 0;
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Executes the oldest prepared descriptor; false if there is none.
    fn execute_one(&mut self, table: &RwLock<Table>) -> bool {
        let strict = self.strict;
        let Some((_, transfer)) = self.oldest() else {
            return false;
        };
        order();
        let outcome = transfer.execute(table, strict);
        order();
        self.complete(outcome);
        true
    }

    /// True if the program has not seen the completion of a transfer that uses the range.
    fn in_flight(&self, start: Vehva, len: u64) -> bool {
        self.descriptors.iter().any(|slot| {
            !matches!(slot.owner, Owner::Nobody)
                && slot.seq > self.observed
                && slot.transfer.touches(start, len)
        })
    }
}

/// What the engine and its helper thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: Arc<RwLock<Table>>,
    pub(crate) ring: Mutex<Ring>,
}

impl Shared {
    pub(crate) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine of one process: the table H that the library uses. One lock for all threads, as documented.
#[derive(Debug)]
pub struct Dma {
    pub(crate) shared: Arc<Shared>,
    trap: Option<Trap>,
    /// Reordering mode.
    pub(crate) loose: bool,
}

impl Dma {
    pub(crate) fn new(table: Arc<RwLock<Table>>, modes: &Modes) -> Self {
        let ring = Ring {
            descriptors: Box::new([Descriptor::FREE; DESCRIPTORS]),
            next: 0,
            prepared: 0,
            held: false,
            checking: true,
            strict: false,
            init: Init::Implied,
            init_failed: false,
            seq: 0,
            observed: 0,
            loose: modes.reorder.map(|reorder| Box::new(Loose::new(reorder))),
            trap: modes.check.clone(),
        };
        Self {
            shared: Arc::new(Shared {
                table,
                ring: Mutex::new(ring),
            }),
            trap: modes.check.clone(),
            loose: modes.reorder.is_some(),
        }
    }

    pub(crate) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring()
    }

    pub(crate) fn trap(&self) -> Option<&Trap> {
        self.trap.as_ref()
    }

    /// The rules for a post (sections 9.2 and 9.3).
    fn check_post(&self, ring: &mut Ring, transfer: Transfer, handle: Option<&Handle>) {
        self.check_transfer(transfer);
        if let (Some(trap), Some(handle)) = (&self.trap, handle) {
            let index = handle.index();
            let busy = matches!(&ring.slot(index).owner, Owner::Handle(owner) if owner.is(handle));
            if busy {
                trap.spring(Rule::HandleBusy { index });
            }
        }
    }

    /// Posting to a ring that nobody has initialised is undefined: the program ends, whatever its modes.
    fn refuse_uninitialised(&self, ring: &Ring) -> Result<(), RingFull> {
        if matches!(ring.init, Init::Implied | Init::Done) {
            return Ok(());
        }
        match &self.trap {
            Some(trap) => trap.spring(Rule::NoInit),
            None => Trap::abort().spring(Rule::NoInit),
        }
        Err(RingFull)
    }

    /// `ve_dma_post`: `len` bytes from `src` to `dst`. Nothing is checked here: a bad transfer completes with an exception code.
    pub fn post(&self, dst: Vehva, src: Vehva, len: u32, handle: &Handle) -> Result<(), RingFull> {
        let transfer = Transfer { dst, src, len };
        let mut ring = self.ring();
        self.refuse_uninitialised(&ring)?;
        self.check_post(&mut ring, transfer, Some(handle));
        if self.loose {
            ring.may_stand_still();
            // A caller that only tries again gets there too.
            ring.wander(&self.shared.table);
        }
        let index = ring.free_slot(self.trap.as_ref());
        let index = index.inspect_err(|_| ring.go_on())?;
        let seq = ring.number();
        handle.posted(index, seq);
        let owner = Owner::Handle(handle.clone());
        ring.prepare(&self.shared.table, index, seq, transfer, owner);
        Ok(())
    }

    /// `ve_dma_poll`. A final result frees the descriptor and must not be asked for again.
    pub fn poll(&self, handle: &Handle) -> Result<Exception, PollError> {
        if let Some(trap) = &self.trap
            && handle.is_finished()
        {
            let index = handle.index();
            trap.spring(Rule::DoublePoll { index });
        }
        if self.trap.is_none()
            && let Some(exception) = handle.stored()
        {
            handle.finish();
            return Ok(exception);
        }
        let mut ring = self.ring();
        if self.loose {
            ring.wander(&self.shared.table);
        }
        if let Some(exception) = handle.stored() {
            ring.observed = ring.observed.max(handle.seq());
            handle.finish();
            return Ok(exception);
        }
        let (index, checking) = (handle.index(), ring.checking);
        let slot = ring.slot(index);
        let own = matches!(&slot.owner, Owner::Handle(owner) if owner.is(handle));
        if checking && !own {
            return Err(PollError::Stale { index });
        }
        let exception = slot.done.ok_or(PollError::Pending)?;
        // The slot keeps its status, as the hardware does: without checking, a stale poll reads it.
        if !matches!(slot.owner, Owner::Waiter) {
            slot.owner = Owner::Nobody;
        }
        let seq = slot.seq;
        ring.observed = ring.observed.max(seq);
        handle.finish();
        Ok(exception)
    }

    /// `ve_dma_wait`: polls until the result is final.
    pub fn wait(&self, handle: &Handle) -> Result<Exception, PollError> {
        loop {
            match self.poll(handle) {
                Err(PollError::Pending) => std::thread::yield_now(),
                outcome => return outcome,
            }
        }
    }

    /// `ve_dma_post_wait`: waits for a descriptor instead of answering EAGAIN, posts, waits for the completion.
    pub fn post_wait(&self, dst: Vehva, src: Vehva, len: u32) -> Exception {
        let transfer = Transfer { dst, src, len };
        let mut ring = self.ring();
        if self.refuse_uninitialised(&ring).is_err() {
            return FaultKind::Io.exception();
        }
        self.check_post(&mut ring, transfer, None);
        let index = loop {
            match ring.free_slot(self.trap.as_ref()) {
                Ok(index) => break index,
                Err(RingFull) => ring = self.pause(ring),
            }
        };
        let seq = ring.number();
        ring.prepare(&self.shared.table, index, seq, transfer, Owner::Waiter);
        loop {
            let slot = ring.slot(index);
            if let Some(exception) = slot.done {
                slot.owner = Owner::Nobody;
                ring.observed = ring.observed.max(seq);
                return exception;
            }
            ring = self.pause(ring);
        }
    }

    /// Lets another thread step or poll meanwhile.
    fn pause<'a>(&'a self, mut ring: MutexGuard<'a, Ring>) -> MutexGuard<'a, Ring> {
        if self.loose {
            ring.wander(&self.shared.table);
        }
        drop(ring);
        std::thread::yield_now();
        self.ring()
    }

    /// Words 0 and 1 of the control register pair of table H (section 9.1): running or halted, read pointer.
    pub fn control_registers(&self) -> [u64; 2] {
        let ring = self.ring();
        let state = if ring.held { 2 } else { 1 };
        let read = (ring.next + DESCRIPTORS - ring.prepared) % DESCRIPTORS;
        [state, read as u64]
    }

    /// The four words of a descriptor of the ring (section 9.1).
    pub(crate) fn words(&self, index: usize) -> [u64; 4] {
        let mut ring = self.ring();
        let slot = ring.slot(index);
        let Transfer { dst, src, len } = slot.transfer;
        let status = match (&slot.owner, slot.done) {
            (_, Some(exception)) => u64::from(exception.bits()) << 48 | STATUS_COMPLETED,
            (Owner::Nobody, None) => 0,
            (_, None) => STATUS_PREPARED,
        };
        let control = if status == 0 { 0 } else { CONTROL_SYNC << 32 };
        [status, u64::from(len) | control, src.raw(), dst.raw()]
    }

    /// Halts the engine: posted descriptors stay prepared, as when no thread of the process is on a core (section 9.4).
    pub fn hold(&self) {
        self.ring().held = true;
    }

    /// Executes one prepared descriptor of a held engine; in reordering mode, does one part of what is pending. False if nothing
    /// could be done.
    pub fn step(&self) -> bool {
        let mut ring = self.ring();
        if self.loose {
            ring.go_on();
            ring.step_loose(&self.shared.table)
        } else {
            ring.execute_one(&self.shared.table)
        }
    }

    /// Ends [`Dma::hold`] and executes what is prepared, in ring order.
    pub fn resume(&self) {
        let mut ring = self.ring();
        ring.held = false;
        if self.loose {
            ring.settle(&self.shared.table);
        }
        while ring.execute_one(&self.shared.table) {}
    }

    /// Switches the check for stale handles, on at first. Without it `poll` answers as the library does: with the result of
    /// whatever transfer uses the descriptor now.
    pub fn set_checking(&self, checking: bool) {
        self.ring().checking = checking;
    }

    /// Switches strict mode, off at first: a transfer with both ends on other VEs, which is undocumented, ends with 0x0800.
    pub fn set_strict(&self, strict: bool) {
        self.ring().strict = strict;
    }

    /// Takes entries out of the DMAATB. What is pending is done first (section 6); from here on nothing new goes through them.
    pub(crate) fn unmap(&self, start: Vehva) -> Option<Entry> {
        let mut ring = self.ring();
        let len = {
            let table = self.shared.table.read();
            let table = table.unwrap_or_else(PoisonError::into_inner);
            table.find(start)?.0
        };
        if let Some(trap) = &self.trap
            && ring.in_flight(start, len)
        {
            trap.spring(Rule::InFlight { vehva: start });
        }
        if self.loose {
            ring.settle(&self.shared.table);
        }
        let mut table = self
            .shared
            .table
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        table.remove(start)
    }
}

/// Status of a descriptor (word 0, section 9.1).
pub(crate) const STATUS_PREPARED: u64 = 1;
/// As above.
pub(crate) const STATUS_COMPLETED: u64 = 2;
/// Control bit SYNC (word 1, section 9.1).
const CONTROL_SYNC: u64 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use windlass_mem::SharedBytes;

    use super::*;
    use crate::addr::PageSize;
    use crate::fault::Access;
    use crate::profile::Profile;
    use crate::translate::Kind;

    const A: u64 = 0x0700_0000_0000;
    const B: u64 = A + 4096;
    const RO: u64 = A + 64 * 4096;

    fn bytes(len: usize) -> SharedBytes {
        windlass_mem::lend(vec![0u64; len / 8]).0
    }

    fn engine() -> (Dma, SharedBytes, SharedBytes) {
        let (a, b) = (bytes(4096), bytes(4096));
        let mut table = Table::new(Profile::VE1);
        for (start, memory, writable) in [
            (A, a.clone(), true),
            (B, b.clone(), true),
            (RO, bytes(4096), false),
        ] {
            let start = Vehva::new(start);
            table.insert(Entry {
                start,
                page: PageSize::M64,
                writable,
                kind: Kind::Remote,
                sync: false,
                bytes: memory,
            });
        }
        (
            Dma::new(Arc::new(RwLock::new(table)), &Modes::default()),
            a,
            b,
        )
    }

    fn code(dma: &Dma, dst: u64, src: u64, len: u32) -> u16 {
        dma.post_wait(Vehva::new(dst), Vehva::new(src), len).bits()
    }

    #[test]
    fn exception_codes_of_section_9_3() {
        let (dma, a, b) = engine();
        a.write(0, &[7; 16]).expect("write");
        assert_eq!(code(&dma, B, A, 16), 0);
        let mut seen = [0; 17];
        b.read(0, &mut seen).expect("read");
        assert_eq!((seen[0], seen[15], seen[16]), (7, 7, 0));
        assert_eq!(code(&dma, RO, A, 4), 0x8000);
        assert_eq!(code(&dma, A, RO, 4), 0, "reading read-only memory is legal");
        assert_eq!(code(&dma, B, A + 32 * 4096, 4), 0x4000);
        assert_eq!(code(&dma, 0x0710_0000_0000, A, 4), 0x2000);
        assert_eq!(code(&dma, B + 1, A, 4), 0x1000);
        assert_eq!(code(&dma, B, A + 2, 4), 0x1000);
        assert_eq!(code(&dma, B, A, 6), 0x1000);
        assert_eq!(code(&dma, B, A, LENGTH_END), 0x1000);
        assert_eq!(
            code(&dma, 0, 0, 0),
            0,
            "length 0 completes without a transfer"
        );
        dma.set_strict(true);
        assert_eq!(code(&dma, B, A, 4), 0x0800);
    }

    #[test]
    fn a_range_may_cross_entries_but_is_refused_whole() {
        let (dma, a, b) = engine();
        b.write(0, &[9; 8]).expect("write");
        assert_eq!(
            code(&dma, A, A + 4092, 12),
            0,
            "the source crosses from A to B"
        );
        let mut seen = [0; 12];
        a.read(0, &mut seen).expect("read");
        assert_eq!(seen, [0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
        a.fill(0, 4096, 1).expect("fill");
        assert_eq!(code(&dma, B + 4000, A, 200), 0x4000);
        b.read(4000, &mut seen).expect("read");
        assert_eq!(seen, [0; 12], "nothing was copied");
    }

    #[test]
    fn the_129th_post_answers_eagain_until_one_completes() {
        // Section 13, check 12.
        let (dma, a, _) = engine();
        a.write(0, &[5; 8]).expect("write");
        dma.hold();
        let handles: Vec<Handle> = (0..=DESCRIPTORS).map(|_| Handle::new()).collect();
        for handle in handles.iter().take(DESCRIPTORS) {
            assert_eq!(dma.post(Vehva::new(B), Vehva::new(A), 8, handle), Ok(()));
        }
        let last = &handles[DESCRIPTORS];
        assert_eq!(
            dma.post(Vehva::new(B), Vehva::new(A), 8, last),
            Err(RingFull)
        );
        assert_eq!(dma.poll(&handles[0]), Err(PollError::Pending));
        assert_eq!(dma.control_registers(), [2, 0]);
        assert!(dma.step());
        assert_eq!(dma.control_registers(), [2, 1]);
        assert_eq!(handles[0].stored(), None);
        assert_eq!(dma.post(Vehva::new(B), Vehva::new(A), 8, last), Ok(()));
        assert_eq!(
            handles[0].stored(),
            Some(Exception::NONE),
            "the later post stored the result"
        );
        assert_eq!(dma.poll(&handles[0]), Ok(Exception::NONE));
        assert_eq!(
            dma.post(Vehva::new(B), Vehva::new(A), 8, &Handle::new()),
            Err(RingFull)
        );
        dma.resume();
        assert!(
            handles
                .iter()
                .all(|handle| dma.wait(handle) == Ok(Exception::NONE))
        );
        assert!(!dma.step());
    }

    #[test]
    fn later_descriptors_go_on_after_an_exception() {
        let (dma, a, b) = engine();
        a.write(0, &[3; 8]).expect("write");
        dma.hold();
        let (bad, good) = (Handle::new(), Handle::new());
        dma.post(Vehva::new(RO), Vehva::new(A), 8, &bad)
            .expect("post");
        dma.post(Vehva::new(B), Vehva::new(A), 8, &good)
            .expect("post");
        dma.resume();
        assert_eq!(dma.poll(&bad).map(Exception::bits), Ok(0x8000));
        assert_eq!(dma.poll(&good), Ok(Exception::NONE));
        let mut seen = [0; 8];
        b.read(0, &mut seen).expect("read");
        assert_eq!(seen, [3; 8]);
    }

    #[test]
    fn a_stale_poll_is_trapped_or_reads_another_transfer() {
        let (dma, ..) = engine();
        let (old, new) = (Handle::new(), Handle::new());
        dma.post(Vehva::new(B), Vehva::new(A), 8, &old)
            .expect("post");
        assert_eq!(dma.poll(&old), Ok(Exception::NONE));
        assert_eq!(dma.poll(&old), Err(PollError::Stale { index: 0 }));
        for _ in 1..DESCRIPTORS {
            assert_eq!(code(&dma, B, A, 4), 0);
        }
        dma.post(Vehva::new(RO), Vehva::new(A), 8, &new)
            .expect("post");
        assert_eq!(new.index(), 0);
        dma.set_checking(false);
        assert_eq!(
            dma.poll(&old).map(Exception::bits),
            Ok(0x8000),
            "the other transfer's result"
        );
    }

    #[test]
    fn handles_are_reusable() {
        let (dma, ..) = engine();
        let handle = Handle::new();
        for _ in 0..3 * DESCRIPTORS {
            dma.post(Vehva::new(B), Vehva::new(A), 8, &handle)
                .expect("post");
            assert_eq!(dma.poll(&handle), Ok(Exception::NONE));
        }
    }

    proptest! {
        /// Against a model of bytes and pages: what is copied, where it stops, which code.
        #[test]
        fn transfers_equal_a_copy_of_bytes(
            steps in prop::collection::vec((0..6 * 16_u64, 0..6 * 16_u64, 0..40_u32), 1..if cfg!(miri) { 4 } else { 40 }),
        ) {
            // Six pages of 64 bytes: writable, writable, none, read-only, writable, none.
            let pages = [Some(true), Some(true), None, Some(false), Some(true), None];
            let mut table = Table::new(Profile::VE1);
            let mut model = [0_u8; 6 * 64];
            for (index, writable) in pages.iter().enumerate().filter_map(|(i, w)| w.map(|w| (i, w))) {
                let memory = bytes(64);
                let fill: Vec<u8> = (0..64).map(|i| (index * 64 + i) as u8 ^ 0x5A).collect();
                memory.write(0, &fill).expect("write");
                model[index * 64..][..64].copy_from_slice(&fill);
                let start = Vehva::new(A + index as u64 * 64);
                table.insert(Entry { start, page: PageSize::M64, writable, kind: Kind::Own, sync: false, bytes: memory });
            }
            let dma = Dma::new(Arc::new(RwLock::new(table)), &Modes::default());
            for (dst, src, words) in steps {
                let (dst, src, len) = (dst as usize * 4, src as usize * 4, words as usize * 4);
                let apart = dst + len <= src || src + len <= dst;
                if !apart {
                    // Overlap is undefined (section 9.2).
                    continue;
                }
                let page = |at: usize| pages.get(at / 64).copied().flatten();
                let words = |start: usize| (start..start + len).step_by(4);
                let read = words(src).all(|at| page(at).is_some());
                let first_bad = words(dst).find(|at| page(*at) != Some(true));
                let expected = match (read, first_bad) {
                    _ if len == 0 => 0,
                    (false, _) => 0x4000,
                    (true, None) => 0,
                    (true, Some(at)) => if page(at).is_some() { 0x8000 } else { 0x4000 },
                };
                let got = code(&dma, A + dst as u64, A + src as u64, len as u32);
                prop_assert_eq!(got, expected);
                if got == 0 {
                    model.copy_within(src..src + len, dst);
                }
            }
            let table = dma.shared.table.read().expect("table");
            for at in (0..model.len()).filter(|at| pages[at / 64].is_some()) {
                let piece = table.piece(Vehva::new(A + at as u64), 1, Access::Read).expect("mapped");
                let mut byte = [0];
                piece.entry.bytes.read(piece.offset, &mut byte).expect("read");
                prop_assert_eq!(byte[0], model[at]);
            }
        }
    }

    #[test]
    fn post_wait_waits_for_room() {
        let (dma, ..) = engine();
        dma.hold();
        let handles: Vec<Handle> = (0..DESCRIPTORS).map(|_| Handle::new()).collect();
        for handle in &handles {
            dma.post(Vehva::new(B), Vehva::new(A), 8, handle)
                .expect("post");
        }
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| code(&dma, B, A, 4));
            while !waiter.is_finished() {
                dma.step();
                std::thread::yield_now();
            }
            assert_eq!(waiter.join().expect("thread"), 0);
        });
    }
}
