//! Who leaves first is named, whatever comes of it: a rank that panics, returns early or drops a
//! guard is still on its way out when its peers, told of it, have failed already.
//!
//! `WLTEST_ROUNDS=n` sets how often each is repeated (20 by default).

mod support;

use support::{Done, Report, Spec};
use windlass::{Rank, World};
use windlass_launcher::{End, Fate};

/// Who leaves.
const LEAVER: u32 = 2;
/// What the others exit with once they are told.
const TOLD: i32 = 3;

fn rounds() -> u32 {
    let text = std::env::var("WLTEST_ROUNDS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// All rounds on one node and on two: `body` is what a rank does with its world.
fn leave(test: &'static str, body: impl Fn(World) -> Done, check: impl Fn(&Report)) {
    for nodes in [1, 2] {
        for round in 0..rounds() {
            let spec = Spec::new(test).case(format!("{nodes} nodes, {round}"));
            let spec = spec.ranks(4).nodes(nodes).env("RUST_BACKTRACE", "1");
            let act = || {
                let world = windlass::init()?;
                let me = world.rank().0;
                let done = body(world);
                if let (Err(error), true) = (&done, me != LEAVER) {
                    eprintln!("rank {me}: {error}");
                    std::process::exit(TOLD);
                }
                done
            };
            spec.run(act, &check);
        }
    }
}

/// The leaver is the first whom the message names, and the only one of whom it says how it ended.
fn named(report: &Report, words: &[&str]) {
    let message = &report.outcome.message;
    let first = message.lines().next().unwrap_or("");
    let named = first.starts_with(&format!("rank {LEAVER} "));
    let said = words.iter().all(|word| first.contains(word));
    assert!(named && said, "{first:?}: {words:?}: {}", report.text());
    let others = message.lines().skip(1);
    let blamed = others.filter(|line| line.starts_with("rank ")).count();
    assert_eq!(blamed, 0, "{}", report.text());
}

fn failed_with(report: &Report, status: i32) {
    assert_eq!(report.outcome.exit_code, status, "{}", report.text());
    let end = &report.outcome.ranks[LEAVER as usize];
    let expected = (End::Exited(status), Fate::Failed);
    assert_eq!((end.status, end.fate), expected, "{}", report.text());
}

#[test]
fn a_panic() {
    let body = |world: World| -> Done {
        let mut first = world.allocate::<u64>(10)?;
        let mut second = world.allocate::<u64>(10)?;
        first.fence()?.end()?;
        if world.rank().0 == LEAVER {
            panic!("on purpose");
        }
        first.fence()?.end()?;
        second.fence()?.end()?;
        Ok(())
    };
    leave("a_panic", body, |report| {
        failed_with(report, 101);
        named(report, &["exited with status 101 (panicked)"]);
    });
}

#[test]
fn an_early_error() {
    let body = |world: World| -> Done {
        let mut window = world.allocate::<u64>(10)?;
        let epoch = window.fence()?;
        if world.rank().0 == LEAVER {
            epoch.put(&[1; 11], Rank(0), 0)?;
        }
        let epoch = epoch.next()?;
        epoch.end()?;
        world.end()?;
        Ok(())
    };
    leave("an_early_error", body, |report| {
        failed_with(report, 2);
        named(report, &["exited with status 2"]);
    });
}

#[test]
fn a_dropped_guard() {
    let body = |world: World| -> Done {
        let mut window = world.allocate::<u64>(10)?;
        let epoch = window.fence()?;
        if world.rank().0 == LEAVER {
            drop(epoch);
        } else {
            epoch.end()?;
        }
        world.barrier()?;
        world.end()?;
        Ok(())
    };
    leave("a_dropped_guard", body, |report| {
        named(report, &["window 0"]);
    });
}

#[test]
fn an_early_return() {
    let body = |world: World| -> Done {
        let mut window = world.allocate::<u64>(10)?;
        let epoch = window.fence()?;
        if world.rank().0 == LEAVER {
            return Ok(());
        }
        epoch.end()?;
        window.free()?;
        world.end()?;
        Ok(())
    };
    leave("an_early_return", body, |report| {
        assert_eq!(report.outcome.exit_code, TOLD, "{}", report.text());
        let end = &report.outcome.ranks[LEAVER as usize];
        assert_eq!((end.status, end.fate), (End::Exited(0), Fate::Left));
        named(
            report,
            &[
                "left in the middle of window 0",
                "exited with status 0",
                "because of it",
            ],
        );
    });
}

/// A job whose ranks leave without waiting for each other, as they may, has not failed.
#[test]
fn all_leave_without_an_end() {
    let body = |world: World| -> Done {
        let mut window = world.allocate::<u64>(10)?;
        window.fence()?.end()?;
        Ok(())
    };
    leave("all_leave_without_an_end", body, Report::succeeded);
}
