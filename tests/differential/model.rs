//! Windows as plain vectors: what every step must do, one after the other.

use super::elem::{Elem, Run};
use super::expr::Map;
use super::program::{Program, Side, Step, What};
use crate::support::data::Random;

/// A step with its buffers, before the library gets it and afterwards.
pub struct Work<'p> {
    pub step: &'p Step,
    /// What is sent.
    pub operand: Vec<u8>,
    /// What compare-and-swap compares with.
    pub compare: Vec<u8>,
    /// What is read goes here.
    pub result: Vec<u8>,
    /// What must be there then.
    pub wanted: Vec<u8>,
    /// Except here: offset and length.
    pub unknown: Vec<Run>,
}

pub struct Model<'p> {
    program: &'p Program,
    pub parts: Vec<Vec<u8>>,
}

/// A buffer full of values, and of rubbish between them.
fn filled(side: &Side, map: &Map, random: &mut Random) -> Vec<u8> {
    let mut bytes = random.bytes(side.bytes);
    for &(at, elem) in &map.places {
        let at = (side.base as i64 + at) as usize;
        elem.draw_value(random, &mut bytes[at..at + elem.size()]);
    }
    bytes
}

impl<'p> Model<'p> {
    pub fn new(program: &'p Program) -> Model<'p> {
        let parts = program.parts.iter().map(|part| vec![0; part.bytes]);
        Model {
            program,
            parts: parts.collect(),
        }
    }

    /// The first bytes of the elements of a step in its target's part.
    pub fn there(&self, step: &Step) -> Vec<(usize, Elem)> {
        let unit = self.program.parts[step.target].unit as i64;
        let at = step.place.disp * unit;
        let places = step.place.map(self.program.whole()).places;
        places
            .into_iter()
            .map(|(place, elem)| ((at + place) as usize, elem))
            .collect()
    }

    /// What a step needs, and the step done to the model.
    pub fn work(&mut self, step: &'p Step) -> Work<'p> {
        let whole = self.program.whole();
        let mut random = Random::new(step.values);
        let map = step.side.map(whole);
        let mut work = Work {
            step,
            operand: Vec::new(),
            compare: Vec::new(),
            result: Vec::new(),
            wanted: Vec::new(),
            unknown: Vec::new(),
        };
        if step.what == What::Get {
            work.result = random.bytes(step.side.bytes);
        } else {
            work.operand = filled(&step.side, &map, &mut random);
        }
        if let Some(result) = &step.result {
            work.result = random.bytes(result.bytes);
        }
        work.wanted = work.result.clone();
        if step.outside {
            work.compare = random.bytes(step.elem.size());
        } else {
            self.apply(&mut work, &map, &mut random);
        }
        work
    }

    fn apply(&mut self, work: &mut Work<'p>, map: &Map, random: &mut Random) {
        let step = work.step;
        let here = |side: &Side, at: i64| (side.base as i64 + at) as usize;
        let there = self.there(step);
        let part = &mut self.parts[step.target];
        let wanted = &mut work.wanted;
        // A store gives whole values; the padding of what it stores is rubbish like any other.
        let pairs = there.iter().zip(&map.places);
        match step.what {
            What::Put | What::Store => {
                for (&(to, elem), &(from, _)) in pairs {
                    let from = here(&step.side, from);
                    for &(at, len) in map.runs(elem) {
                        let (to, from) = (to + at, from + at);
                        part[to..to + len].copy_from_slice(&work.operand[from..from + len]);
                    }
                }
            }
            What::Get => {
                for (&(from, elem), &(to, _)) in pairs {
                    let to = here(&step.side, to);
                    for &(at, len) in map.runs(elem) {
                        let (to, from) = (to + at, from + at);
                        wanted[to..to + len].copy_from_slice(&part[from..from + len]);
                    }
                }
            }
            What::CompareAndSwap { hit } => {
                let (at, size) = (there[0].0, step.elem.size());
                let present = &mut part[at..at + size];
                wanted.copy_from_slice(present);
                work.compare = present.to_vec();
                if hit {
                    present.copy_from_slice(&work.operand);
                } else {
                    work.compare[random.below(size)] ^= 1 << random.below(8);
                }
            }
            What::Accumulate(op)
            | What::GetAccumulate(op)
            | What::FetchAndOp(op)
            | What::UpdateLocked(op) => {
                let results = step
                    .result
                    .as_ref()
                    .map(|side| (side, side.map(self.program.whole())));
                for (index, (&(to, elem), &(from, _))) in pairs.enumerate() {
                    let target = &mut part[to..to + elem.size()];
                    if let Some((side, map)) = &results {
                        let result = here(side, map.places[index].0);
                        for &(at, len) in elem.value() {
                            let to = result + at;
                            wanted[to..to + len].copy_from_slice(&target[at..at + len]);
                            if step.shared {
                                work.unknown.push((to, len));
                            }
                        }
                    }
                    let from = here(&step.side, from);
                    elem.combine(op, target, &work.operand[from..from + elem.size()]);
                }
            }
        }
    }
}
