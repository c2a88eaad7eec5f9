//! The compiler may order the fields of a structure anew in every program.
#[derive(Clone, Copy, windlass::Element)]
struct Sample {
    at: f64,
    count: u64,
}

fn main() {
    let _ = Sample { at: 0.0, count: 0 };
}
