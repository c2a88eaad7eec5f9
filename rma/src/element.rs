//! What a window may hold.
//!
//! Peers write window memory while a program reads it, so an element must be valid whatever its
//! bytes are and must have no padding: plain old data. Integers and floats of 1 to 8 bytes and
//! their arrays are; a structure becomes one by `#[derive(windlass::Element)]`.
//!
//! The predefined types of mpi-rma 3 that Rust does not have itself stand here: [`Complex`],
//! [`Logical`], and the pairs of value and index, whose padding is a field like any other.

#![allow(unsafe_code)]

use std::any::TypeId;

use bytemuck::{Pod, Zeroable};
use windlass_runtime::update::Kind;

/// A type whose values may lie in a window: every bit pattern valid, no padding, no references.
///
/// Implemented for every [`bytemuck::Pod`] type that threads may share. Zero-sized types are
/// refused when a window of them is created. A structure becomes an element by deriving it:
///
/// ```
/// #[derive(Clone, Copy, windlass::Element)]
/// #[repr(C)]
/// struct Particle {
///     position: [f64; 3],
///     cell: u64,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of a window",
    label = "not plain old data",
    note = "peers write any bytes there: derive `windlass::Element` for a `#[repr(C)]` structure \
            without padding, references or fields with invalid bit patterns"
)]
pub trait Element: Pod + Send + Sync {}

#[diagnostic::do_not_recommend]
impl<T: Pod + Send + Sync> Element for T {}

/// What `#[derive(Element)]` expands to. Sound whoever calls it and whatever with: it compiles
/// only for a structure whose fields are all given, are elements, and leave no byte over.
#[doc(hidden)]
#[macro_export]
macro_rules! __element {
    ($name:ident { $($field:tt: $type:ty),+ }) => {
        const _: () = {
            fn element<T: $crate::Element>() {}
            #[allow(dead_code)]
            fn fields(value: $name) {
                $(element::<$type>();)+
                // Names every field with its own type; an enum, a union or a field left out is an
                // error here.
                let $name { $($field: _),+ } = value;
                $(let _: $type = value.$field;)+
            }
            assert!(
                ::core::mem::size_of::<$name>() == 0 $(+ ::core::mem::size_of::<$type>())+,
                "this structure has padding: make it fields, for example `_pad: [u8; 4]`"
            );
        };
        // SAFETY: all fields are elements (checked above), for which zeros are valid, and there are
        // no other bytes.
        unsafe impl $crate::__bytemuck::Zeroable for $name {}
        // SAFETY: every bit pattern of every field is valid and no byte belongs to none (checked
        // above), so every bit pattern of the structure is. Elements hold no references and no
        // cells. That it is `Copy` and `'static` the compiler checks.
        unsafe impl $crate::__bytemuck::Pod for $name {}
    };
}

/// An element of a predefined type that `accumulate` and `fetch_and_op` update atomically (mpi-rma
/// 3): integers and floats of 1 to 8 bytes, [`Complex`], [`Logical`] and the pairs. [`Op`](crate::Op)
/// says which takes which operator.
///
/// Elements of up to 8 bytes at a multiple of their size are changed by one instruction of the
/// CPU, or a compare-exchange loop; all others under a lock of their rank's part.
pub trait Reducible: Element + sealed::Predefined {}

/// An element that `compare_and_swap` takes: integers and [`Logical`], compared by their bits.
/// Floating point is excluded, because equal values may differ in them (mpi-rma 3).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be compared bit by bit: compare_and_swap is for integers and logicals",
    note = "swap the bits as an integer of the same size, in a window of that type"
)]
pub trait Comparable: Reducible {}

pub(crate) mod sealed {
    /// The runtime's name of the type. Private, because a wrong one would break atomicity.
    pub trait Predefined {
        const KIND: super::Kind;
    }
}

/// A complex number: `MPI_C_FLOAT_COMPLEX`, `MPI_C_DOUBLE_COMPLEX`. The layout is C's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Complex<F> {
    /// Real part.
    pub re: F,
    /// Imaginary part.
    pub im: F,
}

impl<F> Complex<F> {
    /// `re + im i`.
    pub const fn new(re: F, im: F) -> Complex<F> {
        Complex { re, im }
    }
}

// SAFETY: zeros are valid for both parts.
unsafe impl<F: Zeroable> Zeroable for Complex<F> {}
// SAFETY: two parts of the same type in C's layout have no padding, and every bit pattern of either
// is valid.
unsafe impl<F: Pod> Pod for Complex<F> {}

/// A truth value of one byte: `MPI_C_BOOL`. Unlike `bool` it may hold any byte, since peers write
/// it: 0 is false, everything else is true.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Logical(u8);

impl Logical {
    /// False.
    pub const FALSE: Logical = Logical(0);
    /// True.
    pub const TRUE: Logical = Logical(1);

    /// What it says.
    pub const fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Logical {
    fn from(truth: bool) -> Logical {
        Logical(u8::from(truth))
    }
}

impl From<Logical> for bool {
    fn from(logical: Logical) -> bool {
        logical.get()
    }
}

impl PartialEq for Logical {
    /// Equal in truth, whatever the bytes.
    fn eq(&self, other: &Logical) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Logical {}

impl std::fmt::Debug for Logical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

// SAFETY: a byte of 0 is a valid byte.
unsafe impl Zeroable for Logical {}
// SAFETY: one byte, of which every pattern is valid.
unsafe impl Pod for Logical {}

macro_rules! pairs {
    ($($(#[$doc:meta])+ $name:ident: $value:ident $(, $gap:literal)?; $(tail $tail:literal;)?)+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Default)]
        #[repr(C)]
        pub struct $name {
            /// The value that is compared.
            pub value: $value,
            $(_gap: [u8; $gap],)?
            /// Where it was found.
            pub index: i32,
            $(_tail: [u8; $tail],)?
        }

        impl $name {
            /// A value and its index.
            pub const fn new(value: $value, index: i32) -> $name {
                $name {
                    value,
                    $(_gap: [0; $gap],)?
                    index,
                    $(_tail: [0; $tail],)?
                }
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &$name) -> bool {
                (self.value, self.index) == (other.value, other.index)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.value).field(&self.index).finish()
            }
        }

        // SAFETY: zeros are valid for every field.
        unsafe impl Zeroable for $name {}
        // SAFETY: the fields are plain old data, and by the assertion they are all there is.
        unsafe impl Pod for $name {}
        const _: () = assert!(
            size_of::<$name>() == size_of::<$value>() + 4 $(+ $gap)? $(+ $tail)?
        );
    )+};
}

pairs! {
    /// For [`MinLoc`](crate::Op::MinLoc) and [`MaxLoc`](crate::Op::MaxLoc): `MPI_FLOAT_INT`.
    FloatInt: f32;
    /// For [`MinLoc`](crate::Op::MinLoc) and [`MaxLoc`](crate::Op::MaxLoc): `MPI_DOUBLE_INT`.
    DoubleInt: f64; tail 4;
    /// For [`MinLoc`](crate::Op::MinLoc) and [`MaxLoc`](crate::Op::MaxLoc): `MPI_LONG_INT`.
    LongInt: i64; tail 4;
    /// For [`MinLoc`](crate::Op::MinLoc) and [`MaxLoc`](crate::Op::MaxLoc): `MPI_2INT`.
    TwoInt: i32;
    /// For [`MinLoc`](crate::Op::MinLoc) and [`MaxLoc`](crate::Op::MaxLoc): `MPI_SHORT_INT`.
    ShortInt: i16, 2;
}

macro_rules! predefined {
    ($($(#[$when:meta])* $type:ty: $kind:ident;)+) => {
        $(
            $(#[$when])*
            impl sealed::Predefined for $type {
                const KIND: Kind = Kind::$kind;
            }
            $(#[$when])*
            impl Reducible for $type {}
            $(#[$when])*
            const _: () = assert!(size_of::<$type>() == Kind::$kind.size());
        )+

        /// What a type is to the runtime, if it is predefined.
        pub(crate) fn kind_of(id: TypeId) -> Option<Kind> {
            $(
                $(#[$when])*
                if id == TypeId::of::<$type>() {
                    return Some(Kind::$kind);
                }
            )+
            None
        }
    };
}

predefined! {
    i8: I8;
    u8: U8;
    i16: I16;
    u16: U16;
    i32: I32;
    u32: U32;
    i64: I64;
    u64: U64;
    #[cfg(target_pointer_width = "64")]
    isize: I64;
    #[cfg(target_pointer_width = "64")]
    usize: U64;
    f32: F32;
    f64: F64;
    Complex<f32>: ComplexF32;
    Complex<f64>: ComplexF64;
    Logical: Logical8;
    FloatInt: FloatInt;
    DoubleInt: DoubleInt;
    LongInt: LongInt;
    TwoInt: TwoInt;
    ShortInt: ShortInt;
}

macro_rules! comparable {
    ($($type:ty),+) => {$(
        impl Comparable for $type {}
        const _: () = assert!(<$type as sealed::Predefined>::KIND.is_comparable());
    )+};
}

comparable!(i8, u8, i16, u16, i32, u32, i64, u64, Logical);

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
        element::<Complex<f64>>();
        element::<[DoubleInt; 2]>();
    }

    /// The places of value and index are those that the runtime and C know.
    #[test]
    fn pairs_have_the_layout_of_c() {
        macro_rules! check {
            ($($type:ident: $align:literal, $index:literal;)+) => {$(
                assert_eq!(align_of::<$type>(), $align, stringify!($type));
                assert_eq!(std::mem::offset_of!($type, index), $index, stringify!($type));
                let pair = $type::new(3i8.into(), -4);
                assert_eq!((pair.value, pair.index), (3i8.into(), -4));
                let bytes = bytemuck::bytes_of(&pair);
                assert_eq!(bytes[$index..$index + 4], (-4i32).to_ne_bytes());
            )+};
        }
        check! {
            DoubleInt: 8, 8;
            LongInt: 8, 8;
            TwoInt: 4, 4;
            ShortInt: 4, 4;
        }
        assert_eq!(std::mem::offset_of!(FloatInt, index), 4);
        assert_eq!(FloatInt::new(1.5, 2).value, 1.5);
    }

    #[test]
    fn every_byte_but_zero_is_true() {
        for byte in 0..=u8::MAX {
            let logical: Logical = bytemuck::cast(byte);
            assert_eq!(logical.get(), byte != 0);
            assert_eq!(logical, Logical::from(byte != 0));
        }
        assert_eq!(format!("{:?}", Logical::TRUE), "true");
    }
}
