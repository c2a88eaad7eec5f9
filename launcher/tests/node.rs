//! The nodes of programs that were started without the launcher: private ones, named ones, and their ends.

mod support;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::user::{Kept, Start, User, home, name, status, status_of, until_gone};
use support::{alive, until, watchdog};
use windlass_node::{Address, NodeKind};

/// Another user, where the tests run as root.
const NOBODY: u32 = 65_534;

/// The program of these tests; nothing when run as a test of its own.
#[test]
fn role() {
    support::user::play();
}

fn socket_in(answer: &str) -> PathBuf {
    PathBuf::from(answer.rsplit(' ').next().unwrap())
}

#[test]
fn a_private_node_ends_with_its_process() {
    let _watchdog = watchdog();
    for killed in [false, true] {
        let home = home();
        let mut user = Start::new(home.path()).go();
        let answer = user.ask("enter 1");
        assert!(answer.starts_with("entered None Some(1) "), "{answer}");
        let socket = socket_in(&answer);
        let node = status(&Address::Path(socket)).unwrap();
        assert_eq!(
            (node.kind, node.ves.len(), node.visitors),
            (NodeKind::Private, 8, 1)
        );
        assert!(user.ask("open").parse::<u64>().is_ok());
        if killed {
            user.kill();
        } else {
            user.end();
        }
        until("the service ends", || !alive(node.pid));
        let left = std::fs::read_dir(home.path()).unwrap().count();
        assert_eq!(left, 0, "nothing is left, killed: {killed}");
    }
}

#[test]
fn descendants_share_a_private_node() {
    let _watchdog = watchdog();
    let home = home();
    let mut parent = Start::new(home.path()).env("WINDLASS_VES", 2).go();
    let socket = socket_in(&parent.ask("enter 0"));
    let mut child = Start::new(home.path())
        .env("WINDLASS_VE_SOCKET", socket.display())
        .go();
    assert_eq!(socket_in(&child.ask("enter 1")), socket);
    let vemva = parent.ask("open");
    let pid = parent.pid();
    assert_eq!(child.ask(&format!("read {pid} {vemva}")), "from the owner");
    let mut third = Start::new(home.path())
        .env("WINDLASS_VE_SOCKET", socket.display())
        .go();
    let text = third.ask("enter 2");
    assert!(text.contains("WINDLASS_VES"), "{text}");
    let node = status(&Address::Path(socket)).unwrap();
    parent.kill();
    until("the owner has left", || {
        child
            .ask(&format!("attach {pid} {vemva}"))
            .contains("ESRCH")
    });
    assert!(alive(node.pid), "its last user is still there");
    child.end();
    until("the service ends", || !alive(node.pid));
    drop(third);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn twenty_first_users_start_one_service() {
    let _watchdog = watchdog();
    let home = home();
    for round in 0..3 {
        let name = name(&format!("race{round}"));
        let mut users: Vec<User> = (0..20)
            .map(|_| {
                Start::new(home.path())
                    .named(&name)
                    .env("WINDLASS_VES", 2)
                    .go()
            })
            .collect();
        users
            .iter_mut()
            .enumerate()
            .for_each(|(i, user)| user.tell(&format!("enter {}", i % 2)));
        for user in &mut users {
            let answer = user.hear();
            assert!(answer.starts_with("entered None Some("), "{answer}");
        }
        let node = status_of(&name);
        assert_eq!((node.visitors, node.ves.len()), (20, 2));
        assert_eq!(node.kind, NodeKind::Named(name.to_string()));
        let last = users.pop().unwrap();
        users.into_iter().for_each(User::end);
        assert!(alive(node.pid));
        last.kill();
        until("the service ends", || !alive(node.pid));
        until_gone(&name);
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn users_come_and_go_while_the_node_ends_and_begins() {
    let _watchdog = watchdog();
    let home = home();
    let name = name("ebb");
    // Each time the last one leaves, others are on their way in.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let mut user = Start::new(home.path()).named(&name).go();
                    let answer = user.ask("enter 0");
                    assert!(answer.starts_with("entered None Some(0)"), "{answer}");
                    assert!(
                        user.ask("open").parse::<u64>().is_ok(),
                        "admitted and then left alone"
                    );
                    user.end();
                }
            });
        }
    });
    until_gone(&name);
}

/// The test binary and the launcher where every user can start them.
struct Shared {
    _dir: tempfile::TempDir,
    program: PathBuf,
    launcher: PathBuf,
}

impl Shared {
    /// None for a user who cannot become another.
    fn with_a_second_user() -> Option<Self> {
        use std::os::unix::fs::PermissionsExt;
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: a second user cannot be had here");
            return None;
        }
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let [program, launcher] = ["user", "windlass"].map(|name| dir.path().join(name));
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_windlass"), &launcher).unwrap();
        Some(Self {
            _dir: dir,
            program,
            launcher,
        })
    }
}

#[test]
fn two_users_share_a_named_node_and_not_their_areas() {
    let Some(shared) = Shared::with_a_second_user() else {
        return;
    };
    let (_watchdog, home) = (watchdog(), home());
    let name = name("two");
    let mut root = Start::new(home.path())
        .named(&name)
        .env("WINDLASS_VES", 2)
        .enter(0);
    let mut other = Start::new(Path::new("/nonexistent"))
        .named(&name)
        .user(NOBODY, &shared.program)
        .enter(1);
    assert_eq!(status_of(&name).visitors, 2);
    // Neither reads the other's area, root included (spec ve-memory section 13, check 9).
    let (of_root, of_other) = (root.ask("open"), other.ask("open"));
    assert!(
        other
            .ask(&format!("read {} {of_root}", root.pid()))
            .contains("EACCES")
    );
    assert!(
        root.ask(&format!("read {} {of_other}", other.pid()))
            .contains("EACCES")
    );
    // One user's processes share, whoever the node belongs to.
    let mut second = Start::new(Path::new("/nonexistent"))
        .named(&name)
        .user(NOBODY, &shared.program)
        .enter(0);
    let text = second.ask(&format!("read {} {of_other}", other.pid()));
    assert_eq!(text, "from the owner");
    // The node is root's: no other user stops it, or breaks it.
    let as_other = |words: [&str; 2]| {
        let mut command = Command::new(&shared.launcher);
        command.arg("node").args(words).uid(NOBODY).gid(NOBODY);
        let refused = command.output().unwrap();
        assert!(!refused.status.success());
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    let text = as_other(["--stop", &name.to_string()]);
    assert!(text.contains("belongs to user 0"), "{text}");
    let text = as_other(["--fault", &format!("{name}:ived=absent")]);
    assert!(text.contains("belongs to user 0"), "{text}");
    let text = as_other(["--fault", &format!("{name}:ived=asleep")]);
    assert!(text.contains("ived=unreachable"), "{text}");
    assert!(root.ask("open").parse::<u64>().is_ok(), "IVED is there");
    [root, other, second].into_iter().for_each(User::end);
    until_gone(&name);
}

/// Spec ve-memory section 1: a VE takes 256 processes. A user who fills one goes on with the next.
#[test]
fn one_user_fills_a_ve_with_processes() {
    let _watchdog = watchdog();
    let (home, name) = (home(), name("full"));
    let start = || Start::new(home.path()).named(&name).go();
    let mut users: Vec<User> = Vec::new();
    for _ in 0..8 {
        let mut more: Vec<User> = (0..32).map(|_| start()).collect();
        more.iter_mut().for_each(|user| user.tell("enter 0"));
        for user in &mut more {
            let answer = user.hear();
            assert!(answer.starts_with("entered None Some(0)"), "{answer}");
        }
        users.append(&mut more);
    }
    let mut late = start();
    let refused = late.ask("enter 0");
    assert!(refused.contains("all the processes"), "{refused}");
    assert!(late.ask("enter 1").starts_with("entered None Some(1)"));
    let node = status_of(&name);
    assert_eq!((node.visitors, node.ves[0].processes), (257, 256));
    users.pop().unwrap().kill();
    until("there is room", || status_of(&name).ves[0].processes == 255);
    let mut next = start();
    assert!(next.ask("enter 0").starts_with("entered None Some(0)"));
    users.extend([late, next]);
    users.into_iter().for_each(User::end);
    until_gone(&name);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn own_names_are_apart_for_each_user() {
    let Some(shared) = Shared::with_a_second_user() else {
        return;
    };
    let (_watchdog, home) = (watchdog(), home());
    let name = name("own-two");
    let start = || Start::new(home.path()).named(&name);
    let (mut root, mut second) = (start().enter(0), start().enter(1));
    let mut other = start()
        .env("WINDLASS_LAUNCHER", shared.launcher.display())
        .user(NOBODY, &shared.program)
        .enter(0);
    assert_eq!(status_of(&name).visitors, 2, "of this user's node");
    let vemva = root.ask("open");
    assert_eq!(
        second.ask(&format!("read {} {vemva}", root.pid())),
        "from the owner"
    );
    assert!(
        other
            .ask(&format!("attach {} {vemva}", root.pid()))
            .contains("ESRCH")
    );
    // Who finds the address of another user's node is turned away without a word.
    let node = status_of(&name).pid;
    assert_eq!(
        other.ask(&format!("knock windlass-node-0.{name}")),
        "0 bytes"
    );
    assert!(alive(node));
    [root, second, other].into_iter().for_each(User::end);
    until_gone(&name);
}

#[test]
fn a_squatter_is_named() {
    let _watchdog = watchdog();
    let home = home();
    let name = name("squat");
    let squatter = name.bind().unwrap().unwrap();
    let silent = std::thread::spawn(move || {
        let (mut socket, _) = squatter.accept().unwrap();
        socket.write_all(&[0xff; 64]).unwrap();
        squatter.accept().map(drop).unwrap();
    });
    let mut user = Start::new(home.path()).named(&name).go();
    let text = user.ask("enter 0");
    let own = std::process::id().to_string();
    assert!(
        text.contains("choose another") && text.contains(&own),
        "{text}"
    );
    silent.join().unwrap();
    // Once the name is free again, the same program may have it.
    user.enter(0);
    user.end();
    until_gone(&name);
}

#[test]
fn a_dead_service_is_followed_by_the_next() {
    let _watchdog = watchdog();
    let home = home();
    let name = name("dead");
    let mut user = Start::new(home.path()).named(&name).enter(0);
    let first = status_of(&name).pid;
    let pid = rustix::process::Pid::from_raw(first).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("it is dead", || !alive(first));
    assert!(user.ask("open").contains("gone"), "its user is told");
    user.enter(0);
    assert!(user.ask("open").parse::<u64>().is_ok());
    user.end();
    until_gone(&name);
}

#[test]
fn what_is_missing_is_named() {
    let _watchdog = watchdog();
    let home = home();
    let cases: &[(&'static str, &str, &str)] = &[
        ("WINDLASS_LAUNCHER", "/nonexistent", "WINDLASS_LAUNCHER"),
        ("WINDLASS_LAUNCHER", "/bin/true", "of this version"),
        ("WINDLASS_LAUNCHER", "/bin/false", "of this version"),
        ("WINDLASS_VES", "9", "0 to 8"),
        ("WINDLASS_VE_PROFILE", "ve2", "or ve3"),
        ("WINDLASS_NODE_NAME", "A name", "a-z"),
        ("WINDLASS_RANK", "1", "windlass run"),
        ("WINDLASS_RANK", "x", "a rank"),
        (
            "WINDLASS_VES",
            "1",
            "the node has 1 VE, counted from 0; start the program with WINDLASS_VES=2",
        ),
    ];
    for (variable, value, remedy) in cases {
        let mut user = Start::new(home.path()).env(variable, value).go();
        let text = user.ask("enter 1");
        assert!(text.contains(remedy), "{variable}={value}: {text}");
        user.end();
    }
    let name = name("few");
    let mut user = Start::new(home.path())
        .named(&name)
        .env("WINDLASS_VES", 1)
        .go();
    for (order, remedy) in [
        ("enter 1", format!("`windlass node --name {name} --ves 2`")),
        ("enter 8", "give VE_NODE_NUMBER 0 to 7".into()),
    ] {
        let text = user.ask(order);
        assert!(text.contains(&remedy), "{order}: {text}");
    }
    user.end();
    until_gone(&name);
    until("the node that refused ends", || {
        std::fs::read_dir(home.path()).unwrap().count() == 0
    });
}

#[test]
fn stopping_a_ve_kills_whom_it_concerns() {
    let _watchdog = watchdog();
    let home = home();
    let name = name("stop");
    let start = || {
        Start::new(home.path())
            .named(&name)
            .env("WINDLASS_VES", 3)
            .go()
    };
    let (mut owner, mut attacher, mut other) = (start(), start(), start());
    for (user, ve) in [(&mut owner, 0), (&mut attacher, 1), (&mut other, 2)] {
        assert!(user.ask(&format!("enter {ve}")).starts_with("entered"));
    }
    let vemva = owner.ask("open");
    assert_eq!(
        attacher.ask(&format!("read {} {vemva}", owner.pid())),
        "from the owner"
    );
    let stop = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["node", "--stop-ve", &format!("{name}:0")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&stop.stdout).into_owned();
    assert!(
        stop.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&stop.stderr)
    );
    for user in [&mut owner, &mut attacher] {
        use std::os::unix::process::ExitStatusExt;
        assert!(text.contains(&user.pid().to_string()), "{text}");
        assert_eq!(user.child.wait().unwrap().signal(), Some(9));
    }
    until("both have left", || status_of(&name).visitors == 1);
    let node = status_of(&name);
    assert!(!node.ves[0].running && node.ves[1].running);
    let mut late = start();
    assert!(late.ask("enter 0").contains("stopped"));
    assert!(
        other.ask("open").parse::<u64>().is_ok(),
        "who is not concerned goes on"
    );
    let stop = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["node", "--stop", &name.to_string()])
        .output()
        .unwrap();
    assert!(stop.status.success());
    assert!(!other.child.wait().unwrap().success());
    until_gone(&name);
}

#[test]
fn a_node_kept_by_hand_stays_until_it_is_told() {
    let _watchdog = watchdog();
    let home = home();
    let name = name("kept");
    let keeper = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args([
            "node",
            "--name",
            &name.to_string(),
            "--ves",
            "1",
            "--profile",
            "ve3",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut keeper = Kept(keeper);
    until("the node is there", || {
        status(&Address::Named(name.clone())).is_some()
    });
    for _ in 0..2 {
        Start::new(home.path()).named(&name).enter(0).end();
    }
    assert_eq!(status_of(&name).profile, "ve3");
    let list = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        let output = command
            .args(args)
            .env("XDG_RUNTIME_DIR", home.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = list(&["node", "--list"]);
    assert!(text.contains(&format!("{name}: user ")), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&list(&["node", "--list", "--json"])).unwrap();
    let ours = json
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["kind"]["named"] == name.to_string());
    assert_eq!(
        ours.unwrap()["ves"][0]["free_dmaatb_directories"],
        240,
        "{json}"
    );
    let again = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["node", "--name", &name.to_string()])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("there already"));
    let pid = rustix::process::Pid::from_child(&keeper.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(keeper.0.wait().unwrap().success());
    until_gone(&name);
}

#[test]
fn a_starter_that_dies_leaves_no_service() {
    let _watchdog = watchdog();
    let home = home();
    // A service whose starter never connects ends by itself; here it never even reads the line.
    let mut start = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["node", "--background", "--private"])
        .env("XDG_RUNTIME_DIR", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(start.wait().unwrap().success());
    std::thread::sleep(Duration::from_millis(100));
    until("nothing is left", || {
        std::fs::read_dir(home.path()).unwrap().count() == 0
    });
}

/// A shell that gives orders to one program after the other.
fn orders(programs: &[&str]) -> windlass_launcher::Job {
    let own = std::env::current_exe().unwrap();
    let one = |orders: &&str| {
        let own = own.display();
        format!("printf '{orders}' | {own} role --exact --nocapture --test-threads=1")
    };
    let script = programs.iter().map(one).collect::<Vec<_>>().join(" && ");
    support::shell(&script)
        .env(support::user::ROLE, "1")
        .timeout(support::PATIENCE)
}

#[test]
fn under_run_a_program_is_a_rank_and_what_it_starts_a_visitor() {
    let _watchdog = watchdog();
    let job = orders(&["enter 1\\nopen\\n", "enter 1\\nopen\\n", "visit vh\\n"]);
    let outcome = job.place("ve0:1,ve1:1,vh:1").tag(true).run().unwrap();
    let text = outcome.stdout_text();
    assert_eq!(outcome.exit_code, 0, "{}\n{text}", outcome.message);
    // A rank lives on its place, whatever it asks for; a visitor where it asks.
    for (rank, place) in [(0, "Some(0)"), (1, "Some(1)"), (2, "None")] {
        let of_rank = format!("[{rank}] ");
        let said = |what: &str| {
            let entered = format!("@entered {what}");
            let mut lines = text.lines().filter(|line| line.starts_with(&of_rank));
            lines.any(|line| line.contains(&entered))
        };
        assert!(said(&format!("Some({rank}) {place} ")), "{text}");
        assert!(said("None Some(1) ") && said("None None "), "{text}");
    }
    assert_eq!(
        text.matches("ECANCELED").count(),
        1,
        "the host has no VE memory: {text}"
    );
    support::assert_gone(&outcome);
}

#[test]
fn a_rank_that_does_not_say_goodbye_has_failed() {
    let _watchdog = watchdog();
    // It becomes another program, which says nothing, and whose exit status is 0.
    let outcome = orders(&["enter 0\\nbecome\\n"]).ves(1).run().unwrap();
    assert_eq!(outcome.exit_code, 1, "{}", outcome.stdout_text());
}

#[test]
fn another_program_in_the_same_process_enters_anew() {
    let _watchdog = watchdog();
    let home = home();
    let name = name("exec");
    let start = || Start::new(home.path()).named(&name);
    let (mut other, mut user) = (start().enter(1), start().go());
    for _ in 0..10 {
        user.enter(0);
        let vemva = user.ask("open");
        let area = format!("{} {vemva}", user.pid());
        assert_eq!(other.ask(&format!("read {area}")), "from the owner");
        assert_eq!(user.ask("exec"), "again");
        // What was before the exec is gone (spec ve-memory section 6), the area too.
        user.enter(0);
        assert!(other.ask(&format!("attach {area}")).contains("EINVAL"));
        assert_eq!(other.ask("peek"), "from the owner");
        assert_eq!(status_of(&name).ves[0].processes, 1);
        assert_eq!(user.ask("exec"), "again");
    }
    user.end();
    other.end();
    until_gone(&name);
}

#[test]
fn a_stop_spares_whom_the_node_may_not_kill_and_leaves_them_nothing() {
    let Some(shared) = Shared::with_a_second_user() else {
        return;
    };
    let (_watchdog, home) = (watchdog(), home());
    let name = name("spare");
    // The node is nobody's: its first user.
    let mut first = Start::new(Path::new("/nonexistent"))
        .named(&name)
        .env("WINDLASS_LAUNCHER", shared.launcher.display())
        .user(NOBODY, &shared.program)
        .enter(0);
    assert_eq!(status_of(&name).uid, NOBODY);
    let mut root = Start::new(home.path()).named(&name).enter(1);
    assert!(
        root.ask("open").parse::<u64>().is_ok(),
        "memory of a node of another user"
    );
    let stop = Command::new(&shared.launcher)
        .args(["node", "--stop", &name.to_string()])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&stop.stdout).into_owned();
    assert!(stop.status.success(), "{text}");
    let line = |start: &str| {
        text.lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_default()
    };
    assert!(line("killed").contains(&first.pid().to_string()), "{text}");
    assert!(
        line("not killed").contains(&root.pid().to_string()),
        "{text}"
    );
    assert!(!first.child.wait().unwrap().success());
    assert!(root.ask("open").contains("gone"));
    root.end();
    until_gone(&name);
}
