//! The slice ends with the lock that makes it exclusive.
fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let mut guard = win.lock_local()?;
    let slice: &mut [f64] = &mut guard;
    guard.end()?;
    slice[0] = 1.0;
    Ok(())
}
