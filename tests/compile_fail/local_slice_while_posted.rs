//! No plain slice while the part is exposed: peers may be writing.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let group = world.group();
    let exposure = win.post(&group)?;
    win.lock_local()?[0] = 1.0;
    exposure.wait()
}
