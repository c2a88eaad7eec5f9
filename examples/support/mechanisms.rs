//! Which mechanisms a job's pairs of ranks use, counted at rank 0 through a window.

use windlass::{Element, Op, Rank, Window, World};

use crate::job::{self, Failure, ROOT};

/// One mechanism in one shape.
#[derive(Debug)]
pub(crate) struct Usage {
    /// For example `veshm mapped`.
    pub(crate) label: String,
    /// Ordered pairs of different ranks whose route this is.
    pub(crate) pairs: u64,
    /// Those of them that carried data in this run.
    pub(crate) busy: u64,
}

/// Words of a slot: hash of the label (0: free), the label in three words, pairs, busy pairs.
const SLOT: usize = 6;
const LABEL_BYTES: usize = 24;
/// A job uses a handful of mechanisms; this many slots never fill.
const SLOTS: usize = 64;

/// Counts the routes of `window` over all ranks. `busy` names the ranks this one exchanged data
/// with, as origin. Collective; the answer is at rank 0, the others get an empty list.
pub(crate) fn count<T: Element>(
    world: &World,
    window: &Window<T>,
    busy: &[Rank],
) -> Result<Vec<Usage>, Failure> {
    let mut table = world.allocate::<u64>(if world.rank() == ROOT {
        SLOT * SLOTS
    } else {
        0
    })?;
    let epoch = table.lock_all()?;
    for route in window.routes() {
        if route.target == world.rank() {
            continue;
        }
        let label = format!("{} {}", route.mechanism, route.shape);
        let (hash, words) = key(&label);
        let mut slot = (hash % SLOTS as u64) as usize;
        let at = loop {
            let at = slot * SLOT;
            let found = epoch.compare_and_swap(0, hash, ROOT, at)?;
            if found == 0 {
                epoch.put(&words, ROOT, at + 1)?;
            }
            if found == 0 || found == hash {
                break at;
            }
            slot = (slot + 1) % SLOTS;
        };
        let carried = u64::from(busy.contains(&route.target));
        epoch.accumulate(&[1, carried], ROOT, at + 4, Op::Sum)?;
    }
    epoch.end()?;
    world.barrier()?;

    let mut found = Vec::new();
    if world.rank() == ROOT {
        let local = table.lock_local()?;
        for slot in local.chunks_exact(SLOT).filter(|slot| slot[0] != 0) {
            let bytes: Vec<u8> = slot[1..4]
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .filter(|&byte| byte != 0)
                .collect();
            found.push(Usage {
                label: String::from_utf8_lossy(&bytes).into_owned(),
                pairs: slot[4],
                busy: slot[5],
            });
        }
        found.sort_by(|a, b| a.label.cmp(&b.label));
    }
    table.free()?;
    Ok(found)
}

/// A line for every mechanism.
pub(crate) fn print(usage: &[Usage]) {
    for Usage { label, pairs, busy } in usage {
        let pairs = job::count(*pairs as u32, "ordered pair");
        println!("route {label}: {pairs}, {busy} carried data");
    }
}

/// A hash that is never 0, and the first 24 bytes of the label.
fn key(label: &str) -> (u64, [u64; 3]) {
    let hash = label
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    let mut bytes = [0; LABEL_BYTES];
    for (to, from) in bytes.iter_mut().zip(label.bytes()) {
        *to = from;
    }
    let word = |n: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * n + byte]));
    (hash.max(1), [word(0), word(1), word(2)])
}
