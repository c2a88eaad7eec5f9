//! The layer rules of the README, read from cargo's own metadata and from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Lines of a file without its tests, and of a function.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// Which packages of the workspace a package may depend on.
const EDGES: [(&str, &[&str]); 17] = [
    ("windlass-abi", &[]),
    ("windlass-mem", &[]),
    ("windlass-wire", &[]),
    ("windlass-ve", &["windlass-mem"]),
    ("windlass-rsm", &["windlass-mem", "windlass-dat"]),
    ("windlass-dat", &["windlass-mem", "windlass-wire"]),
    (
        "windlass-node",
        &[
            "windlass-mem",
            "windlass-wire",
            "windlass-ve",
            "windlass-rsm",
        ],
    ),
    (
        "windlass-runtime",
        &[
            "windlass-mem",
            "windlass-wire",
            "windlass-node",
            "windlass-ve",
            "windlass-rsm",
            "windlass-dat",
            "windlass-native",
        ],
    ),
    (
        "windlass-sysve",
        &[
            "windlass-abi",
            "windlass-mem",
            "windlass-node",
            "windlass-ve",
        ],
    ),
    ("windlass-native", &["windlass-abi", "windlass-mem"]),
    (
        "windlass-librsm",
        &[
            "windlass-abi",
            "windlass-mem",
            "windlass-node",
            "windlass-rsm",
        ],
    ),
    (
        "windlass-dapl",
        &[
            "windlass-abi",
            "windlass-mem",
            "windlass-wire",
            "windlass-dat",
        ],
    ),
    (
        "windlass-veo",
        &[
            "windlass-abi",
            "windlass-mem",
            "windlass-wire",
            "windlass-node",
            "windlass-ve",
        ],
    ),
    ("windlass-derive", &[]),
    ("windlass-plot", &[]),
    (
        "windlass",
        &["windlass-runtime", "windlass-mem", "windlass-derive"],
    ),
    (
        "windlass-launcher",
        &[
            "windlass-mem",
            "windlass-native",
            "windlass-wire",
            "windlass-node",
            "windlass-ve",
            "windlass-runtime",
        ],
    ),
];

/// The package that owns tests, benches and examples: anything public.
const ROOT: &str = "windlass-workspace";

/// Files that may hold `unsafe`, beside the whole of `runtime/mem`.
const UNSAFE: [&str; 10] = [
    // One-sided calls of MPI, for which rsmpi has no safe form; built with the feature `mpi` only.
    "benches/rsmpi/calls.rs",
    "launcher/src/spawn.rs",
    "rma/src/raw.rs",
    "rma/src/element.rs",
    "rma/tests/raw.rs",
    "tests/checklist.rs",
    "tests/differential/raw.rs",
    "tests/native.rs",
    "tests/states.rs",
    "tests/support/line.rs",
];

/// Folders all of whose files may.
const UNSAFE_FOLDERS: [&str; 5] = [
    "runtime/mem/src/",
    // Types of functions that are unsafe to call.
    "runtime/abi/src/",
    "runtime/capi/",
    "runtime/native/src/",
    "rma/src/raw/",
];

/// Crate heads that may not say `forbid`, because one of their files is in the list above.
const DENY: [&str; 5] = [
    "launcher/src/lib.rs",
    "rma/src/lib.rs",
    "runtime/capi/veo/src/aveorun/main.rs",
    "runtime/mem/src/lib.rs",
    "runtime/native/src/lib.rs",
];

/// Files of `runtime/src` that may import the machines, beside `transport/`.
const MACHINES: [&str; 4] = [
    "runtime/src/arena.rs",
    "runtime/src/region.rs",
    // The configuration of a node that this process hosts itself.
    "runtime/src/job.rs",
    "runtime/src/environment.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A source file: its path below the root, with `/`, and its lines.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// Is the whole file a test?
    fn is_test(&self) -> bool {
        let mut folders = self.path.split('/');
        folders.any(|part| part == "tests" || part == "tests.rs")
    }

    /// The lines before the unit tests, which stand at the end of a file (architecture 11).
    fn code(&self) -> &[String] {
        let end = self
            .lines
            .iter()
            .position(|line| line.trim() == "#[cfg(test)]");
        &self.lines[..end.unwrap_or(self.lines.len())]
    }

    /// Code lines with their numbers, without comments and doc comments.
    fn plain(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code().iter().enumerate();
        lines.map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }
}

/// Every Rust source below a folder.
fn sources(below: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(below), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(dir: &Path, into: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, into);
            }
        } else if name.ends_with(".rs") {
            let lines = fs::read_to_string(&path).expect("a source is UTF-8");
            let lines = lines.lines().map(str::to_owned).collect();
            let path = path
                .strip_prefix(root())
                .expect("below the root")
                .to_string_lossy();
            into.push(Source {
                path: path.replace('\\', "/"),
                lines,
            });
        }
    }
}

fn everything() -> Vec<Source> {
    let folders = ["runtime", "rma", "launcher", "tests", "benches", "examples"];
    folders.into_iter().flat_map(sources).collect()
}

#[track_caller]
fn none(offenders: &[String], rule: &str) {
    assert!(
        offenders.is_empty(),
        "{rule}:\n  {}",
        offenders.join("\n  ")
    );
}

#[test]
fn packages_depend_only_downwards() {
    let metadata = metadata();
    let packages = metadata["packages"]
        .as_array()
        .expect("cargo lists packages");
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    let names: BTreeSet<&str> = packages
        .iter()
        .map(|package| text(package, "name"))
        .collect();
    let mut offenders = Vec::new();
    for package in packages {
        let name = text(package, "name");
        if name == ROOT {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            offenders.push(format!(
                "{name} is in no layer: add it to tests/layers.rs and the README"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = text(dependency, "name");
            // What tests of a package use does not reach its users.
            let is_test = text(dependency, "kind") == "dev";
            if names.contains(to) && !allowed.contains(&to) && !is_test {
                offenders.push(format!("{name} -> {to}"));
            }
        }
    }
    none(&offenders, "dependencies against the layers");
    for (name, _) in EDGES {
        assert!(names.contains(name), "there is no package {name}");
    }
}

#[test]
fn packages_have_no_source_outside_their_folder() {
    for package in metadata()["packages"].as_array().into_iter().flatten() {
        let home = PathBuf::from(text(package, "manifest_path"));
        let home = home.parent().expect("a manifest lies in a folder");
        for target in package["targets"].as_array().into_iter().flatten() {
            let source = Path::new(text(target, "src_path"));
            assert!(
                source.starts_with(home),
                "{} is outside {}",
                source.display(),
                home.display()
            );
        }
    }
}

/// Does a line of code use the keyword?
fn is_unsafe(line: &str) -> bool {
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| word == "unsafe")
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let mut offenders = Vec::new();
    for source in everything() {
        let folder = |folder: &&str| source.path.starts_with(*folder);
        let may = UNSAFE_FOLDERS.iter().any(folder) || UNSAFE.contains(&&*source.path);
        for (number, line) in source.lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            // A word in a text is no keyword.
            if !may && is_unsafe(code) && !code.contains('"') {
                offenders.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none(&offenders, "unsafe where it may not stand");
}

#[test]
fn every_unsafe_block_has_its_proof() {
    let mut offenders = Vec::new();
    for source in everything() {
        for (number, line) in source.lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = code.contains("unsafe {") || code.contains("unsafe impl");
            let above = source.lines[..number].iter().rev();
            let mut comment = above.take_while(|line| {
                let line = line.trim();
                line.starts_with("//")
                    || line.starts_with("#[")
                    || line.ends_with('=')
                    || line.ends_with('(')
                    || line.ends_with("=>")
            });
            let proof = line.contains("SAFETY:") || comment.any(|line| line.contains("SAFETY:"));
            if opens && !code.contains('"') && !proof {
                offenders.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none(&offenders, "unsafe without a SAFETY comment");
}

#[test]
fn other_crates_forbid_unsafe_at_their_head() {
    let mut offenders = Vec::new();
    for package in metadata()["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let is_lib = target["kind"]
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib" || kind == "bin"));
            let path = Path::new(text(target, "src_path"));
            let path = path
                .strip_prefix(root())
                .expect("below the root")
                .to_string_lossy()
                .into_owned();
            if !is_lib || DENY.contains(&&*path) || text(package, "name") == ROOT {
                continue;
            }
            let head = fs::read_to_string(root().join(&path)).expect("a crate's head can be read");
            if !head
                .lines()
                .any(|line| line.trim() == "#![forbid(unsafe_code)]")
            {
                offenders.push(path);
            }
        }
    }
    none(&offenders, "crate heads without #![forbid(unsafe_code)]");
    for path in DENY
        .into_iter()
        .filter(|path| *path != "runtime/mem/src/lib.rs")
    {
        let head = fs::read_to_string(root().join(path)).expect("a crate's head can be read");
        assert!(
            head.contains("#![deny(unsafe_code)]"),
            "{path} must deny unsafe_code"
        );
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("it can be read");
    assert!(
        workspace.contains("unsafe_code = \"deny\""),
        "the workspace must deny unsafe_code"
    );
}

#[test]
fn only_transports_arena_and_region_know_the_machines() {
    let mut offenders = Vec::new();
    for source in sources("runtime/src") {
        let may =
            source.path.starts_with("runtime/src/transport/") || MACHINES.contains(&&*source.path);
        for (number, line) in source.plain() {
            let imports = [
                "windlass_ve",
                "windlass_rsm",
                "windlass_dat",
                "windlass_native",
            ]
            .iter()
            .any(|name| line.contains(name));
            if imports && !may {
                offenders.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none(
        &offenders,
        "machines imported outside transport/, arena.rs, region.rs",
    );
}

#[test]
fn machines_know_no_window_and_no_epoch() {
    let mut offenders = Vec::new();
    for folder in [
        "runtime/mem/src",
        "runtime/wire/src",
        "runtime/ve/src",
        "runtime/rsm/src",
        "runtime/dat/src",
    ] {
        for source in sources(folder) {
            for (number, line) in source.plain() {
                let types = ["WindowName", "Epoch", "Rank", "World"];
                let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
                if words.any(|word| types.contains(&word)) {
                    offenders.push(format!("{}:{number}: {}", source.path, line.trim()));
                }
            }
        }
    }
    none(&offenders, "ranks, windows or epochs below runtime");
}

#[test]
fn rma_names_no_mechanism() {
    const NAMES: [&str; 8] = [
        "rsm", "veshm", "vhshm", "udapl", "cma", "veo", "dmaatb", "ofi",
    ];
    let mut offenders = Vec::new();
    for source in sources("rma/src") {
        for (number, line) in source.lines.iter().enumerate() {
            let lower = line.to_lowercase();
            let mut words = lower.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| NAMES.contains(&word)) {
                offenders.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none(&offenders, "mechanisms named in rma");
}

#[test]
fn the_launcher_and_the_runtime_do_not_know_rma() {
    let mut offenders = Vec::new();
    for source in sources("runtime")
        .into_iter()
        .chain(sources("launcher/src"))
    {
        for (number, line) in source.plain() {
            if line.contains("windlass::") || line.contains("use windlass;") {
                offenders.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none(&offenders, "the crate windlass used below itself");
}

#[test]
fn what_benchmarks_have_in_common_is_for_them_alone() {
    let mut offenders = Vec::new();
    let mut users = 0;
    for source in everything() {
        let own = source.path.starts_with("benches/");
        // Not `plain`: a test may no more use it than what is tested.
        let named = source.lines.iter().enumerate();
        for (number, line) in named.filter(|(_, line)| line.contains("windlass_bench::")) {
            users += usize::from(own);
            if !own && source.path != "tests/layers.rs" {
                offenders.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(users > 0, "the benchmarks do not use it");
    none(&offenders, "the benchmarks' library used elsewhere");
}

/// The map of the README: the text block after the heading.
fn map() -> String {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let section = readme
        .split("\n## Map\n")
        .nth(1)
        .expect("the README has a map");
    let block = section.split("```").nth(1).expect("the map is a block");
    block.to_owned()
}

#[test]
fn the_readme_maps_every_source_folder() {
    let map = map();
    let mut folders: BTreeSet<String> = BTreeSet::new();
    for source in everything() {
        let folder = source
            .path
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        folders.insert(folder.to_owned());
    }
    let mut offenders = Vec::new();
    for folder in folders {
        // The map nests: it names `mem/` below `runtime/`. A package's own src/ needs no line,
        // nor have the support and program folders of tests and examples.
        let name = folder.strip_suffix("/src").unwrap_or(&folder);
        let last = name.rsplit('/').next().unwrap_or(name);
        let inner = ["tests/", "examples/"];
        let helper = inner.iter().any(|part| name.starts_with(part))
            || name.contains("/tests/")
            || name.ends_with("/tests");
        if !helper && !map.contains(&format!("{last}/")) {
            offenders.push(folder);
        }
    }
    none(&offenders, "folders that the README's map does not name");
}

#[test]
fn the_readme_maps_nothing_that_is_not_there() {
    let mut offenders = Vec::new();
    let mut parents: Vec<(usize, PathBuf)> = vec![(0, root().to_owned())];
    for line in map().lines().skip(1) {
        let depth = line.len() - line.trim_start().len();
        let Some(name) = line.split_whitespace().next() else {
            continue;
        };
        while parents.len() > 1 && parents.last().is_some_and(|(above, _)| *above >= depth) {
            parents.pop();
        }
        let above = if depth == 0 {
            root()
        } else {
            &parents[parents.len() - 1].1
        };
        let path = above.join(name);
        if !path.exists() {
            offenders.push(line.trim().to_owned());
        }
        parents.push((depth, path));
    }
    none(
        &offenders,
        "lines of the README's map without a file or folder",
    );
}

#[test]
fn files_of_the_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let quoted = readme.split('`').skip(1).step_by(2);
    let files =
        quoted.filter(|word| word.ends_with(".rs") && word.contains('/') && !word.contains('<'));
    let missing: Vec<String> = files
        .filter(|file| !root().join(file).exists())
        .map(str::to_owned)
        .collect();
    none(&missing, "files the README names and that are not there");
}

/// The way of a put, as the README tells it: at most five files (issue 2, done when 8).
#[test]
fn a_put_passes_at_most_five_files() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let section = readme
        .split("### How a put travels")
        .nth(1)
        .expect("the README tells it");
    let section = section.split("\n## ").next().unwrap_or_default();
    let files: BTreeSet<&str> = section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.ends_with(".rs"))
        .collect();
    assert!((1..=5).contains(&files.len()), "{files:?}");
}

#[test]
fn files_are_short() {
    let mut offenders = Vec::new();
    for source in everything() {
        let lines = source.code().len();
        if !source.is_test() && lines > FILE_LINES {
            offenders.push(format!("{}: {lines} lines", source.path));
        }
    }
    none(&offenders, "files above 500 lines without their tests");
}

#[test]
fn functions_are_short() {
    let mut offenders = Vec::new();
    for source in everything().into_iter().filter(|source| !source.is_test()) {
        let code = source.code();
        for (start, line) in code.iter().enumerate() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            let is_function = trimmed.split_whitespace().take(5).any(|word| word == "fn")
                && !trimmed.starts_with("//");
            if !is_function {
                continue;
            }
            // rustfmt puts the closing brace at the indentation of the opening line.
            let closing = format!("{}}}", " ".repeat(indent));
            let end = code[start..].iter().position(|line| *line == closing);
            let semicolon = code[start..]
                .iter()
                .position(|line| line.trim_end().ends_with(';'));
            let Some(end) = end else { continue };
            let is_declaration = semicolon.is_some_and(|at| {
                at < end
                    && !code[start..=start + at]
                        .iter()
                        .any(|line| line.contains('{'))
            });
            if !is_declaration && end + 1 > FUNCTION_LINES {
                offenders.push(format!("{}:{}: {} lines", source.path, start + 1, end + 1));
            }
        }
    }
    none(&offenders, "functions above 70 lines");
}

#[test]
fn nothing_is_left_to_be_done() {
    let mut offenders = Vec::new();
    for source in everything()
        .into_iter()
        .filter(|source| source.path != "tests/layers.rs")
    {
        for (number, line) in source.lines.iter().enumerate() {
            if ["todo!(", "unimplemented!(", "FIXME", "XXX"]
                .iter()
                .any(|word| line.contains(word))
            {
                offenders.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none(&offenders, "unfinished places");
}
