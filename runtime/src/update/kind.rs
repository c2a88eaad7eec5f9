//! The predefined types and operators, and which go together (mpi-rma 3).

use std::fmt;

/// A predefined element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Signed, 1 byte.
    I8,
    /// Unsigned, 1 byte.
    U8,
    /// Signed, 2 bytes.
    I16,
    /// Unsigned, 2 bytes.
    U16,
    /// Signed, 4 bytes.
    I32,
    /// Unsigned, 4 bytes.
    U32,
    /// Signed, 8 bytes.
    I64,
    /// Unsigned, 8 bytes.
    U64,
    /// IEEE 754, 4 bytes.
    F32,
    /// IEEE 754, 8 bytes.
    F64,
    /// Two [`F32`](Kind::F32): real and imaginary part.
    ComplexF32,
    /// Two [`F64`](Kind::F64): real and imaginary part.
    ComplexF64,
    /// Truth value of 1 byte; anything but 0 is true, and 1 is what operators make.
    Logical8,
    /// The same of 4 bytes.
    Logical32,
    /// The same of 8 bytes.
    Logical64,
    /// A byte without a meaning. `MPI_BYTE`
    Byte,
    /// `f32` and an `i32` index. `MPI_FLOAT_INT`
    FloatInt,
    /// `f64`, an `i32` index, 4 bytes of padding. `MPI_DOUBLE_INT`
    DoubleInt,
    /// `i64`, an `i32` index, 4 bytes of padding. `MPI_LONG_INT`
    LongInt,
    /// `i32` and an `i32` index. `MPI_2INT`
    TwoInt,
    /// `i16`, 2 bytes of padding, an `i32` index. `MPI_SHORT_INT`
    ShortInt,
    /// An x87 extended float of 10 bytes, 6 of padding, an `i32` index, 12 of padding.
    /// `MPI_LONG_DOUBLE_INT`
    LongDoubleInt,
    /// `f32` and an `f32` index. `MPI_2REAL`
    TwoReal,
    /// `f64` and an `f64` index. `MPI_2DOUBLE_PRECISION`
    TwoDouble,
}

/// What an update does with the old value `t` and the operand `o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UpdateOp {
    /// `t + o`; integers wrap.
    Sum,
    /// `t * o`; integers wrap.
    Prod,
    /// The smaller one. A NaN on either side is the result; -0 is less than +0.
    Min,
    /// The larger one, with the rules of [`Min`](UpdateOp::Min).
    Max,
    /// 1 if both are not 0, else 0.
    Land,
    /// 1 if either is not 0, else 0.
    Lor,
    /// 1 if exactly one is not 0, else 0.
    Lxor,
    /// `t & o`, on the bits.
    Band,
    /// `t | o`, on the bits.
    Bor,
    /// `t ^ o`, on the bits.
    Bxor,
    /// The pair of the smaller value; of equal ones that of the lower index. NaN goes before all.
    MinLoc,
    /// The pair of the larger value, with the rules of [`MinLoc`](UpdateOp::MinLoc).
    MaxLoc,
    /// `o`.
    Replace,
    /// `t`: an atomic read.
    NoOp,
}

/// Types that take the same operators: the rows of the table of mpi-rma 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Integer,
    Float,
    Complex,
    Logical,
    Byte,
    Pair,
}

/// A run of an element's bytes that belong to its value: where it begins, how long it is.
type Part = (usize, usize);

impl Kind {
    /// All, in the order of their numbers.
    pub const ALL: [Kind; 24] = [
        Kind::I8,
        Kind::U8,
        Kind::I16,
        Kind::U16,
        Kind::I32,
        Kind::U32,
        Kind::I64,
        Kind::U64,
        Kind::F32,
        Kind::F64,
        Kind::ComplexF32,
        Kind::ComplexF64,
        Kind::Logical8,
        Kind::Logical32,
        Kind::Logical64,
        Kind::Byte,
        Kind::FloatInt,
        Kind::DoubleInt,
        Kind::LongInt,
        Kind::TwoInt,
        Kind::ShortInt,
        Kind::LongDoubleInt,
        Kind::TwoReal,
        Kind::TwoDouble,
    ];

    /// Its name, as Rust has it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::I8 => "i8",
            Kind::U8 => "u8",
            Kind::I16 => "i16",
            Kind::U16 => "u16",
            Kind::I32 => "i32",
            Kind::U32 => "u32",
            Kind::I64 => "i64",
            Kind::U64 => "u64",
            Kind::F32 => "f32",
            Kind::F64 => "f64",
            Kind::ComplexF32 => "Complex<f32>",
            Kind::ComplexF64 => "Complex<f64>",
            Kind::Logical8 => "Logical",
            Kind::Logical32 => "Logical of 4 bytes",
            Kind::Logical64 => "Logical of 8 bytes",
            Kind::Byte => "Byte",
            Kind::FloatInt => "FloatInt",
            Kind::DoubleInt => "DoubleInt",
            Kind::LongInt => "LongInt",
            Kind::TwoInt => "TwoInt",
            Kind::ShortInt => "ShortInt",
            Kind::LongDoubleInt => "LongDoubleInt",
            Kind::TwoReal => "TwoReal",
            Kind::TwoDouble => "TwoDouble",
        }
    }

    /// The size of an element in bytes, padding included.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Kind::I8 | Kind::U8 | Kind::Logical8 | Kind::Byte => 1,
            Kind::I16 | Kind::U16 => 2,
            Kind::I32 | Kind::U32 | Kind::F32 | Kind::Logical32 => 4,
            Kind::I64 | Kind::U64 | Kind::F64 | Kind::ComplexF32 | Kind::Logical64 => 8,
            Kind::FloatInt | Kind::TwoInt | Kind::ShortInt | Kind::TwoReal => 8,
            Kind::ComplexF64 | Kind::DoubleInt | Kind::LongInt | Kind::TwoDouble => 16,
            Kind::LongDoubleInt => 32,
        }
    }

    /// Where the value is in an element. What lies between is padding, which no update changes
    /// and no result carries (mpi-rma 3).
    #[inline]
    pub const fn parts(self) -> &'static [Part] {
        match self {
            Kind::ShortInt => &[(0, 2), (4, 4)],
            Kind::DoubleInt | Kind::LongInt => &[(0, 12)],
            Kind::LongDoubleInt => &[(0, 10), (16, 4)],
            _ => match self.size() {
                1 => &[(0, 1)],
                2 => &[(0, 2)],
                4 => &[(0, 4)],
                8 => &[(0, 8)],
                _ => &[(0, 16)],
            },
        }
    }

    /// Has an element bytes that are not its value's?
    #[inline]
    pub const fn is_padded(self) -> bool {
        matches!(
            self,
            Kind::ShortInt | Kind::DoubleInt | Kind::LongInt | Kind::LongDoubleInt
        )
    }

    #[inline]
    pub(super) const fn class(self) -> Class {
        match self {
            Kind::I8 | Kind::U8 | Kind::I16 | Kind::U16 => Class::Integer,
            Kind::I32 | Kind::U32 | Kind::I64 | Kind::U64 => Class::Integer,
            Kind::F32 | Kind::F64 => Class::Float,
            Kind::ComplexF32 | Kind::ComplexF64 => Class::Complex,
            Kind::Logical8 | Kind::Logical32 | Kind::Logical64 => Class::Logical,
            Kind::Byte => Class::Byte,
            Kind::FloatInt | Kind::DoubleInt | Kind::LongInt | Kind::TwoInt => Class::Pair,
            Kind::ShortInt | Kind::LongDoubleInt | Kind::TwoReal | Kind::TwoDouble => Class::Pair,
        }
    }

    /// Does the type take the operator? The table of mpi-rma 3.
    #[inline]
    pub const fn takes(self, op: UpdateOp) -> bool {
        use UpdateOp as Op;
        match op {
            Op::Min | Op::Max => matches!(self.class(), Class::Integer | Class::Float),
            Op::Sum | Op::Prod => {
                matches!(self.class(), Class::Integer | Class::Float | Class::Complex)
            }
            Op::Land | Op::Lor | Op::Lxor => {
                matches!(self.class(), Class::Integer | Class::Logical)
            }
            Op::Band | Op::Bor | Op::Bxor => matches!(self.class(), Class::Integer | Class::Byte),
            Op::MinLoc | Op::MaxLoc => matches!(self.class(), Class::Pair),
            Op::Replace | Op::NoOp => true,
        }
    }

    /// Does the type take compare-and-swap? Floats do not: equal ones may differ in their bits.
    #[inline]
    pub const fn is_comparable(self) -> bool {
        matches!(self.class(), Class::Integer | Class::Logical | Class::Byte)
    }

    /// Copies the values of whole elements, and not their padding.
    #[inline]
    pub fn deliver(self, from: &[u8], to: &mut [u8]) {
        if !self.is_padded() {
            to.copy_from_slice(from);
            return;
        }
        let size = self.size();
        for (from, to) in from.chunks_exact(size).zip(to.chunks_exact_mut(size)) {
            for &(start, len) in self.parts() {
                to[start..start + len].copy_from_slice(&from[start..start + len]);
            }
        }
    }

    /// The kind with this number on the wire.
    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(code)).copied()
    }
}

impl UpdateOp {
    /// All, in the order of their numbers.
    pub const ALL: [UpdateOp; 14] = [
        UpdateOp::Sum,
        UpdateOp::Prod,
        UpdateOp::Min,
        UpdateOp::Max,
        UpdateOp::Land,
        UpdateOp::Lor,
        UpdateOp::Lxor,
        UpdateOp::Band,
        UpdateOp::Bor,
        UpdateOp::Bxor,
        UpdateOp::MinLoc,
        UpdateOp::MaxLoc,
        UpdateOp::Replace,
        UpdateOp::NoOp,
    ];

    /// The operator with this number on the wire.
    pub fn from_code(code: u8) -> Option<UpdateOp> {
        UpdateOp::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_the_wire_come_back_and_others_do_not() {
        for (code, kind) in (0u8..).zip(Kind::ALL) {
            assert_eq!((kind as u8, Kind::from_code(code)), (code, Some(kind)));
        }
        for (code, op) in (0u8..).zip(UpdateOp::ALL) {
            assert_eq!((op as u8, UpdateOp::from_code(code)), (code, Some(op)));
        }
        assert_eq!(Kind::from_code(Kind::ALL.len() as u8), None);
        assert_eq!(UpdateOp::from_code(u8::MAX), None);
    }

    /// The table once more, by rows as mpi-rma 3 prints it.
    #[test]
    fn the_table_is_that_of_the_chapter() {
        use UpdateOp as Op;
        let is = |kind: Kind, classes: &[Class]| classes.contains(&kind.class());
        for kind in Kind::ALL {
            for (ops, classes) in [
                (&[Op::Max, Op::Min][..], &[Class::Integer, Class::Float][..]),
                (
                    &[Op::Sum, Op::Prod],
                    &[Class::Integer, Class::Float, Class::Complex],
                ),
                (
                    &[Op::Land, Op::Lor, Op::Lxor],
                    &[Class::Integer, Class::Logical],
                ),
                (
                    &[Op::Band, Op::Bor, Op::Bxor],
                    &[Class::Integer, Class::Byte],
                ),
                (&[Op::MinLoc, Op::MaxLoc], &[Class::Pair]),
            ] {
                for &op in ops {
                    assert_eq!(kind.takes(op), is(kind, classes), "{kind} {op:?}");
                }
            }
            assert!(kind.takes(Op::Replace) && kind.takes(Op::NoOp));
        }
    }

    #[test]
    fn parts_are_inside_in_order_and_leave_out_the_padding() {
        for kind in Kind::ALL {
            let mut end = 0;
            for &(start, len) in kind.parts() {
                assert!(start >= end && len > 0, "{kind}");
                end = start + len;
            }
            assert!(end <= kind.size());
            let value: usize = kind.parts().iter().map(|part| part.1).sum();
            assert_eq!(kind.is_padded(), value < kind.size(), "{kind}");
        }
    }

    #[test]
    fn padding_is_not_delivered() {
        let from = [7u8; 64];
        let mut to = [9u8; 64];
        Kind::LongDoubleInt.deliver(&from, &mut to);
        let sevens: Vec<usize> = (0..64).filter(|&at| to[at] == 7).collect();
        let wanted = (0..64).filter(|at| (at % 32) < 10 || (16..20).contains(&(at % 32)));
        assert_eq!(sevens, wanted.collect::<Vec<_>>());
    }
}
