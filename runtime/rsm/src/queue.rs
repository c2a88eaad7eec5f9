//! A queue of signals at the service (rsm 7.5): a pipe.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::code::Code;

/// Both ends; the reading one is the receiver's too. The writing one is the service's alone: when it goes, the receiver is woken.
pub(crate) struct Queue {
    pub(crate) read: Arc<OwnedFd>,
    write: OwnedFd,
}

impl Queue {
    pub(crate) fn new() -> Result<Self, Code> {
        let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (read, write) = ends.map_err(|_| Code::InsufficientResources)?;
        Ok(Self {
            read: Arc::new(read),
            write,
        })
    }

    pub(crate) fn post(&self, once: bool) {
        let mut fds = [PollFd::new(&*self.read, PollFlags::IN)];
        let now = Timespec::default();
        let pending = poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0);
        if !(once && pending) {
            // A full queue has more than anybody will count.
            let _ = rustix::io::write(&self.write, &[1]);
        }
    }
}
