//! All-gathers: a barrier that carries a part of every rank to every rank.
//!
//! Each node has an *area* with a slot for every rank of the team. A rank writes the *record* of
//! its part, a word and one piece, into a slot of its own; with each step of the dissemination the
//! first rank of a node sends the records it has, packed, in one message straight into the area of
//! the other node; behind the barrier everybody reads the area of its own node. So a gather takes as
//! many messages as a barrier twice, whatever the number of ranks.
//!
//! Areas belong to the team's context, so gathers of overlapping teams do not meet, and rounds
//! alternate between two of them: who writes one again has passed a barrier that its last readers
//! have come to. A part that is longer than a slot travels in several rounds.
//!
//! # What stands where
//! Nodes are counted backwards from this one: 0 itself, 1 the node before it. In the first slots
//! stand the records of node 0, one in each; what comes in the step of distance d are those of the
//! nodes from d on, packed, from the slot on that these would have if each record had one. So who
//! sends knows where it belongs, and no record, being no longer than a slot, lies on another.
//!
//! The algorithm reaches its area through [`Area`] alone, so that the same code runs on the
//! segments of a job and over a simulated network.

use std::collections::HashMap;

use windlass_node::control::{MAX_PART, MAX_PIECE, Part, SLOT_BYTES};

use super::group::Group;
use crate::error::{Error, Result, cause};

/// One round of a gather: the area on this node, and the barrier that carries it.
pub(crate) trait Area {
    fn write(&self, at: usize, bytes: &[u8]) -> Result<()>;
    fn read(&self, at: usize, bytes: &mut [u8]) -> Result<()>;
    /// Puts these bytes into the area of the node so far after this one; they are there before what
    /// is sent to it next.
    fn carry(&self, distance: u32, at: usize, bytes: &[u8]) -> Result<()>;
    /// The barrier: [`send`] is called with each of its messages.
    fn pass(&self) -> Result<()>;
}

/// No part is as long.
const TOO_LONG: Part = Part {
    topic: 0,
    len: u32::MAX,
};

/// Bytes of the piece that begins at `from`. Of a part that is too long the length alone travels,
/// and is refused everywhere.
fn piece_bytes(part: Part, from: usize) -> usize {
    match part.len as usize {
        len if len > MAX_PART => 0,
        len => len.saturating_sub(from).min(MAX_PIECE),
    }
}

/// The word, then the piece in whole words.
fn record(part: Part, piece: &[u8]) -> Vec<u8> {
    let mut bytes = part.to_word().to_ne_bytes().to_vec();
    bytes.extend(piece);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The record at `at`: its part, and itself in `into`.
fn read(area: &impl Area, at: usize, from: usize, into: &mut Vec<u8>) -> Result<Part> {
    let mut word = [0; 8];
    area.read(at, &mut word)?;
    let part = Part::from_word(u64::from_ne_bytes(word));
    into.clear();
    into.extend(word);
    // Read once: a peer may change it meanwhile.
    into.resize(8 + piece_bytes(part, from).next_multiple_of(8), 0);
    area.read(at + 8, &mut into[8..])?;
    Ok(part)
}

/// The ranks of the node so far before this one.
fn behind(group: &Group, back: usize) -> &[u32] {
    let nodes = group.nodes.len();
    &group.nodes[(group.home as usize + nodes - back) % nodes]
}

/// Where in the area of the node so far after this one stands what this one sends it.
fn place(group: &Group, distance: usize) -> usize {
    let nodes = group.nodes.len();
    let between = (0..distance).map(|ahead| (group.home as usize + distance - ahead) % nodes);
    between.map(|node| group.nodes[node].len()).sum::<usize>() * SLOT_BYTES
}

/// What comes in each step: the distance, and how many nodes' records.
fn steps(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    let distances = std::iter::successors(Some(1), |distance| Some(distance * 2));
    distances
        .take_while(move |&distance| distance < nodes)
        .map(move |distance| (distance, distance.min(nodes - distance)))
}

/// The records of the first so many nodes, with their ranks; the first is this one.
pub(super) fn walk(
    area: &impl Area,
    group: &Group,
    from: usize,
    nodes: usize,
    mut each: impl FnMut(u32, Part, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut bytes = Vec::new();
    for (slot, &rank) in behind(group, 0).iter().enumerate() {
        let part = read(area, slot * SLOT_BYTES, from, &mut bytes)?;
        each(rank, part, &bytes)?;
    }
    let mut slots = behind(group, 0).len();
    for (distance, count) in steps(nodes) {
        let mut at = slots * SLOT_BYTES;
        for &rank in (distance..distance + count).flat_map(|back| behind(group, back)) {
            let part = read(area, at, from, &mut bytes)?;
            each(rank, part, &bytes)?;
            at += bytes.len();
            slots += 1;
        }
    }
    Ok(())
}

/// Sends the records that this node has and the node so far after it has not.
pub(super) fn send(area: &impl Area, group: &Group, from: usize, distance: u32) -> Result<()> {
    let far = distance as usize;
    let nodes = far.min(group.nodes.len() - far);
    let mut bundle = Vec::new();
    walk(area, group, from, nodes, |_, _, record| {
        bundle.extend_from_slice(record);
        Ok(())
    })?;
    area.carry(distance, place(group, far), &bundle)
}

/// Writes the records of all other nodes, which have come by another way, where they belong.
pub(super) fn deliver(
    area: &impl Area,
    group: &Group,
    from: usize,
    records: &HashMap<u32, Vec<u8>>,
) -> Result<()> {
    let mut slots = behind(group, 0).len();
    for (distance, count) in steps(group.nodes.len()) {
        let mut bundle = Vec::new();
        let at = slots * SLOT_BYTES;
        for rank in (distance..distance + count).flat_map(|back| behind(group, back)) {
            let sound = records.get(rank).filter(|bytes| is_record(bytes, from));
            bundle.extend(sound.unwrap_or(&record(TOO_LONG, &[])));
            slots += 1;
        }
        area.write(at, &bundle)?;
    }
    Ok(())
}

/// Has it the length that its word says?
fn is_record(bytes: &[u8], from: usize) -> bool {
    bytes.first_chunk().is_some_and(|word| {
        let part = Part::from_word(u64::from_ne_bytes(*word));
        bytes.len() == 8 + piece_bytes(part, from).next_multiple_of(8)
    })
}

/// Every rank's blob on a topic, by team rank; `next` begins a round that carries the pieces from
/// a byte of the parts on.
pub(super) fn all_gather<A: Area>(
    group: &Group,
    topic: u32,
    blob: &[u8],
    next: impl Fn(usize) -> A,
) -> Result<Vec<Vec<u8>>> {
    let mine = Part {
        topic,
        len: u32::try_from(blob.len()).unwrap_or(u32::MAX),
    };
    let here = behind(group, 0);
    let slot = here.iter().position(|&rank| rank == group.rank);
    let at = slot.unwrap_or_default() * SLOT_BYTES;
    let mut parts = vec![Vec::new(); group.ranks.len()];
    let (mut from, mut longest) = (0, 0);
    loop {
        let area = next(from);
        let piece = match piece_bytes(mine, from) {
            0 => &[],
            len => &blob[from..from + len],
        };
        area.write(at, &record(mine, piece))?;
        area.pass()?;
        walk(
            &area,
            group,
            from,
            group.nodes.len(),
            |rank, told, record| {
                if told.topic != topic && told != TOO_LONG {
                    return Err(Error::Disagree);
                }
                let len = told.len as usize;
                if len > MAX_PART {
                    return Err(claims(rank, len));
                }
                longest = longest.max(len);
                parts[rank as usize].extend(&record[8..8 + piece_bytes(told, from)]);
                Ok(())
            },
        )?;
        from += MAX_PIECE;
        if from >= longest {
            return Ok(parts);
        }
    }
}

fn claims(rank: u32, len: usize) -> Error {
    let text = format!("the part of rank {rank} claims {len} bytes");
    Error::Node {
        what: "reading a part",
        source: cause(windlass_node::Error::Segment(text)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::group::seats;
    use super::*;

    /// The areas of all nodes of a team of so many ranks.
    type Areas = RefCell<Vec<Vec<u8>>>;

    /// A round whose messages have come already.
    struct Over<'a> {
        areas: &'a Areas,
        home: usize,
    }

    impl Area for Over<'_> {
        fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
            self.areas.borrow_mut()[self.home][at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn read(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
            bytes.copy_from_slice(&self.areas.borrow()[self.home][at..at + bytes.len()]);
            Ok(())
        }
        fn carry(&self, distance: u32, at: usize, bytes: &[u8]) -> Result<()> {
            let mut areas = self.areas.borrow_mut();
            let there = (self.home + distance as usize) % areas.len();
            areas[there][at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn pass(&self) -> Result<()> {
            Ok(())
        }
    }

    /// What every rank of a job gathers that has these nodes, in rank order.
    fn gathered(nodes: &[u32], blobs: &[Vec<u8>]) -> Vec<Result<Vec<Vec<u8>>>> {
        let seats = seats(nodes.iter().copied());
        let all: Vec<u32> = (0..nodes.len() as u32).collect();
        let group = |me| Group::new(all.clone(), &seats, me).unwrap();
        let homes = group(0).nodes.len();
        let areas: Areas = RefCell::new(vec![vec![0xee; nodes.len() * SLOT_BYTES]; homes]);
        let area = |home| Over {
            areas: &areas,
            home,
        };
        let mut round = 0;
        let mut whole: Vec<Option<Result<Vec<Vec<u8>>>>> = blobs.iter().map(|_| None).collect();
        let mut parts = vec![vec![Vec::new(); blobs.len()]; blobs.len()];
        while whole.iter().any(Option::is_none) {
            let from = round * MAX_PIECE;
            for (me, blob) in (0..).zip(blobs) {
                let group = group(me);
                let part = Part {
                    topic: 7,
                    len: blob.len() as u32,
                };
                let piece = &blob[from.min(blob.len())..][..piece_bytes(part, from)];
                let slot = behind(&group, 0).iter().position(|&rank| rank == me);
                let home = area(group.home as usize);
                let at = slot.unwrap() * SLOT_BYTES;
                home.write(at, &record(part, piece)).unwrap();
            }
            for (distance, _) in steps(homes) {
                for first in all.iter().map(|&me| group(me)).filter(|g| g.is_first) {
                    send(&area(first.home as usize), &first, from, distance as u32).unwrap();
                }
            }
            for (me, blob) in (0..).zip(blobs) {
                // Each rank by itself, in rounds that stand still: what it makes of this one.
                let group = group(me);
                let home = group.home as usize;
                let mut longest = 0;
                let seen = walk(&area(home), &group, from, homes, |rank, told, record| {
                    if told.len as usize > MAX_PART {
                        return Err(claims(rank, told.len as usize));
                    }
                    longest = longest.max(told.len as usize);
                    let piece = &record[8..8 + piece_bytes(told, from)];
                    parts[me as usize][rank as usize].extend_from_slice(piece);
                    Ok(())
                });
                let over = seen.is_err() || longest <= from + MAX_PIECE;
                if over {
                    let mine = std::mem::take(&mut parts[me as usize]);
                    // A part of one round is what the whole algorithm gathers.
                    if round == 0 {
                        let again = all_gather(&group, 7, blob, |_| area(home));
                        assert_eq!(again.as_ref().ok(), seen.as_ref().ok().map(|()| &mine));
                    }
                    whole[me as usize] = Some(seen.map(|()| mine));
                }
            }
            round += 1;
        }
        whole.into_iter().flatten().collect()
    }

    #[test]
    fn everybody_gets_every_part_over_any_number_of_nodes() {
        for count in 1..=9u32 {
            // Uneven nodes, and ranks dealt out to them in turn or one node after the other.
            let turns: Vec<u32> = (0..2 * count + 3).map(|rank| rank % count).collect();
            let mut blocks = turns.clone();
            blocks.sort_unstable();
            for nodes in [turns, blocks] {
                for longest in [0, 9, 3 * MAX_PIECE] {
                    let blob = |rank: usize| vec![rank as u8 + 1; rank * longest / nodes.len()];
                    let blobs: Vec<_> = (0..nodes.len()).map(blob).collect();
                    for seen in gathered(&nodes, &blobs) {
                        assert_eq!(seen.unwrap(), blobs, "{nodes:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_part_that_is_too_long_fails_everywhere() {
        let mut blobs = vec![vec![1; 20]; 7];
        blobs[4] = vec![2; MAX_PART + 1];
        for seen in gathered(&[0, 0, 1, 1, 2, 2, 3], &blobs) {
            let error = seen.unwrap_err();
            let text = format!("{error:?}");
            assert!(text.contains("rank 4 claims"), "{text}");
        }
    }

    #[test]
    fn what_came_by_another_way_lies_where_it_belongs() {
        let seats = seats([0, 1, 1, 2, 2]);
        let group = Group::new((0..5).collect(), &seats, 1).unwrap();
        let areas: Areas = RefCell::new(vec![vec![0; 5 * SLOT_BYTES]; 3]);
        let area = || Over {
            areas: &areas,
            home: 1,
        };
        let part = |len| Part { topic: 7, len };
        let sound = record(part(3), b"abc");
        let short = record(part(9), b"abc");
        let odd = vec![1, 2, 3];
        let far = HashMap::from([(0, sound.clone()), (3, short), (4, odd)]);
        for (slot, text) in [b"me".as_slice(), b"next"].into_iter().enumerate() {
            let bytes = record(part(text.len() as u32), text);
            area().write(slot * SLOT_BYTES, &bytes).unwrap();
        }
        deliver(&area(), &group, 0, &far).unwrap();
        let mut seen = Vec::new();
        walk(&area(), &group, 0, 3, |rank, part, record| {
            seen.push((rank, part, record.to_vec()));
            Ok(())
        })
        .unwrap();
        seen.sort_by_key(|(rank, ..)| *rank);
        assert_eq!(seen[0], (0, part(3), sound));
        assert_eq!(&seen[2].2[8..12], b"next");
        for (_, part, record) in &seen[3..] {
            assert_eq!((*part, record.len()), (TOO_LONG, 8), "what is not whole");
        }
    }
}
