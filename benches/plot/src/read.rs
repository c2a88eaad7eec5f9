//! Results as tables: what `windlass bench` prints, and any text in the format of OSU's benchmarks.
//!
//! Promises: whatever a file contains, the answer is its tables or an error that names the file,
//! the line where there is one, and the remedy.

use std::fmt;

use crate::chart::{Kind, Point, is_drawable};
use crate::error::{Error, Result};

mod json;
mod text;

/// Remarks that say how something was measured, the one that tells most first.
pub(crate) const DETAILS: [&str; 5] = [
    "Route",
    "Window creation",
    "Synchronization",
    "Ranks",
    "Window size",
];

/// The unit of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    /// What its values are.
    pub(crate) kind: Kind,
    /// Seconds, bytes per second or operations per second of one unit.
    factor: f64,
}

impl Unit {
    /// What OSU's benchmarks print: microseconds, 10^6 bytes per second, messages per second.
    pub(crate) fn of_osu(kind: Kind) -> Self {
        let factor = match kind {
            Kind::Latency => 1e-6,
            Kind::Bandwidth => 1e6,
            Kind::Rate => 1.0,
        };
        Self { kind, factor }
    }

    /// From the heading of a column, as in `Latency (us)`, `Avg Latency(us)`, `MB/s`.
    fn of_heading(heading: &str) -> Option<Self> {
        let unit = |kind, factor| Some(Self { kind, factor });
        let mut words =
            heading.split(|letter: char| letter.is_whitespace() || "()[]".contains(letter));
        words.find_map(|word| match word {
            "ns" | "nsec" => unit(Kind::Latency, 1e-9),
            "us" | "usec" | "µs" | "μs" => unit(Kind::Latency, 1e-6),
            "ms" | "msec" => unit(Kind::Latency, 1e-3),
            "s" | "sec" => unit(Kind::Latency, 1.0),
            "B/s" => unit(Kind::Bandwidth, 1.0),
            "KB/s" | "kB/s" => unit(Kind::Bandwidth, 1e3),
            "MB/s" => unit(Kind::Bandwidth, 1e6),
            "GB/s" => unit(Kind::Bandwidth, 1e9),
            "Messages/s" | "Mess./s" | "messages/s" => unit(Kind::Rate, 1.0),
            _ => None,
        })
    }
}

/// One result: the rows below one heading.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    /// Of the file, for errors and where nothing else tells results apart.
    pub(crate) source: String,
    /// As in `OSU MPI_Put Latency` or `Windlass put-latency`; empty if it has none.
    pub(crate) title: String,
    /// How it was measured, as in `("Synchronization", "flush")`.
    pub(crate) details: Vec<(String, String)>,
    /// In units of `unit`.
    rows: Vec<Point>,
    /// If the heading tells it.
    pub(crate) unit: Option<Unit>,
    /// Rows that no logarithmic axis can show.
    pub(crate) left_out: usize,
    /// Rows that the benchmark itself says were disturbed.
    pub(crate) disturbed: usize,
}

impl Table {
    fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            ..Self::default()
        }
    }

    fn push(&mut self, row: Point) {
        if is_drawable(row.value) {
            self.rows.push(row);
        } else {
            self.left_out += 1;
        }
    }

    /// Points in seconds, bytes per second or operations per second.
    pub(crate) fn points(&self, unit: Unit) -> Vec<Point> {
        let mut points = self.rows.clone();
        for point in &mut points {
            point.value *= unit.factor;
            for (_, value) in &mut point.percentiles {
                *value *= unit.factor;
            }
        }
        points
    }
}

/// All tables of a text.
pub(crate) fn tables(source: &str, bytes: &[u8]) -> Result<Vec<Table>> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}');
    let tables = if json::is_json(text) {
        json::tables(source, text)?
    } else {
        text::tables(source, text)?
    };
    if tables.is_empty() {
        return Err(Error::NoRows {
            source_name: source.to_owned(),
        });
    }
    Ok(tables)
}

/// Orders percentiles from the best to the worst case: `min`, `p50`, `p99`, `max`.
fn rank(label: &str) -> f64 {
    match label {
        "min" => 0.0,
        "median" => 50.0,
        "mean" => 50.5,
        "max" => 100.0,
        _ => label.trim_start_matches('p').parse().unwrap_or(50.0),
    }
}

fn line_error(source: &str, line: usize, what: impl fmt::Display) -> Error {
    Error::Line {
        source_name: source.to_owned(),
        line,
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests;
