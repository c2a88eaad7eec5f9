//! The book of a queue: which transfers are outstanding, for whom, and what they may still touch.

use std::collections::{HashMap, VecDeque};

use windlass_mem::SharedBytes;

use crate::mechanism::{Fault, Lease};
use crate::staging::Slot;

#[derive(Default)]
pub(crate) struct State {
    entries: Vec<Entry>,
    free: Vec<u32>,
    targets: HashMap<u32, Outstanding>,
    /// The first failure that was not told yet, by target and window.
    failures: HashMap<(u32, u32), Fault>,
}

/// What is on its way to one target. A flush begins a new *lot* and waits for those before it alone,
/// so that what other threads go on posting does not hold it up.
#[derive(Default)]
struct Outstanding {
    /// The number of the first lot.
    first: u64,
    /// Outstanding transfers by lot; a lot with none is at the front only while it is the newest.
    lots: VecDeque<usize>,
    /// Those of them that use memory of this side.
    holding: usize,
}

impl Outstanding {
    /// Enters a transfer into the newest lot, whose number is the answer.
    fn enter(&mut self) -> u64 {
        match self.lots.back_mut() {
            Some(newest) => *newest += 1,
            None => self.lots.push_back(1),
        }
        self.first + self.lots.len() as u64 - 1
    }

    fn leave(&mut self, lot: u64) {
        if let Some(count) = self.lots.get_mut((lot - self.first) as usize) {
            *count -= 1;
        }
        while self.lots.len() > 1 && self.lots[0] == 0 {
            self.lots.pop_front();
            self.first += 1;
        }
    }

    /// The first lot of what is posted from now on.
    fn mark(&mut self) -> u64 {
        if self.lots.back().is_some_and(|&newest| newest > 0) {
            self.lots.push_back(0);
        }
        self.first + (self.lots.len() as u64).saturating_sub(1)
    }
}

/// An outstanding transfer. Held memory is released by completion and by nothing else.
struct Entry {
    generation: u32,
    target: u32,
    window: u32,
    lot: u64,
    held: Held,
    fate: Fate,
}

/// What a transfer may still touch: held for its drop alone.
#[expect(dead_code, reason = "the values are kept, not read")]
pub(crate) enum Held {
    Nothing,
    Slot(Slot),
    Memory(SharedBytes, Option<Lease>),
}

impl Held {
    fn is_memory(&self) -> bool {
        !matches!(self, Held::Nothing)
    }
}

enum Fate {
    /// Not in use.
    Free,
    /// Outstanding; its failure goes to the target.
    Detached,
    /// Outstanding; somebody will take the outcome.
    Awaited,
    /// Complete, not taken yet.
    Done(Result<Vec<u8>, Fault>, Held),
}

/// The generations of an entry: tickets stay below 2^62, what lies above is the engine's own.
const GENERATIONS: u32 = u32::MAX >> 2;

impl State {
    pub(crate) fn begin(&mut self, target: u32, window: u32, held: Held, awaited: bool) -> u64 {
        let fate = if awaited {
            Fate::Awaited
        } else {
            Fate::Detached
        };
        let outstanding = self.targets.entry(target).or_default();
        let lot = outstanding.enter();
        outstanding.holding += usize::from(held.is_memory());
        let entry = |generation| Entry {
            generation,
            target,
            window,
            lot,
            held,
            fate,
        };
        let index = if let Some(index) = self.free.pop() {
            let old = &mut self.entries[index as usize];
            *old = entry(old.generation.wrapping_add(1) & GENERATIONS);
            index
        } else {
            self.entries.push(entry(0));
            (self.entries.len() - 1) as u32
        };
        u64::from(self.entries[index as usize].generation) << 32 | u64::from(index)
    }

    fn entry(&mut self, ticket: u64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(ticket as u32 as usize)?;
        (u64::from(entry.generation) == ticket >> 32).then_some(entry)
    }

    /// Ends a transfer. A ticket that is not outstanding (a broken peer may invent one) is ignored.
    pub(crate) fn complete(&mut self, ticket: u64, result: Result<Vec<u8>, Fault>) {
        let Some(entry) = self.entry(ticket) else {
            return;
        };
        let (target, window, lot) = (entry.target, entry.window, entry.lot);
        let held = std::mem::replace(&mut entry.held, Held::Nothing);
        let holding = usize::from(held.is_memory());
        let mut failure = None;
        match entry.fate {
            Fate::Free | Fate::Done(..) => return,
            Fate::Awaited => entry.fate = Fate::Done(result, held),
            Fate::Detached => {
                failure = result.err();
                entry.fate = Fate::Free;
                self.free.push(ticket as u32);
            }
        }
        let outstanding = self.targets.entry(target).or_default();
        outstanding.leave(lot);
        outstanding.holding -= holding;
        if let Some(failure) = failure {
            self.failures.entry((target, window)).or_insert(failure);
        }
    }

    /// What is posted to `target` before now: everything below the answer.
    pub(crate) fn mark(&mut self, target: u32) -> u64 {
        self.targets.entry(target).or_default().mark()
    }

    /// Is everything over that was posted to `target` before the mark?
    pub(crate) fn is_past(&self, target: u32, mark: u64) -> bool {
        let target = self.targets.get(&target);
        target.is_none_or(|outstanding| outstanding.first >= mark)
    }

    /// Does a transfer under way with `target` use memory of this side?
    pub(crate) fn holds(&self, target: u32) -> bool {
        let target = self.targets.get(&target);
        target.is_some_and(|outstanding| outstanding.holding > 0)
    }

    /// The first transfer of a window to `target` that failed and was not told.
    pub(crate) fn failed(&mut self, target: u32, window: u32) -> Option<Fault> {
        if self.failures.is_empty() {
            return None; // the usual case, asked at every look of a flush
        }
        self.failures.remove(&(target, window))
    }

    pub(crate) fn take(&mut self, ticket: u64) -> Option<(Result<Vec<u8>, Fault>, Held)> {
        let entry = self.entry(ticket)?;
        match std::mem::replace(&mut entry.fate, Fate::Free) {
            Fate::Done(result, held) => {
                self.free.push(ticket as u32);
                Some((result, held))
            }
            other => {
                entry.fate = other;
                None
            }
        }
    }

    /// Nobody waits for it any more.
    pub(crate) fn detach(&mut self, ticket: u64) {
        if self.take(ticket).is_some() {
            return;
        }
        if let Some(entry) = self.entry(ticket)
            && matches!(entry.fate, Fate::Awaited)
        {
            entry.fate = Fate::Detached;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(state: &mut State, ticket: u64) {
        state.complete(ticket, Ok(Vec::new()));
    }

    #[test]
    fn a_mark_is_past_when_all_before_it_is_over_in_any_order() {
        let mut state = State::default();
        let begin = |state: &mut State| state.begin(3, 1, Held::Nothing, false);
        let mark = state.mark(3);
        assert!(state.is_past(3, mark), "nothing is on its way");
        let (first, second) = (begin(&mut state), begin(&mut state));
        let mark = state.mark(3);
        let late = begin(&mut state);
        let later = state.mark(3);
        let last = begin(&mut state);
        assert!(!state.is_past(3, mark) && !state.is_past(3, later));
        done(&mut state, second);
        done(&mut state, late);
        assert!(!state.is_past(3, mark), "the first is on its way");
        done(&mut state, first);
        assert!(state.is_past(3, mark) && state.is_past(3, later));
        let end = state.mark(3);
        assert!(!state.is_past(3, end));
        done(&mut state, last);
        assert!(state.is_past(3, end) && state.is_past(4, 0));
        // However many marks, one lot stays.
        for _ in 0..100 {
            let ticket = begin(&mut state);
            let mark = state.mark(3);
            assert!(!state.is_past(3, mark));
            done(&mut state, ticket);
            assert!(state.is_past(3, mark));
        }
        assert_eq!(state.targets[&3].lots.len(), 1);
    }

    #[test]
    fn a_failure_is_told_once_and_to_its_own_window() {
        let mut state = State::default();
        let fault = |text: &str| Fault::Other(text.to_owned());
        for (target, window, text) in [(0, 1, "a"), (0, 1, "b"), (0, 2, "c"), (1, 1, "d")] {
            let ticket = state.begin(target, window, Held::Nothing, false);
            state.complete(ticket, Err(fault(text)));
        }
        let mut told = |target, window| {
            let fault = state.failed(target, window);
            fault.map(|fault| fault.to_string()).unwrap_or_default()
        };
        assert_eq!(told(0, 3), "");
        assert_eq!(told(0, 2), "c");
        assert_eq!([told(0, 1), told(0, 1)], ["a", ""]);
        assert_eq!(told(1, 1), "d");
    }

    #[test]
    fn what_uses_memory_is_known_until_it_completes() {
        let mut state = State::default();
        let update = state.begin(3, 1, Held::Nothing, false);
        assert!(!state.holds(3));
        let memory = || Held::Memory(SharedBytes::empty(), None);
        let (get, put) = (
            state.begin(3, 1, memory(), true),
            state.begin(3, 1, memory(), false),
        );
        state.detach(get);
        done(&mut state, update);
        done(&mut state, put);
        assert!(state.holds(3) && !state.holds(4));
        done(&mut state, get);
        done(&mut state, get);
        assert!(!state.holds(3));
    }

    #[test]
    fn tickets_leave_the_highest_bits_free() {
        let mut state = State::default();
        let ticket = state.begin(0, 0, Held::Nothing, false);
        done(&mut state, ticket);
        state.entries[0].generation = GENERATIONS;
        let ticket = state.begin(0, 0, Held::Nothing, false);
        assert_eq!(ticket, 0, "the generations begin anew");
    }
}
