//! The normalised loop nest of a layout: where its data lie, in the order of the type map.
//!
//! A plan is built once, by the constructors, and then only read. It grows with the arguments of
//! the constructors, never with the elements: a nest of loops is as small as the calls that made
//! it, a list has one part for each of its blocks.
//!
//! Every plan touches at least one byte, and its first byte lies at offset 0: so plans of
//! equal form are equal wherever they lie. All offsets inside one fit in an `i64`, because the
//! layout's true extent does.

use std::sync::Arc;

use super::LayoutError;

#[derive(Debug, Clone)]
pub(super) enum Plan {
    /// The innermost loop.
    Blocks(Blocks),
    /// At least two of something that is not one block.
    Loop(Arc<Loop>),
    /// At least two things without a common rule.
    List(Arc<List>),
}

/// `count` blocks of `len` bytes, `stride` bytes from one to the next. More than one do not
/// touch each other; of one, the stride is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocks {
    pub count: u64,
    pub stride: i64,
    pub len: u64,
}

#[derive(Debug)]
pub(super) struct Loop {
    pub count: u64,
    pub stride: i64,
    /// Bytes of data of one round.
    pub bytes: u64,
    pub body: Plan,
}

#[derive(Debug)]
pub(super) struct List {
    pub parts: Vec<Part>,
    /// Bytes of data of all parts.
    bytes: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub offset: i64,
    /// Bytes of data before this part.
    pub start: u64,
    pub plan: Plan,
}

impl Blocks {
    /// `count` of these, `stride` bytes apart, if those are again equal blocks. The number of
    /// bytes fits in 63 bits.
    #[inline]
    pub fn repeat(self, count: u64, stride: i64) -> Option<Blocks> {
        if count == 1 {
            Some(self)
        } else if self.count > 1 {
            let goes_on = i128::from(self.stride) * i128::from(self.count) == i128::from(stride);
            goes_on.then(|| Blocks {
                count: self.count * count,
                ..self
            })
        } else if i128::from(stride) == i128::from(self.len) {
            Some(Blocks {
                len: self.len * count,
                ..self
            })
        } else {
            Some(Blocks {
                count,
                stride,
                len: self.len,
            })
        }
    }
}

impl Plan {
    /// `len` bytes in one piece.
    pub fn block(len: u64) -> Plan {
        debug_assert!(len > 0, "a plan touches something");
        Plan::Blocks(Blocks {
            count: 1,
            stride: 0,
            len,
        })
    }

    /// Bytes of data.
    pub fn bytes(&self) -> u64 {
        match self {
            Plan::Blocks(blocks) => blocks.count * blocks.len,
            Plan::Loop(nest) => nest.count * nest.bytes,
            Plan::List(list) => list.bytes,
        }
    }

    /// `count` of this, at least 1, `stride` bytes apart. The number of bytes fits in 63 bits.
    pub fn repeat(self, count: u64, stride: i64) -> Plan {
        debug_assert!(count > 0, "a plan touches something");
        if count == 1 {
            return self;
        }
        match &self {
            Plan::Blocks(blocks) => {
                if let Some(blocks) = blocks.repeat(count, stride) {
                    return Plan::Blocks(blocks);
                }
            }
            Plan::Loop(inner) => {
                let end = i128::from(inner.stride) * i128::from(inner.count);
                if end == i128::from(stride) {
                    return Plan::Loop(Arc::new(Loop {
                        count: inner.count * count,
                        stride: inner.stride,
                        bytes: inner.bytes,
                        body: inner.body.clone(),
                    }));
                }
            }
            Plan::List(_) => {}
        }
        Plan::Loop(Arc::new(Loop {
            count,
            stride,
            bytes: self.bytes(),
            body: self,
        }))
    }

    /// Is it surely the same? Plans that are not shared may be equal all the same.
    fn same(&self, other: &Plan) -> bool {
        match (self, other) {
            (Plan::Blocks(a), Plan::Blocks(b)) => a == b,
            (Plan::Loop(a), Plan::Loop(b)) => Arc::ptr_eq(a, b),
            (Plan::List(a), Plan::List(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// Plans one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    /// Where the first part lies.
    first: i128,
    parts: Vec<Part>,
    bytes: u64,
}

impl Sequence {
    /// Appends `plan` at `offset`.
    ///
    /// # Errors
    /// [`LayoutError::Size`]; [`LayoutError::Bounds`] if the parts are too far apart.
    pub fn push(&mut self, offset: i128, plan: Plan) -> Result<(), LayoutError> {
        if self.parts.is_empty() {
            self.first = offset;
        }
        let offset = offset.checked_sub(self.first);
        let offset = offset.and_then(|offset| i64::try_from(offset).ok());
        let offset = offset.ok_or(LayoutError::Bounds)?;
        let start = self.bytes;
        self.bytes = super::shape::size(u128::from(start) + u128::from(plan.bytes()))?;
        if let Plan::Blocks(new) = &plan
            && let Some(last) = self.parts.last_mut()
            && let Plan::Blocks(old) = &mut last.plan
            && (new.count, old.count) == (1, 1)
            && i128::from(last.offset) + i128::from(old.len) == i128::from(offset)
        {
            old.len += new.len;
        } else {
            self.parts.push(Part {
                offset,
                start,
                plan,
            });
        }
        Ok(())
    }

    /// Where the first byte lies, and the plan; `None` if nothing was appended.
    pub fn finish(mut self) -> Option<(i128, Plan)> {
        if self.parts.len() < 2 {
            return self.parts.pop().map(|part| (self.first, part.plan));
        }
        // A rule hidden in a list is worth a look: runs of loops cost less than those of lists.
        let stride = self.parts[1].offset;
        let regular = self.parts.windows(2).all(|two| {
            two[0].plan.same(&two[1].plan)
                && i128::from(two[1].offset) - i128::from(two[0].offset) == i128::from(stride)
        });
        if regular {
            let count = self.parts.len() as u64;
            let part = self.parts.swap_remove(0);
            return Some((self.first, part.plan.repeat(count, stride)));
        }
        self.parts.shrink_to_fit();
        let list = List {
            parts: self.parts,
            bytes: self.bytes,
        };
        Some((self.first, Plan::List(Arc::new(list))))
    }
}
