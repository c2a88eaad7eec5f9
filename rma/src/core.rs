//! A window without its element type: bytes, routes and the epoch state.
//!
//! Creation is collective: each rank brings a region and a note about its elements, the runtime
//! negotiates a route to every part, and all ranks succeed or all fail alike. What remains is an
//! immutable table of targets, so that the data path takes no lock. The typed
//! [`Window`](crate::Window) and the pointer-based one of [`raw`](crate::raw) stand on it alike.

use std::fmt;
use std::sync::Arc;

use windlass_mem::{SharedBytes, SharedWord};
use windlass_runtime as runtime;
pub(crate) use windlass_runtime::Call as Status;
use windlass_runtime::{Exposure, Pending, Posted, Region, Route, StatusWord, Team, WordName};

use crate::dynamic::Dynamic;
use crate::element::Element;
use crate::epochs::Epochs;
use crate::error::{ElementKind, Error, Result};
use crate::hints::Hints;
use crate::notify::Inbox;
use crate::pscw::Rounds;
use crate::refuse::creation_error;
use crate::request::Request;
use crate::state::{Call, State};
use crate::window::Flavor;
use crate::world::{Rank, World};

/// One target: its route first, because a put looks at nothing else.
pub(crate) struct Reach {
    pub(crate) route: Route,
    /// Elements there.
    pub(crate) count: usize,
    /// The unit of its updates.
    pub(crate) atomics: Route,
    /// The word of its lock, if this node has it and the window has locks.
    pub(crate) lock: Option<SharedWord>,
    /// Bytes there.
    pub(crate) bytes: u64,
    /// Bytes from one displacement to the next.
    pub(crate) disp_unit: u64,
    /// Has a flush something to wait for?
    pub(crate) is_posted: bool,
}

/// Does anything go through an engine?
pub(crate) fn is_posted(route: &Route, atomics: &Route) -> bool {
    matches!(route, Route::Posted(_)) || matches!(atomics, Route::Posted(_))
}

/// A window without its element type.
pub struct Core {
    pub(crate) reach: Box<[Reach]>,
    pub(crate) epochs: Epochs,
    /// This process.
    me: Rank,
    /// Where it notes what it is doing.
    status: StatusWord,
    /// Targets whose flush may wait.
    pub(crate) posted: Box<[Rank]>,
    pub(crate) world: World,
    pub(crate) rounds: Rounds,
    pub(crate) inbox: Inbox,
    /// Of a window whose memory comes and goes.
    pub(crate) dynamic: Option<Dynamic>,
    exposure: Option<Exposure>,
    pub(crate) hints: Hints,
    pub(crate) flavor: Flavor,
    pub(crate) name: Arc<str>,
}

/// What a window is made with, beside its memory.
pub(crate) struct Make {
    pub(crate) call: &'static str,
    pub(crate) flavor: Flavor,
    pub(crate) hints: Hints,
    /// What all ranks give alike.
    pub(crate) element: ElementKind,
    /// Bytes from one displacement to the next at this rank.
    pub(crate) disp_unit: u64,
}

impl Make {
    /// A window of elements `T`, whose displacements count them.
    pub(crate) fn of<T: Element>(call: &'static str, flavor: Flavor, hints: &Hints) -> Make {
        Make {
            call,
            flavor,
            hints: hints.clone(),
            element: ElementKind {
                size: size_of::<T>() as u32,
                align: align_of::<T>() as u32,
            },
            disp_unit: size_of::<T>() as u64,
        }
    }
}

/// What ranks tell each other about their part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    element: ElementKind,
    promises: u32,
    disp_unit: u64,
}

impl Note {
    fn new(make: &Make) -> Note {
        Note {
            element: make.element,
            promises: make.hints.promises(),
            disp_unit: make.disp_unit,
        }
    }

    fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&self.element.size.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.element.align.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.promises.to_le_bytes());
        bytes[12..].copy_from_slice(&self.disp_unit.to_le_bytes());
        bytes
    }

    /// A note understood; zeros for what a peer does not send.
    fn from_bytes(bytes: &[u8]) -> Note {
        let word = |at: usize| match bytes.get(at..at + 4) {
            Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
            _ => 0,
        };
        Note {
            element: ElementKind {
                size: word(0),
                align: word(4),
            },
            promises: word(8),
            disp_unit: u64::from(word(12)) | u64::from(word(16)) << 32,
        }
    }
}

/// The lock word for the fast path, if there is one.
fn lock_of(exposure: &Exposure, rank: u32, no_locks: bool) -> Option<SharedWord> {
    let word = || exposure.word_here(WordName::Lock(rank));
    if no_locks { None } else { word() }
}

/// Every rank's part as this one reaches it.
fn table(exposure: &Exposure, notes: &[Note], no_locks: bool) -> Box<[Reach]> {
    (0u32..)
        .zip(exposure.targets.iter().zip(notes))
        .map(|(rank, (target, note))| Reach {
            route: target.route.clone(),
            count: target.extent_bytes as usize / note.element.size.max(1) as usize,
            atomics: target.updates.clone(),
            lock: lock_of(exposure, rank, no_locks),
            bytes: target.extent_bytes,
            disp_unit: note.disp_unit,
            is_posted: is_posted(&target.route, &target.updates),
        })
        .collect()
}

impl Core {
    /// Collective: `expose`s this rank's part with a note to the others, or takes part in the
    /// common failure.
    #[track_caller]
    pub(crate) fn new(
        world: &World,
        make: Make,
        expose: impl FnOnce(&Arc<Team>, &[u8]) -> runtime::Result<Exposure>,
    ) -> Result<Core> {
        let Make { call, flavor, .. } = make;
        let exposure = match expose(world.team(), &Note::new(&make).to_bytes()) {
            Ok(exposure) => exposure,
            Err(error) => return Err(creation_error(error, world.site(call))),
        };
        // Every rank sees all notes, so all come to the same answer.
        let notes = exposure.targets.iter();
        let notes: Vec<_> = notes.map(|t| Note::from_bytes(&t.note)).collect();
        let first = notes[0].element;
        if let Some(odd) = notes.iter().position(|note| note.element != first) {
            let error = Error::Element {
                rank: odd as u32,
                theirs: notes[odd].element,
                first,
                at: Box::new(world.site(call)),
            };
            // All ranks come here: the collective end of what was never used.
            drop(exposure.free());
            return Err(error);
        }
        let mut hints = make.hints;
        hints.agree(notes.iter().map(|note| note.promises));
        let reach = table(&exposure, &notes, hints.no_locks());
        let (reach, dynamic) = match flavor {
            Flavor::Dynamic => Dynamic::new(reach),
            _ => (reach, None),
        };
        let posted = (0u32..)
            .zip(&reach)
            .filter(|(_, r)| r.is_posted)
            .map(|(rank, _)| Rank(rank));
        let core = Core {
            posted: posted.collect(),
            epochs: Epochs::new(reach.len(), dynamic.is_some()),
            rounds: Rounds::new(reach.len()),
            me: world.rank(),
            status: exposure.job().status().clone(),
            reach,
            dynamic,
            name: world.name_window().into(),
            exposure: Some(exposure),
            world: world.clone(),
            inbox: Inbox::new(),
            hints,
            flavor,
        };
        core.log("made");
        Ok(core)
    }

    /// What becomes of the window, for `WINDLASS_LOG=debug`.
    fn log(&self, what: &str) {
        let (name, rank, size) = (&self.name, self.me, self.size());
        let bytes = self
            .reach
            .get(self.me.0 as usize)
            .map_or(0, |own| own.bytes);
        let flavor = self.flavor;
        tracing::debug!("{name} {what}: rank {rank} of {size}, {flavor:?}, {bytes} bytes here");
    }
}

impl Core {
    /// The collective end, up to the region that this rank exposed.
    #[track_caller]
    pub(crate) fn free(&mut self) -> Result<Option<Region>> {
        let end = self.allowed("free", Call::Free, None)?;
        self.present("free")?;
        self.drain_all("free")?;
        self.epochs.set(end);
        self.log("is freed");
        let Some(exposure) = self.exposure.take() else {
            unreachable!("a window has its exposure until free takes it")
        };
        // Routes, then exports, then memory (architecture section 3).
        self.reach = Box::default();
        let freed = exposure.free();
        match freed {
            Ok(_) => self.detach_all(),
            Err(_) => self.abandon_regions(),
        }
        self.done("free", freed)
    }

    /// This rank takes no further part in the window's collective calls. Never waits.
    pub(crate) fn depart(&self) {
        self.epochs.depart();
        self.exposure().depart(&self.name);
    }

    /// What `call` on `target` makes of the state.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn allowed(
        &self,
        name: &'static str,
        call: Call,
        target: Option<Rank>,
    ) -> Result<State> {
        match self.epochs.check(call, target) {
            Ok(state) => Ok(state),
            Err(state) => Err(self.wrong_epoch(name, call, state)),
        }
    }

    /// How many ranks the window has.
    pub(crate) fn size(&self) -> u32 {
        self.reach.len() as u32
    }

    /// Collective: other hints from here on. What concerns the placement of memory stays.
    #[track_caller]
    pub(crate) fn set_hints(&mut self, call: &'static str, hints: &Hints) -> Result<()> {
        self.present(call)?;
        let mut hints = hints.after(&self.hints);
        // On the window's own words: ranks that have left it do not come, and whoever is in another
        // collective call of the world has nothing to do with it.
        let promises = hints.promises().to_le_bytes();
        let told = self.done(call, self.exposure().all_gather(&promises))?;
        let promises = told.iter().map(|bytes| {
            let bytes = bytes.as_slice().try_into();
            bytes.map_or(0, u32::from_le_bytes)
        });
        hints.agree(promises);
        self.hints = hints;
        let locks = (0..self.size()).map(|rank| lock_of(self.exposure(), rank, self.no_locks()));
        let locks: Vec<_> = locks.collect();
        for (reach, lock) in self.reach.iter_mut().zip(locks) {
            reach.lock = lock;
        }
        Ok(())
    }

    pub(crate) fn no_locks(&self) -> bool {
        self.hints.no_locks()
    }

    /// Refuses a collective call after this rank dropped a fence guard: its peers go on without it.
    #[track_caller]
    pub(crate) fn present(&self, call: &'static str) -> Result<()> {
        if self.epochs.has_departed() {
            let rank = self.rank().0;
            return Err(self.job_error(call, runtime::Error::Departed { rank }));
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn exposure(&self) -> &Exposure {
        match &self.exposure {
            Some(exposure) => exposure,
            None => unreachable!("a window has its exposure until free takes it"),
        }
    }

    /// The way to this rank's own part where no address leads to it: memory of a real VE.
    #[cold]
    pub(crate) fn own_posted(&self) -> Option<&Posted> {
        match &self.reach[self.me.0 as usize].route {
            Route::Posted(posted) if self.dynamic.is_none() && self.bytes().is_empty() => {
                Some(posted)
            }
            _ => None,
        }
    }

    /// This rank's own part; of a dynamic window nothing, and nothing where no address leads to it.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &SharedBytes {
        match &self.dynamic {
            None => self.exposure().bytes(),
            Some(dynamic) => &dynamic.nothing,
        }
    }

    #[inline(always)]
    pub(crate) fn rank(&self) -> Rank {
        self.me
    }

    /// Notes what this rank is doing, for the launcher's message after a death.
    #[inline(always)]
    pub(crate) fn enter(&self, status: Status) {
        self.status.enter(status);
    }

    pub(crate) fn request<B: Send + 'static>(
        &self,
        buffer: B,
        pending: Option<Pending>,
        target: Rank,
        call: &'static str,
    ) -> Request<B> {
        Request::new(buffer, pending, &self.world, target.0, call, &self.name)
    }
}

impl Core {
    /// Completes what was posted to `target`; the first failure wins.
    #[track_caller]
    pub(crate) fn drain(&self, name: &'static str, target: Rank) -> Result<()> {
        let reach = &self.reach[target.0 as usize];
        let mut first = self.flush(reach);
        if let Some(dynamic) = &self.dynamic {
            for region in dynamic.reached(target) {
                first = first.and(self.flush(&region));
            }
        }
        self.sent(name, target, first)
    }

    fn flush(&self, reach: &Reach) -> runtime::Result<()> {
        let mut first = Ok(());
        for route in [&reach.route, &reach.atomics] {
            if let Route::Posted(posted) = route {
                self.enter(Status::Flush);
                first = first.and(posted.flush());
            }
        }
        first
    }

    /// Completes everything posted on this window; the first failure wins.
    #[track_caller]
    pub(crate) fn drain_all(&self, name: &'static str) -> Result<()> {
        let mut first: Option<Error> = None;
        for &target in &self.posted {
            if let Err(error) = self.drain(name, target) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

impl Drop for Core {
    /// Never waits: marks this rank as departed. Peers may still reach the memory, so it stays.
    fn drop(&mut self) {
        if self.exposure.is_some() {
            self.log("is dropped, not freed");
        }
        if let Some(exposure) = self.exposure.take() {
            exposure.depart(&self.name);
            self.world.bury(exposure);
            self.abandon_regions();
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.reach.iter().map(|reach| reach.count).collect();
        f.debug_struct("Window")
            .field("name", &self.name)
            .field("elements", &counts)
            .field("state", &self.epochs.state(None))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_tell_elements_apart_and_survive_rubbish() {
        fn note<T: Element>() -> Note {
            Note::new(&Make::of::<T>("allocate", Flavor::Allocate, &Hints::new()))
        }
        assert_eq!(note::<f64>(), note::<u64>());
        assert_ne!(note::<f64>(), note::<f32>());
        assert_ne!(note::<u64>(), note::<[u32; 2]>());
        let three = note::<[u8; 3]>();
        assert_eq!(three.element.to_string(), "3 bytes aligned to 1");
        let wide = Note {
            disp_unit: u64::MAX - 5,
            ..three
        };
        assert_eq!(Note::from_bytes(&wide.to_bytes()), wide);
        for len in 0..30 {
            let _ = Note::from_bytes(&vec![0xff; len]);
        }
    }
}
