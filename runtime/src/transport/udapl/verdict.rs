//! What the adapter says of an end, as faults.

use windlass_dat::{ConnectionKind, DtoStatus, EpState};

use super::carrier::Refused;
use crate::mechanism::{Fault, PostError};

/// How a connection that has ended fails what needs it.
pub(super) fn gone(kind: Option<ConnectionKind>) -> Fault {
    Fault::Gone(match kind {
        Some(ConnectionKind::Unreachable) => "nothing listens at its address".into(),
        Some(ConnectionKind::NonPeerRejected | ConnectionKind::PeerRejected) => {
            "it refuses the connection".into()
        }
        _ => "the connection has ended".into(),
    })
}

/// Why a transfer failed, or nothing.
pub(super) fn outcome(status: DtoStatus) -> Option<Fault> {
    match status {
        DtoStatus::Success => None,
        DtoStatus::Flushed | DtoStatus::Transport => Some(gone(None)),
        DtoStatus::RemoteAccess | DtoStatus::RemoteResponder => {
            Some(Fault::Access("the target refuses the range".into()))
        }
        other => Some(Fault::Other(format!("the transfer ended with {other:?}"))),
    }
}

/// Full while the connection is being made, and until its end is noted: polling brings it about.
pub(super) fn usable(state: EpState, why: Option<ConnectionKind>) -> Result<(), PostError> {
    match state {
        EpState::Connected => Ok(()),
        EpState::Disconnected if why.is_some() => Err(PostError::Fault(gone(why))),
        _ => Err(PostError::Full),
    }
}

/// Why a post was refused: no room, no connection (yet or any more), or a fault.
pub(super) fn refusal(error: Refused, state: EpState, why: Option<ConnectionKind>) -> PostError {
    match (error, state) {
        (Refused::Full, _) => PostError::Full,
        (Refused::State, EpState::Disconnected) if why.is_some() => PostError::Fault(gone(why)),
        (Refused::State, _) => PostError::Full,
        (Refused::Other(text), _) => PostError::Fault(Fault::Other(text)),
    }
}
