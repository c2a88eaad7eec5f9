//! A context: one thread, one socket, requests answered in their order.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use windlass_wire::{read_frame, write_frame};

use crate::call;
use crate::library::{Libraries, c_string};
use crate::memory::{self, Memory, Window};
use crate::protocol::{FRAME_LIMIT, Reply, Request};
use crate::sysve::Sysve;

/// Stack of a context at most, in bytes: address space, of which a process has 128 TiB.
const STACK_LIMIT: u64 = 1 << 40;

/// What all contexts share.
#[derive(Debug, Default)]
pub(crate) struct Served {
    libraries: Libraries,
    memory: Memory,
    sysve: Sysve,
}

impl Served {
    /// Loads the library of veo_proc_create_static.
    pub(crate) fn preload(&self, path: &OsStr) -> Result<(), String> {
        let path = c_string(path.as_bytes()).ok_or("a path with a zero byte")?;
        self.sysve.prepare();
        self.libraries.load(&path, true).map(drop)
    }

    /// Whether the VE node accepts this process on its VE; so does one that this process has no way to.
    pub(crate) fn enters(&self) -> bool {
        self.sysve.enters()
    }
}

/// Starts a context with a stack of so many bytes.
pub(crate) fn start(served: &Arc<Served>, socket: UnixStream, stack: u64) -> io::Result<()> {
    if stack > STACK_LIMIT {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    }
    let served = Arc::clone(served);
    thread::Builder::new()
        .name("veo-context".into())
        .stack_size(stack as usize)
        .spawn(move || serve(&served, socket))?;
    Ok(())
}

/// Answers until the program closes the socket. A frame that is none ends the context: the program sees that.
fn serve(served: &Served, mut socket: UnixStream) {
    let mut window = Window::default();
    while let Ok(Some(frame)) = read_frame(&mut socket, FRAME_LIMIT) {
        let Ok(request) = Request::decode(&frame) else {
            return;
        };
        let reply = catch_unwind(AssertUnwindSafe(|| answer(served, &mut window, &request)))
            .unwrap_or_else(|_| Reply::refused(libc::ECANCELED));
        if write_frame(&mut socket, &reply.encode()).is_err() {
            return;
        }
    }
}

#[allow(unsafe_code)]
fn answer(served: &Served, window: &mut Window, request: &Request<'_>) -> Reply {
    match request {
        Request::Call {
            function,
            arguments,
        } => {
            // SAFETY: the program says that this is a function with such arguments (the contract of veo_call_async); this
            // thread runs nothing else meanwhile.
            let (value, bytes) = unsafe { call::call(*function, arguments) };
            Reply {
                errno: 0,
                value,
                bytes,
            }
        }
        Request::Load { path } => load(served, path),
        Request::Unload { library } => {
            if served.libraries.unload(*library) {
                Reply::default()
            } else {
                Reply::refused(libc::EINVAL)
            }
        }
        Request::Symbol { library, name } => c_string(name)
            .and_then(|name| served.libraries.symbol(*library, &name))
            .map_or_else(|| Reply::refused(libc::ENOENT), Reply::value),
        Request::Alloc { bytes } => outcome(served.memory.alloc(*bytes).map(Reply::value)),
        Request::Free { address } => {
            outcome(served.memory.free(*address).map(|()| Reply::default()))
        }
        Request::Read { address, bytes } => {
            let data = window.read(*address, *bytes as usize);
            outcome(data.map(|bytes| Reply {
                bytes,
                ..Reply::default()
            }))
        }
        Request::Write { address, data } => {
            outcome(window.write(*address, data).map(|()| Reply::default()))
        }
        Request::Copy { to, from, bytes } => {
            // SAFETY: the program says so (the contract of veo_hmemcpy); a wrong address ends this process.
            unsafe { memory::copy(*to, *from, *bytes) };
            Reply::default()
        }
        Request::System { function, words } => served.sysve.call(*function, *words),
    }
}

fn outcome(outcome: Result<Reply, i32>) -> Reply {
    outcome.unwrap_or_else(Reply::refused)
}

fn load(served: &Served, path: &[u8]) -> Reply {
    let Some(path) = c_string(path) else {
        return Reply::refused(libc::EINVAL);
    };
    // First, so that a library that needs libsysve.so.1 finds this one.
    served.sysve.prepare();
    match served.libraries.load(&path, false) {
        Ok(handle) => Reply::value(handle),
        Err(text) => {
            // The linker's reason has no other way to the user: the call answers 0.
            eprintln!("aveorun: veo_load_library: {text}");
            Reply::refused(libc::ENOENT)
        }
    }
}
