//! Jobs of real processes for tests: the test binary starts itself as ranks.
//!
//! A [`Spec`] names the test and where its ranks live. In the process that `cargo test` started,
//! [`Spec::run`] launches this very binary once per rank, with arguments that make it run this
//! one test again; there the same call finds the rank's variables in the environment, runs the
//! body and exits. So body and expectations stand side by side in one function.
//!
//! Every run has a watchdog and a leak check (reliability, conventions). One job runs at a time on
//! a machine, also across test binaries, by a file lock: two cpus are few.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod cc;
pub mod dat;
pub mod data;
pub mod leaks;
pub mod libdat2;
pub mod line;
pub mod ofi;
pub mod process;
pub mod ways;
pub mod work;
pub mod yard;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use windlass::World;
use windlass_launcher::{Job, Outcome, Running};

use leaks::Before;

/// Why a rank's body failed.
pub type Failure = Box<dyn Error + Send + Sync>;
/// What a rank's body answers.
pub type Done = Result<(), Failure>;

/// Names test and case of a rank or of a process that is to be the launcher.
const CASE: &str = "WLTEST_CASE";
/// Marks every process of one job: the leak check looks for it.
pub const TOKEN: &str = "WLTEST_TOKEN";
/// What the launcher sets for its ranks.
const RANK: &str = "WINDLASS_RANK";

/// A hang is a failure after this long: more than any job needs in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
/// The launcher gets this much longer than the watchdog that shows where the ranks are.
const SHOWN: Duration = Duration::from_secs(10);
/// And the test itself this much longer than the launcher.
const OUTER: Duration = Duration::from_secs(30);

/// A job to be run by a test.
#[derive(Clone, Debug)]
pub struct Spec {
    test: &'static str,
    case: String,
    ranks: Option<u32>,
    nodes: u32,
    ves: Option<u32>,
    place: Option<String>,
    env: Vec<(String, String)>,
    limit: Duration,
    /// What a shell does before it becomes the rank.
    before: Option<&'static str>,
}

/// How a job went.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the launcher says.
    pub outcome: Outcome,
    /// When the launcher gave its answer, in ns of the monotonic clock.
    pub ended_ns: u64,
    /// Process of each rank.
    pub pids: Vec<i32>,
    /// How long the machine kept processes from running meanwhile.
    pub stalled: Duration,
}

impl Report {
    /// Everything there is to say about a job, for the message of a failed assertion.
    pub fn text(&self) -> String {
        let Outcome {
            exit_code,
            cause,
            ranks,
            message,
            ..
        } = &self.outcome;
        let ends: Vec<String> = ranks.iter().map(|rank| rank.describe()).collect();
        format!(
            "exit code {exit_code}, cause {cause:?}\n{}\nlauncher: {message}\nstdout:\n{}\nstderr:\n{}",
            ends.join("\n"),
            self.outcome.stdout_text(),
            self.outcome.stderr_text(),
        )
    }

    /// Fails the test unless every rank ended well.
    #[track_caller]
    pub fn succeeded(&self) {
        let fine = self.outcome.exit_code == 0 && self.outcome.message.is_empty();
        assert!(fine, "the job failed: {}", self.text());
    }

    /// The value of the first line of output that has `key=` in it, from any rank.
    pub fn value(&self, key: &str) -> Option<String> {
        let text = self.outcome.stdout_text();
        let mut values = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(key));
        values.find_map(|rest| rest.strip_prefix('=').map(str::to_owned))
    }
}

/// What this process is to a test.
enum Role {
    /// Started by cargo: launch and judge.
    Test,
    /// A rank of this very case.
    Rank,
    /// A rank of another case of the same test: pass by.
    Other,
}

impl Spec {
    /// A job of the test function called `test` (its path in the binary).
    pub fn new(test: &'static str) -> Spec {
        Spec {
            test,
            case: String::new(),
            ranks: None,
            nodes: 1,
            ves: None,
            place: None,
            env: Vec::new(),
            limit: LIMIT,
            before: None,
        }
    }

    /// Distinguishes jobs of different bodies in one test function.
    pub fn case(mut self, case: impl Into<String>) -> Spec {
        self.case = case.into();
        self
    }

    /// Number of ranks, where the placement's counts do not say it.
    pub fn ranks(mut self, ranks: u32) -> Spec {
        self.ranks = Some(ranks);
        self
    }

    /// Logical nodes.
    pub fn nodes(mut self, nodes: u32) -> Spec {
        self.nodes = nodes;
        self
    }

    /// VEs of each node.
    pub fn ves(mut self, ves: u32) -> Spec {
        self.ves = Some(ves);
        self
    }

    /// Where the ranks of each node live.
    pub fn place(mut self, place: impl Into<String>) -> Spec {
        self.place = Some(place.into());
        self
    }

    /// A variable of the ranks.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Spec {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Windows on VEs through a libveo.so that is loaded: our own, since there is no card here.
    pub fn native(self) -> Spec {
        if matches!(self.role(), Role::Test) {
            for package in ["windlass-veo", "windlass-sysve"] {
                cc::package(package);
            }
        }
        let library = cc::profile().join("libveo.so.1");
        let library = library.to_str().expect("a path of text");
        self.env("WINDLASS_VE", "native")
            .env("WINDLASS_LIBVEO", library)
    }

    /// Between nodes by our provider as libdat2 loads it, in place of one for hardware.
    pub fn libdat2(self) -> Spec {
        let conf = match self.role() {
            Role::Test => libdat2::conf(),
            Role::Rank | Role::Other => String::new(),
        };
        self.env("WINDLASS_DAT", libdat2::NAME)
            .env("DAT_OVERRIDE", conf)
    }

    /// Ranks that do not end by SIGTERM: until the launcher's SIGKILL they see what becomes of a
    /// job that is broken.
    pub fn stubborn(self) -> Spec {
        // A signal that is ignored stays so in the program that takes the shell's place.
        self.after("trap '' TERM")
    }

    /// Ranks that a shell becomes after it has done this.
    pub fn after(mut self, script: &'static str) -> Spec {
        self.before = Some(script);
        self
    }

    /// How long the job may take.
    pub fn limit(mut self, limit: Duration) -> Spec {
        self.limit = limit;
        self
    }

    fn name(&self) -> String {
        format!("{}/{}", self.test, self.case)
    }

    fn role(&self) -> Role {
        match std::env::var(CASE) {
            Err(_) => Role::Test,
            Ok(case) if case == self.name() => Role::Rank,
            Ok(_) => Role::Other,
        }
    }

    fn job(&self, token: &str) -> Job {
        let program = std::env::current_exe().expect("a process knows its program");
        let mut job = match self.before {
            Some(before) => {
                let script = format!(r#"{before}; exec "$0" "$@""#);
                Job::new("/bin/sh").arg("-c").arg(script).arg(program)
            }
            None => Job::new(program),
        };
        job = job
            .args([
                self.test,
                "--exact",
                "--nocapture",
                "--test-threads=1",
                "--include-ignored",
            ])
            .nodes(self.nodes)
            .env(CASE, self.name())
            .env(TOKEN, token)
            .timeout(self.limit + SHOWN);
        if let Some(ranks) = self.ranks {
            job = job.ranks(ranks);
        }
        if let Some(ves) = self.ves {
            job = job.ves(ves);
        }
        if let Some(place) = &self.place {
            job = job.place(place);
        }
        for (name, value) in &self.env {
            job = job.env(name, value);
        }
        job
    }

    /// Runs `body` in every rank between `init` and `end`; every rank has to end well.
    #[track_caller]
    pub fn world(self, body: impl FnOnce(&World) -> Done) {
        self.run(|| with_world(body), Report::succeeded);
    }

    /// Runs `body` in every rank and `check` on the outcome in the test's own process.
    #[track_caller]
    pub fn run(self, body: impl FnOnce() -> Done, check: impl FnOnce(&Report)) {
        self.run_during(body, |_| (), check);
    }

    /// As [`run`](Self::run); `during` is given the running job.
    #[track_caller]
    pub fn run_during(
        self,
        body: impl FnOnce() -> Done,
        during: impl FnOnce(&Running),
        check: impl FnOnce(&Report),
    ) {
        match self.role() {
            Role::Other => return,
            Role::Rank => act(body),
            Role::Test => {}
        }
        let _alone = leaks::alone();
        let token = new_token();
        let before = Before::take(&token);
        let running = match self.job(&token).capture().spawn() {
            Ok(running) => running,
            Err(error) => panic!("{}: the job could not be started: {error:?}", self.name()),
        };
        let pids = running.pids();
        let homes = leaks::homes(&pids);
        during(&running);
        let report = self.wait(running, &token);
        let leaks = before.leaks(&report.pids, &homes);
        assert!(
            leaks.is_empty(),
            "{}: left behind: {leaks:#?}\n{}",
            self.name(),
            report.text()
        );
        check(&report);
    }

    /// Waits for the job's end under the watchdog.
    fn wait(&self, running: Running, token: &str) -> Report {
        let pids = running.pids();
        let stalls = process::Stalls::watch();
        let (sender, receiver) = channel();
        let waiter = std::thread::spawn(move || {
            // Nobody listens any more after the outer limit.
            let _ = sender.send((running.wait(), process::now_ns()));
        });
        let first = receiver.recv_timeout(self.limit);
        let hung = matches!(first, Err(RecvTimeoutError::Timeout));
        let state = if hung {
            process::stacks(&pids)
        } else {
            String::new()
        };
        let answer = if hung {
            receiver.recv_timeout(SHOWN + OUTER)
        } else {
            first
        };
        let (outcome, ended_ns) = match answer {
            Ok(answer) => answer,
            Err(_) => {
                process::kill_all(&process::carrying(TOKEN, token));
                panic!("{}: neither job nor launcher ended: {state}", self.name());
            }
        };
        waiter
            .join()
            .expect("the waiter does not panic after its message");
        let outcome = outcome
            .unwrap_or_else(|error| panic!("{}: the job could not be run: {error:?}", self.name()));
        let report = Report {
            outcome,
            ended_ns,
            pids,
            stalled: stalls.end(),
        };
        assert!(
            !hung,
            "{}: hung for {:?}: {state}\n{}",
            self.name(),
            self.limit,
            report.text()
        );
        report
    }

    /// Starts the command `windlass` as the launcher of this job, for tests that kill it or read
    /// what it says; it keeps its directories below `base`. Gives `None` in ranks of other cases.
    pub fn launcher(self, base: &RuntimeDir, body: impl FnOnce() -> Done) -> Option<Launched> {
        match self.role() {
            Role::Other => return None,
            Role::Rank => act(body),
            Role::Test => {}
        }
        let token = new_token();
        let mut windlass = Command::new(command());
        windlass.args(["run", "--nodes", &self.nodes.to_string()]);
        for (flag, value) in [("-n", self.ranks), ("--ves", self.ves)] {
            windlass.args(
                value
                    .iter()
                    .flat_map(|value| [flag.to_owned(), value.to_string()]),
            );
        }
        windlass.args(self.place.iter().flat_map(|place| ["--place", place]));
        let limit = (self.limit + SHOWN).as_secs().to_string();
        windlass.args(["--timeout", &limit]);
        let own = [(CASE.to_owned(), self.name())];
        for (name, value) in self.env.iter().chain(&own) {
            windlass.args(["-x", &format!("{name}={value}")]);
        }
        windlass
            .arg("--")
            .arg(std::env::current_exe().expect("a process knows its program"));
        windlass.args([self.test, "--exact", "--nocapture", "--test-threads=1"]);
        let mut child = windlass
            .env(TOKEN, &token)
            .env("XDG_RUNTIME_DIR", base.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command can be started");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let errors = child.stderr.take().expect("its errors are piped");
        let errors =
            std::thread::spawn(move || std::io::read_to_string(errors).unwrap_or_default());
        Some(Launched {
            child,
            output,
            errors: Some(errors),
            token,
        })
    }
}

impl Spec {
    /// The body in a process of its own without a launcher: gives the command to run, and the
    /// directory for its files. `None` in that process's other calls.
    pub fn without_launcher(
        self,
        env: &[(&str, &str)],
        body: impl FnOnce() -> Done,
    ) -> Option<(Command, RuntimeDir)> {
        match self.role() {
            Role::Other => return None,
            Role::Rank => act(body),
            Role::Test => {}
        }
        let mut command =
            Command::new(std::env::current_exe().expect("a process knows its program"));
        command.args([self.test, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(CASE, self.name()).envs(env.iter().copied());
        Some((command, RuntimeDir::new()))
    }
}

/// A directory for a launcher's files, removed at the end of the test. Ranks get none.
pub struct RuntimeDir(Option<tempfile::TempDir>);

impl RuntimeDir {
    /// Makes it, with a short path: a socket's is at most 107 bytes.
    pub fn new() -> RuntimeDir {
        let make = || tempfile::Builder::new().prefix("wl").tempdir_in("/tmp");
        RuntimeDir((!is_rank()).then(|| make().expect("a directory in /tmp")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0
            .as_ref()
            .map_or(Path::new("/nonexistent"), |dir| dir.path())
    }

    /// What is in it.
    pub fn entries(&self) -> Vec<PathBuf> {
        let entries = self.path().read_dir().expect("it exists while this lives");
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

/// A launcher in a process of its own.
pub struct Launched {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    errors: Option<std::thread::JoinHandle<String>>,
    token: String,
}

impl Launched {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Reads its output until `count` lines have `word` in them; gives them.
    pub fn lines(&mut self, word: &str, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut all = String::new();
        while found.len() < count {
            let mut line = String::new();
            let read = self
                .output
                .read_line(&mut line)
                .expect("its output can be read");
            assert!(
                read > 0,
                "the launcher ended before {count} lines of {word}: {all}"
            );
            all.push_str(&line);
            if line.contains(word) {
                found.push(line.trim_end().to_owned());
            }
        }
        found
    }

    /// Every process of the job that lives, the launcher included.
    pub fn processes(&self) -> Vec<i32> {
        process::carrying(TOKEN, &self.token)
    }

    /// Sends the launcher a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits for the launcher's end; gives its exit code (-1 for a signal) and what it said.
    pub fn wait(&mut self) -> (i32, String) {
        let status = self.child.wait().expect("it is our child");
        let errors = self
            .errors
            .take()
            .map(|thread| thread.join().unwrap_or_default());
        (status.code().unwrap_or(-1), errors.unwrap_or_default())
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Joins the job, runs `body`, ends the job.
pub fn with_world(body: impl FnOnce(&World) -> Done) -> Done {
    let world = windlass::init()?;
    body(&world)?;
    world.end()?;
    Ok(())
}

/// The whole life of a rank: the body, then the exit, so that the test harness says nothing more.
fn act(body: impl FnOnce() -> Done) -> ! {
    let code = match std::panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            eprintln!("rank {}: {}", my_rank(), chain(&*failure));
            2
        }
        Err(_) => {
            eprintln!("rank {} panicked", my_rank());
            101
        }
    };
    std::process::exit(code)
}

/// The rank the launcher gave this process, 0 without one.
pub fn my_rank() -> u32 {
    std::env::var(RANK)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// An error with all its causes.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

fn new_token() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}-{}", std::process::id(), process::now_ns())
}

/// The command `windlass`, built if it is not beside this test already.
pub fn command() -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    // For tests that were moved away from the tree that built them.
    if let Some(elsewhere) = std::env::var_os("WLTEST_COMMAND") {
        return elsewhere.into();
    }
    let build = || {
        build(
            &["--package", "windlass-launcher", "--bin", "windlass"],
            "windlass",
        )
    };
    if let Some(built) = BUILT.get() {
        return built.clone();
    }
    // Before whoever builds: what waits for the other way round would wait for ever.
    let _alone = leaks::alone_unless_rank();
    BUILT.get_or_init(build).clone()
}

/// A program of `examples/` or `benches/`, built as this test is: `--example` or `--bin`, and its name.
pub fn program(kind: &str, name: &str) -> PathBuf {
    let path = match kind {
        "--example" => format!("examples/{name}"),
        _ => name.to_owned(),
    };
    build(&[kind, name], &path)
}

/// Builds a target; gives its file, which cargo puts at `path` of the folder of the profile.
fn build(target: &[&str], path: &str) -> PathBuf {
    // target/<profile>/deps/<this test>
    let exe = std::env::current_exe().expect("a process knows its program");
    let profile = exe
        .ancestors()
        .nth(2)
        .expect("tests lie in target/<profile>/deps")
        .to_owned();
    let program = profile.join(path);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet"]).args(target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    build.env(
        "CARGO_TARGET_DIR",
        profile.parent().expect("a profile lies in target"),
    );
    // Nothing to do where `cargo test --workspace` has built it; else it may be missing or old.
    let _alone = leaks::alone_unless_rank();
    let built = build.status().is_ok_and(|status| status.success());
    assert!(
        built && program.is_file(),
        "{} cannot be built",
        program.display()
    );
    program
}

/// Nothing is skipped for want of a package where these have been installed, as `.ci/run` has: it sets this variable.
pub fn may_skip(why: &str) {
    assert!(std::env::var_os("WLTEST_ALL").is_none(), "{why}");
}

/// Is this process a rank that a test has started?
pub fn is_rank() -> bool {
    std::env::var_os(CASE).is_some()
}
