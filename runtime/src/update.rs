//! Atomic updates of window memory: the accumulate family's one unit of atomicity.
//!
//! The origin on a mapped route and the target's helper thread for every other route run the
//! *same* functions on the *same* memory, so updates are atomic to each other whatever the route
//! (mpi-rma 3, Atomicity; reliability C3).
//!
//! An element of 1, 2, 4 or 8 bytes at a multiple of its size is changed by one CPU atomic
//! instruction, or by a compare-exchange loop where the CPU has none. Every other element is
//! *wide* and changed under the [guard](crate::guard) of its rank's part. Which of both it is
//! depends on its type and its address alone, and mappings are whole pages, so all origins and
//! the target's helper decide alike.
//!
//! [`quick`] and [`quick_swap`] are the hot path: inlined into the caller, where type and operator
//! are constants, they are a range check and one instruction. What they do not do they leave to
//! [`apply`] and [`compare_swap`].

mod atomic;
mod kind;
mod value;

use windlass_mem::sync::Held;
use windlass_mem::{Error as MemoryError, SharedBytes};

use crate::error::Error;
use crate::guard::Guard;
use atomic::{Word, change, change_at, combine, with_word};
use kind::Class;
use value::{Stored, Value, with_value};

pub use kind::{Kind, UpdateOp};

/// The guard is given back after so many bytes, so that nobody waits for a long update.
const GUARDED_BYTES: usize = 4096;

/// The largest element, in bytes.
const WIDEST: usize = 32;

/// Why an update was refused. Nothing was changed, unless the job was lost meanwhile.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// The range is not inside the memory, or the memory cannot be written.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The lengths of operand, result and elements do not agree.
    #[error("{what} of {got} bytes where {want} are needed")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length it needs.
        want: usize,
    },
    /// The table of mpi-rma 3 does not have this pair.
    #[error("elements of type {kind} do not take {op:?}")]
    Operator {
        /// The type.
        kind: Kind,
        /// The operator.
        op: UpdateOp,
    },
    /// Compare-and-swap is for integers, logicals and bytes.
    #[error("elements of type {0} do not take compare-and-swap")]
    Comparison(Kind),
    /// The element is wide and the caller named no guard.
    #[error("elements of type {0} at this address need a guard, and none was named")]
    Unguarded(Kind),
    /// The job was lost while the guard was waited for.
    #[error(transparent)]
    Lost(Box<Error>),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::Lost(error) => *error,
            other => Error::Update(other.to_string()),
        }
    }
}

/// What makes wide elements atomic.
#[derive(Clone, Copy)]
pub enum Unit<'a> {
    /// The guard of their part; taken where it is needed.
    Guard(Guard<'a>),
    /// The caller holds that guard.
    Held(&'a Held<'a>),
    /// Nothing: there are none.
    Cpu,
}

/// Is an element at this address one that no CPU instruction changes in one piece?
#[inline]
pub const fn is_wide(kind: Kind, address: u64) -> bool {
    let size = kind.size();
    size > 8 || !address.is_multiple_of(size as u64)
}

/// Updates one element, if it is in a word without padding. The commonest operators are inlined.
/// `false`: nothing was done, ask [`apply`].
#[inline(always)]
pub fn quick(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
    fetched: Option<&mut [u8]>,
) -> bool {
    let size = kind.size();
    let fits = match (op, &fetched) {
        (UpdateOp::NoOp, None) => false,
        (UpdateOp::NoOp, Some(out)) => out.len() == size,
        (_, None) => operand.len() == size,
        (_, Some(out)) => operand.len() == size && out.len() == size,
    };
    fits && !kind.is_padded()
        && match size {
            1 => quick_word::<u8>(bytes, offset, kind, op, operand, fetched),
            2 => quick_word::<u16>(bytes, offset, kind, op, operand, fetched),
            4 => quick_word::<u32>(bytes, offset, kind, op, operand, fetched),
            8 => quick_word::<u64>(bytes, offset, kind, op, operand, fetched),
            _ => false,
        }
}

/// [`quick`] for elements of one size without padding; the lengths are right.
#[inline(always)]
fn quick_word<W: Word>(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
    fetched: Option<&mut [u8]>,
) -> bool {
    let Ok(cell) = W::cell(bytes, offset) else {
        return false;
    };
    let old = match (op, kind) {
        (UpdateOp::NoOp, _) => Some(W::read(cell)),
        (UpdateOp::Replace, _) => Some(W::swap(cell, W::load(operand))),
        (UpdateOp::Sum, Kind::F32) => combine::<f32, W>(cell, op, f32::load(operand)),
        (UpdateOp::Sum, Kind::F64) => combine::<f64, W>(cell, op, f64::load(operand)),
        (UpdateOp::Sum, _) if matches!(kind.class(), Class::Integer) => {
            Some(W::add(cell, W::load(operand)))
        }
        _ => change_at(bytes, offset, kind, op, operand).map(W::narrow),
    };
    let Some(old) = old else {
        return false;
    };
    if let Some(out) = fetched {
        old.store(out);
    }
    true
}

/// Updates the elements at `offset`; `operand` gives their number (for [`UpdateOp::NoOp`],
/// `fetched` does). `fetched` gets the old values, and keeps its own padding.
///
/// # Errors
/// [`Refused`].
#[inline(never)]
pub fn apply(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
    fetched: Option<&mut [u8]>,
    unit: Unit<'_>,
) -> Result<(), Refused> {
    let len = length(kind, op, operand, fetched.as_deref())?;
    if !kind.takes(op) {
        return Err(Refused::Operator { kind, op });
    }
    // The whole range is checked before the first element changes.
    bytes.check_store(offset, len)?;
    let elements = Elements {
        bytes,
        offset,
        len,
        kind,
        op,
        operand,
        fetched,
    };
    if is_wide(kind, (bytes.addr() + offset) as u64) {
        with_value!(kind, V => elements.guarded::<V>(unit))
    } else {
        let done = with_word!(kind, V, W => elements.atomic::<V, W>());
        done.unwrap_or(Err(Refused::Unguarded(kind)))
    }
}

/// Bytes of all elements, if the buffers agree.
fn length(
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
    fetched: Option<&[u8]>,
) -> Result<usize, Refused> {
    let len = match (op, fetched) {
        (UpdateOp::NoOp, out) => out.map_or(0, <[u8]>::len),
        _ => operand.len(),
    };
    let refuse = |what, got, want| Err(Refused::Length { what, got, want });
    if !len.is_multiple_of(kind.size()) {
        return refuse("elements", len, len.next_multiple_of(kind.size()));
    }
    match fetched {
        Some(out) if out.len() != len => refuse("a result", out.len(), len),
        _ => Ok(len),
    }
}

/// An update that was checked.
struct Elements<'a> {
    bytes: &'a SharedBytes,
    offset: usize,
    len: usize,
    kind: Kind,
    op: UpdateOp,
    /// Nothing for [`UpdateOp::NoOp`].
    operand: &'a [u8],
    fetched: Option<&'a mut [u8]>,
}

impl Elements<'_> {
    /// Each by the CPU alone.
    fn atomic<V: Value, W: Word>(mut self) -> Result<(), Refused> {
        let Elements { kind, op, .. } = self;
        for at in (0..self.len).step_by(size_of::<W>()) {
            let here = at..at + size_of::<W>();
            let cell = W::cell(self.bytes, self.offset + at)?;
            let operand = self.operand.get(here.clone()).unwrap_or_default();
            let old = change::<V, W>(cell, kind, op, operand);
            let old = old.ok_or(Refused::Operator { kind, op })?;
            if let Some(out) = &mut self.fetched {
                let mut element = [0; 8];
                old.store(&mut element);
                kind.deliver(&element[..size_of::<W>()], &mut out[here]);
            }
        }
        Ok(())
    }

    /// Each under the guard.
    fn guarded<V: Value>(mut self, unit: Unit<'_>) -> Result<(), Refused> {
        let Elements { kind, op, .. } = self;
        let size = kind.size();
        for start in (0..self.len).step_by(GUARDED_BYTES) {
            let _held = unit.hold(kind)?;
            for at in (start..self.len.min(start + GUARDED_BYTES)).step_by(size) {
                let here = at..at + size;
                let mut element = [0; WIDEST];
                let element = &mut element[..size];
                self.bytes.read(self.offset + at, element)?;
                if let Some(out) = &mut self.fetched {
                    kind.deliver(element, &mut out[here.clone()]);
                }
                if matches!(op, UpdateOp::NoOp) {
                    continue;
                }
                let operand = V::load(&self.operand[here]);
                let new = V::combine(op, V::load(element), operand);
                new.ok_or(Refused::Operator { kind, op })?.store(element);
                store(self.bytes, self.offset + at, kind, element)?;
            }
        }
        Ok(())
    }
}

/// Stores the value of an element, and not its padding.
fn store(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    element: &[u8],
) -> Result<(), MemoryError> {
    kind.parts()
        .iter()
        .try_for_each(|&(start, len)| bytes.write(offset + start, &element[start..start + len]))
}

impl Unit<'_> {
    /// Makes wide elements this thread's while the answer lives.
    fn hold(&self, kind: Kind) -> Result<Option<Held<'_>>, Refused> {
        match self {
            Unit::Guard(guard) => match guard.hold() {
                Ok(held) => Ok(Some(held)),
                Err(lost) => Err(Refused::Lost(Box::new(lost))),
            },
            Unit::Held(_) => Ok(None),
            Unit::Cpu => Err(Refused::Unguarded(kind)),
        }
    }
}

/// [`compare_swap`] by one instruction. `false`: nothing was done, ask that.
#[inline(always)]
pub fn quick_swap(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    compare: &[u8],
    swap: &[u8],
    fetched: &mut [u8],
) -> bool {
    let size = kind.size();
    let fits = compare.len() == size && swap.len() == size && fetched.len() == size;
    fits && kind.is_comparable()
        && match size {
            1 => swap_word::<u8>(bytes, offset, compare, swap, fetched),
            2 => swap_word::<u16>(bytes, offset, compare, swap, fetched),
            4 => swap_word::<u32>(bytes, offset, compare, swap, fetched),
            8 => swap_word::<u64>(bytes, offset, compare, swap, fetched),
            _ => false,
        }
}

/// [`quick_swap`] for elements of one size; the lengths are right.
#[inline(always)]
fn swap_word<W: Word>(
    bytes: &SharedBytes,
    offset: usize,
    compare: &[u8],
    swap: &[u8],
    fetched: &mut [u8],
) -> bool {
    let Ok(cell) = W::cell(bytes, offset) else {
        return false;
    };
    W::compare_swap(cell, W::load(compare), W::load(swap)).store(fetched);
    true
}

/// Replaces the element at `offset` by `swap` if its bytes equal `compare`; `fetched` gets the
/// old value either way.
///
/// # Errors
/// [`Refused`].
#[inline(never)]
pub fn compare_swap(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    compare: &[u8],
    swap: &[u8],
    fetched: &mut [u8],
    unit: Unit<'_>,
) -> Result<(), Refused> {
    if !kind.is_comparable() {
        return Err(Refused::Comparison(kind));
    }
    let want = kind.size();
    for (what, got) in [
        ("a compare value", compare.len()),
        ("a swap value", swap.len()),
        ("a result", fetched.len()),
    ] {
        if got != want {
            return Err(Refused::Length { what, got, want });
        }
    }
    if quick_swap(bytes, offset, kind, compare, swap, fetched) {
        return Ok(());
    }
    bytes.check_store(offset, want)?;
    let _held = unit.hold(kind)?;
    bytes.read(offset, fetched)?;
    if fetched == compare {
        bytes.write(offset, swap)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
