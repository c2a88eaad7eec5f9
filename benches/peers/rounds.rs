//! Windlass and the peers, started in turn again and again: what the ranks print becomes blocks.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use windlass_bench::job::Failure;
use windlass_mem::MemFile;

use crate::blocks::Block;
use crate::child::{self, Outcome};
use crate::lines::{Line, Place, Role};
use crate::loops::{ARRIVAL, Loop};
use crate::mpi::{self, Family, Mpi, Settings};
use crate::ranks;
use crate::table::Started;
use crate::terminal::Progress;

/// Of one start of ranks that measure all lines, and of one that only tries settings.
const LIMIT: Duration = Duration::from_secs(90);
const TRY_LIMIT: Duration = Duration::from_secs(20);
/// A burst of the tried bandwidth moves so many bytes; at least two warm-ups and a block have to have gone over TCP.
const TRIED_SIZE: usize = 1 << 20;
const TRIED_BYTES: u64 = 3 * 64 * TRIED_SIZE as u64;

/// Behind the name of a library that is measured from Rust.
const FROM_RUST: &str = " (Rust)";

/// Puts that are looked for at the target, by size: how often.
const ARRIVALS: [(usize, u32); 4] = [(8, 100), (1 << 10, 50), (1 << 16, 50), (1 << 20, 10)];

/// The command that starts Windlass's ranks.
pub(crate) struct Own {
    pub(crate) launcher: PathBuf,
    pub(crate) program: PathBuf,
}

/// A peer that is ready to run.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) mpi: Mpi,
    family: Family,
    program: PathBuf,
    pub(crate) label: String,
    /// What it is told from other programs of the library by.
    suffix: &'static str,
    /// The best settings on one host, and between nodes; none where nothing worked.
    pub(crate) settings: [Option<Settings>; 2],
}

/// Everything that is started, and what has come of it.
pub(crate) struct Rounds {
    own: Own,
    pub(crate) peers: Vec<Peer>,
    /// The page that both ranks of a peer map for the hop.
    page: MemFile,
    pub(crate) cpus: [u32; 2],
    pub(crate) blocks: Vec<Block>,
    pub(crate) remarks: Vec<String>,
}

impl Rounds {
    /// Windlass alone; its ranks say which cpus they are on.
    pub(crate) fn new(own: Own) -> Result<Self, Failure> {
        let mut rounds = Self {
            own,
            peers: Vec::new(),
            page: MemFile::create("windlass-peers", 4096)?,
            cpus: [0; 2],
            blocks: Vec::new(),
            remarks: Vec::new(),
        };
        let outcome = child::run(&mut rounds.windlass(Place::Host, &[]), TRY_LIMIT);
        let cpus = outcome.after("cpus").unwrap_or_default().to_owned();
        let mut cpus = cpus.split(' ').map_while(|cpu| cpu.parse().ok());
        match (outcome.failure, cpus.next(), cpus.next()) {
            (None, Some(one), Some(other)) if one != other => rounds.cpus = [one, other],
            (None, Some(one), _) => {
                return Err(format!(
                    "both ranks are bound to cpu {one}: two cpus are needed, see `nproc`"
                )
                .into());
            }
            (why, ..) => {
                let why = why.unwrap_or_else(|| "it printed no cpus".into());
                return Err(format!("Windlass's own ranks cannot be run: {why}").into());
            }
        }
        Ok(rounds)
    }

    fn windlass(&self, place: Place, loops: &[Loop]) -> Command {
        let mut command = Command::new(&self.own.launcher);
        command.args(["run", "-n", "2", "--bind-to", "core"]);
        if place == Place::Nodes {
            command.args(["--nodes", "2"]);
        }
        command.arg(&self.own.program).arg(ranks::WORD);
        command.args(loops.iter().map(ToString::to_string));
        command
    }

    fn peer(&self, peer: &Peer, settings: &Settings, limit: Duration, loops: &[Loop]) -> Command {
        let mut command = peer.mpi.run(peer.family, settings, &peer.program);
        let page = self.page.as_fd().as_raw_fd();
        command.arg(limit.as_secs().to_string());
        command.arg(format!("/proc/{}/fd/{page}", std::process::id()));
        command.args(self.cpus.map(|cpu| cpu.to_string()));
        command.args(loops.iter().map(ToString::to_string));
        command
    }

    /// Is each library started on one host, and on two nodes? Windlass first.
    pub(crate) fn started(&self) -> Vec<Started> {
        let peers = self.peers.iter();
        let peers = peers.map(|peer| peer.settings.each_ref().map(Option::is_some));
        [[true; 2]].into_iter().chain(peers).collect()
    }

    /// Windlass has to bear at each place what its peers have to.
    pub(crate) fn check_own(&self, places: &[Place]) -> Result<(), Failure> {
        for &place in places {
            let mut loops = tried(place);
            loops.retain(|line| line.name == ARRIVAL);
            let outcome = child::run(&mut self.windlass(place, &loops), TRY_LIMIT);
            if let Some(why) = outcome.failure.clone().or_else(|| early(&outcome)) {
                return Err(format!("Windlass's own ranks: {why}").into());
            }
        }
        Ok(())
    }

    /// Builds with a library and looks for its best settings; what does not work is a remark.
    pub(crate) fn add(
        &mut self,
        mpi: Mpi,
        dir: &std::path::Path,
        places: &[Place],
        progress: &Progress,
    ) {
        progress.say(&format!("building with {}", mpi.mpicc.display()));
        match mpi.build(dir, &format!("rma-{}", self.peers.len())) {
            Ok(program) => self.prepare(mpi.clone(), program, "", places, progress),
            Err(why) => self.remark(format!("left out: {why}")),
        }
        if let Some(program) = mpi.rust_program(&std::env::var_os("PATH").unwrap_or_default()) {
            self.prepare(mpi, program, FROM_RUST, places, progress);
        }
    }

    /// Looks for the best settings of a program; `suffix` tells it from others of the same library.
    fn prepare(
        &mut self,
        mpi: Mpi,
        program: PathBuf,
        suffix: &'static str,
        places: &[Place],
        progress: &Progress,
    ) {
        let mut peer = Peer {
            family: mpi.family(),
            label: String::new(),
            suffix,
            settings: [None, None],
            mpi,
            program,
        };
        for &place in places {
            progress.say(&format!(
                "looking for the best settings of {}",
                peer.mpi.mpiexec.display()
            ));
            peer.settings[place as usize] = self.best_settings(&mut peer, place);
        }
        if peer.settings.iter().any(Option::is_some) {
            self.peers.push(peer);
        }
    }

    /// The fastest of the settings that work.
    fn best_settings(&mut self, peer: &mut Peer, place: Place) -> Option<Settings> {
        let loops = tried(place);
        let mut best: Option<(f64, Settings)> = None;
        let mut refusals = Vec::new();
        for settings in mpi::settings(peer.family, place) {
            let sent = loopback_bytes();
            let outcome = child::run(
                &mut self.peer(peer, &settings, TRY_LIMIT, &loops),
                TRY_LIMIT,
            );
            let sent = loopback_bytes().saturating_sub(sent);
            if let Some(version) = outcome.after("version") {
                peer.label = format!("{}{}", mpi::label(version), peer.suffix);
            }
            let why = match (&outcome.failure, early(&outcome)) {
                (Some(why), _) => Some(why.clone()),
                _ if place == Place::Nodes && sent < TRIED_BYTES => {
                    Some("its data did not go over TCP".into())
                }
                (None, why) => why,
            };
            if let Some(why) = why {
                refusals.push(format!("{}: {why}", settings.say()));
                continue;
            }
            let cost = cost(&outcome, &loops);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, settings));
            }
        }
        let name = match peer.label.as_str() {
            "" => peer.mpi.mpiexec.display().to_string(),
            label => label.into(),
        };
        let place = match place {
            Place::Host => "on one host",
            Place::Nodes => "over TCP",
        };
        let why = refusals.join("; ");
        match (&best, refusals.is_empty()) {
            (Some(_), true) => {}
            (Some(_), false) => self.remark(format!("{name} {place} not with {why}")),
            (None, false) => self.remark(format!("{name} is left out {place}: with {why}")),
            (None, true) => self.remark(format!(
                "{name} is left out {place}: no settings for it are known"
            )),
        }
        best.map(|(_, settings)| settings)
    }

    /// One round: each library once at each place; who is first changes.
    pub(crate) fn round(&mut self, round: usize, lines: &[Line], progress: &Progress) {
        for place in [Place::Host, Place::Nodes] {
            let there: Vec<&Line> = lines.iter().filter(|line| line.place == place).collect();
            if there.is_empty() {
                continue;
            }
            let libraries = 1 + self.peers.len();
            for turn in 0..libraries {
                let library = (turn + round) % libraries;
                progress.say(&format!("round {}: {}", round + 1, self.label(library)));
                self.start(library, place, round, &there);
            }
        }
    }

    /// Windlass, then the peers.
    pub(crate) fn label(&self, library: usize) -> String {
        match library.checked_sub(1).map(|at| &self.peers[at]) {
            None => format!("Windlass {}", env!("CARGO_PKG_VERSION")),
            Some(peer) => peer.label.clone(),
        }
    }

    fn start(&mut self, library: usize, place: Place, round: usize, lines: &[&Line]) {
        let timed =
            |line: &&&Line| line.role != Role::Start && (library == 0 || line.role != Role::Raw);
        let timed = lines.iter().filter(timed);
        let loops: Vec<Loop> = timed.map(|line| line.timed.clone()).collect();
        let mut command = match library.checked_sub(1).map(|at| &self.peers[at]) {
            None => self.windlass(place, &loops),
            Some(peer) => {
                let Some(settings) = &peer.settings[place as usize] else {
                    return;
                };
                self.peer(peer, settings, LIMIT, &loops)
            }
        };
        let outcome = child::run(&mut command, LIMIT);
        let blocks = outcome.lines.iter();
        let blocks: Vec<Block> = blocks
            .filter_map(|line| Block::parse(line, library, round))
            .collect();
        if let Some(why) = &outcome.failure {
            let reached = blocks
                .last()
                .and_then(|block| lines.iter().find(|line| line.timed.number == block.line));
            let reached = reached.map_or_else(
                || "before its first line".into(),
                |line| format!("after the line {}", line.key),
            );
            self.remark(format!(
                "{}, round {}: {why}, {reached}",
                self.label(library),
                round + 1
            ));
        }
        self.blocks.extend(blocks);
        let start = lines.iter().find(|line| line.role == Role::Start);
        if let (Some(line), Some(seconds)) = (start, start_up(&outcome)) {
            self.blocks.push(Block {
                line: line.timed.number,
                library,
                round,
                seconds,
                iterations: 1,
                hops: None,
            });
        }
    }

    fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }
}

/// From the command to the first barrier.
fn start_up(outcome: &Outcome) -> Option<f64> {
    let started: u128 = outcome.after("started")?.parse().ok()?;
    let began = outcome.began.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(started.checked_sub(began)? as f64 * 1e-9)
}

/// Does a flush return before the data are at the target? What is timed would not be the same then.
fn early(outcome: &Outcome) -> Option<String> {
    let said = outcome.lines.iter();
    let said = said.filter_map(|line| line.strip_prefix("early ")?.split_once(' '));
    let counts = said.filter_map(|(_, counts)| counts.split_once(' '));
    let (early, all) = counts.clone().find(|(early, _)| *early != "0")?;
    Some(format!(
        "{early} of {all} flushes returned before the data were at the target"
    ))
}

/// What settings are compared by, and have to bear: on one host small puts into both kinds of window, an update, and making
/// windows; between nodes small puts and bandwidth. Everywhere that flushes wait for the data to arrive.
fn tried(place: Place) -> Vec<Loop> {
    let mut texts = match place {
        Place::Host => vec![
            "0:put-latency:allocate:flush:plain:8:2000:3".into(),
            "1:put-latency:create:flush:plain:8:500:3".into(),
            "2:cas-latency:allocate:flush:plain:8:1000:3".into(),
            "3:window-create:allocate:flush:plain:4096:20:3".into(),
        ],
        Place::Nodes => vec![
            "0:put-latency:create:flush:plain:8:200:3".into(),
            format!("1:put-bw:create:flush:plain:{TRIED_SIZE}:1:2"),
        ],
    };
    for (size, iterations) in ARRIVALS {
        let number = texts.len();
        texts.push(format!(
            "{number}:{ARRIVAL}:create:flush:plain:{size}:{iterations}:1"
        ));
    }
    let loops = texts.iter().map(|text: &String| text.parse());
    loops.filter_map(Result::ok).collect()
}

/// Product of the times of the fastest blocks, as a logarithm.
fn cost(outcome: &Outcome, loops: &[Loop]) -> f64 {
    let blocks: Vec<Block> = outcome
        .lines
        .iter()
        .filter_map(|line| Block::parse(line, 1, 0))
        .collect();
    let of = |number| {
        blocks
            .iter()
            .filter(move |block| block.line == number)
            .map(|block| block.seconds)
    };
    let timed = loops.iter().filter(|line| line.name != ARRIVAL);
    let fastest = timed.map(|line| of(line.number).fold(f64::INFINITY, f64::min));
    fastest.map(f64::ln).sum()
}

/// Bytes that the loopback device has received.
fn loopback_bytes() -> u64 {
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    bytes.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn what_is_tried_is_understood() {
        for place in [Place::Host, Place::Nodes] {
            let loops = tried(place);
            assert!(loops.len() >= 2, "{loops:?}");
            let outcome = |first: [f64; 2]| Outcome {
                began: SystemTime::now(),
                lines: loops
                    .iter()
                    .map(|line| {
                        let seconds = first.get(line.number).unwrap_or(&1.0);
                        format!("block {} {seconds} 1 1 1", line.number)
                    })
                    .collect(),
                failure: None,
            };
            let cost = |times| cost(&outcome(times), &loops);
            assert!(cost([1.0, 3.0]) < cost([2.0, 2.0]));
            let unfinished = Outcome {
                lines: Vec::new(),
                ..outcome([1.0; 2])
            };
            assert_eq!(super::cost(&unfinished, &loops), f64::INFINITY);
        }
    }

    #[test]
    fn a_flush_that_returns_early_is_told() {
        let said = |lines: &[&str]| {
            early(&Outcome {
                began: SystemTime::now(),
                lines: lines.iter().map(|&line| line.into()).collect(),
                failure: None,
            })
        };
        assert_eq!(said(&["block 0 1 1 1 1", "early 4 0 100"]), None);
        let why = said(&["early 4 0 100", "early 5 98 100"]).expect("two arrived");
        assert!(why.starts_with("98 of 100 flushes"), "{why}");
    }

    #[test]
    fn start_up_is_counted_from_the_command() {
        let mut outcome = Outcome {
            began: UNIX_EPOCH + Duration::from_secs(5),
            lines: vec!["started 5250000000".into()],
            failure: None,
        };
        assert_eq!(start_up(&outcome), Some(0.25));
        outcome.lines = vec!["started 4".into()];
        assert_eq!(start_up(&outcome), None);
    }
}
