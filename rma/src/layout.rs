//! Where the data of a transfer lie: MPI's derived datatypes, as runs of bytes.
//!
//! A [`Layout`] says which bytes, relative to some address, are data, in which order, and of
//! which basic elements. It is built from elements by the constructors of MPI's chapter on
//! datatypes, nested at will, and means the same: a *type map* of basic elements and
//! displacements, a lower and an upper bound, and an extent, which is the distance from one to
//! the next of several.
//!
//! ```
//! use windlass::Layout;
//!
//! // Every second column of 4 in a matrix of 3 rows and 8 columns, by rows.
//! let column = Layout::of::<f64>().vector(3, 1, 8)?;
//! let columns = column.resized(0, 16)?; // the next one begins two elements further
//! let both = columns.times(2)?;
//! assert_eq!(both.size(), 48);
//! let runs: Vec<_> = both.runs().collect();
//! assert_eq!(runs, [(0, 8), (64, 8), (128, 8), (16, 8), (80, 8), (144, 8)]);
//!
//! // What touches is one run, however it was made.
//! let row = Layout::of::<f64>().contiguous(4)?.contiguous(2)?;
//! assert!(row.is_contiguous());
//! assert_eq!(row.times(3)?.runs().collect::<Vec<_>>(), [(0, 192)]);
//! # Ok::<(), windlass::layout::LayoutError>(())
//! ```
//!
//! Relies on nothing but arithmetic: it touches no memory and knows no window.
//!
//! # Promises
//! - A layout is immutable and cheap to clone (which is `MPI_Type_dup`): keep a clone until the
//!   operation is complete, and the caller may drop his.
//! - Memory and the time of a constructor grow with its arguments, not with the elements; so do
//!   [`Signature`]s. Walking takes constant memory per level of nesting.
//! - All arithmetic is exact. Sizes, bounds and extents are at most 63 bits; what would not fit
//!   is a [`LayoutError`] of the constructor or of [`Layout::times`], so that whatever walks a
//!   layout need not check again.
//! - Order is that of the type map, also where displacements descend or overlap.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::element::Element;

mod basic;
mod construct;
mod counted;
mod form;
mod pack;
mod plan;
mod runs;
mod shape;
mod signature;
#[cfg(test)]
mod tests;

pub use basic::Basic;
pub use construct::Order;
pub use counted::{Counted, Strided};
pub use runs::{Runs, Zip};
pub use signature::Signature;

use form::Form;
use plan::{Blocks, Plan};
use shape::{Data, Shape};

/// How deep constructors may nest; walking goes down as deep.
pub const MAX_DEPTH: u32 = 512;

/// Why a layout cannot be. Nothing was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Too many bytes of data.
    #[error("a layout has at most 2^63 - 1 bytes of data")]
    Size,
    /// A bound, an extent or the displacement of a byte is too large.
    #[error("the bounds and extents of a layout are numbers of 64 bits with sign")]
    Bounds,
    /// Nested too deeply.
    #[error("layouts nest at most {MAX_DEPTH} deep")]
    Depth,
    /// A basic element that cannot be.
    #[error(
        "basic element {code:#x} needs a positive size, an alignment that is a power of two, \
         parts in order, and an extent of at most 2^63 - 1 bytes"
    )]
    Basic {
        /// Its number.
        code: u32,
    },
    /// The arguments of a subarray are not of one length, or empty.
    #[error(
        "a subarray has one size, subsize and start for each of its dimensions, \
         not {sizes}, {subsizes} and {starts}"
    )]
    Dimensions {
        /// Number of sizes.
        sizes: usize,
        /// Number of subsizes.
        subsizes: usize,
        /// Number of starts.
        starts: usize,
    },
    /// A subarray that is not inside the array.
    #[error("dimension {dimension} of {size} elements has no {subsize} from {start} on")]
    Subarray {
        /// The dimension, from 0.
        dimension: usize,
        /// Elements of the array in it.
        size: u64,
        /// Elements of the subarray in it.
        subsize: u64,
        /// The first of those.
        start: u64,
    },
}

/// Where data lie, in which order, and of which basic elements: an MPI datatype. See the
/// [module](self).
///
/// Counts and block lengths are numbers of layouts, offsets of bytes. Every constructor fails
/// with [`LayoutError::Size`], [`Bounds`](LayoutError::Bounds) or
/// [`Depth`](LayoutError::Depth) where the result would not fit.
#[derive(Clone)]
pub struct Layout(Arc<Inner>);

struct Inner {
    form: Form,
    shape: Shape,
    lb: i64,
    ub: i64,
    depth: u32,
}

impl Layout {
    /// One element of type `T`. With a zero-sized type this does not compile.
    ///
    /// ```
    /// # use windlass::Layout;
    /// assert_eq!(Layout::of::<[f32; 3]>().size(), 12);
    /// ```
    pub fn of<T: Element>() -> Layout {
        Layout::basic(Basic::of::<T>())
    }

    /// One basic element.
    pub fn basic(basic: Basic) -> Layout {
        let made = Shape::of(basic).and_then(|shape| Layout::new(Form::Basic(basic), shape, 0));
        made.expect("a basic element has an extent of 63 bits")
    }

    fn new(form: Form, shape: Shape, below: u32) -> Result<Layout, LayoutError> {
        let depth = below + 1;
        if depth > MAX_DEPTH {
            return Err(LayoutError::Depth);
        }
        let bounds = shape.check()?;
        Ok(Layout(Arc::new(Inner {
            form,
            shape,
            lb: bounds.lo as i64,
            ub: bounds.hi as i64,
            depth,
        })))
    }

    fn shape(&self) -> Shape {
        self.0.shape.clone()
    }

    fn depth(&self) -> u32 {
        self.0.depth
    }

    fn form(&self) -> &Form {
        &self.0.form
    }

    fn data(&self) -> Option<&Data> {
        self.0.shape.data.as_ref()
    }

    /// Bytes of data. `MPI_Type_size`
    pub fn size(&self) -> u64 {
        self.0.shape.bytes
    }

    /// Lower bound in bytes.
    pub fn lb(&self) -> i64 {
        self.0.lb
    }

    /// Upper bound in bytes.
    pub fn ub(&self) -> i64 {
        self.0.ub
    }

    /// Bytes from one to the next of several; may be 0 or negative. `MPI_Type_get_extent`
    pub fn extent(&self) -> i64 {
        self.0.ub - self.0.lb
    }

    /// Offset of the first byte that is touched; 0 if none is.
    pub fn true_lb(&self) -> i64 {
        self.data().map_or(0, |data| data.span.lo as i64)
    }

    /// Offset after the last byte that is touched; 0 if none is.
    pub fn true_ub(&self) -> i64 {
        self.data().map_or(0, |data| data.span.hi as i64)
    }

    /// Bytes between the true bounds. `MPI_Type_get_true_extent`
    pub fn true_extent(&self) -> i64 {
        self.true_ub() - self.true_lb()
    }

    /// Number of basic elements.
    pub fn elements(&self) -> u64 {
        self.signature().elements()
    }

    /// The kind of all basic elements, if they are of one kind: what the accumulate family asks
    /// for (mpi-rma 3).
    pub fn homogeneous(&self) -> Option<Basic> {
        self.signature().homogeneous()
    }

    /// Which basic elements, in order.
    pub fn signature(&self) -> &Signature {
        &self.0.shape.signature
    }

    /// Are several of these one run of bytes, whatever their number?
    pub fn is_contiguous(&self) -> bool {
        let Some(data) = self.data() else { return true };
        matches!(&data.plan, Plan::Blocks(Blocks { count: 1, len, .. })
            if i64::try_from(*len) == Ok(self.extent()))
    }

    /// Is this one run of bytes from offset 0 to its extent, so that several are memory without
    /// gaps?
    #[inline]
    pub fn is_dense(&self) -> bool {
        match self.data() {
            Some(data) => data.first == 0 && self.is_contiguous(),
            None => self.extent() == 0,
        }
    }

    /// Is this a clone of `other`, or one of as many of the same elements in the same dense form?
    #[inline]
    pub fn is_same(&self, other: &Layout) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.is_dense()
                && other.is_dense()
                && self.elements() == other.elements()
                && self
                    .homogeneous()
                    .is_some_and(|basic| other.homogeneous() == Some(basic)))
    }

    /// `count` of these, one extent apart, to be walked.
    ///
    /// # Errors
    /// [`LayoutError::Size`], [`LayoutError::Bounds`].
    #[inline]
    pub fn times(&self, count: u64) -> Result<Counted<'_>, LayoutError> {
        Counted::new(self, count)
    }

    /// The offsets between which `count` of these touch bytes, exact for every value; `None` if
    /// they touch none.
    ///
    /// ```
    /// # use windlass::Layout;
    /// let back = Layout::of::<u8>().resized(0, -4)?;
    /// assert_eq!(back.bounds(3), Some(-8..1));
    /// assert_eq!(back.bounds(0), None);
    /// # Ok::<(), windlass::layout::LayoutError>(())
    /// ```
    #[inline]
    pub fn bounds(&self, count: u64) -> Option<Range<i128>> {
        let last = count.checked_sub(1)?;
        let data = self.data()?;
        // At most 2^64 - 2 extents of at most 2^63: fits, also with the bounds added.
        let far = i128::from(last) * i128::from(self.extent());
        Some(data.span.lo + far.min(0)..data.span.hi + far.max(0))
    }

    /// Do `count` of these, applied `disp` bytes after the beginning of `extent` bytes, touch
    /// only those? Exact for every value. What touches nothing fits everywhere.
    #[inline]
    pub fn fits(&self, disp: i128, count: u64, extent: u64) -> bool {
        let Some(touched) = self.bounds(count) else {
            return true;
        };
        let lo = disp.checked_add(touched.start);
        let hi = disp.checked_add(touched.end);
        lo.is_some_and(|lo| lo >= 0) && hi.is_some_and(|hi| hi <= i128::from(extent))
    }
}

impl fmt::Display for Layout {
    /// The calls that made it: `f64.vector(3, 1, 8).resized(0, 16)`, the inner ones abridged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.form(), f)
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
