//! Operations with requests are for passive epochs only (mpi-rma 3).
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let buffer = world.buffer::<f64>(4)?;
    let epoch = win.fence()?;
    epoch.rput(buffer, Rank(0), 0)?;
    epoch.end()
}
