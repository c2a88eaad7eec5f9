//! Host memory and VH processes in the service: the DMAATB part of VH-VE SHM (ve-memory.md section 7) and the windows
//! of VEO transfers (section 12).
//!
//! `vh_shmget` needs no service, and `vh_shmat` attaches the segment in the process first: see [`crate::Process`].

use crate::addr::{PageSize, Vehva, Vemva};
use crate::atb::{Entries, Leads};
use crate::errno::Errno;
use crate::refusal::Refusal;
use crate::request::{Body, Reply};
use crate::service::{Held, Ived, ProcessId, Service, Use, node_mut};

impl Service {
    /// The last rows of section 7.2: IVED, huge pages, directories. Two attaches of one segment give two VEHVAs.
    pub(crate) fn segment_attach(
        &mut self,
        id: ProcessId,
        shmid: i32,
        len: u64,
        writable: bool,
        huge: bool,
    ) -> Result<Reply, Refusal> {
        let ve = self.ve_of(id)?;
        if self.ived == Ived::Absent {
            return Err(Errno::Enotsup.by("VEOS has no connection to IVED (ve-memory 7.2)"));
        }
        if !huge {
            let rule = "the segment must be on huge pages, made by shmget with SHM_HUGETLB (ve-memory 7.2)";
            return Err(Errno::Efault.by(rule));
        }
        let page = PageSize::M2;
        let entries = Entries {
            page,
            pages: page.pages(len),
            leads: Leads::Segment(shmid),
            writable,
        };
        let full =
            Errno::Enomem.by("no VEHVA or no directory of the DMAATB is left (ve-memory 7.2)");
        let vehva = self.map_entries(id, ve, entries).map_err(|_| full)?;
        Ok(Body::Vehva {
            vehva,
            page,
            frames: None,
        }
        .into())
    }

    /// Section 7.3: only the start of a segment's entries is accepted.
    pub(crate) fn segment_detach(&mut self, id: ProcessId, vehva: Vehva) -> Result<Reply, Errno> {
        let ve = self.ve_of(id)?;
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        let is_segment = |entries: &Entries| matches!(entries.leads, Leads::Segment(_));
        if !process.dmaatb.run(vehva).is_some_and(is_segment) {
            return Err(Errno::Einval);
        }
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Ecanceled)?;
        process
            .dmaatb
            .unmap(&mut node.dmaatb, id, &self.profile, vehva);
        Ok(Body::Detached { last: true }.into())
    }

    /// A window on the memory of a VE process for privileged transfers. VEO drives the VE processes of its own user only:
    /// EACCES otherwise. ESRCH: no such VE process; EFAULT: not all mapped with pages of one size; ENOTSUP: the caller is a VE process.
    pub(crate) fn veo(
        &mut self,
        id: ProcessId,
        pid: i32,
        vemva: Vemva,
        len: u64,
    ) -> Result<Reply, Errno> {
        let caller = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        if caller.ve.is_some() {
            return Err(Errno::Enotsup);
        }
        let target = self
            .by_pid
            .get(&pid)
            .and_then(|target| self.processes.get(target))
            .ok_or(Errno::Esrch)?;
        let ve = target.ve.ok_or(Errno::Esrch)?;
        if target.uid != caller.uid {
            return Err(Errno::Eacces);
        }
        let start = target
            .atb
            .page(vemva)
            .map(|page| vemva.page_start(page.size))
            .ok_or(Errno::Efault)?;
        let lead = vemva.offset_from(start).ok_or(Errno::Efault)?;
        let whole = lead.checked_add(len).ok_or(Errno::Efault)?;
        let (page, frames, writable) = target.atb.frames(start, whole).ok_or(Errno::Efault)?;
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Ecanceled)?;
        for frame in &frames {
            node.frames.retain(*frame, page.bytes());
        }
        // The runs are whole pages: the process cuts off the bytes before `vemva` and after the end.
        let mapped = page.pages(whole) * page.bytes();
        self.hand_over(
            id,
            Held {
                ve,
                frames,
                page,
                writable,
                purpose: Use::Veo,
            },
            mapped,
        )
    }
}
