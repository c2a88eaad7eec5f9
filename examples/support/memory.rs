//! How much memory is left, so that a typing mistake ends in a sentence and not in a SIGKILL.

use std::path::Path;

/// Bytes that can still be had: of the system, and of every control group around this process.
/// None where nobody says.
pub(crate) fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok();
    let system = system.and_then(|text| field(&text, "MemAvailable:").map(|kib| kib << 10));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups
        .lines()
        .filter_map(group)
        .filter_map(|(base, path, names)| {
            let path = Path::new(path.trim_start_matches('/'));
            path.ancestors()
                .filter_map(|path| left(&Path::new(base).join(path), names))
                .min()
        });
    system.into_iter().chain(groups).min()
}

/// Files of a control group: its limit, what it uses, and the part of that which it can give back.
type Names = [&'static str; 3];

/// The hierarchy that a line of `/proc/self/cgroup` is about, if it has to do with memory.
fn group(line: &str) -> Option<(&'static str, &str, Names)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    if controllers.is_empty() {
        let names = ["memory.max", "memory.current", "inactive_file"];
        Some(("/sys/fs/cgroup", path, names))
    } else if controllers.split(',').any(|name| name == "memory") {
        let names = [
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ];
        Some(("/sys/fs/cgroup/memory", path, names))
    } else {
        None
    }
}

/// What a control group has left; none without a limit.
fn left(group: &Path, [limit, usage, inactive]: Names) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = number(limit)?;
    let kept = read("memory.stat").and_then(|text| field(&text, inactive));
    let used = number(usage)?.saturating_sub(kept.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut words| {
        let found = words.next() == Some(name);
        words.next().filter(|_| found)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(
            field("MemFree: 1 kB\nMemAvailable:   77 kB", "MemAvailable:"),
            Some(77)
        );
        assert_eq!(
            field("inactive_file_x 3\ninactive_file 5", "inactive_file"),
            Some(5)
        );
        let of = |line| group(line).map(|(base, path, _)| (base, path));
        assert_eq!(of("0::/a:b/c"), Some(("/sys/fs/cgroup", "/a:b/c")));
        assert_eq!(of("4:cpu,memory:/x"), Some(("/sys/fs/cgroup/memory", "/x")));
        assert_eq!(of("5:cpu:/"), None);
        assert_eq!(of("rubbish"), None);
    }

    #[test]
    fn a_group_has_its_limit_less_what_it_cannot_give_back() {
        let folder = std::env::temp_dir().join(format!("wl-group-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let names = group("0::/").unwrap().2;
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "600\n");
        assert_eq!(left(&folder, names), None);
        write("memory.max", "1000\n");
        assert_eq!(left(&folder, names), Some(400));
        write("memory.stat", "anon 9\ninactive_file 100\n");
        assert_eq!(left(&folder, names), Some(500));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
