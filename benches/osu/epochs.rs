//! Iterations of operations in epochs, by every synchronisation.

use std::time::{Duration, Instant};

use windlass::{LockKind, Rank, Window, World};
use windlass_launcher::measure::{Benchmark, Options, Sync};

use crate::job::Failure;
use crate::measure::{RouteName, Timed, add_up, is_origin, route};
use crate::place::{Part, Place};
use crate::samples::Laps;
use crate::wire::Wire;
use crate::work::{Work, differences};

/// A window, and what to do with it.
pub struct Epochs<'a, W: Work, P: Place<W::Element> = Part> {
    world: &'a World,
    options: &'a Options,
    window: Window<P::Of>,
    place: P,
    work: W,
    /// The lock of the flushes and of `-s lock`.
    pub lock: LockKind,
    /// Where the target computes meanwhile.
    computes: Option<Wire<'a>>,
    /// The target operates on its own part too, at the same time.
    pub contended: bool,
    /// The target operates on the origin's part, at the same time.
    mutual: bool,
}

impl<'a, W: Work, P: Place<W::Element>> Epochs<'a, W, P> {
    /// Over a window of at least `bytes` bytes. Collective.
    pub fn new(
        world: &'a World,
        options: &'a Options,
        bytes: usize,
        work: W,
    ) -> Result<Self, Failure> {
        let len = bytes.div_ceil(size_of::<W::Element>());
        let (window, place) = P::make(world, options, len)?;
        Ok(Self {
            world,
            options,
            window,
            place,
            work,
            lock: LockKind::Shared,
            computes: match options.computes() {
                true => Wire::new(world, options)?,
                false => None,
            },
            contended: false,
            mutual: options.benchmark == Benchmark::PutBibw,
        })
    }

    fn is_origin(&self) -> bool {
        is_origin(self.world, self.options)
    }

    fn is_target(&self) -> bool {
        self.world.rank().0 == self.options.target
    }

    /// Does this rank operate?
    fn acts(&self) -> bool {
        self.is_origin() || (self.contended || self.mutual) && self.is_target()
    }

    /// The rank whose memory this one operates on.
    fn aim(&self) -> Rank {
        Rank(match self.mutual && self.is_target() {
            true => self.options.origin,
            false => self.options.target,
        })
    }

    /// The plain memory of this rank's part.
    pub fn memory(&mut self) -> Result<windlass::LocalGuard<'_, P::Of>, Failure> {
        Ok(self.window.lock_local()?)
    }

    fn passive<L: Laps>(
        &mut self,
        iterations: u64,
        size: usize,
        laps: &mut L,
    ) -> Result<Duration, Failure> {
        let target = self.aim();
        let Self {
            window,
            place,
            work,
            ..
        } = self;
        let began;
        match self.options.sync() {
            Sync::Lock => {
                began = Instant::now();
                laps.begin();
                for _ in 0..iterations {
                    let lock = window.lock(target, self.lock)?;
                    work.operate(place, &lock, target, size)?;
                    lock.end()?;
                    laps.lap();
                }
            }
            Sync::LockAll => {
                began = Instant::now();
                laps.begin();
                for _ in 0..iterations {
                    let epoch = window.lock_all()?;
                    work.operate(place, &epoch, target, size)?;
                    epoch.end()?;
                    laps.lap();
                }
            }
            sync => {
                // One loop in the source: an operation that is called in many is not inlined.
                let is_local = sync == Sync::FlushLocal;
                let lock = window.lock(target, self.lock)?;
                began = Instant::now();
                laps.begin();
                for _ in 0..iterations {
                    work.operate(place, &lock, target, size)?;
                    match is_local {
                        true => lock.flush_local(target)?,
                        false => lock.flush(target)?,
                    }
                    laps.lap();
                }
                let elapsed = began.elapsed();
                lock.end()?;
                return Ok(elapsed);
            }
        }
        Ok(began.elapsed())
    }

    fn fences<L: Laps>(
        &mut self,
        iterations: u64,
        size: usize,
        laps: &mut L,
    ) -> Result<Duration, Failure> {
        let (acts, target) = (self.acts(), self.aim());
        let Self {
            window,
            place,
            work,
            ..
        } = self;
        let mut epoch = window.fence()?;
        let began = Instant::now();
        laps.begin();
        for _ in 0..iterations {
            if acts {
                work.operate(place, &epoch, target, size)?;
            }
            epoch = epoch.next()?;
            laps.lap();
        }
        let elapsed = began.elapsed();
        epoch.end()?;
        Ok(elapsed)
    }

    fn rounds<L: Laps>(
        &mut self,
        iterations: u64,
        size: usize,
        laps: &mut L,
    ) -> Result<Duration, Failure> {
        let (acts, target) = (self.acts(), self.aim());
        let exposes = self.is_target() || self.mutual;
        let exposed_to = Rank(match self.is_target() {
            true => self.options.origin,
            false => self.options.target,
        });
        let [origins, targets] = [exposed_to, target].map(|rank| self.world.group().incl(&[rank]));
        let (origins, targets) = (origins?, targets?);
        let Self {
            window,
            place,
            work,
            ..
        } = self;
        let began = Instant::now();
        laps.begin();
        for _ in 0..iterations {
            let exposure = match exposes {
                true => Some(window.post(&origins)?),
                false => None,
            };
            if acts {
                let access = window.start(&targets)?;
                work.operate(place, &access, target, size)?;
                access.end()?;
            }
            if let Some(exposure) = exposure {
                exposure.wait()?;
            }
            laps.lap();
        }
        Ok(began.elapsed())
    }
}

impl<W: Work, P: Place<W::Element>> Timed for Epochs<'_, W, P> {
    fn block<L: Laps>(
        &mut self,
        size: usize,
        iterations: u64,
        laps: &mut L,
    ) -> Result<Duration, Failure> {
        self.work.begin(size);
        self.world.barrier()?;
        let (is_origin, is_target) = (self.is_origin(), self.is_target());
        let both = self.contended || self.mutual;
        let mut elapsed = match self.options.sync() {
            Sync::Fence => self.fences(iterations, size, laps)?,
            Sync::Pscw if is_origin || is_target => self.rounds(iterations, size, laps)?,
            Sync::Pscw => Duration::ZERO,
            _ if self.acts() => self.passive(iterations, size, laps)?,
            _ => Duration::ZERO,
        };
        match &self.computes {
            Some(wire) if is_origin && !both => wire.release()?,
            Some(wire) if is_target && !both => wire.compute()?,
            _ => {}
        }
        let began = Instant::now();
        self.world.barrier()?;
        if both {
            // It is the time until both are done.
            elapsed += began.elapsed();
        }
        Ok(elapsed)
    }

    fn validate(&mut self, size: usize) -> Result<u64, Failure> {
        let (is_origin, is_target) = (self.is_origin(), self.is_target());
        let receives = is_target || is_origin && self.mutual;
        let me = self.world.rank();
        let mut before = self.work.before(size);
        if self.options.spoil {
            self.work.spoil(&mut before);
        }
        if receives {
            self.place.store(&mut self.window, me, &before)?;
        }
        self.block(size, 1, &mut ())?;
        let mut wrong = 0;
        if is_origin {
            wrong += self.work.wrong(size);
        }
        if receives {
            let after = self.work.after(size);
            let found = self.place.load(&mut self.window, me, after.len())?;
            wrong += differences(&found, &after);
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
