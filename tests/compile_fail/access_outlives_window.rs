//! An access epoch borrows its window: the window is not freed before it ends.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate::<f64>(8)?;
    let group = world.group();
    let access = win.start(&group)?;
    win.free()?;
    access.end()
}
