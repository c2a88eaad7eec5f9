//! The process groups of the ranks, after the launcher was killed.
//!
//! A rank dies with its launcher by the parent-death signal, and a process that joined the job by
//! its life pipe. What a rank started besides, a wrapper's program say, knows neither. So a small
//! process of its own group reads the ranks' group ids from a pipe, and kills the groups when the
//! pipe ends without a goodbye (reliability A4).
//!
//! It is a shell, because forking a process with threads without exec is no ground to build on,
//! and a job may be run by any program, so there is no executable of ours to rely on.
//! Relies on: `/bin/sh`. Promises: it is gone when [`Guard`] is dropped, or right after the
//! launcher's death; without it (no shell) a job runs all the same.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

/// One group id per line; `end` is the goodbye.
const SCRIPT: &str = "trap '' INT TERM HUP; groups=; \
    while read -r word; do [ \"$word\" = end ] && exit 0; groups=\"$groups -$word\"; done; \
    for group in $groups; do kill -s KILL -- \"$group\"; done";

/// The guard of one job.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Starts it; none where it cannot be had.
    pub(crate) fn start() -> Option<Guard> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "windlass-guard"])
            .env_clear()
            .current_dir("/");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A signal to the launcher's group must not reach it.
        match command.process_group(0).spawn() {
            Ok(shell) => Some(Guard { shell }),
            Err(error) => {
                tracing::warn!(%error, "children of ranks would outlive a killed launcher");
                None
            }
        }
    }

    /// One more group to end.
    pub(crate) fn add(&mut self, group: Pid) {
        self.tell(&group.as_raw_nonzero().to_string());
    }

    fn tell(&mut self, word: &str) {
        if let Some(pipe) = &mut self.shell.stdin {
            // Somebody killed it: the job is as it would be without.
            let _ = writeln!(pipe, "{word}");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tell("end");
        let _ = self.shell.wait();
    }
}
