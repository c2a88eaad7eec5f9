//! Why an operation of the control plane failed, at the process.

use thiserror::Error;

use crate::errno::Errno;
use crate::modes::UnknownMode;

/// Why a call has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallError {
    /// The service refused.
    Errno(Errno),
    /// The service is gone.
    Gone,
}

/// Why an operation of the control plane failed.
#[derive(Debug, Error)]
pub enum Error {
    /// VEOS, IVED or a check of the library refused.
    #[error("{call} was refused")]
    Refused {
        /// The call.
        call: &'static str,
        /// The answer, whose meaning for this call is in the tables of the specification.
        #[source]
        errno: Errno,
        /// In the checking mode: the rule, with its section, and what was asked for.
        rule: Option<String>,
    },
    /// The service is gone.
    #[error("{call}: the VE service is gone")]
    Gone {
        /// The call.
        call: &'static str,
    },
    /// A variable of the environment asks for a mode that does not exist.
    #[error("a VE process cannot start")]
    Mode(#[from] UnknownMode),
    /// The memory could not be mapped into this process.
    #[error("{call}: the memory cannot be mapped; is the address space limited (ulimit -v)?")]
    Memory {
        /// The call.
        call: &'static str,
        /// What the kernel or the mapping rules say.
        #[source]
        source: windlass_mem::Error,
    },
    /// The answer is not one to this request.
    #[error(
        "{call}: the VE service sent an answer to something else; do both sides have the same version?"
    )]
    Protocol {
        /// The call.
        call: &'static str,
    },
}

impl Error {
    /// The errno a C caller sees.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Refused { errno, .. } => *errno,
            Self::Mode(_) => Errno::Einval,
            Self::Memory { .. } => Errno::Enomem,
            Self::Gone { .. } | Self::Protocol { .. } => Errno::Ecanceled,
        }
    }
}

impl Error {
    /// A refusal whose errno says all there is.
    pub(crate) fn refused(call: &'static str, errno: Errno) -> Self {
        let rule = None;
        Self::Refused { call, errno, rule }
    }
}

pub(crate) fn from_call(call: &'static str, error: CallError) -> Error {
    match error {
        CallError::Errno(errno) => Error::refused(call, errno),
        CallError::Gone => Error::Gone { call },
    }
}
