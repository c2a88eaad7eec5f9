//! Which ranks take part in something, and where they stand on their nodes.

use std::collections::HashMap;

use super::barrier::Stand;

/// Where a rank lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Its node: of the job, or an index among the nodes of a group.
    pub(crate) node: u32,
    /// Its number among all ranks of the job on that node.
    pub(crate) local: u32,
}

/// The seats of all ranks of a job, from their nodes in rank order.
pub(crate) fn seats(nodes: impl IntoIterator<Item = u32>) -> Box<[Seat]> {
    let mut counts = Vec::new();
    let seats = nodes.into_iter().map(|node| {
        if counts.len() <= node as usize {
            counts.resize(node as usize + 1, 0);
        }
        let local = counts[node as usize];
        counts[node as usize] += 1;
        Seat { node, local }
    });
    seats.collect()
}

/// Ranks of the job in an order of their own: a rank's place in it is its *team rank*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Job ranks, by team rank.
    pub(crate) ranks: Box<[u32]>,
    /// By team rank; nodes count as in `nodes`.
    pub(crate) seats: Box<[Seat]>,
    /// Team ranks on each node, nodes in the order of their first rank.
    pub(crate) nodes: Box<[Box<[u32]>]>,
    /// This process's team rank.
    pub(crate) rank: u32,
    /// This process's node.
    pub(crate) home: u32,
    /// Ranks on it.
    pub(crate) here: u32,
    /// Is this the first of them, which acts for the node?
    pub(crate) is_first: bool,
}

impl Group {
    /// The group of these job ranks, which are seated so and have this process, `me`, among them.
    /// `None` where they have not.
    pub(crate) fn new(ranks: Vec<u32>, seated: &[Seat], me: u32) -> Option<Group> {
        let rank = ranks.iter().position(|&rank| rank == me)? as u32;
        let mut nodes: Vec<Vec<u32>> = Vec::new();
        let mut known = HashMap::new();
        let mut seats = Vec::with_capacity(ranks.len());
        for (index, &job_rank) in ranks.iter().enumerate() {
            let seat = seated.get(job_rank as usize)?;
            let node = *known.entry(seat.node).or_insert_with(|| {
                nodes.push(Vec::new());
                nodes.len() - 1
            });
            nodes[node].push(index as u32);
            seats.push(Seat {
                node: node as u32,
                local: seat.local,
            });
        }
        let home = seats[rank as usize].node;
        let here = &nodes[home as usize];
        let (here, is_first) = (here.len() as u32, here[0] == rank);
        let nodes = nodes.into_iter().map(Into::into);
        Some(Group {
            ranks: ranks.into(),
            seats: seats.into(),
            nodes: nodes.collect(),
            rank,
            home,
            here,
            is_first,
        })
    }

    pub(crate) fn size(&self) -> u32 {
        self.ranks.len() as u32
    }

    /// Where this rank stands in the group's barriers; `polls`: each rank has a cpu to itself.
    #[inline]
    pub(super) fn stand(&self, polls: bool) -> Stand {
        let nodes = self.nodes.len() as u32;
        let by_flags = nodes == 1 && self.here == 2 && polls;
        Stand {
            of_two: by_flags.then_some(self.rank),
            first: self.is_first,
            here: self.here,
            nodes,
        }
    }

    /// The other nodes, with the job rank of the first of each.
    pub(crate) fn elsewhere(&self) -> impl Iterator<Item = (usize, u32)> {
        let firsts = self.nodes.iter().map(|ranks| self.ranks[ranks[0] as usize]);
        let home = self.home as usize;
        firsts.enumerate().filter(move |(node, _)| *node != home)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_knows_its_nodes_in_its_own_order() {
        let seated = seats([0, 0, 1, 0, 2, 1]);
        assert_eq!(seated[5], Seat { node: 1, local: 1 });
        let group = Group::new(vec![5, 3, 2, 1], &seated, 1).unwrap();
        assert_eq!((group.size(), group.rank, group.home), (4, 3, 1));
        assert_eq!(group.nodes[0][..], [0, 2]);
        assert_eq!(group.nodes[1][..], [1, 3]);
        assert_eq!((group.here, group.is_first), (2, false));
        assert_eq!(group.seats[3], Seat { node: 1, local: 1 });
        assert_eq!(group.elsewhere().collect::<Vec<_>>(), [(0, 5)]);
        assert_eq!(Group::new(vec![5, 3], &seated, 1), None);
        assert_eq!(Group::new(vec![5, 6], &seated, 5), None, "no such rank");
    }
}
