//! Bytes between two endpoints: one fixed little-endian header, then at most one chunk of payload.
//!
//! ```text
//!  0 kind u8 | 1 flags u8 | 2 credits u16 | 4 len u32 | 8 context u32 | 12 ack u32 | 16 address u64 | 24 payload
//! ```
//! `ack` is in every frame: how many of the receiver's requests the sender has finished, modulo 2^32. `credits`
//! is how many receives were posted since the last frame: a send starts only when the peer has a receive for it.
//! A write, send or read answer longer than [`CHUNK`] continues in `More*` frames, so that acknowledgements and the
//! other direction's answers pass between chunks, and the output always ends at a frame.
//!
//! Nothing here trusts the peer: kind, flags and length are checked before anything is believed or reserved.

use crate::model::DtoStatus;

/// Bytes of a header.
pub(crate) const HEADER: usize = 24;
/// Payload bytes in one frame at most.
pub(crate) const CHUNK: u32 = 128 * 1024;
/// Private data of a connection request or its answer at most (udapl.md section 6: at least 64).
pub const PRIVATE_DATA_MAX: usize = 256;
/// Payload of an atomic: two operands.
pub(crate) const ATOMIC_PAYLOAD: usize = 16;
/// First word of a connection request: name and version of this protocol. A change of the layout changes it.
pub(crate) const PROTOCOL: u32 = u32::from_le_bytes(*b"WDA\x02");

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// `context` = PROTOCOL, `address` = qualifier, flags 1: the sender's receives are shared, payload = private data.
    Connect = 1,
    /// flags as of a connection request. Payload = private data.
    Accept = 2,
    /// flags 1: without the consumer. Payload = private data.
    Reject = 3,
    /// RDMA write of `len` bytes to `context`, `address`.
    Write = 4,
    /// RDMA read of `len` bytes; no payload.
    Read = 5,
    /// Message of `len` bytes.
    Send = 6,
    /// Answer of a read, `len` bytes in all.
    Data = 7,
    /// Next chunk of a write or send.
    MoreRequest = 8,
    /// Next chunk of a read's answer.
    MoreData = 9,
    /// flags 0: fetch and add, 1: compare and swap; payload: two operands.
    Atomic = 10,
    /// `address` = the value before.
    AtomicReply = 11,
    /// Only acknowledges and gives credits.
    Ack = 12,
    /// The request after `ack` failed with DTO status `flags`; nothing after it was done.
    Fault = 13,
    /// The sender leaves.
    Bye = 14,
    /// A send waits for a receive of the peer's shared queue.
    Want = 15,
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        use Kind::*;
        [
            Connect,
            Accept,
            Reject,
            Write,
            Read,
            Send,
            Data,
            MoreRequest,
            MoreData,
            Atomic,
            AtomicReply,
            Ack,
            Fault,
            Bye,
            Want,
        ]
        .get(usize::from(value).checked_sub(1)?)
        .copied()
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("frame kind {0} does not exist")]
    Kind(u8),
    #[error("flags {flags} have no meaning in a frame of kind {kind:?}")]
    Flags { kind: Kind, flags: u8 },
    #[error("length {len} is not permitted in a frame of kind {kind:?}")]
    Length { kind: Kind, len: u32 },
}

/// One decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) credits: u16,
    pub(crate) len: u32,
    pub(crate) context: u32,
    pub(crate) ack: u32,
    pub(crate) address: u64,
}

impl Header {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            flags: 0,
            credits: 0,
            len: 0,
            context: 0,
            ack: 0,
            address: 0,
        }
    }

    #[inline]
    pub(crate) fn encode(&self, to: &mut [u8; HEADER]) {
        to[0] = self.kind as u8;
        to[1] = self.flags;
        to[2..4].copy_from_slice(&self.credits.to_le_bytes());
        to[4..8].copy_from_slice(&self.len.to_le_bytes());
        to[8..12].copy_from_slice(&self.context.to_le_bytes());
        to[12..16].copy_from_slice(&self.ack.to_le_bytes());
        to[16..24].copy_from_slice(&self.address.to_le_bytes());
    }

    #[inline]
    pub(crate) fn decode(from: &[u8; HEADER]) -> Result<Self, Malformed> {
        let [
            kind,
            flags,
            c0,
            c1,
            l0,
            l1,
            l2,
            l3,
            x0,
            x1,
            x2,
            x3,
            a0,
            a1,
            a2,
            a3,
            address @ ..,
        ] = *from;
        let header = Self {
            kind: Kind::from_u8(kind).ok_or(Malformed::Kind(kind))?,
            flags,
            credits: u16::from_le_bytes([c0, c1]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            context: u32::from_le_bytes([x0, x1, x2, x3]),
            ack: u32::from_le_bytes([a0, a1, a2, a3]),
            address: u64::from_le_bytes(address),
        };
        check(header.kind, header.flags, header.len)?;
        Ok(header)
    }

    /// Payload bytes that follow this header in the same frame.
    #[inline]
    pub(crate) fn payload(&self) -> u32 {
        match self.kind {
            Kind::Read => 0,
            Kind::Write | Kind::Send | Kind::Data => self.len.min(CHUNK),
            _ => self.len,
        }
    }
}

/// Are flags and length those of a frame of this kind? Values, not the header: its fields need not be in memory for it.
#[inline(always)]
fn check(kind: Kind, flags: u8, len: u32) -> Result<(), Malformed> {
    let length = match kind {
        Kind::Write | Kind::Read | Kind::Send | Kind::Data => true,
        Kind::Connect | Kind::Accept | Kind::Reject => len as usize <= PRIVATE_DATA_MAX,
        Kind::MoreRequest | Kind::MoreData => 0 < len && len <= CHUNK,
        Kind::Atomic => len as usize == ATOMIC_PAYLOAD,
        Kind::AtomicReply | Kind::Ack | Kind::Fault | Kind::Bye | Kind::Want => len == 0,
    };
    if !length {
        return Err(Malformed::Length { kind, len });
    }
    let known = match kind {
        Kind::Connect | Kind::Accept | Kind::Reject | Kind::Atomic => flags <= 1,
        Kind::Fault => fault_status(flags).is_some(),
        _ => flags == 0,
    };
    if known {
        Ok(())
    } else {
        Err(Malformed::Flags { kind, flags })
    }
}

/// The two statuses a target may report (udapl.md section 5; no other tells the initiator more).
pub(crate) fn fault_status(flags: u8) -> Option<DtoStatus> {
    [DtoStatus::RemoteAccess, DtoStatus::RemoteResponder]
        .into_iter()
        .find(|status| *status as u8 == flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_survives_a_round_trip() {
        for value in 1..=15 {
            let mut header = Header::new(Kind::from_u8(value).unwrap());
            header.ack = 7;
            header.credits = 3;
            header.address = u64::MAX - 1;
            header.context = 0x0102_0304;
            match header.kind {
                Kind::MoreRequest | Kind::MoreData => header.len = CHUNK,
                Kind::Atomic => header.len = ATOMIC_PAYLOAD as u32,
                Kind::Fault => header.flags = DtoStatus::RemoteAccess as u8,
                _ => {}
            }
            let mut bytes = [0; HEADER];
            header.encode(&mut bytes);
            assert_eq!(Header::decode(&bytes), Ok(header));
        }
        assert_eq!(Header::decode(&[0; HEADER]), Err(Malformed::Kind(0)));
        assert_eq!(Header::decode(&[16; HEADER]), Err(Malformed::Kind(16)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes: [u8; HEADER]) {
            if let Ok(header) = Header::decode(&bytes) {
                let mut again = [0; HEADER];
                header.encode(&mut again);
                prop_assert_eq!(again, bytes);
                prop_assert!(header.payload() <= CHUNK);
            }
        }
    }
}
