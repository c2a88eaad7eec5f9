//! The death matrix of the VE node: the owner of an area, its attacher, and the node's service, killed at any instant of
//! open, attach, DMA, detach and close. What the dead held returns; who lives goes on; what is not ours is not touched.

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::user::{Kept, PAIR, ROLE, Start, User, home, name, status, status_of, until_gone};
use support::{alive, until, watchdog};
use windlass_node::{Address, NodeName, VeStatus};

/// Rounds of each test.
const ROUNDS: u32 = 50;
/// What owner and attacher do over and over while one of the three is killed.
const PHASES: [(&str, Option<&str>, Option<&str>); 5] = [
    ("open", Some("open"), Some("register")),
    ("attach", None, Some("attach")),
    ("DMA", None, Some("dma")),
    ("detach", None, Some("detach")),
    ("close", Some("close"), Some("attach")),
];

/// The program of these tests; nothing when run as a test of its own.
#[test]
fn role() {
    support::user::play();
}

/// A node kept by a process that the test can kill.
fn keep(name: &NodeName) -> Kept {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(["node", "--ves", "2", "--name", &name.to_string()]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let kept = Kept(command.spawn().unwrap());
    let there = Address::Named(name.clone());
    until("the node is there", || status(&there).is_some());
    kept
}

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Owner,
    Attacher,
    Service,
}

/// An owner on VE 0 with an area, an attacher on VE 1 that has it, and what they are doing.
struct Pair {
    owner: User,
    attacher: User,
    area: String,
}

impl Pair {
    fn start(name: &NodeName, home: &std::path::Path, phase: usize) -> Self {
        let start = || Start::new(home).named(name).go();
        let (mut owner, mut attacher) = (start(), start());
        assert!(owner.ask("enter 0").starts_with("entered"));
        assert!(attacher.ask("enter 1").starts_with("entered"));
        let area = format!("{} {}", owner.pid(), owner.ask("open"));
        assert_eq!(attacher.ask(&format!("read {area}")), "from the owner");
        let (_, owners, attachers) = PHASES[phase];
        for (user, what) in [(&mut owner, owners), (&mut attacher, attachers)] {
            if let Some(what) = what {
                assert_eq!(user.ask(&format!("loop {what} {area}")), "looping");
            }
        }
        Self {
            owner,
            attacher,
            area,
        }
    }
}

/// The owner is dead: the attacher keeps what it has and gets nothing new (spec ve-memory section 6).
fn after_owner(attacher: &mut User, area: &str, what: &str) {
    assert_eq!(attacher.ask("stop"), "stopped", "{what}");
    assert_eq!(attacher.ask("peek"), "from the owner", "{what}");
    until("the owner has left", || {
        attacher.ask(&format!("attach {area}")).contains("ESRCH")
    });
    assert_eq!(attacher.ask("peek"), "from the owner", "{what}");
}

/// The attacher is dead: the owner's area is as it was.
fn after_attacher(owner: &mut User, looping: bool, what: &str) {
    if looping {
        assert_eq!(owner.ask("stop"), "stopped", "{what}");
    }
    assert!(owner.ask("open").parse::<u64>().is_ok(), "{what}");
}

/// The service is dead: both are told, and what the attacher has mapped stays.
fn after_service(pair: &mut Pair, looping: bool, what: &str) {
    if looping {
        assert_eq!(pair.owner.ask("stop"), "stopped", "{what}");
    }
    assert_eq!(pair.attacher.ask("stop"), "stopped", "{what}");
    assert!(pair.owner.ask("open").contains("gone"), "{what}");
    assert_eq!(pair.attacher.ask("peek"), "from the owner", "{what}");
}

fn matrix(victim: Victim, which: &str) {
    let _watchdog = watchdog();
    let (home, name) = (home(), name(which));
    // A segment of another program, as far as the node is concerned.
    let (foreign, _bytes) = windlass_mem::sysv::create(4096, false).unwrap();
    let before = windlass_mem::sysv::stat(foreign).unwrap();
    let mut service = keep(&name);
    let all: Vec<VeStatus> = status_of(&name).ves;
    let mut started = Vec::new();
    let mut instant = 12_345u32;
    for round in 0..ROUNDS {
        let phase = round as usize % PHASES.len();
        let (called, owners, _) = PHASES[phase];
        let what = format!("{which} killed during {called}, round {round}");
        let mut pair = Pair::start(&name, home.path(), phase);
        started.extend([pair.owner.pid(), pair.attacher.pid(), service.0.id() as i32]);
        instant = instant.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(Duration::from_micros(u64::from(instant >> 16) % 3_000));
        match victim {
            Victim::Owner => {
                pair.owner.kill();
                after_owner(&mut pair.attacher, &pair.area, &what);
                pair.attacher.end();
            }
            Victim::Attacher => {
                pair.attacher.kill();
                after_attacher(&mut pair.owner, owners.is_some(), &what);
                pair.owner.end();
            }
            Victim::Service => {
                service.0.kill().unwrap();
                service.0.wait().unwrap();
                after_service(&mut pair, owners.is_some(), &what);
                until_gone(&name);
                service = keep(&name);
                pair.owner.end();
                pair.attacher.end();
            }
        }
        until(&format!("all is free again, {what}"), || {
            let now = status_of(&name);
            now.visitors == 0 && now.ves == all
        });
    }
    drop(service);
    until_gone(&name);
    assert_eq!(windlass_mem::sysv::stat(foreign).unwrap(), before);
    let segments = windlass_mem::sysv::list().unwrap();
    let ours = segments
        .iter()
        .filter(|row| started.contains(&row.cpid))
        .count();
    assert_eq!(ours, 0, "segments are left");
    assert!(!started.iter().any(|&pid| alive(pid)), "processes are left");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_killed_owner() {
    matrix(Victim::Owner, "owner");
}

#[test]
fn a_killed_attacher() {
    matrix(Victim::Attacher, "attacher");
}

#[test]
fn a_killed_service() {
    matrix(Victim::Service, "service");
}

#[test]
fn a_killed_launcher() {
    let _watchdog = watchdog();
    let mut instant = 54_321u32;
    for round in 0..ROUNDS {
        let (home, folder) = (home(), tempfile::tempdir().unwrap());
        let (called, owners, attachers) = PHASES[round as usize % PHASES.len()];
        let (owners, attachers) = (owners.unwrap_or("nothing"), attachers.unwrap_or("nothing"));
        let role = format!("{PAIR}{} {owners} {attachers}", folder.path().display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command
            .args(["run", "--place", "ve0:1,ve1:1"])
            .arg(std::env::current_exe().unwrap());
        command.args(["role", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env("XDG_RUNTIME_DIR", home.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut launcher = Kept(command.spawn().unwrap());
        let attached = folder.path().join("attached");
        until("the ranks are at work", || attached.exists());
        let node = Address::all_below(home.path())
            .pop()
            .expect("the job's node");
        let node = status(&node).expect("it answers");
        assert_eq!((node.ranks, node.pid), (2, launcher.0.id() as i32));
        let area = std::fs::read_to_string(folder.path().join("area")).unwrap();
        let owner: i32 = area.split(' ').next().unwrap().parse().unwrap();
        instant = instant.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(Duration::from_micros(u64::from(instant >> 16) % 3_000));
        launcher.0.kill().unwrap();
        launcher.0.wait().unwrap();
        let what = format!("launcher killed during {called}, round {round}");
        until(&what, || !alive(owner));
        until(&what, || {
            std::fs::read_dir(home.path()).unwrap().count() == 0
        });
        let segments = windlass_mem::sysv::list().unwrap();
        assert!(!segments.iter().any(|row| row.cpid == owner), "{what}");
    }
}
