//! lock_all borrows the window mutably: no lock beside it, in either order.
use windlass::{LockKind, Rank};

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let lock = win.lock(Rank(0), LockKind::Shared)?;
    let all = win.lock_all()?;
    lock.end()?;
    all.end()
}
