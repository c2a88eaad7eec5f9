//! One Unix connection: frames with files, in both directions.
//!
//! Files travel with the first byte of their frame (`SCM_RIGHTS`). What came is counted against
//! what the frame says, so a file never lands at another message, and a peer cannot fill this
//! process with files it never names.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_wire::{Frames, frame};

use crate::error::{Error, Malformed};
use crate::wire::{self, MAX_FILES, MAX_MESSAGE};

/// When a receive gives up.
#[derive(Clone, Copy, Default)]
pub(crate) struct Until<'a> {
    /// Not after this.
    pub(crate) deadline: Option<Instant>,
    /// Not once this process descriptor says that the peer is dead and nothing is left to read.
    pub(crate) process: Option<BorrowedFd<'a>>,
}

/// A connection with its half-read input.
pub(crate) struct Channel {
    socket: Arc<UnixStream>,
    frames: Frames,
    files: VecDeque<OwnedFd>,
    /// The kernel dropped files that were on their way: this process has none to spare.
    dropped: bool,
}

impl Channel {
    pub(crate) fn new(socket: Arc<UnixStream>) -> Self {
        Self {
            socket,
            frames: Frames::new(MAX_MESSAGE),
            files: VecDeque::new(),
            dropped: false,
        }
    }

    /// The connection itself, for who may have to end it.
    pub(crate) fn socket(&self) -> Arc<UnixStream> {
        Arc::clone(&self.socket)
    }

    /// Sends one message; the files stay the caller's.
    pub(crate) fn send<T: Serialize>(
        &self,
        message: &T,
        files: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        self.send_body(&wire::encode(message, files.len())?, files)
    }

    /// Sends one body already encoded.
    pub(crate) fn send_body(&self, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let bytes = frame(body);
        let mut sent = 0;
        if !files.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(Error::TooLong {
                    what: "a list of files",
                    len: files.len(),
                    max: MAX_FILES,
                });
            }
            sent = again(|| {
                let whole = [IoSlice::new(&bytes)];
                sendmsg(&self.socket, &whole, &mut ancillary, SendFlags::NOSIGNAL)
            })
            .map_err(|errno| gone_or("sendmsg", errno))?;
        }
        while sent < bytes.len() {
            sent += again(|| send(&self.socket, &bytes[sent..], SendFlags::NOSIGNAL))
                .map_err(|errno| gone_or("send", errno))?;
        }
        Ok(())
    }

    /// Waits for one message. Fewer files than it names come back only where the kernel had to
    /// drop them; that is the receiver's lack, not the sender's fault.
    pub(crate) fn receive<T: DeserializeOwned>(
        &mut self,
        until: Until<'_>,
    ) -> Result<(T, Vec<OwnedFd>), Error> {
        let body = self.receive_body(until)?;
        let (expected, message) = wire::decode(&body)?;
        let got = self.files.len();
        let lost = std::mem::take(&mut self.dropped);
        // More than it names may belong to a message behind it, never to nothing.
        if (got < expected && !lost) || (got > expected && self.frames.pending() == 0) {
            return Err(Malformed::Files { expected, got }.into());
        }
        Ok((message, self.files.drain(..expected.min(got)).collect()))
    }

    /// Waits for one frame and gives its body, at least one byte.
    pub(crate) fn receive_body(&mut self, until: Until<'_>) -> Result<Vec<u8>, Error> {
        loop {
            let next = self
                .frames
                .next()
                .map_err(|e| Malformed::Frame(e.to_string()))?;
            if let Some(body) = next {
                return Ok(body);
            }
            self.wait(until)?;
            self.fill()?;
        }
    }

    fn wait(&self, until: Until<'_>) -> Result<(), Error> {
        if until.deadline.is_none() && until.process.is_none() {
            return Ok(()); // the read itself waits
        }
        loop {
            let left = match until.deadline {
                None => None,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Error::Late);
                    }
                    Some(timespec(left))
                }
            };
            let socket = PollFd::new(&*self.socket, PollFlags::IN);
            // Without a process the second place is the socket again, which changes nothing.
            let process = match &until.process {
                Some(process) => PollFd::new(process, PollFlags::IN),
                None => socket.clone(),
            };
            let mut fds = [socket, process];
            match poll(&mut fds, left.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::system("poll", errno)),
            }
            // The socket first: what a process said before it died is still heard.
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            if !fds[1].revents().is_empty() {
                return Err(Error::Gone);
            }
        }
    }

    /// Reads once what is there.
    fn fill(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = again(|| {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            recvmsg(
                &self.socket,
                &mut parts,
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })
        .map_err(|errno| gone_or("recvmsg", errno))?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        self.dropped |= got.flags.contains(ReturnFlags::CTRUNC);
        if self.files.len() > MAX_FILES {
            return Err(Malformed::Files {
                expected: MAX_FILES,
                got: self.files.len(),
            }
            .into());
        }
        if got.bytes == 0 {
            return Err(Error::Gone);
        }
        self.frames.push(&buffer[..got.bytes]);
        Ok(())
    }
}

pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// Repeats a call that a signal interrupted.
pub(crate) fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn gone_or(call: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Error::Gone,
        errno => Error::system(call, errno),
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
