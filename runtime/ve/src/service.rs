//! The part of VEOS and IVED in one place: who is running, whose memory is where, which tables are full.
//!
//! One [`Service`] holds all VEs of a VH. Whoever hosts it authenticates the processes, calls [`Service::join`] for each,
//! [`Service::handle`] for each request and [`Service::leave`] when a process ends, however it ends: frames outlive their
//! owner until the last reference goes (sections 2.6 and 6). It trusts no request: numbers are checked, loops are bounded by tables.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::addr::{PageSize, Vemaa};
use crate::atb::{Atb, Directories, Entries, Leads, ProcessDmaatb};
use crate::errno::Errno;
use crate::frames::FramePool;
use crate::pciatb::Pciatb;
use crate::profile::Profile;
use crate::refusal::Refusal;
use crate::registry::{Attachment, Key, Registry};
use crate::request::{Body, Reply, Request, Ticket, Welcome};

/// What a service is made of.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of VEs, at most [`MAX_VES`].
    pub ves: u32,
    /// Parameters of each.
    pub profile: Profile,
}

/// VEs of one VH (section 1).
pub const MAX_VES: u32 = 8;
/// Hand-overs one process may have open at once.
pub const MAX_TICKETS: usize = 1024;
/// Areas one process may have, so that their records stay small beside the memory they describe.
pub const MAX_AREAS: usize = 2048;
/// Attachments one process may hold.
pub const MAX_ATTACHMENTS: usize = 16_384;

/// Names a process for the life of a service; never reused, unlike a pid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProcessId(u64);

/// How well IVED can be reached (global failures of section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ived {
    /// It answers.
    Connected,
    /// Connected, but its answers are lost: ECANCELED.
    Unreachable,
    /// VEOS has no connection: ENOTSUP.
    Absent,
}

/// One VE: its memory and the tables that its processes share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) frames: FramePool,
    pub(crate) dmaatb: Directories<ProcessId>,
    pub(crate) pciatb: Pciatb,
    pub(crate) running: bool,
}

/// What a ticket's frames are for.
#[derive(Clone, Debug)]
pub(crate) enum Use {
    /// New memory of the process.
    Own,
    /// A VESHM area that is being attached to VEMVA.
    Attach { key: Key, area: u64 },
    /// A transfer window of a VH process.
    Veo,
}

/// Frames held for a process.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) ve: u32,
    pub(crate) frames: Vec<Vemaa>,
    pub(crate) page: PageSize,
    pub(crate) writable: bool,
    pub(crate) purpose: Use,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) uid: u32,
    pub(crate) ve: Option<u32>,
    pub(crate) atb: Atb,
    pub(crate) dmaatb: ProcessDmaatb,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) tickets: BTreeMap<Ticket, Held>,
    /// Linked with the 2 MiB default page size.
    pub(crate) linked_small: bool,
    pub(crate) swapped: bool,
    /// Descriptor table H is in VEHVA.
    pub(crate) dmades: bool,
    pub(crate) threads: u32,
    /// By which its last refused request was refused.
    pub(crate) rule: &'static str,
}

/// VEOS of every VE, and IVED.
#[derive(Debug)]
pub struct Service {
    pub(crate) profile: Profile,
    pub(crate) nodes: Vec<Node>,
    pub(crate) processes: BTreeMap<ProcessId, Resident>,
    pub(crate) by_pid: BTreeMap<i32, ProcessId>,
    pub(crate) registry: Registry,
    pub(crate) ived: Ived,
    next_process: u64,
    pub(crate) next_ticket: u64,
}

/// Processes that a stop of a VE concerns (section 6, last rows).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stopped {
    /// They ran on the VE: it is gone under them.
    pub ended: Vec<i32>,
    /// They ran on other VEs, attached to an area of this one: SIGKILL.
    pub killed: Vec<i32>,
}

impl Service {
    /// All VEs of a VH, running, with empty memory.
    pub fn new(config: Config) -> Result<Self, windlass_mem::Error> {
        let Config { ves, profile } = config;
        let own = rustix::process::geteuid().as_raw();
        let nodes = (0..ves.min(MAX_VES))
            .map(|ve| {
                let name = format!("windlass-ve{ve}");
                Ok(Node {
                    frames: FramePool::new(name, profile.memory_bytes, own)?,
                    dmaatb: Directories::new(profile.shared_directories()),
                    pciatb: Pciatb::new(&profile),
                    running: true,
                })
            })
            .collect::<Result<_, windlass_mem::Error>>()?;
        Ok(Self {
            profile,
            nodes,
            processes: BTreeMap::new(),
            by_pid: BTreeMap::new(),
            registry: Registry::default(),
            ived: Ived::Connected,
            next_process: 1,
            next_ticket: 1,
        })
    }

    /// Number of VEs.
    pub fn ves(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(MAX_VES)
    }

    /// Makes IVED reachable or not, for tests of the global failures.
    pub fn set_ived(&mut self, ived: Ived) {
        self.ived = ived;
    }

    /// A process begins: `ve` is its VE, `None` for a VH process. The pid must be the one the kernel reports for the peer, with
    /// its start time. A pid seen before belongs to a process that ended unnoticed, which leaves first.
    ///
    /// EINVAL: no such VE; ENOTSUP: that VE is stopped; ENOMEM: the VE is full; EBUSY: this very process joined already.
    pub fn join(
        &mut self,
        pid: i32,
        start_time: u64,
        uid: u32,
        ve: Option<u32>,
    ) -> Result<ProcessId, Errno> {
        if let Some(ve) = ve {
            let running = self.node(ve).ok_or(Errno::Einval)?.running;
            if !running {
                return Err(Errno::Enotsup);
            }
            let there = || self.processes.values().filter(|p| p.ve == Some(ve));
            let threads: u32 = there().map(|process| process.threads).sum();
            let processes = u32::try_from(there().count()).unwrap_or(u32::MAX);
            if processes >= self.profile.max_processes || threads >= self.profile.max_threads {
                return Err(Errno::Enomem);
            }
        }
        if let Some(old) = self.by_pid.get(&pid).copied() {
            if self
                .processes
                .get(&old)
                .is_some_and(|process| process.start_time == start_time)
            {
                return Err(Errno::Ebusy);
            }
            self.leave(old);
        }
        let id = ProcessId(self.next_process);
        self.next_process += 1;
        let resident = Resident {
            pid,
            start_time,
            uid,
            ve,
            atb: Atb::new(&self.profile),
            dmaatb: ProcessDmaatb::new(),
            attachments: Vec::new(),
            tickets: BTreeMap::new(),
            linked_small: false,
            swapped: false,
            dmades: false,
            threads: 1,
            rule: "",
        };
        self.processes.insert(id, resident);
        self.by_pid.insert(pid, id);
        Ok(id)
    }

    /// A process ended: by exit, by execve or killed (section 6). Its areas close, its attachments and memory go; frames that
    /// others still reach stay.
    pub fn leave(&mut self, id: ProcessId) {
        let Some(mut process) = self.processes.remove(&id) else {
            return;
        };
        if self.by_pid.get(&process.pid) == Some(&id) {
            self.by_pid.remove(&process.pid);
        }
        for area in self.registry.owner_left(id) {
            self.erase_area(area);
        }
        for area in self.registry.attacher_left(id) {
            self.erase_area(area);
        }
        for held in std::mem::take(&mut process.tickets).into_values() {
            self.release_frames(held.ve, &held.frames, held.page);
        }
        if let Some(ve) = process.ve {
            for start in process.dmaatb.starts() {
                let Some(node) = node_mut(&mut self.nodes, ve) else {
                    continue;
                };
                let entries = process
                    .dmaatb
                    .unmap(&mut node.dmaatb, id, &self.profile, start);
                self.release_entries(ve, entries);
            }
            for page in process.atb.drain() {
                self.release_frames(ve, &[page.frame], page.size);
            }
        }
        let user = process.uid;
        if !self.processes.values().any(|other| other.uid == user) {
            for node in &mut self.nodes {
                node.frames.forget_user(user);
            }
        }
    }

    /// Stops VEOS of a VE: its processes leave, all its areas vanish. The host must end the processes named in the answer.
    pub fn stop_ve(&mut self, ve: u32) -> Stopped {
        let mut stopped = Stopped::default();
        let Some(node) = node_mut(&mut self.nodes, ve) else {
            return stopped;
        };
        node.running = false;
        let (here, attachers) = (self.residents_of(ve), self.registry.attachers_of(ve));
        for id in attachers.difference(&here) {
            stopped
                .killed
                .extend(self.processes.get(id).map(|process| process.pid));
        }
        for id in here {
            stopped
                .ended
                .extend(self.processes.get(&id).map(|process| process.pid));
            self.leave(id);
        }
        for area in self.registry.areas_of(ve) {
            self.erase_area(area);
        }
        stopped
    }

    fn residents_of(&self, ve: u32) -> BTreeSet<ProcessId> {
        self.processes
            .iter()
            .filter(|(_, process)| process.ve == Some(ve))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Carries out one request of a process.
    pub fn handle(&mut self, id: ProcessId, request: Request) -> Result<Reply, Errno> {
        self.carry_out(id, request)
            .map_err(|Refusal { errno, rule }| {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.rule = rule;
                }
                errno
            })
    }

    fn carry_out(&mut self, id: ProcessId, request: Request) -> Result<Reply, Refusal> {
        Ok(match request {
            Request::Hello => self.welcome(id)?,
            Request::Linked { page } => self.linked(id, page)?,
            Request::Thread { begins } => self.thread(id, begins)?,
            Request::Dmades { mapped } => self.dmades(id, mapped)?,
            Request::Memory { ve } => self.memory(id, ve)?,
            Request::Allocate { len, page } => self.allocate(id, len, page)?,
            Request::Bind { ticket, vemva } => self.bind(id, ticket, vemva)?,
            Request::Release { ticket } => self.release_ticket(id, ticket)?,
            Request::Free { vemva, len } => self.free(id, vemva, len)?,
            Request::Protect {
                vemva,
                len,
                writable,
            } => self.protect(id, vemva, len, writable)?,
            Request::Open(area) => self.open(id, area)?,
            Request::Attach { pid, area } => self.attach(id, pid, area)?,
            Request::Detach { address, mode } => self.detach(id, address, mode)?,
            Request::Close(area) => self.close(id, area)?,
            Request::PageMode { mode, pid, address } => self.page_mode(id, mode, pid, address)?,
            Request::SegmentAttach {
                shmid,
                len,
                writable,
                huge,
            } => self.segment_attach(id, shmid, len, writable, huge)?,
            Request::SegmentDetach { vehva } => self.segment_detach(id, vehva)?,
            Request::Veo { pid, vemva, len } => self.veo(id, pid, vemva, len)?,
            Request::Why => self.why(id)?,
        })
    }

    fn welcome(&self, id: ProcessId) -> Result<Reply, Errno> {
        let process = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        let (ves, profile) = (self.ves(), self.profile);
        Ok(Body::Welcome(Welcome {
            pid: process.pid,
            ve: process.ve,
            ves,
            profile,
        })
        .into())
    }

    /// Only those who have been given frames of the VE get a file of it: that of their own user.
    fn memory(&mut self, id: ProcessId, ve: u32) -> Result<Reply, Errno> {
        let process = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        let attached = |attachment: &Attachment| {
            attachment
                .area
                .and_then(|area| self.registry.area(area))
                .is_some_and(|area| area.ve == ve)
        };
        let entitled = process.ve == Some(ve)
            || process.tickets.values().any(|held| held.ve == ve)
            || process.attachments.iter().any(attached);
        if !entitled {
            return Err(Errno::Eacces);
        }
        let user = process.uid;
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Einval)?;
        let file = node.frames.file(user)?;
        let stat = rustix::fs::fstat(&*file).map_err(|_| Errno::Ecanceled)?;
        let body = Body::Memory {
            len: file.len(),
            owner: stat.st_uid,
        };
        Ok(Reply::with_file(body, file))
    }

    /// What the executable was linked for (section 5.0): of a VE process only.
    fn linked(&mut self, id: ProcessId, page: PageSize) -> Result<Reply, Errno> {
        self.ve_of(id)?;
        if !matches!(page, PageSize::M2 | PageSize::M64) {
            return Err(Errno::Einval);
        }
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        process.linked_small = page == PageSize::M2;
        Ok(Body::Done.into())
    }

    /// The VE a process runs on; ECANCELED for one that VEOS does not know.
    pub(crate) fn ve_of(&self, id: ProcessId) -> Result<u32, Errno> {
        self.processes
            .get(&id)
            .and_then(|process| process.ve)
            .ok_or(Errno::Ecanceled)
    }

    pub(crate) fn node(&self, ve: u32) -> Option<&Node> {
        usize::try_from(ve)
            .ok()
            .and_then(|index| self.nodes.get(index))
    }

    pub(crate) fn release_frames(&mut self, ve: u32, frames: &[Vemaa], page: PageSize) {
        if let Some(node) = node_mut(&mut self.nodes, ve) {
            for frame in frames {
                node.frames.release(*frame, page.bytes());
            }
        }
    }

    pub(crate) fn release_entries(&mut self, ve: u32, entries: Option<Entries>) {
        if let Some(Entries {
            page,
            leads: Leads::Frames(frames),
            ..
        }) = entries
        {
            self.release_frames(ve, &frames, page);
        }
    }

    /// Free memory of a VE in bytes, and its free PCIATB slots and DMAATB directories.
    pub fn free_resources(&self, ve: u32) -> Option<(u64, usize, usize)> {
        let node = self.node(ve)?;
        let free = node.frames.free_frames() as u64 * PageSize::M2.bytes();
        Some((free, node.pciatb.free(), node.dmaatb.left()))
    }
}

pub(crate) fn node_mut(nodes: &mut [Node], ve: u32) -> Option<&mut Node> {
    usize::try_from(ve)
        .ok()
        .and_then(|index| nodes.get_mut(index))
}
