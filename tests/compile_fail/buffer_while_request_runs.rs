//! A buffer belongs to its transfer until the request gives it back.
use windlass::Rank;

fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let mut win = world.allocate::<f64>(8)?;
    let epoch = win.lock_all()?;
    let mut buffer = world.buffer::<f64>(4)?;
    let request = epoch.rput(buffer, Rank(0), 0)?;
    buffer[0] = 2.0;
    request.wait()?;
    Ok(())
}
