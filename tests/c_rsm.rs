//! librsm.so.2 through C programs (rsm 5 to 9): `tests/c/rsm_*.c`, of which `tests/c/rsm.md` says which has which row.
//!
//! The programs check themselves and say which line failed. Here: what is set around them, how they must end, and that nothing of
//! them is left.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use support::cc;
use support::yard::Yard;
use windlass_abi::rsm;
use windlass_rsm::Code;

/// A program, compiled once.
fn program(name: &str, source: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = built.get(name) {
        return program.clone();
    }
    cc::package("windlass-librsm");
    cc::package("windlass-launcher");
    let program = cc::compile(name, &[source], &["-lrsm"]);
    built.insert(name.to_owned(), program.clone());
    program
}

#[track_caller]
fn passes(name: &str, words: &[&str], variables: &[(&str, &str)]) {
    let program = program(name, &format!("tests/c/{name}.c"));
    let yard = Yard::new();
    let mut command = yard.command(&program, words);
    command.envs(variables.iter().copied());
    let ended = yard.run(command);
    ended.succeeded();
    assert!(ended.stdout.ends_with("all as specified\n"), "{ended:#?}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn windows_answer_every_row() {
    passes("rsm_map", &[], &[]);
}

/// The service of its node is stopped in between, so it has a name; the ids are in a file of the test's.
#[test]
fn all_other_functions_answer_every_row() {
    let windlass = cc::profile().join("windlass");
    let windlass = windlass.to_str().expect("target has a plain name");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("ids");
    let file = file.to_str().expect("a plain name");
    let name = format!("own-rsm-{}", std::process::id());
    let variables = [
        ("WINDLASS_NODE_NAME", name.as_str()),
        ("WINDLASS_RSM_SEGMENTID", file),
    ];
    passes("rsm_rows", &[windlass, file], &variables);
}

/// It has a name, so that it can be found.
#[test]
fn nobody_waits_for_a_service_that_was_killed() {
    let windlass = cc::profile().join("windlass");
    let windlass = windlass.to_str().expect("target has a plain name");
    let name = format!("own-rsm-killed-{}", std::process::id());
    let variables = [("WINDLASS_NODE_NAME", name.as_str())];
    passes("rsm_service", &[windlass], &variables);
}

/// 7 phases, 203 rounds.
#[test]
fn importers_outlive_an_exporter_that_is_killed() {
    passes("rsm_death", &["29"], &[]);
}

#[test]
fn threads_lose_no_store_and_race_for_handles() {
    passes("rsm_threads", &["30"], &[]);
}

/// As root its processes become other users, whom a private node does not admit, but a named one does.
#[test]
fn access_lists_hold_between_users() {
    let name = format!("test-rsm-{}", std::process::id());
    passes("rsm_users", &[], &[("WINDLASS_NODE_NAME", &name)]);
}

/// The example, by the `cc` line of its first comment but for the folder of the library: alone, in a job, and twice at a time,
/// with the same id on nodes that know nothing of each other.
#[test]
fn the_example_runs_alone_in_a_job_and_beside_another() {
    let source = "examples/c/rsm.c";
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    let text = text.expect("the example is there");
    let line = "cc -O2 -o rsm examples/c/rsm.c -I runtime/capi/include -L target/release -lrsm -Wl,-rpath,$PWD/target/release";
    assert!(text.contains(line), "{source} does not say {line}");
    let program = program("rsm", source);
    let windlass = cc::profile().join("windlass");
    let name = program.to_str().expect("target has a plain name");
    let twice = "\"$0\" & \"$0\" && wait $!";
    for (command, words, right) in [
        (program.as_path(), &[][..], 1),
        (&windlass, &["run", "-n", "1", name], 1),
        (Path::new("sh"), &["-c", twice, name], 2),
    ] {
        let yard = Yard::new();
        let ended = yard.run(yard.command(command, words));
        ended.succeeded();
        let rights = ended
            .stdout
            .lines()
            .filter(|line| line.ends_with(": right"));
        assert_eq!(rights.count(), right, "{ended:#?}");
        assert_eq!(ended.stderr, "");
    }
}

/// Two nodes of a job, and two jobs at a time, have the same id each.
#[test]
fn ranks_share_the_segments_of_their_node_and_of_no_other() {
    let program = program("rsm_ranks", "tests/c/rsm_ranks.c");
    let program = program.to_str().expect("target has a plain name");
    let windlass = cc::profile().join("windlass");
    let name = windlass.to_str().expect("target has a plain name");
    let twice = "\"$0\" run -n 2 \"$1\" & \"$0\" run -n 2 \"$1\" && wait $!";
    for (command, words) in [
        (&*windlass, &["run", "-n", "4", "--nodes", "2", program][..]),
        (Path::new("sh"), &["-c", twice, name, program]),
    ] {
        let yard = Yard::new();
        let ended = yard.run(yard.command(command, words));
        ended.succeeded();
        let right = ended.stdout.matches("all as specified\n").count();
        assert_eq!(right, 4, "{ended:#?}");
    }
}

/// Jobs of two users, and two nodes that have one name but are each user's own: all have the same ids.
#[test]
fn users_know_nothing_of_each_others_segments() {
    if !rustix::process::geteuid().is_root() {
        println!("not tried: only root becomes other users");
        return;
    }
    let (ranks, alone) = (
        program("rsm_ranks", "tests/c/rsm_ranks.c"),
        program("rsm", "examples/c/rsm.c"),
    );
    let script = r#"
        user() { n=$1; shift; setpriv --reuid $n --regid $n --clear-groups "$@"; }
        unset XDG_RUNTIME_DIR
        for n in 61011 61012; do
            user $n "$0" run -n 4 --nodes 2 "$1" & all="$all $!"
            user $n env WINDLASS_NODE_NAME="own-$3" "$2" & all="$all $!"
        done
        for one in $all; do wait $one || exit 1; done
        ls -d /tmp/windlass-6101[12]-* 2>/dev/null && exit 1 || exit 0"#;
    let windlass = cc::profile().join("windlass");
    let word = |path: &Path| path.to_str().expect("target has a plain name").to_owned();
    let name = format!("rsm-{}", std::process::id());
    let words = [
        script,
        &word(&windlass),
        &word(&ranks),
        &word(&alone),
        &name,
    ];
    let yard = Yard::new();
    let mut all = vec!["-c"];
    all.extend(words);
    let ended = yard.run(yard.command(Path::new("sh"), &all));
    ended.succeeded();
    assert_eq!(
        ended.stdout.matches("all as specified\n").count(),
        8,
        "{ended:#?}"
    );
    assert_eq!(ended.stdout.matches(": right\n").count(), 2, "{ended:#?}");
}

/// A rank on each of two nodes; and two such jobs at a time, with the same ids.
#[test]
fn segments_of_other_nodes_are_transferred_and_not_mapped() {
    let program = program("rsm_nodes", "tests/c/rsm_nodes.c");
    let program = program.to_str().expect("target has a plain name");
    let windlass = cc::profile().join("windlass");
    let name = windlass.to_str().expect("target has a plain name");
    let twice = "\"$0\" run -n 2 --nodes 2 \"$1\" & \"$0\" run -n 2 --nodes 2 \"$1\" && wait $!";
    let yard = Yard::new();
    let ended = yard.run(yard.command(Path::new("sh"), &["-c", twice, name, program]));
    ended.succeeded();
    let right = ended.stdout.matches("all as specified\n").count();
    assert_eq!(right, 4, "{ended:#?}");
}

/// 7 phases, 70 rounds.
#[test]
fn importers_of_another_node_outlive_an_exporter_that_is_killed() {
    runs_on_two_nodes("rsm_nodes_death", &["10"]);
}

/// Connections between nodes are descriptors, of which a child may have copies.
#[test]
fn few_descriptors_are_enough_on_either_side() {
    runs_on_two_nodes("rsm_descriptors", &[]);
}

/// Each of its two processes says that all is as specified.
fn runs_on_two_nodes(name: &str, words: &[&str]) {
    let program = program(name, &format!("tests/c/{name}.c"));
    let program = program.to_str().expect("target has a plain name");
    let windlass = cc::profile().join("windlass");
    let yard = Yard::new();
    let words = [&["run", "-n", "2", "--nodes", "2", program], words].concat();
    let ended = yard.run(yard.command(&windlass, &words));
    ended.succeeded();
    let right = ended.stdout.matches("all as specified\n").count();
    assert_eq!(right, 2, "{ended:#?}");
    assert_eq!(ended.stderr, "");
}

/// `tests/c/rsm.md`: each row of the tables is shown by a function that is there, of a program that is run, and by a test in Rust.
#[test]
fn every_row_has_its_program_and_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let harness = read("tests/c_rsm.rs").expect("this test");
    let table = read("tests/c/rsm.md").expect("the table");
    let in_c = |file: &str, function: &str| {
        let text = read(&format!("tests/c/{file}")).unwrap_or_else(|| panic!("there is no {file}"));
        let defined = |line: &str| line.contains(&format!(" {function}(")) && !line.ends_with(';');
        assert!(text.lines().any(defined), "{file} has no {function}");
        let name = file.strip_suffix(".c").expect("a program");
        assert!(
            harness.contains(&format!("\"{name}\"")),
            "nobody runs {file}"
        );
    };
    let in_rust = |file: &str, function: &str| {
        let places = ["tests", "src"].map(|folder| read(&format!("runtime/rsm/{folder}/{file}")));
        let defined = format!("#[test]\nfn {function}() {{");
        let inside = format!("    #[test]\n    fn {function}() {{");
        let found = places
            .iter()
            .flatten()
            .any(|text| text.contains(&defined) || text.contains(&inside));
        assert!(found, "{file} has no test {function}");
    };
    let (mut rows, mut not) = (0, [0; 2]);
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &["", section, condition, c, rust, ""] = &cells[..] else {
            continue;
        };
        if !section.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        rows += 1;
        for (column, places) in [c, rust].into_iter().enumerate() {
            if places.starts_with("none: ") {
                not[column] += 1;
                continue;
            }
            for place in places.split(", ") {
                let names: Vec<&str> = place.split('`').collect();
                let &["", file, " ", function, ""] = &names[..] else {
                    panic!("{section} {condition}: {place} is no file and function");
                };
                match column {
                    0 => in_c(file, function),
                    _ => in_rust(file, function),
                }
            }
        }
    }
    assert_eq!((rows, not), (87, [12, 34]));
}

/// Every result code, constant and layout is that of the header, which stands alone.
#[test]
fn the_header_says_what_the_library_was_compiled_with() {
    let mut text = String::from("#include <rsmapi.h>\n#include <rsmapi.h>\n");
    let mut same = |what: &str, value: i128| {
        writeln!(text, "_Static_assert({what} == {value}, \"{what}\");").expect("as above");
    };
    for code in Code::ALL {
        same(&code.name(), code.number().into());
    }
    for (name, value) in [
        ("RSM_SUCCESS", 0),
        ("RSM_VERSION", rsm::RSM_VERSION.into()),
        ("RSM_PERM_NONE", 0),
        ("RSM_PERM_READ", windlass_rsm::PERM_READ.into()),
        ("RSM_PERM_WRITE", windlass_rsm::PERM_WRITE.into()),
        ("RSM_PERM_RDWR", windlass_rsm::PERM_RDWR.into()),
        ("RSM_MAP_FIXED", windlass_rsm::MAP_FIXED.into()),
        ("RSM_MAP_RESERVED", windlass_rsm::MAP_RESERVED.into()),
        ("RSM_ALLOW_REBIND", windlass_rsm::ALLOW_REBIND.into()),
        (
            "RSM_CREATE_SEG_DONTWAIT",
            rsm::RSM_CREATE_SEG_DONTWAIT.into(),
        ),
        ("RSM_HANDLE_TYPE", rsm::RSM_HANDLE_TYPE.into()),
        ("RSM_VA_TYPE", rsm::RSM_VA_TYPE.into()),
        ("RSM_MAX_SGIOREQS", rsm::RSM_MAX_SGIOREQS.into()),
        ("RSM_IMPLICIT_SIGPOST", rsm::RSM_IMPLICIT_SIGPOST.into()),
        (
            "RSM_SIGPOST_NO_ACCUMULATE",
            rsm::RSM_SIGPOST_NO_ACCUMULATE.into(),
        ),
        ("RSM_CONNECTION_ACTIVE", rsm::RSM_CONNECTION_ACTIVE.into()),
        ("RSM_BARRIER_SEGMENT", windlass_rsm::BARRIER_SEGMENT.into()),
        ("RSM_BARRIER_NODE", windlass_rsm::BARRIER_NODE.into()),
        (
            "RSM_BARRIER_SEGMENT_THREAD",
            windlass_rsm::BARRIER_SEGMENT_THREAD.into(),
        ),
        (
            "RSM_BARRIER_NODE_THREAD",
            windlass_rsm::BARRIER_NODE_THREAD.into(),
        ),
        ("RSM_BARRIER_MODE_EXPLICIT", 0),
        ("RSM_BARRIER_MODE_IMPLICIT", 1),
        ("RSM_MAXNAMELEN", rsm::MAXNAMELEN as i128),
        ("RSM_USER_APP_ID_BASE", windlass_rsm::FIRST_CHOSEN.into()),
        (
            "RSM_USER_APP_ID_END",
            i128::from(windlass_rsm::FIRST_GIVEN) - 1,
        ),
    ] {
        same(name, value);
    }
    // The numbers of rsm 1, and ours.
    let layouts = [
        (
            "sizeof(rsmapi_access_entry_t)",
            8,
            size_of::<rsm::rsmapi_access_entry_t>(),
        ),
        (
            "sizeof(rsmapi_barrier_t)",
            24,
            size_of::<rsm::rsmapi_barrier_t>(),
        ),
        (
            "offsetof(rsmapi_barrier_t, gnum)",
            8,
            offset_of!(rsm::rsmapi_barrier_t, gnum),
        ),
        (
            "sizeof(rsmapi_controller_attr_t)",
            64,
            size_of::<rsm::rsmapi_controller_attr_t>(),
        ),
        (
            "offsetof(rsmapi_controller_attr_t, attr_max_import_segments)",
            56,
            offset_of!(rsm::rsmapi_controller_attr_t, attr_max_import_segments),
        ),
        ("sizeof(rsm_iovec_t)", 40, size_of::<rsm::rsm_iovec_t>()),
        (
            "offsetof(rsm_iovec_t, local)",
            8,
            offset_of!(rsm::rsm_iovec_t, local),
        ),
        (
            "offsetof(rsm_iovec_t, transfer_length)",
            32,
            offset_of!(rsm::rsm_iovec_t, transfer_length),
        ),
        (
            "sizeof(rsm_scat_gath_t)",
            48,
            size_of::<rsm::rsm_scat_gath_t>(),
        ),
        (
            "offsetof(rsm_scat_gath_t, io_residual_count)",
            16,
            offset_of!(rsm::rsm_scat_gath_t, io_residual_count),
        ),
        (
            "offsetof(rsm_scat_gath_t, flags)",
            24,
            offset_of!(rsm::rsm_scat_gath_t, flags),
        ),
        (
            "offsetof(rsm_scat_gath_t, iovec)",
            40,
            offset_of!(rsm::rsm_scat_gath_t, iovec),
        ),
        (
            "sizeof(rsm_topology_hdr_t)",
            8,
            size_of::<rsm::rsm_topology_hdr_t>(),
        ),
        (
            "sizeof(rsm_connections_hdr_t)",
            272,
            size_of::<rsm::rsm_connections_hdr_t>(),
        ),
        (
            "offsetof(rsm_connections_hdr_t, local_hwaddr)",
            256,
            offset_of!(rsm::rsm_connections_hdr_t, local_hwaddr),
        ),
        (
            "sizeof(rsm_remote_cntlr_t)",
            280,
            size_of::<rsm::rsm_remote_cntlr_t>(),
        ),
        (
            "offsetof(rsm_remote_cntlr_t, remote_hwaddr)",
            264,
            offset_of!(rsm::rsm_remote_cntlr_t, remote_hwaddr),
        ),
        ("offsetof(rsm_connections_t, remote_cntlr)", 272, 272),
        ("offsetof(rsm_topology_t, local_cntlr)", 8, 8),
    ];
    for (what, specified, ours) in layouts {
        assert_eq!(specified, ours, "{what}");
        same(what, specified as i128);
    }
    text.push_str("int main(void) { return 0; }\n");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let source = folder.path().join("rsm_header.c");
    fs::write(&source, text).expect("it can be written");
    let source = source.to_str().expect("a plain name");
    cc::compile("rsm_header", &[source], &["-pedantic"]);
}

/// All functions that the header declares are in the library, and no other of the interface.
#[test]
fn the_library_has_the_functions_of_the_header() {
    cc::package("windlass-librsm");
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/capi/include/rsmapi.h");
    let header = fs::read_to_string(header).expect("there is a header");
    let declared: Vec<&str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("int ").or(line.strip_prefix("void ")))
        .filter_map(|line| line.split('(').next())
        .collect();
    assert_eq!(declared.len(), 42, "{declared:?}");
    let library = cc::profile().join("librsm.so.2");
    let _alone = support::leaks::alone();
    let nm = std::process::Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(&library)
        .output()
        .expect("binutils are there where cc is");
    let nm = String::from_utf8_lossy(&nm.stdout).into_owned();
    let mut defined: Vec<&str> = nm
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .filter(|name| name.starts_with("rsm_"))
        .collect();
    let mut declared = declared;
    declared.sort_unstable();
    defined.sort_unstable();
    assert_eq!(declared, defined);
}
