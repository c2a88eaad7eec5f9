//! Bytes between processes: explicit encoding, frames, and the proof that both sides belong to the same job.
//!
//! Everything here treats what it receives as hostile (reliability.md S2, S3, S7): lengths are checked before memory is
//! taken for them, nothing recurses, unknown values are refused, and a stranger learns nothing but a close.
//!
//! * [`codec`] writes and reads little-endian numbers and byte strings.
//! * [`frame`](mod@frame) cuts a stream into frames with a length in front.
//! * [`auth`] proves on both sides that the other one knows the job's secret.
//!
//! The state machines do no input or output of their own; small wrappers for blocking streams stand beside them.
#![forbid(unsafe_code)]

pub mod auth;
pub mod codec;
pub mod frame;

pub use auth::{
    CHALLENGE, HELLO, HandshakeError, Initiator, PROOF, Refused, Responder, Secret, accept,
    connect, same_code,
};
pub use codec::{Malformed, Put, Take};
pub use frame::{CONTROL_LIMIT, FrameError, Frames, frame, read_frame, write_frame};

/// Version of everything that crosses a socket. Both sides of a link have the same one, or the link is refused.
pub const VERSION: u16 = 1;
