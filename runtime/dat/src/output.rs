//! Bytes on their way out of one connection.
//!
//! The output always ends at a frame, so that a fault or a farewell can follow at any time.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use windlass_mem::SharedBytes;

use crate::wire::{HEADER, Header};

/// Smallest buffer.
const OUT_MIN: usize = 4 * 1024;

/// Bytes on their way out.
pub(crate) struct Output {
    buffer: Vec<u8>,
    head: usize,
    tail: usize,
}

impl Output {
    pub(crate) const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            head: 0,
            tail: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tail - self.head
    }

    /// The next `len` bytes of the buffer, to be filled by the caller.
    #[inline]
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        if self.buffer.len() - self.tail < len {
            self.make_room(len);
        }
        self.tail += len;
        &mut self.buffer[self.tail - len..self.tail]
    }

    #[cold]
    fn make_room(&mut self, len: usize) {
        self.buffer.copy_within(self.head..self.tail, 0);
        self.tail -= self.head;
        self.head = 0;
        if self.buffer.len() - self.tail < len {
            let size = (self.tail + len).next_power_of_two().max(OUT_MIN);
            self.buffer.resize(size, 0);
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len()).copy_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn frame(&mut self, header: &Header, payload: usize) -> &mut [u8] {
        let frame = self.reserve(HEADER + payload);
        if let Some((head, payload)) = frame.split_first_chunk_mut::<HEADER>() {
            header.encode(head);
            payload
        } else {
            &mut []
        }
    }

    /// Takes back the last frame.
    pub(crate) fn unframe(&mut self, payload: usize) {
        self.tail -= HEADER + payload;
    }

    /// Writes what is there; true when all of it went.
    #[inline]
    pub(crate) fn write(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        while self.head < self.tail {
            let bytes = &self.buffer[self.head..self.tail];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(socket, bytes, flags) {
                Ok(sent) => self.head += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.head = 0;
        self.tail = 0;
        Ok(true)
    }

    /// Sends a frame with the caller's bytes; what the socket does not take is copied. The output must be empty. A
    /// failed transport is told by the next write.
    pub(crate) fn send_bytes(&mut self, socket: &OwnedFd, header: &Header, bytes: &[u8]) {
        let mut head = [0; HEADER];
        header.encode(&mut head);
        let parts = [IoSlice::new(&head), IoSlice::new(bytes)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut no_files = SendAncillaryBuffer::default();
        let sent = rustix::net::sendmsg(socket, &parts, &mut no_files, flags).unwrap_or(0);
        self.push(&head[sent.min(HEADER)..]);
        self.push(&bytes[sent.saturating_sub(HEADER)..]);
    }

    /// Sends a frame whose payload is registered memory from where that is; what the socket does not take is
    /// copied, so that the output still ends at a frame. The output must be empty. False: the socket is full.
    pub(crate) fn send_frame(
        &mut self,
        socket: &OwnedFd,
        header: &Header,
        bytes: &SharedBytes,
        (offset, len): (usize, usize),
    ) -> Result<bool, NotSent> {
        let mut head = [0; HEADER];
        header.encode(&mut head);
        let sent = match bytes.send(socket, &head, offset, len) {
            Ok(sent) => sent,
            Err(error) => match error.errno() {
                Some(Errno::AGAIN) => 0,
                Some(errno) => return Err(NotSent::Io(errno)),
                None => return Err(NotSent::Lost),
            },
        };
        if sent == HEADER + len {
            return Ok(true);
        }
        let (head, skip) = (&head[sent.min(HEADER)..], sent.saturating_sub(HEADER));
        let rest = self.reserve(head.len() + len - skip);
        let (start, payload) = rest.split_at_mut(head.len());
        start.copy_from_slice(head);
        bytes
            .read(offset + skip, payload)
            .map_err(|_| NotSent::Lost)?;
        Ok(false)
    }
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotSent {
    /// The transport failed.
    Io(Errno),
    /// The memory is not there any more.
    Lost,
}
