//! What a job must not leave behind (reliability, conventions: the leak check).
//!
//! Other jobs of the same user may run on the machine meanwhile, so everything found is tied to
//! *this* job: by the pids of its ranks, by their sockets, by the token in their environment.
//! Memory files have no name and go with the last process that holds them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::process;

/// How long what is closing may take until it counts as left behind. What is really left stays, so a busy machine has its time.
const SETTLE: Duration = Duration::from_secs(20);

thread_local! {
    /// How often this thread is [`alone`] already.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Held while a job of a test runs, and by whoever has descriptors that such a test would take for leaks: one at a time on this
/// machine for this user. A thread that holds it may take it again.
pub struct Alone {
    _held: Option<(File, MutexGuard<'static, ()>)>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

/// Waits until no other test of this user runs a job.
pub fn alone() -> Alone {
    static THREADS: Mutex<()> = Mutex::new(());
    HELD.set(HELD.get() + 1);
    if HELD.get() > 1 {
        return Alone { _held: None };
    }
    // A test that failed while it held the lock has left nothing half-done in it.
    let thread = THREADS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let uid = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("windlass-tests-{uid}.lock"));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    flock(&file, FlockOperation::LockExclusive).expect("a lock on an open file can be waited for");
    Alone {
        _held: Some((file, thread)),
    }
}

/// The same in a test's own process; its ranks run under that lock already.
pub fn alone_unless_rank() -> Option<Alone> {
    (!super::is_rank()).then(alone)
}

/// The directories of the services that these ranks were told of.
pub fn homes(pids: &[i32]) -> BTreeSet<PathBuf> {
    let sockets = pids
        .iter()
        .filter_map(|&pid| process::variable(pid, "WINDLASS_NODE"));
    sockets
        .filter_map(|socket| Some(Path::new(&socket).parent()?.to_owned()))
        .collect()
}

/// The state of the machine before a job.
pub struct Before {
    token: String,
    shared: BTreeSet<PathBuf>,
    homes: BTreeSet<PathBuf>,
    descriptors: Vec<(i32, PathBuf)>,
}

impl Before {
    /// Looks around. To be taken while [`alone`].
    pub fn take(token: &str) -> Before {
        Before {
            token: token.into(),
            shared: own_files(Path::new("/dev/shm")),
            homes: own_files(&windlass_node::base_dir()),
            descriptors: process::descriptors(),
        }
    }

    /// What is there now and was not before, and belongs to the job of these ranks.
    pub fn leaks(&self, pids: &[i32], homes: &BTreeSet<PathBuf>) -> Vec<String> {
        let mut found = Vec::new();
        process::wait_until(SETTLE, || {
            found = self.look(pids, homes);
            found.is_empty()
        });
        found
    }

    fn look(&self, pids: &[i32], homes: &BTreeSet<PathBuf>) -> Vec<String> {
        let mut found = Vec::new();
        for pid in process::carrying(super::TOKEN, &self.token) {
            let state = process::stacks(&[pid]);
            found.push(format!("process {pid} of the job lives: {state}"));
        }
        for row in windlass_mem::sysv::list().expect("/proc/sysvipc/shm can be read") {
            let creator = row.cpid;
            if pids.contains(&creator) || creator == std::process::id() as i32 {
                found.push(format!("System V segment {} of process {creator}", row.id));
            }
        }
        for path in own_files(Path::new("/dev/shm")).difference(&self.shared) {
            found.push(format!("{}", path.display()));
        }
        let now = own_files(&windlass_node::base_dir());
        for path in now.difference(&self.homes).filter(|path| is_home(path)) {
            if homes.contains(path) || is_dead(path) {
                found.push(format!("directory {}", path.display()));
            }
        }
        for (fd, what) in process::descriptors() {
            // A bad line is of another test of this process (`line.rs`); no launcher has one.
            let is_line = what == Path::new("/dev/net/tun");
            if !is_line && !self.descriptors.contains(&(fd, what.clone())) {
                found.push(format!(
                    "descriptor {fd} of the launcher: {}",
                    what.display()
                ));
            }
        }
        found
    }
}

/// Entries of a directory that belong to this user.
fn own_files(dir: &Path) -> BTreeSet<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeSet::new();
    };
    let own = entries
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|m| m.uid() == uid));
    own.map(|entry| entry.path()).collect()
}

/// Does a path have the name of a service's directory?
fn is_home(path: &Path) -> bool {
    let uid = rustix::process::geteuid().as_raw();
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.starts_with(&format!("windlass-{uid}-"))
}

/// A service's directory whose service has died: nobody holds the lock in it.
fn is_dead(home: &Path) -> bool {
    let Ok(file) = File::open(home.join("lock")) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared).is_ok()
}
