//! The progress bar of an example.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use windlass::World;

use crate::job::ROOT;

/// Drawn by rank 0, and only when standard error is a terminal. `unit` is what is counted, in the
/// plural.
pub(crate) fn bar(world: &World, name: &str, len: usize, unit: &str) -> ProgressBar {
    if world.rank() != ROOT || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{name} {{bar:40}} {{pos}}/{{len}} {unit}, {{eta}} left");
    let style = ProgressStyle::with_template(&template);
    ProgressBar::new(len as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
