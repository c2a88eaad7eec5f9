//! A job of several ranks that works and checks itself until it is told to stop, for tests of what disturbs it.

use windlass::{Op, Rank, World};

use super::Failure;

/// Fences, puts and updates until `stop` says so in rank 0; `turn` is given the number of each turn. Gives how many there were.
pub fn until(
    world: &World,
    stop: impl Fn() -> bool,
    mut turn: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut window = world.allocate::<u64>(3)?;
    let next = Rank((world.rank().0 + 1) % world.size());
    let mut turns = 0;
    let mut epoch = window.fence()?;
    loop {
        turns += 1;
        epoch.put(&[turns], next, 0)?;
        epoch.accumulate(&[1], next, 1, Op::Sum)?;
        if world.rank() == Rank(0) && stop() {
            for target in world.ranks() {
                epoch.put(&[1], target, 2)?;
            }
        }
        epoch = epoch.next()?;
        let local = epoch.local();
        assert_eq!((local.load(0), local.load(1)), (turns, turns));
        let last = local.load(2) == 1;
        // Nobody puts into the next turn before all have looked.
        epoch = epoch.next()?;
        turn(turns)?;
        if last {
            break;
        }
    }
    epoch.end()?;
    let mut found = [0; 2];
    let epoch = window.lock_all()?;
    epoch.get(&mut found, next, 0)?;
    epoch.end()?;
    assert_eq!(found, [turns, turns]);
    window.free()?;
    Ok(turns)
}
