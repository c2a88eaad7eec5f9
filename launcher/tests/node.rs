//! The nodes of programs that were started without the launcher: private ones, named ones, and their ends.
//!
//! The test binary starts itself; `role` is a program that uses the node and does what it is told line by line.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use support::{alive, until, watchdog};
use windlass_node::{Address, Entered, NodeKind, NodeName, Status, Watcher, enter, visit};
use windlass_ve::{Mode, PageSize, Process, Vemva};

const ROLE: &str = "NODE_USER";
/// Another user, where the tests run as root.
const NOBODY: u32 = 65_534;
const SIZE: u64 = 64 << 20;

/// A program on a node; killed and reaped on drop.
struct User {
    child: Child,
    orders: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

/// A command that is still running; ended on drop.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a program is started.
struct Start<'a> {
    home: &'a Path,
    env: Vec<(&'static str, String)>,
    program: Option<PathBuf>,
    uid: Option<u32>,
}

impl<'a> Start<'a> {
    fn new(home: &'a Path) -> Self {
        Self {
            home,
            env: Vec::new(),
            program: None,
            uid: None,
        }
    }

    fn env(mut self, name: &'static str, value: impl ToString) -> Self {
        self.env.push((name, value.to_string()));
        self
    }

    fn named(self, name: &NodeName) -> Self {
        self.env("WINDLASS_NODE_NAME", name)
    }

    /// As another user, who must be able to reach the program.
    fn user(mut self, uid: u32, program: &Path) -> Self {
        self.uid = Some(uid);
        self.program = Some(program.to_owned());
        self
    }

    fn go(self) -> User {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(self.program.unwrap_or(own));
        command
            .args(["role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .env("RUST_BACKTRACE", "0")
            .env("XDG_RUNTIME_DIR", self.home)
            .env("WINDLASS_LAUNCHER", env!("CARGO_BIN_EXE_windlass"))
            .envs(self.env)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().unwrap();
        User {
            orders: child.stdin.take(),
            lines: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }
}

impl User {
    /// Gives an order, waits for the answer.
    fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.hear()
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// The next answer, after the test harness's own lines.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, text)) = line.split_once('@') {
                return text.trim().to_owned();
            }
        }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Lets it end by itself.
    fn end(mut self) {
        self.orders = None;
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program holds.
#[derive(Default)]
struct Held {
    entered: Option<Entered>,
    process: Option<Process>,
    kept: Vec<u64>,
}

/// The program; nothing when run as a test of its own.
#[test]
fn role() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mut held = Held::default();
    for order in std::io::stdin().lock().lines() {
        let order = order.unwrap();
        let words: Vec<&str> = order.split(' ').collect();
        let answer = held.obey(&words).unwrap_or_else(|error| error);
        println!("@{answer}");
        std::io::stdout().flush().unwrap();
    }
    if let Some(entered) = &held.entered {
        entered.goodbye();
    }
    std::process::exit(0);
}

impl Held {
    fn obey(&mut self, words: &[&str]) -> Result<String, String> {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let said = |error: &dyn std::error::Error| error.to_string();
        match words[0] {
            "enter" | "visit" => {
                let ve = (words[1] != "vh").then(|| number(1) as u32);
                let entered = if words[0] == "enter" {
                    enter(ve)
                } else {
                    visit(ve)
                };
                let entered = entered.map_err(|e| said(&e))?;
                let process = Process::join(Arc::clone(&entered.control)).map_err(|e| said(&e))?;
                let (rank, ve) = (entered.rank, process.ve());
                let socket = entered.variable().map(|(_, path)| path).unwrap_or_default();
                self.entered = Some(entered);
                self.process = Some(process);
                Ok(format!("entered {rank:?} {ve:?} {}", socket.display()))
            }
            "open" => {
                let process = self.process();
                let memory = process
                    .alloc(SIZE as usize, PageSize::M64)
                    .map_err(|e| said(&e))?;
                process
                    .veshm_open(memory.vemva, SIZE, 0, Mode::PCI)
                    .map_err(|e| said(&e))?;
                memory.bytes.write(0, b"from the owner").unwrap();
                Ok(memory.vemva.raw().to_string())
            }
            "read" => {
                let process = self.process();
                let vemva = Vemva::new(number(2));
                let remote = process.attach_vehva(number(1) as i32, vemva, SIZE, Mode::PCI);
                let remote = remote.map_err(|e| e.errno().to_string())?;
                let own = process
                    .alloc(SIZE as usize, PageSize::M64)
                    .map_err(|e| said(&e))?;
                let local = process.register(own.vemva, SIZE).map_err(|e| said(&e))?;
                let fault = process.dma().post_wait(local, remote, 16);
                assert!(fault.is_none(), "{fault:?}");
                let mut text = [0; 14];
                own.bytes.read(0, &mut text).unwrap();
                self.kept.push(remote.raw());
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            "pgmode" => {
                let gone =
                    self.process()
                        .get_pgmode(windlass_ve::PageMode::PCI, number(1) as i32, 0);
                Ok(gone.err().map_or("0".into(), |e| e.to_string()))
            }
            other => Err(format!("no order {other}")),
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A name that no other test has.
fn name(what: &str) -> NodeName {
    format!("{what}-{}", std::process::id()).parse().unwrap()
}

fn status(address: &Address) -> Option<Status> {
    Watcher::look(address)
        .and_then(|watcher| watcher.status())
        .ok()
}

fn status_of(name: &NodeName) -> Status {
    status(&Address::Named(name.clone())).expect("the node is there")
}

fn until_gone(name: &NodeName) {
    until("the name is free", || {
        !Address::all().contains(&Address::Named(name.clone()))
    });
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
        status(&Address::Path(socket_in(&child.ask("pgmode 0")))).is_none()
            && child.ask(&format!("read {pid} {vemva}")).contains("ESRCH")
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

/// The test binary where every user can start it.
fn reachable(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.join("user");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    program
}

#[test]
fn two_users_share_a_named_node_and_not_their_areas() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: a second user cannot be had here");
        return;
    }
    let _watchdog = watchdog();
    let (home, shared) = (home(), tempfile::tempdir_in("/tmp").unwrap());
    let program = reachable(shared.path());
    let name = name("two");
    let mut root = Start::new(home.path())
        .named(&name)
        .env("WINDLASS_VES", 2)
        .go();
    assert!(root.ask("enter 0").starts_with("entered"));
    let mut other = Start::new(Path::new("/nonexistent"))
        .named(&name)
        .user(NOBODY, &program)
        .go();
    assert!(other.ask("enter 1").starts_with("entered"));
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
        .user(NOBODY, &program)
        .go();
    assert!(second.ask("enter 0").starts_with("entered"));
    let text = second.ask(&format!("read {} {of_other}", other.pid()));
    assert_eq!(text, "from the owner");
    // The node is root's: no other user stops it.
    let mut stop = Command::new(env!("CARGO_BIN_EXE_windlass"));
    let copy = shared.path().join("windlass");
    std::fs::copy(stop.get_program(), &copy).unwrap();
    stop = Command::new(copy);
    stop.args(["node", "--stop", &name.to_string()])
        .uid(NOBODY)
        .gid(NOBODY);
    let refused = stop.output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("belongs to user 0"), "{text}");
    [root, other, second].into_iter().for_each(User::end);
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
    assert!(user.ask("enter 0").starts_with("entered"));
    user.end();
    until_gone(&name);
}

#[test]
fn a_dead_service_is_followed_by_the_next() {
    let _watchdog = watchdog();
    let home = home();
    let name = name("dead");
    let mut user = Start::new(home.path()).named(&name).go();
    assert!(user.ask("enter 0").starts_with("entered"));
    let first = status_of(&name).pid;
    let pid = rustix::process::Pid::from_raw(first).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("it is dead", || !alive(first));
    assert!(user.ask("open").contains("gone"), "its user is told");
    assert!(user.ask("enter 0").starts_with("entered"));
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
        ("WINDLASS_VES", "1", "counted from 0"),
    ];
    for (variable, value, remedy) in cases {
        let mut user = Start::new(home.path()).env(variable, value).go();
        let text = user.ask("enter 1");
        assert!(text.contains(remedy), "{variable}={value}: {text}");
        user.end();
    }
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
        let mut user = Start::new(home.path()).named(&name).go();
        assert!(user.ask("enter 0").starts_with("entered"));
        user.end();
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
