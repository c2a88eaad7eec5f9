//! What the services of two nodes tell each other about segments. What comes from there is an allegation, as a request is.

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// Most bytes of one read or write of another node's segment; a multiple of every element's size.
pub const FAR_BYTES: usize = 48 * 1024;
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
    /// Bytes of the segment, or for it.
    Move {
        /// From [`Told::Connected`].
        connection: u64,
        /// Which.
        what: Move,
    },
    /// A signal to the exporter.
    Post {
        /// From [`Told::Connected`].
        connection: u64,
        /// Not if one is pending.
        once: bool,
    },
}

/// A part of a transfer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// First byte in the segment.
    pub offset: u64,
    /// Bytes of one element: 1, 2, 4 or 8.
    pub size: u8,
    /// The bytes, at most [`FAR_BYTES`].
    pub bytes: Bytes,
}

/// The bytes of a part of a transfer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Bytes {
    /// So many are wanted.
    Get(u32),
    /// These are to be written.
    Put(#[serde(with = "block")] Vec<u8>),
}

impl Bytes {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Get(len) => *len as usize,
            Self::Put(bytes) => bytes.len(),
        }
    }
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
    },
    /// To an [`Ask::Move`] that gets.
    Bytes(#[serde(with = "block")] Vec<u8>),
    /// Done.
    Done,
}

/// Bytes encoded as a block, not one by one as a list of numbers is.
pub(crate) mod block {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_byte_buf(Block)
    }

    struct Block;

    impl Visitor<'_> for Block {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}
