//! Operations are the guard's, so without an epoch there is no put.
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate::<f64>(8)?;
    win.put(&[1.0], Rank(0), 0)?;
    Ok(())
}
