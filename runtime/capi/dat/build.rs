//! The soname, and that the library stays: libdat2 closes it after its last adapter, and thread-local destructors of the program's
//! threads may still follow; stale handles point to its tables (udapl.md section 3.1).

include!("../soname.rs");

fn main() {
    library("dapl_windlass", "libdapl_windlass.so", &[]);
}
