//! libfabric over its tcp provider: two endpoints of one process, on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_mem::SharedBytes;
use windlass_native::ofi::{
    Done, Endpoint, Error, Library, PeerId, Registration, Remote, SONAME, Verb,
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long anything may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(20);

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
                let took = self.origin.post(verb, local, within, remote, 77);
                posted = took.expect("a transfer is taken");
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
    println!("version {:?}", library.version());
    let pair = Pair::open(&library);
    println!(
        "{:?} {:?} {:?}",
        pair.origin,
        pair.origin.address(),
        pair.origin.protocol()
    );
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
        assert_eq!((done.ticket, done.failure), (77, None));
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
