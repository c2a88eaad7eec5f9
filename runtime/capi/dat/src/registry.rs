//! What libdat2 calls when it loads and leaves the provider, and what the provider calls in it (section 3.1).

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;
use windlass_abi::dat::{self, GetIaHandle, Provider, ProviderInfo, Registry};

use crate::config::{self, Config};
use crate::handle::Handle;
use crate::ia;
use crate::table;

/// A name of `dat.conf`.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) config: Config,
    /// Never freed: stale handles point to it.
    pub(crate) table: &'static Provider,
    pub(crate) info: ProviderInfo,
}

// SAFETY: the table's pointers are to its own name, which is never freed, and to functions.
unsafe impl Send for Named {}

static NAMES: Mutex<BTreeMap<Vec<u8>, Named>> = Mutex::new(BTreeMap::new());

/// The adapter of this name.
pub(crate) fn named(name: &[u8]) -> Option<Named> {
    NAMES.lock().get(name).cloned()
}

/// A function of the libdat2 that loaded us. It is not linked: the default build needs no DAT package.
fn libdat2(name: &CStr) -> Option<*mut c_void> {
    const LIBRARY: &CStr = c"libdat2.so.2";
    // SAFETY: C strings; a library that is loaded already is only looked up.
    let loaded = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    let place = if loaded.is_null() {
        libc::RTLD_DEFAULT // linked into the program itself
    } else {
        loaded
    };
    // SAFETY: a handle of dlopen or the default scope, and a C string.
    let found = unsafe { libc::dlsym(place, name.as_ptr()) };
    if !loaded.is_null() {
        // SAFETY: the reference that dlopen just took; the library stays, since its code is what called us.
        unsafe { libc::dlclose(loaded) };
    }
    (!found.is_null()).then_some(found)
}

fn registry(name: &CStr) -> Option<Registry> {
    // SAFETY: the two registry calls of libdat2 have this type (dat_registry.h).
    libdat2(name).map(|found| unsafe { std::mem::transmute::<*mut c_void, Registry>(found) })
}

/// The adapter's handle as the consumer has it: libdat2's number for ours (section 3.2).
pub(crate) fn consumers(ia: Handle) -> dat::Handle {
    let Some(found) = libdat2(c"dats_get_ia_handle") else {
        return ia.to_c();
    };
    // SAFETY: the function has this type (libdat2's exports).
    let translate = unsafe { std::mem::transmute::<*mut c_void, GetIaHandle>(found) };
    let mut number = std::ptr::null_mut();
    // SAFETY: the place for the answer is valid; any number may be asked.
    match unsafe { translate(ia.to_c(), &raw mut number) } {
        dat::SUCCESS => number,
        _ => ia.to_c(), // opened through the table, not by libdat2
    }
}

fn name_of(info: &ProviderInfo) -> Vec<u8> {
    let bytes = info.ia_name.iter().map(|byte| byte.cast_unsigned());
    bytes.take_while(|byte| *byte != 0).collect()
}

fn init(info: &ProviderInfo, parameters: &CStr) {
    let name = name_of(info);
    let config = match config::parse(&parameters.to_string_lossy()) {
        Ok(config) => config,
        Err(why) => {
            // There is no other way to say why the adapter is not found.
            eprintln!(
                "libdapl_windlass: {} in dat.conf: {why}",
                String::from_utf8_lossy(&name)
            );
            return;
        }
    };
    let mut names = NAMES.lock();
    let table = names
        .get(&name)
        .map_or_else(|| table::leak(&name), |named| named.table);
    let named = Named {
        config,
        table,
        info: *info,
    };
    names.insert(name.clone(), named);
    drop(names);
    if let Some(add) = registry(c"dat_registry_add_provider") {
        // SAFETY: a table that is never freed and the caller's own info.
        unsafe { add(table, info) };
    }
}

fn fini(info: &ProviderInfo) {
    let Some(named) = named(&name_of(info)) else {
        return;
    };
    ia::close_all(named.table);
    if let Some(remove) = registry(c"dat_registry_remove_provider") {
        // SAFETY: the table that was added, with the same info.
        unsafe { remove(named.table, info) };
    }
}

/// Called by libdat2 when the adapter's name is opened first.
///
/// # Safety
/// As libdat2 calls it: `info` is a provider info, `parameters` null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dat_provider_init(info: *const ProviderInfo, parameters: *const c_char) {
    // SAFETY: null or valid during this call, by the caller's promise.
    let Some(info) = (unsafe { info.as_ref() }) else {
        return;
    };
    let parameters = if parameters.is_null() {
        c""
    } else {
        // SAFETY: not null, so a C string, by the caller's promise.
        unsafe { CStr::from_ptr(parameters) }
    };
    let _ = catch_unwind(AssertUnwindSafe(|| init(info, parameters)));
}

/// Called by libdat2 after the name's last adapter was closed.
///
/// # Safety
/// As libdat2 calls it: `info` is the provider info of an init.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dat_provider_fini(info: *const ProviderInfo) {
    // SAFETY: null or valid during this call, by the caller's promise.
    if let Some(info) = unsafe { info.as_ref() } {
        let _ = catch_unwind(AssertUnwindSafe(|| fini(info)));
    }
}
