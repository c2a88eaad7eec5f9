//! ve_offload.h: hooks, which upper layers put behind the functions that allocate and free.
//!
//! A hook is a variadic C function; what it gets depends on the function it stands behind:
//! alloc_mem (process, pointer to the address, size), free_mem (process, address), alloc_hmem (process, HMEM pointer, size), free_hmem
//! (process, HMEM pointer), alloc_mem_async (context, address, size), free_mem_async (context, address).
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;

use parking_lot::RwLock;
use windlass_abi::veo::{Hook, VEO_COMMAND_OK, veo_thr_ctxt};

use crate::context::Command;
use crate::edge::{EBUSY, Result, edge};
use crate::link::Place;
use crate::memory::{
    veo_alloc_hmem, veo_alloc_mem, veo_alloc_mem_async, veo_free_hmem, veo_free_mem,
    veo_free_mem_async,
};
use crate::registry;

/// Functions that may have a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hooked {
    AllocMem,
    FreeMem,
    AllocHmem,
    FreeHmem,
    AllocMemAsync,
    FreeMemAsync,
}

impl Hooked {
    /// The function's address: its key.
    fn key(self) -> usize {
        let function = match self {
            Self::AllocMem => veo_alloc_mem as *const (),
            Self::FreeMem => veo_free_mem as *const (),
            Self::AllocHmem => veo_alloc_hmem as *const (),
            Self::FreeHmem => veo_free_hmem as *const (),
            Self::AllocMemAsync => veo_alloc_mem_async as *const (),
            Self::FreeMemAsync => veo_free_mem_async as *const (),
        };
        function as usize
    }
}

/// Functions of `veo_register_hmem_hook_functions`.
#[derive(Clone, Copy)]
struct Pair {
    allocated: unsafe extern "C" fn(*mut c_void, usize),
    freed: unsafe extern "C" fn(u64),
}

#[derive(Default)]
struct Hooks {
    single: HashMap<usize, (Hook, usize)>,
    pair: Option<Pair>,
}

static HOOKS: RwLock<Option<Hooks>> = RwLock::new(None);

fn single(hooked: Hooked) -> Option<(Hook, *mut c_void)> {
    let hooks = HOOKS.read();
    let (hook, payload) = *hooks.as_ref()?.single.get(&hooked.key())?;
    Some((hook, payload as *mut c_void))
}

fn pair() -> Option<Pair> {
    HOOKS.read().as_ref()?.pair
}

/// The HMEM pointer of an address in the process (or the process of the context) `owner`.
fn pointer(process: usize, address: u64) -> u64 {
    let identifier = registry::identifier(process).ok();
    identifier
        .and_then(|identifier| registry::tagged(address, identifier))
        .unwrap_or(0)
}

/// After an allocation. `block` is the pointer or address that the hook is to get.
pub(crate) fn allocated(hooked: Hooked, owner: *mut c_void, block: u64, len: usize) {
    if let Some((hook, payload)) = single(hooked) {
        // SAFETY: whoever registered the hook says that it takes these arguments.
        unsafe { hook(payload, owner, block, len) };
    }
    let (Hooked::AllocMem, Some(pair)) = (hooked, pair()) else {
        return;
    };
    // SAFETY: for veo_alloc_mem the block is the caller's variable, which was just written.
    let address = unsafe { (block as *const u64).read_unaligned() };
    // SAFETY: as above.
    unsafe { (pair.allocated)(pointer(owner as usize, address) as *mut c_void, len) };
}

/// After memory was freed.
pub(crate) fn freed(hooked: Hooked, owner: *mut c_void, block: u64) {
    if let Some((hook, payload)) = single(hooked) {
        // SAFETY: whoever registered the hook says that it takes these arguments.
        unsafe { hook(payload, owner, block) };
    }
    if let (Hooked::FreeMem, Some(pair)) = (hooked, pair()) {
        // SAFETY: as above.
        unsafe { (pair.freed)(pointer(owner as usize, block)) };
    }
}

/// What an asynchronous hook needs, once its request is done.
struct Later {
    context: usize,
    request: u64,
    /// For an allocation its size, else the address.
    number: u64,
}

/// Queues the hook behind request `request`; the id whose result is the address.
pub(crate) fn allocating(context: *mut veo_thr_ctxt, request: u64, len: usize) -> Result<u64> {
    if single(Hooked::AllocMemAsync).is_none() && pair().is_none() {
        return Ok(request);
    }
    later(context, request, len as u64, after_alloc)
}

/// Queues the hook behind request `request`.
pub(crate) fn freeing(context: *mut veo_thr_ctxt, request: u64, address: u64) -> Result<u64> {
    if single(Hooked::FreeMemAsync).is_none() && pair().is_none() {
        return Ok(request);
    }
    later(context, request, address, after_free)
}

fn later(
    context: *mut veo_thr_ctxt,
    request: u64,
    number: u64,
    function: unsafe extern "C" fn(*mut c_void) -> u64,
) -> Result<u64> {
    let context = context as usize;
    let later = Box::into_raw(Box::new(Later {
        context,
        request,
        number,
    }));
    let argument = Place(later.cast());
    let outcome = registry::context(context)
        .and_then(|known| known.submit(Command::Host { function, argument }));
    if outcome.is_err() {
        // SAFETY: made above; nobody else has heard of it. A request that is cancelled later leaks these few bytes.
        drop(unsafe { Box::from_raw(later) });
    }
    outcome
}

/// The outcome of the request that this stands behind.
///
/// # Safety
/// `argument` is what `later` made, for this one call.
unsafe fn resolve(argument: *mut c_void) -> Result<(Later, u64, usize)> {
    // SAFETY: the caller's promise.
    let later = unsafe { *Box::from_raw(argument.cast::<Later>()) };
    let context = registry::context(later.context)?;
    match context.wait(later.request) {
        (VEO_COMMAND_OK, value) => Ok((later, value, context.process)),
        _ => Err(EBUSY),
    }
}

/// # Safety
/// As for [`resolve`].
unsafe extern "C" fn after_alloc(argument: *mut c_void) -> u64 {
    edge("after_alloc", 0, || {
        // SAFETY: the caller's promise.
        let (later, address, process) = unsafe { resolve(argument) }?;
        if let Some((hook, payload)) = single(Hooked::AllocMemAsync) {
            // SAFETY: whoever registered the hook says that it takes these arguments.
            unsafe { hook(payload, later.context as *mut c_void, address, later.number) };
        }
        if let Some(pair) = pair() {
            let pointer = pointer(process, address) as *mut c_void;
            // SAFETY: as above.
            unsafe { (pair.allocated)(pointer, later.number as usize) };
        }
        Ok(address)
    })
}

/// # Safety
/// As for [`resolve`].
unsafe extern "C" fn after_free(argument: *mut c_void) -> u64 {
    edge("after_free", u64::MAX, || {
        // SAFETY: the caller's promise.
        let (later, _, process) = unsafe { resolve(argument) }?;
        if let Some((hook, payload)) = single(Hooked::FreeMemAsync) {
            // SAFETY: whoever registered the hook says that it takes these arguments.
            unsafe { hook(payload, later.context as *mut c_void, later.number) };
        }
        if let Some(pair) = pair() {
            // SAFETY: as above.
            unsafe { (pair.freed)(pointer(process, later.number)) };
        }
        Ok(0)
    })
}

/// `void veo_register_hook(void *, void (*)(void *, ...), void *)`
///
/// # Safety
/// `hook` takes what the function passes, until it is unregistered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_register_hook(
    function: *mut c_void,
    hook: Option<Hook>,
    payload: *mut c_void,
) {
    if let Some(hook) = hook {
        let mut hooks = HOOKS.write();
        let hooks = hooks.get_or_insert_default();
        hooks
            .single
            .insert(function as usize, (hook, payload as usize));
    }
}

/// `void *veo_get_hook(void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_get_hook(function: *mut c_void) -> *mut c_void {
    let hooks = HOOKS.read();
    let known = hooks
        .as_ref()
        .and_then(|hooks| hooks.single.get(&(function as usize)));
    known.map_or(std::ptr::null_mut(), |(hook, _)| *hook as *mut c_void)
}

/// `void veo_unregister_hook(void *)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_unregister_hook(function: *mut c_void) {
    if let Some(hooks) = HOOKS.write().as_mut() {
        hooks.single.remove(&(function as usize));
    }
}

/// `void veo_register_hmem_hook_functions(void (*)(void *, size_t), void (*)(uint64_t))`
///
/// # Safety
/// The functions take these arguments on any thread, until they are unregistered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn veo_register_hmem_hook_functions(
    allocated: Option<unsafe extern "C" fn(*mut c_void, usize)>,
    freed: Option<unsafe extern "C" fn(u64)>,
) {
    if let (Some(allocated), Some(freed)) = (allocated, freed) {
        HOOKS.write().get_or_insert_default().pair = Some(Pair { allocated, freed });
    }
}

/// `void veo_unregister_hmem_hook_functions(void)`
#[unsafe(no_mangle)]
pub extern "C" fn veo_unregister_hmem_hook_functions() {
    if let Some(hooks) = HOOKS.write().as_mut() {
        hooks.pair = None;
    }
}
