//! A range of bytes that others may change while we look at it.
//!
//! # Who writes concurrently
//! A range lies in a file mapped by several processes, in a System V segment, or in memory a caller lent to the
//! runtime. Other threads of this process, other processes, their helper threads and the kernel (cross-memory copy)
//! read and write it at any time, without asking. The program may arrange an order (that is what epochs are for), but
//! nothing in this process can enforce it on the others.
//!
//! # Why `&` and `&mut` are both wrong
//! A `&[u8]` promises that the bytes do not change while it lives; the compiler may read a byte twice and assume it
//! got the same, or keep one in a register across a call. A peer breaks that promise. A `&mut [u8]` promises
//! besides that nobody else reads or writes; the compiler may use the memory as scratch. Either one is undefined
//! behaviour the moment it exists beside a foreign write, whether or not anybody looks at the data. A plain load or
//! store through a raw pointer that races with another thread is undefined as well. So a range never becomes a
//! reference to its bytes, except by two functions that are `unsafe` and say what their caller must prove.
//!
//! # Conditions the type upholds
//! 1. *Mapped.* Every byte of `[addr, addr + len)` is mapped while the range exists: it holds its mapping by `Arc`,
//!    and files are sealed against shrinking ([`map`](crate::map)), so that an access cannot fault.
//! 2. *In range.* Every access is checked against the length first, without overflow, before an address is formed.
//! 3. *Racing accesses are defined.* An aligned access of 1, 2, 4 or 8 bytes is one relaxed atomic load or store: it
//!    may be stale, but is never torn. Everything else is copied by code the compiler cannot see into (libc's
//!    memmove, called from assembly): the language's rules about data races speak about accesses it
//!    compiles; what the copy yields under a race is some mix of old and new bytes, and every mix is a valid `u8`.
//! 4. *No forged memory.* A copy never aliases its private side: that one is a real `&[u8]` or `&mut [u8]`, which by
//!    condition 0 of safe Rust cannot point into a range, since no safe function makes a reference into one.
//!
//! The bytes are always initialised: the kernel hands out zeroed pages, and lent memory is plain data.
//!
//! # Cost
//! `write` and `read` are inlined into the caller. With a length known at compile time the choice of the access
//! folds away: two compares, an alignment test and one `mov` remain.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::foreign;
use crate::mapping::Mapping;

/// A range of bytes that other threads and processes may read and write at any time.
///
/// Cloning and slicing share the memory. The module page says why there is no reference to the bytes.
#[derive(Clone)]
pub struct SharedBytes {
    // The base pointer stands here, not behind `keep`: the hot path has no indirection.
    ptr: NonNull<u8>,
    len: usize,
    // `len`, or 0 where the mapping is read-only: one compare answers "in range?" and "may be written?" alike.
    writable: usize,
    keep: Arc<Mapping>,
}

// SAFETY: the memory may be accessed from any thread (mappings are process-wide; lent memory is `T: Send`), every
// access through a range is atomic or opaque to the compiler (condition 3), and the owner is `Send`.
unsafe impl Send for SharedBytes {}
// SAFETY: as for `Send`: concurrent accesses through `&SharedBytes` are exactly what conditions 2 and 3 make defined.
unsafe impl Sync for SharedBytes {}

/// Whether `[offset, offset + len)` lies in `[0, size)`, for all values: nothing is added, so nothing can overflow.
#[inline(always)]
pub(crate) const fn fits(offset: usize, len: usize, size: usize) -> bool {
    len <= size && offset <= size - len
}

/// The same for 64-bit offsets into files and remote memory.
#[inline(always)]
pub(crate) const fn fits_u64(offset: u64, len: u64, size: u64) -> bool {
    len <= size && offset <= size - len
}

impl SharedBytes {
    /// A range over the whole of `keep`'s memory.
    ///
    /// # Safety
    /// `keep` owns at least `len` bytes from its address on, mapped readable (and writable unless `read_only`) and
    /// initialised, for as long as it lives, and no Rust reference to them exists or will exist outside of the unsafe
    /// functions of this type.
    pub(crate) unsafe fn over(keep: Arc<Mapping>, len: usize, read_only: bool) -> Self {
        let writable = if read_only { 0 } else { len };
        Self {
            ptr: keep.addr(),
            len,
            writable,
            keep,
        }
    }

    /// A range of no bytes.
    pub fn empty() -> Self {
        // SAFETY: zero bytes are always mapped and initialised, and nobody has to keep them.
        unsafe {
            Self::over(
                Arc::new(Mapping::borrowed(NonNull::<u64>::dangling().cast())),
                0,
                false,
            )
        }
    }

    /// Bytes in this range.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the range has no bytes.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether stores are refused because the memory is mapped read-only.
    pub fn is_read_only(&self) -> bool {
        self.writable < self.len
    }

    /// Address of the first byte in this process. For cross-memory copy and for comparisons; never made a pointer of.
    #[inline(always)]
    pub fn addr(&self) -> usize {
        self.ptr.as_ptr().addr()
    }

    /// The part `[offset, offset + len)`, sharing the memory.
    pub fn slice(&self, offset: usize, len: usize) -> Result<SharedBytes> {
        if !fits(offset, len, self.len) {
            return Err(self.refused(offset, len, false));
        }
        // SAFETY: `offset <= self.len` was just checked, so the result is inside (or one past) the mapping.
        let ptr = unsafe { self.ptr.add(offset) };
        let writable = if self.is_read_only() { 0 } else { len };
        Ok(Self {
            ptr,
            len,
            writable,
            keep: Arc::clone(&self.keep),
        })
    }

    /// Offset of `other` inside this range, when all addresses of `other` belong to it.
    pub fn contains(&self, other: &SharedBytes) -> Option<usize> {
        let offset = other.addr().checked_sub(self.addr())?;
        fits(offset, other.len, self.len).then_some(offset)
    }

    /// Whether this is the only range over its mapping: no clone, no slice, no loan.
    pub fn is_sole(&self) -> bool {
        Arc::strong_count(&self.keep) == 1
    }

    /// Whether `[offset, offset + len)` may be written, without writing.
    #[inline]
    pub fn check_store(&self, offset: usize, len: usize) -> Result<()> {
        if fits(offset, len, self.writable) {
            Ok(())
        } else {
            Err(self.refused(offset, len, true))
        }
    }

    /// Stores `src` at `offset`. Aligned 1, 2, 4 and 8 bytes are one relaxed atomic store; longer ones are copied in
    /// an unspecified order. Refused whole when any byte is outside.
    #[inline(always)]
    pub fn write(&self, offset: usize, src: &[u8]) -> Result<()> {
        if !fits(offset, src.len(), self.writable) {
            return Err(self.refused(offset, src.len(), true));
        }
        // SAFETY: `offset + src.len() <= len` (checked), so the address is inside the mapping and the bytes from it on
        // are mapped writable; `src` is readable for its length and cannot overlap them (condition 4).
        unsafe { store(self.ptr.as_ptr().add(offset), src.as_ptr(), src.len()) };
        Ok(())
    }

    /// Loads `dst.len()` bytes from `offset`. Aligned 1, 2, 4 and 8 bytes are one relaxed atomic load, never torn;
    /// longer ones may mix old and new bytes when somebody writes meanwhile. Refused whole when any byte is outside.
    #[inline(always)]
    pub fn read(&self, offset: usize, dst: &mut [u8]) -> Result<()> {
        if !fits(offset, dst.len(), self.len) {
            return Err(self.refused(offset, dst.len(), false));
        }
        // SAFETY: `offset + dst.len() <= len` (checked), so the bytes are inside the mapping and readable; `dst` is
        // writable for its length and cannot overlap them (condition 4).
        unsafe { load(dst.as_mut_ptr(), self.ptr.as_ptr().add(offset), dst.len()) };
        Ok(())
    }

    /// Copies `len` bytes of `from` at `from_offset` here to `offset`. The two may overlap.
    pub fn copy(
        &self,
        offset: usize,
        from: &SharedBytes,
        from_offset: usize,
        len: usize,
    ) -> Result<()> {
        if !fits(offset, len, self.writable) {
            return Err(self.refused(offset, len, true));
        }
        if !fits(from_offset, len, from.len) {
            return Err(from.refused(from_offset, len, false));
        }
        // SAFETY: both ranges were checked against their own lengths, so both sides are mapped, this one writable.
        unsafe {
            let to = self.ptr.as_ptr().add(offset);
            move_shared(to, from.ptr.as_ptr().add(from_offset), len);
        }
        Ok(())
    }

    /// Copies `len` bytes from `from` here to `offset`; others may access either side meanwhile, and the two may
    /// overlap. For callers that have an address rather than a slice.
    ///
    /// # Safety
    /// `[from, from + len)` is valid for reads. No reference to any of it is used for writing meanwhile.
    #[inline(always)]
    pub unsafe fn write_from(&self, offset: usize, from: *const u8, len: usize) -> Result<()> {
        if !fits(offset, len, self.writable) {
            return Err(self.refused(offset, len, true));
        }
        // SAFETY: the range was just checked to be mapped writable; the other side is the caller's promise.
        unsafe { move_shared(self.ptr.as_ptr().add(offset), from.cast_mut(), len) };
        Ok(())
    }

    /// Copies `len` bytes from `offset` on to `to`; others may access either side meanwhile, and the two may overlap.
    ///
    /// # Safety
    /// `[to, to + len)` is valid for writes, and no reference to any of it is used meanwhile.
    #[inline(always)]
    pub unsafe fn read_to(&self, offset: usize, to: *mut u8, len: usize) -> Result<()> {
        if !fits(offset, len, self.len) {
            return Err(self.refused(offset, len, false));
        }
        // SAFETY: the range was just checked to be mapped; the other side is the caller's promise.
        unsafe { move_shared(to, self.ptr.as_ptr().add(offset), len) };
        Ok(())
    }

    /// The address of the first byte, for code that accesses the memory outside of Rust's rules.
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Sets `len` bytes at `offset` to `byte`.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) -> Result<()> {
        if !fits(offset, len, self.writable) {
            return Err(self.refused(offset, len, true));
        }
        // SAFETY: `offset + len <= len of the range` (checked): the bytes are mapped writable.
        unsafe { foreign::set(self.ptr.as_ptr().add(offset), byte, len) };
        Ok(())
    }

    /// The byte at `offset`, as an atomic.
    #[inline(always)]
    pub fn atomic_u8(&self, offset: usize) -> Result<&AtomicU8> {
        let at = self.word::<1>(offset)?;
        // SAFETY: `word` proved the byte mapped and writable; it lives as long as `&self`; all other accesses to it
        // through ranges are atomic or opaque.
        Ok(unsafe { AtomicU8::from_ptr(at) })
    }

    /// The two bytes at `offset`, as an atomic. The address must be a multiple of 2.
    #[inline(always)]
    pub fn atomic_u16(&self, offset: usize) -> Result<&AtomicU16> {
        let at = self.word::<2>(offset)?;
        // SAFETY: as in `atomic_u8`; `word` proved the alignment too.
        Ok(unsafe { AtomicU16::from_ptr(at.cast()) })
    }

    /// The four bytes at `offset`, as an atomic. The address must be a multiple of 4.
    #[inline(always)]
    pub fn atomic_u32(&self, offset: usize) -> Result<&AtomicU32> {
        let at = self.word::<4>(offset)?;
        // SAFETY: as in `atomic_u8`; `word` proved the alignment too.
        Ok(unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    /// The eight bytes at `offset`, as an atomic. The address must be a multiple of 8.
    #[inline(always)]
    pub fn atomic_u64(&self, offset: usize) -> Result<&AtomicU64> {
        let at = self.word::<8>(offset)?;
        // SAFETY: as in `atomic_u8`; `word` proved the alignment too.
        Ok(unsafe { AtomicU64::from_ptr(at.cast()) })
    }

    /// The eight bytes at `offset` as an atomic that keeps the memory, for a word that is asked for again and again.
    pub fn shared_word(&self, offset: usize) -> Result<SharedWord> {
        Ok(SharedWord {
            word: NonNull::from(self.atomic_u64(offset)?),
            _keep: Arc::clone(&self.keep),
        })
    }

    /// The bytes as a plain slice.
    ///
    /// # Safety
    /// While the slice lives nobody writes these bytes: no thread of this process, no peer, no device. Proving it is
    /// the synchronisation's task (an exclusive lock on the own window, say), and the same synchronisation must order
    /// earlier foreign writes before this call. Alignment for a wider element type is the caller's to check.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: `ptr` is non-null and aligned for `u8`, `len` bytes from it on are mapped, initialised and at most
        // `isize::MAX` (one mapping) while `&self` keeps them; that nobody writes them is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// The bytes as a plain mutable slice. Empty where the memory is mapped read-only.
    ///
    /// # Safety
    /// While the slice lives nobody else reads or writes these bytes, by whatever way, and no other slice of them
    /// exists in this process; the synchronisation that guarantees it orders earlier foreign accesses before this
    /// call and later ones after the slice's end.
    #[expect(
        clippy::mut_from_ref,
        reason = "exclusivity is proved by a lock between processes, not by a borrow"
    )]
    pub unsafe fn as_mut_slice(&self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, for the `writable` bytes; exclusivity is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.writable) }
    }

    /// The address of `[offset, offset + len)`, for system calls of this crate that read it.
    pub(crate) fn checked_ptr(&self, offset: usize, len: usize, store: bool) -> Result<*mut u8> {
        if !fits(offset, len, if store { self.writable } else { self.len }) {
            return Err(self.refused(offset, len, store));
        }
        // SAFETY: `offset` is at most `len` of the range (checked).
        Ok(unsafe { self.ptr.as_ptr().add(offset) })
    }

    /// The owner of the memory, for [`Loan`](crate::Loan).
    pub(crate) fn keep(&self) -> &Arc<Mapping> {
        &self.keep
    }

    /// The block of Rust's allocator that it lies in, if it is lent memory of that kind.
    pub(crate) fn block(&self) -> Option<NonNull<u8>> {
        self.keep.block()
    }

    /// Does a range keep its memory, rather than whoever lets it be borrowed?
    pub(crate) fn is_owned(&self) -> bool {
        self.keep.is_owned()
    }

    /// Address of a writable, aligned word of `N` bytes.
    #[inline(always)]
    fn word<const N: usize>(&self, offset: usize) -> Result<*mut u8> {
        if !fits(offset, N, self.writable) {
            return Err(self.refused(offset, N, true));
        }
        // SAFETY: `offset < len` (checked), so the address is inside the mapping.
        let at = unsafe { self.ptr.as_ptr().add(offset) };
        if aligned::<N>(at) {
            Ok(at)
        } else {
            Err(misaligned(offset, N))
        }
    }

    /// The error of a refused range. Cold and out of line: the hot path only branches here.
    #[cold]
    #[inline(never)]
    fn refused(&self, offset: usize, len: usize, store: bool) -> Error {
        if store && fits(offset, len, self.len) {
            return Error::ReadOnly {
                offset: offset as u64,
                len: len as u64,
            };
        }
        Error::OutOfRange {
            offset: offset as u64,
            len: len as u64,
            size: self.len as u64,
        }
    }
}

/// Eight bytes of a [`SharedBytes`], checked once: what is asked of them afterwards costs the atomic alone.
#[derive(Clone)]
pub struct SharedWord {
    word: NonNull<AtomicU64>,
    _keep: Arc<Mapping>,
}

// SAFETY: as for `SharedBytes`: the memory may be accessed from any thread, and is here only by atomics.
unsafe impl Send for SharedWord {}
// SAFETY: as for `Send`.
unsafe impl Sync for SharedWord {}

impl std::ops::Deref for SharedWord {
    type Target = AtomicU64;

    #[inline(always)]
    fn deref(&self) -> &AtomicU64 {
        // SAFETY: made from a reference that `atomic_u64` gave; its memory stays mapped while `_keep` lives.
        unsafe { self.word.as_ref() }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes")
            .field("addr", &format_args!("{:#x}", self.addr()))
            .field("len", &self.len)
            .field("read_only", &self.is_read_only())
            .finish()
    }
}

#[cold]
#[inline(never)]
fn misaligned(offset: usize, align: usize) -> Error {
    Error::Misaligned {
        offset: offset as u64,
        align: align as u64,
    }
}

#[inline(always)]
fn aligned<const N: usize>(at: *const u8) -> bool {
    at.addr() & (N - 1) == 0
}

/// Private bytes to shared ones.
///
/// # Safety
/// `[to, to + len)` is mapped writable and accessed only atomically or opaquely by others; `[from, from + len)` is
/// readable, private, and does not overlap it.
#[inline(always)]
unsafe fn store(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: each arm has checked that its `len` bytes are the ones promised above and that `to` is aligned for its
    // atomic; `from` is read without alignment. The last arm passes the promise on.
    unsafe {
        match len {
            8 if aligned::<8>(to) => {
                AtomicU64::from_ptr(to.cast()).store(from.cast::<u64>().read_unaligned(), Relaxed);
            }
            4 if aligned::<4>(to) => {
                AtomicU32::from_ptr(to.cast()).store(from.cast::<u32>().read_unaligned(), Relaxed);
            }
            2 if aligned::<2>(to) => {
                AtomicU16::from_ptr(to.cast()).store(from.cast::<u16>().read_unaligned(), Relaxed);
            }
            1 => AtomicU8::from_ptr(to).store(from.read(), Relaxed),
            _ => foreign::store(to, from, len),
        }
    }
}

/// Shared bytes to private ones.
///
/// # Safety
/// `[from, from + len)` is mapped readable and accessed only atomically or opaquely by others; `[to, to + len)` is
/// writable, private, and does not overlap it.
#[inline(always)]
unsafe fn load(to: *mut u8, from: *mut u8, len: usize) {
    // SAFETY: as in `store`, with the sides exchanged. An atomic load of read-only memory is a plain load of at most
    // 8 bytes on every 64-bit target, so it does not fault there.
    unsafe {
        match len {
            8 if aligned::<8>(from) => {
                to.cast::<u64>()
                    .write_unaligned(AtomicU64::from_ptr(from.cast()).load(Relaxed));
            }
            4 if aligned::<4>(from) => {
                to.cast::<u32>()
                    .write_unaligned(AtomicU32::from_ptr(from.cast()).load(Relaxed));
            }
            2 if aligned::<2>(from) => {
                to.cast::<u16>()
                    .write_unaligned(AtomicU16::from_ptr(from.cast()).load(Relaxed));
            }
            1 => to.write(AtomicU8::from_ptr(from).load(Relaxed)),
            _ => foreign::load(to, from, len),
        }
    }
}

/// Shared bytes to shared bytes, overlapping or not; aligned words are not torn on either side.
///
/// # Safety
/// Both ranges are mapped, `to` writable, and accessed only atomically or opaquely by others.
#[inline(always)]
pub(crate) unsafe fn move_shared(to: *mut u8, from: *mut u8, len: usize) {
    let mut word = [0u8; 8];
    // SAFETY: in the first arm the word is a local array of at least `len` bytes, so it overlaps nothing, and the
    // shared sides are the caller's promise; the last arm passes the promise on.
    unsafe {
        match len {
            1 | 2 | 4 | 8 => {
                load(word.as_mut_ptr(), from, len);
                store(to, word.as_ptr(), len);
            }
            _ => foreign::move_shared(to, from, len),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Loan, lend};

    fn heap(len: usize) -> (SharedBytes, Loan<Vec<u64>>) {
        assert!(len.is_multiple_of(8));
        lend((0..len / 8).map(|i| i as u64).collect())
    }

    fn contents(bytes: &SharedBytes) -> Vec<u8> {
        let mut all = vec![0; bytes.len()];
        bytes.read(0, &mut all).unwrap();
        all
    }

    /// Numbers where range arithmetic goes wrong: near 0, a size, a power of two, the end.
    fn edgy() -> impl Strategy<Value = u64> {
        let near = |base: u64| (0..4u64).prop_map(move |d| base.wrapping_add(d).wrapping_sub(2));
        prop_oneof![
            any::<u64>(),
            0..300u64,
            near(128),
            near(1 << 31),
            near(1 << 32),
            near(1 << 63),
            near(0),
        ]
    }

    /// The interpreter is a thousand times slower.
    fn cases() -> ProptestConfig {
        let all = ProptestConfig::default();
        ProptestConfig {
            cases: if cfg!(miri) { 4 } else { all.cases },
            ..all
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn range_check_agrees_with_wide_arithmetic(offset in edgy(), len in edgy(), size in edgy()) {
            let model = u128::from(offset) + u128::from(len) <= u128::from(size);
            prop_assert_eq!(fits_u64(offset, len, size), model);
            prop_assert_eq!(fits(offset as usize, len as usize, size as usize), model);
        }

        #[test]
        fn slices_agree_with_wide_arithmetic(offset in edgy(), len in edgy()) {
            let (bytes, _loan) = heap(128);
            let model = u128::from(offset) + u128::from(len) <= 128;
            let slice = bytes.slice(offset as usize, len as usize);
            prop_assert_eq!(slice.is_ok(), model);
            if let Ok(slice) = slice {
                prop_assert_eq!(bytes.contains(&slice), Some(offset as usize));
                prop_assert_eq!(slice.len() as u64, len);
            }
        }

        #[test]
        fn accesses_agree_with_a_plain_vector(steps in prop::collection::vec((0..5u8, 0..140usize, 0..140usize, 0..70usize, any::<u8>()), 1..if cfg!(miri) { 4 } else { 40 })) {
            let (bytes, _loan) = heap(128);
            let mut model = contents(&bytes);
            for (kind, at, from, len, byte) in steps {
                let inside = at + len <= 128;
                let outcome = match kind {
                    0 => {
                        let src: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
                        if inside { model[at..at + len].copy_from_slice(&src) }
                        bytes.write(at, &src)
                    }
                    1 => {
                        let mut dst = vec![byte; len];
                        let outcome = bytes.read(at, &mut dst);
                        if inside { prop_assert_eq!(&dst[..], &model[at..at + len]) } else { prop_assert!(dst.iter().all(|&b| b == byte)) }
                        outcome
                    }
                    2 => {
                        if inside { model[at..at + len].fill(byte) }
                        bytes.fill(at, len, byte)
                    }
                    3 => {
                        let inside = inside && from + len <= 128;
                        if inside { model.copy_within(from..from + len, at) }
                        let outcome = bytes.copy(at, &bytes, from, len);
                        prop_assert_eq!(outcome.is_ok(), inside);
                        continue;
                    }
                    _ => {
                        let inside = at + 8 <= 128;
                        let outcome = bytes.atomic_u64(at).map(|word| word.store(u64::from(byte), Relaxed));
                        prop_assert_eq!(outcome.is_ok(), inside && at.is_multiple_of(8));
                        if outcome.is_ok() { model[at..at + 8].copy_from_slice(&u64::from(byte).to_ne_bytes()) }
                        continue;
                    }
                };
                prop_assert_eq!(outcome.is_ok(), inside);
                prop_assert_eq!(contents(&bytes), model.clone());
            }
        }
    }

    #[test]
    fn every_length_at_every_alignment_moves_exactly_its_bytes() {
        for at in 0..9 {
            for len in 0..40 {
                let (bytes, _loan) = lend(vec![0xeeu8; 64]);
                let src: Vec<u8> = (1..=len as u8).collect();
                bytes.write(at, &src).unwrap();
                let mut dst = vec![0; len];
                bytes.read(at, &mut dst).unwrap();
                assert_eq!(dst, src);
                let all = contents(&bytes);
                assert!(all[..at].iter().chain(&all[at + len..]).all(|&b| b == 0xee));
            }
        }
    }

    #[test]
    fn refusals_carry_the_numbers_and_change_nothing() {
        let (bytes, _loan) = heap(64);
        let before = contents(&bytes);
        let refused = Error::OutOfRange {
            offset: 60,
            len: 8,
            size: 64,
        };
        assert_eq!(bytes.write(60, &[1; 8]), Err(refused));
        assert_eq!(bytes.read(60, &mut [0; 8]), Err(refused));
        assert_eq!(bytes.fill(60, 8, 1), Err(refused));
        assert_eq!(bytes.copy(60, &bytes, 0, 8), Err(refused));
        assert_eq!(bytes.copy(0, &bytes, 60, 8), Err(refused));
        assert_eq!(bytes.slice(60, 8).map(|_| ()), Err(refused));
        assert_eq!(
            bytes.write(usize::MAX, &[1; 8]).unwrap_err(),
            Error::OutOfRange {
                offset: u64::MAX,
                len: 8,
                size: 64
            }
        );
        assert_eq!(
            bytes.atomic_u32(2).map(|_| ()),
            Err(Error::Misaligned {
                offset: 2,
                align: 4
            })
        );
        assert_eq!(
            bytes.atomic_u64(4).map(|_| ()),
            Err(Error::Misaligned {
                offset: 4,
                align: 8
            })
        );
        assert_eq!(
            bytes.atomic_u16(63).map(|_| ()).unwrap_err(),
            Error::OutOfRange {
                offset: 63,
                len: 2,
                size: 64
            }
        );
        assert_eq!(contents(&bytes), before);
        assert_eq!(
            refused.to_string(),
            "range of 8 bytes at offset 60 is outside of the 64 bytes there are"
        );
    }

    #[test]
    fn alignment_is_that_of_the_address_not_of_the_offset() {
        let (bytes, _loan) = heap(64);
        let odd = bytes.slice(4, 56).unwrap();
        assert!(odd.atomic_u64(0).is_err());
        odd.atomic_u64(4).unwrap().store(7, Relaxed);
        assert_eq!(bytes.atomic_u64(8).unwrap().load(Relaxed), 7);
        odd.atomic_u8(55).unwrap().store(9, Relaxed);
        odd.atomic_u16(54).unwrap().fetch_add(1, Relaxed);
        assert_eq!(contents(&bytes)[59], 9);
    }

    #[test]
    fn empty_ranges_are_ranges() {
        let empty = SharedBytes::empty();
        assert!(empty.is_empty() && !empty.is_read_only());
        empty.write(0, &[]).unwrap();
        empty.read(0, &mut []).unwrap();
        empty.fill(0, 0, 1).unwrap();
        empty.copy(0, &empty, 0, 0).unwrap();
        assert!(empty.write(1, &[]).is_err());
        assert!(empty.write(0, &[1]).is_err());
        let (bytes, _loan) = heap(64);
        assert_eq!(bytes.contains(&bytes.slice(64, 0).unwrap()), Some(64));
        assert_eq!(bytes.slice(8, 8).unwrap().contains(&bytes), None);
    }

    #[test]
    fn aligned_words_are_never_torn() {
        let (bytes, _loan) = lend(vec![0u64; 8]);
        let rounds = if cfg!(miri) { 50 } else { 200_000 };
        std::thread::scope(|scope| {
            for pattern in [0x11u8, 0xee] {
                let bytes = &bytes;
                scope.spawn(move || {
                    for _ in 0..rounds {
                        bytes.write(8, &[pattern; 8]).unwrap();
                        bytes.write(20, &[pattern; 4]).unwrap();
                        bytes.write(26, &[pattern; 2]).unwrap();
                    }
                });
            }
            for _ in 0..rounds {
                let (mut eight, mut four, mut two) = ([0; 8], [0; 4], [0; 2]);
                bytes.read(8, &mut eight).unwrap();
                bytes.read(20, &mut four).unwrap();
                bytes.read(26, &mut two).unwrap();
                assert!(eight.iter().all(|&b| b == eight[0]), "{eight:x?}");
                assert!(four.iter().all(|&b| b == four[0]), "{four:x?}");
                assert!(two.iter().all(|&b| b == two[0]), "{two:x?}");
            }
        });
    }

    #[test]
    fn plain_slices_see_what_ranges_wrote() {
        let (bytes, _loan) = heap(64);
        bytes.write(3, b"words").unwrap();
        // SAFETY: nobody else has this memory: it was lent two lines above and only this thread knows the range.
        assert_eq!(&unsafe { bytes.as_slice() }[3..8], b"words");
        // SAFETY: as above; the earlier slice is not used any more.
        let plain = unsafe { bytes.as_mut_slice() };
        plain[3] = b'W';
        assert_eq!(&contents(&bytes)[3..8], b"Words");
    }
}
