//! What a rank says of itself, where `WINDLASS_LOG` asks for it: routes, windows, lent memory.
//!
//! Relies on: `tracing`. Promises: without the variable nothing is installed and nothing printed;
//! a filter that would silently print nothing is an error. Never on the data path.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{Error, Result};

/// What logs, as a filter names it after `windlass_`: crates of the workspace. Windows are `windlass`.
const OURS: [&str; 7] = ["runtime", "node", "mem", "wire", "ve", "dat", "launcher"];

/// Reads a filter: levels and `target=level`, comma-separated; the last level alone is that of
/// everything that is not named.
///
/// # Errors
/// [`Error::Environment`]: a word that is no level; a target of ours that does not exist.
pub fn filter(text: &str) -> Result<Targets> {
    let mut targets = Targets::new();
    for item in text.split(',').map(str::trim) {
        targets = match item.rsplit_once('=') {
            None => targets.with_default(level(text, item)?),
            Some((target, wanted)) if exists(target) => {
                targets.with_target(target, level(text, wanted)?)
            }
            Some(_) => return Err(refused(text)),
        };
    }
    Ok(targets)
}

fn level(text: &str, word: &str) -> Result<LevelFilter> {
    let words = ["off", "error", "warn", "info", "debug", "trace"];
    let known = words.contains(&word.to_ascii_lowercase().as_str());
    let parsed = word.parse().ok().filter(|_| known);
    parsed.ok_or_else(|| refused(text))
}

/// Targets of the program itself are its own to know.
fn exists(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or("");
    match name.strip_prefix("windlass") {
        Some("") => true,
        Some(ours) => ours
            .strip_prefix('_')
            .is_some_and(|ours| OURS.contains(&ours)),
        None => !name.is_empty(),
    }
}

fn refused(text: &str) -> Error {
    Error::Environment {
        variable: "WINDLASS_LOG",
        value: text.to_owned(),
        accepted: format!(
            "off, error, warn, info, debug or trace, or a comma-separated list of TARGET=LEVEL, as \
             in windlass_runtime=debug; targets are windlass (windows) and windlass_{}",
            OURS.join(", windlass_")
        ),
    }
}

/// Prints to standard error what `targets` lets through, unless the program logs already in its own way.
pub fn to_stderr(targets: Option<Targets>) {
    let Some(targets) = targets else { return };
    let lines = tracing_subscriber::fmt::layer()
        .without_time()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A subscriber that is there already is somebody's choice.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(targets)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn filters_are_read_strictly() {
        for (text, target, level, yes) in [
            ("debug", "windlass", Level::DEBUG, true),
            ("debug", "windlass", Level::TRACE, false),
            (
                "windlass_runtime=debug",
                "windlass_runtime::negotiate",
                Level::DEBUG,
                true,
            ),
            (
                "windlass_runtime=debug",
                "windlass_node",
                Level::ERROR,
                false,
            ),
            (
                "warn,windlass_dat::ep=trace",
                "windlass_dat::ep",
                Level::TRACE,
                true,
            ),
            (
                "warn, WARN,my_program=info",
                "my_program",
                Level::INFO,
                true,
            ),
            ("off", "windlass", Level::ERROR, false),
        ] {
            let filter = filter(text).expect(text);
            assert_eq!(filter.would_enable(target, &level), yes, "{text}");
        }
        for bad in [
            "bogus",
            "",
            "debug,",
            "windlass_rutime=debug",
            "=debug",
            "a=",
            "a=loud",
            "3",
        ] {
            let error = filter(bad).expect_err(bad).to_string();
            assert!(error.contains("windlass_runtime=debug"), "{error}");
        }
    }
}
