//! Deaths: whoever goes, and whenever, the job ends within two seconds, says who it was and how,
//! and leaves nothing (reliability A1, A3, A4, A9).
//!
//! `WLTEST_ROUNDS=n` sets how often each death is repeated (20 by default).

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::process::{die, die_after, wait_until};
use support::{Done, Report, RuntimeDir, Spec};
use windlass::{LockKind, Op, Rank, Window, World};
use windlass_launcher::{End, Fate};

/// The promise (reliability A3, A4).
const GONE: Duration = Duration::from_secs(2);
/// Who dies.
const VICTIM: Rank = Rank(1);

fn rounds() -> u32 {
    std::env::var("WLTEST_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

/// The victim dies in the middle of something; all rounds of a phase.
///
/// `body` is given the round and knows when to die; it must not end before the victim does.
fn deaths(spec: Spec, calls: &[&str], body: impl Fn(u32) -> Done) {
    for round in 0..rounds() {
        let spec = spec.clone().env("WLTEST_ROUND", round.to_string());
        let body = || {
            let round = std::env::var("WLTEST_ROUND")?.parse()?;
            body(round)?;
            Err("a survivor came to the end of the job's program".into())
        };
        spec.run(body, |report| check(report, calls));
    }
}

fn check(report: &Report, calls: &[&str]) {
    let text = || report.text();
    let outcome = &report.outcome;
    assert_eq!(outcome.exit_code, 128 + 9, "{}", text());
    let victim = &outcome.ranks[VICTIM.0 as usize];
    assert_eq!(victim.status, End::Signalled(9), "{}", text());
    assert_eq!(victim.fate, Fate::Failed, "{}", text());
    let said = |word: &str| outcome.message.contains(word);
    assert!(
        said("rank 1 ") && said("SIGKILL"),
        "the message names neither rank nor signal: {}",
        text()
    );
    let named = calls.is_empty() || calls.iter().any(|call| said(&format!("in {call}")));
    assert!(named, "the message names none of {calls:?}: {}", text());
    let at: u64 = report
        .value("DEATH")
        .and_then(|at| at.parse().ok())
        .expect("the victim says when");
    let took = Duration::from_nanos(report.ended_ns.saturating_sub(at));
    let stalled = report.stalled;
    assert!(
        took < GONE + stalled,
        "{took:?} from the death to the end of the job, {stalled:?} of the job without a processor: {}",
        text()
    );
}

/// Until the victim, which is about to make a call, is in it for sure.
const INSIDE: Duration = Duration::from_millis(80);

/// For ever, as a rank that computes: it makes no call.
fn compute() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn is_victim(world: &World) -> bool {
    world.rank() == VICTIM
}

/// A delay that differs from round to round, so that deaths hit different instants.
fn delay(round: u32) -> Duration {
    Duration::from_micros(u64::from(round) * 377 % 6000)
}

/// Whatever a survivor sees, an error or nothing, the launcher ends it; it never returns.
fn survive<T>(_: windlass::Result<T>) -> Done {
    compute()
}

fn mixed(test: &'static str) -> Spec {
    Spec::new(test).ves(1).place("ve0:2,vh:2")
}

/// The victim never joins.
fn unmet(spec: Spec) {
    deaths(spec, &[], |round| {
        if support::my_rank() == VICTIM.0 {
            std::thread::sleep(delay(round));
            die();
        }
        survive(windlass::init())
    });
}

#[test]
fn before_rendezvous() {
    unmet(mixed("before_rendezvous"));
}

#[test]
fn before_rendezvous_of_two_nodes() {
    let spec = Spec::new("before_rendezvous_of_two_nodes");
    unmet(spec.nodes(2).place("vh:2"));
}

#[test]
fn in_rendezvous() {
    // Anything from the program's start to the end of init, in steps of the delay.
    deaths(mixed("in_rendezvous"), &[], |round| {
        if support::my_rank() == VICTIM.0 {
            die_after(delay(round));
            let _world = windlass::init();
            compute();
        }
        let world = windlass::init()?;
        survive(world.barrier())
    });
}

#[test]
fn in_window_creation() {
    deaths(mixed("in_window_creation"), &[], |round| {
        let world = windlass::init()?;
        world.barrier()?;
        if is_victim(&world) {
            if round % 2 == 0 {
                // The others wait in the creation for this rank.
                std::thread::sleep(Duration::from_millis(5));
                die();
            }
            die_after(delay(round));
            loop {
                drop(world.allocate::<u64>(1 << 16));
            }
        }
        loop {
            if let Err(error) = world.allocate::<u64>(1 << 16) {
                survive::<()>(Err(error))?;
            }
        }
    });
}

#[test]
fn waiting_in_creation() {
    deaths(
        mixed("waiting_in_creation"),
        &["create", "window creation"],
        |_| {
            let world = windlass::init()?;
            world.barrier()?;
            if is_victim(&world) {
                die_after(INSIDE);
                // Nobody else comes.
                return survive(world.allocate::<u64>(1000));
            }
            compute()
        },
    );
}

/// The victim waits in a fence to which not all come.
fn fenced(spec: Spec) {
    deaths(spec, &["fence"], |round| {
        let world = windlass::init()?;
        let mut window = world.allocate::<u64>(1000)?;
        let epoch = window.fence()?;
        if is_victim(&world) {
            die_after(INSIDE);
            return survive(epoch.end());
        }
        if round % 2 == 0 || world.rank() == Rank(0) {
            compute();
        }
        survive(epoch.end())
    });
}

#[test]
fn inside_fence() {
    fenced(mixed("inside_fence"));
}

#[test]
fn inside_fence_of_two_nodes() {
    fenced(
        Spec::new("inside_fence_of_two_nodes")
            .nodes(2)
            .place("vh:2"),
    );
}

/// Windows on VEs by a loaded library: the victim's VE processes go with it, those of the others with the job.
#[test]
fn with_processes_on_ves() {
    let spec = Spec::new("with_processes_on_ves").nodes(2).ves(1);
    deaths(spec.place("vh:1,ve0:1").native(), &[], |round| {
        if support::my_rank() == VICTIM.0 {
            // While its process is made, and later.
            die_after(Duration::from_millis(u64::from(round) * 5));
        }
        let world = windlass::init()?;
        let mut window = world.allocate::<u64>(1000)?;
        let epoch = window.lock_all()?;
        let steps = || -> windlass::Result<()> {
            loop {
                for target in world.ranks() {
                    epoch.put(&[u64::from(round); 900], target, 100)?;
                    epoch.accumulate(&[1; 10], target, 0, Op::Sum)?;
                    epoch.flush(target)?;
                }
            }
        };
        survive(steps())
    });
}

/// A process on a VE dies: its rank is told at the next access, and the window still ends for all.
#[test]
fn a_rank_outlives_its_process_on_a_ve() {
    let spec = Spec::new("a_rank_outlives_its_process_on_a_ve").ves(1);
    spec.place("ve0:2").native().world(|world| {
        let mut window = world.allocate::<u64>(10)?;
        window.lock_local()?.fill(7);
        world.barrier()?;
        if world.rank() == VICTIM {
            let mine = support::process::children(std::process::id() as i32);
            assert!(!mine.is_empty(), "a rank on a VE has a process there");
            support::process::kill_all(&mine);
            let lost = || window.local().read(0, &mut [0; 1]).is_err();
            assert!(support::process::wait_until(GONE, lost).is_some());
            let error = window.local().write(0, &[1]).expect_err("it is gone");
            assert_eq!(error.class().name(), "MPI_ERR_OTHER", "{error}");
            let text = format!("{error:?}");
            assert!(text.contains("veo_hmemcpy"), "{text}");
            let error = window.lock_local().err().expect("nothing can be copied");
            let text = format!("{error:?}");
            assert!(text.contains("veo_hmemcpy"), "{text}");
        } else {
            assert_eq!(window.local().to_vec(), [7; 10]);
        }
        world.barrier()?;
        window.free()?;
        Ok(())
    });
}

/// Ranks on two nodes, so that words of this one and of another are waited for.
fn spread(test: &'static str) -> Spec {
    Spec::new(test).nodes(2).ves(1).place("ve0:1,vh:1")
}

/// The victim waits for posts that nobody makes.
#[test]
fn inside_start() {
    deaths(spread("inside_start"), &["start"], |round| {
        let world = windlass::init()?;
        let window = world.allocate::<u64>(10)?;
        world.barrier()?;
        let all = world.group();
        if is_victim(&world) {
            die_after(INSIDE);
            return survive(window.start(&all));
        }
        if round % 2 == 0 {
            compute();
        }
        survive(window.start(&all))
    });
}

/// The victim waits for accesses that nobody begins.
#[test]
fn inside_wait() {
    deaths(spread("inside_wait"), &["wait"], |round| {
        let world = windlass::init()?;
        let window = world.allocate::<u64>(10)?;
        world.barrier()?;
        let exposure = window.post(&world.group())?;
        if is_victim(&world) {
            die_after(INSIDE);
            return survive(exposure.wait());
        }
        if round % 2 == 0 {
            compute();
        }
        survive(exposure.wait())
    });
}

/// Rounds of all with all, with or without asking: the victim dies in any of their calls.
#[test]
fn in_rounds_of_post_and_start() {
    deaths(spread("in_rounds_of_post_and_start"), &[], |round| {
        let world = windlass::init()?;
        let window = world.allocate::<u64>(1000)?;
        world.barrier()?;
        if is_victim(&world) {
            die_after(Duration::from_millis(2) + delay(round));
        }
        let all = world.group();
        let rounds = || -> windlass::Result<()> {
            loop {
                let mut exposure = window.post(&all)?;
                let access = window.start(&all)?;
                for target in world.ranks() {
                    access.put(&[u64::from(round); 1000], target, 0)?;
                }
                access.end()?;
                if round % 2 == 0 {
                    exposure.wait()?;
                } else {
                    while let Some(open) = exposure.test()? {
                        exposure = open;
                    }
                }
            }
        };
        survive(rounds())
    });
}

/// The victim waits for a notification that nobody makes.
#[test]
fn waiting_for_a_notification() {
    let spec = spread("waiting_for_a_notification");
    deaths(spec, &["waiting for a notification"], |round| {
        let world = windlass::init()?;
        let window = world.allocate::<u64>(10)?;
        world.barrier()?;
        if is_victim(&world) {
            die_after(INSIDE);
            return survive(window.wait_notify(3, 1));
        }
        match round % 3 {
            0 => compute(),
            1 => survive(window.wait_notify(3, 1)),
            _ => survive(window.wait_notify_any(&[1, 2])),
        }
    });
}

/// What a survivor waits for when the victim dies.
#[derive(Clone, Copy, Debug)]
enum Waits {
    Fence,
    Barrier,
    Lock,
    Start,
    Wait,
    Test,
    Notify,
    NotifyAny,
    TestNotify,
}

const WAITS: [Waits; 9] = [
    Waits::Fence,
    Waits::Barrier,
    Waits::Lock,
    Waits::Start,
    Waits::Wait,
    Waits::Test,
    Waits::Notify,
    Waits::NotifyAny,
    Waits::TestNotify,
];

/// Waits for what only the victim could bring about.
fn wait_for_the_victim(
    world: &World,
    window: &mut Window<u64>,
    waits: Waits,
) -> windlass::Result<()> {
    let victim = world.group().incl(&[VICTIM])?;
    match waits {
        Waits::Fence => window.fence()?.end(),
        Waits::Barrier => world.barrier(),
        Waits::Lock => window.lock(VICTIM, LockKind::Shared)?.end(),
        Waits::Start => window.start(&victim)?.end(),
        Waits::Wait => window.post(&victim)?.wait(),
        Waits::Test => {
            let mut exposure = window.post(&victim)?;
            while let Some(open) = exposure.test()? {
                std::thread::yield_now();
                exposure = open;
            }
            Ok(())
        }
        Waits::Notify => window.wait_notify(7, 1),
        Waits::NotifyAny => window.wait_notify_any(&[0, 63]).map(drop),
        Waits::TestNotify => {
            while !window.test_notify(7, 1)? {
                std::thread::yield_now();
            }
            Ok(())
        }
    }
}

/// The victim dies with its own lock held while the others wait for it, each in its way; `then` is
/// given what they are told.
fn one_dies_and_the_others_wait(turn: u32, then: impl FnOnce(windlass::Error) -> Done) -> Done {
    let world = windlass::init()?;
    let mut window = world.allocate::<u64>(10)?;
    if is_victim(&world) {
        let _lock = window.lock(VICTIM, LockKind::Exclusive)?;
        world.barrier()?;
        std::thread::sleep(Duration::from_millis(20));
        die();
    }
    world.barrier()?;
    let waits = WAITS[(world.rank().0 + turn) as usize % WAITS.len()];
    let told = wait_for_the_victim(&world, &mut window, waits);
    then(told.expect_err("the victim does nothing"))
}

/// A death ends every wait of the survivors, on its own node and on others, with an error that
/// names it: nobody hangs until the launcher ends the job.
#[test]
fn survivors_are_told() {
    for turn in [0, 4] {
        let told = |error| -> Done {
            let lost = matches!(error, windlass::Error::PeerLost { rank, .. } if rank == VICTIM.0);
            println!("TOLD={lost} {error:?}");
            // Whoever left now would be what the others are told of.
            compute()
        };
        let body = || one_dies_and_the_others_wait(turn, told);
        let spec = Spec::new("survivors_are_told").case(turn.to_string());
        let spec = spec.nodes(2).ves(1).place("ve0:1,vh:4").stubborn();
        spec.run(body, |report| {
            check(report, &[]);
            let text = report.outcome.stdout_text();
            let told = text.matches("TOLD=true").count();
            assert_eq!(told, WAITS.len(), "{}", report.text());
        });
    }
}

/// Survivors that end at once by what they are told, maybe before the launcher has seen the death:
/// they are not taken for its cause.
#[test]
fn who_ends_by_a_death_is_not_blamed() {
    for round in 0..rounds() {
        let body = || one_dies_and_the_others_wait(round, |error| Err(error.into()));
        let spec = spread("who_ends_by_a_death_is_not_blamed").case(round.to_string());
        spec.stubborn().run(body, |report| check(report, &[]));
    }
}

/// Rank 0 holds its own lock and everybody else waits for it.
fn waiting_for_a_lock(world: &World) -> Done {
    let window = world.allocate::<u64>(10)?;
    if world.rank() == Rank(0) {
        let _lock = window.lock(Rank(0), LockKind::Exclusive)?;
        world.barrier()?;
        compute();
    }
    world.barrier()?;
    if is_victim(world) {
        die_after(INSIDE);
    }
    let lock = window.lock(Rank(0), LockKind::Exclusive);
    drop(lock);
    compute()
}

#[test]
fn waiting_for_a_lock_of_the_node() {
    deaths(mixed("waiting_for_a_lock_of_the_node"), &["lock"], |_| {
        waiting_for_a_lock(&windlass::init()?)
    });
}

#[test]
fn waiting_for_a_lock_of_another_node() {
    let spec = Spec::new("waiting_for_a_lock_of_another_node")
        .nodes(2)
        .place("vh:1");
    deaths(spec, &["lock"], |_| waiting_for_a_lock(&windlass::init()?));
}

#[test]
fn holding_a_lock() {
    deaths(mixed("holding_a_lock"), &[], |round| {
        let world = windlass::init()?;
        let window = world.allocate::<u64>(10)?;
        let kind = if round % 2 == 0 {
            LockKind::Exclusive
        } else {
            LockKind::Shared
        };
        if is_victim(&world) {
            let lock = window.lock(Rank(2), kind)?;
            lock.put(&[1], Rank(2), 3)?;
            world.barrier()?;
            std::thread::sleep(Duration::from_millis(5));
            die();
        }
        world.barrier()?;
        survive(window.lock(Rank(2), LockKind::Exclusive))
    });
}

/// Endless puts, gets and updates from `origin` to `target`, one of whom dies.
fn in_put(world: &World, mut window: Window<u8>, round: u32, mechanism: &str) -> Done {
    // Either end of the route dies in turn.
    let (origin, target) = if round.is_multiple_of(2) {
        (Rank(1), Rank(0))
    } else {
        (Rank(0), Rank(1))
    };
    if world.rank() == origin {
        let route = window.routes().find(|route| route.target == target);
        assert_eq!(route.map(|route| route.mechanism), Some(mechanism));
    }
    let epoch = window.lock_all()?;
    world.barrier()?;
    if is_victim(world) {
        die_after(Duration::from_millis(3) + delay(round));
    }
    if world.rank() != origin {
        compute();
    }
    let data = vec![3; 1 << 20];
    loop {
        // Towards a dead rank these end in an error, and then the launcher ends this one.
        if epoch
            .put(&data, target, 1)
            .and_then(|()| epoch.flush(target))
            .is_err()
        {
            compute();
        }
    }
}

fn dies_in_put(spec: Spec, route: &'static str, lent: bool) {
    let spec = spec.env("WINDLASS_ROUTE", route);
    let mechanism = route.split(',').next().unwrap_or_default();
    deaths(spec, &[], |round| {
        let world = windlass::init()?;
        let window = if lent {
            world.create(vec![0; 2 << 20])?.without_loan()
        } else {
            world.allocate(2 << 20)?
        };
        in_put(&world, window, round, mechanism)
    });
}

#[test]
fn in_put_by_ve_dma() {
    dies_in_put(
        Spec::new("in_put_by_ve_dma").ves(2).place("ve0:1,ve1:1"),
        "veshm",
        false,
    );
}

#[test]
fn in_put_by_veo() {
    // Both directions are needed: VE memory from the host on either side.
    let spec = Spec::new("in_put_by_veo")
        .ves(1)
        .place("vh:1,ve0:1")
        .env("WINDLASS_ROUTE", "veo,udapl");
    deaths(spec, &[], |round| {
        let world = windlass::init()?;
        let mut window = world.allocate::<u8>(2 << 20)?;
        if world.rank() == Rank(0) {
            let route = window.routes().nth(1);
            assert_eq!(route.map(|route| route.mechanism), Some("veo"));
        }
        let epoch = window.lock_all()?;
        world.barrier()?;
        if is_victim(&world) {
            // The target dies while the host transfers.
            std::thread::sleep(Duration::from_millis(3) + delay(round));
            die();
        }
        let data = vec![3; 1 << 20];
        loop {
            if epoch
                .put(&data, VICTIM, 1)
                .and_then(|()| epoch.flush(VICTIM))
                .is_err()
            {
                compute();
            }
        }
    });
}

#[test]
fn in_put_by_veo_as_origin() {
    let spec = Spec::new("in_put_by_veo_as_origin")
        .ves(1)
        .place("ve0:1,vh:1");
    let spec = spec.env("WINDLASS_ROUTE", "veo,udapl");
    deaths(spec, &["put", "flush"], |round| {
        let world = windlass::init()?;
        let mut window = world.allocate::<u8>(2 << 20)?;
        let epoch = window.lock_all()?;
        world.barrier()?;
        if !is_victim(&world) {
            compute();
        }
        die_after(Duration::from_millis(3) + delay(round));
        let data = vec![3; 1 << 20];
        loop {
            epoch.put(&data, Rank(0), 1)?;
            epoch.flush(Rank(0))?;
        }
    });
}

#[test]
fn in_put_by_udapl() {
    dies_in_put(
        Spec::new("in_put_by_udapl").nodes(2).place("vh:1"),
        "udapl",
        false,
    );
}

#[test]
fn in_put_by_libfabric() {
    if let Some(reason) = support::ofi::missing() {
        return eprintln!("in_put_by_libfabric: skipped: {reason}");
    }
    dies_in_put(
        Spec::new("in_put_by_libfabric").nodes(2).place("vh:1"),
        "ofi",
        false,
    );
}

#[test]
fn in_put_by_libdat2() {
    if let Some(reason) = support::libdat2::missing() {
        return eprintln!("in_put_by_libdat2: skipped: {reason}");
    }
    let spec = Spec::new("in_put_by_libdat2").nodes(2).place("vh:1");
    dies_in_put(spec.libdat2(), "udapl", false);
}

#[test]
fn in_put_by_an_imported_segment() {
    let spec = Spec::new("in_put_by_an_imported_segment").place("vh:2");
    dies_in_put(spec, "rsm", false);
}

#[test]
fn in_put_by_cross_memory_copy() {
    dies_in_put(
        Spec::new("in_put_by_cross_memory_copy").place("vh:2"),
        "cma",
        true,
    );
}

#[test]
fn in_updates_by_the_targets_helper() {
    let spec = Spec::new("in_updates_by_the_targets_helper")
        .nodes(2)
        .place("vh:1");
    deaths(spec, &[], |round| {
        let world = windlass::init()?;
        let mut window = world.allocate::<u64>(100)?;
        let other = Rank(1 - world.rank().0);
        let epoch = window.lock_all()?;
        world.barrier()?;
        if is_victim(&world) {
            die_after(Duration::from_millis(3) + delay(round));
        }
        while epoch.fetch_and_op(1, other, 7, Op::Sum).is_ok() {}
        compute()
    });
}

/// The victim is killed from outside, by its process id, as an operator would.
#[test]
fn killed_from_outside_while_computing() {
    for _ in 0..rounds() {
        let spec = mixed("killed_from_outside_while_computing");
        let body = || -> Done {
            let world = windlass::init()?;
            let _window = world.allocate::<u64>(10)?;
            world.barrier()?;
            compute()
        };
        let during = |running: &windlass_launcher::Running| {
            std::thread::sleep(Duration::from_millis(60));
            running.kill(1, 9).expect("rank 1 lives");
        };
        spec.run_during(body, during, |report| {
            assert_eq!(report.outcome.exit_code, 137, "{}", report.text());
            let message = &report.outcome.message;
            assert!(
                message.contains("rank 1 ") && message.contains("SIGKILL"),
                "{message}"
            );
        });
    }
}

/// Two of four ranks at once: both are named.
#[test]
fn two_die_together() {
    for _ in 0..rounds().div_ceil(2) {
        let body = || -> Done {
            let world = windlass::init()?;
            let mut window = world.allocate::<u64>(10)?;
            let epoch = window.fence()?;
            if world.rank().0 % 2 == 1 {
                die();
            }
            survive(epoch.end())
        };
        mixed("two_die_together").run(body, |report| {
            assert_eq!(report.outcome.exit_code, 137, "{}", report.text());
            assert!(
                report.outcome.message.contains("SIGKILL"),
                "{}",
                report.text()
            );
        });
    }
}

/// The whole job at once.
#[test]
fn all_die_together() {
    for _ in 0..rounds().div_ceil(2) {
        let body = || -> Done {
            let world = windlass::init()?;
            let _window = world.allocate::<u64>(1 << 16)?;
            world.barrier()?;
            die()
        };
        mixed("all_die_together").run(body, |report| {
            assert_eq!(report.outcome.exit_code, 137, "{}", report.text());
        });
    }
}

#[test]
fn leaving_with_status_0_is_a_failure() {
    for _ in 0..rounds() {
        let body = || -> Done {
            let world = windlass::init()?;
            let mut window = world.allocate::<u64>(10)?;
            let epoch = window.fence()?;
            if is_victim(&world) {
                std::process::exit(0);
            }
            survive(epoch.end())
        };
        mixed("leaving_with_status_0_is_a_failure").run(body, |report| {
            let victim = &report.outcome.ranks[1];
            assert_eq!(
                (victim.status, victim.fate),
                (End::Exited(0), Fate::Unended),
                "{}",
                report.text()
            );
            assert_eq!(report.outcome.exit_code, 1, "{}", report.text());
            let message = &report.outcome.message;
            assert!(
                message.contains("rank 1 ") && message.contains("without ending"),
                "{message}"
            );
        });
    }
}

#[test]
fn a_panic_is_a_failure_with_its_status() {
    let body = || -> Done {
        let world = windlass::init()?;
        let mut window = world.allocate::<u64>(10)?;
        let epoch = window.fence()?;
        if is_victim(&world) {
            panic!("rank 1 panics on purpose");
        }
        survive(epoch.end())
    };
    mixed("a_panic_is_a_failure_with_its_status").run(body, |report| {
        assert_eq!(report.outcome.exit_code, 101, "{}", report.text());
        assert!(
            report.outcome.stderr_text().contains("on purpose"),
            "{}",
            report.text()
        );
        assert!(
            report.outcome.message.contains("rank 1 "),
            "{}",
            report.text()
        );
    });
}

#[test]
fn abort_ends_all_with_its_code_and_message() {
    let body = || -> Done {
        let world = windlass::init()?;
        let mut window = world.allocate::<u64>(10)?;
        let epoch = window.fence()?;
        if is_victim(&world) {
            world.abort(42, "the input makes no sense");
        }
        survive(epoch.end())
    };
    mixed("abort_ends_all_with_its_code_and_message").run(body, |report| {
        assert_eq!(report.outcome.exit_code, 42, "{}", report.text());
        let message = &report.outcome.message;
        assert!(
            message.contains("rank 1") && message.contains("makes no sense"),
            "{message}"
        );
    });
}

/// Memory that is borrowed by a window is never used again while peers may write to it: where a
/// program has put another window in the place of the one that is freed, it ends instead.
#[test]
fn a_borrow_does_not_end_before_its_window() {
    let body = || -> Done {
        let world = windlass::init()?;
        let mut memory = [0u64; 1000];
        world.create_scoped(&mut memory, |outer| {
            let mut inner_memory = [0u64; 1000];
            let swapped = world.create_scoped(&mut inner_memory, |inner| {
                std::mem::swap(outer, inner);
            });
            println!("RETURNED={swapped:?}");
        })?;
        Ok(())
    };
    let spec = Spec::new("a_borrow_does_not_end_before_its_window").ranks(1);
    spec.run(body, |report| {
        let end = &report.outcome.ranks[0];
        assert_eq!(end.status, End::Signalled(6), "{}", report.text());
        assert_eq!(report.value("RETURNED"), None, "{}", report.text());
    });
}

/// A rank that drops its window instead of freeing it: the others are told, nobody hangs.
#[test]
fn a_dropped_window_is_told_to_the_others() {
    let body = || {
        support::with_world(|world| {
            let mut window = world.allocate::<u64>(10)?;
            if is_victim(world) {
                drop(window);
            } else {
                let error = window
                    .fence()
                    .map(drop)
                    .expect_err("rank 1 has left the window");
                assert!(support::chain(&error).contains("rank 1"), "{error:?}");
            }
            Ok(())
        })
    };
    mixed("a_dropped_window_is_told_to_the_others").run(body, Report::succeeded);
}

/// A rank that is stopped for a while is not dead (reliability A11).
#[test]
fn a_stopped_rank_is_waited_for() {
    let spec = mixed("a_stopped_rank_is_waited_for");
    let body = || {
        support::with_world(|world| {
            let mut window = world.allocate::<u64>(4)?;
            let mut epoch = window.fence()?;
            let right = Rank((world.rank().0 + 1) % world.size());
            let begin = std::time::Instant::now();
            let mut count = 0;
            // All ranks make the same number of rounds: rank 0 says when it is enough.
            loop {
                count += 1;
                let enough = begin.elapsed() > Duration::from_millis(3500);
                if world.rank() == Rank(0) {
                    for target in world.ranks() {
                        epoch.put(&[u64::from(enough)], target, 1)?;
                    }
                }
                epoch.put(&[count], right, 0)?;
                epoch = epoch.next()?;
                assert_eq!(epoch.local().load(0), count);
                let last = epoch.local().load(1) == 1;
                epoch = epoch.next()?;
                if last {
                    break;
                }
            }
            epoch.end()?;
            window.free()?;
            Ok(())
        })
    };
    let during = |running: &windlass_launcher::Running| {
        std::thread::sleep(Duration::from_millis(200));
        running.kill(1, 19).expect("rank 1 lives");
        std::thread::sleep(Duration::from_millis(2500));
        running.kill(1, 18).expect("rank 1 lives");
    };
    spec.run_during(body, during, Report::succeeded);
}

/// What the ranks do while their launcher is killed.
fn busy(what: &str) -> Done {
    if what == "init" && support::my_rank() == 3 {
        println!("READY {}", support::my_rank());
        compute();
    }
    if what == "init" {
        println!("READY {}", support::my_rank());
    }
    let world = windlass::init()?;
    let mut window = world.allocate::<u64>(1000)?;
    world.barrier()?;
    println!("READY {}", world.rank());
    match what {
        "fence" if is_victim(&world) => compute(),
        "fence" => survive(window.fence()),
        "lock" => {
            let target = Rank(0);
            let _lock = window.lock(target, LockKind::Exclusive);
            compute()
        }
        "put" => {
            let epoch = window.lock_all()?;
            let right = Rank((world.rank().0 + 1) % world.size());
            loop {
                epoch.put(&[1; 1000], right, 0)?;
                epoch.flush(right)?;
            }
        }
        _ => compute(),
    }
}

/// The launcher is killed: its ranks go, and its directories with them; the next job runs as ever.
fn launcher_dies(test: &'static str, spec: Spec, what: &'static str) {
    let base = RuntimeDir::new();
    for _ in 0..rounds() {
        let _alone = support::leaks::alone_unless_rank();
        let killed = spec.clone().case(what).launcher(&base, || busy(what));
        let Some(mut launched) = killed else { break };
        launched.lines("READY", 4);
        let before = launched.processes();
        assert_eq!(before.len(), 5, "the launcher and four ranks: {before:?}");
        launched.signal(Signal::KILL);
        let gone = wait_until(GONE, || launched.processes().is_empty());
        let left = launched.processes();
        assert!(
            gone.is_some(),
            "{test}: still there: {}",
            support::process::stacks(&left)
        );
        launched.wait();
        // A segment goes with its last attachment, a moment after the environment.
        let ours = || {
            let mut rows = windlass_mem::sysv::list().expect("/proc/sysvipc/shm can be read");
            rows.retain(|row| before.contains(&row.cpid));
            rows
        };
        let swept = wait_until(GONE, || ours().is_empty());
        assert!(swept.is_some(), "{test}: {:?}", ours());
        let cleared = wait_until(GONE, || base.entries().is_empty());
        assert!(cleared.is_some(), "{test}: {:?}", base.entries());
    }
    // The next job runs, and leaves none of its own.
    let _alone = support::leaks::alone_unless_rank();
    let next = spec
        .case("sweep")
        .launcher(&base, || support::with_world(|_| Ok(())));
    let Some(mut launched) = next else { return };
    let (code, said) = launched.wait();
    assert_eq!(code, 0, "{test}: the job after the kills: {said}");
    let left = base.entries();
    assert!(
        left.is_empty(),
        "{test}: left in the runtime directory: {left:?}"
    );
}

#[test]
fn launcher_dies_in_rendezvous() {
    let test = "launcher_dies_in_rendezvous";
    launcher_dies(test, Spec::new(test).ves(1).place("ve0:2,vh:2"), "init");
}

#[test]
fn launcher_dies_while_ranks_compute() {
    let test = "launcher_dies_while_ranks_compute";
    launcher_dies(test, Spec::new(test).ves(1).place("ve0:2,vh:2"), "compute");
}

#[test]
fn launcher_dies_in_fence() {
    let test = "launcher_dies_in_fence";
    launcher_dies(test, Spec::new(test).nodes(2).place("vh:2"), "fence");
}

#[test]
fn launcher_dies_at_a_lock() {
    let test = "launcher_dies_at_a_lock";
    launcher_dies(test, Spec::new(test).ves(1).place("ve0:2,vh:2"), "lock");
}

#[test]
fn launcher_dies_in_put() {
    let test = "launcher_dies_in_put";
    launcher_dies(
        test,
        Spec::new(test).nodes(2).ves(1).place("ve0:1,vh:1"),
        "put",
    );
}

/// SIGTERM to the launcher: forwarded, everybody ends, the code is 128 + 15.
#[test]
fn a_terminated_launcher_ends_its_ranks() {
    let base = RuntimeDir::new();
    for signal in [Signal::TERM, Signal::INT] {
        let _alone = support::leaks::alone_unless_rank();
        let spec = Spec::new("a_terminated_launcher_ends_its_ranks")
            .ves(1)
            .place("ve0:2,vh:2");
        let Some(mut launched) = spec.launcher(&base, || busy("compute")) else {
            return;
        };
        launched.lines("READY", 4);
        launched.signal(signal);
        let (code, said) = launched.wait();
        assert_eq!(code, 128 + signal.as_raw(), "{said}");
        assert!(said.contains("forwarded to the ranks"), "{said}");
        assert!(launched.processes().is_empty(), "a rank lives on");
        let left = base.entries();
        assert!(left.is_empty(), "left in the runtime directory: {left:?}");
    }
}

/// Jobs that do nothing but begin and end, or one barrier more: what a rank sent before it left
/// has to arrive after it has gone (reliability C12).
#[test]
fn short_jobs_end() {
    for round in 0..5 * rounds() {
        let barriers = round % 3;
        let spec = Spec::new("short_jobs_end").case(barriers.to_string());
        let spec = spec.nodes(2).ves(1).place("ve0:1,vh:1");
        spec.world(|world| {
            for _ in 0..barriers {
                world.barrier()?;
            }
            Ok(())
        });
    }
}

/// The same without the collective end: the last clone of the world goes after a barrier.
#[test]
fn short_jobs_leave() {
    for _ in 0..5 * rounds() {
        let spec = Spec::new("short_jobs_leave")
            .nodes(2)
            .ves(1)
            .place("ve0:1,vh:1");
        let body = || -> Done {
            let world = windlass::init()?;
            world.barrier()?;
            Ok(())
        };
        spec.run(body, Report::succeeded);
    }
}
