//! Names of curves: what tells each result from the others, and no more.

use std::path::Path;

use crate::read::Table;

/// What all have in common, for the title, and what is each one's own.
pub(crate) struct Names {
    /// As in `Windlass put-latency (allocate, flush)`; empty if they have nothing in common.
    pub(crate) common: String,
    /// In the order of the tables, no two alike.
    pub(crate) own: Vec<String>,
}

/// Of these tables.
pub(crate) fn names(tables: &[Table]) -> Names {
    let first = tables.first();
    let title = first.map_or("", |table| &table.title);
    let same_title = tables.iter().all(|table| table.title == title);
    let mut own: Vec<String> = tables
        .iter()
        .map(|table| own(table, tables, same_title))
        .collect();
    for at in 0..own.len() {
        let name = own[at].clone();
        let alike: Vec<usize> = (0..own.len()).filter(|&other| own[other] == name).collect();
        // Numbers, where even the files have the same name.
        for (number, &other) in alike.iter().enumerate().filter(|_| alike.len() > 1) {
            own[other] = format!("{name} #{}", number + 1);
        }
    }
    let mut common = if same_title {
        title.to_owned()
    } else {
        String::new()
    };
    let shared = first.into_iter().flat_map(|table| &table.details);
    let shared = shared.filter(|(key, value)| {
        let is_shown = ["Window creation", "Synchronization"].contains(&&**key);
        is_shown && tables.iter().all(|table| detail(table, key) == Some(value))
    });
    let shared: Vec<&str> = shared.map(|(_, value)| &**value).collect();
    if !common.is_empty() && !shared.is_empty() {
        common = format!("{common} ({})", shared.join(", "));
    }
    Names { common, own }
}

fn detail<'a>(table: &'a Table, key: &str) -> Option<&'a String> {
    let mut details = table.details.iter();
    details
        .find(|(other, _)| other == key)
        .map(|(_, value)| value)
}

/// Title, then what differs among those of the same title, then the file's name.
fn own(table: &Table, tables: &[Table], same_title: bool) -> String {
    let mut rivals: Vec<&Table> = tables
        .iter()
        .filter(|other| other.title == table.title)
        .collect();
    let mut parts = Vec::new();
    if !same_title && !table.title.is_empty() {
        parts.push(table.title.clone());
    }
    for (key, value) in &table.details {
        if rivals.iter().any(|rival| detail(rival, key) != Some(value)) {
            parts.push(said(key, value));
            rivals.retain(|rival| detail(rival, key) == Some(value));
        }
    }
    if rivals.iter().any(|rival| rival.source != table.source)
        || parts.is_empty() && tables.len() > 1
    {
        parts.push(stem(&table.source));
    }
    if parts.is_empty() {
        parts.push(if table.title.is_empty() {
            stem(&table.source)
        } else {
            table.title.clone()
        });
    }
    parts.join(", ")
}

fn said(key: &str, value: &str) -> String {
    match key {
        "Ranks" => format!("ranks {value}"),
        "Window size" => format!("window size {value}"),
        _ => value.to_owned(),
    }
}

fn stem(source: &str) -> String {
    let stem = Path::new(source).file_stem();
    stem.map_or(source.to_owned(), |stem| {
        stem.to_string_lossy().into_owned()
    })
}
