//! Words that a CPU changes in one piece: its atomic instructions, and the loop where it has none.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use windlass_mem::{Result, SharedBytes, sync};

use super::kind::UpdateOp;
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
