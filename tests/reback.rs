//! Created windows over lent memory: mapped by peers in place, given back as they were, and copied where that is not
//! safe or not allowed (architecture section 3, measured-designs 1).

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use support::data::Random;
use support::{Done, Failure, Report, Spec};
use windlass::{Element, Lend, LockKind, Op, Rank, RouteInfo, Window, World};
use windlass_mem::forbid::{Forbidden, forbid};
use windlass_mem::reback;

const RELAXED: Ordering = Ordering::Relaxed;

/// A job whose ranks have one heap, by brk: a thread's own begins with data that keeps small windows from being moved.
fn spec(test: &'static str) -> Spec {
    Spec::new(test).env("MALLOC_ARENA_MAX", "1")
}

/// The way from here to another rank.
fn route_to<T: Element, M: Send + 'static>(window: &Window<T, M>, target: Rank) -> RouteInfo {
    let mut routes = window.routes();
    let route = routes.find(|route| route.target == target);
    route.expect("every target has a route")
}

/// The ways to all others are `mechanism`.
#[track_caller]
fn reached_by<T: Element, M: Send + 'static>(
    world: &World,
    window: &Window<T, M>,
    mechanism: &str,
) {
    for target in world.ranks().filter(|&target| target != world.rank()) {
        let route = route_to(window, target);
        assert_eq!(route.mechanism, mechanism, "{target}: {:?}", route.rejected);
    }
}

/// Why another rank's memory is not mapped.
fn unmapped<T: Element, M: Send + 'static>(world: &World, window: &Window<T, M>) -> String {
    let other = world.ranks().find(|&rank| rank != world.rank());
    let route = route_to(window, other.expect("there are others"));
    let reason = route
        .rejected
        .into_iter()
        .find(|(name, _)| *name == "vhshm");
    reason.map_or_else(String::new, |(_, why)| why)
}

/// Every rank fills its share of every other's part, whose elements must all be as its owner has set them.
fn exercise<M: Send + 'static>(world: &World, window: &mut Window<u64, M>, len: usize) -> Done {
    let (me, size) = (world.rank().0 as usize, world.size() as usize);
    let epoch = window.fence()?;
    for target in world.ranks() {
        let mut found = vec![0; len];
        epoch.get(&mut found, target, 0)?;
        let wanted = |i: usize| i as u64 + u64::from(target.0) * 1_000_000;
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(i, &value)| value == wanted(i))
        );
    }
    let epoch = epoch.next()?;
    let share = len / size;
    for target in world.ranks() {
        let values: Vec<u64> = (0..share)
            .map(|i| (me * share + i) as u64 * 3 + 1)
            .collect();
        epoch.put(&values, target, me * share)?;
        if len > share * size {
            epoch.accumulate(&[me as u64 + 1], target, len - 1, Op::Sum)?;
        }
    }
    epoch.end()?;
    Ok(())
}

/// What [`exercise`] leaves.
#[track_caller]
fn exercised(world: &World, memory: &[u64]) {
    let (me, size, len) = (world.rank().0, world.size() as usize, memory.len());
    let share = len / size;
    for (i, &value) in memory[..share * size].iter().enumerate() {
        assert_eq!(value, i as u64 * 3 + 1, "element {i} of {len}");
    }
    if len > share * size {
        let ranks = (size * (size + 1) / 2) as u64;
        let before = (len - 1) as u64 + u64::from(me) * 1_000_000;
        assert_eq!(memory[len - 1], before + ranks);
    }
}

/// A thread's heap begins with data of the allocator's own, so memory on its first page is not moved: takes that page.
fn leave_the_first_page() {
    vec![0u8; 8192].leak();
}

fn numbered(world: &World, len: usize) -> Vec<u64> {
    leave_the_first_page();
    let base = u64::from(world.rank().0) * 1_000_000;
    (0..len as u64).map(|i| base + i).collect()
}

/// A window over `memory`, by `mechanism`, from creation to the memory's return.
fn lives<M: Lend<u64> + Sync>(world: &World, memory: M, mechanism: &str) -> Result<M, Failure> {
    let (at, len) = (memory.as_ref().as_ptr().addr(), memory.as_ref().len());
    let mut window = world.create(memory)?;
    reached_by(world, &window, mechanism);
    exercise(world, &mut window, len)?;
    let memory = window.free()?;
    assert_eq!(memory.as_ref().as_ptr().addr(), at, "it stays where it is");
    exercised(world, memory.as_ref());
    Ok(memory)
}

#[test]
fn vectors_boxes_and_slices_of_the_heap() {
    spec("vectors_boxes_and_slices_of_the_heap")
        .ranks(3)
        .world(|world| {
            // From a part of a page of the heap to what the allocator maps apart. Below 2 MiB: larger ones the
            // kernel places at such multiples, one in 32 of which could be the head of a thread's heap, and of a
            // slice without an owner nobody can tell.
            for len in [7usize, 600, 20_000, 1 << 17] {
                drop(lives(world, numbered(world, len), "vhshm")?);
                drop(lives(
                    world,
                    numbered(world, len).into_boxed_slice(),
                    "vhshm",
                )?);
                let leaked: &'static mut [u64] = numbered(world, len).leak();
                let part = &mut leaked[3..];
                part.copy_from_slice(&numbered(world, len - 3));
                lives(world, part, "vhshm")?;
            }
            Ok(())
        });
}

const STATIC: usize = 3_001;
static ZEROS: Mutex<[u64; STATIC]> = Mutex::new([0; STATIC]);
static DATA: Mutex<[u64; STATIC]> = Mutex::new([7; STATIC]);

#[test]
fn static_memory() {
    spec("static_memory").ranks(2).world(|world| {
        for (memory, value) in [(&ZEROS, 0), (&DATA, 7)] {
            let guard: &'static mut MutexGuard<'static, [u64; STATIC]> =
                Box::leak(Box::new(memory.lock().expect("nobody has panicked")));
            let mut part: &'static mut [u64] = &mut guard[1..];
            assert!(part.iter().all(|&element| element == value));
            for _ in 0..3 {
                part.copy_from_slice(&numbered(world, STATIC - 1));
                part = lives(world, part, "vhshm")?;
                assert!(reback::backed_bytes() >= (STATIC - 1) * 8, "it may stay");
            }
        }
        Ok(())
    });
}

/// Borrowed memory: parts of a vector of any alignment, and a local array, which is not moved.
#[test]
fn borrowed_memory() {
    spec("borrowed_memory").ranks(2).world(|world| {
        leave_the_first_page();
        let mut bytes: Vec<u8> = vec![0xee; 40_000];
        let other = Rank(1 - world.rank().0);
        for (from, len) in [(1usize, 1usize), (3, 5_000), (4_095, 8_193), (0, 40_000)] {
            let fill = world.rank().0 as u8 + 1;
            bytes.fill(0xee);
            world.create_scoped(&mut bytes[from..from + len], |window| -> Done {
                reached_by(world, window, "vhshm");
                let epoch = window.fence()?;
                epoch.put(&vec![fill; len], other, 0)?;
                epoch.end()?;
                Ok(())
            })??;
            assert!(bytes[from..from + len].iter().all(|&byte| byte == 3 - fill));
            let mut around = bytes[..from].iter().chain(&bytes[from + len..]);
            assert!(around.all(|&byte| byte == 0xee));
        }
        let mut local = [5u64; 100];
        world.create_scoped(&mut local, |window| -> Done {
            assert_eq!(route_to(window, other).mechanism, "cma");
            let why = unmapped(world, window);
            assert!(
                why.contains("not re-backed: the calling thread runs on it"),
                "{why}"
            );
            let epoch = window.fence()?;
            epoch.put(&[u64::from(other.0)], other, 99)?;
            epoch.end()?;
            Ok(())
        })??;
        assert_eq!((local[98], local[99]), (5, u64::from(world.rank().0)));
        Ok(())
    });
}

/// Other threads write to neighbours on the window's pages while windows come and go.
fn neighbours(world: &World, rounds: u64) -> Done {
    let other = Rank(1 - world.rank().0);
    let words: Vec<AtomicU64> = (0..3_000).map(|_| AtomicU64::new(0)).collect();
    let mut memory: Vec<u64> = vec![0; 3_000];
    let stop = AtomicBool::new(false);
    // Small blocks between which a small window lies.
    let mut small: Vec<[Box<AtomicU64>; 2]> = Vec::new();
    let mut between: Vec<Box<[u64]>> = Vec::new();
    for _ in 0..20 {
        let left = Box::default();
        between.push(vec![0; 5].into());
        small.push([left, Box::default()]);
    }
    // Free blocks, which the windows' memory takes.
    between.truncate(10);
    let (before, rest) = memory.split_at_mut(40);
    let (middle, after) = rest.split_at_mut(2_900);
    let blocks: Vec<&AtomicU64> = small.iter().flatten().map(|word| &**word).collect();
    let outcome = std::thread::scope(|scope| {
        let hammer = scope.spawn(|| {
            let mut count = 0u64;
            while !stop.load(RELAXED) {
                count += 1;
                before[39] += 1;
                after[0] += 1;
                for word in blocks.iter().copied().chain([&words[0]]) {
                    // Not atomic: a move between the two would lose it.
                    word.store(word.load(RELAXED) + 1, RELAXED);
                }
                std::hint::black_box((&before, &after));
            }
            count
        });
        let mut windows = || -> Done {
            for round in 0..rounds {
                world.create_scoped(middle, |window| -> Done {
                    reached_by(world, window, "vhshm");
                    let epoch = window.lock(other, LockKind::Exclusive)?;
                    epoch.put(&[round; 3], other, 0)?;
                    epoch.put(&[round; 3], other, 2_897)?;
                    Ok(epoch.end()?)
                })??;
                assert_eq!((middle[2], middle[2_899], middle[3]), (round, round, 0));
                let lent = world.create(vec![round; 5].into_boxed_slice())?;
                reached_by(world, &lent, "vhshm");
                assert_eq!(lent.free()?[..], [round; 5]);
            }
            Ok(())
        };
        let done = windows();
        stop.store(true, RELAXED);
        let count = hammer.join().expect("it only counts");
        done.map(|()| count)
    })?;
    assert!(outcome > 0);
    assert_eq!(
        (before[39], after[0]),
        (outcome, outcome),
        "updates were lost"
    );
    for word in blocks {
        assert_eq!(word.load(RELAXED), outcome, "updates were lost");
    }
    Ok(())
}

#[test]
fn neighbours_lose_no_update() {
    let spec = spec("neighbours_lose_no_update").ranks(2);
    spec.world(|world| neighbours(world, 200));
}

/// As an unprivileged user or a container has it: threads are paused by a signal.
#[test]
fn neighbours_lose_no_update_without_userfaultfd() {
    let spec = spec("neighbours_lose_no_update_without_userfaultfd").ranks(2);
    let body = || {
        forbid(Forbidden::Userfaultfd)?;
        support::with_world(|world| neighbours(world, 100))
    };
    spec.run(body, Report::succeeded);
}

/// Commands run as children do not disturb a window, nor the window them.
#[test]
fn children_and_windows() {
    spec("children_and_windows").ranks(2).world(|world| {
        leave_the_first_page();
        let mut near = vec![1u8; 3_000];
        let other = Rank(1 - world.rank().0);
        world.create_scoped(&mut near[100..2_000], |window| -> Done {
            reached_by(world, window, "vhshm");
            for round in 0..10u8 {
                let epoch = window.lock(other, LockKind::Shared)?;
                epoch.put(&[round; 1_900], other, 0)?;
                epoch.end()?;
                let mut command = Command::new("sh");
                // One that forks and does not only spawn.
                std::os::unix::process::CommandExt::gid(
                    &mut command,
                    rustix::process::getgid().as_raw(),
                );
                let said = command.args(["-c", "echo $((6 * 7))"]).output()?;
                assert_eq!(said.stdout, b"42\n");
                world.barrier()?;
                assert!(window.local().to_vec().iter().all(|&byte| byte == round));
                world.barrier()?;
            }
            Ok(())
        })??;
        assert!(
            near[..100]
                .iter()
                .chain(&near[2_000..])
                .all(|&byte| byte == 1)
        );
        Ok(())
    });
}

/// Two windows over the same memory, both mapped, and ending in either order.
#[test]
fn windows_over_overlapping_memory() {
    spec("windows_over_overlapping_memory").ranks(2).run(
        || {
            let job = windlass_runtime::Job::init()?;
            let team = job.team();
            let (bytes, loan) = windlass_mem::lend(vec![0u8; 50_000]);
            for first_goes_first in [true, false] {
                let one = job.lend_bytes(bytes.slice(10, 30_000)?);
                let two = job.lend_bytes(bytes.slice(20_000, 29_999)?);
                let one = team.expose(Ok(one), &[])?;
                let two = team.expose(Ok(two), &[])?;
                let other = 1 - team.rank();
                let mapped = |exposure: &windlass_runtime::Exposure| match &exposure.targets
                    [other as usize]
                    .route
                {
                    windlass_runtime::Route::Mapped(bytes) => Ok(bytes.clone()),
                    windlass_runtime::Route::Posted(_) => Err("a window is not mapped"),
                };
                let mark = team.rank() as u8 + 1;
                mapped(&one)?.write(19_990, &[mark; 20])?;
                team.barrier()?;
                let mut found = [0; 10];
                mapped(&two)?.read(0, &mut found)?;
                assert_eq!(found, [mark; 10], "the second begins inside the first");
                bytes.read(20_000, &mut found)?;
                assert_eq!(found, [3 - mark; 10]);
                let (goes, stays) = if first_goes_first {
                    (one, two)
                } else {
                    (two, one)
                };
                drop(goes.free()?);
                mapped(&stays)?.write(15_000, &[mark + 10])?;
                team.barrier()?;
                let at = if first_goes_first { 35_000 } else { 15_010 };
                bytes.read(at, &mut found[..1])?;
                assert_eq!(found[0], 13 - mark);
                drop(stays.free()?);
                bytes.fill(0, 50_000, 0)?;
            }
            assert_eq!(
                loan.take_back(bytes).map_err(|e| e.to_string())?,
                [0; 50_000]
            );
            drop(team);
            job.end()?;
            Ok(())
        },
        Report::succeeded,
    );
}

/// Mappings and descriptors of this process.
fn holdings() -> Result<(usize, usize), Failure> {
    let maps = std::fs::read_to_string("/proc/self/maps")?.lines().count();
    Ok((maps, std::fs::read_dir("/proc/self/fd")?.count()))
}

/// Memory is freed and used for other things between windows; nothing is left of them.
#[test]
fn many_windows_come_and_go() {
    spec("many_windows_come_and_go").ranks(2).world(|world| {
        let mut random = Random::new(5);
        let mut cycle = |len: usize| -> Done {
            drop(lives(world, numbered(world, len), "vhshm")?);
            // Whoever gets the memory next finds it as it must be.
            let junk: Vec<Vec<u8>> = (0..30).map(|i| vec![i; 8 + random.below(9_000)]).collect();
            assert!(vec![0u8; len * 8].iter().all(|&byte| byte == 0));
            assert!(
                junk.iter()
                    .zip(0..)
                    .all(|(junk, i)| junk.iter().all(|&byte| byte == i))
            );
            Ok(())
        };
        let sizes = [10, 2_000, 40_000];
        for len in sizes.into_iter().cycle().take(30) {
            cycle(len)?;
        }
        let before = holdings()?;
        for len in sizes.into_iter().cycle().take(120) {
            cycle(len)?;
        }
        let after = holdings()?;
        assert_eq!(after.1, before.1, "descriptors");
        assert!(
            after.0 <= before.0 + 10,
            "{} mappings, {} before",
            after.0,
            before.0
        );
        Ok(())
    });
}

/// The same memory again and again: its pages stay where they are for the next window.
#[test]
fn kept_backings_serve_the_next_window() {
    let spec = spec("kept_backings_serve_the_next_window").ranks(2);
    spec.world(|world| {
        leave_the_first_page();
        let mut memory = vec![0u64; 5_000];
        for _ in 0..20 {
            memory.copy_from_slice(&numbered(world, 5_000));
            memory = lives(world, memory, "vhshm")?;
        }
        let kept = reback::backed_bytes();
        assert!(kept >= 5_000 * 8, "{kept} bytes");
        reback::restore_idle()?;
        assert_eq!(reback::backed_bytes(), 0);
        exercised(world, &memory);
        world.barrier()?;
        memory.copy_from_slice(&numbered(world, 5_000));
        memory = lives(world, memory, "vhshm")?;
        // A vector that grows is copied, and none the worse for it.
        memory.extend(0..5_000);
        exercised(world, &memory[..5_000]);
        Ok(())
    });
}

/// Dynamic windows: many small regions on shared pages, attached and detached.
#[test]
fn regions_of_a_dynamic_window() {
    spec("regions_of_a_dynamic_window").ranks(2).world(|world| {
        let mut window = world.create_dynamic()?;
        let other = Rank(1 - world.rank().0);
        let mut told = world.allocate::<windlass::Address>(30)?;
        for round in 0..4u64 {
            let regions: Vec<windlass::Address> = (0..30)
                .map(|i| window.attach(vec![round; 5 + i * 7]))
                .collect::<Result<_, _>>()?;
            told.local().write(0, &regions)?;
            let mut theirs = vec![windlass::Address::from_raw(0); 30];
            let epoch = told.fence()?;
            epoch.get(&mut theirs, other, 0)?;
            epoch.end()?;
            let epoch = window.lock(other, LockKind::Shared)?;
            for (i, &address) in theirs.iter().enumerate() {
                epoch.put_at(&[round + 1, i as u64], other, address)?;
            }
            epoch.end()?;
            world.barrier()?;
            for (i, address) in regions.into_iter().enumerate() {
                let memory: Vec<u64> = window.detach(address)?;
                assert_eq!(memory[..3], [round + 1, i as u64, round]);
            }
            world.barrier()?;
        }
        told.free()?;
        window.free()?;
        Ok(())
    });
}

/// What is not re-backed says why, and is copied.
#[test]
fn reasons_are_told() {
    let case = |how: &'static str, len: usize, want: &'static str| {
        let spec = spec("reasons_are_told").ranks(2).case(how);
        spec.env("WINDLASS_REBACK", how).world(move |world| {
            let mut window = world.create(numbered(world, len))?;
            reached_by(world, &window, "cma");
            let why = unmapped(world, &window);
            assert!(why.contains(want), "{why}");
            exercise(world, &mut window, len)?;
            exercised(world, &window.free()?);
            assert_eq!(reback::backed_bytes(), 0);
            Ok(())
        });
    };
    case(
        "never",
        1_000,
        "lent memory is not re-backed: WINDLASS_REBACK forbids it",
    );
    case(
        "whole-pages",
        1_001,
        "other data lies on its first or last page",
    );
}

/// Copying forbidden too: the target's helper does it, and mapping does not need it.
#[test]
fn without_cross_memory_copy() {
    for (how, mechanism) in [("never", "udapl"), ("auto", "vhshm")] {
        let spec = spec("without_cross_memory_copy").ranks(2).case(how);
        let body = || {
            forbid(Forbidden::CrossCopy)?;
            support::with_world(|world| {
                let mut window = world.create(numbered(world, 3_001))?;
                reached_by(world, &window, mechanism);
                let route = route_to(&window, Rank(1 - world.rank().0));
                if mechanism == "udapl" {
                    let why = route.rejected.iter().find(|(name, _)| *name == "cma");
                    let (_, why) = why.ok_or("cma has no reason")?;
                    assert!(why.contains("the kernel refuses the copy"), "{why}");
                }
                exercise(world, &mut window, 3_001)?;
                exercised(world, &window.free()?);
                Ok(())
            })
        };
        spec.env("WINDLASS_REBACK", how)
            .run(body, Report::succeeded);
    }
}

/// Who cannot map it uses what it has: VEs, and ranks of other nodes.
#[test]
fn mixed_peers() {
    let spec = spec("mixed_peers").nodes(2).ves(1).place("vh:2,ve0:1");
    spec.world(|world| {
        let len = 2_000;
        let mut window = world.create(numbered(world, len))?;
        let ve = |rank: u32| rank % 3 == 2;
        for route in window.routes() {
            let (me, to) = (world.rank().0, route.target.0);
            let want = match () {
                () if me == to => "loopback",
                () if me / 3 != to / 3 => "udapl",
                () if ve(me) || ve(to) => "cma",
                () => "vhshm",
            };
            assert_eq!(route.mechanism, want, "{me} -> {to}: {:?}", route.rejected);
        }
        exercise(world, &mut window, len)?;
        exercised(world, &window.free()?);
        Ok(())
    });
}
