//! Shared windows: parts that every rank loads from and stores to (mpi-rma 5, Shared windows).
//!
//! All parts lie in one piece of memory that every rank maps, by default one after the other in
//! rank order. Operations go there as to any window; in an epoch that covers a rank its part can
//! also be had as a [`LocalView`]: single atomic accesses, never a slice, because its owner and
//! others may be writing. A rank's own slice is [`Window::lock_local`], as ever.

use windlass_runtime::{Placement, Route};

use crate::core::{Core, Make};
use crate::element::{self, Element};
use crate::epoch::{Epoch, Kind};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::hints::Hints;
use crate::local::LocalView;
use crate::window::{Flavor, Window};
use crate::world::{Rank, World};

impl World {
    /// A window of `len` zeroed elements on this rank that all ranks of this world map
    /// (`MPI_Win_allocate_shared`): the parts lie one after the other in rank order, in every
    /// rank's own mapping. Collective; `len` may differ per rank.
    ///
    /// # Errors
    /// [`Error::Shared`] on all ranks where one cannot map it: make the window on
    /// [`split_by_node`](Self::split_by_node)'s world. Otherwise as [`allocate`](Self::allocate).
    #[track_caller]
    pub fn allocate_shared<T: Element>(&self, len: usize) -> Result<Window<T>> {
        self.allocate_shared_with(len, &Hints::new())
    }

    /// [`allocate_shared`](Self::allocate_shared) with hints: with `alloc_shared_noncontig` each
    /// part begins on a page of its own.
    ///
    /// # Errors
    /// As [`allocate_shared`](Self::allocate_shared).
    #[track_caller]
    pub fn allocate_shared_with<T: Element>(&self, len: usize, hints: &Hints) -> Result<Window<T>> {
        const { element::check::<T>() };
        self.not_ended("allocate_shared")?;
        let make = Make::of::<T>("allocate_shared", Flavor::Shared, hints);
        let bytes = len.saturating_mul(size_of::<T>());
        Ok(Window::over(Core::new_shared(self, bytes, make)?, ()))
    }
}

impl Core {
    /// Collective: parts of memory that all ranks map.
    #[track_caller]
    pub(crate) fn new_shared(world: &World, len_bytes: usize, make: Make) -> Result<Core> {
        let align = make.hints.alignment();
        let placement = if make.hints.noncontig() {
            Placement::Apart
        } else {
            Placement::Contiguous
        };
        Core::new(world, make, |team, note| {
            team.expose_shared(len_bytes, align, placement, note)
        })
    }
}

impl<T: Element, K: Kind> Epoch<'_, T, K> {
    /// The part of `target` for loads and stores of this rank, where it is mapped: always in a
    /// [shared window](World::allocate_shared), else where the route to it is
    /// (`MPI_Win_shared_query`; `None` stands for its size 0).
    ///
    /// Loads and stores are ordered by the calls that order operations: fence, locks, and
    /// [`sync`](Epoch::sync) with any synchronisation between the ranks.
    ///
    /// # Errors
    /// [`Error::BadRank`]; [`Error::NotLocked`] or [`Error::Epoch`] where the epoch does not cover
    /// `target`.
    #[track_caller]
    pub fn shared(&self, target: Rank) -> Result<Option<LocalView<'_, T>>> {
        let reach = self.way("shared", target, 0, 0)?.reach;
        Ok(match &reach.route {
            Route::Mapped(bytes) => Some(LocalView::of(self.core, target, bytes)),
            Route::Posted(_) => None,
        })
    }
}
