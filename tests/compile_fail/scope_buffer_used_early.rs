//! What a transfer of a scope writes is not read before the scope ends.
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let mut found = [0.0; 4];
    let epoch = win.fence()?;
    epoch.scope(|s| {
        s.get(&mut found, Rank(0), 0)?;
        println!("{}", found[0]);
        Ok::<(), windlass::Error>(())
    })??;
    epoch.end()
}
