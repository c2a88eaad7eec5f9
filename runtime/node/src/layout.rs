//! Where each word of the control segment stands.
//!
//! Each word is a `u64` alone on a 64-byte line (spec measured-designs 3: two ranks polling
//! neighbours of one line pay a hop for nothing), except the notification counters and the posted
//! bits of one rank, which that rank alone polls. Places are byte offsets given by `const fn`s of
//! fixed strides, so a rank of another node can name a word without seeing the segment.

/// Ranks of one node at most.
pub const MAX_LOCAL: u32 = 256;
/// Ranks of one job at most; bounds the gather slots and the greeting's list of members.
pub const MAX_WORLD: u32 = 4096;
/// Contexts of one node: 0 is the whole job, 1 to 1023 are other teams and windows.
pub const CONTEXTS: u32 = 1024;
/// The context of the whole job, on every node.
pub const WORLD: u32 = 0;
/// Bits of a word that tell of posts.
pub const POSTED_BITS: u32 = 32;
/// Rounds of a dissemination between nodes: 2^16 nodes.
pub const INTER_ROUNDS: u32 = 16;
/// Notifications a rank tells apart in one context.
pub const NOTIFY_IDS: u32 = 64;
/// Room for one rank in the area of a gather: a word with the length of its whole part, and the bytes of one piece of it.
pub const SLOT_BYTES: usize = 1024;
/// Most bytes of one piece: longer parts travel in several rounds.
pub const MAX_PIECE: usize = SLOT_BYTES - 8;
/// Most bytes of one gathered part.
pub const MAX_PART: usize = 8 * 1024 - 8;

const LINE: usize = 64;
const PAGE: usize = 4096;
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"windlctl");
/// Changes whenever an offset or a meaning on this page changes.
pub(crate) const LAYOUT: u64 = 6;

// The header's lines.
pub(crate) const AT_MAGIC: usize = 0;
pub(crate) const AT_LAYOUT: usize = LINE;
pub(crate) const AT_LOCALS: usize = 2 * LINE;
pub(crate) const AT_WORLD: usize = 3 * LINE;
const AT_TROUBLE: usize = 4 * LINE;
// One bit per context that is taken.
pub(crate) const AT_TAKEN: usize = 5 * LINE;

// One group of lines per local rank: status, presence, pid, start time, told, left.
const RANKS: usize = PAGE;
const RANK_STRIDE: usize = 8 * LINE;
/// Most bytes of the name of what a rank left: the rest of that line.
pub(crate) const LEFT_BYTES: usize = LINE - 8;

// One block per context: the common lines, then a group of lines per local rank.
const CONTEXT_BASE: usize = RANKS + MAX_LOCAL as usize * RANK_STRIDE;
const IN_ARRIVE: usize = 0;
const IN_GENERATION: usize = LINE;
const IN_DEPARTED: usize = 2 * LINE;
const IN_SLEEPERS: usize = 3 * LINE;
const IN_INSIDE: usize = 4 * LINE;
const IN_FLAGS: usize = 5 * LINE;
const IN_INTER: usize = 7 * LINE;
const IN_LOCAL: usize = IN_INTER + INTER_ROUNDS as usize * LINE;
// Of one local rank: lines with one word each, then two packed arrays of words.
const LOCAL_LINES: usize = 9;
const IN_NOTIFY: usize = LOCAL_LINES * LINE;
const IN_POSTED: usize = IN_NOTIFY + NOTIFY_IDS as usize * 8;
const LOCAL_STRIDE: usize = (IN_POSTED + MAX_WORLD as usize / 4).next_multiple_of(LINE);
const CONTEXT_STRIDE: usize = (IN_LOCAL + MAX_LOCAL as usize * LOCAL_STRIDE).next_multiple_of(PAGE);

const GATHER_BASE: usize = CONTEXT_BASE + CONTEXTS as usize * CONTEXT_STRIDE;

#[inline]
const fn in_context(context: u32, place: usize) -> usize {
    assert!(context < CONTEXTS, "contexts are 0 to 1023");
    CONTEXT_BASE + context as usize * CONTEXT_STRIDE + place
}

#[inline]
pub(crate) const fn in_local(context: u32, local: u32, line: usize) -> usize {
    assert!(local < MAX_LOCAL, "local ranks are 0 to 255");
    in_context(
        context,
        IN_LOCAL + local as usize * LOCAL_STRIDE + line * LINE,
    )
}

#[inline]
const fn of_rank(local: u32, line: usize) -> usize {
    assert!(local < MAX_LOCAL, "local ranks are 0 to 255");
    RANKS + local as usize * RANK_STRIDE + line * LINE
}

/// Barrier: how many ranks of the node have arrived.
#[inline]
pub const fn arrive(context: u32) -> usize {
    in_context(context, IN_ARRIVE)
}
/// Barrier: the generation that is released.
#[inline]
pub const fn generation(context: u32) -> usize {
    in_context(context, IN_GENERATION)
}
/// Barrier of two: the flag of the first or of the second.
#[inline]
pub const fn flag(context: u32, which: u32) -> usize {
    assert!(which < 2, "flags are 0 and 1");
    in_context(context, IN_FLAGS + which as usize * LINE)
}
/// Who has not left the context yet, counted; see [`Control::leave`](crate::Control::leave).
#[inline]
pub const fn inside(context: u32) -> usize {
    in_context(context, IN_INSIDE)
}
/// Barrier between nodes: the word of dissemination round `round`, 0 to 15.
#[inline]
pub const fn inter(context: u32, round: u32) -> usize {
    assert!(round < INTER_ROUNDS, "rounds are 0 to 15");
    in_context(context, IN_INTER + round as usize * LINE)
}
/// Which ranks have left the window without its collective end: 0, or world rank + 1 of the first.
#[inline]
pub const fn departed(context: u32) -> usize {
    in_context(context, IN_DEPARTED)
}
/// How many ranks of the node sleep on a word of this context's barrier.
#[inline]
pub const fn sleepers(context: u32) -> usize {
    in_context(context, IN_SLEEPERS)
}
/// Lock word of one local rank as target (spec measured-designs 4).
#[inline]
pub const fn lock(context: u32, local: u32) -> usize {
    in_local(context, local, 0)
}
/// Next ticket of the lock queue of one local rank.
#[inline]
pub const fn ticket(context: u32, local: u32) -> usize {
    in_local(context, local, 1)
}
/// Ticket now served in the lock queue of one local rank.
#[inline]
pub const fn serving(context: u32, local: u32) -> usize {
    in_local(context, local, 2)
}
/// How many ranks sleep on the lock of one local rank.
#[inline]
pub const fn lock_sleepers(context: u32, local: u32) -> usize {
    in_local(context, local, 3)
}
/// Guards elements that no CPU instruction updates in one piece, in the memory of one local rank.
#[inline]
pub const fn guard(context: u32, local: u32) -> usize {
    in_local(context, local, 4)
}
/// How many accesses to one local rank's exposure have been completed, ever.
#[inline]
pub const fn completed(context: u32, local: u32) -> usize {
    in_local(context, local, 5)
}
/// How many threads of one local rank sleep on [`completed`] or [`posted`].
#[inline]
pub const fn pscw_sleepers(context: u32, local: u32) -> usize {
    in_local(context, local, 6)
}
/// Moves whenever a notification of one local rank arrives while somebody sleeps.
#[inline]
pub const fn bell(context: u32, local: u32) -> usize {
    in_local(context, local, 7)
}
/// How many threads of one local rank sleep on its [`bell`].
#[inline]
pub const fn bell_sleepers(context: u32, local: u32) -> usize {
    in_local(context, local, 8)
}
/// How often one local rank was notified under `id`, 0 to 63.
#[inline]
pub const fn notified(context: u32, local: u32, id: u32) -> usize {
    assert!(id < NOTIFY_IDS, "notifications are 0 to 63");
    in_local(context, local, 0) + IN_NOTIFY + id as usize * 8
}
/// One bit per rank of the window, turned over by each of its posts to one local rank: the word
/// with the bit of `rank`, bit `rank % POSTED_BITS`. Sleeping watches the low half of a word.
#[inline]
pub const fn posted(context: u32, local: u32, rank: u32) -> usize {
    assert!(rank < MAX_WORLD, "ranks are 0 to 4095");
    in_local(context, local, 0) + IN_POSTED + rank as usize / POSTED_BITS as usize * 8
}
/// The call a local rank was last in: written by the rank, read by the launcher after a death.
#[inline]
pub const fn status(local: u32) -> usize {
    of_rank(local, 0)
}
/// A [`Presence`](crate::control::Presence), written by the service.
#[inline]
pub const fn presence(local: u32) -> usize {
    of_rank(local, 1)
}
/// Process id of a joined local rank, from its socket's credentials.
#[inline]
pub const fn pid(local: u32) -> usize {
    of_rank(local, 2)
}
/// Start time of a joined local rank (field 22 of its stat file): with the pid, its identity.
#[inline]
pub const fn start_time(local: u32) -> usize {
    of_rank(local, 3)
}
/// The first peer of which a local rank was told that it had left or was gone: world rank + 1.
#[inline]
pub const fn told(local: u32) -> usize {
    of_rank(local, 4)
}
/// Has a local rank left something itself: 0 no; 1 before it was told of anybody; 2 after. Then
/// the name of what it left first, filled up with zeros.
#[inline]
pub const fn left(local: u32) -> usize {
    of_rank(local, 5)
}
/// First trouble of the job as the service knows it: 0, or a [`Trouble`](crate::control::Trouble).
#[inline]
pub const fn trouble() -> usize {
    AT_TROUBLE
}
/// The area of a context's gathers, with [`SLOT_BYTES`] for each rank of the job; rounds alternate
/// between parity 0 and 1. The stride depends on the size of the job, which all its nodes know.
#[inline]
pub const fn gather(world: u32, context: u32, parity: u32) -> usize {
    assert!(
        context < CONTEXTS && parity < 2,
        "contexts are 0 to 1023, parities 0 and 1"
    );
    GATHER_BASE + (context as usize * 2 + parity as usize) * area_bytes(world)
}
/// Bytes of one such area.
#[inline]
pub const fn area_bytes(world: u32) -> usize {
    world as usize * SLOT_BYTES
}
/// Bytes of the segment of a job of `world` ranks.
#[inline]
pub const fn total_bytes(world: u32) -> usize {
    GATHER_BASE + CONTEXTS as usize * 2 * area_bytes(world)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_word_has_a_line_of_its_own() {
        let mut seen = HashSet::new();
        let mut add = |offset: usize| {
            assert_eq!(offset % LINE, 0);
            assert!(offset + 8 <= total_bytes(1));
            assert!(seen.insert(offset), "offset {offset} is given twice");
        };
        for place in [
            AT_MAGIC,
            AT_LAYOUT,
            AT_LOCALS,
            AT_WORLD,
            trouble(),
            AT_TAKEN,
            AT_TAKEN + LINE,
        ] {
            add(place);
        }
        for local in 0..MAX_LOCAL {
            for place in [status, presence, pid, start_time] {
                add(place(local));
            }
        }
        for context in [0, 1, 500, CONTEXTS - 1] {
            for place in [arrive, generation, departed, sleepers, inside] {
                add(place(context));
            }
            add(flag(context, 0));
            add(flag(context, 1));
            for round in 0..INTER_ROUNDS {
                add(inter(context, round));
            }
            for local in 0..MAX_LOCAL {
                for place in [
                    lock,
                    ticket,
                    serving,
                    lock_sleepers,
                    guard,
                    completed,
                    pscw_sleepers,
                    bell,
                    bell_sleepers,
                ] {
                    add(place(context, local));
                }
                add(notified(context, local, 0));
                add(posted(context, local, 0));
            }
        }
        add(gather(1, 0, 0));
        add(gather(1, CONTEXTS - 1, 1));
        assert_eq!(
            notified(3, 5, NOTIFY_IDS - 1) + 8,
            posted(3, 5, 0),
            "packed, and next to each other"
        );
        assert!(posted(3, 5, MAX_WORLD - 1) < lock(3, 6));
        assert_eq!(gather(8, CONTEXTS - 1, 1) + area_bytes(8), total_bytes(8));
        assert!(AT_TAKEN + CONTEXTS as usize / 8 <= RANKS);
    }
}
