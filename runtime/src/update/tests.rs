//! Every type and operator against naive arithmetic, atomicity between threads, refusals.

use std::sync::Arc;

use proptest::prelude::*;
use windlass_node::control::Control;

use super::*;
use crate::guard::Keeper;
use crate::progress::Health;

/// A part's guard, without a job around it.
fn keeper() -> (Keeper, Control, Arc<Health>) {
    let (control, _file) = Control::create(1, 1).expect("a control segment");
    let health = Arc::new(Health::default());
    let keeper = Keeper::new(control.clone(), Arc::clone(&health), 0);
    (keeper, control, health)
}

/// The context whose guard the tests take.
const CONTEXT: u32 = 2;

fn memory(len: usize) -> SharedBytes {
    let bytes = windlass_mem::lend(vec![0u64; len.div_ceil(8)]).0;
    bytes.slice(0, len).expect("it is as long")
}

fn contents(bytes: &SharedBytes) -> Vec<u8> {
    let mut all = vec![0; bytes.len()];
    bytes.read(0, &mut all).expect("all of it");
    all
}

/// A signed or unsigned number of any size, in bytes.
fn whole(kind: Kind, bytes: &[u8]) -> i128 {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    let value = i128::from_le_bytes(wide);
    let bits = 8 * bytes.len() as u32;
    let signed = matches!(kind, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64);
    if signed && value >> (bits - 1) == 1 {
        value - (1 << bits)
    } else {
        value
    }
}

fn f32_of(bytes: &[u8]) -> f64 {
    f32::from_ne_bytes(bytes[..4].try_into().expect("4 bytes")).into()
}

fn f64_of(bytes: &[u8]) -> f64 {
    f64::from_ne_bytes(bytes[..8].try_into().expect("8 bytes"))
}

fn i32_of(bytes: &[u8]) -> f64 {
    i32::from_ne_bytes(bytes[..4].try_into().expect("4 bytes")).into()
}

/// The smaller of two floats by the rules of [`UpdateOp::Min`]: true for `t`.
fn keeps_min(t: f64, o: f64) -> bool {
    if t.is_nan() || o.is_nan() {
        return t.is_nan();
    }
    t < o || (t == o && (t.is_sign_negative() || o.is_sign_positive()))
}

fn keeps_max(t: f64, o: f64) -> bool {
    if t.is_nan() || o.is_nan() {
        return t.is_nan();
    }
    t > o || (t == o && (t.is_sign_positive() || o.is_sign_negative()))
}

/// An x87 number as a ratio of exact parts: sign, exponent and significand, or a NaN. Compared by
/// shifting both to the same exponent, which the implementation does not.
fn compare_extended(t: &[u8], o: &[u8]) -> Option<std::cmp::Ordering> {
    let parts = |bytes: &[u8]| {
        let significand = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        let top = u16::from_le_bytes(bytes[8..10].try_into().expect("2 bytes"));
        let (negative, exponent) = (top >> 15 == 1, top & 0x7fff);
        let integer = significand >> 63 == 1;
        let refused = (exponent == 0x7fff && significand != 1 << 63) || (exponent > 0 && !integer);
        (!refused).then_some((negative, exponent.max(1), significand))
    };
    let (t, o) = (parts(t)?, parts(o)?);
    // Magnitudes as decimal-free big numbers: only their order matters, and a difference of 64 in
    // the exponent decides between normal numbers.
    let order = |a: (bool, u16, u64), b: (bool, u16, u64)| {
        let (low, high) = (a.1.min(b.1), a.1.max(b.1));
        if high - low >= 64 && a.2 != 0 && b.2 != 0 {
            return a.1.cmp(&b.1);
        }
        let shifted = |x: (bool, u16, u64)| match x.2 {
            0 => 0,
            s => u128::from(s) << (x.1 - low).min(64),
        };
        shifted(a).cmp(&shifted(b))
    };
    Some(match (t.0 && t.2 != 0, o.0 && o.2 != 0) {
        (false, false) => order(t, o),
        (true, true) => order(o, t),
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
    })
}

/// Which of two pairs stays: `t`?
fn keeps_pair(kind: Kind, op: UpdateOp, t: &[u8], o: &[u8]) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let value = |bytes: &[u8]| match kind {
        Kind::FloatInt | Kind::TwoReal => f32_of(bytes),
        Kind::TwoInt => i32_of(bytes),
        Kind::ShortInt => i16::from_ne_bytes(bytes[..2].try_into().expect("2 bytes")).into(),
        _ => f64_of(bytes),
    };
    let is_nan = |bytes: &[u8]| match kind {
        Kind::LongInt => false,
        Kind::LongDoubleInt => compare_extended(bytes, bytes).is_none(),
        _ => value(bytes).is_nan(),
    };
    let order = match kind {
        Kind::LongInt => Some(whole(Kind::I64, &t[..8]).cmp(&whole(Kind::I64, &o[..8]))),
        Kind::LongDoubleInt => compare_extended(t, o),
        _ => value(t).partial_cmp(&value(o)),
    };
    let index = |bytes: &[u8]| match kind {
        Kind::TwoReal => f32_of(&bytes[4..]),
        Kind::TwoDouble => f64_of(&bytes[8..]),
        Kind::LongDoubleInt => i32_of(&bytes[16..]),
        Kind::DoubleInt | Kind::LongInt => i32_of(&bytes[8..]),
        _ => i32_of(&bytes[4..]),
    };
    // A NaN index is no lower one.
    let stays_in_tie = index(o).partial_cmp(&index(t)) != Some(Less);
    match (is_nan(t), is_nan(o), order, op) {
        (true, true, ..) | (_, _, Some(Equal), _) => stays_in_tie,
        (nan, other, ..) if nan != other => nan,
        (_, _, order, UpdateOp::MinLoc) => order == Some(Less),
        (_, _, order, _) => order == Some(Greater),
    }
}

/// `t op o` by naive arithmetic of wide numbers; `None` where mpi-rma 3 has no such pair.
fn naive(kind: Kind, op: UpdateOp, t: &[u8], o: &[u8]) -> Option<Vec<u8>> {
    use UpdateOp as Op;
    let choose = |keep: bool| Some(if keep { t.to_vec() } else { o.to_vec() });
    match (op, kind) {
        (Op::NoOp, _) => return choose(true),
        (Op::Replace, _) => return choose(false),
        _ => {}
    }
    let cut = |value: i128| Some(value.to_le_bytes()[..t.len()].to_vec());
    let truth = |t: bool, o: bool| match op {
        Op::Land => Some(t && o),
        Op::Lor => Some(t || o),
        Op::Lxor => Some(t != o),
        _ => None,
    };
    let bits = |t: i128, o: i128| match op {
        Op::Band => Some(t & o),
        Op::Bor => Some(t | o),
        Op::Bxor => Some(t ^ o),
        _ => None,
    };
    let (a, b) = (t, o);
    match kind {
        Kind::Byte => cut(bits(whole(kind, a), whole(kind, b))?),
        Kind::Logical8 | Kind::Logical32 | Kind::Logical64 => {
            let any = |bytes: &[u8]| bytes.iter().any(|&byte| byte != 0);
            cut(truth(any(a), any(b))?.into())
        }
        Kind::F32 | Kind::F64 => {
            let of = |bytes: &[u8]| {
                if kind == Kind::F32 {
                    f32_of(bytes)
                } else {
                    f64_of(bytes)
                }
            };
            // Sums and products of two f32 are exact enough in f64 to round once to the same f32.
            let put = |value: f64| match kind {
                Kind::F32 => (value as f32).to_ne_bytes().to_vec(),
                _ => value.to_ne_bytes().to_vec(),
            };
            match op {
                Op::Sum => Some(put(of(a) + of(b))),
                Op::Prod => Some(put(of(a) * of(b))),
                Op::Min => choose(keeps_min(of(a), of(b))),
                Op::Max => choose(keeps_max(of(a), of(b))),
                _ => None,
            }
        }
        Kind::ComplexF32 => {
            let parts = |x: &[u8]| (f32_of(x) as f32, f32_of(&x[4..]) as f32);
            let ((ar, ai), (br, bi)) = (parts(a), parts(b));
            let (re, im) = match op {
                Op::Sum => (ar + br, ai + bi),
                Op::Prod => (ar * br - ai * bi, ar * bi + ai * br),
                _ => return None,
            };
            Some([re.to_ne_bytes(), im.to_ne_bytes()].concat())
        }
        Kind::ComplexF64 => {
            let parts = |x: &[u8]| (f64_of(x), f64_of(&x[8..]));
            let ((ar, ai), (br, bi)) = (parts(a), parts(b));
            let (re, im) = match op {
                Op::Sum => (ar + br, ai + bi),
                Op::Prod => (ar * br - ai * bi, ar * bi + ai * br),
                _ => return None,
            };
            Some([re.to_ne_bytes(), im.to_ne_bytes()].concat())
        }
        _ if matches!(kind.class(), Class::Pair) => match op {
            Op::MinLoc | Op::MaxLoc => choose(keeps_pair(kind, op, a, b)),
            _ => None,
        },
        _ => {
            let (t, o) = (whole(kind, a), whole(kind, b));
            match op {
                Op::Sum => cut(t + o),
                Op::Prod => cut(t.wrapping_mul(o)),
                Op::Min => choose(t <= o),
                Op::Max => choose(t >= o),
                _ => match truth(t != 0, o != 0) {
                    Some(truth) => cut(truth.into()),
                    None => cut(bits(t, o)?),
                },
            }
        }
    }
}

/// Are the values in two elements the same, with all NaNs of a sum alike?
fn same_value(kind: Kind, a: &[u8], b: &[u8]) -> bool {
    let floats = |of: fn(&[u8]) -> f64, size: usize| {
        a.chunks(size)
            .zip(b.chunks(size))
            .all(|(a, b)| a == b || (of(a).is_nan() && of(b).is_nan()))
    };
    match kind {
        Kind::F32 | Kind::ComplexF32 => floats(f32_of, 4),
        Kind::F64 | Kind::ComplexF64 => floats(f64_of, 8),
        _ => kind
            .parts()
            .iter()
            .all(|&(start, len)| a[start..start + len] == b[start..start + len]),
    }
}

/// Values where arithmetic goes wrong, as the bytes of one number of `size` bytes.
fn extremes(float: bool, size: usize) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = match (float, size) {
        (true, 4) => [
            0.0,
            -0.0,
            1.5,
            -3.25,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            f32::NAN,
        ]
        .map(|v| v.to_ne_bytes().to_vec())
        .to_vec(),
        (true, 8) => [
            0.0,
            -0.0,
            1.5,
            -3.25,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            f64::NAN,
        ]
        .map(|v| v.to_ne_bytes().to_vec())
        .to_vec(),
        (true, _) => {
            let number = |top: u16, significand: u64| {
                [&significand.to_le_bytes()[..], &top.to_le_bytes()].concat()
            };
            let one = 1u64 << 63;
            vec![
                number(0, 0),
                number(0x8000, 0),
                number(0x3fff, one),
                number(0xbfff, one | 1),
                number(0x4000, one),
                number(0x3fff, u64::MAX),
                // Subnormals, and the pseudo-subnormal that equals the smallest normal number.
                number(0, 1),
                number(0x8000, one - 1),
                number(0, one),
                number(1, one),
                // Infinities, NaNs, an unnormal.
                number(0x7fff, one),
                number(0xffff, one),
                number(0x7fff, one | 1 << 62),
                number(0x3fff, 1),
            ]
        }
        _ => [0, 1, 2, -1, -2, 3 << 30, i128::MAX, 1 << (8 * size - 1)]
            .map(|v: i128| v.to_le_bytes()[..size].to_vec())
            .to_vec(),
    };
    all.push(vec![0x7f; size]);
    all.push(vec![0xa5; size]);
    all
}

/// Such elements of a kind; padding is filled with a pattern.
fn elements(kind: Kind) -> Vec<Vec<u8>> {
    let pair = |value: Vec<Vec<u8>>, index: Vec<Vec<u8>>, at: usize| {
        let mut all = Vec::new();
        for value in &value {
            for index in index.iter().take(4) {
                let mut element = vec![0xee; kind.size()];
                element[..value.len()].copy_from_slice(value);
                element[at..at + index.len()].copy_from_slice(index);
                all.push(element);
            }
        }
        all
    };
    let (float, whole) = (|size| extremes(true, size), |size| extremes(false, size));
    match kind {
        Kind::F32 | Kind::F64 => float(kind.size()),
        Kind::ComplexF32 => pair(float(4), float(4), 4),
        Kind::ComplexF64 => pair(float(8), float(8), 8),
        Kind::FloatInt => pair(float(4), whole(4), 4),
        Kind::DoubleInt => pair(float(8), whole(4), 8),
        Kind::LongInt => pair(whole(8), whole(4), 8),
        Kind::TwoInt => pair(whole(4), whole(4), 4),
        Kind::ShortInt => pair(whole(2), whole(4), 4),
        Kind::LongDoubleInt => pair(float(10), whole(4), 16),
        Kind::TwoReal => pair(float(4), float(4), 4),
        Kind::TwoDouble => pair(float(8), float(8), 8),
        _ => whole(kind.size()),
    }
}

/// One update of one element at `at` of a memory full of `0x5a`, in all ways there are, compared
/// with naive arithmetic. Nothing but the value changes, nothing but the value is fetched.
fn check_one(kind: Kind, op: UpdateOp, at: usize, t: &[u8], o: &[u8], guard: Guard<'_>) {
    let size = kind.size();
    let bytes = memory(128);
    let context = || format!("{kind} {op:?} at {at}: {t:x?} with {o:x?}");
    let reset = || {
        bytes.fill(0, bytes.len(), 0x5a).unwrap();
        bytes.write(at, t).unwrap();
        contents(&bytes)
    };
    let before = reset();
    let operand = if matches!(op, UpdateOp::NoOp) { &[] } else { o };
    let mut fetched = vec![0xcc; size];
    let wanted = naive(kind, op, t, o);
    assert_eq!(wanted.is_some(), kind.takes(op), "{}", context());
    let unit = Unit::Guard(guard);
    let done = apply(&bytes, at, kind, op, operand, Some(&mut fetched), unit);
    let Some(wanted) = wanted else {
        assert!(
            matches!(done, Err(Refused::Operator { .. })),
            "{}",
            context()
        );
        assert_eq!(contents(&bytes), before, "{}", context());
        let out = Some(&mut fetched[..]);
        assert!(!quick(&bytes, at, kind, op, operand, out), "{}", context());
        assert_eq!(contents(&bytes), before, "{}", context());
        return;
    };
    done.expect("a legal update");
    // Beside the value everything is as it was.
    let check = |ways: &str| {
        let after = contents(&bytes);
        let mut rest = after.clone();
        kind.deliver(t, &mut rest[at..at + size]);
        assert_eq!(rest, before, "{ways}: {}", context());
        let new = &after[at..at + size];
        assert!(
            same_value(kind, new, &wanted),
            "{ways}: {}: {new:x?} and not {wanted:x?}",
            context()
        );
    };
    check("apply with fetch");
    let mut old = vec![0xcc; size];
    kind.deliver(t, &mut old);
    assert_eq!(fetched, old, "the old value and no padding: {}", context());
    reset();
    if !matches!(op, UpdateOp::NoOp) {
        apply(&bytes, at, kind, op, operand, None, unit).expect("a legal update");
        check("apply");
    }
    reset();
    let mut fetched = vec![0xcc; size];
    if quick(&bytes, at, kind, op, operand, Some(&mut fetched)) {
        check("quick");
        assert_eq!(fetched, old, "quick: {}", context());
        assert!(!is_wide(kind, (bytes.addr() + at) as u64));
    }
}

#[test]
fn every_type_and_operator_does_what_naive_arithmetic_does() {
    let (keeper, ..) = keeper();
    let guard = keeper.guard(CONTEXT).expect("a context of windows");
    for kind in Kind::ALL {
        let elements = elements(kind);
        for op in UpdateOp::ALL {
            // Aligned, and as lent memory may be.
            for at in [32, 33] {
                let few = if kind.takes(op) { elements.len() } else { 2 };
                for t in &elements[..few] {
                    for o in &elements[..few] {
                        check_one(kind, op, at, t, o, guard);
                    }
                }
            }
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

fn operators() -> impl Strategy<Value = UpdateOp> {
    prop::sample::select(UpdateOp::ALL.to_vec())
}

proptest! {
    #[test]
    fn any_bytes_do_what_naive_arithmetic_does(
        kind in kinds(),
        op in operators(),
        at in 0usize..64,
        t in prop::collection::vec(any::<u8>(), 32),
        o in prop::collection::vec(any::<u8>(), 32),
    ) {
        let (keeper, ..) = keeper();
        let guard = keeper.guard(CONTEXT).expect("a context of windows");
        let size = kind.size();
        check_one(kind, op, at, &t[..size], &o[..size], guard);
    }

    /// Many elements are as many single ones, and lengths that do not agree change nothing.
    #[test]
    fn arrays_are_elements_in_a_row(
        kind in kinds(),
        op in operators(),
        at in 0usize..40,
        count in 0usize..400,
        cut in 0usize..3,
        seed in any::<u64>(),
    ) {
        let (keeper, ..) = keeper();
        let guard = keeper.guard(CONTEXT).expect("a context of windows");
        let size = kind.size();
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        let len = count * size;
        let start: Vec<u8> = (0..len + 80).map(|_| random()).collect();
        let operand: Vec<u8> = (0..len).map(|_| random()).collect();
        let bytes = memory(start.len());
        bytes.write(0, &start).unwrap();
        let mut fetched = vec![0; len - cut.min(len)];
        let reads = matches!(op, UpdateOp::NoOp);
        let unit = Unit::Guard(guard);
        let done = apply(&bytes, at, kind, op, &operand, Some(&mut fetched), unit);
        let agree = fetched.len() == len || (reads && fetched.len() % size == 0);
        prop_assert_eq!(done.is_ok(), agree && kind.takes(op));
        if done.is_err() {
            prop_assert_eq!(contents(&bytes), start);
            return Ok(());
        }
        let after = contents(&bytes);
        let mut rest = after.clone();
        for (element, o) in operand.chunks(size).enumerate() {
            let here = at + element * size..at + (element + 1) * size;
            let t = &start[here.clone()];
            if element * size < fetched.len() {
                let mut old = vec![0; size];
                kind.deliver(t, &mut old);
                prop_assert_eq!(&fetched[element * size..(element + 1) * size], &old[..]);
            }
            let wanted = naive(kind, op, t, o).expect("a legal pair");
            prop_assert!(same_value(kind, &after[here.clone()], &wanted));
            kind.deliver(t, &mut rest[here]);
        }
        prop_assert_eq!(rest, start);
    }
}

/// Threads of one test, and updates of each.
const THREADS: u64 = 4;
const TURNS: u64 = if cfg!(miri) { 20 } else { 4000 };

/// Runs `body(thread, unit)` in as many threads; every other one as the helper does, which takes the
/// guard itself.
fn hammer(body: impl Fn(u64, &dyn Fn(&mut dyn FnMut(Unit<'_>))) + Sync) {
    let (keeper, ..) = keeper();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (keeper, body) = (&keeper, &body);
            scope.spawn(move || {
                let guard = keeper.guard(CONTEXT).expect("a context of windows");
                body(thread, &|update| {
                    if thread % 2 == 0 {
                        update(Unit::Guard(guard));
                    } else {
                        let held = guard.hold().expect("the job lives");
                        update(Unit::Held(&held));
                    }
                });
            });
        }
    });
}

/// Elements are swapped for others by all threads at once: what was there, and what was put there,
/// is fetched exactly once or is still there. A torn element would be one that nobody put.
#[test]
fn nothing_is_lost_or_torn_between_threads() {
    for kind in Kind::ALL {
        for at in [64, 65] {
            let size = kind.size();
            let bytes = memory(256);
            let value = |number: u64| {
                let mut element = vec![0; size];
                for (place, byte) in element.iter_mut().enumerate() {
                    *byte = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (place % 8 * 8)) as u8;
                }
                let mut clean = vec![0; size];
                kind.deliver(&element, &mut clean);
                clean
            };
            let seen = parking_lot::Mutex::new(Vec::new());
            hammer(|thread, with_unit| {
                let mut mine = Vec::new();
                for turn in 0..TURNS {
                    let new = value(1 + turn * THREADS + thread);
                    let mut old = vec![0; size];
                    let out = Some(&mut old[..]);
                    if turn % 2 == 1 || !quick(&bytes, at, kind, UpdateOp::Replace, &new, out) {
                        with_unit(&mut |unit| {
                            let out = Some(&mut old[..]);
                            apply(&bytes, at, kind, UpdateOp::Replace, &new, out, unit)
                                .expect("a legal update");
                        });
                    }
                    mine.push(old);
                }
                seen.lock().append(&mut mine);
            });
            let mut seen = seen.into_inner();
            let mut last = vec![0; size];
            kind.deliver(&contents(&bytes)[at..at + size], &mut last);
            seen.push(last);
            let mut put: Vec<Vec<u8>> = (0..=TURNS * THREADS)
                .map(|number| {
                    if number == 0 {
                        vec![0; size]
                    } else {
                        value(number)
                    }
                })
                .collect();
            seen.sort();
            put.sort();
            assert!(seen == put, "{kind} at {at}: an element was lost or torn");
        }
    }
}

/// Sums, products with -1, truth values, bits and pairs by all threads at once have the result
/// that they have one after the other.
#[test]
fn commutative_updates_of_many_threads_add_up() {
    for kind in Kind::ALL {
        for at in [64, 65] {
            let size = kind.size();
            let bytes = memory(256);
            // Operator, the operand of a number, the final element.
            let of = |number: u64| {
                let mut element = vec![0; size];
                let value = match kind {
                    Kind::F32 | Kind::ComplexF32 => 1f32.to_ne_bytes().to_vec(),
                    Kind::F64 | Kind::ComplexF64 => 1f64.to_ne_bytes().to_vec(),
                    Kind::FloatInt | Kind::TwoReal => (number as f32).to_ne_bytes().to_vec(),
                    Kind::DoubleInt | Kind::TwoDouble => (number as f64).to_ne_bytes().to_vec(),
                    Kind::LongInt => (number as i64).to_ne_bytes().to_vec(),
                    Kind::TwoInt => (number as i32).to_ne_bytes().to_vec(),
                    Kind::ShortInt => (number as i16).to_ne_bytes().to_vec(),
                    Kind::LongDoubleInt => match number {
                        0 => vec![0; 10],
                        n => {
                            let zeros = n.leading_zeros();
                            let top = 0x3fff + 63 - zeros as u16;
                            [&(n << zeros).to_ne_bytes()[..], &top.to_ne_bytes()].concat()
                        }
                    },
                    _ => 1u64.to_le_bytes()[..size].to_vec(),
                };
                element[..value.len()].copy_from_slice(&value);
                element
            };
            let op = match kind.class() {
                Class::Integer | Class::Float | Class::Complex => UpdateOp::Sum,
                Class::Logical => UpdateOp::Lxor,
                Class::Byte => UpdateOp::Bxor,
                Class::Pair => UpdateOp::MaxLoc,
            };
            hammer(|thread, with_unit| {
                // An odd number of updates in total, so that a lost truth value shows.
                let turns = TURNS + u64::from(thread == 0);
                for turn in 0..turns {
                    let o = of(turn * THREADS + thread);
                    if turn % 2 == 1 || !quick(&bytes, at, kind, op, &o, None) {
                        with_unit(&mut |unit| {
                            apply(&bytes, at, kind, op, &o, None, unit).expect("legal");
                        });
                    }
                }
            });
            let all = TURNS * THREADS + 1;
            let mut wanted = of(TURNS * THREADS);
            let sum = match kind.class() {
                Class::Integer => all.to_le_bytes()[..size].to_vec(),
                Class::Float | Class::Complex if matches!(size, 4 | 8) && kind != Kind::F64 => {
                    (all as f32).to_ne_bytes().to_vec()
                }
                Class::Float | Class::Complex => (all as f64).to_ne_bytes().to_vec(),
                Class::Logical | Class::Byte => vec![(all % 2) as u8],
                Class::Pair => Vec::new(),
            };
            wanted[..sum.len()].copy_from_slice(&sum);
            let after = contents(&bytes);
            assert_eq!(&after[at..at + size], wanted, "{kind} {op:?} at {at}");
            assert!(
                after[..at]
                    .iter()
                    .chain(&after[at + size..])
                    .all(|&b| b == 0)
            );
        }
    }
}

/// A counter raised by compare-and-swap alone.
#[test]
fn swaps_lose_nothing_between_threads() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_comparable()) {
        for at in [64, 65] {
            let size = kind.size();
            let bytes = memory(256);
            hammer(|_, with_unit| {
                let mut seen = vec![0; size];
                let mut wins = 0;
                while wins < TURNS / 4 {
                    let next = (whole(Kind::U64, &seen) + 1).to_le_bytes();
                    let (compare, new) = (seen.clone(), &next[..size]);
                    if wins % 2 == 1 || !quick_swap(&bytes, at, kind, &compare, new, &mut seen) {
                        with_unit(&mut |unit| {
                            compare_swap(&bytes, at, kind, &compare, new, &mut seen, unit)
                                .expect("legal");
                        });
                    }
                    if seen == compare {
                        wins += 1;
                        seen.copy_from_slice(new);
                    }
                }
            });
            let all = (TURNS / 4 * THREADS).to_le_bytes();
            let after = contents(&bytes);
            assert_eq!(&after[at..at + size], &all[..size], "{kind} at {at}");
        }
    }
}

#[test]
fn compare_swap_swaps_only_equals_and_refuses_floats_and_pairs() {
    let (keeper, ..) = keeper();
    let unit = Unit::Guard(keeper.guard(CONTEXT).expect("a context of windows"));
    for kind in Kind::ALL {
        let size = kind.size();
        for at in [64, 67] {
            let bytes = memory(256);
            let (zeros, ones, twos) = (vec![0; size], vec![1; size], vec![2; size]);
            let mut old = vec![9; size];
            let swapped = compare_swap(&bytes, at, kind, &zeros, &ones, &mut old, unit);
            if !kind.is_comparable() {
                assert!(matches!(swapped, Err(Refused::Comparison(_))), "{kind}");
                assert!(!quick_swap(&bytes, at, kind, &zeros, &ones, &mut old));
                assert!(contents(&bytes).iter().all(|&byte| byte == 0));
                continue;
            }
            swapped.expect("legal");
            assert_eq!(old, zeros);
            compare_swap(&bytes, at, kind, &zeros, &twos, &mut old, unit).expect("legal");
            assert_eq!(old, ones, "the old value, whether equal or not");
            assert_eq!(contents(&bytes)[at..at + size], ones);
            let short = compare_swap(&bytes, at, kind, &[], &ones, &mut old, unit);
            assert!(matches!(short, Err(Refused::Length { .. })), "{kind}");
            let outside = compare_swap(&bytes, 256, kind, &ones, &twos, &mut old, unit);
            assert!(matches!(outside, Err(Refused::Memory(_))), "{kind}");
        }
    }
}

#[test]
fn a_refused_update_changes_nothing() {
    let (keeper, ..) = keeper();
    let unit = Unit::Guard(keeper.guard(CONTEXT).expect("a context of windows"));
    let bytes = memory(64);
    bytes.fill(0, 64, 3).unwrap();
    let ones = [1u8; 96];
    for (offset, len) in [
        (0, 96),
        (64, 8),
        (60, 8),
        (usize::MAX - 3, 4),
        (0, 12),
        (8, 63),
    ] {
        for kind in [Kind::U64, Kind::F64, Kind::ComplexF64, Kind::LongDoubleInt] {
            for op in [UpdateOp::Sum, UpdateOp::Replace, UpdateOp::MaxLoc] {
                let done = apply(&bytes, offset, kind, op, &ones[..len], None, unit);
                assert!(done.is_err(), "{kind} {op:?} {offset} {len}");
                assert!(!quick(&bytes, offset, kind, op, &ones[..len], None));
            }
        }
    }
    assert!(contents(&bytes).iter().all(|&byte| byte == 3));
    // Nothing at all is an update too, at the very end as well, and needs no guard.
    apply(&bytes, 64, Kind::U64, UpdateOp::Sum, &[], None, Unit::Cpu).unwrap();
    apply(
        &bytes,
        0,
        Kind::TwoDouble,
        UpdateOp::NoOp,
        &[],
        Some(&mut []),
        Unit::Cpu,
    )
    .unwrap();
}

#[test]
fn wide_elements_are_refused_without_a_guard_and_when_the_job_is_lost() {
    let bytes = memory(64);
    let one = 1u64.to_ne_bytes();
    let done = apply(&bytes, 1, Kind::U64, UpdateOp::Sum, &one, None, Unit::Cpu);
    assert!(matches!(done, Err(Refused::Unguarded(Kind::U64))));
    let mut old = [0; 8];
    let done = compare_swap(&bytes, 1, Kind::U64, &[0; 8], &one, &mut old, Unit::Cpu);
    assert!(matches!(done, Err(Refused::Unguarded(Kind::U64))));

    let (keeper, _control, health) = keeper();
    let guard = keeper.guard(CONTEXT).expect("a context of windows");
    let dead = guard.hold().expect("it is free");
    let waits = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let unit = Unit::Guard(guard);
            apply(&bytes, 1, Kind::U64, UpdateOp::Sum, &one, None, unit)
        });
        health.lose("a rank died");
        waiter.join().expect("it does not panic")
    });
    assert!(matches!(waits, Err(Refused::Lost(_))), "{waits:?}");
    assert!(contents(&bytes).iter().all(|&byte| byte == 0));
    drop(dead);
    assert!(keeper.guard(0).is_none() && keeper.guard(u32::MAX).is_none());
}
