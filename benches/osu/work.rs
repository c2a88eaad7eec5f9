//! What one iteration does between the begin and the completion of its epoch: one type per benchmark.

use std::hint::black_box;

use windlass::layout::LayoutError;
use windlass::{Element, Epoch, Error, Kind, Layout, Op, Rank};

use crate::options::{Options, RUNS, spread};

/// The operations of an iteration, with the origin's buffers.
pub(crate) trait Work {
    type Element: Element + PartialEq;

    /// One iteration's operations of `size` bytes each.
    fn operate<K: Kind>(
        &mut self,
        epoch: &Epoch<'_, Self::Element, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error>;

    /// Makes the next iteration one whose outcome is known: what has to stand in the target's part
    /// before it.
    fn before(&mut self, _size: usize) -> Vec<Self::Element> {
        Vec::new()
    }

    /// What has to stand there after that iteration.
    fn after(&self, _size: usize) -> Vec<Self::Element> {
        Vec::new()
    }

    /// Elements that came to the origin otherwise than they should have.
    fn wrong(&self, _size: usize) -> usize {
        0
    }
}

/// Bytes that depend on size and place.
pub(crate) fn pattern(size: usize, len: usize) -> Vec<u8> {
    let byte = |at: usize| (at.wrapping_mul(167) ^ at >> 8 ^ size.wrapping_mul(59)) as u8;
    (0..len).map(byte).collect()
}

/// Elements that are not as expected.
pub(crate) fn differences<T: PartialEq>(found: &[T], expected: &[T]) -> usize {
    found.iter().zip(expected).filter(|(a, b)| a != b).count()
}

/// `burst` puts side by side, as many as fit, then again from the start.
pub(crate) struct Put<'a> {
    options: &'a Options,
    buffer: Vec<u8>,
}

impl<'a> Put<'a> {
    pub(crate) fn new(options: &'a Options) -> Self {
        let buffer = vec![2; options.buffer_bytes()];
        Self { options, buffer }
    }
}

impl Work for Put<'_> {
    type Element = u8;

    #[inline(always)]
    fn operate<K: Kind>(
        &mut self,
        epoch: &Epoch<'_, u8, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error> {
        let slots = self.options.slots(size);
        for put in 0..self.options.burst() {
            let at = put % slots * size;
            epoch.put(&self.buffer[at..at + size], target, at)?;
        }
        Ok(())
    }

    fn before(&mut self, size: usize) -> Vec<u8> {
        let used = self.options.slots(size) * size;
        self.buffer[..used].copy_from_slice(&pattern(size, used));
        vec![0; used]
    }

    fn after(&self, size: usize) -> Vec<u8> {
        pattern(size, self.options.slots(size) * size)
    }
}

/// A put of [`RUNS`] runs, two run lengths from one to the next at origin and target.
pub(crate) struct Strided {
    buffer: Vec<u8>,
    /// With the length of their runs.
    layouts: Vec<(usize, Layout)>,
}

impl Strided {
    pub(crate) fn new(options: &Options) -> Result<Self, LayoutError> {
        let layout = |size| {
            let (run, stride) = (size as u64, 2 * size as i64);
            Ok((size, Layout::of::<u8>().vector(RUNS as u64, run, stride)?))
        };
        Ok(Self {
            buffer: vec![2; options.buffer_bytes()],
            layouts: options.sizes().map(layout).collect::<Result<_, _>>()?,
        })
    }
}

/// Where the runs of a strided put begin.
pub(crate) fn runs(size: usize) -> impl Iterator<Item = usize> {
    (0..RUNS).map(move |run| 2 * size * run)
}

impl Work for Strided {
    type Element = u8;

    #[inline(always)]
    fn operate<K: Kind>(
        &mut self,
        epoch: &Epoch<'_, u8, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error> {
        let made = self.layouts.iter().filter(|made| made.0 == size);
        for (_, layout) in made {
            epoch.put_layout(&self.buffer, layout, target, 0, layout)?;
        }
        Ok(())
    }

    fn before(&mut self, size: usize) -> Vec<u8> {
        self.buffer[..spread(size)].copy_from_slice(&pattern(size, spread(size)));
        vec![0; spread(size)]
    }

    /// The gaps stay as they were.
    fn after(&self, size: usize) -> Vec<u8> {
        let (sent, mut after) = (pattern(size, spread(size)), vec![0; spread(size)]);
        for at in runs(size) {
            after[at..at + size].copy_from_slice(&sent[at..at + size]);
        }
        after
    }
}

/// One get.
pub(crate) struct Get {
    buffer: Vec<u8>,
}

impl Get {
    pub(crate) fn new(options: &Options) -> Self {
        let buffer = vec![2; options.buffer_bytes()];
        Self { buffer }
    }
}

impl Work for Get {
    type Element = u8;

    #[inline(always)]
    fn operate<K: Kind>(
        &mut self,
        epoch: &Epoch<'_, u8, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error> {
        epoch.get(&mut self.buffer[..size], target, 0)
    }

    fn before(&mut self, size: usize) -> Vec<u8> {
        self.buffer[..size].fill(0);
        pattern(size, size)
    }

    fn after(&self, size: usize) -> Vec<u8> {
        pattern(size, size)
    }

    fn wrong(&self, size: usize) -> usize {
        differences(&self.buffer[..size], &pattern(size, size))
    }
}

/// What the validated update finds.
const KNOWN: u64 = 41;

/// A fetch_and_op that adds one.
#[derive(Default)]
pub(crate) struct FetchAdd {
    old: u64,
}

impl Work for FetchAdd {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind>(
        &mut self,
        epoch: &Epoch<'_, u64, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        self.old = black_box(epoch.fetch_and_op(1, target, 0, Op::Sum)?);
        Ok(())
    }

    fn before(&mut self, _size: usize) -> Vec<u64> {
        vec![KNOWN]
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
pub(crate) struct CompareSwap {
    old: u64,
    compare: u64,
}

impl Work for CompareSwap {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind>(
        &mut self,
        epoch: &Epoch<'_, u64, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        let next = self.compare + 1;
        self.old = epoch.compare_and_swap(self.compare, next, target, 0)?;
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

    fn after(&self, _size: usize) -> Vec<u64> {
        vec![KNOWN + 1]
    }

    fn wrong(&self, _size: usize) -> usize {
        usize::from(self.old != KNOWN)
    }
}

/// Nothing: the synchronisation alone.
pub(crate) struct Nothing;

impl Work for Nothing {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind>(
        &mut self,
        _epoch: &Epoch<'_, u64, K>,
        _target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        Ok(())
    }
}

/// Puts of one 8-byte element each to `N` elements side by side: the length is known at compile time,
/// as in most programs.
#[derive(Default)]
pub(crate) struct PutWords<const N: usize> {
    value: u64,
}

impl<const N: usize> Work for PutWords<N> {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind>(
        &mut self,
        epoch: &Epoch<'_, u64, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        self.value += 1;
        for at in 0..N {
            epoch.put(&[self.value], target, at)?;
        }
        Ok(())
    }
}

/// The same for a get of one.
#[derive(Default)]
pub(crate) struct GetWord {
    word: [u64; 1],
}

impl Work for GetWord {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind>(
        &mut self,
        epoch: &Epoch<'_, u64, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        epoch.get(&mut self.word, target, 0)?;
        black_box(&mut self.word);
        Ok(())
    }
}
