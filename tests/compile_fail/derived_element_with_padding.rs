//! Padding has no value: peers could not agree on it, and reading it is undefined.
#[derive(Clone, Copy, windlass::Element)]
#[repr(C)]
struct Sample {
    at: f64,
    count: u32,
}

fn main() {
    let _ = Sample { at: 0.0, count: 0 };
}
