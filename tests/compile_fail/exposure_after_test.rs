//! A test that finds the exposure open gives it back: the old guard is gone in any case.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate::<f64>(8)?;
    let group = world.group();
    let exposure = win.post(&group)?;
    while exposure.test()?.is_some() {}
    Ok(())
}
