//! Only an exposure can be waited for, and only a post makes one.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate::<f64>(8)?;
    win.wait()
}
