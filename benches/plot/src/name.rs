//! Names of curves: what tells each result from the others, and no more.

use std::path::Path;

use crate::read::{self, Table};

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
    for key in read::DETAILS {
        let Some(value) = detail(table, key) else {
            continue;
        };
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
        "Window creation" => format!("window: {value}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(source: &str, title: &str, details: &[(&str, &str)]) -> Table {
        let head: String = details
            .iter()
            .map(|(key, value)| format!("# {key}: {value}\n"))
            .collect();
        let text = format!("# {title} v1.0\n{head}# Size  Latency (us)\n8 1.0\n");
        read::tables(source, text.as_bytes()).unwrap().remove(0)
    }

    #[track_caller]
    fn named(tables: &[Table], common: &str, own: &[&str]) {
        let found = names(tables);
        assert_eq!(found.common, common);
        assert_eq!(found.own, own);
    }

    #[test]
    fn names_say_what_differs_and_no_more() {
        let ours = |source: &str, route: &str, window: &str| {
            let details = [
                ("Window creation", window),
                ("Synchronization", "MPI_Win_flush"),
                ("Route", route),
            ];
            table(source, "Windlass put-latency", &details)
        };
        let theirs = |source: &str| {
            table(
                source,
                "OSU MPI_Put Latency Test",
                &[("Window creation", "MPI_Win_allocate")],
            )
        };
        let (vhshm, cma) = (
            ours("a.txt", "vhshm (mapped)", "MPI_Win_allocate"),
            ours("a.txt", "cma (posted)", "MPI_Win_create"),
        );
        named(
            std::slice::from_ref(&vhshm),
            "Windlass put-latency (allocate, flush)",
            &["Windlass put-latency"],
        );
        named(
            &[vhshm.clone(), cma.clone()],
            "Windlass put-latency (flush)",
            &["vhshm (mapped)", "cma (posted)"],
        );
        let lent = ours("a.txt", "vhshm (mapped)", "MPI_Win_create");
        named(
            &[vhshm.clone(), cma, lent],
            "Windlass put-latency (flush)",
            &[
                "vhshm (mapped), window: allocate",
                "cma (posted)",
                "vhshm (mapped), window: create",
            ],
        );
        named(
            &[theirs("x/mpich.txt"), theirs("openmpi.txt")],
            "OSU MPI_Put Latency (allocate)",
            &["mpich", "openmpi"],
        );
        named(
            &[vhshm, theirs("mpich.txt"), theirs("openmpi.txt")],
            "",
            &[
                "Windlass put-latency",
                "OSU MPI_Put Latency, mpich",
                "OSU MPI_Put Latency, openmpi",
            ],
        );
        named(
            &[theirs("mpich.txt"), theirs("mpich.txt")],
            "OSU MPI_Put Latency (allocate)",
            &["mpich #1", "mpich #2"],
        );
    }
}
