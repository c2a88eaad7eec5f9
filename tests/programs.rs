//! What examples and the benchmark say of mistakes: one text, by one rank, with a remedy, and no
//! word of the launcher's after it.

mod support;

use std::process::{Command, Stdio};

use support::RuntimeDir;

/// Runs a program on two ranks; gives its exit code and what was said.
fn run(kind: &str, words: &[&str]) -> (i32, String) {
    let base = RuntimeDir::new();
    let (name, arguments) = words.split_first().expect("a program");
    let _alone = support::leaks::alone();
    let output = Command::new(support::command())
        .args(["run", "-n", "2", "--timeout", "60"])
        .arg(support::program(kind, name))
        .args(arguments)
        .env("XDG_RUNTIME_DIR", base.path())
        .stdin(Stdio::null())
        .output()
        .expect("it can be started");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

#[track_caller]
fn refused(kind: &str, line: &str, remedy: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let (code, said) = run(kind, &words);
    assert_eq!(code, 2, "{line}: {said}");
    assert!(said.contains(remedy), "{line}: {remedy:?}: {said}");
    assert_eq!(said.matches("error: ").count(), 1, "{line}: {said}");
    assert!(
        !said.contains("as a value") && !said.contains("is not in"),
        "{line}: {said}"
    );
    // Not even that a rank has failed: it has said so itself.
    let launcher = said.lines().filter(|line| line.starts_with("windlass: "));
    let launcher = launcher.filter(|line| !line.contains("processors")).count();
    assert_eq!(launcher, 0, "{line}: {said}");
}

#[test]
fn examples_refuse_with_a_remedy() {
    for (line, remedy) in [
        ("gups --threads 0", "give a whole number from 1 to 1024"),
        ("heat --size 0x5", "is empty; both sides must be at least 1"),
        ("transpose --rows 0", "give a whole number of 1 or more"),
        ("spmv --foo", "unexpected argument"),
        ("wordcount --batch 0", "give a whole number of 1 or more"),
    ] {
        refused("--example", line, remedy);
    }
}

#[test]
fn examples_refuse_what_does_not_fit_into_memory() {
    let system = std::fs::read_to_string("/proc/meminfo").expect("Linux says so");
    let total = system
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok());
    if total.is_some_and(|kib: u64| kib > 40 << 20) {
        eprintln!("not tried: this machine has memory for all that is accepted");
        return;
    }
    refused("--example", "gups --words 32", "give a smaller --words");
    refused(
        "--example",
        "heat --size 67108864x1",
        "give a smaller --size",
    );
}

#[test]
fn a_wrong_answer_says_what_to_change() {
    let (code, said) = run("--example", &["spmv", "--iterations", "3"]);
    assert!(
        code == 1 && said.contains("give more --iterations"),
        "{said}"
    );
}

#[test]
fn the_benchmark_refuses_with_a_remedy() {
    for (line, remedy) in [
        (
            "windlass-osu put-latency -i 0",
            "give a whole number of 1 or more",
        ),
        ("windlass-osu put-latency --foo", "unexpected argument"),
        ("windlass-osu put-latency --target 2", "windlass run -n 3"),
    ] {
        refused("--bin", line, remedy);
    }
}
