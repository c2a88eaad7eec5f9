//! libfabric over its tcp provider: two endpoints of one process, on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_mem::SharedBytes;
use windlass_native::ofi::{
    Done, Endpoint, Error, Library, Name, PeerId, Posted, Registration, Remote, SONAME, Verb,
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long anything may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(120);

/// The library; says why a test is left out where there is none.
fn library(test: &str) -> Option<Arc<Library>> {
    match Library::load(SONAME) {
        Ok(library) => Some(library),
        Err(error) => {
            eprintln!("{test}: skipped: {error}");
            None
        }
    }
}

fn name(ticket: u64) -> Name {
    Name { ticket, party: 3 }
}

fn memory(len: usize) -> SharedBytes {
    windlass_mem::lend(vec![0u64; len / 8]).0
}

/// An origin and a target.
struct Pair {
    origin: Arc<Endpoint>,
    target: Arc<Endpoint>,
    peer: PeerId,
}

impl Pair {
    fn open(library: &Arc<Library>) -> Pair {
        let open = || Endpoint::open(library, Some("tcp"), LOCAL).expect("the tcp provider");
        let (origin, target) = (open(), open());
        let peer = origin.insert(target.address()).expect("its own address");
        Pair {
            origin,
            target,
            peer,
        }
    }

    /// One transfer, both ends driven from here.
    fn transfer(
        &self,
        verb: Verb,
        local: &SharedBytes,
        within: &Arc<Registration>,
        remote: Remote,
    ) -> Done {
        let until = Instant::now() + LIMIT;
        let mut ended = None;
        let mut posted = false;
        while ended.is_none() {
            assert!(Instant::now() < until, "no end (posted: {posted})");
            if !posted {
                let took = self.origin.post(verb, local, within, remote, name(77));
                posted = took.expect("a transfer is taken") == Posted::Taken;
            }
            self.origin.completions(|done| ended = Some(done));
            self.target
                .completions(|done| panic!("{done:?} at the target"));
        }
        ended.expect("it has ended")
    }
}

#[test]
fn bytes_travel_both_ways() {
    let Some(library) = library("bytes_travel_both_ways") else {
        return;
    };
    let pair = Pair::open(&library);
    let (major, minor) = library.version();
    println!("libfabric {major}.{minor}: {}", pair.origin.provider());
    let (here, there) = (memory(1 << 20), memory(1 << 20));
    let local = Registration::new(&pair.origin, &here).expect("registered");
    let exposed = Registration::new(&pair.target, &there).expect("registered");
    for (turn, len) in [1usize, 8, 4095, 65536, 1 << 20].into_iter().enumerate() {
        let remote = Remote {
            peer: pair.peer,
            address: exposed.base(),
            key: exposed.key(),
        };
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + turn) as u8).collect();
        here.write(0, &bytes).expect("inside");
        let part = here.slice(0, len).expect("inside");
        let done = pair.transfer(Verb::Write, &part, &local, remote);
        assert_eq!((done.name, done.failure), (name(77), None));
        let mut seen = vec![0; len];
        there.read(0, &mut seen).expect("inside");
        assert_eq!(seen, bytes, "{len} bytes written");
        here.fill(0, len, 0).expect("inside");
        let done = pair.transfer(Verb::Read, &part, &local, remote);
        assert_eq!(done.failure, None);
        here.read(0, &mut seen).expect("inside");
        assert_eq!(seen, bytes, "{len} bytes read");
    }
    assert_eq!(pair.origin.outstanding(), 0);
}

#[test]
fn a_provider_that_is_not_there_is_told_with_those_that_are() {
    let Some(library) = library("a_provider_that_is_not_there_is_told_with_those_that_are") else {
        return;
    };
    let error = Endpoint::open(&library, Some("carrier-pigeon"), LOCAL).expect_err("there is none");
    let text = error.to_string();
    let Error::Provider { name, there } = error else {
        panic!("{text}");
    };
    assert_eq!(name, "carrier-pigeon");
    assert!(there.iter().any(|name| name.starts_with("tcp")), "{text}");
}

/// A key that was withdrawn, or never given, moves no byte and is an error; transfers after it go well again.
#[test]
fn a_wrong_key_is_refused_and_later_transfers_go_well() {
    let Some(library) = library("a_wrong_key_is_refused_and_later_transfers_go_well") else {
        return;
    };
    let pair = Pair::open(&library);
    let (here, there) = (memory(4096), memory(4096));
    let local = Registration::new(&pair.origin, &here).expect("registered");
    let exposed = Registration::new(&pair.target, &there).expect("registered");
    let remote = |key, address| Remote {
        peer: pair.peer,
        address,
        key,
    };
    let right = remote(exposed.key(), exposed.base());
    let wrong = [
        remote(exposed.key() ^ 1, exposed.base()),
        remote(exposed.key(), exposed.base() + 4095),
        remote(exposed.key(), exposed.base().wrapping_sub(1)),
    ];
    here.fill(0, 8, 7).expect("inside");
    let part = here.slice(0, 8).expect("inside");
    for verb in [Verb::Write, Verb::Read] {
        for wrong in wrong {
            let done = pair.transfer(verb, &part, &local, wrong);
            assert!(done.failure.is_some(), "{verb:?} {wrong:?} was executed");
            assert!(
                (0..4096).all(|at| byte(&there, at) == 0),
                "a byte was written"
            );
            assert!((0..8).all(|at| byte(&here, at) == 7), "a byte was read");
        }
        // The connection that was cut off for it may still be going down.
        let until = Instant::now() + LIMIT;
        while let Some(failure) = pair.transfer(verb, &part, &local, right).failure {
            assert!(failure.is_gone() && Instant::now() < until, "{failure}");
        }
        there.fill(0, 8, 0).expect("inside");
        here.fill(0, 8, 7).expect("inside");
    }
    drop(exposed);
    let done = pair.transfer(Verb::Write, &part, &local, right);
    assert!(done.failure.is_some(), "the memory was withdrawn");
    assert_eq!(byte(&there, 0), 0);
}

fn byte(bytes: &SharedBytes, at: usize) -> u8 {
    let mut one = [0];
    bytes.read(at, &mut one).expect("inside");
    one[0]
}

/// Everything on its way to an endpoint that goes ends with an error.
#[test]
fn a_lost_peer_ends_every_transfer() {
    let Some(library) = library("a_lost_peer_ends_every_transfer") else {
        return;
    };
    let Pair {
        origin,
        target,
        peer,
    } = Pair::open(&library);
    let (here, there) = (memory(1 << 20), memory(1 << 20));
    let local = Registration::new(&origin, &here).expect("registered");
    let exposed = Registration::new(&target, &there).expect("registered");
    let remote = Remote {
        peer,
        address: exposed.base(),
        key: exposed.key(),
    };
    let until = Instant::now() + LIMIT;
    let mut ended = Vec::new();
    let mut posted = 0;
    while posted < 20 {
        assert!(
            Instant::now() < until,
            "{posted} posted, {} ended",
            ended.len()
        );
        let verb = if posted % 2 == 0 {
            Verb::Write
        } else {
            Verb::Read
        };
        let took = origin.post(verb, &here, &local, remote, name(posted));
        if took.expect("no error yet") == Posted::Taken {
            posted += 1;
        }
        origin.completions(|done| ended.push(done));
        if posted == 0 {
            target.completions(|_| {});
        }
    }
    drop(exposed);
    assert!(Arc::into_inner(target).is_some(), "the last holder");
    while ended.len() < 20 {
        assert!(Instant::now() < until, "only {} have ended", ended.len());
        origin.completions(|done| ended.push(done));
    }
    let failed = ended.iter().filter_map(|done| done.failure.as_ref());
    assert!(failed.clone().count() > 0, "nothing failed");
    for failure in failed {
        assert!(failure.is_gone() && !failure.is_access(), "{failure:?}");
    }
}
