//! The benchmarks as people run them: whatever is asked for, parsers of OSU results can read it; `-c` finds a wrong
//! byte; a mistake is answered before anything is started.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use clap::{Parser, ValueEnum};
use serde_json::Value;
use support::RuntimeDir;
use windlass_launcher::measure::{Benchmark, Creation, Options};

/// Runs `windlass bench` with these words; it must leave nothing behind.
#[track_caller]
fn bench(line: &str) -> Output {
    static BUILT: OnceLock<()> = OnceLock::new();
    // The command looks for it beside itself.
    BUILT.get_or_init(|| drop(support::program("--bin", "windlass-osu")));
    let base = RuntimeDir::new();
    let output = Command::new(support::command())
        .args(["bench", "--timeout", "200"])
        .args(line.split(' '))
        .env("XDG_RUNTIME_DIR", base.path())
        .stdin(Stdio::null())
        .output()
        .expect("it can be started");
    let left = base.entries();
    assert!(left.is_empty(), "{line}: left behind: {left:?}");
    output
}

/// What it printed; `code` is its exit code, and of a good one nothing is said beside but that cpus are few.
#[track_caller]
fn printed(line: &str, code: i32) -> String {
    let output = bench(line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{line}: {said}");
    let other = said.lines().find(|line| !line.contains("processor"));
    assert!(code != 0 || other.is_none(), "{line}: {said}");
    String::from_utf8(output.stdout).expect("it is text")
}

/// The rules of parsers of OSU results: lines that begin with `#` are skipped, every other one is numbers between
/// blanks, the first a size.
#[track_caller]
fn rows(line: &str, text: &str, columns: usize) -> Vec<(usize, Vec<f64>)> {
    let rows = text.lines().filter(|row| !row.starts_with('#'));
    rows.map(|row| {
        let mut cells = row.split_whitespace();
        let size = cells.next().and_then(|cell| cell.parse().ok());
        let size = size.unwrap_or_else(|| panic!("{line}: {row:?} has no size in {text}"));
        let values: Vec<f64> = cells
            .map(|cell| {
                cell.parse()
                    .unwrap_or_else(|_| panic!("{line}: {cell:?} in {row:?}"))
            })
            .collect();
        assert_eq!(values.len() + 1, columns, "{line}: {row:?}");
        assert!(
            values
                .iter()
                .all(|value| value.is_finite() && *value >= 0.0),
            "{row:?}"
        );
        (size, values)
    })
    .collect()
}

fn name(benchmark: Benchmark) -> String {
    benchmark.to_string()
}

/// A few iterations of few sizes, with their bytes compared where there are some.
fn short(benchmark: Benchmark) -> String {
    let compared = if benchmark.moves_data() { " -c" } else { "" };
    format!("{benchmark} -i 20 -x 2 -m 8:32{compared}")
}

fn sizes(line: &str) -> Vec<usize> {
    let options = Options::parse_from(["windlass-osu"].into_iter().chain(line.split(' ')));
    options.sizes().collect()
}

#[test]
fn every_table_has_two_columns() {
    for &benchmark in Benchmark::value_variants() {
        let line = short(benchmark);
        let text = printed(&line, 0);
        let head = text.lines().next().unwrap_or_default();
        assert!(
            head.starts_with(&format!("# Windlass {benchmark}: ")),
            "{head}"
        );
        assert!(head.contains(" Test v"), "{head}");
        let rows = rows(&line, &text, 2);
        let found: Vec<usize> = rows.iter().map(|row| row.0).collect();
        assert_eq!(found, sizes(&line), "{line}: {text}");
        assert!(rows.iter().any(|row| row.1[0] > 0.0), "{line}: {text}");
        let passed = text.contains("# Validation: passed\n");
        assert_eq!(passed, benchmark.moves_data(), "{line}: {text}");
    }
}

#[test]
fn further_columns_have_names_and_their_order() {
    for &benchmark in Benchmark::value_variants() {
        let line = short(benchmark) + " -f";
        let text = printed(&line, 0);
        for (_, values) in rows(&line, &text, 6) {
            let [_, min, median, p99, max] = values[..] else {
                panic!("{line}: {values:?}")
            };
            let tail_is_low = p99 < median;
            assert!(min <= median && median <= max, "{line}: {text}");
            assert!(min <= p99 && p99 <= max, "{line}: {text}");
            let is_rate = text.contains("MB/s") || text.contains("Messages/s");
            assert!(is_rate || !tail_is_low, "{line}: {text}");
        }
        let names = text.lines().find(|row| row.starts_with("# Size"));
        let names = names.expect("columns have names");
        for column in ["Min ", "P50 Tail ", "P99 Tail ", "Max "] {
            assert!(names.contains(column), "{line}: {names}");
        }
        assert!(text.contains("# Samples: of "), "{line}: {text}");
    }
}

#[test]
fn every_json_is_one_value() {
    for &benchmark in Benchmark::value_variants() {
        let line = short(benchmark) + " --json";
        let text = printed(&line, 0);
        let value: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(value["benchmark"], name(benchmark), "{line}");
        let rows = value["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), sizes(&line).len(), "{line}");
        assert!(
            rows.iter()
                .all(|row| row["wrong_bytes"] == 0 && row["value"].is_number())
        );
    }
}

/// Every window, every synchronisation.
#[test]
fn windows_and_synchronisations_carry_the_right_bytes() {
    for window in Creation::value_variants() {
        for what in [
            "put-latency",
            "get-bw -W 3",
            "put-bibw",
            "get-acc-latency",
            "cas-latency",
            "window-create",
        ] {
            let line = format!("{what} -w {window} -i 5 -m 8:64 -c");
            let text = printed(&line, 0);
            assert!(text.contains("# Validation: passed\n"), "{line}: {text}");
            rows(&line, &text, 2);
        }
    }
    for sync in ["flush", "flush_local", "lock", "lock_all", "fence", "pscw"] {
        for what in ["put-bw", "put-bibw", "acc-latency --nodes 2", "strided-put"] {
            let line = format!("{what} -s {sync} -i 5 -m 8:16 -c");
            let text = printed(&line, 0);
            assert!(text.contains("# Validation: passed\n"), "{line}: {text}");
        }
    }
}

/// A transfer that carries one wrong byte is found, by whatever moves data.
#[test]
fn a_corrupted_transfer_is_found() {
    let moving = Benchmark::value_variants()
        .iter()
        .filter(|benchmark| benchmark.moves_data());
    let mut lines: Vec<String> = moving.map(|&benchmark| short(benchmark)).collect();
    lines.extend(
        ["create", "dynamic", "shared"]
            .map(|window| format!("put-latency -w {window} -m 8:8 -i 2 -c")),
    );
    lines.push("get-latency --nodes 2 -m 8:8 -i 2 -c".into());
    for line in lines {
        let line = line + " --spoil";
        let text = printed(&line, 1);
        let found = text.matches("# Validation failed: ").count();
        assert_eq!(found, rows(&line, &text, 2).len(), "{line}: {text}");
        assert!(!text.contains("# Validation: passed"), "{line}: {text}");
    }
}

#[test]
fn a_table_for_each_route_or_the_reason() {
    let line = "put-latency -i 5 -m 8:16 -c --all-routes";
    let text = printed(line, 0);
    let tables = ["vhshm (mapped)", "rsm (mapped)", "udapl (posted)"];
    for route in tables {
        assert!(
            text.contains(&format!("# Route: {route}\n")),
            "{route}: {text}"
        );
    }
    assert_eq!(rows(line, &text, 2).len(), 2 * tables.len(), "{text}");
    let reason = |route: &str| {
        let remark = format!("# Route {route}: none here: ");
        let found = text.lines().find_map(|line| line.strip_prefix(&remark));
        found
            .unwrap_or_else(|| panic!("{route}: {text}"))
            .to_owned()
    };
    assert!(reason("veo").contains("no VEs"), "{text}");
    assert!(reason("cma").contains("lent memory"), "{text}");

    let line = "put-latency -i 5 -m 8:8 --all-routes --json -w create";
    let value: Value = serde_json::from_str(&printed(line, 0)).expect("it is JSON");
    let tables = value.as_array().expect("a list");
    let of = |route: &str| tables.iter().find(|table| table["mechanism"] == route);
    assert!(
        of("cma").is_some_and(|table| table["rows"][0]["size"] == 8),
        "{value:#}"
    );
    assert!(
        of("veshm").is_some_and(|table| table["refused"].is_string()),
        "{value:#}"
    );
}

/// Also what compares with the machine is remarks.
#[test]
fn ratios_are_remarks() {
    for what in ["put-latency", "barrier", "acc-latency"] {
        let line = format!("{what} -i 5 -m 8:8 --ratio");
        let text = printed(&line, 0);
        assert_eq!(rows(&line, &text, 2).len(), 1, "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("# Ratio ")),
            "{text}"
        );
    }
}

#[test]
fn options_stand_before_and_behind_the_dashes() {
    let head = |line: &str| {
        let text = printed(line, 0);
        rows(line, &text, 2);
        let head = text.lines().filter(|line| line.starts_with('#'));
        head.map(str::to_owned)
            .filter(|line| !line.contains("disturbed"))
            .collect::<Vec<_>>()
    };
    let bare = head("put-bw -n 3 -m 8:8 -W 4 -x 1 -i 5 -c -s lock");
    assert!(bare.contains(&"# Window size: 4".into()), "{bare:?}");
    assert!(bare.contains(&"# Ranks: 0 -> 1 of 3".into()), "{bare:?}");
    assert_eq!(
        bare,
        head("put-bw -n 3 -s lock -- -m 8:8 -W 4 -x 1 -i 5 -c")
    );
    assert_eq!(bare, head("-m 8:8 -W 4 -x 1 -i 5 -c put-bw -s lock -np 3"));
}

#[test]
fn mistakes_are_answered_before_anything_is_started() {
    for (line, words) in [
        ("put-latancy", &["put-latancy", "'put-latency'"][..]),
        (
            "put-latency --itertions 3",
            &["--itertions", "--iterations"],
        ),
        ("put-latency -m 8:4", &["MIN:MAX"]),
        ("fence -c", &["fence moves no data", "leave -c out"]),
        ("put-latency -n 1", &["target is rank 1", "-n 2"]),
        (
            "put-latency --all-routes -w shared",
            &["leave --all-routes out"],
        ),
        ("progress -s fence", &["give -s flush"]),
    ] {
        let output = bench(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert_eq!(said.matches("error: ").count(), 1, "{line}: {said}");
        for word in words {
            assert!(said.contains(word), "{line}: {word:?}: {said}");
        }
    }
}

#[test]
fn a_benchmark_of_another_build_is_told_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let [command, program] = ["windlass", "windlass-osu"].map(|name| dir.path().join(name));
    std::fs::copy(support::command(), &command).unwrap();
    std::fs::write(&program, "#!/bin/sh\necho 1\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&command)
        .args(["bench", "put-latency"])
        .output();
    let output = output.expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("cargo build --release"), "{said}");
}

#[test]
fn help_and_version() {
    let help = String::from_utf8(bench("-h").stdout).expect("it is text");
    for &benchmark in Benchmark::value_variants() {
        assert!(help.contains(&name(benchmark)), "{benchmark}: {help}");
    }
    for word in [
        "Examples",
        "-W, --window-size",
        "--all-routes",
        "--place",
        "flush_local",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let version = String::from_utf8(bench("put-latency -v").stdout).expect("it is text");
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}
