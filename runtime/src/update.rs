//! Atomic updates of window memory: the accumulate family's one unit of atomicity.
//!
//! The origin on a mapped route and the target's helper thread for every other route run the
//! *same* functions on the *same* memory, so updates are atomic to each other whatever the
//! route: each element is changed by one CPU atomic instruction, or by a compare-exchange loop
//! where the CPU has none (mpi-rma 3, Atomicity; reliability C3).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use windlass_mem::{SharedBytes, sync};

/// The element types that a CPU updates in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// Signed, 4 bytes.
    I32 = 0,
    /// Unsigned, 4 bytes.
    U32 = 1,
    /// Signed, 8 bytes.
    I64 = 2,
    /// Unsigned, 8 bytes.
    U64 = 3,
    /// IEEE 754, 4 bytes.
    F32 = 4,
    /// IEEE 754, 8 bytes.
    F64 = 5,
}

impl Kind {
    /// Size and alignment of an element, in bytes.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Kind::I32 | Kind::U32 | Kind::F32 => 4,
            Kind::I64 | Kind::U64 | Kind::F64 => 8,
        }
    }

    /// The kind with this number on the wire.
    pub const fn from_code(code: u8) -> Option<Kind> {
        Some(match code {
            0 => Kind::I32,
            1 => Kind::U32,
            2 => Kind::I64,
            3 => Kind::U64,
            4 => Kind::F32,
            5 => Kind::F64,
            _ => return None,
        })
    }
}

/// What an update does with the old value `t` and the operand `o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum UpdateOp {
    /// `t + o`; integers wrap.
    Sum = 0,
    /// `o`.
    Replace = 1,
    /// `t`: an atomic read.
    NoOp = 2,
    /// `t & o`, on the bits.
    And = 3,
    /// `t | o`, on the bits.
    Or = 4,
}

impl UpdateOp {
    /// The operator with this number on the wire.
    pub const fn from_code(code: u8) -> Option<UpdateOp> {
        Some(match code {
            0 => UpdateOp::Sum,
            1 => UpdateOp::Replace,
            2 => UpdateOp::NoOp,
            3 => UpdateOp::And,
            4 => UpdateOp::Or,
            _ => return None,
        })
    }
}

/// Why an update was refused; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The range is not inside the memory or not aligned to the element.
    #[error(transparent)]
    Memory(#[from] windlass_mem::Error),
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
    /// Bitwise operators are for integers, compare-and-swap too.
    #[error("{0:?} elements do not take this operator")]
    Operator(Kind),
}

fn word<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], Refused> {
    bytes.try_into().map_err(|_| Refused::Length {
        what,
        got: bytes.len(),
        want: N,
    })
}

/// The compare-exchange loop for what the CPU cannot do in one instruction.
macro_rules! by_exchange {
    ($word:expr, $f:expr) => {{
        let mut old = $word.load(Ordering::Relaxed);
        loop {
            let new = $f(old);
            match $word.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break old,
                Err(now) => old = now,
            }
        }
    }};
}

#[inline(always)]
fn apply32(word: &AtomicU32, kind: Kind, op: UpdateOp, o: u32) -> u32 {
    match op {
        UpdateOp::Sum if matches!(kind, Kind::F32) => {
            by_exchange!(word, |t| (f32::from_bits(t) + f32::from_bits(o)).to_bits())
        }
        UpdateOp::Sum => word.fetch_add(o, Ordering::SeqCst),
        UpdateOp::Replace => word.swap(o, Ordering::SeqCst),
        UpdateOp::NoOp => word.load(Ordering::SeqCst),
        UpdateOp::And => word.fetch_and(o, Ordering::SeqCst),
        UpdateOp::Or => word.fetch_or(o, Ordering::SeqCst),
    }
}

#[inline(always)]
fn apply64(word: &AtomicU64, kind: Kind, op: UpdateOp, o: u64) -> u64 {
    match op {
        UpdateOp::Sum if matches!(kind, Kind::F64) => {
            by_exchange!(word, |t| (f64::from_bits(t) + f64::from_bits(o)).to_bits())
        }
        UpdateOp::Sum => word.fetch_add(o, Ordering::SeqCst),
        UpdateOp::Replace => word.swap(o, Ordering::SeqCst),
        UpdateOp::NoOp => word.load(Ordering::SeqCst),
        UpdateOp::And => word.fetch_and(o, Ordering::SeqCst),
        UpdateOp::Or => word.fetch_or(o, Ordering::SeqCst),
    }
}

#[inline(always)]
fn before(op: UpdateOp) {
    // An atomic read is a load: it pays what a flush before it owes. Every other operator is a
    // locked instruction, which pays by itself (measured-designs 2).
    if matches!(op, UpdateOp::NoOp) {
        sync::pay();
    } else {
        sync::settled();
    }
}

/// Updates the elements at `offset`; `operand` gives their number (for [`UpdateOp::NoOp`],
/// `fetched` does). `fetched` gets the old values.
///
/// # Errors
/// [`Refused`] before anything is changed.
#[inline]
pub fn apply(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
    fetched: Option<&mut [u8]>,
) -> Result<(), Refused> {
    let size = kind.size();
    if operand.len() == size && !matches!(op, UpdateOp::NoOp | UpdateOp::And | UpdateOp::Or) {
        before(op);
        return one(bytes, offset, kind, op, operand, fetched);
    }
    many(bytes, offset, kind, op, operand, fetched)
}

#[inline(always)]
fn one(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
    fetched: Option<&mut [u8]>,
) -> Result<(), Refused> {
    if kind.size() == 8 {
        let o = u64::from_ne_bytes(word(operand, "an operand")?);
        let target = bytes.atomic_u64(offset)?;
        match fetched {
            None => {
                apply64(target, kind, op, o);
            }
            Some(out) => {
                let _: [u8; 8] = word(out, "a result")?;
                out.copy_from_slice(&apply64(target, kind, op, o).to_ne_bytes());
            }
        }
    } else {
        let o = u32::from_ne_bytes(word(operand, "an operand")?);
        let target = bytes.atomic_u32(offset)?;
        match fetched {
            None => {
                apply32(target, kind, op, o);
            }
            Some(out) => {
                let _: [u8; 4] = word(out, "a result")?;
                out.copy_from_slice(&apply32(target, kind, op, o).to_ne_bytes());
            }
        }
    }
    Ok(())
}

fn many(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    op: UpdateOp,
    operand: &[u8],
    mut fetched: Option<&mut [u8]>,
) -> Result<(), Refused> {
    let size = kind.size();
    let reads = matches!(op, UpdateOp::NoOp);
    let len = match (&fetched, reads) {
        (Some(out), true) => out.len(),
        (None, true) => return Ok(()),
        (_, false) => operand.len(),
    };
    if len % size != 0 {
        return Err(Refused::Length {
            what: "elements",
            got: len,
            want: len.next_multiple_of(size),
        });
    }
    if let Some(out) = &fetched
        && out.len() != len
    {
        return Err(Refused::Length {
            what: "a result",
            got: out.len(),
            want: len,
        });
    }
    let floats = matches!(kind, Kind::F32 | Kind::F64);
    if floats && matches!(op, UpdateOp::And | UpdateOp::Or) {
        return Err(Refused::Operator(kind));
    }
    // The whole range is checked before the first element changes.
    let range = bytes.slice(offset, len)?;
    if len > 0 && size == 8 {
        range.atomic_u64(0)?;
    } else if len > 0 {
        range.atomic_u32(0)?;
    }
    before(op);
    let zero = [0u8; 8];
    for at in (0..len).step_by(size) {
        let o = if reads {
            &zero[..size]
        } else {
            &operand[at..at + size]
        };
        let out = fetched.as_deref_mut().map(|out| &mut out[at..at + size]);
        one(&range, at, kind, op, o, out)?;
    }
    Ok(())
}

/// Replaces the element at `offset` by `swap` if its bytes equal `compare`; `fetched` gets the
/// old value either way.
///
/// # Errors
/// [`Refused`] before anything is changed; floating point is refused (mpi-rma 3).
#[inline]
pub fn compare_swap(
    bytes: &SharedBytes,
    offset: usize,
    kind: Kind,
    compare: &[u8],
    swap: &[u8],
    fetched: &mut [u8],
) -> Result<(), Refused> {
    sync::settled();
    match kind {
        Kind::F32 | Kind::F64 => return Err(Refused::Operator(kind)),
        Kind::I64 | Kind::U64 => {
            let compare = u64::from_ne_bytes(word(compare, "a compare value")?);
            let swap = u64::from_ne_bytes(word(swap, "a swap value")?);
            let _: [u8; 8] = word(fetched, "a result")?;
            let target = bytes.atomic_u64(offset)?;
            let old = target.compare_exchange(compare, swap, Ordering::SeqCst, Ordering::SeqCst);
            fetched.copy_from_slice(&old.unwrap_or_else(|old| old).to_ne_bytes());
        }
        Kind::I32 | Kind::U32 => {
            let compare = u32::from_ne_bytes(word(compare, "a compare value")?);
            let swap = u32::from_ne_bytes(word(swap, "a swap value")?);
            let _: [u8; 4] = word(fetched, "a result")?;
            let target = bytes.atomic_u32(offset)?;
            let old = target.compare_exchange(compare, swap, Ordering::SeqCst, Ordering::SeqCst);
            fetched.copy_from_slice(&old.unwrap_or_else(|old| old).to_ne_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(words: &[u64]) -> SharedBytes {
        windlass_mem::lend(words.to_vec()).0
    }

    fn at(bytes: &SharedBytes, index: usize) -> u64 {
        bytes.atomic_u64(index * 8).unwrap().load(Ordering::SeqCst)
    }

    #[test]
    fn sums_replaces_and_reads() {
        let m = memory(&[1, 2, u64::MAX]);
        let mut old = [0u8; 8];
        apply(
            &m,
            16,
            Kind::U64,
            UpdateOp::Sum,
            &2u64.to_ne_bytes(),
            Some(&mut old),
        )
        .unwrap();
        assert_eq!(
            (u64::from_ne_bytes(old), at(&m, 2)),
            (u64::MAX, 1),
            "integers wrap"
        );
        let two: Vec<u8> = [10u64, 20].iter().flat_map(|v| v.to_ne_bytes()).collect();
        let mut olds = [0u8; 16];
        apply(&m, 0, Kind::I64, UpdateOp::Sum, &two, Some(&mut olds)).unwrap();
        assert_eq!((at(&m, 0), at(&m, 1)), (11, 22));
        assert_eq!(olds[..8], 1u64.to_ne_bytes());
        apply(
            &m,
            8,
            Kind::U64,
            UpdateOp::Replace,
            &7u64.to_ne_bytes(),
            None,
        )
        .unwrap();
        apply(&m, 8, Kind::U64, UpdateOp::NoOp, &[], Some(&mut old)).unwrap();
        assert_eq!((u64::from_ne_bytes(old), at(&m, 1)), (7, 7));
        apply(&m, 8, Kind::U64, UpdateOp::Or, &8u64.to_ne_bytes(), None).unwrap();
        apply(&m, 8, Kind::U64, UpdateOp::And, &9u64.to_ne_bytes(), None).unwrap();
        assert_eq!(at(&m, 1), 9);
    }

    #[test]
    fn floats_add_by_value_and_refuse_bits() {
        let m = memory(&[1.5f64.to_bits(), 0]);
        apply(
            &m,
            0,
            Kind::F64,
            UpdateOp::Sum,
            &2.25f64.to_ne_bytes(),
            None,
        )
        .unwrap();
        assert_eq!(f64::from_bits(at(&m, 0)), 3.75);
        apply(
            &m,
            12,
            Kind::F32,
            UpdateOp::Sum,
            &0.5f32.to_ne_bytes(),
            None,
        )
        .unwrap();
        assert_eq!(f32::from_bits((at(&m, 1) >> 32) as u32), 0.5);
        let bits = apply(&m, 0, Kind::F64, UpdateOp::Or, &[0; 8], None);
        assert_eq!(bits, Err(Refused::Operator(Kind::F64)));
    }

    #[test]
    fn compare_swap_swaps_only_equals() {
        let m = memory(&[5]);
        let mut old = [0u8; 8];
        let (five, six) = (5u64.to_ne_bytes(), 6u64.to_ne_bytes());
        compare_swap(&m, 0, Kind::U64, &six, &five, &mut old).unwrap();
        assert_eq!((u64::from_ne_bytes(old), at(&m, 0)), (5, 5));
        compare_swap(&m, 0, Kind::U64, &five, &six, &mut old).unwrap();
        assert_eq!((u64::from_ne_bytes(old), at(&m, 0)), (5, 6));
        let refused = compare_swap(&m, 0, Kind::F64, &five, &six, &mut old);
        assert_eq!(refused, Err(Refused::Operator(Kind::F64)));
    }

    #[test]
    fn a_refused_update_changes_nothing() {
        let m = memory(&[1, 2]);
        let three = [1u8; 24];
        assert!(apply(&m, 0, Kind::U64, UpdateOp::Sum, &three, None).is_err());
        assert!(apply(&m, 4, Kind::U64, UpdateOp::Sum, &three[..8], None).is_err());
        assert!(apply(&m, 0, Kind::U64, UpdateOp::Sum, &three[..12], None).is_err());
        assert!(
            apply(
                &m,
                usize::MAX - 3,
                Kind::U32,
                UpdateOp::Sum,
                &three[..4],
                None
            )
            .is_err()
        );
        assert_eq!((at(&m, 0), at(&m, 1)), (1, 2));
    }
}
