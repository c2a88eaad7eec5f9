//! Updates as messages: what an origin asks and a target answers, in explicit little-endian bytes.
//!
//! Operands and results are in host order, as window memory is.

use windlass_dat::{LocalSegment, RemoteSegment};
use windlass_mem::SharedBytes;
use windlass_wire::{Malformed, Put, Take};

use super::carrier::{self, Carrier, Registered};
use crate::mechanism::RemoteRange;
use crate::update::{Kind, UpdateOp};

/// Bytes of operands or results in one message at most.
pub(super) const UPDATE_BYTES: usize = 4096;

/// Messages of one origin that one connection holds: it posts no more before an answer is in.
pub(super) const SLOTS: usize = 32;

/// Bytes of the fields before the operands.
const HEAD_BYTES: usize = 32;

/// Room for one message.
const SLOT_BYTES: usize = HEAD_BYTES + UPDATE_BYTES;

const UPDATE: u8 = 0;
const COMPARE_SWAP: u8 = 1;

/// What is asked of the target's helper.
pub(super) enum Ask<'a> {
    Update {
        kind: Kind,
        op: UpdateOp,
        operand: &'a [u8],
        fetch: bool,
    },
    CompareSwap {
        kind: Kind,
        compare: &'a [u8],
        swap: &'a [u8],
    },
}

/// One message to a target.
pub(super) struct Request<'a> {
    pub(super) ticket: u64,
    pub(super) range: RemoteSegment,
    /// The context whose guard covers the range's wide elements, 0 for none.
    pub(super) guard: u32,
    pub(super) ask: Ask<'a>,
}

impl<'a> Request<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut put = Put::new();
        put.u64(self.ticket);
        match &self.ask {
            Ask::Update {
                kind, op, fetch, ..
            } => {
                put.u8(UPDATE)
                    .u8(*kind as u8)
                    .u8(*op as u8)
                    .u8(u8::from(*fetch));
            }
            Ask::CompareSwap { kind, .. } => {
                put.u8(COMPARE_SWAP).u8(*kind as u8).u8(0).u8(1);
            }
        }
        put.u32(self.range.context)
            .u64(self.range.address)
            .u32(self.range.len)
            .u32(self.guard);
        match &self.ask {
            Ask::Update { operand, .. } => put.raw(operand),
            Ask::CompareSwap { compare, swap, .. } => put.raw(compare).raw(swap),
        };
        put.into_vec()
    }

    /// What a peer asks. Lengths that do not fit each other are refused by the update itself.
    pub(super) fn decode(message: &'a [u8]) -> Result<Request<'a>, Malformed> {
        let mut take = Take::new(message);
        let ticket = take.u64()?;
        let (verb, kind, op, fetch) = (take.u8()?, take.u8()?, take.u8()?, take.u8()?);
        let range = RemoteSegment {
            context: take.u32()?,
            address: take.u64()?,
            len: take.u32()?,
        };
        let guard = take.u32()?;
        let value = |field, code: u8| Malformed::Value {
            field,
            value: code.into(),
        };
        if range.len as usize > UPDATE_BYTES {
            return Err(Malformed::TooLong {
                len: range.len as usize,
                limit: UPDATE_BYTES,
            });
        }
        let kind = Kind::from_code(kind).ok_or(value("element type", kind))?;
        let ask = match verb {
            UPDATE => Ask::Update {
                kind,
                op: UpdateOp::from_code(op).ok_or(value("operator", op))?,
                operand: take.rest(),
                fetch: fetch != 0,
            },
            COMPARE_SWAP => {
                let compare = take.raw(kind.size())?;
                Ask::CompareSwap {
                    kind,
                    compare,
                    swap: take.rest(),
                }
            }
            _ => return Err(value("verb", verb)),
        };
        Ok(Request {
            ticket,
            range,
            guard,
            ask,
        })
    }
}

/// How an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The range is not the target's to change, or not aligned.
    Access,
    /// The element type does not take the operator, or lengths do not agree.
    Refused,
}

/// One message back.
pub(super) struct Reply<'a> {
    pub(super) ticket: u64,
    pub(super) outcome: Outcome,
    pub(super) result: &'a [u8],
}

impl<'a> Reply<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut put = Put::new();
        put.u64(self.ticket).u8(self.outcome as u8).raw(self.result);
        put.into_vec()
    }

    pub(super) fn decode(message: &'a [u8]) -> Result<Reply<'a>, Malformed> {
        let mut take = Take::new(message);
        let ticket = take.u64()?;
        let outcome = match take.u8()? {
            0 => Outcome::Done,
            1 => Outcome::Access,
            2 => Outcome::Refused,
            other => {
                return Err(Malformed::Value {
                    field: "outcome",
                    value: other.into(),
                });
            }
        };
        let result = take.rest();
        Ok(Reply {
            ticket,
            outcome,
            result,
        })
    }
}

/// Registered places for the messages of one connection.
pub(super) struct Inbox<L> {
    bytes: SharedBytes,
    lmr: L,
}

impl<L: Registered> Inbox<L> {
    pub(super) fn new<C: Carrier<Lmr = L>>(carrier: &C) -> carrier::Result<Inbox<L>> {
        // Zeroed by the kernel on first touch: a quiet connection costs address space only.
        let (bytes, _loan) = windlass_mem::lend(vec![0u8; SLOTS * SLOT_BYTES]);
        let lmr = carrier.register(&bytes, false)?;
        Ok(Inbox { bytes, lmr })
    }

    /// Where a receive puts its message.
    pub(super) fn segment(&self, slot: usize) -> LocalSegment {
        self.lmr
            .segment((slot * SLOT_BYTES) as u64, SLOT_BYTES as u32)
    }

    /// The message of `len` bytes that a receive has put there.
    pub(super) fn read(&self, slot: usize, len: usize, to: &mut Vec<u8>) -> Option<()> {
        to.resize(len.min(SLOT_BYTES), 0);
        self.bytes.read(slot.checked_mul(SLOT_BYTES)?, to).ok()
    }
}

/// What a range is on the wire.
pub(super) fn segment(remote: RemoteRange) -> RemoteSegment {
    RemoteSegment {
        context: remote.key as u32,
        address: remote.base,
        len: u32::try_from(remote.len).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What a peer may send: any bytes, and messages with some bytes changed. They are refused,
        /// or understood as what they would be encoded from.
        #[test]
        fn rubbish_is_refused_or_means_what_it_says(
            mut message in prop::collection::vec(any::<u8>(), 0..80),
            verb in 0u8..3,
            kind in 0u8..30,
            op in 0u8..20,
            len in 0u32..5000,
            shaped in any::<bool>(),
        ) {
            if shaped && message.len() >= HEAD_BYTES {
                message[8..12].copy_from_slice(&[verb, kind, op, 1]);
                message[24..28].copy_from_slice(&len.to_le_bytes());
            }
            if let Ok(request) = Request::decode(&message) {
                prop_assert!(request.range.len as usize <= UPDATE_BYTES);
                let mut again = request.encode();
                // A compare-and-swap has no operator, and a flag is any byte but 0.
                again[10..12].copy_from_slice(&message[10..12]);
                prop_assert_eq!(again, message.clone());
            }
            if let Ok(reply) = Reply::decode(&message) {
                prop_assert_eq!(reply.encode(), message);
            }
        }
    }

    #[test]
    fn messages_survive_and_truncated_ones_are_refused() {
        let range = RemoteSegment {
            context: 0x0102,
            address: u64::MAX,
            len: 8,
        };
        let operand = 7u64.to_ne_bytes();
        let request = Request {
            ticket: 9,
            range,
            guard: 77,
            ask: Ask::Update {
                kind: Kind::F64,
                op: UpdateOp::Sum,
                operand: &operand,
                fetch: true,
            },
        };
        let bytes = request.encode();
        assert_eq!(bytes.len(), HEAD_BYTES + 8);
        let back = Request::decode(&bytes).unwrap();
        assert_eq!((back.ticket, back.range, back.guard), (9, range, 77));
        assert!(matches!(
            back.ask,
            Ask::Update { kind: Kind::F64, op: UpdateOp::Sum, operand: o, fetch: true } if o == operand
        ));
        for len in 0..HEAD_BYTES {
            assert!(Request::decode(&bytes[..len]).is_err());
        }
        for at in 8..11 {
            let mut wrong = bytes.clone();
            wrong[at] = 99;
            assert!(Request::decode(&wrong).is_err());
        }
        let reply = Reply {
            ticket: 3,
            outcome: Outcome::Access,
            result: &operand,
        };
        let bytes = reply.encode();
        let back = Reply::decode(&bytes).unwrap();
        assert_eq!(
            (back.ticket, back.outcome, back.result),
            (3, Outcome::Access, &operand[..])
        );
        assert!(Reply::decode(&bytes[..8]).is_err());
    }
}
