//! Every other thread of this process stands still in a signal handler.
//!
//! A real-time signal that nobody uses is taken the first time, and kept: a thread that answers late must find the
//! handler, not the default, which is death. Each pause has an odd generation; a handler that finds another one leaves
//! at once. A thread that blocks the signal, or that the kernel does not let go, never answers: then there is no pause.
//! System calls of paused threads are begun again, or answer EINTR where they are of that kind.

use std::ffi::CStr;
use std::io::Write;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::futex;

use super::freeze::{each_thread, this_thread};
use crate::error::{Error, Result};

/// Threads that can be paused at once.
const MOST: usize = 1024;

/// How long a thread may take to answer: one that computes needs to be scheduled once.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one that waits and blocks the signal is waited for.
const DEAF: Duration = Duration::from_millis(100);

/// How often the list of threads is looked at again while some have not answered.
const LOOK: Duration = Duration::from_millis(1);

/// Odd while a pause is in force.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Answers so far, also those that found no room.
static ANSWERS: AtomicU32 = AtomicU32::new(0);
/// Generation and thread of each answer.
static WHO: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
/// Where the stack of each ended when it was interrupted.
static STACK: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
/// The signal, once it is taken.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// While it lives the other threads stand still. The caller holds the lock of [`reback`](super): one at a time.
pub(super) struct Pause {
    generation: u32,
}

impl Pause {
    /// Stops all other threads. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Unmovable`] if one does not answer; all go on then.
    pub(super) fn all() -> Result<Pause> {
        let signal = signal()?;
        let generation = GENERATION.load(Ordering::Relaxed).wrapping_add(1);
        ANSWERS.store(0, Ordering::Relaxed);
        GENERATION.store(generation, Ordering::Release);
        let pause = Pause { generation };
        let mut told = Told {
            threads: [0; MOST],
            count: 0,
        };
        // Whoever is paused starts no thread. So when all of a list have answered, the next list is complete.
        let mut complete = false;
        let mut waited = Duration::ZERO;
        loop {
            let answers = ANSWERS.load(Ordering::Acquire);
            match pause.ask(signal, &mut told, waited)? {
                true if complete => return Ok(pause),
                true => complete = true,
                false if waited >= PATIENCE => {
                    return Err(unmovable(
                        "a thread does not answer the signal that pauses it",
                    ));
                }
                false => {
                    complete = false;
                    let look = Timespec {
                        tv_sec: 0,
                        tv_nsec: LOOK.as_nanos() as _,
                    };
                    let woken = futex::wait(&ANSWERS, futex::Flags::PRIVATE, answers, Some(&look));
                    if woken == Err(Errno::TIMEDOUT) {
                        waited += LOOK;
                    }
                }
            }
        }
    }

    /// Signals whoever has not been, and tells whether all there are have answered.
    fn ask(&self, signal: i32, told: &mut Told, waited: Duration) -> Result<bool> {
        let me = this_thread();
        let mut all = true;
        let mut failed = Ok(());
        each_thread(|thread| {
            if thread == me || self.has_answered(thread) || failed.is_err() {
                return;
            }
            if !told.knows(thread) {
                failed = told.tell(thread, signal);
            } else if waited > LOOK {
                let status = Status::of(thread);
                if matches!(status, Status::Gone) {
                    return;
                }
                // One that begins or ends blocks it too, but runs; one in the handler has answered by now.
                if waited >= DEAF && status.is_deaf(signal) && !self.has_answered(thread) {
                    failed = Err(unmovable("a thread blocks the signal that would pause it"));
                }
            }
            all = false;
        })?;
        failed.map(|()| all)
    }

    fn has_answered(&self, thread: i32) -> bool {
        let count = (ANSWERS.load(Ordering::Acquire) as usize).min(MOST);
        let answer = word(self.generation, thread);
        WHO[..count]
            .iter()
            .any(|who| who.load(Ordering::Acquire) == answer)
    }

    /// Is the stack of a paused thread in `[start, start + len)`?
    pub(super) fn runs_on(&self, start: usize, len: usize) -> bool {
        let count = (ANSWERS.load(Ordering::Acquire) as usize).min(MOST);
        let mut stacks = STACK[..count]
            .iter()
            .map(|stack| stack.load(Ordering::Relaxed));
        stacks.any(|stack| (start..start + len).contains(&stack))
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        GENERATION.store(self.generation.wrapping_add(1), Ordering::Release);
        // Nobody waits any more where this fails.
        let _ = futex::wake(&GENERATION, futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

fn word(generation: u32, thread: i32) -> u64 {
    u64::from(generation) << 32 | u64::from(thread as u32)
}

fn unmovable(rule: &'static str) -> Error {
    Error::Unmovable { rule }
}

/// Threads that were sent the signal.
struct Told {
    threads: [i32; MOST],
    count: usize,
}

impl Told {
    fn knows(&self, thread: i32) -> bool {
        self.threads[..self.count].contains(&thread)
    }

    fn tell(&mut self, thread: i32, signal: i32) -> Result<()> {
        let Some(slot) = self.threads.get_mut(self.count) else {
            return Err(unmovable("there are too many threads to pause them"));
        };
        *slot = thread;
        self.count += 1;
        let process = rustix::process::getpid().as_raw_pid();
        // SAFETY: tgkill takes three integers; the signal's handler is ours.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
        match sent {
            0 => Ok(()),
            _ => match Error::last("tgkill") {
                // It has ended, and the next list is without it.
                Error::System {
                    errno: Errno::SRCH, ..
                } => Ok(()),
                error => Err(error),
            },
        }
    }
}

/// What /proc/self/task/`thread`/status says.
enum Status {
    /// The signals that it blocks, the first in the lowest bit, and whether it waits for something.
    Blocks { set: u64, waits: bool },
    /// It has ended; a first thread stays in the list as a zombie.
    Gone,
}

impl Status {
    /// Allocates nothing.
    fn of(thread: i32) -> Status {
        let mut text = [0u8; 4096];
        match status(thread, &mut text) {
            Ok(len) => Status::read(&text[..len]),
            Err(_) => Status::Gone,
        }
    }

    fn read(text: &[u8]) -> Status {
        let field = |name: &[u8]| {
            let mut lines = text.split(|&byte| byte == b'\n');
            lines
                .find_map(|line| line.strip_prefix(name))
                .map(<[u8]>::trim_ascii)
        };
        let waits = match field(b"State:") {
            Some([b'Z' | b'X', ..]) => return Status::Gone,
            state => !matches!(state, Some([b'R', ..])),
        };
        let blocked = field(b"SigBlk:").and_then(|hex| std::str::from_utf8(hex).ok());
        let blocked = blocked.and_then(|hex| u64::from_str_radix(hex, 16).ok());
        Status::Blocks {
            set: blocked.unwrap_or(0),
            waits,
        }
    }

    /// Does it wait without hearing the signal?
    fn is_deaf(&self, signal: i32) -> bool {
        matches!(self, Status::Blocks { set, waits: true } if is_in(*set, signal))
    }
}

fn is_in(set: u64, signal: i32) -> bool {
    set >> (signal - 1) & 1 == 1
}

fn status(thread: i32, text: &mut [u8]) -> std::io::Result<usize> {
    let mut path = [0u8; 48];
    write!(&mut path[..], "/proc/self/task/{thread}/status")?;
    let path = CStr::from_bytes_until_nul(&path).unwrap_or_default();
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::io::read(&file, text)?)
}

/// The signal with our handler; the first time, the highest real-time signal that nobody uses: it has the default
/// action, and no thread blocks it to wait for it.
fn signal() -> Result<i32> {
    let mine = SIGNAL.load(Ordering::Relaxed);
    if mine != 0 && handler_of(mine) == handler as *const () as usize {
        return Ok(mine);
    }
    let began = Instant::now();
    let free = loop {
        let blocked = blocked_by_others()?;
        let mut signals = (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev();
        let free =
            signals.find(|&signal| handler_of(signal) == libc::SIG_DFL && !is_in(blocked, signal));
        match free {
            Some(free) => break free,
            // A thread that begins or ends blocks all of them for a moment.
            None if began.elapsed() < DEAF => std::thread::sleep(LOOK),
            None => {
                return Err(unmovable(
                    "no real-time signal is free to pause other threads",
                ));
            }
        }
    };
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: an all-zero `sigaction` is a value of it; its fields are set before it is used. The handler is sound on
    // any thread at any instruction: it only uses atomics and futexes.
    let taken = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = handler as *const () as usize;
        // On the thread's own stack: one that leaves the handler late may find its alternate stack unmapped by a
        // thread that ends the process meanwhile (Rust's runtime does that for the first thread).
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(free, action, std::ptr::null_mut())
    };
    if taken != 0 {
        return Err(Error::last("sigaction"));
    }
    SIGNAL.store(free, Ordering::Relaxed);
    Ok(free)
}

/// Signals that some other thread blocks.
fn blocked_by_others() -> Result<u64> {
    let me = this_thread();
    let mut blocked = 0;
    each_thread(|thread| {
        if thread != me
            && let Status::Blocks { set, .. } = Status::of(thread)
        {
            blocked |= set;
        }
    })?;
    Ok(blocked)
}

fn handler_of(signal: i32) -> usize {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only stores the present one, in a local of that type, which all-zero bytes
    // initialise.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction
    }
}

/// Answers, and waits until the pause is over. Async-signal-safe; leaves errno alone (raw system calls).
extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let generation = GENERATION.load(Ordering::Acquire);
    if generation.is_multiple_of(2) {
        return;
    }
    let slot = ANSWERS.fetch_add(1, Ordering::Relaxed) as usize;
    if let (Some(who), Some(stack)) = (WHO.get(slot), STACK.get(slot)) {
        stack.store(interrupted_stack(context), Ordering::Relaxed);
        who.store(word(generation, this_thread()), Ordering::Release);
    }
    let _ = futex::wake(&ANSWERS, futex::Flags::PRIVATE, 1);
    while GENERATION.load(Ordering::Acquire) == generation {
        let _ = futex::wait(&GENERATION, futex::Flags::PRIVATE, generation, None);
    }
}

/// The stack pointer of the interrupted code; 0 where this architecture's context is not known here.
fn interrupted_stack(context: *mut libc::c_void) -> usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the third argument of a handler with SA_SIGINFO points to the context, which lives as long as the call.
    return unsafe {
        (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RSP as usize] as usize
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    return unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.sp as usize };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = context;
        0
    }
}
