//! Programs over libdat2: Debian's own tools and the C programs of tests, on our provider.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::cc::{self, Ended};
use super::leaks::{self, Before};
use super::{TOKEN, process};

/// The adapter's name in our `dat.conf`.
pub const NAME: &str = "windlass";
/// A hang is a failure after this long.
const LIMIT: Duration = Duration::from_secs(300);

/// Why programs over libdat2 cannot be run, if they cannot: a package that is not installed.
pub fn absent(files: &[&str]) -> Option<String> {
    let lacking = files.iter().find(|file| !Path::new(file).exists())?;
    let why = format!("no {lacking}: install dapl2-utils and libdapl-dev");
    super::may_skip(&why);
    Some(why)
}

/// A folder with a `dat.conf` of one line, and a secret; gone with this value.
pub struct Config {
    folder: PathBuf,
}

impl Config {
    /// Our provider at this address; with a secret, as adapters that other hosts reach must have.
    pub fn new(address: &str, secret: bool) -> Config {
        static MADE: AtomicU32 = AtomicU32::new(0);
        cc::package("windlass-dapl");
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("wltest-dat-{}-{made}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a name of this process is free");
        let mut parameters = address.to_owned();
        if secret {
            let path = folder.join("secret");
            let mut options = fs::File::options();
            options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(&path).expect("the folder is ours");
            std::io::Write::write_all(&mut file, &[9; 32]).expect("there is room");
            parameters = format!("{address} secret={}", path.display());
        }
        let library = cc::profile().join("libdapl_windlass.so");
        let line = format!(
            "{NAME} u2.0 nonthreadsafe default {} windlass.2.0 \"{parameters}\" \"\"\n",
            library.display()
        );
        fs::write(folder.join("dat.conf"), line).expect("the folder is ours");
        Config { folder }
    }

    /// The same secret, but for another address.
    pub fn beside(&self, address: &str) -> Config {
        let other = Config::new(address, true);
        fs::copy(self.folder.join("secret"), other.folder.join("secret")).expect("both are ours");
        other
    }

    /// A command that finds our provider, and nothing else.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DAT_OVERRIDE", self.folder.join("dat.conf"));
        command
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

struct Started {
    child: Child,
    out: JoinHandle<String>,
    err: JoinHandle<String>,
    command: String,
}

fn start(command: &mut Command, token: &str) -> Started {
    command.env(TOKEN, token).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let out = child.stdout.take().expect("it is a pipe");
    let err = child.stderr.take().expect("it is a pipe");
    Started {
        out: cc::reader(out),
        err: cc::reader(err),
        child,
        command: format!("{command:?}"),
    }
}

impl Started {
    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn ended(&mut self) -> bool {
        let status = self.child.try_wait().expect("the child is ours");
        status.is_some()
    }

    /// Waits for its end; one that hangs is ended, and `Err` says where it was.
    fn finish(mut self) -> Result<Ended, String> {
        let hung = process::wait_until(LIMIT, || self.ended()).is_none();
        let stacks = hung.then(|| process::stacks(&[self.pid()]));
        if hung {
            let _ = self.child.kill();
        }
        let ended = Ended {
            status: self.child.wait().expect("the child is ours"),
            stdout: self.out.join().expect("a reader does not panic"),
            stderr: self.err.join().expect("a reader does not panic"),
        };
        match stacks {
            None => Ok(ended),
            Some(stacks) => Err(format!("{} hangs: {ended:#?}\n{stacks}", self.command)),
        }
    }
}

/// Runs a server, and when it listens on `port` the clients one after the other; then the server must end by itself.
/// Fails the test if one hangs or leaves something behind.
#[track_caller]
pub fn serve(mut server: Command, port: u16, clients: Vec<Command>) -> (Ended, Vec<Ended>) {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let token = format!(
        "dat-{}-{}",
        std::process::id(),
        RUNS.fetch_add(1, Ordering::Relaxed)
    );
    let _alone = leaks::alone();
    let before = Before::take(&token);
    let mut pids = BTreeSet::new();
    let mut first = start(&mut server, &token);
    pids.insert(first.pid());
    let ready = process::wait_until(LIMIT, || {
        first.ended() || process::listening(first.pid()).contains(&port)
    });
    let mut outcome = Ok(Vec::new());
    for mut client in clients {
        let client = start(&mut client, &token);
        pids.insert(client.pid());
        match (client.finish(), &mut outcome) {
            (Ok(ended), Ok(all)) => all.push(ended),
            (Err(hang), _) => {
                outcome = Err(hang);
                break;
            }
            (_, Err(_)) => {}
        }
    }
    // Some of the tools end with 0 whatever they found.
    let bad = |ended: &Ended| !ended.status.success() || ended.stdout.contains("FAILED");
    let failed = |all: &Vec<Ended>| all.iter().any(bad);
    if outcome.as_ref().map_or(true, failed) {
        let _ = first.child.kill(); // nobody will tell it to end
    }
    let served = first.finish();
    let pids: Vec<i32> = pids.into_iter().collect();
    let leaks = before.leaks(&pids, &BTreeSet::new());
    process::kill_all(&process::carrying(TOKEN, &token));
    let clients = outcome.unwrap_or_else(|hang| panic!("{hang}\n{served:#?}"));
    let served = served.unwrap_or_else(|hang| panic!("{hang}\n{clients:#?}"));
    assert!(ready.is_some(), "{server:?} never listens: {served:#?}");
    assert!(leaks.is_empty(), "left {leaks:#?}\n{served:#?}");
    (served, clients)
}
