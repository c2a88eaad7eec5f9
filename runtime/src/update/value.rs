//! Values of the predefined types, and what the operators make of two of them.
//!
//! Pure arithmetic on bytes: no shared memory, no atomics. Bytes are in host order.

use std::cmp::Ordering;

use super::kind::UpdateOp;

/// What stands at the start of some bytes.
pub(super) trait Stored: Copy {
    /// It, out of those bytes.
    fn load(element: &[u8]) -> Self;
    /// Writes it over what stands there; padding stays.
    fn store(self, element: &mut [u8]);
}

/// A value of a predefined type.
pub(super) trait Value: Stored {
    /// `t op o`, or `None` where the type does not take the operator ([`Kind::takes`](super::Kind::takes)).
    fn combine(op: UpdateOp, t: Self, o: Self) -> Option<Self>;
}

/// Runs `$body` with `$value` as the type of a [`Kind`]'s values.
macro_rules! with_value {
    ($kind:expr, $value:ident => $body:expr) => {{
        use $crate::update::kind::Kind;
        use $crate::update::value::{Byte, Complex, Extended, Pair, Truth};
        macro_rules! of {
            ($type:ty) => {{
                type $value = $type;
                $body
            }};
        }
        match $kind {
            Kind::I8 => of!(i8),
            Kind::U8 => of!(u8),
            Kind::I16 => of!(i16),
            Kind::U16 => of!(u16),
            Kind::I32 => of!(i32),
            Kind::U32 => of!(u32),
            Kind::I64 => of!(i64),
            Kind::U64 => of!(u64),
            Kind::F32 => of!(f32),
            Kind::F64 => of!(f64),
            Kind::ComplexF32 => of!(Complex<f32>),
            Kind::ComplexF64 => of!(Complex<f64>),
            Kind::Logical8 => of!(Truth<u8>),
            Kind::Logical32 => of!(Truth<u32>),
            Kind::Logical64 => of!(Truth<u64>),
            Kind::Byte => of!(Byte),
            Kind::FloatInt => of!(Pair<f32, i32, 4>),
            Kind::DoubleInt => of!(Pair<f64, i32, 8>),
            Kind::LongInt => of!(Pair<i64, i32, 8>),
            Kind::TwoInt => of!(Pair<i32, i32, 4>),
            Kind::ShortInt => of!(Pair<i16, i32, 4>),
            Kind::LongDoubleInt => of!(Pair<Extended, i32, 16>),
            Kind::TwoReal => of!(Pair<f32, f32, 4>),
            Kind::TwoDouble => of!(Pair<f64, f64, 8>),
        }
    }};
}
pub(super) use with_value;

macro_rules! numbers {
    ($($type:ident),+) => {$(
        impl Stored for $type {
            #[inline(always)]
            fn load(element: &[u8]) -> Self {
                let mut bytes = [0; size_of::<Self>()];
                bytes.copy_from_slice(&element[..size_of::<Self>()]);
                Self::from_ne_bytes(bytes)
            }
            #[inline(always)]
            fn store(self, element: &mut [u8]) {
                element[..size_of::<Self>()].copy_from_slice(&self.to_ne_bytes());
            }
        }
    )+};
}

numbers!(i8, u8, i16, u16, i32, u32, i64, u64, f32, f64);

macro_rules! integers {
    ($($type:ident),+) => {$(
        impl Value for $type {
            #[inline(always)]
            fn combine(op: UpdateOp, t: Self, o: Self) -> Option<Self> {
                Some(match op {
                    UpdateOp::Sum => t.wrapping_add(o),
                    UpdateOp::Prod => t.wrapping_mul(o),
                    UpdateOp::Min => t.min(o),
                    UpdateOp::Max => t.max(o),
                    UpdateOp::Land => $type::from(t != 0 && o != 0),
                    UpdateOp::Lor => $type::from(t != 0 || o != 0),
                    UpdateOp::Lxor => $type::from((t != 0) != (o != 0)),
                    UpdateOp::Band => t & o,
                    UpdateOp::Bor => t | o,
                    UpdateOp::Bxor => t ^ o,
                    UpdateOp::Replace => o,
                    UpdateOp::NoOp => t,
                    UpdateOp::MinLoc | UpdateOp::MaxLoc => return None,
                })
            }
        }
        impl Ranked for $type {
            #[inline(always)]
            fn rank(self, other: Self) -> Option<Ordering> {
                Some(self.cmp(&other))
            }
        }
    )+};
}

integers!(i8, u8, i16, u16, i32, u32, i64, u64);

macro_rules! floats {
    ($($type:ident),+) => {$(
        impl Value for $type {
            #[inline(always)]
            fn combine(op: UpdateOp, t: Self, o: Self) -> Option<Self> {
                // Written so that a NaN on either side stays, whichever side it is on, and that the
                // sign of zeros does not depend on the order of operands.
                Some(match op {
                    UpdateOp::Sum => t + o,
                    UpdateOp::Prod => t * o,
                    UpdateOp::Min => {
                        let keep = t.is_nan() || t < o || (t == o && o.is_sign_positive());
                        if keep { t } else { o }
                    }
                    UpdateOp::Max => {
                        let keep = t.is_nan() || t > o || (t == o && o.is_sign_negative());
                        if keep { t } else { o }
                    }
                    UpdateOp::Replace => o,
                    UpdateOp::NoOp => t,
                    _ => return None,
                })
            }
        }
        impl Ranked for $type {
            #[inline(always)]
            fn rank(self, other: Self) -> Option<Ordering> {
                self.partial_cmp(&other)
            }
        }
    )+};
}

floats!(f32, f64);

/// A complex number.
#[derive(Clone, Copy)]
pub(super) struct Complex<F> {
    re: F,
    im: F,
}

impl<F: Stored> Stored for Complex<F> {
    #[inline(always)]
    fn load(element: &[u8]) -> Self {
        let (re, im) = element.split_at(size_of::<F>());
        Complex {
            re: F::load(re),
            im: F::load(im),
        }
    }
    #[inline(always)]
    fn store(self, element: &mut [u8]) {
        let (re, im) = element.split_at_mut(size_of::<F>());
        self.re.store(re);
        self.im.store(im);
    }
}

macro_rules! complexes {
    ($($type:ident),+) => {$(
        impl Value for Complex<$type> {
            #[inline(always)]
            fn combine(op: UpdateOp, t: Self, o: Self) -> Option<Self> {
                Some(match op {
                    UpdateOp::Sum => Complex { re: t.re + o.re, im: t.im + o.im },
                    UpdateOp::Prod => Complex {
                        re: t.re * o.re - t.im * o.im,
                        im: t.re * o.im + t.im * o.re,
                    },
                    UpdateOp::Replace => o,
                    UpdateOp::NoOp => t,
                    _ => return None,
                })
            }
        }
    )+};
}

complexes!(f32, f64);

/// A truth value: 0 is false.
#[derive(Clone, Copy)]
pub(super) struct Truth<W>(W);

impl<W: Stored> Stored for Truth<W> {
    #[inline(always)]
    fn load(element: &[u8]) -> Self {
        Truth(W::load(element))
    }
    #[inline(always)]
    fn store(self, element: &mut [u8]) {
        self.0.store(element);
    }
}

impl<W: Value> Value for Truth<W> {
    #[inline(always)]
    fn combine(op: UpdateOp, t: Self, o: Self) -> Option<Self> {
        match op {
            UpdateOp::Land
            | UpdateOp::Lor
            | UpdateOp::Lxor
            | UpdateOp::Replace
            | UpdateOp::NoOp => W::combine(op, t.0, o.0).map(Truth),
            _ => None,
        }
    }
}

/// Eight bits without a meaning.
#[derive(Clone, Copy)]
pub(super) struct Byte(u8);

impl Stored for Byte {
    #[inline(always)]
    fn load(element: &[u8]) -> Self {
        Byte(element[0])
    }
    #[inline(always)]
    fn store(self, element: &mut [u8]) {
        element[0] = self.0;
    }
}

impl Value for Byte {
    #[inline(always)]
    fn combine(op: UpdateOp, t: Self, o: Self) -> Option<Self> {
        match op {
            UpdateOp::Band
            | UpdateOp::Bor
            | UpdateOp::Bxor
            | UpdateOp::Replace
            | UpdateOp::NoOp => u8::combine(op, t.0, o.0).map(Byte),
            _ => None,
        }
    }
}

/// What can stand in a pair.
pub(super) trait Ranked: Copy {
    /// How it compares; `None` if either is not a number.
    fn rank(self, other: Self) -> Option<Ordering>;
}

/// A value and, `AT` bytes from its start, its index.
#[derive(Clone, Copy)]
pub(super) struct Pair<V, I, const AT: usize> {
    value: V,
    index: I,
}

impl<V: Ranked, I: Ranked, const AT: usize> Pair<V, I, AT> {
    /// Does `o` go before `t`, where the `wanted` value does? Ties go to the lower index.
    #[inline(always)]
    fn goes_before(o: Self, t: Self, wanted: Ordering) -> bool {
        let is_nan = |value: V| value.rank(value).is_none();
        let order = match o.value.rank(t.value) {
            Some(order) => order,
            None if is_nan(o.value) == is_nan(t.value) => Ordering::Equal,
            None if is_nan(o.value) => wanted,
            None => wanted.reverse(),
        };
        order == wanted
            || (order == Ordering::Equal && o.index.rank(t.index) == Some(Ordering::Less))
    }
}

impl<V: Stored, I: Stored, const AT: usize> Stored for Pair<V, I, AT> {
    #[inline(always)]
    fn load(element: &[u8]) -> Self {
        Pair {
            value: V::load(element),
            index: I::load(&element[AT..]),
        }
    }
    #[inline(always)]
    fn store(self, element: &mut [u8]) {
        self.value.store(element);
        self.index.store(&mut element[AT..]);
    }
}

impl<V: Stored + Ranked, I: Stored + Ranked, const AT: usize> Value for Pair<V, I, AT> {
    #[inline(always)]
    fn combine(op: UpdateOp, t: Self, o: Self) -> Option<Self> {
        let wanted = match op {
            UpdateOp::MinLoc => Ordering::Less,
            UpdateOp::MaxLoc => Ordering::Greater,
            UpdateOp::Replace => return Some(o),
            UpdateOp::NoOp => return Some(t),
            _ => return None,
        };
        Some(if Self::goes_before(o, t, wanted) {
            o
        } else {
            t
        })
    }
}

/// An x87 extended float, compared by its fields: significand with its integer bit, then sign and
/// biased exponent.
#[derive(Clone, Copy)]
pub(super) struct Extended {
    significand: u64,
    sign_exponent: u16,
}

impl Extended {
    const EXPONENT: u16 = 0x7fff;
    const INTEGER_BIT: u64 = 1 << 63;

    /// A number that grows with the value, or `None` for a NaN and for what the x87 refuses as an
    /// operand: a missing integer bit, except in subnormals.
    #[inline(always)]
    fn key(self) -> Option<i128> {
        let exponent = self.sign_exponent & Self::EXPONENT;
        let has_integer = self.significand & Self::INTEGER_BIT != 0;
        let is_nan = exponent == Self::EXPONENT && self.significand << 1 != 0;
        if is_nan || (exponent != 0 && !has_integer) {
            return None;
        }
        // Exponents 0 and 1 have the same weight.
        let magnitude = i128::from(exponent.max(1)) << 64 | i128::from(self.significand);
        let is_zero = self.significand == 0;
        Some(if is_zero {
            0
        } else if self.sign_exponent > Self::EXPONENT {
            -magnitude
        } else {
            magnitude
        })
    }
}

impl Ranked for Extended {
    #[inline(always)]
    fn rank(self, other: Self) -> Option<Ordering> {
        Some(self.key()?.cmp(&other.key()?))
    }
}

impl Stored for Extended {
    #[inline(always)]
    fn load(element: &[u8]) -> Self {
        Extended {
            significand: Stored::load(element),
            sign_exponent: Stored::load(&element[8..]),
        }
    }
    #[inline(always)]
    fn store(self, element: &mut [u8]) {
        self.significand.store(element);
        self.sign_exponent.store(&mut element[8..]);
    }
}
