//! Programs named by their cargo target: built in release, then run from where cargo says they are.
//!
//! Relies on: a `cargo` in `$CARGO` or `PATH`. Promises: cargo's own messages stay visible; the
//! path comes from its JSON, never from a guess about the target directory.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::measure;

/// What measures MPI libraries; with the feature `mpi` from Rust too.
pub(crate) const PEERS: &str = "windlass-peers";

/// The folder of this package when it was built.
const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// What kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An example.
    Example,
    /// A binary.
    Bin,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Example => "example",
            Kind::Bin => "bin",
        }
    }
}

/// A line of cargo's JSON, as far as we need it.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// A program of this workspace. Where cargo has just built and run this launcher (`cargo windlass`), it builds that too: what
/// lies beside may be of older sources. Else the one beside this launcher, with a warning where that is so, or built where that was.
pub(crate) fn own(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().ok();
    let beside = here.and_then(|exe| exe.parent().map(|dir| dir.join(name)));
    match beside.filter(|path| path.is_file() && !is_run_by_cargo()) {
        Some(path) => {
            if let Some(source) = newer_source(&path) {
                eprintln!(
                    "windlass: warning: {} is older than {}: `cargo build --release --bin {name}` in the clone builds it anew",
                    path.display(),
                    source.display()
                );
            }
            Ok(path)
        }
        None => build_in(&source(), Kind::Bin, name),
    }
}

/// A source that was written after the program was built. Cargo's list of them lies beside what it built; of a program
/// without one nothing is known.
fn newer_source(program: &Path) -> Option<PathBuf> {
    let written = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let built = written(program)?;
    // `PROGRAM: SOURCE SOURCE ...`, where a space within a path has a backslash before it.
    let list = std::fs::read_to_string(program.with_extension("d")).ok()?;
    let list = list.replace("\\ ", "\0");
    let (_, sources) = list.trim_end().split_once(": ")?;
    let mut sources = sources
        .split(' ')
        .map(|source| PathBuf::from(source.replace('\0', " ")));
    sources.find(|source| written(source).is_some_and(|at| at > built))
}

/// Tests have these variables too, of their own package.
fn is_run_by_cargo() -> bool {
    std::env::var_os("CARGO").is_some()
        && std::env::var_os("CARGO_MANIFEST_DIR").is_some_and(|dir| dir == SOURCE)
}

/// Asks a benchmark whether it understands what this launcher does.
pub(crate) fn check(program: &Path) -> Result<()> {
    let output = Command::new(program)
        .arg(measure::ASK)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|source| Error::System {
        what: "asking the benchmark for its options",
        source,
    })?;
    let stamp = String::from_utf8_lossy(&output.stdout);
    match stamp.trim() == measure::STAMP.to_string() {
        true => Ok(()),
        false => Err(Error::Cargo(format!(
            "{} was built from other sources than this command and has other options; build both, in the clone, by `cargo build \
             --release -p windlass-launcher -p windlass-workspace --bins`, or `cargo install --locked --path launcher` where this \
             command is an installed one",
            program.display()
        ))),
    }
}

/// Builds the target and gives the path of its executable. The workspace is the one of the
/// current directory, or, where there is none, the one this launcher was built from.
pub(crate) fn build(kind: Kind, name: &str) -> Result<PathBuf> {
    build_in(&workspace()?, kind, name)
}

fn build_in(directory: &Path, kind: Kind, name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&cargo);
    command.args([
        "build",
        "--release",
        "--message-format=json-render-diagnostics",
    ]);
    command.arg(format!("--{}", kind.name())).arg(name);
    if cfg!(feature = "mpi") && name == PEERS {
        command.args(["--package", "windlass-workspace", "--features", "mpi"]);
        command.args(["--bin", "windlass-rsmpi"]);
    }
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        let cargo = cargo.to_string_lossy();
        Error::Cargo(format!(
            "`{cargo}` cannot be run ({error}); install cargo, or give the program's path"
        ))
    })?;
    let out = child.stdout.take().map(BufReader::new);
    let lines = out
        .into_iter()
        .flat_map(|out| out.lines().map_while(std::result::Result::ok));
    // Cargo must be read to its end: it would wait for a reader.
    let found = lines
        .filter_map(|line| executable(&line, kind, name))
        .last();
    let ended = child.wait().map_err(|source| Error::System {
        what: "waiting for cargo",
        source,
    })?;
    let target = format!("{} `{name}`", kind.name());
    match found {
        _ if !ended.success() => Err(Error::Cargo(format!(
            "cargo did not build the {target}; see its messages above"
        ))),
        Some(path) => Ok(path),
        None => Err(Error::Cargo(format!(
            "cargo built no executable for the {target}; see its name in Cargo.toml"
        ))),
    }
}

/// The executable that this line of cargo's JSON tells of, if it is the wanted one.
fn executable(line: &str, kind: Kind, name: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(line).ok()?;
    let target = message.target?;
    let wanted = message.reason == "compiler-artifact"
        && target.name == name
        && target.kind.iter().any(|of| of == kind.name());
    message.executable.filter(|_| wanted)
}

/// Where the workspace was that this launcher was built from.
fn source() -> PathBuf {
    let own = Path::new(SOURCE).parent();
    own.unwrap_or(Path::new("/")).to_owned()
}

/// The directory to build in.
fn workspace() -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(|source| Error::System {
        what: "reading the current directory",
        source,
    })?;
    if here.ancestors().any(|dir| dir.join("Cargo.toml").is_file()) {
        return Ok(here);
    }
    let own = source();
    if own.join("Cargo.toml").is_file() {
        return Ok(own);
    }
    Err(Error::Cargo("there is no Cargo.toml here or above; change into a cargo workspace, or give the program's path".into()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_program_older_than_one_of_its_sources_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let [program, first, second, list] =
            ["program", "a.rs", "with space.rs", "program.d"].map(|name| dir.path().join(name));
        let write = |path: &Path, second| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            File::create(path).unwrap().set_modified(at).unwrap();
        };
        write(&program, 100);
        write(&first, 99);
        write(&second, 101);
        assert_eq!(newer_source(&program), None, "there is no list");
        let [of, one, two] =
            [&program, &first, &second].map(|path| path.to_str().unwrap().replace(' ', "\\ "));
        std::fs::write(&list, format!("{of}: {one} {two} /not/there.rs\n")).unwrap();
        assert_eq!(newer_source(&program), Some(second.clone()));
        write(&second, 100);
        assert_eq!(newer_source(&program), None, "as old as the program");
        write(&first, 101);
        assert_eq!(newer_source(&program), Some(first));
    }

    #[test]
    fn only_the_wanted_artifact_counts() {
        let line = r#"{"reason":"compiler-artifact","package_id":"x","target":{"kind":["example"],"name":"heat","edition":"2024"},"executable":"/t/heat","fresh":true}"#;
        assert_eq!(
            executable(line, Kind::Example, "heat"),
            Some("/t/heat".into())
        );
        assert_eq!(executable(line, Kind::Bin, "heat"), None);
        assert_eq!(executable(line, Kind::Example, "other"), None);
        let library = line.replace("\"/t/heat\"", "null");
        assert_eq!(executable(&library, Kind::Example, "heat"), None);
        for other in [
            "",
            "{}",
            "not json",
            r#"{"reason":"build-finished","success":true}"#,
        ] {
            assert_eq!(executable(other, Kind::Example, "heat"), None);
        }
    }
}
