//! Peers write any bytes into window memory: a type with invalid bit patterns cannot be there.
fn element<T: windlass::Element>() {}

fn main() {
    element::<u64>();
    element::<bool>();
}
