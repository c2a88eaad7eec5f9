//! The MPI libraries of this machine: where they are, how they are built with, and how they are told to use shared memory or
//! TCP.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::child;
use crate::lines::Place;

/// What to install on Debian.
pub(crate) const REMEDY: &str = "no MPI library is found in PATH; on Debian: \
    apt install mpich openmpi-bin libopenmpi-dev libmpich-dev; or give --mpi PREFIX, a folder with bin/mpicc and bin/mpiexec";

/// The program that is built with each of them.
const SOURCE: &str = include_str!("rma.c");
const BUILD_LIMIT: Duration = Duration::from_secs(60);
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// Debian's names of what it offers side by side, then the plain one.
const SUFFIXES: [&str; 3] = [".mpich", ".openmpi", ""];

/// Whose options the launcher takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Mpich,
    OpenMpi,
    Intel,
    /// None of these: it gets `-n 2` alone.
    Other,
}

impl Family {
    /// By what `mpiexec --version` says.
    fn of(version: &str) -> Self {
        if version.contains("Intel(R) MPI") {
            Family::Intel
        } else if ["Open MPI", "OpenRTE", "PRRTE", "prte"]
            .iter()
            .any(|name| version.contains(name))
        {
            Family::OpenMpi
        } else if version.contains("HYDRA") || version.contains("MPICH") {
            Family::Mpich
        } else {
            Family::Other
        }
    }
}

/// A compiler and a launcher that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mpi {
    pub(crate) mpicc: PathBuf,
    pub(crate) mpiexec: PathBuf,
    /// The folder given by `--mpi`, whose libraries the linker does not find by itself.
    prefix: Option<PathBuf>,
}

/// What was found, and what is to be said of it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) libraries: Vec<Mpi>,
    pub(crate) remarks: Vec<String>,
}

/// Looks in the folders of `path` and in `prefixes`; each library once, however many names it has.
///
/// # Errors
/// A prefix without compiler or launcher.
pub(crate) fn find(path: &OsStr, prefixes: &[PathBuf]) -> Result<Found, String> {
    let mut found = Found::default();
    for suffix in SUFFIXES {
        let [mpicc, mpiexec] = ["mpicc", "mpiexec"].map(|name| format!("{name}{suffix}"));
        match [&mpicc, &mpiexec].map(|name| in_path(path, name)) {
            [Some(mpicc), Some(mpiexec)] => found.add(Mpi {
                mpicc,
                mpiexec,
                prefix: None,
            }),
            [Some(_), None] => found.remarks.push(format!("{mpicc} is left out: there is no {mpiexec}")),
            [None, Some(_)] => found.remarks.push(format!(
                "{mpiexec} is left out: there is no {mpicc}; its package of development files has it"
            )),
            [None, None] => {}
        }
    }
    for prefix in prefixes {
        let bin = prefix.join("bin");
        let [mpicc, mpiexec] = ["mpicc", "mpiexec"].map(|name| bin.join(name));
        if let Some(missing) = [&mpicc, &mpiexec]
            .into_iter()
            .find(|file| !is_program(file))
        {
            // Some packages have only what runs programs, as impi-rt.
            let remedy = match *missing == mpicc && is_program(&mpiexec) {
                true => {
                    "install the package with its compiler too: of Python's packages, impi-devel beside impi-rt"
                }
                false => "give the folder above bin/mpicc and bin/mpiexec",
            };
            return Err(format!(
                "--mpi {}: there is no program {}; {remedy}",
                prefix.display(),
                missing.display()
            ));
        }
        let prefix = fs::canonicalize(prefix).map_err(|why| format!("--mpi: {why}"))?;
        found.add(Mpi {
            mpicc,
            mpiexec,
            prefix: Some(prefix),
        });
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, mpi: Mpi) {
        if self
            .libraries
            .iter()
            .all(|other| other.files() != mpi.files())
        {
            self.libraries.push(mpi);
        }
    }
}

fn in_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    let mut files = std::env::split_paths(path).map(|dir| dir.join(name));
    files.find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// How the ranks are told where their memory or network is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
}

impl Settings {
    fn new(arguments: &str, variables: &[(&str, &str)]) -> Self {
        Self {
            arguments: arguments.split_whitespace().map(Into::into).collect(),
            variables: variables
                .iter()
                .map(|&(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    /// As on a command line.
    pub(crate) fn say(&self) -> String {
        let variables = self
            .variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let words: Vec<String> = variables.chain(self.arguments.iter().cloned()).collect();
        match words.is_empty() {
            true => "its defaults".into(),
            false => words.join(" "),
        }
    }
}

impl Mpi {
    /// The files behind the names.
    fn files(&self) -> [PathBuf; 2] {
        [&self.mpicc, &self.mpiexec].map(|file| fs::canonicalize(file).unwrap_or(file.clone()))
    }

    /// A command of this library, which finds its other files.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(prefix) = &self.prefix {
            let mut libraries = OsString::from(prefix.join("lib"));
            if let Some(others) = std::env::var_os("LD_LIBRARY_PATH") {
                libraries.push(":");
                libraries.push(others);
            }
            command.env("LD_LIBRARY_PATH", libraries);
            command.env("I_MPI_ROOT", prefix);
        }
        command
    }

    /// The program that measures this library from Rust, where it was built, and with this one.
    pub(crate) fn rust_program(&self, path: &OsStr) -> Option<PathBuf> {
        let built_with = option_env!("MPICC").unwrap_or("mpicc");
        let mpicc = match built_with.contains('/') {
            true => PathBuf::from(built_with),
            false => in_path(path, built_with)?,
        };
        let is_this = fs::canonicalize(mpicc).ok()? == self.files()[0];
        let program = std::env::current_exe()
            .ok()?
            .with_file_name("windlass-rsmpi");
        (cfg!(feature = "mpi") && is_this && is_program(&program)).then_some(program)
    }

    /// Asks the launcher.
    pub(crate) fn family(&self) -> Family {
        let outcome = child::run(self.command(&self.mpiexec).arg("--version"), VERSION_LIMIT);
        Family::of(&outcome.lines.join("\n"))
    }

    /// Builds our program in `dir`.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn build(&self, dir: &Path, name: &str) -> Result<PathBuf, String> {
        let (source, program) = (dir.join("rma.c"), dir.join(name));
        fs::write(&source, SOURCE).map_err(|why| format!("{}: {why}", source.display()))?;
        let mut command = self.command(&self.mpicc);
        command.args(["-O2", "-o"]).arg(&program).arg(&source);
        match child::run(&mut command, BUILD_LIMIT).failure {
            None => Ok(program),
            Some(why) => Err(format!(
                "{} did not build rma.c: {why}",
                self.mpicc.display()
            )),
        }
    }

    /// The command that runs `program` as two ranks, each bound to a core.
    pub(crate) fn run(&self, family: Family, settings: &Settings, program: &Path) -> Command {
        let mut command = self.command(&self.mpiexec);
        command.envs(settings.variables.iter().cloned());
        match family {
            Family::OpenMpi => {
                if rustix::process::geteuid().is_root() {
                    command.arg("--allow-run-as-root");
                }
                command.args(["--bind-to", "core"]);
            }
            Family::Mpich => {
                command.args(["-bind-to", "core"]);
            }
            // Intel's binds by default.
            Family::Intel | Family::Other => {}
        }
        command
            .args(&settings.arguments)
            .args(["-n", "2"])
            .arg(program);
        command
    }
}

/// What may be the best settings of a library there; the fastest that works is taken.
pub(crate) fn settings(family: Family, place: Place) -> Vec<Settings> {
    match (family, place) {
        // What it takes by itself is not always its best, and in some releases fails.
        (Family::OpenMpi, Place::Host) => [
            "",
            "--mca osc sm,ucx",
            "--mca osc sm,rdma",
            "--mca osc sm,pt2pt",
        ]
        .map(|arguments| Settings::new(arguments, &[]))
        .into(),
        (Family::OpenMpi, Place::Nodes) => {
            let ob1 = "--mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include lo --mca osc";
            vec![
                Settings::new(&format!("{ob1} pt2pt"), &[]),
                Settings::new(&format!("{ob1} rdma"), &[]),
                Settings::new(
                    "--mca pml ucx --mca osc ucx -x UCX_TLS=tcp,self -x UCX_NET_DEVICES=lo",
                    &[],
                ),
            ]
        }
        (Family::Mpich, Place::Nodes) => vec![
            Settings::new(
                "",
                &[
                    ("MPIR_CVAR_NOLOCAL", "1"),
                    ("MPIR_CVAR_CH4_NETMOD", "ofi"),
                    ("FI_PROVIDER", "tcp"),
                ],
            ),
            Settings::new("", &[("MPIR_CVAR_NOLOCAL", "1"), ("UCX_TLS", "tcp,self")]),
        ],
        (Family::Intel, Place::Host) => vec![
            Settings::new("", &[("I_MPI_FABRICS", "shm")]),
            Settings::default(),
        ],
        (Family::Intel, Place::Nodes) => {
            vec![Settings::new(
                "",
                &[("I_MPI_FABRICS", "ofi"), ("FI_PROVIDER", "tcp")],
            )]
        }
        (Family::Mpich | Family::Other, Place::Host) => vec![Settings::default()],
        (Family::Other, Place::Nodes) => Vec::new(),
    }
}

/// `MPICH 4.0.2`, out of what the library says of itself.
pub(crate) fn label(version: &str) -> String {
    let number = |after: &str| {
        let rest = version.split_once(after)?.1;
        let number: String = rest
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        (!number.is_empty()).then_some(number)
    };
    for (said, name) in [
        ("Open MPI v", "Open MPI"),
        ("Intel(R) MPI Library", "Intel MPI"),
        ("MPICH Version:", "MPICH"),
    ] {
        if let Some(number) = number(said) {
            return format!("{name} {number}");
        }
    }
    version.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that may be run.
    fn script(file: &Path, text: &str) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn pairs_in_the_path_are_found_once_each() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        for name in [
            "mpicc.mpich",
            "mpiexec.mpich",
            "mpicc.openmpi",
            "mpiexec.openmpi",
        ] {
            script(&bin.join(name), "exit 0");
        }
        // The alternatives, as Debian sets them: other names of one of them.
        for name in ["mpicc", "mpiexec"] {
            std::os::unix::fs::symlink(bin.join(format!("{name}.mpich")), bin.join(name)).unwrap();
        }
        let found = find(bin.as_os_str(), &[]).unwrap();
        let names: Vec<_> = found
            .libraries
            .iter()
            .map(|mpi| mpi.mpicc.file_name().unwrap())
            .collect();
        assert_eq!(names, ["mpicc.mpich", "mpicc.openmpi"]);
        assert!(found.remarks.is_empty(), "{:?}", found.remarks);
        // A prefix that is one of them is not a further one.
        let again = find(bin.as_os_str(), &[dir.path().into()]).unwrap();
        assert_eq!(again.libraries.len(), 2);
        assert!(
            find(OsStr::new("/nonexistent"), &[])
                .unwrap()
                .libraries
                .is_empty()
        );
    }

    #[test]
    fn half_a_pair_is_told() {
        let dir = tempfile::tempdir().unwrap();
        script(&dir.path().join("mpiexec.openmpi"), "exit 0");
        script(&dir.path().join("mpicc.mpich"), "exit 0");
        // Not a program.
        fs::write(dir.path().join("mpiexec.mpich"), "").unwrap();
        let found = find(dir.path().as_os_str(), &[]).unwrap();
        assert!(found.libraries.is_empty());
        assert_eq!(found.remarks.len(), 2, "{:?}", found.remarks);
        assert!(found.remarks[1].contains("development"));
        let error = find(OsStr::new(""), &[dir.path().into()]).unwrap_err();
        assert!(error.contains("bin/mpicc"), "{error}");
    }

    #[test]
    fn a_prefix_that_only_runs_programs_is_told_what_lacks() {
        let dir = tempfile::tempdir().unwrap();
        script(&dir.path().join("bin/mpiexec"), "exit 0");
        let error = find(OsStr::new(""), &[dir.path().into()]).unwrap_err();
        assert!(error.contains("impi-devel"), "{error}");
    }

    #[test]
    fn a_prefix_is_asked_and_built_with() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("prefix");
        script(&prefix.join("bin/mpiexec"), "echo 'HYDRA build details:'");
        script(
            &prefix.join("bin/mpicc"),
            "echo \"$@\" >&2; echo \"$LD_LIBRARY_PATH\" > \"$3\"",
        );
        let found = find(OsStr::new(""), std::slice::from_ref(&prefix)).unwrap();
        let mpi = &found.libraries[0];
        assert_eq!(mpi.family(), Family::Mpich);
        let program = mpi.build(dir.path(), "rma-0").unwrap();
        let libraries = fs::read_to_string(program).unwrap();
        assert!(libraries.contains("prefix/lib"), "{libraries}");
        script(
            &prefix.join("bin/mpicc"),
            "echo 'cannot find mpi.h' >&2; exit 1",
        );
        let error = mpi.build(dir.path(), "rma-1").unwrap_err();
        assert!(error.contains("cannot find mpi.h"), "{error}");
    }

    #[test]
    fn families_and_labels() {
        for (said, family, label_of) in [
            ("MPICH Version:\t4.0.2", Family::Mpich, "MPICH 4.0.2"),
            (
                "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4",
                Family::OpenMpi,
                "Open MPI 4.1.4",
            ),
            (
                "Intel(R) MPI Library 2021.19.0 for Linux* OS",
                Family::Intel,
                "Intel MPI 2021.19.0",
            ),
            (
                "Some other library, 1",
                Family::Other,
                "Some other library, ",
            ),
        ] {
            assert_eq!(label(said), label_of);
            assert_eq!(Family::of(said), family);
        }
        assert_eq!(
            Family::of("mpiexec.openmpi (OpenRTE) 4.1.4"),
            Family::OpenMpi
        );
        assert_eq!(Family::of("HYDRA build details:"), Family::Mpich);
    }

    #[test]
    fn launchers_get_their_own_options() {
        let mpi = Mpi {
            mpicc: "mpicc".into(),
            mpiexec: "mpiexec".into(),
            prefix: None,
        };
        let arguments = |family, place| {
            let settings = &settings(family, place)[0];
            let command = mpi.run(family, settings, Path::new("rma"));
            let words: Vec<_> = command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            words.join(" ")
        };
        assert!(arguments(Family::Mpich, Place::Host).ends_with("-bind-to core -n 2 rma"));
        assert!(arguments(Family::OpenMpi, Place::Nodes).contains("--mca btl tcp,self"));
        assert_eq!(Settings::default().say(), "its defaults");
        assert!(
            settings(Family::Mpich, Place::Nodes)[0]
                .say()
                .contains("FI_PROVIDER=tcp")
        );
    }
}
