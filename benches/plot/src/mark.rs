//! How curves differ: by colour, by marker and by dash, so that each of the three is enough.
//!
//! The colours are those of Okabe and Ito, which are told apart with every kind of colour blindness
//! and in grey; without their yellow, which is too light for a line on white.

use plotters::prelude::RGBColor;

use crate::canvas::{Canvas, Place, Stroke};
use crate::error::Result;

const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(40, 40, 40),
];

/// Units of dash and gap.
const DASHES: [Option<(f64, f64)>; 4] =
    [None, Some((9.0, 4.0)), Some((2.5, 3.5)), Some((16.0, 5.0))];

/// Corners around a marker's place, in units; the first shape is a circle.
const SHAPES: [&[Place]; 6] = [
    &[],
    &[(-3.8, -3.8), (3.8, -3.8), (3.8, 3.8), (-3.8, 3.8)],
    &[(0.0, -5.4), (5.0, 3.6), (-5.0, 3.6)],
    &[(0.0, -5.6), (5.6, 0.0), (0.0, 5.6), (-5.6, 0.0)],
    &[(0.0, 5.4), (5.0, -3.6), (-5.0, -3.6)],
    &[
        (-1.7, -5.0),
        (1.7, -5.0),
        (1.7, -1.7),
        (5.0, -1.7),
        (5.0, 1.7),
        (1.7, 1.7),
        (1.7, 5.0),
        (-1.7, 5.0),
        (-1.7, 1.7),
        (-5.0, 1.7),
        (-5.0, -1.7),
        (-1.7, -1.7),
    ],
];
const RADIUS: f64 = 4.2;

/// The look of one curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mark {
    pub(crate) stroke: Stroke,
    shape: usize,
}

impl Mark {
    /// Of the curve at this place; 42 differ by colour or marker.
    pub(crate) fn of(index: usize) -> Self {
        Self {
            stroke: Stroke {
                color: COLORS[index % COLORS.len()],
                width: 2.0,
                dash: DASHES[index % DASHES.len()],
            },
            shape: index % SHAPES.len(),
        }
    }

    pub(crate) fn draw(&self, canvas: &Canvas, (x, y): Place) -> Result<()> {
        let corners = SHAPES[self.shape];
        if corners.is_empty() {
            return canvas.circle((x, y), RADIUS, self.stroke.color);
        }
        let places: Vec<Place> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        canvas.polygon(&places, self.stroke.color, 1.0)
    }
}
