//! Memory that is exclusively ours, as a plain slice.
//!
//! Two guards prove exclusivity: [`LocalGuard`] by the exclusive lock on the own part, and
//! [`Buffer`] by owning memory that is in no window.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use windlass_mem::SharedBytes;

use crate::element::Element;
use crate::local::LocalGuard;
use crate::request::Buffer;

/// The memory as elements.
///
/// # Safety
/// While the slice lives nobody writes the memory, by whatever way, and earlier accesses of
/// others happened before this call.
unsafe fn slice<T: Element>(bytes: &SharedBytes) -> &[T] {
    // SAFETY: that nobody writes the bytes is the caller's promise.
    let bytes = unsafe { bytes.as_slice() };
    // Empty memory need not be aligned for `T`.
    if bytes.is_empty() {
        &[]
    } else {
        bytemuck::cast_slice(bytes)
    }
}

/// The memory as elements, to be changed.
///
/// # Safety
/// While the slice lives nobody else reads or writes the memory, by whatever way, and earlier
/// accesses of others happened before this call.
#[expect(
    clippy::mut_from_ref,
    reason = "exclusivity is proved by a lock between processes or by ownership, not by a borrow"
)]
unsafe fn slice_mut<T: Element>(bytes: &SharedBytes) -> &mut [T] {
    // SAFETY: that nobody else touches the bytes is the caller's promise.
    let bytes = unsafe { bytes.as_mut_slice() };
    // Empty memory need not be aligned for `T`.
    if bytes.is_empty() {
        &mut []
    } else {
        bytemuck::cast_slice_mut(bytes)
    }
}

impl<T: Element> Deref for LocalGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as in `deref_mut`; through `&self` nobody of this process writes either.
        unsafe { slice(self.bytes()) }
    }
}

impl<T: Element> DerefMut for LocalGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: nobody else touches the bytes while the slice lives:
        // - peers reach them only in an epoch that covers this rank. A passive one holds this
        //   rank's lock, which is held exclusively here. A fence epoch is open on all ranks or on
        //   none (every fence agrees on that), and none is open here: `lock_local` checked it;
        // - this process reaches them only through the window, which the guard borrows mutably,
        //   not through the memory lent to it, which was moved in;
        // - no transfer into them runs on: what a peer posted was completed before it gave up the
        //   lock or passed the fence that covered it, and this process moves only buffers;
        // - no other slice exists: slices are made here and borrow the guard.
        // Taking the lock was an atomic on the word that peers change when they release, so
        // their earlier accesses happened before. A copy of the part is the guard's alone.
        unsafe { slice_mut(self.bytes_mut()) }
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as in `deref_mut`; through `&self` nobody of this process writes either.
        unsafe { slice(self.bytes()) }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: nobody else touches the bytes while the slice lives:
        // - they are a range of the arena that no window and no other buffer has;
        // - a transfer reaches them only while a `Request` owns the buffer, which gives it back
        //   after completion and otherwise never drops it;
        // - no other slice exists: slices are made here and borrow the buffer.
        // The completion that the request saw orders the transfer's accesses before.
        unsafe { slice_mut(self.bytes()) }
    }
}

/// A slice of the caller as one side of a transfer, for as long as it is borrowed.
///
/// Dropping it ends the process if a transfer still uses the memory: the borrow must not end
/// before. So whoever owns it completes the transfers first.
pub(crate) struct Borrowed<'a> {
    bytes: SharedBytes,
    borrow: PhantomData<&'a mut [u8]>,
}

impl<'a> Borrowed<'a> {
    /// Memory that is only read from.
    pub(crate) fn source<T: Element>(memory: &'a [T]) -> Borrowed<'a> {
        Self::over(NonNull::from(memory).cast(), size_of_val(memory))
    }

    /// Memory to be filled.
    pub(crate) fn sink<T: Element>(memory: &'a mut [T]) -> Borrowed<'a> {
        let len = size_of_val(memory);
        Self::over(NonNull::from(memory).cast(), len)
    }

    fn over(addr: NonNull<u8>, len: usize) -> Borrowed<'a> {
        Borrowed {
            // SAFETY:
            // - the bytes are plain data (`Element`), valid, initialised and in place while they
            //   are borrowed, and the range and its clones do not outlive the borrow: `drop` looks
            //   at that, and ends the process otherwise; nobody in this crate forgets a `Borrowed`;
            // - a source's references only read, and nobody writes to a source: a put reads it. A
            //   sink's reference is not used while it is borrowed.
            bytes: unsafe { windlass_mem::borrow(addr, len) },
            borrow: PhantomData,
        }
    }

    /// The memory.
    pub(crate) fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_sole() {
            eprintln!(
                "windlass: a transfer cannot be completed and still uses memory whose borrow \
                 ends; this process ends instead"
            );
            std::process::abort();
        }
    }
}
