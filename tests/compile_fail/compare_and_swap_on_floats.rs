//! Equal floats may differ in their bits: no compare-and-swap on them (mpi-rma 3).
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let epoch = win.lock_all()?;
    epoch.compare_and_swap(0.0, 1.0, Rank(0), 0)?;
    epoch.end()
}
