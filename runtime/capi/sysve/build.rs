//! The soname, and the names by which programs find the library. The handlers of signals and forks that it installs outlive a
//! dlclose.

include!("../soname.rs");

fn main() {
    let links = ["libsysve.so.1", "libveio.so", "libveio.so.1"];
    library("sysve", "libsysve.so.1", &links);
}
