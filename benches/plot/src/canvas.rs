//! Lines, shapes and text in units of the picture, drawn by plotters as SVG.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::{
    Circle, DrawingArea, IntoDrawingArea, PathElement, Polygon, RGBColor, Rectangle, SVGBackend,
    Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, ShapeStyle};

use crate::error::{Error, Result};
use crate::font;

/// Plotters draws at whole numbers: this many for one unit keep curves smooth.
const FINE: f64 = 10.0;

/// A place in units, from the upper left corner.
pub(crate) type Place = (f64, f64);

pub(crate) const INK: RGBColor = RGBColor(34, 34, 34);
pub(crate) const GREY: RGBColor = RGBColor(110, 110, 110);
pub(crate) const GRID: RGBColor = RGBColor(222, 222, 222);
pub(crate) const FAINT: RGBColor = RGBColor(241, 241, 241);

/// A line's look: colour, width, and dash and gap, all in units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stroke {
    pub(crate) color: RGBColor,
    pub(crate) width: f64,
    pub(crate) dash: Option<(f64, f64)>,
}

impl Stroke {
    pub(crate) fn plain(color: RGBColor, width: f64) -> Self {
        Self {
            color,
            width,
            dash: None,
        }
    }
}

/// Which point of a text stands at its place; upright its middle always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Left,
    Middle,
    Right,
}

pub(crate) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// What is drawn last may hide what was drawn before.
impl Canvas<'_> {
    fn style(&self, stroke: &Stroke) -> ShapeStyle {
        let width = (stroke.width * FINE).round() as u32;
        stroke.color.stroke_width(width)
    }

    pub(crate) fn line(&self, places: &[Place], stroke: &Stroke) -> Result<()> {
        let places: Vec<_> = places.iter().map(|&place| fine(place)).collect();
        let style = self.style(stroke);
        match stroke.dash {
            None => self.area.draw(&PathElement::new(places, style)),
            Some((dash, gap)) => {
                let [dash, gap] = [dash, gap].map(|units| (units * FINE) as i32);
                self.area
                    .draw(&DashedPathElement::new(places, dash, gap, style))
            }
        }
        .map_err(failed)
    }

    /// Filled, with an opacity.
    pub(crate) fn polygon(&self, places: &[Place], color: RGBColor, opacity: f64) -> Result<()> {
        let places: Vec<_> = places.iter().map(|&place| fine(place)).collect();
        let polygon = Polygon::new(places, color.mix(opacity));
        self.area.draw(&polygon).map_err(failed)
    }

    pub(crate) fn circle(&self, centre: Place, radius: f64, color: RGBColor) -> Result<()> {
        let circle = Circle::new(fine(centre), (radius * FINE) as i32, color.filled());
        self.area.draw(&circle).map_err(failed)
    }

    pub(crate) fn text(
        &self,
        place: Place,
        anchor: Anchor,
        size: f64,
        color: RGBColor,
        text: &str,
    ) -> Result<()> {
        let h_pos = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        // The SVG back-end takes 1.24 as the height of a line for a font of size 1.
        let font = FontDesc::new(
            FontFamily::Name(font::FAMILY),
            size * FINE * 1.24,
            FontStyle::Normal,
        );
        let style = font.color(&color).pos(Pos::new(h_pos, VPos::Center));
        self.area
            .draw(&Text::new(text.to_owned(), fine(place), style))
            .map_err(failed)
    }
}

fn fine((x, y): Place) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Draw(error.to_string())
}

/// The document of this size in units that `draw` makes, on white.
pub(crate) fn document(
    (width, height): (f64, f64),
    draw: impl FnOnce(&Canvas) -> Result<()>,
) -> Result<String> {
    let (width, height) = (width.ceil() as u32, height.ceil() as u32);
    let [wide, high] = [width, height].map(|units| units * FINE as u32);
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (wide, high)).into_drawing_area();
        let whole = Rectangle::new([(0, 0), (wide as i32, high as i32)], WHITE.filled());
        area.draw(&whole).map_err(failed)?;
        let canvas = Canvas { area };
        draw(&canvas)?;
        canvas.area.present().map_err(failed)?;
    }
    // Only the outer size is in units: viewers show it at that size, and scale what is inside.
    let fine = format!("width=\"{wide}\" height=\"{high}\"");
    Ok(text.replacen(&fine, &format!("width=\"{width}\" height=\"{height}\""), 1))
}
