//! One context's way to its VE process: a request and its answer, and transfers of memory.
//!
//! Memory is copied by the kernel from process to process. Where it forbids that (EPERM, ENOSYS) the bytes go through
//! the socket, in pieces.
#![allow(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno as Kernel;
use rustix::net::{SendFlags, Shutdown};
use windlass_mem::cross::Process;
use windlass_wire::{frame, read_frame};

use crate::args::Call;
use crate::edge::{EBUSY, Errno, Result};
use crate::life::Life;
use crate::protocol::{CHUNK, FRAME_LIMIT, Reply, Request};

/// Memory of the caller. It may be used by another thread than the one that named it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(pub(crate) *mut u8);

// SAFETY: the contracts of veo_async_read_mem, veo_async_write_mem and veo_args_set_stack: the memory stays valid, and
// is left alone, until the result of the request was picked up, whichever thread works on it.
unsafe impl Send for Place {}

/// The memory of a VE process, as seen from here.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) process: Process,
    pub(crate) life: Arc<Life>,
    /// The kernel refused once: it always will.
    socket: AtomicBool,
    /// Some context found it dead. The kernel closes the sockets of a process before it says that it ended.
    lost: AtomicBool,
}

impl Reach {
    pub(crate) fn new(process: Process, life: Arc<Life>) -> Self {
        Self {
            process,
            life,
            socket: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        }
    }

    /// Whether a request may still be answered.
    pub(crate) fn lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// What every failure of a socket means.
    fn lose(&self) -> Errno {
        if !self.lost.swap(true, Ordering::Relaxed) {
            self.life.tell();
        }
        EBUSY
    }

    /// What a failed copy means; `None` when the socket is the way.
    fn judge(&self, error: windlass_mem::Error) -> Option<Errno> {
        match error.errno() {
            Some(Kernel::PERM | Kernel::NOSYS | Kernel::ACCESS) => {
                self.socket.store(true, Ordering::Relaxed);
                None
            }
            Some(errno) => Some(Errno(errno.raw_os_error())),
            None => Some(self.lose()),
        }
    }
}

/// The socket and the memory.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Mutex<UnixStream>,
    /// The same socket, for `close` while somebody waits for an answer.
    closer: UnixStream,
    reach: Arc<Reach>,
}

impl Link {
    pub(crate) fn new(socket: UnixStream, reach: Arc<Reach>) -> std::io::Result<Self> {
        Ok(Self {
            closer: socket.try_clone()?,
            socket: Mutex::new(socket),
            reach,
        })
    }

    /// Whether the VE process still runs.
    pub(crate) fn alive(&self) -> bool {
        !self.lost() && self.reach.process.alive()
    }

    /// Whether it was found dead.
    pub(crate) fn lost(&self) -> bool {
        self.reach.lost()
    }

    /// As [`exchange`](Self::exchange), for a call of a function.
    pub(crate) fn call(&self, call: &Call) -> Result<Reply> {
        self.reach.life.enter(call.function, &call.tagged);
        let reply = self.exchange(&call.message);
        // Of one that has not returned the end of its process says what it was.
        if reply.is_ok() {
            self.reach.life.leave(call.function);
        }
        reply
    }

    /// Sends a request, waits for its answer.
    ///
    /// # Errors
    /// EBUSY: the VE process is gone, or the context closed. A refusal of the VE process is an answer.
    pub(crate) fn exchange(&self, message: &[u8]) -> Result<Reply> {
        self.converse(message).ok_or_else(|| self.reach.lose())
    }

    fn converse(&self, message: &[u8]) -> Option<Reply> {
        let mut socket = self.socket.lock();
        let whole = frame(message);
        let mut sent = 0;
        while sent < whole.len() {
            match rustix::net::send(&*socket, &whole[sent..], SendFlags::NOSIGNAL) {
                Ok(more) => sent += more,
                Err(Kernel::INTR) => {}
                Err(_) => return None,
            }
        }
        let frame = read_frame(&mut *socket, FRAME_LIMIT).ok()??;
        Reply::decode(&frame).ok()
    }

    /// As [`exchange`](Self::exchange), where a refusal is an error.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Result<Reply> {
        let reply = self.exchange(&request.encode())?;
        match reply.errno {
            0 => Ok(reply),
            errno => Err(Errno(errno)),
        }
    }

    /// Copies `len` bytes at `from` to address `to` of the VE process.
    ///
    /// # Errors
    /// EFAULT where one of the two is no memory; EBUSY when the process is gone.
    ///
    /// # Safety
    /// `from` is readable for `len` bytes, and nobody writes there meanwhile.
    pub(crate) unsafe fn write(&self, to: u64, from: Place, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise; not null, or the kernel answers EFAULT below for what no slice can be.
        let data = unsafe { slice(from, len) }?;
        if !self.reach.socket.load(Ordering::Relaxed) {
            match self.reach.process.write(to, data) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if let Some(errno) = self.reach.judge(error) {
                        return Err(errno);
                    }
                }
            }
        }
        for (index, data) in data.chunks(CHUNK).enumerate() {
            let address = to.wrapping_add((index * CHUNK) as u64);
            self.ask(&Request::Write { address, data })?;
        }
        Ok(())
    }

    /// Copies `len` bytes at address `from` of the VE process to `to`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Safety
    /// `to` is writable for `len` bytes, and nobody uses it meanwhile.
    pub(crate) unsafe fn read(&self, to: Place, from: u64, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        // SAFETY: as in `write`.
        let data = unsafe { slice_mut(to, len) }?;
        if !self.reach.socket.load(Ordering::Relaxed) {
            match self.reach.process.read(from, data) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if let Some(errno) = self.reach.judge(error) {
                        return Err(errno);
                    }
                }
            }
        }
        for (index, data) in data.chunks_mut(CHUNK).enumerate() {
            let address = from.wrapping_add((index * CHUNK) as u64);
            let bytes = data.len() as u32;
            let reply = self.ask(&Request::Read { address, bytes })?;
            if reply.bytes.len() != data.len() {
                return Err(self.reach.lose());
            }
            data.copy_from_slice(&reply.bytes);
        }
        Ok(())
    }

    /// Ends the context's thread in the VE process, and whoever waits for an answer of it.
    pub(crate) fn close(&self) {
        let _ = rustix::net::shutdown(&self.closer, Shutdown::Both);
    }
}

/// Whether a slice may begin there and be so long.
fn possible(start: *const u8, len: usize) -> Result<()> {
    let end = (start as usize).checked_add(len);
    match end {
        Some(_) if !start.is_null() && isize::try_from(len).is_ok() => Ok(()),
        _ => Err(Errno(libc::EFAULT)),
    }
}

/// # Safety
/// Readable for `len` bytes if not null, and left alone.
unsafe fn slice<'a>(start: Place, len: usize) -> Result<&'a [u8]> {
    possible(start.0, len)?;
    // SAFETY: not null, no wrap, below isize::MAX; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(start.0, len) })
}

/// # Safety
/// Writable for `len` bytes if not null, and nobody else's meanwhile.
unsafe fn slice_mut<'a>(start: Place, len: usize) -> Result<&'a mut [u8]> {
    possible(start.0, len)?;
    // SAFETY: as above. It may be uninitialised memory of C, which is bytes of some value: a C compiler's memory is never
    // "undefined" to the kernel's stores, and nothing here reads it.
    Ok(unsafe { std::slice::from_raw_parts_mut(start.0, len) })
}
