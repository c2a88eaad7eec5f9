//! The soname, and that the library stays.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libdapl_windlass.so");
    // libdat2 closes it after its last adapter: thread-local destructors of the program's threads may still follow, and
    // stale handles point to its tables (udapl.md section 3.1).
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
