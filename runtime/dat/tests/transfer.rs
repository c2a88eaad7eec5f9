//! What endpoints do when nothing goes wrong.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::*;
use windlass_dat::*;

#[test]
fn writes_and_reads_of_many_sizes() {
    let pair = Pair::new();
    let (ep, _peer) = pair.connect();
    let size = 5 << 20;
    let (source, local) = pair.a.region(size, Privileges::ALL);
    let (target, exposed) = pair.b.region(size, Privileges::ALL);
    for (round, len) in [1, 8, 24, 4096, 131_072, 131_073, 300_000, 4 << 20]
        .into_iter()
        .enumerate()
    {
        let data = pattern(len, 7 + round as u64);
        let offset = round * 13;
        source.write(offset, &data).unwrap();
        let to = remote(&exposed, offset as u64 + 5, len as u32);
        ep.post_rdma_write(
            &[local.segment(offset as u64, len as u32)],
            1,
            to,
            Flags::DEFAULT,
        )
        .unwrap();
        let done = pair.dto(&pair.a);
        assert_eq!(
            (done.status, done.cookie, done.length),
            (DtoStatus::Success, 1, len as u32)
        );
        assert_eq!(done.operation, DtoOperation::RdmaWrite);
        let mut seen = vec![0; len];
        target.read(offset + 5, &mut seen).unwrap();
        assert!(seen == data, "a completed write is in the target's memory");

        source.fill(0, size, 0xEE).unwrap();
        ep.post_rdma_read(&[local.segment(3, len as u32)], 2, to, Flags::DEFAULT)
            .unwrap();
        let done = pair.dto(&pair.a);
        assert_eq!(
            (done.status, done.cookie, done.length),
            (DtoStatus::Success, 2, len as u32)
        );
        source.read(3, &mut seen).unwrap();
        assert!(seen == data, "read data is in the local memory");
        let mut beyond = [0; 3];
        source.read(3 + len, &mut beyond).unwrap();
        assert_eq!(beyond, [0xEE; 3]);
    }
    let (posted, completed) = ep.counts();
    assert_eq!((posted, completed), (16, 16));
}

#[test]
fn several_segments_are_walked_in_order() {
    let pair = Pair::new();
    let (ep, _peer) = pair.connect();
    let (source, local) = pair.a.region(400_000, Privileges::ALL);
    let (target, exposed) = pair.b.region(400_000, Privileges::ALL);
    let data = pattern(300_003, 3);
    source.write(0, &data).unwrap();
    let iov = [
        local.segment(100_000, 200_003),
        LocalSegment::default(),
        local.segment(0, 100_000),
    ];
    ep.post_rdma_write(&iov, 1, remote(&exposed, 0, 400_000), Flags::DEFAULT)
        .unwrap();
    assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    let mut seen = vec![0; 300_003];
    target.read(0, &mut seen).unwrap();
    assert!(seen[..200_003] == data[100_000..] && seen[200_003..] == data[..100_000]);
    source.fill(0, 400_000, 0).unwrap();
    ep.post_rdma_read(&iov, 2, remote(&exposed, 0, 300_003), Flags::DEFAULT)
        .unwrap();
    assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    source.read(0, &mut seen).unwrap();
    assert!(seen == data);
}

#[test]
fn requests_complete_in_post_order_with_reads_between() {
    let pair = Pair::new();
    let (ep, _peer) = pair.connect();
    let (_, local) = pair.a.region(1 << 20, Privileges::ALL);
    let (_, exposed) = pair
        .b
        .region(1 << 20, Privileges::ALL | Privileges::REMOTE_ATOMIC);
    let mut state = 99u64;
    for cookie in 0..2000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let len = [8, 100, 3000, 200_000][(state >> 40) as usize % 4];
        let flags = if state >> 60 == 0 {
            Flags::BARRIER_FENCE
        } else {
            Flags::MORE
        };
        let to = remote(&exposed, 0, len);
        match (state >> 50) % 3 {
            0 => ep
                .post_rdma_write(&[local.segment(0, len)], cookie, to, flags)
                .unwrap(),
            1 => ep
                .post_rdma_read(&[local.segment(0, len)], cookie, to, flags)
                .unwrap(),
            _ => ep
                .post_fetch_add(
                    local.segment(0, 8),
                    cookie,
                    remote(&exposed, 8, 8),
                    1,
                    flags,
                )
                .unwrap(),
        }
    }
    for cookie in 0..2000 {
        let done = pair.dto(&pair.a);
        assert_eq!((done.cookie, done.status), (cookie, DtoStatus::Success));
    }
}

#[test]
fn suppressed_and_inline_writes_are_counted() {
    let pair = Pair::new();
    let (ep, _peer) = pair.connect();
    let (target, exposed) = pair.b.region(1 << 20, Privileges::ALL);
    for word in 0..1000u64 {
        let to = remote(&exposed, word * 8, 8);
        ep.post_rdma_write_inline(&word.to_le_bytes(), 0, to, Flags::SUPPRESS | Flags::MORE)
            .unwrap();
    }
    assert_eq!(ep.counts().0, 1000);
    ep.push();
    pair.until("all writes", || (ep.counts() == (1000, 1000)).then_some(()));
    for word in 0..1000u64 {
        let mut seen = [0; 8];
        target.read(word as usize * 8, &mut seen).unwrap();
        assert_eq!(u64::from_le_bytes(seen), word);
    }
    assert!(pair.a.evd.dequeue().is_none());
    // More copies than may wait: refused, and possible again later.
    let block = pattern(INLINE_MAX, 5);
    let mut refused = 0;
    for _ in 0..200 {
        while let Err(why) = ep.post_rdma_write_inline(
            &block,
            0,
            remote(&exposed, 0, INLINE_MAX as u32),
            Flags::SUPPRESS,
        ) {
            assert_eq!(why.code(), 0x8003_0002);
            refused += 1;
            pair.step();
        }
    }
    assert!(refused > 0);
    pair.until("all blocks", || (ep.counts() == (1200, 1200)).then_some(()));
}

/// What may wait for company goes at once where nothing is on its way that would send it later, however much
/// waits already: the origin makes no further call.
#[test]
fn company_that_waits_itself_is_not_waited_for() {
    let pair = Pair::new();
    let (ep, peer) = pair.connect();
    let (target, inbox) = pair.b.region(4096, Privileges::ALL);
    let arrived = |what: &str| {
        let start = std::time::Instant::now();
        loop {
            pair.b.ia.step();
            match pair.b.evd.dequeue() {
                Some(Event::Dto(done)) => return done,
                Some(other) => panic!("{other:?}"),
                None => assert!(start.elapsed() < WATCHDOG, "{what} was held back"),
            }
        }
    };
    for round in 1..=20u64 {
        for cookie in 0..2 {
            peer.post_recv(&[inbox.segment(0, 16)], cookie, Flags::DEFAULT)
                .unwrap();
        }
        // The credits, and the last round's acknowledgements.
        pair.until("the end of a round", || {
            (ep.counts().0 == ep.counts().1).then_some(())
        });
        let to = remote(&inbox, 800, 8);
        let (more, together) = (
            Flags::SUPPRESS | Flags::MORE,
            Flags::SUPPRESS | Flags::COALESCE,
        );
        ep.post_rdma_write_inline(&round.to_le_bytes(), 0, to, more)
            .unwrap();
        ep.post_send_inline(&[1], 0, together).unwrap();
        arrived("the first message");
        let mut seen = [0; 8];
        target.read(800, &mut seen).unwrap();
        assert_eq!(u64::from_le_bytes(seen), round);
        // The first is on its way, as far as the origin knows: the second may wait until that is told.
        ep.post_send_inline(&[2], 0, together).unwrap();
        let second = pair.until("the second message", || pair.b.evd.dequeue());
        assert!(matches!(second, Event::Dto(_)));
    }
}

#[test]
fn sends_wait_for_receives_and_carry_order() {
    let pair = Pair::new();
    let (ep, peer) = pair.connect();
    let (source, local) = pair.a.region(1 << 20, Privileges::ALL);
    let (target, inbox) = pair.b.region(1 << 20, Privileges::ALL);
    let data = pattern(500_000, 11);
    source.write(0, &data).unwrap();
    ep.post_send(&[local.segment(0, 500_000)], 1, Flags::DEFAULT)
        .unwrap();
    ep.post_rdma_write(
        &[local.segment(0, 8)],
        2,
        remote(&inbox, 600_000, 8),
        Flags::DEFAULT,
    )
    .unwrap();
    // The other direction is not held up by the waiting send.
    let (_, back) = pair.b.region(64, Privileges::ALL);
    peer.post_rdma_write(
        &[back.segment(0, 64)],
        9,
        remote(&local, 900_000, 64),
        Flags::DEFAULT,
    )
    .unwrap();
    assert_eq!(pair.dto(&pair.b).cookie, 9);
    for _ in 0..50 {
        pair.step();
    }
    assert!(pair.a.evd.dequeue().is_none(), "no receive, no completion");
    peer.post_recv(&[inbox.segment(0, 600_000)], 5, Flags::DEFAULT)
        .unwrap();
    let received = pair.dto(&pair.b);
    assert_eq!(
        (received.cookie, received.length, received.status),
        (5, 500_000, DtoStatus::Success)
    );
    assert_eq!(received.operation, DtoOperation::Receive);
    let mut seen = vec![0; 500_000];
    target.read(0, &mut seen).unwrap();
    assert!(seen == data);
    assert_eq!(pair.dto(&pair.a).cookie, 1);
    assert_eq!(pair.dto(&pair.a).cookie, 2);
    // Receives posted first, with MORE, are told by the next frame.
    for cookie in 0..10 {
        peer.post_recv(&[inbox.segment(0, 16)], cookie, Flags::MORE)
            .unwrap();
    }
    for cookie in 0..10u64 {
        ep.post_send_inline(&cookie.to_le_bytes(), 100 + cookie, Flags::SUPPRESS)
            .unwrap();
    }
    for cookie in 0..10 {
        let received = pair.dto(&pair.b);
        assert_eq!((received.cookie, received.length), (cookie, 8));
    }
    // Write, then send: the data is there when the receive completes.
    for round in 0..200u64 {
        peer.post_recv(&[inbox.segment(0, 16)], round, Flags::DEFAULT)
            .unwrap();
        ep.post_rdma_write_inline(
            &round.to_le_bytes(),
            0,
            remote(&inbox, 800_000, 8),
            Flags::SUPPRESS,
        )
        .unwrap();
        ep.post_send_inline(&[], 0, Flags::SUPPRESS).unwrap();
        assert_eq!(pair.dto(&pair.b).cookie, round);
        let mut word = [0; 8];
        target.read(800_000, &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), round);
    }
}

/// The acknowledgement of an answered receive's message, and its credit, go with the answer and not before.
#[test]
fn what_is_answered_is_acknowledged_by_the_answer() {
    let pair = Pair::new();
    let (ep, peer) = pair.connect();
    let (_, inbox) = pair.b.region(64, Privileges::ALL);
    let (_, answers) = pair.a.region(64, Privileges::ALL);
    // Established by a frame of the initiator: from here on, only what is posted makes frames.
    ep.post_recv(&[answers.segment(0, 16)], 0, Flags::ANSWERED)
        .unwrap();
    peer.post_recv(&[inbox.segment(0, 16)], 0, Flags::DEFAULT)
        .unwrap();
    ep.post_send_inline(&[1; 8], 1, Flags::DEFAULT).unwrap();
    assert_eq!(pair.dto(&pair.b).cookie, 0);
    assert_eq!(pair.dto(&pair.a).cookie, 1, "acknowledged by itself");
    for round in 2..20 {
        peer.post_recv(&[inbox.segment(0, 16)], round, Flags::ANSWERED)
            .unwrap();
        for _ in 0..20 {
            pair.step();
        }
        // The credit was not told, so this waits for the next post of the peer, which tells it.
        ep.post_send_inline(&[1; 8], round, Flags::DEFAULT).unwrap();
        for _ in 0..20 {
            pair.step();
        }
        assert!(pair.b.evd.dequeue().is_none(), "sent without a credit");
        peer.post_send_inline(&[2; 8], round, Flags::SUPPRESS)
            .unwrap();
        assert_eq!(pair.dto(&pair.a).operation, DtoOperation::Receive);
        assert_eq!(pair.dto(&pair.b).cookie, round);
        for _ in 0..20 {
            pair.step();
        }
        assert!(pair.a.evd.dequeue().is_none(), "told without an answer");
        // Told by the answer; its own receive comes back with the next message.
        ep.post_recv(&[answers.segment(0, 16)], round, Flags::ANSWERED)
            .unwrap();
        peer.post_rdma_write_inline(&[3; 8], 0, remote(&answers, 16, 8), Flags::SUPPRESS)
            .unwrap();
        assert_eq!(pair.dto(&pair.a).cookie, round);
    }
    // So is what came right before it; what comes after it is acknowledged by itself, with all before.
    for (before, after) in [(50, None), (60, Some(62))] {
        peer.post_recv(&[inbox.segment(0, 16)], before, Flags::ANSWERED)
            .unwrap();
        let tell =
            || peer.post_rdma_write_inline(&[3], 0, remote(&answers, 16, 1), Flags::SUPPRESS);
        tell().unwrap();
        while pair.step() {}
        let write =
            |cookie, flags| ep.post_rdma_write_inline(&[4], cookie, remote(&inbox, 32, 1), flags);
        write(before, Flags::MORE).unwrap();
        let flags = if after.is_some() {
            Flags::MORE
        } else {
            Flags::DEFAULT
        };
        ep.post_send_inline(&[5; 8], before + 1, flags).unwrap();
        if let Some(cookie) = after {
            write(cookie, Flags::DEFAULT).unwrap();
        }
        assert_eq!(pair.dto(&pair.b).cookie, before);
        while pair.step() {}
        if after.is_none() {
            assert!(pair.a.evd.dequeue().is_none(), "told without an answer");
            tell().unwrap();
        }
        for cookie in [Some(before), Some(before + 1), after]
            .into_iter()
            .flatten()
        {
            assert_eq!(pair.dto(&pair.a).cookie, cookie);
        }
    }
}

#[test]
fn both_directions_at_once_with_large_transfers() {
    let pair = Pair::new();
    let (ep, peer) = pair.connect();
    let size = 8 << 20;
    let (a_bytes, a) = pair.a.region(4 * size, Privileges::ALL);
    let (b_bytes, b) = pair.b.region(4 * size, Privileges::ALL);
    let (from_a, from_b) = (pattern(size, 21), pattern(size, 22));
    a_bytes.write(0, &from_a).unwrap();
    b_bytes.write(0, &from_b).unwrap();
    let len = size as u32;
    ep.post_rdma_write(
        &[a.segment(0, len)],
        1,
        remote(&b, size as u64, len),
        Flags::DEFAULT,
    )
    .unwrap();
    ep.post_rdma_read(
        &[a.segment(size as u64, len)],
        2,
        remote(&b, 0, len),
        Flags::DEFAULT,
    )
    .unwrap();
    peer.post_rdma_write(
        &[b.segment(0, len)],
        3,
        remote(&a, 2 * size as u64, len),
        Flags::DEFAULT,
    )
    .unwrap();
    peer.post_rdma_read(
        &[b.segment(2 * size as u64, len)],
        4,
        remote(&a, 0, len),
        Flags::DEFAULT,
    )
    .unwrap();
    for (side, cookies) in [(&pair.a, [1, 2]), (&pair.b, [3, 4])] {
        for cookie in cookies {
            let done = pair.dto(side);
            assert_eq!((done.cookie, done.status), (cookie, DtoStatus::Success));
        }
    }
    let check = |bytes: &windlass_mem::SharedBytes, offset: usize, expected: &[u8]| {
        let mut seen = vec![0; size];
        bytes.read(offset, &mut seen).unwrap();
        assert!(seen == expected);
    };
    check(&b_bytes, size, &from_a);
    check(&a_bytes, size, &from_b);
    check(&a_bytes, 2 * size, &from_b);
    check(&b_bytes, 2 * size, &from_a);
}

#[test]
fn atomics_answer_the_value_before() {
    let pair = Pair::new();
    let (ep, _peer) = pair.connect();
    let (result, local) = pair.a.region(64, Privileges::ALL);
    let (target, exposed) = pair
        .b
        .region(64, Privileges::ALL | Privileges::REMOTE_ATOMIC);
    target.write(8, &40u64.to_ne_bytes()).unwrap();
    let at = remote(&exposed, 8, 8);
    let word = |bytes: &windlass_mem::SharedBytes, offset| {
        let mut word = [0; 8];
        bytes.read(offset, &mut word).unwrap();
        u64::from_ne_bytes(word)
    };
    ep.post_fetch_add(local.segment(0, 8), 1, at, 2, Flags::DEFAULT)
        .unwrap();
    let done = pair.dto(&pair.a);
    assert_eq!(
        (done.status, done.operation, done.length),
        (DtoStatus::Success, DtoOperation::FetchAdd, 8)
    );
    assert_eq!((word(&result, 0), word(&target, 8)), (40, 42));
    ep.post_compare_swap(local.segment(0, 8), 2, at, (41, 1), Flags::DEFAULT)
        .unwrap();
    ep.post_compare_swap(local.segment(8, 8), 3, at, (42, 7), Flags::DEFAULT)
        .unwrap();
    assert_eq!(pair.dto(&pair.a).cookie, 2);
    assert_eq!(pair.dto(&pair.a).cookie, 3);
    assert_eq!(
        (word(&result, 0), word(&result, 8), word(&target, 8)),
        (42, 42, 7)
    );
}

#[test]
fn two_threads_serve_each_other() {
    let pair = Arc::new(Pair::new());
    let (ep, _peer) = pair.connect();
    let (_, local) = pair.a.region(1 << 20, Privileges::ALL);
    let (_, exposed) = pair.b.region(1 << 20, Privileges::ALL);
    let stop = Arc::new(AtomicBool::new(false));
    let target = {
        let (pair, stop) = (pair.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // Blocks in the dispatcher, as a helper without a poll loop would.
                let _ = pair
                    .b
                    .evd
                    .wait(Some(std::time::Duration::from_millis(5)), 1);
            }
        })
    };
    for round in 0..2000u64 {
        let len = if round % 50 == 0 { 1 << 20 } else { 64 };
        ep.post_rdma_write(
            &[local.segment(0, len)],
            round,
            remote(&exposed, 0, len),
            Flags::DEFAULT,
        )
        .unwrap();
        let (event, left) = pair.a.evd.wait(Some(WATCHDOG), 1).unwrap();
        let Event::Dto(done) = event else {
            panic!("{event:?}")
        };
        assert_eq!(
            (done.cookie, done.status, left),
            (round, DtoStatus::Success, 0)
        );
    }
    stop.store(true, Ordering::Relaxed);
    target.join().unwrap();
}

#[test]
fn several_threads_post_on_one_adapter() {
    let pair = Arc::new(Pair::new());
    let (target, exposed) = pair
        .b
        .region(1 << 16, Privileges::ALL | Privileges::REMOTE_ATOMIC);
    let (_, local) = pair.a.region(1 << 16, Privileges::ALL);
    let eps: Vec<_> = (0..4).map(|_| pair.connect()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (pair, stop, exposed, local) = (&pair, &stop, &exposed, &local);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                pair.b.ia.step();
            }
        });
        let workers: Vec<_> = eps
            .iter()
            .enumerate()
            .map(|(index, (ep, _))| {
                scope.spawn(move || {
                    let into = local.segment(index as u64 * 8, 8);
                    for _ in 0..500 {
                        ep.post_fetch_add(into, 0, remote(exposed, 0, 8), 1, Flags::SUPPRESS)
                            .unwrap();
                        while {
                            let (posted, completed) = ep.counts();
                            posted != completed
                        } {
                            pair.a.ia.step();
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut word = [0; 8];
    target.read(0, &mut word).unwrap();
    assert_eq!(u64::from_ne_bytes(word), 2000);
}

#[test]
fn many_endpoints() {
    let pair = Pair::new();
    let (target, exposed) = pair.b.region(4096, Privileges::ALL);
    let eps: Vec<_> = (0..150).map(|_| pair.connect()).collect();
    for (index, (ep, _)) in eps.iter().enumerate() {
        let to = remote(&exposed, index as u64 * 8, 8);
        ep.post_rdma_write_inline(
            &(index as u64).to_le_bytes(),
            index as u64,
            to,
            Flags::DEFAULT,
        )
        .unwrap();
    }
    for _ in 0..150 {
        assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    }
    for index in 0..150u64 {
        let mut word = [0; 8];
        target.read(index as usize * 8, &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), index);
    }
}

#[test]
fn zero_length_and_zero_based() {
    let pair = Pair::new();
    let (ep, peer) = pair.connect();
    // Rule 1 of section 4.7: no context is looked at.
    let nowhere = RemoteSegment {
        context: 0xDEAD_BEEF,
        address: u64::MAX,
        len: 0,
    };
    ep.post_rdma_write(&[], 1, nowhere, Flags::DEFAULT).unwrap();
    ep.post_rdma_read(
        &[LocalSegment {
            context: 5,
            address: 5,
            len: 0,
        }],
        2,
        nowhere,
        Flags::DEFAULT,
    )
    .unwrap();
    peer.post_recv(&[], 4, Flags::DEFAULT).unwrap();
    ep.post_send(&[], 3, Flags::DEFAULT).unwrap();
    for cookie in 1..=3 {
        let done = pair.dto(&pair.a);
        assert_eq!(
            (done.cookie, done.status, done.length),
            (cookie, DtoStatus::Success, 0)
        );
    }
    assert_eq!(pair.dto(&pair.b).cookie, 4);
    let bytes = memory(64);
    let zero = Lmr::create(
        Region::Virtual(bytes.clone()),
        &pair.b.pz,
        Privileges::ALL,
        VaType::ZeroBased,
    )
    .unwrap();
    let other = Lmr::create(
        Region::Lmr(&zero),
        &pair.b.pz,
        Privileges::ALL,
        VaType::Virtual,
    )
    .unwrap();
    assert_eq!((zero.address(), other.address()), (0, bytes.addr() as u64));
    assert_ne!(zero.rmr_context(), other.rmr_context());
    ep.post_rdma_write_inline(
        b"zero",
        5,
        RemoteSegment {
            context: zero.rmr_context(),
            address: 60,
            len: 4,
        },
        Flags::DEFAULT,
    )
    .unwrap();
    assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    let mut seen = [0; 4];
    bytes.read(60, &mut seen).unwrap();
    assert_eq!(&seen, b"zero");
}
