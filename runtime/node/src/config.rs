//! What a node service is started with: the job, its members and where they live.
//!
//! Relies on nothing but the values; promises that a `Plan` (the checked form) is free of
//! contradictions, so that no later code has to ask whether a rank exists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use windlass_rsm::{Key, Network};
use windlass_ve::{MAX_VES, Profile};
use windlass_wire::Secret;

use crate::control::{MAX_LOCAL, MAX_WORLD};
use crate::error::Error;

/// Nodes of one job at most: each but the first is one link of the root service.
pub const MAX_NODES: u32 = 256;

/// The random 128-bit name of a job. Never reused, never guessed, not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobId(pub [u8; 16]);

impl JobId {
    /// A fresh name from the kernel's random source.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The first 16 hexadecimal digits, as they stand in the name of a service's directory.
    pub fn short(&self) -> String {
        hex(&self.0[..8])
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Fills `bytes` from the kernel's random source; at most 256 bytes, which are never cut short.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), Error> {
    debug_assert!(bytes.len() <= 256);
    let got = loop {
        match rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(|errno| Error::system("getrandom", errno))?,
        }
    };
    if got == bytes.len() {
        Ok(())
    } else {
        Err(Error::system("getrandom", rustix::io::Errno::IO))
    }
}

/// Where a rank's code runs and its window memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// The vector host: an ordinary process.
    Vh,
    /// The emulated Vector Engine of this number on its node.
    Ve(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Vh => f.write_str("vh"),
            Place::Ve(number) => write!(f, "ve{number}"),
        }
    }
}

/// One rank of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Number of the rank in the job, from 0.
    pub rank: u32,
    /// Number of the node it lives on, from 0.
    pub node: u32,
    /// Host or Vector Engine.
    pub place: Place,
}

/// How this node's service reaches the services of the other nodes.
#[derive(Debug)]
pub enum Link {
    /// The job has one node: nothing to reach, no port is opened.
    Alone,
    /// Node 0: the others connect to this listener.
    Root {
        /// Bound by the caller to the one interface it wants (loopback for logical nodes).
        listener: TcpListener,
    },
    /// Any other node: connects to the root.
    Leaf {
        /// Where the root listens.
        root: SocketAddr,
    },
}

impl Link {
    /// This node's address on the network by which the nodes are linked.
    fn address(&self) -> io::Result<Option<IpAddr>> {
        match self {
            Link::Alone => Ok(None),
            Link::Root { listener } => Ok(Some(listener.local_addr()?.ip())),
            Link::Leaf { root } => {
                // A datagram socket that is connected has the address it would send from; nothing is sent.
                let any: IpAddr = match root {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let socket = UdpSocket::bind((any, 0))?;
                socket.connect(root)?;
                Ok(Some(socket.local_addr()?.ip()))
            }
        }
    }
}

/// Everything a node service must be told.
#[derive(Debug)]
pub struct NodeConfig {
    /// The job this service belongs to.
    pub job: JobId,
    /// Number of this node, from 0.
    pub node: u32,
    /// Nodes of the job.
    pub nodes: u32,
    /// All ranks of the job, in any order: 0 to n-1, each once.
    pub members: Vec<Member>,
    /// Emulated Vector Engines of this node.
    pub ves: u32,
    /// Which Vector Engine is emulated.
    pub profile: Profile,
    /// The job's secret; the links between nodes are authenticated with it.
    pub secret: Secret,
    /// The way to the other nodes.
    pub link: Link,
    /// Directory in which the service makes its own private one; see [`crate::base_dir`].
    pub base: PathBuf,
}

impl NodeConfig {
    /// What processes of the job reach each other's segments by: a secret that the job's gives, and this node's address.
    pub(crate) fn network(&self) -> Result<Option<Network>, Error> {
        let address = self.link.address();
        let address = address.map_err(|error| Error::io("the address of this node", &error))?;
        let secret = Key::from_bytes(self.secret.code_of(b"segments", &self.job.0));
        Ok(address.map(|address| Network { secret, address }))
    }
}

/// A checked [`NodeConfig`], without what the threads took out of it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) job: JobId,
    pub(crate) node: u32,
    pub(crate) nodes: u32,
    pub(crate) ves: u32,
    /// In the order of ranks: `members[rank].rank == rank`.
    pub(crate) members: Vec<Member>,
    /// World ranks of this node in ascending order; the position is the local rank.
    pub(crate) locals: Vec<u32>,
}

impl Plan {
    /// Checks `config` and keeps what all threads need.
    pub(crate) fn check(config: &NodeConfig) -> Result<Self, Error> {
        let wrong = |text: String| Err(Error::Config(text));
        let size = config.members.len();
        if config.nodes == 0 || config.nodes > MAX_NODES {
            return wrong(format!(
                "{} nodes: a job has 1 to {MAX_NODES}",
                config.nodes
            ));
        }
        if config.node >= config.nodes {
            return wrong(format!(
                "node {} of {}: nodes count from 0",
                config.node, config.nodes
            ));
        }
        if size == 0 || size > MAX_WORLD as usize {
            return wrong(format!("{size} ranks: a job has 1 to {MAX_WORLD}"));
        }
        let members = check_members(config)?;
        let locals: Vec<u32> = members
            .iter()
            .filter(|m| m.node == config.node)
            .map(|m| m.rank)
            .collect();
        if locals.len() > MAX_LOCAL as usize {
            return wrong(format!(
                "{} ranks on node {}: a node holds at most {MAX_LOCAL}; use more nodes",
                locals.len(),
                config.node
            ));
        }
        match (&config.link, config.nodes, config.node) {
            (Link::Alone, 1, _) | (Link::Root { .. }, _, 0) => {}
            (Link::Leaf { .. }, _, node) if node > 0 => {}
            _ => {
                return wrong(format!(
                    "node {} of {}: the only node is alone, node 0 is the root, others are leaves",
                    config.node, config.nodes
                ));
            }
        }
        Ok(Self {
            job: config.job,
            node: config.node,
            nodes: config.nodes,
            ves: config.ves,
            members,
            locals,
        })
    }

    /// A node that nobody but visitors uses.
    pub(crate) fn without_ranks(ves: u32) -> Result<Self, Error> {
        if ves > MAX_VES {
            return Err(Error::Config(format!(
                "{ves} VEs: a node has 0 to {MAX_VES}"
            )));
        }
        Ok(Self {
            job: JobId::random()?,
            node: 0,
            nodes: 1,
            ves,
            members: Vec::new(),
            locals: Vec::new(),
        })
    }

    /// Ranks of the job.
    pub(crate) fn size(&self) -> u32 {
        self.members.len() as u32
    }

    /// The position of a world rank among the ranks of this node.
    pub(crate) fn local_of(&self, rank: u32) -> Option<usize> {
        self.locals.binary_search(&rank).ok()
    }

    /// The node of a world rank.
    pub(crate) fn node_of(&self, rank: u32) -> Option<u32> {
        self.members.get(rank as usize).map(|member| member.node)
    }
}

/// The members in rank order, each where it can live.
fn check_members(config: &NodeConfig) -> Result<Vec<Member>, Error> {
    let wrong = |text: String| Err(Error::Config(text));
    let size = config.members.len();
    let mut members = config.members.clone();
    members.sort_by_key(|member| member.rank);
    for (expected, member) in members.iter().enumerate() {
        if member.rank as usize != expected {
            return wrong(format!(
                "rank {expected} is missing or given twice: {size} ranks are 0 to {}",
                size - 1
            ));
        }
        if member.node >= config.nodes {
            return wrong(format!(
                "rank {expected} lives on node {}: the job has {} nodes, counted from 0",
                member.node, config.nodes
            ));
        }
        if let Place::Ve(number) = member.place
            && member.node == config.node
            && number >= config.ves
        {
            return wrong(format!(
                "rank {expected} lives on VE {number}: node {} has {} VEs, counted from 0",
                config.node, config.ves
            ));
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(node: u32, nodes: u32, members: &[(u32, u32, Place)], link: Link) -> NodeConfig {
        NodeConfig {
            job: JobId([7; 16]),
            node,
            nodes,
            members: members
                .iter()
                .map(|&(rank, node, place)| Member { rank, node, place })
                .collect(),
            ves: 1,
            profile: Profile::VE1,
            secret: Secret::random(),
            link,
            base: PathBuf::from("/tmp"),
        }
    }

    #[test]
    fn contradictions_are_refused_with_the_value() {
        let vh = Place::Vh;
        let cases: Vec<(NodeConfig, &str)> = vec![
            (config(0, 0, &[(0, 0, vh)], Link::Alone), "0 nodes"),
            (config(1, 1, &[(0, 0, vh)], Link::Alone), "node 1 of 1"),
            (config(0, 1, &[], Link::Alone), "0 ranks"),
            (
                config(0, 1, &[(0, 0, vh), (0, 0, vh)], Link::Alone),
                "rank 1 is missing",
            ),
            (
                config(0, 1, &[(1, 0, vh)], Link::Alone),
                "rank 0 is missing",
            ),
            (config(0, 1, &[(0, 1, vh)], Link::Alone), "lives on node 1"),
            (config(0, 1, &[(0, 0, Place::Ve(1))], Link::Alone), "VE 1"),
            (config(0, 2, &[(0, 0, vh)], Link::Alone), "alone"),
        ];
        for (config, expected) in cases {
            let text = Plan::check(&config).unwrap_err().to_string();
            assert!(text.contains(expected), "{text:?} lacks {expected:?}");
        }
        let many: Vec<_> = (0..=MAX_LOCAL).map(|rank| (rank, 0, vh)).collect();
        let text = Plan::check(&config(0, 1, &many, Link::Alone))
            .unwrap_err()
            .to_string();
        assert!(text.contains("use more nodes"), "{text}");
    }

    #[test]
    fn local_ranks_follow_world_ranks() {
        let members = [(2, 0, Place::Vh), (0, 1, Place::Vh), (1, 0, Place::Ve(0))];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = Plan::check(&config(0, 2, &members, Link::Root { listener })).unwrap();
        assert_eq!(plan.locals, [1, 2]);
        assert_eq!((plan.local_of(0), plan.local_of(2)), (None, Some(1)));
        assert_eq!((plan.node_of(0), plan.node_of(3)), (Some(1), None));
        assert_eq!(plan.size(), 3);
    }
}
