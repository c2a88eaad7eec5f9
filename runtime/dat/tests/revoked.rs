//! Memory that its owner takes back while thousands of requests are under way (reliability.md C11): every request
//! completes, and after the call that takes it back returned nothing is stored there.
//!
//! `WLTEST_REVOCATIONS` is how many rounds.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::*;
use windlass_dat::*;

/// Rounds where nothing else is said.
const ROUNDS: u64 = 40;
/// Requests outstanding at once.
const POSTED: u64 = 8192;
/// The memory that is taken back.
const LEN: usize = 64 * 1024;
/// Some requests are as long: their payload goes from memory to memory without a buffer between.
const LONG: u32 = 24 * 1024;
/// What the owner keeps there once it is its own again.
const OWN: u8 = 0xEE;

/// What is taken back.
#[derive(Clone, Copy, Debug)]
enum Revoked {
    /// The target's region.
    Region,
    /// A window onto it.
    Window,
    /// The region that the initiator's own requests read from and write to.
    Source,
}

/// Says that a round is over, however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Both sides of a round.
struct Round {
    pair: Pair,
    ep: Ep,
    peer: Ep,
}

impl Round {
    fn new(pair: Pair) -> Round {
        let (ep, peer) = pair.connect();
        Round { pair, ep, peer }
    }

    /// Posts as many requests of all kinds as there shall be outstanding; gives how many were taken.
    fn post(&self, to: RemoteSegment, local: &Lmr, revoked: &AtomicBool) -> u64 {
        let mut seed = to.address | 1;
        for number in 0..POSTED {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let len = match seed % 128 {
                0 => LONG,
                n => 1 + n as u32,
            };
            let offset = (seed >> 20) % (LEN as u64 - u64::from(len));
            let at = RemoteSegment {
                address: to.address + offset,
                len,
                ..to
            };
            let word = RemoteSegment {
                address: (at.address + 8) & !7,
                len: 8,
                ..to
            };
            let (here, there) = (local.segment(offset, len), local.segment(0, 8));
            let word = RemoteSegment {
                address: word.address.min(to.address + LEN as u64 - 8) & !7,
                ..word
            };
            let flags = Flags::DEFAULT;
            let done = match (seed >> 8) % 8 {
                0..3 => {
                    let bytes = [1; 200];
                    let bytes = &bytes[..bytes.len().min(len as usize)];
                    self.ep.post_rdma_write_inline(bytes, number, at, flags)
                }
                3..5 => self.ep.post_rdma_write(&[here], number, at, flags),
                5 | 6 => self.ep.post_rdma_read(&[here], number, at, flags),
                _ => self.ep.post_fetch_add(there, number, word, 1, flags),
            };
            if let Err(why) = done {
                // Only a region of this side's that is gone is refused at the post.
                assert!(revoked.load(Ordering::SeqCst), "{why}");
                return number;
            }
        }
        POSTED
    }

    /// The end of a round: everything posted has completed, in order, and one status tells why the rest did not.
    fn check(&self, posted: u64, what: Revoked) -> (u64, u64) {
        let begin = Instant::now();
        let (mut succeeded, mut failed, mut ended) = (0, 0, false);
        while succeeded + failed < posted || (failed > 0 && !ended) {
            assert!(
                begin.elapsed() < WATCHDOG,
                "{succeeded} + {failed} of {posted}"
            );
            let Some(event) = self.pair.a.evd.dequeue() else {
                self.pair.a.ia.step();
                continue;
            };
            match event {
                Event::Dto(done) => {
                    assert_eq!(done.cookie, succeeded + failed, "in post order, each once");
                    let first = match what {
                        Revoked::Region | Revoked::Window => DtoStatus::RemoteAccess,
                        Revoked::Source => DtoStatus::LocalProtection,
                    };
                    match done.status {
                        DtoStatus::Success => assert_eq!(failed, 0),
                        DtoStatus::Flushed if failed > 0 => {}
                        // What was on its way when the source went away.
                        DtoStatus::Flushed if matches!(what, Revoked::Source) => {}
                        status => assert_eq!(status, first, "the first that fails"),
                    }
                    succeeded += u64::from(done.status == DtoStatus::Success);
                    failed += u64::from(done.status != DtoStatus::Success);
                }
                Event::Connection { kind, .. } => {
                    assert_eq!(kind, ConnectionKind::Broken);
                    ended = true;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(self.pair.a.evd.dequeue().is_none(), "more than was posted");
        (succeeded, failed)
    }

    /// Posts, while the owner serves and takes back after `delay`.
    fn run(&self, what: Revoked, delay: Duration) -> (u64, u64) {
        let Round { pair, ep, peer } = self;
        let all = Privileges::ALL | Privileges::REMOTE_ATOMIC;
        let (bytes, region) = pair.b.region(LEN, all);
        let (local_bytes, local) = pair.a.region(LEN, Privileges::ALL);
        let rmr = Rmr::create(&pair.b.pz, RmrScope::Pz).unwrap();
        let mut to = remote(&region, 0, LEN as u32);
        if matches!(what, Revoked::Window) {
            let segment = region.segment(0, LEN as u32);
            let va = VaType::Virtual;
            let context = rmr.bind(&region, segment, all, va, peer, 0, Flags::DEFAULT);
            to.context = context.unwrap();
            let event = pair.event(&pair.b);
            assert!(matches!(event, Event::Bind { .. }), "{event:?}");
        }
        let (revoked, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let begun = AtomicU64::new(0);
        let begin = Instant::now();
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut back = false;
                while !over.load(Ordering::SeqCst) {
                    pair.b.ia.step();
                    if back || begin.elapsed() < delay || begun.load(Ordering::SeqCst) == 0 {
                        continue;
                    }
                    back = true;
                    revoked.store(true, Ordering::SeqCst);
                    match what {
                        Revoked::Region => region.free().unwrap(),
                        Revoked::Window => rmr.free().unwrap(),
                        Revoked::Source => local.free().unwrap(),
                    }
                    let mine = match what {
                        Revoked::Source => &local_bytes,
                        _ => &bytes,
                    };
                    mine.fill(0, LEN, OWN).unwrap();
                }
            });
            let _over = Over(&over);
            begun.store(1, Ordering::SeqCst);
            let posted = self.post(to, &local, &revoked);
            let done = self.check(posted, what);
            // Whatever is still on its way arrives before this ends.
            while !revoked.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            for _ in 0..50 {
                pair.a.ia.step();
                std::thread::yield_now();
            }
            done
        });
        pair.step();
        let mut seen = vec![0; LEN];
        let mine = match what {
            Revoked::Source => &local_bytes,
            _ => &bytes,
        };
        mine.read(0, &mut seen).unwrap();
        assert!(
            seen.iter().all(|byte| *byte == OWN),
            "{what:?} was stored to"
        );
        let failed = ep.state() == EpState::Disconnected;
        assert_eq!(done.1 > 0, failed, "a failure ends the connection");
        done
    }
}

#[test]
fn memory_taken_back_under_requests_is_never_stored_to_and_none_of_them_vanishes() {
    let rounds = std::env::var("WLTEST_REVOCATIONS").map_or(ROUNDS, |n| n.parse().unwrap());
    let mut round = Round::new(Pair::new());
    let (mut seed, mut cut, mut total) = (7u64, [0; 3], 0);
    // How long the requests of a round take here, so that the moments fall among them.
    let mut takes = Duration::from_millis(20);
    // More than that where moments have fallen beside the requests only: on a machine that does much else.
    for number in 0..20 * rounds {
        if number >= rounds && cut.iter().all(|count| *count > 0) {
            break;
        }
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let which = (number % 3) as usize;
        let what = [Revoked::Region, Revoked::Window, Revoked::Source][which];
        let begin = Instant::now();
        let (succeeded, failed) = round.run(what, takes.mul_f64((seed % 1000) as f64 / 1000.0));
        total += succeeded + failed;
        cut[which] += u32::from(succeeded > 0 && failed > 0);
        if failed == 0 {
            takes = takes.min(begin.elapsed()).max(Duration::from_millis(1));
            continue;
        }
        let Round { pair, ep, peer } = round;
        drop((ep, peer));
        while pair.step() {}
        while pair.b.evd.dequeue().is_some() || pair.a.evd.dequeue().is_some() {}
        round = Round::new(pair);
    }
    println!("at least {rounds} rounds, {total} requests completed, cut in the middle: {cut:?}");
    assert!(cut.iter().all(|count| *count > 0), "{cut:?}");
}
