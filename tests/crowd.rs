//! Many more ranks than cpus: everything finishes, and what a rank keeps per peer is told.

mod support;

use std::fs;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use support::{Done, Report, Spec};
use windlass::{LockKind, Op, Rank, Window, World};

const MANY: u32 = 64;
const FEW: u32 = 8;
const WINDOWS: u64 = 100;

/// The cpus of all ranks, told by the test's own process.
const CPUS: &str = "WLTEST_CPUS";

/// At most two of the cpus of this process.
fn two_cpus() -> String {
    let allowed = sched_getaffinity(None).expect("a process sees its own cpus");
    let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    let cpus: Vec<String> = cpus.take(2).map(|cpu| cpu.to_string()).collect();
    cpus.join(",")
}

/// Confines this rank to the cpus told, however many the machine has: its threads inherit them.
fn confined(body: impl FnOnce(&World) -> Done) -> Done {
    let told = std::env::var(CPUS)?;
    let mut cpus = CpuSet::new();
    for cpu in told.split(',') {
        cpus.set(cpu.parse()?);
    }
    sched_setaffinity(None, &cpus)?;
    support::with_world(body)
}

/// Memory of this process that is resident now, in bytes: its own, and pages it shares.
fn resident() -> (i64, i64) {
    let status = fs::read_to_string("/proc/self/status").expect("a process sees its own status");
    let of = |key: &str| -> i64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<i64>().ok())
            .map_or(0, |kib| kib * 1024)
    };
    (of("RssAnon:"), of("RssShmem:"))
}

/// All ranks put to all in one epoch; what arrived is complete.
fn fences(world: &World, window: &mut Window<u64>) -> Done {
    let me = world.rank().0 as usize;
    let mut epoch = window.fence()?;
    for turn in 1..=10 {
        for target in world.ranks() {
            epoch.put(&[turn], target, me)?;
        }
        epoch = epoch.next()?;
        assert!(epoch.local().to_vec().iter().all(|&word| word == turn));
        epoch = epoch.next()?;
    }
    epoch.end()?;
    Ok(())
}

fn ring(world: &World, window: &Window<u64>) -> Done {
    let at = |by: u32| Rank((world.rank().0 + by) % world.size());
    let origins = world.group().incl(&[at(world.size() - 1)])?;
    let targets = world.group().incl(&[at(1)])?;
    for turn in 1..=20 {
        let exposure = window.post(&origins)?;
        let access = window.start(&targets)?;
        access.put(&[turn << 8 | u64::from(world.rank().0)], at(1), 0)?;
        access.end()?;
        exposure.wait()?;
        let left = u64::from(at(world.size() - 1).0);
        assert_eq!(window.local().load(0), turn << 8 | left);
    }
    Ok(())
}

/// All take the same lock: exclusively, to change two words in two steps; shared, to compare them.
fn contention(world: &World, window: &mut Window<u64>) -> Done {
    const TURNS: u64 = 4;
    let (first, last) = (0, world.size() as usize - 1);
    window.lock_local()?.fill(0);
    world.barrier()?;
    for _ in 0..TURNS {
        let lock = window.lock(Rank(0), LockKind::Exclusive)?;
        let mut seen = [0];
        lock.get(&mut seen, Rank(0), first)?;
        lock.put(&[seen[0] + 1], Rank(0), first)?;
        lock.put(&[seen[0] + 1], Rank(0), last)?;
        lock.end()?;
        let lock = window.lock(Rank(0), LockKind::Shared)?;
        let (mut one, mut other) = ([0], [0]);
        lock.get(&mut one, Rank(0), first)?;
        lock.get(&mut other, Rank(0), last)?;
        assert_eq!(one, other, "a writer is inside");
        lock.end()?;
    }
    world.barrier()?;
    let mut seen = [0];
    window
        .lock(Rank(0), LockKind::Shared)?
        .get(&mut seen, Rank(0), first)?;
    assert_eq!(seen[0], TURNS * u64::from(world.size()));
    Ok(())
}

/// Windows that live all at once and are used; what they cost this rank.
fn creation(world: &World, count: u64) -> Done {
    let right = Rank((world.rank().0 + 1) % world.size());
    let left = Rank((world.rank().0 + world.size() - 1) % world.size());
    let (own, shared) = resident();
    let mut windows = Vec::new();
    for _ in 0..count {
        windows.push(world.allocate::<u64>(8)?);
    }
    let (own_then, shared_then) = resident();
    for (number, window) in windows.iter_mut().enumerate() {
        let all = window.lock_all()?;
        all.accumulate(&[u64::from(world.rank().0) + 1], right, number % 8, Op::Sum)?;
        all.end()?;
    }
    world.barrier()?;
    for (number, window) in windows.into_iter().enumerate() {
        let found = window.local().load(number % 8);
        assert_eq!(found, u64::from(left.0) + 1, "window {number}");
        window.free()?;
    }
    if world.rank() == Rank(world.size() / 2) {
        println!("OWN={own} SHARED={shared}");
        println!("GREW={} MAPPED={}", own_then - own, shared_then - shared);
    }
    Ok(())
}

fn crowd(world: &World, windows: u64) -> Done {
    let mut window = world.allocate::<u64>(world.size() as usize)?;
    fences(world, &mut window)?;
    ring(world, &window)?;
    contention(world, &mut window)?;
    window.free()?;
    creation(world, windows)
}

fn told(report: &Report, key: &str) -> i64 {
    let value = report.value(key).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {key}: {}", report.text()))
}

/// One rank's resident memory in jobs of few and of many ranks, and what 100 windows add to it.
#[test]
fn many_ranks_on_few_cpus() {
    let mut own = Vec::new();
    for ranks in [FEW, MANY] {
        let spec = Spec::new("many_ranks_on_few_cpus").case(ranks.to_string());
        let spec = spec.ranks(ranks).limit(Duration::from_secs(180));
        spec.env(CPUS, two_cpus()).run(
            || {
                confined(|world| {
                    let cpus = std::thread::available_parallelism()?.get();
                    assert!(cpus <= 2, "{cpus} cpus");
                    crowd(world, WINDOWS)
                })
            },
            |report| {
                report.succeeded();
                let (grew, mapped) = (told(report, "GREW"), told(report, "MAPPED"));
                let each = WINDOWS as i64 * i64::from(ranks);
                eprintln!(
                    "{ranks} ranks: a rank has {} KiB of its own and {} KiB shared; a window adds {} \
                     and {} bytes per peer",
                    told(report, "OWN") / 1024,
                    told(report, "SHARED") / 1024,
                    grew / each,
                    mapped / each,
                );
                own.push((told(report, "OWN"), told(report, "SHARED")));
            },
        );
    }
    if let [(few, few_shared), (many, many_shared)] = own[..] {
        let peers = i64::from(MANY - FEW);
        eprintln!(
            "a peer costs a rank {} bytes of its own and {} shared",
            (many - few) / peers,
            (many_shared - few_shared) / peers
        );
    }
}

/// The same crowd in many places: two nodes, VEs and hosts.
#[test]
fn many_ranks_in_many_places() {
    let spec = Spec::new("many_ranks_in_many_places")
        .nodes(2)
        .ves(2)
        .place("ve0:4,ve1:4,vh:8");
    let spec = spec.limit(Duration::from_secs(180)).env(CPUS, two_cpus());
    spec.run(
        || confined(|world| crowd(world, 10)),
        |report| report.succeeded(),
    );
}
