//! How measurements are distributed: a panel for each curve, all over the same axes.

use plotters::prelude::RGBColor;

use crate::axis::{self, Axis, Sizes};
use crate::canvas::{Canvas, Place, document};
use crate::chart::{Chart, Curve, Kind, Point, is_drawable};
use crate::draw::{Around, BELOW, LEFT, MARGIN, heading, sizes_below};
use crate::error::{Error, Result};
use crate::font;
use crate::mark::Mark;
use crate::panel::{LINE, Line, Name, Panel, TEXT, paragraph};

/// Width and height of the axes of each curve.
const AXES: (f64, f64) = (400.0, 240.0);
/// Of a single one.
const ALONE: (f64, f64) = (640.0, 380.0);
/// Panels side by side.
const COLUMNS: usize = 2;
/// Between the lowest and the highest line.
const BAND: RGBColor = RGBColor(0, 114, 178);

/// What all panels share, and where they stand.
struct Sheet {
    labels: Vec<String>,
    names: Vec<Name>,
    sizes: Sizes,
    y: Axis,
    /// Width and height of the axes.
    axes: (f64, f64),
    /// Height of the headings.
    head: f64,
    /// From one panel to the next, to the right and downwards.
    step: (f64, f64),
    columns: usize,
}

impl Sheet {
    fn new(kind: Kind, curves: &[&Curve], heads: &[Vec<String>], axes: (f64, f64)) -> Self {
        let (wide, high) = axes;
        let labels = labels(curves);
        let names: Vec<Name> = labels.iter().map(|label| Name::new(label)).collect();
        let column = names.iter().map(Name::width).fold(0.0, f64::max);
        let high = names.iter().map(Name::height).sum::<f64>().max(high);
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let values = points().flat_map(|point| point.percentiles.iter().map(|(_, value)| *value));
        let y = axis::values(values.filter(|value| is_drawable(*value)), high, |value| {
            axis::named(kind, value)
        });
        let head = heads.iter().map(Vec::len).max().unwrap_or(0) as f64 * LINE + 4.0;
        Self {
            labels,
            names,
            sizes: Sizes::new(points().map(|point| point.size), wide),
            y,
            axes: (wide, high),
            head,
            step: (LEFT + wide + column + MARGIN, head + high + BELOW),
            columns: curves.len().min(COLUMNS),
        }
    }

    fn draw(&self, canvas: &Canvas, (left, top): Place, curve: &Curve) -> Result<()> {
        let (wide, high) = self.axes;
        let panel = Panel {
            upper_left: (left, top),
            lower_right: (left + wide, top + high),
            x: &self.sizes.axis,
            y: &self.y,
            is_lowest: true,
        };
        panel.draw_axes(canvas)?;
        let labels = self.labels.iter().enumerate();
        let lines: Vec<Line> = labels
            .map(|label| of_label(label, curve, &self.sizes))
            .collect();
        if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
            let band = first.places.iter().chain(last.places.iter().rev());
            let band: Vec<Place> = band.map(|&place| panel.place(place)).collect();
            canvas.polygon(&band, BAND, 0.10)?;
        }
        for line in &lines {
            panel.draw_line(canvas, line)?;
        }
        panel.draw_names(canvas, &lines, &self.names)?;
        sizes_below(canvas, left + wide / 2.0, top + high)
    }
}

pub(crate) fn svg(chart: &Chart) -> Result<String> {
    let all = chart.curves.iter();
    let curves: Vec<&Curve> = all.filter(|curve| has_percentiles(curve)).collect();
    if curves.is_empty() {
        return Err(Error::NoPercentiles);
    }
    let axes = if curves.len() == 1 { ALONE } else { AXES };
    // The title of a single one has its name already.
    let is_named = curves.len() == 1 && chart.title.starts_with(&curves[0].name);
    let heads: Vec<Vec<String>> = curves
        .iter()
        .filter(|_| !is_named)
        .map(|curve| font::wrapped(&curve.name, TEXT, axes.0))
        .collect();
    let sheet = Sheet::new(chart.kind, &curves, &heads, axes);
    let width = sheet.step.0 * sheet.columns as f64;
    let around = Around::new(chart, width);
    let top = around.top() + LINE + 8.0;
    let rows = curves.len().div_ceil(sheet.columns);
    let height = top + sheet.step.1 * rows as f64 + around.bottom();
    document((width, height), |canvas| {
        around.draw(canvas, height)?;
        let heading = [format!("distribution of {}", heading(chart.kind))];
        paragraph(canvas, (MARGIN, around.top()), TEXT, &heading)?;
        for (at, curve) in curves.iter().enumerate() {
            let left = LEFT + sheet.step.0 * (at % sheet.columns) as f64;
            let top = top + sheet.step.1 * (at / sheet.columns) as f64;
            if let Some(head) = heads.get(at) {
                paragraph(canvas, (left, top), TEXT, head)?;
            }
            sheet.draw(canvas, (left, top + sheet.head), curve)?;
        }
        Ok(())
    })
}

fn has_percentiles(curve: &Curve) -> bool {
    let mut all = curve
        .points
        .iter()
        .flat_map(|point: &Point| &point.percentiles);
    all.any(|(_, value)| is_drawable(*value))
}

/// All that any curve has, in the order of the first that has it: the highest first, so that it
/// stands above where it is as high as the next.
fn labels(curves: &[&Curve]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for point in curves.iter().flat_map(|curve| &curve.points) {
        for (label, _) in point.percentiles.iter().rev() {
            if !labels.contains(label) {
                labels.push(label.clone());
            }
        }
    }
    labels
}

fn of_label((index, label): (usize, &String), curve: &Curve, sizes: &Sizes) -> Line {
    let mut points: Vec<(u64, f64)> = Vec::new();
    for point in &curve.points {
        let found = point
            .percentiles
            .iter()
            .find(|(name, value)| name == label && is_drawable(*value));
        points.extend(found.map(|(_, value)| (point.size, *value)));
    }
    points.sort_by_key(|(size, _)| *size);
    let places = points
        .iter()
        .map(|&(size, value)| (sizes.position(size), value.log10()));
    Line {
        mark: Mark::of(index),
        places: places.collect(),
        ranges: Vec::new(),
    }
}
