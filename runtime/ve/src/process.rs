//! A process on the emulated node: the library side of VESHM, VH-VE SHM and user DMA.
//!
//! Control calls go to the service through a [`Control`]; what a transfer needs is kept here, so the data plane never asks
//! anybody. The VEMVA of memory is the numeric address of its mapping in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use windlass_mem::{MemFile, SharedBytes};

use crate::addr::{PageSize, Vehva, Vemva};
use crate::dma::Dma;
use crate::errno::Errno;
use crate::error::{CallError, Error, from_call};
use crate::fixed::{RawTables, system_call_page};
use crate::modes::{Modes, Rule};
use crate::profile::Profile;
use crate::request::{Area, Body, Frames, Mode, PageMode, Reply, Request, Welcome};
use crate::translate::{Entry, Kind, Table};

/// The way to the service.
pub trait Control: Send + Sync {
    /// Sends a request and waits for the answer, with the files passed beside it.
    fn call(&self, request: Request) -> Result<(Reply, Vec<OwnedFd>), CallError>;
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Memory of a VE in the address space of this process: allocated here, or attached from a process on the same VE.
#[derive(Clone)]
pub struct VeMemory {
    /// Where: the numeric address of `bytes`.
    pub vemva: Vemva,
    /// The memory.
    pub bytes: SharedBytes,
    /// Its page size.
    pub page: PageSize,
}

impl fmt::Debug for VeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VeMemory")
            .field("vemva", &self.vemva)
            .field("len", &self.bytes.len())
            .field("page", &self.page)
            .finish()
    }
}

/// Where `ve_shared_mem_attach` has put an area.
#[derive(Clone, Debug)]
pub enum Attached {
    /// In this process's address space: for loads and stores.
    Vemva(VeMemory),
    /// In its DMAATB: for DMA, LHM and SHM.
    Vehva(Vehva),
}

/// What the control plane of this process knows; its lock also keeps control calls one after the other.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<u32, Arc<MemFile>>,
    /// Memory in VEMVA: allocated, and attached.
    pub(crate) memory: BTreeMap<Vemva, VeMemory>,
    /// Segments by address.
    pub(crate) segments: BTreeMap<usize, Vehva>,
    /// How often each VEHVA of VESHM was attached: VEOS removes its entries with the last detach.
    pub(crate) attached: BTreeMap<Vehva, u32>,
    /// Linked with the 2 MiB default page size.
    pub(crate) linked_small: bool,
}

/// One process on the emulated node: on a VE, or on the VH (which has VEO transfers only).
///
/// `Send + Sync`: control calls are serialised, transfers share the engine's lock as documented. What the service holds
/// for the process goes when its connection ends.
pub struct Process {
    // Before the connection: what is on its way arrives while the frames are still this process's.
    dma: Dma,
    pub(crate) control: Arc<dyn Control>,
    welcome: Welcome,
    state: Mutex<State>,
    table: Arc<RwLock<Table>>,
    pub(crate) raw: RawTables,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("welcome", &self.welcome)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// Begins, over a connection that the service has accepted, in the modes that the environment asks for.
    pub fn join(control: Arc<dyn Control>) -> Result<Self> {
        Self::join_with(control, Modes::from_env()?)
    }

    /// Begins in the modes given.
    pub fn join_with(control: Arc<dyn Control>, modes: Modes) -> Result<Self> {
        let call = "VE process start";
        let (reply, _) = control
            .call(Request::Hello)
            .map_err(|error| from_call(call, error))?;
        let Body::Welcome(welcome) = reply.body else {
            return Err(Error::Protocol { call });
        };
        let mut table = Table::new(welcome.profile);
        if welcome.ve.is_some() {
            table.insert(system_call_page());
        }
        let table = Arc::new(RwLock::new(table));
        let dma = Dma::new(Arc::clone(&table), &modes);
        if let Some(reorder) = modes.reorder.filter(|reorder| !reorder.by_hand) {
            dma.start_helper(reorder)
                .map_err(|_| Error::refused(call, Errno::Eagain))?;
        }
        Ok(Self {
            control,
            welcome,
            state: Mutex::default(),
            table,
            dma,
            raw: RawTables::default(),
        })
    }

    /// This process's id, by which others attach its areas.
    pub fn pid(&self) -> i32 {
        self.welcome.pid
    }

    /// The VE it runs on; `None` on the VH.
    pub fn ve(&self) -> Option<u32> {
        self.welcome.ve
    }

    /// VEs of this VH.
    pub fn ves(&self) -> u32 {
        self.welcome.ves
    }

    /// Parameters of the VEs.
    pub fn profile(&self) -> &Profile {
        &self.welcome.profile
    }

    /// The DMA engine.
    pub fn dma(&self) -> &Dma {
        &self.dma
    }

    pub(crate) fn table(&self) -> &RwLock<Table> {
        &self.table
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn call(
        &self,
        call: &'static str,
        request: Request,
    ) -> Result<(Body, Vec<OwnedFd>)> {
        let asked = self.dma.trap().and_then(|_| request.arguments());
        match self.control.call(request) {
            Ok((reply, files)) => Ok((reply.body, files)),
            Err(CallError::Errno(errno)) => {
                let rule = self.why(asked);
                Err(Error::Refused { call, errno, rule })
            }
            Err(error) => Err(from_call(call, error)),
        }
    }

    /// Says with which default page size the executable was linked: with 2 MiB all VESHM calls but `ve_get_pgmode` are ENOTSUP
    /// (section 5.0).
    pub fn linked_with(&self, page: PageSize) -> Result<()> {
        let mut state = self.state();
        self.call("VE process start", Request::Linked { page })?;
        state.linked_small = page == PageSize::M2;
        Ok(())
    }

    /// `ve_shared_mem_open` (section 5.1): makes `[vemva, vemva + size)` an area that others can attach.
    pub fn veshm_open(&self, vemva: Vemva, size: u64, syncnum: i32, mode: Mode) -> Result<()> {
        let area = Area {
            vemva,
            size,
            syncnum,
            mode,
        };
        let _order = self.state();
        self.call("ve_shared_mem_open", Request::Open(area))
            .map(drop)
    }

    /// `ve_shared_mem_close` (section 5.4), with the arguments of an open.
    pub fn veshm_close(&self, vemva: Vemva, size: u64, syncnum: i32, mode: Mode) -> Result<()> {
        let area = Area {
            vemva,
            size,
            syncnum,
            mode,
        };
        let _order = self.state();
        self.call("ve_shared_mem_close", Request::Close(area))
            .map(drop)
    }

    /// `ve_shared_mem_attach` (section 5.2). Repeated attaches give the same address and count.
    pub fn veshm_attach(
        &self,
        pid: i32,
        vemva: Vemva,
        size: u64,
        syncnum: i32,
        mode: Mode,
    ) -> Result<Attached> {
        let call = "ve_shared_mem_attach";
        let mut state = self.state();
        let area = Area {
            vemva,
            size,
            syncnum,
            mode,
        };
        let (body, _) = self.call(call, Request::Attach { pid, area })?;
        match body {
            Body::Frames { .. } => self
                .bind(&mut state, call, &body, false)
                .map(Attached::Vemva),
            Body::Bound { vemva } => {
                let known = state.memory.get(&vemva).cloned();
                known.map(Attached::Vemva).ok_or(Error::Protocol { call })
            }
            Body::Vehva {
                vehva,
                frames: None,
                ..
            } => {
                *state.attached.entry(vehva).or_insert(0) += 1;
                Ok(Attached::Vehva(vehva))
            }
            Body::Vehva {
                vehva,
                page,
                frames: Some(frames),
            } => {
                self.map_vehva(&mut state, call, &area, (vehva, page), &frames)?;
                state.attached.insert(vehva, 1);
                Ok(Attached::Vehva(vehva))
            }
            _ => Err(Error::Protocol { call }),
        }
    }

    /// Maps what new entries lead to, and enters it; on failure the attachment is given back.
    fn map_vehva(
        &self,
        state: &mut State,
        call: &'static str,
        area: &Area,
        (start, page): (Vehva, PageSize),
        frames: &Frames,
    ) -> Result<()> {
        let local = area.mode.has(Mode::MEM_LOCAL);
        let own = if local {
            own_memory(state, area.vemva, area.size)
        } else {
            None
        };
        let mapped = match own {
            Some(bytes) => Ok(bytes),
            None => self.map(state, call, frames, PageSize::M2),
        };
        let bytes = mapped.inspect_err(|_| {
            let mode = if local { Mode::MEM_LOCAL } else { Mode::VEHVA };
            let address = start.raw();
            let _ = self.call(call, Request::Detach { address, mode });
        })?;
        let kind = if local { Kind::Own } else { Kind::Remote };
        self.enter(Entry {
            start,
            page,
            writable: frames.writable,
            kind,
            sync: area.mode.has(Mode::PCISYNC),
            bytes,
        });
        Ok(())
    }

    pub(crate) fn enter(&self, entry: Entry) {
        self.table
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(entry);
    }

    /// Asks VEOS to give up entries that go with this call. They are taken out of the table first: the frames behind them may
    /// belong to another process before the answer comes. They are back if VEOS keeps them.
    pub(crate) fn give_up(
        &self,
        call: &'static str,
        vehva: Vehva,
        request: Request,
    ) -> Result<Body> {
        let entry = self.dma.unmap(vehva);
        let outcome = self.call(call, request);
        let gone = matches!(outcome, Ok((Body::Detached { last: true }, _)));
        if let Some(entry) = entry.filter(|_| !gone) {
            self.enter(entry);
        }
        outcome.map(|(body, _)| body)
    }

    fn kind_at(&self, vehva: Vehva) -> Option<Kind> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.find(vehva).map(|(_, kind)| kind)
    }

    /// Attaches an area of a process on the same VE for loads and stores. `mode` as in its open.
    pub fn attach_vemva(&self, pid: i32, vemva: Vemva, size: u64, mode: Mode) -> Result<VeMemory> {
        match self.veshm_attach(pid, vemva, size, 0, mode.with(Mode::VEMVA))? {
            Attached::Vemva(memory) => Ok(memory),
            Attached::Vehva(_) => Err(Error::Protocol {
                call: "ve_shared_mem_attach",
            }),
        }
    }

    /// Attaches an area of a process on another VE for DMA, LHM and SHM. `mode` as in its open.
    pub fn attach_vehva(&self, pid: i32, vemva: Vemva, size: u64, mode: Mode) -> Result<Vehva> {
        self.expect_vehva(self.veshm_attach(pid, vemva, size, 0, mode.with(Mode::VEHVA))?)
    }

    /// `ve_register_mem_to_dmaatb`: own memory, whole pages, for DMA, LHM and SHM (VE_MEM_LOCAL).
    pub fn register(&self, vemva: Vemva, size: u64) -> Result<Vehva> {
        self.expect_vehva(self.veshm_attach(self.pid(), vemva, size, 0, Mode::MEM_LOCAL)?)
    }

    fn expect_vehva(&self, attached: Attached) -> Result<Vehva> {
        match attached {
            Attached::Vehva(vehva) => Ok(vehva),
            Attached::Vemva(_) => Err(Error::Protocol {
                call: "ve_shared_mem_attach",
            }),
        }
    }

    /// `ve_shared_mem_detach` (section 5.3): exactly an address of an attach. Clones of attached memory that the caller
    /// keeps stay mapped.
    pub fn veshm_detach(&self, address: u64, mode: Mode) -> Result<()> {
        let call = "ve_shared_mem_detach";
        let mut state = self.state();
        if let Some(trap) = self.dma.trap()
            && mode.has(Mode::MEM_LOCAL)
        {
            let vehva = Vehva::new(address);
            if self.kind_at(vehva) == Some(Kind::Remote) {
                trap.spring(Rule::RemoteByLocal { vehva });
            }
        }
        let vehva = Vehva::new(address);
        let request = Request::Detach { address, mode };
        let in_vehva = mode == Mode::VEHVA || mode == Mode::MEM_LOCAL;
        let last = in_vehva && state.attached.get(&vehva) == Some(&1);
        let body = if last {
            self.give_up(call, vehva, request)?
        } else {
            self.call(call, request)?.0
        };
        let Body::Detached { last } = body else {
            return Err(Error::Protocol { call });
        };
        if !in_vehva && last {
            // Transfers do not come here: what they reach is held by entries of their own (section 2.6).
            state.memory.remove(&Vemva::new(address));
        } else if last {
            state.attached.remove(&vehva);
        } else if let Some(count) = state.attached.get_mut(&vehva).filter(|_| in_vehva) {
            *count = count.saturating_sub(1);
        }
        Ok(())
    }

    /// Detaches what [`Process::attach_vemva`] gave.
    pub fn detach_vemva(&self, vemva: Vemva) -> Result<()> {
        self.veshm_detach(vemva.raw(), Mode::VEMVA)
    }

    /// Detaches what [`Process::attach_vehva`] gave.
    pub fn detach_vehva(&self, vehva: Vehva) -> Result<()> {
        self.veshm_detach(vehva.raw(), Mode::VEHVA)
    }

    /// `ve_unregister_mem_from_dmaatb`: undoes [`Process::register`].
    pub fn unregister(&self, vehva: Vehva) -> Result<()> {
        self.veshm_detach(vehva.raw(), Mode::MEM_LOCAL)
    }

    /// `ve_get_pgmode` (section 5.5): a page size in bytes.
    pub fn get_pgmode(&self, mode: PageMode, pid: i32, address: u64) -> Result<u64> {
        let call = "ve_get_pgmode";
        match self.call(call, Request::PageMode { mode, pid, address })?.0 {
            Body::Page(size) => Ok(size),
            _ => Err(Error::Protocol { call }),
        }
    }
}

/// Own memory that lies in one mapping needs no second one.
fn own_memory(state: &State, vemva: Vemva, size: u64) -> Option<SharedBytes> {
    let (start, memory) = state.memory.range(..=vemva).next_back()?;
    let offset = usize::try_from(vemva.offset_from(*start)?).ok()?;
    memory.bytes.slice(offset, usize::try_from(size).ok()?).ok()
}
