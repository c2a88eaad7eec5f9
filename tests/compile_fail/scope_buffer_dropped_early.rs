//! What a transfer of a scope reads lives until the scope ends.
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let epoch = win.fence()?;
    epoch.scope(|s| {
        let halo = vec![1.0; 4];
        s.put(&halo, Rank(0), 0)
    })??;
    epoch.end()
}
