//! The PCIATB of one VE: slots of the PCI window (ve-memory.md section 2.5).
//!
//! A slot maps one PCIATB page of the window to VE memory and carries the sync bit with its pair number (section 8).
//! It has no access permission: read-only is enforced in the attacher's DMAATB.

use crate::addr::Vemaa;
use crate::profile::Profile;

/// Slots that one 256 MiB mapping takes, contiguous and aligned.
pub(crate) const SLOTS_PER_256M: usize = 4;

/// One used slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// Where the slot leads; the system's own slot leads to no frame of the pool.
    pub(crate) frame: Option<Vemaa>,
    /// Sync bit and register pair (0 to 3).
    pub(crate) sync: Option<u8>,
}

/// The slots of one VE.
#[derive(Debug)]
pub(crate) struct Pciatb {
    slots: Vec<Option<Slot>>,
    free: usize,
}

impl Pciatb {
    /// All usable slots free but one, which the system keeps for its VDSO page.
    pub(crate) fn new(profile: &Profile) -> Self {
        let count = usize::try_from(profile.pciatb_slots()).unwrap_or(0);
        let mut slots = vec![None; count];
        if let Some(first) = slots.first_mut() {
            *first = Some(Slot {
                frame: None,
                sync: Some(0),
            });
        }
        Self {
            free: count.saturating_sub(1),
            slots,
        }
    }

    /// Free slots.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// The slot with number `index`, if used.
    #[cfg(test)]
    pub(crate) fn slot(&self, index: u32) -> Option<Slot> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.slots.get(index))
            .copied()
            .flatten()
    }

    /// Takes one slot per frame, lowest first, all or none (`None`). With `by_four` the slots come in aligned
    /// groups of 4; the last group is taken whole, its surplus slots leading nowhere.
    pub(crate) fn take(
        &mut self,
        frames: &[Vemaa],
        sync: Option<u8>,
        by_four: bool,
    ) -> Option<Vec<u32>> {
        let group = if by_four { SLOTS_PER_256M } else { 1 };
        let groups = frames.len().div_ceil(group);
        if groups.checked_mul(group)? > self.free {
            return None;
        }
        let found: Vec<usize> = self
            .slots
            .chunks_exact(group)
            .enumerate()
            .filter(|(_, slots)| slots.iter().all(Option::is_none))
            .map(|(index, _)| index * group)
            .take(groups)
            .collect();
        if found.len() < groups {
            return None;
        }
        let indices = found.into_iter().flat_map(|first| first..first + group);
        let mut taken = Vec::with_capacity(groups * group);
        let mut frames = frames.iter();
        for index in indices {
            let slot = self.slots.get_mut(index)?;
            *slot = Some(Slot {
                frame: frames.next().copied(),
                sync,
            });
            taken.push(u32::try_from(index).ok()?);
        }
        self.free -= taken.len();
        Some(taken)
    }

    /// Returns slots and gives the frames they led to.
    pub(crate) fn give(&mut self, slots: &[u32]) -> Vec<Vemaa> {
        let mut frames = Vec::new();
        for index in slots {
            let slot = usize::try_from(*index)
                .ok()
                .and_then(|index| self.slots.get_mut(index));
            if let Some(used) = slot.and_then(Option::take) {
                self.free += 1;
                frames.extend(used.frame);
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(n: u64) -> Vec<Vemaa> {
        (0..n).map(|index| Vemaa::new(index << 26)).collect()
    }

    #[test]
    fn one_slot_is_the_systems() {
        let mut table = Pciatb::new(&Profile::VE1);
        assert_eq!(table.free(), 1023);
        let all = table.take(&frames(1023), None, false).expect("all");
        assert_eq!(all.first(), Some(&1));
        assert_eq!(table.take(&frames(1), None, false), None);
        assert_eq!(table.give(&all).len(), 1023);
        assert_eq!(table.free(), 1023);
    }

    #[test]
    fn slots_need_not_be_contiguous_but_groups_must() {
        let mut table = Pciatb::new(&Profile::VE3);
        let first = table.take(&frames(6), Some(2), false).expect("slots");
        assert_eq!(first, [1, 2, 3, 4, 5, 6]);
        assert_eq!(table.slot(3).and_then(|slot| slot.sync), Some(2));
        table.give(&[2, 4]);
        assert_eq!(
            table.take(&frames(3), None, false).expect("slots"),
            [2, 4, 7]
        );
        let group = table.take(&frames(5), None, true).expect("groups");
        assert_eq!(group, (8..16).collect::<Vec<_>>());
        assert_eq!(table.slot(12).map(|slot| slot.frame.is_some()), Some(true));
        assert_eq!(table.slot(13).map(|slot| slot.frame.is_some()), Some(false));
    }

    proptest! {
        /// The naive model: one option per slot.
        #[test]
        fn slots_are_taken_from_the_lowest(
            steps in prop::collection::vec((0..3_u8, 1..9_usize, 0..99_usize), 1..if cfg!(miri) { 8 } else { 120 }),
        ) {
            let profile = Profile { bar0_bytes: 32 << 26, ..Profile::VE3 };
            let mut table = Pciatb::new(&profile);
            let mut model: Vec<Option<u64>> = vec![None; 32];
            model[0] = Some(0);
            let (mut held, mut serial): (Vec<Vec<u32>>, u64) = (Vec::new(), 0);
            for (what, count, which) in steps {
                if what == 2 && !held.is_empty() {
                    let slots = held.swap_remove(which % held.len());
                    let led: Vec<u64> = slots.iter().filter_map(|s| model[*s as usize].take()).collect();
                    let given: Vec<u64> = table.give(&slots).iter().map(|f| f.raw() >> 26).collect();
                    prop_assert_eq!(given, led.into_iter().filter(|n| *n < u64::MAX).collect::<Vec<_>>());
                } else {
                    let group = if what == 1 { 4 } else { 1 };
                    let starts: Vec<usize> = (0..32 / group)
                        .map(|n| n * group)
                        .filter(|at| model[*at..*at + group].iter().all(Option::is_none))
                        .take(count.div_ceil(group))
                        .collect();
                    let fits = starts.len() == count.div_ceil(group);
                    let names: Vec<Vemaa> = (serial..).take(count).map(|n| Vemaa::new(n << 26)).collect();
                    let taken = table.take(&names, None, what == 1);
                    prop_assert_eq!(taken.is_some(), fits);
                    if let Some(taken) = taken {
                        let slots: Vec<u32> = starts.iter().flat_map(|at| *at..*at + group).map(|n| n as u32).collect();
                        prop_assert_eq!(&taken, &slots);
                        for (n, slot) in slots.iter().enumerate() {
                            model[*slot as usize] = Some(if n < count { serial + n as u64 } else { u64::MAX });
                        }
                        serial += count as u64;
                        held.push(taken);
                    }
                }
                prop_assert_eq!(table.free(), model.iter().filter(|slot| slot.is_none()).count());
                for (n, slot) in model.iter().enumerate().skip(1) {
                    let expected = slot.filter(|n| *n < u64::MAX).map(|n| Vemaa::new(n << 26));
                    prop_assert_eq!(table.slot(n as u32).and_then(|slot| slot.frame), expected);
                }
            }
        }
    }
}
