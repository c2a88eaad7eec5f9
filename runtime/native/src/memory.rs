//! VE memory, and what makes it reachable: transfers, VESHM, DMA.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use windlass_abi::veshm::{
    Mode, VE_REGISTER_NONE, VE_REGISTER_PCI, VE_REGISTER_VEHVA, VE_REGISTER_VEMVA,
};

use crate::error::{Error, Result};
use crate::library::Functions;
use crate::process::Process;

/// The all-ones pointer.
const FAILED: usize = usize::MAX;

/// Bytes of VE memory that a process of the VE sees. The host reaches them by transfers alone.
#[derive(Debug)]
pub struct Bytes {
    process: Arc<Process>,
    /// An HMEM pointer: never dereferenced here.
    pointer: NonNull<c_void>,
    len: usize,
}

// SAFETY: the pointer is a number to this process; the library's functions may be called from every thread.
unsafe impl Send for Bytes {}
// SAFETY: as above; what two threads write to one place is undefined data, as on the VE, and no reference exists.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Their VEMVA: what a function of their process takes.
    pub fn vemva(&self) -> u64 {
        // SAFETY: takes a number, answers one.
        unsafe { (self.functions().address)(self.pointer.as_ptr()) as u64 }
    }

    fn functions(&self) -> &Functions {
        self.process.functions()
    }

    /// The pointer to a checked range.
    fn at(&self, offset: usize, len: usize) -> Result<*mut c_void> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.pointer.as_ptr().wrapping_byte_add(offset)),
            _ => Err(Error::OutOfRange {
                offset,
                len,
                size: self.len,
            }),
        }
    }

    /// Copies `src` there; complete on return.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; [`Error::Call`] when the process is gone.
    pub fn write(&self, offset: usize, src: &[u8]) -> Result<()> {
        let to = self.at(offset, src.len())?;
        // SAFETY: VE memory of this range, which lives while `self` does, and a slice.
        let code = unsafe { (self.functions().copy)(to, src.as_ptr().cast(), src.len()) };
        answered("veo_hmemcpy", code)
    }

    /// Copies from there; complete on return.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read(&self, offset: usize, dst: &mut [u8]) -> Result<()> {
        let from = self.at(offset, dst.len())?;
        let (to, len) = (dst.as_mut_ptr().cast(), dst.len());
        // SAFETY: as in `write`; `dst` is this call's alone.
        let code = unsafe { (self.functions().copy)(to, from, len) };
        answered("veo_hmemcpy", code)
    }
}

/// Memory of a VE process, freed when dropped. A page of 64 MiB and more begins on one: the library's own is malloc of the
/// VE, which aligns nothing.
#[derive(Debug)]
pub struct Memory {
    bytes: Bytes,
    /// Bytes between what was allocated and them.
    skip: usize,
}

/// VESHM and what a DMA engine sees are whole pages (ve-memory 1: 64 MiB by default).
const PAGE: usize = 64 << 20;

impl Deref for Memory {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Who may attach VESHM (ve-memory 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Processes of its own VE; takes no slot of the PCIATB.
    OwnVe,
    /// Those of other VEs too.
    Pci,
}

impl Registration {
    const fn flag(self) -> Mode {
        match self {
            Registration::OwnVe => VE_REGISTER_NONE,
            Registration::Pci => VE_REGISTER_PCI,
        }
    }
}

/// What another process attaches VESHM by (ve-memory 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// The owner's process.
    pub pid: c_int,
    /// Where the owner sees it.
    pub vemva: u64,
    /// Its size in bytes.
    pub len: usize,
    /// Who may attach it.
    pub registration: Registration,
}

impl Memory {
    pub(crate) fn alloc(process: &Arc<Process>, len: usize) -> Result<Arc<Self>> {
        let mut pointer = std::ptr::null_mut();
        let functions = process.functions();
        let room = len.saturating_add(if len < PAGE { 0 } else { PAGE });
        // SAFETY: an open handle and a place for the answer.
        let code = unsafe { (functions.alloc)(process.handle(), &raw mut pointer, room) };
        let (Some(whole), 0) = (NonNull::new(pointer), code) else {
            return Err(match code {
                -1 => Error::NoMemory { len },
                _ => Error::last("veo_alloc_hmem", code),
            });
        };
        // The tag of the process is above the address (ve-memory 12): the next page has the same.
        let skip = match len {
            PAGE.. => whole.addr().get().wrapping_neg() % PAGE,
            _ => 0,
        };
        let pointer = whole.map_addr(|at| at.saturating_add(skip));
        let process = Arc::clone(process);
        let bytes = Bytes {
            process,
            pointer,
            len,
        };
        Ok(Arc::new(Self { bytes, skip }))
    }

    /// Pid of its process.
    pub fn pid(&self) -> c_int {
        // SAFETY: takes a number.
        unsafe { (self.functions().pid)(self.pointer.as_ptr()) }
    }

    /// The VE it is on.
    pub fn node(&self) -> c_int {
        // SAFETY: takes a number.
        unsafe { (self.functions().node)(self.pointer.as_ptr()) }
    }

    /// Makes it VESHM that others can attach, until what it answers is dropped (ve-memory 5.1).
    ///
    /// # Errors
    /// [`Error::Call`]: EINVAL unless its size is a multiple of 64 MiB, ENOMEM when the PCIATB is full.
    pub fn open(self: &Arc<Self>, registration: Registration) -> Result<Opened> {
        let open = self.functions().open;
        // SAFETY: numbers; the library checks them.
        let code = unsafe { open(self.pointer.as_ptr(), self.len, 0, registration.flag()) };
        answered("veo_shared_mem_open", code)?;
        Ok(Opened {
            memory: Arc::clone(self),
            registration,
        })
    }

    /// Gives it to the DMA engine of its own VE (ve-memory 5.2, VE_MEM_LOCAL).
    ///
    /// # Errors
    /// [`Error::Call`]: EINVAL unless its size is a multiple of 64 MiB, ENOMEM when the DMAATB is full.
    pub fn register(self: &Arc<Self>) -> Result<Registered> {
        // SAFETY: numbers; the library checks them.
        match unsafe { (self.functions().register)(self.pointer.as_ptr(), self.len) } {
            u64::MAX => Err(Error::last("veo_register_mem_to_dmaatb", -1)),
            vehva => Ok(Registered {
                memory: Arc::clone(self),
                vehva,
            }),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let whole = self.pointer.as_ptr().wrapping_byte_sub(self.skip);
        // SAFETY: allocated in `alloc`, freed once; its process lives. A failure leaves nothing to be done.
        unsafe { (self.functions().free)(whole) };
    }
}

fn answered(call: &'static str, code: c_int) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(Error::last(call, code)),
    }
}

/// An area of VESHM, closed when dropped. Attachments outlive it.
#[derive(Debug)]
pub struct Opened {
    memory: Arc<Memory>,
    registration: Registration,
}

impl Opened {
    /// What others attach it by.
    pub fn area(&self) -> Area {
        Area {
            pid: self.memory.pid(),
            vemva: self.memory.vemva(),
            len: self.memory.len,
            registration: self.registration,
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (pointer, len) = (self.memory.pointer.as_ptr(), self.memory.len);
        let close = self.memory.functions().close;
        // SAFETY: numbers, those of the open.
        unsafe { close(pointer, len, 0, self.registration.flag()) };
    }
}

/// VESHM of another VE, detached when dropped.
#[derive(Debug)]
pub struct Attached {
    process: Arc<Process>,
    vehva: u64,
}

impl Attached {
    /// Where the DMA engine of the attaching process finds it.
    pub fn vehva(&self) -> u64 {
        self.vehva
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let (handle, at) = (self.process.handle(), self.vehva as *mut c_void);
        // SAFETY: an open handle and numbers.
        unsafe { (self.process.functions().detach)(handle, at, VE_REGISTER_VEHVA) };
    }
}

/// VESHM of another process of the same VE, detached when dropped.
#[derive(Debug)]
pub struct Mapped(Bytes);

impl Deref for Mapped {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let (handle, at) = (self.process.handle(), self.pointer.as_ptr());
        // SAFETY: an open handle and what the attach answered.
        unsafe { (self.functions().detach)(handle, at, VE_REGISTER_VEMVA) };
    }
}

/// Own memory in the DMAATB, taken out when dropped.
#[derive(Debug)]
pub struct Registered {
    memory: Arc<Memory>,
    vehva: u64,
}

impl Registered {
    /// Where the DMA engine of its process finds it.
    pub fn vehva(&self) -> u64 {
        self.vehva
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let process = &self.memory.process;
        // SAFETY: an open handle and a number.
        unsafe { (process.functions().unregister)(process.handle(), self.vehva) };
    }
}

/// A System V segment of huge pages in the DMAATB of a VE process, taken out when dropped (ve-memory 7).
#[derive(Debug)]
pub struct Segment {
    process: Arc<Process>,
    token: *mut c_void,
    vehva: u64,
}

// SAFETY: the token is a number to this process.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Where the DMA engine of the process finds it.
    pub fn vehva(&self) -> u64 {
        self.vehva
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: an open handle and what its `veo_shmat` answered.
        unsafe { (self.process.functions().shm_dt)(self.process.handle(), self.token) };
    }
}

impl Process {
    fn attach(&self, area: &Area, to: Mode) -> Result<*mut c_void> {
        let mode = area.registration.flag() | to;
        let (pid, at) = (area.pid, area.vemva as *mut c_void);
        let attach = self.functions().attach;
        // SAFETY: an open handle and numbers; the library checks them.
        let at = unsafe { attach(self.handle(), pid, at, area.len, 0, mode) };
        if at as usize == FAILED {
            return Err(Error::last("veo_shared_mem_attach", -1));
        }
        Ok(at)
    }

    /// Attaches VESHM of another VE, for the DMA engine of this process's VE (ve-memory 5.2).
    ///
    /// # Errors
    /// [`Error::Call`]: EINVAL for an owner on the same VE.
    pub fn attach_vehva(self: &Arc<Self>, area: &Area) -> Result<Attached> {
        let vehva = self.attach(area, VE_REGISTER_VEHVA)? as u64;
        Ok(Attached {
            process: Arc::clone(self),
            vehva,
        })
    }

    /// Attaches VESHM of another process of the same VE, for transfers by this one (ve-memory 5.2).
    ///
    /// # Errors
    /// [`Error::Call`]: EINVAL for an owner on another VE, and for this process's own.
    pub fn attach_vemva(self: &Arc<Self>, area: &Area) -> Result<Mapped> {
        let at = self.attach(area, VE_REGISTER_VEMVA)?;
        let nowhere = || Error::last("veo_shared_mem_attach", 0);
        Ok(Mapped(Bytes {
            process: Arc::clone(self),
            pointer: NonNull::new(at).ok_or_else(nowhere)?,
            len: area.len,
        }))
    }

    /// Gives a segment of the host to the DMA engine of the process's VE.
    ///
    /// # Errors
    /// [`Error::Call`]: EFAULT when it is not of huge pages (ve-memory 7.2).
    pub fn attach_segment(self: &Arc<Self>, id: c_int) -> Result<Segment> {
        let mut vehva = std::ptr::null_mut();
        let functions = self.functions();
        // SAFETY: an open handle, numbers, and a place for the answer.
        let token =
            unsafe { (functions.shm_at)(self.handle(), id, std::ptr::null(), 0, &raw mut vehva) };
        if token as usize == FAILED {
            return Err(Error::last("veo_shmat", -1));
        }
        Ok(Segment {
            process: Arc::clone(self),
            token,
            vehva: vehva as u64,
        })
    }

    /// A transfer by the DMA engine of the process's VE, between VEHVAs of the process; complete on return.
    ///
    /// # Errors
    /// [`Error::Exception`] for an address that is none of them, or not aligned; [`Error::Call`] when the process is gone;
    /// [`Error::OutOfRange`] for 2 GiB and more.
    pub fn dma(&self, to: u64, from: u64, len: usize) -> Result<()> {
        let size = c_int::try_from(len).map_err(|_| Error::OutOfRange {
            offset: 0,
            len,
            size: c_int::MAX as usize,
        })?;
        // SAFETY: an open handle and VEHVAs, which the engine checks.
        match unsafe { (self.functions().dma)(self.handle(), to, from, size) } {
            0 => Ok(()),
            bits @ 1..=0xffff => Err(Error::Exception { bits: bits as u16 }),
            code => Err(Error::last("veo_dma_post_wait", code)),
        }
    }
}
