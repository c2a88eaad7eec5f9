//! How a VE process ended, and in which function: said on standard error, once, by whoever first misses it.

use std::collections::HashMap;
use std::ffi::c_int;
use std::fmt::Write;
use std::process::ExitStatus;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::edge::say;

/// The kernel closes the sockets of a process a moment before its parent hears of its end.
const NEWS: Duration = Duration::from_secs(5);
/// Functions that have a name here at most: what a program asks for beyond them is told by its address.
const NAMES: usize = 1 << 16;

/// One VE process, as far as its end needs explaining.
#[derive(Debug)]
pub(crate) struct Life {
    pid: c_int,
    node: c_int,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Set once it has ended and was reaped; `None` inside: the program has taken the status (it ignores SIGCHLD, say).
    ended: Option<Option<ExitStatus>>,
    /// It has a context.
    ready: bool,
    /// Its end was asked for, or was told.
    silent: bool,
    /// Functions that are being called, one per context at most.
    running: Vec<Running>,
    names: HashMap<u64, String>,
}

/// A function that is being called.
#[derive(Debug)]
struct Running {
    function: u64,
    /// Numbers of arguments that are pointers with a tag, and these.
    tagged: Vec<(usize, u64)>,
}

impl Life {
    pub(crate) fn new(pid: c_int, node: c_int) -> Self {
        Self {
            pid,
            node,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// It has answered.
    pub(crate) fn ready(&self) {
        self.state.lock().ready = true;
    }

    /// What the function at an address is called.
    pub(crate) fn know(&self, function: u64, name: &[u8]) {
        let mut state = self.state.lock();
        if state.names.len() < NAMES {
            let name = String::from_utf8_lossy(name).into_owned();
            state.names.insert(function, name);
        }
    }

    /// A function is called, with these pointers that have a tag among its arguments.
    pub(crate) fn enter(&self, function: u64, tagged: &[(usize, u64)]) {
        let tagged = tagged.to_vec();
        self.state.lock().running.push(Running { function, tagged });
    }

    /// It has returned.
    pub(crate) fn leave(&self, function: u64) {
        let running = &mut self.state.lock().running;
        if let Some(at) = running.iter().position(|other| other.function == function) {
            running.swap_remove(at);
        }
    }

    /// It is about to be ended: that needs no explanation.
    pub(crate) fn expect_end(&self) {
        self.state.lock().silent = true;
    }

    /// Reaps it with `reap`, and says so to whoever waits.
    pub(crate) fn end(&self, reap: impl FnOnce() -> Option<ExitStatus>) {
        let mut state = self.state.lock();
        state.ended = Some(reap());
        drop(state);
        self.changed.notify_all();
    }

    /// Whether it has ended within this time.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        if state.ended.is_none() {
            self.changed
                .wait_while_for(&mut state, |state| state.ended.is_none(), time);
        }
        state.ended.is_some()
    }

    /// Somebody misses it.
    pub(crate) fn tell(&self) {
        self.wait(NEWS);
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.silent, true) {
            say(&obituary(self.pid, self.node, &state));
        }
    }
}

fn obituary(pid: c_int, node: c_int, state: &State) -> String {
    let mut text = format!("VE process {pid} (VE {node}) ");
    // Writing to a String cannot fail.
    let _ = match state.ended {
        Some(Some(status)) => write!(text, "has ended ({status})"),
        Some(None) => write!(text, "has ended"),
        None => write!(text, "does not answer any more"),
    };
    let running = state.running.iter().map(|Running { function, tagged }| {
        let known = state.names.get(function).cloned();
        let mut text = known.unwrap_or_else(|| format!("the function at {function:#x}"));
        for (number, pointer) in tagged {
            // A fault there has no address: none of the processor's begins like this.
            let _ = write!(
                text,
                " with {pointer:#x} as argument {number}, a pointer of the VH to VE memory (pass what veo_get_hmem_addr makes of it)"
            );
        }
        text
    });
    let running: Vec<String> = running.collect();
    if !running.is_empty() {
        let _ = write!(text, " while it ran {}", running.join(", "));
    } else if !state.ready {
        text.push_str(" before it was ready");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn an_end_is_told_with_what_ran() {
        let mut state = State {
            ended: Some(Some(ExitStatus::from_raw(11))),
            ready: true,
            ..State::default()
        };
        let told = |state: &State| obituary(7, 1, state);
        assert_eq!(
            told(&state),
            "VE process 7 (VE 1) has ended (signal: 11 (SIGSEGV))"
        );
        state.names.insert(64, "crash".into());
        state.running = [64, 128]
            .map(|function| Running {
                function,
                tagged: vec![],
            })
            .into();
        let text = told(&state);
        assert!(
            text.ends_with(" while it ran crash, the function at 0x80"),
            "{text}"
        );
        state.running[0].tagged.push((2, 0x8000_0000_0000_1000));
        let text = told(&state);
        assert!(
            text.contains("crash with 0x8000000000001000 as argument 2, a pointer"),
            "{text}"
        );
        state.ended = Some(Some(ExitStatus::from_raw(3 << 8)));
        assert!(told(&state).contains("(exit status: 3)"));
        let early = State {
            ended: Some(None),
            ..State::default()
        };
        assert_eq!(
            told(&early),
            "VE process 7 (VE 1) has ended before it was ready"
        );
    }
}
