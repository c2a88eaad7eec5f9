//! Promises that the types of `windlass` make: programs that must not compile, each with the
//! message the compiler gives for it. `TRYBUILD=overwrite cargo test --test compile_fail` writes
//! the messages anew after a change of the compiler; look at the difference before keeping it.

use std::path::Path;
use std::process::Command;

/// The compiler whose messages they are. Others refuse the programs too, in other words.
const COMPILER: &str = "rustc 1.95.";
/// A folder of copies of the programs, for the process that does without the messages.
const COPIES: &str = "WLTEST_COPIES";

fn is_compiler() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.expect("cargo has a compiler").stdout;
    version.starts_with(COMPILER.as_bytes())
}

fn refuses(programs: &str) {
    trybuild::TestCases::new().compile_fail(programs);
}

#[test]
fn wrong_programs_do_not_compile() {
    match std::env::var(COPIES) {
        Ok(copies) => refuses(&format!("{copies}/*.rs")),
        Err(_) if is_compiler() => refuses("tests/compile_fail/*.rs"),
        Err(_) => without_messages(),
    }
}

/// Where a message may be written, none is compared.
fn without_messages() {
    let copies = tempfile::tempdir().expect("a folder");
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    for entry in programs.read_dir().expect("the programs").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            std::fs::copy(&path, copies.path().join(entry.file_name())).expect("copied");
        }
    }
    let own = std::env::current_exe().expect("a process knows its program");
    let mut command = Command::new(own);
    command.args(["--exact", "wrong_programs_do_not_compile", "--nocapture"]);
    command
        .env("TRYBUILD", "overwrite")
        .env(COPIES, copies.path());
    let status = command.status().expect("it can be started");
    assert!(status.success(), "a program compiles that must not");
}
