//! A view of another rank's shared part exists only in the epoch that covers it.
use windlass::{LockKind, Rank};

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate_shared::<f64>(8)?;
    let lock = win.lock(Rank(0), LockKind::Shared)?;
    let view = lock.shared(Rank(0))?;
    lock.end()?;
    println!("{}", view.map_or(0.0, |view| view.load(0)));
    Ok(())
}
