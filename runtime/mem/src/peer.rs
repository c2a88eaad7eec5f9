//! Who is at the other end of a Unix socket, by the kernel's word (SO_PEERCRED of unix(7)).
//!
//! Here and not through `rustix`, whose type for a pid cannot hold the 0 by which the kernel says "a process that
//! your PID namespace cannot name": reading it there is undefined.

use std::os::fd::{AsFd, AsRawFd};

use crate::error::{Error, Result};

/// A process as its socket's credentials name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process id at the time of connect or listen; 0 where this PID namespace cannot name it.
    pub pid: i32,
    /// Effective user id at that time.
    pub uid: u32,
    /// Effective group id at that time.
    pub gid: u32,
}

/// The credentials of a connected Unix socket's peer.
pub fn credentials(socket: impl AsFd) -> Result<Credentials> {
    let mut found = libc::ucred {
        pid: 0,
        uid: libc::uid_t::MAX,
        gid: libc::gid_t::MAX,
    };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `found`; every bit pattern is a value of its
    // integers; both pointers are exclusive to this call, and the descriptor is borrowed for its time.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        )
    };
    if failed != 0 {
        return Err(Error::last("getsockopt(SO_PEERCRED)"));
    }
    Ok(Credentials {
        pid: found.pid,
        uid: found.uid,
        gid: found.gid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    #[cfg_attr(miri, ignore = "no sockets there")]
    fn a_pair_names_this_process() {
        let (near, _far) = UnixStream::pair().unwrap();
        let found = credentials(&near).unwrap();
        assert_eq!(found.pid, std::process::id() as i32);
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        assert_eq!(found.gid, rustix::process::getegid().as_raw());
        assert!(credentials(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
