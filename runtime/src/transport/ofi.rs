//! libfabric: one-sided transfers over whatever network its providers know. Between nodes.
//!
//! One endpoint per rank, reliable and without connections. A segment is exported as a registration; its descriptor is key, base
//! and length, and the endpoint's address is in the card. Puts and gets are writes and reads of libfabric; a put is complete when
//! its bytes are in the target's memory (`FI_DELIVERY_COMPLETE`), so a flush needs nothing else. Updates go the way of another
//! mechanism, uDAPL's as a rule. libfabric's atomics are not used, whatever a provider calls valid for a type and an operator: all
//! updates of an element, of any type and operator and the target's own by its CPU, must be atomic to each other, and no answer
//! says that. An adapter makes its atomics beside the CPU, software by locked instructions, locks of its own or neither.
//!
//! The library is loaded where the job has several nodes and the user asks for it, by `WINDLASS_ROUTE` or
//! `WINDLASS_OFI_PROVIDER`: its start-up takes a third of a second. Providers in software move a target's data only when they are
//! called: the helper thread does that, as it does for uDAPL.

mod memory;
mod party;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use windlass_mem::SharedBytes;
use windlass_native::ofi::{
    Endpoint, Error as Refused, Failure, Library, Name, Posted as Taken, Registration, Remote,
    Verb as Way,
};
use windlass_wire::{Put, Take};

use crate::completion::Queue;
use crate::error::{Error, Result as Checked};
use crate::mechanism::{
    Accepted, Completion, Cost, DESCRIPTOR_MAX_BYTES, Engine, Export, Fault, Lease, Limits,
    Mechanism, MechanismId, Peer, PostError, Reason, RemoteRange, Serve, Transfer, Verb,
};
use crate::progress::idle_on;
use crate::region::{Backing, Segment};
use crate::route::{Posted, Route};
use crate::staging::Staging;
use crate::transport::Context;
use memory::Memory;
use party::Party;

/// Picks the provider.
pub const PROVIDER: &str = "WINDLASS_OFI_PROVIDER";

/// Bounce memory of the endpoint.
const STAGING_BYTES: usize = 8 << 20;

/// The longest transfer posted as one.
const TRANSFER_BYTES: usize = 1 << 30;

/// The longest segment that is given to a provider that wants all pages to be there: they stay in memory.
const PINNED_BYTES: usize = 1 << 30;

/// Tries to leave nothing to do before a thread may sleep; then somebody else is at it.
const TRIES: usize = 8;

/// Providers that are software over the same sockets as our own provider of uDAPL, and slower: 12.6 us (1.17) and 9.5 us (2.5) for
/// 8 bytes put and flushed, where that takes 7.9 us.
const SOFTWARE: [&str; 4] = ["tcp", "net", "sockets", "udp"];

/// Is the provider of that name one of those?
pub fn is_software(provider: &str) -> bool {
    let name = provider.split(';').next();
    name.is_some_and(|name| SOFTWARE.contains(&name))
}

/// What the user says of libfabric.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// `WINDLASS_ROUTE` names it.
    pub named: bool,
    /// `WINDLASS_OFI_PROVIDER`.
    pub provider: Option<String>,
}

/// libfabric.
pub struct Ofi {
    parts: Result<Parts, Reason>,
}

/// What works together once the endpoint is open.
struct Parts {
    origin: Arc<Origin>,
    queue: Arc<Queue>,
    cost: Cost,
}

impl Ofi {
    /// The mechanism of this rank; opens its endpoint, if the job has need of one.
    ///
    /// # Errors
    /// [`Error::Environment`]: there is no such provider.
    pub fn new(context: &Context) -> Checked<Ofi> {
        let parts = match Parts::new(context) {
            Ok(parts) => Ok(parts),
            Err(Ungiven::Unknown { name, there }) => {
                return Err(Error::Environment {
                    variable: PROVIDER,
                    value: name,
                    accepted: match there.is_empty() {
                        true => "none: libfabric has no provider that serves here".into(),
                        false => there.join(", "),
                    },
                });
            }
            Err(Ungiven::Reason(reason)) => Err(reason),
        };
        Ok(Ofi { parts })
    }

    fn parts(&self) -> Result<&Parts, Reason> {
        self.parts.as_ref().map_err(Clone::clone)
    }
}

/// Why there is no endpoint.
enum Ungiven {
    Reason(Reason),
    Unknown { name: String, there: Vec<String> },
}

impl From<Refused> for Ungiven {
    fn from(error: Refused) -> Ungiven {
        match error {
            Refused::Provider { name, there } => Ungiven::Unknown { name, there },
            other => Ungiven::Reason(Reason::from_error("no endpoint can be opened", &other)),
        }
    }
}

impl Parts {
    fn new(context: &Context) -> Result<Parts, Ungiven> {
        let unasked = |text: &'static str| Ungiven::Reason(Reason::new(text));
        if context.nodes < 2 {
            return Err(unasked("not loaded: all ranks are on one node"));
        }
        let Choice { named, provider } = &context.ofi;
        if !named && provider.is_none() {
            return Err(unasked(
                "not loaded: its start-up is slow; WINDLASS_ROUTE=ofi or WINDLASS_OFI_PROVIDER asks for it",
            ));
        }
        let library = Library::load(windlass_native::ofi::SONAME)?;
        let local = context.network.local();
        let local = local.map_err(|e| {
            Ungiven::Reason(Reason::from_error(
                "this host has no address in WINDLASS_NETWORK",
                &e,
            ))
        })?;
        let endpoint = Endpoint::open(&library, provider.as_deref(), local)?;
        let cost = match is_software(endpoint.provider()) {
            true => Cost(Cost::NETWORK.0 + 100),
            false => Cost(Cost::NETWORK.0 - 100),
        };
        let origin = Arc::new(Origin::new(endpoint)?);
        let engine = Arc::clone(&origin) as Arc<dyn Engine>;
        let queue = Queue::new(MechanismId::Ofi, engine, Arc::clone(&context.health));
        Ok(Parts {
            origin,
            queue: Arc::new(queue),
            cost,
        })
    }
}

/// An exported segment. Dropping it withdraws the registration: peers are refused from then on.
struct Exported {
    registration: Arc<Registration>,
    origin: Arc<Origin>,
}

impl Drop for Exported {
    fn drop(&mut self) {
        self.origin.memory.remove(&self.registration);
    }
}

/// What a descriptor says, as an allegation; the target's provider judges every transfer.
struct Told {
    key: u64,
    base: u64,
    len: u64,
}

impl Told {
    fn decode(descriptor: &[u8]) -> Result<Told, Reason> {
        let malformed = |e| Reason::from_error("the descriptor is malformed", &e);
        let mut take = Take::new(descriptor);
        let told = Told {
            key: take.u64().map_err(malformed)?,
            base: take.u64().map_err(malformed)?,
            len: take.u64().map_err(malformed)?,
        };
        take.finish().map_err(malformed)?;
        if told.base.checked_add(told.len).is_none() {
            return Err(Reason::new("the descriptor's range wraps around"));
        }
        Ok(told)
    }
}

impl Mechanism for Ofi {
    fn id(&self) -> MechanismId {
        MechanismId::Ofi
    }

    fn probe(&self) -> Result<(), Reason> {
        self.parts().map(|_| ())
    }

    fn card(&self) -> Vec<u8> {
        let Ok(parts) = &self.parts else {
            return Vec::new();
        };
        let endpoint = &parts.origin.endpoint;
        let mut put = Put::new();
        for word in endpoint.protocol() {
            put.u32(word);
        }
        put.raw(endpoint.address());
        put.into_vec()
    }

    fn server(&self) -> Option<Arc<dyn Serve>> {
        let parts = self.parts.as_ref().ok()?;
        Some(Arc::clone(&parts.origin) as _)
    }

    fn pins(&self) -> bool {
        let parts = self.parts.as_ref();
        parts.is_ok_and(|parts| parts.origin.endpoint.wants_pages())
    }

    fn export(&self, segment: &Segment) -> Result<Export, Reason> {
        let origin = &self.parts()?.origin;
        if let Backing::Native(_) = segment.backing {
            return Err(Reason::new("this memory is VE memory"));
        }
        let len = segment.bytes.len();
        if origin.endpoint.wants_pages() && len > PINNED_BYTES {
            return Err(Reason::new(format!(
                "the provider {} wants all pages in memory, and these are {len} bytes of which few may be used; lend the memory",
                origin.endpoint.provider()
            )));
        }
        let registration = Registration::new(&origin.endpoint, &segment.bytes)
            .map_err(|e| Reason::from_error("the registration is refused", &e))?;
        let mut put = Put::new();
        put.u64(registration.key())
            .u64(registration.base())
            .u64(len as u64);
        origin.memory.add(Arc::clone(&registration));
        Ok(Export {
            descriptor: put.into_vec(),
            guard: Box::new(Exported {
                registration,
                origin: Arc::clone(origin),
            }),
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason> {
        let parts = self.parts()?;
        Told::decode(descriptor)?;
        parts.origin.address_of(peer)?;
        Ok(parts.cost)
    }

    /// Only notes the address: the first transfer connects.
    fn attach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason> {
        let parts = self.parts()?;
        let told = Told::decode(descriptor)?;
        parts.origin.note(peer)?;
        let remote = RemoteRange::new(told.base, told.len, told.key);
        let queue = Arc::clone(&parts.queue);
        Ok(Route::Posted(Posted::new(queue, peer.rank, remote)))
    }
}

/// The engine, and what the helper thread drives.
struct Origin {
    endpoint: Arc<Endpoint>,
    memory: Arc<Memory>,
    staging: Staging,
    /// By rank.
    peers: RwLock<Vec<Option<Arc<Party>>>>,
    began: Instant,
    /// Completions that whoever drove the endpoint has taken.
    done: Mutex<VecDeque<Completion>>,
}

impl Origin {
    fn new(endpoint: Arc<Endpoint>) -> Result<Origin, Refused> {
        let (bytes, _loan) = windlass_mem::lend(vec![0u64; STAGING_BYTES / 8]);
        let memory = Arc::<Memory>::default();
        memory.add(Registration::new(&endpoint, &bytes)?);
        Ok(Origin {
            endpoint,
            memory,
            staging: Staging::new(bytes),
            peers: RwLock::default(),
            began: Instant::now(),
            done: Mutex::default(),
        })
    }

    /// The address in a peer's card, if its endpoint understands ours.
    fn address_of<'a>(&self, peer: &'a Peer) -> Result<&'a [u8], Reason> {
        let card = peer.card(MechanismId::Ofi);
        let card = card.ok_or_else(|| Reason::new("the peer has no endpoint"))?;
        let malformed = |e| Reason::from_error("the peer's card is malformed", &e);
        let mut take = Take::new(card);
        for ours in self.endpoint.protocol() {
            if take.u32().map_err(malformed)? != ours {
                return Err(Reason::new(format!(
                    "the peer's provider does not speak the protocol of {}",
                    self.endpoint.provider()
                )));
            }
        }
        let address = take.rest();
        if address.is_empty() || address.len() > DESCRIPTOR_MAX_BYTES {
            return Err(Reason::new("the peer's card has no address"));
        }
        Ok(address)
    }

    /// Where a rank is.
    fn note(&self, peer: &Peer) -> Result<(), Reason> {
        let mut peers = self.peers.write();
        let index = peer.rank as usize;
        if peers.len() <= index {
            peers.resize(index + 1, None);
        }
        if peers[index].is_none() {
            let address = self.address_of(peer)?;
            let id = self.endpoint.insert(address);
            let refused = || Reason::new("the provider refuses the peer's address");
            let party = Party::new(id.ok_or_else(refused)?, address);
            peers[index] = Some(Arc::new(party));
        }
        Ok(())
    }

    fn party(&self, rank: u32) -> Option<Arc<Party>> {
        self.peers.read().get(rank as usize)?.clone()
    }

    /// Moves data, and takes in what has ended. `true` if anything had.
    fn drive(&self) -> bool {
        self.endpoint.completions(|done| {
            let result = match done.failure {
                None => Ok(Vec::new()),
                Some(failure) => Err(fault(failure)),
            };
            if let Some(party) = self.party(done.name.party) {
                party.ended(result.is_ok());
            }
            let ticket = done.name.ticket;
            self.done.lock().push_back(Completion { ticket, result });
        })
    }

    /// Until a thread may sleep on the descriptor. `false` where somebody else keeps it busy.
    fn drive_dry(&self) -> bool {
        for _ in 0..TRIES {
            if self.endpoint.may_sleep() {
                return true;
            }
            self.drive();
        }
        false
    }

    fn take(&self) -> Option<Completion> {
        self.done.lock().pop_front()
    }
}

/// A failure of the library, as ours.
fn fault(failure: Failure) -> Fault {
    let text = failure.to_string();
    if failure.is_access() {
        Fault::Access(format!("the target refuses the range ({text})"))
    } else if failure.is_gone() {
        Fault::Gone(text)
    } else {
        Fault::Other(text)
    }
}

impl Engine for Origin {
    fn limits(&self) -> Limits {
        Limits {
            max_bytes: self.endpoint.max_bytes().min(TRANSFER_BYTES),
            immediate: false,
            update_bytes: 0,
        }
    }

    fn sees(&self, local: &SharedBytes) -> bool {
        self.memory.find(local).is_some()
    }

    fn lend(&self, local: &SharedBytes) -> Option<Lease> {
        let registration = Registration::local(&self.endpoint, local).ok()?;
        Some(Arc::new(memory::Leased::new(&self.memory, registration)?))
    }

    fn staging(&self) -> Option<&Staging> {
        Some(&self.staging)
    }

    fn post(&self, transfer: Transfer<'_>) -> Result<Accepted, PostError> {
        let other = |text: &str| PostError::Fault(Fault::Other(text.to_owned()));
        let (way, local) = match transfer.verb {
            Verb::Put(local) => (Way::Write, local),
            Verb::Get(local) => (Way::Read, local),
            _ => return Err(other("transfers only read and write registered memory")),
        };
        let within = self.memory.find(local);
        let within = within.ok_or_else(|| other("the local memory is not registered"))?;
        let party = self.party(transfer.target);
        let party = party.ok_or_else(|| other("the rank has no address"))?;
        let remote = Remote {
            peer: party.id,
            address: transfer.remote.base,
            key: transfer.remote.key,
        };
        let name = Name {
            ticket: transfer.ticket,
            party: transfer.target,
        };
        // Counted first: another thread may take its end at once.
        party.begin();
        let posted = self.endpoint.post(way, local, &within, remote, name);
        if let Ok(Taken::Taken) = posted {
            party.took(self.endpoint.address());
            return Ok(Accepted::Pending);
        }
        party.withdraw();
        match posted {
            Ok(Taken::NotNow) => {
                let now_ns = u64::try_from(self.began.elapsed().as_nanos());
                let refused = party.refuses(now_ns.unwrap_or(u64::MAX));
                Err(refused.map_or_else(PostError::Fault, |()| PostError::Full))
            }
            Ok(_) => Err(PostError::Full),
            Err(Refused::Call(failure)) => Err(PostError::Fault(fault(failure))),
            Err(why) => Err(other(&why.to_string())),
        }
    }

    fn poll(&self) -> Option<Completion> {
        self.take().or_else(|| {
            self.drive();
            self.take()
        })
    }

    fn idle(&self, at_most: Duration) {
        if self.drive_dry() && self.done.lock().is_empty() {
            idle_on(self.endpoint.fd(), at_most);
        }
    }
}

impl Serve for Origin {
    fn fd(&self) -> BorrowedFd<'_> {
        self.endpoint.fd()
    }

    /// Peers' transfers leave no completion here: that there was something to do is seen by the descriptor alone.
    fn step(&self) -> bool {
        let ready = is_ready(self.endpoint.fd());
        let ended = self.drive();
        self.drive_dry();
        ready || ended
    }

    fn finish(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        while self.endpoint.outstanding() > 0 && Instant::now() < until {
            if !self.drive() && self.drive_dry() {
                idle_on(self.endpoint.fd(), Duration::from_millis(1));
            }
        }
    }
}

/// Would a sleep on the descriptor end at once?
fn is_ready(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}
