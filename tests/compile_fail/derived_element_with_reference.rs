//! An address means nothing in another process, and any other bytes are no reference.
#[derive(Clone, Copy, windlass::Element)]
#[repr(C)]
struct Shared {
    value: &'static u64,
}

fn main() {
    let _ = Shared { value: &1 };
}
