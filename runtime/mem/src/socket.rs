//! Shared bytes to and from stream sockets, without a copy in between: the kernel reads and writes the range itself.
//!
//! Calls never block, never raise SIGPIPE, and move as much as the socket takes or has: the caller loops.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::shared::SharedBytes;

impl SharedBytes {
    /// Sends `head`, then `len` bytes from `offset`, by one call; answers how many bytes of the two together went.
    /// What others write meanwhile may or may not be in what is sent.
    ///
    /// # Errors
    /// [`Error::System`] with `EAGAIN` when the socket takes nothing now, `EPIPE` or `ECONNRESET` when the peer is gone.
    pub fn send(&self, socket: impl AsFd, head: &[u8], offset: usize, len: usize) -> Result<usize> {
        let body = self.checked_ptr(offset, len, false)?;
        let mut parts = [
            libc::iovec {
                iov_base: head.as_ptr().cast_mut().cast(),
                iov_len: head.len(),
            },
            libc::iovec {
                iov_base: body.cast(),
                iov_len: len,
            },
        ];
        // SAFETY: `msghdr` is integers and pointers; all-zero (no address, no control data) is a value of it.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        retry("sendmsg", || {
            // SAFETY: `message` and its two parts live during the call; both are only read: `head` is a slice, the
            // range was checked and stays mapped while `self` lives.
            unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) }
        })
    }

    /// Receives at most `len` bytes to `offset`; answers how many came, 0 at the end of the stream.
    ///
    /// # Errors
    /// [`Error::System`] with `EAGAIN` when nothing is there now, `ECONNRESET` when the peer is gone.
    pub fn recv(&self, socket: impl AsFd, offset: usize, len: usize) -> Result<usize> {
        let to = self.checked_ptr(offset, len, true)?;
        retry("recv", || {
            // SAFETY: `len` bytes from `to` on were checked to be mapped writable and stay so while `self` lives; the
            // kernel's stores are opaque to the compiler, as `SharedBytes` demands.
            unsafe {
                libc::recv(
                    socket.as_fd().as_raw_fd(),
                    to.cast(),
                    len,
                    libc::MSG_DONTWAIT,
                )
            }
        })
    }
}

/// How long the other end of a TCP connection has acknowledged nothing. One that answers probes only, because it reads
/// nothing, is heard of.
///
/// # Errors
/// [`Error::System`] for a socket of another kind.
pub fn silent_for(socket: impl AsFd) -> Result<Duration> {
    // SAFETY: `tcp_info` is integers; all-zero is a value of it.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes, those of `info`, which is this call's alone.
    let code = unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        libc::getsockopt(fd, level, name, (&raw mut info).cast(), &raw mut len)
    };
    if code != 0 {
        return Err(Error::last("getsockopt"));
    }
    Ok(Duration::from_millis(info.tcpi_last_ack_recv.into()))
}

/// Repeats a call that a signal interrupted.
fn retry(call: &'static str, mut attempt: impl FnMut() -> isize) -> Result<usize> {
    loop {
        if let Ok(moved) = usize::try_from(attempt()) {
            return Ok(moved);
        }
        match Error::last(call) {
            Error::System {
                errno: Errno::INTR, ..
            } => {}
            error => return Err(error),
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::lend;

    #[test]
    fn head_and_range_arrive_in_order_and_ranges_are_checked() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let (bytes, _loan) = lend((0u8..200).collect::<Vec<_>>());
        assert_eq!(bytes.send(&far, b"head", 10, 100).unwrap(), 104);
        let mut got = [0; 104];
        near.read_exact(&mut got).unwrap();
        assert_eq!(&got[..4], b"head");
        assert!(got[4..].iter().copied().eq(10..110));
        assert!(matches!(
            bytes.send(&far, b"", 150, 51),
            Err(Error::OutOfRange { .. })
        ));
        assert!(matches!(
            bytes.recv(&near, 200, 1),
            Err(Error::OutOfRange { .. })
        ));
    }

    #[test]
    fn an_empty_socket_an_end_and_a_gone_peer_are_told_apart() {
        let (near, far) = UnixStream::pair().unwrap();
        let (bytes, _loan) = lend(vec![0u8; 64]);
        assert_eq!(
            bytes.recv(&near, 0, 64).unwrap_err().errno(),
            Some(Errno::AGAIN)
        );
        assert_eq!(bytes.send(&far, &[7; 3], 0, 0).unwrap(), 3);
        assert_eq!(bytes.recv(&near, 61, 3).unwrap(), 3);
        let mut tail = [0; 4];
        bytes.read(60, &mut tail).unwrap();
        assert_eq!(tail, [0, 7, 7, 7]);
        drop(far);
        assert_eq!(bytes.recv(&near, 0, 64).unwrap(), 0);
        assert_eq!(
            bytes.send(&near, b"x", 0, 1).unwrap_err().errno(),
            Some(Errno::PIPE)
        );
    }
}
