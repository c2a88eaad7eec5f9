//! Programs from seeds.
//!
//! Every part is cut into regions, anew in each epoch; each belongs to one origin, or is shared
//! and only changed in ways that commute, or is divided into lanes. So every program has one
//! outcome, whatever the order in which the ranks run.

use windlass::LockKind;

use super::elem::{self, Elem};
use super::program::{Api, Epoch, Memory, Part, Program, Step, Sync, What};
use super::sides::{Region, Sides};
use crate::support::data::Random;

/// Types that have a Rust type.
pub const TYPED: [Elem; 18] = [
    Elem::I8,
    Elem::U8,
    Elem::I16,
    Elem::U16,
    Elem::I32,
    Elem::U32,
    Elem::I64,
    Elem::U64,
    Elem::F32,
    Elem::F64,
    Elem::ComplexF32,
    Elem::ComplexF64,
    Elem::Logical8,
    Elem::FloatInt,
    Elem::DoubleInt,
    Elem::LongInt,
    Elem::TwoInt,
    Elem::ShortInt,
];

/// Updates in one region by one origin.
pub const CHAIN: usize = 4;

/// The program of a seed; `shares`: all ranks can share memory.
pub fn program(seed: u64, ranks: usize, shares: bool) -> Program {
    let mut random = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let api = *random.pick(&[Api::Typed, Api::Raw]);
    let memory = match (api, random.below(4)) {
        (_, 0) if shares => Memory::Shared,
        (_, 0 | 1) => Memory::Allocated,
        (Api::Raw, 2) => Memory::Attached,
        _ => Memory::Lent,
    };
    let elem = match api {
        Api::Typed => *random.pick(&TYPED),
        Api::Raw => *random.pick(&elem::ALL),
    };
    let most = match random.below(24) {
        0 => 60_000,
        1..8 => 400,
        _ => 150,
    };
    let parts = (0..ranks)
        .map(|_| part(&mut random, api, memory, elem, most))
        .collect();
    let mut draw = Draw {
        random,
        program: Program {
            seed,
            api,
            memory,
            elem,
            parts,
            epochs: Vec::new(),
        },
        steps: Vec::new(),
        numbers: 0,
        passive: false,
        loose: true,
    };
    for _ in 0..1 + draw.random.below(4) {
        let epoch = draw.epoch();
        draw.program.epochs.push(epoch);
    }
    draw.program
}

fn part(random: &mut Random, api: Api, memory: Memory, elem: Elem, most: usize) -> Part {
    let bytes = match random.below(8) {
        0 => 0,
        1 => 1 + random.below(40),
        _ => 1 + random.below(most),
    };
    let unit = match (api, memory) {
        (Api::Typed, _) => elem.size(),
        (_, Memory::Attached) => 1,
        _ => *random.pick(&[1, 1, 2, 3, 4, 8, 16, elem.size()]),
    };
    let bytes = if api == Api::Typed {
        bytes / unit * unit
    } else {
        bytes
    };
    let skew = match (api, memory) {
        (Api::Raw, Memory::Lent | Memory::Attached) if random.one_in(2) => random.below(32),
        _ => 0,
    };
    let mut pieces = vec![bytes];
    while memory == Memory::Attached && bytes > 0 && random.one_in(2) {
        pieces.push(1 + random.below(bytes));
    }
    pieces.sort_unstable();
    pieces.dedup();
    Part {
        bytes,
        unit,
        skew,
        pieces,
    }
}

pub struct Draw {
    pub random: Random,
    pub program: Program,
    /// Of the epoch being drawn.
    pub steps: Vec<Step>,
    pub numbers: usize,
    pub passive: bool,
    /// Nothing orders plain operations before the end of the epoch.
    pub loose: bool,
}

/// Who does something to what.
#[derive(Clone, Copy)]
pub struct Access {
    pub origin: usize,
    pub target: usize,
    pub region: Region,
}

impl Draw {
    pub fn sides(&mut self) -> Sides<'_> {
        Sides {
            random: &mut self.random,
            api: self.program.api,
        }
    }

    fn epoch(&mut self) -> Epoch {
        let ranks = self.program.ranks();
        let asserting = self.random.one_in(2);
        self.passive = self.random.one_in(2);
        let sync = match (self.passive, self.random.one_in(2)) {
            (false, true) => Sync::Fence { asserting },
            (false, false) => Sync::Pscw {
                access: (0..ranks).map(|_| self.some_ranks(ranks)).collect(),
                asserting,
            },
            (true, true) => Sync::LockAll { asserting },
            (true, false) => Sync::Locks {
                nested: self.random.one_in(2),
            },
        };
        self.loose = !self.passive || self.random.one_in(3);
        for target in 0..ranks {
            for region in self.cut(target) {
                self.region(&sync, target, region);
            }
            self.outside(&sync, target);
        }
        // Each origin takes the targets in an order of its own, or all meet.
        let meet = self.random.one_in(2);
        let (turn, mut steps) = (self.random.below(ranks), std::mem::take(&mut self.steps));
        let order = |step: &Step| match sync {
            // Several locks are taken in the same order by all.
            Sync::Locks { nested: true } => step.target,
            _ if meet => step.target,
            _ => (step.target + step.origin + turn) % ranks,
        };
        steps.sort_by_key(|step| {
            let first = step.what != What::Store;
            (first, if first { step.origin } else { 0 }, order(step))
        });
        if matches!(sync, Sync::Locks { .. }) {
            self.one_lock_kind(&mut steps);
        }
        Epoch {
            sync,
            flushed: !self.loose,
            steps,
        }
    }

    fn some_ranks(&mut self, ranks: usize) -> Vec<usize> {
        (0..ranks).filter(|_| !self.random.one_in(3)).collect()
    }

    /// A lock is of one kind from its beginning to its end.
    fn one_lock_kind(&mut self, steps: &mut [Step]) {
        for group in steps.chunk_by_mut(|a, b| (a.origin, a.target) == (b.origin, b.target)) {
            let locked = |step: &Step| matches!(step.what, What::UpdateLocked(_));
            if group.iter().any(locked) || self.random.one_in(2) {
                group
                    .iter_mut()
                    .for_each(|step| step.lock = LockKind::Exclusive);
            }
        }
    }

    /// The regions of a part.
    fn cut(&mut self, target: usize) -> Vec<Region> {
        let typed = self.program.api == Api::Typed;
        let grain = if typed { self.program.elem.size() } else { 1 };
        let Part { bytes, pieces, .. } = self.program.parts[target].clone();
        let (mut regions, mut from) = (Vec::new(), 0);
        for end in pieces {
            while from < end {
                let most = if self.random.one_in(3) {
                    1 + bytes / 5
                } else {
                    100.max(bytes / 40)
                };
                let width = (1 + self.random.below(most))
                    .next_multiple_of(grain)
                    .min(end - from);
                regions.push(Region { from, width });
                from += width;
            }
        }
        regions
    }

    fn region(&mut self, sync: &Sync, target: usize, region: Region) {
        let ranks = self.program.ranks();
        let may = |origin: usize| match sync {
            Sync::Pscw { access, .. } => access[origin].contains(&target),
            _ => true,
        };
        let elem = self.elem();
        let at = |origin, region| Access {
            origin,
            target,
            region,
        };
        match self.random.below(ranks + 4) {
            origin if origin < ranks && !may(origin) => {}
            origin if origin < ranks => self.own(at(origin, region), elem),
            drawn if drawn == ranks => {
                let Some(region) = self.grid(region, elem) else {
                    return;
                };
                for origin in (0..ranks).filter(|&origin| may(origin)) {
                    self.lane(at(origin, region), elem, ranks);
                }
            }
            drawn if drawn < ranks + 3 => {
                let origins: Vec<usize> = (0..ranks).filter(|&origin| may(origin)).collect();
                self.shared(sync, &origins, (target, region), elem);
            }
            _ => {} // Nobody touches it, or its owner did.
        }
    }

    pub fn elem(&mut self) -> Elem {
        match self.program.api {
            Api::Typed => self.program.elem,
            Api::Raw => *self.random.pick(&elem::ALL),
        }
    }
}
