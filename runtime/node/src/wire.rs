//! Every control message of a job: between a rank and its node's service (Unix socket), and
//! between the services of two nodes (authenticated TCP).
//!
//! A message is one frame of `windlass-wire` (length first, at most 64 KiB, checked before
//! anything is allocated: spec reliability S7). Its first byte says how many files travel with
//! it, the rest is the postcard encoding of one enum of this page; nothing may follow it. The
//! first frame of a connection is a greeting of fixed layout, so that any two versions can tell
//! each other apart. Decoding never panics and never recurses.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use windlass_ve::Damage;
use windlass_wire::{Put, Take};

use crate::config::{JobId, Member};
use crate::error::{Cause, Error, Malformed};

/// Most bytes of one message with its file count (spec reliability S7).
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most files of one message.
pub const MAX_FILES: usize = 16;
/// Most bytes of the reason of an abort.
pub const MAX_REASON: usize = 1024;
/// Most bytes of gathered parts in one reply.
pub(crate) const MAX_PARTS: usize = 48 * 1024;
/// Version of this page. Raised with every change of a message.
pub const VERSION: u16 = 7;

const MAGIC: u32 = u32::from_le_bytes(*b"WNDL");

/// Names a deposited file. 128 random bits: who does not know it cannot ask for the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    // The value is a capability: it does not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The first message to a service: who wants what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// A rank of the job joins: its world rank.
    Rank(u32),
    /// A process that is no rank wants to use the VE node: on this VE, or as a VH process.
    Visitor(Option<u32>),
    /// Somebody asks how the node is, or has it stopped.
    Watcher,
}

/// The first message of a leaf's service to the root's, after the authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkGreeting {
    /// The job the leaf belongs to.
    pub job: JobId,
    /// Its node.
    pub node: u32,
}

/// What a rank asks of its node's service. Each is answered by one [`Reply`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// The rank ends its part of the job in good order.
    Goodbye,
    /// The rank wants the job ended.
    Abort {
        /// Exit code to be reported.
        code: i32,
        /// Why.
        message: String,
    },
    /// Keep the one file that travels with this.
    Deposit,
    /// Give the file of this token.
    Withdraw {
        /// From a deposit of any rank of this node.
        token: Token,
    },
    /// Forget a file this rank deposited.
    Revoke {
        /// From its deposit.
        token: Token,
    },
    /// A rank's part of a gather round, to be sent to all other nodes.
    GatherPart {
        /// Rounds count upwards by one.
        round: u64,
        /// World rank of this node whose part it is.
        rank: u32,
        /// The part.
        blob: Vec<u8>,
    },
    /// The parts of other nodes' ranks.
    GatherCollect {
        /// The round.
        round: u64,
        /// How many the caller has already.
        have: u32,
    },
    /// A call to VEOS or IVED.
    Ve(windlass_ve::Request),
    /// How is the node?
    Status,
    /// Stop VEOS of one VE, as a reset of the card does.
    StopVe {
        /// Number of the VE.
        ve: u32,
    },
    /// Stop VEOS of every VE and end the service.
    Stop,
    /// Make VEOS or IVED answer as when something is broken.
    Fault(Fault),
    /// A call about segments; its files travel with this.
    Rsm(windlass_rsm::Request),
}

/// What a test may break, or mend, to see what programs make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// VEOS has no connection to IVED (spec ve-memory section 5).
    IvedAbsent,
    /// IVED's answers are lost.
    IvedUnreachable,
    /// IVED answers.
    IvedConnected,
    /// What is known of the VE process of this pid is wrong.
    Process(i32, Damage),
}

impl std::str::FromStr for Fault {
    type Err = Error;

    /// `ived=absent`, `ived=unreachable`, `ived=connected`, `swapped=PID`, `resident=PID`, `doubled=PID`, `counted=PID`, `forgotten=PID`, `halted=PID`
    /// or `running=PID`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let of = |digits: &str, damage| digits.parse().ok().map(|pid| Self::Process(pid, damage));
        let fault = match text.split_once('=') {
            Some(("ived", "absent")) => Some(Self::IvedAbsent),
            Some(("ived", "unreachable")) => Some(Self::IvedUnreachable),
            Some(("ived", "connected")) => Some(Self::IvedConnected),
            Some(("swapped", pid)) => of(pid, Damage::SwappedOut),
            Some(("resident", pid)) => of(pid, Damage::SwappedIn),
            Some(("doubled", pid)) => of(pid, Damage::Doubled),
            Some(("counted", pid)) => of(pid, Damage::Counted),
            Some(("forgotten", pid)) => of(pid, Damage::Forgotten),
            Some(("halted", pid)) => of(pid, Damage::Halted),
            Some(("running", pid)) => of(pid, Damage::Running),
            _ => None,
        };
        fault.ok_or_else(|| {
            Error::Config(format!(
                "{text} is no fault: give ived=absent, ived=unreachable, ived=connected, or swapped, resident, doubled, counted, forgotten, halted or running=PID"
            ))
        })
    }
}

/// What the service answers. The first variant keeps its place in all versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// No, and why.
    Refused(String),
    /// The greeting was accepted; the control segment travels with this.
    Welcome(Greeted),
    /// Done.
    Done,
    /// The file is kept under this token.
    Deposited(Token),
    /// The file travels with this.
    File,
    /// Parts the caller did not have; more come unless complete.
    Parts {
        /// World rank and part.
        parts: Vec<(u32, Vec<u8>)>,
        /// Whether these are the round's last.
        complete: bool,
    },
    /// The job is broken.
    Broken(Cause),
    /// VEOS's or IVED's answer; its files travel with this.
    Ve(Result<windlass_ve::Reply, windlass_ve::Errno>),
    /// The rank has a process already, or had one.
    Taken(String),
    /// A visitor may use the VE node.
    Admitted,
    /// To [`Request::Status`].
    Status(Status),
    /// VEOS is stopped.
    Stopped(StopReport),
    /// To [`Request::Rsm`]; its files travel with this.
    Rsm(windlass_rsm::Reply),
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What it is for.
    pub kind: NodeKind,
    /// Process of the service.
    pub pid: i32,
    /// User it runs as.
    pub uid: u32,
    /// The cards, by a name that [`windlass_ve::Profile`] reads.
    pub profile: String,
    /// Whose errno values they answer: `implemented` or `documented`.
    pub errno: String,
    /// Joined ranks.
    pub ranks: u32,
    /// Joined processes that are no ranks.
    pub visitors: u32,
    /// Each VE, in order.
    pub ves: Vec<VeStatus>,
}

/// What a node is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// The ranks of a job, and what they start.
    Job(String),
    /// One process and its descendants.
    Private,
    /// Whoever knows the name.
    Named(String),
}

/// How a VE is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeStatus {
    /// VEOS runs.
    pub running: bool,
    /// Joined processes on it.
    pub processes: u32,
    /// Free memory in bytes.
    pub free_bytes: u64,
    /// Free slots of the PCIATB.
    pub free_pciatb_slots: u64,
    /// Free directories of the DMAATB.
    pub free_dmaatb_directories: u64,
}

/// Whom a stop of VEOS has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReport {
    /// Processes that are dead: those on the VE, and those on others that were attached to its memory.
    pub killed: Vec<i32>,
    /// Processes that could not be killed: of another user, while the service is not root's. Their connections are closed.
    pub spared: Vec<i32>,
}

/// What a rank learns when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeted {
    /// The job.
    pub job: JobId,
    /// Number of this node.
    pub node: u32,
    /// Nodes of the job.
    pub nodes: u32,
    /// All ranks, in their order.
    pub members: Vec<Member>,
    /// Vector Engines of this node.
    pub ves: u32,
}

/// What the services of two nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkMessage {
    /// The greeting is refused.
    Refused(String),
    /// The greeting is accepted.
    Welcome,
    /// A rank's part of a gather round.
    Part {
        /// The round.
        round: u64,
        /// World rank whose part it is.
        rank: u32,
        /// The part.
        blob: Vec<u8>,
    },
    /// The job is broken.
    Trouble(Cause),
    /// A rank said goodbye.
    Ended {
        /// World rank.
        rank: u32,
    },
    /// This service ends in good order.
    Bye,
    /// About segments. The root passes it on.
    Rsm {
        /// Node whose it is.
        from: u32,
        /// Node that it is for.
        to: u32,
        /// What it says.
        message: windlass_rsm::Message,
    },
}

/// The body of a greeting.
pub fn encode_greeting(greeting: &Greeting) -> Vec<u8> {
    let (kind, number) = match *greeting {
        Greeting::Rank(rank) => (0, rank),
        Greeting::Visitor(None) => (1, 0),
        Greeting::Visitor(Some(ve)) => (2, ve),
        Greeting::Watcher => (3, 0),
    };
    let mut put = Put::new();
    put.u8(0); // files
    put.u32(MAGIC);
    put.u16(VERSION);
    put.u8(kind);
    put.u32(number);
    put.into_vec()
}

/// The greeting in a frame's body.
pub fn decode_greeting(body: &[u8]) -> Result<Greeting, Malformed> {
    let mut take = greeting_head(body)?;
    let kind = take.u8().map_err(|_| Malformed::Greeting)?;
    let number = take.u32().map_err(|_| Malformed::Greeting)?;
    take.finish().map_err(|_| Malformed::Greeting)?;
    match (kind, number) {
        (0, rank) => Ok(Greeting::Rank(rank)),
        (1, 0) => Ok(Greeting::Visitor(None)),
        (2, ve) => Ok(Greeting::Visitor(Some(ve))),
        (3, 0) => Ok(Greeting::Watcher),
        _ => Err(Malformed::Greeting),
    }
}

/// The body of a link greeting.
pub fn encode_link_greeting(greeting: &LinkGreeting) -> Vec<u8> {
    let mut put = Put::new();
    put.u8(0); // files
    put.u32(MAGIC);
    put.u16(VERSION);
    put.u32(greeting.node);
    put.raw(&greeting.job.0);
    put.into_vec()
}

/// The link greeting in a frame's body.
pub fn decode_link_greeting(body: &[u8]) -> Result<LinkGreeting, Malformed> {
    let mut take = greeting_head(body)?;
    let node = take.u32().map_err(|_| Malformed::Greeting)?;
    let job = take.array().map_err(|_| Malformed::Greeting)?;
    take.finish().map_err(|_| Malformed::Greeting)?;
    Ok(LinkGreeting {
        job: JobId(job),
        node,
    })
}

fn greeting_head(body: &[u8]) -> Result<Take<'_>, Malformed> {
    let mut take = Take::new(body);
    let head = (take.u8(), take.u32());
    if !matches!(head, (Ok(0), Ok(MAGIC))) {
        return Err(Malformed::Greeting);
    }
    match take.u16() {
        Ok(VERSION) => Ok(take),
        Ok(theirs) => Err(Malformed::Version {
            theirs,
            ours: VERSION,
        }),
        Err(_) => Err(Malformed::Greeting),
    }
}

/// The body of a message that `files` files travel with.
pub fn encode<T: Serialize>(message: &T, files: usize) -> Result<Vec<u8>, Error> {
    if files > MAX_FILES {
        return Err(Error::TooLong {
            what: "a list of files",
            len: files,
            max: MAX_FILES,
        });
    }
    let body = postcard::to_extend(message, vec![files as u8])
        .map_err(|error| Error::Config(format!("a message cannot be encoded: {error}")))?;
    if body.len() > MAX_MESSAGE {
        return Err(Error::TooLong {
            what: "a message",
            len: body.len(),
            max: MAX_MESSAGE,
        });
    }
    Ok(body)
}

/// The number of files and the message in a frame's body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<(usize, T), Malformed> {
    let (&files, rest) = body.split_first().ok_or(Malformed::Content(0))?;
    let files = usize::from(files);
    if files > MAX_FILES {
        return Err(Malformed::Files {
            expected: MAX_FILES,
            got: files,
        });
    }
    match postcard::take_from_bytes(rest) {
        Ok((message, [])) => Ok((files, message)),
        _ => Err(Malformed::Content(body.len())),
    }
}

/// The longest beginning of `text` that has at most [`MAX_REASON`] bytes.
pub(crate) fn shorten(text: &str) -> &str {
    let mut end = MAX_REASON.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
