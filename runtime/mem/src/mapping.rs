//! The owner of a range of addresses: what is undone when the last [`SharedBytes`](crate::SharedBytes) over it goes.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// What an owner of memory is made of: address, elements in use, elements set aside.
pub struct Raw {
    addr: NonNull<u8>,
    len: usize,
    capacity: usize,
}

/// An owner of memory that can be taken apart, so that no owner exists while others write, and put together again.
///
/// Public in a private module: nobody else implements it.
pub trait Owner: Sized {
    /// Is it memory of an allocator?
    const ALLOCATED: bool;

    /// Takes the owner apart; nothing is freed.
    fn into_raw(self) -> Raw;

    /// Puts it together again.
    ///
    /// # Safety
    /// `raw` came from `into_raw` of this very type, unchanged, and is used once; its elements are initialised.
    unsafe fn from_raw(raw: Raw) -> Self;

    /// Puts it together and drops it.
    ///
    /// # Safety
    /// As [`from_raw`](Self::from_raw).
    unsafe fn free(raw: Raw) {
        // SAFETY: the caller's promise.
        drop(unsafe { Self::from_raw(raw) });
    }
}

impl<T> Owner for Vec<T> {
    const ALLOCATED: bool = true;

    fn into_raw(self) -> Raw {
        let mut memory = ManuallyDrop::new(self);
        Raw {
            // `as_mut_ptr` is never null, and keeps the provenance of the whole buffer.
            addr: NonNull::new(memory.as_mut_ptr().cast()).unwrap_or(NonNull::dangling()),
            len: memory.len(),
            capacity: memory.capacity(),
        }
    }

    unsafe fn from_raw(raw: Raw) -> Vec<T> {
        // SAFETY: the three parts are those of a `Vec<T>` (the caller's promise).
        unsafe { Vec::from_raw_parts(raw.addr.as_ptr().cast(), raw.len, raw.capacity) }
    }
}

impl<T> Owner for &'static mut [T] {
    const ALLOCATED: bool = false;

    fn into_raw(self) -> Raw {
        Raw {
            len: self.len(),
            capacity: self.len(),
            addr: NonNull::from(self).cast(),
        }
    }

    unsafe fn from_raw(raw: Raw) -> &'static mut [T] {
        // SAFETY: address and length are those of such a slice, and it is made once (the caller's promise).
        unsafe { std::slice::from_raw_parts_mut(raw.addr.as_ptr().cast(), raw.len) }
    }
}

impl<T: 'static> Owner for Box<[T]> {
    const ALLOCATED: bool = true;

    fn into_raw(self) -> Raw {
        Box::leak(self).into_raw()
    }

    unsafe fn from_raw(raw: Raw) -> Box<[T]> {
        // SAFETY: the parts are those of a leaked box (the caller's promise), and boxed again once.
        unsafe { Box::from_raw(<&'static mut [T]>::from_raw(raw)) }
    }
}

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
    /// Memory that its owner lent; undone by making the owner again and dropping it.
    Lent {
        len: usize,
        capacity: usize,
        allocated: bool,
        free: unsafe fn(Raw),
    },
    /// Somebody else's, who promised to keep it; nothing to undo.
    Borrowed,
}

// SAFETY: a `Mapping` is an address and a length and dereferences neither; it only undoes the mapping, once, on drop.
// munmap and shmdt may be called from any thread; an owner gets here only if it is `Send` (`Mapping::lent`).
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

    /// Takes over memory from its owner; `M: Send` because the last range may go in another thread.
    pub(crate) fn lent<M: Owner + Send + 'static>(memory: M) -> Self {
        let Raw {
            addr,
            len,
            capacity,
        } = memory.into_raw();
        Self {
            addr,
            kind: Kind::Lent {
                len,
                capacity,
                allocated: M::ALLOCATED,
                free: M::free,
            },
        }
    }

    /// An owner of nothing: the memory at `addr` is kept by somebody else.
    ///
    /// # Safety
    /// Whoever makes a range over it has that one's promise.
    pub(crate) unsafe fn borrowed(addr: NonNull<u8>) -> Self {
        Self {
            addr,
            kind: Kind::Borrowed,
        }
    }

    /// The block, if it is one of Rust's allocator.
    pub(crate) fn block(&self) -> Option<NonNull<u8>> {
        match self.kind {
            Kind::Lent {
                allocated: true, ..
            } => Some(self.addr),
            _ => None,
        }
    }

    /// Does this keep the memory, rather than somebody's promise?
    pub(crate) fn is_owned(&self) -> bool {
        !matches!(self.kind, Kind::Borrowed)
    }

    /// First address.
    pub(crate) fn addr(&self) -> NonNull<u8> {
        self.addr
    }

    /// Gives the memory back that [`Mapping::lent`] took.
    ///
    /// # Safety
    /// `self` was made by `Mapping::lent::<M>` with this very `M`.
    pub(crate) unsafe fn into_owner<M: Owner>(self) -> M {
        let this = ManuallyDrop::new(self);
        let Kind::Lent { len, capacity, .. } = this.kind else {
            unreachable!("a loan is always over lent memory")
        };
        let addr = this.addr;
        // SAFETY: the parts come from an `M` (the caller's promise), unchanged, and are used once: `ManuallyDrop` keeps
        // the drop below from using them again. Every byte is initialised because it was when the memory was lent and
        // ranges only ever store initialised bytes; any bit pattern is an element because `lend` asks for `Pod`.
        unsafe {
            M::from_raw(Raw {
                addr,
                len,
                capacity,
            })
        }
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
                // A C program that was told the address may have detached it by itself (ve-memory 7.3, last row).
                // SAFETY: `addr` came from shmat (promise of `Mapping::segment`) and no range uses it any more; what is not the
                // start of an attachment is refused.
                let _ = unsafe { libc::shmdt(self.addr.as_ptr().cast()) };
            }
            Kind::Lent {
                len,
                capacity,
                free,
                ..
            } => {
                let addr = self.addr;
                // SAFETY: parts and function were stored together by `Mapping::lent`, and this is their only use.
                unsafe {
                    free(Raw {
                        addr,
                        len,
                        capacity,
                    })
                }
            }
            Kind::Borrowed => {}
        }
    }
}
