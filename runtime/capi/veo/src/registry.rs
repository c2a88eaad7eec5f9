//! Handles and HMEM pointers, and what they stand for.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use parking_lot::RwLock;
use windlass_abi::veo::{
    HMEM_PROCESS_SHIFT, HMEM_TAG, HMEM_VE, VEO_DEFAULT_STACKSIZE, VEO_MAX_HMEM_PROCS,
};

use crate::context::Context;
use crate::edge::{EBUSY, EINVAL, Errno, Result, say};
use crate::process::Process;

/// Of an address of a process.
const ADDRESS_BITS: u32 = 47;

/// Handles differ by this: they look like addresses, and are none.
const STEP: usize = 16;

struct Registry {
    /// The index is the identifier.
    processes: Vec<Option<Arc<Process>>>,
    contexts: Option<HashMap<usize, Arc<Context>>>,
    handles: usize,
}

static REGISTRY: RwLock<Registry> = RwLock::new(Registry {
    processes: Vec::new(),
    contexts: None,
    handles: 0,
});

/// In a forked child: nothing of the parent's is this process's.
static FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn forked() {
    FORKED.store(true, Ordering::Relaxed);
}

/// At exit(3) of the program: its VE processes end in order.
extern "C" fn leaving() {
    if FORKED.load(Ordering::Relaxed) {
        return;
    }
    let processes = std::mem::take(&mut REGISTRY.write().processes);
    for process in processes.into_iter().flatten() {
        process.end();
    }
}

fn arm() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both take functions that stay (the library is linked with -z nodelete); `forked` does what a child of a
        // process with threads may: one store.
        unsafe {
            libc::pthread_atfork(None, None, Some(forked));
            libc::atexit(leaving);
        }
    });
}

fn here() -> Result<()> {
    if FORKED.load(Ordering::Relaxed) {
        return Err(EBUSY);
    }
    Ok(())
}

fn handle() -> usize {
    let mut registry = REGISTRY.write();
    registry.handles += 1;
    registry.handles * STEP
}

/// A new process with its main context.
pub(crate) fn create(node: c_int, program: Option<&CStr>) -> Result<usize> {
    here().inspect_err(|_| {
        say("a forked child of a program that has VE processes can have none; exec(3) a program that makes them");
    })?;
    arm();
    let process = Arc::new(Process::start(handle(), node, program)?);
    if let Err(errno) = open(&process, VEO_DEFAULT_STACKSIZE) {
        if errno == EBUSY {
            process.life().tell();
        }
        process.end();
        return Err(errno);
    }
    process.life().ready();
    let mut registry = REGISTRY.write();
    let handle = process.handle;
    match registry.processes.iter_mut().find(|slot| slot.is_none()) {
        Some(slot) => *slot = Some(process),
        None => registry.processes.push(Some(process)),
    }
    Ok(handle)
}

/// Opens a context; its handle.
pub(crate) fn open(process: &Process, stack: usize) -> Result<usize> {
    let context = process.open(handle(), stack)?;
    let handle = context.handle;
    let mut registry = REGISTRY.write();
    registry
        .contexts
        .get_or_insert_default()
        .insert(handle, context);
    Ok(handle)
}

/// Closes a context that is not the main one.
pub(crate) fn close(context: &Context) -> Result<()> {
    let process = process(context.process)?;
    if process.is_main(context) {
        return Ok(());
    }
    let mut registry = REGISTRY.write();
    let removed = registry
        .contexts
        .as_mut()
        .and_then(|contexts| contexts.remove(&context.handle));
    drop(registry);
    // Of two that close one context, one does.
    removed.ok_or(EBUSY)?;
    context.close();
    process.forget(context);
    Ok(())
}

/// Ends a process.
pub(crate) fn destroy(handle: usize) -> Result<()> {
    here()?;
    let mut registry = REGISTRY.write();
    let found = registry
        .processes
        .iter_mut()
        .find_map(|slot| slot.take_if(|process| process.handle == handle));
    drop(registry);
    let ended = found.ok_or(EBUSY)?.end();
    let mut registry = REGISTRY.write();
    if let Some(contexts) = &mut registry.contexts {
        contexts.retain(|handle, _| !ended.contains(handle));
    }
    Ok(())
}

fn null_handle() -> Errno {
    EINVAL.because(|| "a null handle: what was to give it has failed".into())
}

/// The process of a handle.
///
/// # Errors
/// EINVAL for null; EBUSY for one that was destroyed, or is another's.
pub(crate) fn process(handle: usize) -> Result<Arc<Process>> {
    here()?;
    if handle == 0 {
        return Err(null_handle());
    }
    let registry = REGISTRY.read();
    let mut known = registry.processes.iter().flatten();
    known
        .find(|process| process.handle == handle)
        .cloned()
        .ok_or(EBUSY)
}

/// The main context of a process.
pub(crate) fn main_context(handle: usize) -> Result<Arc<Context>> {
    process(handle)?.context(0).ok_or(EBUSY)
}

/// The context of a handle; errors as for [`process`].
pub(crate) fn context(handle: usize) -> Result<Arc<Context>> {
    here()?;
    if handle == 0 {
        return Err(null_handle());
    }
    let registry = REGISTRY.read();
    let known = registry
        .contexts
        .as_ref()
        .and_then(|contexts| contexts.get(&handle));
    known.cloned().ok_or(EBUSY)
}

/// The identifier of a process.
pub(crate) fn identifier(handle: usize) -> Result<usize> {
    here()?;
    let registry = REGISTRY.read();
    let known = |slot: &Option<Arc<Process>>| {
        slot.as_ref()
            .is_some_and(|process| process.handle == handle)
    };
    registry.processes.iter().position(known).ok_or(EBUSY)
}

/// Whether it points to VE memory.
pub(crate) fn is_ve(pointer: u64) -> bool {
    pointer & HMEM_VE != 0
}

/// Whether it has the tag of a process that is there, before what may be an address: not any negative number.
pub(crate) fn is_tagged(pointer: u64) -> bool {
    address(pointer) < 1 << ADDRESS_BITS && process_of(pointer).is_some()
}

/// Without the tag.
pub(crate) fn address(pointer: u64) -> u64 {
    if is_ve(pointer) {
        pointer & !HMEM_TAG
    } else {
        pointer
    }
}

/// The identifier in a pointer to VE memory.
pub(crate) fn identifier_of(pointer: u64) -> Option<usize> {
    let identifier = (pointer & !HMEM_VE) >> HMEM_PROCESS_SHIFT;
    is_ve(pointer).then_some(identifier as usize)
}

/// An address with the tag; `None` for an identifier that does not fit.
pub(crate) fn tagged(address: u64, identifier: usize) -> Option<u64> {
    let fits = identifier < VEO_MAX_HMEM_PROCS;
    fits.then_some(address & !HMEM_TAG | HMEM_VE | (identifier as u64) << HMEM_PROCESS_SHIFT)
}

/// The process that a pointer to VE memory belongs to; `None` for other pointers, and when it is gone.
pub(crate) fn process_of(pointer: u64) -> Option<Arc<Process>> {
    here().ok()?;
    let identifier = identifier_of(pointer)?;
    REGISTRY.read().processes.get(identifier)?.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_bit_63_and_four_bits_below() {
        let tagged = tagged(0x7fff_1234_5678, 5).unwrap();
        assert_eq!(tagged, 1 << 63 | 5 << 59 | 0x7fff_1234_5678);
        assert_eq!((is_ve(tagged), identifier_of(tagged)), (true, Some(5)));
        assert_eq!(address(tagged), 0x7fff_1234_5678);
        assert_eq!(
            (is_ve(77), identifier_of(77), address(77)),
            (false, None, 77)
        );
        assert_eq!(super::tagged(77, 16), None);
    }
}
