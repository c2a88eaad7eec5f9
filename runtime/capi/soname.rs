// What the build scripts of the C libraries share: each includes this file.

/// Gives the library `lib<name>.so` its soname, and links to it beside it, for cargo cannot name a file like that. It stays loaded
/// for good: each script says what of it would outlive a dlclose.
fn library(name: &str, soname: &str, links: &[&str]) {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../soname.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // OUT_DIR is PROFILE/build/PACKAGE/out.
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let beside = std::path::Path::new(&out)
        .ancestors()
        .nth(3)
        .expect("OUT_DIR lies three levels below the profile's folder");
    for link in links {
        let path = beside.join(link);
        let _ = std::fs::remove_file(&path);
        if let Err(e) = std::os::unix::fs::symlink(format!("lib{name}.so"), &path) {
            println!("cargo:warning=no link {link}: {e}");
        }
    }
}
