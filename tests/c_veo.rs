//! libveo.so.1 through C programs (ve-memory 4, 7.4, 12): `tests/c/veo_vh.c` on the VH, `tests/c/veo_ve.c` on the VE.
//!
//! The programs check themselves and say which line failed. Here: what is set around them, how they must end, and that
//! nothing of them is left: the VE processes carry the token of the run.

mod support;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use support::cc::{self, Ended};
use support::leaks;
use windlass_mem::forbid::{Forbidden, forbid};

/// Both columns of ve-memory 11.
const COLUMNS: [&str; 2] = ["implemented", "documented"];

/// Words of a program that is to be run without cross-memory copy.
const FORBIDDEN: &str = "WLTEST_FORBIDDEN";

/// VH program and VE library.
fn built() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        cc::package("windlass-veo");
        let library = ["-shared", "-fPIC"];
        (
            cc::compile("veo_vh", &["tests/c/veo_vh.c"], &["-lveo"]),
            cc::compile("libveo_ve.so", &["tests/c/veo_ve.c"], &library),
        )
    })
}

/// The VH program, doing `words`; a process that crashes on purpose leaves no core file.
fn program(words: &[&str]) -> Command {
    let (program, library) = built();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c 0; exec \"$@\"", "sh"]);
    command.arg(program).arg(words[0]).arg(library);
    command.args(&words[1..]);
    for name in [
        "VE_NODE_NUMBER",
        "_VENODELIST",
        "WINDLASS_VES",
        "WINDLASS_VE_PROFILE",
    ] {
        command.env_remove(name);
    }
    command
}

#[track_caller]
fn passes(words: &[&str]) {
    cc::run(program(words)).succeeded();
}

#[test]
fn processes_come_and_go_by_their_handles() {
    passes(&["processes"]);
}

#[test]
fn libraries_and_symbols_are_found_or_refused() {
    passes(&["libraries"]);
}

#[test]
fn contexts_are_threads_of_the_ve_up_to_their_limit() {
    passes(&["contexts"]);
}

#[test]
fn arguments_of_all_kinds_arrive() {
    passes(&["arguments"]);
}

#[test]
fn floating_point_results_come_back_as_bits() {
    passes(&["results"]);
}

#[test]
fn memory_moves_both_ways_at_every_alignment() {
    passes(&["memory", "256"]);
}

#[test]
fn pointers_say_whose_memory_they_mean() {
    passes(&["hmem"]);
}

#[test]
fn requests_are_done_in_their_order() {
    passes(&["asynchronous"]);
}

#[test]
fn threads_share_processes_and_contexts() {
    passes(&["threads"]);
}

#[test]
fn a_child_of_fork_has_no_processes() {
    passes(&["forks"]);
}

#[test]
fn hooks_are_called_behind_their_functions() {
    passes(&["hooks"]);
}

#[test]
fn a_ve_process_hears_the_signals_that_its_maker_hears() {
    passes(&["signals"]);
}

#[test]
fn descriptors_and_threads_do_not_pile_up() {
    passes(&["rounds"]);
}

#[test]
fn a_function_that_ends_its_process_is_an_exception() {
    for (function, how) in [
        ("touch_null", "(signal: 11 (SIGSEGV))"),
        ("divide", "(signal: 8 (SIGFPE))"),
        ("give_up", "(signal: 6 (SIGABRT))"),
        ("terminate", "(signal: 15 (SIGTERM))"),
        ("leave", "(exit status: 7)"),
    ] {
        for (way, running) in [("sync", 1), ("async", 2)] {
            let ended = cc::run(program(&["exception", function, way]));
            ended.succeeded();
            // Once, with all that ran: which of two contexts it was nobody knows.
            let lines: Vec<&str> = ended.stderr.lines().collect();
            let [line] = lines[..] else {
                panic!("{ended:#?}");
            };
            let (who, what) = line.split_once(" while it ran ").expect("it ran something");
            assert!(who.starts_with("windlass VE: VE process "), "{line}");
            assert!(who.ends_with(how), "{line}");
            assert!(what.contains(function), "{line}");
            assert_eq!(what.split(", ").count(), running, "{line}");
        }
    }
}

/// The processor tells no address of such a fault.
#[test]
fn a_pointer_that_keeps_its_tag_is_told_with_the_end_it_brings() {
    let ended = cc::run(program(&["tagged"]));
    ended.succeeded();
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let [line] = lines[..] else {
        panic!("{ended:#?}");
    };
    let ran = " while it ran fill_bytes with 0x8";
    assert!(line.contains("(SIGSEGV)") && line.contains(ran), "{line}");
    let which = " as argument 0, a pointer of the VH to VE memory (pass what veo_get_hmem_addr makes of it)";
    assert!(line.ends_with(which), "{line}");
}

/// In the checking mode: by the name of the function that the program called, also where it was the VE that refused.
#[test]
fn a_refusal_is_told_by_the_programs_own_call_where_asked_for() {
    let mut on_its_node = Command::new(on_node());
    on_its_node.arg("refused");
    for (mut command, lines) in [
        (
            program(&["arguments"]),
            &[
                "veo_call_sync: EINVAL: argument 0 was not set, and argument 1 was: set all of them",
                "veo_call_async: EINVAL: argument 0 was not set",
                "veo_call_sync: EINVAL: function 0: veo_get_sym found none",
                "veo_args_set_i64: EINVAL: arguments are counted from 0 to 255",
                "veo_args_set_u64: EINVAL: a null pointer in place of what veo_args_alloc gave",
                "veo_args_set_stack: EINVAL: an intent that is none",
                "veo_call_sync: E2BIG: more than 63 MiB of buffers",
            ][..],
        ),
        (
            program(&["hmem"]),
            &[
                "veo_alloc_hmem: ENOMEM: 0x10000000000 bytes: so much in one piece is not left",
                "veo_alloc_hmem: ENOMEM: pointers have numbers for 16 VE processes",
                "veo_hmemcpy: EINVAL: from one VE process to another",
                "veo_hmemcpy: EFAULT: a null pointer, or an address where no memory is",
                "veo_get_pid_from_hmem: EINVAL: no pointer of veo_alloc_hmem",
                "veo_free_hmem: EBUSY: ",
            ],
        ),
        (
            on_its_node,
            &[
                "veo_shared_mem_open: EINVAL: by ve_shared_mem_open on the VE, whose own line has the rule",
                "veo_register_mem_to_dmaatb: EINVAL: by ve_shared_mem_attach on the VE",
                "ve_shared_mem_open: EINVAL: ",
                "veo_shared_mem_attach: ESRCH: by ve_shared_mem_attach on the VE",
            ],
        ),
    ] {
        command.env("WINDLASS_VE_CHECK", "1");
        let ended = cc::run(command);
        ended.succeeded();
        for line in lines {
            let line = format!("windlass VE: {line}");
            let told = ended.stderr.lines().any(|told| told.starts_with(&line));
            assert!(told, "{line} in {ended:#?}");
        }
    }
    // And nothing where nobody asked.
    assert_eq!(cc::run(program(&["arguments"])).stderr, "");
}

/// What no errno can say: variable, value and remedy, in a line.
#[test]
fn who_gets_no_ve_process_hears_why() {
    let elsewhere = tempfile::tempdir().expect("a folder can be made");
    let nothing = elsewhere.path().join("nothing");
    let nothing = nothing.to_str().expect("a plain name");
    built();
    let ours = cc::profile().join("libveo.so.1");
    let copy = elsewhere.path().join("libveo.so.1");
    std::fs::copy(&ours, &copy).expect("the library can be copied");
    let copy = copy.to_str().expect("a plain name");
    for (wanted, variables, said) in [
        (
            "-1",
            &[("VE_NODE_NUMBER", "three")][..],
            "VE_NODE_NUMBER=three is not the number of a Vector Engine; give 0 to 7",
        ),
        (
            "8",
            &[],
            "veo_proc_create(8): there is no VE 8: there are VEs 0 to 7",
        ),
        ("-2", &[], "-2 is no Vector Engine"),
        (
            "0",
            &[("WINDLASS_VES", "0")],
            "there are none (WINDLASS_VES=0)",
        ),
        (
            "0",
            &[("WINDLASS_VES", "nine")],
            "WINDLASS_VES=nine is not accepted; give 0 to 8",
        ),
        ("2", &[("_VENODELIST", "4 6")], "is not in _VENODELIST"),
        (
            "0",
            &[("WINDLASS_NODE_NAME", "A b")],
            "WINDLASS_NODE_NAME=A b is not accepted; give 1 to 32",
        ),
        (
            "0",
            &[("WINDLASS_VE_PROFILE", "ve2")],
            "WINDLASS_VE_PROFILE=ve2 is not accepted; give",
        ),
        (
            "0",
            &[("WINDLASS_VE_CHECK", "yes")],
            "WINDLASS_VE_CHECK=yes is not accepted; give 0 or 1",
        ),
        (
            "0",
            &[("WINDLASS_VE_REORDER", "often")],
            "WINDLASS_VE_REORDER=often is not accepted; give a number, the seed",
        ),
        (
            "0",
            &[("WINDLASS_VE_ERRNO", "posix")],
            "WINDLASS_VE_ERRNO=posix is not accepted; give implemented or documented",
        ),
        (
            "0",
            &[("WINDLASS_VE", "native")],
            "unset it, or link NEC's library",
        ),
        // Named, but by nothing, and as something else.
        (
            "0",
            &[("WINDLASS_VE", "native"), ("WINDLASS_LIBVEO", "")],
            "unset it, or link NEC's library",
        ),
        (
            "0",
            &[("WINDLASS_VE", "native"), ("WINDLASS_LIBVEO", copy)],
            "unset it, or link NEC's library",
        ),
        (
            "0",
            &[("WINDLASS_VE", "native"), ("WINDLASS_LIBVEO", "libm.so.6")],
            "unset it, or link NEC's library",
        ),
        (
            "0",
            &[("WINDLASS_VE", "card")],
            "WINDLASS_VE=card is not accepted; give emulated",
        ),
        (
            "0",
            &[("WINDLASS_VEORUN", nothing)],
            "set it to the path of aveorun",
        ),
        (
            "0",
            &[("WINDLASS_VEORUN", "/bin/true")],
            "has ended (exit status: 0) before it was ready",
        ),
    ] {
        let mut command = program(&["node", "none", wanted]);
        command.envs(variables.iter().copied());
        let ended = cc::run(command);
        ended.succeeded();
        assert!(ended.stderr.starts_with("windlass VE: "), "{ended:#?}");
        assert!(ended.stderr.contains(said), "{said}: {ended:#?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
    }
    // This very library, by its path and as the linker finds it.
    for name in [ours.as_path(), Path::new("libveo.so.1")] {
        let mut command = program(&["node", "0", "0"]);
        command.env("WINDLASS_VE", "native");
        command.env("WINDLASS_LIBVEO", name);
        let ended = cc::run(command);
        ended.succeeded();
        assert_eq!(ended.stderr, "");
    }
    // Nothing where nothing is wrong, and of a name that is misspelt once, not by each VE process too.
    assert_eq!(cc::run(program(&["node", "0", "-1"])).stderr, "");
    let mut command = Command::new(on_node());
    command.arg("veshm").env("WINDLASS_VE_CHEK", "1");
    let ended = cc::run(command);
    ended.succeeded();
    let warning = "windlass VE: warning: WINDLASS_VE_CHEK is not a variable of Windlass; is WINDLASS_VE_CHECK meant?\n";
    assert_eq!(ended.stderr, warning);
}

/// ve-memory 12: -1 is VE_NODE_NUMBER or 0; under a scheduler numbers are logical.
#[test]
fn the_node_is_the_environments() {
    let node = |expected, wanted, number: Option<&str>, list: Option<&str>, ves: Option<&str>| {
        let mut command = program(&["node", expected, wanted]);
        for (name, value) in [
            ("VE_NODE_NUMBER", number),
            ("_VENODELIST", list),
            ("WINDLASS_VES", ves),
        ] {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        cc::run(command).succeeded();
    };
    node("0", "-1", None, None, None);
    node("3", "-1", Some("3"), None, None);
    node("2", "2", Some("3"), None, None);
    node("none", "-1", Some("three"), None, None);
    node("none", "8", None, None, None);
    node("1", "1", None, None, Some("2"));
    node("none", "2", None, None, Some("2"));
    node("4", "-1", None, Some("4 6"), None);
    node("6", "1", None, Some("4 6"), None);
    node("none", "2", None, Some("4 6"), None);
    node("6", "-1", Some("6"), Some("4 6"), None);
    node("none", "-1", Some("5"), Some("4 6"), None);
    node("none", "-1", None, Some(""), None);
    for (profile, generation) in [("ve1", "1"), ("ve1:10", "1"), ("ve3", "3")] {
        let mut command = program(&["arch", generation]);
        command.env("WINDLASS_VE_PROFILE", profile);
        cc::run(command).succeeded();
    }
}

/// A process that ends with the test, however that ends.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that runs says what its cards are, whatever the variables of this program are.
#[test]
fn the_card_is_the_nodes() {
    on_node();
    let windlass = || Command::new(cc::profile().join("windlass"));
    let name = format!("own-card-{}", std::process::id());
    for (of_node, here, generation, gib, other) in [
        ("ve3", "ve1", "3", "96", "4"),
        ("ve1", "ve3", "1", "48", "4"),
    ] {
        let mut node = windlass();
        node.args(["node", "--name", &name, "--ves", "2", "--profile", of_node]);
        let alone = leaks::alone(); // a descriptor of this process while it starts
        let mut node = Ends(node.spawn().expect("a node can be started"));
        drop(alone);
        let node_runs = || {
            let mut list = windlass();
            list.args(["node", "--list"]);
            cc::run(list).stdout.contains(&name)
        };
        let deadline = Instant::now() + Duration::from_secs(120);
        while !node_runs() {
            let ended = node.0.try_wait().expect("it is ours");
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let on = |words: &[&str]| {
            let mut command = program(words);
            command.env("WINDLASS_NODE_NAME", &name);
            command.env("WINDLASS_VE_PROFILE", here);
            let ended = cc::run(command);
            ended.succeeded();
            ended.stderr
        };
        // Once, not by the VE process too.
        let overruled = format!(
            "windlass VE: warning: node {name} was started with WINDLASS_VE_PROFILE={of_node}; WINDLASS_VE_PROFILE here says \
             {here}: the node's holds\n"
        );
        assert_eq!(on(&["card", generation, gib]), overruled);
        // It has no such VE, so that has no generation.
        assert_eq!(on(&["no_arch", other]), "");
        let mut create = program(&["node", "none", other]);
        create.env("WINDLASS_NODE_NAME", &name);
        let ended = cc::run(create);
        ended.succeeded();
        let why = format!("there is no VE {other}: there are VEs 0 to 1 on the node that runs");
        assert!(ended.stderr.contains(&why), "{ended:#?}");
        let mut stop = windlass();
        stop.args(["node", "--stop", &name]);
        cc::run(stop).succeeded();
        node.0.wait().expect("it is ours");
    }
    // A node that this program starts itself.
    for (profile, generation, gib) in [("ve1:10", "1", "48"), ("ve3", "3", "96")] {
        let mut command = program(&["card", generation, gib]);
        command.env("WINDLASS_VE_PROFILE", profile);
        cc::run(command).succeeded();
    }
    // One that nobody would start.
    let mut command = program(&["no_arch", "0"]);
    command.env("WINDLASS_VE_PROFILE", "ve2");
    cc::run(command).succeeded();
}

#[test]
fn the_program_of_a_ve_process_is_found() {
    let elsewhere = tempfile::tempdir().expect("a folder can be made");
    let aveorun = cc::profile().join("aveorun");
    // By the variable, which goes before everything else.
    let mut command = program(&["node", "0", "0"]);
    command.env("WINDLASS_VEORUN", &aveorun);
    cc::run(command).succeeded();
    let mut command = program(&["node", "none", "0"]);
    command.env("WINDLASS_VEORUN", elsewhere.path().join("nothing"));
    cc::run(command).succeeded();
    // A library somewhere else: nothing beside it, then PATH.
    for name in ["libveo.so.1", "libveo.so"] {
        std::fs::copy(cc::profile().join("libveo.so"), elsewhere.path().join(name))
            .expect("the library can be copied");
    }
    let moved = |expected: &str, path: String| {
        let mut command = program(&["node", expected, "0"]);
        // Programs are linked with RUNPATH, which this goes before.
        command.env("LD_LIBRARY_PATH", elsewhere.path());
        command.env("PATH", path);
        cc::run(command).succeeded();
    };
    let path = std::env::var("PATH").expect("there is a PATH");
    moved("none", path.clone());
    moved("0", format!("{path}:{}", cc::profile().display()));
    // Beside it.
    std::os::unix::fs::symlink(&aveorun, elsewhere.path().join("aveorun")).expect("a link");
    moved("0", path);
}

/// veo_proc_create_static with a program that runs aveorun in the end, as wrappers for debuggers do.
#[test]
fn another_program_may_take_the_place_of_aveorun() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let script = folder.path().join("wrapper");
    let text = format!(
        "#!/bin/sh\necho begins\nexec {} \"$@\"\n",
        cc::profile().join("aveorun").display()
    );
    std::fs::write(&script, text).expect("it can be written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    let script = script
        .to_str()
        .expect("a temporary folder has a plain name");
    let ended = cc::run(program(&["program", script]));
    ended.succeeded();
    assert_eq!(ended.stdout, "begins\n");
}

#[test]
fn the_end_of_a_process_is_exit() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for way in ["destroy", "end"] {
        let file = folder.path().join(way);
        passes(&[
            way,
            file.to_str().expect("a temporary folder has a plain name"),
        ]);
        assert_eq!(
            std::fs::read_to_string(&file).expect("exit(3) wrote it"),
            "ended"
        );
    }
}

/// `veo_sysve.c` over this library in libsysve's place, in each column.
fn over(library: &str, test: &str) -> [Ended; 2] {
    cc::package("windlass-veo");
    let name = format!("veo_sysve_{test}");
    let program = cc::compile(&name, &["tests/c/veo_sysve.c"], &["-lveo"]);
    COLUMNS.map(|column| {
        let mut command = Command::new(&program);
        command.arg(test).env("WINDLASS_LIBSYSVE", library);
        command.env("WINDLASS_VE_ERRNO", column);
        let ended = cc::run(command);
        ended.succeeded();
        ended
    })
}

/// ve-memory 7.4, first row; -ENOTSUP of 12.
#[test]
fn without_libsysve_its_functions_are_not_supported() {
    // The second: a library that has other functions is none.
    for library in ["/does/not/exist", "libm.so.6"] {
        for ended in over(library, "absent") {
            assert!(
                ended.stderr.contains("name it by WINDLASS_LIBSYSVE"),
                "{ended:#?}"
            );
        }
    }
}

fn stand_in(test: &str) {
    let arguments = ["-shared", "-fPIC"];
    let name = format!("libfake_{test}.so");
    let library = cc::compile(&name, &["tests/c/veo_fake_sysve.c"], &arguments);
    over(library.to_str().expect("target has a plain name"), test);
}

/// ve-memory 7.4: what the VE side answers; 12: what becomes of pointers and handles.
#[test]
fn functions_of_libsysve_are_passed_on() {
    stand_in("passed_on");
}

/// ve-memory 7.4, second row; -EBUSY of 12.
#[test]
fn functions_of_a_dead_process_are_busy() {
    stand_in("dead");
}

/// `veo_node.c`, whose VE processes share a node of the emulation.
fn on_node() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        for package in ["windlass-veo", "windlass-sysve", "windlass-launcher"] {
            cc::package(package);
        }
        cc::compile("veo_node", &["tests/c/veo_node.c"], &["-lveo"])
    })
}

/// Alone, and as a rank of the VH under the launcher: there the node is the job's. In each column.
fn alone_and_in_a_job(test: &str) {
    for column in COLUMNS {
        let mut alone = Command::new(on_node());
        alone.arg(test).env("WINDLASS_VE_ERRNO", column);
        cc::run(alone).succeeded();
        let mut job = Command::new(cc::profile().join("windlass"));
        job.args(["run", "-n", "2", "--ves", "2"]).arg(on_node());
        job.arg(test).env("WINDLASS_VE_ERRNO", column);
        cc::run(job).succeeded();
    }
}

/// The node of a job says which VEs there are.
#[test]
fn in_a_job_there_are_the_ves_of_the_job() {
    on_node();
    let (program, library) = built();
    for (expected, wanted) in [("1", "1"), ("0", "-1"), ("none", "2")] {
        let mut job = Command::new(cc::profile().join("windlass"));
        job.args(["run", "-n", "1", "--ves", "2"]).arg(program);
        job.arg("node").arg(library).args([expected, wanted]);
        let ended = cc::run(job);
        ended.succeeded();
        let told = ended.stderr.contains("cannot join");
        assert_eq!(told, expected == "none", "{ended:#?}");
    }
}

#[test]
fn veshm_between_processes_of_one_and_of_two_ves() {
    alone_and_in_a_job("veshm");
}

#[test]
fn segments_of_the_host_are_reached_or_refused() {
    alone_and_in_a_job("vhshm");
}

/// Who may not freeze memory by userfaultfd pauses threads by a signal, which all of them must hear: those of a VE process, and
/// those that the library has in a rank, which lends memory of its own.
#[test]
fn an_ordinary_user_needs_no_rights() {
    use std::os::unix::fs::{PermissionsExt, chown};
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return; // all the other tests are this one
    }
    let program = on_node();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path();
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755));
    // Theirs to read: this clone need not be.
    for file in ["libveo.so.1", "libsysve.so.1", "aveorun", "windlass"] {
        std::fs::copy(cc::profile().join(file), path.join(file)).expect("it can be copied");
        open(&path.join(file)).expect("it is ours");
    }
    std::fs::copy(program, path.join("veo_node")).expect("it can be copied");
    let home = path.join("home");
    std::fs::create_dir(&home).expect("the folder is ours");
    for path in [path, &home] {
        open(path).expect("it is ours");
    }
    chown(&home, Some(NOBODY), Some(NOBODY)).expect("root may");
    let nobodys = |name: &str, words: &[&str]| {
        let mut command = Command::new(path.join(name));
        command.args(words).current_dir("/");
        command
            .env("LD_LIBRARY_PATH", path)
            .env("XDG_RUNTIME_DIR", &home);
        command.uid(NOBODY).gid(NOBODY);
        command
    };
    for test in ["veshm", "vhshm"] {
        cc::run(nobodys("veo_node", &[test])).succeeded();
    }
    let words = [
        "explain",
        "--ves",
        "1",
        "--place",
        "vh:1,ve0:1",
        "-w",
        "create",
    ];
    let mut explain = nobodys("windlass", &words);
    explain.env("WINDLASS_VE", "native");
    explain.env("WINDLASS_LIBVEO", path.join("libveo.so.1"));
    let ended = cc::run(explain);
    ended.succeeded();
    assert!(
        ended.stdout.contains(": vhshm, mapped") && !ended.stdout.contains("signal"),
        "{}",
        ended.stdout
    );
}

/// The example is built by the lines of its first comment, and runs alone and in a job.
#[test]
fn the_example_is_built_as_it_says_and_runs() {
    on_node();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let root = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/examples/c/veo_vhshm.c"));
    let text = text.expect("the example can be read");
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(" *   cc "));
    let libraries = cc::profile().display().to_string();
    let output = format!("-o {}/", folder.path().display());
    let mut built = 0;
    for line in lines {
        // This build's libraries; programs to a folder of their own.
        let line = line
            .replace("$PWD/target/release", &libraries)
            .replace("target/release", &libraries)
            .replace("-o target/", &output);
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("cc -Wall -Wextra -Werror {line}"));
        let alone = leaks::alone();
        let status = shell.current_dir(root).status().expect("there is a shell");
        drop(alone);
        assert!(status.success(), "cc {line}");
        built += 1;
    }
    assert_eq!(built, 2, "a library and a program");
    let (program, library) = (
        folder.path().join("veo_vhshm"),
        folder.path().join("veo_vhshm_ve.so"),
    );
    let mut alone = Command::new(&program);
    alone.arg(&library);
    let mut job = Command::new(cc::profile().join("windlass"));
    job.args(["run", "-n", "2", "--ves", "1"])
        .arg(&program)
        .arg(&library);
    for (command, programs) in [(alone, 1), (job, 2)] {
        let ended = cc::run(command);
        ended.succeeded();
        assert_eq!(
            ended.stdout.matches("all right").count(),
            programs,
            "{ended:#?}"
        );
        // Which of the two ways it went, it says.
        let missing = ended.stdout.contains("as root, `sysctl vm.");
        assert_eq!(
            missing,
            ended.stdout.contains("by a VEO transfer"),
            "{ended:#?}"
        );
    }
}

#[test]
fn nothing_is_left_of_a_program_that_vanishes_with_everything_attached() {
    for _ in 0..10 {
        let mut command = Command::new(on_node());
        command.arg("vanish");
        let ended = cc::run(command);
        assert_eq!(ended.status.signal(), Some(9), "{ended:#?}");
    }
}

/// The phases of `death` in `veo_vh.c`.
const PHASES: [&str; 9] = [
    "created",
    "found",
    "allocated",
    "writing",
    "opened",
    "requested",
    "waiting",
    "destroying",
    "destroyed",
];

fn dies(phase: &str, victim: &str) -> Ended {
    let ended = cc::run(program(&["death", phase, victim]));
    assert_eq!(
        ended.stdout.trim(),
        phase,
        "{victim} at {phase}: {ended:#?}"
    );
    ended
}

#[test]
fn the_death_of_the_ve_process_is_survived_in_every_phase() {
    for phase in PHASES {
        dies(phase, "ve").succeeded();
    }
}

#[test]
fn nothing_is_left_of_a_program_that_is_killed_in_any_phase() {
    for phase in PHASES {
        let ended = dies(phase, "vh");
        assert_eq!(ended.status.signal(), Some(9), "{ended:#?}");
    }
    // A VE process that does not run cannot notice: the kernel ends it.
    let ended = dies("waiting", "stopped");
    assert_eq!(ended.status.signal(), Some(9), "{ended:#?}");
}

#[test]
fn nothing_is_left_of_a_program_that_exits_in_any_phase() {
    for phase in PHASES {
        for way in ["exit", "_exit"] {
            let ended = dies(phase, way);
            assert_eq!(ended.status.code(), Some(7), "{ended:#?}");
        }
    }
}

/// Not a test of its own: becomes the program of the tests below, without cross-memory copy or pidfds.
#[test]
fn forbidden_program() {
    let Ok(words) = std::env::var(FORBIDDEN) else {
        return;
    };
    let (what, words) = match words.strip_prefix("pidfd ") {
        Some(words) => (Forbidden::Pidfd, words),
        None => (Forbidden::CrossCopy, &*words),
    };
    forbid(what).expect("the kernel has filters");
    let words: Vec<&str> = words.split(' ').collect();
    panic!("{}", program(&words).exec());
}

#[test]
fn where_the_kernel_forbids_cross_memory_copy_the_socket_carries_memory() {
    forbidden(&[
        "memory 256",
        "hmem",
        "threads",
        "exception touch_null async",
    ]);
}

/// As under valgrind.
#[test]
fn pidfds_are_not_needed() {
    forbidden(&[
        "pidfd processes",
        "pidfd memory 4",
        "pidfd exception touch_null async",
        "pidfd rounds",
    ]);
}

fn forbidden(programs: &[&str]) {
    built();
    for words in programs {
        let exe = std::env::current_exe().expect("a process knows its program");
        let mut command = Command::new(exe);
        command.args(["--exact", "forbidden_program", "--nocapture"]);
        command.env(FORBIDDEN, words);
        let ended = cc::run(command);
        ended.succeeded();
        // The program was run, not passed by: exec leaves the harness's words without their end.
        assert!(!ended.stdout.contains("test result"), "{ended:#?}");
    }
}
