//! Peers write any bytes into window memory: a type with invalid bit patterns cannot be there.
fn main() -> windlass::Result<()> {
    let world = windlass::init()?;
    let flags = world.allocate::<bool>(8)?;
    let names = world.allocate::<&'static str>(8)?;
    flags.free()?;
    names.free()?;
    Ok(())
}
