//! Memory that a process has already and that becomes VE memory where it is: frames for addresses of the caller's choice.
//!
//! VEOS enters the frames first, so that nothing can fail once the memory is in them; until an area is opened over them
//! nobody else reaches them. How memory is moved into frames is not known here (`windlass_mem::reback::place`).

use std::sync::Arc;

use windlass_mem::MemFile;

use crate::addr::{PageSize, Vemva};
use crate::error::Error;
use crate::frames::Run;
use crate::process::{Process, Result};
use crate::request::{Body, Request};

impl Process {
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
}
