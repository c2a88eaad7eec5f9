//! Connections that are not of the job, or not of this protocol, or never finish (reliability.md S2, S3, S5, S7).

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::*;
use windlass_dat::*;
use windlass_wire::auth;

/// Steps until the stream is closed by the other side; answers what it sent before.
fn closed(pair: &Pair, stream: &mut TcpStream) -> Vec<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    pair.until("the close", || {
        let mut chunk = [0; 512];
        match stream.read(&mut chunk) {
            Ok(0) => Some(()),
            Ok(n) => {
                got.extend_from_slice(&chunk[..n]);
                None
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(_) => Some(()),
        }
    });
    got
}

fn stranger(pair: &Pair) -> TcpStream {
    TcpStream::connect(pair.b.ia.local_addr()).unwrap()
}

/// A connection that has proved itself, for hand-made frames.
fn insider(pair: &Pair, secret: &Secret) -> TcpStream {
    let mut stream = stranger(pair);
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    std::thread::scope(|scope| {
        let handshake = scope.spawn(|| auth::connect(&mut stream, secret));
        while !handshake.is_finished() {
            pair.step();
        }
        handshake.join().unwrap().unwrap();
    });
    stream
}

fn frame(kind: u8, flags: u8, len: u32, context: u32, ack: u32, address: u64) -> Vec<u8> {
    let mut bytes = vec![kind, flags, 0, 0];
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&context.to_le_bytes());
    bytes.extend_from_slice(&ack.to_le_bytes());
    bytes.extend_from_slice(&address.to_le_bytes());
    bytes
}

fn connect_frame(qualifier: u64) -> Vec<u8> {
    frame(1, 0, 0, u32::from_le_bytes(*b"WDA\x02"), 0, qualifier)
}

fn assert_alive(pair: &Pair) {
    let (ep, _peer) = pair.connect();
    ep.post_rdma_write_inline(&[], 1, RemoteSegment::default(), Flags::DEFAULT)
        .unwrap();
    assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    drop(ep);
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
    while pair.a.evd.dequeue().is_some() {}
}

#[test]
fn garbage_is_closed_without_a_word() {
    let pair = Pair::new();
    let hellos: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
        &[
            0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
        ]
        .repeat(8),
        &[0; 4096],
        &pattern(100_000, 4),
    ];
    for bytes in hellos {
        let mut stream = stranger(&pair);
        let _ = stream.write_all(bytes);
        assert!(closed(&pair, &mut stream).is_empty());
    }
    assert_alive(&pair);
}

#[test]
fn wrong_secrets_replays_and_reflections_are_refused() {
    let pair = Pair::new();
    // Another job's secret: its initiator sees NON_PEER_REJECTED, ours nothing.
    let other = Side::new(&Secret::random());
    let ep = other.ep();
    ep.connect(pair.b.ia.local_addr(), 7, Some(WATCHDOG), &[])
        .unwrap();
    let event = pair.until("the refusal", || {
        other.ia.step();
        other.evd.dequeue()
    });
    assert!(
        matches!(
            event,
            Event::Connection {
                kind: ConnectionKind::NonPeerRejected,
                ..
            }
        ),
        "{event:?}"
    );
    assert_eq!(ep.state(), EpState::Disconnected);
    // A hand-made initiator that skips its own check.
    let (_, hello) = auth::Initiator::new(&Secret::random());
    let mut stream = stranger(&pair);
    stream.write_all(&hello).unwrap();
    stream.write_all(&[7; auth::PROOF]).unwrap();
    let seen = closed(&pair, &mut stream).len();
    assert!(seen == 0 || seen == auth::CHALLENGE, "{seen} bytes told");
    // Reflection: the responder's own code as proof.
    let mut stream = stranger(&pair);
    stream.write_all(&hello).unwrap();
    let mut challenge = [0; auth::CHALLENGE];
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    while stream.read_exact(&mut challenge).is_err() {
        pair.step();
    }
    stream
        .write_all(&challenge[auth::CHALLENGE - auth::PROOF..])
        .unwrap();
    assert!(closed(&pair, &mut stream).is_empty());
    assert!(pair.b.evd.dequeue().is_none());
    assert_alive(&pair);
}

#[test]
fn slow_and_silent_strangers_are_closed_in_time_and_cannot_crowd_out() {
    let pair = Pair::new();
    let mut crowd = Vec::new();
    // A machine that stands still meanwhile shows nothing: there are more tries than one.
    let quick = (0..5).any(|_| {
        let start = Instant::now();
        crowd.extend((0..300).map(|_| stranger(&pair)));
        let mut slow = stranger(&pair);
        slow.write_all(b"W").unwrap();
        crowd.push(slow);
        for _ in 0..50 {
            pair.step();
        }
        assert_alive(&pair);
        start.elapsed() < Duration::from_secs(2)
    });
    assert!(quick, "a full house delays a peer");
    for stream in &mut crowd {
        closed(&pair, stream);
    }
    // The timer alone makes the descriptor readable: a sleeper would have been woken.
    let begin = Instant::now();
    let mut late = stranger(&pair);
    while pair.step() {}
    let mut fds = [rustix::event::PollFd::new(
        &pair.b.ia,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec::try_from(WATCHDOG).unwrap();
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)), Ok(1));
    assert!(begin.elapsed() >= Duration::from_secs(1));
    closed(&pair, &mut late);
    assert_alive(&pair);
}

#[test]
fn peers_that_break_the_protocol_are_dropped() {
    let secret = Secret::random();
    let pair = Pair {
        a: Side::new(&secret),
        b: Side::new(&secret),
    };
    let (bytes, exposed) = pair.b.region(4096, Privileges::ALL);
    let context = exposed.rmr_context();
    let at = exposed.address();
    // Instead of a connection request.
    for wrong in [
        frame(4, 0, 8, 1, 0, 0),
        frame(1, 0, 257, 0, 0, 7),
        frame(1, 0, 0, 1, 0, 7),
        vec![0xFF; 24],
    ] {
        let mut stream = insider(&pair, &secret);
        stream.write_all(&wrong).unwrap();
        assert!(closed(&pair, &mut stream).is_empty());
    }
    // No such service: rejected, flag 1.
    let mut stream = insider(&pair, &secret);
    stream.write_all(&connect_frame(99)).unwrap();
    let answer = closed(&pair, &mut stream);
    assert_eq!(answer[..2], [3, 1]);
    // After the accept.
    let after: Vec<Vec<u8>> = vec![
        frame(8, 0, 8, 0, 0, 0),              // more of no request
        frame(9, 0, 8, 0, 0, 0),              // more of no answer
        frame(7, 0, 8, 0, 0, 0),              // data nobody asked for
        frame(11, 0, 0, 0, 0, 0),             // atomic's answer likewise
        frame(12, 0, 0, 0, 1, 0),             // acknowledges what was not sent
        frame(12, 0, 0, 0, u32::MAX, 0),      // likewise
        frame(6, 0, 8, 0, 0, 0),              // send without credit
        frame(13, 9, 0, 0, 0, 0),             // fault of no meaning
        frame(12, 1, 0, 0, 0, 0),             // flags of no meaning
        frame(8, 0, 128 * 1024 + 1, 0, 0, 0), // chunk too long
        frame(10, 0, 8, context, 0, at),      // atomic with one operand
        [frame(4, 0, 200_000, context, 0, at), vec![0; 10]].concat(), // out of bounds: a fault
        [
            frame(4, 0, 4096, context, 0, at),
            frame(5, 0, 8, context, 0, at),
        ]
        .concat(),
        frame(5, 0, 0, 0, 0, 0).repeat(2000), // reads without end (the first are answered)
    ];
    for wrong in after {
        let mut stream = insider(&pair, &secret);
        stream.write_all(&connect_frame(7)).unwrap();
        let Event::ConnectionRequest(cr) = pair.event(&pair.b) else {
            panic!()
        };
        let ep = pair.b.ep();
        cr.accept(&ep, &[]).unwrap();
        let mut bytes = frame(12, 0, 0, 0, 0, 0);
        bytes.extend_from_slice(&wrong);
        if wrong.len() == 4096 + 24 {
            bytes.truncate(24 + 24 + 8);
        }
        stream.write_all(&bytes).unwrap();
        assert_eq!(pair.connection(&pair.b), ConnectionKind::Established);
        if wrong.len() == 48 {
            drop(stream); // the write's payload never comes whole
        }
        let kind = pair.connection(&pair.b);
        assert!(
            matches!(kind, ConnectionKind::Broken | ConnectionKind::Disconnected),
            "{kind:?} for {wrong:?}"
        );
        assert_eq!(ep.state(), EpState::Disconnected);
    }
    let mut seen = [0; 4096];
    bytes.read(0, &mut seen).unwrap();
    assert!(seen[24..].iter().all(|byte| *byte == 0));
    assert_alive(&pair);
}

#[test]
fn random_frames_of_a_peer_never_hurt() {
    let secret = Secret::random();
    let pair = Pair {
        a: Side::new(&secret),
        b: Side::new(&secret),
    };
    let (_, exposed) = pair
        .b
        .region(1 << 16, Privileges::ALL | Privileges::REMOTE_ATOMIC);
    for seed in 0..150u64 {
        let mut stream = insider(&pair, &secret);
        stream.write_all(&connect_frame(7)).unwrap();
        let Event::ConnectionRequest(cr) = pair.event(&pair.b) else {
            panic!()
        };
        let (_, inbox) = pair.b.region(64, Privileges::ALL);
        let place = [inbox.segment(0, 64)];
        let srq = Srq::create(&pair.b.pz, 4).unwrap();
        let ep = if seed % 2 == 0 {
            pair.b.ep()
        } else {
            let evd = Some(&pair.b.evd);
            Ep::create_with_srq(&pair.b.pz, evd, evd, evd, &srq, EpAttr::default()).unwrap()
        };
        cr.accept(&ep, &[]).unwrap();
        if ep.post_recv(&place, 0, Flags::DEFAULT).is_err() {
            srq.post_recv(&place, 0).unwrap();
        }
        let rmr = Rmr::create(&pair.b.pz, RmrScope::Ep).unwrap();
        // The peer's first frame establishes; then the window is bound.
        stream.write_all(&frame(12, 0, 0, 0, 0, 0)).unwrap();
        pair.until("the connection", || {
            (ep.state() == EpState::Connected).then_some(())
        });
        let rights = Privileges::REMOTE_READ | Privileges::REMOTE_WRITE;
        let part = exposed.segment(0, 64);
        let window = rmr.bind(
            &exposed,
            part,
            rights,
            VaType::Virtual,
            &ep,
            0,
            Flags::SUPPRESS,
        );
        let window = window.unwrap();
        let noise = pattern(4000, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut bytes = frame(12, 0, 0, 0, 0, 0);
        for draw in noise.chunks_exact(40) {
            // Mostly plausible headers, with mutated fields.
            let kind = if draw[0] < 240 {
                4 + draw[0] % 12
            } else {
                draw[0]
            };
            let len = if draw[1] < 200 {
                u32::from(draw[2])
            } else {
                u32::from_le_bytes([draw[2], draw[3], draw[4], draw[5]])
            };
            let context = if kind == 6 && draw[6] < 180 {
                0 // a message that ends no window
            } else if draw[6] % 4 == 0 {
                window
            } else if draw[6] < 200 {
                exposed.rmr_context()
            } else {
                u32::from_le_bytes([draw[7], draw[8], 0, 0])
            };
            let address = if draw[9] < 200 {
                exposed.address() + u64::from(draw[10]) * 8
            } else {
                u64::from_le_bytes(draw[11..19].try_into().unwrap())
            };
            bytes.extend(frame(
                kind,
                u8::from(draw[20] > 220),
                len,
                context,
                u32::from(draw[21] > 250),
                address,
            ));
            bytes.extend(std::iter::repeat_n(
                draw[22],
                if kind == 4 || kind == 6 {
                    len.min(300) as usize
                } else {
                    0
                },
            ));
        }
        let _ = stream.write_all(&bytes);
        drop(stream);
        pair.until("the end of the connection", || {
            (ep.state() == EpState::Disconnected).then_some(())
        });
        while pair.b.evd.dequeue().is_some() {}
    }
    assert_alive(&pair);
}

/// A port that nobody listens on, and nobody else gets meanwhile.
fn deaf() -> (rustix::fd::OwnedFd, std::net::SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    bind(&socket, &any).unwrap();
    let at = getsockname(&socket).unwrap().try_into().unwrap();
    (socket, at)
}

#[test]
fn connecting_fails_as_the_table_says() {
    let pair = Pair::new();
    // Nothing listens.
    let ep = pair.a.ep();
    let (_kept, free) = deaf();
    ep.connect(free, 7, Some(WATCHDOG), &[]).unwrap();
    assert_eq!(ep.state(), EpState::ActiveConnectionPending);
    assert_eq!(
        ep.connect(free, 7, None, &[]).unwrap_err(),
        Error::state(Subtype::EpActConnPending)
    );
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Unreachable);
    // Somebody listens and never answers.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    ep.reset().unwrap();
    ep.connect(
        mute.local_addr().unwrap(),
        7,
        Some(Duration::from_millis(50)),
        &[],
    )
    .unwrap();
    assert_eq!(pair.connection(&pair.a), ConnectionKind::TimedOut);
    // Somebody listens and hangs up, again and again.
    ep.reset().unwrap();
    let rude = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rude.set_nonblocking(true).unwrap();
    ep.connect(
        rude.local_addr().unwrap(),
        7,
        Some(Duration::from_secs(1)),
        &[],
    )
    .unwrap();
    let mut visits = 0;
    let event = pair.until("giving up", || {
        visits += usize::from(rude.accept().is_ok());
        pair.a.evd.dequeue()
    });
    assert!(
        matches!(
            event,
            Event::Connection {
                kind: ConnectionKind::TimedOut,
                ..
            }
        ),
        "{event:?}"
    );
    assert!(visits > 2, "a full house is tried again");
    // The consumer rejects, with data; no such service; a request nobody takes.
    ep.reset().unwrap();
    ep.connect(pair.b.ia.local_addr(), 7, None, b"please")
        .unwrap();
    let Event::ConnectionRequest(cr) = pair.event(&pair.b) else {
        panic!()
    };
    cr.reject(b"no").unwrap();
    assert_eq!(cr.reject(b"no").unwrap_err(), Error::handle(Subtype::Cr));
    match pair.event(&pair.a) {
        Event::Connection {
            kind, private_data, ..
        } => {
            assert_eq!(
                (kind, &*private_data),
                (ConnectionKind::PeerRejected, &b"no"[..])
            );
        }
        other => panic!("{other:?}"),
    }
    ep.reset().unwrap();
    ep.connect(pair.b.ia.local_addr(), 8, None, &[]).unwrap();
    assert_eq!(pair.connection(&pair.a), ConnectionKind::NonPeerRejected);
    ep.reset().unwrap();
    ep.connect(pair.b.ia.local_addr(), 7, None, &[]).unwrap();
    drop(pair.event(&pair.b));
    assert_eq!(pair.connection(&pair.a), ConnectionKind::NonPeerRejected);
    // The initiator leaves before the answer: the request is stale.
    ep.reset().unwrap();
    ep.connect(pair.b.ia.local_addr(), 7, None, &[]).unwrap();
    let Event::ConnectionRequest(cr) = pair.event(&pair.b) else {
        panic!()
    };
    ep.disconnect(CloseFlags::Abrupt).unwrap();
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Disconnected);
    while pair.step() {}
    let accepting = pair.b.ep();
    assert_eq!(
        cr.accept(&accepting, &[]).unwrap_err(),
        Error::handle(Subtype::Cr)
    );
    assert_eq!(accepting.state(), EpState::Unconnected);
    assert_eq!(
        accepting.disconnect(CloseFlags::Abrupt).unwrap_err(),
        Error::state(Subtype::EpUnconnected)
    );
    // It leaves after the accept, before it saw it.
    ep.reset().unwrap();
    ep.connect(pair.b.ia.local_addr(), 7, None, &[]).unwrap();
    let Event::ConnectionRequest(cr) = pair.event(&pair.b) else {
        panic!()
    };
    cr.accept(&accepting, &[]).unwrap();
    assert_eq!(accepting.state(), EpState::CompletionPending);
    ep.disconnect(CloseFlags::Abrupt).unwrap();
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Disconnected);
    assert_eq!(
        pair.connection(&pair.b),
        ConnectionKind::AcceptCompletionError
    );
}

#[test]
fn a_peer_that_trickles_is_served_as_well() {
    let secret = Secret::random();
    let pair = Pair {
        a: Side::new(&secret),
        b: Side::new(&secret),
    };
    let (bytes, exposed) = pair.b.region(1 << 18, Privileges::ALL);
    let mut stream = insider(&pair, &secret);
    stream.set_nodelay(true).unwrap();
    stream.write_all(&connect_frame(7)).unwrap();
    let Event::ConnectionRequest(cr) = pair.event(&pair.b) else {
        panic!()
    };
    let ep = pair.b.ep();
    cr.accept(&ep, &[]).unwrap();
    let mut accepted = [0; 24];
    stream
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    while stream.read_exact(&mut accepted).is_err() {
        pair.step();
    }
    assert_eq!(accepted[0], 2);
    // A write of 140,000 bytes in two chunks, cut at odd places; a read; another write.
    let (context, at) = (exposed.rmr_context(), exposed.address());
    let data = pattern(140_000, 17);
    let chunk = 128 * 1024;
    let mut sent = frame(12, 0, 0, 0, 0, 0);
    sent.extend(frame(4, 0, 140_000, context, 0, at + 1));
    sent.extend(&data[..chunk]);
    sent.extend(frame(8, 0, (140_000 - chunk) as u32, 0, 0, 0));
    sent.extend(&data[chunk..]);
    sent.extend(frame(5, 0, 16, context, 0, at + 1));
    sent.extend(frame(4, 0, 3, context, 0, at));
    sent.extend(b"end");
    let mut rest = &sent[..];
    for size in (1..).map(|round| if round < 90 { 1 } else { round * 37 % 9000 }) {
        let (piece, later) = rest.split_at(size.min(rest.len()));
        stream.write_all(piece).unwrap();
        rest = later;
        pair.step();
        if rest.is_empty() {
            break;
        }
    }
    let mut word = [0; 3];
    pair.until("the last write", || {
        bytes.read(0, &mut word).unwrap();
        // Its first byte is overwritten by the end.
        (&word == b"end").then_some(())
    });
    let mut seen = vec![0; 140_000 - 2];
    bytes.read(3, &mut seen).unwrap();
    assert!(seen == data[2..]);
    // Everything is answered: the read's data came before the last acknowledgement.
    let mut answers = Vec::new();
    pair.until("the answers", || {
        let mut chunk = [0; 256];
        if let Ok(n) = stream.read(&mut chunk) {
            answers.extend_from_slice(&chunk[..n]);
        }
        (answers.len() >= 24 && answers[answers.len() - 12..][..4] == [3, 0, 0, 0]).then_some(())
    });
    // A read may be sampled after later writes have begun (rule 5 of section 4.7).
    let data_at = answers
        .windows(14)
        .position(|window| window == &data[2..16])
        .expect("the read's data");
    assert_eq!(answers[data_at - 2 - 24], 7);
}
