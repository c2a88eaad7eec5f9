//! Import segments: connections to memory that others publish, and windows on it (rsm 5.7, 5.8, 6).
//!
//! Transfers have a mapping of the whole segment of their own, with the rights of the connection, made at the first; a window is
//! what the program asked to see, where and with the rights it asked for. Both stay valid memory whatever becomes of the exporter,
//! since they map a file of final size that lives as long as they do.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use windlass_mem::view::{Rights, Spot, View};
use windlass_mem::{MemFile, SharedBytes};

use crate::access::{PERM_RDWR, PERM_READ, PERM_WRITE};
use crate::code::Code;
use crate::controller::{Controller, Scope, only};
use crate::line::Line;
use crate::request::{Body, Counts, Request, Target};
use crate::signal::Signals;

/// A window is exactly where the caller says.
pub const MAP_FIXED: u32 = 1;
/// Without meaning.
pub const MAP_RESERVED: u32 = 2;
/// No program has memory from here on.
const USER_END: usize = 1 << 47;

/// A connection to a segment. Dropping it ends it.
#[derive(Debug)]
pub struct Import {
    pub(crate) controller: Arc<Controller>,
    pub(crate) connection: u64,
    /// To a segment of another node, which is not mapped.
    pub(crate) line: Option<Line>,
    pub(crate) len: usize,
    pub(crate) permission: u32,
    uid: u32,
    slot: u32,
    born: u64,
    signals: Signals,
    pub(crate) explicit: AtomicBool,
    pub(crate) state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// The memory's file, and its count when it was had. None without rights.
    file: Option<MemFile>,
    backing: u64,
    /// What transfers use.
    data: Option<View>,
    /// Transfers have mapped it by themselves.
    pub(crate) implicit: bool,
    pub(crate) window: Option<Window>,
    /// The barrier that serves implicit mode.
    pub(crate) barrier: Option<u64>,
    /// A transfer of explicit mode failed since a barrier was opened.
    pub(crate) failed: bool,
    pub(crate) disconnected: bool,
}

/// What the program asked to see of a segment.
#[derive(Debug)]
pub(crate) struct Window {
    view: View,
    pub(crate) offset: usize,
}

impl Window {
    pub(crate) fn len(&self) -> usize {
        self.view.len()
    }
}

fn rights(permission: u32) -> Rights {
    match permission & PERM_RDWR {
        0 => Rights::None,
        PERM_READ => Rights::Read,
        // A processor has no pages that are written and not read.
        _ => Rights::ReadWrite,
    }
}

/// Why the system does not map (table of section 6.1, rows 15 to 17).
fn unmappable(error: &windlass_mem::Error) -> Code {
    match error.errno() {
        Some(Errno::NOMEM) => Code::BadLength,
        Some(Errno::AGAIN) => Code::InsufficientResources,
        _ => Code::MapFailed,
    }
}

impl Import {
    /// Connects to segment `id` of `node` with these rights: bits of [`PERM_RDWR`], or none.
    ///
    /// # Errors
    /// [`Code::PermDenied`], [`Code::InsufficientResources`], [`Code::CtlrNotPresent`], [`Code::RemoteNodeUnreachable`],
    /// [`Code::ConnAborted`]: the node was lost meanwhile; [`Code::SegNotPublished`], [`Code::SegNotPublishedToNode`].
    pub fn connect(
        controller: &Arc<Controller>,
        node: u32,
        id: u32,
        permission: u32,
    ) -> Result<Arc<Self>, Code> {
        if permission & !PERM_RDWR != 0 {
            return Err(Code::PermDenied);
        }
        let request = Request::Connect {
            cluster: controller.scope() == Scope::Cluster,
            node,
            id,
            permission,
        };
        let (body, files) = controller.ask(request, &[], Code::CtlrNotPresent)?;
        let Body::Connected {
            connection,
            len,
            uid,
            slot,
            counts,
            pass,
        } = body
        else {
            return Err(Code::InternalError);
        };
        let connected = Self::take(files, permission, uid, len, pass.is_some());
        let (queue, file, len) = connected.inspect_err(|_| {
            let request = Request::Disconnect { connection };
            // The service drops it with the process.
            let _ = controller.ask(request, &[], Code::CtlrNotPresent);
        })?;
        Ok(Arc::new(Self {
            controller: Arc::clone(controller),
            connection,
            line: pass.map(Line::new),
            len,
            permission,
            uid,
            slot,
            born: counts.generation,
            signals: Signals::new(queue),
            explicit: AtomicBool::new(false),
            state: Mutex::new(State {
                file,
                backing: counts.backing,
                data: None,
                implicit: false,
                window: None,
                barrier: None,
                failed: false,
                disconnected: false,
            }),
        }))
    }

    fn take(
        files: Vec<OwnedFd>,
        permission: u32,
        uid: u32,
        len: u64,
        far: bool,
    ) -> Result<(OwnedFd, Option<MemFile>, usize), Code> {
        let mut files = files.into_iter();
        let queue = files.next().ok_or(Code::InsufficientResources)?;
        let file = match permission {
            _ if far => None,
            0 => None,
            _ => Some(accept(files.collect(), uid, len)?),
        };
        let len = usize::try_from(len).map_err(|_| Code::InsufficientMem)?;
        Ok((queue, file, len))
    }

    /// Bytes of the segment.
    #[expect(clippy::len_without_is_empty, reason = "a segment has a page at least")]
    pub fn len(&self) -> usize {
        self.len
    }

    fn counts(&self) -> Option<Counts> {
        self.controller.counters().counts(self.slot)
    }

    /// Whether the exporter has ended the connection. It never comes back.
    #[inline]
    pub fn is_aborted(&self) -> bool {
        self.has_ended() || self.line.as_ref().is_some_and(Line::is_lost)
    }

    /// As the services have it, which say so a little later than a line that is lost.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.counts()
            .is_none_or(|counts| counts.generation != self.born)
    }

    /// Whether this is implicit mode.
    pub fn mode(&self) -> u32 {
        u32::from(!self.explicit.load(Ordering::Relaxed))
    }

    /// 0: barriers are the caller's, 1: every transfer has its own.
    ///
    /// # Errors
    /// [`Code::BadMode`].
    pub fn set_mode(&self, mode: u32) -> Result<(), Code> {
        let explicit = match mode {
            0 => true,
            1 => false,
            _ => return Err(Code::BadMode),
        };
        self.explicit.store(explicit, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a window; gives its first address. `spot` is used with [`MAP_FIXED`] alone.
    ///
    /// # Errors
    /// Those of the table of section 6.1, in its order.
    pub fn map(
        &self,
        flags: u32,
        spot: Spot,
        permission: u32,
        offset: i64,
        len: usize,
    ) -> Result<usize, Code> {
        let mut state = self.state.lock();
        if state.disconnected {
            return Err(Code::BadSegHndl);
        }
        if state.window.is_some() || state.implicit {
            return Err(Code::SegAlreadyMapped);
        }
        if permission & !PERM_RDWR != 0 {
            return Err(Code::BadPerms);
        }
        if flags & !(MAP_FIXED | MAP_RESERVED) != 0 {
            return Err(Code::MapFailed);
        }
        if len == 0 {
            return Err(Code::BadLength);
        }
        let offset = usize::try_from(offset).ok().filter(|at| *at < self.len);
        let offset = offset.ok_or(Code::BadOffset)?;
        if len > self.len - offset {
            return Err(Code::BadLength);
        }
        let page = rustix::param::page_size();
        let spot = (flags & MAP_FIXED != 0).then_some(spot);
        let at = spot.as_ref().map_or(0, Spot::addr);
        if !offset.is_multiple_of(page) || !at.is_multiple_of(page) {
            return Err(Code::BadMemAlignment);
        }
        let end = at.checked_add(len.next_multiple_of(page));
        if spot.is_some() && (at == 0 || end.is_none_or(|end| end > USER_END - page)) {
            return Err(Code::BadAddr);
        }
        if self.is_aborted() {
            return Err(Code::ConnAborted);
        }
        if permission & !self.permission != 0 {
            return Err(Code::BadPerms);
        }
        if self.line.is_some() {
            // The interconnect offers none (row 17).
            return Err(Code::MapFailed);
        }
        self.follow(&mut state)?;
        let (file, fixed) = (state.file.as_ref(), spot.is_some());
        let view = View::new(file, offset as u64, len, rights(permission), spot);
        let view = view.map_err(|error| match error.errno() {
            Some(Errno::PERM) if fixed => Code::BadAddr,
            _ => unmappable(&error),
        })?;
        if self.is_aborted() {
            return Err(Code::ConnAborted);
        }
        let addr = view.addr();
        state.window = Some(Window { view, offset });
        Ok(addr)
    }

    /// The bytes of the window that [`map`](Self::map) made. Whoever has them keeps them mapped, also behind
    /// [`unmap`](Self::unmap) and the end of the connection.
    pub fn window(&self) -> Option<SharedBytes> {
        let state = self.state.lock();
        state.window.as_ref().map(|window| window.view.bytes())
    }

    /// Ends the window, or what transfers have mapped.
    ///
    /// # Errors
    /// [`Code::SegNotMapped`].
    pub fn unmap(&self) -> Result<(), Code> {
        let mut state = self.state.lock();
        if state.disconnected {
            return Err(Code::BadSegHndl);
        }
        if state.window.is_none() && !state.implicit {
            return Err(Code::SegNotMapped);
        }
        state.window = None;
        state.implicit = false;
        state.data = None;
        Ok(())
    }

    /// What transfers use, made if need be.
    pub(crate) fn data(&self, state: &mut State) -> Result<SharedBytes, Code> {
        if let Some(data) = &state.data {
            return Ok(data.bytes());
        }
        let file = state.file.as_ref();
        let view = View::new(file, 0, self.len, rights(self.permission), None);
        let view = view.map_err(|error| unmappable(&error))?;
        Ok(state.data.insert(view).bytes())
    }

    /// Goes where the exporter has moved the segment meanwhile (a rebind).
    ///
    /// # Errors
    /// [`Code::ConnAborted`]; or the new memory cannot be had, and the old one is still what is seen.
    #[inline]
    pub(crate) fn follow(&self, state: &mut State) -> Result<(), Code> {
        let backing = self.counts().map(|counts| counts.backing);
        match backing {
            Some(backing) if backing == state.backing => Ok(()),
            Some(_) if self.is_aborted() => Ok(()), // its counter is another segment's
            Some(backing) => self.reopen(state, backing),
            None => Err(Code::ConnAborted),
        }
    }

    #[cold]
    fn reopen(&self, state: &mut State, backing: u64) -> Result<(), Code> {
        if self.permission != 0 {
            let request = Request::Reopen {
                connection: self.connection,
            };
            let (_, files) = self.controller.ask(request, &[], Code::ConnAborted)?;
            let file = accept(files, self.uid, self.len as u64)?;
            let moved = |error| Code::of(&error, Code::MapFailed);
            if let Some(window) = &state.window {
                window
                    .view
                    .exchange(&file, window.offset as u64)
                    .map_err(moved)?;
            }
            if let Some(data) = &state.data {
                data.exchange(&file, 0).map_err(moved)?;
            }
            state.file = Some(file);
        }
        state.backing = backing;
        Ok(())
    }

    /// Ends the connection.
    ///
    /// # Errors
    /// [`Code::BadSegHndl`]: it has ended; [`Code::SegStillMapped`], [`Code::PollfdInUse`].
    pub fn disconnect(&self) -> Result<(), Code> {
        let mut state = self.state.lock();
        if state.disconnected {
            return Err(Code::BadSegHndl);
        }
        if state.window.is_some() {
            return Err(Code::SegStillMapped);
        }
        if self.signals.is_polled() {
            return Err(Code::PollfdInUse);
        }
        self.give_up(&mut state);
        Ok(())
    }

    fn give_up(&self, state: &mut State) {
        state.disconnected = true;
        state.window = None;
        state.data = None;
        state.file = None;
        if let Some(line) = &self.line {
            line.hang_up();
        }
        let request = Request::Disconnect {
            connection: self.connection,
        };
        // A service that is gone has nothing of it.
        let _ = self.controller.ask(request, &[], Code::CtlrNotPresent);
    }

    /// A signal to the exporter; `once`: not if it has one pending.
    ///
    /// # Errors
    /// [`Code::ConnAborted`]; [`Code::RemoteNodeUnreachable`]: the node's service has gone.
    pub fn post(&self, once: bool) -> Result<(), Code> {
        if self.is_aborted() {
            return Err(Code::ConnAborted);
        }
        let to = Target::Exporter(self.connection);
        let request = Request::Post { to, once };
        self.controller
            .ask(request, &[], Code::RemoteNodeUnreachable)
            .map(drop)
    }

    /// Takes one event of the exporter's signals, waiting up to `timeout`; `None`: without limit.
    ///
    /// # Errors
    /// [`Code::ConnAborted`], [`Code::Timeout`], [`Code::Interrupted`], [`Code::InsufficientResources`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(), Code> {
        self.signals.wait(timeout)
    }

    /// The descriptor to poll for signals, counted.
    ///
    /// # Errors
    /// [`Code::BadSegHndl`]: the connection has ended.
    pub fn pollfd(&self) -> Result<BorrowedFd<'_>, Code> {
        match self.state.lock().disconnected {
            true => Err(Code::BadSegHndl),
            false => Ok(self.signals.acquire()),
        }
    }

    /// Takes the descriptor back; nothing the time after the last.
    pub fn release_pollfd(&self) {
        self.signals.release();
    }

    /// Which controller it was connected by.
    pub fn scope(&self) -> Scope {
        self.controller.scope()
    }

    /// Its queue.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Whether the connection has a right: [`PERM_READ`] or [`PERM_WRITE`].
    pub(crate) fn has(&self, right: u32) -> bool {
        debug_assert!(matches!(right, PERM_READ | PERM_WRITE));
        self.permission & right != 0
    }
}

/// A file of a segment: of the exporter's user, of the segment's size, and never smaller.
fn accept(files: Vec<OwnedFd>, uid: u32, len: u64) -> Result<MemFile, Code> {
    let file = MemFile::from_fd_of(only(files)?, uid).map_err(|_| Code::InternalError)?;
    match file.len() == len {
        true => Ok(file),
        false => Err(Code::InternalError),
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        let state = &mut self.state.lock();
        if !state.disconnected {
            self.give_up(state);
        }
    }
}
