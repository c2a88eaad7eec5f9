//! One suite, instantiated for every mechanism in every shape it has (architecture section 3).
//!
//! Each test forces its mechanism by `WINDLASS_ROUTE` and placement and first asserts that the
//! route in use is that mechanism in that shape. After every transfer the *whole* part of the
//! target is compared with a model, so a byte outside the range that changes is found too.

mod support;

use std::fs;

use support::data::{Random, same_bytes};
use support::libdat2;
use support::ofi;
use support::{Done, Spec};
use windlass::{Comparable, Epoch, Op, Rank, Reducible, Window, World};
use windlass_runtime::update::{Kind, UpdateOp};
use windlass_runtime::{Job, Route};

const SIZES: [usize; 13] = [
    0,
    1,
    3,
    4,
    7,
    8,
    63,
    64,
    4095,
    4096,
    4097,
    (64 << 10) + 1,
    4 << 20,
];
/// The largest transfer, room to shift it, and an odd rest.
const PART: usize = (4 << 20) + 3 * 4096 + 129;

/// What a suite expects of the route from `origin` to `target`.
#[derive(Clone, Copy)]
struct Want {
    route: &'static str,
    mechanism: &'static str,
    shape: &'static str,
    lent: bool,
    origin: Rank,
    target: Rank,
}

const fn want(route: &'static str, mechanism: &'static str, shape: &'static str) -> Want {
    Want {
        route,
        mechanism,
        shape,
        lent: false,
        origin: Rank(0),
        target: Rank(1),
    }
}

fn suite(spec: Spec, want: Want) {
    // Buffers of 64 KiB and more are mapped one by one: each goes with its owner, and the next has its address.
    let spec = spec.env("MALLOC_MMAP_THRESHOLD_", "65536");
    spec.env("WINDLASS_ROUTE", want.route).world(|world| {
        transfers(world, &want)?;
        refusals(world, &want)?;
        numbers(world, &want)
    });
}

#[test]
fn loopback() {
    let want = Want {
        target: Rank(0),
        ..want("loopback", "loopback", "mapped")
    };
    suite(Spec::new("loopback").ranks(1), want);
}

#[test]
fn loopback_on_a_ve() {
    let want = Want {
        target: Rank(0),
        ..want("loopback", "loopback", "mapped")
    };
    suite(Spec::new("loopback_on_a_ve").ves(1).place("ve0:1"), want);
}

#[test]
fn veshm_mapped() {
    let spec = Spec::new("veshm_mapped").ves(1).place("ve0:2");
    suite(spec, want("veshm", "veshm", "mapped"));
}

#[test]
fn veshm_posted() {
    let spec = Spec::new("veshm_posted").ves(2).place("ve0:1,ve1:1");
    suite(spec, want("veshm", "veshm", "posted"));
}

#[test]
fn vhshm_mapped() {
    suite(
        Spec::new("vhshm_mapped").place("vh:2"),
        want("vhshm", "vhshm", "mapped"),
    );
}

/// Lent memory that was moved into a file, in place.
#[test]
fn vhshm_to_lent_memory() {
    let want = Want {
        lent: true,
        ..want("vhshm", "vhshm", "mapped")
    };
    // A thread's own heap begins with data that keeps small windows from being moved.
    let spec = Spec::new("vhshm_to_lent_memory").env("MALLOC_ARENA_MAX", "1");
    suite(spec.place("vh:2"), want);
}

#[test]
fn rsm_mapped() {
    suite(
        Spec::new("rsm_mapped").place("vh:2"),
        want("rsm", "rsm", "mapped"),
    );
}

/// Of lent memory one file is one segment, however many windows lie in it.
#[test]
fn rsm_to_lent_memory() {
    let want = Want {
        lent: true,
        ..want("rsm", "rsm", "mapped")
    };
    // As above.
    let spec = Spec::new("rsm_to_lent_memory").env("MALLOC_ARENA_MAX", "1");
    suite(spec.place("vh:2"), want);
}

/// The arena is no sparse segment then: what does not fit into a file gets one more, each a segment of its own.
#[test]
fn rsm_segment_by_segment() {
    const LEN: usize = 40 << 20;
    let spec = Spec::new("rsm_segment_by_segment").place("vh:2");
    spec.env("WINDLASS_ROUTE", "rsm").world(|world| {
        let other = Rank(1 - world.rank().0);
        let mut windows = Vec::new();
        for mark in [5, 6, 7] {
            let mut window = world.allocate::<u8>(LEN)?;
            let route = window.routes().find(|route| route.target == other);
            let route = route.ok_or("every target has a route")?;
            assert_eq!((route.mechanism, route.shape), ("rsm", "mapped"));
            let epoch = window.fence()?;
            epoch.put(&[mark], other, LEN - 1)?;
            epoch.end()?;
            windows.push((mark, window));
        }
        for (mark, window) in windows {
            assert_eq!(window.local().load(LEN - 1), mark);
            window.free()?;
        }
        Ok(())
    });
}

#[test]
fn vhshm_from_a_ve() {
    let _pages = match HugePages::raise() {
        Ok(pages) => pages,
        Err(reason) => return eprintln!("vhshm_from_a_ve: skipped: {reason}"),
    };
    // The host's way to the VE's memory is another mechanism.
    let spec = Spec::new("vhshm_from_a_ve").ves(1).place("ve0:1,vh:1");
    suite(spec, want("vhshm,veo", "vhshm", "posted"));
}

#[test]
fn veo() {
    // The VE's way to the host's memory needs huge pages, or the network.
    let spec = Spec::new("veo").ves(1).place("vh:1,ve0:1");
    suite(spec, want("veo,udapl", "veo", "posted"));
}

/// Windows on a VE by a loaded libveo.so, from a rank whose own lie on the host.
#[test]
fn native_from_the_host() {
    let spec = Spec::new("native_from_the_host").ves(1).place("vh:1,ve0:1");
    suite(spec.native(), want("veo,udapl", "veo", "posted"));
}

#[test]
fn native_on_one_ve() {
    let spec = Spec::new("native_on_one_ve").ves(1).place("ve0:2");
    suite(spec.native(), want("veo,udapl", "veo", "posted"));
}

#[test]
fn native_between_ves() {
    let spec = Spec::new("native_between_ves").ves(2);
    let spec = spec.place("ve0:1,ve1:1");
    suite(spec.native(), want("veo,udapl", "veo", "posted"));
}

/// Whose windows lie on a VE reaches the host as everybody on it does.
#[test]
fn native_to_the_host() {
    let spec = Spec::new("native_to_the_host").ves(1).place("ve0:1,vh:1");
    suite(spec.native(), want("vhshm,veo", "vhshm", "mapped"));
}

#[test]
fn native_loopback() {
    let want = Want {
        target: Rank(0),
        ..want("loopback", "loopback", "posted")
    };
    let spec = Spec::new("native_loopback").ves(1).place("ve0:1");
    suite(spec.native(), want);
}

/// No adapter can register VE memory of a card: its rank's helper moves the data.
#[test]
fn native_between_nodes() {
    let spec = Spec::new("native_between_nodes").nodes(2).ves(1);
    let spec = spec.place("ve0:1");
    suite(spec.native(), want("udapl", "udapl", "posted"));
}

#[test]
fn cma() {
    let want = Want {
        lent: true,
        ..want("cma", "cma", "posted")
    };
    suite(Spec::new("cma").place("vh:2"), want);
}

#[test]
fn cma_between_host_and_ve() {
    let want = Want {
        lent: true,
        ..want("cma", "cma", "posted")
    };
    let spec = Spec::new("cma_between_host_and_ve");
    suite(spec.ves(1).place("ve0:1,vh:1"), want);
}

#[test]
fn udapl_between_nodes() {
    let spec = Spec::new("udapl_between_nodes").nodes(2).place("vh:1");
    suite(spec, want("udapl", "udapl", "posted"));
}

#[test]
fn udapl_between_nodes_to_ve_memory() {
    let spec = Spec::new("udapl_between_nodes_to_ve_memory")
        .nodes(2)
        .ves(1)
        .place("ve0:1");
    suite(spec, want("udapl", "udapl", "posted"));
}

#[test]
fn udapl_on_one_node() {
    suite(
        Spec::new("udapl_on_one_node").place("vh:2"),
        want("udapl", "udapl", "posted"),
    );
}

#[test]
fn udapl_to_lent_memory() {
    let want = Want {
        lent: true,
        ..want("udapl", "udapl", "posted")
    };
    suite(
        Spec::new("udapl_to_lent_memory").nodes(2).place("vh:1"),
        want,
    );
}

/// Whether jobs cannot use libdat2 here, and why.
fn no_libdat2(test: &str) -> bool {
    let reason = libdat2::missing();
    if let Some(reason) = &reason {
        eprintln!("{test}: skipped: {reason}");
    }
    reason.is_some()
}

#[test]
fn udapl_by_libdat2_between_nodes() {
    if no_libdat2("udapl_by_libdat2_between_nodes") {
        return;
    }
    let spec = Spec::new("udapl_by_libdat2_between_nodes").nodes(2);
    suite(
        spec.place("vh:1").libdat2(),
        want("udapl", "udapl", "posted"),
    );
}

#[test]
fn udapl_by_libdat2_on_one_node() {
    if no_libdat2("udapl_by_libdat2_on_one_node") {
        return;
    }
    let spec = Spec::new("udapl_by_libdat2_on_one_node").place("vh:2");
    suite(spec.libdat2(), want("udapl", "udapl", "posted"));
}

#[test]
fn udapl_by_libdat2_to_lent_memory() {
    if no_libdat2("udapl_by_libdat2_to_lent_memory") {
        return;
    }
    let want = Want {
        lent: true,
        ..want("udapl", "udapl", "posted")
    };
    let spec = Spec::new("udapl_by_libdat2_to_lent_memory").nodes(2);
    suite(spec.place("vh:1").libdat2(), want);
}

#[test]
fn udapl_by_libdat2_to_ve_memory() {
    if no_libdat2("udapl_by_libdat2_to_ve_memory") {
        return;
    }
    let spec = Spec::new("udapl_by_libdat2_to_ve_memory").nodes(2).ves(1);
    suite(
        spec.place("ve0:1").libdat2(),
        want("udapl", "udapl", "posted"),
    );
}

/// Why jobs cannot use libfabric here, if they cannot.
fn no_libfabric(test: &str) -> bool {
    let reason = ofi::missing();
    if let Some(reason) = &reason {
        eprintln!("{test}: skipped: {reason}");
    }
    reason.is_some()
}

#[test]
fn ofi_between_nodes() {
    if no_libfabric("ofi_between_nodes") {
        return;
    }
    let spec = Spec::new("ofi_between_nodes").nodes(2).place("vh:1");
    suite(spec, want("ofi", "ofi", "posted"));
}

#[test]
fn ofi_between_nodes_to_ve_memory() {
    if no_libfabric("ofi_between_nodes_to_ve_memory") {
        return;
    }
    let spec = Spec::new("ofi_between_nodes_to_ve_memory")
        .nodes(2)
        .ves(1)
        .place("ve0:1");
    suite(spec, want("ofi", "ofi", "posted"));
}

#[test]
fn ofi_to_lent_memory() {
    if no_libfabric("ofi_to_lent_memory") {
        return;
    }
    let want = Want {
        lent: true,
        ..want("ofi", "ofi", "posted")
    };
    suite(Spec::new("ofi_to_lent_memory").nodes(2).place("vh:1"), want);
}

/// A window of `len` elements at the target, and elsewhere of a few.
fn window<T: windlass::Element>(
    world: &World,
    want: &Want,
    len: usize,
) -> Result<Window<T>, support::Failure> {
    let len = if world.rank() == want.target { len } else { 3 };
    let window = if want.lent {
        world
            .create(vec![bytemuck_zero::<T>(); len])?
            .without_loan()
    } else {
        world.allocate::<T>(len)?
    };
    if world.rank() == want.origin {
        let route = window.routes().find(|route| route.target == want.target);
        let route = route.expect("every target has a route");
        let taken = (route.mechanism, route.shape);
        assert_eq!(taken, (want.mechanism, want.shape), "{:?}", route.rejected);
    }
    Ok(window)
}

/// Zero, for any element.
fn bytemuck_zero<T: windlass::Element>() -> T {
    T::zeroed()
}

/// Fails unless the target's part is what the model says.
fn compare<K: windlass::Kind>(
    world: &World,
    epoch: &Epoch<'_, u8, K>,
    want: &Want,
    model: &[u8],
    what: &str,
) {
    if world.rank() == want.target {
        same_bytes(&epoch.local().to_vec(), model, what);
    }
}

/// put and get of every size at aligned and unaligned offsets at both ends; whole parts compared.
fn transfers(world: &World, want: &Want) -> Done {
    let mut window = window::<u8>(world, want, PART)?;
    // All ranks draw the same numbers, so all know what the target must hold.
    let mut random = Random::new(1);
    let mut model = vec![0; PART];
    let mut epoch = window.fence()?;
    for size in SIZES {
        let end = PART - size;
        let places = [0, 1, 7, 64, 4095.min(end), random.below(end + 1), end];
        for (turn, disp) in places.into_iter().enumerate() {
            let skew = [0, 1, 3, 8][turn % 4];
            let source = random.bytes(size + skew);
            if world.rank() == want.origin {
                epoch.put(&source[skew..], want.target, disp)?;
            }
            model[disp..disp + size].copy_from_slice(&source[skew..]);
            epoch = epoch.next()?;
            let what = format!("after put of {size} at {disp}");
            compare(world, &epoch, want, &model, &what);
            if world.rank() == want.origin {
                let from = places[(turn + 3) % places.len()];
                fetch(&epoch, want.target, &model, (from, size, skew))?;
            }
            // Nobody puts again before the target has compared.
            epoch = epoch.next()?;
        }
        compare(
            world,
            &epoch,
            want,
            &model,
            &format!("after gets of {size}"),
        );
        epoch = epoch.next()?;
    }
    epoch.end()?;
    many(world, &mut window, want, &mut model)?;
    requests(world, &mut window, want, &mut model)?;
    short_lived(world, &mut window, want, &mut model)?;
    window.free()?;
    Ok(())
}

/// A get into a buffer whose other bytes must stay.
fn fetch<K: windlass::Kind>(
    epoch: &Epoch<'_, u8, K>,
    target: Rank,
    model: &[u8],
    (from, size, skew): (usize, usize, usize),
) -> Done {
    let mut into = vec![0xa5; size + skew + 5];
    epoch.get(&mut into[skew..skew + size], target, from)?;
    let what = format!("get of {size} at {from}");
    same_bytes(&into[skew..skew + size], &model[from..from + size], &what);
    let mut around = into[..skew].iter().chain(&into[skew + size..]);
    let kept = around.all(|&byte| byte == 0xa5);
    assert!(kept, "{what}: bytes around it changed");
    Ok(())
}

/// More puts than a device's ring holds, then one completion for all.
fn many(world: &World, window: &mut Window<u8>, want: &Want, model: &mut [u8]) -> Done {
    let mut random = Random::new(4);
    let mut epoch = window.fence()?;
    for round in 0..3 {
        for step in 0..600 {
            let (disp, len) = (step * 24 + random.below(8), 1 + random.below(16));
            let source = random.bytes(len);
            if world.rank() == want.origin {
                epoch.put(&source, want.target, disp)?;
            }
            model[disp..disp + len].copy_from_slice(&source);
        }
        epoch = epoch.next()?;
        let what = format!("after 600 small puts, round {round}");
        compare(world, &epoch, want, model, &what);
        epoch = epoch.next()?;
    }
    epoch.end()?;
    Ok(())
}

/// The same by requests, in a passive epoch.
fn requests(world: &World, window: &mut Window<u8>, want: &Want, model: &mut [u8]) -> Done {
    let mut random = Random::new(2);
    let epoch = window.lock_all()?;
    for size in SIZES {
        let disp = random.below(PART - size + 1);
        let source = random.bytes(size);
        if world.rank() == want.origin {
            let mut buffer = world.buffer::<u8>(size)?;
            buffer.copy_from_slice(&source);
            let buffer = epoch.rput(buffer, want.target, disp)?.wait()?;
            same_bytes(&buffer, &source, "a buffer given back");
            epoch.flush(want.target)?;
            let mut back = world.buffer::<u8>(size)?;
            back.fill(0x5a);
            let back = epoch.rget(back, want.target, disp)?.wait()?;
            same_bytes(&back, &source, &format!("rget of {size} at {disp}"));
        }
        model[disp..disp + size].copy_from_slice(&source);
        world.barrier()?;
        compare(
            world,
            &epoch,
            want,
            model,
            &format!("after rput of {size} at {disp}"),
        );
        world.barrier()?;
    }
    epoch.end()?;
    Ok(())
}

/// Long transfers from and to memory of the caller that is unmapped behind them, where the next buffer is mapped: what is at an
/// address now counts. Several run at once, over memory that overlaps.
fn short_lived(world: &World, window: &mut Window<u8>, want: &Want, model: &mut [u8]) -> Done {
    const LEN: usize = 300_001;
    let epoch = window.lock_all()?;
    let mut addresses = Vec::new();
    for round in 0..8 {
        let disp = round * LEN;
        let source = Random::new(50 + round as u64).bytes(LEN);
        addresses.push(source.as_ptr().addr());
        if world.rank() == want.origin {
            let half = LEN / 2;
            epoch.scope(|scope| {
                scope.put(&source[..half], want.target, disp)?;
                scope.put(&source[1000..], want.target, disp + 1000)
            })??;
            epoch.flush(want.target)?;
            let (mut first, mut second) = (vec![0; half], vec![0; LEN]);
            epoch.scope(|scope| {
                scope.get(&mut first, want.target, disp)?;
                scope.get(&mut second, want.target, disp)
            })??;
            same_bytes(
                &first,
                &source[..half],
                &format!("first get of round {round}"),
            );
            same_bytes(&second, &source, &format!("second get of round {round}"));
        }
        model[disp..disp + LEN].copy_from_slice(&source);
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert!(
        addresses.len() < 8,
        "every buffer had an address of its own"
    );
    world.barrier()?;
    compare(world, &epoch, want, model, "after puts of what is gone");
    world.barrier()?;
    epoch.end()?;
    Ok(())
}

/// What is out of range is refused before a byte moves, and the epoch goes on.
fn refusals(world: &World, want: &Want) -> Done {
    const LEN: usize = 5000;
    let mut window = window::<u8>(world, want, LEN)?;
    let model = Random::new(3).bytes(LEN);
    let epoch = window.fence()?;
    if world.rank() == want.target {
        epoch.local().write(0, &model)?;
    }
    let epoch = epoch.next()?;
    if world.rank() == want.origin {
        let target = want.target;
        let wrong = [
            (LEN, 1),
            (LEN - 3, 4),
            (0, LEN + 1),
            (LEN + 1, 0),
            (usize::MAX, 1),
        ];
        let huge = [
            (usize::MAX - 1, 3),
            (1 << 63, 2),
            (1 << 32, 1),
            (usize::MAX, 0),
        ];
        for (disp, len) in wrong.into_iter().chain(huge) {
            let mut buffer = vec![7; len];
            let put = epoch
                .put(&buffer, target, disp)
                .expect_err("a put out of range");
            let get = epoch
                .get(&mut buffer, target, disp)
                .expect_err("a get out of range");
            for error in [put, get] {
                assert_eq!(
                    error.class().name(),
                    "MPI_ERR_RMA_RANGE",
                    "{disp}+{len}: {error:?}"
                );
                assert!(
                    error.to_string().contains("5000 elements of rank"),
                    "{error:?}"
                );
            }
            assert!(
                buffer.iter().all(|&byte| byte == 7),
                "a refused get moved bytes"
            );
        }
        let nobody = epoch
            .put(&[1], Rank(world.size()), 0)
            .expect_err("a put to nobody");
        assert_eq!(nobody.class().name(), "MPI_ERR_RANK", "{nobody:?}");
        epoch.put(&[], target, LEN)?;
        epoch.get(&mut [], target, LEN)?;
    }
    let epoch = epoch.next()?;
    compare(world, &epoch, want, &model, "after refused operations");
    let epoch = epoch.next()?;
    if world.rank() == want.origin {
        epoch.put(&[9], want.target, LEN - 1)?;
    }
    let epoch = epoch.next()?;
    if world.rank() == want.target {
        assert_eq!(
            epoch.local().load(LEN - 1),
            9,
            "the epoch goes on after refusals"
        );
    }
    epoch.end()?;
    window.free()?;
    Ok(())
}

/// A number small enough that every element type holds sums of it exactly.
trait Number: Reducible + PartialEq + std::fmt::Debug {
    fn of(value: i16) -> Self;
}

macro_rules! number {
    ($($type:ty),+) => {$(
        impl Number for $type {
            fn of(value: i16) -> Self {
                value as $type
            }
        }
    )+};
}

number!(i32, u32, i64, u64, f32, f64);

/// Updates of every element type over this route.
fn numbers(world: &World, want: &Want) -> Done {
    updates::<i32>(world, want)?;
    updates::<u32>(world, want)?;
    updates::<i64>(world, want)?;
    updates::<u64>(world, want)?;
    updates::<f32>(world, want)?;
    updates::<f64>(world, want)?;
    swaps::<i32>(world, want)?;
    swaps::<u32>(world, want)?;
    swaps::<i64>(world, want)?;
    swaps::<u64>(world, want)
}

/// Elements of the update windows: more than one message of any mechanism carries.
const ELEMENTS: usize = 3000;

fn updates<T: Number>(world: &World, want: &Want) -> Done {
    let mut window = window::<T>(world, want, ELEMENTS)?;
    let epoch = window.lock_all()?;
    if world.rank() == want.origin {
        sums(&epoch, want.target)?;
    }
    epoch.end()?;
    world.barrier()?;
    if world.rank() == want.target {
        let mut model = [T::of(0); ELEMENTS];
        for (i, slot) in (0i16..).zip(&mut model[501..2501]) {
            *slot = T::of((i - 700) * 4);
        }
        (model[0], model[1]) = (T::of(8), T::of(22));
        let found = window.local().to_vec();
        let wrong = (0..ELEMENTS).find(|&i| found[i] != model[i]);
        let values = wrong.map(|i| (found[i], model[i]));
        assert_eq!(wrong, None, "found and wanted: {values:?}");
    }
    window.free()?;
    Ok(())
}

/// Four sums of i - 700 on a part of the window, and single elements at its begin.
fn sums<T: Number, K: windlass::Passive>(epoch: &Epoch<'_, T, K>, target: Rank) -> Done {
    let terms: Vec<T> = (0..2000).map(|i| T::of(i - 700)).collect();
    for _ in 0..3 {
        epoch.accumulate(&terms, target, 501, Op::Sum)?;
    }
    epoch.accumulate(&[T::of(21), T::of(22)], target, 0, Op::Replace)?;
    epoch.accumulate(&[], target, ELEMENTS, Op::Sum)?;
    epoch.flush(target)?;
    let fetch = |value, op| epoch.fetch_and_op(T::of(value), target, 0, op);
    assert_eq!(fetch(5, Op::Sum)?, T::of(21));
    assert_eq!(fetch(9, Op::NoOp)?, T::of(26));
    assert_eq!(fetch(8, Op::Replace)?, T::of(26));

    let mut old = vec![T::of(0); 2000];
    epoch.get_accumulate(&terms, &mut old, target, 501, Op::Sum)?;
    for (i, &value) in (0i16..).zip(&old) {
        assert_eq!(value, T::of((i - 700) * 3), "fetched element {i}");
    }
    let outside = epoch.accumulate(&terms, target, ELEMENTS - 1999, Op::Sum);
    assert!(outside.is_err(), "an accumulate beyond the end");
    let outside = epoch.fetch_and_op(T::of(1), target, ELEMENTS, Op::Sum);
    assert!(outside.is_err(), "a fetch beyond the end");
    let fixed = epoch.accumulate(&terms, target, 0, Op::NoOp);
    let fixed = fixed.expect_err("accumulate takes no NO_OP");
    assert_eq!(fixed.class().name(), "MPI_ERR_OP");
    Ok(())
}

fn swaps<T: Number + Comparable>(world: &World, want: &Want) -> Done {
    let mut window = window::<T>(world, want, 9)?;
    let target = want.target;
    let epoch = window.lock_all()?;
    if world.rank() == want.origin {
        let swap =
            |compare, new, disp| epoch.compare_and_swap(T::of(compare), T::of(new), target, disp);
        assert_eq!(swap(0, 17, 4)?, T::of(0), "an equal value is swapped");
        assert_eq!(swap(0, 18, 4)?, T::of(17), "another value stays");
        assert_eq!(swap(17, 19, 4)?, T::of(17));
        assert_eq!(swap(0, 1, 8)?, T::of(0));
        assert!(swap(0, 1, 9).is_err(), "a swap beyond the end");
    }
    epoch.end()?;
    world.barrier()?;
    if world.rank() == target {
        let mut model = [T::of(0); 9];
        (model[4], model[8]) = (T::of(19), T::of(1));
        assert_eq!(window.local().to_vec(), model);
    }
    window.free()?;
    Ok(())
}

/// Below the windows: the routes themselves refuse what is outside their range.
#[test]
fn routes_refuse_what_is_out_of_range() {
    let spec = Spec::new("routes_refuse_what_is_out_of_range");
    let spec = spec.nodes(2).ves(2).place("ve0:2,ve1:1,vh:2");
    spec.run(below_the_windows, |report| {
        report.succeeded();
        let text = report.outcome.stdout_text();
        let mapped = ["loopback-mapped", "veshm-mapped", "vhshm-mapped"];
        let posted = ["veshm-posted", "veo-posted", "udapl-posted"];
        for shape in mapped.into_iter().chain(posted) {
            assert!(text.contains(shape), "no route is {shape}: {text}");
        }
    });
}

fn below_the_windows() -> Done {
    const LEN: usize = 4096;
    let job = Job::init()?;
    let exposure = job.team().expose(job.allocate(LEN, 1), &[0])?;
    let mut shapes = Vec::new();
    for target in &exposure.targets {
        shapes.push(format!("{}-{}", target.why.chosen, target.route.shape()));
        let far = u64::MAX;
        for (offset, len) in [(4090, 7), (4096, 1), (far, 1), (1 << 63, 8), (far - 3, 8)] {
            refuses(&target.route, offset, len);
        }
        if let Route::Posted(updates) = &target.updates {
            let (one, two, mut old) = ([1; 8], [2; 8], [0; 8]);
            let sum = updates.update(4089, Kind::U64, UpdateOp::Sum, &one, Some(&mut old));
            let swap = updates.compare_swap(far - 7, Kind::U64, &one, &two, &mut old);
            assert!(sum.is_err() && swap.is_err(), "an update out of range");
        }
    }
    exposure.barrier(false)?;
    let mut bytes = vec![1; LEN];
    exposure.bytes().read(0, &mut bytes)?;
    let kept = bytes.iter().all(|&byte| byte == 0);
    assert!(kept, "a refused access moved bytes");
    println!("shapes={}", shapes.join(","));
    drop(exposure.free()?);
    job.end()?;
    Ok(())
}

fn refuses(route: &Route, offset: u64, len: usize) {
    let mut bytes = vec![1; len];
    let (put, get) = match route {
        Route::Mapped(memory) => (
            memory.write(offset as usize, &bytes).is_err(),
            memory.read(offset as usize, &mut bytes).is_err(),
        ),
        Route::Posted(posted) => (
            posted.put(offset, &bytes).is_err(),
            posted.get(offset, &mut bytes).is_err(),
        ),
    };
    let part = route.part(offset, len as u64).is_err();
    assert!(put && get && part, "{offset}+{len}: {put} {get} {part}");
}

/// A mechanism fails on rank 1: every rank falls to the next one that works.
fn falls_back(spec: Spec, fails: &str, lent: bool) {
    for phase in ["export", "probe", "attach"] {
        let spec = spec.clone().case(phase);
        spec.env("WINDLASS_FAIL", format!("{fails}:{phase}:1"))
            .world(|world| {
                let mut window = if lent {
                    world.create(vec![0u64; 1000])?.without_loan()
                } else {
                    world.allocate::<u64>(1000)?
                };
                // An export that fails concerns rank 1's memory, an attach those that rank 1 reaches.
                let (from, to) = if phase == "attach" { (1, 0) } else { (0, 1) };
                if world.rank() == Rank(from) {
                    let route = window.routes().find(|route| route.target == Rank(to));
                    let route = route.expect("every target has a route");
                    assert_ne!(route.mechanism, fails, "{phase}");
                    let reason = route
                        .rejected
                        .iter()
                        .find(|(mechanism, _)| *mechanism == fails);
                    let (_, reason) = reason.expect("what was not taken has a reason");
                    assert!(reason.contains("WINDLASS_FAIL"), "{phase}: {reason}");
                }
                let me = u64::from(world.rank().0);
                let epoch = window.fence()?;
                for target in world.ranks() {
                    epoch.put(&[me + 100], target, 10 + me as usize)?;
                    epoch.accumulate(&[me + 1], target, 999, Op::Sum)?;
                }
                epoch.end()?;
                let found = window.local();
                let size = u64::from(world.size());
                assert_eq!(found.load(999), size * (size + 1) / 2);
                for rank in 0..size {
                    assert_eq!(found.load(10 + rank as usize), rank + 100);
                }
                window.free()?;
                Ok(())
            });
    }
}

#[test]
fn veshm_mapped_falls_back() {
    falls_back(
        Spec::new("veshm_mapped_falls_back").ves(1).place("ve0:3"),
        "veshm",
        false,
    );
}

#[test]
fn veshm_posted_falls_back() {
    falls_back(
        Spec::new("veshm_posted_falls_back")
            .ves(2)
            .place("ve0:1,ve1:1"),
        "veshm",
        false,
    );
}

#[test]
fn vhshm_falls_back() {
    falls_back(Spec::new("vhshm_falls_back").place("vh:3"), "vhshm", false);
}

#[test]
fn rsm_falls_back() {
    let spec = Spec::new("rsm_falls_back").place("vh:3");
    falls_back(spec.env("WINDLASS_ROUTE", "rsm,udapl"), "rsm", false);
}

#[test]
fn rsm_to_lent_memory_falls_back() {
    let spec = Spec::new("rsm_to_lent_memory_falls_back").place("vh:2");
    falls_back(spec.env("WINDLASS_ROUTE", "rsm,cma"), "rsm", true);
}

#[test]
fn cma_falls_back() {
    let spec = Spec::new("cma_falls_back").place("vh:2");
    falls_back(spec.env("WINDLASS_REBACK", "never"), "cma", true);
}

#[test]
fn vhshm_to_lent_memory_falls_back() {
    let spec = Spec::new("vhshm_to_lent_memory_falls_back").place("vh:2");
    falls_back(spec, "vhshm", true);
}

#[test]
fn native_falls_back() {
    let spec = Spec::new("native_falls_back").ves(2).place("ve0:1,ve1:1");
    falls_back(spec.native(), "veo", false);
}

#[test]
fn veo_falls_back() {
    // Rank 1 is the VE, whose memory is exported, so only these two phases have an effect.
    let spec = Spec::new("veo_falls_back").ves(1).place("vh:1,ve0:1");
    let spec = spec.env("WINDLASS_FAIL", "veo:export:1");
    spec.world(|world| {
        let mut window = world.allocate::<u32>(50)?;
        if world.rank() == Rank(0) {
            let taken = window.routes().nth(1).map(|route| route.mechanism);
            assert_eq!(taken, Some("udapl"));
        }
        let epoch = window.fence()?;
        if world.rank() == Rank(0) {
            epoch.put(&[7, 8, 9], Rank(1), 20)?;
        }
        epoch.end()?;
        if world.rank() == Rank(1) {
            assert_eq!(window.local().to_vec()[19..24], [0, 7, 8, 9, 0]);
        }
        window.free()?;
        Ok(())
    });
}

/// The only mechanism allowed fails on rank 1: creation fails on all ranks alike, names the
/// reason, and leaves the job usable.
fn fails_alike(spec: Spec, mechanism: &'static str, lent: bool) {
    for phase in ["export", "attach"] {
        let spec = spec.clone().case(phase);
        let spec = spec.env("WINDLASS_ROUTE", mechanism);
        let spec = spec.env("WINDLASS_FAIL", format!("{mechanism}:{phase}:1"));
        let body = || {
            support::with_world(|world| {
                let made = if lent {
                    world
                        .create(vec![0u64; 100])
                        .map(windlass::Window::without_loan)
                } else {
                    world.allocate::<u64>(100)
                };
                let error = made.err().ok_or("a window was made without a route")?;
                println!("refused: {}", support::chain(&error).replace('\n', " "));
                world.barrier()?;
                Ok(())
            })
        };
        spec.run(body, |report| {
            report.succeeded();
            let text = report.outcome.stdout_text();
            let refused: Vec<&str> = text.lines().filter(|l| l.contains("refused: ")).collect();
            assert_eq!(refused.len(), report.pids.len(), "{text}");
            for line in refused {
                assert!(
                    line.contains("WINDLASS_FAIL"),
                    "the cause is not named: {line}"
                );
            }
        });
    }
}

#[test]
fn veshm_fails_alike() {
    fails_alike(
        Spec::new("veshm_fails_alike").ves(1).place("ve0:3"),
        "veshm",
        false,
    );
}

#[test]
fn vhshm_fails_alike() {
    fails_alike(Spec::new("vhshm_fails_alike").place("vh:3"), "vhshm", false);
}

#[test]
fn rsm_fails_alike() {
    fails_alike(Spec::new("rsm_fails_alike").place("vh:3"), "rsm", false);
}

#[test]
fn rsm_to_lent_memory_fails_alike() {
    let spec = Spec::new("rsm_to_lent_memory_fails_alike").place("vh:2");
    fails_alike(spec, "rsm", true);
}

#[test]
fn cma_fails_alike() {
    fails_alike(Spec::new("cma_fails_alike").place("vh:2"), "cma", true);
}

#[test]
fn udapl_fails_alike() {
    fails_alike(Spec::new("udapl_fails_alike").place("vh:2"), "udapl", false);
}

/// Huge pages for the time of a test; the number before is set again afterwards.
struct HugePages(Option<usize>);

const HUGE: &str = "/proc/sys/vm/nr_hugepages";
/// 512 MiB of 2 MiB pages.
const PAGES: usize = 256;

impl HugePages {
    fn raise() -> Result<HugePages, String> {
        if support::is_rank() {
            return Ok(HugePages(None));
        }
        let count = || -> Result<usize, String> {
            let text = fs::read_to_string(HUGE).map_err(|error| format!("{HUGE}: {error}"))?;
            text.trim()
                .parse()
                .map_err(|error| format!("{HUGE}: {error}"))
        };
        let before = count()?;
        if before >= PAGES {
            return Ok(HugePages(None));
        }
        let refused = |error| format!("{HUGE} is {before} and cannot be raised: {error}");
        fs::write(HUGE, PAGES.to_string()).map_err(refused)?;
        let pages = HugePages(Some(before));
        match count()? {
            now if now < PAGES => Err(format!("only {now} huge pages of {PAGES} can be had")),
            _ => Ok(pages),
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // Best effort: the machine's owner sees the number.
            let _ = fs::write(HUGE, before.to_string());
        }
    }
}
