//! `windlass bench --peers`: a real short run beside what MPI libraries there are, and one where there is none.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::cc::{self, Ended};

/// `windlass-peers` with these options; the ranks are started by the launcher of this build.
fn peers(output: &Path, options: &[&str]) -> Command {
    cc::package("windlass-launcher");
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass-peers"));
    command
        .arg("--launcher")
        .arg(cc::profile().join("windlass"));
    command.arg("--output").arg(output);
    command.args(options);
    command
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The table's line that begins so.
fn line<'a>(ended: &'a Ended, title: &str) -> &'a str {
    let found = ended.stdout.lines().find(|line| line.starts_with(title));
    found.unwrap_or_else(|| panic!("no line {title}: {ended:#?}"))
}

#[test]
fn without_an_mpi_library_windlass_is_seen_beside_the_limits() {
    if cpus() < 2 {
        println!("skipped: the ranks need two cpus");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = peers(
        &dir.path().join("pictures"),
        &["--rounds", "1", "--only", "put,curve-latency"],
    );
    let ended = cc::run({
        command.env("PATH", dir.path());
        command
    });
    ended.succeeded();
    assert!(ended.stdout.contains("apt install mpich"), "{ended:#?}");
    assert!(
        line(&ended, "put + flush, 8 B").ends_with("not compared: no peer"),
        "{ended:#?}"
    );
    assert!(line(&ended, "a store").contains(" ns"), "{ended:#?}");
    let drawn = dir.path().join("pictures/peers-latency.svg");
    let drawn = std::fs::read_to_string(drawn).expect("the curve is drawn");
    assert!(drawn.contains("Windlass"), "{drawn}");
}

#[test]
fn libraries_of_the_machine_are_compared() {
    let found = ["mpicc", "mpiexec"]
        .iter()
        .all(|program| is_in_path(program));
    if !found || cpus() < 2 {
        println!("skipped: mpicc and mpiexec are not in PATH, or there is one cpu only");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let only = [
        "--rounds",
        "1",
        "--only",
        "put,lent-8,start,tcp-put",
        "--json",
    ];
    let ended = cc::run(peers(dir.path(), &only));
    ended.succeeded();
    let report: Value = serde_json::from_str(&ended.stdout).expect("it is JSON");
    let libraries = report["libraries"].as_array().unwrap().len();
    let remarks = report["remarks"].to_string();
    assert!(libraries > 1, "{remarks}");
    let lines = report["lines"].as_array().unwrap();
    let start = lines
        .iter()
        .find(|line| line["key"] == "start")
        .expect("it needs no hop");
    assert!(
        start["values"]
            .as_array()
            .unwrap()
            .iter()
            .all(Value::is_number),
        "{start}"
    );
    assert!(start["ratio"]["median"].as_f64().unwrap() > 0.0, "{start}");
    for line in lines {
        assert_eq!(
            line["values"].as_array().unwrap().len(),
            libraries,
            "{line}"
        );
    }
}

/// A library whose flush is over when the origin's buffer is free is made out of one whose flush is not.
#[test]
fn flushes_that_return_before_the_data_have_arrived_are_seen() {
    let names = ["mpicc.openmpi", "mpiexec.openmpi"];
    if !names.iter().all(|name| is_in_path(name)) || cpus() < 2 {
        println!(
            "skipped: Debian's openmpi-bin and libopenmpi-dev are not here, or there is one cpu only"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page");
    std::fs::write(&page, [0; 4096]).unwrap();
    for (flush, is_early) in [("MPI_Win_flush", false), ("MPI_Win_flush_local", true)] {
        let program = dir.path().join(flush);
        let mut compiler = Command::new(names[0]);
        compiler.arg(format!("-DMPI_Win_flush={flush}"));
        compiler.args(["-O2", "benches/peers/rma.c", "-o"]);
        cc::run({
            compiler.arg(&program);
            compiler
        })
        .succeeded();
        let mut command = Command::new(names[1]);
        let network =
            "--mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include lo --mca osc pt2pt";
        command.args(["--allow-run-as-root", "--bind-to", "core"]);
        command.args(network.split(' ')).args(["-n", "2"]);
        command.arg(&program).arg("60").arg(&page);
        command.args(["0", "1", "7:arrival:create:flush:plain:8:100:1"]);
        let ended = cc::run(command);
        ended.succeeded();
        let early = ended
            .stdout
            .lines()
            .find(|line| line.starts_with("early 7 "));
        let early = early.unwrap_or_else(|| panic!("{ended:#?}"));
        assert_eq!(early != "early 7 0 100", is_early, "{flush}: {early}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for (options, remedy) in [
        (&["--mpi", "/nonexistent"][..], "bin/mpicc"),
        (&["--only", "nothing"], "lent-8"),
        (&["--rounds", "0"], "from 1 to 1000"),
    ] {
        let ended = cc::run(peers(dir.path(), options));
        assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
        assert!(ended.stderr.contains(remedy), "{ended:#?}");
    }
}
