//! Memory that is borrowed by a window is not touched while the window lives.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut memory = [0.0; 8];
    world.create_scoped(&mut memory, |win| {
        let epoch = win.fence()?;
        println!("{}", memory[0]);
        epoch.end()
    })?
}
