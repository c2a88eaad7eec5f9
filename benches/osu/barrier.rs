//! Barriers of all ranks, without a window.

use std::time::{Duration, Instant};

use windlass::{Rank, World};
use windlass_bench::job::Failure;
use windlass_bench::measure::{RouteName, Timed, route};
use windlass_bench::samples::Laps;
use windlass_launcher::measure::Options;

/// Barriers, and how the origin would reach a window of the target.
pub(crate) struct Barrier<'a> {
    world: &'a World,
    route: RouteName,
}

impl<'a> Barrier<'a> {
    /// Collective.
    pub(crate) fn new(world: &'a World, options: &Options) -> Result<Self, Failure> {
        let window = world.allocate::<u64>(1)?;
        let route = route(&window, Rank(options.target));
        window.free()?;
        Ok(Self { world, route })
    }
}

impl Timed for Barrier<'_> {
    fn block<L: Laps>(
        &mut self,
        _size: usize,
        iterations: u64,
        laps: &mut L,
    ) -> Result<Duration, Failure> {
        self.world.barrier()?;
        let began = Instant::now();
        laps.begin();
        for _ in 0..iterations {
            self.world.barrier()?;
            laps.lap();
        }
        Ok(began.elapsed())
    }

    /// There are no bytes, and `Options::check` refuses to compare them.
    fn validate(&mut self, _size: usize) -> Result<u64, Failure> {
        Ok(0)
    }

    fn route(&self) -> RouteName {
        self.route.clone()
    }

    fn free(self) -> Result<(), Failure> {
        Ok(())
    }
}
