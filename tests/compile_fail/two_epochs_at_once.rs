//! A fence epoch borrows the window mutably: no lock beside it.
use windlass::{LockKind, Rank};

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let fence = win.fence()?;
    let lock = win.lock(Rank(0), LockKind::Shared)?;
    fence.put(&[1.0], Rank(0), 0)?;
    lock.put(&[1.0], Rank(0), 0)?;
    Ok(())
}
