//! Teams: an ordered set of the job's ranks with collective calls of its own.
//!
//! A team has its own words and gather slots on each of its nodes, so that its calls meet neither
//! those of the job nor those of a team that shares ranks with it. Ranks of a team are numbered
//! from 0 in its own order; the ranks that an [`Error`] names are the job's.
//!
//! Dropping a team never waits: this rank leaves it, and a call that the others make on it then
//! answers [`Error::Departed`]. Windows hold their team.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::exchange::{Context, Group, NONE, Taken, Topic};
use crate::exposure::{Exposure, Target};
use crate::gathers::Gathers;
use crate::job::Job;
use crate::mechanism::Place;
use crate::negotiate::{Collective, Part};
use crate::region::Region;

/// Who is in a team, and their words.
pub(crate) struct Members {
    pub(crate) group: Group,
    pub(crate) context: Context,
    /// One creation at a time in this process: it takes several rounds.
    pub(crate) creating: Mutex<()>,
}

impl Members {
    pub(crate) fn new(group: Group, context: Context) -> Members {
        Members {
            group,
            context,
            creating: Mutex::new(()),
        }
    }
}

/// Ranks of the job that call collectively. See the module.
pub struct Team {
    job: Arc<Job>,
    members: Arc<Members>,
    /// All of the job: left with the job.
    is_world: bool,
}

/// What a rank tells when teams are made: nothing where it will be in none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// Ranks with the same make a team.
    pub(crate) color: u64,
    /// Their order in it; then by rank.
    pub(crate) key: i64,
    /// How many they must be, where they were listed.
    pub(crate) listed: Option<u32>,
}

impl Team {
    /// All of the job.
    pub(crate) fn of_world(job: Arc<Job>, members: Arc<Members>) -> Team {
        Team {
            job,
            members,
            is_world: true,
        }
    }

    /// The job.
    #[inline]
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// This process's rank in the team.
    #[inline]
    pub fn rank(&self) -> u32 {
        self.members.group.rank
    }

    /// How many ranks the team has.
    #[inline]
    pub fn size(&self) -> u32 {
        self.members.group.size()
    }

    /// The job rank of a rank of the team, or `None` beyond its size.
    #[inline]
    pub fn job_rank(&self, rank: u32) -> Option<u32> {
        self.ranks().get(rank as usize).copied()
    }

    /// The job ranks of all ranks, in order.
    #[inline]
    pub fn ranks(&self) -> &[u32] {
        &self.members.group.ranks
    }

    /// Whether all ranks live on the host of one node, each of whose memory the others can map.
    pub fn is_on_one_host(&self) -> bool {
        let peers = self.job.peers();
        let home = |rank: &u32| {
            let peer = peers.iter().find(|peer| peer.rank == *rank)?;
            (peer.place == Place::Vh).then_some(peer.node)
        };
        let first = self.ranks().first().and_then(home);
        first.is_some() && self.ranks().iter().all(|rank| home(rank) == first)
    }

    #[inline]
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    pub(crate) fn call(&self) -> Collective<'_> {
        Collective {
            exchange: &self.job.exchange,
            members: &self.members,
            peers: self.job.peers(),
        }
    }

    /// Notes that this rank is in a call, for the launcher's message after a death.
    pub(crate) fn during<T>(&self, call: Call, run: impl FnOnce() -> T) -> T {
        self.job.enter(call);
        let answer = run();
        self.job.enter(Call::Compute);
        answer
    }

    /// Waits until all ranks of the team have come here. Collective.
    ///
    /// # Errors
    /// A lost or departed peer; [`Error::Disagree`] where others gather.
    pub fn barrier(&self) -> Result<()> {
        let Members { group, context, .. } = &*self.members;
        self.during(Call::Barrier, || {
            self.job.exchange.barrier(group, context, false)
        })
    }

    /// Every rank's bytes, by rank. Collective; at most
    /// [`MAX_PART`](windlass_node::control::MAX_PART) bytes each, lengths may differ.
    ///
    /// # Errors
    /// As [`barrier`](Self::barrier); [`Error::Node`] on all ranks where one has too many bytes.
    pub fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Members { group, context, .. } = &*self.members;
        self.during(Call::Barrier, || {
            let exchange = &self.job.exchange;
            exchange.all_gather(group, context, Topic::Bytes, bytes)
        })
    }

    /// A team of the ranks that give the same `color`, ordered by `key`, then by rank here; `None`
    /// for who gives none. Collective. `MPI_Comm_split`
    ///
    /// # Errors
    /// On all ranks alike: [`Error::Full`] or [`Error::Peer`] where a node has no context left; a
    /// lost or departed peer.
    pub fn split(self: &Arc<Self>, color: Option<u32>, key: i64) -> Result<Option<Arc<Team>>> {
        let choice = color.map(|color| Choice {
            color: color.into(),
            key,
            listed: None,
        });
        self.found(Ok(choice))
    }

    /// The team of these ranks, in this order; `None` for who is not listed. Collective: all listed
    /// ranks give the same list. Lists of different ranks without a rank in common make several
    /// teams at once. `MPI_Comm_create`
    ///
    /// # Errors
    /// On all ranks alike: [`Error::Listed`] or [`Error::Peer`] for a list with a rank that is not
    /// there or is there twice; [`Error::Disagree`] for different lists with a rank in common; as
    /// [`split`](Self::split).
    pub fn subset(self: &Arc<Self>, ranks: &[u32]) -> Result<Option<Arc<Team>>> {
        self.found(self.listed(ranks))
    }

    /// The choice of a rank that gives this list.
    fn listed(&self, ranks: &[u32]) -> Result<Option<Choice>> {
        let mut sorted = ranks.to_vec();
        sorted.sort_unstable();
        let refuse = |rank: u32, rule| Error::Listed { rank, rule };
        if let Some(&rank) = sorted.iter().find(|&&rank| rank >= self.size()) {
            return Err(refuse(rank, "is not in the team"));
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(refuse(pair[0], "is named twice"));
        }
        // The same in every process: one program, no random keys.
        let mut digest = DefaultHasher::new();
        ranks.hash(&mut digest);
        let place = ranks.iter().position(|&rank| rank == self.rank());
        Ok(place.map(|place| Choice {
            color: digest.finish(),
            key: place as i64,
            listed: Some(ranks.len() as u32),
        }))
    }

    /// Makes the teams that all ranks chose: a first agreement on who is in which, a second on
    /// their contexts.
    fn found(self: &Arc<Self>, choice: Result<Option<Choice>>) -> Result<Option<Arc<Team>>> {
        let _one = self.members.creating.lock();
        self.during(Call::Create, || {
            let ranks = agree(&self.call(), choice)?;
            self.found_of(ranks)
        })
    }

    /// The team of these ranks of this one.
    fn found_of(self: &Arc<Self>, ranks: Option<Vec<u32>>) -> Result<Option<Arc<Team>>> {
        let exchange = &self.job.exchange;
        let ranks = ranks.unwrap_or_default();
        let job_ranks: Vec<u32> = ranks
            .iter()
            .map(|&rank| self.ranks()[rank as usize])
            .collect();
        let group = Group::new(job_ranks, &exchange.seats, self.job.rank());
        let taken = match &group {
            Some(group) => exchange.take(group, group.size()),
            None => Ok(None),
        };
        let (taken, told) = match taken {
            Ok(taken) => {
                let id = Taken::id(&taken);
                (taken, Ok(id))
            }
            Err(error) => (None, Err(error)),
        };
        let told = self.call().all_well(Topic::Contexts, told)?;
        let Some(group) = group else {
            return Ok(None);
        };
        let told = |rank: u32| {
            let here = ranks.get(rank as usize).map(|&rank| rank as usize);
            here.and_then(|rank| told.get(rank))
                .copied()
                .unwrap_or(NONE)
        };
        let context = exchange.open(&group, taken, told)?;
        Ok(Some(Arc::new(Team {
            job: Arc::clone(&self.job),
            members: Arc::new(Members::new(group, context)),
            is_world: false,
        })))
    }

    /// Negotiates a route to every rank's region. Collective: every rank calls it, with its region
    /// or with the error that kept it from having one, and all succeed or all fail alike. `note`
    /// (at most 64 bytes) is handed to every rank. Ranks of the exposure are the team's.
    ///
    /// # Errors
    /// The caller's own error; [`Error::Peer`]; [`Error::Unreachable`]; [`Error::Full`].
    pub fn expose(self: &Arc<Self>, region: Result<Region>, note: &[u8]) -> Result<Exposure> {
        let _one = self.members.creating.lock();
        self.during(Call::Create, || {
            let (context, parts) = self.job.negotiator.agree(&self.call(), &region, note)?;
            let region = region?;
            let mut exposure = Exposure::new(self, context, region.bytes().clone(), Some(region));
            exposure.targets = (0..)
                .zip(parts)
                .map(|(rank, part)| self.target(&exposure, rank, part))
                .collect::<Result<_>>()?;
            Ok(exposure)
        })
    }

    fn target(&self, exposure: &Exposure, rank: u32, part: Part) -> Result<Target> {
        let negotiator = &self.job.negotiator;
        let job_rank = self.ranks()[rank as usize];
        negotiator.with_known(job_rank, part.segment, |reached| {
            let updates = reached.updates.part(part.offset, part.extent)?;
            Ok(Target {
                extent_bytes: part.extent,
                segment: part.segment,
                lent: part.lent,
                route: exposure.own(reached.route.part(part.offset, part.extent)?),
                updates: exposure.guarded(rank, updates),
                note: part.note.into_boxed_slice(),
                why: Arc::clone(&reached.why),
            })
        })
    }
}

/// Who is in the team that this rank chose, in its order, if it chose one. Collective.
pub(crate) fn agree(
    call: &impl Gathers,
    choice: Result<Option<Choice>>,
) -> Result<Option<Vec<u32>>> {
    let mine = choice.as_ref().ok().cloned().flatten();
    let choices = call.all_well(Topic::Teams, choice)?;
    check_lists(&choices)?;
    Ok(mine.map(|mine| chosen(&choices, mine.color)))
}

/// Ranks with this color, in their order.
fn chosen(choices: &[Option<Choice>], color: u64) -> Vec<u32> {
    let mut found: Vec<(i64, u32)> = (0..)
        .zip(choices)
        .filter_map(|(rank, choice)| {
            let choice = choice.as_ref().filter(|choice| choice.color == color)?;
            Some((choice.key, rank))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, rank)| rank).collect()
}

/// Has every listed rank given the same list? Every rank sees all choices and answers the same.
fn check_lists(choices: &[Option<Choice>]) -> Result<()> {
    let mut given: HashMap<u64, (u32, Vec<i64>)> = HashMap::new();
    for choice in choices.iter().flatten() {
        if let Some(listed) = choice.listed {
            let (_, places) = given.entry(choice.color).or_insert((listed, Vec::new()));
            places.push(choice.key);
        }
    }
    for (listed, mut places) in given.into_values() {
        places.sort_unstable();
        if !places.into_iter().eq(0..i64::from(listed)) {
            return Err(Error::Disagree);
        }
    }
    Ok(())
}

impl Drop for Team {
    /// Never waits.
    fn drop(&mut self) {
        if !self.is_world {
            let Members { group, context, .. } = &*self.members;
            self.job.exchange.leave(group, context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(color: u64, key: i64, listed: Option<u32>) -> Option<Choice> {
        Some(Choice { color, key, listed })
    }

    #[test]
    fn a_split_orders_by_key_then_by_rank() {
        let all = [
            choice(1, 5, None),
            choice(2, 0, None),
            choice(1, -1, None),
            None,
            choice(1, 5, None),
            choice(1, i64::MIN, None),
        ];
        assert_eq!(chosen(&all, 1), [5, 2, 0, 4]);
        assert_eq!(chosen(&all, 2), [1]);
        check_lists(&all).unwrap();
    }

    #[test]
    fn lists_are_complete_and_the_same_or_refused() {
        let two = [
            choice(7, 1, Some(2)),
            None,
            choice(7, 0, Some(2)),
            choice(8, 0, Some(1)),
        ];
        check_lists(&two).unwrap();
        assert_eq!(chosen(&two, 7), [2, 0]);
        // One listed rank gave another list, or none.
        for odd in [None, choice(9, 0, Some(2)), choice(7, 1, Some(2))] {
            let all = [choice(7, 1, Some(2)), None, odd];
            assert!(matches!(check_lists(&all), Err(Error::Disagree)));
        }
    }
}
