//! The DMAATB as the data plane sees it: VEHVA to memory, in the process, without the service (ve-memory.md section 2).
//!
//! A process keeps a copy of its own entries, each with the memory it leads to. Ranges are translated whole before a
//! byte moves; misses and missing permissions are values.

use std::sync::atomic::{Ordering, compiler_fence, fence};

use windlass_mem::SharedBytes;

use crate::addr::{PageSize, Vehva};
use crate::fault::{Access, Fault, FaultKind};
use crate::profile::Profile;

/// A VEHVA has 48 bits (section 9.1, descriptor words 2 and 3).
const ADDRESS_END: u64 = 1 << 48;

/// Keeps the accesses before it before those after it, as the hardware's SYNC and fences do (sections 9.4 and 10). Its
/// callers hold a lock, whose locked instructions order everything on x86-64: there only the compiler must be kept out.
#[inline]
pub(crate) fn order() {
    if cfg!(target_arch = "x86_64") {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// What an entry leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// VE memory of this process (MEM_LOCAL).
    Own,
    /// Memory of another VE, through its PCI window.
    Remote,
    /// A System V segment of the VH.
    Segment,
}

/// A run of entries with the memory behind it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) start: Vehva,
    pub(crate) page: PageSize,
    pub(crate) writable: bool,
    pub(crate) kind: Kind,
    /// VE_PCISYNC: the sync bit of its PCIATB slots.
    pub(crate) sync: bool,
    pub(crate) bytes: SharedBytes,
}

impl Entry {
    fn offset(&self, at: Vehva) -> Option<usize> {
        let offset = usize::try_from(at.offset_from(self.start)?).ok()?;
        (offset < self.bytes.len()).then_some(offset)
    }
}

/// A part of a translated range.
pub(crate) struct Piece<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// All entries of a process, by address.
#[derive(Debug)]
pub(crate) struct Table {
    profile: Profile,
    entries: Vec<Entry>,
}

impl Table {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            profile,
            entries: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        let at = self
            .entries
            .partition_point(|other| other.start < entry.start);
        self.entries.insert(at, entry);
    }

    /// Length and kind of the entries that begin at `start`.
    pub(crate) fn find(&self, start: Vehva) -> Option<(u64, Kind)> {
        let at = self
            .entries
            .binary_search_by_key(&start, |entry| entry.start);
        let entry = self.entries.get(at.ok()?)?;
        Some((entry.bytes.len() as u64, entry.kind))
    }

    pub(crate) fn remove(&mut self, start: Vehva) -> Option<Entry> {
        let at = self
            .entries
            .binary_search_by_key(&start, |entry| entry.start)
            .ok()?;
        Some(self.entries.remove(at))
    }

    /// The piece that begins at `at`, at most `len` bytes of it; the entry must permit the access.
    #[inline]
    pub(crate) fn piece(&self, at: Vehva, len: usize, access: Access) -> Result<Piece<'_>, Fault> {
        let index = self.entries.partition_point(|entry| entry.start <= at);
        let found = index
            .checked_sub(1)
            .and_then(|index| self.entries.get(index));
        let Some((entry, offset)) =
            found.and_then(|entry| entry.offset(at).map(|offset| (entry, offset)))
        else {
            return Err(self.miss(at, access));
        };
        if access == Access::Write && !entry.writable {
            return Err(Fault {
                kind: FaultKind::MemoryProtection,
                at,
                access,
            });
        }
        Ok(Piece {
            entry,
            offset,
            len: len.min(entry.bytes.len() - offset),
        })
    }

    /// Checks a whole range; tells whether a part of it leads to another VE.
    pub(crate) fn check(&self, at: Vehva, len: usize, access: Access) -> Result<bool, Fault> {
        let refused = Fault {
            kind: FaultKind::MemoryAccess,
            at,
            access,
        };
        let end = at
            .checked_add(len as u64)
            .filter(|end| end.raw() <= ADDRESS_END)
            .ok_or(refused)?;
        let (mut at, mut remote) = (at, false);
        while at < end {
            let left = usize::try_from(end.offset_from(at).unwrap_or(0)).map_err(|_| refused)?;
            let piece = self.piece(at, left, access)?;
            remote |= piece.entry.kind == Kind::Remote;
            at = at.checked_add(piece.len as u64).ok_or(refused)?;
        }
        Ok(remote)
    }

    /// Why nothing is at `at`: missing page where a directory of this process covers the address, else missing space.
    #[cold]
    fn miss(&self, at: Vehva, access: Access) -> Fault {
        let kind = if at.raw() >= ADDRESS_END {
            FaultKind::MemoryAccess
        } else if at <= self.profile.fixed_region_end() || self.has_directory(at) {
            // The 4 KiB region has the reserved directory of the core (section 2.3).
            FaultKind::MissingPage
        } else {
            FaultKind::MissingSpace
        };
        Fault { kind, at, access }
    }

    fn has_directory(&self, at: Vehva) -> bool {
        let Some(region) = self
            .profile
            .regions()
            .iter()
            .find(|region| region.contains(at))
        else {
            return false;
        };
        let size = region.page.partial_space();
        let space = at.raw() / size;
        self.entries
            .iter()
            .filter(|entry| entry.page == region.page)
            .any(|entry| {
                let last = entry.start.raw() + (entry.bytes.len() as u64).saturating_sub(1);
                entry.start.raw() / size <= space && space <= last / size
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x0700_0000_0000;
    const M64: u64 = 64 << 20;

    fn entry(start: u64, len: usize, writable: bool) -> Entry {
        let (bytes, _loan) = windlass_mem::lend(vec![0u8; len]);
        Entry {
            start: Vehva::new(start),
            page: PageSize::M64,
            writable,
            kind: Kind::Own,
            sync: false,
            bytes,
        }
    }

    fn table() -> Table {
        let mut table = Table::new(Profile::VE1);
        // Two neighbours; their lengths stand for whole pages.
        table.insert(entry(BASE + 4096, 4096, false));
        table.insert(entry(BASE, 4096, true));
        table
    }

    #[test]
    fn ranges_over_neighbours_translate() {
        let table = table();
        assert_eq!(table.check(Vehva::new(BASE), 8192, Access::Read), Ok(false));
        let piece = table
            .piece(Vehva::new(BASE + 4000), 200, Access::Read)
            .expect("piece");
        assert_eq!((piece.offset, piece.len), (4000, 96));
    }

    #[test]
    fn misses_are_values_with_the_address() {
        let table = table();
        let fault = |at, len, access| {
            table
                .check(Vehva::new(at), len, access)
                .map_err(|f| (f.kind, f.at.raw()))
        };
        assert_eq!(
            fault(BASE, 8193, Access::Read),
            Err((FaultKind::MissingPage, BASE + 8192))
        );
        assert_eq!(
            fault(BASE, 8192, Access::Write),
            Err((FaultKind::MemoryProtection, BASE + 4096))
        );
        let other_space = BASE + 256 * M64;
        assert_eq!(
            fault(other_space, 4, Access::Read),
            Err((FaultKind::MissingSpace, other_space))
        );
        assert_eq!(
            fault(0x0088_0000_0000, 4, Access::Read),
            Err((FaultKind::MissingSpace, 0x0088_0000_0000))
        );
        assert_eq!(
            fault(0x3000, 4, Access::Read),
            Err((FaultKind::MissingPage, 0x3000))
        );
        assert_eq!(
            fault(1 << 48, 4, Access::Read),
            Err((FaultKind::MemoryAccess, 1 << 48))
        );
        assert_eq!(
            fault(u64::MAX, 4, Access::Read),
            Err((FaultKind::MemoryAccess, u64::MAX))
        );
    }
}
