//! The libveo.so of a real Vector Engine, where it is, libdat2 and libfabric: what they say of themselves.
//!
//! Relies on: `windlass-native`, in a child process: what a library does when it is loaded, and when it crashes, stays there.
//! Promises: an answer within [`PATIENCE`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use windlass_native::dat2::{Adapter, Library};
use windlass_native::ofi;
use windlass_native::veo::{LIBRARY, Veo};
use windlass_runtime::transport::ofi::{PROVIDER, is_software};
use windlass_runtime::transport::udapl::DAT;

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

/// Adapters of libdat2 that are named; of more their number is said.
const SHOWN: usize = 6;

/// In the child: what libdat2 says of the adapter that `WINDLASS_DAT` names, or which adapters there are.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn adapter(file: &OsStr) -> Result<String> {
    let refused = |error| Error::Report(crate::command::with_sources(&error));
    let library = Library::load(file).map_err(refused)?;
    let Some(name) = std::env::var(DAT).ok().filter(|name| !name.is_empty()) else {
        let names = library.names().into_iter();
        let names: Vec<String> = names.map(|(name, _)| name).collect();
        return Ok(match names.len() {
            0 => format!("no adapter in dat.conf; {DAT} would name one\n"),
            1..=SHOWN => format!(
                "not used; adapters that {DAT} may name: {}\n",
                names.join(", ")
            ),
            many => format!(
                "not used; {DAT} may name one of the {many} adapters of dat.conf: {} and so on\n",
                names[..SHOWN].join(", ")
            ),
        });
    };
    let adapter = Adapter::open(&library, &name).map_err(refused)?;
    let about = adapter.about();
    let address = about
        .address
        .map(|ip| format!(" at {ip}"))
        .unwrap_or_default();
    let atomics = match about.atomics {
        [true, true] => "has 64-bit atomics (not used: they are none to the CPU's)",
        _ => "has no 64-bit atomics (none are needed)",
    };
    Ok(format!(
        "used for udapl: adapter {name}{address}, provider {}, {atomics}\n",
        about.provider
    ))
}

/// In the child: libfabric's version, and which of its providers jobs may go by.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn fabric(file: &OsStr) -> Result<String> {
    let refused = |error| Error::Report(crate::command::with_sources(&error));
    let library = ofi::Library::load(file).map_err(refused)?;
    let (major, minor) = library.version();
    // Whatever WINDLASS_NETWORK says: providers that a cluster's network has are there with every address.
    let local = Ipv4Addr::LOCALHOST.into();
    let there = library.providers(local).map_err(refused)?;
    let named = std::env::var(PROVIDER).ok().filter(|name| !name.is_empty());
    let says = carried_by(&there, named.as_deref());
    Ok(format!("version {major}.{minor}, {says}\n"))
}

/// Which of these providers jobs go by.
fn carried_by(there: &[String], named: Option<&str>) -> String {
    let all = there.join(", ");
    // Behind a semicolon stands a layer of the library's own.
    let is_there = |name: &str| {
        there
            .iter()
            .any(|it| Some(it.as_str()) == name.split(';').next())
    };
    match named {
        None => format!("not used; providers that {PROVIDER} may name: {all}"),
        Some(name) if !is_there(name) => {
            format!("{PROVIDER}={name} is none of its providers here: {all}")
        }
        Some(name) if is_software(name) => format!(
            "loaded by jobs of several nodes, provider {name}: software, so data take it rather than udapl where WINDLASS_ROUTE=ofi says so"
        ),
        Some(name) => format!("used between nodes, provider {name}"),
    }
}

/// What the library says, or why it cannot be used: `question` is the command of the child.
pub(crate) fn ask(question: &str, file: &Path) -> String {
    asked(question, file).unwrap_or_else(|error| format!("not asked: {error}"))
}

fn asked(question: &str, file: &Path) -> std::io::Result<String> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([OsString::from(question), file.into()])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_named_provider_is_for_is_told() {
        let there = ["tcp", "verbs"].map(str::to_owned);
        let told = |named| carried_by(&there, named);
        assert!(
            told(None).ends_with("may name: tcp, verbs"),
            "{}",
            told(None)
        );
        for (named, says) in [
            ("tcp", "WINDLASS_ROUTE=ofi"),
            ("tcp;ofi_rxm", "WINDLASS_ROUTE=ofi"),
            ("verbs", "used between nodes, provider verbs"),
            ("ofi_rxm", "none of its providers"),
        ] {
            assert!(told(Some(named)).contains(says), "{}", told(Some(named)));
        }
    }
}
