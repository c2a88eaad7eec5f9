//! Only a window opens epochs: the kind of one cannot be made.
fn main() {
    let _ = windlass::Fenced(());
}
