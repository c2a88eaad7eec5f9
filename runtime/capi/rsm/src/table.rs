//! Handles: tokens of C programs, and what they stand for.
//!
//! A token is a serial number, a place in the table and a kind. It is never issued twice, so that one that was released is found
//! to be none, and so is any other number.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use windlass_rsm::{Barrier, Code, Controller, Export, Import, Scope, Signals};

use crate::edge::Answer;

/// Bits of a token below the serial number: a place, and what keeps tokens from looking like small numbers.
const PLACE_BITS: u32 = 20;
const LOW_BITS: u32 = 4;

/// A controller, as long as it was got more often than released.
pub(crate) struct Open {
    pub(crate) scope: Scope,
    /// `None` in a forked child until it needs it.
    pub(crate) controller: Option<Arc<Controller>>,
    pub(crate) count: usize,
}

/// What a token stands for.
pub(crate) enum Handle {
    Controller(Open),
    Export(Arc<Export>),
    Import(Arc<Import>),
    /// Local memory of lists of transfers.
    Local {
        scope: Scope,
        addr: usize,
        len: usize,
    },
}

impl Handle {
    /// The controller that it is, or was built on.
    fn scope(&self) -> Scope {
        match self {
            Self::Controller(open) => open.scope,
            Self::Export(export) => export.scope(),
            Self::Import(import) => import.scope(),
            Self::Local { scope, .. } => *scope,
        }
    }
}

struct Entry {
    token: usize,
    handle: Handle,
}

/// All handles of the process, and its barriers by their addresses.
pub(crate) struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    serial: usize,
    pub(crate) barriers: Option<HashMap<usize, Arc<Barrier>>>,
    /// The tokens of controllers.
    pub(crate) controllers: Vec<(Scope, usize)>,
}

static TABLE: RwLock<Table> = RwLock::new(Table {
    entries: Vec::new(),
    free: Vec::new(),
    serial: 1,
    barriers: None,
    controllers: Vec::new(),
});

/// This process is a forked child that has not put its table right.
static INHERITED: AtomicBool = AtomicBool::new(false);

pub(crate) type Writing = RwLockWriteGuard<'static, Table>;

pub(crate) fn write() -> Writing {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    if INHERITED.swap(false, Ordering::Relaxed) {
        table.disown();
    }
    table
}

fn read() -> RwLockReadGuard<'static, Table> {
    if INHERITED.load(Ordering::Relaxed) {
        drop(write());
    }
    TABLE.read().unwrap_or_else(PoisonError::into_inner)
}

/// For the handler in a forked child.
pub(crate) fn inherit() {
    INHERITED.store(true, Ordering::Relaxed);
}

/// What a segment's token stands for.
pub(crate) enum Segment {
    Export(Arc<Export>),
    Import(Arc<Import>),
}

impl Segment {
    pub(crate) fn signals(&self) -> &Signals {
        match self {
            Self::Export(export) => export.signals(),
            Self::Import(import) => import.signals(),
        }
    }
}

fn pointer(token: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(token)
}

fn place_of(token: usize) -> usize {
    token >> LOW_BITS & ((1 << PLACE_BITS) - 1)
}

impl Table {
    /// Of a parent's handles a child has only those of export segments, which say that they are not its own, and controllers.
    /// Nothing is freed, since the memory, the descriptors and the locks in them are the parent's.
    fn disown(&mut self) {
        for (place, slot) in self.entries.iter_mut().enumerate() {
            match slot {
                Some(Entry {
                    handle: Handle::Controller(open),
                    ..
                }) => std::mem::forget(open.controller.take()),
                Some(Entry {
                    handle: Handle::Import(_) | Handle::Local { .. },
                    ..
                }) => {
                    std::mem::forget(slot.take());
                    self.free.push(place);
                }
                Some(Entry {
                    handle: Handle::Export(_),
                    ..
                })
                | None => {}
            }
        }
        std::mem::forget(self.barriers.take());
    }

    pub(crate) fn insert(&mut self, handle: Handle) -> Answer<*mut c_void> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.entries.len() >> PLACE_BITS == 0 => {
                self.entries.push(None);
                self.entries.len() - 1
            }
            None => return Err(Code::InsufficientResources),
        };
        let token = self.serial << (PLACE_BITS + LOW_BITS) | place << LOW_BITS;
        self.serial += 1;
        self.entries[place] = Some(Entry { token, handle });
        Ok(pointer(token))
    }

    pub(crate) fn find(&mut self, token: *const c_void) -> Option<&mut Handle> {
        let entry = self.entries.get_mut(place_of(token.addr()))?.as_mut()?;
        (entry.token == token.addr()).then_some(&mut entry.handle)
    }

    fn look(&self, token: *const c_void) -> Option<&Handle> {
        let entry = self.entries.get(place_of(token.addr()))?.as_ref()?;
        (entry.token == token.addr()).then_some(&entry.handle)
    }

    pub(crate) fn remove(&mut self, token: *const c_void) -> Option<Handle> {
        self.find(token)?;
        let place = place_of(token.addr());
        self.free.push(place);
        self.entries[place].take().map(|entry| entry.handle)
    }

    /// Everything of a controller, at its end, and then the barriers of its segments.
    pub(crate) fn clear(&mut self, scope: Scope) -> (Vec<Handle>, Vec<Arc<Barrier>>) {
        let mut handles = Vec::new();
        for (place, slot) in self.entries.iter_mut().enumerate() {
            if let Some(entry) = slot.take_if(|entry| entry.handle.scope() == scope) {
                self.free.push(place);
                handles.push(entry.handle);
            }
        }
        self.controllers.retain(|(other, _)| *other != scope);
        let barriers = self.barriers.iter_mut().flatten();
        let of: Vec<usize> = barriers
            .filter_map(|(at, barrier)| (barrier.scope() == scope).then_some(*at))
            .collect();
        let removed = of
            .iter()
            .filter_map(|at| self.barriers.as_mut()?.remove(at))
            .collect();
        (handles, removed)
    }
}

pub(crate) fn export(token: *const c_void) -> Answer<Arc<Export>> {
    match read().look(token) {
        Some(Handle::Export(export)) => Ok(Arc::clone(export)),
        _ => Err(Code::BadSegHndl),
    }
}

#[inline]
pub(crate) fn import(token: *const c_void) -> Answer<Arc<Import>> {
    match read().look(token) {
        Some(Handle::Import(import)) => Ok(Arc::clone(import)),
        _ => Err(Code::BadSegHndl),
    }
}

pub(crate) fn segment(token: *const c_void) -> Answer<Segment> {
    match read().look(token) {
        Some(Handle::Export(export)) => Ok(Segment::Export(Arc::clone(export))),
        Some(Handle::Import(import)) => Ok(Segment::Import(Arc::clone(import))),
        _ => Err(Code::BadSegHndl),
    }
}

/// Address and bytes.
pub(crate) fn local(token: *const c_void) -> Option<(usize, usize)> {
    match read().look(token) {
        Some(Handle::Local { addr, len, .. }) => Some((*addr, *len)),
        _ => None,
    }
}

/// The segment whose descriptor is given out under this number.
pub(crate) fn polled(number: i32) -> Option<Segment> {
    read().entries.iter().flatten().find_map(|entry| {
        let found = match &entry.handle {
            Handle::Export(export) => Segment::Export(Arc::clone(export)),
            Handle::Import(import) => Segment::Import(Arc::clone(import)),
            _ => return None,
        };
        found.signals().is(number).then_some(found)
    })
}

pub(crate) fn insert(handle: Handle) -> Answer<*mut c_void> {
    write().insert(handle)
}

pub(crate) fn remove(token: *const c_void) -> Option<Handle> {
    write().remove(token)
}

/// Which controller's it is.
pub(crate) fn check_controller(token: *const c_void) -> Answer<Scope> {
    match read().look(token) {
        Some(Handle::Controller(open)) => Ok(open.scope),
        _ => Err(Code::BadCtlrHndl),
    }
}

/// The controller of a token; in a forked child its own.
pub(crate) fn controller(token: *const c_void) -> Answer<Arc<Controller>> {
    let scope = match read().look(token) {
        Some(Handle::Controller(open)) => match &open.controller {
            Some(controller) => return Ok(Arc::clone(controller)),
            None => open.scope,
        },
        _ => return Err(Code::BadCtlrHndl),
    };
    let own = crate::seat::controller(scope)?;
    match write().find(token) {
        Some(Handle::Controller(open)) => {
            open.controller = Some(Arc::clone(&own));
            Ok(own)
        }
        _ => Err(Code::BadCtlrHndl),
    }
}

pub(crate) fn barrier(at: usize) -> Option<Arc<Barrier>> {
    read().barriers.as_ref()?.get(&at).map(Arc::clone)
}
