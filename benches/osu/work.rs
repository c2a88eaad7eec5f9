//! What one iteration does between the begin and the completion of its epoch: one type per benchmark.

use std::hint::black_box;

use windlass::layout::LayoutError;
use windlass::{Element, Epoch, Error, Kind, Layout, Rank};
use windlass_launcher::measure::{Options, RUNS, spread};

use crate::pages::Pages;
use crate::place::Place;

/// The operations of an iteration, with the origin's buffers.
pub trait Work {
    /// What is put, got or updated.
    type Element: Element + PartialEq;

    /// Iterations of that size follow: what need not be done in each.
    fn begin(&mut self, _size: usize) {}

    /// One iteration's operations of `size` bytes each.
    fn operate<K: Kind, P: Place<Self::Element>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error>;

    /// Makes the next iteration one whose outcome is known: what has to stand in the target's part
    /// before it.
    fn before(&mut self, _size: usize) -> Vec<Self::Element> {
        Vec::new()
    }

    /// Makes that iteration a wrong one: changes what it sends, or what stands there before it.
    fn spoil(&mut self, _before: &mut [Self::Element]) {}

    /// What has to stand there after that iteration.
    fn after(&self, _size: usize) -> Vec<Self::Element> {
        Vec::new()
    }

    /// Elements that came to the origin otherwise than they should have.
    fn wrong(&self, _size: usize) -> usize {
        0
    }
}

/// What validated updates find, or add.
pub(crate) const KNOWN: u64 = 41;

/// Bytes that depend on size and place.
pub fn pattern(size: usize, len: usize) -> Vec<u8> {
    let byte = |at: usize| (at.wrapping_mul(167) ^ at >> 8 ^ size.wrapping_mul(59)) as u8;
    (0..len).map(byte).collect()
}

/// Elements that are not as expected.
pub fn differences<T: PartialEq>(found: &[T], expected: &[T]) -> usize {
    found.iter().zip(expected).filter(|(a, b)| a != b).count()
}

/// Where the operations of a burst go, one after the other: side by side as many as fit, then again from the start.
struct Burst<'a> {
    options: &'a Options,
    operations: usize,
    /// Bytes of all places of the present size.
    end: usize,
}

impl<'a> Burst<'a> {
    fn new(options: &'a Options) -> Self {
        Self {
            options,
            operations: options.burst(),
            end: 0,
        }
    }

    fn begin(&mut self, size: usize) {
        self.end = self.len(size);
    }

    /// The place of each operation.
    #[inline(always)]
    fn places(&self, size: usize) -> impl Iterator<Item = usize> + use<> {
        let end = self.end;
        let mut next = 0;
        (0..self.operations).map(move |_| {
            let at = next;
            next = if at + size == end { 0 } else { at + size };
            at
        })
    }

    /// Bytes of all places.
    fn len(&self, size: usize) -> usize {
        self.options.slots(size) * size
    }
}

/// A burst of puts; one alone where `BURST` is false, which the compiler then knows.
pub struct Put<'a, const BURST: bool> {
    burst: Burst<'a>,
    buffer: Pages,
}

impl<'a, const BURST: bool> Put<'a, BURST> {
    /// With a buffer for the largest size.
    pub fn new(options: &'a Options) -> Self {
        Self {
            burst: Burst::new(options),
            buffer: Pages::filled(options.buffer_bytes(), 2),
        }
    }
}

impl<const BURST: bool> Work for Put<'_, BURST> {
    type Element = u8;

    fn begin(&mut self, size: usize) {
        self.burst.begin(size);
    }

    #[inline(always)]
    fn operate<K: Kind, P: Place<u8>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error> {
        if !BURST {
            return place.put(epoch, &self.buffer[..size], target, 0);
        }
        for at in self.burst.places(size) {
            place.put(epoch, &self.buffer[at..at + size], target, at)?;
        }
        Ok(())
    }

    fn before(&mut self, size: usize) -> Vec<u8> {
        let used = self.burst.len(size);
        self.buffer[..used].copy_from_slice(&pattern(size, used));
        vec![0; used]
    }

    fn spoil(&mut self, _before: &mut [u8]) {
        self.buffer[0] ^= 1;
    }

    fn after(&self, size: usize) -> Vec<u8> {
        pattern(size, self.burst.len(size))
    }
}

/// A put of [`RUNS`] runs, two run lengths from one to the next at origin and target.
pub struct Strided {
    buffer: Pages,
    /// With the length of their runs.
    layouts: Vec<(usize, Layout)>,
}

impl Strided {
    /// With a layout for each size.
    pub fn new(options: &Options) -> Result<Self, LayoutError> {
        let layout = |size| {
            let (run, stride) = (size as u64, 2 * size as i64);
            Ok((size, Layout::of::<u8>().vector(RUNS as u64, run, stride)?))
        };
        Ok(Self {
            buffer: Pages::filled(options.buffer_bytes(), 2),
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
    fn operate<K: Kind, P: Place<u8>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error> {
        let made = self.layouts.iter().filter(|made| made.0 == size);
        for (_, layout) in made {
            place.put_layout(epoch, &self.buffer, layout, target)?;
        }
        Ok(())
    }

    fn before(&mut self, size: usize) -> Vec<u8> {
        self.buffer[..spread(size)].copy_from_slice(&pattern(size, spread(size)));
        vec![0; spread(size)]
    }

    fn spoil(&mut self, _before: &mut [u8]) {
        self.buffer[0] ^= 1;
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

/// The same of gets.
pub struct Get<'a, const BURST: bool> {
    burst: Burst<'a>,
    buffer: Pages,
}

impl<'a, const BURST: bool> Get<'a, BURST> {
    /// With a buffer for the largest size.
    pub fn new(options: &'a Options) -> Self {
        Self {
            burst: Burst::new(options),
            buffer: Pages::filled(options.buffer_bytes(), 2),
        }
    }
}

impl<const BURST: bool> Work for Get<'_, BURST> {
    type Element = u8;

    fn begin(&mut self, size: usize) {
        self.burst.begin(size);
    }

    #[inline(always)]
    fn operate<K: Kind, P: Place<u8>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        size: usize,
    ) -> Result<(), Error> {
        if !BURST {
            return place.get(epoch, &mut self.buffer[..size], target, 0);
        }
        for at in self.burst.places(size) {
            place.get(epoch, &mut self.buffer[at..at + size], target, at)?;
        }
        Ok(())
    }

    fn before(&mut self, size: usize) -> Vec<u8> {
        let used = self.burst.len(size);
        self.buffer[..used].fill(0);
        pattern(size, used)
    }

    fn spoil(&mut self, before: &mut [u8]) {
        before[0] ^= 1;
    }

    fn after(&self, size: usize) -> Vec<u8> {
        pattern(size, self.burst.len(size))
    }

    fn wrong(&self, size: usize) -> usize {
        let used = self.burst.len(size);
        differences(&self.buffer[..used], &pattern(size, used))
    }
}

/// Nothing: the synchronisation alone.
pub struct Nothing;

impl Work for Nothing {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind, P: Place<u64>>(
        &mut self,
        _place: &P,
        _epoch: &Epoch<'_, P::Of, K>,
        _target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        Ok(())
    }
}

/// A put of one 8-byte element: the length is known at compile time, as in most programs.
#[derive(Default)]
pub struct PutWord {
    value: u64,
}

impl Work for PutWord {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind, P: Place<u64>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        self.value += 1;
        place.put(epoch, &[self.value], target, 0)
    }
}

/// A burst of such puts, to elements side by side.
pub struct PutWords {
    value: u64,
    operations: usize,
}

impl PutWords {
    /// Of `-W` puts.
    pub fn new(options: &Options) -> Self {
        let operations = options.burst();
        Self {
            value: 0,
            operations,
        }
    }
}

impl Work for PutWords {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind, P: Place<u64>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        self.value += 1;
        for at in 0..self.operations {
            place.put(epoch, &[self.value], target, at)?;
        }
        Ok(())
    }

    fn before(&mut self, _size: usize) -> Vec<u64> {
        self.value = KNOWN;
        vec![0; self.operations]
    }

    fn spoil(&mut self, _before: &mut [u64]) {
        self.value += 1;
    }

    fn after(&self, _size: usize) -> Vec<u64> {
        vec![KNOWN + 1; self.operations]
    }
}

/// The same for a get of one.
#[derive(Default)]
pub struct GetWord {
    word: [u64; 1],
}

impl Work for GetWord {
    type Element = u64;

    #[inline(always)]
    fn operate<K: Kind, P: Place<u64>>(
        &mut self,
        place: &P,
        epoch: &Epoch<'_, P::Of, K>,
        target: Rank,
        _size: usize,
    ) -> Result<(), Error> {
        place.get(epoch, &mut self.word, target, 0)?;
        black_box(&mut self.word);
        Ok(())
    }
}
