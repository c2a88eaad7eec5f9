//! The private directory of a service, and the sweep of those whose service died.
//!
//! Nothing that exists is ever reused (spec reliability A2): `mkdir` makes the directory or the
//! name is changed. A file in it is locked for the service's life, and the kernel drops the lock
//! at its death, so a sweep can tell the dead from the living. All removal goes through directory
//! descriptors without following links, touches only the names made here, and never recurses
//! (S8, S10).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::config::{JobId, hex};
use crate::error::Error;

const LOCK: &str = "lock";
const SOCKET: &str = "node";
/// `sun_path` holds 108 bytes with the terminating zero.
const MAX_PATH: usize = 107;
/// A directory without a lock file is in the making, unless it is this old.
const HALF_MADE_SECONDS: u64 = 10;
/// Names tried before giving up; each holds 64 random bits.
const ATTEMPTS: u32 = 100;
/// Directories removed by one sweep at most, so that no start pays for years of neglect.
const SWEEP_MAX: usize = 10_000;

/// Where services make their directories: `XDG_RUNTIME_DIR` where it is absolute, a directory of
/// this user and closed to others; else `/tmp`.
pub fn base_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && is_private(&dir)
    {
        return dir;
    }
    PathBuf::from("/tmp")
}

fn is_private(dir: &Path) -> bool {
    // The longest name this crate makes below it is 48 bytes.
    dir.is_absolute()
        && dir.as_os_str().len() + 48 <= MAX_PATH
        && open_dir(CWD, dir.as_os_str())
            .and_then(|fd| rustix::fs::fstat(&fd))
            .is_ok_and(|stat| stat.st_uid == own_uid() && stat.st_mode & 0o022 == 0)
}

pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn open_dir(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// A directory made by this process; removed on drop.
#[derive(Debug)]
pub(crate) struct Home {
    base: OwnedFd,
    dir: OwnedFd,
    name: String,
    path: PathBuf,
    /// Held locked: the sign of life.
    _lock: OwnedFd,
}

impl Home {
    /// Makes `windlass-<uid>-<16 digits>-n<node>` under `base`, mode 0700.
    pub(crate) fn create(base: &Path, job: &JobId, node: u32) -> Result<Self, Error> {
        let failed = |call, errno| Error::Path {
            call,
            path: base.to_owned(),
            errno,
        };
        // The base itself may be reached through a link: it is the user's choice.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base_fd =
            rustix::fs::open(base, flags, Mode::empty()).map_err(|e| failed("open", e))?;
        let mut digits = job.short();
        for _ in 0..ATTEMPTS {
            let name = format!("windlass-{}-{digits}-n{node}", own_uid());
            let path = base.join(&name);
            let socket_len = path.as_os_str().len() + 1 + SOCKET.len();
            if socket_len > MAX_PATH {
                return Err(Error::Config(format!(
                    "a socket's path is at most {MAX_PATH} bytes, under {} it has {socket_len}; \
                     set XDG_RUNTIME_DIR to a shorter directory",
                    base.display()
                )));
            }
            match rustix::fs::mkdirat(&base_fd, name.as_str(), Mode::RWXU) {
                Ok(()) => {
                    if let Some((dir, lock)) =
                        furnish(base_fd.as_fd(), &name).map_err(|errno| Error::Path {
                            call: "openat",
                            path: path.clone(),
                            errno,
                        })?
                    {
                        return Ok(Self {
                            base: base_fd,
                            dir,
                            name,
                            path,
                            _lock: lock,
                        });
                    }
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("mkdir", errno)),
            }
            digits = hex(&JobId::random()?.0[..8]);
        }
        Err(failed("mkdir", Errno::EXIST))
    }

    /// Where the service's socket is bound.
    pub(crate) fn socket_path(&self) -> PathBuf {
        socket_in(&self.path)
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(errno) = remove(self.base.as_fd(), self.dir.as_fd(), &self.name) {
            tracing::warn!(path = %self.path.display(), %errno, "the service's directory stays");
        }
    }
}

/// The socket in a service's directory.
pub(crate) fn socket_in(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

/// Opens and locks a directory just made. `None`: a sweep was faster, take another name.
fn furnish(base: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Option<(OwnedFd, OwnedFd)>> {
    let dir = match open_dir(base, OsStr::new(name)) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let stat = rustix::fs::fstat(&dir)?;
    if stat.st_uid != own_uid() {
        return Ok(None);
    }
    rustix::fs::fchmod(&dir, Mode::RWXU)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match rustix::fs::openat(&dir, LOCK, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::NOENT | Errno::EXIST) => return Ok(None),
        other => other?,
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    // A sweep that held the lock before us has unlinked the file.
    Ok((rustix::fs::fstat(&lock)?.st_nlink > 0).then_some((dir, lock)))
}

/// Removes what this crate puts into a directory, then the directory. A stranger's file in it
/// makes it stay.
fn remove(base: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    for file in [SOCKET, LOCK] {
        match rustix::fs::unlinkat(dir, file, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    match rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes the directories that dead services of this user left under `base`; returns their
/// paths. What belongs to another user, to a living service, or is no such directory is not
/// touched; errors of single entries are passed over.
pub fn sweep(base: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |call, errno| Error::Path {
        call,
        path: base.to_owned(),
        errno,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base_fd = rustix::fs::open(base, flags, Mode::empty()).map_err(|e| failed("open", e))?;
    let entries = rustix::fs::Dir::read_from(&base_fd).map_err(|e| failed("getdents", e))?;
    let mut swept = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed("getdents", e))?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if swept.len() < SWEEP_MAX && is_ours(name) && sweep_one(base_fd.as_fd(), name) {
            tracing::info!(name, "removed the directory of a dead node service");
            swept.push(base.join(name));
        }
    }
    Ok(swept)
}

/// Whether a name has the form this crate gives to directories of this user.
pub(crate) fn is_ours(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = name.split('-');
    let form = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    );
    let (Some("windlass"), Some(uid), Some(job), Some(node), None) = form else {
        return false;
    };
    uid == own_uid().to_string()
        && job.len() == 16
        && job.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && node.strip_prefix('n').is_some_and(digits)
}

fn sweep_one(base: BorrowedFd<'_>, name: &str) -> bool {
    let Ok(dir) = open_dir(base, OsStr::new(name)) else {
        return false;
    };
    let Ok(stat) = rustix::fs::fstat(&dir) else {
        return false;
    };
    if stat.st_uid != own_uid() || FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return false;
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, LOCK, flags, Mode::empty()) {
        Ok(lock) => {
            // Held until the directory is gone, so that its maker cannot take it half removed.
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
                && remove(base, dir.as_fd(), name).is_ok()
        }
        Err(Errno::NOENT) => {
            let changed = std::time::Duration::from_secs(stat.st_mtime.try_into().unwrap_or(0));
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.is_ok_and(|now| now.saturating_sub(changed).as_secs() >= HALF_MADE_SECONDS)
                && remove(base, dir.as_fd(), name).is_ok()
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn job() -> JobId {
        JobId::random().unwrap()
    }

    #[test]
    fn a_directory_is_private_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::create(base.path(), &job(), 3).unwrap();
        let meta = std::fs::metadata(home.path()).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o700);
        assert!(home.path().to_str().unwrap().ends_with("-n3"));
        drop(home);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_existing_name_is_never_reused() {
        let base = tempfile::tempdir().unwrap();
        let job = job();
        let name = format!("windlass-{}-{}-n0", own_uid(), job.short());
        std::fs::write(base.path().join(&name), b"a stranger's").unwrap();
        let home = Home::create(base.path(), &job, 0).unwrap();
        assert_ne!(home.path(), base.path().join(&name));
        drop(home);
        assert_eq!(
            std::fs::read(base.path().join(&name)).unwrap(),
            b"a stranger's"
        );
    }

    #[test]
    fn a_long_base_names_the_remedy() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("d".repeat(90));
        std::fs::create_dir(&deep).unwrap();
        let text = Home::create(&deep, &job(), 0).unwrap_err().to_string();
        assert!(text.contains("XDG_RUNTIME_DIR"), "{text}");
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_takes_the_dead_and_only_them() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        let own = |digits: &str| format!("windlass-{}-{digits}-n0", own_uid());
        let alive = Home::create(base.path(), &job(), 0).unwrap();
        // Dead: a lock file nobody holds, with the socket of a killed service.
        let dead = at(&own("00000000000000aa"));
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), b"").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dead.join(SOCKET)).unwrap();
        // Being made: no lock file yet. Old: killed while being made.
        let young = at(&own("00000000000000ab"));
        std::fs::create_dir(&young).unwrap();
        let old = at(&own("00000000000000ac"));
        std::fs::create_dir(&old).unwrap();
        let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        std::fs::File::open(&old)
            .unwrap()
            .set_modified(past)
            .unwrap();
        // Decoys: a link, a file, a FIFO as lock, a stranger's file inside, other names.
        let target = tempfile::tempdir().unwrap();
        std::fs::write(target.path().join(LOCK), b"").unwrap();
        symlink(target.path(), at(&own("00000000000000ad"))).unwrap();
        std::fs::write(at(&own("00000000000000ae")), b"").unwrap();
        let full = at(&own("00000000000000af"));
        std::fs::create_dir(&full).unwrap();
        std::fs::write(full.join(LOCK), b"").unwrap();
        std::fs::write(full.join("precious"), b"").unwrap();
        for name in [
            "windlass-x",
            "windlass-0-zz-n0",
            &own("00000000000000A0"),
            &own("0"),
        ] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join(LOCK), b"").unwrap();
        }
        let before = std::fs::read_dir(base.path()).unwrap().count();

        let mut swept = sweep(base.path()).unwrap();
        swept.sort();
        assert_eq!(swept, [dead, old]);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), before - 2);
        assert!(target.path().join(LOCK).exists() && full.join("precious").exists());
        assert!(alive.path().join(LOCK).exists() && young.exists());
        assert!(sweep(base.path()).unwrap().is_empty());
    }

    #[test]
    fn decoys_stop_no_job_and_strangers_keep_theirs() {
        // Spec reliability A2: names taken beforehand, in every form, by us and by others.
        let base = tempfile::tempdir().unwrap();
        let (mut dead, mut kept) = (0, 0);
        let job = job();
        for i in 0..1000u32 {
            let digits = if i == 0 {
                job.short()
            } else {
                format!("{i:016x}")
            };
            let path = base
                .path()
                .join(format!("windlass-{}-{digits}-n0", own_uid()));
            match i % 5 {
                0 => symlink("/", &path).unwrap(),
                1 => std::fs::write(&path, b"").unwrap(),
                _ => {
                    std::fs::create_dir(&path).unwrap();
                    std::fs::write(path.join(LOCK), b"").unwrap();
                }
            }
            let foreign = i % 5 == 3 && rustix::process::geteuid().is_root();
            if foreign {
                std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            }
            if i % 5 < 2 || foreign {
                kept += 1;
            } else {
                dead += 1;
            }
        }
        let homes: Vec<Home> = (0..100)
            .map(|_| Home::create(base.path(), &job, 0).unwrap())
            .collect();
        assert_eq!(sweep(base.path()).unwrap().len(), dead);
        assert!(homes.iter().all(|home| home.path().join(LOCK).exists()));
        drop(homes);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), kept);
    }

    #[test]
    fn making_and_sweeping_race_harmlessly() {
        let base = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                for _ in 0..300 {
                    sweep(base.path()).unwrap();
                }
            });
            for _ in 0..300 {
                let home = Home::create(base.path(), &job(), 0).unwrap();
                assert!(home.path().join(LOCK).exists());
            }
            sweeper.join().unwrap();
        });
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
