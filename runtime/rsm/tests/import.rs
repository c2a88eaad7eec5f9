//! Windows, transfers and barriers: each row of the tables of rsm 6 and 7.

mod support;

use std::time::Duration;

use support::{Pair, page, text};
use windlass_mem::view::{Rights, Spot, View};
use windlass_rsm::{
    BARRIER_NODE_THREAD, BARRIER_SEGMENT, Barrier, Code, Event, MAP_FIXED, MAP_RESERVED, PERM_RDWR,
    PERM_READ, PERM_WRITE,
};

/// Arguments of a map.
#[derive(Clone, Copy)]
struct Map {
    flags: u32,
    /// Bytes behind the start of a free place; `None`: nowhere.
    spot: Option<usize>,
    permission: u32,
    offset: i64,
    len: usize,
}

const PAGES: usize = 4;

impl Map {
    fn right() -> Self {
        Self {
            flags: 0,
            spot: Some(0),
            permission: PERM_READ,
            offset: 0,
            len: 1,
        }
    }

    fn run(self, pair: &Pair) -> Result<usize, Code> {
        let spot = match self.spot {
            Some(skip) => {
                let place = View::new(None, 0, 2 * PAGES * page(), Rights::None, None).unwrap();
                Spot::of(place, skip)
            }
            None => Spot::NOWHERE,
        };
        let Self {
            flags,
            permission,
            offset,
            len,
            ..
        } = self;
        pair.import.map(flags, spot, permission, offset, len)
    }
}

/// What is wrong, which argument it is about, and the answer: rows 5 to 14 of section 6.1 but the state.
type Wrong = (&'static str, &'static str, fn(&mut Map), Code);

fn wrongs() -> Vec<Wrong> {
    vec![
        ("5", "permission", |m| m.permission = 0o601, Code::BadPerms),
        ("6", "flags", |m| m.flags = 4, Code::MapFailed),
        ("7", "len", |m| m.len = 0, Code::BadLength),
        ("8", "offset", |m| m.offset = -1, Code::BadOffset),
        ("9", "len", |m| m.len = PAGES * page() + 1, Code::BadLength),
        ("10", "offset", |m| m.offset = 8, Code::BadMemAlignment),
        (
            "11",
            "flags",
            |m| (m.flags, m.spot) = (MAP_FIXED, Some(8)),
            Code::BadMemAlignment,
        ),
        (
            "12",
            "flags",
            |m| (m.flags, m.spot) = (MAP_FIXED, None),
            Code::BadAddr,
        ),
        (
            "14",
            "permission",
            |m| m.permission = PERM_RDWR,
            Code::BadPerms,
        ),
    ]
}

/// Check 1 of section 9.
#[test]
fn map_answers_each_row_and_of_two_the_first() {
    let pair = Pair::with(PAGES, PERM_READ);
    let wrongs = wrongs();
    for (index, (row, about, spoil, code)) in wrongs.iter().enumerate() {
        let mut map = Map::right();
        spoil(&mut map);
        assert_eq!(map.run(&pair), Err(*code), "row {row}");
        for (other, also, spoil_too, _) in &wrongs[index + 1..] {
            let mut both = map;
            spoil_too(&mut both);
            if about != also {
                assert_eq!(both.run(&pair), Err(*code), "rows {row} and {other}");
            }
        }
        assert!(Map::right().run(&pair).is_ok(), "after row {row}");
        assert_eq!(map.run(&pair), Err(Code::SegAlreadyMapped), "rows 3, {row}");
        pair.import.unmap().unwrap();
    }
    // Row 3 stays first when the exporter goes; row 13 stands between 12 and 14.
    Map::right().run(&pair).unwrap();
    pair.export.unpublish().unwrap();
    assert_eq!(Map::right().run(&pair), Err(Code::SegAlreadyMapped));
    pair.import.unmap().unwrap();
    for (row, _, spoil, code) in &wrongs {
        let mut map = Map::right();
        spoil(&mut map);
        let first = if *row == "14" {
            Code::ConnAborted
        } else {
            *code
        };
        assert_eq!(map.run(&pair), Err(first), "rows {row} and 13");
    }
    assert_eq!(Map::right().run(&pair), Err(Code::ConnAborted));
    pair.import.disconnect().unwrap();
    assert_eq!(Map::right().run(&pair), Err(Code::BadSegHndl));
    assert_eq!(pair.import.unmap(), Err(Code::BadSegHndl));
}

/// Check 3 of section 9.
#[test]
fn no_sum_of_offset_and_length_wraps() {
    let pair = Pair::new(PAGES);
    let p = page() as i64;
    for offset in [
        -1,
        -p,
        i64::MAX,
        i64::MAX - (p - 1),
        i64::MIN,
        PAGES as i64 * p,
    ] {
        for len in [1, usize::MAX, 0_usize.wrapping_sub(page()), PAGES * page()] {
            let map = Map {
                offset,
                len,
                ..Map::right()
            };
            assert_eq!(map.run(&pair), Err(Code::BadOffset), "{offset} {len}");
        }
    }
    for len in [usize::MAX, 0_usize.wrapping_sub(page()), PAGES * page() + 1] {
        for offset in [0, p] {
            let map = Map {
                offset,
                len,
                ..Map::right()
            };
            assert_eq!(map.run(&pair), Err(Code::BadLength), "{offset} {len}");
        }
    }
}

#[test]
fn a_window_is_where_it_was_asked_for_and_shows_its_part() {
    let pair = Pair::new(PAGES);
    pair.bytes.write(page(), b"second page").unwrap();
    let place = View::new(None, 0, 2 * page(), Rights::None, None).unwrap();
    let addr = place.addr();
    let spot = Spot::of(place, 0);
    let flags = MAP_FIXED | MAP_RESERVED;
    let mapped = pair
        .import
        .map(flags, spot, PERM_RDWR, page() as i64, page() + 1);
    assert_eq!(mapped, Ok(addr));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let end = addr + 2 * page();
    let line = format!("{addr:x}-{end:x} rw-s {:08x}", page());
    assert!(maps.contains(&line), "whole pages: {line}\n{maps}");
    pair.import.unmap().unwrap();
    assert_eq!(pair.import.unmap(), Err(Code::SegNotMapped));
}

/// Check 4 of section 9.
#[test]
fn with_a_window_transfers_stay_in_it() {
    let pair = Pair::new(PAGES);
    let _barrier = pair.barrier();
    let (from, len) = (page(), page() + 5);
    pair.bytes.write(from, b"inside").unwrap();
    pair.map(from, len).unwrap();
    let get = |at: usize, len: usize| {
        let mut seen = vec![0; len];
        pair.import.get(at as i64, &mut seen, 1).map(|()| seen)
    };
    assert_eq!(get(from - 1, 1), Err(Code::BadOffset));
    assert_eq!(get(from, 6).unwrap(), b"inside");
    assert_eq!(get(from + len - 1, 1).unwrap(), [0]);
    assert_eq!(get(from + len - 1, 2), Err(Code::BadOffset));
    assert_eq!(get(from + len, 1), Err(Code::BadOffset));
    assert_eq!(get(from + len, 0).unwrap(), []);
    assert_eq!(get(from, len + 1), Err(Code::BadOffset));
    pair.import.unmap().unwrap();
    assert_eq!(get(from - 1, 1).unwrap(), [0]);
    assert_eq!(get(PAGES * page(), 1), Err(Code::BadLength));
    assert_eq!(get(PAGES * page(), 0).unwrap(), []);
    assert_eq!(get(PAGES * page() - 1, 2), Err(Code::BadLength));
}

/// Check 5 of section 9, and the right to write alone.
#[test]
fn a_connection_has_the_rights_it_was_granted() {
    let pair = Pair::with(1, PERM_READ);
    let _barrier = pair.barrier();
    pair.import.get(0, &mut [0; 8], 8).unwrap();
    assert_eq!(pair.import.put(0, &[0; 8], 8), Err(Code::PermDenied));
    pair.import.unmap().unwrap();
    let write = Map {
        permission: PERM_WRITE,
        ..Map::right()
    };
    assert_eq!(write.run(&pair), Err(Code::BadPerms));
    let pair = Pair::with(1, PERM_WRITE);
    let _barrier = pair.barrier();
    pair.import.put(0, b"8 bytes.", 8).unwrap();
    assert_eq!(pair.import.get(0, &mut [0; 8], 8), Err(Code::PermDenied));
    assert_eq!(text(&pair.bytes, 0, 8), b"8 bytes.");
}

#[test]
fn transfers_answer_each_row_in_order() {
    let pair = Pair::with(1, PERM_READ);
    let mut word = [0; 8];
    let put = |offset, len: usize, size| pair.import.put(offset, &vec![0; len], size);
    // Alignment before the right, the right before the range, the range before the barrier.
    assert_eq!(put(4, 8, 8), Err(Code::BadMemAlignment));
    assert_eq!(put(-8, 8, 8), Err(Code::PermDenied));
    assert_eq!(pair.import.get(-8, &mut word, 8), Err(Code::BadOffset));
    let end = page() as i64;
    assert_eq!(pair.import.get(end, &mut word, 8), Err(Code::BadLength));
    let none = Err(Code::BarrierUninitialized);
    assert_eq!(pair.import.get(0, &mut word, 8), none);
    pair.import.set_mode(0).unwrap();
    pair.import.get(0, &mut word, 8).unwrap();
    let refused = pair.import.begin(windlass_rsm::Way::Get, 0, usize::MAX, 8);
    assert_eq!(refused.unwrap_err(), Code::BadLength);
    assert_eq!(Map::right().run(&pair), Err(Code::SegAlreadyMapped));
    pair.import.unmap().unwrap();
    pair.export.unpublish().unwrap();
    assert_eq!(put(-8, 8, 8), Err(Code::ConnAborted), "it cannot be mapped");
    pair.import.disconnect().unwrap();
    assert_eq!(put(0, 8, 8), Err(Code::BadSegHndl));
}

#[test]
fn elements_of_every_size_arrive() {
    let pair = Pair::new(2);
    let _barrier = pair.barrier();
    for size in [1, 2, 4, 8] {
        for count in [0, 1, 3, 64] {
            let sent: Vec<u8> = (0..count * size).map(|i| (i * 7 + size) as u8).collect();
            let offset = page() - 8 * size;
            pair.import.put(offset as i64, &sent, size).unwrap();
            assert_eq!(text(&pair.bytes, offset, sent.len()), sent);
            let mut seen = vec![0; sent.len()];
            pair.import.get(offset as i64, &mut seen, size).unwrap();
            assert_eq!(seen, sent);
        }
    }
}

#[test]
fn barriers_answer_each_row() {
    let pair = Pair::new(1);
    for kind in [0, 3, 0x10, 0x21] {
        let refused = Barrier::init(&pair.import, kind).unwrap_err();
        assert_eq!(refused, Code::BadBarrierPtr, "{kind:#x}");
    }
    let barrier = Barrier::init(&pair.import, BARRIER_NODE_THREAD).unwrap();
    assert_eq!(barrier.order(), Err(Code::BarrierNotOpened));
    assert_eq!(barrier.close(), Err(Code::BarrierNotOpened));
    barrier.open().unwrap();
    barrier.open().unwrap();
    barrier.order().unwrap();
    barrier.close().unwrap();
    assert_eq!(barrier.close(), Err(Code::BarrierNotOpened));
    // The one that was initialised last serves; without it there is none.
    let last = Barrier::init(&pair.import, BARRIER_SEGMENT).unwrap();
    pair.import.get(0, &mut [0; 8], 8).unwrap();
    last.destroy();
    let none = Err(Code::BarrierUninitialized);
    assert_eq!(pair.import.get(0, &mut [0; 8], 8), none);
    assert_eq!(pair.import.mode(), 1);
    assert_eq!(pair.import.set_mode(2), Err(Code::BadMode));
    pair.import.set_mode(0).unwrap();
    assert_eq!(pair.import.mode(), 0);
    // A failed close ends the span; the state is final.
    barrier.open().unwrap();
    pair.export.unpublish().unwrap();
    assert_eq!(barrier.close(), Err(Code::ConnAborted));
    assert_eq!(barrier.close(), Err(Code::BarrierNotOpened));
    barrier.open().unwrap();
    barrier.order().unwrap();
    assert_eq!(barrier.close(), Err(Code::ConnAborted));
    pair.import.unmap().unwrap();
    pair.import.disconnect().unwrap();
    assert_eq!(barrier.open(), Err(Code::BadSegHndl));
    let refused = Barrier::init(&pair.import, BARRIER_SEGMENT).unwrap_err();
    assert_eq!(refused, Code::BadSegHndl);
}

#[test]
fn signals_are_counted_and_end_with_the_segment() {
    let pair = Pair::new(1);
    let none = Some(Duration::ZERO);
    assert_eq!(pair.export.wait(none), Err(Code::Timeout));
    let soon = Some(Duration::from_millis(5));
    assert_eq!(pair.import.wait(soon), Err(Code::Timeout));
    for once in [false, false, true] {
        pair.import.post(once).unwrap();
    }
    pair.export.wait(none).unwrap();
    pair.export.wait(None).unwrap();
    assert_eq!(pair.export.wait(none), Err(Code::Timeout));
    pair.import.post(true).unwrap();
    pair.export.wait(none).unwrap();
    pair.export.post(false).unwrap();
    pair.export.post(true).unwrap();
    assert_eq!(pair.import.signals().take(), Event::Taken);
    assert_eq!(pair.import.signals().take(), Event::None);
    pair.export.post(false).unwrap();
    pair.exporter.0.die();
    assert_eq!(pair.import.wait(None), Ok(()), "what came before");
    assert_eq!(pair.import.wait(None), Err(Code::ConnAborted));
    assert_eq!(pair.import.post(false), Err(Code::ConnAborted));
    assert_eq!(pair.export.post(false), Err(Code::RemoteNodeUnreachable));
    let lone = Pair::new(1);
    lone.import.disconnect().unwrap();
    lone.export.post(false).unwrap();
    assert_eq!(lone.import.post(false), Err(Code::BadSegHndl));
}
