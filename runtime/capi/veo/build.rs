//! The soname, and the name by which programs find it.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libveo.so.1");
    // Threads of the library may outlive a dlclose.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Cargo cannot name a library libveo.so.1: a link beside it does. OUT_DIR is PROFILE/build/PACKAGE/out.
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let beside = Path::new(&out)
        .ancestors()
        .nth(3)
        .expect("OUT_DIR lies three levels below the profile's folder")
        .join("libveo.so.1");
    let _ = std::fs::remove_file(&beside);
    if let Err(e) = std::os::unix::fs::symlink("libveo.so", &beside) {
        println!("cargo:warning=no link libveo.so.1: {e}");
    }
}
