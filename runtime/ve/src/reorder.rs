//! The reordering mode: everything that sections 8 and 9.4 of ve-memory.md leave open is done some time later, and in an order
//! that a seed decides.
//!
//! What may happen: a transfer executes between its post and the poll that reports it, its bytes arrive in any order of
//! aligned 8-byte units, its status last; the engine stands still for a while, as long as no thread of the process is on a core, so
//! that a program which posts on fills the ring; a store by SHM arrives later, and before or after stores to other pages. What may not:
//! descriptors pass each other; a descriptor passes an earlier store; stores to one page pass each other; a store passes a fence, or,
//! to a page of VE_PCISYNC, anything earlier; a load by LHM passes a store to its own page.

use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use windlass_mem::SharedBytes;

use crate::addr::Vehva;
use crate::dma::{DESCRIPTORS, Dma, Ring, Shared};
use crate::fault::Fault;
use crate::modes::Reorder;
use crate::transfer::Transfer;
use crate::translate::{Table, order};

/// Parts of one transfer at most.
const PARTS: u64 = 8;
/// Stores that wait at most: the next one pushes the first one out.
const STORES: usize = 64;
/// Steps that one call takes at most.
const WANDER: u64 = 4;
/// One call in so many leaves nothing pending.
const CALM: u64 = 8;
/// One post to an idle engine in so many finds it standing still.
const STILL: u64 = 8;
/// For so many looks at it, and at most twice as many: a post takes two, so 128 posts without a poll fill the ring (section 9.1).
const LOOKS: u64 = 2 * DESCRIPTORS as u64 + 64;
/// Longest rest of the helper thread.
const REST_US: u64 = 50;

/// A small generator of numbers (SplitMix64): seeds give the same order everywhere.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % sides.max(1)
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.roll(len as u64)).unwrap_or(0)
    }
}

/// Where a store goes. It holds no lock of the table.
pub(crate) struct Page {
    pub(crate) at: Vehva,
    pub(crate) sync: bool,
    pub(crate) bytes: SharedBytes,
    pub(crate) offset: usize,
}

/// A store by SHM on its way.
#[derive(Debug)]
struct Store {
    seq: u64,
    /// Fences before it.
    era: u64,
    page: Vehva,
    sync: bool,
    bytes: SharedBytes,
    offset: usize,
    data: [u8; 8],
    len: usize,
}

impl Store {
    fn arrive(&self) {
        order();
        // The entry permitted it when it was issued; memory that is no longer there takes no store.
        let _ = self.bytes.write(self.offset, &self.data[..self.len]);
        order();
    }
}

/// What is on its way.
#[derive(Debug)]
pub(crate) struct Loose {
    dice: Dice,
    era: u64,
    stores: Vec<Store>,
    /// Parts of the oldest descriptor that have not been moved; `None` before it starts.
    parts: Option<Vec<Transfer>>,
    /// Looks that the engine still stands still for.
    still: u64,
}

impl Loose {
    pub(crate) fn new(reorder: Reorder) -> Self {
        Self {
            dice: Dice(reorder.seed),
            era: 0,
            stores: Vec::new(),
            parts: None,
            still: 0,
        }
    }

    /// Stores that may arrive now, while `oldest` is the number of the oldest unfinished descriptor.
    fn arrivable(&self, oldest: Option<u64>) -> impl Iterator<Item = usize> {
        let may = move |(index, store): (usize, &Store)| {
            let mut earlier = self.stores[..index].iter();
            let kept = if store.sync {
                index > 0 || oldest.is_some_and(|seq| seq < store.seq)
            } else {
                earlier.any(|e| e.page == store.page || e.era < store.era)
            };
            (!kept).then_some(index)
        };
        self.stores.iter().enumerate().filter_map(may)
    }

    /// Cuts a transfer into parts at random multiples of 8 bytes of its destination, in any order.
    fn cut(&mut self, transfer: Transfer) -> Vec<Transfer> {
        let len = transfer.len;
        let lead = (8 - transfer.dst.raw() % 8) % 8;
        let mut ends: Vec<u32> = (1..PARTS)
            .map(|_| self.dice.roll(u64::from(len) / 8 + 1) * 8 + lead)
            .filter_map(|end| u32::try_from(end).ok())
            .filter(|end| *end < len)
            .chain([len])
            .collect();
        ends.sort_unstable();
        ends.dedup();
        let mut parts = Vec::new();
        let mut from = 0;
        for end in ends {
            parts.push(transfer.part(from, end - from));
            from = end;
        }
        for last in (1..parts.len()).rev() {
            let other = self.dice.index(last + 1);
            parts.swap(last, other);
        }
        parts
    }
}

impl Ring {
    /// A few steps, as many as the dice say, or all there are.
    pub(crate) fn wander(&mut self, table: &RwLock<Table>) {
        let Some(loose) = &mut self.loose else { return };
        loose.still = loose.still.saturating_sub(1);
        if loose.dice.roll(CALM) == 0 {
            while self.step_loose(table) {}
        } else {
            for _ in 0..loose.dice.roll(WANDER) {
                self.step_loose(table);
            }
        }
    }

    /// A post finds the engine idle.
    pub(crate) fn may_stand_still(&mut self) {
        if self.oldest().is_none()
            && let Some(loose) = &mut self.loose
            && loose.dice.roll(STILL) == 0
        {
            loose.still = LOOKS + loose.dice.roll(LOOKS);
        }
    }

    /// It is on a core again: a post was refused, or a test wants a step.
    pub(crate) fn go_on(&mut self) {
        if let Some(loose) = &mut self.loose {
            loose.still = 0;
        }
    }

    /// Does one thing of those that may happen now; false if there is none.
    pub(crate) fn step_loose(&mut self, table: &RwLock<Table>) -> bool {
        let oldest = self.oldest().map(|(seq, _)| seq);
        let held = self.held;
        let Some(loose) = &mut self.loose else {
            return false;
        };
        let mut may: Vec<Option<usize>> = loose.arrivable(oldest).map(Some).collect();
        let earlier = |seq| loose.stores.first().is_some_and(|store| store.seq < seq);
        let still = loose.still > 0;
        if oldest.is_some_and(|seq| !held && !still && !earlier(seq)) {
            may.push(None);
        }
        if may.is_empty() {
            return false;
        }
        match may[loose.dice.index(may.len())] {
            Some(index) => loose.stores.remove(index).arrive(),
            None => self.step_descriptor(table),
        }
        true
    }

    /// Starts the oldest descriptor, moves a part of it, or completes it.
    fn step_descriptor(&mut self, table: &RwLock<Table>) {
        let strict = self.is_strict();
        let Some((_, transfer)) = self.oldest() else {
            return;
        };
        let Some(loose) = &mut self.loose else { return };
        let outcome = match &mut loose.parts {
            None => transfer.check(table, strict).map(|()| {
                loose.parts = Some(loose.cut(transfer));
                false
            }),
            Some(parts) => match parts.pop() {
                Some(part) => {
                    order();
                    let moved = part.move_checked(table);
                    order();
                    moved.map(|()| false)
                }
                None => Ok(true),
            },
        };
        match outcome {
            Ok(false) => {}
            Ok(true) => self.end_descriptor(Ok(())),
            Err(fault) => self.end_descriptor(Err(fault)),
        }
    }

    fn end_descriptor(&mut self, outcome: Result<(), Fault>) {
        if let Some(loose) = &mut self.loose {
            loose.parts = None;
        }
        self.complete(outcome);
    }

    /// Does the earliest of all that is pending; false if there is nothing.
    fn step_in_order(&mut self, table: &RwLock<Table>) -> bool {
        let oldest = self.oldest().map(|(seq, _)| seq);
        let Some(loose) = &mut self.loose else {
            return false;
        };
        let store = loose.stores.first().map(|store| store.seq);
        match (store, oldest) {
            (Some(store), oldest) if oldest.is_none_or(|seq| store < seq) => {
                loose.stores.remove(0).arrive();
            }
            (_, Some(_)) => self.step_descriptor(table),
            (_, None) => return false,
        }
        true
    }

    /// Does all that is pending.
    pub(crate) fn settle(&mut self, table: &RwLock<Table>) {
        while self.step_in_order(table) {}
    }
}

impl Dma {
    /// A store by SHM sets out. Where it goes is looked up under the engine's lock: entries that are taken out leave nothing pending.
    pub(crate) fn store_later(
        &self,
        page: impl FnOnce() -> Result<Page, Fault>,
        src: &[u8],
    ) -> Result<(), Fault> {
        let mut ring = self.ring();
        let Page {
            at,
            sync,
            bytes,
            offset,
        } = page()?;
        let seq = ring.number();
        let mut data = [0; 8];
        let len = src.len().min(data.len());
        data[..len].copy_from_slice(&src[..len]);
        let full = |ring: &Ring| {
            let loose = ring.loose.as_ref();
            loose.is_some_and(|loose| loose.stores.len() >= STORES)
        };
        while full(&ring) && ring.step_in_order(&self.shared.table) {}
        if let Some(loose) = &mut ring.loose {
            loose.stores.push(Store {
                seq,
                era: loose.era,
                page: at,
                sync,
                bytes,
                offset,
                data,
                len,
            });
        }
        ring.wander(&self.shared.table);
        Ok(())
    }

    /// Stores that were issued before come first.
    pub(crate) fn settle_stores(&self) {
        let mut ring = self.ring();
        let waits = |ring: &Ring| ring.loose.as_ref().is_some_and(|l| !l.stores.is_empty());
        while waits(&ring) && ring.step_in_order(&self.shared.table) {}
    }

    /// A load by LHM: stores to its page come first.
    pub(crate) fn before_load(&self, page: Vehva) {
        let mut ring = self.ring();
        let waits = |ring: &Ring| {
            let loose = ring.loose.as_ref();
            loose.is_some_and(|loose| loose.stores.iter().any(|store| store.page == page))
        };
        while waits(&ring) && ring.step_in_order(&self.shared.table) {}
    }

    /// Later stores stay behind earlier ones.
    pub(crate) fn fence_stores(&self) {
        if let Some(loose) = &mut self.ring().loose {
            loose.era += 1;
        }
    }

    /// Starts the thread that lets everything arrive some time, whatever the process does. It ends with the engine.
    pub(crate) fn start_helper(&self, reorder: Reorder) -> std::io::Result<()> {
        let shared = Arc::downgrade(&self.shared);
        std::thread::Builder::new()
            .name("ve-reorder".into())
            .spawn(move || help(&shared, Dice(!reorder.seed)))
            .map(drop)
    }
}

fn help(shared: &Weak<Shared>, mut dice: Dice) {
    while let Some(shared) = shared.upgrade() {
        if let Some(loose) = &mut shared.ring().loose {
            loose.still = loose.still.saturating_sub(1);
        }
        for _ in 0..dice.roll(WANDER) {
            shared.ring().step_loose(&shared.table);
        }
        drop(shared);
        std::thread::sleep(Duration::from_micros(dice.roll(REST_US)));
    }
}

impl Dma {
    /// The process is ending: stores that it has issued arrive (section 9.4).
    pub fn arrive(&self) {
        if let Some(loose) = &mut self.ring().loose {
            loose.stores.drain(..).for_each(|store| store.arrive());
        }
    }
}

impl Drop for Dma {
    fn drop(&mut self) {
        self.arrive();
        // Its transfers do not, nor by the helper thread, which may still be there: the frames have other owners soon.
        let mut ring = self.ring();
        ring.abandon();
        if let Some(loose) = &mut ring.loose {
            loose.parts = None;
        }
    }
}
