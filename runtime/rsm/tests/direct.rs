//! Bytes of other nodes' segments go from process to process (architecture 8): without a word to a service, within the rights that
//! one of them gave, and into memory that is published still.

mod support;

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use support::{Person, SECRET, Two, every, memory, page, text};
use windlass_dat::{
    Config, ConnectionKind, DtoStatus, Ep, EpAttr, Evd, EvdFlags, Event, Flags, Ia, Lmr,
    LocalSegment, Privileges, Pz, Region, RemoteSegment, Secret, VaType,
};
use windlass_mem::MemFile;
use windlass_rsm::{
    BARRIER_NODE, Barrier, Body, Code, Control, Controller, Export, Gone, Import, PERM_RDWR,
    PERM_READ, PERM_WRITE, Pass, Reply, Request, Scope,
};

/// No wait of a test is longer; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

impl Two {
    fn import(&self, rights: u32) -> (Arc<Import>, Barrier) {
        let import = Import::connect(&self.importer.1, 1, self.id, rights).unwrap();
        let barrier = Barrier::init(&import, BARRIER_NODE).unwrap();
        (import, barrier)
    }
}

/// Those of this process, other tests' among them.
fn descriptors() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries.count()
}

#[test]
fn transfers_ask_no_service() {
    let two = Two::new(64);
    let (import, _barrier) = two.import(PERM_RDWR);
    let mut got = vec![0; 64 * page()];
    // The first asks by which network.
    import.get(0, &mut got, 1).unwrap();
    let calls = || (two.importer.0.calls(), two.exporter.0.calls());
    let before = calls();
    for byte in 1..100u8 {
        got.fill(byte);
        import.put(0, &got, 1).unwrap();
        assert_eq!(text(&two.bytes, 0, 8), [byte; 8]);
        import.put(8, &[byte + 1; 8], 8).unwrap();
        import.get(0, &mut got, 1).unwrap();
        assert_eq!(got[..16], [[byte; 8], [byte + 1; 8]].concat());
    }
    assert_eq!(calls(), before);
    for service in two.cluster.0.iter() {
        assert_eq!(service.lock().take_messages(), []);
    }
}

/// A process that keeps what its service gives it.
struct Spy {
    person: Arc<Person>,
    pass: Mutex<Option<Pass>>,
}

impl Control for Spy {
    fn call(
        &self,
        request: Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Gone> {
        let answer = self.person.call(request, files)?;
        if let Ok(Body::Connected { pass, .. }) = &answer.0 {
            *self.pass.lock() = *pass;
        }
        Ok(answer)
    }
}

/// A member of the job that follows no rule.
struct Hostile {
    evd: Evd,
    pz: Pz,
    lmr: Lmr,
}

impl Hostile {
    fn new(secret: [u8; 32]) -> Self {
        let ia = Ia::open(Config {
            secret: Secret::from_bytes(secret),
            bind: ([127, 0, 0, 1], 0).into(),
        });
        let ia = ia.unwrap();
        let evd = Evd::create(&ia, 64, EvdFlags::DTO | EvdFlags::CONNECTION).unwrap();
        let pz = Pz::create(&ia);
        let region = Region::Virtual(memory(1).0);
        let lmr = Lmr::create(region, &pz, Privileges::ALL, VaType::ZeroBased).unwrap();
        Self { evd, pz, lmr }
    }

    /// A connection with this key, and what the exporter says, or how it was refused.
    fn come(&self, at: SocketAddr, key: &[u8]) -> Result<(Ep, u32), ConnectionKind> {
        let attr = EpAttr {
            max_recv_dtos: 0,
            ..EpAttr::default()
        };
        let ep = Ep::create(&self.pz, None, Some(&self.evd), Some(&self.evd), attr).unwrap();
        ep.connect(at, 1, None, key).unwrap();
        loop {
            match self.evd.wait(Some(PATIENCE), 1).unwrap().0 {
                Event::Connection {
                    kind: ConnectionKind::Established,
                    private_data,
                    ..
                } => return Ok((ep, u32::from_le_bytes(*private_data.first_chunk().unwrap()))),
                Event::Connection { kind, ep: of, .. } if of == ep.id() => return Err(kind),
                _ => {}
            }
        }
    }

    fn transfer(&self, ep: &Ep, put: bool, remote: RemoteSegment) -> DtoStatus {
        let local = [LocalSegment {
            context: self.lmr.context(),
            address: 0,
            len: remote.len,
        }];
        let posted = match put {
            true => ep.post_rdma_write(&local, 0, remote, Flags::DEFAULT),
            false => ep.post_rdma_read(&local, 0, remote, Flags::DEFAULT),
        };
        posted.unwrap();
        loop {
            if let Event::Dto(done) = self.evd.wait(Some(PATIENCE), 1).unwrap().0
                && done.ep == ep.id()
            {
                return done.status;
            }
        }
    }
}

/// A process of node 0 that has these rights, and its pass.
fn pass(two: &Two, rights: u32) -> (Arc<Import>, Pass) {
    let (person, _) = two.cluster.person(0, Scope::Cluster);
    let pass = Mutex::default();
    let spy = Arc::new(Spy { person, pass });
    let controller = Controller::open(Arc::clone(&spy) as _, Scope::Cluster).unwrap();
    let import = Import::connect(&controller, 1, two.id, rights).unwrap();
    let pass = spy.pass.lock().unwrap();
    (import, pass)
}

fn key(pass: &Pass) -> Vec<u8> {
    // As it travels.
    postcard::to_allocvec(&pass.key).unwrap()
}

/// Who may read writes nothing, whatever context it names; who may write reads nothing; another segment's is as far away.
#[test]
fn a_right_reaches_no_further_than_it_says() {
    let two = Two::new(2);
    let other = {
        let (bytes, memory) = memory(1);
        let export = Export::create(&two.exporter.1, memory, 0).unwrap();
        export.publish(0, Some(&every(0o600))).unwrap();
        (bytes, export)
    };
    two.bytes.write(0, b"the exporter's").unwrap();
    let hostile = Hostile::new(SECRET);
    for (rights, may_put, may_get) in [
        (PERM_READ, false, true),
        (PERM_WRITE, true, false),
        (PERM_RDWR, true, true),
    ] {
        let (_import, pass) = pass(&two, rights);
        let (_, own) = hostile.come(pass.at, &key(&pass)).unwrap();
        // All contexts that the exporter has, and some that it has not; those of a right are of one segment alone.
        for index in 0..16 {
            for put in [true, false] {
                let context = index << 8 | own & 0xFF;
                let remote = RemoteSegment {
                    context,
                    address: page() as u64,
                    len: 64,
                };
                let (ep, _) = hostile.come(pass.at, &key(&pass)).unwrap();
                let right = if put { may_put } else { may_get };
                let expected = match right && context == own {
                    true => DtoStatus::Success,
                    false => DtoStatus::RemoteAccess,
                };
                let status = hostile.transfer(&ep, put, remote);
                assert_eq!(status, expected, "{rights:o} {context:x} {put}");
            }
        }
        // Nor past the end.
        for (address, len) in [(2 * page() as u64 - 63, 64), (u64::MAX - 8, 64)] {
            let (ep, context) = hostile.come(pass.at, &key(&pass)).unwrap();
            let remote = RemoteSegment {
                context,
                address,
                len,
            };
            assert_eq!(
                hostile.transfer(&ep, may_put, remote),
                DtoStatus::RemoteAccess
            );
        }
    }
    assert_eq!(text(&two.bytes, 0, 14), b"the exporter's");
    assert_eq!(text(&other.0, 0, 64), [0; 64]);
}

/// Without the job's secret nobody is heard, and without a key nobody is let in; a connection to nobody's rights has none.
#[test]
fn nobody_comes_in_without_a_key() {
    let two = Two::new(1);
    let other = Export::create(&two.exporter.1, memory(1).1, 0).unwrap();
    other.publish(0, Some(&every(0o600))).unwrap();
    let (import, none) = pass(&two, 0);
    let (_, read) = pass(&two, PERM_READ);
    let stranger = Hostile::new([8; 32]);
    assert!(stranger.come(read.at, &key(&read)).is_err());
    let hostile = Hostile::new(SECRET);
    let rejected = Some(ConnectionKind::PeerRejected);
    for key in [
        &key(&none)[..],
        &[0; 32],
        &[],
        &key(&read)[..31],
        &[7; 256][..200],
    ] {
        assert_eq!(hostile.come(read.at, key).err(), rejected, "{key:?}");
    }
    assert!(hostile.come(read.at, &key(&read)).is_ok());
    import.set_mode(0).unwrap();
    assert_eq!(import.get(0, &mut [0; 8], 8), Err(Code::PermDenied));
    // The key of a segment that has ended is none, while there is another.
    two.export.unpublish().unwrap();
    assert_eq!(hostile.come(read.at, &key(&read)).err(), rejected);
    two.export.publish(0x60_0000, None).unwrap();
    assert_eq!(hostile.come(read.at, &key(&read)).err(), rejected);
    // Without any nobody listens.
    drop((other, two.export));
    let gone = hostile.come(read.at, &key(&read)).err();
    assert_eq!(gone, Some(ConnectionKind::Unreachable));
}

/// A connection that was let in is of no use when its segment has ended.
#[test]
fn an_end_takes_every_connection_with_it() {
    let two = Two::new(1);
    let (_import, pass) = pass(&two, PERM_RDWR);
    let hostile = Hostile::new(SECRET);
    let (ep, context) = hostile.come(pass.at, &key(&pass)).unwrap();
    let remote = RemoteSegment {
        context,
        address: 0,
        len: 8,
    };
    assert_eq!(hostile.transfer(&ep, true, remote), DtoStatus::Success);
    two.export.unpublish().unwrap();
    two.bytes.write(0, b"after it").unwrap();
    assert_ne!(hostile.transfer(&ep, true, remote), DtoStatus::Success);
    assert_eq!(text(&two.bytes, 0, 8), b"after it");
}

/// Threads put rising words while the memory moves: none fails, and what was answered after a rebind is in the new memory.
#[test]
fn importers_stay_while_the_memory_moves_under_load() {
    const PAGES: usize = 16;
    let two = Two::new(PAGES);
    let over = AtomicBool::new(false);
    // Of each thread, the last word that was answered.
    let answered = [const { AtomicU64::new(0) }; 3];
    let mut memories = vec![two.bytes.clone()];
    std::thread::scope(|scope| {
        for (thread, answered) in answered.iter().enumerate() {
            let (import, barrier) = two.import(PERM_RDWR);
            let over = &over;
            scope.spawn(move || {
                let _barrier = barrier;
                let mut block = vec![0; 4 * page()];
                for word in 1u64.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let at = (thread * 4 * page()) as i64;
                    for part in block.chunks_mut(8) {
                        part.copy_from_slice(&word.to_ne_bytes());
                    }
                    let put = import.put(at, &block, 8);
                    let got = import.get(at, &mut [0; 8], 8);
                    over.fetch_or(put.and(got).is_err(), Ordering::SeqCst);
                    assert_eq!((put, got), (Ok(()), Ok(())));
                    answered.store(word, Ordering::SeqCst);
                }
            });
        }
        let begun = Instant::now();
        for _ in 0..60 {
            let (bytes, new) = memory(PAGES);
            two.export.rebind(new).unwrap();
            memories.push(bytes);
            // The next move comes when each has begun and ended a transfer behind this one.
            let before: Vec<u64> = answered
                .iter()
                .map(|at| at.load(Ordering::SeqCst))
                .collect();
            let moved = || {
                let later =
                    |(at, before): (&AtomicU64, &u64)| at.load(Ordering::SeqCst) > before + 1;
                answered.iter().zip(&before).all(later)
            };
            while !moved() && !over.load(Ordering::SeqCst) {
                let hangs = begun.elapsed() > PATIENCE;
                over.fetch_or(hangs, Ordering::SeqCst);
                assert!(!hangs, "nobody gets on");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    let present = memories.last().unwrap();
    for (thread, answered) in answered.iter().enumerate() {
        let last = answered.load(Ordering::SeqCst).to_ne_bytes();
        for at in [0, 4 * page() - 8] {
            assert_eq!(text(present, thread * 4 * page() + at, 8), last);
        }
    }
}

/// Long gets are in the middle of their bytes when the memory moves, and begin again.
#[test]
fn long_gets_go_on_while_the_memory_moves() {
    const PAGES: usize = 4096;
    let two = Two::new(PAGES);
    let other = memory(PAGES);
    for bytes in [&two.bytes, &other.0] {
        bytes.fill(0, bytes.len(), 9).unwrap();
    }
    let (import, _barrier) = two.import(PERM_READ);
    let over = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut got = vec![0; PAGES * page()];
            while !over.load(Ordering::SeqCst) {
                got.fill(0);
                let code = import.get(0, &mut got, 1);
                over.fetch_or(code.is_err(), Ordering::SeqCst);
                assert_eq!(code, Ok(()));
                assert!(got.iter().all(|byte| *byte == 9));
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
        let begun = Instant::now();
        let mut kept = vec![other.0.clone()];
        let mut next = Some(other.1);
        for _ in 0..40 {
            let before = done.load(Ordering::SeqCst);
            let (bytes, new) = match next.take() {
                Some(new) => (kept[0].clone(), new),
                None => memory(PAGES),
            };
            bytes.fill(0, bytes.len(), 9).unwrap();
            two.export.rebind(new).unwrap();
            kept.push(bytes);
            while done.load(Ordering::SeqCst) == before && !over.load(Ordering::SeqCst) {
                let hangs = begun.elapsed() > PATIENCE;
                over.fetch_or(hangs, Ordering::SeqCst);
                assert!(!hangs, "nobody gets on");
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// A put that was answered before the end is in the exporter's memory for good; the first that is not is the last.
#[test]
fn an_end_under_load_is_no_false_success() {
    const PAGES: usize = 32;
    for round in 0..40u64 {
        let two = Two::new(PAGES);
        let answered = [const { AtomicU64::new(0) }; 2];
        std::thread::scope(|scope| {
            for (thread, answered) in answered.iter().enumerate() {
                let (import, barrier) = two.import(PERM_RDWR);
                scope.spawn(move || {
                    let _barrier = barrier;
                    let at = thread * 16 * page();
                    // One puts words, the other pages.
                    let len = if thread == 0 { 8 } else { 16 * page() };
                    for word in 1u64.. {
                        let block = word.to_ne_bytes().repeat(len / 8);
                        match import.put(at as i64, &block, 1) {
                            Ok(()) => answered.store(word, Ordering::SeqCst),
                            Err(code) => {
                                assert_eq!(code, Code::ConnAborted);
                                break;
                            }
                        }
                    }
                    let again = import.put(at as i64, &[0; 8], 8);
                    assert_eq!(again, Err(Code::ConnAborted));
                });
            }
            while answered.iter().any(|at| at.load(Ordering::SeqCst) < 3) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_micros(round * 53 % 700));
            match round % 2 {
                0 => two.export.unpublish().unwrap(),
                _ => two.export.destroy().unwrap(),
            }
        });
        for (thread, answered) in answered.iter().enumerate() {
            let word = text(&two.bytes, thread * 16 * page(), 8);
            let word = u64::from_ne_bytes(word.try_into().unwrap());
            // One that came in and was not answered may be there too.
            let last = answered.load(Ordering::SeqCst);
            assert!(word == last || word == last + 1, "{word} after {last}");
        }
    }
}

/// Of thousands of connections nothing is left, neither here nor there.
#[test]
fn no_descriptor_is_left_of_what_has_ended() {
    let cycle = |times: usize| {
        let two = Two::new(1);
        for _ in 0..times {
            let (import, _barrier) = two.import(PERM_RDWR);
            import.put(0, &[1; 8], 8).unwrap();
            import.disconnect().unwrap();
        }
        for _ in 0..times {
            let (bytes, memory) = memory(1);
            let export = Export::create(&two.exporter.1, memory, 0).unwrap();
            let id = export.publish(0, Some(&every(0o600))).unwrap();
            let import = Import::connect(&two.importer.1, 1, id, PERM_WRITE).unwrap();
            let _barrier = Barrier::init(&import, BARRIER_NODE).unwrap();
            import.put(0, &[1; 8], 8).unwrap();
            drop(export);
            assert_eq!(import.put(0, &[2; 8], 8), Err(Code::ConnAborted));
            assert_eq!(text(&bytes, 0, 8), [1; 8]);
        }
        let begun = Instant::now();
        let few = || descriptors() < 100;
        while !few() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(few(), "{} descriptors", descriptors());
    };
    cycle(1);
    cycle(150);
}

/// The thread that lets others in is none of the program's: its signals go elsewhere.
#[test]
fn signals_of_the_program_go_to_its_own_threads() {
    let _two = Two::new(1);
    let begun = Instant::now();
    // A thread takes its name when it begins to run.
    while look_at_threads() == 0 {
        assert!(begun.elapsed() < PATIENCE, "there is no thread");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many serve other nodes, each with the signals blocked that it is to block.
fn look_at_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut found = 0;
    for task in tasks.flatten() {
        let read = |what: &str| std::fs::read_to_string(task.path().join(what));
        let (Ok(name), Ok(status)) = (read("comm"), read("status")) else {
            continue; // it has ended
        };
        if name.trim() == "windlass-rsm" {
            found += 1;
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            let blocked = u64::from_str_radix(blocked.unwrap().trim(), 16).unwrap();
            // All but the four highest; the kernel lets nobody block 9 and 19, the C library two of its own.
            let few = !blocked & !(0xF << 60) & !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32 | 1 << 33);
            assert_eq!(few, 0, "{blocked:x}");
        }
    }
    found
}

/// A segment that is a file as a whole, and is only read.
#[test]
fn a_file_is_served_as_it_is() {
    let two = Two::new(1);
    let file = MemFile::create_unsealed("windlass-test", page() as u64).unwrap();
    let whole = file.map(0, page()).unwrap();
    let export = Export::of_file(&two.exporter.1, file).unwrap();
    let id = export.publish(0, Some(&every(0o444))).unwrap();
    let import = Import::connect(&two.importer.1, 1, id, PERM_READ).unwrap();
    import.set_mode(0).unwrap();
    for byte in [3, 4] {
        whole.write(5, &[byte; 4]).unwrap();
        let mut seen = [0; 4];
        import.get(5, &mut seen, 1).unwrap();
        assert_eq!(seen, [byte; 4]);
    }
}
