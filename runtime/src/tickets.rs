//! The book of a queue: which transfers are outstanding, for whom, and what they may still touch.

use std::collections::HashMap;

use windlass_mem::SharedBytes;

use crate::mechanism::Fault;
use crate::staging::Slot;

#[derive(Default)]
pub(crate) struct State {
    entries: Vec<Entry>,
    free: Vec<u32>,
    pub(crate) targets: HashMap<u32, Outstanding>,
}

#[derive(Default)]
pub(crate) struct Outstanding {
    pub(crate) pending: usize,
    pub(crate) failure: Option<Fault>,
}

/// An outstanding transfer. Held memory is released by completion and by nothing else.
struct Entry {
    generation: u32,
    target: u32,
    held: Held,
    fate: Fate,
}

/// What a transfer may still touch: held for its drop alone.
#[expect(dead_code, reason = "the values are kept, not read")]
pub(crate) enum Held {
    Nothing,
    Slot(Slot),
    Memory(SharedBytes),
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

impl State {
    pub(crate) fn begin(&mut self, target: u32, held: Held, awaited: bool) -> u64 {
        let fate = if awaited {
            Fate::Awaited
        } else {
            Fate::Detached
        };
        self.targets.entry(target).or_default().pending += 1;
        let index = if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.generation = entry.generation.wrapping_add(1);
            entry.target = target;
            entry.held = held;
            entry.fate = fate;
            index
        } else {
            self.entries.push(Entry {
                generation: 0,
                target,
                held,
                fate,
            });
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
        let target = entry.target;
        let held = std::mem::replace(&mut entry.held, Held::Nothing);
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
        outstanding.pending -= 1;
        if outstanding.failure.is_none() {
            outstanding.failure = failure;
        }
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
