//! A window cannot be freed inside an epoch.
fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let epoch = win.lock_all()?;
    win.free()?;
    epoch.end()
}
