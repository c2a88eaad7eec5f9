//! A window stays where it is while a lock on it is held.
use windlass::{LockKind, Rank};

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate::<f64>(8)?;
    let lock = win.lock(Rank(0), LockKind::Exclusive)?;
    let moved = win;
    lock.end()?;
    moved.free()?;
    Ok(())
}
