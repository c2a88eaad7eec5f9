//! Instructions of a put, a get and a fetch-and-op of 8 bytes on a mapped route, counted: what makes
//! them slower is seen whatever the noise of the machine.
//!
//! Two ranks run under valgrind's callgrind, twice with different numbers of calls, and only what the
//! loop of the first executes is counted: the difference is that of the calls alone. Needs optimised
//! code for x86-64 and `valgrind`; skipped with the reason where these are missing.
//!
//! ```sh
//! cargo test --release --test instructions -- --show-output
//! ```

mod support;

use std::hint::black_box;
use std::process::{Command, Stdio};

use support::RuntimeDir;
use windlass::{LockKind, Op, Rank, Window};

/// Instructions of one call and its flush as they were counted last (rustc 1.95). To renew them, run the
/// test with `--show-output` and write what it tells here.
const COUNTED: [(&str, f64); 3] = [("put", 52.0), ("get", 46.0), ("fetch_and_op", 35.0)];

/// What another version of the compiler may make of it: a tenth, or two instructions.
fn limit(counted: f64) -> f64 {
    (counted * 1.1).max(counted + 2.0)
}

/// Calls of the two runs.
const FEW: u64 = 100;
const MANY: u64 = 1_100;

/// Who is called.
const TARGET: Rank = Rank(1);

/// Tells a rank what it calls, and how often.
const CASE: &str = "WLTEST_COUNT";

const TEST: &str = "calls_on_mapped_routes_execute_no_more_instructions";

#[inline(never)]
fn counted_puts(window: &Window<u64>, calls: u64) {
    let lock = window.lock(TARGET, LockKind::Shared).expect("a lock");
    for call in 0..calls {
        lock.put(black_box(&[call]), TARGET, 0).expect("a put");
        lock.flush(TARGET).expect("a flush");
    }
}

#[inline(never)]
fn counted_gets(window: &Window<u64>, calls: u64) {
    let lock = window.lock(TARGET, LockKind::Shared).expect("a lock");
    let mut seen = [0];
    for _ in 0..calls {
        lock.get(black_box(&mut seen), TARGET, 0).expect("a get");
        lock.flush(TARGET).expect("a flush");
    }
    black_box(seen);
}

#[inline(never)]
fn counted_updates(window: &Window<u64>, calls: u64) {
    let lock = window.lock(TARGET, LockKind::Shared).expect("a lock");
    for _ in 0..calls {
        let old = lock.fetch_and_op(black_box(1), TARGET, 0, Op::Sum);
        black_box(old.expect("an update"));
        lock.flush(TARGET).expect("a flush");
    }
}

/// A rank of the job.
fn count(case: &str) {
    let (call, times) = case.split_once(' ').expect("a call and a number");
    let times = times.parse().expect("a number");
    let world = windlass::init().expect("a job");
    let window = world.allocate::<u64>(8).expect("a window");
    let shapes: Vec<_> = window.routes().map(|route| route.shape).collect();
    assert_eq!(shapes, ["mapped"; 2]);
    match call {
        _ if world.rank() == TARGET => {}
        "put" => counted_puts(&window, times),
        "get" => counted_gets(&window, times),
        _ => counted_updates(&window, times),
    }
    window.free().expect("the end of the window");
    world.end().expect("the end of the job");
}

/// Instructions that the loop of so many calls executes.
fn instructions(call: &str, times: u64) -> f64 {
    let base = RuntimeDir::new();
    let command = support::command();
    let _alone = support::leaks::alone();
    let output = Command::new(command)
        .args(["run", "-n", "2", "--timeout", "120", "valgrind"])
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*counted_*")
        .arg(std::env::current_exe().expect("a program knows itself"))
        .args(["--exact", TEST, "--test-threads=1"])
        .env(CASE, format!("{call} {times}"))
        .env("XDG_RUNTIME_DIR", base.path())
        .stdin(Stdio::null())
        .output()
        .expect("a job can be started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let counts = told.lines().filter_map(|line| {
        let (_, count) = line.split_once("Collected :")?;
        count.trim().parse::<f64>().ok()
    });
    let counts: Vec<f64> = counts.collect();
    assert_eq!(counts.len(), 2, "each rank tells a count: {told}");
    // The target executes none of it.
    counts.iter().sum()
}

/// Why nothing can be counted here.
fn hindrance() -> Option<&'static str> {
    if cfg!(debug_assertions) || !cfg!(target_arch = "x86_64") {
        return Some("the counts are those of optimised code (cargo test --release) for x86-64");
    }
    let valgrind = Command::new("valgrind").arg("--version").output();
    if valgrind.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let why = "there is no valgrind: install the package valgrind";
    support::may_skip(why);
    Some(why)
}

#[test]
fn calls_on_mapped_routes_execute_no_more_instructions() {
    if let Ok(case) = std::env::var(CASE) {
        return count(&case);
    }
    if let Some(why) = hindrance() {
        println!("{TEST}: skipped: {why}");
        return;
    }
    let mut over = Vec::new();
    for (call, counted) in COUNTED {
        let more = instructions(call, MANY) - instructions(call, FEW);
        let now = more / (MANY - FEW) as f64;
        println!("{call} and flush: {now:.1} instructions, {counted:.1} when last written down");
        assert!(now >= 1.0, "the loop was not counted");
        if now > limit(counted) {
            over.push(format!("{call}: {now:.1}, at most {:.1}", limit(counted)));
        }
    }
    assert!(
        over.is_empty(),
        "more instructions than before, see COUNTED in {}: {over:?}",
        file!()
    );
}
