//! CNOs, windows, shared receive queues, reserved and made endpoints, shared registrations, the end of an adapter
//! (udapl.md sections 4.1 to 4.6), by the Rust API. The same by C over libdat2: the workspace's `tests/dat_rows.rs`.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::*;
use windlass_dat::*;
use windlass_mem::{MemFile, SharedBytes};

const MOMENT: Option<Duration> = Some(Duration::from_millis(5));

fn segment_of(rmr: u32, lmr: &Lmr, offset: u64, len: u32) -> RemoteSegment {
    RemoteSegment {
        context: rmr,
        address: lmr.address() + offset,
        len,
    }
}

fn bound(pair: &Pair, side: &Side) -> (RmrId, u64, DtoStatus) {
    match pair.event(side) {
        Event::Bind {
            rmr,
            cookie,
            status,
        } => (rmr, cookie, status),
        other => panic!("{other:?} instead of a bind"),
    }
}

#[test]
fn a_cno_wakes_one_of_many_and_dies_for_all() {
    let ia = adapter(&Secret::random());
    let cno = Arc::new(Cno::create(&ia).unwrap());
    let evds = [(); 2].map(|()| Evd::create(&ia, 4, EvdFlags::SOFTWARE).unwrap());
    for evd in &evds {
        evd.set_cno(Some(&cno)).unwrap();
    }
    assert_eq!(cno.wait(MOMENT).unwrap_err().kind, Type::QueueEmpty);
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let cno = cno.clone();
            std::thread::spawn(move || cno.wait(Some(WATCHDOG)))
        })
        .collect();
    while cno.free() != Err(Error::state(Subtype::CnoInUse)) {
        std::thread::yield_now();
    }
    evds[1].post_software(7).unwrap();
    while waiters.iter().filter(|waiter| waiter.is_finished()).count() == 0 {
        std::thread::yield_now();
    }
    cno.kill();
    let ends: Vec<_> = waiters
        .into_iter()
        .map(|waiter| waiter.join().unwrap())
        .collect();
    let got = ends.iter().filter(|end| **end == Ok(evds[1].name()));
    assert_eq!(got.count(), 1, "{ends:?}");
    let dead = Err(Error::state(Subtype::CnoDead));
    assert_eq!(ends.iter().filter(|end| **end == dead).count(), 2);
    assert_eq!(cno.wait(None), dead);
    assert_eq!(cno.take(), Err(Error::state(Subtype::CnoDead)));
}

#[test]
fn a_dispatcher_that_goes_takes_its_trigger_along() {
    let ia = adapter(&Secret::random());
    let cno = Cno::create(&ia).unwrap();
    let evd = Evd::create(&ia, 4, EvdFlags::SOFTWARE).unwrap();
    evd.set_cno(Some(&cno)).unwrap();
    evd.post_software(1).unwrap();
    evd.free().unwrap();
    assert_eq!(cno.take(), Ok(None));
    cno.free().unwrap();
    assert_eq!(cno.free(), Err(Error::handle(Subtype::Cno)));
    let foreign = adapter(&Secret::random());
    let evd = Evd::create(&foreign, 4, EvdFlags::SOFTWARE).unwrap();
    let cno = Cno::create(&ia).unwrap();
    assert_eq!(evd.set_cno(Some(&cno)), Err(Error::handle(Subtype::Cno)));
}

#[test]
fn a_bind_is_a_fence_and_the_old_context_dies_with_it() {
    let pair = Pair::new();
    let (a, b) = pair.connect();
    let (bytes, region) = pair
        .b
        .region(64, Privileges::LOCAL_READ | Privileges::LOCAL_WRITE);
    let (source, mine) = pair.a.region(64, Privileges::ALL);
    source.fill(0, 64, 9).unwrap();
    let rmr = Rmr::create(&pair.b.pz, RmrScope::Pz).unwrap();
    let write = Privileges::REMOTE_WRITE;
    let bind = |cookie, rights| {
        let part = region.segment(8, 16);
        rmr.bind(
            &region,
            part,
            rights,
            VaType::Virtual,
            &b,
            cookie,
            Flags::DEFAULT,
        )
    };
    let first = bind(1, write).unwrap();
    assert_eq!(bound(&pair, &pair.b), (rmr.name(), 1, DtoStatus::Success));
    let put = |context, cookie| {
        let to = segment_of(context, &region, 8, 16);
        a.post_rdma_write(&[mine.segment(0, 16)], cookie, to, Flags::DEFAULT)
            .unwrap();
    };
    put(first, 2);
    assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    let mut seen = [0; 32];
    bytes.read(0, &mut seen).unwrap();
    assert_eq!(seen[..8], [0; 8]);
    assert_eq!(seen[8..24], [9; 16]);
    // A send that nobody receives holds the next bind up: the old context serves until then.
    b.post_send(&[], 3, Flags::DEFAULT).unwrap();
    let second = bind(4, write).unwrap();
    assert!(second != first && second != 0);
    assert_eq!(rmr.query().unwrap().context, first);
    put(first, 5);
    assert_eq!(pair.dto(&pair.a).cookie, 5);
    a.post_recv(&[], 6, Flags::DEFAULT).unwrap();
    assert_eq!(pair.dto(&pair.a).cookie, 6);
    assert_eq!(pair.dto(&pair.b).cookie, 3);
    assert_eq!(bound(&pair, &pair.b), (rmr.name(), 4, DtoStatus::Success));
    assert_eq!(region.free(), Err(Error::state(Subtype::LmrInUse)));
    put(second, 7);
    assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    put(first, 8);
    assert_eq!(pair.dto(&pair.a).status, DtoStatus::RemoteAccess);
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Broken);
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
    rmr.free().unwrap();
    region.free().unwrap();
}

#[test]
fn binds_that_are_flushed_leave_no_window() {
    let pair = Pair::new();
    let (a, b) = pair.connect();
    let (_, region) = pair.b.region(64, Privileges::ALL);
    let rmr = Rmr::create(&pair.b.pz, RmrScope::Pz).unwrap();
    b.post_send(&[], 1, Flags::DEFAULT).unwrap(); // nobody receives
    let context = rmr
        .bind(
            &region,
            region.segment(0, 64),
            Privileges::REMOTE_READ,
            VaType::ZeroBased,
            &b,
            2,
            Flags::DEFAULT,
        )
        .unwrap();
    a.disconnect(CloseFlags::Abrupt).unwrap();
    assert_eq!(pair.dto(&pair.b).status, DtoStatus::Flushed);
    assert_eq!(bound(&pair, &pair.b), (rmr.name(), 2, DtoStatus::Flushed));
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
    assert_eq!(rmr.query().unwrap().context, 0);
    region.free().unwrap();
    let reach = RemoteSegment {
        context,
        address: 0,
        len: 1,
    };
    let reached = pair
        .b
        .ia
        .with_region(&pair.b.pz, &reach, Privileges::NONE, |_, _| ());
    assert_eq!(reached, None);
}

/// A window is no local memory, and a region no window.
#[test]
fn contexts_are_good_for_what_they_are() {
    let pair = Pair::new();
    let (_a, b) = pair.connect();
    let (_, region) = pair.b.region(64, Privileges::ALL);
    let rmr = Rmr::create(&pair.b.pz, RmrScope::Ep).unwrap();
    let all = Privileges::REMOTE_READ | Privileges::REMOTE_WRITE | Privileges::REMOTE_ATOMIC;
    let part = region.segment(0, 64);
    let context = rmr
        .bind(&region, part, all, VaType::Virtual, &b, 1, Flags::SUPPRESS)
        .unwrap();
    let local = LocalSegment { context, ..part };
    assert_eq!(
        b.post_send(&[local], 2, Flags::DEFAULT).unwrap_err().kind,
        Type::PrivilegesViolation
    );
    assert_eq!(
        b.post_rdma_read_to_rmr(part, 2, RemoteSegment::default(), Flags::DEFAULT)
            .unwrap_err()
            .kind,
        Type::PrivilegesViolation
    );
    // Over no endpoint at all, an endpoint's window is out of reach.
    let reach = segment_of(context, &region, 0, 8);
    let reached = pair
        .b
        .ia
        .with_region(&pair.b.pz, &reach, Privileges::REMOTE_READ, |_, _| ());
    assert_eq!(reached, None);
    drop(region); // a window that is bound keeps nobody from that
    assert_eq!(rmr.query().unwrap().context, context);
    rmr.free().unwrap();
}

#[test]
fn receives_of_a_shared_queue_go_to_who_asks() {
    let pair = Pair::new();
    let srq = Srq::create(&pair.b.pz, 64).unwrap();
    let evd = Some(&pair.b.evd);
    let shared = || {
        let attr = EpAttr::default();
        Ep::create_with_srq(&pair.b.pz, evd, evd, evd, &srq, attr).unwrap()
    };
    let [(a0, b0), (a1, b1)] = [(); 2].map(|()| pair.connect_eps(pair.a.ep(), shared()));
    let (_, inbox) = pair.b.region(4096, Privileges::ALL);
    let data = pattern(100, 3);
    a0.post_send_inline(&data, 1, Flags::DEFAULT).unwrap();
    while pair.step() {}
    a1.post_send_inline(&data, 2, Flags::DEFAULT).unwrap();
    while pair.step() {}
    let idle = SrqState {
        max_receives: 64,
        available: 0,
        outstanding: 0,
    };
    assert_eq!(srq.query().unwrap(), idle);
    for cookie in 10..14 {
        srq.post_recv(&[inbox.segment(cookie * 128, 128)], cookie)
            .unwrap();
    }
    // Each got one, in the order in which they came.
    let came = [(); 2].map(|()| pair.dto(&pair.b));
    assert!(
        came.iter().any(|done| done.ep == b0.id()) && came.iter().any(|done| done.ep == b1.id())
    );
    assert_eq!(
        came.map(|done| (done.cookie, done.length)),
        [(10, 100), (11, 100)]
    );
    for _ in 0..2 {
        assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    }
    // Promised and not used: given back when its endpoint goes, and the next who asks gets it.
    assert_eq!(srq.query().unwrap().available, 2);
    drop((a0, b0));
    while pair.step() {}
    for cookie in 20..22 {
        a1.post_send_inline(&data, cookie, Flags::DEFAULT).unwrap();
    }
    let mut both = Vec::new();
    pair.until("both messages", || {
        both.extend(std::iter::from_fn(|| pair.b.evd.dequeue()));
        let messages = both
            .iter()
            .filter(|event| matches!(event, Event::Dto(done) if done.status == DtoStatus::Success));
        (messages.count() == 2).then_some(())
    });
    assert_eq!(srq.query().unwrap(), idle);
    assert_eq!(srq.free(), Err(Error::state(Subtype::SrqInUse)));
    drop((a1, b1));
    srq.free().unwrap();
}

#[test]
fn a_reserved_endpoint_serves_one_request_and_is_free_again() {
    let pair = Pair::new();
    let reserved = pair.b.ep();
    let rsp = Rsp::create(&pair.b.evd, &pair.b.ia, At::Qualifier(8), &reserved).unwrap();
    assert_eq!(reserved.state(), EpState::Reserved);
    let a = pair.a.ep();
    a.connect(pair.b.ia.local_addr(), 8, None, b"r").unwrap();
    let Event::ConnectionRequest(cr) = pair.event(&pair.b) else {
        panic!("no request")
    };
    assert_eq!(cr.local_ep(), Some(reserved.id()));
    assert_eq!(cr.qualifier(), 8);
    assert_eq!(rsp.free(), Err(Error::handle(Subtype::Rsp)));
    assert_eq!(reserved.state(), EpState::PassiveConnectionPending);
    let state = Error::state(Subtype::EpPassConnPending);
    assert_eq!(reserved.free(), Err(state));
    assert_eq!(reserved.reset(), Err(state));
    // The peer leaves before the answer.
    a.disconnect(CloseFlags::Abrupt).unwrap();
    pair.until("the request's end", || {
        (reserved.state() == EpState::Unconnected).then_some(())
    });
    assert_eq!(cr.accept_own(&[]), Err(Error::handle(Subtype::Cr)));
}

#[test]
fn an_endpoint_that_was_made_goes_with_its_request() {
    let pair = Pair::new();
    let at = At::AnyPort;
    let psp = Psp::create_at(&pair.b.evd, &pair.b.ia, at, PspFlags::Provider).unwrap();
    let mut to = pair.b.ia.local_addr();
    to.set_port(port_of(psp.qualifier()));
    let a = pair.a.ep();
    let ask = || {
        a.reset().unwrap();
        a.connect(to, psp.qualifier(), None, &[]).unwrap();
        match pair.event(&pair.b) {
            Event::ConnectionRequest(cr) => cr,
            other => panic!("{other:?} instead of a request"),
        }
    };
    let cr = ask();
    let made = cr.take_ep().expect("one was made");
    assert!(cr.take_ep().is_none());
    assert_eq!(made.state(), EpState::TentativeConnectionPending);
    drop(cr); // rejects
    assert_eq!(pair.connection(&pair.a), ConnectionKind::NonPeerRejected);
    assert!(made.is_gone());
    let cr = ask();
    let made = cr.take_ep().expect("one was made");
    assert_eq!(cr.accept_own(&[]), Err(Error::state(Subtype::EpNotReady)));
    made.modify(EpChange {
        pz: Some(&pair.b.pz),
        recv: Some(&pair.b.evd),
        request: Some(&pair.b.evd),
        connect: Some(&pair.b.evd),
        attr: None,
    })
    .unwrap();
    assert_eq!(
        cr.accept(&pair.b.ep(), &[]),
        Err(Error::handle(Subtype::Ep))
    );
    cr.accept_own(b"here").unwrap();
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Established);
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Established);
    a.post_recv(&[], 1, Flags::DEFAULT).unwrap();
    made.post_send(&[], 2, Flags::DEFAULT).unwrap();
    assert_eq!(pair.dto(&pair.a).cookie, 1);
    drop(psp);
    a.reset().unwrap_err();
}

fn shared_pages(len: usize) -> SharedBytes {
    let file = MemFile::create("wltest-dat", len as u64).unwrap();
    file.map(0, len).unwrap()
}

#[test]
fn one_id_is_one_piece_of_memory_on_this_host() {
    let pair = Pair::new();
    let mut id = [0; 40];
    id[..4].copy_from_slice(&std::process::id().to_ne_bytes());
    id[39] = 1; // behind NULs
    let mut other_id = id;
    other_id[39] = 2;
    let (pages, others) = (shared_pages(8192), shared_pages(8192));
    let part = |bytes: &SharedBytes, at, len| bytes.slice(at, len).unwrap();
    let register = |side: &Side, bytes, id| {
        let region = Region::SharedVirtual(bytes, id);
        Lmr::create(region, &side.pz, Privileges::ALL, VaType::Virtual)
    };
    let of_a = register(&pair.a, part(&pages, 0, 4096), id).unwrap();
    let of_b = register(&pair.b, part(&pages, 0, 4096), id).unwrap();
    assert_ne!(of_a.rmr_context(), 0);
    let _beside = register(&pair.b, part(&others, 0, 4096), other_id).unwrap();
    let refused = |bytes, id| register(&pair.b, bytes, id).unwrap_err();
    assert_eq!(
        refused(part(&pages, 0, 8192), id),
        Error::arg(Subtype::Arg4)
    );
    let state = Error::state(Subtype::None);
    assert_eq!(refused(part(&pages, 4096, 4096), id), state);
    assert_eq!(refused(part(&others, 0, 4096), id), state);
    assert_eq!(refused(memory(4096), [9; 40]), state, "private pages");
    // A peer of one reaches the pages of both.
    let (a, _b) = pair.connect();
    a.post_rdma_write_inline(&[5; 8], 1, remote(&of_b, 16, 8), Flags::DEFAULT)
        .unwrap();
    assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    let mut seen = [0; 8];
    pages.read(16, &mut seen).unwrap();
    assert_eq!(seen, [5; 8]);
    drop(of_a);
    assert_eq!(refused(part(&others, 0, 4096), id), state, "of_b is left");
    drop(of_b);
    register(&pair.b, part(&others, 0, 4096), id).unwrap();
}

#[test]
fn an_adapter_ends_with_everything_of_it() {
    let pair = Pair::new();
    let (a, b) = pair.connect();
    let (_, region) = pair.b.region(64, Privileges::ALL);
    let cno = Cno::create(&pair.b.ia).unwrap();
    let in_use = Err(Error::state(Subtype::IaInUse));
    assert_eq!(pair.b.ia.close(CloseFlags::Graceful), in_use);
    b.post_recv(&[], 1, Flags::DEFAULT).unwrap();
    pair.b.ia.close(CloseFlags::Abrupt).unwrap();
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Disconnected);
    let gone = Err(Error::handle(Subtype::Ia));
    assert_eq!(pair.b.ia.close(CloseFlags::Abrupt), gone);
    assert_eq!(region.free(), Err(Error::handle(Subtype::Lmr)));
    assert_eq!(b.free(), Err(Error::handle(Subtype::Ep)));
    assert_eq!(pair.b.pz.free(), Err(Error::handle(Subtype::Pz)));
    assert_eq!(pair.b.psp.free(), Err(Error::handle(Subtype::Psp)));
    assert_eq!(
        pair.b.evd.wait(None, 1).unwrap_err(),
        Error::handle(Subtype::None)
    );
    assert_eq!(cno.wait(None), Err(Error::handle(Subtype::Cno)));
    a.reset().unwrap();
    a.connect(pair.b.ia.local_addr(), 7, MOMENT, &[]).unwrap();
    let end = pair.connection(&pair.a);
    assert!(
        matches!(end, ConnectionKind::TimedOut | ConnectionKind::Unreachable),
        "{end:?}"
    );
    let empty = adapter(&Secret::random());
    empty.close(CloseFlags::Graceful).unwrap();
}
