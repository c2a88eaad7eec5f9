//! VESHM at the owner: open and close, and the end of an area (ve-memory.md sections 5.1 and 5.4).
//!
//! The checks of each call are in the documented order, because the answer to a request that breaks several rules is
//! observable. Where the documentation and the implementation disagree the implementation is followed (section 11).

use std::collections::BTreeSet;

use crate::addr::{PageSize, Vemaa, Vemva};
use crate::atb::{Atb, Walk};
use crate::errno::{Errno, ErrnoProfile};
use crate::pciatb::Pciatb;
use crate::profile::Profile;
use crate::refusal::{Refusal, check};
use crate::registry::{Key, MAX_COUNT, Registered};
use crate::request::{Area, Body, Mode, Reply};
use crate::service::{Ived, MAX_AREAS, ProcessId, Resident, Service, Use, node_mut};

pub(crate) const REGISTER: Mode = Mode::PCI.with(Mode::NONE);
pub(crate) const AREA_FLAGS: Mode = Mode::IDENTITY.with(Mode::SWAPPABLE).with(Mode::NONE);

/// Section 5.1 rows 1 and 2.
pub(crate) fn check_open_flags(area: &Area, profile: &Profile) -> Result<(), Refusal> {
    let mode = area.mode;
    let pci_only = Mode::PCISYNC.with(Mode::MAP_256MB).with(Mode::SWAPPABLE);
    check([
        (
            mode.beyond(AREA_FLAGS),
            "the mode has a bit that is none of an area's flags (ve-memory 5.1 row 1)",
        ),
        (
            mode.count(REGISTER) != 1,
            "the mode must have exactly one of VE_REGISTER_PCI and VE_REGISTER_NONE (ve-memory 5.1 row 1)",
        ),
        (
            mode.has(Mode::NONE) && mode.count(pci_only) != 0,
            "VE_PCISYNC, VE_MAP_256MB and VE_SWAPPABLE need VE_REGISTER_PCI (ve-memory 5.1 row 1)",
        ),
        (
            mode.has(Mode::MAP_256MB) && !profile.maps_256m(),
            "VE_MAP_256MB is for the third generation, VE3 (ve-memory 5.1 row 1)",
        ),
        (
            mode.has(Mode::PCISYNC) && !(0..=3).contains(&area.syncnum),
            "with VE_PCISYNC syncnum must be 0 to 3 (ve-memory 5.1 row 2)",
        ),
    ])
}

/// Section 5.1 rows 8 and 9, in both columns.
fn check_walk(found: Option<Walk>, mode: Mode, column: ErrnoProfile) -> Result<(), Refusal> {
    match found {
        None => Ok(()),
        Some(Walk::Broken) => Err(column.pick(Errno::Enomem, Errno::Einval).by(
            "all of [vemva, vemva + size) must be VE memory, with pages of one size (ve-memory 5.1 row 8)",
        )),
        // Documented: a read-only area asks for read permission only.
        Some(Walk::ReadOnly) if mode.has(Mode::READ_ONLY) && column == ErrnoProfile::Documented => {
            Ok(())
        }
        Some(Walk::ReadOnly) => Err(Errno::Eacces.by(
            "every page must be writable, even with VE_SHM_RO (ve-memory 5.1 row 9)",
        )),
    }
}

/// The frames of a range in steps of `grain`, which must not be larger than the pages; the flag tells whether all are writable.
pub(crate) fn grains(
    atb: &Atb,
    start: Vemva,
    len: u64,
    grain: PageSize,
) -> Option<(Vec<Vemaa>, bool)> {
    let (page, frames, writable) = atb.frames(start, len)?;
    if page == grain && start.is_aligned(page) {
        return Some((frames, writable));
    }
    let into_first = start.offset_from(start.page_start(page))?;
    let mut steps = Vec::new();
    for step in 0..grain.pages(len) {
        let at = into_first.checked_add(step.checked_mul(grain.bytes())?)?;
        let frame = frames.get(usize::try_from(at / page.bytes()).ok()?)?;
        steps.push(frame.checked_add(at % page.bytes())?);
    }
    Some((steps, writable))
}

/// An open that nothing can refuse any more (section 5.1, re-open).
enum Opening {
    /// Of an area whose pages are unchanged.
    Again(u64),
    /// Of a new area, in place of an old one under its key.
    New { area: Registered, old: Option<u64> },
}

impl Service {
    pub(crate) fn ived_connected(&self) -> Result<(), Refusal> {
        if self.ived == Ived::Absent {
            Err(Errno::Enotsup.by("VEOS has no connection to IVED (ve-memory 5.0)"))
        } else {
            Ok(())
        }
    }

    pub(crate) fn ived_reachable(&self) -> Result<(), Refusal> {
        if self.ived == Ived::Connected {
            Ok(())
        } else {
            Err(Errno::Ecanceled.by("IVED cannot be reached (ve-memory 5.1 row 12, 5.2 row 11)"))
        }
    }

    /// The global failures of section 5.0, which come before anything else.
    pub(crate) fn veshm_allowed(&self, id: ProcessId) -> Result<(), Refusal> {
        let small = |process: &Resident| process.linked_small;
        if self.processes.get(&id).is_some_and(small) {
            return Err(Errno::Enotsup.by(
                "a program linked with pages of 2 MiB, WINDLASS_VE_PAGE=2M here, has no VESHM (ve-memory 5.0)",
            ));
        }
        self.ived_connected()
    }

    /// `ve_shared_mem_open` (section 5.1).
    pub(crate) fn open(&mut self, id: ProcessId, area: Area) -> Result<Reply, Refusal> {
        self.veshm_allowed(id)?;
        check_open_flags(&area, &self.profile)?;
        let opening = self.prepare(id, &area, 0)?;
        if !area.mode.has(Mode::SWAPPABLE) {
            self.complete(opening);
            return Ok(Body::Done.into());
        }
        // Two opens in one, both or neither: the second one keeps the area attachable while its pages are swapped.
        let beside = usize::from(matches!(opening, Opening::New { .. }));
        match self.prepare(id, &swap_twin(&area), beside) {
            Ok(twin) => {
                let number = self.complete(opening);
                self.complete(twin);
                self.with_area(number, |registered| registered.swappable += 1);
                Ok(Body::Done.into())
            }
            Err(errno) => {
                self.give_up(opening);
                Err(errno)
            }
        }
    }

    /// Rows 3 to 7: in which steps the area is registered.
    fn grain_of(&self, id: ProcessId, area: &Area) -> Result<PageSize, Refusal> {
        let Area {
            vemva, size, mode, ..
        } = *area;
        check([(
            vemva.raw() == 0 || size == 0,
            "vemva must not be null, nor size 0 (ve-memory 5.1 row 3)",
        )])?;
        self.ve_of(id)?;
        let process = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        let pci = mode.has(Mode::PCI);
        let fits = |page: PageSize| vemva.is_aligned(page) && page.divides(size);
        let misaligned = if pci {
            "with VE_REGISTER_PCI vemva and size must be multiples of the PCIATB page, 64 MiB, or 2 MiB with a BAR0 window of 128 MiB (ve-memory 5.1 row 5)"
        } else {
            "vemva and size must be multiples of the page size of the memory, 64 MiB, or 2 MiB after MADV_NOHUGEPAGE (ve-memory 5.1 row 5)"
        };
        let least = if pci {
            self.profile.pciatb_page()
        } else {
            PageSize::M2
        };
        // Memory that breaks the next rule anyhow has not become VE memory for this call.
        let unmapped = if fits(least) {
            "at vemva must be memory that is, or can become, VE memory (ve-memory 5.1 row 4)"
        } else {
            misaligned
        };
        let page = process.atb.page(vemva).ok_or(Errno::Einval.by(unmapped))?;
        let align = if pci { least } else { page.size };
        check([
            (!fits(align), misaligned),
            (
                pci && page.size < align,
                "memory on pages of 2 MiB does not go into a PCIATB with pages of 64 MiB: use VE_REGISTER_NONE (ve-memory 5.1 row 6)",
            ),
        ])?;
        Ok(align)
    }

    /// All checks, and the slots. `beside`: areas that are prepared already. Nobody can tell until it is completed.
    fn prepare(&mut self, id: ProcessId, area: &Area, beside: usize) -> Result<Opening, Refusal> {
        let Area {
            vemva, size, mode, ..
        } = *area;
        let grain = self.grain_of(id, area)?;
        let ve = self.ve_of(id)?;
        let process = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        let (key, uid) = (Key::new(process.pid, area), process.uid);
        let found = grains(&process.atb, vemva, size, grain);
        let existing = self.registry.find(&key).map(|(number, old)| {
            let same = matches!(&found, Some((frames, _)) if *frames == old.frames);
            (number, same && old.owner == id && !old.closed)
        });
        if let Some((number, true)) = existing {
            self.may_reopen(number)?;
            return Ok(Opening::Again(number));
        }
        check_walk(
            process.atb.walk(vemva, size).err(),
            mode,
            self.profile.errno,
        )?;
        let (frames, _) = found.ok_or(Errno::Enomem)?;
        if self.registry.owned_by(id) + beside >= MAX_AREAS {
            return Err(Errno::Enomem.by("the process has too many areas (ve-memory 5.1 row 11)"));
        }
        let slots = if mode.has(Mode::PCI) {
            self.take_slots(ve, &frames, &key, grain)?
        } else {
            Vec::new()
        };
        if let Err(errno) = self.ived_reachable() {
            self.give_slots(ve, &slots, grain);
            return Err(errno);
        }
        let area = Registered {
            key,
            owner: id,
            ve,
            uid,
            reg: 1,
            swappable: 0,
            attachers: BTreeSet::new(),
            closed: false,
            invalid: false,
            frames,
            grain,
            slots,
        };
        let old = existing.map(|(number, _)| number);
        Ok(Opening::New { area, old })
    }

    fn may_reopen(&self, number: u64) -> Result<(), Refusal> {
        let area = self.registry.area(number).ok_or(Errno::Ecanceled)?;
        if area.reg >= MAX_COUNT {
            return Err(Errno::Enomem.by("the area was opened too often (ve-memory 5.1 row 11)"));
        }
        self.ived_reachable()
    }

    /// What was prepared becomes known. Answers the area's number.
    fn complete(&mut self, opening: Opening) -> u64 {
        match opening {
            Opening::Again(number) => {
                self.with_area(number, |area| area.reg += 1);
                number
            }
            Opening::New { area, old } => {
                // Pages changed, or closed but still referenced: the old record becomes INVALID.
                if let Some(old) = old
                    && self.registry.invalidate(old)
                {
                    self.erase_area(old);
                }
                self.registry.add(area)
            }
        }
    }

    /// What was prepared is not needed.
    fn give_up(&mut self, opening: Opening) {
        if let Opening::New { area, .. } = opening {
            self.give_slots(area.ve, &area.slots, area.grain);
        }
    }

    fn take_slots(
        &mut self,
        ve: u32,
        frames: &[Vemaa],
        key: &Key,
        grain: PageSize,
    ) -> Result<Vec<u32>, Refusal> {
        let full = Errno::Enomem
            .by("the PCIATB of this VE has not as many free slots (ve-memory 5.1 row 10)");
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Ecanceled)?;
        let pair = u8::try_from(key.sync).ok();
        let by_four = key.flags.has(Mode::MAP_256MB);
        let slots = Pciatb::take(&mut node.pciatb, frames, pair, by_four).ok_or(full)?;
        for frame in frames {
            node.frames.retain(*frame, grain.bytes());
        }
        Ok(slots)
    }

    /// Forgets an area that nobody can reach any more: its slots, and with them their references on the frames.
    pub(crate) fn erase_area(&mut self, number: u64) {
        let Some(area) = self.registry.remove(number) else {
            return;
        };
        self.give_slots(area.ve, &area.slots, area.grain);
    }

    fn give_slots(&mut self, ve: u32, slots: &[u32], grain: PageSize) {
        if let Some(node) = node_mut(&mut self.nodes, ve) {
            for frame in node.pciatb.give(slots) {
                node.frames.release(frame, grain.bytes());
            }
        }
    }

    pub(crate) fn with_area(&mut self, number: u64, change: impl FnOnce(&mut Registered)) {
        if let Some(area) = self.registry.areas.get_mut(&number) {
            change(area);
        }
    }

    /// A process has no attachment to an area any more: IVED drops its reference.
    pub(crate) fn drop_reference(&mut self, id: ProcessId, number: u64) {
        let attached = self.processes.get(&id).is_some_and(|process| {
            let held = process
                .tickets
                .values()
                .any(|held| matches!(held.purpose, Use::Attach { area, .. } if area == number));
            held || process
                .attachments
                .iter()
                .any(|attachment| attachment.area == Some(number))
        });
        if attached {
            return;
        }
        let mut orphan = false;
        self.with_area(number, |area| {
            area.attachers.remove(&id);
            orphan = area.closed && area.attachers.is_empty();
        });
        if orphan {
            self.erase_area(number);
        }
    }

    /// `ve_shared_mem_close` (section 5.4).
    pub(crate) fn close(&mut self, id: ProcessId, area: Area) -> Result<Reply, Refusal> {
        self.veshm_allowed(id)?;
        let mode = area.mode;
        check([
            (
                mode.beyond(AREA_FLAGS),
                "the mode has a bit that is none of an area's flags (ve-memory 5.4)",
            ),
            (
                mode.has(Mode::SWAPPABLE) && !mode.has(Mode::PCI),
                "VE_SWAPPABLE needs VE_REGISTER_PCI (ve-memory 5.4)",
            ),
            (
                mode.has(Mode::MAP_256MB) && !self.profile.maps_256m(),
                "VE_MAP_256MB is for the third generation, VE3 (ve-memory 5.4)",
            ),
            (
                area.vemva.raw() == 0,
                "vemva must not be null (ve-memory 5.4)",
            ),
        ])?;
        if mode.has(Mode::SWAPPABLE) {
            // Both, before either is closed: the program may have closed one of them by itself.
            let number = self.opened(id, &area)?;
            self.opened(id, &swap_twin(&area))?;
            let swappable = |registered: &Registered| registered.swappable > 0;
            check([(
                !self.registry.area(number).is_some_and(swappable),
                "the area must have been opened with VE_SWAPPABLE (ve-memory 5.4)",
            )])?;
            self.ived_reachable()?;
            self.with_area(number, |registered| registered.swappable -= 1);
            self.close_one(id, &swap_twin(&area))?;
        }
        self.close_one(id, &area)?;
        Ok(Body::Done.into())
    }

    /// The number of an area that a process has opened and not closed as often.
    fn opened(&self, id: ProcessId, area: &Area) -> Result<u64, Refusal> {
        let pid = self.processes.get(&id).ok_or(Errno::Ecanceled)?.pid;
        let found = self.registry.find(&Key::new(pid, area));
        found
            .filter(|(_, area)| area.owner == id && area.reg > 0)
            .map(|(number, _)| number)
            .ok_or(Errno::Einval.by(
                "the process must have an area open under exactly these arguments, not closed as often (ve-memory 5.4)",
            ))
    }

    fn close_one(&mut self, id: ProcessId, area: &Area) -> Result<(), Refusal> {
        let number = self.opened(id, area)?;
        self.ived_reachable()?;
        let mut unused = false;
        self.with_area(number, |area| {
            area.reg -= 1;
            area.closed = area.reg == 0;
            unused = area.closed && area.attachers.is_empty();
        });
        if unused {
            self.erase_area(number);
        }
        Ok(())
    }
}

fn swap_twin(area: &Area) -> Area {
    let kept = area.mode.only(Mode::READ_ONLY);
    Area {
        mode: kept.with(Mode::NONE),
        ..*area
    }
}
