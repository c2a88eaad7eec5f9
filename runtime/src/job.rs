//! Who am I: rank, size, node, place; and everything that lives as long as the job.
//!
//! A rank learns its place from the launcher's environment variables and joins its node service;
//! a program started alone is a job of one rank and hosts its own node. Order of the end:
//! windows, then the helper thread, then the node.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use serde::{Deserialize, Serialize};
use windlass_mem::reback::{self, How, Lease};
use windlass_mem::{Lend, Loan, SharedBytes};
use windlass_node::control::Control;
use windlass_node::{Address, Client, JobId, Link, Member, NodeConfig, Service, Welcome};
use windlass_wire::Secret;

use crate::arena::{Arena, Windows};
use crate::call::{Call, StatusWord};
use crate::environment::{self, Seat as Given};
use crate::error::{Error, Result, cause};
use crate::exchange::{Context, Exchange, Group, Topic};
use crate::gathers::Gathers;
use crate::log;
use crate::mechanism::{MechanismId, Peer, Place, Reason};
use crate::negotiate::{Collective, Negotiator, Reached, shorten};
use crate::progress::{Health, Helper};
use crate::region::{Backing, Region, Segment, lending};
use crate::team::{Members, Team};
use crate::transport;
use crate::transport::native::Native;

/// One job in a process: the control words of a second one would be confused with the first's.
static JOINED: AtomicBool = AtomicBool::new(false);

/// This process's membership of its job.
pub struct Job {
    pub(crate) exchange: Exchange,
    pub(crate) negotiator: Negotiator,
    arena: Arena,
    peers: Arc<[Peer]>,
    rank: u32,
    health: Arc<Health>,
    client: Arc<Client>,
    world: Arc<Members>,
    /// How memory is lent.
    lending: How,
    ended: AtomicBool,
    // Dropped in this order: nobody is served after the helper, no node after the client.
    helper: Option<Helper>,
    /// The synchronisation words as exported to other nodes.
    _words: Arc<Segment>,
    own_node: Option<Service>,
}

/// What a rank tells about itself at start-up.
#[derive(Serialize, Deserialize)]
struct Hello {
    pid: i32,
    start_time: u64,
    /// Of the host: ranks of one host share its cpus.
    host: String,
    cpus: Vec<u16>,
    cards: Vec<(MechanismId, Vec<u8>)>,
    words: Vec<(MechanismId, std::result::Result<Vec<u8>, Reason>)>,
}

impl Job {
    /// Joins the job that the environment names, or starts one of a single rank.
    ///
    /// # Errors
    /// [`Error::Twice`] in a process that has joined before; [`Error::Environment`];
    /// [`Error::Node`].
    pub fn init() -> Result<Arc<Job>> {
        if JOINED.swap(true, Ordering::SeqCst) {
            return Err(Error::Twice);
        }
        let settings = environment::read()?;
        log::to_stderr(settings.log);
        let health = Arc::new(Health::default());
        let seat = settings.seat.map(|given| Ok((warned(given), None)));
        let (given, own_node) = seat.unwrap_or_else(|| alone(settings.ves, settings.profile))?;
        let joined = Client::join(&given.socket, given.rank);
        let (client, mut welcome) = joined.map_err(node_error("joining it"))?;
        let client = Arc::new(client);
        let control = Control::open(&welcome.control);
        let control = control.map_err(node_error("mapping its control segment"))?;
        let windows = real_ves(&mut welcome, given.rank, settings.native)?;
        let exchange = Exchange::new(
            given.rank,
            welcome.nodes,
            welcome.members.iter().map(|member| member.node),
            control,
            Arc::clone(&client),
            Arc::clone(&health),
        );
        exchange.status.enter(Call::Init);
        let emulated = if windows.is_some() { 0 } else { welcome.ves };
        let context = transport::Context {
            rank: given.rank,
            ranks: welcome.members.len() as u32,
            node: welcome.node,
            nodes: welcome.nodes,
            place: place_of(&welcome, given.rank)?,
            client: Arc::clone(&client),
            ve: transport::Context::join_ve(&client, emulated)?,
            native: windows.as_ref().map(|windows| Arc::clone(&windows.0)),
            network: settings.network,
            secret: given.secret,
            health: Arc::clone(&health),
            keeper: exchange.keeper(),
            dat: settings.dat,
            ofi: settings.ofi,
        };
        let (all, forced) = (transport::all(&context)?, settings.forced);
        let arena = Arena::new(&context, windows, &all, forced.as_deref());
        let negotiator = Negotiator::new(all, forced, settings.injected, given.rank);
        let words = Arc::new(words_of(&exchange, arena.segment_id()));
        let helper = Helper::start(Arc::clone(&health), given.life, negotiator.servers());
        let helper = helper.map_err(|source| Error::Node {
            what: "starting the helper thread",
            source: cause(source),
        })?;
        let world = Arc::new(everybody(&exchange, given.rank)?);
        let peers = introduce(&exchange, &world, &negotiator, &words, &welcome, &health)?;
        exchange.status.enter(Call::Compute);
        Ok(Arc::new(Job {
            lending: lending(settings.reback, negotiator.forced(), &peers, given.rank),
            exchange,
            negotiator,
            arena,
            peers,
            rank: given.rank,
            health,
            client,
            world,
            ended: AtomicBool::new(false),
            helper: Some(helper),
            _words: words,
            own_node,
        }))
    }

    /// This process's rank.
    #[inline]
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many ranks the job has.
    #[inline]
    pub fn size(&self) -> u32 {
        self.peers.len() as u32
    }

    /// A rank of the job, or `None` beyond its size.
    pub fn peer(&self, rank: u32) -> Option<&Peer> {
        self.peers.get(rank as usize)
    }

    /// More ranks than cpus on this host?
    pub fn oversubscribed(&self) -> bool {
        self.health.oversubscribed()
    }

    /// Notes what this rank is doing.
    #[inline]
    pub fn enter(&self, call: Call) {
        self.exchange.status.enter(call);
    }

    /// Where it is noted, for those who do so often.
    pub fn status(&self) -> &StatusWord {
        &self.exchange.status
    }

    /// `len_bytes` zeroed bytes of the arena, aligned at least to `align` (a power of two).
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn allocate(&self, len_bytes: usize, align: usize) -> Result<Region> {
        self.arena.allocate(len_bytes, align)
    }

    /// The same for a window: on the rank's VE where it lives on a real one. No address leads there then, and the region's
    /// bytes are empty.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn allocate_window(&self, len_bytes: usize, align: usize) -> Result<Region> {
        self.arena.allocate_window(len_bytes, align)
    }

    /// The same for a window on the host whose part others only read: whoever else writes there is refused.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn allocate_read_only(&self, len_bytes: usize, align: usize) -> Result<Region> {
        self.arena.allocate_read_only(len_bytes, align)
    }

    /// Makes a region of memory that the caller gives up until the window ends.
    pub fn lend<T: bytemuck::Pod + Send, M: Lend<T>>(&self, memory: M) -> (Region, Loan<M>) {
        let (bytes, loan) = windlass_mem::lend(memory);
        (self.lend_bytes(bytes), loan)
    }

    /// The same of a range that the caller has, over borrowed memory, say.
    pub fn lend_bytes(&self, bytes: SharedBytes) -> Region {
        let id = self.arena.segment_id();
        let lease = Lease::new(bytes.clone(), self.lending);
        let segment = Segment::new(id, bytes, Backing::Lent(lease), false);
        Region::of_loan(Arc::new(segment))
    }

    /// All ranks of the job, in their order.
    pub fn team(self: &Arc<Self>) -> Arc<Team> {
        let members = Arc::clone(&self.world);
        Arc::new(Team::of_world(Arc::clone(self), members))
    }

    pub(crate) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// What a rank needs to [`reach`](Self::reach) the region's segment without a collective call.
    /// It is withdrawn when the region goes.
    ///
    /// # Errors
    /// None that this process could cause.
    pub fn offer(&self, region: &Region) -> Result<Vec<u8>> {
        let segment = region.segment();
        self.negotiator.export(segment);
        postcard::to_allocvec(&shorten(segment.descriptors())).map_err(|e| Error::Node {
            what: "encoding offers",
            source: cause(e),
        })
    }

    /// The segment with this number of a rank of the job, by what that rank [`offer`](Self::offer)ed.
    /// Attached once, then remembered until it is [`forget`](Self::forget)ten.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; [`Error::Peer`] for a rank that is not there or offers rubbish.
    pub fn reach(&self, rank: u32, segment: u32, offers: &[u8]) -> Result<Reached> {
        let peer = self.peer(rank).ok_or_else(|| Error::Peer {
            rank,
            message: format!("the job has {} ranks", self.size()),
        })?;
        if let Some(reached) = self.negotiator.known(rank, segment) {
            return Ok(reached);
        }
        let offers = postcard::from_bytes(offers).map_err(|e| Error::Peer {
            rank,
            message: format!("its offers cannot be read: {e}"),
        })?;
        self.negotiator.reach(peer, segment, &offers)
    }

    /// Lets go of a segment that was [`reach`](Self::reach)ed: its rank withdraws it. Routes that
    /// the caller still holds stay attached.
    pub fn forget(&self, rank: u32, segment: u32) {
        self.negotiator.forget([(rank, segment)]);
    }

    /// Ends the job for this rank, after all others have come here too.
    ///
    /// # Errors
    /// A lost or departed peer; the job has ended for this rank all the same.
    pub fn end(&self) -> Result<()> {
        self.enter(Call::End);
        let Members { group, context, .. } = &*self.world;
        let met = self.exchange.barrier(group, context, false);
        self.say_goodbye();
        met
    }

    fn say_goodbye(&self) {
        if !self.ended.swap(true, Ordering::SeqCst) {
            let Members { group, context, .. } = &*self.world;
            self.exchange.desert(group, context, "");
            self.exchange.end();
            // The last barrier's word above all: other nodes still wait for it.
            self.health.finish();
            // The service sees the socket close if this does not arrive.
            let _ = self.client.goodbye();
        }
    }

    /// Ends the whole job at once with an exit code and a message.
    pub fn abort(&self, code: i32, message: &str) -> ! {
        let _ = self.client.abort(code, message);
        std::process::exit(code)
    }
}

impl Drop for Job {
    /// Says goodbye without waiting for anybody.
    fn drop(&mut self) {
        self.say_goodbye();
        self.helper = None;
        self.own_node = None;
        // What was lent is its owner's alone again (measured-designs 1), also where it was kept for the next window.
        if let Err(error) = reback::restore_idle() {
            tracing::debug!(%error, "bringing lent memory back");
        }
    }
}

/// A rank whose environment is another one than its launcher's does not get what it says.
fn warned(given: Given) -> Given {
    for said in windlass_node::overruled(&Address::Path(given.socket.clone())) {
        eprintln!("windlass: warning: {said}");
    }
    given
}

/// The synchronisation words, for the ranks of other nodes.
fn words_of(exchange: &Exchange, id: u32) -> Segment {
    let bytes = exchange.control().bytes().clone();
    let lease = Lease::new(bytes.clone(), How::Never("all of its node have it already"));
    Segment::new(id, bytes, Backing::Lent(lease), true)
}

/// The library of real VEs, if this job's are real and it has some, and the one that this rank's windows lie on.
///
/// Ranks run on the host then, all of them: `welcome` says so from here on.
fn real_ves(welcome: &mut Welcome, rank: u32, wanted: bool) -> Result<Option<Windows>> {
    if !wanted || welcome.ves == 0 {
        return Ok(None);
    }
    let failed = |what: String, source| Error::Native {
        what,
        source: cause(source),
    };
    let library = "the library of the Vector Engines cannot be used";
    let native = Native::load().map_err(|e| failed(library.into(), e))?;
    let place = place_of(welcome, rank)?;
    for member in &mut welcome.members {
        member.place = Place::Vh;
    }
    let Place::Ve(ve) = place else {
        return Ok(Some((native, None)));
    };
    // A VE that is not there is an error of the start, not of the first window.
    let process = native.process(ve);
    process.map_err(|e| failed(format!("no process can be made on VE {ve}"), e))?;
    Ok(Some((native, Some(ve))))
}

fn node_error(what: &'static str) -> impl Fn(windlass_node::Error) -> Error {
    move |source| Error::Node {
        what,
        source: cause(source),
    }
}

/// A node of its own for a program that was started without the launcher.
fn alone(ves: u32, profile: windlass_ve::Profile) -> Result<(Given, Option<Service>)> {
    let place = if ves > 0 { Place::Ve(0) } else { Place::Vh };
    let secret = Secret::random();
    let config = NodeConfig {
        job: JobId::random().map_err(node_error("naming a job"))?,
        node: 0,
        nodes: 1,
        members: vec![Member {
            rank: 0,
            node: 0,
            place,
        }],
        ves,
        profile,
        secret: secret.clone(),
        link: Link::Alone,
        base: windlass_node::base_dir(),
    };
    let (events, _) = mpsc::channel();
    let service = Service::start(config, events).map_err(node_error("starting one of its own"))?;
    let given = Given {
        rank: 0,
        socket: PathBuf::from(service.socket_path()),
        secret,
        life: None::<OwnedFd>,
    };
    Ok((given, Some(service)))
}

/// The team of the whole job.
fn everybody(exchange: &Exchange, rank: u32) -> Result<Members> {
    let ranks = (0..exchange.seats.len() as u32).collect();
    let group = Group::new(ranks, &exchange.seats, rank).ok_or_else(|| Error::Environment {
        variable: "WINDLASS_RANK",
        value: rank.to_string(),
        accepted: format!("0 to {}", exchange.seats.len().saturating_sub(1)),
    })?;
    let context = Context::of_world(&group);
    Ok(Members::new(group, context))
}

fn place_of(welcome: &Welcome, rank: u32) -> Result<Place> {
    let member = welcome.members.get(rank as usize);
    member.map(|m| m.place).ok_or_else(|| Error::Environment {
        variable: "WINDLASS_RANK",
        value: rank.to_string(),
        accepted: format!("0 to {}", welcome.members.len().saturating_sub(1)),
    })
}

/// The first all-gather: who everybody is and how to reach their synchronisation words.
fn introduce(
    exchange: &Exchange,
    world: &Members,
    negotiator: &Negotiator,
    words: &Segment,
    welcome: &Welcome,
    health: &Health,
) -> Result<Arc<[Peer]>> {
    let single = welcome.nodes == 1;
    if !single {
        negotiator.export(words);
    }
    let pid = rustix::process::getpid().as_raw_pid();
    let hello = Hello {
        pid,
        start_time: windlass_mem::cross::start_time(pid).map_err(|source| Error::Node {
            what: "reading this process's start time",
            source: cause(source),
        })?,
        host: environment::host(),
        cpus: environment::cpus(),
        cards: negotiator.cards(),
        words: shorten(words.descriptors()),
    };
    let everybody = Collective {
        exchange,
        members: world,
        peers: &[],
    };
    let hellos: Vec<Hello> = everybody.trade(Topic::Hello, &hello)?;
    let seated = welcome.members.iter().zip(&exchange.seats);
    let peers = seated.zip(&hellos).map(|((member, seat), hello)| Peer {
        rank: member.rank,
        node: member.node,
        place: member.place,
        local: seat.local,
        pid: hello.pid,
        start_time: hello.start_time,
        cards: hello.cards.clone(),
    });
    let peers: Arc<[Peer]> = peers.collect();
    let here: Vec<&Hello> = hellos.iter().filter(|h| h.host == hello.host).collect();
    let mut cpus: Vec<u16> = here.iter().flat_map(|h| h.cpus.iter().copied()).collect();
    cpus.sort_unstable();
    cpus.dedup();
    health.set_oversubscribed(here.len() > cpus.len());
    let mut remote = std::collections::HashMap::new();
    for (peer, hello) in peers.iter().zip(&hellos) {
        if peer.node != welcome.node {
            remote.insert(peer.rank, negotiator.reach_words(peer, &hello.words)?);
        }
    }
    exchange.introduce(remote);
    Ok(peers)
}
