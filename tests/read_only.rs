//! Parts that the other ranks only read, by the hint `windlass_read_only`: the route is the one that gives them no right to write.

mod support;

use support::Spec;
use windlass::{Hints, LockKind, Op, Rank};

const LEN: usize = 3000;

fn read_only() -> Hints {
    Hints::new().with("windlass_read_only", "true")
}

/// What this process has of memory files for windows: the rights of each mapping.
fn mappings() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc is there");
    let files = maps
        .lines()
        .filter(|line| line.contains("memfd:windlass-arena"));
    let rights = files.filter_map(|line| line.split_whitespace().nth(1));
    rights.map(str::to_owned).collect()
}

#[test]
fn others_read_and_cannot_write() {
    Spec::new("others_read_and_cannot_write")
        .ranks(3)
        .world(|world| {
            let (me, n) = (world.rank().0, world.size());
            let mut win = world.allocate_with::<u64>(LEN, &read_only())?;
            assert_eq!(
                win.hints().get("windlass_read_only").as_deref(),
                Some("true")
            );
            win.lock_local()?.fill(u64::from(me) + 7);
            win.fence()?.end()?;
            for route in win.routes() {
                if route.target != world.rank() {
                    assert_eq!(
                        (route.mechanism, route.shape),
                        ("rsm", "mapped"),
                        "{route:?}"
                    );
                }
            }
            // The own part, and those of the others.
            let mut rights = mappings();
            rights.sort();
            assert_eq!(rights, ["r--s", "r--s", "rw-s"]);
            for rank in (0..n).filter(|rank| *rank != me).map(Rank) {
                let epoch = win.lock(rank, LockKind::Shared)?;
                let mut got = vec![0; LEN];
                epoch.get(&mut got, rank, 0)?;
                assert_eq!(got, [u64::from(rank.0) + 7; LEN]);
                let long = [1; 100];
                let refused = [
                    epoch.put(&[1], rank, 0).err(),
                    epoch.put(&long, rank, 5).err(),
                    epoch.accumulate(&[1], rank, 0, Op::Sum).err(),
                    epoch.accumulate(&long, rank, 0, Op::Replace).err(),
                    epoch.fetch_and_op(1, rank, 0, Op::Sum).err(),
                    epoch.compare_and_swap(7, 1, rank, 0).err(),
                ];
                for (call, error) in refused.iter().enumerate() {
                    let text = error.as_ref().map(|error| support::chain(error));
                    let told = text
                        .as_deref()
                        .is_some_and(|text| text.contains("read-only"));
                    assert!(told, "call {call} says {text:?}");
                }
                epoch.end()?;
            }
            win.fence()?.end()?;
            assert!(
                win.lock_local()?
                    .iter()
                    .all(|&word| word == u64::from(me) + 7)
            );
            // The owner goes on writing, and is seen.
            win.lock_local()?[LEN - 1] = 1;
            win.fence()?.end()?;
            let next = Rank((me + 1) % n);
            let mut last = [0];
            let epoch = win.lock(next, LockKind::Shared)?;
            epoch.get(&mut last, next, LEN - 1)?;
            assert_eq!(last, [1]);
            epoch.end()?;
            win.free()?;
            Ok(())
        });
}

/// Each rank says it of its own part.
#[test]
fn one_rank_may_say_it_alone() {
    Spec::new("one_rank_may_say_it_alone")
        .ranks(2)
        .world(|world| {
            let hints = match world.rank().0 {
                0 => read_only(),
                _ => Hints::new(),
            };
            let win = world.allocate_with::<u64>(4, &hints)?;
            let other = Rank(1 - world.rank().0);
            let epoch = win.lock(other, LockKind::Shared)?;
            let put = epoch.put(&[5], other, 2);
            assert_eq!(put.is_err(), other.0 == 0, "{put:?}");
            epoch.end()?;
            world.barrier()?;
            let kept = win.local().load(2);
            assert_eq!(kept, if world.rank().0 == 0 { 0 } else { 5 });
            win.free()?;
            Ok(())
        });
}

/// Where not all live on one host, or the route is not there, it is advice that is not followed.
#[test]
fn elsewhere_it_has_no_effect() {
    let spec = |case: &str| Spec::new("elsewhere_it_has_no_effect").case(case);
    for spec in [
        spec("nodes").nodes(2).place("vh:1"),
        spec("VEs").ves(2).place("ve0:1,ve1:1"),
        spec("ruled out").ranks(2).env("WINDLASS_ROUTE", "vhshm"),
        spec("broken").ranks(2).env("WINDLASS_FAIL", "rsm:export"),
    ] {
        spec.world(|world| {
            let mut win = world.allocate_with::<u64>(LEN, &read_only())?;
            let other = Rank(1 - world.rank().0);
            let epoch = win.fence()?;
            epoch.put(&[5; LEN], other, 0)?;
            epoch.end()?;
            assert!(win.lock_local()?.iter().all(|&word| word == 5));
            win.free()?;
            Ok(())
        });
    }
}
