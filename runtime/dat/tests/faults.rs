//! What endpoints do when something is wrong: the table of udapl.md section 4.7 and every fault of section 5.

mod support;

use support::*;
use windlass_dat::*;

const SIZE: u64 = 4096;

struct Target {
    pair: Pair,
    ep: Ep,
    peer: Ep,
    local: Lmr,
    bytes: windlass_mem::SharedBytes,
    exposed: Lmr,
}

impl Target {
    fn new(privileges: Privileges) -> Self {
        let pair = Pair::new();
        let (ep, peer) = pair.connect();
        let (_, local) = pair.a.region(1 << 16, Privileges::ALL);
        let (bytes, exposed) = pair.b.region(SIZE as usize, privileges);
        bytes.fill(0, SIZE as usize, 0x55).unwrap();
        Self {
            pair,
            ep,
            peer,
            local,
            bytes,
            exposed,
        }
    }

    /// A good write, then the bad request of `post`, then another write: the outcomes of section 5.
    fn refuses_with(&self, status: DtoStatus, post: impl FnOnce(&Ep, &Lmr)) {
        let good = remote(&self.exposed, 0, 8);
        let writable = self
            .exposed
            .query()
            .unwrap()
            .0
            .contains(Privileges::REMOTE_WRITE);
        let flags = Flags::MORE;
        let before = RemoteSegment {
            len: if writable { 8 } else { 0 },
            ..good
        };
        let data = &[1; 8][..before.len as usize];
        self.peer.post_recv(&[], 77, Flags::DEFAULT).unwrap();
        self.ep
            .post_rdma_write_inline(data, 1, before, flags)
            .unwrap();
        post(&self.ep, &self.local);
        self.ep
            .post_rdma_write_inline(
                data,
                3,
                RemoteSegment {
                    address: good.address + 16,
                    ..before
                },
                flags,
            )
            .unwrap();
        self.ep.push();
        let outcomes = [
            (1, DtoStatus::Success),
            (2, status),
            (3, DtoStatus::Flushed),
        ];
        for (cookie, status) in outcomes {
            let done = self.pair.dto(&self.pair.a);
            assert_eq!((done.cookie, done.status), (cookie, status));
        }
        assert_eq!(self.pair.connection(&self.pair.a), ConnectionKind::Broken);
        assert_eq!(self.ep.state(), EpState::Disconnected);
        let flushed = self.pair.dto(&self.pair.b);
        assert_eq!((flushed.cookie, flushed.status), (77, DtoStatus::Flushed));
        assert_eq!(
            self.pair.connection(&self.pair.b),
            ConnectionKind::Disconnected
        );
        assert_eq!(self.peer.state(), EpState::Disconnected);
        let mut seen = vec![0; SIZE as usize];
        self.bytes.read(0, &mut seen).unwrap();
        let changed = if writable { 8 } else { 0 };
        assert!(
            seen[..changed].iter().all(|byte| *byte == 1),
            "what came before is done"
        );
        assert!(
            seen[changed..].iter().all(|byte| *byte == 0x55),
            "no byte else is stored"
        );
        // Posts on a disconnected endpoint complete flushed; a reset makes it usable again.
        self.ep
            .post_rdma_write_inline(&[1; 8], 4, good, Flags::SUPPRESS)
            .unwrap();
        assert_eq!(self.pair.dto(&self.pair.a).status, DtoStatus::Flushed);
        self.ep.reset().unwrap();
        assert_eq!(
            (self.ep.state(), self.ep.counts()),
            (EpState::Unconnected, (0, 0))
        );
    }
}

fn write_to(context: u32, address: u64, len: u32) -> impl FnOnce(&Ep, &Lmr) {
    move |ep, local| {
        let to = RemoteSegment {
            context,
            address,
            len,
        };
        ep.post_rdma_write(&[local.segment(0, len)], 2, to, Flags::MORE)
            .unwrap();
    }
}

fn read_from(context: u32, address: u64, len: u32) -> impl FnOnce(&Ep, &Lmr) {
    move |ep, local| {
        let from = RemoteSegment {
            context,
            address,
            len,
        };
        ep.post_rdma_read(&[local.segment(0, len)], 2, from, Flags::MORE)
            .unwrap();
    }
}

#[test]
fn unknown_contexts() {
    for context in [0, 2, 0xFFFF_FFFF, 0x0001_0001, 0x8000_0001] {
        let t = Target::new(Privileges::ALL);
        t.refuses_with(
            DtoStatus::RemoteAccess,
            write_to(context, t.exposed.address(), 8),
        );
    }
    let t = Target::new(Privileges::ALL);
    let wrong_generation = t.exposed.rmr_context() ^ 0x80;
    t.refuses_with(
        DtoStatus::RemoteAccess,
        read_from(wrong_generation, t.exposed.address(), 8),
    );
}

#[test]
fn a_freed_context_stays_dead_though_its_slot_is_used_again() {
    let t = Target::new(Privileges::ALL);
    let (_, freed) = t.pair.b.region(64, Privileges::ALL);
    let stale = remote(&freed, 0, 8);
    freed.free().unwrap();
    assert_eq!(
        freed.free().unwrap_err(),
        Error::new(Type::InvalidHandle, Subtype::Lmr)
    );
    let mut contexts = std::collections::HashSet::new();
    for _ in 0..5000 {
        let (_, again) = t.pair.b.region(64, Privileges::ALL);
        assert_ne!(again.context(), stale.context);
        assert!(
            contexts.insert(again.context()),
            "a context value came back"
        );
    }
    t.refuses_with(
        DtoStatus::RemoteAccess,
        write_to(stale.context, stale.address, 8),
    );
}

#[test]
fn out_of_bounds() {
    let cases: [(u64, u32); 9] = [
        (SIZE, 1),
        (SIZE - 7, 8),
        (0, SIZE as u32 + 1),
        (u64::MAX, 1), // one before the start
        (0u64.wrapping_sub(8), 16),
        (u64::MAX / 2, 8),
        (SIZE + 1, 8),
        (1, SIZE as u32),
        (0u64.wrapping_sub(4096), 4096),
    ];
    for (offset, len) in cases {
        let t = Target::new(Privileges::ALL);
        let address = t.exposed.address().wrapping_add(offset);
        t.refuses_with(
            DtoStatus::RemoteAccess,
            write_to(t.exposed.rmr_context(), address, len),
        );
        let t = Target::new(Privileges::ALL);
        let address = t.exposed.address().wrapping_add(offset);
        t.refuses_with(
            DtoStatus::RemoteAccess,
            read_from(t.exposed.rmr_context(), address, len),
        );
    }
    for address in [0, u64::MAX, u64::MAX - 8, i64::MAX as u64] {
        let t = Target::new(Privileges::ALL);
        t.refuses_with(
            DtoStatus::RemoteAccess,
            write_to(t.exposed.rmr_context(), address, 60_000),
        );
    }
}

#[test]
fn rights() {
    let t = Target::new(Privileges::LOCAL_READ | Privileges::LOCAL_WRITE | Privileges::REMOTE_READ);
    t.refuses_with(
        DtoStatus::RemoteAccess,
        write_to(t.exposed.context(), t.exposed.address(), 8),
    );
    let t = Target::new(Privileges::LOCAL_WRITE | Privileges::REMOTE_WRITE);
    t.refuses_with(
        DtoStatus::RemoteAccess,
        read_from(t.exposed.context(), t.exposed.address(), 8),
    );
    let t = Target::new(Privileges::LOCAL_READ | Privileges::LOCAL_WRITE);
    assert_eq!(t.exposed.rmr_context(), 0);
    t.refuses_with(
        DtoStatus::RemoteAccess,
        write_to(t.exposed.context(), t.exposed.address(), 8),
    );
    let t = Target::new(Privileges::ALL);
    let at = remote(&t.exposed, 0, 8);
    t.refuses_with(DtoStatus::RemoteAccess, |ep, local| {
        ep.post_fetch_add(local.segment(0, 8), 2, at, 1, Flags::MORE)
            .unwrap();
    });
    let t = Target::new(Privileges::ALL | Privileges::REMOTE_ATOMIC);
    let at = remote(&t.exposed, 4, 8);
    t.refuses_with(DtoStatus::RemoteResponder, |ep, local| {
        ep.post_fetch_add(local.segment(0, 8), 2, at, 1, Flags::MORE)
            .unwrap();
    });
}

#[test]
fn zones() {
    let t = Target::new(Privileges::ALL);
    let other = Pz::create(&t.pair.b.ia);
    let bytes = memory(64);
    let foreign = Lmr::create(
        Region::Virtual(bytes),
        &other,
        Privileges::ALL,
        VaType::Virtual,
    )
    .unwrap();
    assert_eq!(other.free().unwrap_err(), Error::state(Subtype::PzInUse));
    t.refuses_with(
        DtoStatus::RemoteAccess,
        write_to(foreign.rmr_context(), foreign.address(), 8),
    );
    foreign.free().unwrap();
    other.free().unwrap();
    assert_eq!(other.free().unwrap_err(), Error::handle(Subtype::Pz));
}

#[test]
fn local_faults_are_refused_at_the_post_and_change_nothing() {
    let pair = Pair::new();
    let (ep, _peer) = pair.connect();
    let (_, local) = pair.a.region(4096, Privileges::ALL);
    let (_, exposed) = pair.b.region(4096, Privileges::ALL);
    let (_, read_only) = pair.a.region(64, Privileges::LOCAL_READ);
    let (_, write_only) = pair.a.region(64, Privileges::LOCAL_WRITE);
    let to = remote(&exposed, 0, 64);
    let none = LocalSegment {
        context: 0,
        address: 0,
        len: 8,
    };
    let flags = Flags::DEFAULT;
    let write = |segments: &[LocalSegment]| {
        ep.post_rdma_write(segments, 0, to, flags)
            .unwrap_err()
            .code()
    };
    let privileges = 0x800B_0000;
    assert_eq!(write(&[none]), privileges | Subtype::PrivilegesRead as u32);
    assert_eq!(
        write(&[write_only.segment(0, 8)]),
        privileges | Subtype::PrivilegesRead as u32
    );
    assert_eq!(
        write(&[local.segment(4090, 8)]),
        0x8006_0000 | Subtype::Arg3 as u32
    );
    assert_eq!(
        write(&[local.segment(u64::MAX, 8)]),
        0x8006_0000 | Subtype::Arg3 as u32
    );
    assert_eq!(
        write(&[local.segment(0, 8); 5]),
        0x8006_0000 | Subtype::Arg2 as u32
    );
    assert_eq!(write(&[local.segment(0, 65)]), 0x8008_0000);
    let read = |segment| {
        ep.post_rdma_read(&[segment], 0, to, flags)
            .unwrap_err()
            .code()
    };
    assert_eq!(
        read(read_only.segment(0, 64)),
        privileges | Subtype::PrivilegesWrite as u32
    );
    assert_eq!(read(local.segment(0, 63)), 0x8008_0000);
    assert_eq!(
        ep.post_recv(&[read_only.segment(0, 8)], 0, flags)
            .unwrap_err()
            .code(),
        privileges | Subtype::PrivilegesWrite as u32
    );
    let zone = Pz::create(&pair.a.ia);
    let foreign = Lmr::create(
        Region::Virtual(memory(64)),
        &zone,
        Privileges::ALL,
        VaType::Virtual,
    )
    .unwrap();
    assert_eq!(
        write(&[foreign.segment(0, 8)]),
        0x800C_0000 | Subtype::ProtectionRead as u32
    );
    let plain = Ep::create(
        &pair.a.pz,
        Some(&pair.a.evd),
        Some(&pair.a.evd),
        Some(&pair.a.evd),
        EpAttr {
            max_request_dtos: 2,
            max_recv_dtos: 2,
            unsignalled: false,
            ..EpAttr::default()
        },
    )
    .unwrap();
    assert_eq!(
        plain.post_rdma_write_inline(&[], 0, to, flags).unwrap_err(),
        Error::state(Subtype::EpUnconnected)
    );
    let (plain, _other) = pair.connect_eps(plain, pair.b.ep());
    assert_eq!(
        plain
            .post_rdma_write_inline(&[1], 0, to, Flags::UNSIGNALLED)
            .unwrap_err(),
        Error::arg(Subtype::Arg6)
    );
    for _ in 0..2 {
        plain
            .post_rdma_write_inline(&[1], 0, to, Flags::MORE)
            .unwrap();
        plain.post_recv(&[], 0, Flags::MORE).unwrap();
    }
    let full = Error::resources(Subtype::Memory);
    assert_eq!(
        plain
            .post_rdma_write_inline(&[1], 0, to, flags)
            .unwrap_err(),
        full
    );
    assert_eq!(plain.post_recv(&[], 0, flags).unwrap_err(), full);
    plain.push();
    for ep in [&plain, &ep] {
        while pair.a.evd.dequeue().is_some() {}
        pair.until("room", || (ep.counts().0 == ep.counts().1).then_some(()));
        while pair.a.evd.dequeue().is_some() {}
        ep.post_rdma_write(&[local.segment(0, 8)], 1, to, flags)
            .unwrap();
        assert_eq!(pair.dto(&pair.a).status, DtoStatus::Success);
    }
}

#[test]
fn creation_is_checked_in_the_order_of_the_table() {
    let pair = Pair::new();
    let create = |region, pz: &Pz, privileges| {
        Lmr::create(region, pz, privileges, VaType::Virtual)
            .unwrap_err()
            .code()
    };
    let dead = Pz::create(&pair.a.ia);
    dead.free().unwrap();
    assert_eq!(
        create(Region::Virtual(memory(8)), &dead, Privileges::ALL),
        0x8005_000F
    );
    assert_eq!(
        create(
            Region::SharedVirtual(memory(8), [0; 40]),
            &pair.a.pz,
            Privileges::ALL
        ),
        0x8007_0000, // pages of no shared mapping
    );
    assert_eq!(
        create(
            Region::Virtual(memory(8)),
            &pair.a.pz,
            Privileges::REMOTE_WRITE
        ),
        0x8006_002A
    );
    let (_, foreign) = pair.b.region(8, Privileges::ALL);
    assert_eq!(
        create(Region::Lmr(&foreign), &pair.a.pz, Privileges::ALL),
        0x8005_000D
    );
    assert_eq!(Privileges::from_bits(0x80), None);
    let connect_only = Evd::create(&pair.a.ia, 4, EvdFlags::CONNECTION).unwrap();
    let ep = |recv, request, connect| {
        Ep::create(&pair.a.pz, recv, request, connect, EpAttr::default())
            .unwrap_err()
            .code()
    };
    let all = Some(&pair.a.evd);
    assert_eq!(ep(Some(&connect_only), all, all), 0x8005_0016);
    assert_eq!(ep(all, Some(&connect_only), all), 0x8005_0015);
    assert_eq!(ep(all, all, Some(&pair.b.evd)), 0x8005_0017);
    assert_eq!(ep(None, all, all), 0x8006_002A);
    assert_eq!(
        Psp::create(&pair.a.evd, &pair.a.ia, 7).unwrap_err().code(),
        0x8002_0000
    );
    assert_eq!(
        Psp::create(&connect_only, &pair.a.ia, 8)
            .unwrap_err()
            .code(),
        0x8005_0014
    );
}

#[test]
fn regions_freed_on_either_side_break_only_what_uses_them() {
    // The target frees what is being written: half way through 64 MiB.
    let pair = Pair::new();
    let (ep, peer) = pair.connect();
    let len = 64 << 20;
    let (_, local) = pair.a.region(len, Privileges::ALL);
    let (bytes, exposed) = pair.b.region(len, Privileges::ALL);
    ep.post_rdma_write(
        &[local.segment(0, len as u32)],
        1,
        remote(&exposed, 0, len as u32),
        Flags::DEFAULT,
    )
    .unwrap();
    for _ in 0..4 {
        pair.step();
    }
    exposed.free().unwrap();
    bytes.fill(0, len, 0x77).unwrap();
    let done = pair.dto(&pair.a);
    assert_eq!((done.cookie, done.status), (1, DtoStatus::RemoteAccess));
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Broken);
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
    assert_eq!(peer.state(), EpState::Disconnected);
    let mut seen = vec![0; len];
    bytes.read(0, &mut seen).unwrap();
    assert!(
        seen.iter().all(|byte| *byte == 0x77),
        "no store after the free returned"
    );

    // The target frees what is being read.
    let (ep, _peer) = pair.connect();
    let (_, exposed) = pair.b.region(len, Privileges::ALL);
    ep.post_rdma_read(
        &[local.segment(0, len as u32)],
        2,
        remote(&exposed, 0, len as u32),
        Flags::DEFAULT,
    )
    .unwrap();
    for _ in 0..4 {
        pair.step();
    }
    exposed.free().unwrap();
    let done = pair.dto(&pair.a);
    assert_eq!((done.cookie, done.status), (2, DtoStatus::RemoteAccess));
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Broken);
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);

    // The initiator frees its own source, then its own destination.
    for read in [false, true] {
        let (ep, _peer) = pair.connect();
        let (_, exposed) = pair.b.region(len, Privileges::ALL);
        let (_, local) = pair.a.region(len, Privileges::ALL);
        let (segment, other) = (
            local.segment(0, len as u32),
            remote(&exposed, 0, len as u32),
        );
        if read {
            ep.post_rdma_read(&[segment], 3, other, Flags::DEFAULT)
                .unwrap();
        } else {
            ep.post_rdma_write(&[segment], 3, other, Flags::DEFAULT)
                .unwrap();
        }
        for _ in 0..4 {
            pair.step();
        }
        local.free().unwrap();
        let done = pair.dto(&pair.a);
        assert_eq!((done.cookie, done.status), (3, DtoStatus::LocalProtection));
        assert_eq!(pair.connection(&pair.a), ConnectionKind::Broken);
        assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
    }
}

#[test]
fn a_message_longer_than_the_receive() {
    let pair = Pair::new();
    let (ep, peer) = pair.connect();
    let (_, inbox) = pair.b.region(64, Privileges::ALL);
    peer.post_recv(&[inbox.segment(0, 16)], 1, Flags::DEFAULT)
        .unwrap();
    ep.post_send_inline(&[1; 17], 2, Flags::SUPPRESS).unwrap();
    let received = pair.dto(&pair.b);
    assert_eq!(
        (received.cookie, received.status),
        (1, DtoStatus::LocalLength)
    );
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
    let sent = pair.dto(&pair.a);
    assert_eq!((sent.cookie, sent.status), (2, DtoStatus::RemoteResponder));
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Broken);
}

#[test]
fn disconnects() {
    // Abrupt: everything of both sides is flushed, the peer sees a disconnect.
    let pair = Pair::new();
    let (ep, peer) = pair.connect();
    let (_, local) = pair.a.region(4 << 20, Privileges::ALL);
    let (_, exposed) = pair.b.region(4 << 20, Privileges::ALL);
    let all = remote(&exposed, 0, 4 << 20);
    ep.post_rdma_write(&[local.segment(0, 4 << 20)], 1, all, Flags::DEFAULT)
        .unwrap();
    ep.post_rdma_read(&[local.segment(0, 4 << 20)], 2, all, Flags::DEFAULT)
        .unwrap();
    peer.post_recv(&[exposed.segment(0, 8)], 3, Flags::DEFAULT)
        .unwrap();
    ep.disconnect(CloseFlags::Abrupt).unwrap();
    assert_eq!(
        (pair.dto(&pair.a).status, pair.dto(&pair.a).status),
        (DtoStatus::Flushed, DtoStatus::Flushed)
    );
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Disconnected);
    assert_eq!(pair.dto(&pair.b).status, DtoStatus::Flushed);
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
    ep.disconnect(CloseFlags::Abrupt).unwrap();

    // Graceful: posted requests finish.
    let (ep, _peer) = pair.connect();
    ep.post_rdma_write(&[local.segment(0, 4 << 20)], 1, all, Flags::DEFAULT)
        .unwrap();
    ep.post_rdma_read(&[local.segment(0, 4 << 20)], 2, all, Flags::DEFAULT)
        .unwrap();
    ep.disconnect(CloseFlags::Graceful).unwrap();
    assert_eq!(ep.state(), EpState::DisconnectPending);
    assert_eq!(
        ep.post_rdma_write_inline(&[], 0, all, Flags::DEFAULT)
            .unwrap_err(),
        Error::state(Subtype::EpDiscPending)
    );
    assert_eq!(
        (pair.dto(&pair.a).status, pair.dto(&pair.a).status),
        (DtoStatus::Success, DtoStatus::Success)
    );
    assert_eq!(pair.connection(&pair.a), ConnectionKind::Disconnected);
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);

    // Abrupt while reads are answered: those that are not yet are flushed, and no fault of the peer's.
    let (ep, peer) = pair.connect();
    for cookie in 0..8 {
        ep.post_rdma_read(&[local.segment(0, 4 << 20)], cookie, all, Flags::DEFAULT)
            .unwrap();
    }
    pair.a.ia.step();
    for _ in 0..100 {
        pair.b.ia.step(); // as much as goes to a peer that takes nothing in
    }
    peer.disconnect(CloseFlags::Abrupt).unwrap();
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
    let mut flushed = 0;
    let kind = loop {
        match pair.event(&pair.a) {
            Event::Dto(done) => flushed += u32::from(done.status == DtoStatus::Flushed),
            Event::Connection { kind, .. } => break kind,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(kind, ConnectionKind::Disconnected);
    assert!(flushed > 0);

    // Free (as a drop does): the peer is not left alone.
    let (ep, _peer) = pair.connect();
    ep.post_rdma_write(&[local.segment(0, 4 << 20)], 1, all, Flags::DEFAULT)
        .unwrap();
    drop(ep);
    assert_eq!(pair.connection(&pair.b), ConnectionKind::Disconnected);
}

#[test]
fn an_adapter_that_vanishes_breaks_its_peers() {
    let Pair { a, b } = Pair::new();
    let pair = Pair { a, b };
    let (ep, peer) = pair.connect();
    let (_, local) = pair.a.region(4 << 20, Privileges::ALL);
    let (_, exposed) = pair.b.region(4 << 20, Privileges::ALL);
    ep.post_rdma_write(
        &[local.segment(0, 4 << 20)],
        1,
        remote(&exposed, 0, 4 << 20),
        Flags::DEFAULT,
    )
    .unwrap();
    pair.b.ia.step();
    // Every handle of one side goes: its sockets close in the middle of the transfer.
    let Pair { a, b } = pair;
    drop((peer, exposed, b));
    let start = std::time::Instant::now();
    let mut outcomes = Vec::new();
    while outcomes.len() < 2 && start.elapsed() < WATCHDOG {
        a.ia.step();
        outcomes.extend(a.evd.dequeue());
    }
    assert!(
        matches!(&outcomes[0], Event::Dto(done) if done.status == DtoStatus::Flushed),
        "{outcomes:?}"
    );
    assert!(
        matches!(
            &outcomes[1],
            Event::Connection {
                kind: ConnectionKind::Broken | ConnectionKind::Disconnected,
                ..
            }
        ),
        "{outcomes:?}"
    );
}

#[test]
fn a_full_dispatcher_is_told() {
    let pair = Pair::new();
    let small = Evd::create(&pair.a.ia, 3, EvdFlags::DTO | EvdFlags::SOFTWARE).unwrap();
    let ep = Ep::create(
        &pair.a.pz,
        Some(&small),
        Some(&small),
        Some(&pair.a.evd),
        EpAttr::default(),
    )
    .unwrap();
    let (ep, _peer) = pair.connect_eps(ep, pair.b.ep());
    let nowhere = RemoteSegment::default();
    for cookie in 0..4 {
        ep.post_rdma_write_inline(&[], cookie, nowhere, Flags::DEFAULT)
            .unwrap();
    }
    let errors = pair.a.ia.async_evd().unwrap();
    let event = pair.until("the overflow", || errors.dequeue());
    assert!(matches!(event, Event::Async(AsyncKind::EvdOverflow, _)));
    assert_eq!(small.wait(None, 1).unwrap_err().kind, Type::InvalidState);
    assert_eq!(small.post_software(1).unwrap_err().kind, Type::QueueFull);
    assert_eq!(small.resize(2).unwrap_err().kind, Type::InvalidState);
    assert_eq!(small.free().unwrap_err(), Error::state(Subtype::EvdInUse));
    assert_eq!(small.queued(), 3);
    drop(ep);
    small.free().unwrap();
    let other = Evd::create(&pair.a.ia, 3, EvdFlags::SOFTWARE | EvdFlags::DTO).unwrap();
    other.post_software(9).unwrap();
    assert_eq!(
        other.wait(None, 2).unwrap_err(),
        Error::arg(Subtype::Arg3),
        "not made for thresholds"
    );
    let attr = EpAttr {
        evd_threshold: true,
        ..EpAttr::default()
    };
    let _feeder = Ep::create(&pair.a.pz, Some(&other), Some(&other), None, attr).unwrap();
    assert_eq!(
        other
            .wait(Some(std::time::Duration::from_millis(1)), 2)
            .unwrap_err()
            .kind,
        Type::TimeoutExpired
    );
    assert_eq!(other.wait(None, 4).unwrap_err(), Error::arg(Subtype::Arg3));
    assert!(matches!(other.wait(None, 1), Ok((Event::Software(9), 0))));
    other.set_unwaitable(true).unwrap();
    assert_eq!(
        other.wait(None, 1).unwrap_err(),
        Error::state(Subtype::EvdUnwaitable)
    );
}
