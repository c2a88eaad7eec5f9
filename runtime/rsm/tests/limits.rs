//! What an importer without descriptors or addresses is answered (rsm 6.1, 6.3, 7.3). Alone in its process, whose limits it changes,
//! one test at a time.

mod support;

use support::Pair;
use windlass_rsm::Code;

static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Rows 15 and the same of a mapping that transfers make by themselves.
#[test]
fn addresses_that_are_used_up_are_a_length() {
    use rustix::process::Resource;
    let _alone = ALONE.lock();
    let pages = (1 << 30) / support::page();
    let pair = Pair::new(pages);
    pair.import.set_mode(0).unwrap();
    let none = Limit::new(Resource::As, 1 << 20);
    let mapped = pair.map(0, pages * support::page());
    let got = pair.import.get(0, &mut [0; 8], 8);
    drop(none);
    assert_eq!(mapped, Err(Code::BadLength));
    assert_eq!(got, Err(Code::BadLength));
    pair.map(0, 1).unwrap();
}

#[test]
fn memory_that_cannot_be_followed_fails_the_barrier() {
    let _alone = ALONE.lock();
    let pair = Pair::new(1);
    let barrier = pair.barrier();
    pair.import.get(0, &mut [0; 8], 8).unwrap();
    barrier.open().unwrap();
    pair.export.rebind(support::memory(1).1).unwrap();
    // The importer cannot ask where the memory is: every transfer says so in its mode's way.
    let no_files = Limit::new(rustix::process::Resource::Nofile, 3);
    assert_eq!(
        pair.import.get(0, &mut [0; 8], 8),
        Err(Code::BarrierOpenFailed)
    );
    pair.import.set_mode(0).unwrap();
    pair.import.get(0, &mut [0; 8], 8).unwrap();
    assert_eq!(barrier.order(), Err(Code::BarrierFailure));
    assert_eq!(barrier.close(), Err(Code::BarrierFailure));
    assert_eq!(barrier.open(), Err(Code::BarrierOpenFailed));
    drop(no_files);
    barrier.open().unwrap();
    pair.import.get(0, &mut [0; 8], 8).unwrap();
    barrier.close().unwrap();
}

/// So much of a resource can be had, until this is dropped.
struct Limit(rustix::process::Resource, rustix::process::Rlimit);

impl Limit {
    fn new(resource: rustix::process::Resource, most: u64) -> Self {
        use rustix::process::{Rlimit, getrlimit, setrlimit};
        let before = getrlimit(resource);
        let less = Rlimit {
            current: Some(most),
            maximum: before.maximum,
        };
        setrlimit(resource, less).unwrap();
        Self(resource, before)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        use rustix::process::{Rlimit, setrlimit};
        let Rlimit { current, maximum } = self.1;
        setrlimit(self.0, Rlimit { current, maximum }).unwrap();
    }
}
