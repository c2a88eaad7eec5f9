//! The soname, and the name by which programs find it.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librsm.so.2");
    // The handlers of forks that it installs outlive a dlclose.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Cargo cannot name a library librsm.so.2: a link beside it does. OUT_DIR is PROFILE/build/PACKAGE/out.
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let beside = Path::new(&out)
        .ancestors()
        .nth(3)
        .expect("OUT_DIR lies three levels below the profile's folder")
        .join("librsm.so.2");
    let _ = std::fs::remove_file(&beside);
    if let Err(e) = std::os::unix::fs::symlink("librsm.so", &beside) {
        println!("cargo:warning=no link librsm.so.2: {e}");
    }
}
