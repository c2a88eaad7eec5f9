//! An exposure is over after its wait.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let win = world.allocate::<f64>(8)?;
    let group = world.group();
    let exposure = win.post(&group)?;
    let view = exposure.local();
    exposure.wait()?;
    println!("{}", view.load(0));
    exposure.wait()
}
