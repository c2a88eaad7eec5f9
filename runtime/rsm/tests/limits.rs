//! What an importer without descriptors is answered (rsm 7.3). Alone in its process, whose limit it changes.

mod support;

use support::Pair;
use windlass_rsm::Code;

#[test]
fn memory_that_cannot_be_followed_fails_the_barrier() {
    let pair = Pair::new(1);
    let barrier = pair.barrier();
    pair.import.get(0, &mut [0; 8], 8).unwrap();
    barrier.open().unwrap();
    pair.export.rebind(support::memory(1).1).unwrap();
    // The importer cannot ask where the memory is: every transfer says so in its mode's way.
    let no_files = NoFiles::new();
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

/// No descriptor can be had.
struct NoFiles(rustix::process::Rlimit);

impl NoFiles {
    fn new() -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let before = getrlimit(Resource::Nofile);
        let none = Rlimit {
            current: Some(3),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, none).unwrap();
        Self(before)
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let Rlimit { current, maximum } = self.0;
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    }
}
