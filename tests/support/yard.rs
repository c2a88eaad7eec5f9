//! Where C programs of tests run: with nodes of their own, which must be gone when they are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::cc::{self, Ended};
use super::process;

/// How long a node's service may take to go when its last user has gone; one whose first user was refused waits for another.
const GONE: Duration = Duration::from_secs(120);

/// A program's surroundings.
pub struct Yard {
    /// Below it are the directories of their services.
    pub homes: TempDir,
}

impl Yard {
    pub fn new() -> Self {
        Self {
            homes: tempfile::tempdir().expect("a folder can be made"),
        }
    }

    /// A command with nothing of the caller's Vector Engines in its environment. Crashes on purpose leave no core file.
    pub fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -c 0; exec \"$@\"", "sh"]);
        command.arg(program).args(words);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("WINDLASS_") || name == "VE_NODE_NUMBER" {
                command.env_remove(&*name);
            }
        }
        command.env("XDG_RUNTIME_DIR", self.homes.path());
        command
    }

    /// Runs it, and waits for its node to go.
    #[track_caller]
    pub fn run(&self, command: Command) -> Ended {
        let ended = cc::run(command);
        let mut left = Vec::new();
        process::wait_until(GONE, || {
            left = fs::read_dir(self.homes.path())
                .expect("the folder is there")
                .map(|entry| entry.expect("it can be read").path())
                .collect();
            left.is_empty()
        });
        assert!(left.is_empty(), "nodes are left: {left:?}\n{ended:#?}");
        ended
    }
}
