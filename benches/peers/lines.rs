//! What is measured: a table of lines, each with its goal, and the raw limit that it is seen beside.

use crate::loops::Loop;

/// Puts of a burst, before one flush.
pub(crate) const BURST: usize = 64;
/// Blocks of a line in one start of the ranks.
const BLOCKS: u32 = 3;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Where the two ranks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// On one host, each on a cpu of its own.
    Host,
    /// On two nodes that have only TCP between them.
    Nodes,
}

/// What Windlass is to reach against the best of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// At most this part of the best time.
    Time(f64),
    /// At least this part of the best bandwidth.
    Bandwidth(f64),
    /// The target never has to call in.
    NeverWaits,
    /// None: a point of a curve, or a raw limit.
    None,
}

/// How a value is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Time of one operation.
    Time,
    /// Bytes over time.
    Bandwidth,
}

/// Which program measures a line, and where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Compared in the table.
    Compared,
    /// A point of a picture, compared too.
    Curve,
    /// A limit of the machine; Windlass's program measures it.
    Raw,
    /// Not a loop: the time from a command to the first barrier of its ranks.
    Start,
}

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// What `--only` names.
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) place: Place,
    pub(crate) role: Role,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
    pub(crate) timed: Loop,
    /// Operations of one iteration.
    pub(crate) operations: usize,
    /// The key of the raw limit, and how many of it one operation corresponds to.
    pub(crate) raw: Option<(String, f64)>,
}

impl Line {
    fn new(key: &str, title: &str, name: &str, size: usize, iterations: usize) -> Self {
        let is_burst = name == "put-bw";
        Self {
            key: key.into(),
            title: title.into(),
            place: Place::Host,
            role: Role::Compared,
            unit: Unit::Time,
            goal: Goal::None,
            timed: Loop {
                number: 0,
                name: name.into(),
                window: "allocate".into(),
                sync: "flush".into(),
                way: "plain".into(),
                size,
                iterations: iterations as u64,
                blocks: BLOCKS,
            },
            operations: if is_burst { BURST } else { 1 },
            raw: None,
        }
    }

    fn sync(mut self, sync: &str) -> Self {
        self.timed.sync = sync.into();
        self
    }

    fn created(mut self) -> Self {
        self.timed.window = "create".into();
        self
    }

    fn way(mut self, way: &str) -> Self {
        self.timed.way = way.into();
        self
    }

    fn nodes(mut self) -> Self {
        self.place = Place::Nodes;
        self
    }

    fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    fn goal(mut self, goal: Goal) -> Self {
        self.goal = goal;
        self
    }

    fn over(mut self, raw: &str, parts: f64) -> Self {
        self.raw = Some((raw.into(), parts));
        self
    }

    fn bandwidth(mut self) -> Self {
        self.unit = Unit::Bandwidth;
        self
    }
}

/// As users write sizes: 8, 4K, 1M.
pub(crate) fn short(size: usize) -> String {
    match size {
        0 => "0".into(),
        _ if size.is_multiple_of(MIB) => format!("{}M", size / MIB),
        _ if size.is_multiple_of(KIB) => format!("{}K", size / KIB),
        _ => size.to_string(),
    }
}

/// `8 B`, `4 KiB`, `1 MiB`.
pub(crate) fn long(size: usize) -> String {
    match size {
        0 => "0 B".into(),
        _ if size.is_multiple_of(MIB) => format!("{} MiB", size / MIB),
        _ if size.is_multiple_of(KIB) => format!("{} KiB", size / KIB),
        _ => format!("{size} B"),
    }
}

/// Iterations that move this many bytes, within limits.
fn fill(bytes: usize, each: usize, limits: [usize; 2]) -> usize {
    (bytes / each).clamp(limits[0], limits[1])
}

fn latency_iterations(size: usize) -> usize {
    fill(32 * MIB, size, [8, 20_000])
}

fn burst_iterations(size: usize) -> usize {
    fill(64 * MIB, BURST * size, [1, 1_000])
}

/// All lines, numbered: those of one host, of two nodes, then what comes last because it makes many windows.
pub(crate) fn all() -> Vec<Line> {
    let mut lines = raw();
    lines.extend(one_host());
    lines.extend(created());
    lines.extend(curves());
    lines.extend(nodes());
    lines.extend(windows());
    for (number, line) in lines.iter_mut().enumerate() {
        line.timed.number = number;
    }
    lines
}

/// The limits of the machine.
fn raw() -> Vec<Line> {
    let raw = |key: &str, title: &str, size| {
        Line::new(key, title, key, size, 1)
            .role(Role::Raw)
            .goal(Goal::None)
    };
    let mut lines = vec![
        raw("raw-store", "a store", 8),
        raw("raw-add", "a locked add", 8),
        raw("raw-swap", "a locked compare-exchange", 8),
        raw("raw-contended", "a locked add, both contended", 8),
        raw("raw-hop", "a cache line's round trip", 8),
    ];
    for size in BANDWIDTH_SIZES.into_iter().chain(CURVE_SIZES) {
        let (key, title) = (
            format!("raw-memcpy-{}", short(size)),
            format!("memcpy, {}", long(size)),
        );
        if lines.iter().all(|line| line.key != key) {
            lines.push(Line {
                timed: Loop {
                    name: "raw-memcpy".into(),
                    ..raw(&key, &title, size).timed
                },
                ..raw(&key, &title, size).bandwidth()
            });
        }
    }
    lines.push(raw("raw-tcp", "a TCP round trip, both spin", 8).nodes());
    lines.push(raw("raw-tcp-sleeper", "a TCP round trip, the target sleeps", 8).nodes());
    for size in STREAM_SIZES {
        let (key, title) = (
            format!("raw-stream-{}", short(size)),
            format!("a TCP stream, {}", long(size)),
        );
        let line = raw(&key, &title, size).nodes().bandwidth();
        let timed = Loop {
            name: "raw-stream".into(),
            ..line.timed
        };
        lines.push(Line { timed, ..line });
    }
    lines
}

const BANDWIDTH_SIZES: [usize; 6] = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];
const CREATED_SIZES: [usize; 4] = [KIB, 4 * KIB, 64 * KIB, MIB];
const STREAM_SIZES: [usize; 3] = [4 * KIB, 64 * KIB, MIB];
const CURVE_SIZES: [usize; 9] = [
    64,
    256,
    KIB,
    4 * KIB,
    16 * KIB,
    64 * KIB,
    256 * KIB,
    MIB,
    4 * MIB,
];

fn one_host() -> Vec<Line> {
    let third = Goal::Time(1.0 / 3.0);
    let mut lines = vec![
        Line::new("put", "put + flush, 8 B", "put-latency", 8, 20_000)
            .goal(third)
            .over("raw-store", 1.0),
        Line::new("get", "get + flush, 8 B", "get-latency", 8, 20_000)
            .goal(third)
            .over("raw-store", 1.0),
        Line::new("rate", "64 puts of 8 B + flush, each", "put-bw", 8, 1_000)
            .goal(third)
            .over("raw-store", 1.0),
        Line::new("fop", "fetch_and_op", "fop-latency", 8, 10_000)
            .goal(Goal::Time(0.5))
            .over("raw-add", 1.0),
        Line::new("cas", "compare_and_swap", "cas-latency", 8, 10_000)
            .goal(Goal::Time(0.5))
            .over("raw-swap", 1.0),
        Line::new(
            "contended",
            "fetch_and_op, both contended",
            "fop-latency",
            8,
            10_000,
        )
        .way("contended")
        .goal(Goal::Time(0.5))
        .over("raw-contended", 1.0),
        Line::new("fence", "fence", "sync-latency", 0, 4_000)
            .sync("fence")
            .goal(Goal::Time(0.6))
            .over("raw-hop", 0.5),
        Line::new("pscw", "PSCW round, put of 8 B", "put-latency", 8, 4_000)
            .sync("pscw")
            .goal(Goal::Time(0.75))
            .over("raw-hop", 1.0),
        Line::new("lock", "lock, put of 8 B, unlock", "put-latency", 8, 10_000)
            .sync("lock")
            .goal(Goal::Time(2.0 / 3.0))
            .over("raw-add", 2.0),
        Line::new(
            "busy",
            "put + flush, 8 B, target computes",
            "put-latency",
            8,
            10_000,
        )
        .way("computes")
        .goal(Goal::Time(0.5))
        .over("raw-store", 1.0),
        Line::new("start", "start-up of 2 ranks to a barrier", "start", 0, 1)
            .role(Role::Start)
            .goal(Goal::Time(0.5)),
    ];
    lines.extend(BANDWIDTH_SIZES.map(|size| {
        let (key, title) = (
            format!("bw-{}", short(size)),
            format!("bandwidth of puts, {}", long(size)),
        );
        Line::new(&key, &title, "put-bw", size, burst_iterations(size))
            .bandwidth()
            .goal(Goal::Bandwidth(1.0))
            .over(&format!("raw-memcpy-{}", short(size)), 1.0)
    }));
    lines
}

/// Over memory that the program lends.
fn created() -> Vec<Line> {
    let mut lines = vec![
        Line::new("lent-8", "lent: put + flush, 8 B", "put-latency", 8, 4_000)
            .goal(Goal::Time(0.1))
            .over("raw-store", 1.0)
            .created(),
        Line::new(
            "lent-busy",
            "lent: the same, target computes",
            "put-latency",
            8,
            1_000,
        )
        .way("computes")
        .goal(Goal::NeverWaits)
        .over("raw-store", 1.0)
        .created(),
    ];
    lines.extend(CREATED_SIZES.map(|size| {
        let (key, title) = (
            format!("lent-{}", short(size)),
            format!("lent: put + flush, {}", long(size)),
        );
        Line::new(
            &key,
            &title,
            "put-latency",
            size,
            latency_iterations(size).min(4_000),
        )
        .goal(Goal::Time(0.5))
        .over(&format!("raw-memcpy-{}", short(size)), 1.0)
        .created()
    }));
    lines
}

/// What the pictures need besides.
fn curves() -> Vec<Line> {
    let latency = CURVE_SIZES.map(|size| {
        let (key, title) = (
            format!("curve-latency-{}", short(size)),
            format!("put + flush, {}", long(size)),
        );
        Line::new(&key, &title, "put-latency", size, latency_iterations(size))
    });
    let bandwidth = CURVE_SIZES
        .into_iter()
        .filter(|size| !BANDWIDTH_SIZES.contains(size));
    let bandwidth = bandwidth.map(|size| {
        let (key, title) = (
            format!("curve-bw-{}", short(size)),
            format!("bandwidth of puts, {}", long(size)),
        );
        Line::new(&key, &title, "put-bw", size, burst_iterations(size)).bandwidth()
    });
    let lines = latency.into_iter().chain(bandwidth);
    lines.map(|line| line.role(Role::Curve)).collect()
}

/// Over lent memory: some peers allocate windows of processes on one machine in memory that these share, whatever
/// network they are told to use.
fn nodes() -> Vec<Line> {
    let mut lines = vec![
        Line::new("tcp-put", "TCP: put + flush, 8 B", "put-latency", 8, 200)
            .goal(Goal::Time(0.85))
            .over("raw-tcp", 1.0),
        Line::new(
            "tcp-rate",
            "TCP: 64 puts of 8 B + flush, each",
            "put-bw",
            8,
            50,
        )
        .goal(Goal::Time(1.0))
        .over("raw-tcp", 1.0 / BURST as f64),
        Line::new(
            "tcp-lock",
            "TCP: lock, put of 8 B, unlock",
            "put-latency",
            8,
            100,
        )
        .sync("lock")
        .goal(Goal::Time(0.5))
        .over("raw-tcp", 1.0),
    ];
    lines.extend(STREAM_SIZES.map(|size| {
        let (key, title) = (
            format!("tcp-bw-{}", short(size)),
            format!("TCP: bandwidth of puts, {}", long(size)),
        );
        Line::new(
            &key,
            &title,
            "put-bw",
            size,
            fill(16 * MIB, BURST * size, [1, 16]),
        )
        .bandwidth()
        .goal(Goal::Bandwidth(1.0))
        .over(&format!("raw-stream-{}", short(size)), 1.0)
    }));
    lines
        .into_iter()
        .map(|line| line.nodes().created())
        .collect()
}

fn windows() -> Vec<Line> {
    let allocated = [4 * KIB, MIB].map(|size| {
        let (key, title) = (
            format!("window-{}", short(size)),
            format!("window made and freed, {}", long(size)),
        );
        Line::new(&key, &title, "window-create", size, 100)
    });
    let lent = Line::new(
        "window-lent",
        "window made and freed, 4 KiB lent",
        "window-create",
        4 * KIB,
        100,
    );
    let lines = allocated.into_iter().chain([lent.created()]);
    lines.map(|line| line.goal(Goal::Time(1.0))).collect()
}

/// The lines whose keys begin with one of `only`, and the raw limits that they are seen beside; all if there is none.
///
/// # Errors
/// A word that no key begins with, with the keys there are.
pub(crate) fn chosen(only: &[String]) -> Result<Vec<Line>, String> {
    let lines = all();
    if let Some(word) = only
        .iter()
        .find(|word| !lines.iter().any(|line| line.key.starts_with(word.as_str())))
    {
        let keys: Vec<&str> = lines.iter().map(|line| line.key.as_str()).collect();
        return Err(format!(
            "there is no line {word}; give one of these, or what it begins with: {}",
            keys.join(", ")
        ));
    }
    if only.is_empty() {
        return Ok(lines);
    }
    let named = |line: &Line| only.iter().any(|word| line.key.starts_with(word.as_str()));
    let beside: Vec<String> = lines
        .iter()
        .filter(|line| named(line))
        .filter_map(|line| line.raw.as_ref().map(|raw| raw.0.clone()))
        .collect();
    let chosen = lines
        .into_iter()
        .filter(|line| named(line) || beside.contains(&line.key));
    Ok(chosen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_unique_and_raw_limits_exist_at_the_same_place() {
        let lines = all();
        let keys: BTreeSet<&str> = lines.iter().map(|line| line.key.as_str()).collect();
        assert_eq!(keys.len(), lines.len());
        for line in &lines {
            let Some((raw, _)) = &line.raw else { continue };
            let raw = lines.iter().find(|other| other.key == *raw);
            let raw = raw.unwrap_or_else(|| panic!("{}: no raw limit", line.key));
            assert_eq!(raw.place, line.place, "{}", line.key);
            assert_eq!(raw.role, Role::Raw);
        }
    }

    #[test]
    fn chosen_lines_bring_their_limits_along() {
        let keys = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&word| word.into()).collect();
            chosen(&only).map(|lines| lines.into_iter().map(|line| line.key).collect::<Vec<_>>())
        };
        assert_eq!(keys(&["fop"]).unwrap(), ["raw-add", "fop"]);
        assert_eq!(
            keys(&["bw-1M", "put"]).unwrap(),
            ["raw-store", "raw-memcpy-1M", "put", "bw-1M"]
        );
        assert_eq!(keys(&[]).unwrap().len(), all().len());
        assert!(keys(&["nothing"]).unwrap_err().contains("lent-8"));
    }
}
