//! What a window may hold.
//!
//! Peers write window memory while a program reads it, so an element must be valid whatever its
//! bytes are and must have no padding: plain old data. Integers and floats of 1 to 8 bytes and
//! their arrays are; a structure becomes one by `#[derive(bytemuck::Pod)]`.

use windlass_runtime::update::Kind;

/// A type whose values may lie in a window: every bit pattern valid, no padding, no references.
///
/// Implemented for every [`bytemuck::Pod`] type that threads may share. Zero-sized types are
/// refused when a window of them is created.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of a window",
    label = "not plain old data",
    note = "peers write any bytes there: derive `bytemuck::Pod` for a type without padding, \
            references or invalid bit patterns"
)]
pub trait Element: bytemuck::Pod + Send + Sync {}

impl<T: bytemuck::Pod + Send + Sync> Element for T {}

/// An element of a predefined type that `accumulate` and `fetch_and_op` update atomically:
/// integers and floats of 4 and 8 bytes (mpi-rma 3). Integer sums wrap.
pub trait Reducible: Element + sealed::Predefined {}

/// An element that `compare_and_swap` takes: integers of 4 and 8 bytes. Floating point is
/// excluded, because equal values may differ in their bits (mpi-rma 3).
pub trait Comparable: Reducible {}

pub(crate) mod sealed {
    /// The runtime's name of the type. Private, because a wrong one would break atomicity.
    pub trait Predefined {
        const KIND: super::Kind;
    }
}

macro_rules! predefined {
    ($($kind:ident: $($type:ty),+;)+) => {$($(
        impl sealed::Predefined for $type {
            const KIND: Kind = Kind::$kind;
        }
        impl Reducible for $type {}
        const _: () = assert!(size_of::<$type>() == Kind::$kind.size());
    )+)+};
}

predefined! {
    I32: i32;
    U32: u32;
    I64: i64;
    U64: u64;
    F32: f32;
    F64: f64;
}

#[cfg(target_pointer_width = "64")]
predefined! {
    I64: isize;
    U64: usize;
}

macro_rules! comparable {
    ($($type:ty),+) => {$(impl Comparable for $type {})+};
}

comparable!(i32, u32, i64, u64);

#[cfg(target_pointer_width = "64")]
comparable!(isize, usize);

/// The largest alignment an element may have: what the runtime gives every window's memory.
pub(crate) const MAX_ALIGN: usize = 64;

/// Refuses, while compiling, an element that no window can hold.
pub(crate) const fn check<T: Element>() {
    assert!(
        size_of::<T>() > 0,
        "a window's element must not be zero-sized"
    );
    assert!(
        align_of::<T>() <= MAX_ALIGN,
        "a window's element is aligned to at most 64 bytes"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element<T: Element>() {
        check::<T>();
    }

    #[test]
    fn plain_old_data_are_elements() {
        element::<u8>();
        element::<i16>();
        element::<f32>();
        element::<[f64; 3]>();
        element::<[[u8; 7]; 5]>();
        element::<u128>();
    }
}
