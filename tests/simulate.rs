//! The simulation: what grows how with the ranks, by counted messages; the same seed, the same output.

use std::process::Command;

use serde_json::Value;

fn simulate(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_windlass-simulate"))
        .args(arguments)
        .output()
        .expect("the simulation can be started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    assert_eq!(told, "", "progress is for terminals");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// One row of a call: ranks, and a field by its name.
struct Row<'a>(&'a Value);

impl Row<'_> {
    fn of(&self, field: &str) -> u64 {
        let value = &self.0[field];
        value
            .as_u64()
            .unwrap_or_else(|| panic!("{field} in {}", self.0))
    }

    fn ns(&self) -> f64 {
        self.0["ns"].as_f64().expect("a time")
    }

    fn nodes(&self, per_node: u64) -> u64 {
        self.of("ranks").div_ceil(per_node)
    }

    /// Steps of a dissemination between its nodes.
    fn steps(&self, per_node: u64) -> u64 {
        u64::from(self.nodes(per_node).next_power_of_two().ilog2())
    }
}

fn rows<'a>(all: &'a Value, call: &str) -> Vec<Row<'a>> {
    let rows = all["calls"][call].as_array();
    rows.unwrap_or_else(|| panic!("there is no {call}"))
        .iter()
        .map(Row)
        .collect()
}

/// Messages of the busiest rank per step between nodes: one for a barrier, two for a gather.
const COLLECTIVE: [(&str, u64); 5] = [
    ("fence", 1),
    ("gather", 2),
    ("window", 2),
    ("window-new", 4),
    ("split", 4),
];

#[test]
fn fence_and_creation_grow_with_the_logarithm_of_the_nodes() {
    for (most, per_node) in [("256", 4), ("45", 3)] {
        let mut arguments = vec![most, "--json", "--per-node"];
        let per_node_text = per_node.to_string();
        arguments.push(&per_node_text);
        for (call, _) in COLLECTIVE {
            arguments.extend(["--only", call]);
        }
        let all: Value = serde_json::from_str(&simulate(&arguments)).expect("it is JSON");
        for (call, each) in COLLECTIVE {
            let rows = rows(&all, call);
            assert_eq!(
                rows.last()
                    .map(|row| row.of("ranks").to_string())
                    .as_deref(),
                Some(most)
            );
            for row in &rows {
                let (steps, nodes) = (row.steps(per_node), row.nodes(per_node));
                assert_eq!(row.of("messages"), each * steps, "{call}: {}", row.0);
                // Only the first ranks of the nodes have anything to do between them.
                assert_eq!(
                    row.of("messages_of_all"),
                    each * steps * nodes,
                    "{call}: {}",
                    row.0
                );
                assert!(row.of("hops") <= 8 * per_node, "{call}: {}", row.0);
            }
        }
        let fences = rows(&all, "fence");
        let between: Vec<_> = fences
            .iter()
            .filter(|row| row.nodes(per_node) > 1)
            .collect();
        let step = between[0].ns() / between[0].steps(per_node) as f64;
        for row in between {
            let of_step = row.ns() / row.steps(per_node) as f64;
            assert!((0.7..1.3).contains(&(of_step / step)), "{}", row.0);
        }
    }
}

#[test]
fn a_lock_costs_the_same_however_many_ranks_there_are() {
    let per_node = 4;
    let calls = ["lock", "lock-contended", "pscw"];
    let mut arguments = vec!["512", "--per-node", "4", "--contenders", "4", "--json"];
    for call in calls {
        arguments.extend(["--only", call]);
    }
    let all: Value = serde_json::from_str(&simulate(&arguments)).expect("it is JSON");
    for call in calls {
        // Each of those who want one lock is on a node of its own.
        let rows = rows(&all, call);
        let spread: Vec<_> = rows.iter().filter(|row| row.nodes(per_node) >= 8).collect();
        let messages: Vec<u64> = spread.iter().map(|row| row.of("messages")).collect();
        assert!(
            messages.len() >= 4 && messages[0] > 0,
            "{call}: {messages:?}"
        );
        match call {
            // A try and a release.
            "lock" => assert!(messages.iter().all(|&count| count == 2), "{messages:?}"),
            // A post and a complete each, to both neighbours.
            "pscw" => assert!(messages.iter().all(|&count| count == 4), "{messages:?}"),
            // Who waits asks again and again.
            _ => {
                let (least, most) = (messages.iter().min(), messages.iter().max());
                assert!(
                    most <= least.map(|least| least * 2).as_ref(),
                    "{messages:?}"
                );
            }
        }
    }
}

#[test]
fn the_same_seed_prints_the_same_bytes() {
    let run = |seed: &str| simulate(&["64", "--per-node", "4", "--seed", seed]);
    let first = run("7");
    assert_eq!(first, run("7"));
    assert_ne!(first, run("8"), "the seed has no effect");
    // The rules of those who read OSU results: remarks, or a size and a value.
    let mut rows = 0;
    for line in first.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split_whitespace().map(str::parse::<f64>);
        let pair = (columns.next(), columns.next());
        assert!(matches!(pair, (Some(Ok(_)), Some(Ok(_)))), "{line:?}");
        rows += 1;
    }
    assert_eq!(rows, 9 * 6, "nine calls of 2 to 64 ranks");
}

#[test]
fn the_model_has_its_way() {
    let fence = |arguments: &[&str]| {
        let mut all = vec![
            "8",
            "--per-node",
            "2",
            "--only",
            "fence",
            "--json",
            "--skew",
            "0",
        ];
        all.extend(arguments);
        let all: Value = serde_json::from_str(&simulate(&all)).expect("it is JSON");
        rows(&all, "fence").last().expect("a row").ns()
    };
    let base = [
        "-L", "1000", "-o", "100", "-g", "0", "-G", "0", "--hop", "0",
    ];
    // Four nodes in two steps, each of a way and of sender and receiver; own words take 5 ns.
    let own = fence(&base) - 2.0 * 1200.0;
    assert!((0.0..50.0).contains(&own), "{own}");
    let further = |index: usize, value| {
        let mut changed = base;
        changed[index] = value;
        fence(&changed) - fence(&base)
    };
    assert!((further(1, "3000") - 2.0 * 2000.0).abs() < 1.0);
    // Answers keep the helper busy as well, which may hold up what comes next.
    assert!(further(3, "300") >= 2.0 * 2.0 * 200.0);
    assert!(further(7, "10") >= 2.0 * 30.0 * 10.0, "a byte's time");
    assert!(
        further(9, "500") >= 2.0 * 500.0,
        "arrival and release within a node"
    );
}
