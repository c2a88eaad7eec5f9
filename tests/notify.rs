//! Put with notification, over every kind of route: no notification is lost, none comes before its
//! data, none is taken twice.

mod support;

use std::time::Duration;

use support::Done;
use support::data::Random;
use support::ways::{MIXTURES, PAIRS};
use windlass::{Epoch, Error, ErrorClass, Kind, LockKind, NOTIFY_IDS, Rank, Window};

const ORIGIN: Rank = Rank(0);
const TARGET: Rank = Rank(1);

/// Every id, by every kind of epoch; what is waited for in another order than it was sent.
#[test]
fn every_id_in_every_epoch() {
    let ids = || 0..NOTIFY_IDS;

    fn send<K: Kind>(epoch: &Epoch<'_, u64, K>, me: Rank, turn: u64) -> Done {
        if me == ORIGIN {
            for id in 0..NOTIFY_IDS {
                let value = turn * 1000 + u64::from(id);
                epoch.put_notify(&[value, value + 1], TARGET, 2 * id as usize, id)?;
            }
        }
        Ok(())
    }

    for way in PAIRS {
        way.spec("every_id_in_every_epoch").world(|world| {
            let mut window = way.window::<u64>(world, 2 * NOTIFY_IDS as usize)?;
            let me = world.rank();
            let both = world.group();
            let receive = |window: &Window<u64>, turn: u64| -> Done {
                if me == TARGET {
                    for id in ids().rev() {
                        window.wait_notify(id, 1)?;
                        let mut found = [0; 2];
                        window.local().read(2 * id as usize, &mut found)?;
                        let value = turn * 1000 + u64::from(id);
                        assert_eq!(found, [value, value + 1], "id {id}, turn {turn}, {way:?}");
                    }
                }
                for id in ids() {
                    assert_eq!(window.notified(id)?, 0);
                    assert!(!window.test_notify(id, 1)?);
                }
                Ok(())
            };

            let epoch = window.fence()?;
            send(&epoch, me, 1)?;
            epoch.end()?;
            receive(&window, 1)?;
            world.barrier()?;

            let epoch = window.lock_all()?;
            send(&epoch, me, 2)?;
            epoch.end()?;
            receive(&window, 2)?;
            world.barrier()?;

            if me == ORIGIN {
                let epoch = window.lock(TARGET, LockKind::Exclusive)?;
                send(&epoch, me, 3)?;
                epoch.end()?;
            }
            receive(&window, 3)?;
            world.barrier()?;

            // The exposure lasts on while the notifications are waited for.
            let exposure = window.post(&both)?;
            let epoch = window.start(&both)?;
            send(&epoch, me, 4)?;
            if me == ORIGIN {
                epoch.end()?;
                receive(&window, 4)?;
            } else {
                receive(&window, 4)?;
                epoch.end()?;
            }
            exposure.wait()?;
            window.free()?;
            Ok(())
        });
    }
}

/// A notification counts when its put was done, and not when it was refused.
#[test]
fn what_is_refused_notifies_nobody() {
    for way in PAIRS {
        way.spec("what_is_refused_notifies_nobody").world(|world| {
            let mut window = way.window::<u64>(world, 4)?;
            for id in [NOTIFY_IDS, NOTIFY_IDS + 1, u32::MAX] {
                for error in [
                    window.notified(id).map(drop),
                    window.test_notify(id, 1).map(drop),
                    window.wait_notify(id, 1),
                    window.wait_notify_any(&[3, id]).map(drop),
                ] {
                    let error = error.expect_err("there is no such id");
                    assert!(matches!(error, Error::NotifyId { .. }), "{error:?}");
                    assert_eq!(error.class(), ErrorClass::Arg);
                }
            }
            let error = window.wait_notify_any(&[]).expect_err("no id");
            assert_eq!(error.class(), ErrorClass::Count);
            // Nothing is asked for: nothing is waited for.
            window.wait_notify(5, 0)?;
            assert!(window.test_notify(5, 0)?);

            if world.rank() == ORIGIN {
                let epoch = window.lock_all()?;
                let class = |answer: windlass::Result<()>| answer.map_err(|error| error.class());
                let refused = epoch.put_notify(&[1], TARGET, 0, NOTIFY_IDS);
                assert_eq!(class(refused), Err(ErrorClass::Arg));
                let refused = epoch.put_notify(&[1, 2], TARGET, 3, 5);
                assert_eq!(class(refused), Err(ErrorClass::RmaRange));
                let refused = epoch.put_notify(&[], TARGET, 5, 5);
                assert_eq!(class(refused), Err(ErrorClass::RmaRange));
                let refused = epoch.put_notify(&[1], Rank(2), 0, 5);
                assert_eq!(class(refused), Err(ErrorClass::Rank));
                epoch.end()?;
                let lock = window.lock(ORIGIN, LockKind::Shared)?;
                let refused = lock.put_notify(&[1], TARGET, 0, 5);
                assert_eq!(class(refused), Err(ErrorClass::RmaSync));
                lock.end()?;
            }
            world.barrier()?;
            for id in 0..NOTIFY_IDS {
                assert_eq!(window.notified(id)?, 0, "id {id}");
            }
            assert_eq!(window.local().to_vec(), [0; 4]);
            window.free()?;
            Ok(())
        });
    }
}

/// To and fro, with data of many sizes: the whole of each is there when its notification is.
#[test]
fn to_and_fro() {
    const ROUNDS: u64 = 400;
    const LEN: usize = 20_000;
    for way in PAIRS {
        way.spec("to_and_fro").world(|world| {
            let window = way.window::<u64>(world, LEN)?;
            let (me, other) = (world.rank(), Rank(1 - world.rank().0));
            let mut random = Random::new(5);
            let epoch = window.lock(other, LockKind::Shared)?;
            let (mut ball, mut found) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                // Both know where the next one lands.
                let len = match round % 10 {
                    0 | 1 => LEN / 2,
                    _ => 1 + random.below(40),
                };
                let at = random.below(LEN - len + 1);
                let id = random.below(NOTIFY_IDS as usize) as u32;
                ball.clear();
                ball.extend((0..len as u64).map(|i| round << 20 | i));
                if round % 2 == u64::from(me.0) {
                    epoch.put_notify(&ball, other, at, id)?;
                    continue;
                }
                match round % 6 {
                    0 | 1 => while !window.test_notify(id, 1)? {},
                    2 | 3 => assert_eq!(window.wait_notify_any(&[id])?, (id, 1)),
                    _ => window.wait_notify(id, 1)?,
                }
                found.resize(len, 0);
                window.local().read(at, &mut found)?;
                assert!(found == ball, "round {round} of {way:?}: {len} from {at}");
                assert_eq!(window.notified(id)?, 0, "round {round} of {way:?}");
            }
            epoch.end()?;
            window.free()?;
            Ok(())
        });
    }
}

/// A stream through a few slots: the consumer gives each back by a notification without data.
#[test]
fn a_stream_with_credits() {
    const ITEMS: u64 = 600;
    const SLOTS: u64 = 6;
    const WORDS: usize = 33;
    const CREDIT: u32 = 63;
    for way in PAIRS {
        way.spec("a_stream_with_credits").world(|world| {
            let window = way.window::<u64>(world, SLOTS as usize * WORDS)?;
            let other = Rank(1 - world.rank().0);
            let epoch = window.lock(other, LockKind::Shared)?;
            for item in 0..ITEMS {
                let (slot, id) = ((item % SLOTS) as usize, (item % SLOTS) as u32);
                if world.rank() == ORIGIN {
                    if item >= SLOTS {
                        window.wait_notify(CREDIT, 1)?;
                    }
                    epoch.put_notify(&[item + 1; WORDS], TARGET, slot * WORDS, id)?;
                } else {
                    window.wait_notify(id, 1)?;
                    let mut found = [0; WORDS];
                    window.local().read(slot * WORDS, &mut found)?;
                    assert_eq!(found, [item + 1; WORDS], "item {item} of {way:?}");
                    epoch.put_notify(&[], ORIGIN, 0, CREDIT)?;
                }
            }
            epoch.end()?;
            if world.rank() == ORIGIN {
                // Those that were not waited for are still to come, and no more.
                window.wait_notify(CREDIT, SLOTS)?;
            }
            world.barrier()?;
            assert!((0..NOTIFY_IDS).all(|id| matches!(window.notified(id), Ok(0))));
            window.free()?;
            Ok(())
        });
    }
}

/// Every rank notifies every rank, itself too, under one id: counts add up, and whatever is
/// counted has its data there.
#[test]
fn many_notifiers() {
    const ROUNDS: u64 = 40;
    for way in MIXTURES {
        let spec = way.spec("many_notifiers");
        spec.limit(Duration::from_secs(240)).world(|world| {
            let size = world.size() as usize;
            let mut window = way.window::<u64>(world, size)?;
            let me = world.rank().0 as usize;
            for round in 1..=ROUNDS {
                let id = (round % u64::from(NOTIFY_IDS)) as u32;
                let epoch = window.lock_all()?;
                for target in world.ranks() {
                    epoch.put_notify(&[round], target, me, id)?;
                }
                epoch.end()?;
                let all = u64::from(world.size());
                // In one go, or by and by.
                let mut left = all;
                while left > 0 {
                    let take = if round % 2 == 0 { left } else { 1 };
                    window.wait_notify(id, take)?;
                    left -= take;
                    let found = window.local().to_vec();
                    let there = found.iter().filter(|&&word| word == round).count() as u64;
                    assert!(there >= all - left, "round {round} of {way:?}: {found:?}");
                }
                assert_eq!(window.notified(id)?, 0);
                // Nobody overwrites what another one has not compared yet.
                world.barrier()?;
            }
            window.free()?;
            Ok(())
        });
    }
}

/// Notifiers under ids of their own, at their own pace; the target takes whichever is there.
#[test]
fn any_of_several() {
    const ROUNDS: u64 = 80;
    for way in MIXTURES {
        way.spec("any_of_several").world(|world| {
            let window = way.window::<u64>(world, world.size() as usize)?;
            let (me, hub) = (world.rank(), Rank(0));
            if me == hub {
                let ids: Vec<u32> = (1..world.size()).collect();
                let mut taken = vec![0; world.size() as usize];
                let mut left = ROUNDS * ids.len() as u64;
                while left > 0 {
                    let (id, count) = window.wait_notify_any(&ids)?;
                    assert!(ids.contains(&id) && count > 0);
                    taken[id as usize] += count;
                    left -= count;
                    // Each puts its number of rounds: never behind its notifications.
                    let there = window.local().load(id as usize);
                    let taken = taken[id as usize];
                    assert!((taken..=ROUNDS).contains(&there), "{there} after {taken}");
                }
                assert!(taken[1..].iter().all(|&count| count == ROUNDS), "{taken:?}");
                assert!(ids.iter().all(|&id| matches!(window.notified(id), Ok(0))));
            } else {
                let mut pace = Random::new(u64::from(me.0));
                let epoch = window.lock(hub, LockKind::Shared)?;
                for round in 1..=ROUNDS {
                    epoch.put_notify(&[round], hub, me.0 as usize, me.0)?;
                    if pace.one_in(8) {
                        std::thread::sleep(Duration::from_micros(pace.below(500) as u64));
                    }
                }
                epoch.end()?;
            }
            world.barrier()?;
            window.free()?;
            Ok(())
        });
    }
}

/// Threads of the target that sleep, each for its id and one for several, long before anything
/// comes: each wakes for its own.
#[test]
fn sleepers_wake() {
    const NAP: Duration = Duration::from_millis(60);
    for way in PAIRS {
        way.spec("sleepers_wake").world(|world| {
            let mut window = way.window::<u64>(world, 4)?;
            for turn in 1..=3 {
                world.barrier()?;
                if world.rank() == ORIGIN {
                    std::thread::sleep(NAP);
                    let lock = window.lock(TARGET, LockKind::Shared)?;
                    for id in [2, 0, 3, 1] {
                        lock.put_notify(&[turn], TARGET, id as usize, id)?;
                        std::thread::sleep(NAP / 10);
                    }
                    lock.end()?;
                } else {
                    let window = &window;
                    std::thread::scope(|scope| {
                        for id in [0, 1] {
                            scope.spawn(move || {
                                window.wait_notify(id, 1).expect("a notification");
                                assert_eq!(window.local().load(id as usize), turn);
                            });
                        }
                        // In the order of their coming, unless this thread wakes so late that both are there.
                        let mut came = [0, 0].map(|_| {
                            let (id, count) = window.wait_notify_any(&[3, 2]).expect("two");
                            assert_eq!(count, 1, "{way:?}");
                            assert_eq!(window.local().load(id as usize), turn);
                            id
                        });
                        came.sort_unstable();
                        assert_eq!(came, [2, 3], "{way:?}");
                    });
                }
            }
            window.lock_all()?.end()?;
            window.free()?;
            Ok(())
        });
    }
}

/// Threads of one rank that take from one id: each notification is taken by one of them.
#[test]
fn threads_share_an_id() {
    const EACH: u64 = 300;
    const THREADS: u64 = 4;
    for way in [PAIRS[0], PAIRS[6]] {
        way.spec("threads_share_an_id").world(|world| {
            let window = way.window::<u64>(world, 1)?;
            if world.rank() == ORIGIN {
                let lock = window.lock(TARGET, LockKind::Shared)?;
                for _ in 0..EACH * THREADS {
                    lock.put_notify(&[1], TARGET, 0, 9)?;
                }
                lock.end()?;
            } else {
                std::thread::scope(|scope| {
                    for _ in 0..THREADS {
                        scope.spawn(|| {
                            for _ in 0..EACH {
                                window.wait_notify(9, 1).expect("a notification");
                            }
                        });
                    }
                });
            }
            world.barrier()?;
            assert_eq!(window.notified(9)?, 0);
            window.free()?;
            Ok(())
        });
    }
}

/// A rank that has its window may notify one that is still leaving the call that made it; and what
/// was not taken of a window does not come with the next one, which has the same words.
#[test]
fn a_new_window_begins_with_nothing_and_loses_nothing() {
    const WINDOWS: u64 = 300;
    for way in [PAIRS[0], PAIRS[6]] {
        let spec = way.spec("a_new_window_begins_with_nothing_and_loses_nothing");
        spec.world(|world| {
            let (me, size) = (world.rank(), world.size());
            // A busy rank leaves the creation late.
            let stop = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| -> Done {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
                let answer = (0..WINDOWS).try_for_each(|turn| -> Done {
                    let window = world.allocate::<u64>(size as usize)?;
                    for target in world.ranks() {
                        let lock = window.lock(target, LockKind::Shared)?;
                        lock.put_notify(&[turn], target, me.0 as usize, 1)?;
                        // Not taken.
                        lock.put_notify(&[], target, 0, 2)?;
                        lock.end()?;
                    }
                    window.wait_notify(1, u64::from(size))?;
                    assert_eq!(window.local().to_vec(), vec![turn; size as usize]);
                    assert!(window.notified(2)? <= u64::from(size), "window {turn}");
                    assert_eq!(window.notified(1)?, 0, "window {turn}");
                    window.free()?;
                    Ok(())
                });
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                answer
            })
        });
    }
}
