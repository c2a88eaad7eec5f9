//! Dynamic windows over every kind of route: many regions of every size, attached and detached
//! while others use them, by typed windows and by raw ones.

mod support;

use support::data::Random;
use support::{Done, Report, Spec};
use windlass::{Address, Complex, ErrorClass, LockKind, Op, Rank, Window, World};

/// The placements under test.
#[track_caller]
fn everywhere(test: &'static str, body: impl Fn(&World) -> Done) {
    let spec = |case: &str| Spec::new(test).case(case);
    let all = [
        spec("host").ranks(3),
        spec("mixed").ves(2).place("ve0:1,ve1:1,vh:1"),
        spec("nodes").nodes(2).place("vh:2"),
        spec("udapl").ranks(2).env("WINDLASS_ROUTE", "udapl"),
        spec("rsm").ranks(2).env("WINDLASS_ROUTE", "rsm,udapl"),
        spec("cma").ranks(2).env("WINDLASS_ROUTE", "cma,udapl"),
    ];
    for spec in all {
        let whole = || {
            let world = windlass::init()?;
            body(&world)?;
            world.end()?;
            Ok(())
        };
        spec.run(whole, Report::succeeded);
    }
}

/// Tells all ranks an address of each: `told[rank]`.
fn tell(world: &World, addresses: &[Address]) -> Result<Vec<Vec<Address>>, support::Failure> {
    let len = addresses.len();
    let mut win = world.allocate::<Address>(len)?;
    win.local().write(0, addresses)?;
    let epoch = win.fence()?;
    let mut all = Vec::new();
    for rank in world.ranks() {
        let mut theirs = vec![Address::from_raw(0); len];
        epoch.get(&mut theirs, rank, 0)?;
        all.push(theirs);
    }
    epoch.end()?;
    win.free()?;
    Ok(all)
}

#[test]
fn regions_of_every_size() {
    everywhere("regions_of_every_size", |world| {
        let win = world.create_dynamic()?;
        // Neighbours of a page: 200 regions of 1 to 40 bytes; and one of some pages.
        let sizes: Vec<usize> = (0..200).map(|i| i % 40 + 1).chain([70_000]).collect();
        let mut addresses = Vec::new();
        for &size in &sizes {
            addresses.push(win.attach(vec![world.rank().0 as u8; size])?);
        }
        let told = tell(world, &addresses)?;
        let mut win = win;
        let me = world.rank().0;
        let next = Rank((me + 1) % world.size());
        let epoch = win.fence()?;
        for (i, &size) in sizes.iter().enumerate() {
            let at = told[next.0 as usize][i];
            let mut seen = vec![0u8; size];
            epoch.get_at(&mut seen, next, at)?;
            assert!(
                seen.iter().all(|&byte| u32::from(byte) == next.0),
                "region {i}"
            );
        }
        let epoch = epoch.next()?;
        for (i, &size) in sizes.iter().enumerate() {
            let at = told[next.0 as usize][i];
            epoch.put_at(&vec![100 + i as u8 % 100; size], next, at)?;
            // One byte beyond is not attached, or belongs to another region.
            let beyond = epoch.put_at(&vec![1; size + 1], next, at);
            assert_eq!(
                beyond.unwrap_err().class(),
                ErrorClass::RmaRange,
                "region {i}"
            );
        }
        epoch.end()?;
        for (i, &address) in addresses.iter().enumerate() {
            let back: Vec<u8> = win.detach(address)?;
            assert_eq!(back, vec![100 + i as u8 % 100; sizes[i]], "region {i}");
        }
        let gone: windlass::Result<Vec<u8>> = win.detach(addresses[0]);
        assert_eq!(gone.unwrap_err().class(), ErrorClass::Base);
        win.free()?;
        Ok(())
    });
}

#[test]
fn updates_by_address() {
    everywhere("updates_by_address", |world| {
        let mut win = world.create_dynamic()?;
        let address = win.attach(vec![0u64; 4].into_boxed_slice())?;
        // No CPU updates these in one piece.
        let wide = win.attach(vec![Complex::new(0.0, 0.0); 2])?;
        let told = tell(world, &[address, wide])?;
        let epoch = win.lock_all()?;
        for _ in 0..20 {
            for rank in world.ranks() {
                let at = told[rank.0 as usize][0];
                epoch.accumulate_at(&[1u64, 2], rank, at, Op::Sum)?;
                epoch.fetch_and_op_at(3u64, rank, at.add(16), Op::Sum)?;
                let wide = told[rank.0 as usize][1].add(16);
                epoch.accumulate_at(&[Complex::new(1.0, -1.0)], rank, wide, Op::Sum)?;
                loop {
                    let mut old = [0u64];
                    epoch.get_accumulate_at(&[], &mut old, rank, at.add(24), Op::NoOp)?;
                    let seen = epoch.compare_and_swap_at(old[0], old[0] + 4, rank, at.add(24))?;
                    if seen == old[0] {
                        break;
                    }
                }
            }
        }
        epoch.end()?;
        world.barrier()?;
        let back: Box<[u64]> = win.detach(address)?;
        let n = u64::from(world.size()) * 20;
        assert_eq!(*back, [n, 2 * n, 3 * n, 4 * n]);
        let back: Vec<Complex<f64>> = win.detach(wide)?;
        assert_eq!(back[1], Complex::new(n as f64, -(n as f64)));
        win.free()?;
        Ok(())
    });
}

/// Memory comes and goes while the window stays: what is told last is what is used.
#[test]
fn attached_again_and_again() {
    everywhere("attached_again_and_again", |world| {
        let mut win = world.create_dynamic()?;
        let mut random = Random::new(7 + u64::from(world.rank().0));
        let next = Rank((world.rank().0 + 1) % world.size());
        for round in 0..12u64 {
            let count = 1 + random.below(4);
            let addresses: Vec<Address> = (0..4)
                .map(|i| win.attach(vec![round * 10 + i; 1 + count * 100]))
                .collect::<windlass::Result<_>>()?;
            let told = tell(world, &addresses)?;
            for i in 0..4u64 {
                let epoch = win.lock(next, LockKind::Shared)?;
                let at = told[next.0 as usize][i as usize];
                let mut seen = [0u64];
                epoch.get_at(&mut seen, next, at)?;
                assert_eq!(seen, [round * 10 + i]);
                epoch.put_at(&[1000 + round], next, at)?;
                epoch.end()?;
            }
            world.barrier()?;
            for &address in &addresses {
                let back: Vec<u64> = win.detach(address)?;
                assert_eq!(back[0], 1000 + round);
                drop(back);
            }
        }
        // An address that was good once.
        let address = win.attach(vec![5u32])?;
        let told = tell(world, &[address])?;
        let gone: Vec<u32> = win.detach(address)?;
        world.barrier()?;
        let at = told[next.0 as usize][0];
        let lock = win.lock(next, LockKind::Shared)?;
        let refused = lock.put_at(&[1u32], next, at);
        assert_eq!(refused.unwrap_err().class(), ErrorClass::RmaRange);
        lock.end()?;
        drop(gone);
        win.free()?;
        Ok(())
    });
}

/// A notification comes after the data put by address before it, also where the region is reached by
/// another way than the counters and the directory.
#[test]
fn a_notification_follows_the_data() {
    const TURNS: u64 = 30;
    let body = |world: &World| {
        let me = world.rank();
        let mut win = world.create_dynamic()?;
        let address = win.attach(vec![0u64; 600])?;
        let told = tell(world, &[address])?;
        let next = Rank((me.0 + 1) % world.size());
        for turn in 1..=TURNS {
            // Short and long, and an update.
            let lock = win.lock(next, LockKind::Shared)?;
            let at = told[next.0 as usize][0];
            let len = if turn % 2 == 0 { 2 } else { 500 };
            lock.put_at(&vec![turn; len], next, at)?;
            lock.accumulate_at(&[1u64], next, at.add(8 * 599), Op::Sum)?;
            lock.put_notify(&[], next, 0, 5)?;
            // Nothing here completes it before the target has seen it.
            win.wait_notify(5, 1)?;
            let own = win.lock(me, LockKind::Shared)?;
            let mut seen = vec![0u64; 600];
            own.get_at(&mut seen, me, address)?;
            own.end()?;
            assert!(seen[..len].iter().all(|&word| word == turn), "{turn}");
            assert_eq!(seen[599], turn);
            lock.end()?;
            world.barrier()?;
        }
        world.barrier()?;
        let _: Vec<u64> = win.detach(address)?;
        win.free()?;
        Ok(())
    };
    everywhere("a_notification_follows_the_data", body);
    let spec = Spec::new("a_notification_follows_the_data").case("a mapped directory");
    let spec = spec.ranks(3).env("WINDLASS_REBACK", "never");
    let spec = spec.env("WINDLASS_ROUTE", "loopback,vhshm,udapl");
    spec.world(body);
}

#[test]
fn windows_of_another_flavour_take_no_regions() {
    let spec = Spec::new("windows_of_another_flavour_take_no_regions").ranks(2);
    let body = || {
        let world = windlass::init()?;
        let mut win: Window<u8> = world.allocate(16)?;
        let refused = win.attach(vec![1u8]).unwrap_err();
        assert_eq!(refused.class(), ErrorClass::RmaFlavor);
        let epoch = win.lock_all()?;
        let refused = epoch.put_at(&[1u8], Rank(0), Address::from_raw(8));
        assert_eq!(refused.unwrap_err().class(), ErrorClass::RmaFlavor);
        epoch.end()?;
        win.free()?;
        // A dynamic window has no part.
        let mut win = world.create_dynamic()?;
        assert_eq!(win.len_of(Rank(1))?, 0);
        assert!(win.lock_local()?.is_empty() && win.local().is_empty());
        let epoch = win.fence()?;
        let refused = epoch.put(&[1], Rank(1), 0).unwrap_err();
        assert_eq!(refused.class(), ErrorClass::RmaRange);
        epoch.end()?;
        let empty = win.attach(Vec::<u64>::new()).unwrap_err();
        assert_eq!(empty.class(), ErrorClass::RmaAttach);
        // Freed with regions attached.
        win.attach(vec![1u8, 2])?;
        win.free()?;
        world.end()?;
        Ok(())
    };
    spec.run(body, Report::succeeded);
}
