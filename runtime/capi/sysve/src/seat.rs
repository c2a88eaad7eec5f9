//! The process on its VE: joined at the first call, anew in a forked child.
//!
//! A child is on its parent's VE; on another one if it has changed `VE_NODE_NUMBER` before its first call (on real Vector Engines
//! only another program can be there).

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use windlass_mem::atfork::AtFork;
use windlass_node::{Entered, Kin, enter_with, visit_with, with_sources};
use windlass_ve::{Errno, Modes, PageSize, Process};

use crate::edge::{Refused, say};
use crate::own::Own;
use crate::vedma::Handles;

/// Which VE (section 12 has it for VEO; VE programs have always had it).
const VE: &str = "VE_NODE_NUMBER";
/// Whose Vector Engines.
const KIND: &str = "WINDLASS_VE";
/// With which default page size the executable was linked.
const PAGE: &str = "WINDLASS_VE_PAGE";

/// This process as VEOS knows it.
pub(crate) struct Seat {
    pub(crate) process: Process,
    pub(crate) handles: Handles,
    own: Mutex<Own>,
    checking: bool,
    entered: Entered,
    /// What the environment said of the VE.
    told: Option<String>,
}

/// Null until the first call. Leaked, so that threads may use it until the process ends.
static SEAT: AtomicPtr<Seat> = AtomicPtr::new(std::ptr::null_mut());

/// Variables that nobody reads have been named, by this process or the one it was forked from.
static NAMED: AtomicBool = AtomicBool::new(false);

/// The program that started this process says what is to be said of variables.
static SPOKEN_FOR: AtomicBool = AtomicBool::new(false);

/// This process could not join, and has said why.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Somebody joins, or forks: a child finds it free. Not a lock of the system's, which only its own thread may free.
static JOINING: AtomicBool = AtomicBool::new(false);

/// How often a thread looks that finds another one joining.
const LOOK: Duration = Duration::from_micros(100);

struct Joining;

impl Joining {
    fn begin() -> Self {
        while JOINING.swap(true, Ordering::Acquire) {
            std::thread::sleep(LOOK);
        }
        Self
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        JOINING.store(false, Ordering::Release);
    }
}

/// A parent of this process had joined, on that VE: the place of a rank is taken, by it.
static PARENT: AtomicPtr<Seat> = AtomicPtr::new(std::ptr::null_mut());

/// The seat of this process; the first call takes it.
///
/// # Errors
/// ECANCELED: VEOS does not know this process, for the reason that the first call has put on standard error.
pub(crate) fn seat() -> Result<&'static Seat, Errno> {
    if let Some(seat) = present() {
        return Ok(seat);
    }
    let _one = Joining::begin();
    if let Some(seat) = present() {
        return Ok(seat);
    }
    match join() {
        Ok(seat) => {
            SEAT.store(Box::into_raw(Box::new(seat)), Ordering::Release);
            present().ok_or(Errno::Ecanceled)
        }
        Err(why) => {
            if !TOLD.swap(true, Ordering::Relaxed) {
                eprintln!("windlass VE: this process cannot join a Vector Engine: {why}");
            }
            Err(Errno::Ecanceled)
        }
    }
}

/// Says once if it is that the node's service has ended under this process: ECANCELED alone does not say so.
pub(crate) fn tell_gone(error: &windlass_ve::Error) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if let windlass_ve::Error::Gone { call } = error
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        eprintln!(
            "windlass VE: {call}: the service of the VE node has ended (killed, say): this and all later calls that need it fail \
             with ECANCELED; what is mapped stays readable; start the programs of this node again"
        );
    }
}

fn present() -> Option<&'static Seat> {
    // SAFETY: what is stored there is a leaked box.
    unsafe { SEAT.load(Ordering::Acquire).as_ref() }
}

/// Of a rank the launcher has done so.
fn name_unknown_variables() {
    if NAMED.swap(true, Ordering::Relaxed) || std::env::var_os("WINDLASS_RANK").is_some() {
        return;
    }
    for unknown in windlass_node::unknown_here() {
        eprintln!("windlass VE: warning: {unknown}");
    }
}

/// Once for a program, as of unknown variables: its children have its environment.
fn name_overruled_variables(entered: &Entered) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if SPOKEN_FOR.load(Ordering::Relaxed) || TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    for said in entered.overruled() {
        eprintln!("windlass VE: warning: {said}");
    }
}

/// `void windlass_variables_named(void)`: in no header, for aveorun, whose program has done it already.
#[unsafe(no_mangle)]
pub extern "C" fn windlass_variables_named() {
    NAMED.store(true, Ordering::Relaxed);
    SPOKEN_FOR.store(true, Ordering::Relaxed);
}

fn join() -> Result<Seat, String> {
    name_unknown_variables();
    emulated()?;
    let modes = Modes::from_env().map_err(|error| error.to_string())?;
    let checking = modes.check.is_some();
    let told = variable(VE)?;
    let page = page()?;
    FORKS.watch().map_err(|error| with_sources(&error))?;
    // SAFETY: as in `present`.
    let parent = unsafe { PARENT.load(Ordering::Relaxed).as_ref() };
    let kin = kin();
    let kin = kin.as_ref();
    let entered = match parent {
        Some(parent) if parent.told == told => visit_with(parent.entered.ve, kin),
        Some(_) => visit_with(Some(number(told.as_deref())?), kin),
        // A child that has said where it is does not take the place of the program that it is of.
        None if is_forked() && AT_FIRST.get() != Some(&told) => {
            visit_with(Some(number(told.as_deref())?), kin)
        }
        None => enter_with(Some(number(told.as_deref())?), kin),
    };
    let entered = entered.map_err(|error| with_sources(&error))?;
    if entered.ve.is_none() {
        let rank = entered.rank.unwrap_or_default();
        return Err(format!(
            "rank {rank} is a process of the host; place it on a Vector Engine (windlass run --ves 1 --place ve ...)"
        ));
    }
    if let Some((name, path)) = entered.variable() {
        // SAFETY: as with any call of setenv, no other thread may be changing the environment by other means; the C library
        // has a lock of its own for this one.
        unsafe { std::env::set_var(name, path) };
    }
    name_overruled_variables(&entered);
    let control = std::sync::Arc::clone(&entered.control);
    let process = Process::join_with(control, modes).map_err(|error| with_sources(&error))?;
    process.await_dma_init();
    process.dma().set_checking(false);
    if page == PageSize::M2 {
        process
            .linked_with(page)
            .map_err(|error| with_sources(&error))?;
    }
    Ok(Seat {
        process,
        handles: Handles::new(checking),
        own: Mutex::new(Own::new(page, checking)),
        checking,
        entered,
        told,
    })
}

fn variable(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// The VE by its number; 0 where there is none.
fn number(told: Option<&str>) -> Result<u32, String> {
    let Some(value) = told else { return Ok(0) };
    value.parse().map_err(|_| {
        let last = windlass_ve::MAX_VES - 1;
        format!("{VE}={value} is not the number of a Vector Engine; give 0 to {last}")
    })
}

/// Whoever asks for a card does not get its emulation in silence.
fn emulated() -> Result<(), String> {
    match variable(KIND)?.as_deref() {
        None | Some("" | "emulated") => Ok(()),
        Some("native") => Err(format!(
            "{KIND}=native asks for a card, and this libsysve.so.1 is the emulation; unset it, or link NEC's library"
        )),
        Some(other) => Err(format!("{KIND}={other} is not accepted; give emulated")),
    }
}

fn page() -> Result<PageSize, String> {
    match variable(PAGE)?.as_deref() {
        None | Some("64M") => Ok(PageSize::M64),
        Some("2M") => Ok(PageSize::M2),
        Some(value) => Err(format!("{PAGE}={value} is not accepted; give 2M or 64M")),
    }
}

impl Seat {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells VEOS what the program has unmapped since the last call.
    pub(crate) fn refresh(&self) {
        self.own().refresh(&self.process);
    }

    /// The same, and makes VE memory of a range as far as that can be.
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) fn take(&self, start: usize, len: usize) -> Result<(), Errno> {
        let mut own = self.own();
        own.refresh(&self.process);
        own.take(&self.process, start, len)
    }

    /// Says what is wrong, in the checking mode.
    pub(crate) fn warn(&self, what: &str) {
        if self.checking {
            eprintln!("windlass VE: {what}");
        }
    }

    /// What the library itself refuses, with its rule in the checking mode.
    pub(crate) fn refuse(&self, call: &str, errno: Errno, rule: &str) -> Refused {
        if self.checking {
            say(call, errno, rule);
        }
        errno.into()
    }

    /// A rule, with why nobody is found whom this process cannot know.
    pub(crate) fn explain(&self, errno: Errno, rule: String) -> String {
        if errno == Errno::Esrch && self.entered.is_alone() {
            return format!(
                "{rule}; this process is alone on a private node: give both programs WINDLASS_NODE_NAME, or run both under one `windlass run`"
            );
        }
        rule
    }

    /// The page size that memory of this process has, or would have, in bytes.
    pub(crate) fn page_of(&self, address: usize) -> Option<u64> {
        self.own().page_of(address).map(PageSize::bytes)
    }
}

/// The program that this process is of: its first process, that one's user, and a number that nobody else has. Its processes meet on one node,
/// whichever of them comes first.
static PROGRAM: Program = Program {
    first: AtomicI32::new(0),
    user: AtomicU32::new(0),
    number: AtomicU64::new(0),
};

struct Program {
    first: AtomicI32,
    user: AtomicU32,
    number: AtomicU64,
}

/// What the environment said of the VE when the library was loaded.
static AT_FIRST: OnceLock<Option<String>> = OnceLock::new();

/// When the library is loaded.
extern "C" fn begin() {
    AT_FIRST.get_or_init(|| std::env::var(VE).ok());
    let mut number = [0; 8];
    // SAFETY: the kernel writes at most so many bytes to memory of this function's own.
    let got = unsafe { libc::getrandom(number.as_mut_ptr().cast(), number.len(), 0) };
    // SAFETY: takes nothing, and never fails.
    let user = unsafe { libc::geteuid() };
    if got == 8 {
        let number = u64::from_ne_bytes(number);
        PROGRAM.number.store(number, Ordering::Relaxed);
    }
    PROGRAM.user.store(user, Ordering::Relaxed);
    let first = std::process::id() as i32;
    PROGRAM.first.store(first, Ordering::Relaxed);
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

fn is_forked() -> bool {
    PROGRAM.first.load(Ordering::Relaxed) != std::process::id() as i32
}

/// The node of the program where nothing names another one.
fn kin() -> Option<Kin> {
    let number = PROGRAM.number.load(Ordering::Relaxed);
    if number == 0 {
        return None;
    }
    Some(Kin {
        user: PROGRAM.user.load(Ordering::Relaxed),
        name: format!("own-ve-{number:016x}").parse().ok()?,
    })
}

// SAFETY: functions of this library, which is never unloaded (`build.rs`); the child's does as it says.
static FORKS: AtFork = unsafe { AtFork::new(before, in_parent, in_child) };

unsafe extern "C" fn before() {
    std::mem::forget(Joining::begin());
}

unsafe extern "C" fn in_parent() {
    drop(Joining);
}

/// A child is another process, with nothing of its parent's (section 6). The rest of its parent's seat is leaked: what else is in
/// it may be locked by a thread that the child does not have.
unsafe extern "C" fn in_child() {
    let seat = SEAT.swap(std::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: as in `present`.
    if let Some(seat) = unsafe { seat.as_ref() } {
        PARENT.store(std::ptr::from_ref(seat).cast_mut(), Ordering::Relaxed);
        seat.entered.abandon();
    }
    TOLD.store(false, Ordering::Relaxed);
    drop(Joining);
}

/// When the program ends, or the library is unloaded: a rank that ends without a goodbye has failed.
extern "C" fn leave() {
    let _ = std::panic::catch_unwind(|| {
        if let Some(seat) = present() {
            // Also those that the reordering mode holds back.
            seat.process.dma().arrive();
            seat.entered.goodbye();
        }
    });
}

#[used]
#[unsafe(link_section = ".fini_array")]
static LEAVE: extern "C" fn() = leave;
