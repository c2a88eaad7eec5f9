//! The parameters of a VE generation (ve-memory.md sections 1 and 2.2). Everything that differs between VE1 and
//! VE3 is here, so the tables take a [`Profile`] and know no model names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::addr::{PageSize, Vehva};
use crate::errno::ErrnoProfile;

/// The VEHVA range from which runs of one page size are taken (section 2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Region {
    /// Page size of the region.
    pub page: PageSize,
    /// First address.
    pub base: Vehva,
    /// Number of pages.
    pub pages: u64,
}

impl Region {
    const fn new(page: PageSize, base: u64, pages: u64) -> Self {
        Self {
            page,
            base: Vehva::new(base),
            pages,
        }
    }

    /// True if `at` lies in the region.
    pub fn contains(&self, at: Vehva) -> bool {
        at.offset_from(self.base)
            .is_some_and(|offset| offset / self.page.bytes() < self.pages)
    }
}

/// Generation of the card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Generation {
    /// Type 10 and 20.
    Ve1,
    /// Type 30.
    Ve3,
}

/// All parameters of one VE node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Which generation.
    pub generation: Generation,
    /// Cores: one reserved DMAATB directory each (section 2.3).
    pub cores: u32,
    /// VE memory in bytes, a multiple of 64 MiB.
    pub memory_bytes: u64,
    /// ATB directories of a process (section 2.4).
    pub atb_directories: u32,
    /// DMAATB directories of the VE node, the reserved ones included (section 2.3).
    pub dmaatb_directories: u32,
    /// PCIATB entries implemented.
    pub pciatb_entries: u32,
    /// Size of the BAR0 window, which with the page size limits the usable slots (section 14: assumed).
    pub bar0_bytes: u64,
    /// Processes a VE takes at once (section 1; the VE3 number is not documented, the VE1 number is used).
    pub max_processes: u32,
    /// Threads a VE takes at once (section 1; as above).
    pub max_threads: u32,
    /// Threads of one process (section 1; as above).
    pub max_process_threads: u32,
    /// Whose errno values are answered (section 11).
    pub errno: ErrnoProfile,
}

/// BAR0 window with which the PCIATB page size is 2 MiB instead of 64 MiB (section 1).
pub const SMALL_BAR0_BYTES: u64 = 128 << 20;

const VE1_REGIONS: [Region; 2] = [
    Region::new(PageSize::M2, 0x0088_0000_0000, 16_384),
    Region::new(PageSize::M64, 0x0700_0000_0000, 16_384),
];
const VE3_REGIONS: [Region; 3] = [
    Region::new(PageSize::M2, 0x0080_0000_0000, 65_536),
    Region::new(PageSize::M64, 0x0400_0000_0000, 65_536),
    Region::new(PageSize::M256, 0x1000_0000_0000, 65_536),
];

impl Profile {
    /// What [`Profile::from_str`] accepts, in words.
    pub const NAMES: &'static str =
        "ve1, ve1:10 (with 10 cores) or ve3, and /128M behind it for a BAR0 window of 128 MiB";

    /// Type 10 and 20 with 8 cores and 48 GiB.
    pub const VE1: Self = Self {
        generation: Generation::Ve1,
        cores: 8,
        memory_bytes: 48 << 30,
        atb_directories: 32,
        dmaatb_directories: 64,
        pciatb_entries: 2048,
        bar0_bytes: 64 << 30,
        max_processes: 256,
        max_threads: 1024,
        max_process_threads: 64,
        errno: ErrnoProfile::Implemented,
    };

    /// Type 30 with 16 cores and 96 GiB.
    pub const VE3: Self = Self {
        generation: Generation::Ve3,
        cores: 16,
        memory_bytes: 96 << 30,
        atb_directories: 32,
        dmaatb_directories: 256,
        pciatb_entries: 4096,
        bar0_bytes: 128 << 30,
        max_processes: 256,
        max_threads: 1024,
        max_process_threads: 64,
        errno: ErrnoProfile::Implemented,
    };

    /// This generation with another number of cores, if it was built so: 8 or 10 for VE1, 16 for VE3 (section 1). The directories
    /// that processes share follow.
    pub const fn with_cores(self, cores: u32) -> Option<Self> {
        let built = match self.generation {
            Generation::Ve1 => cores == 8 || cores == 10,
            Generation::Ve3 => cores == 16,
        };
        if built {
            Some(Self { cores, ..self })
        } else {
            None
        }
    }

    /// Page size of the PCIATB: 64 MiB, or 2 MiB if the BAR0 window is exactly 128 MiB.
    pub const fn pciatb_page(&self) -> PageSize {
        if self.bar0_bytes == SMALL_BAR0_BYTES {
            PageSize::M2
        } else {
            PageSize::M64
        }
    }

    /// Usable PCIATB slots: window size by page size, at most the entries implemented (section 1).
    pub const fn pciatb_slots(&self) -> u32 {
        let by_window = self.bar0_bytes / self.pciatb_page().bytes();
        if by_window < self.pciatb_entries as u64 {
            by_window as u32
        } else {
            self.pciatb_entries
        }
    }

    /// DMAATB directories that processes share: all but one per core (section 2.3).
    pub const fn shared_directories(&self) -> u32 {
        self.dmaatb_directories.saturating_sub(self.cores)
    }

    /// The VEHVA regions from which runs are allocated.
    pub const fn regions(&self) -> &'static [Region] {
        match self.generation {
            Generation::Ve1 => &VE1_REGIONS,
            Generation::Ve3 => &VE3_REGIONS,
        }
    }

    /// The region of a page size, if this generation has it.
    pub fn region(&self, page: PageSize) -> Option<&'static Region> {
        self.regions().iter().find(|region| region.page == page)
    }

    /// Last address of the 4 KiB region, which begins at 0 (section 2.2).
    pub const fn fixed_region_end(&self) -> Vehva {
        match self.generation {
            Generation::Ve1 => Vehva::new(0x03FF_FFFF),
            Generation::Ve3 => Vehva::new(0x0FFF_FFFF),
        }
    }

    /// True on VE3, the only generation with 256 MiB pages and VE_MAP_256MB.
    pub const fn has_256m(&self) -> bool {
        matches!(self.generation, Generation::Ve3)
    }

    /// True if VE_MAP_256MB can be done: four slots of 64 MiB make one such page (section 2.5), four of 2 MiB do not.
    pub(crate) const fn maps_256m(&self) -> bool {
        self.has_256m() && matches!(self.pciatb_page(), PageSize::M64)
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::VE1
    }
}

impl fmt::Display for Profile {
    /// A name that [`from_str`](Self::from_str) reads; whose errno values are answered has a name of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, usual) = match self.generation {
            Generation::Ve1 => ("ve1", Self::VE1),
            Generation::Ve3 => ("ve3", Self::VE3),
        };
        f.write_str(name)?;
        if self.cores != usual.cores {
            write!(f, ":{}", self.cores)?;
        }
        if self.bar0_bytes == SMALL_BAR0_BYTES {
            f.write_str("/128M")?;
        }
        Ok(())
    }
}

/// A profile name that does not exist.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{name:?} is not a VE profile; use {}", Profile::NAMES)]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    /// One of [`Profile::NAMES`]: a generation, after a colon the number of cores where it is not the usual one, and after a slash
    /// the BAR0 window where it is the one with which PCIATB pages are 2 MiB.
    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let (card, small) = match name.strip_suffix("/128M") {
            Some(card) => (card, true),
            None => (name, false),
        };
        let (generation, cores) = match card.split_once(':') {
            Some((generation, cores)) => (generation, Some(cores)),
            None => (card, None),
        };
        let profile = match generation {
            "ve1" => Some(Self::VE1),
            "ve3" => Some(Self::VE3),
            _ => None,
        };
        match cores {
            None => profile,
            Some(cores) => profile
                .zip(cores.parse().ok())
                .and_then(|(profile, cores)| profile.with_cores(cores)),
        }
        .map(|profile| Self {
            bar0_bytes: if small {
                SMALL_BAR0_BYTES
            } else {
                profile.bar0_bytes
            },
            ..profile
        })
        .ok_or_else(|| UnknownProfile {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_section_1() {
        assert_eq!(Profile::VE1.shared_directories(), 56);
        assert_eq!(Profile::VE1.pciatb_slots(), 1024);
        assert_eq!(Profile::VE1.pciatb_page(), PageSize::M64);
        let small = Profile {
            bar0_bytes: SMALL_BAR0_BYTES,
            ..Profile::VE1
        };
        assert_eq!(
            (small.pciatb_page(), small.pciatb_slots()),
            (PageSize::M2, 64)
        );
    }

    #[test]
    fn names_choose_cores_and_the_window() {
        let profile = |name: &str| name.parse::<Profile>();
        assert_eq!(
            profile("ve1:10").map(|p| (p.cores, p.shared_directories())),
            Ok((10, 54))
        );
        assert_eq!(profile("ve1:8"), Ok(Profile::VE1));
        assert_eq!(profile("ve3:16"), Ok(Profile::VE3));
        let small = profile("ve1:10/128M").map(|p| (p.cores, p.pciatb_slots(), p.pciatb_page()));
        assert_eq!(small, Ok((10, 64, PageSize::M2)));
        for name in [
            "ve1",
            "ve1:10",
            "ve1/128M",
            "ve1:10/128M",
            "ve3",
            "ve3/128M",
        ] {
            assert_eq!(
                profile(name).map(|profile| profile.to_string()),
                Ok(name.into())
            );
        }
        for name in [
            "ve1:9", "ve3:8", "ve1:", "ve1:x", "ve2", "", ":8", "ve1/", "ve1/64M", "/128M",
        ] {
            let refused = profile(name).expect_err(name).to_string();
            assert!(refused.contains("ve1:10"), "{refused}");
        }
    }

    #[test]
    fn regions_end_where_section_2_2_says() {
        let end = |profile: Profile, page| {
            let region = profile.region(page).expect("region");
            region.base.raw() + region.pages * page.bytes() - 1
        };
        assert_eq!(end(Profile::VE1, PageSize::M2), 0x008F_FFFF_FFFF);
        assert_eq!(end(Profile::VE1, PageSize::M64), 0x07FF_FFFF_FFFF);
        assert_eq!(end(Profile::VE3, PageSize::M2), 0x009F_FFFF_FFFF);
        assert_eq!(end(Profile::VE3, PageSize::M64), 0x07FF_FFFF_FFFF);
        assert_eq!(end(Profile::VE3, PageSize::M256), 0x1FFF_FFFF_FFFF);
        assert!(Profile::VE1.region(PageSize::M256).is_none());
    }
}
