//! libsysve.so.1 through C programs (ve-memory 4 to 10, 13): `tests/c/*.c`, of which `tests/c/README.md` says who has
//! which row and check, and the examples of `examples/c`.
//!
//! The programs check themselves and say which line failed. Here: what is set around them, how they must end, and that nothing of
//! them is left; their nodes live below a folder of the test's own, which must be empty at the end.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use support::cc::{self, Ended};
use support::yard::Yard;
use windlass_abi::{sysve, vedma, veshm, vhshm};

/// Both columns of section 11.
const COLUMNS: [&str; 2] = ["implemented", "documented"];

/// A program, compiled once.
fn program(name: &str, source: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = built.get(name) {
        return program.clone();
    }
    cc::package("windlass-sysve");
    cc::package("windlass-launcher");
    let program = cc::compile(name, &[source], &["-lsysve"]);
    built.insert(name.to_owned(), program.clone());
    program
}

/// `tests/c/<name>.c`, compiled.
fn test_program(name: &str) -> PathBuf {
    program(name, &format!("tests/c/{name}.c"))
}

/// Runs a test program with these variables, in both columns.
#[track_caller]
fn passes(name: &str, words: &[&str], variables: &[(&str, &str)]) {
    let program = test_program(name);
    for column in COLUMNS {
        let yard = Yard::new();
        let mut command = yard.command(&program, words);
        command.env("WINDLASS_VE_ERRNO", column);
        command.envs(variables.iter().copied());
        let ended = yard.run(command);
        assert!(ended.status.success(), "{column}: {ended:#?}");
        assert!(ended.stdout.ends_with("all as specified\n"), "{ended:#?}");
    }
}

/// The service's program by a bare name, which the standard library would look for in a child of its own making.
#[test]
fn the_service_may_be_named_without_a_folder() {
    let program = test_program("vedma");
    for (folder, path) in [
        (cc::profile(), PathBuf::from("/usr/bin")),
        ("/".into(), cc::profile()),
    ] {
        let yard = Yard::new();
        let mut command = yard.command(&program, &[]);
        command.env("WINDLASS_LAUNCHER", "windlass");
        let path = format!("{}:/usr/bin:/bin", path.display());
        command.env("PATH", path).current_dir(folder);
        let ended = yard.run(command);
        assert!(ended.stdout.ends_with("all as specified\n"), "{ended:#?}");
    }
}

/// A name of a node that nobody else uses.
fn name_of_a_node(what: &str) -> String {
    format!("test-{what}-{}", std::process::id())
}

#[test]
fn veshm_answers_every_row_of_its_tables() {
    passes("veshm", &[], &[]);
}

/// As root its peers become another user, whom a private node does not admit, but a named one does.
#[test]
fn veshm_between_users_of_a_named_node() {
    passes(
        "veshm",
        &[],
        &[("WINDLASS_NODE_NAME", &name_of_a_node("users"))],
    );
}

#[test]
fn dma_and_words_do_what_is_defined() {
    passes("vedma", &[], &[]);
}

#[test]
fn dma_does_what_is_defined_however_it_is_reordered() {
    for seed in ["1", "2", "3"] {
        passes("vedma", &[], &[("WINDLASS_VE_REORDER", seed)]);
    }
}

#[test]
fn what_is_undefined_is_trapped_where_asked_for_and_only_that() {
    passes("vedma", &["checked"], &[("WINDLASS_VE_CHECK", "1")]);
    passes("vedma", &[], &[("WINDLASS_VE_CHECK", "1")]);
    passes("vedma", &["unchecked"], &[]);
}

/// In the checking mode: a transfer that ends with an exception, a call that is made of another, and somebody who is looked for
/// where nobody else can be.
#[test]
fn what_fails_is_told_where_asked_for() {
    let remedy = "; an address of VE DMA is what ve_register_mem_to_dmaatb, ve_shared_mem_attach to VEHVA or vh_shmat's vehva gave";
    let missing = format!("missing space: no directory covers the address{remedy}");
    for (words, lines) in [
        (
            "checked",
            &[
                &[
                    "warning: ve_dma_post_wait: the source Vehva 0x",
                    " of 4 bytes ends it with 0x2000, at Vehva 0x",
                    &missing,
                ][..],
                &[
                    "warning: ve_dma_post_wait: the destination Vehva 0x",
                    " with 0x4000",
                    "missing page",
                    remedy,
                ],
                &[
                    "warning: ve_dma_post_wait: the destination Vehva 0x",
                    " with 0x8000",
                    "attach it for writing",
                ],
                &[
                    "warning: ve_dma_post: the source Vehva 0x8",
                    " with 0x1000",
                    remedy,
                ],
                &["warning: a DMA transfer from Vehva 0x0, in the page"],
            ][..],
        ),
        (
            "alone",
            &[
                &["ve_register_mem_to_dmaatb: EINVAL: "][..],
                &["ve_unregister_mem_from_dmaatb: EINVAL: "],
                &[
                    "ve_get_pgmode: ESRCH: ",
                    "; this process is alone on a private node: give both programs WINDLASS_NODE_NAME",
                ],
            ],
        ),
    ] {
        let program = test_program("vedma");
        let yard = Yard::new();
        let mut command = yard.command(&program, &[words]);
        command.env("WINDLASS_VE_CHECK", "1");
        let ended = yard.run(command);
        ended.succeeded();
        for parts in lines {
            let told = |line: &str| parts.iter().all(|part| line.contains(part));
            assert!(ended.stderr.lines().any(told), "{parts:?} in {ended:#?}");
        }
    }
}

/// In the checking mode a refusal says by which row, and of what. The program passes by every row it is said to (`tests/c/README.md`).
#[test]
fn a_refusal_names_its_rule_where_asked_for() {
    let program = test_program("veshm");
    let yard = Yard::new();
    let mut command = yard.command(&program, &[]);
    command.env("WINDLASS_VE_CHECK", "1");
    let ended = yard.run(command);
    ended.succeeded();
    let rows_of_open = [1, 2, 3, 4, 5, 6, 8, 9].map(|row| format!("5.1 row {row})"));
    let rows_of_attach = [2, 3, 5, 6, 7, 8, 10, 12, 14, 18, 19, 20, 21];
    let rows_of_attach = rows_of_attach.map(|row| format!("5.2 row {row})"));
    let others = ["5.3)", "5.4)", "5.5)"].map(str::to_owned);
    let rows = rows_of_open.into_iter().chain(rows_of_attach).chain(others);
    for row in rows {
        let row = format!("(ve-memory {row}: ");
        assert!(ended.stderr.contains(&row), "{row} in {ended:#?}");
    }
    // What was asked for stands behind the rule.
    let bits = "ve_shared_mem_open: EINVAL: the mode must have exactly one of VE_REGISTER_PCI and VE_REGISTER_NONE (ve-memory 5.1 row 1): vemva 0x";
    assert!(ended.stderr.contains(bits), "{ended:#?}");
    // And nothing where nobody asked.
    let yard = Yard::new();
    let ended = yard.run(yard.command(&program, &[]));
    assert!(!ended.stderr.contains("ve-memory"), "{ended:#?}");
}

#[test]
fn tables_take_what_they_can_and_no_more() {
    passes("capacity", &[], &[]);
}

#[test]
fn memory_moves_under_writers_and_threads_call_at_once() {
    passes("threads", &[], &[]);
}

#[test]
fn memory_of_every_kind_becomes_ve_memory_and_stays_the_programs() {
    passes("memory", &[], &[]);
}

#[test]
fn the_third_generation_has_larger_pages() {
    passes("generation3", &[], &[("WINDLASS_VE_PROFILE", "ve3")]);
}

#[test]
fn a_small_window_has_small_pages() {
    passes("window", &[], &[("WINDLASS_VE_PROFILE", "ve1/128M")]);
}

/// Also of a rank, whose library says goodbye while it ends.
#[test]
fn memory_stays_until_the_process_is_gone() {
    passes("leaving", &[], &[]);
    let program = test_program("leaving");
    let program = program.to_str().expect("target has a plain name");
    let yard = Yard::new();
    let windlass = cc::profile().join("windlass");
    let words = ["run", "-n", "2", "--ves", "1", "--place", "ve0:2", program];
    let ended = yard.run(yard.command(&windlass, &words));
    ended.succeeded();
    assert_eq!(ended.stdout, "leaving: all as specified\n".repeat(2));
}

#[test]
fn processes_that_a_program_forks_meet_whoever_is_first() {
    passes("siblings", &[], &[]);
    let program = test_program("siblings");
    let program = program.to_str().expect("target has a plain name");
    let yard = Yard::new();
    let windlass = cc::profile().join("windlass");
    let words = ["run", "-n", "1", "--ves", "2", "--place", "ve1", program];
    let ended = yard.run(yard.command(&windlass, &words));
    ended.succeeded();
    assert_eq!(ended.stdout, "siblings: all as specified\n");
    assert_eq!(ended.stderr, "");
}

/// Two programs, started apart on a node that they name, and two ranks of a job.
#[test]
fn programs_started_apart_meet_on_a_named_node_and_in_a_job() {
    let pair = test_program("pair");
    let windlass = cc::profile().join("windlass");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let [pair, folder] = [&*pair, folder.path()].map(|path| path.to_str().expect("a plain name"));
    let lines = |ended: &Ended| {
        let mut lines: Vec<String> = ended.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let both = [
        "pair: owner, all as specified",
        "pair: user, all as specified",
    ];
    let yard = Yard::new();
    let apart = "VE_NODE_NUMBER=1 \"$1\" \"$2\" user & \"$1\" \"$2\" owner && wait $!";
    let mut command = yard.command(Path::new("sh"), &["-c", apart, "sh", pair, folder]);
    command.env("WINDLASS_NODE_NAME", name_of_a_node("pair"));
    let ended = yard.run(command);
    ended.succeeded();
    assert_eq!(lines(&ended), both, "{ended:#?}");
    let words = ["run", "--ves", "2", "--place", "ve0:1,ve1:1", pair, folder];
    let ended = yard.run(yard.command(&windlass, &words));
    ended.succeeded();
    assert_eq!(lines(&ended), both, "{ended:#?}");
}

/// Root may ask the kernel to hold up writers (userfaultfd); others, as a rule, must pause threads by a signal.
#[test]
fn an_ordinary_user_needs_no_rights() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return; // all the other tests are this one
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    open(folder.path()).expect("it is ours");
    // Theirs to read: this clone need not be.
    let copy = |from: &Path| {
        let to = folder
            .path()
            .join(from.file_name().expect("a file has a name"));
        fs::copy(from, &to).expect("it can be copied");
        open(&to).expect("it is ours");
        to
    };
    let programs =
        ["veshm", "vedma", "vhshm", "threads", "memory"].map(|name| copy(&test_program(name)));
    copy(&cc::profile().join("libsysve.so.1"));
    copy(&cc::profile().join("windlass"));
    for program in programs {
        let yard = Yard::new();
        chown(yard.homes.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        let mut command = yard.command(&program, &[]);
        command.env("LD_LIBRARY_PATH", folder.path());
        command.uid(NOBODY).gid(NOBODY);
        let ended = yard.run(command);
        ended.succeeded();
        assert!(ended.stdout.ends_with("all as specified\n"), "{ended:#?}");
    }
}

/// Runs a program with huge pages of the machine, where this user may have some made, and says so by an argument: all of it
/// while no other test runs.
const WITH_HUGE_PAGES: &str = r#"
pages=/proc/sys/vm/nr_hugepages
before=$(cat $pages)
[ "$before" -ge 8 ] || { echo 8 > $pages; } 2> /dev/null
if [ "$(cat $pages)" -ge 8 ]; then "$@" pages; else "$@"; fi
status=$?
[ "$(cat $pages)" = "$before" ] || echo "$before" > $pages
exit $status
"#;

#[test]
fn host_segments_are_reached_or_refused() {
    let program = test_program("vhshm");
    let program = program.to_str().expect("a plain name");
    for column in COLUMNS {
        let yard = Yard::new();
        let words = ["-c", WITH_HUGE_PAGES, "sh", program];
        let mut command = yard.command(Path::new("sh"), &words);
        command.env("WINDLASS_VE_ERRNO", column);
        let ended = yard.run(command);
        ended.succeeded();
        assert!(ended.stdout.ends_with("all as specified\n"), "{ended:#?}");
        println!("{}", ended.stdout); // what could not be done on this machine
    }
}

#[test]
fn a_program_of_small_pages_has_no_veshm() {
    passes("linked", &["small"], &[("WINDLASS_VE_PAGE", "2M")]);
}

#[test]
fn a_process_that_finds_no_ve_says_why() {
    let program = test_program("linked");
    for (name, value, said) in [
        ("VE_NODE_NUMBER", "8", "the node has 8 VEs"),
        ("VE_NODE_NUMBER", "two", "Engine; give 0 to 7"),
        ("WINDLASS_VE", "native", "unset it, or link NEC's library"),
        ("WINDLASS_VE", "card", "give emulated"),
        ("WINDLASS_VE_PAGE", "4K", "give 2M or 64M"),
        ("WINDLASS_VE_CHECK", "yes", "use 0 or 1"),
        (
            "WINDLASS_LAUNCHER",
            "/nowhere/windlass",
            "/nowhere/windlass",
        ),
        (
            "WINDLASS_NODE_NAME",
            "A",
            "WINDLASS_NODE_NAME=A is not accepted; give 1 to 32",
        ),
    ] {
        let yard = Yard::new();
        let mut command = yard.command(&program, &["nowhere"]);
        command.env(name, value);
        let ended = yard.run(command);
        ended.succeeded();
        assert!(ended.stderr.contains(said), "{name}={value}: {ended:#?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
    }
}

/// By the first process alone: those that it forks have the same variables.
#[test]
fn a_variable_that_nobody_reads_is_named() {
    let yard = Yard::new();
    let mut command = yard.command(&test_program("vhshm"), &[]);
    command.env("WINDLASS_VE_REODER", "1");
    let ended = yard.run(command);
    ended.succeeded();
    let warning = "windlass VE: warning: WINDLASS_VE_REODER is not a variable of Windlass; is WINDLASS_VE_REORDER meant?\n";
    assert_eq!(ended.stderr, warning);
}

/// Whoever starts a node decides what its Vector Engines are.
#[test]
fn who_asks_a_node_for_other_cards_than_it_has_is_told() {
    const SCRIPT: &str = r#"
"$1" node --name "$2" --ves 2 &
until "$1" node --list | grep -q "^$2: "; do sleep 0.05; done
WINDLASS_NODE_NAME=$2 WINDLASS_VES=8 WINDLASS_VE_PROFILE=ve3 WINDLASS_VE_ERRNO=documented "$3"
status=$?
"$1" node --stop "$2" && wait $! && exit $status
"#;
    let program = test_program("leaving");
    let windlass = cc::profile().join("windlass");
    let [program, windlass] =
        [&program, &windlass].map(|path| path.to_str().expect("a plain name"));
    let name = name_of_a_node("asked");
    let yard = Yard::new();
    let words = ["-c", SCRIPT, "sh", windlass, &name, program];
    let ended = yard.run(yard.command(Path::new("sh"), &words));
    ended.succeeded();
    let warnings: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("windlass VE: "))
        .collect();
    let told = [
        ("WINDLASS_VE_PROFILE", "ve1", "ve3"),
        ("WINDLASS_VES", "2", "8"),
        ("WINDLASS_VE_ERRNO", "implemented", "documented"),
    ];
    let told = told.map(|(variable, node, here)| {
        format!(
            "windlass VE: warning: node {name} was started with {variable}={node}; {variable} here says {here}: the node's holds"
        )
    });
    assert_eq!(warnings, told, "{ended:#?}");
}

/// Check 16 of section 13.
#[test]
fn who_is_attached_to_a_ve_that_stops_is_killed() {
    let windlass = cc::profile().join("windlass");
    let windlass = windlass.to_str().expect("target has a plain name");
    let name = name_of_a_node("stopped");
    passes("stopped", &[windlass], &[("WINDLASS_NODE_NAME", &name)]);
}

/// Sections 5 and 7: what VEOS cannot enter or take out, because it is gone.
#[test]
fn a_veos_that_is_gone_is_answered_as_specified() {
    let windlass = cc::profile().join("windlass");
    let windlass = windlass.to_str().expect("target has a plain name");
    let name = name_of_a_node("lost");
    passes("lost", &[windlass], &[("WINDLASS_NODE_NAME", &name)]);
    // Once, what ECANCELED does not say.
    let yard = Yard::new();
    let mut command = yard.command(&test_program("lost"), &[windlass]);
    command.env("WINDLASS_NODE_NAME", &name);
    let ended = yard.run(command);
    ended.succeeded();
    let told = "windlass VE: ve_shared_mem_open: the service of the VE node has ended";
    let lines = ended.stderr.lines();
    assert_eq!(
        lines.filter(|line| line.starts_with(told)).count(),
        1,
        "{ended:#?}"
    );
    assert_eq!(ended.stderr.matches("ECANCELED").count(), 1, "{ended:#?}");
}

/// Sections 5 and 7, the rows of an IVED that is absent or does not answer and of an owner that is swapped out or whose VE stops; check 12.
#[test]
fn a_broken_ived_and_a_full_ring_are_answered_as_specified() {
    let windlass = cc::profile().join("windlass");
    let program = test_program("faults");
    let [program, windlass] =
        [&program, &windlass].map(|path| path.to_str().expect("a plain name"));
    for column in COLUMNS {
        let yard = Yard::new();
        let words = ["-c", WITH_HUGE_PAGES, "sh", program, windlass];
        let mut command = yard.command(Path::new("sh"), &words);
        command.env("WINDLASS_VE_ERRNO", column);
        command.env("WINDLASS_NODE_NAME", name_of_a_node("faults"));
        let ended = yard.run(command);
        ended.succeeded();
        assert!(ended.stdout.ends_with("all as specified\n"), "{ended:#?}");
        println!("{}", ended.stdout); // what could not be done on this machine
    }
}

/// The examples, by the `cc` line of their first comment but for the folder of the library.
#[test]
fn examples_run_alone_and_in_a_job() {
    let windlass = cc::profile().join("windlass");
    for (name, places) in [
        ("veshm_same_ve", ["ve0", "ve1"]),
        ("veshm_two_ves", ["ve0", "ve0"]),
    ] {
        let source = format!("examples/c/{name}.c");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&source));
        let text = text.expect("the example is there");
        let line = format!(
            "cc -O2 -o {name} {source} -I runtime/capi/include -L target/release -lsysve -Wl,-rpath,$PWD/target/release"
        );
        assert!(text.contains(&line), "{source} does not say {line}");
        let program = program(name, &source);
        let judge = |ended: Ended, right: usize| {
            ended.succeeded();
            let rights = ended.stdout.lines().filter(|line| line.ends_with("right"));
            assert_eq!(rights.count(), right, "{ended:#?}");
            assert_eq!(ended.stderr, "");
        };
        let yard = Yard::new();
        judge(yard.run(yard.command(&program, &[])), 1);
        for place in places {
            let program = program.to_str().expect("target has a plain name");
            let words = ["run", "-n", "1", "--ves", "2", "--place", place, program];
            judge(yard.run(yard.command(&windlass, &words)), 1);
        }
        let program = program.to_str().expect("target has a plain name");
        let words = ["run", "--ves", "2", "--place", "ve0:2", "-l", program];
        judge(yard.run(yard.command(&windlass, &words)), 2);
    }
}

/// `tests/c/README.md`: each table has all rows of the specification's; each row is shown by functions that are there, of programs
/// that are run, and the few that none can show are these.
#[test]
fn every_row_has_its_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join("tests").join(file));
    let harness = [read("c_abi.rs"), read("c_veo.rs")].map(|text| text.expect("a test"));
    let table = read("c/README.md").expect("the tables");
    let (mut rows, mut without) = (BTreeMap::<&str, usize>::new(), Vec::new());
    let mut section = "";
    for line in table.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.split(' ').next().expect("a number");
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &["", row, _, shown, ""] = &cells[..] else {
            continue;
        };
        let Ok(row) = row.parse::<usize>() else {
            continue;
        };
        let count = rows.entry(section).or_default();
        *count += 1;
        assert_eq!(row, *count, "{section}: {line}");
        if shown.starts_with("none: ") {
            without.push((section, row));
            continue;
        }
        for place in shown.split(", ") {
            let names: Vec<&str> = place.split('`').collect();
            let &["", file, " ", function, ""] = &names[..] else {
                panic!("{section}, row {row}: {place} is no program and function");
            };
            let text = read(&format!("c/{file}")).unwrap_or_else(|_| panic!("there is no {file}"));
            let defined =
                |line: &str| line.contains(&format!(" {function}(")) && !line.ends_with(';');
            assert!(text.lines().any(defined), "{file} has no {function}");
            let name = file.strip_suffix(".c").expect("a program");
            let run = |text: &String| {
                [format!("\"{name}\""), format!("tests/c/{file}")]
                    .iter()
                    .any(|how| text.contains(how))
            };
            assert!(harness.iter().any(run), "nobody runs {file}");
        }
    }
    let specified = [
        ("5.0", 2),
        ("5.1", 12),
        ("5.2", 21),
        ("5.3", 7),
        ("5.4", 6),
        ("5.5", 5),
        ("7.1", 6),
        ("7.2", 14),
        ("7.3", 4),
        ("7.4", 2),
        ("9.3", 5),
        ("10", 4),
        ("13", 18),
    ];
    assert_eq!(rows, BTreeMap::from(specified));
    assert_eq!(without, [("5.2", 1), ("10", 4)]);
}

/// Every constant and every layout of `runtime/abi` is that of the headers, each of which stands alone.
#[test]
fn headers_say_what_the_library_was_compiled_with() {
    let constants: [(&str, i128); 26] = [
        ("VE_SHM_RO", veshm::VE_SHM_RO.into()),
        ("VE_PCISYNC", veshm::VE_PCISYNC.into()),
        ("VE_REGISTER_PCI", veshm::VE_REGISTER_PCI.into()),
        ("VE_MAP_256MB", veshm::VE_MAP_256MB.into()),
        ("VE_SWAPPABLE", veshm::VE_SWAPPABLE.into()),
        ("VE_REGISTER_NONE", veshm::VE_REGISTER_NONE.into()),
        ("VE_REGISTER_VEMVA", veshm::VE_REGISTER_VEMVA.into()),
        ("VE_REGISTER_VEHVA", veshm::VE_REGISTER_VEHVA.into()),
        ("VE_MEM_LOCAL", veshm::VE_MEM_LOCAL.into()),
        ("VE_ADDR_VEMVA", veshm::VE_ADDR_VEMVA.into()),
        ("VE_ADDR_VEHVA", veshm::VE_ADDR_VEHVA.into()),
        ("VE_ADDR_PCI", veshm::VE_ADDR_PCI.into()),
        (
            "VE_DMA_MEMORY_PROTECTION",
            vedma::VE_DMA_MEMORY_PROTECTION.into(),
        ),
        ("VE_DMA_MISSING_PAGE", vedma::VE_DMA_MISSING_PAGE.into()),
        ("VE_DMA_MISSING_SPACE", vedma::VE_DMA_MISSING_SPACE.into()),
        ("VE_DMA_MEMORY_ACCESS", vedma::VE_DMA_MEMORY_ACCESS.into()),
        ("VE_DMA_IO_ACCESS", vedma::VE_DMA_IO_ACCESS.into()),
        (
            "VE_FIXED_COMMON_REGISTERS_0",
            sysve::VE_FIXED_COMMON_REGISTERS_0.into(),
        ),
        (
            "VE_FIXED_COMMON_REGISTERS_1",
            sysve::VE_FIXED_COMMON_REGISTERS_1.into(),
        ),
        (
            "VE_FIXED_DMA_CONTROL_E",
            sysve::VE_FIXED_DMA_CONTROL_E.into(),
        ),
        (
            "VE_FIXED_DMA_DESCRIPTORS_E",
            sysve::VE_FIXED_DMA_DESCRIPTORS_E.into(),
        ),
        ("VE_PCIRCVSYC", sysve::VE_PCIRCVSYC.into()),
        ("SHM_HUGETLB", vhshm::SHM_HUGETLB.into()),
        ("SHM_RDONLY", vhshm::SHM_RDONLY.into()),
        (
            "sizeof(ve_dma_handle_t)",
            size_of::<vedma::ve_dma_handle_t>() as i128,
        ),
        (
            "offsetof(ve_dma_handle_t, index)",
            std::mem::offset_of!(vedma::ve_dma_handle_t, index) as i128,
        ),
    ];
    let headers = [
        "veshm.h",
        "vedma.h",
        "userdma.h",
        "vhshm.h",
        "libsysve.h",
        "ve_inst.h",
    ];
    let folder = tempfile::tempdir().expect("a folder can be made");
    for header in headers {
        // Twice: each guards itself.
        let text =
            format!("#include <{header}>\n#include <{header}>\nint main(void) {{ return 0; }}\n");
        let source = folder.path().join("alone.c");
        fs::write(&source, text).expect("it can be written");
        cc::compile(
            "alone",
            &[source.to_str().expect("a plain name")],
            &["-pedantic"],
        );
    }
    let mut text = String::new();
    for header in headers {
        writeln!(text, "#include <{header}>").expect("text can be written");
    }
    for (name, value) in constants {
        writeln!(text, "_Static_assert({name} == {value}, \"{name}\");").expect("as above");
    }
    text.push_str("int main(void) { return 0; }\n");
    let source = folder.path().join("constants.c");
    fs::write(&source, text).expect("it can be written");
    cc::compile("constants", &[source.to_str().expect("a plain name")], &[]);
}
