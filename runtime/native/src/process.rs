//! A VE process: started, called, ended.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use windlass_abi::veo::{VEO_MAX_NUM_ARGS, veo_args, veo_proc_handle};

use crate::error::{Error, Result};
use crate::library::Functions;
use crate::memory::Memory;
use crate::veo::Veo;

/// A process on a Vector Engine. It ends when the last of it is dropped, its memory and functions included.
#[derive(Debug)]
pub struct Process {
    veo: Arc<Veo>,
    handle: NonNull<veo_proc_handle>,
}

// SAFETY: a handle is used through the library alone, whose functions may be called from every thread (each takes the
// lock of the process or context).
unsafe impl Send for Process {}
// SAFETY: as above.
unsafe impl Sync for Process {}

impl Process {
    pub(crate) fn create(veo: &Arc<Veo>, node: c_int) -> Result<Arc<Self>> {
        // SAFETY: takes an integer.
        let handle = unsafe { (veo.functions.create)(node) };
        let handle = NonNull::new(handle).ok_or_else(|| Error::last("veo_proc_create", 0))?;
        Ok(Arc::new(Self {
            veo: Arc::clone(veo),
            handle,
        }))
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.veo.functions
    }

    /// Valid as long as `self`.
    pub(crate) fn handle(&self) -> *mut veo_proc_handle {
        self.handle.as_ptr()
    }

    /// VE memory of so many bytes.
    ///
    /// # Errors
    /// [`Error::Call`] with -1: the VE has no memory left.
    pub fn alloc(self: &Arc<Self>, len: usize) -> Result<Arc<Memory>> {
        Memory::alloc(self, len)
    }

    /// Loads a library of the VE; its handle for [`function`](Self::function). It stays loaded.
    ///
    /// # Errors
    /// [`Error::Call`]: not there, or not for this VE.
    pub fn load(&self, path: &Path) -> Result<u64> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::ZeroByte {
            what: "the VE library's name",
        })?;
        // SAFETY: a handle that is open while `self` is, and a C string.
        match unsafe { (self.functions().load)(self.handle(), path.as_ptr()) } {
            0 => Err(Error::last("veo_load_library", 0)),
            library => Ok(library),
        }
    }

    /// A function of a library that [`load`](Self::load) gave.
    ///
    /// # Errors
    /// [`Error::Call`]: it has none of that name.
    pub fn function(self: &Arc<Self>, library: u64, name: &str) -> Result<Function> {
        let name = CString::new(name).map_err(|_| Error::ZeroByte {
            what: "a function's name",
        })?;
        // SAFETY: as in `load`.
        match unsafe { (self.functions().symbol)(self.handle(), library, name.as_ptr()) } {
            0 => Err(Error::last("veo_get_sym", 0)),
            address => Ok(Function {
                process: Arc::clone(self),
                address,
            }),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: open until now, and nobody has `self` any more. A failure leaves nothing to be done.
        unsafe { (self.functions().destroy)(self.handle()) };
    }
}

/// A function of a VE library.
#[derive(Debug, Clone)]
pub struct Function {
    process: Arc<Process>,
    address: u64,
}

/// Arguments that are freed in any case.
struct Args<'a>(&'a Functions, *mut veo_args);

impl Drop for Args<'_> {
    fn drop(&mut self) {
        // SAFETY: from `args_alloc`, freed once.
        unsafe { (self.0.args_free)(self.1) };
    }
}

impl Function {
    /// Calls it with integers and waits for its result.
    ///
    /// # Safety
    /// The function takes such arguments; an address among them is memory of its process, of the size it uses.
    ///
    /// # Errors
    /// [`Error::Call`]: the function ended its process, or the process is gone.
    pub unsafe fn call(&self, arguments: &[u64]) -> Result<u64> {
        let functions = self.process.functions();
        // SAFETY: takes nothing.
        let args = Args(functions, unsafe { (functions.args_alloc)() });
        if args.1.is_null() || arguments.len() > VEO_MAX_NUM_ARGS {
            return Err(Error::last("veo_args_alloc", 0));
        }
        for (number, argument) in arguments.iter().enumerate() {
            // SAFETY: `args` is open and only this function's; the number is in range.
            let code = unsafe { (functions.args_set)(args.1, number as c_int, *argument) };
            if code != 0 {
                return Err(Error::last("veo_args_set_u64", code));
            }
        }
        let mut result = 0;
        let handle = self.process.handle();
        // SAFETY: an open handle, an address of its process, arguments by the caller's promise, a place for the result.
        match unsafe { (functions.call)(handle, self.address, args.1, &raw mut result) } {
            0 => Ok(result),
            code => Err(Error::last("veo_call_sync", code)),
        }
    }
}
