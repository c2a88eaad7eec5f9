//! Walking layouts step by step, from any position, one or two at once.

use std::iter::FusedIterator;

use super::Counted;
use super::plan::{Blocks, Part, Plan};

impl<'a> Counted<'a> {
    /// The runs that [`for_each_run`](Self::for_each_run) gives, as an iterator of offset and
    /// length in bytes.
    #[inline]
    pub fn runs(&self) -> Runs<'a> {
        self.runs_from(0)
    }

    /// The runs of the data without the first `position` bytes. Takes time in the depth of the
    /// layout and the logarithm of its lists, not in the runs left out.
    #[inline]
    pub fn runs_from(&self, position: u64) -> Runs<'a> {
        let mut runs = Runs {
            held: (0, 0),
            at: 0,
            left: 0,
            stride: 0,
            len: 0,
            frames: Frames::new(),
        };
        let Some(data) = self.data().filter(|_| position < self.size()) else {
            return runs;
        };
        let (first, extent) = (data.first as i64, self.layout().extent());
        if let Plan::Blocks(blocks) = &data.plan
            && let Some(blocks) = blocks.repeat(self.count(), extent)
        {
            runs.enter_blocks(&blocks, first, position);
        } else {
            let (index, skip) = split(position, self.layout().size());
            let at = ahead(first, extent, index);
            runs.frames.push(Frame::Loop {
                body: &data.plan,
                at: at.wrapping_add(extent),
                stride: extent,
                left: self.count() - index - 1,
            });
            runs.enter(&data.plan, at, skip);
        }
        if runs.held.1 == 0 {
            runs.held = runs.step().unwrap_or((0, 0));
        }
        runs
    }

    /// Both sides of a transfer together: pieces that lie in one run on either side, as large as
    /// they can be. Ends where the shorter side ends. Where one side is one run,
    /// [`for_each_run`](Self::for_each_run) of the other is quicker.
    #[inline]
    pub fn zip(&self, other: &Counted<'a>) -> Zip<'a> {
        let (mut a, mut b) = (self.runs(), other.runs());
        let (run_a, run_b) = (a.next(), b.next());
        Zip { a, b, run_a, run_b }
    }
}

/// `position` in rounds of `bytes`, and what remains.
#[inline(always)]
fn split(position: u64, bytes: u64) -> (u64, u64) {
    if position < bytes {
        (0, position)
    } else {
        (position / bytes, position % bytes)
    }
}

/// Where round `index` lies. Every round that exists has an offset that fits; one beyond the
/// last, which is never used, may not.
#[inline(always)]
fn ahead(at: i64, stride: i64, index: u64) -> i64 {
    at.wrapping_add(stride.wrapping_mul(index as i64))
}

/// The runs of [`Counted`] layouts: offset and length in bytes, in the order of the type map.
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    /// The run to give next unless the following one touches it; of length 0 at the end.
    held: (i64, u64),
    /// The blocks being walked.
    at: i64,
    left: u64,
    stride: i64,
    len: u64,
    frames: Frames<'a>,
}

/// A loop or list that was entered, and what is left of it.
#[derive(Debug, Clone, Copy)]
enum Frame<'a> {
    Loop {
        body: &'a Plan,
        at: i64,
        stride: i64,
        left: u64,
    },
    List {
        rest: &'a [Part],
        base: i64,
    },
}

/// A stack that allocates only for layouts nested deeper than usual.
#[derive(Debug, Clone)]
struct Frames<'a> {
    near: [Frame<'a>; 4],
    len: usize,
    /// What lies above `near`.
    far: Vec<Frame<'a>>,
}

impl<'a> Frames<'a> {
    #[inline(always)]
    fn new() -> Frames<'a> {
        Frames {
            near: [Frame::List { rest: &[], base: 0 }; 4],
            len: 0,
            far: Vec::new(),
        }
    }

    #[inline]
    fn push(&mut self, frame: Frame<'a>) {
        if let Some(place) = self.near.get_mut(self.len) {
            *place = frame;
            self.len += 1;
        } else {
            self.far.push(frame);
        }
    }

    #[inline]
    fn last_mut(&mut self) -> Option<&mut Frame<'a>> {
        match self.far.last_mut() {
            Some(frame) => Some(frame),
            None => self.near[..self.len].last_mut(),
        }
    }

    #[inline]
    fn pop(&mut self) {
        if self.far.pop().is_none() {
            self.len = self.len.saturating_sub(1);
        }
    }
}

impl<'a> Runs<'a> {
    #[inline(always)]
    fn enter_blocks(&mut self, blocks: &Blocks, at: i64, skip: u64) {
        let (index, inside) = split(skip, blocks.len);
        self.at = ahead(at, blocks.stride, index);
        self.left = blocks.count - index;
        self.stride = blocks.stride;
        self.len = blocks.len;
        // Only the first blocks ever entered are entered in the middle.
        if inside > 0 {
            self.held = (self.at + inside as i64, self.len - inside);
            self.at = self.at.wrapping_add(self.stride);
            self.left -= 1;
        }
    }

    /// Goes down to the blocks that hold byte `skip` of `plan`.
    fn enter(&mut self, mut plan: &'a Plan, mut at: i64, mut skip: u64) {
        loop {
            match plan {
                Plan::Blocks(blocks) => return self.enter_blocks(blocks, at, skip),
                Plan::Loop(nest) => {
                    let (index, rest) = split(skip, nest.bytes);
                    at = ahead(at, nest.stride, index);
                    self.frames.push(Frame::Loop {
                        body: &nest.body,
                        at: at.wrapping_add(nest.stride),
                        stride: nest.stride,
                        left: nest.count - index - 1,
                    });
                    (plan, skip) = (&nest.body, rest);
                }
                Plan::List(list) => {
                    let after = match skip {
                        0 => 1,
                        _ => list.parts.partition_point(|part| part.start <= skip),
                    };
                    let (begun, rest) = list.parts.split_at(after);
                    self.frames.push(Frame::List { rest, base: at });
                    let Some(part) = begun.last() else { return };
                    (plan, at, skip) = (&part.plan, at + part.offset, skip - part.start);
                }
            }
        }
    }

    /// Goes on to the next blocks, if there are any.
    #[inline(never)]
    fn refill(&mut self) -> bool {
        while let Some(frame) = self.frames.last_mut() {
            let (plan, here) = match frame {
                Frame::Loop {
                    body,
                    at,
                    stride,
                    left,
                } if *left > 0 => {
                    let here = *at;
                    *at = here.wrapping_add(*stride);
                    *left -= 1;
                    (*body, here)
                }
                Frame::List {
                    rest: [part, others @ ..],
                    base,
                } => {
                    let here = *base + part.offset;
                    *frame = Frame::List {
                        rest: others,
                        base: *base,
                    };
                    (&part.plan, here)
                }
                _ => {
                    self.frames.pop();
                    continue;
                }
            };
            self.enter(plan, here, 0);
            return true;
        }
        false
    }

    /// The next run, not yet joined.
    #[inline(always)]
    fn step(&mut self) -> Option<(i64, u64)> {
        if self.left == 0 && !self.refill() {
            return None;
        }
        let run = (self.at, self.len);
        self.at = self.at.wrapping_add(self.stride);
        self.left -= 1;
        Some(run)
    }
}

impl Iterator for Runs<'_> {
    type Item = (i64, u64);

    #[inline]
    fn next(&mut self) -> Option<(i64, u64)> {
        let (at, mut len) = self.held;
        if len == 0 {
            return None;
        }
        loop {
            match self.step() {
                Some((next, more)) if next == at.wrapping_add(len as i64) => len += more,
                Some(run) => {
                    self.held = run;
                    return Some((at, len));
                }
                None => {
                    self.held.1 = 0;
                    return Some((at, len));
                }
            }
        }
    }
}

impl FusedIterator for Runs<'_> {}

/// The pieces of two layouts that are copied to each other: offset on either side, and length in
/// bytes.
#[derive(Debug, Clone)]
pub struct Zip<'a> {
    a: Runs<'a>,
    b: Runs<'a>,
    run_a: Option<(i64, u64)>,
    run_b: Option<(i64, u64)>,
}

impl Iterator for Zip<'_> {
    type Item = (i64, i64, u64);

    #[inline]
    fn next(&mut self) -> Option<(i64, i64, u64)> {
        let ((at_a, len_a), (at_b, len_b)) = (self.run_a?, self.run_b?);
        let len = len_a.min(len_b);
        let rest = |(at, whole): (i64, u64)| {
            (whole > len).then(|| (at.wrapping_add(len as i64), whole - len))
        };
        self.run_a = rest((at_a, len_a)).or_else(|| self.a.next());
        self.run_b = rest((at_b, len_b)).or_else(|| self.b.next());
        Some((at_a, at_b, len))
    }
}

impl FusedIterator for Zip<'_> {}
