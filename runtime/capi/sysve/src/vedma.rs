//! `vedma.h`: the ring of DMA descriptors with C's handles (ve-memory section 9.3).
//!
//! A handle is the caller's memory. The ring knows handles of its own; here each descriptor remembers the caller's, to store the
//! result there when a later post takes the descriptor (step 3).

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_abi::vedma::{PENDING, ve_dma_handle_t};
use windlass_ve::{DESCRIPTORS, Exception, Handle, PollError, RingFull, Vehva};

use crate::edge::{call, code};
use crate::seat::{Seat, seat};

/// Not completed, or no descriptor is free.
const AGAIN: c_int = -libc::EAGAIN;

/// The last post with a handle that took a descriptor.
struct Posted {
    caller: *mut ve_dma_handle_t,
    ring: Handle,
    /// Nobody has asked for its final result yet.
    open: bool,
}

/// By descriptor.
pub(crate) struct Handles {
    posted: Mutex<Ring>,
    checking: bool,
}

struct Ring {
    posted: [Option<Posted>; DESCRIPTORS],
    /// In the checking mode: the handles that a later post has stored a result in, and nobody has polled since.
    stored: BTreeSet<usize>,
}

// SAFETY: the addresses are those of handles that the caller keeps for the ring, from whatever thread (section 9.3).
unsafe impl Send for Handles {}
// SAFETY: as above; they are used under the lock.
unsafe impl Sync for Handles {}

impl Handles {
    pub(crate) fn new(checking: bool) -> Self {
        Self {
            posted: Mutex::new(Ring {
                posted: [const { None }; DESCRIPTORS],
                stored: BTreeSet::new(),
            }),
            checking,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Step 3 at the caller: a later post has taken the descriptor of an older one.
    fn store(&self, index: usize, old: &mut Posted, stored: &mut BTreeSet<usize>) {
        let Some(exception) = old.ring.stored().filter(|_| old.open) else {
            return;
        };
        old.open = false;
        // SAFETY: the caller keeps the handle where it is until its final result was taken (section 9.3), and nobody has.
        unsafe {
            let there = old.caller.read();
            if self.checking && (there.status != PENDING || there.index as usize != index) {
                broken(&format!(
                    "the handle of descriptor {index} went before its final result was taken, and a later post stores the result there; keep it until it is polled (ve-memory 9.3)"
                ));
            }
            (*old.caller).status = exception.bits().into();
        }
        if self.checking {
            stored.insert(old.caller.addr());
        }
    }
}

/// A rule of what is undefined was broken: says which, and ends the process.
fn broken(rule: &str) -> ! {
    eprintln!("windlass VE: error: {rule}");
    std::process::abort();
}

/// The seat for a transfer. Without one nothing was initialised, and posting is undefined.
fn ready(what: &str) -> &'static Seat {
    match seat() {
        Ok(seat) => seat,
        Err(_) => broken(&format!(
            "{what} without ve_dma_init; call it first, in a forked child too (ve-memory 9.3)"
        )),
    }
}

/// `int ve_dma_init(void)`.
#[unsafe(no_mangle)]
pub extern "C" fn ve_dma_init() -> c_int {
    call(-1, || {
        seat()?.process.dma_init()?;
        Ok(0)
    })
}

/// `int ve_dma_post(uint64_t dst, uint64_t src, int size, ve_dma_handle_t *handle)`.
///
/// # Safety
/// `handle` stays valid, and is used by nobody else, until its final result was polled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ve_dma_post(
    dst: u64,
    src: u64,
    size: c_int,
    handle: *mut ve_dma_handle_t,
) -> c_int {
    code(AGAIN, || {
        let seat = ready("a DMA transfer is posted");
        let (dst, src) = (Vehva::new(dst), Vehva::new(src));
        let mut handles = seat.handles.lock();
        let Ring { posted, stored } = &mut *handles;
        let busy = |old: &Posted| old.open && old.caller == handle;
        if seat.handles.checking
            && let Some(index) = posted.iter().position(|old| old.as_ref().is_some_and(busy))
        {
            broken(&format!(
                "a handle is posted again while its transfer has descriptor {index}; poll it to its final result first (ve-memory 9.3)"
            ));
        }
        let ring = Handle::new();
        // The length is taken as unsigned (section 9.2).
        match seat.process.dma().post(dst, src, size as u32, &ring) {
            Ok(()) => {}
            Err(RingFull) => return AGAIN,
        }
        let index = ring.index();
        let new = Posted {
            caller: handle,
            ring,
            open: true,
        };
        if let Some(mut old) = posted[index].replace(new) {
            seat.handles.store(index, &mut old, stored);
        }
        stored.remove(&handle.addr());
        // SAFETY: the caller's promise.
        unsafe {
            handle.write(ve_dma_handle_t {
                status: PENDING,
                index: index as c_int,
            });
        }
        0
    })
}

/// `int ve_dma_poll(ve_dma_handle_t *handle)`.
///
/// # Safety
/// `handle` is one that was posted, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ve_dma_poll(handle: *mut ve_dma_handle_t) -> c_int {
    code(AGAIN, || {
        // SAFETY: the caller's promise.
        unsafe { poll(handle) }
    })
}

/// # Safety
/// As of `ve_dma_poll`.
unsafe fn poll(handle: *mut ve_dma_handle_t) -> c_int {
    let seat = ready("a DMA transfer is polled");
    let mut handles = seat.handles.lock();
    let Ring { posted, stored } = &mut *handles;
    // SAFETY: the caller's promise; posts of other threads write there under the same lock.
    let there = unsafe { handle.read() };
    if there.status != PENDING {
        // Such a status is what a later post has stored there, once.
        if seat.handles.checking && !stored.remove(&handle.addr()) {
            broken(
                "a handle is polled that has no transfer: it was never posted, its final result was taken, or it was overwritten; post it, then poll it to its final result once (ve-memory 9.3)",
            );
        }
        return there.status;
    }
    let index = there.index as usize % DESCRIPTORS;
    let Some(posted) = &mut posted[index] else {
        if seat.handles.checking {
            broken("a handle is polled that was never posted; post it first (ve-memory 9.3)");
        }
        // The descriptor is one that is not completed.
        return AGAIN;
    };
    if seat.handles.checking && posted.caller != handle {
        broken(&format!(
            "the handle of descriptor {index} is polled after its final result, was never posted, or is a copy of the one that was; poll each posted handle to its final result once (ve-memory 9.3)"
        ));
    }
    let outcome = seat.process.dma().poll(&posted.ring);
    posted.open &= outcome == Err(PollError::Pending);
    result(outcome)
}

fn result(outcome: Result<Exception, PollError>) -> c_int {
    match outcome {
        Ok(exception) => exception.bits().into(),
        Err(PollError::Pending | PollError::Stale { .. }) => AGAIN,
    }
}

/// `int ve_dma_wait(ve_dma_handle_t *handle)`.
///
/// # Safety
/// As of [`ve_dma_poll`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ve_dma_wait(handle: *mut ve_dma_handle_t) -> c_int {
    code(AGAIN, || {
        loop {
            // SAFETY: the caller's promise.
            match unsafe { poll(handle) } {
                AGAIN => std::thread::yield_now(),
                result => return result,
            }
        }
    })
}

/// `int ve_dma_post_wait(uint64_t dst, uint64_t src, int size)`.
#[unsafe(no_mangle)]
pub extern "C" fn ve_dma_post_wait(dst: u64, src: u64, size: c_int) -> c_int {
    code(AGAIN, || {
        let seat = ready("a DMA transfer is posted");
        let (dst, src) = (Vehva::new(dst), Vehva::new(src));
        // Not under the lock of handles: others go on polling while this one waits.
        let exception = seat.process.dma().post_wait(dst, src, size as u32);
        let mut handles = seat.handles.lock();
        let Ring { posted, stored } = &mut *handles;
        for (index, old) in posted.iter_mut().enumerate() {
            if let Some(old) = old.as_mut().filter(|old| old.open) {
                seat.handles.store(index, old, stored);
            }
        }
        exception.bits().into()
    })
}

/// `void ve_dma_read_ctrl_reg(uint64_t *regs)`.
///
/// # Safety
/// `regs` is valid for writing two words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ve_dma_read_ctrl_reg(regs: *mut u64) {
    code((), || {
        let words = ready("DMA control is read")
            .process
            .dma()
            .control_registers();
        // SAFETY: the caller's promise.
        unsafe { regs.cast::<[u64; 2]>().write_unaligned(words) };
    });
}

/// `int windlass_dma_hold(int held)`: in no header, for tests. Halts the engine of this process, as when none of its threads is on
/// a core (section 9.4), or lets it run and execute what was posted. 0, or -1 with errno where the process has no VE.
#[unsafe(no_mangle)]
pub extern "C" fn windlass_dma_hold(held: c_int) -> c_int {
    call(-1, || {
        let dma = seat()?.process.dma();
        if held == 0 {
            dma.resume();
        } else {
            dma.hold();
        }
        Ok(0)
    })
}

/// `int windlass_dma_step(void)`: as [`windlass_dma_hold`]. Executes one posted descriptor; 0 where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn windlass_dma_step() -> c_int {
    call(-1, || Ok(seat()?.process.dma().step().into()))
}

/// `int windlass_dma_strict(int strict)`: as [`windlass_dma_hold`]. With it a transfer between two other VEs, which is undocumented,
/// ends with 0x0800 (section 9.2).
#[unsafe(no_mangle)]
pub extern "C" fn windlass_dma_strict(strict: c_int) -> c_int {
    call(-1, || {
        seat()?.process.dma().set_strict(strict != 0);
        Ok(0)
    })
}
