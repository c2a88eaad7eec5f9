//! A peer, and whether it is still there: the library says only that it takes nothing now.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use windlass_native::ofi::{PeerId, limit_silence};

use crate::mechanism::Fault;

/// A peer that takes nothing for so long, with nothing on its way to it, is gone: it has never taken anything, ...
const CONNECT: Duration = Duration::from_secs(30);

/// ... or its connection has ended before. One that was only cut off for a wrong key makes another at once.
const RECONNECT: Duration = Duration::from_secs(3);

/// How long the line to it may be silent while something is on its way.
const LINE: Duration = Duration::from_secs(5);

/// One that listens at an address of TCP is asked at once when its connection has ended, else after so long, ...
const PROBE: Duration = Duration::from_millis(200);

/// ... and asked again after so long.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// Nothing was posted to it yet.
const NEVER: u64 = u64::MAX;

/// A peer.
pub(super) struct Party {
    pub(super) id: PeerId,
    /// Where it listens, for providers over TCP.
    listens: Option<SocketAddr>,
    /// Transfers that have not ended.
    under_way: AtomicUsize,
    /// Its last transfer has failed.
    failed: AtomicBool,
    /// It takes nothing, and nothing listens there.
    gone: AtomicBool,
    /// Since when it takes nothing, in nanoseconds since the engine began; 0: it does; or [`NEVER`].
    silent_ns: AtomicU64,
    /// When it is asked next.
    probe_ns: AtomicU64,
}

impl Party {
    /// The peer of that address.
    pub(super) fn new(id: PeerId, address: &[u8]) -> Party {
        Party {
            id,
            listens: listens(address),
            under_way: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            silent_ns: AtomicU64::new(NEVER),
            probe_ns: AtomicU64::new(0),
        }
    }

    /// A transfer is about to be posted.
    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// It was taken by the endpoint that listens at `here`.
    pub(super) fn took(&self, here: &[u8]) {
        // After the first, and after a silence, there is a new connection.
        if self.silent_ns.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        self.gone.store(false, Ordering::Relaxed);
        let both = [self.listens, listens(here)];
        let ports: Vec<u16> = both.iter().flatten().map(SocketAddr::port).collect();
        if !ports.is_empty() {
            limit_silence(&ports, LINE);
        }
    }

    /// It was not.
    pub(super) fn withdraw(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub(super) fn ended(&self, well: bool) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.failed.store(!well, Ordering::Relaxed);
    }

    /// The peer has taken no transfer at `now_ns`. An error when it is gone.
    pub(super) fn refuses(&self, now_ns: u64) -> Result<(), Fault> {
        if self.under_way.load(Ordering::Relaxed) > 0 {
            return Ok(()); // full; an end comes
        }
        let since = match self.silent_ns.load(Ordering::Relaxed) {
            0 | NEVER => {
                self.silent_ns.store(now_ns.max(1), Ordering::Relaxed);
                now_ns
            }
            since => since,
        };
        let silent = Duration::from_nanos(now_ns.saturating_sub(since));
        let failed = self.failed.load(Ordering::Relaxed);
        let ask = failed || silent >= PROBE;
        if self.gone.load(Ordering::Relaxed) || (ask && self.is_refused(now_ns)) {
            return Err(Fault::Gone("nothing listens at its address".into()));
        }
        let limit = if failed { RECONNECT } else { CONNECT };
        if silent < limit {
            return Ok(());
        }
        let text = format!("it takes no connection for {} s", limit.as_secs());
        Err(Fault::Gone(text))
    }

    /// Asks whether anybody listens there.
    fn is_refused(&self, now_ns: u64) -> bool {
        let Some(address) = &self.listens else {
            return false;
        };
        let next = now_ns.saturating_add(PROBE_EVERY.as_nanos() as u64);
        let due = |at: u64| (at <= now_ns).then_some(next);
        let asked = self
            .probe_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due);
        if asked.is_err() {
            return false;
        }
        let refused = TcpStream::connect_timeout(address, PROBE)
            .is_err_and(|why| why.kind() == ErrorKind::ConnectionRefused);
        self.gone.fetch_or(refused, Ordering::Relaxed) || refused
    }
}

/// An address in the form of `struct sockaddr_in` or `sockaddr_in6`.
fn listens(address: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = address.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        AF_INET => {
            let (ip, _) = rest.split_first_chunk::<4>()?;
            Some((Ipv4Addr::from(*ip), port).into())
        }
        AF_INET6 => {
            let (_flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, _) = rest.split_first_chunk::<16>()?;
            Some((Ipv6Addr::from(*ip), port).into())
        }
        _ => None,
    }
}

const AF_INET: i32 = rustix::net::AddressFamily::INET.as_raw() as i32;
const AF_INET6: i32 = rustix::net::AddressFamily::INET6.as_raw() as i32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_tcp_are_read_and_others_are_not() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(listens(&v4), "127.0.0.1:8080".parse().ok());
        let mut v6 = [0; 28];
        v6[..4].copy_from_slice(&[10, 0, 0, 80]);
        v6[23] = 1;
        assert_eq!(listens(&v6), "[::1]:80".parse().ok());
        for other in [&v4[..7], &[], &[9; 16], &v6[..20]] {
            assert_eq!(listens(other), None);
        }
    }
}
