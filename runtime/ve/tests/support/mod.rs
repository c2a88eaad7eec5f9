//! A node of two small VEs in this process, and processes on it under invented pids.
#![allow(dead_code, reason = "each test program uses a part")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_ve::{
    Config, Direct, Errno, ErrnoProfile, Mode, Modes, PageSize, Process, Profile, Service, VeMemory,
};

pub const M2: u64 = 2 << 20;
pub const M64: u64 = 64 << 20;
pub const UID: u32 = 1000;

/// VE1 with 4 GiB and 15 usable PCIATB slots, so that tests can fill its tables.
pub const SMALL: Profile = Profile {
    memory_bytes: 4 << 30,
    bar0_bytes: 16 * M64,
    ..Profile::VE1
};

pub struct Node {
    service: Arc<Mutex<Service>>,
    profile: Profile,
}

impl Node {
    pub fn new(profile: Profile) -> Self {
        let service = Service::new(Config { ves: 2, profile }).expect("memory files");
        let service = Arc::new(Mutex::new(service));
        Self { service, profile }
    }

    /// The answer of this node's column where the two of section 11 differ.
    pub fn column(&self, implemented: Errno, documented: Errno) -> Errno {
        match self.profile.errno {
            ErrnoProfile::Implemented => implemented,
            ErrnoProfile::Documented => documented,
        }
    }

    pub fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn process(&self, pid: i32, ve: u32) -> Process {
        self.process_of(pid, Some(ve), UID)
    }

    /// Owner (pid 10) and neighbour (11) on VE 0, and one on VE 1 (12).
    pub fn three(&self) -> [Process; 3] {
        [(10, 0), (11, 0), (12, 1)].map(|(pid, ve)| self.process(pid, ve))
    }

    pub fn process_of(&self, pid: i32, ve: Option<u32>, uid: u32) -> Process {
        let control = Direct::join(Arc::clone(&self.service), pid, 1, uid, ve).expect("join");
        Process::join(Arc::new(control)).expect("process")
    }

    pub fn process_in(&self, pid: i32, ve: u32, modes: Modes) -> Process {
        let control = Direct::join(Arc::clone(&self.service), pid, 1, UID, Some(ve)).expect("join");
        Process::join_with(Arc::new(control), modes).expect("process")
    }

    pub fn direct(&self, pid: i32, ve: u32) -> Direct {
        Direct::join(Arc::clone(&self.service), pid, 1, UID, Some(ve)).expect("join")
    }

    /// Nothing is used any more on any VE.
    pub fn assert_empty(&self) {
        let service = self.service();
        for ve in 0..service.ves() {
            let slots = self.profile.pciatb_slots() as usize - 1;
            let directories = self.profile.shared_directories() as usize;
            assert_eq!(
                service.free_resources(ve),
                Some((self.profile.memory_bytes, slots, directories))
            );
        }
    }
}

pub fn memory(process: &Process, pages: u64) -> VeMemory {
    process
        .alloc((pages * M64) as usize, PageSize::M64)
        .expect("VE memory")
}

/// The same, all of it open as one PCI area.
pub fn open_area(owner: &Process, pages: u64) -> VeMemory {
    let area = memory(owner, pages);
    let opened = owner.veshm_open(area.vemva, pages * M64, 0, Mode::PCI);
    opened.expect("open");
    area
}

pub fn errno<T: std::fmt::Debug>(outcome: Result<T, windlass_ve::Error>) -> Errno {
    outcome.expect_err("must be refused").errno()
}

pub fn read<const N: usize>(bytes: &windlass_mem::SharedBytes, at: usize) -> [u8; N] {
    let mut seen = [0; N];
    bytes.read(at, &mut seen).expect("read");
    seen
}
