//! An access epoch is over after its end: nothing goes through its guard any more.
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate::<f64>(8)?;
    let group = world.group();
    let access = win.start(&group)?;
    access.end()?;
    access.put(&[1.0], Rank(0), 0)
}
