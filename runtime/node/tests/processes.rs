//! Real processes: ranks and services that are killed, stopped, or belong to another user.
//!
//! The test binary starts itself; `role` is the other side.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use windlass_node::control::Presence;
use windlass_node::{
    Client, Error, Event, JobId, Link, Member, NodeConfig, Place, Service, sweep, wire,
};
use windlass_ve::Profile;
use windlass_wire::{Secret, frame};

const PATIENCE: Duration = Duration::from_secs(120);
const ROLE: &str = "NODE_TEST_ROLE";
const AT: &str = "NODE_TEST_AT";

fn start(base: &Path, job: JobId, ranks: u32) -> (Service, Receiver<Event>) {
    let (sender, events) = channel();
    let config = NodeConfig {
        job,
        node: 0,
        nodes: 1,
        members: (0..ranks)
            .map(|rank| Member {
                rank,
                node: 0,
                place: Place::Vh,
            })
            .collect(),
        ves: 0,
        profile: Profile::VE1,
        secret: Secret::random(),
        link: Link::Alone,
        base: base.to_owned(),
    };
    (Service::start(config, sender).unwrap(), events)
}

/// A child process that plays `role`; killed and reaped on drop.
struct Other {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Other {
    fn start(role: &str, at: &Path) -> Self {
        Self::start_as(role, at, &std::env::current_exe().unwrap(), None)
    }

    fn start_in_namespace(role: &str, at: &Path, program: &Path) -> Self {
        let mut command = Command::new("unshare");
        // Killed with `unshare` itself: the namespace ends with its first process.
        command.args(["-pf", "--kill-child"]).arg(program);
        Self::play(command, role, at)
    }

    fn start_as(role: &str, at: &Path, program: &Path, uid: Option<u32>) -> Self {
        let mut command = Command::new(program);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        Self::play(command, role, at)
    }

    fn play(mut command: Command, role: &str, at: &Path) -> Self {
        command
            .args(["role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(AT, at)
            .env("RUST_BACKTRACE", "0")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// What it says next, after the test harness's own lines.
    fn says(&mut self) -> String {
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

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side of the tests below; nothing when run as a test of its own.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let at = PathBuf::from(std::env::var_os(AT).unwrap());
    let say = |text: &str| {
        println!("@{text}");
        std::io::stdout().flush().unwrap();
    };
    // Ends with its parent, which holds the other end.
    let wait = || std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    match role.as_str() {
        "rank" => {
            let (_client, _) = Client::join(&at, 0).unwrap();
            say("joined");
            wait();
        }
        "rank that exits" => {
            let (client, _) = Client::join(&at, 0).unwrap();
            std::mem::forget(client);
            std::process::exit(0);
        }
        "rank with a child" => {
            let mut socket = UnixStream::connect(&at).unwrap();
            let greeting = wire::encode_greeting(&wire::Greeting::Rank(0));
            socket.write_all(&frame(&greeting)).unwrap();
            windlass_wire::read_frame(&mut socket, wire::MAX_MESSAGE).unwrap();
            let kept = OwnedFd::from(socket.try_clone().unwrap());
            #[expect(
                clippy::zombie_processes,
                reason = "it outlives this process; the test ends it"
            )]
            let child = Command::new("sleep").arg("60").stdin(kept).spawn().unwrap();
            say(&child.id().to_string());
            wait();
        }
        "service" => {
            let (service, _events) = start(&at, JobId([9; 16]), 1);
            say(service.socket_path().to_str().unwrap());
            wait();
        }
        "stranger" => match Client::join(&at, 0) {
            Ok(_) => say("joined"),
            Err(error) => say(&error.to_string()),
        },
        // Does not look whom it talks to.
        "blind stranger" => {
            let mut socket = UnixStream::connect(&at).unwrap();
            let greeting = wire::encode_greeting(&wire::Greeting::Rank(0));
            // The service may have closed already.
            let _ = socket.write_all(&frame(&greeting));
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            say(&format!("{} bytes", answer.len()));
        }
        other => panic!("unknown role {other}"),
    }
}

fn base() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_killed_rank_is_lost() {
    let base = base();
    for role in ["rank", "rank with a child"] {
        let (service, events) = start(base.path(), JobId::random().unwrap(), 2);
        let (survivor, _) = Client::join(service.socket_path(), 1).unwrap();
        assert!(matches!(
            events.recv_timeout(PATIENCE).unwrap(),
            Event::Joined { rank: 1, .. }
        ));
        let mut rank = Other::start(role, service.socket_path());
        let said = rank.says();
        let pid = rank.pid();
        assert_eq!(
            events.recv_timeout(PATIENCE).unwrap(),
            Event::Joined { rank: 0, pid }
        );
        assert_eq!(service.control().process(0).unwrap().0, pid);
        rank.signal(Signal::KILL);
        // Seen before it is reaped, and although its child holds the socket.
        assert_eq!(
            events.recv_timeout(PATIENCE).unwrap(),
            Event::Lost { rank: 0 }
        );
        assert_eq!(service.control().presence(0), Presence::Lost);
        survivor.goodbye().unwrap();
        if let Some(child) = said.parse().ok().and_then(Pid::from_raw) {
            kill_process(child, Signal::KILL).unwrap();
        }
    }
}

#[test]
fn a_rank_that_exits_with_0_is_lost_too() {
    let base = base();
    let (service, events) = start(base.path(), JobId::random().unwrap(), 1);
    let rank = Other::start("rank that exits", service.socket_path());
    let pid = rank.pid();
    assert_eq!(
        events.recv_timeout(PATIENCE).unwrap(),
        Event::Joined { rank: 0, pid }
    );
    assert_eq!(
        events.recv_timeout(PATIENCE).unwrap(),
        Event::Lost { rank: 0 }
    );
}

#[test]
fn a_stopped_rank_harms_nobody_and_is_not_lost() {
    let base = base();
    let (service, events) = start(base.path(), JobId::random().unwrap(), 2);
    let mut rank = Other::start("rank", service.socket_path());
    assert_eq!(rank.says(), "joined");
    rank.signal(Signal::STOP);
    let (other, _) = Client::join(service.socket_path(), 1).unwrap();
    let file = tempfile::tempfile().unwrap();
    for _ in 0..100 {
        let token = other.deposit(&file).unwrap();
        other.revoke(token).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let seen: Vec<Event> = events.try_iter().collect();
    assert!(
        seen.iter()
            .all(|event| matches!(event, Event::Joined { .. })),
        "{seen:?}"
    );
    // Ends although a client is stopped.
    drop(service);
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn a_killed_service_is_noticed_and_swept() {
    let base = base();
    let job = JobId([9; 16]);
    let mut dead = Other::start("service", base.path());
    let path = PathBuf::from(dead.says());
    let (client, _) = Client::join(&path, 0).unwrap();
    assert!(sweep(base.path()).unwrap().is_empty(), "it lives");
    dead.signal(Signal::KILL);
    dead.child.wait().unwrap();
    match client.gather_collect(0) {
        Err(Error::Gone) => {}
        other => panic!("{other:?}"),
    }
    // What it left is in the way of nobody, not even of the same job.
    let (service, _events) = start(base.path(), job, 1);
    assert_ne!(service.socket_path(), path);
    assert!(path.exists());
    assert_eq!(
        sweep(base.path()).unwrap(),
        [path.parent().unwrap().to_owned()]
    );
    assert!(service.socket_path().exists());
    drop(service);
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn another_user_gets_nowhere() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can become somebody else
    }
    let base = base();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    open(base.path(), 0o755);
    let program = base.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program, 0o755);
    let (service, events) = start(base.path(), JobId::random().unwrap(), 1);
    let play = |role| Other::start_as(role, service.socket_path(), &program, Some(65_534)).says();
    let stranger = || play("stranger");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = service.socket_path().parent().unwrap();
    assert_eq!((mode(dir), mode(service.socket_path())), (0o700, 0o600));
    assert!(stranger().contains("Permission denied"), "the directory");
    open(dir, 0o755);
    assert!(stranger().contains("Permission denied"), "the socket");
    // Both gates open: the credentials remain, and both ends look at them.
    open(service.socket_path(), 0o666);
    let said = stranger();
    assert!(said.contains("belongs to user"), "{said}");
    assert_eq!(play("blind stranger"), "0 bytes");
    assert!(events.try_recv().is_err());
    let (client, _) = Client::join(service.socket_path(), 0).unwrap();
    client.goodbye().unwrap();
}

#[test]
fn another_pid_namespace_is_refused_by_name() {
    let inside = Command::new("unshare").args(["-pf", "true"]).status();
    if !inside.is_ok_and(|status| status.success()) {
        return; // no such command, or not allowed
    }
    let base = base();
    let (service, events) = start(base.path(), JobId::random().unwrap(), 1);
    let program = std::env::current_exe().unwrap();
    let said = |at: &Path| Other::start_in_namespace("stranger", at, &program).says();
    assert!(said(service.socket_path()).contains("PID namespace"));
    // The other way round: the service inside, the rank outside.
    let mut inner = Other::start_in_namespace("service", base.path(), &program);
    let text = Client::join(Path::new(&inner.says()), 0)
        .unwrap_err()
        .to_string();
    assert!(text.contains("PID namespace"), "{text}");
    assert!(events.try_recv().is_err());
}
