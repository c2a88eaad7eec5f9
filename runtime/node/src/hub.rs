//! What the threads of one service share: who is there, which files are kept, which parts have
//! come, and whether the job is broken.
//!
//! Three locks: the emulated VEs and the segments have their own, and only what segments have for other nodes is queued under
//! theirs (`segments`). Nothing here reads or writes
//! a socket; what goes to other nodes is put into queues that the links' writers empty. Those
//! queues are bounded by the protocol: two rounds of parts, one trouble, one goodbye per rank, one request of each process about
//! segments and its answer, and what their ends and signals are.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use windlass_mem::MemFile;
use windlass_ve::Profile;

use crate::config::{Plan, fill_random};
use crate::control::{Control, Presence, Trouble};
use crate::error::{Cause, Error, Malformed};
use crate::guests::{People, segment_files};
use crate::rounds::{Collected, Rounds};
use crate::routes::{Queue, Routes};
use crate::service::Event;
use crate::wire::{self, LinkMessage, MAX_PARTS, NodeKind, Reply, Token};

/// Files that one rank may have deposited at a time.
pub const MAX_DEPOSITS: usize = 64;
/// How long a collect waits before it answers "not yet", so that the rank's other threads get
/// at the connection in between.
const COLLECT_SLICE: Duration = Duration::from_millis(20);

struct Deposit {
    owner: u32,
    file: Arc<OwnedFd>,
}

struct State {
    presence: Vec<Presence>,
    rounds: Rounds,
    files: HashMap<Token, Deposit>,
    /// Ranks of other nodes that said goodbye.
    ended: BTreeSet<u32>,
    broken: Option<Cause>,
    routes: Routes,
    /// The other ends of the routes whose link does not stand yet: what is sent meanwhile waits.
    queues: HashMap<u32, Queue>,
}

pub(crate) struct Hub {
    pub(crate) plan: Plan,
    pub(crate) control: Control,
    pub(crate) control_file: MemFile,
    pub(crate) ve: Mutex<windlass_ve::Service>,
    pub(crate) rsm: Mutex<windlass_rsm::Service>,
    /// An answer about another node's segments has come.
    pub(crate) answered: Condvar,
    pub(crate) kind: NodeKind,
    /// Every user is admitted.
    pub(crate) open: bool,
    pub(crate) profile: Profile,
    pub(crate) people: People,
    state: Mutex<State>,
    changed: Condvar,
    events: Sender<Event>,
    stopping: AtomicBool,
}

impl Hub {
    pub(crate) fn new(
        plan: Plan,
        kind: NodeKind,
        open: bool,
        profile: Profile,
        network: Option<windlass_rsm::Network>,
        events: Sender<Event>,
    ) -> Result<Self, Error> {
        let ves = plan.ves;
        let ve = windlass_ve::Service::new(windlass_ve::Config { ves, profile })?;
        let rsm = windlass_rsm::Service::new(plan.node, plan.nodes, segment_files(), network)?;
        // A node without ranks has a segment that nobody is given.
        let (control, control_file) =
            Control::create(plan.locals.len() as u32, plan.size().max(1))?;
        // The root talks to every other node, the others talk to the root.
        let peers = if plan.node == 0 { 1..plan.nodes } else { 0..1 };
        let mut routes = Routes::default();
        let mut queues = HashMap::new();
        for node in peers {
            queues.insert(node, routes.add(node));
        }
        let foreign = plan
            .members
            .iter()
            .filter(|m| m.node != plan.node)
            .map(|m| m.rank)
            .collect();
        let state = State {
            presence: vec![Presence::Awaited; plan.locals.len()],
            rounds: Rounds::new(foreign, plan.locals.len()),
            files: HashMap::new(),
            ended: BTreeSet::new(),
            broken: None,
            routes,
            queues,
        };
        Ok(Self {
            plan,
            control,
            control_file,
            ve: Mutex::new(ve),
            rsm: Mutex::new(rsm),
            answered: Condvar::new(),
            kind,
            open,
            profile,
            people: People::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            events,
            stopping: AtomicBool::new(false),
        })
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// No event is reported and no collect waits from here on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Under the lock, so that no collect misses it between its look and its wait.
        let state = self.state.lock();
        self.changed.notify_all();
        drop(state);
        let _rsm = self.rsm.lock();
        self.answered.notify_all();
    }

    /// The launcher may have stopped listening; that is its right.
    pub(crate) fn report(&self, event: Event) {
        if !self.stopping() {
            let _ = self.events.send(event);
        }
    }

    // ---- ranks of this node ----

    /// Reserves a rank for the connection that asked for it.
    pub(crate) fn reserve(&self, rank: u32) -> Result<usize, Error> {
        let Some(local) = self.plan.local_of(rank) else {
            return Err(Error::Refused(match self.plan.node_of(rank) {
                Some(node) => {
                    format!(
                        "rank {rank} lives on node {node}, this is node {}",
                        self.plan.node
                    )
                }
                None => format!("rank {rank}: the job has {} ranks", self.plan.size()),
            }));
        };
        let mut state = self.state.lock();
        match state.presence[local] {
            Presence::Awaited => {
                state.presence[local] = Presence::Joined;
                Ok(local)
            }
            Presence::Joined => Err(Error::Taken(format!("rank {rank} has joined already"))),
            // Local numbers are never given twice: a slow peer might still repair the dead
            // one's lock words (spec measured-designs 4).
            Presence::Ended | Presence::Lost => Err(Error::Taken(format!(
                "rank {rank} has ended; its number is not used again"
            ))),
        }
    }

    /// Gives a reserved rank back: it could not join.
    pub(crate) fn release(&self, local: usize) {
        self.state.lock().presence[local] = Presence::Awaited;
    }

    /// The rank's process is known and its segment words are set.
    pub(crate) fn joined(&self, local: usize, pid: i32, start_time: u64) {
        self.control.set_process(local as u32, pid, start_time);
        self.control.set_presence(local as u32, Presence::Joined);
        self.report(Event::Joined {
            rank: self.plan.locals[local],
            pid,
        });
    }

    /// The rank said goodbye.
    pub(crate) fn ended(&self, local: usize) {
        let rank = self.plan.locals[local];
        self.control.set_presence(local as u32, Presence::Ended);
        let mut state = self.state.lock();
        state.presence[local] = Presence::Ended;
        state.files.retain(|_, deposit| deposit.owner != rank);
        state.routes.relay(None, &LinkMessage::Ended { rank });
        drop(state);
        self.report(Event::Ended { rank });
    }

    /// The rank's connection or process ended without a goodbye.
    pub(crate) fn lost(&self, local: usize) {
        let rank = self.plan.locals[local];
        self.control.set_presence(local as u32, Presence::Lost);
        let mut state = self.state.lock();
        state.presence[local] = Presence::Lost;
        state.files.retain(|_, deposit| deposit.owner != rank);
        if !self.stopping() {
            self.break_job(&mut state, None, Cause::Lost { rank });
        }
        drop(state);
        self.report(Event::Lost { rank });
    }

    pub(crate) fn abort(&self, rank: u32, code: i32, message: &str) {
        let message = wire::shorten(message).to_owned();
        let cause = Cause::Abort {
            rank,
            code,
            message: message.clone(),
        };
        self.break_job(&mut self.state.lock(), None, cause);
        self.report(Event::Abort {
            rank,
            code,
            message,
        });
    }

    /// Notes the first trouble, tells all other nodes but `source`, wakes who waits.
    fn break_job(
        &self,
        state: &mut MutexGuard<'_, State>,
        source: Option<u32>,
        cause: Cause,
    ) -> bool {
        if state.broken.is_some() {
            return false;
        }
        self.control.set_trouble(match cause {
            Cause::Abort { rank, .. } => Trouble::Abort { rank },
            Cause::Lost { rank } | Cause::Ended { rank } => Trouble::Lost { rank },
            Cause::Link { node } => Trouble::Link { node },
        });
        state
            .routes
            .relay(source, &LinkMessage::Trouble(cause.clone()));
        state.broken = Some(cause);
        self.changed.notify_all();
        true
    }

    // ---- files ----

    pub(crate) fn deposit(&self, owner: u32, file: OwnedFd) -> Reply {
        let mut bytes = [0; 16];
        if let Err(error) = fill_random(&mut bytes) {
            return Reply::Refused(error.to_string());
        }
        let mut state = self.state.lock();
        if state
            .files
            .values()
            .filter(|deposit| deposit.owner == owner)
            .count()
            >= MAX_DEPOSITS
        {
            return Reply::Refused(format!(
                "rank {owner} has {MAX_DEPOSITS} files deposited; revoke one first"
            ));
        }
        state.files.insert(
            Token(bytes),
            Deposit {
                owner,
                file: Arc::new(file),
            },
        );
        Reply::Deposited(Token(bytes))
    }

    pub(crate) fn withdraw(&self, token: &Token) -> Option<Arc<OwnedFd>> {
        self.state
            .lock()
            .files
            .get(token)
            .map(|deposit| Arc::clone(&deposit.file))
    }

    pub(crate) fn revoke(&self, owner: u32, token: &Token) -> Reply {
        let mut state = self.state.lock();
        if state
            .files
            .get(token)
            .is_some_and(|deposit| deposit.owner == owner)
        {
            state.files.remove(token);
            Reply::Done
        } else {
            Reply::Refused("no file of this rank has the token".into())
        }
    }

    // ---- gathering ----

    /// A part of a rank of this node, brought by any rank of this node.
    pub(crate) fn local_part(&self, round: u64, rank: u32, blob: Vec<u8>) -> Reply {
        if self.plan.local_of(rank).is_none() {
            return Reply::Refused(format!("rank {rank} is not on node {}", self.plan.node));
        }
        let message = LinkMessage::Part {
            round,
            rank,
            blob: blob.clone(),
        };
        let mut state = self.state.lock();
        match state.rounds.add(round, rank, blob) {
            Ok(()) => {
                state.routes.relay(None, &message);
                Reply::Done
            }
            Err(text) => Reply::Refused(text),
        }
    }

    /// What a rank can have of a round now or within a slice of time.
    pub(crate) fn collect(&self, round: u64, have: u32) -> Reply {
        let until = Instant::now() + COLLECT_SLICE;
        let mut state = self.state.lock();
        loop {
            match state.rounds.collect(round, have as usize, MAX_PARTS) {
                Ok(Collected::Parts { parts, complete }) => {
                    return Reply::Parts { parts, complete };
                }
                Ok(Collected::Nothing) => {}
                Err(text) => return Reply::Refused(text),
            }
            if let Some(cause) = &state.broken {
                return Reply::Broken(cause.clone());
            }
            if let Some(rank) = state.rounds.missing(round, &state.ended) {
                return Reply::Broken(Cause::Ended { rank });
            }
            if self.stopping() {
                return Reply::Refused("the node's service ends".into());
            }
            if self.changed.wait_until(&mut state, until).timed_out() {
                return Reply::Parts {
                    parts: Vec::new(),
                    complete: false,
                };
            }
        }
    }

    // ---- other nodes ----

    /// The queue of messages for a node, for its first link and no second one.
    pub(crate) fn take_queue(&self, node: u32) -> Option<Queue> {
        self.state.lock().queues.remove(&node)
    }

    /// Queues a message for one node.
    pub(crate) fn send_to(&self, node: u32, message: &LinkMessage) {
        self.state.lock().routes.send_to(node, message);
    }

    /// Whether every route has its link.
    pub(crate) fn all_linked(&self) -> bool {
        self.state.lock().queues.is_empty()
    }

    /// Says goodbye to the other nodes; the writers end once they have sent it.
    pub(crate) fn close_routes(&self) {
        let mut state = self.state.lock();
        state.routes.relay(None, &LinkMessage::Bye);
        state.routes.clear();
        state.queues.clear();
    }

    /// A message of the node `from`. Errors mean that the link is to be closed.
    pub(crate) fn on_link_message(&self, from: u32, message: LinkMessage) -> Result<(), Malformed> {
        if let LinkMessage::Rsm {
            from: origin,
            to,
            message,
        } = message
        {
            return self.on_segments(from, origin, to, message);
        }
        let own = |rank| self.may_speak_for(from, rank);
        let mut state = self.state.lock();
        match message {
            LinkMessage::Part { round, rank, blob } if own(rank) => {
                // Encoded again rather than passed on as it came: what leaves here is well-formed.
                state.routes.relay(
                    Some(from),
                    &LinkMessage::Part {
                        round,
                        rank,
                        blob: blob.clone(),
                    },
                );
                state.rounds.add(round, rank, blob).map_err(|text| {
                    tracing::warn!(from, "{text}");
                    Malformed::Unexpected("a gathered part")
                })?;
                self.changed.notify_all();
            }
            LinkMessage::Ended { rank } if own(rank) => self.foreign_ended(&mut state, from, rank),
            LinkMessage::Trouble(cause) => {
                match &cause {
                    Cause::Abort { rank, .. } | Cause::Lost { rank } if own(*rank) => {}
                    // Only the root knows links; a leaf has none to speak of.
                    Cause::Link { node }
                        if from == 0 && *node < self.plan.nodes && *node != self.plan.node => {}
                    _ => return Err(Malformed::Unexpected("a trouble")),
                }
                if self.break_job(&mut state, Some(from), cause.clone()) {
                    drop(state);
                    self.report(Event::Elsewhere { cause });
                }
            }
            LinkMessage::Bye => {
                let left: Vec<u32> = self.behind(from).collect();
                for rank in left {
                    self.foreign_ended(&mut state, from, rank);
                }
                drop(state);
                self.segments_lost(from);
            }
            _ => return Err(Malformed::Unexpected("a link message")),
        }
        Ok(())
    }

    /// The link to a node broke without a goodbye.
    pub(crate) fn link_lost(&self, node: u32) {
        if self.stopping() {
            return;
        }
        self.break_job(&mut self.state.lock(), Some(node), Cause::Link { node });
        self.segments_lost(node);
        self.report(Event::LinkLost { node });
    }

    fn foreign_ended(&self, state: &mut MutexGuard<'_, State>, from: u32, rank: u32) {
        if state.ended.insert(rank) {
            state.routes.relay(Some(from), &LinkMessage::Ended { rank });
            self.changed.notify_all();
        }
    }

    /// The root speaks for all other nodes, a leaf for itself only.
    fn may_speak_for(&self, from: u32, rank: u32) -> bool {
        self.plan.node_of(rank).is_some_and(|node| {
            if from == 0 {
                node != self.plan.node
            } else {
                node == from
            }
        })
    }

    /// The ranks that cannot be reached without the node `from`.
    fn behind(&self, from: u32) -> impl Iterator<Item = u32> + '_ {
        let ranks = self.plan.members.iter().map(|member| member.rank);
        ranks.filter(move |&rank| self.may_speak_for(from, rank))
    }
}
