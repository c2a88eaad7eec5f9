//! Memory that libfabric may touch.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use windlass_abi::ofi::{
    FI_ENABLE, FI_MR_ENDPOINT, FI_MR_PROV_KEY, FI_MR_VIRT_ADDR, FI_READ, FI_REMOTE_READ,
    FI_REMOTE_WRITE, FI_WRITE, fid_mr,
};
use windlass_mem::SharedBytes;

use crate::ofi::{Endpoint, Error, Failure, Result};

/// Keys that are tried before a registration fails: they are drawn, and may be in use.
const TRIES: usize = 8;

/// Registered memory: this process's operations may name it, and peers that know its key. Withdrawn when the last holder drops it.
#[derive(Debug)]
pub struct Registration {
    region: *mut fid_mr,
    bytes: SharedBytes,
    /// What peers name its first byte by.
    base: u64,
    _endpoint: Arc<Endpoint>,
}

// SAFETY: the library was asked for FI_THREAD_SAFE; the two fields of the region that are read do not change after it is made.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers memory for this process's operations and for its peers'.
    ///
    /// # Errors
    /// [`Error::Call`]: the provider has no room, or cannot pin so much.
    pub fn new(endpoint: &Arc<Endpoint>, bytes: &SharedBytes) -> Result<Arc<Registration>> {
        Self::with(endpoint, bytes, OWN | FI_REMOTE_READ | FI_REMOTE_WRITE)
    }

    /// Registers memory for this process's operations alone.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn local(endpoint: &Arc<Endpoint>, bytes: &SharedBytes) -> Result<Arc<Registration>> {
        Self::with(endpoint, bytes, OWN)
    }

    fn with(
        endpoint: &Arc<Endpoint>,
        bytes: &SharedBytes,
        access: u64,
    ) -> Result<Arc<Registration>> {
        let mode = endpoint.mr_mode();
        let region = register(endpoint, bytes, mode, access)?;
        let base = match mode & FI_MR_VIRT_ADDR {
            0 => 0,
            _ => bytes.addr() as u64,
        };
        // From here on it is closed by its drop.
        let registration = Registration {
            region,
            bytes: bytes.clone(),
            base,
            _endpoint: Arc::clone(endpoint),
        };
        if mode & FI_MR_ENDPOINT != 0 {
            let fid = region.cast();
            let library = endpoint.library();
            // SAFETY: an open region, bound once to an open endpoint and then enabled (fi_mr(3), FI_MR_ENDPOINT).
            unsafe {
                let ops = &*(*region).fid.ops;
                library.check("fi_mr_bind", (ops.bind)(fid, endpoint.fid(), 0))?;
                let enabled = (ops.control)(fid, FI_ENABLE, ptr::null_mut());
                library.check("fi_mr_enable", enabled)?;
            }
        }
        Ok(Arc::new(registration))
    }

    /// What peers name its first byte by.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// What peers name it by.
    pub fn key(&self) -> u64 {
        // SAFETY: an open region.
        unsafe { (*self.region).key }
    }

    /// What it consists of.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// What names it in this process's operations.
    pub(crate) fn descriptor(&self) -> *mut c_void {
        // SAFETY: an open region.
        unsafe { (*self.region).mem_desc }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: an open region, closed once; nothing under way names it, or it would hold this.
        unsafe { ((*(*self.region).fid.ops).close)(self.region.cast()) };
    }
}

/// What this process's own operations do with memory.
const OWN: u64 = FI_READ | FI_WRITE;

fn register(
    endpoint: &Endpoint,
    bytes: &SharedBytes,
    mode: c_int,
    access: u64,
) -> Result<*mut fid_mr> {
    let domain = endpoint.domain();
    let mut answer = Ok(());
    for _ in 0..TRIES {
        let mut region = ptr::null_mut();
        let key = match mode & FI_MR_PROV_KEY {
            0 => draw_key(endpoint.key_bytes())?,
            _ => 0,
        };
        // SAFETY: an open domain; the memory stays mapped as long as the registration that is made of this, which holds it, and
        // is of the kind that anybody may change at any time (`SharedBytes`).
        let code = unsafe {
            ((*(*domain).mr).reg)(
                domain.cast(),
                bytes.as_ptr().cast(),
                bytes.len(),
                access,
                0,
                key,
                0,
                &raw mut region,
                ptr::null_mut(),
            )
        };
        answer = endpoint.library().check("fi_mr_reg", code);
        match answer {
            Ok(()) => return Ok(region),
            // Drawn twice, or refused for another reason: a few tries tell.
            Err(_) if mode & FI_MR_PROV_KEY == 0 => {}
            Err(_) => break,
        }
    }
    answer.and(Err(Error::Unregistered))
}

/// A key that strangers do not guess, as far as the provider's keys are long enough (reliability S5).
fn draw_key(size: usize) -> Result<u64> {
    let mut bytes = [0u8; 8];
    let size = size.clamp(1, bytes.len());
    // SAFETY: a buffer of that many bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), size, 0) };
    if got != size as isize {
        let why = std::io::Error::last_os_error();
        return Err(Error::Call(Failure {
            what: "getrandom",
            code: why.raw_os_error().unwrap_or(0),
            text: why.to_string(),
        }));
    }
    // All ones stands for no key.
    Ok(u64::from_le_bytes(bytes) & !(1 << (8 * size - 1)))
}
