//! The typed window: what is made of it, asked of it, and given back by it.

use std::fmt;
use std::marker::PhantomData;

use windlass_mem::{Lend, SharedBytes};
use windlass_runtime as runtime;
use windlass_runtime::Region;
use windlass_runtime::job::Job;
pub use windlass_runtime::route::Progress;

use crate::core::{Core, Make};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::hints::Hints;
use crate::world::{Rank, World};

/// Who made a window's memory (`MPI_WIN_CREATE_FLAVOR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flavor {
    /// The caller, who lends it. `MPI_WIN_FLAVOR_CREATE`
    Create,
    /// The library. `MPI_WIN_FLAVOR_ALLOCATE`
    Allocate,
    /// The library, mapped by all ranks. `MPI_WIN_FLAVOR_SHARED`
    Shared,
    /// The caller, piece by piece. `MPI_WIN_FLAVOR_DYNAMIC`
    Dynamic,
}

/// What a window gives back when it is freed.
enum Lent<M> {
    /// Nothing was lent to it.
    Kept(M),
    /// Memory that peers can reach.
    Loan(TakeBack<M>),
}

/// How lent memory comes back, given the last range over it; `None` where it is still in use.
///
/// Dropped without being called, it keeps the memory for ever: peers may still reach it.
struct TakeBack<M>(Option<Box<dyn FnOnce(SharedBytes) -> Option<M> + Send + Sync>>);

impl<M> TakeBack<M> {
    fn new(take_back: impl FnOnce(SharedBytes) -> Option<M> + Send + Sync + 'static) -> Self {
        TakeBack(Some(Box::new(take_back)))
    }

    fn call(mut self, bytes: SharedBytes) -> Option<M> {
        self.0.take()?(bytes)
    }
}

impl<M> Drop for TakeBack<M> {
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

/// Memory of every rank that every rank may put to, get from and update.
///
/// Made by [`World::allocate`] or [`World::create`]; used through epochs: [`fence`](Self::fence),
/// [`start`](Self::start) and [`post`](Self::post), [`lock`](Self::lock),
/// [`lock_all`](Self::lock_all). [`free`](Self::free) is the collective end, which gives back what
/// was lent (`M`, nothing for an allocated window); a window that is merely dropped marks this
/// rank as departed, and the peers' next synchronisation on it answers [`Error::Departed`].
pub struct Window<T: Element, M: Send + 'static = ()> {
    pub(crate) core: Core,
    lent: Lent<M>,
    elements: PhantomData<fn() -> T>,
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
    /// Who moves the data while the target computes (mpi-rma 6).
    pub progress: Progress,
    /// The same for the accumulate family.
    pub update_progress: Progress,
    /// Every other mechanism, with the reason why it was not taken, in a sentence.
    pub rejected: Vec<(&'static str, String)>,
}

/// Memory of the library's for this rank's part: where others only read it, and can map it, with no right to more.
pub(crate) fn allocate(
    world: &World,
    bytes: usize,
    hints: &Hints,
    otherwise: impl FnOnce(&Job, usize) -> runtime::Result<Region>,
) -> runtime::Result<Region> {
    let (job, align) = (world.job(), hints.alignment());
    match hints.read_only() && world.team().is_on_one_host() {
        true => job.allocate_read_only(bytes, align),
        false => otherwise(job, align),
    }
}

impl<T: Element> Window<T> {
    /// Collective: a window over memory of the arena.
    #[track_caller]
    pub(crate) fn allocated(world: &World, len: usize, hints: &Hints) -> Result<Window<T>> {
        // A size beyond the address space is refused by the arena like one beyond its memory.
        let bytes = len.saturating_mul(size_of::<T>());
        let region = allocate(world, bytes, hints, |job, align| {
            job.allocate_window(bytes, align)
        });
        let make = Make::of::<T>("allocate", Flavor::Allocate, hints);
        Ok(Window::over(
            Core::new(world, make, |team, note| team.expose(region, note))?,
            (),
        ))
    }
}

impl<T: Element, M: Send + 'static> Window<T, M> {
    /// A window over memory that is not its own to give back.
    pub(crate) fn over(core: Core, kept: M) -> Window<T, M> {
        Window {
            core,
            lent: Lent::Kept(kept),
            elements: PhantomData,
        }
    }
}

impl<T: Element, M: Lend<T> + Sync> Window<T, M> {
    /// Collective: a window over memory of the caller.
    #[track_caller]
    pub(crate) fn created(world: &World, memory: M, hints: &Hints) -> Result<Window<T, M>> {
        let len = memory.as_ref().len();
        let (region, lent) = if len == 0 {
            // Nothing to lend: no mechanism registers a range without bytes.
            (world.job().allocate(0, 1), Lent::Kept(memory))
        } else {
            let (region, loan) = world.job().lend(memory);
            let take_back = move |bytes| {
                // Where somebody's copy may still reach it, it stays allocated.
                let taken = loan.take_back(bytes);
                taken.map_err(std::mem::forget).ok()
            };
            (Ok(region), Lent::Loan(TakeBack::new(take_back)))
        };
        let make = Make::of::<T>("create", Flavor::Create, hints);
        Ok(Window {
            core: Core::new(world, make, |team, note| team.expose(region, note))?,
            lent,
            elements: PhantomData,
        })
    }
}

impl<T: Element, M: Send + 'static> Window<T, M> {
    /// The window without the right to its memory: [`free`](Self::free) drops what was lent. So
    /// windows over different memory have one type.
    pub fn without_loan(self) -> Window<T> {
        let Window { core, lent, .. } = self;
        Window {
            core,
            lent: match lent {
                Lent::Kept(_) => Lent::Kept(()),
                Lent::Loan(take_back) => {
                    Lent::Loan(TakeBack::new(|bytes| take_back.call(bytes).map(drop)))
                }
            },
            elements: PhantomData,
        }
    }

    /// The name used in errors: `window` and a number that is the same on every rank.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Gives the window a name for its errors, of at most [`NAME_MAX_BYTES`]; what is longer is
    /// cut. Local.
    pub fn set_name(&mut self, name: &str) {
        self.core.name = cut_name(name).into();
    }

    /// The hints in force (`MPI_Win_get_info`).
    pub fn hints(&self) -> &Hints {
        &self.core.hints
    }

    /// Changes hints (`MPI_Win_set_info`): begin with [`hints`](Self::hints). Collective; what is in
    /// force then is agreed as at creation. Alignment and placement of the memory stay.
    ///
    /// # Errors
    /// [`Error::Departed`], [`Error::PeerLost`].
    #[track_caller]
    pub fn set_hints(&mut self, hints: &Hints) -> Result<()> {
        self.core.set_hints("set_hints", hints)
    }

    /// Who made the memory.
    pub fn flavor(&self) -> Flavor {
        self.core.flavor
    }

    /// The ranks of the window, in order.
    pub fn group(&self) -> Group {
        self.core.world.group()
    }

    /// Elements in the part of `target`.
    ///
    /// # Errors
    /// [`Error::BadRank`].
    #[track_caller]
    pub fn len_of(&self, target: Rank) -> Result<usize> {
        match self.core.reach.get(target.0 as usize) {
            Some(reach) => Ok(reach.count),
            None => Err(self.core.bad_rank("len_of", target)),
        }
    }

    /// How many ranks the window has.
    pub fn size(&self) -> u32 {
        self.core.size()
    }

    /// The route to every rank's part, in rank order.
    pub fn routes(&self) -> impl Iterator<Item = RouteInfo> + '_ {
        let lent = self.core.flavor == Flavor::Create;
        (0u32..)
            .zip(&self.core.exposure().targets)
            .map(move |(rank, target)| RouteInfo {
                target: Rank(rank),
                mechanism: target.why.chosen.name(),
                shape: target.route.shape(),
                progress: target.route.progress(),
                update_progress: target.updates.progress(),
                rejected: target
                    .why
                    .rejected
                    .iter()
                    .map(|(mechanism, reason)| match target.extent_bytes {
                        0 if lent => (mechanism.name(), format!("rank {rank} lends no memory")),
                        _ => (mechanism.name(), reason.to_string()),
                    })
                    .collect(),
            })
    }

    /// The collective end: waits for all ranks, then takes the window down.
    ///
    /// Gives the memory lent to [`World::create`] back, with what peers wrote to it.
    ///
    /// # Errors
    /// [`Error::Epoch`] if a forgotten guard left an epoch open, [`Error::Departed`],
    /// [`Error::PeerLost`], [`Error::Transfer`]: the window is dropped then, and its memory stays
    /// allocated, because peers may still reach it.
    #[track_caller]
    pub fn free(self) -> Result<M> {
        let Window { mut core, lent, .. } = self;
        let region = core.free()?;
        match lent {
            Lent::Kept(memory) => Ok(memory),
            Lent::Loan(take_back) => {
                let taken = region.and_then(|region| {
                    let bytes = region.bytes().clone();
                    drop(region);
                    take_back.call(bytes)
                });
                match taken {
                    Some(memory) => Ok(memory),
                    None => Err(Error::InUse {
                        at: Box::new(core.site("free")),
                    }),
                }
            }
        }
    }
}

/// The longest name of a window, in bytes (`MPI_MAX_OBJECT_NAME` - 1).
pub const NAME_MAX_BYTES: usize = 127;

/// The name as far as it is kept.
pub(crate) fn cut_name(name: &str) -> &str {
    let mut end = name.len().min(NAME_MAX_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

impl<T: Element, M: Send + 'static> fmt::Debug for Window<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}
