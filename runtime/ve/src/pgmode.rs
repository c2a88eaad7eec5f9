//! The page-mode query (ve-memory.md section 5.5).

use crate::addr::{PageSize, Vehva, Vemva};
use crate::errno::Errno;
use crate::fixed::fixed_end;
use crate::refusal::Refusal;
use crate::request::{Body, PageMode, Reply};
use crate::service::{ProcessId, Service};

impl Service {
    /// `ve_get_pgmode` (section 5.5).
    pub(crate) fn page_mode(
        &self,
        id: ProcessId,
        mode: PageMode,
        pid: i32,
        address: u64,
    ) -> Result<Reply, Refusal> {
        self.ived_connected()?;
        let nobody = Errno::Esrch.by(
            "pid must be a process of this VE, for VE_ADDR_PCI of any VE that runs (ve-memory 5.5)",
        );
        let target = self
            .by_pid
            .get(&pid)
            .and_then(|target| self.processes.get(target));
        let own_ve = self.processes.get(&id).and_then(|process| process.ve);
        let here = target.filter(|target| target.ve.is_some() && target.ve == own_ve);
        let page = match mode {
            PageMode::VEMVA => {
                let target = here.ok_or(nobody)?;
                target.atb.page(Vemva::new(address)).map(|page| page.size)
            }
            PageMode::VEHVA => {
                let target = here.ok_or(nobody)?;
                let fixed = address < fixed_end(target.dmades);
                let fixed = fixed.then_some(PageSize::K4);
                fixed.or_else(|| target.dmaatb.page_at(Vehva::new(address)))
            }
            PageMode::PCI => {
                self.ived_reachable()?;
                let ve = target.and_then(|target| target.ve).ok_or(nobody)?;
                let running = self.node(ve).is_some_and(|node| node.running);
                Some(self.profile.pciatb_page())
                    .filter(|_| running)
                    .ok_or(nobody)
                    .map(Some)?
            }
            _ => {
                let rule = "the mode must be exactly one of VE_ADDR_VEMVA, VE_ADDR_VEHVA and VE_ADDR_PCI (ve-memory 5.5)";
                return Err(Errno::Einval.by(rule));
            }
        };
        page.map(|page| Body::Page(page.bytes()).into()).ok_or(
            self.profile
                .errno
                .pick(Errno::Einval, Errno::Efault)
                .by("something must be mapped at the address in that space (ve-memory 5.5)"),
        )
    }
}
