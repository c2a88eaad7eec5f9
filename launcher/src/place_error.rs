//! Why a placement cannot be had, each with its remedy.
//!
//! Relies on: the limits of [`place`](crate::place). Promises: every text says what to write instead.

use windlass_node::control::MAX_LOCAL;

use crate::ending::count;
use crate::place::{MAX_ITEMS, MAX_NODES, MAX_RANKS, MAX_VES};

/// Why a placement cannot be had, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// `-n 0`.
    #[error("-n 0: a job has at least one rank; give -n 1 or more")]
    NoRanks,
    /// More ranks than a job can have.
    #[error(
        "-n {0}: a job has at most {MAX_RANKS} ranks, {MAX_LOCAL} on a node; give a smaller -n, --nodes or count"
    )]
    TooManyRanks(u64),
    /// `--nodes` out of range.
    #[error("--nodes {0}: give a number of logical nodes from 1 to {MAX_NODES}")]
    Nodes(u32),
    /// More nodes than ranks.
    #[error(
        "--nodes {nodes} with {} leaves a node without a rank; give -n {nodes} or more, or --nodes {ranks} or fewer",
        count(*.ranks as usize, "rank")
    )]
    EmptyNodes {
        /// Nodes asked for.
        nodes: u32,
        /// Ranks asked for.
        ranks: u32,
    },
    /// More ranks on a node than its control segment has room for.
    #[error("{most} ranks on one node: a node holds at most {MAX_LOCAL}; {}", spread(*.nodes))]
    CrowdedNode {
        /// Ranks on the fullest node.
        most: usize,
        /// How many nodes would do, where more of them do.
        nodes: Option<u32>,
    },
    /// `--ves` out of range.
    #[error("--ves {0}: a node has at most {MAX_VES} VEs; give a number from 0 to {MAX_VES}")]
    Ves(u32),
    /// A VE number no node can have.
    #[error("`{item}`: VE numbers go from 0 to {last}; name one of these", last = MAX_VES - 1)]
    VeNumber {
        /// The item as written.
        item: String,
    },
    /// A VE number this job's nodes do not have.
    #[error("VE {ve} does not exist: --ves {ves} gives each node {}; give --ves {} or name another VE", have(*.ves), .ve + 1)]
    UnknownVe {
        /// VE named.
        ve: u32,
        /// VEs per node.
        ves: u32,
    },
    /// `ve` on nodes without VEs.
    #[error(
        "the placement names VEs and the nodes have none; add --ves V (1 to {MAX_VES}) or use `vh`"
    )]
    NoVes,
    /// An item that is not in the language.
    #[error(
        "`{item}` is not a place; write vh, ve, ve0 or ve0-1, with :COUNT for so many ranks, as in ve0:2,ve1:2,vh:1"
    )]
    Item {
        /// The item as written.
        item: String,
    },
    /// A range that ends before it begins.
    #[error(
        "`{item}`: a range of VEs goes from the lower to the higher number; write ve{last}-{first}"
    )]
    Backwards {
        /// The item as written.
        item: String,
        /// First VE written.
        first: u32,
        /// Last VE written.
        last: u32,
    },
    /// A count that is not a number from 1.
    #[error(
        "`{item}`: the count after `:` is a number from 1 to {MAX_RANKS}; to seat nobody there, leave the item out"
    )]
    Count {
        /// The item as written.
        item: String,
    },
    /// Counted and uncounted items in one list.
    #[error(
        "`{item}` has no count and others have; give every item a count, or none to deal the ranks over them"
    )]
    Mixed {
        /// The first item without a count.
        item: String,
    },
    /// An empty list or item.
    #[error("the placement has an empty item; write it as in ve0:2,ve1:2,vh:1")]
    Empty,
    /// A list too long to be meant.
    #[error("the placement has {0} items; at most {MAX_ITEMS} are read")]
    TooLong(usize),
    /// `-n` and the counts disagree.
    #[error(
        "-n {ranks} does not fit the placement: it seats {per_node} per node, {total} on {}; give -n {total} (or no -n), change the counts, or drop them to deal the ranks over the places",
        count(*.nodes as usize, "node")
    )]
    Sum {
        /// Ranks asked for.
        ranks: u32,
        /// Sum of the counts.
        per_node: u64,
        /// Logical nodes.
        nodes: u32,
        /// Sum over all nodes.
        total: u64,
    },
}

/// The remedy for a crowded node.
fn spread(nodes: Option<u32>) -> String {
    match nodes {
        Some(nodes) => format!("give --nodes {nodes} or more, or fewer ranks"),
        None => "give smaller counts".into(),
    }
}

/// Words for a number of VEs: "no VE", "VE 0", "VEs 0 to 3".
fn have(ves: u32) -> String {
    match ves {
        0 => "no VE".into(),
        1 => "VE 0 only".into(),
        n => format!("VEs 0 to {}", n - 1),
    }
}
