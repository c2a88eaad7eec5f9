//! Where importers of other nodes come in: the exporter's adapter, and the thread that serves it (architecture 8).
//!
//! A published segment has a room for each right: a protection zone of its own with one registration of the memory. A connection
//! that shows the key of a room is let into that zone and told the registration's context, so it reaches nothing but this segment,
//! and no more of it than that right permits, whatever context it names. The memory is mapped once more for this, from the file that
//! it lies in: nothing that the program does with its own mapping can make a transfer fault.
//!
//! When a segment ends its rooms do, and when it moves they are built anew: after that no transfer touches the memory that they had
//! (`Lmr::free`), and every connection of theirs ends. Whoever comes again is told the new context, or that there is no such room.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{Resource, getrlimit};
use windlass_dat::{
    CloseFlags, Config, ConnectionKind, Cr, Ep, EpAttr, Evd, EvdFlags, Event, Ia, Lmr, Privileges,
    Psp, Pz, Region, VaType,
};
use windlass_mem::SharedBytes;
use windlass_mem::signals::Blocked;

use crate::access::{PERM_RDWR, PERM_READ, PERM_WRITE};
use crate::code::Code;
use crate::pass::{Door, Key, Network};

/// The connection qualifier of all segments.
pub(crate) const SERVICE: u64 = 1;
/// Requests and ends of connections that may wait for the thread.
const EVENTS: usize = 1 << 16;
/// The thread has little on its stack.
const STACK_BYTES: usize = 256 * 1024;

/// The way into this process's segments. It is there as long as one of them is, and so is its thread.
pub(crate) struct Gate {
    hall: Arc<Hall>,
    thread: Option<JoinHandle<()>>,
    /// A forked child has the memory of this, and no thread.
    pid: i32,
}

/// What the thread and the segments share.
struct Hall {
    ia: Arc<Ia>,
    evd: Evd,
    _psp: Psp,
    bell: OwnedFd,
    over: AtomicBool,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    rooms: BTreeMap<Key, Room>,
    /// Whoever came first is first.
    guests: VecDeque<(Key, Ep)>,
}

/// The memory of a segment, with one right.
struct Room {
    pz: Pz,
    lmr: Lmr,
}

/// The rooms of a segment, not yet opened.
pub(crate) struct Rooms(Vec<(Key, Room)>);

/// A segment that importers of other nodes can come to, until this is dropped.
pub(crate) struct Offer {
    gate: Arc<Gate>,
    door: Door,
}

fn lacking<E: std::fmt::Display>(error: E) -> Code {
    tracing::debug!(%error, "segments cannot be offered to other nodes");
    Code::InsufficientResources
}

impl Gate {
    /// # Errors
    /// [`Code::InsufficientResources`]: no descriptor, no thread, or the address is not this host's.
    pub(crate) fn open(network: &Network) -> Result<Arc<Self>, Code> {
        let ia = Ia::open(Config {
            secret: network.secret.secret(),
            bind: SocketAddr::new(network.address, 0),
        });
        let ia = ia.map_err(lacking)?;
        let flags = EvdFlags::CR | EvdFlags::CONNECTION;
        let evd = Evd::create(&ia, EVENTS, flags).map_err(lacking)?;
        let psp = Psp::create(&evd, &ia, SERVICE).map_err(lacking)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let hall = Arc::new(Hall {
            ia,
            evd,
            _psp: psp,
            bell: eventfd(0, flags).map_err(lacking)?,
            over: AtomicBool::new(false),
            inside: Mutex::default(),
        });
        let blocked = Blocked::for_helper().map_err(lacking)?;
        let served = Arc::clone(&hall);
        let thread = std::thread::Builder::new()
            .name("windlass-rsm".into())
            .stack_size(STACK_BYTES)
            .spawn(move || served.serve());
        drop(blocked);
        Ok(Arc::new(Self {
            hall,
            thread: Some(thread.map_err(lacking)?),
            pid: own_pid(),
        }))
    }

    /// Lets importers come to this memory.
    ///
    /// # Errors
    /// As of [`rooms`](Offer::rooms).
    pub(crate) fn offer(self: Arc<Self>, bytes: &SharedBytes) -> Result<Offer, Code> {
        let door = Door {
            at: self.hall.ia.local_addr(),
            secret: Key::random(),
        };
        let offer = Offer { gate: self, door };
        let rooms = offer.rooms(bytes)?;
        offer.move_to(rooms);
        Ok(offer)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.hall.over.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.hall.bell, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // What still holds on to the adapter holds nothing that others reach.
        let _ = self.hall.ia.close(CloseFlags::Abrupt);
    }
}

impl Offer {
    pub(crate) fn door(&self) -> Door {
        self.door
    }

    /// Rooms over other memory, which nobody enters yet. Memory that is only read has no others.
    ///
    /// # Errors
    /// [`Code::InsufficientResources`].
    pub(crate) fn rooms(&self, bytes: &SharedBytes) -> Result<Rooms, Code> {
        let reads = Privileges::LOCAL_READ | Privileges::REMOTE_READ;
        let writes = Privileges::LOCAL_WRITE | Privileges::REMOTE_WRITE;
        let all = [
            (PERM_READ, reads),
            (PERM_WRITE, writes),
            (PERM_RDWR, reads | writes),
        ];
        let count = if bytes.is_read_only() { 1 } else { all.len() };
        let room = |&(rights, privileges): &(u32, Privileges)| {
            let pz = Pz::create(&self.gate.hall.ia);
            let region = Region::Virtual(bytes.clone());
            let lmr = Lmr::create(region, &pz, privileges, VaType::ZeroBased);
            let lmr = lmr.map_err(lacking)?;
            Ok((self.door.pass(rights).key, Room { pz, lmr }))
        };
        all[..count]
            .iter()
            .map(room)
            .collect::<Result<_, _>>()
            .map(Rooms)
    }

    /// From now on importers are in these. No transfer touches the memory of the others any more.
    pub(crate) fn move_to(&self, rooms: Rooms) {
        let mut inside = self.gate.hall.inside.lock();
        for (key, room) in rooms.0 {
            inside.close(&key);
            inside.rooms.insert(key, room);
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if self.gate.pid != own_pid() {
            // Nothing of it is a child's to end, or can be locked there.
            return std::mem::forget(Arc::clone(&self.gate));
        }
        let mut inside = self.gate.hall.inside.lock();
        for rights in [PERM_READ, PERM_WRITE, PERM_RDWR] {
            inside.close(&self.door.pass(rights).key);
        }
    }
}

impl Inside {
    fn close(&mut self, key: &Key) {
        self.rooms.remove(key);
        self.guests.retain(|(of, _)| of != key);
    }
}

impl Hall {
    /// What the thread does.
    fn serve(&self) {
        while !self.over.load(Ordering::Acquire) {
            while self.ia.step() && !self.over.load(Ordering::Acquire) {
                self.greet();
            }
            self.greet();
            let mut fds = [
                PollFd::new(&self.ia, PollFlags::IN),
                PollFd::new(&self.bell, PollFlags::IN),
            ];
            // Interrupted or not: whoever looks again loses nothing.
            let _ = poll(&mut fds, None);
        }
    }

    /// Those who come and go.
    fn greet(&self) {
        while let Some(event) = self.evd.dequeue() {
            match event {
                Event::ConnectionRequest(request) => self.admit(&request),
                Event::Connection { kind, ep, .. } if kind != ConnectionKind::Established => {
                    let mut inside = self.inside.lock();
                    inside.guests.retain(|(_, guest)| guest.id() != ep);
                }
                _ => {}
            }
        }
    }

    /// Whoever has the key of a room is let in and told where its memory is; others are told that there is none.
    fn admit(&self, request: &Cr) {
        let key = <[u8; 32]>::try_from(request.private_data()).map(Key::from_bytes);
        let mut inside = self.inside.lock();
        let room = key
            .ok()
            .and_then(|key| Some((key, inside.rooms.get(&key)?)));
        let Some((key, room)) = room else {
            // One that has gone meanwhile hears nothing.
            let _ = request.reject(&[]);
            return;
        };
        let attr = EpAttr {
            max_request_dtos: 0,
            max_recv_dtos: 0,
            ..EpAttr::default()
        };
        let context = room.lmr.rmr_context().to_le_bytes();
        let accepted = Ep::create(&room.pz, None, None, Some(&self.evd), attr)
            .and_then(|ep| request.accept(&ep, &context).map(|()| ep));
        if let Ok(ep) = accepted {
            inside.guests.push_back((key, ep));
            // A connection takes a descriptor, of which the program has a use too.
            while inside.guests.len() > most_guests() {
                inside.guests.pop_front();
            }
        }
    }
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer")
            .field("at", &self.door.at)
            .finish_non_exhaustive()
    }
}

/// So many are in at a time: half of the descriptors that this process may have. Who is sent away comes again when it transfers.
fn most_guests() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 2).unwrap_or(usize::MAX).max(1)
}

pub(crate) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}
