//! The soname, and the name by which programs find the library. The handlers of forks that it installs outlive a dlclose.

include!("../soname.rs");

fn main() {
    library("rsm", "librsm.so.2", &["librsm.so.2"]);
}
