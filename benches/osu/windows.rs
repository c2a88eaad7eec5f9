//! Windows made and freed, again and again, by all ranks.

use std::time::{Duration, Instant};

use windlass::{Rank, Window, World};

use crate::epochs::create;
use crate::job::Failure;
use crate::measure::{RouteName, Timed, add_up, route};
use crate::options::{Creation, Options};

/// Creation and collective end of a window.
pub(crate) struct Windows<'a> {
    world: &'a World,
    options: &'a Options,
    route: RouteName,
    /// What `-w create` lends, in every iteration.
    memory: Vec<u8>,
}

impl<'a> Windows<'a> {
    /// Collective.
    pub(crate) fn new(world: &'a World, options: &'a Options) -> Result<Self, Failure> {
        // The first window maps the segment that the later ones are cut from.
        let window: Window<u8> = create(world, options, 1)?;
        let route = route(&window, Rank(options.target));
        window.free()?;
        Ok(Self {
            world,
            options,
            route,
            memory: Vec::new(),
        })
    }
}

impl Timed for Windows<'_> {
    fn block(&mut self, size: usize, iterations: u64) -> Result<Duration, Failure> {
        self.world.barrier()?;
        let mut began = Instant::now();
        match self.options.window {
            Creation::Allocate => {
                for _ in 0..iterations {
                    self.world.allocate::<u8>(size)?.free()?;
                }
            }
            Creation::Create => {
                self.memory.resize(size, 1);
                began = Instant::now();
                for _ in 0..iterations {
                    let memory = std::mem::take(&mut self.memory);
                    self.memory = self.world.create(memory)?.free()?;
                }
            }
        }
        Ok(began.elapsed())
    }

    /// An allocated window is zeroed, however often its memory was used; lent memory comes back as it
    /// was.
    fn validate(&mut self, size: usize) -> Result<u64, Failure> {
        let wrong = match self.options.window {
            Creation::Allocate => {
                let mut wrong = 0;
                for _ in 0..2 {
                    let mut window = self.world.allocate::<u8>(size)?;
                    let mut memory = window.lock_local()?;
                    wrong += memory.iter().filter(|&&byte| byte != 0).count();
                    memory.fill(1);
                    memory.end()?;
                    window.free()?;
                }
                wrong
            }
            Creation::Create => {
                self.block(size, 1)?;
                self.memory.iter().filter(|&&byte| byte != 1).count()
            }
        };
        add_up(self.world, wrong as u64)
    }

    fn route(&self) -> RouteName {
        self.route.clone()
    }

    fn free(self) -> Result<(), Failure> {
        Ok(())
    }
}
