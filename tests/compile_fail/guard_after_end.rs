//! `end` consumes the guard.
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let epoch = win.fence()?;
    epoch.end()?;
    epoch.put(&[1.0], Rank(0), 0)?;
    Ok(())
}
