//! One test for each row of the error tables of ve-memory.md (sections 5.0 to 5.5 and 7.1 to 7.3), in both columns of section 11,
//! at the level of requests. The exception codes of 9.3 are in `dma.rs`; what only C can do (null pointers) belongs to the C libraries.
#![cfg(not(miri))]

mod support;

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{M2, M64, Node, SMALL, UID, errno, memory};
use windlass_ve::{
    Area, Body, Damage, Errno, ErrnoProfile, Ived, MAX_AREAS, Mode, PageMode, PageSize, ProcessId,
    Profile, Request, SMALL_BAR0_BYTES, Ticket, Vehva, Vemva,
};

const BASE: Vemva = Vemva::new(0x6000_0000_0000);
const PCI: Mode = Mode::PCI;
const NONE: Mode = Mode::NONE;
const RO: Mode = Mode::READ_ONLY;
const VEMVA: Mode = Mode::VEMVA;
const VEHVA: Mode = Mode::VEHVA;
const LOCAL: Mode = Mode::MEM_LOCAL;

type Answer = Result<(), Errno>;
/// What is done, and the answer as implemented and as documented.
type Row = (&'static str, fn(&Case) -> Answer, Answer, Answer);

const OK: Answer = Ok(());
const ENOENT: Answer = Err(Errno::Enoent);
const ESRCH: Answer = Err(Errno::Esrch);
const EAGAIN: Answer = Err(Errno::Eagain);
const ENOMEM: Answer = Err(Errno::Enomem);
const EACCES: Answer = Err(Errno::Eacces);
const EFAULT: Answer = Err(Errno::Efault);
const EBUSY: Answer = Err(Errno::Ebusy);
const EINVAL: Answer = Err(Errno::Einval);
const ENOTSUP: Answer = Err(Errno::Enotsup);
const ECANCELED: Answer = Err(Errno::Ecanceled);

fn at(offset: u64) -> Vemva {
    BASE.checked_add(offset).expect("address")
}

/// Owner (pid 10), near (11) and another user (14) on VE 0, far (12) and another user (13) on VE 1, host (20) on the VH. The owner has 4
/// pages of 64 MiB, the last one read-only, a gap, and at page 8 two of 2 MiB; its first page is open, PCI.
struct Case {
    node: Node,
    owner: ProcessId,
    near: ProcessId,
    far: ProcessId,
    far_stranger: ProcessId,
    near_stranger: ProcessId,
    host: ProcessId,
}

impl Case {
    fn new(profile: Profile) -> Self {
        let node = Node::new(profile);
        let join = |pid, ve, uid| node.service().join(pid, 1, uid, ve).expect("join");
        let case = Self {
            owner: join(10, Some(0), UID),
            near: join(11, Some(0), UID),
            far: join(12, Some(1), UID),
            far_stranger: join(13, Some(1), UID + 1),
            near_stranger: join(14, Some(0), 0),
            host: join(20, None, UID),
            node,
        };
        case.map(case.owner, BASE, 4, PageSize::M64);
        case.map(case.owner, at(8 * M64), 2, PageSize::M2);
        case.protect(at(3 * M64));
        if profile.pciatb_page() == PageSize::M64 {
            case.open(case.owner, BASE, M64, PCI).expect("open");
        }
        case
    }

    /// With PCIATB pages of 2 MiB.
    fn small_window(errno: ErrnoProfile) -> Self {
        Self::new(Profile {
            errno,
            memory_bytes: SMALL.memory_bytes,
            bar0_bytes: SMALL_BAR0_BYTES,
            ..Profile::VE1
        })
    }

    fn ask(&self, id: ProcessId, request: Request) -> Result<Body, Errno> {
        let reply = self.node.service().handle(id, request);
        reply.map(|reply| reply.body)
    }

    fn done(&self, id: ProcessId, request: Request) -> Answer {
        self.ask(id, request).map(drop)
    }

    fn map(&self, id: ProcessId, vemva: Vemva, pages: u64, page: PageSize) {
        let len = pages * page.bytes();
        let ticket = ticket(self.ask(id, Request::Allocate { len, page }));
        self.done(id, Request::Bind { ticket, vemva })
            .expect("bind");
    }

    fn protect(&self, vemva: Vemva) {
        let request = Request::Protect {
            vemva,
            len: M64,
            writable: false,
        };
        self.done(self.owner, request).expect("protect");
    }

    fn ived(&self, ived: Ived) -> &Self {
        self.node.service().set_ived(ived);
        self
    }

    fn open(&self, id: ProcessId, vemva: Vemva, size: u64, mode: Mode) -> Answer {
        self.done(id, Request::Open(area(vemva, size, 0, mode)))
    }

    fn close(&self, id: ProcessId, vemva: Vemva, size: u64, mode: Mode) -> Answer {
        self.done(id, Request::Close(area(vemva, size, 0, mode)))
    }

    fn attach(&self, id: ProcessId, vemva: Vemva, size: u64, mode: Mode) -> Answer {
        self.attach_of(id, 10, vemva, size, mode).map(drop)
    }

    fn attach_of(
        &self,
        id: ProcessId,
        pid: i32,
        vemva: Vemva,
        size: u64,
        mode: Mode,
    ) -> Result<Body, Errno> {
        let area = area(vemva, size, 0, mode);
        self.ask(id, Request::Attach { pid, area })
    }

    fn detach(&self, id: ProcessId, address: u64, mode: Mode) -> Answer {
        self.done(id, Request::Detach { address, mode })
    }

    fn page(&self, mode: i64, pid: i32, address: u64) -> Answer {
        let mode = PageMode(mode);
        self.done(self.near, Request::PageMode { mode, pid, address })
    }

    fn segment(&self, id: ProcessId, len: u64, huge: bool) -> Result<Body, Errno> {
        let request = Request::SegmentAttach {
            shmid: 7,
            len,
            writable: true,
            huge,
        };
        self.ask(id, request)
    }

    /// The far process has attached the area of the owner.
    fn far_vehva(&self) -> u64 {
        match self.attach_of(self.far, 10, BASE, M64, PCI.with(VEHVA)) {
            Ok(Body::Vehva { vehva, .. }) => vehva.raw(),
            other => panic!("not attached: {other:?}"),
        }
    }

    /// The near process has attached a segment.
    fn segment_vehva(&self) -> u64 {
        match self.segment(self.near, M2, true) {
            Ok(Body::Vehva { vehva, .. }) => vehva.raw(),
            other => panic!("not attached: {other:?}"),
        }
    }

    /// The owner has other pages where its area is.
    fn remapped(&self) -> &Self {
        let free = Request::Free {
            vemva: BASE,
            len: M64,
        };
        // The freed frame is taken by another page first, so that the new one is another.
        self.done(self.owner, free).expect("free");
        self.map(self.owner, at(32 * M64), 1, PageSize::M64);
        self.map(self.owner, BASE, 1, PageSize::M64);
        self
    }

    fn linked_small(&self, id: ProcessId) -> &Self {
        let page = PageSize::M2;
        self.done(id, Request::Linked { page }).expect("linked");
        self
    }

    /// An open of the owner is ECANCELED, while IVED does not answer.
    fn unreached(&self, vemva: Vemva, size: u64) {
        self.ived(Ived::Unreachable);
        assert_eq!(self.open(self.owner, vemva, size, PCI), ECANCELED);
        self.ived(Ived::Connected);
    }

    /// The owner has so many areas: runs of small pages, each with a key of its own.
    fn many_areas(&self, count: usize) {
        let (start, pages) = (at(128 * M64), 64);
        self.map(self.owner, start, pages, PageSize::M2);
        let runs = (0..pages).flat_map(|from| (1..=pages - from).map(move |len| (from, len)));
        // The first is there already.
        for (from, len) in runs.take(count - 1) {
            let from = start.checked_add(from * M2).expect("address");
            self.open(self.owner, from, len * M2, NONE).expect("room");
        }
    }

    /// All 32 ATB directories of the near process are in use.
    fn full_atb(&self) -> &Self {
        for n in 0..32 {
            let space = Vemva::new(n * PageSize::M2.partial_space() + M2);
            self.map(self.near, space, 1, PageSize::M2);
        }
        self
    }
}

fn area(vemva: Vemva, size: u64, syncnum: i32, mode: Mode) -> Area {
    Area {
        vemva,
        size,
        syncnum,
        mode,
    }
}

fn ticket(body: Result<Body, Errno>) -> Ticket {
    match body {
        Ok(Body::Frames { ticket, .. }) => ticket,
        other => panic!("not frames: {other:?}"),
    }
}

fn check(rows: &[Row]) {
    for errno in [ErrnoProfile::Implemented, ErrnoProfile::Documented] {
        for (name, act, implemented, documented) in rows {
            let expected = match errno {
                ErrnoProfile::Implemented => implemented,
                ErrnoProfile::Documented => documented,
            };
            let case = Case::new(Profile { errno, ..SMALL });
            assert_eq!(act(&case), *expected, "{name} ({errno:?})");
            for id in [case.owner, case.near, case.far, case.host] {
                case.node.service().leave(id);
            }
            case.node.service().leave(case.far_stranger);
            case.node.service().leave(case.near_stranger);
            case.node.service().set_ived(Ived::Connected);
            case.node.assert_empty();
        }
    }
}

#[test]
#[rustfmt::skip] // One row a line.
fn section_5_0_global_failures() {
    check(&[
        ("no IVED: open", |c| c.ived(Ived::Absent).open(c.owner, BASE, M64, PCI), ENOTSUP, ENOTSUP),
        ("no IVED: attach", |c| c.ived(Ived::Absent).attach(c.far, BASE, M64, PCI.with(VEHVA)), ENOTSUP, ENOTSUP),
        ("no IVED: detach", |c| c.ived(Ived::Absent).detach(c.far, u64::MAX, VEHVA), ENOTSUP, ENOTSUP),
        ("no IVED: close", |c| c.ived(Ived::Absent).close(c.owner, BASE, M64, PCI), ENOTSUP, ENOTSUP),
        ("linked with 2 MiB pages: open", |c| c.linked_small(c.owner).open(c.owner, Vemva::new(0), 0, PCI), ENOTSUP, ENOTSUP),
        ("linked with 2 MiB pages: attach", |c| c.linked_small(c.far).attach(c.far, BASE, M64, PCI.with(VEHVA)), ENOTSUP, ENOTSUP),
        ("linked with 2 MiB pages: own memory", |c| c.linked_small(c.owner).attach(c.owner, BASE, M64, LOCAL), ENOTSUP, ENOTSUP),
        ("linked with 2 MiB pages: detach", |c| c.linked_small(c.far).detach(c.far, u64::MAX, VEHVA), ENOTSUP, ENOTSUP),
        ("linked with 2 MiB pages: close", |c| c.linked_small(c.owner).close(c.owner, BASE, M64, PCI), ENOTSUP, ENOTSUP),
        ("linked with 2 MiB pages: get_pgmode", |c| c.linked_small(c.near).page(4, 10, 0), OK, OK),
        ("linked with 64 MiB pages", |c| { c.linked_small(c.owner).done(c.owner, Request::Linked { page: PageSize::M64 })?; c.open(c.owner, BASE, M64, PCI) }, OK, OK),
        ("linked with what cannot be", |c| c.done(c.owner, Request::Linked { page: PageSize::K4 }), EINVAL, EINVAL),
    ]);
}

#[test]
#[rustfmt::skip] // One row a line.
fn section_5_1_open() {
    check(&[
        ("1: system bits", |c| c.open(c.owner, BASE, M64, Mode::new(1 << 40 | 4)), EINVAL, EINVAL),
        ("1: unknown bit", |c| c.open(c.owner, BASE, M64, Mode::new(0xC)), EINVAL, EINVAL),
        ("1: neither PCI nor NONE", |c| c.open(c.owner, BASE, M64, RO), EINVAL, EINVAL),
        ("1: both", |c| c.open(c.owner, BASE, M64, PCI.with(NONE)), EINVAL, EINVAL),
        ("1: NONE with PCISYNC", |c| c.open(c.owner, BASE, M64, NONE.with(Mode::PCISYNC)), EINVAL, EINVAL),
        ("1: 256MB without PCI", |c| c.open(c.owner, BASE, M64, NONE.with(Mode::MAP_256MB)), EINVAL, EINVAL),
        ("1: 256MB not on VE3", |c| c.open(c.owner, BASE, M64, PCI.with(Mode::MAP_256MB)), EINVAL, EINVAL),
        ("1: SWAPPABLE without PCI", |c| c.open(c.owner, BASE, M64, NONE.with(Mode::SWAPPABLE)), EINVAL, EINVAL),
        ("2: pair 4", |c| c.done(c.owner, Request::Open(area(BASE, M64, 4, PCI.with(Mode::PCISYNC)))), EINVAL, EINVAL),
        ("2: pair -1", |c| c.done(c.owner, Request::Open(area(BASE, M64, -1, PCI.with(Mode::PCISYNC)))), EINVAL, EINVAL),
        ("2: without PCISYNC no pair is looked at", |c| c.done(c.owner, Request::Open(area(BASE, M64, 99, PCI))), OK, OK),
        ("3: null", |c| c.open(c.owner, Vemva::new(0), M64, PCI), EINVAL, EINVAL),
        ("3: size 0", |c| c.open(c.owner, BASE, 0, PCI), EINVAL, EINVAL),
        ("4: not mapped", |c| c.open(c.owner, at(5 * M64), M64, PCI), EINVAL, EINVAL),
        ("5: vemva misaligned", |c| c.open(c.owner, at(M2), M64, PCI), EINVAL, EINVAL),
        ("5: size misaligned", |c| c.open(c.owner, BASE, M64 + M2, PCI), EINVAL, EINVAL),
        ("5: NONE, by the page of the memory", |c| c.open(c.owner, at(M2), M64, NONE), EINVAL, EINVAL),
        ("6: 2 MiB pages in 64 MiB slots", |c| c.open(c.owner, at(8 * M64), M64, PCI), EINVAL, EINVAL),
        ("7: caller unknown", |c| c.open(c.host, BASE, M64, PCI), ECANCELED, ECANCELED),
        ("8: beyond the mapping", |c| c.open(c.owner, BASE, 5 * M64, PCI), ENOMEM, EINVAL),
        ("8: page sizes mixed", |c| { c.map(c.owner, at(4 * M64), 1, PageSize::M2); c.open(c.owner, BASE, 5 * M64, NONE) }, ENOMEM, EINVAL),
        ("8: negative", |c| c.open(c.owner, BASE, 1 << 63, PCI), ENOMEM, EINVAL),
        ("9: not writable", |c| c.open(c.owner, at(3 * M64), M64, PCI), EACCES, EACCES),
        ("9: read-only area of a page that is not writable", |c| c.open(c.owner, at(3 * M64), M64, PCI.with(RO)), EACCES, OK),
        ("10: more slots than there are", |c| { c.map(c.owner, at(64 * M64), 16, PageSize::M64); c.open(c.owner, at(64 * M64), 16 * M64, PCI) }, ENOMEM, ENOMEM),
        ("10: slots exhausted", |c| { c.map(c.owner, at(64 * M64), 15, PageSize::M64); c.open(c.owner, at(64 * M64), 15 * M64, PCI) }, ENOMEM, ENOMEM),
        ("10: all slots taken", |c| { c.map(c.owner, at(64 * M64), 14, PageSize::M64); c.open(c.owner, at(64 * M64), 14 * M64, PCI) }, OK, OK),
        ("10 before 12", |c| { c.map(c.owner, at(64 * M64), 15, PageSize::M64); c.ived(Ived::Unreachable).open(c.owner, at(64 * M64), 15 * M64, PCI) }, ENOMEM, ENOMEM),
        ("12: a new area, whose slots are given back", |c| { c.map(c.owner, at(64 * M64), 14, PageSize::M64); c.unreached(at(64 * M64), 14 * M64); c.open(c.owner, at(64 * M64), 14 * M64, PCI) }, OK, OK),
        ("10: other pages, and no slots for them: the old area stays", |c| { c.remapped().map(c.owner, at(64 * M64), 14, PageSize::M64); c.open(c.owner, at(64 * M64), 13 * M64, PCI)?; c.open(c.owner, at(77 * M64), M64, PCI)?; assert_eq!(c.open(c.owner, BASE, M64, PCI), ENOMEM); c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, OK, OK),
        ("12: other pages: the old area stays", |c| { c.remapped().unreached(BASE, M64); c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, OK, OK),
        ("11: counter overflow", |c| { c.node.service().damage(10, Damage::Counted)?; c.open(c.owner, BASE, M64, PCI)?; c.open(c.owner, BASE, M64, PCI) }, ENOMEM, ENOMEM),
        ("11: SWAPPABLE, the NONE half at its end: the PCI half is not counted", |c| { c.open(c.owner, BASE, M64, NONE)?; c.node.service().damage(10, Damage::Counted)?; c.open(c.owner, BASE, M64, NONE)?; assert_eq!(c.open(c.owner, BASE, M64, PCI.with(Mode::SWAPPABLE)), ENOMEM); c.open(c.owner, BASE, M64, PCI)?; c.open(c.owner, BASE, M64, PCI) }, ENOMEM, ENOMEM),
        ("11: SWAPPABLE, one record left: neither half is opened", |c| { c.many_areas(MAX_AREAS - 1); assert_eq!(c.open(c.owner, at(M64), M64, PCI.with(Mode::SWAPPABLE)), ENOMEM); assert_eq!(c.close(c.owner, at(M64), M64, PCI), EINVAL); c.open(c.owner, at(M64), M64, PCI) }, OK, OK),
        ("12: IVED unreachable", |c| c.ived(Ived::Unreachable).open(c.owner, BASE, M64, PCI), ECANCELED, ECANCELED),
        ("opened again: no new slots", |c| (0..100).try_for_each(|_| c.open(c.owner, BASE, M64, PCI)), OK, OK),
    ]);
}

#[test]
#[rustfmt::skip] // One row a line.
fn section_5_2_attach() {
    check(&[
        ("2: no such process", |c| c.attach_of(c.near, 99, BASE, M64, PCI.with(VEMVA)).map(drop), EINVAL, ESRCH),
        ("2: on another VE", |c| c.attach(c.far, BASE, M64, PCI.with(VEMVA)), EINVAL, EINVAL),
        ("2: no page there", |c| c.attach(c.near, at(5 * M64), M64, PCI.with(VEMVA)), EINVAL, ENOENT),
        ("3: vemva misaligned", |c| c.attach(c.near, at(M2), M64, PCI.with(VEMVA)), EINVAL, EINVAL),
        ("3: size misaligned", |c| c.attach(c.near, BASE, M2, PCI.with(VEMVA)), EINVAL, EINVAL),
        ("4: a directory with room", |c| { c.open(c.owner, at(8 * M64), 2 * M2, NONE)?; c.full_atb().attach(c.near, at(8 * M64), 2 * M2, NONE.with(VEMVA)) }, OK, OK),
        ("4: no ATB directory", |c| c.full_atb().attach(c.near, BASE, M64, PCI.with(VEMVA)), ENOMEM, ENOMEM),
        ("5: no space", |c| c.attach(c.far, BASE, M64, PCI), EINVAL, EINVAL),
        ("5: two spaces", |c| c.attach(c.far, BASE, M64, PCI.with(VEHVA).with(VEMVA)), EINVAL, EINVAL),
        ("5: neither PCI nor NONE", |c| c.attach(c.far, BASE, M64, VEHVA), EINVAL, EINVAL),
        ("5: both", |c| c.attach(c.far, BASE, M64, PCI.with(NONE).with(VEHVA)), EINVAL, EINVAL),
        ("5: system bits", |c| c.attach(c.far, BASE, M64, PCI.with(VEHVA).with(Mode::new(1 << 33))), EINVAL, EINVAL),
        ("5: MEM_LOCAL with NONE", |c| c.attach(c.owner, BASE, M64, LOCAL.with(NONE)), EINVAL, EINVAL),
        ("5: MEM_LOCAL with PCI", |c| c.attach(c.owner, BASE, M64, LOCAL.with(PCI)), EINVAL, EINVAL),
        ("5: MEM_LOCAL with PCISYNC", |c| c.attach(c.owner, BASE, M64, LOCAL.with(Mode::PCISYNC)), EINVAL, EINVAL),
        ("6: MEM_LOCAL of another process", |c| c.attach(c.near, BASE, M64, LOCAL), EINVAL, EINVAL),
        ("6: first page not mapped", |c| c.attach(c.owner, at(5 * M64), M64, LOCAL), EINVAL, EINVAL),
        ("6: misaligned", |c| c.attach(c.owner, at(M2), M64, LOCAL), EINVAL, EINVAL),
        ("7: own pid, V", |c| c.attach(c.owner, BASE, M64, PCI.with(VEMVA)), EINVAL, EINVAL),
        ("7: own pid, H", |c| c.attach(c.owner, BASE, M64, PCI.with(VEHVA)), EINVAL, EINVAL),
        ("8: NONE of another VE", |c| c.attach(c.far, BASE, M64, NONE.with(VEHVA)), EINVAL, EINVAL),
        ("10: H on the same VE", |c| c.attach(c.near, BASE, M64, PCI.with(VEHVA)), EINVAL, EINVAL),
        ("11: IVED unreachable, V", |c| c.ived(Ived::Unreachable).attach(c.near, BASE, M64, PCI.with(VEMVA)), ECANCELED, ECANCELED),
        ("11: IVED unreachable, H", |c| c.ived(Ived::Unreachable).attach(c.far, BASE, M64, PCI.with(VEHVA)), ECANCELED, ECANCELED),
        ("12: no such process, H", |c| c.attach_of(c.far, 99, BASE, M64, PCI.with(VEHVA)).map(drop), ESRCH, ESRCH),
        ("12: a VH process", |c| c.attach_of(c.far, 20, BASE, M64, PCI.with(VEHVA)).map(drop), ESRCH, ESRCH),
        ("12: the owner's VE stopped, and its processes with it", |c| { c.node.service().stop_ve(0); c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, ESRCH, ESRCH),
        ("13: the owner's VE stops, H", |c| { c.node.service().damage(10, Damage::Halted)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, EINVAL, EINVAL),
        ("13: the owner's VE stops, V", |c| { c.node.service().damage(10, Damage::Halted)?; c.attach(c.near, BASE, M64, PCI.with(VEMVA)) }, EINVAL, EINVAL),
        ("13: who is attached already", |c| { c.far_vehva(); c.node.service().damage(10, Damage::Halted)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, EINVAL, EINVAL),
        ("13: the VE of the caller alone stops", |c| { c.node.service().damage(12, Damage::Halted)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, OK, OK),
        ("13: it runs again", |c| { c.node.service().damage(10, Damage::Halted)?; c.node.service().damage(10, Damage::Running)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, OK, OK),
        ("12 before 13", |c| { c.node.service().damage(10, Damage::Halted)?; c.attach_of(c.far, 99, BASE, M64, PCI.with(VEHVA)).map(drop) }, ESRCH, ESRCH),
        ("13 before 14", |c| { c.node.service().damage(10, Damage::Halted)?; c.attach(c.far, at(M64), M64, PCI.with(VEHVA)) }, EINVAL, EINVAL),
        ("13 before 15", |c| { c.node.service().damage(10, Damage::Halted)?; c.attach(c.far_stranger, BASE, M64, PCI.with(VEHVA)) }, EINVAL, EINVAL),
        ("14: never opened, V", |c| c.attach(c.near, at(M64), M64, PCI.with(VEMVA)), EINVAL, ENOENT),
        ("14: never opened, H", |c| c.attach(c.far, at(M64), M64, PCI.with(VEHVA)), EINVAL, ENOENT),
        ("14: other size", |c| c.attach(c.far, BASE, 2 * M64, PCI.with(VEHVA)), EINVAL, ENOENT),
        ("14: other flags", |c| c.attach(c.far, BASE, M64, PCI.with(RO).with(VEHVA)), EINVAL, ENOENT),
        ("14: CLOSED", |c| { c.far_vehva(); c.close(c.owner, BASE, M64, PCI)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, EINVAL, ENOENT),
        ("15: another user, H", |c| c.attach(c.far_stranger, BASE, M64, PCI.with(VEHVA)), EACCES, EACCES),
        ("15: root, V", |c| c.attach(c.near_stranger, BASE, M64, PCI.with(VEMVA)), EACCES, EACCES),
        ("17: owner swapped out, V", |c| { c.node.service().damage(10, Damage::SwappedOut)?; c.attach(c.near, BASE, M64, PCI.with(VEMVA)) }, EAGAIN, EAGAIN),
        ("17: owner swapped out, H", |c| { c.node.service().damage(10, Damage::SwappedOut)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, OK, OK),
        ("17: swapped in again", |c| { c.node.service().damage(10, Damage::SwappedOut)?; c.node.service().damage(10, Damage::SwappedIn)?; c.attach(c.near, BASE, M64, PCI.with(VEMVA)) }, OK, OK),
        ("18: pages changed, V", |c| c.remapped().attach(c.near, BASE, M64, PCI.with(VEMVA)), ECANCELED, ECANCELED),
        ("18: pages changed, H", |c| c.remapped().attach(c.far, BASE, M64, PCI.with(VEHVA)), OK, OK),
        ("17 before 18", |c| { c.node.service().damage(10, Damage::SwappedOut)?; c.remapped().attach(c.near, BASE, M64, PCI.with(VEMVA)) }, EAGAIN, EAGAIN),
        ("15 before 17", |c| { c.node.service().damage(10, Damage::SwappedOut)?; c.attach(c.near_stranger, BASE, M64, PCI.with(VEMVA)) }, EACCES, EACCES),
        ("16: IVED's records contradict each other", |c| { c.far_vehva(); c.node.service().damage(10, Damage::Doubled)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, EINVAL, EINVAL),
        ("15 before 16", |c| { c.far_vehva(); c.node.service().damage(10, Damage::Doubled)?; c.attach(c.far_stranger, BASE, M64, PCI.with(VEHVA)) }, EACCES, EACCES),
        ("16 before 17", |c| { c.attach(c.near, BASE, M64, PCI.with(VEMVA))?; c.node.service().damage(10, Damage::SwappedOut)?; c.node.service().damage(10, Damage::Doubled)?; c.attach(c.near, BASE, M64, PCI.with(VEMVA)) }, EINVAL, EINVAL),
        ("16: of those who are attached only", |c| { c.far_vehva(); c.node.service().damage(10, Damage::Doubled)?; c.attach(c.near, BASE, M64, PCI.with(VEMVA)) }, OK, OK),
        ("19: not mapped further on", |c| c.attach(c.owner, at(3 * M64), 2 * M64, LOCAL), ENOMEM, ENOMEM),
        ("19: page sizes mixed", |c| { c.map(c.owner, at(4 * M64), 1, PageSize::M2); c.attach(c.owner, at(2 * M64), 3 * M64, LOCAL) }, ENOMEM, ENOMEM),
        ("20: not writable", |c| c.attach(c.owner, at(3 * M64), M64, LOCAL), EACCES, EACCES),
        ("20: not writable, RO", |c| c.attach(c.owner, at(3 * M64), M64, LOCAL.with(RO)), EACCES, EACCES),
        ("21: no DMAATB directory, H", |c| { c.segment(c.far, 56 * (512 << 20), true)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, ENOMEM, ENOMEM),
        ("21: no DMAATB directory, L", |c| { c.segment(c.near, 56 * (512 << 20), true)?; c.attach(c.owner, BASE, M64, LOCAL) }, ENOMEM, ENOMEM),
        ("21: the last that a C int counts", |c| { c.far_vehva(); c.node.service().damage(12, Damage::Counted)?; c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, OK, OK),
        ("21: counter overflow, H", |c| { c.far_vehva(); c.node.service().damage(12, Damage::Counted)?; c.far_vehva(); c.attach(c.far, BASE, M64, PCI.with(VEHVA)) }, ENOMEM, ENOMEM),
        ("21: counter overflow, L", |c| { c.attach(c.owner, BASE, M64, LOCAL)?; c.node.service().damage(10, Damage::Counted)?; c.attach(c.owner, BASE, M64, LOCAL)?; c.attach(c.owner, BASE, M64, LOCAL) }, ENOMEM, ENOMEM),
        ("21: size 0, L", |c| c.attach(c.owner, BASE, 0, LOCAL), ENOMEM, ENOMEM),
        ("a VH process", |c| c.attach(c.host, BASE, M64, PCI.with(VEHVA)), ECANCELED, ECANCELED),
    ]);
}

#[test]
fn section_5_2_row_9_small_slots() {
    for errno in [ErrnoProfile::Implemented, ErrnoProfile::Documented] {
        let case = Case::small_window(errno);
        case.open(case.owner, BASE, M64, PCI)
            .expect("32 slots of 2 MiB");
        let answer = case.attach(case.near, BASE, M64, PCI.with(VEMVA));
        assert_eq!(answer, EINVAL, "64 MiB memory behind 2 MiB slots");
        assert_eq!(case.attach(case.far, BASE, M64, PCI.with(VEHVA)), OK);
    }
}

/// Section 5.1, re-open and SWAPPABLE: two opens, both or neither. Here the second one is misaligned for the memory's pages, after the
/// first would have taken the place of the area whose pages have changed.
#[test]
fn section_5_1_half_of_a_swappable_open() {
    for errno in [ErrnoProfile::Implemented, ErrnoProfile::Documented] {
        let case = Case::small_window(errno);
        let (start, size) = (at(M2), 2 * M2);
        let attach = |id| case.attach_of(id, 10, start, size, PCI.with(VEHVA));
        case.open(case.owner, start, size, PCI).expect("open");
        let Ok(Body::Vehva { vehva: old, .. }) = attach(case.far) else {
            panic!("not attached");
        };
        case.remapped();
        let before = case.node.service().free_resources(0);
        let half = case.open(case.owner, start, size, PCI.with(Mode::SWAPPABLE));
        assert_eq!(half, EINVAL);
        assert_eq!(case.node.service().free_resources(0), before);
        let again = attach(case.far);
        assert!(
            matches!(again, Ok(Body::Vehva { vehva, .. }) if vehva == old),
            "the area is lost: {again:?}"
        );
        assert_eq!(case.close(case.owner, start, size, PCI), OK);
        assert_eq!(case.close(case.owner, start, size, PCI), EINVAL);
    }
}

#[test]
#[rustfmt::skip] // One row a line.
fn section_5_3_detach() {
    check(&[
        ("flags: none", |c| c.detach(c.far, 1, Mode::new(0)), EINVAL, EINVAL),
        ("flags: two spaces", |c| c.detach(c.far, 1, VEHVA.with(VEMVA)), EINVAL, EINVAL),
        ("flags: another bit", |c| c.detach(c.far, 1, VEHVA.with(PCI)), EINVAL, EINVAL),
        ("flags before all ones", |c| c.detach(c.far, u64::MAX, PCI), EINVAL, EINVAL),
        ("all ones", |c| c.detach(c.far, u64::MAX, VEHVA), OK, OK),
        ("no attachment", |c| c.detach(c.far, 0x0700_0000_0000, VEHVA), EINVAL, ECANCELED),
        ("inside an attachment", |c| { let at = c.far_vehva(); c.detach(c.far, at + M2, VEHVA) }, EINVAL, ECANCELED),
        ("the other space", |c| { let at = c.far_vehva(); c.detach(c.far, at, VEMVA) }, EINVAL, ECANCELED),
        ("caller unknown", |c| c.detach(c.host, 1, VEHVA), ECANCELED, ECANCELED),
        ("counter above 1", |c| { let at = c.far_vehva(); c.far_vehva(); c.detach(c.far, at, VEHVA)?; c.detach(c.far, at, VEHVA) }, OK, OK),
        ("once too often", |c| { let at = c.far_vehva(); c.detach(c.far, at, VEHVA)?; c.detach(c.far, at, VEHVA) }, EINVAL, ECANCELED),
        ("MEM_LOCAL finds a remote one", |c| { let at = c.far_vehva(); c.detach(c.far, at, LOCAL) }, OK, OK),
    ]);
}

#[test]
#[rustfmt::skip] // One row a line.
fn section_5_4_close() {
    check(&[
        ("system bits", |c| c.close(c.owner, BASE, M64, Mode::new(1 << 63 | 4)), EINVAL, EINVAL),
        ("unknown bit", |c| c.close(c.owner, BASE, M64, Mode::new(0xC)), EINVAL, EINVAL),
        ("SWAPPABLE without PCI", |c| c.close(c.owner, BASE, M64, NONE.with(Mode::SWAPPABLE)), EINVAL, EINVAL),
        ("256MB off VE3", |c| c.close(c.owner, BASE, M64, PCI.with(Mode::MAP_256MB)), EINVAL, EINVAL),
        ("null", |c| c.close(c.owner, Vemva::new(0), M64, PCI), EINVAL, EINVAL),
        ("never opened", |c| c.close(c.owner, at(M64), M64, PCI), EINVAL, EINVAL),
        ("wrong size", |c| c.close(c.owner, BASE, 2 * M64, PCI), EINVAL, EINVAL),
        ("wrong flags", |c| c.close(c.owner, BASE, M64, NONE), EINVAL, EINVAL),
        ("not the owner", |c| c.close(c.near, BASE, M64, PCI), EINVAL, EINVAL),
        ("SWAPPABLE, never opened so", |c| c.close(c.owner, BASE, M64, PCI.with(Mode::SWAPPABLE)), EINVAL, EINVAL),
        ("SWAPPABLE, the NONE half closed: nothing is done", |c| { let swap = PCI.with(Mode::SWAPPABLE); c.open(c.owner, BASE, M64, swap)?; c.close(c.owner, BASE, M64, NONE)?; assert_eq!(c.close(c.owner, BASE, M64, swap), EINVAL); c.open(c.owner, BASE, M64, NONE)?; c.close(c.owner, BASE, M64, swap) }, OK, OK),
        ("SWAPPABLE, the PCI half closed: nothing is done", |c| { let swap = PCI.with(Mode::SWAPPABLE); c.open(c.owner, BASE, M64, swap)?; c.close(c.owner, BASE, M64, PCI)?; c.close(c.owner, BASE, M64, PCI)?; assert_eq!(c.close(c.owner, BASE, M64, swap), EINVAL); c.close(c.owner, BASE, M64, NONE) }, OK, OK),
        ("closed already", |c| { c.close(c.owner, BASE, M64, PCI)?; c.close(c.owner, BASE, M64, PCI) }, EINVAL, EINVAL),
        ("closed already, still attached", |c| { c.far_vehva(); c.close(c.owner, BASE, M64, PCI)?; c.close(c.owner, BASE, M64, PCI) }, EINVAL, EINVAL),
        ("caller unknown", |c| { c.node.service().leave(c.owner); c.close(c.owner, BASE, M64, PCI) }, ECANCELED, ECANCELED),
        ("IVED unreachable", |c| c.ived(Ived::Unreachable).close(c.owner, BASE, M64, PCI), ECANCELED, ECANCELED),
        ("once for each open", |c| { c.open(c.owner, BASE, M64, PCI)?; c.close(c.owner, BASE, M64, PCI)?; c.close(c.owner, BASE, M64, PCI) }, OK, OK),
    ]);
}

#[test]
#[rustfmt::skip] // One row a line.
fn section_5_5_get_pgmode() {
    check(&[
        ("no flag", |c| c.page(0, 10, BASE.raw()), EINVAL, EINVAL),
        ("two flags", |c| c.page(5, 10, BASE.raw()), EINVAL, EINVAL),
        ("VEMVA: no such process", |c| c.page(1, 99, BASE.raw()), ESRCH, ESRCH),
        ("VEMVA: on another VE", |c| c.page(1, 12, BASE.raw()), ESRCH, ESRCH),
        ("VEHVA: on another VE", |c| c.page(2, 12, 0x1000), ESRCH, ESRCH),
        ("PCI: no such process", |c| c.page(4, 99, 0), ESRCH, ESRCH),
        ("PCI: a VH process", |c| c.page(4, 20, 0), ESRCH, ESRCH),
        ("PCI: its VE stops", |c| { c.node.service().damage(12, Damage::Halted)?; c.page(4, 12, 0) }, ESRCH, ESRCH),
        ("PCI: its VE stopped", |c| { c.node.service().stop_ve(1); c.page(4, 12, 0) }, ESRCH, ESRCH),
        ("PCI: on another VE", |c| c.page(4, 12, 0), OK, OK),
        ("VEMVA: not mapped", |c| c.page(1, 10, at(5 * M64).raw()), EINVAL, EFAULT),
        ("VEHVA: not mapped", |c| c.page(2, 10, 0x0700_0000_0000), EINVAL, EFAULT),
        ("VEHVA: table H, not mapped", |c| c.page(2, 11, 0x5000), EINVAL, EFAULT),
        ("VEHVA: table H, mapped", |c| { c.done(c.near, Request::Dmades { mapped: true })?; c.page(2, 11, 0x5FFF) }, OK, OK),
        ("no IVED", |c| c.ived(Ived::Absent).page(1, 10, BASE.raw()), ENOTSUP, ENOTSUP),
        ("IVED unreachable: PCI", |c| c.ived(Ived::Unreachable).page(4, 10, 0), ECANCELED, ECANCELED),
    ]);
}

#[test]
#[rustfmt::skip] // One row a line.
fn sections_7_2_and_7_3_segments() {
    check(&[
        ("no IVED before not huge", |c| c.ived(Ived::Absent).segment(c.near, M2, false).map(drop), ENOTSUP, ENOTSUP),
        ("not huge", |c| c.segment(c.near, M2, false).map(drop), EFAULT, EFAULT),
        ("no directory", |c| c.segment(c.near, 57 * (512 << 20), true).map(drop), ENOMEM, ENOMEM),
        ("a VH process", |c| c.segment(c.host, M2, true).map(drop), ECANCELED, ECANCELED),
        ("detach: VEOS does not know it", |c| c.done(c.near, Request::SegmentDetach { vehva: Vehva::new(0x0088_0000_0000) }), EINVAL, EINVAL),
        ("detach: VEOS has forgotten it", |c| { let at = c.segment_vehva(); c.node.service().damage(11, Damage::Forgotten)?; c.done(c.near, Request::SegmentDetach { vehva: Vehva::new(at) }) }, EINVAL, EINVAL),
        ("detach: no segment there", |c| { let at = c.far_vehva(); c.done(c.far, Request::SegmentDetach { vehva: Vehva::new(at) }) }, EINVAL, EINVAL),
    ]);
}

#[test]
#[rustfmt::skip] // One row a line.
fn dma_table_and_threads() {
    check(&[
        ("table H twice", |c| { c.done(c.near, Request::Dmades { mapped: true })?; c.done(c.near, Request::Dmades { mapped: true }) }, EBUSY, EBUSY),
        ("table H was not mapped", |c| c.done(c.near, Request::Dmades { mapped: false }), EINVAL, EINVAL),
        ("table H of a VH process", |c| c.done(c.host, Request::Dmades { mapped: true }), ECANCELED, ECANCELED),
        ("64 threads of a process", |c| (1..64).try_for_each(|_| c.done(c.near, Request::Thread { begins: true })), OK, OK),
        ("65 threads of a process", |c| (1..65).try_for_each(|_| c.done(c.near, Request::Thread { begins: true })), EAGAIN, EAGAIN),
        ("the first thread does not end", |c| c.done(c.near, Request::Thread { begins: false }), EINVAL, EINVAL),
        ("swapped: no such process", |c| c.node.service().damage(99, Damage::SwappedOut), ESRCH, ESRCH),
        ("swapped: a VH process", |c| c.node.service().damage(20, Damage::SwappedOut), ESRCH, ESRCH),
    ]);
}

/// Tells a child of this program which part is its.
const CHILD: &str = "WINDLASS_TEST_CHILD";
/// Runs a test once more in a child, where limits are its own; false there.
fn done_by_child(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    true
}

/// A key that no other program uses.
const KEY: i32 = 0x5749_4e45;

/// Section 7.1, and those rows of 7.2 and 7.3 that the kernel decides.
#[test]
fn sections_7_1_to_7_3_at_the_process() {
    let node = Node::new(SMALL);
    let process = node.process(10, 0);
    let get = |key, size, flags| errno(process.vh_shmget(key, size, flags));
    assert_eq!(get(0, 1, 0x800), Errno::Einval, "IPC_PRIVATE");
    assert_eq!(get(KEY, 1, 0), Errno::Einval, "SHM_HUGETLB missing");
    for flag in [0x1000, 0x400, 0x200] {
        assert_eq!(get(KEY, 1, 0x800 | flag), Errno::Einval, "{flag:#x}");
    }
    assert_eq!(get(KEY, 1, 0x800), Errno::Enoent);
    if let Ok(shmid) = std::env::var(CHILD) {
        return another_user(&process, shmid.parse().expect("an id"));
    }
    let shmid = windlass_mem::sysv::find(KEY + 1, 8192, 0x200 | 0x400 | 0o600);
    let shmid = shmid.expect("no segment of this key is left by others");
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_eq!(
            get(KEY + 1, 8193, 0x800),
            Errno::Einval,
            "larger than it is"
        );
        let found = process
            .vh_shmget(KEY + 1, 1, 0x800)
            .expect("not huge, and smaller");
        assert_eq!(found, shmid);
        assert_eq!(errno(process.vh_shmat(shmid, 0)), Errno::Efault, "not huge");
        for flag in [0x2000, 0x4000, 0x8000] {
            assert_eq!(
                errno(process.vh_shmat(shmid, flag)),
                Errno::Einval,
                "{flag:#x}"
            );
        }
        assert_eq!(
            errno(process.vh_shmat(i32::MAX, 0)),
            Errno::Einval,
            "no such id"
        );
        assert_eq!(errno(process.vh_shmdt(0)), Errno::Einval, "null");
        assert_eq!(errno(process.vh_shmdt(4096)), Errno::Einval, "not attached");
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: the rows of another user (EACCES) are left out");
            return;
        }
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "sections_7_1_to_7_3_at_the_process",
                "--nocapture",
            ])
            .env(CHILD, shmid.to_string())
            .uid(65_534)
            .gid(65_534)
            .status();
        assert!(status.expect("a child").success());
    }));
    windlass_mem::sysv::remove(shmid).expect("removed");
    assert_eq!(get(KEY + 1, 1, 0x800), Errno::Enoent, "removed");
    checked.expect("rows");
}

/// The rows of permission, as a user who has none.
fn another_user(process: &windlass_ve::Process, shmid: i32) {
    let get = process.vh_shmget(KEY + 1, 1, 0x800 | 0o600);
    assert_eq!(
        errno(get),
        Errno::Eacces,
        "permission bits that are not granted"
    );
    let found = process
        .vh_shmget(KEY + 1, 1, 0x800)
        .expect("no bits, no check");
    assert_eq!(found, shmid);
    assert_eq!(errno(process.vh_shmat(shmid, 0)), Errno::Eacces);
    assert_eq!(
        errno(process.vh_shmat(shmid, 0x1000)),
        Errno::Eacces,
        "read-only"
    );
}

/// Section 5.2 rows 4 and 21, section 7.2: no address space left. In a child, whose limit is its own.
#[test]
fn address_space_limits_are_enomem() {
    if done_by_child("address_space_limits_are_enomem") {
        return;
    }
    let node = Node::new(SMALL);
    let [owner, near, far] = node.three();
    let area = memory(&owner, 2);
    owner.veshm_open(area.vemva, 2 * M64, 0, PCI).expect("open");
    let before = [0, 1].map(|ve| node.service().free_resources(ve));
    let limit = getrlimit(Resource::As);
    let tight = Rlimit {
        current: Some(64 << 20),
        ..limit
    };
    setrlimit(Resource::As, tight).expect("limit");
    let refused = [
        errno(near.attach_vemva(10, area.vemva, 2 * M64, PCI)),
        errno(far.attach_vehva(10, area.vemva, 2 * M64, PCI)),
        errno(far.alloc(2 * M64 as usize, PageSize::M64)),
    ];
    setrlimit(Resource::As, limit).expect("limit");
    assert_eq!(refused, [Errno::Enomem; 3]);
    let after = [0, 1].map(|ve| node.service().free_resources(ve));
    assert_eq!(before, after, "nothing is left of the attempts");
    near.attach_vemva(10, area.vemva, 2 * M64, PCI)
        .expect("room again");
    far.attach_vehva(10, area.vemva, 2 * M64, PCI)
        .expect("room again");
}

/// Section 7.2: what cannot be found out about a segment once it is attached is ECANCELED. In a child, whose limit is its own.
#[test]
fn a_segment_that_cannot_be_looked_at_is_canceled() {
    if done_by_child("a_segment_that_cannot_be_looked_at_is_canceled") {
        return;
    }
    let node = Node::new(SMALL);
    let process = node.process(10, 0);
    let (shmid, bytes) = windlass_mem::sysv::create(4096, false).expect("a segment");
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..limit
    };
    setrlimit(Resource::Nofile, none).expect("limit");
    let answers = [process.vh_shmat(shmid, 0), process.vh_shmat(-5, 0)].map(errno);
    setrlimit(Resource::Nofile, limit).expect("limit");
    assert_eq!(answers, [Errno::Ecanceled, Errno::Einval]);
    assert_eq!(errno(process.vh_shmat(shmid, 0)), Errno::Efault, "not huge");
    let attached = windlass_mem::sysv::stat(shmid).expect("it is there").nattch;
    assert_eq!(attached, 1, "nothing is left of the attempts");
    drop(bytes);
}
