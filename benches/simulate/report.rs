//! Tables that parsers of OSU results read, and the same as JSON.

use std::fmt::Write;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::operations::{Operation, Outcome};
use crate::options::Options;

/// What `--json` calls the operation, and `--only`.
fn name(operation: Operation) -> String {
    let value = operation.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn help(operation: Operation) -> String {
    let value = operation.to_possible_value();
    let help = value.and_then(|value| value.get_help().map(ToString::to_string));
    help.unwrap_or_default()
}

pub(crate) fn head(options: &Options) -> String {
    let Options {
        per_node,
        latency,
        overhead,
        gap,
        gap_per_byte,
        hop,
        copy,
        contenders,
        skew,
        seed,
        ..
    } = options;
    format!(
        "# Windlass simulated: {per_node} ranks a node, L {latency} o {overhead} g {gap} G {gap_per_byte} hop {hop} \
         copy {copy} ns, {contenders} contenders, skew {skew} ns, seed {seed}\n\
         # Time is predicted. The most of any rank: Sent (messages to other nodes), Answers, Bytes sent, Hops (cache\n\
         # lines from other ranks of its node). Memory is what a rank holds for it, its share of the node's words included\n"
    )
}

pub(crate) fn table(operation: Operation, outcomes: &[Outcome]) -> String {
    let mut out = format!("#\n# {}: {}\n", name(operation), help(operation));
    let _ = writeln!(
        out,
        "{:<10}{:>20}{:>10}{:>10}{:>12}{:>10}{:>14}{:>12}",
        "# Ranks", "Time (us)", "Sent", "Answers", "Bytes", "Hops", "Sent by all", "Memory (B)"
    );
    for outcome in outcomes {
        let Outcome {
            ranks,
            most,
            messages,
            memory,
            ..
        } = outcome;
        let us = outcome.picoseconds as f64 / 1e6;
        let _ = writeln!(
            out,
            "{ranks:<10}{us:>20.2}{:>10}{:>10}{:>12}{:>10}{messages:>14}{memory:>12}",
            most.messages, most.answers, most.bytes, most.hops
        );
    }
    out
}

pub(crate) fn json(options: &Options, all: &[(Operation, Vec<Outcome>)]) -> Value {
    let outcome = |outcome: &Outcome| {
        json!({
            "ranks": outcome.ranks,
            "ns": outcome.picoseconds as f64 / 1e3,
            "messages": outcome.most.messages,
            "answers": outcome.most.answers,
            "bytes": outcome.most.bytes,
            "hops": outcome.most.hops,
            "messages_of_all": outcome.messages,
            "memory_bytes": outcome.memory,
        })
    };
    let rows = |outcomes: &[Outcome]| outcomes.iter().map(outcome).collect::<Vec<_>>();
    let calls = all
        .iter()
        .map(|(operation, outcomes)| (name(*operation), Value::from(rows(outcomes))));
    json!({
        "per_node": options.per_node,
        "latency_ns": options.latency,
        "overhead_ns": options.overhead,
        "gap_ns": options.gap,
        "gap_per_byte_ns": options.gap_per_byte,
        "hop_ns": options.hop,
        "copy_per_byte_ns": options.copy,
        "skew_ns": options.skew,
        "contenders": options.contenders,
        "seed": options.seed,
        "calls": calls.collect::<serde_json::Map<_, _>>(),
    })
}
