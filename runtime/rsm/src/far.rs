//! What the services of two nodes tell each other about segments, never of their bytes. What comes from there is an allegation, as a
//! request is.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::pass::Pass;

/// Most further groups of a caller that are told to another node.
pub(crate) const MAX_GROUPS: usize = 1024;

/// A message to another node's service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// A question, answered by [`Message::Answer`] of the same number.
    Ask {
        /// The asker's number.
        call: u64,
        /// What is asked.
        ask: Ask,
    },
    /// The answer.
    Answer {
        /// The asker's number.
        call: u64,
        /// What is answered.
        answer: Result<Told, Code>,
    },
    /// A connection is given up.
    Disconnect {
        /// From [`Told::Connected`].
        connection: u64,
    },
    /// A connection has ended: its segment has.
    Ended {
        /// From [`Ask::Connect`].
        name: u64,
    },
    /// A signal of the exporter's.
    Signal {
        /// From [`Ask::Connect`].
        name: u64,
        /// Not if one is pending.
        once: bool,
    },
    /// The node that this is from has gone.
    Gone,
}

/// What one node's service asks another's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// A connection to a segment.
    Connect {
        /// What the asker calls it.
        name: u64,
        /// The segment's id.
        id: u32,
        /// Bits of [`PERM_RDWR`](crate::PERM_RDWR).
        permission: u32,
        /// Effective user of the process.
        uid: u32,
        /// Effective group.
        gid: u32,
        /// Further groups.
        groups: Vec<u32>,
    },
    /// A signal to the exporter.
    Post {
        /// From [`Told::Connected`].
        connection: u64,
        /// Not if one is pending.
        once: bool,
    },
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Told {
    /// To [`Ask::Connect`].
    Connected {
        /// What the answerer calls it.
        connection: u64,
        /// Bytes of the segment.
        len: u64,
        /// Lets the importer in at the exporter.
        pass: Pass,
    },
    /// Done.
    Done,
}
