//! What a process asks VEOS and IVED, and what they answer.
//!
//! A request is an allegation: every number in it is checked by the service before it is used. An encoded request or reply
//! stays below 64 KiB: frames travel as runs of the VE's memory file, at most [`crate::frames::MAX_RUNS`] of them.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_mem::MemFile;

use crate::addr::{PageSize, Vehva, Vemva};
use crate::frames::Run;
use crate::profile::Profile;

/// A mode flag of the VESHM calls (section 3.1), unchecked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Mode(i64);

impl Mode {
    /// VE_SHM_RO: read-only area.
    pub const READ_ONLY: Self = Self(0x1);
    /// VE_PCISYNC: sync bit in the PCIATB slots.
    pub const PCISYNC: Self = Self(0x2);
    /// VE_REGISTER_PCI: the area is in the PCIATB.
    pub const PCI: Self = Self(0x4);
    /// VE_MAP_256MB: VE3 only.
    pub const MAP_256MB: Self = Self(0x10);
    /// VE_SWAPPABLE: partial process swapping.
    pub const SWAPPABLE: Self = Self(0x20);
    /// VE_REGISTER_NONE: not in the PCIATB.
    pub const NONE: Self = Self(0x1000);
    /// VE_REGISTER_VEMVA: map into the attacher's VEMVA.
    pub const VEMVA: Self = Self(0x2000);
    /// VE_REGISTER_VEHVA: map into the attacher's VEHVA.
    pub const VEHVA: Self = Self(0x4000);
    /// VE_MEM_LOCAL: the caller's own memory into its VEHVA.
    pub const MEM_LOCAL: Self = Self(0x8000);
    /// The bits that are part of an area's identity.
    pub const IDENTITY: Self = Self(0x1 | 0x2 | 0x4 | 0x10);

    /// A mode as a caller wrote it.
    pub const fn new(raw: i64) -> Self {
        Self(raw)
    }

    /// The number.
    pub const fn raw(self) -> i64 {
        self.0
    }

    /// Both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Only the bits that `other` has too.
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// True if all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if a bit outside `legal` is set (the system bits of section 3.1 included).
    pub const fn beyond(self, legal: Self) -> bool {
        self.0 & !legal.0 != 0
    }

    /// How many bits of `other` are set.
    pub const fn count(self, other: Self) -> u32 {
        (self.0 & other.0).count_ones()
    }
}

/// A page-mode query of `ve_get_pgmode` (section 3.2), unchecked: 1 VEMVA, 2 VEHVA, 4 PCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PageMode(pub i64);

impl PageMode {
    /// VE_ADDR_VEMVA.
    pub const VEMVA: Self = Self(1);
    /// VE_ADDR_VEHVA.
    pub const VEHVA: Self = Self(2);
    /// VE_ADDR_PCI.
    pub const PCI: Self = Self(4);
}

/// Names frames that the service holds for a process until it has mapped them, or for as long as a transfer window lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// A request of one process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Who am I here? Answer: [`Body::Welcome`].
    Hello,
    /// The default page size the executable was linked with; 64 MiB where it is never said. With 2 MiB the VESHM calls are
    /// ENOTSUP (section 5.0). Answer: [`Body::Done`].
    Linked {
        /// 2 or 64 MiB.
        page: PageSize,
    },
    /// A thread begins, EAGAIN where one too many, or ends (section 1). The first thread is counted. Answer: [`Body::Done`].
    Thread {
        /// Begins, else ends.
        begins: bool,
    },
    /// `ve_map_dmades`, or its inverse: descriptor table H in VEHVA (section 2.2). Answer: [`Body::Done`].
    Dmades {
        /// Map, else unmap.
        mapped: bool,
    },
    /// The memory file of this process's user on a VE that it has frames of. Answer: [`Body::Memory`] with one file.
    Memory {
        /// Number of the VE.
        ve: u32,
    },
    /// New VE memory, zeroed. Answer: [`Body::Frames`]; then map it and send [`Request::Bind`].
    Allocate {
        /// Length, rounded up to whole pages.
        len: u64,
        /// Page size of VE memory: 2 or 64 MiB.
        page: PageSize,
    },
    /// The frames of the ticket are mapped at `vemva`: enter them into the ATB. Answer: [`Body::Bound`].
    Bind {
        /// From [`Body::Frames`].
        ticket: Ticket,
        /// Where the process mapped them.
        vemva: Vemva,
    },
    /// Drop the frames of a ticket: they could not be mapped, or a transfer window ends. Answer: [`Body::Done`].
    Release {
        /// From [`Body::Frames`].
        ticket: Ticket,
    },
    /// Unmap own VE memory. Answer: [`Body::Done`].
    Free {
        /// First page.
        vemva: Vemva,
        /// Length, whole pages.
        len: u64,
    },
    /// Change the write permission of own VE memory in the ATB. Answer: [`Body::Done`].
    Protect {
        /// First page.
        vemva: Vemva,
        /// Length, whole pages.
        len: u64,
        /// New permission.
        writable: bool,
    },
    /// `ve_shared_mem_open` (section 5.1). Answer: [`Body::Done`].
    Open(Area),
    /// `ve_shared_mem_attach` (section 5.2). Answer: [`Body::Frames`] (VEMVA, first time), [`Body::Bound`] (VEMVA, repeated)
    /// or [`Body::Vehva`].
    Attach {
        /// The owner's process id.
        pid: i32,
        /// What to attach.
        area: Area,
    },
    /// `ve_shared_mem_detach` (section 5.3). Answer: [`Body::Detached`].
    Detach {
        /// A VEMVA or VEHVA, as the mode says.
        address: u64,
        /// One of VEMVA, VEHVA, MEM_LOCAL.
        mode: Mode,
    },
    /// `ve_shared_mem_close` (section 5.4). Answer: [`Body::Done`].
    Close(Area),
    /// `ve_get_pgmode` (section 5.5). Answer: [`Body::Page`].
    PageMode {
        /// Which space.
        mode: PageMode,
        /// Which process.
        pid: i32,
        /// Which address.
        address: u64,
    },
    /// The DMAATB part of `vh_shmat` (section 7.2), after the process has attached the segment itself. Answer: [`Body::Vehva`].
    SegmentAttach {
        /// The System V segment.
        shmid: i32,
        /// Its length.
        len: u64,
        /// False with SHM_RDONLY.
        writable: bool,
        /// The process's finding: all pages are huge pages of ordinary memory.
        huge: bool,
    },
    /// The DMAATB part of `vh_shmdt` (section 7.3). Answer: [`Body::Detached`].
    SegmentDetach {
        /// From the attach.
        vehva: Vehva,
    },
    /// A VH process reaches VE memory by privileged transfers (VEO, section 12). Answer: [`Body::Frames`]; the frames stay until
    /// [`Request::Release`].
    Veo {
        /// The VE process.
        pid: i32,
        /// Its memory.
        vemva: Vemva,
        /// Length in bytes.
        len: u64,
    },
    /// By which rule was the last request refused that was? Answer: [`Body::Why`].
    Why,
}

/// The arguments that name a VESHM area in open, attach and close.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Area {
    /// Start in the owner's address space.
    pub vemva: Vemva,
    /// Length in bytes: never rounded.
    pub size: u64,
    /// Sync register pair; ignored without PCISYNC.
    pub syncnum: i32,
    /// Flags.
    pub mode: Mode,
}

/// Frames to map: ranges of one VE's memory file, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frames {
    /// Whose memory file.
    pub ve: u32,
    /// The ranges.
    pub runs: Vec<Run>,
    /// Page size of the mapping: its natural alignment in VEMVA.
    pub page: PageSize,
    /// Write permission.
    pub writable: bool,
}

/// What a process learns at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Its process id.
    pub pid: i32,
    /// Its VE, or `None` for a VH process.
    pub ve: Option<u32>,
    /// Number of VEs of this VH.
    pub ves: u32,
    /// Parameters of every VE.
    pub profile: Profile,
}

/// The part of an answer that is encoded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// Done.
    Done,
    /// To [`Request::Hello`].
    Welcome(Welcome),
    /// To [`Request::Memory`]; the file is passed beside it.
    Memory {
        /// Length of the file.
        len: u64,
        /// Whose file it is to the kernel: the service's user where the service may not give it away.
        owner: u32,
    },
    /// Frames held for the process under a ticket.
    Frames {
        /// For Bind and Release.
        ticket: Ticket,
        /// What to map.
        frames: Frames,
    },
    /// Mapped in VEMVA. If the address is not the one that was to be bound, the area was attached already: use it.
    Bound {
        /// Where the memory is.
        vemva: Vemva,
    },
    /// Registered in the DMAATB.
    Vehva {
        /// Where.
        vehva: Vehva,
        /// Page size of the entries.
        page: PageSize,
        /// New entries lead here; `None` for a repeated attach and for a System V segment.
        frames: Option<Frames>,
    },
    /// Detached.
    Detached {
        /// True if the mapping is gone; false if the counter is still above zero, or nothing was to do.
        last: bool,
    },
    /// A page size in bytes.
    Page(u64),
    /// A rule, with its section; empty where the errno says all there is.
    Why(String),
}

/// An answer: what is encoded, and the files that are passed beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The encoded part.
    pub body: Body,
    #[serde(skip)]
    files: Vec<Arc<MemFile>>,
}

impl From<Body> for Reply {
    fn from(body: Body) -> Self {
        Self {
            body,
            files: Vec::new(),
        }
    }
}

impl Reply {
    /// An answer with a file.
    pub fn with_file(body: Body, file: Arc<MemFile>) -> Self {
        Self {
            body,
            files: vec![file],
        }
    }

    /// The files to pass, in order. Empty at the receiver, who gets them from its connection.
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        self.files.iter().map(|file| file.as_fd()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_section_3_1() {
        let all = [
            (Mode::READ_ONLY, 0x1),
            (Mode::PCISYNC, 0x2),
            (Mode::PCI, 0x4),
            (Mode::MAP_256MB, 0x10),
            (Mode::SWAPPABLE, 0x20),
            (Mode::NONE, 0x1000),
            (Mode::VEMVA, 0x2000),
            (Mode::VEHVA, 0x4000),
            (Mode::MEM_LOCAL, 0x8000),
        ];
        for (mode, raw) in all {
            assert_eq!(mode.raw(), raw);
        }
        assert!(Mode::new(1 << 40).beyond(Mode::new(0xFFFF_FFFF)));
        assert_eq!(
            Mode::PCI.with(Mode::NONE).count(Mode::PCI.with(Mode::NONE)),
            2
        );
    }
}
