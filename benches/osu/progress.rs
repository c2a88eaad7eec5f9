//! How far a measurement is, on standard error, where that is a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Until the launcher has passed a line on: the bar would be drawn into it.
const PASSED_ON: Duration = Duration::from_millis(20);

/// A bar, or nothing.
pub struct Meter(Option<ProgressBar>);

impl Meter {
    /// Of so many sizes; drawn only where `talks`, and between measurements only.
    pub fn new(name: &str, sizes: usize, talks: bool) -> Self {
        let shown = talks && std::io::stderr().is_terminal();
        let template = format!("{name} {{bar:40}} {{pos}}/{{len}} sizes: {{msg}}");
        let style = ProgressStyle::with_template(&template);
        Self(shown.then(|| {
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(sizes as u64).with_style(style)
        }))
    }

    /// What is measured now.
    pub fn now(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
        }
    }

    /// It is still at it.
    pub(crate) fn tick(&self) {
        if let Some(bar) = &self.0 {
            bar.tick();
        }
    }

    /// Prints lines of the result, with the bar out of their way, when another size is done.
    pub fn print(&self, text: &str) -> std::io::Result<()> {
        let print = || {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        let Some(bar) = &self.0 else { return print() };
        bar.inc(1);
        bar.suspend(|| {
            print()?;
            std::thread::sleep(PASSED_ON);
            Ok(())
        })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
