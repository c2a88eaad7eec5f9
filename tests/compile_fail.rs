//! Promises that the types of `windlass` make: programs that must not compile, each with the
//! message the compiler gives for it. `TRYBUILD=overwrite cargo test --test compile_fail` writes
//! the messages anew after a change of the compiler; look at the difference before keeping it.

#[test]
fn wrong_programs_do_not_compile() {
    let programs = trybuild::TestCases::new();
    programs.compile_fail("tests/compile_fail/*.rs");
}
