//! Export segments: own memory that others may use (rsm 5.2 to 5.6).
//!
//! A segment that is bound is the program's own private memory. When it is published its pages move to a file, in place, which
//! importers map; when that ends they become private again and the importers keep the file. What nobody may write is sealed
//! before anybody gets the file.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use windlass_mem::MemFile;
use windlass_mem::reback::place::Movable;

use crate::access::{Access, AccessEntry, PERM_HIGHEST, check_id};
use crate::code::Code;
use crate::controller::{Controller, Scope, only};
use crate::exposure::{Exposed, Memory, expose};
use crate::gate::{Offer, Rooms, own_pid};
use crate::request::{Body, Request, Target};
use crate::signal::Signals;

/// The segment may be rebound.
pub const ALLOW_REBIND: u32 = 0x01;

/// An export segment. Dropping it destroys it.
#[derive(Debug)]
pub struct Export {
    controller: Arc<Controller>,
    name: u64,
    pid: i32,
    may_rebind: bool,
    /// What everybody may if there is no list.
    permission: u32,
    signals: Signals,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    memory: Memory,
    published: Option<Published>,
    destroyed: bool,
}

#[derive(Debug)]
struct Published {
    read_only: bool,
    /// To importers of other nodes. None behind an end that did not make the memory private.
    offer: Option<Offer>,
}

impl Export {
    /// A segment of this memory, bound.
    ///
    /// # Errors
    /// [`Code::CtlrNotPresent`]; [`Code::BadAddr`], [`Code::PermDenied`]: a part is not mapped, or may not be read and written;
    /// [`Code::InsufficientResources`]: it cannot be shared (a stack, shared memory, a mapped file, huge pages), or no
    /// descriptor or place is left; [`Code::InsufficientMem`].
    pub fn create(
        controller: &Arc<Controller>,
        memory: Movable,
        flags: u32,
    ) -> Result<Arc<Self>, Code> {
        Self::begin(controller, Memory::Own(memory), flags)
    }

    /// A segment of a whole file that its owner uses by mappings of its own, bound. When it ends importers are told so, and the
    /// file stays what it is: what windows they still have shows it. It is never rebound; to be published for reading alone its
    /// seals must not be final.
    ///
    /// # Errors
    /// [`Code::CtlrNotPresent`]; [`Code::InsufficientResources`]: no descriptor or place is left.
    pub fn of_file(controller: &Arc<Controller>, file: MemFile) -> Result<Arc<Self>, Code> {
        Self::begin(controller, Memory::File(Arc::new(file)), 0)
    }

    fn begin(controller: &Arc<Controller>, memory: Memory, flags: u32) -> Result<Arc<Self>, Code> {
        let (body, files) = controller.ask(
            Request::Create {
                cluster: controller.scope() == Scope::Cluster,
            },
            &[],
            Code::CtlrNotPresent,
        )?;
        let Body::Created { export: name } = body else {
            return Err(Code::InternalError);
        };
        let signals = only(files).and_then(|queue| {
            let checked = memory.check();
            checked.map_err(|error| Code::of(&error, Code::InsufficientResources))?;
            Ok(Signals::new(queue))
        });
        let signals = signals.inspect_err(|_| {
            let request = Request::Destroy { export: name };
            // The service drops it with the process.
            let _ = controller.ask(request, &[], Code::CtlrNotPresent);
        })?;
        Ok(Arc::new(Self {
            controller: Arc::clone(controller),
            name,
            pid: own_pid(),
            may_rebind: flags & ALLOW_REBIND != 0,
            permission: PERM_HIGHEST & !umask(),
            signals,
            state: Mutex::new(State {
                memory,
                published: None,
                destroyed: false,
            }),
        }))
    }

    /// Whether this process has created it, and not one it was forked from.
    ///
    /// # Errors
    /// [`Code::NotCreator`].
    pub fn check_creator(&self) -> Result<(), Code> {
        match self.pid == own_pid() {
            true => Ok(()),
            false => Err(Code::NotCreator),
        }
    }

    /// What [`publish`](Self::publish) refuses before it looks at the lines of an access list.
    ///
    /// # Errors
    /// [`Code::SegAlreadyPublished`], [`Code::ReservedSegid`], [`Code::NotCreator`], [`Code::BadAcl`].
    pub fn check_publish(&self, id: u32, entries: usize) -> Result<(), Code> {
        // In a forked child the lock may be held for ever.
        let own = self.check_creator();
        if own.is_ok() {
            let state = self.state.lock();
            if state.destroyed {
                return Err(Code::BadSegHndl);
            }
            if state.published.is_some() {
                return Err(Code::SegAlreadyPublished);
            }
        }
        check_id(id)?;
        own?;
        self.controller.reach().check_count(entries)
    }

    /// Others may connect: those on the list, or without one everybody by the umask at its creation. `id` 0: one that is free.
    /// Gives the id.
    ///
    /// # Errors
    /// Those of [`check_publish`](Self::check_publish); [`Code::BadAcl`], [`Code::InsufficientResources`],
    /// [`Code::SegidInUse`], [`Code::InsufficientMem`].
    pub fn publish(&self, id: u32, list: Option<&[AccessEntry]>) -> Result<u32, Code> {
        self.check_publish(id, list.map_or(0, <[_]>::len))?;
        let access = self.access(list)?;
        let mut state = self.state.lock();
        if state.published.is_some() {
            return Err(Code::SegAlreadyPublished);
        }
        let read_only = !access.is_writable();
        let exposed = state.memory.expose(read_only)?;
        match self.announce(&exposed, id, access) {
            Ok((id, offer)) => {
                state.published = Some(Published { read_only, offer });
                Ok(id)
            }
            Err(code) => {
                let _ = state.memory.take_back();
                Err(code)
            }
        }
    }

    fn announce(
        &self,
        exposed: &Exposed,
        id: u32,
        access: Access,
    ) -> Result<(u32, Option<Offer>), Code> {
        let offer = self.controller.offer(|| exposed.map())?;
        let request = Request::Publish {
            export: self.name,
            id,
            access,
            door: offer.as_ref().map(Offer::door),
        };
        let files = exposed.files();
        match self.controller.ask(request, &files, Code::CtlrNotPresent)? {
            (Body::Published { id }, _) => Ok((id, offer)),
            _ => Err(Code::InternalError),
        }
    }

    fn access(&self, list: Option<&[AccessEntry]>) -> Result<Access, Code> {
        match list {
            Some(list) if !list.is_empty() => Access::listed(self.controller.reach(), list),
            _ => Ok(Access::Every(self.permission)),
        }
    }

    /// Nobody may connect any more, and importers are cut off (rsm 8): when this returns none reaches the memory.
    ///
    /// # Errors
    /// [`Code::SegNotPublished`], [`Code::NotCreator`]; [`Code::InsufficientMem`]: importers are cut off only when it is tried
    /// again.
    pub fn unpublish(&self) -> Result<(), Code> {
        self.check_creator()?;
        let mut state = self.state.lock();
        if state.destroyed {
            return Err(Code::BadSegHndl);
        }
        if state.published.is_none() {
            return Err(Code::SegNotPublished);
        }
        self.end(&mut state)
    }

    fn end(&self, state: &mut State) -> Result<(), Code> {
        let request = Request::Unpublish { export: self.name };
        // Importers see that first, so that what reaches the file and no more the memory is no success for any of them. A
        // service that is gone has no importers.
        let ended = self.controller.ask(request, &[], Code::SegNotPublished);
        if let Err(code) = ended
            && code != Code::SegNotPublished
        {
            return Err(code);
        }
        // No transfer of another node touches the file from here on: what one has done comes back with it.
        if let Some(published) = &mut state.published {
            published.offer = None;
        }
        let private = state.memory.take_back();
        private.map_err(|error| Code::of(&error, Code::InsufficientMem))?;
        state.published = None;
        Ok(())
    }

    /// What [`republish`](Self::republish) refuses before it looks at the lines of an access list.
    ///
    /// # Errors
    /// [`Code::SegNotPublished`], [`Code::BadAcl`], [`Code::NotCreator`].
    pub fn check_republish(&self, entries: usize) -> Result<(), Code> {
        let own = self.check_creator();
        if own.is_ok() {
            let state = self.state.lock();
            if state.destroyed {
                return Err(Code::BadSegHndl);
            }
            if state.published.is_none() {
                return Err(Code::SegNotPublished);
            }
        }
        self.controller.reach().check_count(entries)?;
        own
    }

    /// Other access for whoever connects from now on; connections in being keep their rights.
    ///
    /// # Errors
    /// Those of [`check_republish`](Self::check_republish); [`Code::InsufficientResources`], [`Code::InsufficientMem`]: it was
    /// read-only, and its memory cannot be made writable.
    pub fn republish(&self, list: Option<&[AccessEntry]>) -> Result<(), Code> {
        self.check_republish(list.map_or(0, <[_]>::len))?;
        let access = self.access(list)?;
        let mut state = self.state.lock();
        let Some(published) = &state.published else {
            return Err(Code::SegNotPublished);
        };
        if published.read_only && access.is_writable() {
            // A seal is for good: the memory gets another file, to which the readers follow.
            self.renew(&mut state, false)?;
        }
        let export = self.name;
        let request = Request::Republish { export, access };
        self.controller
            .ask(request, &[], Code::CtlrNotPresent)
            .map(drop)
    }

    /// Moves the present memory to a new file. Where that fails the segment ends, as nobody can say what importers see.
    fn renew(&self, state: &mut State, read_only: bool) -> Result<(), Code> {
        let exposed = state.memory.expose(read_only);
        let renewed = match (exposed, &mut state.published) {
            (Ok(exposed), Some(published)) => published.move_to(self, &exposed, read_only),
            (exposed, _) => exposed.and(Err(Code::SegNotPublished)),
        };
        if renewed.is_err() {
            let _ = self.end(state);
        }
        renewed
    }

    /// Other memory for the same segment; importers stay connected and mapped.
    ///
    /// # Errors
    /// [`Code::RebindNotAllowed`], [`Code::NotCreator`], [`Code::BadLength`]: another size; [`Code::BadAddr`],
    /// [`Code::PermDenied`], [`Code::InsufficientMem`], [`Code::InsufficientResources`]. The old memory stays then.
    pub fn rebind(&self, memory: Movable) -> Result<(), Code> {
        if !self.may_rebind {
            return Err(Code::RebindNotAllowed);
        }
        self.check_creator()?;
        let mut state = self.state.lock();
        let Memory::Own(old) = &state.memory else {
            return Err(Code::RebindNotAllowed);
        };
        if memory.len() != old.len() {
            return Err(Code::BadLength);
        }
        if state.destroyed {
            return Err(Code::BadSegHndl);
        }
        if memory.addr() == old.addr() {
            return Ok(());
        }
        let apart = memory.addr().abs_diff(old.addr()) >= memory.len();
        let lacking = |error| Code::of(&error, Code::InsufficientResources);
        let State {
            memory: present,
            published,
            ..
        } = &mut *state;
        let Some(published) = published else {
            memory.check().map_err(lacking)?;
            *present = Memory::Own(memory);
            return Ok(());
        };
        let read_only = published.read_only;
        if !apart {
            present.take_back().map_err(lacking)?;
        }
        let told = expose(&memory, read_only).and_then(|exposed| {
            let moved = published.move_to(self, &exposed, read_only);
            moved.inspect_err(|_| {
                let _ = memory.take_back();
            })
        });
        if let Err(code) = told {
            if !apart {
                self.renew(&mut state, read_only)?;
            }
            return Err(code);
        }
        // What stays in the old file harms nobody: importers leave it.
        let _ = state.memory.take_back();
        state.memory = Memory::Own(memory);
        Ok(())
    }

    /// Gives the segment up, published or not. The memory stays its owner's.
    ///
    /// # Errors
    /// [`Code::BadSegHndl`]: it was already; [`Code::NotCreator`]; [`Code::PollfdInUse`]; [`Code::InsufficientMem`] as of
    /// [`unpublish`](Self::unpublish).
    pub fn destroy(&self) -> Result<(), Code> {
        self.check_creator()?;
        let mut state = self.state.lock();
        if state.destroyed {
            return Err(Code::BadSegHndl);
        }
        if self.signals.is_polled() {
            return Err(Code::PollfdInUse);
        }
        self.give_up(&mut state)
    }

    fn give_up(&self, state: &mut State) -> Result<(), Code> {
        if state.published.is_some() {
            self.end(state)?;
        }
        state.destroyed = true;
        let request = Request::Destroy { export: self.name };
        // A service that is gone has nothing of it.
        let _ = self.controller.ask(request, &[], Code::CtlrNotPresent);
        Ok(())
    }

    /// A signal to every importer; `once`: not to those who have one pending.
    ///
    /// # Errors
    /// [`Code::BadSegHndl`]: destroyed; [`Code::NotCreator`]; [`Code::RemoteNodeUnreachable`]: the node's service has gone.
    pub fn post(&self, once: bool) -> Result<(), Code> {
        self.check_creator()?;
        let to = Target::Importers(self.name);
        let request = Request::Post { to, once };
        self.controller
            .ask(request, &[], Code::RemoteNodeUnreachable)
            .map(drop)
    }

    /// Takes one event of an importer's signals, waiting up to `timeout`; `None`: without limit.
    ///
    /// # Errors
    /// [`Code::Timeout`], [`Code::Interrupted`], [`Code::InsufficientResources`]; [`Code::ConnAborted`]: the node's service has
    /// gone.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(), Code> {
        self.check_creator()?;
        self.signals.wait(timeout)
    }

    /// The descriptor to poll for signals, counted.
    ///
    /// # Errors
    /// [`Code::BadSegHndl`]: it is not published.
    pub fn pollfd(&self) -> Result<BorrowedFd<'_>, Code> {
        self.check_creator()?;
        match &self.state.lock().published {
            Some(_) => Ok(self.signals.acquire()),
            None => Err(Code::BadSegHndl),
        }
    }

    /// Takes the descriptor back; nothing the time after the last.
    pub fn release_pollfd(&self) {
        self.signals.release();
    }

    /// Which controller it was created on.
    pub fn scope(&self) -> Scope {
        self.controller.scope()
    }

    /// Its queue.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }
}

impl Published {
    /// Importers of this node, and then of others, are in another file. Nothing has changed where that fails.
    fn move_to(&mut self, export: &Export, exposed: &Exposed, read_only: bool) -> Result<(), Code> {
        let rooms = |offer: &Offer| offer.rooms(&exposed.map()?);
        let rooms: Option<Rooms> = self.offer.as_ref().map(rooms).transpose()?;
        let request = Request::Rebind {
            export: export.name,
        };
        let files = exposed.files();
        (export.controller).ask(request, &files, Code::CtlrNotPresent)?;
        if let (Some(offer), Some(rooms)) = (&self.offer, rooms) {
            offer.move_to(rooms);
        }
        self.read_only = read_only;
        Ok(())
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if self.check_creator().is_ok() {
            let state = &mut self.state.lock();
            if !state.destroyed {
                let _ = self.give_up(state);
            }
        }
    }
}

/// The process's, without changing it for a moment; closed where the system does not say.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok())
        .unwrap_or(0o077)
}
