//! The process on its node: entered when it first needs it, anew in a forked child, which is another process.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_mem::atfork::AtFork;
use windlass_node::{Entered, with_sources};
use windlass_rsm::{Code, Controller, Scope};

use crate::table::{self, Writing};

/// Who this process is to its node.
pub(crate) struct Seat {
    entered: Entered,
    controller: Arc<Controller>,
    /// The one that leads to every node, once it was asked for.
    cluster: Option<Arc<Controller>>,
}

/// Taken while somebody enters, too.
static SEAT: Mutex<Option<Seat>> = Mutex::new(None);

/// A parent of this process had entered: the place of a rank is taken, by it.
static CHILD: AtomicBool = AtomicBool::new(false);

fn seat() -> MutexGuard<'static, Option<Seat>> {
    SEAT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A controller, on the node, which is entered if need be.
///
/// # Errors
/// [`Code::CtlrNotPresent`], for the reason that is on standard error; those of [`Controller::open`].
pub(crate) fn controller(scope: Scope) -> Result<Arc<Controller>, Code> {
    let mut seat = seat();
    if let Some(seated) = &*seat
        && let Err(Code::CtlrNotPresent) = seated.controller.attributes()
    {
        // A service that has gone is followed by the next.
        *seat = None;
    }
    let seated = match &mut *seat {
        Some(seated) => seated,
        empty => empty.insert(sit()?),
    };
    match (scope, &seated.cluster) {
        (Scope::Node, _) => Ok(Arc::clone(&seated.controller)),
        (Scope::Cluster, Some(cluster)) => Ok(Arc::clone(cluster)),
        (Scope::Cluster, None) => {
            let opened = Controller::open(seated.entered.segments(), scope)?;
            Ok(Arc::clone(seated.cluster.insert(opened)))
        }
    }
}

fn sit() -> Result<Seat, Code> {
    let entered = enter().map_err(|why| {
        eprintln!("windlass RSM: this process cannot enter a node: {why}");
        Code::CtlrNotPresent
    })?;
    let controller = Controller::open(entered.segments(), Scope::Node)?;
    Ok(Seat {
        entered,
        controller,
        cluster: None,
    })
}

fn enter() -> Result<Entered, String> {
    name_unknown_variables();
    FORKS.watch().map_err(|error| with_sources(&error))?;
    let entered = match CHILD.load(Ordering::Relaxed) {
        true => windlass_node::visit(None),
        false => windlass_node::enter(None),
    };
    let entered = entered.map_err(|error| with_sources(&error))?;
    if let Some((name, path)) = entered.variable() {
        // SAFETY: as with any call of setenv, no other thread may be changing the environment by other means; the C library
        // has a lock of its own for this one.
        unsafe { std::env::set_var(name, path) };
    }
    Ok(entered)
}

/// Of a rank the launcher has done so.
fn name_unknown_variables() {
    static NAMED: AtomicBool = AtomicBool::new(false);
    let child = CHILD.load(Ordering::Relaxed);
    if child || NAMED.swap(true, Ordering::Relaxed) || std::env::var_os("WINDLASS_RANK").is_some() {
        return;
    }
    for unknown in windlass_node::unknown_here() {
        eprintln!("windlass RSM: warning: {unknown}");
    }
}

// SAFETY: functions of this library, which is never unloaded (`build.rs`); the child's does as it says.
static FORKS: AtFork = unsafe { AtFork::new(before, in_parent, in_child) };

/// What the first handler leaves for the second: a child finds the seat and the table whole and free.
struct Held(UnsafeCell<Option<(Writing, MutexGuard<'static, Option<Seat>>)>>);

// SAFETY: the content is touched by the fork handlers alone, which run one after the other in one thread that holds both locks
// from the first to the last; in the child there is no other thread.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

unsafe extern "C" fn before() {
    let seat = seat();
    let table = table::write();
    // SAFETY: as of `Sync`.
    unsafe { *HELD.0.get() = Some((table, seat)) };
}

unsafe extern "C" fn in_parent() {
    // SAFETY: as of `Sync`.
    drop(unsafe { (*HELD.0.get()).take() });
}

/// Nothing of the parent's connection may be used, nor freed: what else is in it may be locked by a thread that the child does
/// not have. The table is put right at the child's first call, outside of this handler.
unsafe extern "C" fn in_child() {
    // SAFETY: as of `Sync`.
    if let Some((table, mut seat)) = unsafe { (*HELD.0.get()).take() } {
        if let Some(seat) = seat.take() {
            seat.entered.abandon();
            std::mem::forget(seat);
            CHILD.store(true, Ordering::Relaxed);
        }
        table::inherit();
        drop((table, seat));
    }
}

/// When the program ends: a rank that ends without a goodbye has failed.
extern "C" fn leave() {
    let _ = std::panic::catch_unwind(|| {
        if let Some(seat) = &*seat() {
            seat.entered.goodbye();
        }
    });
}

#[used]
#[unsafe(link_section = ".fini_array")]
static LEAVE: extern "C" fn() = leave;
