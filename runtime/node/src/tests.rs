//! One process plays service and ranks: what they do to each other, and what strangers can do.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_ve::Profile;
use windlass_wire::{Secret, frame};

use crate::control::{Area, MAX_PART, Presence, Trouble};
use crate::wire::{self, Greeting, Reply, Request};
use crate::{
    Cause, Client, Control, Error, Event, JobId, Link, MAX_DEPOSITS, Member, NodeConfig, Place,
    Service, Token, VeClient, Welcome,
};

/// No wait of a test is longer; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Services of all nodes of one job and what they report.
struct Nodes {
    services: Vec<Service>,
    events: Vec<Receiver<Event>>,
    /// Of the root.
    address: Option<SocketAddr>,
    secret: Secret,
    base: TempDir,
}

fn config(
    nodes: &[u32],
    node: u32,
    link: Link,
    base: &Path,
    job: JobId,
    secret: &Secret,
) -> NodeConfig {
    let members = nodes
        .iter()
        .enumerate()
        .flat_map(|(at, &ranks)| std::iter::repeat_n(at as u32, ranks as usize));
    NodeConfig {
        job,
        node,
        nodes: nodes.len() as u32,
        members: members
            .enumerate()
            .map(|(rank, node)| Member {
                rank: rank as u32,
                node,
                place: Place::Vh,
            })
            .collect(),
        ves: 1,
        profile: Profile::VE1,
        secret: secret.clone(),
        link,
        base: base.to_owned(),
    }
}

/// Starts as many services as `ranks` has entries: ranks per node.
fn nodes(ranks: &[u32]) -> Nodes {
    let base = tempfile::tempdir().unwrap();
    let (job, secret) = (JobId::random().unwrap(), Secret::random());
    let mut nodes = Nodes {
        services: vec![],
        events: vec![],
        address: None,
        secret: secret.clone(),
        base,
    };
    for node in 0..ranks.len() as u32 {
        let link = match (ranks.len(), node) {
            (1, _) => Link::Alone,
            (_, 0) => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                nodes.address = Some(listener.local_addr().unwrap());
                Link::Root { listener }
            }
            _ => Link::Leaf {
                root: nodes.address.unwrap(),
            },
        };
        let (sender, receiver) = channel();
        let config = config(ranks, node, link, nodes.base.path(), job, &secret);
        nodes.services.push(Service::start(config, sender).unwrap());
        nodes.events.push(receiver);
    }
    nodes
}

impl Nodes {
    fn join(&self, node: usize, rank: u32) -> (Client, Welcome) {
        Client::join(self.services[node].socket_path(), rank).unwrap()
    }

    fn refusal(&self, node: usize, rank: u32) -> String {
        Client::join(self.services[node].socket_path(), rank)
            .unwrap_err()
            .to_string()
    }

    fn event(&self, node: usize) -> Event {
        self.events[node].recv_timeout(PATIENCE).unwrap()
    }

    fn no_event(&self, node: usize) {
        let event = self.events[node].recv_timeout(Duration::from_millis(50));
        assert!(event.is_err(), "unexpected {event:?}");
    }
}

fn pid() -> i32 {
    std::process::id() as i32
}

#[test]
fn ranks_join_share_the_segment_and_leave() {
    let nodes = nodes(&[2]);
    let (a, welcome) = nodes.join(0, 0);
    let (b, other) = nodes.join(0, 1);
    assert_eq!(
        nodes.event(0),
        Event::Joined {
            rank: 0,
            pid: pid()
        }
    );
    assert_eq!(
        nodes.event(0),
        Event::Joined {
            rank: 1,
            pid: pid()
        }
    );
    assert_eq!(
        (welcome.node, welcome.nodes, welcome.size, welcome.ves),
        (0, 1, 2, 1)
    );
    assert_eq!(welcome.members, other.members);
    assert_eq!(welcome.job, other.job);
    let (mine, theirs) = (
        Control::open(&welcome.control).unwrap(),
        Control::open(&other.control).unwrap(),
    );
    let area = Area {
        context: 1,
        parity: 0,
    };
    mine.write_area(area, 8, b"hello").unwrap();
    let mut seen = [0; 5];
    theirs.read_area(area, 8, &mut seen).unwrap();
    assert_eq!(&seen, b"hello");
    assert_eq!(theirs.process(0).unwrap().0, pid());
    assert_eq!(theirs.presence(0), Presence::Joined);

    a.goodbye().unwrap();
    assert_eq!(nodes.event(0), Event::Ended { rank: 0 });
    assert_eq!(theirs.presence(0), Presence::Ended);
    assert!(matches!(a.goodbye(), Err(Error::Gone)));
    drop(a);
    nodes.no_event(0);
    drop(b);
    assert_eq!(nodes.event(0), Event::Lost { rank: 1 });
    assert_eq!(theirs.presence(1), Presence::Lost);
    assert_eq!(theirs.trouble(), Some(Trouble::Lost { rank: 1 }));
    let base = nodes.base.path().to_owned();
    drop(nodes.services);
    assert_eq!(std::fs::read_dir(base).unwrap().count(), 0);
}

#[test]
fn a_rank_joins_once_and_where_it_lives() {
    let nodes = nodes(&[1, 1]);
    assert!(nodes.refusal(0, 1).contains("lives on node 1"));
    assert!(nodes.refusal(0, 7).contains("the job has 2 ranks"));
    let (client, _) = nodes.join(0, 0);
    assert!(nodes.refusal(0, 0).contains("joined already"));
    drop(client);
    assert_eq!(
        nodes.event(0),
        Event::Joined {
            rank: 0,
            pid: pid()
        }
    );
    assert_eq!(nodes.event(0), Event::Lost { rank: 0 });
    assert!(nodes.refusal(0, 0).contains("not used again"));
}

#[test]
fn files_travel_by_token() {
    let nodes = nodes(&[2]);
    let (a, _) = nodes.join(0, 0);
    let (b, _) = nodes.join(0, 1);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"content").unwrap();
    let token = a.deposit(&file).unwrap();
    for _ in 0..3 {
        let mut copy = File::from(b.withdraw(token).unwrap());
        let mut text = String::new();
        std::io::Seek::rewind(&mut copy).unwrap();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
    }
    assert!(matches!(b.withdraw(Token([0; 16])), Err(Error::Refused(_))));
    assert!(
        matches!(b.revoke(token), Err(Error::Refused(_))),
        "only its owner revokes"
    );
    a.revoke(token).unwrap();
    assert!(matches!(b.withdraw(token), Err(Error::Refused(_))));
    let tokens: Vec<Token> = (0..MAX_DEPOSITS)
        .map(|_| a.deposit(&file).unwrap())
        .collect();
    let text = a.deposit(&file).unwrap_err().to_string();
    assert!(text.contains("revoke"), "{text}");
    b.deposit(&file).unwrap();
    a.goodbye().unwrap();
    assert!(
        matches!(b.withdraw(tokens[0]), Err(Error::Refused(_))),
        "dropped with its rank"
    );
}

fn part(round: u64, rank: u32, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (round as usize * 31 + rank as usize * 7 + i) as u8)
        .collect()
}

#[test]
fn three_nodes_gather_many_rounds() {
    let ranks = [2, 3, 1];
    let nodes = nodes(&ranks);
    let size = ranks.iter().sum::<u32>();
    let mut clients = Vec::new();
    for rank in 0..size {
        let node = nodes
            .services
            .iter()
            .position(|s| s.locals().contains(&rank))
            .unwrap();
        clients.push((node, nodes.join(node, rank).0));
    }
    let collect = |node: usize, leader: &Client| {
        let locals = nodes.services[node].locals();
        for round in 0..30 {
            // The last rounds are as large as they may be: many frames a reply.
            let len = if round < 25 { round as usize } else { MAX_PART };
            for &rank in locals {
                leader
                    .gather_part(round, rank, &part(round, rank, len))
                    .unwrap();
            }
            let got = leader.gather_collect(round).unwrap();
            let expected: Vec<_> = (0..size)
                .filter(|rank| !locals.contains(rank))
                .map(|rank| (rank, part(round, rank, len)))
                .collect();
            assert!(got == expected, "round {round} on node {node}");
        }
    };
    std::thread::scope(|scope| {
        for node in 0..ranks.len() {
            let leader = &clients.iter().find(|(at, _)| *at == node).unwrap().1;
            scope.spawn(move || collect(node, leader));
        }
    });
    for (_, client) in &clients {
        client.goodbye().unwrap();
    }
}

#[test]
fn parts_sent_before_a_node_is_linked_reach_it() {
    let base = tempfile::tempdir().unwrap();
    let (job, secret) = (JobId::random().unwrap(), Secret::random());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let root_at = listener.local_addr().unwrap();
    let start = |node, link| {
        let config = config(&[1, 1], node, link, base.path(), job, &secret);
        Service::start(config, channel().0).unwrap()
    };
    let root = start(0, Link::Root { listener });
    let (a, _) = Client::join(root.socket_path(), 0).unwrap();
    a.gather_part(0, 0, b"early").unwrap();
    let leaf = start(1, Link::Leaf { root: root_at });
    let (b, _) = Client::join(leaf.socket_path(), 1).unwrap();
    assert_eq!(b.gather_collect(0).unwrap(), [(0, b"early".to_vec())]);
    b.gather_part(0, 1, b"late").unwrap();
    assert_eq!(a.gather_collect(0).unwrap(), [(1, b"late".to_vec())]);
}

#[test]
fn gathering_keeps_its_rules() {
    let nodes = nodes(&[2, 1]);
    let (a, _) = nodes.join(0, 0);
    let refused = |result: Result<(), Error>, word: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    };
    refused(a.gather_part(0, 2, b""), "not on node 0");
    refused(a.gather_part(0, 0, &vec![0; MAX_PART + 1]), "at most");
    a.gather_part(0, 0, b"").unwrap();
    refused(a.gather_part(0, 0, b""), "twice");
    a.gather_part(1, 0, b"").unwrap();
    refused(a.gather_part(2, 0, b""), "third");
}

#[test]
fn one_node_gathers_nothing_at_once() {
    let nodes = nodes(&[1]);
    let (a, _) = nodes.join(0, 0);
    for round in 0..10 {
        a.gather_part(round, 0, b"x").unwrap();
        assert!(a.gather_collect(round).unwrap().is_empty());
    }
}

#[test]
fn a_collect_ends_with_the_rank_that_broke_the_job() {
    type Deed = fn(Client);
    let deeds: [(Deed, Cause); 3] = [
        (drop, Cause::Lost { rank: 2 }),
        (|c| c.goodbye().unwrap(), Cause::Ended { rank: 2 }),
        (
            |c| {
                c.abort(9, "no more").unwrap();
                std::mem::forget(c);
            },
            Cause::Abort {
                rank: 2,
                code: 9,
                message: "no more".into(),
            },
        ),
    ];
    for (deed, expected) in deeds {
        let nodes = nodes(&[1, 1, 2]);
        let (a, _) = nodes.join(0, 0);
        let (b, _) = nodes.join(1, 1);
        let (c, _) = nodes.join(2, 2);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = [&a, &b]
                .map(|client| scope.spawn(|| client.gather_collect(0)))
                .into();
            std::thread::sleep(Duration::from_millis(30));
            deed(c);
            for waiting in waiting {
                match waiting.join().unwrap() {
                    Err(Error::Broken(cause)) => assert_eq!(cause, expected),
                    other => panic!("{other:?}"),
                }
            }
        });
        assert_eq!(
            nodes.event(2),
            Event::Joined {
                rank: 2,
                pid: pid()
            }
        );
        let expected_event = match expected.clone() {
            Cause::Lost { rank } => Event::Lost { rank },
            Cause::Ended { rank } => Event::Ended { rank },
            Cause::Abort {
                rank,
                code,
                message,
            } => Event::Abort {
                rank,
                code,
                message,
            },
            Cause::Link { node } => Event::LinkLost { node },
        };
        assert_eq!(nodes.event(2), expected_event);
        assert_eq!(
            nodes.event(0),
            Event::Joined {
                rank: 0,
                pid: pid()
            }
        );
        if !matches!(expected, Cause::Ended { .. }) {
            assert_eq!(
                nodes.event(0),
                Event::Elsewhere {
                    cause: expected.clone()
                }
            );
            assert!(nodes.services[1].control().trouble().is_some());
        }
    }
}

#[test]
fn a_waiting_collect_lets_others_through() {
    let nodes = nodes(&[2, 1]);
    let (a, _) = nodes.join(0, 0);
    let (b, _) = nodes.join(0, 1);
    let file = tempfile::tempfile().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| a.gather_collect(0));
        std::thread::sleep(Duration::from_millis(30));
        // Another rank, and another thread of the same rank.
        let token = b.deposit(&file).unwrap();
        a.withdraw(token).unwrap();
        a.abort(1, "enough").unwrap();
        assert!(matches!(
            waiting.join().unwrap(),
            Err(Error::Broken(Cause::Abort { .. }))
        ));
    });
}

#[test]
fn a_node_that_ends_says_so_and_one_that_breaks_is_named() {
    let mut nodes = nodes(&[1, 1]);
    let (a, _) = nodes.join(0, 0);
    assert_eq!(
        nodes.event(0),
        Event::Joined {
            rank: 0,
            pid: pid()
        }
    );
    drop(nodes.services.pop());
    // In good order: no event, but a collect does not wait for it.
    nodes.no_event(0);
    match a.gather_collect(0) {
        Err(Error::Broken(Cause::Ended { rank: 1 })) => {}
        other => panic!("{other:?}"),
    }
    drop(a);
    assert_eq!(nodes.event(0), Event::Lost { rank: 0 });
}

/// A hand-made leaf: everything a service would send, from here.
fn leaf(nodes: &Nodes, secret: &Secret) -> Result<TcpStream, windlass_wire::auth::HandshakeError> {
    let mut link = TcpStream::connect(nodes.address.unwrap()).unwrap();
    link.set_read_timeout(Some(PATIENCE)).unwrap();
    windlass_wire::auth::connect(&mut link, secret).map(|()| link)
}

/// A root whose leaf is played by the test.
fn lonely_root(ranks: &[u32]) -> Nodes {
    let base = tempfile::tempdir().unwrap();
    let (job, secret) = (JobId([5; 16]), Secret::random());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Some(listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    let config = config(ranks, 0, Link::Root { listener }, base.path(), job, &secret);
    let services = vec![Service::start(config, sender).unwrap()];
    Nodes {
        services,
        events: vec![receiver],
        address,
        secret,
        base,
    }
}

fn read_message(link: &mut TcpStream) -> Option<wire::LinkMessage> {
    let body = windlass_wire::read_frame(link, wire::MAX_MESSAGE).ok()??;
    Some(wire::decode(&body).unwrap().1)
}

fn greet(link: &mut TcpStream, job: JobId, node: u32) -> Option<wire::LinkMessage> {
    let greeting = wire::encode_link_greeting(&wire::LinkGreeting { job, node });
    link.write_all(&frame(&greeting)).unwrap();
    read_message(link)
}

#[test]
fn a_broken_link_is_an_event_that_names_the_node() {
    let nodes = lonely_root(&[1, 1]);
    let (a, _) = nodes.join(0, 0);
    assert_eq!(
        nodes.event(0),
        Event::Joined {
            rank: 0,
            pid: pid()
        }
    );
    let mut link = leaf(&nodes, &nodes.secret).unwrap();
    assert_eq!(
        greet(&mut link, JobId([5; 16]), 1),
        Some(wire::LinkMessage::Welcome)
    );
    drop(link);
    assert_eq!(nodes.event(0), Event::LinkLost { node: 1 });
    match a.gather_collect(0) {
        Err(Error::Broken(Cause::Link { node: 1 })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leaf_speaks_only_for_itself() {
    let messages = [
        wire::LinkMessage::Part {
            round: 0,
            rank: 0,
            blob: vec![],
        },
        wire::LinkMessage::Part {
            round: 0,
            rank: 2,
            blob: vec![],
        },
        wire::LinkMessage::Part {
            round: 0,
            rank: 99,
            blob: vec![],
        },
        wire::LinkMessage::Part {
            round: 0,
            rank: 1,
            blob: vec![0; MAX_PART + 1],
        },
        wire::LinkMessage::Trouble(Cause::Lost { rank: 0 }),
        wire::LinkMessage::Trouble(Cause::Link { node: 2 }),
        wire::LinkMessage::Ended { rank: 2 },
        wire::LinkMessage::Welcome,
    ];
    for message in messages {
        let nodes = lonely_root(&[1, 1, 1]);
        let mut link = leaf(&nodes, &nodes.secret).unwrap();
        assert_eq!(
            greet(&mut link, JobId([5; 16]), 1),
            Some(wire::LinkMessage::Welcome)
        );
        link.write_all(&frame(&wire::encode(&message, 0).unwrap()))
            .unwrap();
        assert_eq!(nodes.event(0), Event::LinkLost { node: 1 }, "{message:?}");
    }
}

#[test]
fn link_greetings_are_judged() {
    let nodes = lonely_root(&[1, 1, 1]);
    let job = JobId([5; 16]);
    assert!(leaf(&nodes, &Secret::random()).is_err(), "wrong secret");
    for (job, node) in [(JobId([6; 16]), 1), (job, 0), (job, 3), (job, u32::MAX)] {
        let mut link = leaf(&nodes, &nodes.secret).unwrap();
        let answer = greet(&mut link, job, node);
        assert!(
            matches!(answer, Some(wire::LinkMessage::Refused(_))),
            "{answer:?}"
        );
        assert_eq!(link.read(&mut [0]).unwrap_or(0), 0);
    }
    let mut first = leaf(&nodes, &nodes.secret).unwrap();
    assert_eq!(greet(&mut first, job, 1), Some(wire::LinkMessage::Welcome));
    let mut second = leaf(&nodes, &nodes.secret).unwrap();
    assert!(matches!(
        greet(&mut second, job, 1),
        Some(wire::LinkMessage::Refused(_))
    ));
    nodes.no_event(0);
}

#[test]
fn a_leaf_with_the_wrong_secret_is_told() {
    let nodes = lonely_root(&[1, 1]);
    let base = tempfile::tempdir().unwrap();
    let link = Link::Leaf {
        root: nodes.address.unwrap(),
    };
    let config = config(
        &[1, 1],
        1,
        link,
        base.path(),
        JobId([5; 16]),
        &Secret::random(),
    );
    let text = Service::start(config, channel().0).unwrap_err().to_string();
    assert!(text.contains("secret"), "{text}");
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn ve_calls_reach_the_ve_service() {
    use windlass_ve::Control as _;
    let nodes = nodes(&[1]);
    let client = std::sync::Arc::new(nodes.join(0, 0).0);
    let ve = VeClient(std::sync::Arc::clone(&client));
    let Ok((reply, files)) = ve.call(windlass_ve::Request::Hello) else {
        panic!("no answer")
    };
    assert!(files.is_empty());
    assert!(
        format!("{:?}", reply).contains(&format!("pid: {}", pid())),
        "{reply:?}"
    );
    client.goodbye().unwrap();
    assert!(matches!(
        ve.call(windlass_ve::Request::Hello),
        Err(windlass_ve::CallError::Gone)
    ));
}

// ---- strangers ----

/// Everything a connection says until it closes; it must close before the patience ends.
fn drain(link: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = link.read_to_end(&mut all);
    all
}

fn hostile_inputs() -> Vec<Vec<u8>> {
    let hello = frame(&wire::encode_greeting(&Greeting::Rank(0)));
    let mut wrong_version = hello.clone();
    wrong_version[9] ^= 1;
    let mut trailing = wire::encode_greeting(&Greeting::Rank(0));
    trailing.push(0);
    vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0; 10_000],
        vec![0xff; 10_000],
        (0..=255).collect(),
        vec![0, 0, 0, 0],                                  // an empty frame
        [&65_537u32.to_le_bytes()[..], &[1; 64]].concat(), // one byte too many
        u32::MAX.to_le_bytes().to_vec(),
        frame(&wire::encode(&Request::Goodbye, 0).unwrap()), // no greeting
        wrong_version,
        frame(&trailing),
        hello[..hello.len() - 1].to_vec(), // then nothing more
        vec![],
    ]
}

#[test]
fn garbage_on_the_socket_ends_only_itself() {
    let nodes = nodes(&[1]);
    for (i, input) in hostile_inputs().into_iter().enumerate() {
        let mut socket = UnixStream::connect(nodes.services[0].socket_path()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.write_all(&input);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let answer = drain(&mut socket);
        // Only another version of ourselves is told why.
        assert_eq!(answer.is_empty(), i != 8, "input {i}");
    }
    nodes.no_event(0);
    let (client, _) = nodes.join(0, 0);
    client.goodbye().unwrap();
}

/// A connection that has joined by hand.
fn joined(nodes: &Nodes) -> UnixStream {
    let mut socket = UnixStream::connect(nodes.services[0].socket_path()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
        .write_all(&frame(&wire::encode_greeting(&Greeting::Rank(0))))
        .unwrap();
    let body = windlass_wire::read_frame(&mut socket, wire::MAX_MESSAGE)
        .unwrap()
        .unwrap();
    let (files, reply) = wire::decode::<Reply>(&body).unwrap();
    assert!(matches!(reply, Reply::Welcome(_)) && files == 1);
    socket
}

#[test]
fn garbage_of_a_rank_ends_that_rank_only() {
    let mut inputs = hostile_inputs();
    inputs.remove(7); // a goodbye: for a rank in good order
    inputs.push(frame(&wire::encode(&Request::Deposit, 1).unwrap())); // a file that never comes
    inputs.push(frame(&wire::encode(&Request::Goodbye, 16).unwrap()));
    inputs.push(frame(&[17, 0])); // more files than a message may have
    for input in inputs {
        let nodes = nodes(&[2]);
        let (other, _) = nodes.join(0, 1);
        let mut socket = joined(&nodes);
        let _ = socket.write_all(&input);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        drain(&mut socket);
        assert_eq!(
            nodes.event(0),
            Event::Joined {
                rank: 1,
                pid: pid()
            }
        );
        assert_eq!(
            nodes.event(0),
            Event::Joined {
                rank: 0,
                pid: pid()
            }
        );
        assert_eq!(nodes.event(0), Event::Lost { rank: 0 });
        let file = tempfile::tempfile().unwrap();
        other.deposit(&file).unwrap();
        other.goodbye().unwrap();
    }
}

#[test]
fn files_that_nobody_asked_for_end_the_connection() {
    use std::os::fd::AsFd;
    // Named by a request that takes none; named by none; more than a message may carry.
    for (named, sent) in [(2, 2), (0, 1), (1, 2), (0, 16)] {
        let nodes = nodes(&[1]);
        let channel = crate::channel::Channel::new(std::sync::Arc::new(joined(&nodes)));
        let file = tempfile::tempfile().unwrap();
        let (code, message) = (0, String::new());
        let body = wire::encode(&Request::Abort { code, message }, named).unwrap();
        channel.send_body(&body, &vec![file.as_fd(); sent]).unwrap();
        let (rank, pid) = (0, pid());
        assert_eq!(nodes.event(0), Event::Joined { rank, pid });
        assert_eq!(
            nodes.event(0),
            Event::Lost { rank },
            "{named} named, {sent} sent"
        );
    }
}

#[test]
fn a_slow_greeting_is_cut_off_after_its_time() {
    let nodes = lonely_root(&[1, 1]);
    let mut socket = UnixStream::connect(nodes.services[0].socket_path()).unwrap();
    let mut link = TcpStream::connect(nodes.address.unwrap()).unwrap();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        // A byte at a time: each alone is in time.
        scope.spawn(|| {
            while socket.write_all(&[1]).is_ok() && begin.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let mut hello = windlass_wire::auth::Initiator::new(&nodes.secret)
            .1
            .into_iter();
        scope.spawn(move || {
            while let Some(byte) = hello.next()
                && link.write_all(&[byte]).is_ok()
                && begin.elapsed() < PATIENCE
            {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    });
    assert!(
        begin.elapsed() < PATIENCE,
        "a slow sender was never cut off"
    );
    nodes.no_event(0);
    nodes.join(0, 0).0.goodbye().unwrap();
}

#[test]
fn a_flood_of_connections_keeps_nobody_out() {
    let nodes = lonely_root(&[2, 1]);
    let path = nodes.services[0].socket_path();
    let mut held = Vec::new();
    let mut linked = Vec::new();
    for i in 0..1000 {
        // Some speak garbage, the others say nothing; all stay open as long as they are let.
        let mut socket = UnixStream::connect(path).unwrap();
        let mut link = TcpStream::connect(nodes.address.unwrap()).unwrap();
        if i % 3 == 0 {
            let _ = socket.write_all(&[0xff; 100]);
            let _ = link.write_all(&[0xff; 100]);
        }
        if held.len() < 300 {
            held.push((socket, link));
        }
        if i == 500 {
            linked.push(nodes.join(0, 0));
            let mut link = leaf(&nodes, &nodes.secret).unwrap();
            assert_eq!(
                greet(&mut link, JobId([5; 16]), 1),
                Some(wire::LinkMessage::Welcome)
            );
            held.push((UnixStream::connect(path).unwrap(), link));
            break;
        }
    }
    for _ in 0..500 {
        let mut socket = UnixStream::connect(path).unwrap();
        let _ = socket.write_all(&[0xff; 100]);
    }
    // All are linked: the port is closed.
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(nodes.address.unwrap()).is_ok() {
        assert!(Instant::now() < until, "the port stays open");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (second, _) = nodes.join(0, 1);
    second.goodbye().unwrap();
    linked.pop().unwrap().0.goodbye().unwrap();
}

#[test]
fn garbage_on_the_link_port_ends_only_itself() {
    let nodes = lonely_root(&[1, 1]);
    let mut inputs = hostile_inputs();
    inputs.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()); // TLS
    for input in inputs {
        let mut link = TcpStream::connect(nodes.address.unwrap()).unwrap();
        link.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = link.write_all(&input);
        let _ = link.shutdown(std::net::Shutdown::Write);
        assert!(
            drain(&mut link).is_empty(),
            "a stranger learns nothing but a close"
        );
    }
    // After the proof, too.
    let mut link = leaf(&nodes, &nodes.secret).unwrap();
    link.write_all(&[0xff; 100]).unwrap();
    drain(&mut link);
    nodes.no_event(0);
    let mut link = leaf(&nodes, &nodes.secret).unwrap();
    assert_eq!(
        greet(&mut link, JobId([5; 16]), 1),
        Some(wire::LinkMessage::Welcome)
    );
}

#[test]
fn dropping_a_service_ends_what_hangs_on_it() {
    let nodes = nodes(&[2, 1]);
    let (a, _) = nodes.join(0, 0);
    let _half = UnixStream::connect(nodes.services[0].socket_path()).unwrap();
    let Nodes {
        services,
        events,
        base,
        ..
    } = nodes;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| a.gather_collect(0));
        std::thread::sleep(Duration::from_millis(30));
        drop(services);
        assert!(waiting.join().unwrap().is_err());
    });
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    let left: Vec<Event> = events.iter().flat_map(|events| events.try_iter()).collect();
    assert_eq!(
        left,
        [Event::Joined {
            rank: 0,
            pid: pid()
        }],
        "an end in good order is no loss"
    );
}

#[test]
fn decoders_survive_any_bytes() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let mut runner = TestRunner::new(Config {
        cases: 20_000,
        failure_persistence: None,
        ..Config::default()
    });
    // The first byte picks the variant: keep it small, so that more than refusals are met.
    let bytes = (
        0u8..3,
        0u8..12,
        proptest::collection::vec(any::<u8>(), 0..200),
    );
    runner
        .run(&bytes, |(files, variant, rest)| {
            let body = [&[files, variant][..], &rest].concat();
            let _ = wire::decode::<Request>(&body);
            let _ = wire::decode::<Reply>(&body);
            let _ = wire::decode::<wire::LinkMessage>(&body);
            let _ = wire::decode_greeting(&body);
            let _ = wire::decode_link_greeting(&body);
            Ok(())
        })
        .unwrap();
}

#[test]
fn messages_survive_the_wire() {
    let requests = [
        Request::Goodbye,
        Request::Abort {
            code: -1,
            message: "why".into(),
        },
        Request::Deposit,
        Request::Withdraw {
            token: Token([7; 16]),
        },
        Request::GatherPart {
            round: u64::MAX,
            rank: 3,
            blob: vec![1; MAX_PART],
        },
        Request::GatherCollect {
            round: 1,
            have: u32::MAX,
        },
    ];
    for request in requests {
        let body = wire::encode(&request, 2).unwrap();
        assert_eq!(
            wire::decode::<Request>(&body).unwrap(),
            (2, request.clone())
        );
        for cut in 0..body.len() {
            assert!(
                wire::decode::<Request>(&body[..cut]).is_err(),
                "{request:?} cut at {cut}"
            );
        }
    }
    let too_long = Request::Abort {
        code: 0,
        message: "x".repeat(wire::MAX_MESSAGE),
    };
    assert!(wire::encode(&too_long, 0).is_err());
    assert!(wire::encode(&Request::Goodbye, wire::MAX_FILES + 1).is_err());
    // The largest job's welcome fits a message.
    let members = (0..crate::control::MAX_WORLD)
        .map(|rank| Member {
            rank,
            node: u32::MAX,
            place: Place::Ve(u32::MAX),
        })
        .collect();
    let greeted = wire::Greeted {
        job: JobId([0xff; 16]),
        node: 0,
        nodes: 1,
        members,
        ves: 8,
    };
    wire::encode(&Reply::Welcome(greeted), 1).unwrap();
    assert_eq!(
        wire::shorten(&"ä".repeat(wire::MAX_REASON)).len(),
        wire::MAX_REASON
    );
}

/// A valid request with a few bytes changed, framed rightly: it reaches the handlers.
#[test]
fn mutated_requests_never_harm_the_service() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let requests: Vec<Vec<u8>> = [
        Request::Abort {
            code: 3,
            message: "reason".into(),
        },
        Request::Deposit,
        Request::Withdraw {
            token: Token([1; 16]),
        },
        Request::Revoke {
            token: Token([1; 16]),
        },
        Request::GatherPart {
            round: 0,
            rank: 0,
            blob: vec![1; 40],
        },
        Request::GatherCollect { round: 0, have: 0 },
        Request::Ve(windlass_ve::Request::Hello),
        Request::Ve(windlass_ve::Request::Memory { ve: 0 }),
        Request::Ve(windlass_ve::Request::Allocate {
            len: 1,
            page: windlass_ve::PageSize::M2,
        }),
        Request::Ve(windlass_ve::Request::Release {
            ticket: windlass_ve::Ticket(1),
        }),
    ]
    .iter()
    .map(|request| wire::encode(request, 0).unwrap())
    .collect();
    let one = (
        0..requests.len(),
        proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
    );
    let many = proptest::collection::vec(one, 1..20);
    let config = Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&many, |sequence| {
            let nodes = nodes(&[2, 1]);
            let (other, _) = nodes.join(0, 1);
            let mut socket = joined(&nodes);
            for (which, changes) in sequence {
                let mut body = requests[which].clone();
                for (at, byte) in changes {
                    let at = usize::from(at) % body.len();
                    body[at] = byte;
                }
                if socket.write_all(&frame(&body)).is_err() {
                    break;
                }
                match windlass_wire::read_frame(&mut socket, wire::MAX_MESSAGE) {
                    Ok(Some(reply)) => drop(wire::decode::<Reply>(&reply).unwrap()),
                    _ => break,
                }
            }
            drop(socket);
            let file = tempfile::tempfile().unwrap();
            other.deposit(&file).unwrap();
            let ends = [Event::Lost { rank: 0 }, Event::Ended { rank: 0 }];
            while !ends.contains(&nodes.event(0)) {}
            Ok(())
        })
        .unwrap();
}
