//! The constructors: MPI's, under MPI's names.

use std::sync::Arc;

use super::form::{Form, Shown};
use super::shape::{Shape, Span, times};
use super::{Inner, Layout, LayoutError};

/// Which dimension of an array is the dense one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// The last: arrays of C. `MPI_ORDER_C`
    C,
    /// The first: arrays of Fortran. `MPI_ORDER_FORTRAN`
    Fortran,
}

impl Layout {
    /// `count` layouts, one extent apart. `MPI_Type_contiguous`
    ///
    /// # Errors
    /// As all constructors.
    pub fn contiguous(&self, count: u64) -> Result<Layout, LayoutError> {
        let shape = self.shape().repeat(count, self.extent().into())?;
        Layout::new(Form::Contiguous(count, self.clone()), shape, self.depth())
    }

    /// `count` blocks of `blocklength` layouts, `stride` *extents* from one block to the next.
    /// `MPI_Type_vector`
    ///
    /// # Errors
    /// As all constructors.
    pub fn vector(&self, count: u64, blocklength: u64, stride: i64) -> Result<Layout, LayoutError> {
        let form = Form::Vector("vector", count, blocklength, stride, self.clone());
        let stride = i128::from(stride) * i128::from(self.extent());
        self.blocks(form, count, blocklength, stride)
    }

    /// `count` blocks of `blocklength` layouts, `stride` *bytes* from one block to the next.
    /// `MPI_Type_create_hvector`
    ///
    /// # Errors
    /// As all constructors.
    pub fn hvector(
        &self,
        count: u64,
        blocklength: u64,
        stride: i64,
    ) -> Result<Layout, LayoutError> {
        let form = Form::Vector("hvector", count, blocklength, stride, self.clone());
        self.blocks(form, count, blocklength, stride.into())
    }

    fn blocks(
        &self,
        form: Form,
        count: u64,
        blocklength: u64,
        stride: i128,
    ) -> Result<Layout, LayoutError> {
        // Blocks that there are none of may be as long as they like.
        let block = self.part(if count > 0 { blocklength } else { 0 })?;
        Layout::new(form, block.repeat(count, stride)?, self.depth())
    }

    /// Blocks of a displacement in *extents* and a number of layouts. `MPI_Type_indexed`
    ///
    /// ```
    /// # use windlass::Layout;
    /// let upper = Layout::of::<f32>().indexed([(0, 3), (4, 2), (8, 1)])?; // of a 3 x 3 matrix
    /// assert_eq!(upper.times(1)?.runs().collect::<Vec<_>>(), [(0, 12), (16, 8), (32, 4)]);
    /// # Ok::<(), windlass::layout::LayoutError>(())
    /// ```
    ///
    /// # Errors
    /// As all constructors.
    pub fn indexed(
        &self,
        blocks: impl IntoIterator<Item = (i64, u64)>,
    ) -> Result<Layout, LayoutError> {
        self.listed("indexed", self.extent(), blocks)
    }

    /// Blocks of a displacement in *bytes* and a number of layouts. `MPI_Type_create_hindexed`
    ///
    /// # Errors
    /// As all constructors.
    pub fn hindexed(
        &self,
        blocks: impl IntoIterator<Item = (i64, u64)>,
    ) -> Result<Layout, LayoutError> {
        self.listed("hindexed", 1, blocks)
    }

    fn listed(
        &self,
        name: &'static str,
        unit: i64,
        blocks: impl IntoIterator<Item = (i64, u64)>,
    ) -> Result<Layout, LayoutError> {
        let mut shown = Shown::new();
        let blocks = blocks
            .into_iter()
            .inspect(|block| shown.note(|| *block))
            .map(|(displacement, count)| {
                let displacement = i128::from(displacement) * i128::from(unit);
                Ok((displacement, self.part(count)?))
            });
        let shape = Shape::join(blocks)?;
        let form = Form::Indexed(name, shown, self.clone());
        Layout::new(form, shape, self.depth())
    }

    /// Blocks of `blocklength` layouts at displacements in *extents*.
    /// `MPI_Type_create_indexed_block`
    ///
    /// # Errors
    /// As all constructors.
    pub fn indexed_block(
        &self,
        blocklength: u64,
        displacements: impl IntoIterator<Item = i64>,
    ) -> Result<Layout, LayoutError> {
        self.equal("indexed_block", self.extent(), blocklength, displacements)
    }

    /// Blocks of `blocklength` layouts at displacements in *bytes*.
    /// `MPI_Type_create_hindexed_block`
    ///
    /// # Errors
    /// As all constructors.
    pub fn hindexed_block(
        &self,
        blocklength: u64,
        displacements: impl IntoIterator<Item = i64>,
    ) -> Result<Layout, LayoutError> {
        self.equal("hindexed_block", 1, blocklength, displacements)
    }

    fn equal(
        &self,
        name: &'static str,
        unit: i64,
        blocklength: u64,
        displacements: impl IntoIterator<Item = i64>,
    ) -> Result<Layout, LayoutError> {
        let mut shown = Shown::new();
        let block = self.part(blocklength);
        let blocks = displacements
            .into_iter()
            .inspect(|displacement| shown.note(|| *displacement))
            .map(|displacement| {
                let displacement = i128::from(displacement) * i128::from(unit);
                Ok((displacement, block.clone()?))
            });
        let shape = Shape::join(blocks)?;
        let form = Form::IndexedBlock(name, blocklength, shown, self.clone());
        Layout::new(form, shape, self.depth())
    }

    /// `count` layouts one extent apart, to be placed.
    fn part(&self, count: u64) -> Result<Shape, LayoutError> {
        self.shape().repeat(count, self.extent().into())
    }

    /// The part of an array of `sizes` that has `subsizes` from `starts` on in each dimension.
    /// Its bounds are those of the array. `MPI_Type_create_subarray`, and empty ones too.
    ///
    /// ```
    /// # use windlass::{Layout, layout::Order};
    /// let inner = Layout::of::<u16>().subarray(&[4, 6], &[2, 4], &[1, 1], Order::C)?;
    /// assert_eq!(inner.times(1)?.runs().collect::<Vec<_>>(), [(14, 8), (26, 8)]);
    /// assert_eq!((inner.lb(), inner.extent()), (0, 48));
    /// # Ok::<(), windlass::layout::LayoutError>(())
    /// ```
    ///
    /// # Errors
    /// [`LayoutError::Dimensions`], [`LayoutError::Subarray`], and as all constructors.
    pub fn subarray(
        &self,
        sizes: &[u64],
        subsizes: &[u64],
        starts: &[u64],
        order: Order,
    ) -> Result<Layout, LayoutError> {
        let dimensions = sizes.len();
        if dimensions == 0 || subsizes.len() != dimensions || starts.len() != dimensions {
            return Err(LayoutError::Dimensions {
                sizes: dimensions,
                subsizes: subsizes.len(),
                starts: starts.len(),
            });
        }
        let is_empty = subsizes.contains(&0);
        let (mut shape, mut start) = (self.part(u64::from(!is_empty))?, 0_i128);
        // Bytes from one index of a dimension to the next, from the dense dimension outwards.
        let mut stride = i128::from(self.extent());
        for step in 0..dimensions {
            let dimension = match order {
                Order::C => dimensions - 1 - step,
                Order::Fortran => step,
            };
            let (size, subsize) = (sizes[dimension], subsizes[dimension]);
            let first = starts[dimension];
            if subsize > size || first > size - subsize {
                return Err(LayoutError::Subarray {
                    dimension,
                    size,
                    subsize,
                    start: first,
                });
            }
            shape = shape.repeat(subsize, stride)?;
            let skipped = times(first, stride)?;
            start = start.checked_add(skipped).ok_or(LayoutError::Bounds)?;
            stride = times(size, stride)?;
        }
        let mut shape = shape.shift(start)?;
        shape.marks = Some(Span { lo: 0, hi: stride });
        let form = Form::Subarray(
            sizes.into(),
            subsizes.into(),
            starts.into(),
            order,
            self.clone(),
        );
        Layout::new(form, shape, self.depth())
    }

    /// Different layouts: for each its displacement in bytes and how many, one extent apart.
    /// `MPI_Type_create_struct`
    ///
    /// ```
    /// # use windlass::Layout;
    /// let record = Layout::structure([
    ///     (0, 1, Layout::of::<f64>()),
    ///     (8, 3, Layout::of::<u8>()),
    /// ])?;
    /// assert_eq!((record.size(), record.extent()), (11, 16)); // the next f64 is aligned
    /// # Ok::<(), windlass::layout::LayoutError>(())
    /// ```
    ///
    /// # Errors
    /// As all constructors.
    pub fn structure(
        parts: impl IntoIterator<Item = (i64, u64, Layout)>,
    ) -> Result<Layout, LayoutError> {
        let (mut shown, mut depth) = (Shown::new(), 0);
        let parts = parts.into_iter().map(|(displacement, count, layout)| {
            shown.note(|| (displacement, count, layout.clone()));
            depth = depth.max(layout.depth());
            Ok((displacement.into(), layout.part(count)?))
        });
        let shape = Shape::join(parts)?;
        Layout::new(Form::Structure(shown), shape, depth)
    }

    /// The same data with other bounds: `lb` and `lb + extent`. These stay through other
    /// constructors: repeated, they move with the data, and beside them the bounds of parts that
    /// were not resized do not count. `MPI_Type_create_resized`
    ///
    /// # Errors
    /// As all constructors.
    pub fn resized(&self, lb: i64, extent: i64) -> Result<Layout, LayoutError> {
        let mut shape = self.shape();
        let lo = i128::from(lb);
        shape.marks = Some(Span {
            lo,
            hi: lo + i128::from(extent),
        });
        Layout::new(Form::Resized(lb, extent, self.clone()), shape, self.depth())
    }

    /// The same layout with the padding of its basic elements as data: what the accumulate
    /// family moves, which updates whole elements. Without padded elements the layout itself.
    pub fn with_padding(&self) -> Layout {
        let Some(solid) = &self.0.shape.solid else {
            return self.clone();
        };
        Layout(Arc::new(Inner {
            form: Form::WithPadding(self.clone()),
            shape: Shape {
                bytes: solid.plan.bytes(),
                data: Some(solid.clone()),
                solid: None,
                ..self.shape()
            },
            ..*self.0
        }))
    }
}
