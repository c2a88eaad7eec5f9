//! Ordered sets of ranks (MPI's groups): who takes part in a window, a start or a post.
//!
//! A group names processes, not numbers: its members keep their identity whatever window or world
//! the group is used with, and [`Group::translate`] gives their numbers in another group.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::error::{Error, Result, Site};
use crate::world::Rank;

/// An ordered set of processes of the job. Cloning is cheap.
///
/// ```
/// # fn main() -> windlass::Result<()> {
/// # let world = windlass::init()?;
/// let all = world.group();
/// let even = all.range_incl(0, all.size().saturating_sub(1), 2)?;
/// assert_eq!(all.intersection(&even).size(), even.size());
/// assert_eq!(even.translate(windlass::Rank(0), &all), Some(windlass::Rank(0)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Group {
    /// Ranks in the job, in the group's order.
    members: Arc<[u32]>,
    /// This process, by its rank in the job.
    me: u32,
}

/// How two groups compare (`MPI_Group_compare`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// The same members in the same order. `MPI_IDENT`
    Identical,
    /// The same members in another order. `MPI_SIMILAR`
    Similar,
    /// Different members. `MPI_UNEQUAL`
    Unequal,
}

impl Group {
    pub(crate) fn new(members: impl Into<Arc<[u32]>>, me: u32) -> Group {
        Group {
            members: members.into(),
            me,
        }
    }

    fn with(&self, members: Vec<u32>) -> Group {
        Group::new(members, self.me)
    }

    /// Ranks in the job, in the group's order.
    #[cfg(test)]
    pub(crate) fn members(&self) -> &[u32] {
        &self.members
    }

    /// How many members it has.
    pub fn size(&self) -> u32 {
        self.members.len() as u32
    }

    /// Has it no members?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// This process's rank in the group, if it is a member.
    pub fn rank(&self) -> Option<Rank> {
        self.position(self.me)
    }

    fn position(&self, member: u32) -> Option<Rank> {
        // In the group of the whole job every member stands at its own number.
        if self.members.get(member as usize) == Some(&member) {
            return Some(Rank(member));
        }
        let at = self.members.iter().position(|&other| other == member);
        at.map(|at| Rank(at as u32))
    }

    fn has(&self, member: u32) -> bool {
        self.members.contains(&member)
    }

    /// All ranks of the group, in order.
    pub fn ranks(&self) -> impl DoubleEndedIterator<Item = Rank> + Clone + use<> {
        (0..self.size()).map(Rank)
    }

    #[track_caller]
    fn member(&self, call: &'static str, rank: Rank) -> Result<u32> {
        match self.members.get(rank.0 as usize) {
            Some(&member) => Ok(member),
            None => Err(self.refused(call, rank, "is no rank of it")),
        }
    }

    #[cold]
    #[track_caller]
    fn refused(&self, call: &'static str, rank: Rank, why: &'static str) -> Error {
        Error::Group {
            rank: rank.0,
            size: self.size(),
            why,
            at: Box::new(Site {
                call,
                rank: Some(self.me),
                window: None,
                location: Location::caller(),
            }),
        }
    }

    /// The members at `ranks`, in that order.
    ///
    /// # Errors
    /// [`Error::Group`] for a rank that is not there or is named twice.
    #[track_caller]
    pub fn incl(&self, ranks: &[Rank]) -> Result<Group> {
        let mut members = Vec::with_capacity(ranks.len());
        for &rank in ranks {
            let member = self.member("incl", rank)?;
            if members.contains(&member) {
                return Err(self.refused("incl", rank, "is named twice"));
            }
            members.push(member);
        }
        Ok(self.with(members))
    }

    /// All members but those at `ranks`, in the group's order.
    ///
    /// # Errors
    /// As [`incl`](Self::incl).
    #[track_caller]
    pub fn excl(&self, ranks: &[Rank]) -> Result<Group> {
        let without = self.incl(ranks)?;
        Ok(self.difference(&without))
    }

    /// The members at `first`, `first + stride`, ... up to `last` (which need not be met); a
    /// negative stride goes down.
    ///
    /// # Errors
    /// [`Error::Group`] for a rank that is not there, or a stride of 0.
    #[track_caller]
    pub fn range_incl(&self, first: u32, last: u32, stride: i64) -> Result<Group> {
        if stride == 0 {
            return Err(self.refused("range_incl", Rank(first), "cannot be left by a stride of 0"));
        }
        let (mut at, last) = (i64::from(first), i64::from(last));
        let mut members = Vec::new();
        while (stride > 0 && at <= last) || (stride < 0 && at >= last) {
            let rank = Rank(u32::try_from(at).unwrap_or(u32::MAX));
            members.push(self.member("range_incl", rank)?);
            let Some(next) = at.checked_add(stride) else {
                break;
            };
            at = next;
        }
        Ok(self.with(members))
    }

    /// All members but those of [`range_incl`](Self::range_incl).
    ///
    /// # Errors
    /// As [`range_incl`](Self::range_incl).
    #[track_caller]
    pub fn range_excl(&self, first: u32, last: u32, stride: i64) -> Result<Group> {
        let without = self.range_incl(first, last, stride)?;
        Ok(self.difference(&without))
    }

    /// The members of this group, then those of `other` that are not among them.
    pub fn union(&self, other: &Group) -> Group {
        let new = other.members.iter().filter(|&&member| !self.has(member));
        self.with(self.members.iter().chain(new).copied().collect())
    }

    /// The members of this group that `other` has too, in this group's order.
    pub fn intersection(&self, other: &Group) -> Group {
        let both = self.members.iter().filter(|&&member| other.has(member));
        self.with(both.copied().collect())
    }

    /// The members of this group that `other` has not, in this group's order.
    pub fn difference(&self, other: &Group) -> Group {
        let rest = self.members.iter().filter(|&&member| !other.has(member));
        self.with(rest.copied().collect())
    }

    /// The rank in `other` of the member at `rank`, if both groups have it.
    pub fn translate(&self, rank: Rank, other: &Group) -> Option<Rank> {
        let member = *self.members.get(rank.0 as usize)?;
        other.position(member)
    }

    /// Have the two groups the same members, in the same order?
    pub fn compare(&self, other: &Group) -> Likeness {
        if self.members == other.members {
            Likeness::Identical
        } else if self.size() == other.size() && self.difference(other).is_empty() {
            Likeness::Similar
        } else {
            Likeness::Unequal
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.members).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn group(members: &[u32]) -> Group {
        Group::new(members.to_vec(), 3)
    }

    #[test]
    fn members_are_picked_and_left_out() {
        let all = group(&[7, 3, 9, 1]);
        assert_eq!(all.rank(), Some(Rank(1)));
        let some = all.incl(&[Rank(2), Rank(0)]).unwrap();
        assert_eq!(some.members(), [9, 7]);
        assert_eq!(some.rank(), None);
        assert_eq!(all.excl(&[Rank(0), Rank(3)]).unwrap().members(), [3, 9]);
        assert_eq!(all.range_incl(3, 0, -2).unwrap().members(), [1, 3]);
        assert_eq!(all.range_incl(0, 2, 2).unwrap().members(), [7, 9]);
        assert_eq!(all.range_excl(1, 3, 1).unwrap().members(), [7]);
        assert!(all.range_incl(2, 1, 1).unwrap().is_empty());
        assert_eq!(some.translate(Rank(1), &all), Some(Rank(0)));
        assert_eq!(all.translate(Rank(3), &some), None);
        assert_eq!(all.compare(&group(&[7, 3, 9, 1])), Likeness::Identical);
        assert_eq!(all.compare(&group(&[1, 3, 7, 9])), Likeness::Similar);
        assert_eq!(all.compare(&group(&[1, 3, 7, 8])), Likeness::Unequal);
    }

    #[test]
    fn ranks_outside_and_ranks_named_twice_are_refused() {
        let all = group(&[7, 3]);
        for refused in [
            all.incl(&[Rank(2)]),
            all.incl(&[Rank(0), Rank(0)]),
            all.excl(&[Rank(u32::MAX)]),
            all.range_incl(0, 2, 1),
            all.range_incl(0, 1, 0),
            all.range_incl(1, u32::MAX, i64::MAX - 1)
                .and(all.incl(&[Rank(5)])),
        ] {
            assert_eq!(refused.unwrap_err().class(), ErrorClass::Group);
        }
    }

    proptest! {
        #[test]
        fn sets_are_sets(
            a in prop::collection::hash_set(0u32..12, 0..12),
            b in prop::collection::hash_set(0u32..12, 0..12),
        ) {
            let (ga, gb) = (
                group(&a.iter().copied().collect::<Vec<_>>()),
                group(&b.iter().copied().collect::<Vec<_>>()),
            );
            let set = |g: &Group| g.members().iter().copied().collect::<HashSet<u32>>();
            prop_assert_eq!(set(&ga.union(&gb)), a.union(&b).copied().collect());
            prop_assert_eq!(ga.union(&gb).size() as usize, a.union(&b).count());
            prop_assert_eq!(set(&ga.intersection(&gb)), a.intersection(&b).copied().collect());
            prop_assert_eq!(set(&ga.difference(&gb)), a.difference(&b).copied().collect());
            let union = ga.union(&gb);
            prop_assert_eq!(&union.members()[..a.len()], ga.members());
        }
    }
}
