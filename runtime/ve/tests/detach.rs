//! The end of a mapping while other threads use it: VEOS may give the frames to another process before it answers, so nothing goes
//! through the entries from the last detach on (ve-memory.md sections 2.6, 5.3 and 6).
#![cfg(not(miri))]

mod support;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use support::{M64, Node, SMALL, errno, memory, open_area, read};
use windlass_ve::{
    CallError, Control, Direct, Errno, Ived, Mode, Modes, Process, Reorder, Reply, Request,
    VeMemory, Vehva,
};

type Look = Arc<Mutex<Option<Box<dyn Fn() + Send>>>>;

/// A way to the service on which somebody looks while a detach is under way.
struct Watched {
    direct: Direct,
    look: Look,
}

impl Control for Watched {
    fn call(&self, request: Request) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let detach = matches!(request, Request::Detach { .. });
        if let Some(look) = &*self.look.lock().expect("look")
            && detach
        {
            look();
        }
        self.direct.call(request)
    }
}

/// A process on VE 1 with an area of VE 0, attached once.
struct Case {
    process: Arc<Process>,
    owner: Process,
    area: VeMemory,
    remote: Vehva,
    look: Look,
    node: Node,
}

impl Case {
    fn new(reorder: Option<Reorder>) -> Self {
        let node = Node::new(SMALL);
        let owner = node.process(10, 0);
        let area = open_area(&owner, 1);
        let look = Look::default();
        let control = Watched {
            direct: node.direct(11, 1),
            look: Arc::clone(&look),
        };
        let modes = Modes {
            check: None,
            reorder,
        };
        let process = Process::join_with(Arc::new(control), modes).expect("process");
        let remote = process.attach_vehva(10, area.vemva, M64, Mode::PCI);
        Self {
            process: Arc::new(process),
            owner,
            area,
            remote: remote.expect("attach"),
            look,
            node,
        }
    }

    /// Runs `detach`; what a look finds while it is under way: the first byte of the area, and the result of a transfer within `at`.
    fn seen_at(&self, at: Vehva, detach: impl FnOnce()) -> Vec<u16> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (user, bytes, seen) = (
            Arc::downgrade(&self.process),
            self.area.bytes.clone(),
            Arc::clone(&log),
        );
        let look = move || {
            let user = user.upgrade().expect("it is in a call");
            let there = at.checked_add(4096).expect("address");
            let first = u16::from(read::<1>(&bytes, 0)[0]);
            let result = user.dma().post_wait(there, at, 8).bits();
            seen.lock().expect("log").extend([first, result]);
        };
        *self.look.lock().expect("look") = Some(Box::new(look));
        detach();
        *self.look.lock().expect("look") = None;
        std::mem::take(&mut *log.lock().expect("log"))
    }

    fn end(self) {
        drop((self.process, self.owner, self.area));
        self.node.assert_empty();
    }
}

#[test]
fn nothing_goes_through_entries_that_veos_gives_up() {
    let case = Case::new(None);
    let (process, remote) = (&case.process, case.remote);
    let seen = case.seen_at(remote, || process.detach_vehva(remote).expect("detach"));
    assert_eq!(seen, [0, 0x2000], "an area of another process");
    let own = memory(process, 1);
    let local = process.register(own.vemva, M64).expect("register");
    let seen = case.seen_at(local, || process.unregister(local).expect("unregister"));
    assert_eq!(seen, [0, 0x2000], "own memory");
    drop(own);
    case.end();
}

#[test]
fn entries_that_stay_are_used_meanwhile() {
    let case = Case::new(None);
    let (process, remote) = (&case.process, case.remote);
    let again = process.attach_vehva(10, case.area.vemva, M64, Mode::PCI);
    assert_eq!(again.expect("attach"), remote);
    let seen = case.seen_at(remote, || process.detach_vehva(remote).expect("detach"));
    assert_eq!(seen, [0, 0], "attached once more");
    case.node.service().set_ived(Ived::Absent);
    case.seen_at(remote, || {
        assert_eq!(errno(process.detach_vehva(remote)), Errno::Enotsup);
    });
    case.node.service().set_ived(Ived::Connected);
    let refused = "refused: the entries are back";
    process.shm(remote, &[7; 8]).expect(refused);
    assert_eq!(read::<8>(&case.area.bytes, 0), [7; 8]);
    let seen = case.seen_at(remote, || process.detach_vehva(remote).expect("detach"));
    assert_eq!(seen, [7, 0x2000]);
    case.end();
}

#[test]
fn what_is_pending_arrives_before_veos_is_asked() {
    for seed in 0..100 {
        let case = Case::new(Some(Reorder {
            seed,
            by_hand: true,
        }));
        let (process, remote) = (&case.process, case.remote);
        process.shm(remote, &[5; 8]).expect("store");
        let seen = case.seen_at(remote, || process.detach_vehva(remote).expect("detach"));
        assert_eq!(seen, [5, 0x2000], "seed {seed}");
        case.end();
    }
}
