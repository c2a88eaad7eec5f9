//! Only a window opens epochs: a kind of epoch cannot be made, nor a new one be invented.
struct Mine;

impl windlass::Kind for Mine {}

fn main() {
    let _ = windlass::Fenced(());
}
