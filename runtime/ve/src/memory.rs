//! VE memory in the service: allocation, and the hand-over of frames to a process (ve-memory.md sections 2.4 and 2.6).
//!
//! Frames go to a process under a ticket: it maps them, then tells where. Whoever holds frames (a ticket or a table entry)
//! holds a reference on each.

use crate::addr::{PageSize, Vemva};
use crate::errno::Errno;
use crate::frames::runs_of;
use crate::registry::{Attachment, Key};
use crate::request::{Body, Frames, Reply, Ticket};
use crate::service::{Held, MAX_TICKETS, ProcessId, Resident, Service, Use, node_mut};

impl Resident {
    /// True if a VEMVA attachment lies in the range: it ends by detach only.
    fn attached(&self, start: Vemva, len: u64) -> bool {
        self.attachments
            .iter()
            .filter(|attachment| attachment.in_vemva)
            .any(|attachment| {
                let end = attachment.address.saturating_add(attachment.key.size);
                start.raw() < end && attachment.address < start.raw().saturating_add(len)
            })
    }
}

impl Service {
    pub(crate) fn allocate(
        &mut self,
        id: ProcessId,
        len: u64,
        page: PageSize,
    ) -> Result<Reply, Errno> {
        if !matches!(page, PageSize::M2 | PageSize::M64) || len == 0 {
            return Err(Errno::Einval);
        }
        let ve = self.ve_of(id)?;
        let user = self.processes.get(&id).ok_or(Errno::Ecanceled)?.uid;
        let node = node_mut(&mut self.nodes, ve).ok_or(Errno::Ecanceled)?;
        let pages = page.pages(len);
        let frames = node.frames.allocate(user, page, pages)?;
        // No overflow: that many pages were found in memory.
        let held = Held {
            ve,
            frames,
            page,
            writable: true,
            purpose: Use::Own,
        };
        self.hand_over(id, held, pages * page.bytes())
    }

    /// Gives frames, on which the caller has taken references, to a process under a ticket; drops them on failure.
    pub(crate) fn hand_over(
        &mut self,
        id: ProcessId,
        held: Held,
        len: u64,
    ) -> Result<Reply, Errno> {
        let room = self
            .processes
            .get(&id)
            .is_some_and(|process| process.tickets.len() < MAX_TICKETS);
        let runs = if room {
            runs_of(&held.frames, held.page, len)
        } else {
            Err(Errno::Enomem)
        };
        let (Ok(runs), Some(process)) = (runs, self.processes.get_mut(&id)) else {
            self.drop_held(id, &held);
            return Err(Errno::Enomem);
        };
        let frames = Frames {
            ve: held.ve,
            runs,
            page: held.page,
            writable: held.writable,
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        process.tickets.insert(ticket, held);
        Ok(Body::Frames { ticket, frames }.into())
    }

    pub(crate) fn bind(
        &mut self,
        id: ProcessId,
        ticket: Ticket,
        vemva: Vemva,
    ) -> Result<Reply, Errno> {
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        let held = process.tickets.remove(&ticket).ok_or(Errno::Einval)?;
        match Self::enter(process, &held, vemva) {
            Ok(bound) if bound == vemva => Ok(Body::Bound { vemva }.into()),
            Ok(earlier) => {
                // Attached twice at once: the earlier mapping counts both, these frames are surplus.
                self.release_frames(held.ve, &held.frames, held.page);
                Ok(Body::Bound { vemva: earlier }.into())
            }
            Err(errno) => {
                self.drop_held(id, &held);
                Err(errno)
            }
        }
    }

    /// Enters handed-over frames into the ATB and gives the address where they are.
    fn enter(process: &mut Resident, held: &Held, vemva: Vemva) -> Result<Vemva, Errno> {
        let in_use = |attachment: &&mut Attachment, key: &Key, area: u64| {
            attachment.in_vemva
                && !attachment.invalid
                && attachment.key == *key
                && attachment.area == Some(area)
        };
        if let Use::Attach { key, area } = &held.purpose
            && let Some(attachment) = process
                .attachments
                .iter_mut()
                .find(|a| in_use(a, key, *area))
        {
            attachment.again()?;
            return Ok(Vemva::new(attachment.address));
        }
        let pages = u64::try_from(held.frames.len()).map_err(|_| Errno::Enomem)?;
        let len = pages.checked_mul(held.page.bytes()).ok_or(Errno::Enomem)?;
        let legal =
            vemva.raw() != 0 && vemva.is_aligned(held.page) && !process.atb.overlaps(vemva, len);
        if !legal || matches!(held.purpose, Use::Veo) {
            return Err(Errno::Einval);
        }
        process
            .atb
            .map(vemva, held.page, &held.frames, held.writable)
            .map_err(|_| Errno::Enomem)?;
        if let Use::Attach { key, area } = &held.purpose {
            process
                .attachments
                .push(Attachment::new(*key, Some(*area), true, vemva.raw()));
        }
        Ok(vemva)
    }

    pub(crate) fn release_ticket(&mut self, id: ProcessId, ticket: Ticket) -> Result<Reply, Errno> {
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        let held = process.tickets.remove(&ticket).ok_or(Errno::Einval)?;
        self.drop_held(id, &held);
        Ok(Body::Done.into())
    }

    fn drop_held(&mut self, id: ProcessId, held: &Held) {
        self.release_frames(held.ve, &held.frames, held.page);
        if let Use::Attach { area, .. } = held.purpose {
            self.drop_reference(id, area);
        }
    }

    pub(crate) fn free(&mut self, id: ProcessId, vemva: Vemva, len: u64) -> Result<Reply, Errno> {
        let ve = self.ve_of(id)?;
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        if process.attached(vemva, len) {
            return Err(Errno::Einval);
        }
        let pages = process.atb.unmap(vemva, len).ok_or(Errno::Einval)?;
        for page in pages {
            self.release_frames(ve, &[page.frame], page.size);
        }
        Ok(Body::Done.into())
    }

    pub(crate) fn protect(
        &mut self,
        id: ProcessId,
        vemva: Vemva,
        len: u64,
        writable: bool,
    ) -> Result<Reply, Errno> {
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        if process.attached(vemva, len) || !process.atb.protect(vemva, len, writable) {
            return Err(Errno::Einval);
        }
        Ok(Body::Done.into())
    }
}
