//! Starting the service of a node that no launcher started: `windlass node` as a process of its own.
//!
//! Its first user starts it and does not become its parent: the process started here starts the service and ends, so that a
//! program that waits for its children never waits for the service. It says one line on its standard output when the service
//! listens, or why it does not. The socket of a named node is bound here, so that its users queue up before it runs.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use windlass_ve::ErrnoProfile;

use crate::channel::{again, timespec};
use crate::error::Error;
use crate::name::NodeName;

/// Begins the line of a service that listens; its socket's path follows, or nothing.
pub const READY: &str = "ready ";
/// Begins the line of one that cannot.
pub const FAILED: &str = "failed ";
/// How long a service may take to listen: a few milliseconds unless its machine is overloaded.
const START_TIME: Duration = Duration::from_secs(20);
/// Bytes of the line at most.
const MAX_LINE: usize = 4096;
/// The command's name.
const LAUNCHER: &str = "windlass";
/// The variable that says where it is.
const VARIABLE: &str = "WINDLASS_LAUNCHER";
/// What the service needs of its starter's environment; the rest, preloaded libraries above all, is not its business.
const KEPT: [&str; 6] = [
    "PATH",
    "XDG_RUNTIME_DIR",
    "WINDLASS_LOG",
    "WINDLASS_VES",
    "WINDLASS_VE_PROFILE",
    ErrnoProfile::VARIABLE,
];

/// Starts a private node's service; gives its socket.
pub(crate) fn private() -> Result<PathBuf, Error> {
    let line = start(&["--private"], Stdio::null())?;
    Ok(PathBuf::from(line))
}

/// Starts a named node's service behind a listener that is bound already.
pub(crate) fn named(name: &NodeName, listener: UnixListener) -> Result<(), Error> {
    let stdin = Stdio::from(OwnedFd::from(listener));
    start(&["--name", &name.to_string()], stdin).map(drop)
}

fn start(which: &[&str], stdin: Stdio) -> Result<String, Error> {
    let launcher = find()?;
    let logging = std::env::var_os("WINDLASS_LOG").is_some();
    let mut command = Command::new(&launcher);
    command
        .args(["node", "--background"])
        .args(which)
        .env_clear()
        .envs(
            KEPT.iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .current_dir("/")
        .stdin(stdin)
        .stdout(Stdio::piped())
        // A reader of this process's errors would otherwise wait for the service's end too.
        .stderr(if logging {
            Stdio::inherit()
        } else {
            Stdio::null()
        });
    let failed = |what: String| Error::Start(format!("{} {what}", launcher.display()));
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let line = read_line(&mut child);
    if line.is_err() {
        let _ = child.kill();
    }
    // It ends after its line. A program that ignores SIGCHLD, or waits for all its children, has reaped it: ECHILD.
    let _ = child.wait();
    let line = line?;
    if let Some(path) = line.strip_prefix(READY) {
        return Ok(path.to_owned());
    }
    let why = line.strip_prefix(FAILED).unwrap_or(&line);
    Err(failed(if why.is_empty() {
        format!(
            "did not start a node service; is it of this version? Set {VARIABLE} to the right one"
        )
    } else {
        format!("node: {why}")
    }))
}

/// The one line; empty where it ended without.
fn read_line(child: &mut Child) -> Result<String, Error> {
    let Some(pipe) = child.stdout.take() else {
        return Ok(String::new());
    };
    let deadline = Instant::now() + START_TIME;
    let mut line = Vec::new();
    while line.len() < MAX_LINE {
        let mut fds = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        let left = timespec(deadline.saturating_duration_since(Instant::now()));
        let ready = again(|| poll(&mut fds, Some(&left))).map_err(|e| Error::system("poll", e))?;
        if ready == 0 {
            return Err(Error::Late);
        }
        let mut buffer = [0; 512];
        let got = again(|| rustix::io::read(&pipe, &mut buffer))
            .map_err(|errno| Error::system("read", errno))?;
        line.extend_from_slice(&buffer[..got]);
        if got == 0 || line.contains(&b'\n') {
            break;
        }
    }
    let text = String::from_utf8_lossy(&line);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The command `windlass`: named by the environment, else beside the file this code is in, beside the program, or in PATH.
fn find() -> Result<PathBuf, Error> {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        return named_by(&path, &in_path).ok_or_else(|| {
            Error::Start(format!(
                "{VARIABLE}={} is no program; set it to the path of the command `{LAUNCHER}`",
                path.display()
            ))
        });
    }
    let here = own_file().into_iter().chain(std::env::current_exe());
    let beside = here.flat_map(|file| near(&file));
    beside.chain(along(&in_path, Path::new(LAUNCHER))).find(|path| is_trusted(path)).ok_or_else(|| {
        Error::Start(format!(
            "the command `{LAUNCHER}`, which emulates the VE node, was found neither beside this library or program nor in \
             PATH; set {VARIABLE} to its path (build it with `cargo build -p windlass-launcher`), or start the program with \
             `{LAUNCHER} run`"
        ))
    })
}

/// The program of the variable, a file here or one of PATH, by its absolute path: for a bare name the standard library forks to
/// search PATH itself, and the fork handler of a C program's library would wait for the very call that starts the service.
fn named_by(path: &Path, in_path: &OsStr) -> Option<PathBuf> {
    let bare = path.components().count() == 1;
    let elsewhere = along(in_path, path).filter(|_| bare);
    let mut found = std::iter::once(path.to_owned()).chain(elsewhere);
    let program = found.find(|path| is_program(path))?;
    program.canonicalize().ok()
}

/// A name in each folder of PATH.
fn along<'a>(in_path: &'a OsStr, name: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    std::env::split_paths(in_path)
        .filter(|dir| dir.is_absolute())
        .map(move |dir| dir.join(name))
}

/// In the folder of a file; above it only where that is cargo's doing (`deps`, `examples`); in an installation's `bin` beside its
/// `lib`. Any other folder above may be somebody else's.
fn near(file: &Path) -> Vec<PathBuf> {
    let Some(folder) = file.parent() else {
        return Vec::new();
    };
    let mut found = vec![folder.join(LAUNCHER)];
    let above = match folder.file_name().and_then(OsStr::to_str) {
        Some("deps" | "examples") => folder.parent().map(Path::to_owned),
        Some("lib") => folder.parent().map(|above| above.join("bin")),
        _ => None,
    };
    found.extend(above.map(|above| above.join(LAUNCHER)));
    found
}

/// A program that this user or root has made, and that not everybody may change.
fn is_trusted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ours = |owner| owner == 0 || owner == rustix::process::geteuid().as_raw();
    let kept =
        std::fs::metadata(path).is_ok_and(|found| ours(found.uid()) && found.mode() & 0o002 == 0);
    kept && is_program(path)
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The file that this very code was loaded from: a shared library, say.
fn own_file() -> Option<PathBuf> {
    let here = own_file as *const () as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| mapped_at(line, here))
}

/// The file of a line of proc_pid_maps(5) if it holds the address.
fn mapped_at(line: &str, address: u64) -> Option<PathBuf> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    if !(number(start)?..number(end)?).contains(&address) {
        return None;
    }
    // Permissions, offset, device, inode, and then everything to the line's end.
    let path = rest.find('/').map(|at| &rest[at..])?;
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_code_is_in_this_program() {
        let own = own_file().unwrap().canonicalize().unwrap();
        assert_eq!(
            own,
            std::env::current_exe().unwrap().canonicalize().unwrap()
        );
        let line = "7f00-7f10 r-xp 00001000 fe:00 12    /opt/a b/libsysve.so";
        assert_eq!(mapped_at(line, 0x7f00), Some("/opt/a b/libsysve.so".into()));
        assert_eq!(mapped_at(line, 0x7f10), None);
        assert_eq!(mapped_at("7f00-7f10 rw-p 00000000 00:00 0", 0x7f00), None);
    }

    #[test]
    fn the_named_program_has_an_absolute_path() {
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        let (folder, name) = (own.parent().unwrap(), own.file_name().unwrap());
        let bare = named_by(Path::new(name), folder.as_os_str());
        assert_eq!(bare, Some(own.clone()));
        // Tests run in the package's folder.
        let from_root = Path::new("/proc/self/root").join(own.strip_prefix("/").unwrap());
        assert_eq!(named_by(&from_root, OsStr::new("")), Some(own.clone()));
        assert_eq!(named_by(Path::new("src"), OsStr::new("/")), None);
        assert_eq!(named_by(Path::new(name), OsStr::new("relative:")), None);
    }

    #[test]
    fn it_is_looked_for_beside_a_library() {
        let near = near(Path::new("/usr/lib/libsysve.so.1"));
        assert!(near.contains(&"/usr/bin/windlass".into()), "{near:?}");
        assert!(near.contains(&"/usr/lib/windlass".into()), "{near:?}");
        for (file, found) in [
            ("/tmp/mine/program", vec!["/tmp/mine/windlass"]),
            ("/t/debug/libsysve.so", vec!["/t/debug/windlass"]),
            (
                "/t/debug/deps/test-1",
                vec!["/t/debug/deps/windlass", "/t/debug/windlass"],
            ),
        ] {
            let found: Vec<PathBuf> = found.into_iter().map(PathBuf::from).collect();
            assert_eq!(super::near(Path::new(file)), found);
        }
    }

    #[test]
    fn what_anybody_may_change_is_not_run() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(LAUNCHER);
        std::fs::write(&program, "").unwrap();
        let mode = |mode| std::fs::set_permissions(&program, PermissionsExt::from_mode(mode));
        for (bits, trusted) in [(0o755, true), (0o775, true), (0o644, false), (0o757, false)] {
            mode(bits).unwrap();
            assert_eq!(is_trusted(&program), trusted, "{bits:o}");
        }
        mode(0o755).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&program, Some(65_534), None).unwrap();
            assert!(!is_trusted(&program), "it belongs to another user");
        }
    }
}
