//! A stream cut into frames: four bytes of length, little-endian, then that many bytes.

use std::io::{self, Read, Write};

use crate::codec::Malformed;

/// Largest frame of a control link, in bytes (reliability.md S7).
pub const CONTROL_LIMIT: usize = 64 * 1024;

/// Bytes of the length in front of a frame.
const PREFIX: usize = 4;

/// Reads frames from a stream that arrives in pieces of any size.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    // Bytes before this one were handed out already; they are removed when it pays.
    start: usize,
    limit: usize,
}

impl Frames {
    /// A reader that refuses frames above `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            limit,
        }
    }

    /// Takes what was received.
    pub fn push(&mut self, received: &[u8]) {
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(received);
    }

    /// The next whole frame, without its length; `None` until more is pushed.
    ///
    /// # Errors
    /// A length above the limit is refused as soon as it is seen, and again at each call: the stream has lost its
    /// frames and must be closed.
    #[expect(
        clippy::should_implement_trait,
        reason = "fallible, and `None` is not the end"
    )]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let rest = &self.buffer[self.start..];
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = checked_len(*prefix, self.limit)?;
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.start += PREFIX + len;
        Ok(Some(body))
    }

    /// Bytes received that no whole frame was made of yet.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

/// `body` with its length in front.
///
/// # Panics
/// For a body of 4 GiB and more: callers keep the limit of their link, which is far below.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("a frame is below 4 GiB");
    let mut whole = Vec::with_capacity(PREFIX + body.len());
    whole.extend_from_slice(&len.to_le_bytes());
    whole.extend_from_slice(body);
    whole
}

/// Reading a frame from a blocking stream failed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed or ended inside a frame.
    #[error("the link failed")]
    Io(#[from] io::Error),
    /// What arrived is no frame of this link.
    #[error("the link sent what is no frame")]
    Malformed(#[from] Malformed),
}

/// Reads one frame of at most `limit` bytes from a blocking stream; `None` at the end of the stream.
pub fn read_frame(from: &mut impl Read, limit: usize) -> Result<Option<Vec<u8>>, FrameError> {
    let mut prefix = [0; PREFIX];
    let mut have = 0;
    while have < PREFIX {
        match from.read(&mut prefix[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(more) => have += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut body = vec![0; checked_len(prefix, limit)?];
    from.read_exact(&mut body)?;
    Ok(Some(body))
}

/// Writes one frame to a blocking stream, length and body in one piece.
pub fn write_frame(to: &mut impl Write, body: &[u8]) -> io::Result<()> {
    to.write_all(&frame(body))
}

fn checked_len(prefix: [u8; PREFIX], limit: usize) -> Result<usize, Malformed> {
    let len = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if len > limit {
        Err(Malformed::TooLong { len, limit })
    } else {
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_bytes_arrive() {
        let mut frames = Frames::new(100);
        frames.push(&101u32.to_le_bytes()[..3]);
        assert_eq!(frames.next(), Ok(None));
        frames.push(&101u32.to_le_bytes()[3..]);
        let refused = Malformed::TooLong {
            len: 101,
            limit: 100,
        };
        assert_eq!(frames.next(), Err(refused));
        frames.push(&frame(b"valid"));
        assert_eq!(frames.next(), Err(refused), "a lost stream stays lost");
        let hostile = u32::MAX.to_le_bytes();
        assert!(matches!(
            read_frame(&mut &hostile[..], 100),
            Err(FrameError::Malformed(_))
        ));
    }

    #[test]
    fn frames_at_the_limit_and_empty_ones_pass() {
        let mut frames = Frames::new(4);
        frames.push(&frame(b"full"));
        frames.push(&frame(b""));
        assert_eq!(frames.next(), Ok(Some(b"full".to_vec())));
        assert_eq!(frames.next(), Ok(Some(Vec::new())));
        assert_eq!((frames.next(), frames.pending()), (Ok(None), 0));
    }

    #[test]
    fn blocking_streams_tell_an_end_from_a_cut() {
        let mut stream = Vec::new();
        write_frame(&mut stream, b"one").unwrap();
        let mut from = &stream[..];
        assert_eq!(read_frame(&mut from, 10).unwrap(), Some(b"one".to_vec()));
        assert_eq!(read_frame(&mut from, 10).unwrap(), None);
        for cut in 1..stream.len() {
            assert!(
                matches!(read_frame(&mut &stream[..cut], 10), Err(FrameError::Io(_))),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_long_stream_does_not_pile_up() {
        let mut frames = Frames::new(1000);
        for _ in 0..10_000 {
            frames.push(&frame(&[7; 1000]));
            assert_eq!(frames.next().unwrap().unwrap().len(), 1000);
        }
        assert!(frames.buffer.capacity() < 10_000);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
            cuts in prop::collection::vec(1..20usize, 1..20),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
            let (mut frames, mut got, mut at) = (Frames::new(50), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(stream.len());
                frames.push(&stream[at..end]);
                at = end;
                while let Some(body) = frames.next().unwrap() {
                    got.push(body);
                }
                if at == stream.len() {
                    break;
                }
            }
            prop_assert_eq!(got, bodies);
        }

        #[test]
        fn any_bytes_are_frames_or_refused(received in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::new(64);
            frames.push(&received);
            while let Ok(Some(body)) = frames.next() {
                prop_assert!(body.len() <= 64);
            }
            prop_assert!(frames.pending() <= received.len());
        }
    }
}
