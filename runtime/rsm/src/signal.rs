//! A segment's queue of signals, at its receiver (rsm 7.5): a descriptor from which each event is read once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::code::Code;

/// What a queue had for one who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An event; it is the caller's now.
    Taken,
    /// Nothing at the moment.
    None,
    /// Nothing, and nothing will come: the exporter has ended the connection.
    Ended,
}

/// A queue's reading end.
#[derive(Debug)]
pub struct Signals {
    queue: OwnedFd,
    /// How often the descriptor was given out and not released.
    polls: AtomicU32,
}

impl Signals {
    pub(crate) fn new(queue: OwnedFd) -> Self {
        Self {
            queue,
            polls: AtomicU32::new(0),
        }
    }

    /// Takes one event if there is any.
    pub fn take(&self) -> Event {
        let mut byte = [0; 1];
        loop {
            return match rustix::io::read(&self.queue, &mut byte) {
                Ok(0) => Event::Ended,
                Ok(_) => Event::Taken,
                Err(Errno::INTR) => continue,
                Err(_) => Event::None,
            };
        }
    }

    /// Takes one event, waiting for it up to a time; `None`: without limit.
    ///
    /// # Errors
    /// [`Code::ConnAborted`], [`Code::Timeout`], [`Code::Interrupted`], [`Code::InsufficientResources`].
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<(), Code> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            match self.take() {
                Event::Taken => return Ok(()),
                Event::Ended => return Err(Code::ConnAborted),
                Event::None => {}
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Code::Timeout);
            }
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            let mut fds = [PollFd::new(&self.queue, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => return Err(Code::Interrupted),
                Err(_) => return Err(Code::InsufficientResources),
            }
        }
    }

    /// Gives the descriptor out: readable with an event, and with POLLHUP when the connection has ended.
    pub(crate) fn acquire(&self) -> BorrowedFd<'_> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        self.queue.as_fd()
    }

    /// Takes it back; nothing the time after the last.
    pub(crate) fn release(&self) {
        let less = |polls: u32| polls.checked_sub(1);
        let _ = self
            .polls
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    pub(crate) fn is_polled(&self) -> bool {
        self.polls.load(Ordering::SeqCst) > 0
    }

    /// Whether the descriptor is given out and has this number.
    pub fn is(&self, number: i32) -> bool {
        use std::os::fd::AsRawFd;
        self.is_polled() && self.queue.as_raw_fd() == number
    }
}
