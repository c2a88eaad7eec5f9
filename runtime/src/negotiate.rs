//! From a region of each rank to a route for every pair: the collective heart of window creation.
//!
//! Two agreements, so that all ranks succeed or all fail alike (architecture section 3): what each
//! rank exposes, and for segments not seen before, through which mechanisms; and whether every rank
//! reached every other. The second is left out when all segments are known already, so a window in
//! the arena costs one all-gather.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::exchange::{Context, Exchange, Group, Taken, Topic};
use crate::faults::Injected;
use crate::gathers::Gathers;
use crate::mechanism::{Cost, Export, Mechanism, MechanismId, Peer, Reason};
use crate::region::{Backing, Region, Segment};
use crate::route::Route;
use crate::select::{self, Candidate};
use crate::team::Members;

/// The longest reason that travels, in bytes.
const REASON_MAX_BYTES: usize = 240;

/// The longest note of a rank about its part, in bytes.
pub const NOTE_MAX_BYTES: usize = 64;

/// How a target is reached and why not otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explained {
    /// The mechanism taken.
    pub chosen: MechanismId,
    /// `mapped` or `posted`.
    pub shape: String,
    /// Its cost.
    pub cost: Cost,
    /// Every other mechanism, with the reason.
    pub rejected: Vec<(MechanismId, Reason)>,
}

impl fmt::Display for Explained {
    /// The route, and why not each other one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.chosen, self.shape)?;
        let mut rejected = self.rejected.iter();
        rejected.try_for_each(|(id, Reason(why))| write!(f, "; not {id}: {why}"))
    }
}

/// A segment of a peer, attached.
#[derive(Clone)]
pub struct Reached {
    /// The way of its data.
    pub route: Route,
    /// The way of updates, all atomic to each other.
    pub updates: Route,
    /// Why this way.
    pub why: Arc<Explained>,
}

/// What one rank tells about its part of a new window.
#[derive(Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) extent: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    /// How to reach the segment, if somebody does not know it.
    pub(crate) offers: Option<Offers>,
    pub(crate) lent: bool,
    /// Taken for the window on this rank's node, if it is the first there.
    pub(crate) context: u32,
    pub(crate) note: Vec<u8>,
}

pub(crate) type Offers = Vec<(MechanismId, std::result::Result<Vec<u8>, Reason>)>;

/// Negotiates for one job.
pub struct Negotiator {
    mechanisms: Vec<Box<dyn Mechanism>>,
    forced: Option<Vec<MechanismId>>,
    injected: Option<Injected>,
    rank: u32,
    reached: Mutex<HashMap<(u32, u32), Reached>>,
}

impl Negotiator {
    /// A negotiator over these mechanisms.
    pub fn new(
        mechanisms: Vec<Box<dyn Mechanism>>,
        forced: Option<Vec<MechanismId>>,
        injected: Option<Injected>,
        rank: u32,
    ) -> Negotiator {
        Negotiator {
            mechanisms,
            forced,
            injected,
            rank,
            reached: Mutex::default(),
        }
    }

    /// The only mechanisms that may be used, if not all.
    pub(crate) fn forced(&self) -> Option<&[MechanismId]> {
        self.forced.as_deref()
    }

    /// The cards of all mechanisms that have one.
    pub(crate) fn cards(&self) -> Vec<(MechanismId, Vec<u8>)> {
        self.mechanisms
            .iter()
            .map(|m| (m.id(), m.card()))
            .filter(|(_, card)| !card.is_empty())
            .collect()
    }

    /// What the helper thread serves.
    pub(crate) fn servers(&self) -> Vec<Arc<dyn crate::mechanism::Serve>> {
        self.mechanisms.iter().filter_map(|m| m.server()).collect()
    }

    /// Exports `segment` through every mechanism that can, unless it is exported already.
    pub(crate) fn export(&self, segment: &Segment) {
        let offers = self.mechanisms.iter().map(|mechanism| {
            let id = mechanism.id();
            let export = || -> std::result::Result<Export, Reason> {
                self.inject(id, crate::Phase::Probe)?;
                mechanism.probe()?;
                self.inject(id, crate::Phase::Export)?;
                mechanism.export(segment)
            };
            (id, export())
        });
        segment.export(|| {
            let offers: Vec<_> = offers.collect();
            self.log_backing(segment, &offers);
            offers
        });
    }

    /// What became of memory that the caller lent.
    fn log_backing(
        &self,
        segment: &Segment,
        offers: &[(MechanismId, std::result::Result<Export, Reason>)],
    ) {
        let (rank, len) = (self.rank, segment.bytes.len());
        // The synchronisation words are lent too, and nobody's memory.
        if !matches!(segment.backing, Backing::Lent(_)) || segment.wakes {
            return;
        }
        match offers.iter().find(|(id, _)| *id == MechanismId::Vhshm) {
            Some((_, Ok(_))) => {
                tracing::debug!(
                    "rank {rank}: {len} bytes of lent memory were re-backed: peers map them"
                );
            }
            Some((_, Err(Reason(why)))) => {
                tracing::debug!(
                    "rank {rank}: {len} bytes of lent memory were not re-backed: {why}"
                );
            }
            None => {}
        }
    }

    fn inject(&self, id: MechanismId, phase: crate::Phase) -> std::result::Result<(), Reason> {
        match &self.injected {
            Some(injected) => injected.check(id, phase, self.rank),
            None => Ok(()),
        }
    }

    /// Attaches a segment of `peer`: the best route, the best route for updates, and why.
    fn attach(&self, peer: &Peer, offers: &Offers) -> Result<Reached> {
        let order = select::order(self.candidates(peer, offers), self.forced.as_deref());
        let mut rejected = order.rejected;
        let mut taken: Option<(MechanismId, Cost, Route)> = None;
        let mut others = Vec::new();
        for (id, cost) in order.try_in_order {
            if taken.is_some() {
                others.push((id, cost));
                continue;
            }
            match self.attach_one(id, peer, offers) {
                Ok(route) => taken = Some((id, cost, route)),
                Err(reason) => rejected.push((id, reason)),
            }
        }
        let Some((chosen, best, route)) = taken else {
            let unnamed = order.unnamed.iter().map(|&(id, _)| (id, unnamed()));
            return Err(unreachable(peer, rejected.into_iter().chain(unnamed)));
        };
        let mut updates = route.updates().then(|| route.clone());
        let named = others
            .iter()
            .map(|&(id, cost)| (id, select::outdone(cost, chosen, best)));
        let unnamed = order.unnamed.iter().map(|&(id, _)| (id, unnamed()));
        for (id, mut reason) in named.chain(unnamed).collect::<Vec<_>>() {
            if updates.is_none() {
                match self.attach_one(id, peer, offers) {
                    Ok(route) if route.updates() => updates = Some(route),
                    Ok(_) => {}
                    Err(failed) => reason = failed,
                }
            }
            rejected.push((id, reason));
        }
        let Some(updates) = updates else {
            return Err(unreachable(peer, rejected));
        };
        let why = Arc::new(Explained {
            chosen,
            shape: route.shape().to_owned(),
            cost: best,
            rejected,
        });
        Ok(Reached {
            route,
            updates,
            why,
        })
    }

    fn candidates(&self, peer: &Peer, offers: &Offers) -> Vec<Candidate> {
        let judge = |mechanism: &dyn Mechanism| -> std::result::Result<Cost, Reason> {
            let id = mechanism.id();
            self.inject(id, crate::Phase::Probe)?;
            let offer = offers.iter().find(|(offered, _)| *offered == id);
            let (_, offer) = offer.ok_or_else(|| Reason::new("the peer does not know it"))?;
            let descriptor = match offer {
                Ok(descriptor) => descriptor,
                Err(reason) if peer.rank == self.rank => return Err(reason.clone()),
                Err(Reason(why)) => return Err(not_offered(peer.rank, why)),
            };
            mechanism.reach(peer, descriptor)
        };
        self.mechanisms
            .iter()
            .map(|mechanism| Candidate {
                mechanism: mechanism.id(),
                verdict: judge(mechanism.as_ref()),
            })
            .collect()
    }

    fn attach_one(
        &self,
        id: MechanismId,
        peer: &Peer,
        offers: &Offers,
    ) -> std::result::Result<Route, Reason> {
        self.inject(id, crate::Phase::Attach)?;
        let mechanism = self.mechanisms.iter().find(|m| m.id() == id);
        let offer = offers.iter().find(|(offered, _)| *offered == id);
        match (mechanism, offer) {
            (Some(mechanism), Some((_, Ok(descriptor)))) => mechanism.attach(peer, descriptor),
            _ => Err(Reason::new("not offered")),
        }
    }

    /// Forgets lent segments of a window that has ended.
    pub(crate) fn forget(&self, keys: impl IntoIterator<Item = (u32, u32)>) {
        let mut reached = self.reached.lock();
        for key in keys {
            reached.remove(&key);
        }
    }

    /// What every rank exposes, agreed by all: parts by team rank, and the window's words.
    /// Collective. Every part's segment is reached.
    pub(crate) fn agree(
        &self,
        call: &Collective<'_>,
        region: &Result<Region>,
        note: &[u8],
    ) -> Result<(Context, Vec<Part>)> {
        let group = &call.members.group;
        let taken = call.exchange.take(group, group.here);
        let mine = match (region, &taken) {
            (Ok(region), Ok(taken)) => Ok(Part {
                extent: region.len() as u64,
                segment: region.segment().id,
                offset: region.offset() as u64,
                offers: self.offers(region.segment(), &group.ranks),
                lent: region.is_lent(),
                context: Taken::id(taken),
                note: note[..note.len().min(NOTE_MAX_BYTES)].to_vec(),
            }),
            (Err(error), _) | (_, Err(error)) => Err(error.clone()),
        };
        let new = mine.as_ref().is_ok_and(|part| part.offers.is_some());
        let parts = agree(call, mine, |rank, part, offers| {
            self.reach(call.peer(rank), part.segment, offers).map(drop)
        })?;
        if let (Ok(region), true) = (region, new) {
            region.segment().set_known_to(&group.ranks);
        }
        let context = call
            .exchange
            .open(group, taken?, |rank| parts[rank as usize].context)?;
        Ok((context, parts))
    }

    /// How ranks of the job can reach `segment`; `None` if all of these know.
    pub(crate) fn offers(&self, segment: &Segment, ranks: &[u32]) -> Option<Offers> {
        (!segment.is_known_to(ranks)).then(|| {
            self.export(segment);
            shorten(segment.descriptors())
        })
    }

    /// A segment of `peer`, attached by the first who asks for it.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(crate) fn reach(&self, peer: &Peer, segment: u32, offers: &Offers) -> Result<Reached> {
        if let Some(reached) = self.known(peer.rank, segment) {
            return Ok(reached);
        }
        let reached = self.attach(peer, offers)?;
        tracing::debug!(
            "rank {} -> rank {}, segment {segment}: {}",
            self.rank,
            peer.rank,
            reached.why
        );
        let mut all = self.reached.lock();
        let first = all.entry((peer.rank, segment)).or_insert(reached);
        Ok(first.clone())
    }

    /// A segment that was reached before.
    pub(crate) fn known(&self, rank: u32, segment: u32) -> Option<Reached> {
        self.reached.lock().get(&(rank, segment)).cloned()
    }

    /// The use of a segment that was reached before.
    pub(crate) fn with_known<R>(
        &self,
        rank: u32,
        segment: u32,
        with: impl FnOnce(&Reached) -> Result<R>,
    ) -> Result<R> {
        match self.reached.lock().get(&(rank, segment)) {
            Some(reached) => with(reached),
            None => Err(Error::Peer {
                rank,
                message: format!("it names segment {segment}, which it never offered"),
            }),
        }
    }

    /// Routes to the synchronisation words of ranks on other nodes.
    pub(crate) fn reach_words(&self, peer: &Peer, offers: &Offers) -> Result<Route> {
        Ok(self.attach(peer, offers)?.updates)
    }
}

fn not_offered(rank: u32, why: &str) -> Reason {
    // Written once for each mechanism of each new peer: in one piece of memory.
    let mut text = String::with_capacity(40 + why.len());
    let _ = write!(text, "rank {rank} does not offer it: {why}");
    Reason::new(text)
}

fn unnamed() -> Reason {
    Reason::new("works, but WINDLASS_ROUTE does not name it")
}

fn unreachable(peer: &Peer, tried: impl IntoIterator<Item = (MechanismId, Reason)>) -> Error {
    Error::Unreachable {
        target: peer.rank,
        tried: tried
            .into_iter()
            .map(|(id, reason)| (id, reason.0.into_owned()))
            .collect(),
    }
}

/// Cuts reasons to what travels.
pub(crate) fn shorten(mut offers: Offers) -> Offers {
    for (_, offer) in &mut offers {
        if let Err(Reason(text)) = offer
            && text.len() > REASON_MAX_BYTES
        {
            let mut end = REASON_MAX_BYTES;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.to_mut().truncate(end);
        }
    }
    offers
}

/// The agreements of a creation: what each rank exposes, and, where segments are new to somebody,
/// whether every rank has reached them, by `reach` (team rank, its part, its offers). Collective.
pub(crate) fn agree(
    call: &impl Gathers,
    mine: Result<Part>,
    reach: impl Fn(u32, &Part, &Offers) -> Result<()>,
) -> Result<Vec<Part>> {
    let mut parts = call.all_well(Topic::Parts, mine)?;
    if parts.iter().any(|part| part.offers.is_some()) {
        let reached = (0..).zip(&mut parts).try_for_each(|(rank, part)| {
            let offers = part.offers.take();
            offers.map_or(Ok(()), |offers| reach(rank, part, &offers))
        });
        call.all_well(Topic::Reached, reached)?;
    }
    Ok(parts)
}

/// A collective call of a team.
#[derive(Clone, Copy)]
pub(crate) struct Collective<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) members: &'a Members,
    /// Of the whole job.
    pub(crate) peers: &'a [Peer],
}

impl<'a> Collective<'a> {
    /// By team rank.
    pub(crate) fn peer(&self, rank: u32) -> &'a Peer {
        &self.peers[self.members.group.ranks[rank as usize] as usize]
    }
}

impl Gathers for Collective<'_> {
    fn group(&self) -> &Group {
        &self.members.group
    }

    fn all_gather(&self, topic: Topic, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Members { group, context, .. } = self.members;
        self.exchange.all_gather(group, context, topic, blob)
    }
}
