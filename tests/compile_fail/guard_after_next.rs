//! `next` consumes the guard of the epoch that it closes.
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let first = win.fence()?;
    let second = first.next()?;
    first.put(&[1.0], Rank(0), 0)?;
    second.end()
}
