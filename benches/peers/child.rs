//! Programs that are started and end in time: one at a time, by their process id.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

/// How long a launcher may take to end its ranks when it is told to end, and output to come after its end.
const GRACE: Duration = Duration::from_secs(3);
const LATE: Duration = Duration::from_secs(5);

/// What came of a program.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) began: SystemTime,
    /// Its output, as far as it came.
    pub(crate) lines: Vec<String>,
    /// Why it does not count as a success, in a line.
    pub(crate) failure: Option<String>,
}

impl Outcome {
    /// The first line's rest that begins with this word.
    pub(crate) fn after(&self, word: &str) -> Option<&str> {
        let mut lines = self.lines.iter();
        lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
    }
}

enum Said {
    Out(String),
    Error(String),
}

/// Runs it to its end, or to the end of its time.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Outcome {
    let began = SystemTime::now();
    let deadline = Instant::now() + limit;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut outcome = Outcome {
        began,
        lines: Vec::new(),
        failure: None,
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            outcome.failure = Some(format!("{program} cannot be started: {error}"));
            return outcome;
        }
    };
    let (sender, said) = mpsc::channel();
    read(child.stdout.take(), sender.clone(), Said::Out);
    read(child.stderr.take(), sender, Said::Error);
    let mut errors = Vec::new();
    let ended = listen(&mut child, &said, deadline, &mut outcome.lines, &mut errors);
    outcome.failure = match ended {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{}{}", how(status), reason(&errors))),
        None => Some(format!(
            "not done after {} s, so it was ended{}",
            limit.as_secs(),
            reason(&errors)
        )),
    };
    outcome
}

/// Lines of a pipe, by a thread that ends with the last process which holds its other end.
fn read(pipe: Option<impl Read + Send + 'static>, sender: Sender<Said>, said: fn(String) -> Said) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        let mut lines = BufReader::new(pipe).split(b'\n').map_while(Result::ok);
        lines.try_for_each(|line| sender.send(said(String::from_utf8_lossy(&line).into_owned())))
    });
}

/// Takes in what the program says until it has ended; `None` if its time was over first.
fn listen(
    child: &mut Child,
    said: &Receiver<Said>,
    deadline: Instant,
    lines: &mut Vec<String>,
    errors: &mut Vec<String>,
) -> Option<ExitStatus> {
    let mut take = |wait: Duration| match said.recv_timeout(wait) {
        Ok(Said::Out(line)) => {
            lines.push(line);
            Ok(())
        }
        Ok(Said::Error(line)) => {
            errors.push(line);
            Ok(())
        }
        Err(why) => Err(why),
    };
    let status = loop {
        let heard = take(Duration::from_millis(20));
        if heard == Err(RecvTimeoutError::Disconnected) {
            thread::sleep(Duration::from_millis(5));
        }
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => {}
            _ => {
                end(child);
                break None;
            }
        }
    };
    // Until the last writer has gone; ranks that outlive a killed launcher are not waited for longer.
    while take(LATE).is_ok() {}
    status
}

/// A launcher ends its ranks when it is asked to; if it does not end itself, it is killed.
fn end(child: &mut Child) {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The first line that says something.
fn reason(errors: &[String]) -> String {
    let says = |line: &&String| line.chars().filter(|c| c.is_alphabetic()).count() > 8;
    let found = errors.iter().find(says);
    found.map_or_else(String::new, |line| format!(": {}", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Outcome {
        run(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn output_and_success() {
        let outcome = shell("echo cpus 0 1; echo other", Duration::from_secs(20));
        assert_eq!(outcome.failure, None);
        assert_eq!(outcome.lines, ["cpus 0 1", "other"]);
        assert_eq!(outcome.after("cpus"), Some("0 1"));
        assert_eq!(outcome.after("cpu"), None);
    }

    #[test]
    fn a_failure_keeps_the_output_and_says_why() {
        let outcome = shell(
            "echo one; echo ----- >&2; echo no such network >&2; exit 3",
            Duration::from_secs(20),
        );
        assert_eq!(outcome.lines, ["one"]);
        assert_eq!(
            outcome.failure.as_deref(),
            Some("exit code 3: no such network")
        );
        let killed = shell("kill -9 $$", Duration::from_secs(20));
        assert_eq!(killed.failure.as_deref(), Some("ended by signal 9"));
        let none = run(
            &mut Command::new("/no/such/program"),
            Duration::from_secs(20),
        );
        assert!(none.failure.unwrap().contains("/no/such/program"));
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let outcome = shell("echo here; exec sleep 1000", Duration::from_millis(300));
        assert_eq!(outcome.lines, ["here"]);
        assert!(outcome.failure.unwrap().contains("it was ended"));
    }
}
