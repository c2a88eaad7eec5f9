//! What `windlass bench --json` prints: one object for a table, or several in a list or in turn.

use serde_json::{Deserializer, Value};

use super::{Table, Unit, line_error, rank};
use crate::chart::Point;
use crate::error::Result;

/// A text that begins as an object or as a list of them.
pub(super) fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    let list = text.strip_prefix('[').map(str::trim_start);
    text.starts_with('{') || list.is_some_and(|inside| inside.starts_with(['{', ']']))
}

pub(super) fn tables(source: &str, text: &str) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for value in Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| {
            let what = format!(
                "this is no JSON ({error}); give what `windlass bench --json` printed, whole"
            );
            line_error(source, error.line(), what)
        })?;
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in &values {
            // A route that does not serve has a reason instead.
            if value.get("refused").is_none() {
                tables.extend(table(source, value)?);
            }
        }
    }
    Ok(tables)
}

fn table(source: &str, value: &Value) -> Result<Option<Table>> {
    let Some(rows) = value["rows"].as_array() else {
        let what = "this JSON has no \"rows\"; give what `windlass bench --json` printed";
        return Err(line_error(source, 1, what));
    };
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let mut table = Table {
        title: title(text("benchmark"), text("title")),
        details: details(value),
        unit: Unit::of_heading(text("column")),
        ..Table::new(source)
    };
    for (at, row) in rows.iter().enumerate() {
        let (Some(size), Some(value)) = (row["size"].as_u64(), row["value"].as_f64()) else {
            let what =
                format!("row {at} has no \"size\" and \"value\" that are numbers; measure again");
            return Err(line_error(source, 1, what));
        };
        let mut point = Point::new(size, value);
        let spread = row["spread"].as_object().into_iter().flatten();
        let known = spread.filter(|(label, _)| is_percentile(label));
        point.percentiles = known
            .filter_map(|(label, value)| Some((label.clone(), value.as_f64()?)))
            .collect();
        point
            .percentiles
            .sort_by(|a, b| rank(&a.0).total_cmp(&rank(&b.0)));
        table.disturbed += usize::from(row["disturbed"] == true);
        table.push(point);
    }
    Ok((!rows.is_empty()).then_some(table))
}

fn is_percentile(label: &str) -> bool {
    let number = label
        .strip_prefix('p')
        .is_some_and(|part| part.parse::<f64>().is_ok());
    number || ["min", "median", "max"].contains(&label)
}

/// As the text of the same result says it.
fn title(benchmark: &str, title: &str) -> String {
    match (benchmark, title) {
        ("", _) => String::new(),
        (_, "") => format!("Windlass {benchmark}"),
        _ => format!("Windlass {benchmark}: {title}"),
    }
}

fn details(value: &Value) -> Vec<(String, String)> {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let route = text("mechanism").zip(text("shape"));
    let ranks = ["origin", "target", "ranks"].map(|key| value[key].as_u64());
    let ranks = match ranks {
        [Some(origin), Some(target), Some(ranks)] => {
            Some(format!("{origin} -> {target} of {ranks}"))
        }
        _ => None,
    };
    let all = [
        (
            "Route",
            route.map(|(mechanism, shape)| format!("{mechanism} ({shape})")),
        ),
        ("Window creation", text("window")),
        ("Synchronization", text("sync")),
        ("Ranks", ranks),
        (
            "Window size",
            value["burst"].as_u64().map(|burst| burst.to_string()),
        ),
    ];
    all.into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}
