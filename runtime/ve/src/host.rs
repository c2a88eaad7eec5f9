//! Host memory and host processes, at the process: VH-VE SHM (ve-memory.md section 7) and VEO windows (section 12).

use std::fmt;
use std::sync::Arc;

use rustix::io::Errno as System;
use windlass_mem::{SharedBytes, sysv};

use crate::addr::{PageSize, Vehva, Vemva};
use crate::errno::Errno;
use crate::error::Error;
use crate::process::{Process, Result};
use crate::request::{Body, Request};
use crate::translate::{Entry, Kind};
use crate::veo::VeoMemory;

/// A System V segment attached by `vh_shmat`.
#[derive(Clone)]
pub struct Segment {
    /// The identifier that `vh_shmdt` takes: an address in this process.
    pub address: usize,
    /// Where the VE reaches it.
    pub vehva: Vehva,
    /// The segment itself, as the pseudo process sees it.
    pub bytes: SharedBytes,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            vehva,
            bytes,
        } = self;
        write!(
            f,
            "Segment {{ address: {address:#x}, vehva: {vehva}, len: {} }}",
            bytes.len()
        )
    }
}

/// System V flags of section 3.5 that the calls judge.
const SHM_HUGETLB: i32 = 0x800;
const IPC_CREATING: i32 = 0x200 | 0x400 | 0x1000;
const SHM_RDONLY: i32 = 0x1000;
const SHM_RND_REMAP_EXEC: i32 = 0x2000 | 0x4000 | 0x8000;
const IPC_PRIVATE: i32 = 0;

impl Process {
    /// `vh_shmget` (section 7.1): finds a segment, never makes one.
    pub fn vh_shmget(&self, key: i32, size: usize, flags: i32) -> Result<i32> {
        let call = "vh_shmget";
        let broken = [
            (
                key == IPC_PRIVATE,
                "key must not be IPC_PRIVATE (ve-memory 7.1)",
            ),
            (
                flags & SHM_HUGETLB == 0,
                "shmflag must have SHM_HUGETLB (ve-memory 7.1)",
            ),
            (
                flags & IPC_CREATING != 0,
                "shmflag must have none of IPC_CREAT, IPC_EXCL and SHM_NORESERVE: segments are made on the host (ve-memory 7.1)",
            ),
        ];
        if let Some((_, rule)) = broken.into_iter().find(|(is, _)| *is) {
            return Err(self.refuse(call, Errno::Einval, rule));
        }
        sysv::find(key, size, flags).map_err(|error| self.shm_refused(call, &error))
    }

    /// `vh_shmat` (section 7.2): attaches a huge-page segment here and registers it in the DMAATB. Every attach gives a new
    /// address and a new VEHVA. `flags` may have SHM_RDONLY.
    pub fn vh_shmat(&self, shmid: i32, flags: i32) -> Result<Segment> {
        let call = "vh_shmat";
        if flags & SHM_RND_REMAP_EXEC != 0 {
            let rule = "shmflag must be 0 or SHM_RDONLY (ve-memory 7.2)";
            return Err(self.refuse(call, Errno::Einval, rule));
        }
        let mut state = self.state();
        let writable = flags & SHM_RDONLY == 0;
        let attachment = sysv::Attachment::new(shmid, !writable);
        let attachment = attachment.map_err(|error| self.shm_refused(call, &error))?;
        // The whole segment, rounded up to its pages; what goes wrong from here on is not a fault of the arguments.
        let canceled = |_| Error::refused(call, Errno::Ecanceled);
        let (bytes, pages) = attachment.whole_pages().map_err(canceled)?;
        let page = PageSize::M2;
        // One size for the whole segment: a System V segment is huge-page backed as a whole or not at all.
        let huge = pages as u64 == page.bytes();
        let request = Request::SegmentAttach {
            shmid,
            len: bytes.len() as u64,
            writable,
            huge,
        };
        let Body::Vehva { vehva, .. } = self.call(call, request)?.0 else {
            return Err(Error::Protocol { call });
        };
        let address = bytes.addr();
        state.segments.insert(address, vehva);
        self.enter(Entry {
            start: vehva,
            page,
            writable,
            kind: Kind::Segment,
            sync: false,
            bytes: bytes.clone(),
        });
        Ok(Segment {
            address,
            vehva,
            bytes,
        })
    }

    /// `vh_shmdt` (section 7.3): exactly an address of an attach of this process.
    pub fn vh_shmdt(&self, address: usize) -> Result<()> {
        let call = "vh_shmdt";
        let mut state = self.state();
        let Some(vehva) = state.segments.get(&address).copied() else {
            let rule = "shmaddr must be exactly what vh_shmat has answered (ve-memory 7.3)";
            return Err(self.refuse(call, Errno::Einval, rule));
        };
        self.give_up(call, vehva, Request::SegmentDetach { vehva })?;
        state.segments.remove(&address);
        Ok(())
    }

    /// A window on the memory of a VE process for privileged transfers by this VH process (section 12).
    pub fn veo_attach(&self, pid: i32, vemva: Vemva, len: usize) -> Result<VeoMemory> {
        let call = "VEO attach";
        let mut state = self.state();
        let (body, _) = self.call(
            call,
            Request::Veo {
                pid,
                vemva,
                len: len as u64,
            },
        )?;
        let Body::Frames { ticket, frames } = body else {
            return Err(Error::Protocol { call });
        };
        // From here on the ticket is returned however this ends.
        let window = VeoMemory::new(Arc::clone(&self.control), ticket);
        let whole = self.map(&mut state, call, &frames, PageSize::M2)?;
        let lead = usize::try_from(vemva.raw() & (frames.page.bytes() - 1)).unwrap_or(usize::MAX);
        let bytes = whole
            .slice(lead, len)
            .map_err(|source| Error::Memory { call, source })?;
        Ok(window.over(bytes))
    }

    /// The rows of sections 7.1 and 7.2 that shmget(2) and shmat(2) decide.
    fn shm_refused(&self, call: &'static str, error: &windlass_mem::Error) -> Error {
        let (errno, rule) = match error.errno() {
            Some(System::NOENT) => (Errno::Enoent, "there must be a segment of that key"),
            Some(System::ACCESS) => (
                Errno::Eacces,
                "the segment's permissions must grant the access",
            ),
            Some(System::NOMEM) => (
                Errno::Enomem,
                "the host must have address space for the mapping",
            ),
            Some(System::IDRM) => (Errno::Eidrm, "the segment must not be removed"),
            _ => (
                Errno::Einval,
                "there must be a segment of that number, not smaller than size",
            ),
        };
        self.refuse(call, errno, &format!("{rule} (ve-memory 7.1, 7.2)"))
    }
}
