//! How a process that is no Rust rank, a C program, gets to the VE node.
//!
//! By the environment: under `windlass run` it is a rank of the job; with `WINDLASS_NODE_NAME` it shares the node of that name
//! with whoever else names it; otherwise it has a node of its own, private to it and its descendants. The service of a named or
//! private node is a process of its own that its first user starts and that ends with its last (`start`).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::client::{Client, VeClient};
use crate::config::Place;
use crate::error::Error;
use crate::home::own_uid;
use crate::name::{Address, NodeName};
use crate::overruled::overruled;
use crate::start;
use crate::visitor::{Visitor, Watcher};

/// Where the job's node listens; set by the launcher.
const NODE: &str = "WINDLASS_NODE";
/// Which rank this is; set by the launcher.
const RANK: &str = "WINDLASS_RANK";
/// The name of a node to share.
const NAME: &str = "WINDLASS_NODE_NAME";
/// Where the private node of an ancestor listens; set by the libraries for what their process starts.
const PRIVATE: &str = "WINDLASS_VE_SOCKET";
/// The variables that this module and the library of segments read, and what for.
pub const VARIABLES: &[(&str, &str)] = &[
    (
        NAME,
        "the VE node that separately started C programs share, with other users unless it begins with own-: 1 to 32 of a-z, 0-9 and -; default: a private node",
    ),
    (
        "WINDLASS_LAUNCHER",
        "the command that C programs started without it use for their VE node; default: windlass beside the library, or in PATH",
    ),
    (
        "WINDLASS_RSM_SEGMENTID",
        "the file of segment ids that are reserved for applications; default: /etc/rsm/rsm.segmentid",
    ),
];
/// How long first users of a node, and users of one that is ending, may get in each other's way.
const CROWD_TIME: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(2);

/// How a process that is no rank (a C program) gets to the VE node.
pub struct Entered {
    /// The way to VEOS and IVED, for [`windlass_ve::Process::join`].
    pub control: Arc<dyn windlass_ve::Control>,
    /// The VE this process is on; `None`: it is a VH process. Of a rank, its place counts and not what was asked for.
    pub ve: Option<u32>,
    /// The rank this is, under `windlass run`.
    pub rank: Option<u32>,
    seat: Seat,
    address: Address,
    private: bool,
    pid: i32,
    ended: AtomicBool,
}

enum Seat {
    Rank(Arc<Client>),
    Visitor(Arc<Visitor>),
}

/// On VE `ve` (`None`: a VH process), by the environment: the job's node under `windlass run` (as the rank it is), else the node
/// named by `WINDLASS_NODE_NAME`, else one private to this process and its descendants.
///
/// A rank lives on its place, whatever `ve` says. Where the rank has a process already, one that started this one say, this one
/// enters as a visitor.
///
/// # Errors
/// [`Error::Config`] for a variable that is not understood; [`Error::Start`] where no service can be started; [`Error::Refused`]
/// by the node, for a VE that is not there, say.
pub fn enter(ve: Option<u32>) -> Result<Entered, Error> {
    enter_with(ve, None)
}

/// The same; a process that nothing names a node for shares one with all that give the same `kin`: those that one program forks.
///
/// # Errors
/// As [`enter`].
pub fn enter_with(ve: Option<u32>, kin: Option<&Kin>) -> Result<Entered, Error> {
    let Some(rank) = variable(RANK)? else {
        return visit_with(ve, kin);
    };
    let rank: u32 = rank
        .parse()
        .map_err(|_| wrong(RANK, &rank, "a rank, set by the launcher"))?;
    let socket = job_socket()?;
    let (client, welcome) = match Client::join(&socket, rank) {
        Err(Error::Taken(why)) => {
            tracing::debug!(why, "entering as a visitor");
            return visit_with(ve, kin);
        }
        other => other?,
    };
    let client = Arc::new(client);
    let place = welcome
        .members
        .get(rank as usize)
        .map(|member| member.place);
    Ok(Entered {
        control: Arc::new(VeClient(Arc::clone(&client))),
        ve: match place {
            Some(Place::Ve(number)) => Some(number),
            _ => None,
        },
        rank: Some(rank),
        seat: Seat::Rank(client),
        address: Address::Path(socket),
        private: false,
        pid: own_pid(),
        ended: AtomicBool::new(false),
    })
}

/// The same as a visitor, also under `windlass run`: for a helper process of a rank, on a VE of its own.
///
/// # Errors
/// As [`enter`].
pub fn visit(ve: Option<u32>) -> Result<Entered, Error> {
    visit_with(ve, None)
}

/// The same, with `kin` as in [`enter_with`].
///
/// # Errors
/// As [`enter`].
pub fn visit_with(ve: Option<u32>, kin: Option<&Kin>) -> Result<Entered, Error> {
    refuse_privilege()?;
    if variable(RANK)?.is_some() {
        return visit_by_path(job_socket()?, false, ve);
    }
    if let Some(name) = variable(NAME)? {
        let node = name
            .parse()
            .map_err(|_| wrong(NAME, &name, NodeName::ACCEPTED))?;
        return visit_named(node, false, ve);
    }
    if let Some(text) = variable(PRIVATE)? {
        if let Some(kin) = Kin::of(&text) {
            return visit_kin(kin, ve);
        }
        match visit_by_path(text.into(), true, ve) {
            // The ancestor that it was private to has ended, with its node.
            Err(error) if is_gone(&error) => {}
            other => return other,
        }
    }
    if let Some(kin) = kin {
        return visit_kin(kin.clone(), ve);
    }
    let path = start::private()?;
    at(Address::Path(path), true, ve)
}

/// The node of the processes of one program, for one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Of this user; another one's processes are refused.
    pub user: u32,
    /// A name that begins with `own-`.
    pub name: NodeName,
}

/// Before a [`Kin`] in the variable that a library sets for the programs that its process starts; else it is a path.
const KIN: char = '@';

impl Kin {
    fn of(text: &str) -> Option<Self> {
        let (user, name) = text.strip_prefix(KIN)?.split_once('.')?;
        let (user, name) = (user.parse().ok()?, name.parse().ok()?);
        Some(Self { user, name })
    }
}

impl Address {
    /// The address in that variable, `WINDLASS_VE_SOCKET`.
    pub fn told(text: &str) -> Self {
        match Kin::of(text) {
            Some(kin) => Self::Named(kin.name),
            None => Self::Path(text.into()),
        }
    }
}

fn visit_kin(kin: Kin, ve: Option<u32>) -> Result<Entered, Error> {
    let own = own_uid();
    if kin.user != own {
        return Err(Error::Config(format!(
            "the VE node is private to user {}, and this process is of user {own}; give all of them a name in {NAME} that does not begin with own-",
            kin.user
        )));
    }
    visit_named(kin.name, true, ve)
}

fn at(address: Address, private: bool, ve: Option<u32>) -> Result<Entered, Error> {
    let visitor = Arc::new(Visitor::enter(&address, ve)?);
    Ok(Entered {
        control: Arc::clone(&visitor) as _,
        ve,
        rank: None,
        seat: Seat::Visitor(visitor),
        address,
        private,
        pid: own_pid(),
        ended: AtomicBool::new(false),
    })
}

/// Of a crowd that comes at once the service closes the oldest (`crew`): who was turned away unanswered comes again, until it is
/// admitted or nobody listens.
fn visit_by_path(path: PathBuf, private: bool, ve: Option<u32>) -> Result<Entered, Error> {
    let deadline = Instant::now() + CROWD_TIME;
    loop {
        match at(Address::Path(path.clone()), private, ve) {
            Err(Error::Gone) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// Whoever binds the name starts its service, all others connect; a service that ends with its last user while this one connects
/// is followed by the next.
fn visit_named(name: NodeName, private: bool, ve: Option<u32>) -> Result<Entered, Error> {
    let address = Address::Named(name.clone());
    let deadline = Instant::now() + CROWD_TIME;
    loop {
        let tried = at(address.clone(), private, ve);
        let error = match tried {
            Err(error) if is_gone(&error) => error,
            Err(Error::Late | Error::Malformed(_)) => return Err(squatted(&name)),
            other => return other,
        };
        if let Some(listener) = name.bind()? {
            start::named(&name, listener)?;
        } else if Instant::now() > deadline {
            tracing::debug!(%error, "the last answer");
            return Err(squatted(&name));
        } else {
            std::thread::sleep(PAUSE);
        }
    }
}

fn squatted(name: &NodeName) -> Error {
    let whose = match Address::Named(name.clone()).holder() {
        Some(holder) => format!("process {} of user {}", holder.pid, holder.uid),
        None => "a process".into(),
    };
    Error::Start(format!(
        "{NAME}={name}: {whose} holds the name and does not answer as a node service of this version; choose another name"
    ))
}

/// Nobody listens, or whoever listened has ended.
fn is_gone(error: &Error) -> bool {
    match error {
        Error::Gone => true,
        Error::Path { errno, .. } => matches!(*errno, Errno::CONNREFUSED | Errno::NOENT),
        _ => false,
    }
}

impl Entered {
    /// The way to the node's segments, for [`windlass_rsm::Controller::open`].
    pub fn segments(&self) -> Arc<dyn windlass_rsm::Control> {
        match &self.seat {
            Seat::Rank(client) => Arc::clone(client) as _,
            Seat::Visitor(visitor) => Arc::clone(visitor) as _,
        }
    }

    /// Says that this process ends in good order: of a rank, so that its exit counts as success. For a library's destructor; does
    /// nothing the second time, and nothing in a fork child, whose parent goes on.
    ///
    /// What the process has on its VE stays until it is gone: buffers that are still to be written may lie there, and threads
    /// run on.
    pub fn goodbye(&self) {
        if self.is_inherited() || self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Seat::Rank(client) = &self.seat
            && let Err(error) = client.farewell()
        {
            tracing::debug!(%error, "the node's service did not hear the goodbye");
        }
    }

    /// Whether this process is a fork child of the one that entered. Nothing of its parent's connection may be used: drop this and
    /// everything made from its `control`, which closes the child's copy of the connection and says nothing, and [`visit`] as
    /// what the child is, a process of its own; [`variable`](Self::variable) leads it to the same node.
    pub fn is_inherited(&self) -> bool {
        self.pid != own_pid()
    }

    /// For a fork handler in the child: closes the child's copy of the connection, without a word, and frees nothing. A child that
    /// kept it would keep its parent alive in VEOS's eyes.
    pub fn abandon(&self) {
        match &self.seat {
            Seat::Rank(client) => client.abandon(),
            Seat::Visitor(visitor) => visitor.abandon(),
        }
    }

    /// Whether nobody else is on the node, and no program that was started apart can come there.
    pub fn is_alone(&self) -> bool {
        let own = matches!(&self.address, Address::Named(name) if name.is_own());
        let status = || Watcher::look(&self.address).ok()?.status().ok();
        (self.private || own) && status().is_some_and(|node| node.ranks + node.visitors == 1)
    }

    /// What this process's environment says of the Vector Engines though its node was started with something else.
    pub fn overruled(&self) -> Vec<String> {
        overruled(&self.address)
    }

    /// What the library puts into the environment, so that what this process forks and executes finds the same node.
    pub fn variable(&self) -> Option<(&'static str, PathBuf)> {
        match &self.address {
            Address::Path(path) if self.private => Some((PRIVATE, path.clone())),
            Address::Named(name) if self.private => {
                let user = own_uid();
                Some((PRIVATE, PathBuf::from(format!("{KIN}{user}.{name}"))))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered")
            .field("address", &self.address)
            .field("ve", &self.ve)
            .field("rank", &self.rank)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// A program with more rights than its caller must not start what the caller's environment names (reliability S8).
fn refuse_privilege() -> Result<(), Error> {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    if geteuid() == getuid() && getegid() == getgid() {
        return Ok(());
    }
    Err(Error::Config(
        "a set-user-id program cannot use the emulated VE node; start it with the user's own rights".into(),
    ))
}

fn job_socket() -> Result<PathBuf, Error> {
    let socket = variable(NODE)?;
    let socket =
        socket.ok_or_else(|| wrong(NODE, "", "what the launcher sets; use `windlass run`"))?;
    Ok(PathBuf::from(socket))
}

fn variable(name: &'static str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(value)) => {
            Err(wrong(name, &value.to_string_lossy(), "text"))
        }
    }
}

fn wrong(name: &str, value: &str, accepted: &str) -> Error {
    Error::Config(format!("{name}={value} is not accepted; give {accepted}"))
}
