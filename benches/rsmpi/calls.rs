//! One-sided calls of MPI, for which rsmpi has no safe form: windows with the origin's memory, that nothing reaches beyond.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use mpi::ffi;
use mpi::raw::AsRaw;
use mpi::topology::{SimpleCommunicator, UserGroup};

const PAGE_BYTES: usize = 4096;
/// The rank whose memory is reached.
const TARGET: i32 = 1;

/// A page, for its alignment.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// MPI's constants, which are variables to Rust.
#[derive(Clone, Copy)]
struct Constants {
    byte: ffi::MPI_Datatype,
    word: ffi::MPI_Datatype,
    sum: ffi::MPI_Op,
    none: ffi::MPI_Info,
}

impl Constants {
    fn read() -> Self {
        // SAFETY: rsmpi's C part defines them before main begins, and nothing changes them.
        unsafe {
            Self {
                byte: ffi::RSMPI_UINT8_T,
                word: ffi::RSMPI_UINT64_T,
                sum: ffi::RSMPI_SUM,
                none: ffi::RSMPI_INFO_NULL,
            }
        }
    }
}

/// The words of an update: its operand, what to compare with, what was there.
#[derive(Default)]
#[repr(C)]
struct Words {
    operand: u64,
    compare: u64,
    old: u64,
}

/// A window of `bytes` bytes at each rank, and as much memory of the origin. Calls are collective or local as MPI says.
pub(crate) struct Memory {
    mpi: Constants,
    world: ffi::MPI_Comm,
    bytes: usize,
    is_lent: bool,
    window: Option<ffi::MPI_Win>,
    /// This rank's part.
    part: *mut u8,
    /// Owned; reached by MPI, so by pointers alone.
    buffer: *mut [Page],
    lent: *mut [u8],
    words: *mut Words,
}

/// Not null, and not moved when it is.
fn own<T: ?Sized>(memory: Box<T>) -> *mut T {
    Box::into_raw(memory)
}

impl Memory {
    /// Without a window yet. All memory is written: see `rma.c`.
    pub(crate) fn new(world: &SimpleCommunicator, bytes: usize, is_lent: bool) -> Self {
        let pages = vec![Page([2; PAGE_BYTES]); bytes.div_ceil(PAGE_BYTES)];
        Self {
            mpi: Constants::read(),
            world: world.as_raw(),
            bytes,
            is_lent,
            window: None,
            part: ptr::null_mut(),
            buffer: own(pages.into_boxed_slice()),
            lent: own(vec![1; bytes].into_boxed_slice()),
            words: own(Box::new(Words::default())),
        }
    }

    /// Makes the window with `len` bytes at each rank. Collective.
    pub(crate) fn make(&mut self, len: usize) {
        assert!(len <= self.bytes && self.window.is_none());
        let mut window = std::mem::MaybeUninit::uninit();
        let mut part: *mut c_void = self.lent.cast();
        let (info, world, size) = (self.mpi.none, self.world, len as ffi::MPI_Aint);
        // SAFETY: `lent` has `len` bytes and lives until `drop`, which frees the window before; the other arguments are out
        // pointers to locals, and MPI is initialised as there is a communicator.
        unsafe {
            match self.is_lent {
                true => ffi::MPI_Win_create(part, size, 1, info, world, window.as_mut_ptr()),
                false => {
                    let place = (&raw mut part).cast();
                    ffi::MPI_Win_allocate(size, 1, info, world, place, window.as_mut_ptr())
                }
            };
        }
        self.part = part.cast();
        // SAFETY: errors are fatal by default, so the call has succeeded and set it.
        self.window = Some(unsafe { window.assume_init() });
    }

    /// Frees the window. Collective.
    pub(crate) fn free(&mut self) {
        if let Some(mut window) = self.window.take() {
            // SAFETY: it was made and not freed.
            unsafe { ffi::MPI_Win_free(&mut window) };
            self.part = ptr::null_mut();
        }
    }

    #[inline(always)]
    fn window(&self) -> ffi::MPI_Win {
        self.window.expect("a window was made")
    }

    /// Writes zeros to this rank's part, of a window of all bytes.
    pub(crate) fn clear(&mut self, me: i32) {
        // SAFETY: the window is there; under its exclusive lock nobody else is at the part, which has `bytes` bytes.
        unsafe {
            ffi::MPI_Win_lock(ffi::MPI_LOCK_EXCLUSIVE as i32, me, 0, self.window());
            self.part.write_bytes(0, self.bytes);
            ffi::MPI_Win_unlock(me, self.window());
        }
    }

    /// A byte of this rank's part that others may be writing.
    pub(crate) fn look(&self, at: usize) -> u8 {
        assert!(at < self.bytes && !self.part.is_null());
        // SAFETY: inside the part of a window that is there; volatile, as peers write.
        unsafe { self.part.add(at).read_volatile() }
    }

    /// Sets a byte of the origin's buffer, with no operation under way.
    pub(crate) fn mark(&mut self, at: usize, byte: u8) {
        assert!(at < self.bytes);
        // SAFETY: inside the buffer; by `&mut self` and the caller's flush nothing else is at it.
        unsafe { self.buffer.cast::<u8>().add(at).write(byte) };
    }

    /// Puts so many bytes of the buffer to the same place of the target.
    #[inline(always)]
    pub(crate) fn put(&self, at: usize, len: usize) {
        assert!(at + len <= self.bytes);
        let (byte, count) = (self.mpi.byte, len as i32);
        // SAFETY: inside the buffer, which lives until the window is freed, and inside the target's part of equal size.
        unsafe {
            let from = self.buffer.cast::<u8>().add(at).cast();
            ffi::MPI_Put(
                from,
                count,
                byte,
                TARGET,
                at as _,
                count,
                byte,
                self.window(),
            );
        }
    }

    /// Gets the target's first bytes into the buffer.
    #[inline(always)]
    pub(crate) fn get(&self, len: usize) {
        assert!(len <= self.bytes);
        let (byte, count) = (self.mpi.byte, len as i32);
        // SAFETY: as in `put`; the buffer is reached by pointers alone.
        unsafe {
            ffi::MPI_Get(
                self.buffer.cast(),
                count,
                byte,
                TARGET,
                0,
                count,
                byte,
                self.window(),
            );
        }
    }

    /// Adds one to the target's first word.
    #[inline(always)]
    pub(crate) fn fetch_add(&self) {
        // SAFETY: the words live until the window is freed; every part has 8 bytes at least.
        unsafe {
            (*self.words).operand = 1;
            let (operand, old) = (&raw const (*self.words).operand, &raw mut (*self.words).old);
            let (word, sum) = (self.mpi.word, self.mpi.sum);
            ffi::MPI_Fetch_and_op(
                operand.cast(),
                old.cast(),
                word,
                TARGET,
                0,
                sum,
                self.window(),
            );
        }
    }

    /// Puts the next number where the last one seen is.
    #[inline(always)]
    pub(crate) fn swap(&self) {
        // SAFETY: as in `fetch_add`.
        unsafe {
            (*self.words).operand = (*self.words).compare + 1;
            let operand = &raw const (*self.words).operand;
            let compare = &raw const (*self.words).compare;
            let old = &raw mut (*self.words).old;
            let (word, window) = (self.mpi.word, self.window());
            ffi::MPI_Compare_and_swap(
                operand.cast(),
                compare.cast(),
                old.cast(),
                word,
                TARGET,
                0,
                window,
            );
        }
    }

    /// What was swapped is known when the operation is complete.
    #[inline(always)]
    pub(crate) fn swapped(&self) {
        // SAFETY: the words are there, and no operation on them is under way.
        unsafe {
            let Words {
                operand,
                compare,
                old,
            } = &mut *self.words;
            *compare = if *old == *compare { *operand } else { *old };
        }
    }

    /// A shared lock on the target.
    #[inline(always)]
    pub(crate) fn lock(&self) {
        // SAFETY: the window is there.
        unsafe { ffi::MPI_Win_lock(ffi::MPI_LOCK_SHARED as i32, TARGET, 0, self.window()) };
    }

    #[inline(always)]
    pub(crate) fn unlock(&self) {
        // SAFETY: the window is there; out of order it is a fatal error of MPI's.
        unsafe { ffi::MPI_Win_unlock(TARGET, self.window()) };
    }

    #[inline(always)]
    pub(crate) fn flush(&self) {
        // SAFETY: as for `unlock`.
        unsafe { ffi::MPI_Win_flush(TARGET, self.window()) };
    }

    #[inline(always)]
    pub(crate) fn fence(&self) {
        // SAFETY: as for `unlock`.
        unsafe { ffi::MPI_Win_fence(0, self.window()) };
    }

    /// Start to complete, with operations in between.
    #[inline(always)]
    pub(crate) fn access(&self, group: &UserGroup, operate: impl FnOnce()) {
        // SAFETY: window and group are there.
        unsafe { ffi::MPI_Win_start(group.as_raw(), 0, self.window()) };
        operate();
        // SAFETY: the access has begun.
        unsafe { ffi::MPI_Win_complete(self.window()) };
    }

    /// Post and wait.
    #[inline(always)]
    pub(crate) fn expose(&self, group: &UserGroup) {
        // SAFETY: window and group are there; the exposure is ended before the part is.
        unsafe {
            ffi::MPI_Win_post(group.as_raw(), 0, self.window());
            ffi::MPI_Win_wait(self.window());
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.free();
        // SAFETY: they came from boxes, and no window leads to them any more.
        unsafe {
            drop(Box::from_raw(self.buffer));
            drop(Box::from_raw(self.lent));
            drop(Box::from_raw(self.words));
        }
    }
}
