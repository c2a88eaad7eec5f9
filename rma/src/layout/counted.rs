//! Several layouts one after the other: their bytes as runs, in the order of the type map,
//! without a list of them.

use std::ops::ControlFlow;

use super::plan::{Blocks, Plan};
use super::shape::{Data, Span, product};
use super::{Layout, LayoutError, Signature};

/// `count` layouts, each one extent after the other: what MPI writes as count and datatype.
///
/// Made by [`Layout::times`], which has checked that every offset and the number of bytes fit in
/// 63 bits. Offsets are relative to the address that the layout is applied to.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    layout: &'a Layout,
    count: u64,
}

/// Equal blocks of bytes, equally far apart: for copy loops without a call per run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided {
    /// Number of blocks.
    pub blocks: u64,
    /// Bytes of each.
    pub block_bytes: u64,
    /// Bytes from the beginning of one to that of the next; may be negative.
    pub stride: i64,
    /// Offset of the first block.
    pub first: i64,
}

impl Strided {
    /// Are there bytes that belong to several blocks?
    pub fn overlaps_itself(&self) -> bool {
        self.blocks > 1 && self.stride.unsigned_abs() < self.block_bytes
    }
}

impl<'a> Counted<'a> {
    pub(super) fn new(layout: &'a Layout, count: u64) -> Result<Counted<'a>, LayoutError> {
        if count > 1 {
            product(layout.size(), count)?;
            if let Some(touched) = layout.bounds(count) {
                let span = Span {
                    lo: touched.start,
                    hi: touched.end,
                };
                span.check()?;
            }
        }
        Ok(Counted { layout, count })
    }

    /// The layout.
    pub fn layout(&self) -> &'a Layout {
        self.layout
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of data.
    pub fn size(&self) -> u64 {
        self.layout.size() * self.count
    }

    /// Number of basic elements.
    pub fn elements(&self) -> u64 {
        self.layout.elements() * self.count
    }

    /// Which basic elements, in order.
    pub fn signature(&self) -> Signature {
        self.layout.signature().repeat(self.count)
    }

    /// Where the data lie, if there are any.
    pub(super) fn data(&self) -> Option<&'a Data> {
        self.layout.data().filter(|_| self.count > 0)
    }

    /// The whole as equally spaced equal blocks, if it is that; contiguous data are one block,
    /// no data are none.
    #[inline]
    pub fn as_strided(&self) -> Option<Strided> {
        let Some(data) = self.data() else {
            return Some(Strided {
                blocks: 0,
                block_bytes: 0,
                stride: 0,
                first: 0,
            });
        };
        let Plan::Blocks(blocks) = &data.plan else {
            return None;
        };
        let blocks = blocks.repeat(self.count, self.layout.extent())?;
        Some(Strided {
            blocks: blocks.count,
            block_bytes: blocks.len,
            stride: blocks.stride,
            first: data.first as i64,
        })
    }

    /// Calls `each` for every run, in the order of the type map, with its offset and its length
    /// in bytes, and how many bytes of data lie before it: its place in packed data. Neighbours
    /// in this order that touch are one run. Allocates nothing.
    ///
    /// A break ends the walk and is returned.
    #[inline]
    pub fn for_each_run<B>(
        &self,
        mut each: impl FnMut(i64, u64, u64) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(strided) = self.as_strided() {
            let (mut at, mut position) = (strided.first, 0);
            for _ in 0..strided.blocks {
                each(at, strided.block_bytes, position)?;
                at = at.wrapping_add(strided.stride);
                position += strided.block_bytes;
            }
            return ControlFlow::Continue(());
        }
        let Some(data) = self.data() else {
            return ControlFlow::Continue(());
        };
        let mut joining = Joining {
            held: (0, 0),
            position: 0,
            each,
        };
        let mut at = data.first as i64;
        for _ in 0..self.count {
            joining.walk(&data.plan, at)?;
            at = at.wrapping_add(self.layout.extent());
        }
        joining.give()
    }
}

/// Internal iteration: keeps back one run, because the next may touch it.
struct Joining<F> {
    held: (i64, u64),
    /// Bytes of data before the run that is kept back.
    position: u64,
    each: F,
}

impl<B, F: FnMut(i64, u64, u64) -> ControlFlow<B>> Joining<F> {
    fn walk(&mut self, plan: &Plan, at: i64) -> ControlFlow<B> {
        match plan {
            Plan::Blocks(blocks) => self.blocks(blocks, at),
            Plan::Loop(nest) => {
                let mut at = at;
                for _ in 0..nest.count {
                    self.walk(&nest.body, at)?;
                    at = at.wrapping_add(nest.stride);
                }
                ControlFlow::Continue(())
            }
            Plan::List(list) => {
                for part in &list.parts {
                    self.walk(&part.plan, at + part.offset)?;
                }
                ControlFlow::Continue(())
            }
        }
    }

    #[inline(always)]
    fn blocks(&mut self, blocks: &Blocks, at: i64) -> ControlFlow<B> {
        let (held, len) = self.held;
        if held.wrapping_add(len as i64) == at && len > 0 {
            self.held.1 += blocks.len;
        } else {
            self.give()?;
            self.held = (at, blocks.len);
        }
        if blocks.count > 1 {
            // Blocks of one plan do not touch: only the last may touch what follows.
            self.give()?;
            let (mut at, mut position) = (at, self.position);
            for _ in 2..blocks.count {
                at = at.wrapping_add(blocks.stride);
                (self.each)(at, blocks.len, position)?;
                position += blocks.len;
            }
            self.position = position;
            self.held = (at.wrapping_add(blocks.stride), blocks.len);
        }
        ControlFlow::Continue(())
    }

    #[inline(always)]
    fn give(&mut self) -> ControlFlow<B> {
        let (at, len) = self.held;
        if len > 0 {
            (self.each)(at, len, self.position)?;
            self.position += len;
        }
        ControlFlow::Continue(())
    }
}
