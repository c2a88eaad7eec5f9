//! Creation, attributes and the end of a window by pointers.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU8;

use windlass_mem::SharedBytes;

use crate::core::{Core, Make};
use crate::error::{ElementKind, Error, Result};
use crate::group::Group;
use crate::hints::Hints;
use crate::state::State;
use crate::window::{Flavor, Progress, cut_name};
use crate::world::{Rank, World};

/// A window whose memory is addressed by pointers and whose calls ask the state machine.
pub struct Window {
    pub(super) core: Core,
    /// How each target is locked, as `sync` numbers it.
    pub(super) locked: Box<[AtomicU8]>,
    /// How all are, by lock_all.
    pub(super) locked_all: AtomicU8,
}

impl Window {
    fn new(core: Core) -> Window {
        Window {
            locked: (0..core.size()).map(|_| AtomicU8::new(0)).collect(),
            locked_all: AtomicU8::new(0),
            core,
        }
    }

    /// A window of bytes, whose displacements count `disp_unit` bytes at this rank.
    #[track_caller]
    fn make(
        world: &World,
        call: &'static str,
        flavor: Flavor,
        disp_unit: u64,
        hints: &Hints,
    ) -> Result<Make> {
        world.not_ended(call)?;
        if disp_unit == 0 {
            return Err(Error::DispUnit {
                at: Box::new(world.site(call)),
            });
        }
        Ok(Make {
            call,
            flavor,
            hints: hints.clone(),
            element: ElementKind { size: 1, align: 1 },
            disp_unit,
        })
    }

    /// `MPI_Win_allocate`: `len_bytes` zeroed bytes of the library's. Collective.
    ///
    /// # Errors
    /// [`Error::DispUnit`], before anything is collective; on all ranks alike what
    /// [`World::allocate`] answers.
    #[track_caller]
    pub fn allocate(
        world: &World,
        len_bytes: usize,
        disp_unit: u64,
        hints: &Hints,
    ) -> Result<Window> {
        let make = Self::make(world, "win_allocate", Flavor::Allocate, disp_unit, hints)?;
        let region = crate::window::allocate(world, len_bytes, hints, |job, align| {
            job.allocate(len_bytes, align)
        });
        Ok(Window::new(Core::new(world, make, |team, note| {
            team.expose(region, note)
        })?))
    }

    /// `MPI_Win_create`: over `len_bytes` bytes of the caller's from `base` on, of any alignment;
    /// `base` may be null if there are none. Collective.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate); [`Error::NullBase`] for a null base with bytes.
    ///
    /// # Safety
    /// Until the window is freed, the bytes are valid for reads and writes and stay at their place,
    /// and this program uses no Rust reference to any of them. A window that is dropped instead is
    /// never done with them.
    #[track_caller]
    pub unsafe fn create(
        world: &World,
        base: *mut u8,
        len_bytes: usize,
        disp_unit: u64,
        hints: &Hints,
    ) -> Result<Window> {
        let make = Self::make(world, "win_create", Flavor::Create, disp_unit, hints)?;
        let region = match NonNull::new(base) {
            // Nothing to lend: no mechanism registers a range without bytes.
            _ if len_bytes == 0 => world.job().allocate(0, 1),
            None => {
                return Err(Error::NullBase {
                    len: len_bytes,
                    at: Box::new(world.site("win_create")),
                });
            }
            Some(base) => {
                // SAFETY: valid, in place and without references until the window is freed (the
                // caller's promise), which waits for all peers; one that is dropped keeps its
                // exposure, and with it this range, for ever.
                let bytes = unsafe { windlass_mem::borrow(base, len_bytes) };
                Ok(world.job().lend_bytes(bytes))
            }
        };
        Ok(Window::new(Core::new(world, make, |team, note| {
            team.expose(region, note)
        })?))
    }

    /// `MPI_Win_allocate_shared`: parts of `len_bytes` zeroed bytes that all ranks map, in rank
    /// order one after the other, unless `alloc_shared_noncontig` lets each begin on a page.
    /// Collective; [`shared_query`](Self::shared_query) gives the addresses.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate); [`Error::Shared`] on all ranks where one cannot map it.
    #[track_caller]
    pub fn allocate_shared(
        world: &World,
        len_bytes: usize,
        disp_unit: u64,
        hints: &Hints,
    ) -> Result<Window> {
        let call = "win_allocate_shared";
        let make = Self::make(world, call, Flavor::Shared, disp_unit, hints)?;
        Ok(Window::new(Core::new_shared(world, len_bytes, make)?))
    }

    /// `MPI_Win_create_dynamic`: without memory at first. Collective.
    ///
    /// # Errors
    /// What [`World::create_dynamic`] answers.
    #[track_caller]
    pub fn create_dynamic(world: &World, hints: &Hints) -> Result<Window> {
        let core = Core::new_dynamic(world, "win_create_dynamic", hints)?;
        Ok(Window::new(core))
    }

    /// `MPI_Win_attach`: adds `len_bytes` bytes from `base` on to a dynamic window. Local, at any
    /// time; no bytes are nothing to attach.
    ///
    /// # Errors
    /// [`Error::Flavor`]; [`Error::Attach`] for memory that overlaps what is attached, or a full
    /// directory; [`Error::NullBase`].
    ///
    /// # Safety
    /// Until they are detached, or the window is freed, the bytes obey the rule of
    /// [`create`](Self::create).
    #[track_caller]
    pub unsafe fn attach(&self, base: *mut u8, len_bytes: usize) -> Result<()> {
        let call = "win_attach";
        match NonNull::new(base) {
            // The flavour is looked at all the same.
            _ if len_bytes == 0 => self.core.attach_raw(call, SharedBytes::empty()),
            None => Err(Error::NullBase {
                len: len_bytes,
                at: Box::new(self.core.site(call)),
            }),
            Some(base) => {
                // SAFETY: the caller's promise; the region goes with detach or free.
                let bytes = unsafe { windlass_mem::borrow(base, len_bytes) };
                self.core.attach_raw(call, bytes)
            }
        }
    }

    /// `MPI_Win_detach`: takes the region that begins at `base` out of a dynamic window. Local.
    /// That no access of others is under way is the caller's duty; one that is may still write
    /// the memory.
    ///
    /// # Errors
    /// [`Error::Flavor`], [`Error::NotAttached`].
    #[track_caller]
    pub fn detach(&self, base: *const u8) -> Result<()> {
        self.core.detach_raw("win_detach", base.addr() as u64)
    }

    /// `MPI_Win_free`: the collective end.
    ///
    /// # Errors
    /// [`Error::Epoch`] inside an epoch: the window comes back with it, usable.
    /// [`Error::Departed`], [`Error::PeerLost`]: it is gone, its memory stays allocated.
    #[track_caller]
    pub fn free(mut self) -> std::result::Result<(), (Error, Option<Box<Window>>)> {
        match self.core.free() {
            Ok(region) => {
                drop(region);
                Ok(())
            }
            Err(error @ Error::Epoch { .. }) => Err((error, Some(Box::new(self)))),
            Err(error) => Err((error, None)),
        }
    }

    /// `MPI_WIN_BASE`: the address of this rank's part.
    pub fn base(&self) -> *mut u8 {
        if self.core.dynamic.is_some() {
            // `MPI_BOTTOM`: displacements are addresses.
            return std::ptr::null_mut();
        }
        self.core.bytes().as_ptr()
    }

    /// `MPI_WIN_SIZE`: bytes of this rank's part.
    pub fn len_bytes(&self) -> usize {
        self.core.reach[self.core.rank().0 as usize].bytes as usize
    }

    /// `MPI_WIN_DISP_UNIT`: bytes from one displacement to the next, at this rank.
    pub fn disp_unit(&self) -> u64 {
        self.core.reach[self.core.rank().0 as usize].disp_unit
    }

    /// `MPI_WIN_CREATE_FLAVOR`.
    pub fn flavor(&self) -> Flavor {
        self.core.flavor
    }

    /// The name used in errors (`MPI_Win_get_name`).
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// `MPI_Win_set_name`, cut to [`NAME_MAX_BYTES`](crate::NAME_MAX_BYTES).
    pub fn set_name(&mut self, name: &str) {
        self.core.name = cut_name(name).into();
    }

    /// `MPI_Win_get_group`.
    pub fn group(&self) -> Group {
        self.core.world.group()
    }

    /// `MPI_Win_get_info`: the hints in force.
    pub fn hints(&self) -> &Hints {
        &self.core.hints
    }

    /// `MPI_Win_set_info`: as [`Window::set_hints`](crate::Window::set_hints). Collective.
    ///
    /// # Errors
    /// [`Error::Departed`], [`Error::PeerLost`].
    #[track_caller]
    pub fn set_hints(&mut self, hints: &Hints) -> Result<()> {
        self.core.set_hints("win_set_info", hints)
    }

    /// The epoch state as a call on `target` sees it.
    pub fn state(&self, target: Option<Rank>) -> State {
        self.core.epochs.state(target)
    }

    /// Who moves the data of puts and gets, and of updates, while `target` computes (mpi-rma 6).
    ///
    /// # Errors
    /// [`Error::BadRank`].
    #[track_caller]
    pub fn progress(&self, target: Rank) -> Result<(Progress, Progress)> {
        match self.core.reach.get(target.0 as usize) {
            Some(reach) => Ok((reach.route.progress(), reach.atomics.progress())),
            None => Err(self.core.bad_rank("progress", target)),
        }
    }

    /// `MPI_Win_shared_query`: the address at which this process reaches the part of `rank`, its
    /// bytes and its displacement unit. `None` for `rank` (`MPI_PROC_NULL`) means the first rank
    /// that has bytes. A part that this process cannot address has size 0.
    ///
    /// # Errors
    /// [`Error::BadRank`]; [`Error::Flavor`] for a dynamic window.
    #[track_caller]
    pub fn shared_query(&self, rank: Option<Rank>) -> Result<(usize, u64, *mut u8)> {
        let call = "shared_query";
        if self.core.dynamic.is_some() {
            return Err(Error::Flavor {
                flavor: self.core.flavor,
                at: Box::new(self.core.site(call)),
            });
        }
        let mut parts = self.core.reach.iter();
        let reach = match rank {
            None => parts.find(|reach| reach.bytes > 0),
            Some(rank) => match parts.nth(rank.0 as usize) {
                None => return Err(self.core.bad_rank(call, rank)),
                found => found,
            },
        };
        Ok(match reach.map(|reach| (&reach.route, reach.disp_unit)) {
            Some((windlass_runtime::Route::Mapped(bytes), unit)) => {
                (bytes.len(), unit, bytes.as_ptr())
            }
            Some((_, unit)) => (0, unit, std::ptr::null_mut()),
            None => (0, 1, std::ptr::null_mut()),
        })
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.core, f)
    }
}
