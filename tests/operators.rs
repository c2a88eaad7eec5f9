//! The accumulate family whole (mpi-rma 3): every predefined type with every operator it takes, on
//! every kind of route at once, also where no CPU instruction changes an element in one piece; and
//! the order of one origin's updates.

mod support;

use std::fmt::Debug;
use std::time::Duration;

use support::{Done, Spec};
use windlass::{
    Address, Comparable, Complex, DoubleInt, FloatInt, Logical, LongInt, Op, Rank, Reducible,
    ShortInt, TwoInt, World,
};

/// Ranks on a VE, another VE, the host, and all that again on another node.
fn mixed(test: &'static str) -> Spec {
    Spec::new(test)
        .nodes(2)
        .ves(2)
        .place("ve0:1,ve1:1,vh:1")
        .limit(Duration::from_secs(240))
}

/// Updates of each rank per target, element and operator.
const TURNS: u32 = 9;

/// What all ranks do to one element: its operands commute, so the result is that of any order.
struct Case<T> {
    op: Op,
    start: T,
    /// The operand of a number; all numbers of the job differ.
    operand: fn(u32) -> T,
    /// The operator in the test's own words.
    serial: fn(T, T) -> T,
}

/// Numbers without an order to see, the same in every process.
fn scattered(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995
}

/// Runs all cases of a type at once, with every call of the family.
fn run<T: Reducible + PartialEq + Debug>(world: &World, cases: &[Case<T>]) -> Done {
    // Elements between them are nobody's.
    let len = 2 * cases.len() + 1;
    let mut window = world.allocate::<T>(len)?;
    let mut mine = window.lock_local()?;
    for (at, case) in cases.iter().enumerate() {
        mine[2 * at + 1] = case.start;
    }
    mine.end()?;
    world.barrier()?;
    let epoch = window.lock_all()?;
    for turn in 0..TURNS {
        for target in world.ranks() {
            for (at, case) in cases.iter().enumerate() {
                let operand = (case.operand)(turn * world.size() + world.rank().0);
                let disp = 2 * at + 1;
                let reads = case.op == Op::NoOp;
                match turn % 3 {
                    0 if !reads => epoch.accumulate(&[operand], target, disp, case.op)?,
                    1 => {
                        let mut old = [T::zeroed()];
                        epoch.get_accumulate(&[operand], &mut old, target, disp, case.op)?;
                    }
                    _ => {
                        epoch.fetch_and_op(operand, target, disp, case.op)?;
                    }
                }
            }
        }
    }
    epoch.end()?;
    world.barrier()?;
    let mine = window.lock_local()?;
    for (at, case) in cases.iter().enumerate() {
        let operands = (0..TURNS * world.size()).map(case.operand);
        let wanted = operands.fold(case.start, case.serial);
        let (op, found) = (case.op, mine[2 * at + 1]);
        let name = std::any::type_name::<T>();
        assert_eq!(found, wanted, "{op:?} of {name}");
        assert_eq!(mine[2 * at], T::zeroed(), "beside {op:?} of {name}");
    }
    mine.end()?;
    window.free()?;
    Ok(())
}

macro_rules! case {
    ($op:ident, $start:expr, $operand:expr, $serial:expr) => {
        Case {
            op: Op::$op,
            start: $start,
            operand: $operand,
            serial: $serial,
        }
    };
}

/// The operators of every type.
fn anything<T: Reducible>(one: T) -> [Case<T>; 1] {
    [Case {
        op: Op::NoOp,
        start: one,
        operand: |_| T::zeroed(),
        serial: |t, _| t,
    }]
}

/// One false among many true operands, or the reverse.
fn mostly(number: u32) -> bool {
    number != 31
}

macro_rules! integers {
    ($world:expr, $($type:ident),+) => {$({
        let mut cases = vec![
            case!(Sum, 7, |n| scattered(n) as $type, |t, o| t.wrapping_add(o)),
            case!(Prod, 3, |n| (scattered(n) | 1) as $type, |t, o| t.wrapping_mul(o)),
            case!(Min, $type::MAX, |n| scattered(n) as $type, |t, o| if o < t { o } else { t }),
            case!(Max, $type::MIN, |n| scattered(n) as $type, |t, o| if o > t { o } else { t }),
            case!(Land, 5, |n| $type::from(mostly(n)) * 9, |t, o| $type::from(t != 0 && o != 0)),
            case!(Lor, 0, |n| $type::from(!mostly(n)) * 9, |t, o| $type::from(t != 0 || o != 0)),
            case!(Lxor, 6, |n| (n % 3) as $type, |t, o| $type::from((t != 0) != (o != 0))),
            case!(Band, !0, |n| !(1 << (n % 5)), |t, o| t & o),
            case!(Bor, 0, |n| 1 << (n % 7), |t, o| t | o),
            case!(Bxor, 0x55, |n| scattered(n) as $type, |t, o| t ^ o),
        ];
        cases.extend(anything::<$type>(1));
        run($world, &cases)?;
    })+};
}

macro_rules! floats {
    ($world:expr, $($type:ident),+) => {$({
        // Powers of two, whose sums and products are exact in any order.
        let mut cases = vec![
            case!(Sum, 0.5, |n| (n % 16) as $type, |t, o| t + o),
            case!(Prod, 1.0, |n| if n % 2 == 0 { 2.0 } else { -0.5 }, |t, o| t * o),
            case!(Min, 0.0, |n| scattered(n) as i32 as $type, |t, o| if o < t { o } else { t }),
            case!(Max, 0.0, |n| scattered(n) as i32 as $type, |t, o| if o > t { o } else { t }),
        ];
        cases.extend(anything::<$type>(1.5));
        run($world, &cases)?;
    })+};
}

macro_rules! complexes {
    ($world:expr, $($type:ident),+) => {$({
        let mut cases = vec![
            case!(
                Sum,
                Complex::new(0.5, -0.5),
                |n| Complex::new((n % 16) as $type, -((n % 8) as $type)),
                |t, o| Complex::new(t.re + o.re, t.im + o.im)
            ),
            case!(
                Prod,
                Complex::new(1.0, 2.0),
                |n| Complex::new(0.0, if n % 2 == 0 { 2.0 } else { 0.5 }),
                |t, o| Complex::new(t.re * o.re - t.im * o.im, t.re * o.im + t.im * o.re)
            ),
        ];
        cases.extend(anything(Complex::<$type>::new(1.5, 2.5)));
        run($world, &cases)?;
    })+};
}

macro_rules! pairs {
    ($world:expr, $($pair:ident of $type:ident),+) => {$({
        // Few values, so that many are equal and the index decides.
        let mut cases = vec![
            case!(
                MinLoc,
                $pair::new(100i8.into(), 0),
                |n| $pair::new((scattered(n) as i8 >> 5).into(), 1000 - n as i32),
                |t, o| if (o.value, o.index) < (t.value, t.index) { o } else { t }
            ),
            case!(
                MaxLoc,
                $pair::new((-100i8).into(), 0),
                |n| $pair::new((scattered(n) as i8 >> 5).into(), 1000 - n as i32),
                |t, o| if (o.value, -o.index) > (t.value, -t.index) { o } else { t }
            ),
        ];
        cases.extend(anything($pair::new($type::from(1i8), 2)));
        run($world, &cases)?;
    })+};
}

#[test]
fn every_type_takes_its_operators() {
    mixed("every_type_takes_its_operators").world(|world| {
        integers!(world, i8, u8, i16, u16, i32, u32, i64, u64, isize, usize);
        floats!(world, f32, f64);
        complexes!(world, f32, f64);
        pairs!(world, FloatInt of f32, DoubleInt of f64, LongInt of i64, TwoInt of i32);
        pairs!(world, ShortInt of i16);
        let mut cases = vec![
            case!(Land, Logical::TRUE, |n| mostly(n).into(), |t, o| {
                (t.get() && o.get()).into()
            }),
            case!(Lor, Logical::FALSE, |n| (!mostly(n)).into(), |t, o| {
                (t.get() || o.get()).into()
            }),
            case!(Lxor, Logical::TRUE, |n| (n % 3 == 0).into(), |t, o| {
                (t.get() != o.get()).into()
            }),
        ];
        cases.extend(anything(Logical::TRUE));
        run(world, &cases)
    });
}

/// Arrays that its owner, a neighbour and the ranks of another node change all the while: no
/// element misses an update, whether an instruction makes it atomic or the guard.
#[test]
fn crowded_arrays_add_up() {
    const LEN: usize = 250;
    const TURNS: u32 = 300;

    fn crowd<T: Reducible + PartialEq + Debug>(world: &World, one: T, of: fn(u32) -> T) -> Done {
        // Who reaches it by load and store is faster and has to last as long as the others.
        let home = world.node_of(Rank(0))?;
        let turns = |rank| match world.node_of(rank) {
            Ok(node) if node == home => 10 * TURNS,
            _ => TURNS,
        };
        let mut window = world.allocate::<T>(LEN)?;
        let epoch = window.lock_all()?;
        for turn in 0..turns(world.rank()) {
            epoch.accumulate(&[one; LEN], Rank(0), 0, Op::Sum)?;
            if turn % 50 == 0 {
                epoch.flush(Rank(0))?;
            }
        }
        epoch.end()?;
        world.barrier()?;
        if world.rank() == Rank(0) {
            let mine = window.lock_local()?;
            let wanted = of(world.ranks().map(turns).sum());
            let wrong = mine.iter().filter(|&&found| found != wanted).count();
            assert_eq!(wrong, 0, "of {LEN} elements that should be {wanted:?}");
            mine.end()?;
        }
        window.free()?;
        Ok(())
    }

    let spec = Spec::new("crowded_arrays_add_up").nodes(2).place("vh:2");
    spec.limit(Duration::from_secs(240)).world(|world| {
        // The nodes number their windows differently from here on, and so the guards.
        let node = world.split_by_node()?;
        let extra = match world.node_of(world.rank())? {
            0 => Some(node.allocate::<u8>(1)?),
            _ => None,
        };
        crowd(world, Complex::new(1.0, -2.0), |n| {
            Complex::new(n.into(), -2.0 * f64::from(n))
        })?;
        crowd(world, 1.0f64, f64::from)?;
        crowd(world, 1u16, |n| n as u16)?;
        if let Some(extra) = extra {
            extra.free()?;
        }
        Ok(())
    });
}

/// An element that is replaced as a whole is never seen half old, half new, however wide.
#[test]
fn replaced_elements_are_never_torn() {
    fn replace<T: Reducible>(
        world: &World,
        of: impl Fn(u32) -> T,
        is_whole: impl Fn(T) -> bool,
    ) -> Done {
        let mut window = world.allocate::<T>(3)?;
        let epoch = window.lock_all()?;
        for turn in 0..40 {
            for target in world.ranks() {
                let value = of(turn * world.size() + world.rank().0);
                let old = epoch.fetch_and_op(value, target, 1, Op::Replace)?;
                let now = epoch.fetch_and_op(value, target, 1, Op::NoOp)?;
                assert!(is_whole(old) && is_whole(now), "a torn element");
            }
        }
        epoch.end()?;
        world.barrier()?;
        window.free()?;
        Ok(())
    }

    mixed("replaced_elements_are_never_torn").world(|world| {
        replace(
            world,
            |n| Complex::new(f64::from(n), -f64::from(n)),
            |c| c.re == -c.im,
        )?;
        replace(
            world,
            |n| DoubleInt::new(n.into(), n as i32),
            |p| p.value == f64::from(p.index),
        )?;
        replace(
            world,
            |n| LongInt::new(n.into(), n as i32),
            |p| p.value == i64::from(p.index),
        )?;
        replace(
            world,
            |n| ShortInt::new(n as i16, n as i32),
            |p| i32::from(p.value) == p.index,
        )
    });
}

/// Tells all ranks an address of each.
fn tell(world: &World, address: Address) -> Result<Vec<Address>, support::Failure> {
    let mut win = world.allocate::<Address>(1)?;
    win.local().store(0, address);
    let epoch = win.fence()?;
    let mut all = vec![address; world.size() as usize];
    for rank in world.ranks() {
        epoch.get(&mut all[rank.0 as usize..][..1], rank, 0)?;
    }
    epoch.end()?;
    win.free()?;
    Ok(all)
}

/// Elements at odd addresses, where lent memory may have them.
#[test]
fn misaligned_elements_are_atomic_too() {
    const FROM: i64 = 64 + 1;
    const SWAPS: usize = 10;

    fn sums<T: Reducible + PartialEq + Debug>(world: &World, one: T, wanted: T) -> Done {
        let mut win = world.create_dynamic()?;
        let address = win.attach(vec![0u8; 256])?;
        let told = tell(world, address)?;
        let epoch = win.lock_all()?;
        for turn in 0..TURNS {
            for target in world.ranks() {
                let at = told[target.0 as usize].add(FROM);
                if turn % 2 == 0 {
                    epoch.accumulate_at(&[one, one], target, at, Op::Sum)?;
                } else {
                    let mut old = [one; 2];
                    epoch.get_accumulate_at(&[one, one], &mut old, target, at, Op::Sum)?;
                }
            }
        }
        epoch.end()?;
        world.barrier()?;
        let epoch = win.lock_all()?;
        let mut found = [one; 2];
        let at = address.add(FROM);
        epoch.get_accumulate_at(&[], &mut found, world.rank(), at, Op::NoOp)?;
        epoch.end()?;
        assert_eq!(found, [wanted, wanted]);
        let back: Vec<u8> = win.detach(address)?;
        let end = FROM as usize + 2 * size_of::<T>();
        assert!(
            back[..FROM as usize]
                .iter()
                .chain(&back[end..])
                .all(|&b| b == 0)
        );
        win.free()?;
        Ok(())
    }

    fn swaps<T>(world: &World, next: impl Fn(T) -> T) -> Done
    where
        T: Comparable + PartialEq + Debug,
    {
        let mut win = world.create_dynamic()?;
        let address = win.attach(vec![0u8; 256])?;
        let told = tell(world, address)?;
        let epoch = win.lock_all()?;
        for target in world.ranks() {
            let at = told[target.0 as usize].add(FROM);
            let mut seen = epoch.fetch_and_op_at(T::zeroed(), target, at, Op::NoOp)?;
            for _ in 0..SWAPS {
                loop {
                    let old = epoch.compare_and_swap_at(seen, next(seen), target, at)?;
                    if old == seen {
                        seen = next(old);
                        break;
                    }
                    seen = old;
                }
            }
        }
        epoch.end()?;
        world.barrier()?;
        let wanted = (0..SWAPS * world.size() as usize).fold(T::zeroed(), |t, _| next(t));
        let epoch = win.lock_all()?;
        let at = address.add(FROM);
        let found = epoch.fetch_and_op_at(T::zeroed(), world.rank(), at, Op::NoOp)?;
        epoch.end()?;
        assert_eq!(found, wanted);
        let _: Vec<u8> = win.detach(address)?;
        win.free()?;
        Ok(())
    }

    mixed("misaligned_elements_are_atomic_too").world(|world| {
        let all = TURNS * world.size();
        sums(world, 1u16, all as u16)?;
        sums(world, 1u32, all)?;
        sums(world, 3i64, 3 * i64::from(all))?;
        sums(world, 0.5f32, 0.5 * all as f32)?;
        sums(world, 0.5f64, 0.5 * f64::from(all))?;
        sums(
            world,
            Complex::new(1f32, -1.0),
            Complex::new(all as f32, -(all as f32)),
        )?;
        sums(
            world,
            Complex::new(1f64, -1.0),
            Complex::new(all.into(), -f64::from(all)),
        )?;
        swaps(world, |t: u16| t + 1)?;
        swaps(world, |t: u32| t + 1)?;
        swaps(world, |t: u64| t + 1)
    });
}

/// Updates of one origin to one place happen in the order of its program (mpi-rma 3, Ordering: rar,
/// raw, war, waw), without a flush between, also where they travel as several messages.
#[test]
fn updates_of_one_origin_keep_their_order() {
    /// Elements of each origin in each part: more than a message carries.
    const OWN: usize = 700;

    fn ordered<T>(world: &World, of: fn(u32) -> T) -> Done
    where
        T: Reducible + PartialEq + Debug,
    {
        let mut window = world.allocate::<T>(OWN * world.size() as usize)?;
        let base = OWN * world.rank().0 as usize;
        let epoch = window.lock_all()?;
        for turn in 0..5 {
            for target in world.ranks() {
                let x = 10 * turn + target.0;
                epoch.accumulate(&[of(x); OWN], target, base, Op::Replace)?;
                epoch.accumulate(&[of(1); OWN], target, base, Op::Sum)?;
                let old = epoch.fetch_and_op(of(5), target, base + OWN - 1, Op::Sum)?;
                assert_eq!(old, of(x + 1), "a read before the writes before it");
                epoch.accumulate(&[of(9); 3], target, base + 300, Op::Replace)?;
                epoch.accumulate(&[of(2)], target, base + 301, Op::Sum)?;
                let mut all = vec![T::zeroed(); OWN];
                epoch.get_accumulate(&[], &mut all, target, base, Op::NoOp)?;
                epoch.accumulate(&[of(77); OWN], target, base, Op::Replace)?;
                for (at, &found) in all.iter().enumerate() {
                    let wanted = match at {
                        301 => 11,
                        300 | 302 => 9,
                        699 => x + 6,
                        _ => x + 1,
                    };
                    assert_eq!(found, of(wanted), "element {at}");
                }
            }
        }
        epoch.end()?;
        world.barrier()?;
        let mine = window.lock_local()?;
        assert!(mine.iter().all(|&found| found == of(77)));
        mine.end()?;
        window.free()?;
        Ok(())
    }

    mixed("updates_of_one_origin_keep_their_order").world(|world| {
        ordered(world, u64::from)?;
        ordered(world, |n| n as u16)?;
        ordered(world, |n| Complex::new(n.into(), -f64::from(n)))
    });
}

/// What the table of mpi-rma 3 does not have is refused on every route, with class, type and the
/// operators that are accepted, and changes nothing.
#[test]
fn other_operators_are_refused() {
    fn refuse<T>(world: &World, one: T, others: &[Op], name: &str) -> Done
    where
        T: Reducible + PartialEq + Debug,
    {
        let mut window = world.allocate::<T>(2)?;
        window.lock_local()?.fill(one);
        world.barrier()?;
        let epoch = window.lock_all()?;
        for target in world.ranks() {
            for &op in others {
                let refused = [
                    epoch.accumulate(&[one], target, 0, op),
                    epoch.accumulate(&[one, one], target, 0, op),
                    epoch.get_accumulate(&[one], &mut [one], target, 0, op),
                    epoch.fetch_and_op(one, target, 0, op).map(|_| ()),
                ];
                for result in refused {
                    let error = result.expect_err("accepted");
                    assert_eq!(error.class(), windlass::ErrorClass::Op, "{error}");
                    let text = error.to_string();
                    let parts = [name, &format!("{op:?}"), "accepted: ", "Replace"];
                    for part in parts {
                        assert!(text.contains(part), "{text:?} lacks {part:?}");
                    }
                }
            }
            let error = epoch
                .accumulate(&[one], target, 0, Op::NoOp)
                .expect_err("accepted");
            assert_eq!(error.class(), windlass::ErrorClass::Op, "{error}");
            assert!(!error.to_string().contains("Replace, NoOp"), "{error}");
        }
        epoch.end()?;
        world.barrier()?;
        let mine = window.lock_local()?;
        assert_eq!(mine[..], [one, one]);
        mine.end()?;
        window.free()?;
        Ok(())
    }

    mixed("other_operators_are_refused").world(|world| {
        let bits = [Op::Band, Op::Bor, Op::Bxor, Op::Land, Op::Lor, Op::Lxor];
        let places = [Op::MinLoc, Op::MaxLoc];
        let numbers = [Op::Sum, Op::Prod, Op::Min, Op::Max];
        refuse(world, 1i32, &places, "i32")?;
        refuse(world, 1f64, &[&bits[..], &places].concat(), "f64")?;
        let complex = [&bits[..], &places, &numbers[2..]].concat();
        refuse(world, Complex::new(1f32, 2.0), &complex, "Complex<f32>")?;
        let logical = [&bits[..3], &places, &numbers].concat();
        refuse(world, Logical::TRUE, &logical, "Logical")?;
        let pair = [&bits[..], &numbers].concat();
        refuse(world, DoubleInt::new(1.0, 2), &pair, "DoubleInt")
    });
}
