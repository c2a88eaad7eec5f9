//! Packages, NUMA nodes and cores of this machine, and which of them each rank is bound to.
//!
//! Relies on: sysfs, and the affinity mask of the calling thread; with the feature `hwloc` on
//! hwloc instead, which honours `HWLOC_SYNTHETIC` and `HWLOC_XMLFILE`.
//! Promises: only processors this process may use are listed; a machine without sysfs is one
//! package with one NUMA node and one core per allowed processor. Binding is a pure function.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::thread::CpuSet;
use serde::Serialize;

/// Logical processors by their system number, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Cpus(BTreeSet<u32>);

impl From<Cpus> for String {
    fn from(cpus: Cpus) -> String {
        cpus.to_string()
    }
}

impl FromIterator<u32> for Cpus {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Cpus {
        Cpus(cpus.into_iter().collect())
    }
}

impl std::fmt::Display for Cpus {
    /// As the kernel writes lists: `0-3,8`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for &cpu in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => runs.push((cpu, cpu)),
            }
        }
        for (i, (first, last)) in runs.into_iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Cpus {
    /// Parses a list as the kernel writes it; what is not a list gives none.
    fn parse(text: &str) -> Option<Cpus> {
        let mut cpus = BTreeSet::new();
        for run in text.trim().split(',').filter(|run| !run.is_empty()) {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            if last as usize >= CpuSet::MAX_CPU {
                return None;
            }
            cpus.extend(first..=last);
        }
        Some(Cpus(cpus))
    }

    /// Number of processors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No processor at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn only(&self, allowed: &Cpus) -> Cpus {
        Cpus(self.0.intersection(&allowed.0).copied().collect())
    }

    /// As the system call wants it.
    pub(crate) fn mask(&self) -> CpuSet {
        let mut mask = CpuSet::new();
        self.0
            .iter()
            .filter(|&&cpu| (cpu as usize) < CpuSet::MAX_CPU)
            .for_each(|&cpu| mask.set(cpu as usize));
        mask
    }
}

/// A core, with its hardware threads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Core {
    /// Package number.
    pub package: u32,
    /// NUMA node number.
    pub numa: u32,
    /// Its allowed processors.
    pub cpus: Cpus,
}

/// The machine as this process may use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Where it was read: `sysfs`, `hwloc`, or `hwloc (synthetic or from a file)`.
    pub source: &'static str,
    /// It describes the machine we run on, so ranks can be bound by it.
    pub real: bool,
    /// NUMA nodes: number and allowed processors.
    pub numa: Vec<(u32, Cpus)>,
    /// Cores by package, NUMA node and first processor.
    pub cores: Vec<Core>,
}

/// `--bind-to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// Ranks run where the system puts them.
    #[default]
    None,
    /// One core each, in turn.
    Core,
    /// One NUMA node each, neighbouring ranks together.
    Numa,
}

/// Where one rank is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The allowed processors.
    pub cpus: Cpus,
    /// In words: `package 0, core 1`.
    pub name: String,
}

impl Topology {
    /// The machine: by hwloc where this launcher was built with it, else from sysfs.
    pub fn discover() -> Topology {
        #[cfg(feature = "hwloc")]
        match hwloc::discover() {
            Some(topology) => return topology,
            None => tracing::warn!("hwloc could not describe this machine; reading sysfs"),
        }
        Topology::from_sysfs(Path::new("/sys/devices/system"), &allowed())
    }

    /// Reads `cpu/` and `node/` below `root`; processors that are not in `allowed` are left out.
    pub fn from_sysfs(root: &Path, allowed: &Cpus) -> Topology {
        let list = |path: String| {
            fs::read_to_string(root.join(path))
                .ok()
                .and_then(|text| Cpus::parse(&text))
        };
        let value = |path: String| {
            fs::read_to_string(root.join(path))
                .ok()
                .and_then(|text| text.trim().parse::<u32>().ok())
        };
        let online = list("cpu/online".into())
            .unwrap_or_else(|| allowed.clone())
            .only(allowed);

        let nodes = list("node/online".into()).unwrap_or_default();
        let numa = nodes.0.iter().filter_map(|&node| {
            let cpus = list(format!("node/node{node}/cpulist"))?.only(&online);
            (!cpus.is_empty()).then_some((node, cpus))
        });
        let mut numa: Vec<(u32, Cpus)> = numa.collect();
        if numa.is_empty() {
            numa.push((0, online.clone()));
        }
        let numa_of = |cpu: u32| {
            numa.iter()
                .find(|(_, cpus)| cpus.0.contains(&cpu))
                .map_or(0, |(node, _)| *node)
        };

        let core_of = |&cpu: &u32| {
            let threads = list(format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
            let cpus = threads.unwrap_or_default().only(&online);
            // Threads of a core report the same list; a machine that does not say has one each.
            let cpus = if cpus.0.contains(&cpu) {
                cpus
            } else {
                Cpus::from_iter([cpu])
            };
            let package = value(format!("cpu/cpu{cpu}/topology/physical_package_id")).unwrap_or(0);
            Core {
                package,
                numa: numa_of(cpu),
                cpus,
            }
        };
        let cores: BTreeSet<Core> = online.0.iter().map(core_of).collect();
        Topology {
            source: "sysfs",
            real: true,
            numa,
            cores: cores.into_iter().collect(),
        }
    }

    /// Number of packages.
    pub fn packages(&self) -> usize {
        self.cores
            .iter()
            .map(|core| core.package)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// All allowed processors.
    pub fn cpus(&self) -> Cpus {
        self.cores
            .iter()
            .flat_map(|core| core.cpus.0.iter().copied())
            .collect()
    }

    /// Where each of `ranks` ranks of this machine is bound; none for [`Bind::None`].
    pub fn bind(&self, bind: Bind, ranks: u32) -> Vec<Option<Binding>> {
        let one = |rank: usize| match bind {
            Bind::None => None,
            Bind::Core => {
                let index = rank % self.cores.len();
                let core = &self.cores[index];
                let name = format!("package {}, core {index}", core.package);
                Some(Binding {
                    cpus: core.cpus.clone(),
                    name,
                })
            }
            Bind::Numa => {
                // Neighbouring ranks talk most: blocks of them share a NUMA node.
                let (node, cpus) = &self.numa[rank * self.numa.len() / ranks as usize];
                Some(Binding {
                    cpus: cpus.clone(),
                    name: format!("NUMA node {node}"),
                })
            }
        };
        if self.cores.is_empty() || self.numa.is_empty() {
            return vec![None; ranks as usize];
        }
        (0..ranks as usize).map(one).collect()
    }
}

/// Processors the calling thread may run on.
pub fn allowed() -> Cpus {
    match rustix::thread::sched_getaffinity(None) {
        Ok(mask) => (0..CpuSet::MAX_CPU)
            .filter(|&cpu| mask.is_set(cpu))
            .map(|cpu| cpu as u32)
            .collect(),
        Err(_) => {
            let count = std::thread::available_parallelism().map_or(1, usize::from);
            (0..count as u32).collect()
        }
    }
}

#[cfg(feature = "hwloc")]
mod hwloc {
    use super::{Core, Cpus, Topology, allowed};
    use hwlocality::object::TopologyObject;
    use hwlocality::object::types::ObjectType;

    fn cpus(object: &TopologyObject) -> Cpus {
        let set = object.cpuset();
        set.map_or_else(Cpus::default, |set| {
            set.iter_set().map(|cpu| usize::from(cpu) as u32).collect()
        })
    }

    fn number(object: &TopologyObject) -> u32 {
        object.os_index().unwrap_or(0) as u32
    }

    pub(super) fn discover() -> Option<Topology> {
        let found = hwlocality::Topology::new().ok()?;
        let real = found.is_this_system();
        // A synthetic machine has nothing to do with the mask of this process.
        let mask = if real { Some(allowed()) } else { None };
        let only = |cpus: Cpus| mask.as_ref().map_or(cpus.clone(), |mask| cpus.only(mask));
        let numa: Vec<(u32, Cpus)> = found
            .objects_with_type(ObjectType::NUMANode)
            .map(|node| (number(node), only(cpus(node))))
            .filter(|(_, cpus)| !cpus.is_empty())
            .collect();
        let packages: Vec<(u32, Cpus)> = found
            .objects_with_type(ObjectType::Package)
            .map(|p| (number(p), cpus(p)))
            .collect();
        let owner = |of: &[(u32, Cpus)], core: &Cpus| {
            let first = core.0.first().copied();
            let holds = |(_, cpus): &&(u32, Cpus)| first.is_some_and(|cpu| cpus.0.contains(&cpu));
            of.iter().find(holds).map_or(0, |(number, _)| *number)
        };
        let mut cores: Vec<Core> = found
            .objects_with_type(ObjectType::Core)
            .map(|core| only(cpus(core)))
            .filter(|cpus| !cpus.is_empty())
            .map(|cpus| Core {
                package: owner(&packages, &cpus),
                numa: owner(&numa, &cpus),
                cpus,
            })
            .collect();
        cores.sort();
        let source = if real {
            "hwloc"
        } else {
            "hwloc (synthetic or from a file)"
        };
        let usable = !cores.is_empty() && !numa.is_empty();
        usable.then_some(Topology {
            source,
            real,
            numa,
            cores,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two packages, each one NUMA node of two cores with two threads, numbered as Linux does.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: String, text: String| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text + "\n").unwrap();
        };
        write("cpu/online".into(), "0-7".into());
        write("node/online".into(), "0-1".into());
        for node in 0..2 {
            let cpus = format!(
                "{}-{},{}-{}",
                node * 2,
                node * 2 + 1,
                node * 2 + 4,
                node * 2 + 5
            );
            write(format!("node/node{node}/cpulist"), cpus);
        }
        for cpu in 0..8 {
            let base = format!("cpu/cpu{cpu}/topology");
            write(
                format!("{base}/thread_siblings_list"),
                format!("{},{}", cpu % 4, cpu % 4 + 4),
            );
            write(
                format!("{base}/physical_package_id"),
                (cpu % 4 / 2).to_string(),
            );
        }
        root
    }

    fn read(allowed: &str) -> Topology {
        Topology::from_sysfs(machine().path(), &Cpus::parse(allowed).unwrap())
    }

    #[test]
    fn sysfs_is_read_as_packages_nodes_and_cores() {
        let topology = read("0-7");
        assert_eq!(
            (
                topology.packages(),
                topology.numa.len(),
                topology.cores.len()
            ),
            (2, 2, 4)
        );
        assert_eq!(topology.cores[3].cpus.to_string(), "3,7");
        assert_eq!((topology.cores[3].package, topology.cores[3].numa), (1, 1));
        assert_eq!(topology.cpus().to_string(), "0-7");
    }

    #[test]
    fn only_allowed_processors_count() {
        let topology = read("1,4-5");
        assert_eq!(
            (
                topology.packages(),
                topology.numa.len(),
                topology.cores.len()
            ),
            (1, 1, 2)
        );
        assert_eq!(topology.cpus().to_string(), "1,4-5");
    }

    #[test]
    fn a_machine_without_sysfs_is_flat() {
        let empty = tempfile::tempdir().unwrap();
        let topology = Topology::from_sysfs(empty.path(), &Cpus::parse("0-2").unwrap());
        assert_eq!(
            (
                topology.packages(),
                topology.numa.len(),
                topology.cores.len()
            ),
            (1, 1, 3)
        );
    }

    #[test]
    fn cores_are_given_in_turn_and_numa_nodes_in_blocks() {
        let topology = read("0-7");
        let names = |bind, ranks| -> Vec<String> {
            topology
                .bind(bind, ranks)
                .into_iter()
                .map(|b| b.unwrap().cpus.to_string())
                .collect()
        };
        assert_eq!(names(Bind::Core, 5), ["0,4", "1,5", "2,6", "3,7", "0,4"]);
        assert_eq!(
            names(Bind::Numa, 4),
            ["0-1,4-5", "0-1,4-5", "2-3,6-7", "2-3,6-7"]
        );
        assert_eq!(topology.bind(Bind::None, 2), [None, None]);
    }

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for text in ["", "0", "0-3,8", "1,3,5-6"] {
            assert_eq!(Cpus::parse(text).unwrap().to_string(), text);
        }
        for text in ["a", "1-", "-", "0-99999999"] {
            assert_eq!(Cpus::parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!(!Topology::discover().cores.is_empty());
    }
}
