//! A directory's bytes: a version, an index, and offers.

use super::REGIONS_MAX;

/// Room for the offers of one region, in bytes.
pub(super) const OFFER_BYTES: usize = 2048;

/// Bytes of an index entry: address, bytes, segment, bytes of offers.
pub(super) const ENTRY_BYTES: usize = 24;

pub(super) const AT_VERSION: usize = 0;
pub(super) const AT_USED: usize = 8;
pub(super) const AT_INDEX: usize = 64;
pub(super) const AT_OFFERS: usize = AT_INDEX + REGIONS_MAX * ENTRY_BYTES;
pub(super) const DIRECTORY_BYTES: usize = AT_OFFERS + REGIONS_MAX * OFFER_BYTES;

/// One entry of an index, as its rank wrote it: an allegation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) segment: u32,
    pub(super) offer_bytes: u32,
}

impl Entry {
    pub(super) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.address.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.bytes.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.segment.to_ne_bytes());
        bytes[20..].copy_from_slice(&self.offer_bytes.to_ne_bytes());
        bytes
    }

    /// `None` for a slot that is free, or nonsense.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Entry> {
        let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let entry = Entry {
            address: word(0)?,
            bytes: word(8)?,
            segment: half(16)?,
            offer_bytes: half(20)?,
        };
        let real = entry.bytes > 0
            && entry.offer_bytes as usize <= OFFER_BYTES
            && entry.address.checked_add(entry.bytes).is_some();
        real.then_some(entry)
    }

    /// Where in the region the bytes `first..end` lie, if they all do.
    pub(super) fn offset(&self, first: i128, end: i128) -> Option<u64> {
        let start = i128::from(self.address);
        let inside = first >= start && end >= first && end <= start + i128::from(self.bytes);
        inside.then(|| (first - start) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_survive_rubbish(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(entry) = Entry::from_bytes(&bytes) {
                prop_assert!(entry.bytes > 0 && entry.offer_bytes as usize <= OFFER_BYTES);
                prop_assert_eq!(&entry.to_bytes()[..], &bytes[..ENTRY_BYTES]);
            }
        }

        #[test]
        fn offsets_are_inside(
            address in prop_oneof![0u64..100, (u64::MAX - 200)..(u64::MAX - 100), any::<u64>()],
            bytes in 1u64..100,
            shift in -120i128..120,
            len in 0i128..120,
        ) {
            let entry = Entry { address, bytes, segment: 0, offer_bytes: 0 };
            let first = i128::from(address) + shift;
            let naive = shift >= 0 && shift + len <= i128::from(bytes);
            prop_assert_eq!(entry.offset(first, first + len).is_some(), naive);
        }
    }
}
