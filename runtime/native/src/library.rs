//! libveo.so, loaded: its functions by their types.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_int};

use windlass_abi::veo::{
    AllocHmem, ApiVersion, ArgsAlloc, ArgsFree, ArgsSetU64, CallSync, DmaPostWait, FreeHmem,
    GetSym, HmemAddr, HmemCopy, LoadLibrary, OfHmem, ProcCreate, ProcDestroy, RegisterMem,
    SharedMemAttach, SharedMemDetach, SharedMemOpen, ShmAt, ShmDt, UnregisterMem, VersionString,
};

use crate::error::{Error, Result};
use crate::linker::{self, Handle};

/// The least API version that has every function below.
pub(crate) const NEEDED: c_int = windlass_abi::veo::VEO_API_VERSION;

/// What was loaded from.
struct Source<'a> {
    name: &'a str,
    handle: Handle,
}

impl Source<'_> {
    /// # Safety
    /// `F` is the type of a pointer to the function `symbol`.
    unsafe fn find<F: Copy>(&self, symbol: &'static CStr) -> Result<F> {
        // SAFETY: the caller's promise.
        let found = unsafe { self.handle.find(symbol, None) };
        found.ok_or_else(|| Error::Symbol {
            library: self.name.to_owned(),
            symbol: symbol.to_str().unwrap_or_default(),
            needed: NEEDED,
        })
    }
}

macro_rules! functions {
    ($($field:ident: $type:ty = $symbol:literal;)*) => {
        /// The functions of libveo that this crate calls.
        #[derive(Debug)]
        pub(crate) struct Functions { $( pub(crate) $field: $type, )* }

        impl Functions {
            /// # Safety
            /// The source is a libveo.
            unsafe fn find(source: &Source<'_>) -> Result<Self> {
                // SAFETY: each type is that of its function (ve-memory 4, 12; `windlass-abi` states it).
                unsafe { Ok(Self { $( $field: source.find($symbol)?, )* }) }
            }
        }
    };
}

functions! {
    version_string: VersionString = c"veo_version_string";
    create: ProcCreate = c"veo_proc_create";
    destroy: ProcDestroy = c"veo_proc_destroy";
    load: LoadLibrary = c"veo_load_library";
    symbol: GetSym = c"veo_get_sym";
    args_alloc: ArgsAlloc = c"veo_args_alloc";
    args_free: ArgsFree = c"veo_args_free";
    args_set: ArgsSetU64 = c"veo_args_set_u64";
    call: CallSync = c"veo_call_sync";
    alloc: AllocHmem = c"veo_alloc_hmem";
    free: FreeHmem = c"veo_free_hmem";
    copy: HmemCopy = c"veo_hmemcpy";
    pid: OfHmem = c"veo_get_pid_from_hmem";
    node: OfHmem = c"veo_get_venum_from_hmem";
    address: HmemAddr = c"veo_get_hmem_addr";
    open: SharedMemOpen = c"veo_shared_mem_open";
    close: SharedMemOpen = c"veo_shared_mem_close";
    attach: SharedMemAttach = c"veo_shared_mem_attach";
    detach: SharedMemDetach = c"veo_shared_mem_detach";
    register: RegisterMem = c"veo_register_mem_to_dmaatb";
    unregister: UnregisterMem = c"veo_unregister_mem_from_dmaatb";
    shm_at: ShmAt = c"veo_shmat";
    shm_dt: ShmDt = c"veo_shmdt";
    dma: DmaPostWait = c"veo_dma_post_wait";
}

/// Loads the library `file`, checks its version, finds its functions. Answers the version too.
pub(crate) fn load(file: &OsStr) -> Result<(Functions, c_int)> {
    let name = file.to_string_lossy().into_owned();
    let handle = linker::open(file, libc::RTLD_LOCAL).map_err(|text| Error::Load {
        name: name.clone(),
        text,
    })?;
    let source = Source {
        name: &name,
        handle,
    };
    // First of all, and alone: an older library lacks others, and its version says more.
    // SAFETY: the type of this function in every version (ve-memory 12); it takes nothing.
    let found = unsafe { source.find::<ApiVersion>(c"veo_api_version")?() };
    if found < NEEDED {
        return Err(Error::Version {
            library: name,
            found,
            needed: NEEDED,
        });
    }
    // SAFETY: it says that it is a libveo of a version that has these functions.
    Ok((unsafe { Functions::find(&source) }?, found))
}
