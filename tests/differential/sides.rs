//! Where the data of a step lie: random layouts that stay inside their region.

use windlass::layout::Order;

use super::elem::Elem;
use super::expr::{Expr, Map};
use super::program::{Api, Place, Side};
use crate::support::data::Random;

/// Bytes of a part.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub from: usize,
    pub width: usize,
}

/// Elements of a layout that is drawn.
const MOST: usize = 36;
/// How deep it is.
const DEPTH: usize = 3;

pub struct Sides<'a> {
    pub random: &'a mut Random,
    pub api: Api,
}

impl Sides<'_> {
    fn whole(&self) -> bool {
        self.api == Api::Typed
    }

    /// Applies a layout `pos` bytes after the beginning of a part.
    pub fn settle(pos: i64, unit: usize, count: u64, expr: Expr) -> Place {
        let disp = pos.max(0) / unit as i64;
        match pos - disp * unit as i64 {
            0 => Place { disp, count, expr },
            rest => Place {
                disp,
                count: 1,
                expr: Expr::Hindexed(vec![(rest, count)], expr.boxed()),
            },
        }
    }

    /// All elements of a region, and a plain buffer of as many.
    pub fn contiguous(&mut self, elem: Elem, region: Region, unit: usize) -> (Place, Side) {
        let count = region.width / elem.size();
        let place = Self::settle(region.from as i64, unit, count as u64, Expr::One(elem));
        (place, self.dense(elem, count))
    }

    /// A buffer of so many elements and nothing else.
    pub fn dense(&mut self, elem: Elem, count: usize) -> Side {
        Side {
            bytes: count * elem.size(),
            base: 0,
            count: count as u64,
            expr: Expr::One(elem),
            bottom: false,
        }
    }

    /// Sides of a step on the grid of an element type.
    pub fn of_elements(
        &mut self,
        elem: Elem,
        region: Region,
        unit: usize,
        (plain, reads, sent): (bool, bool, bool),
    ) -> (Place, Side) {
        let (size, room) = (elem.size(), region.width / elem.size());
        if plain {
            let count = if self.random.one_in(24) {
                0
            } else {
                1 + self.random.below(room)
            };
            let at = region.from + size * self.random.below(room - count + 1);
            let place = Self::settle(at as i64, unit, count as u64, Expr::One(elem));
            return (place, self.dense(elem, count));
        }
        let count = (1 + self.random.below(room.min(MOST))) as u64;
        let place = self.place((elem, count), region, unit, (size, reads));
        let side = self.side_of(&place, &[(elem, count)], !sent);
        (place, side)
    }

    /// Sides of a put or get of elements of several types; `None` if the region is too narrow.
    pub fn of_any(
        &mut self,
        elems: &[Elem],
        region: Region,
        unit: usize,
        sent: bool,
    ) -> Option<(Place, Side)> {
        let bytes: usize = elems.iter().map(|elem| elem.size()).sum();
        let room = region.width / bytes;
        if room == 0 {
            return None;
        }
        if let [elem] = *elems {
            if self.random.one_in(3) {
                let plain = (true, !sent, sent);
                return Some(self.of_elements(elem, region, unit, plain));
            }
            // What is received may have room for more than is sent.
            let count = (1 + self.random.below(room.min(MOST))) as u64;
            let more = if self.random.one_in(5) {
                count + self.random.below(4) as u64
            } else {
                count
            };
            let (here, there) = match sent {
                true => (count, more.min(room as u64)),
                false => (more, count),
            };
            let grid = *self.random.pick(&[1, 1, 2, elem.align()]);
            let place = self.place((elem, there), region, unit, (grid, !sent));
            let side = self.side_of(&place, &[(elem, here)], !sent);
            return Some((place, side));
        }
        let each = 1 + self.random.below(room.min(MOST / elems.len()));
        let counts = elems
            .iter()
            .map(|&elem| (elem, (1 + self.random.below(each)) as u64));
        let signature: Vec<(Elem, u64)> = counts.collect();
        let (expr, map) = self.structure(&signature);
        let (lo, hi) = map.solid();
        let slack = region.width.checked_sub((hi - lo) as usize)?;
        let pos = region.from as i64 + self.random.below(slack + 1) as i64 - lo;
        let place = Self::settle(pos, unit, 1, expr);
        let side = self.side_of(&place, &signature, !sent);
        Some((place, side))
    }

    /// A layout of `count` elements somewhere in a region.
    fn place(
        &mut self,
        (elem, count): (Elem, u64),
        region: Region,
        unit: usize,
        (grid, reads): (usize, bool),
    ) -> Place {
        let (expr, map) = self.checked(elem, count, grid, (Some(region.width), reads));
        let (lo, hi) = map.solid();
        let slack = (region.width - (hi - lo) as usize) / grid;
        let pos = region.from as i64 + (grid * self.random.below(slack + 1)) as i64 - lo;
        let (count, expr) = self.counted(expr);
        Self::settle(pos, unit, count, expr)
    }

    /// The outermost repetition as a count.
    fn counted(&mut self, expr: Expr) -> (u64, Expr) {
        match expr {
            Expr::Contiguous(n, of) if self.random.one_in(2) => (n, *of),
            expr => (1, expr),
        }
    }

    /// A buffer for what is somewhere: now and then with the very same layout.
    fn side_of(&mut self, place: &Place, signature: &[(Elem, u64)], written: bool) -> Side {
        if matches!(place.expr, Expr::One(_)) {
            return self.side(signature, written);
        }
        let map = place.map(self.whole());
        let (lo, hi) = map.solid();
        let front = if self.api == Api::Raw { -lo.min(0) } else { 0 };
        let fits = lo + front >= 0 && !(written && map.overlaps_itself());
        if !fits || !self.random.one_in(6) {
            return self.side(signature, written);
        }
        Side {
            bytes: ((front + hi) as usize).next_multiple_of(32),
            base: front as usize,
            count: place.count,
            expr: place.expr.clone(),
            bottom: false,
        }
    }

    /// A buffer with these elements in some layout.
    pub fn side(&mut self, signature: &[(Elem, u64)], written: bool) -> Side {
        let (count, expr, map) = match *signature {
            [(elem, count)] if count == 0 || self.random.one_in(3) => {
                return self.dense(elem, count as usize);
            }
            [(elem, count)] => {
                let grid = *self.random.pick(&[1, elem.align(), elem.size()]);
                let (expr, map) = self.checked(elem, count, grid, (None, !written));
                let (count, expr) = self.counted(expr);
                (count, expr, map)
            }
            _ => {
                let (expr, map) = self.structure(signature);
                (1, expr, map)
            }
        };
        let (lo, hi) = map.solid();
        let front = self.random.below(9) as i64;
        let bytes = (front + hi - lo) as usize + self.random.below(9);
        let base = front - lo;
        let raw = self.api == Api::Raw;
        // A slice begins where its layout does; an address may lie anywhere in the buffer.
        if raw && (0..=bytes as i64).contains(&base) {
            let bottom = self.random.one_in(8);
            return Side {
                bytes,
                base: base as usize,
                count,
                expr,
                bottom,
            };
        }
        let expr = Expr::Hindexed(vec![(base, count)], expr.boxed());
        let bytes = bytes.next_multiple_of(32);
        Side {
            bytes,
            base: 0,
            count: 1,
            expr,
            bottom: false,
        }
    }

    /// One layout after the other, of different elements.
    fn structure(&mut self, signature: &[(Elem, u64)]) -> (Expr, Map) {
        let (mut parts, mut end) = (Vec::new(), 0);
        for &(elem, count) in signature {
            let (expr, map) = self.checked(elem, count, 1, (None, false));
            let (lo, hi) = map.solid();
            let at = end + self.random.below(5) as i64;
            parts.push((at - lo, 1, expr));
            end = at + hi - lo;
        }
        let expr = Expr::Structure(parts);
        let map = expr.map(self.whole());
        (expr, map)
    }

    /// A layout that does not overlap itself, unless it is only read, and is not too wide.
    fn checked(
        &mut self,
        elem: Elem,
        count: u64,
        grid: usize,
        (room, reads): (Option<usize>, bool),
    ) -> (Expr, Map) {
        let room = room.unwrap_or(4096) as i64;
        for _ in 0..4 {
            let expr = self.expr(elem, count, grid as i64, DEPTH);
            let map = expr.map(self.whole());
            let (lo, hi) = map.solid();
            if hi - lo <= room && (reads || !map.overlaps_itself()) {
                return (expr, map);
            }
        }
        let expr = Expr::Contiguous(count, Expr::One(elem).boxed());
        let map = expr.map(self.whole());
        (expr, map)
    }

    fn divisor(&mut self, n: u64) -> u64 {
        let all: Vec<u64> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
        *self.random.pick(&all)
    }

    fn few(&mut self, most: usize) -> i64 {
        self.random.below(most) as i64
    }

    fn signed(&mut self, value: i64) -> i64 {
        if self.random.one_in(4) { -value } else { value }
    }

    /// Any layout of `n` elements, offsets multiples of `grid`.
    fn expr(&mut self, elem: Elem, n: u64, grid: i64, depth: usize) -> Expr {
        if depth == 0 || n == 1 {
            let one = Expr::One(elem).boxed();
            return if n == 1 {
                *one
            } else {
                Expr::Contiguous(n, one)
            };
        }
        let items = self.divisor(n);
        let inner = self.expr(elem, n / items, grid, depth - 1);
        let map = inner.map(self.whole());
        let (lo, hi) = map.solid();
        // Bytes from one to the next so that neighbours do not overlap.
        let span = (hi - lo + grid - 1) / grid * grid;
        let (extent, inner) = (map.extent().abs(), inner.boxed());
        match self.random.below(9) {
            0 => {
                let extent = span + grid * self.few(3);
                let (lb, extent) = (lo - grid * self.few(3), self.signed(extent));
                Expr::Contiguous(items, Expr::Resized(lb, extent, inner).boxed())
            }
            1 => {
                let len = self.divisor(items);
                let stride = len as i64 + self.few(3);
                Expr::Vector(items / len, len, self.signed(stride), inner)
            }
            2 => {
                let len = self.divisor(items);
                let stride = (len as i64 - 1) * extent + span + grid * self.few(3);
                Expr::Hvector(items / len, len, self.signed(stride), inner)
            }
            3 => Expr::Indexed(self.blocks(items, |n| n as i64, 1), inner),
            4 => {
                let bytes = |n: u64| (n as i64 - 1).max(0) * extent + span;
                Expr::Hindexed(self.blocks(items, bytes, grid), inner)
            }
            5 => {
                let len = self.divisor(items);
                let at = self.spread(items / len, len as i64, 1);
                Expr::IndexedBlock(len, at, inner)
            }
            6 => {
                let len = self.divisor(items);
                let bytes = (len as i64 - 1) * extent + span;
                let at = self.spread(items / len, bytes, grid);
                Expr::HindexedBlock(len, at, inner)
            }
            7 => {
                let a = self.divisor(items);
                let b = self.divisor(items / a);
                let mut dimensions = Vec::new();
                for subsize in [a, b, items / a / b] {
                    let (before, after) =
                        (self.random.below(3) as u64, self.random.below(2) as u64);
                    dimensions.push((before + subsize + after, subsize, before));
                }
                let order = *self.random.pick(&[Order::C, Order::Fortran]);
                Expr::Subarray(dimensions, order, inner)
            }
            _ => {
                let bytes = |n: u64| (n as i64 - 1).max(0) * extent + span;
                let blocks = self.blocks(items, bytes, grid);
                let part = |(at, n)| (at, n, (*inner).clone());
                Expr::Structure(blocks.into_iter().map(part).collect())
            }
        }
    }

    /// Blocks of altogether `items`, in any order; `len` is how far one reaches.
    fn blocks(&mut self, items: u64, len: impl Fn(u64) -> i64, grain: i64) -> Vec<(i64, u64)> {
        let (mut left, mut at, mut blocks) = (items, 0, Vec::new());
        while left > 0 {
            let n = self.random.below(1 + left.min(8) as usize) as u64;
            at += grain * self.few(3);
            blocks.push((at, n));
            at += len(n);
            left -= n;
        }
        self.shuffle(&mut blocks);
        blocks
    }

    /// Displacements of `count` blocks of one length, in any order.
    fn spread(&mut self, count: u64, len: i64, grain: i64) -> Vec<i64> {
        let mut at = 0;
        let mut all = Vec::new();
        for _ in 0..count {
            at += grain * self.few(3);
            all.push(at);
            at += len;
        }
        self.shuffle(&mut all);
        all
    }

    /// Sometimes turns the order, which is that of the data.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        match self.random.below(3) {
            0 => {}
            1 => items.reverse(),
            _ => {
                for i in (1..items.len()).rev() {
                    items.swap(i, self.random.below(i + 1));
                }
            }
        }
    }
}
