//! What a run says of each line: the table, and the same as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::blocks::{Against, Block, Distance, Distances, Finding, find};
use crate::lines::{Goal, Line, Place, Role, Unit};

/// A target that computes calls in after this time at the latest (`rma.c`): who took nearly as long has waited for it.
const LONGEST_WORK: f64 = 0.05;
const WAITED: f64 = 0.9 * LONGEST_WORK;

/// One line with all that is known of it.
pub(crate) struct Row<'a> {
    pub(crate) line: &'a Line,
    pub(crate) distance: Distance,
    /// By library, Windlass first.
    pub(crate) cells: Vec<Cell>,
    /// Its limit, in the line's unit.
    pub(crate) raw: Option<f64>,
    pub(crate) ratio: Option<Ratio>,
    /// Libraries that were started here and have no block of this distance.
    pub(crate) missing: Vec<usize>,
    /// Is the goal reached? `None` without goal or peer, and where one of the libraries is missing: it may be the best.
    pub(crate) met: Option<bool>,
}

/// A library's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Seconds of an operation, or bytes per second.
    Value(f64),
    /// The operation was over when the target called in, not before.
    Waits,
    /// There is no block of this distance.
    Missing,
}

/// Of Windlass over the best peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) best: usize,
    pub(crate) ratio: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) rounds: usize,
}

impl Ratio {
    /// Times as they are; of bandwidths the other way round.
    fn of(against: Against, unit: Unit) -> Self {
        let Against {
            best,
            ratio,
            lowest,
            highest,
            rounds,
        } = against;
        match unit {
            Unit::Time => Self {
                best,
                ratio,
                lowest,
                highest,
                rounds,
            },
            Unit::Bandwidth => Self {
                best,
                ratio: ratio.recip(),
                lowest: highest.recip(),
                highest: lowest.recip(),
                rounds,
            },
        }
    }
}

/// What is told above and below the rows.
pub(crate) struct Report<'a> {
    /// Windlass, then the peers.
    pub(crate) labels: Vec<String>,
    /// What each of them is, and its settings.
    pub(crate) notes: Vec<String>,
    pub(crate) remarks: &'a [String],
    pub(crate) cpus: [u32; 2],
    pub(crate) rounds: usize,
    pub(crate) distances: Distances,
    pub(crate) rows: Vec<Row<'a>>,
}

/// Is a library started on one host, and on two nodes?
pub(crate) type Started = [bool; 2];

/// The rows of all lines that were measured.
pub(crate) fn rows<'a>(
    lines: &'a [Line],
    blocks: &[Block],
    libraries: &[Started],
    distances: &Distances,
) -> Vec<Row<'a>> {
    let rows = lines
        .iter()
        .filter_map(|line| row(line, lines, blocks, libraries, distances));
    rows.collect()
}

fn row<'a>(
    line: &'a Line,
    lines: &[Line],
    blocks: &[Block],
    libraries: &[Started],
    distances: &Distances,
) -> Option<Row<'a>> {
    let count = libraries.len();
    let of_line: Vec<&Block> = blocks
        .iter()
        .filter(|block| block.line == line.timed.number)
        .collect();
    let waits: Vec<bool> = (0..count)
        .map(|library| line.timed.way == "computes" && waits(&of_line, library))
        .collect();
    // A time that says how long the target worked is not compared.
    let counted = of_line
        .into_iter()
        .filter(|block| block.library == 0 || !waits[block.library]);
    let counted: Vec<Block> = counted.cloned().collect();
    if counted.is_empty() {
        return None;
    }
    // What cannot be compared is shown as such.
    let finding = find(&counted, line.timed.number, count, distances);
    let finding = finding.unwrap_or_else(|| Finding::none(count));
    let value = |seconds: f64| match line.unit {
        Unit::Time => seconds / line.operations as f64,
        Unit::Bandwidth => (line.timed.size * line.operations) as f64 / seconds,
    };
    let cells = finding.medians.iter().zip(&waits);
    let cells = cells.map(|(median, waits)| match median {
        _ if *waits => Cell::Waits,
        Some(seconds) => Cell::Value(value(*seconds)),
        None => Cell::Missing,
    });
    let cells: Vec<Cell> = cells.collect();
    let ratio = finding.against.map(|against| Ratio::of(against, line.unit));
    let missing = missing(&cells, libraries, line.place);
    Some(Row {
        met: met(line.goal, &cells, ratio.as_ref(), &missing),
        missing,
        raw: raw(line, lines, blocks, distances, &finding),
        line,
        distance: finding.distance,
        cells,
        ratio,
    })
}

/// Who was started there and has nothing to show; without Windlass there is nothing to show the others beside.
fn missing(cells: &[Cell], libraries: &[Started], place: Place) -> Vec<usize> {
    let is_missing = |library: usize| cells[library] == Cell::Missing;
    if is_missing(0) {
        return vec![0];
    }
    let started = (0..cells.len()).filter(|&library| libraries[library][place as usize]);
    started.filter(|&library| is_missing(library)).collect()
}

/// Did more than half of a library's blocks take as long as the target worked?
fn waits(blocks: &[&Block], library: usize) -> bool {
    let own = blocks.iter().filter(|block| block.library == library);
    let took = own.map(|block| block.seconds * block.iterations as f64);
    let long: Vec<bool> = took.map(|seconds| seconds >= WAITED).collect();
    2 * long.iter().filter(|&&long| long).count() > long.len()
}

fn met(goal: Goal, cells: &[Cell], ratio: Option<&Ratio>, missing: &[usize]) -> Option<bool> {
    let waits = cells.first() == Some(&Cell::Waits);
    match (goal, ratio) {
        (Goal::None, _) => None,
        _ if cells.first() == Some(&Cell::Missing) => None,
        // Nobody else is asked.
        (Goal::NeverWaits, _) => Some(!waits),
        _ if !missing.is_empty() => None,
        // Every peer waits.
        (Goal::Time(_), None) => cells[1..].contains(&Cell::Waits).then_some(!waits),
        (Goal::Time(most), Some(found)) => Some(!waits && found.ratio <= most),
        (Goal::Bandwidth(_), None) => None,
        (Goal::Bandwidth(least), Some(found)) => Some(found.ratio >= least),
    }
}

/// The limit beside it, at the same distance if there was one.
fn raw(
    line: &Line,
    lines: &[Line],
    blocks: &[Block],
    distances: &Distances,
    finding: &Finding,
) -> Option<f64> {
    let (key, parts) = line.raw.as_ref()?;
    let raw = lines.iter().find(|other| other.key == *key)?;
    let own = blocks.iter().filter(|block| block.line == raw.timed.number);
    let there = own
        .clone()
        .filter(|block| distances.block(block) == Some(finding.distance));
    let there = crate::blocks::median(there.map(|block| block.seconds));
    let seconds = there.or_else(|| crate::blocks::median(own.map(|block| block.seconds)))?;
    Some(match line.unit {
        Unit::Time => seconds * parts,
        Unit::Bandwidth => line.timed.size as f64 / seconds,
    })
}

/// Three digits and a unit.
pub(crate) fn say(value: f64, unit: Unit) -> String {
    let (value, name) = match unit {
        Unit::Bandwidth => (value / 1e9, "GB/s"),
        Unit::Time if value < 1e-6 => (value * 1e9, "ns"),
        Unit::Time if value < 1e-3 => (value * 1e6, "us"),
        Unit::Time => (value * 1e3, "ms"),
    };
    let decimals = match value {
        _ if value < 10.0 => 2,
        _ if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {name}")
}

impl Row<'_> {
    fn goal(&self) -> String {
        match self.line.goal {
            Goal::Time(most) => format!("<= {most:.2}"),
            Goal::Bandwidth(least) => format!(">= {least:.2}"),
            Goal::NeverWaits => "never waits".into(),
            Goal::None => String::new(),
        }
    }

    /// With what is missing of the comparison.
    fn verdict(&self, labels: &[String]) -> String {
        match (self.met, self.line.goal) {
            (Some(true), _) => "met".into(),
            (Some(false), _) => "NOT MET".into(),
            (None, Goal::None) => String::new(),
            (None, _) if self.missing.is_empty() => "not compared: no peer".into(),
            (None, _) => {
                let names: Vec<&str> = self.missing.iter().map(|&at| labels[at].as_str()).collect();
                let when = match self.distance {
                    Distance::Any => String::new(),
                    distance => format!(" when {distance}"),
                };
                format!("not compared: no block of {}{when}", names.join(", "))
            }
        }
    }

    /// Windlass's value over the raw limit; of bandwidths the share of it.
    fn over_raw(&self) -> Option<f64> {
        match (self.cells.first(), self.raw) {
            (Some(Cell::Value(own)), Some(raw)) => Some(own / raw),
            _ => None,
        }
    }
}

impl Report<'_> {
    /// How and where all of it was measured.
    pub(crate) fn summary(&self) -> String {
        let rounds = match self.rounds {
            1 => "one round".into(),
            rounds => format!("medians of {rounds} rounds"),
        };
        format!(
            "{rounds}, ranks on cpus {} and {}",
            self.cpus[0], self.cpus[1]
        )
    }

    /// The table. Lines that begin with `#` are remarks.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("# {}: {}\n", self.labels.join(", "), self.summary());
        for note in &self.notes {
            let _ = writeln!(text, "# {note}");
        }
        let Distances { near, far } = self.distances;
        let _ = match far {
            Some(far) => writeln!(
                text,
                "# A cache line needs {:.0} ns between the cpus when they are near, {:.0} ns when far; only blocks of the same \
                 distance are compared",
                near * 1e9,
                far * 1e9
            ),
            None => writeln!(
                text,
                "# A cache line needs {:.0} ns between the cpus",
                near * 1e9
            ),
        };
        text.push_str(
            "# ratio: Windlass over the best peer (*), median of the rounds (lowest to highest); of times small is good, of \
             bandwidths large\n",
        );
        for (place, title) in [
            (Place::Host, "on one host"),
            (Place::Nodes, "between two nodes, by TCP"),
        ] {
            self.section(&mut text, title, |line| {
                line.place == place && line.role != Role::Raw && line.role != Role::Curve
            });
        }
        self.section(&mut text, "raw limits", |line| line.role == Role::Raw);
        for remark in self.remarks {
            let _ = writeln!(text, "# remark: {remark}");
        }
        text.push_str(&self.goals());
        text
    }

    /// How many were compared, and how many of these are met.
    fn goals(&self) -> String {
        let with_goal = self.rows.iter().filter(|row| row.line.goal != Goal::None);
        let verdicts: Vec<Option<bool>> = with_goal.map(|row| row.met).collect();
        let met = verdicts.iter().filter(|met| **met == Some(true)).count();
        let compared = verdicts.iter().flatten().count();
        match verdicts.len() - compared {
            0 => format!("# goals: {met} of {compared} met, all compared\n"),
            left => format!("# goals: {met} of {compared} met, {left} not compared\n"),
        }
    }

    fn section(&self, text: &mut String, title: &str, wanted: impl Fn(&Line) -> bool) {
        let rows: Vec<&Row<'_>> = self.rows.iter().filter(|row| wanted(row.line)).collect();
        if rows.is_empty() {
            return;
        }
        let is_raw = rows[0].line.role == Role::Raw;
        let labels = if is_raw {
            &self.labels[..1]
        } else {
            &self.labels[..]
        };
        let widths: Vec<usize> = labels.iter().map(|label| label.len().max(10) + 2).collect();
        let _ = write!(text, "#\n# {title:<35} {:>4}", "hop");
        if is_raw {
            let _ = writeln!(text, "  {:>10}", "value");
        } else {
            for (label, width) in labels.iter().zip(&widths) {
                let _ = write!(text, "{label:>width$}");
            }
            let _ = writeln!(
                text,
                "{:>12}{:>9}  {:<24}{:<14}",
                "raw limit", "over raw", "ratio", "goal"
            );
        }
        for row in rows {
            let _ = write!(
                text,
                "{:<37} {:>4}",
                row.line.title,
                row.distance.to_string()
            );
            for (library, (cell, width)) in row.cells.iter().zip(&widths).enumerate() {
                let star = row.ratio.is_some_and(|ratio| ratio.best == library);
                let said = match cell {
                    Cell::Value(value) => say(*value, row.line.unit),
                    Cell::Waits => "waits".into(),
                    Cell::Missing => "-".into(),
                };
                let said = format!("{said}{}", if star { "*" } else { " " });
                let _ = write!(text, "{said:>width$}");
            }
            if !is_raw {
                let raw = row
                    .raw
                    .map_or_else(|| "-".into(), |raw| say(raw, row.line.unit));
                let over = row
                    .over_raw()
                    .map_or_else(|| "-".into(), |over| format!("{over:.2}"));
                let ratio = row.ratio.map_or_else(
                    || "-".into(),
                    |found| {
                        format!(
                            "{:.2} ({:.2} to {:.2})",
                            found.ratio, found.lowest, found.highest
                        )
                    },
                );
                let _ = write!(
                    text,
                    "{raw:>12}{over:>9}  {ratio:<24}{:<13} {}",
                    row.goal(),
                    row.verdict(&self.labels)
                );
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }

    pub(crate) fn json(&self) -> String {
        let row = |row: &Row<'_>| {
            let values = row.cells.iter().map(|cell| match cell {
                Cell::Value(value) => json!(value),
                Cell::Waits => json!("waits"),
                Cell::Missing => Value::Null,
            });
            json!({
                "key": row.line.key,
                "title": row.line.title,
                "unit": match row.line.unit { Unit::Time => "s", Unit::Bandwidth => "B/s" },
                "size": row.line.timed.size,
                "iterations": row.line.timed.iterations,
                "hop": row.distance.to_string(),
                "values": values.collect::<Vec<_>>(),
                "raw": row.raw,
                "over_raw": row.over_raw(),
                "ratio": row.ratio.map(|found| json!({
                    "best": self.labels[found.best],
                    "median": found.ratio,
                    "lowest": found.lowest,
                    "highest": found.highest,
                    "rounds": found.rounds,
                })),
                "goal": row.goal(),
                "met": row.met,
                "missing": row.missing.iter().map(|&at| &self.labels[at]).collect::<Vec<_>>(),
            })
        };
        let report = json!({
            "libraries": self.labels,
            "notes": self.notes,
            "remarks": self.remarks,
            "rounds": self.rounds,
            "cpus": self.cpus,
            "near_s": self.distances.near,
            "far_s": self.distances.far,
            "lines": self.rows.iter().map(row).collect::<Vec<_>>(),
        });
        format!("{report:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines;

    const DISTANCES: Distances = Distances {
        near: 55e-9,
        far: None,
    };

    /// Two blocks per library, each with one of these times.
    fn measured(lines: &[Line], key: &str, times: &[f64]) -> Vec<Block> {
        let line = lines.iter().find(|line| line.key == key).unwrap();
        let block = |library: usize, round, seconds| Block {
            line: line.timed.number,
            library,
            round,
            seconds,
            iterations: 10,
            hops: Some([55e-9; 2]),
        };
        let each = times.iter().enumerate();
        each.flat_map(|(library, &time)| [0, 1].map(|round| block(library, round, time)))
            .collect()
    }

    fn row_of<'a>(lines: &'a [Line], key: &str, blocks: &[Block], libraries: usize) -> Row<'a> {
        let rows = rows(lines, blocks, &vec![[true; 2]; libraries], &DISTANCES);
        rows.into_iter().find(|row| row.line.key == key).unwrap()
    }

    #[test]
    fn times_are_compared_with_the_best_and_with_the_limit() {
        let lines = lines::all();
        let mut blocks = measured(&lines, "put", &[3e-9, 50e-9, 15e-9]);
        blocks.extend(measured(&lines, "raw-store", &[0.5e-9]));
        let row = row_of(&lines, "put", &blocks, 3);
        let ratio = row.ratio.unwrap();
        assert_eq!((ratio.best, ratio.rounds), (2, 2));
        assert!((ratio.ratio - 0.2).abs() < 1e-12);
        assert_eq!(row.met, Some(true));
        assert!((row.over_raw().unwrap() - 6.0).abs() < 1e-9);
        let slow = measured(&lines, "put", &[6e-9, 15e-9]);
        assert_eq!(row_of(&lines, "put", &slow, 2).met, Some(false));
        let alone = measured(&lines, "put", &[6e-9]);
        let row = row_of(&lines, "put", &alone, 1);
        assert_eq!((row.met, row.ratio), (None, None));
        assert_eq!(row.verdict(&[]), "not compared: no peer");
    }

    #[test]
    fn without_a_block_of_a_peer_at_this_distance_nothing_is_met() {
        let lines = lines::all();
        let labels = ["Windlass", "MPICH", "Open MPI"].map(String::from);
        let mut blocks = measured(&lines, "put", &[3e-9, 50e-9, 15e-9]);
        for block in blocks.iter_mut().filter(|block| block.library == 2) {
            block.hops = Some([55e-9, 240e-9]);
        }
        let row = row_of(&lines, "put", &blocks, 3);
        assert!(row.ratio.is_some_and(|ratio| ratio.best == 1));
        assert_eq!((row.met, &row.missing[..]), (None, &[2][..]));
        assert_eq!(
            row.verdict(&labels),
            "not compared: no block of Open MPI when near"
        );
        // Who is not started there is not missed.
        let started = [[true; 2], [true; 2], [false, true]];
        let found = rows(&lines, &blocks, &started, &DISTANCES);
        assert_eq!(found[0].met, Some(true));
        blocks.retain(|block| block.library != 0);
        let row = row_of(&lines, "put", &blocks, 3);
        assert_eq!((row.met, &row.missing[..]), (None, &[0][..]));
    }

    #[test]
    fn bandwidths_are_the_other_way_round() {
        let lines = lines::all();
        // 64 puts of 1 MiB in 8 ms and in 4 ms.
        let blocks = measured(&lines, "bw-1M", &[8e-3, 4e-3]);
        let row = row_of(&lines, "bw-1M", &blocks, 2);
        assert_eq!(row.ratio.unwrap().ratio, 0.5);
        assert_eq!(row.met, Some(false));
        assert_eq!(row.cells[0], Cell::Value(64.0 * 1048576.0 / 8e-3));
        assert_eq!(say(8.39e9, Unit::Bandwidth), "8.39 GB/s");
    }

    #[test]
    fn a_burst_is_told_by_operation() {
        let lines = lines::all();
        let blocks = measured(&lines, "rate", &[128e-9, 640e-9]);
        let Cell::Value(each) = row_of(&lines, "rate", &blocks, 2).cells[0] else {
            panic!("no value")
        };
        assert_eq!(say(each, Unit::Time), "2.00 ns");
    }

    #[test]
    fn who_waits_for_the_target_is_not_compared() {
        let lines = lines::all();
        // Ten iterations in 60 ms: as long as the target works.
        let blocks = measured(&lines, "busy", &[3e-9, 6e-3, 15e-9]);
        let row = row_of(&lines, "busy", &blocks, 3);
        assert_eq!(row.cells[1], Cell::Waits);
        assert_eq!(row.ratio.unwrap().best, 2);
        assert_eq!(row.met, Some(true));
        let row_all = measured(&lines, "busy", &[3e-9, 6e-3, 6e-3]);
        let row = row_of(&lines, "busy", &row_all, 3);
        assert_eq!((row.met, row.ratio), (Some(true), None));
        let ours = measured(&lines, "lent-busy", &[6e-3, 15e-9]);
        assert_eq!(row_of(&lines, "lent-busy", &ours, 2).met, Some(false));
    }

    #[test]
    fn the_table_names_what_is_met_and_parses_as_json() {
        let lines = lines::all();
        let mut blocks = measured(&lines, "put", &[3e-9, 15e-9]);
        blocks.extend(measured(&lines, "get", &[3e-9]));
        blocks.extend(measured(&lines, "tcp-put", &[30e-6, 20e-6]));
        blocks.extend(measured(&lines, "raw-hop", &[110e-9]));
        let report = Report {
            labels: vec!["Windlass 1".into(), "MPICH 4.0.2".into()],
            notes: vec!["MPICH 4.0.2: its defaults".into()],
            remarks: &["something was left out".into()],
            cpus: [0, 1],
            rounds: 2,
            distances: DISTANCES,
            rows: rows(&lines, &blocks, &[[true; 2]; 2], &DISTANCES),
        };
        let text = report.text();
        let line = |part: &str| {
            text.lines()
                .find(|line| line.starts_with(part))
                .unwrap_or_default()
                .to_owned()
        };
        assert!(
            line("put + flush, 8 B").contains("0.20 (0.20 to 0.20)"),
            "{text}"
        );
        assert!(
            line("put + flush, 8 B").ends_with("<= 0.33       met"),
            "{text}"
        );
        assert!(line("TCP: put + flush").ends_with("NOT MET"), "{text}");
        assert!(
            line("a cache line's round trip").contains("110 ns"),
            "{text}"
        );
        assert!(text.contains("# remark: something was left out"), "{text}");
        assert!(
            line("get + flush").ends_with("not compared: no block of MPICH 4.0.2 when near"),
            "{text}"
        );
        assert!(
            text.ends_with("# goals: 1 of 2 met, 1 not compared\n"),
            "{text}"
        );
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(value["lines"].as_array().unwrap().len(), 4);
        assert_eq!(value["lines"][2]["missing"][0], "MPICH 4.0.2");
    }
}
