//! What the data plane answers when an access cannot be done: values, never panics (ve-memory.md sections 9.3 and 10).

use std::fmt;

use thiserror::Error;

use crate::addr::Vehva;

/// Direction of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Load, or source of a transfer.
    Read,
    /// Store, or destination of a transfer.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Kind of a fault: the exceptions of section 9.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// The page is write-protected.
    MemoryProtection,
    /// There is a directory for the address, but no entry.
    MissingPage,
    /// No directory of this process covers the address.
    MissingSpace,
    /// Misaligned, a length that is not allowed, or not an address at all.
    MemoryAccess,
    /// The PCIe answered with an error.
    Io,
}

impl FaultKind {
    /// The exception bit of the descriptor (section 9.3).
    pub const fn exception(self) -> Exception {
        Exception(match self {
            Self::MemoryProtection => 0x8000,
            Self::MissingPage => 0x4000,
            Self::MissingSpace => 0x2000,
            Self::MemoryAccess => 0x1000,
            Self::Io => 0x0800,
        })
    }

    /// Signal and code that a load or store by LHM or SHM raises (section 10).
    pub const fn signal(self) -> (&'static str, &'static str) {
        match self {
            Self::MissingPage | Self::MissingSpace | Self::MemoryAccess => {
                ("SIGSEGV", "SEGV_MAPERR")
            }
            Self::MemoryProtection => ("SIGSEGV", "SEGV_ACCERR"),
            Self::Io => ("SIGBUS", "BUS_ADRERR"),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemoryProtection => "memory protection: the page is read-only",
            Self::MissingPage => "missing page: the directory has no entry",
            Self::MissingSpace => "missing space: no directory covers the address",
            Self::MemoryAccess => "memory access: address or length is not legal",
            Self::Io => "I/O access: the PCIe answered with an error",
        })
    }
}

/// An access that was refused before a byte moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{access} at {at}: {kind}")]
pub struct Fault {
    /// Why.
    pub kind: FaultKind,
    /// The first address that was refused.
    pub at: Vehva,
    /// What was tried.
    pub access: Access,
}

/// The result code of a DMA descriptor: 0, or exception bits (section 9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception(u16);

impl Exception {
    /// Completed normally.
    pub const NONE: Self = Self(0);

    /// The code.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// True if the transfer completed normally.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// From a code that was kept as an integer.
    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            FaultKind::MemoryProtection,
            FaultKind::MissingPage,
            FaultKind::MissingSpace,
            FaultKind::MemoryAccess,
            FaultKind::Io,
        ];
        write!(f, "DMA exception {:#06x}", self.0)?;
        for kind in kinds
            .into_iter()
            .filter(|kind| kind.exception().0 & self.0 != 0)
        {
            write!(f, " ({kind})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Exception {}
