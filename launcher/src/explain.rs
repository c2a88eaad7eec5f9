//! `windlass explain`: which route each pair of ranks gets, and why not the others.
//!
//! The launcher runs itself as the rank program; each rank creates one window, and prints what
//! its negotiation found as one JSON line, a [`Row`]. The launcher prints a matrix and the reasons.

use std::fmt::Write;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};
use windlass_runtime::MechanismId;
use windlass_runtime::transport::ofi::PROVIDER;
use windlass_runtime::transport::udapl::DAT;

use crate::cli::{Memory, Placement};
use crate::command::supervise;
use crate::ending::Outcome;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::output::Sink;
use crate::place::{Plan, Seat};

/// What one rank found: its way to every rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The origin.
    pub rank: u32,
    /// One entry per rank, in rank order, itself included.
    pub targets: Vec<Target>,
}

/// The way from an origin to one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The target.
    pub rank: u32,
    /// The mechanism taken.
    pub mechanism: String,
    /// `mapped` or `posted`, and by what.
    pub shape: String,
    /// Cost by which mechanisms are ranked: lower is better.
    pub cost: u32,
    /// Each mechanism not taken, and why in a sentence.
    pub rejected: Vec<(String, String)>,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where the window's memory comes from.
    pub window: Memory,
    /// Where each rank lives: `node 0, ve1`.
    pub ranks: Vec<String>,
    /// In rank order.
    pub rows: Vec<Row>,
    /// The adapter of libdat2 that `udapl` goes by; without one it is the provider in software.
    pub adapter: Option<String>,
    /// The provider of libfabric that `ofi` goes by, where one is named.
    pub provider: Option<String>,
}

/// What a variable names, if it is set.
fn named(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|name| !name.is_empty())
}

impl Report {
    /// Reads the rows that the ranks of `plan` printed.
    ///
    /// Errors: a row is missing, doubled, not JSON, or does not name every rank once.
    pub fn read(plan: &Plan, window: Memory, text: &str) -> Result<Report> {
        let size = plan.seats.len();
        let mut rows: Vec<Option<Row>> = vec![None; size];
        for line in text.lines() {
            let row: Row = serde_json::from_str(line).map_err(|error| {
                Error::Report(format!("a rank printed no row of the report: {error}"))
            })?;
            let complete = row
                .targets
                .iter()
                .map(|target| target.rank)
                .eq(0..size as u32);
            match rows.get_mut(row.rank as usize) {
                Some(slot) if complete && slot.is_none() => *slot = Some(row),
                _ => {
                    return Err(Error::Report(format!(
                        "rank {} printed a row that does not fit the job",
                        row.rank
                    )));
                }
            }
        }
        let rows: Option<Vec<Row>> = rows.into_iter().collect();
        let rows =
            rows.ok_or_else(|| Error::Report("a rank printed no row of the report".into()))?;
        let home = |seat: &Seat| format!("node {}, {}", seat.node, seat.place);
        Ok(Report {
            window,
            ranks: plan.seats.iter().map(home).collect(),
            rows,
            adapter: named(DAT),
            provider: named(PROVIDER),
        })
    }

    /// The matrix, then each pair with its rejected mechanisms. Pairs with equal answers share a paragraph.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.matrix(&mut out).and_then(|()| self.reasons(&mut out));
        out
    }

    fn matrix(&self, out: &mut String) -> std::fmt::Result {
        let label = |rank: usize| format!("{rank} ({})", self.ranks[rank]);
        let left = (0..self.rows.len())
            .map(|rank| label(rank).len())
            .max()
            .unwrap_or(0);
        let names = self
            .rows
            .iter()
            .flat_map(|row| &row.targets)
            .map(|t| t.mechanism.len());
        let wide = names.max().unwrap_or(0).max(4) + 2;
        let window = match self.window {
            Memory::Allocate => "an allocated window",
            Memory::Create => "a window over lent memory",
        };
        writeln!(
            out,
            "Route of {window}, from origin (row) to target (column):\n"
        )?;
        write!(out, "{:left$}", "")?;
        for target in 0..self.rows.len() {
            write!(out, "{target:>wide$}")?;
        }
        writeln!(out)?;
        for (rank, row) in self.rows.iter().enumerate() {
            write!(out, "{:left$}", label(rank))?;
            for target in &row.targets {
                write!(out, "{:>wide$}", target.mechanism)?;
            }
            writeln!(out)?;
        }
        if let Some(adapter) = &self.adapter {
            writeln!(
                out,
                "\nudapl goes by the adapter {adapter} of libdat2 ({DAT})"
            )?;
        }
        let mut ways = self.rows.iter().flat_map(|row| &row.targets);
        if ways.any(|way| way.mechanism == MechanismId::Ofi.name()) {
            let provider = self.provider.as_deref();
            let provider = provider.unwrap_or("that serves first: `windlass info` lists them");
            writeln!(
                out,
                "\nofi goes by the provider {provider} of libfabric ({PROVIDER}); updates of its targets go by udapl"
            )?;
        }
        Ok(())
    }

    fn reasons(&self, out: &mut String) -> std::fmt::Result {
        // (answer, pairs), in the order of the first pair of each.
        let mut groups: Vec<(Target, Vec<String>)> = Vec::new();
        for row in &self.rows {
            for target in &row.targets {
                let pair = format!("{}->{}", row.rank, target.rank);
                let answer = spoken(target);
                match groups.iter_mut().find(|(of, _)| *of == answer) {
                    Some((_, pairs)) => pairs.push(pair),
                    None => groups.push((answer, vec![pair])),
                }
            }
        }
        for (target, pairs) in groups {
            let Target {
                mechanism,
                shape,
                cost,
                rejected,
                ..
            } = &target;
            writeln!(
                out,
                "\n{}: {mechanism}, {shape}, cost {cost}",
                pairs.join(" ")
            )?;
            let wide = rejected
                .iter()
                .map(|(name, _)| name.len())
                .max()
                .unwrap_or(0);
            for (name, reason) in rejected {
                writeln!(out, "    not {name:wide$}  {reason}")?;
            }
        }
        Ok(())
    }
}

/// The answer in words that do not name the target, so that equal answers are equal.
fn spoken(target: &Target) -> Target {
    let number = format!("rank {} ", target.rank);
    let reasons = target.rejected.iter();
    let rejected = reasons.map(|(name, why)| (name.clone(), why.replace(&number, "the target ")));
    Target {
        rank: 0,
        rejected: rejected.collect(),
        ..target.clone()
    }
}

/// Asks the ranks of such a job, with more variables; or how it ended where it failed.
pub(crate) fn report(
    placement: &Placement,
    window: Memory,
    variables: &[(&str, &str)],
    stderr: Sink,
) -> Result<std::result::Result<Report, Outcome>> {
    let exe = std::env::current_exe().map_err(|source| Error::System {
        what: "finding the launcher's own program",
        source,
    })?;
    let memory = window.to_possible_value();
    let memory = memory.as_ref().map_or("", PossibleValue::get_name);
    let mut job = placement
        .apply(Job::new(exe).args(["__explain", memory]))?
        .at_least(2)
        .tag(false)
        .stdout(Sink::Capture)
        .stderr(stderr);
    for &(name, value) in variables {
        job = job.env(name, value);
    }
    let plan = job.plan()?;
    let outcome = supervise(job)?;
    if outcome.exit_code != 0 {
        return Ok(Err(outcome));
    }
    Ok(Ok(Report::read(&plan, window, &outcome.stdout_text())?))
}

/// `windlass explain`.
pub(crate) fn print(placement: &Placement, window: Memory, json: bool) -> Result<i32> {
    let report = match report(placement, window, &[], Sink::Inherit)? {
        Ok(report) => report,
        Err(failed) => return Ok(failed.exit_code),
    };
    let text = if json {
        let text = serde_json::to_string_pretty(&report);
        text.map_err(|error| Error::Report(format!("the report has no JSON form: {error}")))? + "\n"
    } else {
        report.text()
    };
    crate::command::print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::{Wish, plan};

    fn row(rank: u32) -> Row {
        let target = |to: u32| Target {
            rank: to,
            mechanism: if to == rank { "loopback" } else { "veshm" }.into(),
            shape: "mapped".into(),
            cost: 1,
            rejected: vec![("udapl".into(), "a better route exists".into())],
        };
        Row {
            rank,
            targets: vec![target(0), target(1)],
        }
    }

    fn two() -> Plan {
        plan(&Wish {
            ranks: Some(2),
            ves: Some(1),
            ..Wish::default()
        })
        .unwrap()
    }

    fn printed(rows: &[Row]) -> String {
        rows.iter()
            .map(|row| serde_json::to_string(row).unwrap() + "\n")
            .collect()
    }

    #[test]
    fn the_report_has_every_pair_and_groups_equal_answers() {
        let report = Report::read(&two(), Memory::Allocate, &printed(&[row(1), row(0)])).unwrap();
        let text = report.text();
        assert!(
            text.contains("0 (node 0, ve0)  loopback     veshm"),
            "{text}"
        );
        assert!(
            text.contains("0->0 1->1: loopback, mapped, cost 1\n    not udapl  a better route"),
            "{text}"
        );
        assert!(text.contains("0->1 1->0: veshm"), "{text}");
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let short = Row {
            rank: 0,
            targets: vec![],
        };
        for text in [
            printed(&[row(0)]),
            printed(&[row(0), row(0)]),
            printed(&[row(0), row(2)]),
            printed(&[row(1), short]),
            "hello\n".into(),
        ] {
            assert!(
                Report::read(&two(), Memory::Allocate, &text).is_err(),
                "{text}"
            );
        }
    }
}
