//! Worlds of a part of the job, and shared windows on them.

mod support;

use support::{Done, Report, Spec};
use windlass::{ErrorClass, Hints, LockKind, Op, Rank, World};

fn run(spec: Spec, body: impl Fn(&World) -> Done) {
    let whole = || {
        let world = windlass::init()?;
        body(&world)?;
        world.end()?;
        Ok(())
    };
    spec.run(whole, Report::succeeded);
}

/// Every operation and synchronisation on a world, with its own rank numbers.
fn use_window(world: &World, salt: u64) -> Done {
    let (me, n) = (world.rank().0, world.size());
    let next = Rank((me + 1) % n);
    let mut win = world.allocate::<u64>(n as usize + 1)?;
    let epoch = win.fence()?;
    epoch.put(&[salt + u64::from(me)], next, me as usize)?;
    epoch.end()?;
    let before = (me + n - 1) % n;
    assert_eq!(win.local().load(before as usize), salt + u64::from(before));
    let epoch = win.lock_all()?;
    for rank in world.ranks() {
        epoch.fetch_and_op(1, rank, n as usize, Op::Sum)?;
    }
    epoch.end()?;
    world.barrier()?;
    assert_eq!(win.local().load(n as usize), u64::from(n));
    let ring = world.group().incl(&[next])?;
    let back = world.group().incl(&[Rank(before)])?;
    let exposure = win.post(&back)?;
    let access = win.start(&ring)?;
    access.put_notify(&[salt], next, 0, 3)?;
    access.end()?;
    exposure.wait()?;
    win.wait_notify(3, 1)?;
    assert_eq!(win.local().load(0), salt);
    win.free()?;
    Ok(())
}

#[test]
fn parts_of_the_job_have_windows_of_their_own() {
    let spec = |case: &str| Spec::new("parts_of_the_job_have_windows_of_their_own").case(case);
    for spec in [
        spec("host").ranks(5),
        spec("mixed").ves(1).place("ve0:2,vh:2"),
        spec("nodes").nodes(2).place("vh:2"),
    ] {
        run(spec, |world| {
            let me = world.rank().0;
            // Odd and even, in reverse order, at the same time.
            let half = world
                .split(Some(me % 2), -i64::from(me))?
                .expect("a colour was given");
            assert_eq!(half.size(), (world.size() + 1 - me % 2) / 2);
            let mine = half.group().rank();
            assert_eq!(mine, Some(half.rank()));
            let there = half.group().translate(half.rank(), &world.group());
            assert_eq!(there, Some(world.rank()));
            for round in 0..3 {
                use_window(&half, 100 * round + u64::from(me % 2))?;
                use_window(world, 7 + round)?;
            }
            // A part of the part, and one of named ranks.
            let lone = half
                .split(Some(half.rank().0), 0)?
                .expect("a colour was given");
            use_window(&lone, 9)?;
            let named = world.group().incl(&[Rank(2), Rank(0)])?;
            let pair = world.subset(&named)?;
            assert_eq!(pair.is_some(), me == 0 || me == 2);
            if let Some(pair) = &pair {
                assert_eq!(pair.rank().0, if me == 2 { 0 } else { 1 });
                use_window(pair, 50)?;
            }
            let nobody = world.split((me == 1).then_some(4), 0)?;
            assert_eq!(nobody.is_some(), me == 1);
            let outside = lone.subset(&world.group());
            let refused = outside.map(|_| ()).unwrap_err();
            assert_eq!(refused.class(), ErrorClass::Group);
            if let Some(pair) = pair {
                pair.end()?;
            }
            half.end()?;
            Ok(())
        });
    }
}

#[test]
fn shared_windows_are_loaded_and_stored_by_all() {
    let spec = |case: &str| Spec::new("shared_windows_are_loaded_and_stored_by_all").case(case);
    for spec in [
        spec("host").ranks(4),
        spec("one VE").ves(1).place("ve0:3"),
        spec("nodes").nodes(2).place("vh:2"),
    ] {
        run(spec, |world| {
            let node = world.split_by_node()?;
            let (me, n) = (node.rank().0, node.size());
            for apart in ["false", "true"] {
                let hints = Hints::new().with("alloc_shared_noncontig", apart);
                // Of different lengths, one of them empty.
                let len = |rank: u32| if rank == 1 { 0 } else { rank as usize + 3 };
                let mut win = node.allocate_shared_with::<u32>(len(me), &hints)?;
                assert_eq!(
                    win.hints().get("alloc_shared_noncontig").as_deref(),
                    Some(apart)
                );
                let epoch = win.fence()?;
                for rank in node.ranks() {
                    let part = epoch.shared(rank)?.expect("every part is mapped");
                    assert_eq!(part.len(), len(rank.0));
                    for i in (me as usize..part.len()).step_by(n as usize) {
                        part.store(i, rank.0 * 1000 + i as u32);
                    }
                }
                let epoch = epoch.next()?;
                for rank in node.ranks() {
                    let part = epoch.shared(rank)?.expect("every part is mapped").to_vec();
                    let wanted: Vec<u32> =
                        (0..len(rank.0)).map(|i| rank.0 * 1000 + i as u32).collect();
                    assert_eq!(part, wanted);
                    let mut got = vec![0; part.len()];
                    epoch.get(&mut got, rank, 0)?;
                    assert_eq!(got, wanted);
                }
                epoch.end()?;
                let epoch = win.lock_all()?;
                epoch.accumulate(&[1], Rank(0), 2, Op::Sum)?;
                epoch.end()?;
                node.barrier()?;
                if me == 0 {
                    assert_eq!(win.lock_local()?[2], 2 + n);
                }
                let lock = win.lock(Rank(0), LockKind::Shared)?;
                let other = lock.shared(Rank(n - 1));
                let refused = other.map(|_| ()).unwrap_err();
                assert_eq!(refused.class(), ErrorClass::RmaSync);
                lock.end()?;
                win.free()?;
            }
            Ok(())
        });
    }
}

/// Where some rank cannot map the memory, all ranks get the same error, and go on.
#[test]
fn ranks_that_share_no_memory_share_no_window() {
    let spec = |case: &str| Spec::new("ranks_that_share_no_memory_share_no_window").case(case);
    for spec in [
        spec("nodes").nodes(2).place("vh:1"),
        spec("VEs").ves(2).place("ve0:1,ve1:1"),
    ] {
        run(spec, |world| {
            let refused = world.allocate_shared::<u64>(8).map(|_| ()).unwrap_err();
            assert_eq!(refused.class(), ErrorClass::RmaShared, "{refused:?}");
            use_window(world, 3)
        });
    }
}
