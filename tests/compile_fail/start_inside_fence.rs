//! A fence epoch has the window for itself: no access begins inside it.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let group = world.group();
    let epoch = win.fence()?;
    let access = win.start(&group)?;
    access.end()?;
    epoch.end()
}
