//! The table that parsers of OSU results read, and the same as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::measure::{RouteName, Row};
use crate::options::{Benchmark, Options, Unit};
use crate::ratio::Ratio;

pub(crate) struct Report<'a> {
    options: &'a Options,
    ranks: u32,
    route: RouteName,
    pub(crate) rows: Vec<Row>,
    pub(crate) ratios: Vec<Ratio>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(options: &'a Options, ranks: u32, route: RouteName) -> Self {
        Self {
            options,
            ranks,
            route,
            rows: Vec::new(),
            ratios: Vec::new(),
        }
    }

    fn is_bandwidth(&self) -> bool {
        self.options.benchmark == Benchmark::PutBw
    }

    fn column(&self) -> &'static str {
        match (self.is_bandwidth(), self.options.unit) {
            (true, _) => "Bandwidth (MB/s)",
            (false, Unit::Us) => "Latency (us)",
            (false, Unit::Ns) => "Latency (ns)",
        }
    }

    fn value(&self, row: &Row) -> f64 {
        self.in_unit(row, row.seconds)
    }

    fn in_unit(&self, row: &Row, seconds: f64) -> f64 {
        match (self.is_bandwidth(), self.options.unit) {
            (true, _) => row.bytes as f64 / seconds / 1e6,
            (false, Unit::Us) => seconds * 1e6,
            (false, Unit::Ns) => seconds * 1e9,
        }
    }

    /// How iterations are completed.
    fn sync(&self) -> String {
        match self.options.benchmark {
            Benchmark::NotifyLatency => "notification".into(),
            Benchmark::WindowCreate => "creation and collective end".into(),
            _ => self.options.sync.to_string(),
        }
    }

    /// Header lines, each a remark.
    pub(crate) fn head(&self) -> String {
        let Options {
            benchmark,
            window,
            origin,
            target,
            hog,
            compute,
            ..
        } = self.options;
        let beside = if *hog { ", beside a busy process" } else { "" };
        let computes = if *compute { ", which computes" } else { "" };
        format!(
            "# Windlass {benchmark} v{}\n# Window creation: {window}\n# Synchronization: {}\n\
             # Ranks: {origin} -> {target} of {}{computes}{beside}\n\
             # Route: {} ({})\n# {:<8}{:>20}\n",
            env!("CARGO_PKG_VERSION"),
            self.sync(),
            self.ranks,
            self.route.mechanism,
            self.route.shape,
            "Size",
            self.column(),
        )
    }

    /// Size in 10 columns, value in 20 with two decimals, four below 1; what is wrong with it as a
    /// remark behind it.
    pub(crate) fn line(&self, row: &Row) -> String {
        let value = self.value(row);
        let decimals = if value < 1.0 { 4 } else { 2 };
        let mut line = format!("{:<10}{value:>20.decimals$}\n", row.size);
        if row.is_disturbed() {
            let best = self.in_unit(row, row.fastest);
            let _ = writeln!(
                line,
                "# disturbed: the best block at size {} gave {best:.decimals$}; measure again on an idle machine",
                row.size
            );
        }
        if row.faults > 0 {
            let _ = writeln!(
                line,
                "# Validation failed: {} wrong bytes at size {}",
                row.faults, row.size
            );
        }
        line
    }

    /// What follows the table, each line a remark.
    pub(crate) fn foot(&self) -> String {
        let mut text = String::new();
        if self.options.validate && self.rows.iter().all(|row| row.faults == 0) {
            text.push_str("# Validation: passed\n");
        }
        for Ratio {
            what,
            size,
            ours,
            plain,
            unit,
            ratio: [median, lowest, highest],
        } in &self.ratios
        {
            let _ = writeln!(
                text,
                "# Ratio {size}: {what} {median:.2} ({lowest:.2} to {highest:.2}); \
                 {ours:.2} and {plain:.2} {unit}"
            );
        }
        if self.options.ratio && self.ratios.is_empty() {
            text.push_str(
                "# Ratio: only mapped routes are compared with the machine, and ranks that meet, \
                 by a fence or where each has a cpu, on one node\n",
            );
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let row = |row: &Row| {
            json!({
                "size": row.size,
                "value": self.value(row),
                "best": self.in_unit(row, row.fastest),
                "disturbed": row.is_disturbed(),
                "iterations": row.iterations,
                "wrong_bytes": row.faults,
            })
        };
        let report = json!({
            "benchmark": self.options.benchmark.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "window": self.options.window.to_string(),
            "sync": self.sync(),
            "origin": self.options.origin,
            "target": self.options.target,
            "ranks": self.ranks,
            "hog": self.options.hog,
            "mechanism": self.route.mechanism,
            "shape": self.route.shape,
            "column": self.column(),
            "validated": self.options.validate,
            "rows": self.rows.iter().map(row).collect::<Vec<Value>>(),
            "ratios": self.ratios.iter().map(ratio).collect::<Vec<Value>>(),
        });
        format!("{report:#}\n")
    }
}

fn ratio(found: &Ratio) -> Value {
    let [median, lowest, highest] = found.ratio;
    json!({
        "what": found.what,
        "size": found.size,
        "ours": found.ours,
        "plain": found.plain,
        "unit": found.unit,
        "median": median,
        "lowest": lowest,
        "highest": highest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn options(words: &[&str]) -> Options {
        Options::parse_from(["windlass-osu"].iter().chain(words))
    }

    fn route() -> RouteName {
        RouteName {
            mechanism: "some".into(),
            shape: "mapped".into(),
        }
    }

    fn row(size: usize, seconds: f64, faults: u64) -> Row {
        Row {
            size,
            iterations: 10,
            seconds,
            fastest: seconds,
            bytes: 64 * size,
            faults,
        }
    }

    /// What parsers of OSU results do: skip lines that begin with `#`, split the rest in two.
    fn parse(text: &str) -> Vec<(usize, f64)> {
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        rows.map(|row| {
            let columns: Vec<&str> = row.split_whitespace().collect();
            assert_eq!(columns.len(), 2, "{row:?}");
            (columns[0].parse().unwrap(), columns[1].parse().unwrap())
        })
        .collect()
    }

    #[test]
    fn every_line_is_a_remark_or_two_columns() {
        for words in [&["put-latency", "-c", "--ratio"][..], &["put-bw", "-c"]] {
            let options = options(words);
            let report = Report::new(&options, 2, route());
            let rows = [row(1, 1.5e-6, 0), row(4 << 20, 2e-3, 7)];
            let lines: String = rows.iter().map(|row| report.line(row)).collect();
            let text = format!("{}{lines}{}", report.head(), report.foot());
            assert_eq!(parse(&text).len(), 2, "{text}");
            assert_eq!(
                lines.matches("# Validation failed: 7 wrong bytes").count(),
                1
            );
        }
    }

    #[test]
    fn columns_are_as_wide_as_osus() {
        let options = options(&["put-latency"]);
        let line = Report::new(&options, 2, route()).line(&row(8, 12.5e-6, 0));
        assert_eq!(line, "8                        12.50\n");
    }

    #[test]
    fn small_latencies_keep_their_digits() {
        let options = options(&["put-latency"]);
        let line = Report::new(&options, 2, route()).line(&row(8, 5.8e-9, 0));
        assert_eq!(line, "8                       0.0058\n");
    }

    #[test]
    fn rows_whose_blocks_disagree_are_marked() {
        for (words, best) in [(&["put-latency"][..], "1.00"), (&["put-bw"], "512.00")] {
            let options = options(words);
            let mut report = Report::new(&options, 2, route());
            let quiet = row(8, 2e-6, 0);
            let disturbed = Row {
                fastest: 1e-6,
                seconds: 2.1e-6,
                ..quiet.clone()
            };
            assert!(!report.line(&quiet).contains('#'));
            let line = report.line(&disturbed);
            assert_eq!(parse(&line).len(), 1, "{line}");
            assert!(line.contains(&format!(
                "# disturbed: the best block at size 8 gave {best}"
            )));
            report.rows.extend([quiet, disturbed]);
            let value: Value = serde_json::from_str(&report.json()).unwrap();
            let marks = [0, 1].map(|at| value["rows"][at]["disturbed"].clone());
            assert_eq!(marks, [Value::Bool(false), Value::Bool(true)]);
        }
    }

    #[test]
    fn what_has_its_own_way_names_no_other() {
        for (name, way) in [
            (
                "window-create",
                "# Synchronization: creation and collective end\n",
            ),
            ("notify-latency", "# Synchronization: notification\n"),
            ("sync-latency", "# Synchronization: flush\n"),
        ] {
            let options = options(&[name]);
            assert!(Report::new(&options, 2, route()).head().contains(way));
        }
    }

    #[test]
    fn units_are_what_the_header_says() {
        let (bandwidth, nanos) = (options(&["put-bw"]), options(&["get-latency", "-u", "ns"]));
        let row = row(1000, 64e-6, 0);
        let bandwidth = Report::new(&bandwidth, 2, route());
        assert!(bandwidth.head().ends_with("Bandwidth (MB/s)\n"));
        assert_eq!(bandwidth.value(&row).round(), 1000.0);
        let nanos = Report::new(&nanos, 2, route());
        assert!(nanos.head().ends_with("Latency (ns)\n"));
        assert_eq!(nanos.value(&row).round(), 64e3);
    }

    #[test]
    fn json_is_json() {
        let options = options(&["put-latency", "--json"]);
        let mut report = Report::new(&options, 2, route());
        report.rows.push(row(8, 1e-6, 0));
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(value["rows"][0]["size"], 8);
        assert_eq!(value["benchmark"], "put-latency");
    }
}
