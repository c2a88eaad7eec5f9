//! C programs of tests: compiled with `cc` against our headers and libraries, run under a watchdog.
//!
//! What they start is found by the token in its environment, and must be gone when they are.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::leaks::{self, Before};
use super::{TOKEN, process};

/// A hang is a failure after this long.
const LIMIT: Duration = Duration::from_secs(300);

/// The folder of this build: target/<profile>.
pub fn profile() -> PathBuf {
    let exe = std::env::current_exe().expect("a process knows its program");
    let profile = exe.ancestors().nth(2);
    let profile = profile.expect("tests lie in target/<profile>/deps");
    profile.to_owned()
}

/// A test's program that is itself run by a test is so under that one's lock.
fn alone() -> Option<leaks::Alone> {
    std::env::var_os(TOKEN).is_none().then(leaks::alone)
}

/// Builds packages of this workspace as this test was built, while no other test looks for descriptors that are left. Nothing to
/// do where cargo just did.
pub fn package(name: &str) {
    static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let is_built = || BUILT.lock().expect("nobody fails under it").contains(name);
    if is_built() {
        return;
    }
    let _alone = alone();
    if is_built() {
        return;
    }
    let profile = profile();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", name]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    let target = profile.parent().expect("a profile lies in target");
    build.env("CARGO_TARGET_DIR", target);
    let status = build.status().expect("cargo can be run");
    assert!(status.success(), "{name} cannot be built");
    let mut built = BUILT.lock().expect("nobody fails under it");
    built.insert(name.to_owned());
}

/// Compiles `tests/c/<sources>` with these further arguments to a file called `name`; as [`package`], alone.
pub fn compile(name: &str, sources: &[&str], arguments: &[&str]) -> PathBuf {
    // One test at a time writes there, too: two of a binary may want the same file.
    let _alone = alone();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = profile().join("c");
    fs::create_dir_all(&folder).expect("target can be written");
    let output = folder.join(name);
    // Unlinked first: it may be running still in another test.
    let _ = fs::remove_file(&output);
    let mut cc = Command::new("cc");
    cc.args([
        "-std=gnu11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
    ]);
    cc.arg(root.join("runtime/capi/include"));
    cc.arg("-o").arg(&output);
    cc.args(sources.iter().map(|source| root.join(source)));
    cc.arg("-L").arg(profile());
    cc.arg(format!("-Wl,-rpath,{}", profile().display()));
    cc.args(arguments).arg("-pthread");
    let done = cc.output().expect("a C compiler is installed as cc");
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{cc:?}\n{text}");
    output
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Fails the test unless the program ended with 0.
    #[track_caller]
    pub fn succeeded(&self) {
        assert!(self.status.success(), "{self:#?}");
    }
}

/// Everything that comes from a pipe, read by a thread.
pub(super) fn reader(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Runs a program to its end; fails the test if it hangs or leaves something behind.
#[track_caller]
pub fn run(mut command: Command) -> Ended {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let token = format!("c-{}-{run}", std::process::id());
    let _alone = leaks::alone();
    let before = Before::take(&token);
    command.env(TOKEN, &token);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id() as i32;
    let out = reader(child.stdout.take().expect("it is a pipe"));
    let err = reader(child.stderr.take().expect("it is a pipe"));
    let mut status = None;
    process::wait_until(LIMIT, || {
        status = child.try_wait().expect("the child is ours");
        status.is_some()
    });
    let hung = status.is_none().then(|| process::stacks(&[pid]));
    if hung.is_some() {
        let _ = child.kill();
    }
    let status = child.wait().expect("the child is ours");
    let leaks = before.leaks(&[pid], &BTreeSet::new());
    process::kill_all(&process::carrying(TOKEN, &token));
    let ended = Ended {
        status,
        stdout: out.join().expect("a reader does not panic"),
        stderr: err.join().expect("a reader does not panic"),
    };
    if let Some(stacks) = hung {
        panic!("{command:?} hangs: {ended:#?}\n{stacks}");
    }
    assert!(leaks.is_empty(), "{command:?} left {leaks:#?}\n{ended:#?}");
    ended
}
