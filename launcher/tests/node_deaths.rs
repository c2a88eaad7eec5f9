//! The death matrix of the VE node: the owner of an area, its attachers on both VEs, and the node's service, killed at any instant of
//! open, attach, DMA, detach and close. What the dead held returns; who lives goes on; what is not ours is not touched.

mod support;

use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::user::{Kept, PAIR, ROLE, Start, User, home, name, status, status_of, until_gone};
use support::{alive, until, watchdog};
use windlass_mem::{SharedBytes, sysv};
use windlass_node::{Address, NodeName, VeStatus};

/// Rounds of each phase, as far as the time goes on a busy machine; and of all phases together in any case.
const ROUNDS_OF_PHASE: u32 = 50;
const ROUNDS: u32 = 50;
/// Less than the watchdog's.
const TIME: Duration = Duration::from_secs(40);
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

/// A segment of another program, as far as the node is concerned.
struct Foreign {
    id: i32,
    bytes: SharedBytes,
    before: sysv::Stat,
}

impl Foreign {
    fn new() -> Self {
        let (id, bytes) = sysv::create(4096, false).unwrap();
        bytes.fill(0, 4096, 0x5A).unwrap();
        let before = sysv::stat(id).unwrap();
        Self { id, bytes, before }
    }

    fn check(&self, what: &str) {
        assert_eq!(sysv::stat(self.id).unwrap(), self.before, "{what}");
        let mut seen = [0; 4096];
        self.bytes.read(0, &mut seen).unwrap();
        assert_eq!(seen, [0x5A; 4096], "{what}");
    }
}

/// Huge pages of the machine while one of these is there, where this user may have them made. Without, no segments are held.
struct HugePages;

impl HugePages {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";
    const COUNT: u64 = 8;

    /// How many there are of these, and the setting before the first.
    fn held() -> MutexGuard<'static, (usize, String)> {
        static HELD: Mutex<(usize, String)> = Mutex::new((0, String::new()));
        HELD.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask() -> Self {
        let mut held = Self::held();
        if held.0 == 0 {
            held.1 = std::fs::read_to_string(Self::FILE).unwrap_or_default();
            if held.1.trim().parse::<u64>().is_ok_and(|n| n < Self::COUNT) {
                let _ = std::fs::write(Self::FILE, Self::COUNT.to_string());
            }
        }
        held.0 += 1;
        Self
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let mut held = Self::held();
        held.0 -= 1;
        if held.0 == 0 && std::fs::read_to_string(Self::FILE).is_ok_and(|now| now != held.1) {
            let _ = std::fs::write(Self::FILE, held.1.trim());
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Owner,
    Attacher,
    Neighbour,
    Service,
}

/// An owner on VE 0 with an area, an attacher on VE 1 that has it in VEHVA and holds a host segment where huge pages can be had, a
/// neighbour on VE 0 that has it in VEMVA, and what they are doing.
struct Trio {
    owner: User,
    attacher: User,
    neighbour: User,
    area: String,
    segment: Option<i32>,
}

impl Trio {
    fn start(name: &NodeName, home: &std::path::Path, phase: usize) -> Self {
        let start = |ve| Start::new(home).named(name).enter(ve);
        let (mut owner, mut attacher, mut neighbour) = (start(0), start(1), start(0));
        let vemva = owner.ask("open");
        assert_eq!(owner.ask(&format!("none {vemva}")), "opened");
        let area = format!("{} {vemva}", owner.pid());
        assert_eq!(attacher.ask(&format!("read {area}")), "from the owner");
        assert_eq!(neighbour.ask(&format!("near {area}")), "from the owner");
        let segment = attacher.ask("segment").parse().ok();
        assert_eq!(neighbour.ask(&format!("loop near {area}")), "looping");
        let (_, owners, attachers) = PHASES[phase];
        for (user, what) in [(&mut owner, owners), (&mut attacher, attachers)] {
            if let Some(what) = what {
                assert_eq!(user.ask(&format!("loop {what} {area}")), "looping");
            }
        }
        Self {
            owner,
            attacher,
            neighbour,
            area,
            segment,
        }
    }
}

/// The owner is dead: who is attached keeps what it has and gets nothing new (spec ve-memory section 6).
fn after_owner(trio: &mut Trio, what: &str) {
    let (attacher, neighbour, area) = (&mut trio.attacher, &mut trio.neighbour, &trio.area);
    assert_eq!(attacher.ask("stop"), "stopped", "{what}");
    assert_eq!(neighbour.ask("stop"), "stopped", "{what}");
    until("the owner has left", || {
        attacher.ask(&format!("attach {area}")).contains("ESRCH")
    });
    let refused = neighbour.ask(&format!("attach-near {area}"));
    assert!(refused.contains("EINVAL"), "{what}: {refused}");
    assert_eq!(attacher.ask("peek"), "from the owner", "{what}");
    assert_eq!(neighbour.ask("look"), "from the owner", "{what}");
}

/// One of the attachers is dead: the owner's area and the other attachment are as they were.
fn after_attacher(trio: &mut Trio, victim: Victim, looping: bool, what: &str) {
    if looping {
        assert_eq!(trio.owner.ask("stop"), "stopped", "{what}");
    }
    assert!(trio.owner.ask("open").parse::<u64>().is_ok(), "{what}");
    let (other, seen) = match victim {
        Victim::Neighbour => (&mut trio.attacher, "peek"),
        _ => (&mut trio.neighbour, "look"),
    };
    assert_eq!(other.ask("stop"), "stopped", "{what}");
    assert_eq!(other.ask(seen), "from the owner", "{what}");
}

/// The service is dead: all are told, and what the attachers have mapped stays.
fn after_service(trio: &mut Trio, looping: bool, what: &str) {
    if looping {
        assert_eq!(trio.owner.ask("stop"), "stopped", "{what}");
    }
    assert_eq!(trio.attacher.ask("stop"), "stopped", "{what}");
    assert_eq!(trio.neighbour.ask("stop"), "stopped", "{what}");
    assert!(trio.owner.ask("open").contains("gone"), "{what}");
    assert_eq!(trio.attacher.ask("peek"), "from the owner", "{what}");
    assert_eq!(trio.neighbour.ask("look"), "from the owner", "{what}");
}

/// Kills the victim, looks at the others and lets them end.
fn one_death(
    mut trio: Trio,
    victim: Victim,
    (service, name): (&mut Kept, &NodeName),
    looping: bool,
    what: &str,
) {
    let users = match victim {
        Victim::Owner => {
            trio.owner.child.kill().unwrap();
            after_owner(&mut trio, what);
            [trio.attacher, trio.neighbour].into()
        }
        Victim::Attacher => {
            trio.attacher.child.kill().unwrap();
            after_attacher(&mut trio, victim, looping, what);
            [trio.owner, trio.neighbour].into()
        }
        Victim::Neighbour => {
            trio.neighbour.child.kill().unwrap();
            after_attacher(&mut trio, victim, looping, what);
            [trio.owner, trio.attacher].into()
        }
        Victim::Service => {
            service.0.kill().unwrap();
            service.0.wait().unwrap();
            after_service(&mut trio, looping, what);
            until_gone(name);
            *service = keep(name);
            vec![trio.owner, trio.attacher, trio.neighbour]
        }
    };
    users.into_iter().for_each(User::end);
}

fn is_due(rounds: u32, begun: Instant) -> bool {
    let all = ROUNDS_OF_PHASE * PHASES.len() as u32;
    rounds < ROUNDS || (rounds < all && begun.elapsed() < TIME)
}

fn matrix(victim: Victim, which: &str) {
    let _watchdog = watchdog();
    let _pages = HugePages::ask();
    let (home, name) = (home(), name(which));
    let foreign = Foreign::new();
    let mut service = keep(&name);
    let all: Vec<VeStatus> = status_of(&name).ves;
    let mut started = Vec::new();
    let mut instant = 12_345u32;
    let (begun, mut rounds, mut segments) = (Instant::now(), 0, 0);
    while is_due(rounds, begun) {
        let phase = rounds as usize % PHASES.len();
        let (called, owners, _) = PHASES[phase];
        let what = format!("{which} killed during {called}, round {rounds}");
        let trio = Trio::start(&name, home.path(), phase);
        started.extend([&trio.owner, &trio.attacher, &trio.neighbour].map(User::pid));
        started.push(service.0.id() as i32);
        let segment = trio.segment;
        instant = instant.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(Duration::from_micros(u64::from(instant >> 16) % 3_000));
        one_death(trio, victim, (&mut service, &name), owners.is_some(), &what);
        until(&format!("all is free again, {what}"), || {
            let now = status_of(&name);
            now.visitors == 0 && now.ves == all
        });
        if let Some(id) = segment {
            segments += 1;
            assert!(sysv::stat(id).is_err(), "it is left, {what}");
        }
        foreign.check(&what);
        rounds += 1;
    }
    println!("{which}: {rounds} deaths, {segments} of them with a segment of huge pages held");
    drop(service);
    until_gone(&name);
    let segments = sysv::list().unwrap();
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
fn a_killed_neighbour() {
    matrix(Victim::Neighbour, "neighbour");
}

#[test]
fn a_killed_service() {
    matrix(Victim::Service, "service");
}

#[test]
fn a_killed_launcher() {
    let _watchdog = watchdog();
    let foreign = Foreign::new();
    let mut instant = 54_321u32;
    let (begun, mut round) = (Instant::now(), 0);
    while is_due(round, begun) {
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
        let segments = sysv::list().unwrap();
        assert!(!segments.iter().any(|row| row.cpid == owner), "{what}");
        foreign.check(&what);
        round += 1;
    }
    println!("launcher: {round} deaths");
}
