//! Visitors of a node in one process: how many there may be, and what they may ask.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use windlass_node::{
    Address, Door, Error, Event, JobId, Link, Member, NodeConfig, NodeKind, NodeName, Place,
    Service, Visitor, Watcher, visitor_bounds,
};
use windlass_ve::{CallError, Control, Errno, Profile, Request};
use windlass_wire::Secret;

const PATIENCE: Duration = Duration::from_secs(120);

/// Files for as many visitors of this process as the tests want, at both ends of each connection.
fn room() {
    const FILES: u64 = 4096;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most >= FILES), "{limit:?}");
    let current = Some(FILES);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

fn private(base: &Path) -> (Service, Address, std::sync::mpsc::Receiver<Event>) {
    room();
    let (sender, events) = channel();
    let door = Door::Private(base.to_owned());
    let service = Service::open(2, Profile::VE1, door, sender).unwrap();
    let address = Address::Path(service.socket_path().to_owned());
    (service, address, events)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_visitors_of_a_user_are_bounded() {
    let base = tempfile::tempdir().unwrap();
    let (service, address, _events) = private(base.path());
    let (_, most) = visitor_bounds();
    assert!(most > 256, "a full VE, and more: {most}");
    let mut all: Vec<Visitor> = (0..most)
        .map(|_| Visitor::enter(&address, None).unwrap())
        .collect();
    let text = Visitor::enter(&address, None).err().unwrap().to_string();
    assert!(text.contains("end one first"), "{text}");
    let watcher = Watcher::look(&address).unwrap();
    assert_eq!(watcher.status().unwrap().visitors as usize, most);
    all.truncate(most - 2);
    until("both have left", || {
        watcher.status().unwrap().visitors as usize == most - 2
    });
    all.push(Visitor::enter(&address, Some(1)).unwrap());
    assert!(!service.close_if_empty(), "somebody is there");
    all.clear();
    until("all have left", || service.close_if_empty());
    assert!(
        matches!(Visitor::enter(&address, None), Err(Error::Gone)),
        "closed for good"
    );
    drop(watcher);
    service.stop();
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn one_process_is_on_a_node_once() {
    let base = tempfile::tempdir().unwrap();
    let (_service, address, events) = private(base.path());
    let pid = std::process::id() as i32;
    let first = Visitor::enter(&address, Some(0)).unwrap();
    assert_eq!(
        events.recv_timeout(PATIENCE).unwrap(),
        Event::Entered { pid }
    );
    let text = Visitor::enter(&address, Some(1)).err().unwrap().to_string();
    assert!(text.contains("entered already"), "{text}");
    let host = Visitor::enter(&address, None).unwrap();
    assert_eq!(
        host.call(Request::Hello).err(),
        Some(CallError::Errno(Errno::Ebusy))
    );
    let text = Visitor::enter(&address, Some(2)).err().unwrap().to_string();
    assert!(text.contains("WINDLASS_VES"), "{text}");
    drop(first);
    until("the first has left", || host.call(Request::Hello).is_ok());
    assert_eq!(
        events.recv_timeout(PATIENCE).unwrap(),
        Event::Entered { pid }
    );
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), Event::Left { pid });
}

#[test]
fn a_jobs_node_takes_visitors_and_says_so() {
    let base = tempfile::tempdir().unwrap();
    let (sender, _events) = channel();
    let config = NodeConfig {
        job: JobId([3; 16]),
        node: 0,
        nodes: 1,
        members: vec![Member {
            rank: 0,
            node: 0,
            place: Place::Vh,
        }],
        ves: 1,
        profile: Profile::VE3,
        secret: Secret::random(),
        link: Link::Alone,
        base: base.path().to_owned(),
    };
    let service = Service::start(config, sender).unwrap();
    let address = Address::Path(service.socket_path().to_owned());
    let visitor = Visitor::enter(&address, Some(0)).unwrap();
    let status = Watcher::look(&address).unwrap().status().unwrap();
    assert_eq!(
        (status.ranks, status.visitors, status.profile.as_str()),
        (0, 1, "ve3")
    );
    assert_eq!(status.kind, NodeKind::Job("03".repeat(16)));
    assert_eq!(status.ves[0].processes, 1);
    drop(visitor);
}

#[test]
fn a_named_node_has_no_file() {
    let name: NodeName = format!("file-{}", std::process::id()).parse().unwrap();
    let (sender, _events) = channel();
    let listener = name.bind().unwrap().unwrap();
    let service =
        Service::open(1, Profile::VE1, Door::Named(name.clone(), listener), sender).unwrap();
    assert_eq!(service.socket_path(), Path::new(""));
    let address = Address::Named(name.clone());
    assert_eq!(address.holder().unwrap().pid, std::process::id() as i32);
    assert!(Address::all().contains(&address));
    let visitor = Visitor::enter(&address, Some(0)).unwrap();
    service.stop();
    assert_eq!(visitor.call(Request::Hello).err(), Some(CallError::Gone));
    drop(visitor);
    assert!(!Address::all().contains(&address));
}

#[test]
fn a_crowd_that_comes_at_once_gets_in() {
    let base = tempfile::tempdir().unwrap();
    let (_service, address, _events) = private(base.path());
    let come = std::sync::Barrier::new(200);
    let stay = std::sync::Barrier::new(200);
    let enter = || {
        come.wait();
        let begun = Instant::now();
        // The oldest of too many is closed unanswered; `enter` comes again too.
        let visitor = loop {
            match Visitor::enter(&address, None) {
                Err(Error::Gone) if begun.elapsed() < PATIENCE => {}
                other => break other.unwrap(),
            }
        };
        stay.wait();
        drop(visitor);
    };
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(enter);
        }
    });
    let watcher = Watcher::look(&address).unwrap();
    until("all have left", || watcher.status().unwrap().visitors == 0);
}
