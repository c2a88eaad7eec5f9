//! The soname, and the names by which programs find the library.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsysve.so.1");
    // The handlers of signals and forks that it installs outlive a dlclose.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Cargo cannot name a library libsysve.so.1: links beside it do. OUT_DIR is PROFILE/build/PACKAGE/out.
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let beside = Path::new(&out)
        .ancestors()
        .nth(3)
        .expect("OUT_DIR lies three levels below the profile's folder");
    for name in ["libsysve.so.1", "libveio.so", "libveio.so.1"] {
        let link = beside.join(name);
        let _ = std::fs::remove_file(&link);
        if let Err(e) = std::os::unix::fs::symlink("libsysve.so", &link) {
            println!("cargo:warning=no link {name}: {e}");
        }
    }
}
