//! What the end of a rank means: did it fail by itself, or because the job was broken already?
//!
//! Relies on: the presence words of the ranks and the first trouble that each node's service
//! noted. Promises: a rank that ended because a peer was lost or aborted is not blamed; who is to
//! blame is waited for, at most [`SETTLE`], and [`HESITATE`] where nothing tells of anybody.

use windlass_node::control::{Presence, Trouble};

use super::{DESCRIBED, Ended, HESITATE, SETTLE, Supervisor, Watch};
use crate::ending::{Cause, End, Fate, NOT_RUN, RankEnd, count};

impl Supervisor<'_> {
    /// Decides what each end means, as soon as it can be known; the first failures end the job.
    pub(super) fn judge(&mut self) {
        // In the order in which they ended: what ended later may be the consequence.
        let open = |(index, watch): (usize, &Watch)| {
            let end = watch.end.as_ref().filter(|end| end.fate.is_none())?;
            Some((end.round, index))
        };
        let mut open: Vec<(u64, usize)> = self.ranks.iter().enumerate().filter_map(open).collect();
        open.sort_unstable();
        let mut settling = u64::MAX;
        for (round, index) in open {
            if round > settling {
                break;
            }
            match self.fate(&self.ranks[index]) {
                None => settling = round,
                fate => self.ranks[index]
                    .end
                    .iter_mut()
                    .for_each(|end| end.fate = fate),
            }
        }
        if self.ending.is_none() {
            self.end_after_failure();
        }
    }

    /// The fate of an ended rank; none: not to be known yet.
    fn fate(&self, watch: &Watch) -> Option<Fate> {
        let end = watch.end.as_ref()?;
        let rank = watch.seat.rank;
        let patient = end.seen.elapsed() < SETTLE;
        let presence = self.nodes.presence(rank);
        let ending = self.ending.is_some_and(|at| end.seen >= at);
        if !ending && let Some(fate) = self.fate_of_leaver(watch, end) {
            return Some(fate);
        }
        if ending || self.failed_before(end.round) {
            return Some(Fate::Swept);
        }
        if matches!(end.status, End::Signalled(_)) {
            // Nobody ended it yet: this death is a cause, whatever others said meanwhile.
            return Some(Fate::Failed);
        }
        if let Some(verdict) = self.fate_by_leaving(watch, end) {
            return verdict;
        }
        if presence == Presence::Joined && patient {
            // Its service has not seen the closed connection: an abort may still be in it.
            return None;
        }
        let trouble = self.nodes.trouble(rank);
        if self.may_all_refuse(end) && patient {
            return None;
        }
        let aborted = matches!(trouble, Some(Trouble::Abort { .. }));
        if aborted && self.cause.is_none() && patient {
            return None;
        }
        match (end.status, presence) {
            (End::Exited(0), Presence::Awaited | Presence::Ended) => Some(Fate::Done),
            (End::Exited(0), _) => Some(Fate::Unended),
            (_, Presence::Awaited) => Some(Fate::Failed),
            _ => match trouble {
                // It may have seen a connection break before anybody sees that peer's end.
                None => self.first_or(end.seen.elapsed() < HESITATE),
                Some(Trouble::Lost { rank: first }) if first == rank => {
                    self.first_or(end.seen.elapsed() < HESITATE)
                }
                // Another one's end, or the event of a lost link, is on the way.
                Some(trouble) if !self.known(trouble) => (!patient).then_some(Fate::Failed),
                Some(Trouble::Abort { rank: first }) if first == rank => Some(Fate::Failed),
                Some(_) => Some(Fate::Swept),
            },
        }
    }

    /// The fate of a rank that ended with an error and is the first of which its service knows:
    /// failed, unless a signal has ended one who was the first of which *its* service knew.
    fn first_or(&self, hesitant: bool) -> Option<Fate> {
        let struck = |watch: &Watch| {
            let rank = watch.seat.rank;
            let end = watch.end.as_ref();
            end.is_some_and(|end| matches!(end.status, End::Signalled(_)) && end.fate.is_none())
                && self.nodes.trouble(rank) == Some(Trouble::Lost { rank })
        };
        if self.ranks.iter().any(struck) {
            return Some(Fate::Swept);
        }
        (!hesitant).then_some(Fate::Failed)
    }

    /// All ranks ended with the status of a mistake on the command line: they have said it themselves.
    fn all_refused(&self) -> bool {
        let refused = |watch: &Watch| watch.end.as_ref().is_some_and(refused);
        self.ranks.iter().all(refused)
    }

    /// This may become so: nobody has ended in another way, some have not ended.
    fn may_all_refuse(&self, end: &Ended) -> bool {
        let mut others = self.ranks.iter().map(|watch| &watch.end);
        let alike = others.all(|end| end.as_ref().is_none_or(refused));
        refused(end) && alike && !self.all_refused()
    }

    /// The cause that `trouble` tells of has arrived here too.
    fn known(&self, trouble: Trouble) -> bool {
        match trouble {
            Trouble::Lost { rank } => {
                let first = self.ranks.iter().find(|watch| watch.seat.rank == rank);
                self.cause.is_some() || first.is_some_and(|watch| watch.end.is_some())
            }
            Trouble::Abort { .. } | Trouble::Link { .. } => self.cause.is_some(),
        }
    }

    /// The service of `rank` noted the loss of another rank first, so what `rank` says comes of that.
    pub(super) fn follows_a_loss(&self, rank: u32) -> bool {
        matches!(self.nodes.trouble(rank), Some(Trouble::Lost { rank: first }) if first != rank)
    }

    /// A rank that ended in an earlier round has failed.
    fn failed_before(&self, round: u64) -> bool {
        let ends = self.ranks.iter().filter_map(|watch| watch.end.as_ref());
        ends.filter(|end| end.round < round)
            .any(|end| matches!(end.fate, Some(Fate::Failed | Fate::Unended)))
    }

    /// If ranks have failed: says which and how, and begins to end the job.
    fn end_after_failure(&mut self) {
        let failed = |watch: &&Watch| {
            let fate = watch.end.as_ref().and_then(|end| end.fate);
            matches!(fate, Some(Fate::Failed | Fate::Unended))
        };
        let failed = self
            .ranks
            .iter()
            .filter(failed)
            .map(|watch| self.rank_end(watch));
        let failed: Vec<RankEnd> = failed.collect();
        if failed.is_empty() {
            return;
        }
        if self.cause.is_none() {
            self.tell_failures(&failed);
        }
        self.begin_end(self.cause.unwrap_or(Cause::Failure));
    }

    /// Says who failed and how: those first who left and took others with them.
    fn tell_failures(&mut self, failed: &[RankEnd]) {
        let told = self.tell_leavers(failed);
        let failed: Vec<&RankEnd> = failed
            .iter()
            .filter(|end| !told.contains(&end.rank))
            .collect();
        if failed.is_empty() || self.all_refused() {
            return;
        }
        if let Some(Trouble::Lost { rank }) = self.nodes.trouble(failed[0].rank)
            && failed.iter().all(|end| end.rank != rank)
            && !told.contains(&rank)
        {
            // Its process lives on: a wrapper, or a program that closed its connection.
            self.say(format!(
                "rank {rank} was lost first: it left its job without ending it"
            ));
        }
        for rank in failed.iter().take(DESCRIBED) {
            self.say(rank.describe());
        }
        if failed.len() > DESCRIBED {
            let more = count(failed.len() - DESCRIBED, "more rank");
            self.say(format!("{more} failed"));
        }
    }
}

fn refused(end: &Ended) -> bool {
    end.status == End::Exited(NOT_RUN)
}
