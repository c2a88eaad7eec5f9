//! The checks of open and attach in the documented order (ve-memory.md sections 5.1 and 5.2): each request breaks one rule and
//! later ones with it, and the answer tells which rule was looked at first. At the level of requests, where memory can be mapped at
//! any address.
#![cfg(not(miri))]

mod support;

use support::{M2, M64, Node, SMALL, UID};
use windlass_ve::{
    Area, Body, Errno, Ived, Mode, PageMode, PageSize, ProcessId, Request, Ticket, Vehva, Vemva,
};

/// Where the tests map memory.
const BASE: Vemva = Vemva::new(0x6000_0000_0000);

fn ask(node: &Node, id: ProcessId, request: Request) -> Result<Body, Errno> {
    node.service().handle(id, request).map(|reply| reply.body)
}

fn ticket(body: Body) -> Ticket {
    match body {
        Body::Frames { ticket, .. } => ticket,
        other => panic!("not frames: {other:?}"),
    }
}

fn at(offset: u64) -> Vemva {
    BASE.checked_add(offset).expect("address")
}

fn map(node: &Node, id: ProcessId, vemva: Vemva, pages: u64, page: PageSize) {
    let allocated = ask(
        node,
        id,
        Request::Allocate {
            len: pages * page.bytes(),
            page,
        },
    )
    .expect("frames");
    let ticket = ticket(allocated);
    assert_eq!(
        ask(node, id, Request::Bind { ticket, vemva }),
        Ok(Body::Bound { vemva })
    );
}

fn protect(node: &Node, id: ProcessId, vemva: Vemva, len: u64) {
    assert_eq!(
        ask(
            node,
            id,
            Request::Protect {
                vemva,
                len,
                writable: false
            }
        ),
        Ok(Body::Done)
    );
}

fn area(vemva: Vemva, size: u64, mode: Mode) -> Area {
    Area {
        vemva,
        size,
        syncnum: 0,
        mode,
    }
}

fn open(node: &Node, id: ProcessId, vemva: Vemva, size: u64, mode: Mode) -> Result<Body, Errno> {
    ask(node, id, Request::Open(area(vemva, size, mode)))
}

fn attach(node: &Node, id: ProcessId, vemva: Vemva, size: u64, mode: Mode) -> Result<Body, Errno> {
    ask(
        node,
        id,
        Request::Attach {
            pid: 10,
            area: area(vemva, size, mode),
        },
    )
}

struct Three {
    node: Node,
    owner: ProcessId,
    near: ProcessId,
    far: ProcessId,
}

/// Owner and near on VE 0, far on VE 1. Mapped at the owner: 4 pages of 64 MiB, a gap, 2 pages of 2 MiB.
fn three() -> Three {
    let node = Node::new(SMALL);
    let join = |pid, ve| node.service().join(pid, 1, UID, Some(ve)).expect("join");
    let (owner, near, far) = (join(10, 0), join(11, 0), join(12, 1));
    map(&node, owner, BASE, 4, PageSize::M64);
    map(&node, owner, at(8 * M64), 2, PageSize::M2);
    Three {
        node,
        owner,
        near,
        far,
    }
}

#[test]
fn open_in_order() {
    let Three { node, owner, .. } = three();
    let with = |vemva, size, mode| open(&node, owner, vemva, size, mode);
    node.service().set_ived(Ived::Absent);
    assert_eq!(
        with(BASE, M64, Mode::new(0x8)),
        Err(Errno::Enotsup),
        "before anything else"
    );
    node.service().set_ived(Ived::Unreachable);
    assert_eq!(with(BASE, M64, Mode::PCI), Err(Errno::Ecanceled), "row 12");
    assert_eq!(
        with(at(2), M64, Mode::PCI),
        Err(Errno::Einval),
        "row 5 before row 12"
    );
    assert_eq!(
        with(BASE, 5 * M64, Mode::PCI),
        Err(Errno::Enomem),
        "row 8 before row 12"
    );
    node.service().set_ived(Ived::Connected);
    protect(&node, owner, at(3 * M64), M64);
    assert_eq!(
        with(at(3 * M64), M64, Mode::PCI),
        Err(Errno::Eacces),
        "row 9"
    );
    assert_eq!(
        with(at(3 * M64), M64, Mode::PCI.with(Mode::READ_ONLY)),
        Err(Errno::Eacces),
        "row 9, RO too"
    );
    assert_eq!(
        with(at(3 * M64), 2 * M64, Mode::PCI),
        Err(Errno::Enomem),
        "row 8 before row 9"
    );
    assert_eq!(
        with(at(3 * M64), 1 << 63, Mode::PCI),
        Err(Errno::Enomem),
        "row 8: negative"
    );
    assert_eq!(
        with(at(5 * M64), M2, Mode::PCI),
        Err(Errno::Einval),
        "row 4 before row 5"
    );
    assert_eq!(
        with(at(8 * M64), M64, Mode::PCI),
        Err(Errno::Einval),
        "row 6 before row 8"
    );
    assert_eq!(
        with(at(8 * M64), M64, Mode::NONE),
        Err(Errno::Enomem),
        "row 8"
    );
    assert_eq!(with(at(8 * M64), 2 * M2, Mode::NONE), Ok(Body::Done));
}

#[test]
fn open_with_too_few_slots_takes_none() {
    let Three { node, owner, .. } = three();
    map(&node, owner, at(16 * M64), 14, PageSize::M64);
    assert_eq!(open(&node, owner, BASE, 2 * M64, Mode::PCI), Ok(Body::Done));
    assert_eq!(
        open(&node, owner, at(16 * M64), 14 * M64, Mode::PCI),
        Err(Errno::Enomem),
        "row 10"
    );
    assert_eq!(
        node.service().free_resources(0).map(|(_, slots, _)| slots),
        Some(13)
    );
    assert_eq!(
        open(&node, owner, at(16 * M64), 13 * M64, Mode::PCI),
        Ok(Body::Done)
    );
    assert_eq!(
        open(&node, owner, BASE, 2 * M64, Mode::PCI),
        Ok(Body::Done),
        "a re-open takes no slot"
    );
}

#[test]
fn attach_to_vemva_in_order() {
    let Three {
        node, owner, near, ..
    } = three();
    let vemva = Mode::PCI.with(Mode::VEMVA);
    let with = |start, size, mode| attach(&node, near, start, size, mode);
    assert_eq!(with(at(5 * M64), M64, vemva), Err(Errno::Einval), "row 2");
    assert_eq!(with(at(2), M64, vemva), Err(Errno::Einval), "row 3");
    assert_eq!(with(BASE, M64, vemva), Err(Errno::Einval), "row 14");
    assert_eq!(open(&node, owner, BASE, M64, Mode::PCI), Ok(Body::Done));
    node.service().set_ived(Ived::Unreachable);
    assert_eq!(with(BASE, M64, vemva), Err(Errno::Ecanceled), "row 11");
    assert_eq!(
        with(BASE, M64, vemva.with(Mode::NONE)),
        Err(Errno::Einval),
        "row 5 before row 11"
    );
    assert_eq!(
        with(BASE, 2 * M64, vemva),
        Err(Errno::Ecanceled),
        "row 11 before row 14"
    );
    node.service().set_ived(Ived::Connected);
    // No ATB directory left: row 4 comes even before the flag rules.
    for n in 0..32 {
        let space = Vemva::new(n * PageSize::M2.partial_space() + M2);
        map(&node, near, space, 1, PageSize::M2);
    }
    assert_eq!(
        with(BASE, M64, vemva.with(Mode::NONE)),
        Err(Errno::Enomem),
        "row 4 before row 5"
    );
    assert_eq!(
        with(at(2), M64, vemva),
        Err(Errno::Einval),
        "row 3 before row 4"
    );
    let first = Vemva::new(M2);
    assert_eq!(
        ask(
            &node,
            near,
            Request::Free {
                vemva: first,
                len: M2
            }
        ),
        Ok(Body::Done)
    );
    let ticket = ticket(with(BASE, M64, vemva).expect("frames"));
    assert_eq!(
        ask(
            &node,
            near,
            Request::Bind {
                ticket,
                vemva: at(0)
            }
        ),
        Ok(Body::Bound { vemva: BASE })
    );
}

#[test]
fn attach_to_changed_pages_is_canceled_on_the_ve_but_not_between_ves() {
    let Three {
        node,
        owner,
        near,
        far,
    } = three();
    assert_eq!(open(&node, owner, BASE, M64, Mode::PCI), Ok(Body::Done));
    assert_eq!(
        ask(
            &node,
            owner,
            Request::Free {
                vemva: BASE,
                len: M64
            }
        ),
        Ok(Body::Done)
    );
    map(&node, owner, BASE, 1, PageSize::M64);
    assert_eq!(
        attach(&node, near, BASE, M64, Mode::PCI.with(Mode::VEMVA)),
        Err(Errno::Ecanceled),
        "row 18"
    );
    let old = attach(&node, far, BASE, M64, Mode::PCI.with(Mode::VEHVA))
        .expect("staleness: the old frames");
    // Opened anew, the area is renewed: other frames, another address.
    assert_eq!(open(&node, owner, BASE, M64, Mode::PCI), Ok(Body::Done));
    let new = attach(&node, far, BASE, M64, Mode::PCI.with(Mode::VEHVA)).expect("the new frames");
    let frames = |body: &Body| match body {
        Body::Vehva {
            vehva,
            frames: Some(frames),
            ..
        } => (*vehva, frames.runs.clone()),
        other => panic!("not new entries: {other:?}"),
    };
    let ((old_at, old_runs), (new_at, new_runs)) = (frames(&old), frames(&new));
    assert_ne!(old_at, new_at);
    assert_ne!(old_runs, new_runs);
    let close = Request::Close(area(BASE, M64, Mode::PCI));
    assert_eq!(ask(&node, owner, close.clone()), Ok(Body::Done));
    assert_eq!(
        ask(&node, owner, close),
        Err(Errno::Einval),
        "the old opens went with the old area"
    );
}

#[test]
fn attach_to_vehva_in_order() {
    let Three {
        node,
        owner,
        near,
        far,
    } = three();
    let vehva = Mode::PCI.with(Mode::VEHVA);
    assert_eq!(open(&node, owner, BASE, M64, Mode::PCI), Ok(Body::Done));
    let gone = |pid| {
        ask(
            &node,
            far,
            Request::Attach {
                pid,
                area: area(BASE, M64, vehva),
            },
        )
    };
    node.service().set_ived(Ived::Unreachable);
    assert_eq!(gone(99), Err(Errno::Ecanceled), "row 11 before row 12");
    assert_eq!(
        attach(&node, near, BASE, M64, vehva),
        Err(Errno::Einval),
        "row 10 before row 11"
    );
    assert_eq!(
        attach(&node, far, BASE, M64, Mode::NONE.with(Mode::VEHVA)),
        Err(Errno::Einval),
        "row 8 before row 11"
    );
    node.service().set_ived(Ived::Connected);
    assert_eq!(gone(99), Err(Errno::Esrch), "row 12");
    assert_eq!(gone(12), Err(Errno::Einval), "row 7: own pid");
    let stranger = node.service().join(13, 1, UID + 1, Some(1)).expect("join");
    assert_eq!(
        attach(&node, stranger, BASE, 2 * M64, vehva),
        Err(Errno::Einval),
        "row 14 before row 15"
    );
    assert_eq!(
        attach(&node, stranger, BASE, M64, vehva),
        Err(Errno::Eacces),
        "row 15"
    );
    // All directories of VE 1 taken: row 21, and nothing is left behind.
    let segment = Request::SegmentAttach {
        shmid: 1,
        len: 56 * (512 << 20),
        writable: true,
        huge: true,
    };
    let Ok(Body::Vehva { vehva: whole, .. }) = ask(&node, far, segment) else {
        panic!("no directories")
    };
    assert_eq!(
        attach(&node, far, BASE, M64, vehva),
        Err(Errno::Enomem),
        "row 21"
    );
    assert_eq!(
        ask(&node, far, Request::SegmentDetach { vehva: whole }),
        Ok(Body::Detached { last: true })
    );
    let Ok(Body::Vehva { vehva: got, .. }) = attach(&node, far, BASE, M64, vehva) else {
        panic!("not attached")
    };
    assert_eq!(got, Vehva::new(0x0700_0000_0000));
}

#[test]
fn attach_of_own_memory_in_order() {
    let Three { node, owner, .. } = three();
    let local = Mode::MEM_LOCAL;
    let with = |start, size, mode| attach(&node, owner, start, size, mode);
    protect(&node, owner, at(3 * M64), M64);
    assert_eq!(
        with(at(2), M64, local),
        Err(Errno::Einval),
        "row 6: misaligned"
    );
    assert_eq!(
        with(at(5 * M64), M64, local),
        Err(Errno::Einval),
        "row 6: unmapped"
    );
    assert_eq!(
        with(at(5 * M64), M64, local.with(Mode::VEHVA)),
        Err(Errno::Einval),
        "row 5"
    );
    assert_eq!(
        with(at(3 * M64), 2 * M64, local),
        Err(Errno::Enomem),
        "row 19 before row 20"
    );
    assert_eq!(with(at(3 * M64), M64, local), Err(Errno::Eacces), "row 20");
    assert_eq!(
        with(at(3 * M64), M64, local.with(Mode::READ_ONLY)),
        Err(Errno::Eacces),
        "row 20, RO too"
    );
    assert_eq!(with(BASE, 0, local), Err(Errno::Enomem), "row 21");
    let Ok(Body::Vehva { vehva, page, .. }) = with(at(8 * M64), M2, local) else {
        panic!("not attached")
    };
    assert_eq!(
        (vehva, page),
        (Vehva::new(0x0088_0000_0000), PageSize::M2),
        "the page size of the memory"
    );
}

#[test]
fn a_failed_bind_gives_the_frames_back() {
    let Three {
        node, owner, near, ..
    } = three();
    let before = node.service().free_resources(0);
    for vemva in [
        Vemva::new(0),
        at(M2),
        at(M64),
        Vemva::new(u64::MAX - M64 + 1),
    ] {
        let ticket = ticket(
            ask(
                &node,
                owner,
                Request::Allocate {
                    len: 2 * M64,
                    page: PageSize::M64,
                },
            )
            .expect("frames"),
        );
        assert!(
            ask(&node, owner, Request::Bind { ticket, vemva }).is_err(),
            "{vemva}"
        );
        assert_eq!(
            ask(&node, owner, Request::Bind { ticket, vemva }),
            Err(Errno::Einval),
            "the ticket is gone"
        );
    }
    let ticket = ticket(
        ask(
            &node,
            owner,
            Request::Allocate {
                len: 1,
                page: PageSize::M64,
            },
        )
        .expect("frames"),
    );
    assert_eq!(
        ask(&node, near, Request::Release { ticket }),
        Err(Errno::Einval),
        "not one's own ticket"
    );
    assert_eq!(
        ask(&node, owner, Request::Release { ticket }),
        Ok(Body::Done)
    );
    assert_eq!(node.service().free_resources(0), before);
}

#[test]
fn an_attachment_that_could_not_be_mapped_leaves_no_reference() {
    let Three {
        node, owner, near, ..
    } = three();
    assert_eq!(open(&node, owner, BASE, M64, Mode::PCI), Ok(Body::Done));
    let slots = |node: &Node| node.service().free_resources(0).map(|(_, slots, _)| slots);
    let ticket =
        ticket(attach(&node, near, BASE, M64, Mode::PCI.with(Mode::VEMVA)).expect("frames"));
    assert_eq!(
        ask(&node, owner, Request::Close(area(BASE, M64, Mode::PCI))),
        Ok(Body::Done)
    );
    assert_eq!(slots(&node), Some(14));
    assert_eq!(
        ask(&node, near, Request::Release { ticket }),
        Ok(Body::Done)
    );
    assert_eq!(slots(&node), Some(15));
}

#[test]
fn attached_memory_ends_by_detach_only() {
    let Three {
        node, owner, near, ..
    } = three();
    assert_eq!(
        open(&node, owner, BASE, 2 * M64, Mode::NONE),
        Ok(Body::Done)
    );
    let mode = Mode::NONE.with(Mode::VEMVA);
    let ticket = ticket(attach(&node, near, BASE, 2 * M64, mode).expect("frames"));
    let vemva = at(100 * M64);
    assert_eq!(
        ask(&node, near, Request::Bind { ticket, vemva }),
        Ok(Body::Bound { vemva })
    );
    assert_eq!(
        ask(
            &node,
            near,
            Request::Free {
                vemva,
                len: 2 * M64
            }
        ),
        Err(Errno::Einval)
    );
    assert_eq!(
        ask(
            &node,
            near,
            Request::Free {
                vemva: at(101 * M64),
                len: M64
            }
        ),
        Err(Errno::Einval)
    );
    assert_eq!(
        ask(
            &node,
            near,
            Request::Protect {
                vemva,
                len: M64,
                writable: true
            }
        ),
        Err(Errno::Einval)
    );
    // Two hand-overs at once: the second Bind finds the first one's mapping and gives its frames back.
    assert_eq!(
        attach(&node, near, BASE, 2 * M64, mode),
        Ok(Body::Bound { vemva })
    );
    let detach = || {
        ask(
            &node,
            near,
            Request::Detach {
                address: vemva.raw(),
                mode: Mode::VEMVA,
            },
        )
    };
    assert_eq!(detach(), Ok(Body::Detached { last: false }));
    assert_eq!(detach(), Ok(Body::Detached { last: true }));
    assert_eq!(detach(), Err(Errno::Einval));
}

#[test]
fn two_hand_overs_of_one_area_end_in_one_mapping() {
    let Three {
        node,
        owner,
        near,
        far,
    } = three();
    assert_eq!(open(&node, owner, BASE, M64, Mode::PCI), Ok(Body::Done));
    let hand_over =
        || ticket(attach(&node, near, BASE, M64, Mode::PCI.with(Mode::VEMVA)).expect("frames"));
    let (first, second) = (hand_over(), hand_over());
    let (here, there) = (at(100 * M64), at(200 * M64));
    assert_eq!(
        ask(
            &node,
            near,
            Request::Bind {
                ticket: first,
                vemva: here
            }
        ),
        Ok(Body::Bound { vemva: here })
    );
    assert_eq!(
        ask(
            &node,
            near,
            Request::Bind {
                ticket: second,
                vemva: there
            }
        ),
        Ok(Body::Bound { vemva: here })
    );
    for id in [owner, near, far] {
        node.service().leave(id);
    }
    node.assert_empty();
}

#[test]
fn memory_files_go_to_those_who_have_frames_there() {
    let Three {
        node,
        owner,
        near,
        far,
    } = three();
    let host = node.service().join(20, 1, UID, None).expect("join");
    let files = |id, ve| {
        let reply = node.service().handle(id, Request::Memory { ve });
        reply.map(|reply| reply.files().len())
    };
    assert_eq!(files(owner, 0), Ok(1));
    assert_eq!(files(near, 0), Ok(1));
    assert_eq!(files(far, 0), Err(Errno::Eacces));
    assert_eq!(files(far, 7), Err(Errno::Eacces));
    assert_eq!(open(&node, owner, BASE, M64, Mode::PCI), Ok(Body::Done));
    attach(&node, far, BASE, M64, Mode::PCI.with(Mode::VEHVA)).expect("attach");
    assert_eq!(files(far, 0), Ok(1));
    assert_eq!(files(host, 0), Err(Errno::Eacces));
    let veo = ask(
        &node,
        host,
        Request::Veo {
            pid: 10,
            vemva: at(3),
            len: 5,
        },
    );
    assert_eq!(files(host, 0), Ok(1));
    assert_eq!(
        ask(
            &node,
            host,
            Request::Release {
                ticket: ticket(veo.expect("window"))
            }
        ),
        Ok(Body::Done)
    );
    assert_eq!(files(host, 0), Err(Errno::Eacces));
}

#[test]
fn absent_ived_answers_enotsup_everywhere() {
    let Three {
        node, owner, far, ..
    } = three();
    node.service().set_ived(Ived::Absent);
    let detach = Request::Detach {
        address: u64::MAX,
        mode: Mode::VEHVA,
    };
    let page_mode = Request::PageMode {
        mode: PageMode::VEMVA,
        pid: 10,
        address: BASE.raw(),
    };
    let segment = Request::SegmentAttach {
        shmid: 1,
        len: M2,
        writable: true,
        huge: false,
    };
    let close = Request::Close(area(BASE, M64, Mode::PCI));
    for request in [detach, page_mode, segment, close] {
        assert_eq!(ask(&node, owner, request), Err(Errno::Enotsup));
    }
    assert_eq!(
        attach(&node, far, BASE, M64, Mode::PCI.with(Mode::VEHVA)),
        Err(Errno::Enotsup)
    );
}

#[test]
fn a_pid_seen_again_is_a_new_process() {
    let Three { node, owner, .. } = three();
    assert_eq!(
        node.service().join(10, 1, UID, Some(0)),
        Err(Errno::Ebusy),
        "this very process"
    );
    let free = |node: &Node| node.service().free_resources(0).map(|(free, ..)| free);
    assert_eq!(free(&node), Some(SMALL.memory_bytes - 4 * M64 - 2 * M2));
    let next = node
        .service()
        .join(10, 2, UID, Some(1))
        .expect("the old one ended unnoticed");
    assert_eq!(free(&node), Some(SMALL.memory_bytes));
    assert_ne!(owner, next);
    assert_eq!(ask(&node, owner, Request::Hello), Err(Errno::Ecanceled));
    assert_eq!(node.service().join(11, 2, UID, Some(9)), Err(Errno::Einval));
}
