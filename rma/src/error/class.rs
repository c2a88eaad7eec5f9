//! MPI's error classes (mpi-rma 7).

use std::fmt;

use super::Error;

/// The MPI error class of an [`Error`] (mpi-rma 7, table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// `MPI_ERR_RANK`
    Rank,
    /// `MPI_ERR_GROUP`
    Group,
    /// `MPI_ERR_RMA_RANGE`
    RmaRange,
    /// `MPI_ERR_RMA_SYNC`
    RmaSync,
    /// `MPI_ERR_OP`
    Op,
    /// `MPI_ERR_COUNT`
    Count,
    /// `MPI_ERR_TYPE`
    Type,
    /// `MPI_ERR_NO_MEM`
    NoMem,
    /// `MPI_ERR_BASE`
    Base,
    /// `MPI_ERR_ARG`
    Arg,
    /// `MPI_ERR_BUFFER`
    Buffer,
    /// `MPI_ERR_DISP`
    Disp,
    /// `MPI_ERR_ASSERT`
    Assert,
    /// `MPI_ERR_RMA_FLAVOR`
    RmaFlavor,
    /// `MPI_ERR_RMA_SHARED`
    RmaShared,
    /// `MPI_ERR_RMA_ATTACH`
    RmaAttach,
    /// `MPI_ERR_OTHER`
    Other,
}

impl ErrorClass {
    /// The name in the MPI standard.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorClass::Rank => "MPI_ERR_RANK",
            ErrorClass::Group => "MPI_ERR_GROUP",
            ErrorClass::RmaRange => "MPI_ERR_RMA_RANGE",
            ErrorClass::RmaSync => "MPI_ERR_RMA_SYNC",
            ErrorClass::Op => "MPI_ERR_OP",
            ErrorClass::Count => "MPI_ERR_COUNT",
            ErrorClass::Type => "MPI_ERR_TYPE",
            ErrorClass::NoMem => "MPI_ERR_NO_MEM",
            ErrorClass::Base => "MPI_ERR_BASE",
            ErrorClass::Arg => "MPI_ERR_ARG",
            ErrorClass::Buffer => "MPI_ERR_BUFFER",
            ErrorClass::Disp => "MPI_ERR_DISP",
            ErrorClass::Assert => "MPI_ERR_ASSERT",
            ErrorClass::RmaFlavor => "MPI_ERR_RMA_FLAVOR",
            ErrorClass::RmaShared => "MPI_ERR_RMA_SHARED",
            ErrorClass::RmaAttach => "MPI_ERR_RMA_ATTACH",
            ErrorClass::Other => "MPI_ERR_OTHER",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Error {
    /// The MPI error class.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::BadRank { .. } => ErrorClass::Rank,
            Error::Group { .. } => ErrorClass::Group,
            Error::OutOfBounds { .. } | Error::Range { .. } | Error::Unattached { .. } => {
                ErrorClass::RmaRange
            }
            Error::Buffer { .. } => ErrorClass::Buffer,
            Error::Assertion { .. } => ErrorClass::Assert,
            Error::DispUnit { .. } => ErrorClass::Disp,
            Error::Flavor { .. } => ErrorClass::RmaFlavor,
            Error::Shared { .. } => ErrorClass::RmaShared,
            Error::Attach { .. } => ErrorClass::RmaAttach,
            Error::Epoch { .. }
            | Error::NotLocked { .. }
            | Error::NoLocks { .. }
            | Error::Disagree { .. }
            | Error::Departed { .. } => ErrorClass::RmaSync,
            Error::Operator { .. } => ErrorClass::Op,
            Error::Count { .. } => ErrorClass::Count,
            Error::Element { .. } | Error::Type { .. } | Error::Layout { .. } => ErrorClass::Type,
            Error::NoMemory { .. } => ErrorClass::NoMem,
            Error::InUse { .. } | Error::NotAttached { .. } | Error::NullBase { .. } => {
                ErrorClass::Base
            }
            Error::NotifyId { .. } => ErrorClass::Arg,
            Error::PeerLost { .. }
            | Error::Unreachable { .. }
            | Error::Transfer { .. }
            | Error::Ended { .. }
            | Error::Job { .. } => ErrorClass::Other,
        }
    }
}
