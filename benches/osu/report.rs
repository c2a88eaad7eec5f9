//! The table that parsers of OSU results read, and the same as JSON.

use std::fmt::Write;

use serde_json::{Value, json};
use windlass_bench::measure::{RouteName, Row};
use windlass_bench::samples::Spread;
use windlass_launcher::measure::{Benchmark, Creation, Options, Sync, Unit};

use crate::ratio::Ratio;

pub(crate) struct Report<'a> {
    options: &'a Options,
    ranks: u32,
    route: RouteName,
    pub(crate) rows: Vec<Row>,
    pub(crate) ratios: Vec<Ratio>,
}

/// What the value of a row is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Latency,
    Bandwidth,
    Messages,
}

/// What OSU calls it, or would.
fn title(benchmark: Benchmark) -> &'static str {
    match benchmark {
        Benchmark::PutLatency => "MPI_Put Latency",
        Benchmark::GetLatency => "MPI_Get Latency",
        Benchmark::PutBw => "MPI_Put Bandwidth",
        Benchmark::GetBw => "MPI_Get Bandwidth",
        Benchmark::PutBibw => "MPI_Put Bi-directional Bandwidth",
        Benchmark::AccLatency => "MPI_Accumulate Latency",
        Benchmark::GetAccLatency => "MPI_Get_accumulate Latency",
        Benchmark::FopLatency => "MPI_Fetch_and_op Latency",
        Benchmark::CasLatency => "MPI_Compare_and_swap Latency",
        Benchmark::Fence | Benchmark::Pscw | Benchmark::Lock | Benchmark::SyncLatency => {
            "Synchronization Latency"
        }
        Benchmark::Barrier => "MPI Barrier Latency",
        Benchmark::WindowCreate => "Window Creation Latency",
        Benchmark::NotifyLatency => "Notified Put Latency",
        Benchmark::MsgRate => "MPI_Put Message Rate",
        Benchmark::StridedPut => "Strided MPI_Put Latency",
        Benchmark::Progress => "MPI_Put to a Busy Target Latency",
    }
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

    fn quantity(&self) -> Quantity {
        match self.options.benchmark {
            Benchmark::PutBw | Benchmark::GetBw | Benchmark::PutBibw => Quantity::Bandwidth,
            Benchmark::MsgRate => Quantity::Messages,
            _ => Quantity::Latency,
        }
    }

    /// Names of the columns behind the size. What stands in the tail is worse than so many of 100.
    fn columns(&self) -> Vec<String> {
        let (value, what, tail) = match (self.quantity(), self.options.unit) {
            (Quantity::Bandwidth, _) => ("Bandwidth (MB/s)", "BW(MB/s)", "(MB/s)"),
            (Quantity::Messages, _) => ("Messages/s", "Messages/s", "Mess./s"),
            (Quantity::Latency, Unit::Us) => ("Latency (us)", "Latency(us)", "Lat(us)"),
            (Quantity::Latency, Unit::Ns) => ("Latency (ns)", "Latency(ns)", "Lat(ns)"),
        };
        let mut columns = vec![value.to_owned()];
        if self.options.full {
            columns.extend([
                format!("Min {what}"),
                format!("P50 Tail {tail}"),
                format!("P99 Tail {tail}"),
                format!("Max {what}"),
            ]);
        }
        columns
    }

    fn value(&self, row: &Row) -> f64 {
        self.in_unit(row, row.seconds)
    }

    fn in_unit(&self, row: &Row, seconds: f64) -> f64 {
        match (self.quantity(), self.options.unit) {
            (Quantity::Bandwidth, _) => {
                let directions = match self.options.benchmark {
                    Benchmark::PutBibw => 2.0,
                    _ => 1.0,
                };
                directions * row.bytes as f64 / seconds / 1e6
            }
            (Quantity::Messages, _) => self.options.burst() as f64 / seconds,
            (Quantity::Latency, Unit::Us) => seconds * 1e6,
            (Quantity::Latency, Unit::Ns) => seconds * 1e9,
        }
    }

    /// Smallest, median, 99th percentile of the worse end, largest; of a rate the smallest is the worst.
    fn spread(&self, row: &Row, spread: &Spread) -> [f64; 4] {
        let Spread {
            min,
            median,
            p99,
            max,
            ..
        } = *spread;
        let (least, most) = match self.quantity() {
            Quantity::Latency => (min, max),
            Quantity::Bandwidth | Quantity::Messages => (max, min),
        };
        [least, median, p99, most].map(|seconds| self.in_unit(row, seconds))
    }

    /// How iterations are completed.
    fn sync(&self) -> &'static str {
        match (self.options.benchmark, self.options.sync()) {
            (Benchmark::NotifyLatency, _) => "notification",
            (Benchmark::WindowCreate, _) => "creation and collective end",
            (Benchmark::Barrier, _) => "barrier",
            (_, Sync::Flush) => "MPI_Win_flush",
            (_, Sync::FlushLocal) => "MPI_Win_flush_local",
            (_, Sync::Lock) => "MPI_Win_lock/unlock",
            (_, Sync::LockAll) => "MPI_Win_lock_all/unlock_all",
            (_, Sync::Fence) => "MPI_Win_fence",
            (_, Sync::Pscw) => "MPI_Win_post/start/complete/wait",
        }
    }

    fn creation(&self) -> &'static str {
        match (self.options.benchmark, self.options.window) {
            (Benchmark::Barrier, _) => "none",
            (_, Creation::Allocate) => "MPI_Win_allocate",
            (_, Creation::Create) => "MPI_Win_create",
            (_, Creation::Dynamic) => "MPI_Win_create_dynamic",
            (_, Creation::Shared) => "MPI_Win_allocate_shared",
        }
    }

    fn datatype(&self) -> &'static str {
        use Benchmark::*;
        match self.options.benchmark {
            AccLatency | GetAccLatency | FopLatency | CasLatency | MsgRate => "MPI_UINT64_T",
            _ => "MPI_CHAR",
        }
    }

    /// Header lines, each a remark.
    pub(crate) fn head(&self) -> String {
        let Options {
            benchmark,
            origin,
            target,
            hog,
            ..
        } = self.options;
        let beside = if *hog { ", beside a busy process" } else { "" };
        let computes = match self.options.computes() {
            true => ", which computes and makes no call",
            false => "",
        };
        let mut text = format!(
            "# Windlass {benchmark}: {} Test v{}\n# Window creation: {}\n# Synchronization: {}\n",
            title(*benchmark),
            env!("CARGO_PKG_VERSION"),
            self.creation(),
            self.sync(),
        );
        if benchmark.moves_data() && *benchmark != Benchmark::WindowCreate {
            let _ = writeln!(text, "# Datatype: {}.", self.datatype());
        }
        if self.options.burst() > 1 {
            let _ = writeln!(text, "# Window size: {}", self.options.burst());
        }
        let _ = writeln!(
            text,
            "# Ranks: {origin} -> {target} of {}{computes}{beside}\n# Route: {} ({})",
            self.ranks, self.route.mechanism, self.route.shape,
        );
        text.push_str("# Size    ");
        for column in self.columns() {
            let _ = write!(text, "{column:>18}");
        }
        text.push('\n');
        text
    }

    /// Size in 10 columns, each value in 18 with two decimals, four below 1; what else is to be said as remarks
    /// behind it.
    pub(crate) fn line(&self, row: &Row) -> String {
        let mut line = format!("{:<10}", row.size);
        let mut write = |value: f64| {
            let _ = write!(line, "{:>18}", shown(value));
        };
        write(self.value(row));
        let spread = row.spread.as_ref();
        let spread = spread.map(|spread| self.spread(row, spread));
        if self.options.full {
            spread.into_iter().flatten().for_each(&mut write);
        }
        line.push('\n');
        if let Some(spread) = spread.filter(|_| !self.options.full) {
            let [min, _, p99, max] = spread.map(shown);
            let _ = writeln!(
                line,
                "# {}: shortest {min}, 99th percentile {p99}, longest {max}",
                row.size
            );
        }
        if row.is_disturbed() {
            let best = shown(self.in_unit(row, row.fastest));
            let _ = writeln!(
                line,
                "# disturbed: the best block at size {} gave {best}; measure again on an idle machine",
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
        let spreads = self.rows.iter().filter_map(|row| row.spread.as_ref());
        if let Some(widest) = spreads.max_by_key(|spread| spread.each) {
            let of = match widest.each {
                1 => "single iterations".into(),
                each => format!("up to {each} iterations, which take ten readings of the clock"),
            };
            let clock = widest.clock * 1e9;
            let _ = writeln!(
                text,
                "# Samples: of {of}; one reading, {clock:.0} ns, is taken off"
            );
        }
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
                 by a fence or where each has a cpu, on one node; puts in both directions with nothing\n",
            );
        }
        text
    }

    fn json_row(&self, row: &Row) -> Value {
        let mut value = json!({
            "size": row.size,
            "value": self.value(row),
            "best": self.in_unit(row, row.fastest),
            "disturbed": row.is_disturbed(),
            "iterations": row.iterations,
            "wrong_bytes": row.faults,
        });
        if let Some(spread) = &row.spread {
            let [min, median, p99, max] = self.spread(row, spread);
            value["spread"] = json!({
                "min": min,
                "median": median,
                "p99": p99,
                "max": max,
                "samples": spread.samples,
                "iterations_per_sample": spread.each,
                "clock_ns": spread.clock * 1e9,
            });
        }
        value
    }

    pub(crate) fn json(&self) -> String {
        let report = json!({
            "benchmark": self.options.benchmark.to_string(),
            "title": title(self.options.benchmark),
            "version": env!("CARGO_PKG_VERSION"),
            "window": self.options.window.to_string(),
            "sync": match self.options.benchmark.own_sync() {
                Some(None) => self.sync().to_owned(),
                _ => self.options.sync().to_string(),
            },
            "burst": self.options.burst(),
            "origin": self.options.origin,
            "target": self.options.target,
            "ranks": self.ranks,
            "hog": self.options.hog,
            "compute": self.options.computes(),
            "mechanism": self.route.mechanism,
            "shape": self.route.shape,
            "column": self.columns()[0],
            "validated": self.options.validate,
            "rows": self.rows.iter().map(|row| self.json_row(row)).collect::<Vec<Value>>(),
            "ratios": self.ratios.iter().map(ratio).collect::<Vec<Value>>(),
        });
        format!("{report:#}\n")
    }
}

/// Two decimals as OSU's; four below 1, for stores.
fn shown(value: f64) -> String {
    match value < 1.0 {
        true => format!("{value:.4}"),
        false => format!("{value:.2}"),
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
            spread: None,
            bytes: 64 * size,
            faults,
        }
    }

    fn sampled(size: usize, seconds: f64) -> Row {
        let spread = Spread {
            min: seconds / 2.0,
            median: seconds,
            p99: 2.0 * seconds,
            max: 4.0 * seconds,
            samples: 10,
            each: 3,
            clock: 20e-9,
        };
        Row {
            spread: Some(spread),
            ..row(size, seconds, 0)
        }
    }

    /// What parsers of OSU results do: skip lines that begin with `#`, split the rest in columns.
    fn parse(text: &str, columns: usize) -> Vec<Vec<f64>> {
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        rows.map(|row| {
            let found: Vec<f64> = row.split_whitespace().map(|x| x.parse().unwrap()).collect();
            assert_eq!(found.len(), columns, "{row:?}");
            found
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
            assert_eq!(parse(&text, 2).len(), 2, "{text}");
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
        assert_eq!(line, "8                      12.50\n");
    }

    #[test]
    fn small_latencies_keep_their_digits() {
        let options = options(&["put-latency"]);
        let line = Report::new(&options, 2, route()).line(&row(8, 5.8e-9, 0));
        assert_eq!(line, "8                     0.0058\n");
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
            assert_eq!(parse(&line, 2).len(), 1, "{line}");
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
            ("sync-latency", "# Synchronization: MPI_Win_flush\n"),
            ("fence", "# Synchronization: MPI_Win_fence\n"),
            ("barrier", "# Synchronization: barrier\n"),
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
    fn further_columns_stand_under_their_names() {
        for (words, values) in [
            (&["put-latency", "-f"][..], [2.0, 1.0, 2.0, 4.0, 8.0]),
            (&["put-bw", "-f"], [256.0, 64.0, 256.0, 128.0, 512.0]),
            (&["msg-rate", "-f"], [32e6, 8e6, 32e6, 16e6, 64e6]),
        ] {
            let options = options(words);
            let mut report = Report::new(&options, 2, route());
            let row = sampled(8, 2e-6);
            let line = report.line(&row);
            assert_eq!(parse(&line, 6), [[&[8.0], &values[..]].concat()]);
            report.rows.push(row);
            let head = report.head();
            let names = head.lines().last().unwrap();
            assert_eq!(names.len(), line.trim_end().len(), "{names}\n{line}");
            let apart = names.split("  ").filter(|name| !name.trim().is_empty());
            assert_eq!(apart.count(), 6, "{names}");
            assert!(report.foot().contains("up to 3") && report.foot().contains("20 ns"));
            let value: Value = serde_json::from_str(&report.json()).unwrap();
            assert_eq!(value["rows"][0]["spread"]["samples"], 10);
        }
    }

    #[test]
    fn a_busy_target_is_told_in_two_columns_and_a_remark() {
        let options = options(&["progress"]);
        let report = Report::new(&options, 2, route());
        let line = report.line(&sampled(8, 2e-6));
        assert_eq!(parse(&line, 2), [[8.0, 2.0]]);
        assert!(
            line.contains("# 8: shortest 1.00, 99th percentile 4.00, longest 8.00"),
            "{line}"
        );
        assert!(report.head().contains("computes"));
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
