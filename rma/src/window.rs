//! Windows: creation, the table of targets, the end.
//!
//! Creation is collective: each rank brings a region and a note about its elements, the runtime
//! negotiates a route to every part, and all ranks succeed or all fail alike. What remains is an
//! immutable table of targets, so that the data path takes no lock.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;

use windlass_mem::{Loan, SharedBytes};
use windlass_runtime as runtime;
pub(crate) use windlass_runtime::Call as Status;
use windlass_runtime::{Exposure, Pending, Region, Route, WordName};

use crate::element::Element;
use crate::epoch::{Access, Call, Epochs};
use crate::error::{ElementKind, Error, Result, Site};
use crate::op::Op;
use crate::request::{Buffer, Request};
use crate::world::{Rank, World};

/// One target: its route first, because a put looks at nothing else.
pub(crate) struct Reach {
    pub(crate) route: Route,
    /// Elements there.
    pub(crate) count: usize,
    /// The unit of its updates.
    pub(crate) atomics: Route,
    /// The word of its lock, if this node has it.
    pub(crate) lock: Option<SharedBytes>,
}

impl Reach {
    /// Has a flush something to wait for?
    #[inline(always)]
    pub(crate) fn is_posted(&self) -> bool {
        matches!(self.route, Route::Posted(_)) || matches!(self.atomics, Route::Posted(_))
    }
}

/// Memory of every rank that every rank may put to, get from and update.
///
/// Made by [`World::allocate`] or [`World::create`]; used through epochs: [`fence`](Self::fence),
/// [`lock`](Self::lock), [`lock_all`](Self::lock_all). [`free`](Self::free) is the collective
/// end; a window that is merely dropped marks this rank as departed, and the peers' next
/// synchronisation on it answers [`Error::Departed`].
pub struct Window<T: Element> {
    pub(crate) reach: Box<[Reach]>,
    pub(crate) epochs: Epochs,
    /// Targets whose flush may wait.
    pub(crate) posted: Box<[Rank]>,
    pub(crate) world: World,
    exposure: Option<Exposure>,
    loan: Option<Loan<Vec<T>>>,
    name: Arc<str>,
    _elements: PhantomData<T>,
}

/// How one target of a window is reached, and why not otherwise.
#[derive(Debug, Clone)]
pub struct RouteInfo {
    /// The target.
    pub target: Rank,
    /// The mechanism taken.
    pub mechanism: &'static str,
    /// `mapped`: load and store; `posted`: a queue, then a completion.
    pub shape: &'static str,
    /// Every other mechanism, with the reason why it was not taken, in a sentence.
    pub rejected: Vec<(&'static str, String)>,
}

/// What ranks tell each other about their elements.
fn note<T: Element>() -> [u8; 8] {
    let mut note = [0; 8];
    note[..4].copy_from_slice(&(size_of::<T>() as u32).to_le_bytes());
    note[4..].copy_from_slice(&(align_of::<T>() as u32).to_le_bytes());
    note
}

/// A note understood; zeros for anything else that a peer may send.
fn kind_of(note: &[u8]) -> ElementKind {
    let (size, align) = match note {
        [a, b, c, d, e, f, g, h] => (
            u32::from_le_bytes([*a, *b, *c, *d]),
            u32::from_le_bytes([*e, *f, *g, *h]),
        ),
        _ => (0, 0),
    };
    ElementKind { size, align }
}

impl<T: Element> Window<T> {
    /// Collective: exposes `region`, or takes part in the common failure.
    #[track_caller]
    pub(crate) fn new(
        call: &'static str,
        world: &World,
        region: runtime::Result<Region>,
        loan: Option<Loan<Vec<T>>>,
        len: usize,
    ) -> Result<Window<T>> {
        let mine = note::<T>();
        let exposure = match world.job().expose(region, &mine) {
            Ok(exposure) => exposure,
            Err(error) => {
                return Err(creation_error(error, len, size_of::<T>(), world.site(call)));
            }
        };
        // Every rank sees all notes, so all come to the same answer.
        let first = &exposure.targets[0].note;
        let odd = exposure
            .targets
            .iter()
            .position(|target| target.note != *first);
        if let Some(odd) = odd {
            let error = Error::Element {
                rank: odd as u32,
                theirs: kind_of(&exposure.targets[odd].note),
                first: kind_of(first),
                at: Box::new(world.site(call)),
            };
            // All ranks come here: the collective end of what was never used.
            drop(exposure.free());
            return Err(error);
        }
        let reach: Box<[Reach]> = (0u32..)
            .zip(&exposure.targets)
            .map(|(rank, target)| Reach {
                route: target.route.clone(),
                count: target.extent_bytes as usize / size_of::<T>(),
                atomics: target.updates.clone(),
                lock: exposure.word_here(WordName::Lock(rank)),
            })
            .collect();
        let posted = (0u32..)
            .zip(&reach)
            .filter(|(_, r)| r.is_posted())
            .map(|(rank, _)| Rank(rank));
        Ok(Window {
            posted: posted.collect(),
            epochs: Epochs::new(reach.len()),
            reach,
            name: format!("window {}", world.count_window()).into(),
            exposure: Some(exposure),
            loan,
            world: world.clone(),
            _elements: PhantomData,
        })
    }

    /// The name used in errors: `window` and a number that is the same on every rank.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the window a name for its errors. Local.
    pub fn set_name(&mut self, name: &str) {
        self.name = name.into();
    }

    /// Elements in the part of `target`.
    ///
    /// # Errors
    /// [`Error::BadRank`].
    #[track_caller]
    pub fn len_of(&self, target: Rank) -> Result<usize> {
        match self.reach.get(target.0 as usize) {
            Some(reach) => Ok(reach.count),
            None => Err(self.bad_rank("len_of", target)),
        }
    }

    /// Ranks of the window: all of the job.
    pub fn size(&self) -> u32 {
        self.reach.len() as u32
    }

    /// The route to every rank's part, in rank order.
    pub fn routes(&self) -> impl Iterator<Item = RouteInfo> + '_ {
        (0u32..)
            .zip(&self.exposure().targets)
            .map(|(rank, target)| RouteInfo {
                target: Rank(rank),
                mechanism: target.why.chosen.name(),
                shape: target.route.shape(),
                rejected: target
                    .why
                    .rejected
                    .iter()
                    .map(|(mechanism, reason)| (mechanism.name(), reason.to_string()))
                    .collect(),
            })
    }

    /// The collective end: waits for all ranks, then takes the window down.
    ///
    /// Gives the memory lent to [`World::create`] back, with what peers wrote to it; for an
    /// allocated window the vector is empty.
    ///
    /// # Errors
    /// [`Error::Epoch`] if a forgotten guard left an epoch open, [`Error::Departed`],
    /// [`Error::PeerLost`], [`Error::Transfer`]: the window is dropped then, and its memory stays
    /// allocated, because peers may still reach it.
    #[track_caller]
    pub fn free(mut self) -> Result<Vec<T>> {
        if let Err(state) = self.epochs.check(Call::Free) {
            return Err(self.wrong_epoch("free", Call::Free, state));
        }
        self.present("free")?;
        self.drain_all("free")?;
        let Some(exposure) = self.exposure.take() else {
            return Ok(Vec::new());
        };
        // Routes, then exports, then memory (architecture section 3).
        self.reach = Box::default();
        let region = match exposure.free() {
            Ok(region) => region,
            Err(error) => return Err(self.job_error("free", error)),
        };
        let Some(loan) = self.loan.take() else {
            return Ok(Vec::new());
        };
        let bytes = region.bytes().clone();
        drop(region);
        match loan.take_back(bytes) {
            Ok(memory) => Ok(memory),
            Err(still) => {
                // Somebody's copy may still reach it.
                std::mem::forget(still);
                Err(Error::InUse {
                    at: Box::new(self.site("free")),
                })
            }
        }
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
            None => unreachable!("a window has its exposure until free consumes it"),
        }
    }

    /// This rank's own memory.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &SharedBytes {
        self.exposure().bytes()
    }

    #[inline]
    pub(crate) fn rank(&self) -> Rank {
        self.world.rank()
    }

    /// Notes what this rank is doing, for the launcher's message after a death.
    #[inline(always)]
    pub(crate) fn enter(&self, status: Status) {
        self.world.job().enter(status);
    }

    pub(crate) fn request(
        &self,
        buffer: Buffer<T>,
        pending: Option<Pending>,
        target: Rank,
        call: &'static str,
    ) -> Request<Buffer<T>> {
        Request::new(buffer, pending, &self.world, target.0, call, &self.name)
    }
}

/// The errors of a window, out of line: the hot path only branches here.
impl<T: Element> Window<T> {
    #[cold]
    #[track_caller]
    pub(crate) fn site(&self, call: &'static str) -> Site {
        Site {
            call,
            rank: Some(self.world.rank().0),
            window: Some(Arc::clone(&self.name)),
            location: Location::caller(),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn bad_rank(&self, call: &'static str, target: Rank) -> Error {
        Error::BadRank {
            target: target.0,
            size: self.size(),
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn out_of_bounds(
        &self,
        call: &'static str,
        target: Rank,
        disp: usize,
        len: usize,
    ) -> Error {
        Error::OutOfBounds {
            target: target.0,
            disp,
            len,
            extent: self
                .reach
                .get(target.0 as usize)
                .map_or(0, |reach| reach.count),
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn wrong_epoch(&self, name: &'static str, call: Call, state: Access) -> Error {
        Error::Epoch {
            state,
            call,
            at: Box::new(self.site(name)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn not_locked(&self, call: &'static str, target: Rank, locked: Rank) -> Error {
        Error::NotLocked {
            target: target.0,
            locked: locked.0,
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn bad_operator(&self, call: &'static str, op: Op) -> Error {
        Error::Operator {
            op,
            at: Box::new(self.site(call)),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn bad_count(&self, what: &'static str, got: usize, want: usize) -> Error {
        Error::Count {
            what,
            got,
            want,
            at: Box::new(self.site("get_accumulate")),
        }
    }

    /// The runtime failed a transfer with `target`.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn failed(&self, call: &'static str, target: Rank, source: runtime::Error) -> Error {
        Error::from_transfer(source, target.0, self.site(call))
    }

    /// The same when parts of a transfer from or to `buffer` may run on: it is never freed.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn failed_with(
        &self,
        buffer: Buffer<T>,
        call: &'static str,
        target: Rank,
        source: runtime::Error,
    ) -> Error {
        std::mem::forget(buffer);
        self.failed(call, target, source)
    }

    /// Mapped memory or an update refused what was checked before: misaligned lent memory, say.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn refused(
        &self,
        call: &'static str,
        target: Rank,
        error: impl fmt::Display,
    ) -> Error {
        self.failed(call, target, runtime::Error::Update(error.to_string()))
    }

    /// A call without a single target failed.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn job_error(&self, call: &'static str, source: runtime::Error) -> Error {
        Error::from_job(source, self.site(call))
    }
}

#[cold]
fn creation_error(source: runtime::Error, len: usize, element_bytes: usize, at: Site) -> Error {
    match source {
        runtime::Error::NoMemory { .. } => Error::NoMemory {
            len,
            element_bytes,
            at: Box::new(at),
            source: Box::new(source),
        },
        other => Error::from_job(other, at),
    }
}

impl<T: Element> Drop for Window<T> {
    /// Never waits: marks this rank as departed. Peers may still reach the memory, so it stays.
    fn drop(&mut self) {
        let Some(exposure) = self.exposure.take() else {
            return;
        };
        exposure.depart();
        if let Some(loan) = self.loan.take() {
            // The arena's memory outlives a window anyhow; lent memory must be kept for ever.
            std::mem::forget((exposure.bytes().clone(), loan));
        }
        self.world.bury(exposure);
    }
}

impl<T: Element> fmt::Debug for Window<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("name", &self.name)
            .field(
                "elements",
                &self.reach.iter().map(|r| r.count).collect::<Vec<_>>(),
            )
            .field("epoch", &self.epochs.state(None))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_tell_elements_apart_and_survive_rubbish() {
        assert_eq!(note::<f64>(), note::<u64>());
        assert_ne!(note::<f64>(), note::<f32>());
        assert_ne!(note::<u64>(), note::<[u32; 2]>());
        assert_eq!(
            kind_of(&note::<[u8; 3]>()).to_string(),
            "3 bytes aligned to 1"
        );
        for len in 0..12 {
            let _ = kind_of(&vec![0xff; len]);
        }
    }
}
