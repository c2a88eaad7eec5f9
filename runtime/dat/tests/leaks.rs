//! Descriptors of connections that are over. Alone in its program: it counts those of the process.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::*;
use windlass_dat::*;

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let pair = Pair::new();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut counts = Vec::new();
    for round in 0..60 {
        let (ep, peer) = pair.connect();
        let mut half_open = TcpStream::connect(pair.b.ia.local_addr()).unwrap();
        half_open.write_all(b"WNDLSS").unwrap();
        pair.step();
        match round % 3 {
            0 => drop(ep),
            1 => ep.disconnect(CloseFlags::Graceful).unwrap(),
            _ => drop(peer),
        }
        drop(half_open);
        // Until every socket is closed on both sides.
        let quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(5) {
            pair.step();
        }
        while pair.a.evd.dequeue().is_some() || pair.b.evd.dequeue().is_some() {}
        counts.push(open());
    }
    assert!(
        counts[40..].iter().max() <= counts[..20].iter().max(),
        "{counts:?}"
    );
}
