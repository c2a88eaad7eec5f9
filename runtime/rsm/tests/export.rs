//! Export segments: each row of the tables of rsm 5.2 to 5.6, and who may connect (5.7, 5.8).

mod support;

use std::sync::Arc;

use support::{NODE, Node, Pair, memory, page, text};
use windlass_mem::MemFile;
use windlass_mem::reback::place::Movable;
use windlass_mem::view::{Rights, View};
use windlass_rsm::{
    ALLOW_REBIND, AccessEntry, Code, Controller, Export, Import, PERM_RDWR, PERM_READ, PERM_WRITE,
    Scope,
};

fn entry(permission: u32) -> AccessEntry {
    AccessEntry {
        node: NODE,
        permission,
    }
}

fn export(controller: &Arc<Controller>, pages: usize, flags: u32) -> Arc<Export> {
    Export::create(controller, memory(pages).1, flags).unwrap()
}

#[test]
fn controllers_have_names_and_attributes() {
    assert_eq!(Scope::of(None), Ok(Scope::Node));
    assert_eq!(Scope::of(Some(b"LoopBack")), Ok(Scope::Node));
    assert_eq!(Scope::of(Some(b"TCP0")), Ok(Scope::Cluster));
    assert_eq!(Scope::of(Some(b"sci0")), Err(Code::CtlrNotPresent));
    assert_eq!(Scope::of(Some(&[b'x'; 300])), Err(Code::CtlrNotPresent));
    let (person, controller) = Node::new().own();
    let attributes = controller.attributes().unwrap();
    assert_eq!(attributes.page_size, page());
    assert_eq!(
        (attributes.direct_access_sizes, attributes.atomic_sizes),
        (0xF, 0xC)
    );
    assert_eq!(controller.node(), NODE);
    person.lose_service();
    assert_eq!(controller.attributes().unwrap_err(), Code::CtlrNotPresent);
}

#[test]
fn create_refuses_what_cannot_be_shared() {
    let (person, controller) = Node::new().own();
    let file = MemFile::create("windlass-test", page() as u64).unwrap();
    let shared = Movable::of(file.map(0, page()).unwrap()).unwrap();
    let refused = Export::create(&controller, shared, 0).unwrap_err();
    assert_eq!(refused, Code::InsufficientResources);
    person.lose_service();
    let refused = Export::create(&controller, memory(1).1, 0).unwrap_err();
    assert_eq!(refused, Code::CtlrNotPresent);
}

#[test]
fn a_service_keeps_so_many_descriptors_and_no_more() {
    let node = Node::with(12);
    let (_, controller) = node.own();
    let one = export(&controller, 1, 0);
    let id = one.publish(0, None).unwrap();
    let two = export(&controller, 1, 0);
    let import = Import::connect(&controller, NODE, id, PERM_READ).unwrap();
    let refused = Export::create(&controller, memory(1).1, 0).unwrap_err();
    assert_eq!(refused, Code::InsufficientResources);
    let refused = Import::connect(&controller, NODE, id, PERM_READ).err();
    assert_eq!(refused, Some(Code::InsufficientResources));
    two.destroy().unwrap();
    drop(export(&controller, 1, 0));
    drop(import);
    assert!(Import::connect(&controller, NODE, id, PERM_READ).is_ok());
}

#[test]
fn publish_answers_each_row_in_order() {
    let node = Node::new();
    let (_, controller) = node.own();
    let (_, other) = node.own();
    let one = export(&controller, 1, 0);
    let two = export(&other, 1, 0);
    let list = [entry(0o600), entry(0o600)];
    // Two rows hold at once: the first decides.
    assert_eq!(one.publish(5, Some(&list)), Err(Code::ReservedSegid));
    assert_eq!(one.publish(0x60_0000, Some(&list)), Err(Code::BadAcl));
    for bad in [
        AccessEntry {
            node: NODE + 1,
            permission: 0o600,
        },
        entry(0o667),
    ] {
        assert_eq!(one.publish(0, Some(&[bad])), Err(Code::BadAcl), "{bad:?}");
    }
    assert_eq!(one.publish(0x60_0000, None), Ok(0x60_0000));
    assert_eq!(one.publish(5, None), Err(Code::SegAlreadyPublished));
    assert_eq!(two.publish(0x60_0000, None), Err(Code::SegidInUse));
    assert_eq!(two.publish(0, Some(&[entry(0o644)])), Ok(0x8000_0000));
    two.unpublish().unwrap();
    // Ids that are given out ascend.
    assert_eq!(two.publish(0, None), Ok(0x8000_0001));
    one.destroy().unwrap();
    assert_eq!(one.publish(0, None), Err(Code::BadSegHndl));
    assert_eq!(two.publish(0, None), Err(Code::SegAlreadyPublished));
}

#[test]
fn a_publish_that_fails_leaves_private_memory() {
    let node = Node::new();
    let (_, controller) = node.own();
    let (bytes, memory) = memory(1);
    bytes.write(3, b"here").unwrap();
    let first = export(&controller, 1, 0);
    first.publish(0x60_0000, None).unwrap();
    let second = Export::create(&controller, memory, 0).unwrap();
    assert_eq!(second.publish(0x60_0000, None), Err(Code::SegidInUse));
    Movable::of(bytes.clone()).unwrap().check().unwrap();
    assert_eq!(text(&bytes, 3, 4), b"here");
    second.publish(0, None).unwrap();
    assert!(Movable::of(bytes).unwrap().check().is_err(), "it is shared");
}

#[test]
fn unpublish_and_republish_answer_each_row() {
    let node = Node::new();
    let (_, controller) = node.own();
    let segment = export(&controller, 1, 0);
    assert_eq!(segment.unpublish(), Err(Code::SegNotPublished));
    let two = [entry(0o600), entry(0o600)];
    assert_eq!(segment.republish(Some(&two)), Err(Code::SegNotPublished));
    segment.publish(0x60_0000, None).unwrap();
    assert_eq!(segment.republish(Some(&two)), Err(Code::BadAcl));
    assert_eq!(segment.republish(Some(&[entry(0o1000)])), Err(Code::BadAcl));
    segment.republish(Some(&[entry(0o400)])).unwrap();
    segment.unpublish().unwrap();
    assert_eq!(segment.unpublish(), Err(Code::SegNotPublished));
    segment.destroy().unwrap();
    assert_eq!(segment.unpublish(), Err(Code::BadSegHndl));
    assert_eq!(segment.republish(None), Err(Code::BadSegHndl));
    assert_eq!(segment.destroy(), Err(Code::BadSegHndl));
}

#[test]
fn destroy_waits_for_its_descriptor_to_be_released() {
    let pair = Pair::new(1);
    assert!(pair.export.pollfd().is_ok());
    assert_eq!(pair.export.destroy(), Err(Code::PollfdInUse));
    pair.export.release_pollfd();
    pair.export.destroy().unwrap();
    assert!(pair.import.is_aborted());
    assert_eq!(pair.export.pollfd().unwrap_err(), Code::BadSegHndl);
    assert_eq!(pair.node.0.lock().counts(), (0, 1));
}

#[test]
fn rebind_answers_each_row_and_leaves_the_old_memory() {
    let node = Node::new();
    let (_, controller) = node.own();
    let fixed = export(&controller, 1, 0);
    assert_eq!(fixed.rebind(memory(2).1), Err(Code::RebindNotAllowed));
    let segment = export(&controller, 2, ALLOW_REBIND);
    assert_eq!(segment.rebind(memory(1).1), Err(Code::BadLength));
    segment.rebind(memory(2).1).unwrap();
    let file = MemFile::create("windlass-test", 2 * page() as u64).unwrap();
    let shared = || Movable::of(file.map(0, 2 * page()).unwrap()).unwrap();
    assert_eq!(segment.rebind(shared()), Err(Code::InsufficientResources));
    segment.publish(0, None).unwrap();
    assert_eq!(segment.rebind(shared()), Err(Code::InsufficientResources));
    segment.destroy().unwrap();
    assert_eq!(segment.rebind(memory(2).1), Err(Code::BadSegHndl));
}

#[test]
fn connect_answers_each_row_in_order() {
    let node = Node::new();
    let (_, controller) = node.own();
    let (stranger, foreign) = node.person(12_345);
    let segment = export(&controller, 1, 0);
    let connect = |node, id, permission| Import::connect(&foreign, node, id, permission).err();
    assert_eq!(connect(NODE + 1, 9, 0o4), Some(Code::PermDenied));
    assert_eq!(connect(NODE + 1, 9, PERM_READ), Some(Code::CtlrNotPresent));
    assert_eq!(connect(NODE, 9, PERM_READ), Some(Code::SegNotPublished));
    segment.publish(0x60_0000, Some(&[entry(0o604)])).unwrap();
    for permission in [PERM_WRITE, PERM_RDWR] {
        assert_eq!(connect(NODE, 0x60_0000, permission), Some(Code::PermDenied));
    }
    assert_eq!(connect(NODE, 0x60_0000, PERM_READ), None);
    assert_eq!(connect(NODE, 0x60_0000, 0), None);
    stranger.lose_service();
    assert_eq!(connect(NODE, 0x60_0000, 0), Some(Code::CtlrNotPresent));
    assert_eq!(node.0.lock().counts(), (1, 0), "dropped ones have ended");
}

#[test]
fn a_connection_without_rights_shows_nothing() {
    let pair = Pair::with(1, 0);
    let import = &pair.import;
    import.set_mode(0).unwrap();
    let refused = import.get(0, &mut [0; 8], 8);
    assert_eq!(refused, Err(Code::PermDenied));
    import.unmap().unwrap();
    let spot = windlass_mem::view::Spot::NOWHERE;
    assert!(import.map(0, spot, 0, 0, 5).unwrap() > 0);
    import.unmap().unwrap();
}

#[test]
fn disconnect_answers_each_row() {
    let pair = Pair::new(2);
    pair.map(0, 1).unwrap();
    assert!(pair.import.pollfd().is_ok());
    assert_eq!(pair.import.disconnect(), Err(Code::SegStillMapped));
    pair.import.unmap().unwrap();
    assert_eq!(pair.import.disconnect(), Err(Code::PollfdInUse));
    pair.import.release_pollfd();
    pair.import.release_pollfd();
    let _barrier = pair.barrier();
    pair.import.get(0, &mut [0; 8], 8).unwrap(); // maps by itself
    pair.import.disconnect().unwrap();
    assert_eq!(pair.import.disconnect(), Err(Code::BadSegHndl));
    assert_eq!(pair.import.pollfd().unwrap_err(), Code::BadSegHndl);
    assert_eq!(pair.node.0.lock().counts(), (1, 0));
}

/// What nobody may write, nobody can: also root, to whom no list applies, and whoever gets the descriptor.
#[test]
fn what_is_published_read_only_is_sealed() {
    let pair = Pair::new(1);
    pair.export.unpublish().unwrap();
    pair.bytes.write(0, b"first").unwrap();
    let id = pair.export.publish(0, Some(&[entry(0o444)])).unwrap();
    let connect = |permission| Import::connect(&pair.importer.1, NODE, id, permission);
    assert_eq!(connect(PERM_WRITE).err(), Some(Code::PermDenied));
    let reader = connect(PERM_READ).unwrap();
    let _barrier = windlass_rsm::Barrier::init(&reader, windlass_rsm::BARRIER_NODE).unwrap();
    let mut seen = [0; 5];
    reader.get(0, &mut seen, 1).unwrap();
    assert_eq!(&seen, b"first");
    let maps = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let sealed = maps.filter(|fd| {
        let target = std::fs::read_link(fd.path()).unwrap_or_default();
        target.to_string_lossy().starts_with("/memfd:windlass-rsm ")
    });
    let mut checked = 0;
    for fd in sealed {
        let file = std::fs::OpenOptions::new().write(true).open(fd.path());
        // Another segment of another test may be writable: it is larger.
        if let Ok(file) = file
            && file.metadata().unwrap().len() == page() as u64
        {
            let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
            checked += usize::from(seals.contains(rustix::fs::SealFlags::FUTURE_WRITE));
        }
    }
    assert!(
        checked > 0,
        "root reopens what is sealed, and cannot write there"
    );
    // The exporter goes on writing, and readers follow it to a file that may be written.
    pair.bytes.write(0, b"again").unwrap();
    pair.export.republish(None).unwrap();
    reader.get(0, &mut seen, 1).unwrap();
    assert_eq!(&seen, b"again");
    assert_eq!(
        reader.put(0, b"x", 1),
        Err(Code::PermDenied),
        "its rights stay"
    );
    let writer = connect(PERM_RDWR).unwrap();
    writer.set_mode(0).unwrap();
    writer.put(0, b"third", 1).unwrap();
    assert_eq!(text(&pair.bytes, 0, 5), b"third");
    reader.get(0, &mut seen, 1).unwrap();
    assert_eq!(&seen, b"third");
}

#[test]
fn views_of_what_is_sealed_cannot_be_made_writable() {
    let file = MemFile::create_unsealed("windlass-test", page() as u64).unwrap();
    file.seal(true).unwrap();
    assert!(View::new(Some(&file), 0, page(), Rights::ReadWrite, None).is_err());
}
