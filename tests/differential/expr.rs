//! Layouts as expressions: what the library makes of one, and naively where its elements lie.

use std::fmt;

use windlass::Layout;
use windlass::layout::Order;

use super::elem::Elem;

/// The call of a constructor of `windlass::Layout`.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    One(Elem),
    Contiguous(u64, Box<Expr>),
    Vector(u64, u64, i64, Box<Expr>),
    Hvector(u64, u64, i64, Box<Expr>),
    Indexed(Vec<(i64, u64)>, Box<Expr>),
    Hindexed(Vec<(i64, u64)>, Box<Expr>),
    IndexedBlock(u64, Vec<i64>, Box<Expr>),
    HindexedBlock(u64, Vec<i64>, Box<Expr>),
    /// Size, subsize and start of each dimension.
    Subarray(Vec<(u64, u64, u64)>, Order, Box<Expr>),
    Structure(Vec<(i64, u64, Expr)>),
    Resized(i64, i64, Box<Expr>),
}

use Expr as X;

/// Where the elements of a layout lie, in its order, and its bounds.
#[derive(Clone, Debug, Default)]
pub struct Map {
    pub places: Vec<(i64, Elem)>,
    /// The bounds that a resize or a subarray has set.
    marks: Option<(i64, i64)>,
    align: i64,
    /// Is padding data?
    whole: bool,
}

impl Expr {
    pub fn boxed(self) -> Box<Expr> {
        Box::new(self)
    }

    /// The library's layout; `one` gives those of the elements.
    pub fn layout(&self, one: &dyn Fn(Elem) -> Layout) -> Layout {
        let made = match self {
            X::One(elem) => return one(*elem),
            X::Contiguous(n, of) => of.layout(one).contiguous(*n),
            X::Vector(n, len, stride, of) => of.layout(one).vector(*n, *len, *stride),
            X::Hvector(n, len, stride, of) => of.layout(one).hvector(*n, *len, *stride),
            X::Indexed(blocks, of) => of.layout(one).indexed(blocks.iter().copied()),
            X::Hindexed(blocks, of) => of.layout(one).hindexed(blocks.iter().copied()),
            X::IndexedBlock(len, at, of) => of.layout(one).indexed_block(*len, at.iter().copied()),
            X::HindexedBlock(len, at, of) => {
                of.layout(one).hindexed_block(*len, at.iter().copied())
            }
            X::Subarray(dimensions, order, of) => {
                let sizes: Vec<u64> = dimensions.iter().map(|d| d.0).collect();
                let subsizes: Vec<u64> = dimensions.iter().map(|d| d.1).collect();
                let starts: Vec<u64> = dimensions.iter().map(|d| d.2).collect();
                of.layout(one).subarray(&sizes, &subsizes, &starts, *order)
            }
            X::Structure(parts) => {
                let part = |(at, n, of): &(i64, u64, Expr)| (*at, *n, of.layout(one));
                Layout::structure(parts.iter().map(part))
            }
            X::Resized(lb, extent, of) => of.layout(one).resized(*lb, *extent),
        };
        made.unwrap_or_else(|error| panic!("{self} cannot be: {error}"))
    }

    /// The naive meaning.
    pub fn map(&self, whole: bool) -> Map {
        match self {
            X::One(elem) => Map {
                places: vec![(0, *elem)],
                marks: None,
                align: elem.align() as i64,
                whole,
            },
            X::Contiguous(n, of) => {
                let of = of.map(whole);
                of.repeat(*n, of.extent())
            }
            X::Vector(n, len, stride, of) => {
                let of = of.map(whole);
                of.repeat(*len, of.extent())
                    .repeat(*n, stride * of.extent())
            }
            X::Hvector(n, len, stride, of) => {
                let of = of.map(whole);
                of.repeat(*len, of.extent()).repeat(*n, *stride)
            }
            X::Indexed(blocks, of) => {
                let of = of.map(whole);
                let at = |&(at, n): &(i64, u64)| (at * of.extent(), of.repeat(n, of.extent()));
                Map::join(blocks.iter().map(at), whole)
            }
            X::Hindexed(blocks, of) => {
                let of = of.map(whole);
                let at = |&(at, n): &(i64, u64)| (at, of.repeat(n, of.extent()));
                Map::join(blocks.iter().map(at), whole)
            }
            X::IndexedBlock(len, all, of) => {
                let of = of.map(whole);
                let block = of.repeat(*len, of.extent());
                let at = |at: &i64| (at * of.extent(), block.clone());
                Map::join(all.iter().map(at), whole)
            }
            X::HindexedBlock(len, all, of) => {
                let of = of.map(whole);
                let block = of.repeat(*len, of.extent());
                Map::join(all.iter().map(|at| (*at, block.clone())), whole)
            }
            X::Subarray(dimensions, order, of) => of.map(whole).subarray(dimensions, *order),
            X::Structure(parts) => {
                let part = |(at, n, of): &(i64, u64, Expr)| {
                    let of = of.map(whole);
                    (*at, of.repeat(*n, of.extent()))
                };
                Map::join(parts.iter().map(part), whole)
            }
            X::Resized(lb, extent, of) => Map {
                marks: Some((*lb, lb + extent)),
                ..of.map(whole)
            },
        }
    }
}

impl Map {
    fn nothing(whole: bool) -> Map {
        Map {
            places: Vec::new(),
            marks: None,
            align: 1,
            whole,
        }
    }

    /// The data of an element.
    pub fn runs(&self, elem: Elem) -> &'static [(usize, usize)] {
        if self.whole {
            elem.whole()
        } else {
            elem.data()
        }
    }

    /// The first byte of data and the end.
    pub fn span(&self) -> Option<(i64, i64)> {
        let end = |elem: Elem| self.runs(elem).last().map_or(0, |run| run.0 + run.1) as i64;
        let lo = self.places.iter().map(|place| place.0).min()?;
        let hi = self.places.iter().map(|&(at, elem)| at + end(elem)).max()?;
        Some((lo, hi))
    }

    /// The first byte and the end with the padding of elements.
    pub fn solid(&self) -> (i64, i64) {
        let lo = self.places.iter().map(|place| place.0).min();
        let ends = self
            .places
            .iter()
            .map(|&(at, elem)| at + elem.size() as i64);
        (lo.unwrap_or(0), ends.max().unwrap_or(0))
    }

    fn bounds(&self) -> (i64, i64) {
        if let Some(marks) = self.marks {
            return marks;
        }
        let (lo, hi) = self.span().unwrap_or((0, 0));
        let extent = (hi - lo + self.align - 1) / self.align * self.align;
        (lo, lo + extent)
    }

    pub fn extent(&self) -> i64 {
        let (lb, ub) = self.bounds();
        ub - lb
    }

    fn shift(&self, by: i64) -> Map {
        Map {
            places: self
                .places
                .iter()
                .map(|&(at, elem)| (at + by, elem))
                .collect(),
            marks: self.marks.map(|(lb, ub)| (lb + by, ub + by)),
            ..*self
        }
    }

    pub fn repeat(&self, count: u64, stride: i64) -> Map {
        let copies = (0..count as i64).map(|i| (i * stride, self.clone()));
        Map::join(copies, self.whole)
    }

    fn join(parts: impl Iterator<Item = (i64, Map)>, whole: bool) -> Map {
        let mut all = Map::nothing(whole);
        for (at, part) in parts {
            let part = part.shift(at);
            all.places.extend(&part.places);
            all.align = all.align.max(part.align);
            all.marks = match (all.marks, part.marks) {
                (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                (a, b) => a.or(b),
            };
        }
        all
    }

    fn subarray(self, dimensions: &[(u64, u64, u64)], order: Order) -> Map {
        let mut dense_first = dimensions.to_vec();
        if order == Order::C {
            dense_first.reverse();
        }
        let (mut all, mut stride, mut start) = (self.clone(), self.extent(), 0);
        for (size, subsize, first) in dense_first {
            all = all.repeat(subsize, stride);
            start += first as i64 * stride;
            stride *= size as i64;
        }
        Map {
            marks: Some((0, stride)),
            ..all.shift(start)
        }
    }

    /// Does a byte belong to two elements?
    pub fn overlaps_itself(&self) -> bool {
        let mut places = self.places.clone();
        places.sort_by_key(|place| place.0);
        places
            .windows(2)
            .any(|two| two[0].0 + two[0].1.size() as i64 > two[1].0)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            X::One(elem) => write!(f, "{elem:?}"),
            X::Contiguous(n, of) => write!(f, "{of}.contiguous({n})"),
            X::Vector(n, len, stride, of) => write!(f, "{of}.vector({n}, {len}, {stride})"),
            X::Hvector(n, len, stride, of) => write!(f, "{of}.hvector({n}, {len}, {stride})"),
            X::Indexed(blocks, of) => write!(f, "{of}.indexed({blocks:?})"),
            X::Hindexed(blocks, of) => write!(f, "{of}.hindexed({blocks:?})"),
            X::IndexedBlock(len, at, of) => write!(f, "{of}.indexed_block({len}, {at:?})"),
            X::HindexedBlock(len, at, of) => write!(f, "{of}.hindexed_block({len}, {at:?})"),
            X::Subarray(dimensions, order, of) => {
                write!(f, "{of}.subarray({dimensions:?}, {order:?})")
            }
            X::Structure(parts) => {
                f.write_str("structure(")?;
                for (at, n, of) in parts {
                    write!(f, "({at}, {n}, {of})")?;
                }
                f.write_str(")")
            }
            X::Resized(lb, extent, of) => write!(f, "{of}.resized({lb}, {extent})"),
        }
    }
}
