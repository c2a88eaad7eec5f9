//! The service under arbitrary requests of processes that mean no good: no panic, every answer fits a message, and when they
//! are gone nothing of them is left.
#![cfg(not(miri))]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use support::{M2, M64, Node, SMALL, UID};
use windlass_ve::{
    Area, Body, Mode, PageMode, PageSize, ProcessId, Reply, Request, Ticket, Vehva, Vemva,
};

/// One test at a time: the memory of the process is counted.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers near what exists, and any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0..12_u64).prop_map(|n| n * M64),
        2 => (0..8_u64).prop_map(|n| n * M2),
        2 => (0..4_u64).prop_map(|n| 0x0700_0000_0000 + n * M64),
        1 => (0..4_u64).prop_map(|n| 0x0088_0000_0000 + n * M2),
        1 => 0..32_u64,
        1 => (0..4 * M64).prop_map(|n| u64::MAX - n),
        1 => any::<u64>(),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    let known = prop::sample::select(vec![
        0x4, 0x1000, 0x5, 0x6, 0x24, 0x2004, 0x3000, 0x4004, 0x8000, 0x2000, 0x4000, 0x8001,
        0x4005, 0x14,
    ]);
    prop_oneof![8 => known, 1 => any::<i64>(), 1 => 0..0x1_0000_i64].prop_map(Mode::new)
}

fn area() -> impl Strategy<Value = Area> {
    (number(), number(), -1..5_i32, mode()).prop_map(|(vemva, size, syncnum, mode)| Area {
        vemva: Vemva::new(vemva),
        size,
        syncnum,
        mode,
    })
}

fn page() -> impl Strategy<Value = PageSize> {
    prop::sample::select(vec![
        PageSize::K4,
        PageSize::M2,
        PageSize::M64,
        PageSize::M64,
        PageSize::M256,
    ])
}

fn request() -> impl Strategy<Value = Request> {
    let ticket = || (0..40_u64).prop_map(Ticket);
    let vemva = || number().prop_map(Vemva::new);
    prop_oneof![
        1 => Just(Request::Hello),
        1 => (0..9_u32).prop_map(|ve| Request::Memory { ve }),
        1 => page().prop_map(|page| Request::Linked { page }),
        2 => any::<bool>().prop_map(|begins| Request::Thread { begins }),
        1 => any::<bool>().prop_map(|mapped| Request::Dmades { mapped }),
        6 => (number(), page()).prop_map(|(len, page)| Request::Allocate { len, page }),
        8 => (ticket(), vemva()).prop_map(|(ticket, vemva)| Request::Bind { ticket, vemva }),
        1 => ticket().prop_map(|ticket| Request::Release { ticket }),
        2 => (vemva(), number()).prop_map(|(vemva, len)| Request::Free { vemva, len }),
        1 => (vemva(), number(), any::<bool>())
            .prop_map(|(vemva, len, writable)| Request::Protect { vemva, len, writable }),
        6 => area().prop_map(Request::Open),
        8 => (9..14_i32, area()).prop_map(|(pid, area)| Request::Attach { pid, area }),
        3 => (number(), mode()).prop_map(|(address, mode)| Request::Detach { address, mode }),
        3 => area().prop_map(Request::Close),
        1 => (0..6_i64, 9..14_i32, number())
            .prop_map(|(mode, pid, address)| Request::PageMode { mode: PageMode(mode), pid, address }),
        2 => (any::<i32>(), number(), any::<bool>(), any::<bool>())
            .prop_map(|(shmid, len, writable, huge)| Request::SegmentAttach { shmid, len, writable, huge }),
        1 => number().prop_map(|vehva| Request::SegmentDetach { vehva: Vehva::new(vehva) }),
        2 => (9..14_i32, vemva(), number()).prop_map(|(pid, vemva, len)| Request::Veo { pid, vemva, len }),
    ]
}

/// The process with number `index`: two users, two VEs, the VH.
fn join(node: &Node, index: usize, start: u64) -> ProcessId {
    let places = [
        (Some(0), UID),
        (Some(0), UID),
        (Some(1), UID),
        (Some(1), UID + 1),
        (None, UID),
    ];
    let (ve, uid) = places[index];
    let pid = 10 + i32::try_from(index).unwrap_or(0);
    node.service().join(pid, start, uid, ve).expect("join")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_request_harms_the_service(
        steps in prop::collection::vec((0..5_usize, request(), prop::bool::weighted(0.02)), 1..400),
    ) {
        let _alone = alone();
        let node = Node::new(SMALL);
        let join = |index, start| join(&node, index, start);
        let mut ids: Vec<ProcessId> = (0..5).map(|index| join(index, 1)).collect();
        for (step, (who, request, dies)) in steps.into_iter().enumerate() {
            let sent = postcard::to_stdvec(&request).expect("encode");
            let request: Request = postcard::from_bytes(&sent).expect("decode");
            let reply = node.service().handle(ids[who], request);
            if let Ok(reply) = reply {
                let sent = postcard::to_stdvec(&reply).expect("encode");
                prop_assert!(sent.len() <= 64 << 10);
                let got: Reply = postcard::from_bytes(&sent).expect("decode");
                prop_assert_eq!(&got.body, &reply.body);
                if let Body::Frames { frames, .. } = &reply.body {
                    let within = |run: &windlass_ve::Run| {
                        run.offset.checked_add(run.len).is_some_and(|end| end.raw() <= SMALL.memory_bytes)
                    };
                    prop_assert!(frames.runs.iter().all(within));
                }
            }
            if dies {
                node.service().leave(ids[who]);
                ids[who] = join(who, step as u64 + 2);
            }
        }
        for id in ids {
            node.service().leave(id);
        }
        node.assert_empty();
    }
}

#[test]
fn the_most_fragmented_memory_fits_a_reply() {
    let _alone = alone();
    // Every second of the highest 8192 small frames is free, and those are taken first: as many runs as a reply may have.
    let node = Node::new(windlass_ve::Profile::VE1);
    let id = node.service().join(10, 1, UID, Some(0)).expect("join");
    let ask = |request| node.service().handle(id, request);
    let step = windlass_ve::MAX_RUNS as u64;
    let at = |page: u64| Vemva::new(PageSize::M2.partial_space() + page * M2);
    for half in 0..2 {
        let allocated = ask(Request::Allocate {
            len: step * M2,
            page: PageSize::M2,
        });
        let Ok(Body::Frames { ticket, .. }) = allocated.map(|reply| reply.body) else {
            panic!("no frames")
        };
        ask(Request::Bind {
            ticket,
            vemva: at(half * step),
        })
        .expect("bind");
    }
    for odd in (1..2 * step).step_by(2) {
        ask(Request::Free {
            vemva: at(odd),
            len: M2,
        })
        .expect("free");
    }
    let most = ask(Request::Allocate {
        len: step * M2,
        page: PageSize::M2,
    })
    .expect("frames");
    let Body::Frames { frames, .. } = &most.body else {
        panic!("no frames")
    };
    assert_eq!(frames.runs.len(), windlass_ve::MAX_RUNS);
    let sent = postcard::to_stdvec(&most).expect("encode");
    assert!(sent.len() <= 64 << 10, "{} bytes", sent.len());
}

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) as usize % sides.max(1)
    }

    /// A message that was broken on its way, more or less.
    fn mutate(&mut self, message: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..self.roll(4) {
            let at = self.roll(message.len());
            match self.roll(6) {
                0 if !message.is_empty() => message[at] ^= 1 << self.roll(8),
                1 if !message.is_empty() => message[at] = self.roll(256) as u8,
                2 if !message.is_empty() => drop(message.remove(at)),
                3 => message.insert(at, self.roll(256) as u8),
                4 => message.truncate(at),
                _ => {
                    message.truncate(at);
                    message.extend(&other[self.roll(other.len())..]);
                }
            }
        }
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok());
    pages.expect("a number") * rustix::param::page_size()
}

#[test]
fn mutated_messages_neither_crash_nor_fill_the_service() {
    let _alone = alone();
    const MESSAGES: usize = 100_000;
    const BOUND: usize = 128 << 20;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut messages = Vec::new();
    for _ in 0..2000 {
        let request = request().new_tree(&mut runner).expect("request").current();
        messages.push(postcard::to_stdvec(&request).expect("encode"));
    }
    let node = Node::new(SMALL);
    let mut ids: Vec<ProcessId> = (0..5).map(|index| join(&node, index, 1)).collect();
    let (mut dice, mut decoded, mut accepted) = (Dice(4), 0, 0);
    let before = resident_bytes();
    for number in 0..MESSAGES {
        let mut message = messages[dice.roll(messages.len())].clone();
        let other = &messages[dice.roll(messages.len())];
        dice.mutate(&mut message, other);
        let who = dice.roll(ids.len());
        if let Ok(request) = postcard::from_bytes::<Request>(&message) {
            decoded += 1;
            let reply = node.service().handle(ids[who], request);
            accepted += usize::from(reply.is_ok());
        }
        if dice.roll(2000) == 0 {
            node.service().leave(ids[who]);
            ids[who] = join(&node, who, number as u64 + 2);
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more than before");
    assert!(decoded > MESSAGES / 2, "{decoded} could be decoded");
    assert!(accepted > MESSAGES / 50, "{accepted} were accepted");
    for id in ids {
        node.service().leave(id);
    }
    node.assert_empty();
}
