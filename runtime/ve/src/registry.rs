//! IVED's registry of VESHM areas, and the records of attachers (ve-memory.md section 5.0).

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::{PageSize, Vemaa, Vemva};
use crate::errno::Errno;
use crate::request::{Area, Mode};
use crate::service::ProcessId;

/// The counters are C ints (section 5.1 row 11).
pub(crate) const MAX_COUNT: u32 = i32::MAX as u32;

/// Identity of an area: exact, no sub-range, no rounding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) pid: i32,
    pub(crate) vemva: Vemva,
    pub(crate) size: u64,
    pub(crate) flags: Mode,
    pub(crate) sync: i32,
}

impl Key {
    pub(crate) fn new(pid: i32, area: &Area) -> Self {
        let flags = area.mode.only(Mode::IDENTITY);
        // The number is ignored and treated as -1 unless PCISYNC is given.
        let sync = if flags.has(Mode::PCISYNC) {
            area.syncnum
        } else {
            -1
        };
        Self {
            pid,
            vemva: area.vemva,
            size: area.size,
            flags,
            sync,
        }
    }
}

/// IVED's record of one area, with the owner's VEOS part.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) key: Key,
    pub(crate) owner: ProcessId,
    pub(crate) ve: u32,
    pub(crate) uid: u32,
    pub(crate) reg: u32,
    pub(crate) swappable: u32,
    pub(crate) attachers: BTreeSet<ProcessId>,
    pub(crate) closed: bool,
    pub(crate) invalid: bool,
    /// Frames in steps of `grain`.
    pub(crate) frames: Vec<Vemaa>,
    pub(crate) grain: PageSize,
    pub(crate) slots: Vec<u32>,
}

/// IVED's registry of one VH.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) areas: BTreeMap<u64, Registered>,
    /// All areas that are not INVALID.
    by_key: BTreeMap<Key, u64>,
    next: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            areas: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next: 1,
        }
    }
}

impl Registry {
    pub(crate) fn area(&self, id: u64) -> Option<&Registered> {
        self.areas.get(&id)
    }

    pub(crate) fn find(&self, key: &Key) -> Option<(u64, &Registered)> {
        let id = *self.by_key.get(key)?;
        self.areas.get(&id).map(|area| (id, area))
    }

    fn select(&self, wanted: impl Fn(&Registered) -> bool) -> Vec<u64> {
        self.areas
            .iter()
            .filter(|(_, area)| wanted(area))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Closes all areas of an owner and names those that nobody is attached to.
    pub(crate) fn owner_left(&mut self, owner: ProcessId) -> Vec<u64> {
        for area in self.areas.values_mut().filter(|area| area.owner == owner) {
            (area.reg, area.closed) = (0, true);
        }
        self.select(|area| area.owner == owner && area.attachers.is_empty())
    }

    /// Drops all references of a process and names the closed areas that lost their last one.
    pub(crate) fn attacher_left(&mut self, id: ProcessId) -> Vec<u64> {
        let mut orphans = Vec::new();
        for (number, area) in &mut self.areas {
            if area.attachers.remove(&id) && area.closed && area.attachers.is_empty() {
                orphans.push(*number);
            }
        }
        orphans
    }

    pub(crate) fn areas_of(&self, ve: u32) -> Vec<u64> {
        self.select(|area| area.ve == ve)
    }

    pub(crate) fn attachers_of(&self, ve: u32) -> BTreeSet<ProcessId> {
        self.areas
            .values()
            .filter(|area| area.ve == ve)
            .flat_map(|area| area.attachers.iter().copied())
            .collect()
    }

    /// An INVALID record never matches a key, but its attachers keep what they have (section 5.0).
    pub(crate) fn invalidate(&mut self, id: u64) -> bool {
        let Some(area) = self.areas.get_mut(&id) else {
            return false;
        };
        (area.reg, area.closed, area.invalid) = (0, true, true);
        let unused = area.attachers.is_empty();
        self.by_key.remove(&area.key);
        unused
    }

    /// Records of areas that a process has opened, the ones included that only attachers keep.
    pub(crate) fn owned_by(&self, owner: ProcessId) -> usize {
        self.areas
            .values()
            .filter(|area| area.owner == owner)
            .count()
    }

    /// Answers the number of the new area.
    pub(crate) fn add(&mut self, area: Registered) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_key.insert(area.key, id);
        self.areas.insert(id, area);
        id
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Registered> {
        let area = self.areas.remove(&id)?;
        if self.by_key.get(&area.key) == Some(&id) {
            self.by_key.remove(&area.key);
        }
        Some(area)
    }
}

/// The attacher's VEOS record.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) key: Key,
    /// The registry's unique id; `None` for the caller's own memory.
    pub(crate) area: Option<u64>,
    /// Mapped in VEMVA, else in VEHVA.
    pub(crate) in_vemva: bool,
    pub(crate) address: u64,
    pub(crate) invalid: bool,
    pub(crate) count: u32,
}

impl Attachment {
    pub(crate) fn new(key: Key, area: Option<u64>, in_vemva: bool, address: u64) -> Self {
        Self {
            key,
            area,
            in_vemva,
            address,
            invalid: false,
            count: 1,
        }
    }

    /// Attached once more.
    pub(crate) fn again(&mut self) -> Result<(), Errno> {
        if self.count >= MAX_COUNT {
            return Err(Errno::Enomem);
        }
        self.count += 1;
        Ok(())
    }
}
