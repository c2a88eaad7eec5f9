//! Equal blocks, equally far apart: one check for all of them, then a loop without a call per block.
//!
//! Relies on [`SharedBytes`] and its conditions. A block of up to 128 bytes is moved by loads and stores in
//! assembly, which the compiler cannot see into (condition 3), all its loads before its first store; an aligned block
//! of 1, 2, 4 or 8 bytes is one load and one store, and so not torn. Longer ones are moved by memmove, whose call no
//! longer counts beside them.

use crate::error::{Error, Result};
use crate::shared::{SharedBytes, move_shared};

/// Where equal blocks lie in a range, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Offset of the first block.
    pub first: usize,
    /// From the beginning of one to that of the next; may be negative.
    pub stride: isize,
}

impl Steps {
    /// The first byte and the end of what `blocks` blocks of `len` bytes touch; `None` if that is no 128-bit number.
    fn touched(self, blocks: usize, len: usize) -> Option<(i128, i128)> {
        let far = (blocks as i128 - 1).checked_mul(self.stride as i128)?;
        let first = self.first as i128;
        let end = first.checked_add(far.max(0))?.checked_add(len as i128)?;
        Some((first.checked_add(far.min(0))?, end))
    }
}

/// The address of the first block of what touches only bytes of `bytes`.
fn checked(
    bytes: &SharedBytes,
    steps: Steps,
    blocks: usize,
    len: usize,
    store: bool,
) -> Result<*mut u8> {
    let size = bytes.len();
    let touched = steps.touched(blocks, len);
    let Some((first, end)) = touched.filter(|&(first, end)| first >= 0 && end <= size as i128)
    else {
        // An offset below 0 is named as the caller's arithmetic has it, modulo 2^64.
        let (first, end) = touched.unwrap_or((0, i128::MAX));
        return Err(Error::OutOfRange {
            offset: first as u64,
            len: u64::try_from(end - first).unwrap_or(u64::MAX),
            size: size as u64,
        });
    };
    let base = bytes.checked_ptr(first as usize, (end - first) as usize, store)?;
    Ok(base.wrapping_add(steps.first - first as usize))
}

impl SharedBytes {
    /// Copies `blocks` blocks of `len` bytes from where `from_steps` says in `from` to where `steps` says here, in
    /// this order. Refused whole when any byte of either side is outside; what has no bytes is inside.
    ///
    /// Where the two overlap, a block may be read after an earlier one was written, but never while it is written.
    pub fn copy_blocks(
        &self,
        steps: Steps,
        from: &SharedBytes,
        from_steps: Steps,
        blocks: usize,
        len: usize,
    ) -> Result<()> {
        if blocks == 0 || len == 0 {
            return Ok(());
        }
        let to = checked(self, steps, blocks, len, true)?;
        let from = checked(from, from_steps, blocks, len, false)?;
        // SAFETY: every block on both sides lies inside its range, which is mapped, the left one writable.
        unsafe { imp::blocks(to, steps.stride, from, from_steps.stride, blocks, len) };
        Ok(())
    }
}

/// Calls `each` with the addresses of every two blocks.
#[inline(always)]
fn walk(
    (mut to, stride): (*mut u8, isize),
    (mut from, from_stride): (*mut u8, isize),
    blocks: usize,
    each: impl Fn(*mut u8, *mut u8),
) {
    for _ in 0..blocks {
        each(to, from);
        // Beyond the last block there may be no memory; the address is not used then.
        to = to.wrapping_offset(stride);
        from = from.wrapping_offset(from_stride);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod imp {
    use std::arch::{asm, x86_64::__m128i};

    use super::{move_shared, walk};

    /// Bytes of the longest block that is held in registers: half of those there are.
    const LONGEST: usize = 8 * size_of::<__m128i>();

    /// What one instruction loads or stores, aligned or not.
    trait Word: Copy {
        /// # Safety
        /// `from` is readable for the size of the word.
        unsafe fn load(from: *const u8) -> Self;
        /// # Safety
        /// `to` is writable for the size of the word.
        unsafe fn store(self, to: *mut u8);
    }

    macro_rules! word {
        ($type:ty, $class:ident, $load:literal, $store:literal) => {
            impl Word for $type {
                #[inline(always)]
                unsafe fn load(from: *const u8) -> Self {
                    let word;
                    // SAFETY: one load of what the caller promises; nothing else changes.
                    unsafe {
                        asm!($load, word = out($class) word, at = in(reg) from,
                            options(nostack, preserves_flags, readonly));
                    }
                    word
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut u8) {
                    // SAFETY: one store to what the caller promises; nothing else changes.
                    unsafe {
                        asm!($store, word = in($class) self, at = in(reg) to,
                            options(nostack, preserves_flags));
                    }
                }
            }
        };
    }

    word!(
        u8,
        reg_byte,
        "mov {word}, byte ptr [{at}]",
        "mov byte ptr [{at}], {word}"
    );
    word!(
        u16,
        reg,
        "mov {word:x}, word ptr [{at}]",
        "mov word ptr [{at}], {word:x}"
    );
    word!(
        u32,
        reg,
        "mov {word:e}, dword ptr [{at}]",
        "mov dword ptr [{at}], {word:e}"
    );
    word!(
        u64,
        reg,
        "mov {word:r}, qword ptr [{at}]",
        "mov qword ptr [{at}], {word:r}"
    );
    word!(
        __m128i,
        xmm_reg,
        "movdqu {word}, xmmword ptr [{at}]",
        "movdqu xmmword ptr [{at}], {word}"
    );

    /// Moves `len` bytes, more than `N - 1` words and at most `N`: the last word overlaps the one before.
    ///
    /// # Safety
    /// As for `memmove` of C.
    #[inline(always)]
    unsafe fn block<W: Word, const N: usize>(to: *mut u8, from: *const u8, len: usize) {
        let at = |i: usize| {
            if i + 1 < N {
                i * size_of::<W>()
            } else {
                len - size_of::<W>()
            }
        };
        // SAFETY: every word lies in the `len` bytes, because they are at least one word and `N - 1` whole ones.
        unsafe {
            let words: [W; N] = std::array::from_fn(|i| W::load(from.add(at(i))));
            for (i, word) in words.into_iter().enumerate() {
                word.store(to.add(at(i)));
            }
        }
    }

    /// # Safety
    /// Every block is mapped, those on the left writable, and accessed only atomically or opaquely by others.
    pub(super) unsafe fn blocks(
        to: *mut u8,
        stride: isize,
        from: *mut u8,
        from_stride: isize,
        blocks: usize,
        len: usize,
    ) {
        let (left, right) = ((to, stride), (from, from_stride));
        macro_rules! each {
            ($word:ty, $words:literal, $len:expr) => {
                // SAFETY: `walk` gives the blocks; the match chose `$words` for `len`.
                walk(left, right, blocks, |to, from| unsafe {
                    block::<$word, $words>(to, from, $len);
                })
            };
        }
        match len {
            1 => each!(u8, 1, 1),
            2 => each!(u16, 1, 2),
            3 => each!(u16, 2, 3),
            4 => each!(u32, 1, 4),
            5..8 => each!(u32, 2, len),
            8 => each!(u64, 1, 8),
            9..16 => each!(u64, 2, len),
            16 => each!(__m128i, 1, 16),
            32 => each!(__m128i, 2, 32),
            17..32 => each!(__m128i, 2, len),
            33..=48 => each!(__m128i, 3, len),
            64 => each!(__m128i, 4, 64),
            49..64 => each!(__m128i, 4, len),
            65..=80 => each!(__m128i, 5, len),
            81..=96 => each!(__m128i, 6, len),
            97..=112 => each!(__m128i, 7, len),
            113..=LONGEST => each!(__m128i, 8, len),
            // SAFETY: `walk` gives the blocks.
            _ => walk(left, right, blocks, |to, from| unsafe {
                move_shared(to, from, len)
            }),
        }
    }
}

#[cfg(any(not(target_arch = "x86_64"), miri))]
mod imp {
    use super::{move_shared, walk};

    /// # Safety
    /// Every block is mapped, those on the left writable, and accessed only atomically or opaquely by others.
    pub(super) unsafe fn blocks(
        to: *mut u8,
        stride: isize,
        from: *mut u8,
        from_stride: isize,
        blocks: usize,
        len: usize,
    ) {
        let (left, right) = ((to, stride), (from, from_stride));
        // SAFETY: `walk` gives the blocks.
        walk(left, right, blocks, |to, from| unsafe {
            move_shared(to, from, len)
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Loan, lend};

    fn heap(len: usize) -> (SharedBytes, Loan<Vec<u64>>) {
        lend(
            (0..len / 8)
                .map(|i| i as u64 * 0x0101_0307_0b0d_1113)
                .collect(),
        )
    }

    fn contents(bytes: &SharedBytes) -> Vec<u8> {
        let mut all = vec![0; bytes.len()];
        bytes.read(0, &mut all).unwrap();
        all
    }

    /// Numbers where range arithmetic goes wrong.
    fn edgy() -> impl Strategy<Value = i64> {
        let near = |base: i64| (0..6i64).prop_map(move |d| base.wrapping_add(d - 3));
        prop_oneof![
            any::<i64>(),
            -300..300i64,
            near(1 << 31),
            near(1 << 32),
            near(i64::MAX),
            near(0),
        ]
    }

    /// The interpreter is a thousand times slower.
    fn cases() -> ProptestConfig {
        let cases = if cfg!(miri) { 8 } else { 2000 };
        ProptestConfig {
            cases,
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn what_is_touched_agrees_with_wide_arithmetic(
            first in edgy(), stride in edgy(), blocks in edgy(), len in edgy(), size in 0..64usize,
        ) {
            let (bytes, _loan) = heap(size * 8);
            let (blocks, len) = (blocks as usize, len as usize);
            let steps = Steps { first: first as usize, stride: stride as isize };
            let refused = blocks > 0 && len > 0 && checked(&bytes, steps, blocks, len, true).is_err();
            // What saturates is far outside in either direction.
            let inside = |index: usize| {
                let at = i128::from(first as u64) + (index as i128).saturating_mul(i128::from(stride));
                at >= 0 && at.saturating_add(len as i128) <= bytes.len() as i128
            };
            // Offsets are monotonous, so the two ends decide.
            let model = blocks == 0 || len == 0 || (inside(0) && inside(blocks - 1));
            prop_assert_eq!(refused, !model, "{:?} {} x {}", steps, blocks, len);
        }

        #[test]
        fn blocks_move_as_in_a_plain_vector(
            to in (0..1024usize, -200..200isize),
            from in (0..1024usize, -200..200isize),
            blocks in 0..12usize,
            len in 0..150usize,
            same in any::<bool>(),
        ) {
            let (here, _loan) = heap(1024);
            let (there, _other) = heap(1024);
            there.fill(0, 512, 7).unwrap();
            let there = if same { here.clone() } else { there };
            let (mut model, source) = (contents(&here), contents(&there));
            let starts = |(first, stride): (usize, isize)| {
                (0..blocks as isize).map(move |i| first as isize + i * stride)
            };
            let inside = |at: isize| at >= 0 && at as usize + len <= 1024;
            let empty = blocks == 0 || len == 0;
            let fits = empty || starts(to).chain(starts(from)).all(inside);
            let (left, right) = (
                Steps { first: to.0, stride: to.1 },
                Steps { first: from.0, stride: from.1 },
            );
            let done = here.copy_blocks(left, &there, right, blocks, len);
            prop_assert_eq!(done.is_ok(), fits);
            if fits && !empty {
                for (to, from) in starts(to).zip(starts(from)) {
                    let (to, from) = (to as usize, from as usize);
                    // In order: a later block sees what an earlier one has written.
                    if same {
                        model.copy_within(from..from + len, to);
                    } else {
                        model[to..to + len].copy_from_slice(&source[from..from + len]);
                    }
                }
            }
            prop_assert_eq!(contents(&here), model);
        }
    }

    #[test]
    fn aligned_words_of_another_thread_are_not_torn() {
        use std::sync::atomic::Ordering::Relaxed;
        let (bytes, _loan) = heap(64);
        let (source, _other) = heap(64);
        bytes.fill(0, 64, 0).unwrap();
        let (steps, rounds) = (
            Steps {
                first: 0,
                stride: 16,
            },
            if cfg!(miri) { 20 } else { 20_000 },
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..rounds {
                    source.fill(0, 64, round as u8).unwrap();
                    bytes.copy_blocks(steps, &source, steps, 4, 8).unwrap();
                }
            });
            for _ in 0..rounds {
                let word = bytes.atomic_u64(16).unwrap().load(Relaxed);
                assert_eq!(word, u64::from(word as u8) * 0x0101_0101_0101_0101);
            }
        });
    }
}
