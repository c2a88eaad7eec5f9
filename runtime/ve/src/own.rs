//! Memory that a process has already and that becomes VE memory where it is: frames for addresses of the caller's choice.
//!
//! VEOS enters the frames first, so that nothing can fail once the memory is in them; until an area is opened over them
//! nobody else reaches them. How memory is moved into frames is not known here (`windlass_mem::reback::place`).

use std::sync::Arc;

use windlass_mem::MemFile;

use crate::addr::{PageSize, Vemva};
use crate::attach::check_attach_flags;
use crate::errno::Errno;
use crate::error::Error;
use crate::frames::Run;
use crate::process::{Process, Result};
use crate::request::{Area, Body, Mode, Request};
use crate::veshm::check_open_flags;

impl Process {
    /// What `ve_shared_mem_open` answers to these arguments whatever memory is there, so that none is moved in vain: linkage, and
    /// the rows of section 5.1 on flags, numbers and alignment. The service is not asked.
    ///
    /// # Errors
    /// ENOTSUP: linked with 2 MiB pages; ECANCELED: not a VE process; EINVAL and ENOMEM as in section 5.1.
    pub fn check_open(&self, area: &Area) -> Result<(), Errno> {
        self.check_linkage()?;
        check_open_flags(area, self.profile())?;
        if area.vemva.raw() == 0 || area.size == 0 {
            return Err(Errno::Einval);
        }
        self.ve().ok_or(Errno::Ecanceled)?;
        let align = if area.mode.has(Mode::PCI) {
            self.profile().pciatb_page()
        } else {
            PageSize::M2
        };
        check_place(area, align)?;
        if is_beyond(area) {
            return Err(self.profile().errno.pick(Errno::Enomem, Errno::Einval));
        }
        Ok(())
    }

    /// The same for `ve_shared_mem_attach` with VE_MEM_LOCAL, of the caller's own pid (section 5.2).
    ///
    /// # Errors
    /// ENOTSUP: linked with 2 MiB pages; ECANCELED: not a VE process; EINVAL and ENOMEM as in section 5.2.
    pub fn check_local(&self, area: &Area) -> Result<(), Errno> {
        self.check_linkage()?;
        self.ve().ok_or(Errno::Ecanceled)?;
        check_attach_flags(area.mode, self.profile())?;
        if !area.mode.has(Mode::MEM_LOCAL) {
            return Err(Errno::Einval);
        }
        check_place(area, PageSize::M2)?;
        if area.size == 0 || is_beyond(area) {
            return Err(Errno::Enomem);
        }
        Ok(())
    }

    fn check_linkage(&self) -> Result<(), Errno> {
        if self.state().linked_small {
            return Err(Errno::Enotsup);
        }
        Ok(())
    }

    /// New zeroed frames for `len` bytes from `vemva` on, whole pages of 2 or 64 MiB, entered in the ATB. The caller maps the
    /// runs of the file over that range.
    ///
    /// # Errors
    /// EINVAL: misaligned, or VE memory already; ENOMEM: no frames, or no ATB directory; ECANCELED: not a VE process.
    pub fn frames_at(
        &self,
        vemva: Vemva,
        len: u64,
        page: PageSize,
    ) -> Result<(Arc<MemFile>, Vec<Run>)> {
        let call = "VE memory in place";
        let mut state = self.state();
        let Body::Frames { ticket, frames } = self.call(call, Request::Allocate { len, page })?.0
        else {
            return Err(Error::Protocol { call });
        };
        let file = match self.memory_file(&mut state, call, frames.ve) {
            Ok(file) => file,
            Err(error) => {
                // Nothing to do if this fails too: the service drops the ticket with the process.
                let _ = self.call(call, Request::Release { ticket });
                return Err(error);
            }
        };
        match self.call(call, Request::Bind { ticket, vemva })?.0 {
            Body::Bound { vemva: bound } if bound == vemva => Ok((file, frames.runs)),
            _ => Err(Error::Protocol { call }),
        }
    }

    /// The program has unmapped `len` bytes from `vemva` on, of [`Process::frames_at`]: whole pages. Frames that are still
    /// registered or exported stay (section 2.6).
    ///
    /// # Errors
    /// EINVAL: not VE memory of this process.
    pub fn frames_gone(&self, vemva: Vemva, len: u64) -> Result<()> {
        let _order = self.state();
        self.call("VE memory unmapped", Request::Free { vemva, len })
            .map(drop)
    }

    /// The program has changed the right to write to own VE memory: whole pages.
    ///
    /// # Errors
    /// EINVAL: not VE memory of this process.
    pub fn protect(&self, vemva: Vemva, len: u64, writable: bool) -> Result<()> {
        let _order = self.state();
        let request = Request::Protect {
            vemva,
            len,
            writable,
        };
        self.call("VE memory protection", request).map(drop)
    }
}

/// The smallest alignment that memory at the address can have.
fn check_place(area: &Area, align: PageSize) -> Result<(), Errno> {
    if area.vemva.raw() == 0 || !area.vemva.is_aligned(align) || !align.divides(area.size) {
        return Err(Errno::Einval);
    }
    Ok(())
}

/// No address space holds it.
fn is_beyond(area: &Area) -> bool {
    i64::try_from(area.size).is_err() || area.vemva.checked_add(area.size).is_none()
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{Config, Direct, Errno, Mode, Profile, Service};

    const M64: u64 = 64 << 20;

    #[test]
    fn frames_are_entered_where_the_caller_says_and_go_when_it_says() {
        let service = Service::new(Config {
            ves: 1,
            profile: Profile::VE1,
        })
        .unwrap();
        let free = service.free_resources(0).unwrap();
        let service = Arc::new(Mutex::new(service));
        let join = |pid| Direct::join(Arc::clone(&service), pid, 1, 0, Some(0)).unwrap();
        let process = Process::join(Arc::new(join(1))).unwrap();
        let at = Vemva::new(5 * M64);
        let (file, runs) = process.frames_at(at, 2 * M64, PageSize::M64).unwrap();
        assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), 2 * M64);
        assert!(runs.iter().all(|run| run.offset.raw() < file.len()));
        let refused = process.frames_at(at, M64, PageSize::M64).unwrap_err();
        assert_eq!(refused.errno(), Errno::Einval);
        process.veshm_open(at, M64, 0, Mode::PCI).unwrap();
        process.protect(at, M64, false).unwrap();
        let next = Vemva::new(6 * M64);
        process.veshm_open(next, M64, 0, Mode::PCI).unwrap();
        process.veshm_close(at, M64, 0, Mode::PCI).unwrap();
        let refused = process.veshm_open(at, M64, 0, Mode::PCI).unwrap_err();
        assert_eq!(refused.errno(), Errno::Eacces);
        process.frames_gone(at, 2 * M64).unwrap();
        let refused = process.veshm_open(next, M64, 0, Mode::NONE).unwrap_err();
        assert_eq!(refused.errno(), Errno::Einval);
        process.veshm_close(next, M64, 0, Mode::PCI).unwrap();
        assert_eq!(service.lock().unwrap().free_resources(0), Some(free));
    }

    #[test]
    fn what_is_checked_before_memory_moves_is_what_the_service_answers() {
        let service = Service::new(Config {
            ves: 1,
            profile: Profile::VE1,
        })
        .unwrap();
        let service = Arc::new(Mutex::new(service));
        let join = |pid, ve| Direct::join(Arc::clone(&service), pid, 1, 0, ve).unwrap();
        let process = Process::join(Arc::new(join(1, Some(0)))).unwrap();
        let host = Process::join(Arc::new(join(2, None))).unwrap();
        let at = Vemva::new(4 * M64);
        process.frames_at(at, M64, PageSize::M64).unwrap();
        let modes = [
            0,
            0x4,
            0x5,
            0x6,
            0x7,
            0x8,
            0x14,
            0x24,
            0x1000,
            0x1001,
            0x1002,
            0x1004,
            0x1020,
            0x8000,
            0x8001,
            0x8004,
            0x9000,
            0x8010,
            0xC000,
            0xA000,
            1 << 40,
        ];
        let starts = [0, 1, 4 * M64, 4 * M64 + 4096];
        let sizes = [0, 1, M64, M64 + 4096, 1 << 63, 0_u64.wrapping_sub(M64)];
        let mut legal = 0;
        let mut compare = |who: &Process| {
            for (mode, start) in modes.into_iter().flat_map(|m| starts.map(|s| (m, s))) {
                for (size, syncnum) in sizes.into_iter().flat_map(|s| [0, 4].map(|n| (s, n))) {
                    let (vemva, mode) = (Vemva::new(start), Mode::new(mode));
                    let area = Area {
                        vemva,
                        size,
                        syncnum,
                        mode,
                    };
                    let open = who.veshm_open(vemva, size, syncnum, mode);
                    let open = open.map_err(|refused| refused.errno());
                    assert_eq!(who.check_open(&area), open, "open {area:?}");
                    legal += i32::from(open.is_ok());
                    if mode.has(Mode::VEMVA) || mode.has(Mode::VEHVA) {
                        continue;
                    }
                    let local = who.veshm_attach(who.pid(), vemva, size, syncnum, mode);
                    let local = local.map(drop).map_err(|refused| refused.errno());
                    assert_eq!(who.check_local(&area), local, "attach {area:?}");
                    legal += i32::from(local.is_ok());
                }
            }
        };
        compare(&process);
        process.linked_with(PageSize::M2).unwrap();
        compare(&process);
        compare(&host);
        // PCI, its read-only form, both with SYNC of pair 0, and swappable; NONE and its read-only form; own memory twice.
        assert_eq!(legal, 2 * 3 + 2 + 2 * 2 + 2 * 2);
    }
}
