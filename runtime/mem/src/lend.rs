//! Memory that the caller lends, or lets be borrowed: its addresses stay, it is neither copied nor moved.
//!
//! [`lend`] takes the memory's owner (a vector, a boxed slice, a static slice) and gives it back by
//! [`Loan::take_back`] once no range over it is left: nothing a safe program does can free the memory under a range.
//! [`borrow`] has no owner to keep, so its caller makes that promise.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;

use crate::mapping::{Mapping, Owner};
use crate::shared::SharedBytes;

/// Owners of memory that can be lent: `Vec<T>`, `Box<[T]>` and `&'static mut [T]` of plain data. Sealed.
pub trait Lend<T>: Owner + AsRef<[T]> + Send + 'static {}

impl<T: Pod + Send> Lend<T> for Vec<T> {}
impl<T: Pod + Send> Lend<T> for Box<[T]> {}
impl<T: Pod + Send> Lend<T> for &'static mut [T] {}

/// The right to get lent memory back, as the `M` that owned it.
///
/// Dropping it gives the memory up: it is freed when the last range over it goes, never earlier.
#[must_use = "without the loan the memory cannot be taken back"]
pub struct Loan<M> {
    keep: Arc<Mapping>,
    kind: PhantomData<M>,
}

/// Lent memory cannot be taken back yet: other ranges over it live, or `bytes` belongs to other memory.
#[derive(thiserror::Error)]
#[error("lent memory is still in use by another range over it")]
pub struct StillLent<M> {
    /// The loan, to try again.
    pub loan: Loan<M>,
    /// The range that was offered.
    pub bytes: SharedBytes,
}

impl<M> std::fmt::Debug for StillLent<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StillLent")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<M> std::fmt::Debug for Loan<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loan").finish_non_exhaustive()
    }
}

/// Turns memory into a range that others may change. It is not copied or moved: its addresses stay.
///
/// Get it back by [`Loan::take_back`].
pub fn lend<T: Pod + Send, M: Lend<T>>(memory: M) -> (SharedBytes, Loan<M>) {
    let len = size_of_val(memory.as_ref());
    let keep = Arc::new(Mapping::lent(memory));
    // SAFETY: `keep` owns the memory, of which `len` bytes are initialised plain data (`Pod`: no padding); the owner
    // was moved in and taken apart, so no reference to it exists, and `Loan` makes none while ranges live.
    let bytes = unsafe { SharedBytes::over(Arc::clone(&keep), len, false) };
    (
        bytes,
        Loan {
            keep,
            kind: PhantomData,
        },
    )
}

/// A range over memory whose owner stays who it is: `len` bytes from `addr` on, of any alignment.
///
/// # Safety
/// Until the last clone and slice of the range is gone (and whoever was told its address has stopped using it),
/// - the bytes are valid for reads and writes, initialised, and stay at their place;
/// - no reference to any of them is used: while the range lives, this program accesses them through it, or as code
///   outside of Rust does, by accesses that the compiler cannot see.
///
/// A `&mut [T]` of plain data fulfils this if its borrow outlives the range and is not used meanwhile.
pub unsafe fn borrow(addr: NonNull<u8>, len: usize) -> SharedBytes {
    // SAFETY: the caller keeps the memory: there is nothing to own and nothing to undo.
    unsafe { SharedBytes::over(Arc::new(Mapping::borrowed(addr)), len, false) }
}

impl<M: Owner> Loan<M> {
    /// Gives the memory back, with what others wrote to it, when `bytes` is the last range over it.
    ///
    /// # Errors
    /// [`StillLent`] returns both when another clone or slice lives.
    pub fn take_back(self, bytes: SharedBytes) -> std::result::Result<M, StillLent<M>> {
        if !Arc::ptr_eq(&self.keep, bytes.keep()) || Arc::strong_count(&self.keep) != 2 {
            return Err(StillLent { loan: self, bytes });
        }
        // No other owner exists (the two counted are `self` and `bytes`), and none can appear: cloning needs one.
        drop(bytes);
        let Some(mapping) = Arc::into_inner(self.keep) else {
            unreachable!("the last owner of lent memory is its loan")
        };
        // SAFETY: `lend` made this mapping of an `M`: the loan carries the type.
        Ok(unsafe { mapping.into_owner() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn text(bytes: &SharedBytes, offset: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        bytes.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn lent_memory_comes_back_with_what_was_written() {
        let memory: Vec<u32> = (0..100).collect();
        let (addr, capacity) = (memory.as_ptr().addr(), memory.capacity());
        let (bytes, loan) = lend(memory);
        assert_eq!((bytes.len(), bytes.addr()), (400, addr));
        bytes.write(4, &77u32.to_ne_bytes()).unwrap();
        let memory = loan.take_back(bytes).unwrap();
        assert_eq!((memory[0], memory[1], memory[99]), (0, 77, 99));
        assert_eq!(
            (memory.as_ptr().addr(), memory.capacity()),
            (addr, capacity)
        );
    }

    #[test]
    fn lent_memory_stays_while_anybody_has_a_range() {
        let (bytes, loan) = lend(vec![1u64; 16]);
        let slice = bytes.slice(8, 8).unwrap();
        let StillLent { loan, bytes } = loan.take_back(bytes).unwrap_err();
        assert!(!bytes.is_sole());
        drop(slice);
        let (strange, other) = lend(vec![0u8; 1]);
        let StillLent {
            loan,
            bytes: strange,
        } = loan.take_back(strange).unwrap_err();
        assert_eq!(other.take_back(strange).unwrap(), [0]);
        assert_eq!(loan.take_back(bytes).unwrap(), [1; 16]);
    }

    #[test]
    fn a_dropped_loan_frees_nothing_early_and_everything_late() {
        let (bytes, loan) = lend(vec![5u8; PAGE]);
        drop(loan);
        bytes.write(0, &[6; 8]).unwrap();
        assert!(bytes.is_sole());
        let slice = bytes.slice(PAGE - 1, 1).unwrap();
        drop(bytes);
        // Another thread may be the last.
        std::thread::spawn(move || assert_eq!(text(&slice, 0, 1), [5]))
            .join()
            .unwrap();
    }

    #[test]
    fn empty_vectors_can_be_lent() {
        let (bytes, loan) = lend(Vec::<f64>::new());
        assert!(bytes.is_empty());
        assert!(loan.take_back(bytes).unwrap().is_empty());
        let (bytes, loan) = lend(vec![(); 3]);
        assert!(bytes.is_empty());
        assert_eq!(loan.take_back(bytes).unwrap().len(), 3);
        let spare = Vec::<u16>::with_capacity(10);
        let (bytes, loan) = lend(spare);
        assert_eq!(loan.take_back(bytes).unwrap().capacity(), 10);
    }
    #[test]
    fn boxes_and_static_slices_come_back_as_what_they_were() {
        let boxed: Box<[u16]> = (0..50).collect();
        let addr = boxed.as_ptr().addr();
        let (bytes, loan) = lend(boxed);
        assert_eq!((bytes.len(), bytes.addr()), (100, addr));
        bytes.write(2, &7u16.to_ne_bytes()).unwrap();
        let boxed: Box<[u16]> = loan.take_back(bytes).unwrap();
        assert_eq!((boxed[0], boxed[1], boxed[49]), (0, 7, 49));
        drop(lend(boxed));

        let leaked = Box::into_raw(vec![1u8; 33].into_boxed_slice());
        // SAFETY: a fresh allocation that nobody else knows, and that stays until the end of this test.
        let kept: &'static mut [u8] = unsafe { &mut *leaked };
        let (bytes, loan) = lend(&mut kept[1..]);
        let slice = bytes.slice(31, 1).unwrap();
        slice.write(0, &[2]).unwrap();
        drop(slice);
        let part: &'static mut [u8] = loan.take_back(bytes).unwrap();
        assert_eq!((part.len(), part[0], part[31]), (32, 1, 2));
        // Given up: nobody frees it, it is leaked as before.
        drop(lend(part));
        // SAFETY: from `into_raw` above; the borrow that was lent is gone, and nothing else points there.
        drop(unsafe { Box::from_raw(leaked) });
        let nothing: Box<[u64]> = Box::default();
        let (bytes, loan) = lend(nothing);
        assert!(loan.take_back(bytes).unwrap().is_empty());
    }

    #[test]
    fn borrowed_memory_is_written_in_place() {
        let mut memory = [0u8; 24];
        let addr = NonNull::from(&mut memory[3..]).cast();
        // SAFETY: the array outlives the range, and is not used until the range is dropped.
        let bytes = unsafe { borrow(addr, 21) };
        bytes.write(1, b"in place").unwrap();
        assert!(bytes.write(21, &[1]).is_err());
        drop(bytes);
        assert_eq!(&memory[4..12], b"in place");
    }
}
