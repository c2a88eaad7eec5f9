//! What is drawn: curves of points, and the panels that show them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::{draw, font, output};

/// What the values of a chart are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Seconds of one operation.
    Latency,
    /// Bytes per second.
    Bandwidth,
    /// Operations per second.
    Rate,
}

/// One measured size.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Bytes of a message.
    pub size: u64,
    /// In the unit of the chart's [`Kind`].
    pub value: f64,
    /// Lowest and highest of repeated measurements of `value`.
    pub range: Option<[f64; 2]>,
    /// Where parts of all measurements lie, as in `("p99", 2e-6)`, lowest first.
    pub percentiles: Vec<(String, f64)>,
}

impl Point {
    /// A value of which no more is known.
    pub fn new(size: u64, value: f64) -> Self {
        Self {
            size,
            value,
            range: None,
            percentiles: Vec::new(),
        }
    }

    /// The same with the lowest and the highest of repeated measurements.
    pub fn between(self, lowest: f64, highest: f64) -> Self {
        Self {
            range: Some([lowest, highest]),
            ..self
        }
    }
}

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Stands beside the line.
    pub name: String,
    /// Any order.
    pub points: Vec<Point>,
    /// Over the chart's base, where both were measured in turn, so that such a ratio says more than
    /// that of the values. Empty: the ratio of the values.
    pub ratios: Vec<Point>,
}

impl Curve {
    /// A line through these points.
    pub fn new(name: impl Into<String>, points: Vec<Point>) -> Self {
        Self {
            name: name.into(),
            points,
            ratios: Vec::new(),
        }
    }
}

/// A picture: the curves, and below them each one over the base.
///
/// ```
/// use windlass_plot::{Chart, Curve, Kind, Point};
///
/// let curve = |name: &str, seconds: f64| {
///     let points = [8, 64, 512].map(|size| Point::new(size, seconds * (1.0 + size as f64 / 512.0)));
///     Curve::new(name, points.to_vec())
/// };
/// let curves = vec![curve("one", 4e-9), curve("other", 50e-9)];
/// let chart = Chart::new("put and flush", Kind::Latency, curves).note("27 November 2026, 2 cpus");
/// assert!(chart.svg()?.starts_with("<svg"));
/// # Ok::<(), windlass_plot::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Stands above the picture.
    pub title: String,
    /// What the values are.
    pub kind: Kind,
    /// At least one, with at least one point above 0.
    pub curves: Vec<Curve>,
    /// The curve that the others are compared with, by its place in `curves`; of a single one, and
    /// of percentiles, there is no comparison.
    pub base: usize,
    /// How measurements are distributed instead: a panel for each curve that has percentiles.
    pub percentiles: bool,
    /// Stands below the picture: when and where this was measured.
    pub note: String,
}

impl Chart {
    /// Over the first curve, without a note.
    pub fn new(title: impl Into<String>, kind: Kind, curves: Vec<Curve>) -> Self {
        Self {
            title: title.into(),
            kind,
            curves,
            base: 0,
            percentiles: false,
            note: String::new(),
        }
    }

    /// The same with a line below the picture.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }

    /// The same over another curve.
    pub fn base(self, base: usize) -> Self {
        Self { base, ..self }
    }

    /// How measurements are distributed instead.
    pub fn percentiles(self) -> Self {
        Self {
            percentiles: true,
            ..self
        }
    }

    /// The picture as an SVG document.
    pub fn svg(&self) -> Result<String> {
        draw::svg(self)
    }

    /// The picture as a PNG file, with two pixels for one unit of the SVG document.
    pub fn png(&self) -> Result<Vec<u8>> {
        font::png(&self.svg()?)
    }

    /// Writes the picture into a file whose name ends with `.svg` or `.png`. What was there is
    /// replaced when the picture is complete; gives whether something was.
    pub fn write(&self, path: &Path) -> Result<bool> {
        let bytes = match output::format(path)? {
            output::Format::Svg => self.svg()?.into_bytes(),
            output::Format::Png => self.png()?,
        };
        output::write(path, &bytes)
    }

    /// Refuses a name that [`Chart::write`] would refuse.
    pub fn is_writable(path: &Path) -> Result<()> {
        output::format(path).map(drop)
    }

    /// Refuses what cannot be drawn.
    pub(crate) fn check(&self) -> Result<()> {
        let drawable = |curve: &Curve| curve.points.iter().any(|point| is_drawable(point.value));
        if !self.curves.iter().any(drawable) {
            return Err(Error::Empty);
        }
        if self.base >= self.curves.len() {
            return Err(Error::Base {
                base: self.base,
                curves: self.curves.len(),
            });
        }
        Ok(())
    }
}

/// Axes are logarithmic.
pub(crate) fn is_drawable(value: f64) -> bool {
    value.is_finite() && value > 0.0
}
