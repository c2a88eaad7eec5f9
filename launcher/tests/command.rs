//! The command `windlass`: mistakes and their remedies, signals, the launcher's own death, reports.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{alive, until, watchdog};

/// The command, with a private directory for what its jobs make.
fn windlass(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.env("XDG_RUNTIME_DIR", home).stdin(Stdio::null());
    command
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn run(args: &[&str]) -> Output {
    let _watchdog = watchdog();
    let home = home();
    let output = windlass(home.path()).args(args).output().unwrap();
    assert_empty(home.path());
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_empty(home: &Path) {
    let left: Vec<_> = std::fs::read_dir(home)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn mistakes_name_the_remedy() {
    let cases: &[(&[&str], &str)] = &[
        (&["run"], "give its path"),
        (&["run", "-n", "0", "true"], "give -n 1 or more"),
        (&["run", "--ves", "9", "true"], "at most 8 VEs"),
        (&["run", "--nodes", "0", "true"], "from 1 to"),
        (&["run", "-n", "1", "--nodes", "2", "true"], "-n 2 or more"),
        (&["run", "--ves", "1", "--place", "ve1", "true"], "--ves 2"),
        (&["run", "--place", "ve", "true"], "add --ves"),
        (
            &["run", "--place", "ve0:2,vh", "true"],
            "give every item a count",
        ),
        (
            &[
                "run",
                "-n",
                "7",
                "--nodes",
                "2",
                "--place",
                "ve0:2,vh:1",
                "true",
            ],
            "give -n 6",
        ),
        (&["run", "--place", "gpu0", "true"], "write vh, ve"),
        (&["run", "--nods", "2", "true"], "--nodes"),
        (&["run", "./no-such-program"], "--example NAME"),
        (&["run", "Cargo.toml"], "cannot be executed"),
        (&["run", "-x", "NOT_SET_HERE", "true"], "-x NAME=VALUE"),
        (&["run", "--timeout", "-3", "true"], "above 0"),
        (&["run", "-n", "-3", "true"], "give a whole number"),
        (&["run", "-n", "99999999999", "true"], "give a whole number"),
        (
            &["run", "-n", "2000", "true"],
            "at most 1024 ranks, 256 on a node",
        ),
        (&["run", "-n", "1024", "true"], "--nodes 4 or more"),
        (&["run", "-n", "300", "true"], "--nodes 2 or more"),
        (
            &["run", "--example", "a", "--bin", "b"],
            "no example target named",
        ),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["run", "--foo", "true"], "unexpected argument '--foo'"),
        (&["run", "-x", "WINDLASS_VE_PROFILE=ve2", "true"], "or ve3"),
        (&["run", "--ves", "x", "true"], "give 0 to 8"),
        (&["node"], "windlass node --list [--json]"),
        (&["node", "--ves", "x", "--name", "a"], "give 0 to 8"),
        (&["node", "--ves", "9", "--name", "a"], "give 0 to 8"),
        (&["node", "--ves", "2"], "--name <NAME>"),
        (&["node", "--ves", "2", "--list"], "cannot be used with"),
        (&["node", "--json"], "  --list\n"),
        (&["node", "--name", "A"], "give 1 to 32 of a-z, 0-9 and -"),
        (&["node", "--name", "own-"], "not own- alone"),
        (&["node", "--stop", "=lab"], "give the name of a node, 1 to"),
        (
            &["node", "--stop", ""],
            "as `windlass node --list` shows it",
        ),
        (
            &["node", "--stop", "not-there"],
            "no node not-there is there",
        ),
        (&["node", "--stop-ve", "=lab"], "'=lab' for '--stop-ve"),
        (&["node", "--stop-ve", "=lab:0"], "a VE, as in lab:0"),
        (&["node", "--stop-ve", "lab:x"], "a VE, as in lab:0"),
        (
            &["node", "--stop-ve", "not-there:0"],
            "no node not-there is",
        ),
    ];
    for (args, remedy) in cases {
        let output = run(args);
        let said = text(&output.stderr);
        for hidden in ["--fault", "--private", "=="] {
            assert!(!said.contains(hidden), "{args:?}: {said}");
        }
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(!said.contains("as a value"), "{args:?}: {said}");
        assert!(said.contains(remedy), "{args:?}: {said:?} lacks {remedy:?}");
        assert!(text(&output.stdout).is_empty(), "{args:?}");
    }
}

#[test]
fn exit_codes_reach_the_shell() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -9 $$", 137),
        ("exit 255", 255),
    ] {
        assert_eq!(
            run(&["run", "-n", "2", "sh", "-c", script]).status.code(),
            Some(code),
            "{script}"
        );
    }
    assert_eq!(
        run(&["run", "--timeout", "0.2", "sleep", "100"])
            .status
            .code(),
        Some(124)
    );
}

#[test]
fn places_are_given_as_written() {
    let output = run(&[
        "run",
        "-l",
        "--nodes",
        "2",
        "-ve",
        "0-1",
        "-np",
        "4",
        "sh",
        "-c",
        "echo here",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut lines: Vec<String> = text(&output.stdout).lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["[0] here", "[1] here", "[2] here", "[3] here"]);
}

#[test]
fn more_ranks_than_processors_is_one_warning() {
    let output = run(&["run", "-n", "100", "true"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).matches("warning").count(), 1);
}

#[test]
fn a_large_job_does_not_need_a_large_limit_of_files() {
    let _watchdog = watchdog();
    let home = home();
    let mut command = Command::new("/bin/sh");
    command.env("XDG_RUNTIME_DIR", home.path()).arg("-c");
    command.arg("ulimit -S -n 256; exec \"$0\" run -n 200 sh -c 'ulimit -S -n'");
    let output = command
        .arg(env!("CARGO_BIN_EXE_windlass"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let limits = text(&output.stdout);
    assert!(
        limits.lines().all(|limit| limit == "256"),
        "ranks keep the user's limit"
    );
    assert_empty(home.path());
}

#[test]
fn bindings_are_reported() {
    let output = run(&[
        "run",
        "-n",
        "2",
        "--bind-to",
        "core",
        "--report-bindings",
        "sh",
        "-c",
        "grep Cpus_allowed_list /proc/$$/status",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("rank 1 (node 0, vh): package"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stdout).lines().count(), 2);
}

/// A job that waits, seen running.
fn waiting(home: &Path, script: &str) -> (Child, Vec<i32>) {
    let mut command = windlass(home);
    command
        .args(["run", "-n", "2", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut pids = Vec::new();
    for _ in 0..2 {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        pids.push(line.trim().parse().unwrap());
    }
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    (child, pids)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn signals_are_forwarded() {
    let _watchdog = watchdog();
    let (interrupt, terminate, hang_up) =
        ((Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129));
    for (sent, code) in [interrupt, terminate, hang_up] {
        let home = home();
        let (child, pids) = waiting(home.path(), "echo $$; sleep 100; exit 1");
        signal(&child, sent);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(pids.into_iter().all(|pid| !alive(pid)));
        assert_empty(home.path());
    }
}

#[test]
fn a_rank_may_end_well_after_a_forwarded_signal() {
    let _watchdog = watchdog();
    let home = home();
    let script = "trap 'echo saved >&2; exit 0' TERM; echo $$; while :; do sleep 0.05; done";
    let (child, _) = waiting(home.path(), script);
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr).matches("saved\n").count(), 2);
    assert_eq!(output.status.code(), Some(143));
}

#[test]
fn a_second_signal_kills() {
    let _watchdog = watchdog();
    let home = home();
    let (child, pids) = waiting(
        home.path(),
        "trap '' INT TERM; echo $$; while :; do sleep 1; done",
    );
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(40));
    assert!(pids.iter().all(|&pid| alive(pid)));
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(pids.into_iter().all(|pid| !alive(pid)));
    assert_empty(home.path());
}

#[test]
fn when_the_launcher_is_killed_everybody_dies_and_nothing_is_left() {
    let _watchdog = watchdog();
    let home = home();
    for _ in 0..20 {
        // What the rank started counts too.
        let script = "trap '' TERM HUP; sleep 100 & echo $!; wait";
        let (mut child, mut pids) = waiting(home.path(), script);
        pids.extend(pids.clone().into_iter().map(parent));
        assert!(pids.iter().all(|&pid| alive(pid)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        until("everybody is gone", || pids.iter().all(|&pid| !alive(pid)));
        let empty = || std::fs::read_dir(home.path()).unwrap().count() == 0;
        until("the directories are gone", empty);
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        assert!(said.contains("the launcher was killed"), "{said}");
    }
}

/// Field 4 of a process's stat file.
fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    rest.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_reader_that_goes_away_ends_the_job() {
    let _watchdog = watchdog();
    let home = home();
    let mut command = windlass(home.path());
    command
        .args(["run", "-n", "2", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 2];
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"y\n");
    assert_ne!(child.wait().unwrap().code(), Some(0));
    assert_empty(home.path());
}

#[test]
fn standard_input_goes_to_rank_0() {
    let _watchdog = watchdog();
    let home = home();
    let mut command = windlass(home.path());
    command.args(["run", "-l", "-n", "2", "sh", "-c", "cat; echo end"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert!(
        said.contains("[0] hello\n") && !said.contains("[1] hello"),
        "{said}"
    );
}

#[test]
fn info_says_what_is_here() {
    let output = run(&["info"]);
    let said = text(&output.stdout);
    for word in [
        "Topology",
        "veshm",
        "libdat2.so.2",
        "huge pages",
        "cross-memory copy",
        "WINDLASS_ROUTE",
        "Vector Engines of ranks are emulated",
    ] {
        assert!(said.contains(word), "{said:?} lacks {word}");
    }
    let home = home();
    let native = [
        (
            "native",
            "those of this machine, by libveo.so (WINDLASS_VE=native is set",
        ),
        (
            "card",
            "WINDLASS_VE=card is not accepted; give emulated or native",
        ),
    ];
    for (value, words) in native {
        let mut command = windlass(home.path());
        command.env("WINDLASS_VE", value);
        command.env("WINDLASS_RSM_SEGMENTID", "/nowhere");
        let said = text(&command.arg("info").output().unwrap().stdout);
        for words in [words, "WINDLASS_RSM_SEGMENTID  = /nowhere"] {
            assert!(said.contains(words), "{said:?} lacks {words}");
        }
    }
    let json: serde_json::Value = serde_json::from_slice(&run(&["info", "--json"]).stdout).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        json["topology"]["cores"]
            .as_array()
            .is_some_and(|cores| !cores.is_empty())
    );
}

/// A library that is no libveo, and one that is not there: why it cannot be used.
#[test]
fn info_says_why_a_libveo_cannot_be_used() {
    let home = home();
    for (file, why) in [
        ("/does/not/exist.so", "cannot be loaded"),
        ("libm.so.6", "has no veo_api_version"),
    ] {
        let mut command = windlass(home.path());
        let command = command
            .env("WINDLASS_LIBVEO", file)
            .args(["info", "--json"]);
        let output = command.output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let library = &json["libraries"][0];
        assert_eq!(
            (&library["name"], &library["path"]),
            (&"libveo.so".into(), &file.into())
        );
        let says = library["says"].as_str().unwrap();
        assert!(says.contains(why), "{says}");
    }
}

#[test]
fn help_states_the_exit_codes() {
    let said = text(&run(&["run", "--help"]).stdout);
    assert!(
        said.contains("124") && said.contains("128 + S") && said.contains("Examples:"),
        "{said}"
    );
}

#[test]
fn variables_are_read_strictly_and_once() {
    let _watchdog = watchdog();
    let home = home();
    let refused = [
        ("WINDLASS_ROUTE", "pigeon", "veshm"),
        ("WINDLASS_FAIL", "veshm", "probe"),
        ("WINDLASS_VE", "card", "emulated, native"),
        ("WINDLASS_NETWORK", "eth0", "10.0.0.0/8"),
        ("WINDLASS_VE_PROFILE", "ve2", "ve3"),
        ("WINDLASS_VE_ERRNO", "posix", "documented"),
        ("WINDLASS_VE_CHECK", "yes", "0 or 1"),
        ("WINDLASS_VE_REORDER", "often", "seed"),
        ("WINDLASS_LOG", "a=b=c", "debug"),
    ];
    for (name, value, accepted) in refused {
        let mut command = windlass(home.path());
        let output = command
            .env(name, value)
            .args(["run", "-n", "3", "true"])
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(name) && said.contains(accepted), "{said}");
        assert_eq!(said.matches(name).count(), 1, "{said}");
    }
    let mut command = windlass(home.path());
    command.env("WINDLASS_VE_ERRNO", "");
    let output = command.args(["node", "--private"]).output().unwrap();
    let said = text(&output.stderr);
    assert!(
        said.contains("WINDLASS_VE_ERRNO= (empty) is not accepted"),
        "{said}"
    );
    let mut command = windlass(home.path());
    let output = command
        .env("WINDLASS_ROUTES", "veshm")
        .args(["run", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("WINDLASS_ROUTES is not a variable"));
}

#[cfg(feature = "hwloc")]
#[test]
fn topologies_are_read_from_xml_files() {
    let _watchdog = watchdog();
    let home = home();
    let file = tempfile::NamedTempFile::new().unwrap();
    let described = hwlocality::Topology::builder().from_synthetic("numa:2 core:3 pu:1");
    let described = described.unwrap().build().unwrap();
    described
        .export_xml_file(Some(file.path()), Default::default())
        .unwrap();
    let mut command = windlass(home.path());
    command
        .env("HWLOC_XMLFILE", file.path())
        .args(["info", "--json"]);
    let json: serde_json::Value =
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(json["topology"]["cores"].as_array().map(Vec::len), Some(6));
    assert_eq!(json["topology"]["real"], false);
}

#[cfg(feature = "hwloc")]
#[test]
fn synthetic_topologies_place_and_do_not_bind() {
    let _watchdog = watchdog();
    let home = home();
    let mut command = windlass(home.path());
    command.env("HWLOC_SYNTHETIC", "pack:2 numa:2 core:4 pu:2");
    command.args([
        "run",
        "-n",
        "4",
        "--bind-to",
        "numa",
        "--report-bindings",
        "true",
    ]);
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("rank 0 (node 0, vh): NUMA node 0, processors 0-7"),
        "{said}"
    );
    assert!(
        said.contains("rank 3 (node 0, vh): NUMA node 3, processors 24-31"),
        "{said}"
    );
    assert!(said.contains("not this machine"), "{said}");
    let json = windlass(home.path())
        .env("HWLOC_SYNTHETIC", "pack:3 core:2 pu:1")
        .args(["info", "--json"])
        .output();
    let json: serde_json::Value = serde_json::from_slice(&json.unwrap().stdout).unwrap();
    assert_eq!(json["topology"]["cores"].as_array().map(Vec::len), Some(6));
}

#[test]
fn explain_gives_every_pair_a_route_and_every_other_mechanism_a_reason() {
    let output = run(&["explain", "--json", "-n", "6", "--nodes", "2", "--ves", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for (origin, row) in rows.iter().enumerate() {
        let targets = row["targets"].as_array().unwrap();
        assert_eq!(targets.len(), 6);
        for (target, way) in targets.iter().enumerate() {
            let mechanism = way["mechanism"].as_str().unwrap();
            assert_eq!(
                mechanism == "loopback",
                origin == target,
                "{origin} -> {target}"
            );
            let rejected = way["rejected"].as_array().unwrap();
            let others = windlass_runtime::MechanismId::ALL.len() - 1;
            assert_eq!(rejected.len(), others, "{origin} -> {target}: {rejected:?}");
            for reason in rejected {
                assert_ne!(reason[0], mechanism);
                assert!(
                    reason[1].as_str().unwrap().contains(' '),
                    "a sentence: {reason}"
                );
            }
        }
    }
    let output = run(&["explain", "-n", "2", "-w", "create"]);
    let said = text(&output.stdout);
    assert!(
        said.contains("Route of a window over lent memory"),
        "{said}"
    );
    assert!(said.contains("0->1 1->0: vhshm, mapped"), "{said}");
    let home = home();
    let output = windlass(home.path())
        .env("WINDLASS_REBACK", "never")
        .args(["explain", "-n", "2", "-w", "create"])
        .output();
    let said = text(&output.unwrap().stdout);
    assert!(said.contains("0->1 1->0: cma, posted"), "{said}");
    assert!(
        said.contains("lent memory is not re-backed: WINDLASS_REBACK forbids it"),
        "{said}"
    );
    let output = run(&["explain", "-n", "2", "-l", "--ves", "1"]);
    assert!(
        text(&output.stdout).contains("0->1"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_cargo_target_is_built_and_gets_what_follows() {
    let _watchdog = watchdog();
    let home = home();
    let package = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &str| {
        let path = package.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write(
        "Cargo.toml",
        "[package]\nname = \"p\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n",
    );
    write("src/lib.rs", "");
    write(
        "examples/hello.rs",
        "fn main() { println!(\"{:?}\", std::env::args().skip(1).collect::<Vec<_>>()); }",
    );
    let windlass = |name: &str| {
        let mut command = windlass(home.path());
        command
            .current_dir(package.path())
            .env("CARGO_TARGET_DIR", package.path().join("target"));
        command
            .args(["run", "-n", "2", "--example", name, "-n", "5"])
            .output()
            .unwrap()
    };
    let output = windlass("hello");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "[\"-n\", \"5\"]\n".repeat(2));
    let output = windlass("goodbye");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("did not build the example `goodbye`"),
        "{}",
        text(&output.stderr)
    );
    assert_empty(home.path());
}

#[test]
fn plot_becomes_the_program_beside_the_launcher() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let launcher = dir.path().join("windlass");
    std::fs::copy(env!("CARGO_BIN_EXE_windlass"), &launcher).unwrap();
    let program = dir.path().join("windlass-plot");
    std::fs::write(&program, "#!/bin/sh\necho \"$@\"\ncat\nexit 7\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for words in [
        "a.txt - -o x.svg --base=a -n -p",
        "--help",
        "-h",
        "-V",
        "-o x.png -- -a",
    ] {
        let mut child = Command::new(&launcher)
            .arg("plot")
            .args(words.split(' '))
            // By that it would think that cargo runs it, and build the program.
            .env_remove("CARGO")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"results\n").unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{words}");
        assert_eq!(text(&output.stdout), format!("{words}\nresults\n"));
    }
}
