//! A VE process: started by a thread that stays until it has ended, and ends with it.
//!
//! The parent-death signal follows the *thread* that forked; so the thread that forks is one of the library's own, which
//! waits for the child, and nothing else: no zombie stays, and the child dies when the program does.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString, c_int};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno as Kernel, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, set_parent_process_death_signal, waitid,
};
use windlass_mem::cross;

use crate::card::{self, NAME, PRIVATE, RANK, Whose};
use crate::context::Context;
use crate::edge::{EBUSY, Errno, Result, say};
use crate::life::Life;
use crate::link::{Link, Reach};
use crate::protocol::Control;

/// Names the program that is a VE process.
const VARIABLE: &str = "WINDLASS_VEORUN";
/// Its name, beside the library or on PATH.
const PROGRAM: &str = "aveorun";

/// An answer of the control socket comes at once: this long for a machine that has much else to do.
const ANSWER: Duration = Duration::from_secs(30);
/// Time for exit(3): what the user's libraries do at their end.
const EXIT: Duration = Duration::from_secs(5);

/// Threads of a VE process at most (ve-memory 1).
pub(crate) const CONTEXTS: usize = 64;

/// One VE process.
#[derive(Debug)]
pub(crate) struct Process {
    /// The handle.
    pub(crate) handle: usize,
    /// The VE it runs on.
    pub(crate) node: c_int,
    control: Mutex<OwnedFd>,
    reach: Arc<Reach>,
    /// The first is the main context.
    contexts: Mutex<Vec<Arc<Context>>>,
}

impl Process {
    /// Starts a process on VE `node`; `program` as for veo_proc_create_static. It has no context yet.
    ///
    /// # Errors
    /// An errno of fork or exec, ENOENT without a program; EBUSY when it ended at once.
    pub(crate) fn start(handle: usize, node: c_int, program: Option<&CStr>) -> Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(kernel)?;
        let mut command = command(node, program, theirs.as_fd());
        // What it starts is the emulation, by whatever way the program came to this library.
        command.env("WINDLASS_VE", "emulated");
        let (process, life) = launch(command, theirs, node)?;
        Ok(Self {
            handle,
            node,
            control: Mutex::new(ours),
            reach: Arc::new(Reach::new(process, life)),
            contexts: Mutex::default(),
        })
    }

    pub(crate) fn pid(&self) -> c_int {
        self.reach.process.pid()
    }

    /// Whether it still runs.
    pub(crate) fn alive(&self) -> bool {
        self.reach.process.alive()
    }

    /// How it lives and ends.
    pub(crate) fn life(&self) -> &Life {
        &self.reach.life
    }

    /// A further context, with a stack of so many bytes on the VE.
    ///
    /// # Errors
    /// EBUSY when the process is gone; EAGAIN beyond [`CONTEXTS`]; what the process answered.
    pub(crate) fn open(&self, handle: usize, stack: usize) -> Result<Arc<Context>> {
        let mut contexts = self.contexts.lock();
        if contexts.len() >= CONTEXTS {
            return Err(Errno(libc::EAGAIN).because(|| {
                format!("a VE process has {CONTEXTS} contexts at most (ve-memory 1)")
            }));
        }
        let (ours, theirs) = UnixStream::pair().map_err(std_errno)?;
        let stack = stack as u64;
        let control = self.control.lock();
        match converse(&control, Control::Open { stack }, theirs.as_fd())? {
            0 => {}
            errno => {
                let why =
                    || format!("no thread with a stack of {stack:#x} bytes can begin on the VE");
                return Err(Errno(errno).because(why));
            }
        }
        drop(theirs);
        let link = Link::new(ours, Arc::clone(&self.reach)).map_err(std_errno)?;
        let context = Context::start(handle, self.handle, link)?;
        contexts.push(Arc::clone(&context));
        Ok(context)
    }

    /// The context with this index; 0 is the main one.
    pub(crate) fn context(&self, index: usize) -> Option<Arc<Context>> {
        self.contexts.lock().get(index).cloned()
    }

    /// How many are open.
    pub(crate) fn contexts(&self) -> usize {
        self.contexts.lock().len()
    }

    /// Whether this is the main one.
    pub(crate) fn is_main(&self, context: &Context) -> bool {
        let contexts = self.contexts.lock();
        contexts
            .first()
            .is_some_and(|main| main.handle == context.handle)
    }

    /// Forgets a context that was closed.
    pub(crate) fn forget(&self, context: &Context) {
        let mut contexts = self.contexts.lock();
        contexts.retain(|known| known.handle != context.handle);
    }

    /// Ends it: exit(3), after five seconds SIGKILL. Answers the handles of its contexts.
    pub(crate) fn end(&self) -> Vec<usize> {
        let life = self.life();
        life.expect_end();
        let contexts = std::mem::take(&mut *self.contexts.lock());
        for context in &contexts {
            context.cancel();
        }
        let exit = Control::Exit.encode();
        let _ = rustix::net::send(&*self.control.lock(), &exit, SendFlags::NOSIGNAL);
        if !life.wait(EXIT) {
            let _ = self.reach.process.kill();
            // Nothing survives it but a process that hangs inside the kernel.
            life.wait(ANSWER);
        }
        for context in &contexts {
            context.cut();
        }
        contexts.iter().map(|context| context.handle).collect()
    }
}

/// The program to be started: an executable, or one of ours with a library of the user.
fn command(node: c_int, program: Option<&CStr>, control: BorrowedFd<'_>) -> Command {
    let program = program.map(|path| OsString::from_vec(path.to_bytes().to_vec()));
    let (executable, preload) = match program {
        Some(path) if is_library(&path) => (aveorun(), Some(path)),
        Some(path) => (path, None),
        None => (aveorun(), None),
    };
    let mut command = Command::new(executable);
    command
        .arg("--control")
        .arg(control.as_raw_fd().to_string());
    if let Some(preload) = preload {
        command.arg("--preload").arg(preload);
    }
    command.env("VE_NODE_NUMBER", node.to_string());
    share_node(&mut command);
    // Where the VE's linker looks first.
    if let Some(mut path) = std::env::var_os("VE_LD_LIBRARY_PATH") {
        if let Some(host) = std::env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(host);
        }
        command.env("LD_LIBRARY_PATH", path);
    }
    command
}

/// Tells a VE process which VE node is its own: that of this program's job, or the one the user names, else one that all VE
/// processes of this program share. (It is `windlass-node` that reads these variables, in libsysve.)
///
/// A job's node is there, and says which VEs are: the process enters it at once, so that veo_proc_create fails for a VE that
/// is not. Elsewhere the node begins when it is first needed.
fn share_node(command: &mut Command) {
    match Whose::read() {
        Whose::Job(socket) => {
            command.arg("--enter");
            command.env_remove(NAME).env(PRIVATE, socket);
            for name in RANK {
                command.env_remove(name);
            }
        }
        Whose::Nobodys => {
            // This user's alone.
            command.env(NAME, card::own_name());
        }
        Whose::Named(_) | Whose::Private(_) => {}
    }
}

/// WINDLASS_VEORUN, else beside this library, else what PATH has.
fn aveorun() -> OsString {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return path;
    }
    let beside = own_file().map(|path| path.with_file_name(PROGRAM));
    match beside.filter(|path| path.exists()) {
        Some(path) => path.into_os_string(),
        None => PROGRAM.into(),
    }
}

/// The file this code was loaded from.
fn own_file() -> Option<PathBuf> {
    let address = own_file as *const () as usize;
    let maps = std::fs::read("/proc/self/maps").ok()?;
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        // from-to rights offset device inode path
        let (range, _) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
        let (from, to) = std::str::from_utf8(range).ok()?.split_once('-')?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let to = usize::from_str_radix(to, 16).ok()?;
        let start = line.iter().position(|byte| *byte == b'/')?;
        let path = OsString::from_vec(line[start..].to_vec());
        (from..to).contains(&address).then(|| path.into())
    })
}

/// Whether dlopen(3) means the library of this code by that name.
pub(crate) fn is_this(name: &OsStr) -> bool {
    let Ok(name) = CString::new(name.as_bytes()) else {
        return false;
    };
    // The same handle each time, as long as something of it is loaded; an empty name would be the program's own.
    let loaded = |name: &CStr| {
        // SAFETY: a C string. RTLD_NOLOAD runs no code of a library; what it counts is given back.
        unsafe {
            let handle = libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if !handle.is_null() {
                libc::dlclose(handle);
            }
            handle
        }
    };
    let own = own_file().and_then(|path| CString::new(path.into_os_string().into_vec()).ok());
    let Some(own) = own.filter(|_| !name.is_empty()) else {
        return false;
    };
    let own = loaded(&own);
    !own.is_null() && loaded(&name) == own
}

/// Whether the file is a shared library: ELF type ET_DYN without an interpreter.
fn is_library(path: &OsString) -> bool {
    let Ok(bytes) = std::fs::read(path) else {
        return false;
    };
    let word = |at: usize, len: usize| -> Option<u64> {
        let bytes = bytes.get(at..at + len)?.iter().rev();
        Some(bytes.fold(0, |word, byte| word << 8 | u64::from(*byte)))
    };
    const DYNAMIC: Option<u64> = Some(3);
    const INTERPRETER: Option<u64> = Some(3);
    if !bytes.starts_with(b"\x7fELF\x02\x01") || word(16, 2) != DYNAMIC {
        return false;
    }
    let (Some(table), Some(size), Some(count)) = (word(32, 8), word(54, 2), word(56, 2)) else {
        return false;
    };
    !(0..count).any(|index| {
        let entry = table.saturating_add(index * size);
        word(usize::try_from(entry).unwrap_or(usize::MAX / 2), 4) == INTERPRETER
    })
}

/// Starts the command on a thread of its own. `theirs` survives exec in the child and is closed here.
fn launch(mut command: Command, theirs: OwnedFd, node: c_int) -> Started {
    let program = getpid();
    let control = theirs.as_raw_fd();
    let mask = present_mask();
    let prepare = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The program may have died before the line above: then nobody will send the signal.
        if getppid() != Some(program) {
            return Err(Kernel::SRCH.into());
        }
        // SAFETY: open in this child, a copy of the parent's `theirs`, which lives until the child runs its program.
        let control = unsafe { BorrowedFd::borrow_raw(control) };
        fcntl_setfd(control, FdFlags::empty())?;
        // A process of its own: it hears what the caller hears, not what the keeper does.
        set_mask(&mask);
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: `prepare` makes four system calls,
    // allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    let (tell, started) = channel();
    quietly("veo-keeper", move || keep(command, theirs, node, &tell))?;
    started.recv().map_err(|_| EBUSY)?
}

/// What is known of a process that was started.
type Started = Result<(cross::Process, Arc<Life>)>;

/// Starts the command, tells what came of it, and stays until it has ended.
fn keep(mut command: Command, theirs: OwnedFd, node: c_int, tell: &Sender<Started>) {
    let child = command.spawn();
    drop(theirs);
    let mut child = match child {
        Ok(child) => child,
        Err(e) => {
            say(&not_started(command.get_program(), &e));
            let _ = tell.send(Err(std_errno(e)));
            return;
        }
    };
    // Not reaped yet: the pid is the child's.
    let pid = child.id() as i32;
    let life = Arc::new(Life::new(pid, node));
    match cross::start_time(pid).and_then(|start| cross::Process::open(pid, start)) {
        Ok(process) => {
            let _ = tell.send(Ok((process, Arc::clone(&life))));
            await_end(pid);
            life.end(|| child.wait().ok());
        }
        // It has ended at once.
        Err(_) => {
            let _ = child.kill();
            life.end(|| child.wait().ok());
            life.tell();
            let _ = tell.send(Err(EBUSY));
        }
    }
}

/// Why there is no VE process, and what to do.
fn not_started(program: &OsStr, why: &io::Error) -> String {
    let path = program.display();
    let remedy = match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(named) if named == program => {
            format!("{VARIABLE} names it; set it to the path of {PROGRAM}")
        }
        None if program == PROGRAM => format!(
            "it is neither beside libveo.so.1 nor in PATH; set {VARIABLE} to its path (build it with `cargo build -p \
             windlass-veo`)"
        ),
        _ => format!(
            "veo_proc_create_static takes a program that runs {PROGRAM} in the end, or a library"
        ),
    };
    format!("no VE process: {path} cannot be started: {why}; {remedy}")
}

/// Waits until a child has ended, and leaves it to be reaped: until then nobody else has its pid.
fn await_end(pid: c_int) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let Some(pid) = Pid::from_raw(pid) else {
        return;
    };
    while matches!(waitid(WaitId::Pid(pid), options), Err(Kernel::INTR)) {}
}

/// A thread that takes no signal of the program, but for real-time signals that the caller hears too: by one of them memory
/// that the program lends is moved while all its threads stand still (`windlass_mem::reback`), and one that is deaf to it
/// forbids that.
pub(crate) fn quietly(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let before = present_mask();
    let mut quiet = before;
    for signal in 1..libc::SIGRTMIN() {
        // SAFETY: a set and a number of a signal.
        unsafe { libc::sigaddset(&mut quiet, signal) };
    }
    // A thread inherits the mask of the one that starts it.
    set_mask(&quiet);
    let outcome = thread::Builder::new().name(name.into()).spawn(body);
    set_mask(&before);
    outcome.map(drop).map_err(std_errno)
}

/// The signals that this thread blocks.
fn present_mask() -> libc::sigset_t {
    // SAFETY: an all-zero set is a value of it; without a new mask the call only stores the present one there.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &mut mask);
        mask
    }
}

/// Blocks these signals, and no others, in this thread. Async-signal-safe.
fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: reads a set. Only this thread's mask changes, which no code relies on for its soundness.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// Sends a control message with a descriptor, waits for the answer: an errno or 0.
fn converse(control: &OwnedFd, message: Control, with: BorrowedFd<'_>) -> Result<c_int> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [with];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = message.encode();
    sendmsg(
        control,
        &[IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .map_err(|_| EBUSY)?;
    let limit = Timespec::try_from(ANSWER).map_err(|_| EBUSY)?;
    let mut ready = [PollFd::new(control, PollFlags::IN)];
    loop {
        match poll(&mut ready, Some(&limit)) {
            Ok(0) => return Err(Errno(libc::ETIMEDOUT)),
            Ok(_) => break,
            Err(Kernel::INTR) => {}
            Err(errno) => return Err(kernel(errno)),
        }
    }
    let mut answer = [0; 8];
    match recv(control, &mut answer, RecvFlags::empty()) {
        Ok((_, 8)) => Ok(u64::from_le_bytes(answer) as c_int),
        _ => Err(EBUSY),
    }
}

fn kernel(errno: Kernel) -> Errno {
    Errno(errno.raw_os_error())
}

fn std_errno(error: io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EAGAIN))
}
