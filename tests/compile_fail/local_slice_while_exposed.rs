//! A plain slice of window memory cannot exist while an epoch lets peers write it.
fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let mut slice = win.lock_local()?;
    let epoch = win.fence()?;
    slice[0] = 1.0;
    epoch.end()
}
