//! The threads of a service and the connections they serve.
//!
//! A stranger can open connections faster than they can prove anything, so those that have not
//! yet are bounded: one too many ends the *oldest* of them. An honest peer proves itself in less
//! than a millisecond and is never the oldest (spec reliability S2).

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::net::Shutdown;

use crate::error::Error;

/// Connections that have not proved who they are (spec reliability S2).
pub(crate) const MAX_STRANGERS: usize = 64;
/// Enough for a service thread: the deepest call is a message's decoder.
const STACK_BYTES: usize = 512 * 1024;

type Socket = Arc<dyn AsFd + Send + Sync>;

struct Entry {
    socket: Socket,
    admitted: bool,
}

#[derive(Default)]
struct Inner {
    next: u64,
    strangers: usize,
    closed: bool,
    /// By age.
    all: BTreeMap<u64, Entry>,
}

/// The open connections of one kind.
#[derive(Default)]
pub(crate) struct Visitors {
    inner: Mutex<Inner>,
}

/// A connection's place in [`Visitors`]; leaves it on drop.
pub(crate) struct Visit {
    visitors: Arc<Visitors>,
    id: u64,
}

fn end(socket: &Socket) {
    // Wakes whichever thread reads or writes it; a socket already closed by its peer says ENOTCONN.
    let _ = rustix::net::shutdown(socket.as_ref(), Shutdown::Both);
}

impl Visitors {
    /// Notes a new connection; `None` when the service is ending.
    pub(crate) fn enter(self: &Arc<Self>, socket: Socket) -> Option<Visit> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return None;
        }
        if inner.strangers >= MAX_STRANGERS
            && let Some((&oldest, _)) = inner.all.iter().find(|(_, entry)| !entry.admitted)
            && let Some(entry) = inner.all.remove(&oldest)
        {
            tracing::debug!("too many connections at once: the oldest unproved one is closed");
            end(&entry.socket);
            inner.strangers -= 1;
        }
        let id = inner.next;
        inner.next += 1;
        inner.strangers += 1;
        inner.all.insert(
            id,
            Entry {
                socket,
                admitted: false,
            },
        );
        Some(Visit {
            visitors: Arc::clone(self),
            id,
        })
    }

    /// Ends every connection, and every later one at once.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.all.values().for_each(|entry| end(&entry.socket));
    }

    /// How many have not proved themselves.
    #[cfg(test)]
    pub(crate) fn strangers(&self) -> usize {
        self.inner.lock().strangers
    }
}

impl Visit {
    /// The peer proved itself. False where it was too late.
    pub(crate) fn admit(&self) -> bool {
        let mut inner = self.visitors.inner.lock();
        let Some(entry) = inner.all.get_mut(&self.id) else {
            return false;
        };
        if !entry.admitted {
            entry.admitted = true;
            inner.strangers -= 1;
        }
        true
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut inner = self.visitors.inner.lock();
        if inner
            .all
            .remove(&self.id)
            .is_some_and(|entry| !entry.admitted)
        {
            inner.strangers -= 1;
        }
    }
}

/// Threads that are joined when the service ends.
#[derive(Default)]
pub(crate) struct Crew {
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Crew {
    pub(crate) fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map_err(|error| Error::io("clone", &error))?;
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Waits for all threads, also for those that they start meanwhile.
    pub(crate) fn join(&self) {
        loop {
            let Some(thread) = self.threads.lock().pop() else {
                return;
            };
            if thread.join().is_err() {
                tracing::error!("a thread of the node service panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn one_too_many_ends_the_oldest_stranger() {
        let visitors = Arc::new(Visitors::default());
        let mut ours = Vec::new();
        let mut visits = Vec::new();
        for _ in 0..MAX_STRANGERS {
            let (near, far) = UnixStream::pair().unwrap();
            visits.push(visitors.enter(Arc::new(near)).unwrap());
            ours.push(far);
        }
        assert!(visits[0].admit());
        let (near, _far) = UnixStream::pair().unwrap();
        visits.push(visitors.enter(Arc::new(near)).unwrap());
        assert_eq!(visitors.strangers(), MAX_STRANGERS);
        let (near, _far2) = UnixStream::pair().unwrap();
        visits.push(visitors.enter(Arc::new(near)).unwrap());
        assert_eq!(visitors.strangers(), MAX_STRANGERS);
        assert!(!visits[1].admit(), "the oldest stranger was closed");
        assert_eq!(ours[1].read(&mut [0]).unwrap(), 0);
        assert!(visits[2].admit());
        drop(visits);
        assert_eq!(visitors.strangers(), 0);
        visitors.close();
        let (near, _far) = UnixStream::pair().unwrap();
        assert!(visitors.enter(Arc::new(near)).is_none());
    }
}
