//! aveorun: a VE process. `veo_proc_create` starts it; it loads libraries built with gcc in place of ncc, and calls
//! their functions.
//!
//! * [`protocol`] is what it hears.
//! * [`serve`] is one context: a thread and a socket.
//! * [`call`] enters a function of the user; [`library`] finds it.
//! * [`card`] says how much memory there is.
//! * [`memory`] is what veo_alloc_mem gives, and transfers where the kernel forbids cross-memory copy.
//! * [`sysve`] passes calls on to libsysve.so.1 (ve-memory 7.4).
//!
//! **End.** With the control socket: when the program closes it, or dies in whatever way, this process ends. It
//! also dies with its parent's thread (PR_SET_PDEATHSIG, armed by the library).
//!
//! **Trust.** Both ends belong to one user and one program; what arrives is checked for its form all the same, but an
//! address to be called or copied is the user's own business, as on a Vector Engine.
#![deny(unsafe_code)]

mod call;
#[path = "../card.rs"]
mod card;
mod library;
mod memory;
#[path = "../protocol.rs"]
mod protocol;
mod serve;
mod sysve;

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use protocol::{CONTROL_BYTES, Control};
use serve::Served;

/// What the library says on the command line.
struct Options {
    control: RawFd,
    /// Loaded before anything else, its symbols found without a library's handle (veo_proc_create_static).
    preload: Option<OsString>,
    /// The VE node is there already: this process enters it at once, or is refused.
    enter: bool,
}

fn options() -> Option<Options> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != "--control" {
        return None;
    }
    let control = words.next()?.to_str()?.parse().ok()?;
    let mut options = Options {
        control,
        preload: None,
        enter: false,
    };
    while let Some(word) = words.next() {
        match word.to_str()? {
            "--preload" => options.preload = Some(words.next()?),
            "--enter" => options.enter = true,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("aveorun: veo_proc_create starts this program; it is of no use by itself");
        return ExitCode::from(2);
    };
    let Some(control) = take(options.control) else {
        eprintln!("aveorun: descriptor {} is not open", options.control);
        return ExitCode::from(2);
    };
    let served = Arc::new(Served::default());
    if let Some(preload) = &options.preload
        && let Err(text) = served.preload(preload)
    {
        eprintln!("aveorun: {text}");
        return ExitCode::from(1);
    }
    let refused = options.enter && !served.enters();
    match attend(&control, &served, refused) {
        // exit(3) of the C library: what the user's libraries print is flushed, their destructors run.
        Ok(()) => ExitCode::SUCCESS,
        // The program is gone. Nobody waits for an orderly end, and a function may run for ever.
        Err(_) => leave(),
    }
}

/// The descriptor that the library left open for this process.
#[allow(unsafe_code)]
fn take(number: RawFd) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: `fcntl` with F_SETFD takes integers and fails for a descriptor that is not open. So it is open, nothing
    // else of this process knows it (the library opened it for us, and `main` takes it once): we own it.
    unsafe {
        (libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) == 0)
            .then(|| OwnedFd::from_raw_fd(number))
    }
}

/// Ends this process at once.
#[allow(unsafe_code)]
fn leave() -> ! {
    // SAFETY: takes an integer and does not come back.
    unsafe { libc::_exit(1) }
}

/// Serves the control socket until the program wants an end. A process that its node refused has no context.
fn attend(control: &OwnedFd, served: &Arc<Served>, refused: bool) -> Result<(), Errno> {
    loop {
        let (message, socket) = receive(control)?;
        let errno = match (Control::decode(&message), socket) {
            (Ok(Control::Exit), _) => return Ok(()),
            (Ok(Control::Open { .. }), _) if refused => libc::ENODEV,
            (Ok(Control::Open { stack }), Some(socket)) => {
                match serve::start(served, UnixStream::from(socket), stack) {
                    Ok(()) => 0,
                    Err(e) => e.raw_os_error().unwrap_or(libc::EAGAIN),
                }
            }
            (Ok(Control::Open { .. }), None) | (Err(_), _) => libc::EPROTO,
        };
        send(
            control,
            &u64::from(errno.unsigned_abs()).to_le_bytes(),
            SendFlags::NOSIGNAL,
        )?;
    }
}

/// One message of the control socket, and the descriptor that came with it.
fn receive(control: impl AsFd) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let mut bytes = [0; CONTROL_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut ancillary, len) = loop {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(
            &control,
            &mut parts,
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(received) if received.bytes == 0 => return Err(Errno::PIPE),
            Ok(received) => break (ancillary, received.bytes),
        }
    };
    let mut socket = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            socket = descriptors.last();
        }
    }
    Ok((bytes[..len].to_vec(), socket))
}
