//! The adapter's connections as descriptors: sending, watching, closing; deadlines; the listener.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::time::{Itimerspec, TimerfdTimerFlags, timerfd_settime};

use crate::ia::{HANDSHAKE_TIME, Inner, LISTENER, STRANGERS_MAX, token};
use crate::link::{Link, OUT_FILL, Phase, tune};
use crate::model::{ConnectionKind, DtoStatus};
use crate::send::SendError;
use crate::serve::End;
use crate::slab::Id;

/// Connections taken from the listener in one step.
const ACCEPTS_PER_STEP: usize = 16;
/// How long the listener rests when the process is out of descriptors.
const LISTENER_REST: Duration = Duration::from_millis(100);

impl Inner {
    /// Encodes and writes what a link has to send.
    pub(crate) fn push_link(&mut self, id: Id) {
        self.push(id, true, false);
    }

    /// Only encodes, so that sources may be reused; a later post, push or step writes it.
    pub(crate) fn encode_link(&mut self, id: Id) {
        self.push(id, false, false);
    }

    /// Leaves it to a later post, push or step to send what a link owes.
    pub(crate) fn encode_later(&mut self, id: Id) {
        if let Some(Some(link)) = self.links.get_mut(id)
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(id);
        }
    }

    pub(crate) fn push(&mut self, id: Id, write: bool, writable: bool) {
        let Self {
            links,
            eps,
            lmrs,
            dirty,
            epoll,
            ..
        } = self;
        let Some(Some(link)) = links.get_mut(id) else {
            return;
        };
        if matches!(link.phase, Phase::Connecting | Phase::Retry) {
            return;
        }
        if link.binds {
            link.binds = false;
            return self.push_behind_binds(id, write, writable);
        }
        // A socket known to be full is not asked again before it says so.
        let write = (write || link.out.len() >= OUT_FILL) && (writable || !link.watching_out);
        let ep = link.ep.and_then(|ep| eps.get_mut(ep));
        match link.pump(ep, lmrs, write) {
            Ok(sent) => {
                if !write && !link.watching_out && !link.dirty {
                    link.dirty = true;
                    dirty.push(id);
                }
                if write && sent == link.watching_out {
                    watch_out(epoll, link, id, !sent);
                }
                if sent {
                    if let Some(ep) = link.ep.and_then(|ep| eps.get_mut(ep)) {
                        ep.written = ep.sent;
                    }
                    self.all_sent(id);
                }
            }
            Err(SendError::Io(errno)) => {
                tracing::debug!(%errno, "a connection failed while sending");
                self.end(id, End::Closed);
            }
            Err(SendError::Source) => self.source_lost(id),
            Err(SendError::Revoked) => {
                self.take_down(id, None, ConnectionKind::Disconnected);
                self.drain(id);
            }
        }
    }

    /// As [`Inner::push`], for an endpoint that has binds to be carried out.
    #[cold]
    fn push_behind_binds(&mut self, id: Id, write: bool, writable: bool) {
        let link = self.links.get(id).and_then(Option::as_ref);
        if let Some(ep) = link.and_then(|link| link.ep) {
            self.run_binds(id, ep);
        }
        self.push(id, write, writable);
        let left = |ep: Id| self.eps.get(ep).is_some_and(|ep| !ep.binds.is_empty());
        if let Some(Some(link)) = self.links.get_mut(id) {
            link.binds = link.ep.is_some_and(left);
        }
    }

    /// The output is empty: a draining link ends its side; an endpoint that leaves gracefully may be done.
    #[inline]
    fn all_sent(&mut self, id: Id) {
        let Some(Some(link)) = self.links.get_mut(id) else {
            return;
        };
        match &mut link.phase {
            Phase::Drain { shut } if !*shut => {
                *shut = true;
                let _ = rustix::net::shutdown(&link.socket, rustix::net::Shutdown::Write);
            }
            Phase::Data => self.leave_if_done(id),
            _ => {}
        }
    }

    /// The region a request was reading from is gone: it fails, and with it the connection.
    fn source_lost(&mut self, id: Id) {
        if let Some(Some(link)) = self.links.get(id)
            && let Some(ep) = link.ep.and_then(|ep| self.eps.get_mut(ep))
        {
            while ep.sent > 0 {
                ep.complete(&mut self.evds, DtoStatus::Flushed);
            }
        }
        self.take_down(id, Some(DtoStatus::LocalProtection), ConnectionKind::Broken);
        self.say_bye(id);
    }

    pub(crate) fn register(&mut self, link: Link) -> Result<Id, Errno> {
        let watching = link.watching_out;
        let id = self.links.insert(Some(Box::new(link)));
        match self.watch(id, watching) {
            Ok(()) => Ok(id),
            Err(errno) => {
                self.links.remove(id);
                Err(errno)
            }
        }
    }

    /// Adds a link's socket to the epoll set.
    pub(crate) fn watch(&mut self, id: Id, out: bool) -> Result<(), Errno> {
        let Some(Some(link)) = self.links.get(id) else {
            return Ok(());
        };
        epoll::add(&self.epoll, &link.socket, token(id), interest(out))
    }

    /// Takes a link's socket out of the epoll set.
    pub(crate) fn unwatch(&mut self, id: Id) {
        if let Some(Some(link)) = self.links.get(id) {
            let _ = epoll::delete(&self.epoll, &link.socket);
        }
    }

    /// Removes a link; its socket closes.
    pub(crate) fn close(&mut self, id: Id) {
        self.set_deadline(id, None);
        self.strangers.retain(|stranger| *stranger != id);
        if self.hot == Some(id) {
            self.hot = None;
        }
        // Not by the descriptor's end alone, which is none as long as a forked child has it too.
        self.unwatch(id);
        if let Some(Some(link)) = self.links.remove(id) {
            let _ = rustix::net::shutdown(&link.socket, rustix::net::Shutdown::Both);
            if let Phase::Pending(request) = link.phase {
                self.forget_request(request);
            }
        }
    }

    pub(crate) fn set_deadline(&mut self, id: Id, at: Option<Instant>) {
        if let Some(Some(link)) = self.links.get_mut(id)
            && let Some(before) = std::mem::replace(&mut link.deadline, at)
        {
            self.deadlines.remove(&(before, id));
        }
        if let Some(at) = at {
            self.deadlines.insert((at, id));
        }
        self.arm();
    }

    /// For a link that is out of its slot while it is served.
    pub(crate) fn set_deadline_of(&mut self, id: Id, link: &mut Link, at: Option<Instant>) {
        if let Some(before) = std::mem::replace(&mut link.deadline, at) {
            self.deadlines.remove(&(before, id));
        }
        if let Some(at) = at {
            self.deadlines.insert((at, id));
        }
        self.arm();
    }

    /// Sets the timer to the earliest deadline, so that the descriptor becomes readable then.
    fn arm(&mut self) {
        let earliest = self.deadlines.first().map(|(at, _)| *at);
        if earliest == self.armed {
            return;
        }
        self.armed = earliest;
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let left = earliest.map(|at| {
            at.saturating_duration_since(Instant::now())
                .max(Duration::from_micros(1))
        });
        let value = left
            .and_then(|left| Timespec::try_from(left).ok())
            .unwrap_or(zero);
        let setting = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting);
    }

    pub(crate) fn expire(&mut self) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        self.armed = None;
        let now = Instant::now();
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            if id.generation == LISTENER.generation {
                if let Some(listener) = self.listener(id) {
                    let _ = epoll::add(&self.epoll, listener, token(id), epoll::EventFlags::IN);
                }
            } else {
                self.too_late(id, now);
            }
        }
        self.arm();
        true
    }

    pub(crate) fn take_connections(&mut self, from: Id) -> bool {
        for _ in 0..ACCEPTS_PER_STEP {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Some(listener) = self.listener(from) else {
                break;
            };
            match rustix::net::accept_with(listener, flags) {
                Ok(socket) => self.stranger(socket),
                Err(Errno::AGAIN) => break,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // Level-triggered: without a rest this would spin until a descriptor is free.
                    let _ = epoll::delete(&self.epoll, listener);
                    self.deadlines
                        .insert((Instant::now() + LISTENER_REST, from));
                    self.arm();
                    break;
                }
                Err(_) => {} // that connection is gone already
            }
        }
        true
    }

    fn stranger(&mut self, socket: OwnedFd) {
        tune(&socket);
        if self.strangers.len() >= STRANGERS_MAX
            && let Some(oldest) = self.strangers.pop_front()
        {
            self.close(oldest);
        }
        if let Ok(id) = self.register(Link::new(socket, Phase::Hello)) {
            self.strangers.push_back(id);
            self.set_deadline(id, Some(Instant::now() + HANDSHAKE_TIME));
        }
    }
}

fn interest(out: bool) -> epoll::EventFlags {
    let base = epoll::EventFlags::IN;
    if out {
        base | epoll::EventFlags::OUT
    } else {
        base
    }
}

fn watch_out(epoll: &OwnedFd, link: &mut Link, id: Id, out: bool) {
    link.watching_out = out;
    let _ = epoll::modify(epoll, &link.socket, token(id), interest(out));
}
