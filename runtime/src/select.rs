//! Candidates in, order out: a pure function.
//!
//! The best mechanism that reaches a target comes first; every other one keeps the reason why it
//! was not taken, in a sentence for `windlass explain`.

use crate::mechanism::{Cost, MechanismId, Reason};

/// One mechanism's word about one target.
pub struct Candidate {
    /// Which mechanism.
    pub mechanism: MechanismId,
    /// What it would cost, or why it cannot.
    pub verdict: Result<Cost, Reason>,
}

/// Mechanisms to try, best first, and those that are out already.
pub struct Order {
    /// To be attached in this order until one works.
    pub try_in_order: Vec<(MechanismId, Cost)>,
    /// Those that `forced` does not name but that would work, best first: what is forced is the
    /// way of the data, and updates that it cannot make go by the best that can.
    pub unnamed: Vec<(MechanismId, Cost)>,
    /// Out, and why.
    pub rejected: Vec<(MechanismId, Reason)>,
}

/// Sorts candidates by cost, then by the order of [`MechanismId`]. With `forced`, only those named
/// there may be tried; own memory stays reachable by [`MechanismId::Loopback`] whatever is forced.
pub fn order(candidates: Vec<Candidate>, forced: Option<&[MechanismId]>) -> Order {
    let mut try_in_order = Vec::new();
    let mut unnamed = Vec::new();
    let mut rejected = Vec::new();
    for Candidate { mechanism, verdict } in candidates {
        match verdict {
            Err(reason) => rejected.push((mechanism, reason)),
            Ok(cost) if !allowed(mechanism, forced) => unnamed.push((mechanism, cost)),
            Ok(cost) => try_in_order.push((mechanism, cost)),
        }
    }
    try_in_order.sort_by_key(|&(mechanism, cost)| (cost, mechanism));
    unnamed.sort_by_key(|&(mechanism, cost)| (cost, mechanism));
    Order {
        try_in_order,
        unnamed,
        rejected,
    }
}

fn allowed(mechanism: MechanismId, forced: Option<&[MechanismId]>) -> bool {
    mechanism == MechanismId::Loopback || forced.is_none_or(|list| list.contains(&mechanism))
}

/// Why a working mechanism was not taken: another is better.
pub fn outdone(cost: Cost, by: MechanismId, best: Cost) -> Reason {
    Reason::new(if cost == best {
        format!("works, but {by} is preferred at the same cost")
    } else {
        format!("works, but {by} is cheaper ({} against {})", best.0, cost.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use MechanismId::{Cma, Loopback, Udapl, Veshm, Vhshm};

    fn candidates(list: &[(MechanismId, Option<u32>)]) -> Vec<Candidate> {
        list.iter()
            .map(|&(mechanism, cost)| Candidate {
                mechanism,
                verdict: cost.map(Cost).ok_or_else(|| Reason::new("no")),
            })
            .collect()
    }

    fn names(order: &Order) -> Vec<MechanismId> {
        order.try_in_order.iter().map(|&(id, _)| id).collect()
    }

    #[test]
    fn the_cheapest_comes_first_and_ties_go_by_the_list() {
        let all = [
            (Udapl, Some(1000)),
            (Vhshm, Some(10)),
            (Veshm, Some(10)),
            (Cma, None),
        ];
        let order = order(candidates(&all), None);
        assert_eq!(names(&order), [Veshm, Vhshm, Udapl]);
        assert_eq!(order.rejected, [(Cma, Reason::new("no"))]);
    }

    #[test]
    fn force_keeps_only_what_it_names_and_own_memory() {
        let all = [(Loopback, Some(0)), (Vhshm, Some(10)), (Udapl, Some(1000))];
        let order = order(candidates(&all), Some(&[Udapl]));
        assert_eq!(names(&order), [Loopback, Udapl]);
        assert_eq!(order.unnamed, [(Vhshm, Cost(10))]);
        assert!(order.rejected.is_empty());
    }

    #[test]
    fn nothing_reachable_is_an_empty_order() {
        let order = order(candidates(&[(Vhshm, None)]), None);
        assert!(order.try_in_order.is_empty());
    }
}
