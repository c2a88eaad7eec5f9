//! Every table of ve-memory.md (sections 1 and 2) filled to its documented capacity: the next request is refused with the documented errno
//! and changes nothing, the earlier ones are whole, and all capacity is back after their release. The same for the last entry when several
//! processes want it at once.
#![cfg(not(miri))]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use support::{M2, M64, Node, SMALL, UID};
use windlass_ve::{
    Area, Body, Config, Control, Direct, Errno, Mode, PageSize, ProcessId, Profile, Request,
    SMALL_BAR0_BYTES, Service, Ticket, Vehva, Vemva,
};

const BASE: u64 = 0x6000_0000_0000;
/// Pages of 64 MiB that the process has mapped from BASE on: two directories of its ATB.
const PAGES: u64 = 512;

/// A node with one process on VE 0.
struct Desk {
    node: Node,
    id: ProcessId,
}

#[derive(Clone, Copy)]
enum Taken {
    Frames(Ticket),
    Memory(Vemva),
    Entries(Vehva),
    Open(Area),
    Process(ProcessId),
    Thread,
}

impl Desk {
    fn new(profile: Profile) -> Self {
        let node = Node::new(profile);
        let id = node.service().join(10, 1, UID, Some(0)).expect("join");
        Self { node, id }
    }

    fn ask(&self, request: Request) -> Result<Body, Errno> {
        let reply = self.node.service().handle(self.id, request);
        reply.map(|reply| reply.body)
    }

    fn frames(&self, len: u64, page: PageSize) -> Result<Ticket, Errno> {
        match self.ask(Request::Allocate { len, page })? {
            Body::Frames { ticket, .. } => Ok(ticket),
            other => panic!("not frames: {other:?}"),
        }
    }

    fn map(&self, vemva: Vemva, len: u64, page: PageSize) -> Result<Taken, Errno> {
        let ticket = self.frames(len, page)?;
        self.ask(Request::Bind { ticket, vemva })?;
        Ok(Taken::Memory(vemva))
    }

    fn segment(&self, len: u64) -> Result<Taken, Errno> {
        let request = Request::SegmentAttach {
            shmid: 1,
            len,
            writable: true,
            huge: true,
        };
        match self.ask(request)? {
            Body::Vehva { vehva, .. } => Ok(Taken::Entries(vehva)),
            other => panic!("not entries: {other:?}"),
        }
    }

    /// The n-th of many areas over the mapped pages, each of `pages` pages.
    fn open(&self, n: u64, pages: u64, mode: Mode) -> Result<Taken, Errno> {
        let places = PAGES / pages;
        let variants = [
            Mode::new(0),
            Mode::READ_ONLY,
            Mode::PCISYNC,
            Mode::PCISYNC.with(Mode::READ_ONLY),
        ];
        let variant = usize::try_from(n / places).unwrap_or(usize::MAX);
        let area = Area {
            vemva: Vemva::new(BASE + n % places * pages * M64),
            size: pages * M64,
            syncnum: i32::try_from(variant / variants.len()).unwrap_or(9),
            mode: mode.with(variants[variant % variants.len()]),
        };
        self.ask(Request::Open(area)).map(|_| Taken::Open(area))
    }

    fn give(&self, taken: Taken) -> Result<(), Errno> {
        let request = match taken {
            Taken::Frames(ticket) => Request::Release { ticket },
            Taken::Memory(vemva) => Request::Free { vemva, len: M2 },
            Taken::Entries(vehva) => Request::SegmentDetach { vehva },
            Taken::Open(area) => Request::Close(area),
            Taken::Thread => Request::Thread { begins: false },
            Taken::Process(id) => {
                self.node.service().leave(id);
                return Ok(());
            }
        };
        self.ask(request).map(drop)
    }
}

type Take = fn(&Desk, u64) -> Result<Taken, Errno>;

/// What is filled, in which profile, how often it can be had, and the answer to the next request.
type Table = (&'static str, Profile, u64, Errno, Take);

const SMALL_WINDOW: Profile = Profile {
    bar0_bytes: SMALL_BAR0_BYTES,
    ..Profile::VE1
};
const TEN_CORES: Profile = match Profile::VE1.with_cores(10) {
    Some(profile) => profile,
    None => Profile::VE1,
};

#[rustfmt::skip] // One table a line.
const TABLES: [Table; 16] = [
    ("frames of 64 MiB, VE1", Profile::VE1, 768 - PAGES, Errno::Enomem, |d, _| d.frames(M64, PageSize::M64).map(Taken::Frames)),
    ("frames of 64 MiB, VE3", Profile::VE3, 1536 - PAGES, Errno::Enomem, |d, _| d.frames(M64, PageSize::M64).map(Taken::Frames)),
    ("frames of 2 MiB", SMALL, 64, Errno::Enomem, |d, _| d.frames(M64, PageSize::M2).map(Taken::Frames)),
    ("ATB directories", SMALL, 32, Errno::Enomem, |d, n| d.map(Vemva::new(n * PageSize::M2.partial_space() + M2), M2, PageSize::M2)),
    ("DMAATB directories, 8 cores", Profile::VE1, 56, Errno::Enomem, |d, _| d.segment(512 << 20)),
    ("DMAATB directories, 10 cores", TEN_CORES, 54, Errno::Enomem, |d, _| d.segment(512 << 20)),
    ("DMAATB directories, VE3", Profile::VE3, 240, Errno::Enomem, |d, _| d.segment(512 << 20)),
    ("DMAATB directories, runs of 257 pages", Profile::VE1, 55, Errno::Enomem, |d, _| d.segment((512 << 20) + M2)),
    ("PCIATB slots, VE1", Profile::VE1, 1023, Errno::Enomem, |d, n| d.open(n, 1, Mode::PCI)),
    ("PCIATB slots, VE3", Profile::VE3, 2047, Errno::Enomem, |d, n| d.open(n, 1, Mode::PCI)),
    ("PCIATB slots, small window", SMALL_WINDOW, 1, Errno::Enomem, |d, n| d.open(n, 1, Mode::PCI)),
    ("PCIATB groups of four", Profile::VE3, 511, Errno::Enomem, |d, n| d.open(n, 4, Mode::PCI.with(Mode::MAP_256MB))),
    ("processes of a VE", Profile::VE1, 255, Errno::Enomem, |d, n| d.node.service().join(1000 + n as i32, 1, UID, Some(0)).map(Taken::Process)),
    ("threads of a process", Profile::VE1, 63, Errno::Eagain, |d, _| d.ask(Request::Thread { begins: true }).map(|_| Taken::Thread)),
    ("tickets of a process", Profile::VE1, windlass_ve::MAX_TICKETS as u64, Errno::Enomem, |d, _| d.frames(M2, PageSize::M2).map(Taken::Frames)),
    ("areas of a process", Profile::VE3, windlass_ve::MAX_AREAS as u64, Errno::Enomem, |d, n| match n { 0..1024 => d.open(n, 1, Mode::PCI), 1024..2048 => d.open(n - 1024, 1, Mode::NONE), _ => d.open(1024, 1, Mode::PCI) }),
];

#[test]
fn every_table_is_as_large_as_documented() {
    for (name, profile, capacity, errno, take) in TABLES {
        let desk = Desk::new(profile);
        // Whatever needs memory has it; what counts frames counts the rest.
        if profile.memory_bytes >= PAGES * M64 {
            desk.map(Vemva::new(BASE), PAGES * M64, PageSize::M64)
                .expect("memory");
        }
        let before = desk.node.service().free_resources(0);
        for round in 0..2 {
            let mut taken = Vec::new();
            let refused = loop {
                match take(&desk, taken.len() as u64) {
                    Ok(one) => taken.push(one),
                    Err(errno) => break errno,
                }
            };
            let full = desk.node.service().free_resources(0);
            assert_eq!(
                (taken.len() as u64, refused),
                (capacity, errno),
                "{name}, round {round}"
            );
            let again = take(&desk, capacity);
            assert_eq!(again.err(), Some(errno), "{name}: again");
            let still = desk.node.service().free_resources(0);
            assert_eq!(full, still, "{name}: a refusal changes nothing");
            // The last one goes and comes.
            desk.give(taken.pop().expect("one")).expect(name);
            taken.push(take(&desk, capacity - 1).expect(name));
            for one in taken {
                desk.give(one).expect(name);
            }
            let after = desk.node.service().free_resources(0);
            assert_eq!(before, after, "{name}, round {round}");
        }
        desk.node.service().leave(desk.id);
        let free = desk.node.service().free_resources(0).expect("VE 0");
        let slots = profile.pciatb_slots() as usize - 1;
        let directories = profile.shared_directories() as usize;
        assert_eq!(free, (profile.memory_bytes, slots, directories), "{name}");
    }
}

#[test]
fn a_ve_takes_1024_threads() {
    let node = Node::new(SMALL);
    let ids: Vec<ProcessId> = (0..17)
        .map(|n| node.service().join(100 + n, 1, UID, Some(0)).expect("join"))
        .collect();
    let begin = |id| {
        let thread = node.service().handle(id, Request::Thread { begins: true });
        thread.map(drop)
    };
    // 17 first threads, and 63 more of each of the first 15 processes.
    for id in &ids[..15] {
        (0..63).try_for_each(|_| begin(*id)).expect("threads");
    }
    let more = 1024 - 17 - 15 * 63;
    (0..more).try_for_each(|_| begin(ids[15])).expect("threads");
    assert_eq!(begin(ids[16]), Err(Errno::Eagain));
    assert_eq!(node.service().join(99, 1, UID, Some(0)), Err(Errno::Enomem));
    node.service()
        .join(99, 1, UID, Some(1))
        .expect("another VE");
    node.service().leave(ids[0]);
    begin(ids[16]).expect("room");
}

#[test]
fn a_thread_ends_with_its_guard() {
    let node = Node::new(SMALL);
    let process = node.process(10, 0);
    for _ in 0..3 {
        let threads: Vec<_> = (0..63)
            .map(|_| process.begin_thread().expect("thread"))
            .collect();
        let refused = process.begin_thread().expect_err("the 65th");
        assert_eq!(refused.errno(), Errno::Eagain);
        drop(threads);
    }
}

const RACERS: usize = 4;
const ROUNDS: usize = 1000;

/// What a racer asks for, and how it gives it back.
type Race = fn(&Direct, usize) -> Result<Request, Errno>;

fn call(direct: &Direct, request: Request) -> Result<Body, Errno> {
    match direct.call(request) {
        Ok((reply, _)) => Ok(reply.body),
        Err(windlass_ve::CallError::Errno(errno)) => Err(errno),
        Err(windlass_ve::CallError::Gone) => panic!("the service is in this process"),
    }
}

fn race_frames(direct: &Direct, _: usize) -> Result<Request, Errno> {
    let (len, page) = (M64, PageSize::M64);
    match call(direct, Request::Allocate { len, page })? {
        Body::Frames { ticket, .. } => Ok(Request::Release { ticket }),
        other => panic!("{other:?}"),
    }
}

fn race_directory(direct: &Direct, _: usize) -> Result<Request, Errno> {
    let request = Request::SegmentAttach {
        shmid: 1,
        len: 512 << 20,
        writable: true,
        huge: true,
    };
    match call(direct, request)? {
        Body::Vehva { vehva, .. } => Ok(Request::SegmentDetach { vehva }),
        other => panic!("{other:?}"),
    }
}

fn race_slot(direct: &Direct, _: usize) -> Result<Request, Errno> {
    let area = Area {
        vemva: Vemva::new(BASE),
        size: M64,
        syncnum: 0,
        mode: Mode::PCI,
    };
    call(direct, Request::Open(area)).map(|_| Request::Close(area))
}

#[test]
fn the_last_entry_has_one_winner() {
    // One page of memory each, and after that one frame, one slot, one directory.
    let profile = Profile {
        memory_bytes: (RACERS as u64 + 1) * M64,
        bar0_bytes: 2 * M64,
        dmaatb_directories: 9,
        ..Profile::VE1
    };
    let races: [(&str, Race); 3] = [
        ("frame", race_frames),
        ("directory", race_directory),
        ("slot", race_slot),
    ];
    for (name, race) in races {
        let service = Service::new(Config { ves: 1, profile }).expect("memory files");
        let service = Arc::new(Mutex::new(service));
        let free = || service.lock().expect("service").free_resources(0);
        let racers: Vec<Direct> = (0..RACERS as i32)
            .map(|n| Direct::join(Arc::clone(&service), 10 + n, 1, UID, Some(0)).expect("join"))
            .collect();
        for racer in &racers {
            let request = Request::Allocate {
                len: M64,
                page: PageSize::M64,
            };
            let Ok(Body::Frames { ticket, .. }) = call(racer, request) else {
                panic!("no frames")
            };
            let vemva = Vemva::new(BASE);
            call(racer, Request::Bind { ticket, vemva }).expect("bind");
        }
        let before = free();
        let (start, end) = (Barrier::new(RACERS), Barrier::new(RACERS));
        let winners = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for (n, racer) in racers.iter().enumerate() {
                let (start, end, winners) = (&start, &end, &winners);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        start.wait();
                        let won = race(racer, n);
                        match &won {
                            Ok(_) => drop(winners.fetch_add(1, Ordering::Relaxed)),
                            Err(errno) => assert_eq!(*errno, Errno::Enomem, "{name}"),
                        }
                        end.wait();
                        let so_far = winners.load(Ordering::Relaxed);
                        assert_eq!(so_far, round + 1, "{name}: one winner a round");
                        if let Ok(back) = won {
                            call(racer, back).expect("given back");
                        }
                    }
                });
            }
        });
        assert_eq!(before, free(), "{name}");
        drop(racers);
        let slots = profile.pciatb_slots() as usize - 1;
        assert_eq!(free(), Some((profile.memory_bytes, slots, 1)), "{name}");
    }
}
