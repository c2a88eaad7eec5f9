//! What no program can bring about, for tests of the rows that speak of it (ve-memory.md sections 5.1, 5.2 and 7.3).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::atb::Leads;
use crate::errno::Errno;
use crate::registry::{MAX_COUNT, Registered};
use crate::service::{MAX_AREAS, ProcessId, Service, node_mut};

/// What VEOS and IVED are made to believe of a VE process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Damage {
    /// It is swapped out (section 5.2 row 17).
    SwappedOut,
    /// It is in again.
    SwappedIn,
    /// IVED has each of its areas that somebody has attached twice under one key, the second time without attachers (section 5.2 row 16).
    Doubled,
    /// It has opened each of its areas, and attached whatever it has attached, once less than a C int counts (sections 5.1 row 11 and 5.2
    /// row 21).
    Counted,
    /// Its host segments are in no table any more (section 7.3).
    Forgotten,
    /// VEOS of its VE goes down, and has not ended the VE's processes yet: their own calls are answered still (section 5.2 row 13).
    Halted,
    /// VEOS of its VE runs all the same.
    Running,
}

impl Service {
    /// Does it to the VE process of this pid. ESRCH: there is none.
    pub fn damage(&mut self, pid: i32, damage: Damage) -> Result<(), Errno> {
        let id = *self.by_pid.get(&pid).ok_or(Errno::Esrch)?;
        let process = self.processes.get_mut(&id).ok_or(Errno::Esrch)?;
        let ve = process.ve.ok_or(Errno::Esrch)?;
        match damage {
            Damage::SwappedOut => process.swapped = true,
            Damage::SwappedIn => process.swapped = false,
            Damage::Doubled => self.double_areas(id),
            Damage::Counted => {
                let attachments = process.attachments.iter_mut();
                attachments.for_each(|attachment| attachment.count = MAX_COUNT - 1);
                let areas = self.registry.areas.values_mut();
                areas
                    .filter(|area| area.owner == id && area.reg > 0)
                    .for_each(|area| area.reg = MAX_COUNT - 1);
            }
            Damage::Forgotten => self.forget_segments(id, ve),
            Damage::Halted | Damage::Running => {
                let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Esrch)?;
                node.running = damage == Damage::Running;
            }
        }
        Ok(())
    }

    fn double_areas(&mut self, id: ProcessId) {
        // Where nobody is attached a second record is none that anybody could tell. No more of them than a program may have.
        let attached = |(number, area): &(&u64, &Registered)| {
            let found = self.registry.find(&area.key);
            area.owner == id
                && !area.attachers.is_empty()
                && found.is_some_and(|(valid, _)| valid == **number)
        };
        let room = MAX_AREAS.saturating_sub(self.registry.owned_by(id));
        let own = self.registry.areas.iter().filter(attached).take(room);
        let doubles: Vec<Registered> = own
            .map(|(_, area)| Registered {
                attachers: BTreeSet::new(),
                frames: area.frames.clone(),
                slots: Vec::new(),
                ..*area
            })
            .collect();
        for double in doubles {
            self.registry.add(double);
        }
    }

    fn forget_segments(&mut self, id: ProcessId, ve: u32) {
        let (Some(process), Some(node)) =
            (self.processes.get_mut(&id), node_mut(&mut self.nodes, ve))
        else {
            return;
        };
        for start in process.dmaatb.starts() {
            let run = process.dmaatb.run(start);
            if run.is_some_and(|entries| matches!(entries.leads, Leads::Segment(_))) {
                let dmaatb = &mut process.dmaatb;
                dmaatb.unmap(&mut node.dmaatb, id, &self.profile, start);
            }
        }
    }
}
