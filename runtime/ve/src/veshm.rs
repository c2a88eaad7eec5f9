//! VESHM in the service: owned areas, IVED's registry and attachments (ve-memory.md section 5).
//!
//! The checks of each call are in the documented order, because the answer to a request that breaks several rules is
//! observable. Where the documentation and the implementation disagree the implementation is followed (section 11).

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::{PageSize, Vehva, Vemaa, Vemva};
use crate::atb::{Atb, Entries, Leads, Walk};
use crate::errno::Errno;
use crate::frames::runs_of;
use crate::pciatb::Pciatb;
use crate::profile::Profile;
use crate::request::{Area, Body, Frames, Mode, PageMode, Reply};
use crate::service::{Held, Ived, MAX_ATTACHMENTS, ProcessId, Service, Use, node_mut};

/// The counters are C ints (section 5.1 row 11).
const MAX_COUNT: u32 = i32::MAX as u32;
/// Last of the fixed 4 KiB pages every process has (section 2.2).
const LAST_FIXED: u64 = 0x4FFF;

/// Identity of an area: exact, no sub-range, no rounding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) pid: i32,
    pub(crate) vemva: Vemva,
    pub(crate) size: u64,
    flags: Mode,
    sync: i32,
}

impl Key {
    fn new(pid: i32, area: &Area) -> Self {
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
    key: Key,
    owner: ProcessId,
    pub(crate) ve: u32,
    uid: u32,
    reg: u32,
    swappable: u32,
    attachers: BTreeSet<ProcessId>,
    closed: bool,
    invalid: bool,
    /// Frames in steps of `grain`.
    frames: Vec<Vemaa>,
    grain: PageSize,
    slots: Vec<u32>,
}

/// IVED's registry of one VH.
#[derive(Debug)]
pub(crate) struct Registry {
    areas: BTreeMap<u64, Registered>,
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

    fn find(&self, key: &Key) -> Option<(u64, &Registered)> {
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
    fn invalidate(&mut self, id: u64) -> bool {
        let Some(area) = self.areas.get_mut(&id) else {
            return false;
        };
        (area.reg, area.closed, area.invalid) = (0, true, true);
        let unused = area.attachers.is_empty();
        self.by_key.remove(&area.key);
        unused
    }

    fn add(&mut self, area: Registered) {
        let id = self.next;
        self.next += 1;
        self.by_key.insert(area.key, id);
        self.areas.insert(id, area);
    }

    fn remove(&mut self, id: u64) -> Option<Registered> {
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
    count: u32,
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

const REGISTER: Mode = Mode::PCI.with(Mode::NONE);
const SPACE: Mode = Mode::VEMVA.with(Mode::VEHVA).with(Mode::MEM_LOCAL);
const AREA_FLAGS: Mode = Mode::IDENTITY.with(Mode::SWAPPABLE).with(Mode::NONE);

/// Section 5.1 rows 1 and 2.
fn check_open_flags(area: &Area, profile: &Profile) -> Result<(), Errno> {
    let mode = area.mode;
    let pci_only = Mode::PCISYNC.with(Mode::MAP_256MB).with(Mode::SWAPPABLE);
    let illegal = mode.beyond(AREA_FLAGS)
        || mode.count(REGISTER) != 1
        || (mode.has(Mode::NONE) && mode.count(pci_only) != 0)
        || (mode.has(Mode::MAP_256MB) && !profile.has_256m())
        || (mode.has(Mode::PCISYNC) && !(0..=3).contains(&area.syncnum));
    if illegal { Err(Errno::Einval) } else { Ok(()) }
}

/// Section 5.2 row 5.
fn check_attach_flags(mode: Mode, profile: &Profile) -> Result<(), Errno> {
    let pci_only = Mode::PCISYNC.with(Mode::MAP_256MB).with(Mode::SWAPPABLE);
    let registered = if mode.has(Mode::MEM_LOCAL) { 0 } else { 1 };
    let illegal = mode.beyond(AREA_FLAGS.with(SPACE))
        || mode.count(SPACE) != 1
        || mode.count(REGISTER) != registered
        || (!mode.has(Mode::PCI) && mode.count(pci_only) != 0)
        || (mode.has(Mode::MAP_256MB) && !profile.has_256m());
    if illegal { Err(Errno::Einval) } else { Ok(()) }
}

/// The frames of a range in steps of `grain`, which must not be larger than the pages; the flag tells whether all are writable.
fn grains(atb: &Atb, start: Vemva, len: u64, grain: PageSize) -> Option<(Vec<Vemaa>, bool)> {
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

impl Service {
    fn ived_connected(&self) -> Result<(), Errno> {
        if self.ived == Ived::Absent {
            Err(Errno::Enotsup)
        } else {
            Ok(())
        }
    }

    fn ived_reachable(&self) -> Result<(), Errno> {
        if self.ived == Ived::Connected {
            Ok(())
        } else {
            Err(Errno::Ecanceled)
        }
    }

    /// `ve_shared_mem_open` (section 5.1).
    pub(crate) fn open(&mut self, id: ProcessId, area: Area) -> Result<Reply, Errno> {
        self.ived_connected()?;
        check_open_flags(&area, &self.profile)?;
        self.open_one(id, &area)?;
        if area.mode.has(Mode::SWAPPABLE) {
            // Two opens in one: the second one keeps the area attachable while its pages are swapped.
            let twin = swap_twin(&area);
            if let Err(errno) = self.open_one(id, &twin) {
                self.close_one(id, &area)?;
                return Err(errno);
            }
            let pid = self.processes.get(&id).ok_or(Errno::Ecanceled)?.pid;
            if let Some(number) = self
                .registry
                .find(&Key::new(pid, &area))
                .map(|(number, _)| number)
            {
                self.with_area(number, |registered| registered.swappable += 1);
            }
        }
        Ok(Body::Done.into())
    }

    fn open_one(&mut self, id: ProcessId, area: &Area) -> Result<(), Errno> {
        let Area {
            vemva, size, mode, ..
        } = *area;
        if vemva.raw() == 0 || size == 0 {
            return Err(Errno::Einval);
        }
        let ve = self.ve_of(id)?;
        let process = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        let page = process.atb.page(vemva).ok_or(Errno::Einval)?;
        let pci = mode.has(Mode::PCI);
        let align = if pci {
            self.profile.pciatb_page()
        } else {
            page.size
        };
        if !vemva.is_aligned(align) || !align.divides(size) {
            return Err(Errno::Einval);
        }
        if pci && page.size < align {
            return Err(Errno::Einval);
        }
        let (grain, key, uid) = (align, Key::new(process.pid, area), process.uid);
        let found = grains(&process.atb, vemva, size, grain);
        let existing = self.registry.find(&key).map(|(number, old)| {
            let usable = old.owner == id && !old.closed;
            (
                number,
                usable
                    && found
                        .as_ref()
                        .is_some_and(|(frames, _)| *frames == old.frames),
            )
        });
        if let Some((number, true)) = existing {
            return self.reopen(number);
        }
        process.atb.walk(vemva, size).map_err(|walk| match walk {
            Walk::Broken => Errno::Enomem,
            Walk::ReadOnly => Errno::Eacces,
        })?;
        let (frames, _) = found.ok_or(Errno::Enomem)?;
        self.ived_reachable()?;
        // Pages changed, or closed but still referenced: the old record becomes INVALID.
        if let Some((old, _)) = existing
            && self.registry.invalidate(old)
        {
            self.erase_area(old);
        }
        let slots = if pci {
            self.take_slots(ve, &frames, &key, grain)?
        } else {
            Vec::new()
        };
        self.registry.add(Registered {
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
        });
        Ok(())
    }

    fn reopen(&mut self, number: u64) -> Result<(), Errno> {
        self.ived_reachable()?;
        let area = self
            .registry
            .areas
            .get_mut(&number)
            .ok_or(Errno::Ecanceled)?;
        if area.reg >= MAX_COUNT {
            return Err(Errno::Enomem);
        }
        area.reg += 1;
        Ok(())
    }

    fn take_slots(
        &mut self,
        ve: u32,
        frames: &[Vemaa],
        key: &Key,
        grain: PageSize,
    ) -> Result<Vec<u32>, Errno> {
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Ecanceled)?;
        let pair = u8::try_from(key.sync).ok();
        let by_four = key.flags.has(Mode::MAP_256MB);
        let slots = Pciatb::take(&mut node.pciatb, frames, pair, by_four).ok_or(Errno::Enomem)?;
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
        if let Some(node) = node_mut(&mut self.nodes, area.ve) {
            for frame in node.pciatb.give(&area.slots) {
                node.frames.release(frame, area.grain.bytes());
            }
        }
    }

    fn with_area(&mut self, number: u64, change: impl FnOnce(&mut Registered)) {
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
    pub(crate) fn close(&mut self, id: ProcessId, area: Area) -> Result<Reply, Errno> {
        self.ived_connected()?;
        let mode = area.mode;
        let illegal = mode.beyond(AREA_FLAGS)
            || (mode.has(Mode::SWAPPABLE) && !mode.has(Mode::PCI))
            || (mode.has(Mode::MAP_256MB) && !self.profile.has_256m());
        if illegal || area.vemva.raw() == 0 {
            return Err(Errno::Einval);
        }
        if mode.has(Mode::SWAPPABLE) {
            let pid = self.processes.get(&id).ok_or(Errno::Ecanceled)?.pid;
            let (number, registered) = self
                .registry
                .find(&Key::new(pid, &area))
                .ok_or(Errno::Einval)?;
            if registered.swappable == 0 {
                return Err(Errno::Einval);
            }
            self.ived_reachable()?;
            self.with_area(number, |registered| registered.swappable -= 1);
            self.close_one(id, &swap_twin(&area))?;
        }
        self.close_one(id, &area)?;
        Ok(Body::Done.into())
    }

    fn close_one(&mut self, id: ProcessId, area: &Area) -> Result<(), Errno> {
        let pid = self.processes.get(&id).ok_or(Errno::Ecanceled)?.pid;
        let found = self.registry.find(&Key::new(pid, area));
        let (number, _) = found
            .filter(|(_, area)| area.owner == id && area.reg > 0)
            .ok_or(Errno::Einval)?;
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

    /// `ve_shared_mem_attach` (section 5.2).
    pub(crate) fn attach(&mut self, id: ProcessId, pid: i32, area: Area) -> Result<Reply, Errno> {
        self.ived_connected()?;
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
            let page = owner_page.ok_or(Errno::Einval)?;
            if !area.vemva.is_aligned(page) || !page.divides(area.size) {
                return Err(Errno::Einval);
            }
            let own = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
            if own.atb.directories_left() == 0 && self.attachment(id, pid, &area, None).is_none() {
                return Err(Errno::Enomem);
            }
        }
        check_attach_flags(mode, &self.profile)?;
        let own_pid = self.processes.get(&id).ok_or(Errno::Ecanceled)?.pid;
        if mode.has(Mode::MEM_LOCAL) {
            return if pid == own_pid {
                self.attach_local(id, ve, pid, &area)
            } else {
                Err(Errno::Einval)
            };
        }
        let small_slots = self.profile.pciatb_page() == PageSize::M2;
        let illegal = pid == own_pid
            || (mode.has(Mode::NONE) && !here)
            || (in_vemva
                && mode.has(Mode::PCI)
                && small_slots
                && owner_page == Some(PageSize::M64))
            || (!in_vemva && here);
        if illegal {
            return Err(Errno::Einval);
        }
        self.ived_reachable()?;
        let number = self.find_area(id, pid, &area)?;
        if in_vemva {
            self.attach_vemva(id, ve, number)
        } else {
            self.attach_vehva(id, ve, number)
        }
    }

    /// Rows 12 to 16.
    fn find_area(&self, id: ProcessId, pid: i32, area: &Area) -> Result<u64, Errno> {
        let owner = self
            .by_pid
            .get(&pid)
            .and_then(|owner| self.processes.get(owner))
            .ok_or(Errno::Esrch)?;
        let owner_ve = owner.ve.ok_or(Errno::Esrch)?;
        if !self.node(owner_ve).is_some_and(|node| node.running) {
            return Err(Errno::Einval);
        }
        let key = Key::new(pid, area);
        let (number, found) = self
            .registry
            .find(&key)
            .filter(|(_, area)| !area.closed)
            .ok_or(Errno::Einval)?;
        let uid = self.processes.get(&id).map(|process| process.uid);
        if uid != Some(found.uid) {
            return Err(Errno::Eacces);
        }
        let elsewhere = self.registry.areas.iter().any(|(other, area)| {
            *other != number && !area.invalid && area.key == key && area.attachers.contains(&id)
        });
        if !found.attachers.contains(&id) && elsewhere {
            return Err(Errno::Einval);
        }
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
    fn repeat(&mut self, id: ProcessId, number: u64, in_vemva: bool) -> Result<Option<u64>, Errno> {
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
            Err(Errno::Enomem)
        } else {
            Ok(None)
        }
    }

    fn attach_vemva(&mut self, id: ProcessId, ve: u32, number: u64) -> Result<Reply, Errno> {
        let area = self.registry.area(number).ok_or(Errno::Einval)?;
        let (key, page, frames) = (area.key, area.grain, area.frames.clone());
        let owner = self.processes.get(&area.owner).ok_or(Errno::Esrch)?;
        let now = grains(&owner.atb, key.vemva, key.size, page);
        if now.is_none_or(|(now, _)| now != frames) {
            return Err(Errno::Ecanceled);
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
        self.hand_over(id, held, key.size)
    }

    fn attach_vehva(&mut self, id: ProcessId, ve: u32, number: u64) -> Result<Reply, Errno> {
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
        let vehva = self.map_entries(id, ve, entries)?;
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
    ) -> Result<Reply, Errno> {
        let process = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        let page = process.atb.page(area.vemva).ok_or(Errno::Einval)?.size;
        if !area.vemva.is_aligned(page) || !page.divides(area.size) {
            return Err(Errno::Einval);
        }
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
        let (_, frames) = process
            .atb
            .walk(area.vemva, area.size)
            .map_err(|walk| match walk {
                Walk::Broken => Errno::Enomem,
                Walk::ReadOnly => Errno::Eacces,
            })?;
        if area.size == 0 || process.attachments.len() >= MAX_ATTACHMENTS {
            return Err(Errno::Enomem);
        }
        let writable = !area.mode.has(Mode::READ_ONLY);
        let runs = runs_of(&frames, page, area.size)?;
        let entries = Entries {
            page,
            pages: page.pages(area.size),
            leads: Leads::Frames(frames.clone()),
            writable,
        };
        let vehva = self.map_entries(id, ve, entries)?;
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
    ) -> Result<Reply, Errno> {
        self.ived_connected()?;
        if mode.beyond(SPACE) || mode.count(SPACE) != 1 {
            return Err(Errno::Einval);
        }
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
        let index = found.ok_or(Errno::Einval)?;
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

    /// `ve_get_pgmode` (section 5.5).
    pub(crate) fn page_mode(
        &self,
        id: ProcessId,
        mode: PageMode,
        pid: i32,
        address: u64,
    ) -> Result<Reply, Errno> {
        self.ived_connected()?;
        let target = self
            .by_pid
            .get(&pid)
            .and_then(|target| self.processes.get(target));
        let own_ve = self.processes.get(&id).and_then(|process| process.ve);
        let here = target.filter(|target| target.ve.is_some() && target.ve == own_ve);
        let page = match mode {
            PageMode::VEMVA => {
                let target = here.ok_or(Errno::Esrch)?;
                target.atb.page(Vemva::new(address)).map(|page| page.size)
            }
            PageMode::VEHVA => {
                let target = here.ok_or(Errno::Esrch)?;
                let fixed = (address <= LAST_FIXED).then_some(PageSize::K4);
                fixed.or_else(|| target.dmaatb.page_at(Vehva::new(address)))
            }
            PageMode::PCI => {
                self.ived_reachable()?;
                let ve = target.and_then(|target| target.ve).ok_or(Errno::Esrch)?;
                let running = self.node(ve).is_some_and(|node| node.running);
                Some(self.profile.pciatb_page())
                    .filter(|_| running)
                    .ok_or(Errno::Esrch)
                    .map(Some)?
            }
            _ => return Err(Errno::Einval),
        };
        page.map(|page| Body::Page(page.bytes()).into())
            .ok_or(Errno::Einval)
    }
}

fn swap_twin(area: &Area) -> Area {
    let kept = area.mode.only(Mode::READ_ONLY);
    Area {
        mode: kept.with(Mode::NONE),
        ..*area
    }
}

/// Granularity of a remote attachment: the PCIATB page of the owner's VE, or the 256 MiB page asked for.
fn window_page(area: &Registered) -> PageSize {
    if area.key.flags.has(Mode::MAP_256MB) {
        PageSize::M256
    } else {
        area.grain
    }
}
