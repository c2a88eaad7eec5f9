//! A fence needs the window for itself: no access, exposure or lock is open then.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let group = world.group();
    let access = win.start(&group)?;
    let epoch = win.fence()?;
    epoch.end()?;
    access.end()
}
