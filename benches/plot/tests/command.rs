//! The command `windlass-plot`, as a person uses it.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// As OSU's benchmark prints it.
const PUT: &str = "\
# OSU MPI_Put Latency Test v7.4
# Window creation: MPI_Win_allocate
# Synchronization: MPI_Win_flush
# Datatype: MPI_CHAR.
# Size          Latency (us)
1                       0.05
8                       0.05
64                      0.06
4096                    0.35
";
const BANDWIDTH: &str = "# OSU MPI_Put Bandwidth Test v7.4\n# Size      Bandwidth (MB/s)\n8    160.00\n4096   9000.00\n";

fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("mpich.txt", PUT.to_owned()),
        ("openmpi.txt", PUT.replace("0.05", "0.02")),
        ("bandwidth.txt", BANDWIDTH.to_owned()),
        ("bare.txt", "8 1.5\n64 2.5\n".to_owned()),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn plot(dir: &Path, line: &str, input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_windlass-plot"))
        .args(line.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses its options reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[track_caller]
fn done(dir: &Path, line: &str, input: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = plot(dir, line, input);
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success() && said.is_empty(), "{line}: {said}");
    String::from_utf8(stdout).unwrap()
}

#[track_caller]
fn refused(dir: &Path, line: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = plot(dir, line, "");
    assert_eq!(status.code(), Some(2), "{line}");
    assert!(stdout.is_empty(), "{line}");
    String::from_utf8(stderr).unwrap()
}

/// Does the document have a text that contains this?
fn says(dir: &Path, file: &str, text: &str) -> bool {
    fs::read_to_string(dir.join(file)).unwrap().contains(text)
}

#[test]
fn results_become_pictures_that_name_them() {
    let dir = folder();
    let dir = dir.path();
    let line = "mpich.txt openmpi.txt -o put.svg -o put.png --note when";
    assert_eq!(done(dir, line, ""), "wrote put.svg\nwrote put.png\n");
    for text in [
        "OSU MPI_Put Latency (allocate, flush)",
        "mpich",
        "openmpi",
        "latency over that of mpich",
        "when",
    ] {
        assert!(says(dir, "put.svg", text), "{text}");
    }
    assert!(
        fs::read(dir.join("put.png"))
            .unwrap()
            .starts_with(b"\x89PNG\r\n\x1a\n")
    );
    assert_eq!(
        done(dir, &format!("{line} --base open"), ""),
        "replaced put.svg\nreplaced put.png\n"
    );
    assert!(says(dir, "put.svg", "latency over that of openmpi"));
    // Nothing else is left.
    assert_eq!(fs::read_dir(dir).unwrap().count(), 6);
}

#[test]
fn standard_input_may_hold_several_results() {
    let dir = folder();
    let dir = dir.path();
    let route = |mechanism: &str| {
        format!(
            r#"{{"benchmark": "put-latency", "mechanism": "{mechanism}", "shape": "mapped", "window": "allocate",
                "column": "Latency (us)", "rows": [{{"size": 8, "value": 0.5}}, {{"size": 64, "value": 0.75}}]}}"#
        )
    };
    let input = format!(
        "[{}, {{\"mechanism\": \"veo\", \"refused\": \"no VE\"}}, {}]",
        route("vhshm"),
        route("rsm")
    );
    assert_eq!(done(dir, "- -o routes.svg", &input), "wrote routes.svg\n");
    for text in [
        "Windlass put-latency (allocate)",
        "vhshm (mapped)",
        "rsm (mapped)",
    ] {
        assert!(says(dir, "routes.svg", text), "{text}");
    }
    assert!(!says(dir, "routes.svg", "veo"));
    // With a text of the same: each by its own title.
    done(dir, "mpich.txt - -n first -o both.svg", &route("vhshm"));
    assert!(says(dir, "both.svg", "first") && says(dir, "both.svg", "Windlass put-latency"));
}

#[test]
fn refusals_name_what_is_wrong_and_lose_nothing() {
    let dir = folder();
    let dir = dir.path();
    fs::write(dir.join("old.svg"), "kept").unwrap();
    for (line, said) in [
        (
            "mpich.txt bandwidth.txt -o old.svg",
            "mpich.txt has latencies, bandwidth.txt has bandwidths",
        ),
        (
            "bare.txt -o old.svg",
            "bare.txt: no heading tells the unit; give --kind",
        ),
        ("none.txt -o old.svg", "none.txt: No such file"),
        (
            "mpich.txt -o old.svg -o old.pdf",
            "old.pdf: the end of the name",
        ),
        ("mpich.txt -o none/old.svg", "none/old.svg: "),
        (
            "mpich.txt -o old.svg --base intel",
            "'intel' names no curve; give --base one of: ",
        ),
        (
            "mpich.txt openmpi.txt -o old.svg --base mpi",
            "names several curves",
        ),
        (
            "mpich.txt -n a -n b -o old.svg",
            "there are 2 names for 1 curves",
        ),
        ("mpich.txt -p -o old.svg", "no result has percentiles"),
        (
            "mpich.txt old.svg -o old.svg",
            "old.svg: this is also a result",
        ),
        ("mpich.txt", "--output <FILE>"),
    ] {
        let text = refused(dir, line);
        assert!(text.contains(said), "{line}: {text}");
    }
    assert!(says(dir, "old.svg", "kept"));
    assert_eq!(fs::read_dir(dir).unwrap().count(), 5);
}

#[test]
fn what_cannot_be_shown_is_told() {
    let dir = folder();
    let text = PUT.replace("0.05", "0.00");
    let Output { status, stderr, .. } = plot(dir.path(), "- -o put.svg", &text);
    let said = String::from_utf8_lossy(&stderr);
    assert!(
        status.success() && said.contains("not above 0: 2;"),
        "{said}"
    );
    done(dir.path(), "bare.txt --kind bandwidth -o bare.svg", "");
    assert!(says(dir.path(), "bare.svg", "2 MB/s"));
}

#[test]
fn rows_that_were_disturbed_are_told() {
    let dir = folder();
    let text = format!("{PUT}# disturbed: the best block at size 4096 gave 0.30\n");
    let json = r#"{"column": "Latency (us)", "rows": [{"size": 8, "value": 0.5, "disturbed": true},
        {"size": 64, "value": 0.5, "disturbed": false}]}"#;
    for input in [&text, json] {
        let Output { status, stderr, .. } = plot(dir.path(), "- -o put.svg", input);
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.success() && said.contains("disturbed: 1;"), "{said}");
    }
}
