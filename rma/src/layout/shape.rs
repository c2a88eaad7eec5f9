//! The arithmetic of constructors: bounds, extents, sizes and plans of repeated, shifted and
//! joined type maps, as the MPI standard's chapter on datatypes defines them.
//!
//! Offsets are 128 bits wide here: what is out of range may come back by a shift, so only
//! [`check`](Shape::check) says whether a finished layout can be.

use super::plan::{Plan, Sequence};
use super::signature::{self, Signature};
use super::{Basic, LayoutError};

/// A number of bytes of data, if it is one that a layout may have.
pub(super) fn size(bytes: u128) -> Result<u64, LayoutError> {
    let bytes = u64::try_from(bytes).ok();
    bytes
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or(LayoutError::Size)
}

/// The product of two numbers of bytes or elements.
pub(super) fn product(a: u64, b: u64) -> Result<u64, LayoutError> {
    size(u128::from(a) * u128::from(b))
}

fn plus(a: i128, b: i128) -> Result<i128, LayoutError> {
    a.checked_add(b).ok_or(LayoutError::Bounds)
}

pub(super) fn times(count: u64, stride: i128) -> Result<i128, LayoutError> {
    let count = i128::from(count);
    count.checked_mul(stride).ok_or(LayoutError::Bounds)
}

/// An interval of byte offsets, the end excluded; a marked one may end before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub lo: i128,
    pub hi: i128,
}

impl Span {
    fn shift(self, by: i128) -> Result<Span, LayoutError> {
        Ok(Span {
            lo: plus(self.lo, by)?,
            hi: plus(self.hi, by)?,
        })
    }

    fn join(self, other: Span) -> Span {
        Span {
            lo: self.lo.min(other.lo),
            hi: self.hi.max(other.hi),
        }
    }

    /// Around `count` of these, at least 1, `stride` bytes apart.
    fn repeat(self, count: u64, stride: i128) -> Result<Span, LayoutError> {
        Ok(self.join(self.shift(times(count - 1, stride)?)?))
    }

    /// Do both ends and their difference fit?
    pub fn check(self) -> Result<(), LayoutError> {
        let fits = |value: i128| i64::try_from(value).is_ok();
        if fits(self.lo) && fits(self.hi) && fits(self.hi - self.lo) {
            Ok(())
        } else {
            Err(LayoutError::Bounds)
        }
    }
}

/// Data: where they lie. There is at least one byte.
#[derive(Debug, Clone)]
pub(super) struct Data {
    /// Every byte that is touched: the true bounds.
    pub span: Span,
    /// The first byte in the order of the type map.
    pub first: i128,
    pub plan: Plan,
}

impl Data {
    fn shift(self, by: i128) -> Result<Data, LayoutError> {
        Ok(Data {
            span: self.span.shift(by)?,
            first: plus(self.first, by)?,
            plan: self.plan,
        })
    }

    fn repeat(self, count: u64, stride: i128) -> Result<Data, LayoutError> {
        product(self.plan.bytes(), count)?;
        let span = self.span.repeat(count, stride)?;
        if count == 1 {
            return Ok(self);
        }
        // A stride between touched bytes is less than the true extent, which must fit.
        let stride = i64::try_from(stride).map_err(|_| LayoutError::Bounds)?;
        Ok(Data {
            span,
            first: self.first,
            plan: self.plan.repeat(count, stride),
        })
    }
}

/// A type map without its list of elements.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Bytes of data.
    pub bytes: u64,
    pub data: Option<Data>,
    /// The same with the padding of basic elements, if any has padding.
    pub solid: Option<Data>,
    /// Lower and upper bound, where a resize or a subarray has set them. Marks stay: they
    /// repeat and shift with what they mark, and hide the natural bounds.
    pub marks: Option<Span>,
    /// The strictest alignment of an element.
    pub align: u64,
    pub signature: Signature,
}

impl Shape {
    fn empty() -> Shape {
        Shape {
            bytes: 0,
            data: None,
            solid: None,
            marks: None,
            align: 1,
            signature: Signature::empty(),
        }
    }

    pub fn of(basic: Basic) -> Result<Shape, LayoutError> {
        let mut pieces = Sequence::default();
        let mut end = 0;
        for (offset, len) in basic.pieces() {
            pieces.push(i128::from(offset), Plan::block(len))?;
            end = offset + len;
        }
        let data = |end: u64, (first, plan)| Data {
            span: Span {
                lo: 0,
                hi: i128::from(end),
            },
            first,
            plan,
        };
        let whole = (0, Plan::block(basic.extent()));
        Ok(Shape {
            bytes: basic.size(),
            data: pieces.finish().map(|pieces| data(end, pieces)),
            solid: basic.is_padded().then(|| data(basic.extent(), whole)),
            marks: None,
            align: basic.align(),
            signature: Signature::one(basic),
        })
    }

    /// Lower and upper bound: the marked ones, else the first byte and the last, rounded up so
    /// that the next one would be aligned.
    pub fn bounds(&self) -> Result<Span, LayoutError> {
        if let Some(marks) = self.marks {
            return Ok(marks);
        }
        let Some(data) = &self.data else {
            return Ok(Span { lo: 0, hi: 0 });
        };
        let Span { lo, hi } = data.span;
        let align = i128::from(self.align);
        let extent = plus(plus(hi, -lo)?, align - 1)? / align * align;
        Ok(Span {
            lo,
            hi: plus(lo, extent)?,
        })
    }

    /// `count` of this, `stride` bytes apart.
    pub fn repeat(self, count: u64, stride: i128) -> Result<Shape, LayoutError> {
        if count == 0 {
            return Ok(Shape::empty());
        }
        let data = |data: Option<Data>| data.map(|data| data.repeat(count, stride)).transpose();
        Ok(Shape {
            bytes: product(self.bytes, count)?,
            data: data(self.data)?,
            solid: data(self.solid)?,
            marks: self
                .marks
                .map(|marks| marks.repeat(count, stride))
                .transpose()?,
            align: self.align,
            signature: self.signature.repeat(count),
        })
    }

    /// The whole moved by `by` bytes.
    pub fn shift(self, by: i128) -> Result<Shape, LayoutError> {
        let data = |data: Option<Data>| data.map(|data| data.shift(by)).transpose();
        Ok(Shape {
            data: data(self.data)?,
            solid: data(self.solid)?,
            marks: self.marks.map(|marks| marks.shift(by)).transpose()?,
            ..self
        })
    }

    /// The parts one after the other, each moved by its displacement in bytes.
    pub fn join(
        parts: impl Iterator<Item = Result<(i128, Shape), LayoutError>>,
    ) -> Result<Shape, LayoutError> {
        let mut whole = Shape::empty();
        let mut signature = signature::Builder::default();
        let (mut data, mut solid) = (Joined::default(), None::<Joined>);
        for part in parts {
            let (displacement, part) = part?;
            let part = part.shift(displacement)?;
            whole.bytes = size(u128::from(whole.bytes) + u128::from(part.bytes))?;
            whole.align = whole.align.max(part.align);
            whole.marks = match (whole.marks, part.marks) {
                (Some(a), Some(b)) => Some(a.join(b)),
                (a, b) => a.or(b),
            };
            signature.push(&part.signature);
            let Some(pieces) = part.data else { continue };
            // Up to the first padded part, both are the same.
            if part.solid.is_some() && solid.is_none() {
                solid = Some(data.clone());
            }
            if let Some(solid) = &mut solid {
                solid.push(part.solid.unwrap_or_else(|| pieces.clone()))?;
            }
            data.push(pieces)?;
        }
        whole.data = data.finish();
        whole.solid = solid.and_then(Joined::finish);
        whole.signature = signature.finish();
        Ok(whole)
    }

    /// Bounds that fit. Every offset that is touched then fits too.
    ///
    /// # Errors
    /// [`LayoutError::Bounds`].
    pub fn check(&self) -> Result<Span, LayoutError> {
        for data in [&self.data, &self.solid].into_iter().flatten() {
            data.span.check()?;
        }
        let bounds = self.bounds()?;
        bounds.check()?;
        Ok(bounds)
    }
}

/// Data being joined.
#[derive(Clone, Default)]
struct Joined {
    span: Option<Span>,
    plans: Sequence,
}

impl Joined {
    fn push(&mut self, data: Data) -> Result<(), LayoutError> {
        self.span = Some(self.span.map_or(data.span, |span| span.join(data.span)));
        self.plans.push(data.first, data.plan)
    }

    fn finish(self) -> Option<Data> {
        let (first, plan) = self.plans.finish()?;
        Some(Data {
            span: self.span?,
            first,
            plan,
        })
    }
}
