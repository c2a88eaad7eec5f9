//! Layouts against a naive model: type maps with an entry for each element, in 128 bits.

use std::convert::Infallible;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

/// A basic element of the model: data pieces, extent and alignment.
struct Kind {
    basic: Basic,
    pieces: &'static [(i128, i128)],
    extent: i128,
    align: i128,
}

/// Two plain ones, a pair with padding at its end and one with a gap.
fn kinds() -> [Kind; 4] {
    let kind = |basic: Result<Basic, LayoutError>, pieces, extent, align| Kind {
        basic: basic.unwrap(),
        pieces,
        extent,
        align,
    };
    [
        kind(Basic::new(0, 1, 1), &[(0, 1)], 1, 1),
        kind(Basic::new(1, 4, 4), &[(0, 4)], 4, 4),
        kind(Basic::pair(2, 8, 8, 4, 8), &[(0, 12)], 16, 8),
        kind(Basic::pair(3, 2, 4, 4, 4), &[(0, 2), (4, 4)], 8, 4),
    ]
}

/// More elements than these are not spelled out.
const SPELLED: usize = 4000;

#[derive(Clone, Default)]
struct Model {
    /// Kind and displacement of each element; of many, at least the outermost ones.
    map: Vec<(usize, i128)>,
    marks: Option<(i128, i128)>,
    /// Bytes of data, with padding too, and elements; at the end of the type if more.
    size: u128,
    padded: u128,
    elements: u128,
    /// Not all elements are in the map.
    sampled: bool,
}

impl Model {
    fn of(kind: usize) -> Model {
        let of = &kinds()[kind];
        Model {
            map: vec![(kind, 0)],
            marks: None,
            size: of.pieces.iter().map(|(_, len)| *len as u128).sum(),
            padded: of.extent as u128,
            elements: 1,
            sampled: false,
        }
    }

    fn shifted(&self, by: i128) -> Model {
        let mut shifted = self.clone();
        for (_, displacement) in &mut shifted.map {
            *displacement = displacement.saturating_add(by);
        }
        let marks = shifted.marks;
        shifted.marks = marks.map(|(lb, ub)| (lb.saturating_add(by), ub.saturating_add(by)));
        shifted
    }

    fn append(&mut self, other: &Model) {
        self.map.extend(&other.map);
        self.marks = match (self.marks, other.marks) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        self.size = self.size.saturating_add(other.size);
        self.padded = self.padded.saturating_add(other.padded);
        self.elements = self.elements.saturating_add(other.elements);
        self.sampled |= other.sampled;
    }

    fn copies(&self, count: u64, stride: i128) -> Model {
        let mut all = Model::default();
        let far = |index: u64| stride.saturating_mul(i128::from(index));
        if count as u128 * (self.map.len() as u128) < SPELLED as u128 && count < 100 {
            for index in 0..count {
                all.append(&self.shifted(far(index)));
            }
            return all;
        }
        all.append(self);
        all.append(&self.shifted(far(count - 1)));
        Model {
            size: self.size.saturating_mul(count.into()),
            padded: self.padded.saturating_mul(count.into()),
            elements: self.elements.saturating_mul(count.into()),
            sampled: true,
            ..all
        }
    }

    /// Runs of bytes, joined where neighbours touch.
    fn runs(&self, padded: bool) -> Vec<(i128, i128)> {
        let kinds = kinds();
        let mut runs: Vec<(i128, i128)> = Vec::new();
        for (kind, displacement) in &self.map {
            let kind = &kinds[*kind];
            let whole = [(0, kind.extent)];
            for (at, len) in if padded { &whole[..] } else { kind.pieces } {
                let at = displacement.saturating_add(*at);
                match runs.last_mut() {
                    Some((last, run)) if last.saturating_add(*run) == at => *run += len,
                    _ => runs.push((at, *len)),
                }
            }
        }
        runs
    }

    fn touched(&self, padded: bool) -> Option<(i128, i128)> {
        let runs = self.runs(padded);
        let lo = runs.iter().map(|run| run.0).min()?;
        let hi = runs.iter().map(|run| run.0.saturating_add(run.1)).max()?;
        Some((lo, hi))
    }

    fn bounds(&self) -> (i128, i128) {
        if let Some(marks) = self.marks {
            return marks;
        }
        let Some((lo, hi)) = self.touched(false) else {
            return (0, 0);
        };
        let align = self.map.iter().map(|(kind, _)| kinds()[*kind].align).max();
        let align = align.unwrap_or(1);
        let mut extent = hi.saturating_sub(lo);
        if extent < i128::MAX {
            while extent % align != 0 {
                extent += 1;
            }
        }
        (lo, lo.saturating_add(extent))
    }

    fn extent(&self) -> i128 {
        let (lb, ub) = self.bounds();
        ub - lb
    }

    /// Does everything fit that has to?
    fn is_valid(&self) -> bool {
        let fits = |(lo, hi): (i128, i128)| {
            let range = i128::from(i64::MIN)..=i128::from(i64::MAX);
            range.contains(&lo) && range.contains(&hi) && range.contains(&(hi - lo))
        };
        self.padded <= i64::MAX as u128
            && fits(self.bounds())
            && self.touched(false).is_none_or(fits)
            && self.touched(true).is_none_or(fits)
    }
}

/// Calls of constructors.
#[derive(Debug, Clone)]
enum Expr {
    Basic(usize),
    Contiguous(u64, Box<Expr>),
    Vector(u64, u64, i64, Box<Expr>),
    Hvector(u64, u64, i64, Box<Expr>),
    Indexed(Vec<(i64, u64)>, Box<Expr>),
    Hindexed(Vec<(i64, u64)>, Box<Expr>),
    IndexedBlock(u64, Vec<i64>, Box<Expr>),
    HindexedBlock(u64, Vec<i64>, Box<Expr>),
    Subarray(Vec<(u64, u64, u64)>, Order, Box<Expr>),
    Structure(Vec<(i64, u64, Expr)>),
    Resized(i64, i64, Box<Expr>),
}

fn blocks(of: &Model, unit: i128, blocks: impl Iterator<Item = (i64, u64)>) -> Model {
    let mut all = Model::default();
    for (displacement, count) in blocks {
        let block = of.copies(count, of.extent());
        all.append(&block.shifted(i128::from(displacement) * unit));
    }
    all
}

fn subarray(of: &Model, dimensions: &[(u64, u64, u64)], order: Order) -> Model {
    let mut dimensions = dimensions.to_vec();
    if order == Order::C {
        dimensions.reverse();
    }
    let (mut all, mut stride) = (of.clone(), of.extent());
    for (size, subsize, start) in dimensions {
        all = all.copies(subsize, stride);
        all = all.shifted(stride.saturating_mul(start.into()));
        stride = stride.saturating_mul(size.into());
    }
    all.marks = Some((0, stride));
    all
}

impl Expr {
    /// The layout and its model; both agree on which calls fail, and `None` is one that did.
    fn make(&self) -> Option<(Layout, Model)> {
        let (layout, model) = match self {
            Expr::Basic(kind) => (Ok(Layout::basic(kinds()[*kind].basic)), Model::of(*kind)),
            Expr::Contiguous(count, of) => {
                let (of, model) = of.make()?;
                (of.contiguous(*count), model.copies(*count, model.extent()))
            }
            Expr::Vector(count, len, stride, of) => {
                let (of, model) = of.make()?;
                let block = model.copies(*len, model.extent());
                let bytes = i128::from(*stride) * model.extent();
                (
                    of.vector(*count, *len, *stride),
                    block.copies(*count, bytes),
                )
            }
            Expr::Hvector(count, len, stride, of) => {
                let (of, model) = of.make()?;
                let block = model.copies(*len, model.extent());
                let made = of.hvector(*count, *len, *stride);
                (made, block.copies(*count, (*stride).into()))
            }
            Expr::Indexed(list, of) => {
                let (of, model) = of.make()?;
                let list = list.iter().copied();
                let all = blocks(&model, model.extent(), list.clone());
                (of.indexed(list), all)
            }
            Expr::Hindexed(list, of) => {
                let (of, model) = of.make()?;
                let list = list.iter().copied();
                (of.hindexed(list.clone()), blocks(&model, 1, list))
            }
            Expr::IndexedBlock(len, list, of) => {
                let (of, model) = of.make()?;
                let list = list.iter().copied();
                let made = of.indexed_block(*len, list.clone());
                let list = list.map(|displacement| (displacement, *len));
                (made, blocks(&model, model.extent(), list))
            }
            Expr::HindexedBlock(len, list, of) => {
                let (of, model) = of.make()?;
                let list = list.iter().copied();
                let made = of.hindexed_block(*len, list.clone());
                let list = list.map(|displacement| (displacement, *len));
                (made, blocks(&model, 1, list))
            }
            Expr::Subarray(dimensions, order, of) => {
                let (of, model) = of.make()?;
                let sizes: Vec<_> = dimensions.iter().map(|all| all.0).collect();
                let subsizes: Vec<_> = dimensions.iter().map(|all| all.1).collect();
                let starts: Vec<_> = dimensions.iter().map(|all| all.2).collect();
                let made = of.subarray(&sizes, &subsizes, &starts, *order);
                (made, subarray(&model, dimensions, *order))
            }
            Expr::Structure(parts) => {
                let (mut list, mut all) = (Vec::new(), Model::default());
                for (displacement, count, of) in parts {
                    let (of, model) = of.make()?;
                    let block = model.copies(*count, model.extent());
                    all.append(&block.shifted((*displacement).into()));
                    list.push((*displacement, *count, of));
                }
                (Layout::structure(list), all)
            }
            Expr::Resized(lb, extent, of) => {
                let (of, mut model) = of.make()?;
                let lb_wide = i128::from(*lb);
                model.marks = Some((lb_wide, lb_wide + i128::from(*extent)));
                (of.resized(*lb, *extent), model)
            }
        };
        assert_eq!(
            layout.is_ok(),
            model.is_valid(),
            "{layout:?}: size {}, bounds {:?}, touched {:?}",
            model.size,
            model.bounds(),
            model.touched(true)
        );
        Some((layout.ok()?, model))
    }
}

/// Numbers of bytes or layouts; seldom awkward ones.
fn displacement(awkward: u32) -> impl Strategy<Value = i64> {
    let edges = [0_i64, 1 << 31, 1 << 32, 1 << 61, i64::MAX, i64::MIN];
    prop_oneof![
        30 => -40..40_i64,
        awkward => (prop::sample::select(edges.to_vec()), -2..=2_i64, any::<bool>()).prop_map(
            |(edge, near, minus)| {
                let value = edge.wrapping_add(near);
                if minus { value.wrapping_neg() } else { value }
            }
        ),
    ]
}

fn count(awkward: u32) -> impl Strategy<Value = u64> {
    let edges = [1_u64 << 31, 1 << 32, 1 << 62, 1 << 63, u64::MAX - 1];
    prop_oneof![
        30 => 0..4_u64,
        awkward => (prop::sample::select(edges.to_vec()), 0..=1_u64, any::<bool>()).prop_map(
            |(edge, near, minus)| if minus { edge - near } else { edge + near }
        ),
    ]
}

fn dimension(awkward: u32) -> impl Strategy<Value = (u64, u64, u64)> {
    (count(awkward), 0..3_u64, count(awkward)).prop_map(|(subsize, behind, start)| {
        let start = start.min(u64::MAX - subsize);
        (
            subsize + start + behind.min(u64::MAX - subsize - start),
            subsize,
            start,
        )
    })
}

/// Nested calls; `awkward` in about 30 arguments are near the ends of the numbers.
fn expr(awkward: u32) -> impl Strategy<Value = Expr> {
    let leaf = (0..4_usize).prop_map(Expr::Basic);
    leaf.prop_recursive(4, 10, 3, move |inner| {
        let of = inner.clone().prop_map(Box::new);
        let (n, d) = (move || count(awkward), move || displacement(awkward));
        let list = move || prop::collection::vec((d(), n()), 0..4);
        let equal = move || prop::collection::vec(d(), 0..4);
        let order = prop_oneof![Just(Order::C), Just(Order::Fortran)];
        let dimensions = prop::collection::vec(dimension(awkward), 1..3);
        prop_oneof![
            (n(), of.clone()).prop_map(|(n, of)| Expr::Contiguous(n, of)),
            (n(), n(), d(), of.clone()).prop_map(|(n, m, d, of)| Expr::Vector(n, m, d, of)),
            (n(), n(), d(), of.clone()).prop_map(|(n, m, d, of)| Expr::Hvector(n, m, d, of)),
            (list(), of.clone()).prop_map(|(list, of)| Expr::Indexed(list, of)),
            (list(), of.clone()).prop_map(|(list, of)| Expr::Hindexed(list, of)),
            (n(), equal(), of.clone()).prop_map(|(n, list, of)| Expr::IndexedBlock(n, list, of)),
            (n(), equal(), of.clone()).prop_map(|(n, list, of)| Expr::HindexedBlock(n, list, of)),
            (dimensions, order, of.clone())
                .prop_map(|(all, order, of)| { Expr::Subarray(all, order, of) }),
            prop::collection::vec((d(), n(), inner), 0..4).prop_map(Expr::Structure),
            (d(), d(), of).prop_map(|(lb, extent, of)| Expr::Resized(lb, extent, of)),
        ]
    })
}

fn wide(runs: impl Iterator<Item = (i64, u64)>) -> Vec<(i128, i128)> {
    runs.map(|(at, len)| (at.into(), len.into())).collect()
}

/// The runs without their first `position` bytes.
fn tail(runs: &[(i128, i128)], mut position: i128) -> Vec<(i128, i128)> {
    let mut rest = Vec::new();
    for (at, len) in runs {
        let skip = position.min(*len);
        position -= skip;
        if skip < *len {
            rest.push((at + skip, len - skip));
        }
    }
    rest
}

fn each_byte(runs: &[(i128, i128)]) -> impl Iterator<Item = i128> {
    runs.iter().flat_map(|(at, len)| *at..at + len)
}

fn check_queries(layout: &Layout, model: &Model) {
    assert_eq!(u128::from(layout.size()), model.size);
    assert_eq!(u128::from(layout.elements()), model.elements);
    let bounds = (i128::from(layout.lb()), i128::from(layout.ub()));
    assert_eq!(bounds, model.bounds());
    assert_eq!(i128::from(layout.extent()), model.extent());
    let (lo, hi) = model.touched(false).unwrap_or_default();
    assert_eq!(i128::from(layout.true_lb()), lo);
    assert_eq!(i128::from(layout.true_ub()), hi);
    assert_eq!(i128::from(layout.true_extent()), hi - lo);
    if !model.sampled {
        check_elements(layout, model);
    }
    let whole = layout.with_padding();
    assert_eq!((whole.lb(), whole.ub()), (layout.lb(), layout.ub()));
    assert_eq!(u128::from(whole.size()), model.padded);
}

fn check_elements(layout: &Layout, model: &Model) {
    let kinds = kinds();
    let elements: Vec<Basic> = model
        .map
        .iter()
        .map(|(kind, _)| kinds[*kind].basic)
        .collect();
    let runs = layout.signature().runs();
    let spelled: Vec<Basic> = runs
        .flat_map(|(basic, count)| std::iter::repeat_n(basic, count as usize))
        .collect();
    assert_eq!(spelled, elements);
    let first = elements.first().copied();
    let one_kind = first.filter(|first| elements.iter().all(|basic| basic == first));
    assert_eq!(layout.homogeneous(), one_kind);
    let twice = model.copies(2, model.extent());
    if layout.is_contiguous() {
        assert!(twice.runs(false).len() <= 1, "{layout} is not contiguous");
    } else {
        assert!(twice.runs(false).len() > 1, "{layout} is contiguous");
    }
}

/// Every way to walk `counted`, which has these runs.
fn check_walks(counted: Counted<'_>, runs: &[(i128, i128)], position: u64) {
    assert_eq!(wide(counted.runs()), runs);
    let (mut walked, mut before) = (Vec::new(), 0);
    let _ = counted.for_each_run(|at, len, position| {
        assert_eq!(position, before);
        before += len;
        walked.push((at.into(), len.into()));
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(walked, runs);
    let broken = counted.for_each_run(|at, _, _| ControlFlow::Break(at));
    assert_eq!(
        broken.break_value().map(i128::from),
        runs.first().map(|run| run.0)
    );
    let position = position % (counted.size() + 2);
    assert_eq!(
        wide(counted.runs_from(position)),
        tail(runs, position.into())
    );
    if let Some(strided) = counted.as_strided() {
        let at =
            |block: u64| i128::from(strided.first) + i128::from(strided.stride) * i128::from(block);
        let blocks: Vec<_> = (0..strided.blocks)
            .map(|block| (at(block), strided.block_bytes.into()))
            .collect();
        assert_eq!(blocks, runs);
        let mut bytes: Vec<_> = each_byte(runs).collect();
        bytes.sort_unstable();
        let overlaps = bytes.windows(2).any(|two| two[0] == two[1]);
        assert_eq!(strided.overlaps_itself(), overlaps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_layout_is_its_type_map(expr in expr(0), count in 0..5_u64, position: u64) {
        let Some((layout, model)) = expr.make() else {
            panic!("small numbers fit");
        };
        check_queries(&layout, &model);
        let all = model.copies(count, model.extent());
        if !all.sampled {
            let counted = layout.times(count).expect("small numbers fit");
            prop_assert_eq!(u128::from(counted.size()), all.size);
            prop_assert_eq!(u128::from(counted.elements()), all.elements);
            check_walks(counted, &all.runs(false), position);
            let whole = layout.with_padding();
            check_walks(whole.times(count).unwrap(), &all.runs(true), position);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error(expr in expr(3), count in count(10), position: u64) {
        let Some((layout, model)) = expr.make() else {
            return Ok(());
        };
        check_queries(&layout, &model);
        let all = model.copies(count, model.extent());
        let touched = all.touched(false);
        prop_assert_eq!(
            layout.bounds(count),
            touched.map(|(lo, hi)| lo..hi)
        );
        let fits = touched.is_none_or(|(lo, hi)| {
            let range = i128::from(i64::MIN)..=i128::from(i64::MAX);
            range.contains(&lo) && range.contains(&hi) && range.contains(&(hi - lo))
        });
        let counted = layout.times(count);
        prop_assert_eq!(counted.is_ok(), fits && all.size <= i64::MAX as u128, "{:?}", counted);
        if let Ok(counted) = counted {
            if !all.sampled {
                check_walks(counted, &all.runs(false), position);
            }
            // Of any number of runs, the first and those from anywhere on can be had.
            let first = counted.runs().next();
            prop_assert_eq!(first.map(|run| i128::from(run.0)), all.runs(false).first().map(|run| run.0));
            if counted.size() > 0 {
                let position = position % counted.size();
                let (at, len) = counted.runs_from(position).next().expect("there are data");
                let (lo, hi) = touched.expect("there are data");
                prop_assert!(lo <= i128::from(at) && i128::from(at) + i128::from(len) <= hi);
            }
        }
    }

    #[test]
    fn fits_is_what_wide_numbers_say(
        expr in expr(2),
        count in count(10),
        disp in displacement(20),
        unit in 1..9_i128,
        extent in count(20),
        near in -2..=2_i128,
    ) {
        let Some((layout, model)) = expr.make() else {
            return Ok(());
        };
        let touched = model.copies(count, model.extent()).touched(false);
        let naive = |disp: i128, extent: u64| touched.is_none_or(|(lo, hi)| {
            disp + lo >= 0 && disp + hi <= i128::from(extent)
        });
        let disp = i128::from(disp) * unit;
        prop_assert_eq!(layout.fits(disp, count, extent), naive(disp, extent));
        // At the edges of the window.
        if let Some((lo, hi)) = touched {
            let disp = near - lo;
            let extent = u64::try_from(hi - lo).unwrap_or(extent);
            prop_assert_eq!(layout.fits(disp, count, extent), naive(disp, extent));
        }
        prop_assert_eq!(layout.fits(i128::MAX, count, extent), touched.is_none());
        prop_assert_eq!(layout.fits(i128::MIN, count, extent), touched.is_none());
    }

    #[test]
    fn pieces_of_two_are_largest_possible(
        a in expr(0), b in expr(0), n in 0..4_u64, m in 0..4_u64,
    ) {
        let (Some((a, model_a)), Some((b, model_b))) = (a.make(), b.make()) else {
            panic!("small numbers fit");
        };
        let all_a = model_a.copies(n, model_a.extent());
        let all_b = model_b.copies(m, model_b.extent());
        if all_a.sampled || all_b.sampled {
            return Ok(());
        }
        let mut naive: Vec<(i128, i128, i128)> = Vec::new();
        for (at_a, at_b) in each_byte(&all_a.runs(false)).zip(each_byte(&all_b.runs(false))) {
            match naive.last_mut() {
                Some((x, y, len)) if *x + *len == at_a && *y + *len == at_b => *len += 1,
                _ => naive.push((at_a, at_b, 1)),
            }
        }
        let (a, b) = (a.times(n).unwrap(), b.times(m).unwrap());
        let pieces: Vec<_> = a.zip(&b).map(|(x, y, len)| (x.into(), y.into(), len.into())).collect();
        prop_assert_eq!(pieces, naive);
    }

    #[test]
    fn packing_goes_on_from_anywhere(
        expr in expr(0), count in 0..5_u64, chunks in prop::collection::vec(0..40_usize, 1..6),
    ) {
        let Some((layout, model)) = expr.make() else {
            panic!("small numbers fit");
        };
        let all = model.copies(count, model.extent());
        let Some((lo, hi)) = all.touched(false).filter(|_| !all.sampled) else {
            return Ok(());
        };
        let memory: Vec<u8> = (lo..hi).map(|at| (at % 251) as u8).collect();
        let place = |at: i64, len: usize| {
            let at = (i128::from(at) - lo) as usize;
            at..at + len
        };
        let counted = layout.times(count).unwrap();
        let (mut packed, mut spread) = (Vec::new(), vec![0; memory.len()]);
        for len in chunks.iter().cycle().map(|len| len + 1) {
            let position = packed.len() as u64;
            let mut chunk = vec![0; len];
            let Ok(done) = counted.pack(position, &mut chunk, |at, out| {
                out.copy_from_slice(&memory[place(at, out.len())]);
                Ok::<(), Infallible>(())
            });
            let Ok(used) = counted.unpack(position, &chunk, |at, bytes| {
                spread[place(at, bytes.len())].copy_from_slice(bytes);
                Ok::<(), Infallible>(())
            });
            prop_assert_eq!(done, used);
            packed.extend_from_slice(&chunk[..done]);
            if done < len {
                break;
            }
        }
        let runs = all.runs(false);
        let naive: Vec<u8> = each_byte(&runs).map(|at| memory[(at - lo) as usize]).collect();
        prop_assert_eq!(packed, naive);
        let mut touched = vec![0; memory.len()];
        for at in each_byte(&runs).map(|at| (at - lo) as usize) {
            touched[at] = memory[at];
        }
        prop_assert_eq!(spread, touched);
    }

    /// Any numbers at all: an answer or an error.
    #[test]
    fn rubbish_is_refused_or_taken(n: u64, m: u64, k: u64, d: i64, e: i64, disp: i128) {
        let pair = Layout::basic(kinds()[3].basic);
        let odd = Layout::structure([(d, n % 3, pair.clone()), (e, 1, Layout::of::<u8>())]);
        for of in [Ok(pair), odd].into_iter().flatten() {
            let made = [
                of.contiguous(n),
                of.vector(n, m, d),
                of.hvector(n, m, d),
                of.indexed([(d, n), (e, m), (d, 1)]),
                of.hindexed([(d, n), (e, m), (d, 1)]),
                of.indexed_block(n, [d, e]),
                of.hindexed_block(n, [d, e, d]),
                of.subarray(&[n, m], &[m, k], &[k, 1], Order::C),
                of.subarray(&[n, n], &[m, m], &[0, 0], Order::Fortran),
                of.resized(d, e),
            ];
            for layout in made.into_iter().flatten() {
                let _ = (layout.to_string(), layout.fits(disp, k, n), layout.bounds(m));
                if let Ok(counted) = layout.times(k) {
                    let _ = (counted.runs().next(), counted.runs_from(n).next());
                    let _ = (counted.signature(), counted.as_strided());
                    let _ = counted.zip(&counted).next();
                }
            }
        }
    }
}

#[test]
fn bounds_are_those_of_the_standard() {
    // The standard's example of marks: {(lb, -3), (int, 0), (ub, 6)} twice.
    let marked = Layout::of::<i32>().resized(-3, 9).unwrap();
    let twice = marked.contiguous(2).unwrap();
    assert_eq!((twice.lb(), twice.ub()), (-3, 15));
    assert_eq!((twice.true_lb(), twice.true_ub()), (0, 13));
    // Marks hide what has none, even if it reaches further.
    let beside = Layout::structure([(0, 1, marked), (100, 1, Layout::of::<i32>())]).unwrap();
    assert_eq!((beside.lb(), beside.ub(), beside.true_ub()), (-3, 6, 104));
    // An empty layout has no bounds but those it is given.
    let nothing = Layout::of::<i32>().contiguous(0).unwrap();
    assert_eq!((nothing.size(), nothing.lb(), nothing.extent()), (0, 0, 0));
    let space = nothing.resized(4, 8).unwrap().contiguous(3).unwrap();
    assert_eq!((space.size(), space.lb(), space.extent()), (0, 4, 24));
    assert!(space.is_contiguous() && space.times(9).unwrap().runs().next().is_none());
    assert_eq!(
        space
            .times(9)
            .unwrap()
            .as_strided()
            .map(|strided| strided.blocks),
        Some(0)
    );
}

#[test]
fn regular_layouts_become_loops_whatever_made_them() {
    let want = Strided {
        blocks: 6,
        block_bytes: 8,
        stride: 32,
        first: 0,
    };
    let int = Layout::of::<i32>();
    let two = int.contiguous(2).unwrap();
    let rows = int.vector(3, 2, 8).unwrap().resized(0, 96).unwrap();
    let made = [
        int.vector(6, 2, 8),
        two.hvector(6, 1, 32),
        two.hvector(3, 1, 32).unwrap().hvector(2, 1, 96),
        int.indexed_block(2, (0..6).map(|row| row * 8)),
        int.indexed((0..6).map(|row| (row * 8, 2))),
        int.indexed((0..12).map(|half| (half / 2 * 8 + half % 2, 1))),
        int.subarray(&[6, 8], &[6, 2], &[0, 0], Order::C),
        int.subarray(&[8, 6], &[2, 6], &[0, 0], Order::Fortran),
        rows.contiguous(2),
        Layout::structure((0..6).map(|row| (row * 32, 2, int.clone()))),
    ];
    for layout in made {
        let layout = layout.unwrap();
        assert_eq!(
            layout.times(1).unwrap().as_strided(),
            Some(want),
            "{layout}"
        );
    }
    assert_eq!(rows.times(2).unwrap().as_strided(), Some(want));
    assert_eq!(
        two.resized(0, 32).unwrap().times(6).unwrap().as_strided(),
        Some(want)
    );
}

#[test]
fn nested_repetitions_are_one_loop() {
    let gaps = Layout::of::<u8>().indexed([(0, 1), (2, 2)]).unwrap();
    let nested = gaps.contiguous(3).unwrap().contiguous(5).unwrap();
    let Some(plan::Plan::Loop(nest)) = nested.data().map(|data| &data.plan) else {
        panic!("{nested} is no loop");
    };
    assert_eq!((nest.count, nest.stride), (15, 4));
    assert!(matches!(nest.body, plan::Plan::List(_)));
}

#[test]
fn padding_must_fit_too() {
    let pair = Layout::basic(kinds()[2].basic); // 12 bytes of 16
    let still = pair.resized(0, 0).unwrap();
    assert!(still.contiguous((1 << 59) - 1).is_ok());
    assert_eq!(still.contiguous(1 << 59).unwrap_err(), LayoutError::Size);
    let end = |before| still.hindexed_block(1, [i64::MAX - before]);
    assert!(end(16).is_ok());
    assert_eq!(end(15).unwrap_err(), LayoutError::Bounds);
}

#[test]
fn what_is_not_there_cannot_be_too_large() {
    let still = Layout::of::<f64>().resized(0, 0).unwrap();
    assert_eq!(still.contiguous(u64::MAX).unwrap_err(), LayoutError::Size);
    let (sizes, none) = ([u64::MAX, 4], [u64::MAX, 0]);
    for made in [
        still.vector(0, u64::MAX, i64::MAX),
        still.indexed_block(u64::MAX, []),
        still.indexed([(i64::MAX, 0)]),
        still.subarray(&sizes, &none, &[0, 0], Order::Fortran),
        Layout::structure([(i64::MIN, 0, still.clone())]),
    ] {
        let layout = made.unwrap();
        assert_eq!((layout.size(), layout.true_extent()), (0, 0), "{layout}");
    }
}

#[test]
fn subarrays_outside_their_array_are_refused() {
    let byte = Layout::of::<u8>();
    let refused = byte.subarray(&[4, 5], &[4, 3], &[0, 3], Order::C);
    let outside = LayoutError::Subarray {
        dimension: 1,
        size: 5,
        subsize: 3,
        start: 3,
    };
    assert_eq!(refused.unwrap_err(), outside);
    assert_eq!(
        outside.to_string(),
        "dimension 1 of 5 elements has no 3 from 3 on"
    );
    for (sizes, subsizes) in [(&[][..], &[][..]), (&[1, 2], &[1])] {
        assert!(matches!(
            byte.subarray(sizes, subsizes, sizes, Order::C),
            Err(LayoutError::Dimensions { .. })
        ));
    }
    assert!(
        byte.subarray(&[u64::MAX], &[1], &[u64::MAX], Order::C)
            .is_err()
    );
}

#[test]
fn nesting_ends_with_an_error_and_not_with_the_stack() {
    let byte = Layout::of::<u8>();
    let mut layout = byte.clone();
    for level in 1..u64::from(MAX_DEPTH) {
        // Lists, since nested loops would double the size each time.
        let parts = [(0, 1, layout), (level as i64 * 100, 1, byte.clone())];
        layout = Layout::structure(parts).unwrap();
    }
    assert_eq!(layout.resized(0, 1).unwrap_err(), LayoutError::Depth);
    let counted = layout.times(2).unwrap();
    let mut walked = Vec::new();
    let _ = counted.for_each_run(|at, len, _| {
        walked.push((at, len));
        ControlFlow::<()>::Continue(())
    });
    // The first of the second follows the last of the first.
    assert_eq!(walked.len() as u64, 2 * u64::from(MAX_DEPTH) - 1);
    assert!(counted.runs().eq(walked));
    assert!(format!("{layout:?}").len() < 1000, "{layout:?}");
}

#[test]
fn shared_parts_cost_nothing_twice() {
    let mut layout =
        Layout::structure([(0, 1, Layout::of::<u8>()), (3, 1, Layout::of::<i32>())]).unwrap();
    for level in 0..55 {
        let far = 1 << (level + 4);
        let gap = i64::from(level % 2);
        let parts = [(0, 1, layout.clone()), (far + gap, 1, layout.clone())];
        layout = Layout::structure(parts).unwrap();
    }
    assert_eq!(layout.size(), 5 << 55);
    assert_eq!(layout.elements(), 2 << 55);
    assert!(layout.signature().matches(layout.signature()));
    let counted = layout.times(1).unwrap();
    let last = counted.runs_from(counted.size() - 1).next();
    assert_eq!(last, Some((layout.true_ub() - 1, 1)));
    assert!(layout.to_string().len() < 2000, "{layout}");
}

#[test]
fn threads_may_share_a_layout() {
    fn shared<T: Send + Sync>() {}
    shared::<Layout>();
    shared::<Runs<'_>>();
}

#[test]
fn a_text_is_the_calls() {
    let columns = Layout::of::<f64>()
        .vector(3, 1, 8)
        .unwrap()
        .resized(0, 16)
        .unwrap();
    assert_eq!(columns.to_string(), "f64.vector(3, 1, 8).resized(0, 16)");
    let listed = Layout::of::<u8>()
        .indexed((0..6).map(|at| (at * 2, 1)))
        .unwrap();
    assert_eq!(
        listed.to_string(),
        "u8.indexed([(0, 1), (2, 1), (4, 1), (6, 1), and 2 more])"
    );
    let block = Layout::of::<u8>().hindexed_block(2, [0, 9]).unwrap();
    assert_eq!(block.to_string(), "u8.hindexed_block(2, [0, 9])");
    let cut = Layout::of::<u16>()
        .subarray(&[4, 4], &[2, 2], &[1, 1], Order::Fortran)
        .unwrap();
    assert_eq!(
        cut.to_string(),
        "u16.subarray([4, 4], [2, 2], [1, 1], Fortran)"
    );
    let pair = Layout::basic(Basic::pair(0x22c, 2, 4, 4, 4).unwrap());
    let parts = [(0, 1, pair.with_padding()), (8, 2, listed)];
    assert_eq!(
        format!("{:?}", Layout::structure(parts).unwrap()),
        "structure([(0, 1, basic(0x22c, 6 bytes).with_padding()), \
         (8, 2, u8.indexed([(0, 1), (2, 1), (4, 1), (6, 1), and 2 more]))])"
    );
}

#[test]
fn signatures_of_both_sides_are_compared() {
    let (int, double) = (Layout::of::<i32>(), Layout::of::<f64>());
    let record = Layout::structure([(0, 1, double.clone()), (8, 1, int.clone())]).unwrap();
    let apart = Layout::structure([(100, 1, double.clone()), (0, 1, int.clone())]).unwrap();
    let (sent, place) = (record.times(1000).unwrap(), apart.times(1 << 40).unwrap());
    assert!(sent.signature().is_prefix_of(&place.signature()));
    assert!(!place.signature().is_prefix_of(&sent.signature()));
    assert_eq!(record.homogeneous(), None);
    let column = double.vector(10, 1, 7).unwrap();
    assert!(column.homogeneous().is_some_and(|basic| basic.is::<f64>()));
    assert!(
        column
            .signature()
            .matches(&double.times(10).unwrap().signature())
    );
    assert!(
        !column
            .signature()
            .matches(&int.times(20).unwrap().signature())
    );
}
