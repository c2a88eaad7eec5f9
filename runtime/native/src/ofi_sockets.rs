//! The sockets of providers over TCP: they notice that a line is cut in seconds, as ours do, not after the quarter of an hour that
//! the kernel tries by itself.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::time::Duration;

/// A quiet connection is asked after so many seconds, and then every so many, whether its other end is there.
const ASK_AFTER_S: c_int = 2;
const ASK_EVERY_S: c_int = 1;

/// Limits how long connections from or to these ports, where endpoints of libfabric listen, may go without an answer. How many
/// there are. No other socket of the process is changed.
pub fn limit_silence(ports: &[u16], limit: Duration) -> usize {
    let limit_ms = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX);
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return 0;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let ours = |fd: &RawFd| {
        let ends = [port(*fd, libc::getsockname), port(*fd, libc::getpeername)];
        let both = ends[1].is_some(); // a listener has no other end
        both && ends.iter().flatten().any(|port| ports.contains(port))
    };
    let limited = numbers.filter(ours).filter(|&fd| {
        option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
            && option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, ASK_AFTER_S)
            && option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, ASK_EVERY_S)
            && option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, limit_ms)
    });
    limited.count()
}

type Name = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int;

/// The port of one end of a TCP socket.
fn port(fd: RawFd, name: Name) -> Option<u16> {
    // SAFETY: numbers: all zeroes is a value.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: a place for an address and its size; a descriptor that is no socket, or closed meanwhile, is an error.
    let code = unsafe { name(fd, (&raw mut address).cast(), &raw mut len) };
    let family = c_int::from(address.sin6_family);
    // The port is in the same place in both forms.
    let is_ip = family == libc::AF_INET || family == libc::AF_INET6;
    (code == 0 && is_ip).then(|| u16::from_be(address.sin6_port))
}

fn option(fd: RawFd, level: c_int, name: c_int, value: c_int) -> bool {
    let value: *const c_int = &raw const value;
    let len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: a number of that size; a descriptor that does not take it answers with an error.
    unsafe { libc::setsockopt(fd, level, name, value.cast::<c_void>(), len) == 0 }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    fn limit_of(socket: &TcpStream) -> c_int {
        let (mut value, mut len) = (0, size_of::<c_int>() as libc::socklen_t);
        let place: *mut c_int = &raw mut value;
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
        // SAFETY: a place for a number of that size.
        let code = unsafe {
            libc::getsockopt(socket.as_raw_fd(), level, name, place.cast(), &raw mut len)
        };
        assert_eq!(code, 0);
        value
    }

    #[test]
    fn only_connections_of_these_ports_are_limited() {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (ours, other) = (listen(), listen());
        let pair = |to: &TcpListener| {
            let here = TcpStream::connect(to.local_addr().expect("bound")).expect("connected");
            [here, to.accept().expect("accepted").0]
        };
        let (mine, foreign) = (pair(&ours), pair(&other));
        let port = ours.local_addr().expect("bound").port();
        assert_eq!(limit_silence(&[port], Duration::from_secs(5)), 2);
        assert_eq!(mine.each_ref().map(limit_of), [5000; 2]);
        assert_eq!(foreign.each_ref().map(limit_of), [0; 2]);
    }
}
