//! The errno values that the control plane answers with (ve-memory.md section 3.4), and which of two columns they follow (section 11).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why VEOS or IVED refused a request. The meaning of a value depends on the call: see the tables of sections 5 and 7.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
pub enum Errno {
    /// No such entry: no System V segment has the key.
    #[error("ENOENT (no such segment)")]
    Enoent,
    /// No such process on the VE or VH that was asked.
    #[error("ESRCH (no such process on the node asked)")]
    Esrch,
    /// Try again: the owner is swapped out, or the descriptor ring is full.
    #[error("EAGAIN (try again)")]
    Eagain,
    /// A table, the slots, the memory or a counter is exhausted, or a range is not mapped for its whole length.
    #[error(
        "ENOMEM (memory, table entries or slots exhausted, or the range is not mapped throughout)"
    )]
    Enomem,
    /// The owner is another user, or a page is not writable.
    #[error("EACCES (other user, or a page that is not writable)")]
    Eacces,
    /// A page is not what the call needs: not huge, or not mapped.
    #[error("EFAULT (page missing or not a huge page)")]
    Efault,
    /// The resource is in use.
    #[error("EBUSY (in use)")]
    Ebusy,
    /// An argument breaks a rule of the call, or nothing matches it.
    #[error("EINVAL (an argument breaks a rule of the call, or nothing matches it)")]
    Einval,
    /// The System V segment was removed.
    #[error("EIDRM (segment removed)")]
    Eidrm,
    /// The facility is absent: no IVED, or not a VE process.
    #[error("ENOTSUP (facility absent)")]
    Enotsup,
    /// The operation was given up: IVED unreachable, or pages changed since the area was opened.
    #[error("ECANCELED (given up: service unreachable, or pages changed since the open)")]
    Ecanceled,
}

impl Errno {
    /// The Linux number.
    pub const fn code(self) -> i32 {
        match self {
            Self::Enoent => 2,
            Self::Esrch => 3,
            Self::Eagain => 11,
            Self::Enomem => 12,
            Self::Eacces => 13,
            Self::Efault => 14,
            Self::Ebusy => 16,
            Self::Einval => 22,
            Self::Eidrm => 43,
            Self::Enotsup => 95,
            Self::Ecanceled => 125,
        }
    }
}

/// Whose answers a node gives where documentation and implementation disagree (section 11). Callers must accept both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ErrnoProfile {
    /// Those of the published implementation.
    #[default]
    Implemented,
    /// Those of the vendor's pages.
    Documented,
}

impl ErrnoProfile {
    /// The variable of the environment that selects it.
    pub const VARIABLE: &'static str = "WINDLASS_VE_ERRNO";
    /// What [`ErrnoProfile::from_str`] accepts, in words.
    pub const NAMES: &'static str = "implemented or documented";

    /// The answer of this column.
    pub(crate) const fn pick(self, implemented: Errno, documented: Errno) -> Errno {
        match self {
            Self::Implemented => implemented,
            Self::Documented => documented,
        }
    }
}

impl fmt::Display for ErrnoProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Implemented => "implemented",
            Self::Documented => "documented",
        })
    }
}

/// A column that does not exist.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{name:?} is no column of errno values; use {}", ErrnoProfile::NAMES)]
pub struct UnknownErrnoProfile {
    /// What was asked for.
    pub name: String,
}

impl FromStr for ErrnoProfile {
    type Err = UnknownErrnoProfile;

    /// `implemented` or `documented`.
    fn from_str(name: &str) -> Result<Self, UnknownErrnoProfile> {
        match name {
            "implemented" => Ok(Self::Implemented),
            "documented" => Ok(Self::Documented),
            _ => Err(UnknownErrnoProfile {
                name: name.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_section_3_4() {
        let all = [
            (Errno::Esrch, 3),
            (Errno::Eagain, 11),
            (Errno::Enomem, 12),
            (Errno::Eacces, 13),
            (Errno::Efault, 14),
            (Errno::Ebusy, 16),
            (Errno::Einval, 22),
            (Errno::Eidrm, 43),
            (Errno::Enotsup, 95),
            (Errno::Ecanceled, 125),
            (Errno::Enoent, 2),
        ];
        for (errno, code) in all {
            assert_eq!(errno.code(), code);
        }
    }
}
