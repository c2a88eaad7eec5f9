//! Iterations of one update: see `work.rs`.

use std::hint::black_box;

use windlass::{Epoch, Error, Kind, Rank};
use windlass_launcher::measure::Options;

use crate::place::Place;
use crate::work::{KNOWN, Work, differences};

const WORD: usize = size_of::<u64>();

/// Words that depend on size and place.
fn words(size: usize) -> Vec<u64> {
    (0..size / WORD).map(|at| (size + 3 * at) as u64).collect()
}

/// A sum of words, and what they were where that is wanted.
pub struct Accumulate {
    operand: Vec<u64>,
    old: Option<Vec<u64>>,
}

impl Accumulate {
    /// Of as many words as the largest size has.
    pub fn new(options: &Options, fetches: bool) -> Self {
        let operand = vec![1; options.buffer_bytes().div_ceil(WORD)];
        let old = fetches.then(|| operand.clone());
        Self { operand, old }
    }
}

impl Work for Accumulate {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind, P: Place<u64>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error> {
        let operand = &self.operand[..size / WORD];
        match &mut self.old {
            Some(old) => place.get_and_add(epoch, operand, &mut old[..size / WORD], target),
            None => place.add(epoch, operand, target),
        }
    }

    fn before(&mut self, size: usize) -> Vec<u64> {
        self.operand.fill(KNOWN);
        words(size)
    }

    fn spoil(&mut self, before: &mut [u64]) {
        before[0] ^= 1;
    }

    fn after(&self, size: usize) -> Vec<u64> {
        words(size).into_iter().map(|word| word + KNOWN).collect()
    }

    fn wrong(&self, size: usize) -> usize {
        let old = self.old.iter();
        old.map(|old| differences(&old[..size / WORD], &words(size)))
            .sum()
    }
}

/// A fetch_and_op that adds one.
#[derive(Default)]
pub struct FetchAdd {
    old: u64,
}

impl Work for FetchAdd {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind, P: Place<u64>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        self.old = black_box(place.fetch_and_add(epoch, 1, target)?);
        Ok(())
    }

    fn before(&mut self, _size: usize) -> Vec<u64> {
        vec![KNOWN]
    }

    fn spoil(&mut self, before: &mut [u64]) {
        before[0] ^= 1;
    }

    fn after(&self, _size: usize) -> Vec<u64> {
        vec![KNOWN + 1]
    }

    fn wrong(&self, _size: usize) -> usize {
        usize::from(self.old != KNOWN)
    }
}

/// A compare_and_swap that succeeds, unless another rank was faster.
#[derive(Default)]
pub struct CompareSwap {
    old: u64,
    compare: u64,
}

impl Work for CompareSwap {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind, P: Place<u64>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        let next = self.compare + 1;
        self.old = place.compare_and_swap(epoch, self.compare, next, target)?;
        self.compare = if self.old == self.compare {
            next
        } else {
            self.old
        };
        Ok(())
    }

    fn before(&mut self, _size: usize) -> Vec<u64> {
        self.compare = KNOWN;
        vec![KNOWN]
    }

    fn spoil(&mut self, before: &mut [u64]) {
        before[0] ^= 1;
    }

    fn after(&self, _size: usize) -> Vec<u64> {
        vec![KNOWN + 1]
    }

    fn wrong(&self, _size: usize) -> usize {
        usize::from(self.old != KNOWN)
    }
}
