//! Segments of other nodes, with the services of a job's nodes in one process: what differs from those of one's own (rsm 5.5, 5.7,
//! 6.1, 7, 8).

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Cluster, Node, Two, memory, page, text};
use windlass_mem::view::Spot;
use windlass_rsm::{
    AccessEntry, Ask, BARRIER_NODE, Barrier, Code, Controller, Event, Export, Import, Key,
    MAP_FIXED, Message, PERM_RDWR, PERM_READ, PERM_WRITE, Pass, Scope,
};

/// More than an adapter sends at once.
const LONG: usize = 300_000;

impl Two {
    fn connect(&self, permission: u32) -> Result<Arc<Import>, Code> {
        Import::connect(&self.importer.1, 1, self.id, permission)
    }

    fn connections(&self) -> (usize, usize) {
        let of = |node: usize| self.cluster.0[node].lock().counts().1;
        (of(0), of(1))
    }
}

/// Nobody lets it in.
fn pass() -> Pass {
    Pass {
        at: ([127, 0, 0, 1], 9).into(),
        key: Key::from_bytes([9; 32]),
    }
}

fn entry(node: u32, permission: u32) -> AccessEntry {
    AccessEntry { node, permission }
}

#[test]
fn a_job_of_one_node_has_no_other_controller() {
    let (person, _) = Node::new().own();
    let refused = Controller::open(person, Scope::Cluster).err();
    assert_eq!(refused, Some(Code::CtlrNotPresent));
}

#[test]
fn lists_name_each_node_once() {
    let two = Two::new(1);
    two.export.unpublish().unwrap();
    let publish = |list: &[AccessEntry]| two.export.publish(0, Some(list)).err();
    let (own, other) = (entry(1, 0o600), entry(0, 0o600));
    assert_eq!(publish(&[own, other, own]), Some(Code::BadAcl));
    assert_eq!(publish(&[own, own]), Some(Code::BadAcl));
    assert_eq!(publish(&[own, entry(2, 0o600)]), Some(Code::BadAcl));
    assert_eq!(publish(&[own, other]), None);
}

/// Table 5.7, where the node is another.
#[test]
fn connect_answers_each_row_in_order() {
    let two = Two::new(1);
    let (_, loopback) = two.cluster.person(0, Scope::Node);
    let connect = |node, id, rights| Import::connect(&two.importer.1, node, id, rights).err();
    let unreachable = Some(Code::RemoteNodeUnreachable);
    assert_eq!(connect(2, 9, 0o1), Some(Code::PermDenied));
    assert_eq!(connect(2, 9, PERM_READ), unreachable);
    assert_eq!(connect(1, 9, PERM_READ), Some(Code::SegNotPublished));
    assert_eq!(
        Import::connect(&loopback, 1, two.id, PERM_READ).err(),
        Some(Code::CtlrNotPresent)
    );
    // 8 comes before the rights.
    two.export.republish(Some(&[entry(1, 0o400)])).unwrap();
    assert_eq!(
        connect(1, two.id, PERM_RDWR),
        Some(Code::SegNotPublishedToNode)
    );
    two.export.republish(Some(&[entry(0, 0o400)])).unwrap();
    let root = rustix::process::geteuid().is_root();
    let denied = (!root).then_some(Code::PermDenied);
    assert_eq!(connect(1, two.id, PERM_WRITE), denied);
    assert_eq!(connect(1, two.id, PERM_READ), None);
    // On its own node the list holds too.
    let own = Import::connect(&two.exporter.1, 1, two.id, PERM_READ).err();
    assert_eq!(own, Some(Code::SegNotPublishedToNode));
    assert_eq!(two.connections(), (0, 0), "no attempt leaves anything");
    two.cluster.lose(1);
    assert_eq!(connect(1, two.id, PERM_READ), unreachable);
    assert_eq!(two.importer.1.reached(), Ok(vec![0]));
    two.importer.0.lose_service();
    assert_eq!(connect(1, two.id, PERM_READ), Some(Code::CtlrNotPresent));
}

#[test]
fn what_is_published_by_loopback_is_for_its_node() {
    let two = Two::new(1);
    let (_, loopback) = two.cluster.person(1, Scope::Node);
    let own = Export::create(&loopback, memory(1).1, 0).unwrap();
    let id = own.publish(0, None).unwrap();
    let connect = |at: &Arc<Controller>| Import::connect(at, 1, id, PERM_READ).err();
    assert_eq!(connect(&two.importer.1), Some(Code::SegNotPublished));
    assert_eq!(connect(&two.exporter.1), None);
    assert_eq!(connect(&loopback), None);
}

/// Table 6.1: the rows before it come first, and the connection serves on.
#[test]
fn another_nodes_segment_is_not_mapped() {
    let two = Two::new(2);
    let import = two.connect(PERM_READ).unwrap();
    let map = |flags, rights, offset, len| {
        let spot = Spot::NOWHERE;
        import.map(flags, spot, rights, offset, len).err()
    };
    assert_eq!(map(0, 1, 0, 1), Some(Code::BadPerms));
    assert_eq!(map(4, PERM_READ, 0, 1), Some(Code::MapFailed));
    assert_eq!(map(0, PERM_READ, 0, 0), Some(Code::BadLength));
    assert_eq!(map(0, PERM_READ, -1, 1), Some(Code::BadOffset));
    assert_eq!(map(0, PERM_READ, 8, 1), Some(Code::BadMemAlignment));
    assert_eq!(map(MAP_FIXED, PERM_READ, 0, 1), Some(Code::BadAddr));
    assert_eq!(map(0, PERM_RDWR, 0, 1), Some(Code::BadPerms));
    assert_eq!(map(0, PERM_READ, 0, 1), Some(Code::MapFailed));
    import.set_mode(0).unwrap();
    import.get(0, &mut [0; 8], 8).unwrap();
    // A transfer has mapped nothing either.
    assert_eq!(import.unmap(), Err(Code::SegNotMapped));
    assert_eq!(map(0, PERM_READ, 0, 1), Some(Code::MapFailed));
    two.export.unpublish().unwrap();
    assert_eq!(map(0, PERM_RDWR, 0, 1), Some(Code::ConnAborted));
}

#[test]
fn transfers_move_bytes_of_every_length() {
    let pages = 3 * LONG / page() + 1;
    let two = Two::new(pages);
    let import = two.connect(PERM_RDWR).unwrap();
    assert_eq!(import.len(), pages * page());
    let mut seen = [0; 8];
    assert_eq!(import.get(0, &mut seen, 8), Err(Code::BarrierUninitialized));
    let barrier = Barrier::init(&import, BARRIER_NODE).unwrap();
    barrier.open().unwrap();
    for len in [0, 1, 8, 1000, LONG, LONG + 8, 2 * LONG + 13] {
        let sent: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        import.put(16, &sent, 1).unwrap();
        assert_eq!(text(&two.bytes, 16, len), sent, "{len}");
        let mut got = vec![0; len];
        import.get(16, &mut got, 1).unwrap();
        assert_eq!(got, sent, "{len}");
    }
    for size in [2, 4, 8] {
        import.put(32, &[size as u8; 4096], size).unwrap();
        let mut got = [0; 4096];
        import.get(32, &mut got, size).unwrap();
        assert_eq!(got, [size as u8; 4096]);
        let odd = import.get(33, &mut got, size);
        assert_eq!(odd, Err(Code::BadMemAlignment));
    }
    barrier.order().unwrap();
    barrier.close().unwrap();
    let end = import.len() as i64;
    import.put(end - 1, b"!", 1).unwrap();
    assert_eq!(import.put(end - 1, b"!!", 1), Err(Code::BadLength));
    assert_eq!(import.get(-1, &mut seen, 1), Err(Code::BadOffset));
    assert_eq!(
        import.get(i64::MAX - 6, &mut seen, 8),
        Err(Code::BadMemAlignment)
    );
    assert_eq!(import.get(i64::MAX - 7, &mut seen, 1), Err(Code::BadLength));
    let reader = two.connect(PERM_READ).unwrap();
    assert_eq!(reader.put(0, b"x", 1), Err(Code::PermDenied));
}

/// Other memory, and memory that may be written where it was sealed: seen at once (rsm 5.4).
#[test]
fn importers_of_other_nodes_follow_a_rebind() {
    let two = Two::new(2);
    let import = two.connect(PERM_RDWR).unwrap();
    let _barrier = Barrier::init(&import, BARRIER_NODE).unwrap();
    import.put(page() as i64, b"old", 1).unwrap();
    let (new_bytes, new) = memory(2);
    new_bytes.write(page(), b"new").unwrap();
    two.export.rebind(new).unwrap();
    let mut seen = [0; 3];
    import.get(page() as i64, &mut seen, 1).unwrap();
    assert_eq!(&seen, b"new");
    import.put(page() as i64, b"NEW", 1).unwrap();
    assert_eq!(text(&new_bytes, page(), 3), b"NEW");
    assert_eq!(text(&two.bytes, page(), 3), b"old");
    two.export.unpublish().unwrap();
    let read_only = [entry(0, 0o444)];
    let id = two.export.publish(0, Some(&read_only)).unwrap();
    let connect = |rights| Import::connect(&two.importer.1, 1, id, rights);
    assert_eq!(connect(PERM_WRITE).err(), Some(Code::PermDenied), "sealed");
    let reader = connect(PERM_READ).unwrap();
    reader.set_mode(0).unwrap();
    reader.get(page() as i64, &mut seen, 1).unwrap();
    assert_eq!(&seen, b"NEW");
    two.export.republish(None).unwrap();
    let writer = connect(PERM_RDWR).unwrap();
    writer.set_mode(0).unwrap();
    writer.put(page() as i64, b"by", 1).unwrap();
    reader.get(page() as i64, &mut seen, 1).unwrap();
    assert_eq!(&seen, b"byW");
}

#[test]
fn an_end_is_seen_on_other_nodes() {
    for end in 0..4 {
        let two = Two::new(1);
        let import = two.connect(PERM_RDWR).unwrap();
        let barrier = Barrier::init(&import, BARRIER_NODE).unwrap();
        barrier.open().unwrap();
        import.put(8, b"before..", 8).unwrap();
        match end {
            0 => two.export.unpublish().unwrap(),
            1 => two.export.destroy().unwrap(),
            2 => two.exporter.0.die(),
            _ => two.cluster.lose(1),
        }
        assert!(import.is_aborted());
        assert_eq!(import.put(8, b"lost....", 8), Err(Code::ConnAborted));
        assert_eq!(import.post(false), Err(Code::ConnAborted));
        assert_eq!(import.wait(None), Err(Code::ConnAborted));
        import.set_mode(0).unwrap();
        // Nothing is mapped that could take it.
        assert_eq!(import.put(8, b"nowhere.", 8), Err(Code::ConnAborted));
        assert_eq!(barrier.close(), Err(Code::ConnAborted));
        if end < 2 {
            assert_eq!(text(&two.bytes, 8, 8), b"before..");
        }
        import.disconnect().unwrap();
        assert_eq!(two.connections(), (0, usize::from(end == 3)));
        two.cluster.0[1].lock().lose(0);
        assert_eq!(two.connections(), (0, 0));
    }
}

/// Whoever asks when the node is lost is answered: the connection is aborted, and none is made (rsm 5.7).
#[test]
fn a_node_that_is_lost_meanwhile_answers() {
    use windlass_rsm::{Caller, Outcome, Request};
    let cluster = Cluster::new(2);
    let mut service = cluster.0[0].lock();
    let owner = service.join();
    let groups = Vec::new;
    let caller = Caller {
        uid: 1,
        gid: 1,
        groups: &groups,
    };
    let request = Request::Connect {
        cluster: true,
        node: 1,
        id: 0x60_0000,
        permission: PERM_READ,
    };
    let Ok(Outcome::Later(call)) = service.handle(owner, caller, request, Vec::new()) else {
        panic!("node 1 has to be asked");
    };
    assert!(service.take_answer(call).is_none());
    assert!(service.lose(1));
    let answer = service.take_answer(call).expect("it has come");
    assert_eq!(answer.err(), Some(Code::ConnAborted));
    assert_eq!(service.counts(), (0, 0));
    assert!(service.take_answer(call).is_none(), "once");
    // What the node still had to say.
    let told = windlass_rsm::Told::Connected {
        connection: 5,
        len: 4096,
        pass: pass(),
    };
    let answer = Ok(told);
    assert!(!service.on_message(1, Message::Answer { call, answer }));
}

/// A connection of a new segment under the same id does not revive that of the old one.
#[test]
fn an_end_is_final() {
    let two = Two::new(1);
    let import = two.connect(PERM_RDWR).unwrap();
    let _barrier = Barrier::init(&import, BARRIER_NODE).unwrap();
    two.export.unpublish().unwrap();
    two.export.publish(0x60_0000, None).unwrap();
    let other = Import::connect(&two.importer.1, 1, 0x60_0000, PERM_READ).unwrap();
    assert!(import.is_aborted() && !other.is_aborted());
    let got = import.get(0, &mut [0; 8], 8);
    assert_eq!(got, Err(Code::ConnAborted));
}

#[test]
fn importers_that_end_are_forgotten_by_the_exporters_node() {
    let two = Two::new(1);
    let import = two.connect(PERM_RDWR).unwrap();
    let kept = two.connect(0).unwrap();
    assert_eq!(two.connections(), (2, 2));
    import.disconnect().unwrap();
    assert_eq!(two.connections(), (1, 1));
    two.importer.0.die();
    assert_eq!(two.connections(), (0, 0));
    drop(kept);
}

#[test]
fn signals_cross_nodes() {
    let two = Two::new(1);
    let import = two.connect(0).unwrap();
    let second = two.connect(PERM_READ).unwrap();
    let now = Some(Duration::ZERO);
    import.post(false).unwrap();
    import.post(true).unwrap();
    second.post(false).unwrap();
    assert_eq!(two.export.wait(now), Ok(()));
    assert_eq!(two.export.wait(now), Ok(()));
    assert_eq!(two.export.wait(now), Err(Code::Timeout));
    two.export.post(false).unwrap();
    two.export.post(true).unwrap();
    for import in [&import, &second] {
        assert_eq!(import.signals().take(), Event::Taken);
        assert_eq!(import.signals().take(), Event::None);
    }
    two.export.unpublish().unwrap();
    assert_eq!(import.signals().take(), Event::Ended);
}

/// What another node's service says is judged: it speaks of its own connections alone, and asks for no more than may be.
#[test]
fn what_is_not_another_nodes_is_not_its_own() {
    let three = Cluster::new(3);
    let (_, exporter) = three.person(1, Scope::Cluster);
    let (_, importer) = three.person(0, Scope::Cluster);
    let (bytes, memory) = memory(1);
    let export = Export::create(&exporter, memory, 0).unwrap();
    let id = export.publish(0, None).unwrap();
    let import = Import::connect(&importer, 1, id, PERM_READ).unwrap();
    let service = |node: usize| three.0[node].lock();
    for name in 0..20 {
        // Node 2 knows neither connection.
        service(0).on_message(2, Message::Ended { name });
        service(0).on_message(2, Message::Signal { name, once: false });
        let connection = name;
        service(1).on_message(2, Message::Disconnect { connection });
        let once = false;
        let ask = Ask::Post { connection, once };
        service(1).on_message(2, Message::Ask { call: 1, ask });
        let answers = service(1).take_messages();
        assert_eq!(answers.len(), 1);
        for (_, answer) in answers {
            let refused = matches!(answer, Message::Answer { answer: Err(_), .. });
            assert!(refused, "{answer:?}");
        }
        // Nobody has asked that.
        let answer = Ok(windlass_rsm::Told::Done);
        assert!(!service(0).on_message(
            1,
            Message::Answer {
                call: name + 50,
                answer
            }
        ));
    }
    assert!(!import.is_aborted());
    assert_eq!(import.signals().take(), Event::None);
    assert_eq!(export.signals().take(), Event::None);
    assert_eq!(text(&bytes, 0, 8), [0; 8]);
    import.set_mode(0).unwrap();
    import.get(0, &mut [0; 8], 8).unwrap();
}

mod hostile {
    use proptest::prelude::*;
    use windlass_rsm::Told;

    use super::*;

    fn name() -> impl Strategy<Value = u64> {
        prop_oneof![9 => 0..12u64, 1 => any::<u64>()]
    }

    fn ask() -> impl Strategy<Value = Ask> {
        let id = prop_oneof![0x8000_0000..0x8000_0002u32, any::<u32>()];
        prop_oneof![
            (name(), id, 0..0o1000u32, any::<u32>()).prop_map(|(name, id, permission, uid)| {
                let (gid, groups) = (uid, vec![uid]);
                Ask::Connect {
                    name,
                    id,
                    permission,
                    uid,
                    gid,
                    groups,
                }
            }),
            (name(), any::<bool>()).prop_map(|(connection, once)| Ask::Post { connection, once }),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let told = prop_oneof![
            (name(), any::<u64>()).prop_map(|(connection, len)| {
                let pass = pass();
                Told::Connected {
                    connection,
                    len,
                    pass,
                }
            }),
            Just(Told::Done),
        ];
        let answer = prop_oneof![told.prop_map(Ok), Just(Err(Code::PermDenied))];
        prop_oneof![
            4 => (name(), ask()).prop_map(|(call, ask)| Message::Ask { call, ask }),
            2 => (name(), answer).prop_map(|(call, answer)| Message::Answer { call, answer }),
            1 => name().prop_map(|connection| Message::Disconnect { connection }),
            1 => name().prop_map(|name| Message::Ended { name }),
            1 => (name(), any::<bool>())
                .prop_map(|(name, once)| Message::Signal { name, once }),
        ]
    }

    proptest! {
        /// Another node says anything: what is between the other two stays, and nothing is left when it has gone.
        #[test]
        fn any_messages_of_another_node_leave_the_rest_alone(
            messages in prop::collection::vec((0..2usize, message()), 1..60),
        ) {
            let three = Cluster::new(3);
            let (_, exporter) = three.person(1, Scope::Cluster);
            let (_, importer) = three.person(0, Scope::Cluster);
            let (bytes, memory) = memory(1);
            let export = Export::create(&exporter, memory, 0).unwrap();
            // Not to node 2.
            let list = [entry(0, 0o600), entry(1, 0o600)];
            let id = export.publish(0, Some(&list)).unwrap();
            let import = Import::connect(&importer, 1, id, PERM_RDWR).unwrap();
            import.set_mode(0).unwrap();
            import.put(0, b"kept", 1).unwrap();
            for (to, message) in messages {
                three.0[to].lock().on_message(2, message);
            }
            prop_assert!(!import.is_aborted());
            prop_assert_eq!(text(&bytes, 0, 4), b"kept");
            let mut seen = [0; 4];
            import.get(0, &mut seen, 1).unwrap();
            prop_assert_eq!(&seen, b"kept");
            prop_assert_eq!(export.signals().take(), Event::None);
            prop_assert_eq!(import.signals().take(), Event::None);
            three.lose(2);
            prop_assert_eq!(three.0[0].lock().counts(), (0, 1));
            prop_assert_eq!(three.0[1].lock().counts(), (1, 1));
        }
    }
}
