//! OSU's format: remarks begin with `#`, each other line has a size and one or more values.

use super::{DETAILS, Table, Unit, line_error, rank};
use crate::chart::Point;
use crate::error::Result;

/// What a column behind the size is.
#[derive(Clone, Debug, PartialEq)]
enum Column {
    /// The value itself.
    Value,
    /// `min`, `p99` and the like.
    Percentile(String),
    /// Iterations, validation.
    Other,
}

/// What precedes rows.
#[derive(Clone, Default)]
struct Head {
    title: String,
    details: Vec<(String, String)>,
    columns: Option<Vec<Column>>,
    unit: Option<Unit>,
}

pub(super) fn tables(source: &str, text: &str) -> Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    let mut head = Head::default();
    // Rows after a new heading make a new table.
    let mut is_new = true;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(remark) = line.strip_prefix('#') {
            let remark = remark.trim();
            is_new |= head.read(remark, is_new);
            if let Some(table) = tables.last_mut().filter(|_| !is_new) {
                table.disturbed += usize::from(remark.starts_with("disturbed:"));
            }
        } else if !line.is_empty() {
            let row = row(line, head.columns.as_deref())
                .map_err(|what| line_error(source, at + 1, what))?;
            // As of two files without headings, one after the other.
            let again = |table: &Table| table.rows.iter().any(|other| other.size == row.size);
            if is_new || tables.last().is_some_and(again) {
                tables.push(Table {
                    title: head.title.clone(),
                    details: head.details.clone(),
                    unit: head.unit,
                    ..Table::new(source)
                });
                is_new = false;
            }
            if let Some(table) = tables.last_mut() {
                table.push(row);
            }
        }
    }
    Ok(tables)
}

impl Head {
    /// Takes in what a remark says; gives whether it begins a table.
    fn read(&mut self, remark: &str, is_new: bool) -> bool {
        if remark.starts_with("OSU ") || remark.starts_with("Windlass ") {
            *self = Self {
                title: title(remark),
                ..Self::default()
            };
            return true;
        }
        let mut words = remark.split_whitespace();
        if words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("size"))
        {
            let headings = headings(remark);
            self.unit = headings
                .iter()
                .find_map(|heading| Unit::of_heading(heading));
            self.columns = Some(columns(&headings));
            return true;
        }
        let detail = remark
            .split_once(':')
            .filter(|(key, _)| DETAILS.contains(key));
        if let (Some((key, value)), true) = (detail, is_new) {
            let value = value.trim().trim_start_matches("MPI_Win_");
            self.details.retain(|(other, _)| other != key);
            self.details.push((key.to_owned(), value.to_owned()));
        }
        false
    }
}

/// Without the version, and without the word that all have.
fn title(remark: &str) -> String {
    let is_version = |word: &&str| {
        let number = word.strip_prefix('v').unwrap_or("");
        number.starts_with(|first: char| first.is_ascii_digit())
    };
    let words: Vec<&str> = remark
        .split_whitespace()
        .take_while(|word| !is_version(word))
        .collect();
    let words = words.strip_suffix(&["Test"]).unwrap_or(&words);
    words.join(" ")
}

/// Headings of the columns behind the size: two spaces or a tab between them.
fn headings(remark: &str) -> Vec<&str> {
    let parts = remark.split('\t').flat_map(|part| part.split("  "));
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    parts.skip(1).collect()
}

/// The first that has a unit and is no percentile is the value; if all are percentiles, the mean or
/// the median is, else the first.
fn columns(headings: &[&str]) -> Vec<Column> {
    let column = |heading: &&str| match (Unit::of_heading(heading), percentile(heading)) {
        (None, _) => Column::Other,
        (_, Some(label)) => Column::Percentile(label),
        (_, None) => Column::Value,
    };
    let mut columns: Vec<Column> = headings.iter().map(column).collect();
    let mut seen = columns.contains(&Column::Value);
    for label in ["mean", "median"] {
        let found = columns
            .iter_mut()
            .find(|column| **column == Column::Percentile(label.into()));
        if let (Some(column), false) = (found, seen) {
            *column = Column::Value;
            seen = true;
        }
    }
    columns
}

/// `min`, `p99`, ... if a heading begins with such a word.
fn percentile(heading: &str) -> Option<String> {
    let word = heading.split_whitespace().next()?.to_ascii_lowercase();
    let number = word
        .strip_prefix('p')
        .and_then(|text| text.parse::<f64>().ok());
    match &*word {
        "min" | "max" | "median" => Some(word),
        "avg" | "average" | "mean" => Some("mean".into()),
        _ if number == Some(50.0) => Some("median".into()),
        _ => number
            .filter(|part| (0.0..=100.0).contains(part))
            .map(|_| word),
    }
}

fn row(line: &str, columns: Option<&[Column]>) -> std::result::Result<Point, String> {
    let remedy = "a row has a size in bytes and a value, as in `8  1.25`, and other lines begin with #; \
                  correct this line or delete it";
    let mut words = line.split_whitespace();
    let size = words.next().and_then(|word| word.parse().ok());
    let size: u64 = size.ok_or_else(|| format!("this is no row of a result: {remedy}"))?;
    let words: Vec<&str> = words.collect();
    let number = |at: usize| -> std::result::Result<f64, String> {
        let word = words
            .get(at)
            .ok_or_else(|| format!("column {} is missing: {remedy}", at + 2))?;
        word.parse()
            .map_err(|_| format!("'{word}' is no number: {remedy}"))
    };
    let columns = columns.unwrap_or(&[]);
    let value = columns
        .iter()
        .position(|column| *column == Column::Value)
        .unwrap_or(0);
    let mut point = Point::new(size, number(value)?);
    for (at, column) in columns.iter().enumerate() {
        if let Column::Percentile(label) = column {
            point.percentiles.push((label.clone(), number(at)?));
        }
    }
    point
        .percentiles
        .sort_by(|a, b| rank(&a.0).total_cmp(&rank(&b.0)));
    Ok(point)
}
