//! Notified puts to and fro: what an iteration measures is one way.

use std::time::{Duration, Instant};

use windlass::{LockKind, Rank, Window, World};
use windlass_bench::job::Failure;
use windlass_bench::measure::{RouteName, Timed, add_up, is_origin, route};
use windlass_bench::pages::Pages;
use windlass_bench::place::create;
use windlass_bench::samples::Laps;
use windlass_bench::work::{differences, pattern};
use windlass_launcher::measure::Options;

const ID: u32 = 0;

/// A window of both, and what they put.
pub(crate) struct Notify<'a> {
    world: &'a World,
    options: &'a Options,
    window: Window<u8>,
    buffer: Pages,
}

impl<'a> Notify<'a> {
    /// Collective.
    pub(crate) fn new(world: &'a World, options: &'a Options) -> Result<Self, Failure> {
        let bytes = options.buffer_bytes();
        Ok(Self {
            world,
            options,
            window: create(world, options, bytes)?,
            buffer: Pages::filled(bytes, 2),
        })
    }

    /// Is this rank one of the two?
    fn takes_part(&self) -> bool {
        [self.options.origin, self.options.target].contains(&self.world.rank().0)
    }
}

impl Timed for Notify<'_> {
    fn block<L: Laps>(
        &mut self,
        size: usize,
        iterations: u64,
        laps: &mut L,
    ) -> Result<Duration, Failure> {
        self.world.barrier()?;
        let mut elapsed = Duration::ZERO;
        if self.takes_part() {
            let is_origin = is_origin(self.world, self.options);
            let peer = Rank(match is_origin {
                true => self.options.target,
                false => self.options.origin,
            });
            let (window, data) = (&self.window, &self.buffer[..size]);
            let lock = window.lock(peer, LockKind::Shared)?;
            let began = Instant::now();
            laps.begin();
            for _ in 0..iterations {
                if is_origin {
                    lock.put_notify(data, peer, 0, ID)?;
                    window.wait_notify(ID, 1)?;
                } else {
                    window.wait_notify(ID, 1)?;
                    lock.put_notify(data, peer, 0, ID)?;
                }
                laps.lap();
            }
            elapsed = began.elapsed() / 2;
            laps.halve();
            lock.end()?;
        }
        self.world.barrier()?;
        Ok(elapsed)
    }

    fn validate(&mut self, size: usize) -> Result<u64, Failure> {
        let expected = pattern(size, size);
        self.buffer[..size].copy_from_slice(&expected);
        self.buffer[0] ^= u8::from(self.options.spoil);
        self.block(size, 1, &mut ())?;
        let mut wrong = 0;
        if self.takes_part() {
            wrong = differences(&self.window.lock_local()?[..size], &expected);
        }
        add_up(self.world, wrong as u64)
    }

    fn route(&self) -> RouteName {
        route(&self.window, Rank(self.options.target))
    }

    fn free(self) -> Result<(), Failure> {
        self.window.free()?;
        Ok(())
    }
}
