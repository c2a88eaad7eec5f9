//! Curves of benchmark results as pictures: latency, bandwidth, each over a base, and percentiles.
//!
//! A [`Chart`] of [`Curve`]s becomes an SVG document or a PNG file. Neither needs a font or a
//! library of the system. Both axes are logarithmic; curves differ by colour, marker and dash, and
//! have their names at their ends.
#![forbid(unsafe_code)]

mod axis;
mod canvas;
mod chart;
mod collect;
mod curves;
mod distribution;
mod dots;
mod draw;
mod error;
mod font;
mod label;
mod mark;
mod name;
mod output;
mod panel;
mod read;
#[cfg(test)]
mod tests;

pub use chart::{Chart, Curve, Kind, Point};
pub use collect::{Wish, chart};
pub use error::{Error, Result};
