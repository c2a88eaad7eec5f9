//! `windlass info`: what this machine and this build offer, as text or JSON.
//!
//! Relies on: `/proc`, `/sys`, the directories the dynamic linker searches, and a child process to
//! probe cross-memory copy with. Promises: looks, and loads a library at most in a child process; what cannot be found
//! out is said, not guessed.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use windlass_native::{dat2, ofi};
use windlass_node::control::MAX_LOCAL;
use windlass_runtime::MechanismId;

use crate::card;
use crate::ending::count;
use crate::environment::variables;
use crate::error::{Error, Result};
use crate::place::{MAX_NODES, MAX_RANKS, MAX_VES};
use crate::topology::Topology;

/// Everything `windlass info` says.
#[derive(Debug, Serialize)]
pub struct Info {
    /// Version of this launcher.
    pub version: &'static str,
    /// Limits of a job.
    pub limits: Limits,
    /// The machine.
    pub topology: Topology,
    /// Mechanisms by which windows become reachable, best first, all emulated or of the kernel.
    pub mechanisms: Vec<Mechanism>,
    /// Libraries of real hardware.
    pub libraries: Vec<Library>,
    /// Huge pages by size.
    pub huge_pages: Vec<HugePages>,
    /// Cross-memory copy between processes of this user.
    pub cross_memory: Allowed,
    /// Environment variables.
    pub variables: Vec<Setting>,
}

/// Limits of a job.
#[derive(Debug, Serialize)]
pub struct Limits {
    /// Ranks.
    pub ranks: u32,
    /// Ranks of one node.
    pub ranks_per_node: u32,
    /// Logical nodes.
    pub nodes: u32,
    /// VEs per node.
    pub ves: u32,
}

/// One mechanism.
#[derive(Debug, Serialize)]
pub struct Mechanism {
    /// Name, as `WINDLASS_ROUTE` takes it.
    pub name: &'static str,
    /// What it is here.
    pub what: &'static str,
}

/// A library of real hardware.
#[derive(Debug, Serialize)]
pub struct Library {
    /// File name.
    pub name: &'static str,
    /// What it is for.
    pub what: &'static str,
    /// Where it was found.
    pub path: Option<PathBuf>,
    /// What it said of itself when a child process loaded it, or why it cannot be used; not asked of all.
    pub says: Option<String>,
}

/// Huge pages of one size.
#[derive(Debug, Serialize)]
pub struct HugePages {
    /// Size of a page in KiB.
    pub page_kib: u64,
    /// Pages there are.
    pub total: u64,
    /// Pages nobody uses.
    pub free: u64,
}

/// Whether something is allowed, and why not.
#[derive(Debug, Serialize)]
pub struct Allowed {
    /// It is.
    pub allowed: bool,
    /// In a sentence.
    pub why: String,
}

/// A variable as it is set now.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// Name.
    pub name: &'static str,
    /// Value when not set.
    pub default: &'static str,
    /// Value now.
    pub current: Option<String>,
    /// What it does.
    pub meaning: &'static str,
}

/// What a mechanism is on a machine without the real devices.
fn described(id: MechanismId) -> Mechanism {
    let what = match id {
        MechanismId::Loopback => "a rank's own memory",
        MechanismId::Veshm => "VE shared memory, emulated: mapped on one VE, VE DMA between VEs",
        MechanismId::Vhshm => {
            "host memory: mapped for hosts, emulated VE DMA for VEs (needs huge pages)"
        }
        MechanismId::Veo => {
            "VEO transfers of a host to VE memory, emulated (or a card's: WINDLASS_VE=native)"
        }
        MechanismId::Rsm => {
            "host memory in files, as RSM segments: mapped for hosts, where vhshm fails or WINDLASS_ROUTE names it"
        }
        MechanismId::Cma => "cross-memory copy by the kernel, for lent memory",
        MechanismId::Udapl => {
            "uDAPL provider in software, over TCP, or the one that WINDLASS_DAT names: between nodes, and the last resort"
        }
        MechanismId::Ofi => {
            "libfabric, where it is installed and WINDLASS_ROUTE or WINDLASS_OFI_PROVIDER asks for it: between nodes"
        }
    };
    Mechanism {
        name: id.name(),
        what,
    }
}

/// The huge pages that VEs reach (ve-memory 7.2).
const VE_PAGE_KIB: u64 = 2048;

/// The library of cards.
const VEO: (&str, &str) = (
    "libveo.so",
    "VE offloading to real Vector Engines: windows lie on them with WINDLASS_VE=native",
);

/// The variable that says whose Vector Engines ranks are on.
const KIND: &str = "WINDLASS_VE";

/// Whose Vector Engines ranks are on, as that variable is now.
fn whose(kind: Option<&str>) -> String {
    match kind {
        Some("native") => format!(
            "Vector Engines of ranks are those of this machine, by libveo.so ({KIND}=native is set; without it they are emulated)"
        ),
        None | Some("" | "emulated") => format!(
            "Vector Engines of ranks are emulated; with {KIND}=native they are those of this machine, by libveo.so"
        ),
        Some(other) => format!("{KIND}={other} is not accepted; give emulated or native"),
    }
}

/// File names, what they would be for, and the question that is asked of them.
const LIBRARIES: [(&str, &str, &str); 2] = [
    (
        dat2::SONAME,
        "uDAPL providers of others, for RDMA hardware: WINDLASS_DAT names one",
        "__dat",
    ),
    (
        ofi::SONAME,
        "libfabric, for networks that have a provider: the route ofi",
        "__ofi",
    ),
];

/// Where libraries of these kinds are installed, besides what the linker's configuration names.
const DIRECTORIES: [&str; 9] = [
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/opt/nec/ve/veos/lib64",
];

impl Info {
    /// Looks around.
    pub fn gather() -> Info {
        let directories = library_directories(Path::new("/etc"));
        let veo = card::find(&directories);
        let veo = Library {
            name: VEO.0,
            what: VEO.1,
            says: veo.as_deref().map(|file| card::ask("__veo", file)),
            path: veo,
        };
        let libraries = LIBRARIES.iter().map(|&(name, what, question)| {
            let path = directories
                .iter()
                .map(|dir| dir.join(name))
                .find(|path| path.exists());
            Library {
                name,
                what,
                says: path.as_deref().map(|file| card::ask(question, file)),
                path,
            }
        });
        let variables = variables().map(|v| {
            let current =
                std::env::var_os(v.name).map(|value| value.to_string_lossy().into_owned());
            Setting {
                name: v.name,
                default: v.default,
                current,
                meaning: v.meaning,
            }
        });
        Info {
            version: env!("CARGO_PKG_VERSION"),
            limits: Limits {
                ranks: MAX_RANKS,
                ranks_per_node: MAX_LOCAL,
                nodes: MAX_NODES,
                ves: MAX_VES,
            },
            topology: Topology::discover(),
            mechanisms: MechanismId::ALL.map(described).into(),
            libraries: std::iter::once(veo).chain(libraries).collect(),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            cross_memory: cross_memory(),
            variables: variables.collect(),
        }
    }

    /// As text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write_topology(&self, out: &mut String) -> std::fmt::Result {
        let t = &self.topology;
        writeln!(out, "\nTopology (from {})", t.source)?;
        let packages = count(t.packages(), "package");
        let (nodes, cores) = (
            count(t.numa.len(), "NUMA node"),
            count(t.cores.len(), "core"),
        );
        writeln!(
            out,
            "  {packages}, {nodes}, {cores}, processors {}",
            t.cpus()
        )?;
        for (node, cpus) in &t.numa {
            writeln!(out, "  NUMA node {node}: processors {cpus}")?;
        }
        Ok(())
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "windlass {}", self.version)?;
        let l = &self.limits;
        writeln!(
            out,
            "  at most {} ranks, {} of them on a node; {} logical nodes, {} VEs per node",
            l.ranks, l.ranks_per_node, l.nodes, l.ves
        )?;
        self.write_topology(out)?;
        writeln!(out, "\nMechanisms (best first)")?;
        for m in &self.mechanisms {
            writeln!(out, "  {:<10}{}", m.name, m.what)?;
        }
        writeln!(out, "\nLibraries of real hardware")?;
        for library in &self.libraries {
            let found = library
                .path
                .as_ref()
                .map_or("not found".into(), |path| path.display().to_string());
            writeln!(out, "  {:<16}{found} ({})", library.name, library.what)?;
            if let Some(says) = &library.says {
                writeln!(out, "  {:16}{says}", "")?;
            }
        }
        let kind = self.variables.iter().find(|v| v.name == KIND);
        let kind = kind.and_then(|v| v.current.as_deref());
        writeln!(out, "  {}", whose(kind))?;
        writeln!(out, "\nMemory")?;
        for pages in &self.huge_pages {
            let HugePages {
                page_kib,
                total,
                free,
            } = pages;
            writeln!(
                out,
                "  huge pages of {page_kib} KiB: {total}, {free} of them free"
            )?;
        }
        let usable = |pages: &HugePages| pages.page_kib == VE_PAGE_KIB && pages.total > 0;
        if !self.huge_pages.iter().any(usable) {
            writeln!(
                out,
                "  no huge pages of {VE_PAGE_KIB} KiB: VEs reach host memory by the next mechanism (as root, `sysctl vm.nr_hugepages=64` gives some where that is the default size)"
            )?;
        }
        let cross = &self.cross_memory;
        let word = if cross.allowed {
            "allowed"
        } else {
            "not allowed"
        };
        writeln!(out, "  cross-memory copy: {word} ({})", cross.why)?;
        writeln!(out, "\nEnvironment variables")?;
        for v in &self.variables {
            let current = v
                .current
                .as_ref()
                .map_or("not set".into(), |value| format!("= {value}"));
            writeln!(
                out,
                "  {:<24}{current} (default: {})\n  {:24}{}",
                v.name, v.default, "", v.meaning
            )?;
        }
        Ok(())
    }
}

/// `windlass info`.
pub(crate) fn print(json: bool) -> Result<i32> {
    let info = Info::gather();
    let text = if json {
        let text = serde_json::to_string_pretty(&info);
        text.map_err(|error| Error::Report(format!("the report has no JSON form: {error}")))? + "\n"
    } else {
        info.text()
    };
    crate::command::print(&text)
}

/// Directories of `LD_LIBRARY_PATH`, of `ld.so.conf` and its parts below `etc`, and the usual ones.
fn library_directories(etc: &Path) -> Vec<PathBuf> {
    let from_environment = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::env::split_paths(&from_environment)
        .filter(|dir| dir.is_absolute())
        .collect();
    let mut files = vec![etc.join("ld.so.conf")];
    if let Ok(entries) = fs::read_dir(etc.join("ld.so.conf.d")) {
        let mut parts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(
            parts
                .into_iter()
                .filter(|path| path.extension().is_some_and(|e| e == "conf")),
        );
    }
    for text in files.iter().flat_map(fs::read_to_string) {
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or("").trim());
        found.extend(
            lines
                .filter(|line| line.starts_with('/'))
                .map(PathBuf::from),
        );
    }
    found.extend(DIRECTORIES.iter().map(PathBuf::from));
    found
}

fn huge_pages(root: &Path) -> Vec<HugePages> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let page_kib = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let number = |file: &str| {
            fs::read_to_string(entry.path().join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        Some(HugePages {
            page_kib,
            total: number("nr_hugepages")?,
            free: number("free_hugepages")?,
        })
    };
    let mut sizes: Vec<HugePages> = entries.flatten().filter_map(one).collect();
    sizes.sort_by_key(|pages| pages.page_kib);
    sizes
}

/// Asks the kernel, with a child: reading at an address that is not mapped fails with EFAULT where
/// the copy itself is allowed.
fn cross_memory() -> Allowed {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    if let Some(scope) = scope
        .as_deref()
        .map(str::trim)
        .filter(|scope| *scope != "0")
    {
        let why = format!(
            "kernel.yama.ptrace_scope is {scope}: ranks may not copy from each other; 0 allows it"
        );
        return Allowed {
            allowed: false,
            why,
        };
    }
    match probe_child() {
        Ok(why) => Allowed { allowed: true, why },
        Err(why) => Allowed {
            allowed: false,
            why,
        },
    }
}

fn probe_child() -> std::result::Result<String, String> {
    let exe = std::env::current_exe().map_err(|error| format!("not probed: {error}"))?;
    let mut command = Command::new(exe);
    command
        .arg("__idle")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|error| format!("not probed: {error}"))?;
    let pid = child.id() as i32;
    let copied = windlass_mem::cross::start_time(pid)
        .and_then(|start| windlass_mem::cross::Process::open(pid, start))
        .and_then(|process| process.read(PROBE_ADDRESS, &mut [0]));
    drop(child.stdin.take());
    let _ = child.kill();
    let _ = child.wait();
    match copied {
        Ok(()) => Ok("probed with a child process".into()),
        Err(windlass_mem::Error::System {
            errno: rustix::io::Errno::FAULT,
            ..
        }) => Ok("probed with a child process".into()),
        Err(error) => Err(format!("probed with a child process: {error}")),
    }
}

/// No process has a page here (mmap_min_addr), so the answer tells of permission alone.
const PROBE_ADDRESS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linker_configuration_is_read() {
        let etc = tempfile::tempdir().unwrap();
        fs::write(
            etc.path().join("ld.so.conf"),
            "# comment\n/opt/a # why\ninclude x\n",
        )
        .unwrap();
        fs::create_dir(etc.path().join("ld.so.conf.d")).unwrap();
        fs::write(etc.path().join("ld.so.conf.d/b.conf"), "/opt/b\n").unwrap();
        fs::write(etc.path().join("ld.so.conf.d/c.txt"), "/opt/c\n").unwrap();
        let found = library_directories(etc.path());
        assert!(found.contains(&"/opt/a".into()) && found.contains(&"/opt/b".into()));
        assert!(!found.contains(&"/opt/c".into()));
    }

    #[test]
    fn pages_that_no_ve_reaches_do_not_count() {
        let mut info = Info::gather();
        for (page_kib, total, said) in [(2048, 0, true), (1048576, 4, true), (2048, 1, false)] {
            info.huge_pages = vec![HugePages {
                page_kib,
                total,
                free: 0,
            }];
            let text = info.text();
            assert_eq!(text.contains("no huge pages of 2048 KiB"), said, "{text}");
        }
    }

    #[test]
    fn huge_pages_are_read_by_size() {
        let root = tempfile::tempdir().unwrap();
        for (size, total) in [(1048576, 0), (2048, 7)] {
            let dir = root.path().join(format!("hugepages-{size}kB"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("nr_hugepages"), format!("{total}\n")).unwrap();
            fs::write(dir.join("free_hugepages"), "0\n").unwrap();
        }
        let sizes = huge_pages(root.path());
        assert_eq!(
            (sizes[0].page_kib, sizes[0].total, sizes[1].page_kib),
            (2048, 7, 1048576)
        );
        assert!(huge_pages(Path::new("/nonexistent")).is_empty());
    }
}
