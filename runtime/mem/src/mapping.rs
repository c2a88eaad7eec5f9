//! The owner of a range of addresses: what is undone when the last [`SharedBytes`](crate::SharedBytes) over it goes.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Owner of a range of addresses. Made once, held by an `Arc` in every range over it, undone on drop.
pub(crate) struct Mapping {
    addr: NonNull<u8>,
    kind: Kind,
}

enum Kind {
    /// Made by mmap; undone by munmap.
    Mapped { len: usize },
    /// Made by shmat; undone by shmdt.
    Segment,
    /// The buffer of a `Vec`; undone by dropping that `Vec`.
    Heap {
        len: usize,
        capacity: usize,
        free: unsafe fn(NonNull<u8>, usize, usize),
    },
    /// Nothing behind it: an empty range.
    Nothing,
}

// SAFETY: a `Mapping` is an address and a length and dereferences neither; it only undoes the mapping, once, on drop.
// munmap and shmdt may be called from any thread; a `Vec` gets here only with `T: Send` (`Mapping::heap`).
unsafe impl Send for Mapping {}
// SAFETY: no method takes `&self` and touches memory, so sharing the owner between threads cannot race.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Takes over a range made by mmap.
    ///
    /// # Safety
    /// `[addr, addr + len)` is mapped, belongs to the caller alone, and nobody else unmaps any of it.
    pub(crate) unsafe fn mapped(addr: NonNull<u8>, len: usize) -> Self {
        Self {
            addr,
            kind: Kind::Mapped { len },
        }
    }

    /// Takes over a segment attached by shmat.
    ///
    /// # Safety
    /// `addr` is a result of shmat that nobody else detaches.
    pub(crate) unsafe fn segment(addr: NonNull<u8>) -> Self {
        Self {
            addr,
            kind: Kind::Segment,
        }
    }

    /// Takes over the buffer of a vector; `T: Send` because the last range may go in another thread.
    pub(crate) fn heap<T: Send + 'static>(memory: Vec<T>) -> Self {
        unsafe fn free<T>(addr: NonNull<u8>, len: usize, capacity: usize) {
            // SAFETY: the three parts came from a `Vec<T>` by `Mapping::heap` (its only caller is the drop of that
            // mapping), pointer, length and capacity unchanged, and are used once.
            drop(unsafe { Vec::from_raw_parts(addr.as_ptr().cast::<T>(), len, capacity) });
        }
        let mut memory = ManuallyDrop::new(memory);
        let (len, capacity) = (memory.len(), memory.capacity());
        // `as_mut_ptr` is never null, and keeps the provenance of the whole buffer.
        let addr = NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap_or(NonNull::dangling());
        Self {
            addr,
            kind: Kind::Heap {
                len,
                capacity,
                free: free::<T>,
            },
        }
    }

    /// An owner of nothing, for empty ranges.
    pub(crate) fn nothing() -> Self {
        Self {
            addr: NonNull::<u64>::dangling().cast(),
            kind: Kind::Nothing,
        }
    }

    /// First address.
    pub(crate) fn addr(&self) -> NonNull<u8> {
        self.addr
    }

    /// Gives the vector back that [`Mapping::heap`] took.
    ///
    /// # Safety
    /// `self` was made by `Mapping::heap::<T>` with this very `T`.
    pub(crate) unsafe fn into_vec<T>(self) -> Vec<T> {
        let this = ManuallyDrop::new(self);
        let Kind::Heap { len, capacity, .. } = this.kind else {
            unreachable!("a loan is always over heap memory")
        };
        // SAFETY: the parts come from a `Vec<T>` of the same `T` (the caller's promise), unchanged, and are used once:
        // `ManuallyDrop` keeps the drop below from using them again. Every byte is initialised because it was when the
        // vector was lent and ranges only ever store initialised bytes; any bit pattern is a `T` because `lend` asks
        // for `Pod`.
        unsafe { Vec::from_raw_parts(this.addr.as_ptr().cast::<T>(), len, capacity) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match self.kind {
            Kind::Mapped { len } => {
                // SAFETY: the range belongs to this owner alone (promise of `Mapping::mapped`), and no range uses it
                // any more: each holds the `Arc` whose last count is being dropped.
                let outcome = unsafe { rustix::mm::munmap(self.addr.as_ptr().cast(), len) };
                debug_assert!(outcome.is_ok(), "munmap of a range of ours: {outcome:?}");
            }
            Kind::Segment => {
                // SAFETY: `addr` came from shmat (promise of `Mapping::segment`) and no range uses it any more.
                let outcome = unsafe { libc::shmdt(self.addr.as_ptr().cast()) };
                debug_assert!(outcome == 0, "shmdt of a segment of ours");
            }
            Kind::Heap {
                len,
                capacity,
                free,
            } => {
                // SAFETY: parts and function were stored together by `Mapping::heap`, and this is their only use.
                unsafe { free(self.addr, len, capacity) }
            }
            Kind::Nothing => {}
        }
    }
}
