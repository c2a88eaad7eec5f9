//! Puts panels, names and notes on a page.

use crate::canvas::{Anchor, Canvas, INK};
use crate::chart::{Chart, Kind, Point};
use crate::error::Result;
use crate::font;
use crate::panel::{TEXT, paragraph};
use crate::{curves, distribution, dots};

/// Left of the axes: the labels of values.
pub(crate) const LEFT: f64 = 76.0;
/// Around everything.
pub(crate) const MARGIN: f64 = 14.0;
const TITLE: f64 = 17.0;
const NOTE: f64 = 10.5;
/// Below the lowest panel: sizes, and what they are.
pub(crate) const BELOW: f64 = 46.0;

pub(crate) fn svg(chart: &Chart) -> Result<String> {
    chart.check()?;
    if chart.percentiles {
        return distribution::svg(chart);
    }
    match dots::size(chart) {
        Some(size) => dots::svg(chart, size),
        None => curves::svg(chart),
    }
}

/// What stands above and below all panels, in lines.
pub(crate) struct Around {
    title: Vec<String>,
    note: Vec<String>,
}

impl Around {
    pub(crate) fn new(chart: &Chart, width: f64) -> Self {
        let limit = width - 2.0 * MARGIN;
        Self {
            title: font::wrapped(&chart.title, TITLE, limit),
            note: font::wrapped(&note(chart), NOTE, limit),
        }
    }

    /// Where the panels may begin.
    pub(crate) fn top(&self) -> f64 {
        match self.title[0].is_empty() {
            true => MARGIN,
            false => MARGIN + self.title.len() as f64 * TITLE * 1.3 + 8.0,
        }
    }

    /// What is left below the panels.
    pub(crate) fn bottom(&self) -> f64 {
        let note = if self.note[0].is_empty() {
            0.0
        } else {
            self.note.len() as f64 * NOTE * 1.3
        };
        note + MARGIN
    }

    pub(crate) fn draw(&self, canvas: &Canvas, height: f64) -> Result<()> {
        paragraph(canvas, (MARGIN, MARGIN), TITLE, &self.title)?;
        let top = height - self.bottom();
        paragraph(canvas, (MARGIN, top), NOTE, &self.note).map(drop)
    }
}

/// The chart's own note, and what else has to be said.
fn note(chart: &Chart) -> String {
    let mut curves = chart.curves.iter();
    let of = |points: &[Point]| points.iter().any(|point| point.range.is_some());
    let has_ranges = curves.any(|curve| of(&curve.points) || of(&curve.ratios));
    let bars = "bars: lowest to highest of repeated measurements";
    match (has_ranges && !chart.percentiles, chart.note.is_empty()) {
        (false, _) => chart.note.clone(),
        (true, true) => bars.to_owned(),
        (true, false) => format!("{}; {bars}", chart.note),
    }
}

/// What stands along the horizontal axis, below its labels.
pub(crate) fn sizes_below(canvas: &Canvas, middle: f64, bottom: f64) -> Result<()> {
    let place = (middle, bottom + 32.0);
    canvas.text(place, Anchor::Middle, TEXT, INK, "size, bytes")
}

pub(crate) fn heading(kind: Kind) -> &'static str {
    match kind {
        Kind::Latency => "latency: lower is better",
        Kind::Bandwidth => "bandwidth: higher is better",
        Kind::Rate => "operations per second: higher is better",
    }
}
