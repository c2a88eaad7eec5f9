//! The soname, and the name by which programs find the library. Threads of it may outlive a dlclose.

include!("../soname.rs");

fn main() {
    library("veo", "libveo.so.1", &["libveo.so.1"]);
}
