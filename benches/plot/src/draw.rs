//! Puts panels, names and notes on a page.

use crate::canvas::{Anchor, Canvas, INK};
use crate::chart::{Chart, Kind};
use crate::error::Result;
use crate::font;
use crate::panel::{TEXT, paragraph};
use crate::{curves, distribution};

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
    match chart.kind {
        Kind::Percentiles => distribution::svg(chart),
        _ => curves::svg(chart),
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
            note: font::wrapped(&chart.note, NOTE, limit),
        }
    }

    /// Where the panels may begin.
    pub(crate) fn top(&self) -> f64 {
        MARGIN + self.title.len() as f64 * TITLE * 1.3 + 8.0
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

/// What stands along the horizontal axis, below its labels.
pub(crate) fn sizes_below(canvas: &Canvas, middle: f64, bottom: f64) -> Result<()> {
    let place = (middle, bottom + 32.0);
    canvas.text(place, Anchor::Middle, TEXT, INK, "message size, bytes")
}

pub(crate) fn heading(kind: Kind) -> &'static str {
    match kind {
        Kind::Latency => "latency: lower is better",
        Kind::Bandwidth => "bandwidth: higher is better",
        Kind::Rate => "operations per second: higher is better",
        Kind::Percentiles => "latency and how it is distributed: lower is better",
    }
}

#[cfg(test)]
mod tests {
    use crate::{Chart, Curve, Kind, Point};

    fn chart() -> Chart {
        let points =
            [(1, 1e-9), (32, 1e-8), (1024, 1e-7)].map(|(size, value)| Point::new(size, value));
        let slower = points
            .clone()
            .map(|point| Point::new(point.size, point.value * 3.0));
        let curves = vec![
            Curve::new("first", points.to_vec()),
            Curve::new("<second> & 'last'", slower.to_vec()),
        ];
        Chart::new("title", Kind::Latency, curves).note("where")
    }

    /// Values of an attribute of all elements of this name.
    fn attributes(svg: &str, element: &str, name: &str) -> Vec<f64> {
        let tree = resvg::usvg::roxmltree::Document::parse(svg).unwrap();
        let elements = tree.descendants().filter(|node| node.has_tag_name(element));
        elements
            .filter_map(|node| node.attribute(name)?.parse().ok())
            .collect()
    }

    #[test]
    fn points_stand_where_their_logarithms_do() {
        let svg = chart().svg().unwrap();
        // The first curve's markers are circles: one for each point, one beside its name.
        let [x, y] = ["cx", "cy"].map(|name| attributes(&svg, "circle", name));
        assert_eq!(x.len(), 4, "{svg}");
        assert!((x[1] - x[0] - (x[2] - x[1])).abs() <= 1.0, "{x:?}");
        assert!((y[1] - y[0] - (y[2] - y[1])).abs() <= 1.0, "{y:?}");
        assert!(x[0] < x[2] && y[0] > y[2]);
    }

    #[test]
    fn a_picture_has_ink_in_every_part_that_has_text() {
        let png = chart().png().unwrap();
        let picture = resvg::tiny_skia::Pixmap::decode_png(&png).unwrap();
        let (width, height) = (picture.width(), picture.height());
        let dark = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
            let mut places = y.flat_map(|y| x.clone().map(move |x| (x, y)));
            places.any(|(x, y)| picture.pixel(x, y).is_some_and(|pixel| pixel.red() < 120))
        };
        assert!(dark(0..width / 2, 0..70), "title");
        assert!(dark(0..140, height / 4..height / 2), "labels of values");
        assert!(dark(width - 150..width, 0..height / 2), "names");
        assert!(dark(0..width / 2, height - 70..height), "note");
        assert!(!dark(width - 8..width, 0..height), "margin");
    }
}
