//! What ends a job whose launcher was killed, and says so.
//!
//! A rank dies with its launcher by the parent-death signal, and a process that joined the job by
//! its life pipe. What a rank started besides, a wrapper's program say, knows neither. So a small
//! process of its own group reads the ranks' group ids and the directories of the node services from
//! a pipe. When the pipe ends without a goodbye, it kills the groups, removes the directories and
//! says why the job is gone (reliability A4).
//!
//! It is a shell, because forking a process with threads without exec is no ground to build on,
//! and a job may be run by any program, so there is no executable of ours to rely on.
//! Relies on: `/bin/sh`. Promises: it is gone when [`Guard`] is dropped, or right after the
//! launcher's death; without it (no shell) a job runs all the same.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

/// One group id, or one directory (an absolute path), per line; `end` is the goodbye. Only a directory
/// that is still this user's own is removed.
const SCRIPT: &str = "trap '' INT TERM HUP PIPE; groups=; \
    while IFS= read -r word; do case $word in \
        end) exit 0;; \
        /*) set -- \"$@\" \"$word\";; \
        *) groups=\"$groups -$word\";; \
    esac; done; \
    for group in $groups; do kill -s KILL -- \"$group\"; done 2>/dev/null; \
    for home do [ -L \"$home\" ] || { [ -O \"$home\" ] && rm -rf -- \"$home\"; }; done 2>/dev/null; \
    echo 'windlass: the launcher was killed; its ranks are ended' >&2";

/// The guard of one job.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Starts it; none where it cannot be had. It is to remove `homes`; with `notices` it says on
    /// standard error that the launcher has died.
    pub(crate) fn start<'p>(homes: impl Iterator<Item = &'p Path>, notices: bool) -> Option<Guard> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "windlass-guard"])
            .env_clear()
            .current_dir("/");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(if notices {
                Stdio::inherit()
            } else {
                Stdio::null()
            });
        // A signal to the launcher's group must not reach it.
        let shell = command.process_group(0).spawn().inspect_err(|error| {
            tracing::warn!(%error, "children of ranks would outlive a killed launcher");
        });
        let mut guard = Guard { shell: shell.ok()? };
        // A path that a line cannot hold is left to the sweep of the next job.
        for home in homes.filter_map(Path::to_str).filter(|path| is_line(path)) {
            guard.tell(home);
        }
        Some(guard)
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

/// An absolute path on one line.
fn is_line(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\n')
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tell("end");
        let _ = self.shell.wait();
    }
}
