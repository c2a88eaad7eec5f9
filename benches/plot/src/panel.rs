//! One pair of axes with lines in it and their names at its right.

use crate::axis::Axis;
use crate::canvas::{Anchor, Canvas, FAINT, GREY, GRID, INK, Place, Stroke};
use crate::error::Result;
use crate::font;
use crate::label;
use crate::mark::Mark;

/// Heights of letters, units.
pub(crate) const TEXT: f64 = 12.5;
pub(crate) const SMALL: f64 = 11.5;
/// From one line of text to the next.
pub(crate) const LINE: f64 = 16.0;
/// Between the names of two curves.
const APART: f64 = 6.0;
/// From the axes to the names: what leads from a curve to its name has room.
const LEAD: f64 = 22.0;
/// The piece of a curve that stands beside its name.
const SAMPLE: f64 = 34.0;
/// Widest name before it goes into the next line.
const WIDEST: f64 = 190.0;
/// Least distance of two markers of a curve.
const MARKERS_APART: f64 = 10.0;

/// One line, in positions of the axes, from left to right.
pub(crate) struct Line {
    pub(crate) mark: Mark,
    pub(crate) places: Vec<Place>,
    /// From lowest to highest, at a position of the horizontal axis.
    pub(crate) ranges: Vec<(f64, [f64; 2])>,
}

pub(crate) struct Panel<'a> {
    /// The corners of the axes.
    pub(crate) upper_left: Place,
    pub(crate) lower_right: Place,
    pub(crate) x: &'a Axis,
    pub(crate) y: &'a Axis,
    /// Does it write below what stands along the horizontal axis?
    pub(crate) is_lowest: bool,
}

impl Panel<'_> {
    /// Where a position of the axes stands.
    pub(crate) fn place(&self, (x, y): Place) -> Place {
        let ((left, top), (right, bottom)) = (self.upper_left, self.lower_right);
        (
            left + self.x.part(x) * (right - left),
            bottom - self.y.part(y) * (bottom - top),
        )
    }

    /// What lies behind the curves.
    pub(crate) fn draw_axes(&self, canvas: &Canvas) -> Result<()> {
        let ((left, top), (right, bottom)) = (self.upper_left, self.lower_right);
        let across = |y: f64, stroke| canvas.line(&[(left, y), (right, y)], stroke);
        let (faint, grid) = (Stroke::plain(FAINT, 0.8), Stroke::plain(GRID, 0.8));
        for &value in &self.y.between {
            across(self.place((self.x.from, value)).1, &faint)?;
        }
        for (value, label) in &self.y.ticks {
            let y = self.place((self.x.from, *value)).1;
            across(y, &grid)?;
            canvas.text((left - 7.0, y), Anchor::Right, SMALL, INK, label)?;
        }
        for (value, label) in &self.x.ticks {
            let x = self.place((*value, self.y.from)).0;
            canvas.line(&[(x, top), (x, bottom)], &grid)?;
            if self.is_lowest {
                canvas.text((x, bottom + 13.0), Anchor::Middle, SMALL, INK, label)?;
            }
        }
        let corners = [(left, top), (left, bottom), (right, bottom)];
        canvas.line(&corners, &Stroke::plain(GREY, 1.0))
    }

    pub(crate) fn draw_line(&self, canvas: &Canvas, line: &Line) -> Result<()> {
        let mark = &line.mark;
        let thin = Stroke::plain(mark.stroke.color, 1.2);
        for &(x, [low, high]) in &line.ranges {
            let (upper, lower) = (self.place((x, high)), self.place((x, low)));
            canvas.line(&[upper, lower], &thin)?;
            for (x, y) in [upper, lower] {
                canvas.line(&[(x - 3.0, y), (x + 3.0, y)], &thin)?;
            }
        }
        let places: Vec<Place> = line.places.iter().map(|&place| self.place(place)).collect();
        canvas.line(&places, &mark.stroke)?;
        let mut before = f64::NEG_INFINITY;
        for &(x, y) in &places {
            if x - before >= MARKERS_APART {
                mark.draw(canvas, (x, y))?;
                before = x;
            }
        }
        Ok(())
    }

    /// Names beside the ends of lines; a thin line leads from one to the other.
    pub(crate) fn draw_names(&self, canvas: &Canvas, lines: &[Line], names: &[Name]) -> Result<()> {
        let ends = lines.iter().zip(names);
        let ends: Vec<(&Line, &Name, Place)> = ends
            .filter_map(|(line, name)| Some((line, name, *line.places.last()?)))
            .collect();
        let wish = |(_, name, end): &(&Line, &Name, Place)| (self.place(*end).1, name.height());
        let wishes: Vec<(f64, f64)> = ends.iter().map(wish).collect();
        let (right, bottom) = self.lower_right;
        let middles = label::apart(&wishes, self.upper_left.1 - LINE / 2.0, bottom);
        let begin = right + LEAD;
        for ((line, name, last), middle) in ends.into_iter().zip(middles) {
            let end = self.place(last);
            // What ends earlier would be led through the others.
            if last.0 + (self.x.to - self.x.from) * 0.1 > self.x.to {
                let lead = Stroke::plain(line.mark.stroke.color, 0.7);
                canvas.line(&[(end.0 + 6.0, end.1), (begin - 2.0, middle)], &lead)?;
            }
            let sample = [(begin, middle), (begin + SAMPLE, middle)];
            canvas.line(&sample, &line.mark.stroke)?;
            line.mark.draw(canvas, (begin + SAMPLE / 2.0, middle))?;
            name.draw(canvas, (begin + SAMPLE + 7.0, middle))?;
        }
        Ok(())
    }
}

/// A curve's name, in as many lines as it needs.
pub(crate) struct Name(Vec<String>);

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        Self(font::wrapped(name, TEXT, WIDEST))
    }

    /// Upright, with what keeps it apart from others.
    pub(crate) fn height(&self) -> f64 {
        self.0.len() as f64 * LINE + APART
    }

    pub(crate) fn text_width(&self) -> f64 {
        let widths = self.0.iter().map(|line| font::width(line, TEXT));
        widths.fold(0.0, f64::max)
    }

    /// From the axes to its end.
    pub(crate) fn width(&self) -> f64 {
        LEAD + SAMPLE + 7.0 + self.text_width()
    }

    pub(crate) fn draw(&self, canvas: &Canvas, (x, middle): Place) -> Result<()> {
        let first = middle - (self.0.len() - 1) as f64 * LINE / 2.0;
        for (at, line) in self.0.iter().enumerate() {
            let place = (x, first + at as f64 * LINE);
            canvas.text(place, Anchor::Left, TEXT, INK, line)?;
        }
        Ok(())
    }
}

/// Lines of text from a place downwards; gives where they end.
pub(crate) fn paragraph(
    canvas: &Canvas,
    (x, top): Place,
    size: f64,
    lines: &[String],
) -> Result<f64> {
    let color = if size < SMALL { GREY } else { INK };
    let mut y = top;
    for line in lines {
        canvas.text((x, y + size * 0.65), Anchor::Left, size, color, line)?;
        y += size * 1.3;
    }
    Ok(y)
}
