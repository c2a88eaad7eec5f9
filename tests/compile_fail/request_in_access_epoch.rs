//! Operations with requests, and flushes, are for passive epochs only (mpi-rma 3, 4).
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate::<f64>(8)?;
    let buffer = world.buffer::<f64>(4)?;
    let group = world.group();
    let access = win.start(&group)?;
    access.flush(Rank(0))?;
    access.rput(buffer, Rank(0), 0)?;
    access.end()
}
