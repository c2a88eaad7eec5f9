//! No new kind of epoch can be invented: operations could then go without any.
struct Mine;

impl windlass::Passive for Mine {}

fn main() {}
