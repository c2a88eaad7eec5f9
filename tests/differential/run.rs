//! Runs a program beside its model: every returned value is compared when its step is complete,
//! every part after every epoch.

use std::collections::BTreeMap;
use std::fmt;

use windlass::{ErrorClass, LockKind, Op, Rank, World};

use super::back::{Access, Ended, Window};
use super::model::{Model, Work};
use super::program::{Api, Epoch, Form, Memory, Program, Step, Sync, What};
use super::{raw, typed};
use crate::support::{Done, Failure};

/// A mistake made on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sabotage {
    None,
    /// The last element of a put of several is changed.
    Put,
    /// What a get after an accumulate of the same origin in the same epoch should have got.
    GetAfterAccumulate,
}

impl Sabotage {
    /// The variable that ranks read.
    pub const VARIABLE: &str = "WLTEST_SABOTAGE";

    pub fn from_env() -> Sabotage {
        match std::env::var(Self::VARIABLE).as_deref() {
            Ok("put") => Sabotage::Put,
            Ok("get") => Sabotage::GetAfterAccumulate,
            _ => Sabotage::None,
        }
    }
}

struct Run<'p> {
    world: &'p World,
    program: &'p Program,
    model: Model<'p>,
    /// For the story of a difference.
    last: Option<&'p Epoch>,
    sabotage: Sabotage,
    /// This rank has accumulated in this epoch.
    accumulated: bool,
}

/// Runs a program. Collective over the world.
pub fn program(world: &World, program: &Program, sabotage: Sabotage) -> Done {
    let mut run = Run {
        world,
        program,
        model: Model::new(program),
        last: None,
        sabotage,
        accumulated: false,
    };
    let done = run.all();
    done.map_err(|error| {
        format!("seed {}: {}", program.seed, crate::support::chain(&*error)).into()
    })
}

impl<'p> Run<'p> {
    fn me(&self) -> usize {
        self.world.rank().0 as usize
    }

    fn all(&mut self) -> Done {
        let program = self.program;
        let mut window = match program.api {
            Api::Typed => typed::window(self.world, program)?,
            Api::Raw => raw::window(self.world, program)?,
        };
        for epoch in &program.epochs {
            self.between(&mut *window, &epoch.steps)?;
            self.last = Some(epoch);
            self.epoch(&mut *window, epoch)?;
        }
        self.between(&mut *window, &[])?;
        let back = window.free()?;
        match back {
            Some(back) => self.compare(&back),
            None if program.memory == Memory::Lent && program.api == Api::Raw => {
                Err("lent memory did not come back".into())
            }
            None => Ok(()),
        }
    }

    /// Compares this rank's part, and stores what it stores before the next epoch.
    fn between(&mut self, window: &mut dyn Window<'p>, next: &'p [Step]) -> Done {
        let me = self.me();
        window.own(&mut |own| {
            self.compare(own)?;
            for step in next.iter().filter(|step| step.what == What::Store) {
                self.model.work(step);
            }
            own.copy_from_slice(&self.model.parts[me]);
            Ok(())
        })?;
        // Nobody begins with the next epoch before all have compared.
        self.world.barrier()?;
        Ok(())
    }

    fn compare(&self, own: &[u8]) -> Done {
        let wanted = &self.model.parts[self.me()];
        let Some(difference) = difference(own, wanted) else {
            return Ok(());
        };
        let (at, me) = (difference.at, self.me());
        let mut story = format!("{difference} in the part of rank {me}");
        let steps = self.last.map_or(&[][..], |epoch| &epoch.steps);
        for step in steps
            .iter()
            .filter(|step| step.target == self.me() && !step.outside)
        {
            let mut there = self.model.there(step).into_iter();
            if there.any(|(from, elem)| (from..from + elem.size()).contains(&at)) {
                story.push_str(&format!("\n  after {step}"));
            }
        }
        Err(story.into())
    }

    fn epoch(&mut self, window: &mut dyn Window<'p>, epoch: &'p Epoch) -> Done {
        self.accumulated = false;
        let me = self.me();
        let ranks = |all: &[usize]| -> Vec<Rank> { all.iter().map(|&r| Rank(r as u32)).collect() };
        match &epoch.sync {
            Sync::Fence { asserting } => {
                let ended = window.fence(*asserting, &mut |open| {
                    self.steps(open, epoch, &epoch.steps)
                });
                self.ended(ended)?;
            }
            Sync::Pscw { access, asserting } => {
                let exposed = (0..access.len()).filter(|&origin| access[origin].contains(&me));
                let exposed: Vec<usize> = exposed.collect();
                let groups = (ranks(&access[me]), ranks(&exposed));
                let groups = (&groups.0[..], &groups.1[..]);
                let ended = window.pscw(groups, *asserting, &mut |open| {
                    self.steps(open, epoch, &epoch.steps)
                });
                self.ended(ended)?;
            }
            Sync::LockAll { asserting } => {
                let ended = window.lock_all(*asserting, &mut |open| {
                    self.steps(open, epoch, &epoch.steps)
                });
                self.ended(ended)?;
                self.world.barrier()?;
            }
            Sync::Locks { nested } => {
                self.locks(window, epoch, *nested)?;
                self.world.barrier()?;
            }
        }
        let mut counts = BTreeMap::new();
        for step in epoch.steps.iter().filter(|step| step.target == me) {
            if let Form::Notify(id) = step.form {
                *counts.entry(id).or_insert(0) += 1;
            }
        }
        window.notified(&counts.into_iter().collect::<Vec<_>>())
    }

    fn locks(&mut self, window: &mut dyn Window<'p>, epoch: &'p Epoch, nested: bool) -> Done {
        let together =
            |a: &Step, b: &Step| a.origin == b.origin && (nested || a.target == b.target);
        let steps = epoch.steps.iter().position(|step| step.what != What::Store);
        let steps = &epoch.steps[steps.unwrap_or(epoch.steps.len())..];
        for group in steps.chunk_by(together) {
            if group[0].origin != self.me() {
                group.iter().for_each(|step| drop(self.model.work(step)));
                continue;
            }
            let mut locks: Vec<(Rank, LockKind)> = Vec::new();
            for step in group {
                let target = Rank(step.target as u32);
                if locks.iter().all(|lock| lock.0 != target) {
                    locks.push((target, step.lock));
                }
            }
            let ended = window.locks(&locks, &mut |open| self.steps(open, epoch, group));
            self.ended(ended)?;
        }
        Ok(())
    }

    /// Steps of an open epoch: this rank's are run, all are done to the model.
    fn steps(&mut self, open: &mut dyn Access<'p>, epoch: &Epoch, steps: &'p [Step]) -> Done {
        let mut scoped = Vec::new();
        for step in steps.iter().filter(|step| step.what != What::Store) {
            let mut work = self.model.work(step);
            if step.origin != self.me() {
                continue;
            }
            self.spoil(&mut work);
            if step.form == Form::Scope {
                scoped.push(work);
                continue;
            }
            self.scope(open, &mut scoped)?;
            match (open.run(work), step.outside) {
                (Ok(()), false) => {}
                (Err(error), true) if error.class() == ErrorClass::RmaRange => {}
                (Ok(()), true) => return Err(format!("not refused: {step}").into()),
                (Err(error), _) => return Err(told(error, step)),
            }
            let target = Rank(step.target as u32);
            if epoch.flushed && !step.number.is_multiple_of(3) {
                open.complete()?;
            }
            if epoch.flushed {
                open.flush(step.flush, target)
                    .map_err(|error| told(error, step))?;
            }
            if epoch.flushed || step.number.is_multiple_of(5) {
                open.complete()?;
            }
            self.check(open.finished())?;
        }
        self.scope(open, &mut scoped)?;
        open.complete()?;
        self.check(open.finished())
    }

    fn scope(&mut self, open: &mut dyn Access<'p>, scoped: &mut Vec<Work<'p>>) -> Done {
        let Some(first) = scoped.first().map(|work| work.step) else {
            return Ok(());
        };
        let done = open.scope(std::mem::take(scoped));
        done.map_err(|error| told(error, first))
    }

    fn ended(&self, ended: Ended<'p>) -> Done {
        self.check(ended?)
    }

    /// Compares what steps got.
    fn check(&self, works: Vec<Work<'p>>) -> Done {
        for mut work in works {
            for &(at, len) in &work.unknown {
                let range = at..at + len;
                work.wanted[range.clone()].copy_from_slice(&work.result[range]);
            }
            if let Some(difference) = difference(&work.result, &work.wanted) {
                return Err(format!("{difference} in the result of {}", work.step).into());
            }
        }
        Ok(())
    }

    fn spoil(&mut self, work: &mut Work<'p>) {
        let step = work.step;
        self.accumulated |= matches!(step.what, What::Accumulate(op) if op != Op::Replace);
        match self.sabotage {
            Sabotage::Put if step.what == What::Put && !step.outside => {
                if let [.., _, last] = step.side.map(false).places[..] {
                    work.operand[(step.side.base as i64 + last.0) as usize] ^= 1;
                }
            }
            Sabotage::GetAfterAccumulate if step.what == What::Get && self.accumulated => {
                if let Some(place) = step.side.map(false).places.first() {
                    work.wanted[(step.side.base as i64 + place.0) as usize] ^= 1;
                }
            }
            _ => {}
        }
    }
}

/// Where bytes are not what they must be.
struct Difference {
    at: usize,
    found: Vec<u8>,
    wanted: Vec<u8>,
}

fn difference(found: &[u8], wanted: &[u8]) -> Option<Difference> {
    if found == wanted {
        return None;
    }
    let both = found.len().min(wanted.len());
    let at = (0..both)
        .find(|&at| found[at] != wanted[at])
        .unwrap_or(both);
    let some = |of: &[u8]| of[at..of.len().min(at + 16)].to_vec();
    Some(Difference {
        at,
        found: some(found),
        wanted: some(wanted),
    })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { at, found, wanted } = self;
        write!(f, "{found:?} for {wanted:?} at byte {at}")
    }
}

fn told(error: windlass::Error, step: &Step) -> Failure {
    format!("{} in {step}", crate::support::chain(&error)).into()
}
