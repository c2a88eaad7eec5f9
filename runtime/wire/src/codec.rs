//! Numbers and byte strings as bytes: little-endian, bounded, without padding or guessing.

/// Received bytes do not have the documented form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The message ends before its last field.
    #[error("message too short: {need} bytes needed, {have} left")]
    Short {
        /// Bytes the field needs.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// The message goes on after its last field.
    #[error("{left} bytes after the end of the message")]
    Trailing {
        /// Bytes too many.
        left: usize,
    },
    /// A length is above the limit of its field or link. Nothing was allocated for it.
    #[error("length {len} is above the limit of {limit} bytes")]
    TooLong {
        /// The length received.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// A number has no meaning in its field.
    #[error("value {value} is not a {field}")]
    Value {
        /// The field.
        field: &'static str,
        /// The number received.
        value: u64,
    },
}

/// A message being written.
#[derive(Debug, Clone, Default)]
pub struct Put(Vec<u8>);

impl Put {
    /// An empty message, with room for a short one.
    pub fn new() -> Self {
        Put(Vec::with_capacity(64))
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A byte string: its length as a `u32`, then its bytes.
    ///
    /// # Panics
    /// For more than 4 GiB, which no caller has reason to send in one message.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let len = u32::try_from(value.len()).expect("a byte string of a message is below 4 GiB");
        self.u32(len).raw(value)
    }

    /// Bytes whose number the reader knows.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The message.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

/// A message being read.
#[derive(Debug, Clone)]
pub struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    /// A message, read from its first byte.
    pub fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A byte string of at most `limit` bytes: its length as a `u32`, then its bytes.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if len > limit {
            return Err(Malformed::TooLong { len, limit });
        }
        self.raw(len)
    }

    /// `len` bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let short = Malformed::Short {
            need: len,
            have: self.0.len(),
        };
        let (head, rest) = self.0.split_at_checked(len).ok_or(short)?;
        self.0 = rest;
        Ok(head)
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let short = Malformed::Short {
            need: N,
            have: self.0.len(),
        };
        let (head, rest) = self.0.split_first_chunk().ok_or(short)?;
        self.0 = rest;
        Ok(*head)
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// The rest of the message, whatever its length.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The end: refuses bytes after the last field.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Trailing { left: self.0.len() })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_come_back_and_are_little_endian() {
        let mut put = Put::new();
        assert!(put.is_empty());
        put.u8(1)
            .u16(0x0203)
            .u32(4)
            .u64(u64::MAX - 1)
            .bytes(b"abc")
            .raw(b"xy");
        assert_eq!(put.as_slice()[..7], [1, 3, 2, 4, 0, 0, 0]);
        assert_eq!(put.len(), 1 + 2 + 4 + 8 + 4 + 3 + 2);
        let message = put.into_vec();
        let mut take = Take::new(&message);
        assert_eq!(
            (take.u8(), take.u16(), take.u32()),
            (Ok(1), Ok(0x0203), Ok(4))
        );
        assert_eq!(
            (take.u64(), take.bytes(3)),
            (Ok(u64::MAX - 1), Ok(&b"abc"[..]))
        );
        assert_eq!(take.left(), 2);
        assert_eq!(take.clone().finish(), Err(Malformed::Trailing { left: 2 }));
        assert_eq!(take.clone().rest(), b"xy");
        assert_eq!(take.array(), Ok(*b"xy"));
        assert_eq!(take.finish(), Ok(()));
    }

    #[test]
    fn what_is_missing_or_too_long_is_refused() {
        assert_eq!(
            Take::new(&[1, 2, 3]).u32(),
            Err(Malformed::Short { need: 4, have: 3 })
        );
        assert_eq!(
            Take::new(&[]).u8(),
            Err(Malformed::Short { need: 1, have: 0 })
        );
        let huge = u32::MAX.to_le_bytes();
        let refused = Malformed::TooLong {
            len: u32::MAX as usize,
            limit: 100,
        };
        assert_eq!(Take::new(&huge).bytes(100), Err(refused));
        assert_eq!(
            Take::new(&[5, 0, 0, 0, 1]).bytes(100),
            Err(Malformed::Short { need: 5, have: 1 })
        );
        assert_eq!(
            Take::new(&[1]).raw(usize::MAX),
            Err(Malformed::Short {
                need: usize::MAX,
                have: 1
            })
        );
        assert_eq!(
            Malformed::Value {
                field: "message kind",
                value: 9
            }
            .to_string(),
            "value 9 is not a message kind"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(message in prop::collection::vec(any::<u8>(), 0..64), limit in 0..64usize) {
            let mut take = Take::new(&message);
            while let Ok(part) = take.bytes(limit) {
                prop_assert!(part.len() <= limit);
            }
            prop_assert!(take.left() <= message.len());
        }

        #[test]
        fn byte_strings_come_back(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut put = Put::new();
            for part in &parts {
                put.bytes(part);
            }
            let message = put.into_vec();
            let mut take = Take::new(&message);
            for part in &parts {
                prop_assert_eq!(take.bytes(40).unwrap(), &part[..]);
            }
            prop_assert!(take.finish().is_ok());
        }
    }
}
