//! The logical nodes of a job: one node service each, in this process, linked over loopback.
//!
//! Relies on: the node crate. Promises: all services run before the first rank starts; dropping
//! [`Nodes`] ends them and removes their directories. Services of different nodes share no
//! memory: the only thing between them is an authenticated TCP link.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};

use windlass_node::control::{self, Left, Presence, Trouble};
use windlass_node::{Event, JobId, Link, Member, NodeConfig, Service};
use windlass_runtime::Call;
use windlass_ve::Profile;
use windlass_wire::Secret;

use crate::error::{Error, Result};
use crate::place::Plan;

/// The running services of a job.
pub(crate) struct Nodes {
    services: Vec<Service>,
    /// Node and place in it of each rank.
    homes: Vec<(usize, u32)>,
    secret: Secret,
}

impl Nodes {
    /// Starts the services of `plan`; what happens in them comes out of the receiver.
    pub(crate) fn start(plan: &Plan, profile: Profile) -> Result<(Nodes, Receiver<Event>)> {
        let swept = windlass_node::sweep(&windlass_node::base_dir());
        tracing::debug!(?swept, "swept what dead jobs left");
        let failed = |node: u32| {
            move |source| Error::Node {
                node,
                source: Box::new(source),
            }
        };
        let job = JobId::random().map_err(failed(0))?;
        let secret = Secret::random();
        let members = plan.seats.iter().map(|seat| {
            let (rank, node, place) = (seat.rank, seat.node, seat.place);
            Member { rank, node, place }
        });
        let members: Vec<Member> = members.collect();

        let (mut listener, mut root) = (None, None);
        if plan.nodes > 1 {
            let io = |source| Error::System {
                what: "listening on the loopback interface",
                source,
            };
            // Loopback only: the logical nodes are all here (reliability S3).
            let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io)?;
            root = Some(bound.local_addr().map_err(io)?);
            listener = Some(bound);
        }
        let (sender, receiver) = channel();
        let mut services = Vec::new();
        for node in 0..plan.nodes {
            let link = match (listener.take(), root) {
                (Some(listener), _) => Link::Root { listener },
                (None, Some(root)) => Link::Leaf { root },
                (None, None) => Link::Alone,
            };
            let config = NodeConfig {
                job,
                node,
                nodes: plan.nodes,
                members: members.clone(),
                ves: plan.ves,
                profile,
                secret: secret.clone(),
                link,
                base: windlass_node::base_dir(),
            };
            services.push(Service::start(config, sender.clone()).map_err(failed(node))?);
        }
        let mut next_local = vec![0; plan.nodes as usize];
        let homes = plan.seats.iter().map(|seat| {
            let node = seat.node as usize;
            next_local[node] += 1;
            (node, next_local[node] - 1)
        });
        Ok((
            Nodes {
                homes: homes.collect(),
                services,
                secret,
            },
            receiver,
        ))
    }

    /// The job's secret, for the life pipes.
    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The socket a rank connects to.
    pub(crate) fn socket(&self, rank: u32) -> &Path {
        self.services[self.homes[rank as usize].0].socket_path()
    }

    /// The services' private directories.
    pub(crate) fn homes(&self) -> impl Iterator<Item = &Path> {
        let sockets = self.services.iter().map(Service::socket_path);
        sockets.filter_map(Path::parent)
    }

    /// What the rank's service knows of it.
    pub(crate) fn presence(&self, rank: u32) -> Presence {
        let (node, local) = self.homes[rank as usize];
        self.services[node].control().presence(local)
    }

    /// The first trouble of the job as the rank's service noted it.
    pub(crate) fn trouble(&self, rank: u32) -> Option<Trouble> {
        self.services[self.homes[rank as usize].0]
            .control()
            .trouble()
    }

    /// The first peer of which the rank was told that it had left.
    pub(crate) fn told(&self, rank: u32) -> Option<u32> {
        let (node, local) = self.homes[rank as usize];
        self.services[node].control().told(local)
    }

    /// What the rank left while its peers may still have needed it.
    pub(crate) fn left(&self, rank: u32) -> Option<Left> {
        let (node, local) = self.homes[rank as usize];
        self.services[node].control().left(local)
    }

    /// The library call the rank was last in; none where it has not joined.
    pub(crate) fn last_call(&self, rank: u32) -> Option<&'static str> {
        if self.presence(rank) == Presence::Awaited {
            return None;
        }
        let (node, local) = self.homes[rank as usize];
        let word = self.services[node].control().word(control::status(local));
        Call::name(word.load(Ordering::Relaxed))
    }
}
