//! Where ranks live: the placement language and the plan made from it.
//!
//! Relies on: nothing but its arguments; both halves are pure functions.
//! Promises: a [`Plan`] seats every rank on an existing node and VE, or the [`PlaceError`] names
//! the refused value, the rule, and what to write instead.
//!
//! A placement is a comma-separated list that describes **one node**; it is repeated for each:
//!
//! | item | meaning |
//! | --- | --- |
//! | `vh` | the host side of the node |
//! | `ve` | every VE of the node |
//! | `ve1` | VE number 1 |
//! | `ve0-3` | VEs 0, 1, 2 and 3 |
//! | any of these with `:COUNT` | so many ranks there (a range: on each of its VEs; `ve`: dealt over all) |
//!
//! Either every item has a count, and the list says exactly how many ranks a node has, or none
//! has, and the ranks are dealt over the listed places: without a number of them, one to each.

use std::fmt;
use std::str::FromStr;

pub use windlass_node::Place;
use windlass_node::control::MAX_LOCAL;

pub use crate::place_error::PlaceError;

/// A VH has at most this many VEs (ve-memory section 1).
pub const MAX_VES: u32 = 8;
/// Logical nodes of one launcher: each costs a service thread, a directory and its VE files.
pub const MAX_NODES: u32 = 64;
/// Ranks of one job.
pub const MAX_RANKS: u32 = 1024;
/// Items of a placement list: more than anyone writes, few enough to refuse garbage early.
pub(crate) const MAX_ITEMS: usize = 256;

/// What an item of the list points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Vh,
    EveryVe,
    Ves { first: u32, last: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    at: At,
    count: Option<u32>,
}

/// A parsed placement list. Made by `str::parse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceSpec {
    items: Vec<Item>,
}

/// How consecutive ranks are dealt over nodes and over the VEs of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Neighbouring ranks together: fill a node, and on it a VE, before the next.
    Packed,
    /// Neighbouring ranks apart: like cards, one to each in turn.
    Cyclic,
}

/// What the user asked for; [`plan`] turns it into seats.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// `-n`: number of ranks; none: as many as the counts say, one per place of a list without
    /// counts, one per node without a list.
    pub ranks: Option<u32>,
    /// At least so many ranks where neither `-n` nor counts say how many.
    pub at_least: u32,
    /// `--nodes`: logical nodes; none: 1.
    pub nodes: Option<u32>,
    /// `--ves`: VEs per node; none: as many as the placement names.
    pub ves: Option<u32>,
    /// `--place`: none: on the VEs when there are any, else on the host.
    pub place: Option<PlaceSpec>,
    /// `--map`: none: nodes packed, VEs of a node cyclic.
    pub map: Option<Map>,
}

/// One rank's seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Rank in the job.
    pub rank: u32,
    /// Logical node.
    pub node: u32,
    /// Host or VE of that node.
    pub place: Place,
}

/// Every rank's seat, in rank order, and the machine they sit on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Logical nodes, each with at least one rank.
    pub nodes: u32,
    /// VEs of each node.
    pub ves: u32,
    /// Seats in rank order.
    pub seats: Vec<Seat>,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Vh => write!(f, "vh")?,
            At::EveryVe => write!(f, "ve")?,
            At::Ves { first, last } if first == last => write!(f, "ve{first}")?,
            At::Ves { first, last } => write!(f, "ve{first}-{last}")?,
        }
        self.count.map_or(Ok(()), |count| write!(f, ":{count}"))
    }
}

impl fmt::Display for PlaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.items.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A decimal number of at most nine digits, without sign: what `str::parse` accepts, and no `+1`.
fn number(text: &str) -> Option<u32> {
    let plain = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl FromStr for Item {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Item, PlaceError> {
        let item = || text.to_string();
        let (name, count) = match text.split_once(':') {
            None => (text, None),
            Some((name, count)) => match number(count) {
                Some(n @ 1..=MAX_RANKS) => (name, Some(n)),
                _ => return Err(PlaceError::Count { item: item() }),
            },
        };
        let lower = name.to_ascii_lowercase();
        let at = match lower.as_str() {
            "vh" => At::Vh,
            "ve" => At::EveryVe,
            other => {
                let ves = other
                    .strip_prefix("ve")
                    .ok_or_else(|| PlaceError::Item { item: item() })?;
                let (first, last) = ves.split_once('-').unwrap_or((ves, ves));
                match (number(first), number(last)) {
                    (Some(first), Some(last)) if first.max(last) >= MAX_VES => {
                        return Err(PlaceError::VeNumber { item: item() });
                    }
                    (Some(first), Some(last)) if first > last => {
                        return Err(PlaceError::Backwards {
                            item: item(),
                            first,
                            last,
                        });
                    }
                    (Some(first), Some(last)) => At::Ves { first, last },
                    _ => return Err(PlaceError::Item { item: item() }),
                }
            }
        };
        Ok(Item { at, count })
    }
}

impl FromStr for PlaceSpec {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<PlaceSpec, PlaceError> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        if parts.len() > MAX_ITEMS {
            return Err(PlaceError::TooLong(parts.len()));
        }
        if parts.iter().any(|part| part.is_empty()) {
            return Err(PlaceError::Empty);
        }
        let items = parts
            .iter()
            .map(|part| part.parse())
            .collect::<Result<Vec<Item>, _>>()?;
        let counted = items.iter().filter(|item| item.count.is_some()).count();
        match items.iter().find(|item| item.count.is_none()) {
            Some(bare) if counted > 0 => Err(PlaceError::Mixed {
                item: bare.to_string(),
            }),
            _ => Ok(PlaceSpec { items }),
        }
    }
}

impl PlaceSpec {
    /// Ranks per node, where the list has counts.
    fn per_node(&self) -> Option<u64> {
        self.items
            .iter()
            .map(|item| {
                let places = match item.at {
                    At::Ves { first, last } => u64::from(last - first + 1),
                    At::Vh | At::EveryVe => 1,
                };
                item.count.map(|count| places * u64::from(count))
            })
            .sum()
    }

    /// Places of a node, listed without counts.
    fn places(&self, ves: u32) -> Vec<Place> {
        let items = self.items.iter();
        items.flat_map(|item| places(item.at, ves)).collect()
    }

    /// VEs a node needs for the numbers named here.
    fn ves_named(&self) -> u32 {
        let needs = |item: &Item| match item.at {
            At::Ves { last, .. } => last + 1,
            At::Vh | At::EveryVe => 0,
        };
        self.items.iter().map(needs).max().unwrap_or(0)
    }

    fn check(&self, ves: u32) -> Result<(), PlaceError> {
        for item in &self.items {
            match item.at {
                At::EveryVe if ves == 0 => return Err(PlaceError::NoVes),
                At::Ves { last, .. } if last >= ves => {
                    return Err(PlaceError::UnknownVe { ve: last, ves });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The places of one node, one entry per rank, for `ranks` ranks on it. `self` is checked.
    fn seats(&self, ves: u32, ranks: u32, map: Map) -> Vec<Place> {
        if self.per_node().is_none() {
            return deal(&self.places(ves), ranks, map);
        }
        let mut seats = Vec::new();
        for item in &self.items {
            let count = item.count.unwrap_or(0);
            match item.at {
                At::EveryVe => seats.extend(deal(&places(item.at, ves), count, map)),
                at => {
                    let each = places(at, ves).into_iter();
                    seats.extend(each.flat_map(|p| std::iter::repeat_n(p, count as usize)));
                }
            }
        }
        seats
    }
}

fn places(at: At, ves: u32) -> Vec<Place> {
    match at {
        At::Vh => vec![Place::Vh],
        At::EveryVe => (0..ves).map(Place::Ve).collect(),
        At::Ves { first, last } => (first..=last).map(Place::Ve).collect(),
    }
}

/// Deals `ranks` over `places` (not empty): in turn, or in blocks as equal as can be.
fn deal(places: &[Place], ranks: u32, map: Map) -> Vec<Place> {
    let (k, n) = (places.len(), ranks as usize);
    let index = |i: usize| match map {
        Map::Cyclic => i % k,
        Map::Packed => block(i, n, k),
    };
    (0..n).map(|i| places[index(i)]).collect()
}

/// Which of `k` blocks item `i` of `n` is in, when the first `n % k` blocks have one more.
fn block(i: usize, n: usize, k: usize) -> usize {
    let (base, more) = (n / k, n % k);
    let big = more * (base + 1);
    if i < big {
        i / (base + 1)
    } else {
        more + (i - big) / base.max(1)
    }
}

/// Seats every rank.
///
/// Errors: [`PlaceError`], each with its remedy.
pub fn plan(wish: &Wish) -> Result<Plan, PlaceError> {
    let nodes = wish.nodes.unwrap_or(1);
    if nodes == 0 || nodes > MAX_NODES {
        return Err(PlaceError::Nodes(nodes));
    }
    if let Some(ves) = wish.ves.filter(|&ves| ves > MAX_VES) {
        return Err(PlaceError::Ves(ves));
    }
    let named = wish.place.as_ref().map_or(0, PlaceSpec::ves_named);
    let ves = wish.ves.unwrap_or(named);
    let by_default = Item {
        at: if ves > 0 { At::EveryVe } else { At::Vh },
        count: None,
    };
    let spec = wish.place.clone().unwrap_or(PlaceSpec {
        items: vec![by_default],
    });
    spec.check(ves)?;

    let per_node = spec.per_node();
    let total = per_node.map(|per_node| per_node * u64::from(nodes));
    let ranks = match (wish.ranks, total) {
        (Some(0), _) => return Err(PlaceError::NoRanks),
        (Some(ranks), Some(total)) if u64::from(ranks) != total => {
            let per_node = per_node.unwrap_or(0);
            return Err(PlaceError::Sum {
                ranks,
                per_node,
                nodes,
                total,
            });
        }
        (Some(ranks), _) => u64::from(ranks),
        (None, Some(total)) => total,
        (None, None) => {
            let of_node = wish.place.as_ref().map_or(1, |list| list.places(ves).len());
            u64::from(wish.at_least).max(of_node as u64 * u64::from(nodes))
        }
    };
    if ranks > u64::from(MAX_RANKS) {
        return Err(PlaceError::TooManyRanks(ranks));
    }
    let ranks = ranks as u32;
    if ranks < nodes {
        return Err(PlaceError::EmptyNodes { nodes, ranks });
    }
    let plan = seat(&spec, nodes, ves, ranks, wish.map);
    let on_node = |node: u32| plan.seats.iter().filter(|seat| seat.node == node).count();
    match (0..nodes).map(on_node).max() {
        Some(most) if most > MAX_LOCAL as usize => Err(PlaceError::CrowdedNode {
            most,
            nodes: per_node.is_none().then(|| ranks.div_ceil(MAX_LOCAL)),
        }),
        _ => Ok(plan),
    }
}

/// The plan of a checked wish.
fn seat(spec: &PlaceSpec, nodes: u32, ves: u32, ranks: u32, map: Option<Map>) -> Plan {
    let node_of = |rank: u32| match map.unwrap_or(Map::Packed) {
        Map::Cyclic => rank % nodes,
        Map::Packed => block(rank as usize, ranks as usize, nodes as usize) as u32,
    };
    let on_node = |node: u32| (0..ranks).filter(|&rank| node_of(rank) == node).count() as u32;
    let mut free: Vec<_> = (0..nodes)
        .map(|node| {
            spec.seats(ves, on_node(node), map.unwrap_or(Map::Cyclic))
                .into_iter()
        })
        .collect();
    let seats = (0..ranks)
        .map(|rank| {
            let node = node_of(rank);
            // Counts sum to the node's share and dealing fills it, so a seat is always left.
            let place = free[node as usize].next().expect("a seat per rank");
            Seat { rank, node, place }
        })
        .collect();
    Plan { nodes, ves, seats }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wish(ranks: u32, nodes: u32, ves: u32, place: &str) -> Wish {
        let some = |n: u32| (n > 0).then_some(n);
        let place = (!place.is_empty()).then(|| place.parse().unwrap());
        Wish {
            ranks: some(ranks),
            nodes: some(nodes),
            ves: some(ves),
            place,
            at_least: 0,
            map: None,
        }
    }

    /// `node/place` of each rank.
    fn seats(wish: &Wish) -> String {
        let plan = plan(wish).unwrap();
        let seats = plan
            .seats
            .iter()
            .map(|seat| format!("{}/{}", seat.node, seat.place));
        seats.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn counted_lists_are_repeated_for_each_node() {
        let wish = wish(10, 2, 2, "ve0:2,ve1:1,vh:2");
        assert_eq!(
            seats(&wish),
            "0/ve0 0/ve0 0/ve1 0/vh 0/vh 1/ve0 1/ve0 1/ve1 1/vh 1/vh"
        );
        let without = Wish {
            ranks: None,
            ves: None,
            ..wish.clone()
        };
        assert_eq!(
            plan(&without),
            plan(&wish),
            "-n and --ves follow from the list"
        );
        let cyclic = Wish {
            map: Some(Map::Cyclic),
            ..wish
        };
        assert!(seats(&cyclic).starts_with("0/ve0 1/ve0 0/ve0 1/ve0 0/ve1 1/ve1"));
    }

    #[test]
    fn without_a_list_ranks_are_packed_on_nodes_and_cyclic_on_ves() {
        assert_eq!(
            seats(&wish(6, 2, 2, "")),
            "0/ve0 0/ve1 0/ve0 1/ve0 1/ve1 1/ve0"
        );
        assert_eq!(seats(&wish(3, 2, 0, "")), "0/vh 0/vh 1/vh");
        assert_eq!(seats(&wish(0, 3, 0, "")), "0/vh 1/vh 2/vh");
        let packed = Wish {
            map: Some(Map::Packed),
            ..wish(5, 1, 2, "")
        };
        assert_eq!(seats(&packed), "0/ve0 0/ve0 0/ve0 0/ve1 0/ve1");
    }

    #[test]
    fn uncounted_lists_are_dealt_over() {
        assert_eq!(
            seats(&wish(5, 1, 3, "ve0-1,vh")),
            "0/ve0 0/ve1 0/vh 0/ve0 0/ve1"
        );
        assert_eq!(seats(&wish(2, 1, 8, "ve7")), "0/ve7 0/ve7");
        // One rank per place where nobody says how many.
        assert_eq!(seats(&wish(0, 1, 0, "ve0,ve1,vh")), "0/ve0 0/ve1 0/vh");
        assert_eq!(seats(&wish(0, 2, 2, "ve")), "0/ve0 0/ve1 1/ve0 1/ve1");
        assert_eq!(seats(&wish(0, 1, 0, "ve1-3")), "0/ve1 0/ve2 0/ve3");
        let pair = |wish: Wish| {
            seats(&Wish {
                at_least: 2,
                ..wish
            })
        };
        assert_eq!(pair(wish(0, 1, 0, "")), "0/vh 0/vh");
        assert_eq!(pair(wish(0, 3, 0, "")), "0/vh 1/vh 2/vh");
        assert_eq!(pair(wish(0, 1, 0, "ve0")), "0/ve0 0/ve0");
        assert_eq!(pair(wish(0, 1, 0, "vh:1")), "0/vh");
        assert_eq!(pair(wish(1, 1, 0, "")), "0/vh");
        assert_eq!(seats(&wish(0, 1, 2, "ve:3,vh:1")), "0/ve0 0/ve1 0/ve0 0/vh");
        assert_eq!(seats(&wish(0, 1, 0, "VE1-2:2")), "0/ve1 0/ve1 0/ve2 0/ve2");
    }

    #[test]
    fn refusals_name_the_remedy() {
        let parse = |text: &str| text.parse::<PlaceSpec>().unwrap_err().to_string();
        for (text, remedy) in [
            ("", "empty item"),
            ("vh,,ve", "empty item"),
            ("ve0:0", "leave the item out"),
            ("ve0:-1", "a number from 1"),
            ("vh:2,ve0", "give every item a count"),
            ("ve8", "from 0 to 7"),
            ("ve1-0", "write ve0-1"),
            ("ve+1", "write vh, ve"),
            ("vh0", "write vh, ve"),
            ("gpu", "write vh, ve"),
            ("ve99999999999999999999", "write vh, ve"),
        ] {
            assert!(parse(text).contains(remedy), "{text}: {}", parse(text));
        }
        let refused = |wish: Wish| plan(&wish).unwrap_err();
        assert_eq!(
            refused(Wish {
                ranks: Some(0),
                ..Wish::default()
            }),
            PlaceError::NoRanks
        );
        assert_eq!(
            refused(Wish {
                ves: Some(9),
                ..Wish::default()
            }),
            PlaceError::Ves(9)
        );
        assert_eq!(
            refused(Wish {
                nodes: Some(0),
                ..Wish::default()
            }),
            PlaceError::Nodes(0)
        );
        assert_eq!(
            refused(wish(2, 1, 1, "ve1")),
            PlaceError::UnknownVe { ve: 1, ves: 1 }
        );
        assert_eq!(refused(wish(2, 1, 0, "ve")), PlaceError::NoVes);
        assert_eq!(
            refused(wish(1, 2, 0, "")),
            PlaceError::EmptyNodes { nodes: 2, ranks: 1 }
        );
        let crowded = |most, nodes| PlaceError::CrowdedNode { most, nodes };
        assert_eq!(refused(wish(257, 1, 0, "")), crowded(257, Some(2)));
        assert!(
            crowded(1024, Some(4))
                .to_string()
                .contains("--nodes 4 or more")
        );
        assert_eq!(refused(wish(0, 2, 0, "vh:300")), crowded(300, None));
        assert!(
            refused(wish(7, 2, 0, "ve0:2,vh:1"))
                .to_string()
                .contains("give -n 6")
        );
    }

    #[test]
    fn specs_print_as_they_are_read() {
        for text in ["vh", "ve", "ve0:2,ve1:1,vh:2", "ve0-3:4", "ve:3,vh:1"] {
            assert_eq!(text.parse::<PlaceSpec>().unwrap().to_string(), text);
        }
    }

    fn item() -> impl Strategy<Value = String> {
        let at = prop_oneof![
            Just("vh".to_string()),
            Just("ve".to_string()),
            (0u32..10).prop_map(|n| format!("ve{n}")),
            (0u32..10, 0u32..10).prop_map(|(a, b)| format!("ve{a}-{b}")),
        ];
        (at, prop::option::of(0u32..5)).prop_map(|(at, count)| match count {
            Some(count) => format!("{at}:{count}"),
            None => at,
        })
    }

    proptest! {
        #[test]
        fn the_parser_never_panics(text in "\\PC*") {
            let _ = text.parse::<PlaceSpec>();
        }

        #[test]
        fn near_misses_never_panic(text in "[veh0-9:,+ -]{0,24}") {
            if let Ok(spec) = text.parse::<PlaceSpec>() {
                prop_assert_eq!(spec.to_string().parse::<PlaceSpec>(), Ok(spec));
            }
        }

        #[test]
        fn every_plan_seats_every_rank_once_where_it_may_be(
            ranks in prop::option::of(0u32..40),
            nodes in prop::option::of(0u32..6),
            ves in prop::option::of(0u32..10),
            items in prop::option::of(prop::collection::vec(item(), 0..4)),
            map in prop::option::of(prop_oneof![Just(Map::Packed), Just(Map::Cyclic)]),
        ) {
            let place = match items.map(|items| items.join(",").parse::<PlaceSpec>()) {
                Some(Err(_)) => return Ok(()),
                other => other.transpose().unwrap(),
            };
            let wish = Wish { ranks, nodes, ves, place, map, at_least: 0 };
            let Ok(plan) = plan(&wish) else { return Ok(()) };
            prop_assert!(ranks.is_none_or(|ranks| ranks as usize == plan.seats.len()));
            for (rank, seat) in plan.seats.iter().enumerate() {
                prop_assert_eq!(seat.rank as usize, rank);
                prop_assert!(seat.node < plan.nodes);
                prop_assert!(!matches!(seat.place, Place::Ve(ve) if ve >= plan.ves));
            }
            let share = |node| plan.seats.iter().filter(|seat| seat.node == node).count();
            let shares: Vec<usize> = (0..plan.nodes).map(share).collect();
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            prop_assert!(*shares.iter().min().unwrap() > 0);
        }
    }
}
