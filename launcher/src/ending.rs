//! How ranks and jobs end, and which exit code and words that gives.
//!
//! Relies on: nothing but its arguments. Promises: the exit-code rule of [`exit_code`], which
//! `windlass run --help` states in the same words.

use std::fmt;

use crate::place::Place;

/// Exit code of a job that exceeded `--timeout`, as of timeout(1).
pub const TIMED_OUT: i32 = 124;
/// Exit code of the launcher when it could not run the job at all, as of mistakes on the command line.
pub const NOT_RUN: i32 = 2;
/// What a Rust program exits with after a panic of its main thread.
const PANICKED: i32 = 101;
/// A shell's rule, which ours follows: a signal's code is 128 + its number.
const SIGNAL_BASE: i32 = 128;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

/// What a rank's end means for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ended well.
    Done,
    /// It failed by itself: a status other than 0, or a signal that was not the launcher's.
    Failed,
    /// It exited with status 0 after joining the job and without ending it (architecture section 8).
    Unended,
    /// It exited with status 0 in the middle of a window or of the job, and others failed because of it.
    Left,
    /// It ended after the launcher had begun to end the job, or because another one had failed.
    Swept,
}

/// The end of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankEnd {
    /// Rank in the job.
    pub rank: u32,
    /// Its logical node.
    pub node: u32,
    /// Host or VE.
    pub place: Place,
    /// Its process.
    pub pid: i32,
    /// How the process ended.
    pub status: End,
    /// What that means.
    pub fate: Fate,
    /// The library call it was last in, where it had joined and made one.
    pub last_call: Option<&'static str>,
}

/// Why a job was ended before its ranks ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A rank failed or left without ending its job.
    Failure,
    /// A rank asked for it, with this code.
    Abort {
        /// World rank.
        rank: u32,
        /// Its code.
        code: i32,
    },
    /// `--timeout` passed.
    TimedOut,
    /// The launcher got this signal, or [`Running::end`](crate::Running::end) was called (SIGTERM).
    Interrupted {
        /// Signal number.
        signal: i32,
    },
    /// The service of a node failed.
    Service,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Failure => f.write_str("a rank failed"),
            Cause::Abort { rank, code } => write!(f, "rank {rank} aborted with code {code}"),
            Cause::TimedOut => f.write_str("time-out"),
            Cause::Interrupted { signal } => {
                write!(f, "interrupted by {}", signal_name(*signal))
            }
            Cause::Service => f.write_str("a node service failed"),
        }
    }
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// By the rule of [`exit_code`].
    pub exit_code: i32,
    /// Why it was ended early, if it was.
    pub cause: Option<Cause>,
    /// Every rank's end, in rank order.
    pub ranks: Vec<RankEnd>,
    /// What the launcher had to say, one sentence per line: empty for a job that ended well.
    pub message: String,
    /// Captured standard output, if asked for.
    pub stdout: Vec<u8>,
    /// Captured standard error, if asked for.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Captured standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Captured standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// The exit code of a job.
///
/// - every rank ended well: 0
/// - `--timeout` passed: 124
/// - the launcher was interrupted by signal S: 128 + S
/// - a rank aborted the job: the code it gave (1 where that is not 1 to 255)
/// - ranks failed: that of the lowest rank among those that had failed when the launcher began to
///   end the job: its exit status, 128 + S for signal S, 1 if it exited 0 without ending its job.
///   Those that failed because another one left first do not count, unless that one exited with 0
/// - the service of a node failed: 1
pub fn exit_code(cause: Option<Cause>, ranks: &[RankEnd]) -> i32 {
    match cause {
        Some(Cause::TimedOut) => TIMED_OUT,
        Some(Cause::Interrupted { signal }) => SIGNAL_BASE + signal,
        Some(Cause::Abort {
            code: code @ 1..=255,
            ..
        }) => code,
        Some(Cause::Abort { .. } | Cause::Service) => 1,
        Some(Cause::Failure) | None => {
            let failed = |rank: &&RankEnd| matches!(rank.fate, Fate::Failed | Fate::Unended);
            ranks
                .iter()
                .filter(failed)
                .min_by_key(|rank| rank.rank)
                .map_or(0, |rank| match rank.status {
                    End::Exited(0) => 1,
                    End::Exited(status) => status,
                    End::Signalled(signal) => SIGNAL_BASE + signal,
                })
        }
    }
}

impl RankEnd {
    /// The end in words: which rank, how, and in which call it last was.
    pub fn describe(&self) -> String {
        format!("{} {}{}", self.who(), self.how(), self.where_last())
    }

    pub(crate) fn who(&self) -> String {
        let RankEnd {
            rank,
            node,
            place,
            pid,
            ..
        } = self;
        format!("rank {rank} ({place} of node {node}, pid {pid})")
    }

    pub(crate) fn how(&self) -> String {
        match (self.status, self.fate) {
            (End::Exited(0), Fate::Unended) => {
                "left without ending its job: it exited with status 0 and never let go of its World \
                 (return from main, or drop the World, before exiting)"
                    .into()
            }
            (End::Exited(PANICKED), _) => format!("exited with status {PANICKED} (panicked)"),
            (End::Exited(status), _) => format!("exited with status {status}"),
            // Nobody of ours sent it.
            (End::Signalled(libc::SIGKILL), Fate::Failed) => {
                "was ended by signal 9 (SIGKILL; perhaps the system ran out of memory: see dmesg)".into()
            }
            (End::Signalled(signal), _) => {
                format!("was ended by signal {signal} ({})", signal_name(signal))
            }
        }
    }

    pub(crate) fn where_last(&self) -> String {
        match self.last_call {
            None => String::new(),
            Some("compute") => "; it was in no call of the library".into(),
            Some(call) => format!("; it was last in {call}"),
        }
    }
}

/// A number of things in words.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The name of a signal of Linux.
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    let index = usize::try_from(signal).ok().and_then(|n| n.checked_sub(1));
    match index.and_then(|index| NAMES.get(index)) {
        Some(name) => (*name).into(),
        None => format!("real-time signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(rank: u32, status: End, fate: Fate) -> RankEnd {
        RankEnd {
            rank,
            node: 0,
            place: Place::Vh,
            pid: 100,
            status,
            fate,
            last_call: None,
        }
    }

    #[test]
    fn the_lowest_failing_rank_gives_the_code() {
        let ranks = [
            end(0, End::Signalled(15), Fate::Swept),
            end(1, End::Exited(0), Fate::Done),
            end(2, End::Signalled(9), Fate::Failed),
            end(3, End::Exited(7), Fate::Failed),
        ];
        let failure = Some(Cause::Failure);
        assert_eq!(exit_code(failure, &ranks), 137);
        assert_eq!(exit_code(failure, &ranks[3..]), 7);
        assert_eq!(
            exit_code(failure, &[end(0, End::Exited(0), Fate::Unended)]),
            1
        );
        assert_eq!(exit_code(None, &ranks[1..2]), 0);
    }

    #[test]
    fn other_causes_have_their_own_code() {
        let ranks = [end(0, End::Signalled(15), Fate::Swept)];
        assert_eq!(exit_code(Some(Cause::TimedOut), &ranks), 124);
        assert_eq!(
            exit_code(Some(Cause::Interrupted { signal: 2 }), &ranks),
            130
        );
        for (code, expected) in [(3, 3), (0, 1), (256, 1), (-1, 1), (255, 255)] {
            assert_eq!(
                exit_code(Some(Cause::Abort { rank: 0, code }), &ranks),
                expected
            );
        }
    }

    #[test]
    fn the_words_name_rank_place_and_call() {
        let mut rank = end(2, End::Signalled(11), Fate::Failed);
        rank.last_call = Some("fence");
        rank.place = Place::Ve(1);
        let text = rank.describe();
        assert_eq!(
            text,
            "rank 2 (ve1 of node 0, pid 100) was ended by signal 11 (SIGSEGV); it was last in fence"
        );
        assert!(
            end(0, End::Exited(0), Fate::Unended)
                .describe()
                .contains("without ending")
        );
        // What the launcher did not send may have come of too little memory.
        for (fate, said) in [(Fate::Failed, true), (Fate::Swept, false)] {
            let text = end(0, End::Signalled(9), fate).describe();
            assert_eq!(text.contains("dmesg"), said, "{text}");
            assert!(text.contains("SIGKILL"), "{text}");
        }
        let text = end(0, End::Exited(101), Fate::Failed).describe();
        assert!(
            text.ends_with("exited with status 101 (panicked)"),
            "{text}"
        );
        assert_eq!([1, 2].map(|n| count(n, "rank")), ["1 rank", "2 ranks"]);
        assert_eq!(signal_name(40), "real-time signal 40");
        assert_eq!(signal_name(i32::MIN), "real-time signal -2147483648");
    }
}
