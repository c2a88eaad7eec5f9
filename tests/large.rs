//! Counts and displacements beyond 2^31 and 4 GiB. Windows are sparse, so only what is touched
//! takes memory.

mod support;

use std::time::Duration;

use support::{Done, Report, Spec};
use windlass::layout::Layout;
use windlass::{ErrorClass, LockKind, Op, Rank, World};

const GIB: usize = 1 << 30;

fn run(spec: Spec, body: impl Fn(&World) -> Done) {
    let whole = || {
        let world = windlass::init()?;
        body(&world)?;
        world.end()?;
        Ok(())
    };
    let spec = spec.limit(Duration::from_secs(240));
    spec.run(whole, Report::succeeded);
}

/// Every operation at and around 2^31 and 2^32 bytes, and at the end of the window.
#[test]
fn displacements_beyond_4_gib() {
    let spec = |case: &str| Spec::new("displacements_beyond_4_gib").case(case);
    for spec in [spec("host").ranks(2), spec("nodes").nodes(2).place("vh:1")] {
        run(spec, |world| {
            let len = 5 * GIB / 8;
            let mut win = world.allocate::<u64>(len)?;
            let (me, peer) = (world.rank().0, Rank(1 - world.rank().0));
            let places = [GIB / 4 - 1, GIB / 2 - 1, GIB / 2, GIB / 2 + 1, len - 2];
            let epoch = win.lock_all()?;
            for (i, &disp) in places.iter().enumerate() {
                let value = u64::from(me) * 100 + i as u64;
                epoch.put(&[value], peer, disp)?;
                epoch.flush(peer)?;
                epoch.accumulate(&[1000], peer, disp, Op::Sum)?;
                assert_eq!(epoch.fetch_and_op(1, peer, disp, Op::Sum)?, value + 1000);
                let seen = epoch.compare_and_swap(value + 1001, value, peer, disp)?;
                assert_eq!(seen, value + 1001);
                let mut back = [0; 1];
                epoch.get(&mut back, peer, disp)?;
                assert_eq!(back, [value]);
            }
            let beyond = epoch.put(&[1, 2], peer, len - 1).unwrap_err();
            assert_eq!(beyond.class(), ErrorClass::RmaRange);
            // Two elements 4 GiB apart, in one transfer.
            let pair = Layout::of::<u64>().vector(2, 1, (GIB / 2) as i64)?;
            let two = Layout::of::<u64>().contiguous(2)?;
            epoch.put_layout(&[7, 8], &two, peer, 5, &pair)?;
            let mut back = [0; 2];
            epoch.get_layout(&mut back, &two, peer, 5, &pair)?;
            assert_eq!(back, [7, 8]);
            epoch.end()?;
            world.barrier()?;
            assert_eq!(win.local().load(GIB / 2 + 5), 8);
            win.free()?;
            Ok(())
        });
    }
}

/// More than 2^31 elements in one put and one get.
#[test]
fn counts_beyond_two_billion() {
    let spec = |case: &str| Spec::new("counts_beyond_two_billion").case(case);
    for spec in [spec("host").ranks(2), spec("nodes").nodes(2).place("vh:1")] {
        run(spec, |world| {
            const COUNT: usize = (1 << 31) + 17;
            let mut win = world.allocate::<u8>(COUNT + 3)?;
            if world.rank().0 == 0 {
                let marks = [0, 1, 4095, GIB, COUNT - 18, COUNT - 1];
                // Zero pages, but for the marks.
                let mut data = vec![0u8; COUNT];
                for (i, &at) in marks.iter().enumerate() {
                    data[at] = i as u8 + 1;
                }
                let lock = win.lock(Rank(1), LockKind::Exclusive)?;
                lock.put(&data, Rank(1), 2)?;
                lock.flush(Rank(1))?;
                for &at in &marks {
                    data[at] = 99;
                }
                lock.get(&mut data, Rank(1), 2)?;
                lock.end()?;
                for (i, &at) in marks.iter().enumerate() {
                    assert_eq!(data[at], i as u8 + 1, "byte {at}");
                }
                for &at in &marks {
                    data[at] = 0;
                }
                // By blocks: single bytes take minutes in unoptimised code.
                assert!(
                    data.chunks(4096)
                        .all(|block| block == &[0; 4096][..block.len()])
                );
            }
            world.barrier()?;
            let expected = if world.rank().0 == 1 { 6 } else { 0 };
            assert_eq!(win.local().load(2 + COUNT - 1), expected);
            win.lock_local()?.end()?;
            win.free()?;
            Ok(())
        });
    }
}
