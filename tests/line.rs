//! Two nodes whose ranks are in network namespaces of their own, joined by a bad line: what is lost on it, is not lost to a
//! window; a line that is cut is an error on both sides, and no hang.
//!
//! Needs root, `ip` of iproute2 and /dev/net/tun; skipped with the reason where these are missing.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::data::Random;
use support::line::{Line, NETWORK, VARIABLE, enter};
use support::process::wait_until;
use support::{Done, Spec};
use windlass::{Op, Rank, World};

/// Operations of both ranks together.
const OPERATIONS: usize = 100_000;
/// Elements that each rank puts to, in every part.
const AREA: usize = 1024;
/// Elements that all ranks add to, behind the areas.
const SUMS: usize = 16;
/// A folder for marks between the ranks and the test.
const MARKS: &str = "WLTEST_MARKS";
/// The longest that this may take in all.
const LIMIT: Duration = Duration::from_secs(240);

fn spec(test: &'static str, line: &Line) -> Spec {
    let spec = Spec::new(test).nodes(2).place("vh:1").limit(LIMIT);
    spec.env(VARIABLE, line.name())
        .env("WINDLASS_NETWORK", NETWORK)
}

/// A line for the test, or why there is none. Ranks have theirs already.
fn line(test: &str, name: &str, delay: Duration, lost_of: usize) -> Option<Line> {
    match Line::new(name, delay, lost_of) {
        Ok(line) => Some(line),
        Err(reason) => {
            eprintln!("{test}: skipped: {reason}");
            None
        }
    }
}

fn world() -> Result<World, support::Failure> {
    enter(support::my_rank())?;
    Ok(windlass::init()?)
}

/// Random puts, sums and gets between both; at the end every element is what it must be.
fn operate(operations: usize) -> Done {
    let world = world()?;
    let me = world.rank().0 as usize;
    let mut random = Random::new(me as u64 + 7);
    // What this rank has put in each part's area of its own, and added to each part's sums.
    let mut put = vec![vec![0u64; AREA]; 2];
    let mut added = vec![vec![0u64; SUMS]; 2];
    let mut window = world.allocate::<u64>(2 * AREA + SUMS)?;
    let mut model = world.allocate::<u64>(2 * (AREA + SUMS))?;
    let routes: Vec<_> = window.routes().collect();
    assert_eq!(routes[1 - me].mechanism, "udapl", "{routes:?}");
    let epoch = window.lock_all()?;
    for number in 0..operations {
        let to = random.below(2);
        let target = Rank(to as u32);
        match random.below(100) {
            0..70 => {
                let len = 1 + random.below(64);
                let at = random.below(AREA - len);
                let values: Vec<u64> = (0..len).map(|_| random.bits()).collect();
                epoch.put(&values, target, me * AREA + at)?;
                put[to][at..at + len].copy_from_slice(&values);
            }
            70..95 => {
                let len = 1 + random.below(8);
                let at = random.below(SUMS - len);
                let values: Vec<u64> = (0..len).map(|_| random.bits() >> 20).collect();
                epoch.accumulate(&values, target, 2 * AREA + at, Op::Sum)?;
                for (sum, value) in added[to][at..].iter_mut().zip(values) {
                    *sum = sum.wrapping_add(value);
                }
            }
            95..99 => epoch.flush(target)?,
            _ => {
                epoch.flush(target)?;
                let len = 1 + random.below(64);
                let at = random.below(AREA - len);
                let mut found = vec![0; len];
                epoch.get(&mut found, target, me * AREA + at)?;
                assert!(found == put[to][at..at + len], "operation {number}");
            }
        }
    }
    epoch.end()?;
    let fence = model.fence()?;
    for (to, (put, added)) in put.iter().zip(&added).enumerate() {
        let at = me * (AREA + SUMS);
        fence.put(put, Rank(to as u32), at)?;
        fence.put(added, Rank(to as u32), at + AREA)?;
    }
    fence.end()?;
    let (found, model_) = (window.local().to_vec(), model.local().to_vec());
    for rank in 0..2 {
        let wanted = &model_[rank * (AREA + SUMS)..][..AREA];
        assert!(found[rank * AREA..][..AREA] == *wanted, "puts of {rank}");
    }
    for sum in 0..SUMS {
        let parts = [0, 1].map(|rank| model_[rank * (AREA + SUMS) + AREA + sum]);
        assert_eq!(found[2 * AREA + sum], parts[0].wrapping_add(parts[1]));
    }
    model.free()?;
    window.free()?;
    world.end()?;
    Ok(())
}

#[test]
fn a_line_that_loses_packets_loses_nothing() {
    const TEST: &str = "a_line_that_loses_packets_loses_nothing";
    if support::is_rank() {
        return Spec::new(TEST).run(|| operate(OPERATIONS / 2), |_| ());
    }
    let Some(line) = line(TEST, "l", Duration::from_millis(1), 100) else {
        return;
    };
    spec(TEST, &line).run(|| Ok(()), support::Report::succeeded);
    let (carried, lost) = line.counts();
    println!("{OPERATIONS} operations: {carried} packets carried, {lost} lost");
    assert!(lost > 0, "of {carried} packets none was lost");
}

fn mark(name: &str) -> Done {
    let folder = std::env::var(MARKS)?;
    std::fs::write(Path::new(&folder).join(name), [])?;
    Ok(())
}

fn marked(folder: &Path, name: &str) -> bool {
    wait_until(LIMIT, || folder.join(name).exists()).is_some()
}

/// Puts and flushes until one fails; both ranks say so.
fn until_it_fails() -> Done {
    let world = world()?;
    let me = world.rank().0;
    let mut window = world.allocate::<u64>(10)?;
    let epoch = window.lock_all()?;
    let other = Rank(1 - me);
    let mut good = Instant::now();
    let mut count = 0;
    let error = loop {
        let done = epoch.put(&[count], other, me as usize);
        if let Err(error) = done.and_then(|()| epoch.flush(other)) {
            break error;
        }
        good = Instant::now();
        count += 1;
        if count == 100 {
            mark(&format!("works{me}"))?;
        }
    };
    let lost = matches!(error, windlass::Error::PeerLost { .. });
    println!("LOST{me}={lost} after {:?}", good.elapsed());
    // Another thing to wait for fails too, and at once.
    let again = epoch.fetch_and_op(1, other, 0, Op::Sum);
    assert!(again.is_err(), "{again:?}");
    mark(&format!("failed{me}"))?;
    let folder = std::env::var(MARKS)?;
    assert!(marked(Path::new(&folder), &format!("failed{}", 1 - me)));
    Err(error.into())
}

#[test]
fn a_line_that_is_cut_is_an_error_on_both_sides() {
    const TEST: &str = "a_line_that_is_cut_is_an_error_on_both_sides";
    if support::is_rank() {
        return Spec::new(TEST).run(until_it_fails, |_| ());
    }
    let Some(line) = line(TEST, "c", Duration::from_millis(1), 0) else {
        return;
    };
    let marks = tempfile::tempdir().expect("a folder");
    let folder = marks.path();
    let spec = spec(TEST, &line).env(MARKS, folder.to_str().expect("a path of text"));
    let cut = |_: &windlass_launcher::Running| {
        assert!(marked(folder, "works0") && marked(folder, "works1"));
        line.cut(true);
    };
    spec.run_during(
        || Ok(()),
        cut,
        |report| {
            for rank in 0..2 {
                let lost = report.value(&format!("LOST{rank}"));
                assert_eq!(lost.as_deref(), Some("true"), "{}", report.text());
            }
            assert_ne!(report.outcome.exit_code, 0, "{}", report.text());
            println!("{}", report.outcome.stdout_text());
        },
    );
}

/// As long as the line is whole again within a second, nobody notices.
#[test]
fn a_line_that_is_mended_carries_on() {
    const TEST: &str = "a_line_that_is_mended_carries_on";
    if support::is_rank() {
        let body = || {
            mark(&format!("works{}", support::my_rank()))?;
            operate(OPERATIONS / 10)
        };
        return Spec::new(TEST).run(body, |_| ());
    }
    let Some(line) = line(TEST, "m", Duration::from_millis(1), 0) else {
        return;
    };
    let marks = tempfile::tempdir().expect("a folder");
    let folder = marks.path();
    let spec = spec(TEST, &line).env(MARKS, folder.to_str().expect("a path of text"));
    let cut = |_: &windlass_launcher::Running| {
        assert!(marked(folder, "works0") && marked(folder, "works1"));
        let carried = || line.counts().0 > 500;
        assert!(wait_until(LIMIT, carried).is_some(), "the ranks talk");
        line.cut(true);
        std::thread::sleep(Duration::from_secs(1));
        line.cut(false);
    };
    spec.run_during(|| Ok(()), cut, support::Report::succeeded);
    let (carried, lost) = line.counts();
    println!("{carried} packets carried, {lost} lost");
    assert!(lost > 0, "nothing was on the line while it was cut");
}
