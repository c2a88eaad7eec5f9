//! An element is moved as bytes: it must not have an owner.
#[derive(windlass::Element)]
#[repr(C)]
struct Sample {
    at: f64,
}

fn main() {
    let _ = Sample { at: 0.0 };
}
