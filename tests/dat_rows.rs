//! Every row of udapl.md's tables that libdat2's exported calls reach, and the slots it does not export: by the C program
//! `tests/c/dat_rows.c` over stock libdat2 and our provider plug-in. The rows that only Rust reaches are in
//! `runtime/dat/tests`.
//!
//! The program checks itself and says which line failed. Here: what it needs, how it must end, what it may leave.

mod support;

use std::path::PathBuf;
use std::sync::OnceLock;

use support::cc;
use support::dat::{self, Config};

/// Runs one section of the program.
#[track_caller]
fn holds(section: &str) {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let needed = [
            "/usr/include/dat2/udat.h",
            "/usr/lib/x86_64-linux-gnu/libdat2.so",
        ];
        match dat::absent(&needed) {
            None => Some(cc::compile(
                "dat_rows",
                &["tests/c/dat_rows.c"],
                &["-ldat2"],
            )),
            Some(why) => {
                println!("skipped: {why}");
                None
            }
        }
    });
    let Some(program) = built else {
        println!("skipped: the program cannot be built");
        return;
    };
    let config = Config::new("127.0.0.1", false);
    let mut command = config.command(program.to_str().expect("target has an ordinary name"));
    command.arg(section);
    cc::run(command).succeeded();
}

macro_rules! sections {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*
    };
}

sections! { ia_and_pz lmr shared_virtual evd cno ep life dto faults rmr srq atomics slots }
