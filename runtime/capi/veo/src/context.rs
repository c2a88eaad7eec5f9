//! A context: requests in their order, worked off by one thread of the library, one at a time.
//!
//! A call that waits for its own result (a transfer, veo_call_sync) takes its turn behind the requests before it and
//! is carried out by the caller itself: two wake-ups less. A VH function ([`Command::Host`]) runs in the worker's turn and may
//! use its own context: what it waits for is worked off inside its call.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex, MutexGuard};
use windlass_abi::veo::{
    HostFunction, VEO_COMMAND_ERROR, VEO_COMMAND_EXCEPTION, VEO_COMMAND_OK, VEO_COMMAND_UNFINISHED,
    VEO_STATE_EXIT, VEO_STATE_RUNNING,
};

use crate::args::Call;
use crate::edge::{EBUSY, Errno, Result, explain};
use crate::link::{Link, Place};
use crate::memory::no_memory;
use crate::protocol::Request;

/// Requests of a context that nobody has picked up yet, at most.
const REQUESTS: usize = 1 << 20;

/// Something to do in turn.
#[derive(Debug)]
pub(crate) enum Command {
    /// A function of the VE.
    Call(Call),
    /// veo_alloc_mem_async, veo_free_mem_async: any request that answers a number.
    Ask(Request<'static>),
    /// To the VE.
    Write { to: u64, from: Place, len: usize },
    /// From the VE.
    Read { to: Place, from: u64, len: usize },
    /// A function of the VH.
    Host {
        function: HostFunction,
        argument: Place,
    },
}

impl Command {
    /// The function of ve_offload.h that asks for it.
    fn call(&self) -> &'static str {
        match self {
            Self::Call(_) => "veo_call_async",
            Self::Ask(Request::Alloc { .. }) => "veo_alloc_mem_async",
            Self::Ask(_) => "veo_free_mem_async",
            Self::Write { .. } => "veo_async_write_mem",
            Self::Read { .. } => "veo_async_read_mem",
            Self::Host { .. } => "veo_call_async_vh",
        }
    }
}

/// What became of it: a `VEO_COMMAND_` number and the value.
pub(crate) type Outcome = (c_int, u64);

const FAILED: Outcome = (VEO_COMMAND_ERROR, 0);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, Command)>,
    /// Whose turn it is.
    turn: Option<ThreadId>,
    /// Ids that were given out and not picked up.
    open: HashSet<u64>,
    done: HashMap<u64, Outcome>,
    last_id: u64,
    /// No further requests.
    closed: bool,
    /// Only this thread may submit (veo_req_block_begin).
    block: Option<ThreadId>,
}

/// One context.
#[derive(Debug)]
pub(crate) struct Context {
    /// The handle.
    pub(crate) handle: usize,
    /// The handle of its process.
    pub(crate) process: usize,
    link: Link,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The right to use the link until it is dropped.
pub(crate) struct Turn<'a> {
    context: &'a Context,
    /// It was this thread's turn already.
    nested: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.nested {
            self.context.queue.lock().turn = None;
            self.context.changed.notify_all();
        }
    }
}

impl Turn<'_> {
    /// What to do in this turn.
    pub(crate) fn link(&self) -> &Link {
        &self.context.link
    }

    /// Carries out a call, as the worker would.
    pub(crate) fn call(&self, call: Call) -> Outcome {
        self.context.execute(Command::Call(call))
    }
}

impl Context {
    /// A context with its worker.
    ///
    /// # Errors
    /// EAGAIN when the system has no thread left.
    pub(crate) fn start(handle: usize, process: usize, link: Link) -> Result<Arc<Self>> {
        let context = Arc::new(Self {
            handle,
            process,
            link,
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&context);
        crate::process::quietly("veo-worker", move || worker.work())?;
        Ok(context)
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue.lock();
            while queue.turn.is_some() || (queue.waiting.is_empty() && !queue.closed) {
                self.changed.wait(&mut queue);
            }
            if queue.waiting.is_empty() {
                return;
            }
            queue.turn = Some(thread::current().id());
            self.first(&mut queue);
            queue.turn = None;
            drop(queue);
            self.changed.notify_all();
        }
    }

    /// Carries out the first request. It is this thread's turn.
    fn first(&self, queue: &mut MutexGuard<'_, Queue>) {
        let Some((id, command)) = queue.waiting.pop_front() else {
            return;
        };
        let outcome = if self.link.lost() {
            FAILED
        } else {
            MutexGuard::unlocked(queue, || self.execute(command))
        };
        queue.done.insert(id, outcome);
        self.changed.notify_all();
    }

    /// Carries out one request. Only in turn.
    fn execute(&self, command: Command) -> Outcome {
        // SAFETY (of the transfers): the contract of the function that made the command: the memory is valid and left alone
        // until the result was picked up.
        let call = command.call();
        let outcome = match command {
            Command::Call(call) => return self.run(call),
            Command::Ask(request) => {
                let answer = self.link.ask(&request).map(|reply| reply.value);
                answer.map_err(|errno| match request {
                    Request::Alloc { bytes } => no_memory(errno, bytes),
                    _ => errno,
                })
            }
            Command::Write { to, from, len } => {
                // SAFETY: see above.
                unsafe { self.link.write(to, from, len) }.map(|()| 0)
            }
            Command::Read { to, from, len } => {
                // SAFETY: see above.
                unsafe { self.link.read(to, from, len) }.map(|()| 0)
            }
            Command::Host { function, argument } => {
                // SAFETY: the caller of veo_call_async_vh gave a function that takes this argument, on any thread.
                Ok(unsafe { function(argument.0.cast::<c_void>()) })
            }
        };
        match outcome {
            Ok(value) => (VEO_COMMAND_OK, value),
            Err(errno) => {
                explain(call, errno);
                FAILED
            }
        }
    }

    fn run(&self, call: Call) -> Outcome {
        match self.link.call(&call) {
            Ok(reply) if reply.errno == 0 => {
                let mut bytes = &reply.bytes[..];
                for (place, len) in call.back {
                    let Some((part, rest)) = bytes.split_at_checked(len) else {
                        return FAILED;
                    };
                    // SAFETY: the buffer that the caller of veo_args_set_stack named, of that length, valid until the call is
                    // over; `part` is our own copy.
                    unsafe { part.as_ptr().copy_to(place.0, len) };
                    bytes = rest;
                }
                (VEO_COMMAND_OK, reply.value)
            }
            Ok(_) => FAILED,
            // The function ended its process: a signal, or exit(3).
            Err(_) => (VEO_COMMAND_EXCEPTION, 0),
        }
    }

    /// Whether requests are accepted.
    fn accepts(&self, queue: &Queue) -> Result<()> {
        if queue.closed || self.link.lost() {
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Queues a request; its id.
    ///
    /// # Errors
    /// EBUSY after the end; EAGAIN when too many results were not picked up.
    pub(crate) fn submit(&self, command: Command) -> Result<u64> {
        let me = thread::current().id();
        let mut queue = self.queue.lock();
        while queue.block.is_some_and(|owner| owner != me) {
            self.changed.wait(&mut queue);
        }
        self.accepts(&queue)?;
        if queue.open.len() >= REQUESTS {
            return Err(Errno(libc::EAGAIN).because(|| {
                format!("{REQUESTS} requests of the context have results that nobody has picked up")
            }));
        }
        queue.last_id += 1;
        let id = queue.last_id;
        queue.open.insert(id);
        queue.waiting.push_back((id, command));
        drop(queue);
        self.changed.notify_all();
        Ok(id)
    }

    /// Waits until everything queued before is done; then it is the caller's turn.
    ///
    /// # Errors
    /// EBUSY after the end.
    pub(crate) fn turn(&self) -> Result<Turn<'_>> {
        let me = thread::current().id();
        let mut queue = self.queue.lock();
        let nested = queue.turn == Some(me);
        while queue.block.is_some_and(|owner| owner != me) {
            self.changed.wait(&mut queue);
        }
        self.idle(&mut queue, me);
        self.accepts(&queue)?;
        queue.turn = Some(me);
        Ok(Turn {
            context: self,
            nested,
        })
    }

    /// Waits for the end of all requests; a thread in its turn works them off.
    fn idle(&self, queue: &mut MutexGuard<'_, Queue>, me: ThreadId) {
        loop {
            if queue.turn == Some(me) {
                if queue.waiting.is_empty() {
                    return;
                }
                self.first(queue);
            } else if queue.turn.is_none() && queue.waiting.is_empty() {
                return;
            } else {
                self.changed.wait(queue);
            }
        }
    }

    /// veo_context_sync.
    pub(crate) fn synchronize(&self) {
        self.idle(&mut self.queue.lock(), thread::current().id());
    }

    /// The outcome of a request, once; `VEO_COMMAND_ERROR` for an id that is not open.
    pub(crate) fn wait(&self, id: u64) -> Outcome {
        let me = thread::current().id();
        let mut queue = self.queue.lock();
        loop {
            match pick(&mut queue, id) {
                (VEO_COMMAND_UNFINISHED, _) if queue.turn == Some(me) => self.first(&mut queue),
                (VEO_COMMAND_UNFINISHED, _) => self.changed.wait(&mut queue),
                outcome => return outcome,
            }
        }
    }

    /// As [`wait`](Self::wait), without waiting: `VEO_COMMAND_UNFINISHED`.
    pub(crate) fn peek(&self, id: u64) -> Outcome {
        pick(&mut self.queue.lock(), id)
    }

    /// A `VEO_STATE_` number.
    pub(crate) fn state(&self) -> c_int {
        if self.accepts(&self.queue.lock()).is_ok() && self.link.alive() {
            VEO_STATE_RUNNING
        } else {
            VEO_STATE_EXIT
        }
    }

    /// Only the calling thread may submit, until it says otherwise.
    pub(crate) fn block_begin(&self) {
        let me = thread::current().id();
        let mut queue = self.queue.lock();
        while queue.block.is_some_and(|owner| owner != me) {
            self.changed.wait(&mut queue);
        }
        queue.block = Some(me);
    }

    /// The end of a block of the calling thread.
    pub(crate) fn block_end(&self) {
        let mut queue = self.queue.lock();
        if queue.block == Some(thread::current().id()) {
            queue.block = None;
            drop(queue);
            self.changed.notify_all();
        }
    }

    /// veo_context_close: everything queued is done first.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        self.idle(&mut queue, thread::current().id());
        drop(queue);
        self.changed.notify_all();
        self.link.close();
    }

    /// The process is about to end: what waits fails, what runs is not waited for.
    pub(crate) fn cancel(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        while let Some((id, _)) = queue.waiting.pop_front() {
            queue.done.insert(id, FAILED);
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// The process has ended.
    pub(crate) fn cut(&self) {
        self.link.close();
    }
}

/// Takes an outcome out.
fn pick(queue: &mut Queue, id: u64) -> Outcome {
    if !queue.open.contains(&id) {
        return FAILED;
    }
    match queue.done.remove(&id) {
        Some(outcome) => {
            queue.open.remove(&id);
            outcome
        }
        None => (VEO_COMMAND_UNFINISHED, 0),
    }
}
