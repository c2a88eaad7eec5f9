//! The functions of libsysve.so.1 that VEO reaches: found when first asked for (ve-memory 7.4, 12).
//!
//! The library is WINDLASS_LIBSYSVE, else beside this program, else what the linker finds by its soname. Symbols of
//! the DMA functions may be libveio.so.1's (ve-memory 4).
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_longlong, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, fence};

use parking_lot::Mutex;
use windlass_abi::sysve::VE_PCIRCVSYC;
use windlass_abi::vedma::{PENDING, ve_dma_handle_t};
use windlass_abi::veshm::VE_ADDR_PCI;

use crate::protocol::{Function, Reply, Words};

const VARIABLE: &str = "WINDLASS_LIBSYSVE";
const SONAME: &CStr = c"libsysve.so.1";
/// Where the DMA functions are on a system whose libsysve has none.
const VEIO: &CStr = c"libveio.so.1";

/// Slots of the ring (ve-memory 9.1).
const SLOTS: usize = 128;

type ShmGet = unsafe extern "C" fn(libc::key_t, usize, c_int) -> c_int;
type ShmAt = unsafe extern "C" fn(c_int, *const c_void, c_int, *mut *mut c_void) -> *mut c_void;
type ShmDt = unsafe extern "C" fn(*const c_void) -> c_int;
type MemOpen = unsafe extern "C" fn(*mut c_void, usize, c_int, c_longlong) -> c_int;
type MemAttach =
    unsafe extern "C" fn(libc::pid_t, *mut c_void, usize, c_int, c_longlong) -> *mut c_void;
type MemDetach = unsafe extern "C" fn(*mut c_void, c_longlong) -> c_int;
type DmaInit = unsafe extern "C" fn() -> c_int;
type DmaPost = unsafe extern "C" fn(u64, u64, c_int, *mut ve_dma_handle_t) -> c_int;
type DmaPoll = unsafe extern "C" fn(*mut ve_dma_handle_t) -> c_int;
type DmaPostWait = unsafe extern "C" fn(u64, u64, c_int) -> c_int;
type PageMode = unsafe extern "C" fn(c_longlong, c_int, *mut c_void) -> c_int;
type Named = unsafe extern "C" fn();
type Lhm = unsafe extern "C" fn(*mut c_void) -> u64;

/// The library's functions.
#[derive(Debug)]
struct Symbols {
    shm_get: ShmGet,
    shm_at: ShmAt,
    shm_dt: ShmDt,
    mem_open: MemOpen,
    mem_close: MemOpen,
    mem_attach: MemAttach,
    mem_detach: MemDetach,
    dma_init: DmaInit,
    dma_post: DmaPost,
    dma_poll: DmaPoll,
    dma_post_wait: DmaPostWait,
    /// Older libraries have this as an instruction only.
    lhm: Option<Lhm>,
}

/// The library, once it is needed.
#[derive(Debug, Default)]
pub(crate) struct Sysve {
    library: OnceLock<Option<usize>>,
    symbols: OnceLock<Option<Symbols>>,
    dma: OnceLock<c_int>,
    // The library writes into a handle when its slot is recycled: a handle stays until its slot has a later one.
    handles: Mutex<Vec<(usize, Box<ve_dma_handle_t>)>>,
}

impl Sysve {
    /// Loads the library if there is one.
    pub(crate) fn prepare(&self) {
        self.library();
    }

    fn library(&self) -> Option<usize> {
        *self.library.get_or_init(|| {
            let library = Self::find()?;
            // SAFETY: the type of this function of our own libsysve, which another one has not.
            if let Some(named) = unsafe { find::<Named>(&[library], c"windlass_variables_named") } {
                // SAFETY: takes nothing.
                unsafe { named() };
            }
            Some(library)
        })
    }

    fn find() -> Option<usize> {
        if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            return open(&CString::new(path.as_bytes()).ok()?);
        }
        let beside = |name: &str| -> Option<PathBuf> {
            let path = std::env::current_exe().ok()?.with_file_name(name);
            path.exists().then_some(path)
        };
        match beside("libsysve.so.1").or_else(|| beside("libsysve.so")) {
            Some(path) => open(&CString::new(path.as_os_str().as_bytes()).ok()?),
            None => open(SONAME),
        }
    }

    fn symbols(&self) -> Option<&Symbols> {
        let find = || {
            let found = self.library().and_then(|library| {
                // SAFETY: an open library that is to be libsysve: each name is that of a function of this type (ve-memory 4).
                unsafe { symbols(library) }
            });
            if found.is_none() {
                // Once: the program learns no more than ENOTSUP.
                eprintln!(
                    "aveorun: no libsysve.so.1 with the functions of VE shared memory and DMA: put it beside aveorun, or \
                     name it by {VARIABLE}"
                );
            }
            found
        };
        self.symbols.get_or_init(find).as_ref()
    }

    /// Makes VEOS know this process now. `false`: it does not, for a reason that the library has told.
    pub(crate) fn enters(&self) -> bool {
        let library = self.library();
        // SAFETY: the type of this function (ve-memory 4).
        let Some(ask) =
            library.and_then(|library| unsafe { find::<PageMode>(&[library], c"ve_get_pgmode") })
        else {
            return true;
        };
        // SAFETY: asks for the page size of this process's own VE; the address is ignored (ve-memory 5.5).
        let answer = unsafe { ask(VE_ADDR_PCI, libc::getpid(), std::ptr::null_mut()) };
        answer != -1
    }

    /// Passes a call on. Answers its result; -1 as the negative errno, so that EPERM comes back as -1 (ve-memory 7.4).
    pub(crate) fn call(&self, function: Function, words: Words) -> Reply {
        if function == Function::PciSync {
            self.pci_sync();
            return Reply::default();
        }
        match self.symbols() {
            // SAFETY: what the words mean is the same on both sides: `protocol`.
            Some(symbols) => unsafe { self.pass_on(symbols, function, words) },
            None => Reply::refused(libc::ENOTSUP),
        }
    }

    /// Inbound requests that arrived are performed before anything later (ve-memory 8).
    fn pci_sync(&self) {
        if let Some(lhm) = self.symbols().and_then(|symbols| symbols.lhm) {
            // SAFETY: a register that every process has at this VEHVA, for reading (ve-memory 2.2).
            unsafe { lhm(VE_PCIRCVSYC as usize as *mut c_void) };
        }
        fence(Ordering::SeqCst);
    }

    /// # Safety
    /// `words` are the arguments of `function`.
    unsafe fn pass_on(&self, symbols: &Symbols, function: Function, words: Words) -> Reply {
        let [a, b, c, d, e] = words;
        let pointer = |word: u64| word as usize as *mut c_void;
        // SAFETY: arguments as the caller promises; the library checks addresses itself, and what it writes (`vehva`) lives
        // during the call.
        unsafe {
            match function {
                Function::ShmGet => number((symbols.shm_get)(a as i32, b as usize, c as c_int)),
                Function::ShmAt => {
                    let mut vehva = std::ptr::null_mut();
                    let at = (symbols.shm_at)(a as c_int, pointer(b), c as c_int, &mut vehva);
                    let mut reply = number(at as i64);
                    reply.bytes = (vehva as u64).to_le_bytes().to_vec();
                    reply
                }
                Function::ShmDt => number((symbols.shm_dt)(pointer(a))),
                Function::MemOpen => number((symbols.mem_open)(
                    pointer(a),
                    b as usize,
                    c as c_int,
                    d as c_longlong,
                )),
                Function::MemClose => number((symbols.mem_close)(
                    pointer(a),
                    b as usize,
                    c as c_int,
                    d as c_longlong,
                )),
                Function::MemAttach => {
                    let (pid, size) = (a as libc::pid_t, c as usize);
                    let (syncnum, mode) = (d as c_int, e as c_longlong);
                    number((symbols.mem_attach)(pid, pointer(b), size, syncnum, mode) as i64)
                }
                Function::MemDetach => number((symbols.mem_detach)(pointer(a), b as c_longlong)),
                Function::DmaPost | Function::DmaPoll | Function::DmaPostWait => {
                    self.dma(symbols, function, words)
                }
                Function::PciSync => Reply::default(),
            }
        }
    }

    /// The functions that answer codes, not errno.
    ///
    /// # Safety
    /// As [`pass_on`](Self::pass_on).
    unsafe fn dma(&self, symbols: &Symbols, function: Function, words: Words) -> Reply {
        let [a, b, c, ..] = words;
        // SAFETY: takes nothing; once per process.
        if *self.dma.get_or_init(|| unsafe { (symbols.dma_init)() }) != 0 {
            return code(-libc::EBUSY);
        }
        match function {
            Function::DmaPost => {
                let mut handles = self.handles.lock();
                let mut handle = Box::new(ve_dma_handle_t {
                    status: PENDING,
                    index: PENDING,
                });
                // SAFETY: the handle is kept below until a later one has its slot.
                let result = unsafe { (symbols.dma_post)(a, b, c as c_int, &raw mut *handle) };
                let mut reply = code(result);
                if result == 0 {
                    let (status, index) = (handle.status, handle.index);
                    reply.bytes = [status.to_le_bytes(), index.to_le_bytes()].concat();
                    let slot = index as usize % SLOTS;
                    handles.retain(|(held, _)| *held != slot);
                    handles.push((slot, handle));
                }
                reply
            }
            Function::DmaPoll => {
                let (status, index) = (a as u32 as c_int, b as u32 as c_int);
                let mut handles = self.handles.lock();
                let posted = handles
                    .iter_mut()
                    .find(|(slot, _)| status == PENDING && *slot == index as usize % SLOTS);
                // The program has a copy of what was posted: a status that the library wrote into a handle whose slot has a
                // later one is lost (ve-memory 12).
                let mut copy = ve_dma_handle_t { status, index };
                let handle = match posted {
                    Some((_, kept)) => &raw mut **kept,
                    None => &raw mut copy,
                };
                // SAFETY: the handle lives during the call, and a poll keeps no pointer to it.
                code(unsafe { (symbols.dma_poll)(handle) })
            }
            // SAFETY: three integers.
            _ => code(unsafe { (symbols.dma_post_wait)(a, b, c as c_int) }),
        }
    }
}

/// A result where -1 means errno.
fn number(result: impl Into<i64>) -> Reply {
    let result = result.into();
    let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let result = if result == -1 {
        -i64::from(errno())
    } else {
        result
    };
    Reply::value(result as u64)
}

/// A result that is what it is.
fn code(result: c_int) -> Reply {
    Reply::value(i64::from(result) as u64)
}

fn open(path: &CStr) -> Option<usize> {
    // SAFETY: a C string; the library's constructors are trusted, as it is the one the user named or installed.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    (!handle.is_null()).then_some(handle as usize)
}

/// The function `name` of one of the libraries.
///
/// # Safety
/// `F` is the type of a pointer to this function; the libraries are open.
unsafe fn find<F: Copy>(libraries: &[usize], name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let address = libraries
        .iter()
        // SAFETY: an open handle and a C string.
        .map(|library| unsafe { libc::dlsym(*library as *mut c_void, name.as_ptr()) })
        .find(|address| !address.is_null())?;
    // SAFETY: of one size, as asserted; not null, so a function pointer, of the caller's type by its promise.
    Some(unsafe { std::mem::transmute_copy(&address) })
}

/// # Safety
/// `library` is an open libsysve.
unsafe fn symbols(library: usize) -> Option<Symbols> {
    let alone = &[library][..];
    // Some builds of libsysve have the DMA functions, others leave them to libveio.
    let both: Vec<usize> = [Some(library), open(VEIO)].into_iter().flatten().collect();
    // SAFETY: the types are those of ve-memory 4.
    unsafe {
        Some(Symbols {
            shm_get: find(alone, c"vh_shmget")?,
            shm_at: find(alone, c"vh_shmat")?,
            shm_dt: find(alone, c"vh_shmdt")?,
            mem_open: find(alone, c"ve_shared_mem_open")?,
            mem_close: find(alone, c"ve_shared_mem_close")?,
            mem_attach: find(alone, c"ve_shared_mem_attach")?,
            mem_detach: find(alone, c"ve_shared_mem_detach")?,
            dma_init: find(&both, c"ve_dma_init")?,
            dma_post: find(&both, c"ve_dma_post")?,
            dma_poll: find(&both, c"ve_dma_poll")?,
            dma_post_wait: find(&both, c"ve_dma_post_wait")?,
            lhm: find(alone, c"ve_inst_lhm"),
        })
    }
}
