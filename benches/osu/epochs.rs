//! Iterations of operations in epochs, by every synchronisation.

use std::time::{Duration, Instant};

use windlass::{Element, LockKind, Rank, Window, World};

use crate::job::Failure;
use crate::measure::{RouteName, Timed, add_up, route};
use crate::options::{Creation, Options, Sync};
use crate::wire::Wire;
use crate::work::{Work, differences};

/// A window, and what to do with it.
pub(crate) struct Epochs<'a, W: Work> {
    world: &'a World,
    options: &'a Options,
    window: Window<W::Element>,
    work: W,
    /// The lock of `-s flush` and `-s lock`.
    pub(crate) lock: LockKind,
    /// Where the target computes meanwhile.
    computes: Option<Wire<'a>>,
    /// The target operates on its own part too, at the same time.
    pub(crate) contended: bool,
}

/// A window of `len` zeroed elements, as `-w` says, its pages touched: no measured transfer is the
/// first on one. Collective.
pub(crate) fn create<T: Element>(
    world: &World,
    options: &Options,
    len: usize,
) -> Result<Window<T>, Failure> {
    let mut window = match options.window {
        Creation::Allocate => world.allocate::<T>(len)?,
        Creation::Create => world.create(vec![T::zeroed(); len])?.without_loan(),
    };
    window.lock_local()?.fill(T::zeroed());
    Ok(window)
}

impl<'a, W: Work> Epochs<'a, W> {
    /// Over a window of at least `bytes` bytes. Collective.
    pub(crate) fn new(
        world: &'a World,
        options: &'a Options,
        bytes: usize,
        work: W,
    ) -> Result<Self, Failure> {
        let len = bytes.div_ceil(size_of::<W::Element>());
        Ok(Self {
            world,
            options,
            window: create(world, options, len)?,
            work,
            lock: LockKind::Shared,
            computes: match options.compute {
                true => Wire::new(world, options)?,
                false => None,
            },
            contended: false,
        })
    }

    /// The plain memory of this rank's part.
    pub(crate) fn memory(&mut self) -> Result<windlass::LocalGuard<'_, W::Element>, Failure> {
        Ok(self.window.lock_local()?)
    }

    fn passive(&mut self, iterations: u64, size: usize) -> Result<Duration, Failure> {
        let Self { window, work, .. } = self;
        let target = Rank(self.options.target);
        let began;
        match self.options.sync {
            Sync::Lock => {
                began = Instant::now();
                for _ in 0..iterations {
                    let lock = window.lock(target, self.lock)?;
                    work.operate(&lock, target, size)?;
                    lock.end()?;
                }
            }
            Sync::LockAll => {
                began = Instant::now();
                for _ in 0..iterations {
                    let epoch = window.lock_all()?;
                    work.operate(&epoch, target, size)?;
                    epoch.end()?;
                }
            }
            _ => {
                let lock = window.lock(target, self.lock)?;
                began = Instant::now();
                for _ in 0..iterations {
                    work.operate(&lock, target, size)?;
                    lock.flush(target)?;
                }
                let elapsed = began.elapsed();
                lock.end()?;
                return Ok(elapsed);
            }
        }
        Ok(began.elapsed())
    }

    fn fences(&mut self, iterations: u64, size: usize) -> Result<Duration, Failure> {
        let Self { window, work, .. } = self;
        let is_origin = self.options.is_origin(self.world);
        let mut epoch = window.fence()?;
        let began = Instant::now();
        for _ in 0..iterations {
            if is_origin {
                work.operate(&epoch, Rank(self.options.target), size)?;
            }
            epoch = epoch.next()?;
        }
        let elapsed = began.elapsed();
        epoch.end()?;
        Ok(elapsed)
    }

    fn rounds(&mut self, iterations: u64, size: usize) -> Result<Duration, Failure> {
        let Self { window, work, .. } = self;
        let (origin, target) = (Rank(self.options.origin), Rank(self.options.target));
        let [origins, targets] = [origin, target].map(|rank| self.world.group().incl(&[rank]));
        let (origins, targets) = (origins?, targets?);
        let me = self.world.rank();
        let began = Instant::now();
        for _ in 0..iterations {
            let exposure = match me == target {
                true => Some(window.post(&origins)?),
                false => None,
            };
            if me == origin {
                let access = window.start(&targets)?;
                work.operate(&access, target, size)?;
                access.end()?;
            }
            if let Some(exposure) = exposure {
                exposure.wait()?;
            }
        }
        Ok(began.elapsed())
    }
}

impl<W: Work> Timed for Epochs<'_, W> {
    fn block(&mut self, size: usize, iterations: u64) -> Result<Duration, Failure> {
        self.world.barrier()?;
        let [is_origin, is_target] =
            [self.options.origin, self.options.target].map(|rank| self.world.rank() == Rank(rank));
        let mut elapsed = match self.options.sync {
            Sync::Fence => self.fences(iterations, size)?,
            Sync::Pscw if is_origin || is_target => self.rounds(iterations, size)?,
            Sync::Pscw => Duration::ZERO,
            _ if is_origin || self.contended && is_target => self.passive(iterations, size)?,
            _ => Duration::ZERO,
        };
        match &self.computes {
            Some(wire) if is_origin && !self.contended => wire.release()?,
            Some(wire) if is_target && !self.contended => wire.compute()?,
            _ => {}
        }
        let began = Instant::now();
        self.world.barrier()?;
        if self.contended {
            // Contended is the time until both are done.
            elapsed += began.elapsed();
        }
        Ok(elapsed)
    }

    fn validate(&mut self, size: usize) -> Result<u64, Failure> {
        let before = self.work.before(size);
        if self.world.rank().0 == self.options.target {
            self.window.lock_local()?[..before.len()].copy_from_slice(&before);
        }
        self.block(size, 1)?;
        let mut wrong = 0;
        if self.options.is_origin(self.world) {
            wrong += self.work.wrong(size);
        }
        if self.world.rank().0 == self.options.target {
            let after = self.work.after(size);
            wrong += differences(&self.window.lock_local()?[..after.len()], &after);
        }
        add_up(self.world, (wrong * size_of::<W::Element>()) as u64)
    }

    fn route(&self) -> RouteName {
        route(&self.window, Rank(self.options.target))
    }

    fn free(self) -> Result<(), Failure> {
        self.window.free()?;
        Ok(())
    }
}
