//! Who left first: a rank that panics, returns early or drops a guard is still on its way out when
//! its peers, told of it, have failed already.
//!
//! Relies on: what the ranks noted in the control segments, of themselves and of whom they were
//! told. Promises: who failed because another one left is not blamed where that one fails too; the
//! first is named, and waited for at most [`FAREWELL`].

use std::collections::{BTreeMap, BTreeSet};

use windlass_node::control::Presence;

use super::{Ended, FAREWELL, Supervisor, Watch};
use crate::ending::{End, Fate, RankEnd, count};

impl Supervisor<'_> {
    /// Who began it, if `rank` was told that another one had left.
    pub(super) fn first_to_leave(&self, rank: u32) -> Option<u32> {
        let told = |rank| self.nodes.told(rank);
        let left = |rank| self.nodes.left(rank).is_some_and(|left| left.first);
        first_of(rank, told, left)
    }

    pub(super) fn lives(&self, rank: u32) -> bool {
        let watch = self.ranks.iter().find(|watch| watch.seat.rank == rank);
        watch.is_some_and(|watch| watch.end.is_none())
    }

    fn end_of(&self, rank: u32) -> Option<&Ended> {
        let watch = self.ranks.iter().find(|watch| watch.seat.rank == rank)?;
        watch.end.as_ref()
    }

    /// Ranks that ended with an error after they were told that `rank` had left.
    fn victims(&self, rank: u32) -> impl Iterator<Item = &Watch> {
        self.ranks.iter().filter(move |watch| {
            let failed = watch.end.as_ref().is_some_and(|end| failed(end.status));
            failed && self.first_to_leave(watch.seat.rank) == Some(rank)
        })
    }

    /// The fate of an ended rank that took others with it, if it did.
    pub(super) fn fate_of_leaver(&self, watch: &Watch, end: &Ended) -> Option<Fate> {
        let rank = watch.seat.rank;
        self.victims(rank).next()?;
        match self.nodes.presence(rank) {
            _ if failed(end.status) => Some(Fate::Failed),
            Presence::Ended => Some(Fate::Left),
            _ => None,
        }
    }

    /// The fate of an ended rank who was told that another one had left; the inner none: not to be
    /// known yet.
    pub(super) fn fate_by_leaving(&self, watch: &Watch, end: &Ended) -> Option<Option<Fate>> {
        if !failed(end.status) {
            return None;
        }
        let first = self.first_to_leave(watch.seat.rank)?;
        let Some(other) = self.end_of(first) else {
            let patient = end.seen.elapsed() < FAREWELL;
            return Some((!patient).then_some(Fate::Failed));
        };
        Some(match self.nodes.presence(first) {
            _ if failed(other.status) => Some(Fate::Swept),
            // It left with status 0: the errors of those who stayed give the exit code.
            Presence::Ended => Some(Fate::Failed),
            Presence::Joined if end.seen.elapsed() < FAREWELL => None,
            _ => Some(Fate::Swept),
        })
    }

    /// Says who left first and what came of it. Gives all ranks that this explains.
    pub(super) fn tell_leavers(&mut self, failed: &[RankEnd]) -> BTreeSet<u32> {
        let mut groups: BTreeMap<u32, Vec<(u32, End)>> = BTreeMap::new();
        for watch in &self.ranks {
            let rank = watch.seat.rank;
            if let (Some(first), Some(end)) = (self.first_to_leave(rank), &watch.end)
                && self::failed(end.status)
            {
                groups.entry(first).or_default().push((rank, end.status));
            }
        }
        let mut told = BTreeSet::new();
        for (first, victims) in groups {
            // A death that is no departure is told as one: its followers need no line.
            let by_itself =
                |end: &RankEnd| end.rank == first && matches!(end.status, End::Signalled(_));
            told.extend(victims.iter().map(|(rank, _)| *rank));
            if failed.iter().any(by_itself) {
                continue;
            }
            told.insert(first);
            let line = self.leaver(first, &victims);
            self.say(line);
        }
        told
    }

    /// The line about a rank that left, and those who failed because of it.
    fn leaver(&mut self, first: u32, victims: &[(u32, End)]) -> String {
        let left = self
            .nodes
            .left(first)
            .map(|left| left.what)
            .unwrap_or_default();
        let what = match left.as_str() {
            "" => "the job".into(),
            name if name.starts_with("window ") => name.into(),
            name => format!("window `{name}`"),
        };
        let Some(index) = self.ranks.iter().position(|watch| watch.seat.rank == first) else {
            return format!("rank {first} left first");
        };
        if let Some(end) = &mut self.ranks[index].end
            && end.fate == Some(Fate::Done)
        {
            end.fate = Some(Fate::Left);
        }
        let end = self.rank_end(&self.ranks[index]);
        let ended = self.ranks[index].end.is_some();
        let how = match (ended, end.status) {
            (false, _) => format!("left {what} first and has not ended"),
            (true, End::Exited(0)) => {
                format!("left in the middle of {what} and exited with status 0")
            }
            (true, _) => format!("left {what} first and {}", end.how()),
        };
        let all_alike = victims.iter().all(|(_, status)| *status == victims[0].1);
        let came = match victims[0].1 {
            End::Exited(status) if all_alike && end.status == End::Exited(0) => {
                format!("exited with status {status}")
            }
            _ => "failed".into(),
        };
        format!(
            "{} {how}{}; {} {came} because of it",
            end.who(),
            end.where_last(),
            ranks(victims.iter().map(|(rank, _)| *rank)),
        )
    }
}

fn failed(status: End) -> bool {
    status != End::Exited(0)
}

/// Follows who was told of whom. In a circle it is the one who left before it was told of anybody.
fn first_of(
    rank: u32,
    told: impl Fn(u32) -> Option<u32>,
    left: impl Fn(u32) -> bool,
) -> Option<u32> {
    let (mut at, mut passed) = (rank, Vec::new());
    while let Some(next) = told(at).filter(|&next| next != at) {
        if let Some(begin) = passed.iter().position(|&seen| seen == next) {
            let mut circle = passed.split_off(begin);
            circle.push(at);
            at = circle.into_iter().find(|&rank| left(rank)).unwrap_or(next);
            break;
        }
        passed.push(at);
        at = next;
    }
    (at != rank).then_some(at)
}

/// Ranks in words: `rank 3`, `ranks 0, 1, 3`, the first few of many.
fn ranks(ranks: impl ExactSizeIterator<Item = u32>) -> String {
    const LISTED: usize = 8;
    let number = ranks.len();
    let listed: Vec<String> = ranks.take(LISTED).map(|rank| rank.to_string()).collect();
    let rest = number.saturating_sub(LISTED);
    let more = if rest > 0 {
        format!(" and {}", count(rest, "more rank"))
    } else {
        String::new()
    };
    let noun = if number == 1 { "rank" } else { "ranks" };
    format!("{noun} {}{more}", listed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(rank: u32, told: &[Option<u32>], left: &[u32]) -> Option<u32> {
        first_of(
            rank,
            |rank| told[rank as usize],
            |rank| left.contains(&rank),
        )
    }

    #[test]
    fn who_was_told_of_whom_is_followed_to_the_first() {
        assert_eq!(first(0, &[None, None], &[]), None);
        assert_eq!(first(0, &[Some(1), None], &[]), Some(1));
        // Rank 3 was told of 1 only, which left because of 2.
        let chain = [Some(2), Some(2), None, Some(1)];
        assert_eq!(
            [0, 1, 2, 3].map(|rank| first(rank, &chain, &[0, 1])),
            [Some(2), Some(2), None, Some(2)]
        );
        // Rank 1 dropped a guard and went on until it was told of 0, which had left because of it.
        let circle = [Some(1), Some(0), Some(0)];
        assert_eq!(
            [0, 1, 2].map(|rank| first(rank, &circle, &[1])),
            [Some(1), None, Some(1)]
        );
        // Told of oneself, or nobody knows who began.
        assert_eq!(first(0, &[Some(0)], &[]), None);
        let unknown = [Some(1), Some(0), Some(0)];
        assert!([0, 1].contains(&first(2, &unknown, &[]).unwrap()));
    }

    #[test]
    fn lists_of_ranks_are_short() {
        assert_eq!(ranks([3].into_iter()), "rank 3");
        assert_eq!(ranks([0, 2].into_iter()), "ranks 0, 2");
        let many: Vec<u32> = (0..20).collect();
        assert_eq!(
            ranks(many.into_iter()),
            "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 12 more ranks"
        );
    }
}
