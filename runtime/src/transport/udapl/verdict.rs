//! What the adapter says of an end, as faults.

use windlass_dat::{ConnectionKind, DtoStatus};

use crate::mechanism::Fault;

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
