//! A collective call needs the window for itself: two threads cannot fence it at once.

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    std::thread::scope(|scope| {
        scope.spawn(|| win.fence().and_then(|epoch| epoch.end()));
        scope.spawn(|| win.fence().and_then(|epoch| epoch.end()));
    });
    Ok(())
}
