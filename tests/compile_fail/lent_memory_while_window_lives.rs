//! Memory that is lent to a window is the window's until `free` gives it back.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut memory = vec![0.0; 8];
    let win = world.create(memory)?;
    memory[0] = 1.0;
    let memory = win.free()?;
    println!("{}", memory[0]);
    Ok(())
}
