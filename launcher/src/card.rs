//! The libveo.so of a real Vector Engine: where it is, and what it says of itself.
//!
//! Relies on: `windlass-native`, in a child process: what the library does when it is loaded, and when it crashes, stays there.
//! Promises: an answer within [`PATIENCE`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use windlass_native::veo::{LIBRARY, Veo};

use crate::error::{Error, Result};

/// Its names, the one that programs are linked with first.
const NAMES: [&str; 2] = ["libveo.so.1", "libveo.so"];

/// A library that is loaded needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);
/// Bytes of an answer at most.
const MAX_ANSWER: u64 = 4096;

/// The library that `WINDLASS_LIBVEO` names, else the first in these folders.
pub(crate) fn find(directories: &[PathBuf]) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(LIBRARY).filter(|path| !path.is_empty()) {
        return Some(named.into());
    }
    let files = NAMES.iter().flat_map(|name| {
        let in_directory = move |directory: &PathBuf| directory.join(name);
        directories.iter().map(in_directory)
    });
    files.into_iter().find(|path| path.exists())
}

/// In the child: loads it, and says its version.
///
/// # Errors
/// Why it is not one that could be used.
pub(crate) fn version(file: &OsStr) -> Result<String> {
    let veo = Veo::load(file);
    let veo = veo.map_err(|error| Error::Report(crate::command::with_sources(&error)))?;
    let text = veo.version_text();
    Ok(format!("API version {}, {text}\n", veo.version()))
}

/// What the library says, or why it cannot be used.
pub(crate) fn ask(file: &Path) -> String {
    asked(file).unwrap_or_else(|error| format!("not asked: {error}"))
}

fn asked(file: &Path) -> std::io::Result<String> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([OsString::from("__veo"), file.into()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(LOOK),
            None => {
                child.kill()?;
                child.wait()?;
                return Ok(format!("loading it took more than {PATIENCE:?}"));
            }
        }
    };
    let output = if status.success() {
        child.stdout.take().map(std::os::fd::OwnedFd::from)
    } else {
        child.stderr.take().map(std::os::fd::OwnedFd::from)
    };
    let mut said = Vec::new();
    if let Some(output) = output {
        File::from(output).take(MAX_ANSWER).read_to_end(&mut said)?;
    }
    let said = String::from_utf8_lossy(&said);
    Ok(match said.trim() {
        "" => format!("loading it ended with {status}"),
        said => said.to_owned(),
    })
}
