//! One process's connection to a node service: who answers is checked, then one request and its reply at a time.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::channel::{Channel, Until};
use crate::error::{Error, Malformed};
use crate::home::own_uid;
use crate::name::Address;
use crate::wire::{self, Greeting, Reply, Request};

/// How long a service may take to greet; it answers at once unless its machine is overloaded, or it is only just being started.
const WELCOME_TIME: Duration = Duration::from_secs(20);

/// A connection. It is gone once it failed or the goodbye was said.
pub(crate) struct Line {
    channel: Mutex<Option<Channel>>,
}

impl Line {
    /// Connects and greets; gives what the service answers first.
    pub(crate) fn greet(
        address: &Address,
        greeting: Greeting,
    ) -> Result<(Self, Reply, Vec<OwnedFd>), Error> {
        let socket = connect(address)?;
        // Both ends check whom they talk to (spec reliability S2). A named node that admits every user may be anybody's.
        let service = windlass_mem::peer::credentials(&socket)?;
        let (theirs, ours) = (service.uid, own_uid());
        if theirs != ours && !address.is_open() {
            return Err(Error::Owner { theirs, ours });
        }
        if service.pid == 0 {
            return Err(Error::Namespace); // the pids of peers would mean other processes here
        }
        let mut channel = Channel::new(Arc::new(socket));
        match channel.send_body(&wire::encode_greeting(&greeting), &[]) {
            // A service that closed without listening may have said why.
            Ok(()) | Err(Error::Gone) => {}
            Err(error) => return Err(error),
        }
        let until = Until {
            deadline: Some(Instant::now() + WELCOME_TIME),
            process: None,
        };
        match channel.receive(until)? {
            (Reply::Refused(text), _) => Err(Error::Refused(text)),
            (Reply::Taken(text), _) => Err(Error::Taken(text)),
            (reply, files) => {
                let line = Self {
                    channel: Mutex::new(Some(channel)),
                };
                Ok((line, reply, files))
            }
        }
    }

    pub(crate) fn call(
        &self,
        request: &Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let mut channel = self.channel.lock();
        let result = exchange(&mut channel, request, files);
        // A waiting thread goes first: a collect would otherwise take the lock again at once.
        MutexGuard::unlock_fair(channel);
        result
    }

    /// Closes this process's copy of the connection and says nothing. Not while another thread uses it: in a fork child there is
    /// none, and a lock that one held is held for ever.
    pub(crate) fn abandon(&self) {
        if let Some(mut channel) = self.channel.try_lock() {
            *channel = None;
        }
    }

    /// Ends in good order. The connection is closed.
    pub(crate) fn goodbye(&self) -> Result<(), Error> {
        let mut channel = self.channel.lock();
        let result = exchange(&mut channel, &Request::Goodbye, &[]);
        *channel = None;
        expect_done(result?)
    }

    /// Says so, and keeps the connection for what VEOS still has to answer.
    pub(crate) fn farewell(&self) -> Result<(), Error> {
        expect_done(self.call(&Request::Goodbye, &[])?)
    }

    /// VEOS's or IVED's answer.
    pub(crate) fn ask_veos(
        &self,
        request: windlass_ve::Request,
    ) -> Result<(windlass_ve::Reply, Vec<OwnedFd>), windlass_ve::CallError> {
        use windlass_ve::CallError;
        match self.call(&Request::Ve(request), &[]) {
            Ok((Reply::Ve(Ok(reply)), files)) => Ok((reply, files)),
            Ok((Reply::Ve(Err(errno)), _)) => Err(CallError::Errno(errno)),
            Ok(_) => Err(CallError::Gone),
            Err(error) => {
                tracing::debug!(%error, "VEOS cannot be asked");
                Err(CallError::Gone)
            }
        }
    }
}

impl windlass_rsm::Control for Line {
    fn call(
        &self,
        request: windlass_rsm::Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(windlass_rsm::Reply, Vec<OwnedFd>), windlass_rsm::Gone> {
        match Line::call(self, &Request::Rsm(request), files) {
            Ok((Reply::Rsm(reply), files)) => Ok((reply, files)),
            Ok(_) => Err(windlass_rsm::Gone),
            Err(error) => {
                tracing::debug!(%error, "the node's service cannot be asked about segments");
                Err(windlass_rsm::Gone)
            }
        }
    }
}

/// A service that holds its name and does not accept must not hold its users for ever: a connect to a full queue waits.
pub(crate) fn connect(address: &Address) -> Result<UnixStream, Error> {
    let failed = |errno| Error::Path {
        call: "connect",
        path: PathBuf::from(address.to_string()),
        errno,
    };
    let at = address.socket().map_err(failed)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| Error::system("socket", errno))?;
    set_socket_timeout(&socket, Timeout::Send, Some(WELCOME_TIME)).map_err(failed)?;
    crate::channel::again(|| rustix::net::connect(&socket, &at)).map_err(failed)?;
    set_socket_timeout(&socket, Timeout::Send, None).map_err(failed)?;
    Ok(UnixStream::from(socket))
}

/// One request and its reply. A connection that failed is not used again: its next bytes could
/// belong to an earlier request.
fn exchange(
    slot: &mut Option<Channel>,
    request: &Request,
    files: &[BorrowedFd<'_>],
) -> Result<(Reply, Vec<OwnedFd>), Error> {
    // Encoded before anything is sent: a message that is too long harms nothing.
    let body = wire::encode(request, files.len())?;
    let channel = slot.as_mut().ok_or(Error::Gone)?;
    let sent = channel.send_body(&body, files);
    match sent.and_then(|()| channel.receive(Until::default())) {
        Ok((Reply::Refused(text), _)) => Err(Error::Refused(text)),
        Ok(reply) => Ok(reply),
        Err(error) => {
            *slot = None;
            Err(error)
        }
    }
}

pub(crate) fn expect_done((reply, _): (Reply, Vec<OwnedFd>)) -> Result<(), Error> {
    match reply {
        Reply::Done => Ok(()),
        _ => Err(unexpected()),
    }
}

pub(crate) fn unexpected() -> Error {
    Malformed::Unexpected("a reply").into()
}

pub(crate) fn only(mut files: Vec<OwnedFd>) -> Result<OwnedFd, Error> {
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (Some(_), more) => Err(Malformed::Files {
            expected: 1,
            got: more + 1,
        }
        .into()),
        // The channel lets this through only where the kernel could not install the file.
        (None, _) => Err(Error::NoDescriptor),
    }
}
