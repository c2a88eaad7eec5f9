//! The node service: the one process of a node that knows all its ranks.
//!
//! Hosted by the launcher, or by the process itself in a job of one. It owns the node's control
//! segment, keeps files for withdrawal, plays VEOS and IVED for the emulated VEs, and is the
//! node's end of the links to other nodes. One thread accepts, one serves each rank.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use windlass_ve::Profile;
use windlass_wire::Secret;

use crate::channel::again;
use crate::config::{Link, NodeConfig, Plan};
use crate::control::Control;
use crate::crew::{Crew, Visitors};
use crate::error::{Cause, Error};
use crate::home::Home;
use crate::hub::Hub;
use crate::links::Links;
use crate::name::NodeName;
use crate::serve::serve;
use crate::wire::{NodeKind, StopReport};

/// Connections the kernel holds while the service has not accepted them.
pub(crate) const BACKLOG: i32 = 512;

/// What a service tells its host. Each is about a rank of this node unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A rank joined.
    Joined {
        /// World rank.
        rank: u32,
        /// Its process.
        pid: i32,
    },
    /// A rank said goodbye.
    Ended {
        /// World rank.
        rank: u32,
    },
    /// A rank asked for the job to be ended.
    Abort {
        /// World rank.
        rank: u32,
        /// The exit code it wants reported.
        code: i32,
        /// Its reason.
        message: String,
    },
    /// A rank's connection or process ended without a goodbye.
    Lost {
        /// World rank.
        rank: u32,
    },
    /// The link to another node's service broke.
    LinkLost {
        /// Number of that node.
        node: u32,
    },
    /// The service of another node told of the job's first trouble there.
    Elsewhere {
        /// What happened.
        cause: Cause,
    },
    /// A process that is no rank entered.
    Entered {
        /// Its process.
        pid: i32,
    },
    /// It ended, in whatever way.
    Left {
        /// Its process.
        pid: i32,
    },
    /// Whoever may has stopped the node: its host ends it.
    Stop,
}

/// Where a node without ranks is entered.
#[derive(Debug)]
pub enum Door {
    /// In a private directory under this one: for processes of this user.
    Private(PathBuf),
    /// By its name, for every user of the machine, or for one where the name says so.
    Named(NodeName, UnixListener),
}

/// A running node service. Dropping it ends all connections, joins all threads and removes the
/// socket and its directory.
pub struct Service {
    hub: Arc<Hub>,
    links: Links,
    visitors: Arc<Visitors>,
    crew: Arc<Crew>,
    wake: Arc<OwnedFd>,
    home: Option<Home>,
    socket_path: PathBuf,
}

impl Service {
    /// Starts a service. A leaf returns once its link to the root stands; the root does not wait
    /// for its leaves, so services of one process are started root first.
    pub fn start(config: NodeConfig, events: Sender<Event>) -> Result<Self, Error> {
        let plan = Plan::check(&config)?;
        let home = Home::create(&config.base, &plan.job, plan.node)?;
        let listener = listen_at(&home.socket_path())?;
        let kind = NodeKind::Job(plan.job.to_string());
        let network = config.network()?;
        let hub = Hub::new(plan, kind, false, config.profile, network, events)?;
        let hub = Arc::new(hub);
        let links = Links::start(&hub, config.link, &config.secret)?;
        Self::begin(hub, links, listener, Some(home))
    }

    /// Starts a service without ranks: for visitors only.
    pub fn open(
        ves: u32,
        profile: Profile,
        door: Door,
        events: Sender<Event>,
    ) -> Result<Self, Error> {
        let plan = Plan::without_ranks(ves)?;
        let (home, listener, kind, open) = match door {
            Door::Private(base) => {
                let home = Home::create(&base, &plan.job, plan.node)?;
                let listener = listen_at(&home.socket_path())?;
                (Some(home), listener, NodeKind::Private, false)
            }
            Door::Named(name, listener) => {
                // Again: the credentials that clients see are from now on this process's.
                listen(&listener, BACKLOG).map_err(|errno| Error::system("listen", errno))?;
                let open = !name.is_own();
                (None, listener, NodeKind::Named(name.to_string()), open)
            }
        };
        let hub = Arc::new(Hub::new(plan, kind, open, profile, None, events)?);
        let links = Links::start(&hub, Link::Alone, &Secret::random())?;
        Self::begin(hub, links, listener, home)
    }

    fn begin(
        hub: Arc<Hub>,
        links: Links,
        listener: UnixListener,
        home: Option<Home>,
    ) -> Result<Self, Error> {
        let socket_path = home.as_ref().map(Home::socket_path).unwrap_or_default();
        let service = Self {
            hub,
            links,
            visitors: Arc::default(),
            crew: Arc::default(),
            wake: wake_fd()?,
            home,
            socket_path,
        };
        service.spawn_acceptor(listener)?;
        Ok(service)
    }

    /// The socket that processes of this node join by; empty for a named node.
    pub fn socket_path(&self) -> &Path {
        &self.socket_path
    }

    /// The node's control segment.
    pub fn control(&self) -> &Control {
        &self.hub.control
    }

    /// World ranks of this node in ascending order; the position is the local rank.
    pub fn locals(&self) -> &[u32] {
        &self.hub.plan.locals
    }

    /// Closes a node without ranks for good if nobody is in it, so that its host can end it. Who comes later is turned away
    /// unanswered, and starts the next.
    pub fn close_if_empty(&self) -> bool {
        self.hub.people.close_if_empty()
    }

    /// Stops VEOS of every VE: kills the processes on them, and those attached to their memory (spec ve-memory section 6).
    pub fn stop_veos(&self) -> StopReport {
        self.hub.stop_ves(0..self.hub.plan.ves)
    }

    /// Ends the service; the same as dropping it.
    pub fn stop(self) {}

    fn spawn_acceptor(&self, listener: UnixListener) -> Result<(), Error> {
        let (hub, visitors) = (Arc::clone(&self.hub), Arc::clone(&self.visitors));
        let (crew, wake) = (Arc::clone(&self.crew), Arc::clone(&self.wake));
        self.crew.spawn("node-accept", move || {
            accept_loop(
                &listener,
                &wake,
                || hub.stopping(),
                || {
                    let (socket, _) = listener.accept()?;
                    let socket = Arc::new(socket);
                    let Some(visit) = visitors.enter(Arc::clone(&socket) as _) else {
                        return Ok(());
                    };
                    let hub = Arc::clone(&hub);
                    let spawned = crew.spawn("node-rank", move || serve(&hub, &visit, socket));
                    if let Err(error) = spawned {
                        tracing::warn!(%error, "a connection to the node service was closed");
                    }
                    Ok(())
                },
            );
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.hub.stop();
        signal(&self.wake);
        self.links.stop(&self.hub);
        self.visitors.close();
        self.crew.join();
        // Last, so that its lock says "alive" while anything of the service still runs.
        self.home.take();
    }
}

/// An event descriptor that wakes an accept loop for good.
pub(crate) fn wake_fd() -> Result<Arc<OwnedFd>, Error> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    eventfd(0, flags)
        .map(Arc::new)
        .map_err(|errno| Error::system("eventfd", errno))
}

/// Wakes it. It is never read, so it stays awake.
pub(crate) fn signal(wake: &OwnedFd) {
    if let Err(errno) = rustix::io::write(wake, &1u64.to_ne_bytes()) {
        tracing::error!(%errno, "a service thread could not be woken");
    }
}

/// Calls `accept` for each connection until `done` says so after a wake-up.
pub(crate) fn accept_loop(
    listener: &impl AsFd,
    wake: &OwnedFd,
    done: impl Fn() -> bool,
    mut accept: impl FnMut() -> std::io::Result<()>,
) {
    let mut failing = false;
    loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(wake, PollFlags::IN),
        ];
        if let Err(errno) = again(|| poll(&mut fds, None)) {
            tracing::error!(%errno, "a listener cannot be waited for");
            return;
        }
        if !fds[1].revents().is_empty() && done() {
            return;
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        match accept() {
            Ok(()) => failing = false,
            // No descriptors or memory left: the connection stays queued. Say it once, do not spin.
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "connections cannot be accepted at the moment");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A listening socket of mode 0600 whatever the umask: its mode is that of the socket at `bind`.
fn listen_at(path: &Path) -> Result<UnixListener, Error> {
    let failed = |call: &'static str| {
        let path = path.to_owned();
        move |errno: Errno| Error::Path { call, path, errno }
    };
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| Error::system("socket", errno))?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed("fchmod"))?;
    let address = SocketAddrUnix::new(path).map_err(failed("bind"))?;
    bind(&socket, &address).map_err(failed("bind"))?;
    listen(&socket, BACKLOG).map_err(failed("listen"))?;
    Ok(UnixListener::from(socket))
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("socket_path", &self.socket_path)
            .finish_non_exhaustive()
    }
}
