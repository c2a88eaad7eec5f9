//! The user-mode DMA engine: a ring of 128 descriptors (ve-memory.md section 9).
//!
//! A descriptor is executed inside `post`, after it has been checked whole; its completion is observed by `poll`. Descriptors
//! execute in ring order, all with SYNC, so the completion of one implies the data of all before it. For tests the engine can be
//! held: posted descriptors then stay prepared until [`Dma::step`] or [`Dma::resume`].

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use thiserror::Error;

use crate::addr::Vehva;
use crate::fault::{Access, Exception, Fault, FaultKind};
use crate::translate::{Table, order};

/// Descriptors of the ring (section 9.1).
pub const DESCRIPTORS: usize = 128;
/// A transfer must be shorter than this (section 9.2).
pub const LENGTH_END: u32 = 128 << 20;
/// Both addresses and the length are multiples of this (section 9.2).
pub const ALIGN: u64 = 4;

/// `status` of a handle whose result nobody has stored.
const NO_RESULT: i32 = -1;

#[derive(Debug)]
struct Status {
    status: AtomicI32,
    index: AtomicUsize,
}

/// Names a posted descriptor: the `ve_dma_handle_t` of the C interface, reusable after its final result.
///
/// The ring keeps the handle until its result was taken, so a later `post` can store the result there (section 9.3, step 3).
#[derive(Debug, Clone)]
pub struct Handle(Arc<Status>);

impl Default for Handle {
    fn default() -> Self {
        Self::new()
    }
}

impl Handle {
    /// A handle for [`Dma::post`].
    pub fn new() -> Self {
        Self(Arc::new(Status {
            status: AtomicI32::new(NO_RESULT),
            index: AtomicUsize::new(0),
        }))
    }

    /// The result that a later post has stored here, if one has.
    pub fn stored(&self) -> Option<Exception> {
        u16::try_from(self.0.status.load(Ordering::Acquire))
            .ok()
            .map(Exception::from_bits)
    }

    /// Number of its descriptor.
    pub fn index(&self) -> usize {
        self.0.index.load(Ordering::Relaxed)
    }

    fn is(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The next descriptor of the ring is in use: poll, then post again (EAGAIN).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the descriptor ring is full: poll earlier transfers first (EAGAIN)")]
pub struct RingFull;

/// What [`Dma::poll`] cannot answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PollError {
    /// Not completed yet (EAGAIN).
    #[error("the transfer is not completed (EAGAIN)")]
    Pending,
    /// Checking mode: the handle had its final result already, and the descriptor may belong to another transfer.
    #[error(
        "handle of descriptor {index} is polled after its final result; post it again before polling"
    )]
    Stale {
        /// The descriptor.
        index: usize,
    },
}

#[derive(Debug)]
enum Owner {
    Nobody,
    Handle(Handle),
    /// A `post_wait` still pending.
    Waiter,
}

#[derive(Debug)]
struct Descriptor {
    dst: Vehva,
    src: Vehva,
    len: u32,
    owner: Owner,
    /// The exception code once completed.
    done: Option<Exception>,
}

impl Descriptor {
    const FREE: Self = Self {
        dst: Vehva::new(0),
        src: Vehva::new(0),
        len: 0,
        owner: Owner::Nobody,
        done: None,
    };
}

#[derive(Debug)]
struct Ring {
    descriptors: Box<[Descriptor; DESCRIPTORS]>,
    /// Index of the next post.
    next: usize,
    /// Prepared descriptors: the last ones before `next`.
    prepared: usize,
    held: bool,
    checking: bool,
    strict: bool,
}

impl Ring {
    fn slot(&mut self, index: usize) -> &mut Descriptor {
        &mut self.descriptors[index % DESCRIPTORS]
    }

    /// Steps 1 to 3: the next descriptor, free. An old handle gets its result stored.
    fn free_slot(&mut self) -> Result<usize, RingFull> {
        let index = self.next;
        let slot = self.slot(index);
        match (&slot.owner, slot.done) {
            (Owner::Nobody, _) => {}
            (Owner::Handle(old), Some(exception)) => {
                old.0
                    .status
                    .store(i32::from(exception.bits()), Ordering::Release);
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
        dst: Vehva,
        src: Vehva,
        len: u32,
        owner: Owner,
    ) {
        *self.slot(index) = Descriptor {
            dst,
            src,
            len,
            owner,
            done: None,
        };
        self.next = (index + 1) % DESCRIPTORS;
        self.prepared += 1;
        if !self.held {
            self.execute_one(table);
        }
    }

    /// Executes the oldest prepared descriptor; false if there is none.
    fn execute_one(&mut self, table: &RwLock<Table>) -> bool {
        if self.prepared == 0 {
            return false;
        }
        let strict = self.strict;
        let index = (self.next + DESCRIPTORS - self.prepared) % DESCRIPTORS;
        let slot = self.slot(index);
        order();
        let outcome = transfer(table, slot.dst, slot.src, slot.len, strict);
        order();
        slot.done = Some(outcome.map_or_else(|fault| fault.kind.exception(), |()| Exception::NONE));
        self.prepared -= 1;
        true
    }
}

/// Checks a whole transfer, then executes it.
fn transfer(
    table: &RwLock<Table>,
    dst: Vehva,
    src: Vehva,
    len: u32,
    strict: bool,
) -> Result<(), Fault> {
    let misaligned = |at: Vehva| !at.raw().is_multiple_of(ALIGN);
    let refused = |at, access| {
        Err(Fault {
            kind: FaultKind::MemoryAccess,
            at,
            access,
        })
    };
    if misaligned(src) {
        return refused(src, Access::Read);
    }
    if misaligned(dst) || u64::from(len) % ALIGN != 0 || len >= LENGTH_END {
        return refused(dst, Access::Write);
    }
    let mut left = len as usize;
    if left == 0 {
        // Completes normally without a transfer (section 9.3).
        return Ok(());
    }
    let table = table.read().unwrap_or_else(PoisonError::into_inner);
    if let (Ok(from), Ok(to)) = (
        table.piece(src, left, Access::Read),
        table.piece(dst, left, Access::Write),
    ) && from.len == left
        && to.len == left
        && !strict
    {
        return copy(&to, &from, left, dst);
    }
    let from_remote = table.check(src, left, Access::Read)?;
    let to_remote = table.check(dst, left, Access::Write)?;
    if strict && from_remote && to_remote {
        // Both ends on other VEs: undocumented (section 9.2).
        return Err(Fault {
            kind: FaultKind::Io,
            at: dst,
            access: Access::Write,
        });
    }
    let (mut dst, mut src) = (dst, src);
    while left > 0 {
        let from = table.piece(src, left, Access::Read)?;
        let to = table.piece(dst, left, Access::Write)?;
        let part = from.len.min(to.len);
        copy(&to, &from, part, dst)?;
        left -= part;
        src = src.checked_add(part as u64).unwrap_or(src);
        dst = dst.checked_add(part as u64).unwrap_or(dst);
    }
    Ok(())
}

/// Copies within two entries. Aligned units of 4 and 8 bytes are never torn (section 9.4).
fn copy(
    to: &crate::translate::Piece<'_>,
    from: &crate::translate::Piece<'_>,
    len: usize,
    at: Vehva,
) -> Result<(), Fault> {
    let (to_bytes, from_bytes) = (&to.entry.bytes, &from.entry.bytes);
    let unit = |width: usize| len == width && (to.offset | from.offset).is_multiple_of(width);
    let outcome = if unit(8) {
        let mut word = [0; 8];
        from_bytes
            .read(from.offset, &mut word)
            .and_then(|()| to_bytes.write(to.offset, &word))
    } else if unit(4) {
        let mut word = [0; 4];
        from_bytes
            .read(from.offset, &mut word)
            .and_then(|()| to_bytes.write(to.offset, &word))
    } else {
        to_bytes.copy(to.offset, from_bytes, from.offset, len)
    };
    // The table said both ranges are there: a refusal means the memory is not what the entry says.
    outcome.map_err(|_| Fault {
        kind: FaultKind::Io,
        at,
        access: Access::Write,
    })
}

/// The engine of one process: the table H that the library uses. One lock for all threads, as documented.
#[derive(Debug)]
pub struct Dma {
    table: Arc<RwLock<Table>>,
    ring: Mutex<Ring>,
}

impl Dma {
    pub(crate) fn new(table: Arc<RwLock<Table>>) -> Self {
        let ring = Ring {
            descriptors: Box::new([Descriptor::FREE; DESCRIPTORS]),
            next: 0,
            prepared: 0,
            held: false,
            checking: true,
            strict: false,
        };
        Self {
            table,
            ring: Mutex::new(ring),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `ve_dma_post`: `len` bytes from `src` to `dst`. Nothing is checked here: a bad transfer completes with an exception code.
    pub fn post(&self, dst: Vehva, src: Vehva, len: u32, handle: &Handle) -> Result<(), RingFull> {
        let mut ring = self.ring();
        let index = ring.free_slot()?;
        handle.0.status.store(NO_RESULT, Ordering::Relaxed);
        handle.0.index.store(index, Ordering::Relaxed);
        ring.prepare(
            &self.table,
            index,
            dst,
            src,
            len,
            Owner::Handle(handle.clone()),
        );
        Ok(())
    }

    /// `ve_dma_poll`. A final result frees the descriptor and must not be asked for again.
    pub fn poll(&self, handle: &Handle) -> Result<Exception, PollError> {
        if let Some(exception) = handle.stored() {
            return Ok(exception);
        }
        let mut ring = self.ring();
        if let Some(exception) = handle.stored() {
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
        let mut ring = self.ring();
        let index = loop {
            match ring.free_slot() {
                Ok(index) => break index,
                Err(RingFull) => ring = self.pause(ring),
            }
        };
        ring.prepare(&self.table, index, dst, src, len, Owner::Waiter);
        loop {
            let slot = ring.slot(index);
            if let Some(exception) = slot.done {
                slot.owner = Owner::Nobody;
                return exception;
            }
            ring = self.pause(ring);
        }
    }

    /// Lets another thread step or poll meanwhile.
    fn pause<'a>(&'a self, ring: MutexGuard<'a, Ring>) -> MutexGuard<'a, Ring> {
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

    /// Halts the engine: posted descriptors stay prepared, as when no thread of the process is on a core (section 9.4).
    pub fn hold(&self) {
        self.ring().held = true;
    }

    /// Executes one prepared descriptor of a held engine; false if there is none.
    pub fn step(&self) -> bool {
        self.ring().execute_one(&self.table)
    }

    /// Ends [`Dma::hold`] and executes what is prepared, in ring order.
    pub fn resume(&self) {
        let mut ring = self.ring();
        ring.held = false;
        while ring.execute_one(&self.table) {}
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use windlass_mem::SharedBytes;

    use super::*;
    use crate::addr::PageSize;
    use crate::profile::Profile;
    use crate::translate::{Entry, Kind};

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
                bytes: memory,
            });
        }
        (Dma::new(Arc::new(RwLock::new(table))), a, b)
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
            steps in prop::collection::vec((0..6 * 16_u64, 0..6 * 16_u64, 0..40_u32), 1..40),
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
                table.insert(Entry { start, page: PageSize::M64, writable, kind: Kind::Own, bytes: memory });
            }
            let dma = Dma::new(Arc::new(RwLock::new(table)));
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
            let table = dma.table.read().expect("table");
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
