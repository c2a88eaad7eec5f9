//! Items in a row, dealt out to parts: blocks in order whose lengths differ by at most one. The last
//! parts have none when there are more parts than items.
#![allow(dead_code, reason = "each example uses its part")]

use std::ops::Range;

/// Which items belong to which part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    pub(crate) items: usize,
    pub(crate) parts: usize,
    /// Items of the shorter parts; the first `longer` parts have one more.
    short: usize,
    longer: usize,
}

impl Split {
    /// `parts` must not be 0.
    pub(crate) fn new(items: usize, parts: usize) -> Self {
        Self {
            items,
            parts,
            short: items / parts,
            longer: items % parts,
        }
    }

    /// Items of a part.
    pub(crate) fn len(&self, part: usize) -> usize {
        self.short + usize::from(part < self.longer)
    }

    /// Items of the longest part.
    pub(crate) fn longest(&self) -> usize {
        self.len(0)
    }

    /// The first item of a part.
    pub(crate) fn first(&self, part: usize) -> usize {
        part * self.short + part.min(self.longer)
    }

    /// All items of a part.
    pub(crate) fn range(&self, part: usize) -> Range<usize> {
        self.first(part)..self.first(part + 1)
    }

    /// The part that has an item, and where in it.
    pub(crate) fn find(&self, item: usize) -> (usize, usize) {
        let long = self.longer * (self.short + 1);
        if item < long {
            (item / (self.short + 1), item % (self.short + 1))
        } else {
            let beyond = item - long;
            (self.longer + beyond / self.short, beyond % self.short)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_belongs_to_one_part_and_is_found_there() {
        for items in 0..40 {
            for parts in 1..12 {
                let split = Split::new(items, parts);
                let mut next = 0;
                for part in 0..parts {
                    let range = split.range(part);
                    assert_eq!((range.start, range.len()), (next, split.len(part)));
                    assert!(split.longest() - split.len(part) <= 1);
                    for item in range {
                        assert_eq!(split.find(item), (part, item - next));
                    }
                    next += split.len(part);
                }
                assert_eq!(next, items);
            }
        }
    }
}
