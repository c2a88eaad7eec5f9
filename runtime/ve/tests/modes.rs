//! The modes that find mistakes of programs. Reordering: programs that rely on the order which ve-memory.md documents (sections 8
//! and 9.4) never see another one, programs that rely on more are caught by some seed. Checking: each rule is trapped, and nothing else.
#![cfg(not(miri))]

mod support;

use std::cell::Cell;
use std::process::Command;
use std::sync::{Arc, Mutex};

use support::{M64, Node, SMALL, memory, open_area, read};
use windlass_mem::SharedBytes;
use windlass_ve::{
    CHECK_VARIABLE, DESCRIPTORS, Fence, Handle, LENGTH_END, Mode, Modes, PollError, Process,
    Reorder, RingFull, Rule, Trap, VeMemory, Vehva,
};

const SEEDS: u64 = 1000;
/// Bytes of the data that a flag announces.
const DATA: usize = 96;

/// A writer on VE 1 whose accesses are reordered, and a reader on VE 0 that looks at its own memory whenever it likes.
struct Rig<'a> {
    writer: &'a Process,
    /// At the reader: a page for data, a page for flags, a page with the sync bit.
    seen: [SharedBytes; 3],
    /// Where the writer reaches them.
    data: Vehva,
    flag: Vehva,
    sync: Vehva,
    /// The writer's own memory.
    own: SharedBytes,
    local: Vehva,
    /// Where the flag of this program is: a page and an offset.
    flag_at: (usize, usize),
    wrong: Cell<bool>,
}

impl Rig<'_> {
    /// The reader looks: a flag that is set announces all of the data.
    fn look(&self) {
        let (page, offset) = self.flag_at;
        if read::<8>(&self.seen[page], offset) == [1; 8] {
            let complete = read::<DATA>(&self.seen[0], 0) == [1; DATA];
            self.wrong.set(self.wrong.get() | !complete);
        }
    }

    fn put(&self, to: Vehva, len: u32) -> Handle {
        let handle = Handle::new();
        let posted = self.writer.dma().post(to, self.local, len, &handle);
        posted.expect("room");
        self.look();
        handle
    }

    fn wait(&self, handle: &Handle) {
        loop {
            self.look();
            match self.writer.dma().poll(handle) {
                Err(PollError::Pending) => {}
                done => break assert!(done.expect("result").is_none()),
            }
        }
    }

    fn store(&self, to: Vehva) {
        self.writer.shm(to, &[1; 8]).expect("store");
        self.look();
    }

    fn store_data(&self) {
        for word in 0..DATA as u64 / 8 {
            self.store(at(self.data, word * 8));
        }
    }
}

fn at(base: Vehva, offset: u64) -> Vehva {
    base.checked_add(offset).expect("address")
}

/// Reordered by the seed alone, whatever the time.
fn by_hand(seed: u64) -> Modes {
    let reorder = Reorder {
        seed,
        by_hand: true,
    };
    Modes {
        check: None,
        reorder: Some(reorder),
    }
}

/// Runs a program once for each seed and tells for how many the reader saw a flag without its data.
fn caught(flag_at: (usize, usize), program: impl Fn(&Rig<'_>)) -> u64 {
    let node = Node::new(SMALL);
    let reader = node.process(10, 0);
    let (plain, synced) = (memory(&reader, 2), memory(&reader, 1));
    let sync = Mode::PCI.with(Mode::PCISYNC);
    let open = |memory: &VeMemory, mode| {
        let size = memory.bytes.len() as u64;
        reader
            .veshm_open(memory.vemva, size, 0, mode)
            .expect("open");
    };
    open(&plain, Mode::PCI);
    open(&synced, sync);
    let page = |n: usize| {
        plain
            .bytes
            .slice(n * M64 as usize, M64 as usize)
            .expect("page")
    };
    let mut wrong = 0;
    for seed in 0..SEEDS {
        for page in 0..2 {
            plain
                .bytes
                .fill(page * M64 as usize, 4096, 0)
                .expect("fill");
        }
        synced.bytes.fill(0, 4096, 0).expect("fill");
        let writer = node.process_in(11, 1, by_hand(seed));
        let own = memory(&writer, 1);
        own.bytes.fill(0, 4096, 1).expect("fill");
        let data = writer.attach_vehva(10, plain.vemva, 2 * M64, Mode::PCI);
        let data = data.expect("attach");
        let rig = Rig {
            data,
            flag: at(data, M64),
            sync: writer
                .attach_vehva(10, synced.vemva, M64, sync)
                .expect("attach"),
            local: writer.register(own.vemva, M64).expect("register"),
            own: own.bytes.clone(),
            seen: [page(0), page(1), synced.bytes.clone()],
            writer: &writer,
            flag_at,
            wrong: Cell::new(false),
        };
        program(&rig);
        rig.look();
        while writer.dma().step() {
            rig.look();
        }
        let (page, offset) = flag_at;
        assert_eq!(read::<8>(&rig.seen[page], offset), [1; 8], "all arrives");
        wrong += u64::from(rig.wrong.get());
    }
    wrong
}

/// Flag on a page of its own, on the data's page, on the page with the sync bit.
const APART: (usize, usize) = (1, 0);
const BESIDE: (usize, usize) = (0, 1024);
const SYNCED: (usize, usize) = (2, 0);

#[test]
fn programs_that_rely_on_documented_order_never_fail() {
    let two_descriptors = caught(APART, |rig| {
        rig.put(rig.data, DATA as u32);
        rig.put(rig.flag, 8);
    });
    assert_eq!(two_descriptors, 0, "descriptors complete in ring order");
    let flag_after_wait = caught(APART, |rig| {
        rig.wait(&rig.put(rig.data, DATA as u32));
        rig.store(rig.flag);
    });
    assert_eq!(flag_after_wait, 0, "a store after the completion");
    let fenced = caught(APART, |rig| {
        rig.store_data();
        rig.writer.fence(Fence::Stores);
        rig.store(rig.flag);
    });
    assert_eq!(fenced, 0, "a fence between stores");
    let one_page = caught(BESIDE, |rig| {
        rig.store_data();
        rig.store(at(rig.data, 1024));
    });
    assert_eq!(one_page, 0, "stores to one page");
    let sync_after_stores = caught(SYNCED, |rig| {
        rig.store_data();
        rig.store(rig.sync);
    });
    assert_eq!(sync_after_stores, 0, "VE_PCISYNC after stores");
    let sync_after_transfer = caught(SYNCED, |rig| {
        rig.put(rig.data, DATA as u32);
        rig.store(rig.sync);
    });
    assert_eq!(sync_after_transfer, 0, "VE_PCISYNC after a transfer");
    let transfer_after_stores = caught(APART, |rig| {
        rig.store_data();
        rig.put(rig.flag, 8);
    });
    assert_eq!(transfer_after_stores, 0, "a transfer after stores");
    let through_a_full_ring = caught(APART, |rig| {
        for _ in 0..300 {
            rig.writer.dma().post_wait(rig.data, rig.local, 4);
        }
        rig.wait(&rig.put(rig.data, DATA as u32));
        assert!(rig.writer.dma().post_wait(rig.flag, rig.local, 8).is_none());
    });
    assert_eq!(through_a_full_ring, 0, "post_wait");
}

#[test]
fn programs_that_rely_on_more_are_caught() {
    let flag_in_the_same_descriptor = caught((0, DATA), |rig| {
        rig.wait(&rig.put(rig.data, DATA as u32 + 8));
    });
    let store_without_wait = caught(APART, |rig| {
        rig.put(rig.data, DATA as u32);
        rig.store(rig.flag);
    });
    let stores_without_fence = caught(APART, |rig| {
        rig.store_data();
        rig.store(rig.flag);
    });
    let fence_of_loads = caught(APART, |rig| {
        rig.store_data();
        rig.writer.fence(Fence::Loads);
        rig.store(rig.flag);
    });
    let source_reused = caught(BESIDE, |rig| {
        let handle = rig.put(rig.data, DATA as u32);
        rig.own.fill(0, DATA, 7).expect("fill");
        rig.wait(&handle);
        rig.own.fill(0, DATA, 1).expect("fill");
        rig.store(at(rig.data, 1024));
    });
    let read_without_poll = caught(BESIDE, |rig| {
        rig.wait(&rig.put(rig.data, DATA as u32));
        rig.own.fill(0, DATA, 0).expect("fill");
        let handle = Handle::new();
        let dma = rig.writer.dma();
        dma.post(rig.local, rig.data, DATA as u32, &handle)
            .expect("room");
        rig.wrong.set(read::<DATA>(&rig.own, 0) != [1; DATA]);
        rig.wait(&handle);
        assert_eq!(read::<DATA>(&rig.own, 0), [1; DATA], "after the poll");
        rig.store(at(rig.data, 1024));
    });
    for (name, caught) in [
        ("flag in the same descriptor", flag_in_the_same_descriptor),
        ("a store without waiting", store_without_wait),
        ("stores without a fence", stores_without_fence),
        ("stores with a fence of loads", fence_of_loads),
        ("a source that is used again too early", source_reused),
        ("a destination that is read too early", read_without_poll),
    ] {
        assert!(caught > 0, "{name}: passed under {SEEDS} seeds");
        assert!(
            caught < SEEDS,
            "{name}: {caught} is not an order, but a rule"
        );
    }
}

#[test]
fn a_load_sees_the_stores_before_it() {
    for seed in 0..SEEDS {
        let node = Node::new(SMALL);
        let process = node.process_in(11, 1, by_hand(seed));
        let own = memory(&process, 2);
        let local = process.register(own.vemva, 2 * M64).expect("register");
        for n in 0..10_u8 {
            process.shm(at(local, M64), &[n; 4]).expect("store");
            process.shm(local, &[n; 8]).expect("store");
            let mut seen = [0xFF; 8];
            process.lhm(local, &mut seen).expect("load");
            assert_eq!(seen, [n; 8], "seed {seed}");
        }
        process.unregister(local).expect("unregister");
        assert_eq!(
            read::<4>(&own.bytes, M64 as usize),
            [9; 4],
            "before the unmap"
        );
    }
}

/// Check 12 of section 13, without a hand on the engine: which programs can see it at all.
#[test]
fn a_ring_is_full_for_some_seed_and_has_room_after_one_completion() {
    let (mut full, mut never) = (0, 0);
    for seed in (0..200).map(Some).chain([None]) {
        let node = Node::new(SMALL);
        let reorder = seed.map(|seed| Reorder {
            seed,
            by_hand: true,
        });
        let modes = Modes {
            check: None,
            reorder,
        };
        let process = node.process_in(11, 1, modes);
        let own = memory(&process, 1);
        let local = process.register(own.vemva, M64).expect("register");
        let handles: Vec<Handle> = (0..=DESCRIPTORS).map(|_| Handle::new()).collect();
        let (last, first) = handles.split_last().expect("some");
        let post = |handle| process.dma().post(at(local, 4096), local, 8, handle);
        for handle in first {
            post(handle).expect("the ring has as many descriptors");
        }
        match post(last) {
            Ok(()) => never += 1,
            Err(RingFull) => {
                assert!(seed.is_some(), "a descriptor executes inside post");
                full += 1;
                let one = process.dma().wait(&handles[0]).expect("it completes");
                assert!(one.is_none());
                post(last).expect("there is room");
            }
        }
        for handle in handles
            .iter()
            .filter(|handle| handle.stored().is_none())
            .skip(1)
        {
            let outcome = process.dma().wait(handle).expect("it completes");
            assert!(outcome.is_none(), "seed {seed:?}");
        }
    }
    assert!(full > 10 && never > 100, "{full} full, {never} not");
}

#[test]
fn everything_arrives_without_further_calls() {
    let node = Node::new(SMALL);
    let modes = Modes {
        check: None,
        reorder: Some(Reorder {
            seed: 7,
            by_hand: false,
        }),
    };
    let process = node.process_in(11, 1, modes);
    let own = memory(&process, 1);
    let local = process.register(own.vemva, M64).expect("register");
    own.bytes.fill(0, 64, 5).expect("fill");
    let handle = Handle::new();
    let dma = process.dma();
    dma.post(at(local, 4096), local, 64, &handle).expect("post");
    process.shm(at(local, 8192), &[6; 8]).expect("store");
    // No maximum time: a hang is the failure.
    while read::<8>(&own.bytes, 8192) != [6; 8] || read::<64>(&own.bytes, 4096) != [5; 64] {
        std::thread::yield_now();
    }
    assert_eq!(dma.wait(&handle).map(|e| e.bits()), Ok(0));
    let owner = node.process(10, 0);
    let area = open_area(&owner, 1);
    let remote = process.attach_vehva(10, area.vemva, M64, Mode::PCI);
    process
        .shm(remote.expect("attach"), &[8; 8])
        .expect("store");
    drop(process);
    assert_eq!(
        read::<8>(&area.bytes, 0),
        [8; 8],
        "stores outlive their process"
    );
}

#[test]
fn transfers_end_with_their_process() {
    for by_hand in [true, false] {
        for seed in 0..100 {
            let node = Node::new(SMALL);
            let reorder = Some(Reorder { seed, by_hand });
            let modes = Modes {
                check: None,
                reorder,
            };
            let (owner, process) = (node.process(10, 0), node.process_in(11, 1, modes));
            let area = open_area(&owner, 1);
            let remote = process.attach_vehva(10, area.vemva, M64, Mode::PCI);
            let remote = remote.expect("attach");
            let own = memory(&process, 1);
            let local = process.register(own.vemva, M64).expect("register");
            own.bytes.fill(0, 4096, 1).expect("fill");
            for n in 0..20 {
                let to = at(remote, n * 4096);
                let posted = process.dma().post(to, local, 4096, &Handle::new());
                posted.expect("room");
            }
            drop(process);
            let after = read::<{ 20 * 4096 }>(&area.bytes, 0);
            std::thread::yield_now();
            assert!(
                after == read::<{ 20 * 4096 }>(&area.bytes, 0),
                "seed {seed}"
            );
        }
    }
}

/// A process whose broken rules are written down, with memory at `local`.
fn checked() -> (Node, Process, Arc<Mutex<Vec<Rule>>>, VeMemory, Vehva) {
    let node = Node::new(SMALL);
    let broken = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&broken);
    let modes = Modes {
        check: Some(Trap::new(move |rule| log.lock().expect("log").push(rule))),
        reorder: None,
    };
    let process = node.process_in(11, 1, modes);
    let own = memory(&process, 2);
    let local = process.register(own.vemva, M64).expect("register");
    (node, process, broken, own, local)
}

#[test]
fn each_rule_is_trapped_and_nothing_else() {
    let (node, process, broken, own, local) = checked();
    let dma = process.dma();
    let there = at(local, 4096);
    let expect = |rules: &[Rule]| {
        let broken = std::mem::take(&mut *broken.lock().expect("log"));
        assert_eq!(broken, rules);
    };
    let handle = Handle::new();
    for _ in 0..300 {
        dma.post(there, local, 64, &handle).expect("post");
        assert!(dma.poll(&handle).expect("done").is_none());
        assert!(dma.post_wait(there, local, 4).is_none());
    }
    expect(&[]);
    let index = handle.index();
    let _ = dma.poll(&handle);
    expect(&[Rule::DoublePoll { index }]);
    let _ = dma.poll(&Handle::new());
    expect(&[Rule::DoublePoll { index: 0 }]);
    let odd = at(local, 4098);
    assert_eq!(dma.post_wait(odd, local, 4).bits(), 0x1000);
    expect(&[Rule::Misaligned {
        dst: odd,
        src: local,
    }]);
    for len in [6, LENGTH_END, u32::MAX - 3] {
        assert_eq!(dma.post_wait(at(local, 1 << 25), local, len).bits(), 0x1000);
        let rules = std::mem::take(&mut *broken.lock().expect("log"));
        assert_eq!(rules.first(), Some(&Rule::Length { len }));
    }
    dma.post_wait(at(local, 4), local, 8);
    expect(&[Rule::Overlap {
        dst: at(local, 4),
        src: local,
        len: 8,
    }]);
    dma.post(there, local, 8, &handle).expect("post");
    let index = handle.index();
    dma.post(there, local, 8, &handle).expect("post");
    expect(&[Rule::HandleBusy { index }]);
    assert!(dma.poll(&handle).expect("done").is_none());
    // A handle that goes is no matter before its descriptor is used again.
    dma.post(there, local, 8, &Handle::new()).expect("post");
    let gone = handle.index() + 1;
    let mut kept = Vec::new();
    for _ in 0..127 {
        kept.push(Handle::new());
        dma.post(there, local, 8, &kept[kept.len() - 1])
            .expect("post");
    }
    expect(&[]);
    dma.post(there, local, 8, &handle).expect("post");
    expect(&[Rule::HandleGone { index: gone % 128 }]);
    // The completion of the last one is that of all before it: nothing is in flight.
    assert!(dma.poll(&handle).expect("done").is_none());
    process.unregister(local).expect("unregister");
    expect(&[]);
    let local = process.register(own.vemva, M64).expect("register");
    dma.post(at(local, 4096), local, 8, &handle).expect("post");
    process.unregister(local).expect("unregister");
    expect(&[Rule::InFlight { vehva: local }]);
    drop((process, own));
    node.assert_empty();
}

#[test]
fn a_remote_area_that_is_detached_as_local_is_a_warning() {
    let (node, process, broken, ..) = checked();
    let owner = node.process(10, 0);
    let area = open_area(&owner, 1);
    let vehva = process.attach_vehva(10, area.vemva, M64, Mode::PCI);
    let vehva = vehva.expect("attach");
    process.unregister(vehva).expect("it works all the same");
    let rule = Rule::RemoteByLocal { vehva };
    assert_eq!(*broken.lock().expect("log"), [rule]);
    assert!(rule.is_warning() && !Rule::NoInit.is_warning());
}

#[test]
fn posting_needs_ve_dma_init_where_the_caller_has_it() {
    let (_node, process, broken, _own, local) = checked();
    let post = || process.dma().post(at(local, 64), local, 8, &Handle::new());
    post().expect("callers without ve_dma_init");
    process.await_dma_init();
    assert!(post().is_err());
    assert_eq!(
        std::mem::take(&mut *broken.lock().expect("log")),
        [Rule::NoInit]
    );
    process.dma_init().expect("init");
    process.dma_init().expect("later calls return 0");
    post().expect("initialised");
    assert!(broken.lock().expect("log").is_empty());
}

/// Whether this process is the one that breaks a rule.
const CHILD: &str = "WINDLASS_TEST_CHILD";

#[test]
fn the_variable_ends_a_program_with_the_name_of_the_rule() {
    if std::env::var_os(CHILD).is_some() {
        let node = Node::new(SMALL);
        let process = node.process(11, 1);
        process.dma().post_wait(Vehva::new(2), Vehva::new(0), 4);
        return;
    }
    let name = "the_variable_ends_a_program_with_the_name_of_the_rule";
    for (check, ends) in [("1", true), ("0", false)] {
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .env(CHECK_VARIABLE, check)
            .output()
            .expect("a child");
        let said = String::from_utf8_lossy(&output.stderr);
        let rule = said.contains("addresses are multiples of 4 bytes (ve-memory 9.2)");
        assert_eq!((output.status.success(), rule), (!ends, ends), "{said}");
    }
}

/// Threads of one process that transfer, load, store, attach and detach at once: nobody waits for ever, every transfer is whole, no rule is broken.
#[test]
fn threads_share_an_engine_in_every_mode() {
    const THREADS: u64 = 3;
    let broken = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&broken);
    let check = Some(Trap::new(move |rule| log.lock().expect("log").push(rule)));
    let reorder = Some(Reorder {
        seed: 11,
        by_hand: false,
    });
    let all = [
        (None, None),
        (check.clone(), None),
        (None, reorder),
        (check, reorder),
    ];
    for (check, reorder) in all {
        let node = Node::new(SMALL);
        let process = node.process_in(11, 1, Modes { check, reorder });
        let owner = node.process(10, 0);
        let area = open_area(&owner, 1);
        let remote = process.attach_vehva(10, area.vemva, M64, Mode::PCI);
        let remote = remote.expect("attach");
        let own = memory(&process, 1);
        let local = process.register(own.vemva, M64).expect("register");
        let other = memory(&process, 1);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (process, own, area) = (&process, &own, &area);
                scope.spawn(move || {
                    let (handle, offset) = (Handle::new(), thread << 20);
                    let (here, there) = (at(local, offset), at(remote, offset));
                    for round in 0..200_u8 {
                        own.bytes.fill(offset as usize, 256, round).expect("fill");
                        if round % 2 == 0 {
                            let done = process.dma().post_wait(there, here, 256);
                            assert!(done.is_none());
                        } else {
                            while process.dma().post(there, here, 256, &handle).is_err() {}
                            let done = process.dma().wait(&handle);
                            assert!(done.expect("posted").is_none());
                        }
                        let seen = read::<256>(&area.bytes, offset as usize);
                        assert_eq!(seen, [round; 256]);
                        let word = at(there, 512);
                        process.shm(word, &[round; 8]).expect("store");
                        let mut seen = [0; 8];
                        process.lhm(word, &mut seen).expect("load");
                        assert_eq!(seen, [round; 8]);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    let vehva = process.register(other.vemva, M64).expect("register");
                    assert!(process.dma().post_wait(vehva, local, 64).is_none());
                    process.unregister(vehva).expect("unregister");
                }
            });
        });
        assert!(broken.lock().expect("log").is_empty());
        drop((process, owner, area, own, other));
        node.assert_empty();
    }
}

/// A descriptor of table E, stored by hand: its status word afterwards.
fn raw(process: &Process, index: u64, dst: Vehva, src: Vehva, len: u64) -> u64 {
    let table = Vehva::new(0x4000 + index * 32);
    for (offset, word) in [(8, len | 8 << 32), (16, src.raw()), (24, dst.raw()), (0, 1)] {
        let word = u64::to_le_bytes(word);
        process.shm(at(table, offset), &word).expect("store");
    }
    let mut status = [0; 8];
    process.lhm(table, &mut status).expect("load");
    u64::from_le_bytes(status)
}

#[test]
fn descriptors_of_the_program_do_not_pass_its_stores() {
    for seed in 0..SEEDS {
        let node = Node::new(SMALL);
        let process = node.process_in(11, 1, by_hand(seed));
        let own = memory(&process, 1);
        let local = process.register(own.vemva, M64).expect("register");
        process.shm(at(local, 64), &[3; 8]).expect("store");
        assert_eq!(raw(&process, 0, at(local, 4096), at(local, 64), 8), 2);
        assert_eq!(read::<8>(&own.bytes, 4096), [3; 8], "seed {seed}");
    }
}

#[test]
fn descriptors_of_the_program_are_checked_too() {
    let (node, process, broken, _own, local) = checked();
    let exception = |status: u64| status >> 48;
    let there = at(local, 4096);
    assert_eq!(exception(raw(&process, 0, there, local, 64)), 0);
    assert!(broken.lock().expect("log").is_empty());
    assert_eq!(exception(raw(&process, 1, there, at(local, 2), 4)), 0x1000);
    assert_eq!(exception(raw(&process, 2, there, local, 6)), 0x1000);
    assert_eq!(exception(raw(&process, 3, at(local, 8), local, 12)), 0);
    let expected = [
        Rule::Misaligned {
            dst: there,
            src: at(local, 2),
        },
        Rule::Length { len: 6 },
        Rule::Overlap {
            dst: at(local, 8),
            src: local,
            len: 12,
        },
    ];
    assert_eq!(*broken.lock().expect("log"), expected);
    let owner = node.process(10, 0);
    let area = open_area(&owner, 1);
    let remote = process.attach_vehva(10, area.vemva, M64, Mode::PCI);
    let remote = remote.expect("attach");
    let across = |index| exception(raw(&process, index, at(remote, 4096), remote, 64));
    assert_eq!(across(4), 0, "undocumented, but allowed");
    process.dma().set_strict(true);
    assert_eq!(across(5), 0x0800, "strict");
}
