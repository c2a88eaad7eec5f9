//! From a region of each rank to a route for every pair: the collective heart of window creation.
//!
//! Three agreements, so that all ranks succeed or all fail alike (architecture section 3): what
//! each rank exposes; for segments not seen before, through which mechanisms; and whether every
//! rank reached every other. The last two are left out when all segments are known already, so a
//! window in the arena costs one all-gather.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, cause};
use crate::exchange::Exchange;
use crate::faults::Injected;
use crate::mechanism::{Cost, Export, Mechanism, MechanismId, Peer, Reason};
use crate::region::{Region, Segment};
use crate::route::Route;
use crate::select::{self, Candidate};

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

/// A segment of a peer, attached.
#[derive(Clone)]
pub(crate) struct Reached {
    pub(crate) route: Route,
    pub(crate) updates: Route,
    pub(crate) why: Arc<Explained>,
}

/// What one rank tells about its part of a new window.
#[derive(Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) extent: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) fresh: bool,
    pub(crate) lent: bool,
    pub(crate) note: Vec<u8>,
}

type Offers = Vec<(MechanismId, std::result::Result<Vec<u8>, Reason>)>;

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

    /// Exports `segment` through every mechanism that can.
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
        segment.set_offers(offers.collect());
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
                Err(Reason(why)) if peer.rank == self.rank => return Err(Reason::new(why)),
                Err(Reason(why)) => {
                    return Err(Reason(format!(
                        "rank {} does not offer it: {why}",
                        peer.rank
                    )));
                }
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

    /// What every rank exposes, agreed by all: parts in rank order, each with its routes.
    /// Collective.
    pub(crate) fn agree(
        &self,
        exchange: &Exchange,
        peers: &[Peer],
        region: &Result<Region>,
        note: &[u8],
    ) -> Result<Vec<(Part, Reached)>> {
        let parts = self.tell(exchange, region, note)?;
        if parts.iter().any(|part| part.fresh) {
            self.publish(exchange, peers, region, &parts)?;
        }
        let reached = self.reached.lock();
        parts
            .into_iter()
            .zip(peers)
            .map(|(part, peer)| {
                let known = reached.get(&(peer.rank, part.segment)).cloned();
                let known = known.ok_or_else(|| Error::Peer {
                    rank: peer.rank,
                    message: format!("it names segment {}, which it never offered", part.segment),
                })?;
                Ok((part, known))
            })
            .collect()
    }

    /// First agreement: what each rank exposes, or that one cannot.
    fn tell(&self, exchange: &Exchange, region: &Result<Region>, note: &[u8]) -> Result<Vec<Part>> {
        let mine = match region {
            Ok(region) => Ok(Part {
                extent: region.bytes().len() as u64,
                segment: region.segment().id,
                offset: region.offset() as u64,
                fresh: !region.segment().is_published(),
                lent: region.is_lent(),
                note: note[..note.len().min(NOTE_MAX_BYTES)].to_vec(),
            }),
            Err(error) => Err(Reason::from_error("its memory", error)),
        };
        let parts = trade(exchange, &mine)?;
        match region {
            Err(error) => Err(error.clone()),
            Ok(_) => all_well(parts),
        }
    }

    /// Second and third agreement: offers of new segments, and that all are reached.
    fn publish(
        &self,
        exchange: &Exchange,
        peers: &[Peer],
        region: &Result<Region>,
        parts: &[Part],
    ) -> Result<()> {
        let segment = match region {
            Ok(region) => Arc::clone(region.segment()),
            Err(error) => return Err(error.clone()),
        };
        let mine: Offers = if segment.is_published() {
            Vec::new()
        } else {
            self.export(&segment);
            shorten(segment.descriptors())
        };
        let offers: Vec<Offers> = trade(exchange, &mine)?;
        let outcome = self.reach_all(peers, parts, &offers);
        let words = match &outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(Reason::from_error("reaching memory", error)),
        };
        let verdicts = trade(exchange, &words)?;
        outcome?;
        all_well(verdicts)?;
        segment.set_published();
        Ok(())
    }

    fn reach_all(&self, peers: &[Peer], parts: &[Part], offers: &[Offers]) -> Result<()> {
        for ((peer, part), offers) in peers.iter().zip(parts).zip(offers) {
            if part.fresh {
                let reached = self.attach(peer, offers)?;
                self.reached
                    .lock()
                    .insert((peer.rank, part.segment), reached);
            }
        }
        Ok(())
    }

    /// Routes to the synchronisation words of ranks on other nodes.
    pub(crate) fn reach_words(&self, peer: &Peer, offers: &Offers) -> Result<Route> {
        Ok(self.attach(peer, offers)?.updates)
    }
}

fn unnamed() -> Reason {
    Reason::new("works, but WINDLASS_ROUTE does not name it")
}

fn unreachable(peer: &Peer, tried: impl IntoIterator<Item = (MechanismId, Reason)>) -> Error {
    Error::Unreachable {
        target: peer.rank,
        tried: tried
            .into_iter()
            .map(|(id, reason)| (id, reason.0))
            .collect(),
    }
}

/// Cuts reasons to what travels.
pub(crate) fn shorten(mut offers: Offers) -> Offers {
    for (_, offer) in &mut offers {
        if let Err(Reason(text)) = offer {
            let mut end = text.len().min(REASON_MAX_BYTES);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
    }
    offers
}

/// An all-gather of values: everybody's, in rank order. A rank that sends rubbish is an error.
pub(crate) fn trade<T: Serialize + for<'a> Deserialize<'a>>(
    exchange: &Exchange,
    mine: &T,
) -> Result<Vec<T>> {
    let node = |what, e| Error::Node {
        what,
        source: cause(e),
    };
    let blob = postcard::to_allocvec(mine).map_err(|e| node("encoding a part", e))?;
    let blobs = exchange.all_gather(&blob)?;
    blobs
        .iter()
        .enumerate()
        .map(|(rank, blob)| {
            postcard::from_bytes(blob).map_err(|e| Error::Peer {
                rank: rank as u32,
                message: format!("its part cannot be read: {e}"),
            })
        })
        .collect()
}

fn all_well<T>(parts: Vec<std::result::Result<T, Reason>>) -> Result<Vec<T>> {
    parts
        .into_iter()
        .enumerate()
        .map(|(rank, part)| {
            part.map_err(|Reason(message)| Error::Peer {
                rank: rank as u32,
                message,
            })
        })
        .collect()
}
