//! One type per address space (ve-memory.md section 2).
//!
//! The spaces have separate numberings, so a value of one must never be used as a value of another: there is
//! no `+`, no `-` and no conversion between them, only named checked operations.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The page sizes of the platform (sections 1 and 3.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum PageSize {
    /// 4 KiB: fixed pages of the DMAATB.
    K4,
    /// 2 MiB.
    M2,
    /// 64 MiB, the default of VE memory.
    M64,
    /// 256 MiB: DMAATB pages of VE3.
    M256,
}

impl PageSize {
    /// Size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::K4 => 4 << 10,
            Self::M2 => 2 << 20,
            Self::M64 => 64 << 20,
            Self::M256 => 256 << 20,
        }
    }

    /// True if `value` is a multiple of this size.
    pub const fn divides(self, value: u64) -> bool {
        value & (self.bytes() - 1) == 0
    }

    /// Pages needed for `len` bytes.
    pub const fn pages(self, len: u64) -> u64 {
        len.div_ceil(self.bytes())
    }

    /// Size of the partial space that one directory of 256 entries covers (section 2.1).
    pub const fn partial_space(self) -> u64 {
        self.bytes() * ENTRIES_PER_DIRECTORY
    }
}

/// Entries of one ATB or DMAATB directory (section 2.1).
pub const ENTRIES_PER_DIRECTORY: u64 = 256;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The number of this address.
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The address `len` bytes further on, unless it would not exist.
            pub const fn checked_add(self, len: u64) -> Option<Self> {
                match self.0.checked_add(len) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// Distance in bytes from `base`, unless `base` is above.
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }

            /// True if the address is a page boundary.
            pub const fn is_aligned(self, page: PageSize) -> bool {
                page.divides(self.0)
            }

            /// Start of the page that holds this address.
            pub const fn page_start(self, page: PageSize) -> Self {
                Self(self.0 & !(page.bytes() - 1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), " {:#x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

address! {
    /// VE memory virtual address: what VE loads and stores use, translated by the ATB. In the emulated node it is
    /// also the numeric address of the mapping in the emulating process.
    Vemva
}

address! {
    /// VE host virtual address: what DMA descriptors and LHM/SHM use, translated by the DMAATB. Never a pointer.
    Vehva
}

address! {
    /// Absolute VE memory address: a frame of one VE. In the emulated node it is the offset in that VE's memory file.
    Vemaa
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_operations_refuse_what_does_not_exist() {
        let top = Vehva::new(u64::MAX - 7);
        assert_eq!(top.checked_add(7), Some(Vehva::new(u64::MAX)));
        assert_eq!(top.checked_add(8), None);
        assert_eq!(Vemva::new(8).offset_from(Vemva::new(9)), None);
        assert_eq!(Vemva::new(9).offset_from(Vemva::new(8)), Some(1));
    }

    #[test]
    fn page_arithmetic() {
        assert_eq!(PageSize::M64.partial_space(), 16 << 30);
        assert_eq!(PageSize::M2.partial_space(), 512 << 20);
        assert_eq!(PageSize::K4.partial_space(), 1 << 20);
        assert_eq!(PageSize::M2.pages(1), 1);
        assert_eq!(PageSize::M2.pages(0), 0);
        assert!(Vemaa::new(64 << 20).is_aligned(PageSize::M64));
        assert_eq!(
            Vemva::new((64 << 20) + 5).page_start(PageSize::M64),
            Vemva::new(64 << 20)
        );
        assert_eq!(format!("{}", Vehva::new(0x1400)), "Vehva 0x1400");
    }
}
