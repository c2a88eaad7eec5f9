//! What is being done, in one line of the terminal.

use std::io::{IsTerminal, Write, stderr};

/// Silent where standard error is no terminal.
pub(crate) struct Progress(bool);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(stderr().is_terminal())
    }

    pub(crate) fn say(&self, text: &str) {
        if self.0 {
            // Nobody reads it any more: nothing to be done.
            let _ = write!(stderr(), "\r\x1b[K{text}").and_then(|()| stderr().flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}
