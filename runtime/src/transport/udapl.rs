//! uDAPL: RDMA writes and reads over reliable connections. Every node, and the last resort on one.
//!
//! One adapter per rank, made when the rank joins. A segment is exported as an LMR; its descriptor
//! is context, address and length, and the peer's TCP address is in its card. The first transfer
//! to a rank connects (`origin`); puts and gets are RDMA writes and reads, which the target's
//! adapter validates and serves without its application. What the adapter cannot do, updates of
//! any type, goes as a message to the target's helper thread (`target`), which runs the same
//! [`update`](crate::update) functions on the same memory as everybody else.
//!
//! The adapter is our own provider's, or with `WINDLASS_DAT` one that libdat2 has (`carrier`, `stock`). Atomics of adapters are
//! not used even where libdat2's has them: they are not atomic to those of the target's CPU (udapl 8), which ranks of its node use.

mod carrier;
mod conn;
mod message;
mod origin;
mod reach;
mod stock;
mod target;
mod verdict;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use windlass_dat::{Config, LocalSegment};
use windlass_mem::SharedBytes;
use windlass_wire::{Put, Take};

use crate::completion::Queue;
use crate::error::cause;
use crate::guard::Keeper;
use crate::mechanism::{Cost, Export, Mechanism, MechanismId, Peer, Reason, RemoteRange, Serve};
use crate::progress::{Health, idle_on};
use crate::region::{Backing, Segment};
use crate::route::{Posted, Route};
use crate::transport::Context;
use carrier::{Carrier, Registered, Soft};
use origin::Origin;
pub use stock::DAT;
pub(crate) use stock::Stock;
use target::{Offer, Target};

/// uDAPL.
struct Udapl<C: Carrier> {
    parts: Result<Parts<C>, Reason>,
}

/// What works together once the adapter is open.
struct Parts<C: Carrier> {
    carrier: Arc<C>,
    memory: Arc<Memory>,
    origin: Arc<Origin<C>>,
    target: Arc<Target<C>>,
    queue: Arc<Queue>,
}

/// The mechanism of this rank; opens its adapter.
///
/// # Errors
/// [`Error::Adapter`](crate::Error::Adapter): the one that `WINDLASS_DAT` names cannot be used.
pub fn new(context: &Context) -> crate::Result<Box<dyn Mechanism>> {
    let Some(name) = &context.dat else {
        return Ok(Box::new(Udapl {
            parts: soft(context),
        }));
    };
    let unusable = |source| crate::Error::Adapter {
        name: name.clone(),
        source,
    };
    let stock = Stock::open(name, context).map_err(|e| unusable(cause(e)))?;
    let parts = Parts::new(stock, context).map_err(|e| unusable(cause(e)))?;
    Ok(Box::new(Udapl { parts: Ok(parts) }))
}

fn soft(context: &Context) -> Result<Parts<Soft>, Reason> {
    let local = context.network.local();
    let local = local
        .map_err(|e| Reason::from_error("this host has no address in WINDLASS_NETWORK", &e))?;
    let config = Config {
        secret: context.secret.clone(),
        bind: SocketAddr::new(local, 0),
    };
    let soft =
        Soft::open(config).map_err(|e| Reason::from_error("no adapter can be opened", &e))?;
    Parts::new(soft, context).map_err(|e| Reason::from_error("the adapter refuses to start", &e))
}

impl<C: Carrier> Udapl<C> {
    fn parts(&self) -> Result<&Parts<C>, Reason> {
        self.parts.as_ref().map_err(Clone::clone)
    }
}

impl<C: Carrier> Parts<C> {
    fn new(carrier: C, context: &Context) -> carrier::Result<Parts<C>> {
        Parts::with(
            carrier,
            (context.rank, context.ranks),
            &context.health,
            &context.keeper,
        )
    }

    fn with(
        carrier: C,
        (rank, ranks): (u32, u32),
        health: &Arc<Health>,
        keeper: &Keeper,
    ) -> carrier::Result<Parts<C>> {
        let carrier = Arc::new(carrier);
        let memory = Arc::new(Memory::default());
        let target = Arc::new(Target::new(&carrier, keeper)?);
        let origin = Origin::new((rank, ranks), &carrier, &memory, &target)?;
        let origin = Arc::new(origin);
        let queue = Queue::new(
            MechanismId::Udapl,
            Arc::clone(&origin) as _,
            Arc::clone(health),
        );
        Ok(Parts {
            carrier,
            memory,
            origin,
            target,
            queue: Arc::new(queue),
        })
    }
}

/// What this process has registered, by address: an engine must name its own side too.
#[derive(Default)]
struct Memory {
    ranges: RwLock<BTreeMap<usize, (usize, u32)>>,
    /// Ranges lent to transfers: address, length, context. They may overlap each other.
    lent: RwLock<Vec<(usize, usize, u32)>>,
}

/// Ranges lent to transfers at most; then they go through bounce memory.
const LENT_MAX: usize = 64;

impl Memory {
    fn add(&self, bytes: &SharedBytes, lmr: &impl Registered) {
        let mut ranges = self.ranges.write();
        ranges.insert(bytes.addr(), (bytes.len(), lmr.context()));
    }

    fn remove(&self, addr: usize) {
        self.ranges.write().remove(&addr);
    }

    /// The segment that names `bytes`, if they are registered.
    fn segment(&self, bytes: &SharedBytes) -> Option<LocalSegment> {
        let is_in = |start: usize, len: usize| {
            let offset = bytes.addr().checked_sub(start);
            offset.is_some_and(|offset| offset <= len && bytes.len() <= len - offset)
        };
        let ranges = self.ranges.read();
        let range = ranges.range(..=bytes.addr()).next_back();
        let registered =
            range.and_then(|(&start, &(len, context))| is_in(start, len).then_some(context));
        let lent = || {
            let lent = self.lent.read();
            let mut lent = lent.iter();
            lent.find(|lent| is_in(lent.0, lent.1)).map(|lent| lent.2)
        };
        Some(LocalSegment {
            context: registered.or_else(lent)?,
            address: bytes.addr() as u64,
            len: u32::try_from(bytes.len()).ok()?,
        })
    }
}

/// Memory registered for its transfers under way.
struct Leased<L: Registered> {
    lmr: L,
    memory: Arc<Memory>,
}

impl<L: Registered> Leased<L> {
    /// `None`: as many are there as may be, or the adapter refuses.
    fn new<C: Carrier<Lmr = L>>(
        carrier: &C,
        memory: &Arc<Memory>,
        bytes: &SharedBytes,
    ) -> Option<Leased<L>> {
        if memory.lent.read().len() >= LENT_MAX {
            return None;
        }
        let lmr = carrier.register(bytes, false).ok()?;
        let range = (bytes.addr(), bytes.len(), lmr.context());
        memory.lent.write().push(range);
        Some(Leased {
            lmr,
            memory: Arc::clone(memory),
        })
    }
}

impl<L: Registered> Drop for Leased<L> {
    fn drop(&mut self) {
        let context = self.lmr.context();
        self.memory.lent.write().retain(|lent| lent.2 != context);
    }
}

/// An exported segment. Dropping it withdraws the registration: transfers under way fail.
struct Exported<C: Carrier> {
    lmr: C::Lmr,
    memory: Arc<Memory>,
    target: Arc<Target<C>>,
}

impl<C: Carrier> Drop for Exported<C> {
    fn drop(&mut self) {
        self.memory.remove(self.lmr.address() as usize);
        self.target.withdraw(self.lmr.rmr_context());
    }
}

/// An exported segment that no adapter can register: the target's helper serves it whole.
struct Helped<C: Carrier> {
    context: u32,
    target: Arc<Target<C>>,
}

impl<C: Carrier> Drop for Helped<C> {
    fn drop(&mut self) {
        self.target.withdraw(self.context);
    }
}

/// What a descriptor says, as an allegation; the target checks every request anyway.
struct Told {
    context: u32,
    address: u64,
    len: u64,
    /// Transfers are updates too, by the target's helper.
    helped: bool,
}

impl Told {
    fn encode(&self) -> Vec<u8> {
        let mut put = Put::new();
        put.u32(self.context)
            .u64(self.address)
            .u64(self.len)
            .u8(u8::from(self.helped));
        put.into_vec()
    }

    fn decode(descriptor: &[u8]) -> Result<Told, Reason> {
        let malformed = |e| Reason::from_error("the descriptor is malformed", &e);
        let mut take = Take::new(descriptor);
        let told = Told {
            context: take.u32().map_err(malformed)?,
            address: take.u64().map_err(malformed)?,
            len: take.u64().map_err(malformed)?,
            helped: take.u8().map_err(malformed)? != 0,
        };
        take.finish().map_err(malformed)?;
        if told.address.checked_add(told.len).is_none() {
            return Err(Reason::new("the descriptor's range wraps around"));
        }
        Ok(told)
    }
}

/// The peer's address, from its card.
fn address_of<C: Carrier>(peer: &Peer) -> Result<C::Address, Reason> {
    let card = peer.card(MechanismId::Udapl);
    let card = card.ok_or_else(|| Reason::new("the peer has no adapter"))?;
    let text = std::str::from_utf8(card).ok();
    let address = text.and_then(|text| text.parse().ok());
    address.ok_or_else(|| {
        Reason::new(
            "the peer's adapter is another provider's: set WINDLASS_DAT for all ranks, or for none",
        )
    })
}

impl<C: Carrier> Mechanism for Udapl<C> {
    fn id(&self) -> MechanismId {
        MechanismId::Udapl
    }

    fn probe(&self) -> Result<(), Reason> {
        self.parts().map(|_| ())
    }

    fn card(&self) -> Vec<u8> {
        match &self.parts {
            Ok(parts) => parts.target.address().to_string().into_bytes(),
            Err(_) => Vec::new(),
        }
    }

    fn pins(&self) -> bool {
        C::PINS
    }

    fn server(&self) -> Option<Arc<dyn Serve>> {
        let parts = self.parts.as_ref().ok()?;
        Some(Arc::new(Server {
            carrier: Arc::clone(&parts.carrier),
            target: Arc::clone(&parts.target),
            origin: Arc::clone(&parts.origin),
        }))
    }

    fn export(&self, segment: &Segment) -> Result<Export, Reason> {
        let parts = self.parts()?;
        if let Backing::Native(memory) = &segment.backing {
            // No registration has generation 0: the context is one of the helper's alone.
            let context = segment.id.checked_mul(1 << 8);
            let context =
                context.ok_or_else(|| Reason::new("the numbers of contexts are used up"))?;
            let offer = Offer::Native(Arc::clone(memory));
            parts.target.offer(context, offer)?;
            let told = Told {
                context,
                address: 0,
                len: memory.len() as u64,
                helped: true,
            };
            let target = Arc::clone(&parts.target);
            return Ok(Export {
                descriptor: told.encode(),
                guard: Box::new(Helped { context, target }),
            });
        }
        let lmr = (parts.carrier.register(&segment.bytes, true))
            .map_err(|e| Reason::from_error("the adapter refuses the registration", &e))?;
        let told = Told {
            context: lmr.rmr_context(),
            address: lmr.address(),
            len: lmr.len_bytes(),
            helped: false,
        };
        let wakes = segment.wakes;
        let offer = Offer::Memory { wakes };
        parts.target.offer(lmr.rmr_context(), offer)?;
        parts.memory.add(&segment.bytes, &lmr);
        Ok(Export {
            descriptor: told.encode(),
            guard: Box::new(Exported {
                lmr,
                memory: Arc::clone(&parts.memory),
                target: Arc::clone(&parts.target),
            }),
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason> {
        self.parts()?;
        Told::decode(descriptor)?;
        address_of::<C>(peer).map(|_| Cost::NETWORK)
    }

    /// Only notes the address: the first transfer connects.
    fn attach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason> {
        let parts = self.parts()?;
        let told = Told::decode(descriptor)?;
        parts.origin.note(peer.rank, address_of::<C>(peer)?);
        let remote = RemoteRange::new(told.address, told.len, origin::key(peer.rank, told.context));
        let queue = Arc::clone(&parts.queue);
        let posted = Posted::new(queue, peer.rank, remote);
        Ok(Route::Posted(if told.helped {
            posted.helped()
        } else {
            posted
        }))
    }
}

/// What the helper thread drives.
struct Server<C: Carrier> {
    carrier: Arc<C>,
    target: Arc<Target<C>>,
    origin: Arc<Origin<C>>,
}

impl<C: Carrier> Serve for Server<C> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.carrier.fd()
    }

    fn step(&self) -> bool {
        self.carrier.rearm();
        let moved = self.carrier.step();
        // Both: what one step brought in is answered before the next sleep.
        self.target.serve() | moved
    }

    fn finish(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        while !self.origin.has_arrived() && Instant::now() < until {
            if !self.step() {
                idle_on(self.carrier.fd(), Duration::from_millis(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_mem::MemFile;
    use windlass_node::control::Control;
    use windlass_wire::Secret;

    use super::*;
    use crate::huge::Small;
    use crate::mechanism::{Engine, Fault, Place, PostError, Pushed};
    use crate::region::Backing;

    /// Two ranks of one process, whose adapters move when they are told.
    struct Pair {
        ranks: [Udapl<Soft>; 2],
        memory: Segment,
        _control: MemFile,
    }

    impl Pair {
        fn new() -> Pair {
            let (control, file) = Control::create(2, 2).expect("a control segment");
            let secret = Secret::random();
            let health = Arc::<Health>::default();
            let rank = |rank| {
                let bind = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 0);
                let secret = secret.clone();
                let soft = Soft::open(Config { secret, bind }).expect("an adapter");
                let keeper = Keeper::new(control.clone(), Arc::clone(&health), rank);
                let parts = Parts::with(soft, (rank, 2), &health, &keeper).expect("it starts");
                Udapl { parts: Ok(parts) }
            };
            let backing = MemFile::create("udapl-test", 4096).expect("a file");
            let bytes = backing.map(0, 4096).expect("mapped");
            Pair {
                ranks: [rank(0), rank(1)],
                memory: Segment::new(
                    0,
                    bytes,
                    Backing::File {
                        file: backing,
                        small: Small::Untried,
                        read_only: false,
                    },
                    false,
                ),
                _control: file,
            }
        }

        /// Rank 1's memory as rank 0 names it, and what keeps it reachable.
        fn export(&self) -> (RemoteRange, Export) {
            let export = self.ranks[1].export(&self.memory).expect("exported");
            let peer = Peer {
                rank: 1,
                node: 1,
                place: Place::Vh,
                local: 0,
                pid: 0,
                start_time: 0,
                cards: vec![(MechanismId::Udapl, self.ranks[1].card())],
            };
            let told = Told::decode(&export.descriptor).expect("its own descriptor");
            let origin = self.origin();
            origin.note(1, address_of::<Soft>(&peer).expect("its own card"));
            let key = origin::key(1, told.context);
            (RemoteRange::new(told.address, told.len, key), export)
        }

        fn origin(&self) -> &Origin<Soft> {
            &self.ranks[0].parts().expect("an adapter").origin
        }

        fn step(&self) {
            for rank in &self.ranks {
                let parts = rank.parts().expect("an adapter");
                assert!(parts.origin.poll().is_none(), "a push has no ticket");
                parts.carrier.step();
                parts.target.serve();
            }
        }

        /// A push, and the mark behind it.
        fn push(&self, to: RemoteRange, byte: u8) -> Pushed {
            loop {
                match self
                    .origin()
                    .push(to.part(0, 8).expect("inside"), &[byte; 8])
                {
                    Ok(()) => return self.origin().pushed(1),
                    Err(PostError::Full) => self.step(),
                    Err(PostError::Fault(fault)) => panic!("{fault}"),
                }
            }
        }

        fn settle(&self, mark: Pushed) {
            while !self.origin().settled(1, mark) {
                self.step();
            }
        }
    }

    #[test]
    fn a_later_push_does_not_unsettle_what_was_before() {
        let pair = Pair::new();
        let (to, _export) = pair.export();
        let origin = pair.origin();
        assert!(origin.settled(1, origin.pushed(1)), "nothing was pushed");
        let first = pair.push(to, 1);
        pair.settle(first);
        let second = pair.push(to, 2);
        assert!(origin.settled(1, first) && !origin.settled(1, second));
        pair.settle(second);
        let mut seen = [0; 8];
        pair.memory.bytes.read(0, &mut seen).expect("inside");
        assert_eq!(seen, [2; 8]);
    }

    #[test]
    fn a_refused_push_is_told_to_its_window_and_the_next_one_connects_again() {
        let pair = Pair::new();
        let (to, export) = pair.export();
        let origin = pair.origin();
        pair.settle(pair.push(to, 1));
        drop(export);
        let before = pair.push(RemoteRange { window: 7, ..to }, 2);
        pair.settle(before);
        assert!(origin.failed(1, 0).is_none() && origin.failed(1, 8).is_none());
        assert!(matches!(origin.failed(1, 7), Some(Fault::Access(_))));
        assert!(origin.failed(1, 7).is_none(), "told once");
        let (to, _export) = pair.export();
        let after = pair.push(RemoteRange { window: 7, ..to }, 3);
        assert!(after.connection > before.connection);
        assert!(origin.settled(1, before) && !origin.settled(1, after));
        pair.settle(after);
        assert!(origin.failed(1, 7).is_none());
        let mut seen = [0; 8];
        pair.memory.bytes.read(0, &mut seen).expect("inside");
        assert_eq!(seen, [3; 8]);
    }
}
