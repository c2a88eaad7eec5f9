//! The steps of a region.

use windlass::{LockKind, Op};

use super::draw::{Access, CHAIN, Draw, TYPED};
use super::elem::{self, Elem};
use super::expr::Expr;
use super::program::{Api, Flush, Form, Memory, Part, Place, Side, Step, Sync, What};
use super::sides::{Region, Sides};

impl Draw {
    /// A step with contiguous data; what is not so is changed afterwards.
    fn step(&mut self, at: Access, what: What, elem: Elem, (place, side): (Place, Side)) -> Step {
        let number = self.numbers;
        self.numbers += 1;
        Step {
            number,
            needs: None,
            origin: at.origin,
            target: at.target,
            what,
            form: Form::Call,
            elem,
            place,
            side,
            result: None,
            values: self.random.bits(),
            shared: false,
            outside: false,
            lock: LockKind::Shared,
            flush: *self
                .random
                .pick(&[Flush::One, Flush::One, Flush::All, Flush::Local]),
        }
    }

    fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn unit(&self, target: usize) -> usize {
        self.program.parts[target].unit
    }

    /// Steps of one origin on what nobody else touches.
    pub fn own(&mut self, at: Access, elem: Elem) {
        let grid = self.grid(at.region, elem);
        let Some(grid) = grid.filter(|_| self.random.one_in(2)) else {
            return self.move_bytes(at);
        };
        let at = Access { region: grid, ..at };
        let mut needs = None;
        if elem.is_particular() {
            needs = Some(self.numbers);
            let what = What::Accumulate(Op::Replace);
            let unit = self.unit(at.target);
            let sides = self.sides().contiguous(elem, grid, unit);
            let step = self.step(at, what, elem, sides);
            self.push(step);
        }
        for _ in 0..1 + self.random.below(CHAIN) {
            let what = if self.loose {
                self.update(elem)
            } else {
                self.anything(elem)
            };
            let mut step = self.draw_step(at, what, elem);
            step.needs = needs;
            self.push(step);
        }
    }

    /// A lane of a region that all origins have lanes of.
    pub fn lane(&mut self, at: Access, elem: Elem, lanes: usize) {
        let (size, unit) = (elem.size(), self.unit(at.target));
        let count = at.region.width / size / lanes;
        if count == 0 {
            return;
        }
        let pos = at.region.from + at.origin * size;
        let expr = Expr::Vector(count as u64, 1, lanes as i64, Expr::One(elem).boxed());
        let place = Sides::settle(pos as i64, unit, 1, expr);
        let chain = if self.loose {
            1
        } else {
            1 + self.random.below(CHAIN)
        };
        let (mut needs, particular) = (None, elem.is_particular() && !self.loose);
        for round in 0..chain {
            let what = match round {
                _ if self.loose => *self.random.pick(&[What::Put, What::Get]),
                0 if particular => What::Put,
                _ => match self.anything(elem) {
                    What::FetchAndOp(op) => What::GetAccumulate(op),
                    What::CompareAndSwap { .. } => What::Get,
                    what => what,
                },
            };
            let side = self.sides().side(&[(elem, count as u64)], !is_sent(what));
            let mut step = self.step(at, what, elem, (place.clone(), side));
            step.needs = needs;
            self.fetching(&mut step, count);
            if particular {
                needs.get_or_insert(step.number);
            }
            self.push(step);
        }
    }

    /// Steps of all origins on the same elements.
    pub fn shared(
        &mut self,
        sync: &Sync,
        origins: &[usize],
        (target, region): (usize, Region),
        elem: Elem,
    ) {
        let Some(grid) = self.grid(region, elem) else {
            return;
        };
        let Some(op) = elem.draw_commuting(&mut self.random) else {
            return;
        };
        let locked = matches!(sync, Sync::Locks { .. }) && self.random.one_in(2);
        let mut needs = None;
        if elem.is_particular() {
            needs = Some(self.numbers);
            let unit = self.unit(target);
            let at = Access {
                origin: target,
                target,
                region: grid,
            };
            let sides = self.sides().contiguous(elem, grid, unit);
            let step = self.step(at, What::Store, elem, sides);
            self.push(step);
        }
        // Now and then so many on one element that they meet.
        let (most, grid) = match self.random.below(12) {
            0 => (
                40,
                Region {
                    width: elem.size(),
                    ..grid
                },
            ),
            _ => (4, grid),
        };
        for &origin in origins {
            let at = Access {
                origin,
                target,
                region: grid,
            };
            for _ in 0..self.random.below(most) {
                let what = match self.random.below(3) {
                    _ if locked => What::UpdateLocked(op),
                    0 => What::FetchAndOp(op),
                    1 => What::GetAccumulate(op),
                    _ => What::Accumulate(op),
                };
                let mut step = self.draw_step(at, what, elem);
                (step.shared, step.needs) = (true, needs);
                self.push(step);
            }
        }
    }

    /// Where elements may lie in a region so that updates of it meet: multiples of their size from
    /// somewhere on.
    pub fn grid(&mut self, region: Region, elem: Elem) -> Option<Region> {
        let size = elem.size();
        let spare = region.width % size;
        let typed = self.program.api == Api::Typed;
        let skip = if typed {
            0
        } else {
            self.random.below(spare + 1)
        };
        (region.width >= size).then_some(Region {
            from: region.from + skip,
            width: region.width - spare,
        })
    }

    fn update(&mut self, elem: Elem) -> What {
        let op = elem.draw_op(&mut self.random);
        match self.random.below(6) {
            0 => What::GetAccumulate(Op::NoOp),
            1 => What::GetAccumulate(op),
            2 => What::FetchAndOp(*self.random.pick(&[op, Op::NoOp])),
            3 if elem.is_comparable() => What::CompareAndSwap {
                hit: self.random.one_in(2),
            },
            _ => What::Accumulate(op),
        }
    }

    fn anything(&mut self, elem: Elem) -> What {
        match self.random.below(4) {
            0 => What::Put,
            1 => What::Get,
            _ => self.update(elem),
        }
    }

    /// A step with random sides on the grid of an element type.
    fn draw_step(&mut self, at: Access, what: What, elem: Elem) -> Step {
        let unit = self.unit(at.target);
        let single = matches!(what, What::FetchAndOp(_) | What::CompareAndSwap { .. });
        let sides = if single {
            let size = elem.size();
            let slot = self.random.below(at.region.width / size);
            let region = Region {
                from: at.region.from + slot * size,
                width: size,
            };
            self.sides().contiguous(elem, region, unit)
        } else {
            let plain = matches!(what, What::UpdateLocked(_)) || self.random.one_in(2);
            let reads = matches!(what, What::Get | What::GetAccumulate(Op::NoOp));
            self.sides()
                .of_elements(elem, at.region, unit, (plain, reads, is_sent(what)))
        };
        // A single element is named by its displacement alone.
        let what = match what {
            _ if !single || sides.0.expr == Expr::One(elem) => what,
            What::FetchAndOp(op) => What::GetAccumulate(op),
            _ => What::GetAccumulate(Op::NoOp),
        };
        let mut step = self.step(at, what, elem, sides);
        let count = step.place.map(self.program.whole()).places.len();
        self.fetching(&mut step, count);
        self.formed(&mut step);
        step
    }

    /// A put or get of any elements.
    fn move_bytes(&mut self, at: Access) {
        let chain = if self.loose {
            1
        } else {
            1 + self.random.below(CHAIN)
        };
        for _ in 0..chain {
            let what = *self.random.pick(&[What::Put, What::Get]);
            let (elem, unit) = (self.elem(), self.unit(at.target));
            let mixed = self.random.one_in(3);
            let mut elems = vec![elem];
            if mixed {
                let from: &[Elem] = if self.program.whole() {
                    &TYPED
                } else {
                    &elem::ALL
                };
                elems = (0..3).map(|_| *self.random.pick(from)).collect();
            }
            let sides = self.sides().of_any(&elems, at.region, unit, is_sent(what));
            let Some(sides) = sides else { return };
            let mut step = self.step(at, what, elem, sides);
            self.formed(&mut step);
            self.push(step);
        }
    }

    /// Gives a step that fetches old values a buffer for them.
    fn fetching(&mut self, step: &mut Step, count: usize) {
        let elem = step.elem;
        if matches!(step.what, What::FetchAndOp(_) | What::CompareAndSwap { .. }) {
            step.result = Some(self.sides().dense(elem, 1));
        } else if matches!(step.what, What::GetAccumulate(_)) {
            let plain = step.is_plain();
            let mut result = self.sides().side(&[(elem, count as u64)], true);
            if plain && self.program.whole() {
                result = self.sides().dense(elem, count);
            }
            step.result = Some(result);
        }
    }

    /// Requests, scopes and notifications.
    fn formed(&mut self, step: &mut Step) {
        let plain = step.is_plain();
        let moves = matches!(step.what, What::Put | What::Get);
        let direct = step.origin == step.target || self.program.memory == Memory::Shared;
        step.form = match (self.program.api, self.random.below(7)) {
            (Api::Typed, 0) if plain && self.passive && (moves || is_bulk(step.what)) => {
                Form::Request
            }
            (Api::Typed, 1 | 2) if plain && moves && self.loose => Form::Scope,
            (Api::Typed, 3) if plain && step.what == What::Put => {
                Form::Notify(self.random.below(64) as u32)
            }
            (Api::Typed, 4 | 5) if plain && moves && direct => Form::Direct,
            (Api::Raw, 0 | 1) if self.passive && (moves || is_bulk(step.what)) => Form::Request,
            _ => Form::Call,
        };
    }

    /// Something that must be refused, now and then.
    pub fn outside(&mut self, sync: &Sync, target: usize) {
        let origin = self.random.below(self.program.ranks());
        let may = match sync {
            Sync::Pscw { access, .. } => access[origin].contains(&target),
            _ => true,
        };
        if !may || self.program.memory == Memory::Attached || !self.random.one_in(4) {
            return;
        }
        let elem = self.elem();
        let what = match self.random.below(5) {
            0 => What::Put,
            1 => What::Get,
            _ => self.update(elem),
        };
        let Part { bytes, unit, .. } = self.program.parts[target];
        let single = matches!(what, What::FetchAndOp(_) | What::CompareAndSwap { .. });
        let count = if single { 1 } else { 1 + self.random.below(20) };
        // Padding may lie behind the end.
        let last = elem.value().last().map_or(0, |run| run.0 + run.1);
        let len = (count - 1) * elem.size() + last;
        // From the first displacement that is too far, or far away.
        let first = (bytes + 1).saturating_sub(len).div_ceil(unit);
        let disp = match self.random.below(3) {
            0 => i64::MAX / elem.size() as i64,
            near => (first + near - 1) as i64,
        };
        let place = Place {
            disp,
            count: count as u64,
            expr: Expr::One(elem),
        };
        let side = self.sides().dense(elem, count);
        let region = Region {
            from: 0,
            width: len,
        };
        let mut step = self.step(
            Access {
                origin,
                target,
                region,
            },
            what,
            elem,
            (place, side),
        );
        self.fetching(&mut step, count);
        step.outside = true;
        self.push(step);
    }
}

/// Does the origin's buffer hold what is sent, rather than get what is read?
fn is_sent(what: What) -> bool {
    what != What::Get
}

fn is_bulk(what: What) -> bool {
    matches!(what, What::Accumulate(_) | What::GetAccumulate(_))
}
