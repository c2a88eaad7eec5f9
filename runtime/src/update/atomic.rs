//! Words that a CPU changes in one piece: its atomic instructions, and the loop where it has none.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use windlass_mem::{Result, SharedBytes, sync};

use super::kind::{Class, Kind, UpdateOp};
use super::value::{Stored, Value};

/// An unsigned integer with atomics. Each change is a locked instruction, so it pays what a flush
/// before it owes; a load has to (measured-designs 2).
pub(super) trait Word: Stored {
    /// A word of shared memory.
    type Cell;
    /// The word at `offset`, if its address is a multiple of its size.
    fn cell(bytes: &SharedBytes, offset: usize) -> Result<&Self::Cell>;
    fn read(cell: &Self::Cell) -> Self;
    fn swap(cell: &Self::Cell, o: Self) -> Self;
    fn add(cell: &Self::Cell, o: Self) -> Self;
    fn and(cell: &Self::Cell, o: Self) -> Self;
    fn or(cell: &Self::Cell, o: Self) -> Self;
    fn xor(cell: &Self::Cell, o: Self) -> Self;
    /// Replaces `compare` by `new`; the old value either way.
    fn compare_swap(cell: &Self::Cell, compare: Self, new: Self) -> Self;
    /// The same number in 64 bits.
    fn widen(self) -> u64;
    /// The low bits of a number.
    fn narrow(wide: u64) -> Self;
    /// Replaces the value by what `change` makes of it; the old value, or `None` if that says so.
    fn update(cell: &Self::Cell, change: impl FnMut(Self) -> Option<Self>) -> Option<Self>;
}

macro_rules! words {
    ($($type:ident, $cell:ident, $at:ident;)+) => {$(
        impl Word for $type {
            type Cell = $cell;
            #[inline(always)]
            fn cell(bytes: &SharedBytes, offset: usize) -> Result<&$cell> {
                bytes.$at(offset)
            }
            #[inline(always)]
            fn read(cell: &$cell) -> Self {
                sync::pay();
                cell.load(Ordering::SeqCst)
            }
            #[inline(always)]
            fn swap(cell: &$cell, o: Self) -> Self {
                sync::settled();
                cell.swap(o, Ordering::SeqCst)
            }
            #[inline(always)]
            fn add(cell: &$cell, o: Self) -> Self {
                sync::settled();
                cell.fetch_add(o, Ordering::SeqCst)
            }
            #[inline(always)]
            fn and(cell: &$cell, o: Self) -> Self {
                sync::settled();
                cell.fetch_and(o, Ordering::SeqCst)
            }
            #[inline(always)]
            fn or(cell: &$cell, o: Self) -> Self {
                sync::settled();
                cell.fetch_or(o, Ordering::SeqCst)
            }
            #[inline(always)]
            fn xor(cell: &$cell, o: Self) -> Self {
                sync::settled();
                cell.fetch_xor(o, Ordering::SeqCst)
            }
            #[inline(always)]
            fn compare_swap(cell: &$cell, compare: Self, new: Self) -> Self {
                sync::settled();
                cell.compare_exchange(compare, new, Ordering::SeqCst, Ordering::SeqCst)
                    .unwrap_or_else(|old| old)
            }
            #[inline(always)]
            fn widen(self) -> u64 {
                self.into()
            }
            #[inline(always)]
            fn narrow(wide: u64) -> Self {
                wide as $type
            }
            #[inline(always)]
            fn update(
                cell: &$cell,
                change: impl FnMut(Self) -> Option<Self>,
            ) -> Option<Self> {
                let old = cell.fetch_update(Ordering::SeqCst, Ordering::Relaxed, change).ok()?;
                sync::settled();
                Some(old)
            }
        }
    )+};
}

words! {
    u8, AtomicU8, atomic_u8;
    u16, AtomicU16, atomic_u16;
    u32, AtomicU32, atomic_u32;
    u64, AtomicU64, atomic_u64;
}

/// `t op o` for a value in a word, whose padding stays; the old word, or `None` where the type
/// does not take the operator.
#[inline(always)]
pub(super) fn combine<V: Value, W: Word>(cell: &W::Cell, op: UpdateOp, o: V) -> Option<W> {
    W::update(cell, |t| {
        let mut element = [0; 8];
        t.store(&mut element);
        V::combine(op, V::load(&element), o)?.store(&mut element);
        Some(W::load(&element))
    })
}

/// `t op o` for an element in a word; the old word, or `None` where the type does not take the
/// operator.
#[inline(always)]
pub(super) fn change<V: Value, W: Word>(
    cell: &W::Cell,
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
) -> Option<W> {
    let is_integer = matches!(kind.class(), Class::Integer);
    let has_bits = is_integer || matches!(kind.class(), Class::Byte);
    match op {
        UpdateOp::NoOp => Some(W::read(cell)),
        UpdateOp::Replace if !kind.is_padded() => Some(W::swap(cell, W::load(operand))),
        UpdateOp::Sum if is_integer => Some(W::add(cell, W::load(operand))),
        UpdateOp::Band if has_bits => Some(W::and(cell, W::load(operand))),
        UpdateOp::Bor if has_bits => Some(W::or(cell, W::load(operand))),
        UpdateOp::Bxor if has_bits => Some(W::xor(cell, W::load(operand))),
        _ => combine::<V, W>(cell, op, V::load(operand)),
    }
}

/// Runs `$body` with `$value` as the type of a [`Kind`]'s values and `$word` as the word that holds
/// one; `None` for kinds that no word holds.
macro_rules! with_word {
    ($kind:expr, $value:ident, $word:ident => $body:expr) => {{
        use $crate::update::kind::Kind;
        use $crate::update::value::{Byte, Complex, Pair, Truth};
        macro_rules! of {
            ($type:ty, $holder:ty) => {{
                type $value = $type;
                type $word = $holder;
                Some($body)
            }};
        }
        match $kind {
            Kind::I8 => of!(i8, u8),
            Kind::U8 => of!(u8, u8),
            Kind::I16 => of!(i16, u16),
            Kind::U16 => of!(u16, u16),
            Kind::I32 => of!(i32, u32),
            Kind::U32 => of!(u32, u32),
            Kind::I64 => of!(i64, u64),
            Kind::U64 => of!(u64, u64),
            Kind::F32 => of!(f32, u32),
            Kind::F64 => of!(f64, u64),
            Kind::ComplexF32 => of!(Complex<f32>, u64),
            Kind::Logical8 => of!(Truth<u8>, u8),
            Kind::Logical32 => of!(Truth<u32>, u32),
            Kind::Logical64 => of!(Truth<u64>, u64),
            Kind::Byte => of!(Byte, u8),
            Kind::FloatInt => of!(Pair<f32, i32, 4>, u64),
            Kind::TwoInt => of!(Pair<i32, i32, 4>, u64),
            Kind::ShortInt => of!(Pair<i16, i32, 4>, u64),
            Kind::TwoReal => of!(Pair<f32, f32, 4>, u64),
            Kind::ComplexF64
            | Kind::DoubleInt
            | Kind::LongInt
            | Kind::LongDoubleInt
            | Kind::TwoDouble => None,
        }
    }};
}
pub(super) use with_word;

/// [`change`] of the element at `offset`; `None` also where it is not in a word. Out of line: for
/// callers that would have all of it in each place.
#[inline(never)]
pub(super) fn change_at(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
) -> Option<u64> {
    with_word!(kind, V, W => {
        let cell = W::cell(bytes, offset).ok()?;
        change::<V, W>(cell, kind, op, operand)?.widen()
    })
}
