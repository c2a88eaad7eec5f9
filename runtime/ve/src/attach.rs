//! VESHM at the attacher: attach and detach (ve-memory.md sections 5.2 and 5.3).
//!
//! As at the owner, the checks are in the documented order.

use crate::addr::{PageSize, Vehva, Vemva};
use crate::atb::{Entries, Leads, Walk};
use crate::errno::Errno;
use crate::frames::runs_of;
use crate::profile::Profile;
use crate::refusal::{FULL, Refusal, check, full};
use crate::registry::{Attachment, Key, Registered};
use crate::request::{Area, Body, Frames, Mode, Reply};
use crate::service::{Held, MAX_ATTACHMENTS, ProcessId, Resident, Service, Use, node_mut};
use crate::veshm::{AREA_FLAGS, REGISTER, grains};

const SPACE: Mode = Mode::VEMVA.with(Mode::VEHVA).with(Mode::MEM_LOCAL);

/// Section 5.2 row 5.
pub(crate) fn check_attach_flags(mode: Mode, profile: &Profile) -> Result<(), Refusal> {
    let pci_only = Mode::PCISYNC.with(Mode::MAP_256MB).with(Mode::SWAPPABLE);
    let local = mode.has(Mode::MEM_LOCAL);
    check([
        (
            mode.beyond(AREA_FLAGS.with(SPACE)),
            "the mode has a bit that is none of an attach (ve-memory 5.2 row 5)",
        ),
        (
            mode.count(SPACE) != 1,
            "the mode must have exactly one of VE_REGISTER_VEMVA, VE_REGISTER_VEHVA and VE_MEM_LOCAL (ve-memory 5.2 row 5)",
        ),
        (
            local && mode.count(REGISTER) != 0,
            "VE_MEM_LOCAL goes with neither VE_REGISTER_PCI nor VE_REGISTER_NONE (ve-memory 5.2 row 5)",
        ),
        (
            !local && mode.count(REGISTER) != 1,
            "the mode must have exactly one of VE_REGISTER_PCI and VE_REGISTER_NONE, that of the open (ve-memory 5.2 row 5)",
        ),
        (
            !mode.has(Mode::PCI) && mode.count(pci_only) != 0,
            "VE_PCISYNC, VE_MAP_256MB and VE_SWAPPABLE need VE_REGISTER_PCI (ve-memory 5.2 row 5)",
        ),
        (
            mode.has(Mode::MAP_256MB) && !profile.maps_256m(),
            "VE_MAP_256MB is for the third generation, VE3 (ve-memory 5.2 row 5)",
        ),
    ])
}

/// Section 5.2 rows 7 to 10: where the owner is.
struct Owner {
    itself: bool,
    here: bool,
    /// Its memory is on pages that are larger than the slots of the PCIATB.
    too_large: bool,
}

impl Owner {
    fn check(&self, mode: Mode) -> Result<(), Refusal> {
        let in_vemva = mode.has(Mode::VEMVA);
        check([
            (
                self.itself,
                "pid must be another process's: own memory is attached with VE_MEM_LOCAL alone (ve-memory 5.2 row 7)",
            ),
            (
                mode.has(Mode::NONE) && !self.here,
                "an area of VE_REGISTER_NONE is attached on its own VE only (ve-memory 5.2 row 8)",
            ),
            (
                in_vemva && mode.has(Mode::PCI) && self.too_large,
                "where the PCIATB has pages of 2 MiB, memory on pages of 64 MiB must be attached to VEMVA with VE_REGISTER_NONE (ve-memory 5.2 row 9)",
            ),
            (
                !in_vemva && self.here,
                "the owner is on this VE: attach with VE_REGISTER_VEMVA (ve-memory 5.2 row 10)",
            ),
        ])
    }
}

impl Service {
    /// `ve_shared_mem_attach` (section 5.2).
    pub(crate) fn attach(&mut self, id: ProcessId, pid: i32, area: Area) -> Result<Reply, Refusal> {
        self.veshm_allowed(id)?;
        let ve = self.ve_of(id)?;
        let mode = area.mode;
        let in_vemva = mode.has(Mode::VEMVA);
        let owner = self
            .by_pid
            .get(&pid)
            .and_then(|owner| self.processes.get(owner));
        let here = owner.is_some_and(|owner| owner.ve == Some(ve));
        let owner_page = owner
            .filter(|_| here)
            .and_then(|owner| owner.atb.page(area.vemva))
            .map(|page| page.size);
        if in_vemva {
            // Rows 2 to 4. Where the process will map it is not known yet: Bind repeats row 4 with the address.
            let row_2 = match (owner, here) {
                (None, _) => Errno::Esrch,
                (Some(_), false) => Errno::Einval,
                (Some(_), true) => Errno::Enoent,
            };
            let row_2 = self.profile.errno.pick(Errno::Einval, row_2);
            let row_2 = row_2.by(match (owner, here) {
                (None, _) => "to VEMVA: pid must be a process of this VE, and there is none of that pid (ve-memory 5.2 row 2)",
                (Some(_), false) => "to VEMVA: pid must be a process of this VE, and that one is on another: use VE_REGISTER_VEHVA (ve-memory 5.2 row 2)",
                (Some(_), true) => "to VEMVA: that process must have VE memory at vemva (ve-memory 5.2 row 2)",
            });
            let page = owner_page.ok_or(row_2)?;
            check([(
                !area.vemva.is_aligned(page) || !page.divides(area.size),
                "vemva and size must be multiples of the page size of the owner's memory (ve-memory 5.2 row 3)",
            )])?;
            let own = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
            if !own.atb.has_room(page) && self.attachment(id, pid, &area, None).is_none() {
                let rule = "no directory of the ATB of this process is left (ve-memory 5.2 row 4)";
                return Err(Errno::Enomem.by(rule));
            }
        }
        check_attach_flags(mode, &self.profile)?;
        let own_pid = self.processes.get(&id).ok_or(Errno::Ecanceled)?.pid;
        if mode.has(Mode::MEM_LOCAL) {
            return if pid == own_pid {
                self.attach_local(id, ve, pid, &area)
            } else {
                let rule = "with VE_MEM_LOCAL pid must be the own one (ve-memory 5.2 row 6)";
                Err(Errno::Einval.by(rule))
            };
        }
        let small_slots = self.profile.pciatb_page() == PageSize::M2;
        let owner = Owner {
            itself: pid == own_pid,
            here,
            too_large: small_slots && owner_page == Some(PageSize::M64),
        };
        owner.check(mode)?;
        self.ived_reachable()?;
        let number = self.find_area(id, pid, &area)?;
        if in_vemva {
            self.attach_vemva(id, ve, number)
        } else {
            self.attach_vehva(id, ve, number)
        }
    }

    /// Rows 12 to 16.
    fn find_area(&self, id: ProcessId, pid: i32, area: &Area) -> Result<u64, Refusal> {
        let nobody = Errno::Esrch.by(
            "pid must be a VE process of this node that has called the library (ve-memory 5.2 row 12)",
        );
        let owner = self
            .by_pid
            .get(&pid)
            .and_then(|owner| self.processes.get(owner))
            .ok_or(nobody)?;
        let owner_ve = owner.ve.ok_or(nobody)?;
        check([(
            !self.node(owner_ve).is_some_and(|node| node.running),
            "the owner's VE must run (ve-memory 5.2 row 13)",
        )])?;
        let key = Key::new(pid, area);
        let (number, found) = self
            .registry
            .find(&key)
            .filter(|(_, area)| !area.closed)
            .ok_or(self.profile.errno.pick(Errno::Einval, Errno::Enoent).by(
                "the owner must have an area open under exactly these arguments: vemva, size, and of the mode VE_SHM_RO, VE_PCISYNC with syncnum, VE_REGISTER_PCI or _NONE, VE_MAP_256MB (ve-memory 5.2 row 14)",
            ))?;
        let uid = self.processes.get(&id).map(|process| process.uid);
        if uid != Some(found.uid) {
            let rule = "the owner must be the same user, root or not (ve-memory 5.2 row 15)";
            return Err(Errno::Eacces.by(rule));
        }
        let elsewhere = self.registry.areas.iter().any(|(other, area)| {
            *other != number && !area.invalid && area.key == key && area.attachers.contains(&id)
        });
        check([(
            !found.attachers.contains(&id) && elsewhere,
            "IVED's records contradict each other (ve-memory 5.2 row 16)",
        )])?;
        Ok(number)
    }

    /// The index of a valid attachment under the key of an area, in the space its mode names.
    fn attachment(
        &self,
        id: ProcessId,
        pid: i32,
        area: &Area,
        number: Option<u64>,
    ) -> Option<usize> {
        let key = Key::new(pid, area);
        let in_vemva = area.mode.has(Mode::VEMVA);
        self.processes
            .get(&id)?
            .attachments
            .iter()
            .position(|attachment| {
                attachment.key == key
                    && attachment.in_vemva == in_vemva
                    && !attachment.invalid
                    && (number.is_none() || attachment.area == number)
            })
    }

    /// An attachment of this process to the area itself, counted once more. One under the same key to an older area, which was
    /// renewed, becomes INVALID and stays mapped.
    fn repeat(
        &mut self,
        id: ProcessId,
        number: u64,
        in_vemva: bool,
    ) -> Result<Option<u64>, Refusal> {
        let key = self.registry.area(number).ok_or(Errno::Einval)?.key;
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        let under_key = |a: &&mut Attachment| {
            a.in_vemva == in_vemva && !a.invalid && a.area.is_some() && a.key == key
        };
        if let Some(attachment) = process.attachments.iter_mut().find(under_key) {
            if attachment.area == Some(number) {
                attachment.again()?;
                return Ok(Some(attachment.address));
            }
            attachment.invalid = true;
        }
        if process.attachments.len() >= MAX_ATTACHMENTS {
            Err(FULL)
        } else {
            Ok(None)
        }
    }

    fn attach_vemva(&mut self, id: ProcessId, ve: u32, number: u64) -> Result<Reply, Refusal> {
        let area = self.registry.area(number).ok_or(Errno::Einval)?;
        let (key, page, frames) = (area.key, area.grain, area.frames.clone());
        let owner = self.processes.get(&area.owner).ok_or(Errno::Esrch)?;
        if owner.swapped {
            return Err(
                Errno::Eagain.by("the owner is swapped out: try again (ve-memory 5.2 row 17)")
            );
        }
        let now = grains(&owner.atb, key.vemva, key.size, page);
        if now.is_none_or(|(now, _)| now != frames) {
            let rule = "the owner has freed or remapped the memory since it opened the area (ve-memory 5.2 row 18)";
            return Err(Errno::Ecanceled.by(rule));
        }
        if let Some(address) = self.repeat(id, number, true)? {
            return Ok(Body::Bound {
                vemva: Vemva::new(address),
            }
            .into());
        }
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Ecanceled)?;
        for frame in &frames {
            node.frames.retain(*frame, page.bytes());
        }
        self.with_area(number, |area| {
            area.attachers.insert(id);
        });
        let writable = !key.flags.has(Mode::READ_ONLY);
        let held = Held {
            ve,
            frames,
            page,
            writable,
            purpose: Use::Attach { key, area: number },
        };
        Ok(self.hand_over(id, held, key.size)?)
    }

    fn attach_vehva(&mut self, id: ProcessId, ve: u32, number: u64) -> Result<Reply, Refusal> {
        if let Some(address) = self.repeat(id, number, false)? {
            let page = self
                .registry
                .area(number)
                .map_or(PageSize::M64, window_page);
            return Ok(Body::Vehva {
                vehva: Vehva::new(address),
                page,
                frames: None,
            }
            .into());
        }
        let area = self.registry.area(number).ok_or(Errno::Einval)?;
        let (key, page) = (area.key, window_page(area));
        let writable = !key.flags.has(Mode::READ_ONLY);
        let runs = runs_of(&area.frames, area.grain, key.size)?;
        let frames = Frames {
            ve: area.ve,
            runs,
            page,
            writable,
        };
        let entries = Entries {
            page,
            pages: page.pages(key.size),
            leads: Leads::Window(number),
            writable,
        };
        let vehva = self.map_entries(id, ve, entries).map_err(full)?;
        self.with_area(number, |area| {
            area.attachers.insert(id);
        });
        if let Some(process) = self.processes.get_mut(&id) {
            process
                .attachments
                .push(Attachment::new(key, Some(number), false, vehva.raw()));
        }
        Ok(Body::Vehva {
            vehva,
            page,
            frames: Some(frames),
        }
        .into())
    }

    fn attach_local(
        &mut self,
        id: ProcessId,
        ve: u32,
        pid: i32,
        area: &Area,
    ) -> Result<Reply, Refusal> {
        let process = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        let page = own_page(process, area)?;
        if let Some(index) = self.attachment(id, pid, area, None) {
            // Even if the pages changed meanwhile: the old entries are the answer (section 5.2, staleness).
            let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
            let attachment = process.attachments.get_mut(index).ok_or(Errno::Einval)?;
            attachment.again()?;
            let vehva = Vehva::new(attachment.address);
            return Ok(Body::Vehva {
                vehva,
                page,
                frames: None,
            }
            .into());
        }
        let (_, frames) = process.atb.walk(area.vemva, area.size).map_err(no_walk)?;
        if area.size == 0 {
            return Err(Errno::Enomem.by("size must not be 0 (ve-memory 5.2 row 21)"));
        }
        if process.attachments.len() >= MAX_ATTACHMENTS {
            return Err(FULL);
        }
        let writable = !area.mode.has(Mode::READ_ONLY);
        let runs = runs_of(&frames, page, area.size)?;
        let entries = Entries {
            page,
            pages: page.pages(area.size),
            leads: Leads::Frames(frames.clone()),
            writable,
        };
        let vehva = self.map_entries(id, ve, entries).map_err(full)?;
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Ecanceled)?;
        for frame in &frames {
            node.frames.retain(*frame, page.bytes());
        }
        if let Some(process) = self.processes.get_mut(&id) {
            process.attachments.push(Attachment::new(
                Key::new(pid, area),
                None,
                false,
                vehva.raw(),
            ));
        }
        Ok(Body::Vehva {
            vehva,
            page,
            frames: Some(Frames {
                ve,
                runs,
                page,
                writable,
            }),
        }
        .into())
    }

    /// Enters a run into the DMAATB of a process; ENOMEM if no VEHVA or no directory is left.
    pub(crate) fn map_entries(
        &mut self,
        id: ProcessId,
        ve: u32,
        entries: Entries,
    ) -> Result<Vehva, Errno> {
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Ecanceled)?;
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        process
            .dmaatb
            .map(&mut node.dmaatb, id, &self.profile, entries)
            .map_err(|_| Errno::Enomem)
    }

    /// `ve_shared_mem_detach` (section 5.3).
    pub(crate) fn detach(
        &mut self,
        id: ProcessId,
        address: u64,
        mode: Mode,
    ) -> Result<Reply, Refusal> {
        self.veshm_allowed(id)?;
        check([(
            mode.beyond(SPACE) || mode.count(SPACE) != 1,
            "the mode must be VE_REGISTER_VEMVA, VE_REGISTER_VEHVA or VE_MEM_LOCAL, and nothing else (ve-memory 5.3)",
        )])?;
        if address == u64::MAX {
            return Ok(Body::Detached { last: false }.into());
        }
        let ve = self.ve_of(id)?;
        let in_vemva = mode.has(Mode::VEMVA);
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        let found = process
            .attachments
            .iter()
            .position(|a| a.in_vemva == in_vemva && a.address == address);
        let unknown = self.profile.errno.pick(Errno::Einval, Errno::Ecanceled);
        let index = found.ok_or(unknown.by(
            "address must be exactly what an attach to that space has answered, not detached as often (ve-memory 5.3)",
        ))?;
        if let Some(attachment) = process
            .attachments
            .get_mut(index)
            .filter(|attachment| attachment.count > 1)
        {
            attachment.count -= 1;
            return Ok(Body::Detached { last: false }.into());
        }
        let attachment = process.attachments.swap_remove(index);
        if in_vemva {
            // A failed removal is answered with success all the same.
            let pages = process
                .atb
                .unmap(Vemva::new(address), attachment.key.size)
                .unwrap_or_default();
            for page in pages {
                self.release_frames(ve, &[page.frame], page.size);
            }
        } else if let Some(node) = node_mut(&mut self.nodes, ve) {
            let entries =
                process
                    .dmaatb
                    .unmap(&mut node.dmaatb, id, &self.profile, Vehva::new(address));
            self.release_entries(ve, entries);
        }
        // Quirk of section 5.3: MEM_LOCAL on a remote attachment does not tell IVED, which keeps `ref` until the process ends.
        if let Some(number) = attachment.area.filter(|_| !mode.has(Mode::MEM_LOCAL)) {
            self.drop_reference(id, number);
        }
        Ok(Body::Detached { last: true }.into())
    }
}

/// Section 5.2 rows 19 and 20.
fn no_walk(walk: Walk) -> Refusal {
    match walk {
        Walk::Broken => Errno::Enomem.by(
            "all of [vemva, vemva + size) must be VE memory, with pages of one size (ve-memory 5.2 row 19)",
        ),
        Walk::ReadOnly => {
            Errno::Eacces.by("every page must be writable, even with VE_SHM_RO (ve-memory 5.2 row 20)")
        }
    }
}

/// Section 5.2 row 6: the page size of own memory that can be registered.
fn own_page(process: &Resident, area: &Area) -> Result<PageSize, Refusal> {
    const MISALIGNED: &str = "vemva and size must be multiples of the page size of the memory, 64 MiB, or 2 MiB after MADV_NOHUGEPAGE (ve-memory 5.2 row 6)";
    let fits = |page: PageSize| area.vemva.is_aligned(page) && page.divides(area.size);
    // What breaks this rule anyhow has not become VE memory for this call.
    let unmapped = if fits(PageSize::M2) {
        "at vemva must be memory that is, or can become, VE memory (ve-memory 5.2 row 6)"
    } else {
        MISALIGNED
    };
    let page = process.atb.page(area.vemva);
    let page = page.ok_or(Errno::Einval.by(unmapped))?.size;
    check([(!fits(page), MISALIGNED)])?;
    Ok(page)
}

/// Granularity of a remote attachment: the PCIATB page of the owner's VE, or the 256 MiB page asked for.
fn window_page(area: &Registered) -> PageSize {
    if area.key.flags.has(Mode::MAP_256MB) {
        PageSize::M256
    } else {
        area.grain
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use std::sync::{Arc, Mutex, MutexGuard};

    use super::*;
    use crate::{Config, Direct, Process};

    const M64: u64 = 64 << 20;

    fn service(service: &Mutex<Service>) -> MutexGuard<'_, Service> {
        service.lock().expect("service")
    }

    /// An owner on VE 0 with an open area, a user on VE 1.
    fn two() -> (Arc<Mutex<Service>>, Process, Process, Vemva) {
        let profile = Profile::VE1;
        let node = Service::new(Config { ves: 2, profile }).expect("memory files");
        let node = Arc::new(Mutex::new(node));
        let join = |pid, ve| {
            let direct = Direct::join(Arc::clone(&node), pid, 1, 1000, Some(ve)).expect("join");
            Process::join(Arc::new(direct)).expect("process")
        };
        let (owner, user) = (join(10, 0), join(11, 1));
        let area = owner.alloc(M64 as usize, PageSize::M64).expect("memory");
        owner
            .veshm_open(area.vemva, M64, 0, Mode::PCI)
            .expect("open");
        (node, owner, user, area.vemva)
    }

    #[test]
    fn counters_of_a_repeated_attach_survive_a_renewal() {
        let (node, owner, user, vemva) = two();
        let attach = || user.attach_vehva(10, vemva, M64, Mode::PCI);
        let old = attach().expect("attach");
        assert_eq!(attach().ok(), Some(old));
        owner.veshm_close(vemva, M64, 0, Mode::PCI).expect("close");
        owner.veshm_open(vemva, M64, 0, Mode::PCI).expect("open");
        let new = attach().expect("attach");
        assert_ne!(old, new);
        for vehva in [old, new, old] {
            user.detach_vehva(vehva).expect("detach");
        }
        assert!(user.detach_vehva(old).is_err());
        drop((owner, user));
        let free = service(&node).free_resources(0);
        let profile = Profile::VE1;
        let slots = profile.pciatb_slots() as usize - 1;
        let directories = profile.shared_directories() as usize;
        assert_eq!(free, Some((profile.memory_bytes, slots, directories)));
    }
}
