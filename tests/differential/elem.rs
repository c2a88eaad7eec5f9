//! The predefined element types and operators of mpi-rma 3, once more and naively.

use windlass::Op;

use crate::support::data::Random;

/// A predefined type. The order is that of the numbers by which layouts name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elem {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    ComplexF32,
    ComplexF64,
    Logical8,
    Logical32,
    Logical64,
    Byte,
    FloatInt,
    DoubleInt,
    LongInt,
    TwoInt,
    ShortInt,
    LongDoubleInt,
    TwoReal,
    TwoDouble,
}

use Elem as E;

/// The rows of the table of operators.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Integer,
    Float,
    Complex,
    Logical,
    Byte,
    Pair,
}

pub const ALL: [Elem; 24] = [
    E::I8,
    E::U8,
    E::I16,
    E::U16,
    E::I32,
    E::U32,
    E::I64,
    E::U64,
    E::F32,
    E::F64,
    E::ComplexF32,
    E::ComplexF64,
    E::Logical8,
    E::Logical32,
    E::Logical64,
    E::Byte,
    E::FloatInt,
    E::DoubleInt,
    E::LongInt,
    E::TwoInt,
    E::ShortInt,
    E::LongDoubleInt,
    E::TwoReal,
    E::TwoDouble,
];

/// The operators, without those that every type takes.
const OPERATORS: [Op; 12] = [
    Op::Sum,
    Op::Prod,
    Op::Min,
    Op::Max,
    Op::Land,
    Op::Lor,
    Op::Lxor,
    Op::Band,
    Op::Bor,
    Op::Bxor,
    Op::MinLoc,
    Op::MaxLoc,
];

/// Small, so that sums and products stay exact, also in 32 bits.
const FLOATS: [f64; 7] = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, -0.0];

/// A run of bytes of an element: offset and length.
pub type Run = (usize, usize);

impl Elem {
    /// Its number in a layout.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Bytes from one element of an array to the next.
    pub fn size(self) -> usize {
        match self {
            E::I8 | E::U8 | E::Logical8 | E::Byte => 1,
            E::I16 | E::U16 => 2,
            E::I32 | E::U32 | E::F32 | E::Logical32 => 4,
            E::I64 | E::U64 | E::F64 | E::Logical64 | E::ComplexF32 => 8,
            E::FloatInt | E::TwoInt | E::ShortInt | E::TwoReal => 8,
            E::ComplexF64 | E::DoubleInt | E::LongInt | E::TwoDouble => 16,
            E::LongDoubleInt => 32,
        }
    }

    pub fn align(self) -> usize {
        match self {
            E::ComplexF32 | E::FloatInt | E::TwoInt | E::ShortInt | E::TwoReal => 4,
            E::ComplexF64 | E::DoubleInt | E::LongInt | E::TwoDouble => 8,
            E::LongDoubleInt => 16,
            _ => self.size(),
        }
    }

    /// What puts and gets move of an element of a predefined type.
    pub fn data(self) -> &'static [Run] {
        match self {
            E::ShortInt => &[(0, 2), (4, 4)],
            E::DoubleInt | E::LongInt => &[(0, 12)],
            // The x87 type fills its 16 bytes, whatever is in them.
            E::LongDoubleInt => &[(0, 20)],
            _ => self.whole(),
        }
    }

    /// What an update changes.
    pub fn value(self) -> &'static [Run] {
        match self {
            E::LongDoubleInt => &[(0, 10), (16, 4)],
            _ => self.data(),
        }
    }

    /// What puts and gets move of an element of a Rust type, whose padding is a field.
    pub fn whole(self) -> &'static [Run] {
        match self.size() {
            1 => &[(0, 1)],
            2 => &[(0, 2)],
            4 => &[(0, 4)],
            8 => &[(0, 8)],
            16 => &[(0, 16)],
            _ => &[(0, 32)],
        }
    }

    fn class(self) -> Class {
        match self {
            E::F32 | E::F64 => Class::Float,
            E::ComplexF32 | E::ComplexF64 => Class::Complex,
            E::Logical8 | E::Logical32 | E::Logical64 => Class::Logical,
            E::Byte => Class::Byte,
            _ if self.code() <= E::U64.code() => Class::Integer,
            _ => Class::Pair,
        }
    }

    /// Must memory be given a value of this type before it may be calculated with? Any bits are
    /// an integer, but a float of any bits may be a NaN, which has no one outcome.
    pub fn is_particular(self) -> bool {
        !matches!(self.class(), Class::Integer | Class::Logical | Class::Byte)
    }

    pub fn is_comparable(self) -> bool {
        !self.is_particular()
    }

    /// Does the type take the operator?
    pub fn takes(self, op: Op) -> bool {
        use Class as C;
        let class = self.class();
        match op {
            Op::Sum | Op::Prod => matches!(class, C::Integer | C::Float | C::Complex),
            Op::Min | Op::Max => matches!(class, C::Integer | C::Float),
            Op::Land | Op::Lor | Op::Lxor => matches!(class, C::Integer | C::Logical),
            Op::Band | Op::Bor | Op::Bxor => matches!(class, C::Integer | C::Byte),
            Op::MinLoc | Op::MaxLoc => class == C::Pair,
            _ => true,
        }
    }

    /// An operator for updates of one origin.
    pub fn draw_op(self, random: &mut Random) -> Op {
        let mut ops: Vec<Op> = OPERATORS.into_iter().filter(|&op| self.takes(op)).collect();
        ops.push(Op::Replace);
        *random.pick(&ops)
    }

    /// An operator for which the order of updates does not matter, if there is one.
    pub fn draw_commuting(self, random: &mut Random) -> Option<Op> {
        let exact = |op: Op| op != Op::Prod || self.class() == Class::Integer;
        let ops = OPERATORS.into_iter();
        let ops: Vec<Op> = ops.filter(|&op| self.takes(op) && exact(op)).collect();
        (!ops.is_empty()).then(|| *random.pick(&ops))
    }

    /// A value, for calculations that stay exact however many there are.
    pub fn draw_value(self, random: &mut Random, out: &mut [u8]) {
        let bits = random.bits();
        // Half of the integers are small, so that some are 0 and some are equal.
        let small = (bits >> 8) as i64 % 9 - 4;
        let integer = if bits & 1 == 0 {
            random.bits() as i64
        } else {
            small
        };
        // Of pairs with equal zeros either may stay: only one zero there.
        let floats = FLOATS.len() - usize::from(self.class() == Class::Pair);
        let float = |bits: u64| FLOATS[bits as usize % floats];
        let (a, b) = (float(bits >> 20), float(bits >> 40));
        let index = (bits >> 34) as i32 % 5 - 2;
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        match self {
            E::F32 => put(0, &(a as f32).to_ne_bytes()),
            E::F64 => put(0, &a.to_ne_bytes()),
            E::ComplexF32 => {
                put(0, &(a as f32).to_ne_bytes());
                put(4, &(b as f32).to_ne_bytes());
            }
            E::ComplexF64 | E::TwoDouble => {
                put(0, &a.to_ne_bytes());
                put(8, &b.to_ne_bytes());
            }
            E::FloatInt => {
                put(0, &(a as f32).to_ne_bytes());
                put(4, &index.to_ne_bytes());
            }
            E::TwoReal => {
                put(0, &(a as f32).to_ne_bytes());
                put(4, &(b as f32).to_ne_bytes());
            }
            E::DoubleInt => {
                put(0, &a.to_ne_bytes());
                put(8, &index.to_ne_bytes());
            }
            E::LongInt => {
                put(0, &small.to_ne_bytes());
                put(8, &index.to_ne_bytes());
            }
            E::TwoInt => {
                put(0, &(small as i32).to_ne_bytes());
                put(4, &index.to_ne_bytes());
            }
            E::ShortInt => {
                put(0, &(small as i16).to_ne_bytes());
                put(4, &index.to_ne_bytes());
            }
            E::LongDoubleInt => {
                put(0, &extended(small));
                put(16, &index.to_ne_bytes());
            }
            _ => put(0, &integer.to_le_bytes()[..self.size()]),
        }
    }

    /// `t = t op o`, where neither is NaN; bytes that belong to no value stay.
    pub fn combine(self, op: Op, t: &mut [u8], o: &[u8]) {
        match op {
            Op::NoOp => return,
            Op::Replace => {
                for &(at, len) in self.value() {
                    t[at..at + len].copy_from_slice(&o[at..at + len]);
                }
                return;
            }
            _ => {}
        }
        match self {
            E::I8 => integer::<1>(op, t, o, true),
            E::U8 | E::Byte | E::Logical8 => integer::<1>(op, t, o, false),
            E::I16 => integer::<2>(op, t, o, true),
            E::U16 => integer::<2>(op, t, o, false),
            E::I32 => integer::<4>(op, t, o, true),
            E::U32 | E::Logical32 => integer::<4>(op, t, o, false),
            E::I64 => integer::<8>(op, t, o, true),
            E::U64 | E::Logical64 => integer::<8>(op, t, o, false),
            E::F32 => {
                let new = float(op, f64::from(f32_at(t, 0)), f64::from(f32_at(o, 0)));
                t[..4].copy_from_slice(&(new as f32).to_ne_bytes());
            }
            E::F64 => {
                let new = float(op, f64_at(t, 0), f64_at(o, 0));
                t[..8].copy_from_slice(&new.to_ne_bytes());
            }
            E::ComplexF32 => {
                let part = |of: &[u8], at| f64::from(f32_at(of, at));
                let new = complex(op, (part(t, 0), part(t, 4)), (part(o, 0), part(o, 4)));
                t[..4].copy_from_slice(&(new.0 as f32).to_ne_bytes());
                t[4..8].copy_from_slice(&(new.1 as f32).to_ne_bytes());
            }
            E::ComplexF64 => {
                let part = f64_at;
                let new = complex(op, (part(t, 0), part(t, 8)), (part(o, 0), part(o, 8)));
                t[..8].copy_from_slice(&new.0.to_ne_bytes());
                t[8..16].copy_from_slice(&new.1.to_ne_bytes());
            }
            _ => {
                if self.goes_before(op, self.pair(o), self.pair(t)) {
                    self.combine(Op::Replace, t, o);
                }
            }
        }
    }

    /// Value and index of a pair.
    fn pair(self, of: &[u8]) -> (f64, f64) {
        let int = |at: usize| f64::from(i32::from_ne_bytes(array(&of[at..at + 4])));
        match self {
            E::FloatInt => (f64::from(f32_at(of, 0)), int(4)),
            E::DoubleInt => (f64_at(of, 0), int(8)),
            E::LongInt => (i64::from_ne_bytes(array(&of[..8])) as f64, int(8)),
            E::TwoInt => (int(0), int(4)),
            E::ShortInt => (f64::from(i16::from_ne_bytes(array(&of[..2]))), int(4)),
            E::LongDoubleInt => (from_extended(&of[..10]), int(16)),
            E::TwoReal => (f64::from(f32_at(of, 0)), f64::from(f32_at(of, 4))),
            _ => (f64_at(of, 0), f64_at(of, 8)),
        }
    }

    fn goes_before(self, op: Op, o: (f64, f64), t: (f64, f64)) -> bool {
        let better = match op {
            Op::MinLoc => o.0 < t.0,
            _ => o.0 > t.0,
        };
        better || (o.0 == t.0 && o.1 < t.1)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a slice of this length")
}

fn f32_at(of: &[u8], at: usize) -> f32 {
    f32::from_ne_bytes(array(&of[at..at + 4]))
}

fn f64_at(of: &[u8], at: usize) -> f64 {
    f64::from_ne_bytes(array(&of[at..at + 8]))
}

/// In 128 bits, cut off afterwards.
fn integer<const N: usize>(op: Op, t: &mut [u8], o: &[u8], signed: bool) {
    let wide = |bytes: &[u8]| {
        let fill = if signed && bytes[N - 1] & 0x80 != 0 {
            0xff
        } else {
            0
        };
        let mut wide = [fill; 16];
        wide[..N].copy_from_slice(&bytes[..N]);
        i128::from_le_bytes(wide)
    };
    let (a, b) = (wide(t), wide(o));
    let new = match op {
        Op::Sum => a + b,
        Op::Prod => a.wrapping_mul(b),
        Op::Min => a.min(b),
        Op::Max => a.max(b),
        Op::Land => i128::from(a != 0 && b != 0),
        Op::Lor => i128::from(a != 0 || b != 0),
        Op::Lxor => i128::from((a != 0) != (b != 0)),
        Op::Band => a & b,
        Op::Bor => a | b,
        _ => a ^ b,
    };
    t[..N].copy_from_slice(&new.to_le_bytes()[..N]);
}

/// Exact in 64 bits where it is in 32, because values are small whole numbers.
fn float(op: Op, t: f64, o: f64) -> f64 {
    match op {
        Op::Sum => t + o,
        Op::Prod => t * o,
        // The smaller zero is the negative one.
        Op::Min if t < o || (t == o && t.is_sign_negative()) => t,
        Op::Max if t > o || (t == o && t.is_sign_positive()) => t,
        _ => o,
    }
}

fn complex(op: Op, t: (f64, f64), o: (f64, f64)) -> (f64, f64) {
    match op {
        Op::Sum => (t.0 + o.0, t.1 + o.1),
        _ => (t.0 * o.0 - t.1 * o.1, t.0 * o.1 + t.1 * o.0),
    }
}

/// A small whole number as an x87 extended float.
fn extended(value: i64) -> [u8; 10] {
    let mut bytes = [0; 10];
    let magnitude = value.unsigned_abs();
    if magnitude > 0 {
        let shift = magnitude.leading_zeros();
        let exponent = 16383 + 63 - shift as u16;
        bytes[..8].copy_from_slice(&(magnitude << shift).to_le_bytes());
        let sign = if value < 0 { 0x8000 } else { 0 };
        bytes[8..].copy_from_slice(&(exponent | sign).to_le_bytes());
    }
    bytes
}

fn from_extended(bytes: &[u8]) -> f64 {
    let significand = u64::from_le_bytes(array(&bytes[..8])) as f64;
    let word = u16::from_le_bytes(array(&bytes[8..10]));
    let magnitude = significand * 2f64.powi(i32::from(word & 0x7fff) - 16383 - 63);
    if word & 0x8000 == 0 {
        magnitude
    } else {
        -magnitude
    }
}
