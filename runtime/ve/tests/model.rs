//! The service against a naive model of ve-memory.md: no counts, no bitmaps, no tables, but lists that are searched. Random sequences
//! of operations, ends of processes and stops of a VE included; after each one the answers and everything that is free must agree.
#![cfg(not(miri))]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use support::{M64, Node, UID};
use windlass_ve::{
    Area, Body, Errno, Frames, Mode, PageSize, ProcessId, Profile, Request, Vehva, Vemva,
};

const BASE: u64 = 0x6000_0000_0000;
const VEHVA_BASE: u64 = 0x0700_0000_0000;
const FRAMES: usize = 16;
const SLOTS: usize = 7;
const DIRECTORIES: usize = 3;
/// Small tables, so that every one of them is full now and then. Directories are small in number, so each covers few pages.
const TINY: Profile = Profile {
    memory_bytes: FRAMES as u64 * M64,
    bar0_bytes: (SLOTS as u64 + 1) * M64,
    dmaatb_directories: 8 + DIRECTORIES as u32,
    ..Profile::VE1
};
/// VE and user of each process; the pid is 10 and its place here.
const PLACES: [(u32, u32); 5] = [(0, UID), (0, UID), (0, UID + 1), (1, UID), (1, UID)];
/// Pages of 64 MiB in a directory.
const SPACE: u64 = 256;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    pid: i32,
    page: u64,
    pages: u64,
    flags: i64,
}

#[derive(Clone, Debug)]
struct ModelArea {
    key: Key,
    /// Which life of which process.
    owner: u64,
    ve: u32,
    uid: u32,
    reg: u32,
    attachers: BTreeSet<u64>,
    closed: bool,
    invalid: bool,
    frames: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Attached {
    key: Key,
    area: Option<u64>,
    vemva: bool,
    address: u64,
    pages: u64,
    frames: Vec<u64>,
    count: u32,
    invalid: bool,
}

#[derive(Debug)]
struct ModelProcess {
    life: u64,
    /// Page number to frame and permission.
    mapped: BTreeMap<u64, (u64, bool)>,
    attached: Vec<Attached>,
}

#[derive(Debug, Default)]
struct Model {
    processes: BTreeMap<usize, ModelProcess>,
    areas: BTreeMap<u64, ModelArea>,
    stopped: BTreeSet<u32>,
    numbers: u64,
}

impl Model {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// What is free on a VE, by looking at everything.
    fn free(&self, ve: u32) -> (u64, usize, usize) {
        let here = |who: &usize| PLACES[*who].0 == ve;
        let mut frames = BTreeSet::new();
        let mut directories = BTreeSet::new();
        for (who, process) in self.processes.iter().filter(|(who, _)| here(who)) {
            frames.extend(process.mapped.values().map(|(frame, _)| *frame));
            for run in process.attached.iter().filter(|run| !run.vemva) {
                let first = (run.address - VEHVA_BASE) / M64;
                directories.extend((first..first + run.pages).map(|page| (*who, page / SPACE)));
                if run.area.is_none() {
                    frames.extend(&run.frames);
                }
            }
        }
        let pci = |area: &&ModelArea| area.ve == ve && area.key.flags & 4 != 0;
        let slots = self.areas.values().filter(pci);
        let used: usize = slots.clone().map(|area| area.frames.len()).sum();
        frames.extend(slots.flat_map(|area| &area.frames));
        (
            (FRAMES - frames.len()) as u64 * M64,
            SLOTS - used,
            DIRECTORIES - directories.len(),
        )
    }

    /// Frames of whole pages, and whether all are writable.
    fn range(&self, who: usize, page: u64, pages: u64) -> Option<(Vec<u64>, bool)> {
        let mapped = &self.processes.get(&who)?.mapped;
        let found: Option<Vec<_>> = (page..page + pages).map(|p| mapped.get(&p)).collect();
        let found = found.filter(|found| !found.is_empty())?;
        let writable = found.iter().all(|(_, writable)| *writable);
        Some((found.iter().map(|(frame, _)| *frame).collect(), writable))
    }

    fn find(&self, key: Key) -> Option<u64> {
        let valid = self.areas.iter().find(|(_, a)| a.key == key && !a.invalid);
        valid.map(|(number, _)| *number)
    }

    fn sweep(&mut self) {
        self.areas
            .retain(|_, area| area.reg > 0 || !area.attachers.is_empty());
    }

    fn open(&mut self, who: usize, key: Key) -> bool {
        let (ve, uid) = PLACES[who];
        let Some((frames, writable)) = self.range(who, key.page, key.pages) else {
            return false;
        };
        let life = self.processes[&who].life;
        let old = self.find(key);
        if let Some(area) = old.and_then(|old| self.areas.get_mut(&old))
            && area.owner == life
            && !area.closed
            && area.frames == frames
        {
            area.reg += 1;
            return true;
        }
        if !writable {
            return false;
        }
        if key.flags & 4 != 0 && self.free(ve).1 < frames.len() {
            return false;
        }
        if let Some(area) = old.and_then(|old| self.areas.get_mut(&old)) {
            (area.reg, area.closed, area.invalid) = (0, true, true);
            self.sweep();
        }
        let number = self.number();
        let area = ModelArea {
            key,
            owner: life,
            ve,
            uid,
            reg: 1,
            attachers: BTreeSet::new(),
            closed: false,
            invalid: false,
            frames,
        };
        self.areas.insert(number, area);
        true
    }

    fn close(&mut self, who: usize, key: Key) -> bool {
        let life = self.processes[&who].life;
        let Some(area) = self.find(key).and_then(|n| self.areas.get_mut(&n)) else {
            return false;
        };
        if area.owner != life || area.reg == 0 {
            return false;
        }
        area.reg -= 1;
        area.closed = area.reg == 0;
        self.sweep();
        true
    }

    /// First fit: the lowest run of free pages.
    fn vehva(&self, who: usize, pages: u64) -> Option<u64> {
        let (ve, _) = PLACES[who];
        let runs = self.processes[&who].attached.iter().filter(|a| !a.vemva);
        let taken: BTreeSet<u64> = runs
            .flat_map(|run| {
                let first = (run.address - VEHVA_BASE) / M64;
                first..first + run.pages
            })
            .collect();
        let free = |start: &u64| (*start..start + pages).all(|page| !taken.contains(&page));
        let start = (0..16_384 - pages).find(free)?;
        let mut fresh: BTreeSet<u64> = (start..start + pages).map(|page| page / SPACE).collect();
        fresh.retain(|space| !taken.iter().any(|page| page / SPACE == *space));
        (fresh.len() <= self.free(ve).2).then_some(VEHVA_BASE + start * M64)
    }

    /// An area that this process may attach.
    fn attachable(&self, who: usize, key: Key, vemva: bool) -> Option<u64> {
        let (ve, uid) = PLACES[who];
        let owner = usize::try_from(key.pid - 10).ok()?;
        let here = PLACES.get(owner)?.0 == ve;
        let number = self.find(key)?;
        let area = &self.areas[&number];
        let process = self.processes.get(&owner)?;
        let now = self.range(owner, key.page, key.pages);
        let same = now.is_some_and(|(frames, _)| frames == area.frames);
        let legal = owner != who
            && here == vemva
            && (vemva || key.flags & 4 != 0)
            && process.life == area.owner
            && !area.closed
            && area.uid == uid
            && (!vemva || same);
        legal.then_some(number)
    }

    /// Attaches; VEMVA is mapped at page `to`, which the caller has found free. Answers the address.
    fn attach(&mut self, who: usize, key: Key, space: Space, to: u64) -> Option<u64> {
        let vemva = space == Space::Vemva;
        let area = match space {
            Space::Local => None,
            _ => Some(self.attachable(who, key, vemva)?),
        };
        if space == Space::Local && key.pid - 10 != who as i32 {
            return None;
        }
        let repeat = |a: &&mut Attached| a.key == key && a.vemva == vemva && !a.invalid;
        let process = self.processes.get_mut(&who)?;
        let earlier = process.attached.iter_mut().filter(repeat);
        if let Some(earlier) = earlier
            .into_iter()
            .find(|a| a.area.is_some() == area.is_some())
        {
            if earlier.area == area {
                let mapped = process.mapped.contains_key(&key.page);
                // Own memory is looked at before the attachment is.
                if area.is_none() && !mapped {
                    return None;
                }
                earlier.count += 1;
                return Some(earlier.address);
            }
            earlier.invalid = true;
        }
        let frames = match area {
            Some(area) => self.areas[&area].frames.clone(),
            None => {
                let (frames, writable) = self.range(who, key.page, key.pages)?;
                writable.then_some(frames)?
            }
        };
        let address = if vemva {
            BASE + to * M64
        } else {
            self.vehva(who, key.pages)?
        };
        let life = self.processes[&who].life;
        if let Some(area) = area.and_then(|area| self.areas.get_mut(&area)) {
            area.attachers.insert(life);
        }
        let process = self.processes.get_mut(&who)?;
        if vemva {
            for (page, frame) in (to..).zip(&frames) {
                process.mapped.insert(page, (*frame, key.flags & 1 == 0));
            }
        }
        process.attached.push(Attached {
            key,
            area,
            vemva,
            address,
            pages: key.pages,
            frames,
            count: 1,
            invalid: false,
        });
        Some(address)
    }

    fn detach(&mut self, who: usize, address: u64, vemva: bool, local: bool) -> bool {
        let Some(process) = self.processes.get_mut(&who) else {
            return false;
        };
        let found = |a: &Attached| a.address == address && a.vemva == vemva;
        let Some(index) = process.attached.iter().position(found) else {
            return false;
        };
        if process.attached[index].count > 1 {
            process.attached[index].count -= 1;
            return true;
        }
        let gone = process.attached.remove(index);
        if vemva {
            let first = (address - BASE) / M64;
            (first..first + gone.pages).for_each(|page| {
                process.mapped.remove(&page);
            });
        }
        let (life, still) = (process.life, |a: &Attached| a.area == gone.area);
        if let Some(area) = gone.area.filter(|_| !local)
            && !process.attached.iter().any(still)
            && let Some(area) = self.areas.get_mut(&area)
        {
            area.attachers.remove(&life);
        }
        self.sweep();
        true
    }

    fn free_memory(&mut self, who: usize, page: u64, pages: u64) -> bool {
        let process = self.processes.get_mut(&who).expect("process");
        let attached = process.attached.iter().filter(|a| a.vemva).any(|a| {
            let first = (a.address - BASE) / M64;
            page < first + a.pages && first < page + pages
        });
        let all = (page..page + pages).all(|p| process.mapped.contains_key(&p));
        if attached || !all {
            return false;
        }
        (page..page + pages).for_each(|p| {
            process.mapped.remove(&p);
        });
        true
    }

    fn leave(&mut self, who: usize) {
        let Some(process) = self.processes.remove(&who) else {
            return;
        };
        for area in self.areas.values_mut() {
            if area.owner == process.life {
                (area.reg, area.closed) = (0, true);
            }
            area.attachers.remove(&process.life);
        }
        self.sweep();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Space {
    Vemva,
    Vehva,
    Local,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate {
        page: u64,
        pages: u64,
    },
    Free {
        page: u64,
        pages: u64,
    },
    Open {
        page: u64,
        pages: u64,
        flags: i64,
    },
    /// The n-th area of this process, else what is named.
    Close {
        which: usize,
        page: u64,
        pages: u64,
        flags: i64,
    },
    /// The n-th area of this process: closed, then opened again.
    Renew(usize),
    /// Of the n-th area there is, else of what is named.
    Attach {
        which: usize,
        owner: usize,
        page: u64,
        pages: u64,
        flags: i64,
        space: Space,
        to: u64,
    },
    /// The n-th attachment, or an address that is none.
    Detach {
        which: usize,
        local: bool,
    },
    Leave,
    Join,
    StopVe(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..5_u64, 1..4_u64);
    let flags = || prop::sample::select(vec![0x4_i64, 0x4, 0x5, 0x1000, 0x1001]);
    let space = prop::sample::select(vec![Space::Vemva, Space::Vehva, Space::Vehva, Space::Local]);
    prop_oneof![
        8 => range().prop_map(|(page, pages)| Step::Allocate { page, pages }),
        3 => range().prop_map(|(page, pages)| Step::Free { page, pages }),
        8 => (range(), flags()).prop_map(|((page, pages), flags)| Step::Open { page, pages, flags }),
        4 => (0..4_usize, range(), flags()).prop_map(|(which, (page, pages), flags)| Step::Close { which, page, pages, flags }),
        16 => (0..5_usize, 0..5_usize, range(), flags(), space, 5..12_u64).prop_map(
            |(which, owner, (page, pages), flags, space, to)| Step::Attach { which, owner, page, pages, flags, space, to }
        ),
        6 => (0..3_usize).prop_map(Step::Renew),
        8 => (0..6_usize, prop::bool::weighted(0.3)).prop_map(|(which, local)| Step::Detach { which, local }),
        1 => Just(Step::Leave),
        3 => Just(Step::Join),
        1 => prop_oneof![9 => Just(9_u32), 1 => 0..2_u32].prop_map(Step::StopVe),
    ]
}

/// The service and the model side by side.
struct Pair {
    node: Node,
    model: Model,
    ids: BTreeMap<usize, ProcessId>,
}

impl Pair {
    fn ask(&self, who: usize, request: Request) -> Result<Body, Errno> {
        let reply = self.node.service().handle(self.ids[&who], request);
        reply.map(|reply| reply.body)
    }

    fn join(&mut self, who: usize) -> bool {
        let (ve, uid) = PLACES[who];
        let life = self.model.number();
        let pid = 10 + who as i32;
        let joined = self.node.service().join(pid, life, uid, Some(ve));
        if self.model.stopped.contains(&ve) {
            return joined == Err(Errno::Enotsup);
        }
        if let Ok(id) = joined {
            self.model.leave(who);
            let process = ModelProcess {
                life,
                mapped: BTreeMap::new(),
                attached: Vec::new(),
            };
            self.model.processes.insert(who, process);
            self.ids.insert(who, id);
        }
        joined.is_ok()
    }

    /// Binds handed-over frames at a page and tells their numbers.
    fn bind(&mut self, who: usize, body: Body, page: u64) -> Option<Vec<u64>> {
        let Body::Frames { ticket, frames } = body else {
            return None;
        };
        let vemva = Vemva::new(BASE + page * M64);
        let bound = self.ask(who, Request::Bind { ticket, vemva });
        (bound == Ok(Body::Bound { vemva })).then(|| numbers(&frames))
    }

    /// Does a step on both sides; true if they agree.
    fn step(&mut self, who: usize, step: Step) -> bool {
        let pid = 10 + who as i32;
        let area = |page: u64, pages: u64, flags: i64| Area {
            vemva: Vemva::new(BASE + page * M64),
            size: pages * M64,
            syncnum: 0,
            mode: Mode::new(flags),
        };
        let key = |pid, page, pages, flags| Key {
            pid,
            page,
            pages,
            flags,
        };
        match step {
            Step::Join => return self.join(who),
            Step::Leave => {
                self.node.service().leave(self.ids[&who]);
                self.model.leave(who);
                return true;
            }
            Step::StopVe(ve) => {
                self.node.service().stop_ve(ve);
                if ve < 2 {
                    self.model.stopped.insert(ve);
                    let here = (0..PLACES.len()).filter(|who| PLACES[*who].0 == ve);
                    here.for_each(|who| self.model.leave(who));
                    self.model.areas.retain(|_, area| area.ve != ve);
                }
                return true;
            }
            _ => {}
        }
        if !self.model.processes.contains_key(&who) {
            let answer = self.ask(who, Request::Open(area(0, 1, 4)));
            return answer == Err(Errno::Ecanceled);
        }
        match step {
            Step::Allocate { page, pages } => self.allocate(who, page, pages),
            Step::Free { page, pages } => {
                let len = pages * M64;
                let vemva = Vemva::new(BASE + page * M64);
                let answer = self.ask(who, Request::Free { vemva, len });
                answer.is_ok() == self.model.free_memory(who, page, pages)
            }
            Step::Open { page, pages, flags } => {
                let answer = self.ask(who, Request::Open(area(page, pages, flags)));
                answer.is_ok() == self.model.open(who, key(pid, page, pages, flags))
            }
            Step::Close {
                which,
                page,
                pages,
                flags,
            } => {
                let life = self.model.processes[&who].life;
                let mut own = self.model.areas.values().filter(|a| a.owner == life);
                let named = key(pid, page, pages, flags);
                let key = own.nth(which).map_or(named, |area| area.key);
                let area = area(key.page, key.pages, key.flags);
                let answer = self.ask(who, Request::Close(area));
                answer.is_ok() == self.model.close(who, key)
            }
            Step::Attach {
                which,
                owner,
                page,
                pages,
                flags,
                space,
                to,
            } => {
                let named = key(10 + owner as i32, page, pages, flags);
                let there = self.model.areas.values().nth(which);
                let key = match space {
                    Space::Local => key(pid, page, pages, 0),
                    _ => there.map_or(named, |area| area.key),
                };
                let area = area(key.page, key.pages, key.flags);
                self.attach(who, key, area, space, to)
            }
            Step::Detach { which, local } => {
                let attached = &self.model.processes[&who].attached;
                let found = attached.get(which).map(|a| (a.address, a.vemva));
                let (address, vemva) = found.unwrap_or((BASE + 99 * M64, false));
                let local = local && !vemva;
                let mode = match (vemva, local) {
                    (true, _) => Mode::VEMVA,
                    (false, false) => Mode::VEHVA,
                    (false, true) => Mode::MEM_LOCAL,
                };
                let answer = self.ask(who, Request::Detach { address, mode });
                answer.is_ok() == self.model.detach(who, address, vemva, local)
            }
            Step::Renew(which) => {
                let life = self.model.processes[&who].life;
                let mut own = self.model.areas.values().filter(|a| a.owner == life);
                let Some(key) = own.nth(which).map(|area| area.key) else {
                    return true;
                };
                let area = area(key.page, key.pages, key.flags);
                let closed = self.ask(who, Request::Close(area)).is_ok();
                let opened = self.ask(who, Request::Open(area)).is_ok();
                closed == self.model.close(who, key) && opened == self.model.open(who, key)
            }
            Step::Join | Step::Leave | Step::StopVe(_) => true,
        }
    }

    fn allocate(&mut self, who: usize, page: u64, pages: u64) -> bool {
        let request = Request::Allocate {
            len: pages * M64,
            page: PageSize::M64,
        };
        let room = self.model.free(PLACES[who].0).0 >= pages * M64;
        let answer = self.ask(who, request);
        let Ok(body) = answer else { return !room };
        let mapped = &self.model.processes[&who].mapped;
        let free = (page..page + pages).all(|p| !mapped.contains_key(&p));
        let bound = self.bind(who, body, page);
        let process = self.model.processes.get_mut(&who).expect("process");
        let frames = bound.iter().flatten().map(|frame| (*frame, true));
        process.mapped.extend((page..).zip(frames));
        room && bound.is_some() == free
    }

    fn attach(&mut self, who: usize, key: Key, area: Area, space: Space, to: u64) -> bool {
        let (bit, mut to) = match space {
            Space::Vemva => (Mode::VEMVA, to),
            Space::Vehva => (Mode::VEHVA, to),
            Space::Local => (Mode::MEM_LOCAL, to),
        };
        // What the kernel does for a process: it maps where nothing is.
        let mapped = &self.model.processes[&who].mapped;
        while (to..to + key.pages).any(|page| mapped.contains_key(&page)) {
            to += 1;
        }
        let mode = area.mode.with(bit);
        let request = Request::Attach {
            pid: key.pid,
            area: Area { mode, ..area },
        };
        let answer = self.ask(who, request);
        let expected = self.model.attach(who, key, space, to);
        match answer {
            Ok(body @ Body::Frames { .. }) => {
                self.bind(who, body, to).is_some() && expected == Some(BASE + to * M64)
            }
            Ok(Body::Bound { vemva }) => expected == Some(vemva.raw()),
            Ok(Body::Vehva { vehva, .. }) => expected.map(Vehva::new) == Some(vehva),
            Ok(_) => false,
            Err(_) => expected.is_none(),
        }
    }
}

fn numbers(frames: &Frames) -> Vec<u64> {
    let pages = |run: &windlass_ve::Run| {
        let first = run.offset.raw() / M64;
        first..first + run.len / M64
    };
    frames.runs.iter().flat_map(pages).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_service_equals_a_naive_model(
        steps in prop::collection::vec((0..5_usize, step()), 1..300),
    ) {
        let mut pair = Pair { node: Node::new(TINY), model: Model::default(), ids: BTreeMap::new() };
        for who in 0..PLACES.len() {
            prop_assert!(pair.join(who));
        }
        for (number, (who, step)) in steps.into_iter().enumerate() {
            prop_assert!(pair.step(who, step), "step {}: {} {:?}\n{:#?}", number, who, step, pair.model);
            for ve in 0..2 {
                let free = pair.node.service().free_resources(ve);
                prop_assert_eq!(free, Some(pair.model.free(ve)), "step {}: {} {:?} on VE {}", number, who, step, ve);
            }
        }
        for id in pair.ids.values() {
            pair.node.service().leave(*id);
        }
        for ve in 0..2 {
            let all = (TINY.memory_bytes, SLOTS, DIRECTORIES);
            prop_assert_eq!(pair.node.service().free_resources(ve), Some(all));
        }
    }
}
