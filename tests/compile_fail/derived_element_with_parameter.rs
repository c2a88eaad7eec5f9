//! Whether there is padding would depend on the parameter.
#[derive(Clone, Copy, windlass::Element)]
#[repr(C)]
struct Tagged<T> {
    tag: u64,
    value: T,
}

fn main() {
    let _ = Tagged { tag: 0, value: 1u8 };
}
