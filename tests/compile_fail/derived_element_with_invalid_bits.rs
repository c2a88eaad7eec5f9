//! Peers write any bytes: a field must be valid whatever they are.
#[derive(Clone, Copy, windlass::Element)]
#[repr(C)]
struct Flag {
    set: bool,
}

fn main() {
    let _ = Flag { set: true };
}
