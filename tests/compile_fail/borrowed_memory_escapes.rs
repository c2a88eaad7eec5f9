//! A window over borrowed memory does not leave the closure that borrows it.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut memory = [0.0; 8];
    let win = world.create_scoped(&mut memory, |win| win)?;
    println!("{}", win.name());
    Ok(())
}
