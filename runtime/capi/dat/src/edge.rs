//! The border to C: DAT_RETURN, pointers of the caller, and no panic across it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use windlass_abi::dat::{self, Return, Triplet};
use windlass_dat::{
    CLASS_ERROR, Error, Flags, IOV_MAX, LocalSegment, RemoteSegment, Result, Subtype, Type,
};

/// Runs the body of a C function.
pub(crate) fn edge(body: impl FnOnce() -> Result<()>) -> Return {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => dat::SUCCESS,
        Ok(Err(error)) => code(error),
        Err(_) => Error::new(Type::InternalError, Subtype::None).code(),
    }
}

/// The DAT_RETURN of a refusal. An empty queue and a time that has passed carry no class bit: programs compare the whole
/// value, as every stock provider answers it (section 2.1).
fn code(error: Error) -> Return {
    match error.kind {
        Type::QueueEmpty | Type::TimeoutExpired => error.code() & !CLASS_ERROR,
        _ => error.code(),
    }
}

/// An answer of a call that this provider does not offer.
pub(crate) const NOT_IMPLEMENTED: Error = Error::new(Type::NotImplemented, Subtype::None);
/// An answer of a call that asks for what this provider's model lacks.
pub(crate) const NOT_SUPPORTED: Error = Error::new(Type::ModelNotSupported, Subtype::None);

/// Where an answer goes that the caller must want.
pub(crate) fn required<T>(place: *mut T, argument: Subtype) -> Result<NonNull<T>> {
    NonNull::new(place).ok_or(Error::arg(argument))
}

/// Stores an answer where the caller wants it; null for nowhere.
///
/// # Safety
/// `place` is null or writable.
pub(crate) unsafe fn store<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: writable by the caller's promise; alignment is not asked for.
        unsafe { place.write_unaligned(value) };
    }
}

/// Reads what the caller points to.
///
/// # Safety
/// `place` is null or readable and of this type.
pub(crate) unsafe fn load<T: Copy>(place: *const T, argument: Subtype) -> Result<T> {
    if place.is_null() {
        return Err(Error::arg(argument));
    }
    // SAFETY: readable by the caller's promise; alignment is not asked for.
    Ok(unsafe { place.read_unaligned() })
}

/// A copy of the caller's bytes: private data.
///
/// # Safety
/// `data` is null or has `size` readable bytes.
pub(crate) unsafe fn bytes(
    size: i32,
    data: *const std::ffi::c_void,
    no_data: Subtype,
    too_long: Subtype,
) -> Result<Vec<u8>> {
    let size = usize::try_from(size).map_err(|_| Error::arg(too_long))?;
    if size > windlass_dat::PRIVATE_DATA_MAX {
        return Err(Error::arg(too_long));
    }
    if size == 0 {
        return Ok(Vec::new());
    }
    if data.is_null() {
        return Err(Error::arg(no_data));
    }
    let mut copy = vec![0; size];
    // SAFETY: `size` readable bytes by the caller's promise; `copy` is fresh and as long.
    unsafe { std::ptr::copy_nonoverlapping(data.cast(), copy.as_mut_ptr(), size) };
    Ok(copy)
}

/// The segments of a local_iov.
pub(crate) struct Segments {
    all: [LocalSegment; IOV_MAX],
    count: usize,
}

impl std::ops::Deref for Segments {
    type Target = [LocalSegment];
    fn deref(&self) -> &[LocalSegment] {
        &self.all[..self.count]
    }
}

/// Reads a local_iov (arguments 2 and 3 of every post).
///
/// # Safety
/// `iov` is null or has `count` readable triplets.
pub(crate) unsafe fn segments(count: i32, iov: *const Triplet) -> Result<Segments> {
    let count = usize::try_from(count).map_err(|_| Error::arg(Subtype::Arg2))?;
    if count > IOV_MAX {
        return Err(Error::arg(Subtype::Arg2));
    }
    let mut all = [LocalSegment::default(); IOV_MAX];
    for (index, segment) in all[..count].iter_mut().enumerate() {
        // SAFETY: null is refused; else `index < count` triplets are readable by the caller's promise.
        let triplet = unsafe { load(iov.wrapping_add(index), Subtype::Arg3) };
        *segment = match triplet {
            _ if iov.is_null() => return Err(Error::arg(Subtype::Arg3)),
            triplet => local(&triplet?),
        };
    }
    Ok(Segments { all, count })
}

pub(crate) fn local(triplet: &Triplet) -> LocalSegment {
    LocalSegment {
        context: triplet.context,
        address: triplet.virtual_address,
        len: triplet.segment_length,
    }
}

pub(crate) fn remote(triplet: &Triplet) -> RemoteSegment {
    RemoteSegment {
        context: triplet.context,
        address: triplet.virtual_address,
        len: triplet.segment_length,
    }
}

/// Completion flags of the header; the bits of our own beyond them are no C caller's.
pub(crate) fn flags(bits: u32, argument: Subtype) -> Result<Flags> {
    const KNOWN: u32 = 0x1f;
    let flags = (bits & !KNOWN == 0).then(|| Flags::from_bits(bits));
    flags.flatten().ok_or(Error::arg(argument))
}

/// A count that must not be negative.
pub(crate) fn count(value: i32, argument: Subtype) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::arg(argument))
}

/// A length as the header counts.
pub(crate) fn to_count(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
