//! Curves over the message size, each with its name, and below them each over the base.

use std::borrow::Cow;

use crate::axis::{self, Axis, Sizes};
use crate::canvas::{Canvas, Place, Stroke, document};
use crate::chart::{Chart, Curve, Kind, Point, is_drawable};
use crate::draw::{Around, BELOW, LEFT, MARGIN, heading, sizes_below};
use crate::error::Result;
use crate::font;
use crate::mark::Mark;
use crate::panel::{LINE, Line, Name, Panel, TEXT, paragraph};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 340.0;
const RATIO_HEIGHT: f64 = 170.0;
/// Between two panels, beside the heading of the lower one.
const BETWEEN: f64 = 18.0;

/// One panel with its heading.
struct Part {
    heading: Vec<String>,
    height: f64,
    y: Axis,
    lines: Vec<Line>,
    /// A line at 1, below the others.
    one: Option<Stroke>,
}

impl Part {
    fn new(heading: &str, height: f64, y: Axis, lines: Vec<Line>) -> Self {
        Self {
            heading: font::wrapped(heading, TEXT, WIDTH),
            height,
            y,
            lines,
            one: None,
        }
    }

    fn head(&self) -> f64 {
        self.heading.len() as f64 * LINE + 4.0
    }

    /// Draws it from here downwards, and gives where its axes are.
    fn draw<'a>(
        &'a self,
        canvas: &Canvas,
        top: f64,
        x: &'a Axis,
        is_lowest: bool,
    ) -> Result<Panel<'a>> {
        paragraph(canvas, (LEFT, top), TEXT, &self.heading)?;
        let top = top + self.head();
        let panel = Panel {
            upper_left: (LEFT, top),
            lower_right: (LEFT + WIDTH, top + self.height),
            x,
            y: &self.y,
            is_lowest,
        };
        panel.draw_axes(canvas)?;
        if let Some(one) = &self.one {
            let ends = [x.from, x.to].map(|x| panel.place((x, 0.0)));
            canvas.line(&ends, one)?;
        }
        for line in &self.lines {
            panel.draw_line(canvas, line)?;
        }
        Ok(panel)
    }
}

pub(crate) fn svg(chart: &Chart) -> Result<String> {
    let curves = &chart.curves;
    let names: Vec<Name> = curves.iter().map(|curve| Name::new(&curve.name)).collect();
    let column = names.iter().map(Name::width).fold(0.0, f64::max);
    let width = LEFT + WIDTH + column + MARGIN;
    let around = Around::new(chart, width);
    let sizes = curves
        .iter()
        .flat_map(|curve| curve.points.iter().map(|point| point.size));
    let sizes = Sizes::new(sizes, WIDTH);

    let height = HEIGHT.max(names.iter().map(Name::height).sum());
    let values = curves
        .iter()
        .flat_map(|curve| curve.points.iter().flat_map(extent));
    let y = axis::values(values, height, |value| axis::named(chart.kind, value));
    let points = curves.iter().map(|curve| &curve.points[..]);
    let upper = Part::new(heading(chart.kind), height, y, lines(points, &sizes));
    let lower = comparison(chart, &sizes);

    let top = around.top();
    let middle = top + upper.head() + upper.height + BETWEEN;
    let bottom = match &lower {
        Some(lower) => middle + lower.head() + lower.height,
        None => middle - BETWEEN,
    };
    let height = bottom + BELOW + around.bottom();
    document((width, height), |canvas| {
        around.draw(canvas, height)?;
        let panel = upper.draw(canvas, top, &sizes.axis, lower.is_none())?;
        panel.draw_names(canvas, &upper.lines, &names)?;
        if let Some(lower) = &lower {
            lower.draw(canvas, middle, &sizes.axis, true)?;
        }
        sizes_below(canvas, LEFT + WIDTH / 2.0, bottom)
    })
}

/// Each curve over the base, where there is anything to compare.
fn comparison(chart: &Chart, sizes: &Sizes) -> Option<Part> {
    let base = &chart.curves[chart.base];
    let ratios = (0..chart.curves.len()).map(|index| ratio(chart, index));
    let ratios: Vec<Cow<[Point]>> = ratios.collect();
    let mut values: Vec<f64> = ratios
        .iter()
        .flat_map(|points| points.iter())
        .flat_map(extent)
        .collect();
    if values.is_empty() {
        return None;
    }
    // The line of the base is at 1.
    values.push(1.0);
    let y = axis::values(values, RATIO_HEIGHT, axis::ratio);
    let (what, better) = match chart.kind {
        Kind::Bandwidth => ("bandwidth", "above"),
        Kind::Rate => ("rate", "above"),
        Kind::Latency => ("latency", "below"),
    };
    let heading = format!("{what} over that of {}: {better} 1 is better", base.name);
    let lines = lines(ratios.iter().map(Cow::as_ref), sizes);
    Some(Part {
        one: Some(Mark::of(chart.base).stroke),
        ..Part::new(&heading, RATIO_HEIGHT, y, lines)
    })
}

/// Values that an axis has to reach.
pub(crate) fn extent(point: &Point) -> impl Iterator<Item = f64> {
    let ends = point.range.into_iter().flatten();
    let all = std::iter::once(point.value).chain(ends);
    let is_shown = is_drawable(point.value);
    all.filter(move |value| is_shown && is_drawable(*value))
}

fn lines<'a>(curves: impl Iterator<Item = &'a [Point]>, sizes: &Sizes) -> Vec<Line> {
    let line = |(index, points): (usize, &[Point])| {
        let drawable = points.iter().filter(|point| is_drawable(point.value));
        let mut points: Vec<&Point> = drawable.collect();
        points.sort_by_key(|point| point.size);
        let place = |point: &&Point| (sizes.position(point.size), point.value.log10());
        let range = |point: &&Point| {
            let ends = point
                .range
                .filter(|ends| ends.iter().all(|&end| is_drawable(end)))?;
            Some((sizes.position(point.size), ends.map(f64::log10)))
        };
        Line {
            mark: Mark::of(index),
            places: points.iter().map(place).collect::<Vec<Place>>(),
            ranges: points.iter().filter_map(range).collect(),
        }
    };
    curves.enumerate().map(line).collect()
}

/// Of one curve over the base, where there is anything to compare.
pub(crate) fn ratio(chart: &Chart, index: usize) -> Cow<'_, [Point]> {
    let curve = &chart.curves[index];
    match &curve.ratios[..] {
        _ if index == chart.base => Cow::Borrowed(&[]),
        [] => Cow::Owned(over(curve, &chart.curves[chart.base])),
        measured => Cow::Borrowed(measured),
    }
}

/// At sizes that both have.
fn over(curve: &Curve, base: &Curve) -> Vec<Point> {
    let ratio = |point: &Point| {
        let same = base.points.iter().find(|other| other.size == point.size)?;
        let both = is_drawable(point.value) && is_drawable(same.value);
        both.then(|| Point::new(point.size, point.value / same.value))
    };
    curve.points.iter().filter_map(ratio).collect()
}
