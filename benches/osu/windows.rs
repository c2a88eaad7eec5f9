//! Windows made and freed, again and again, by all ranks.

use std::time::{Duration, Instant};

use windlass::{Rank, Window, World};
use windlass_launcher::measure::{Creation, Options};

use crate::job::Failure;
use crate::measure::{RouteName, Timed, add_up, route};
use crate::place::create;
use crate::samples::Laps;

/// Creation and collective end of a window.
pub struct Windows<'a> {
    world: &'a World,
    options: &'a Options,
    route: RouteName,
    /// What `-w create` and `-w dynamic` lend, in every iteration.
    memory: Vec<u8>,
}

impl<'a> Windows<'a> {
    /// Collective.
    pub fn new(world: &'a World, options: &'a Options) -> Result<Self, Failure> {
        // The first window maps the segment that the later ones are cut from.
        let window: Window<u8> = match options.window {
            Creation::Dynamic => world.create_dynamic()?,
            _ => create(world, options, 1)?,
        };
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
    fn block<L: Laps>(
        &mut self,
        size: usize,
        iterations: u64,
        laps: &mut L,
    ) -> Result<Duration, Failure> {
        self.world.barrier()?;
        self.memory.resize(size, 1);
        let began = Instant::now();
        laps.begin();
        for _ in 0..iterations {
            match self.options.window {
                Creation::Allocate => drop(self.world.allocate::<u8>(size)?.free()?),
                Creation::Shared => drop(self.world.allocate_shared::<u8>(size)?.free()?),
                Creation::Create => {
                    let memory = std::mem::take(&mut self.memory);
                    self.memory = self.world.create(memory)?.free()?;
                }
                Creation::Dynamic => {
                    let mut window = self.world.create_dynamic()?;
                    let at = window.attach(std::mem::take(&mut self.memory))?;
                    self.memory = window.detach::<u8, Vec<u8>>(at)?;
                    window.free()?;
                }
            }
            laps.lap();
        }
        Ok(began.elapsed())
    }

    /// An allocated window is zeroed, however often its memory was used; lent memory comes back as it
    /// was.
    fn validate(&mut self, size: usize) -> Result<u64, Failure> {
        let spoilt = u8::from(self.options.spoil);
        let wrong = match self.options.window {
            Creation::Allocate | Creation::Shared => {
                let mut wrong = 0;
                for _ in 0..2 {
                    let mut window: Window<u8> = match self.options.window {
                        Creation::Allocate => self.world.allocate(size)?,
                        _ => self.world.allocate_shared(size)?,
                    };
                    let mut memory = window.lock_local()?;
                    memory[0] ^= spoilt;
                    wrong += memory.iter().filter(|&&byte| byte != 0).count();
                    memory.fill(1);
                    memory.end()?;
                    window.free()?;
                }
                wrong
            }
            Creation::Create | Creation::Dynamic => {
                self.block(size, 1, &mut ())?;
                self.memory[0] ^= spoilt;
                self.memory.iter().filter(|&&byte| byte != 1).count()
            }
        };
        self.memory.clear();
        add_up(self.world, wrong as u64)
    }

    fn route(&self) -> RouteName {
        self.route.clone()
    }

    fn free(self) -> Result<(), Failure> {
        Ok(())
    }
}
